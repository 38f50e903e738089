//! Where a log ends: said by its head, found again after a crash, and held to what was signed.

use std::io::{self, BufRead as _};

use super::{Folder, Tail};
use crate::entry::open_line;
use crate::head::{HEAD_FILE, Head, HeadFile, Heads, Torn};
use crate::tree::Frontier;
use crate::{AuditError, Digest, Event, anchor};

/// A place of the head that is not to be gone by.
#[derive(Debug)]
pub(super) struct Unfit {
    is_second: bool,
    /// What stands there.
    bytes: Vec<u8>,
    /// The entry that it names and the log does not have; else the place is not whole.
    ahead: Option<u64>,
}

impl Folder {
    /// The tail at the last entry that a head names, and what of the heads is not to be gone by.
    ///
    /// Nothing orders the entries after a boundary and the page of the head: a loss of power may
    /// leave the head and not the entry. The other place is written only once the log is on the disk.
    /// What a head says is no secret, so to refuse such a log would keep nobody from cutting it: what
    /// was signed does.
    pub(super) fn go_to(&self, heads: Heads) -> Result<(Tail, Option<Unfit>), AuditError> {
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
    pub(super) fn hold_to_signed(&self, unfit: Option<&Unfit>) -> Result<Option<u64>, AuditError> {
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

    /// Where the first place of the head is ahead of the log: has it name the end of the log, on the
    /// disk, before there is another entry with the number of the one that is lost. That one would be
    /// taken for a forged one.
    pub(super) fn fetch_head_back(&self, unfit: Option<&Unfit>) -> Result<(), AuditError> {
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

    /// Holds the log to what was signed here last: the entry that it went to.
    pub(super) fn hold_to_anchor(&self) -> Result<Option<u64>, AuditError> {
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
    pub(super) fn drop_anchor(&self) {
        if let Err(error) = anchor::store(&self.dir, &self.tail.head(), false) {
            tracing::warn!(%error, "where the audit log was signed last is not kept");
        }
    }

    pub(super) fn no_head(&self) -> AuditError {
        AuditError::Head {
            path: self.dir.join(HEAD_FILE),
        }
    }

    /// Reads where the log ends, and opens the file that says so, unless an older version wrote it.
    pub(super) fn heads(&mut self) -> Result<Option<Heads>, AuditError> {
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

    /// Gives the head of an older version the form that it has now.
    pub(super) fn settle_head(&mut self) -> Result<(), AuditError> {
        if self.head.is_none() && self.tail.sequence() > 0 {
            let stored = self.store_head(&self.tail.head());
            stored.map_err(|source| self.cannot_write(source))?;
        }
        Ok(())
    }

    /// Mends what a loss of power left of the head: a place that is not whole, or one that is ahead of
    /// the log.
    pub(super) fn mend_head(&mut self, unfit: Option<Unfit>) -> Result<(), AuditError> {
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

    /// The tail at the entry that a head names, or, for a head from before there was a tree, at
    /// the start, from where catching up makes the tree.
    pub(super) fn find(&self, head: Head) -> Result<Tail, AuditError> {
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
    pub(super) fn catch_up(&mut self) -> Result<(), AuditError> {
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
    pub(super) fn follow(&self, tail: &mut Tail) -> Result<Vec<u8>, AuditError> {
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

    /// Takes back entries that could not be written in whole. Where a disk does not even let them be
    /// taken back, those that are whole stay, and are recorded after all: whoever reads on takes them
    /// for what they are, and may have signed them before this process could try again.
    pub(super) fn take_back(&mut self) {
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
    pub(super) fn store_head(&mut self, head: &Head) -> io::Result<()> {
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
    pub(super) fn renew_head(&mut self) -> Result<(), AuditError> {
        let head = self.tail.head();
        let file = self.head.as_mut();
        let renewed = self
            .file
            .sync_data()
            .and_then(|()| file.map_or(Ok(()), |file| file.renew(&head)));
        renewed.map_err(|source| self.cannot_write(source))
    }
}
