//! `set`: values that are on a list, or that are not.

use std::collections::HashSet;

use sandcast_sdk::{Failure, Kind};
use serde::Deserialize;
use serde_json::Value;

use super::{Made, RowTest, Schema};
use crate::column::{Column, RowBits, Values, failing, failing_rows, failing_strings, word};
use crate::times::{parse_date, parse_date_or_timestamp};

/// How many values a list may have.
const MAXIMUM_VALUES: usize = 100_000;

/// How many of them a message names.
const VALUES_SHOWN: usize = 6;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    column: String,
    #[serde(alias = "values")]
    allowed: Option<Vec<Value>>,
    forbidden: Option<Vec<Value>>,
}

pub(super) fn make(keys: Keys, schema: &Schema<'_>) -> Result<Made, String> {
    let (index, kind) = schema.find(&keys.column)?;
    let (key, list) = match (keys.allowed, keys.forbidden) {
        (Some(list), None) => ("allowed", list),
        (None, Some(list)) => ("forbidden", list),
        _ => return Err("give either `allowed` or `forbidden`".into()),
    };
    if list.is_empty() || list.len() > MAXIMUM_VALUES {
        return Err(format!(
            "`{key}` has {} values, 1 to {MAXIMUM_VALUES} make sense",
            list.len()
        ));
    }
    let is_allowed = key == "allowed";
    let shown = listed(&list);
    let test = Set {
        members: Members::read(key, &list, kind)?,
        is_allowed,
        wrong: if is_allowed {
            format!("is not one of {shown}")
        } else {
            "is forbidden".into()
        },
    };
    let verb = if is_allowed {
        "is one of"
    } else {
        "is none of"
    };
    Ok(Made::rows(
        vec![index],
        format!("every value of `{}` {verb} {shown}", keys.column),
        test,
    ))
}

fn listed(list: &[Value]) -> String {
    let mut shown: Vec<String> = list
        .iter()
        .take(VALUES_SHOWN)
        .map(|value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        })
        .collect();
    if list.len() > VALUES_SHOWN {
        shown.push(format!("{} more", list.len() - VALUES_SHOWN));
    }
    shown.join(", ")
}

#[derive(Debug)]
enum Members {
    Strings(HashSet<Box<[u8]>>),
    /// Integers, days or microseconds.
    Integers(HashSet<i64>),
    Floats(Vec<f64>),
    Booleans {
        holds_true: bool,
        holds_false: bool,
    },
}

impl Members {
    fn read(key: &str, list: &[Value], kind: Kind) -> Result<Self, String> {
        let all = |wanted: &str| {
            format!(
                "is {}, but `{key}` holds something that is not {wanted}",
                kind.name()
            )
        };
        let read_integers = |read: &dyn Fn(&Value) -> Option<i64>, wanted: &str| {
            let members: Option<HashSet<i64>> = list.iter().map(read).collect();
            members
                .map(Self::Integers)
                .ok_or_else(|| format!("the column {}", all(wanted)))
        };
        match kind {
            Kind::Int64 => read_integers(&Value::as_i64, "an integer"),
            Kind::Date32 => read_integers(
                &|value| parse_date(value.as_str()?).map(i64::from),
                "a date",
            ),
            Kind::TimestampUs => read_integers(
                &|value| parse_date_or_timestamp(value.as_str()?),
                "a timestamp",
            ),
            Kind::Utf8 => {
                let members: Option<_> = list
                    .iter()
                    .map(|value| Some(value.as_str()?.as_bytes().into()))
                    .collect();
                members
                    .map(Self::Strings)
                    .ok_or_else(|| format!("the column {}", all("a string")))
            }
            Kind::Float64 => {
                let members: Option<_> = list.iter().map(Value::as_f64).collect();
                members
                    .map(Self::Floats)
                    .ok_or_else(|| format!("the column {}", all("a number")))
            }
            Kind::Boolean => {
                let members: Option<Vec<bool>> = list.iter().map(Value::as_bool).collect();
                let members =
                    members.ok_or_else(|| format!("the column {}", all("true or false")))?;
                Ok(Self::Booleans {
                    holds_true: members.contains(&true),
                    holds_false: members.contains(&false),
                })
            }
        }
    }
}

#[derive(Debug)]
struct Set {
    members: Members,
    is_allowed: bool,
    wrong: String,
}

