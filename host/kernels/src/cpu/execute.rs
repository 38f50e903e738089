//! Runs the instructions of a plan.

use super::along;
use super::attention;
use super::level::Level;
use super::lookup::{self, OutOfRange};
use super::map::{Piece, run_map};
use super::memory::Memory;
use super::multiply::{self, Product, RightLayout};
use super::rows;
use crate::error::RunError;
use crate::plan::{Instruction, Multiplication, PANEL, Place, Plan, Right};

/// Elements of a product after which its epilogue runs, so that they are still near.
const EPILOGUE_ELEMENTS: usize = 4096;

/// Runs a plan.
///
/// # Safety
/// The spans of the memory name live memory; the slab, the gradients, the outputs and the
/// registers belong to this run alone, and nothing writes the others meanwhile. The plan was
/// made for these sizes; a place outside a span panics.
pub(super) unsafe fn execute(
    plan: &Plan,
    memory: &Memory<'_>,
    piece: Piece,
    level: Level,
) -> Result<(), RunError> {
    for instruction in &plan.instructions {
        // SAFETY: the caller's promise.
        unsafe { run(instruction, memory, piece, level)? };
    }
    Ok(())
}

/// The error of a node whose numbers are `count` in this piece; the place counts from the first
/// row of all.
fn named(node: u32, count: usize, piece: Piece) -> impl Fn(OutOfRange) -> RunError {
    let before = count
        .checked_div(piece.rows)
        .map_or(0, |per_row| per_row * piece.first_row);
    move |found| RunError::IndexOutOfRange {
        node,
        number: found.number,
        place: before + found.place,
        size: found.size,
    }
}

