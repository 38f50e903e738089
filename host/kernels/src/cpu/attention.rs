//! Attention: a block of rows of the query at a time, so that its scores stay near.
//!
//! A row of the query meets the keys in one chain per score and the values in one chain per
//! element, in the order of the places; what a position does not see counts as 0. So the result
//! of a row does not depend on the blocks, nor on the batch.

use super::kept::{Kept, PAGE};
use super::level::{Level, for_each_level};
use super::math;
use super::memory::Memory;
use super::multiply::{Product, RightLayout, multiply_rows, pack};
use super::rows;
use crate::plan::{ATTENTION_ROWS, Attention, PANEL, Place, aligned};

/// The rows of one head in [time, heads, width].
#[derive(Clone, Copy)]
struct Head {
    start: *const f32,
    /// From one position to the next.
    stride: usize,
}

impl Attention {
    /// Where the positions of a head begin, and how far apart they are.
    fn head(&self, start: *const f32, batch: usize, heads: usize, head: usize) -> Head {
        let stride = heads * self.width;
        Head {
            start: start.wrapping_add((batch * self.time) * stride + head * self.width),
            stride,
        }
    }

    /// What the rows up to `end` see; their scores are `stride` apart, if that is given.
    fn sight(&self, first: usize, end: usize, stride: Option<usize>) -> Sight {
        let seen = if self.causal { end } else { self.time };
        Sight {
            stride: stride.unwrap_or(seen),
            seen,
            first,
            causal: self.causal,
            scale: self.scale,
        }
    }

    pub(crate) fn elements(&self, heads: usize) -> usize {
        self.batch * self.time * heads * self.width
    }
}

/// What a block of rows sees.
#[derive(Clone, Copy)]
struct Sight {
    /// From the scores of one row to those of the next.
    stride: usize,
    /// Places that the last row sees.
    seen: usize,
    /// The first row.
    first: usize,
    causal: bool,
    scale: f32,
}

impl Sight {
    /// Places that a row of the block sees.
    #[inline(always)]
    fn own(self, row: usize) -> usize {
        if self.causal {
            self.first + row + 1
        } else {
            self.seen
        }
    }
}

/// Blocks of rows.
fn blocks(time: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..time)
        .step_by(ATTENTION_ROWS)
        .map(move |first| (first, (first + ATTENTION_ROWS).min(time)))
}

/// Transposes the positions of a head into panels.
///
/// # Safety
/// The head has the positions of the attention.
unsafe fn turn(of: &Attention, head: Head, target: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pack(head.start, 1, head.stride, of.width, of.time, target) };
}

/// `left` [rows, width] times transposed positions [width, columns].
///
/// # Safety
/// The left head has `rows` positions, and the target so many rows of that stride.
unsafe fn scores(
    level: Level,
    of: &Attention,
    left: Head,
    rows: usize,
    turned: &[f32],
    sight: Sight,
    target: *mut f32,
) {
    let product = Product {
        m: rows,
        k: of.width,
        n: sight.seen,
        left: left.start,
        row_stride: left.stride,
        column_stride: 1,
        right: turned.as_ptr(),
        layout: RightLayout::Panels {
            stride: of.width * PANEL,
        },
        bias: std::ptr::null(),
        relu: false,
        target,
        target_stride: sight.stride,
    };
    // SAFETY: the caller's promise.
    unsafe { multiply_rows(level, &product, 0, rows) };
}

/// # Safety
/// The plan gave places and sizes that fit, the target apart from the operands.
pub(super) unsafe fn attend(level: Level, of: &Attention, memory: &Memory<'_>) {
    let Attention {
        batch,
        time,
        heads,
        key_heads,
        width,
        ..
    } = *of;
    if of.elements(heads) == 0 {
        return;
    }
    let query = memory.at(of.query, of.elements(heads)).cast_const();
    let key = memory.at(of.key, of.elements(key_heads)).cast_const();
    let value = memory.at(of.value, of.elements(key_heads)).cast_const();
    let target = memory.at(of.target, of.elements(heads));
    // SAFETY: the scratch is this run's alone.
    let scratch = unsafe { memory.scratch.slice_mut() };
    let (turned, shares) = scratch.split_at_mut(of.panels());
    let group = heads / key_heads;
    for batch in 0..batch {
        for key_head in 0..key_heads {
            // SAFETY: of the whole loop: heads and positions are inside what was asked for above.
            unsafe { turn(of, of.head(key, batch, key_heads, key_head), turned) };
            let value = of.head(value, batch, key_heads, key_head);
            for head in key_head * group..(key_head + 1) * group {
                let query = of.head(query, batch, heads, head);
                let target = of.head(target, batch, heads, head);
                for (first, end) in blocks(time) {
                    let (rows, sight) = (end - first, of.sight(first, end, None));
                    let seen = sight.seen;
                    let block = Head {
                        start: query.start.wrapping_add(first * query.stride),
                        ..query
                    };
                    // SAFETY: as above.
                    unsafe { scores(level, of, block, rows, turned, sight, shares.as_mut_ptr()) };
                    let shares = &mut shares[..rows * seen];
                    softmax(level, shares, sight);
                    let product = Product {
                        m: rows,
                        k: seen,
                        n: width,
                        left: shares.as_ptr(),
                        row_stride: seen,
                        column_stride: 1,
                        right: value.start,
                        layout: RightLayout::Rows {
                            stride: value.stride,
                        },
                        bias: std::ptr::null(),
                        relu: false,
                        target: target.start.wrapping_add(first * target.stride).cast_mut(),
                        target_stride: target.stride,
                    };
                    // SAFETY: as above.
                    unsafe { multiply_rows(level, &product, 0, rows) };
                }
            }
        }
    }
}

