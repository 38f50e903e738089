//! Where the chain ends: what `head.json` holds.
//!
//! The file has two places of a fixed size. The first is written over, where it lies, with each
//! append: one call and nothing to rename. The second is written rarely, and then pushed to the disk
//! with the log and the first place, before and after; so whatever a loss of power leaves of the one
//! that was being written, the other is whole, and the log has the entry that it names. The first may
//! also come to be ahead of the log then, which is pushed to the disk at boundaries only: the second is
//! gone by where nothing that was signed is missing. A process that is killed leaves both whole. Older
//! versions wrote one line, and replaced the file.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::verify::is_at;
use crate::{Digest, TreeHash, VerifierKey, small};

pub(crate) const LOG_FILE: &str = "log.jsonl";
pub(crate) const HEAD_FILE: &str = "head.json";

/// The size of a place: a page, which the system takes in one piece. A head with all the 64 subtrees
/// that a log can have takes 3.2 KB.
const PLACE_BYTES: usize = 4096;
/// The second place is renewed when the first is so many entries ahead: what must be read again of the
/// log, at most, when the first is lost.
pub(crate) const MOST_AHEAD: u64 = 4096;

/// Where the chain ends. It is what makes a cut tail visible, and what lets the tree grow without the
/// entries before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Head {
    /// The digest of the last entry.
    pub(crate) digest: Digest,
    /// The key in force after it.
    #[serde(default)]
    pub(crate) key: Option<VerifierKey>,
    /// Its number, which is also the size of the tree.
    pub(crate) sequence: u64,
    /// The byte of the log at which its line starts.
    pub(crate) start: u64,
    /// The roots of the tree's perfect subtrees, the largest first. Logs from before there was a
    /// tree have none; it is then made from the entries, once.
    #[serde(default)]
    pub(crate) tree: Option<Vec<TreeHash>>,
}

impl Head {
    /// The one way in which a head is spelt.
    fn to_text(&self) -> String {
        let Self {
            digest,
            key,
            sequence,
            start,
            tree,
        } = self;
        let key = key
            .as_ref()
            .map(|key| format!("\"key\":\"{key}\","))
            .unwrap_or_default();
        let tree = tree.as_ref().map(|roots| {
            let roots: Vec<String> = roots.iter().map(|root| format!("\"{root}\"")).collect();
            format!(",\"tree\":[{}]", roots.join(","))
        });
        let tree = tree.unwrap_or_default();
        format!(
            "{{\"digest\":\"{digest}\",{key}\"sequence\":{sequence},\"start\":{start}{tree}}}\n"
        )
    }

    /// A line of an older version.
    fn from_line(bytes: &[u8]) -> Option<Self> {
        let head = serde_json::from_slice::<Self>(bytes).ok()?;
        (head.to_text().as_bytes() == bytes).then_some(head)
    }

    /// The line, the digest of it, and spaces: a place, and the one way in which it is filled.
    pub(crate) fn to_place(&self) -> io::Result<Vec<u8>> {
        let line = self.to_text();
        let mut place = format!("{line}{}", Digest::of(line.as_bytes())).into_bytes();
        if place.len() >= PLACE_BYTES {
            return Err(io::Error::other("the name of the key is too long"));
        }
        place.resize(PLACE_BYTES - 1, b' ');
        place.push(b'\n');
        Ok(place)
    }

    pub(crate) fn from_place(place: &[u8]) -> Option<Self> {
        let end = place.iter().position(|byte| *byte == b'\n')?;
        let head = serde_json::from_slice::<Self>(&place[..end]).ok()?;
        // Without a tree it could not stand in for the other one.
        let is_one = head.tree.is_some() && head.to_place().is_ok_and(|wanted| wanted == place);
        is_one.then_some(head)
    }
}

/// What a file of heads says.
#[derive(Debug)]
pub(crate) struct Heads {
    /// The later one that is whole.
    pub(crate) last: Head,
    /// The other one, where both are whole.
    pub(crate) other: Option<Head>,
    /// The place that is not whole, and what stands there.
    pub(crate) torn: Option<Torn>,
    /// Whether an older version wrote it.
    pub(crate) is_old: bool,
}

