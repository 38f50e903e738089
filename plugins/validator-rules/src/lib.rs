//! Says which rows can be trusted, by rules about columns that the operator lists.
//!
//! The README lists the rules and their keys.

use sandcast_sdk::{Batch, Failure, Field, Finding, Rule as RuleFacts, Validator, Verdict};

use crate::column::Column;
use crate::rule::{Rule, make_rules};

mod column;
mod rule;
mod rules;
mod times;

pub use crate::rule::Config;

/// The rules of one configuration, over the batches of one dataset.
#[derive(Debug)]
pub struct RulesValidator {
    schema: Vec<Field>,
    rules: Vec<Rule>,
}

impl Validator for RulesValidator {
    type Config = Config;

    fn configure(config: Config, schema: &[Field]) -> Result<Self, Failure> {
        Ok(Self {
            rules: make_rules(config, schema)?,
            schema: schema.to_vec(),
        })
    }

    fn rules(&self) -> Vec<RuleFacts> {
        self.rules
            .iter()
            .map(|rule| RuleFacts {
                id: rule.id.clone(),
                kind: rule.kind.clone(),
                columns: rule
                    .columns
                    .iter()
                    .filter_map(|&index| self.schema.get(index))
                    .map(|field| field.name.clone())
                    .collect(),
                severity: rule.severity,
                mostly: rule.mostly,
                description: rule.description.clone(),
            })
            .collect()
    }

    fn check(&mut self, batch: &Batch) -> Result<Vec<Finding>, Failure> {
        // Every column that a rule is about, read once.
        let mut read: Vec<Option<sandcast_sdk::Column>> = Vec::new();
        read.resize_with(self.schema.len(), || None);
        for &index in self.rules.iter().flat_map(|rule| &rule.columns) {
            if read[index].is_none() {
                read[index] = Some(batch.column(index as u32)?);
            }
        }
        let mut views: Vec<Option<Column<'_>>> = Vec::with_capacity(read.len());
        for (field, column) in self.schema.iter().zip(&read) {
            views.push(match column {
                None => None,
                Some(column) => Some(view(field, column)?),
            });
        }
        let rows = batch.rows();
        let mut findings = Vec::new();
        for rule in &mut self.rules {
            let columns: Vec<Column<'_>> = rule
                .columns
                .iter()
                .filter_map(|&index| views[index])
                .collect();
            findings.extend(rule.check(rows, &columns)?);
        }
        Ok(findings)
    }

    fn finish(&mut self) -> Result<Vec<Verdict>, Failure> {
        self.rules.iter().map(Rule::verdict).collect()
    }
}

fn view<'a>(field: &'a Field, column: &'a sandcast_sdk::Column) -> Result<Column<'a>, Failure> {
    match Column::view(&field.name, column) {
        Some(view) if view.kind() == field.kind => Ok(view),
        _ => Err(Failure::invalid_input(format!(
            "column `{}` is not the column of {} that was announced",
            field.name,
            field.kind.name()
        ))),
    }
}

sandcast_sdk::export_validator!(RulesValidator);

#[cfg(test)]
mod tests {
    use super::*;
    use sandcast_sdk::{Kind, Severity};
    use serde_json::json;

    #[test]
    fn rules_are_told_as_they_were_understood() {
        let schema = [Field {
            name: "age".into(),
            kind: Kind::Int64,
            nullable: true,
        }];
        let config = json!({"rules": [{"rule": "range", "column": "age", "min": 18, "max": 100, "mostly": 0.98}]});
        let config = sandcast_sdk::config::parse(&config.to_string()).expect("known keys");
        let rules = RulesValidator::configure(config, &schema)
            .expect("a good rule")
            .rules();
        assert_eq!(rules[0].columns, ["age"]);
        assert_eq!(rules[0].severity, Severity::Error);
        assert_eq!(rules[0].mostly, 0.98);
        assert_eq!(
            rules[0].description,
            "every value of `age` is at least 18 and at most 100"
        );
    }

    #[test]
    fn a_column_of_another_kind_is_a_failure() {
        let field = Field {
            name: "age".into(),
            kind: Kind::Int64,
            nullable: true,
        };
        let wrong = sandcast_sdk::Column::from(vec![1.0]);
        assert!(
            view(&field, &wrong)
                .expect_err("floats")
                .message
                .contains("`age`")
        );
        let right = sandcast_sdk::Column::from(vec![1_i64]);
        assert_eq!(view(&field, &right).expect("integers").rows, 1);
    }
}
