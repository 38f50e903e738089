use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::Digest;
use crate::entry::{LineFault, RawEntry, open_line};
use crate::head::{HEAD_FILE, Head, LOG_FILE};

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
}

/// Checks every entry of the log in a folder, and that the log ends where its head says.
///
/// # Errors
/// At the first fault, with its line and cause; or when a file cannot be read.
pub fn verify(dir: &Path) -> Result<VerifyReport, VerifyError> {
    let path = dir.join(LOG_FILE);
    let head_path = dir.join(HEAD_FILE);
    let head = match Head::load(dir) {
        Ok(head) => head,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(VerifyError::HeadChanged {
                path: head_path,
                sequence: 0,
            });
        }
        Err(source) => {
            return Err(VerifyError::Read {
                path: head_path,
                source,
            });
        }
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(VerifyError::Read { path, source }),
    };

    let mut chain = Chain::default();
    let mut sealed = false;
    for (number, start, line) in lines(&bytes) {
        let entry = chain
            .take(number, line)
            .map_err(|fault| explain(fault, number, &bytes, &chain))
            .map_err(|fault| VerifyError::Line {
                path: path.clone(),
                line: number,
                fault,
            })?;
        if let Some(head) = head.filter(|head| head.sequence == entry.sequence) {
            if (head.digest, head.start) != (entry.digest, start) {
                return Err(VerifyError::HeadChanged {
                    path: head_path,
                    sequence: head.sequence,
                });
            }
            sealed = true;
        }
    }
    let found = chain.report.entries;
    match head {
        Some(head) if head.sequence > found => {
            return Err(VerifyError::Cut {
                path,
                expected: head.sequence,
                found,
            });
        }
        // A head that names entry 0 names nothing.
        Some(head) if !sealed => {
            return Err(VerifyError::HeadChanged {
                path: head_path,
                sequence: head.sequence,
            });
        }
        Some(head) => chain.report.unsealed = found - head.sequence,
        // A crash between the very first entry and its head leaves one entry.
        None if found > 1 => return Err(VerifyError::HeadMissing { path: head_path }),
        None => chain.report.unsealed = found,
    }
    Ok(chain.report)
}

#[derive(Default)]
struct Chain {
    report: VerifyReport,
    /// The digest of each entry so far, by sequence.
    digests: Vec<Digest>,
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
        }
    }
}

impl Chain {
    fn take(&mut self, number: u64, line: &[u8]) -> Result<RawEntry, Fault> {
        let body = line.strip_suffix(b"\n").ok_or(Fault::Incomplete)?;
        let entry = open_line(body).map_err(|fault| match fault {
            LineFault::Malformed => Fault::Malformed,
            LineFault::Changed => Fault::Changed,
        })?;
        if entry.sequence != number {
            return Err(Fault::Reordered {
                sequence: entry.sequence,
                expected: number,
            });
        }
        if entry.previous != self.report.head {
            return Err(Fault::Unchained);
        }
        self.report.entries = number;
        self.report.head = entry.digest;
        self.report
            .first_time
            .get_or_insert_with(|| entry.time.clone());
        self.report.last_time = Some(entry.time.clone());
        if entry.event.get("event").and_then(serde_json::Value::as_str) == Some("log-repaired") {
            self.report.repairs.push(number);
        }
        self.digests.push(entry.digest);
        Ok(entry)
    }
}

/// Finds out how an entry came to stand where another belongs.
fn explain(fault: Fault, number: u64, bytes: &[u8], chain: &Chain) -> Fault {
    let Fault::Reordered { sequence, expected } = fault else {
        return fault;
    };
    let further_down: HashMap<u64, Digest> = lines(bytes)
        .skip_while(|(line, ..)| *line < number)
        .filter_map(|(_, _, line)| open_line(line.strip_suffix(b"\n")?).ok())
        .map(|entry| (entry.sequence, entry.digest))
        .collect();
    if sequence > expected {
        if further_down.contains_key(&expected) {
            return Fault::Reordered { sequence, expected };
        }
        return Fault::Removed {
            from: expected,
            to: sequence - 1,
        };
    }
    let above = sequence
        .checked_sub(1)
        .and_then(|place| chain.digests.get(usize::try_from(place).ok()?));
    match above {
        Some(digest) if further_down.get(&sequence) == Some(digest) => {
            Fault::Duplicated { of: sequence }
        }
        _ => Fault::Unchained,
    }
}

/// Line number from 1, the byte it starts at, and the line with its newline if it has one.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (u64, u64, &[u8])> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .scan((0, 0), |(number, start), line| {
            *number += 1;
            let this = (*number, *start, line);
            *start += line.len() as u64;
            Some(this)
        })
}

#[cfg(test)]
mod tests;
