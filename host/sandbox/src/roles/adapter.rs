//! Trains a model and predicts with it.

use std::io;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use sandcast_audit::Digest;
use sandcast_kernels::graph::Graph;
use sandcast_kernels::trees::ForestPlan;
use sandcast_kernels::{Precision, Program};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;

use super::{Cost, ProgressSink, TextSink, TrainReport, check_name};
use crate::bindings::adapter::exports::sandcast::plugin::adapter as wire;
use crate::bindings::adapter::sandcast::plugin::models;
use crate::bindings::adapter::{AdapterPlugin, AdapterPluginPre};
use crate::call::{CallError, Usage};
use crate::columns::{Batch, Dataset};
use crate::grants::compute::{
    self, Checkpointing, ModelHandle, Predictor, PredictorParts, TrainingHandle, Writing,
};
use crate::instance::{Begun, Instance, MAX_SENTENCE_BYTES};
use crate::model::{Model, Task, TaskKind};
use crate::recording::{Call, Recordings, answers, rows_to_bytes};
use crate::sandbox::Sandbox;
use crate::state::State;
use crate::text;

/// What an adapter can do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// What it can learn.
    pub tasks: Vec<TaskKind>,
    /// A JSON Schema of the hyperparameters, with defaults.
    pub hyperparameters: Value,
}

/// What an adapter would train.
#[derive(Clone, Debug, PartialEq)]
pub enum Declaration {
    /// A tensor program.
    Program {
        /// It compiles.
        graph: Graph,
        /// What a run of each entry costs.
        costs: Vec<Cost>,
    },
    /// Decision trees.
    Forest(ForestPlan),
}

/// What to learn from.
pub struct TrainInput {
    /// What is to be learnt.
    pub task: Task,
    /// The adapter's own settings; an object.
    pub hyperparameters: Value,
    /// Same seed, same model.
    pub seed: u64,
    /// Rows to learn from; batches of one schema.
    pub training: Vec<RecordBatch>,
    /// Rows to stop early by.
    pub validation: Option<Vec<RecordBatch>>,
    /// Told how far it has come, from another thread.
    pub progress: Option<ProgressSink>,
    /// How it is kept while it goes on, in the sandbox's folder of compiled plugins; not at all
    /// where there is none.
    pub checkpoints: Option<Checkpointing>,
    /// The least exact that products may be. The processor is always strict.
    pub precision: Precision,
}

/// What came of training.
pub struct Trained {
    /// The model.
    pub model: Arc<Model>,
    /// What the last training of what predicts reported, if it was trained at all.
    pub report: Option<TrainReport>,
    /// What a run of each entry of the program costs; nothing where there is none.
    pub costs: Vec<Cost>,
}

/// How a generation goes on from a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationOptions {
    /// Tokens to write, at least 1.
    pub maximum_tokens: u32,
    /// Divides the logits; at 0 the likeliest token is taken.
    pub temperature: f32,
    /// Only so many of the likeliest tokens count.
    pub top_k: Option<u32>,
    /// Only the likeliest tokens that together reach this probability count.
    pub top_p: Option<f32>,
    /// Texts that end the writing; they are not part of what is written.
    pub stop: Vec<String>,
    /// What draws depend on, beside the place of the row and the place in its text.
    pub seed: u64,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self {
            maximum_tokens: 256,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            stop: Vec::new(),
            seed: 0,
        }
    }
}

impl GenerationOptions {
    /// The most tokens of one text.
    pub const MAX_TOKENS: u32 = 1 << 20;

    /// The most stop texts.
    pub const MAX_STOPS: usize = 16;

    /// The most bytes of one stop text.
    pub const MAX_STOP_BYTES: usize = 1024;

