//! One Store, from the first call of an instance to its last.
//!
//! Every call goes `begin`, the generated function under a timeout, `end`. A call that does not
//! reach `end`, and one that ends in a trap or out of time, takes the Store with it.

mod apart;
mod long;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use sandcast_audit::{Digest, Event};
use sandcast_kernels::DeviceKind;
use serde_json::Value;
use tokio::time::error::Elapsed;
use wasmtime::component::Resource;
use wasmtime::{Store, Trap, WasmBacktrace};

use crate::bindings::adapter::sandcast::plugin::{compute, types};
use crate::call::{CallError, Failure, FailureCode, Usage};
use crate::columns::Batch;
use crate::conduct::{self, Strayed};
use crate::effect::Actor;
use crate::fairness::{LongCalls, blocking};
use crate::grants::compute::PredictorParts;
use crate::grants::http::Exchanges;
use crate::grants::noise;
use crate::limits::{OutOfTime, OverLimit, TimeLimit};
use crate::plugin::Ends;
use crate::process::{Apart, Told};
use crate::recording::answers::RECORDING_BYTES;
use crate::recording::{
    Call, Divergence, Outcome, Recorder, Recordings, Trace, Traced, rows_to_bytes,
};
use crate::sandbox::Place;
use crate::state::{Denial, State};
use crate::tally::Computed;
use crate::text;
use apart::Far;
use long::Home;

/// What a wall clock allows beyond the guest's own time, before the host gives up waiting for a
/// call that is stuck outside the guest.
const GRACE: Duration = Duration::from_millis(500);

/// Bytes of memory that are given back in no time.
const SMALL_MEMORY: u64 = 8 << 20;

/// How an instance ends that went beyond what its plugin usually does.
pub const STRAYED: &str = "beyond its usual conduct";

/// Bytes of one sentence of a guest.
pub(crate) const MAX_SENTENCE_BYTES: usize = 4096;

/// A Store with what outlives it.
pub(crate) struct Instance {
    /// Never locked: only `&mut self` reaches it. The mutex lets an instance be referred to from
    /// several threads, which a Store alone does not.
    store: Mutex<Option<Store<State>>>,
    actor: Arc<Actor>,
    plugin: String,
    stage: String,
    /// Where it goes what it came to.
    ends: Ends,
    in_call: bool,
    usage: Option<Usage>,
    /// Keeps what it is asked and answers, where that is kept.
    recorder: Option<Recorder>,
    /// What followed its calls into the host, once the Store is gone.
    ended: Option<Ended>,
    /// What of it is not on record and should be, once the Store is gone.
    lost: Option<String>,
    /// Where it runs, if not here.
    far: Option<Far>,
    /// Where its guest runs, if not here, while its Store is here without one.
    guest: Option<Apart>,
    /// Its calls into the host, where they were followed in another process.
    traced: Option<Traced>,
    /// Where its long calls go on, if not where they are made.
    long: Option<Arc<LongCalls>>,
    /// Where its Store comes back to from the call that is under way.
    home: Option<Arc<Home>>,
    place: Arc<Place>,
}

/// What is left of a Store that was recorded or replayed.
struct Ended {
    trace: Trace,
    exchanges: Option<Exchanges>,
}

/// A call that has begun.
pub(crate) struct Begun<'a> {
    pub(crate) store: &'a mut Store<State>,
    /// How long to wait for it on a wall clock.
    pub(crate) patience: Duration,
}

impl Instance {
    pub(crate) fn new(
        store: Store<State>,
        ends: Ends,
        place: Place,
        recorder: Option<Recorder>,
    ) -> Self {
        let actor = Arc::clone(&store.data().actor);
        let mut instance = Self::bare(actor, ends, Arc::new(place), recorder);
        instance.store = Mutex::new(Some(store));
        instance
    }

