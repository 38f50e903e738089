//! The process that runs one plugin: its instances one after the other, each in a Store of its own.
//!
//! It confines itself before it looks at the component, and once that is loaded, no more memory becomes
//! code. Time, random numbers and the log are all that it offers to guests; what they leave goes to the
//! host with each answer.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use sandcast_audit::AuditLog;
use sandcast_kernels::{DeviceChoice, DeviceOptions};
use serde::Serialize;
use serde_json::value::to_raw_value;

use super::confine::no_more_code;
use super::frame;
use super::order::{LogLine, Opening, Order, Outcome, Question, Ready, Reply};
use crate::bindings::policy::PolicyPlugin;
use crate::bindings::validator::ValidatorPlugin;
use crate::call::{CallError, Failure};
use crate::effect::Actor;
use crate::instance::Instance;
use crate::ledger::Ledger;
use crate::plugin::Plugin;
use crate::recording::{Trace, rows_of_bytes};
use crate::roles::{policy, validator};
use crate::sandbox::{Pooling, Sandbox, SandboxConfig};
use crate::{load, text};

pub(super) const TASK: &str = "work";

/// Bytes of what a process is told about its plugin.
const MAX_ORDER_BYTES: u64 = 16 << 20;

/// Bytes of a question; the host bounds what it asks with.
const MAX_QUESTION_BYTES: u64 = 1 << 30;

pub(super) fn serve() -> io::Result<()> {
    // The pipe is read and written as a file is: it needs no calls of a network.
    let mut pipe = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let order: Order = frame::read_value(&mut pipe, MAX_ORDER_BYTES)?;
    let ready = order.confinement.apply().map_err(io::Error::other);
    let component = frame::read(&mut pipe, order.component_bytes)?.ok_or_else(frame::closed)?;
    let artifact = frame::read(&mut pipe, order.artifact_bytes)?.ok_or_else(frame::closed)?;
    let made = ready.and_then(|()| {
        let plugin = load_plugin(&order, &component, &artifact)?;
        no_more_code().map_err(io::Error::other)?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        Ok((plugin, runtime.enable_time().build()?))
    });
    let (plugin, runtime) = match made {
        Ok(made) => made,
        Err(error) => {
            let error = Some(text::sentence(&error.to_string(), 1024));
            return frame::write_value(&mut pipe, &Ready { error });
        }
    };
    drop((component, artifact));
    frame::write_value(&mut pipe, &Ready { error: None })?;
    let mut open = None;
    while let Some(question) = frame::read(&mut pipe, MAX_QUESTION_BYTES)? {
        let question: Question = serde_json::from_slice(&question)?;
        let rows = match question.has_rows(order.role) {
            true => frame::read(&mut pipe, MAX_QUESTION_BYTES)?.ok_or_else(frame::closed)?,
            false => Vec::new(),
        };
        let reply = runtime.block_on(answer(&plugin, &mut open, question, &rows))?;
        frame::write_value(&mut pipe, &reply)?;
    }
    Ok(())
}

fn load_plugin(order: &Order, component: &[u8], artifact: &[u8]) -> io::Result<Plugin> {
    let sandbox = Sandbox::new(
        SandboxConfig {
            pooling: Pooling::Off,
            device: DeviceOptions {
                threads: std::num::NonZeroUsize::new(1),
                ..DeviceChoice::Cpu.into()
            },
            ..SandboxConfig::default()
        },
        // The host keeps the record.
        AuditLog::in_memory(),
    )
    .map_err(io::Error::other)?;
    let grants = order.grants.clone();
    load::apart(
        &sandbox,
        &order.name,
        component,
        artifact,
        order.role,
        grants,
    )
    .map_err(io::Error::other)
}

/// An instance, and what is to be told of it.
struct Open {
    instance: Instance,
    guest: Guest,
    actor: Arc<Actor>,
    lines: Arc<Mutex<Vec<LogLine>>>,
}

enum Guest {
    Policy(PolicyPlugin),
    Validator(ValidatorPlugin),
    /// It could not be configured.
    Nothing,
}

