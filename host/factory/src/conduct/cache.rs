//! Observations and standings in a SQLite file of their own, with the place in the audit log up to
//! which they are taken in.
//!
//! The log is the truth, and this file can be deleted at any time: what is in it is made from the
//! log again. It knows the digest of the entry it came to, so a file of another log, or of a log
//! that was put back to an earlier state, is found out and made anew. Entries are taken in within
//! one transaction, together with the place, so two processes take each in once. The standings are
//! sealed together with the place, by a key beside the file: where somebody else wrote them, they are
//! read from the log again before anybody is let in by them.

use std::collections::{HashMap, hash_map};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior};
use sandcast_audit::{Digest, Entry, PluginRef, Position, RunId, SealKey, read, read_after};

use super::ConductError;
use super::fold::{fold, is_wanted};
use super::folding::Folding;
use super::observation::{Observation, RunFacts, Seen};
use super::standing::StandingRecord;
use crate::state::{from_json, to_json};

/// The name of the file in the state folder.
const CACHE_FILE: &str = "conduct.sqlite";

/// The key that seals the standings. Where it is lost, all is read from the log again.
const KEY_FILE: &str = "conduct.key";

/// What is made anew when the layout or the meaning of the file changes.
const LAYOUT: i64 = 2;

/// Entries that are taken in before what they changed is written and let go.
const CHUNK_ENTRIES: usize = 50_000;

/// How long to wait for another process that reads a long log for the first time.
const BUSY_TIMEOUT: Duration = Duration::from_secs(600);

const TABLES: &str = "
    DROP TABLE IF EXISTS place;
    DROP TABLE IF EXISTS runs;
    DROP TABLE IF EXISTS observations;
    DROP TABLE IF EXISTS standings;
    DROP TABLE IF EXISTS history;
    CREATE TABLE place (document TEXT NOT NULL, seal TEXT NOT NULL) STRICT;
    CREATE TABLE runs (
        run       TEXT PRIMARY KEY,
        pipeline  TEXT NOT NULL,
        sequence  INTEGER NOT NULL,
        is_open   INTEGER NOT NULL,
        document  TEXT NOT NULL
    ) STRICT;
    CREATE INDEX runs_by_pipeline ON runs (pipeline, sequence);
    CREATE TABLE observations (
        run       TEXT NOT NULL,
        digest    TEXT NOT NULL,
        stage     TEXT NOT NULL,
        id        TEXT NOT NULL,
        role      TEXT NOT NULL,
        document  TEXT NOT NULL,
        PRIMARY KEY (run, digest, stage)
    ) STRICT;
    CREATE INDEX observations_by_id ON observations (id, role);
    CREATE TABLE standings (
        digest    TEXT PRIMARY KEY,
        id        TEXT NOT NULL,
        document  TEXT NOT NULL
    ) STRICT;
    CREATE TABLE history (
        digest    TEXT NOT NULL,
        sequence  INTEGER NOT NULL,
        document  TEXT NOT NULL,
        PRIMARY KEY (digest, sequence)
    ) STRICT;
";

/// The open file. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cache {
    connection: Arc<Mutex<Connection>>,
    /// None where it is in memory, which nobody else can write.
    key: Option<SealKey>,
}

pub(crate) type Sql<T> = Result<T, rusqlite::Error>;

impl Cache {
    /// Opens the file in a state folder. One that is none is made anew.
    pub(crate) fn open(folder: &Path) -> Result<Self, ConductError> {
        let path = folder.join(CACHE_FILE);
        let key_path = folder.join(KEY_FILE);
        let of = |opened| Self::of(opened, Some(&key_path));
        match of(Connection::open(&path)) {
            Err(ConductError::Cache(error)) if is_broken(&error) => {
                tracing::warn!(%error, "what is known of conduct is read from the audit log again");
                for end in ["", "-wal", "-shm"] {
                    let mut name = path.as_os_str().to_owned();
                    name.push(end);
                    // It may not be there; then there is nothing to take away.
                    let _ = std::fs::remove_file(name);
                }
                of(Connection::open(&path))
            }
            opened => opened,
        }
    }

    /// The same without a file, for whoever only looks.
    pub(crate) fn in_memory() -> Result<Self, ConductError> {
        Self::of(Connection::open_in_memory(), None)
    }

