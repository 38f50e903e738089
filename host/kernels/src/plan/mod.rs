//! How values are computed on the processor, for given values of the symbols: instructions in
//! order, what they fuse, and where everything lies.
//!
//! Memory is a few regions. The slab holds what lies between; a plan assigns its places by
//! liveness, so that one allocation serves a whole run. What depends on parameters alone is
//! computed once for all pieces of rows and lies in the shared region.
//!
//! How a result comes about, to the bit, must not depend on the number of rows: what to fuse is
//! decided by symbolic shapes, never by their values.

mod build;
mod emit;
mod kernels;
mod memory;
mod shared;
mod view;

use crate::ir::{Fold, Map, ValueId};

pub(crate) use build::{Request, build};
pub(crate) use shared::{SharedLayout, shared_layout, shared_plan};
pub(crate) use view::Axis;

/// Columns of a panel of a packed matrix.
pub(crate) const PANEL: usize = 32;

/// Places are multiples of this many elements, so that vectors of 64 bytes are aligned.
pub(crate) const ALIGNMENT: usize = 16;

/// Rows of the query of an attention that are taken at a time.
pub(crate) const ATTENTION_ROWS: usize = 32;

/// A piece of memory that a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Region {
    /// What lies between; written and read by one run.
    Slab,
    /// What depends on parameters alone; written by the shared plan.
    Shared,
    /// The parameters.
    Weights,
    /// The literals of the graph.
    Literals,
    /// The gradients of trainable parameters, at the offsets of the parameters.
    Gradients,
    /// The input of this index.
    Input(u32),
    /// The result of this index.
    Output(u32),
}

/// Where something begins, in elements of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) region: Region,
    pub(crate) offset: usize,
}

/// What an operand of a map step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A block in a register.
    Register(u16),
    /// The block at the same position of a dense tensor, by index into [`MapProgram::dense`].
    Dense(u16),
}

/// Where the result of a map step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A register.
    Register(u16),
    /// The same position of a dense tensor that nothing else of this program shares memory
    /// with, by index into [`MapProgram::dense`].
    Dense(u16),
}

/// One map over a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MapStep {
    pub(crate) map: Map,
    /// Unused ones repeat the first.
    pub(crate) operands: [Source; 3],
    pub(crate) target: Target,
    /// Elements of a row, where positions count from the first row of the batch; 0 where they
    /// count from the start of the tensor.
    pub(crate) row_elements: usize,
}

/// What fills a register once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Splat {
    Number(f32),
    Element(Place),
}

/// What fills a register for each block: elements that do not lie one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) register: u16,
    pub(crate) place: Place,
    pub(crate) axes: Vec<Axis>,
}

/// Maps over the elements of one shape, block by block. A block's loads come before its stores,
/// which lie at the same positions, so a dense operand and a store may share their memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct MapProgram {
    pub(crate) elements: usize,
    pub(crate) registers: u16,
    pub(crate) splats: Vec<(u16, Splat)>,
    pub(crate) loads: Vec<Load>,
    pub(crate) dense: Vec<Place>,
    pub(crate) steps: Vec<MapStep>,
    /// Registers that are written to dense tensors when the steps of a block are done.
    pub(crate) stores: Vec<(u16, u16)>,
}

/// The left operand of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) place: Place,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
    pub(crate) batch_stride: usize,
}

/// The right operand of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Row-major, dense.
    Dense { place: Place, batch_stride: usize },
    /// In panels of [`PANEL`] columns, the last filled up with zeros.
    Packed { place: Place },
}

/// A matrix product: for each of `batch`, [m, k] times [k, n].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Multiplication {
    pub(crate) batch: usize,
    pub(crate) m: usize,
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) left: Left,
    pub(crate) right: Right,
    /// Row-major, dense.
    pub(crate) target: Place,
    /// A row of n numbers that the sums start from.
    pub(crate) bias: Option<Place>,
    /// Whether negative results become 0.
    pub(crate) relu: bool,
    /// Run over rows of the result as soon as they are there.
    pub(crate) epilogue: Option<MapProgram>,
}

/// An attention of as many places as there is time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Attention {
    pub(crate) query: Place,
    pub(crate) key: Place,
    pub(crate) value: Place,
    pub(crate) target: Place,
    pub(crate) batch: usize,
    pub(crate) time: usize,
    pub(crate) heads: usize,
    pub(crate) key_heads: usize,
    pub(crate) width: usize,
    pub(crate) causal: bool,
    pub(crate) scale: f32,
    /// The value, which names the keys and values that a generation keeps.
    pub(crate) id: u32,
}

