//! A version of a model, and everything that is kept with it.

use std::collections::BTreeMap;

use sandcast_audit::{Digest, PluginRef, RunId};
use sandcast_sandbox::{Grants, Signatures, Task, TrustRule};
use serde::{Deserialize, Serialize};

use crate::conduct::ConductSection;
use crate::metrics::Evaluation;

/// A model with its versions and aliases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSummary {
    /// The name of the model.
    pub name: String,
    /// Its versions, the latest first.
    pub versions: Vec<VersionSummary>,
    /// The versions that aliases point to.
    pub aliases: BTreeMap<String, u64>,
}

/// A version of a model, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionSummary {
    /// The version.
    pub version: u64,
    /// When it was registered, RFC 3339.
    pub created: String,
    /// The run that made it.
    pub run: RunId,
    /// Its numbers over the test rows.
    pub metrics: BTreeMap<String, f64>,
}

/// A version of a model with everything that answering and auditing need.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// The name of the model.
    pub model: String,
    /// The version, from 1.
    pub version: u64,
    /// When it was registered, RFC 3339.
    pub created: String,
    /// The run that made it.
    pub run: RunId,
    /// What it was made of.
    pub lineage: Lineage,
    /// What it was measured by.
    pub evaluation: Evaluation,
    /// What it answers, from which columns.
    pub task: Task,
    /// The adapter that made it and answers with it.
    pub adapter: PluginRef,
    /// The name of the adapter in the pipeline.
    pub adapter_name: String,
    /// The blob with the bytes of the adapter's component.
    pub component: Digest,
    /// What the adapter may do.
    pub grants: Grants,
    /// Who vouches for the adapter, and who must.
    #[serde(default, skip_serializing_if = "Vouched::is_empty")]
    pub vouched: Vouched,
    /// What is done about its adapter where that does otherwise than it usually does while it is
    /// served, and whether it and the policies run in processes of their own while they are not
    /// trusted, as the pipeline has it.
    #[serde(default, skip_serializing_if = "ConductSection::is_default")]
    pub conduct: ConductSection,
    /// The blob with the model.
    pub artifact: Digest,
    /// Who is asked before it answers.
    pub policies: Vec<PredictPolicy>,
}

/// A policy that is asked before a model answers, kept with the version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PredictPolicy {
    /// The name of the plugin in the pipeline.
    pub name: String,
    /// The plugin.
    pub plugin: PluginRef,
    /// The blob with the bytes of its component.
    pub component: Digest,
    /// What it may do.
    pub grants: Grants,
    /// Who vouches for it, and who must.
    #[serde(default, skip_serializing_if = "Vouched::is_empty")]
    pub vouched: Vouched,
    /// Its configuration.
    pub config: serde_json::Value,
}

/// The signature of a component that is kept with a model, and the rule that it is held to whenever
/// the model is loaded: that of the pipeline. It is no part of the lineage; a run that comes to the
/// same model renews it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Vouched {
    /// The signed note that lay beside the component, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// The Sigstore bundle that came with the component, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// Who may sign plugins of its role, where the pipeline says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustRule>,
}

impl Vouched {
    /// What says who signed the component.
    pub fn signatures(&self) -> Signatures<'_> {
        Signatures {
            note: self.signature.as_deref(),
            bundle: self.bundle.as_deref(),
        }
    }

    fn is_empty(&self) -> bool {
        *self == Vouched::default()
    }
}

/// Everything a model was made of. Two models with the same lineage are the same model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The rows after validation.
    pub data: Digest,
    /// The rows of each source, by its name.
    pub sources: BTreeMap<String, Digest>,
    /// The plugins that took part, by their names in the pipeline.
    pub plugins: BTreeMap<String, PluginRef>,
    /// What the pipeline file said.
    pub config: Digest,
    /// The name of the pipeline.
    pub pipeline: String,
    /// The seed of everything random.
    pub seed: u64,
    /// The digest of the model.
    pub artifact: Digest,
    /// The version of Sandcast.
    pub sandcast_version: String,
}

impl Lineage {
    /// Its JSON form, in which keys have one order.
    pub(crate) fn text(&self) -> Vec<u8> {
        // Strings, numbers and sorted maps: this always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The digest of the whole lineage.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.text())
    }
}

/// Takes over who vouches for the components of a version; whether that changed anything.
pub(super) fn renew(known: &mut ModelVersion, new: &ModelVersion) -> bool {
    let mut changed = false;
    let mut take = |old: &mut Vouched, new: &Vouched| {
        if old != new {
            new.clone_into(old);
            changed = true;
        }
    };
    if known.component == new.component {
        take(&mut known.vouched, &new.vouched);
    }
    for policy in &mut known.policies {
        let same = new
            .policies
            .iter()
            .find(|it| it.name == policy.name && it.component == policy.component);
        if let Some(same) = same {
            take(&mut policy.vouched, &same.vouched);
        }
    }
    changed
}
