//! `regex`: strings in which a pattern is found.

use ::regex::bytes::{Regex, RegexBuilder};
use sandcast_sdk::Failure;
use serde::Deserialize;

use super::{Made, RowTest, Schema};
use crate::column::{Column, RowBits, Values, failing_strings, quoted};

/// The longest pattern, in bytes.
const MAXIMUM_PATTERN_BYTES: usize = 4_096;

/// What a compiled pattern and its cache may take, in bytes.
const MAXIMUM_COMPILED_BYTES: usize = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    column: String,
    pattern: String,
    /// Rows in which the pattern is found fail, instead of the others.
    #[serde(default)]
    forbidden: bool,
}

pub(super) fn make(keys: Keys, schema: &Schema<'_>) -> Result<Made, String> {
    let index = schema.find_strings(&keys.column)?;
    if keys.pattern.len() > MAXIMUM_PATTERN_BYTES {
        return Err(format!(
            "`pattern` is {} bytes long, at most {MAXIMUM_PATTERN_BYTES} are allowed",
            keys.pattern.len()
        ));
    }
    let regex = RegexBuilder::new(&keys.pattern)
        .size_limit(MAXIMUM_COMPILED_BYTES)
        .dfa_size_limit(MAXIMUM_COMPILED_BYTES)
        .build()
        .map_err(|error| format!("`pattern`: {}", last_line(&error.to_string())))?;
    let verb = if keys.forbidden {
        "does not match"
    } else {
        "matches"
    };
    let description = format!("every value of `{}` {verb} {}", keys.column, keys.pattern);
    Ok(Made::rows(
        vec![index],
        description,
        Matches {
            regex,
            forbidden: keys.forbidden,
        },
    ))
}

/// The crate draws the pattern with a marker and puts the sentence last.
fn last_line(error: &str) -> &str {
    error
        .trim()
        .lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
}

#[derive(Debug)]
struct Matches {
    regex: Regex,
    forbidden: bool,
}

impl RowTest for Matches {
    fn failing(&mut self, columns: &[Column<'_>]) -> Result<RowBits, Failure> {
        Ok(match columns[0].values {
            Values::Utf8(strings) => failing_strings(&columns[0], strings, |bytes| {
                self.regex.is_match(bytes) == self.forbidden
            }),
            _ => RowBits::default(),
        })
    }

    fn explain(&self, columns: &[Column<'_>], row: usize) -> String {
        let verb = if self.forbidden {
            "matches"
        } else {
            "does not match"
        };
        let pattern = quoted(self.regex.as_str());
        let pattern = pattern.trim_matches('"');
        format!(
            "{} {} {verb} {pattern}",
            columns[0].name,
            columns[0].show(row)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::MAXIMUM_PATTERN_BYTES;
    use crate::column::testing::Owned;
    use serde_json::json;

    #[test]
    fn strings_without_the_pattern_fail() {
        let column = Owned::strings(&[Some("ab-12"), Some("ab12"), None, Some("xab-12")]);
        let rule = json!({"rule": "regex", "column": "code", "pattern": "^[a-z]{2}-[0-9]+$"});
        let (checked, failing) = check(rule, &[("code", &column)]);
        assert_eq!(checked, 3);
        assert_eq!(
            failing[0],
            (
                1,
                "code \"ab12\" does not match ^[a-z]{2}-[0-9]+$".to_owned()
            )
        );
        assert_eq!(failing[1].0, 3);
    }

    #[test]
    fn a_forbidden_pattern_turns_it_round() {
        let column = Owned::strings(&[Some("Fine"), Some("<b>")]);
        let rule = json!({"rule": "regex", "column": "text", "pattern": "[<>]", "forbidden": true});
        assert_eq!(failing_rows(rule, &[("text", &column)]), [1]);
    }

    #[test]
    fn classes_know_unicode() {
        let column = Owned::strings(&[Some("Zoë"), Some("ZOË"), Some("Z0!")]);
        assert_eq!(
            failing_rows(
                json!({"rule": "regex", "column": "n", "pattern": r"(?i)^zo\w$"}),
                &[("n", &column)]
            ),
            [2]
        );
        assert_eq!(
            failing_rows(
                json!({"rule": "regex", "column": "n", "pattern": "(?i)^zoë$"}),
                &[("n", &column)]
            ),
            [2]
        );
    }

    #[test]
    fn patterns_are_bounded() {
        let column = Owned::strings(&[]);
        let columns = [("c", &column)];
        let broken = refused(
            json!({"rule": "regex", "column": "c", "pattern": "a("}),
            &columns,
        );
        assert_eq!(broken, "`pattern`: unclosed group");
        let long = refused(
            json!({"rule": "regex", "column": "c", "pattern": "a".repeat(MAXIMUM_PATTERN_BYTES + 1)}),
            &columns,
        );
        assert!(long.contains("at most"), "{long}");
        let large = refused(
            json!({"rule": "regex", "column": "c", "pattern": r"(\w{200}){200}"}),
            &columns,
        );
        assert!(large.contains("size limit"), "{large}");
        let numbers = Owned::int64(&[]);
        assert!(
            refused(
                json!({"rule": "regex", "column": "n", "pattern": "a"}),
                &[("n", &numbers)]
            )
            .contains("about strings")
        );
    }
}
