//! What a run comes to.

use std::path::{Path, PathBuf};

use sandcast_audit::{AuditError, RunId};
use sandcast_estate::BlobError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::conduct::ConductError;
use crate::plan::PlanError;
use crate::registry::{ModelVersion, RegistryError};
use crate::report::ReportInput;
use crate::state::{OutboxError, StateError};

/// What a run came to. Its record and its report are written either way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum RunOutcome {
    /// The gate approved, and the model is registered.
    Completed(Box<Completed>),
    /// Data, a policy, the gate or a plugin stopped it.
    Rejected(Rejected),
}

/// A run whose model was registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Completed {
    /// The run.
    pub run: RunId,
    /// The model as it is registered.
    pub version: ModelVersion,
    /// Whether the version is new. The same data, code, configuration and seed make the same
    /// model, which is registered once.
    pub new: bool,
    /// The alias that points to it now.
    pub alias: Option<String>,
    /// Whether the run moved it there; it may have been there before.
    #[serde(default)]
    pub alias_moved: bool,
    /// The request to let the alias of the pipeline point to it, where that takes a second person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
    /// Everything there is to tell about the run.
    pub report: Box<ReportInput>,
    /// Where the report is, if it could be written.
    pub report_path: Option<PathBuf>,
}

/// A run that was stopped for a reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// The run.
    pub run: RunId,
    /// The stage that stopped it.
    pub stage: String,
    /// Why, a sentence each.
    pub reasons: Vec<String>,
    /// Everything there is to tell about the run.
    pub report: Box<ReportInput>,
    /// Where the report is, if it could be written.
    pub report_path: Option<PathBuf>,
}

impl RunOutcome {
    /// The run.
    pub fn run(&self) -> &RunId {
        match self {
            RunOutcome::Completed(completed) => &completed.run,
            RunOutcome::Rejected(rejected) => &rejected.run,
        }
    }

    /// Everything there is to tell about the run.
    pub fn report(&self) -> &ReportInput {
        match self {
            RunOutcome::Completed(completed) => &completed.report,
            RunOutcome::Rejected(rejected) => &rejected.report,
        }
    }

    /// Where its report is, if it could be written.
    pub fn report_path(&self) -> Option<&Path> {
        match self {
            RunOutcome::Completed(completed) => completed.report_path.as_deref(),
            RunOutcome::Rejected(rejected) => rejected.report_path.as_deref(),
        }
    }
}

/// Why a run could not go on, through no fault of data, policies, the gate or a plugin.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunError {
    /// There is no plan to carry out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What must agree to the plan does not.
    #[error("{0}")]
    NotApproved(String),
    /// Another run goes on in the same state folder.
    #[error(
        "another run goes on in {} ({holder}): wait until it is done, or name another state \
         folder with `--state`",
        folder.display()
    )]
    Locked {
        /// The state folder.
        folder: PathBuf,
        /// Who holds the lock, as far as is known.
        holder: String,
    },
    /// The lock of runs could not be taken.
    #[error("cannot lock {} for this run: {source}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A person stopped the run.
    #[error("the run was stopped in stage `{stage}`; run it again to go on from there")]
    Cancelled {
        /// The stage it was in.
        stage: String,
    },
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A model could not be looked up or registered.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The audit log could not be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The beginning or the end of a run is kept, and not yet in the audit log.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// What is known of the conduct of plugins could not be read or written.
    #[error(transparent)]
    Conduct(#[from] ConductError),
    /// Blobs could not be read or written.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Something else of the host, with what it said.
    #[error("stage `{stage}` failed: {message}")]
    Host {
        /// The stage.
        stage: String,
        /// What went wrong, from the outermost to the innermost cause.
        message: String,
    },
}
