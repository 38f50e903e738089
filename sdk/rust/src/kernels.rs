//! Statistics of columns, fast inside a guest.
//!
//! Values are taken in blocks of 64 rows, which share one word of the validity bitmap, and folded
//! into 16 running results that do not wait for one another. With `-Ctarget-feature=+simd128` (which
//! `sandcast build` sets) the inner loops become vector code; they are plain Rust and do the same
//! anywhere.
//!
//! ```
//! use sandcast_sdk::kernels;
//!
//! let summary = kernels::summarize_f64(&[1.0, f64::NAN, 4.0, 9.0], Some(&[0b0111]));
//! assert_eq!((summary.nulls, summary.nans, summary.count), (1, 1, 2));
//! assert_eq!((summary.min, summary.max), (Some(1.0), Some(4.0)));
//! assert_eq!(summary.mean(), Some(2.5));
//! ```

use crate::columns::Validity;

/// Rows that share a word of the validity bitmap.
const BLOCK: usize = 64;
/// Running results; enough of them that each addition is done before the next needs it.
const LANES: usize = 16;

/// What there is to say about a column of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FloatSummary {
    /// How many rows.
    pub rows: u64,
    /// How many of them are null.
    pub nulls: u64,
    /// How many are there, but not a number. They take part in nothing else.
    pub nans: u64,
    /// How many numbers the rest is about.
    pub count: u64,
    /// Their sum, added up in a fixed order.
    pub sum: f64,
    /// The smallest, if there is one.
    pub min: Option<f64>,
    /// The largest, if there is one.
    pub max: Option<f64>,
}

impl FloatSummary {
    /// The mean, if there is a number.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// What there is to say about a column of whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntSummary {
    /// How many rows.
    pub rows: u64,
    /// How many of them are null.
    pub nulls: u64,
    /// The sum of the rest, exact.
    pub sum: i128,
    /// The smallest, if there is one.
    pub min: Option<i64>,
    /// The largest, if there is one.
    pub max: Option<i64>,
}

impl IntSummary {
    /// How many rows are not null.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.rows - self.nulls
    }

    /// The mean, if there is a number.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count() > 0).then(|| self.sum as f64 / self.count() as f64)
    }
}

/// The validity of a block as a word, with the bits past the rows cleared.
#[inline]
fn word(validity: Validity<'_>, block: usize, rows: usize) -> u64 {
    let rest = rows - block * BLOCK;
    let inside = if rest >= BLOCK {
        u64::MAX
    } else {
        (1 << rest) - 1
    };
    validity.word(block) & inside
}

/// All bits where the row of the word is there, none where it is not. With `row` known at compile
/// time this is a comparison of vectors.
#[inline(always)]
fn mask(word: u64, row: usize) -> u64 {
    if word & (1 << row) == 0 { 0 } else { u64::MAX }
}

/// How many rows are null. Rows past the end of the bitmap are.
#[must_use]
pub fn null_count(rows: usize, validity: Option<&[u8]>) -> u64 {
    if validity.is_none() {
        return 0;
    }
    let validity = Validity::new(validity);
    let valid: u64 = (0..rows.div_ceil(BLOCK))
        .map(|block| u64::from(word(validity, block, rows).count_ones()))
        .sum();
    rows as u64 - valid
}

/// How many booleans are true: `values` and `validity` are bitmaps.
#[must_use]
pub fn count_true(rows: usize, values: &[u8], validity: Option<&[u8]>) -> u64 {
    let values = Validity::new(Some(values));
    let validity = Validity::new(validity);
    (0..rows.div_ceil(BLOCK))
        .map(|block| u64::from((values.word(block) & word(validity, block, rows)).count_ones()))
        .sum()
}

/// Running results of floats.
struct FloatLanes {
    sum: [f64; LANES],
    min: [f64; LANES],
    max: [f64; LANES],
}

impl FloatLanes {
    /// Folds in a block all of whose rows are there. False, and nothing done, if one is not a number
    /// (or infinities cancel).
    #[inline]
    fn fold_full(&mut self, values: &[f64; BLOCK]) -> bool {
        let mut sum = [0.0; LANES];
        let mut min = self.min;
        let mut max = self.max;
        for group in 0..BLOCK / LANES {
            for lane in 0..LANES {
                let value = values[group * LANES + lane];
                sum[lane] += value;
                // Not `f64::min`: this is one instruction, and leaves out what is not a number.
                min[lane] = if value < min[lane] { value } else { min[lane] };
                max[lane] = if value > max[lane] { value } else { max[lane] };
            }
        }
        if sum.iter().any(|sum| sum.is_nan()) {
            return false;
        }
        for (total, sum) in self.sum.iter_mut().zip(sum) {
            *total += sum;
        }
        self.min = min;
        self.max = max;
        true
    }