    /// Checks every bound.
    ///
    /// # Errors
    /// With the option at fault and what it may be.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=Self::MAX_TOKENS).contains(&self.maximum_tokens) {
            return Err(format!(
                "the maximum of tokens is {}; make it 1 to {}",
                self.maximum_tokens,
                Self::MAX_TOKENS
            ));
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(format!(
                "the temperature is {}; make it finite and not negative",
                self.temperature
            ));
        }
        if self.top_k == Some(0) {
            return Err("top-k is 0; make it at least 1".into());
        }
        if let Some(share) = self.top_p.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            return Err(format!("top-p is {share}; make it above 0 and at most 1"));
        }
        if self.stop.len() > Self::MAX_STOPS {
            return Err(format!(
                "there are {} stop texts; give at most {}",
                self.stop.len(),
                Self::MAX_STOPS
            ));
        }
        let sizes = 1..=Self::MAX_STOP_BYTES;
        if let Some(stop) = self.stop.iter().find(|stop| !sizes.contains(&stop.len())) {
            return Err(format!(
                "a stop text has {} bytes; make it 1 to {}",
                stop.len(),
                Self::MAX_STOP_BYTES
            ));
        }
        Ok(())
    }
}

/// Bytes of a JSON Schema of hyperparameters.
const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// Bytes of the state that an adapter keeps beside its weights.
const MAX_STATE_BYTES: usize = 64 << 20;

/// How far the probabilities of a row may be from 1 in sum.
const PROBABILITY_TOLERANCE: f64 = 1e-3;

/// An instance that trains and predicts. Dropping a call's future cancels what it computes.
pub struct Adapter {
    instance: Instance,
    guest: AdapterPlugin,
    sandbox: Sandbox,
}

impl Adapter {
    pub(crate) async fn open(
        mut instance: Instance,
        pre: &AdapterPluginPre<State>,
        sandbox: Sandbox,
    ) -> Result<Self, CallError> {
        let Begun { store, patience } = instance.begin()?;
        let guest = timeout(patience, pre.instantiate_async(store)).await;
        let guest = instance.end(guest);
        let guest = instance.keep(guest, |_| Ok(Call::Open), |_, _| Ok(Value::Null))?;
        Ok(Self {
            instance,
            guest,
            sandbox,
        })
    }

