//! Keeps what an instance does.

use std::io;
use std::sync::Arc;

use sandcast_audit::{Digest, Event};
use serde_json::Value;

use super::call::{Call, Outcome, RecordedCall, Recording, VERSION};
use super::store::Recordings;
use super::trace::Traced;
use crate::effect::Actor;
use crate::grants::http::Exchange;

/// Keeps what one instance does, and puts it on record when it has ended.
pub(crate) struct Recorder {
    recordings: Recordings,
    actor: Arc<Actor>,
    config: Value,
    device: String,
    random: Option<[u8; 32]>,
    calls: Vec<RecordedCall>,
}

impl Recorder {
    pub(crate) fn new(
        recordings: Recordings,
        actor: Arc<Actor>,
        config: &Value,
        device: String,
        random: Option<[u8; 32]>,
    ) -> Self {
        Self {
            recordings,
            actor,
            config: config.clone(),
            device,
            random,
            calls: Vec::new(),
        }
    }

    /// Where rows and models are put.
    pub(crate) fn parts(&self) -> &Recordings {
        &self.recordings
    }

    pub(crate) fn add(&mut self, call: Call, outcome: Outcome, host_calls: u64) {
        self.calls.push(RecordedCall {
            call,
            outcome,
            host_calls,
        });
    }

    /// Writes the recording and puts it on record. Nothing where nothing was asked.
    pub(crate) fn write(
        self,
        traced: Traced,
        exchanges: Vec<Exchange>,
    ) -> io::Result<Option<Digest>> {
        if self.calls.is_empty() {
            return Ok(None);
        }
        let identity = &self.actor.identity;
        let recording = Recording {
            version: VERSION,
            host: env!("CARGO_PKG_VERSION").to_owned(),
            plugin: identity.reference.clone(),
            name: identity.name.clone(),
            run: self.actor.context.run.clone(),
            stage: self.actor.context.stage.clone(),
            grants: identity.grants.clone(),
            config: self.config,
            device: self.device,
            calls: self.calls,
            random: self.random,
            traced,
            exchanges,
        };
        let bytes = serde_json::to_vec(&recording)?;
        let digest = self.recordings.put(&bytes)?;
        let event = Event::Recorded {
            run: recording.run,
            plugin: recording.plugin,
            stage: recording.stage,
            recording: digest,
            calls: recording.calls.len() as u64,
            host_calls: recording.traced.host_calls.count(),
            bytes: bytes.len() as u64,
        };
        self.actor.audit.append(event).map_err(io::Error::other)?;
        Ok(Some(digest))
    }
}
