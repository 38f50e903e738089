//! Carries out a plan: one stage after the other, each remembered as soon as it is done.

mod lock;
mod observer;
mod outcome;
mod report;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandcast_audit::{Event, PluginRef, RunId};
use sandcast_sandbox::Role;
use tokio_util::sync::CancellationToken;

pub use observer::{Observer, RunEvent, Unwatched};
pub use outcome::{Completed, Rejected, RunError, RunOutcome};

use crate::clock;
use crate::conduct::Response;
use crate::config::Pipeline;
use crate::plan::{Component, Plan, PlanError, plan};
use crate::registry::ApprovedMove;
use crate::report::{Outcome, ReportInput};
use crate::stages::{self, Halt, Line, Registered, Stop};
use crate::state::{RunRecord, RunStatus, StageRecord, StageStatus};
use crate::workspace::Workspace;
use lock::RunLock;

/// How to run.
#[derive(Clone)]
pub struct RunOptions {
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// Stops the run between steps when it is cancelled. The state stays whole.
    pub cancel: CancellationToken,
    /// Who asked for the run, such as `alice`; policies are told.
    pub user: Option<String>,
    /// Whether to do every stage again, even if its output is there.
    pub fresh: bool,
    /// How often a training is kept while it goes on, so that one that is cut off goes on from
    /// there; never when absent. The model does not depend on it.
    pub checkpoint_every: Option<Duration>,
    /// What must agree to the plan before anything of it is done, if something must.
    pub check: Option<PlanCheck>,
    /// What asks a second person to let the alias move, if that takes one. The alias then stays where it is.
    pub promotion: Option<AskToPromote>,
}

/// Agrees to a plan, or says why not.
pub type PlanCheck = Arc<dyn Fn(&Plan) -> Result<(), String> + Send + Sync>;

/// Asks a second person to let an alias move, and gives back the id of the request, or says why that
/// could not be.
pub type AskToPromote = Arc<dyn Fn(&ApprovedMove<'_>) -> Result<String, String> + Send + Sync>;

/// How often a training is kept while it goes on, unless somebody says otherwise.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            observer: Arc::new(Unwatched),
            cancel: CancellationToken::new(),
            user: None,
            fresh: false,
            checkpoint_every: Some(CHECKPOINT_EVERY),
            check: None,
            promotion: None,
        }
    }
}

/// Runs a pipeline from raw files to a registered model.
///
/// Stages that an earlier run has done with the same input are taken from there, also when that
/// run was killed half-way.
///
/// # Errors
/// If something of the host fails, another run goes on in the same state folder, or the run is
/// cancelled. What data, a policy, the gate or a plugin stops is a [`RunOutcome::Rejected`].
pub async fn run(
    workspace: &Workspace,
    pipeline: &Pipeline,
    options: RunOptions,
) -> Result<RunOutcome, RunError> {
    let run = RunId::generate();
    let _lock = RunLock::take(workspace.folder(), &run)?;
    let planned = prepare(pipeline);
    let plan = planned.as_ref().ok().map(|(plan, _)| plan);
    workspace
        .conduct()
        .judge_left(&pipeline.sections.conduct, response_of(pipeline, plan))?;
    workspace.state().mark_interrupted()?;
    workspace.state().empty_outbox(workspace.audit())?;
    let planned = match planned {
        // There was nothing to run.
        Err(
            error @ (PlanError::NotBuilt { .. } | PlanError::Crate { .. } | PlanError::Read { .. }),
        ) => {
            return Err(RunError::Plan(error));
        }
        planned => planned,
    };
    if let (Ok((plan, _)), Some(check)) = (&planned, &options.check) {
        check(plan).map_err(RunError::NotApproved)?;
    }
    Box::pin(Attempt::begin(workspace, pipeline, run, options)?.go(planned)).await
}

/// What a pipeline wants done about each of its plugins. One of another pipeline is answered as the
/// plugins that have no name here are.
fn response_of<'a>(
    pipeline: &'a Pipeline,
    plan: Option<&'a Plan>,
) -> impl Fn(&PluginRef) -> Response + 'a {
    let sections = &pipeline.sections;
    move |plugin| {
        let planned = plan.into_iter().flat_map(|plan| &plan.plugins);
        let same = planned.filter(|planned| planned.plugin.digest == plugin.digest);
        let by_name = same.filter_map(|planned| {
            let section = sections.plugins.get(&planned.name)?;
            Some(sections.conduct.response_to(&planned.name, section.role))
        });
        let role = Role::ALL.into_iter().find(|it| it.as_str() == plugin.role);
        let by_role = || role.map(|role| sections.conduct.response_to("", role));
        // The same component under two names: the stricter counts.
        by_name.max().or_else(by_role).unwrap_or_default()
    }
}

