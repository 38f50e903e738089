//! Classifies rows and predicts numbers by a multilayer perceptron.
//!
//! The network is one declared graph, from the columns as they are to the probabilities: what the
//! training rows say about their columns is written into it as constants. A prediction therefore
//! needs nothing but the graph, its weights and the host.

use sandcast_sdk::columns::Rows;
use sandcast_sdk::graph::{
    Binding, Category, Cosine, Encoding, Program, ResultTensor, Schedule, TrainPlan, bind,
};
use sandcast_sdk::{
    Adapter, Batch, Dataset, Declaration, Description, Failure, Model, Session, Task, TaskKind,
    Trained, Training, prediction_schema, target,
};
use serde::Serialize;

use crate::features::Features;
use crate::hyperparameters::ScheduleKind;
use crate::survey::{Learnt, Survey, unseen_head};

mod features;
mod hyperparameters;
mod network;
mod pieces;
mod survey;

pub use crate::hyperparameters::{
    Activation, ClassWeights, Hyperparameters, Impute, NamedWeights, RegressionLoss,
    ScheduleKind as LearningRateSchedule,
};

/// The share of the learning rate that a cosine schedule ends with.
const COSINE_FLOOR: f32 = 0.01;

/// A multilayer perceptron over the columns of a table.
#[derive(Debug)]
pub struct MlpAdapter;

/// What is kept beside the weights, for people and for later versions; a prediction needs none of
/// it, since it is all in the graph.
#[derive(Debug, Serialize)]
struct State<'a> {
    version: u32,
    features: &'a Features,
    vocabularies: &'a [Vec<String>],
    hyperparameters: &'a Hyperparameters,
    best_epoch: u32,
}

impl Adapter for MlpAdapter {
    type Hyperparameters = Hyperparameters;

    fn describe() -> Description {
        Description {
            name: "multilayer perceptron".into(),
            tasks: vec![
                TaskKind::BinaryClassification,
                TaskKind::MulticlassClassification,
                TaskKind::Regression,
            ],
            hyperparameters: Hyperparameters::json_schema(),
        }
    }

    fn declare(
        task: &Task,
        cardinalities: &[u32],
        hyperparameters: Hyperparameters,
    ) -> Result<Declaration, Failure> {
        hyperparameters.check()?;
        target(task)?;
        if cardinalities.len() != task.features.len() {
            return Err(Failure::invalid_input(format!(
                "{} cardinalities for {} features",
                cardinalities.len(),
                task.features.len()
            )));
        }
        let features = Features::of(&task.features, &hyperparameters, |place| {
            cardinalities[place]
        });
        refuse_nothing(&features)?;
        let head = unseen_head(task, &hyperparameters)?;
        Ok(network::declare(&features, &head, task.weight.is_some(), &hyperparameters).into())
    }

    fn train(training: &Training, hyperparameters: Hyperparameters) -> Result<Trained, Failure> {
        hyperparameters.check()?;
        let task = training.task();
        target(&task)?;
        let dataset = training.training_rows();
        let rows = dataset.rows();
        if rows == 0 {
            return Err(Failure::invalid_input("there are no rows to learn from"));
        }
        let learnt = survey(&task, &hyperparameters, &dataset)?;
        refuse_nothing(&learnt.features)?;
        for (category, vocabulary) in learnt.features.categories.iter().zip(&learnt.vocabularies) {
            if vocabulary.is_empty() {
                sandcast_sdk::log::warn!(
                    "no value of `{}` comes in {} rows or more, so it says nothing; leave it out of the features",
                    category.column,
                    hyperparameters.min_frequency
                );
            }
        }

        let graph = network::declare(
            &learnt.features,
            &learnt.head,
            task.weight.is_some(),
            &hyperparameters,
        );
        let session = Session::create(Program::compile(&graph)?, training.seed())?;
        session.bind(&bindings(&task, &learnt)?)?;
        let report = session.train(
            dataset,
            training.validation_rows(),
            plan(&hyperparameters, rows),
        )?;

        let state = State {
            version: 1,
            features: &learnt.features,
            vocabularies: &learnt.vocabularies,
            hyperparameters: &hyperparameters,
            best_epoch: report.best_epoch,
        };
        let state =
            serde_json::to_vec(&state).map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Trained::new(state, session))
    }

    fn predict(model: &Model, rows: Batch) -> Result<Batch, Failure> {
        let results = model.session()?.infer(network::INFER, rows)?;
        let [ResultTensor { value, .. }] = results.as_slice() else {
            return Err(Failure::internal(format!(
                "the network gave {} results",
                results.len()
            )));
        };
        let schema = prediction_schema(&model.task());
        let mut columns = Rows::new();
        for (field, values) in schema.iter().zip(apart(&value.values(), schema.len())) {
            columns = columns.float64(&field.name, values);
        }
        columns.into_batch()
    }
}

fn refuse_nothing(features: &Features) -> Result<(), Failure> {
    if features.is_empty() {
        return Err(Failure::invalid_input("there are no columns to learn from"));
    }
    Ok(())
}

