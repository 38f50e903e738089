//! The state folder and everything that lives in it.

use std::path::{Path, PathBuf};

use sandcast_audit::{AuditError, AuditLog, RunId, VerifyError};
use sandcast_estate::Estate;
use sandcast_sandbox::{OperatorRules, Recordings, Sandbox, SandboxConfig, SandboxError};
use thiserror::Error;

use crate::conduct::{Conduct, ConductError};
use crate::config::Pipeline;
use crate::plan::{Component, Plan, PlanError, Reuse, plan};
use crate::registry::Registry;
use crate::report::ReportInput;
use crate::state::{DatasetRecord, OutboxError, RunRecord, State, StateError};

/// The folder that is used where none is named, beside whoever calls.
pub const DEFAULT_STATE_FOLDER: &str = ".sandcast";

/// What plugins keep by a grant of `state`, in the state folder.
pub const PLUGIN_STATE_FILE: &str = "plugin-state.sqlite";

/// An open state folder: `state.sqlite`, `state.key`, `plugin-state.sqlite`, `blobs/`, `audit/`, `cache/` and
/// `runs/<id>/report.html`.
/// Cheap to clone.
#[derive(Clone)]
pub struct Workspace {
    folder: PathBuf,
    state: State,
    audit: AuditLog,
    estate: Estate,
    sandbox: Sandbox,
    conduct: Conduct,
    registry: Registry,
}

/// What a run of a pipeline with a state folder will do, and which of its stages earlier runs have
/// done. Reads the components of its plugins and the state, if there is any; runs nothing and
/// leaves nothing behind. It also says what the rules of the operator will refuse.
///
/// # Errors
/// If a component cannot be read or is not the one that the pipeline means, or the state cannot be
/// read.
pub fn plan_in(
    folder: &Path,
    pipeline: &Pipeline,
    rules: &OperatorRules,
) -> Result<Plan, PlanError> {
    let components = Component::read_all(pipeline)?;
    let mut plan = plan(pipeline, &components)?;
    plan.hold_to(rules, &components);
    let Some(state) = State::look(folder)? else {
        return Ok(plan);
    };
    for stage in plan
        .stages
        .iter_mut()
        .filter(|stage| stage.reuse == Reuse::New)
    {
        if let Some((run, when)) = state.last_with_recipe(&stage.recipe)? {
            stage.reuse = Reuse::Unchanged { run, when };
        }
    }
    Ok(plan)
}

/// Why a state folder could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// The folder could not be made.
    #[error(
        "cannot use {} as the state folder: {source}; name another one with `--state`",
        path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The state file could not be opened.
    #[error(transparent)]
    State(#[from] StateError),
    /// The audit log could not be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The audit log is not as it was written.
    #[error("the audit log was changed, so nothing is run: {0}")]
    Log(VerifyError),
    /// Events that an earlier process left behind could not be put into the audit log.
    #[error("an earlier effect could not be put into the audit log: {0}")]
    Outbox(#[from] OutboxError),
    /// The blobs could not be opened.
    #[error(transparent)]
    Estate(#[from] sandcast_estate::BlobError),
    /// What is known of the conduct of plugins cannot be used.
    #[error(transparent)]
    Conduct(#[from] ConductError),
    /// The engine could not be started.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// Bytes of a log that is read as a whole before anything is run: a tenth of a second. Of a longer one the
/// end was looked at when it was opened, and `sandcast audit verify` looks at all of it.
const MAX_HELD_BYTES: u64 = 32 << 20;

/// Checks every entry of a log that is not too long for that.
fn hold(audit: &AuditLog) -> Result<(), WorkspaceError> {
    let Some(folder) = audit.dir() else {
        return Ok(());
    };
    let length = folder.join("log.jsonl").metadata().map(|it| it.len());
    if length.is_ok_and(|length| length > MAX_HELD_BYTES) {
        tracing::info!("the audit log is long, so only its end was looked at");
        return Ok(());
    }
    match sandcast_audit::verify(&folder) {
        Ok(_) => Ok(()),
        Err(error) => Err(WorkspaceError::Log(error)),
    }
}

impl Workspace {
    /// Opens a state folder, and makes it if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be written, or was written by a later version.
    pub fn open(folder: &Path) -> Result<Workspace, WorkspaceError> {
        Workspace::open_with(folder, SandboxConfig::default())
    }

    /// Opens a state folder with a sandbox of one's own making. Compiled plugins are kept in the
    /// state folder unless the configuration names another one.
    ///
    /// # Errors
    /// As for [`Workspace::open`].
    pub fn open_with(
        folder: &Path,
        mut sandbox: SandboxConfig,
    ) -> Result<Workspace, WorkspaceError> {
        let wrap = |source| WorkspaceError::Folder {
            path: folder.to_path_buf(),
            source,
        };
        let folder = std::path::absolute(folder).map_err(wrap)?;
        std::fs::create_dir_all(&folder).map_err(wrap)?;
        let state = State::open(&folder)?;
        let audit = AuditLog::open(&folder.join("audit"))?;
        hold(&audit)?;
        state.empty_outbox(&audit)?;
        let conduct = Conduct::open(&folder, audit.clone())?;
        let estate = Estate::open(&folder)?;
        sandbox
            .cache_dir
            .get_or_insert_with(|| folder.join("cache"));
        sandbox
            .recordings
            .get_or_insert_with(|| Recordings::at(folder.join("recordings")));
        sandbox
            .plugin_state
            .get_or_insert_with(|| folder.join(PLUGIN_STATE_FILE));
        let sandbox = Sandbox::new(sandbox, audit.clone())?;
        Ok(Workspace {
            folder,
            registry: Registry::new(state.clone(), audit.clone()),
            state,
            audit,
            estate,
            sandbox,
            conduct,
        })
    }

    /// The state folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The audit log.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// The blobs and datasets.
    pub fn estate(&self) -> &Estate {
        &self.estate
    }

    /// What is known of the conduct of plugins.
    pub fn conduct(&self) -> &Conduct {
        &self.conduct
    }

    /// The engine that plugins run in.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The models.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// All runs, the latest first, without their stages.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn runs(&self) -> Result<Vec<RunRecord>, StateError> {
        self.state.runs()
    }

    /// One run with its stages, or nothing if there is no such run.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn run_record(&self, run: &RunId) -> Result<Option<RunRecord>, StateError> {
        self.state.run(run)
    }

    /// The datasets that runs have made, the latest first: each with the run that made it last.
    ///
    /// # Errors
    /// If the state cannot be read.
    pub fn datasets(&self) -> Result<Vec<DatasetRecord>, StateError> {
        self.state.datasets()
    }

    /// Everything there is to tell about a run, if it has ended and its report could be written.
    ///
    /// # Errors
    /// If the report is there and cannot be read.
    pub fn report(&self, run: &RunId) -> std::io::Result<Option<ReportInput>> {
        match std::fs::read(self.report_path(run).with_extension("json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the report of a run is, or will be.
    pub fn report_path(&self, run: &RunId) -> PathBuf {
        self.folder
            .join("runs")
            .join(run.as_str())
            .join("report.html")
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }
}
