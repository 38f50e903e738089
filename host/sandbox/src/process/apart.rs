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
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::confine::Confinement;
use super::order::{LogLine, Order, Question, Ready, Reply};
use super::{ProcessProgram, frame, worker};
use crate::grants::log;
use crate::inspect::Inspection;
use crate::state::Identity;
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

/// Denials and lines of the log in one answer.
const MAX_TOLD: usize = 10_000;

/// Makes processes of one plugin.
pub(crate) struct Workshop {
    program: ProcessProgram,
    order: Order,
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
        let _ = self.child.wait();
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
                grants: identity.grants.clone(),
                component_bytes: component.len() as u64,
                artifact_bytes: artifact.len() as u64,
            },
            component,
            artifact,
            idle: Mutex::default(),
        }
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
        let limits = &self.order.grants.limits;
        Ok(Apart {
            most: limits
                .output_bytes
                .bytes()
                .saturating_mul(4)
                .saturating_add(MAX_REPLY_BASE_BYTES),
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
    /// Bytes of an answer.
    most: u64,
}

impl Apart {
    /// Asks, and waits for the answer.
    pub(crate) async fn ask(
        &mut self,
        question: &Question,
        rows: Option<&[u8]>,
    ) -> io::Result<Reply> {
        let Some((_, pipe)) = &mut self.worker else {
            return Err(frame::closed());
        };
        let question = serde_json::to_vec(question)?;
        for piece in [Some(question.as_slice()), rows].into_iter().flatten() {
            pipe.write_all(&(piece.len() as u64).to_le_bytes()).await?;
            pipe.write_all(piece).await?;
        }
        let length = pipe.read_u64_le().await?;
        if length > self.most {
            let most = self.most;
            return Err(io::Error::other(format!(
                "it answered {length} bytes, over {most}"
            )));
        }
        let mut bytes = Vec::new();
        pipe.take(length).read_to_end(&mut bytes).await?;
        reply_of(&bytes, length)
    }

    /// Ends the instance: what it then has to tell. The process is kept for another one only where this
    /// one ended as it should.
    pub(crate) fn end(mut self, well: bool) -> Option<Reply> {
        let (mut worker, pipe) = self.worker.take()?;
        drop(pipe);
        let ended = end(&mut worker.pipe, self.most);
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
    pipe.set_read_timeout(Some(END_PATIENCE))?;
    pipe.set_write_timeout(Some(END_PATIENCE))?;
    frame::write_value(pipe, &Question::End)?;
    let bytes = frame::read(&mut pipe.take(most + 8), most)?.ok_or_else(frame::closed)?;
    reply_of(&bytes, bytes.len() as u64)
}

/// An answer, with the host's own words where a process might say something else.
fn reply_of(bytes: &[u8], length: u64) -> io::Result<Reply> {
    if bytes.len() as u64 != length {
        return Err(frame::closed());
    }
    let mut reply: Reply = decoded(bytes)?;
    reply.denials.truncate(MAX_TOLD);
    reply.lines.truncate(MAX_TOLD);
    for denial in &mut reply.denials {
        denial.capability = text::sentence(&denial.capability, 64);
        denial.detail = text::sentence(&denial.detail, 1024);
        denial.grant_with = text::sentence(&denial.grant_with, 1024);
    }
    Ok(reply)
}

fn decoded<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(io::Error::other)
}

/// Puts lines of a guest into the host's log.
pub(crate) fn tell(lines: &[LogLine], identity: &Identity, opening: (&str, &str)) {
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
