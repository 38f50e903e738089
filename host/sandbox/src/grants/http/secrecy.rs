//! A credential that a server sends back is held back: the guest gets no answer that repeats it.

use bytes::Bytes;
use http::HeaderMap;

use crate::grants::secrets::Secret;

/// Bytes from which on a secret is looked for. What is shorter stands in many an answer by chance.
const SHORTEST: usize = 8;

/// Looks for a secret in what goes by, however it is cut into pieces (Knuth, Morris and Pratt). What
/// could be its beginning is held back until more is known.
pub(super) struct Seeker {
    secret: Secret,
    /// For each number of bytes that fit: how many fit if the next one does not.
    shorter: Vec<usize>,
    /// Bytes of the secret that what went by ends with, and that are held back.
    fit: usize,
}

/// The secret was there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated;

impl Seeker {
    /// None for a secret that is too short to be looked for.
    pub(super) fn of(secret: Secret) -> Option<Self> {
        let bytes = secret.bytes();
        if bytes.len() < SHORTEST {
            return None;
        }
        let mut shorter = vec![0; bytes.len()];
        let mut fit = 0;
        for (place, byte) in bytes.iter().enumerate().skip(1) {
            while fit > 0 && bytes[fit] != *byte {
                fit = shorter[fit - 1];
            }
            fit += usize::from(bytes[fit] == *byte);
            shorter[place] = fit;
        }
        Some(Self {
            secret,
            shorter,
            fit: 0,
        })
    }

    /// Whether it is in a name or a value of fields.
    pub(super) fn is_in(&self, fields: &HeaderMap) -> bool {
        let secret = self.secret.bytes();
        fields.iter().any(|(name, value)| {
            // Names come in lower case, whatever was sent.
            let lower = secret.to_ascii_lowercase();
            holds(name.as_str().as_bytes(), &lower) || holds(value.as_bytes(), secret)
        })
    }

    /// What may be handed on of what was held back and the next piece.
    pub(super) fn pass(&mut self, piece: Bytes) -> Result<Bytes, Repeated> {
        let secret = self.secret.bytes();
        let held = self.fit;
        for byte in &piece {
            while self.fit > 0 && secret[self.fit] != *byte {
                self.fit = self.shorter[self.fit - 1];
            }
            self.fit += usize::from(secret[self.fit] == *byte);
            if self.fit == secret.len() {
                self.fit = 0;
                return Err(Repeated);
            }
        }
        if (held, self.fit) == (0, 0) {
            return Ok(piece);
        }
        let mut passed = secret[..held].to_vec();
        passed.extend_from_slice(&piece);
        passed.truncate(passed.len() - self.fit);
        Ok(passed.into())
    }

    /// What was held back and turns out to be nothing.
    pub(super) fn end(&mut self) -> Bytes {
        let held = std::mem::take(&mut self.fit);
        Bytes::copy_from_slice(&self.secret.bytes()[..held])
    }
}

/// Whether one text is in another.
fn holds(text: &[u8], sought: &[u8]) -> bool {
    text.windows(sought.len()).any(|part| part == sought)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seeker(secret: &[u8]) -> Seeker {
        Seeker::of(Secret::of(secret)).expect("it is long enough")
    }

    /// What a guest gets of pieces, and whether it was broken off.
    fn passed(secret: &[u8], pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut seeker = seeker(secret);
        let mut got = Vec::new();
        for piece in pieces {
            match seeker.pass(Bytes::copy_from_slice(piece)) {
                Ok(bytes) => got.extend_from_slice(&bytes),
                Err(Repeated) => return (got, true),
            }
        }
        got.extend_from_slice(&seeker.end());
        (got, false)
    }

    #[test]
    fn nothing_of_it_is_handed_on_however_it_is_cut() {
        let secret = b"ababababc";
        for cut in 0..=secret.len() {
            let (first, second) = secret.split_at(cut);
            let (got, is_broken_off) = passed(secret, &[b"it is ", first, second, b" indeed"]);
            assert!(is_broken_off, "{cut}");
            assert_eq!(got, b"it is ", "{cut}");
        }
        let (got, is_broken_off) = passed(secret, &[b"abababab", b"ababc"]);
        assert!(is_broken_off, "it begins within what was held back");
        assert_eq!(got, b"");
        assert_eq!(
            passed(secret, &[b"ababab", b"ab"]),
            (b"abababab".to_vec(), false)
        );
    }

    #[test]
    fn fields_are_looked_at_too_and_what_is_short_is_not_looked_for() {
        let seeker = seeker(b"S3cret-token");
        let fields = |name: &'static str, value: &'static str| {
            let mut fields = HeaderMap::new();
            let value = http::HeaderValue::from_static(value);
            fields.append(http::HeaderName::from_static(name), value);
            fields
        };
        assert!(seeker.is_in(&fields("x-you-sent", "Bearer S3cret-token!")));
        assert!(seeker.is_in(&fields("s3cret-token", "")));
        assert!(!seeker.is_in(&fields("x-you-sent", "Bearer S3cret-toke")));
        assert!(Seeker::of(Secret::of(b"1234567")).is_none());
    }

    proptest! {
        #[test]
        fn what_does_not_hold_it_comes_through_whole(
            pieces in proptest::collection::vec("[ab]{0,12}", 0..12),
            secret in "[ab]{8,10}",
        ) {
            let all = pieces.concat();
            let bytes: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            let (got, is_broken_off) = passed(secret.as_bytes(), &bytes);
            prop_assert_eq!(is_broken_off, all.contains(&secret));
            match all.find(&secret) {
                None => prop_assert_eq!(got, all.into_bytes()),
                // All before it, or less: never a byte of it.
                Some(place) => prop_assert!(all.as_bytes()[..place].starts_with(&got)),
            }
        }
    }
}
