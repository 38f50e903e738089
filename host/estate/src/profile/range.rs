//! The least and the greatest value of columns, from what the Parquet files say about themselves.

use std::sync::Arc;

use parquet::file::statistics::Statistics;

use crate::Dataset;
use crate::blobs::BlobStore;
use crate::rows::{self, ReadError};

/// For each column its bounds as a number, where all of its files know them.
pub(super) async fn ranges(
    store: &Arc<BlobStore>,
    dataset: &Dataset,
) -> Result<Vec<Option<(f64, f64)>>, ReadError> {
    let width = dataset.schema.fields().len();
    let mut ranges: Vec<Option<(f64, f64)>> = vec![None; width];
    let mut known = vec![true; width];
    for blob in &dataset.blobs {
        let file = rows::open(store, blob).await?;
        for group in file.metadata().row_groups() {
            for (place, column) in group.columns().iter().enumerate().take(width) {
                let statistics = column.statistics();
                let all_null = statistics.and_then(Statistics::null_count_opt)
                    == u64::try_from(group.num_rows()).ok();
                match statistics.and_then(bounds) {
                    Some((low, high)) => {
                        let range = ranges[place].get_or_insert((low, high));
                        *range = (range.0.min(low), range.1.max(high));
                    }
                    None => known[place] &= all_null,
                }
            }
        }
    }
    Ok(ranges
        .into_iter()
        .zip(known)
        .map(|(range, known)| range.filter(|_| known))
        .collect())
}

fn bounds(statistics: &Statistics) -> Option<(f64, f64)> {
    match statistics {
        Statistics::Int32(values) => {
            Some((f64::from(*values.min_opt()?), f64::from(*values.max_opt()?)))
        }
        Statistics::Int64(values) => Some((*values.min_opt()? as f64, *values.max_opt()? as f64)),
        Statistics::Double(values) => Some((*values.min_opt()?, *values.max_opt()?)),
        _ => None,
    }
}
