//! `sandcast run`: from files to a registered model.

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
  sandcast run --build examples/credit-risk     build the plugins, then run its pipeline.yaml
  sandcast run examples/credit-risk/biased.yaml the gate refuses this one: exit code 1
  sandcast run --fresh                          do every stage again, whatever is in the cache
  sandcast run --json | jq .evaluation.metrics

A stage whose input did not change since an earlier run is not done again. A run that was cut off,
however hard, goes on at the stage where it was when the same command is given again.";

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
    /// Where tensor programs run: auto, cpu, cuda, cuda:1
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads of tensor programs [default: one per core]; the numbers do not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<std::num::NonZeroUsize>,
}

pub(crate) async fn execute(
    arguments: &RunArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let _ = (state::pipeline_file(&arguments.pipeline)?, global, output);
    unimplemented!()
}