    /// What it can do.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn describe(&mut self) -> Result<Description, CallError> {
        let described = self.ask_to_describe().await;
        self.instance.keep(
            described,
            |_| Ok(Call::Describe),
            |_, described| Ok(answers::value(described)),
        )
    }

    async fn ask_to_describe(&mut self) -> Result<Description, CallError> {
        let Begun { store, patience } = self.instance.begin()?;
        let guest = self.guest.sandcast_plugin_adapter();
        let answer = timeout(patience, guest.call_describe(store)).await;
        let described = self.instance.end(answer)?;
        check_description(described).map_err(|what| self.instance.bad_output(what))
    }

    /// What would be trained for features whose categories have these sizes (0 for a number),
    /// checked and priced.
    ///
    /// # Errors
    /// See [`CallError`]; also when the graph does not compile, or the plan makes no sense.
    pub async fn declare(
        &mut self,
        task: &Task,
        cardinalities: &[u32],
        hyperparameters: &Value,
    ) -> Result<Declaration, CallError> {
        let declared = self.ask_to_declare(task, cardinalities, hyperparameters);
        let declared = declared.await;
        let call = |_: &Recordings| {
            Ok(Call::Declare {
                task: task.clone(),
                cardinalities: cardinalities.to_vec(),
                hyperparameters: hyperparameters.clone(),
            })
        };
        self.instance.keep(declared, call, |_, declared| {
            Ok(answers::declaration(declared))
        })
    }

    async fn ask_to_declare(
        &mut self,
        task: &Task,
        cardinalities: &[u32],
        hyperparameters: &Value,
    ) -> Result<Declaration, CallError> {
        if cardinalities.len() != task.features.len() {
            return Err(self.instance.bad_input(format!(
                "{} cardinalities for {} features",
                cardinalities.len(),
                task.features.len()
            )));
        }
        let classes = task.classes.len();
        let (task, hyperparameters) = (models::Task::from(task), hyperparameters.to_string());
        let Begun { store, patience } = self.instance.begin()?;
        let guest = self.guest.sandcast_plugin_adapter();
        let answer = timeout(
            patience,
            guest.call_declare(store, &task, cardinalities, &hyperparameters),
        )
        .await;
        let answer = self.instance.end(answer)?;
        let graph = match self.instance.accept(answer)? {
            wire::Declaration::Graph(graph) => compute::from_wire(graph),
            wire::Declaration::Forest(plan) => {
                let plan = compute::declared(plan, classes).map_err(|what| {
                    let said = text::sentence(&what, MAX_SENTENCE_BYTES);
                    self.instance
                        .bad_output(format!("a forest that cannot be trained: {said}"))
                })?;
                return Ok(Declaration::Forest(plan));
            }
        };
        let memory = self.instance.store()?.data().compute.budget.memory_limit();
        let program = Program::compile(graph, &compute::caps(memory)).map_err(|diagnostic| {
            let said = text::sentence(&diagnostic.to_string(), MAX_SENTENCE_BYTES);
            self.instance
                .bad_output(format!("a graph that does not compile: {said}"))
        })?;
        let costs = program.costs().iter().map(Cost::from).collect();
        Ok(Declaration::Program {
            graph: program.graph().clone(),
            costs,
        })
    }

    /// Trains a model.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn train(&mut self, input: TrainInput) -> Result<Trained, CallError> {
        if !self.instance.is_recorded() {
            return self.ask_to_train(input).await;
        }
        let (task, hyperparameters) = (input.task.clone(), input.hyperparameters.clone());
        let (seed, precision) = (input.seed, input.precision);
        let (training, validation) = (input.training.clone(), input.validation.clone());
        let trained = self.ask_to_train(input).await;
        let call = |parts: &Recordings| {
            let kept = |batches: &[RecordBatch]| match batches.first() {
                Some(first) => parts.put(&rows_to_bytes(&first.schema(), batches)?),
                None => Err(io::Error::other("there are no rows to keep")),
            };
            Ok(Call::Train {
                task,
                hyperparameters,
                seed,
                training: kept(&training)?,
                validation: validation.as_deref().map(kept).transpose()?,
                precision,
            })
        };
        self.instance
            .keep(trained, call, |_, trained| Ok(answers::trained(trained)))
    }

    async fn ask_to_train(&mut self, input: TrainInput) -> Result<Trained, CallError> {
        let lend = |batches: &[RecordBatch]| {
            Dataset::lend(batches).map_err(|error| self.instance.bad_input(error.to_string()))
        };
        let handle = TrainingHandle {
            hyperparameters: input.hyperparameters.to_string(),
            seed: input.seed,
            training: lend(&input.training)?,
            validation: input.validation.as_deref().map(lend).transpose()?,
            task: input.task.clone(),
        };
        let handle = self.instance.push(handle)?;
        let device = self.instance.store()?.data().compute.device.clone();
        let device = device
            .in_precision(input.precision)
            .map_err(|error| self.instance.bad_input(error.to_string()))?;
        let cache = self.sandbox.cache();
        let Begun { store, patience } = self.instance.begin()?;
        let compute = &mut store.data_mut().compute;
        compute.progress = input.progress;
        compute.checkpoints = cache.zip(input.checkpoints);
        let strict = std::mem::replace(&mut compute.device, device);
        let guest = self.guest.sandcast_plugin_adapter();
        let answer = timeout(patience, guest.call_train(store, handle)).await;
        let answer = self.instance.end(answer)?;
        let trained = self.instance.accept(answer)?;
        let compute = &mut self.instance.store()?.data_mut().compute;
        compute.progress = None;
        compute.checkpoints = None;
        compute.device = strict;
        if trained.state.len() > MAX_STATE_BYTES {
            let bytes = trained.state.len();
            return Err(self
                .instance
                .bad_output(format!("a state of {bytes} bytes, over {MAX_STATE_BYTES}")));
        }
        let PredictorParts { predictor, report } =
            self.instance.take_predictor(trained.predictor)?;
        let costs = match &predictor {
            Predictor::Session { session, .. } => {
                session.program().costs().iter().map(Cost::from).collect()
            }
            Predictor::Forest { .. } => Vec::new(),
        };
        let model = Model::new(input.task, trained.state, predictor);
        Ok(Trained {
            model: Arc::new(model),
            report,
            costs,
        })
    }

    /// Predicts: for a classification a float64 column `probability:<class>` for each class, for
    /// a regression a float64 column `prediction`, for an anomaly detection a float64 column
    /// `score`, for a clustering an int64 column `cluster` and a float64 column `distance`, for a
    /// text generation a float64 column `loss` and an int64 column `tokens`; as many rows as it was
    /// given.
    ///
    /// # Errors
    /// See [`CallError`]; also when the columns are others, or probabilities are none.
    pub async fn predict(
        &mut self,
        model: &Arc<Model>,
        rows: &RecordBatch,
    ) -> Result<RecordBatch, CallError> {
        let predicted = self.ask_to_predict(model, rows).await;
        let call = |parts: &Recordings| {
            Ok(Call::Predict {
                model: keep_model(parts, model)?,
                rows: keep_rows(parts, rows)?,
            })
        };
        self.instance.keep(predicted, call, keep_answer)
    }

    async fn ask_to_predict(
        &mut self,
        model: &Arc<Model>,
        rows: &RecordBatch,
    ) -> Result<RecordBatch, CallError> {
        let lent = Batch::lend(rows).map_err(|error| self.instance.bad_input(error.to_string()))?;
        let lent = self.instance.push(lent)?;
        self.instance.count_rows(rows.num_rows());
        let handle = self.instance.push(ModelHandle {
            model: Arc::clone(model),
        })?;
        let Begun { store, patience } = self.instance.begin()?;
        let guest = self.guest.sandcast_plugin_adapter();
        let answer = timeout(patience, guest.call_predict(store, handle, lent)).await;
        let answer = self.instance.end(answer)?;
        let predicted = self.instance.accept(answer)?;
        let predicted = self.instance.take_batch(predicted)?;
        check_prediction(model.task(), rows.num_rows(), &predicted)
            .map_err(|what| self.instance.bad_output(what))?;
        Ok(predicted)
    }

    /// Goes on from texts: a utf8 column `text` of what was written after each, an int64 column
    /// `tokens`, and a utf8 column `finish`, `stop` or `length`. The one column of the rows is the
    /// feature of the task. `watch` is told of text as it is written, as far as the adapter says.
    ///
    /// # Errors
    /// See [`CallError`]; also when the options make no sense, and when the columns are others or
    /// contradict the options or what was said while writing.
    pub async fn generate(
        &mut self,
        model: &Arc<Model>,
        prompts: &RecordBatch,
        options: &GenerationOptions,
        watch: Option<TextSink>,
    ) -> Result<RecordBatch, CallError> {
        let written = self.ask_to_generate(model, prompts, options, watch).await;
        let call = |parts: &Recordings| {
            Ok(Call::Generate {
                model: keep_model(parts, model)?,
                prompts: keep_rows(parts, prompts)?,
                options: options.clone(),
            })
        };
        self.instance.keep(written, call, keep_answer)
    }

    async fn ask_to_generate(
        &mut self,
        model: &Arc<Model>,
        prompts: &RecordBatch,
        options: &GenerationOptions,
        watch: Option<TextSink>,
    ) -> Result<RecordBatch, CallError> {
        options
            .check()
            .map_err(|what| self.instance.bad_input(what))?;
        if model.task().kind != TaskKind::TextGeneration {
            let kind = model.task().kind.name();
            return Err(self
                .instance
                .bad_input(format!("the model was trained for {kind}, not to write")));
        }
        let lent =
            Batch::lend(prompts).map_err(|error| self.instance.bad_input(error.to_string()))?;
        let lent = self.instance.push(lent)?;
        let handle = self.instance.push(ModelHandle {
            model: Arc::clone(model),
        })?;
        let Begun { store, patience } = self.instance.begin()?;
        store.data_mut().compute.writing = Some(Writing::of(prompts.num_rows(), watch));
        let guest = self.guest.sandcast_plugin_adapter();
        let wanted = wire::GenerationOptions {
            maximum_tokens: options.maximum_tokens,
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            stop: options.stop.clone(),
            seed: options.seed,
        };
        let answer = timeout(patience, guest.call_generate(store, handle, lent, &wanted)).await;
        let answer = self.instance.end(answer)?;
        let writing = self.instance.store()?.data_mut().compute.writing.take();
        let generated = self.instance.accept(answer)?;
        let generated = self.instance.take_batch(generated)?;
        let said = writing.map(|writing| writing.rows).unwrap_or_default();
        check_generated(options, prompts.num_rows(), &said, &generated)
            .map_err(|what| self.instance.bad_output(what))?;
        Ok(generated)
    }

    /// The sandbox it lives in.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// Ends the instance and says what it used.
    ///
    /// # Errors
    /// If its recording could not be written; then what it answered counts for nothing.
    pub fn finish(self) -> Result<Usage, CallError> {
        self.instance.finish()
    }

    pub(crate) fn instance(&mut self) -> &mut Instance {
        &mut self.instance
    }
}

