//! Kernels that order, sum, pick and unpack the elements along an axis, row by row.

use std::cmp::Ordering;

use super::lookup::{OutOfRange, checked};

/// [outer, count, inner]: the sum of those up to each, or from each on.
pub(crate) fn cumulative_sum(
    source: &[f32],
    target: &mut [f32],
    count: usize,
    inner: usize,
    exclusive: bool,
    reverse: bool,
) {
    if count * inner == 0 {
        return;
    }
    let matrices = source.chunks_exact(count * inner);
    for (source, target) in matrices.zip(target.chunks_exact_mut(count * inner)) {
        // Each row of the target is the row before it and a row of the source.
        let row = |step: usize| if reverse { count - 1 - step } else { step };
        let first = &mut target[row(0) * inner..][..inner];
        if exclusive {
            first.fill(0.0);
        } else {
            first.copy_from_slice(&source[row(0) * inner..][..inner]);
        }
        for step in 1..count {
            let (before, this) = (row(step - 1) * inner, row(step) * inner);
            let added = if exclusive { before } else { this };
            for place in 0..inner {
                target[this + place] = target[before + place] + source[added + place];
            }
        }
    }
}

/// Largest first; not a number before all, equal ones by place.
fn by_size(row: &[f32], one: u32, other: u32) -> Ordering {
    let (a, b) = (row[one as usize], row[other as usize]);
    let order = match (a.is_nan(), b.is_nan()) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        _ => b.partial_cmp(&a).unwrap_or(Ordering::Equal),
    };
    order.then(one.cmp(&other))
}

/// [rows, count] to the places of the `kept` largest of each row, in order.
pub(crate) fn top_k(source: &[f32], target: &mut [i32], count: usize, kept: usize) {
    if kept == 0 {
        return;
    }
    let mut places: Vec<u32> = Vec::with_capacity(count);
    for (row, target) in source
        .chunks_exact(count)
        .zip(target.chunks_exact_mut(kept))
    {
        places.clear();
        places.extend(0..count as u32);
        if kept < count {
            places.select_nth_unstable_by(kept - 1, |a, b| by_size(row, *a, *b));
        }
        let largest = &mut places[..kept];
        largest.sort_unstable_by(|a, b| by_size(row, *a, *b));
        for (target, place) in target.iter_mut().zip(largest) {
            *target = *place as i32;
        }
    }
}

/// Of each row of [rows, count], the elements of [rows, taken] indices.
pub(crate) fn take(
    source: &[f32],
    indices: &[i32],
    target: &mut [f32],
    count: usize,
    taken: usize,
) -> Result<(), OutOfRange> {
    if taken == 0 {
        return Ok(());
    }
    let rows = target
        .chunks_exact_mut(taken)
        .zip(indices.chunks_exact(taken));
    for (row, (target, indices)) in rows.enumerate() {
        for (place, (target, number)) in target.iter_mut().zip(indices).enumerate() {
            let at = checked(*number, row * taken + place, count)?;
            *target = source[row * count + at];
        }
    }
    Ok(())
}

/// Zeros [rows, count], to which [rows, taken] elements are added at their indices, in order.
pub(crate) fn put(
    indices: &[i32],
    source: &[f32],
    target: &mut [f32],
    count: usize,
    taken: usize,
) -> Result<(), OutOfRange> {
    target.fill(0.0);
    if taken == 0 {
        return Ok(());
    }
    let rows = source.chunks_exact(taken).zip(indices.chunks_exact(taken));
    for (row, (source, indices)) in rows.enumerate() {
        for (place, (value, number)) in source.iter().zip(indices).enumerate() {
            let at = checked(*number, row * taken + place, count)?;
            target[row * count + at] += value;
        }
    }
    Ok(())
}

/// How windows stand on an axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) count: usize,
    pub(crate) size: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    /// Elements of the axis.
    pub(crate) extent: usize,
    /// Elements behind each of the axis.
    pub(crate) inner: usize,
}

