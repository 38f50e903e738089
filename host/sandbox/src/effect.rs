//! What a plugin does outside of the sandbox: on record before it is done, and again when it has
//! ended, with what it came to.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use sandcast_audit::{AuditError, AuditLog, Digest, Event};
use thiserror::Error;

use crate::grants::Capability;
use crate::limits::OverLimit;
use crate::plugin::CallContext;
use crate::state::{Denial, Identity};

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
    pub(crate) entries: Entries,
}

/// How many effects and denials of an instance are on record.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    number: AtomicU32,
    /// Whether there was one more than may be.
    is_full: AtomicBool,
}

/// Why something is not on record that is about to be done.
#[derive(Debug, Error)]
pub(crate) enum Unannounced {
    #[error(transparent)]
    Log(#[from] AuditError),
    #[error("the instance has as many entries as `limits.entries` says")]
    Full,
}

/// What was refused to an instance.
#[derive(Debug, Default)]
pub(crate) struct Denied {
    times: u64,
    /// The digests of those that are on record.
    known: HashSet<Digest>,
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

    /// How many times something was refused.
    pub(crate) fn denials(&self) -> u64 {
        let held = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        held.times
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

    /// Whether one more entry may be made. Once it may not, the instance is to be ended.
    fn take_entry(&self) -> bool {
        let most = self.identity.grants.limits.entries;
        let number = self.entries.number.fetch_add(1, Ordering::Relaxed);
        if number < most && !self.entries.is_full.load(Ordering::Relaxed) {
            return true;
        }
        self.entries.is_full.store(true, Ordering::Relaxed);
        false
    }

    /// What the instance is to be ended for, if it did more than is put on record.
    pub(crate) fn over(&self) -> Option<OverLimit> {
        let most = self.identity.grants.limits.entries;
        let is_full = self.entries.is_full.load(Ordering::Relaxed);
        is_full.then(|| OverLimit {
            key: "limits.entries",
            detail: format!(
                "it did, or was refused, more than {most} things, and more would not be on record"
            ),
        })
    }

    /// Records that something was refused, with the line that would grant it. The same thing is on record
    /// once.
    pub(crate) fn deny_with(&self, capability: &str, detail: String, grant_with: String) {
        let denial = Denial {
            capability: capability.to_owned(),
            detail,
            grant_with,
        };
        let mut held = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        held.times += 1;
        held.last = Some(denial.clone());
        let digest = denial.digest();
        if held.known.contains(&digest) || !self.take_entry() {
            return;
        }
        held.known.insert(digest);
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
    pub(crate) fn announce(&self, act: Act) -> Result<u64, Unannounced> {
        if !self.take_entry() {
            return Err(Unannounced::Full);
        }
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
    pub(crate) fn begin(self: &Arc<Self>, act: Act) -> Result<Effect, Unannounced> {
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
