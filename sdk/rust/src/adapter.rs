//! Training models and predicting with them.

use serde::de::DeserializeOwned;

pub use crate::bindings::adapter::exports::sandcast::plugin::adapter::{
    Declaration, Description, GenerationOptions, Trained,
};
pub use crate::bindings::imports::sandcast::plugin::compute::{Predictor, Session};
pub use crate::bindings::imports::sandcast::plugin::models::{Model, Task, TaskKind, Training};
use crate::forest::{Forest, ForestPlan};
use crate::graph::Graph;
use crate::{Batch, Failure, Field, Kind};

/// Trains a model and predicts with it. Its functions share no state but what the host hands them:
/// a prediction runs in an instance that has never trained.
///
/// ```
/// use sandcast_sdk::graph::{Encoding, Graph, GraphBuilder, Initializer, Optimizer, bind};
/// use sandcast_sdk::{Adapter, Batch, Declaration, Description, Failure, Field, Model, Task, TaskKind, Trained, Training, target};
/// use sandcast_sdk::columns::Rows;
/// use sandcast_sdk::graph::{Program, Schedule, Session, TrainPlan};
///
/// /// Least squares over numbers.
/// struct Linear;
///
/// #[derive(serde::Deserialize)]
/// #[serde(default)]
/// struct Hyperparameters {
///     epochs: u32,
/// }
///
/// impl Default for Hyperparameters {
///     fn default() -> Self {
///         Self { epochs: 20 }
///     }
/// }
///
/// fn graph(features: u32) -> Graph {
///     let g = GraphBuilder::new();
///     let rows = g.symbol("rows", 4096);
///     let x = g.input_f32("x", [rows, features.into()]);
///     let y = g.input_f32("y", [rows]);
///     let weights = g.parameter("weights", &[features, 1], Initializer::Zeros);
///     let bias = g.parameter("bias", &[1], Initializer::Zeros);
///     let prediction = (x.matmul(weights) + bias).reshape([rows]);
///     g.entry("predict", &[("prediction", prediction.into())]);
///     g.minimise(prediction.squared_error(y), None, Optimizer::adam());
///     g.finish()
/// }
///
/// impl Adapter for Linear {
///     type Hyperparameters = Hyperparameters;
///
///     fn describe() -> Description {
///         Description {
///             name: "linear".into(),
///             tasks: vec![TaskKind::Regression],
///             hyperparameters: r#"{"properties": {"epochs": {"type": "integer", "default": 20}}}"#.into(),
///         }
///     }
///
///     fn declare(task: &Task, _cardinalities: &[u32], _: Hyperparameters) -> Result<Declaration, Failure> {
///         Ok(graph(task.features.len() as u32).into())
///     }
///
///     fn train(training: &Training, hyperparameters: Hyperparameters) -> Result<Trained, Failure> {
///         let task = training.task();
///         let program = Program::compile(&graph(task.features.len() as u32))?;
///         let session = Session::create(program, training.seed())?;
///         let features = task.features.iter().map(|field| field.name.clone()).collect();
///         session.bind(&[bind("x", Encoding::Numbers(features)), bind("y", Encoding::Target(target(&task)?.to_owned()))])?;
///         let plan = TrainPlan {
///             epochs: hyperparameters.epochs,
///             epoch_rows: None,
///             batch_rows: 256,
///             learning_rate: 0.01,
///             schedule: Schedule::Constant,
///             clip_norm: None,
///             patience: None,
///             shuffle: true,
///             accumulate_steps: 1,
///         };
///         session.train(training.training_rows(), training.validation_rows(), plan)?;
///         Ok(Trained::new(Vec::new(), session))
///     }
///
///     fn predict(model: &Model, rows: Batch) -> Result<Batch, Failure> {
///         let results = model.session()?.infer("predict", rows)?;
///         let values = results.first().map(|result| result.value.values()).unwrap_or_default();
///         Rows::new().float64("prediction", values.into_iter().map(f64::from).collect::<Vec<_>>()).into_batch()
///     }
/// }
///
/// sandcast_sdk::export_adapter!(Linear);
/// # fn main() {}
/// ```
pub trait Adapter {
    /// The hyperparameters, parsed from a JSON object.
    type Hyperparameters: DeserializeOwned;

