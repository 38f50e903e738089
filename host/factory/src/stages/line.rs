//! What every stage works with, and how a stage is watched, timed, kept and recorded.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandcast_audit::{AuditError, Digest, Event, RunId};
use sandcast_estate::{BlobError, Dataset, Progress, ProgressSink};
use sandcast_sandbox::{CallContext, CallError, LoadError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::conduct::ConductError;
use crate::config::{Pipeline, Sections};
use crate::plan::{Component, Plan};
use crate::registry::RegistryError;
use crate::report::ReportInput;
use crate::run::{AskToPromote, Observer, RunError, RunEvent};
use crate::state::{DatasetRecord, KeptOutput, StageRecord, StageStatus, StateError};
use crate::workspace::Workspace;

/// What every stage of one run works with.
pub(crate) struct Line<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) plan: &'a Plan,
    pub(crate) components: &'a BTreeMap<String, Component>,
    pub(crate) run: RunId,
    pub(crate) user: Option<String>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) cancel: CancellationToken,
    pub(crate) fresh: bool,
    pub(crate) checkpoint_every: Option<Duration>,
    /// What asks a second person to let the alias move, if that takes one.
    pub(crate) promotion: Option<AskToPromote>,
    /// What the report will show, filled in as the stages come to know it.
    pub(crate) report: Mutex<ReportInput>,
}

/// Why a stage did not end well.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Data, a policy, the gate or a plugin says no, with the reasons.
    Rejected(Vec<String>),
    /// Something of the host is wrong.
    Failed(RunError),
}

/// A stop with the stage it happened in.
#[derive(Debug)]
pub(crate) struct Halt {
    pub(crate) stage: String,
    pub(crate) stop: Stop,
}

/// What is to be remembered of a stage that ended well.
#[derive(Debug, Default)]
pub(crate) struct StageNotes {
    pub(crate) key: Option<Digest>,
    pub(crate) output: Option<Digest>,
    pub(crate) cached: bool,
    pub(crate) rows_in: Option<u64>,
    pub(crate) rows_out: Option<u64>,
    pub(crate) rows_quarantined: Option<u64>,
    pub(crate) message: String,
}

/// The output of a stage that is kept for later runs.
pub(crate) trait Output: Serialize + DeserializeOwned {
    /// The blobs without which it is worth nothing.
    fn blobs(&self) -> Vec<Digest>;
}

/// An output, and whether an earlier run had made it.
pub(crate) struct Kept<T> {
    pub(crate) output: T,
    pub(crate) digest: Digest,
    pub(crate) cached: bool,
}

