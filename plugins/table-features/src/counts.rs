//! The values of a column: strings counted, everything else as numbers.

use std::collections::HashMap;

use sandcast_sdk::{Column, Values};

/// Different values of one string column that are counted; later ones are not.
const MAXIMUM_COUNTED_VALUES: usize = 500_000;

/// How often each string of a column occurs.
#[derive(Debug, Default)]
pub struct Counts(HashMap<Box<str>, u64>);

impl Counts {
    /// Counts a value.
    pub fn add(&mut self, value: &str) {
        if let Some(count) = self.0.get_mut(value) {
            *count += 1;
        } else if self.0.len() < MAXIMUM_COUNTED_VALUES {
            self.0.insert(value.into(), 1);
        }
    }

    /// Values that occur at least so often, by falling frequency, equal ones by name, so that the
    /// order is a function of the rows; at most so many.
    #[must_use]
    pub fn most_frequent(self, min_frequency: u32, maximum: u32) -> Vec<String> {
        let mut counted: Vec<(Box<str>, u64)> = self
            .0
            .into_iter()
            .filter(|(_, count)| *count >= u64::from(min_frequency))
            .collect();
        counted.sort_unstable_by(|left, right| {
            right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0))
        });
        counted.truncate(maximum as usize);
        counted.into_iter().map(|(value, _)| value.into()).collect()
    }
}

/// A column as the host makes numbers of it: booleans as 0 and 1, dates and times in seconds.
#[must_use]
pub fn seconds_or_numbers(column: &Column) -> Option<Vec<f64>> {
    let rows = column.rows as usize;
    Some(match &column.values {
        Values::Float64(values) => values.clone(),
        Values::Int64(values) => values.iter().map(|value| *value as f64).collect(),
        Values::Date32(values) => values
            .iter()
            .map(|days| f64::from(*days) * 86_400.0)
            .collect(),
        Values::TimestampUs(values) => values
            .iter()
            .map(|microseconds| *microseconds as f64 / 1e6)
            .collect(),
        Values::Boolean(_) => {
            let booleans = column.boolean()?;
            (0..rows)
                .map(|row| f64::from(u8::from(booleans.get(row) == Some(true))))
                .collect()
        }
        Values::Utf8(_) => return None,
    })
}
