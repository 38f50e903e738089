//! Checkpoints: what the log was at some size, signed, as C2SP `tlog-checkpoint` has them
//! (<https://c2sp.org/tlog-checkpoint>).

use std::fs::File;
use std::io::{self, BufRead, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::TreeHash;
use crate::note::{LogKey, Note, NoteFault, VerifierKey};

/// The signed checkpoints of a log, oldest first, an empty line after each.
pub(crate) const CHECKPOINTS_FILE: &str = "checkpoints";
/// No checkpoint is longer; it is what of the end of the file must be read to find the last one.
const MAX_CHECKPOINT_BYTES: u64 = 16 * 1024;

/// What a log was at some size: its name, how many entries it had and the root of their tree.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Checkpoint {
    /// The name of the log.
    pub origin: String,
    /// How many entries the tree has.
    pub size: u64,
    /// The root of the tree.
    pub root: TreeHash,
}

impl Checkpoint {
    fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let size: u64 = size.parse().ok()?;
        let parsed = Self {
            origin: origin.to_owned(),
            size,
            root: root.parse().ok()?,
        };
        // One spelling of each number; what may follow is not ours, and is signed all the same.
        (text.starts_with(&parsed.to_text()) && !origin.is_empty()).then_some(parsed)
    }
}

/// A checkpoint with its signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    text: String,
    note: Note,
}

impl SignedCheckpoint {
    /// Takes a signed note apart that holds a checkpoint. Nothing of it is checked by that;
    /// [`check`](Self::check) does.
    ///
    /// # Errors
    /// When it is not a signed note, or its text is not a checkpoint.
    pub fn parse(text: &str) -> Result<Self, NoteFault> {
        let note = Note::parse(text)?;
        let checkpoint = Checkpoint::parse(&note.text).ok_or(NoteFault::Malformed)?;
        Ok(Self {
            checkpoint,
            text: text.to_owned(),
            note,
        })
    }

    pub(crate) fn sign(checkpoint: Checkpoint, key: &LogKey) -> Result<Self, NoteFault> {
        Self::parse(&key.sign(&checkpoint.to_text()))
    }

    /// Checks that this key signed it, for the log of the key's name.
    ///
    /// # Errors
    /// When it did not.
    pub fn check(&self, key: &VerifierKey) -> Result<(), NoteFault> {
        self.note.check(key)?;
        // A key signs for one log: the same key for another log would have another name and hash.
        if self.checkpoint.origin == key.name() {
            Ok(())
        } else {
            Err(NoteFault::Malformed)
        }
    }

    /// What it says.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The signed note, byte for byte.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// What follows in a file of checkpoints.
#[derive(Debug)]
pub(crate) enum Next {
    Checkpoint(SignedCheckpoint),
    /// Something that is not a checkpoint.
    Malformed,
    /// The file ends within a checkpoint: a crash, or somebody cut it.
    Torn,
    End,
}

/// Reads checkpoints one after the other; of each, the line it starts at is known.
#[derive(Debug)]
pub(crate) struct CheckpointReader<R> {
    reader: R,
    lines: u64,
    /// The line of the last checkpoint read, from 1.
    pub(crate) line: u64,
}

impl<R: BufRead> CheckpointReader<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            lines: 0,
            line: 0,
        }
    }

    pub(crate) fn next(&mut self) -> io::Result<Next> {
        let mut bytes = Vec::new();
        let mut empty_lines = 0;
        self.line = self.lines + 1;
        // The empty line after the text, then that after the signatures.
        while empty_lines < 2 {
            let start = bytes.len();
            let limit = MAX_CHECKPOINT_BYTES.saturating_sub(start as u64);
            (&mut self.reader)
                .take(limit)
                .read_until(b'\n', &mut bytes)?;
            let line = &bytes[start..];
            if line.is_empty() {
                return Ok(match start {
                    0 => Next::End,
                    _ if limit == 0 => Next::Malformed,
                    _ => Next::Torn,
                });
            }
            if line == b"\n" {
                empty_lines += 1;
            }
            self.lines += 1;
        }
        bytes.pop();
        let parsed = String::from_utf8(bytes)
            .ok()
            .and_then(|text| SignedCheckpoint::parse(&text).ok());
        Ok(parsed.map_or(Next::Malformed, Next::Checkpoint))
    }
}

/// The end of a file of checkpoints.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// The last checkpoint that is whole, if there is one.
    pub(crate) last: Option<SignedCheckpoint>,
    /// Where it ends.
    pub(crate) end: u64,
    /// What a crash left after it.
    pub(crate) torn: Vec<u8>,
}

/// Finds the end of the checkpoints of a folder without reading those before.
pub(crate) fn end(dir: &Path) -> io::Result<End> {
    let mut file = match File::open(dir.join(CHECKPOINTS_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(End::default()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    let start = length.saturating_sub(2 * MAX_CHECKPOINT_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    // A checkpoint ends in an empty line, as its text does; but before a signature there is one.
    let is_end = |place: usize| {
        bytes[..place].ends_with(b"\n\n") && !bytes[place..].starts_with("\u{2014} ".as_bytes())
    };
    let ends: Vec<usize> = (0..=bytes.len()).rev().filter(|at| is_end(*at)).collect();
    for (number, end) in ends.iter().enumerate() {
        let begin = ends.get(number + 1).copied().unwrap_or(0);
        let parsed = std::str::from_utf8(&bytes[begin..end - 1])
            .ok()
            .and_then(|text| SignedCheckpoint::parse(text).ok());
        if let Some(last) = parsed {
            return Ok(End {
                last: Some(last),
                end: start + *end as u64,
                torn: bytes[*end..].to_vec(),
            });
        }
    }
    if start > 0 {
        // Nothing at the end of a long file is a checkpoint: that is no crash.
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok(End {
        last: None,
        end: 0,
        torn: bytes,
    })
}

/// Appends a checkpoint after what is whole.
pub(crate) fn append(
    dir: &Path,
    checkpoint: &SignedCheckpoint,
    at: u64,
    sync: bool,
) -> io::Result<()> {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(dir.join(CHECKPOINTS_FILE))?;
    file.set_len(at)?;
    // In one piece, so that a reader sees all of it or nothing.
    let written = file
        .write_all(format!("{}\n", checkpoint.text()).as_bytes())
        .and_then(|()| if sync { file.sync_data() } else { Ok(()) });
    if written.is_err() {
        // Should this fail too, what is left is dropped by who signs next.
        let _ = file.set_len(at);
    }
    written
}
