//! Rows on their way through trees, many at a time: each step waits for the memory of the one
//! before, so several rows, or for one row several trees, go side by side.

use super::level::Level;

/// A node of a tree.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct Node {
    /// At most this goes left; for categories the number of a mask, as bits.
    pub(crate) threshold: f32,
    /// From the lowest bit: 14 for the column, one for what is missing going left, one for a
    /// split by categories, 16 for how far on the left child is, before the right one; 0 for a
    /// leaf.
    pub(crate) step: u32,
}

/// Columns that a node can name.
pub(crate) const MAX_COLUMNS: usize = 1 << 14;
/// Nodes of a tree.
pub(crate) const MAX_NODES: usize = 1 << 16;
const COLUMN: u32 = MAX_COLUMNS as u32 - 1;
const MISSING_LEFT: u32 = 1 << 14;
const BY_CATEGORY: u32 = 1 << 15;

/// Which bins of categories go left.
pub(crate) type Mask = [u64; 4];

impl Node {
    /// A leaf.
    pub(crate) const LEAF: Node = Node {
        threshold: 0.0,
        step: 0,
    };

    /// A split by a number; column and distance are below what a node can hold.
    pub(crate) fn by_number(column: u32, threshold: f32, missing_left: bool, left: u32) -> Node {
        let flag = if missing_left { MISSING_LEFT } else { 0 };
        Node {
            threshold,
            step: column & COLUMN | flag | left << 16,
        }
    }

    /// A split by categories.
    pub(crate) fn by_category(column: u32, mask: u32, left: u32) -> Node {
        Node {
            threshold: f32::from_bits(mask),
            step: column & COLUMN | BY_CATEGORY | left << 16,
        }
    }

    /// The column that it splits by.
    pub(crate) fn column(self) -> usize {
        (self.step & COLUMN) as usize
    }

    /// How far on its left child is; 0 for a leaf.
    pub(crate) fn left(self) -> usize {
        (self.step >> 16) as usize
    }

    /// The number of its mask, if it splits by categories.
    pub(crate) fn mask(self) -> Option<usize> {
        (self.step & BY_CATEGORY != 0).then_some(self.threshold.to_bits() as usize)
    }

    /// Whether what is missing goes left.
    pub(crate) fn missing_left(self) -> bool {
        self.step & MISSING_LEFT != 0
    }

    /// How far on a row goes from here.
    #[inline(always)]
    fn next(self, masks: &[Mask], row: &[f32]) -> usize {
        let number = row[self.column()];
        let left = match self.mask() {
            None => number <= self.threshold || number.is_nan() && self.missing_left(),
            Some(mask) => {
                let bin = number.to_bits() & 255;
                masks[mask][(bin >> 6) as usize] >> (bin & 63) & 1 != 0
            }
        };
        let step = self.left();
        step + usize::from(step != 0 && !left)
    }
}

/// The bin of a category as a row holds it among its numbers: the bits of the number.
pub(crate) fn category_number(bin: u8) -> f32 {
    f32::from_bits(u32::from(bin))
}

/// Trees whose every number was checked, so that nothing needs to be checked on the way.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trees {
    nodes: Vec<Node>,
    /// What each leaf adds.
    values: Vec<f32>,
    /// The first node of each tree.
    roots: Vec<u32>,
    masks: Vec<Mask>,
    /// Numbers of a row, at least one.
    width: usize,
}

