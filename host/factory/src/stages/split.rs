//! Puts rows aside for judging the model.
//!
//! A row's place is a function of the seed and of what the row holds, not of the order in which
//! rows arrive: rows are sorted by a keyed hash of their content, and the first ones become the
//! test rows, the next ones the validation rows. Rows that hold the same have the same hash and
//! stay together, so that no test row is also a training row. In a classification this is done
//! for each class by itself, so that every part has the classes in the same shares.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

use crate::config::SplitSection;

/// Row numbers of each part, rising.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts {
    pub(crate) training: UInt32Array,
    pub(crate) validation: UInt32Array,
    pub(crate) test: UInt32Array,
}

/// Splits rows. `strata` has a number for each row; shares are kept within equal numbers.
pub(crate) fn split(
    rows: &RecordBatch,
    strata: &[u32],
    shares: SplitSection,
    seed: u64,
) -> Result<Parts, ArrowError> {
    let hashes = hashes(rows, seed)?;
    let mut order: Vec<u32> = (0..hashes.len() as u32).collect();
    let of = |row: &u32| (strata[*row as usize], hashes[*row as usize]);
    order.sort_unstable_by_key(|row| (of(row), *row));

    let mut parts: [Vec<u32>; 3] = Default::default();
    for stratum in order.chunk_by(|one, other| of(one).0 == of(other).0) {
        let test = boundary(stratum, shares.test * stratum.len() as f64, &of);
        let validation = boundary(
            stratum,
            (shares.test + shares.validation) * stratum.len() as f64,
            &of,
        );
        parts[0].extend(&stratum[..test]);
        parts[1].extend(&stratum[test..validation]);
        parts[2].extend(&stratum[validation..]);
    }
    parts.iter_mut().for_each(|part| part.sort_unstable());
    let [test, validation, training] = parts.map(UInt32Array::from);
    Ok(Parts {
        training,
        validation,
        test,
    })
}

/// The place nearest to `wanted` at which the hash changes, so that equal rows stay together.
fn boundary<K: PartialEq>(stratum: &[u32], wanted: f64, of: &impl Fn(&u32) -> K) -> usize {
    let wanted = (wanted.round() as usize).min(stratum.len());
    let changes =
        |at: usize| at == 0 || at == stratum.len() || of(&stratum[at - 1]) != of(&stratum[at]);
    (0..=stratum.len())
        .flat_map(|distance| [wanted.checked_sub(distance), wanted.checked_add(distance)])
        .flatten()
        .filter(|at| *at <= stratum.len())
        .find(|at| changes(*at))
        .unwrap_or(0)
}

/// The first half of blake3, keyed by the seed, over each row in Arrow's row format.
fn hashes(rows: &RecordBatch, seed: u64) -> Result<Vec<u128>, ArrowError> {
    let fields = rows.schema();
    let fields = fields
        .fields()
        .iter()
        .map(|field| SortField::new(field.data_type().clone()));
    let encoded = RowConverter::new(fields.collect())?.convert_columns(rows.columns())?;
    let key = blake3::derive_key("sandcast split 1", &seed.to_le_bytes());
    let hash = |row: &[u8]| {
        let hash = blake3::keyed_hash(&key, row);
        let mut half = [0; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        u128::from_le_bytes(half)
    };
    Ok(encoded.iter().map(|row| hash(row.as_ref())).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::compute::take_record_batch;

    use super::*;

    const SHARES: SplitSection = SplitSection {
        test: 0.2,
        validation: 0.1,
    };

    fn rows(values: impl IntoIterator<Item = i64>) -> RecordBatch {
        let values: Vec<i64> = values.into_iter().collect();
        let text: Vec<String> = values.iter().map(|value| format!("row {value}")).collect();
        RecordBatch::try_from_iter([
            ("number", Arc::new(Int64Array::from(values)) as ArrayRef),
            ("text", Arc::new(StringArray::from(text)) as ArrayRef),
        ])
        .expect("two columns of one length")
    }

    fn numbers(rows: &RecordBatch, part: &UInt32Array) -> Vec<i64> {
        let taken = take_record_batch(rows, part).expect("rows that are there");
        let column = taken
            .column(0)
            .as_any()
            .downcast_ref::<Int64Array>()
            .expect("numbers");
        let mut numbers: Vec<i64> = column.values().to_vec();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn every_row_is_in_one_part_and_shares_hold_in_every_stratum() {
        let rows = rows(0..1000);
        let strata: Vec<u32> = (0..1000).map(|row| u32::from(row % 10 == 0)).collect();
        let parts = split(&rows, &strata, SHARES, 7).expect("a split");
        let counts = [&parts.test, &parts.validation, &parts.training].map(|part| part.len());
        assert_eq!(counts, [200, 100, 700]);
        let rare = parts
            .test
            .values()
            .iter()
            .filter(|row| **row % 10 == 0)
            .count();
        assert_eq!(rare, 20);
        let mut all: Vec<u32> = [&parts.test, &parts.validation, &parts.training]
            .iter()
            .flat_map(|part| part.values().to_vec())
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<u32>>());
    }

    #[test]
    fn the_order_of_rows_does_not_matter_but_the_seed_does() {
        let (forward, backward) = (rows(0..500), rows((0..500).rev()));
        let strata = vec![0; 500];
        let parts = |rows: &RecordBatch, seed| {
            let parts = split(rows, &strata, SHARES, seed).expect("a split");
            (numbers(rows, &parts.test), numbers(rows, &parts.validation))
        };
        assert_eq!(parts(&forward, 7), parts(&backward, 7));
        assert_ne!(parts(&forward, 7), parts(&forward, 8));
    }

    #[test]
    fn equal_rows_stay_together() {
        let rows = rows((0..300).map(|row| row / 3));
        let parts = split(&rows, &vec![0; 300], SHARES, 7).expect("a split");
        for part in [&parts.test, &parts.validation, &parts.training] {
            let numbers = numbers(&rows, part);
            assert!(
                numbers
                    .chunks(3)
                    .all(|three| three.iter().all(|it| *it == three[0]))
            );
        }
        assert!(
            (54..=66).contains(&parts.test.len()),
            "{}",
            parts.test.len()
        );
    }

    #[test]
    fn few_rows_do_no_harm() {
        for count in 0..5 {
            let rows = rows(0..count);
            let parts = split(&rows, &vec![0; count as usize], SHARES, 1).expect("a split");
            let all = parts.test.len() + parts.validation.len() + parts.training.len();
            assert_eq!(all, count as usize);
        }
    }
}
