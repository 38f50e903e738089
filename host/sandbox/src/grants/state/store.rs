//! Where pairs lie: a file of SQLite in the state folder, for every plugin of every pipeline.
//!
//! What writes takes the whole file first, so reading, checking a quota and writing are one step for
//! every instance and process. A transaction is on the disk when it has ended, or never was.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};
use serde::{Deserialize, Serialize};

use super::{Bytes, MAX_VALUE_BYTES, StateGrant};

/// Keys of one page of a list.
pub(super) const PAGE_KEYS: usize = 1000;

/// How long another process may hold the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The layout of the file.
pub(super) const LAYOUT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE space (
        id INTEGER PRIMARY KEY,
        pipeline TEXT NOT NULL,
        name TEXT NOT NULL,
        plugin TEXT NOT NULL,
        keys INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        changes INTEGER NOT NULL DEFAULT 0,
        UNIQUE (pipeline, name, plugin)
    ) STRICT;
    CREATE TABLE pair (
        space INTEGER NOT NULL REFERENCES space,
        key TEXT NOT NULL,
        version INTEGER NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (space, key)
    ) STRICT;
";

/// Whose pairs they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// The pipeline; nothing for a plugin that is loaded without one.
    pub(crate) pipeline: String,
    /// What the pipeline calls the plugin.
    pub(crate) name: String,
    /// The id in its manifest.
    pub(crate) plugin: String,
}

/// The pairs of all plugins.
pub(crate) struct Pairs {
    connection: Mutex<Connection>,
}

/// A value, and the number of the change that made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) version: i64,
    pub(super) value: Bytes,
}

/// What is there where a swap found another change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored(pub(super) Option<i64>);

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Trouble {
    /// A quota is used up: its key in the grant, and what was wanted.
    Full { quota: String, detail: String },
    /// The guest asked for something that cannot be.
    Impossible(String),
    /// The store does not work.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { detail, .. } | Self::Impossible(detail) => formatter.write_str(detail),
            Self::Failed(reason) => write!(formatter, "the state does not answer: {reason}"),
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        // The guest is told no more than that; whoever runs the host reads the log.
        tracing::warn!(%error, "the state of plugins does not answer");
        let reason = match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => "it is busy",
            Some(rusqlite::ErrorCode::DiskFull) => "the disk is full",
            _ => "it failed",
        };
        Self::Failed(reason.to_owned())
    }
}

