//! Bytes, and the pairs of tokens that texts have most (Sennrich, Haddow and Birch, "Neural Machine
//! Translation of Rare Words with Subword Units", 2016), over bytes as in Radford et al. 2019.
//!
//! Pairs never go beyond a piece of text: a word with the space before it, a number, or a run of
//! something else. Learning is a function of the texts: of pairs as frequent as each other, the one
//! of the smaller tokens comes first.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use sandcast_sdk::Failure;
use serde::{Deserialize, Serialize};

/// Tokens before the first pair: the end of a text and the bytes.
const FIRST: u32 = 257;

/// Bytes of a piece; longer runs are cut.
const PIECE_BYTES: usize = 64;

/// Different pieces that are learnt from; those that come later are not counted.
const PIECES: usize = 1 << 20;

/// Pieces whose tokens are remembered while encoding.
const REMEMBERED: usize = 1 << 16;

/// The pairs that are tokens, in the order in which they were found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BytePairs {
    pairs: Vec<[u32; 2]>,
}

impl BytePairs {
    /// Finds the pairs that texts have most, as far as there are tokens.
    pub(super) fn learn<'t>(texts: impl Iterator<Item = &'t str>, vocabulary: u32) -> Self {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for piece in texts.flat_map(pieces) {
            if let Some(count) = counts.get_mut(piece) {
                *count += 1;
            } else if counts.len() < PIECES {
                counts.insert(piece, 1);
            }
        }
        let words = counts.into_iter().map(|(piece, count)| {
            let tokens = piece.bytes().map(|byte| u32::from(byte) + 1).collect();
            (tokens, count)
        });
        let mut learning = Learning::new(words.collect());
        let mut pairs = Vec::new();
        while FIRST + (pairs.len() as u32) < vocabulary {
            let Some(pair) = learning.most() else { break };
            learning.join(pair, FIRST + pairs.len() as u32);
            pairs.push([pair.0, pair.1]);
        }
        Self { pairs }
    }

    /// A pair is of tokens before it.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let wrong = (FIRST..).zip(&self.pairs);
        let wrong = wrong
            .filter(|(token, pair)| pair.iter().any(|part| *part == super::END || part >= token));
        match wrong.count() {
            0 => Ok(()),
            wrong => Err(Failure::invalid_input(format!(
                "{wrong} pairs of the tokenizer are of tokens that are not there"
            ))),
        }
    }

    pub(super) fn vocabulary(&self) -> u32 {
        FIRST + self.pairs.len() as u32
    }

    pub(super) fn encoder(&self) -> Encoder<'_> {
        let pairs = self.pairs.iter().map(|pair| (pair[0], pair[1]));
        Encoder {
            tokens: pairs.zip(FIRST..).collect(),
            remembered: BTreeMap::new(),
            of: std::marker::PhantomData,
        }
    }

    pub(super) fn bytes(&self) -> Vec<Vec<u8>> {
        let mut bytes = vec![Vec::new()];
        bytes.extend((0..=255).map(|byte| vec![byte]));
        for pair in &self.pairs {
            let parts = pair.iter().filter_map(|part| bytes.get(*part as usize));
            let joined = parts.flatten().copied().collect();
            bytes.push(joined);
        }
        bytes
    }
}

/// Turns texts into tokens.
pub(crate) struct Encoder<'a> {
    tokens: BTreeMap<(u32, u32), u32>,
    remembered: BTreeMap<Box<str>, Vec<u32>>,
    of: std::marker::PhantomData<&'a BytePairs>,
}

impl Encoder<'_> {
    pub(super) fn encode(&mut self, text: &str, tokens: &mut Vec<u32>) {
        for piece in pieces(text) {
            if let Some(known) = self.remembered.get(piece) {
                tokens.extend_from_slice(known);
                continue;
            }
            let found = self.piece(piece);
            tokens.extend_from_slice(&found);
            if self.remembered.len() < REMEMBERED {
                self.remembered.insert(piece.into(), found);
            }
        }
    }

    /// Joins the pair that was found first, until there is none.
    fn piece(&self, piece: &str) -> Vec<u32> {
        let mut tokens: Vec<u32> = piece.bytes().map(|byte| u32::from(byte) + 1).collect();
        loop {
            let pairs = tokens.windows(2);
            let joined = pairs.filter_map(|pair| self.tokens.get(&(pair[0], pair[1])));
            let Some(token) = joined.min().copied() else {
                return tokens;
            };
            join(
                &mut tokens,
                |pair| self.tokens.get(&pair) == Some(&token),
                token,
            );
        }
    }
}

