//! Signed notes and the keys that sign them, as C2SP `signed-note` has them
//! (<https://c2sp.org/signed-note>), with Ed25519 signatures.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The byte that says Ed25519 in keys and their hashes.
const ED25519: u8 = 1;
/// What a line of a signature begins with: an em dash and a space.
const SIGNATURE_START: &str = "\u{2014} ";
/// Longer notes than this are refused before anything of them is looked at.
const MAX_NOTE_BYTES: usize = 1 << 20;

/// A public key with the name of the log it signs for. Its text, the `vkey` of C2SP, is
/// `name+hash+key`: the key's hash in hex, and 0x01 and the key in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    /// As it is written: the point of the curve is six times as large, and in every event.
    key: [u8; 32],
}

impl VerifierKey {
    /// The name of the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256(name || "\n" || 0x01 || key), big-endian.
    #[must_use]
    pub fn hash(&self) -> u32 {
        let digest = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', ED25519])
            .chain_update(self.key)
            .finalize();
        let mut hash = [0; 4];
        hash.copy_from_slice(&digest[..4]);
        u32::from_be_bytes(hash)
    }

    /// Whether it signed these bytes. Strict: one signature for bytes and a key, whoever checks it
    /// (RFC 8032 section 5.1.7 leaves that open).
    pub(crate) fn has_signed(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.key)
            .and_then(|point| point.verify_strict(bytes, &Signature::from_bytes(signature)))
            .is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = encode_key(&self.key);
        write!(formatter, "{}+{:08x}+{key}", self.name, self.hash())
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "VerifierKey({self})")
    }
}

impl Serialize for VerifierKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VerifierKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for VerifierKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "VerifierKey".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A public key in the form of C2SP signed-note: name, hash and key",
            "type": "string",
            "pattern": "^[^ +]+\\+[0-9a-f]{8}\\+[A-Za-z0-9+/]+=*$",
        })
    }
}

fn encode_key(key: &[u8; 32]) -> String {
    let mut bytes = [ED25519; 33];
    bytes[1..].copy_from_slice(key);
    STANDARD.encode(bytes)
}

/// Text that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseKeyError {
    /// It does not have the parts of a key.
    #[error(
        "this is not a {kind} key: one looks like {example}; `sandcast audit key show` prints the public key"
    )]
    Form {
        /// `public` or `private`.
        kind: &'static str,
        /// What one looks like.
        example: &'static str,
    },
    /// Its hash is not that of its name and key: a character of it was changed or lost.
    #[error(
        "the key of `{name}` was damaged: its hash does not fit its name and key; copy it again, whole"
    )]
    Hash {
        /// The name in it.
        name: String,
    },
}

const NOT_PUBLIC: ParseKeyError = ParseKeyError::Form {
    kind: "public",
    example: "sandcast/0a1b2c3d+1f2e3d4c+AQ…",
};
const NOT_PRIVATE: ParseKeyError = ParseKeyError::Form {
    kind: "private",
    example: "PRIVATE+KEY+sandcast/0a1b2c3d+1f2e3d4c+AQ…",
};

/// The name, the hash and the 32 bytes of a key's text; for base64 has `+`, only twice.
fn parse_key(text: &str) -> Option<(&str, &str, [u8; 32])> {
    let (name, rest) = text.split_once('+')?;
    let (hash, key) = rest.split_once('+')?;
    let bytes = STANDARD.decode(key).ok()?;
    let (algorithm, key) = bytes.split_first()?;
    let is_hash = hash.len() == 8
        && hash
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_name(name) && is_hash && *algorithm == ED25519).then_some((
        name,
        hash,
        key.try_into().ok()?,
    ))
}

/// Whether a text may name a key: no spaces, no plus, and nothing that JSON would escape.
fn is_name(text: &str) -> bool {
    let is_odd = |letter: char| {
        letter.is_whitespace() || letter.is_control() || matches!(letter, '+' | '"' | '\\')
    };
    !text.is_empty() && !text.contains(is_odd)
}

