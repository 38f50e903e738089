//! Rows in = rows passed + rows quarantined.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int64Array, ListBuilder, RecordBatch, StringBuilder, UInt32Array,
};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::TryStreamExt;
use futures::future::try_join_all;
use sandcast_audit::PluginRef;
use sandcast_sandbox::{
    CallContext, CallError, Finding, Plugin, Rule, Severity, Validator, Verdict,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::rows::{ReadError, RowWriter, WriteError};
use crate::{Dataset, Estate, Progress, ProgressSink, Quarantine};

/// A validator and its configuration.
#[derive(Clone)]
pub struct Check {
    /// Names the check among those of its pipeline.
    pub name: String,
    /// The validator.
    pub plugin: Plugin,
    /// Its configuration, an object.
    pub config: serde_json::Value,
}

/// What the checks of a dataset came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// The rows that passed; those that did not are in its quarantine.
    pub passed: Dataset,
    /// Every rule of every check, in order.
    pub rules: Vec<RuleOutcome>,
    /// Rows shown to the checks.
    pub rows_in: u64,
    /// Rows that passed.
    pub rows_passed: u64,
    /// Rows put aside.
    pub rows_quarantined: u64,
}

/// What a rule came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleOutcome {
    /// The check.
    pub check: String,
    /// The validator.
    pub plugin: PluginRef,
    /// The rule as the validator has understood it.
    pub rule: Rule,
    /// The validator's verdict.
    pub verdict: Verdict,
    /// The name under which quarantined rows give this rule as their reason: its id, or
    /// `<check>.<id>` where several checks have a rule of this id.
    pub reason: String,
    /// Rows that were put aside because of it.
    pub rows_quarantined: u64,
}

/// Why the checks of a dataset came to nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ValidateError {
    /// A validator failed.
    #[error("check `{check}` of dataset `{dataset}` cannot be carried out")]
    Call {
        /// The check.
        check: String,
        /// The dataset.
        dataset: String,
        /// What the call came to.
        source: CallError,
    },
    /// A validator's answer does not fit its rules or its rows.
    #[error("check `{check}` of dataset `{dataset}` cannot be trusted: plugin `{plugin}` {what}")]
    Answer {
        /// The check.
        check: String,
        /// The dataset.
        dataset: String,
        /// The plugin as the pipeline names it.
        plugin: String,
        /// What is wrong.
        what: String,
    },
    /// A column has a name that the quarantine needs.
    #[error(
        "dataset `{dataset}` has a column `{column}`, which names beginning with `quarantine.` are kept from; rename it in the sql"
    )]
    ColumnName {
        /// The dataset.
        dataset: String,
        /// The column.
        column: String,
    },
    /// Rows are neither passed nor in quarantine.
    #[error(
        "validating dataset `{dataset}` lost rows: {rows_in} came in, {rows_passed} passed, {rows_quarantined} were put aside"
    )]
    RowsLost {
        /// The dataset.
        dataset: String,
        /// Rows of the dataset.
        rows_in: u64,
        /// Rows kept.
        rows_passed: u64,
        /// Rows put aside.
        rows_quarantined: u64,
    },
    /// The rows cannot be read.
    #[error("dataset `{dataset}` cannot be read")]
    Read {
        /// The dataset.
        dataset: String,
        /// Why not.
        source: ReadError,
    },
    /// The rows cannot be kept.
    #[error("the validated rows of dataset `{dataset}` cannot be kept")]
    Write {
        /// The dataset.
        dataset: String,
        /// Why not.
        source: WriteError,
    },
}

const ROW: &str = "quarantine.row";
const RULES: &str = "quarantine.rules";
const MESSAGES: &str = "quarantine.messages";

