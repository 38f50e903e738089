//! Events of effects that are had elsewhere, such as in a database: they wait there, written in one
//! transaction with the effect, and come into the log once.

use jiff::Timestamp;

use crate::{AuditError, AuditLog, Entry, Event, Position};

/// An event that waits to come into the log, and since when.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// When it was posted.
    pub posted: Timestamp,
    /// What is to come into the log.
    pub event: Event,
}

/// What was posted until then is in the log up to there.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    position: Position,
    at: Timestamp,
}

impl Waiting {
    /// Whether an entry tells of it: the same effect may have been had before, and its entry is older than the
    /// posting. Times are kept in milliseconds in some places, so that those of one are the same.
    fn is_in(&self, entry: &Entry) -> bool {
        entry.event == self.event
            && entry
                .time
                .parse::<Timestamp>()
                .is_ok_and(|time| !is_before(time, self.posted))
    }
}

impl AuditLog {
    /// Where the log is now. What is found to wait nowhere after this was asked is in the log up to there, or
    /// comes after it.
    #[must_use]
    pub fn settled(&self) -> Option<Settled> {
        let position = self.position()?;
        let at = Timestamp::now();
        Some(Settled { position, at })
    }

    /// Appends events that waited, in order, but for those that are there already, because a process died
    /// before it could take them out. No other process may do the same meanwhile.
    ///
    /// # Errors
    /// When the log cannot be read or written. Those before are in the log then, and are found there.
    pub fn append_waiting(
        &self,
        waiting: Vec<Waiting>,
        settled: Option<Settled>,
    ) -> Result<Option<Settled>, AuditError> {
        // One of long ago that somebody put back is in the log, however far back.
        let after = settled.filter(|settled| {
            waiting
                .iter()
                .all(|waiting| is_before(settled.at, waiting.posted))
        });
        let mut there = self.entries_after(after.map(|settled| settled.position), |entry| {
            waiting.iter().any(|waiting| waiting.is_in(entry))
        })?;
        for waiting in waiting {
            // An entry tells of one effect.
            match there.iter().position(|entry| waiting.is_in(entry)) {
                Some(found) => drop(there.remove(found)),
                None => drop(self.append(waiting.event)?),
            }
        }
        Ok(self.settled())
    }
}

/// By a millisecond or more.
fn is_before(time: Timestamp, other: Timestamp) -> bool {
    time.as_millisecond() < other.as_millisecond()
}
