//! `sandcast schema`: the JSON Schemas of the files that people write, and of the audit log that they read.

use clap::{Args, ValueEnum};

use crate::{
    failure::{Exit, Failure},
    output::Output,
};

const EXAMPLES: &str = "\
Examples:
  sandcast schema > pipeline.schema.json
  sandcast schema ceiling > ceiling.schema.json
  sandcast schema trust > trust.schema.json
  sandcast schema entry > entry.schema.json         a line of the audit log, with every event

An editor with a YAML language server completes and checks pipeline files with it when their first
line is:
  # yaml-language-server: $schema=pipeline.schema.json";

/// Print the JSON Schema of pipeline files, or of another file
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SchemaArguments {
    /// Of which file
    #[arg(value_enum, default_value_t = Which::Pipeline)]
    file: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// A pipeline
    Pipeline,
    /// What pipelines may grant at most
    Ceiling,
    /// Who may sign plugins on a host
    Trust,
    /// A line of the audit log
    Entry,
}

pub(crate) fn execute(arguments: &SchemaArguments, output: &Output) -> Result<Exit, Failure> {
    let schema = match arguments.file {
        Which::Pipeline => sandcast_factory::config::schema(),
        Which::Ceiling => sandcast_factory::config::ceiling_schema(),
        Which::Trust => sandcast_factory::config::trust_schema(),
        Which::Entry => sandcast_audit::entry_schema(),
    };
    output.json(&schema)?;
    Ok(Exit::Done)
}
