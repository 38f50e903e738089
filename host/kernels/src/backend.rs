//! What a device implements, and what it may take as given.
//!
//! A session checks what it is asked before a device hears of it: feeds fit the task, plans of
//! a training make sense, rows are in range. A device holds the weights, computes entries, and
//! makes the steps of a training; epochs, order of rows, schedules and early stopping are the
//! session's. So one suite of tests fits every device.

use std::fmt::{self, Debug};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::cpu::Threads;
use crate::device::{DeviceInfo, Precision};
use crate::error::RunError;
use crate::feeds::Bound;
use crate::program::Program;
use crate::tensor::Tensor;
use crate::train::StopReason;

/// Asked between pieces whether to go on, by whichever thread takes the next.
pub(crate) type Look<'a> = &'a (dyn Fn() -> ControlFlow<StopReason> + Sync);

/// The same, for whoever is asked later, and by several.
#[derive(Clone)]
pub(crate) struct KeptLook(Arc<dyn Fn() -> ControlFlow<StopReason> + Send + Sync>);

impl KeptLook {
    pub(crate) fn new(look: impl Fn() -> ControlFlow<StopReason> + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    pub(crate) fn get(&self) -> Look<'_> {
        &*self.0
    }
}

impl Debug for KeptLook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeptLook").finish_non_exhaustive()
    }
}

/// Looks at nothing.
pub(crate) fn go_on() -> ControlFlow<StopReason> {
    ControlFlow::Continue(())
}

/// Asks whether a piece, counted from 0, may begin.
pub(crate) fn look_before(piece: usize, look: Look<'_>) -> Result<(), RunError> {
    match look() {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(reason) => Err(RunError::Stopped {
            step: piece as u64 + 1,
            reason,
        }),
    }
}

/// A device that runs programs. Its methods take types of this crate alone, so implementations
/// live in this crate.
#[expect(private_interfaces, reason = "devices are implemented in this crate")]
pub trait Backend: Send + Sync + Debug {
    /// What it is.
    fn info(&self) -> &DeviceInfo;

    /// The precision that it computes in where this one is the least exact that may be.
    ///
    /// # Errors
    /// When it would need something that is not there.
    #[doc(hidden)]
    fn precision(&self, least: Precision) -> Result<Precision, String>;

    /// Puts a program on the device, with weights of zeros. The precision is one that it computes
    /// in.
    ///
    /// # Errors
    /// When the device lacks the memory.
    #[doc(hidden)]
    fn open(
        &self,
        program: Arc<Program>,
        precision: Precision,
    ) -> Result<Box<dyn Engine>, RunError>;

    /// Threads of the processor that it has started, if any.
    #[doc(hidden)]
    fn threads(&self) -> Option<&Arc<Threads>> {
        None
    }
}

/// A program with its weights on a device.
pub(crate) trait Engine: Send + Sync + Debug {
    /// The weights of each parameter, in the order of the program.
    fn weights(&self) -> Vec<Vec<f32>>;

    /// Replaces the weights. As many, of as many numbers, as the program has.
    fn set_weights(&mut self, weights: &[Vec<f32>]);

    /// Computes the results of an entry, in its order. The feeds were bound to the entry.
    fn infer(
        &self,
        entry: usize,
        feeds: &Bound<'_>,
        look: Look<'_>,
    ) -> Result<Vec<Tensor>, RunError>;

    /// Begins a training. The program has a loss; the feeds were bound to it.
    fn train<'a>(&'a mut self, job: Job<'a>) -> Result<Box<dyn Trainer + 'a>, RunError>;

    /// Begins a generation of at most so many sequences at a time.
    fn decoder(&self, slots: usize) -> Result<Box<dyn Decoder + '_>, RunError>;
}

/// Sequences under way, and what is kept of their positions.
pub(crate) trait Decoder {
    /// Appends as many tokens to each of these slots, which differ. Returns the logits after the
    /// last token of each. Tokens are in the vocabulary and no sequence passes the context; when
    /// it fails, the slots are to be cleared.
    fn advance(&mut self, slots: &[usize], tokens: &[i32]) -> Result<Vec<f32>, RunError>;

    /// Positions that are kept of a slot.
    fn length(&self, slot: usize) -> usize;

    /// Forgets a sequence.
    fn clear(&mut self, slot: usize);
}

/// What a training is about.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) training: Bound<'a>,
    pub(crate) validation: Option<Bound<'a>>,
    /// The largest number of rows that are computed at once. A step may have more: they are taken
    /// in so many batches, whose gradients are added.
    pub(crate) batch_rows: usize,
    pub(crate) clip_norm: Option<f32>,
    pub(crate) seed: u64,
    /// Asked between pieces of the rows that judge it.
    pub(crate) look: KeptLook,
}

