//! The life of a component, by its digest: admitted, probation, trusted, quarantined, revoked.
//!
//! Every change is an entry of the audit log that names the standing before it. Where that is not
//! the standing the component has by then, because another process was faster, the entry changes
//! nothing; so whoever reads the log comes to the same standing, and nothing is lost by a crash.

use std::num::NonZeroU32;

use sandcast_audit::{Digest, Entry, Event, PluginRef, RunId, Standing};
use sandcast_sandbox::Grants;
use serde::{Deserialize, Serialize};

use super::rules::Isolate;

/// What is known of the standing of a component.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StandingRecord {
    /// The component.
    pub plugin: PluginRef,
    /// How far it is trusted.
    pub standing: Standing,
    /// Whether its instances are slowed down.
    pub throttled: bool,
    /// Since when, RFC 3339.
    pub since: String,
    /// The entry of the audit log that says so.
    pub sequence: u64,
    /// The operator who decided, or none where it was a rule.
    pub operator: Option<String>,
    /// Why.
    pub reason: String,
    /// The run that gave the occasion, if any.
    pub run: Option<RunId>,
    /// Runs since then in which it did nothing unusual, one after the other.
    pub clean_runs: u32,
    /// What it did up to this entry counts as usual.
    pub accepted_until: u64,
}

impl StandingRecord {
    /// What is left of the grants of the component: where it is not trusted it may run in processes of
    /// its own, and where it is slowed down it sends one request at a time.
    pub(crate) fn leaves(&self, isolate: Isolate, grants: Grants) -> Grants {
        let mut grants = isolate.applied(self.standing, grants);
        if self.throttled {
            for grant in &mut grants.http {
                grant.at_once = NonZeroU32::MIN;
            }
        }
        grants
    }
}

/// What an operator can decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It may be loaded.
    Admit,
    /// Its operator vouches for it, and for what it has done so far.
    Trust,
    /// It is not loaded until it is released.
    Quarantine,
    /// It is never loaded again.
    Revoke,
    /// It may be loaded again, on probation and at full pace; what it has done so far is taken.
    Release,
}

impl Action {
    /// The word of the command.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Trust => "trust",
            Self::Quarantine => "quarantine",
            Self::Revoke => "revoke",
            Self::Release => "release",
        }
    }

    /// Where it leads from a standing, or why it does not apply.
    pub(crate) fn leads_to(self, from: Option<&StandingRecord>) -> Result<Standing, &'static str> {
        use Standing::{Admitted, Probation, Quarantined, Revoked, Trusted};
        let throttled = from.is_some_and(|record| record.throttled);
        match (self, from.map(|record| record.standing)) {
            (_, Some(Revoked)) => Err("it is revoked, which is final for this digest"),
            (Self::Revoke, _) => Ok(Revoked),
            (Self::Quarantine, Some(Quarantined)) => Err("it is quarantined already"),
            (Self::Quarantine, _) => Ok(Quarantined),
            (Self::Admit, None) => Ok(Admitted),
            (Self::Admit, Some(Quarantined)) => Err("it is quarantined; `release` it"),
            (Self::Admit, Some(_)) => Err("it is admitted already"),
            (Self::Trust, Some(Quarantined)) => Err("it is quarantined; `release` it first"),
            // Releasing is what may take a second person, so nothing else does the same.
            (Self::Trust, Some(_)) if throttled => Err("it is slowed down; `release` it first"),
            (Self::Trust, _) => Ok(Trusted),
            (Self::Release, Some(Quarantined)) => Ok(Probation),
            (Self::Release, Some(_)) if throttled => Ok(Probation),
            (Self::Release, _) => Err("it is neither quarantined nor throttled"),
        }
    }

    /// Whether it says that what a component has done so far is right.
    pub(crate) fn accepts(self) -> bool {
        matches!(self, Self::Trust | Self::Release)
    }
}

/// A change of standing that is to be written down.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) plugin: PluginRef,
    pub(crate) from: Option<Standing>,
    pub(crate) to: Standing,
    pub(crate) throttled: bool,
    pub(crate) accepts: bool,
    pub(crate) operator: Option<String>,
    pub(crate) reason: String,
    pub(crate) run: Option<RunId>,
    pub(crate) approval: Option<String>,
}

impl From<Change> for Event {
    fn from(change: Change) -> Event {
        Event::StandingChanged {
            plugin: change.plugin,
            from: change.from,
            to: change.to,
            throttled: change.throttled,
            accepts: change.accepts,
            operator: change.operator,
            reason: change.reason,
            run: change.run,
            approval: change.approval,
        }
    }
}

/// The standing after an entry of the log. `None` where it changes nothing.
pub(crate) fn after(before: Option<&StandingRecord>, entry: &Entry) -> Option<StandingRecord> {
    let Event::StandingChanged {
        plugin,
        from,
        to,
        throttled,
        accepts,
        operator,
        reason,
        run,
        approval: _,
    } = &entry.event
    else {
        return None;
    };
    let found = before.map(|record| record.standing);
    if found != *from || found == Some(Standing::Revoked) {
        return None;
    }
    // Trusted and slowed down do not go together: whoever decided did not know of the latter.
    if *to == Standing::Trusted && before.is_some_and(|record| record.throttled) {
        return None;
    }
    let accepted_before = before.map_or(0, |record| record.accepted_until);
    Some(StandingRecord {
        plugin: plugin.clone(),
        standing: *to,
        throttled: *throttled,
        since: entry.time.clone(),
        sequence: entry.sequence,
        operator: operator.clone(),
        reason: reason.clone(),
        run: run.clone(),
        clean_runs: 0,
        accepted_until: if *accepts {
            entry.sequence
        } else {
            accepted_before
        },
    })
}

