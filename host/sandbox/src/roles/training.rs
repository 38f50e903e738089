//! What training reports, as the contract has it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Told how far training has come, from another thread.
pub type ProgressSink = Arc<dyn Fn(TrainProgress) + Send + Sync>;

/// Told of each piece of text that a generation writes: the row, counted from 0, and the piece.
pub type TextSink = Arc<dyn Fn(usize, &str) + Send + Sync>;

/// What one run of an entry costs at the maximum of every symbol; `loss` is one training step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// The entry.
    pub entry: String,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes moved.
    pub bytes_moved: u64,
    /// Bytes held at most.
    pub peak_bytes: u64,
}

/// What an epoch came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// From 1.
    pub epoch: u32,
    /// The mean training loss.
    pub train_loss: f64,
    /// The validation loss.
    pub validation_loss: Option<f64>,
    /// The learning rate at its end.
    pub learning_rate: f32,
    /// How long it took.
    pub seconds: f64,
}

/// What a training came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    /// One for each epoch.
    pub epochs: Vec<EpochReport>,
    /// The epoch whose weights were kept.
    pub best_epoch: u32,
    /// Steps taken.
    pub steps: u64,
    /// Rows seen.
    pub rows: u64,
    /// Steps of an earlier attempt, which was cut off, that this one went on from.
    pub resumed_after: Option<u64>,
}

/// How far training has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainProgress {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole plan.
    pub steps: u64,
    /// The epoch, from 1.
    pub epoch: u32,
    /// Epochs of the whole plan.
    pub epochs: u32,
    /// What the epoch came to, at its end.
    pub report: Option<EpochReport>,
}

impl From<&sandcast_kernels::Cost> for Cost {
    fn from(cost: &sandcast_kernels::Cost) -> Self {
        Self {
            entry: cost.entry.clone(),
            flops: cost.flops,
            bytes_moved: cost.bytes_moved,
            peak_bytes: cost.peak_bytes,
        }
    }
}

impl From<&sandcast_kernels::EpochReport> for EpochReport {
    fn from(report: &sandcast_kernels::EpochReport) -> Self {
        Self {
            epoch: report.epoch,
            train_loss: report.train_loss,
            validation_loss: report.validation_loss,
            learning_rate: report.learning_rate,
            seconds: report.duration.as_secs_f64(),
        }
    }
}

impl From<&sandcast_kernels::TrainReport> for TrainReport {
    fn from(report: &sandcast_kernels::TrainReport) -> Self {
        Self {
            epochs: report.epochs.iter().map(EpochReport::from).collect(),
            best_epoch: report.best_epoch,
            steps: report.steps,
            rows: report.rows,
            resumed_after: report.resumed_after,
        }
    }
}
