//! Who signed a component: a C2SP signed note beside it, over what it is.
//!
//! The note is detached, so that signing changes neither the component nor its digest. It names the
//! digest, and with it everything inside; id, version and role stand there so that a person, or a
//! transparency log, can read what was signed.

use std::fmt::Write as _;

use sandcast_audit::{LogKey, Note, NoteFault, VerifierKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

mod ceiling;

pub use ceiling::{CeilingSignatureError, sign_ceiling, verify_ceiling};

use crate::inspect::Inspection;
use crate::manifest::Role;
use crate::text;

/// The first line of the text, so that what a key signed here means nothing elsewhere.
const HEADING: &str = "sandcast plugin signature v1";

/// Who may sign the plugins of a role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustRule {
    /// Whether plugins without a signature of one of the keys are refused.
    #[serde(default = "yes")]
    pub required: bool,
    /// The public keys, as `sandcast sign --new-key` prints them.
    pub keys: Vec<VerifierKey>,
}

fn yes() -> bool {
    true
}

/// Why a signature is not enough, or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// There is none.
    #[error(
        "it is not signed; get its `.sig` file from the vendor, or sign it with `sandcast sign`"
    )]
    Missing,
    /// What lies beside it is not a signature.
    #[error("its `.sig` file is not a signed note; get it again from the vendor")]
    Malformed,
    /// The signature is of another component.
    #[error(
        "its `.sig` file is of another component: that one was signed with {signed}, this one has \
         {found}; one of the two files was changed or mixed up"
    )]
    OtherComponent {
        /// What was signed.
        signed: String,
        /// What it is.
        found: String,
    },
    /// A key that is trusted seems to have signed it and did not.
    #[error("the signature of `{key}` does not fit: the `.sig` file was changed")]
    Forged {
        /// The name of the key.
        key: String,
    },
    /// No key that is trusted for its role signed it.
    #[error(
        "no key that may sign a {role} signed it; signed by {signers}. If that key is to be \
         trusted, write it under `trust.{role}.keys`"
    )]
    OtherKey {
        /// Its role.
        role: Role,
        /// The names and hashes of those that did.
        signers: String,
    },
    /// A component whose version could be read as another line.
    #[error("its version `{version}` has characters that cannot be signed")]
    Unsignable {
        /// The version, made fit to be shown.
        version: String,
    },
}

/// What is signed of a component.
fn statement(inspection: &Inspection) -> Result<String, SignatureError> {
    let version = &inspection.manifest.version;
    if version.chars().any(char::is_control) {
        return Err(SignatureError::Unsignable {
            version: text::sentence(version, 128),
        });
    }
    let mut statement = format!("{HEADING}\n");
    for (what, value) in [
        ("digest", inspection.digest.to_string()),
        ("id", inspection.manifest.id.clone()),
        ("version", version.clone()),
        ("role", inspection.role.to_string()),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(statement, "{what} {value}");
    }
    Ok(statement)
}

/// Signs a component. What other keys signed of the same component in `earlier` stays.
///
/// # Errors
/// When the component cannot be signed.
pub fn sign(
    inspection: &Inspection,
    key: &LogKey,
    earlier: Option<&str>,
) -> Result<String, SignatureError> {
    Ok(signed(&statement(inspection)?, key, earlier))
}

/// A statement with the signature of a key, and with those that others made of it in `earlier`.
fn signed(statement: &str, key: &LogKey, earlier: Option<&str>) -> String {
    let note = key.sign(statement);
    let Some(earlier) = earlier else {
        return note;
    };
    if !Note::parse(earlier).is_ok_and(|parsed| parsed.text == statement) {
        return note;
    }
    // The lines of others, and then the new one.
    let own = key.verifier();
    let Some((_, lines)) = earlier.rsplit_once("\n\n") else {
        return note;
    };
    let by_others = lines.lines().filter(|line| {
        let alone = Note::parse(&format!("{statement}\n{line}\n"));
        alone.is_ok_and(|alone| {
            let signer = format!("{} ({:08x})", own.name(), own.hash());
            !alone.signers().contains(&signer)
        })
    });
    let mut merged = format!("{statement}\n");
    for line in by_others {
        // Writing to a String cannot fail.
        let _ = writeln!(merged, "{line}");
    }
    let (_, line) = note.rsplit_once("\n\n").unwrap_or_default();
    merged.push_str(line);
    merged
}

