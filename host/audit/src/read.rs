//! Reading entries, from the start or from where somebody stopped.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Cursor, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::archived::Archived;
use crate::entry::open_line;
use crate::export::{EARLIER_FILE, MANIFEST_FILE};
use crate::head::LOG_FILE;
use crate::{AuditError, Digest, Entry};

/// A place in a log: after an entry. It can be kept, and checked when it is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of the entry before it; 0 at the start.
    pub sequence: u64,
    /// The digest of that entry; [`Digest::ZERO`] at the start.
    pub digest: Digest,
    /// The byte at which the line of that entry starts, counted from the very first entry of the log.
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

    /// After the entry whose line is between these bytes.
    pub(crate) fn of(sequence: u64, digest: Digest, start: u64, end: u64) -> Self {
        Self {
            sequence,
            digest,
            start,
            end,
        }
    }

    /// The number of bytes before it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// After the entries that were archived.
    fn after(archived: &Archived) -> Self {
        Self {
            sequence: archived.last,
            digest: archived.digest,
            start: archived.bytes,
            end: archived.bytes,
        }
    }
}

/// Reads the log in a folder without opening it for writing. Each line is checked against its
/// digest; the chain between lines is not, that is [`verify`](fn@crate::verify)'s work. Of entries
/// that were archived, or come before those of an export, there come those whose lines were kept.
///
/// # Errors
/// When there is no log or it cannot be read; the iterator, when a line is damaged.
pub fn read(dir: &Path) -> Result<Entries, AuditError> {
    let log = Log::open(dir)?;
    let kept = match &log.archived {
        None if dir.join(MANIFEST_FILE).exists() => {
            let path = dir.join(EARLIER_FILE);
            match crate::small::read(&path) {
                Ok(lines) => Some(Cursor::new(lines)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(source) => return Err(AuditError::Read { path, source }),
            }
        }
        None => None,
        Some(archived) => {
            let path = Archived::kept_path(dir, archived.last);
            match crate::small::read(&path) {
                Ok(lines) if Digest::of(&lines) == archived.kept => Some(Cursor::new(lines)),
                _ => return Err(AuditError::Archived { path }),
            }
        }
    };
    Ok(log.entries(kept, Position::START))
}

/// Reads on from a place that was kept. `None` where the log does not have that entry there: it is
/// another log, or another state of it, or the entry was archived, and it must be read from the start.
///
/// # Errors
/// As [`read`].
pub fn read_after(dir: &Path, position: Position) -> Result<Option<Entries>, AuditError> {
    if position == Position::START {
        return read(dir).map(Some);
    }
    let mut log = Log::open(dir)?;
    if let Some(archived) = &log.archived {
        if (position.sequence, position.digest, position.end)
            == (archived.last, archived.digest, archived.bytes)
        {
            return Ok(Some(log.entries(None, position)));
        }
        if position.start < archived.bytes {
            return Ok(None);
        }
    }
    let base = log.base();
    let (path, file) = (&log.path, &mut log.file);
    let failed = |source| AuditError::Read {
        path: path.clone(),
        source,
    };
    let length = position.end.saturating_sub(position.start);
    if length == 0 || base + file.metadata().map_err(failed)?.len() < position.end {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(position.start - base))
        .map_err(failed)?;
    let mut reader = BufReader::new(&mut *file);
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).map_err(failed)?;
    let is_there = line.len() as u64 == length
        && line.strip_suffix(b"\n").is_some_and(|body| {
            open_line(body).is_ok_and(|entry| {
                entry.sequence == position.sequence && entry.digest == position.digest
            })
        });
    drop(reader);
    if !is_there {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(position.end - base))
        .map_err(failed)?;
    Ok(Some(log.entries(None, position)))
}

/// The file of a log, at its start, and what it begins after.
struct Log {
    path: PathBuf,
    file: File,
    archived: Option<Archived>,
}

impl Log {
    fn open(dir: &Path) -> Result<Self, AuditError> {
        let path = dir.join(LOG_FILE);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(AuditError::Read { path, source }),
        };
        let archived = Archived::before(dir, &mut file)?;
        Ok(Self {
            path,
            file,
            archived,
        })
    }

    /// The bytes of archived entries.
    fn base(&self) -> u64 {
        self.archived.as_ref().map_or(0, |archived| archived.bytes)
    }

    fn entries(self, kept: Option<Cursor<Vec<u8>>>, position: Position) -> Entries {
        Entries {
            base: self.base(),
            // Only used where there is something kept to come first.
            after_kept: self.archived.as_ref().map(Position::after),
            kept,
            path: self.path,
            reader: BufReader::with_capacity(1 << 17, self.file),
            position,
        }
    }
}

/// The entries of a log, oldest first.
#[derive(Debug)]
pub struct Entries {
    path: PathBuf,
    /// Lines of archived entries, which come first.
    kept: Option<Cursor<Vec<u8>>>,
    /// Where the log goes on after them.
    after_kept: Option<Position>,
    reader: BufReader<File>,
    /// The bytes of archived entries, which are not in the file.
    base: u64,
    position: Position,
}

impl Entries {
    /// Whether there is nothing after the entry that was read last, not even half an entry.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn is_at_end(&self) -> Result<bool, AuditError> {
        match self.reader.get_ref().metadata() {
            Ok(metadata) => Ok(self.base + metadata.len() == self.position.end),
            Err(source) => Err(AuditError::Read {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// The place after the entry that was read last; the start, while lines of archived entries come.
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
            let is_kept = self.line(&mut line)?;
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
            if is_kept {
                match entry {
                    Some(entry) => return Ok(Some(entry)),
                    None => continue,
                }
            }
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

    /// Reads the next line; whether it is that of an archived entry.
    fn line(&mut self, line: &mut Vec<u8>) -> Result<bool, AuditError> {
        let failed = |source| AuditError::Read {
            path: self.path.clone(),
            source,
        };
        if let Some(kept) = &mut self.kept {
            if kept.read_until(b'\n', line).map_err(failed)? > 0 {
                return Ok(true);
            }
            self.kept = None;
            self.position = self.after_kept.take().unwrap_or(self.position);
        }
        self.reader.read_until(b'\n', line).map_err(failed)?;
        Ok(false)
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
