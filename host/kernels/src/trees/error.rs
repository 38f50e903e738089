//! What can go wrong with a forest.

use crate::train::StopReason;

/// Why a training, a prediction or the reading of a forest failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ForestError {
    /// The plan makes no sense.
    #[error("the forest's plan: {what}")]
    BadPlan {
        /// Which number, and what it must be.
        what: String,
    },
    /// Columns, targets and weights do not fit together.
    #[error("the rows: {what}")]
    BadRows {
        /// What does not fit.
        what: String,
    },
    /// A target cannot be learnt.
    #[error("the target of row {row} is {given}; {wanted}")]
    BadTarget {
        /// The row.
        row: usize,
        /// What it is.
        given: f64,
        /// What it must be.
        wanted: String,
    },
    /// A row weight is negative or not finite, or all are 0.
    #[error("the weights of the rows must be finite, not negative, and not all 0: {what}")]
    BadWeights {
        /// Which, and where.
        what: String,
    },
    /// There is nothing to learn from.
    #[error("the training data has no {what}")]
    Nothing {
        /// `rows` or `columns`.
        what: &'static str,
    },
    /// Something is more than a forest is made for.
    #[error("{what} are {given}, over {most}; {remedy}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        given: u64,
        /// How much there may be.
        most: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// A gradient or a leaf is beyond float32.
    #[error(
        "numbers are not finite in round {round}; scale the target down, lower the weights or the \
         learning rate, or raise `l2`"
    )]
    NotFinite {
        /// Counted from 1.
        round: u32,
    },
    /// The watcher asked to stop.
    #[error("stopped in round {round}: {reason}")]
    Stopped {
        /// The round that was not finished, counted from 1.
        round: u32,
        /// Why.
        reason: StopReason,
    },
    /// The watcher asked to stop while rows were answered.
    #[error("stopped before all rows were answered: {reason}")]
    Unanswered {
        /// Why.
        reason: StopReason,
    },
    /// Bytes are not a forest.
    #[error("not a forest: {what}")]
    BadFile {
        /// What is wrong.
        what: String,
    },
    /// The system refused threads.
    #[error("could not start {threads} threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}
