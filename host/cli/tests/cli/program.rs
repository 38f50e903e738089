//! The program, started on a state folder.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A command on a state, from the root of the repository.
pub(crate) fn sandcast(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcast"));
    command
        .args(arguments)
        .arg("--state")
        .arg(state)
        .current_dir(repository());
    command
}

pub(crate) fn output(state: &Path, arguments: &[&str]) -> Output {
    sandcast(state, arguments).output().expect("it starts")
}
