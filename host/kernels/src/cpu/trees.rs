//! The loops of tree training and prediction. Sums of gradients are whole numbers, so they are
//! the same in any order and on any number of threads.

use super::level::for_each_level;
use super::math::{exponential, logarithm, logistic, softplus};

/// Columns whose bins lie together, a byte each.
pub(crate) const LANES: usize = 8;
/// Bins of a column, the one for what is missing among them.
pub(crate) const BINS: usize = 256;
/// Rows that are computed at a time where the loop is vector code.
pub(crate) const BLOCK: usize = 1024;

/// The bins of a row in one group of columns.
pub(crate) type Packed = [u8; LANES];
/// Sums over the rows of a bin: gradients, and hessians with the number of rows above them.
pub(crate) type Sums = [i64; 2];
/// The sums of every bin of a column.
pub(crate) type Histogram = [Sums; BINS];

/// How far ahead the bins of a row are asked for.
const AHEAD: usize = 24;

for_each_level! {
    /// Adds rows to the histograms of a group of columns. `pairs` are the gradients and hessians:
    /// of `rows` in their order, or of all rows. `one` is what a row counts in the second sum.
    pub(crate) fn accumulate => accumulate_body(
        bins: &[Packed],
        rows: Option<&[u32]>,
        pairs: &[[i32; 2]],
        one: i64,
        histograms: &mut [Histogram],
    )
}

#[inline(always)]
fn accumulate_body<const FUSED: bool>(
    bins: &[Packed],
    rows: Option<&[u32]>,
    pairs: &[[i32; 2]],
    one: i64,
    histograms: &mut [Histogram],
) {
    match histograms.len() {
        1 => add_rows::<1>(bins, rows, pairs, one, histograms),
        2 => add_rows::<2>(bins, rows, pairs, one, histograms),
        3 => add_rows::<3>(bins, rows, pairs, one, histograms),
        4 => add_rows::<4>(bins, rows, pairs, one, histograms),
        5 => add_rows::<5>(bins, rows, pairs, one, histograms),
        6 => add_rows::<6>(bins, rows, pairs, one, histograms),
        7 => add_rows::<7>(bins, rows, pairs, one, histograms),
        _ => add_rows::<8>(bins, rows, pairs, one, histograms),
    }
}

#[inline(always)]
fn add_rows<const N: usize>(
    bins: &[Packed],
    rows: Option<&[u32]>,
    pairs: &[[i32; 2]],
    one: i64,
    histograms: &mut [Histogram],
) {
    let Some(histograms) = histograms.first_chunk_mut::<N>() else {
        return;
    };
    match rows {
        None => {
            for (bins, pair) in bins.iter().zip(pairs) {
                add_row(*bins, *pair, one, histograms);
            }
        }
        Some(rows) => {
            let ahead = rows.get(AHEAD..).unwrap_or_default();
            for ((row, ahead), pair) in rows.iter().zip(ahead).zip(pairs) {
                prefetch(bins, *ahead as usize);
                add_row(bins[*row as usize], *pair, one, histograms);
            }
            for (row, pair) in rows.iter().zip(pairs).skip(ahead.len()) {
                add_row(bins[*row as usize], *pair, one, histograms);
            }
        }
    }
}

/// Asks for an element that is read soon; does nothing where there is none.
#[inline(always)]
fn prefetch<T>(elements: &[T], place: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let address = elements.as_ptr().wrapping_add(place);
        // SAFETY: a hint reads nothing that the program could see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (elements, place);
}

#[inline(always)]
fn add_row<const N: usize>(
    bins: Packed,
    [gradient, hessian]: [i32; 2],
    one: i64,
    histograms: &mut [Histogram; N],
) {
    let word = u64::from_le_bytes(bins);
    let more = [i64::from(gradient), i64::from(hessian) + one];
    for (lane, histogram) in histograms.iter_mut().enumerate() {
        let bin = (word >> (8 * lane)) as u8;
        add_sums(&mut histogram[usize::from(bin)], more);
    }
}

/// Both sums in one register: compilers make two additions of it.
#[inline(always)]
fn add_sums(sums: &mut Sums, more: Sums) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_add_epi64, _mm_loadu_si128, _mm_set_epi64x, _mm_storeu_si128};
        let place = std::ptr::from_mut(sums).cast();
        // SAFETY: the place is 16 bytes that are borrowed mutably, read and written unaligned, and
        // every processor of the architecture has the instructions.
        unsafe {
            let more = _mm_set_epi64x(more[1], more[0]);
            _mm_storeu_si128(place, _mm_add_epi64(_mm_loadu_si128(place), more));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        *sums = [sums[0].wrapping_add(more[0]), sums[1].wrapping_add(more[1])];
    }
}

