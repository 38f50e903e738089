//! A program with its weights.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::backend::{Engine, Job, KeptLook, go_on};
use crate::checkpoint::{self, CheckpointStore};
use crate::device::Device;
use crate::error::RunError;
use crate::feeds::bind;
use crate::graph::{Extent, Initializer, Node};
use crate::program::{Program, RunPrice, Task, Which};
use crate::random::{self, Purpose, Stream};
use crate::tensor::{Feeds, Tensor, TensorData};
use crate::train::{self, Progress, StopReason, TrainPlan, TrainReport};
use crate::weights;

/// A program with its weights on a device. `infer` may be called from many threads at once.
#[derive(Debug)]
pub struct Session {
    program: Arc<Program>,
    engine: Box<dyn Engine>,
    device: Device,
    seed: u64,
    look: KeptLook,
}

/// The loss of some rows, and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// The weighted mean.
    pub loss: f64,
    /// The derivative of the loss by each trainable parameter, under the parameter's name.
    pub by_parameter: BTreeMap<String, Tensor>,
}

impl Session {
    /// A session whose weights are a function of the program and the seed.
    ///
    /// # Errors
    /// When the device refuses the program.
    pub fn new(program: Arc<Program>, device: &Device, seed: u64) -> Result<Session, RunError> {
        let mut engine = device
            .backend()
            .open(Arc::clone(&program), device.precision())?;
        engine.set_weights(&initial_weights(&program, seed));
        Ok(Session {
            program,
            engine,
            device: device.clone(),
            seed,
            look: KeptLook::new(go_on),
        })
    }

    /// Has trainings ask between pieces of the rows that judge them whether to go on, beside what is
    /// asked before each step: these rows may be many.
    pub fn look_while_judging(
        &mut self,
        look: impl Fn() -> ControlFlow<StopReason> + Send + Sync + 'static,
    ) {
        self.look = KeptLook::new(look);
    }

