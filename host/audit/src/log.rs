use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use crate::archived::Archived;
use crate::checkpoint::{self, CHECKPOINTS_FILE, Checkpoint, SignedCheckpoint};
use crate::entry::{open_line, seal};
use crate::event::rotation_text;
use crate::head::{HEAD_FILE, Head, HeadFile, Heads, LOG_FILE, Torn};
use crate::key_file;
use crate::note::LogKey;
use crate::tree::{Frontier, TreeHash};
use crate::verify::is_at;
use crate::{Digest, Entry, Event, Position, VerifierKey, anchor, read, read_after};

mod anchored;
mod retire;

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

/// The public half of the private key that signs the log in this folder, where it is there and
/// may be read: the key that an operator checks the log of their own state with.
#[must_use]
pub fn local_key(dir: &Path) -> Option<VerifierKey> {
    let key = key_file::load(&key_file::path(dir)).ok()??;
    Some(key.verifier())
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

/// A place of the head that is not to be gone by.
#[derive(Debug)]
struct Unfit {
    is_second: bool,
    /// What stands there.
    bytes: Vec<u8>,
    /// The entry that it names and the log does not have; else the place is not whole.
    ahead: Option<u64>,
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
            folder.settle_head(unfit)?;
            settle_key(folder)?;
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

    /// The tail at the last entry that a head names, and what of the heads is not to be gone by.
    ///
    /// Nothing orders the entries after a boundary and the page of the head: a loss of power may
    /// leave the head and not the entry. The other place is written only once the log is on the disk.
    /// What a head says is no secret, so to refuse such a log would keep nobody from cutting it: what
    /// was signed does.
    fn go_to(&self, heads: Heads) -> Result<(Tail, Option<Unfit>), AuditError> {
        let torn = heads.torn.map(|Torn { is_second, bytes }| Unfit {
            is_second,
            bytes,
            ahead: None,
        });
        let sequence = heads.last.sequence;
        let last = heads.last.clone();
        match (self.find(heads.last), heads.other) {
            (Ok(tail), _) => Ok((tail, torn)),
            (Err(AuditError::Cut { .. }), Some(other)) if other.sequence < sequence => {
                let bytes = last.to_place().map_err(|_| self.no_head())?;
                let unfit = Unfit {
                    is_second: false,
                    bytes,
                    ahead: Some(sequence),
                };
                Ok((self.find(other)?, Some(unfit)))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Holds the log to what was signed here last, beside the folder and in it. The entry that the
    /// former went to.
    fn hold_to_signed(&self, unfit: Option<&Unfit>) -> Result<Option<u64>, AuditError> {
        let held = self.hold_to_anchor();
        let held = held.and_then(|anchor| self.hold_to_checkpoint().map(|()| anchor));
        // Then it was no loss of power, and this says more.
        held.map_err(|error| match unfit.and_then(|unfit| unfit.ahead) {
            Some(sequence) => AuditError::Cut {
                path: self.path.clone(),
                sequence,
            },
            None => error,
        })
    }

    /// Holds the log to the last checkpoint, whatever stands after that.
    fn hold_to_checkpoint(&self) -> Result<(), AuditError> {
        let end = checkpoint::end(&self.dir).map_err(|source| self.no_checkpoint(source))?;
        match end.last {
            Some(last) if last.checkpoint().size > self.tail.sequence() => Err(AuditError::Cut {
                path: self.path.clone(),
                sequence: last.checkpoint().size,
            }),
            Some(last) if last.checkpoint().size == self.tail.sequence() => self.must_be_own(&last),
            _ => Ok(()),
        }
    }

    /// Whether a checkpoint of the size of the log is one of it.
    fn must_be_own(&self, last: &SignedCheckpoint) -> Result<(), AuditError> {
        let key = self.tail.key.as_ref().ok_or(AuditError::NoKey)?;
        if last.checkpoint().root == self.tail.tree.root() && last.check(key).is_ok() {
            return Ok(());
        }
        let foreign = io::Error::other("the last one there is not of this log");
        Err(self.no_checkpoint(foreign))
    }

    /// Holds the log to what was signed here last: the entry that it went to.
    fn hold_to_anchor(&self) -> Result<Option<u64>, AuditError> {
        let anchor_path = anchor::path(&self.dir);
        let anchor = anchor::load(&self.dir).map_err(|source| AuditError::Read {
            path: anchor_path.clone(),
            source,
        })?;
        let Some(anchor) = anchor else {
            return Ok(None);
        };
        let sequence = anchor.sequence;
        let other = || AuditError::Rewritten {
            path: self.path.clone(),
            sequence,
            signed: anchor_path.clone(),
        };
        if sequence > self.tail.sequence() {
            return Err(other());
        }
        // The oldest entries may have been archived since, where an older file was put back.
        let found = match anchor.start < self.archived_bytes {
            true => self.after_archived(&anchor),
            false => self.find(anchor).ok(),
        };
        let mut tail = found.ok_or_else(other)?;
        self.follow(&mut tail).map_err(|_| other())?;
        let is_same = (tail.digest, tail.tree.root(), &tail.key)
            == (self.tail.digest, self.tail.tree.root(), &self.tail.key);
        if !is_same || tail.sequence() != self.tail.sequence() {
            return Err(other());
        }
        Ok(Some(sequence))
    }

    /// Remembers, beside the folder, that all there is was signed.
    fn drop_anchor(&self) {
        if let Err(error) = anchor::store(&self.dir, &self.tail.head(), false) {
            tracing::warn!(%error, "where the audit log was signed last is not kept");
        }
    }

    fn no_head(&self) -> AuditError {
        AuditError::Head {
            path: self.dir.join(HEAD_FILE),
        }
    }

    /// Reads where the log ends, and opens the file that says so, unless an older version wrote it.
    fn heads(&mut self) -> Result<Option<Heads>, AuditError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData => self.no_head(),
            _ => AuditError::Read {
                path: self.dir.join(HEAD_FILE),
                source: error,
            },
        };
        let heads = Heads::load(&self.dir).map_err(failed)?;
        self.head = match &heads {
            Some(heads) if !heads.is_old => {
                let base = heads.other.as_ref().map_or(0, |other| other.sequence);
                HeadFile::open(&self.dir, base).map_err(|source| AuditError::Open {
                    path: self.dir.join(HEAD_FILE),
                    source,
                })?
            }
            _ => None,
        };
        Ok(heads)
    }

    /// Where the first place of the head is ahead of the log: has it name the end of the log, on the
    /// disk, before there is another entry with the number of the one that is lost. That one would be
    /// taken for a forged one.
    fn fetch_head_back(&self, unfit: Option<&Unfit>) -> Result<(), AuditError> {
        let Some(ahead) = unfit.and_then(|unfit| unfit.ahead) else {
            return Ok(());
        };
        tracing::warn!(
            ahead,
            end = self.tail.sequence(),
            "the head of the audit log names an entry that is lost; nothing that was signed is"
        );
        let head = self.tail.head();
        let write = |file: &HeadFile| file.write_through(&head);
        let fetched = self.file.sync_data();
        fetched
            .and_then(|()| self.head.as_ref().map_or(Ok(()), write))
            .map_err(|source| self.cannot_write(source))
    }

    /// Gives the head of an older version the form that it has now, and mends what a loss of power
    /// left of it: a place that is not whole, or one that is ahead of the log.
    fn settle_head(&mut self, unfit: Option<Unfit>) -> Result<(), AuditError> {
        if self.head.is_none() && self.tail.sequence() > 0 {
            let stored = self.store_head(&self.tail.head());
            stored.map_err(|source| self.cannot_write(source))?;
        }
        let Some(unfit) = unfit else {
            return Ok(());
        };
        tracing::warn!("mending the head of the audit log, which a loss of power left unfit");
        // While the other place is written over, this one must be whole.
        if unfit.is_second {
            self.renew_head()?;
        }
        self.write(vec![Event::HeadRepaired {
            dropped_bytes: unfit.bytes.len() as u64,
            dropped: Digest::of(&unfit.bytes),
        }])?;
        Ok(())
    }

    fn append(&mut self, events: Vec<Event>) -> Result<Vec<Entry>, AuditError> {
        self.locked(|folder| {
            folder.catch_up()?;
            folder.write(events)
        })
    }

    /// Finds the private key, or makes the first one, and finishes what a crash left half done.
    fn take_key(&mut self) -> Result<(), AuditError> {
        let path = key_file::path(&self.dir);
        let next_path = key_file::next_path(&self.dir);
        let load = |path: &Path| {
            key_file::load(path).map_err(|source| AuditError::Key {
                path: path.to_owned(),
                source,
            })
        };
        let current = load(&path)?;
        let Some(in_force) = self.tail.key.clone() else {
            // There may be one: a crash came before the entry.
            let key = match current {
                Some(key) => key,
                None => {
                    let key = self.make_key(&new_origin()?)?;
                    self.store_key(&path, &key)?;
                    key
                }
            };
            let verifier = key.verifier();
            tracing::info!(key = %verifier, file = %path.display(), "a new key signs the audit log");
            self.signer = Some(key);
            self.put(vec![Event::KeyCreated { key: verifier }])?;
            return Ok(());
        };
        if let Some(key) = current.filter(|key| key.verifier() == in_force) {
            self.signer = Some(key);
            return Ok(());
        }
        // A crash came between the entry that names the new key and the last step.
        match load(&next_path)? {
            Some(key) if key.verifier() == in_force => {
                self.signer = Some(key);
                self.settle_next_key()
            }
            _ => Err(AuditError::KeyLost {
                path,
                key: in_force,
            }),
        }
    }

    fn rotate_key(&mut self) -> Result<VerifierKey, AuditError> {
        self.catch_up()?;
        let old = self.signer.take().ok_or(AuditError::NoKey)?;
        let result = self.rotate_from(&old);
        // The old one stays where it did not come to an entry.
        if self.tail.key.as_ref() == Some(&old.verifier()) {
            self.signer = Some(old);
        }
        result
    }

    fn rotate_from(&mut self, old: &LogKey) -> Result<VerifierKey, AuditError> {
        let new = self.make_key(old.verifier().name())?;
        self.store_key(&key_file::next_path(&self.dir), &new)?;
        let key = new.verifier();
        let text = rotation_text(&key, self.tail.sequence() + 1, &self.tail.digest);
        self.put(vec![Event::KeyRotated {
            key: key.clone(),
            note: old.sign(&text),
        }])?;
        self.signer = Some(new);
        self.settle_next_key()?;
        self.sign_or_owe();
        Ok(key)
    }

    fn replace_key(&mut self, reason: &str, mut events: Vec<Event>) -> Result<(), AuditError> {
        let Some(lost) = self.tail.key.clone() else {
            self.take_key()?;
            return self.put(events).map(drop);
        };
        let new = self.make_key(lost.name())?;
        self.store_key(&key_file::next_path(&self.dir), &new)?;
        events.push(Event::KeyReplaced {
            key: new.verifier(),
            reason: reason.to_owned(),
        });
        self.put(events)?;
        self.signer = Some(new);
        self.settle_next_key()
    }

    fn make_key(&self, name: &str) -> Result<LogKey, AuditError> {
        LogKey::generate(name).map_err(|error| AuditError::Key {
            path: key_file::path(&self.dir),
            source: io::Error::other(error),
        })
    }

    fn store_key(&self, path: &Path, key: &LogKey) -> Result<(), AuditError> {
        key_file::store(path, key).map_err(|source| AuditError::Key {
            path: path.to_owned(),
            source,
        })
    }

    /// The last step of a change of keys: the log names the new one already.
    fn settle_next_key(&self) -> Result<(), AuditError> {
        let path = key_file::path(&self.dir);
        fs::rename(key_file::next_path(&self.dir), &path)
            .map_err(|source| AuditError::Key { path, source })
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

    /// The tail at the entry that a head names, or, for a head from before there was a tree, at
    /// the start, from where catching up makes the tree.
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
            Ok(entry) if entry.digest == head.digest && entry.sequence == head.sequence => {}
            _ => {
                return Err(AuditError::Damaged {
                    path: self.path.clone(),
                    offset: head.start,
                });
            }
        }
        let Some(roots) = head.tree else {
            return Ok(Tail::empty());
        };
        Ok(Tail {
            digest: head.digest,
            start: head.start,
            end: head.start + line.len() as u64,
            tree: Frontier::from_parts(head.sequence, roots).ok_or_else(|| self.no_head())?,
            key: head.key,
        })
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
                sequence: self.tail.sequence(),
            });
        }
        let mut tail = self.tail.clone();
        let torn = self.follow(&mut tail)?;
        let is_other_key = tail.key != self.tail.key;
        let before = std::mem::replace(&mut self.tail, tail);
        // Another process has changed keys; before the first opening has its key there is none.
        if is_other_key
            && self.signer.is_some()
            && let Err(error) = self.take_key()
        {
            // The next call reads those lines, and asks for the key, again.
            self.tail = before;
            return Err(error);
        }
        if torn.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            bytes = torn.len(),
            "dropping an incomplete last line of the audit log"
        );
        self.cut_to_tail()
            .map_err(|source| self.cannot_write(source))?;
        self.write(vec![Event::LogRepaired {
            dropped_bytes: torn.len() as u64,
            dropped: Digest::of(&torn),
        }])?;
        Ok(())
    }

    /// Takes a tail over the complete lines that follow it. Returns what stands after the last.
    fn follow(&self, tail: &mut Tail) -> Result<Vec<u8>, AuditError> {
        let failed = |source| AuditError::Read {
            path: self.path.clone(),
            source,
        };
        let mut reader = self.reader_at(tail.end).map_err(failed)?;
        let mut line = Vec::new();
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line).map_err(failed)?;
            let Some(body) = line.strip_suffix(b"\n") else {
                return Ok(line);
            };
            let damaged = || AuditError::Damaged {
                path: self.path.clone(),
                offset: tail.end,
            };
            let entry = open_line(body).map_err(|_| damaged())?;
            if entry.sequence != tail.sequence() + 1 || entry.previous != tail.digest {
                return Err(damaged());
            }
            let event = entry.key_event(body);
            let digest = entry.digest;
            tail.step(digest, &line, event.as_ref().and_then(Event::key));
        }
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

    /// Takes back entries that could not be written in whole. Where a disk does not even let them be
    /// taken back, those that are whole stay, and are recorded after all: whoever reads on takes them
    /// for what they are, and may have signed them before this process could try again.
    fn take_back(&mut self) {
        // First the head, which must not name an entry that is not there.
        let head = self.head.as_ref().filter(|_| self.tail.sequence() > 0);
        let result = head
            .map_or(Ok(()), |head| head.restore(&self.tail.head()))
            // Should this fail too, the next append drops an incomplete line.
            .and_then(|()| self.cut_to_tail());
        if let Err(error) = result {
            tracing::warn!(%error, "cannot take back an audit entry, which may be recorded after all");
        }
    }

    /// Says in the head where the log ends. It need not reach the disk: an older one is caught up
    /// with, and one that a loss of power left incomplete has another beside it.
    fn store_head(&mut self, head: &Head) -> io::Result<()> {
        if self.head.is_none() {
            self.heads().map_err(io::Error::other)?;
        }
        if let Some(file) = &self.head {
            return file.write(head);
        }
        self.file.sync_data()?;
        self.head = Some(HeadFile::create(&self.dir, head)?);
        Ok(())
    }

    /// Writes where the log ends into the second place of the head.
    fn renew_head(&mut self) -> Result<(), AuditError> {
        let head = self.tail.head();
        let file = self.head.as_mut();
        let renewed = self
            .file
            .sync_data()
            .and_then(|()| file.map_or(Ok(()), |file| file.renew(&head)));
        renewed.map_err(|source| self.cannot_write(source))
    }

    /// Signs what there is. The entries stand without it, so a failure is told and made up for at
    /// the next append; `verify` says how many entries no checkpoint covers.
    fn sign_or_owe(&mut self) {
        if self.signer.is_none() {
            return;
        }
        self.owes_checkpoint = match self.sign(false) {
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(%error, "the audit log is not signed up to its end");
                true
            }
        };
    }

    /// Signs a checkpoint of what there is, or finds the one of it. It need not reach the disk
    /// itself to hold: after a loss of power the next opening signs anew.
    fn sign(&mut self, sync: bool) -> Result<SignedCheckpoint, AuditError> {
        let failed = |source| self.no_checkpoint(source);
        let mut end = checkpoint::end(&self.dir).map_err(failed)?;
        if !end.torn.is_empty() {
            tracing::warn!(
                bytes = end.torn.len(),
                "dropping an incomplete last checkpoint of the audit log"
            );
            // First: a crash in between says it again, which is better than not at all.
            self.put(vec![Event::CheckpointsRepaired {
                dropped_bytes: end.torn.len() as u64,
                dropped: Digest::of(&end.torn),
            }])?;
        }
        if let Some(last) = end
            .last
            .take_if(|last| last.checkpoint().size == self.tail.sequence())
        {
            self.must_be_own(&last)?;
            return Ok(last);
        }
        // Never a key that the log does not name.
        let signer = self.signer.as_ref();
        let signer = signer.filter(|signer| Some(&signer.verifier()) == self.tail.key.as_ref());
        let signer = signer.ok_or(AuditError::NoKey)?;
        let checkpoint = Checkpoint {
            origin: signer.verifier().name().to_owned(),
            size: self.tail.sequence(),
            root: self.tail.tree.root(),
        };
        let failed = |source| self.no_checkpoint(source);
        let signed = SignedCheckpoint::sign(checkpoint, signer)
            .map_err(|fault| failed(io::Error::other(fault)))?;
        // What is signed must not be lost where the signature is not.
        self.file.sync_data().map_err(failed)?;
        checkpoint::append(&self.dir, &signed, end.end, sync).map_err(failed)?;
        self.drop_anchor();
        Ok(signed)
    }

    fn last_checkpoint(&self) -> Result<Option<SignedCheckpoint>, AuditError> {
        let end = checkpoint::end(&self.dir).map_err(|source| self.no_checkpoint(source))?;
        // What a crash left is dropped by signing.
        Ok(end.last.filter(|_| end.torn.is_empty()))
    }

    fn no_checkpoint(&self, source: io::Error) -> AuditError {
        AuditError::Checkpoint {
            path: self.dir.join(CHECKPOINTS_FILE),
            source,
        }
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

/// The name of a new log.
fn new_origin() -> Result<String, AuditError> {
    let number = getrandom::u32().map_err(|error| AuditError::Key {
        path: PathBuf::from(LOG_FILE),
        source: io::Error::other(error),
    })?;
    Ok(format!("sandcast/{number:08x}"))
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[cfg(test)]
mod tests;
