//! `type`: the strings of a column can be read as another type.

use sandcast_sdk::{Failure, Kind};
use serde::Deserialize;

use super::{Made, RowTest, Schema};
use crate::column::{Column, RowBits, Values, failing_strings};
use crate::times::{parse_date, parse_timestamp};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    column: String,
    #[serde(rename = "type")]
    wanted: Wanted,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Int,
    Float,
    Date,
    Timestamp,
    Boolean,
}

impl Wanted {
    fn name(self) -> &'static str {
        match self {
            Self::Int => "an integer",
            Self::Float => "a number",
            Self::Date => "a date",
            Self::Timestamp => "a timestamp",
            Self::Boolean => "true or false",
        }
    }

    fn reads(self, bytes: &[u8]) -> bool {
        match self {
            Self::Int => is_integer(bytes),
            Self::Float => is_number(bytes),
            Self::Date => text(bytes).is_some_and(|text| parse_date(text).is_some()),
            Self::Timestamp => text(bytes).is_some_and(|text| parse_timestamp(text).is_some()),
            Self::Boolean => {
                bytes.eq_ignore_ascii_case(b"true") || bytes.eq_ignore_ascii_case(b"false")
            }
        }
    }

    /// Whether every value of a column of this kind is one of these.
    fn holds(self, kind: Kind) -> bool {
        match self {
            Self::Int => kind == Kind::Int64,
            Self::Float => matches!(kind, Kind::Int64 | Kind::Float64),
            Self::Date => kind == Kind::Date32,
            Self::Timestamp => kind == Kind::TimestampUs,
            Self::Boolean => kind == Kind::Boolean,
        }
    }
}

/// A text that can be a number or a time: never a long one.
fn text(bytes: &[u8]) -> Option<&str> {
    (bytes.len() <= 64)
        .then(|| std::str::from_utf8(bytes).ok())
        .flatten()
}

/// Digits with an optional sign that fit 64 bits.
fn is_integer(bytes: &[u8]) -> bool {
    text(bytes).is_some_and(|text| text.parse::<i64>().is_ok())
}

/// A decimal number, with or without an exponent, that is finite.
fn is_number(bytes: &[u8]) -> bool {
    text(bytes).is_some_and(|text| {
        text.bytes().any(|byte| byte.is_ascii_digit())
            && text.parse::<f64>().is_ok_and(f64::is_finite)
    })
}

pub(super) fn make(keys: Keys, schema: &Schema<'_>) -> Result<Made, String> {
    let (index, kind) = schema.find(&keys.column)?;
    if kind != Kind::Utf8 && !keys.wanted.holds(kind) {
        return Err(format!(
            "column `{}` is {}, which is never {}",
            keys.column,
            kind.name(),
            keys.wanted.name()
        ));
    }
    let description = format!("every value of `{}` is {}", keys.column, keys.wanted.name());
    Ok(Made::rows(vec![index], description, TypeOf(keys.wanted)))
}

#[derive(Debug)]
struct TypeOf(Wanted);

impl RowTest for TypeOf {
    fn failing(&mut self, columns: &[Column<'_>]) -> Result<RowBits, Failure> {
        Ok(match columns[0].values {
            Values::Utf8(strings) => {
                failing_strings(&columns[0], strings, |bytes| !self.0.reads(bytes))
            }
            _ => RowBits::default(),
        })
    }

    fn explain(&self, columns: &[Column<'_>], row: usize) -> String {
        format!(
            "{} {} is not {}",
            columns[0].name,
            columns[0].show(row),
            self.0.name()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::column::testing::Owned;
    use serde_json::json;

    fn wrong(wanted: &str, values: &[Option<&str>]) -> Vec<usize> {
        let column = Owned::strings(values);
        failing_rows(
            json!({"rule": "type", "column": "c", "type": wanted}),
            &[("c", &column)],
        )
    }

    #[test]
    fn strings_that_cannot_be_read_fail() {
        assert_eq!(
            wrong(
                "int",
                &[
                    Some("12"),
                    Some("-7"),
                    Some("1.0"),
                    Some(""),
                    None,
                    Some(" 1"),
                    Some("9".repeat(19).as_str())
                ]
            ),
            [2, 3, 5, 6]
        );
        assert_eq!(
            wrong(
                "float",
                &[
                    Some("1e3"),
                    Some("-.5"),
                    Some("inf"),
                    Some("NaN"),
                    Some("1,5"),
                    Some("7")
                ]
            ),
            [2, 3, 4]
        );
        assert_eq!(
            wrong(
                "date",
                &[Some("2024-02-29"), Some("2023-02-29"), Some("01/02/2024")]
            ),
            [1, 2]
        );
        assert_eq!(
            wrong(
                "timestamp",
                &[Some("2024-02-29T01:02:03Z"), Some("2024-02-29")]
            ),
            [1]
        );
        assert_eq!(
            wrong("boolean", &[Some("True"), Some("false"), Some("yes")]),
            [2]
        );
    }

    #[test]
    fn the_value_is_shown() {
        let column = Owned::strings(&[Some("12x")]);
        let (_, failing) = check(
            json!({"rule": "type", "column": "n", "type": "int"}),
            &[("n", &column)],
        );
        assert_eq!(failing[0].1, "n \"12x\" is not an integer");
    }

    #[test]
    fn a_column_of_the_type_passes_and_another_is_refused() {
        let numbers = Owned::int64(&[Some(1), None]);
        assert!(
            failing_rows(
                json!({"rule": "type", "column": "n", "type": "float"}),
                &[("n", &numbers)]
            )
            .is_empty()
        );
        let message = refused(
            json!({"rule": "type", "column": "n", "type": "date"}),
            &[("n", &numbers)],
        );
        assert_eq!(message, "column `n` is int64, which is never a date");
    }
}
