//! Kernels along an axis. Sums run over sixteen lanes and then over a fixed tree of them, so
//! that they are the same bits whatever registers the processor has.

use super::level::for_each_level;
use super::math;
use crate::ir::Fold;

/// Lanes of a sum.
pub(super) const LANES: usize = 16;

/// Rows of at most so many elements are taken several at a time.
const STRIP: usize = 512;

/// Joins lanes by a fixed tree: the upper half to the lower, until one is left.
#[inline(always)]
pub(super) fn join_lanes(lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|lane| join(lanes[lane], lanes[lane + 8]));
    let four: [f32; 4] = std::array::from_fn(|lane| join(eight[lane], eight[lane + 4]));
    let two = [join(four[0], four[2]), join(four[1], four[3])];
    join(two[0], two[1])
}

/// Folds `value` of each number over lanes. Whole chunks are arrays, so that a chunk becomes one
/// step of vector code.
#[inline(always)]
fn lanes(
    values: &[f32],
    start: f32,
    value: impl Fn(f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, number) in lanes.iter_mut().zip(chunk) {
            *lane = join(*lane, value(*number));
        }
    }
    for (lane, number) in lanes.iter_mut().zip(rest) {
        *lane = join(*lane, value(*number));
    }
    join_lanes(lanes, join)
}

/// Folds `value` of the numbers of two rows over lanes; `right` is as long as `left`.
#[inline(always)]
fn lanes_of_two(
    left: &[f32],
    right: &[f32],
    start: f32,
    value: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (left_chunks, left_rest) = left.as_chunks::<LANES>();
    let (right_chunks, right_rest) = right.as_chunks::<LANES>();
    for (left, right) in left_chunks.iter().zip(right_chunks) {
        for (lane, (left, right)) in lanes.iter_mut().zip(left.iter().zip(right)) {
            *lane = join(*lane, value(*left, *right));
        }
    }
    for (lane, (left, right)) in lanes.iter_mut().zip(left_rest.iter().zip(right_rest)) {
        *lane = join(*lane, value(*left, *right));
    }
    join_lanes(lanes, join)
}

