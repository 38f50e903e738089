//! What instances did, as it is on record.

use sandcast_audit::{AuditLog, Event};

/// What is on record of effects and denials.
pub(crate) fn effects(audit: &AuditLog) -> Vec<String> {
    let entries = audit.entries().expect("a log in memory").into_iter();
    entries
        .filter_map(|entry| match entry.event {
            Event::Effect {
                capability,
                action,
                target,
                ..
            } => Some(format!("{capability} {action} {target}")),
            Event::Denied {
                detail, grant_with, ..
            } => Some(format!("denied {detail}: {grant_with}")),
            _ => None,
        })
        .collect()
}