async fn answer(
    plugin: &Plugin,
    open: &mut Option<Open>,
    question: Question,
    rows: &[u8],
) -> io::Result<Reply> {
    if let Question::Open(opening) = question {
        let (opened, outcome) = configure(plugin, &opening, rows).await?;
        return Ok(open.insert(opened).reply(outcome));
    }
    let Some(there) = open else {
        return Err(io::Error::other(
            "it was asked before there was an instance",
        ));
    };
    let outcome = match (question, &there.guest) {
        (Question::Decide { request }, Guest::Policy(guest)) => {
            let answer = policy::decide(&mut there.instance, guest, &request).await;
            outcome_of(answer)?
        }
        (Question::Check, Guest::Validator(guest)) => {
            let batches = rows_of_bytes(rows).map_err(io::Error::other)?;
            let [batch] = batches.as_slice() else {
                return Err(io::Error::other(
                    "it was given no rows, or those of several batches",
                ));
            };
            outcome_of(validator::check(&mut there.instance, guest, batch).await)?
        }
        (Question::Judge, Guest::Validator(guest)) => {
            outcome_of(validator::judge(&mut there.instance, guest).await)?
        }
        (Question::End, _) => {
            let mut reply = there.reply(Outcome::Returned(to_raw_value(&())?));
            if let Some(mut ended) = open.take() {
                reply.usage = ended.instance.usage_so_far();
                reply.traced = ended.instance.end_traced();
            }
            return Ok(reply);
        }
        _ => return Err(io::Error::other("it was asked what its plugin does not do")),
    };
    Ok(there.reply(outcome))
}

async fn configure(plugin: &Plugin, opening: &Opening, rows: &[u8]) -> io::Result<(Open, Outcome)> {
    let lines = Arc::default();
    let bounds = opening.bounds();
    let made = plugin
        .instance_apart(
            &opening.context(),
            &opening.config,
            bounds.as_ref(),
            |state| {
                state.random.follow(opening.random);
                state.log.collect(Arc::clone(&lines));
                if let Some(bytes) = opening.recording_bytes {
                    state.ledger = Ledger::tracing(Some(Trace::recording(bytes)));
                }
            },
        )
        .await;
    let mut instance = made.map_err(io::Error::other)?;
    let actor = instance.actor().map_err(io::Error::other)?;
    let config = opening.config.to_string();
    let (guest, outcome) = match plugin.role_pre() {
        crate::plugin::RolePre::Policy(pre) => split(
            policy::configure(&mut instance, pre, &config).await,
            Guest::Policy,
        )?,
        crate::plugin::RolePre::Validator(pre) => {
            let schema = rows_of_bytes(rows).map_err(io::Error::other)?;
            let schema = schema
                .first()
                .map(|batch| batch.schema())
                .unwrap_or_else(|| Arc::new(arrow::datatypes::Schema::empty()));
            let fields = validator::fields(&schema).map_err(io::Error::other)?;
            let answer = validator::configure(&mut instance, pre, &config, &fields).await;
            split(answer, Guest::Validator)?
        }
        _ => return Err(io::Error::other("no process runs plugins of this role")),
    };
    let open = Open {
        instance,
        guest,
        actor,
        lines,
    };
    Ok((open, outcome))
}

fn split<G, T: Serialize>(
    made: Result<(G, Result<T, Failure>), CallError>,
    kind: impl FnOnce(G) -> Guest,
) -> io::Result<(Guest, Outcome)> {
    match made {
        Ok((guest, answer)) => Ok((kind(guest), outcome_of(Ok(answer))?)),
        Err(error) => Ok((Guest::Nothing, Outcome::Ended(error))),
    }
}

fn outcome_of<T: Serialize>(answer: Result<Result<T, Failure>, CallError>) -> io::Result<Outcome> {
    Ok(match answer {
        Ok(Ok(value)) => Outcome::Returned(to_raw_value(&value)?),
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(error) => Outcome::Ended(error),
    })
}

impl Open {
    fn reply(&mut self, outcome: Outcome) -> Reply {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Reply {
            outcome,
            denials: self.actor.take_denials(),
            lines: mem::take(&mut *lines),
            usage: self.instance.usage_so_far(),
            host_calls: self.instance.host_calls(),
            traced: None,
        }
    }
}