/// Replaces pairs by a token, from the left.
fn join(tokens: &mut Vec<u32>, is: impl Fn((u32, u32)) -> bool, token: u32) {
    let mut kept = 0;
    let mut at = 0;
    while at < tokens.len() {
        let pair = tokens.get(at + 1).map(|next| (tokens[at], *next));
        if pair.is_some_and(&is) {
            tokens[kept] = token;
            at += 2;
        } else {
            tokens[kept] = tokens[at];
            at += 1;
        }
        kept += 1;
    }
    tokens.truncate(kept);
}

/// Pairs by how often they come, kept up while they are joined.
struct Learning {
    words: Vec<(Vec<u32>, u64)>,
    counts: BTreeMap<(u32, u32), u64>,
    /// The words that have had a pair.
    places: BTreeMap<(u32, u32), BTreeSet<u32>>,
    /// Counts as they were once; the smaller pair is the greater of equals.
    queue: BinaryHeap<(u64, std::cmp::Reverse<(u32, u32)>)>,
}

impl Learning {
    fn new(words: Vec<(Vec<u32>, u64)>) -> Self {
        let mut learning = Self {
            words: Vec::new(),
            counts: BTreeMap::new(),
            places: BTreeMap::new(),
            queue: BinaryHeap::new(),
        };
        for (index, (tokens, count)) in words.iter().enumerate() {
            for pair in tokens.windows(2).map(|pair| (pair[0], pair[1])) {
                *learning.counts.entry(pair).or_default() += count;
                learning
                    .places
                    .entry(pair)
                    .or_default()
                    .insert(index as u32);
            }
        }
        let counts = learning.counts.iter();
        learning.queue = counts
            .map(|(pair, count)| (*count, std::cmp::Reverse(*pair)))
            .collect();
        learning.words = words;
        learning
    }

    /// The pair that comes most, at least twice.
    fn most(&mut self) -> Option<(u32, u32)> {
        while let Some((count, std::cmp::Reverse(pair))) = self.queue.pop() {
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now == count && count >= 2 {
                return Some(pair);
            }
            if now != count && now >= 2 {
                self.queue.push((now, std::cmp::Reverse(pair)));
            }
        }
        None
    }

    fn join(&mut self, pair: (u32, u32), token: u32) {
        let mut changed: BTreeSet<(u32, u32)> = BTreeSet::new();
        for index in self.places.remove(&pair).unwrap_or_default() {
            let Some((tokens, count)) = self.words.get_mut(index as usize) else {
                continue;
            };
            for before in tokens.windows(2).map(|pair| (pair[0], pair[1])) {
                if let Some(known) = self.counts.get_mut(&before) {
                    *known = known.saturating_sub(*count);
                }
            }
            join(tokens, |one| one == pair, token);
            for after in tokens.windows(2).map(|pair| (pair[0], pair[1])) {
                *self.counts.entry(after).or_default() += *count;
                if after.0 == token || after.1 == token {
                    self.places.entry(after).or_default().insert(index);
                    changed.insert(after);
                }
            }
        }
        self.counts.remove(&pair);
        for pair in changed {
            let count = self.counts.get(&pair).copied().unwrap_or(0);
            self.queue.push((count, std::cmp::Reverse(pair)));
        }
    }
}

/// What a character is to the cutting of pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Letter,
    Digit,
    Space,
    Other,
}

impl Sort {
    fn of(character: char) -> Self {
        if character.is_whitespace() {
            Sort::Space
        } else if character.is_alphabetic() {
            Sort::Letter
        } else if character.is_numeric() {
            Sort::Digit
        } else {
            Sort::Other
        }
    }
}

