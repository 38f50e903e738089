//! `range`: numbers, dates or timestamps within bounds.
//!
//! Bounds become inclusive ones of the column's own type before the first row is seen: for
//! integers by rounding, for floats by the next float. A row then costs two comparisons.

use sandcast_sdk::{Failure, Kind};
use serde::Deserialize;
use serde_json::Value;

use super::{Made, RowTest, Schema};
use crate::column::{Column, RowBits, Values, failing};
use crate::times::{parse_date, parse_date_or_timestamp};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    column: String,
    min: Option<Value>,
    max: Option<Value>,
    #[serde(default)]
    exclusive_min: bool,
    #[serde(default)]
    exclusive_max: bool,
}

pub(super) fn make(keys: Keys, schema: &Schema<'_>) -> Result<Made, String> {
    let (index, kind) = schema.find(&keys.column)?;
    if keys.min.is_none() && keys.max.is_none() {
        return Err("give `min`, `max` or both".into());
    }
    for (flag, key, bound) in [
        (keys.exclusive_min, "min", &keys.min),
        (keys.exclusive_max, "max", &keys.max),
    ] {
        if flag && bound.is_none() {
            return Err(format!("`exclusive_{key}` needs `{key}`"));
        }
    }
    let bounds = match kind {
        Kind::Int64 => Bounds::integers(&keys, integer_bound)?,
        Kind::Date32 => Bounds::integers(&keys, date_bound)?,
        Kind::TimestampUs => Bounds::integers(&keys, timestamp_bound)?,
        Kind::Float64 => Bounds::floats(&keys)?,
        Kind::Boolean | Kind::Utf8 => {
            return Err(format!(
                "column `{}` is {}, a range is about numbers, dates and timestamps",
                keys.column,
                kind.name()
            ));
        }
    };
    if bounds.is_empty() {
        return Err("no value can lie between `min` and `max`".into());
    }
    let test = Range {
        bounds,
        below: keys.min.as_ref().map(|min| {
            format!(
                "is {} {}",
                if keys.exclusive_min {
                    "not over"
                } else {
                    "under"
                },
                shown(min)
            )
        }),
        above: keys.max.as_ref().map(|max| {
            format!(
                "is {} {}",
                if keys.exclusive_max {
                    "not under"
                } else {
                    "over"
                },
                shown(max)
            )
        }),
    };
    let wanted: Vec<String> = [
        keys.min.as_ref().map(|min| {
            format!(
                "{} {}",
                if keys.exclusive_min {
                    "over"
                } else {
                    "at least"
                },
                shown(min)
            )
        }),
        keys.max.as_ref().map(|max| {
            format!(
                "{} {}",
                if keys.exclusive_max {
                    "under"
                } else {
                    "at most"
                },
                shown(max)
            )
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    Ok(Made::rows(
        vec![index],
        format!(
            "every value of `{}` is {}",
            keys.column,
            wanted.join(" and ")
        ),
        test,
    ))
}

/// Inclusive bounds.
#[derive(Debug, Clone, Copy)]
enum Bounds {
    Integers(i64, i64),
    Floats(f64, f64),
}

/// A bound in a column's units: the whole part, and whether something was cut off.
type WholeAndRest = (i64, bool);

impl Bounds {
    fn integers(
        keys: &Keys,
        read: fn(&str, &Value) -> Result<WholeAndRest, String>,
    ) -> Result<Self, String> {
        let low = match &keys.min {
            None => i64::MIN,
            Some(min) => match read("min", min)? {
                // 17.5 asks for 18, whether or not it is exclusive.
                (whole, true) => whole.saturating_add(1),
                (whole, false) if keys.exclusive_min => whole.saturating_add(1),
                (whole, false) => whole,
            },
        };
        let high = match &keys.max {
            None => i64::MAX,
            Some(max) => match read("max", max)? {
                (whole, false) if keys.exclusive_max => whole.saturating_sub(1),
                (whole, _) => whole,
            },
        };
        Ok(Self::Integers(low, high))
    }

    fn floats(keys: &Keys) -> Result<Self, String> {
        let read = |key: &str, value: &Value| {
            value
                .as_f64()
                .ok_or_else(|| format!("`{key}` is {value}, a number is wanted"))
        };
        let low = match &keys.min {
            None => f64::NEG_INFINITY,
            Some(min) if keys.exclusive_min => read("min", min)?.next_up(),
            Some(min) => read("min", min)?,
        };
        let high = match &keys.max {
            None => f64::INFINITY,
            Some(max) if keys.exclusive_max => read("max", max)?.next_down(),
            Some(max) => read("max", max)?,
        };
        Ok(Self::Floats(low, high))
    }

    fn is_empty(self) -> bool {
        match self {
            Self::Integers(low, high) => low > high,
            Self::Floats(low, high) => low > high,
        }
    }
}

fn integer_bound(key: &str, value: &Value) -> Result<WholeAndRest, String> {
    if let Some(whole) = value.as_i64() {
        return Ok((whole, false));
    }
    let Some(number) = value.as_f64() else {
        return Err(format!("`{key}` is {value}, a number is wanted"));
    };
    let floor = number.floor();
    // The cast saturates, which is what a bound beyond 64 bits means.
    Ok((floor as i64, floor != number))
}

fn date_bound(key: &str, value: &Value) -> Result<WholeAndRest, String> {
    match value.as_str().and_then(parse_date) {
        Some(days) => Ok((i64::from(days), false)),
        None => Err(format!(
            "`{key}` is {value}, a date such as \"2024-01-31\" is wanted"
        )),
    }
}

fn timestamp_bound(key: &str, value: &Value) -> Result<WholeAndRest, String> {
    match value.as_str().and_then(parse_date_or_timestamp) {
        Some(microseconds) => Ok((microseconds, false)),
        None => Err(format!(
            "`{key}` is {value}, a time such as \"2024-01-31T08:00:00Z\" is wanted"
        )),
    }
}

fn shown(bound: &Value) -> String {
    bound
        .as_str()
        .map_or_else(|| bound.to_string(), str::to_owned)
}

#[derive(Debug)]
struct Range {
    bounds: Bounds,
    /// What is wrong with a value below the range, as `is under 18`.
    below: Option<String>,
    above: Option<String>,
}

impl RowTest for Range {
    fn failing(&mut self, columns: &[Column<'_>]) -> Result<RowBits, Failure> {
        let column = &columns[0];
        Ok(match (self.bounds, column.values) {
            (Bounds::Integers(low, high), Values::Int64(values) | Values::TimestampUs(values)) => {
                failing(column, values, |value| (value < low) | (value > high))
            }
            (Bounds::Integers(low, high), Values::Date32(values)) => {
                failing(column, values, |value| {
                    (i64::from(value) < low) | (i64::from(value) > high)
                })
            }
            // Written so that a NaN fails.
            (Bounds::Floats(low, high), Values::Float64(values)) => {
                failing(column, values, |value| !((value >= low) & (value <= high)))
            }
            _ => RowBits::default(),
        })
    }

    fn explain(&self, columns: &[Column<'_>], row: usize) -> String {
        let column = &columns[0];
        let is_below = match (self.bounds, column.values) {
            (Bounds::Integers(low, _), Values::Int64(values) | Values::TimestampUs(values)) => {
                values[row] < low
            }
            (Bounds::Integers(low, _), Values::Date32(values)) => i64::from(values[row]) < low,
            (Bounds::Floats(low, _), Values::Float64(values)) => values[row] < low,
            _ => false,
        };
        let is_nan = matches!(column.values, Values::Float64(values) if values[row].is_nan());
        let wrong = if is_nan {
            &None
        } else if is_below {
            &self.below
        } else {
            &self.above
        };
        format!(
            "{} {} {}",
            column.name,
            column.show(row),
            wrong.as_deref().unwrap_or("is not a number")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::column::testing::Owned;
    use serde_json::json;

    #[test]
    fn integers_outside_fail_with_the_bound() {
        let ages = Owned::int64(&[Some(17), Some(18), Some(100), Some(171), None]);
        let (checked, failing) = check(
            json!({"rule": "range", "column": "age", "min": 18, "max": 100}),
            &[("age", &ages)],
        );
        assert_eq!(checked, 4);
        assert_eq!(
            failing,
            [
                (0, "age 17 is under 18".to_owned()),
                (3, "age 171 is over 100".to_owned())
            ]
        );
    }

    #[test]
    fn exclusive_bounds_leave_the_bound_out() {
        let values = Owned::int64(&[Some(1), Some(2), Some(3)]);
        let rule = json!({"rule": "range", "column": "n", "min": 1, "max": 3, "exclusive_min": true, "exclusive_max": true});
        let (_, failing) = check(rule, &[("n", &values)]);
        assert_eq!(
            failing,
            [
                (0, "n 1 is not over 1".to_owned()),
                (2, "n 3 is not under 3".to_owned())
            ]
        );
        let floats = Owned::float64(&[Some(0.0), Some(0.0_f64.next_up()), Some(1.0)]);
        let rule =
            json!({"rule": "range", "column": "x", "min": 0, "max": 1, "exclusive_min": true});
        assert_eq!(failing_rows(rule, &[("x", &floats)]), [0]);
    }

    #[test]
    fn fractions_bound_integers() {
        let values = Owned::int64(&[Some(-2), Some(-1), Some(17), Some(18), Some(i64::MAX)]);
        assert_eq!(
            failing_rows(
                json!({"rule": "range", "column": "n", "min": 17.5}),
                &[("n", &values)]
            ),
            [0, 1, 2]
        );
        assert_eq!(
            failing_rows(
                json!({"rule": "range", "column": "n", "max": -1.5}),
                &[("n", &values)]
            ),
            [1, 2, 3, 4]
        );
        let wide = json!({"rule": "range", "column": "n", "min": -1e300, "max": 1e300});
        assert!(failing_rows(wide, &[("n", &values)]).is_empty());
    }

    #[test]
    fn a_nan_is_outside_every_range() {
        let values = Owned::float64(&[Some(f64::NAN), None, Some(f64::INFINITY)]);
        let (_, failing) = check(
            json!({"rule": "range", "column": "x", "min": 0}),
            &[("x", &values)],
        );
        assert_eq!(failing, [(0, "x NaN is not a number".to_owned())]);
    }

    #[test]
    fn dates_and_timestamps_have_bounds_too() {
        let days = Owned::dates(&[Some(19_722), Some(19_723), None]);
        let (_, failing) = check(
            json!({"rule": "range", "column": "day", "min": "2024-01-01"}),
            &[("day", &days)],
        );
        assert_eq!(
            failing,
            [(0, "day 2023-12-31 is under 2024-01-01".to_owned())]
        );
        let times = Owned::timestamps(&[Some(0), Some(1)]);
        let rule = json!({"rule": "range", "column": "t", "max": "1970-01-01T00:00:00Z"});
        assert_eq!(
            check(rule, &[("t", &times)]).1[0].1,
            "t 1970-01-01T00:00:00.000001Z is over 1970-01-01T00:00:00Z"
        );
    }

    #[test]
    fn what_is_no_range_is_refused() {
        let (numbers, names) = (Owned::int64(&[]), Owned::strings(&[]));
        let columns = [("n", &numbers), ("s", &names)];
        for (rule, word) in [
            (json!({"rule": "range", "column": "n"}), "`min`"),
            (
                json!({"rule": "range", "column": "n", "min": 3, "max": 2}),
                "no value",
            ),
            (
                json!({"rule": "range", "column": "n", "min": 3, "max": 4, "exclusive_min": true, "exclusive_max": true}),
                "no value",
            ),
            (
                json!({"rule": "range", "column": "n", "min": "x"}),
                "a number is wanted",
            ),
            (
                json!({"rule": "range", "column": "n", "min": 1, "exclusive_max": true}),
                "needs `max`",
            ),
            (json!({"rule": "range", "column": "s", "min": 1}), "is utf8"),
        ] {
            let message = refused(rule, &columns);
            assert!(message.contains(word), "{message}");
        }
    }
}
