//! `sandcast runs`: the runs so far.

use clap::{Args, Subcommand};
use sandcast_audit::RunId;

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast runs                                all of them, the newest first
  sandcast runs show                           the newest: what came in, what was judged, and how
  sandcast runs show 20261121-201530-4f3a9c
  sandcast runs show --json | jq .gate";

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
    let _ = (
        &arguments.action,
        state::nearest(global.state.as_deref())?,
        output,
    );
    unimplemented!()
}
