//! `unique`: no combination of values comes twice, over all batches. The first occurrence passes.
//!
//! Kept for each combination are 16 bytes: the value itself where it fits, else a 128-bit hash, of
//! which two among ten million are equal with a chance of about 1e-25. The table is split so that
//! it grows a 64th at a time and never needs twice its size.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use sandcast_sdk::Failure;
use serde::Deserialize;
use siphasher::sip128::{Hasher128, SipHasher13};

use super::{Made, RowTest, Schema};
use crate::column::{Column, RowBits, Values, all_valid_word, failing_rows, word};

/// How many combinations are kept unless the configuration says otherwise: about 140 MB.
const DEFAULT_MAXIMUM_KEYS: u64 = 7_000_000;

/// Parts of the table.
const SHARDS: usize = 64;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    column: Option<String>,
    columns: Option<Vec<String>>,
    max_keys: Option<u64>,
}

pub(super) fn make(keys: Keys, schema: &Schema<'_>) -> Result<Made, String> {
    let names = match (keys.column, keys.columns) {
        (Some(name), None) => vec![name],
        (None, Some(names)) if !names.is_empty() => names,
        _ => return Err("give either `column` or `columns`".into()),
    };
    let mut indexes = Vec::with_capacity(names.len());
    for name in &names {
        let (index, _) = schema.find(name)?;
        if indexes.contains(&index) {
            return Err(format!("`columns` names `{name}` twice"));
        }
        indexes.push(index);
    }
    let maximum_keys = keys.max_keys.unwrap_or(DEFAULT_MAXIMUM_KEYS);
    if maximum_keys == 0 {
        return Err("`max_keys` must be at least 1".into());
    }
    let description = match names.as_slice() {
        [name] => format!("no value of `{name}` comes twice"),
        names => format!("no combination of `{}` comes twice", names.join("`, `")),
    };
    Ok(Made::rows(
        indexes,
        description,
        Unique {
            seen: Seen::default(),
            maximum_keys,
        },
    ))
}

/// Keys are uniform already, or small integers: one multiplication spreads them.
#[derive(Debug, Default, Clone, Copy)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Fibonacci hashing (Knuth, TAOCP 6.4), folded so that both ends of the word are mixed.
        let product = u128::from(self.0 ^ value) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }
}

/// The combinations so far.
#[derive(Debug, Default)]
struct Seen {
    shards: Vec<HashSet<u128, BuildHasherDefault<KeyHasher>>>,
    keys: u64,
}

impl Seen {
    /// Whether the key is new; an error where there is no memory for it.
    fn insert(&mut self, key: u128) -> Result<bool, std::collections::TryReserveError> {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, HashSet::default);
        }
        let mut hasher = KeyHasher::default();
        hasher.write_u128(key);
        // The table inside a shard uses the highest and the lowest bits.
        let shard = &mut self.shards[(hasher.finish() >> 32) as usize % SHARDS];
        if shard.len() == shard.capacity() {
            shard.try_reserve(1)?;
        }
        let is_new = shard.insert(key);
        self.keys += u64::from(is_new);
        Ok(is_new)
    }
}

#[derive(Debug)]
struct Unique {
    seen: Seen,
    maximum_keys: u64,
}

