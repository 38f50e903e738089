//! The process that runs one plugin: its instances one after the other, each in a Store of its own.
//!
//! It confines itself before it looks at the component, and once that is loaded, no more memory becomes
//! code. Time, random numbers and the log are all that it offers to guests itself, and what they leave goes
//! to the host with each answer. A guest that needs more of the host asks it for everything, over the pipe,
//! while its call is under way; its state is there then.

use std::fs::File;
use std::io::{self, Write as _};
use std::mem;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use sandcast_audit::AuditLog;
use sandcast_kernels::{DeviceChoice, DeviceOptions};
use serde::Serialize;
use serde_json::value::to_raw_value;

use super::away::{self, Away};
use super::confine::no_more_code;
use super::frame;
use super::order::{LogLine, Opening, Order, Outcome, Question, Ready, Reply};
use super::wire::{Wire, bytes_of, value_of};
use crate::bindings::adapter::AdapterPlugin;
use crate::bindings::connector::ConnectorPlugin;
use crate::bindings::policy::PolicyPlugin;
use crate::bindings::validator::ValidatorPlugin;
use crate::call::{CallError, Failure};
use crate::effect::Actor;
use crate::instance::Instance;
use crate::ledger::Ledger;
use crate::plugin::Plugin;
use crate::recording::{Trace, rows_of_bytes};
use crate::roles::adapter::guest as adapter;
use crate::roles::connector::guest as connector;
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
    let mut pipe = Arc::new(File::from(io::stdin().as_fd().try_clone_to_owned()?));
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
        let rows = match question.is_followed(order.role) {
            true => frame::read(&mut pipe, MAX_QUESTION_BYTES)?.ok_or_else(frame::closed)?,
            false => Vec::new(),
        };
        let host = order.asks_host.then(|| Arc::clone(&pipe));
        let (reply, value) = runtime.block_on(answer(&plugin, &mut open, question, &rows, host))?;
        let reply = serde_json::to_vec(&reply)?;
        let mut said = Vec::with_capacity(reply.len() + value.len() + 16);
        frame::append(&mut said, |to| {
            to.push(away::REPLY);
            reply.put(to);
            to.extend_from_slice(&value);
        });
        pipe.write_all(&said)?;
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
        order.asks_host,
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
    Policy(Arc<PolicyPlugin>),
    Validator(Arc<ValidatorPlugin>),
    Adapter(Arc<AdapterPlugin>),
    Connector(Arc<ConnectorPlugin>),
    /// It could not be configured.
    Nothing,
}

async fn answer(
    plugin: &Plugin,
    open: &mut Option<Open>,
    question: Question,
    rows: &[u8],
    host: Option<Arc<File>>,
) -> io::Result<(Reply, Vec<u8>)> {
    if let Question::Open(opening) = question {
        let (opened, said) = configure(plugin, &opening, rows, host).await?;
        return open.insert(opened).reply(said);
    }
    let Some(there) = open else {
        return Err(io::Error::other(
            "it was asked before there was an instance",
        ));
    };
    let instance = &mut there.instance;
    let said = match (question, &there.guest) {
        (Question::Decide { request }, Guest::Policy(guest)) => {
            let answer = policy::decide(instance, guest, request).await;
            outcome_of(answer)?
        }
        (Question::Check, Guest::Validator(guest)) => {
            let lent = match host.is_some() {
                true => Ok(value_of(rows, u64::MAX)?),
                false => validator::lend(instance, &one_batch(rows)?),
            };
            match lent {
                // Numbers of rows, of which there may be many.
                Ok(lent) => said_of(validator::check(instance, guest, lent).await),
                Err(error) => (Outcome::Ended(error), Vec::new()),
            }
        }
        (Question::Judge, Guest::Validator(guest)) => {
            outcome_of(validator::judge(instance, guest).await)?
        }
        (Question::Schema, Guest::Connector(guest)) => {
            said_of(connector::schema(instance, guest).await)
        }
        (Question::Partitions, Guest::Connector(guest)) => {
            said_of(connector::partitions(instance, guest).await)
        }
        (Question::Scan, Guest::Connector(guest)) => {
            said_of(connector::scan(instance, guest, value_of(rows, u64::MAX)?).await)
        }
        (Question::Next, Guest::Connector(guest)) => {
            said_of(connector::next(instance, guest).await)
        }
        (Question::Cursor, Guest::Connector(guest)) => {
            said_of(connector::cursor(instance, guest).await)
        }
        (Question::Describe, Guest::Adapter(guest)) => {
            said_of(adapter::describe(instance, guest).await)
        }
        (Question::Declare, Guest::Adapter(guest)) => {
            said_of(adapter::declare(instance, guest, value_of(rows, u64::MAX)?).await)
        }
        (Question::Train, Guest::Adapter(guest)) => {
            said_of(adapter::train(instance, guest, value_of(rows, u64::MAX)?).await)
        }
        (Question::Predict, Guest::Adapter(guest)) => {
            said_of(adapter::predict(instance, guest, value_of(rows, u64::MAX)?).await)
        }
        (Question::Generate, Guest::Adapter(guest)) => {
            said_of(adapter::generate(instance, guest, value_of(rows, u64::MAX)?).await)
        }
        (Question::End, _) => {
            let nothing = Outcome::Returned(to_raw_value(&())?);
            let (mut reply, value) = there.reply((nothing, Vec::new()))?;
            if let Some(mut ended) = open.take() {
                reply.usage = ended.instance.usage_so_far();
                reply.traced = ended.instance.end_traced();
            }
            return Ok((reply, value));
        }
        _ => return Err(io::Error::other("it was asked what its plugin does not do")),
    };
    there.reply(said)
}

