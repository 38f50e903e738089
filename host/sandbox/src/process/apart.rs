//! Processes that run plugins, as the host sees them.
//!
//! A process runs one plugin, one instance after the other. It is started when there is none that
//! waits, it is kept when an instance has ended as it should, and it is ended with an instance that has
//! not. What it says is a guest's word: bounded here, and checked where the answers of guests are.

use std::fmt;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Pipe;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandcast_audit::HostUse;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::confine::Confinement;
use super::functions::{self, Halt};
use super::order::{LogLine, Order, Outcome, Question, Ready, Reply};
use super::wire::Reader;
use super::{ProcessProgram, away, frame, worker};
use crate::call::CallError;
use crate::conduct;
use crate::fairness::blocking;
use crate::grants::{Capability, Grants, log};
use crate::inspect::Inspection;
use crate::limits::{OutOfTime, OverLimit, TimeLimit};
use crate::manifest::Role;
use crate::state::{Identity, State};
use crate::text;

/// Bytes of memory of a process beside what its plugin may have.
const OWN_MEMORY_BYTES: u64 = 512 << 20;

/// Instances that one process runs, one after the other, before there is a fresh one.
const INSTANCES_OF_A_PROCESS: u32 = 1000;

/// Processes of one plugin that wait for work.
const IDLE_PROCESSES: usize = 4;

/// How long a process may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// How long a process may take to say how an instance ended.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer beside what a guest may hand over: what it logged, and what it used.
const MAX_REPLY_BASE_BYTES: u64 = 16 << 20;

/// Bytes of JSON that what a guest returned may take, however much it may hand over: the rules and
/// verdicts of a validator and the reasons of a policy are words for people. What is made of JSON takes
/// some times its bytes. Columns, models, states and the rows that are found are not in it; they go as
/// bytes.
const MAX_WORDS_BYTES: u64 = 64 << 20;

/// What a process says of its calls, its bytes and its time, at most: it may lie, and others add it up.
const MOST_COUNTED: u64 = 1 << 50;
const MOST_SECONDS: f64 = 1e9;

/// Denials and lines of the log in one answer.
const MAX_TOLD: usize = 10_000;

/// Bytes of the lines of one answer: a process that runs our code keeps to the rate of its grant.
const MAX_LINES_BYTES: usize = 4 << 20;

/// Functions of the host that it can say it called, and bytes of the name of one; there are fewer.
const MAX_FUNCTIONS: usize = 256;
const MAX_FUNCTION_BYTES: usize = 64;

/// Bytes of memory that what a guest returned may take; what came over the pipe is bounded by then.
pub(crate) const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// What a process may take longer than its guest may, before it is taken for one that hangs.
pub(crate) const GRACE_APART: Duration = Duration::from_secs(5);

/// Makes processes of one plugin.
pub(crate) struct Workshop {
    program: ProcessProgram,
    order: Order,
    /// What its guests may ask the host for.
    imports: Vec<Capability>,
    component: Arc<[u8]>,
    artifact: Vec<u8>,
    idle: Mutex<Vec<Worker>>,
}

impl fmt::Debug for Workshop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Workshop").finish_non_exhaustive()
    }
}

/// A process; it ends with this.
struct Worker {
    child: Child,
    pipe: Pipe,
    served: u32,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        blocking(|| {
            let _ = self.child.wait();
        });
    }
}

impl Workshop {
    pub(crate) fn new(
        program: ProcessProgram,
        identity: &Identity,
        inspection: &Inspection,
        component: Arc<[u8]>,
        artifact: Vec<u8>,
    ) -> Self {
        let grants = &identity.grants;
        let asks_host = asks_host(inspection.role, grants);
        let imports = inspection.imports.iter();
        let imports = imports.filter_map(|import| import.capability).collect();
        let memory = identity.grants.limits.memory.bytes();
        Self {
            program,
            order: Order {
                confinement: Confinement {
                    // Its memories, and as much again that the host holds for it.
                    memory_bytes: memory.saturating_mul(2).saturating_add(OWN_MEMORY_BYTES),
                    processor_seconds: None,
                    ends_with_parent: false,
                },
                name: identity.name.clone(),
                reference: identity.reference.clone(),
                role: inspection.role,
                asks_host,
                grants: match asks_host {
                    true => told_of(grants),
                    false => grants.clone(),
                },
                component_bytes: component.len() as u64,
                artifact_bytes: artifact.len() as u64,
            },
            imports,
            component,
            artifact,
            idle: Mutex::default(),
        }
    }

