//! From graph nodes to values.

use super::{Bits, Fold, Ir, Map, Operation, Product, ValueId};
use crate::check::Type;
use crate::graph::{AttentionNode, DType, Extent, Graph, Node, Reduction, Shape, UnaryOperation};

/// The values of every node, and where inputs, parameters and literals are declared.
#[derive(Debug)]
pub(crate) struct Lowered {
    /// The value of each node where dropout is off.
    pub(crate) inference: Vec<ValueId>,
    /// The value of each node where dropout is on.
    pub(crate) training: Vec<ValueId>,
    /// The nodes that are inputs, in order.
    pub(crate) inputs: Vec<u32>,
    /// The nodes that are parameters, in order.
    pub(crate) parameters: Vec<u32>,
    /// The nodes that are literals, in order.
    pub(crate) literals: Vec<u32>,
}

/// Makes values for every node of a checked graph.
pub(crate) fn lower(graph: &Graph, types: &[Type], ir: &mut Ir) -> Lowered {
    let mut lowered = Lowered {
        inference: Vec::with_capacity(graph.nodes.len()),
        training: Vec::with_capacity(graph.nodes.len()),
        inputs: Vec::new(),
        parameters: Vec::new(),
        literals: Vec::new(),
    };
    for (index, (node, found)) in graph.nodes.iter().zip(types).enumerate() {
        let index = index as u32;
        ir.begin(index);
        let list = match node {
            Node::Input(_) => Some(&mut lowered.inputs),
            Node::Parameter(_) => Some(&mut lowered.parameters),
            Node::F32Constant(_) | Node::I32Constant(_) => Some(&mut lowered.literals),
            _ => None,
        };
        let place = list.map_or(0, |list| {
            list.push(index);
            list.len() as u32 - 1
        });
        let inference = Lowering {
            ir,
            values: &lowered.inference,
            dropout: false,
        };
        let inference = inference.node(index, node, found, place);
        let training = Lowering {
            ir,
            values: &lowered.training,
            dropout: true,
        };
        let training = training.node(index, node, found, place);
        lowered.inference.push(inference);
        lowered.training.push(training);
    }
    lowered
}

struct Lowering<'a> {
    ir: &'a mut Ir,
    values: &'a [ValueId],
    dropout: bool,
}