/// A model is kept once, as its file.
fn keep_model(parts: &Recordings, model: &Model) -> io::Result<Digest> {
    let digest = model.digest();
    if parts.has(&digest) {
        return Ok(digest);
    }
    parts.put(&model.to_bytes())
}

fn keep_rows(parts: &Recordings, rows: &RecordBatch) -> io::Result<Digest> {
    parts.put(&rows_to_bytes(&rows.schema(), std::slice::from_ref(rows))?)
}

fn keep_answer(parts: &Recordings, rows: &RecordBatch) -> io::Result<Value> {
    Ok(answers::rows_answer(rows, keep_rows(parts, rows)?))
}

fn check_description(described: wire::Description) -> Result<Description, String> {
    check_name("the name of an adapter", &described.name)?;
    if described.tasks.is_empty() || described.tasks.len() > 16 {
        return Err(format!(
            "an adapter for {} sorts of tasks",
            described.tasks.len()
        ));
    }
    if described.hyperparameters.len() > MAX_SCHEMA_BYTES {
        return Err(format!(
            "a schema of {} bytes",
            described.hyperparameters.len()
        ));
    }
    let hyperparameters = serde_json::from_str(&described.hyperparameters)
        .map_err(|error| format!("a schema of hyperparameters that is not JSON: {error}"))?;
    Ok(Description {
        name: described.name,
        tasks: described.tasks.into_iter().map(TaskKind::from).collect(),
        hyperparameters,
    })
}