/// Who says they signed a component, by name and hash. That the note is of this component is
/// checked, the signatures are not: for that a key is needed.
///
/// # Errors
/// When it is no signed note, or one of another component.
pub fn signers(inspection: &Inspection, signature: &str) -> Result<Vec<String>, SignatureError> {
    Ok(note_of(inspection, signature)?.signers())
}

/// Which of the keys signed a component: one at least.
///
/// # Errors
/// When there is no signature of one of them that holds.
pub fn verify(
    inspection: &Inspection,
    signature: Option<&str>,
    keys: &[VerifierKey],
) -> Result<Vec<VerifierKey>, SignatureError> {
    let signature = signature.ok_or(SignatureError::Missing)?;
    let note = note_of(inspection, signature)?;
    let Held { signed, forged } = hold(&note, keys);
    if !signed.is_empty() {
        return Ok(signed);
    }
    Err(match forged {
        Some(key) => SignatureError::Forged { key },
        None => SignatureError::OtherKey {
            role: inspection.role,
            signers: text::sentence(&note.signers().join(", "), 512),
        },
    })
}

/// What keys have to do with a note.
struct Held {
    /// Those that signed it.
    signed: Vec<VerifierKey>,
    /// The name of one whose signature is there and does not fit.
    forged: Option<String>,
}

fn hold(note: &Note, keys: &[VerifierKey]) -> Held {
    let mut held = Held {
        signed: Vec::new(),
        forged: None,
    };
    for key in keys {
        match note.check(key) {
            Ok(()) if held.signed.contains(key) => {}
            Ok(()) => held.signed.push(key.clone()),
            Err(NoteFault::OtherKey { .. }) => {}
            Err(NoteFault::Malformed | NoteFault::Signature) => {
                held.forged.get_or_insert_with(|| key.name().to_owned());
            }
        }
    }
    held
}

/// Holds a component to the rule of its role: the keys of the rule that signed it, if one did.
///
/// A signature that was changed is refused even where none is required. One of a stranger is then
/// worth as much as none: who could add it could as well have left it out.
///
/// # Errors
/// When the rule refuses it.
pub fn check_trust(
    inspection: &Inspection,
    signature: Option<&str>,
    rule: Option<&TrustRule>,
) -> Result<Vec<VerifierKey>, SignatureError> {
    let Some(rule) = rule else {
        return Ok(Vec::new());
    };
    match verify(inspection, signature, &rule.keys) {
        Err(SignatureError::Missing | SignatureError::OtherKey { .. }) if !rule.required => {
            Ok(Vec::new())
        }
        outcome => outcome,
    }
}

fn note_of(inspection: &Inspection, signature: &str) -> Result<Note, SignatureError> {
    let note = Note::parse(signature).map_err(|_| SignatureError::Malformed)?;
    let statement = statement(inspection)?;
    if note.text == statement {
        return Ok(note);
    }
    let (mut signed, mut found) = (note.text.lines(), statement.lines());
    if signed.next() != found.next() {
        return Err(SignatureError::Malformed);
    }
    // The first line that differs tells the most.
    let differs = found.zip(signed).find(|(found, signed)| found != signed);
    let (found, signed) = differs.unwrap_or_default();
    Err(SignatureError::OtherComponent {
        signed: text::sentence(signed, 256),
        found: text::sentence(found, 256),
    })
}

#[cfg(test)]
mod tests;
