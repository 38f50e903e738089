//! `not-null`: every row holds a value.

use sandcast_sdk::Failure;
use serde::Deserialize;

use super::{Made, RowTest, Schema};
use crate::column::{Column, RowBits};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    column: String,
}

pub(super) fn make(keys: Keys, schema: &Schema<'_>) -> Result<Made, String> {
    let (index, _) = schema.find(&keys.column)?;
    Ok(Made::rows(
        vec![index],
        format!("every row holds a value in `{}`", keys.column),
        NotNull,
    ))
}

#[derive(Debug)]
struct NotNull;

impl RowTest for NotNull {
    fn failing(&mut self, columns: &[Column<'_>]) -> Result<RowBits, Failure> {
        let column = &columns[0];
        let everything = Column {
            validity: None,
            ..*column
        };
        Ok(RowBits::from_words(column.rows, |block| {
            everything.valid_word(block) & !column.valid_word(block)
        }))
    }

    fn checked(&self, columns: &[Column<'_>]) -> u64 {
        columns[0].rows as u64
    }

    fn explain(&self, columns: &[Column<'_>], _row: usize) -> String {
        format!("{} is missing", columns[0].name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::column::testing::Owned;
    use serde_json::json;

    #[test]
    fn nulls_fail_and_every_row_is_checked() {
        let column = Owned::strings(&[Some("a"), None, Some(""), None]);
        let (checked, failing) = check(
            json!({"rule": "not-null", "column": "name"}),
            &[("name", &column)],
        );
        assert_eq!(checked, 4);
        assert_eq!(
            failing,
            [
                (1, "name is missing".to_owned()),
                (3, "name is missing".to_owned())
            ]
        );
    }

    #[test]
    fn a_full_column_passes() {
        let column = Owned::int64(&vec![Some(1); 130]);
        assert!(
            failing_rows(
                json!({"rule": "not-null", "column": "n"}),
                &[("n", &column)]
            )
            .is_empty()
        );
    }
}
