//! What can go wrong with the state file.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use thiserror::Error;

/// Why the state could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file could not be opened.
    #[error("cannot open the state at {}: {source}; the folder must be writable", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The key that seals what waits for the audit log cannot be used.
    #[error("cannot use the key of the state at {}: {source}", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file was written by a later version of this program.
    #[error(
        "the state at {} is of version {found}, and this program knows versions up to {known}; \
         use the program that wrote it, or another state folder",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: i64,
        /// The latest version that this program knows.
        known: i64,
    },
    /// An earlier version left events that are to go into the audit log, and did not seal them.
    #[error(
        "{waiting} events of an earlier version wait in the state at {} for the audit log; run anything with the \
         version that wrote them, then come back",
        path.display()
    )]
    Waiting {
        /// The file.
        path: PathBuf,
        /// How many.
        waiting: i64,
    },
    /// The disk is full. What was being written was left out as a whole.
    #[error("cannot {what}: the disk is full; nothing was half-written, make room and run again")]
    Full {
        /// What was being done.
        what: &'static str,
    },
    /// The file or its folder cannot be written.
    #[error("cannot {what}: the state folder is read-only; use another one with `--state`")]
    ReadOnly {
        /// What was being done.
        what: &'static str,
    },
    /// Another process kept the file locked for too long.
    #[error("cannot {what}: another process keeps the state locked; try again when it is done")]
    Busy {
        /// What was being done.
        what: &'static str,
    },
    /// Anything else.
    #[error("cannot {what}: {source}")]
    Failed {
        /// What was being done.
        what: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl StateError {
    pub(super) fn of(what: &'static str, source: rusqlite::Error) -> StateError {
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StateError::Full { what },
            Some(ErrorCode::ReadOnly) => StateError::ReadOnly { what },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StateError::Busy { what },
            _ => StateError::Failed { what, source },
        }
    }
}
