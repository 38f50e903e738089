//! Programs that this crate runs, and the lines they write.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::BuildError;

/// A line of a running program.
pub(crate) enum Line {
    Out(String),
    Err(String),
}

/// Runs a program and hands over its lines as they come.
pub(crate) fn run(
    command: &mut Command,
    line: &mut dyn FnMut(Line),
) -> Result<ExitStatus, BuildError> {
    let mut child = spawn(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )?;
    let (sender, receiver) = mpsc::channel();
    let readers = [
        child
            .stdout
            .take()
            .map(|out| forward(out, Line::Out, sender.clone())),
        child
            .stderr
            .take()
            .map(|err| forward(err, Line::Err, sender.clone())),
    ];
    drop(sender);
    for received in receiver {
        line(received);
    }
    for reader in readers.into_iter().flatten() {
        // A reader only reads and sends; if it panicked, its lines are missing and nothing else.
        let _ = reader.join();
    }
    child.wait().map_err(|source| BuildError::Program {
        program: name(command),
        source,
    })
}

/// Runs a program silently for at most so long; `None` when it did not end by then.
pub(crate) fn run_silently(
    command: &mut Command,
    limit: Duration,
) -> Result<Option<ExitStatus>, BuildError> {
    let mut child = spawn(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )?;
    let began = Instant::now();
    loop {
        let ended = child.try_wait().map_err(|source| BuildError::Program {
            program: name(command),
            source,
        })?;
        if ended.is_some() {
            return Ok(ended);
        }
        if began.elapsed() > limit {
            // It has had its time; whether it ended in between does not matter.
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a program writes to stdout, or all it wrote to stderr when it fails.
pub(crate) fn output(command: &mut Command) -> Result<Result<String, String>, BuildError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BuildError::Program {
            program: name(command),
            source,
        })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    })
}

fn spawn(command: &mut Command) -> Result<Child, BuildError> {
    command.spawn().map_err(|source| BuildError::Program {
        program: name(command),
        source,
    })
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn forward(
    stream: impl Read + Send + 'static,
    line: fn(String) -> Line,
    sender: mpsc::Sender<Line>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(stream.read_until(b'\n', &mut bytes), Ok(count) if count > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if sender.send(line(text)).is_err() {
                return;
            }
            bytes.clear();
        }
    })
}
