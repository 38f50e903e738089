//! The host, as a guest in a process of its own has it: at the other end of the pipe.
//!
//! What the guest asks for goes there as a request, and the process waits for the answer, as long as
//! it takes: that is not the guest's time. What it lets go of goes along with what is said next.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Instant;

use super::frame;
use super::wire::{Reader, Wire, bytes_of, value_of};
use crate::state::State;
use crate::text;

/// What a process says begins with one of these.
pub(super) const REPLY: u8 = 0;
pub(super) const REQUEST: u8 = 1;
pub(super) const LET_GO: u8 = 2;

/// What the host answers to a request begins with one of these.
pub(super) const ANSWER: u8 = 0;
pub(super) const TRAP: u8 = 1;

/// Bytes of an answer; the host bounds what it answers with.
const MAX_ANSWER_BYTES: u64 = 4 << 30;

/// Bytes of what the guest has let go of before they are told by themselves.
const MAX_PENDING_BYTES: usize = 64 << 10;

/// The way to the host.
#[derive(Debug)]
pub(crate) struct Away {
    pipe: Arc<File>,
    /// Pieces that go with the next one.
    pending: Vec<u8>,
}

impl Away {
    pub(super) fn new(pipe: Arc<File>) -> Self {
        Self {
            pipe,
            pending: Vec::new(),
        }
    }

    fn ask(&mut self, name: &str, put: impl FnOnce(&mut Vec<u8>)) -> io::Result<Vec<u8>> {
        self.say(REQUEST, name, put);
        self.flush()?;
        frame::read(&mut self.pipe, MAX_ANSWER_BYTES)?.ok_or_else(frame::closed)
    }

    fn say(&mut self, kind: u8, name: &str, put: impl FnOnce(&mut Vec<u8>)) {
        frame::append(&mut self.pending, |to| {
            to.push(kind);
            name.to_owned().put(to);
            put(to);
        });
    }

    /// Tells what is pending.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let sent = self.pipe.write_all(&self.pending);
        self.pending.clear();
        sent
    }
}

/// Asks the host what a guest asks for.
pub(crate) fn ask<T: Wire>(
    state: &mut State,
    name: &str,
    put: impl FnOnce(&mut Vec<u8>),
) -> wasmtime::Result<T> {
    let begun = Instant::now();
    let answer = match &mut state.away {
        Some(away) => away.ask(name, put)?,
        None => return Err(wasmtime::Error::msg("there is no host to ask")),
    };
    state.clock.excuse(begun.elapsed());
    match answer.split_first() {
        Some((&ANSWER, value)) => Ok(value_of(value, u64::MAX)?),
        Some((&TRAP, words)) => {
            let words: String = value_of(words, u64::MAX)?;
            Err(wasmtime::Error::msg(words))
        }
        _ => Err(frame::closed().into()),
    }
}

/// Tells the host that the guest has let go of a thing.
pub(crate) fn let_go(state: &mut State, name: &str, thing: u32) -> wasmtime::Result<()> {
    let Some(away) = &mut state.away else {
        return Err(wasmtime::Error::msg("there is no host to tell"));
    };
    away.say(LET_GO, name, |to| thing.put(to));
    if away.pending.len() > MAX_PENDING_BYTES {
        away.flush()?;
    }
    Ok(())
}

/// A trap that is told to a guest's process, as it would have been to the guest.
pub(super) fn trap(error: &wasmtime::Error) -> Vec<u8> {
    let words = text::cut(&error.root_cause().to_string(), 4096)
        .0
        .to_owned();
    let mut bytes = vec![TRAP];
    bytes.extend(bytes_of(&words));
    bytes
}

/// The name of what is asked for, and what comes after it.
pub(super) fn name_of(said: &[u8], room: u64) -> io::Result<(String, Reader<'_>)> {
    let mut reader = Reader::new(said, room);
    Ok((String::take(&mut reader)?, reader))
}