/// A place that is not whole.
#[derive(Debug)]
pub(crate) struct Torn {
    pub(crate) is_second: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Heads {
    /// Reads the heads of a folder. `Ok(None)` when there are none.
    ///
    /// # Errors
    /// When they cannot be read, or, as `InvalidData`, when neither is one.
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match small::read(&dir.join(HEAD_FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Self::parse(&bytes)
            .map(Some)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let heads = |last, other, torn| Self {
            last,
            other,
            torn,
            is_old: false,
        };
        if bytes.len() != 2 * PLACE_BYTES {
            return Some(Self {
                is_old: true,
                ..heads(Head::from_line(bytes)?, None, None)
            });
        }
        let torn = |is_second, place: &[u8]| {
            Some(Torn {
                is_second,
                bytes: place.to_vec(),
            })
        };
        let (first, second) = bytes.split_at(PLACE_BYTES);
        match (Head::from_place(first), Head::from_place(second)) {
            (Some(one), Some(two)) if one.sequence >= two.sequence => {
                Some(heads(one, Some(two), None))
            }
            // A crash came after the second place was renewed and before the first was written again.
            (Some(one), Some(two)) => Some(heads(two, Some(one), None)),
            (Some(one), None) => Some(heads(one, None, torn(true, second))),
            (None, Some(two)) => Some(heads(two, None, torn(false, first))),
            (None, None) => None,
        }
    }
}

/// The file of heads, open for writing. Its places are written while the log is locked.
#[derive(Debug)]
pub(crate) struct HeadFile {
    file: File,
    /// An entry that is not after the one that the second place names.
    base: u64,
}

impl HeadFile {
    /// Makes the file, or replaces that of an older version, in one step.
    pub(crate) fn create(dir: &Path, head: &Head) -> io::Result<Self> {
        let temporary = dir.join("head.json.new");
        let place = head.to_place()?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&temporary)?;
        io::Write::write_all(&mut file, &[place.as_slice(), &place].concat())?;
        file.sync_all()?;
        fs::rename(&temporary, dir.join(HEAD_FILE))?;
        #[cfg(unix)]
        File::open(dir)?.sync_all()?;
        Ok(Self {
            file,
            base: head.sequence,
        })
    }

    /// Opens the file of a folder, whose second place names this entry or a later one. `Ok(None)`
    /// when there is none.
    pub(crate) fn open(dir: &Path, base: u64) -> io::Result<Option<Self>> {
        match File::options()
            .read(true)
            .write(true)
            .open(dir.join(HEAD_FILE))
        {
            Ok(file) => Ok(Some(Self { file, base })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes over the first place.
    pub(crate) fn write(&self, head: &Head) -> io::Result<()> {
        write_at(&self.file, &head.to_place()?, 0)
    }

    /// The same, onto the disk.
    pub(crate) fn write_through(&self, head: &Head) -> io::Result<()> {
        self.write(head)?;
        self.file.sync_data()
    }

    /// Whether it is still the file of a folder.
    pub(crate) fn is_in(&self, dir: &Path) -> bool {
        is_at(&self.file, &dir.join(HEAD_FILE)).unwrap_or(false)
    }

    /// Sees to it that the first place is what it was, where it may have been written over.
    pub(crate) fn restore(&self, head: &Head) -> io::Result<()> {
        let wanted = head.to_place()?;
        let mut found = vec![0; PLACE_BYTES];
        match read_at(&self.file, &mut found, 0) {
            Ok(()) if found == wanted => Ok(()),
            _ => write_at(&self.file, &wanted, 0),
        }
    }

    /// Whether the second place should be renewed.
    pub(crate) fn is_far_ahead(&self, sequence: u64) -> bool {
        sequence.saturating_sub(self.base) >= MOST_AHEAD
    }

    /// Writes over the second place, once the first is on the disk. The log is on the disk up to
    /// the entry that is named.
    pub(crate) fn renew(&mut self, head: &Head) -> io::Result<()> {
        let place = head.to_place()?;
        self.file.sync_data()?;
        write_at(&self.file, &place, PLACE_BYTES as u64)?;
        self.file.sync_data()?;
        self.base = head.sequence;
        Ok(())
    }
}

#[cfg(unix)]
pub(crate) fn write_at(file: &File, bytes: &[u8], place: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, place)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], place: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, place)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, bytes: &mut [u8], place: u64) -> io::Result<()> {
    use std::io::{Read as _, Seek as _};
    file.seek(io::SeekFrom::Start(place))?;
    file.read_exact(bytes)
}

#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8], place: u64) -> io::Result<()> {
    use std::io::{Seek as _, Write as _};
    file.seek(io::SeekFrom::Start(place))?;
    file.write_all(bytes)
}

#[cfg(test)]
impl HeadFile {
    /// For tests, one that cannot be written to.
    pub(crate) fn broken(dir: &Path) -> Self {
        let file = File::open(dir.join(HEAD_FILE)).expect("opens");
        Self { file, base: 0 }
    }
}

/// For tests, as older versions wrote it.
#[cfg(test)]
pub(crate) fn store_old(head: &Head, dir: &Path) {
    fs::write(dir.join(HEAD_FILE), head.to_text()).expect("writes");
}

/// For tests, a file whose two places are these.
#[cfg(test)]
pub(crate) fn places(first: &Head, second: &Head) -> Vec<u8> {
    [first, second]
        .map(|head| head.to_place().expect("fits"))
        .concat()
}

/// For tests: what a loss of power leaves of a place while it is written, up to a byte.
#[cfg(test)]
pub(crate) fn torn(before: &[u8], after: &[u8], place: usize, up_to: usize) -> Vec<u8> {
    let at = place * PLACE_BYTES;
    let mut bytes = before.to_vec();
    bytes[at..at + up_to].copy_from_slice(&after[at..at + up_to]);
    bytes
}