/// # Safety
/// As [`attend`].
pub(super) unsafe fn slope(level: Level, of: &Attention, slope: Place, memory: &Memory<'_>) {
    let Attention {
        batch,
        time,
        heads,
        key_heads,
        width,
        ..
    } = *of;
    if of.elements(heads) == 0 {
        return;
    }
    let query = memory.at(of.query, of.elements(heads)).cast_const();
    let key = memory.at(of.key, of.elements(key_heads)).cast_const();
    let value = memory.at(of.value, of.elements(key_heads)).cast_const();
    let slope = memory.at(slope, of.elements(heads)).cast_const();
    let all_heads = heads + 2 * key_heads;
    let target = memory.at(of.target, of.elements(all_heads));
    // SAFETY: the scratch is this run's alone.
    let scratch = unsafe { memory.scratch.slice_mut() };
    let (turned_keys, scratch) = scratch.split_at_mut(of.panels());
    let (turned_values, scratch) = scratch.split_at_mut(of.panels());
    let (shares, scratch) = scratch.split_at_mut(aligned(time * time));
    let (slopes, part) = scratch.split_at_mut(aligned(time * time));
    let group = heads / key_heads;
    for batch in 0..batch {
        for key_head in 0..key_heads {
            let key = of.head(key, batch, key_heads, key_head);
            // SAFETY: of the whole loop: heads and positions are inside what was asked for above.
            unsafe {
                turn(of, key, turned_keys);
                turn(
                    of,
                    of.head(value, batch, key_heads, key_head),
                    turned_values,
                );
            }
            for head in key_head * group..(key_head + 1) * group {
                let query = of.head(query, batch, heads, head);
                let slope = of.head(slope, batch, heads, head);
                let target_query = of.head(target, batch, all_heads, head);
                for (first, end) in blocks(time) {
                    let (rows, sight) = (end - first, of.sight(first, end, Some(time)));
                    let seen = sight.seen;
                    let at = |head: Head| Head {
                        start: head.start.wrapping_add(first * head.stride),
                        ..head
                    };
                    let shares = &mut shares[first * time..end * time];
                    let slopes = &mut slopes[first * time..end * time];
                    // SAFETY: as above.
                    unsafe {
                        scores(
                            level,
                            of,
                            at(query),
                            rows,
                            turned_keys,
                            sight,
                            shares.as_mut_ptr(),
                        );
                        scores(
                            level,
                            of,
                            at(slope),
                            rows,
                            turned_values,
                            sight,
                            slopes.as_mut_ptr(),
                        );
                    }
                    softmax(level, shares, sight);
                    softmax_slope(level, shares, slopes, sight);
                    let product = Product {
                        m: rows,
                        k: seen,
                        n: width,
                        left: slopes.as_ptr(),
                        row_stride: time,
                        column_stride: 1,
                        right: key.start,
                        layout: RightLayout::Rows { stride: key.stride },
                        bias: std::ptr::null(),
                        relu: false,
                        target: at(target_query).start.cast_mut(),
                        target_stride: target_query.stride,
                    };
                    // SAFETY: as above.
                    unsafe { multiply_rows(level, &product, 0, rows) };
                }
                let first_of_group = head == key_head * group;
                for (left, right, place) in [
                    (&*slopes, query, heads + key_head),
                    (&*shares, slope, heads + key_heads + key_head),
                ] {
                    let target = of.head(target, batch, all_heads, place);
                    for (first, end) in blocks(time) {
                        let from = if of.causal { first } else { 0 };
                        let (place, stride) = if first_of_group {
                            let start = target.start.wrapping_add(first * target.stride);
                            (start.cast_mut(), target.stride)
                        } else {
                            (part.as_mut_ptr(), width)
                        };
                        let product = Product {
                            m: end - first,
                            k: time - from,
                            n: width,
                            left: left[from * time + first..].as_ptr(),
                            row_stride: 1,
                            column_stride: time,
                            right: right.start.wrapping_add(from * right.stride),
                            layout: RightLayout::Rows {
                                stride: right.stride,
                            },
                            bias: std::ptr::null(),
                            relu: false,
                            target: place,
                            target_stride: stride,
                        };
                        // SAFETY: as above.
                        unsafe { multiply_rows(level, &product, 0, end - first) };
                        if !first_of_group {
                            for (row, part) in (first..end).zip(part.chunks_exact(width)) {
                                let start =
                                    target.start.wrapping_add(row * target.stride).cast_mut();
                                // SAFETY: as above.
                                let sum = unsafe { std::slice::from_raw_parts_mut(start, width) };
                                for (sum, part) in sum.iter_mut().zip(part) {
                                    *sum += part;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

for_each_level! {
    /// The shares of the scores of rows; what a row does not see gets 0.
    fn softmax => softmax_body(scores: &mut [f32], sight: Sight)
}

#[inline(always)]
fn softmax_body<const FUSED: bool>(scores: &mut [f32], sight: Sight) {
    for (row, scores) in scores.chunks_exact_mut(sight.stride).enumerate() {
        let own = sight.own(row);
        let whole = own.next_multiple_of(rows::LANES).min(sight.seen);
        let (near, rest) = scores[..sight.seen].split_at_mut(whole);
        rest.fill(0.0);
        share::<FUSED>(near, own, sight.scale);
    }
}

/// Lanes of scores, one register of the widest kind.
type Lanes = [f32; rows::LANES];

/// Scores to shares. `scores` may go on behind the `count` that count, but not by whole lanes; the
/// rest becomes 0.
#[inline(always)]
fn share<const FUSED: bool>(scores: &mut [f32], count: usize, scale: f32) {
    let (lanes, rest) = scores.as_chunks_mut::<{ rows::LANES }>();
    if rest.is_empty() {
        if let Some((last, before)) = lanes.split_last_mut() {
            share_lanes::<FUSED>(before, last, count, scale);
        }
    } else {
        let mut last = [0.0; rows::LANES];
        last[..rest.len()].copy_from_slice(rest);
        share_lanes::<FUSED>(lanes, &mut last, count, scale);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// The same over whole lanes, of which only the last may hold what does not count. Nothing is
/// written in part, since reading it back as a whole would wait. Loops over the last lanes go by
/// number: over several iterators they do not become vector code.
#[inline(always)]
fn share_lanes<const FUSED: bool>(
    before: &mut [Lanes],
    last: &mut Lanes,
    count: usize,
    scale: f32,
) {
    let own = count - before.len() * rows::LANES;
    let counts: [bool; rows::LANES] = std::array::from_fn(|lane| lane < own);
    let mut largest = [f32::NEG_INFINITY; rows::LANES];
    for scores in before.iter_mut() {
        for (score, largest) in scores.iter_mut().zip(&mut largest) {
            *score *= scale;
            *largest = rows::greater(*largest, *score);
        }
    }
    for lane in 0..rows::LANES {
        let score = last[lane] * scale;
        last[lane] = if counts[lane] {
            score
        } else {
            f32::NEG_INFINITY
        };
        largest[lane] = rows::greater(largest[lane], last[lane]);
    }
    let largest = rows::join_lanes(largest, rows::greater);
    let mut sums = [0.0; rows::LANES];
    for scores in before.iter_mut() {
        for (score, sum) in scores.iter_mut().zip(&mut sums) {
            *score = math::exponential::<FUSED>(*score - largest);
            *sum += *score;
        }
    }
    for lane in 0..rows::LANES {
        // The exponential of what does not count would be subnormal on its way to 0: slow.
        let score = if counts[lane] { last[lane] } else { largest };
        let share = math::exponential::<FUSED>(score - largest);
        last[lane] = if counts[lane] { share } else { 0.0 };
        sums[lane] += last[lane];
    }
    let inverse = 1.0 / rows::join_lanes(sums, |a, b| a + b);
    for score in before.as_flattened_mut() {
        *score *= inverse;
    }
    for score in last {
        *score *= inverse;
    }
}

for_each_level! {
    /// From the gradients of shares to those of scores, in place.
    fn softmax_slope => softmax_slope_body(shares: &[f32], slopes: &mut [f32], sight: Sight)
}

#[inline(always)]
fn softmax_slope_body<const FUSED: bool>(shares: &[f32], slopes: &mut [f32], sight: Sight) {
    for (row, (shares, slopes)) in shares
        .chunks_exact(sight.stride)
        .zip(slopes.chunks_exact_mut(sight.stride))
        .enumerate()
    {
        let own = sight.own(row);
        // Behind what the row sees, shares are 0, and so are these.
        let whole = own.next_multiple_of(rows::LANES).min(sight.seen);
        let (slopes, rest) = slopes[..sight.seen].split_at_mut(whole);
        rest.fill(0.0);
        let shares = &shares[..whole];
        let mean = rows::dot(shares, slopes);
        for (slope, share) in slopes.iter_mut().zip(shares) {
            *slope = (*slope - mean) * share * sight.scale;
        }
    }
}

/// Adds the positions of this run to what is kept of each sequence, and attends to all of it.
///
/// # Safety
/// As [`attend`]; the pages of the sequences belong to this run alone.
pub(super) unsafe fn attend_kept(
    level: Level,
    of: &Attention,
    memory: &Memory<'_>,
    kept: &Kept<'_>,
) {
    let Attention {
        batch,
        time,
        heads,
        key_heads,
        width,
        ..
    } = *of;
    if of.elements(heads) == 0 {
        return;
    }
    // SAFETY: the plan's promise, as for every instruction.
    let (query, key, value, target, scratch) = unsafe {
        (
            memory.read(of.query, of.elements(heads)),
            memory.read(of.key, of.elements(key_heads)),
            memory.read(of.value, of.elements(key_heads)),
            memory.write(of.target, of.elements(heads)),
            memory.scratch.slice_mut(),
        )
    };
    let (keys, values) = kept.layer(of.id);
    // SAFETY: the caller's promise: no other run has pages of these sequences.
    let (keys, values) = unsafe { (keys.slice_mut(), values.slice_mut()) };
    let own = key_heads * width;
    let page_elements = own * PAGE;
    for (batch, sequence) in kept.sequences.iter().enumerate().take(batch) {
        for step in 0..time {
            let position = sequence.length + step;
            let from = (batch * time + step) * own;
            let page = sequence.pages[position / PAGE] as usize * page_elements;
            let place = position % PAGE;
            for head in 0..key_heads {
                let start = page + head * width * PAGE;
                let source = from + head * width;
                for (index, number) in key[source..][..width].iter().enumerate() {
                    keys[start + index * PAGE + place] = *number;
                }
                values[start + place * width..][..width].copy_from_slice(&value[source..][..width]);
            }
            let row = (batch * time + step) * heads * width;
            let kept = Row {
                keys,
                values,
                pages: sequence.pages,
                length: position + 1,
                key_heads,
                width,
                scale: of.scale,
            };
            let query = &query[row..][..heads * width];
            attend_row(
                level,
                &kept,
                query,
                &mut target[row..][..heads * width],
                scratch,
            );
        }
    }
}

/// What one position of a query attends to.
struct Row<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    pages: &'a [u32],
    /// Positions, the query's own included.
    length: usize,
    key_heads: usize,
    width: usize,
    scale: f32,
}

for_each_level! {
    /// One position of the query against pages of keys and values.
    fn attend_row => attend_row_body(
        of: &Row<'_>,
        query: &[f32],
        target: &mut [f32],
        scratch: &mut [f32],
    )
}

#[inline(always)]
fn attend_row_body<const FUSED: bool>(
    of: &Row<'_>,
    query: &[f32],
    target: &mut [f32],
    scratch: &mut [f32],
) {
    let Row {
        keys,
        values,
        pages,
        length,
        key_heads,
        width,
        scale,
    } = *of;
    let heads = query.len() / width;
    let group = heads / key_heads;
    let page_elements = key_heads * width * PAGE;
    let used = length.div_ceil(PAGE);
    let scores = &mut scratch[..used * PAGE];
    for (head, (query, target)) in query
        .chunks_exact(width)
        .zip(target.chunks_exact_mut(width))
        .enumerate()
    {
        let offset = head / group * width * PAGE;
        for (scores, page) in scores.chunks_exact_mut(PAGE).zip(pages) {
            let page = &keys[*page as usize * page_elements + offset..][..width * PAGE];
            let mut sums = [0.0; PAGE];
            for (number, places) in query.iter().zip(page.chunks_exact(PAGE)) {
                for (sum, place) in sums.iter_mut().zip(places) {
                    *sum = math::multiply_add::<FUSED>(*number, *place, *sum);
                }
            }
            scores.copy_from_slice(&sums);
        }
        share::<FUSED>(scores, length, scale);
        target.fill(0.0);
        for (shares, page) in scores[..length].chunks(PAGE).zip(pages) {
            let page = &values[*page as usize * page_elements + offset..][..width * PAGE];
            for (share, row) in shares.iter().zip(page.chunks_exact(width)) {
                for (sum, number) in target.iter_mut().zip(row) {
                    *sum = math::multiply_add::<FUSED>(*share, *number, *sum);
                }
            }
        }
    }
}
