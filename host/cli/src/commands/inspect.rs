//! `sandcast inspect`: what a plugin asks for, imports, was granted and used.

use clap::Args;

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
};

const EXAMPLES: &str = "\
Examples:
  sandcast inspect connector.wasm              what it asks for, and what its binary imports
  sandcast inspect 20261121-201530-4f3a9c      the plugins of a run: asks for, imports, granted, used
  sandcast inspect credit-risk@champion        the plugins behind a model

Four columns: what the manifest asks for and why; what the binary really imports; what the pipeline
granted; what was used, from the host's own ledger. A plugin that imports what it does not ask for,
or asks for what it never uses, is worth a question to its vendor.";

/// Show what a plugin asks for, imports, is granted and has used
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArguments {
    /// A component file, a plugin's crate folder, a run, or a model[@alias or @version]
    target: String,
}

pub(crate) fn execute(
    arguments: &InspectArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let _ = (&arguments.target, global, output);
    unimplemented!()
}