fn prepare(pipeline: &Pipeline) -> Result<(Plan, BTreeMap<String, Component>), PlanError> {
    let components = Component::read_all(pipeline)?;
    Ok((plan(pipeline, &components)?, components))
}

/// One run, from its first record to its last.
struct Attempt<'a> {
    workspace: &'a Workspace,
    pipeline: &'a Pipeline,
    options: RunOptions,
    record: RunRecord,
    began: Instant,
}

impl<'a> Attempt<'a> {
    fn begin(
        workspace: &'a Workspace,
        pipeline: &'a Pipeline,
        run: RunId,
        options: RunOptions,
    ) -> Result<Attempt<'a>, RunError> {
        let record = RunRecord {
            run,
            pipeline: pipeline.sections.name.clone(),
            config: pipeline.digest,
            seed: pipeline.sections.seed,
            started: clock::now(),
            finished: None,
            status: RunStatus::Running,
            stage: None,
            reasons: Vec::new(),
            model: None,
            version: None,
            stages: Vec::new(),
        };
        workspace.audit().keep(&pipeline.canonical)?;
        workspace.state().begin_run(&record)?;
        workspace.state().empty_outbox(workspace.audit())?;
        Ok(Attempt {
            workspace,
            pipeline,
            options,
            record,
            began: Instant::now(),
        })
    }

    async fn go(
        self,
        planned: Result<(Plan, BTreeMap<String, Component>), PlanError>,
    ) -> Result<RunOutcome, RunError> {
        let (plan, components) = match planned {
            Ok(planned) => planned,
            Err(error) => return self.refuse_plugin(error),
        };
        let report = self.report(&plan.sandcast_version);
        let line = Line {
            workspace: self.workspace,
            pipeline: self.pipeline,
            plan: &plan,
            components: &components,
            run: self.record.run.clone(),
            user: self.options.user.clone(),
            observer: Arc::clone(&self.options.observer),
            cancel: self.options.cancel.clone(),
            fresh: self.options.fresh,
            checkpoint_every: self.options.checkpoint_every,
            promotion: self.options.promotion.clone(),
            report: Mutex::new(report),
        };
        line.observer.notice(&RunEvent::Started {
            run: line.run.clone(),
            pipeline: line.sections().name.clone(),
            stages: plan
                .stages
                .iter()
                .map(|planned| planned.stage.clone())
                .collect(),
        });
        let result = stages::all(&line).await;
        let mut report =
            std::mem::take(&mut *line.report.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = report::add_usage(&line, &mut report) {
            line.note(
                "report",
                format!("the report lacks the usage of plugins: {error}"),
            );
        }
        self.judge(&line, &mut report);
        self.end(result, report)
    }

    /// Holds what the plugins did against what they usually do. A run is what it is without; what
    /// cannot be judged now is judged when the next run begins, which does not begin without.
    fn judge(&self, line: &Line<'_>, report: &mut ReportInput) {
        const STAGE: &str = "conduct";
        let rules = &self.pipeline.sections.conduct;
        let judged = self.workspace.conduct().judge(
            &self.record.run,
            rules,
            response_of(self.pipeline, Some(line.plan)),
        );
        match judged {
            Ok(judged) => {
                for warning in judged.warnings() {
                    line.observer.notice(&RunEvent::Warning {
                        stage: STAGE.to_owned(),
                        message: warning,
                    });
                }
                report::add_conduct(&judged, report);
            }
            Err(error) => {
                let error = stages::chain(&error);
                line.note(
                    STAGE,
                    format!("what the plugins did was not judged: {error}"),
                );
            }
        }
    }

    fn report(&self, sandcast_version: &str) -> ReportInput {
        ReportInput {
            run: self.record.run.to_string(),
            pipeline: self.record.pipeline.clone(),
            started: self.record.started.clone(),
            sandcast_version: sandcast_version.to_owned(),
            config_digest: self.record.config.to_string(),
            seed: self.record.seed,
            ..ReportInput::default()
        }
    }

    /// A component that is none, or another than the pipeline means.
    fn refuse_plugin(self, error: PlanError) -> Result<RunOutcome, RunError> {
        const STAGE: &str = "load";
        let reason = stages::chain(&error);
        if let Some(name) = error.plugin() {
            let (name, reason) = (name.to_owned(), reason.clone());
            let refused = Event::PluginRefused {
                name,
                digest: error.digest(),
                reason,
            };
            self.workspace.audit().append(refused)?;
        }
        self.workspace.audit().append(Event::StageFailed {
            run: self.record.run.clone(),
            stage: STAGE.to_owned(),
            message: reason.clone(),
        })?;
        let record = StageRecord {
            stage: STAGE.to_owned(),
            status: StageStatus::Rejected,
            key: None,
            output: None,
            cached: false,
            seconds: self.began.elapsed().as_secs_f64(),
            rows_in: None,
            rows_out: None,
            rows_quarantined: None,
            message: reason.clone(),
        };
        self.workspace
            .state()
            .add_stage(&self.record.run, &record)?;
        self.options
            .observer
            .notice(&RunEvent::StageFinished { record });
        let report = self.report(env!("CARGO_PKG_VERSION"));
        let stop = Stop::Rejected(vec![reason]);
        self.end(
            Err(Halt {
                stage: STAGE.to_owned(),
                stop,
            }),
            report,
        )
    }

    /// Writes down what the run came to: the report, then the record with its entry of the log.
    fn end(
        mut self,
        result: Result<Registered, Halt>,
        mut report: ReportInput,
    ) -> Result<RunOutcome, RunError> {
        report.seconds = self.began.elapsed().as_secs_f64();
        report.outcome = told(&result);
        let page = self.workspace.report_path(&self.record.run);
        let report_path = match report::write(&page, &report) {
            Ok(path) => Some(path),
            Err(error) => {
                let message = format!("the report {} cannot be written: {error}", page.display());
                tracing::warn!("{message}");
                let stage = "report".to_owned();
                self.options
                    .observer
                    .notice(&RunEvent::Note { stage, message });
                None
            }
        };
        let report = Box::new(report);
        let run = self.record.run.clone();
        let (status, outcome) = match result {
            Ok(Registered {
                registration,
                alias,
                approval,
            }) => {
                self.record.model = Some(registration.version.model.clone());
                self.record.version = Some(registration.version.version);
                let completed = Completed {
                    run,
                    version: registration.version,
                    new: registration.new,
                    alias,
                    alias_moved: registration.alias_moved,
                    approval,
                    report,
                    report_path,
                };
                (
                    RunStatus::Completed,
                    Ok(RunOutcome::Completed(Box::new(completed))),
                )
            }
            Err(Halt {
                stage,
                stop: Stop::Rejected(reasons),
            }) => {
                self.record.stage = Some(stage.clone());
                self.record.reasons.clone_from(&reasons);
                let rejected = Rejected {
                    run,
                    stage,
                    reasons,
                    report,
                    report_path,
                };
                (RunStatus::Rejected, Ok(RunOutcome::Rejected(rejected)))
            }
            Err(Halt {
                stage,
                stop: Stop::Failed(error),
            }) => {
                self.record.stage = Some(stage);
                self.record.reasons = vec![stages::chain(&error)];
                let status = match error {
                    RunError::Cancelled { .. } => RunStatus::Cancelled,
                    _ => RunStatus::Failed,
                };
                (status, Err(error))
            }
        };
        self.record.status = status;
        match (self.write_end(), outcome) {
            // What went wrong first is what is told.
            (Err(second), Err(first)) => {
                tracing::error!("cannot record the end of a failed run: {second}");
                Err(first)
            }
            (Err(error), Ok(_)) => Err(error),
            (Ok(()), outcome) => outcome,
        }
    }

    fn write_end(&mut self) -> Result<(), RunError> {
        self.record.finished = Some(clock::now());
        // The row and its entry are one transaction, so that a run that ended here is never said to
        // have been interrupted as well.
        self.workspace.state().end_run(&self.record)?;
        Ok(self
            .workspace
            .state()
            .empty_outbox(self.workspace.audit())?)
    }
}

/// The outcome as the report tells it.
fn told(result: &Result<Registered, Halt>) -> Outcome {
    match result {
        Ok(registered) => Outcome::Approved {
            model: registered.registration.version.model.clone(),
            version: registered.registration.version.version,
            alias: registered.alias.clone(),
            approval: registered.approval.clone(),
        },
        Err(Halt {
            stage,
            stop: Stop::Rejected(reasons),
        }) if stage == "gate" => Outcome::Refused {
            reasons: reasons.clone(),
        },
        Err(Halt { stage, stop }) => Outcome::Failed {
            stage: stage.clone(),
            message: stop.to_string(),
        },
    }
}