/// Reads the training rows once, the columns of the task only.
fn survey(
    task: &Task,
    hyperparameters: &Hyperparameters,
    dataset: &Dataset,
) -> Result<Learnt, Failure> {
    let mut survey = Survey::new(task, hyperparameters, dataset.rows());
    let names = survey.column_names();
    for index in 0..dataset.batches() {
        let batch = dataset.read(index, &names)?;
        for place in 0..names.len() {
            survey.add(place, &batch.column(place as u32)?)?;
        }
    }
    survey.finish()
}

/// How the columns fill the inputs of the network.
fn bindings(task: &Task, learnt: &Learnt) -> Result<Vec<Binding>, Failure> {
    let mut bindings = Vec::new();
    if !learnt.features.numbers.is_empty() {
        bindings.push(bind(
            "numbers",
            Encoding::Numbers(learnt.features.number_columns()),
        ));
    }
    if !learnt.features.categories.is_empty() {
        let categories = learnt.features.category_columns(&learnt.vocabularies);
        bindings.push(bind("categories", Encoding::Categories(categories)));
    }
    let target = target(task)?.to_owned();
    bindings.push(match task.kind {
        TaskKind::Regression => bind("target", Encoding::Target(target)),
        _ => {
            let vocabulary = task.classes.clone();
            bind(
                "label",
                Encoding::Labels(Category {
                    column: target,
                    vocabulary,
                }),
            )
        }
    });
    if let Some(weight) = &task.weight {
        bindings.push(bind("weight", Encoding::Target(weight.clone())));
    }
    Ok(bindings)
}

fn plan(hyperparameters: &Hyperparameters, rows: u64) -> TrainPlan {
    let steps =
        rows.div_ceil(u64::from(hyperparameters.batch_rows)) * u64::from(hyperparameters.epochs);
    TrainPlan {
        epochs: hyperparameters.epochs,
        epoch_rows: None,
        batch_rows: hyperparameters.batch_rows,
        learning_rate: hyperparameters.learning_rate,
        schedule: match hyperparameters.schedule {
            ScheduleKind::Constant => Schedule::Constant,
            ScheduleKind::Cosine => Schedule::Cosine(Cosine {
                warmup_steps: (steps as f64 * f64::from(hyperparameters.warmup)) as u32,
                floor: COSINE_FLOOR,
            }),
        },
        clip_norm: hyperparameters.clip_norm,
        patience: hyperparameters.patience,
        shuffle: true,
        accumulate_steps: 1,
    }
}

/// The columns of a row-major matrix.
fn apart(matrix: &[f32], columns: usize) -> Vec<Vec<f64>> {
    (0..columns)
        .map(|column| {
            matrix
                .iter()
                .skip(column)
                .step_by(columns.max(1))
                .map(|value| f64::from(*value))
                .collect()
        })
        .collect()
}

sandcast_sdk::export_adapter!(MlpAdapter);

#[cfg(test)]
mod testing {
    //! Columns and tasks made by hand.

    use sandcast_sdk::columns::ColumnBuilder;
    use sandcast_sdk::{Column, Field, Kind, Task, TaskKind};

    pub(crate) fn task(kind: TaskKind, features: Vec<Field>, classes: &[&str]) -> Task {
        let classes = classes.iter().map(|class| (*class).to_owned()).collect();
        Task {
            kind,
            features,
            target: Some("y".into()),
            classes,
            weight: None,
        }
    }

    pub(crate) fn column(kind: Kind, fill: impl FnOnce(&mut ColumnBuilder)) -> Column {
        let mut builder = ColumnBuilder::new(kind);
        fill(&mut builder);
        builder.finish()
    }

    pub(crate) fn strings(values: &[Option<&str>]) -> Column {
        values.iter().copied().collect()
    }

    pub(crate) fn integers(values: &[Option<i64>]) -> Column {
        column(Kind::Int64, |builder| {
            for value in values {
                match (&mut *builder, value) {
                    (ColumnBuilder::Int64(numbers), Some(value)) => numbers.push(*value),
                    (builder, _) => builder.push_null(),
                }
            }
        })
    }