/// The key of a row in which every column holds a value.
fn key(columns: &[Column<'_>], row: usize) -> u128 {
    if let [column] = columns {
        match column.values {
            Values::Int64(values) | Values::TimestampUs(values) => {
                return u128::from(values[row] as u64);
            }
            Values::Date32(values) => return u128::from(values[row] as u32),
            _ => {}
        }
    }
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    for column in columns {
        match column.values {
            Values::Boolean(bitmap) => {
                hasher.write_u8((word(bitmap, row / 64) >> (row % 64)) as u8 & 1)
            }
            Values::Int64(values) | Values::TimestampUs(values) => hasher.write_i64(values[row]),
            Values::Date32(values) => hasher.write_i32(values[row]),
            // 0 and -0 are one value, and so are all that are not a number.
            Values::Float64(values) => {
                let value = values[row];
                let value = if value.is_nan() {
                    f64::NAN
                } else {
                    value + 0.0
                };
                hasher.write_u64(value.to_bits());
            }
            // The length first, so that ("a", "bc") and ("ab", "c") differ.
            Values::Utf8(strings) => {
                let bytes = strings.get(row);
                hasher.write_u64(bytes.len() as u64);
                hasher.write(bytes);
            }
        }
    }
    hasher.finish128().as_u128()
}

impl RowTest for Unique {
    fn failing(&mut self, columns: &[Column<'_>]) -> Result<RowBits, Failure> {
        let rows = columns.first().map_or(0, |column| column.rows);
        let mut stopped = None;
        let bits = failing_rows(
            rows,
            |block| all_valid_word(columns, block),
            |row| {
                if stopped.is_some() {
                    return false;
                }
                match self.seen.insert(key(columns, row)) {
                    Ok(_) if self.seen.keys > self.maximum_keys => {
                        stopped = Some(format!("more than {} different values", self.maximum_keys));
                        false
                    }
                    Ok(is_new) => !is_new,
                    Err(_) => {
                        stopped = Some(format!(
                            "no memory after {} different values",
                            self.seen.keys
                        ));
                        false
                    }
                }
            },
        );
        match stopped {
            None => Ok(bits),
            Some(why) => Err(Failure::exhausted(format!("cannot tell whether `{}` is unique: {why}", columns[0].name))
                .hint("raise `max_keys` (20 bytes a key) and `limits.memory` of the plugin, or split the dataset")),
        }
    }

    fn explain(&self, columns: &[Column<'_>], row: usize) -> String {
        let values: Vec<String> = columns
            .iter()
            .map(|column| format!("{} {}", column.name, column.show(row)))
            .collect();
        format!("{} came before", values.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{RowTest, Schema, Test, make};
    use super::Seen;
    use crate::column::testing::Owned;
    use serde_json::{Value, json};
    use std::collections::HashSet;

    #[test]
    fn later_occurrences_fail() {
        let ids = Owned::strings(&[Some("a"), Some("b"), None, Some("a"), None, Some("a")]);
        let (checked, failing) = check(json!({"rule": "unique", "column": "id"}), &[("id", &ids)]);
        assert_eq!(checked, 4);
        assert_eq!(
            failing,
            [
                (3, "id \"a\" came before".to_owned()),
                (5, "id \"a\" came before".to_owned())
            ]
        );
    }

    #[test]
    fn combinations_count_not_their_parts() {
        let left = Owned::strings(&[Some("a"), Some("ab"), Some("a"), Some("a")]);
        let right = Owned::strings(&[Some("bc"), Some("c"), Some("bc"), None]);
        let rule = json!({"rule": "unique", "columns": ["left", "right"]});
        let (checked, failing) = check(rule, &[("left", &left), ("right", &right)]);
        assert_eq!(checked, 3);
        assert_eq!(
            failing,
            [(2, "left \"a\", right \"bc\" came before".to_owned())]
        );
    }

    #[test]
    fn every_kind_has_keys() {
        let rule = |name: &str| json!({"rule": "unique", "column": name});
        let numbers = Owned::int64(&[Some(-1), Some(1), Some(-1)]);
        assert_eq!(failing_rows(rule("n"), &[("n", &numbers)]), [2]);
        let reals = Owned::float64(&[Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN)]);
        assert_eq!(failing_rows(rule("x"), &[("x", &reals)]), [1, 3]);
        let days = Owned::dates(&[Some(-1), Some(1), Some(-1)]);
        assert_eq!(failing_rows(rule("d"), &[("d", &days)]), [2]);
        let flags = Owned::booleans(&[Some(true), Some(false), Some(true)]);
        assert_eq!(failing_rows(rule("b"), &[("b", &flags)]), [2]);
    }

    fn unique(owned: &Owned, max_keys: u64) -> Box<dyn RowTest> {
        let fields = [field("id", owned.column("id").kind())];
        let Value::Object(keys) = json!({"column": "id", "max_keys": max_keys}) else {
            panic!("an object")
        };
        match make("unique", keys, &Schema(&fields))
            .expect("a good rule")
            .test
        {
            Test::Rows(test) => test,
            Test::Dataset(_) => panic!("a rule about rows"),
        }
    }

    #[test]
    fn batches_before_are_remembered() {
        let (first, second) = (
            Owned::int64(&[Some(1), Some(2)]),
            Owned::int64(&[Some(3), Some(2)]),
        );
        let mut test = unique(&first, 10);
        assert_eq!(
            test.failing(&[first.column("id")]).expect("room").count(),
            0
        );
        assert_eq!(
            test.failing(&[second.column("id")])
                .expect("room")
                .rows()
                .collect::<Vec<_>>(),
            [1]
        );
    }

    #[test]
    fn too_many_keys_are_a_failure_that_says_so() {
        let ids = Owned::int64(&(0..100).map(Some).collect::<Vec<_>>());
        assert!(unique(&ids, 100).failing(&[ids.column("id")]).is_ok());
        let failure = unique(&ids, 99)
            .failing(&[ids.column("id")])
            .expect_err("one too many");
        assert_eq!(failure.code, sandcast_sdk::FailureCode::Exhausted);
        assert!(
            failure.message.contains("`id`") && failure.message.contains("99"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn shards_fill_evenly() {
        let mut seen = Seen::default();
        for key in 0..64_000_u128 {
            assert!(seen.insert(key * 1_000).expect("room"));
        }
        let (least, most) = (
            seen.shards.iter().map(HashSet::len).min(),
            seen.shards.iter().map(HashSet::len).max(),
        );
        assert!(
            least > Some(700) && most < Some(1_300),
            "{least:?} to {most:?}"
        );
    }

    #[test]
    fn columns_must_be_given_once() {
        let ids = Owned::int64(&[]);
        let columns = [("id", &ids)];
        assert!(refused(json!({"rule": "unique"}), &columns).contains("either"));
        assert!(
            refused(
                json!({"rule": "unique", "column": "id", "columns": ["id"]}),
                &columns
            )
            .contains("either")
        );
        assert!(
            refused(json!({"rule": "unique", "columns": ["id", "id"]}), &columns).contains("twice")
        );
    }
}
