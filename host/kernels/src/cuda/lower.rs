//! From the instructions of a plan to kernels and their arguments.
//!
//! Which kernel computes a row depends on the extents of the row alone, so that its bits do not
//! depend on how many rows there are. Where several tiles of a product would do, the number of
//! rows may choose: every tile gives the same bits.

use std::collections::HashMap;

use super::driver::{Grid, Matrix, MatrixProduct, Operands};
use super::source::{self, Family, KernelText, THREADS, Tile};
use crate::device::Precision;
use crate::error::RunError;
use crate::ir::Fold;
use crate::plan::{
    Attention, Instruction, MapProgram, Multiplication, PANEL, Place, Plan, Region, Right,
};

/// Elements of a tensor must be countable in 31 bits.
const MOST_ELEMENTS: usize = 1 << 31;

/// The largest number of arguments of a kernel: 4 KiB of eight bytes each.
const MOST_ARGUMENTS: usize = 512;

/// Rows of at most so many elements are the work of a warp, longer ones of a block.
const WARP_ROW: usize = 1024;

/// Elements that are folded at a time: along the last axis, and along another.
const ROW_CHUNK: usize = 16_384;
const COLUMN_CHUNK: usize = 256;

/// Keys that one block sorts.
const SORTED: usize = 1024;

/// Memory that a product on tensor cores may use.
const WORKSPACE_BYTES: u64 = 32 << 20;

/// What a kernel is handed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Argument {
    /// The address of a place that has so many elements.
    Place(Place, usize),
    Number(u64),
    /// The address of the word that notes a number out of range, by index.
    Check(usize),
    /// The address of the numbers of the run.
    Run,
    /// An address in the memory that one instruction uses, in bytes.
    Scratch(u64),
    /// The address of the keys that an attention keeps, or of the values.
    KeptKeys(u32),
    KeptValues(u32),
    /// The addresses of the pages of each sequence, and of how many positions each has.
    Pages,
    Lengths,
}

/// Work to be queued.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Launch {
        /// By index into the kernels.
        kernel: usize,
        grid: Grid,
        arguments: Vec<Argument>,
    },
    Product(Box<Product>),
}

/// A product on tensor cores. Its addresses are in the arguments: A, B, D, and the bias where there
/// is one.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) product: MatrixProduct,
    pub(super) operands: [Argument; 3],
    pub(super) bias: Option<Argument>,
    pub(super) workspace: u64,
}

/// A place where a number may be out of range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) node: u32,
    /// How many numbers there are.
    pub(super) count: usize,
    pub(super) size: usize,
}

/// Where the right operand of products is found that the plan wants in panels: on this device
/// matrices are read where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    place: Place,
    row_stride: usize,
    column_stride: usize,
}

/// The operations of a plan.
#[derive(Debug, Default)]
pub(super) struct Lowered {
    pub(super) kernels: Vec<KernelText>,
    pub(super) operations: Vec<Operation>,
    pub(super) checks: Vec<Check>,
    pub(super) scratch_bytes: u64,
    /// By offset in the shared region.
    pub(super) unpacked: HashMap<usize, Unpacked>,
}

/// What decides about kernels beside the plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choices {
    pub(super) precision: Precision,
    pub(super) multiprocessors: u32,
    /// In generation: the most pages of a sequence. Attentions keep their keys and values then.
    pub(super) most_pages: Option<usize>,
}

/// Makes the operations of a plan. `unpacked` is what the shared plan said.
pub(super) fn lower(
    plan: &Plan,
    unpacked: &HashMap<usize, Unpacked>,
    choices: Choices,
) -> Result<Lowered, RunError> {
    let mut lowering = Lowering {
        lowered: Lowered::default(),
        known: HashMap::new(),
        unpacked,
        choices,
    };
    for instruction in &plan.instructions {
        lowering.instruction(instruction)?;
    }
    Ok(lowering.lowered)
}

/// Blocks for `elements` of which each thread takes `each` at a time.
fn blocks(elements: usize, each: usize, multiprocessors: u32) -> u32 {
    let wanted = elements.div_ceil(THREADS as usize * each).max(1);
    let most = (multiprocessors.max(1) as usize) * 32;
    wanted.min(most) as u32
}