/// The most clusters that rows are told apart by.
const MAX_CLUSTERS: i64 = 1 << 16;

/// What a column of a prediction holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Shares of the rows' certainty: 0 to 1, and 1 in sum over these columns.
    Probabilities,
    /// Any finite number.
    Numbers,
    /// A finite number of at least 0.
    Distances,
    /// The number of a cluster.
    Clusters,
    /// How many tokens there are.
    Tokens,
}

impl Holds {
    fn data_type(self) -> DataType {
        match self {
            Holds::Probabilities | Holds::Numbers | Holds::Distances => DataType::Float64,
            Holds::Clusters | Holds::Tokens => DataType::Int64,
        }
    }
}

/// The columns that a prediction for a task has.
fn prediction_columns(task: &Task) -> Vec<(String, Holds)> {
    match task.kind {
        TaskKind::BinaryClassification | TaskKind::MulticlassClassification => task
            .classes
            .iter()
            .map(|class| (format!("probability:{class}"), Holds::Probabilities))
            .collect(),
        TaskKind::Regression => vec![("prediction".into(), Holds::Numbers)],
        TaskKind::AnomalyDetection => vec![("score".into(), Holds::Numbers)],
        TaskKind::Clustering => vec![
            ("cluster".into(), Holds::Clusters),
            ("distance".into(), Holds::Distances),
        ],
        TaskKind::TextGeneration => vec![
            ("loss".into(), Holds::Distances),
            ("tokens".into(), Holds::Tokens),
        ],
    }
}

