//! Where rows lie, for measuring how well they are grouped.
//!
//! An adapter measures distances in a space of its own, which another adapter would not share.
//! Here it is the host's: numbers, booleans and times in standard deviations of the test rows, a
//! missing one at the mean; texts as equal or not, a missing one equal to another missing one.

use std::collections::HashMap;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use crate::metrics::Points;

/// The most rows that are looked at: their distances are taken pair by pair.
const ROWS: usize = 1000;

/// The points of evenly spread rows.
pub(crate) fn points(batches: &[RecordBatch]) -> Points {
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let taken = total.min(ROWS);
    // As many thousandths of the way as there are rows taken; no two are the same row.
    let rows: Vec<usize> = (0..taken).map(|place| place * total / taken).collect();
    let columns = batches.first().map_or(0, RecordBatch::num_columns);
    let (mut numbers, mut texts) = (Vec::new(), Vec::new());
    for column in 0..columns {
        match standardised(batches, column) {
            Some(values) => numbers.push(values),
            None => texts.push(numbered(batches, column)),
        }
    }
    let (numbers_per_row, texts_per_row) = (numbers.len(), texts.len());
    Points {
        numbers: by_row(&rows, &numbers),
        texts: by_row(&rows, &texts),
        rows,
        numbers_per_row,
        texts_per_row,
    }
}

/// The values of some rows, row by row.
fn by_row<T: Copy>(rows: &[usize], columns: &[Vec<T>]) -> Vec<T> {
    let of = |row: &usize| {
        columns
            .iter()
            .map(|column| column[*row])
            .collect::<Vec<T>>()
    };
    rows.iter().flat_map(of).collect()
}

/// A column in standard deviations from its mean; `None` of texts.
fn standardised(batches: &[RecordBatch], column: usize) -> Option<Vec<f64>> {
    let mut values: Vec<Option<f64>> = Vec::new();
    for batch in batches {
        let column = batch.column(column);
        let numbers = match column.data_type() {
            DataType::Utf8 => return None,
            // Times are whole numbers of their unit.
            DataType::Date32 => {
                cast(column, &DataType::Int32).and_then(|it| cast(&it, &DataType::Float64))
            }
            DataType::Timestamp(..) => {
                cast(column, &DataType::Int64).and_then(|it| cast(&it, &DataType::Float64))
            }
            _ => cast(column, &DataType::Float64),
        };
        let numbers = numbers.ok()?;
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        values.extend(numbers.as_primitive::<Float64Type>().iter().map(finite));
    }
    let known = || values.iter().flatten();
    let count = known().count().max(1) as f64;
    let mean = known().map(|value| value / count).sum::<f64>();
    let variance = known()
        .map(|value| (value - mean) * (value - mean) / count)
        .sum::<f64>();
    let deviation = variance.sqrt();
    let scale = match deviation.is_finite() && deviation > 1e-12 * mean.abs() {
        true => 1.0 / deviation,
        false => 0.0,
    };
    let place = |value: Option<f64>| (value.unwrap_or(mean) - mean) * scale;
    Some(values.into_iter().map(place).collect())
}

/// A column of texts as numbers of equal texts; 0 where there is none.
fn numbered(batches: &[RecordBatch], column: usize) -> Vec<u32> {
    let mut known: HashMap<String, u32> = HashMap::new();
    let mut numbers = Vec::new();
    for batch in batches {
        let Some(texts) = batch.column(column).as_string_opt::<i32>() else {
            numbers.extend(std::iter::repeat_n(0, batch.num_rows()));
            continue;
        };
        for text in texts {
            numbers.push(text.map_or(0, |text| match known.get(text) {
                Some(number) => *number,
                None => {
                    let next = known.len() as u32 + 1;
                    known.insert(text.to_owned(), next);
                    next
                }
            }));
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Date32Array, Float64Array, StringArray};

    use super::*;

    fn batch(rows: usize) -> RecordBatch {
        let number = |row: usize| (row % 7 != 3).then_some(row as f64 * 10.0);
        let columns: [(&str, ArrayRef); 4] = [
            (
                "number",
                Arc::new(Float64Array::from_iter((0..rows).map(number))),
            ),
            (
                "text",
                Arc::new(StringArray::from_iter(
                    (0..rows).map(|row| ["a", "b"].get(row % 3).copied()),
                )),
            ),
            (
                "flag",
                Arc::new(BooleanArray::from_iter(
                    (0..rows).map(|row| Some(row % 2 == 0)),
                )),
            ),
            (
                "day",
                Arc::new(Date32Array::from_iter(
                    (0..rows).map(|row| Some(row as i32)),
                )),
            ),
        ];
        RecordBatch::try_from_iter(columns).expect("a batch")
    }

    #[test]
    fn numbers_are_in_deviations_and_texts_are_numbered() {
        let points = points(&[batch(6), batch(4)]);
        assert_eq!(points.rows, (0..10).collect::<Vec<_>>());
        assert_eq!((points.numbers_per_row, points.texts_per_row), (3, 1));
        assert_eq!(points.texts, [1, 2, 0, 1, 2, 0, 1, 2, 0, 1]);
        for column in 0..3 {
            let values: Vec<f64> = points
                .numbers
                .iter()
                .skip(column)
                .step_by(3)
                .copied()
                .collect();
            let mean = values.iter().sum::<f64>() / 10.0;
            assert!(mean.abs() < 1e-9, "{values:?}");
        }
        // Row 3 has no number: it is at the mean.
        assert_eq!(points.numbers[9], 0.0);
    }

    #[test]
    fn many_rows_are_thinned_evenly() {
        let points = points(&[batch(4_000), batch(3_500)]);
        assert_eq!(points.rows.len(), ROWS);
        assert_eq!((points.rows[0], points.rows[999]), (0, 7_492));
        assert!(points.rows.windows(2).all(|two| two[0] < two[1]));
    }
}
