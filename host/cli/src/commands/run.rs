//! `sandcast run`: from files to a registered model.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use sandcast_access::{Action, Resource};
use sandcast_factory::{
    CHECKPOINT_EVERY, Observer, Pipeline, RunError, RunOptions, RunOutcome, Workspace,
};
use tokio_util::sync::CancellationToken;

use crate::{
    access,
    arguments::{DeviceArguments, GlobalArguments},
    failure::{Exit, Failure},
    output::Output,
    state, summary,
    watcher::Watcher,
};

use super::{
    approvals,
    build::{build_pipeline, shown},
};

const EXAMPLES: &str = "\
Examples:
  sandcast run --build examples/credit-risk     build the plugins, then run its pipeline.yaml
  sandcast run examples/credit-risk/biased.yaml the gate refuses this one: exit code 1
  sandcast run --fresh                          do every stage again, whatever was kept
  sandcast run --json | jq .report.evaluation.metrics

A stage whose input did not change since an earlier run is not done again. A run that was cut off,
however hard, goes on at the stage where it was when the same command is given again; a training, at
the step where it was kept last, and to the same model.";

/// Run a pipeline: connect, validate, train, evaluate, gate, register
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArguments {
    /// A pipeline file, or a folder with a pipeline.yaml
    #[arg(default_value = ".")]
    pipeline: PathBuf,
    /// Build the plugins that the pipeline names by their source folder first
    #[arg(long)]
    build: bool,
    /// Do every stage again
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    device: DeviceArguments,
    /// Keep a training that goes on every so many seconds, so that one that is cut off goes on from
    /// there; 0 is never
    #[arg(long, value_name = "SECONDS", default_value_t = CHECKPOINT_EVERY.as_secs())]
    checkpoint_seconds: u64,
}

pub(crate) async fn execute(
    arguments: &RunArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    // Before a plugin is built, which runs code of its vendor.
    let sandbox = arguments.device.sandbox(global)?;
    let pipeline = Pipeline::load(&arguments.pipeline).map_err(Failure::rejected)?;
    let folder = state::beside(&arguments.pipeline, global.state.as_deref());
    let resource = Resource::pipeline(&pipeline.sections.name);
    let digest = Some(pipeline.digest);
    let allowed = access::demand(global, &folder, Action::Run, &resource, digest).await?;
    if arguments.build {
        build_pipeline(&pipeline, output)?;
    }
    let workspace = Workspace::open_with(&folder, sandbox)?;

    let watcher = Arc::new(Watcher::new(output));
    let cancel = CancellationToken::new();
    let options = RunOptions {
        observer: Arc::clone(&watcher) as Arc<dyn Observer>,
        cancel: cancel.clone(),
        user: match allowed.store() {
            Some(_) => Some(allowed.who().to_owned()),
            None => std::env::var("USER").ok(),
        },
        fresh: arguments.fresh,
        checkpoint_every: (arguments.checkpoint_seconds > 0)
            .then(|| Duration::from_secs(arguments.checkpoint_seconds)),
        check: approvals::check_of_grants(&allowed, &arguments.pipeline)?,
        promotion: approvals::ask_to_promote(&allowed, &workspace)?,
    };
    let running = sandcast_factory::run(&workspace, &pipeline, options);
    tokio::pin!(running);
    let outcome = tokio::select! {
        outcome = &mut running => outcome,
        _ = tokio::signal::ctrl_c() => {
            output.note("stopping; what is done is kept (Ctrl-C again to stop at once)");
            cancel.cancel();
            tokio::select! {
                outcome = &mut running => outcome,
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Unexpected),
            }
        }
    };
    watcher.end();
    let outcome = outcome.map_err(|error| match error {
        RunError::Plan(_) | RunError::NotApproved(_) => Failure::from(error).into_rejection(),
        error => error.into(),
    })?;
    tell(&workspace, &outcome, output)
}

/// Prints the result of a run.
fn tell(workspace: &Workspace, outcome: &RunOutcome, output: &Output) -> Result<Exit, Failure> {
    let exit = match outcome {
        RunOutcome::Completed(_) => Exit::Done,
        RunOutcome::Rejected(_) => Exit::Rejected,
    };
    if output.wants_json() {
        output.json(outcome)?;
        return Ok(exit);
    }
    output.note("");
    output.line(summary::of_run(outcome.report()))?;
    output.line("")?;
    if let RunOutcome::Completed(completed) = outcome
        && let Some(approval) = &completed.approval
    {
        output.line(format_args!(
            "asked   {approval}: the alias moves once somebody else says `sandcast approvals approve \
             {approval} --reason TEXT`"
        ))?;
    }
    if let Some(path) = outcome.report_path() {
        output.line(format_args!("report  {}", shown(path)))?;
    }
    for (what, command) in next_steps(workspace, outcome) {
        output.line(format_args!("{what:<6}  {command}"))?;
    }
    Ok(exit)
}

/// What a person may want to do now, as commands that work where they stand.
fn next_steps(workspace: &Workspace, outcome: &RunOutcome) -> Vec<(&'static str, String)> {
    let state = shown(workspace.folder());
    match outcome {
        RunOutcome::Completed(completed) => {
            let model = &completed.version.model;
            vec![
                (
                    "ask",
                    format!("sandcast predict --state {state} --model {model} --input ROWS.json"),
                ),
                ("serve", format!("sandcast serve --state {state} {model}")),
            ]
        }
        RunOutcome::Rejected(_) => {
            vec![("data", format!("sandcast data --state {state}"))]
        }
    }
}
