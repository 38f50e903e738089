//! The groups of values that are not maps.

use super::build::{Builder, Found, Make, Reference, Root, RootMultiply};
use super::view::View;
use super::{Attention, Instruction, Region};
use crate::ir::{Operation, Product, ValueId};

impl Builder<'_> {
    /// Begins the group of a kernel; says where its result will be.
    pub(super) fn kernel(&mut self, id: ValueId, operation: &Operation) -> Found {
        if let Operation::Matmul(product) = operation {
            return self.multiply(id, *product);
        }
        let ir = self.request.ir;
        let operands = ir.value(id).operands.as_slice();
        let node = ir.nodes[id as usize];
        let extents = self.extents(id);
        let elements: usize = extents.iter().product();
        let sources: Vec<Reference> = operands
            .iter()
            .map(|operand| self.dense(*operand))
            .collect();
        let first_extents = self.extents(operands[0]);
        let first_elements: usize = first_extents.iter().product();
        // The group comes after the copies that its operands may have needed.
        let write = self.buffer(elements, self.groups.len());
        let target = Reference {
            buffer: write,
            offset: 0,
        };
        let source = sources[0];
        let count = first_extents.last().copied().unwrap_or(1);
        let rows: usize = first_extents
            .split_last()
            .map_or(1, |(_, leading)| leading.iter().product());
        let mut make: Vec<Make> = Vec::new();
        let flops = match operation {
            Operation::Reduce { fold, axes } => {
                let fold = *fold;
                let (first, last) = (axes[0], axes[axes.len() - 1]);
                let outer = first_extents[..first].iter().product();
                let count = first_extents[first..=last].iter().product();
                let inner = first_extents[last + 1..].iter().product();
                make.push(Box::new(move |at| Instruction::Reduce {
                    fold,
                    source: at(source),
                    target: at(target),
                    outer,
                    count,
                    inner,
                }));
                first_elements
            }
            Operation::Argmax => {
                make.push(Box::new(move |at| Instruction::Argmax {
                    source: at(source),
                    target: at(target),
                    rows,
                    count,
                }));
                first_elements
            }
            Operation::Softmax { logarithm } => {
                let logarithm = *logarithm;
                make.push(Box::new(move |at| Instruction::Softmax {
                    source: at(source),
                    target: at(target),
                    rows,
                    count,
                    logarithm,
                }));
                first_elements * 12
            }
            Operation::Normalize { epsilon } => {
                let epsilon = epsilon.value();
                make.push(Box::new(move |at| Instruction::Normalize {
                    source: at(source),
                    target: at(target),
                    rows,
                    count,
                    epsilon,
                }));
                first_elements * 6
            }
            Operation::NormalizeSlope { epsilon } => {
                let (epsilon, slope) = (epsilon.value(), sources[1]);
                make.push(Box::new(move |at| Instruction::NormalizeSlope {
                    source: at(source),
                    slope: at(slope),
                    target: at(target),
                    rows,
                    count,
                    epsilon,
                }));
                first_elements * 12
            }
            Operation::CrossEntropy => {
                let labels = sources[1];
                make.push(Box::new(move |at| Instruction::CrossEntropy {
                    logits: at(source),
                    labels: at(labels),
                    target: at(target),
                    rows,
                    count,
                    node,
                }));
                first_elements * 12
            }
            Operation::CrossEntropySlope => {
                let (labels, slope) = (sources[1], sources[2]);
                make.push(Box::new(move |at| Instruction::CrossEntropySlope {
                    logits: at(source),
                    labels: at(labels),
                    slope: at(slope),
                    target: at(target),
                    rows,
                    count,
                    node,
                }));
                first_elements * 12
            }
            Operation::Gather => {
                let indices = sources[1];
                let size = first_extents[0];
                let width = first_extents[1..].iter().product();
                let count = self.extents(operands[1]).iter().product();
                make.push(Box::new(move |at| Instruction::Gather {
                    table: at(source),
                    indices: at(indices),
                    target: at(target),
                    count,
                    size,
                    width,
                    node,
                }));
                0
            }
            Operation::Scatter => {
                let rows = sources[1];
                let size = extents[0];
                let width = extents[1..].iter().product();
                make.push(Box::new(move |at| Instruction::Scatter {
                    indices: at(source),
                    source: at(rows),
                    target: at(target),
                    count: first_elements,
                    size,
                    width,
                    node,
                }));
                first_elements * extents[1..].iter().product::<usize>()
            }
            Operation::OneHot => {
                let depth = extents[extents.len() - 1];
                make.push(Box::new(move |at| Instruction::OneHot {
                    indices: at(source),
                    target: at(target),
                    count: first_elements,
                    depth,
                }));
                0
            }
            Operation::Pad { axis, before } => {
                make.push(Box::new(move |at| Instruction::Zero {
                    target: at(target),
                    elements,
                }));
                let inner: usize = extents[axis + 1..].iter().product();
                let width = first_extents[*axis] * inner;
                let target = Reference {
                    buffer: write,
                    offset: before * inner,
                };
                let stride = extents[*axis] * inner;
                make.push(copy_rows(
                    source,
                    target,
                    extents[..*axis].iter().product(),
                    width,
                    stride,
                ));
                0
            }
            Operation::CumulativeSum {
                axis,
                exclusive,
                reverse,
            } => {
                let (axis, exclusive, reverse) = (*axis, *exclusive, *reverse);
                let outer = extents[..axis].iter().product();
                let count = extents[axis];
                let inner = extents[axis + 1..].iter().product();
                make.push(Box::new(move |at| Instruction::CumulativeSum {
                    source: at(source),
                    target: at(target),
                    outer,
                    count,
                    inner,
                    exclusive,
                    reverse,
                }));
                elements
            }
            Operation::TopK => {
                let kept = extents[extents.len() - 1];
                make.push(Box::new(move |at| Instruction::TopK {
                    source: at(source),
                    target: at(target),
                    rows,
                    count,
                    kept,
                }));
                first_elements
            }
            Operation::TakeAlong => {
                let indices = sources[1];
                let taken = extents[extents.len() - 1];
                make.push(Box::new(move |at| Instruction::TakeAlong {
                    source: at(source),
                    indices: at(indices),
                    target: at(target),
                    rows,
                    count,
                    taken,
                    node,
                }));
                0
            }
            Operation::PutAlong => {
                let updates = sources[1];
                let (taken, count) = (count, extents[extents.len() - 1]);
                make.push(Box::new(move |at| Instruction::PutAlong {
                    indices: at(source),
                    source: at(updates),
                    target: at(target),
                    rows,
                    count,
                    taken,
                    node,
                }));
                first_elements
            }
            Operation::Unwindow {
                axis,
                stride,
                dilation,
            } => {
                let (axis, stride, dilation) = (*axis, *stride, *dilation);
                let outer = extents[..axis].iter().product();
                let (windows, size) = (first_extents[axis], first_extents[axis + 1]);
                let extent = extents[axis];
                let inner = extents[axis + 1..].iter().product();
                make.push(Box::new(move |at| Instruction::Unwindow {
                    source: at(source),
                    target: at(target),
                    outer,
                    windows,
                    size,
                    stride,
                    dilation,
                    extent,
                    inner,
                }));
                first_elements
            }
            Operation::Unpack { bits } => {
                let bits = *bits;
                let (words, count) = (count, extents[extents.len() - 1]);
                make.push(Box::new(move |at| Instruction::Unpack {
                    source: at(source),
                    target: at(target),
                    rows,
                    words,
                    count,
                    bits,
                }));
                elements
            }
            Operation::Concatenate { axis } => {
                let inner: usize = extents[axis + 1..].iter().product();
                let stride = extents[*axis] * inner;
                let mut offset = 0;
                for (operand, source) in operands.iter().zip(&sources) {
                    let width = self.extents(*operand)[*axis] * inner;
                    let target = Reference {
                        buffer: write,
                        offset,
                    };
                    make.push(copy_rows(
                        *source,
                        target,
                        extents[..*axis].iter().product(),
                        width,
                        stride,
                    ));
                    offset += width;
                }
                0
            }
            Operation::Attention { causal, scale }
            | Operation::AttentionSlope { causal, scale } => {
                let key_extents = self.extents(operands[1]);
                let [key, value] = [sources[1], sources[2]];
                let slope = sources.get(3).copied();
                let [batch, time, heads, width] = [0, 1, 2, 3].map(|axis| first_extents[axis]);
                let (causal, scale, key_heads) = (*causal, scale.value(), key_extents[2]);
                make.push(Box::new(move |at| {
                    let of = Attention {
                        query: at(source),
                        key: at(key),
                        value: at(value),
                        target: at(target),
                        batch,
                        time,
                        heads,
                        key_heads,
                        width,
                        causal,
                        scale,
                        id,
                    };
                    match slope {
                        None => Instruction::Attention(of),
                        Some(slope) => Instruction::AttentionSlope {
                            of,
                            slope: at(slope),
                        },
                    }
                }));
                // Half the scores where a position does not see what comes.
                let scores = batch * heads * time * time / if causal { 2 } else { 1 };
                scores
                    * (if slope.is_some() {
                        10 * width + 30
                    } else {
                        4 * width + 22
                    })
            }
            // Sources, views, maps and products are not kernels.
            Operation::Input(_)
            | Operation::Parameter(_)
            | Operation::Literal(_)
            | Operation::Scalar(_)
            | Operation::InverseCount(_)
            | Operation::Map(_)
            | Operation::Reshape
            | Operation::Transpose(_)
            | Operation::Broadcast
            | Operation::Slice { .. }
            | Operation::Window { .. }
            | Operation::Matmul(_) => 0,
        };
        let reads = sources.iter().map(|source| source.buffer).collect();
        self.begin(
            id,
            Root::Kernel {
                reads,
                write,
                make,
                flops: flops as u64,
            },
        );
        Found::Memory {
            buffer: write,
            view: View::dense(extents),
        }
    }

    fn multiply(&mut self, id: ValueId, product: Product) -> Found {
        let operands = &self.request.ir.value(id).operands;
        let (left_id, right_id) = (operands[0], operands[1]);
        let extents = self.extents(id);
        let left_extents = self.extents(left_id);
        let right_extents = self.extents(right_id);
        let n = extents[extents.len() - 1];
        let last = left_extents[left_extents.len() - 1];
        let leading: usize = left_extents[..left_extents.len() - 1].iter().product();
        if matches!(product, Product::Grouped | Product::GroupedOuter) {
            return self.multiply_groups(id, product);
        }
        let (batch, m, k) = match product {
            Product::Shared => (1, leading, last),
            Product::Outer => (1, last, leading),
            Product::Batched => {
                let rows = left_extents[left_extents.len() - 2];
                (
                    left_extents[..left_extents.len() - 2].iter().product(),
                    rows,
                    last,
                )
            }
            // Above.
            Product::Grouped | Product::GroupedOuter => (1, 0, 0),
        };
        let (left, strides, left_batch_stride) = self.left(left_id, product == Product::Batched);
        let [row_stride, column_stride] = match product {
            Product::Outer => [strides[1], strides[0]],
            _ => strides,
        };
        let packed = match product {
            Product::Shared => self.request.shared.packed.get(&right_id).copied(),
            _ => None,
        };
        let right = match packed {
            Some(offset) => {
                let elements = super::shared::packed_elements(k, n);
                let buffer = self.external(Region::Shared, offset, elements);
                Reference { buffer, offset: 0 }
            }
            None => self.dense(right_id),
        };
        let right_batch_stride = if product == Product::Batched {
            right_extents[right_extents.len() - 2] * n
        } else {
            0
        };
        let write = self.buffer(extents.iter().product(), self.groups.len());
        self.begin(
            id,
            Root::Multiply(RootMultiply {
                batch,
                m,
                k,
                n,
                left,
                row_stride,
                column_stride,
                left_batch_stride,
                right,
                packed: packed.is_some(),
                right_batch_stride,
                write,
            }),
        );
        Found::Memory {
            buffer: write,
            view: View::dense(extents),
        }
    }

    /// A product for each group, of rows that lie beside those of the other groups.
    fn multiply_groups(&mut self, id: ValueId, product: Product) -> Found {
        let operands = &self.request.ir.value(id).operands;
        let (left_id, right_id) = (operands[0], operands[1]);
        let extents = self.extents(id);
        let left_extents = self.extents(left_id);
        let n = extents[extents.len() - 1];
        let rank = left_extents.len();
        let (groups, inner) = (left_extents[rank - 2], left_extents[rank - 1]);
        let rows: usize = left_extents[..rank - 2].iter().product();
        let wanted = [rows, groups, inner];
        let strided = match self.found(left_id) {
            Found::Memory { buffer, view } if view.elements() > 0 => {
                view.reshape(&wanted).map(|view| (buffer, view))
            }
            _ => None,
        };
        let (left, [row_stride, group_stride, column_stride]) = match strided {
            Some((buffer, view)) => {
                self.buffers[buffer].stored = true;
                let reference = Reference {
                    buffer,
                    offset: view.offset,
                };
                (
                    reference,
                    [view.strides[0], view.strides[1], view.strides[2]],
                )
            }
            None => (self.dense(left_id), [groups * inner, inner, 1]),
        };
        let right = self.dense(right_id);
        let (m, k, row_stride, column_stride) = match product {
            Product::Grouped => (rows, inner, row_stride, column_stride),
            _ => (inner, rows, column_stride, row_stride),
        };
        let write = self.buffer(extents.iter().product(), self.groups.len());
        self.begin(
            id,
            Root::Multiply(RootMultiply {
                batch: groups,
                m,
                k,
                n,
                left,
                row_stride,
                column_stride,
                left_batch_stride: group_stride,
                right,
                packed: false,
                right_batch_stride: k * n,
                write,
            }),
        );
        Found::Memory {
            buffer: write,
            view: View::dense(extents),
        }
    }

    /// The left operand of a product: where, the strides of its rows and columns, and how far
    /// apart its matrices are.
    fn left(&mut self, id: ValueId, batched: bool) -> (Reference, [usize; 2], usize) {
        if let Found::Memory { buffer, view } = self.found(id) {
            let rank = view.extents.len();
            let matrices = View {
                offset: 0,
                extents: view.extents[..rank - 2].to_vec(),
                strides: view.strides[..rank - 2].to_vec(),
            };
            if !batched
                && let Some(view) = view.reshape(&[
                    matrices.elements() * view.extents[rank - 2],
                    view.extents[rank - 1],
                ])
                && view.elements() > 0
            {
                self.buffers[buffer].stored = true;
                let reference = Reference {
                    buffer,
                    offset: view.offset,
                };
                return (reference, [view.strides[0], view.strides[1]], 0);
            }
            let stride = match matrices.axes().as_slice() {
                [] => Some(0),
                [axis] if batched => Some(axis.stride),
                _ => None,
            };
            if let Some(stride) = stride
                && view.elements() > 0
            {
                self.buffers[buffer].stored = true;
                let strides = [view.strides[rank - 2], view.strides[rank - 1]];
                return (
                    Reference {
                        buffer,
                        offset: view.offset,
                    },
                    strides,
                    stride,
                );
            }
        }
        let reference = self.dense(id);
        let extents = self.extents(id);
        let (rows, columns) = (extents[extents.len() - 2], extents[extents.len() - 1]);
        (reference, [columns, 1], rows * columns)
    }
}

fn copy_rows(
    source: Reference,
    target: Reference,
    rows: usize,
    width: usize,
    stride: usize,
) -> Make {
    Box::new(move |at| Instruction::CopyRows {
        source: at(source),
        target: at(target),
        rows,
        width,
        source_stride: width,
        target_stride: stride,
    })
}