/// [outer, windows, size, inner] to the sums at each place of [outer, extent, inner].
pub(crate) fn unwindow(source: &[f32], target: &mut [f32], windows: Windows) {
    let Windows {
        count,
        size,
        stride,
        dilation,
        extent,
        inner,
    } = windows;
    target.fill(0.0);
    if count * size * inner == 0 || extent == 0 {
        return;
    }
    for (source, target) in source
        .chunks_exact(count * size * inner)
        .zip(target.chunks_exact_mut(extent * inner))
    {
        for (window, elements) in source.chunks_exact(size * inner).enumerate() {
            for (place, element) in elements.chunks_exact(inner).enumerate() {
                let at = (window * stride + place * dilation) * inner;
                for (sum, value) in target[at..at + inner].iter_mut().zip(element) {
                    *sum += value;
                }
            }
        }
    }
}

/// [rows, words] to the first `count` numbers of `bits` in each row.
pub(crate) fn unpack(source: &[i32], target: &mut [f32], words: usize, count: usize, bits: u32) {
    if words == 0 || count == 0 {
        return;
    }
    let in_a_word = (32 / bits) as usize;
    for (words, target) in source
        .chunks_exact(words)
        .zip(target.chunks_exact_mut(count))
    {
        for (word, target) in words.iter().zip(target.chunks_mut(in_a_word)) {
            for (place, target) in target.iter_mut().enumerate() {
                // To the top, so that the sign comes back with the shift down.
                let up = 32 - bits * (place as u32 + 1);
                *target = (word.wrapping_shl(up) >> (32 - bits)) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_run_from_either_end_with_and_without_their_own_element() {
        let source = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0];
        let sums = |exclusive, reverse| {
            let mut target = [9.0; 6];
            cumulative_sum(&source, &mut target, 3, 2, exclusive, reverse);
            target
        };
        assert_eq!(sums(false, false), [1.0, 10.0, 3.0, 30.0, 6.0, 60.0]);
        assert_eq!(sums(true, false), [0.0, 0.0, 1.0, 10.0, 3.0, 30.0]);
        assert_eq!(sums(false, true), [6.0, 60.0, 5.0, 50.0, 3.0, 30.0]);
        assert_eq!(sums(true, true), [5.0, 50.0, 3.0, 30.0, 0.0, 0.0]);
    }

    #[test]
    fn the_largest_come_in_order_and_equal_ones_by_place() {
        let source = [1.0, 3.0, f32::NAN, 3.0, f32::NEG_INFINITY, 0.0, -0.0, 7.0];
        for (kept, expected) in [
            (8, &[2, 7, 1, 3, 0, 5, 6, 4][..]),
            (3, &[2, 7, 1]),
            (6, &[2, 7, 1, 3, 0, 5]),
        ] {
            let mut target = vec![0; kept];
            top_k(&source, &mut target, 8, kept);
            assert_eq!(target, expected);
        }
    }

    #[test]
    fn numbers_are_taken_out_of_words_with_their_sign() {
        let word = i32::from_le_bytes([0x01, 0xff, 0x80, 0x7f]);
        let mut bytes = [0.0; 4];
        unpack(&[word], &mut bytes, 1, 4, 8);
        assert_eq!(bytes, [1.0, -1.0, -128.0, 127.0]);
        let mut halves = [0.0; 7];
        unpack(&[word], &mut halves, 1, 7, 4);
        assert_eq!(halves, [1.0, 0.0, -1.0, -1.0, 0.0, -8.0, -1.0]);
    }

    #[test]
    fn windows_add_up_where_they_overlap() {
        let windows = Windows {
            count: 3,
            size: 2,
            stride: 1,
            dilation: 2,
            extent: 5,
            inner: 1,
        };
        let mut target = [9.0; 5];
        unwindow(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0], &mut target, windows);
        assert_eq!(target, [1.0, 4.0, 18.0, 8.0, 32.0]);
    }
}
