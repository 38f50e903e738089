//! A copy of a log for an auditor: the entries, the tree of all of them, and every checkpoint.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::archived::{Archived, KeptLines, PLUGIN_LOADED, Unreadable, goes_along};
use crate::batch::{Batch, Checked};
use crate::checkpoint::{CHECKPOINTS_FILE, CheckpointReader, Next, SignedCheckpoint};
use crate::entry::open_line;
use crate::head::LOG_FILE;
use crate::texts::{self, TEXTS_FOLDER};
use crate::tiles::{Tile, Tiles, read_leaves};
use crate::tree::TreeHash;
use crate::verify::{Fault, Trust, VerifyError, VerifyReport, verify_with};
use crate::{AuditError, AuditLog, Digest, Entry, Event, entry_schema, small};

/// The newest checkpoint of an export, alone.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";
/// Entries about keys that are not among the exported ones.
pub(crate) const KEYS_FILE: &str = "keys.jsonl";
/// Entries from before the exported ones that say what those rest upon.
pub(crate) const EARLIER_FILE: &str = "earlier.jsonl";
/// What the folder holds; a folder with this file is an export.
pub(crate) const MANIFEST_FILE: &str = "export.json";
const SCHEMA_FILE: &str = "entry.schema.json";
const README_FILE: &str = "README";

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The first entry whose line is in `log.jsonl`.
    pub(crate) first: u64,
    /// The last.
    pub(crate) last: u64,
    /// The name of the log.
    pub(crate) origin: String,
    /// How many entries the tree has.
    pub(crate) size: u64,
}

impl Manifest {
    /// The one way in which it is spelt.
    fn to_text(&self) -> String {
        let Self {
            first,
            last,
            origin,
            size,
        } = self;
        format!("{{\"first\":{first},\"last\":{last},\"origin\":\"{origin}\",\"size\":{size}}}\n")
    }

    /// Reads that of a folder. `Ok(None)` when it is not an export.
    ///
    /// # Errors
    /// When it cannot be read, or, as `InvalidData`, when it does not describe an export.
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match small::read(&dir.join(MANIFEST_FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(found) if found.to_text().as_bytes() == bytes && found.is_possible() => {
                Ok(Some(found))
            }
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    fn is_possible(&self) -> bool {
        1 <= self.first && self.first <= self.last && self.last <= self.size
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.first == 1 && self.last == self.size
    }
}

/// Which entries to export. The tree is always that of all of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Period {
    /// Those appended at this time or later.
    pub since: Option<Timestamp>,
    /// Those appended before this time.
    pub until: Option<Timestamp>,
}

/// Which entries go into an export.
pub(crate) enum Part {
    Period(Period),
    /// From this number to this one.
    Numbers(u64, u64),
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// The first and the last entry whose content is in it.
    pub present: (u64, u64),
    /// How many files of tiles there are.
    pub tiles: u64,
    /// How many texts that these entries name are with it.
    pub texts: u64,
    /// How many entries from before these are with it, because these rest upon them.
    pub earlier: u64,
    /// What checking the export came to, by the log's own key.
    pub verified: VerifyReport,
}

/// Why a log was not exported. Nothing is left behind then.
#[derive(Debug, Error)]
pub enum ExportError {
    /// There is something in the way.
    #[error("{} is there already; an export is never written over, so name another folder", path.display())]
    Exists {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// No entry is of the time that was asked for.
    #[error("the log has no entry of that time; `sandcast audit show` prints the times")]
    Empty,
    /// A file cannot be read or written.
    #[error("cannot export to {}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The log cannot be signed.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The log is not whole, so an export of it would not be either.
    #[error("the log is not whole, so it was not exported")]
    NotWhole(#[source] VerifyError),
}

/// Writes a log of a state folder into a new folder that can be checked without the state, after
/// signing a checkpoint of it. The folder gets its name last, when it has been checked as an
/// auditor would.
///
/// # Errors
/// When there is a folder of that name, the log is damaged, or something cannot be written.
pub fn export(log: &AuditLog, folder: &Path, period: Period) -> Result<ExportReport, ExportError> {
    export_part(log, folder, &Part::Period(period))
}

pub(crate) fn export_part(
    log: &AuditLog,
    folder: &Path,
    part: &Part,
) -> Result<ExportReport, ExportError> {
    let dir = log.dir().ok_or(AuditError::NoKey)?;
    // The name alone, without a slash at its end.
    let folder: PathBuf = folder.components().collect();
    if folder.symlink_metadata().is_ok() {
        return Err(ExportError::Exists { path: folder });
    }
    let mut name = folder.clone().into_os_string();
    name.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(name);
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| ExportError::File { path, source }
    };
    let checkpoint = log.checkpoint()?;
    // One that somebody else has made is theirs, and stays.
    fs::create_dir(&partial).map_err(failed(&partial))?;
    let partial = Partial(partial);
    let exporter = Exporter {
        from: dir,
        to: partial.0.clone(),
        checkpoint,
    };
    let manifest = exporter.manifest(part)?;
    let written = exporter.write(&manifest)?;
    let trust = Trust {
        keys: log.key().into_iter().collect(),
        checkpoints: Vec::new(),
    };
    let verified = verify_with(&partial.0, &trust).map_err(ExportError::NotWhole)?;
    fs::rename(&partial.0, &folder).map_err(failed(&folder))?;
    Ok(ExportReport {
        present: (manifest.first, manifest.last),
        tiles: written.tiles,
        texts: written.texts,
        earlier: written.earlier,
        verified,
    })
}

/// A folder that goes away unless it was renamed.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already when all went well.
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %self.0.display(), "cannot remove an export that failed");
        }
    }
}

