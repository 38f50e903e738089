//! How a training goes: the plan, the schedule, and what is reported.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::backend::{Trainer, WeightedLoss};
use crate::checkpoint::{Checkpoint, CheckpointStore};
use crate::error::RunError;
use crate::graph::Symbol;
use crate::random::{Purpose, Stream, permutation};

/// What to do in a training.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainPlan {
    /// Passes over the data, at least 1.
    pub epochs: u32,
    /// Rows of one pass, where it is less than all: so many of the order, which `shuffle` makes
    /// anew for each pass. At least 1.
    pub epoch_rows: Option<u32>,
    /// Rows that are computed at once, at least 1.
    pub batch_rows: u32,
    /// Batches of one step, at least 1: their gradients are added before the weights change, so
    /// that a step is that of a batch so many times as large, in the memory of one. Only the order
    /// in which gradients are added is another.
    pub accumulate_steps: u32,
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
    /// Linear warm-up over the first steps, then a straight line down to `floor` times the rate.
    Linear {
        /// Steps of the warm-up.
        warmup_steps: u32,
        /// The share of the rate that is left at the end, in 0..=1.
        floor: f32,
    },
    /// Linear warm-up over the first steps, then by the same factor from step to step, down to
    /// `floor` times the rate.
    Exponential {
        /// Steps of the warm-up.
        warmup_steps: u32,
        /// The share of the rate that is left at the end, above 0 and at most 1.
        floor: f32,
    },
    /// By `factor` each time so many steps are made.
    Stepwise {
        /// Steps between two changes, at least 1.
        every_steps: u32,
        /// What the rate is multiplied by, above 0 and at most 1.
        factor: f32,
    },
}

impl Schedule {
    /// The share of the learning rate at a step counted from 0, of so many steps.
    pub fn share(&self, step: u64, steps: u64) -> f32 {
        // `fall` gives the share after the warm-up by the part of the way that is done.
        let warmed = |warmup_steps: u32, fall: &dyn Fn(f64) -> f64| {
            let warmup = u64::from(warmup_steps);
            if step < warmup {
                return ((step + 1) as f64 / warmup as f64) as f32;
            }
            let length = steps.saturating_sub(warmup).max(1);
            let part = ((step - warmup) as f64 / length as f64).min(1.0);
            fall(part) as f32
        };
        match *self {
            Schedule::Constant => 1.0,
            Schedule::Cosine {
                warmup_steps,
                floor,
            } => warmed(warmup_steps, &|part| {
                let cosine = 0.5 * (1.0 + (std::f64::consts::PI * part).cos());
                f64::from(floor) + (1.0 - f64::from(floor)) * cosine
            }),
            Schedule::Linear {
                warmup_steps,
                floor,
            } => warmed(warmup_steps, &|part| {
                f64::from(floor) + (1.0 - f64::from(floor)) * (1.0 - part)
            }),
            Schedule::Exponential {
                warmup_steps,
                floor,
            } => warmed(warmup_steps, &|part| f64::from(floor).powf(part)),
            Schedule::Stepwise {
                every_steps,
                factor,
            } => {
                let changes = step / u64::from(every_steps.max(1));
                f64::from(factor).powf(changes as f64) as f32
            }
        }
    }

