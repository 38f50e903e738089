//! `sandcast doctor`: whether this machine has what it takes.

use clap::Args;

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
};

const EXAMPLES: &str = "\
Examples:
  sandcast doctor
  sandcast doctor --json | jq '.checks[] | select(.status != \"good\")'

Exit code 1 says that something must be mended before a pipeline can run here; what is only slower or
absent without harm (a GPU, say) is told and does not count.";

/// Check the toolchain, the state folder, the sandbox and the devices of this machine
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArguments {}

pub(crate) fn execute(
    arguments: &DoctorArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let _ = (arguments, global, output);
    unimplemented!()
}
