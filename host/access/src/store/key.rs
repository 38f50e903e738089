//! The key that seals every row, and how it gives way to another.
//!
//! The key in force is the one that seals the row of settings. A new one lies beside it until all rows are
//! sealed with it, which is one transaction; then it takes the place of the old one. Whoever comes in
//! between, or after a crash in between, finds it by that row. Files are moved only by who has the lock of
//! the database.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use sandcast_audit::{AuditLog, SealKey};

use super::rows::{OUTBOX, Reading};
use super::{AccessError, Change, KEY, Store};

/// A key that is to take the place of the one that there is.
const NEXT_KEY: &str = "access.key.next";

/// The tables whose rows have seals, beside the outbox.
const SEALED: [&str; 5] = ["settings", "principals", "tokens", "approvals", "grants"];

/// A key that was found to be in force.
#[derive(Debug)]
pub(super) struct Held {
    key: SealKey,
    /// What the database said of its version then; it says another when somebody else has written.
    version: Option<i64>,
    /// Whether it lies where the key lies.
    is_in_place: bool,
}

impl Held {
    /// The key that lies where it should, before anything is known of it.
    pub(super) fn new(key: SealKey) -> Self {
        Self {
            key,
            version: None,
            is_in_place: true,
        }
    }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> AccessError {
    let path = path.to_path_buf();
    |source| AccessError::File { path, source }
}

/// Whether two keys make the same seals. Hashes are compared in constant time.
fn is_same(one: &SealKey, other: &SealKey) -> bool {
    one.seal("", "", "") == other.seal("", "", "")
}

impl Store {
    /// The key in force, by a look at the database where somebody else has written to it since the last.
    pub(super) fn key_in_force(&self, connection: &Connection) -> Result<SealKey, AccessError> {
        let wrap = |source| AccessError::Database {
            what: "find the key in force",
            source,
        };
        let version: i64 = connection
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .map_err(wrap)?;
        let mut held = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if held.version == Some(version) {
            return Ok(held.key.clone());
        }
        let statement = "SELECT document, seal FROM settings WHERE id = 'access'";
        let row: Option<(String, String)> = connection
            .query_row(statement, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(wrap)?;
        // Before access is set up there is nothing to tell by.
        let Some((document, seal)) = row else {
            return Ok(held.key.clone());
        };
        let is_in_force = |key: &SealKey| {
            let reading = Reading { connection, key };
            reading.holds("settings", "access", &document, &seal)
        };
        if !is_in_force(&held.key) {
            let load = |name: &str| SealKey::load(&self.folder.join(name)).ok();
            let found =
                [(KEY, true), (NEXT_KEY, false)]
                    .into_iter()
                    .find_map(|(name, is_in_place)| {
                        let key = load(name).filter(is_in_force)?;
                        Some((key, is_in_place))
                    });
            // Neither seals it: who reads a row says which one is not as it was written.
            let Some((key, is_in_place)) = found else {
                return Ok(held.key.clone());
            };
            held.key = key;
            held.is_in_place = is_in_place;
        }
        held.version = Some(version);
        Ok(held.key.clone())
    }

    /// Puts a key in its place that was found beside it: whoever rotated was cut off. To be called with
    /// the lock of the database.
    pub(super) fn settle_key(&self) -> Result<(), AccessError> {
        let mut held = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_in_place {
            return Ok(());
        }
        let (next, path) = (self.folder.join(NEXT_KEY), self.folder.join(KEY));
        // Somebody else may have, and another one may lie there by now that seals nothing.
        if SealKey::load(&next).is_ok_and(|there| is_same(&there, &held.key)) {
            SealKey::put_in_place(&next, &path).map_err(file_error(&next))?;
        }
        held.is_in_place = true;
        Ok(())
    }

    /// Has the key give way to another: every row is held to the old one and sealed with the new one. The
    /// old key is worth nothing from then on.
    ///
    /// # Errors
    /// When a row is not as it was written, or something cannot be written; then the old key stays.
    pub fn rotate_key(&self, audit: &AuditLog, by: &str) -> Result<(), AccessError> {
        const WHAT: &str = "seal every row anew";
        // One that somebody else was cut off with takes its place first.
        self.transact(WHAT, |_| Ok(()))?;
        let new = self.seal_anew(by, WHAT)?;
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Held {
            key: new,
            version: None,
            is_in_place: false,
        };
        // The next that has the lock puts it in its place: mostly this one.
        self.empty_outbox(audit)
    }

    /// Makes a key beside the one in force and seals every row with it, in one transaction.
    fn seal_anew(&self, by: &str, what: &'static str) -> Result<SealKey, AccessError> {
        let wrap = |source| AccessError::Database { what, source };
        let mut connection = self.lock();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(wrap)?;
        let old = self.key_in_force(&transaction)?;
        self.settle_key()?;
        let next = self.folder.join(NEXT_KEY);
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file_error(&next)(error));
            }
            _ => {}
        }
        let new = SealKey::load_or_make(&next).map_err(file_error(&next))?;
        for table in SEALED {
            reseal(&transaction, table, ("id", "document"), (&old, &new)).map_err(wrap)??;
        }
        reseal(&transaction, OUTBOX, ("posted", "event"), (&old, &new)).map_err(wrap)??;
        {
            let change = Change {
                transaction,
                key: &new,
                what,
            };
            change.post(by, "key-rotated", "state:here", "every row is sealed anew")?;
            change.transaction.commit().map_err(wrap)?;
        }
        Ok(new)
    }
}

/// Holds each row of a table to the old key and seals it with the new one.
fn reseal(
    connection: &Connection,
    table: &'static str,
    (id, document): (&str, &str),
    (old, new): (&SealKey, &SealKey),
) -> Result<Result<(), AccessError>, rusqlite::Error> {
    let reading = Reading {
        connection,
        key: old,
    };
    let select = format!("SELECT rowid, {id}, {document}, seal FROM {table}");
    let mut select = connection.prepare(&select)?;
    let update = format!("UPDATE {table} SET seal = ?2 WHERE rowid = ?1");
    let mut update = connection.prepare(&update)?;
    let rows = select.query_map([], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get::<_, String>(3)?,
        ))
    })?;
    let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
    for (row, id, document, seal) in rows {
        if !reading.holds(table, &id, &document, &seal) {
            let id = id.chars().take(80).collect();
            return Ok(Err(AccessError::Tampered { table, id }));
        }
        let seal = new.seal(table, &id, &document).to_hex();
        update.execute(params![row, seal.as_str()])?;
    }
    Ok(Ok(()))
}
