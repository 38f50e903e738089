//! Events of effects: written with the effect in one transaction, then to the audit log, then
//! taken out. A process that is killed in between leaves the event here, and the next one that
//! opens the state puts it into the log, once.

use std::sync::PoisonError;

use rusqlite::Transaction;
use sandcast_audit::{AuditError, AuditLog, Entry, Event, Position};

use super::{State, StateError, from_json, to_json};
use crate::clock;

/// Writes an event along with its effect.
pub(crate) fn post(transaction: &Transaction<'_>, event: &Event) -> Result<(), rusqlite::Error> {
    let statement = "INSERT INTO outbox (posted, event) VALUES (?1, ?2)";
    transaction
        .execute(statement, [clock::now(), to_json(event)?])
        .map(|_| ())
}

impl State {
    /// Puts what is in the outbox into the audit log. An event that is there already, because a
    /// process died before it could take it out, is not written again.
    pub(crate) fn empty_outbox(&self, audit: &AuditLog) -> Result<(), OutboxError> {
        const WHAT: &str = "empty the outbox of audit events";
        let place = audit.position();
        let count = "SELECT count(*) FROM outbox";
        let waiting: i64 = self.read(WHAT, |connection| {
            connection.query_row(count, [], |row| row.get(0))
        })?;
        if waiting == 0 {
            // Whatever comes into it from here on is put into the log after this place.
            self.set_emptied(place);
            return Ok(());
        }
        // Inside the transaction no other process can do the same.
        let place = self.transact(WHAT, |transaction| {
            let wrap = |source| StateError::of(WHAT, source);
            let waiting = waiting_events(transaction, WHAT)?;
            // The same effect may have been had before; its entry is older than the posting.
            let is_of = |entry: &Entry, (posted, event): &(String, Event)| {
                entry.event == *event && !clock::is_before(&entry.time, posted)
            };
            let logged = audit.entries_after(self.emptied(), |entry| {
                waiting.iter().any(|waiting| is_of(entry, waiting))
            })?;
            for waiting in waiting {
                if !logged.iter().any(|entry| is_of(entry, &waiting)) {
                    audit.append(waiting.1)?;
                }
            }
            transaction
                .execute("DELETE FROM outbox", [])
                .map_err(wrap)?;
            Ok::<_, OutboxError>(audit.position())
        })?;
        self.set_emptied(place);
        Ok(())
    }

    fn emptied(&self) -> Option<Position> {
        *self.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_emptied(&self, place: Option<Position>) {
        *self.emptied.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

/// The kinds of events that effects here have, and no others: what somebody else puts into the table
/// is not signed as what a person decided or as another key.
fn is_posted_here(event: &Event) -> bool {
    matches!(
        event,
        Event::Registered { .. }
            | Event::AliasMoved { .. }
            | Event::RunStarted { .. }
            | Event::RunFinished { .. }
    )
}

/// The events that wait, in order; or the row that was not posted here, so that none is appended.
fn waiting_events(
    transaction: &Transaction<'_>,
    what: &'static str,
) -> Result<Vec<(String, Event)>, OutboxError> {
    let wrap = |source| StateError::of(what, source);
    let mut statement = transaction
        .prepare("SELECT id, posted, event FROM outbox ORDER BY id")
        .map_err(wrap)?;
    let rows = statement
        .query_map([], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
        })
        .map_err(wrap)?;
    rows.map(|row| {
        let (id, posted, event): (i64, String, String) = row.map_err(wrap)?;
        match from_json(&event) {
            Ok(event) if is_posted_here(&event) => Ok((posted, event)),
            _ => Err(OutboxError::Foreign { id }),
        }
    })
    .collect()
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
        "the row {id} of outbox in state.sqlite is no event of a run or of the registry, so nothing \
         of it goes into the audit log; somebody changed it by hand: keep the file as evidence and \
         restore it from a copy"
    )]
    Foreign {
        /// The row.
        id: i64,
    },
}
