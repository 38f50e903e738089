//! `sandcast schema`: the JSON Schema of a pipeline file.

use clap::Args;

use crate::{
    failure::{Exit, Failure},
    output::Output,
};

const EXAMPLES: &str = "\
Examples:
  sandcast schema > pipeline.schema.json

An editor with a YAML language server completes and checks pipeline files with it when their first
line is:
  # yaml-language-server: $schema=pipeline.schema.json";

/// Print the JSON Schema of pipeline files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SchemaArguments {}

pub(crate) fn execute(_arguments: &SchemaArguments, output: &Output) -> Result<Exit, Failure> {
    output.json(&sandcast_factory::config::schema())?;
    Ok(Exit::Done)
}
