//! `sandcast plan`: what `run` would do.

use std::path::PathBuf;

use clap::Args;

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast plan                            of pipeline.yaml in this folder
  sandcast plan examples/credit-risk       of the pipeline.yaml in that one
  sandcast plan biased.yaml --json | jq '.plugins[].grants'

Nothing runs and nothing is read but the pipeline file and the plugins' own metadata. The plan says
each stage, the plugin that runs it by digest, and what that plugin is granted.";

/// Show what a run would do, with every plugin, digest and grant
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PlanArguments {
    /// A pipeline file, or a folder with a pipeline.yaml
    #[arg(default_value = ".")]
    pipeline: PathBuf,
}

pub(crate) fn execute(
    arguments: &PlanArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let _ = (state::pipeline_file(&arguments.pipeline)?, global, output);
    unimplemented!()
}