    pub(crate) fn parts(&self) -> (&dyn Engine, &Program) {
        (&*self.engine, &self.program)
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Trains. Same program, data, plan and seed: same bits, at any number of threads.
    /// `watch` is asked before each step and after each epoch whether to go on. A training
    /// begins with the weights of the session and forgets what the optimizer of an earlier one
    /// remembered.
    ///
    /// # Errors
    /// When feeds do not fit the program, the loss is not finite, or the watcher stops it; the
    /// session then has the weights of the step it came to.
    pub fn train(
        &mut self,
        training: &Feeds,
        validation: Option<&Feeds>,
        plan: &TrainPlan,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<StopReason>,
    ) -> Result<TrainReport, RunError> {
        self.train_from(training, validation, plan, None, watch)
    }

    /// Trains, and keeps the training in a store while it runs: where one of the same program,
    /// data, plan, seed and weights, on the same kind of device, was stopped, this one goes on to
    /// the bits that it would have come to.
    ///
    /// # Errors
    /// As [`Session::train`].
    pub fn train_kept(
        &mut self,
        training: &Feeds,
        validation: Option<&Feeds>,
        plan: &TrainPlan,
        store: &mut dyn CheckpointStore,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<StopReason>,
    ) -> Result<TrainReport, RunError> {
        self.train_from(training, validation, plan, Some(store), watch)
    }

    fn train_from(
        &mut self,
        training: &Feeds,
        validation: Option<&Feeds>,
        plan: &TrainPlan,
        store: Option<&mut dyn CheckpointStore>,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<StopReason>,
    ) -> Result<TrainReport, RunError> {
        let program = Arc::clone(&self.program);
        let Some(task) = &program.training else {
            return Err(RunError::NotTrainable { what: "loss" });
        };
        if program.graph().optimizer.is_none() {
            return Err(RunError::NotTrainable { what: "optimizer" });
        }
        let symbol = &program.graph().symbols[task.rows as usize];
        train::check_plan(plan, symbol)?;
        let mut evaluation = &task.evaluation;
        let whole;
        if evaluation.rows.is_none() {
            // Rows that mix are taken a batch at a time, so the feeds may have more.
            whole = task.evaluation_by_batch();
            evaluation = &whole;
        }
        let training = bind(&program, evaluation, training)?;
        let validation = validation.map(dense).transpose()?;
        let validation = validation
            .as_deref()
            .map(|feeds| bind(&program, &task.evaluation, feeds))
            .transpose()?;
        if let Some(judged) = &validation {
            self.price_at(Which::Evaluation, &task.evaluation, &judged.symbols)
                .check(&task.evaluation.name)?;
        }
        let rows = training.extent(task.rows);
        let has_validation = validation
            .as_ref()
            .is_some_and(|feeds| feeds.extent(task.rows) > 0);
        let validation = validation.filter(|_| has_validation);
        let kept = store.map(|store| train::Kept {
            key: checkpoint::key(
                &program,
                (self.device.kind(), &self.device.precision().to_string()),
                self.seed,
                plan,
                &self.engine.weights(),
                [Some(&training), validation.as_ref()],
            ),
            store,
        });
        let job = Job {
            training,
            validation,
            batch_rows: rows.min(plan.batch_rows as usize),
            clip_norm: plan.clip_norm,
            seed: self.seed,
            look: self.look.clone(),
        };
        let trainer = self.engine.train(job)?;
        train::Run {
            trainer,
            plan,
            rows,
            has_validation,
            seed: self.seed,
            kept,
        }
        .run(watch)
    }

    /// Runs an entry over any number of rows. The result of a row does not depend on the rows
    /// around it, unless the program itself mixes rows.
    ///
    /// # Errors
    /// When feeds do not fit the program, or a number is outside a table.
    pub fn infer(&self, entry: &str, feeds: &Feeds) -> Result<Vec<(String, Tensor)>, RunError> {
        self.infer_watched(entry, feeds, &go_on)
    }

    /// The same, asking between pieces of rows whether to go on.
    ///
    /// # Errors
    /// As [`Session::infer`], and when the watcher stops it.
    pub fn infer_watched(
        &self,
        entry: &str,
        feeds: &Feeds,
        watch: &(dyn Fn() -> ControlFlow<StopReason> + Sync),
    ) -> Result<Vec<(String, Tensor)>, RunError> {
        let index = self.entry(entry)?;
        let task = &self.program.entries[index];
        let feeds = dense(feeds)?;
        let bound = bind(&self.program, task, &feeds)?;
        self.price_at(Which::Entry(index), task, &bound.symbols)
            .check(entry)?;
        let results = self.engine.infer(index, &bound, watch)?;
        let names = task.results.iter().map(|result| result.name.clone());
        Ok(names.zip(results).collect())
    }

    /// What [`Session::infer`] with these feeds comes to. Nothing runs.
    ///
    /// # Errors
    /// When feeds do not fit the program.
    pub fn price(&self, entry: &str, feeds: &Feeds) -> Result<RunPrice, RunError> {
        let index = self.entry(entry)?;
        let task = &self.program.entries[index];
        let bound = bind(&self.program, task, feeds)?;
        Ok(self.price_at(Which::Entry(index), task, &bound.symbols))
    }

    /// What it comes to with so many rows and every other symbol at its maximum.
    ///
    /// # Errors
    /// When the program has no such entry.
    pub fn price_of_rows(&self, entry: &str, rows: usize) -> Result<RunPrice, RunError> {
        let index = self.entry(entry)?;
        let task = &self.program.entries[index];
        Ok(self.price_with(Which::Entry(index), task, rows))
    }

    /// What judging a training by so many rows comes to; nothing for a program without a loss.
    pub fn price_of_validation(&self, rows: usize) -> RunPrice {
        let training = self.program.training.as_ref();
        training.map_or_else(RunPrice::default, |training| {
            self.price_with(Which::Evaluation, &training.evaluation, rows)
        })
    }

    fn price_with(&self, which: Which, task: &Task, rows: usize) -> RunPrice {
        let program = &self.program;
        let declared = &program.graph().symbols;
        let mut symbols = vec![0; declared.len()];
        for input in &task.inputs {
            for extent in &program.inputs[*input as usize].shape {
                if let Extent::Symbol(symbol) = extent {
                    let place = *symbol as usize;
                    let is_rows = task.rows == Some(*symbol);
                    symbols[place] = if is_rows {
                        rows
                    } else {
                        declared[place].maximum as usize
                    };
                }
            }
        }
        self.price_at(which, task, &symbols)
    }

    fn price_at(&self, which: Which, task: &Task, symbols: &[usize]) -> RunPrice {
        let threads = self.device.backend().threads();
        let threads = threads.map_or(1, |threads| threads.count());
        self.program.price_of_run(which, task, symbols, threads)
    }

    fn entry(&self, entry: &str) -> Result<usize, RunError> {
        let entries = &self.program.entries;
        let Some(index) = entries.iter().position(|task| task.name == entry) else {
            let known: Vec<String> = entries
                .iter()
                .map(|task| format!("`{}`", task.name))
                .collect();
            return Err(RunError::UnknownEntry {
                entry: entry.to_owned(),
                known: known.join(", "),
            });
        };
        Ok(index)
    }

    /// The loss of these rows and its gradient, as the first training step would see them.
    ///
    /// # Errors
    /// As [`Session::train`].
    pub fn gradients(&mut self, feeds: &Feeds) -> Result<Gradients, RunError> {
        let program = Arc::clone(&self.program);
        let Some(task) = &program.training else {
            return Err(RunError::NotTrainable { what: "loss" });
        };
        let training = bind(&program, &task.evaluation, feeds)?;
        let rows = training.extent(task.rows);
        if rows == 0 {
            return Err(RunError::NoRows);
        }
        let seed = self.seed;
        let job = Job {
            training,
            validation: None,
            batch_rows: rows,
            clip_norm: None,
            seed,
            look: KeptLook::new(go_on),
        };
        let mut trainer = self.engine.train(job)?;
        let order: Vec<u32> = (0..rows as u32).collect();
        let sums = trainer.gradient(&order, 1)?;
        let loss = train::mean(sums)?;
        let parameters = program.parameters().iter().zip(trainer.gradients()?);
        let by_parameter = parameters
            .filter(|(parameter, _)| parameter.trainable)
            .filter_map(|(parameter, values)| {
                let tensor = Tensor::from_f32(parameter.shape.clone(), values).ok()?;
                Some((parameter.name.clone(), tensor))
            })
            .collect();
        Ok(Gradients { loss, by_parameter })
    }

    /// The weights by parameter name.
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        let parameters = self.program.parameters().iter().zip(self.engine.weights());
        parameters
            .filter_map(|(parameter, values)| {
                let tensor = Tensor::from_f32(parameter.shape.clone(), values).ok()?;
                Some((parameter.name.clone(), tensor))
            })
            .collect()
    }

