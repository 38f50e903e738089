//! Why a bundle does not say who signed a file.

use sigstore_verify::Error;
use thiserror::Error;

/// The characters of what a library says that are told on: some of it repeats the bundle.
const MAX_CHARACTERS: usize = 300;

/// Why a bundle does not say who signed a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BundleFault {
    /// It is longer than any that is read.
    #[error("it is longer than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// It is not a bundle.
    #[error("it is not a Sigstore bundle: {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// It is a bundle of a kind that is not taken.
    #[error("it is a bundle that is not taken here: {what}")]
    Unsupported {
        /// Why not.
        what: String,
    },
    /// The signature, or what was attested, is of another file.
    #[error("it is of another file, or one of the two was changed: {what}")]
    OtherFile {
        /// What does not fit.
        what: String,
    },
    /// The certificate does not hold.
    #[error("its certificate does not hold under the root of trust: {what}")]
    Certificate {
        /// Why not.
        what: String,
    },
    /// The entry of the transparency log does not hold.
    #[error("its entry in the transparency log does not hold under the root of trust: {what}")]
    Log {
        /// Why not.
        what: String,
    },
    /// No time of the signature is vouched for.
    #[error("no time of its signature is vouched for under the root of trust: {what}")]
    Time {
        /// Why not.
        what: String,
    },
}

impl BundleFault {
    pub(crate) fn of(error: &Error) -> Self {
        let what = clean(&error.to_string());
        match error {
            Error::SignatureInvalid(_) | Error::ArtifactMismatch(_) => Self::OtherFile { what },
            Error::Certificate(_)
            | Error::IdentityMismatch { .. }
            | Error::IssuerMismatch { .. }
            | Error::InvalidTrustRoot(_)
            | Error::TrustedCertificate(_) => Self::Certificate { what },
            Error::TransparencyLog(_) => Self::Log { what },
            Error::Timestamp(_) => Self::Time { what },
            Error::UnsupportedBundle(_) | Error::UnsupportedArtifact(_) => {
                Self::Unsupported { what }
            }
            _ => Self::Malformed { what },
        }
    }
}

/// A sentence of a library that may repeat what a stranger wrote, fit for one line.
pub(crate) fn clean(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(MAX_CHARACTERS)
        .collect();
    if text.chars().nth(MAX_CHARACTERS).is_some() {
        shown.push('…');
    }
    shown
}