    /// Whether what its guests ask for is asked of the host, which then has their state.
    pub(crate) fn asks_host(&self) -> bool {
        self.order.asks_host
    }

    /// A process for an instance: one that waits, or a new one.
    pub(crate) async fn hire(self: &Arc<Self>) -> io::Result<Apart> {
        let waiting = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        // One that waited may be gone, and that is no fault of the instance that comes.
        let alive =
            waiting.and_then(|mut it| matches!(it.child.try_wait(), Ok(None)).then_some(it));
        let worker = match alive {
            Some(worker) => worker,
            None => {
                let workshop = Arc::clone(self);
                tokio::task::spawn_blocking(move || workshop.start())
                    .await
                    .map_err(io::Error::other)??
            }
        };
        worker.pipe.set_nonblocking(true)?;
        let pipe = UnixStream::from_std(worker.pipe.try_clone()?)?;
        Ok(Apart {
            most: Most::of(&self.order.grants),
            workshop: Arc::clone(self),
            worker: Some((worker, pipe)),
        })
    }

    fn start(&self) -> io::Result<Worker> {
        let (ours, theirs) = Pipe::pair()?;
        let child = self
            .program
            .command(worker::TASK)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut worker = Worker {
            child,
            pipe: ours,
            served: 0,
        };
        match self.tell(&mut worker.pipe) {
            Ok(Ready { error: None }) => Ok(worker),
            Ok(Ready { error: Some(error) }) => Err(io::Error::other(text::sentence(&error, 1024))),
            Err(error) => Err(match worker.child.try_wait() {
                Ok(Some(status)) => io::Error::other(format!("it ended with {status}")),
                _ => error,
            }),
        }
    }

    /// Tells a process what it is to run, and waits until it can.
    fn tell(&self, pipe: &mut Pipe) -> io::Result<Ready> {
        pipe.set_read_timeout(Some(START_PATIENCE))?;
        pipe.set_write_timeout(Some(START_PATIENCE))?;
        frame::write_value(pipe, &self.order)?;
        frame::write(pipe, &self.component)?;
        frame::write(pipe, &self.artifact)?;
        frame::read_value(pipe, 4096)
    }

    fn keep(&self, worker: Worker) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.served < INSTANCES_OF_A_PROCESS && idle.len() < IDLE_PROCESSES {
            idle.push(worker);
        }
    }
}

/// The process of one instance.
pub(crate) struct Apart {
    workshop: Arc<Workshop>,
    worker: Option<(Worker, UnixStream)>,
    most: Most,
}

/// How much a process may say at once.
#[derive(Clone, Copy, Debug)]
struct Most {
    /// Bytes of anything.
    bytes: u64,
    /// Bytes of an answer that are JSON.
    words: u64,
    /// The same of the last one, which tells of all calls into the host where those are recorded.
    last_words: u64,
}

impl Most {
    fn of(grants: &Grants) -> Self {
        let output = grants.limits.output_bytes.bytes();
        // Characters that JSON has to escape take some times their bytes.
        let output = output.saturating_mul(4);
        let words = output.min(MAX_WORDS_BYTES) + MAX_REPLY_BASE_BYTES;
        let recording = grants.recording.as_ref();
        let recording = recording.map_or(0, |recording| recording.bytes.bytes());
        Self {
            bytes: output.saturating_add(MAX_REPLY_BASE_BYTES),
            words,
            last_words: words.saturating_add(recording.saturating_mul(2)),
        }
    }
}

impl Apart {
    /// Asks, and waits for the answer; with what the guest returned, where that is beside it.
    pub(crate) async fn ask(
        &mut self,
        question: &Question,
        rows: Option<&[u8]>,
    ) -> io::Result<(Reply, Vec<u8>)> {
        let Some((_, pipe)) = &mut self.worker else {
            return Err(frame::closed());
        };
        send(pipe, question, rows).await?;
        let said = hear(pipe, self.most.bytes).await?;
        reply_of(&said, self.most.words)
    }

