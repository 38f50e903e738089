//! What a plugin does outside of the sandbox: on record before it is done, and again when it has
//! ended, with what it came to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use sandcast_audit::{AuditError, AuditLog, Digest, Event};

use crate::grants::Capability;
use crate::plugin::CallContext;
use crate::state::{Denial, Identity};

/// Denials of one instance that are written to the audit log; more are counted only.
const MAX_RECORDED_DENIALS: u32 = 32;

/// Something that is about to be done.
pub(crate) struct Act {
    pub(crate) capability: Capability,
    /// What is done, such as `GET`.
    pub(crate) action: &'static str,
    /// To what, without payloads and secrets.
    pub(crate) target: String,
    /// The digest of what is left out of the target.
    pub(crate) digest: Option<Digest>,
    /// The reference of the secret that goes along.
    pub(crate) secret: Option<String>,
}

/// On whose behalf something is done or refused, also while the guest goes on and nobody has its
/// state.
pub(crate) struct Actor {
    pub(crate) identity: Arc<Identity>,
    pub(crate) context: CallContext,
    pub(crate) audit: AuditLog,
    /// What was refused.
    pub(crate) denied: Mutex<Denied>,
    /// What could not be put on record, and why: nothing that is answered counts after that.
    pub(crate) lost: OnceLock<String>,
}

/// What was refused to an instance.
#[derive(Debug, Default)]
pub(crate) struct Denied {
    times: u32,
    last: Option<Denial>,
    /// Those that are on record, until they are taken.
    recorded: Vec<Denial>,
}

impl Actor {
    /// The last thing that was refused; explains a failure the guest reports as a denial.
    pub(crate) fn last_denial(&self) -> Option<Denial> {
        // A panic elsewhere leaves a whole value.
        let held = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        held.last.clone()
    }

    /// What was refused since this was asked last.
    pub(crate) fn take_denials(&self) -> Vec<Denial> {
        let mut held = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut held.recorded)
    }

    /// Records that something was refused. The line of the pipeline that would grant it is made
    /// from the capability.
    pub(crate) fn deny(&self, capability: Capability, detail: String) {
        let grant_with = capability.grant_with(&self.identity.name);
        self.deny_with(capability.as_str(), detail, grant_with);
    }

    /// Records that something was refused, with the line that would grant it.
    pub(crate) fn deny_with(&self, capability: &str, detail: String, grant_with: String) {
        let denial = Denial {
            capability: capability.to_owned(),
            detail,
            grant_with,
        };
        let mut held = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = held.last.as_ref() != Some(&denial) && held.times < MAX_RECORDED_DENIALS;
        held.times = held.times.saturating_add(1);
        held.last = Some(denial.clone());
        if !is_new {
            return;
        }
        held.recorded.push(denial.clone());
        drop(held);
        tracing::warn!(
            plugin.id = %self.identity.reference.id,
            stage = %self.context.stage,
            capability = %denial.capability,
            detail = %denial.detail,
            "denied"
        );
        let event = Event::Denied {
            run: self.context.run.clone(),
            plugin: self.identity.reference.clone(),
            stage: self.context.stage.clone(),
            capability: denial.capability,
            detail: denial.detail,
            grant_with: denial.grant_with,
        };
        if let Err(error) = self.audit.append(event) {
            self.lose("a denial", &error);
        }
    }

    /// Remembers that something is not on record.
    pub(crate) fn lose(&self, what: &str, error: &AuditError) {
        tracing::error!(%error, plugin = %self.identity.name, "{what} could not be recorded");
        // The first is told.
        let _ = self.lost.set(format!("{what}: {error}"));
    }

    /// What is not on record and should be, if anything is.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// Puts something on record that is about to be done, and says in which entry. Where that fails,
    /// it must not be done.
    pub(crate) fn announce(&self, act: Act) -> Result<u64, AuditError> {
        let entry = self.audit.append(Event::Effect {
            run: self.context.run.clone(),
            plugin: self.identity.reference.clone(),
            stage: self.context.stage.clone(),
            capability: act.capability.to_string(),
            action: act.action.to_owned(),
            target: act.target,
            digest: act.digest,
            secret: act.secret,
        })?;
        Ok(entry.sequence)
    }

    /// The same for something that takes a while: its end is put on record too.
    pub(crate) fn begin(self: &Arc<Self>, act: Act) -> Result<Effect, AuditError> {
        Ok(Effect {
            entry: self.announce(act)?,
            actor: Arc::clone(self),
            began: Instant::now(),
            outcome: "left before its end".to_owned(),
            bytes_out: Arc::default(),
            bytes_in: 0,
        })
    }
}

/// Something under way. When it is dropped, what it came to is put on record.
pub(crate) struct Effect {
    actor: Arc<Actor>,
    /// The entry that announced it.
    entry: u64,
    began: Instant,
    /// How it ended, in a word or a sentence.
    pub(crate) outcome: String,
    pub(crate) bytes_out: Arc<AtomicU64>,
    pub(crate) bytes_in: u64,
}

impl Drop for Effect {
    fn drop(&mut self) {
        let event = Event::EffectFinished {
            run: self.actor.context.run.clone(),
            plugin: self.actor.identity.reference.clone(),
            stage: self.actor.context.stage.clone(),
            effect: self.entry,
            outcome: std::mem::take(&mut self.outcome),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            bytes_in: self.bytes_in,
            seconds: self.began.elapsed().as_secs_f64(),
        };
        if let Err(error) = self.actor.audit.append(event) {
            self.actor.lose("what an effect came to", &error);
        }
    }
}
