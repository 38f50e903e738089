//! What the factory remembers between runs: a SQLite file in the state folder.
//!
//! Blobs are written before the row that names them, and a row is written in one transaction that
//! is on the disk when it returns. So a process that is killed leaves either no trace of a stage
//! or all of it.

mod datasets;
mod error;
mod outbox;
mod runs;
mod schema;
mod stages;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use sandcast_audit::{SealKey, Settled};

pub use datasets::DatasetRecord;
pub use error::StateError;
pub use outbox::OutboxError;
pub(crate) use outbox::{post, waiting};
pub use runs::{RunRecord, RunStatus, StageRecord, StageStatus};
pub(crate) use stages::KeptOutput;

/// The name of the file in the state folder.
const STATE_FILE: &str = "state.sqlite";

/// The name of the file with the key that seals what waits for the audit log, what was read of it, and
/// the outputs of stages.
const KEY_FILE: &str = "state.key";

/// How long to wait for another process that is writing a row.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The open state file. Cheap to clone.
#[derive(Clone)]
pub(crate) struct State {
    connection: Arc<Mutex<Connection>>,
    /// None where there is no key to be read: then nothing that is sealed is believed.
    key: Option<Arc<SealKey>>,
    /// Where the audit log was when last nothing waited.
    emptied: Arc<Mutex<Option<Settled>>>,
}

impl State {
    /// Opens the state of a folder, and makes it if it is not there.
    pub(crate) fn open(folder: &Path) -> Result<State, StateError> {
        let path = folder.join(STATE_FILE);
        let open = |source| StateError::Open {
            path: path.clone(),
            source,
        };
        let mut connection = Connection::open(&path).map_err(open)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        sandcast_sandbox::write_ahead(&connection, BUSY_TIMEOUT).map_err(open)?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(open)?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(open)?;
        connection
            .pragma_update(None, "trusted_schema", false)
            .map_err(open)?;
        schema::migrate(&mut connection, &path)?;
        let key = key_of(folder, &mut connection)?;
        Ok(State {
            connection: Arc::new(Mutex::new(connection)),
            key: Some(Arc::new(key)),
            emptied: Arc::default(),
        })
    }

    /// Opens the state of a folder to read it, if there is any.
    pub(crate) fn look(folder: &Path) -> Result<Option<State>, StateError> {
        let path = folder.join(STATE_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let open = |source| StateError::Open {
            path: path.clone(),
            source,
        };
        // A connection that may only read cannot remove the files that it shares with others, and
        // leaves them behind. Where the file is write-protected, this one only reads, too.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(open)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(open)?;
        connection
            .pragma_update(None, "query_only", true)
            .map_err(open)?;
        connection
            .pragma_update(None, "trusted_schema", false)
            .map_err(open)?;
        // What an earlier version has left is brought up to date by the next run.
        let current = schema::is_current(&connection, &path)?;
        let key = SealKey::load(&folder.join(KEY_FILE)).ok().map(Arc::new);
        Ok(current.then(|| State {
            connection: Arc::new(Mutex::new(connection)),
            key,
            emptied: Arc::default(),
        }))
    }

    /// Reads.
    pub(crate) fn read<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StateError> {
        work(&self.lock()).map_err(|source| StateError::of(what, source))
    }

    /// Writes everything or nothing. The write is on the disk when this returns.
    pub(crate) fn write<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StateError> {
        self.transact(what, |transaction| {
            work(transaction).map_err(|source| StateError::of(what, source))
        })
    }

    /// The same with work that can fail otherwise. No other process writes meanwhile.
    fn transact<T, E: From<StateError>>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let wrap = |source| StateError::of(what, source);
        let mut connection = self.lock();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(wrap)?;
        let result = work(&transaction)?;
        transaction.commit().map_err(wrap)?;
        Ok(result)
    }

    /// What seals events that wait for the audit log, and what is kept for later runs.
    pub(crate) fn key(&self) -> Option<&SealKey> {
        self.key.as_deref()
    }

    /// A panic inside a transaction rolled it back, so the connection is whole.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key in a state folder, made with the first process that opens it.
fn key_of(folder: &Path, connection: &mut Connection) -> Result<SealKey, StateError> {
    const WHAT: &str = "make the key of the state";
    let path = folder.join(KEY_FILE);
    if let Ok(key) = SealKey::load(&path) {
        return Ok(key);
    }
    // One process at a time: another may be about to make it.
    let wrap = |source| StateError::of(WHAT, source);
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(wrap)?;
    let key = SealKey::load_or_make(&path).map_err(|source| StateError::Key { path, source })?;
    transaction.commit().map_err(wrap)?;
    Ok(key)
}

/// A value as the JSON text that a column holds.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, rusqlite::Error> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// A value from the JSON text that a column holds.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, rusqlite::Error> {
    serde_json::from_str(text).map_err(|error| conversion(Box::new(error)))
}

/// A value from the text that a column holds.
pub(crate) fn parsed<T>(text: &str) -> Result<T, rusqlite::Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .map_err(|error: T::Err| conversion(Box::new(error)))
}

fn conversion(error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error)
}

#[cfg(test)]
mod tests;