/// Takes the sums of one child from those of the parent, which leaves those of the other.
pub(crate) fn subtract(parent: &mut [Sums], child: &[Sums]) {
    for (parent, child) in parent.iter_mut().zip(child) {
        *parent = [
            parent[0].wrapping_sub(child[0]),
            parent[1].wrapping_sub(child[1]),
        ];
    }
}

/// Which way the bins of a column go: 1 is left.
pub(crate) type Ways = [u8; BINS];

/// Sends rows left or right by their bin, each side in the order in which they were. Both sides
/// have room for all rows. How many went left.
pub(crate) fn partition(
    bins: &[Packed],
    lane: usize,
    ways: &Ways,
    rows: &[u32],
    left: &mut [u32],
    right: &mut [u32],
) -> usize {
    let (left, right) = (&mut left[..rows.len()], &mut right[..rows.len()]);
    let lane = lane % LANES;
    let mut count = 0;
    for (place, row) in rows.iter().enumerate() {
        let way = usize::from(ways[usize::from(bins[*row as usize][lane])]) & 1;
        left[count] = *row;
        right[place - count] = *row;
        count += way;
    }
    count
}

/// What a split must keep to, in real numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) min_rows: i64,
    pub(crate) min_hessian: f64,
    pub(crate) l1: f64,
    pub(crate) l2: f64,
}

/// What the sums of gradients and hessians are in real numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    pub(crate) gradient: f64,
    pub(crate) hessian: f64,
    /// Bits of the second sum below the number of rows.
    pub(crate) hessian_bits: u32,
}

impl Units {
    #[inline(always)]
    pub(crate) fn gradient(self, sums: Sums) -> f64 {
        sums[0] as f64 * self.gradient
    }

    #[inline(always)]
    pub(crate) fn hessian(self, sums: Sums) -> f64 {
        (sums[1] & ((1_i64 << self.hessian_bits) - 1)) as f64 * self.hessian
    }

    #[inline(always)]
    pub(crate) fn rows(self, sums: Sums) -> i64 {
        sums[1] >> self.hessian_bits
    }
}

/// The square of the gradient that L1 leaves, over the regularised hessian: twice what a leaf of
/// these sums takes from the loss (Chen and Guestrin 2016, equation 6).
#[inline(always)]
pub(crate) fn leaf_score(gradient: f64, hessian: f64, bounds: Bounds) -> f64 {
    let rest = (gradient.abs() - bounds.l1).max(0.0);
    rest * rest / (hessian + bounds.l2)
}

/// The scores of two sides, or minus infinity where one is too small.
#[inline(always)]
pub(crate) fn split_score(left: Sums, total: Sums, units: Units, bounds: Bounds) -> f64 {
    let right = [
        total[0].wrapping_sub(left[0]),
        total[1].wrapping_sub(left[1]),
    ];
    let (left_hessian, right_hessian) = (units.hessian(left), units.hessian(right));
    let score = leaf_score(units.gradient(left), left_hessian, bounds)
        + leaf_score(units.gradient(right), right_hessian, bounds);
    let fits = (units.rows(left) >= bounds.min_rows)
        & (units.rows(right) >= bounds.min_rows)
        & (left_hessian >= bounds.min_hessian)
        & (right_hessian >= bounds.min_hessian);
    if fits { score } else { f64::NEG_INFINITY }
}

for_each_level! {
    /// The score of a split after each of some running sums, with `missing` on the left.
    pub(crate) fn split_scores => split_scores_body(
        left: &[Sums], missing: Sums, total: Sums, units: Units, bounds: Bounds, scores: &mut [f64],
    )
}

#[inline(always)]
fn split_scores_body<const FUSED: bool>(
    left: &[Sums],
    missing: Sums,
    total: Sums,
    units: Units,
    bounds: Bounds,
    scores: &mut [f64],
) {
    for (score, left) in scores.iter_mut().zip(left) {
        let left = [
            left[0].wrapping_add(missing[0]),
            left[1].wrapping_add(missing[1]),
        ];
        *score = split_score(left, total, units, bounds);
    }
}

/// Gradients, hessians and losses of the rows of a block.
#[derive(Debug)]
pub(crate) struct Derivatives<'a> {
    pub(crate) gradients: &'a mut [f32],
    pub(crate) hessians: &'a mut [f32],
    /// Of each row; at most [`BLOCK`].
    pub(crate) losses: &'a mut [f32],
}

for_each_level! {
    /// Of the logistic loss; targets are 0 and 1.
    pub(crate) fn logistic_derivatives => logistic_derivatives_body(
        scores: &[f64], targets: &[f32], to: &mut Derivatives<'_>,
    )
}

