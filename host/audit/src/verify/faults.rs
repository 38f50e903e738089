//! What checking a log comes to: a report, or the first thing that is not as it was written.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::note::{NoteFault, VerifierKey};
use crate::{Digest, TreeHash};

/// Words that anybody may have written, so that they cannot pass for lines of a report.
fn one_line(words: &str) -> String {
    let seen = words.chars().flat_map(|c| {
        // And those that turn the direction of text or end a line.
        let is_unseen = c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let escaped = is_unseen.then(|| c.escape_default());
        let plain = (!is_unseen).then_some(c);
        escaped.into_iter().flatten().chain(plain)
    });
    seen.collect()
}

/// What a log that is whole looks like.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct VerifyReport {
    /// How many entries there are.
    pub entries: u64,
    /// The digest of the last one, or [`Digest::ZERO`].
    pub head: Digest,
    /// When the first was appended.
    pub first_time: Option<String>,
    /// When the last was appended.
    pub last_time: Option<String>,
    /// Entries after the one that `head.json` names: a crash came before it was renewed. The
    /// next append renews it.
    pub unsealed: u64,
    /// The lines that say that an incomplete line was dropped after a crash.
    pub repairs: Vec<u64>,
    /// The root of the tree of all entries.
    pub root: TreeHash,
    /// The key in force at the end, if the log has one. Its name is the log's.
    pub key: Option<VerifierKey>,
    /// Whether a key that the caller trusts leads to that one.
    pub is_trusted: bool,
    /// The entries that gave the log another key with the signature of the one before.
    pub rotations: Vec<u64>,
    /// The entries that gave the log another key without that.
    pub replacements: Vec<u64>,
    /// How many checkpoints there are.
    pub checkpoints: u64,
    /// How many entries the last checkpoint covers. Those after it have no signature yet.
    pub signed: u64,
    /// The entries whose content is here; all of them, but for an export of some.
    pub present: (u64, u64),
    /// How many of the texts that these entries name are here, each under its digest.
    pub texts: u64,
    /// How many are not: an earlier version kept none.
    pub texts_missing: u64,
}

impl Default for VerifyReport {
    fn default() -> Self {
        Self {
            entries: 0,
            head: Digest::ZERO,
            first_time: None,
            last_time: None,
            unsealed: 0,
            repairs: Vec::new(),
            root: TreeHash::empty(),
            key: None,
            is_trusted: false,
            rotations: Vec::new(),
            replacements: Vec::new(),
            checkpoints: 0,
            signed: 0,
            present: (0, 0),
            texts: 0,
            texts_missing: 0,
        }
    }
}

