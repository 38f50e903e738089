//! Changes bytes as an adversary would who has seen good ones: flipped, cut, spliced, repeated, nested,
//! and with numbers pushed to their extremes.

/// Numbers at which things go wrong, as they are written in text.
const EXTREMES: [&str; 18] = [
    "0",
    "1",
    "-1",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "1e-400",
];

/// The same for numbers of 1, 2, 4 and 8 bytes.
const PATTERNS: [u64; 8] = [
    0,
    1,
    0x7f,
    0x80,
    0x7fff_ffff,
    0x8000_0000,
    u64::MAX,
    i64::MAX as u64,
];

/// What opens and closes in the formats that are read.
const BRACKETS: [(&str, &str); 4] = [("[", "]"), ("{\"a\":", "}"), ("(", ")"), ("!", "")];

/// Pieces of text that readers stumble over.
const PIECES: [&str; 14] = [
    "\u{0}",
    "\u{1b}[31m",
    "\u{202e}",
    "ä",
    "\u{1f600}",
    "\\u0000",
    "\\ud800",
    "\"",
    "\n",
    "null",
    "..",
    "&a *a",
    ": ",
    "\t",
];

/// Bytes of an input, at most.
const MAX_BYTES: usize = 64 << 10;

/// A source of changes: the same seed, the same changes.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// One for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// A number below a bound; 0 where there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        // xorshift64*, Vigna 2016.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        drawn as usize % bound.max(1)
    }

    /// A changed copy of one of the inputs.
    pub fn mutated(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = pool[self.below(pool.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, pool);
        }
        bytes.truncate(MAX_BYTES);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        match self.below(12) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            1 => {
                let byte = self.below(256) as u8;
                bytes.insert(at, byte);
            }
            2 => {
                let end = self.end(at, bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let end = self.end(at, bytes.len());
                let piece = bytes[at..end].to_vec();
                let times = [1, 2, 7, 100][self.below(4)];
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, piece.repeat(times));
            }
            4 => {
                let other = &pool[self.below(pool.len())];
                let from = self.below(other.len() + 1);
                let end = self.end(from, other.len());
                bytes.splice(at..at, other[from..end].iter().copied());
            }
            5 => {
                let other = &pool[self.below(pool.len())];
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            6 | 7 => self.push_number(bytes),
            8 => {
                let width = 1 << self.below(4);
                let pattern = PATTERNS[self.below(PATTERNS.len())].to_le_bytes();
                if let Some(place) = bytes.get_mut(at..at + width) {
                    place.copy_from_slice(&pattern[..width]);
                }
            }
            9 => self.exchange_tokens(bytes),
            10 => {
                let (open, close) = BRACKETS[self.below(BRACKETS.len())];
                let times = [1, 10, 1000][self.below(3)];
                let nested = [open.repeat(times), close.repeat(times)];
                let end = self.end(at, bytes.len());
                bytes.splice(end..end, nested[1].bytes());
                bytes.splice(at..at, nested[0].bytes());
            }
            _ => {
                let piece = PIECES[self.below(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }

    /// A place not far after another.
    fn end(&mut self, from: usize, length: usize) -> usize {
        let left = length - from;
        let reach = [4, 32, left][self.below(3)];
        from + self.below(left.min(reach) + 1)
    }

    /// Replaces a number in text by an extreme one.
    fn push_number(&mut self, bytes: &mut Vec<u8>) {
        let numbers = runs(bytes, |byte| byte.is_ascii_digit());
        if numbers.is_empty() {
            return;
        }
        let (start, end) = numbers[self.below(numbers.len())];
        let extreme = EXTREMES[self.below(EXTREMES.len())];
        bytes.splice(start..end, extreme.bytes());
    }

    /// Puts one word of the text in the place of another.
    fn exchange_tokens(&mut self, bytes: &mut Vec<u8>) {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let words = runs(bytes, is_word);
        if words.len() < 2 {
            return;
        }
        let (start, end) = words[self.below(words.len())];
        let word = bytes[start..end].to_vec();
        let (start, end) = words[self.below(words.len())];
        bytes.splice(start..end, word);
    }
}

/// The longest runs of bytes of a kind.
fn runs(bytes: &[u8], is_in: impl Fn(u8) -> bool) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, byte) in bytes.iter().enumerate() {
        match (is_in(*byte), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                found.push((from, at));
                start = None;
            }
            _ => {}
        }
    }
    found.extend(start.map(|from| (from, bytes.len())));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_changes_and_another_makes_others() {
        let pool = vec![
            b"{\"rows\": 12, \"name\": \"a\"}".to_vec(),
            b"[1, 2]".to_vec(),
        ];
        let some = |seed| {
            let mut mutator = Mutator::new(seed);
            (0..200).map(|_| mutator.mutated(&pool)).collect::<Vec<_>>()
        };
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        assert!(some(1).iter().all(|bytes| bytes.len() <= MAX_BYTES));
        let pushed = String::from_utf8_lossy(&some(1).concat()).into_owned();
        assert!(pushed.contains("18446744073709551615"));
    }

    #[test]
    fn an_empty_input_can_be_changed() {
        let mut mutator = Mutator::new(3);
        for _ in 0..1000 {
            mutator.mutated(&[Vec::new()]);
        }
    }
}