/// Cuts a text into pieces: runs of letters, of digits, of white space and of others, a single
/// space going with the run behind it. All of them together are the text.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let mut characters = rest.char_indices().peekable();
        let mut sort = Sort::of(first);
        characters.next();
        if first == ' '
            && let Some((_, next)) = characters.peek()
            && Sort::of(*next) != Sort::Space
        {
            sort = Sort::of(*next);
        }
        let mut end = first.len_utf8();
        let mut spaces = 0;
        for (at, character) in characters {
            if Sort::of(character) != sort || at + character.len_utf8() > PIECE_BYTES {
                break;
            }
            end = at + character.len_utf8();
            spaces = at;
        }
        // The last space of a run goes with what follows it.
        if sort == Sort::Space && spaces > 0 && rest[spaces..end] == *" " {
            let next = rest[end..].chars().next();
            if next.is_some_and(|next| Sort::of(next) != Sort::Space) {
                end = spaces;
            }
        }
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_into_words_numbers_and_runs() {
        let cut = |text| pieces(text).collect::<Vec<_>>();
        assert_eq!(
            cut("Hear me,  speak: 12 lines.\n\nEnd"),
            [
                "Hear", " me", ",", " ", " speak", ":", " 12", " lines", ".", "\n\n", "End"
            ]
        );
        assert_eq!(cut("  "), ["  "]);
        assert_eq!(cut(" "), [" "]);
        let long = "x".repeat(150);
        assert_eq!(
            cut(&long).iter().map(|it| it.len()).collect::<Vec<_>>(),
            [64, 64, 22]
        );
    }

    #[test]
    fn the_most_frequent_pair_comes_first_and_equals_in_order() {
        // "ab" and "bc" come 3 times, and then "cd", "xy" and others twice.
        let pairs = BytePairs::learn(["ab ab abc bcd bcd xy xy"].into_iter(), FIRST + 2);
        let token = |byte: u8| u32::from(byte) + 1;
        assert_eq!(pairs.pairs[0], [token(b'a'), token(b'b')]);
        let again = BytePairs::learn(["ab ab abc bcd bcd xy xy"].into_iter(), FIRST + 2);
        assert_eq!(pairs, again);
        assert!(
            BytePairs::learn(["abc"].into_iter(), 1_000)
                .pairs
                .is_empty()
        );
    }

    /// What learning comes to, each pair counted anew after each.
    fn plainly(texts: &[&str], vocabulary: u32) -> Vec<[u32; 2]> {
        let mut words: Vec<Vec<u32>> = texts
            .iter()
            .flat_map(|text| pieces(text))
            .map(|piece| piece.bytes().map(|byte| u32::from(byte) + 1).collect())
            .collect();
        let mut found = Vec::new();
        while FIRST + (found.len() as u32) < vocabulary {
            let mut counts: BTreeMap<(u32, u32), u64> = BTreeMap::new();
            for pair in words.iter().flat_map(|word| word.windows(2)) {
                *counts.entry((pair[0], pair[1])).or_default() += 1;
            }
            let most = counts
                .into_iter()
                .max_by(|one, other| one.1.cmp(&other.1).then(other.0.cmp(&one.0)));
            let Some((pair, _)) = most.filter(|most| most.1 >= 2) else {
                break;
            };
            let token = FIRST + found.len() as u32;
            words
                .iter_mut()
                .for_each(|word| join(word, |one| one == pair, token));
            found.push([pair.0, pair.1]);
        }
        found
    }

    #[test]
    fn keeping_counts_up_finds_what_counting_anew_finds() {
        let texts = [
            "she sells sea shells by the sea shore, aaaa aaaaa aaaaaaa",
            "the shells she sells are sea shells, I am sure; banana bandana",
        ];
        let learnt = BytePairs::learn(texts.into_iter(), FIRST + 60);
        assert!(learnt.pairs.len() > 10);
        assert_eq!(learnt.pairs, plainly(&texts, FIRST + 60));
    }

    #[test]
    fn pairs_of_tokens_that_are_not_there_are_refused() {
        let wrong = BytePairs {
            pairs: vec![[5, FIRST]],
        };
        assert!(wrong.check().is_err());
        let wrong = BytePairs {
            pairs: vec![[0, 5]],
        };
        assert!(wrong.check().is_err());
    }
}
