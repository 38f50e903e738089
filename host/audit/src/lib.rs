//! The append-only, hash-chained and signed record of what every plugin was granted and did.
//!
//! [`AuditLog::append`] writes one [`Event`] as one line of `log.jsonl`; each [`Entry`] holds the
//! digest of the one before it, and `head.json` holds the last, so that [`verify`] finds a byte
//! that changed and an entry that was removed, repeated, moved or cut off. The lines are also the
//! leaves of a Merkle tree, whose root is signed at the boundaries of runs: whoever rewrites the
//! whole folder does not have the key, which is kept outside of it, and whoever has the key cannot
//! tell two stories to those who keep checkpoints. [`export`](fn@export) makes a folder for an
//! auditor, and [`prove_inclusion`] and [`prove_consistency`] make proofs that stand on their own.
//!
//! The forms are public ones: RFC 6962 for the tree and its proofs, and C2SP `signed-note`,
//! `tlog-checkpoint` and `tlog-tiles` for the rest.

mod anchor;
mod archive;
mod archived;
mod batch;
mod checkpoint;
mod digest;
mod entry;
mod envelope;
mod event;
mod export;
mod head;
mod key_file;
mod log;
mod note;
mod proof;
mod read;
mod run_id;
mod seal;
mod small;
#[cfg(test)]
mod testing;
mod texts;
mod tiles;
mod tree;
mod verify;

pub use archive::{
    Archivable, ArchiveError, ArchiveReport, archivable, archive, archived_entries, first_entry,
};
pub use checkpoint::{Checkpoint, SignedCheckpoint};
pub use digest::{Digest, DigestHasher, ParseDigestError};
pub use entry::{Entry, entry_schema};
pub use envelope::{Envelope, EnvelopeFault};
pub use event::{CertifiedSigner, Event, GateCheck, HostUse, MostOfOne, PluginRef, Standing};
pub use export::{ExportError, ExportReport, Period, export};
pub use log::{AuditError, AuditLog, Settled, Waiting, local_key};
// What signs the log signs plugins, too: the same forms, so that an auditor needs to know one.
pub use key_file::{load as load_key, store as store_key};
pub use note::{LogKey, Note, NoteFault, ParseKeyError, VerifierKey};
pub use proof::{
    Proof, ProofError, ProveError, Proven, prove_consistency, prove_inclusion, verify_proof,
};
pub use read::{Entries, Position, read, read_after};
pub use run_id::{ParseRunIdError, RunId};
pub use seal::{SealKey, private};
pub use texts::text_of;
pub use tree::{ParseTreeHashError, TreeHash};
pub use verify::{CheckpointFault, Fault, Trust, VerifyError, VerifyReport, verify, verify_with};