/// Whether a text names a component: its id, or the beginning of its digest.
pub(crate) fn is_named(plugin: &PluginRef, text: &str) -> bool {
    /// Fewer digits of a digest are not enough to mean one.
    const MIN_DIGITS: usize = 8;
    let digest = plugin.digest.to_string();
    plugin.id == text || (text.len() >= MIN_DIGITS && digest.starts_with(text))
}

/// The user of this system who gives a command, by the name they have in their environment and the
/// number that the system has of them.
#[must_use]
pub fn operator() -> String {
    let name = ["USER", "LOGNAME"]
        .into_iter()
        .filter_map(|key| std::env::var(key).ok())
        .find(|name| !name.is_empty());
    let number = user_number();
    match (name, number) {
        (Some(name), Some(number)) => format!("{name} (uid {number})"),
        (Some(name), None) => name,
        (None, Some(number)) => format!("uid {number}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// The owner of this process, as the system shows it.
#[cfg(target_os = "linux")]
fn user_number() -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let own = std::fs::metadata("/proc/self").ok()?;
    Some(own.uid())
}

#[cfg(not(target_os = "linux"))]
fn user_number() -> Option<u32> {
    None
}

/// A digest as commands show it and take it.
pub(crate) fn short(digest: &Digest) -> String {
    digest.to_string().chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> PluginRef {
        PluginRef {
            id: "acme/crm".to_owned(),
            version: "1.0.0".to_owned(),
            role: "connector".to_owned(),
            digest: Digest::of(b"crm"),
        }
    }

    fn entry(sequence: u64, from: Option<Standing>, to: Standing, accepts: bool) -> Entry {
        let change = Change {
            plugin: plugin(),
            from,
            to,
            throttled: false,
            accepts,
            operator: Some("ann".to_owned()),
            reason: "a test".to_owned(),
            run: None,
            approval: None,
        };
        Entry {
            sequence,
            time: "2026-11-21T20:15:30Z".to_owned(),
            previous: Digest::ZERO,
            event: change.into(),
            digest: Digest::ZERO,
        }
    }

    fn folded(entries: &[Entry]) -> Option<StandingRecord> {
        let mut record = None;
        for entry in entries {
            if let Some(next) = after(record.as_ref(), entry) {
                record = Some(next);
            }
        }
        record
    }

    #[test]
    fn of_two_that_decide_at_once_the_first_counts() {
        use Standing::{Admitted, Quarantined, Trusted};
        let record = folded(&[
            entry(1, None, Admitted, false),
            entry(2, Some(Admitted), Quarantined, false),
            entry(3, Some(Admitted), Trusted, true),
        ])
        .expect("known");
        assert_eq!((record.standing, record.sequence), (Quarantined, 2));
        assert_eq!(record.accepted_until, 0);
    }

    #[test]
    fn what_is_slowed_down_is_not_trusted_by_somebody_who_did_not_know() {
        use Standing::{Admitted, Probation, Trusted};
        let mut slowed = entry(2, Some(Admitted), Probation, false);
        if let Event::StandingChanged { throttled, .. } = &mut slowed.event {
            *throttled = true;
        }
        let mut entries = vec![
            entry(1, None, Admitted, false),
            slowed,
            entry(3, Some(Probation), Trusted, true),
        ];
        let record = folded(&entries).expect("known");
        assert!(record.throttled);
        assert_eq!((record.standing, record.sequence), (Probation, 2));
        // Once it was released, it may be.
        entries.push(entry(4, Some(Probation), Probation, true));
        entries.push(entry(5, Some(Probation), Trusted, true));
        let record = folded(&entries).expect("known");
        assert_eq!((record.standing, record.throttled), (Trusted, false));
    }

    #[test]
    fn revoked_is_final() {
        use Standing::{Admitted, Probation, Revoked, Trusted};
        let record = folded(&[
            entry(1, None, Revoked, false),
            entry(2, Some(Revoked), Trusted, true),
            entry(3, None, Admitted, false),
            entry(4, Some(Revoked), Probation, true),
        ])
        .expect("known");
        assert_eq!((record.standing, record.sequence), (Revoked, 1));
        for action in [
            Action::Admit,
            Action::Trust,
            Action::Quarantine,
            Action::Revoke,
            Action::Release,
        ] {
            action
                .leads_to(Some(&record))
                .expect_err("nothing leads away");
        }
    }

    #[test]
    fn what_is_accepted_stays_accepted() {
        use Standing::{Admitted, Probation, Quarantined};
        let mut entries = vec![
            entry(1, None, Admitted, false),
            entry(2, Some(Admitted), Quarantined, false),
            entry(3, Some(Quarantined), Probation, true),
        ];
        assert_eq!(folded(&entries).map(|it| it.accepted_until), Some(3));
        entries.push(entry(4, Some(Probation), Quarantined, false));
        assert_eq!(folded(&entries).map(|it| it.accepted_until), Some(3));
    }

    #[test]
    fn actions_apply_where_they_mean_something() {
        assert_eq!(Action::Admit.leads_to(None), Ok(Standing::Admitted));
        assert_eq!(Action::Trust.leads_to(None), Ok(Standing::Trusted));
        Action::Release.leads_to(None).expect_err("not held");
        let held = folded(&[entry(1, None, Standing::Quarantined, false)]);
        let held = held.as_ref();
        assert_eq!(Action::Release.leads_to(held), Ok(Standing::Probation));
        for action in [Action::Admit, Action::Trust, Action::Quarantine] {
            action.leads_to(held).expect_err("released first");
        }
    }

    #[test]
    fn an_operator_is_somebody() {
        assert_ne!(operator(), "");
    }
}
