//! The log of a state folder: what may be done with it, and how entries come into its file.

mod anchored;
mod error;
mod keys;
mod recovery;
mod retire;
mod signing;
mod waiting;

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::archived::Archived;
use crate::checkpoint::SignedCheckpoint;
use crate::entry::seal;
use crate::head::{Head, HeadFile, LOG_FILE};
use crate::note::LogKey;
use crate::tree::{Frontier, TreeHash};
use crate::verify::is_at;
use crate::{Digest, Entry, Event, Position, VerifierKey, read, read_after};
pub use error::AuditError;
pub use keys::local_key;
pub use waiting::{Settled, Waiting};

/// The log of one state folder. Clones append to the same log; so may other processes.
///
/// Every entry is handed to the operating system before [`append`](Self::append) returns, so it
/// survives the death of the process. At the boundaries of runs and at registrations it is also
/// pushed to the disk, so those survive a loss of power, and a checkpoint of the whole log is
/// signed.
#[derive(Debug, Clone)]
pub struct AuditLog {
    sink: Arc<Mutex<Sink>>,
}

#[derive(Debug)]
enum Sink {
    Folder(Box<Folder>),
    Memory(Vec<Entry>),
}

impl AuditLog {
    /// Opens the log in a folder, which is made if it is not there. An incomplete last line, left
    /// by a crash, is dropped and a [`Event::LogRepaired`] appended. A log without a key is given
    /// one, in a file beside the folder that only its owner may read, and [`Event::KeyCreated`]
    /// says so. What the process before left unsigned is signed.
    ///
    /// # Errors
    /// When the folder cannot be written to, its log does not end where its head says, or the
    /// private key is not the one that the log was signed with.
    pub fn open(dir: &Path) -> Result<Self, AuditError> {
        let folder = Folder::open(dir, Folder::take_key)?;
        Ok(Self {
            sink: Arc::new(Mutex::new(Sink::Folder(Box::new(folder)))),
        })
    }

    /// Gives the log in a folder a new key that the old one does not vouch for, because it is
    /// lost or cannot be trusted any more; [`Event::KeyReplaced`] says why. Who checks the log
    /// must be told the new key in another way. What it is told `before`, such as who does it, comes
    /// first, in one piece with it.
    ///
    /// # Errors
    /// As [`open`](Self::open), except that the old private key need not be there.
    pub fn replace_key(
        dir: &Path,
        reason: &str,
        before: Vec<Event>,
    ) -> Result<VerifierKey, AuditError> {
        let folder = Folder::open(dir, |folder| folder.replace_key(reason, before))?;
        folder.tail.key.ok_or(AuditError::NoKey)
    }

    /// Gives the log a new key that the old one vouches for in [`Event::KeyRotated`]. The old
    /// private key is gone afterwards.
    ///
    /// # Errors
    /// When the keys or the entry cannot be written; the old key then stays.
    pub fn rotate_key(&self) -> Result<VerifierKey, AuditError> {
        self.in_folder(|folder| folder.locked(Folder::rotate_key))
    }

    /// The key in force, which is what an auditor must be told; none for a log in memory.
    #[must_use]
    pub fn key(&self) -> Option<VerifierKey> {
        self.in_folder(|folder| folder.tail.key.clone().ok_or(AuditError::NoKey))
            .ok()
    }

    /// Signs a checkpoint of everything so far, unless the last one is of that already, and
    /// pushes all of it to the disk.
    ///
    /// # Errors
    /// When it cannot be signed or written, or the log was damaged meanwhile.
    pub fn checkpoint(&self) -> Result<SignedCheckpoint, AuditError> {
        self.in_folder(|folder| {
            folder.locked(|folder| {
                folder.catch_up()?;
                folder
                    .file
                    .sync_data()
                    .map_err(|source| folder.cannot_write(source))?;
                folder.sign(true)
            })
        })
    }