impl Estate {
    /// Shows every row to every check, in order, one instance for each check. A row that a
    /// finding of severity `error` names goes to quarantine with its reasons, whatever the
    /// verdict on the rule; every other row passes.
    ///
    /// # Errors
    /// When a validator fails, rows would be lost, or rows cannot be read or kept.
    #[tracing::instrument(name = "estate.validate", skip_all, fields(dataset = %dataset.name))]
    pub async fn validate(
        &self,
        dataset: &Dataset,
        checks: &[Check],
        context: &CallContext,
        progress: Option<ProgressSink>,
    ) -> Result<Validation, ValidateError> {
        let name = || dataset.name.clone();
        let write_failed = |source| ValidateError::Write {
            dataset: name(),
            source,
        };
        let arrow_failed = |error: ArrowError| write_failed(error.into());
        let quarantine_schema = quarantine_schema(dataset)?;
        let mut running = Running::start(dataset, checks, context).await?;
        let mut passed = RowWriter::new(self.store(), &dataset.schema);
        let mut put_aside = RowWriter::new(self.store(), &quarantine_schema);
        let mut rows_in: u64 = 0;

        let mut batches = self.stream(dataset);
        while let Some(batch) = batches
            .try_next()
            .await
            .map_err(|source| ValidateError::Read {
                dataset: name(),
                source,
            })?
        {
            let failures = running.check(&batch).await?;
            if failures.is_empty() {
                passed.write(batch.clone()).await.map_err(write_failed)?;
            } else {
                let mask: BooleanArray = (0..batch.num_rows())
                    .map(|row| Some(!failures.contains_key(&(row as u32))))
                    .collect();
                let kept = filter_record_batch(&batch, &mask).map_err(arrow_failed)?;
                passed.write(kept).await.map_err(write_failed)?;
                let aside = running
                    .quarantined(&batch, &failures, rows_in, &quarantine_schema)
                    .map_err(arrow_failed)?;
                put_aside.write(aside).await.map_err(write_failed)?;
            }
            rows_in += batch.num_rows() as u64;
            if let Some(progress) = &progress {
                progress(Progress {
                    rows: rows_in,
                    total: Some(dataset.rows),
                });
            }
        }

        let rules = running.finish().await?;
        let blobs = passed.finish().await.map_err(write_failed)?;
        let reasons = rules
            .iter()
            .map(|outcome| (outcome.reason.clone(), outcome.rows_quarantined));
        let reasons: BTreeMap<String, u64> = reasons.filter(|(_, rows)| *rows > 0).collect();
        let quarantine = Quarantine::new(put_aside.finish().await.map_err(write_failed)?, reasons);
        let rows_quarantined = quarantine.rows;
        let sql = dataset.sql.clone();
        let passed = Dataset::new(
            name(),
            Arc::clone(&dataset.schema),
            blobs,
            dataset.sources.clone(),
            sql,
            quarantine,
        );
        let rows_passed = passed.rows;
        if rows_in != dataset.rows || rows_in != rows_passed + rows_quarantined {
            return Err(ValidateError::RowsLost {
                dataset: name(),
                rows_in: dataset.rows,
                rows_passed,
                rows_quarantined,
            });
        }
        Ok(Validation {
            passed,
            rules,
            rows_in,
            rows_passed,
            rows_quarantined,
        })
    }
}

fn quarantine_schema(dataset: &Dataset) -> Result<SchemaRef, ValidateError> {
    let mut fields: Vec<Arc<Field>> = dataset.schema.fields().iter().cloned().collect();
    if let Some(field) = fields
        .iter()
        .find(|field| field.name().starts_with("quarantine."))
    {
        return Err(ValidateError::ColumnName {
            dataset: dataset.name.clone(),
            column: field.name().clone(),
        });
    }
    let texts = || DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    fields.push(Arc::new(Field::new(ROW, DataType::Int64, false)));
    fields.push(Arc::new(Field::new(RULES, texts(), false)));
    fields.push(Arc::new(Field::new(MESSAGES, texts(), false)));
    Ok(Arc::new(Schema::new(fields)))
}

/// A reason for which a row is put aside: the place of a rule, and what the validator said.
type Failure = (usize, Arc<str>);
/// The rows of a batch that failed, and why.
type Failures = BTreeMap<u32, Vec<Failure>>;

/// The checks of a dataset while they run.
struct Running<'d> {
    dataset: &'d str,
    checks: Vec<RunningCheck>,
    rules: Vec<RunningRule>,
}

struct RunningCheck {
    name: String,
    plugin: Plugin,
    validator: Validator,
    /// The place among all rules of each of its own.
    places: HashMap<String, usize>,
}

struct RunningRule {
    check: usize,
    rule: Rule,
    reason: String,
    rows_quarantined: u64,
}

impl<'d> Running<'d> {
    async fn start(
        dataset: &'d Dataset,
        checks: &[Check],
        context: &CallContext,
    ) -> Result<Self, ValidateError> {
        let mut running = Self {
            dataset: &dataset.name,
            checks: Vec::new(),
            rules: Vec::new(),
        };
        for (number, check) in checks.iter().enumerate() {
            let validator = check
                .plugin
                .validator(context, &check.config, &dataset.schema)
                .await
                .map_err(|source| running.failed(&check.name, source))?;
            let mut places = HashMap::new();
            for rule in validator.rules() {
                places.insert(rule.id.clone(), running.rules.len());
                let reason = rule.id.clone();
                running.rules.push(RunningRule {
                    check: number,
                    rule: rule.clone(),
                    reason,
                    rows_quarantined: 0,
                });
            }
            running.checks.push(RunningCheck {
                name: check.name.clone(),
                plugin: check.plugin.clone(),
                validator,
                places,
            });
        }
        let mut ids: BTreeMap<String, usize> = BTreeMap::new();
        for running_rule in &running.rules {
            *ids.entry(running_rule.rule.id.clone()).or_default() += 1;
        }
        for running_rule in &mut running.rules {
            let id = &running_rule.rule.id;
            if ids.get(id).is_some_and(|count| *count > 1) {
                running_rule.reason = format!("{}.{id}", running.checks[running_rule.check].name);
            }
        }
        Ok(running)
    }

