//! Trains a model and predicts with it.

mod check;
pub(crate) mod guest;
mod options;

use std::io;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use sandcast_audit::Digest;
use sandcast_kernels::graph::Graph;
use sandcast_kernels::trees::ForestPlan;
use sandcast_kernels::{Precision, Program};
use serde::Serialize;
use serde_json::Value;

use super::{Cost, ProgressSink, TextSink, TrainReport};
use crate::bindings::adapter::AdapterPluginPre;
use crate::bindings::adapter::exports::sandcast::plugin::adapter as wire;
use crate::call::{CallError, Usage};
use crate::columns::{Batch, Dataset};
use crate::grants::compute::{
    self, Checkpointing, ModelHandle, Predictor, PredictorParts, TrainingHandle, Writing,
};
use crate::instance::{Instance, MAX_SENTENCE_BYTES};
use crate::model::{Model, Task, TaskKind};
use crate::process::{Opening, Question};
use crate::recording::{Call, Recordings, answers, rows_to_bytes};
use crate::sandbox::Sandbox;
use crate::state::State;
use crate::text;
use check::{check_description, check_generated, check_prediction};
use guest::Guest;
pub use options::GenerationOptions;

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

/// Bytes of the state that an adapter keeps beside its weights.
const MAX_STATE_BYTES: usize = 64 << 20;

/// An instance that trains and predicts. Dropping a call's future cancels what it computes.
pub struct Adapter {
    instance: Instance,
    guest: Guest,
    sandbox: Sandbox,
}

impl Adapter {
    pub(crate) async fn open(
        mut instance: Instance,
        pre: &AdapterPluginPre<State>,
        sandbox: Sandbox,
        opening: Option<Box<Opening>>,
    ) -> Result<Self, CallError> {
        let opened = match opening {
            None => guest::open(&mut instance, pre).await.map(Guest::Here),
            Some(opening) => {
                let opened = instance.ask_apart(&Question::Open(opening), &()).await;
                opened.and_then(|answer| {
                    let () = instance.accept(answer)?;
                    Ok(Guest::Apart)
                })
            }
        };
        let guest = instance.keep(opened, |_| Ok(Call::Open), |_, _| Ok(Value::Null))?;
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
        let answer = self.guest.describe(&mut self.instance).await?;
        let described = self.instance.accept(answer)?;
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
        let hyperparameters = hyperparameters.to_string();
        let asked = (task.into(), cardinalities.to_vec(), hyperparameters);
        let answer = self.guest.declare(&mut self.instance, asked).await?;
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
        let compute = &mut self.instance.store()?.data_mut().compute;
        compute.progress = input.progress;
        compute.checkpoints = cache.zip(input.checkpoints);
        let strict = std::mem::replace(&mut compute.device, device);
        let answer = self.guest.train(&mut self.instance, handle).await?;
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
        let asked = (handle, lent);
        let answer = self.guest.predict(&mut self.instance, asked).await?;
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
        let writing = Writing::of(prompts.num_rows(), watch);
        self.instance.store()?.data_mut().compute.writing = Some(writing);
        let asked = (handle, lent, wire::GenerationOptions::from(options));
        let answer = self.guest.generate(&mut self.instance, asked).await?;
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
