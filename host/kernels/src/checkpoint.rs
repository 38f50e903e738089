//! Trainings that were stopped: kept as safetensors, and gone on from to the same bits.
//!
//! A checkpoint is found by the digest of everything that the training is a function of, so it is
//! never one of other data, another plan or other weights. What it holds is what a step changes:
//! the weights, what the optimizer remembers, the best weights so far, and what there is to report.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use crate::backend::{TrainerState, WeightedLoss};
use crate::device::DeviceKind;
use crate::error::RunError;
use crate::feeds::Bound;
use crate::program::Program;
use crate::tensor::TensorData;
use crate::train::{EpochReport, Place, Schedule, TrainPlan, TrainReport};

/// What a change of the format changes, so that no other version's is taken.
const FORMAT: &str = "sandcast checkpoint 1";

/// The keys of the metadata: the state, and the digest of it and of the numbers.
const STATE_KEY: &str = "sandcast.training";
const DIGEST_KEY: &str = "sandcast.digest";

/// Numbers that are hashed at once.
const HASHED_AT_ONCE: usize = 1 << 16;

const WEIGHTS: &str = "weights";
const MOMENTS: [&str; 2] = ["first-moment", "second-moment"];
const BEST: &str = "best";

/// Where trainings are kept while they run. A store may lose what it was given: the training then
/// begins anew.
pub trait CheckpointStore {
    /// What was saved last under a key.
    fn load(&mut self, key: &[u8; 32]) -> Option<Vec<u8>>;

    /// Whether to save now; asked after every step. Saving copies the weights, and the optimizer's
    /// two moments.
    fn is_due(&mut self) -> bool;

    /// Keeps a checkpoint in place of an earlier one under the same key. Also called, whether due or
    /// not, when a watcher stops the training.
    fn save(&mut self, key: &[u8; 32], checkpoint: &[u8]);

    /// Told that what was loaded is damaged, and how; the training begins anew.
    fn reject(&mut self, key: &[u8; 32], what: &str);

    /// The training has ended; nothing goes on from its checkpoint any more.
    fn remove(&mut self, key: &[u8; 32]);
}

/// A training between two steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) place: Place,
    pub(crate) trainer: TrainerState,
}

/// What of a checkpoint is not tensors. Numbers whose bits matter are kept as bits.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateText {
    format: String,
    key: String,
    epoch: u32,
    steps_of_epoch: u64,
    loss_bits: u64,
    weight_bits: u64,
    best_bits: u64,
    best_epoch: u32,
    steps: u64,
    rows: u64,
    updates: u64,
    epochs: Vec<EpochText>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochText {
    train_loss_bits: u64,
    validation_loss_bits: Option<u64>,
    learning_rate_bits: u32,
    seconds: f64,
}

impl Checkpoint {
    /// In the safetensors format, under the key of its training.
    pub(crate) fn to_bytes(&self, key: &[u8; 32]) -> Vec<u8> {
        let Checkpoint { place, trainer } = self;
        let state = StateText {
            format: FORMAT.into(),
            key: hexadecimal(key),
            epoch: place.epoch,
            steps_of_epoch: place.steps_of_epoch,
            loss_bits: place.sums.loss.to_bits(),
            weight_bits: place.sums.weight.to_bits(),
            best_bits: place.best.to_bits(),
            best_epoch: place.report.best_epoch,
            steps: place.report.steps,
            rows: place.report.rows,
            updates: trainer.updates,
            epochs: place.report.epochs.iter().map(EpochText::of).collect(),
        };
        // Integers, strings and finite seconds: JSON can hold them.
        let state = serde_json::to_string(&state).unwrap_or_default();
        let [first, second] = &trainer.moments;
        let parts = [
            (WEIGHTS, Part::of(&trainer.weights)),
            (MOMENTS[0], Part::of(first)),
            (MOMENTS[1], Part::of(second)),
            (BEST, Part::of(&trainer.best)),
        ];
        let mut hasher = hasher_of(&state);
        for (_, part) in &parts {
            hash_numbers(&mut hasher, part.values, f32::to_le_bytes);
        }
        let metadata = HashMap::from([
            (STATE_KEY.to_owned(), state),
            (
                DIGEST_KEY.to_owned(),
                hasher.finalize().to_hex().to_string(),
            ),
        ]);
        // The names differ and the sizes agree, so there is nothing to refuse.
        safetensors::serialize(parts, Some(metadata)).unwrap_or_default()
    }

