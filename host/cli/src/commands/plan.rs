//! `sandcast plan`: what `run` would do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use sandcast_access::{Action, Resource};
use sandcast_factory::{Pipeline, Plan, PlanError, plan::PlannedPlugin};
use serde::Serialize;

use crate::{
    access::Need,
    arguments::GlobalArguments,
    commands::{approvals, build::shown},
    failure::{Exit, Failure},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast plan                            of pipeline.yaml in this folder
  sandcast plan examples/credit-risk       of the pipeline.yaml in that one
  sandcast plan biased.yaml --json | jq '.plugins[].grants'
  sandcast plan --ceiling ceiling.yaml --ceiling-key operator.example+1f2e3d4c+AQ...

Nothing runs and no data is read: the pipeline file and the plugins' own metadata say it all. The
plan names each stage, the plugin that runs it by digest, and what that plugin is granted. Exit code 1
says that a plugin would be refused, or that nobody has approved yet what it is granted.";

/// Show what a run would do, with every plugin, digest and grant
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlanArguments {
    /// A pipeline file, or a folder with a pipeline.yaml
    #[arg(default_value = ".")]
    pipeline: PathBuf,
}

impl PlanArguments {
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        // One that cannot be read is told of by the command.
        let pipeline = Pipeline::load(&self.pipeline).ok()?;
        let folder = state::beside(&self.pipeline, global.state.as_deref());
        let resource = Resource::pipeline(&pipeline.sections.name);
        Some(Need::new(folder, Action::Plan, resource))
    }
}

/// A plan, and what of it a run is refused for.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    /// What plugins are granted beyond what a second person has approved.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    not_approved: &'a BTreeMap<String, Vec<String>>,
}

pub(crate) fn execute(
    arguments: &PlanArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let rules = global.operator()?;
    let pipeline = Pipeline::load(&arguments.pipeline).map_err(Failure::rejected)?;
    let folder = state::beside(&arguments.pipeline, global.state.as_deref());
    let plan =
        sandcast_factory::plan_in(&folder, &pipeline, &rules).map_err(|error| match error {
            PlanError::State(_) => Failure::from(error),
            error => Failure::from(error).into_rejection(),
        })?;
    let waiting = approvals::not_approved(&folder, &plan)?;
    if output.wants_json() {
        output.json(&Told {
            plan: &plan,
            not_approved: &waiting,
        })?;
    } else {
        output.text(&plan)?;
    }
    for (plugin, grants) in &waiting {
        output.warn(format_args!(
            "{plugin} is granted more than was approved, so a run is refused: {}",
            grants.join(", ")
        ));
    }
    if !waiting.is_empty() {
        output.note(format_args!(
            "`sandcast approvals widen {}` asks somebody else to approve it",
            shown(&arguments.pipeline)
        ));
    }
    let refused = plan.plugins.iter().any(PlannedPlugin::is_refused) || !waiting.is_empty();
    Ok(if refused { Exit::Rejected } else { Exit::Done })
}