    /// One that has nothing to run yet.
    fn bare(actor: Arc<Actor>, ends: Ends, place: Arc<Place>, recorder: Option<Recorder>) -> Self {
        Self {
            plugin: actor.identity.name.clone(),
            stage: actor.context.stage.clone(),
            store: Mutex::new(None),
            ends,
            in_call: false,
            usage: None,
            recorder,
            ended: None,
            lost: None,
            far: None,
            guest: None,
            traced: None,
            long: None,
            home: None,
            place,
            actor,
        }
    }

    /// Starts a call.
    pub(crate) fn begin(&mut self) -> Result<Begun<'_>, CallError> {
        if self.in_call {
            // An earlier call was dropped half-way; its Store is in no state to go on.
            self.close("cancelled");
        }
        if let Err(out) = self.store()?.data_mut().clock.start() {
            let error = self.out_of_time(out.0);
            self.close("out of time");
            return Err(error);
        }
        self.in_call = true;
        let store = self.store()?;
        let state = store.data();
        let patience = state.watch.patience(state.clock.left_in_call());
        state.share.begin();
        let patience = patience + state.compute.time_left() + GRACE;
        store.set_epoch_deadline(1);
        Ok(Begun { store, patience })
    }

    /// Ends a call with whatever it came to. An error closes the Store.
    pub(crate) fn end<T>(
        &mut self,
        outcome: Result<wasmtime::Result<T>, Elapsed>,
    ) -> Result<T, CallError> {
        self.in_call = false;
        if let Ok(store) = self.store() {
            let state = store.data_mut();
            state.clock.excuse(state.share.waited());
            state.clock.stop();
            noise::flush(store.data_mut());
        }
        let strayed = self
            .store()
            .ok()
            .and_then(|store| conduct::strayed(store.data()));
        let lost = self
            .store()
            .ok()
            .and_then(|store| store.data().actor.lost().map(str::to_owned));
        let error = match outcome {
            Ok(Ok(_)) if let Some(strayed) = &strayed => self.strayed(strayed),
            Ok(Ok(_)) if let Some(lost) = &lost => self.unwritten(lost),
            Ok(Ok(_)) if let Some(over) = self.actor.over() => self.over_limit(over),
            Ok(Ok(value)) => match self.unkept() {
                None => return Ok(value),
                Some(detail) => CallError::OverLimit {
                    plugin: self.plugin.clone(),
                    stage: self.stage.clone(),
                    limit: RECORDING_BYTES.to_owned(),
                    detail,
                },
            },
            Ok(Err(error)) => self.explain(&error),
            Err(_) => self.out_of_time(TimeLimit::Call),
        };
        self.close(outcome_of(&error));
        Err(error)
    }

    /// Why what was done cannot be kept, where it is to be.
    fn unkept(&mut self) -> Option<String> {
        let state = self.store().ok()?.data_mut();
        let trace = state.ledger.trace()?;
        trace.seal();
        if trace.is_over() {
            return Some("its calls into the host are more than is kept of them".to_owned());
        }
        match &state.exchanges {
            Some(Exchanges::Record(kept)) => kept.failure(),
            _ => None,
        }
    }

    /// Whether what it does is kept.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorder.is_some()
    }

    /// Keeps a call and what it came to, where that is kept. What cannot be kept is not answered.
    pub(crate) fn keep<T>(
        &mut self,
        outcome: Result<T, CallError>,
        call: impl FnOnce(&Recordings) -> io::Result<Call>,
        answer: impl FnOnce(&Recordings, &T) -> io::Result<Value>,
    ) -> Result<T, CallError> {
        let host_calls = self.host_calls();
        let Some(recorder) = &mut self.recorder else {
            return outcome;
        };
        let parts = recorder.parts();
        let kept = call(parts).and_then(|call| {
            let said = match &outcome {
                Ok(value) => Outcome::Returned {
                    answer: answer(parts, value)?,
                },
                Err(error) => Outcome::failed(error),
            };
            Ok((call, said))
        });
        match kept {
            Ok((call, said)) => {
                recorder.add(call, said, host_calls);
                outcome
            }
            Err(error) => {
                self.close("failed");
                Err(self.unwritten(&error))
            }
        }
    }

    fn unwritten(&self, error: &impl std::fmt::Display) -> CallError {
        self.host(format!(
            "what it did could not be recorded, so it counts for nothing: {error}"
        ))
    }

    /// Calls into the host that have ended, where they are followed.
    pub(crate) fn host_calls(&mut self) -> u64 {
        if let Some(far) = &self.far {
            return far.host_calls;
        }
        self.trace().map_or(0, |trace| {
            trace.seal();
            trace.count()
        })
    }

    /// Where a replay first did something else, once so many calls should have been made.
    pub(crate) fn divergence(&mut self, calls: u64) -> Option<Divergence> {
        let trace = self.trace()?;
        trace.seal();
        trace.divergence(calls)
    }

    fn trace(&mut self) -> Option<&mut Trace> {
        if self.ended.is_some() {
            return self.ended.as_mut().map(|ended| &mut ended.trace);
        }
        self.store().ok()?.data_mut().ledger.trace()
    }

    /// Writes what was kept.
    fn write_recording(&mut self) -> io::Result<Option<Digest>> {
        let Some(recorder) = self.recorder.take() else {
            return Ok(None);
        };
        if let Some(traced) = self.traced.take() {
            return recorder.write(traced, Vec::new());
        }
        let Some(ended) = self.ended.take() else {
            return Err(io::Error::other("its process did not tell what it did"));
        };
        let exchanges = match ended.exchanges {
            Some(Exchanges::Record(kept)) => kept.exchanges(),
            _ => Vec::new(),
        };
        let traced = ended.trace.into_recorded().unwrap_or_default();
        recorder.write(traced, exchanges)
    }

    /// Takes the guest's own answer: its failure is an error, but the Store lives on.
    pub(crate) fn accept<T>(&mut self, answer: Result<T, Failure>) -> Result<T, CallError> {
        answer.map_err(|failure| self.failed(failure))
    }

    /// What the guest returned is not allowed. Closes the Store: a plugin that breaks the
    /// contract once is not asked again.
    pub(crate) fn bad_output(&mut self, what: impl Into<String>) -> CallError {
        self.close("bad output");
        CallError::BadOutput {
            plugin: self.plugin.clone(),
            stage: self.stage.clone(),
            what: what.into(),
        }
    }

    /// What is to be passed to the guest cannot be.
    pub(crate) fn bad_input(&self, what: impl Into<String>) -> CallError {
        CallError::BadInput {
            plugin: self.plugin.clone(),
            stage: self.stage.clone(),
            what: what.into(),
        }
    }

    /// The Store between calls.
    pub(crate) fn store(&mut self) -> Result<&mut Store<State>, CallError> {
        let store = self
            .store
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut();
        store.ok_or_else(|| CallError::Ended {
            plugin: self.plugin.clone(),
            stage: self.stage.clone(),
        })
    }

    /// Puts something into the table that the guest gets a handle of.
    pub(crate) fn push<T: Send + 'static>(&mut self, value: T) -> Result<Resource<T>, CallError> {
        let pushed = self.store()?.data_mut().table.push(value);
        pushed.map_err(|error| self.host(error.to_string()))
    }

    /// Rows in bytes, for another process.
    pub(crate) fn rows(&self, batch: &RecordBatch) -> Result<Vec<u8>, CallError> {
        let bytes = rows_to_bytes(&batch.schema(), std::slice::from_ref(batch));
        bytes.map_err(|error| self.bad_input(error.to_string()))
    }

    /// Counts rows that the guest is lent.
    pub(crate) fn count_rows(&mut self, rows: usize) {
        if let Ok(store) = self.store() {
            store.data_mut().ledger.count_rows(rows);
        }
    }

    /// Takes a batch that the guest has given up.
    pub(crate) fn take_batch(&mut self, batch: Resource<Batch>) -> Result<RecordBatch, CallError> {
        let taken = self.store()?.data_mut().take_batch(batch);
        taken.map_err(|error| self.host(error.to_string()))
    }

    /// Takes a predictor that the guest has given up.
    pub(crate) fn take_predictor(
        &mut self,
        predictor: compute::Predictor,
    ) -> Result<PredictorParts, CallError> {
        let state = self.store()?.data_mut();
        let taken = state.take_predictor(predictor);
        taken.map_err(|error| self.host(error.to_string()))
    }

    /// Something of the host went wrong.
    pub(crate) fn host(&self, reason: String) -> CallError {
        CallError::Host {
            plugin: self.plugin.clone(),
            stage: self.stage.clone(),
            reason,
        }
    }

    /// Ends the instance and says what it used. What was to be recorded is on record then.
    pub(crate) fn finish(mut self) -> Result<Usage, CallError> {
        self.close("finished");
        if let Some(lost) = &self.lost {
            return Err(self.unwritten(lost));
        }
        let written = self.write_recording();
        let recording = written.map_err(|error| self.unwritten(&error))?;
        Ok(Usage {
            recording,
            ..self.usage.take().unwrap_or_default()
        })
    }

    /// On whose behalf it acts.
    pub(crate) fn actor(&self) -> &Arc<Actor> {
        &self.actor
    }

    /// What it has used until now.
    pub(crate) fn usage_so_far(&mut self) -> Usage {
        match self.store() {
            Ok(store) => usage_of(store.data()),
            Err(_) => self.usage.clone().unwrap_or_default(),
        }
    }

    /// Ends the instance: its calls into the host, where they were followed.
    pub(crate) fn end_traced(mut self) -> Option<Traced> {
        self.close("finished");
        self.ended.take()?.trace.into_recorded()
    }

    fn failed(&mut self, failure: Failure) -> CallError {
        let failure = Failure {
            code: failure.code,
            message: text::sentence(&failure.message, MAX_SENTENCE_BYTES),
            hint: failure
                .hint
                .map(|hint| text::sentence(&hint, MAX_SENTENCE_BYTES)),
        };
        match (failure.code, self.actor.last_denial()) {
            (FailureCode::Denied, Some(denial)) => self.denied(denial),
            _ => CallError::Failed {
                plugin: self.plugin.clone(),
                stage: self.stage.clone(),
                failure,
            },
        }
    }

    fn denied(&self, denial: Denial) -> CallError {
        CallError::Denied {
            plugin: self.plugin.clone(),
            stage: self.stage.clone(),
            capability: denial.capability,
            detail: denial.detail,
            grant_with: denial.grant_with,
        }
    }

    fn over_limit(&self, over: OverLimit) -> CallError {
        CallError::OverLimit {
            plugin: self.plugin.clone(),
            stage: self.stage.clone(),
            limit: over.key.to_owned(),
            detail: over.detail,
        }
    }

    fn strayed(&self, strayed: &Strayed) -> CallError {
        CallError::Strayed {
            plugin: self.plugin.clone(),
            stage: self.stage.clone(),
            what: strayed.to_string(),
        }
    }

    fn out_of_time(&mut self, limit: TimeLimit) -> CallError {
        let limits = &self.actor.identity.grants.limits;
        CallError::Timeout {
            plugin: self.plugin.clone(),
            stage: self.stage.clone(),
            limit: limit.key().to_owned(),
            limit_seconds: limit.of(limits).as_secs_f64(),
        }
    }

    fn explain(&mut self, error: &wasmtime::Error) -> CallError {
        if let Some(out) = error.downcast_ref::<OutOfTime>() {
            return self.out_of_time(out.0);
        }
        if let Some(strayed) = error.downcast_ref::<Strayed>() {
            return self.strayed(strayed);
        }
        if let Some(told) = error.downcast_ref::<Told>() {
            let mut told = told.0.clone().of(&self.plugin, &self.stage);
            if let CallError::Trap { cause, .. } = &mut told
                && let Ok(store) = self.store()
                && let Some(last_words) = store.data().log.last_words()
            {
                add_last_words(cause, last_words);
            }
            return told;
        }
        let (mut refused, mut limit_bytes, mut last_words) = (false, 0, None);
        if let Ok(store) = self.store() {
            let state = store.data();
            refused = state.meter.memory_refused;
            limit_bytes = state.meter.memory_limit_bytes();
            last_words = state.log.last_words().map(str::to_owned);
        }
        if refused {
            return CallError::MemoryLimit {
                plugin: self.plugin.clone(),
                stage: self.stage.clone(),
                limit_bytes,
            };
        }
        // What the system did not give for an instance, before any of the guest ran, is none of the
        // guest's doing.
        if let Some(system) = error.root_cause().downcast_ref::<io::Error>()
            && error.downcast_ref::<WasmBacktrace>().is_none()
        {
            return self.host(system.to_string());
        }
        if let Some(over) = OverLimit::of(error) {
            return self.over_limit(over);
        }
        let mut cause = match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => "it overflowed its stack".to_owned(),
            Some(trap) => trap.to_string(),
            None => text::sentence(&error.root_cause().to_string(), MAX_SENTENCE_BYTES),
        };
        if let Some(place) = error.downcast_ref::<WasmBacktrace>().and_then(place_of) {
            cause.push_str(&place);
        }
        if let Some(last_words) = last_words {
            add_last_words(&mut cause, &last_words);
        }
        CallError::Trap {
            plugin: self.plugin.clone(),
            stage: self.stage.clone(),
            cause,
        }
    }

    /// Drops the Store, once its use is written down.
    fn close(&mut self, outcome: &str) {
        if let Some(far) = self.far.take() {
            self.close_far(far, outcome);
            return;
        }
        self.reclaim_or_end(outcome);
        let Some(store) = self
            .store
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        else {
            return;
        };
        let mut store = store;
        // What it printed in a call that nobody waited for to the end.
        noise::flush(store.data_mut());
        let trace = store.data_mut().ledger.take_trace();
        let state = store.data();
        self.ended = trace.map(|trace| Ended {
            trace,
            exchanges: state.exchanges.clone(),
        });
        let usage = usage_of(state);
        let device = state.compute.device.kind();
        let computed = state.compute.budget.used();
        let computed = computed.map(|computed| (device, computed));
        self.record_end(&state.actor, computed, &usage, outcome);
        let memory_bytes = usage.peak_memory_bytes;
        self.usage = Some(usage);
        // What is under way in the Store ends with it, and puts that on record.
        let actor = Arc::clone(&state.actor);
        // Much memory takes some milliseconds to give back.
        match memory_bytes {
            ..=SMALL_MEMORY => drop(store),
            _ => blocking(|| match &self.long {
                Some(long) => long.drop_there(store),
                None => drop(store),
            }),
        }
        self.lost = actor.lost().map(str::to_owned);
        // A process whose instance did not end well ends with it.
        if let Some(process) = self.guest.take()
            && outcome == "finished"
        {
            process.end(true);
        }
        self.place.ended(outcome);
    }

    /// Writes down what an instance used, and before it what it computed, in one piece.
    fn record_end(
        &self,
        actor: &Actor,
        computed: Option<(DeviceKind, Computed)>,
        usage: &Usage,
        outcome: &str,
    ) {
        match &self.ends {
            Ends::Recorded => {}
            Ends::Summed(tally) => {
                let computed = computed.map(|(_, computed)| computed);
                return tally.add(usage, computed, outcome);
            }
            Ends::Untold => return,
        }
        let run = || actor.context.run.clone();
        let plugin = || actor.identity.reference.clone();
        let stage = || actor.context.stage.clone();
        let computed = computed.map(|(device, computed)| Event::ComputeUsed {
            run: run(),
            plugin: plugin(),
            stage: stage(),
            device: device.to_string(),
            programs: computed.programs,
            seconds: computed.took.as_secs_f64(),
            peak_bytes: computed.peak_bytes,
            flops: computed.flops,
        });
        let ended = Event::CallsFinished {
            run: run(),
            plugin: plugin(),
            stage: stage(),
            host_calls: usage.host_calls.clone(),
            host_use: usage.host_use.clone(),
            bytes_in: usage.bytes_in,
            bytes_out: usage.bytes_out,
            guest_seconds: usage.guest_seconds,
            peak_memory_bytes: usage.peak_memory_bytes,
            denials: usage.denials,
            outcome: outcome.to_owned(),
        };
        let events = computed.into_iter().chain([ended]).collect();
        if let Err(error) = actor.audit.append_all(events) {
            actor.lose("the end of an instance", &error);
        }
    }
}