    /// Asks a guest whose state is here, and answers what it asks for meanwhile: what it said.
    pub(crate) async fn converse(
        &mut self,
        state: &mut State,
        question: &Question,
        arguments: Option<&[u8]>,
    ) -> wasmtime::Result<(Reply, Vec<u8>)> {
        let Some((_, pipe)) = &mut self.worker else {
            return Err(gone(&frame::closed()));
        };
        let imports = &self.workshop.imports;
        let sent = send(pipe, question, arguments).await;
        sent.map_err(|error| gone(&error))?;
        loop {
            // The time that the host works is not the guest's, and neither is what it is slowed down by.
            let waited = Instant::now();
            let patience = state.watch.patience(state.clock.left_now()) + GRACE_APART;
            let said = match timeout(patience, hear(pipe, self.most.bytes)).await {
                Ok(said) => said.map_err(|error| gone(&error))?,
                Err(_) => return Err(OutOfTime(TimeLimit::Call).into()),
            };
            let paused = state.watch.paused_of(waited.elapsed());
            state.clock.excuse(paused);
            let Some((&kind, said)) = said.split_first() else {
                return Err(gone(&frame::closed()));
            };
            match kind {
                away::REPLY => {
                    let reply = reply_of_said(said, self.most.words);
                    let (reply, value) = reply.map_err(|error| gone(&error))?;
                    // What else it used is known here.
                    state.meter.note_peak(reply.usage.peak_memory_bytes);
                    return match reply.outcome {
                        Outcome::Ended(error) => Err(Told(error).into()),
                        _ => Ok((reply, value)),
                    };
                }
                away::REQUEST | away::LET_GO => {
                    if let Some(limit) = state.clock.reached() {
                        return Err(OutOfTime(limit).into());
                    }
                    let mut answer = vec![away::ANSWER];
                    let answered = match away::name_of(said, self.most.bytes) {
                        // Things are let go of without an answer, and nothing else is.
                        Ok((name, _)) if name.ends_with(".drop") != (kind == away::LET_GO) => {
                            Err(Halt::Wrong(io::Error::other(
                                "it lets go of what is no thing, or asks to",
                            )))
                        }
                        Ok((name, mut from)) => {
                            let answering =
                                functions::answer(state, imports, &name, &mut from, &mut answer);
                            match kind {
                                // It says more without waiting for an answer.
                                away::LET_GO => answering.await,
                                _ => tokio::select! {
                                    biased;
                                    answered = answering => answered,
                                    // Nobody works for a process that is gone.
                                    error = spoke(pipe) => Err(Halt::Wrong(error)),
                                },
                            }
                        }
                        Err(error) => Err(Halt::Wrong(error)),
                    };
                    match answered {
                        Ok(()) => {}
                        Err(Halt::Wrong(error)) => return Err(gone(&error)),
                        Err(Halt::Trap(error)) if OverLimit::of(&error).is_some() => {
                            return Err(error);
                        }
                        Err(Halt::Trap(error)) if kind == away::LET_GO => {
                            // The guest is past it.
                            return Err(error.context(
                                "it let go of a thing of the host that it does not have, or that others are of",
                            ));
                        }
                        Err(Halt::Trap(error)) => answer = away::trap(&error),
                    }
                    if let Some(strayed) = conduct::strayed(state) {
                        return Err(strayed.into());
                    }
                    if kind == away::REQUEST {
                        let sent = put(pipe, &[&answer]).await;
                        sent.map_err(|error| gone(&error))?;
                    }
                }
                other => {
                    let strange =
                        io::Error::other(format!("it says something of the kind {other}"));
                    return Err(gone(&strange));
                }
            }
        }
    }

    /// Ends the instance: what it then has to tell. The process is kept for another one only where this
    /// one ended as it should.
    pub(crate) fn end(mut self, well: bool) -> Option<Reply> {
        let (mut worker, pipe) = self.worker.take()?;
        drop(pipe);
        let ended = blocking(|| end(&mut worker.pipe, self.most.last_words));
        match ended {
            Ok(reply) => {
                worker.served += 1;
                if well {
                    self.workshop.keep(worker);
                }
                Some(reply)
            }
            Err(error) => {
                tracing::warn!(%error, "a process did not end its instance, and is ended itself");
                None
            }
        }
    }
}