#[inline(always)]
pub(super) fn sum(values: &[f32]) -> f32 {
    lanes(values, 0.0, |value| value, |a, b| a + b)
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

/// The sum of products; `right` is as long as `left`.
#[inline(always)]
pub(super) fn dot(left: &[f32], right: &[f32]) -> f32 {
    lanes_of_two(left, right, 0.0, |a, b| a * b, |a, b| a + b)
}

/// The second where it is greater, by one comparison.
#[inline(always)]
pub(super) fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The largest of those that are numbers: for a softmax, to whose sum what is not a number gets
/// anyway.
#[inline(always)]
pub(super) fn maximum(values: &[f32]) -> f32 {
    lanes(values, f32::NEG_INFINITY, |value| value, greater)
}

for_each_level! {
    /// [outer, count, inner] to [outer, inner].
    pub(crate) fn reduce => reduce_body(
        fold: Fold,
        source: &[f32],
        target: &mut [f32],
        count: usize,
        inner: usize,
    )
}

#[inline(always)]
fn reduce_body<const FUSED: bool>(
    fold: Fold,
    source: &[f32],
    target: &mut [f32],
    count: usize,
    inner: usize,
) {
    match fold {
        Fold::Sum => reduce_by(source, target, count, inner, 0.0, |a, b| a + b),
        Fold::Maximum => reduce_by(source, target, count, inner, f32::NEG_INFINITY, larger),
        Fold::Minimum => reduce_by(source, target, count, inner, f32::INFINITY, smaller),
    }
}

#[inline(always)]
fn reduce_by(
    source: &[f32],
    target: &mut [f32],
    count: usize,
    inner: usize,
    start: f32,
    join: impl Fn(f32, f32) -> f32 + Copy,
) {
    if count == 0 || inner == 0 {
        target.fill(start);
        return;
    }
    if inner == 1 {
        for (row, target) in source.chunks_exact(count).zip(target) {
            *target = lanes(row, start, |value| value, join);
        }
        return;
    }
    for (matrix, target) in source
        .chunks_exact(count * inner)
        .zip(target.chunks_exact_mut(inner))
    {
        target.fill(start);
        for row in matrix.chunks_exact(inner) {
            for (target, value) in target.iter_mut().zip(row) {
                *target = join(*target, *value);
            }
        }
    }
}

/// [rows, count] to [rows]: the place of the first largest; not a number is largest.
pub(crate) fn argmax(source: &[f32], target: &mut [i32], count: usize) {
    if count == 0 {
        target.fill(0);
        return;
    }
    for (row, target) in source.chunks_exact(count).zip(target) {
        let mut best = (row[0], 0);
        for (place, value) in row.iter().copied().enumerate() {
            if value > best.0 || value.is_nan() && !best.0.is_nan() {
                best = (value, place);
            }
        }
        *target = best.1 as i32;
    }
}

/// Rows that are taken at a time, so that short rows fill registers too.
fn rows_at_once(count: usize) -> usize {
    (STRIP / count).max(1)
}

/// The exponentials of a few rows, after the largest of each was taken away.
#[inline(always)]
fn exponentials<const FUSED: bool>(source: &[f32], target: &mut [f32], count: usize) {
    for (row, out) in source
        .chunks_exact(count)
        .zip(target.chunks_exact_mut(count))
    {
        let largest = maximum(row);
        for (out, value) in out.iter_mut().zip(row) {
            *out = value - largest;
        }
    }
    for value in target.iter_mut() {
        *value = math::exponential::<FUSED>(*value);
    }
}

for_each_level! {
    /// Over the last extent of [rows, count].
    pub(crate) fn softmax => softmax_body(
        source: &[f32],
        target: &mut [f32],
        count: usize,
        logarithm: bool,
    )
}

#[inline(always)]
fn softmax_body<const FUSED: bool>(
    source: &[f32],
    target: &mut [f32],
    count: usize,
    logarithm: bool,
) {
    if count == 0 {
        return;
    }
    let strip = rows_at_once(count) * count;
    for (source, target) in source.chunks(strip).zip(target.chunks_mut(strip)) {
        exponentials::<FUSED>(source, target, count);
        for (row, out) in source
            .chunks_exact(count)
            .zip(target.chunks_exact_mut(count))
        {
            let total = sum(out);
            if logarithm {
                let largest = maximum(row);
                let logarithm = math::logarithm::<FUSED>(total);
                for (out, value) in out.iter_mut().zip(row) {
                    *out = value - largest - logarithm;
                }
            } else {
                let share = 1.0 / total;
                for out in out {
                    *out *= share;
                }
            }
        }
    }
}

for_each_level! {
    /// [rows, count] logits and labels, all in range, to the loss of each row.
    pub(crate) fn cross_entropy => cross_entropy_body(
        logits: &[f32],
        labels: &[i32],
        target: &mut [f32],
        count: usize,
    )
}

#[inline(always)]
fn cross_entropy_body<const FUSED: bool>(
    logits: &[f32],
    labels: &[i32],
    target: &mut [f32],
    count: usize,
) {
    let mut scratch = [0.0; STRIP];
    let rows = rows_at_once(count);
    let strips = logits
        .chunks(rows * count)
        .zip(labels.chunks(rows))
        .zip(target.chunks_mut(rows));
    for ((logits, labels), target) in strips {
        if count <= STRIP {
            exponentials::<FUSED>(logits, &mut scratch[..logits.len()], count);
        }
        let each = logits
            .chunks_exact(count)
            .zip(labels)
            .zip(target.iter_mut());
        for (place, ((logits, label), target)) in each.enumerate() {
            let largest = maximum(logits);
            let total = if count <= STRIP {
                sum(&scratch[place * count..][..count])
            } else {
                let exponential = |logit| math::exponential::<FUSED>(logit - largest);
                lanes(logits, 0.0, exponential, |a, b| a + b)
            };
            *target = math::logarithm::<FUSED>(total) + (largest - logits[*label as usize]);
        }
    }
}

for_each_level! {
    /// The gradient of the logits: (softmax - 1 at the label) times the slope of the row.
    pub(crate) fn cross_entropy_slope => cross_entropy_slope_body(
        logits: &[f32],
        labels: &[i32],
        slopes: &[f32],
        target: &mut [f32],
        count: usize,
    )
}

#[inline(always)]
fn cross_entropy_slope_body<const FUSED: bool>(
    logits: &[f32],
    labels: &[i32],
    slopes: &[f32],
    target: &mut [f32],
    count: usize,
) {
    let rows = rows_at_once(count);
    let strips = logits
        .chunks(rows * count)
        .zip(target.chunks_mut(rows * count));
    for ((logits, target), (labels, slopes)) in
        strips.zip(labels.chunks(rows).zip(slopes.chunks(rows)))
    {
        exponentials::<FUSED>(logits, target, count);
        for (out, (label, slope)) in target
            .chunks_exact_mut(count)
            .zip(labels.iter().zip(slopes))
        {
            let share = slope / sum(out);
            for out in out.iter_mut() {
                *out *= share;
            }
            out[*label as usize] -= slope;
        }
    }
}

/// The mean of a row and 1 / its deviation.
#[inline(always)]
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let share = 1.0 / row.len() as f32;
    let mean = sum(row) * share;
    let square = |value: f32| (value - mean) * (value - mean);
    let variance = lanes(row, 0.0, square, |a, b| a + b) * share;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

for_each_level! {
    /// (x - mean) / deviation over the last extent of [rows, count].
    pub(crate) fn normalize => normalize_body(
        source: &[f32],
        target: &mut [f32],
        count: usize,
        epsilon: f32,
    )
}

#[inline(always)]
fn normalize_body<const FUSED: bool>(
    source: &[f32],
    target: &mut [f32],
    count: usize,
    epsilon: f32,
) {
    if count == 0 {
        return;
    }
    for (row, out) in source
        .chunks_exact(count)
        .zip(target.chunks_exact_mut(count))
    {
        let (mean, inverse) = moments(row, epsilon);
        for (out, value) in out.iter_mut().zip(row) {
            *out = (value - mean) * inverse;
        }
    }
}

for_each_level! {
    /// The gradient of [`normalize`]: (g - mean(g) - x̂ mean(g x̂)) / deviation
    /// (Ba, Kiros and Hinton 2016, supplement).
    pub(crate) fn normalize_slope => normalize_slope_body(
        source: &[f32],
        slopes: &[f32],
        target: &mut [f32],
        count: usize,
        epsilon: f32,
    )
}

#[inline(always)]
fn normalize_slope_body<const FUSED: bool>(
    source: &[f32],
    slopes: &[f32],
    target: &mut [f32],
    count: usize,
    epsilon: f32,
) {
    if count == 0 {
        return;
    }
    let share = 1.0 / count as f32;
    let rows = source.chunks_exact(count).zip(slopes.chunks_exact(count));
    for ((row, slopes), out) in rows.zip(target.chunks_exact_mut(count)) {
        let (mean, inverse) = moments(row, epsilon);
        let slope_mean = sum(slopes) * share;
        let product = |value: f32, slope: f32| slope * ((value - mean) * inverse);
        let correlation = lanes_of_two(row, slopes, 0.0, product, |a, b| a + b) * share;
        for ((out, value), slope) in out.iter_mut().zip(row).zip(slopes) {
            let normal = (value - mean) * inverse;
            *out = inverse * (slope - slope_mean - normal * correlation);
        }
    }
}
