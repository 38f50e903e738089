//! What the tests of several files need.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{AuditLog, Event, VerifierKey};

/// A folder for a log, with room for its key beside it.
pub(crate) struct Folder {
    state: tempfile::TempDir,
    audit: PathBuf,
}

pub(crate) fn folder() -> Folder {
    let state = tempfile::tempdir().expect("a folder");
    let audit = state.path().join("audit");
    Folder { state, audit }
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.audit
    }

    /// The folder around it.
    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    pub(crate) fn open(&self) -> AuditLog {
        AuditLog::open(&self.audit).expect("opens")
    }

    pub(crate) fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.audit.join(name)).expect("there is such a file")
    }

    /// Takes away what says how far the log was signed, as it is where a crash, or an operator, goes
    /// back to before that.
    pub(crate) fn forget_signed(&self) {
        let _ = fs::remove_file(crate::anchor::path(&self.audit));
    }

    /// Changes the text of a file.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(String) -> String) {
        let text = String::from_utf8(self.file(name)).expect("text");
        fs::write(self.audit.join(name), change(text)).expect("writes");
    }
}

pub(crate) fn event(number: u64) -> Event {
    Event::ServeStopped {
        predictions: number,
    }
}

/// An event after which nothing is signed.
pub(crate) fn small_event(number: u64) -> Event {
    Event::PluginRefused {
        name: number.to_string(),
        digest: None,
        reason: "no \"reason\"\n".to_owned(),
    }
}

pub(crate) fn key(log: &AuditLog) -> VerifierKey {
    log.key().expect("a key")
}