impl Lowering<'_> {
    fn of(&self, node: u32) -> ValueId {
        self.values[node as usize]
    }

    fn node(self, index: u32, node: &Node, found: &Type, place: u32) -> ValueId {
        let dtype = found.dtype;
        let shape = || found.shape.clone();
        match node {
            Node::Input(_) => self.ir.make(Operation::Input(place), &[], dtype, shape()),
            Node::Parameter(_) => self
                .ir
                .make(Operation::Parameter(place), &[], dtype, shape()),
            Node::F32Constant(literal) => match literal.values.as_slice() {
                [value] => {
                    let scalar = self.ir.scalar(*value);
                    self.ir.reshape(scalar, shape())
                }
                _ => self.ir.make(Operation::Literal(place), &[], dtype, shape()),
            },
            Node::I32Constant(_) => self.ir.make(Operation::Literal(place), &[], dtype, shape()),
            Node::Unary(unary) => {
                let operand = self.of(unary.operand);
                let map = match dtype {
                    DType::Float32 => Map::Unary(unary.operation),
                    DType::Int32 => Map::UnaryInt(unary.operation),
                };
                self.ir.map_as(map, &[operand], dtype)
            }
            Node::Binary(binary) => {
                let operands = [self.of(binary.left), self.of(binary.right)];
                let map = match dtype {
                    DType::Float32 => Map::Binary(binary.operation),
                    DType::Int32 => Map::BinaryInt(binary.operation),
                };
                self.ir.map_as(map, &operands, dtype)
            }
            Node::Compare(compare) => {
                let operands = [self.of(compare.left), self.of(compare.right)];
                let map = match self.ir.value(operands[0]).dtype {
                    DType::Float32 => Map::Compare(compare.comparison),
                    DType::Int32 => Map::CompareInt(compare.comparison),
                };
                self.ir.map(map, &operands)
            }
            Node::Select(select) => {
                let condition = self.of(select.condition);
                let operands = [condition, self.of(select.on_true), self.of(select.on_false)];
                let map = Map::Select(self.ir.value(condition).dtype);
                self.ir.map_as(map, &operands, dtype)
            }
            Node::Cast(cast) => {
                let operand = self.of(cast.operand);
                match (self.ir.value(operand).dtype, dtype) {
                    (DType::Float32, DType::Int32) => self.ir.map_as(Map::ToInt, &[operand], dtype),
                    (DType::Int32, DType::Float32) => {
                        self.ir.map_as(Map::ToFloat, &[operand], dtype)
                    }
                    _ => operand,
                }
            }
            Node::Clamp(clamp) => {
                let map = Map::Clamp {
                    minimum: clamp.minimum.into(),
                    maximum: clamp.maximum.into(),
                };
                let operand = self.of(clamp.operand);
                self.ir.map(map, &[operand])
            }
            Node::Reshape(reshape) => {
                let operand = self.of(reshape.operand);
                self.ir.reshape(operand, shape())
            }
            Node::Transpose(transpose) => {
                let permutation = transpose
                    .permutation
                    .iter()
                    .map(|axis| *axis as usize)
                    .collect();
                let operand = self.of(transpose.operand);
                self.ir.transpose(operand, permutation)
            }
            Node::Broadcast(broadcast) => {
                let operand = self.of(broadcast.operand);
                self.ir.broadcast(operand, shape())
            }
            Node::Slice(slice) => {
                let operand = self.of(slice.operand);
                self.ir
                    .slice(operand, slice.axis as usize, slice.start as usize, shape())
            }
            Node::Concatenate(concatenate) => {
                let operands: Vec<ValueId> = concatenate
                    .operands
                    .iter()
                    .map(|operand| self.of(*operand))
                    .collect();
                if let [one] = operands.as_slice() {
                    return *one;
                }
                let operation = Operation::Concatenate {
                    axis: concatenate.axis as usize,
                };
                self.ir.make(operation, &operands, dtype, shape())
            }
            Node::Reduce(reduce) => {
                let operand = self.of(reduce.operand);
                let axes: Vec<usize> = reduce.axes.iter().map(|axis| *axis as usize).collect();
                let counted: Shape = axes
                    .iter()
                    .map(|axis| self.ir.shape(operand)[*axis])
                    .collect();
                let fold = match reduce.reduction {
                    Reduction::Sum | Reduction::Mean => Fold::Sum,
                    Reduction::Maximum => Fold::Maximum,
                    Reduction::Minimum => Fold::Minimum,
                };
                let reduced = self.ir.reduce(fold, operand, axes);
                let reduced = self.ir.reshape(reduced, shape());
                if reduce.reduction == Reduction::Mean {
                    let inverse = self.ir.inverse_count(counted);
                    self.ir.multiply(reduced, inverse)
                } else {
                    reduced
                }
            }
            Node::Argmax(argmax) => {
                let operand = self.of(argmax.operand);
                let rank = self.ir.shape(operand).len();
                let (there, _) = Ir::to_last(rank, argmax.axis as usize);
                let operand = self.ir.transpose(operand, there);
                self.ir.make(Operation::Argmax, &[operand], dtype, shape())
            }
            Node::Softmax(softmax) => {
                let operand = self.of(softmax.operand);
                let (there, back) = Ir::to_last(found.shape.len(), softmax.axis as usize);
                let operand = self.ir.transpose(operand, there);
                let shape = self.ir.shape(operand).to_vec();
                let operation = Operation::Softmax {
                    logarithm: softmax.logarithm,
                };
                let result = self.ir.float(operation, &[operand], shape);
                self.ir.transpose(result, back)
            }
            Node::Matmul(matmul) => {
                let (left, right) = (self.of(matmul.left), self.of(matmul.right));
                let product = if self.ir.shape(right).len() == 2 {
                    Product::Shared
                } else {
                    Product::Batched
                };
                self.ir.product(product, left, right)
            }
            Node::Gather(gather) => {
                let operands = [self.of(gather.table), self.of(gather.indices)];
                self.ir.make(Operation::Gather, &operands, dtype, shape())
            }
            Node::OneHot(one_hot) => {
                let operand = self.of(one_hot.indices);
                self.ir.make(Operation::OneHot, &[operand], dtype, shape())
            }
            Node::Dropout(dropout) => {
                let operand = self.of(dropout.operand);
                if !self.dropout || dropout.rate == 0.0 {
                    return operand;
                }
                let map = Map::Dropout {
                    node: index,
                    rate: dropout.rate.into(),
                };
                self.ir.map(map, &[operand])
            }
            Node::LayerNorm(norm) => {
                let operation = Operation::Normalize {
                    epsilon: norm.epsilon.into(),
                };
                let operand = self.of(norm.operand);
                let (scale, offset) = (self.of(norm.scale), self.of(norm.offset));
                let normal = self.ir.float(operation, &[operand], shape());
                let scaled = self.ir.multiply(normal, scale);
                self.ir.add(scaled, offset)
            }
            Node::RmsNorm(norm) => {
                let (operand, scale) = (self.of(norm.operand), self.of(norm.scale));
                let ir = self.ir;
                let square = ir.unary(UnaryOperation::Square, operand);
                let last = found.shape.len() - 1;
                let sum = ir.reduce_keeping(Fold::Sum, square, vec![last]);
                let share = ir.inverse_count(vec![found.shape[last]]);
                let mean = ir.multiply(sum, share);
                let epsilon = ir.scalar(norm.epsilon);
                let mean = ir.add(mean, epsilon);
                let root = ir.unary(UnaryOperation::SquareRoot, mean);
                let inverse = ir.unary(UnaryOperation::Reciprocal, root);
                let normal = ir.multiply(operand, inverse);
                ir.multiply(normal, scale)
            }
            Node::Attention(attention) => self.attention(attention, shape()),
            Node::Pad(pad) => {
                let operand = self.of(pad.operand);
                let around = [pad.before, pad.after];
                self.ir.pad(operand, pad.axis as usize, around, pad.value)
            }
            Node::CumulativeSum(sum) => {
                let operation = Operation::CumulativeSum {
                    axis: sum.axis as usize,
                    exclusive: sum.exclusive,
                    reverse: sum.reverse,
                };
                let operand = self.of(sum.operand);
                self.ir.float(operation, &[operand], shape())
            }
            Node::TopK(top) => {
                let operand = self.of(top.operand);
                self.ir
                    .along_last(operand, top.axis as usize, |ir, operand| {
                        let mut shape = ir.shape(operand).to_vec();
                        shape.pop();
                        shape.push(Extent::Fixed(top.count));
                        ir.make(Operation::TopK, &[operand], dtype, shape)
                    })
            }
            Node::TakeAlong(take) => {
                let (operand, indices) = (self.of(take.operand), self.of(take.indices));
                let (there, _) = Ir::to_last(found.shape.len(), take.axis as usize);
                let indices = self.ir.transpose(indices, there);
                self.ir
                    .along_last(operand, take.axis as usize, |ir, operand| {
                        let shape = ir.shape(indices).to_vec();
                        ir.make(Operation::TakeAlong, &[operand, indices], dtype, shape)
                    })
            }
            Node::ScatterAdd(scatter) => {
                let operands = [self.of(scatter.indices), self.of(scatter.updates)];
                self.ir.float(Operation::Scatter, &operands, shape())
            }
            Node::Convolution(convolution) => {
                let (operand, kernel) = (self.of(convolution.operand), self.of(convolution.kernel));
                if convolution.transposed {
                    self.ir
                        .transposed_convolution(convolution, operand, kernel, found)
                } else {
                    self.ir.convolution(convolution, operand, kernel, found)
                }
            }
            Node::Pool(pool) => {
                let operand = self.of(pool.operand);
                self.ir.pool(pool, operand, found)
            }
            Node::BatchNorm(norm) => {
                let operand = self.of(norm.operand);
                let (scale, offset) = (self.of(norm.scale), self.of(norm.offset));
                let statistics = norm
                    .statistics
                    .map(|statistics| (self.of(statistics.mean), self.of(statistics.variance)));
                let (centred, variance) = match statistics {
                    Some((mean, variance)) => (self.ir.subtract(operand, mean), variance),
                    None => self.ir.centred(operand),
                };
                let epsilon = self.ir.scalar(norm.epsilon);
                let variance = self.ir.add(variance, epsilon);
                let root = self.ir.unary(UnaryOperation::SquareRoot, variance);
                let factor = self.ir.divide(scale, root);
                let scaled = self.ir.multiply(centred, factor);
                self.ir.add(scaled, offset)
            }
            Node::GroupNorm(norm) => {
                let (scale, offset) = (self.of(norm.scale), self.of(norm.offset));
                let operand = self.of(norm.operand);
                let normal = self.ir.normal_by_group(operand, norm.groups, norm.epsilon);
                let scaled = self.ir.multiply(normal, scale);
                self.ir.add(scaled, offset)
            }
            Node::Dequantise(node) => {
                let (codes, scale) = (self.of(node.codes), self.of(node.scale));
                let zero = node.zero.map(|zero| self.of(zero));
                let operation = Operation::Unpack {
                    bits: node.width.bits(),
                };
                let mut number = self.ir.float(operation, &[codes], shape());
                if let Some(zero) = zero {
                    number = self.ir.subtract(number, zero);
                }
                self.ir.multiply(number, scale)
            }
            Node::CrossEntropy(loss) => {
                let operands = [self.of(loss.logits), self.of(loss.labels)];
                self.ir
                    .make(Operation::CrossEntropy, &operands, dtype, shape())
            }
            Node::BinaryCrossEntropy(loss) => {
                let operands = [self.of(loss.logits), self.of(loss.targets)];
                self.ir.map(Map::BinaryCrossEntropy, &operands)
            }
            Node::SquaredError(loss) => {
                let difference = (self.of(loss.predictions), self.of(loss.targets));
                let difference = self.ir.subtract(difference.0, difference.1);
                self.ir.unary(UnaryOperation::Square, difference)
            }
            Node::Huber(loss) => {
                let operands = [self.of(loss.predictions), self.of(loss.targets)];
                self.ir.map(
                    Map::Huber {
                        delta: Bits::from(loss.delta),
                    },
                    &operands,
                )
            }
        }
    }
}