impl FromStr for VerifierKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, hash, key) = parse_key(text).ok_or(NOT_PUBLIC)?;
        let point = VerifyingKey::from_bytes(&key).map_err(|_| NOT_PUBLIC)?;
        // With a key of small order almost anything is a signature.
        if point.is_weak() {
            return Err(NOT_PUBLIC);
        }
        let name = name.to_owned();
        let parsed = Self { name, key };
        if format!("{:08x}", parsed.hash()) == hash {
            Ok(parsed)
        } else {
            Err(ParseKeyError::Hash { name: parsed.name })
        }
    }
}

/// A private key with the name of the log, or of the vendor, that it signs for. It is not `Display`,
/// and its `Debug` has the public half alone, so that it does not get into a message; its memory is
/// wiped when it is dropped.
pub struct LogKey {
    name: String,
    key: SigningKey,
}

impl fmt::Debug for LogKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LogKey(of {})", self.verifier())
    }
}

impl LogKey {
    /// A new key from the system's randomness.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate(name: &str) -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self {
            name: name.to_owned(),
            key: SigningKey::from_bytes(&seed),
        })
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey {
            name: self.name.clone(),
            key: self.key.verifying_key().to_bytes(),
        }
    }

    /// The text to keep it as: what golang.org/x/mod/sumdb/note reads as a signer.
    pub(crate) fn to_text(&self) -> String {
        let key = encode_key(self.key.as_bytes());
        let hash = self.verifier().hash();
        format!("PRIVATE+KEY+{}+{hash:08x}+{key}\n", self.name)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, ParseKeyError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let rest = text.strip_prefix("PRIVATE+KEY+").ok_or(NOT_PRIVATE)?;
        let (name, hash, key) = parse_key(rest).ok_or(NOT_PRIVATE)?;
        let parsed = Self {
            name: name.to_owned(),
            key: SigningKey::from_bytes(&key),
        };
        if format!("{:08x}", parsed.verifier().hash()) == hash {
            Ok(parsed)
        } else {
            Err(ParseKeyError::Hash { name: parsed.name })
        }
    }

    /// The signature of bytes that say themselves what they are for.
    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }

    /// The note with this text, which ends in a newline, and one signature.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let mut signature = [0; 68];
        signature[..4].copy_from_slice(&self.verifier().hash().to_be_bytes());
        signature[4..].copy_from_slice(&self.key.sign(text.as_bytes()).to_bytes());
        let signature = STANDARD.encode(signature);
        format!("{text}\n{SIGNATURE_START}{} {signature}\n", self.name)
    }
}

/// What is wrong with a note.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoteFault {
    /// It is not a signed note.
    #[error("this is not a signed note")]
    Malformed,
    /// The wanted key did not sign it.
    #[error(
        "the key in force did not sign this; signed by {}",
        if signers.is_empty() { "nobody" } else { signers }
    )]
    OtherKey {
        /// The names and hashes of those that did, if they did.
        signers: String,
    },
    /// There is a signature of the key's name and hash, and it does not fit.
    #[error("the signature does not fit the text: one of the two was changed")]
    Signature,
}

/// A note, taken apart; nothing of it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// With its last newline, without the empty line.
    pub text: String,
    signatures: Vec<(String, u32, [u8; 64])>,
}

