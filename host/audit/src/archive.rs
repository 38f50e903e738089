//! Taking the oldest entries out of a log, into a folder that an auditor can check.
//!
//! The log stays as provable as it was: the hashes of what left stay as tiles of the tree, so every
//! checkpoint that was ever signed, and every proof that was ever made, still holds.

use std::fs::{self, File};
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use crate::archived::{Archived, is_kept};
use crate::batch::Batch;
use crate::export::{ExportError, ExportReport, MANIFEST_FILE, Manifest, Part, export_part};
use crate::head::LOG_FILE;
use crate::tiles::{self, TILE_WIDTH};
use crate::tree::Frontier;
use crate::verify::VerifyError;
use crate::{AuditError, AuditLog, Digest, Event, Fault, small};

/// Entries that may be archived, or were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Archivable {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// The bytes of their lines.
    pub bytes: u64,
}

/// What was archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchiveReport {
    /// The entries.
    pub archived: Archivable,
    /// The archive, which is an export of them.
    pub export: ExportReport,
}

/// Why entries were not archived. They are all in the log then.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// There is nothing old enough. Entries leave in tiles of 256, and only signed ones do.
    #[error(
        "there are no 256 entries from before {before} that have not left yet, so nothing is archived"
    )]
    Nothing {
        /// The time that was asked for.
        before: Timestamp,
    },
    /// The archive could not be made.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The log could not be read or written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The log is damaged.
    #[error("the log is not whole, so nothing is archived")]
    NotWhole(#[source] VerifyError),
    /// A file of the log's folder cannot be written.
    #[error("cannot write {}; the log still has all entries", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The entries that [`archive`] would take out.
///
/// # Errors
/// When there are none, or the log is damaged.
pub fn archivable(log: &AuditLog, before: Timestamp) -> Result<Archivable, ArchiveError> {
    Ok(walk(&folder_of(log)?, signed(log)?, before, |_, _| Ok(()))?.archivable())
}

/// Takes the entries from before a time out of the log of a state folder, into a new folder.
///
/// First comes the archive, which is an export and is checked as one; then the entry that says what
/// leaves; then it leaves, in one step. A crash in between leaves a log with all entries.
///
/// # Errors
/// When there are none, the folder is there already, the log is damaged or something cannot be
/// written. The log then still has all entries.
pub fn archive(
    log: &AuditLog,
    folder: &Path,
    before: Timestamp,
) -> Result<ArchiveReport, ArchiveError> {
    let dir = folder_of(log)?;
    let signed = signed(log)?;
    let found = walk(&dir, signed, before, |_, _| Ok(()))?;
    let archivable = found.archivable();
    let part = Part::Numbers(archivable.first, archivable.last);
    let export = export_part(log, folder, &part)?;
    // Again, and now they are written down; what is older than a moment does not change.
    let found = walk(&dir, signed, before, |number, bytes| {
        let path = dir.join(tiles::path("0", number, TILE_WIDTH));
        write(&path, bytes)
    })?;
    let archived = &found.archived;
    write(&Archived::kept_path(&dir, archived.last), &found.kept)?;
    let path = Archived::path(&dir, archived.last);
    let text = archived.to_text();
    let text = text.map_err(|source| ArchiveError::File {
        path: path.clone(),
        source,
    })?;
    write(&path, text.as_bytes())?;
    let event = Event::EntriesArchived {
        before: before.to_string(),
        first: archivable.first,
        last: archived.last,
        digest: archived.digest,
        root: archived.frontier().unwrap_or_default().root(),
        bytes: archived.bytes,
        kept: archived.kept,
    };
    log.retire(archived, found.from.bytes, event)?;
    forget_older(&dir, found.from.last);
    Ok(ArchiveReport {
        archived: archivable,
        export,
    })
}

/// How many entries of the log in a folder were archived: the log begins after them.
///
/// # Errors
/// When there is no log, or what is kept of them was changed.
pub fn archived_entries(dir: &Path) -> Result<u64, AuditError> {
    Ok(Archived::of(dir)?.map_or(0, |archived| archived.last))
}

/// The number of the entry from which on all of a log or an export are there.
///
/// # Errors
/// As [`archived_entries`], and when the export does not say.
pub fn first_entry(dir: &Path) -> Result<u64, AuditError> {
    let path = dir.join(MANIFEST_FILE);
    match Manifest::load(dir) {
        Ok(Some(manifest)) => Ok(manifest.first),
        Ok(None) => Ok(archived_entries(dir)? + 1),
        Err(source) => Err(AuditError::Read { path, source }),
    }
}

fn folder_of(log: &AuditLog) -> Result<PathBuf, ArchiveError> {
    Ok(log.dir().ok_or(AuditError::NoKey)?)
}

/// How many entries are signed.
fn signed(log: &AuditLog) -> Result<u64, ArchiveError> {
    Ok(log.checkpoint()?.checkpoint().size)
}

/// What the oldest entries come to.
struct Found {
    /// Where the log begins now.
    from: Archived,
    /// Where it will.
    archived: Archived,
    /// The lines that stay, those from before included.
    kept: Vec<u8>,
}

impl Found {
    fn archivable(&self) -> Archivable {
        Archivable {
            first: self.from.last + 1,
            last: self.archived.last,
            bytes: self.archived.bytes - self.from.bytes,
        }
    }
}

/// Goes over the entries that are old enough; calls for each tile that they fill.
fn walk(
    dir: &Path,
    signed: u64,
    before: Timestamp,
    mut on_tile: impl FnMut(u64, &[u8]) -> Result<(), ArchiveError>,
) -> Result<Found, ArchiveError> {
    let path = dir.join(LOG_FILE);
    let failed = |source| ArchiveError::File {
        path: path.clone(),
        source,
    };
    let mut file = File::open(&path).map_err(failed)?;
    let from = Archived::before(dir, &mut file).map_err(AuditError::from)?;
    let mut kept = match &from {
        Some(from) => {
            let path = Archived::kept_path(dir, from.last);
            let bytes = small::read(&path).unwrap_or_default();
            if Digest::of(&bytes) != from.kept {
                return Err(AuditError::Archived { path }.into());
            }
            bytes
        }
        None => Vec::new(),
    };
    let from = from.unwrap_or_else(|| Archived {
        bytes: 0,
        digest: Digest::ZERO,
        kept: Digest::of(b""),
        last: 0,
        tree: Vec::new(),
    });
    let mut tree = from.frontier().unwrap_or_default();
    let (mut bytes, mut tile) = (from.bytes, Vec::new());
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut batch = Batch::default();
    let mut full: Option<(Archived, usize)> = None;
    'entries: while tree.size() < signed {
        let wanted = signed - tree.size();
        batch.fill(&mut reader, wanted).map_err(failed)?;
        if batch.is_empty() {
            break;
        }
        for checked in batch.check() {
            let line = tree.size() - from.last + 1;
            let fault = |fault| {
                let path = path.clone();
                ArchiveError::NotWhole(VerifyError::Line { path, line, fault })
            };
            let entry = checked.entry.map_err(fault)?;
            if entry.sequence != tree.size() + 1 {
                return Err(fault(Fault::Unchained));
            }
            let is_old = |time: &str| time.parse::<Timestamp>().is_ok_and(|time| time < before);
            if !is_old(&entry.time) {
                break 'entries;
            }
            tree.push(checked.leaf);
            bytes += checked.line.len() as u64;
            tile.extend(checked.leaf.as_bytes());
            if is_kept(&entry.event.name) {
                kept.extend(checked.line);
            }
            if tree.size() % TILE_WIDTH == 0 {
                on_tile(tree.size() / TILE_WIDTH - 1, &tile)?;
                tile.clear();
                full = Some((at(&tree, bytes, entry.digest), kept.len()));
            }
        }
    }
    let (mut archived, kept_bytes) = full.ok_or(ArchiveError::Nothing { before })?;
    kept.truncate(kept_bytes);
    archived.kept = Digest::of(&kept);
    Ok(Found {
        from,
        archived,
        kept,
    })
}

fn at(tree: &Frontier, bytes: u64, digest: Digest) -> Archived {
    Archived {
        bytes,
        digest,
        kept: Digest::ZERO,
        last: tree.size(),
        tree: tree.roots().to_vec(),
    }
}

/// Writes a file and its folder to the disk.
fn write(path: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = fs::create_dir_all(folder)
        .and_then(|()| File::create(path))
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|source| ArchiveError::File {
        path: path.to_owned(),
        source,
    })
}

/// Lets go of what described an earlier start. That of the last one stays: somebody may have just
/// opened the log that began there.
fn forget_older(dir: &Path, last: u64) {
    let Ok(files) = fs::read_dir(dir) else {
        return;
    };
    for file in files.flatten() {
        let name = file.file_name();
        let number = name.to_str().and_then(|name| {
            let number = name.strip_prefix("archived-")?.strip_suffix(".json")?;
            number.parse::<u64>().ok().filter(|number| *number < last)
        });
        if let Some(number) = number {
            // What stays is of no account.
            let _ = fs::remove_file(Archived::path(dir, number));
            let _ = fs::remove_file(Archived::kept_path(dir, number));
        }
    }
}

#[cfg(test)]
mod tests;