    /// What the adapter is and takes.
    fn describe() -> Description;

    /// What [`Adapter::train`] would train for features whose categories have these sizes (0 for a
    /// number), so that it can be seen and priced before anything runs.
    ///
    /// # Errors
    /// `invalid-config` for hyperparameters, `unsupported` for a task that make no sense here.
    fn declare(
        task: &Task,
        cardinalities: &[u32],
        hyperparameters: Self::Hyperparameters,
    ) -> Result<Declaration, Failure>;

    /// Trains. What it returns is all that a prediction sees.
    ///
    /// # Errors
    /// Whatever keeps the adapter from training.
    fn train(
        training: &Training,
        hyperparameters: Self::Hyperparameters,
    ) -> Result<Trained, Failure>;

    /// For a classification, a float64 column `probability:<class>` for each class; for a
    /// regression, a float64 column `prediction`; for an anomaly detection, a float64 column
    /// `score`, larger for a row that is more unusual; for a clustering, an int64 column `cluster`
    /// and a float64 column `distance` to its centre; for a text generation, a float64 column `loss`,
    /// the mean of minus the log-probability of each token of the text, and an int64 column
    /// `tokens`. As many rows as it was given, in their order.
    ///
    /// # Errors
    /// Whatever keeps the adapter from predicting.
    fn predict(model: &Model, rows: Batch) -> Result<Batch, Failure>;

    /// For a text generation, goes on from the text of each row: a utf8 column `text` of what was
    /// written after it, an int64 column `tokens`, and a utf8 column `finish`, `stop` or `length`.
    /// Text may be told on the way by [`Model::wrote`].
    ///
    /// # Errors
    /// `unsupported` unless the adapter says otherwise, and whatever keeps it from writing.
    fn generate(
        model: &Model,
        prompts: Batch,
        options: GenerationOptions,
    ) -> Result<Batch, Failure> {
        let _ = (model, prompts, options);
        Err(Failure::unsupported("this adapter does not write texts"))
    }
}

/// The column that a task is to predict.
///
/// # Errors
/// `unsupported` for a kind of task that learns without one.
pub fn target(task: &Task) -> Result<&str, Failure> {
    task.target.as_deref().ok_or_else(|| {
        Failure::unsupported("this task has no target, and there is nothing to learn to predict")
    })
}

/// The schema of a prediction: float64 columns `probability:<class>`, `prediction` or `score`, or
/// an int64 column `cluster` and a float64 column `distance`, or a float64 column `loss` and an int64
/// column `tokens`; none of them with nulls.
#[must_use]
pub fn prediction_schema(task: &Task) -> Vec<Field> {
    let of = |name: &str, kind: Kind| Field {
        name: name.to_owned(),
        kind,
        nullable: false,
    };
    let column = |name: String| of(&name, Kind::Float64);
    match task.kind {
        TaskKind::Regression => vec![of("prediction", Kind::Float64)],
        TaskKind::AnomalyDetection => vec![of("score", Kind::Float64)],
        TaskKind::Clustering => vec![of("cluster", Kind::Int64), of("distance", Kind::Float64)],
        TaskKind::TextGeneration => vec![of("loss", Kind::Float64), of("tokens", Kind::Int64)],
        TaskKind::BinaryClassification | TaskKind::MulticlassClassification => task
            .classes
            .iter()
            .map(|class| column(format!("probability:{class}")))
            .collect(),
    }
}