/// Why a log is not whole, or could not be looked at.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A line is wrong, on its own or in its place.
    #[error("{}, line {line}: {fault}", path.display())]
    Line {
        /// The log.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The log ends before the entry that the head names.
    #[error("{}: the tail was cut off: the head names entry {expected}, the log ends at entry {found}", path.display())]
    Cut {
        /// The log.
        path: PathBuf,
        /// The entry that the head names.
        expected: u64,
        /// The last entry there is.
        found: u64,
    },
    /// The log ends before the entry that one of the two heads names, and has the other one's, and all
    /// that was signed.
    #[error("{}: the head names entry {expected}, the log ends at entry {found}: entries that were not signed yet were lost with the power, or cut off; all that was signed is here, so the next run goes on from it and says so in the log", path.display())]
    HeadAhead {
        /// The log.
        path: PathBuf,
        /// The entry that the head names.
        expected: u64,
        /// The last entry there is.
        found: u64,
    },
    /// The head is missing while there are entries.
    #[error("{} is missing: nobody can tell whether the tail of the log was cut off", path.display())]
    HeadMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The head was changed: it is not one, or names another place or digest than the log has.
    #[error("{} was changed: it does not describe entry {sequence} of the log", path.display())]
    HeadChanged {
        /// The head.
        path: PathBuf,
        /// The entry it names, or 0 if it cannot be read.
        sequence: u64,
    },
    /// One of the two heads is not whole: a crash left it so, or somebody changed it.
    #[error("{} was changed: one of the two heads in it is not whole; if a loss of power did that, the next run mends it and says so in the log", path.display())]
    HeadIncomplete {
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint is wrong, on its own or for this log.
    #[error("{}, line {line}: {fault}", path.display())]
    Checkpoint {
        /// The file of checkpoints.
        path: PathBuf,
        /// The line it starts at, counted from 1.
        line: u64,
        /// What is wrong with it.
        fault: CheckpointFault,
    },
    /// A checkpoint that was kept from earlier does not belong to this log.
    #[error("the checkpoint of {size} entries that was kept from earlier: {fault}")]
    Kept {
        /// Its size.
        size: u64,
        /// Why not.
        fault: CheckpointFault,
    },
    /// Keys were given, and none of them, nor one that they gave way to, signed a checkpoint.
    #[error(
        "{}: no checkpoint is signed by a key that was given, so nothing says who wrote this log; the key it names is {}",
        path.display(),
        key.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
    )]
    Untrusted {
        /// The log.
        path: PathBuf,
        /// The key in force at its end.
        key: Option<VerifierKey>,
    },
    /// The key was replaced by one that no given key vouches for.
    #[error(
        "{}, entry {sequence}: the key was REPLACED by {key} without a signature of the one before, because: {}; ask the operator in another way whether that is so, and then give the new key too",
        path.display(),
        one_line(reason)
    )]
    Replaced {
        /// The log.
        path: PathBuf,
        /// The entry that says so.
        sequence: u64,
        /// The new key.
        key: VerifierKey,
        /// Why, in the words of the operator.
        reason: String,
    },
    /// The file that says what an export holds is missing or was changed.
    #[error("{} was changed: it does not describe this export", path.display())]
    ExportChanged {
        /// The file.
        path: PathBuf,
    },
    /// A file of an export is not what the entries make.
    #[error("{} was changed or is missing: it is not what the entries of the log make; ask for the export again", path.display())]
    TileChanged {
        /// The file.
        path: PathBuf,
    },
    /// A text is not the one that entries name.
    #[error("{} was changed: it is not the text that entries of the log name by this digest; keep it as evidence somewhere else, since one that is not there is no fault", path.display())]
    TextChanged {
        /// The file.
        path: PathBuf,
    },
    /// What is kept of archived entries is missing or was changed.
    #[error("{} was changed or is missing: it is not what was kept of the entries that were archived, or the tiles beside it are not", path.display())]
    ArchivedChanged {
        /// The file.
        path: PathBuf,
    },
    /// The log begins after entries that no entry of it says were archived.
    #[error("{}: entries 1 to {last} are not here, and no signed entry says that they were archived: they were removed", path.display())]
    NotArchived {
        /// The log.
        path: PathBuf,
        /// The last of them.
        last: u64,
    },
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// It is not an entry.
    #[error("this is not an entry of an audit log")]
    Malformed,
    /// Its content is not what its digest was made of.
    #[error("the entry was changed: its content does not match its digest")]
    Changed,
    /// It has no newline: a crash cut it short, or somebody did.
    #[error(
        "the last entry is incomplete; if a crash did that, the next run drops it and says so in the log"
    )]
    Incomplete,
    /// Entries before it are nowhere in the log.
    #[error("entries {from} to {to} were removed before this one")]
    Removed {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// It stands before one that it followed.
    #[error("entry {sequence} stands where entry {expected} belongs: entries were reordered")]
    Reordered {
        /// The entry found here.
        sequence: u64,
        /// The entry that belongs here; it stands further down.
        expected: u64,
    },
    /// The same entry stands further up.
    #[error("this repeats line {of}")]
    Duplicated {
        /// The line it repeats.
        of: u64,
    },
    /// It is well formed, but was not made after the line above.
    #[error(
        "the chain is broken: this entry was not written after the line above; one of the two was replaced"
    )]
    Unchained,
    /// A first key for a log that has one.
    #[error(
        "a first key is named here, but the log has a key already: this entry was not written by sandcast"
    )]
    KeyAgain,
    /// A change of keys that the key in force did not sign.
    #[error(
        "the change to another key is not signed by the key in force: whoever wrote this entry does not have that key"
    )]
    Rotation,
    /// An entry about keys that names no key that could sign this log.
    #[error("the key that this entry names is not one for this log")]
    Key,
}

/// What is wrong with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointFault {
    /// It is not a checkpoint.
    #[error("this is not a signed checkpoint")]
    Malformed,
    /// It ends too early: a crash cut it short, or somebody did.
    #[error(
        "the last checkpoint is incomplete; if a crash did that, the next run drops it, says so in the log and signs anew"
    )]
    Incomplete,
    /// It is not of a larger log than the one above.
    #[error(
        "this checkpoint is of {size} entries and stands after one of {before}: checkpoints were removed, repeated or reordered"
    )]
    Order {
        /// Its size.
        size: u64,
        /// The size of the one above.
        before: u64,
    },
    /// It is of more entries than there are.
    #[error(
        "the tail was cut off: the checkpoint is of {size} entries, the log ends at entry {entries}"
    )]
    Beyond {
        /// Its size.
        size: u64,
        /// How many entries there are.
        entries: u64,
    },
    /// The log has another root at its size.
    #[error(
        "the log and the checkpoint are two histories: of their first {size} entries the log has the root {found}, the checkpoint {wanted}; keep both as evidence"
    )]
    Forked {
        /// Its size.
        size: u64,
        /// Its root.
        wanted: TreeHash,
        /// The root of the log at that size.
        found: TreeHash,
    },
    /// The history does not end with the checkpoint that was published.
    #[error("the checkpoints do not end with the one in the file `checkpoint`: some were removed")]
    Missing,
    /// No entry up to its size names a key.
    #[error("it is signed, but no entry up to it names the key of the log")]
    NoKey,
    /// It is not signed as it must be.
    #[error("at {size} entries: {fault}")]
    Note {
        /// Its size.
        size: u64,
        /// What is wrong.
        fault: NoteFault,
    },
}
