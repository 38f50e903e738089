//! Proofs that stand on their own: that an entry is in a log, and that a log is the start of a
//! later one. Who checks one needs nothing but a public key.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::archived::earlier_lines;
use crate::batch::Checked;
use crate::checkpoint::{CHECKPOINTS_FILE, CheckpointReader, Next, SignedCheckpoint};
use crate::entry::open_line;
use crate::event::ROTATION_TITLE;
use crate::export::each_leaf;
use crate::note::{Note, NoteFault, VerifierKey};
use crate::tree::{
    RangeHashes, TreeHash, consistency_ranges, inclusion_ranges, root_from_inclusion,
    roots_from_consistency,
};
use crate::{Event, VerifyError, small};

/// What can be shown about a log to somebody who has only its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "proof", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Proof {
    /// An entry is in the log.
    Inclusion {
        /// The line of the entry, byte for byte, without its newline.
        entry: String,
        /// Its place in the tree, counted from 0: one less than its number.
        index: u64,
        /// The size of the tree.
        size: u64,
        /// The path from the leaf to the root: PATH of RFC 6962 section 2.1.1.
        hashes: Vec<TreeHash>,
        /// The signed checkpoint of that tree.
        checkpoint: String,
        /// The signed notes in which a key gave way to the next, oldest first.
        rotations: Vec<String>,
    },
    /// A log of one size is the start of the log of another size.
    Consistency {
        /// The smaller size.
        old_size: u64,
        /// The larger size.
        size: u64,
        /// PROOF of RFC 6962 section 2.1.2.
        hashes: Vec<TreeHash>,
        /// The signed checkpoint of the smaller size.
        old_checkpoint: String,
        /// The signed checkpoint of the larger size.
        checkpoint: String,
        /// The signed notes in which a key gave way to the next, oldest first.
        rotations: Vec<String>,
    },
}

/// Why there is no proof.
#[derive(Debug, Error)]
pub enum ProveError {
    /// No checkpoint covers the entry.
    #[error(
        "no checkpoint covers entry {sequence}; the last is of {signed} entries; `sandcast audit checkpoint` signs one"
    )]
    NotCovered {
        /// The entry.
        sequence: u64,
        /// How many entries the last checkpoint is of, or 0.
        signed: u64,
    },
    /// There is no checkpoint of this size.
    #[error(
        "there is no checkpoint of {size} entries; the nearest is of {nearest}, and the file `checkpoints` holds all"
    )]
    NoCheckpoint {
        /// The size that was asked for.
        size: u64,
        /// The nearest size there is, or 0.
        nearest: u64,
    },
    /// The entry itself is not in this folder: it is not among those exported, or was archived.
    #[error(
        "entry {sequence} is not here, for it was archived or is not of the time that was exported; prove it from the archive or an export of the time it was written, with --from"
    )]
    NotPresent {
        /// The entry.
        sequence: u64,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The log is not whole.
    #[error(transparent)]
    NotWhole(#[from] VerifyError),
}

/// Shows that an entry is in the log or export in a folder, by its last checkpoint.
///
/// # Errors
/// When no checkpoint covers it, it is not in this folder, or the log is damaged.
pub fn prove_inclusion(dir: &Path, sequence: u64) -> Result<Proof, ProveError> {
    let checkpoints = Sizes::read(dir)?;
    let last = checkpoints.last();
    let not_covered = || ProveError::NotCovered {
        sequence,
        signed: last.map_or(0, |last| last.checkpoint().size),
    };
    let signed = last
        .filter(|last| (1..=last.checkpoint().size).contains(&sequence))
        .ok_or_else(not_covered)?;
    let size = signed.checkpoint().size;
    let mut found = Leaves::new(inclusion_ranges(sequence - 1, size));
    let mut line = None;
    found.read(dir, size, |number, _, entry| {
        if number == sequence {
            line = entry.and_then(|entry| entry.line.strip_suffix(b"\n").map(<[u8]>::to_vec));
        }
    })?;
    let entry = line
        .and_then(|line| String::from_utf8(line).ok())
        .ok_or(ProveError::NotPresent { sequence })?;
    Ok(Proof::Inclusion {
        entry,
        index: sequence - 1,
        size,
        hashes: found.hashes.finish(),
        checkpoint: signed.text().to_owned(),
        rotations: found.rotations,
    })
}

/// Shows that the log of the checkpoint of `old_size` entries is the start of the log of `size`,
/// or of that of the last checkpoint.
///
/// # Errors
/// When there is no checkpoint of such a size, or the log is damaged.
pub fn prove_consistency(
    dir: &Path,
    old_size: u64,
    size: Option<u64>,
) -> Result<Proof, ProveError> {
    let checkpoints = Sizes::read(dir)?;
    let old = checkpoints.of(old_size)?;
    if old_size == 0 {
        // Nothing is the start of everything, and a file that says so was not written here.
        return Err(ProveError::NoCheckpoint {
            size: 0,
            nearest: checkpoints.last().map_or(0, |last| last.checkpoint().size),
        });
    }
    let new = match size {
        Some(size) => checkpoints.of(size.max(old_size))?,
        None => checkpoints.last().unwrap_or(old),
    };
    let size = new.checkpoint().size;
    let mut found = Leaves::new(consistency_ranges(old_size, size));
    found.read(dir, size, |_, _, _| {})?;
    Ok(Proof::Consistency {
        old_size,
        size,
        hashes: found.hashes.finish(),
        old_checkpoint: old.text().to_owned(),
        checkpoint: new.text().to_owned(),
        rotations: found.rotations,
    })
}

/// All checkpoints of a folder.
struct Sizes(Vec<SignedCheckpoint>);

impl Sizes {
    fn read(dir: &Path) -> Result<Self, ProveError> {
        let path = dir.join(CHECKPOINTS_FILE);
        let failed = |source| ProveError::Read {
            path: path.clone(),
            source,
        };
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self(Vec::new())),
            Err(error) => return Err(failed(error)),
        };
        let mut reader = CheckpointReader::new(BufReader::new(file));
        let mut all = Vec::new();
        while let Next::Checkpoint(signed) = reader.next().map_err(failed)? {
            all.push(signed);
        }
        Ok(Self(all))
    }

    /// That of the most entries, which in a file that somebody changed may stand anywhere.
    fn last(&self) -> Option<&SignedCheckpoint> {
        self.0.iter().max_by_key(|signed| signed.checkpoint().size)
    }

    fn of(&self, size: u64) -> Result<&SignedCheckpoint, ProveError> {
        let away = |signed: &&SignedCheckpoint| signed.checkpoint().size.abs_diff(size);
        match self.0.iter().min_by_key(away) {
            Some(signed) if signed.checkpoint().size == size => Ok(signed),
            nearest => Err(ProveError::NoCheckpoint {
                size,
                nearest: nearest.map_or(0, |signed| signed.checkpoint().size),
            }),
        }
    }
}

