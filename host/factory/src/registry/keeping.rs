//! What the audit log says of models, kept in the state with the place up to which it says so: the next
//! process reads on from there, and not the whole log.
//!
//! It is sealed, and its place is that of an entry by its digest. An older one that somebody puts back is
//! as good: the rest is read in the log.

use rusqlite::OptionalExtension as _;

use super::record::OnRecord;
use crate::state::{State, StateError, from_json, to_json};

const TABLE: &str = "on_record";

/// Bytes of the log that are read again rather than kept for.
const WORTH_KEEPING: u64 = 256 << 10;

/// What is kept; nothing where nothing is, or another hand wrote it.
pub(super) fn kept(state: &State) -> Result<Option<OnRecord>, StateError> {
    let Some(key) = state.key() else {
        return Ok(None);
    };
    state.read("look up what is on record", |connection| {
        let found: Option<(String, String)> = connection
            .prepare("SELECT document, seal FROM on_record")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((document, seal)) if *key.seal(TABLE, "", &document).to_hex() == *seal => {
                from_json(&document).map(Some)
            }
            _ => Ok(None),
        }
    })
}

/// Keeps what was read, if it was much since `before`. That is for the next process: it is no fault of
/// this one where it cannot be written.
pub(super) fn keep(state: &State, record: &OnRecord, before: u64) {
    let Some(key) = state.key() else {
        return;
    };
    if record.bytes() < before.saturating_add(WORTH_KEEPING) {
        return;
    }
    let written = state.write("keep what is on record", |transaction| {
        let document = to_json(record)?;
        let seal = key.seal(TABLE, "", &document).to_hex();
        let statement = "INSERT OR REPLACE INTO on_record (id, document, seal) VALUES (0, ?1, ?2)";
        transaction.execute(statement, [document.as_str(), seal.as_str()])
    });
    if let Err(error) = written {
        tracing::debug!(%error, "what is on record is read again the next time");
    }
}