impl Pairs {
    /// Opens the file, and makes it if it is not there; without a path, one in memory.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, String> {
        let opened = || -> Result<Connection, Box<dyn std::error::Error>> {
            let mut connection = match path {
                None => Connection::open_in_memory()?,
                Some(path) => {
                    make_private(path)?;
                    Connection::open(path)?
                }
            };
            connection.busy_timeout(BUSY_TIMEOUT)?;
            crate::database::write_ahead(&connection, BUSY_TIMEOUT)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.pragma_update(None, "trusted_schema", false)?;
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let layout: i64 =
                transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            match layout {
                LAYOUT => {}
                0 => {
                    transaction.execute_batch(TABLES)?;
                    transaction.pragma_update(None, "user_version", LAYOUT)?;
                }
                other => {
                    return Err(format!("it has layout {other}, and this host {LAYOUT}").into());
                }
            }
            transaction.commit()?;
            Ok(connection)
        };
        match opened() {
            Ok(connection) => Ok(Self {
                connection: Mutex::new(connection),
            }),
            Err(error) => {
                let place = path.map_or_else(String::new, |path| path.display().to_string());
                Err(format!(
                    "the state of plugins in {place} cannot be opened: {error}"
                ))
            }
        }
    }

    /// A panic inside a transaction rolled it back, so the connection is whole.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything or nothing, with the number of the plugin's space.
    fn write<T>(
        &self,
        space: &Space,
        work: impl FnOnce(&Transaction<'_>, i64) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let Space {
            pipeline,
            name,
            plugin,
        } = space;
        transaction.execute(
            "INSERT INTO space (pipeline, name, plugin) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
            (pipeline, name, plugin),
        )?;
        let id = number_of(&transaction, space)?.unwrap_or_default();
        let done = work(&transaction, id)?;
        transaction.commit()?;
        Ok(done)
    }

    /// The values of keys, in that order.
    pub(super) fn get(
        &self,
        space: &Space,
        keys: &[String],
    ) -> Result<Vec<Option<Found>>, Trouble> {
        let mut connection = self.lock();
        // One view of all of them.
        let view = connection.transaction()?;
        let Some(id) = number_of(&view, space)? else {
            return Ok(keys.iter().map(|_| None).collect());
        };
        let mut left = MAX_VALUE_BYTES;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let pair = found_in(&view, id, key)?;
            let bytes = pair.as_ref().map_or(0, |pair| pair.value.0.len() as u64);
            left = left.checked_sub(bytes).ok_or_else(|| {
                Trouble::Impossible("these are too many bytes at once; ask for fewer keys".into())
            })?;
            found.push(pair);
        }
        Ok(found)
    }

    /// The number of the change that made the value of a key.
    pub(super) fn version(&self, space: &Space, key: &str) -> Result<Option<i64>, Trouble> {
        let mut connection = self.lock();
        let view = connection.transaction()?;
        match number_of(&view, space)? {
            None => Ok(None),
            Some(id) => Ok(version_of(&view, id, key)?),
        }
    }

    /// The keys after one, in order, as many as a page has.
    pub(super) fn list(&self, space: &Space, after: &str) -> Result<Vec<String>, Trouble> {
        let mut connection = self.lock();
        let view = connection.transaction()?;
        let Some(id) = number_of(&view, space)? else {
            return Ok(Vec::new());
        };
        let mut statement = view
            .prepare("SELECT key FROM pair WHERE space = ?1 AND key > ?2 ORDER BY key LIMIT ?3")?;
        let keys = statement.query_map((id, after, PAGE_KEYS as i64), |row| row.get(0))?;
        Ok(keys.collect::<Result<Vec<String>, rusqlite::Error>>()?)
    }

    /// Keeps pairs, over what was there.
    pub(super) fn set(
        &self,
        space: &Space,
        grant: &StateGrant,
        new: &[(String, Vec<u8>)],
    ) -> Result<(), Trouble> {
        self.write(space, |transaction, id| {
            for (key, value) in new {
                put(transaction, id, grant, key, value)?;
            }
            Ok(())
        })
    }

    /// Takes keys out, as far as they are there.
    pub(super) fn delete(&self, space: &Space, keys: &[String]) -> Result<(), Trouble> {
        self.write(space, |transaction, id| {
            for key in keys {
                let Some(size) = size_of(transaction, id, key)? else {
                    continue;
                };
                transaction
                    .prepare("DELETE FROM pair WHERE space = ?1 AND key = ?2")?
                    .execute((id, key))?;
                transaction
                    .prepare(
                        "UPDATE space SET keys = keys - 1, bytes = bytes - ?2, changes = changes + 1 \
                         WHERE id = ?1",
                    )?
                    .execute((id, size))?;
            }
            Ok(())
        })
    }

    /// Adds to the number that a key holds as text; the sum.
    pub(super) fn increment(
        &self,
        space: &Space,
        grant: &StateGrant,
        key: &str,
        delta: i64,
    ) -> Result<i64, Trouble> {
        self.write(space, |transaction, id| {
            let number = match found_in(transaction, id, key)? {
                None => 0,
                Some(found) => std::str::from_utf8(&found.value.0)
                    .ok()
                    .and_then(|text| text.parse::<i64>().ok())
                    .ok_or_else(|| Trouble::Impossible("the key holds no whole number".into()))?,
            };
            let sum = number.checked_add(delta).ok_or_else(|| {
                Trouble::Impossible("the sum is not in the range of 64 bits".into())
            })?;
            put(transaction, id, grant, key, sum.to_string().as_bytes())?;
            Ok(sum)
        })
    }

    /// Keeps a pair if its key is as it was; else says how it is.
    pub(super) fn swap(
        &self,
        space: &Space,
        grant: &StateGrant,
        (key, value): (String, Vec<u8>),
        version: Option<i64>,
    ) -> Result<Option<Stored>, Trouble> {
        self.write(space, |transaction, id| {
            let now = version_of(transaction, id, &key)?;
            if now != version {
                return Ok(Some(Stored(now)));
            }
            put(transaction, id, grant, &key, &value)?;
            Ok(None)
        })
    }
}

