//! Tensor programs, by `sandcast:plugin/compute` and `models`: a guest declares, the host runs.
//!
//! Programs, sessions and tensors are the host's; a guest holds handles. Training runs on a
//! thread of its own and looks between steps whether it was cancelled or is over its time.

mod budget;
mod checkpoints;
mod encode;
mod forest;
mod generate;
mod graph;
mod host;
mod models;
#[cfg(test)]
mod tests;
mod train;
mod watch;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use sandcast_kernels::trees::{Forest, Workers};
use sandcast_kernels::{Caps, Device, Program, Session, Tensor};
use wasmtime::component::{HasData, Linker};

pub(crate) use budget::Budget;
pub use checkpoints::Checkpointing;
pub(crate) use encode::{Binding, check as check_bindings};
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub use forest::ForestHandle;
pub(crate) use forest::{ForestColumns, declared};
pub(crate) use graph::{from_wire, inputs};

use crate::bindings::adapter::sandcast::plugin::{compute, models as models_interface, types};
use crate::cache::Cache;
use crate::columns::Dataset;
use crate::grants::ComputeGrant;
use crate::model::{Model, Task};
use crate::roles::{ProgressSink, TextSink, TrainReport};
use crate::state::State;

/// Says whether programs may run where the host computes.
pub(crate) fn check(grant: &ComputeGrant, device: &Device) -> Result<(), String> {
    let kind = device.kind();
    match grant.devices.contains(&kind.into()) {
        true => Ok(()),
        false => Err(format!(
            "its programs may run on {}, and this host computes on {kind}; start it with another \
             `--device`, or add `{kind}` to `compute.devices`",
            match grant.devices.is_empty() {
                true => "nothing".to_owned(),
                false => grant.device_names(),
            }
        )),
    }
}

/// Rows that are computed on the calling thread; more go to a thread of their own, so that other
/// tasks are not held up.
pub(crate) const INLINE_ROWS: usize = 4096;

/// Operations that are computed on the calling thread, whatever the rows: a few milliseconds.
pub(crate) const INLINE_OPERATIONS: u64 = 100_000_000;

/// What a known value takes in a vocabulary beside its bytes.
const VOCABULARY_ENTRY_BYTES: u64 = 48;

/// What an instance has of tensor programs.
pub(crate) struct ComputeState {
    pub(crate) budget: Budget,
    pub(crate) device: Device,
    /// What forests are trained and asked on.
    pub(crate) workers: Workers,
    /// Told how far training has come.
    pub(crate) progress: Option<ProgressSink>,
    /// Whether and where trainings are kept while they run.
    pub(crate) checkpoints: Option<(Arc<Cache>, Checkpointing)>,
    /// What a generation has said it wrote.
    pub(crate) writing: Option<Writing>,
}

/// A generation under way: what the guest said of it so far.
pub(crate) struct Writing {
    /// The text of each row.
    pub(crate) rows: Vec<String>,
    /// Bytes of all of them.
    bytes: usize,
    /// Told of each piece.
    watch: Option<TextSink>,
}

/// Bytes that a generation may say it wrote.
const MAX_WRITTEN_BYTES: usize = 64 << 20;

impl Writing {
    /// Nothing so far, of so many rows.
    pub(crate) fn of(rows: usize, watch: Option<TextSink>) -> Self {
        Self {
            rows: vec![String::new(); rows],
            bytes: 0,
            watch,
        }
    }

    /// Notes a piece of text. None for a row that is not there, and for too much.
    pub(crate) fn wrote(&mut self, row: u32, text: &str) -> Option<()> {
        let place = usize::try_from(row).ok()?;
        let so_far = self.rows.get_mut(place)?;
        self.bytes = self.bytes.checked_add(text.len())?;
        if self.bytes > MAX_WRITTEN_BYTES {
            return None;
        }
        so_far.push_str(text);
        if let Some(watch) = &self.watch {
            watch(place, text);
        }
        Some(())
    }
}

impl ComputeState {
    /// How much longer this instance may compute.
    pub(crate) fn time_left(&self) -> std::time::Duration {
        self.budget.time_left()
    }
}

/// `compute.program` in a guest's hands.
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct ProgramHandle {
    program: Arc<Program>,
}

/// `compute.session` in a guest's hands.
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct SessionHandle {
    /// Away only while it is trained.
    session: Option<Arc<Session>>,
    bindings: Arc<[Binding]>,
    /// What the last training reported.
    report: Option<TrainReport>,
    /// The session of a model that others use; it cannot be bound or trained again.
    shared: bool,
    charged: u64,
    /// Of that, what the bindings take.
    bound: u64,
}

impl SessionHandle {
    /// The session, unless it is being trained.
    fn session(&self) -> wasmtime::Result<&Arc<Session>> {
        self.session
            .as_ref()
            .ok_or_else(|| wasmtime::Error::msg("a session is being trained"))
    }
}