    /// Shows a batch to every check; the rows that failed, with their reasons in order.
    async fn check(&mut self, batch: &RecordBatch) -> Result<Failures, ValidateError> {
        let dataset = self.dataset;
        let answers = try_join_all(self.checks.iter_mut().map(async |check| {
            let findings = check.validator.check(batch).await;
            findings.map_err(|source| ValidateError::Call {
                check: check.name.clone(),
                dataset: dataset.to_owned(),
                source,
            })
        }))
        .await?;
        let mut failures = Failures::new();
        for (check, findings) in self.checks.iter().zip(answers) {
            for finding in findings
                .into_iter()
                .filter(|finding| finding.severity == Severity::Error)
            {
                let place = self.place(check, &finding, batch.num_rows())?;
                let message: Arc<str> = finding.message.into();
                for row in finding.rows {
                    failures
                        .entry(row)
                        .or_default()
                        .push((place, Arc::clone(&message)));
                }
            }
        }
        for reasons in failures.values() {
            let places: BTreeSet<usize> = reasons.iter().map(|(place, _)| *place).collect();
            for place in places {
                self.rules[place].rows_quarantined += 1;
            }
        }
        Ok(failures)
    }

    /// The place of a finding's rule, once its rows are known to be there.
    fn place(
        &self,
        check: &RunningCheck,
        finding: &Finding,
        rows: usize,
    ) -> Result<usize, ValidateError> {
        if let Some(row) = finding.rows.iter().find(|row| **row as usize >= rows) {
            return Err(self.untrusted(check, format!("found row {row} in a batch of {rows}")));
        }
        let unknown = || {
            self.untrusted(
                check,
                format!(
                    "found rows by rule `{}`, which it does not have",
                    finding.rule
                ),
            )
        };
        check.places.get(&finding.rule).copied().ok_or_else(unknown)
    }

    /// The rows that failed, with their columns, their numbers in the dataset and their reasons.
    fn quarantined(
        &self,
        batch: &RecordBatch,
        failures: &Failures,
        rows_before: u64,
        schema: &SchemaRef,
    ) -> Result<RecordBatch, ArrowError> {
        let mut rules = ListBuilder::new(StringBuilder::new());
        let mut messages = ListBuilder::new(StringBuilder::new());
        for reasons in failures.values() {
            for (place, message) in reasons {
                rules.values().append_value(&self.rules[*place].reason);
                messages.values().append_value(message);
            }
            rules.append(true);
            messages.append(true);
        }
        let rows = UInt32Array::from_iter_values(failures.keys().copied());
        let numbers = failures
            .keys()
            .map(|row| rows_before.cast_signed() + i64::from(*row) + 1);
        let mut columns: Vec<ArrayRef> = take_record_batch(batch, &rows)?.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_iter_values(numbers)));
        columns.push(Arc::new(rules.finish()));
        columns.push(Arc::new(messages.finish()));
        RecordBatch::try_new(Arc::clone(schema), columns)
    }

    /// Has every check judge.
    async fn finish(self) -> Result<Vec<RuleOutcome>, ValidateError> {
        let mut verdicts: Vec<HashMap<String, Verdict>> = Vec::new();
        let mut names = Vec::new();
        for check in self.checks {
            let failed = |source| ValidateError::Call {
                check: check.name.clone(),
                dataset: self.dataset.to_owned(),
                source,
            };
            let judged = check.validator.finish().await.map_err(failed)?;
            verdicts.push(
                judged
                    .into_iter()
                    .map(|verdict| (verdict.rule.clone(), verdict))
                    .collect(),
            );
            names.push((check.name, check.plugin));
        }
        let outcome = |running: RunningRule| {
            let RunningRule {
                check,
                rule,
                reason,
                rows_quarantined,
            } = running;
            let (name, plugin) = &names[check];
            let verdict =
                verdicts[check]
                    .remove(&rule.id)
                    .ok_or_else(|| ValidateError::Answer {
                        check: name.clone(),
                        dataset: self.dataset.to_owned(),
                        plugin: plugin.name().to_owned(),
                        what: format!("did not judge its rule `{}`", rule.id),
                    })?;
            let plugin = plugin.reference().clone();
            Ok(RuleOutcome {
                check: name.clone(),
                plugin,
                rule,
                verdict,
                reason,
                rows_quarantined,
            })
        };
        self.rules.into_iter().map(outcome).collect()
    }

    fn failed(&self, check: &str, source: CallError) -> ValidateError {
        ValidateError::Call {
            check: check.to_owned(),
            dataset: self.dataset.to_owned(),
            source,
        }
    }

    fn untrusted(&self, check: &RunningCheck, what: String) -> ValidateError {
        ValidateError::Answer {
            check: check.name.clone(),
            dataset: self.dataset.to_owned(),
            plugin: check.plugin.name().to_owned(),
            what,
        }
    }
}
