//! The keys that sign a log: the first one, the next one, and one in place of a lost one.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::Folder;
use crate::event::rotation_text;
use crate::head::LOG_FILE;
use crate::key_file;
use crate::note::LogKey;
use crate::{AuditError, Event, VerifierKey};

/// The public half of the private key that signs the log in this folder, where it is there and
/// may be read: the key that an operator checks the log of their own state with.
#[must_use]
pub fn local_key(dir: &Path) -> Option<VerifierKey> {
    let key = key_file::load(&key_file::path(dir)).ok()??;
    Some(key.verifier())
}

impl Folder {
    /// Finds the private key, or makes the first one, and finishes what a crash left half done.
    pub(super) fn take_key(&mut self) -> Result<(), AuditError> {
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

    pub(super) fn rotate_key(&mut self) -> Result<VerifierKey, AuditError> {
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

    pub(super) fn replace_key(
        &mut self,
        reason: &str,
        mut events: Vec<Event>,
    ) -> Result<(), AuditError> {
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
}

/// The name of a new log.
fn new_origin() -> Result<String, AuditError> {
    let number = getrandom::u32().map_err(|error| AuditError::Key {
        path: PathBuf::from(LOG_FILE),
        source: io::Error::other(error),
    })?;
    Ok(format!("sandcast/{number:08x}"))
}