/// # Safety
/// As [`execute`]. The plan gives an instruction no place to write that it also reads, but for
/// maps, which say so.
unsafe fn run(
    instruction: &Instruction,
    memory: &Memory<'_>,
    piece: Piece,
    level: Level,
) -> Result<(), RunError> {
    // SAFETY: of each `read` and `write` below: see above.
    let read = |place: Place, elements: usize| unsafe { memory.read(place, elements) };
    // SAFETY: as above.
    let read_int = |place: Place, elements: usize| unsafe { memory.read_int(place, elements) };
    // SAFETY: as above.
    let write = |place: Place, elements: usize| unsafe { memory.write(place, elements) };
    match *instruction {
        Instruction::Map(ref program) => {
            run_map(level, program, memory, piece, 0, program.elements)
        }
        Instruction::Multiply(ref multiplication) => {
            // SAFETY: as above.
            unsafe { multiply(multiplication, memory, piece, level) };
        }
        Instruction::Pack {
            source,
            row_stride,
            column_stride,
            k,
            n,
            target,
        } => {
            let target = write(target, n.div_ceil(PANEL) * PANEL * k);
            let reach = k.saturating_sub(1) * row_stride + n.saturating_sub(1) * column_stride;
            if k > 0 && n > 0 {
                let source = memory.at(source, reach + 1);
                // SAFETY: the matrix reaches no further.
                unsafe { multiply::pack(source, row_stride, column_stride, k, n, target) };
            }
        }
        Instruction::Reduce {
            fold,
            source,
            target,
            outer,
            count,
            inner,
        } => {
            let source = read(source, outer * count * inner);
            rows::reduce(
                level,
                fold,
                source,
                write(target, outer * inner),
                count,
                inner,
            );
        }
        Instruction::Argmax {
            source,
            target,
            rows,
            count,
        } => {
            // SAFETY: as above.
            let target = unsafe { memory.write_int(target, rows) };
            rows::argmax(read(source, rows * count), target, count);
        }
        Instruction::Softmax {
            source,
            target,
            rows,
            count,
            logarithm,
        } => {
            let elements = rows * count;
            rows::softmax(
                level,
                read(source, elements),
                write(target, elements),
                count,
                logarithm,
            );
        }
        Instruction::Normalize {
            source,
            target,
            rows,
            count,
            epsilon,
        } => {
            let elements = rows * count;
            rows::normalize(
                level,
                read(source, elements),
                write(target, elements),
                count,
                epsilon,
            );
        }
        Instruction::NormalizeSlope {
            source,
            slope,
            target,
            rows,
            count,
            epsilon,
        } => {
            let elements = rows * count;
            let (source, slope) = (read(source, elements), read(slope, elements));
            rows::normalize_slope(
                level,
                source,
                slope,
                write(target, elements),
                count,
                epsilon,
            );
        }
        Instruction::CrossEntropy {
            logits,
            labels,
            target,
            rows,
            count,
            node,
        } => {
            let labels = read_int(labels, rows);
            lookup::check_all(labels, count).map_err(named(node, rows, piece))?;
            let logits = read(logits, rows * count);
            rows::cross_entropy(level, logits, labels, write(target, rows), count);
        }
        Instruction::CrossEntropySlope {
            logits,
            labels,
            slope,
            target,
            rows,
            count,
            node,
        } => {
            let labels = read_int(labels, rows);
            lookup::check_all(labels, count).map_err(named(node, rows, piece))?;
            let (logits, slope) = (read(logits, rows * count), read(slope, rows));
            let target = write(target, rows * count);
            rows::cross_entropy_slope(level, logits, labels, slope, target, count);
        }
        Instruction::Gather {
            table,
            indices,
            target,
            count,
            size,
            width,
            node,
        } => {
            let (table, indices) = (read(table, size * width), read_int(indices, count));
            let target = write(target, count * width);
            lookup::gather(table, indices, target, size, width)
                .map_err(named(node, count, piece))?;
        }
        Instruction::Scatter {
            indices,
            source,
            target,
            count,
            size,
            width,
            node,
        } => {
            let (indices, source) = (read_int(indices, count), read(source, count * width));
            let target = write(target, size * width);
            lookup::scatter(indices, source, target, size, width)
                .map_err(named(node, count, piece))?;
        }
        Instruction::OneHot {
            indices,
            target,
            count,
            depth,
        } => {
            lookup::one_hot(
                read_int(indices, count),
                write(target, count * depth),
                depth,
            );
        }
        Instruction::Attention(ref of) => {
            match memory.kept {
                // SAFETY: as above; the keys and values that are kept belong to this run.
                Some(kept) => unsafe { attention::attend_kept(level, of, memory, kept) },
                // SAFETY: as above.
                None => unsafe { attention::attend(level, of, memory) },
            }
        }
        Instruction::AttentionSlope { ref of, slope } => {
            // SAFETY: as above.
            unsafe { attention::slope(level, of, slope, memory) };
        }
        Instruction::CumulativeSum {
            source,
            target,
            outer,
            count,
            inner,
            exclusive,
            reverse,
        } => {
            let elements = outer * count * inner;
            let (source, target) = (read(source, elements), write(target, elements));
            along::cumulative_sum(source, target, count, inner, exclusive, reverse);
        }
        Instruction::TopK {
            source,
            target,
            rows,
            count,
            kept,
        } => {
            // SAFETY: as above.
            let target = unsafe { memory.write_int(target, rows * kept) };
            along::top_k(read(source, rows * count), target, count, kept);
        }
        Instruction::TakeAlong {
            source,
            indices,
            target,
            rows,
            count,
            taken,
            node,
        } => {
            let indices = read_int(indices, rows * taken);
            let (source, target) = (read(source, rows * count), write(target, rows * taken));
            along::take(source, indices, target, count, taken).map_err(named(
                node,
                rows * taken,
                piece,
            ))?;
        }
        Instruction::PutAlong {
            indices,
            source,
            target,
            rows,
            count,
            taken,
            node,
        } => {
            let indices = read_int(indices, rows * taken);
            let (source, target) = (read(source, rows * taken), write(target, rows * count));
            along::put(indices, source, target, count, taken).map_err(named(
                node,
                rows * taken,
                piece,
            ))?;
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
            let source = read(source, outer * windows * size * inner);
            let target = write(target, outer * extent * inner);
            let windows = along::Windows {
                count: windows,
                size,
                stride,
                dilation,
                extent,
                inner,
            };
            along::unwindow(source, target, windows);
        }
        Instruction::Unpack {
            source,
            target,
            rows,
            words,
            count,
            bits,
        } => {
            let source = read_int(source, rows * words);
            along::unpack(source, write(target, rows * count), words, count, bits);
        }
        Instruction::Zero { target, elements } => write(target, elements).fill(0.0),
        Instruction::CopyRows {
            source,
            target,
            rows,
            width,
            source_stride,
            target_stride,
        } => {
            if rows > 0 && width > 0 {
                let source = read(source, (rows - 1) * source_stride + width);
                let target = write(target, (rows - 1) * target_stride + width);
                for row in 0..rows {
                    target[row * target_stride..][..width]
                        .copy_from_slice(&source[row * source_stride..][..width]);
                }
            }
        }
    }
    Ok(())
}