impl Note {
    /// Takes a note apart.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(note: &str) -> Result<Self, NoteFault> {
        let is_control = |letter: char| letter < ' ' && letter != '\n';
        if note.len() > MAX_NOTE_BYTES || note.contains(is_control) || !note.ends_with('\n') {
            return Err(NoteFault::Malformed);
        }
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteFault::Malformed)?;
        if text.is_empty() || signatures.is_empty() {
            return Err(NoteFault::Malformed);
        }
        let signatures = signatures
            .lines()
            .map(|line| {
                let (name, signature) = line.strip_prefix(SIGNATURE_START)?.split_once(' ')?;
                let bytes = STANDARD.decode(signature).ok()?;
                let (hash, signature) = bytes.split_first_chunk::<4>()?;
                // Signatures of other algorithms, such as those of a witness, are passed over.
                let signature = signature.try_into().unwrap_or([0; 64]);
                is_name(name).then(|| (name.to_owned(), u32::from_be_bytes(*hash), signature))
            })
            .collect::<Option<Vec<_>>>()
            .ok_or(NoteFault::Malformed)?;
        Ok(Self {
            text: format!("{text}\n"),
            signatures,
        })
    }

    /// The names and hashes of the keys that say they signed it. Nothing of that is checked.
    #[must_use]
    pub fn signers(&self) -> Vec<String> {
        self.signatures
            .iter()
            .map(|(name, hash, _)| format!("{name} ({hash:08x})"))
            .collect()
    }

    /// Checks that this key signed the text.
    ///
    /// # Errors
    /// When it did not, or what it signed was another text.
    pub fn check(&self, key: &VerifierKey) -> Result<(), NoteFault> {
        let hash = key.hash();
        let mut of_key = self
            .signatures
            .iter()
            .filter(|(name, other, _)| *name == key.name && *other == hash)
            .map(|(_, _, signature)| signature);
        let Some(signature) = of_key.next() else {
            return Err(NoteFault::OtherKey {
                signers: self.signers().join(", "),
            });
        };
        let is_only = of_key.next().is_none();
        if is_only && key.has_signed(self.text.as_bytes(), signature) {
            Ok(())
        } else {
            Err(NoteFault::Signature)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of golang.org/x/mod/sumdb/note and of C2SP `signed-note`.
    const PETER: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const PETER_PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                        then you don't know what your problem is.\n";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn the_published_example_is_signed_and_checked_byte_for_byte() {
        let key = LogKey::parse(PETER).expect("a key");
        assert_eq!(key.verifier().to_string(), PETER_PUBLIC);
        assert_eq!(key.to_text(), format!("{PETER}\n"));
        assert_eq!(key.sign(TEXT), NOTE);
        let public: VerifierKey = PETER_PUBLIC.parse().expect("a public key");
        let note = Note::parse(NOTE).expect("a note");
        assert_eq!(note.text, TEXT);
        assert_eq!(note.check(&public), Ok(()));
    }

    #[test]
    fn any_other_character_of_a_key_is_refused() {
        for place in 0..PETER_PUBLIC.len() {
            let mut text = PETER_PUBLIC.to_owned();
            let other = if &text[place..=place] == "A" {
                "B"
            } else {
                "A"
            };
            text.replace_range(place..=place, other);
            assert!(text.parse::<VerifierKey>().is_err(), "{text}");
        }
        assert_eq!(LogKey::parse(PETER_PUBLIC).err(), Some(NOT_PRIVATE));
        assert_eq!("".parse::<VerifierKey>(), Err(NOT_PUBLIC));
    }

    #[test]
    fn any_changed_bit_of_a_note_is_found() {
        let public: VerifierKey = PETER_PUBLIC.parse().expect("a public key");
        for place in 0..NOTE.len() * 8 {
            let mut bytes = NOTE.as_bytes().to_vec();
            bytes[place / 8] ^= 1 << (place % 8);
            let found = String::from_utf8(bytes)
                .ok()
                .and_then(|text| Note::parse(&text).ok())
                .map(|note| note.check(&public));
            assert_ne!(found, Some(Ok(())), "bit {place}");
        }
    }

    #[test]
    fn a_witness_may_sign_too_and_nobody_else_for_the_log() {
        let public: VerifierKey = PETER_PUBLIC.parse().expect("a public key");
        let witness = LogKey::generate("witness.example").expect("random");
        let line = witness
            .sign(TEXT)
            .rsplit_once("\n\n")
            .expect("parts")
            .1
            .to_owned();
        let note = Note::parse(&format!("{NOTE}{line}")).expect("a note");
        assert_eq!(note.check(&public), Ok(()));
        assert_eq!(note.check(&witness.verifier()), Ok(()));
        let other = LogKey::generate("PeterNeumann").expect("random");
        let fault = note.check(&other.verifier()).expect_err("another key");
        assert!(
            fault
                .to_string()
                .contains("PeterNeumann (c74f20a3), witness.example"),
            "{fault}"
        );
    }
}
