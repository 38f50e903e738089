//! Who signed a file of the operator's, the ceiling or the rules of trust: a C2SP signed note beside the
//! file, over its bytes.
//!
//! The form and the keys are those of plugins; each kind of file has a heading of its own, so that none
//! can be taken for another. What is signed is the file and not what it says, which a later host may read
//! differently.

use sandcast_audit::{Digest, LogKey, Note, VerifierKey};
use thiserror::Error;

use super::{Held, hold, signed};
use crate::text;

/// A kind of file of the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorFile {
    /// What pipelines may grant at most.
    Ceiling,
    /// Who may sign plugins.
    Trust,
}

impl OperatorFile {
    /// The option of commands that names the file; with `-key` behind it, who must have signed it.
    pub fn option(self) -> &'static str {
        match self {
            Self::Ceiling => "--ceiling",
            Self::Trust => "--trust",
        }
    }

    /// What it is.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Trust => "rules of trust",
        }
    }

    /// The first line of what is signed.
    fn heading(self) -> &'static str {
        match self {
            Self::Ceiling => "sandcast ceiling signature v1",
            Self::Trust => "sandcast trust signature v1",
        }
    }

    fn of_it(self) -> &'static str {
        match self {
            Self::Ceiling => "a ceiling",
            Self::Trust => "rules of trust",
        }
    }

    fn statement(self, file: &[u8]) -> String {
        format!("{}\ndigest {}\n", self.heading(), Digest::of(file))
    }
}

/// Why a file is not the operator's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OperatorFileError {
    /// There is no signature.
    #[error("it is not signed; whoever has the key signs it with `sandcast sign {}`", kind.option())]
    Missing {
        /// The kind of file.
        kind: OperatorFile,
    },
    /// What lies beside it is not the signature of such a file.
    #[error(
        "its `.sig` file is not the signature of {}; sign it with `sandcast sign {}`",
        kind.of_it(),
        kind.option()
    )]
    Malformed {
        /// The kind of file.
        kind: OperatorFile,
    },
    /// The signature is of another file.
    #[error(
        "it is not what was signed: that was {signed}, this is {found}; get the file again, or sign \
         this one with `sandcast sign {}`",
        kind.option()
    )]
    Changed {
        /// The kind of file.
        kind: OperatorFile,
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
    #[error("none of the keys given with `{}-key` signed it; signed by {signers}", kind.option())]
    OtherKey {
        /// The kind of file.
        kind: OperatorFile,
        /// The names and hashes of those that did.
        signers: String,
    },
}

/// Signs a file. What other keys signed of the same file in `earlier` stays.
pub fn sign_operator_file(
    kind: OperatorFile,
    file: &[u8],
    key: &LogKey,
    earlier: Option<&str>,
) -> String {
    signed(&kind.statement(file), key, earlier)
}

/// Which of the keys signed a file: one at least.
///
/// # Errors
/// When there is no signature of one of them that holds.
pub fn verify_operator_file(
    kind: OperatorFile,
    file: &[u8],
    signature: Option<&str>,
    keys: &[VerifierKey],
) -> Result<Vec<VerifierKey>, OperatorFileError> {
    let signature = signature.ok_or(OperatorFileError::Missing { kind })?;
    let note = Note::parse(signature).map_err(|_| OperatorFileError::Malformed { kind })?;
    let statement = kind.statement(file);
    if note.text != statement {
        let heading = kind.heading();
        let Some(signed) = note.text.strip_prefix(heading) else {
            return Err(OperatorFileError::Malformed { kind });
        };
        return Err(OperatorFileError::Changed {
            kind,
            signed: text::sentence(signed.trim(), 128),
            found: text::sentence(statement[heading.len()..].trim(), 128),
        });
    }
    let Held { signed, forged } = hold(&note, keys);
    if !signed.is_empty() {
        return Ok(signed);
    }
    Err(match forged {
        Some(key) => OperatorFileError::Forged { key },
        None => OperatorFileError::OtherKey {
            kind,
            signers: text::sentence(&note.signers().join(", "), 512),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::configuring;
    use crate::{SignatureError, inspect};

    const KIND: OperatorFile = OperatorFile::Ceiling;
    const FILE: &[u8] = b"version: 1\nplugins: {}\n";

    fn key(name: &str) -> LogKey {
        LogKey::generate(name).expect("random")
    }

    #[test]
    fn what_a_wanted_key_signed_is_taken_and_everything_else_is_not() {
        let (operator, other) = (key("operator.example"), key("other.example"));
        let keys = [other.verifier(), operator.verifier()];
        let note = sign_operator_file(KIND, FILE, &operator, None);
        assert_eq!(
            verify_operator_file(KIND, FILE, Some(&note), &keys),
            Ok(vec![operator.verifier()])
        );
        assert_eq!(
            verify_operator_file(KIND, FILE, None, &keys),
            Err(OperatorFileError::Missing { kind: KIND })
        );
        let error =
            verify_operator_file(KIND, FILE, Some(&note), &keys[..1]).expect_err("another key");
        assert!(error.to_string().contains("operator.example ("), "{error}");
        assert!(matches!(
            verify_operator_file(
                KIND,
                b"version: 1\nplugins: { '*': {} }\n",
                Some(&note),
                &keys
            ),
            Err(OperatorFileError::Changed { .. })
        ));
        let both = sign_operator_file(KIND, FILE, &other, Some(&note));
        assert_eq!(
            verify_operator_file(KIND, FILE, Some(&both), &keys),
            Ok(keys.to_vec()),
            "both signed"
        );
    }

    #[test]
    fn any_changed_character_of_the_signature_is_refused() {
        let operator = key("operator.example");
        let note = sign_operator_file(KIND, FILE, &operator, None);
        for place in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[place] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            let found = verify_operator_file(KIND, FILE, Some(&changed), &[operator.verifier()]);
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
            verify_operator_file(KIND, FILE, Some(&of_plugin), &keys),
            Err(OperatorFileError::Malformed { kind: KIND })
        );
        let of_ceiling = sign_operator_file(KIND, FILE, &key, None);
        assert_eq!(
            super::super::verify(&component, Some(&of_ceiling), &keys),
            Err(SignatureError::Malformed)
        );
        // Nor that of one kind of file for the other's.
        assert_eq!(
            verify_operator_file(OperatorFile::Trust, FILE, Some(&of_ceiling), &keys),
            Err(OperatorFileError::Malformed {
                kind: OperatorFile::Trust
            })
        );
        // Not even for bytes that are the component's own.
        let of_bytes = sign_operator_file(KIND, &configuring(""), &key, None);
        assert_eq!(
            super::super::verify(&component, Some(&of_bytes), &keys),
            Err(SignatureError::Malformed)
        );
    }
}