    pub(crate) fn floats(values: &[Option<f64>]) -> Column {
        column(Kind::Float64, |builder| {
            for value in values {
                match (&mut *builder, value) {
                    (ColumnBuilder::Float64(numbers), Some(value)) => numbers.push(*value),
                    (builder, _) => builder.push_null(),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::task;
    use sandcast_sdk::Kind;
    use sandcast_sdk::columns::field;
    use sandcast_sdk::graph::Graph;

    fn features() -> Vec<sandcast_sdk::Field> {
        vec![
            field("age", Kind::Int64, true),
            field("city", Kind::Utf8, true),
            field("sex", Kind::Utf8, false),
            field("since", Kind::Date32, false),
        ]
    }

    fn declared(task: &Task, cardinalities: &[u32], hyperparameters: Hyperparameters) -> Graph {
        let declared = MlpAdapter::declare(task, cardinalities, hyperparameters);
        declared.expect("declared").into_graph().expect("a graph")
    }

    fn input_names(graph: &Graph) -> Vec<String> {
        use sandcast_sdk::bindings::imports::sandcast::plugin::compute::Node;
        graph
            .nodes
            .iter()
            .filter_map(|node| match node {
                Node::Input(input) => Some(input.name.clone()),
                _ => None,
            })
            .collect()
    }

    fn parameters(graph: &Graph) -> Vec<(String, Vec<u32>)> {
        use sandcast_sdk::bindings::imports::sandcast::plugin::compute::Node;
        graph
            .nodes
            .iter()
            .filter_map(|node| match node {
                Node::Parameter(parameter) => {
                    Some((parameter.name.clone(), parameter.shape.clone()))
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_binary_task_is_declared_whole() {
        let mut task = task(TaskKind::BinaryClassification, features(), &["no", "yes"]);
        task.weight = Some("w".into());
        let hyperparameters = Hyperparameters {
            hidden: vec![16],
            ..Hyperparameters::default()
        };
        let graph = declared(&task, &[0, 100, 2, 0], hyperparameters);
        assert_eq!(
            input_names(&graph),
            ["numbers", "categories", "weight", "label"]
        );
        // 2 numbers, 1 indicator, 48 pieces each, an embedding of 21 for 100 cities, 3 places for
        // 2 sexes.
        let shapes = parameters(&graph);
        assert_eq!(shapes[0], ("embedding.0".into(), vec![101, 21]));
        assert_eq!(shapes[1], ("hidden.0.weights".into(), vec![123, 16]));
        assert_eq!(shapes[3], ("output.weights".into(), vec![16, 1]));
        assert_eq!(graph.entries[0].outputs[0].name, "probabilities");
        assert!(graph.loss.is_some_and(|loss| loss.weight.is_some()));
    }

    #[test]
    fn a_multiclass_task_and_a_regression_are_declared() {
        let hyperparameters = Hyperparameters {
            hidden: vec![],
            dropout: 0.0,
            ..Hyperparameters::default()
        };
        let multi = task(
            TaskKind::MulticlassClassification,
            features(),
            &["a", "b", "c"],
        );
        let graph = declared(&multi, &[0, 3, 2, 0], hyperparameters.clone());
        assert_eq!(parameters(&graph)[0].1, [106, 3]);
        let regression = task(TaskKind::Regression, features(), &[]);
        let graph = declared(&regression, &[0, 3, 2, 0], hyperparameters);
        assert_eq!(input_names(&graph), ["numbers", "categories", "target"]);
        assert_eq!(graph.entries[0].outputs[0].name, "prediction");
    }

    #[test]
    fn many_columns_are_joined_in_turns() {
        let columns = (0..600)
            .map(|place| field(&format!("c{place}"), Kind::Utf8, false))
            .collect();
        let task = task(TaskKind::Regression, columns, &[]);
        let graph = declared(&task, &[1; 600], Hyperparameters::default());
        assert_eq!(parameters(&graph)[0].1, [1_200, 128]);
    }

    #[test]
    fn what_cannot_be_declared_is_a_failure() {
        let task = task(TaskKind::BinaryClassification, features(), &["no", "yes"]);
        assert!(
            MlpAdapter::declare(&task, &[0], Hyperparameters::default())
                .expect_err("one size")
                .message
                .contains("4 features")
        );
        let no_columns = Task {
            features: vec![],
            ..task.clone()
        };
        assert!(MlpAdapter::declare(&no_columns, &[], Hyperparameters::default()).is_err());
        let wrong = Hyperparameters {
            epochs: 0,
            ..Hyperparameters::default()
        };
        assert!(
            MlpAdapter::declare(&task, &[0, 1, 1, 0], wrong)
                .expect_err("no epochs")
                .message
                .contains("`epochs`")
        );
    }

    #[test]
    fn bindings_fill_every_input() {
        let mut task = task(TaskKind::BinaryClassification, features(), &["no", "yes"]);
        task.weight = Some("w".into());
        let hyperparameters = Hyperparameters::default();
        let learnt = Survey::new(&task, &hyperparameters, 0)
            .finish()
            .expect("nothing seen");
        let names: Vec<String> = bindings(&task, &learnt)
            .expect("a target")
            .into_iter()
            .map(|binding| binding.input)
            .collect();
        assert_eq!(names, ["numbers", "categories", "label", "weight"]);
    }

    #[test]
    fn the_warm_up_is_a_share_of_all_steps() {
        let hyperparameters = Hyperparameters {
            epochs: 10,
            batch_rows: 100,
            warmup: 0.05,
            ..Hyperparameters::default()
        };
        let plan = plan(&hyperparameters, 1_950);
        assert!(matches!(
            plan.schedule,
            Schedule::Cosine(Cosine {
                warmup_steps: 10,
                ..
            })
        ));
    }

    #[test]
    fn a_matrix_comes_apart_into_columns() {
        assert_eq!(apart(&[1.0, 2.0, 3.0, 4.0], 2), [[1.0, 3.0], [2.0, 4.0]]);
        assert_eq!(apart(&[], 2), [[0.0; 0], [0.0; 0]]);
    }
}
