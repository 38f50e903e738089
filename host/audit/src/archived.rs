//! What stands in the folder of a log for entries that were archived, so that the log stays whole
//! without them: their hashes as tiles, a few of their lines, and where the log goes on.
//!
//! The first line of the log says how many entries came before it, and with that which of these files
//! is meant. So the moment at which a log without its oldest entries takes the place of the one with
//! them is a single renaming, and files that were written before it and never used are of no account.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::entry::open_line;
use crate::export::{KEYS_FILE, MANIFEST_FILE};
use crate::head::LOG_FILE;
use crate::tree::{Frontier, TreeHash};
use crate::verify::VerifyError;
use crate::{AuditError, Digest, Event, small};

/// Bytes of a log from its very first entry; places are added up below it.
const MAX_BYTES: u64 = 1 << 60;

/// The entries that the log of a folder begins after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Archived {
    /// How many bytes their lines had. Places in the log are counted from its very first entry.
    pub(crate) bytes: u64,
    /// The digest of the last of them.
    pub(crate) digest: Digest,
    /// The digest of the file with those of their lines that were kept.
    pub(crate) kept: Digest,
    /// The number of the last of them; a multiple of the width of a tile.
    pub(crate) last: u64,
    /// The roots of the perfect subtrees over them, the largest first.
    pub(crate) tree: Vec<TreeHash>,
}

impl Archived {
    /// What the log that this file holds begins after; none where it begins with entry 1, or where
    /// nothing says what came before. The file is then read from its start.
    ///
    /// # Errors
    /// When a file cannot be read or is not what was written.
    pub(crate) fn before(dir: &Path, log: &mut File) -> Result<Option<Self>, Unreadable> {
        // An export says itself what it begins after, and `verify` goes by that alone: files of this
        // name that somebody put there are not checked, and not looked at.
        if dir.join(MANIFEST_FILE).exists() {
            return Ok(None);
        }
        let mut line = Vec::new();
        let mut first_line = || {
            log.seek(SeekFrom::Start(0))?;
            BufReader::new(&mut *log).read_until(b'\n', &mut line)?;
            log.seek(SeekFrom::Start(0))
        };
        first_line().map_err(Unreadable::at(&dir.join(LOG_FILE)))?;
        // A first line that is no entry is found by who reads it.
        let first = line
            .strip_suffix(b"\n")
            .and_then(|line| open_line(line).ok())
            .map_or(1, |entry| entry.sequence);
        match first {
            0 | 1 => Ok(None),
            _ => {
                let last = first - 1;
                Self::load(dir, last).map_err(Unreadable::at(&Self::path(dir, last)))
            }
        }
    }

    /// As [`before`](Self::before), of the log in a folder.
    pub(crate) fn of(dir: &Path) -> Result<Option<Self>, Unreadable> {
        let path = dir.join(LOG_FILE);
        let mut log = File::open(&path).map_err(Unreadable::at(&path))?;
        Self::before(dir, &mut log)
    }

    fn load(dir: &Path, last: u64) -> io::Result<Option<Self>> {
        let bytes = match small::read(&Self::path(dir, last)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(found)
                if found.to_text()?.as_bytes() == bytes
                    && found.last == last
                    && found.bytes <= MAX_BYTES
                    && found.frontier().is_some() =>
            {
                Ok(Some(found))
            }
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    /// The one way in which it is spelt.
    pub(crate) fn to_text(&self) -> io::Result<String> {
        Ok(format!("{}\n", serde_json::to_string(self)?))
    }

    pub(crate) fn frontier(&self) -> Option<Frontier> {
        Frontier::from_parts(self.last, self.tree.clone())
    }

    pub(crate) fn path(dir: &Path, last: u64) -> PathBuf {
        dir.join(format!("archived-{last}.json"))
    }

    /// The lines of archived entries that are still needed, oldest first.
    pub(crate) fn kept_path(dir: &Path, last: u64) -> PathBuf {
        dir.join(format!("kept-{last}.jsonl"))
    }

    /// Whether an entry of the log says that these entries were archived.
    pub(crate) fn is_named_by(&self, event: &Event) -> bool {
        let Event::EntriesArchived {
            last,
            digest,
            root,
            bytes,
            kept,
            ..
        } = event
        else {
            return false;
        };
        let is_root = self
            .frontier()
            .is_some_and(|frontier| frontier.root() == *root);
        is_root
            && (*last, *digest, *bytes, *kept) == (self.last, self.digest, self.bytes, self.kept)
    }
}

/// A file that cannot be read, or, where the kind of the cause is `InvalidData`, is not what was
/// written.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl Unreadable {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self { path, source }
    }