impl RowTest for Set {
    fn failing(&mut self, columns: &[Column<'_>]) -> Result<RowBits, Failure> {
        let column = &columns[0];
        let wanted = self.is_allowed;
        Ok(match (&self.members, column.values) {
            (Members::Strings(set), Values::Utf8(strings)) => {
                failing_strings(column, strings, |bytes| set.contains(bytes) != wanted)
            }
            (Members::Integers(set), Values::Int64(values) | Values::TimestampUs(values)) => {
                failing_rows(
                    column.rows,
                    |block| column.valid_word(block),
                    |row| set.contains(&values[row]) != wanted,
                )
            }
            (Members::Integers(set), Values::Date32(values)) => failing_rows(
                column.rows,
                |block| column.valid_word(block),
                |row| set.contains(&i64::from(values[row])) != wanted,
            ),
            (Members::Floats(set), Values::Float64(values)) => {
                failing(column, values, |value| set.contains(&value) != wanted)
            }
            (
                Members::Booleans {
                    holds_true,
                    holds_false,
                },
                Values::Boolean(bitmap),
            ) => {
                let spread = |flag: bool| if flag { u64::MAX } else { 0 };
                RowBits::from_words(column.rows, |block| {
                    let bits = word(bitmap, block);
                    let members = (bits & spread(*holds_true)) | (!bits & spread(*holds_false));
                    (members ^ spread(wanted)) & column.valid_word(block)
                })
            }
            _ => RowBits::default(),
        })
    }

    fn explain(&self, columns: &[Column<'_>], row: usize) -> String {
        format!(
            "{} {} {}",
            columns[0].name,
            columns[0].show(row),
            self.wrong
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::column::testing::Owned;
    use serde_json::json;

    #[test]
    fn strings_off_the_list_fail() {
        let column = Owned::strings(&[Some("DE"), Some("FR"), None, Some("XX"), Some("de")]);
        let (checked, failing) = check(
            json!({"rule": "set", "column": "country", "allowed": ["DE", "FR"]}),
            &[("country", &column)],
        );
        assert_eq!(checked, 4);
        assert_eq!(
            failing[0],
            (3, "country \"XX\" is not one of DE, FR".to_owned())
        );
        assert_eq!(failing[1].0, 4);
    }

    #[test]
    fn values_are_another_name_of_allowed() {
        let column = Owned::int64(&[Some(1), Some(2)]);
        let rule = json!({"rule": "set", "column": "n", "values": [1]});
        assert_eq!(failing_rows(rule, &[("n", &column)]), [1]);
    }

    #[test]
    fn forbidden_values_fail() {
        let column = Owned::int64(&[Some(999), Some(1), None]);
        let (_, failing) = check(
            json!({"rule": "set", "column": "n", "forbidden": [999, -1]}),
            &[("n", &column)],
        );
        assert_eq!(failing, [(0, "n 999 is forbidden".to_owned())]);
    }

    #[test]
    fn every_kind_has_members() {
        let floats = Owned::float64(&[Some(0.5), Some(f64::NAN), Some(1.0)]);
        assert_eq!(
            failing_rows(
                json!({"rule": "set", "column": "x", "allowed": [0.5, 1]}),
                &[("x", &floats)]
            ),
            [1]
        );
        let days = Owned::dates(&[Some(0), Some(1)]);
        assert_eq!(
            failing_rows(
                json!({"rule": "set", "column": "d", "forbidden": ["1970-01-02"]}),
                &[("d", &days)]
            ),
            [1]
        );
        let flags = Owned::booleans(&[Some(true), Some(false), None]);
        assert_eq!(
            failing_rows(
                json!({"rule": "set", "column": "b", "allowed": [true]}),
                &[("b", &flags)]
            ),
            [1]
        );
        assert_eq!(
            failing_rows(
                json!({"rule": "set", "column": "b", "forbidden": [true]}),
                &[("b", &flags)]
            ),
            [0]
        );
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        let column = Owned::int64(&[]);
        for (rule, word) in [
            (json!({"rule": "set", "column": "n"}), "either"),
            (
                json!({"rule": "set", "column": "n", "allowed": [1], "forbidden": [2]}),
                "either",
            ),
            (
                json!({"rule": "set", "column": "n", "allowed": []}),
                "0 values",
            ),
            (
                json!({"rule": "set", "column": "n", "allowed": ["1"]}),
                "not an integer",
            ),
        ] {
            let message = refused(rule, &[("n", &column)]);
            assert!(message.contains(word), "{message}");
        }
    }
}
