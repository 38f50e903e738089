//! What the standard library of a guest imports without being asked: `wasi:cli` and `wasi:io`.
//!
//! It is linked to stubs: no environment, no arguments, a closed standard input; standard output
//! and error go to the log as lines; leaving ends the instance. Clocks, randomness and folders
//! that such a guest imports are linked too, and deny: see the files of those capabilities.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView};
use wasmtime_wasi::p2::bindings::cli;
use wasmtime_wasi::p2::bindings::io::error;
use wasmtime_wasi::{ResourceTable, WasiCtxBuilder, WasiView};

use super::LogLevel;
use crate::state::State;
use crate::text;

/// Bytes of output kept until they are written to the log; more are dropped.
const MAX_PENDING_BYTES: usize = 64 << 10;

/// What a guest has written to its standard output and error, until it is logged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured {
    printed: Arc<Mutex<Printed>>,
}

#[derive(Clone, Debug, Default)]
struct Printed {
    /// What is to be logged.
    pending: Vec<u8>,
    /// Bytes written, dropped ones too.
    bytes: usize,
}

impl Captured {
    fn take(&self) -> Printed {
        // The lock guards a plain buffer; a panic elsewhere leaves it usable.
        std::mem::take(&mut *self.printed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, bytes: &[u8]) {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_PENDING_BYTES.saturating_sub(printed.pending.len());
        printed
            .pending
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        printed.bytes = printed.bytes.saturating_add(bytes.len());
    }
}

/// Gives an instance its standard output and error.
pub(crate) fn open(builder: &mut WasiCtxBuilder) -> Captured {
    let captured = Captured::default();
    builder.stdout(captured.clone()).stderr(captured.clone());
    captured
}

/// Writes what a guest has printed to the log, a line at a time.
pub(crate) fn flush(state: &mut State) {
    let printed = state.printed.take();
    if printed.bytes == 0 {
        return;
    }
    state.ledger.count_bytes_out(printed.bytes);
    for line in String::from_utf8_lossy(&printed.pending)
        .lines()
        .filter(|line| !line.is_empty())
    {
        // A flood ends the call that it comes from, not this one.
        let _ = super::log::write(state, LogLevel::Error, "printed", line);
    }
}

/// Links `wasi:cli` but for its streams: what of it is nothing, wherever the guest runs.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)
}

/// Links its streams: a closed one in, and those that come to the log.
pub(crate) fn link_streams(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    cli::stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(linker, State::cli)
}

/// Links `wasi:io`, which opens nothing by itself: streams and pollables come from elsewhere.
pub(crate) fn link_io(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::io::{poll, streams};

    struct Io;
    impl HasData for Io {
        type Data<'a> = &'a mut ResourceTable;
    }
    error::add_to_linker::<State, Errors>(linker, |state| ErrorsView(state.ctx().table))?;
    poll::add_to_linker::<State, Io>(linker, |state| state.ctx().table)?;
    streams::add_to_linker::<State, Io>(linker, |state| state.ctx().table)
}

struct Errors;

impl HasData for Errors {
    type Data<'a> = ErrorsView<'a>;
}

/// Errors of streams as a guest may know them: one sentence. Wasmtime's own form holds where in the
/// host they came from.
pub(crate) struct ErrorsView<'a>(pub(crate) &'a mut ResourceTable);

/// Bytes of the sentence.
const MAX_ERROR_BYTES: usize = 512;

impl error::Host for ErrorsView<'_> {}

impl error::HostError for ErrorsView<'_> {
    fn to_debug_string(&mut self, error: Resource<error::Error>) -> wasmtime::Result<String> {
        let error = self.0.get(&error)?;
        Ok(text::sentence(&error.to_string(), MAX_ERROR_BYTES))
    }

    fn drop(&mut self, error: Resource<error::Error>) -> wasmtime::Result<()> {
        self.0.delete(error)?;
        Ok(())
    }
}

impl IsTerminal for Captured {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Captured {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for Captured {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.add(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