/// A prediction has the rows it was asked for, the columns of its task, and numbers that can be
/// what they are called.
fn check_prediction(task: &Task, rows: usize, predicted: &RecordBatch) -> Result<(), String> {
    if predicted.num_rows() != rows {
        return Err(format!(
            "{} predictions for {rows} rows",
            predicted.num_rows()
        ));
    }
    let wanted = prediction_columns(task);
    let schema = predicted.schema();
    let given: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    if !given
        .iter()
        .copied()
        .eq(wanted.iter().map(|(name, _)| name.as_str()))
    {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!(
            "a prediction with the columns {} where {} are wanted",
            text::sentence(&format!("{given:?}"), 512),
            text::sentence(&format!("{names:?}"), 512)
        ));
    }
    let mut probabilities = Vec::new();
    for (column, (name, holds)) in predicted.columns().iter().zip(&wanted) {
        if *column.data_type() != holds.data_type() || column.null_count() > 0 {
            let wanted = match holds {
                Holds::Clusters | Holds::Tokens => "int64 numbers",
                _ => "numbers",
            };
            return Err(format!(
                "`{name}` is not a column of {wanted} without nulls"
            ));
        }
        let numbers = column
            .as_primitive_opt::<Float64Type>()
            .map(|it| it.values());
        match (holds, numbers) {
            (Holds::Probabilities, Some(numbers)) => probabilities.push((name, numbers)),
            (Holds::Clusters, _) => {
                let clusters = column.as_primitive::<Int64Type>().values();
                let known = 0..MAX_CLUSTERS;
                if let Some(row) = clusters.iter().position(|it| !known.contains(it)) {
                    return Err(format!(
                        "the cluster of row {row} is {}, not 0 to {}",
                        clusters[row],
                        MAX_CLUSTERS - 1
                    ));
                }
            }
            (Holds::Tokens, _) => {
                let tokens = column.as_primitive::<Int64Type>().values();
                if let Some(row) = tokens.iter().position(|it| *it < 0) {
                    return Err(format!("the tokens of row {row} are {}", tokens[row]));
                }
            }
            (_, Some(numbers)) => {
                let least = match holds {
                    Holds::Distances => 0.0,
                    _ => f64::MIN,
                };
                let fits = |number: &f64| number.is_finite() && *number >= least;
                if let Some(row) = numbers.iter().position(|number| !fits(number)) {
                    return Err(format!("the {name} for row {row} is {}", numbers[row]));
                }
            }
            (_, None) => return Err(format!("`{name}` is not a column of numbers")),
        }
    }
    if let ([loss, tokens], TaskKind::TextGeneration) = (predicted.columns(), task.kind) {
        let loss = loss.as_primitive::<Float64Type>().values();
        let tokens = tokens.as_primitive::<Int64Type>().values();
        if let Some(row) = (0..rows).position(|row| tokens[row] == 0 && loss[row] != 0.0) {
            return Err(format!(
                "row {row} has no tokens and a loss of {}",
                loss[row]
            ));
        }
    }
    if probabilities.is_empty() {
        return Ok(());
    }
    for row in 0..rows {
        let mut sum = 0.0;
        for (name, column) in &probabilities {
            let share = column[row];
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("`{name}` of row {row} is {share}, not 0 to 1"));
            }
            sum += share;
        }
        if (sum - 1.0).abs() > PROBABILITY_TOLERANCE {
            return Err(format!(
                "the probabilities of row {row} sum to {sum}, not to 1"
            ));
        }
    }
    Ok(())
}

/// The columns that a generation has.
const GENERATED: [(&str, DataType); 3] = [
    ("text", DataType::Utf8),
    ("tokens", DataType::Int64),
    ("finish", DataType::Utf8),
];

