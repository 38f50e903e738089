//! `sandcast models`: the registry.

use clap::{Args, Subcommand};

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast models                                   every model, its versions and aliases
  sandcast models show credit-risk                  the newest version: metrics, lineage, features
  sandcast models show credit-risk@champion --json
  sandcast models alias credit-risk champion 2      go back to version 2; the audit log says so

Models get here by passing the gate of a run, and in no other way.";

/// List registered models, show one, or move an alias
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    action: Option<ModelsAction>,
}

#[derive(Debug, Subcommand)]
enum ModelsAction {
    /// List them
    List,
    /// Show a version with its metrics and lineage
    Show {
        /// name, name@alias or name@version
        model: String,
    },
    /// Point an alias to a version
    Alias {
        /// The model
        model: String,
        /// The alias, such as champion
        alias: String,
        /// The version
        version: u64,
    },
}

pub(crate) fn execute(
    arguments: &ModelsArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let _ = (
        &arguments.action,
        state::nearest(global.state.as_deref())?,
        output,
    );
    unimplemented!()
}