fn usage_of(state: &State) -> Usage {
    let mut host_calls = state.ledger.calls();
    if state.http.calls() > 0 {
        host_calls.insert("http.handle".to_owned(), state.http.calls());
    }
    Usage {
        host_calls,
        host_use: state.ledger.spent(),
        bytes_in: state.ledger.bytes_in(),
        bytes_out: state.ledger.bytes_out(),
        guest_seconds: state.clock.guest_seconds(),
        peak_memory_bytes: state.meter.peak_memory_bytes(),
        denials: state.actor.denials(),
        recording: None,
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.close(if self.in_call {
            "cancelled"
        } else {
            "finished"
        });
        if let Err(error) = self.write_recording() {
            tracing::error!(%error, plugin = %self.plugin, "what an instance did could not be recorded");
        }
    }
}

fn add_last_words(cause: &mut String, last_words: &str) {
    cause.push_str("; its last words: ");
    cause.push_str(last_words);
}

/// The functions a trap came from, innermost first, as far as they have names.
fn place_of(backtrace: &WasmBacktrace) -> Option<String> {
    let names: Vec<String> = backtrace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .take(3)
        .map(|name| text::sentence(&wasmtime_demangle(name), 80))
        .collect();
    (!names.is_empty()).then(|| format!(" in {}", names.join(", from ")))
}

