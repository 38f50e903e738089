use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use crate::entry::{open_line, seal};
use crate::head::{HEAD_FILE, Head, LOG_FILE};
use crate::{Digest, Entry, Event};

/// The log of one state folder. Clones append to the same log; so may other processes.
///
/// Every entry is handed to the operating system before [`append`](Self::append) returns, so it
/// survives the death of the process. At the boundaries of runs and at registrations it is also
/// pushed to the disk, so those survive a loss of power.
#[derive(Debug, Clone)]
pub struct AuditLog {
    sink: Arc<Mutex<Sink>>,
}

#[derive(Debug)]
enum Sink {
    Folder(Folder),
    Memory(Vec<Entry>),
}

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
    #[error("the audit log {} ends before entry {sequence}, which its head names: its tail was cut off, or lost with the power; keep the folder as evidence and move it away to start a new log", path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// The entry that the head names.
        sequence: u64,
    },
    /// The file that names the last entry is gone or is not one.
    #[error("{} is missing or damaged, so nobody can tell whether the audit log is whole; keep the folder as evidence and move it away to start a new log", path.display())]
    Head {
        /// The file.
        path: PathBuf,
    },
}

impl AuditLog {
    /// Opens the log in a folder, which is made if it is not there. An incomplete last line, left
    /// by a crash, is dropped and a [`Event::LogRepaired`] appended.
    ///
    /// # Errors
    /// When the folder cannot be written to, or its log does not end where its head says.
    pub fn open(dir: &Path) -> Result<Self, AuditError> {
        Ok(Self {
            sink: Arc::new(Mutex::new(Sink::Folder(Folder::open(dir)?))),
        })
    }

    /// A log that is kept in memory and dies with its last clone.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            sink: Arc::new(Mutex::new(Sink::Memory(Vec::new()))),
        }
    }

    /// Appends an event. When this returns an entry, the event is recorded; when it returns an
    /// error, it is not, and what it describes must not be done or reported as done.
    ///
    /// # Errors
    /// When the entry cannot be written, such as on a full disk, or the log was damaged meanwhile.
    pub fn append(&self, event: Event) -> Result<Entry, AuditError> {
        // A panic while the lock was held leaves the sink whole: its tail is set last.
        match &mut *self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::Folder(folder) => folder.append(event),
            Sink::Memory(entries) => {
                let (sequence, previous) = entries
                    .last()
                    .map_or((1, Digest::ZERO), |last| (last.sequence + 1, last.digest));
                let (entry, _) = seal(sequence, now(), previous, event)
                    .map_err(|source| AuditError::Encode { source })?;
                entries.push(entry.clone());
                Ok(entry)
            }
        }
    }

    /// Every entry so far, those of other processes included.
    ///
    /// # Errors
    /// As [`read`].
    pub fn entries(&self) -> Result<Vec<Entry>, AuditError> {
        let dir = match &*self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::Folder(folder) => folder.dir.clone(),
            Sink::Memory(entries) => return Ok(entries.clone()),
        };
        read(&dir)?.collect()
    }

    /// The folder, or none for a log in memory.
    #[must_use]
    pub fn dir(&self) -> Option<PathBuf> {
        match &*self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::Folder(folder) => Some(folder.dir.clone()),
            Sink::Memory(_) => None,
        }
    }
}

/// Reads the log in a folder without opening it for writing. Each line is checked against its
/// digest; the chain between lines is not, that is [`verify`](crate::verify)'s work.
///
/// # Errors
/// When there is no log or it cannot be read; the iterator, when a line is damaged.
pub fn read(dir: &Path) -> Result<Entries, AuditError> {
    let path = dir.join(LOG_FILE);
    match File::open(&path) {
        Ok(file) => Ok(Entries {
            path,
            reader: BufReader::new(file),
            offset: 0,
        }),
        Err(source) => Err(AuditError::Read { path, source }),
    }
}

/// The entries of a log, oldest first.
#[derive(Debug)]
pub struct Entries {
    path: PathBuf,
    reader: BufReader<File>,
    offset: u64,
}

impl Iterator for Entries {
    type Item = Result<Entry, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        if let Err(source) = self.reader.read_until(b'\n', &mut line) {
            return Some(Err(AuditError::Read {
                path: self.path.clone(),
                source,
            }));
        }
        let offset = self.offset;
        self.offset += line.len() as u64;
        // Without a newline it is an entry that is being written, or the trace of a crash.
        let body = line.strip_suffix(b"\n")?;
        let entry = open_line(body)
            .ok()
            .and_then(|_| serde_json::from_slice(body).ok());
        Some(entry.ok_or_else(|| AuditError::Damaged {
            path: self.path.clone(),
            offset,
        }))
    }
}

/// The last entry that this process knows of.
#[derive(Debug, Clone, Copy)]
struct Tail {
    head: Head,
    /// The byte after its line: where the next one goes.
    end: u64,
}

const EMPTY: Tail = Tail {
    head: Head {
        digest: Digest::ZERO,
        sequence: 0,
        start: 0,
    },
    end: 0,
};

#[derive(Debug)]
struct Folder {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    tail: Tail,
}

