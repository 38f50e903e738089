//! Texts as numbers and back. Token 0 is the end of a text, whatever the others are.

use std::borrow::Cow;

use sandcast_sdk::Failure;
use serde::{Deserialize, Serialize};

mod byte_pairs;
mod characters;

pub(crate) use byte_pairs::BytePairs;
pub(crate) use characters::Characters;

use crate::hyperparameters::{Hyperparameters, TokenizerKind};

/// The end of a text. It also stands before the first token of one.
pub(crate) const END: u32 = 0;

/// How texts become tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Tokenizer {
    /// A character is a token.
    Characters(Characters),
    /// Bytes and pairs of them.
    BytePairs(BytePairs),
}

impl Tokenizer {
    /// Learns from texts.
    pub(crate) fn learn<'t>(
        texts: impl Iterator<Item = &'t str>,
        hyperparameters: &Hyperparameters,
    ) -> Self {
        let size = hyperparameters.vocabulary_size;
        match hyperparameters.tokenizer {
            TokenizerKind::Characters => Self::Characters(Characters::learn(texts, size)),
            TokenizerKind::BytePairs => Self::BytePairs(BytePairs::learn(texts, size)),
        }
    }

    /// Checks one that was read from a file.
    ///
    /// # Errors
    /// `invalid-input` where it is none.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Characters(_) => Ok(()),
            Self::BytePairs(pairs) => pairs.check(),
        }
    }

    /// How many tokens there are, the end of a text among them.
    pub(crate) fn vocabulary(&self) -> u32 {
        match self {
            Self::Characters(characters) => characters.vocabulary(),
            Self::BytePairs(pairs) => pairs.vocabulary(),
        }
    }

    /// A token that stands for many texts, so that it cannot be written.
    pub(crate) fn unwritable(&self) -> Option<u32> {
        match self {
            Self::Characters(_) => Some(characters::UNKNOWN),
            Self::BytePairs(_) => None,
        }
    }

    /// What a token leaves open, in nats: a text is not told by a token that stands for many.
    pub(crate) fn open(&self, token: u32) -> f64 {
        match self {
            Self::Characters(characters) if token == characters::UNKNOWN => characters.open(),
            _ => 0.0,
        }
    }

    /// Something that turns texts into tokens, and remembers what it did.
    pub(crate) fn encoder(&self) -> Encoder<'_> {
        match self {
            Self::Characters(characters) => Encoder::Characters(characters.encoder()),
            Self::BytePairs(pairs) => Encoder::BytePairs(pairs.encoder()),
        }
    }

    /// The bytes of each token.
    pub(crate) fn decoder(&self) -> Decoder {
        Decoder {
            bytes: match self {
                Self::Characters(characters) => characters.bytes(),
                Self::BytePairs(pairs) => pairs.bytes(),
            },
        }
    }
}

/// Turns texts into tokens.
pub(crate) enum Encoder<'a> {
    Characters(characters::Encoder),
    BytePairs(byte_pairs::Encoder<'a>),
}

impl Encoder<'_> {
    /// Appends the tokens of a text, without its end.
    pub(crate) fn encode(&mut self, text: &str, tokens: &mut Vec<u32>) {
        match self {
            Self::Characters(encoder) => encoder.encode(text, tokens),
            Self::BytePairs(encoder) => encoder.encode(text, tokens),
        }
    }
}

/// Turns tokens into texts.
#[derive(Debug)]
pub(crate) struct Decoder {
    bytes: Vec<Vec<u8>>,
}