/// A symbol without the hash that Rust puts at its end.
fn wasmtime_demangle(symbol: &str) -> String {
    match symbol.rsplit_once("17h") {
        Some((path, hash)) if hash.len() == 17 && hash.ends_with('E') => path.to_owned(),
        _ => symbol.to_owned(),
    }
}

pub(crate) fn outcome_of(error: &CallError) -> &'static str {
    match error {
        CallError::Trap { .. } => "trapped",
        CallError::Timeout { .. } => "out of time",
        CallError::MemoryLimit { .. } => "out of memory",
        CallError::OverLimit { .. } => "over a limit",
        CallError::Denied { .. } => "denied",
        CallError::BadOutput { .. } => "bad output",
        CallError::Host { .. } => "host",
        CallError::Strayed { .. } => STRAYED,
        _ => "failed",
    }
}

/// A guest's failure as the host tells of it.
pub(crate) fn failure_of(failure: types::Failure) -> Failure {
    Failure {
        code: code_of(failure.code),
        message: text::sentence(&failure.message, MAX_SENTENCE_BYTES),
        hint: failure
            .hint
            .map(|hint| text::sentence(&hint, MAX_SENTENCE_BYTES)),
    }
}

fn code_of(code: types::FailureCode) -> FailureCode {
    match code {
        types::FailureCode::InvalidConfig => FailureCode::InvalidConfig,
        types::FailureCode::InvalidInput => FailureCode::InvalidInput,
        types::FailureCode::Denied => FailureCode::Denied,
        types::FailureCode::Unavailable => FailureCode::Unavailable,
        types::FailureCode::Exhausted => FailureCode::Exhausted,
        types::FailureCode::Unsupported => FailureCode::Unsupported,
        types::FailureCode::Internal => FailureCode::Internal,
    }
}

#[cfg(test)]
mod tests;
