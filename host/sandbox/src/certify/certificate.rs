//! An examination that somebody signed.

use std::fmt::Write as _;

use sandcast_audit::{Digest, LogKey, Note, VerifierKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Examination;
use crate::inspect::Inspection;

/// The first line of what is signed, so that it means nothing elsewhere.
const HEADING: &str = "sandcast plugin certificate v1";

/// An examination, and who vouches for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// What was tried, and what it came to.
    pub examination: Examination,
    /// A C2SP signed note over the component and the examination; none where nobody signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Why a certificate says nothing of a component.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Nobody signed it.
    #[error("nobody signed the certificate; whoever examines signs with `--key`")]
    Unsigned,
    /// It is of another component.
    #[error("the certificate is of component {of}, and this is {found}")]
    OtherComponent {
        /// The component it is of.
        of: Digest,
        /// This one.
        found: Digest,
    },
    /// What was signed is not what it says.
    #[error("the certificate was changed: what was signed is not what it says")]
    Changed,
    /// No key that was given signed it.
    #[error("no key that was given signed the certificate; signed by {signers}")]
    OtherKey {
        /// Those that did, by name.
        signers: String,
    },
    /// A trial that matters was failed.
    #[error("the component did not pass: {failed}")]
    NotPassed {
        /// The trials that it failed.
        failed: String,
    },
}

impl Certificate {
    /// A certificate, signed where there is a key.
    pub fn new(examination: Examination, key: Option<&LogKey>) -> Self {
        let note = key.map(|key| key.sign(&statement(&examination)));
        Self { examination, note }
    }

    /// Holds it against a component and the keys of who may examine: the key that signed it.
    ///
    /// # Errors
    /// When it is of another component, was changed, was signed by nobody who may, or says that
    /// the component did not pass.
    pub fn check(
        &self,
        inspection: &Inspection,
        keys: &[VerifierKey],
    ) -> Result<VerifierKey, CertificateError> {
        let of = self.examination.plugin.digest;
        if of != inspection.digest {
            return Err(CertificateError::OtherComponent {
                of,
                found: inspection.digest,
            });
        }
        let note = self.note.as_deref().ok_or(CertificateError::Unsigned)?;
        let note = Note::parse(note).map_err(|_| CertificateError::Changed)?;
        if note.text != statement(&self.examination) {
            return Err(CertificateError::Changed);
        }
        let signer = keys.iter().find(|key| note.check(key).is_ok());
        let Some(signer) = signer else {
            return Err(CertificateError::OtherKey {
                signers: crate::text::sentence(&note.signers().join(", "), 512),
            });
        };
        if !self.examination.is_passed() {
            let failed = self.examination.trials.iter().filter(|trial| {
                trial.weight == super::Demand::Must && trial.verdict == super::Verdict::Failed
            });
            let failed: Vec<&str> = failed.map(|trial| trial.id.as_str()).collect();
            return Err(CertificateError::NotPassed {
                failed: failed.join(", "),
            });
        }
        Ok(signer.clone())
    }
}

/// What is signed: the component, and the digest of everything that was tried.
fn statement(examination: &Examination) -> String {
    let value = serde_json::to_value(examination).unwrap_or_default();
    let plugin = &examination.plugin;
    let mut statement = format!("{HEADING}\n");
    let is_line = |text: &str| !text.chars().any(char::is_control);
    for (what, value) in [
        ("digest", plugin.digest.to_string()),
        ("id", plugin.id.clone()),
        ("version", plugin.version.clone()),
        ("role", plugin.role.clone()),
        ("host", examination.host.clone()),
        ("trials", examination.trials_version.to_string()),
        ("examination", Digest::of_json(&value).to_string()),
        ("passed", examination.is_passed().to_string()),
    ] {
        // Writing to a String cannot fail. What is no line stands in the examination alone.
        if is_line(&value) {
            let _ = writeln!(statement, "{what} {value}");
        }
    }
    statement
}
