use sandcast_audit::Digest;
use sandcast_sandbox::Kind;
use serde::{Deserialize, Serialize};

/// What a dataset looks like, column by column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The digest of the dataset.
    pub dataset: Digest,
    /// Its rows.
    pub rows: u64,
    /// Its columns, in order.
    pub columns: Vec<ColumnProfile>,
}

/// What a column looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ColumnProfile {
    /// The column.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Rows with a value.
    pub count: u64,
    /// Rows without one.
    pub nulls: u64,
    /// How many different values there are.
    pub distinct: u64,
    /// Whether `distinct` is exact or an estimate (HyperLogLog, about 1% off).
    pub distinct_exact: bool,
    /// The least value, as text.
    pub min: Option<String>,
    /// The greatest value, as text.
    pub max: Option<String>,
    /// More about numbers.
    pub numbers: Option<Numbers>,
    /// The most frequent values, most frequent first, then by value.
    pub top: Vec<ValueCount>,
    /// Whether the counts in `top` are exact or lower bounds.
    pub top_exact: bool,
    /// How numbers and times are spread.
    pub histogram: Option<Histogram>,
}

/// What the numbers of a column look like. Infinite values and NaN take no part in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Numbers {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of the sample, or 0 for fewer than two values.
    pub std: f64,
    /// Pairs of a probability and its quantile: 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99.
    pub quantiles: Vec<(f64, f64)>,
    /// Values that are NaN or infinite.
    pub not_finite: u64,
}

/// A value and how often it occurs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueCount {
    /// The value, as text, cut to 200 characters.
    pub value: String,
    /// How often it occurs.
    pub count: u64,
}

/// Bins of equal width from the least to the greatest value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The edges, one more than there are bins; days for dates, seconds for timestamps.
    pub edges: Vec<f64>,
    /// The values in each bin; the last one includes its upper edge.
    pub counts: Vec<u64>,
}
