//! The append-only, hash-chained record of what every plugin was granted and did.
//!
//! [`AuditLog::append`] writes one [`Event`] as one line of `log.jsonl`; each [`Entry`] holds the
//! digest of the one before it, and `head.json` holds the last, so that [`verify`] finds a byte
//! that changed and an entry that was removed, repeated, moved or cut off. The chain is not
//! signed: whoever can rewrite the whole folder can forge it, so keep the head elsewhere too
//! where that matters.

mod digest;
mod entry;
mod event;
mod head;
mod log;
mod run_id;
mod verify;

pub use digest::{Digest, DigestHasher, ParseDigestError};
pub use entry::Entry;
pub use event::{Event, GateCheck, PluginRef};
pub use log::{AuditError, AuditLog, Entries, read};
pub use run_id::{ParseRunIdError, RunId};
pub use verify::{Fault, VerifyError, VerifyReport, verify};
