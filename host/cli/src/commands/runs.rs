//! `sandcast runs`: the runs so far.

use clap::{Args, Subcommand};
use console::style;
use sandcast_audit::RunId;
use sandcast_factory::{RunRecord, RunStatus, StageStatus, Workspace};

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
    table::{Table, count, seconds},
};

use super::build::shown;

const EXAMPLES: &str = "\
Examples:
  sandcast runs                                all of them, the newest first
  sandcast runs show                           the newest: stage by stage, and how it ended
  sandcast runs show 20261121-201530-4f3a9c
  sandcast runs show --json | jq .stages";

/// List the runs, or show one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunsArguments {
    #[command(subcommand)]
    action: Option<RunsAction>,
}

#[derive(Debug, Subcommand)]
enum RunsAction {
    /// List them, the newest first
    List,
    /// Show one [default: the newest]
    Show {
        /// The run
        run: Option<RunId>,
    },
}

pub(crate) fn execute(
    arguments: &RunsArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let workspace = Workspace::open(&state::nearest(global.state.as_deref())?)?;
    match &arguments.action {
        None | Some(RunsAction::List) => list(&workspace.runs()?, output)?,
        Some(RunsAction::Show { run }) => {
            let run = match run {
                Some(run) => run.clone(),
                None => workspace
                    .runs()?
                    .first()
                    .map(|record| record.run.clone())
                    .ok_or_else(|| {
                        Failure::rejected_because("there is no run yet", "`sandcast run` makes one")
                    })?,
            };
            let record = workspace.run_record(&run)?.ok_or_else(|| {
                Failure::rejected_because(
                    format_args!("there is no run {run} in {}", workspace.folder().display()),
                    "`sandcast runs` lists those there are",
                )
            })?;
            show(&workspace, &record, output)?;
        }
    }
    Ok(Exit::Done)
}

fn list(runs: &[RunRecord], output: &Output) -> Result<(), Failure> {
    if output.wants_json() {
        return output.json(&runs);
    }
    let mut table = Table::with_headings(["run", "pipeline", "seed", "ended", "what came of it"])
        .numbers_at(&[2]);
    for run in runs {
        table.row([
            run.run.to_string(),
            run.pipeline.clone(),
            run.seed.to_string(),
            status(run.status),
            what_came_of(run),
        ]);
    }
    if runs.is_empty() {
        output.note("nothing was run here yet; `sandcast run` does");
    } else {
        output.line(table)?;
    }
    Ok(())
}

fn status(status: RunStatus) -> String {
    let text = style(status.as_str().to_owned());
    match status {
        RunStatus::Completed => text.green(),
        RunStatus::Rejected | RunStatus::Failed => text.red(),
        _ => text.yellow(),
    }
    .to_string()
}

fn what_came_of(run: &RunRecord) -> String {
    match (&run.model, run.version) {
        (Some(model), Some(version)) => format!("{model} version {version}"),
        _ => match (&run.stage, run.reasons.first()) {
            (Some(stage), Some(reason)) => format!("{stage}: {reason}"),
            (Some(stage), None) => stage.clone(),
            (None, Some(reason)) => reason.clone(),
            (None, None) => String::new(),
        },
    }
}

fn show(workspace: &Workspace, run: &RunRecord, output: &Output) -> Result<(), Failure> {
    let report = workspace.report_path(&run.run);
    if output.wants_json() {
        let mut value = serde_json::to_value(run)?;
        value["report"] = report
            .is_file()
            .then(|| report.display().to_string())
            .into();
        return output.json(&value);
    }
    output.line(format_args!(
        "{}  run {}  seed {}  {}",
        style(&run.pipeline).bold(),
        run.run,
        run.seed,
        status(run.status)
    ))?;
    let mut table =
        Table::with_headings(["stage", "", "time", "rows in", "rows out", "set aside", ""])
            .numbers_at(&[2, 3, 4, 5]);
    let rows = |rows: Option<u64>| rows.map(count).unwrap_or_default();
    for stage in &run.stages {
        let mark = match stage.status {
            StageStatus::Done if stage.cached => style("kept").dim(),
            StageStatus::Done => style("done").green(),
            StageStatus::Rejected => style("said no").red(),
            StageStatus::Failed => style("failed").red(),
        };
        table.row([
            stage.stage.clone(),
            mark.to_string(),
            seconds(stage.seconds),
            rows(stage.rows_in),
            rows(stage.rows_out),
            rows(stage.rows_quarantined),
            stage.message.clone(),
        ]);
    }
    output.line(table)?;
    for reason in &run.reasons {
        output.line(format_args!("  {reason}"))?;
    }
    if report.is_file() {
        output.line(format_args!("report  {}", shown(&report)))?;
    }
    Ok(())
}