    /// Reads what [`Checkpoint::to_bytes`] wrote under the same key.
    ///
    /// # Errors
    /// [`RunError::BadCheckpoint`] when it is anything else.
    pub(crate) fn from_bytes(bytes: &[u8], key: &[u8; 32]) -> Result<Checkpoint, RunError> {
        let bad = |what: String| RunError::BadCheckpoint { what };
        let unreadable = |error| bad(format!("it is not safetensors: {error}"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(unreadable)?;
        let entry = |name: &str| {
            let metadata = header.metadata().as_ref();
            metadata
                .and_then(|metadata| metadata.get(name))
                .ok_or_else(|| bad(format!("its metadata has no `{name}`")))
        };
        let part = |name: &str| match tensors.tensor(name) {
            Ok(view) if view.dtype() == Dtype::F32 => Ok(view),
            _ => Err(bad(format!("it has no float32 tensor `{name}`"))),
        };
        let views = [
            part(WEIGHTS)?,
            part(MOMENTS[0])?,
            part(MOMENTS[1])?,
            part(BEST)?,
        ];
        let text = entry(STATE_KEY)?;
        let mut hasher = hasher_of(text);
        for view in &views {
            hash_count(&mut hasher, view.data().len() / 4);
            hasher.update(view.data());
        }
        if *entry(DIGEST_KEY)? != hasher.finalize().to_hex().to_string() {
            return Err(bad("its content does not match its digest".into()));
        }
        let state: StateText = serde_json::from_str(text)
            .map_err(|error| bad(format!("its state cannot be read: {error}")))?;
        if state.format != FORMAT {
            return Err(bad(format!(
                "its format is `{}`, and must be `{FORMAT}`",
                state.format
            )));
        }
        if state.key != hexadecimal(key) {
            return Err(bad("it belongs to another training".into()));
        }
        let [weights, first, second, best] = views.map(|view| numbers(view.data()));
        let epochs = state.epochs.iter().zip(1..);
        Ok(Checkpoint {
            place: Place {
                epoch: state.epoch,
                steps_of_epoch: state.steps_of_epoch,
                sums: WeightedLoss {
                    loss: f64::from_bits(state.loss_bits),
                    weight: f64::from_bits(state.weight_bits),
                    bad_weight: None,
                },
                best: f64::from_bits(state.best_bits),
                report: TrainReport {
                    epochs: epochs.map(|(epoch, number)| epoch.read(number)).collect(),
                    best_epoch: state.best_epoch,
                    steps: state.steps,
                    rows: state.rows,
                    stopped_early: false,
                    resumed_after: None,
                },
            },
            trainer: TrainerState {
                updates: state.updates,
                weights,
                moments: [first, second],
                best,
            },
        })
    }
}

/// Numbers as a tensor that becomes bytes only while it is written, one after the other.
struct Part<'a> {
    values: &'a [f32],
    shape: [usize; 1],
}

impl<'a> Part<'a> {
    fn of(values: &'a [f32]) -> Self {
        Self {
            values,
            shape: [values.len()],
        }
    }
}

impl View for Part<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.values.iter().flat_map(|value| value.to_le_bytes());
        Cow::Owned(bytes.collect())
    }

    fn data_len(&self) -> usize {
        self.values.len() * 4
    }
}

impl EpochText {
    fn of(report: &EpochReport) -> EpochText {
        EpochText {
            train_loss_bits: report.train_loss.to_bits(),
            validation_loss_bits: report.validation_loss.map(f64::to_bits),
            learning_rate_bits: report.learning_rate.to_bits(),
            seconds: report.duration.as_secs_f64(),
        }
    }

    fn read(&self, epoch: u32) -> EpochReport {
        EpochReport {
            epoch,
            train_loss: f64::from_bits(self.train_loss_bits),
            validation_loss: self.validation_loss_bits.map(f64::from_bits),
            learning_rate: f32::from_bits(self.learning_rate_bits),
            duration: Duration::try_from_secs_f64(self.seconds).unwrap_or_default(),
        }
    }
}