struct Lowering<'a> {
    lowered: Lowered,
    known: HashMap<String, usize>,
    unpacked: &'a HashMap<usize, Unpacked>,
    choices: Choices,
}

/// A float32 as an argument.
fn float(value: f32) -> Argument {
    Argument::Number(u64::from(value.to_bits()))
}

fn count(value: usize) -> Argument {
    Argument::Number(value as u64)
}

impl Lowering<'_> {
    fn kernel(&mut self, text: KernelText) -> usize {
        if let Some(index) = self.known.get(&text.name) {
            return *index;
        }
        let index = self.lowered.kernels.len();
        self.known.insert(text.name.clone(), index);
        self.lowered.kernels.push(text);
        index
    }

    fn launch(&mut self, text: KernelText, blocks: u32, arguments: Vec<Argument>) {
        let kernel = self.kernel(text);
        let grid = Grid {
            blocks,
            threads: THREADS,
        };
        self.lowered.operations.push(Operation::Launch {
            kernel,
            grid,
            arguments,
        });
    }

    /// A kernel whose threads take one element after the other.
    fn each(&mut self, family: Family, name: &str, elements: usize, arguments: Vec<Argument>) {
        if elements > 0 {
            let blocks = blocks(elements, 1, self.choices.multiprocessors);
            self.launch(KernelText::ready(family, name), blocks, arguments);
        }
    }

    /// A kernel of rows of so many elements.
    fn rows(&mut self, name: &str, rows: usize, elements: usize, arguments: Vec<Argument>) {
        if rows == 0 {
            return;
        }
        let (threads, blocks) = if elements <= WARP_ROW {
            (32, rows.div_ceil(8))
        } else {
            (256, rows)
        };
        let text = KernelText::ready(Family::Rows, &format!("{name}_{threads}"));
        self.launch(text, blocks as u32, arguments);
    }

    fn check(&mut self, node: u32, count: usize, size: usize) -> Argument {
        self.lowered.checks.push(Check { node, count, size });
        Argument::Check(self.lowered.checks.len() - 1)
    }

    fn scratch(&mut self, bytes: u64) {
        self.lowered.scratch_bytes = self.lowered.scratch_bytes.max(bytes);
    }

    fn countable(elements: usize) -> Result<usize, RunError> {
        if elements < MOST_ELEMENTS {
            return Ok(elements);
        }
        Err(RunError::Device {
            what: format!(
                "a tensor has {elements} elements, and kernels count to {MOST_ELEMENTS}; give less \
                 at a time"
            ),
        })
    }

    fn instruction(&mut self, instruction: &Instruction) -> Result<(), RunError> {
        use Argument::Place as At;
        match *instruction {
            Instruction::Map(ref program) => self.map(program)?,
            Instruction::Multiply(ref multiplication) => self.multiply(multiplication)?,
            Instruction::Pack {
                source,
                row_stride,
                column_stride,
                k,
                n,
                target,
            } => {
                let stays = matches!(
                    source.region,
                    Region::Weights | Region::Literals | Region::Shared
                );
                let unpacked = if stays {
                    Unpacked {
                        place: source,
                        row_stride,
                        column_stride,
                    }
                } else {
                    let reach = reach([(k, row_stride), (n, column_stride)]);
                    let elements = Self::countable(k * n)?;
                    self.each(
                        Family::Lookup,
                        "copy_matrix",
                        elements,
                        vec![
                            At(source, reach),
                            At(target, elements),
                            count(k),
                            count(n),
                            count(row_stride),
                            count(column_stride),
                        ],
                    );
                    Unpacked {
                        place: target,
                        row_stride: n,
                        column_stride: 1,
                    }
                };
                self.lowered.unpacked.insert(target.offset, unpacked);
            }
            Instruction::Reduce {
                fold,
                source,
                target,
                outer,
                count: counted,
                inner,
            } => self.reduce(fold, source, target, [outer, counted, inner])?,
            Instruction::Argmax {
                source,
                target,
                rows,
                count: counted,
            } => {
                let elements = Self::countable(rows * counted)?;
                let arguments = vec![
                    At(source, elements),
                    At(target, rows),
                    count(rows),
                    count(counted),
                ];
                self.rows("argmax", rows, counted, arguments);
            }
            Instruction::Softmax {
                source,
                target,
                rows,
                count: counted,
                logarithm,
            } => {
                let elements = Self::countable(rows * counted)?;
                let arguments = vec![
                    At(source, elements),
                    At(target, elements),
                    count(rows),
                    count(counted),
                    Argument::Number(u64::from(logarithm)),
                ];
                self.rows("softmax", rows.min(elements), counted, arguments);
            }
            Instruction::Normalize {
                source,
                target,
                rows,
                count: counted,
                epsilon,
            } => {
                let elements = Self::countable(rows * counted)?;
                let arguments = vec![
                    At(source, elements),
                    At(target, elements),
                    count(rows),
                    count(counted),
                    float(epsilon),
                ];
                self.rows("normalize", rows.min(elements), counted, arguments);
            }
            Instruction::NormalizeSlope {
                source,
                slope,
                target,
                rows,
                count: counted,
                epsilon,
            } => {
                let elements = Self::countable(rows * counted)?;
                let arguments = vec![
                    At(source, elements),
                    At(slope, elements),
                    At(target, elements),
                    count(rows),
                    count(counted),
                    float(epsilon),
                ];
                self.rows("normalize_slope", rows.min(elements), counted, arguments);
            }
            Instruction::CrossEntropy {
                logits,
                labels,
                target,
                rows,
                count: counted,
                node,
            } => {
                let elements = Self::countable(rows * counted)?;
                let check = self.check(node, rows, counted);
                let arguments = vec![
                    At(logits, elements),
                    At(labels, rows),
                    At(target, rows),
                    count(rows),
                    count(counted),
                    check,
                ];
                self.rows("cross_entropy", rows, counted, arguments);
            }
            Instruction::CrossEntropySlope {
                logits,
                labels,
                slope,
                target,
                rows,
                count: counted,
                node,
            } => {
                let elements = Self::countable(rows * counted)?;
                let check = self.check(node, rows, counted);
                let arguments = vec![
                    At(logits, elements),
                    At(labels, rows),
                    At(slope, rows),
                    At(target, elements),
                    count(rows),
                    count(counted),
                    check,
                ];
                self.rows("cross_entropy_slope", rows, counted, arguments);
            }
            Instruction::Gather {
                table,
                indices,
                target,
                count: counted,
                size,
                width,
                node,
            } => {
                let elements = Self::countable(counted * width)?;
                let check = self.check(node, counted, size);
                if width == 0 {
                    let arguments = vec![At(indices, counted), count(counted), count(size), check];
                    self.each(Family::Lookup, "check_numbers", counted, arguments);
                    return Ok(());
                }
                let arguments = vec![
                    At(table, size * width),
                    At(indices, counted),
                    At(target, elements),
                    count(counted),
                    count(size),
                    count(width),
                    check,
                ];
                self.each(Family::Lookup, "gather", elements, arguments);
            }
            Instruction::Scatter {
                indices,
                source,
                target,
                count: counted,
                size,
                width,
                node,
            } => self.scatter(indices, source, target, [counted, size, width], node)?,
            Instruction::Attention(ref of) => self.attention(of)?,
            Instruction::AttentionSlope { ref of, slope } => self.attention_slope(of, slope)?,
            Instruction::OneHot {
                indices,
                target,
                count: counted,
                depth,
            } => {
                let elements = Self::countable(counted * depth)?;
                let arguments = vec![
                    At(indices, counted),
                    At(target, elements),
                    count(counted),
                    count(depth),
                ];
                self.each(Family::Lookup, "one_hot", elements, arguments);
            }
            Instruction::CumulativeSum {
                source,
                target,
                outer,
                count: counted,
                inner,
                exclusive,
                reverse,
            } => {
                let elements = Self::countable(outer * counted * inner)?;
                let lines = if elements == 0 { 0 } else { outer * inner };
                let arguments = vec![
                    At(source, elements),
                    At(target, elements),
                    count(outer),
                    count(counted),
                    count(inner),
                    Argument::Number(u64::from(exclusive)),
                    Argument::Number(u64::from(reverse)),
                ];
                self.each(Family::Lookup, "cumulative_sum", lines, arguments);
            }
            Instruction::TopK {
                source,
                target,
                rows,
                count: counted,
                kept,
            } => {
                let elements = Self::countable(rows * counted)?;
                if rows * kept > 0 {
                    let arguments = vec![
                        At(source, elements),
                        At(target, rows * kept),
                        count(rows),
                        count(counted),
                        count(kept),
                    ];
                    let text = KernelText::ready(Family::Lookup, "top_k");
                    self.launch(text, rows.div_ceil(8) as u32, arguments);
                }
            }
            Instruction::TakeAlong {
                source,
                indices,
                target,
                rows,
                count: counted,
                taken,
                node,
            } => {
                let elements = Self::countable(rows * counted.max(taken))?;
                let check = self.check(node, rows * taken, counted);
                let arguments = vec![
                    At(source, (rows * counted).min(elements)),
                    At(indices, rows * taken),
                    At(target, rows * taken),
                    count(rows),
                    count(counted),
                    count(taken),
                    check,
                ];
                self.each(Family::Lookup, "take_along", rows * taken, arguments);
            }
            Instruction::PutAlong {
                indices,
                source,
                target,
                rows,
                count: counted,
                taken,
                node,
            } => {
                Self::countable(rows * counted.max(taken))?;
                let check = self.check(node, rows * taken, counted);
                let arguments = vec![
                    At(indices, rows * taken),
                    count(rows * taken),
                    count(counted),
                    check,
                ];
                self.each(Family::Lookup, "check_numbers", rows * taken, arguments);
                let arguments = vec![
                    At(indices, rows * taken),
                    At(source, rows * taken),
                    At(target, rows * counted),
                    count(rows),
                    count(counted),
                    count(taken),
                ];
                self.each(Family::Lookup, "put_along", rows * counted, arguments);
            }
            Instruction::Unwindow {
                source,
                target,
                outer,
                windows,
                size,
                stride,
                dilation,
                extent,
                inner,
            } => {
                let from = Self::countable(outer * windows * size * inner)?;
                let elements = Self::countable(outer * extent * inner)?;
                let arguments = vec![
                    At(source, from),
                    At(target, elements),
                    count(outer),
                    count(windows),
                    count(size),
                    count(stride),
                    count(dilation.max(1)),
                    count(extent),
                    count(inner),
                ];
                self.each(Family::Lookup, "unwindow", elements, arguments);
            }
            Instruction::Unpack {
                source,
                target,
                rows,
                words,
                count: counted,
                bits,
            } => {
                let elements = Self::countable(rows * counted)?;
                let arguments = vec![
                    At(source, rows * words),
                    At(target, elements),
                    count(rows),
                    count(words),
                    count(counted),
                    Argument::Number(u64::from(bits)),
                ];
                self.each(Family::Lookup, "unpack", elements, arguments);
            }
            Instruction::Zero { target, elements } => {
                Self::countable(elements)?;
                let arguments = vec![At(target, elements), count(elements), count(0)];
                self.each(Family::Lookup, "fill", elements, arguments);
            }
            Instruction::CopyRows {
                source,
                target,
                rows,
                width,
                source_stride,
                target_stride,
            } => {
                let elements = Self::countable(rows * width)?;
                let arguments = vec![
                    At(source, reach([(rows, source_stride), (width, 1)])),
                    At(target, reach([(rows, target_stride), (width, 1)])),
                    count(rows),
                    count(width),
                    count(source_stride),
                    count(target_stride),
                ];
                self.each(Family::Lookup, "copy_rows", elements, arguments);
            }
        }
        Ok(())
    }

    /// Launches a kernel of attention: four threads for a row of a tile.
    fn attend(&mut self, text: KernelText, tile: u32, rows: [usize; 3], arguments: Vec<Argument>) {
        let [batch, heads, time] = rows;
        let kernel = self.kernel(text);
        self.lowered.operations.push(Operation::Launch {
            kernel,
            grid: Grid {
                blocks: (batch * heads * time.div_ceil(tile as usize)) as u32,
                threads: tile * 4,
            },
            arguments,
        });
    }

    fn kernels_of(of: &Attention) -> Result<source::Attention, RunError> {
        source::attention(of.width).ok_or_else(|| RunError::Device {
            what: format!(
                "heads of attention are {} wide, and kernels know 1 to 256",
                of.width
            ),
        })
    }

    fn attention(&mut self, of: &Attention) -> Result<(), RunError> {
        let (queries, keys) = (of.elements(of.heads), of.elements(of.key_heads));
        if Self::countable(queries.max(keys))? == 0 {
            return Ok(());
        }
        let kernels = Self::kernels_of(of)?;
        let rows = [of.batch, of.heads, of.time];
        let Some(most_pages) = self.choices.most_pages else {
            let mut arguments = vec![
                Argument::Place(of.query, queries),
                Argument::Place(of.key, keys),
                Argument::Place(of.value, keys),
                Argument::Place(of.target, queries),
                Argument::Number(0),
            ];
            arguments.extend(sizes(of));
            self.attend(kernels.forward, kernels.tile, rows, arguments);
            return Ok(());
        };
        let arguments = vec![
            Argument::Place(of.key, keys),
            Argument::Place(of.value, keys),
            Argument::KeptKeys(of.id),
            Argument::KeptValues(of.id),
            Argument::Pages,
            Argument::Lengths,
            count(of.batch),
            count(of.time),
            count(of.key_heads * of.width),
            count(most_pages),
        ];
        let blocks = blocks(keys, 1, self.choices.multiprocessors);
        // The text makes all kernels of the family.
        let keep = KernelText {
            name: "keep_positions".into(),
            ..kernels.kept.clone()
        };
        self.launch(keep, blocks, arguments);
        let arguments = vec![
            Argument::Place(of.query, queries),
            Argument::KeptKeys(of.id),
            Argument::KeptValues(of.id),
            Argument::Place(of.target, queries),
            Argument::Pages,
            Argument::Lengths,
            count(of.batch),
            count(of.time),
            count(of.heads),
            count(of.key_heads),
            count(most_pages),
            float(of.scale),
        ];
        self.attend(kernels.kept, kernels.tile, rows, arguments);
        Ok(())
    }

    /// Computes the result and its levels again, then the three gradients side by side.
    fn attention_slope(&mut self, of: &Attention, slope: Place) -> Result<(), RunError> {
        let (queries, keys) = (of.elements(of.heads), of.elements(of.key_heads));
        let whole = Self::countable(queries + 2 * keys)?;
        if queries == 0 || keys == 0 {
            return Ok(());
        }
        let kernels = Self::kernels_of(of)?;
        let rows = of.batch * of.heads * of.time;
        let result = Argument::Scratch(0);
        let levels_at = (queries as u64 * 4).next_multiple_of(256);
        let levels = Argument::Scratch(levels_at);
        let deltas_at = levels_at + (rows as u64 * 4).next_multiple_of(256);
        let deltas = Argument::Scratch(deltas_at);
        self.scratch(deltas_at + rows as u64 * 4);
        let operands = [
            Argument::Place(of.query, queries),
            Argument::Place(of.key, keys),
            Argument::Place(of.value, keys),
        ];
        let slope = Argument::Place(slope, queries);
        let by_query = [of.batch, of.heads, of.time];
        let mut arguments = operands.to_vec();
        arguments.extend([result.clone(), levels.clone()]);
        arguments.extend(sizes(of));
        self.attend(kernels.forward, kernels.tile, by_query, arguments);
        let sums = KernelText {
            name: "attention_deltas".into(),
            ..kernels.kept
        };
        let arguments = vec![
            result,
            slope.clone(),
            deltas.clone(),
            count(of.batch),
            count(of.time),
            count(of.heads),
            count(of.width),
        ];
        self.launch(sums, rows.div_ceil(8) as u32, arguments);
        // [batch, time, heads + 2 key heads, width]
        let stride = (of.heads + 2 * of.key_heads) * of.width;
        let part = |heads: usize| {
            let place = Place {
                offset: of.target.offset + heads * of.width,
                ..of.target
            };
            Argument::Place(place, whole - heads * of.width)
        };
        let mut arguments = operands.to_vec();
        arguments.extend([slope.clone(), levels.clone(), deltas.clone()]);
        arguments.extend([part(0), count(stride)]);
        arguments.extend(sizes(of));
        self.attend(kernels.slope_q, kernels.tile, by_query, arguments);
        let mut arguments = operands.to_vec();
        arguments.extend([slope, levels, deltas]);
        arguments.extend([part(of.heads), part(of.heads + of.key_heads), count(stride)]);
        arguments.extend(sizes(of));
        let by_key = [of.batch, of.key_heads, of.time];
        self.attend(kernels.slope_kv, kernels.tile, by_key, arguments);
        Ok(())
    }

    fn map(&mut self, program: &MapProgram) -> Result<(), RunError> {
        let elements = Self::countable(program.elements)?;
        if elements == 0 {
            return Ok(());
        }
        let (text, places) = source::map(program);
        let mut arguments = vec![count(elements), Argument::Run];
        arguments.extend(
            places
                .into_iter()
                .map(|(place, elements)| Argument::Place(place, elements)),
        );
        if arguments.len() > MOST_ARGUMENTS {
            return Err(RunError::Device {
                what: format!("a fused kernel takes {} arguments", arguments.len()),
            });
        }
        let blocks = blocks(elements, 4, self.choices.multiprocessors);
        self.launch(text, blocks, arguments);
        Ok(())
    }

    /// Folds the middle axis, a part at a time while it is long.
    fn reduce(
        &mut self,
        fold: Fold,
        source: Place,
        target: Place,
        [outer, counted, inner]: [usize; 3],
    ) -> Result<(), RunError> {
        let (fold_name, start) = match fold {
            Fold::Sum => ("sum", 0.0),
            Fold::Maximum => ("maximum", f32::NEG_INFINITY),
            Fold::Minimum => ("minimum", f32::INFINITY),
        };
        Self::countable(outer * counted * inner)?;
        if counted == 0 || inner == 0 {
            let elements = outer * inner;
            let arguments = vec![
                Argument::Place(target, elements),
                count(elements),
                float(start),
            ];
            self.each(Family::Lookup, "fill", elements, arguments);
            return Ok(());
        }
        if outer == 0 {
            return Ok(());
        }
        let chunk = if inner == 1 { ROW_CHUNK } else { COLUMN_CHUNK };
        let mut length = counted;
        let mut from = Argument::Place(source, outer * counted * inner);
        // Parts lie in two stretches that take turns.
        let most = (outer * counted.div_ceil(chunk) * inner * 4) as u64;
        let most = most.next_multiple_of(256);
        let mut turn = 0;
        loop {
            let parts = length.div_ceil(chunk);
            let to = if parts == 1 {
                Argument::Place(target, outer * inner)
            } else {
                self.scratch(2 * most);
                Argument::Scratch(turn * most)
            };
            if inner == 1 {
                let rows = outer * parts;
                let arguments = vec![from, to.clone(), count(outer), count(length), count(chunk)];
                let name = format!("reduce_rows_{fold_name}");
                self.rows(&name, rows, length.min(chunk), arguments);
            } else {
                let tiles = inner.div_ceil(32) * parts * outer;
                let arguments = vec![from, to.clone(), count(length), count(inner), count(chunk)];
                let name = format!("reduce_columns_{fold_name}");
                let text = KernelText::ready(Family::Rows, &name);
                self.launch(text, tiles as u32, arguments);
            }
            if parts == 1 {
                return Ok(());
            }
            from = to;
            length = parts;
            turn = 1 - turn;
        }
    }

    /// Sorts the places by number, then adds the rows of each number in their order.
    fn scatter(
        &mut self,
        indices: Place,
        source: Place,
        target: Place,
        [counted, size, width]: [usize; 3],
        node: u32,
    ) -> Result<(), RunError> {
        Self::countable(counted * width.max(1))?;
        let elements = Self::countable(size * width)?;
        let check = self.check(node, counted, size);
        if width == 0 {
            let arguments = vec![
                Argument::Place(indices, counted),
                count(counted),
                count(size),
                check,
            ];
            self.each(Family::Lookup, "check_numbers", counted, arguments);
            return Ok(());
        }
        let keys_bytes = (counted as u64 * 8).next_multiple_of(256).max(256);
        self.scratch(2 * keys_bytes);
        let mut turn = 0;
        if counted > 0 {
            let arguments = vec![
                Argument::Place(indices, counted),
                Argument::Scratch(0),
                count(counted),
                count(size),
                check,
            ];
            let text = KernelText::ready(Family::Lookup, "sort_block");
            self.launch(text, counted.div_ceil(SORTED) as u32, arguments);
            let mut length = SORTED;
            while length < counted {
                let arguments = vec![
                    Argument::Scratch(turn * keys_bytes),
                    Argument::Scratch((1 - turn) * keys_bytes),
                    count(counted),
                    count(length),
                ];
                self.each(Family::Lookup, "merge_runs", counted, arguments);
                length *= 2;
                turn = 1 - turn;
            }
        }
        let arguments = vec![
            Argument::Scratch(turn * keys_bytes),
            Argument::Place(source, counted * width),
            Argument::Place(target, elements),
            count(counted),
            count(size),
            count(width),
        ];
        self.each(Family::Lookup, "add_sorted", elements, arguments);
        Ok(())
    }

    fn multiply(&mut self, of: &Multiplication) -> Result<(), RunError> {
        let Multiplication { batch, m, k, n, .. } = *of;
        let elements = Self::countable(batch * m * n)?;
        if elements == 0 {
            return Ok(());
        }
        let (right, right_batch) = match of.right {
            Right::Dense {
                place,
                batch_stride,
            } => {
                let dense = Unpacked {
                    place,
                    row_stride: n,
                    column_stride: 1,
                };
                (dense, batch_stride)
            }
            Right::Packed { place } => match self.unpacked.get(&place.offset) {
                Some(unpacked) => (*unpacked, 0),
                None => {
                    return Err(RunError::Device {
                        what: format!("no matrix of panels of {PANEL} at {}", place.offset),
                    });
                }
            },
        };
        let sides = Sides {
            left: [
                of.left.row_stride,
                of.left.column_stride,
                of.left.batch_stride,
            ],
            right: [right.row_stride, right.column_stride, right_batch],
        };
        let left_elements = if k == 0 {
            0
        } else {
            reach([(m, sides.left[0]), (k, sides.left[1])]) + (batch - 1) * sides.left[2]
        };
        let right_elements = if k == 0 {
            0
        } else {
            reach([(k, sides.right[0]), (n, sides.right[1])]) + (batch - 1) * right_batch
        };
        let on_tensor_cores = match self.choices.precision {
            Precision::F32Strict => None,
            Precision::Tf32 => Some(Operands::Tf32),
            Precision::Bf16Mixed => Some(Operands::Bf16),
        };
        let product = on_tensor_cores.and_then(|operands| sides.product(of, operands));
        let operands = [
            Argument::Place(of.left.place, left_elements),
            Argument::Place(right.place, right_elements),
            Argument::Place(of.target, elements),
        ];
        let bias = of.bias.map(|place| Argument::Place(place, n));
        match product {
            Some(product) => {
                self.product(product, operands, bias, [left_elements, right_elements])?
            }
            None => self.strict(of, sides, operands, bias),
        }
        if let Some(epilogue) = &of.epilogue {
            self.map(epilogue)?;
        }
        Ok(())
    }

    fn strict(
        &mut self,
        of: &Multiplication,
        sides: Sides,
        [left, right, target]: [Argument; 3],
        bias: Option<Argument>,
    ) {
        let Multiplication { batch, m, k, n, .. } = *of;
        let tiles = |tile: Tile| {
            let [rows, columns] = tile.extents();
            batch * m.div_ceil(rows) * n.div_ceil(columns)
        };
        let enough = self.choices.multiprocessors.max(1) as usize;
        let tile = if m <= 16 {
            Tile::Flat
        } else if tiles(Tile::Large) >= 2 * enough {
            Tile::Large
        } else if tiles(Tile::Middle) >= enough {
            Tile::Middle
        } else {
            Tile::Flat
        };
        let text = source::multiply(tile, sides.left[1] == 1, sides.right[1] == 1);
        let mut arguments = vec![left, right, target, bias.unwrap_or(Argument::Number(0))];
        arguments.extend([m, k, n].map(count));
        arguments.extend(sides.left.map(count));
        arguments.extend(sides.right.map(count));
        arguments.push(Argument::Number(u64::from(of.relu)));
        self.launch(text, tiles(tile) as u32, arguments);
    }

    /// A product on tensor cores; its operands are converted first where it takes others.
    fn product(
        &mut self,
        product: MatrixProduct,
        [left, right, target]: [Argument; 3],
        bias: Option<Argument>,
        [left_elements, right_elements]: [usize; 2],
    ) -> Result<(), RunError> {
        let mut used = 0_u64;
        let mut operands = [right, left, target];
        if product.operands == Operands::Bf16 {
            for (operand, elements) in operands.iter_mut().zip([right_elements, left_elements]) {
                Self::countable(elements)?;
                let converted = Argument::Scratch(used);
                let arguments = vec![operand.clone(), converted.clone(), count(elements)];
                self.each(Family::Update, "to_bfloat16", elements, arguments);
                *operand = converted;
                used += (elements as u64 * 2).next_multiple_of(256);
            }
        }
        self.scratch(used + WORKSPACE_BYTES);
        let product = Product {
            product: MatrixProduct {
                workspace_bytes: WORKSPACE_BYTES,
                ..product
            },
            operands,
            bias,
            workspace: used,
        };
        let operation = Operation::Product(Box::new(product));
        self.lowered.operations.push(operation);
        Ok(())
    }
}