impl Folder {
    fn open(dir: &Path) -> Result<Self, AuditError> {
        let path = dir.join(LOG_FILE);
        fs::create_dir_all(dir).map_err(|source| AuditError::Open {
            path: dir.to_owned(),
            source,
        })?;
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|source| AuditError::Open {
                path: path.clone(),
                source,
            })?;
        let mut folder = Self {
            dir: dir.to_owned(),
            path,
            file,
            tail: EMPTY,
        };
        folder.locked(|folder| {
            let head = Head::load(&folder.dir).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => AuditError::Head {
                    path: folder.dir.join(HEAD_FILE),
                },
                _ => AuditError::Read {
                    path: folder.dir.join(HEAD_FILE),
                    source: error,
                },
            })?;
            match head {
                Some(head) => folder.tail = folder.find(head)?,
                // A crash between the very first entry and its head leaves one entry.
                None if folder.lines_from(0)?.lines.len() > 1 => {
                    return Err(AuditError::Head {
                        path: folder.dir.join(HEAD_FILE),
                    });
                }
                None => {}
            }
            folder.catch_up()
        })?;
        Ok(folder)
    }

    fn append(&mut self, event: Event) -> Result<Entry, AuditError> {
        self.locked(|folder| {
            folder.catch_up()?;
            folder.write(event)
        })
    }

    /// Runs something while no other process appends.
    fn locked<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        self.file.lock().map_err(|source| AuditError::Open {
            path: self.path.clone(),
            source,
        })?;
        let result = work(self);
        self.file.unlock().map_err(|source| AuditError::Open {
            path: self.path.clone(),
            source,
        })?;
        result
    }

    /// The tail at the entry that a head names.
    fn find(&self, head: Head) -> Result<Tail, AuditError> {
        let cut = || AuditError::Cut {
            path: self.path.clone(),
            sequence: head.sequence,
        };
        let mut line = Vec::new();
        self.reader_at(head.start)
            .and_then(|mut reader| reader.read_until(b'\n', &mut line))
            .map_err(|source| AuditError::Read {
                path: self.path.clone(),
                source,
            })?;
        let body = line.strip_suffix(b"\n").ok_or_else(cut)?;
        match open_line(body) {
            Ok(entry) if entry.digest == head.digest && entry.sequence == head.sequence => {
                Ok(Tail {
                    head,
                    end: head.start + line.len() as u64,
                })
            }
            _ => Err(AuditError::Damaged {
                path: self.path.clone(),
                offset: head.start,
            }),
        }
    }

    /// Takes in what other processes have appended, and drops what a crash left incomplete.
    fn catch_up(&mut self) -> Result<(), AuditError> {
        let length = self.length()?;
        if length == self.tail.end {
            return Ok(());
        }
        if length < self.tail.end {
            return Err(AuditError::Cut {
                path: self.path.clone(),
                sequence: self.tail.head.sequence,
            });
        }
        let Lines { lines, torn } = self.lines_from(self.tail.end)?;
        for line in lines {
            let head = self.tail.head;
            let start = self.tail.end;
            let damaged = || AuditError::Damaged {
                path: self.path.clone(),
                offset: start,
            };
            let entry = open_line(&line[..line.len() - 1]).map_err(|_| damaged())?;
            if entry.sequence != head.sequence + 1 || entry.previous != head.digest {
                return Err(damaged());
            }
            let head = Head {
                digest: entry.digest,
                sequence: entry.sequence,
                start,
            };
            self.tail = Tail {
                head,
                end: start + line.len() as u64,
            };
        }
        if torn.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            bytes = torn.len(),
            "dropping an incomplete last line of the audit log"
        );
        self.file
            .set_len(self.tail.end)
            .map_err(|source| self.cannot_write(source))?;
        self.write(Event::LogRepaired {
            dropped_bytes: torn.len() as u64,
            dropped: Digest::of(&torn),
        })?;
        Ok(())
    }

    /// Appends at the known tail, or leaves the log as it was.
    fn write(&mut self, event: Event) -> Result<Entry, AuditError> {
        let sync = event.is_boundary();
        let before = self.tail;
        let (entry, line) = seal(before.head.sequence + 1, now(), before.head.digest, event)
            .map_err(|source| AuditError::Encode { source })?;
        let head = Head {
            digest: entry.digest,
            sequence: entry.sequence,
            start: before.end,
        };
        let written = self
            .file
            .write_all(line.as_bytes())
            .and_then(|()| if sync { self.file.sync_data() } else { Ok(()) })
            .and_then(|()| head.store(&self.dir, sync));
        if let Err(source) = written {
            // Should this fail too, the next append finds an incomplete line and drops it.
            if let Err(error) = self.file.set_len(before.end) {
                tracing::warn!(%error, "cannot take back an incomplete audit entry");
            }
            return Err(self.cannot_write(source));
        }
        self.tail = Tail {
            head,
            end: before.end + line.len() as u64,
        };
        Ok(entry)
    }

    fn lines_from(&self, offset: u64) -> Result<Lines, AuditError> {
        let failed = |source| AuditError::Read {
            path: self.path.clone(),
            source,
        };
        let mut reader = self.reader_at(offset).map_err(failed)?;
        let mut found = Lines {
            lines: Vec::new(),
            torn: Vec::new(),
        };
        loop {
            let mut line = Vec::new();
            reader.read_until(b'\n', &mut line).map_err(failed)?;
            if !line.ends_with(b"\n") {
                found.torn = line;
                return Ok(found);
            }
            found.lines.push(line);
        }
    }

    fn reader_at(&self, offset: u64) -> io::Result<BufReader<impl Read + '_>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        Ok(BufReader::new(file))
    }

    fn length(&self) -> Result<u64, AuditError> {
        match self.file.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(source) => Err(AuditError::Read {
                path: self.path.clone(),
                source,
            }),
        }
    }

    fn cannot_write(&self, source: io::Error) -> AuditError {
        AuditError::Write {
            path: self.path.clone(),
            source,
        }
    }
}

struct Lines {
    /// Complete lines, each with its newline.
    lines: Vec<Vec<u8>>,
    /// What follows the last newline.
    torn: Vec<u8>,
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[cfg(test)]
mod tests;
