//! The matrix product.
//!
//! Every element of the result is one chain of products added in the order of the inner index,
//! whatever the sizes are and whichever registers the processor has. So a row's result is the
//! same bits alone and among others, and the same on every processor that fuses a product with
//! a sum.
//!
//! A tile of a few rows and two registers of columns is kept in registers while the inner index
//! runs (Goto and van de Geijn 2008). The left matrix is read where it lies, one number at a
//! time; the right one a row of a panel at a time, either where it lies or packed.

use super::level::{Level, Set};
use super::vector::{Portable, Vector, prefetch};
#[cfg(target_arch = "x86_64")]
use super::vector::{V8, V16};
use crate::plan::PANEL;

/// Elements of a right matrix that stays in the second cache of most processors.
const NEAR_ELEMENTS: usize = 128 * 1024;

/// Tiles that go through a larger one together.
const TILES_AT_ONCE: usize = 10;

/// One product: [m, k] times [k, n] is [m, n].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// Element (i, p) of the left matrix is at `i row_stride + p column_stride`.
    pub(crate) left: *const f32,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
    /// Row-major, or in panels of [`PANEL`] columns filled up with zeros.
    pub(crate) right: *const f32,
    pub(crate) layout: RightLayout,
    /// n numbers to start from; null for zeros.
    pub(crate) bias: *const f32,
    pub(crate) relu: bool,
    /// Row-major.
    pub(crate) target: *mut f32,
    /// From one row of the target to the next.
    pub(crate) target_stride: usize,
}

/// How the right matrix of a product lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RightLayout {
    /// Row-major, the rows so far apart.
    Rows { stride: usize },
    /// In panels, so far apart.
    Panels { stride: usize },
}

/// Rows of the result that are kept in registers.
pub(crate) fn tile_rows(level: Level) -> usize {
    match level.set() {
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => avx512::ROWS,
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => avx2::ROWS,
        Set::Portable => portable::ROWS,
    }
}

/// Computes rows `first..first + rows` of a product.
///
/// # Safety
/// The pointers reach as far as the sizes and strides say; the target overlaps nothing else.
pub(crate) unsafe fn multiply_rows(level: Level, product: &Product, first: usize, rows: usize) {
    debug_assert!(first + rows <= product.m, "rows outside the product");
    // SAFETY: the caller's promise; a level exists only where the processor has it.
    unsafe {
        match level.set() {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => rows_by::<V16, { avx512::ROWS }>(product, first, rows, &avx512::TABLES),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => rows_by::<V8, { avx2::ROWS }>(product, first, rows, &avx2::TABLES),
            Set::Portable => {
                rows_by::<Portable, { portable::ROWS }>(product, first, rows, &portable::TABLES)
            }
        }
    }
}

/// A tile: a few rows and at most two registers of columns, or one row and eight registers.
#[derive(Clone, Copy)]
struct Tile {
    k: usize,
    left: *const f32,
    row_stride: usize,
    column_stride: usize,
    right: *const f32,
    /// From one row of the right matrix to the next.
    right_stride: usize,
    /// From one panel of the right matrix to the next.
    panel_stride: usize,
    bias: *const f32,
    relu: bool,
    target: *mut f32,
    target_stride: usize,
    /// Columns of the last register that count.
    last: usize,
}

type TileFunction = unsafe fn(&Tile);

/// The functions of one kind of register.
struct Tables<const ROWS: usize> {
    /// By whether the last register is full in memory, and the number of registers less one,
    /// and the number of rows less one.
    tiles: [[[TileFunction; ROWS]; 2]; 2],
    /// One row of eight full registers.
    row: TileFunction,
}