#[inline(always)]
fn logistic_derivatives_body<const FUSED: bool>(
    scores: &[f64],
    targets: &[f32],
    to: &mut Derivatives<'_>,
) {
    let places = to
        .gradients
        .iter_mut()
        .zip(to.hessians.iter_mut())
        .zip(to.losses.iter_mut());
    for ((score, target), ((gradient, hessian), loss)) in scores.iter().zip(targets).zip(places) {
        let score = *score as f32;
        let share = logistic::<FUSED>(score);
        *gradient = share - target;
        *hessian = share * (1.0 - share);
        *loss = softplus::<FUSED>(score) - target * score;
    }
}

/// Of the squared error. The loss is the square itself, gradient and hessian are halves of its
/// derivatives.
pub(crate) fn squared_derivatives(scores: &[f64], targets: &[f32], to: &mut Derivatives<'_>) {
    let places = to
        .gradients
        .iter_mut()
        .zip(to.hessians.iter_mut())
        .zip(to.losses.iter_mut());
    for ((score, target), ((gradient, hessian), loss)) in scores.iter().zip(targets).zip(places) {
        let error = (score - f64::from(*target)) as f32;
        *gradient = error;
        *hessian = 1.0;
        *loss = error * error;
    }
}

/// Of Huber's loss (Huber 1964), with 1 for the hessian.
pub(crate) fn huber_derivatives(
    scores: &[f64],
    targets: &[f32],
    delta: f32,
    to: &mut Derivatives<'_>,
) {
    let places = to
        .gradients
        .iter_mut()
        .zip(to.hessians.iter_mut())
        .zip(to.losses.iter_mut());
    for ((score, target), ((gradient, hessian), loss)) in scores.iter().zip(targets).zip(places) {
        let error = (score - f64::from(*target)) as f32;
        let size = error.abs();
        *gradient = error.clamp(-delta, delta);
        *hessian = 1.0;
        *loss = if size <= delta {
            0.5 * error * error
        } else {
            delta * (size - 0.5 * delta)
        };
    }
}

for_each_level! {
    /// Shares of classes from scores, by columns of `rows`: softmax over the classes of each row,
    /// and in `sums` the logarithm of the sum of the exponentials.
    pub(crate) fn softmax_columns => softmax_columns_body(
        scores: &[f32], rows: usize, shares: &mut [f32], highest: &mut [f32], sums: &mut [f32],
    )
}

#[inline(always)]
fn softmax_columns_body<const FUSED: bool>(
    scores: &[f32],
    rows: usize,
    shares: &mut [f32],
    highest: &mut [f32],
    sums: &mut [f32],
) {
    let (highest, sums) = (&mut highest[..rows], &mut sums[..rows]);
    highest.fill(f32::NEG_INFINITY);
    sums.fill(0.0);
    for scores in scores.chunks_exact(rows.max(1)) {
        for (highest, score) in highest.iter_mut().zip(scores) {
            *highest = if *score > *highest { *score } else { *highest };
        }
    }
    let columns = scores
        .chunks_exact(rows.max(1))
        .zip(shares.chunks_exact_mut(rows.max(1)));
    for (scores, shares) in columns {
        let places = shares.iter_mut().zip(sums.iter_mut());
        for ((score, highest), (share, sum)) in scores.iter().zip(&*highest).zip(places) {
            *share = exponential::<FUSED>(score - highest);
            *sum += *share;
        }
    }
    for shares in shares.chunks_exact_mut(rows.max(1)) {
        for (share, sum) in shares.iter_mut().zip(&*sums) {
            *share /= sum;
        }
    }
    for (sum, highest) in sums.iter_mut().zip(&*highest) {
        *sum = highest + logarithm::<FUSED>(*sum);
    }
}

for_each_level! {
    /// 1 / (1 + exp(-score)) of each score.
    pub(crate) fn logistic_shares => logistic_shares_body(scores: &[f32], shares: &mut [f32])
}

#[inline(always)]
fn logistic_shares_body<const FUSED: bool>(scores: &[f32], shares: &mut [f32]) {
    for (share, score) in shares.iter_mut().zip(scores) {
        *share = logistic::<FUSED>(*score);
    }
}

/// Gradients and hessians as whole numbers of these units.
pub(crate) fn to_whole_numbers(
    gradients: &[f32],
    hessians: &[f32],
    units_in: [f32; 2],
    pairs: &mut [[i32; 2]],
) {
    for ((gradient, hessian), pair) in gradients.iter().zip(hessians).zip(pairs) {
        *pair = [
            nearest(gradient * units_in[0]),
            nearest(hessian * units_in[1]),
        ];
    }
}

/// The nearest whole number; halves go away from 0.
#[inline(always)]
fn nearest(number: f32) -> i32 {
    (f64::from(number) + 0.5_f64.copysign(f64::from(number))) as i32
}
