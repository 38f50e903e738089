//! Says which rows can be trusted.

use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::call::CallError;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Counted and reported; the rows stay.
    Warning,
    /// The rows go to quarantine.
    Error,
}

/// A rule as the plugin has understood it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Names the rule among those of its configuration.
    pub id: String,
    /// The sort of rule, such as `not-null`.
    pub kind: String,
    /// The columns it looks at.
    pub columns: Vec<String>,
    /// How much it matters.
    pub severity: Severity,
    /// The share of rows that must pass, 0 to 1.
    pub mostly: f64,
    /// The rule as a sentence.
    pub description: String,
}

/// Rows of one batch that fail one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule; one of those it was configured with.
    pub rule: String,
    /// The column at fault.
    pub column: Option<String>,
    /// How much it matters.
    pub severity: Severity,
    /// Row numbers within the batch, from 0, rising.
    pub rows: Vec<u32>,
    /// What is wrong.
    pub message: String,
}

/// What a rule came to over all the batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The rule.
    pub rule: String,
    /// Whether enough rows passed.
    pub passed: bool,
    /// Rows it looked at.
    pub rows_checked: u64,
    /// Rows that failed it.
    pub rows_failed: u64,
    /// What was seen against what was wanted.
    pub message: String,
}

/// An instance that checks the batches of one dataset, in order.
pub struct Validator {
    _private: (),
}

impl Validator {
    /// The rules as the plugin has understood them; their ids differ.
    pub fn rules(&self) -> &[Rule] {
        unimplemented!()
    }

    /// Looks at a batch.
    ///
    /// # Errors
    /// See [`CallError`]; also when a finding names an unknown rule or rows that are not there.
    pub async fn check(&mut self, batch: &RecordBatch) -> Result<Vec<Finding>, CallError> {
        let _ = batch;
        unimplemented!()
    }

    /// Judges, once every batch has been seen: one verdict for each rule. Ends the instance.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn finish(self) -> Result<Vec<Verdict>, CallError> {
        unimplemented!()
    }
}
