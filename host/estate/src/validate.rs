use sandcast_audit::PluginRef;
use sandcast_sandbox::{CallError, Plugin, Rule, Verdict};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Dataset;

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
    /// Rows that the host put aside because of it.
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
}
