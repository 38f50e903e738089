//! Tries a component out before it is let in: what it says of itself, and what it does when it is
//! asked well, asked badly, asked again and asked often.
//!
//! A trial shows that a plugin keeps the contract where it was tried, on the bytes that were tried.
//! It cannot show that the plugin has no other face: for that there are grants, records and replays.

mod asked;
mod certificate;
mod paper;
mod trial;

use std::sync::Arc;

use sandcast_audit::{AuditLog, Digest, Event, PluginRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

pub use certificate::{Certificate, CertificateError};

use crate::grants::{Capability, ComputeGrant, Grants, RandomGrant, StateGrant, TimeSpan};
use crate::inspect::{Inspection, inspect};
use crate::load::LoadError;
use crate::process::ProcessProgram;
use crate::recording::Recordings;
use crate::sandbox::{Pooling, Sandbox, SandboxConfig, SandboxError};
use trial::Stand;

/// The version of the trials. A certificate says by which it was given.
pub const TRIALS_VERSION: u32 = 1;

/// How much a trial matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// There is no certificate without it.
    Must,
    /// It is said, and no more.
    Should,
}

/// What a trial came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it is to be.
    Passed,
    /// Not as it is to be.
    Failed,
    /// It could not be tried.
    Skipped,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// A short stable name, such as `same-twice`.
    pub id: String,
    /// What is demanded, in a sentence.
    pub demand: String,
    /// How much it matters.
    pub weight: Demand,
    /// What it came to.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
}

/// Everything that was tried of one component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Examination {
    /// The version of the trials.
    pub trials_version: u32,
    /// The version of the host that tried.
    pub host: String,
    /// The component.
    pub plugin: PluginRef,
    /// The digest of the configuration it was tried with.
    pub configuration: Digest,
    /// What it was granted while it was tried.
    pub grants: Grants,
    /// What was tried.
    pub trials: Vec<Trial>,
}

impl Examination {
    /// Whether every trial that matters was passed.
    pub fn is_passed(&self) -> bool {
        let failed =
            |trial: &Trial| trial.weight == Demand::Must && trial.verdict == Verdict::Failed;
        !self.trials.iter().any(failed)
    }

    /// How many trials came to this.
    pub fn count(&self, verdict: Verdict) -> usize {
        let counted = self.trials.iter();
        counted.filter(|trial| trial.verdict == verdict).count()
    }
}

/// How a component is tried.
#[derive(Clone, Debug, Default)]
pub struct TrialOptions {
    /// A configuration that makes sense; for an adapter, hyperparameters. It may name the columns of
    /// the table of the trials: `flag`, `count`, `amount`, `name`, `day`, `moment`, and `outcome`.
    pub configuration: Value,
    /// What it is granted; what it asks for, as narrowly as can be, when absent. Folders and hosts are
    /// never granted unless they are given here.
    pub grants: Option<Grants>,
    /// What is started to compile it; it compiles in this process when absent.
    pub process: Option<ProcessProgram>,
}

/// Why a component could not be tried.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrialError {
    /// It is no plugin.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no sandbox to try it in.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// There is no folder for its recordings.
    #[error("a folder for the trials cannot be made: {0}")]
    Folder(#[from] std::io::Error),
}

/// Tries a component, in a sandbox of its own that nothing else uses.
///
/// # Errors
/// When it is no plugin at all, or there is no sandbox to try it in.
pub async fn examine(
    component: &[u8],
    options: &TrialOptions,
    mut tell: impl FnMut(&str),
) -> Result<Examination, TrialError> {
    let inspection = inspect(component)?;
    let grants = options
        .grants
        .clone()
        .unwrap_or_else(|| asked_for(&inspection));
    let configuration = match &options.configuration {
        Value::Null => Value::Object(serde_json::Map::new()),
        given => given.clone(),
    };
    let folder = tempfile::tempdir()?;
    let audit = AuditLog::in_memory();
    let sandbox = Sandbox::new(
        SandboxConfig {
            cache_dir: Some(folder.path().join("cache")),
            recordings: Some(Recordings::at(folder.path().join("recordings"))),
            pooling: Pooling::Off,
            device: sandcast_kernels::DeviceChoice::Cpu.into(),
            process: options.process.clone(),
            ..SandboxConfig::default()
        },
        audit.clone(),
    )?;
    let mut examination = Examination {
        trials_version: TRIALS_VERSION,
        host: env!("CARGO_PKG_VERSION").to_owned(),
        plugin: PluginRef {
            id: inspection.manifest.id.clone(),
            version: inspection.manifest.version.clone(),
            role: inspection.role.to_string(),
            digest: inspection.digest,
        },
        configuration: Digest::of_json(&configuration),
        grants: grants.clone(),
        trials: Vec::new(),
    };
    tell("what it says of itself");
    paper::try_all(&inspection, &mut examination.trials);
    let stand = Stand {
        sandbox,
        audit,
        component: Arc::from(component),
        inspection,
        grants,
        configuration,
    };
    stand.try_all(&mut examination.trials, &mut tell).await;
    Ok(examination)
}

/// What a plugin asks for, as narrowly as it can be granted. Nothing of the machine or the network.
fn asked_for(inspection: &Inspection) -> Grants {
    let asks = |capability: Capability| {
        let requests = inspection.manifest.capabilities.iter();
        requests
            .map(|request| request.capability.as_str())
            .any(|name| name == capability.as_str())
    };
    let mut grants = Grants {
        clock: asks(Capability::Clock),
        random: asks(Capability::Random).then_some(RandomGrant { seed: Some(7) }),
        compute: asks(Capability::Compute).then(|| ComputeGrant {
            time: TimeSpan::from_secs(120),
            ..ComputeGrant::default()
        }),
        state: asks(Capability::State).then(StateGrant::default),
        ..Grants::default()
    };
    grants.limits.call_timeout = TimeSpan::from_secs(20);
    grants.limits.total_timeout = TimeSpan::from_secs(120);
    grants
}

impl Trial {
    fn new(id: &str, weight: Demand, demand: &str, outcome: Result<String, String>) -> Self {
        let (verdict, detail) = match outcome {
            Ok(detail) => (Verdict::Passed, detail),
            Err(detail) => (Verdict::Failed, detail),
        };
        Self {
            id: id.to_owned(),
            demand: demand.to_owned(),
            weight,
            verdict,
            detail,
        }
    }

    fn skipped(id: &str, weight: Demand, demand: &str, why: &str) -> Self {
        Self {
            verdict: Verdict::Skipped,
            ..Self::new(id, weight, demand, Ok(why.to_owned()))
        }
    }
}

/// Denials that are on record.
fn denials(audit: &AuditLog) -> Vec<(String, String)> {
    let entries = audit.entries().unwrap_or_default();
    let events = entries.into_iter().map(|entry| entry.event);
    events
        .filter_map(|event| match event {
            Event::Denied {
                capability, detail, ..
            } => Some((capability, detail)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
