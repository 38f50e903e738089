//! Who signed a component: a C2SP signed note beside it, over what it is.
//!
//! The note is detached, so that signing changes neither the component nor its digest. It names the
//! digest, and with it everything inside; id, version and role stand there so that a person, or a
//! transparency log, can read what was signed.

use std::fmt::Write as _;

use sandcast_audit::{CertifiedSigner, LogKey, Note, NoteFault, VerifierKey};
use sandcast_sigstore::BundleFault;
use thiserror::Error;

mod identity;
mod operator;
mod rule;

pub use identity::{IdentityRule, verify_bundle};
pub use operator::{OperatorFile, OperatorFileError, sign_operator_file, verify_operator_file};
pub use rule::{RuleProblem, TrustRule};

use crate::inspect::Inspection;
use crate::manifest::Role;
use crate::text;

/// The first line of the text, so that what a key signed here means nothing elsewhere.
const HEADING: &str = "sandcast plugin signature v1";

/// What lies beside a component to say who signed it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signatures<'a> {
    /// The signed note, if there is one.
    pub note: Option<&'a str>,
    /// The Sigstore bundle, if there is one.
    pub bundle: Option<&'a str>,
}

/// Who signed a component, of those that rules of trust name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    /// The keys.
    pub keys: Vec<VerifierKey>,
    /// The identities, with what vouches for them.
    pub identities: Vec<CertifiedSigner>,
}

impl Signers {
    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.identities.is_empty()
    }

    /// Adds those that are not there yet.
    pub fn add(&mut self, others: Signers) {
        for key in others.keys {
            if !self.keys.contains(&key) {
                self.keys.push(key);
            }
        }
        for identity in others.identities {
            if !self.identities.contains(&identity) {
                self.identities.push(identity);
            }
        }
    }

    /// Each in a few words, for people.
    pub fn names(&self) -> Vec<String> {
        let keys = self.keys.iter().map(|key| key.name().to_owned());
        let identities = self.identities.iter().map(identity::named);
        keys.chain(identities).collect()
    }
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
    /// There is no bundle.
    #[error(
        "it has no Sigstore bundle; get its `.sigstore.json` file from the vendor, who makes it with \
         `cosign sign-blob --bundle`"
    )]
    NoBundle,
    /// There is neither a note nor a bundle.
    #[error(
        "it is not signed; get its `.sig` or `.sigstore.json` file from the vendor, or sign it with \
         `sandcast sign`"
    )]
    Unsigned,
    /// The bundle does not hold.
    #[error("its Sigstore bundle is refused: {0}")]
    Bundle(BundleFault),
    /// The root of trust of a rule is none.
    #[error("the root of trust of `trust.{role}.identities[{index}]` cannot be used: {what}")]
    Root {
        /// The role of the rule.
        role: Role,
        /// Which of its identities.
        index: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Nobody who is trusted for its role signed it.
    #[error(
        "nobody who may sign a {role} signed it; signed by {signer}. If that identity is to be \
         trusted, write it with its issuer under `trust.{role}.identities`"
    )]
    OtherIdentity {
        /// Its role.
        role: Role,
        /// Who did, and who issued that identity.
        signer: String,
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

/// Holds a component to the rule of its role: those of the rule that signed it, if one did. One of
/// the keys or one of the identities is enough.
///
/// A signature that was changed is refused even where none is required. One of a stranger is then
/// worth as much as none: who could add it could as well have left it out.
///
/// # Errors
/// When the rule refuses it.
pub fn check_trust(
    inspection: &Inspection,
    component: &[u8],
    signatures: Signatures<'_>,
    rule: Option<&TrustRule>,
) -> Result<Signers, SignatureError> {
    let Some(rule) = rule else {
        return Ok(Signers::default());
    };
    let mut signers = Signers::default();
    let mut lacking = Vec::new();
    if !rule.keys.is_empty() || rule.identities.is_empty() {
        match verify(inspection, signatures.note, &rule.keys) {
            Ok(keys) => signers.keys = keys,
            Err(error @ (SignatureError::Missing | SignatureError::OtherKey { .. })) => {
                lacking.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    if !rule.identities.is_empty() {
        let bundle = signatures.bundle;
        match verify_bundle(inspection.role, component, bundle, &rule.identities) {
            Ok(signer) => signers.identities.push(signer),
            Err(error @ (SignatureError::NoBundle | SignatureError::OtherIdentity { .. })) => {
                lacking.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    if !signers.is_empty() || !rule.required {
        return Ok(signers);
    }
    // Somebody else's signature tells more than that there is none.
    let is_absence = |error: &SignatureError| {
        matches!(error, SignatureError::Missing | SignatureError::NoBundle)
    };
    let both = lacking.len() > 1;
    let told = lacking.iter().find(|error| !is_absence(error)).cloned();
    Err(match told {
        Some(error) => error,
        None if both => SignatureError::Unsigned,
        None => lacking.pop().unwrap_or(SignatureError::Missing),
    })
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
