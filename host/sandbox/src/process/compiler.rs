//! Compiles components in a process of its own.
//!
//! A component can be written to take a compiler all the memory and all the time there is, and a
//! compiler of untrusted input is the largest piece of code that a guest's bytes reach. In a process
//! of its own it is ended when it is late, it has the memory it was given, and it can neither open
//! files nor reach the network.

use std::io::{self, Read, Write};
use std::process::ExitStatus;
use std::thread;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::confine::Confinement;
use super::{ProcessProgram, Stop, frame};
use crate::{engine, text};

pub(super) const TASK: &str = "compile";

/// Bytes of the description of the work.
const MAX_ORDER_BYTES: u64 = 4096;

/// Bytes that a process may say about its end.
const MAX_WORDS_BYTES: u64 = 4096;

/// Compiled code takes several times the bytes of a component; tables and data come on top.
const MAX_ARTIFACT_FACTOR: u64 = 64;
const MAX_ARTIFACT_BASE_BYTES: u64 = 64 << 20;

/// What is to be done, before the component itself.
#[derive(Serialize, Deserialize)]
struct Order {
    confinement: Confinement,
    component_bytes: u64,
}

/// What came of it; the artifact follows one that succeeded.
#[derive(Serialize, Deserialize)]
struct Answer {
    /// What the compiler has against the component.
    error: Option<String>,
}

/// What one compilation may use up. The clock is for whoever waits for it.
#[derive(Clone, Copy)]
pub(crate) struct CompileBounds {
    pub(crate) memory_bytes: u64,
    /// Of processor time, over all threads.
    pub(crate) processor_seconds: u64,
}

/// Its processor time was used up.
#[derive(Debug, Error)]
#[error("it used up {limit_seconds} s of processor time")]
pub(crate) struct OutOfProcessorTime {
    pub(crate) limit_seconds: u64,
}

/// Why there is no artifact.
#[derive(Debug, Error)]
pub(crate) enum CompileFailure {
    /// The kernel ended the process for the time that it had taken.
    #[error(transparent)]
    OutOfTime(#[from] OutOfProcessorTime),
    /// The compiler refused the component.
    #[error("{0}")]
    Refused(String),
    /// The process ended without an answer.
    #[error("its compiler, which may use {} MiB, ended with {status}{}", memory_bytes >> 20, after(words))]
    Ended {
        status: String,
        words: String,
        memory_bytes: u64,
    },
    /// There was no process to compile it in.
    #[error("a process to compile it in cannot be used: {0}")]
    Process(#[from] io::Error),
}

fn after(words: &str) -> String {
    match words {
        "" => String::new(),
        words => format!(": {words}"),
    }
}

/// Compiles a component, until it is stopped. Blocks.
pub(crate) fn compile(
    program: &ProcessProgram,
    component: &[u8],
    bounds: CompileBounds,
    stop: &Stop,
) -> Result<Vec<u8>, CompileFailure> {
    let CompileBounds {
        memory_bytes,
        processor_seconds,
    } = bounds;
    let order = Order {
        confinement: Confinement {
            memory_bytes,
            processor_seconds: Some(processor_seconds),
            ends_with_parent: true,
        },
        component_bytes: component.len() as u64,
    };
    let mut child = program.start(TASK)?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    stop.keep(child);
    let (Some(mut to), Some(mut from), Some(last_words)) = pipes else {
        return Err(io::Error::other("it has no pipes").into());
    };
    let most = component.len() as u64 * MAX_ARTIFACT_FACTOR + MAX_ARTIFACT_BASE_BYTES;
    let (answer, words) = thread::scope(|scope| {
        scope.spawn(move || {
            // Where it has ended, its answer tells more.
            let _ =
                frame::write_value(&mut to, &order).and_then(|()| frame::write(&mut to, component));
        });
        let words = scope.spawn(move || {
            let mut words = Vec::new();
            let _ = last_words.take(MAX_WORDS_BYTES).read_to_end(&mut words);
            words
        });
        let answer = take_answer(&mut from, most);
        // What it wants to say beyond that, nobody waits for.
        drop(from);
        if answer.is_err() {
            stop.stop();
        }
        (answer, words.join().unwrap_or_default())
    });
    let status = match stop.take() {
        Some(mut child) => {
            // It has said all that it has to say, and may stay for ever.
            let _ = child.kill();
            child.wait()?
        }
        None => return Err(io::Error::other("it is not there any more").into()),
    };
    match answer {
        Ok(answer) => answer.map_err(CompileFailure::Refused),
        Err(_) if is_out_of_processor_time(status) => Err(OutOfProcessorTime {
            limit_seconds: processor_seconds,
        }
        .into()),
        Err(_) => Err(CompileFailure::Ended {
            status: status.to_string(),
            words: text::sentence(&String::from_utf8_lossy(&words), 512),
            memory_bytes,
        }),
    }
}

/// Whether the kernel ended a process because its processor time was up.
fn is_out_of_processor_time(status: ExitStatus) -> bool {
    #[cfg(target_os = "linux")]
    let is_signal = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGXCPU);
    #[cfg(not(target_os = "linux"))]
    let is_signal = {
        let _ = status;
        false
    };
    is_signal
}

fn take_answer(from: &mut impl Read, most: u64) -> io::Result<Result<Vec<u8>, String>> {
    let answer: Answer = frame::read_value(from, MAX_WORDS_BYTES * 2)?;
    if let Some(error) = answer.error {
        return Ok(Err(text::sentence(&error, 1024)));
    }
    let artifact = frame::read(from, most)?.ok_or_else(frame::closed)?;
    Ok(Ok(artifact))
}

/// The process itself: confines itself, then reads the component.
pub(super) fn serve() -> io::Result<()> {
    let mut from = io::stdin().lock();
    let order: Order = frame::read_value(&mut from, MAX_ORDER_BYTES)?;
    order.confinement.apply().map_err(io::Error::other)?;
    let component = frame::read(&mut from, order.component_bytes)?.ok_or_else(frame::closed)?;
    let compiled = engine::compiler().and_then(|engine| engine.precompile_component(&component));
    let mut to = io::stdout().lock();
    match compiled {
        Ok(artifact) => {
            frame::write_value(&mut to, &Answer { error: None })?;
            frame::write(&mut to, &artifact)?;
        }
        Err(error) => {
            let error = Some(text::sentence(&format!("{error:#}"), 1024));
            frame::write_value(&mut to, &Answer { error })?;
        }
    }
    to.flush()
}