    fn in_folder<T>(
        &self,
        work: impl FnOnce(&mut Folder) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        match &mut *self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::Folder(folder) => work(folder),
            Sink::Memory(_) => Err(AuditError::NoKey),
        }
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
        let appended = self.append_all(vec![event])?;
        // One event, one entry.
        appended
            .into_iter()
            .next()
            .ok_or_else(|| AuditError::Encode {
                source: serde::ser::Error::custom("there is no entry"),
            })
    }

    /// Appends events, one after the other and in one piece: one write, and at most one push to the
    /// disk and one signature. Between them nothing may be done, since none is recorded before all
    /// are. A crash while they are written may leave the first of them.
    ///
    /// # Errors
    /// As [`append`](Self::append); then none of them is recorded.
    pub fn append_all(&self, events: Vec<Event>) -> Result<Vec<Entry>, AuditError> {
        // A panic while the lock was held leaves the sink whole: its tail is set last.
        match &mut *self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::Folder(folder) => folder.append(events),
            Sink::Memory(entries) => {
                let (mut sequence, mut previous) = entries
                    .last()
                    .map_or((0, Digest::ZERO), |last| (last.sequence, last.digest));
                let mut appended = Vec::with_capacity(events.len());
                for event in events {
                    sequence += 1;
                    let (entry, _) = seal(sequence, now(), previous, event)
                        .map_err(|source| AuditError::Encode { source })?;
                    previous = entry.digest;
                    appended.push(entry);
                }
                entries.extend_from_slice(&appended);
                Ok(appended)
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

    /// A place that the log has reached: others may have gone on from there. None for a log in memory.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        let place = |folder: &mut Folder| {
            let tail = &folder.tail;
            let (digest, start, end) = (tail.digest, tail.start, tail.end);
            Ok(Position::of(tail.sequence(), digest, start, end))
        };
        self.in_folder(place).ok()
    }

    /// The entries after a place that are wanted, those of other processes included; of all entries,
    /// where no place is given or the log does not have it any more. Only those are kept in memory.
    ///
    /// # Errors
    /// As [`read`].
    pub fn entries_after(
        &self,
        position: Option<Position>,
        mut wanted: impl FnMut(&Entry) -> bool,
    ) -> Result<Vec<Entry>, AuditError> {
        let dir = match &*self.sink.lock().unwrap_or_else(PoisonError::into_inner) {
            Sink::Folder(folder) => folder.dir.clone(),
            Sink::Memory(entries) => {
                return Ok(entries.iter().filter(|it| wanted(it)).cloned().collect());
            }
        };
        let after = match position {
            Some(position) => read_after(&dir, position)?,
            None => None,
        };
        let entries = match after {
            Some(entries) => entries,
            None => read(&dir)?,
        };
        entries
            .filter(|entry| entry.as_ref().map_or(true, &mut wanted))
            .collect()
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

/// The last entry that this process knows of.
#[derive(Debug, Clone)]
struct Tail {
    digest: Digest,
    /// The byte at which its line starts, counted from the very first entry of the log.
    start: u64,
    /// The byte after its line: where the next one goes.
    end: u64,
    /// The tree of it and all before, whose size is its number.
    tree: Frontier,
    /// The key in force after it.
    key: Option<VerifierKey>,
}

impl Tail {
    const fn empty() -> Self {
        Self {
            digest: Digest::ZERO,
            start: 0,
            end: 0,
            tree: Frontier::new(),
            key: None,
        }
    }

    fn sequence(&self) -> u64 {
        self.tree.size()
    }

    fn head(&self) -> Head {
        Head {
            digest: self.digest,
            key: self.key.clone(),
            sequence: self.sequence(),
            start: self.start,
            tree: Some(self.tree.roots().to_vec()),
        }
    }

    /// Goes on to the entry whose line, with its newline, comes next.
    fn step(&mut self, digest: Digest, line: &[u8], key: Option<&VerifierKey>) {
        self.digest = digest;
        self.start = self.end;
        self.end += line.len() as u64;
        let body = line.strip_suffix(b"\n").unwrap_or(line);
        self.tree.push(TreeHash::leaf(body));
        if let Some(key) = key {
            self.key = Some(key.clone());
        }
    }
}

#[derive(Debug)]
struct Folder {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    /// The bytes of entries that were archived: places are counted as if they were in the file.
    archived_bytes: u64,
    tail: Tail,
    /// The file that says where the log ends, once there is one.
    head: Option<HeadFile>,
    /// The private half of the key in force.
    signer: Option<LogKey>,
    /// Whether a checkpoint should have been signed and could not be.
    owes_checkpoint: bool,
}

impl Folder {
    fn open(
        dir: &Path,
        settle_key: impl FnOnce(&mut Self) -> Result<(), AuditError>,
    ) -> Result<Self, AuditError> {
        let path = dir.join(LOG_FILE);
        fs::create_dir_all(dir).map_err(|source| AuditError::Open {
            path: dir.to_owned(),
            source,
        })?;
        let file = open_file(&path, true)?;
        let mut folder = Self {
            dir: dir.to_owned(),
            path,
            file,
            archived_bytes: 0,
            tail: Tail::empty(),
            head: None,
            signer: None,
            owes_checkpoint: false,
        };
        folder.locked(|folder| {
            folder.find_start()?;
            let heads = folder.heads()?;
            let had_head = heads.is_some();
            let (mut tail, unfit) = match heads {
                Some(heads) => folder.go_to(heads)?,
                None => (Tail::empty(), None),
            };
            folder.follow(&mut tail)?;
            folder.tail = tail;
            // A crash between the very first entry and its head leaves one entry.
            if !had_head && folder.tail.sequence() > 1 {
                return Err(folder.no_head());
            }
            // So far nothing is written: a log that is not the one that was signed stays as it is.
            let anchor = folder.hold_to_signed(unfit.as_ref())?;
            folder.fetch_head_back(unfit.as_ref())?;
            folder.catch_up()?;
            folder.mend_head(unfit)?;
            settle_key(folder)?;
            folder.settle_head()?;
            // What the process before could not sign any more is signed now.
            let last = folder.last_checkpoint()?;
            let signed = last.map_or(0, |last| last.checkpoint().size);
            if signed < folder.tail.sequence() {
                folder.sign_or_owe();
            } else {
                folder.sign(false)?;
                if anchor != Some(folder.tail.sequence()) {
                    folder.drop_anchor();
                }
            }
            Ok(())
        })?;
        Ok(folder)
    }

    fn append(&mut self, events: Vec<Event>) -> Result<Vec<Entry>, AuditError> {
        self.locked(|folder| {
            folder.catch_up()?;
            folder.write(events)
        })
    }

    /// Runs something while no other process appends.
    fn locked<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, AuditError>,
    ) -> Result<T, AuditError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| AuditError::Open { path, source }
        };
        self.file.lock().map_err(failed(&self.path))?;
        let result = self.take_files().and_then(|()| work(self));
        // Whatever went wrong, others go on.
        let unlocked = self.file.unlock().map_err(failed(&self.path));
        result.and_then(|done| unlocked.map(|()| done))
    }

    /// Takes the files that are there now, locked, in place of those that were replaced.
    fn take_files(&mut self) -> Result<(), AuditError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| AuditError::Open { path, source }
        };
        // Another process may have archived the oldest entries, and with that replaced the file.
        while !is_at(&self.file, &self.path).map_err(failed(&self.path))? {
            let file = open_file(&self.path, false)?;
            file.lock().map_err(failed(&self.path))?;
            self.take_file(file)?;
            self.head = None;
        }
        // An older version replaces the head with each append.
        if self
            .head
            .as_ref()
            .is_some_and(|head| !head.is_in(&self.dir))
        {
            self.head = None;
        }
        Ok(())
    }

    /// Goes on with another file, once it is known how much of the log is not in that one.
    fn take_file(&mut self, file: File) -> Result<(), AuditError> {
        let before = std::mem::replace(&mut self.file, file);
        let found = self.find_start();
        if found.is_err() {
            self.file = before;
        }
        found
    }

    /// Finds out how much of the log is not in the file any more.
    fn find_start(&mut self) -> Result<(), AuditError> {
        let archived = Archived::before(&self.dir, &mut self.file)?;
        self.archived_bytes = archived.map_or(0, |archived| archived.bytes);
        Ok(())
    }

    /// Appends at the known tail, or leaves the log as it was; after a boundary, signs.
    fn write(&mut self, events: Vec<Event>) -> Result<Vec<Entry>, AuditError> {
        let is_boundary = events.iter().any(Event::is_boundary);
        let entries = self.put(events)?;
        if is_boundary || self.owes_checkpoint {
            self.sign_or_owe();
        }
        Ok(entries)
    }

    /// Appends at the known tail, or leaves the log as it was.
    fn put(&mut self, events: Vec<Event>) -> Result<Vec<Entry>, AuditError> {
        let sync = events.iter().any(Event::is_boundary);
        let mut tail = self.tail.clone();
        let (mut entries, mut lines) = (Vec::with_capacity(events.len()), String::new());
        for event in events {
            let (entry, line) = seal(tail.sequence() + 1, now(), tail.digest, event)
                .map_err(|source| AuditError::Encode { source })?;
            tail.step(entry.digest, line.as_bytes(), entry.event.key());
            lines.push_str(&line);
            entries.push(entry);
        }
        let written = self
            .file
            .write_all(lines.as_bytes())
            .and_then(|()| if sync { self.file.sync_data() } else { Ok(()) })
            .and_then(|()| self.store_head(&tail.head()));
        if let Err(source) = written {
            self.take_back();
            return Err(self.cannot_write(source));
        }
        self.tail = tail;
        let is_far_ahead = |head: &HeadFile| head.is_far_ahead(self.tail.sequence());
        if self.head.as_ref().is_some_and(is_far_ahead)
            && let Err(error) = self.renew_head()
        {
            tracing::warn!(%error, "the second head of the audit log stays as it is");
        }
        Ok(entries)
    }

    fn reader_at(&self, offset: u64) -> io::Result<BufReader<impl Read + '_>> {
        let mut file = &self.file;
        let place = offset.checked_sub(self.archived_bytes);
        file.seek(SeekFrom::Start(place.ok_or(io::ErrorKind::InvalidData)?))?;
        Ok(BufReader::new(file))
    }

    fn length(&self) -> Result<u64, AuditError> {
        match self.file.metadata() {
            Ok(metadata) => Ok(self.archived_bytes + metadata.len()),
            Err(source) => Err(AuditError::Read {
                path: self.path.clone(),
                source,
            }),
        }
    }

    /// Takes away what stands after the known tail.
    fn cut_to_tail(&self) -> io::Result<()> {
        let length = self.tail.end.checked_sub(self.archived_bytes);
        self.file.set_len(length.ok_or(io::ErrorKind::InvalidData)?)
    }

    fn cannot_write(&self, source: io::Error) -> AuditError {
        AuditError::Write {
            path: self.path.clone(),
            source,
        }
    }
}

fn open_file(path: &Path, create: bool) -> Result<File, AuditError> {
    let mut options = File::options();
    let options = options.read(true).append(true).create(create);
    options.open(path).map_err(|source| AuditError::Open {
        path: path.to_owned(),
        source,
    })
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[cfg(test)]
mod tests;
