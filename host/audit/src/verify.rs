use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Take};
use std::path::{Path, PathBuf};

use crate::archived::{Archived, KeptLines};
use crate::batch::{Batch, Checked};
use crate::checkpoint::{CHECKPOINTS_FILE, CheckpointReader, Next, SignedCheckpoint};
use crate::entry::open_line;
use crate::event::rotation_text;
use crate::export::{CHECKPOINT_FILE, EARLIER_FILE, KEYS_FILE, Manifest};
use crate::head::{HEAD_FILE, Head, Heads, LOG_FILE};
use crate::note::{Note, VerifierKey};
use crate::texts;
use crate::tiles::{Tile, Tiles, read_leaves};
use crate::tree::{Frontier, TreeHash};
use crate::{Digest, Entry, Event, small};

mod faults;

pub use faults::{CheckpointFault, Fault, VerifyError, VerifyReport};

/// What the one who checks a log knows about it from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Keys of the log that were handed over in another way than with the log. Keys that one of
    /// them gave way to, by a signature in the log, are trusted too. Without any, the log is held
    /// to the keys that it names itself, which says nothing about who wrote it.
    pub keys: Vec<VerifierKey>,
    /// Checkpoints kept from earlier: the log must still contain what they are of.
    pub checkpoints: Vec<SignedCheckpoint>,
}

/// Checks every entry of the log in a folder, that the log ends where its head says, and every
/// signature by the keys that the log names. The folder may be that of a log in use, whose
/// writers are not held up, or an export.
///
/// # Errors
/// At the first fault, with its line and cause; or when a file cannot be read.
pub fn verify(dir: &Path) -> Result<VerifyReport, VerifyError> {
    verify_with(dir, &Trust::default())
}

/// As [`verify`], and holds the log to what is known about it from elsewhere.
///
/// # Errors
/// As [`verify`]; and when the log is not the one that is known.
pub fn verify_with(dir: &Path, trust: &Trust) -> Result<VerifyReport, VerifyError> {
    let mut checkpoints = trust.checkpoints.clone();
    checkpoints.sort_by_key(|kept| kept.checkpoint().size);
    let trust = Trust {
        keys: trust.keys.clone(),
        checkpoints,
    };
    let mut verifier = Verifier::new(dir, &trust)?;
    match Manifest::load(dir) {
        Ok(Some(manifest)) => verifier.export(&manifest)?,
        Ok(None) => verifier.live()?,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(VerifyError::ExportChanged {
                path: dir.join(crate::export::MANIFEST_FILE),
            });
        }
        Err(source) => {
            return Err(VerifyError::Read {
                path: dir.join(crate::export::MANIFEST_FILE),
                source,
            });
        }
    }
    verifier.finish()
}

/// A log as it goes by, once, from its first entry to its last.
struct Verifier<'a> {
    dir: &'a Path,
    path: PathBuf,
    trust: &'a Trust,
    /// Of `trust.checkpoints`, by size, those that are still to come.
    kept: usize,
    log: BufReader<Take<File>>,
    /// What says where the log ends; the last one first.
    heads: Vec<Head>,
    checkpoints: Option<CheckpointReader<BufReader<Take<File>>>>,
    /// The next checkpoint to come.
    next: Option<SignedCheckpoint>,
    tree: Frontier,
    /// The byte at which the next line starts.
    offset: u64,
    /// The number of the next line.
    line: u64,
    /// How many of the heads describe an entry that went by.
    sealed: usize,
    /// The entries that the log begins after.
    archived: Option<Archived>,
    /// The last entry that says that they were archived.
    archiving_told: Option<u64>,
    /// How many entries are covered by checkpoints of keys that were given or follow from those.
    trusted: u64,
    /// The last replacement of a key that nobody vouched for.
    replaced: Option<(u64, VerifierKey, String)>,
    /// The texts that entries name.
    texts: BTreeSet<Digest>,
    report: VerifyReport,
}