    /// Folds in the rows of a block that are there. False, and nothing done, as above.
    #[inline]
    fn fold_masked(&mut self, values: &[f64; BLOCK], word: u64) -> bool {
        let mut sum = [0.0; LANES];
        let mut min = self.min;
        let mut max = self.max;
        for group in 0..BLOCK / LANES {
            for lane in 0..LANES {
                let row = group * LANES + lane;
                let mask = mask(word, row);
                let bits = values[row].to_bits();
                sum[lane] += f64::from_bits(bits & mask);
                let low = f64::from_bits(bits & mask | f64::INFINITY.to_bits() & !mask);
                let high = f64::from_bits(bits & mask | f64::NEG_INFINITY.to_bits() & !mask);
                min[lane] = if low < min[lane] { low } else { min[lane] };
                max[lane] = if high > max[lane] { high } else { max[lane] };
            }
        }
        if sum.iter().any(|sum| sum.is_nan()) {
            return false;
        }
        for (total, sum) in self.sum.iter_mut().zip(sum) {
            *total += sum;
        }
        self.min = min;
        self.max = max;
        true
    }

    /// Folds in rows one at a time, and returns how many are not a number.
    #[cold]
    fn fold_each(&mut self, values: &[f64], word: u64) -> u64 {
        let mut nans = 0;
        for (row, value) in values.iter().enumerate() {
            if word >> row & 1 == 0 {
                continue;
            }
            if value.is_nan() {
                nans += 1;
                continue;
            }
            let lane = row % LANES;
            self.sum[lane] += value;
            self.min[lane] = if *value < self.min[lane] {
                *value
            } else {
                self.min[lane]
            };
            self.max[lane] = if *value > self.max[lane] {
                *value
            } else {
                self.max[lane]
            };
        }
        nans
    }
}

/// Null count, count, sum, minimum and maximum of numbers in one pass.
#[must_use]
pub fn summarize_f64(values: &[f64], validity: Option<&[u8]>) -> FloatSummary {
    let rows = values.len();
    let validity = Validity::new(validity);
    let mut lanes = FloatLanes {
        sum: [0.0; LANES],
        min: [f64::INFINITY; LANES],
        max: [f64::NEG_INFINITY; LANES],
    };
    let mut valid = 0;
    let mut nans = 0;
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    for (block, values) in blocks.iter().enumerate() {
        let word = word(validity, block, rows);
        valid += u64::from(word.count_ones());
        let folded = match word {
            u64::MAX => lanes.fold_full(values),
            0 => true,
            _ => lanes.fold_masked(values, word),
        };
        if !folded {
            nans += lanes.fold_each(values, word);
        }
    }
    if !rest.is_empty() {
        let word = word(validity, blocks.len(), rows);
        valid += u64::from(word.count_ones());
        nans += lanes.fold_each(rest, word);
    }
    let count = valid - nans;
    let there = |value: f64| (count > 0).then_some(value);
    FloatSummary {
        rows: rows as u64,
        nulls: rows as u64 - valid,
        nans,
        count,
        sum: add_up(lanes.sum),
        min: there(lanes.min.into_iter().fold(f64::INFINITY, f64::min)),
        max: there(lanes.max.into_iter().fold(f64::NEG_INFINITY, f64::max)),
    }
}