impl Line<'_> {
    pub(crate) fn sections(&self) -> &Sections {
        &self.pipeline.sections
    }

    /// On whose behalf a plugin runs.
    pub(crate) fn context(&self, stage: &str) -> CallContext {
        CallContext::new(Some(self.run.clone()), stage)
    }

    /// The digest, by the plan, of everything but the data that goes into a stage.
    pub(crate) fn recipe(&self, stage: &str) -> Option<Digest> {
        self.plan
            .stages
            .iter()
            .find(|planned| planned.stage == stage)
            .map(|planned| planned.recipe)
    }

    /// The digest of everything that goes into a stage: what is its own, and the digests of data.
    pub(crate) fn key(&self, stage: &str, data: &[&[u8]]) -> Digest {
        let own = self
            .plan
            .stages
            .iter()
            .find(|planned| planned.stage == stage);
        let mut hasher = Digest::hasher();
        hasher.update_field(b"sandcast stage 1");
        hasher.update_field(own.map_or(&[], |planned| planned.own.as_bytes().as_slice()));
        for part in data {
            hasher.update_field(part);
        }
        hasher.finish()
    }

    /// Carries out a stage: watched, timed, stopped when the run is cancelled, and recorded,
    /// whatever it comes to.
    pub(crate) async fn stage<T>(
        &self,
        stage: &str,
        work: impl Future<Output = Result<(T, StageNotes), Stop>>,
    ) -> Result<T, Halt> {
        self.observer.notice(&RunEvent::StageStarted {
            stage: stage.to_owned(),
        });
        let span = tracing::info_span!("stage.run", run.id = %self.run, stage);
        let began = Instant::now();
        let result = tokio::select! {
            biased;
            () = self.cancel.cancelled() => {
                Err(Stop::Failed(RunError::Cancelled { stage: stage.to_owned() }))
            }
            result = Box::pin(work).instrument(span) => result,
        };
        let halt = |stop| Halt {
            stage: stage.to_owned(),
            stop,
        };
        let seconds = began.elapsed().as_secs_f64();
        let (result, record) = match result {
            Ok((value, notes)) => {
                let record = record_of(stage, seconds, notes);
                match self.remember(&record) {
                    Ok(()) => (Ok(value), record),
                    Err(stop) => return Err(halt(stop)),
                }
            }
            Err(stop) => {
                let record = record_of_stop(stage, seconds, &stop);
                // The stop is what is told; that it could not be written down comes second.
                if let Err(second) = self.remember(&record) {
                    tracing::error!(stage, "cannot record a stopped stage: {second}");
                }
                (Err(halt(stop)), record)
            }
        };
        self.observer.notice(&RunEvent::StageFinished { record });
        result
    }

    fn remember(&self, record: &StageRecord) -> Result<(), Stop> {
        let event = match (record.status, record.key, record.output) {
            (StageStatus::Done, key, output) => Event::StageFinished {
                run: self.run.clone(),
                stage: record.stage.clone(),
                key: key.unwrap_or(Digest::ZERO),
                output: output.unwrap_or(Digest::ZERO),
                cached: record.cached,
                rows_in: record.rows_in,
                rows_out: record.rows_out,
                rows_quarantined: record.rows_quarantined,
                seconds: record.seconds,
            },
            _ => Event::StageFailed {
                run: self.run.clone(),
                stage: record.stage.clone(),
                message: record.message.clone(),
            },
        };
        self.workspace.audit().append(event)?;
        self.workspace.state().add_stage(&self.run, record)?;
        Ok(())
    }

    /// Takes the output of a stage from an earlier run, or makes it and keeps it.
    pub(crate) async fn kept<T: Output>(
        &self,
        stage: &str,
        key: &Digest,
        work: impl Future<Output = Result<T, Stop>>,
    ) -> Result<Kept<T>, Stop> {
        match self.earlier(stage, key).await? {
            Some(kept) => Ok(kept),
            None => self.keep(stage, key, &Box::pin(work).await?),
        }
    }

    /// What an earlier run made with this key, if it was sealed here and its blobs are still there.
    pub(crate) async fn earlier<T: Output>(
        &self,
        stage: &str,
        key: &Digest,
    ) -> Result<Option<Kept<T>>, Stop> {
        if self.fresh {
            return Ok(None);
        }
        let text = match self.workspace.state().output(key)? {
            KeptOutput::None => return Ok(None),
            KeptOutput::Sealed(text) => text,
            KeptOutput::Foreign => {
                let what = "what is kept in state.sqlite has no seal of this state: an earlier version \
                            wrote it, or somebody changed it by hand; doing it again";
                self.note(stage, what.to_owned());
                return Ok(None);
            }
        };
        let kept: Kept<T> = read(stage, &text, true)?;
        for blob in kept.output.blobs() {
            if !self.workspace.estate().contains(&blob).await? {
                let blob = blob.short();
                self.note(
                    stage,
                    format!("blob {blob} of an earlier run is gone; doing it again"),
                );
                return Ok(None);
            }
        }
        self.see(stage)?;
        Ok(Some(kept))
    }

    /// Keeps an output, and gives it back as a later run will read it: to the last digit.
    pub(crate) fn keep<T: Output>(
        &self,
        stage: &str,
        key: &Digest,
        output: &T,
    ) -> Result<Kept<T>, Stop> {
        let text = serde_json::to_string(output);
        let text = text.map_err(|error| Stop::host(stage, chain(&error)))?;
        self.workspace
            .state()
            .keep_output(key, stage, &self.run, &text)?;
        self.see(stage)?;
        read(stage, &text, false)
    }

    fn see(&self, stage: &str) -> Result<(), Stop> {
        if let Some(recipe) = self.recipe(stage) {
            self.workspace.state().see_recipe(&recipe, &self.run)?;
        }
        Ok(())
    }

    pub(crate) fn see_dataset(&self, stage: &str, dataset: &Dataset) -> Result<(), Stop> {
        let record = DatasetRecord {
            dataset: dataset.clone(),
            pipeline: self.sections().name.clone(),
            stage: stage.to_owned(),
            run: self.run.clone(),
            seen: String::new(),
        };
        Ok(self.workspace.state().see_dataset(&record)?)
    }

    pub(crate) fn note(&self, stage: &str, message: String) {
        tracing::warn!(run.id = %self.run, stage, "{message}");
        self.observer.notice(&RunEvent::Note {
            stage: stage.to_owned(),
            message,
        });
    }

    /// Tells the observer how many rows of a stage are done.
    pub(crate) fn rows(&self, stage: &str) -> ProgressSink {
        let (observer, stage) = (Arc::clone(&self.observer), stage.to_owned());
        Arc::new(move |Progress { rows, total, .. }| {
            observer.notice(&RunEvent::Rows {
                stage: stage.clone(),
                done: rows,
                total,
            });
        })
    }

    pub(crate) fn write_report(&self, write: impl FnOnce(&mut ReportInput)) {
        write(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A rejection that points at a place in the pipeline file.
    pub(crate) fn rejected_at(&self, path: &str, message: &str, help: Option<String>) -> Stop {
        let problem = self.pipeline.problem_at(path, message, help);
        let help = problem
            .help
            .as_ref()
            .map(|help| format!("; {help}"))
            .unwrap_or_default();
        let (name, line, column) = (self.pipeline.source.name(), problem.line, problem.column);
        Stop::Rejected(vec![format!(
            "{message}{help} ({path}, {name}:{line}:{column})"
        )])
    }
}

/// An output from its JSON text, which also has its digest.
fn read<T: Output>(stage: &str, text: &str, cached: bool) -> Result<Kept<T>, Stop> {
    let output = serde_json::from_str(text);
    let output = output.map_err(|error| Stop::host(stage, format!("a kept output: {error}")))?;
    Ok(Kept {
        output,
        digest: Digest::of(text.as_bytes()),
        cached,
    })
}

fn record_of(stage: &str, seconds: f64, notes: StageNotes) -> StageRecord {
    StageRecord {
        stage: stage.to_owned(),
        status: StageStatus::Done,
        key: notes.key,
        output: notes.output,
        cached: notes.cached,
        seconds,
        rows_in: notes.rows_in,
        rows_out: notes.rows_out,
        rows_quarantined: notes.rows_quarantined,
        message: notes.message,
    }
}

fn record_of_stop(stage: &str, seconds: f64, stop: &Stop) -> StageRecord {
    let status = match stop {
        Stop::Rejected(_) => StageStatus::Rejected,
        Stop::Failed(_) => StageStatus::Failed,
    };
    let mut record = record_of(stage, seconds, StageNotes::default());
    record.status = status;
    record.message = stop.to_string();
    record
}

impl Stop {
    /// Sorts an error into what a plugin or the data is to blame for, and what the host is.
    pub(crate) fn of(stage: &str, error: &(dyn Error + 'static)) -> Stop {
        let message = chain(error);
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(call) = error.downcast_ref::<CallError>() {
                return match call {
                    CallError::Host { .. } => Stop::host(stage, message),
                    _ => Stop::Rejected(vec![message]),
                };
            }
            if error.is::<BlobError>() || error.is::<std::io::Error>() {
                return Stop::host(stage, message);
            }
            cause = error.source();
        }
        Stop::Rejected(vec![message])
    }

    /// Something of the host that has no better name.
    pub(crate) fn host(stage: &str, message: String) -> Stop {
        Stop::Failed(RunError::Host {
            stage: stage.to_owned(),
            message,
        })
    }

    pub(crate) fn rejected(reason: impl Into<String>) -> Stop {
        Stop::Rejected(vec![reason.into()])
    }
}

impl std::fmt::Display for Stop {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Stop::Rejected(reasons) => formatter.write_str(&reasons.join("; ")),
            Stop::Failed(error) => error.fmt(formatter),
        }
    }
}

/// An error with its causes, outermost first. A cause that the message already says is left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

impl From<RunError> for Stop {
    fn from(error: RunError) -> Stop {
        Stop::Failed(error)
    }
}

macro_rules! fails_the_run {
    ($($error:ty),+) => {
        $(impl From<$error> for Stop {
            fn from(error: $error) -> Stop {
                Stop::Failed(error.into())
            }
        })+
    };
}

fails_the_run!(StateError, RegistryError, AuditError, BlobError);

impl From<ConductError> for Stop {
    fn from(error: ConductError) -> Stop {
        match error.is_refusal() {
            true => Stop::Rejected(vec![chain(&error)]),
            false => Stop::Failed(error.into()),
        }
    }
}

impl From<LoadError> for Stop {
    fn from(error: LoadError) -> Stop {
        match error {
            LoadError::Audit { .. } | LoadError::Unrecorded { .. } => {
                Stop::host("load", chain(&error))
            }
            _ => Stop::Rejected(vec![chain(&error)]),
        }
    }
}