/// What one pass over the leaves of a log finds for a proof.
struct Leaves {
    hashes: RangeHashes,
    rotations: Vec<String>,
}

impl Leaves {
    fn new(ranges: Vec<std::ops::Range<u64>>) -> Self {
        Self {
            hashes: RangeHashes::new(ranges),
            rotations: Vec::new(),
        }
    }

    fn read(
        &mut self,
        dir: &Path,
        size: u64,
        mut look: impl FnMut(u64, TreeHash, Option<&Checked<'_>>),
    ) -> Result<(), ProveError> {
        let mut rotations: Vec<(u64, String)> = Vec::new();
        let mut note_rotation = |line: &[u8]| {
            let entry = open_line(line.strip_suffix(b"\n").unwrap_or(line)).ok();
            let event = entry.as_ref().and_then(|entry| entry.key_event(line));
            if let (Some(entry), Some(Event::KeyRotated { note, .. })) = (entry, event) {
                rotations.push((entry.sequence, note));
            }
        };
        each_leaf(dir, size, |number, leaf, checked| {
            self.hashes.push(leaf);
            look(number, leaf, checked);
            if let Some(Checked {
                line,
                entry: Ok(entry),
                ..
            }) = checked
                && entry.event.name == "key-rotated"
            {
                note_rotation(line);
            }
        })?;
        // Those that are not among the entries of an export, or were archived.
        if let Some(path) = earlier_lines(dir).map_err(VerifyError::from)? {
            match small::read(&path) {
                Ok(bytes) => bytes.split(|byte| *byte == b'\n').for_each(note_rotation),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ProveError::Read { path, source }),
            }
        }
        rotations.sort();
        self.rotations = rotations.into_iter().map(|(_, note)| note).collect();
        Ok(())
    }
}

/// What a proof that holds shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "proof", rename_all = "kebab-case")]
pub enum Proven {
    /// This entry is in the log.
    Inclusion {
        /// The name of the log.
        origin: String,
        /// The number of the entry.
        sequence: u64,
        /// Its line.
        entry: String,
        /// The size of the tree it is in.
        size: u64,
        /// The key that signed the checkpoint.
        key: VerifierKey,
    },
    /// The log of the smaller size is the start of that of the larger.
    Consistency {
        /// The name of the log.
        origin: String,
        /// The smaller size.
        old_size: u64,
        /// The larger size.
        size: u64,
        /// The key that signed the larger.
        key: VerifierKey,
    },
}