    /// The numbers of one parameter; none where the program has no such.
    pub fn parameter(&self, name: &str) -> Option<Tensor> {
        let parameters = self.program.parameters();
        let place = parameters.iter().position(|one| one.name == name)?;
        let values = self.engine.weights().into_iter().nth(place)?;
        Tensor::from_f32(parameters[place].shape.clone(), values).ok()
    }

    /// Replaces the numbers of one parameter.
    ///
    /// # Errors
    /// When there is no such parameter, the shape or the dtype is another, or a number is not
    /// finite. The weights then stay.
    pub fn set_parameter(&mut self, name: &str, value: &Tensor) -> Result<(), RunError> {
        let wrong = |what: String| RunError::WrongWeights { what };
        let parameters = self.program.parameters();
        let Some(place) = parameters.iter().position(|one| one.name == name) else {
            return Err(wrong(format!("`{name}` is not a parameter of the program")));
        };
        let wanted = &parameters[place].shape;
        if value.shape() != wanted {
            return Err(wrong(format!(
                "`{name}` has shape {wanted:?}, and is given {:?}",
                value.shape()
            )));
        }
        let TensorData::F32(values) = value.data() else {
            return Err(wrong(format!("`{name}` is given whole numbers")));
        };
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            let what = format!("`{name}` is given {} at place {place}", values[place]);
            return Err(wrong(what));
        }
        let mut weights = self.engine.weights();
        weights[place].clone_from(values);
        self.engine.set_weights(&weights);
        Ok(())
    }

    /// The weights in the safetensors format, with the digest of the program as metadata.
    pub fn to_safetensors(&self) -> Vec<u8> {
        weights::write(&self.program, &self.engine.weights())
    }

    /// Replaces the weights by stored ones.
    ///
    /// # Errors
    /// When the bytes are not safetensors, or names, dtypes or shapes differ from the
    /// program's, or they were stored by another program. The weights then stay.
    pub fn load_safetensors(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        let weights = weights::read(&self.program, bytes)?;
        self.engine.set_weights(&weights);
        Ok(())
    }
}