impl Trees {
    /// Trees over rows of `width` numbers; none if a node names a column, mask, child or root
    /// that is not there, or a child that is not after it.
    pub(crate) fn new(
        nodes: Vec<Node>,
        values: Vec<f32>,
        roots: Vec<u32>,
        masks: Vec<Mask>,
        width: usize,
    ) -> Option<Trees> {
        // Places are 32-bit and signed in vector code, also of the words of masks.
        let most = i32::MAX as usize / 8;
        let fits = (1..=MAX_COLUMNS).contains(&width)
            && nodes.len() < most
            && masks.len() < most
            && values.len() == nodes.len()
            && roots.iter().all(|root| (*root as usize) < nodes.len());
        let known = |(place, node): (usize, &Node)| {
            let left = node.left();
            left == 0
                || node.column() < width
                    && place + left + 1 < nodes.len()
                    && node.mask().is_none_or(|mask| mask < masks.len())
        };
        (fits && nodes.iter().enumerate().all(known)).then_some(Trees {
            nodes,
            values,
            roots,
            masks,
            width,
        })
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(crate) fn roots(&self) -> &[u32] {
        &self.roots
    }

    pub(crate) fn masks(&self) -> &[Mask] {
        &self.masks
    }

    /// Adds what each tree says of rows to the sums of each row, of which there are `outputs`;
    /// tree i belongs to output i modulo that. Rows are in the order of their sums.
    pub(crate) fn walk(&self, level: Level, rows: &[f32], sums: &mut [f64], outputs: usize) {
        let count = (rows.len() / self.width).min(sums.len() / outputs.max(1));
        let rows = &rows[..count * self.width];
        let sums = &mut sums[..count * outputs];
        #[cfg(target_arch = "x86_64")]
        if level.set() == super::level::Set::Avx512 && rows.len() < i32::MAX as usize {
            // SAFETY: the processor has the instructions of the level.
            return unsafe { vector::walk(self, rows, sums, outputs) };
        }
        let _ = level;
        let each = rows
            .chunks_exact(self.width)
            .zip(sums.chunks_exact_mut(outputs.max(1)));
        for (row, sums) in each {
            for (tree, root) in self.roots.iter().enumerate() {
                let mut place = *root as usize;
                loop {
                    let next = self.nodes[place].next(&self.masks, row);
                    if next == 0 {
                        break;
                    }
                    place += next;
                }
                sums[tree % outputs] += f64::from(self.values[place]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod vector {
    use std::arch::x86_64::*;

    use super::{BY_CATEGORY, COLUMN, MISSING_LEFT, Trees};

    /// Walks of one register.
    const LANES: usize = 16;
    /// Registers that go side by side: what one waits for hides behind the others.
    const CHAINS: usize = 4;
    const WALKS: usize = LANES * CHAINS;

    /// Rows side by side through one tree after the other; what is left over, row by row through
    /// trees side by side.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) fn walk(trees: &Trees, rows: &[f32], sums: &mut [f64], outputs: usize) {
        let width = trees.width;
        let several: [i32; WALKS] = std::array::from_fn(|lane| (lane * width) as i32);
        let same = [0; WALKS];
        let mut rows = rows;
        let mut sums = sums;
        let mut values = [0.0; WALKS];
        while let (Some((some, rest)), true) = (
            rows.split_at_checked(WALKS * width),
            sums.len() >= WALKS * outputs,
        ) {
            let (some_sums, rest_sums) = sums.split_at_mut(WALKS * outputs);
            for (tree, root) in trees.roots.iter().enumerate() {
                // SAFETY: the roots and all that follows from them were checked, and lane i has
                // the row that begins at i times the width.
                unsafe { leaves::<CHAINS>(trees, some, &several, &[*root; WALKS], &mut values) };
                let output = tree % outputs;
                let each = some_sums[output..].iter_mut().step_by(outputs);
                for (sum, value) in each.zip(values) {
                    *sum += f64::from(value);
                }
            }
            rows = rest;
            sums = rest_sums;
        }
        let each = rows.chunks_exact(width).zip(sums.chunks_exact_mut(outputs));
        for (row, sums) in each {
            for (group, roots) in trees.roots.chunks(WALKS).enumerate() {
                // Lanes without a tree of their own walk along with the first.
                let mut places = [roots[0]; WALKS];
                places[..roots.len()].copy_from_slice(roots);
                // SAFETY: as above, and all lanes have this row.
                unsafe {
                    match roots.len().div_ceil(LANES) {
                        1 => leaves::<1>(trees, row, &same, &places, &mut values),
                        2 => leaves::<2>(trees, row, &same, &places, &mut values),
                        3 => leaves::<3>(trees, row, &same, &places, &mut values),
                        _ => leaves::<CHAINS>(trees, row, &same, &places, &mut values),
                    }
                }
                let first = group * WALKS;
                for (tree, value) in (first..first + roots.len()).zip(values) {
                    sums[tree % outputs] += f64::from(value);
                }
            }
        }
    }

    /// Walks of the first `N` registers from some nodes to leaves, and the values of those.
    ///
    /// # Safety
    /// `from` are nodes of the trees; `rows` has `width` numbers from each of `starts` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn leaves<const N: usize>(
        trees: &Trees,
        rows: &[f32],
        starts: &[i32; WALKS],
        from: &[u32; WALKS],
        values: &mut [f32; WALKS],
    ) {
        const { assert!(N <= CHAINS) };
        let mut places = [_mm512_setzero_si512(); N];
        let mut at = [_mm512_setzero_si512(); N];
        let (from, starts) = (from.chunks_exact(LANES), starts.chunks_exact(LANES));
        for ((places, at), (from, starts)) in places.iter_mut().zip(&mut at).zip(from.zip(starts)) {
            // SAFETY: there are as many numbers as a register holds.
            unsafe {
                *places = _mm512_loadu_si512(from.as_ptr().cast());
                *at = _mm512_loadu_si512(starts.as_ptr().cast());
            }
        }
        loop {
            let mut moved = 0;
            for (places, at) in places.iter_mut().zip(&at) {
                // SAFETY: what the caller promises, and a step leads from nodes to nodes.
                let (next, inner) = unsafe { step(trees, rows, *at, *places) };
                *places = next;
                moved |= inner;
            }
            if moved == 0 {
                break;
            }
        }
        for (places, values) in places.into_iter().zip(values.chunks_exact_mut(LANES)) {
            // SAFETY: there is a value for each node, and room for one of each lane.
            unsafe {
                let found = _mm512_i32gather_ps::<4>(places, trees.values.as_ptr());
                _mm512_storeu_ps(values.as_mut_ptr(), found);
            }
        }
    }

    /// Where 16 walks go from where they are, and which of them are not at a leaf yet.
    ///
    /// # Safety
    /// As for [`leaves`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn step(
        trees: &Trees,
        rows: &[f32],
        starts: __m512i,
        places: __m512i,
    ) -> (__m512i, __mmask16) {
        let nodes = trees.nodes.as_ptr();
        let masks = trees.masks.as_ptr();
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
        let flag = |bit: u32| _mm512_set1_epi32(bit as i32);
        // SAFETY: every place is that of a node: `Trees::new` checked both children of each, and a
        // node is 8 bytes.
        let (low, high) = unsafe {
            (
                _mm512_i32gather_epi64::<8>(_mm512_castsi512_si256(places), nodes.cast()),
                _mm512_i32gather_epi64::<8>(_mm512_extracti64x4_epi64::<1>(places), nodes.cast()),
            )
        };
        let thresholds = _mm512_permutex2var_epi32(low, even, high);
        let steps = _mm512_permutex2var_epi32(low, odd, high);
        let on = _mm512_srli_epi32::<16>(steps);
        let inner = _mm512_test_epi32_mask(on, on);
        // SAFETY: a node that is not a leaf names a column below the width; of leaves nothing is
        // read.
        let numbers = unsafe {
            _mm512_mask_i32gather_ps::<4>(
                _mm512_setzero_ps(),
                inner,
                _mm512_add_epi32(starts, _mm512_and_si512(steps, flag(COLUMN))),
                rows.as_ptr(),
            )
        };
        let bounds = _mm512_castsi512_ps(thresholds);
        let mut left = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(numbers, bounds)
            | _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(numbers, numbers)
                & _mm512_test_epi32_mask(steps, flag(MISSING_LEFT));
        let by_category = _mm512_test_epi32_mask(steps, flag(BY_CATEGORY));
        if by_category != 0 {
            // The bit of the bin, among the 8 words of 32 bits of the mask.
            let bins = _mm512_and_si512(_mm512_castps_si512(numbers), flag(255));
            let words = _mm512_add_epi32(
                _mm512_slli_epi32::<3>(thresholds),
                _mm512_srli_epi32::<5>(bins),
            );
            // SAFETY: a split by categories names a mask that is there, of 8 such words.
            let found = unsafe {
                _mm512_mask_i32gather_epi32::<4>(
                    _mm512_setzero_si512(),
                    by_category,
                    words,
                    masks.cast(),
                )
            };
            let bit = _mm512_and_si512(bins, flag(31));
            let bits = _mm512_sllv_epi32(_mm512_set1_epi32(1), bit);
            left = left & !by_category | _mm512_test_epi32_mask(found, bits) & by_category;
        }
        let next = _mm512_add_epi32(places, on);
        let one = _mm512_set1_epi32(1);
        (_mm512_mask_add_epi32(next, inner & !left, next, one), inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trees whose thresholds and masks look drawn: each node has children until there are enough.
    fn trees(count: usize, width: usize) -> Trees {
        let mut word = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move |below: usize| {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            (word % below as u64) as usize
        };
        let (mut nodes, mut roots, mut masks) = (Vec::new(), Vec::new(), Vec::new());
        for tree in 0..count {
            let first = nodes.len();
            roots.push(first as u32);
            let size = 2 * (tree % 40) + 1;
            let mut end = 1;
            for place in 0..size {
                let on = (end - place) as u32;
                let node = if end == size {
                    Node::LEAF
                } else if next(3) == 0 {
                    masks.push([next(usize::MAX) as u64; 4]);
                    Node::by_category(
                        (width / 2 + next(width / 2)) as u32,
                        masks.len() as u32 - 1,
                        on,
                    )
                } else {
                    let threshold = next(100) as f32 / 10.0;
                    Node::by_number(next(width / 2) as u32, threshold, next(2) == 0, on)
                };
                end += if node == Node::LEAF { 0 } else { 2 };
                nodes.push(node);
            }
        }
        let values = (0..nodes.len()).map(|place| place as f32).collect();
        Trees::new(nodes, values, roots, masks, width).expect("trees")
    }

    #[test]
    fn every_level_takes_the_same_ways() {
        let width = 6;
        for (count, outputs) in [(0, 1), (1, 1), (17, 1), (80, 2), (150, 3)] {
            let trees = trees(count, width);
            for rows in [0, 1, 3, 63, 64, 65, 200] {
                let numbers: Vec<f32> = (0..rows * width)
                    .map(|place| match (place % width, place % 11) {
                        (0..3, 0) => f32::NAN,
                        (0..3, 1) => f32::NEG_INFINITY,
                        (0..3, _) => (place * 7 % 100) as f32 / 10.0,
                        _ => category_number((place * 31 % 256) as u8),
                    })
                    .collect();
                let found = Level::available().into_iter().map(|level| {
                    let mut sums = vec![0.5; rows * outputs];
                    trees.walk(level, &numbers, &mut sums, outputs);
                    sums
                });
                let found: Vec<Vec<f64>> = found.collect();
                assert!(
                    found.windows(2).all(|pair| pair[0] == pair[1]),
                    "{count} {rows}"
                );
                if count > 20 && rows > 60 {
                    assert!(found[0].iter().any(|sum| *sum != found[0][0]));
                }
            }
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let split = |left| Node::by_number(0, 0.0, false, left);
        let made = |nodes: Vec<Node>, roots: Vec<u32>, masks: Vec<Mask>, width| {
            let values = vec![0.0; nodes.len()];
            Trees::new(nodes, values, roots, masks, width).is_some()
        };
        let leaf = Node::LEAF;
        assert!(made(vec![split(1), leaf, leaf], vec![0], vec![], 1));
        assert!(!made(vec![split(1), leaf], vec![0], vec![], 1));
        assert!(!made(vec![split(2), leaf, leaf], vec![0], vec![], 1));
        assert!(!made(vec![leaf], vec![1], vec![], 1));
        assert!(!made(vec![leaf], vec![0], vec![], 0));
        assert!(!made(vec![leaf], vec![0], vec![], MAX_COLUMNS + 1));
        let far = Node::by_number(1, 0.0, false, 1);
        assert!(!made(vec![far, leaf, leaf], vec![0], vec![], 1));
        let masked = Node::by_category(0, 0, 1);
        assert!(made(vec![masked, leaf, leaf], vec![0], vec![[0; 4]], 1));
        assert!(!made(vec![masked, leaf, leaf], vec![0], vec![], 1));
    }
}