/// A training under way.
pub(crate) trait Trainer {
    /// Says which rows the step after the next call of `gradient` will take, where that is known:
    /// a device may fetch them meanwhile.
    fn announce(&mut self, _rows: &[u32]) {}

    /// Computes the loss of these rows, by number in the training feeds, at a step counted from
    /// 1, and its gradient. The weights stay.
    fn gradient(&mut self, rows: &[u32], step: u64) -> Result<WeightedLoss, RunError>;

    /// Changes the weights by the gradient of the last call, at this learning rate.
    fn update(&mut self, learning_rate: f32) -> Result<(), RunError>;

    /// The gradient of the last call, by parameter; empty for one that is not trainable.
    fn gradients(&self) -> Result<Vec<Vec<f32>>, RunError>;

    /// The loss of the validation rows.
    fn validate(&mut self) -> Result<WeightedLoss, RunError>;

    /// Whether every weight is finite.
    fn is_finite(&self) -> Result<bool, RunError>;

    /// Remembers the weights as the best so far.
    fn keep(&mut self) -> Result<(), RunError>;

    /// Returns to the weights that were kept last.
    fn restore(&mut self) -> Result<(), RunError>;

    /// Everything that the steps so far have changed.
    fn state(&self) -> Result<TrainerState, RunError>;

    /// Goes on from where another training of the same kind was.
    ///
    /// # Errors
    /// [`RunError::BadCheckpoint`] when the state is of another program or optimizer; the training
    /// is then as it was.
    fn set_state(&mut self, state: TrainerState) -> Result<(), RunError>;

    /// Ends a training that came to its end: from here on the engine has its weights.
    fn finish(&mut self) -> Result<(), RunError>;
}

/// What a trainer knows besides its job, in the layout of the program.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TrainerState {
    /// Changes of the weights so far.
    pub(crate) updates: u64,
    pub(crate) weights: Vec<f32>,
    /// What the optimizer remembers; empty where it does not.
    pub(crate) moments: [Vec<f32>; 2],
    /// The weights that were kept as the best; empty where none were.
    pub(crate) best: Vec<f32>,
}

impl TrainerState {
    /// Holds the lengths of its parts against those that a trainer has.
    ///
    /// # Errors
    /// [`RunError::BadCheckpoint`] when they differ.
    pub(crate) fn check(&self, weights: usize, moments: [usize; 2]) -> Result<(), RunError> {
        let found = [
            self.weights.len(),
            self.moments[0].len(),
            self.moments[1].len(),
        ];
        let fits = found == [weights, moments[0], moments[1]]
            && (self.best.is_empty() || self.best.len() == weights);
        if fits {
            return Ok(());
        }
        Err(RunError::BadCheckpoint {
            what: format!(
                "it has {found:?} weights and moments, the training has {weights} and {moments:?}"
            ),
        })
    }
}

/// Sums over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct WeightedLoss {
    /// The sum of weight times loss.
    pub(crate) loss: f64,
    /// The sum of weights; the number of rows where there are none.
    pub(crate) weight: f64,
    /// The first row whose weight is negative or not a number, counted from the first of the
    /// call.
    pub(crate) bad_weight: Option<usize>,
}

impl WeightedLoss {
    /// Sums in the order of the rows. `first_row` is the number of the first.
    pub(crate) fn of(losses: &[f32], weights: Option<&[f32]>, first_row: usize) -> WeightedLoss {
        let mut sums = WeightedLoss::default();
        match weights {
            None => {
                sums.loss = losses.iter().map(|loss| f64::from(*loss)).sum();
                sums.weight = losses.len() as f64;
            }
            Some(weights) => {
                for (row, (loss, weight)) in losses.iter().zip(weights).enumerate() {
                    if !(*weight >= 0.0 && weight.is_finite()) && sums.bad_weight.is_none() {
                        sums.bad_weight = Some(first_row + row);
                    }
                    sums.loss += f64::from(*loss) * f64::from(*weight);
                    sums.weight += f64::from(*weight);
                }
            }
        }
        sums
    }

    /// The sums of one piece after the sums of the pieces before it.
    pub(crate) fn and(self, next: WeightedLoss) -> WeightedLoss {
        WeightedLoss {
            loss: self.loss + next.loss,
            weight: self.weight + next.weight,
            bad_weight: self.bad_weight.or(next.bad_weight),
        }
    }
}
