//! `sandcast build`: from a plugin's source to a component.

use std::path::PathBuf;

use clap::Args;

use crate::{
    failure::{Exit, Failure},
    output::Output,
};

const EXAMPLES: &str = "\
Examples:
  sandcast build plugins/connector-csv      one plugin from its crate folder
  sandcast build examples/credit-risk       every plugin that a pipeline names by its source folder
  sandcast build --debug .                  fast to build, slow to run, with names in traps

A component is a .wasm file with the plugin's manifest inside, so that its digest covers both. The
guest target of the Rust toolchain is installed when it is missing.";

/// Build plugins into components
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BuildArguments {
    /// Crate folders with a plugin.toml, pipeline files, or folders with a pipeline.yaml
    #[arg(default_value = ".")]
    targets: Vec<PathBuf>,
    /// Build without optimisation
    #[arg(long)]
    debug: bool,
    /// Put the components here [default: target/sandcast of the crate's workspace]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(crate) fn execute(arguments: &BuildArguments, output: &Output) -> Result<Exit, Failure> {
    let _ = (&arguments.targets, arguments.debug, &arguments.out, output);
    unimplemented!()
}
