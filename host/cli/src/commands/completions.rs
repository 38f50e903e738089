//! `sandcast completions`: what a shell needs to complete the commands.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::{
    arguments::Arguments,
    failure::{Exit, Failure},
    output::Output,
};

const EXAMPLES: &str = "\
Examples:
  sandcast completions bash > ~/.local/share/bash-completion/completions/sandcast
  sandcast completions zsh > \"${fpath[1]}/_sandcast\"
  sandcast completions fish > ~/.config/fish/completions/sandcast.fish";

/// Print the completions of a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

pub(crate) fn execute(arguments: &CompletionsArguments, output: &Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut Arguments::command(),
        "sandcast",
        &mut script,
    );
    output.bytes(&script)?;
    Ok(Exit::Done)
}
