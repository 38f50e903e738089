//! The kinds of rules, one file each.
//!
//! A rule is either about rows ([`RowTest`]), which can be at fault one by one, or about the whole
//! dataset ([`DatasetTest`]), where no row is.

use std::fmt::Debug;

use sandcast_sdk::{Failure, Field, Kind};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::column::{Column, RowBits, all_valid_word};

mod compare;
mod freshness;
mod length;
mod not_null;
mod range;
mod regex;
mod row_count;
mod set;
mod type_of;
mod unique;

/// The names that `rule` may have.
pub(crate) const KINDS: [&str; 10] = [
    "not-null",
    "type",
    "range",
    "set",
    "regex",
    "length",
    "unique",
    "compare",
    "row-count",
    "freshness",
];

/// Looks for rows that fail.
pub(crate) trait RowTest: Debug {
    /// The rows that fail. A row with a null in a column of the rule passes, unless the rule is
    /// about nulls.
    fn failing(&mut self, columns: &[Column<'_>]) -> Result<RowBits, Failure>;

    /// How many rows this rule judges.
    fn checked(&self, columns: &[Column<'_>]) -> u64 {
        let rows = columns.first().map_or(0, |column| column.rows);
        RowBits::from_words(rows, |block| all_valid_word(columns, block)).count()
    }

    /// What is wrong with a row that fails, such as `age 171 is over 100`.
    fn explain(&self, columns: &[Column<'_>], row: usize) -> String;
}

/// Judges the dataset as a whole.
pub(crate) trait DatasetTest: Debug {
    /// Takes note of a batch; `rows` is its size even where the rule has no column.
    fn observe(&mut self, rows: u32, columns: &[Column<'_>]);

    /// Whether the dataset passes, and what was seen against what was wanted.
    fn judge(&self) -> Result<(bool, String), Failure>;
}

/// What a rule does.
#[derive(Debug)]
pub(crate) enum Test {
    Rows(Box<dyn RowTest>),
    Dataset(Box<dyn DatasetTest>),
}

/// A rule of one kind, made from its part of the configuration.
#[derive(Debug)]
pub(crate) struct Made {
    /// Places in the schema.
    pub(crate) columns: Vec<usize>,
    /// The rule as a sentence.
    pub(crate) description: String,
    pub(crate) test: Test,
}

impl Made {
    fn rows(columns: Vec<usize>, description: String, test: impl RowTest + 'static) -> Self {
        Self {
            columns,
            description,
            test: Test::Rows(Box::new(test)),
        }
    }

    fn dataset(columns: Vec<usize>, description: String, test: impl DatasetTest + 'static) -> Self {
        Self {
            columns,
            description,
            test: Test::Dataset(Box::new(test)),
        }
    }
}

/// Makes a rule of a kind from the keys that are left of it.
///
/// # Errors
/// A sentence without the rule's name: an unknown kind or key, a column that is not there or of
/// another kind, values that make no sense.
pub(crate) fn make(
    kind: &str,
    keys: Map<String, Value>,
    schema: &Schema<'_>,
) -> Result<Made, String> {
    match kind {
        "not-null" => not_null::make(parse(keys)?, schema),
        "type" => type_of::make(parse(keys)?, schema),
        "range" => range::make(parse(keys)?, schema),
        "set" => set::make(parse(keys)?, schema),
        "regex" => regex::make(parse(keys)?, schema),
        "length" => length::make(parse(keys)?, schema),
        "unique" => unique::make(parse(keys)?, schema),
        "compare" => compare::make(parse(keys)?, schema),
        "row-count" => row_count::make(parse(keys)?),
        "freshness" => freshness::make(parse(keys)?, schema),
        other => Err(unknown("rule", other, KINDS.iter().copied())),
    }
}

fn parse<T: DeserializeOwned>(keys: Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(keys)).map_err(|error| error.to_string())
}

/// The columns that rules may name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema<'a>(pub(crate) &'a [Field]);

impl Schema<'_> {
    /// The place and the kind of a column.
    fn find(&self, name: &str) -> Result<(usize, Kind), String> {
        match self.0.iter().position(|field| field.name == name) {
            Some(index) => Ok((index, self.0[index].kind)),
            None => Err(unknown(
                "column",
                name,
                self.0.iter().map(|field| field.name.as_str()),
            )),
        }
    }

    /// The place of a column of strings.
    fn find_strings(&self, name: &str) -> Result<usize, String> {
        match self.find(name)? {
            (index, Kind::Utf8) => Ok(index),
            (_, kind) => Err(format!(
                "column `{name}` is {}, this rule is about strings",
                kind.name()
            )),
        }
    }
}

fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = known
        .clone()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .min()
        .filter(|(distance, _)| *distance <= 1 + name.len() / 3);
    match nearest {
        Some((_, nearest)) => format!("there is no {what} `{name}`; `{nearest}` is the nearest"),
        None => {
            let known: Vec<&str> = known.take(12).collect();
            format!(
                "there is no {what} `{name}`; there are {}",
                known.join(", ")
            )
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! One rule over columns made by hand.

    use super::*;
    use crate::column::testing::Owned;

    pub(crate) fn field(name: &str, kind: Kind) -> Field {
        Field {
            name: name.into(),
            kind,
            nullable: true,
        }
    }

    pub(crate) fn made(rule: Value, columns: &[(&str, &Owned)]) -> Result<Made, String> {
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, owned)| field(name, owned.column(name).kind()))
            .collect();
        let Value::Object(mut keys) = rule else {
            panic!("a rule is an object")
        };
        let kind = keys
            .remove("rule")
            .and_then(|kind| Some(kind.as_str()?.to_owned()))
            .expect("a kind");
        make(&kind, keys, &Schema(&fields))
    }

    pub(crate) fn refused(rule: Value, columns: &[(&str, &Owned)]) -> String {
        made(rule, columns).expect_err("this rule makes no sense")
    }

    fn picked<'a>(made: &Made, columns: &[(&'a str, &'a Owned)]) -> Vec<Column<'a>> {
        made.columns
            .iter()
            .map(|&index| columns[index].1.column(columns[index].0))
            .collect()
    }

    /// What fails of one batch: rows with explanations, and how many were checked.
    pub(crate) fn check(rule: Value, columns: &[(&str, &Owned)]) -> (u64, Vec<(usize, String)>) {
        let mut made = made(rule, columns).expect("a good rule");
        let picked = picked(&made, columns);
        let Test::Rows(test) = &mut made.test else {
            panic!("a rule about rows")
        };
        let bits = test.failing(&picked).expect("within bounds");
        (
            test.checked(&picked),
            bits.rows()
                .map(|row| (row, test.explain(&picked, row)))
                .collect(),
        )
    }

    /// Only the rows that fail.
    pub(crate) fn failing_rows(rule: Value, columns: &[(&str, &Owned)]) -> Vec<usize> {
        check(rule, columns)
            .1
            .into_iter()
            .map(|(row, _)| row)
            .collect()
    }

    /// The judgement of a rule about the dataset over some batches.
    pub(crate) fn judge(
        rule: Value,
        batches: &[(&str, &Owned)],
    ) -> Result<(bool, String), Failure> {
        let mut made = made(rule, &batches[..1]).expect("a good rule");
        let Test::Dataset(test) = &mut made.test else {
            panic!("a rule about the dataset")
        };
        for (name, owned) in batches {
            let column = owned.column(name);
            test.observe(column.rows as u32, &[column]);
        }
        test.judge()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use crate::column::testing::Owned;
    use serde_json::json;

    #[test]
    fn unknown_names_come_with_the_nearest() {
        let ages = Owned::int64(&[Some(1)]);
        let columns = [("age", &ages)];
        assert!(
            refused(json!({"rule": "rang", "column": "age"}), &columns)
                .contains("`range` is the nearest")
        );
        assert!(
            refused(json!({"rule": "not-null", "column": "agee"}), &columns)
                .contains("`age` is the nearest")
        );
        assert!(
            refused(json!({"rule": "not-null", "column": "xyz"}), &columns)
                .contains("there are age")
        );
        let unknown_key = refused(
            json!({"rule": "range", "column": "age", "minimum": 3}),
            &columns,
        );
        assert!(
            unknown_key.contains("unknown field `minimum`, expected one of"),
            "{unknown_key}"
        );
    }
}
