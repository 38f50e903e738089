//! What will be done, before anything is done.
//!
//! [`plan`] is pure: a pipeline and what its plugins are go in, a [`Plan`] comes out.
//! [`plan_in`](crate::plan_in) reads the plugins and looks up what
//! earlier runs have left.

mod build;
mod components;
mod display;

use std::path::PathBuf;

use sandcast_audit::{CertifiedSigner, Digest, PluginRef, RunId, VerifierKey};
use sandcast_sandbox::{Excess, Grants, LoadError, Role};
use serde::Serialize;
use thiserror::Error;

use crate::conduct::Isolate;
pub(crate) use build::json;
pub use build::plan;
pub(crate) use components::read_short;
pub use components::{Component, bundle_path, read_bundle, read_signature, signature_path};

/// What will be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The name of the pipeline.
    pub pipeline: String,
    /// The digest of what its file says.
    pub config: Digest,
    /// The seed of everything random.
    pub seed: u64,
    /// The version of Sandcast, which takes part in every key.
    pub sandcast_version: String,
    /// The plugins, by name.
    pub plugins: Vec<PlannedPlugin>,
    /// The stages, in order.
    pub stages: Vec<PlannedStage>,
    /// The expressions of the gate.
    pub gate: Vec<String>,
    /// The name under which the model will be registered.
    pub model: String,
    /// The alias that will be moved to it.
    pub alias: Option<String>,
}

/// A plugin that will take part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedPlugin {
    /// Its name in the pipeline.
    pub name: String,
    /// Who it is.
    pub plugin: PluginRef,
    /// Where its component is.
    pub path: PathBuf,
    /// The size of its component.
    pub size_bytes: u64,
    /// What it asks for, imports and is granted.
    pub capabilities: Vec<PlannedCapability>,
    /// What it is granted.
    pub grants: Grants,
    /// Until when it runs in processes of its own, whatever its grants say.
    #[serde(skip_serializing_if = "Isolate::is_default")]
    pub isolate: Isolate,
    /// The keys that signed it and may, where the pipeline or the operator says who may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<VerifierKey>,
    /// Who signed it by Sigstore and may, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<CertifiedSigner>,
    /// Why its signature will have it refused, if it will.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untrusted: Option<String>,
    /// Where its grants are over the operator's ceiling, which will have it refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub over_ceiling: Vec<Excess>,
}

impl PlannedPlugin {
    /// Whether the plugin will be refused.
    pub fn is_refused(&self) -> bool {
        self.untrusted.is_some()
            || !self.over_ceiling.is_empty()
            || self.capabilities.iter().any(PlannedCapability::is_missing)
    }
}

/// A capability that a plugin asks for, imports or is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedCapability {
    /// The capability.
    pub capability: String,
    /// Why the plugin asks for it, if it does.
    pub reason: Option<String>,
    /// Whether the component imports it.
    pub imported: bool,
    /// Whether the pipeline grants it.
    pub granted: bool,
}

impl PlannedCapability {
    /// Whether the plugin will be refused because of it.
    pub fn is_missing(&self) -> bool {
        self.imported && !self.granted
    }
}

/// A stage to come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedStage {
    /// Its name, such as `connect branch`.
    pub stage: String,
    /// What it will do, in a few words.
    pub summary: String,
    /// The plugins it uses, by name.
    pub plugins: Vec<String>,
    /// The digest of what is this stage's own: its plugins, its configuration.
    #[serde(skip)]
    pub(crate) own: Digest,
    /// The digest of everything that goes in but for the data: plugins, configuration, seed, the
    /// version of Sandcast, and the recipes of the stages before it.
    pub recipe: Digest,
    /// Whether it will be done, or taken from an earlier run.
    #[serde(flatten)]
    pub reuse: Reuse,
}

/// Whether a stage will be done, or taken from an earlier run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reuse", rename_all = "kebab-case")]
pub enum Reuse {
    /// It is done in every run: permission, the gate and the effects are never taken from before.
    Always,
    /// It has not been done with this recipe.
    New,
    /// It has been done with this recipe, and is taken from there unless a source has changed.
    Unchanged {
        /// The run that did it last.
        run: RunId,
        /// When, RFC 3339.
        when: String,
    },
}

/// Why there is no plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A plugin's source is a folder, and not that of a plugin's crate.
    #[error("plugin `{plugin}`: {} is no crate of a plugin: {source}", folder.display())]
    Crate {
        /// The plugin.
        plugin: String,
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: sandcast_build::BuildError,
    },
    /// A plugin's crate is not built.
    #[error(
        "plugin `{plugin}` is not built: there is no {}; run again with `--build`, or run \
         `sandcast build {}`",
        path.display(),
        folder.display()
    )]
    NotBuilt {
        /// The plugin.
        plugin: String,
        /// The crate folder.
        folder: PathBuf,
        /// Where its component would be.
        path: PathBuf,
    },
    /// A plugin's component could not be read.
    #[error("plugin `{plugin}`: cannot read {}: {source}", path.display())]
    Read {
        /// The plugin.
        plugin: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A plugin's component is too large.
    #[error("plugin `{plugin}`: {} is larger than {limit_bytes} bytes", path.display())]
    TooLarge {
        /// The plugin.
        plugin: String,
        /// The file.
        path: PathBuf,
        /// The largest size that is read.
        limit_bytes: u64,
    },
    /// A plugin's component is none, or has no manifest, or speaks another contract.
    #[error("plugin `{plugin}` at {}: {source}", path.display())]
    Inspect {
        /// The plugin.
        plugin: String,
        /// The file.
        path: PathBuf,
        /// Why it was refused.
        source: Box<LoadError>,
    },
    /// A plugin's component is not the one that the pipeline pins.
    #[error(
        "plugin `{plugin}` has the digest {found}, and the pipeline wants {wanted}; if the change \
         is meant, change `plugins.{plugin}.digest`"
    )]
    OtherDigest {
        /// The plugin.
        plugin: String,
        /// The digest of the component.
        found: Digest,
        /// The digest that the pipeline wants.
        wanted: Digest,
    },
    /// A plugin plays another role than the pipeline says.
    #[error("plugin `{plugin}` is a {found}, and the pipeline says `role: {wanted}`")]
    OtherRole {
        /// The plugin.
        plugin: String,
        /// The role in its manifest.
        found: Role,
        /// The role in the pipeline.
        wanted: Role,
    },
    /// The state could not be read.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
}

impl PlanError {
    /// The plugin it is about.
    pub(crate) fn plugin(&self) -> Option<&str> {
        match self {
            PlanError::NotBuilt { plugin, .. }
            | PlanError::Crate { plugin, .. }
            | PlanError::Read { plugin, .. }
            | PlanError::TooLarge { plugin, .. }
            | PlanError::Inspect { plugin, .. }
            | PlanError::OtherDigest { plugin, .. }
            | PlanError::OtherRole { plugin, .. } => Some(plugin),
            PlanError::State(_) => None,
        }
    }

    /// The digest of the component, if that is what is wrong.
    pub(crate) fn digest(&self) -> Option<Digest> {
        match self {
            PlanError::OtherDigest { found, .. } => Some(*found),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
