//! Random numbers as a function of what they are for: Philox 4x32-10 (Salmon, Moraes, Dror and
//! Shaw 2011), a block cipher over a counter. No state, so any part of a tensor can be drawn
//! alone, in any order, on any thread.

/// What a number is drawn for. Purposes never share a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Parameters before training; the node is the parameter's.
    Initial = 1,
    /// Which elements a dropout keeps; the node is the dropout's.
    Dropout = 2,
    /// The order of rows; the step is the epoch.
    Shuffle = 3,
    /// Tokens of a sequence; the step is the place in it.
    Sample = 4,
    /// Which rows the columns of a forest are cut by.
    Bins = 8,
    /// Which rows a tree is grown on; the step is the round.
    Rows = 9,
    /// Which columns a tree may use; the node is the output, the step the round.
    Columns = 10,
}

/// A stream of numbers: one for each position.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    key: [u32; 2],
    /// The upper three words of the counter, the first of which shares with the position.
    upper: [u32; 3],
}

/// Numbers that one call of [`Stream::group`] gives.
pub(crate) const GROUP: usize = 64;
const LANES: usize = GROUP / 4;

impl Stream {
    pub(crate) fn new(seed: u64, purpose: Purpose, node: u32, step: u64) -> Stream {
        Stream {
            key: [seed as u32, (seed >> 32) as u32],
            upper: [
                ((step >> 32) as u32) << 16,
                (purpose as u32) << 28 | node,
                step as u32,
            ],
        }
    }

    /// The numbers at positions `64 group..64 group + 64`.
    #[inline(always)]
    pub(crate) fn group(&self, group: u64) -> [u32; GROUP] {
        let first = group.wrapping_mul(LANES as u64);
        let mut words = [[0_u32; LANES]; 4];
        for (lane, word) in words[0].iter_mut().enumerate() {
            *word = (first as u32).wrapping_add(lane as u32);
        }
        // `first` is a multiple of the lanes, so its low word does not carry.
        words[1] = [self.upper[0] ^ (first >> 32) as u32; LANES];
        words[2] = [self.upper[1]; LANES];
        words[3] = [self.upper[2]; LANES];
        let mut key = self.key;
        for _ in 0..10 {
            words = round(words, key);
            key = [
                key[0].wrapping_add(0x9e37_79b9),
                key[1].wrapping_add(0xbb67_ae85),
            ];
        }
        let mut numbers = [0; GROUP];
        for (part, words) in numbers.chunks_exact_mut(LANES).zip(words) {
            part.copy_from_slice(&words);
        }
        numbers
    }

    /// Every number from position 0 on.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u32> {
        (0..).flat_map(move |group| self.group(group))
    }
}

#[inline(always)]
fn round(words: [[u32; LANES]; 4], key: [u32; 2]) -> [[u32; LANES]; 4] {
    let mut next = [[0; LANES]; 4];
    for lane in 0..LANES {
        let first = u64::from(words[0][lane]) * 0xd251_1f53;
        let second = u64::from(words[2][lane]) * 0xcd9e_8d57;
        next[0][lane] = (second >> 32) as u32 ^ words[1][lane] ^ key[0];
        next[1][lane] = second as u32;
        next[2][lane] = (first >> 32) as u32 ^ words[3][lane] ^ key[1];
        next[3][lane] = first as u32;
    }
    next
}

/// A number in (0, 1), never at an end.
pub(crate) fn unit(number: u32) -> f64 {
    (f64::from(number) + 0.5) / 4_294_967_296.0
}

/// An order of `0..count`, by the shuffle of Fisher and Yates (Durstenfeld 1964).
pub(crate) fn permutation(stream: Stream, count: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    let mut numbers = stream.numbers();
    for last in (1..order.len()).rev() {
        // The bias of a 64-bit product is below 2^-32 (Lemire 2019).
        let Some(number) = numbers.next() else { break };
        let place = (u64::from(number) * (last as u64 + 1)) >> 32;
        order.swap(last, place as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first lane of a group is the plain cipher.
    fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
        let mut words = counter.map(|word| [word; LANES]);
        let mut key = key;
        for _ in 0..10 {
            words = round(words, key);
            key = [
                key[0].wrapping_add(0x9e37_79b9),
                key[1].wrapping_add(0xbb67_ae85),
            ];
        }
        words.map(|word| word[0])
    }

    #[test]
    fn the_cipher_gives_the_published_answers() {
        // kat_vectors of Random123, philox 4x32 10.
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn streams_differ_in_every_part_of_what_they_are_for() {
        let streams = [
            Stream::new(1, Purpose::Dropout, 1, 1),
            Stream::new(2, Purpose::Dropout, 1, 1),
            Stream::new(1 << 32, Purpose::Dropout, 1, 1),
            Stream::new(1, Purpose::Initial, 1, 1),
            Stream::new(1, Purpose::Dropout, 2, 1),
            Stream::new(1, Purpose::Dropout, 1, 2),
            Stream::new(1, Purpose::Dropout, 1, 1 << 32),
        ];
        let mut seen = std::collections::HashSet::new();
        for stream in streams {
            for group in [0, 1, 1 << 40] {
                assert!(seen.insert(stream.group(group)), "{stream:?} {group}");
            }
        }
    }

    #[test]
    fn a_permutation_has_every_number_once_and_every_place_as_often() {
        let mut firsts = [0; 5];
        for step in 0..5000 {
            let mut order = permutation(Stream::new(7, Purpose::Shuffle, 0, step), 5);
            firsts[order[0] as usize] += 1;
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4]);
        }
        assert!(
            firsts.iter().all(|count| (880..1120).contains(count)),
            "{firsts:?}"
        );
        assert!(permutation(Stream::new(7, Purpose::Shuffle, 0, 0), 0).is_empty());
    }
}