    fn of(opened: Sql<Connection>, key: Option<&Path>) -> Result<Self, ConductError> {
        let mut connection = opened?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        sandcast_sandbox::write_ahead(&connection, BUSY_TIMEOUT)?;
        // It can be made again, so it need not reach the disk at once.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "trusted_schema", false)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let layout: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if layout != LAYOUT {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", LAYOUT)?;
        }
        // Of several processes one makes it, since the others wait for the transaction.
        let key = key.map(|path| {
            SealKey::load_or_make(path).map_err(|source| ConductError::Key {
                path: path.to_path_buf(),
                source,
            })
        });
        let key = key.transpose()?;
        transaction.commit()?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            key,
        })
    }

    /// Takes in what the log in a folder has gained. The number of entries that were read.
    pub(crate) fn catch_up(&self, log: &Path) -> Result<u64, ConductError> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Nothing new is what there mostly is; it is seen without keeping others from writing.
        if let Some(position) = self.place(&connection)?
            && let Some(entries) = read_after(log, position)?
            && entries.is_at_end()?
        {
            return Ok(0);
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let known = self.place(&transaction)?;
        let entries = match known {
            Some(position) => read_after(log, position)?,
            None => None,
        };
        let mut entries = match entries {
            Some(entries) => entries,
            None => {
                if known.is_some() {
                    tracing::warn!("the audit log is another one; conduct is read from it anew");
                } else if has_place(&transaction)? {
                    tracing::warn!(
                        "conduct.sqlite was written by somebody who does not have the key beside it; \
                         what it says counts for nothing, and is read from the audit log anew"
                    );
                }
                transaction.execute_batch(TABLES)?;
                read(log)?
            }
        };
        let before = entries.position();
        let mut folding = Folding::new(&transaction);
        let mut since_flush = 0;
        while let Some(entry) = entries.next_wanted(is_wanted)? {
            fold(&mut folding, &entry)?;
            since_flush += 1;
            if since_flush == CHUNK_ENTRIES {
                folding.flush()?;
                since_flush = 0;
            }
        }
        folding.flush()?;
        let after = entries.position();
        if after != before || known.is_none() {
            let after = to_json(&after)?;
            let seal = self.seal(&transaction, &after)?;
            transaction.execute("DELETE FROM place", [])?;
            transaction.execute(
                "INSERT INTO place (document, seal) VALUES (?1, ?2)",
                [after, seal],
            )?;
        }
        transaction.commit()?;
        Ok(after.sequence - before.sequence)
    }

    /// The place in the log up to which entries are taken in, if what is here is what was sealed.
    fn place(&self, connection: &Connection) -> Sql<Option<Position>> {
        let found = connection
            .prepare("SELECT document, seal FROM place")?
            .query_row([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        let Some((document, sealed)) = found else {
            return Ok(None);
        };
        match self.seal(connection, &document)? == sealed {
            true => from_json(&document).map(Some),
            false => Ok(None),
        }
    }

    /// The seal of a place with all standings.
    fn seal(&self, connection: &Connection, place: &str) -> Sql<String> {
        let Some(key) = &self.key else {
            return Ok(String::new());
        };
        let mut standings = String::new();
        let mut statement =
            connection.prepare("SELECT digest, document FROM standings ORDER BY digest")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            // A document is JSON in one line.
            for column in 0..2 {
                standings.push_str(row.get_ref(column)?.as_str()?);
                standings.push('\n');
            }
        }
        Ok(key.seal("place", place, &standings).to_hex().to_string())
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Sql<T>) -> Result<T, ConductError> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(work(&connection)?)
    }

    /// Reads standings, as long as they are what was sealed: whoever changes them between two looks is
    /// seen by the one that reads.
    fn read_sealed<T>(&self, work: impl FnOnce(&Connection) -> Sql<T>) -> Result<T, ConductError> {
        let found = self.read(|connection| {
            // All of it at one time.
            let connection = connection.unchecked_transaction()?;
            let sealed = self.place(&connection)?;
            sealed.map(|_| work(&connection)).transpose()
        })?;
        found.ok_or(ConductError::Changed)
    }

    /// The standing of a component.
    pub(crate) fn standing(&self, digest: &Digest) -> Result<Option<StandingRecord>, ConductError> {
        self.read_sealed(|connection| document(connection, STANDING, [digest.to_string()]))
    }

    /// The standings of all components, by id and then the latest first.
    pub(crate) fn standings(&self) -> Result<Vec<StandingRecord>, ConductError> {
        let mut all: Vec<StandingRecord> = self.read_sealed(|connection| {
            documents(connection, "SELECT document FROM standings ORDER BY id", [])
        })?;
        all.sort_by(|one, other| {
            let by_id = one.plugin.id.cmp(&other.plugin.id);
            by_id.then(other.sequence.cmp(&one.sequence))
        });
        Ok(all)
    }

    /// Components that ran, whether they have a standing or not.
    pub(crate) fn components(&self) -> Result<Vec<PluginRef>, ConductError> {
        const ALL: &str = "SELECT document FROM observations GROUP BY digest ORDER BY id";
        let seen: Vec<Observation> = self.read(|connection| documents(connection, ALL, []))?;
        Ok(seen.into_iter().map(|seen| seen.plugin).collect())
    }

    /// What components of an id did in a role, oldest first.
    pub(crate) fn seen(&self, id: &str, role: &str) -> Result<Vec<Seen>, ConductError> {
        const OF_ID: &str = "SELECT runs.document, observations.document FROM observations
             JOIN runs USING (run) WHERE id = ?1 AND role = ?2 ORDER BY runs.sequence, stage";
        self.read(|connection| joined(connection, OF_ID, [id, role]))
    }

    /// What all components did in a run.
    pub(crate) fn of_run(&self, run: &RunId) -> Result<Vec<Seen>, ConductError> {
        const OF_RUN: &str = "SELECT runs.document, observations.document FROM observations
             JOIN runs USING (run) WHERE runs.run = ?1 ORDER BY id, stage";
        self.read(|connection| joined(connection, OF_RUN, [run.as_str()]))
    }

    /// Runs that are still to be judged.
    pub(crate) fn open_runs(&self) -> Result<Vec<RunId>, ConductError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare("SELECT run FROM runs WHERE is_open ORDER BY sequence")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            rows.map(|run| crate::state::parsed(&run?)).collect()
        })
    }

    /// Changes of standing and deviations of a component, oldest first.
    pub(crate) fn history(&self, digest: &Digest) -> Result<Vec<Entry>, ConductError> {
        const HISTORY: &str = "SELECT document FROM history WHERE digest = ?1 ORDER BY sequence";
        self.read(|connection| documents(connection, HISTORY, [digest.to_string()]))
    }
}

