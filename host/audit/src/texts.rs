//! Texts that entries name by their digest: a pipeline, what it may grant at most, who may sign, the
//! policies of access, all that is kept with a model. They lie beside the log, each under its digest,
//! so that an auditor can read what was in force.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::verify::VerifyError;
use crate::{AuditError, AuditLog, Digest, Entry, Event, small};

/// The folder of texts, in that of a log or an export.
pub(crate) const TEXTS_FOLDER: &str = "texts";

/// Where a text lies in the folder of a log or an export, or would.
pub(crate) fn path_of(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(TEXTS_FOLDER).join(digest.to_string())
}

/// The text of a digest that entries of the log in a folder name. `None` where it is not there.
///
/// # Errors
/// When it cannot be read; as `InvalidData` when it is not what was kept.
pub fn text_of(dir: &Path, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
    match small::read(&path_of(dir, digest)) {
        Ok(text) if Digest::of(&text) == *digest => Ok(Some(text)),
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same for who checks a log.
pub(crate) fn held(dir: &Path, digest: &Digest) -> Result<Option<Vec<u8>>, VerifyError> {
    text_of(dir, digest).map_err(|source| {
        let path = path_of(dir, digest);
        match source.kind() {
            io::ErrorKind::InvalidData => VerifyError::TextChanged { path },
            _ => VerifyError::Read { path, source },
        }
    })
}

impl AuditLog {
    /// Keeps a text beside the log, and gives back the digest that an entry names it by. It is there
    /// before the entry is: what is written to the disk first is not named before. A log in memory
    /// keeps none.
    ///
    /// # Errors
    /// When it cannot be written. Then what names it must not be appended.
    pub fn keep(&self, text: &[u8]) -> Result<Digest, AuditError> {
        let digest = Digest::of(text);
        let Some(dir) = self.dir() else {
            return Ok(digest);
        };
        let path = path_of(&dir, &digest);
        let is_there = small::read(&path).is_ok_and(|there| there == text);
        if !is_there {
            write(&path, text).map_err(|source| AuditError::Write {
                path: path.clone(),
                source,
            })?;
        }
        Ok(digest)
    }
}

/// Writes a file that appears whole or not at all, readable by its owner alone.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

impl Event {
    /// The texts that were kept for it, by what they are.
    #[must_use]
    pub fn texts(&self) -> Vec<(&'static str, Digest)> {
        let named: &[(&'static str, Option<Digest>)] = &match self {
            Self::RunStarted { config, .. } => [("pipeline", Some(*config)), ("", None)],
            Self::PluginLoaded { ceiling, trust, .. } => [("ceiling", *ceiling), ("trust", *trust)],
            Self::AccessDecided { policy_set, .. } => [("policies", *policy_set), ("", None)],
            Self::Registered {
                lineage, document, ..
            } => [("lineage", Some(*lineage)), ("model", *document)],
            Self::VersionRenewed { document, .. } => [("model", Some(*document)), ("", None)],
            _ => [("", None), ("", None)],
        };
        let there = named
            .iter()
            .filter_map(|(what, digest)| Some((*what, (*digest)?)));
        there.collect()
    }
}

/// Whether entries of this kind name texts.
fn is_of_texts(name: &str) -> bool {
    matches!(
        name,
        "run-started" | "plugin-loaded" | "access-decided" | "registered" | "version-renewed"
    )
}

/// The digests of texts that the entry in a line names; none where it is no entry.
pub(crate) fn named_in(name: &str, line: &[u8]) -> Vec<Digest> {
    let entry = is_of_texts(name).then(|| serde_json::from_slice::<Entry>(line).ok());
    let texts = entry.flatten().map(|entry| entry.event.texts());
    texts
        .into_iter()
        .flatten()
        .map(|(_, digest)| digest)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunId;

    #[test]
    fn a_text_is_kept_once_under_its_digest_and_what_was_changed_is_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("audit");
        let log = AuditLog::open(&dir).expect("a log");
        let digest = log
            .keep(b"permit (principal, action, resource);")
            .expect("kept");
        assert_eq!(
            log.keep(b"permit (principal, action, resource);")
                .expect("again"),
            digest
        );
        let text = text_of(&dir, &digest).expect("it can be read");
        assert_eq!(
            text.expect("it is there"),
            b"permit (principal, action, resource);"
        );
        assert_eq!(text_of(&dir, &Digest::of(b"other")).expect("none"), None);
        fs::write(
            path_of(&dir, &digest),
            "forbid (principal, action, resource);",
        )
        .expect("written");
        let error = text_of(&dir, &digest).expect_err("it was changed");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        // Whoever names it again has it put right.
        log.keep(b"permit (principal, action, resource);")
            .expect("kept");
        assert!(text_of(&dir, &digest).expect("it can be read").is_some());
        fs::remove_dir_all(dir.join(TEXTS_FOLDER)).expect("removed");
        fs::write(dir.join(TEXTS_FOLDER), "").expect("in the way");
        log.keep(b"permit (principal, action, resource);")
            .expect_err("it cannot be kept, so nothing may name it");
    }

    #[test]
    fn texts_are_found_in_lines_by_what_they_are() {
        let log = AuditLog::in_memory();
        let config = log.keep(b"{}").expect("nothing is kept");
        let event = Event::RunStarted {
            run: RunId::generate(),
            pipeline: "credit".to_owned(),
            config,
        };
        assert_eq!(event.texts(), [("pipeline", config)]);
        let entry = log.append(event).expect("appended");
        let line = serde_json::to_vec(&entry).expect("JSON");
        assert_eq!(named_in("run-started", &line), [config]);
        assert_eq!(named_in("run-finished", &line), []);
        assert_eq!(named_in("run-started", b"{"), []);
    }
}
