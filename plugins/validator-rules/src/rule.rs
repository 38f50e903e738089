//! A rule of the configuration: what it looks for, how much it matters, how much it tolerates,
//! and what it has seen.

use sandcast_sdk::{Failure, FailureCode, Field, Finding, Severity, Verdict};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::column::Column;
use crate::rules::{self, Schema, Test};

/// How many rules a configuration may have.
const MAXIMUM_RULES: usize = 1_000;

/// The longest id, in bytes.
const MAXIMUM_ID_BYTES: usize = 100;

/// The configuration: a list of rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    rules: Vec<Map<String, Value>>,
}

/// One rule and its count so far.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) columns: Vec<usize>,
    pub(crate) severity: Severity,
    /// The share of checked rows that must pass.
    pub(crate) mostly: f64,
    pub(crate) description: String,
    test: Test,
    checked: u64,
    failed: u64,
    first: Option<String>,
}

/// Makes the rules of a configuration.
///
/// # Errors
/// `invalid-config`, naming the rule by its place, its id and its kind.
pub(crate) fn make_rules(config: Config, schema: &[Field]) -> Result<Vec<Rule>, Failure> {
    let refuse = |message: String| Failure::new(FailureCode::InvalidConfig, message);
    if config.rules.is_empty() || config.rules.len() > MAXIMUM_RULES {
        let message = format!(
            "`rules` has {} entries, 1 to {MAXIMUM_RULES} make sense",
            config.rules.len()
        );
        return Err(refuse(message));
    }
    let mut made: Vec<Rule> = Vec::with_capacity(config.rules.len());
    for (place, keys) in config.rules.into_iter().enumerate() {
        let name = name_of(place, &keys);
        let mut rule = Rule::make(keys, schema).map_err(|message| {
            refuse(format!("{name}: {message}"))
                .hint("the plugin's README lists the keys of every rule")
        })?;
        if let Some(same) = made.iter().position(|other| other.id == rule.id.text) {
            if rule.id.is_given {
                return Err(refuse(format!("{name}: rule {} has the same id", same + 1)));
            }
            rule.id.text = format!("{}#{}", rule.id.text, place + 1);
        }
        made.push(rule.finish());
    }
    Ok(made)
}

/// How a message calls a rule that may be wrong in any part.
fn name_of(place: usize, keys: &Map<String, Value>) -> String {
    let part = |key: &str| keys.get(key).and_then(Value::as_str);
    match (part("id"), part("rule")) {
        (Some(id), Some(kind)) => format!("rule {} (`{id}`, {kind})", place + 1),
        (Some(id), None) => format!("rule {} (`{id}`)", place + 1),
        (None, Some(kind)) => format!("rule {} ({kind})", place + 1),
        (None, None) => format!("rule {}", place + 1),
    }
}

struct Id {
    text: String,
    is_given: bool,
}

/// A rule whose id may still change.
struct Draft {
    id: Id,
    kind: String,
    severity: Severity,
    mostly: f64,
    made: rules::Made,
}

impl Draft {
    fn finish(self) -> Rule {
        Rule {
            id: self.id.text,
            kind: self.kind,
            columns: self.made.columns,
            severity: self.severity,
            mostly: self.mostly,
            description: self.made.description,
            test: self.made.test,
            checked: 0,
            failed: 0,
            first: None,
        }
    }
}

impl Rule {
    fn make(mut keys: Map<String, Value>, schema: &[Field]) -> Result<Draft, String> {
        let Some(kind) = take_text(&mut keys, "rule")? else {
            return Err(format!(
                "`rule` is missing; it is one of {}",
                rules::KINDS.join(", ")
            ));
        };
        let id = take_text(&mut keys, "id")?;
        if id.as_ref().is_some_and(|id| !is_id(id)) {
            return Err(format!(
                "`id` must have 1 to {MAXIMUM_ID_BYTES} bytes and no control characters"
            ));
        }
        let severity = match take_text(&mut keys, "severity")?.as_deref() {
            None | Some("error") => Severity::Error,
            Some("warning") => Severity::Warning,
            Some(other) => {
                return Err(format!(
                    "`severity` is \"{other}\", it is \"error\" or \"warning\""
                ));
            }
        };
        let tolerance = keys.remove("mostly");
        let mostly = match &tolerance {
            None => 1.0,
            Some(value) => value
                .as_f64()
                .filter(|share| (0.0..=1.0).contains(share))
                .ok_or_else(|| format!("`mostly` is {value}, it is a share of rows from 0 to 1"))?,
        };
        let made = rules::make(&kind, keys, &Schema(schema))?;
        if tolerance.is_some() && matches!(made.test, Test::Dataset(_)) {
            return Err("`mostly` has no meaning here, the rule is about the whole dataset".into());
        }
        let names: Vec<&str> = made
            .columns
            .iter()
            .filter_map(|&index| schema.get(index))
            .map(|field| field.name.as_str())
            .collect();
        let id = Id {
            is_given: id.is_some(),
            text: id.unwrap_or_else(|| match names.as_slice() {
                [] => kind.clone(),
                names => cut(&format!("{kind}:{}", names.join(","))),
            }),
        };
        Ok(Draft {
            id,
            kind,
            severity,
            mostly,
            made,
        })
    }

