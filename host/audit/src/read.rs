//! Reading entries, from the start or from where somebody stopped.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::entry::open_line;
use crate::head::LOG_FILE;
use crate::{AuditError, Digest, Entry};

/// A place in a log: after an entry. It can be kept, and checked when it is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of the entry before it; 0 at the start.
    pub sequence: u64,
    /// The digest of that entry; [`Digest::ZERO`] at the start.
    pub digest: Digest,
    /// The byte at which the line of that entry starts.
    start: u64,
    /// The byte after it.
    end: u64,
}

impl Position {
    /// Before the first entry.
    pub const START: Self = Self {
        sequence: 0,
        digest: Digest::ZERO,
        start: 0,
        end: 0,
    };

    /// The number of bytes before it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end
    }
}

/// Reads the log in a folder without opening it for writing. Each line is checked against its
/// digest; the chain between lines is not, that is [`verify`](fn@crate::verify)'s work.
///
/// # Errors
/// When there is no log or it cannot be read; the iterator, when a line is damaged.
pub fn read(dir: &Path) -> Result<Entries, AuditError> {
    let (file, path) = open(dir)?;
    Ok(Entries::at(file, path, Position::START))
}

/// Reads on from a place that was kept. `None` where the log does not have that entry there: it is
/// another log, or another state of it, and must be read from the start.
///
/// # Errors
/// As [`read`].
pub fn read_after(dir: &Path, position: Position) -> Result<Option<Entries>, AuditError> {
    let (file, path) = open(dir)?;
    if position == Position::START {
        return Ok(Some(Entries::at(file, path, position)));
    }
    let failed = |source| AuditError::Read {
        path: path.clone(),
        source,
    };
    let length = position.end.saturating_sub(position.start);
    let mut reader = BufReader::new(file);
    if length == 0 || reader.get_ref().metadata().map_err(failed)?.len() < position.end {
        return Ok(None);
    }
    reader
        .seek(SeekFrom::Start(position.start))
        .map_err(failed)?;
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).map_err(failed)?;
    let is_there = line.len() as u64 == length
        && line.strip_suffix(b"\n").is_some_and(|body| {
            open_line(body).is_ok_and(|entry| {
                entry.sequence == position.sequence && entry.digest == position.digest
            })
        });
    Ok(is_there.then_some(Entries {
        path,
        reader,
        position,
    }))
}

fn open(dir: &Path) -> Result<(File, PathBuf), AuditError> {
    let path = dir.join(LOG_FILE);
    match File::open(&path) {
        Ok(file) => Ok((file, path)),
        Err(source) => Err(AuditError::Read { path, source }),
    }
}

/// The entries of a log, oldest first.
#[derive(Debug)]
pub struct Entries {
    path: PathBuf,
    reader: BufReader<File>,
    position: Position,
}

impl Entries {
    fn at(file: File, path: PathBuf, position: Position) -> Self {
        Self {
            path,
            reader: BufReader::with_capacity(1 << 17, file),
            position,
        }
    }

    /// Whether there is nothing after the entry that was read last, not even half an entry.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn is_at_end(&self) -> Result<bool, AuditError> {
        match self.reader.get_ref().metadata() {
            Ok(metadata) => Ok(metadata.len() == self.position.end),
            Err(source) => Err(AuditError::Read {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// The place after the entry that was read last.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next entry whose line is wanted. Lines that are not are only counted: neither parsed nor
    /// checked against their digests, which is several times faster; the last of them is, for
    /// [`position`](Self::position) names it.
    ///
    /// # Errors
    /// When the log cannot be read or a line is damaged.
    pub fn next_wanted(
        &mut self,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Entry>, AuditError> {
        let (mut line, mut passed) = (Vec::new(), Vec::new());
        loop {
            line.clear();
            self.line(&mut line)?;
            // Without a newline it is an entry that is being written, or the trace of a crash.
            let Some(body) = line.strip_suffix(b"\n") else {
                if let Some(body) = passed.strip_suffix(b"\n") {
                    let entry = open_line(body).map_err(|_| self.damaged())?;
                    self.position.digest = entry.digest;
                }
                return Ok(None);
            };
            let start = self.position.end;
            let is_wanted = wanted(body);
            let entry: Option<Entry> = match is_wanted {
                false => None,
                true => Some(
                    open_line(body)
                        .ok()
                        .and_then(|_| serde_json::from_slice(body).ok())
                        .ok_or_else(|| self.damaged())?,
                ),
            };
            self.position.start = start;
            self.position.end += line.len() as u64;
            self.position.sequence += 1;
            match entry {
                Some(entry) => {
                    self.position.digest = entry.digest;
                    return Ok(Some(entry));
                }
                None => std::mem::swap(&mut line, &mut passed),
            }
        }
    }

    fn line(&mut self, line: &mut Vec<u8>) -> Result<usize, AuditError> {
        let read: io::Result<usize> = self.reader.read_until(b'\n', line);
        read.map_err(|source| AuditError::Read {
            path: self.path.clone(),
            source,
        })
    }

    fn damaged(&self) -> AuditError {
        AuditError::Damaged {
            path: self.path.clone(),
            offset: self.position.end,
        }
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_wanted(|_| true).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuditLog, Event};

    fn log(predictions: &[u64]) -> (tempfile::TempDir, AuditLog) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = AuditLog::open(folder.path()).expect("a log");
        for predictions in predictions {
            let predictions = *predictions;
            log.append(Event::ServeStopped { predictions })
                .expect("appended");
        }
        (folder, log)
    }

    #[test]
    fn reading_goes_on_where_it_stopped() {
        let (folder, log) = log(&[1, 2, 3]);
        let mut entries = read(folder.path()).expect("a log");
        let wanted = |line: &[u8]| line.windows(15).any(|part| part == b"\"predictions\":2");
        let second = entries.next_wanted(wanted).expect("readable");
        assert_eq!(second.map(|entry| entry.sequence), Some(3), "after the key");
        assert!(entries.next_wanted(wanted).expect("readable").is_none());
        let position = entries.position();
        assert_eq!(position.sequence, 4);

        log.append(Event::ServeStopped { predictions: 4 })
            .expect("appended");
        let entries = read_after(folder.path(), position).expect("a log");
        let mut entries = entries.expect("the same log");
        assert!(!entries.is_at_end().expect("a file"));
        let rest: Vec<u64> = entries
            .by_ref()
            .map(|entry| entry.expect("an entry").sequence)
            .collect();
        assert_eq!(rest, [5]);
        assert!(entries.is_at_end().expect("a file"));
    }

    #[test]
    fn a_place_of_another_log_is_found_out() {
        let (folder, _log) = log(&[1, 2, 3]);
        let mut entries = read(folder.path()).expect("a log");
        assert!(entries.by_ref().all(|entry| entry.is_ok()));
        let position = entries.position();
        let (other, _log) = log_of_others();
        assert!(read_after(other.path(), position).expect("a log").is_none());
        let shorter = Position {
            end: position.end + 1,
            ..position
        };
        assert!(read_after(folder.path(), shorter).expect("a log").is_none());
    }

    fn log_of_others() -> (tempfile::TempDir, AuditLog) {
        log(&[7, 8, 9])
    }
}
