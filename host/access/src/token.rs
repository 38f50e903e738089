use std::fmt;
use std::str::FromStr;

use blake3::Hash;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::PrincipalId;

/// How a token begins, so that scanners for secrets know one.
const PREFIX: &str = "sct_";

/// Digits of the id, of the secret and of the checksum.
const DIGITS: [usize; 3] = [16, 64, 8];

/// What the hash at rest is made for; no other hash can be taken for it.
const HASH_CONTEXT: &str = "sandcast access 2026 token at rest";

/// What the checksum is made for.
const CHECKSUM_CONTEXT: &str = "sandcast access 2026 token checksum";

/// A bearer token: `sct_`, an id that is no secret, 256 random bits, and a checksum that tells a
/// mistyped one without a look at the store. It is shown once and never kept.
#[derive(Clone)]
pub struct Token {
    id: TokenId,
    secret: [u8; 32],
}

/// The part of a token that stands in lists and records.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(String);

impl TokenId {
    /// As it stands in records.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl FromStr for TokenId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Somebody who has only the token at hand must not be asked to put it on a command line.
        match text.len() == DIGITS[0] && is_hex(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(
                "that is no id of a token, which has 16 hexadecimal digits; `sandcast access \
                 tokens list` shows them"
                    .to_owned(),
            ),
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let mut id = [0; 8];
        let mut secret = [0; 32];
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Self {
            id: TokenId(hex(&id)),
            secret,
        })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// What is kept of it. The secret has 256 random bits, so there is nothing to guess and a slow
    /// hash for passwords would protect nothing more.
    pub(crate) fn hash(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key(HASH_CONTEXT);
        hasher.update(self.id.0.as_bytes());
        hasher.update(&self.secret);
        hasher.finalize()
    }

    /// The whole of it, for the one who will use it. Nothing else prints it.
    #[must_use]
    pub fn reveal(&self) -> String {
        let secret = hex(&self.secret);
        let checksum = checksum(&self.id.0, &secret);
        format!("{PREFIX}{}_{secret}_{checksum}", self.id.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Token({}, not shown)", self.id)
    }
}

impl FromStr for Token {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.strip_prefix(PREFIX).ok_or(())?;
        let mut parts = text.split('_');
        let mut part = |digits: usize| {
            let part = parts.next().ok_or(())?;
            match part.len() == digits && is_hex(part) {
                true => Ok(part),
                false => Err(()),
            }
        };
        let (id, secret, check) = (part(DIGITS[0])?, part(DIGITS[1])?, part(DIGITS[2])?);
        if parts.next().is_some() || checksum(id, secret) != check {
            return Err(());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(secret.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(drop)?;
            *byte = u8::from_str_radix(digits, 16).map_err(drop)?;
        }
        Ok(Self {
            id: TokenId(id.to_owned()),
            secret: bytes,
        })
    }
}

fn checksum(id: &str, secret: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(CHECKSUM_CONTEXT);
    hasher.update(id.as_bytes()).update(secret.as_bytes());
    let hash = hasher.finalize();
    hex(&hash.as_bytes()[..DIGITS[2] / 2])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The token.
    pub id: TokenId,
    /// Whose it is.
    pub principal: PrincipalId,
    /// Since when.
    pub created: Timestamp,
    /// Until when.
    pub expires: Timestamp,
    /// Since when it is no good any more, if somebody ended it.
    pub revoked: Option<Timestamp>,
    /// The token that takes its place, if there is one.
    pub replaced_by: Option<TokenId>,
    /// When it was used last; not more often than once a minute. Not part of the seal.
    #[serde(default, skip_deserializing)]
    pub last_used: Option<Timestamp>,
}

impl TokenRecord {
    /// The days that it was made for, begun ones counted as whole.
    #[must_use]
    pub fn days(&self) -> u16 {
        const DAY: i64 = 24 * 60 * 60;
        let seconds = self.expires.duration_since(self.created).as_secs();
        u16::try_from((seconds + DAY - 1) / DAY).unwrap_or(1).max(1)
    }
}

/// A token that was made just now, and what is kept of it.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token, to be shown once.
    pub token: Token,
    /// What is kept.
    pub record: TokenRecord,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_a_changed_digit_is_not() {
        let token = Token::generate().expect("random");
        let text = token.reveal();
        assert_eq!(text.len(), 4 + 16 + 1 + 64 + 1 + 8);
        let again: Token = text.parse().expect("a token");
        assert_eq!(again.hash(), token.hash());
        for place in 4..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).expect("text");
            assert!(changed.parse::<Token>().is_err(), "{place}");
        }
        for bad in ["", "sct_", "sct_ä_b_c", &text[1..], &format!("{text}_")] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_not_shown_by_accident() {
        let token = Token::generate().expect("random");
        let shown = format!("{token:?}");
        assert!(!shown.contains(&hex(&token.secret)), "{shown}");
        assert!(shown.contains(token.id().as_str()));
    }
}
