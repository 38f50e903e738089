//! What the columns of a dataset look like, in one pass over the rows.

mod column;
mod distinct;
mod frequent;
mod range;
mod spread;

use futures::TryStreamExt;
use sandcast_audit::Digest;
use sandcast_sandbox::Kind;
use serde::{Deserialize, Serialize};

use crate::rows::ReadError;
use crate::{Dataset, Estate, Progress, ProgressSink};
use column::Column;

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
    /// Whether `distinct` is exact or an estimate, off by about 1%.
    pub distinct_exact: bool,
    /// The least value, as text.
    pub min: Option<String>,
    /// The greatest value, as text.
    pub max: Option<String>,
    /// More about an int64 or float64 column.
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
    /// Pairs of a probability and its quantile, for 0.01, 0.05, 0.25, 0.5, 0.75, 0.95 and 0.99.
    pub quantiles: Vec<(f64, f64)>,
    /// Whether the quantiles are those of all values, or of 16,384 drawn at random (the same ones
    /// for the same dataset).
    pub quantiles_exact: bool,
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

/// Bins of equal width from the least to the greatest value. There is none for a column with an
/// infinite value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The edges, one more than there are bins; days for dates, seconds for timestamps.
    pub edges: Vec<f64>,
    /// The values in each bin; the last one includes its upper edge.
    pub counts: Vec<u64>,
}

impl Estate {
    /// Describes every column, in one pass. The same dataset gives the same profile.
    ///
    /// # Errors
    /// When the dataset cannot be read, or a blob of it was changed.
    #[tracing::instrument(name = "estate.profile", skip_all, fields(dataset = %dataset.name))]
    pub async fn profile(
        &self,
        dataset: &Dataset,
        progress: Option<ProgressSink>,
    ) -> Result<Profile, ReadError> {
        let ranges = range::ranges(self.store(), dataset).await?;
        let mut columns: Vec<Column> = dataset
            .schema
            .fields()
            .iter()
            .zip(ranges)
            .filter_map(|(field, range)| Column::new(field, range))
            .collect();
        let mut rows = 0;
        let mut batches = self.stream(dataset);
        while let Some(batch) = batches.try_next().await? {
            for column in &mut columns {
                if let Some(values) = batch.column_by_name(column.name()) {
                    column.add(values);
                }
            }
            rows += batch.num_rows() as u64;
            if let Some(progress) = &progress {
                progress(Progress {
                    rows,
                    total: Some(dataset.rows),
                });
            }
        }
        let columns = columns.into_iter().map(Column::finish).collect();
        Ok(Profile {
            dataset: dataset.digest,
            rows,
            columns,
        })
    }
}

#[cfg(test)]
mod tests;