    /// Looks at a batch; `columns` are those of the rule. A finding holds the rows that fail.
    pub(crate) fn check(
        &mut self,
        rows: u32,
        columns: &[Column<'_>],
    ) -> Result<Option<Finding>, Failure> {
        let test = match &mut self.test {
            Test::Dataset(test) => {
                test.observe(rows, columns);
                self.checked += u64::from(rows);
                return Ok(None);
            }
            Test::Rows(test) => test,
        };
        let bits = test.failing(columns).map_err(|failure| Failure {
            message: format!("rule `{}`: {}", self.id, failure.message),
            ..failure
        })?;
        self.checked += test.checked(columns);
        let Some(first) = bits.rows().next() else {
            return Ok(None);
        };
        let failed = bits.count();
        self.failed += failed;
        let example = test.explain(columns, first);
        let message = match failed - 1 {
            0 => example.clone(),
            1 => format!("{example}, and 1 more row fails"),
            more => format!("{example}, and {more} more rows fail"),
        };
        self.first.get_or_insert(example);
        Ok(Some(Finding {
            rule: self.id.clone(),
            column: match columns {
                [column] => Some(column.name.to_owned()),
                _ => None,
            },
            severity: self.severity,
            rows: bits.rows().map(|row| row as u32).collect(),
            message,
        }))
    }

    /// Judges all that was seen. With `mostly`, the rule passes where at least that share of the
    /// checked rows does; nothing checked passes (Great Expectations' definitions).
    pub(crate) fn verdict(&self) -> Result<Verdict, Failure> {
        let (passed, message) = match &self.test {
            Test::Dataset(test) => test.judge()?,
            Test::Rows(_) => self.judge_rows(),
        };
        Ok(Verdict {
            rule: self.id.clone(),
            passed,
            rows_checked: self.checked,
            rows_failed: self.failed,
            message,
        })
    }

    fn judge_rows(&self) -> (bool, String) {
        let (checked, failed) = (self.checked, self.failed);
        if checked == 0 {
            return (true, "no row holds a value to check".into());
        }
        let passed = (checked - failed) as f64 >= self.mostly * checked as f64;
        let Some(first) = &self.first else {
            return (true, format!("{checked} rows pass"));
        };
        let seen = format!(
            "{failed} of {checked} rows fail ({})",
            percent(failed as f64 / checked as f64)
        );
        let allowed = percent(1.0 - self.mostly);
        let message = match (passed, self.mostly < 1.0) {
            (true, _) => format!("{seen}, within the {allowed} allowed; first: {first}"),
            (false, true) => format!("{seen}, over the {allowed} allowed; first: {first}"),
            (false, false) => format!("{seen}; first: {first}"),
        };
        (passed, message)
    }
}

/// A share to two significant digits.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let decimals = if percent >= 10.0 || percent == 0.0 {
        0
    } else {
        (1.0 - percent.log10().floor()) as usize
    };
    let text = format!("{percent:.*}", decimals.min(6));
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}%")
}