/// # Safety
/// As [`multiply_rows`], and the processor has the registers.
unsafe fn rows_by<V: Vector, const ROWS: usize>(
    product: &Product,
    first: usize,
    rows: usize,
    tables: &Tables<ROWS>,
) {
    let Product {
        k,
        n,
        row_stride,
        column_stride,
        ..
    } = *product;
    let (right_stride, panel_stride, packed) = match product.layout {
        RightLayout::Panels { stride } => (PANEL, stride, true),
        RightLayout::Rows { stride } => (stride, PANEL, false),
    };
    // Tiles of nearly the same height, since low ones do not fill the arithmetic units.
    let tiles = rows.div_ceil(ROWS);
    let start = |tile: usize| first + rows * tile / tiles;
    // A right matrix that does not stay in the second cache is gone through once for several
    // tiles, whose rows do.
    let at_once = if k * n > NEAR_ELEMENTS {
        TILES_AT_ONCE
    } else {
        1
    };
    for group in (0..tiles).step_by(at_once) {
        let group = group..(group + at_once).min(tiles);
        let mut column = 0;
        while column < n {
            let rest = n - column;
            let whole_row = column % PANEL == 0 && rest >= 8 * V::LANES;
            // One row of eight registers where all tiles of the group are of one row.
            let eight = whole_row && group.clone().all(|tile| start(tile + 1) - start(tile) == 1);
            let columns = if eight {
                8 * V::LANES
            } else {
                rest.min(2 * V::LANES)
            };
            let registers = columns.div_ceil(V::LANES);
            let last = columns - (registers - 1) * V::LANES;
            for tile in group.clone() {
                let row = start(tile);
                let height = start(tile + 1) - row;
                // Where the inner index has no values, the addresses are of nothing and nothing
                // is read.
                let tile = Tile {
                    k,
                    left: product.left.wrapping_add(row * row_stride),
                    row_stride,
                    column_stride,
                    right: product
                        .right
                        .wrapping_add((column / PANEL) * panel_stride + column % PANEL),
                    right_stride,
                    panel_stride,
                    bias: if product.bias.is_null() {
                        product.bias
                    } else {
                        product.bias.wrapping_add(column)
                    },
                    relu: product.relu,
                    target: product
                        .target
                        .wrapping_add(row * product.target_stride + column),
                    target_stride: product.target_stride,
                    last,
                };
                if eight {
                    // SAFETY: eight full registers are left, in whole panels.
                    unsafe { (tables.row)(&tile) };
                    continue;
                }
                let partial = last < V::LANES && !packed;
                // SAFETY: the table's function has these rows and registers.
                unsafe { tables.tiles[usize::from(partial)][registers - 1][height - 1](&tile) };
            }
            column += columns;
        }
    }
}

/// # Safety
/// As [`multiply_rows`], for the rows and columns of the tile.
#[inline(always)]
unsafe fn tile<V: Vector, const ROWS: usize, const REGISTERS: usize, const PARTIAL: bool>(
    tile: &Tile,
) {
    // SAFETY: the caller's promise; a register that is not full in memory is read in part.
    unsafe {
        let mut start = [V::splat(0.0); REGISTERS];
        if !tile.bias.is_null() {
            for (register, start) in start.iter_mut().enumerate() {
                let count = if register + 1 == REGISTERS {
                    tile.last
                } else {
                    V::LANES
                };
                *start = V::load_part(tile.bias.add(register * V::LANES), count);
            }
        }
        // Where the results go is often far; by the time they are there, so is their memory.
        for index in 0..ROWS {
            for register in 0..REGISTERS {
                let to = index * tile.target_stride + register * V::LANES;
                prefetch(tile.target.wrapping_add(to));
            }
        }
        let mut sums = [start; ROWS];
        let (mut left, mut right) = (tile.left, tile.right);
        for _ in 0..tile.k {
            let mut row = [V::splat(0.0); REGISTERS];
            for (register, row) in row.iter_mut().enumerate() {
                let from = right.add(register * V::LANES);
                *row = if PARTIAL && register + 1 == REGISTERS {
                    V::load_part(from, tile.last)
                } else {
                    V::load(from)
                };
            }
            for (index, sums) in sums.iter_mut().enumerate() {
                let value = V::splat(*left.add(index * tile.row_stride));
                for (sum, row) in sums.iter_mut().zip(row) {
                    *sum = sum.add_product(value, row);
                }
            }
            left = left.wrapping_add(tile.column_stride);
            right = right.wrapping_add(tile.right_stride);
        }
        for (index, sums) in sums.iter().enumerate() {
            for (register, sum) in sums.iter().enumerate() {
                let to = tile
                    .target
                    .add(index * tile.target_stride + register * V::LANES);
                let sum = if tile.relu { sum.relu() } else { *sum };
                if register + 1 == REGISTERS && tile.last < V::LANES {
                    sum.store_part(to, tile.last);
                } else {
                    sum.store(to);
                }
            }
        }
    }
}

