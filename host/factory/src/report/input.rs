use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metrics::{Evaluation, Metric};

/// Everything the report of one run shows. Sections that a run did not reach are `None` or empty.
/// Digests are hexadecimal; they are shown shortened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReportInput {
    /// The run's id.
    pub run: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The version of the program that ran it.
    pub sandcast_version: String,
    /// The digest of the pipeline's configuration.
    pub config_digest: String,
    /// The seed of everything random.
    pub seed: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What each source brought.
    pub sources: Vec<Source>,
    /// The dataset made of them.
    pub dataset: Option<Dataset>,
    /// What validation let through.
    pub validation: Option<Validation>,
    /// The columns of the validated dataset.
    pub profile: Vec<Column>,
    /// How the model was trained.
    pub training: Option<Training>,
    /// What it was measured by.
    pub evaluation: Option<Evaluation>,
    /// The model it had to stand against.
    pub champion: Option<Champion>,
    /// The gate's checks, in the order of the configuration.
    pub gate: Vec<GateCheck>,
    /// What the policies decided.
    pub decisions: Vec<Decision>,
    /// The model that was trained.
    pub model: Option<Model>,
    /// The plugins that took part, with their grants.
    pub plugins: Vec<Plugin>,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The gate let the model through and it was registered.
    Approved {
        /// The model's name.
        model: String,
        /// Its new version.
        version: u64,
        /// The alias that points to it now.
        alias: Option<String>,
        /// The request that a second person has to approve before the pipeline's alias points to it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        approval: Option<String>,
    },
    /// The gate or a policy refused the model.
    Refused {
        /// Why, a sentence each.
        reasons: Vec<String>,
    },
    /// The run stopped before a judgement.
    Failed {
        /// The stage in which it stopped.
        stage: String,
        /// What happened.
        message: String,
    },
}

impl Default for Outcome {
    fn default() -> Self {
        Self::Refused {
            reasons: Vec::new(),
        }
    }
}

/// What one source brought: `rows_in = rows_landed + rows_rejected`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The source's name in the pipeline.
    pub name: String,
    /// The connector's name in the pipeline.
    pub plugin: String,
    /// How many splits it was read in.
    pub splits: u64,
    /// Rows that were read.
    pub rows_in: u64,
    /// Rows that became part of the dataset.
    pub rows_landed: u64,
    /// Rows that could not be read as rows.
    pub rows_rejected: u64,
    /// Rejected rows by reason.
    pub reasons: BTreeMap<String, u64>,
    /// The digest of what landed.
    pub digest: String,
}

/// A dataset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// The digest of its content.
    pub digest: String,
    /// How many rows it has.
    pub rows: u64,
    /// How many columns it has.
    pub columns: u64,
    /// Its size in bytes, as stored.
    pub bytes: u64,
    /// The query that made it.
    pub sql: Option<String>,
}

/// What validation let through: `rows_in = rows_passed + rows_quarantined`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Rows that were checked.
    pub rows_in: u64,
    /// Rows that passed.
    pub rows_passed: u64,
    /// Rows that were set aside.
    pub rows_quarantined: u64,
    /// Quarantined rows by reason. A row may have several.
    pub reasons: BTreeMap<String, u64>,
    /// What each rule said.
    pub rules: Vec<Rule>,
    /// The digest of the rows that passed.
    pub digest: String,
}

/// What a rule said about a dataset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// The rule's id.
    pub id: String,
    /// What it demands, in words.
    pub description: String,
    /// The columns it looks at.
    pub columns: Vec<String>,
    /// Whether rows that fail are quarantined (`error`) or only counted (`warning`).
    pub severity: String,
    /// The smallest share of rows that must pass.
    pub mostly: Option<f64>,
    /// Rows it looked at.
    pub rows_checked: u64,
    /// Rows that failed.
    pub rows_failed: u64,
    /// Whether the dataset as a whole passed.
    pub passed: bool,
    /// What it saw, in words.
    pub observed: String,
}

/// What a column holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// What it is used for: feature, target, slice, weight, not used.
    pub uses: Vec<String>,
    /// How many values are there.
    pub count: u64,
    /// How many are missing.
    pub nulls: u64,
    /// How many different ones there are, where known.
    pub distinct: Option<u64>,
    /// The smallest, as shown.
    pub minimum: Option<String>,
    /// The largest, as shown.
    pub maximum: Option<String>,
    /// The mean of a number.
    pub mean: Option<f64>,
    /// The standard deviation of a number.
    pub deviation: Option<f64>,
    /// Rows in bins of equal width from minimum to maximum.
    pub histogram: Vec<u64>,
    /// The most frequent values, the most frequent first.
    pub top: Vec<(String, u64)>,
}

