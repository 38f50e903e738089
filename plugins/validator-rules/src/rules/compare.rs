//! `compare`: one column against another, row by row.

use std::cmp::Ordering;

use sandcast_sdk::{Failure, Kind};
use serde::Deserialize;

use super::{Made, RowTest, Schema};
use crate::column::{Column, RowBits, Values, all_valid_word, failing_rows, word};
use crate::times::date_in_microseconds;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    column: String,
    comparison: Comparison,
    other: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Comparison {
    #[serde(rename = "==", alias = "equal")]
    Equal,
    #[serde(rename = "!=", alias = "not-equal")]
    NotEqual,
    #[serde(rename = "<", alias = "less")]
    Less,
    #[serde(rename = "<=", alias = "less-or-equal")]
    LessOrEqual,
    #[serde(rename = ">", alias = "greater")]
    Greater,
    #[serde(rename = ">=", alias = "greater-or-equal")]
    GreaterOrEqual,
}

impl Comparison {
    /// A NaN is unequal to everything, itself included, as in IEEE 754.
    fn holds(self, ordering: Option<Ordering>) -> bool {
        match self {
            Self::Equal => ordering == Some(Ordering::Equal),
            Self::NotEqual => ordering != Some(Ordering::Equal),
            Self::Less => ordering == Some(Ordering::Less),
            Self::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
            Self::Greater => ordering == Some(Ordering::Greater),
            Self::GreaterOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Equal => "equal to",
            Self::NotEqual => "different from",
            Self::Less => "less than",
            Self::LessOrEqual => "at most",
            Self::Greater => "greater than",
            Self::GreaterOrEqual => "at least",
        }
    }
}

pub(super) fn make(keys: Keys, schema: &Schema<'_>) -> Result<Made, String> {
    let (left, left_kind) = schema.find(&keys.column)?;
    let (right, right_kind) = schema.find(&keys.other)?;
    let same_family = match (left_kind, right_kind) {
        (Kind::Int64 | Kind::Float64, Kind::Int64 | Kind::Float64) => true,
        (Kind::Date32 | Kind::TimestampUs, Kind::Date32 | Kind::TimestampUs) => true,
        (left, right) => left == right,
    };
    if !same_family {
        return Err(format!(
            "`{}` is {} and `{}` is {}, which do not compare",
            keys.column,
            left_kind.name(),
            keys.other,
            right_kind.name()
        ));
    }
    let is_equality = matches!(keys.comparison, Comparison::Equal | Comparison::NotEqual);
    if left_kind == Kind::Boolean && !is_equality {
        return Err("booleans are equal or not, there is no order among them".into());
    }
    let description = format!(
        "`{}` is {} `{}`",
        keys.column,
        keys.comparison.words(),
        keys.other
    );
    Ok(Made::rows(
        vec![left, right],
        description,
        Compare(keys.comparison),
    ))
}

#[derive(Debug)]
struct Compare(Comparison);

