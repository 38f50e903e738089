//! What the host keeps for one instance.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use arrow::record_batch::RecordBatch;
use sandcast_audit::{Digest, PluginRef};
use serde::{Deserialize, Serialize};
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::bindings::adapter::sandcast::plugin::types;
use crate::columns::Batch;
use crate::conduct::{Bounds, Watch};
use crate::effect::{Actor, Entries};
use crate::fairness::Share;
use crate::grants::blob::BlobState;
use crate::grants::compute::{Budget, ComputeState};
use crate::grants::config::ConfigState;
use crate::grants::files::FilesState;
use crate::grants::http::{Exchanges, HttpState, Kept, Lookups, Rates};
use crate::grants::log::LogState;
use crate::grants::noise::Captured;
use crate::grants::random::RandomState;
use crate::grants::sql::SqlState;
use crate::grants::state::PairsState;
use crate::grants::{Capability, Grants, clock, files, noise};
use crate::ledger::Ledger;
use crate::limits::{CallClock, Meter};
use crate::plugin::CallContext;
use crate::process::away::Away;
use crate::recording::{Playback, Trace};
use crate::sandbox::Sandbox;

/// Who an instance is and what it may do.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The name the pipeline gives the plugin.
    pub(crate) name: String,
    pub(crate) reference: PluginRef,
    pub(crate) grants: Grants,
    pub(crate) lookups: Lookups,
    pub(crate) rates: Rates,
}

/// Something the host refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Denial {
    pub(crate) capability: String,
    pub(crate) detail: String,
    pub(crate) grant_with: String,
}

impl Denial {
    /// What tells it from others.
    pub(crate) fn digest(&self) -> Digest {
        let parts = [&self.capability, &self.detail, &self.grant_with];
        // No part has a NUL in it that would make two the same: they are sentences.
        Digest::of(parts.map(String::as_str).join("\0").as_bytes())
    }
}

/// The data of a Store.
pub(crate) struct State {
    pub(crate) identity: Arc<Identity>,
    pub(crate) table: ResourceTable,
    pub(crate) wasi: WasiCtx,
    pub(crate) meter: Meter,
    pub(crate) clock: CallClock,
    pub(crate) ledger: Ledger,
    pub(crate) log: LogState,
    pub(crate) config: ConfigState,
    pub(crate) random: RandomState,
    pub(crate) compute: ComputeState,
    /// Whose effects and denials are put on record.
    pub(crate) actor: Arc<Actor>,
    pub(crate) files: FilesState,
    pub(crate) http: HttpState,
    pub(crate) pairs: PairsState,
    pub(crate) sql: SqlState,
    pub(crate) blob: BlobState,
    /// The way to the host, for a guest in a process of its own; its state is there.
    pub(crate) away: Option<Away>,
    /// Where what goes over HTTP is kept, or comes from.
    pub(crate) exchanges: Option<Exchanges>,
    /// Its share of the threads.
    pub(crate) share: Share,
    /// What its plugin usually does.
    pub(crate) watch: Watch,
    /// What the guest has printed and is not logged yet.
    pub(crate) printed: Captured,
    /// Bytes that the host holds for the guest, such as batches the guest has made.
    pub(crate) held_bytes: usize,
}