fn end(pipe: &mut Pipe, most: u64) -> io::Result<Reply> {
    pipe.set_nonblocking(false)?;
    pipe.set_write_timeout(Some(END_PATIENCE))?;
    frame::write_value(pipe, &Question::End)?;
    // However much it says, and however slowly.
    let mut pipe = Until {
        pipe,
        deadline: Instant::now() + END_PATIENCE,
    };
    let frame_bytes = most.saturating_add(BEFORE_WORDS);
    loop {
        let mut next = (&mut pipe).take(frame_bytes.saturating_add(8));
        let said = frame::read(&mut next, frame_bytes)?.ok_or_else(frame::closed)?;
        // What it lets go of at its end, the host lets go of too.
        if said.first() != Some(&away::LET_GO) {
            return Ok(reply_of(&said, most)?.0);
        }
    }
}

/// A pipe that is read until some time.
struct Until<'a> {
    pipe: &'a mut Pipe,
    deadline: Instant,
}

impl io::Read for Until<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.pipe.set_read_timeout(Some(left))?;
        self.pipe.read(bytes)
    }
}

/// Whether the guests of a plugin ask the host. Those that do not have all they use in the process, and
/// are faster for it.
fn asks_host(role: Role, grants: &Grants) -> bool {
    const ASKED: [Capability; 6] = [
        Capability::Files,
        Capability::Http,
        Capability::Compute,
        Capability::State,
        Capability::Sql,
        Capability::Blob,
    ];
    matches!(role, Role::Connector | Role::Adapter)
        || ASKED
            .into_iter()
            .any(|capability| grants.allows(capability))
}

/// The grants as a process knows them that asks the host: what it does itself. Where folders and servers
/// are, and where secrets lie, is not told to it.
fn told_of(grants: &Grants) -> Grants {
    Grants {
        files: Vec::new(),
        http: Vec::new(),
        state: None,
        sql: Vec::new(),
        blob: Vec::new(),
        recording: None,
        ..grants.clone()
    }
}

/// The error of a process that does not do as it should.
fn gone(error: &io::Error) -> wasmtime::Error {
    wasmtime::Error::msg(gone_in_words(error))
}

pub(crate) fn gone_in_words(error: &io::Error) -> String {
    format!("the process that it runs in is gone, or answers wrongly: {error}")
}

/// How a process says that a call of its guest ended.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) CallError);

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Told {}

/// Writes pieces.
async fn put(pipe: &mut UnixStream, pieces: &[&[u8]]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for piece in pieces {
        frame::append(&mut bytes, |to| to.extend_from_slice(piece));
    }
    pipe.write_all(&bytes).await
}

async fn send(pipe: &mut UnixStream, question: &Question, rows: Option<&[u8]>) -> io::Result<()> {
    let question = serde_json::to_vec(question)?;
    match rows {
        Some(rows) => put(pipe, &[&question, rows]).await,
        None => put(pipe, &[&question]).await,
    }
}