/// An entry as the log goes by.
struct Passing<'a> {
    sequence: u64,
    /// Its line and its time, unless it was archived.
    line: Option<(&'a [u8], &'a str)>,
    /// Its line where that stayed, although it was archived.
    kept: Option<&'a [u8]>,
    /// What kind of event it is; nothing where there is no line.
    name: &'a str,
    leaf: TreeHash,
}

fn changed(file: Unreadable) -> ExportError {
    ExportError::NotWhole(file.into())
}

/// How much there is of each kind.
struct Written {
    tiles: u64,
    texts: u64,
    earlier: u64,
}

struct Exporter {
    from: PathBuf,
    to: PathBuf,
    checkpoint: SignedCheckpoint,
}

impl Exporter {
    /// The entries of a period: from the first that is not too early to the last not too late, of
    /// those that are here.
    fn manifest(&self, part: &Part) -> Result<Manifest, ExportError> {
        let size = self.checkpoint.checkpoint().size;
        let (first, last) = match part {
            Part::Numbers(first, last) => (*first, *last),
            Part::Period(period) => {
                let (mut first, mut last) = (0, 0);
                self.each(|passing| {
                    let Some((_, time)) = passing.line else {
                        return Ok(());
                    };
                    let time: Option<Timestamp> = time.parse().ok();
                    let is_in = time.is_none_or(|time| {
                        period.since.is_none_or(|since| since <= time)
                            && period.until.is_none_or(|until| time < until)
                    });
                    if is_in {
                        last = passing.sequence;
                        if first == 0 {
                            first = passing.sequence;
                        }
                    }
                    Ok(())
                })?;
                (first, last)
            }
        };
        let manifest = Manifest {
            first,
            last,
            origin: self.checkpoint.checkpoint().origin.clone(),
            size,
        };
        if manifest.is_possible() {
            Ok(manifest)
        } else {
            Err(ExportError::Empty)
        }
    }