/// Whether entries were taken in before.
fn has_place(connection: &Connection) -> Sql<bool> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM place)", [], |row| row.get(0))
}

/// Asks for the standing of a component.
pub(crate) const STANDING: &str = "SELECT document FROM standings WHERE digest = ?1";

/// The one document that a statement asks for.
pub(crate) fn document<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    statement: &str,
    values: impl rusqlite::Params,
) -> Sql<Option<T>> {
    let found = connection
        .prepare(statement)?
        .query_row(values, |row| row.get::<_, String>(0))
        .optional()?;
    found.as_deref().map(from_json).transpose()
}

fn documents<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    statement: &str,
    values: impl rusqlite::Params,
) -> Sql<Vec<T>> {
    let mut statement = connection.prepare(statement)?;
    let rows = statement.query_map(values, |row| row.get::<_, String>(0))?;
    rows.map(|document| from_json(&document?)).collect()
}

/// Observations with their runs, and with what operators have accepted.
fn joined(
    connection: &Connection,
    statement: &str,
    values: impl rusqlite::Params,
) -> Sql<Vec<Seen>> {
    let mut statement = connection.prepare(statement)?;
    let rows = statement.query_map(values, |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut accepted: HashMap<Digest, u64> = HashMap::new();
    let mut runs: Option<(String, RunFacts)> = None;
    let mut all = Vec::new();
    for row in rows {
        let (run, observation) = row?;
        let observation: Observation = from_json(&observation)?;
        let digest = observation.plugin.digest;
        let until = match accepted.entry(digest) {
            hash_map::Entry::Occupied(known) => *known.get(),
            hash_map::Entry::Vacant(unknown) => {
                let record: Option<StandingRecord> =
                    document(connection, STANDING, [digest.to_string()])?;
                *unknown.insert(record.map_or(0, |record| record.accepted_until))
            }
        };
        // The rows of one run come together.
        if runs.as_ref().is_none_or(|(text, _)| *text != run) {
            let facts = from_json(&run)?;
            runs = Some((run, facts));
        }
        if let Some((_, facts)) = &runs {
            all.push(Seen::new(observation, facts, until));
        }
    }
    Ok(all)
}

fn is_broken(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}
