//! The moment at which archived entries leave the log.

use std::fs::{self, File};
use std::io::{self, Seek as _, SeekFrom};
use std::path::Path;

use super::{AuditLog, Folder, open_file};
use crate::archived::Archived;
use crate::{AuditError, Event, anchor};

const NEW_LOG_FILE: &str = "log.jsonl.new";

impl AuditLog {
    /// Takes the entries out of the log whose hashes and needed lines stand beside it already, after
    /// an entry that says so. `from` is where the log began when they were written there.
    ///
    /// # Errors
    /// When somebody else archived meanwhile, or something cannot be written; the log then still has
    /// all entries, and maybe the one that says otherwise, which is of no account.
    pub(crate) fn retire(
        &self,
        archived: &Archived,
        from: u64,
        event: Event,
    ) -> Result<(), AuditError> {
        self.in_folder(|folder| folder.locked(|folder| folder.retire(archived, from, event)))
    }
}

impl Folder {
    fn retire(&mut self, archived: &Archived, from: u64, event: Event) -> Result<(), AuditError> {
        self.catch_up()?;
        if self.archived_bytes != from {
            return Err(self.cannot_write(io::Error::other(
                "another process archived entries meanwhile",
            )));
        }
        self.write(vec![event])?;
        if self.owes_checkpoint {
            let unsigned = "the entry that says that entries are archived could not be signed";
            return Err(self.cannot_write(io::Error::other(unsigned)));
        }
        // Neither of these may name an entry that leaves.
        anchor::store(&self.dir, &self.tail.head(), true).map_err(|source| AuditError::Write {
            path: anchor::path(&self.dir),
            source,
        })?;
        self.renew_head()?;
        let replaced = self.replace(archived.bytes - from);
        replaced.map_err(|source| self.cannot_write(source))?;
        // The lock goes with the old file; who waited for it finds that there is another.
        let file = open_file(&self.path, false)?;
        self.take_file(file)
    }

    /// Puts what follows a place of the file where all of it is.
    fn replace(&self, place: u64) -> io::Result<()> {
        let new_path = self.dir.join(NEW_LOG_FILE);
        let copied = copy_after(&self.path, place, &new_path)
            .and_then(|()| fs::rename(&new_path, &self.path));
        if copied.is_err() {
            // It was not there yet, or has its name by now.
            let _ = fs::remove_file(&new_path);
        }
        copied?;
        File::open(&self.dir)?.sync_all()
    }
}

fn copy_after(log: &Path, place: u64, new_path: &Path) -> io::Result<()> {
    let mut log = File::open(log)?;
    log.seek(SeekFrom::Start(place))?;
    let mut new = File::create(new_path)?;
    io::copy(&mut log, &mut new)?;
    new.sync_all()
}
