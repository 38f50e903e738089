//! What a trained model is judged by.
//!
//! The functions are pure and work on slices of `f64`. Preconditions (equal lengths, numbers that
//! are numbers, probabilities between 0 and 1) are checked once, by the constructors of
//! [`Binary`], [`Multiclass`], [`Regression`], [`Anomaly`], [`Clustering`] and [`Text`]; their methods are the metrics. A value that is
//! not defined for the given rows (the AUC of a single class, a rate with nothing below its
//! fraction bar) is `None` and `null` in JSON, never NaN and never a convenient zero.
//!
//! [`evaluate`] puts all of them into one [`Evaluation`], which is what the gate reads, what a
//! model version keeps and what the report draws.

mod anomaly;
mod binary;
mod calibration;
mod clustering;
mod evaluation;
mod fairness;
mod multiclass;
mod ranking;
mod regression;
#[cfg(test)]
mod tests;
mod text;

pub use anomaly::{Anomaly, ScoreBin};
pub use binary::{Binary, Confusion};
pub use calibration::{Calibration, CalibrationBin};
pub use clustering::{ClusterSize, Clustering, Points};
pub use evaluation::{
    ClassScores, ConfusionMatrix, EvaluateOptions, EvaluatedTask, Evaluation, Metric, Outcomes,
    evaluate,
};
pub use fairness::{GroupScores, Slice, SliceColumn};
pub use multiclass::Multiclass;
pub use ranking::{RocPoint, average_precision, roc_auc, roc_curve};
pub use regression::Regression;
pub use text::{Lengths, Text};

/// Why rows cannot be judged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// There is nothing to judge by.
    #[error("there are no rows to evaluate; give the test split a larger share")]
    NoRows,
    /// Two columns that belong together differ in length.
    #[error("{what} has {found} values where there are {expected} rows")]
    Lengths {
        /// The column.
        what: String,
        /// Its length.
        found: usize,
        /// The number of rows.
        expected: usize,
    },
    /// A number that is not one, or lies outside its range.
    #[error("{what} of row {row} is {value}; expected {expected}")]
    Value {
        /// The column.
        what: &'static str,
        /// The row, counted from 0.
        row: usize,
        /// What was found.
        value: f64,
        /// What would have been right.
        expected: &'static str,
    },
    /// The class of a row is not one of the classes.
    #[error("the class of row {row} has index {index}, but there are {classes} classes")]
    Class {
        /// The row, counted from 0.
        row: usize,
        /// The index that was found.
        index: u32,
        /// How many classes there are.
        classes: usize,
    },
    /// A slice column with so many values that its groups mean nothing.
    #[error(
        "slice `{column}` has more than {limit} different values; cut it into bands in the \
         dataset's sql, or slice by another column"
    )]
    TooManyGroups {
        /// The column.
        column: String,
        /// The largest number of groups.
        limit: usize,
    },
}

/// How far from `[0, 1]` a probability may lie and still be taken for a rounding error of `f32`.
const PROBABILITY_SLACK: f64 = 1e-6;

fn check_length(what: &str, found: usize, expected: usize) -> Result<(), MetricsError> {
    if found == expected {
        Ok(())
    } else {
        Err(MetricsError::Lengths {
            what: what.to_owned(),
            found,
            expected,
        })
    }
}

fn check_finite(what: &'static str, values: &[f64]) -> Result<(), MetricsError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(row) => Err(MetricsError::Value {
            what,
            row,
            value: values[row],
            expected: "a finite number",
        }),
    }
}

fn check_probabilities(values: &[f64], per_row: usize) -> Result<(), MetricsError> {
    let range = -PROBABILITY_SLACK..=1.0 + PROBABILITY_SLACK;
    match values.iter().position(|value| !range.contains(value)) {
        None => Ok(()),
        Some(index) => Err(MetricsError::Value {
            what: "the probability",
            row: index / per_row.max(1),
            value: values[index],
            expected: "a number from 0 to 1",
        }),
    }
}

/// `numerator / denominator`, or nothing where there is nothing to divide by.
fn ratio(numerator: f64, denominator: f64) -> Option<f64> {
    (denominator > 0.0).then(|| numerator / denominator)
}