    fn is_changed(&self) -> bool {
        self.source.kind() == io::ErrorKind::InvalidData
    }
}

impl From<Unreadable> for VerifyError {
    fn from(file: Unreadable) -> Self {
        match file.is_changed() {
            true => Self::ArchivedChanged { path: file.path },
            false => Self::Read {
                path: file.path,
                source: file.source,
            },
        }
    }
}

impl From<Unreadable> for AuditError {
    fn from(file: Unreadable) -> Self {
        match file.is_changed() {
            true => Self::Archived { path: file.path },
            false => Self::Read {
                path: file.path,
                source: file.source,
            },
        }
    }
}

/// Whether the line of an entry stays where the log is when the entry is archived: what says which
/// keys sign it, how far components are trusted, which models there are and what their aliases mean,
/// and what was archived before.
pub(crate) fn is_kept(event: &str) -> bool {
    const KEPT: [&str; 5] = [
        "standing-changed",
        "entries-archived",
        "registered",
        "version-renewed",
        "alias-moved",
    ];
    event.starts_with("key-") || KEPT.contains(&event)
}

/// Whether an entry from before those of an export goes along with it: what says what plugins could do,
/// how far they are trusted, who approved what, and which models there are.
pub(crate) fn goes_along(event: &str) -> bool {
    const ALONG: [&str; 9] = [
        PLUGIN_LOADED,
        "standing-changed",
        "access-changed",
        "approval-requested",
        "approval-decided",
        "approval-carried-out",
        "registered",
        "version-renewed",
        "alias-moved",
    ];
    ALONG.contains(&event)
}

/// Of these only the last goes along for each way in which a component was loaded.
pub(crate) const PLUGIN_LOADED: &str = "plugin-loaded";

/// The file with lines of entries that come before those of the log or export in a folder.
pub(crate) fn earlier_lines(dir: &Path) -> Result<Option<PathBuf>, Unreadable> {
    if dir.join(MANIFEST_FILE).exists() {
        return Ok(Some(dir.join(KEYS_FILE)));
    }
    let archived = Archived::of(dir)?;
    Ok(archived.map(|archived| Archived::kept_path(dir, archived.last)))
}

/// Lines of entries that stand alone, oldest first, in a file that need not be there.
pub(crate) struct KeptLines {
    pub(crate) path: PathBuf,
    reader: Option<BufReader<File>>,
    /// The next entry: its number and its line without newline.
    next: Option<(u64, Vec<u8>)>,
    /// The line of the file that was taken last, from 1.
    pub(crate) line: u64,
    is_malformed: bool,
    /// Whether all of them are about keys.
    pub(crate) is_of_keys: bool,
}

impl KeptLines {
    /// Those of a file with entries about keys and no others.
    pub(crate) fn of_keys(path: PathBuf) -> Result<Self, Unreadable> {
        let lines = Self::open(path)?;
        Ok(Self {
            is_of_keys: true,
            ..lines
        })
    }

    pub(crate) fn open(path: PathBuf) -> Result<Self, Unreadable> {
        let reader = match File::open(&path) {
            Ok(file) => Some(BufReader::new(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(Unreadable { path, source }),
        };
        let mut lines = Self {
            path,
            reader,
            next: None,
            line: 0,
            is_malformed: false,
            is_of_keys: false,
        };
        lines.advance()?;
        Ok(lines)
    }

    fn advance(&mut self) -> Result<(), Unreadable> {
        self.next = None;
        let Some(reader) = &mut self.reader else {
            return Ok(());
        };
        let mut line = Vec::new();
        reader
            .read_until(b'\n', &mut line)
            .map_err(Unreadable::at(&self.path))?;
        if line.is_empty() {
            return Ok(());
        }
        let number = line
            .pop_if(|last| *last == b'\n')
            .and_then(|_| open_line(&line).ok())
            .map(|entry| entry.sequence);
        match number {
            Some(number) => self.next = Some((number, line)),
            None => self.is_malformed = true,
        }
        Ok(())
    }

    /// The line of an entry, if it is here. To be asked for in the order of the log.
    pub(crate) fn take(&mut self, number: u64) -> Result<Option<Vec<u8>>, Unreadable> {
        let Some((_, line)) = self.next.take_if(|(next, _)| *next == number) else {
            return Ok(None);
        };
        self.line += 1;
        self.advance()?;
        Ok(Some(line))
    }

    /// Whether every line was an entry in its place, and was taken.
    pub(crate) fn is_used_up(&self) -> bool {
        self.next.is_none() && !self.is_malformed
    }
}