/// How a model was trained.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The adapter's name in the pipeline.
    pub adapter: String,
    /// The task, as `binary-classification`.
    pub task: String,
    /// The column that was learnt.
    #[serde(default)]
    pub target: Option<String>,
    /// The columns it was learnt from.
    pub features: Vec<String>,
    /// Rows learnt from.
    pub rows_training: u64,
    /// Rows used to stop early.
    pub rows_validation: u64,
    /// Rows kept for the evaluation.
    pub rows_test: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The device it ran on.
    pub device: String,
    /// The precision it ran in.
    pub precision: String,
    /// How many numbers were learnt.
    pub parameters: u64,
    /// The epochs, in order.
    pub epochs: Vec<Epoch>,
    /// The epoch whose weights were kept.
    pub best_epoch: Option<u32>,
    /// The hyperparameters, by name, as shown.
    pub hyperparameters: BTreeMap<String, String>,
}

/// One epoch of training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: u32,
    /// The mean loss over the training rows.
    pub training_loss: f64,
    /// The mean loss over the validation rows.
    pub validation_loss: Option<f64>,
}

/// The model that held the alias when the run began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Champion {
    /// Its version.
    pub version: u64,
    /// What it had been measured by.
    pub metrics: BTreeMap<Metric, Option<f64>>,
}

/// One check of the gate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GateCheck {
    /// The expression, as configured.
    pub expression: String,
    /// Whether it held.
    pub passed: bool,
    /// The numbers it was decided on, in words.
    pub observed: String,
}

/// What a policy decided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The policy's name in the pipeline.
    pub policy: String,
    /// Where it was asked, as `train-start`.
    pub control_point: String,
    /// Who wanted to.
    pub principal: String,
    /// What they wanted to do.
    pub action: String,
    /// To what.
    pub resource: String,
    /// `allow`, `deny` or `require-approval`.
    pub effect: String,
    /// Why.
    pub reasons: Vec<String>,
}

/// The model that was trained.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its name in the registry, where the pipeline gives one.
    pub name: Option<String>,
    /// The digest of the artifact.
    pub digest: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// What the adapter's manifest says about its data.
    pub data_sourcing: Option<String>,
    /// What the adapter's manifest says it is for.
    pub intended_use: Option<String>,
    /// What the adapter's manifest says about updates.
    pub update_cadence: Option<String>,
}

/// A plugin that took part.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Plugin {
    /// Its name in the pipeline.
    pub name: String,
    /// Its id, as `sandcast/connector-csv`.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Its role.
    pub role: String,
    /// Who made it.
    pub vendor: String,
    /// Its licence.
    pub license: String,
    /// The digest of the component.
    pub digest: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The public keys that signed it, of those that a rule of trust names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// The capabilities that it asks for, was granted and used.
    pub capabilities: Vec<Capability>,
    /// Seconds spent inside it.
    pub guest_seconds: f64,
    /// The most memory an instance of it held, in bytes.
    pub peak_memory_bytes: u64,
    /// How often it was denied something.
    pub denials: u64,
    /// How far it is trusted after the run: `probation`, `trusted`, `quarantined`.
    #[serde(default)]
    pub standing: Option<String>,
    /// Whether it is slowed down from now on.
    #[serde(default)]
    pub is_throttled: bool,
    /// What it did otherwise than usual.
    #[serde(default)]
    pub deviations: Vec<Deviation>,
}

/// Something that a plugin did otherwise than usual.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// Where: stage and pipeline.
    pub place: String,
    /// What was measured.
    pub measure: String,
    /// How far it is from what is usual, in robust standard deviations.
    pub score: f64,
    /// In words and figures.
    pub reason: String,
}

/// A capability of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Capability {
    /// The capability, as `files`.
    pub name: String,
    /// Why the plugin asks for it; `None` where it does not.
    pub reason: Option<String>,
    /// What it was granted, in words; `None` where it was not.
    pub granted: Option<String>,
    /// How many calls it made.
    pub calls: u64,
}