impl Decoder {
    /// The bytes of a token; of the end of a text, none.
    pub(crate) fn bytes(&self, token: u32) -> &[u8] {
        self.bytes
            .get(token as usize)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// The text of tokens. Bytes that are no text become U+FFFD.
    #[cfg(test)]
    pub(crate) fn text(&self, tokens: &[u32]) -> String {
        let mut text = Text::default();
        for token in tokens {
            text.push(self.bytes(*token));
        }
        text.finish()
    }
}

/// Text that comes in bytes, not always a whole character at a time.
#[derive(Debug, Default)]
pub(crate) struct Text {
    text: String,
    /// The beginning of a character.
    rest: Vec<u8>,
}

impl Text {
    /// Appends bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let settled = match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.len(),
            Err(_) => settled(&self.rest),
        };
        let done: Vec<u8> = self.rest.drain(..settled).collect();
        self.text.push_str(&lossy(&done));
    }

    /// What is certain so far.
    pub(crate) fn so_far(&self) -> &str {
        &self.text
    }

    /// All of it.
    pub(crate) fn finish(mut self) -> String {
        let rest = lossy(&self.rest).into_owned();
        self.text.push_str(&rest);
        self.text
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The bytes before a character that is not there whole.
fn settled(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        match std::str::from_utf8(&bytes[at..]) {
            Ok(_) => return bytes.len(),
            Err(error) => match error.error_len() {
                None => return at + error.valid_up_to(),
                Some(wrong) => at += error.valid_up_to() + wrong,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 7] = [
        "",
        "First Citizen:\nBefore we proceed any further, hear me speak.",
        "  two  spaces,\n\n\n lines\tand tabs ",
        "naïve café, 12,345.67 € – „Straße“",
        "日本語のテキスト と emoji 👩‍👩‍👧",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "\u{0}\u{7f}\u{80}\u{fffd}\u{10ffff}",
    ];

    fn learnt(kind: TokenizerKind, size: u32) -> Tokenizer {
        let hyperparameters = Hyperparameters {
            tokenizer: kind,
            vocabulary_size: size,
            ..Hyperparameters::default()
        };
        Tokenizer::learn(
            TEXTS.iter().copied().chain(["the the then them"; 20]),
            &hyperparameters,
        )
    }

    fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        tokenizer.encoder().encode(text, &mut tokens);
        tokens
    }

    #[test]
    fn every_text_comes_back() {
        for tokenizer in [
            learnt(TokenizerKind::Characters, 1_000),
            learnt(TokenizerKind::BytePairs, 257),
            learnt(TokenizerKind::BytePairs, 300),
        ] {
            let decoder = tokenizer.decoder();
            for text in TEXTS {
                let tokens = encode(&tokenizer, text);
                assert!(!tokens.contains(&END));
                assert!(tokens.iter().all(|token| *token < tokenizer.vocabulary()));
                assert_eq!(decoder.text(&tokens), text);
            }
        }
    }

    #[test]
    fn byte_pairs_bring_back_texts_they_have_not_seen() {
        let tokenizer = learnt(TokenizerKind::BytePairs, 320);
        let decoder = tokenizer.decoder();
        // Texts of a small generator: letters of the training texts, of others, and spaces.
        let letters: Vec<char> = "the Before, \n\tüß9漢😀x".chars().collect();
        let mut state = 88_172_645_463_325_252_u64;
        for length in 0..200 {
            let text: String = (0..length)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    letters[(state % letters.len() as u64) as usize]
                })
                .collect();
            assert_eq!(decoder.text(&encode(&tokenizer, &text)), text);
        }
    }

    #[test]
    fn a_tokenizer_comes_back_from_its_file() {
        for kind in [TokenizerKind::Characters, TokenizerKind::BytePairs] {
            let tokenizer = learnt(kind, 400);
            let json = serde_json::to_string(&tokenizer).expect("JSON");
            let back: Tokenizer = serde_json::from_str(&json).expect("a tokenizer");
            assert_eq!(back, tokenizer);
            back.check().expect("it is one");
        }
    }

    #[test]
    fn text_is_certain_only_up_to_a_whole_character() {
        let mut text = Text::default();
        for byte in "aé😀".as_bytes() {
            text.push(&[*byte]);
        }
        text.push(&[0xe2, 0x82]);
        assert_eq!(text.so_far(), "aé😀");
        text.push(b"x");
        assert_eq!(text.so_far(), "aé😀\u{fffd}x");
        text.push(&[0xf0]);
        assert_eq!(text.so_far(), "aé😀\u{fffd}x");
        assert_eq!(text.finish(), "aé😀\u{fffd}x\u{fffd}");
    }
}