/// One piece of work. Operands and results are dense and row-major unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Instruction {
    Map(MapProgram),
    Multiply(Multiplication),
    /// A [k, n] matrix, of these strides, into panels.
    Pack {
        source: Place,
        row_stride: usize,
        column_stride: usize,
        k: usize,
        n: usize,
        target: Place,
    },
    /// [outer, count, inner] to [outer, inner].
    Reduce {
        fold: Fold,
        source: Place,
        target: Place,
        outer: usize,
        count: usize,
        inner: usize,
    },
    /// [rows, count] to [rows].
    Argmax {
        source: Place,
        target: Place,
        rows: usize,
        count: usize,
    },
    /// Over the last extent of [rows, count].
    Softmax {
        source: Place,
        target: Place,
        rows: usize,
        count: usize,
        logarithm: bool,
    },
    /// Over the last extent of [rows, count].
    Normalize {
        source: Place,
        target: Place,
        rows: usize,
        count: usize,
        epsilon: f32,
    },
    /// The gradient of `Normalize`.
    NormalizeSlope {
        source: Place,
        slope: Place,
        target: Place,
        rows: usize,
        count: usize,
        epsilon: f32,
    },
    /// [rows, count] logits and [rows] labels to [rows].
    CrossEntropy {
        logits: Place,
        labels: Place,
        target: Place,
        rows: usize,
        count: usize,
        node: u32,
    },
    /// The gradient of the logits.
    CrossEntropySlope {
        logits: Place,
        labels: Place,
        slope: Place,
        target: Place,
        rows: usize,
        count: usize,
        node: u32,
    },
    /// Rows of `width` of a table of `size`.
    Gather {
        table: Place,
        indices: Place,
        target: Place,
        count: usize,
        size: usize,
        width: usize,
        node: u32,
    },
    /// Zeros, then each row added to the row of its index.
    Scatter {
        indices: Place,
        source: Place,
        target: Place,
        count: usize,
        size: usize,
        width: usize,
        node: u32,
    },
    /// [outer, count, inner]: the sum of those up to each of `count`, or from each on.
    CumulativeSum {
        source: Place,
        target: Place,
        outer: usize,
        count: usize,
        inner: usize,
        exclusive: bool,
        reverse: bool,
    },
    /// [rows, count] to the places of the `kept` largest of each row, in order.
    TopK {
        source: Place,
        target: Place,
        rows: usize,
        count: usize,
        kept: usize,
    },
    /// Of each row of [rows, count], the `taken` elements of [rows, taken] indices.
    TakeAlong {
        source: Place,
        indices: Place,
        target: Place,
        rows: usize,
        count: usize,
        taken: usize,
        node: u32,
    },
    /// Zeros [rows, count], to each row of which [rows, taken] elements are added at their
    /// indices, in order.
    PutAlong {
        indices: Place,
        source: Place,
        target: Place,
        rows: usize,
        count: usize,
        taken: usize,
        node: u32,
    },
    /// [outer, windows, size, inner] to [outer, extent, inner]: zeros, to which element
    /// (window, place) is added at window * stride + place * dilation, window after window.
    Unwindow {
        source: Place,
        target: Place,
        outer: usize,
        windows: usize,
        size: usize,
        stride: usize,
        dilation: usize,
        extent: usize,
        inner: usize,
    },
    /// [rows, words] int32 to the first `count` whole numbers of `bits` (4 or 8, two's
    /// complement) in each row, the first in the lowest bits.
    Unpack {
        source: Place,
        target: Place,
        rows: usize,
        words: usize,
        count: usize,
        bits: u32,
    },
    /// For each of `batch`: query [time, heads, width], key and value [time, key heads, width].
    Attention(Attention),
    /// The gradients of query, key and value, [time, heads + 2 key heads, width].
    AttentionSlope {
        of: Attention,
        slope: Place,
    },
    OneHot {
        indices: Place,
        target: Place,
        count: usize,
        depth: usize,
    },
    Zero {
        target: Place,
        elements: usize,
    },
    /// Rows of `width`, of these strides.
    CopyRows {
        source: Place,
        target: Place,
        rows: usize,
        width: usize,
        source_stride: usize,
        target_stride: usize,
    },
}

impl Instruction {
    /// Elements that it needs beside its operands.
    fn scratch(&self) -> usize {
        match self {
            Instruction::Attention(of) => of.panels() + aligned(ATTENTION_ROWS * of.time),
            Instruction::AttentionSlope { of, .. } => {
                2 * of.panels() + 2 * aligned(of.time * of.time) + aligned(of.time * of.width)
            }
            _ => 0,
        }
    }
}

impl Attention {
    /// Elements of the keys of one head, transposed, in panels.
    pub(crate) fn panels(&self) -> usize {
        self.time.div_ceil(PANEL) * PANEL * self.width
    }
}

/// Instructions in order, for given values of the symbols.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) instructions: Vec<Instruction>,
    /// Elements of the slab.
    pub(crate) slab: usize,
    /// The largest number of registers of a map program.
    pub(crate) registers: u16,
    /// Elements that the largest kernel needs beside its operands.
    pub(crate) scratch: usize,
    pub(crate) flops: u64,
    pub(crate) bytes_moved: u64,
    /// The values that come about at each instruction; of several that make one value, at the
    /// last.
    pub(crate) computed: Vec<Box<[ValueId]>>,
}

/// `elements` up to the next multiple of the alignment.
pub(crate) fn aligned(elements: usize) -> usize {
    elements.next_multiple_of(ALIGNMENT)
}