/// Why a process is not waited for while it waits for an answer: it is gone, or it does not wait.
async fn spoke(pipe: &UnixStream) -> io::Error {
    let mut byte = [0];
    loop {
        if let Err(error) = pipe.readable().await {
            return error;
        }
        match pipe.try_read(&mut byte) {
            Ok(0) => return frame::closed(),
            Ok(_) => return io::Error::other("it asks again before it was answered"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error,
        }
    }
}

/// What a process says next.
async fn hear(pipe: &mut UnixStream, most: u64) -> io::Result<Vec<u8>> {
    let length = pipe.read_u64_le().await?;
    if length > most {
        return Err(io::Error::other(format!(
            "it answered {length} bytes, over {most}"
        )));
    }
    let mut bytes = Vec::new();
    pipe.take(length).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 != length {
        return Err(frame::closed());
    }
    Ok(bytes)
}

fn reply_of(said: &[u8], most_words: u64) -> io::Result<(Reply, Vec<u8>)> {
    match said.split_first() {
        Some((&away::REPLY, said)) => reply_of_said(said, most_words),
        _ => Err(io::Error::other("it asks for what its plugin does not use")),
    }
}

/// Bytes before the JSON of an answer: what kind it is, and its length.
const BEFORE_WORDS: u64 = 1 + 4;

/// Bytes of an answer that are read in no time.
const SHORT_BYTES: usize = 64 << 10;

/// An answer, with the host's own words where a process might say something else; and what the guest
/// returned, where that is beside it.
fn reply_of_said(said: &[u8], most_words: u64) -> io::Result<(Reply, Vec<u8>)> {
    match said.len() {
        ..=SHORT_BYTES => read_reply(said, most_words),
        _ => blocking(|| read_reply(said, most_words)),
    }
}

fn read_reply(said: &[u8], most_words: u64) -> io::Result<(Reply, Vec<u8>)> {
    let mut reader = Reader::new(said, said.len() as u64);
    let length = reader.length(1)?;
    if length as u64 > most_words {
        return Err(io::Error::other(format!(
            "{length} bytes of its answer are words, and {most_words} may be"
        )));
    }
    let bytes = reader.next(length)?;
    let value = reader.rest().to_vec();
    let mut reply: Reply = decoded(bytes)?;
    reply.denials.truncate(MAX_TOLD);
    reply.lines.truncate(MAX_TOLD);
    let mut left = MAX_LINES_BYTES;
    reply.lines.retain(|line| {
        left = left.saturating_sub(line.context.len() + line.message.len());
        left > 0
    });
    let known = reply.usage.host_calls.into_iter();
    let known = known.filter(|(name, _)| name.len() <= MAX_FUNCTION_BYTES);
    let possible = |number: u64| number.min(MOST_COUNTED);
    let known = known.map(|(name, calls)| (name, possible(calls)));
    reply.usage.host_calls = known.take(MAX_FUNCTIONS).collect();
    let spent = reply.usage.host_use.into_iter();
    let spent = spent.filter(|(name, _)| name.len() <= MAX_FUNCTION_BYTES);
    let spent = spent.map(|(name, used)| {
        let used = HostUse {
            calls: possible(used.calls),
            // JSON has no other numbers than numbers.
            seconds: used.seconds.clamp(0.0, MOST_SECONDS),
            bytes_in: possible(used.bytes_in),
            bytes_out: possible(used.bytes_out),
        };
        (name, used)
    });
    reply.usage.host_use = spent.take(MAX_FUNCTIONS).collect();
    reply.host_calls = possible(reply.host_calls);
    let usage = &mut reply.usage;
    for number in [
        &mut usage.bytes_in,
        &mut usage.bytes_out,
        &mut usage.peak_memory_bytes,
        &mut usage.denials,
    ] {
        *number = possible(*number);
    }
    usage.guest_seconds = usage.guest_seconds.clamp(0.0, MOST_SECONDS);
    for denial in &mut reply.denials {
        denial.capability = text::sentence(&denial.capability, 64);
        denial.detail = text::sentence(&denial.detail, 1024);
        denial.grant_with = text::sentence(&denial.grant_with, 1024);
    }
    Ok((reply, value))
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(io::Error::other)
}

/// Puts lines of a guest into the host's log.
pub(crate) fn tell(lines: &[LogLine], identity: &Identity, opening: (&str, &str)) {
    match lines.len() {
        0..=FEW_LINES => tell_all(lines, identity, opening),
        _ => blocking(|| tell_all(lines, identity, opening)),
    }
}

/// Lines that are told in no time.
const FEW_LINES: usize = 64;

fn tell_all(lines: &[LogLine], identity: &Identity, opening: (&str, &str)) {
    let limit = identity.grants.log.message_bytes.to_usize();
    for line in lines {
        if line.level <= identity.grants.log.level {
            let (run, stage) = opening;
            let context = text::sentence(&line.context, log::MAX_CONTEXT_BYTES);
            let message = text::sentence(&line.message, limit);
            log::emit(
                line.level,
                &identity.reference.id,
                run,
                stage,
                &context,
                &message,
            );
        }
    }
}

#[cfg(test)]
mod tests;
