//! The pipeline file: YAML in, a checked [`Pipeline`] out.
//!
//! A mistake in the file is a [`ConfigError`]: a diagnostic with the line, the column, the text
//! around it and, where there is one, the nearest right name.

mod diagnostic;
mod features;
mod grants;
mod includes;
mod load;
mod names;
mod operator;
mod references;
mod schema;
mod spans;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sandcast_audit::Digest;
use sandcast_sandbox::{
    BlobStore, ControlPoint, Grants, Precision, Role, SqlConnection, TaskKind, TrustRule,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::conduct::ConductSection;
pub use diagnostic::{ConfigError, InvalidPipeline, Problem};
pub use features::FeatureSelection;
pub use names::nearest;
pub(crate) use names::{hint, is_plain};
pub use operator::{
    OperatorError, SignedCeiling, SignedTrust, ceiling_schema, read_ceiling, read_trust,
    read_trust_to_sign, trust_schema,
};
pub use schema::schema;
pub use spans::Spans;

/// The name of the file that [`Pipeline::load`] looks for when it is given a folder.
pub const PIPELINE_FILE: &str = "pipeline.yaml";

/// A pipeline that was read and checked: every reference in it leads somewhere, every path is
/// absolute.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// What the file says, with the paths of plugins and file grants made absolute.
    pub sections: Sections,
    /// The file it came from.
    pub path: PathBuf,
    /// The folder that relative paths are relative to.
    pub folder: PathBuf,
    /// Digest of what the file says, comments and layout aside, with included files put in. Paths
    /// are as they are written, so that a pipeline that is moved is still the same pipeline.
    pub digest: Digest,
    /// What the digest is of.
    pub canonical: Arc<[u8]>,
    /// The text of the file and where everything is in it.
    pub source: Spans,
}

/// The keys of a pipeline file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Sandcast pipeline")]
pub struct Sections {
    /// The version of this format: 1.
    pub version: u32,
    /// Names the pipeline in runs, reports and policies: lower case letters, digits, `-`, `_`.
    pub name: String,
    /// Everything random is drawn from this number: the split, the weights, the order of rows.
    #[serde(default)]
    pub seed: u64,
    /// The components that take part, by the name the rest of the file calls them.
    pub plugins: BTreeMap<String, PluginSection>,
    /// Databases that plugins may be granted, by the names that grants call them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub connections: BTreeMap<String, SqlConnection>,
    /// Stores of objects that plugins may be granted, by the names that grants call them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stores: BTreeMap<String, BlobStore>,
    /// Who may sign plugins, by role. A plugin of a role that stands here is refused unless its `.sig`
    /// file holds a signature of one of the keys, or its Sigstore bundle one of one of the identities.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trust: BTreeMap<Role, TrustRule>,
    /// What is done about plugins that do otherwise than they usually do.
    #[serde(default, skip_serializing_if = "ConductSection::is_default")]
    pub conduct: ConductSection,
    /// Where rows come from, by the name that `dataset.sql` calls them.
    pub sources: BTreeMap<String, SourceSection>,
    /// How the sources become one table. May be left out when there is one source.
    #[serde(default)]
    pub dataset: DatasetSection,
    /// The checks that rows go through, in order.
    #[serde(default)]
    pub validate: Vec<CheckSection>,
    /// Who is asked for permission, and where in the line.
    #[serde(default)]
    pub policies: Vec<PolicySection>,
    /// What is learnt, by whom and from what.
    pub train: TrainSection,
    /// How the model is judged.
    #[serde(default)]
    pub evaluate: EvaluateSection,
    /// Expressions in CEL (the Common Expression Language), each of which must hold. They see
    /// `metrics`, `slices`, `champion`, `policy` and `data`. To accept any model, write `["true"]`.
    #[schemars(length(min = 1))]
    pub gate: Vec<String>,
    /// Under what name an approved model is kept.
    pub register: RegisterSection,
}

