//! Plugins as insiders whose conduct is known.
//!
//! Every component has a standing ([`StandingRecord`]) and, for each place in which it runs, a
//! [`Baseline`]: what it calls, what it takes in and hands out, where its requests go, how long it
//! takes. Both come from the audit log alone; `cache.rs` holds what was read of it. After each run
//! what every component did is scored against its baseline; a [`Deviation`] is told, recorded, and
//! answered as the pipeline's [`ConductSection`] says.
//!
//! One run cannot teach a component's baseline much: medians are not moved by one value, a function
//! or a target is known once two runs had it, and a run that deviates teaches nothing until an
//! operator has taken it.

mod baseline;
mod bounds;
mod cache;
mod fold;
mod folding;
mod judge;
mod observation;
mod rules;
mod score;
mod standing;
mod statistics;
mod tell;

use std::path::{Path, PathBuf};

use sandcast_audit::{AuditError, AuditLog, Digest, Entry, Event, PluginRef, RunId, Standing};
use thiserror::Error;

pub use baseline::{Baseline, FunctionUse};
pub use judge::{Judged, JudgedPlugin};
pub use observation::{Lesson, Most, Observation, Place, Seen};
pub use rules::{Admission, ConductSection, Isolate, Response};
pub use score::{Deviation, figure};
pub use standing::{Action, StandingRecord, operator};
pub use tell::{PlaceTold, PluginTold, standing_in};

pub(crate) use fold::is_one_of;

use cache::Cache;
use standing::Change;

/// What is known of the plugins of a state folder. Cheap to clone.
#[derive(Clone)]
pub struct Conduct {
    cache: Cache,
    audit: AuditLog,
    log: PathBuf,
}

/// Why something is not known of a plugin, or not done about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConductError {
    /// What was read of the audit log cannot be kept or read.
    #[error(
        "what is known of the conduct of plugins cannot be used: {0}; it is made again from the audit log where `conduct.sqlite` is deleted from the state folder"
    )]
    Cache(#[from] rusqlite::Error),
    /// Somebody else writes the standings at this moment.
    #[error(
        "somebody else than this program writes the standings in `conduct.sqlite` just now; see who can write the state folder, and ask again: they are then read from the audit log"
    )]
    Changed,
    /// The key that seals what was read cannot be read or made.
    #[error(
        "{} cannot be used: {source}; where it is deleted, a new one is made, and what is known of the conduct of plugins is read from the audit log again", path.display()
    )]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The audit log cannot be read or written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The component may not be loaded.
    #[error("{} is {} since {} ({}: {}){}", named(&record.plugin), record.standing, record.since, who(record), record.reason, way_back(record))]
    Refused {
        /// What is known of it.
        record: Box<StandingRecord>,
    },
    /// The component was never seen here, and the pipeline wants an operator to let it in.
    #[error("{} was never seen here; `sandcast plugins admit {} --reason TEXT` with its file lets it in (`conduct.admission` of the pipeline is `operator`)", named(plugin), plugin.id)]
    NotAdmitted {
        /// The component.
        plugin: Box<PluginRef>,
    },
    /// What an operator wants does not apply.
    #[error("cannot {} {}: {why}", action.as_str(), named(plugin))]
    DoesNotApply {
        /// What is wanted.
        action: Action,
        /// Of what.
        plugin: Box<PluginRef>,
        /// Why not.
        why: &'static str,
    },
    /// Somebody else decided at the same time, and was first.
    #[error(
        "{} was given another standing at the same time: it is {standing} now; look at it with `sandcast plugins show`",
        named(plugin)
    )]
    Overtaken {
        /// The component.
        plugin: Box<PluginRef>,
        /// The standing it has.
        standing: Standing,
    },
    /// An entry that was written is not in the log.
    #[error(
        "entry {sequence} of the audit log is not there although it was written; `sandcast audit verify` says what is"
    )]
    Lost {
        /// The number of the entry.
        sequence: u64,
    },
    /// A decision has no reason.
    #[error("a decision about a plugin needs a reason; say it with `--reason`")]
    NoReason,
}

fn named(plugin: &PluginRef) -> String {
    let digest = standing::short(&plugin.digest);
    format!("plugin {} {} ({digest})", plugin.id, plugin.version)
}