/// Why a proof shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProofError {
    /// A checkpoint in it is not signed by a key that was given or follows from one.
    #[error("the checkpoint of the proof is not signed by a key that was given: {fault}")]
    Checkpoint {
        /// What is wrong with it.
        fault: NoteFault,
    },
    /// A sized or named part of it contradicts another.
    #[error("the proof contradicts itself: its {what} is not that of its checkpoint")]
    Contradiction {
        /// Which part.
        what: &'static str,
    },
    /// The line is not an entry, or not the one of this place.
    #[error(
        "the entry in the proof was changed: it is not entry {sequence} of a log as it was written"
    )]
    Entry {
        /// The number it should have.
        sequence: u64,
    },
    /// The hashes do not lead to the root that was signed.
    #[error(
        "the hashes of the proof do not lead to the signed root of {size} entries: the entry or the proof was changed, or the log has two histories"
    )]
    Root {
        /// The size of the tree whose root is not reached.
        size: u64,
    },
}

/// Checks a proof with nothing but keys that are trusted.
///
/// # Errors
/// When it does not show what it says.
pub fn verify_proof(proof: &Proof, keys: &[VerifierKey]) -> Result<Proven, ProofError> {
    match proof {
        Proof::Inclusion {
            entry,
            index,
            size,
            hashes,
            checkpoint,
            rotations,
        } => {
            let keys = follow(keys, rotations);
            let (signed, key) = signed_by(checkpoint, &keys)?;
            let checkpoint = signed.checkpoint();
            if checkpoint.size != *size {
                return Err(ProofError::Contradiction { what: "size" });
            }
            let sequence = index.saturating_add(1);
            if open_line(entry.as_bytes()).ok().map(|entry| entry.sequence) != Some(sequence) {
                return Err(ProofError::Entry { sequence });
            }
            let leaf = TreeHash::leaf(entry.as_bytes());
            if root_from_inclusion(&leaf, *index, *size, hashes) != Some(checkpoint.root) {
                return Err(ProofError::Root { size: *size });
            }
            Ok(Proven::Inclusion {
                origin: checkpoint.origin.clone(),
                sequence,
                entry: entry.clone(),
                size: *size,
                key,
            })
        }
        Proof::Consistency {
            old_size,
            size,
            hashes,
            old_checkpoint,
            checkpoint,
            rotations,
        } => {
            let keys = follow(keys, rotations);
            let (old, _) = signed_by(old_checkpoint, &keys)?;
            let (new, key) = signed_by(checkpoint, &keys)?;
            let (old, new) = (old.checkpoint(), new.checkpoint());
            if (old.size, new.size) != (*old_size, *size) {
                return Err(ProofError::Contradiction { what: "size" });
            }
            if old.origin != new.origin {
                return Err(ProofError::Contradiction { what: "log" });
            }
            match roots_from_consistency(*old_size, *size, &old.root, hashes) {
                Some((found, _)) if found != old.root => Err(ProofError::Root { size: *old_size }),
                Some((_, found)) if found == new.root => Ok(Proven::Consistency {
                    origin: new.origin.clone(),
                    old_size: *old_size,
                    size: *size,
                    key,
                }),
                _ => Err(ProofError::Root { size: *size }),
            }
        }
    }
}

/// The keys that these gave way to. A note that none of them signed is passed over: the
/// checkpoint then has no key.
fn follow(keys: &[VerifierKey], rotations: &[String]) -> Vec<VerifierKey> {
    let mut keys = keys.to_vec();
    for note in rotations {
        let Ok(note) = Note::parse(note) else {
            continue;
        };
        let lines: Vec<&str> = note.text.lines().collect();
        let [ROTATION_TITLE, origin, _, _, key] = lines[..] else {
            continue;
        };
        let Ok(key) = key.parse::<VerifierKey>() else {
            continue;
        };
        let is_signed = keys
            .iter()
            .any(|old| old.name() == origin && note.check(old).is_ok());
        if is_signed && key.name() == origin {
            keys.push(key);
        }
    }
    keys
}

fn signed_by(
    text: &str,
    keys: &[VerifierKey],
) -> Result<(SignedCheckpoint, VerifierKey), ProofError> {
    let wrong = |fault| ProofError::Checkpoint { fault };
    let signed = SignedCheckpoint::parse(text).map_err(wrong)?;
    let mut fault = NoteFault::OtherKey {
        signers: String::new(),
    };
    for key in keys {
        match signed.check(key) {
            Ok(()) => return Ok((signed, key.clone())),
            // A signature that does not fit says more than one of somebody else.
            Err(found) if fault != NoteFault::Signature => fault = found,
            Err(_) => {}
        }
    }
    Err(wrong(fault))
}

#[cfg(test)]
mod tests;
