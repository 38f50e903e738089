//! Who signed the operator's ceiling: a C2SP signed note beside the file, over its bytes.
//!
//! The form and the keys are those of plugins; the heading is another, so that neither can be taken
//! for the other. What is signed is the file and not what it says, which a later host may read
//! differently.

use sandcast_audit::{Digest, LogKey, Note, VerifierKey};
use thiserror::Error;

use super::{Held, hold, signed};
use crate::text;

/// The first line of the text.
const HEADING: &str = "sandcast ceiling signature v1";

/// Why a ceiling is not the operator's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CeilingSignatureError {
    /// There is no signature.
    #[error("it is not signed; whoever has the key signs it with `sandcast sign --ceiling`")]
    Missing,
    /// What lies beside it is not the signature of a ceiling.
    #[error(
        "its `.sig` file is not the signature of a ceiling; sign it with `sandcast sign --ceiling`"
    )]
    Malformed,
    /// The signature is of another file.
    #[error(
        "it is not what was signed: that was {signed}, this is {found}; get the file again, or sign \
         this one with `sandcast sign --ceiling`"
    )]
    Changed {
        /// What was signed.
        signed: String,
        /// What it is.
        found: String,
    },
    /// A key that may sign it seems to have done so and did not.
    #[error("the signature of `{key}` does not fit: the `.sig` file was changed")]
    Forged {
        /// The name of the key.
        key: String,
    },
    /// None of the keys that may sign it did.
    #[error("none of the keys given with `--ceiling-key` signed it; signed by {signers}")]
    OtherKey {
        /// The names and hashes of those that did.
        signers: String,
    },
}

fn statement(file: &[u8]) -> String {
    format!("{HEADING}\ndigest {}\n", Digest::of(file))
}

/// Signs a ceiling file. What other keys signed of the same file in `earlier` stays.
pub fn sign_ceiling(file: &[u8], key: &LogKey, earlier: Option<&str>) -> String {
    signed(&statement(file), key, earlier)
}

/// Which of the keys signed a ceiling file: one at least.
///
/// # Errors
/// When there is no signature of one of them that holds.
pub fn verify_ceiling(
    file: &[u8],
    signature: Option<&str>,
    keys: &[VerifierKey],
) -> Result<Vec<VerifierKey>, CeilingSignatureError> {
    let signature = signature.ok_or(CeilingSignatureError::Missing)?;
    let note = Note::parse(signature).map_err(|_| CeilingSignatureError::Malformed)?;
    let statement = statement(file);
    if note.text != statement {
        let Some(signed) = note.text.strip_prefix(HEADING) else {
            return Err(CeilingSignatureError::Malformed);
        };
        return Err(CeilingSignatureError::Changed {
            signed: text::sentence(signed.trim(), 128),
            found: text::sentence(statement[HEADING.len()..].trim(), 128),
        });
    }
    let Held { signed, forged } = hold(&note, keys);
    if !signed.is_empty() {
        return Ok(signed);
    }
    Err(match forged {
        Some(key) => CeilingSignatureError::Forged { key },
        None => CeilingSignatureError::OtherKey {
            signers: text::sentence(&note.signers().join(", "), 512),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::configuring;
    use crate::{SignatureError, inspect};

    const FILE: &[u8] = b"version: 1\nplugins: {}\n";

    fn key(name: &str) -> LogKey {
        LogKey::generate(name).expect("random")
    }

    #[test]
    fn what_a_wanted_key_signed_is_taken_and_everything_else_is_not() {
        let (operator, other) = (key("operator.example"), key("other.example"));
        let keys = [other.verifier(), operator.verifier()];
        let note = sign_ceiling(FILE, &operator, None);
        assert_eq!(
            verify_ceiling(FILE, Some(&note), &keys),
            Ok(vec![operator.verifier()])
        );
        assert_eq!(
            verify_ceiling(FILE, None, &keys),
            Err(CeilingSignatureError::Missing)
        );
        let error = verify_ceiling(FILE, Some(&note), &keys[..1]).expect_err("another key");
        assert!(error.to_string().contains("operator.example ("), "{error}");
        assert!(matches!(
            verify_ceiling(b"version: 1\nplugins: { '*': {} }\n", Some(&note), &keys),
            Err(CeilingSignatureError::Changed { .. })
        ));
        let both = sign_ceiling(FILE, &other, Some(&note));
        assert_eq!(
            verify_ceiling(FILE, Some(&both), &keys),
            Ok(keys.to_vec()),
            "both signed"
        );
    }

    #[test]
    fn any_changed_character_of_the_signature_is_refused() {
        let operator = key("operator.example");
        let note = sign_ceiling(FILE, &operator, None);
        for place in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[place] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            let found = verify_ceiling(FILE, Some(&changed), &[operator.verifier()]);
            assert!(found.is_err(), "{changed}");
        }
    }

    #[test]
    fn neither_signature_is_taken_for_the_other() {
        let component = inspect(&configuring("")).expect("a component");
        let key = key("acme.example");
        let keys = [key.verifier()];
        let of_plugin = super::super::sign(&component, &key, None).expect("signed");
        assert_eq!(
            verify_ceiling(FILE, Some(&of_plugin), &keys),
            Err(CeilingSignatureError::Malformed)
        );
        let of_ceiling = sign_ceiling(FILE, &key, None);
        assert_eq!(
            super::super::verify(&component, Some(&of_ceiling), &keys),
            Err(SignatureError::Malformed)
        );
        // Not even for bytes that are the component's own.
        let of_bytes = sign_ceiling(&configuring(""), &key, None);
        assert_eq!(
            super::super::verify(&component, Some(&of_bytes), &keys),
            Err(SignatureError::Malformed)
        );
    }
}