impl State {
    /// Everything an instance is granted, opened anew. The error is a sentence about a folder
    /// that cannot be opened.
    pub(crate) fn open(
        sandbox: &Sandbox,
        identity: Arc<Identity>,
        context: CallContext,
        config: &serde_json::Value,
        bounds: Option<&Bounds>,
        playback: Option<&Playback>,
    ) -> Result<Self, String> {
        let grants = &identity.grants;
        let mut wasi = WasiCtxBuilder::new();
        if playback.is_none() {
            files::open(&mut wasi, &grants.files)?;
        }
        clock::open(&mut wasi, grants);
        let printed = noise::open(&mut wasi);
        let mut table = ResourceTable::new();
        table.set_max_capacity(grants.limits.resources as usize);
        let watch = Watch::new(bounds, &context.stage);
        let actor = Arc::new(Actor {
            identity: Arc::clone(&identity),
            context,
            audit: sandbox.audit().clone(),
            denied: Mutex::default(),
            lost: OnceLock::new(),
            entries: Entries::default(),
        });
        let recording = grants.recording.as_ref().zip(sandbox.recordings());
        let (trace, exchanges) = match (playback, recording) {
            (Some(playback), _) => (
                Some(Trace::replaying(Arc::clone(&playback.traced))),
                Some(Exchanges::Replay(playback.exchanges.clone())),
            ),
            (None, Some((grant, recordings))) => {
                let limit = grant.bytes.bytes();
                let kept = Kept::new(recordings.clone(), limit);
                (Some(Trace::recording(limit)), Some(Exchanges::Record(kept)))
            }
            (None, None) => (None, None),
        };
        let pairs = match (&grants.state, playback) {
            (Some(_), None) => Some(sandbox.pairs()?),
            _ => None,
        };
        let random = match playback.and_then(|playback| playback.random) {
            Some(key) => RandomState::of_key(key),
            None => RandomState::new(grants),
        };
        Ok(Self {
            table,
            wasi: wasi.build(),
            meter: Meter::new(&grants.limits),
            clock: CallClock::new(&grants.limits),
            ledger: Ledger::tracing(trace),
            log: LogState::new(&grants.log),
            config: ConfigState::new(config),
            random,
            compute: ComputeState {
                budget: Budget::new(grants.compute.as_ref()),
                device: sandbox.device().clone(),
                workers: sandbox.workers().clone(),
                progress: None,
                checkpoints: None,
                writing: None,
            },
            files: FilesState::new(Arc::clone(&actor)),
            pairs: PairsState::new(Arc::clone(&actor), pairs),
            sql: SqlState::new(Arc::clone(&actor)),
            blob: BlobState::new(Arc::clone(&actor)),
            http: HttpState::new(Arc::clone(&actor), watch.clone(), exchanges.clone()),
            away: None,
            exchanges,
            share: Share::new(sandbox.long_calls().is_some()),
            watch,
            actor,
            printed,
            held_bytes: 0,
            identity,
        })
    }

    /// Records that something was refused. The line of the pipeline that would grant it is made
    /// from the capability.
    pub(crate) fn deny(&mut self, capability: Capability, detail: String) {
        let grant_with = capability.grant_with(&self.identity.name);
        self.deny_with(capability.as_str(), detail, grant_with);
    }

    /// Records that something was refused, with the line that would grant it.
    pub(crate) fn deny_with(&mut self, capability: &str, detail: String, grant_with: String) {
        self.actor.deny_with(capability, detail, grant_with);
    }

    /// Charges bytes that the host holds for the guest; they count against as much again as the
    /// guest's own memory.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), types::Failure> {
        let limit = self.identity.grants.limits.memory;
        match self.held_bytes.checked_add(bytes) {
            Some(total) if total <= limit.to_usize() => {
                self.held_bytes = total;
                Ok(())
            }
            _ => Err(types::Failure {
                code: types::FailureCode::Exhausted,
                message: format!(
                    "the host holds {} bytes for this plugin; {bytes} more are over its {limit}",
                    self.held_bytes
                ),
                hint: Some(format!(
                    "raise `plugins.{}.grants.limits.memory`",
                    self.identity.name
                )),
            }),
        }
    }

    /// Gives charged bytes back.
    pub(crate) fn refund(&mut self, bytes: usize) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
    }

    /// Takes a batch out of the guest's hands.
    pub(crate) fn take_batch(&mut self, batch: Resource<Batch>) -> wasmtime::Result<RecordBatch> {
        let batch = self.table.delete(batch)?;
        self.refund(batch.charged);
        Ok(batch.rows)
    }

    /// Takes the time since the host began to compute off the guest's account and onto its compute budget.
    pub(crate) fn computed(&mut self, started: Instant) {
        let took = started.elapsed();
        self.clock.excuse(took);
        self.compute.budget.spend_time(took);
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}