/// A generation has a row for each prompt and the columns there are; what it says of tokens and of
/// its end fits what was asked for, and its texts are those that it said it wrote, where it said so.
fn check_generated(
    options: &GenerationOptions,
    rows: usize,
    said: &[String],
    generated: &RecordBatch,
) -> Result<(), String> {
    if generated.num_rows() != rows {
        return Err(format!("{} texts for {rows} prompts", generated.num_rows()));
    }
    let schema = generated.schema();
    let given: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    if given != GENERATED.each_ref().map(|(name, _)| *name) {
        return Err(format!(
            "a generation with the columns {} where text, tokens and finish are wanted",
            text::sentence(&format!("{given:?}"), 512)
        ));
    }
    for (column, (name, data_type)) in generated.columns().iter().zip(&GENERATED) {
        if column.data_type() != data_type || column.null_count() > 0 {
            return Err(format!("`{name}` is not {data_type} without nulls"));
        }
    }
    let texts = generated.column(0).as_string::<i32>();
    let tokens = generated.column(1).as_primitive::<Int64Type>().values();
    let finishes = generated.column(2).as_string::<i32>();
    let most = i64::from(options.maximum_tokens);
    for (row, count) in tokens.iter().enumerate() {
        let finish = finishes.value(row);
        let fits = match finish {
            "stop" => (0..=most).contains(count),
            "length" => *count == most,
            _ => false,
        };
        if !fits {
            return Err(format!(
                "row {row} has {count} of at most {most} tokens and ended by `{}`",
                text::sentence(finish, 64)
            ));
        }
        let written = texts.value(row);
        if options.stop.iter().any(|stop| written.contains(stop)) {
            return Err(format!("the text of row {row} goes on past a stop text"));
        }
        if said
            .get(row)
            .is_some_and(|said| !said.is_empty() && said != written)
        {
            return Err(format!(
                "the text of row {row} is not the one that it said it wrote"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

    use super::*;

    fn task(kind: TaskKind) -> Task {
        Task {
            kind,
            features: Vec::new(),
            target: kind.has_target().then(|| "y".into()),
            classes: vec!["no".into(), "yes".into()],
            weight: None,
        }
    }

    fn batch(columns: &[(&str, Vec<f64>)]) -> RecordBatch {
        RecordBatch::try_from_iter(columns.iter().map(|(name, values)| {
            (
                *name,
                Arc::new(Float64Array::from(values.clone())) as ArrayRef,
            )
        }))
        .expect("a batch")
    }

    #[test]
    fn probabilities_must_be_named_counted_and_be_probabilities() {
        let task = task(TaskKind::BinaryClassification);
        let check = |no: Vec<f64>, yes: Vec<f64>| {
            check_prediction(
                &task,
                2,
                &batch(&[("probability:no", no), ("probability:yes", yes)]),
            )
        };
        assert_eq!(check(vec![0.25, 1.0], vec![0.75, 0.0]), Ok(()));
        assert!(
            check(vec![0.25], vec![0.75])
                .expect_err("one row")
                .contains("for 2 rows")
        );
        assert!(
            check(vec![0.25, 1.5], vec![0.75, -0.5])
                .expect_err("1.5")
                .contains("row 1")
        );
        assert!(check(vec![0.25, f64::NAN], vec![0.75, 0.0]).is_err());
        assert!(
            check(vec![0.25, 0.5], vec![0.75, 0.4])
                .expect_err("0.9")
                .contains("sum to")
        );
        let other = batch(&[("probability:no", vec![1.0; 2]), ("p", vec![0.0; 2])]);
        let error = check_prediction(&task, 2, &other).expect_err("another name");
        assert!(error.contains("probability:yes"), "{error}");
    }

    #[test]
    fn a_regression_must_be_finite() {
        let task = task(TaskKind::Regression);
        let check = |values| check_prediction(&task, 2, &batch(&[("prediction", values)]));
        assert_eq!(check(vec![-1.0, 1e9]), Ok(()));
        assert!(check(vec![0.0, f64::INFINITY]).is_err());
    }
    #[test]
    fn a_score_must_be_finite() {
        let task = task(TaskKind::AnomalyDetection);
        let check = |values| check_prediction(&task, 2, &batch(&[("score", values)]));
        assert_eq!(check(vec![-1.0, 1e9]), Ok(()));
        assert!(check(vec![0.0, f64::NEG_INFINITY]).is_err());
        assert!(check(vec![f64::NAN, 0.0]).is_err());
        let other = check_prediction(&task, 1, &batch(&[("scores", vec![1.0])]));
        assert!(other.expect_err("another name").contains("score"));
    }

    #[test]
    fn a_cluster_must_be_a_number_in_range_and_a_distance_not_negative() {
        let task = task(TaskKind::Clustering);
        let check = |clusters: ArrayRef, distances: Vec<f64>| {
            let distances = Arc::new(Float64Array::from(distances)) as ArrayRef;
            let columns = [("cluster", clusters), ("distance", distances)];
            check_prediction(
                &task,
                2,
                &RecordBatch::try_from_iter(columns).expect("a batch"),
            )
        };
        let clusters = |values: [i64; 2]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        assert_eq!(check(clusters([0, 65_535]), vec![0.0, 2.5]), Ok(()));
        for wrong in [-1, 65_536, i64::MIN, i64::MAX] {
            let error = check(clusters([0, wrong]), vec![0.0, 0.0]).expect_err("out of range");
            assert!(error.contains("row 1"), "{error}");
        }
        for wrong in [-1e-9, f64::NAN, f64::INFINITY] {
            assert!(
                check(clusters([0, 0]), vec![0.0, wrong]).is_err(),
                "{wrong}"
            );
        }
        let floats = Arc::new(Float64Array::from(vec![0.0, 1.0])) as ArrayRef;
        assert!(check(floats, vec![0.0, 0.0]).is_err());
        let nulls = Arc::new(Int64Array::from(vec![Some(0), None])) as ArrayRef;
        assert!(check(nulls, vec![0.0, 0.0]).is_err());
    }

    fn generated(rows: &[(&str, i64, &str)]) -> RecordBatch {
        let texts: Vec<&str> = rows.iter().map(|row| row.0).collect();
        let tokens: Vec<i64> = rows.iter().map(|row| row.1).collect();
        let finishes: Vec<&str> = rows.iter().map(|row| row.2).collect();
        RecordBatch::try_from_iter([
            ("text", Arc::new(StringArray::from(texts)) as ArrayRef),
            ("tokens", Arc::new(Int64Array::from(tokens))),
            ("finish", Arc::new(StringArray::from(finishes))),
        ])
        .expect("a batch")
    }

    #[test]
    fn a_generation_must_fit_what_was_asked_for_and_what_was_said() {
        let options = GenerationOptions {
            maximum_tokens: 4,
            stop: vec!["end".into()],
            ..GenerationOptions::default()
        };
        let check = |rows: &[(&str, i64, &str)], said: &[&str]| {
            let said: Vec<String> = said.iter().map(|one| (*one).to_owned()).collect();
            check_generated(&options, 2, &said, &generated(rows))
        };
        let good = [("once", 4, "length"), ("", 0, "stop")];
        assert_eq!(check(&good, &[]), Ok(()));
        assert_eq!(check(&good, &["once", ""]), Ok(()));
        for (rows, said, why) in [
            (&good[..1], &[][..], "1 texts for 2 prompts"),
            (&[("a", 5, "stop"), ("", 0, "stop")], &[], "5 of at most 4"),
            (
                &[("a", 3, "length"), ("", 0, "stop")],
                &[],
                "3 of at most 4",
            ),
            (
                &[("a", -1, "stop"), ("", 0, "stop")],
                &[],
                "-1 of at most 4",
            ),
            (&[("a", 1, "bored"), ("", 0, "stop")], &[], "`bored`"),
            (
                &[("bend", 4, "stop"), ("", 0, "stop")],
                &[],
                "past a stop text",
            ),
            (&good[..], &["twice", ""], "said it wrote"),
        ] {
            let error = check(rows, said).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        let other = batch(&[("text", vec![0.0; 2])]);
        assert!(check_generated(&options, 2, &[], &other).is_err());
    }

    #[test]
    fn options_of_a_generation_have_bounds() {
        let good = GenerationOptions::default();
        assert_eq!(good.check(), Ok(()));
        let cases: [(GenerationOptions, &str); 7] = [
            (
                GenerationOptions {
                    maximum_tokens: 0,
                    ..good.clone()
                },
                "maximum of tokens",
            ),
            (
                GenerationOptions {
                    maximum_tokens: u32::MAX,
                    ..good.clone()
                },
                "maximum of tokens",
            ),
            (
                GenerationOptions {
                    temperature: f32::NAN,
                    ..good.clone()
                },
                "temperature",
            ),
            (
                GenerationOptions {
                    top_k: Some(0),
                    ..good.clone()
                },
                "top-k",
            ),
            (
                GenerationOptions {
                    top_p: Some(1.5),
                    ..good.clone()
                },
                "top-p",
            ),
            (
                GenerationOptions {
                    stop: vec![String::new()],
                    ..good.clone()
                },
                "0 bytes",
            ),
            (
                GenerationOptions {
                    stop: vec!["a".into(); 17],
                    ..good.clone()
                },
                "17 stop texts",
            ),
        ];
        for (options, why) in cases {
            let error = options.check().expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_text_has_a_loss_and_tokens_or_neither() {
        let task = task(TaskKind::TextGeneration);
        let check = |losses: Vec<f64>, tokens: Vec<i64>| {
            let batch = RecordBatch::try_from_iter([
                ("loss", Arc::new(Float64Array::from(losses)) as ArrayRef),
                ("tokens", Arc::new(Int64Array::from(tokens))),
            ])
            .expect("a batch");
            check_prediction(&task, 2, &batch)
        };
        assert_eq!(check(vec![1.5, 0.0], vec![3, 0]), Ok(()));
        assert!(check(vec![1.5, 0.1], vec![3, 0]).is_err());
        assert!(check(vec![-1.5, 0.0], vec![3, 0]).is_err());
        assert!(check(vec![f64::NAN, 0.0], vec![3, 0]).is_err());
        assert!(check(vec![1.5, 0.0], vec![-3, 0]).is_err());
    }
}