    /// What makes no sense in it.
    fn wrong(&self) -> Option<String> {
        match *self {
            Schedule::Constant => None,
            Schedule::Cosine { floor, .. } => (!(0.0..=1.0).contains(&floor))
                .then(|| format!("cosine floor is {floor}; make it 0 to 1")),
            Schedule::Linear { floor, .. } => (!(0.0..=1.0).contains(&floor))
                .then(|| format!("linear floor is {floor}; make it 0 to 1")),
            Schedule::Exponential { floor, .. } => (!(floor > 0.0 && floor <= 1.0))
                .then(|| format!("exponential floor is {floor}; make it above 0, at most 1")),
            Schedule::Stepwise { every_steps: 0, .. } => {
                Some("steps between two changes of the rate are 0; make them at least 1".into())
            }
            Schedule::Stepwise { factor, .. } => (!(factor > 0.0 && factor <= 1.0))
                .then(|| format!("factor of the rate is {factor}; make it above 0, at most 1")),
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
    /// Steps that an earlier attempt had made, whose checkpoint this one went on from.
    pub resumed_after: Option<u64>,
}

/// Holds a plan against what makes sense.
pub(crate) fn check_plan(plan: &TrainPlan, rows: &Symbol) -> Result<(), RunError> {
    let refuse = |what: String| Err(RunError::BadPlan { what });
    if plan.epochs == 0 {
        return refuse("epochs are 0; make at least 1".into());
    }
    if plan.epoch_rows == Some(0) {
        return refuse("rows of an epoch are 0; make them at least 1".into());
    }
    if plan.batch_rows == 0 || plan.batch_rows > rows.maximum {
        return refuse(format!(
            "batch rows are {}; make them 1 to {}, the maximum of `{}`",
            plan.batch_rows, rows.maximum, rows.name
        ));
    }
    if !(plan.learning_rate.is_finite() && plan.learning_rate >= 0.0) {
        return refuse(format!(
            "learning rate is {}; make it finite and not negative",
            plan.learning_rate
        ));
    }
    if let Some(norm) = plan.clip_norm
        && !(norm.is_finite() && norm > 0.0)
    {
        return refuse(format!("clip norm is {norm}; make it finite and above 0"));
    }
    if let Some(what) = plan.schedule.wrong() {
        return refuse(what);
    }
    if plan.accumulate_steps == 0 || plan.batch_rows.checked_mul(plan.accumulate_steps).is_none() {
        return refuse(format!(
            "batches of a step are {}; make them at least 1, of fewer than 2^32 rows together",
            plan.accumulate_steps
        ));
    }
    Ok(())
}

/// The weighted mean of losses.
pub(crate) fn mean(sums: WeightedLoss) -> Result<f64, RunError> {
    if let Some(row) = sums.bad_weight {
        return Err(RunError::BadWeights {
            what: format!("row {row} of the batch"),
        });
    }
    if sums.weight > 0.0 {
        Ok(sums.loss / sums.weight)
    } else {
        Err(RunError::BadWeights {
            what: "all of them are 0".into(),
        })
    }
}

/// A training under way, whatever the device.
pub(crate) struct Run<'a> {
    pub(crate) trainer: Box<dyn Trainer + 'a>,
    pub(crate) plan: &'a TrainPlan,
    pub(crate) rows: usize,
    pub(crate) has_validation: bool,
    pub(crate) seed: u64,
    /// What the training is a function of, and where it is kept while it runs.
    pub(crate) kept: Option<Kept<'a>>,
}

/// Where a training is kept, and under which key.
pub(crate) struct Kept<'a> {
    pub(crate) key: [u8; 32],
    pub(crate) store: &'a mut dyn CheckpointStore,
}

/// Where a training stands between two steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    /// The epoch of the next step, counted from 1.
    pub(crate) epoch: u32,
    /// Steps of that epoch that are made.
    pub(crate) steps_of_epoch: u64,
    /// The losses of these.
    pub(crate) sums: WeightedLoss,
    /// The least validation loss so far.
    pub(crate) best: f64,
    /// What there is to report so far.
    pub(crate) report: TrainReport,
}

