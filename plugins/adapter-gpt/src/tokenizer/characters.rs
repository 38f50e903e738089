//! A character is a token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A character that was not kept, whichever it is.
pub(super) const UNKNOWN: u32 = 1;

/// Tokens before the first character.
const FIRST: u32 = 2;

/// Unicode scalar values.
const SCALARS: f64 = 1_112_064.0;

/// The characters that are told apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Characters {
    /// Rising.
    characters: String,
}

impl Characters {
    /// Keeps the characters that texts have most, as far as there are tokens.
    pub(super) fn learn<'t>(texts: impl Iterator<Item = &'t str>, vocabulary: u32) -> Self {
        let mut counts: BTreeMap<char, u64> = BTreeMap::new();
        for character in texts.flat_map(str::chars) {
            *counts.entry(character).or_default() += 1;
        }
        let mut kept: Vec<(char, u64)> = counts.into_iter().collect();
        kept.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(&other.0)));
        kept.truncate(vocabulary.saturating_sub(FIRST) as usize);
        let mut characters: Vec<char> = kept.into_iter().map(|(character, _)| character).collect();
        characters.sort_unstable();
        Self {
            characters: characters.into_iter().collect(),
        }
    }

    pub(super) fn vocabulary(&self) -> u32 {
        self.characters.chars().count() as u32 + FIRST
    }

    /// Nats to tell which of the characters that were not kept it is, if each is as likely.
    pub(super) fn open(&self) -> f64 {
        (SCALARS - f64::from(self.vocabulary() - FIRST))
            .max(1.0)
            .ln()
    }

    pub(super) fn encoder(&self) -> Encoder {
        Encoder {
            tokens: self.characters.chars().zip(FIRST..).collect(),
        }
    }

    pub(super) fn bytes(&self) -> Vec<Vec<u8>> {
        let unknown = char::REPLACEMENT_CHARACTER.to_string().into_bytes();
        let each = self.characters.chars();
        let each = each.map(|character| character.to_string().into_bytes());
        [Vec::new(), unknown].into_iter().chain(each).collect()
    }
}

/// Turns texts into tokens.
pub(crate) struct Encoder {
    tokens: BTreeMap<char, u32>,
}

impl Encoder {
    pub(super) fn encode(&mut self, text: &str, tokens: &mut Vec<u32>) {
        let each = text.chars();
        tokens.extend(each.map(|one| self.tokens.get(&one).copied().unwrap_or(UNKNOWN)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_characters_are_not_told_apart_and_cost_what_they_leave_open() {
        let characters = Characters::learn(["banana bread", "c"].into_iter(), 5);
        // a, n and b come most.
        assert_eq!(characters.characters, "abn");
        assert_eq!(characters.vocabulary(), 5);
        let mut tokens = Vec::new();
        characters.encoder().encode("abnc", &mut tokens);
        assert_eq!(tokens, [2, 3, 4, UNKNOWN]);
        assert_eq!(characters.open(), 1_112_061.0_f64.ln());
    }
}