fn is_id(text: &str) -> bool {
    (1..=MAXIMUM_ID_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// An id from the names of columns, which can be anything.
fn cut(text: &str) -> String {
    let end = (0..=MAXIMUM_ID_BYTES.min(text.len()))
        .rfind(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    text[..end].replace(char::is_control, "?")
}

fn take_text(keys: &mut Map<String, Value>, key: &str) -> Result<Option<String>, String> {
    match keys.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("`{key}` is {other}, a text is wanted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::testing::Owned;
    use sandcast_sdk::Kind;
    use serde_json::json;

    fn fields() -> [Field; 2] {
        let field = |name: &str, kind| Field {
            name: name.into(),
            kind,
            nullable: true,
        };
        [field("age", Kind::Int64), field("name", Kind::Utf8)]
    }

    fn rules(config: Value) -> Result<Vec<Rule>, Failure> {
        let config = sandcast_sdk::config::parse(&config.to_string())?;
        make_rules(config, &fields())
    }

    fn one(rule: Value) -> Rule {
        rules(json!({"rules": [rule]}))
            .expect("a good rule")
            .remove(0)
    }

    fn refused(config: Value) -> String {
        rules(config).expect_err("a wrong configuration").message
    }

    #[test]
    fn ids_are_made_from_kind_and_columns() {
        let rules = rules(json!({"rules": [
            {"rule": "not-null", "column": "age"},
            {"rule": "not-null", "column": "age", "mostly": 0.5},
            {"rule": "unique", "columns": ["age", "name"]},
            {"rule": "row-count", "min": 1},
            {"id": "mine", "rule": "not-null", "column": "name"},
        ]}))
        .expect("good rules");
        let ids: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "not-null:age",
                "not-null:age#2",
                "unique:age,name",
                "row-count",
                "mine"
            ]
        );
    }

    #[test]
    fn ids_are_short_and_printable() {
        let long = format!("unique:{}", "é".repeat(100));
        assert_eq!(cut(&long).len(), 99);
        assert_eq!(cut("not-null:a\nb"), "not-null:a?b");
        let refused = refused(json!({"rules": [{"id": "a\nb", "rule": "row-count", "min": 1}]}));
        assert!(refused.contains("no control characters"), "{refused}");
    }

    #[test]
    fn messages_name_the_rule() {
        let wrong =
            |rule: Value| refused(json!({"rules": [{"rule": "not-null", "column": "age"}, rule]}));
        assert_eq!(
            wrong(json!({"id": "a", "rule": "range", "column": "agee", "min": 1})),
            "rule 2 (`a`, range): there is no column `agee`; `age` is the nearest"
        );
        assert!(
            wrong(json!({"rule": "range", "column": "age", "mni": 1}))
                .starts_with("rule 2 (range): unknown field `mni`")
        );
        assert!(
            wrong(json!({"id": "b"}))
                .starts_with("rule 2 (`b`): `rule` is missing; it is one of not-null")
        );
        assert!(
            wrong(json!({"rule": "not-null", "column": "age", "mostly": 2}))
                .contains("`mostly` is 2")
        );
        assert!(
            wrong(json!({"rule": "not-null", "column": "age", "severity": "fatal"}))
                .contains("\"warning\"")
        );
        assert!(
            wrong(json!({"rule": "row-count", "min": 1, "mostly": 0.9})).contains("no meaning")
        );
        assert!(wrong(json!({"rule": 3})).contains("`rule` is 3"));
        let twice = json!({"rules": [{"id": "a", "rule": "row-count", "min": 1}, {"id": "a", "rule": "row-count", "max": 1}]});
        assert_eq!(
            refused(twice),
            "rule 2 (`a`, row-count): rule 1 has the same id"
        );
        assert!(refused(json!({"rules": []})).contains("0 entries"));
        assert!(refused(json!({"rule": []})).contains("unknown field `rule`"));
    }

    #[test]
    fn failing_rows_are_found_and_counted() {
        let mut rule = one(json!({"rule": "range", "column": "age", "max": 100}));
        let ages = Owned::int64(&[Some(171), None, Some(30), Some(172), Some(173)]);
        let finding = rule
            .check(5, &[ages.column("age")])
            .expect("checked")
            .expect("a finding");
        assert_eq!(
            (finding.rule.as_str(), finding.column.as_deref()),
            ("range:age", Some("age"))
        );
        assert_eq!(finding.rows, [0, 3, 4]);
        assert_eq!(finding.message, "age 171 is over 100, and 2 more rows fail");
        let good = Owned::int64(&[Some(30); 4]);
        assert!(
            rule.check(4, &[good.column("age")])
                .expect("checked")
                .is_none()
        );
        let verdict = rule.verdict().expect("judged");
        assert_eq!(
            (verdict.passed, verdict.rows_checked, verdict.rows_failed),
            (false, 8, 3)
        );
        assert_eq!(
            verdict.message,
            "3 of 8 rows fail (38%); first: age 171 is over 100"
        );
    }

    #[test]
    fn mostly_tolerates_a_share_of_the_checked_rows() {
        let values: Vec<Option<i64>> = (0..100)
            .map(|row| Some(if row < 2 { 171 } else { 30 }))
            .collect();
        let ages = Owned::int64(&values);
        let judged = |mostly: f64| {
            let mut rule = one(
                json!({"rule": "range", "column": "age", "max": 100, "mostly": mostly, "severity": "warning"}),
            );
            let finding = rule
                .check(100, &[ages.column("age")])
                .expect("checked")
                .expect("a finding");
            assert_eq!(
                finding.rows,
                [0, 1],
                "rows within the tolerance are found too"
            );
            assert_eq!(finding.severity, Severity::Warning);
            rule.verdict().expect("judged")
        };
        let within = judged(0.98);
        assert!(within.passed);
        assert_eq!(
            within.message,
            "2 of 100 rows fail (2%), within the 2% allowed; first: age 171 is over 100"
        );
        let over = judged(0.99);
        assert!(!over.passed);
        assert!(
            over.message.contains("over the 1% allowed"),
            "{}",
            over.message
        );
    }

    #[test]
    fn nothing_to_check_passes() {
        let mut rule = one(json!({"rule": "range", "column": "age", "max": 100}));
        let nulls = Owned::int64(&[None, None]);
        rule.check(2, &[nulls.column("age")]).expect("checked");
        let verdict = rule.verdict().expect("judged");
        assert_eq!((verdict.passed, verdict.rows_checked), (true, 0));
    }

    #[test]
    fn shares_are_shown_to_two_digits() {
        for (share, text) in [
            (0.0, "0%"),
            (0.5, "50%"),
            (0.025, "2.5%"),
            (0.02, "2%"),
            (0.000_123, "0.012%"),
            (1.0, "100%"),
        ] {
            assert_eq!(percent(share), text);
        }
    }
}