impl Trained {
    /// A model of what predicts, a session or a forest, and of what the adapter wants to see again
    /// at `predict`.
    #[must_use]
    pub fn new(state: Vec<u8>, predictor: impl Into<Predictor>) -> Self {
        Self {
            state,
            predictor: predictor.into(),
        }
    }
}

impl Model {
    /// The session that predicts.
    ///
    /// # Errors
    /// When a forest does.
    pub fn session(&self) -> Result<Session, Failure> {
        match self.predictor() {
            Predictor::Session(session) => Ok(session),
            Predictor::Forest(_) => Err(Failure::invalid_input(
                "the model is a forest, and this adapter needs a session",
            )),
        }
    }

    /// The forest that predicts.
    ///
    /// # Errors
    /// When a session does.
    pub fn forest(&self) -> Result<Forest, Failure> {
        match self.predictor() {
            Predictor::Forest(forest) => Ok(forest),
            Predictor::Session(_) => Err(Failure::invalid_input(
                "the model is a session, and this adapter needs a forest",
            )),
        }
    }
}

impl From<Session> for Predictor {
    fn from(session: Session) -> Self {
        Self::Session(session)
    }
}

impl From<Forest> for Predictor {
    fn from(forest: Forest) -> Self {
        Self::Forest(forest)
    }
}

impl Declaration {
    /// The graph, if it is one.
    #[must_use]
    pub fn into_graph(self) -> Option<Graph> {
        match self {
            Self::Graph(graph) => Some(graph),
            Self::Forest(_) => None,
        }
    }

    /// The plan of a forest, if it is one.
    #[must_use]
    pub fn into_forest(self) -> Option<ForestPlan> {
        match self {
            Self::Forest(plan) => Some(plan),
            Self::Graph(_) => None,
        }
    }
}

impl From<Graph> for Declaration {
    fn from(graph: Graph) -> Self {
        Self::Graph(graph)
    }
}

impl From<ForestPlan> for Declaration {
    fn from(plan: ForestPlan) -> Self {
        Self::Forest(plan)
    }
}

/// Exports an [`Adapter`] from this component.
#[macro_export]
macro_rules! export_adapter {
    ($plugin:ty) => {
        const _: () = {
            struct Component;

            impl $crate::bindings::adapter::exports::sandcast::plugin::adapter::Guest for Component {
                fn describe() -> $crate::Description {
                    <$plugin as $crate::Adapter>::describe()
                }

                fn declare(
                    task: $crate::Task,
                    cardinalities: ::std::vec::Vec<u32>,
                    hyperparameters: ::std::string::String,
                ) -> ::core::result::Result<$crate::Declaration, $crate::Failure> {
                    let hyperparameters = $crate::config::parse(&hyperparameters)?;
                    <$plugin as $crate::Adapter>::declare(&task, &cardinalities, hyperparameters)
                }

                fn train(
                    training: $crate::Training,
                ) -> ::core::result::Result<$crate::Trained, $crate::Failure> {
                    let hyperparameters = $crate::config::parse(&training.hyperparameters())?;
                    <$plugin as $crate::Adapter>::train(&training, hyperparameters)
                }

                fn predict(
                    model: $crate::Model,
                    rows: $crate::Batch,
                ) -> ::core::result::Result<$crate::Batch, $crate::Failure> {
                    <$plugin as $crate::Adapter>::predict(&model, rows)
                }

                fn generate(
                    model: $crate::Model,
                    prompts: $crate::Batch,
                    options: $crate::GenerationOptions,
                ) -> ::core::result::Result<$crate::Batch, $crate::Failure> {
                    <$plugin as $crate::Adapter>::generate(&model, prompts, options)
                }
            }

            // A native build has no component to export from, and its linker refuses the names.
            #[cfg(target_family = "wasm")]
            $crate::bindings::adapter::export!(Component with_types_in $crate::bindings::adapter);
            // In a native build nothing else uses it, and the whole plugin would count as dead.
            let _ = Component;
        };
    };
}