/// One row of eight registers: as many chains as hide the latency of a sum.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn row<V: Vector>(tile: &Tile) {
    let per_panel = PANEL / V::LANES;
    let offset = |register: usize| {
        register / per_panel * tile.panel_stride + register % per_panel * V::LANES
    };
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [V::splat(0.0); 8];
        if !tile.bias.is_null() {
            for (register, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(tile.bias.add(register * V::LANES));
            }
        }
        let (mut left, mut right) = (tile.left, tile.right);
        for _ in 0..tile.k {
            let value = V::splat(*left);
            for (register, sum) in sums.iter_mut().enumerate() {
                *sum = sum.add_product(value, V::load(right.add(offset(register))));
            }
            left = left.wrapping_add(tile.column_stride);
            right = right.wrapping_add(tile.right_stride);
        }
        for (register, sum) in sums.iter().enumerate() {
            let sum = if tile.relu { sum.relu() } else { *sum };
            sum.store(tile.target.add(register * V::LANES));
        }
    }
}

/// Defines the functions of one kind of register.
macro_rules! tables {
    ($module:ident, $vector:ty, $rows:literal, [$($height:literal)*] $(, $feature:literal)?) => {
        mod $module {
            use super::*;

            /// # Safety
            /// As `tile`.
            $(#[target_feature(enable = $feature)])?
            unsafe fn tile_of<const ROWS: usize, const REGISTERS: usize, const PARTIAL: bool>(of: &Tile) {
                // SAFETY: the caller's promise.
                unsafe { tile::<$vector, ROWS, REGISTERS, PARTIAL>(of) }
            }

            /// # Safety
            /// As `tile`.
            $(#[target_feature(enable = $feature)])?
            unsafe fn row_of(of: &Tile) {
                // SAFETY: the caller's promise.
                unsafe { row::<$vector>(of) }
            }

            pub(super) const ROWS: usize = $rows;

            pub(super) static TABLES: Tables<ROWS> = Tables {
                tiles: [
                    [[$(tile_of::<$height, 1, false>),*], [$(tile_of::<$height, 2, false>),*]],
                    [[$(tile_of::<$height, 1, true>),*], [$(tile_of::<$height, 2, true>),*]],
                ],
                row: row_of,
            };
        }
    };
}

#[cfg(target_arch = "x86_64")]
tables!(avx512, V16, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
#[cfg(target_arch = "x86_64")]
tables!(avx2, V8, 6, [1 2 3 4 5 6], "avx2,fma");
tables!(portable, Portable, 4, [1 2 3 4]);

/// Lays a [k, n] matrix out in panels, the last filled up with zeros.
///
/// # Safety
/// The source reaches as far as the sizes and strides say.
pub(crate) unsafe fn pack(
    source: *const f32,
    row_stride: usize,
    column_stride: usize,
    k: usize,
    n: usize,
    target: &mut [f32],
) {
    for (panel, target) in target.chunks_exact_mut(PANEL * k.max(1)).enumerate() {
        let first = panel * PANEL;
        let columns = (n - first).min(PANEL);
        for (p, row) in target.chunks_exact_mut(PANEL).enumerate() {
            // SAFETY: (p, first..first + columns) is inside the matrix.
            unsafe {
                let from = source.add(p * row_stride + first * column_stride);
                if column_stride == 1 {
                    row[..columns].copy_from_slice(std::slice::from_raw_parts(from, columns));
                } else {
                    for (column, value) in row[..columns].iter_mut().enumerate() {
                        *value = *from.add(column * column_stride);
                    }
                }
            }
            row[columns..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    struct Case {
        m: usize,
        k: usize,
        n: usize,
        left: Vec<f32>,
        turned: bool,
        right: Vec<f32>,
        bias: Option<Vec<f32>>,
        relu: bool,
    }

    impl Case {
        fn new(m: usize, k: usize, n: usize, turned: bool, bias: bool, relu: bool) -> Case {
            Case {
                m,
                k,
                n,
                left: numbers(m * k, 1),
                turned,
                right: numbers(k * n, 2),
                bias: bias.then(|| numbers(n, 3)),
                relu,
            }
        }

        fn run(&self, level: Level, packed: bool, pieces: usize) -> Vec<f32> {
            let mut panels = vec![f32::NAN; self.n.div_ceil(PANEL) * PANEL * self.k];
            // SAFETY: the right matrix is dense.
            unsafe { pack(self.right.as_ptr(), self.n, 1, self.k, self.n, &mut panels) };
            let mut target = vec![f32::NAN; self.m * self.n];
            let (row_stride, column_stride) = if self.turned {
                (1, self.m)
            } else {
                (self.k, 1)
            };
            let product = Product {
                m: self.m,
                k: self.k,
                n: self.n,
                left: self.left.as_ptr(),
                row_stride,
                column_stride,
                right: if packed {
                    panels.as_ptr()
                } else {
                    self.right.as_ptr()
                },
                layout: if packed {
                    RightLayout::Panels {
                        stride: self.k * PANEL,
                    }
                } else {
                    RightLayout::Rows { stride: self.n }
                },
                bias: self.bias.as_ref().map_or(std::ptr::null(), Vec::as_ptr),
                relu: self.relu,
                target: target.as_mut_ptr(),
                target_stride: self.n,
            };
            let mut row = 0;
            while row < self.m {
                let rows = (self.m - row).min(pieces);
                // SAFETY: the vectors have the sizes of the product.
                unsafe { multiply_rows(level, &product, row, rows) };
                row += rows;
            }
            target
        }

        /// The chain that the module promises, on the processor's own fused instruction or not.
        fn chain(&self, fused: bool) -> Vec<f32> {
            let mut target = Vec::new();
            for i in 0..self.m {
                for j in 0..self.n {
                    let mut sum = self.bias.as_ref().map_or(0.0, |bias| bias[j]);
                    for p in 0..self.k {
                        let at = if self.turned {
                            p * self.m + i
                        } else {
                            i * self.k + p
                        };
                        let (a, b) = (self.left[at], self.right[p * self.n + j]);
                        sum = if fused {
                            a.mul_add(b, sum)
                        } else {
                            sum + a * b
                        };
                    }
                    target.push(if self.relu && sum < 0.0 { 0.0 } else { sum });
                }
            }
            target
        }
    }

    #[test]
    fn every_level_and_layout_gives_the_bits_of_the_one_chain() {
        for level in Level::available() {
            let fused = level.set() != Set::Portable || super::super::level::PORTABLE_FUSED;
            for (m, k, n) in [
                (0, 3, 4),
                (3, 0, 5),
                (3, 4, 0),
                (1, 1, 1),
                (1, 7, 300),
                (2, 5, 3),
                (15, 9, 17),
                (29, 33, 65),
                (13, 64, 32),
                (128, 30, 47),
                (7, 128, 130),
                (161, 300, 450),
                (1, 128, 2),
            ] {
                for (turned, bias, relu) in [
                    (false, false, false),
                    (true, true, false),
                    (false, true, true),
                ] {
                    let case = Case::new(m, k, n, turned, bias, relu);
                    let expected = case.chain(fused);
                    for packed in [false, true] {
                        for pieces in [1, 3, 1000] {
                            assert_eq!(
                                case.run(level, packed, pieces),
                                expected,
                                "{} {m} {k} {n} turned {turned} packed {packed} pieces {pieces}",
                                level.name()
                            );
                        }
                    }
                }
            }
        }
    }
}