/// Adds in pairs, always the same ones.
fn add_up(mut lanes: [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Null count, sum, minimum and maximum of whole numbers in one pass.
#[must_use]
pub fn summarize_i64(values: &[i64], validity: Option<&[u8]>) -> IntSummary {
    let rows = values.len();
    let validity = Validity::new(validity);
    // Each number plus 2^63, in halves: no lane overflows in fewer than 2^32 rows, and a batch has no more.
    let mut low = [0_u64; LANES];
    let mut high = [0_u64; LANES];
    let mut min = [i64::MAX; LANES];
    let mut max = [i64::MIN; LANES];
    let mut valid = 0;
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    for (block, values) in blocks.iter().enumerate() {
        let word = word(validity, block, rows);
        valid += u64::from(word.count_ones());
        if word == u64::MAX {
            for group in 0..BLOCK / LANES {
                for lane in 0..LANES {
                    let value = values[group * LANES + lane];
                    let unsigned = value as u64 ^ 1 << 63;
                    low[lane] += unsigned & 0xffff_ffff;
                    high[lane] += unsigned >> 32;
                    min[lane] = if value < min[lane] { value } else { min[lane] };
                    max[lane] = if value > max[lane] { value } else { max[lane] };
                }
            }
        } else if word != 0 {
            for group in 0..BLOCK / LANES {
                for lane in 0..LANES {
                    let row = group * LANES + lane;
                    let mask = mask(word, row);
                    let value = values[row];
                    let unsigned = (value as u64 ^ 1 << 63) & mask;
                    low[lane] += unsigned & 0xffff_ffff;
                    high[lane] += unsigned >> 32;
                    let small = (value as u64 & mask | i64::MAX as u64 & !mask) as i64;
                    let large = (value as u64 & mask | i64::MIN as u64 & !mask) as i64;
                    min[lane] = if small < min[lane] { small } else { min[lane] };
                    max[lane] = if large > max[lane] { large } else { max[lane] };
                }
            }
        }
    }
    if !rest.is_empty() {
        let word = word(validity, blocks.len(), rows);
        valid += u64::from(word.count_ones());
        for (row, value) in rest
            .iter()
            .enumerate()
            .filter(|(row, _)| word >> row & 1 == 1)
        {
            let lane = row % LANES;
            let unsigned = *value as u64 ^ 1 << 63;
            low[lane] += unsigned & 0xffff_ffff;
            high[lane] += unsigned >> 32;
            min[lane] = min[lane].min(*value);
            max[lane] = max[lane].max(*value);
        }
    }
    let total: i128 = low
        .iter()
        .zip(high)
        .map(|(low, high)| i128::from(*low) + (i128::from(high) << 32))
        .sum();
    let there = |value: Option<i64>| value.filter(|_| valid > 0);
    IntSummary {
        rows: rows as u64,
        nulls: rows as u64 - valid,
        sum: total - (i128::from(valid) << 63),
        min: there(min.into_iter().min()),
        max: there(max.into_iter().max()),
    }
}

/// How many values that are there fulfil a condition, which is asked of every value.
///
/// ```
/// use sandcast_sdk::kernels::count_where;
/// assert_eq!(count_where(&[1, 5, 9], Some(&[0b101]), |value| value > 3), 1);
/// ```
#[must_use]
pub fn count_where<T: Copy>(
    values: &[T],
    validity: Option<&[u8]>,
    condition: impl Fn(T) -> bool,
) -> u64 {
    let mut count = 0;
    blocks_where(values, validity, condition, |_, word| {
        count += u64::from(word.count_ones())
    });
    count
}

/// The numbers of the rows whose values are there and fulfil a condition, rising: the rows of a
/// finding. The condition is asked of every value.
///
/// ```
/// use sandcast_sdk::kernels::rows_where;
/// assert_eq!(rows_where(&[1, 5, 9], None, |value| value > 3), [1, 2]);
/// ```
#[must_use]
pub fn rows_where<T: Copy>(
    values: &[T],
    validity: Option<&[u8]>,
    condition: impl Fn(T) -> bool,
) -> Vec<u32> {
    let mut rows = Vec::new();
    blocks_where(values, validity, condition, |first, mut word| {
        while word != 0 {
            rows.push(first + word.trailing_zeros());
            word &= word - 1;
        }
    });
    rows
}

/// For every block the first row and a word of the rows that are there and fulfil the condition.
#[inline]
fn blocks_where<T: Copy>(
    values: &[T],
    validity: Option<&[u8]>,
    condition: impl Fn(T) -> bool,
    mut found: impl FnMut(u32, u64),
) {
    let validity = Validity::new(validity);
    for (block, chunk) in values.chunks(BLOCK).enumerate() {
        let there = word(validity, block, values.len());
        let mut word = 0;
        for (row, value) in chunk.iter().enumerate() {
            word |= u64::from(condition(*value)) << row;
        }
        // A batch has at most `u32::MAX` rows.
        found((block * BLOCK) as u32, word & there);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same numbers again and again, spread over the whole range of u64.
    fn noise(seed: u64) -> impl Iterator<Item = u64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        })
    }

    const LENGTHS: [usize; 13] = [0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 1000, 4097];

    /// None, all null, all there, few nulls, half nulls, and a bitmap with garbage past the end.
    fn bitmaps(rows: usize) -> Vec<Option<Vec<u8>>> {
        let bytes = rows.div_ceil(8);
        let random = |keep: fn(u64) -> bool| {
            let mut bits = vec![0xff_u8; bytes];
            for (row, number) in noise(7).take(rows).enumerate() {
                if !keep(number) {
                    bits[row / 8] &= !(1 << (row % 8));
                }
            }
            bits
        };
        vec![
            None,
            Some(vec![0; bytes]),
            Some(vec![0xff; bytes]),
            Some(random(|number| !number.is_multiple_of(50))),
            Some(random(|number| number.is_multiple_of(2))),
        ]
    }

    fn there(bitmap: Option<&[u8]>, row: usize) -> bool {
        bitmap.is_none_or(|bits| bits[row / 8] >> (row % 8) & 1 == 1)
    }

    fn naive_f64(values: &[f64], bitmap: Option<&[u8]>) -> FloatSummary {
        let valid: Vec<f64> = (0..values.len())
            .filter(|row| there(bitmap, *row))
            .map(|row| values[row])
            .collect();
        let numbers: Vec<f64> = valid
            .iter()
            .copied()
            .filter(|value| !value.is_nan())
            .collect();
        FloatSummary {
            rows: values.len() as u64,
            nulls: (values.len() - valid.len()) as u64,
            nans: (valid.len() - numbers.len()) as u64,
            count: numbers.len() as u64,
            sum: numbers.iter().sum(),
            min: numbers.iter().copied().reduce(f64::min),
            max: numbers.iter().copied().reduce(f64::max),
        }
    }

    #[test]
    fn floats_agree_with_the_naive_version() {
        for rows in LENGTHS {
            // Whole numbers, so that sums are exact in any order.
            let plain: Vec<f64> = noise(1)
                .take(rows)
                .map(|number| (number % 2001) as f64 - 1000.0)
                .collect();
            let mut holes = plain.clone();
            for (row, number) in noise(2).take(rows).enumerate() {
                if number.is_multiple_of(97) {
                    holes[row] = f64::NAN;
                }
            }
            for values in [plain, holes, vec![f64::NAN; rows]] {
                for bitmap in bitmaps(rows) {
                    let bitmap = bitmap.as_deref();
                    assert_eq!(
                        summarize_f64(&values, bitmap),
                        naive_f64(&values, bitmap),
                        "{rows} rows"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_null_may_hold_anything() {
        let mut values = vec![1.0; 128];
        values[3] = f64::NAN;
        values[70] = f64::INFINITY;
        let mut bits = [0xff_u8; 16];
        bits[0] &= !(1 << 3);
        bits[8] &= !(1 << 6);
        let summary = summarize_f64(&values, Some(&bits));
        assert_eq!((summary.nulls, summary.nans, summary.sum), (2, 0, 126.0));
        assert_eq!((summary.min, summary.max), (Some(1.0), Some(1.0)));
    }

    #[test]
    fn infinities_are_numbers() {
        let mut values = vec![0.0; 64];
        values[0] = f64::INFINITY;
        values[16] = f64::NEG_INFINITY;
        let summary = summarize_f64(&values, None);
        assert_eq!((summary.nans, summary.count), (0, 64));
        assert!(summary.sum.is_nan());
        assert_eq!(
            (summary.min, summary.max),
            (Some(f64::NEG_INFINITY), Some(f64::INFINITY))
        );
        assert_eq!(
            summarize_f64(&vec![f64::INFINITY; 100], None).min,
            Some(f64::INFINITY)
        );
    }

    #[test]
    fn whole_numbers_agree_with_the_naive_version() {
        for rows in LENGTHS {
            let values: Vec<i64> = noise(3).take(rows).map(|number| number as i64).collect();
            for bitmap in bitmaps(rows) {
                let bitmap = bitmap.as_deref();
                let valid: Vec<i64> = (0..rows)
                    .filter(|row| there(bitmap, *row))
                    .map(|row| values[row])
                    .collect();
                let expected = IntSummary {
                    rows: rows as u64,
                    nulls: (rows - valid.len()) as u64,
                    sum: valid.iter().map(|value| i128::from(*value)).sum(),
                    min: valid.iter().copied().min(),
                    max: valid.iter().copied().max(),
                };
                assert_eq!(summarize_i64(&values, bitmap), expected, "{rows} rows");
            }
        }
        assert_eq!(
            summarize_i64(&[i64::MIN; 100], None).sum,
            i128::from(i64::MIN) * 100
        );
        assert_eq!(summarize_i64(&[i64::MAX; 100], None).min, Some(i64::MAX));
    }

    #[test]
    fn counts_and_rows_agree_with_the_naive_version() {
        for rows in LENGTHS {
            let values: Vec<i64> = noise(4)
                .take(rows)
                .map(|number| (number % 10) as i64)
                .collect();
            for bitmap in bitmaps(rows) {
                let bitmap = bitmap.as_deref();
                let expected: Vec<u32> = (0..rows)
                    .filter(|row| there(bitmap, *row) && values[*row] < 3)
                    .map(|row| row as u32)
                    .collect();
                assert_eq!(rows_where(&values, bitmap, |value| value < 3), expected);
                assert_eq!(
                    count_where(&values, bitmap, |value| value < 3),
                    expected.len() as u64
                );
                let nulls = (0..rows).filter(|row| !there(bitmap, *row)).count() as u64;
                assert_eq!(null_count(rows, bitmap), nulls);
            }
        }
    }

    #[test]
    fn booleans_are_counted_by_the_word() {
        assert_eq!(count_true(70, &[0xff; 9], None), 70);
        assert_eq!(
            count_true(10, &[0b1010_1010, 0b11], Some(&[0b0000_1111, 0xff])),
            4
        );
        assert_eq!(
            null_count(10, Some(&[0xff])),
            2,
            "rows past the bitmap are null"
        );
    }
}