/// `compute.tensor` in a guest's hands.
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct TensorHandle {
    tensor: Tensor,
    charged: u64,
}

/// `compute.snapshot` in a guest's hands.
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct SnapshotHandle {
    /// In the safetensors format.
    weights: Vec<u8>,
    charged: u64,
}

/// `models.training` in a guest's hands.
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct TrainingHandle {
    pub(crate) task: Task,
    pub(crate) hyperparameters: String,
    pub(crate) seed: u64,
    pub(crate) training: Dataset,
    pub(crate) validation: Option<Dataset>,
}

/// `models.model` in a guest's hands.
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct ModelHandle {
    pub(crate) model: Arc<Model>,
}

/// What predicts, as a model has it.
#[derive(Clone)]
pub(crate) enum Predictor {
    /// A program with its weights, and how columns become its inputs.
    Session {
        session: Arc<Session>,
        bindings: Arc<[Binding]>,
    },
    /// Decision trees, and the columns they go by.
    Forest {
        forest: Arc<Forest>,
        columns: Arc<ForestColumns>,
    },
}

/// What is left of a predictor when a guest gives it up for a model.
pub(crate) struct PredictorParts {
    pub(crate) predictor: Predictor,
    pub(crate) report: Option<TrainReport>,
}

impl State {
    /// Takes a predictor out of the guest's hands.
    pub(crate) fn take_predictor(
        &mut self,
        predictor: compute::Predictor,
    ) -> wasmtime::Result<PredictorParts> {
        match predictor {
            compute::Predictor::Session(session) => {
                let handle = self.table.delete(session)?;
                self.compute.budget.give_memory(handle.charged);
                self.compute.budget.give_handle();
                Ok(PredictorParts {
                    predictor: Predictor::Session {
                        session: Arc::clone(handle.session()?),
                        bindings: handle.bindings,
                    },
                    report: handle.report,
                })
            }
            compute::Predictor::Forest(forest) => {
                let handle = self.take_forest(forest)?;
                Ok(PredictorParts {
                    predictor: Predictor::Forest {
                        forest: handle.forest,
                        columns: handle.columns,
                    },
                    report: handle.report,
                })
            }
        }
    }
}

/// Links `sandcast:plugin/compute` and `sandcast:plugin/models`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    compute::add_to_linker::<State, Compute>(linker, |state| ComputeView(state))?;
    models_interface::add_to_linker::<State, Compute>(linker, |state| ComputeView(state))
}

struct Compute;

impl HasData for Compute {
    type Data<'a> = ComputeView<'a>;
}

/// What answers, on the state of an instance.
pub(crate) struct ComputeView<'a>(pub(crate) &'a mut State);

/// What a graph may ask for under a budget of so many bytes.
pub(crate) fn caps(memory_bytes: u64) -> Caps {
    let default = Caps::default();
    Caps {
        parameters_bytes: default.parameters_bytes.min(memory_bytes),
        peak_bytes: default.peak_bytes.min(memory_bytes),
        elements_per_tensor: default.elements_per_tensor.min(memory_bytes / 4),
        ..default
    }
}

/// Bytes that a session of a program holds for its life: the weights, and, where it can be
/// trained, their gradients and two moments.
pub(crate) fn session_bytes(program: &Program) -> u64 {
    let copies = if program.graph().optimizer.is_some() {
        4
    } else {
        1
    };
    program
        .parameter_count()
        .saturating_mul(4)
        .saturating_mul(copies)
}

/// Bytes that running an entry needs on top of its inputs, with symbols at their maximum.
fn peak_bytes(program: &Program, entry: &str) -> u64 {
    program
        .costs()
        .iter()
        .find(|cost| cost.entry == entry)
        .map_or(0, |cost| cost.peak_bytes)
}

fn rows_of(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

fn failure(code: types::FailureCode, message: impl Into<String>) -> types::Failure {
    types::Failure {
        code,
        message: message.into(),
        hint: None,
    }
}

fn invalid(message: impl std::fmt::Display) -> types::Failure {
    failure(types::FailureCode::InvalidInput, message.to_string())
}

impl State {
    /// An answer to the guest for a budget that is used up; also a denial in the record.
    fn overdrawn(&mut self, overdrawn: budget::Overdrawn) -> types::Failure {
        let grant_with = format!(
            "plugins.{}.grants.compute.{}",
            self.identity.name, overdrawn.key
        );
        self.deny_with("compute", overdrawn.detail.clone(), grant_with.clone());
        types::Failure {
            code: types::FailureCode::Exhausted,
            message: format!("the compute budget is used up: {}", overdrawn.detail),
            hint: Some(format!("raise `{grant_with}`")),
        }
    }
}