/// The number of a space, if anything was kept in it.
fn number_of(connection: &Connection, space: &Space) -> Result<Option<i64>, rusqlite::Error> {
    let Space {
        pipeline,
        name,
        plugin,
    } = space;
    connection
        .prepare("SELECT id FROM space WHERE pipeline = ?1 AND name = ?2 AND plugin = ?3")?
        .query_row((pipeline, name, plugin), |row| row.get(0))
        .optional()
}

fn found_in(connection: &Connection, id: i64, key: &str) -> Result<Option<Found>, rusqlite::Error> {
    connection
        .prepare("SELECT version, value FROM pair WHERE space = ?1 AND key = ?2")?
        .query_row((id, key), |row| {
            Ok(Found {
                version: row.get(0)?,
                value: Bytes(row.get(1)?),
            })
        })
        .optional()
}

fn version_of(connection: &Connection, id: i64, key: &str) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .prepare("SELECT version FROM pair WHERE space = ?1 AND key = ?2")?
        .query_row((id, key), |row| row.get(0))
        .optional()
}

/// The bytes of a key and its value.
fn size_of(connection: &Connection, id: i64, key: &str) -> Result<Option<i64>, rusqlite::Error> {
    let length: Option<i64> = connection
        .prepare("SELECT length(value) FROM pair WHERE space = ?1 AND key = ?2")?
        .query_row((id, key), |row| row.get(0))
        .optional()?;
    Ok(length.map(|length| length + key.len() as i64))
}

/// Keeps a pair as far as the quotas let it.
fn put(
    transaction: &Transaction<'_>,
    id: i64,
    grant: &StateGrant,
    key: &str,
    value: &[u8],
) -> Result<(), Trouble> {
    let full = |quota: &str, detail: String| Trouble::Full {
        quota: quota.to_owned(),
        detail,
    };
    if value.len() as u64 > grant.value_bytes.bytes() {
        let detail = format!(
            "a value of {} bytes is over {}",
            value.len(),
            grant.value_bytes
        );
        return Err(full("value_bytes", detail));
    }
    let before = size_of(transaction, id, key)?;
    let (keys, bytes, changes): (i64, i64, i64) = transaction
        .prepare("SELECT keys, bytes, changes FROM space WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let size = (key.len() + value.len()) as i64;
    let grows = size - before.unwrap_or(0);
    let after = bytes + grows;
    let most = i64::try_from(grant.bytes.bytes()).unwrap_or(i64::MAX);
    // Under a quota that was lowered, what is there may still shrink.
    if grows > 0 && after > most {
        let detail = format!("{after} bytes of state are over {}", grant.bytes);
        return Err(full("bytes", detail));
    }
    let keys = keys + i64::from(before.is_none());
    if before.is_none() && keys > i64::from(grant.keys.get()) {
        return Err(full("keys", format!("{keys} keys are over {}", grant.keys)));
    }
    let version = changes + 1;
    transaction
        .prepare(
            "INSERT INTO pair (space, key, version, value) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (space, key) DO UPDATE SET version = ?3, value = ?4",
        )?
        .execute((id, key, version, value))?;
    transaction
        .prepare("UPDATE space SET keys = ?2, bytes = ?3, changes = ?4 WHERE id = ?1")?
        .execute((id, keys, after, version))?;
    Ok(())
}

/// Makes the file its owner's alone, before anything is in it. What SQLite puts beside it has the
/// same mode.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path).map(|_| ())
}

#[cfg(test)]
mod tests;
