//! `length`: strings of so many characters.

use sandcast_sdk::Failure;
use serde::Deserialize;

use super::{Made, RowTest, Schema};
use crate::column::{Column, RowBits, Values, failing_strings};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    column: String,
    min: Option<u32>,
    max: Option<u32>,
}

pub(super) fn make(keys: Keys, schema: &Schema<'_>) -> Result<Made, String> {
    let index = schema.find_strings(&keys.column)?;
    let wanted = match (keys.min, keys.max) {
        (None, None) => return Err("give `min`, `max` or both".into()),
        (Some(min), Some(max)) if min > max => return Err("`min` is over `max`".into()),
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
    };
    let test = Length {
        min: keys.min.unwrap_or(0) as usize,
        max: keys.max.map_or(usize::MAX, |max| max as usize),
    };
    Ok(Made::rows(
        vec![index],
        format!("every value of `{}` has {wanted} characters", keys.column),
        test,
    ))
}

/// Unicode scalar values in UTF-8: the bytes that do not continue one.
fn characters(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| (**byte & 0xc0) != 0x80).count()
}

#[derive(Debug)]
struct Length {
    min: usize,
    max: usize,
}

impl RowTest for Length {
    fn failing(&mut self, columns: &[Column<'_>]) -> Result<RowBits, Failure> {
        Ok(match columns[0].values {
            Values::Utf8(strings) => failing_strings(&columns[0], strings, |bytes| {
                !(self.min..=self.max).contains(&characters(bytes))
            }),
            _ => RowBits::default(),
        })
    }

    fn explain(&self, columns: &[Column<'_>], row: usize) -> String {
        let count = match columns[0].values {
            Values::Utf8(strings) => characters(strings.get(row)),
            _ => 0,
        };
        let wrong = if count < self.min {
            format!("fewer than {}", self.min)
        } else {
            format!("more than {}", self.max)
        };
        format!(
            "{} {} has {count} characters, {wrong}",
            columns[0].name,
            columns[0].show(row)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::column::testing::Owned;
    use serde_json::json;

    #[test]
    fn characters_are_counted_not_bytes() {
        let column = Owned::strings(&[Some("éé"), Some("é"), Some("abcd"), None, Some("")]);
        let rule = json!({"rule": "length", "column": "s", "min": 2, "max": 3});
        let (checked, failing) = check(rule, &[("s", &column)]);
        assert_eq!(checked, 4);
        assert_eq!(
            failing,
            [
                (1, "s \"é\" has 1 characters, fewer than 2".to_owned()),
                (2, "s \"abcd\" has 4 characters, more than 3".to_owned()),
                (4, "s \"\" has 0 characters, fewer than 2".to_owned()),
            ]
        );
    }

    #[test]
    fn bounds_must_make_sense() {
        let column = Owned::strings(&[]);
        assert!(
            refused(json!({"rule": "length", "column": "s"}), &[("s", &column)]).contains("`min`")
        );
        assert!(
            refused(
                json!({"rule": "length", "column": "s", "min": 2, "max": 1}),
                &[("s", &column)]
            )
            .contains("over")
        );
        assert!(
            refused(
                json!({"rule": "length", "column": "s", "min": -2}),
                &[("s", &column)]
            )
            .contains("-2")
        );
    }
}
