//! What can go wrong when a compiled program runs.

use crate::graph::DType;
use crate::train::StopReason;

/// Why a run, a training or the loading of weights failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The program has no entry of this name.
    #[error("the program has no entry `{entry}`; it has {known}")]
    UnknownEntry {
        /// The name asked for.
        entry: String,
        /// The names there are.
        known: String,
    },
    /// An input is not fed.
    #[error("input `{input}` is not given")]
    MissingInput {
        /// The input.
        input: String,
    },
    /// Something is fed that is not an input.
    #[error("`{input}` is given but is not an input of the program; it has {known}")]
    UnknownInput {
        /// The name given.
        input: String,
        /// The names there are.
        known: String,
    },
    /// An input has the wrong shape.
    #[error("input `{input}` has shape {given:?} where the program declares {declared}")]
    WrongShape {
        /// The input.
        input: String,
        /// The shape given.
        given: Vec<usize>,
        /// The shape declared.
        declared: String,
    },
    /// An input has the wrong dtype.
    #[error("input `{input}` is {} where the program declares {}", given.name(), declared.name())]
    WrongDType {
        /// The input.
        input: String,
        /// The dtype given.
        given: DType,
        /// The dtype declared.
        declared: DType,
    },
    /// Two inputs give one symbol two values.
    #[error("input `{input}` says that `{symbol}` is {given}, an input before it says {before}")]
    ExtentsDiffer {
        /// The later input.
        input: String,
        /// The symbol.
        symbol: String,
        /// What the later input says.
        given: usize,
        /// What an earlier one says.
        before: usize,
    },
    /// A symbol is over its maximum, in a program that cannot be cut into pieces along it.
    #[error("`{symbol}` is {given}, over its maximum of {maximum}; give less at a time")]
    ExtentTooLarge {
        /// The symbol.
        symbol: String,
        /// What the inputs say.
        given: usize,
        /// What the program declares.
        maximum: usize,
    },
    /// A run over given inputs comes to more than it may.
    #[error(
        "`{entry}` comes to {found} {what} over these rows, over {limit}; give fewer rows at a time"
    )]
    TooLarge {
        /// The entry.
        entry: String,
        /// What is counted.
        what: &'static str,
        /// How much of it.
        found: u64,
        /// The most there may be.
        limit: u64,
    },
    /// A number that selects a row is outside the table.
    #[error("node {node}: number {number} at place {place} is outside 0..{size}")]
    IndexOutOfRange {
        /// The gather or cross-entropy node.
        node: u32,
        /// The number found.
        number: i32,
        /// Where among the indices or labels, counted from the first row of the feeds or, in
        /// training, of the batch.
        place: usize,
        /// The size of the table, or the number of classes.
        size: usize,
    },
    /// The loss is not finite.
    #[error(
        "the loss is {loss} at step {step} of epoch {epoch}; lower the learning rate, clip \
         gradients, or look for values that are not finite in the inputs"
    )]
    NotFinite {
        /// The step, counted from 1 over the whole training.
        step: u64,
        /// The epoch, counted from 1.
        epoch: u32,
        /// What it was.
        loss: f64,
    },
    /// The loss is finite and its gradient was not.
    #[error(
        "weights are not finite after epoch {epoch}, since a gradient was not; lower the learning \
         rate, clip gradients, or keep arguments away from where a derivative has no bound"
    )]
    WeightsNotFinite {
        /// The epoch, counted from 1.
        epoch: u32,
    },
    /// A row weight is negative or not finite, or all are 0.
    #[error("the weights of the rows must be finite, not negative, and not all 0: {what}")]
    BadWeights {
        /// Which, and where.
        what: String,
    },
    /// Windows that overlap too much to be held each by itself.
    #[error("the windows of input `{input}` have more than {limit} elements; take a larger stride")]
    TooManyWindows {
        /// The input.
        input: String,
        /// The most elements.
        limit: usize,
    },
    /// The graph declares no generation.
    #[error("the program declares no generation, so it cannot generate")]
    NotGenerating,
    /// A prompt or the way to sample makes no sense.
    #[error("{what}")]
    BadPrompt {
        /// What is wrong, and what to do.
        what: String,
    },
    /// The graph declares no loss or no optimizer.
    #[error("the program declares no {what}, so it cannot be trained")]
    NotTrainable {
        /// `loss` or `optimizer`.
        what: &'static str,
    },
    /// The plan of the training makes no sense.
    #[error("the training plan's {what}")]
    BadPlan {
        /// Which number, and what it must be.
        what: String,
    },
    /// There is nothing to learn from.
    #[error("the training data has no rows")]
    NoRows,
    /// The watcher asked to stop.
    #[error("stopped before step {step}: {reason}")]
    Stopped {
        /// The step that was not made, counted from 1; of a run over rows, the piece.
        step: u64,
        /// Why.
        reason: StopReason,
    },
    /// What is kept of a training is damaged, or of another one.
    #[error("the checkpoint cannot be used: {what}")]
    BadCheckpoint {
        /// How.
        what: String,
    },
    /// Weights do not belong to this program.
    #[error("the weights do not fit the program: {what}")]
    WrongWeights {
        /// Which tensor, and how it differs.
        what: String,
    },
    /// The device has no room left.
    #[error(
        "the device has no room for {bytes} bytes more, {held} of at most {limit} are held; give \
         fewer rows at a time, end other sessions, or allow more device memory"
    )]
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
        /// What sessions hold.
        held: u64,
        /// What they may hold together.
        limit: u64,
    },
    /// The device stopped answering.
    #[error(
        "the device was lost: {what}; the session has the weights of its last training that ended, \
         and goes on with them when it is used again"
    )]
    DeviceLost {
        /// What its driver said.
        what: String,
    },
    /// The machine refused memory or threads.
    #[error("the device cannot run this: {what}")]
    Device {
        /// What was refused.
        what: String,
    },
}