impl Lowering<'_> {
    fn attention(self, node: &AttentionNode, shape: Shape) -> ValueId {
        let (query, key, value) = (self.of(node.query), self.of(node.key), self.of(node.value));
        let mask = node.mask.map(|mask| self.of(mask));
        let ir = self.ir;
        let key_shape = ir.shape(key).to_vec();
        // The check found four extents, the last two fixed.
        let count = |shape: &[Extent], axis: usize| match shape.get(axis) {
            Some(Extent::Fixed(count)) => *count,
            _ => 1,
        };
        let (heads, width) = (count(&shape, 2), count(&shape, 3));
        let scale = node.scale.unwrap_or(1.0 / (width as f32).sqrt());
        if mask.is_none() && shape[1] == key_shape[1] {
            let operation = Operation::Attention {
                causal: node.causal,
                scale: scale.into(),
            };
            return ir.float(operation, &[query, key, value], shape);
        }
        // Each head of key and value as often as it is used, then batched products.
        let key_heads = count(&key_shape, 2);
        let repeat = |ir: &mut Ir, operand: ValueId| {
            let [batch, places] = [key_shape[0], key_shape[1]];
            let [groups, each] = [key_heads, heads / key_heads].map(Extent::Fixed);
            let width = Extent::Fixed(width);
            let one = vec![batch, places, groups, Extent::Fixed(1), width];
            let operand = ir.reshape(operand, one);
            let operand = ir.broadcast(operand, vec![batch, places, groups, each, width]);
            ir.reshape(operand, vec![batch, places, Extent::Fixed(heads), width])
        };
        let (key, value) = (repeat(ir, key), repeat(ir, value));
        let query = ir.transpose(query, vec![0, 2, 1, 3]);
        let key = ir.transpose(key, vec![0, 2, 3, 1]);
        let value = ir.transpose(value, vec![0, 2, 1, 3]);
        let scores = ir.product(Product::Batched, query, key);
        let mut scores = ir.scale(scores, scale);
        if let Some(mask) = mask {
            scores = ir.add(scores, mask);
        }
        let shape = ir.shape(scores).to_vec();
        let shares = ir.float(Operation::Softmax { logarithm: false }, &[scores], shape);
        let result = ir.product(Product::Batched, shares, value);
        ir.transpose(result, vec![0, 2, 1, 3])
    }
}

impl Ir {
    /// Whether a shape has this symbol.
    pub(super) fn has_symbol(shape: &[Extent], symbol: u32) -> bool {
        shape.contains(&Extent::Symbol(symbol))
    }
}
