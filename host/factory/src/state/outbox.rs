//! Events of effects: written with the effect in one transaction, then to the audit log, then
//! taken out. A process that is killed in between leaves the event here, and the next one that
//! opens the state puts it into the log, once.

use rusqlite::Transaction;
use sandcast_audit::{AuditError, AuditLog, Entry, Event};

use super::{State, StateError, from_json, to_json};
use crate::clock;

/// Writes an event along with its effect.
pub(crate) fn post(
    transaction: &Transaction<'_>,
    event: &Event,
) -> Result<(), rusqlite::Error> {
    let statement = "INSERT INTO outbox (posted, event) VALUES (?1, ?2)";
    transaction.execute(statement, [clock::now(), to_json(event)?]).map(|_| ())
}

impl State {
    /// Puts what is in the outbox into the audit log. With `after_a_crash`, an event that is in
    /// the log already is not written again.
    pub(crate) fn empty_outbox(
        &self,
        audit: &AuditLog,
        after_a_crash: bool,
    ) -> Result<(), OutboxError> {
        let waiting: Vec<(i64, String, Event)> = self.read("read the outbox", |connection| {
            let mut statement =
                connection.prepare("SELECT id, posted, event FROM outbox ORDER BY id")?;
            let rows = statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
            rows.map(|row| row.and_then(|(id, posted, event)| Ok((id, posted, from_json(&event)?))))
                .collect()
        })?;
        if waiting.is_empty() {
            return Ok(());
        }
        let logged = if after_a_crash { audit.entries()? } else { Vec::new() };
        for (id, posted, event) in waiting {
            // The same effect may have been had before; its entry is older than the posting.
            let is_logged = |entry: &Entry| {
                entry.event == event && !clock::is_before(&entry.time, &posted)
            };
            if !logged.iter().any(is_logged) {
                audit.append(event)?;
            }
            self.write("take an event out of the outbox", |transaction| {
                transaction.execute("DELETE FROM outbox WHERE id = ?1", [id]).map(|_| ())
            })?;
        }
        Ok(())
    }
}

/// Why an event of an effect did not reach the audit log. It stays in the outbox.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The audit log could not be read or written.
    #[error(transparent)]
    Audit(#[from] AuditError),
}
