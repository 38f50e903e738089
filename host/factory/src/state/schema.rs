//! The tables, and how a file of an earlier version becomes one of this version.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StateError;

/// One step for each version, in order. A step that was released is never changed.
const STEPS: [&str; 6] = [
    "
    CREATE TABLE runs (
        id        TEXT PRIMARY KEY,
        pipeline  TEXT NOT NULL,
        config    TEXT NOT NULL,
        seed      TEXT NOT NULL,
        started   TEXT NOT NULL,
        finished  TEXT,
        status    TEXT NOT NULL,
        stage     TEXT,
        reasons   TEXT NOT NULL DEFAULT '[]',
        model     TEXT,
        version   INTEGER
    ) STRICT;

    CREATE TABLE run_stages (
        run       TEXT NOT NULL REFERENCES runs (id),
        ordinal   INTEGER NOT NULL,
        stage     TEXT NOT NULL,
        record    TEXT NOT NULL,
        PRIMARY KEY (run, ordinal)
    ) STRICT;

    -- What a stage came to, by the digest of everything that went in.
    CREATE TABLE stage_outputs (
        key       TEXT PRIMARY KEY,
        stage     TEXT NOT NULL,
        run       TEXT NOT NULL REFERENCES runs (id),
        written   TEXT NOT NULL,
        output    TEXT NOT NULL
    ) STRICT;

    -- The run that last had a stage done, or found it done, by its recipe.
    CREATE TABLE recipes (
        recipe    TEXT PRIMARY KEY,
        run       TEXT NOT NULL REFERENCES runs (id),
        seen      TEXT NOT NULL
    ) STRICT;

    -- Datasets by content and name, with the run that last had them.
    CREATE TABLE datasets (
        digest    TEXT NOT NULL,
        name      TEXT NOT NULL,
        pipeline  TEXT NOT NULL,
        stage     TEXT NOT NULL,
        run       TEXT NOT NULL REFERENCES runs (id),
        seen      TEXT NOT NULL,
        document  TEXT NOT NULL,
        PRIMARY KEY (digest, name)
    ) STRICT;

    CREATE TABLE model_versions (
        model     TEXT NOT NULL,
        version   INTEGER NOT NULL,
        lineage   TEXT NOT NULL,
        created   TEXT NOT NULL,
        document  TEXT NOT NULL,
        PRIMARY KEY (model, version)
    ) STRICT;
    -- The same model out of the same line is the same version, however often it is registered.
    CREATE UNIQUE INDEX model_versions_by_lineage ON model_versions (model, lineage);

    CREATE TABLE aliases (
        model     TEXT NOT NULL,
        alias     TEXT NOT NULL,
        version   INTEGER NOT NULL,
        moved     TEXT NOT NULL,
        PRIMARY KEY (model, alias),
        FOREIGN KEY (model, version) REFERENCES model_versions (model, version)
    ) STRICT;

    -- Events of effects that are done and not yet in the audit log.
    CREATE TABLE outbox (
        id        INTEGER PRIMARY KEY AUTOINCREMENT,
        posted    TEXT NOT NULL,
        event     TEXT NOT NULL
    ) STRICT;
    ",
    "
    -- Approvals whose effect lies here, each written with its effect, so that it is had once.
    CREATE TABLE carried_out (
        approval  TEXT PRIMARY KEY,
        done      TEXT NOT NULL
    ) STRICT;
    ",
    "
    -- Each seal is of when the event was posted and of the event. What waits from before has none: who
    -- wrote it is not known.
    ALTER TABLE outbox ADD COLUMN seal TEXT NOT NULL DEFAULT '';
    ",
    "
    -- What the audit log says of models up to a place in it, so that it is read on from there.
    CREATE TABLE on_record (
        id        INTEGER PRIMARY KEY CHECK (id = 0),
        document  TEXT NOT NULL,
        seal      TEXT NOT NULL
    ) STRICT;
    ",
    "
    -- Each seal is of the key and of everything in the row. What is there from before has none, so those
    -- stages are done again.
    ALTER TABLE stage_outputs ADD COLUMN seal TEXT NOT NULL DEFAULT '';
    ",
    "
    -- A seal is not left out: an earlier version that still runs cannot put anything in without one.
    CREATE TABLE sealed_outbox (
        id        INTEGER PRIMARY KEY AUTOINCREMENT,
        posted    TEXT NOT NULL,
        event     TEXT NOT NULL,
        seal      TEXT NOT NULL
    ) STRICT;
    INSERT INTO sealed_outbox SELECT id, posted, event, seal FROM outbox;
    DROP TABLE outbox;
    ALTER TABLE sealed_outbox RENAME TO outbox;
    ",
];

/// Up to this version what waits for the audit log has no seals.
const UNSEALED: i64 = 2;

/// The version that this program writes.
const KNOWN: i64 = STEPS.len() as i64;

/// Whether a file is of this version; an error where it is of a later one.
pub(super) fn is_current(connection: &Connection, path: &Path) -> Result<bool, StateError> {
    let wrap = |source| StateError::of("read the version of the state", source);
    let found: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(wrap)?;
    if !(0..=KNOWN).contains(&found) {
        return Err(StateError::Newer {
            path: path.to_path_buf(),
            found,
            known: KNOWN,
        });
    }
    Ok(found == KNOWN)
}

/// Brings a file to this version.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StateError> {
    let wrap = |source| StateError::of("prepare the tables of the state", source);
    if is_current(connection, path)? {
        return Ok(());
    }
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(wrap)?;
    // Asked again inside: two processes may open a new file at once.
    let found: i64 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(wrap)?;
    if (1..=UNSEALED).contains(&found) {
        let count = "SELECT count(*) FROM outbox";
        let waiting: i64 = transaction
            .query_row(count, [], |row| row.get(0))
            .map_err(wrap)?;
        if waiting > 0 {
            let path = path.to_path_buf();
            return Err(StateError::Waiting { path, waiting });
        }
    }
    for step in STEPS.iter().skip(found as usize) {
        transaction.execute_batch(step).map_err(wrap)?;
    }
    transaction
        .pragma_update(None, "user_version", KNOWN)
        .map_err(wrap)?;
    transaction.commit().map_err(wrap)
}
