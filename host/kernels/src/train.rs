//! How a training goes: the plan, the schedule, and what is reported.

use std::time::Duration;

/// What to do in a training.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainPlan {
    /// Passes over the data, at least 1.
    pub epochs: u32,
    /// Rows of one step, at least 1.
    pub batch_rows: u32,
    /// Finite, not negative.
    pub learning_rate: f32,
    /// How the rate changes from step to step.
    pub schedule: Schedule,
    /// Scales gradients down to this global norm.
    pub clip_norm: Option<f32>,
    /// Stops after this many epochs without a better validation loss, and returns to the best.
    /// Without validation rows it does nothing.
    pub patience: Option<u32>,
    /// Whether each epoch takes the rows in another order.
    pub shuffle: bool,
}

/// How the learning rate changes from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// It does not.
    Constant,
    /// Linear warm-up over the first steps, then half a cosine down to `floor` times the rate
    /// (Loshchilov and Hutter 2017).
    Cosine {
        /// Steps of the warm-up.
        warmup_steps: u32,
        /// The share of the rate that is left at the end, in 0..=1.
        floor: f32,
    },
}

impl Schedule {
    /// The share of the learning rate at a step counted from 0, of so many steps.
    pub fn share(&self, step: u64, steps: u64) -> f32 {
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Cosine { warmup_steps, floor } => {
                let warmup = u64::from(warmup_steps);
                if step < warmup {
                    return ((step + 1) as f64 / warmup as f64) as f32;
                }
                let length = steps.saturating_sub(warmup).max(1);
                let part = ((step - warmup) as f64 / length as f64).min(1.0);
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * part).cos());
                (f64::from(floor) + (1.0 - f64::from(floor)) * cosine) as f32
            }
        }
    }
}

/// Where a training is; given to the watcher before every step and after every epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'a> {
    /// Steps made so far.
    pub step: u64,
    /// Steps there will be if nothing stops early.
    pub steps: u64,
    /// The epoch, counted from 1.
    pub epoch: u32,
    /// Epochs there will be if nothing stops early.
    pub epochs: u32,
    /// Time since the training began.
    pub elapsed: Duration,
    /// The epoch that just ended; none between steps.
    pub report: Option<&'a EpochReport>,
}

/// Why a watcher stops a training.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// Somebody asked for it.
    #[error("cancelled")]
    Cancelled,
    /// Something ran out.
    #[error("over budget: {what}")]
    Budget {
        /// What ran out, and of how much.
        what: String,
    },
}

/// What one pass over the data gave.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochReport {
    /// Counted from 1.
    pub epoch: u32,
    /// The weighted mean over the epoch, each batch before its step.
    pub train_loss: f64,
    /// The weighted mean over the validation rows after the epoch, without dropout.
    pub validation_loss: Option<f64>,
    /// The rate of the epoch's last step.
    pub learning_rate: f32,
    /// How long the epoch took, validation included.
    pub duration: Duration,
}

/// What a training gave.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainReport {
    /// Every epoch that was made.
    pub epochs: Vec<EpochReport>,
    /// The epoch whose weights the session now has, counted from 1: the one of the least
    /// validation loss where there is `patience`, else the last.
    pub best_epoch: u32,
    /// Steps made.
    pub steps: u64,
    /// Rows learnt from, each as often as it was seen.
    pub rows: u64,
    /// Whether patience ran out before the epochs did.
    pub stopped_early: bool,
}