/// Elements of windows that are held each by itself where they are not learnt from.
const DENSE_ELEMENTS: usize = 1 << 28;

/// Feeds without windows.
fn dense(feeds: &Feeds) -> Result<Cow<'_, Feeds>, RunError> {
    if feeds.values().all(|tensor| tensor.stride().is_none()) {
        return Ok(Cow::Borrowed(feeds));
    }
    let each = feeds.iter().map(|(name, tensor)| {
        let dense = tensor.to_dense(DENSE_ELEMENTS);
        dense
            .map(|dense| (name.clone(), dense))
            .ok_or_else(|| RunError::TooManyWindows {
                input: name.clone(),
                limit: DENSE_ELEMENTS,
            })
    });
    Ok(Cow::Owned(each.collect::<Result<_, _>>()?))
}

/// The weights before training.
fn initial_weights(program: &Program, seed: u64) -> Vec<Vec<f32>> {
    let nodes = &program.graph().nodes;
    let parameters = program.parameters().iter();
    parameters
        .map(|parameter| match &nodes[parameter.node as usize] {
            Node::Parameter(declared) => {
                let stream = Stream::new(seed, Purpose::Initial, parameter.node, 0);
                draw(declared.initializer, &parameter.shape, stream)
            }
            _ => Vec::new(),
        })
        .collect()
}

fn draw(initializer: Initializer, shape: &[usize], stream: Stream) -> Vec<f32> {
    let elements = shape.iter().product();
    let uniform = |bound: f64| -> Vec<f32> {
        let numbers = stream.numbers().take(elements);
        numbers
            .map(|number| ((2.0 * random::unit(number) - 1.0) * bound) as f32)
            .collect()
    };
    let fan_in = shape.first().copied().unwrap_or(1).max(1) as f64;
    let fan_out = shape.last().copied().unwrap_or(1).max(1) as f64;
    match initializer {
        Initializer::Zeros => vec![0.0; elements],
        Initializer::Ones => vec![1.0; elements],
        Initializer::Uniform(bound) => uniform(f64::from(bound)),
        Initializer::GlorotUniform => uniform((6.0 / (fan_in + fan_out)).sqrt()),
        Initializer::HeUniform => uniform((6.0 / fan_in).sqrt()),
        Initializer::Normal(deviation) => {
            // Box and Muller 1958.
            let mut numbers = stream.numbers().map(random::unit);
            let mut values = Vec::with_capacity(elements + 1);
            while values.len() < elements {
                let (Some(first), Some(second)) = (numbers.next(), numbers.next()) else {
                    break;
                };
                let radius = f64::from(deviation) * (-2.0 * first.ln()).sqrt();
                let angle = std::f64::consts::TAU * second;
                values.push((radius * angle.cos()) as f32);
                values.push((radius * angle.sin()) as f32);
            }
            values.truncate(elements);
            values
        }
    }
}