impl Run<'_> {
    /// Makes the epochs.
    pub(crate) fn run(
        mut self,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<StopReason>,
    ) -> Result<TrainReport, RunError> {
        if self.rows == 0 {
            return Err(RunError::NoRows);
        }
        let plan = self.plan;
        let count = u32::try_from(self.rows).map_err(|_| RunError::BadPlan {
            what: format!("data has {} rows", self.rows),
        })?;
        let batch_rows = plan.batch_rows as usize * plan.accumulate_steps as usize;
        let taken = plan
            .epoch_rows
            .map_or(self.rows, |rows| self.rows.min(rows as usize));
        let steps = taken.div_ceil(batch_rows) as u64 * u64::from(plan.epochs);
        let started = Instant::now();
        let patience = plan.patience.filter(|_| self.has_validation);
        let mut place = self.begin()?;
        while place.epoch <= plan.epochs {
            let epoch = place.epoch;
            let epoch_started = Instant::now();
            let order: Vec<u32> = if plan.shuffle {
                let stream = Stream::new(self.seed, Purpose::Shuffle, 0, u64::from(epoch));
                permutation(stream, count)
            } else {
                (0..count).collect()
            };
            let mut learning_rate = plan.learning_rate;
            let made = usize::try_from(place.steps_of_epoch).unwrap_or(usize::MAX);
            let mut batches = order[..taken].chunks(batch_rows).skip(made).peekable();
            while let Some(rows) = batches.next() {
                let step = place.report.steps + 1;
                let progress = Progress {
                    step: place.report.steps,
                    steps,
                    epoch,
                    epochs: plan.epochs,
                    elapsed: started.elapsed(),
                    report: None,
                };
                if let ControlFlow::Break(reason) = watch(progress) {
                    self.keep(&place)?;
                    return Err(RunError::Stopped { step, reason });
                }
                learning_rate = plan.learning_rate * plan.schedule.share(step - 1, steps);
                self.trainer
                    .announce(batches.peek().copied().unwrap_or(&[]));
                let loss = self.trainer.gradient(rows, step)?;
                if let Some(row) = loss.bad_weight {
                    return Err(RunError::BadWeights {
                        what: format!("row {} of the data", rows.get(row).copied().unwrap_or(0)),
                    });
                }
                if !loss.loss.is_finite() {
                    let loss = loss.loss / loss.weight;
                    return Err(RunError::NotFinite { step, epoch, loss });
                }
                // A batch whose rows all have a weight of 0 says nothing.
                if loss.weight > 0.0 {
                    self.trainer.update(learning_rate)?;
                }
                place.sums = place.sums.and(loss);
                place.steps_of_epoch += 1;
                place.report.steps = step;
                place.report.rows += rows.len() as u64;
                if batches.peek().is_some() {
                    self.keep_if_due(&place)?;
                }
            }
            let train_loss = mean(place.sums)?;
            if !self.trainer.is_finite()? {
                return Err(RunError::WeightsNotFinite { epoch });
            }
            let validation_loss = match self.has_validation {
                true => Some(mean(self.trainer.validate()?)?),
                false => None,
            };
            if let Some(loss) = validation_loss
                && !loss.is_finite()
            {
                return Err(RunError::NotFinite {
                    step: place.report.steps,
                    epoch,
                    loss,
                });
            }
            place.report.epochs.push(EpochReport {
                epoch,
                train_loss,
                validation_loss,
                learning_rate,
                duration: epoch_started.elapsed(),
            });
            if let (Some(loss), Some(_)) = (validation_loss, patience)
                && loss < place.best
            {
                place.best = loss;
                place.report.best_epoch = epoch;
                self.trainer.keep()?;
            }
            let without_gain = epoch - place.report.best_epoch.min(epoch);
            let is_last = epoch == plan.epochs;
            place.report.stopped_early =
                !is_last && patience.is_some_and(|patience| without_gain >= patience.max(1));
            place.epoch += 1;
            place.steps_of_epoch = 0;
            place.sums = WeightedLoss::default();
            let progress = Progress {
                step: place.report.steps,
                steps,
                epoch,
                epochs: plan.epochs,
                elapsed: started.elapsed(),
                report: place.report.epochs.last(),
            };
            let reply = watch(progress);
            if is_last || place.report.stopped_early {
                break;
            }
            if let ControlFlow::Break(reason) = reply {
                self.keep(&place)?;
                return Err(RunError::Stopped {
                    step: place.report.steps + 1,
                    reason,
                });
            }
            self.keep_if_due(&place)?;
        }
        if patience.is_some() {
            self.trainer.restore()?;
        }
        self.trainer.finish()?;
        if let Some(Kept { key, store }) = &mut self.kept {
            store.remove(key);
        }
        Ok(place.report)
    }

    /// Where the training begins: where an earlier attempt stopped, if that is known.
    fn begin(&mut self) -> Result<Place, RunError> {
        let beginning = Place {
            epoch: 1,
            steps_of_epoch: 0,
            sums: WeightedLoss::default(),
            best: f64::INFINITY,
            report: TrainReport {
                epochs: Vec::new(),
                best_epoch: self.plan.epochs,
                steps: 0,
                rows: 0,
                stopped_early: false,
                resumed_after: None,
            },
        };
        let Some(Kept { key, store }) = &mut self.kept else {
            return Ok(beginning);
        };
        let Some(bytes) = store.load(key) else {
            return Ok(beginning);
        };
        let read = Checkpoint::from_bytes(&bytes, key).and_then(|checkpoint| {
            let Checkpoint { mut place, trainer } = checkpoint;
            // Nothing of the trainer has changed where it refuses.
            self.trainer.set_state(trainer)?;
            place.report.resumed_after = Some(place.report.steps);
            Ok(place)
        });
        match read {
            Ok(place) => Ok(place),
            Err(RunError::BadCheckpoint { what }) => {
                store.reject(key, &what);
                Ok(beginning)
            }
            Err(error) => Err(error),
        }
    }

    fn keep_if_due(&mut self, place: &Place) -> Result<(), RunError> {
        let is_due = self.kept.as_mut().is_some_and(|kept| kept.store.is_due());
        if is_due { self.keep(place) } else { Ok(()) }
    }

    fn keep(&mut self, place: &Place) -> Result<(), RunError> {
        if let Some(Kept { key, store }) = &mut self.kept
            && place.report.steps > 0
        {
            let checkpoint = Checkpoint {
                place: place.clone(),
                trainer: self.trainer.state()?,
            };
            store.save(key, &checkpoint.to_bytes(key));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cosine_warms_up_and_falls_to_its_floor() {
        let schedule = Schedule::Cosine {
            warmup_steps: 4,
            floor: 0.1,
        };
        let shares: Vec<f32> = (0..104).map(|step| schedule.share(step, 104)).collect();
        assert_eq!(shares[..4], [0.25, 0.5, 0.75, 1.0]);
        assert_eq!(shares[4], 1.0);
        assert!((shares[54] - 0.55).abs() < 1e-6);
        assert!(shares[4..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!(shares[103] > 0.1 && shares[103] < 0.101);
        assert_eq!(Schedule::Constant.share(7, 10), 1.0);
        let linear = Schedule::Linear {
            warmup_steps: 2,
            floor: 0.5,
        };
        let shares: Vec<f32> = (0..12).map(|step| linear.share(step, 12)).collect();
        assert_eq!(shares[..4], [0.5, 1.0, 1.0, 0.95]);
        assert!((shares[11] - 0.55).abs() < 1e-6);
        let exponential = Schedule::Exponential {
            warmup_steps: 0,
            floor: 0.01,
        };
        assert_eq!(exponential.share(0, 10), 1.0);
        assert!((exponential.share(5, 10) - 0.1).abs() < 1e-6);
        let stepwise = Schedule::Stepwise {
            every_steps: 3,
            factor: 0.5,
        };
        let shares: Vec<f32> = (0..7).map(|step| stepwise.share(step, 7)).collect();
        assert_eq!(shares, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]);
        assert_eq!(
            Schedule::Cosine {
                warmup_steps: 0,
                floor: 0.0
            }
            .share(0, 0),
            1.0
        );
    }
}