fn who(record: &StandingRecord) -> &str {
    record.operator.as_deref().unwrap_or("by rule")
}

fn way_back(record: &StandingRecord) -> String {
    let digest = standing::short(&record.plugin.digest);
    match record.standing {
        Standing::Revoked => "; that is final for this digest: use another version".to_owned(),
        _ => format!(
            "; `sandcast plugins show {digest}` tells what it did, and `sandcast plugins release \
             {digest} --reason TEXT` lets it be loaded again"
        ),
    }
}

impl ConductError {
    /// Whether a plugin or a command is refused, and nothing of the host is wrong.
    pub fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Cache(_) | Self::Key { .. } | Self::Audit(_) | Self::Lost { .. }
        )
    }
}

impl Conduct {
    /// What is known in a state folder whose audit log is open.
    ///
    /// # Errors
    /// If it cannot be read or kept.
    pub(crate) fn open(folder: &Path, audit: AuditLog) -> Result<Self, ConductError> {
        Ok(Self {
            cache: Cache::open(folder)?,
            audit,
            log: folder.join("audit"),
        })
    }

    /// What is known in a state folder, without the rest of its workspace.
    ///
    /// # Errors
    /// If its audit log cannot be opened, or what is known cannot be kept.
    pub fn of_state(folder: &Path) -> Result<Self, ConductError> {
        let audit = AuditLog::open(&folder.join("audit"))?;
        Self::open(folder, audit)
    }

    /// Takes in what the audit log has gained. The number of entries that were read.
    ///
    /// # Errors
    /// If the log cannot be read, or what was read cannot be kept.
    pub fn catch_up(&self) -> Result<u64, ConductError> {
        self.cache.catch_up(&self.log)
    }

