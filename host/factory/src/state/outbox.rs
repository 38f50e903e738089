//! Events of effects: written with the effect in one transaction, then to the audit log, then
//! taken out. A process that is killed in between leaves the event here, and the next one that
//! opens the state puts it into the log, once.

use std::sync::{MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, Transaction};
use sandcast_audit::{AuditError, AuditLog, Event, SealKey, Settled, Waiting};

use super::{State, StateError, from_json, to_json};
use crate::clock;

const OUTBOX: &str = "outbox";

/// Writes an event along with its effect, sealed: what another hand puts there is not signed as if it had
/// happened here.
pub(crate) fn post(
    transaction: &Transaction<'_>,
    key: Option<&SealKey>,
    event: &Event,
) -> Result<(), rusqlite::Error> {
    let (posted, event) = (clock::now(), to_json(event)?);
    let seal = key.map_or_else(String::new, |key| seal_of(key, &posted, &event));
    let statement = "INSERT INTO outbox (posted, event, seal) VALUES (?1, ?2, ?3)";
    transaction
        .execute(statement, [posted, event, seal])
        .map(|_| ())
}

fn seal_of(key: &SealKey, posted: &str, event: &str) -> String {
    key.seal(OUTBOX, posted, event).to_hex().to_string()
}

impl State {
    /// Puts what is in the outbox into the audit log. An event that is there already, because a
    /// process died before it could take it out, is not written again.
    pub(crate) fn empty_outbox(&self, audit: &AuditLog) -> Result<(), OutboxError> {
        const WHAT: &str = "empty the outbox of audit events";
        let settled = audit.settled();
        let count = "SELECT count(*) FROM outbox";
        let waits: i64 = self.read(WHAT, |connection| {
            connection.query_row(count, [], |row| row.get(0))
        })?;
        if waits == 0 {
            // Whatever comes into it from here on is put into the log after this place.
            *self.emptied() = settled;
            return Ok(());
        }
        let known = *self.emptied();
        // Inside the transaction no other process can do the same.
        let settled = self.transact(WHAT, |transaction| {
            let wrap = |source| StateError::of(WHAT, source);
            let waiting = waiting(transaction, self.key())
                .map_err(wrap)?
                .map_err(|id| OutboxError::Foreign { id })?;
            let settled = audit.append_waiting(waiting, known)?;
            transaction
                .execute("DELETE FROM outbox", [])
                .map_err(wrap)?;
            Ok::<_, OutboxError>(settled)
        })?;
        *self.emptied() = settled;
        Ok(())
    }

    fn emptied(&self) -> MutexGuard<'_, Option<Settled>> {
        self.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kinds of events that effects here have, and no others: what somebody else puts into the table
/// is not signed as what a person decided or as another key.
fn is_posted_here(event: &Event) -> bool {
    matches!(
        event,
        Event::Registered { .. }
            | Event::VersionRenewed { .. }
            | Event::AliasMoved { .. }
            | Event::RunStarted { .. }
            | Event::RunFinished { .. }
    )
}

/// The events that wait, in order; or the row that was not posted here.
pub(crate) fn waiting(
    connection: &Connection,
    key: Option<&SealKey>,
) -> Result<Result<Vec<Waiting>, i64>, rusqlite::Error> {
    let mut statement =
        connection.prepare("SELECT id, posted, event, seal FROM outbox ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut waiting = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, posted, text): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let seal: String = row.get(3)?;
        let is_sealed = key.is_some_and(|key| seal_of(key, &posted, &text) == seal);
        match (posted.parse::<Timestamp>(), from_json(&text)) {
            (Ok(posted), Ok(event)) if is_sealed && is_posted_here(&event) => {
                waiting.push(Waiting { posted, event });
            }
            _ => return Ok(Err(id)),
        }
    }
    Ok(Ok(waiting))
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
    /// A row is not one that this program posts.
    #[error(
        "the row {id} of outbox in state.sqlite is no event of a run or of the registry that was sealed \
         here with the key in state.key, so nothing of it goes into the audit log; somebody changed it by \
         hand: keep the file as evidence and restore both from a copy"
    )]
    Foreign {
        /// The row.
        id: i64,
    },
}
