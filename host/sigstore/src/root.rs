//! The root of trust: certificate authorities, logs and timestamp authorities that are believed.

use sandcast_audit::Digest;
use sigstore_verify::Verifier;
use sigstore_verify::trust_root::TrustedRoot;
use thiserror::Error;

use crate::fault::clean;
use crate::ring;

/// The longest root of trust that is read; the public one has some 8 KiB.
pub const MAX_ROOT_BYTES: usize = 256 << 10;

/// What is believed, as a file `trusted_root.json` of Sigstore says it.
#[derive(Clone, Debug)]
pub struct TrustRoot {
    pub(crate) root: TrustedRoot,
    pub(crate) digest: Digest,
}

/// Why there is no root of trust.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RootFault {
    /// It is longer than any that is read.
    #[error("it is longer than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// It is not one.
    #[error("it is not a root of trust, a `trusted_root.json` of Sigstore: {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// Nothing could ever hold under it.
    #[error("it has no {what}, so nothing holds under it")]
    Empty {
        /// What it has none of.
        what: &'static str,
    },
}

impl TrustRoot {
    /// Reads a root of trust.
    ///
    /// # Errors
    /// If it is too long, is not one, has a key that cannot be used, or lacks a part without which
    /// no bundle would hold.
    pub fn parse(text: &str) -> Result<Self, RootFault> {
        if text.len() > MAX_ROOT_BYTES {
            return Err(RootFault::TooLarge {
                limit_bytes: MAX_ROOT_BYTES,
            });
        }
        ring::install();
        let malformed = |what: String| RootFault::Malformed { what: clean(&what) };
        let root = TrustedRoot::from_json(text).map_err(|error| malformed(error.to_string()))?;
        Verifier::new(&root).map_err(|error| malformed(error.to_string()))?;
        for (what, is_empty) in [
            (
                "certificate authority",
                root.certificate_authorities.is_empty(),
            ),
            ("certificate log", root.ctlogs.is_empty()),
            ("transparency log", root.tlogs.is_empty()),
        ] {
            if is_empty {
                return Err(RootFault::Empty { what });
            }
        }
        Ok(Self {
            root,
            digest: Digest::of(text.as_bytes()),
        })
    }

    /// The digest of its text.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}