impl<'a> Verifier<'a> {
    /// Takes hold of the files as they are now: what is appended later is not looked at.
    fn new(dir: &'a Path, trust: &'a Trust) -> Result<Self, VerifyError> {
        let path = dir.join(LOG_FILE);
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| VerifyError::Read { path, source }
        };
        let open = || File::open(&path).map_err(failed(&path));
        let mut log = open()?;
        // Between two writes, so that no line is met half written. Where a file system has no
        // locks nobody else writes either, or the fault that is found names the last line.
        let mut is_locked = log.lock_shared().is_ok();
        // Its oldest entries may have been archived in between.
        while !is_at(&log, &path).map_err(failed(&path))? {
            log = open()?;
            is_locked = log.lock_shared().is_ok();
        }
        let archived = Archived::before(dir, &mut log)?;
        let head_path = dir.join(HEAD_FILE);
        let heads = match Heads::load(dir) {
            Ok(Some(Heads { torn: Some(_), .. })) => {
                return Err(VerifyError::HeadIncomplete { path: head_path });
            }
            Ok(heads) => heads.map_or_else(Vec::new, |heads| {
                [heads.last].into_iter().chain(heads.other).collect()
            }),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(VerifyError::HeadChanged {
                    path: head_path,
                    sequence: 0,
                });
            }
            Err(source) => {
                return Err(VerifyError::Read {
                    path: head_path,
                    source,
                });
            }
        };
        let length = log.metadata().map_err(failed(&path))?.len();
        let checkpoints_path = dir.join(CHECKPOINTS_FILE);
        let checkpoints = match File::open(&checkpoints_path) {
            Ok(file) => {
                let length = file.metadata().map_err(failed(&checkpoints_path))?.len();
                let reader = BufReader::new(file.take(length));
                Some(CheckpointReader::new(reader))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                return Err(VerifyError::Read {
                    path: checkpoints_path,
                    source,
                });
            }
        };
        if is_locked {
            log.unlock().map_err(failed(&path))?;
        }
        let mut verifier = Self {
            dir,
            path,
            trust,
            kept: 0,
            log: BufReader::with_capacity(1 << 18, log.take(length)),
            heads,
            checkpoints,
            next: None,
            tree: Frontier::new(),
            offset: 0,
            line: 1,
            sealed: 0,
            archived,
            archiving_told: None,
            trusted: 0,
            replaced: None,
            texts: BTreeSet::new(),
            report: VerifyReport::default(),
        };
        verifier.next_checkpoint()?;
        Ok(verifier)
    }

    /// The log of a state folder: every entry is there, or its hash where it was archived, and a
    /// head says where they end.
    fn live(&mut self) -> Result<(), VerifyError> {
        if let Some(archived) = self.archived.clone() {
            self.before(&archived)?;
        }
        let first = self.tree.size() + 1;
        self.lines(u64::MAX, &mut None)?;
        self.report.present = (self.tree.size().min(first), self.tree.size());
        if self.archiving_told.is_none()
            && let Some(Archived { last, .. }) = self.archived
        {
            let path = self.path.clone();
            return Err(VerifyError::NotArchived { path, last });
        }
        let found = self.tree.size();
        let head_path = self.dir.join(HEAD_FILE);
        let Some(last) = self.heads.first() else {
            // A crash between the very first entry and its head leaves one entry.
            if found > 1 {
                return Err(VerifyError::HeadMissing { path: head_path });
            }
            self.report.unsealed = found;
            return Ok(());
        };
        if last.sequence > found {
            let (path, expected) = (self.path.clone(), last.sequence);
            // What was signed says whether somebody cut the tail, as far as anything does.
            let is_signed = self.next.is_some() || self.kept < self.trust.checkpoints.len();
            return Err(match self.sealed > 0 && !is_signed {
                true => VerifyError::HeadAhead {
                    path,
                    expected,
                    found,
                },
                false => VerifyError::Cut {
                    path,
                    expected,
                    found,
                },
            });
        }
        // A head that names entry 0 names nothing.
        if self.sealed < self.heads.len() {
            return Err(VerifyError::HeadChanged {
                path: head_path,
                sequence: last.sequence,
            });
        }
        self.report.unsealed = found - last.sequence;
        Ok(())
    }

    /// The entries that were archived, of which there are the hashes and a few lines.
    fn before(&mut self, archived: &Archived) -> Result<(), VerifyError> {
        let kept = Archived::kept_path(self.dir, archived.last);
        let changed = |path: &Path| VerifyError::ArchivedChanged {
            path: path.to_owned(),
        };
        match small::read(&kept) {
            Ok(bytes) if Digest::of(&bytes) == archived.kept => {}
            _ => return Err(changed(&kept)),
        }
        let mut lines = [KeptLines::open(kept)?];
        self.hashes(archived.last, archived.last, &mut None, &mut lines)?;
        let [lines] = lines;
        if !lines.is_used_up() {
            return Err(changed(&lines.path));
        }
        if self.tree.roots() != archived.tree {
            return Err(changed(&Archived::path(self.dir, archived.last)));
        }
        // What follows is held to the chain and to places in the log as if the lines were here.
        self.report.head = archived.digest;
        self.offset = archived.bytes;
        Ok(())
    }

    /// A folder that was exported: some or all entries, the tree of all in tiles, and the
    /// checkpoint that the tree belongs to.
    fn export(&mut self, manifest: &Manifest) -> Result<(), VerifyError> {
        self.heads.clear();
        let mut tiles = Some(Tiles::new(manifest.is_whole()));
        self.archived = None;
        let keys = KeptLines::of_keys(self.dir.join(KEYS_FILE))?;
        let mut kept = [keys, KeptLines::open(self.dir.join(EARLIER_FILE))?];
        self.hashes(manifest.first - 1, manifest.size, &mut tiles, &mut kept)?;
        let [_, earlier] = &kept;
        if !earlier.is_used_up() {
            let path = earlier.path.clone();
            return Err(VerifyError::ExportChanged { path });
        }
        if manifest.last >= manifest.first {
            self.lines(manifest.last, &mut tiles)?;
            // What is missing at the end of the lines is a cut, not an omission.
            if self.tree.size() < manifest.last {
                return Err(VerifyError::Cut {
                    path: self.path.clone(),
                    expected: manifest.last,
                    found: self.tree.size(),
                });
            }
        }
        let mut rest = Vec::new();
        self.log
            .read_until(b'\n', &mut rest)
            .map_err(|source| self.cannot_read(source))?;
        if !rest.is_empty() {
            // One entry more than the export says there are, or no entry.
            let body = rest.strip_suffix(b"\n").unwrap_or(&rest);
            return Err(match open_line(body) {
                Ok(_) => VerifyError::ExportChanged {
                    path: self.dir.join(crate::export::MANIFEST_FILE),
                },
                Err(_) => self.line_fault(Fault::Malformed),
            });
        }
        self.hashes(manifest.size, manifest.size, &mut tiles, &mut kept)?;
        let [keys, _] = kept;
        if !keys.is_used_up() {
            return Err(VerifyError::ExportChanged { path: keys.path });
        }
        for tile in tiles.into_iter().flat_map(Tiles::finish) {
            self.compare(&tile)?;
        }
        self.report.present = (manifest.first, manifest.last);
        self.published(manifest)
    }

    /// The file `checkpoint` of an export is the last of the history, of exactly this size.
    fn published(&self, manifest: &Manifest) -> Result<(), VerifyError> {
        let path = self.dir.join(CHECKPOINT_FILE);
        let changed = |fault| VerifyError::Checkpoint {
            path: path.clone(),
            line: 1,
            fault,
        };
        let text = small::read(&path)
            .ok()
            .and_then(|text| String::from_utf8(text).ok());
        let text = text.ok_or_else(|| changed(CheckpointFault::Malformed))?;
        let published =
            SignedCheckpoint::parse(&text).map_err(|_| changed(CheckpointFault::Malformed))?;
        let size = published.checkpoint().size;
        self.fits(&published).map_err(changed)?;
        let end = crate::checkpoint::end(self.dir).map_err(|source| VerifyError::Read {
            path: self.dir.join(CHECKPOINTS_FILE),
            source,
        })?;
        if end.last.is_none_or(|last| last.text() != published.text()) {
            return Err(self.checkpoint_fault(CheckpointFault::Missing));
        }
        if size == manifest.size && manifest.origin == published.checkpoint().origin {
            return Ok(());
        }
        Err(VerifyError::ExportChanged {
            path: self.dir.join(crate::export::MANIFEST_FILE),
        })
    }

    /// Takes the lines of the log as entries, up to the one with this number.
    fn lines(&mut self, last: u64, tiles: &mut Option<Tiles>) -> Result<(), VerifyError> {
        let mut batch = Batch::default();
        while self.tree.size() < last {
            let wanted = last - self.tree.size();
            batch
                .fill(&mut self.log, wanted)
                .map_err(|source| self.cannot_read(source))?;
            if batch.is_empty() {
                return Ok(());
            }
            for checked in batch.check() {
                self.entry(&checked)?;
                if let Some(tiles) = tiles {
                    for tile in tiles.push(checked.leaf, checked.line.strip_suffix(b"\n")) {
                        self.compare(&tile)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes leaves from the tiles of a tree, up to and with this number of them, where the entries
    /// themselves are not here. Those about keys are all the same.
    fn hashes(
        &mut self,
        up_to: u64,
        size: u64,
        tiles: &mut Option<Tiles>,
        kept: &mut [KeptLines],
    ) -> Result<(), VerifyError> {
        let first = self.tree.size() + 1;
        if first > up_to {
            return Ok(());
        }
        let mut result = Ok(());
        read_leaves(self.dir, size, first..=up_to, |_, leaf| {
            if result.is_ok() {
                result = self.hash(leaf, tiles, kept);
            }
        })?;
        result
    }

    /// One leaf of which only the hash is here, unless its line was kept.
    fn hash(
        &mut self,
        leaf: TreeHash,
        tiles: &mut Option<Tiles>,
        kept: &mut [KeptLines],
    ) -> Result<(), VerifyError> {
        let sequence = self.tree.size() + 1;
        self.tree.push(leaf);
        for kept in kept {
            let Some(line) = kept.take(sequence)? else {
                continue;
            };
            let is_entry = TreeHash::leaf(&line) == leaf;
            let entry = open_line(&line).ok().filter(|_| is_entry);
            let event = entry.as_ref().and_then(|entry| entry.key_event(&line));
            let is_other = entry.is_some() && !kept.is_of_keys;
            if let Some(entry) = &entry {
                let named = texts::named_in(&entry.event.name, &line);
                self.texts.extend(named);
            }
            match (event, entry) {
                (Some(event), Some(entry)) => {
                    self.key_event(event, &entry.previous)
                        .map_err(|fault| VerifyError::Line {
                            path: kept.path.clone(),
                            line: kept.line,
                            fault,
                        })?;
                }
                _ if is_other => {}
                _ => {
                    let path = kept.path.clone();
                    return Err(match self.archived {
                        Some(_) => VerifyError::ArchivedChanged { path },
                        None => VerifyError::ExportChanged { path },
                    });
                }
            }
        }
        // The chain cannot be followed over entries that are not here; the tree can.
        self.report.head = Digest::ZERO;
        self.settle()?;
        if let Some(tiles) = tiles {
            for tile in tiles.push(leaf, None) {
                self.compare(&tile)?;
            }
        }
        Ok(())
    }

    fn compare(&self, tile: &Tile) -> Result<(), VerifyError> {
        let path = self.dir.join(&tile.path);
        match small::read(&path) {
            Ok(bytes) if bytes == tile.bytes => Ok(()),
            _ => Err(VerifyError::TileChanged { path }),
        }
    }

    /// One line that was checked on its own: is it the entry that belongs here?
    fn entry(&mut self, checked: &Checked<'_>) -> Result<(), VerifyError> {
        let entry = match &checked.entry {
            Ok(entry) => entry,
            Err(fault) => return Err(self.line_fault(fault.clone())),
        };
        let expected = self.tree.size() + 1;
        if entry.sequence != expected {
            return Err(self.misplaced(entry.sequence, expected, &entry.digest));
        }
        // Before the first line of an export of some there is nothing to compare with.
        let follows_gap = self.line == 1 && expected > 1 && self.archived.is_none();
        if entry.previous != self.report.head && !follows_gap {
            return Err(self.line_fault(Fault::Unchained));
        }
        self.tree.push(checked.leaf);
        if let Some(event) = entry.key_event(checked.line) {
            self.key_event(event, &entry.previous)
                .map_err(|fault| self.line_fault(fault))?;
        } else if entry.event.name.starts_with("key-") {
            return Err(self.line_fault(Fault::Key));
        }
        self.texts
            .extend(texts::named_in(&entry.event.name, checked.line));
        if entry.event.name == "log-repaired" {
            self.report.repairs.push(self.line);
        }
        if entry.event.name == "entries-archived"
            && let Some(archived) = &self.archived
        {
            let told = serde_json::from_slice::<Entry>(checked.line).ok();
            if told.is_some_and(|told| archived.is_named_by(&told.event)) {
                self.archiving_told = Some(entry.sequence);
            }
        }
        self.report.head = entry.digest;
        if self.report.first_time.is_none() {
            self.report.first_time = Some(entry.time.clone().into_owned());
        }
        let last = self.report.last_time.get_or_insert_default();
        last.clear();
        last.push_str(&entry.time);
        for head in self.heads.iter().filter(|head| head.sequence == expected) {
            let is_same_tree = head
                .tree
                .as_ref()
                .is_none_or(|roots| roots == self.tree.roots());
            let is_same_key = head.tree.is_none() || head.key == self.report.key;
            let is_same_place = (head.digest, head.start) == (entry.digest, self.offset);
            if !(is_same_tree && is_same_key && is_same_place) {
                return Err(VerifyError::HeadChanged {
                    path: self.dir.join(HEAD_FILE),
                    sequence: head.sequence,
                });
            }
            self.sealed += 1;
        }
        self.line += 1;
        self.offset += checked.line.len() as u64;
        self.settle()
    }

    /// An entry that names a key, already in the tree.
    fn key_event(&mut self, event: Event, previous: &Digest) -> Result<(), Fault> {
        let sequence = self.tree.size();
        let Some(key) = event.key().cloned() else {
            return Ok(());
        };
        let is_given = self.trust.keys.contains(&key);
        match (&self.report.key, event) {
            (None, Event::KeyCreated { .. }) => self.report.is_trusted = is_given,
            (Some(_), Event::KeyCreated { .. }) => return Err(Fault::KeyAgain),
            (None, _) => return Err(Fault::Rotation),
            (Some(old), _) if old.name() != key.name() => return Err(Fault::Key),
            (Some(old), Event::KeyRotated { note, .. }) => {
                let note = Note::parse(&note).map_err(|_| Fault::Rotation)?;
                let text = rotation_text(&key, sequence, previous);
                if note.text != text || note.check(old).is_err() {
                    return Err(Fault::Rotation);
                }
                self.report.is_trusted |= is_given;
                self.report.rotations.push(sequence);
            }
            (Some(_), event) => {
                self.report.is_trusted = is_given;
                self.report.replacements.push(sequence);
                if let Event::KeyReplaced { reason, .. } = event {
                    self.replaced = (!is_given).then(|| (sequence, key.clone(), reason));
                }
            }
        }
        self.report.key = Some(key);
        Ok(())
    }

    /// Checks the checkpoints of the size that the tree has now.
    fn settle(&mut self) -> Result<(), VerifyError> {
        let size = self.tree.size();
        if self
            .next
            .as_ref()
            .is_some_and(|next| next.checkpoint().size == size)
            && let Some(next) = self.next.take()
        {
            self.fits(&next)
                .map_err(|fault| self.checkpoint_fault(fault))?;
            self.report.checkpoints += 1;
            self.report.signed = size;
            if self.report.is_trusted {
                self.trusted = size;
            }
            self.next_checkpoint()?;
        }
        while let Some(kept) = self.trust.checkpoints.get(self.kept)
            && kept.checkpoint().size <= size
        {
            self.fits(kept)
                .map_err(|fault| VerifyError::Kept { size, fault })?;
            self.kept += 1;
        }
        Ok(())
    }

    /// Whether a checkpoint is one of the log up to here.
    fn fits(&self, signed: &SignedCheckpoint) -> Result<(), CheckpointFault> {
        let checkpoint = signed.checkpoint();
        let size = self.tree.size();
        let key = self.report.key.as_ref().ok_or(CheckpointFault::NoKey)?;
        let found = self.tree.root();
        if checkpoint.size == size && checkpoint.root != found && signed.check(key).is_ok() {
            return Err(CheckpointFault::Forked {
                size,
                wanted: checkpoint.root,
                found,
            });
        }
        signed
            .check(key)
            .map_err(|fault| CheckpointFault::Note { size, fault })?;
        if checkpoint.size == size {
            Ok(())
        } else {
            Err(CheckpointFault::Malformed)
        }
    }

    fn next_checkpoint(&mut self) -> Result<(), VerifyError> {
        let Some(reader) = &mut self.checkpoints else {
            return Ok(());
        };
        let next = reader.next().map_err(|source| VerifyError::Read {
            path: self.dir.join(CHECKPOINTS_FILE),
            source,
        })?;
        let fault = match next {
            Next::Checkpoint(signed) if signed.checkpoint().size > self.report.signed => {
                self.next = Some(signed);
                return Ok(());
            }
            Next::Checkpoint(signed) => CheckpointFault::Order {
                size: signed.checkpoint().size,
                before: self.report.signed,
            },
            Next::Malformed => CheckpointFault::Malformed,
            Next::Torn => CheckpointFault::Incomplete,
            Next::End => return Ok(()),
        };
        Err(self.checkpoint_fault(fault))
    }

    fn finish(mut self) -> Result<VerifyReport, VerifyError> {
        let entries = self.tree.size();
        self.report.entries = entries;
        self.report.root = self.tree.root();
        for digest in &self.texts {
            match texts::held(self.dir, digest)? {
                Some(_) => self.report.texts += 1,
                None => self.report.texts_missing += 1,
            }
        }
        let beyond = |size| CheckpointFault::Beyond { size, entries };
        // It takes no key to write that entries were archived where it is not signed.
        let covered = match self.trust.keys.is_empty() {
            true => self.report.signed,
            false => self.trusted,
        };
        if let Some(Archived { last, .. }) = self.archived
            && self.archiving_told.is_none_or(|told| told > covered)
        {
            let path = self.path;
            return Err(VerifyError::NotArchived { path, last });
        }
        if let Some(next) = &self.next {
            return Err(self.checkpoint_fault(beyond(next.checkpoint().size)));
        }
        if let Some(kept) = self.trust.checkpoints.get(self.kept) {
            let size = kept.checkpoint().size;
            let fault = beyond(size);
            return Err(VerifyError::Kept { size, fault });
        }
        if self.trust.keys.is_empty() {
            return Ok(self.report);
        }
        if let Some((sequence, key, reason)) = self.replaced {
            return Err(VerifyError::Replaced {
                path: self.path,
                sequence,
                key,
                reason,
            });
        }
        // A key that is only named has vouched for nothing.
        if !self.report.is_trusted || self.trusted == 0 {
            return Err(VerifyError::Untrusted {
                path: self.path,
                key: self.report.key,
            });
        }
        self.report.signed = self.trusted;
        Ok(self.report)
    }

    fn line_fault(&self, fault: Fault) -> VerifyError {
        VerifyError::Line {
            path: self.path.clone(),
            line: self.line,
            fault,
        }
    }

    fn checkpoint_fault(&self, fault: CheckpointFault) -> VerifyError {
        VerifyError::Checkpoint {
            path: self.dir.join(CHECKPOINTS_FILE),
            line: self.checkpoints.as_ref().map_or(0, |reader| reader.line),
            fault,
        }
    }

    fn cannot_read(&self, source: io::Error) -> VerifyError {
        VerifyError::Read {
            path: self.path.clone(),
            source,
        }
    }

    /// Finds out how an entry came to stand where another belongs, by a second look at the file.
    fn misplaced(&self, sequence: u64, expected: u64, digest: &Digest) -> VerifyError {
        let first = expected - self.line + 1;
        let found = if sequence > expected {
            self.find(|_, other, _| other == expected)
        } else {
            // Every line above was in its place.
            self.find(|line, other, found| line < self.line && other == sequence && found == digest)
        };
        match found {
            Err(source) => self.cannot_read(source),
            Ok(true) if sequence > expected => {
                self.line_fault(Fault::Reordered { sequence, expected })
            }
            Ok(false) if sequence > expected => self.line_fault(Fault::Removed {
                from: expected,
                to: sequence - 1,
            }),
            Ok(true) => self.line_fault(Fault::Duplicated {
                of: sequence + 1 - first,
            }),
            Ok(false) => self.line_fault(Fault::Unchained),
        }
    }

    /// Whether there is such an entry: the number of its line, its own number, its digest.
    fn find(&self, wanted: impl Fn(u64, u64, &Digest) -> bool) -> io::Result<bool> {
        let mut reader = BufReader::new(File::open(&self.path)?);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let entry = line.strip_suffix(b"\n").map(open_line);
            if let Some(Ok(entry)) = entry
                && wanted(number, entry.sequence, &entry.digest)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether this file is still the one that is found by its name.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let (open, named) = (file.metadata()?, fs::metadata(path)?);
        Ok((open.dev(), open.ino()) == (named.dev(), named.ino()))
    }
    #[cfg(not(unix))]
    {
        // Nobody renames over a file that is open.
        let _ = (file, path);
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