/// # Safety
/// As [`run`].
unsafe fn multiply(of: &Multiplication, memory: &Memory<'_>, piece: Piece, level: Level) {
    let Multiplication { batch, m, k, n, .. } = *of;
    if batch * m * n == 0 {
        return;
    }
    let inner = k.saturating_sub(1) * of.left.column_stride;
    let left_reach = (batch - 1) * of.left.batch_stride + (m - 1) * of.left.row_stride + inner;
    let left = memory.at(of.left.place, if k == 0 { 0 } else { left_reach + 1 });
    let (right, right_batch_stride, layout) = match of.right {
        Right::Dense {
            place,
            batch_stride,
        } => (
            memory.at(place, (batch - 1) * batch_stride + k * n),
            batch_stride,
            RightLayout::Rows { stride: n },
        ),
        Right::Packed { place } => (
            memory.at(place, n.div_ceil(PANEL) * PANEL * k),
            0,
            RightLayout::Panels { stride: k * PANEL },
        ),
    };
    let target = memory.at(of.target, batch * m * n);
    let bias = of
        .bias
        .map_or(std::ptr::null(), |place| memory.at(place, n).cast_const());
    let mut waiting = 0;
    for index in 0..batch {
        // SAFETY: inside what was asked for above; where k is 0, nothing is read.
        let product = unsafe {
            Product {
                m,
                k,
                n,
                left: left.wrapping_add(index * of.left.batch_stride),
                row_stride: of.left.row_stride,
                column_stride: of.left.column_stride,
                right: right.add(index * right_batch_stride),
                layout,
                bias,
                relu: of.relu,
                target: target.add(index * m * n),
                target_stride: n,
            }
        };
        let Some(epilogue) = &of.epilogue else {
            // SAFETY: the sizes are those asked for above, and the plan keeps the target apart.
            unsafe { multiply::multiply_rows(level, &product, 0, m) };
            continue;
        };
        // Whole tiles at a time, and all of nearly the same height.
        let tiles = m.div_ceil(multiply::tile_rows(level));
        let tiles_at_once = (EPILOGUE_ELEMENTS * tiles / (m * n)).max(1);
        let mut tile = 0;
        while tile < tiles {
            let first = m * tile / tiles;
            tile = (tile + tiles_at_once).min(tiles);
            let row = m * tile / tiles;
            // SAFETY: as above.
            unsafe { multiply::multiply_rows(level, &product, first, row - first) };
            let ready = (index * m + row) * n;
            if ready - waiting >= EPILOGUE_ELEMENTS || ready == batch * m * n {
                run_map(level, epilogue, memory, piece, waiting, ready);
                waiting = ready;
            }
        }
    }
}