impl RowTest for Compare {
    fn failing(&mut self, columns: &[Column<'_>]) -> Result<RowBits, Failure> {
        use Values::{Boolean, Date32, Float64, Int64, TimestampUs, Utf8};
        let by_row = |order: &dyn Fn(usize) -> Option<Ordering>| {
            failing_rows(
                columns[0].rows,
                |block| all_valid_word(columns, block),
                |row| !self.0.holds(order(row)),
            )
        };
        Ok(match (columns[0].values, columns[1].values) {
            (Int64(left), Int64(right)) | (TimestampUs(left), TimestampUs(right)) => {
                by_row(&|row| left[row].partial_cmp(&right[row]))
            }
            (Float64(left), Float64(right)) => by_row(&|row| left[row].partial_cmp(&right[row])),
            (Int64(left), Float64(right)) => {
                by_row(&|row| (left[row] as f64).partial_cmp(&right[row]))
            }
            (Float64(left), Int64(right)) => {
                by_row(&|row| left[row].partial_cmp(&(right[row] as f64)))
            }
            (Date32(left), Date32(right)) => by_row(&|row| left[row].partial_cmp(&right[row])),
            (Date32(left), TimestampUs(right)) => {
                by_row(&|row| date_in_microseconds(left[row]).partial_cmp(&right[row]))
            }
            (TimestampUs(left), Date32(right)) => {
                by_row(&|row| left[row].partial_cmp(&date_in_microseconds(right[row])))
            }
            (Utf8(left), Utf8(right)) => by_row(&|row| left.get(row).partial_cmp(right.get(row))),
            (Boolean(left), Boolean(right)) => {
                let equal_fails = if self.0 == Comparison::NotEqual {
                    u64::MAX
                } else {
                    0
                };
                RowBits::from_words(columns[0].rows, |block| {
                    (word(left, block) ^ word(right, block) ^ equal_fails)
                        & all_valid_word(columns, block)
                })
            }
            _ => RowBits::default(),
        })
    }

    fn explain(&self, columns: &[Column<'_>], row: usize) -> String {
        let [left, right] = columns else {
            return String::new();
        };
        format!(
            "{} {} is not {} {} {}",
            left.name,
            left.show(row),
            self.0.words(),
            right.name,
            right.show(row)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::column::testing::Owned;
    use serde_json::json;

    #[test]
    fn rows_out_of_order_fail() {
        let starts = Owned::dates(&[Some(10), Some(11), None, Some(5)]);
        let ends = Owned::dates(&[Some(10), Some(10), Some(1), None]);
        let rule =
            json!({"rule": "compare", "column": "start", "comparison": "<=", "other": "end"});
        let (checked, failing) = check(rule, &[("start", &starts), ("end", &ends)]);
        assert_eq!(checked, 2);
        assert_eq!(
            failing,
            [(
                1,
                "start 1970-01-12 is not at most end 1970-01-11".to_owned()
            )]
        );
    }

    #[test]
    fn kinds_of_one_family_compare() {
        let (whole, real) = (
            Owned::int64(&[Some(1), Some(2)]),
            Owned::float64(&[Some(1.5), Some(f64::NAN)]),
        );
        let columns = [("whole", &whole), ("real", &real)];
        let rule = |comparison: &str| json!({"rule": "compare", "column": "whole", "comparison": comparison, "other": "real"});
        assert_eq!(failing_rows(rule("<"), &columns), [1]);
        assert_eq!(failing_rows(rule("not-equal"), &columns), [0_usize; 0]);
        let (days, times) = (
            Owned::dates(&[Some(1)]),
            Owned::timestamps(&[Some(86_400_000_000)]),
        );
        let rule = json!({"rule": "compare", "column": "d", "comparison": "==", "other": "t"});
        assert!(failing_rows(rule, &[("d", &days), ("t", &times)]).is_empty());
        let (left, right) = (
            Owned::strings(&[Some("a"), Some("b")]),
            Owned::strings(&[Some("b"), Some("a")]),
        );
        let rule = json!({"rule": "compare", "column": "l", "comparison": ">", "other": "r"});
        assert_eq!(failing_rows(rule, &[("l", &left), ("r", &right)]), [0]);
        let (left, right) = (
            Owned::booleans(&[Some(true), Some(false)]),
            Owned::booleans(&[Some(true), Some(true)]),
        );
        let columns = [("l", &left), ("r", &right)];
        let rule = |comparison: &str| json!({"rule": "compare", "column": "l", "comparison": comparison, "other": "r"});
        assert_eq!(failing_rows(rule("=="), &columns), [1]);
        assert_eq!(failing_rows(rule("!="), &columns), [0]);
        assert!(refused(rule("<"), &columns).contains("no order"));
    }

    #[test]
    fn kinds_of_two_families_are_refused() {
        let (number, text) = (Owned::int64(&[]), Owned::strings(&[]));
        let rule = json!({"rule": "compare", "column": "n", "comparison": "<", "other": "s"});
        assert_eq!(
            refused(rule, &[("n", &number), ("s", &text)]),
            "`n` is int64 and `s` is utf8, which do not compare"
        );
    }
}