/// A component and what it is allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginSection {
    /// A plugin's crate folder, or a `.wasm` file. Relative to the pipeline file.
    pub source: PathBuf,
    /// What the component does in the line.
    pub role: Role,
    /// If given, only the component with this blake3 digest (64 hex digits) is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = r"^[0-9a-f]{64}$"))]
    pub digest: Option<Digest>,
    /// The Sigstore bundle of the component. Relative to the pipeline file; if not given, the file
    /// beside the component, `plugin.wasm.sigstore.json` for `plugin.wasm`, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<PathBuf>,
    /// What the component may do. What is not granted here is not linked.
    #[serde(default)]
    pub grants: Grants,
}

/// Rows from a connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceSection {
    /// A plugin with the role `connector`.
    pub plugin: String,
    /// The connector's own configuration.
    #[serde(default = "empty_object")]
    pub config: serde_json::Value,
}

/// How the sources become one table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetSection {
    /// A query over the sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
}

/// One validator with its rules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckSection {
    /// A plugin with the role `validator`.
    pub plugin: String,
    /// The validator's own configuration.
    #[serde(default = "empty_object")]
    pub config: serde_json::Value,
}

/// One policy plugin and where it is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySection {
    /// A plugin with the role `policy`.
    pub plugin: String,
    /// The control points at which it is asked.
    #[schemars(length(min = 1))]
    pub at: Vec<ControlPoint>,
    /// The policy's own configuration. A key `file` is replaced by the key `policies` with the text
    /// of that file, after the text that stands there; a value `{ file: <path> }` further inside
    /// becomes the text of that file. Paths are relative to the pipeline file.
    #[serde(default = "empty_object")]
    pub config: serde_json::Value,
}

/// What is learnt, by whom and from what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainSection {
    /// A plugin with the role `adapter`.
    pub plugin: String,
    /// What kind of thing is learnt.
    pub task: TaskKind,
    /// The column to predict in a classification or a regression. An anomaly detection can name the
    /// column that says which rows are anomalies: it is used to judge the model by and for nothing
    /// else, and the adapter never sees it. A clustering has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The value of the target that counts as positive. Needed in a binary classification, and in
    /// an anomaly detection that has a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positive: Option<String>,
    /// The columns to learn from: all but the target and the weight, unless said otherwise.
    #[serde(default)]
    pub features: FeatureSelection,
    /// A column of row weights, which is no feature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<String>,
    /// How rows are put aside for judging the model.
    #[serde(default)]
    pub split: SplitSection,
    /// The least exact that matrix products of the training may be on a GPU; the processor is always
    /// strict, and so is what the model is judged and served with.
    #[serde(default, skip_serializing_if = "is_strict")]
    #[schemars(with = "String", extend("enum" = ["f32-strict", "tf32", "bf16-mixed"]))]
    pub precision: Precision,
    /// The adapter's own parameters.
    #[serde(default = "empty_object")]
    pub hyperparameters: serde_json::Value,
}

fn is_strict(precision: &Precision) -> bool {
    *precision == Precision::F32Strict
}

/// How rows are put aside. A row's part is a function of the seed and the row's content, so it
/// does not depend on the order in which rows arrive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSection {
    /// The share of rows that the model is judged on, and that training never sees.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub test: f64,
    /// The share of rows that training stops early by.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub validation: f64,
}

impl Default for SplitSection {
    fn default() -> Self {
        SplitSection {
            test: 0.2,
            validation: 0.1,
        }
    }
}

/// How the model is judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateSection {
    /// The sensitive columns by whose values fairness is measured.
    pub slices: Vec<String>,
    /// The probability of the positive class from which the answer counts as positive.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: f64,
    /// The share of the rows, those with the highest scores, that count as anomalies: 0.05 unless
    /// it is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 0.5))]
    pub share: Option<f64>,
}

impl Default for EvaluateSection {
    fn default() -> Self {
        EvaluateSection {
            slices: Vec::new(),
            threshold: 0.5,
            share: None,
        }
    }
}

/// Under what name an approved model is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterSection {
    /// The name of the model: lower case letters, digits, `-`, `_`.
    pub model: String,
    /// An alias that is moved to the new version. The version it pointed to before is the
    /// champion that the gate compares with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

fn empty_object() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

#[cfg(test)]
pub(crate) mod tests;
