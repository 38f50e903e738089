use std::fmt;
use std::io;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The BLAKE3 hash of some content, 32 bytes; shown and stored as 64 lower-case hex characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// All zeros: what comes before the first entry of a chain.
    pub const ZERO: Self = Self([0; 32]);

    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a JSON value, however its keys are ordered: that of its canonical text, with
    /// keys sorted and no spaces.
    #[must_use]
    pub fn of_json(value: &serde_json::Value) -> Self {
        let mut text = String::new();
        crate::entry::write_canonical(value, &mut text);
        Self::of(text.as_bytes())
    }

    /// A digest from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hex characters, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }

    /// A hasher for content that comes in parts.
    #[must_use]
    pub fn hasher() -> DigestHasher {
        DigestHasher::default()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digest({self})")
    }
}

/// Text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is not a digest: 64 lower-case hex characters are wanted")]
pub struct ParseDigestError {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut seen = 0;
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let (high, low) = (NIBBLES[usize::from(*high)], NIBBLES[usize::from(*low)]);
            seen |= high | low;
            *byte = high << 4 | low;
        }
        if pairs.len() == bytes.len() && rest.is_empty() && seen <= 0xf {
            Ok(Self(bytes))
        } else {
            Err(ParseDigestError {
                text: text.chars().take(80).collect(),
            })
        }
    }
}

/// What each character is worth in hex; more than 15 where it is none. One spelling for each
/// digest: upper case would make two texts of one value. A table, because a log that is verified
/// has three in each line, and they would be a quarter of the time.
const NIBBLES: [u8; 256] = {
    let mut table = [u8::MAX; 256];
    let digits = b"0123456789abcdef";
    let mut value = 0;
    while value < digits.len() {
        table[digits[value] as usize] = value as u8;
        value += 1;
    }
    table
};

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromText)
    }
}

/// Reads the text in place: a log that is verified has two digests in each line.
struct FromText;

impl Visitor<'_> for FromText {
    type Value = Digest;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("64 lower-case hex characters")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
        text.parse().map_err(E::custom)
    }
}

impl JsonSchema for Digest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "BLAKE3, 32 bytes in lower-case hex",
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
        })
    }
}

/// Hashes content that comes in parts. It is also an [`io::Write`].
#[derive(Debug, Clone, Default)]
pub struct DigestHasher(blake3::Hasher);

impl DigestHasher {
    /// Adds bytes as they are.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// Adds bytes after their length, so that `("ab", "c")` and `("a", "bc")` differ.
    pub fn update_field(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.update(bytes)
    }

    /// The digest of everything so far.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl io::Write for DigestHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_text_and_json() {
        let digest = Digest::of(b"rows");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let json = serde_json::to_string(&digest).expect("a digest is JSON");
        assert_eq!(json.len(), 66);
        assert_eq!(
            serde_json::from_str::<Digest>(&json).expect("and back"),
            digest
        );
        assert!(digest.to_string().starts_with(&digest.short()));
    }

    #[test]
    fn upper_case_short_and_other_text_is_refused() {
        let digest = Digest::of(b"rows").to_string();
        for text in [
            digest.to_uppercase(),
            digest[1..].to_owned(),
            format!("{digest}0"),
            String::new(),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_json_value_has_one_digest_whatever_its_spelling() {
        let parse = |text| serde_json::from_str(text).expect("JSON");
        let one = Digest::of_json(&parse(r#"{"b": [1, {"d": 2, "c": 3}], "a": null}"#));
        assert_eq!(
            one,
            Digest::of_json(&parse(r#"{"a":null,"b":[1,{"c":3,"d":2}]}"#))
        );
        assert_ne!(
            one,
            Digest::of_json(&parse(r#"{"a":null,"b":[{"c":3,"d":2},1]}"#))
        );
    }

    #[test]
    fn fields_do_not_run_together() {
        let one = Digest::hasher()
            .update_field(b"ab")
            .update_field(b"c")
            .finish();
        let other = Digest::hasher()
            .update_field(b"a")
            .update_field(b"bc")
            .finish();
        assert_ne!(one, other);
        assert_eq!(
            Digest::hasher().update(b"ab").update(b"c").finish(),
            Digest::of(b"abc")
        );
    }
}
