//! Processes of their own for what works on a guest's bytes: one compiles a component and is gone.
//!
//! The host starts itself again, with nothing of its environment, and talks to it over a pipe. Such a
//! process confines itself before it looks at a single byte of a guest, and what it says is held to
//! bounds as what a guest says is.

mod apart;
mod attempts;
pub(crate) mod away;
mod compiler;
mod confine;
mod frame;
mod functions;
mod order;
mod wasi;
mod wire;
mod worker;

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use apart::{Apart, GRACE_APART, MAX_ANSWER_BYTES, Told, Workshop, gone_in_words, tell};
pub use attempts::{Attempt, attempts};
pub(crate) use compiler::{CompileBounds, CompileFailure, OutOfProcessorTime, compile};
pub(crate) use functions::{Halt, link_apart};
pub(crate) use order::LogLine;
pub(crate) use order::{Opening, Outcome, Question, Reply};
pub(crate) use wire::{Reader, Wire, bytes_of, value_of};

/// The argument that tells such a process from a command; nobody types it.
const ARGUMENT: &str = "sandbox-process";

/// What is started for a process of its own: a program whose `main` begins with [`enter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessProgram {
    path: PathBuf,
}

impl ProcessProgram {
    /// The program that runs, also where its file was replaced since.
    ///
    /// # Errors
    /// When the system does not say which file it is.
    pub fn this() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        let path = PathBuf::from("/proc/self/exe");
        #[cfg(not(target_os = "linux"))]
        let path = env::current_exe()?;
        Ok(Self { path })
    }

    /// The program in a file.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Starts it, with a pipe in and a pipe out.
    fn start(&self, task: &str) -> io::Result<Child> {
        self.command(task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// Nothing of the host's environment goes along: secrets may be there.
    fn command(&self, task: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.args([ARGUMENT, task]).env_clear().current_dir("/");
        command
    }
}

/// Does the work of a process of its own, if this is one. `main` of a [`ProcessProgram`] calls this
/// before anything else, while there is one thread.
#[must_use]
pub fn enter() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next()? != OsStr::new(ARGUMENT) {
        return None;
    }
    let served = match arguments.next().as_deref().and_then(OsStr::to_str) {
        Some(attempts::TASK) => attempts::serve(),
        Some(compiler::TASK) => compiler::serve(),
        Some(worker::TASK) => worker::serve(),
        _ => Err(io::Error::other("there is no such work for a process")),
    };
    Some(match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    })
}

#[expect(
    clippy::print_stderr,
    reason = "the host reads what such a process says last"
)]
fn say(words: &str) {
    eprintln!("{words}");
}

/// Ends a process from elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    child: Option<Child>,
    stopped: bool,
}

impl Stop {
    /// Ends the process, or the one that would be started next.
    pub(crate) fn stop(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.stopped = true;
        if let Some(child) = &mut held.child {
            // It may have ended by itself.
            let _ = child.kill();
        }
    }

    /// Keeps a process that was started; ended at once where it was to be ended before.
    fn keep(&self, child: Child) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let stopped = held.stopped;
        let child = held.child.insert(child);
        if stopped {
            let _ = child.kill();
        }
    }

    fn take(&self) -> Option<Child> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.child.take()
    }
}
