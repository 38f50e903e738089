//! Checkpoints of all that was appended so far.

use std::io;

use super::Folder;
use crate::checkpoint::{self, CHECKPOINTS_FILE, Checkpoint, SignedCheckpoint};
use crate::{AuditError, Digest, Event};

impl Folder {
    /// Signs what there is. The entries stand without it, so a failure is told and made up for at
    /// the next append; `verify` says how many entries no checkpoint covers.
    pub(super) fn sign_or_owe(&mut self) {
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
    pub(super) fn sign(&mut self, sync: bool) -> Result<SignedCheckpoint, AuditError> {
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

    pub(super) fn last_checkpoint(&self) -> Result<Option<SignedCheckpoint>, AuditError> {
        let end = checkpoint::end(&self.dir).map_err(|source| self.no_checkpoint(source))?;
        // What a crash left is dropped by signing.
        Ok(end.last.filter(|_| end.torn.is_empty()))
    }

    /// Holds the log to the last checkpoint, whatever stands after that.
    pub(super) fn hold_to_checkpoint(&self) -> Result<(), AuditError> {
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

    fn no_checkpoint(&self, source: io::Error) -> AuditError {
        AuditError::Checkpoint {
            path: self.dir.join(CHECKPOINTS_FILE),
            source,
        }
    }
}
