//! What goes wrong with a log.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::VerifierKey;

/// Why the log could not be opened, appended to or read.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The folder or one of its files cannot be made or opened.
    #[error("cannot open the audit log {}; its folder must exist on a disk that can be written to", path.display())]
    Open {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An entry could not be written; the log is as it was before.
    #[error("cannot append to the audit log {}, so nothing more may be done; free some space or make the folder writable", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The log could not be read.
    #[error("cannot read the audit log {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An event that JSON cannot hold, such as one with a number that is not finite.
    #[error("an event cannot be written as JSON")]
    Encode {
        /// The cause.
        source: serde_json::Error,
    },
    /// A line is not what was written there.
    #[error("the audit log {} is damaged at byte {offset}; `sandcast audit verify` says where and how", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the line starts.
        offset: u64,
    },
    /// Entries at the end are gone.
    #[error("the audit log {} ends before entry {sequence}, which its head or a checkpoint names: its tail was cut off, or lost with the power; keep the folder as evidence, and put back the log that was there; to start a new one, move {} away, and what lies beside it with the endings .signed and .key", path.display(), folder_of(path).display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// The entry that the head or a checkpoint names.
        sequence: u64,
    },
    /// The private key is not the one that the log was signed with so far.
    #[error("{} is not there or is not the key that signs this log, {key}; put it back, or say with `sandcast audit key new --reason …` why there must be another", path.display())]
    KeyLost {
        /// Where the private key should be.
        path: PathBuf,
        /// The key in force.
        key: VerifierKey,
    },
    /// A private key cannot be read or written, or is damaged.
    #[error("cannot use the private key {} of the audit log; it is one line that begins with PRIVATE+KEY, in a file that only its owner may read", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// There is nothing to sign with: a log in memory, or a key that the log does not name.
    #[error(
        "there is no key to sign this audit log with: it is kept in memory, or names another one"
    )]
    NoKey,
    /// The history of checkpoints cannot be read or appended to.
    #[error("cannot sign a checkpoint into {}; `sandcast audit verify` says whether it is whole", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What is kept of archived entries is not what was written.
    #[error("{} was changed: it does not say which entries were archived, so the audit log cannot be read; keep the folder as evidence", path.display())]
    Archived {
        /// The file.
        path: PathBuf,
    },
    /// The log is not the one that was signed here last.
    #[error("the audit log {} does not go on from entry {sequence}, up to which it was signed here last: it was cut, rewritten, or replaced by another or an older one; keep its folder and {} as evidence, put back the log that was there; to start a new one, move both away, and the private key, which has the ending .key", path.display(), signed.display())]
    Rewritten {
        /// The file.
        path: PathBuf,
        /// The last entry that was signed.
        sequence: u64,
        /// What says so.
        signed: PathBuf,
    },
    /// The file that names the last entry is gone or is not one.
    #[error("{} is missing or damaged, so nobody can tell whether the audit log is whole; keep the folder as evidence, and put back the log that was there; to start a new one, move {} away, and what lies beside it with the endings .signed and .key", path.display(), folder_of(path).display())]
    Head {
        /// The file.
        path: PathBuf,
    },
}

/// The folder of a log, as errors name it.
fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}