/// The digest of everything that a training is a function of.
pub(crate) fn key(
    program: &Program,
    device: (DeviceKind, &str),
    seed: u64,
    plan: &TrainPlan,
    weights: &[Vec<f32>],
    feeds: [Option<&Bound<'_>>; 2],
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(FORMAT.as_bytes());
    field(env!("CARGO_PKG_VERSION").as_bytes());
    field(&program.digest());
    let (kind, precision) = device;
    field(match kind {
        DeviceKind::Cpu => b"cpu",
        DeviceKind::Cuda => b"cuda",
    });
    field(precision.as_bytes());
    field(&seed.to_le_bytes());
    for number in plan_numbers(plan) {
        field(&number.to_le_bytes());
    }
    for values in weights {
        hash_numbers(&mut hasher, values, f32::to_le_bytes);
    }
    for feeds in feeds {
        let inputs = feeds.map_or(&[][..], |feeds| &feeds.inputs);
        hash_count(&mut hasher, inputs.len());
        for tensor in inputs {
            // One that is not given has more axes than any that is.
            let Some(tensor) = tensor else {
                hash_count(&mut hasher, usize::MAX);
                continue;
            };
            hash_count(&mut hasher, tensor.shape().len());
            for extent in tensor.shape() {
                hash_count(&mut hasher, *extent);
            }
            hash_count(&mut hasher, tensor.stride().unwrap_or(0));
            match tensor.data() {
                TensorData::F32(values) => hash_numbers(&mut hasher, values, f32::to_le_bytes),
                TensorData::I32(values) => hash_numbers(&mut hasher, values, i32::to_le_bytes),
            }
        }
    }
    *hasher.finalize().as_bytes()
}

/// A plan as numbers; none for what is not there differs from any number.
fn plan_numbers(plan: &TrainPlan) -> Vec<u64> {
    let optional = |value: Option<u32>| value.map_or(u64::MAX, u64::from);
    let bits = |value: f32| u64::from(value.to_bits());
    let TrainPlan {
        epochs,
        epoch_rows,
        batch_rows,
        accumulate_steps,
        learning_rate,
        schedule,
        clip_norm,
        patience,
        shuffle,
    } = plan;
    let schedule = match *schedule {
        Schedule::Constant => [0, 0, 0],
        Schedule::Cosine {
            warmup_steps,
            floor,
        } => [1, u64::from(warmup_steps), bits(floor)],
        Schedule::Linear {
            warmup_steps,
            floor,
        } => [2, u64::from(warmup_steps), bits(floor)],
        Schedule::Exponential {
            warmup_steps,
            floor,
        } => [3, u64::from(warmup_steps), bits(floor)],
        Schedule::Stepwise {
            every_steps,
            factor,
        } => [4, u64::from(every_steps), bits(factor)],
    };
    let mut numbers = vec![
        u64::from(*epochs),
        optional(*epoch_rows),
        u64::from(*batch_rows),
        u64::from(*accumulate_steps),
        bits(*learning_rate),
        clip_norm.map_or(u64::MAX, bits),
        optional(*patience),
        u64::from(*shuffle),
    ];
    numbers.extend(schedule);
    numbers
}

fn hash_count(hasher: &mut blake3::Hasher, count: usize) {
    hasher.update(&(count as u64).to_le_bytes());
}

/// Hashes numbers a block at a time: the data may be as large as the memory that it lies in.
fn hash_numbers<T: Copy>(hasher: &mut blake3::Hasher, values: &[T], bytes: fn(T) -> [u8; 4]) {
    hash_count(hasher, values.len());
    let mut block = Vec::new();
    for part in values.chunks(HASHED_AT_ONCE) {
        block.clear();
        block.extend(part.iter().flat_map(|value| bytes(*value)));
        hasher.update(&block);
    }
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        .collect()
}

/// What the digest of a checkpoint begins with: its state.
fn hasher_of(state: &str) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hash_count(&mut hasher, state.len());
    hasher.update(state.as_bytes());
    hasher
}

fn hexadecimal(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}