fn one_batch(rows: &[u8]) -> io::Result<RecordBatch> {
    let batches = rows_of_bytes(rows).map_err(io::Error::other)?;
    let one: Result<[RecordBatch; 1], _> = batches.try_into();
    let [batch] =
        one.map_err(|_| io::Error::other("it was given no rows, or those of several batches"))?;
    Ok(batch)
}

async fn configure(
    plugin: &Plugin,
    opening: &Opening,
    rows: &[u8],
    host: Option<Arc<File>>,
) -> io::Result<(Open, Said)> {
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
                state.away = host.map(Away::new);
                if let Some(bytes) = opening.recording_bytes {
                    state.ledger = Ledger::tracing(Some(Trace::recording(bytes)));
                }
            },
        )
        .await;
    let mut instance = made.map_err(io::Error::other)?;
    let actor = Arc::clone(instance.actor());
    let config = opening.config.to_string();
    let (guest, said) = match plugin.role_pre() {
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
        crate::plugin::RolePre::Adapter(pre) => match adapter::open(&mut instance, pre).await {
            Ok(guest) => (Guest::Adapter(guest), said_of(Ok(Ok(())))),
            Err(error) => (Guest::Nothing, said_of::<()>(Err(error))),
        },
        crate::plugin::RolePre::Connector(pre) => split(
            connector::configure(&mut instance, pre, &config).await,
            Guest::Connector,
        )?,
    };
    let open = Open {
        instance,
        guest,
        actor,
        lines,
    };
    Ok((open, said))
}

fn split<G, T: Serialize>(
    made: Result<(G, Result<T, Failure>), CallError>,
    kind: impl FnOnce(G) -> Guest,
) -> io::Result<(Guest, Said)> {
    match made {
        Ok((guest, answer)) => Ok((kind(guest), outcome_of(Ok(answer))?)),
        Err(error) => Ok((Guest::Nothing, (Outcome::Ended(error), Vec::new()))),
    }
}

/// How a call ended, and what the guest returned where that is not part of it.
type Said = (Outcome, Vec<u8>);

fn outcome_of<T: Serialize>(answer: Result<Result<T, Failure>, CallError>) -> io::Result<Said> {
    let outcome = match answer {
        Ok(Ok(value)) => Outcome::Returned(to_raw_value(&value)?),
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(error) => Outcome::Ended(error),
    };
    Ok((outcome, Vec::new()))
}

/// The same for what goes over the pipe as bytes.
fn said_of<T: Wire>(answer: Result<Result<T, Failure>, CallError>) -> Said {
    match answer {
        Ok(Ok(value)) => (Outcome::Said, bytes_of(&value)),
        Ok(Err(failure)) => (Outcome::Failed(failure), Vec::new()),
        Err(error) => (Outcome::Ended(error), Vec::new()),
    }
}

impl Open {
    fn reply(&mut self, (outcome, value): Said) -> io::Result<(Reply, Vec<u8>)> {
        // What the guest has let go of until now comes before its answer.
        if let Ok(store) = self.instance.store()
            && let Some(away) = &mut store.data_mut().away
        {
            away.flush()?;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = Reply {
            outcome,
            denials: self.actor.take_denials(),
            lines: mem::take(&mut *lines),
            usage: self.instance.usage_so_far(),
            host_calls: self.instance.host_calls(),
            traced: None,
        };
        Ok((reply, value))
    }
}