    /// Calls for every entry that the checkpoint covers, in order.
    fn each(
        &self,
        mut work: impl FnMut(&Passing<'_>) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let path = self.from.join(LOG_FILE);
        let failed = |source| ExportError::File {
            path: path.clone(),
            source,
        };
        let mut file = File::open(&path).map_err(failed)?;
        let archived = Archived::before(&self.from, &mut file).map_err(changed)?;
        if let Some(archived) = &archived {
            self.each_archived(archived.last, &mut work)?;
        }
        let before = archived.map_or(0, |archived| archived.last);
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let mut batch = Batch::default();
        let mut sequence = before;
        let size = self.checkpoint.checkpoint().size;
        while sequence < size {
            batch.fill(&mut reader, size - sequence).map_err(failed)?;
            for checked in batch.check() {
                sequence += 1;
                let fault = |fault| {
                    ExportError::NotWhole(VerifyError::Line {
                        path: path.clone(),
                        line: sequence - before,
                        fault,
                    })
                };
                let entry = checked.entry.map_err(fault)?;
                work(&Passing {
                    sequence,
                    line: Some((checked.line, &entry.time)),
                    kept: None,
                    name: &entry.event.name,
                    leaf: checked.leaf,
                })?;
            }
            if batch.is_empty() {
                return Err(ExportError::NotWhole(VerifyError::Cut {
                    path,
                    expected: size,
                    found: sequence,
                }));
            }
        }
        Ok(())
    }

    /// The same for entries that were archived.
    fn each_archived(
        &self,
        last: u64,
        work: &mut impl FnMut(&Passing<'_>) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let mut kept = KeptLines::open(Archived::kept_path(&self.from, last)).map_err(changed)?;
        let mut result = Ok(());
        let mut pass = |sequence, leaf| {
            let mut line = kept.take(sequence).map_err(changed)?;
            let name = line.as_deref().and_then(|line| {
                let entry = open_line(line).ok()?;
                Some(entry.event.name.into_owned())
            });
            if let Some(line) = &mut line {
                line.push(b'\n');
            }
            work(&Passing {
                sequence,
                line: None,
                kept: line.as_deref(),
                name: name.as_deref().unwrap_or_default(),
                leaf,
            })
        };
        read_leaves(&self.from, last, 1..=last, |sequence, leaf| {
            if result.is_ok() {
                result = pass(sequence, leaf);
            }
        })
        .map_err(ExportError::NotWhole)?;
        result
    }

    fn write(&self, manifest: &Manifest) -> Result<Written, ExportError> {
        let create = |name: &str| {
            let path = self.to.join(name);
            match File::create_new(&path) {
                Ok(file) => Ok(BufWriter::with_capacity(1 << 18, file)),
                Err(source) => Err(ExportError::File { path, source }),
            }
        };
        let failed = |source| ExportError::File {
            path: self.to.clone(),
            source,
        };
        let mut log = create(LOG_FILE)?;
        let along = self.along(manifest)?;
        let (mut keys, mut earlier) = (None, None);
        let mut tiles = Tiles::new(manifest.is_whole());
        let mut count = 0;
        let mut named: BTreeSet<Digest> = BTreeSet::new();
        self.each(|passing| {
            let line = passing.line.map(|(line, _)| line);
            let is_in = (manifest.first..=manifest.last).contains(&passing.sequence);
            match (is_in, line.or(passing.kept)) {
                (true, _) => {
                    // What was asked for by number was archived meanwhile.
                    let line = line.ok_or(ExportError::Empty)?;
                    log.write_all(line).map_err(failed)?;
                    named.extend(texts::named_in(passing.name, line));
                }
                (false, Some(line)) if passing.name.starts_with("key-") => {
                    beside(&mut keys, || create(KEYS_FILE), line, failed)?;
                }
                (false, Some(line)) if along.contains(&passing.sequence) => {
                    beside(&mut earlier, || create(EARLIER_FILE), line, failed)?;
                    named.extend(texts::named_in(passing.name, line));
                }
                (false, _) => {}
            }
            let entry = line.and_then(|line| line.strip_suffix(b"\n"));
            for tile in tiles.push(passing.leaf, entry) {
                count += 1;
                self.write_tile(&tile)?;
            }
            Ok(())
        })?;
        for tile in tiles.finish() {
            count += 1;
            self.write_tile(&tile)?;
        }
        let mut checkpoints = create(CHECKPOINTS_FILE)?;
        self.write_checkpoints(&mut checkpoints)?;
        let schema = serde_json::to_string_pretty(&entry_schema())
            .map_err(|source| ExportError::Audit(AuditError::Encode { source }))?;
        let texts = [
            (CHECKPOINT_FILE, self.checkpoint.text().to_owned()),
            (SCHEMA_FILE, format!("{schema}\n")),
            (README_FILE, readme(manifest)),
            (MANIFEST_FILE, manifest.to_text()),
        ];
        for (name, text) in texts {
            create(name)?.write_all(text.as_bytes()).map_err(failed)?;
        }
        for mut file in [Some(log), keys, earlier, Some(checkpoints)]
            .into_iter()
            .flatten()
        {
            file.flush()
                .and_then(|()| file.get_ref().sync_all())
                .map_err(failed)?;
        }
        Ok(Written {
            tiles: count,
            texts: self.write_texts(&named)?,
            earlier: along.len() as u64,
        })
    }

    /// The entries from before the exported ones that go along.
    fn along(&self, manifest: &Manifest) -> Result<BTreeSet<u64>, ExportError> {
        let mut along = BTreeSet::new();
        if manifest.first == 1 {
            return Ok(along);
        }
        // By the digest of all that a load says of a plugin, whenever and for whatever run.
        let mut loads: HashMap<Digest, u64> = HashMap::new();
        self.each(|passing| {
            let line = passing.line.map(|(line, _)| line).or(passing.kept);
            let Some(line) = line.filter(|_| passing.sequence < manifest.first) else {
                return Ok(());
            };
            if !goes_along(passing.name) {
                return Ok(());
            }
            if passing.name == PLUGIN_LOADED
                && let Ok(Entry { mut event, .. }) = serde_json::from_slice(line)
            {
                if let Event::PluginLoaded { run, .. } = &mut event {
                    *run = None;
                }
                let said = serde_json::to_vec(&event).unwrap_or_default();
                if let Some(before) = loads.insert(Digest::of(&said), passing.sequence) {
                    along.remove(&before);
                }
            }
            along.insert(passing.sequence);
            Ok(())
        })?;
        Ok(along)
    }

    /// Copies those of the named texts that are kept here: an earlier version kept none.
    fn write_texts(&self, named: &BTreeSet<Digest>) -> Result<u64, ExportError> {
        let folder = self.to.join(TEXTS_FOLDER);
        let mut count = 0;
        for digest in named {
            let Some(text) = texts::held(&self.from, digest).map_err(ExportError::NotWhole)? else {
                continue;
            };
            let path = texts::path_of(&self.to, digest);
            fs::create_dir_all(&folder)
                .and_then(|()| fs::write(&path, &text))
                .map_err(|source| ExportError::File { path, source })?;
            count += 1;
        }
        Ok(count)
    }

    fn write_tile(&self, tile: &Tile) -> Result<(), ExportError> {
        let path = self.to.join(&tile.path);
        let folder = path.parent().unwrap_or(&self.to);
        // Mostly it is there.
        let written = fs::write(&path, &tile.bytes)
            .or_else(|_| fs::create_dir_all(folder).and_then(|()| fs::write(&path, &tile.bytes)));
        written.map_err(|source| ExportError::File { path, source })
    }

    /// The history up to the checkpoint of this export; another process may have gone on.
    fn write_checkpoints(&self, to: &mut impl io::Write) -> Result<(), ExportError> {
        let path = self.from.join(CHECKPOINTS_FILE);
        let failed = |source| ExportError::File {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut reader = CheckpointReader::new(BufReader::new(file.take(length)));
        while let Next::Checkpoint(signed) = reader.next().map_err(failed)? {
            to.write_all(signed.text().as_bytes())
                .and_then(|()| to.write_all(b"\n"))
                .map_err(failed)?;
            if signed.checkpoint().size >= self.checkpoint.checkpoint().size {
                return Ok(());
            }
        }
        Err(ExportError::NotWhole(VerifyError::Checkpoint {
            path,
            line: reader.line,
            fault: crate::verify::CheckpointFault::Malformed,
        }))
    }
}

/// Adds a line to a file that is made with its first.
fn beside<W: io::Write>(
    file: &mut Option<W>,
    create: impl FnOnce() -> Result<W, ExportError>,
    line: &[u8],
    failed: impl FnOnce(io::Error) -> ExportError,
) -> Result<(), ExportError> {
    let file = match file {
        Some(file) => file,
        None => file.insert(create()?),
    };
    file.write_all(line).map_err(failed)
}

fn readme(manifest: &Manifest) -> String {
    let Manifest {
        first,
        last,
        origin,
        size,
    } = manifest;
    format!(
        "\
The audit log {origin}, entries {first} to {last} of {size}.

To check it, with the public key KEY that the operator gave you in another way than with this folder:

    sandcast audit verify THIS-FOLDER --key KEY

Keep `checkpoint`. Give it to the next check with `--checkpoint FILE`: a log that was rewritten in
between, or another history of it, is then found.

log.jsonl          the entries, one line of JSON each; entry.schema.json describes a line
checkpoint         the newest signed checkpoint: a C2SP tlog-checkpoint in a C2SP signed note
checkpoints        all of them, oldest first, an empty line after each
tile/<level>/...   the Merkle tree (RFC 6962, SHA-256) in the layout of C2SP tlog-tiles
tile/entries/...   the entries again, in bundles of 256; only where all entries are here, and without
                   the bundle of an entry of more than 65,535 bytes
keys.jsonl         entries about keys that are not in log.jsonl
earlier.jsonl      of the entries before them: how plugins were loaded last, standings, who has access,
                   approvals and models, as far as the log still has them
export.json        which entries are here
texts/...          pipelines, ceilings, rules of trust, policies and models that entries name by a
                   digest (BLAKE3), each file by it: `sandcast audit text` shows them
recordings/...     what can be replayed, where it was asked for, each file by its digest (BLAKE3)

This file and entry.schema.json are for people: no signature covers them. All others are checked.
What a plugin could do, did, and who allowed it, and a decision shown again:

    sandcast audit plugin --from THIS-FOLDER --key KEY
    sandcast audit who --from THIS-FOLDER --key KEY
    sandcast replay --from THIS-FOLDER --key KEY

Where the first entry is not 1, calls, effects, denials and decisions from before it are not here.
A leaf of the tree is a line of log.jsonl without its newline. The specifications:
https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-tiles and RFC 6962.
"
    )
}

/// Calls for every leaf of a log or an export up to some size, in order: its number from 1, its
/// hash and, where it is there, its line.
pub(crate) fn each_leaf(
    dir: &Path,
    size: u64,
    mut work: impl FnMut(u64, TreeHash, Option<&Checked<'_>>),
) -> Result<(), VerifyError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| VerifyError::Read { path, source }
    };
    let manifest = Manifest::load(dir).map_err(failed(&dir.join(MANIFEST_FILE)))?;
    let path = dir.join(LOG_FILE);
    let mut file = File::open(&path).map_err(failed(&path))?;
    let archived = Archived::before(dir, &mut file)?.filter(|_| manifest.is_none());
    let archived = archived.map_or(0, |archived| archived.last);
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let (first, last) = manifest.as_ref().map_or((archived + 1, size), |manifest| {
        (manifest.first, manifest.last)
    });
    let hashes = |range: std::ops::RangeInclusive<u64>, work: &mut dyn FnMut(u64, TreeHash)| {
        let total = manifest.as_ref().map_or(archived, |manifest| manifest.size);
        read_leaves(dir, total, range, work)
    };
    if first > 1 {
        hashes(1..=(first - 1).min(size), &mut |number, leaf| {
            work(number, leaf, None)
        })?;
    }
    let mut batch = Batch::default();
    let mut number = first - 1;
    while number < last.min(size) {
        batch
            .fill(&mut reader, last.min(size) - number)
            .map_err(failed(&path))?;
        if batch.is_empty() {
            let (expected, found) = (size, number);
            return Err(VerifyError::Cut {
                path,
                expected,
                found,
            });
        }
        for checked in batch.check() {
            number += 1;
            let fault = match &checked.entry {
                Ok(entry) if entry.sequence == number => None,
                Ok(_) => Some(Fault::Unchained),
                Err(fault) => Some(fault.clone()),
            };
            if let Some(fault) = fault {
                let line = number + 1 - first;
                return Err(VerifyError::Line { path, line, fault });
            }
            work(number, checked.leaf, Some(&checked));
        }
    }
    if last < size {
        hashes(last + 1..=size, &mut |number, leaf| {
            work(number, leaf, None)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