/// What kernels of attention take last.
fn sizes(of: &Attention) -> [Argument; 6] {
    [
        count(of.batch),
        count(of.time),
        count(of.heads),
        count(of.key_heads),
        Argument::Number(u64::from(of.causal)),
        float(of.scale),
    ]
}

/// Elements from the first to the last of a view, both included.
fn reach(axes: [(usize, usize); 2]) -> usize {
    if axes.iter().any(|(extent, _)| *extent == 0) {
        return 0;
    }
    axes.iter()
        .map(|(extent, stride)| (extent - 1) * stride)
        .sum::<usize>()
        + 1
}

/// Strides of rows, columns and matrices.
#[derive(Clone, Copy, Debug)]
struct Sides {
    left: [usize; 3],
    right: [usize; 3],
}

impl Sides {
    /// The product as the library sees it: by columns, so the transpose of the result is the
    /// transpose of the right operand times that of the left. None where strides cannot say it.
    fn product(&self, of: &Multiplication, operands: Operands) -> Option<MatrixProduct> {
        let Multiplication { batch, m, k, n, .. } = *of;
        if k == 0 {
            return None;
        }
        // A row-major matrix is its transpose by columns.
        let a = matrix(self.right, [k, n])?;
        let b = matrix(self.left, [m, k])?;
        Some(MatrixProduct {
            rows: n as u64,
            columns: m as u64,
            inner: k as u64,
            batch: batch as u64,
            operands,
            a,
            b,
            d: Matrix {
                address: 0,
                leading: n as u64,
                batch_stride: (m * n) as u64,
                transposed: false,
            },
            bias: 0,
            relu: of.relu,
            workspace: 0,
            workspace_bytes: 0,
        })
    }
}

/// The transpose of a [rows, columns] matrix of these strides, by columns.
fn matrix(
    [row_stride, column_stride, batch_stride]: [usize; 3],
    [rows, columns]: [usize; 2],
) -> Option<Matrix> {
    let of = |leading: usize, transposed: bool| Matrix {
        address: 0,
        leading: leading as u64,
        batch_stride: batch_stride as u64,
        transposed,
    };
    if (column_stride == 1 || columns == 1) && (rows == 1 || row_stride >= columns) {
        return Some(of(if rows == 1 { columns } else { row_stride }, false));
    }
    if (row_stride == 1 || rows == 1) && (columns == 1 || column_stride >= rows) {
        return Some(of(if columns == 1 { rows } else { column_stride }, true));
    }
    None
}
