//! What the adapter of a model does while a server answers with it, from one stretch of time to the
//! next: added up, written down, and held against what it usually does.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sandcast_audit::{AuditError, AuditLog, Event, RunId};
use sandcast_sandbox::{Bounds, CallContext, Plugin, Role, Sum, Tally};

use super::STAGE;
use crate::conduct::{Conduct, ConductError, Place, Response, StandingRecord};
use crate::registry::ModelVersion;
use crate::workspace::Workspace;

/// What the adapter of a version usually does where it is served, and what becomes of it otherwise.
pub(super) struct Conducted {
    conduct: Conduct,
    audit: AuditLog,
    version: Arc<ModelVersion>,
    response: Response,
    /// As it is held at this moment, and the standing that this follows from, where it was looked at.
    held: RwLock<(Plugin, Option<u64>)>,
    stretches: Mutex<Stretches>,
}

/// A stretch of time in which a model is served.
#[derive(Clone)]
struct Stretch {
    id: RunId,
    began: Instant,
    /// How long it was, once it is over.
    took: Duration,
    tally: Arc<Tally>,
}

struct Stretches {
    current: Stretch,
    /// Those that are over, until the last instance of theirs has ended and they are written down.
    over: Vec<Stretch>,
    /// Those that are written down and still to be judged.
    written: Vec<RunId>,
}

impl Stretch {
    fn begin() -> Self {
        Self {
            id: RunId::generate(),
            began: Instant::now(),
            took: Duration::ZERO,
            tally: Arc::default(),
        }
    }

    /// Whether an instance may still come to something.
    fn is_under_way(&self) -> bool {
        Arc::strong_count(&self.tally) > 1
    }
}

/// What an adapter is held to where its version is served, which may be nothing.
pub(super) fn bounds(
    conduct: &Conduct,
    version: &ModelVersion,
    record: &StandingRecord,
) -> Result<Option<Bounds>, ConductError> {
    let place = Place::serving(&version.model);
    conduct.bounds(record, &place, &version.conduct, response(version))
}

fn response(version: &ModelVersion) -> Response {
    version
        .conduct
        .response_to(&version.adapter_name, Role::Adapter)
}

impl Conducted {
    pub(super) fn new(workspace: &Workspace, version: Arc<ModelVersion>, plugin: Plugin) -> Self {
        Self {
            conduct: workspace.conduct().clone(),
            audit: workspace.audit().clone(),
            response: response(&version),
            version,
            held: RwLock::new((plugin, None)),
            stretches: Mutex::new(Stretches {
                current: Stretch::begin(),
                over: Vec::new(),
                written: Vec::new(),
            }),
        }
    }

    /// What makes the instance that is asked about rows, on whose behalf, and where these are counted once
    /// it is there.
    pub(super) fn asked(&self) -> (Plugin, CallContext, Arc<Tally>) {
        let stretch = self.stretches().current.clone();
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let context = CallContext::new(Some(stretch.id), STAGE);
        let plugin = held.0.summed(Arc::clone(&stretch.tally));
        (plugin, context, stretch.tally)
    }

    /// Holds the adapter to what its standing wants now, where that has changed.
    pub(super) fn hold(&self, record: &StandingRecord) -> Result<(), ConductError> {
        let is_held = {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            held.1 == Some(record.sequence)
        };
        match is_held {
            true => Ok(()),
            false => self.hold_anew(record),
        }
    }

    fn hold_anew(&self, record: &StandingRecord) -> Result<(), ConductError> {
        let bounds = bounds(&self.conduct, &self.version, record)?;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        *held = (held.0.bounded(bounds), Some(record.sequence));
        Ok(())
    }

    /// Ends the stretch of time under way and writes down those whose instances have ended, or all of
    /// them where it is the last time. What cannot be written is kept for the next time.
    pub(super) fn write(&self, last: bool) -> Result<(), AuditError> {
        // Nobody who asks waits for the disk.
        let mut waiting = {
            let mut stretches = self.stretches();
            let mut over = std::mem::replace(&mut stretches.current, Stretch::begin());
            over.took = over.began.elapsed();
            let mut waiting = std::mem::take(&mut stretches.over);
            if over.is_under_way() || !over.tally.is_empty() {
                waiting.push(over);
            }
            waiting
        };
        let mut written = Vec::new();
        let mut result = Ok(());
        waiting.retain(|stretch| {
            if result.is_err() || (stretch.is_under_way() && !last) {
                return true;
            }
            let sum = stretch.tally.sum();
            // Somebody asked, and there was no instance that could have done anything.
            if sum.outcomes.is_empty() {
                return false;
            }
            result = self.audit.append(self.event(stretch, sum)).map(drop);
            if result.is_ok() {
                written.push(stretch.id.clone());
            }
            result.is_err()
        });
        let mut stretches = self.stretches();
        stretches.written.append(&mut written);
        stretches.over.append(&mut waiting);
        result
    }

    fn event(&self, stretch: &Stretch, sum: Sum) -> Event {
        Event::CallsServed {
            run: stretch.id.clone(),
            model: self.version.model.clone(),
            version: self.version.version,
            plugin: self.version.adapter.clone(),
            stage: STAGE.to_owned(),
            seconds: stretch.took.as_secs_f64(),
            rows: sum.rows,
            outcomes: sum.outcomes,
            host_calls: sum.usage.host_calls,
            host_use: sum.usage.host_use,
            bytes_in: sum.usage.bytes_in,
            bytes_out: sum.usage.bytes_out,
            guest_seconds: sum.usage.guest_seconds,
            peak_memory_bytes: sum.usage.peak_memory_bytes,
            denials: sum.usage.denials,
            compute_seconds: sum.compute.as_secs_f64(),
            compute_peak_bytes: sum.compute_peak_bytes,
            most: sum.most,
        }
    }

    /// Judges what is written down, and holds the adapter to what follows. The warnings.
    pub(super) fn judge(&self) -> Result<Vec<String>, ConductError> {
        let written = self.stretches().written.clone();
        let mut warnings = Vec::new();
        for id in &written {
            let rules = &self.version.conduct;
            let judged = self.conduct.judge_served(id, rules, self.response)?;
            warnings.extend(judged.warnings());
            self.stretches().written.retain(|waiting| waiting != id);
        }
        if !written.is_empty()
            && let Some(record) = self.conduct.standing(&self.version.adapter.digest)?
        {
            // What it does usually may be more by what was just learned.
            self.hold_anew(&record)?;
        }
        Ok(warnings)
    }

    fn stretches(&self) -> std::sync::MutexGuard<'_, Stretches> {
        self.stretches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Conducted {
    fn drop(&mut self) {
        if let Err(error) = self.write(true) {
            let (model, version) = (&self.version.model, self.version.version);
            tracing::error!(%error, %model, version, "what the adapter of a served model did is not in the audit log");
        }
    }
}