    /// The standing of a component as of now.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn standing(&self, digest: &Digest) -> Result<Option<StandingRecord>, ConductError> {
        self.catch_up()?;
        self.cache.standing(digest)
    }

    /// Lets a component be looked at in its sandbox, without any effect: how far it is trusted, or why
    /// not. It is not made known by that.
    ///
    /// # Errors
    /// If it is quarantined or revoked; or its standing cannot be read, which is the same as a no.
    pub fn let_look(&self, plugin: &PluginRef) -> Result<Standing, ConductError> {
        match self.standing(&plugin.digest)? {
            Some(record) if !record.standing.may_load() => Err(ConductError::Refused {
                record: Box::new(record),
            }),
            Some(record) => Ok(record.standing),
            None => Ok(Standing::Admitted),
        }
    }

    /// Lets a component be loaded, or says why not. One that was never seen here is given a
    /// standing: probation where another version of it is known, else it is admitted.
    ///
    /// # Errors
    /// If it is quarantined or revoked, or unknown where an operator must admit it; or its standing
    /// cannot be read or written, which is the same as a no.
    pub fn let_in(
        &self,
        plugin: &PluginRef,
        admission: Admission,
        run: Option<&RunId>,
    ) -> Result<StandingRecord, ConductError> {
        let known = self.standing(&plugin.digest)?;
        let record = match known {
            Some(record) => record,
            None if admission == Admission::Operator => {
                return Err(ConductError::NotAdmitted {
                    plugin: Box::new(plugin.clone()),
                });
            }
            None => self.introduce(plugin, run)?,
        };
        if record.standing.may_load() {
            return Ok(record);
        }
        Err(ConductError::Refused {
            record: Box::new(record),
        })
    }

    fn introduce(
        &self,
        plugin: &PluginRef,
        run: Option<&RunId>,
    ) -> Result<StandingRecord, ConductError> {
        let standings = self.cache.standings()?;
        let others = standings.into_iter().filter(|it| it.plugin.id == plugin.id);
        let before = others.max_by_key(|it| it.sequence);
        let has_run = || -> Result<bool, ConductError> {
            let seen = self.cache.components()?;
            Ok(seen.iter().any(|it| it.id == plugin.id))
        };
        let (to, reason) = match before {
            Some(before) => (
                Standing::Probation,
                format!(
                    "another component of its id is known: version {} ({}) is {}; it is held to \
                     what that one did until it has runs of its own",
                    before.plugin.version,
                    standing::short(&before.plugin.digest),
                    before.standing
                ),
            ),
            None if has_run()? => (
                Standing::Probation,
                "it ran before standings were kept".to_owned(),
            ),
            None => (
                Standing::Admitted,
                "it is loaded for the first time".to_owned(),
            ),
        };
        self.change(Change {
            plugin: plugin.clone(),
            from: None,
            to,
            throttled: false,
            accepts: false,
            operator: None,
            reason,
            run: run.cloned(),
            approval: None,
        })
    }

    /// Writes a change down and says what holds then, which is something else where another
    /// process was faster.
    fn change(&self, change: Change) -> Result<StandingRecord, ConductError> {
        let digest = change.plugin.digest;
        let entry = self.audit.append(change.into())?;
        let record = self.standing(&digest)?;
        let sequence = entry.sequence;
        record.ok_or(ConductError::Lost { sequence })
    }

    /// Does what an operator decided about a component.
    ///
    /// # Errors
    /// If there is no reason, the decision does not apply to its standing, somebody else was
    /// faster, or the log cannot be written.
    pub fn decide(
        &self,
        action: Action,
        plugin: &PluginRef,
        operator: &str,
        reason: &str,
    ) -> Result<StandingRecord, ConductError> {
        if reason.trim().is_empty() {
            return Err(ConductError::NoReason);
        }
        let before = self.standing(&plugin.digest)?;
        let to = action
            .leads_to(before.as_ref())
            .map_err(|why| ConductError::DoesNotApply {
                action,
                plugin: Box::new(plugin.clone()),
                why,
            })?;
        let entry = Change {
            plugin: plugin.clone(),
            from: before.map(|record| record.standing),
            to,
            throttled: false,
            accepts: action.accepts(),
            operator: Some(sandcast_sandbox::sentence(operator, 256)),
            reason: sandcast_sandbox::sentence(reason.trim(), 1024),
            run: None,
            approval: None,
        };
        let wanted = (entry.to, entry.reason.clone());
        let record = self.change(entry)?;
        if (record.standing, record.reason.clone()) == wanted {
            return Ok(record);
        }
        Err(ConductError::Overtaken {
            plugin: Box::new(plugin.clone()),
            standing: record.standing,
        })
    }

    /// Whether a decision would apply to a component, and what is known of it.
    ///
    /// # Errors
    /// If it does not apply, or the log cannot be read.
    pub fn could_decide(
        &self,
        action: Action,
        plugin: &PluginRef,
    ) -> Result<Option<StandingRecord>, ConductError> {
        let before = self.standing(&plugin.digest)?;
        match action.leads_to(before.as_ref()) {
            Ok(_) => Ok(before),
            Err(why) => Err(ConductError::DoesNotApply {
                action,
                plugin: Box::new(plugin.clone()),
                why,
            }),
        }
    }

    /// Releases a component because somebody approved exactly that, once for each approval: the
    /// entry names it, and one that is in the log already is not made again. Where the component has
    /// another standing by now than the one that was looked at, nothing is done, and why is given back.
    ///
    /// # Errors
    /// If the log cannot be read or written.
    pub fn release_as_approved(
        &self,
        approval: &str,
        plugin: &PluginRef,
        standing: u64,
        operator: &str,
        reason: &str,
    ) -> Result<Result<(), String>, ConductError> {
        let is_done = |entry: &Entry| match &entry.event {
            Event::StandingChanged { approval: by, .. } => by.as_deref() == Some(approval),
            _ => false,
        };
        if self.audit.entries()?.iter().any(is_done) {
            return Ok(Ok(()));
        }
        let before = self.standing(&plugin.digest)?;
        let Some(before) = before.filter(|record| record.sequence == standing) else {
            return Ok(Err("it has been given another standing since".to_owned()));
        };
        let to = match Action::Release.leads_to(Some(&before)) {
            Ok(to) => to,
            Err(why) => return Ok(Err(why.to_owned())),
        };
        let record = self.change(Change {
            plugin: plugin.clone(),
            from: Some(before.standing),
            to,
            throttled: false,
            accepts: Action::Release.accepts(),
            operator: Some(sandcast_sandbox::sentence(operator, 256)),
            reason: sandcast_sandbox::sentence(reason.trim(), 1024),
            run: None,
            approval: Some(approval.to_owned()),
        })?;
        match record.standing == to {
            true => Ok(Ok(())),
            false => Ok(Err(
                "it was given another standing at the same time".to_owned()
            )),
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
