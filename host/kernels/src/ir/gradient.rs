//! Reverse-mode differentiation (Griewank and Walther 2008, chapter 3): values that compute the
//! derivative of a sum of per-row losses by each parameter.

use super::{Fold, Ir, Map, Operation, Product, ValueId};
use crate::graph::{BinaryOperation, Comparison, DType, Extent, Shape, UnaryOperation};

/// Appends the values of the gradient. `seeds` are the derivatives of the whole by each loss,
/// and have the shape of `losses`. Returns, for each parameter asked for, the value of its
/// gradient, of its shape; none where the losses do not depend on it.
pub(crate) fn differentiate(
    ir: &mut Ir,
    losses: ValueId,
    seeds: ValueId,
    parameters: &[ValueId],
) -> Vec<Option<ValueId>> {
    let end = losses as usize + 1;
    let mut needed = vec![false; end];
    for parameter in parameters {
        if let Some(needed) = needed.get_mut(*parameter as usize) {
            *needed = true;
        }
    }
    for id in 0..end {
        needed[id] |= ir.values[id].dtype == DType::Float32
            && ir.values[id]
                .operands
                .iter()
                .any(|operand| needed[*operand as usize]);
    }
    let mut backward = Backward {
        ir,
        needed,
        adjoints: vec![None; end],
    };
    backward.adjoints[losses as usize] = Some(seeds);
    for id in (0..end).rev() {
        if backward.needed[id]
            && let Some(adjoint) = backward.adjoints[id]
        {
            backward.ir.begin(backward.ir.nodes[id]);
            backward.step(id as ValueId, adjoint);
        }
    }
    let adjoints = &backward.adjoints;
    parameters
        .iter()
        .map(|id| adjoints.get(*id as usize).copied().flatten())
        .collect()
}

struct Backward<'a> {
    ir: &'a mut Ir,
    /// Whether a value depends on a parameter that is asked for.
    needed: Vec<bool>,
    /// The sum of what was found of each value's derivative.
    adjoints: Vec<Option<ValueId>>,
}

impl Backward<'_> {
    /// Hands the adjoint of a value on to its operands.
    fn step(&mut self, id: ValueId, adjoint: ValueId) {
        let value = self.ir.value(id).clone();
        let operands = value.operands.as_slice();
        match &value.operation {
            Operation::Map(map) => self.map(*map, id, operands, adjoint),
            Operation::Reshape => {
                let shape = self.ir.shape(operands[0]).to_vec();
                let slope = self.ir.reshape(adjoint, shape);
                self.give(operands[0], slope);
            }
            Operation::Transpose(permutation) => {
                let mut back = vec![0; permutation.len()];
                for (place, from) in permutation.iter().enumerate() {
                    back[*from] = place;
                }
                let slope = self.ir.transpose(adjoint, back);
                self.give(operands[0], slope);
            }
            // `give` sums what was repeated.
            Operation::Broadcast => self.give(operands[0], adjoint),
            Operation::Slice { axis, start } => {
                let shape = self.ir.shape(operands[0]).to_vec();
                let operation = Operation::Pad {
                    axis: *axis,
                    before: *start,
                };
                let slope = self.ir.float(operation, &[adjoint], shape);
                self.give(operands[0], slope);
            }
            Operation::Concatenate { axis } => {
                let mut start = 0;
                for operand in operands {
                    let shape = self.ir.shape(*operand).to_vec();
                    let Extent::Fixed(extent) = shape[*axis] else {
                        continue;
                    };
                    if self.needed[*operand as usize] {
                        let slope = self.ir.slice(adjoint, *axis, start, shape);
                        self.give(*operand, slope);
                    }
                    start += extent as usize;
                }
            }
            Operation::Pad { axis, before } => {
                let shape = self.ir.shape(operands[0]).to_vec();
                let slope = self.ir.slice(adjoint, *axis, *before, shape);
                self.give(operands[0], slope);
            }
            Operation::Window {
                axis,
                stride,
                dilation,
            } => {
                let operation = Operation::Unwindow {
                    axis: *axis,
                    stride: *stride,
                    dilation: *dilation,
                };
                let shape = self.ir.shape(operands[0]).to_vec();
                let slope = self.ir.float(operation, &[adjoint], shape);
                self.give(operands[0], slope);
            }
            Operation::Unwindow {
                axis,
                stride,
                dilation,
            } => {
                let operation = Operation::Window {
                    axis: *axis,
                    stride: *stride,
                    dilation: *dilation,
                };
                let shape = self.ir.shape(operands[0]).to_vec();
                let slope = self.ir.view(operation, adjoint, shape);
                self.give(operands[0], slope);
            }
            Operation::CumulativeSum {
                axis,
                exclusive,
                reverse,
            } => {
                let operation = Operation::CumulativeSum {
                    axis: *axis,
                    exclusive: *exclusive,
                    reverse: !reverse,
                };
                let slope = self.ir.float(operation, &[adjoint], value.shape.clone());
                self.give(operands[0], slope);
            }
            Operation::TakeAlong => {
                let shape = self.ir.shape(operands[0]).to_vec();
                let slope = self
                    .ir
                    .float(Operation::PutAlong, &[operands[1], adjoint], shape);
                self.give(operands[0], slope);
            }
            Operation::Scatter => {
                let shape = self.ir.shape(operands[1]).to_vec();
                let slope = self
                    .ir
                    .float(Operation::Gather, &[adjoint, operands[0]], shape);
                self.give(operands[1], slope);
            }
            Operation::Reduce { fold, axes } => self.reduce(*fold, axes, id, operands[0], adjoint),
            Operation::Softmax { logarithm } => {
                let last = value.shape.len() - 1;
                let slope = if *logarithm {
                    // g - softmax sum(g)
                    let sum = self.ir.reduce_keeping(Fold::Sum, adjoint, vec![last]);
                    let softmax = self.ir.unary(UnaryOperation::Exponential, id);
                    let part = self.ir.multiply(softmax, sum);
                    self.ir.subtract(adjoint, part)
                } else {
                    // softmax (g - sum(g softmax))
                    let weighted = self.ir.multiply(adjoint, id);
                    let sum = self.ir.reduce_keeping(Fold::Sum, weighted, vec![last]);
                    let centred = self.ir.subtract(adjoint, sum);
                    self.ir.multiply(id, centred)
                };
                self.give(operands[0], slope);
            }
            Operation::Matmul(product) => self.matmul(*product, operands[0], operands[1], adjoint),
            Operation::Gather => {
                let shape = self.ir.shape(operands[0]).to_vec();
                let slope = self
                    .ir
                    .float(Operation::Scatter, &[operands[1], adjoint], shape);
                self.give(operands[0], slope);
            }
            Operation::Normalize { epsilon } => {
                let operation = Operation::NormalizeSlope { epsilon: *epsilon };
                let slope = self
                    .ir
                    .float(operation, &[operands[0], adjoint], value.shape.clone());
                self.give(operands[0], slope);
            }
            Operation::CrossEntropy => {
                let shape = self.ir.shape(operands[0]).to_vec();
                let slope = self.ir.float(
                    Operation::CrossEntropySlope,
                    &[operands[0], operands[1], adjoint],
                    shape,
                );
                self.give(operands[0], slope);
            }
            Operation::Attention { causal, scale } => {
                let mut packed = value.shape.clone();
                let heads = |shape: &[Extent]| match shape.get(2) {
                    Some(Extent::Fixed(heads)) => *heads,
                    _ => 0,
                };
                let own = heads(&packed);
                let others = heads(self.ir.shape(operands[1]));
                packed[2] = Extent::Fixed(own + 2 * others);
                let slopes = self.ir.float(
                    Operation::AttentionSlope {
                        causal: *causal,
                        scale: *scale,
                    },
                    &[operands[0], operands[1], operands[2], adjoint],
                    packed,
                );
                let starts = [0, own, own + others];
                for (operand, start) in operands.iter().zip(starts) {
                    let shape = self.ir.shape(*operand).to_vec();
                    let slope = self.ir.slice(slopes, 2, start as usize, shape);
                    self.give(*operand, slope);
                }
            }
            // Sources have no operands; the rest are whole numbers, or found only in gradients.
            Operation::Input(_)
            | Operation::Parameter(_)
            | Operation::Literal(_)
            | Operation::Scalar(_)
            | Operation::InverseCount(_)
            | Operation::Argmax
            | Operation::OneHot
            | Operation::TopK
            | Operation::PutAlong
            | Operation::Unpack { .. }
            | Operation::NormalizeSlope { .. }
            | Operation::CrossEntropySlope
            | Operation::AttentionSlope { .. } => {}
        }
    }

    /// Adds to the adjoint of an operand, summing over the axes along which it was repeated.
    fn give(&mut self, operand: ValueId, slope: ValueId) {
        if !self.needed[operand as usize] {
            return;
        }
        let slope = self.sum_to(slope, operand);
        let sum = match self.adjoints[operand as usize] {
            Some(before) => self.ir.add(before, slope),
            None => slope,
        };
        self.adjoints[operand as usize] = Some(sum);
    }

    /// Sums a slope over the axes along which an operand was repeated to the slope's shape.
    fn sum_to(&mut self, slope: ValueId, operand: ValueId) -> ValueId {
        let target = self.ir.shape(operand).to_vec();
        let found = self.ir.shape(slope).to_vec();
        let extra = found.len() - target.len();
        let repeated = |axis: usize| axis < extra || target[axis - extra] != found[axis];
        let axes = (0..found.len()).filter(|axis| repeated(*axis)).collect();
        let summed = self.ir.reduce(Fold::Sum, slope, axes);
        self.ir.reshape(summed, target)
    }

    fn reduce(
        &mut self,
        fold: Fold,
        axes: &[usize],
        id: ValueId,
        operand: ValueId,
        adjoint: ValueId,
    ) {
        let full = self.ir.shape(operand).to_vec();
        let mut kept = full.clone();
        for axis in axes {
            kept[*axis] = Extent::Fixed(1);
        }
        let slope = self.ir.reshape(adjoint, kept.clone());
        if fold == Fold::Sum {
            let slope = self.ir.broadcast(slope, full);
            self.give(operand, slope);
            return;
        }
        // Equal ones share: g [x = extreme] / number of those.
        let extreme = self.ir.reshape(id, kept);
        let hit = self
            .ir
            .map(Map::Compare(Comparison::Equal), &[operand, extreme]);
        let count = self.ir.reduce_keeping(Fold::Sum, hit, axes.to_vec());
        let part = self.ir.divide(slope, count);
        let slope = self.ir.multiply(hit, part);
        self.give(operand, slope);
    }

    fn matmul(&mut self, product: Product, left: ValueId, right: ValueId, adjoint: ValueId) {
        match product {
            Product::Shared => {
                if self.needed[left as usize] {
                    let turned = self.ir.transpose_matrix(right);
                    let slope = self.ir.product(Product::Shared, adjoint, turned);
                    self.give(left, slope);
                }
                if self.needed[right as usize] {
                    let slope = self.ir.product(Product::Outer, left, adjoint);
                    self.give(right, slope);
                }
            }
            Product::Batched => {
                if self.needed[left as usize] {
                    let turned = self.ir.transpose_matrix(right);
                    let slope = self.ir.product(Product::Batched, adjoint, turned);
                    self.give(left, slope);
                }
                if self.needed[right as usize] {
                    let turned = self.ir.transpose_matrix(left);
                    let slope = self.ir.product(Product::Batched, turned, adjoint);
                    self.give(right, slope);
                }
            }
            Product::Grouped => {
                if self.needed[left as usize] {
                    // [groups, .., n] with the groups behind what leads, as the product takes it.
                    let rank = self.ir.shape(adjoint).len();
                    let turned = (1..rank - 1).chain([0, rank - 1]).collect();
                    let rows = self.ir.transpose(adjoint, turned);
                    let kernel = self.ir.transpose_matrix(right);
                    let slope = self.ir.product(Product::Grouped, rows, kernel);
                    let back = (1..rank - 1).chain([0, rank - 1]).collect();
                    let slope = self.ir.transpose(slope, back);
                    self.give(left, slope);
                }
                if self.needed[right as usize] {
                    let slope = self.ir.product(Product::GroupedOuter, left, adjoint);
                    self.give(right, slope);
                }
            }
            // Found only in gradients.
            Product::Outer | Product::GroupedOuter => {}
        }
    }

    fn map(&mut self, map: Map, id: ValueId, operands: &[ValueId], adjoint: ValueId) {
        match map {
            Map::Copy => self.give(operands[0], adjoint),
            Map::Unary(operation) => {
                if let Some(slope) = self.unary(operation, id, operands[0], adjoint) {
                    self.give(operands[0], slope);
                }
            }
            Map::Binary(operation) => self.binary(operation, id, operands[0], operands[1], adjoint),
            Map::Select(_) => {
                let zero = self.ir.scalar(0.0);
                let (condition, on_true, on_false) = (operands[0], operands[1], operands[2]);
                if self.needed[on_true as usize] {
                    let slope = self.ir.map(map, &[condition, adjoint, zero]);
                    self.give(on_true, slope);
                }
                if self.needed[on_false as usize] {
                    let slope = self.ir.map(map, &[condition, zero, adjoint]);
                    self.give(on_false, slope);
                }
            }
            Map::Clamp { .. } => {
                // Nothing was cut exactly where the result is the operand.
                let inside = self
                    .ir
                    .map(Map::Compare(Comparison::Equal), &[operands[0], id]);
                let slope = self.ir.multiply(inside, adjoint);
                self.give(operands[0], slope);
            }
            Map::Dropout { .. } => {
                // The same draws as before, since they are a function of node and position.
                let slope = self.ir.map(map, &[adjoint]);
                self.give(operands[0], slope);
            }
            Map::BinaryCrossEntropy => {
                let (logits, targets) = (operands[0], operands[1]);
                if self.needed[logits as usize] {
                    let share = self.ir.unary(UnaryOperation::Logistic, logits);
                    let difference = self.ir.subtract(share, targets);
                    let slope = self.ir.multiply(difference, adjoint);
                    self.give(logits, slope);
                }
                if self.needed[targets as usize] {
                    let slope = self.ir.multiply(logits, adjoint);
                    let slope = self.ir.unary(UnaryOperation::Negate, slope);
                    self.give(targets, slope);
                }
            }
            Map::Huber { delta } => {
                let slope = self.ir.map(Map::HuberSlope { delta }, operands);
                let slope = self.ir.multiply(slope, adjoint);
                self.give(operands[0], slope);
                if self.needed[operands[1] as usize] {
                    let slope = self.ir.unary(UnaryOperation::Negate, slope);
                    self.give(operands[1], slope);
                }
            }
            // Steps, whole numbers, or found only in gradients.
            Map::UnaryInt(_)
            | Map::BinaryInt(_)
            | Map::Compare(_)
            | Map::CompareInt(_)
            | Map::ToInt
            | Map::ToFloat
            | Map::GeluSlope
            | Map::WherePositive
            | Map::HuberSlope { .. } => {}
        }
    }

    /// The slope of the operand of a unary operation; none where it is 0 everywhere.
    fn unary(
        &mut self,
        operation: UnaryOperation,
        id: ValueId,
        operand: ValueId,
        adjoint: ValueId,
    ) -> Option<ValueId> {
        let ir = &mut *self.ir;
        Some(match operation {
            UnaryOperation::Negate => ir.unary(UnaryOperation::Negate, adjoint),
            UnaryOperation::Absolute => {
                let sign = ir.unary(UnaryOperation::Sign, operand);
                ir.multiply(adjoint, sign)
            }
            UnaryOperation::Exponential => ir.multiply(adjoint, id),
            UnaryOperation::Logarithm => ir.divide(adjoint, operand),
            UnaryOperation::SquareRoot => {
                let half = ir.scale(adjoint, 0.5);
                ir.divide(half, id)
            }
            UnaryOperation::Square => {
                let double = ir.scale(operand, 2.0);
                ir.multiply(adjoint, double)
            }
            UnaryOperation::Reciprocal => {
                let square = ir.unary(UnaryOperation::Square, id);
                let slope = ir.multiply(adjoint, square);
                ir.unary(UnaryOperation::Negate, slope)
            }
            UnaryOperation::Tanh => {
                let square = ir.unary(UnaryOperation::Square, id);
                let one = ir.scalar(1.0);
                let slope = ir.subtract(one, square);
                ir.multiply(adjoint, slope)
            }
            UnaryOperation::Logistic => {
                let one = ir.scalar(1.0);
                let rest = ir.subtract(one, id);
                let slope = ir.multiply(id, rest);
                ir.multiply(adjoint, slope)
            }
            UnaryOperation::Relu => ir.map(Map::WherePositive, &[id, adjoint]),
            UnaryOperation::Gelu => {
                let slope = ir.map(Map::GeluSlope, &[operand]);
                ir.multiply(adjoint, slope)
            }
            UnaryOperation::Silu => {
                // s + x s (1 - s), which is s + y (1 - s).
                let share = ir.unary(UnaryOperation::Logistic, operand);
                let one = ir.scalar(1.0);
                let rest = ir.subtract(one, share);
                let part = ir.multiply(id, rest);
                let slope = ir.add(share, part);
                ir.multiply(adjoint, slope)
            }
            UnaryOperation::Softplus => {
                let slope = ir.unary(UnaryOperation::Logistic, operand);
                ir.multiply(adjoint, slope)
            }
            UnaryOperation::Sine => {
                let slope = ir.unary(UnaryOperation::Cosine, operand);
                ir.multiply(adjoint, slope)
            }
            UnaryOperation::Cosine => {
                let slope = ir.unary(UnaryOperation::Sine, operand);
                let slope = ir.multiply(adjoint, slope);
                ir.unary(UnaryOperation::Negate, slope)
            }
            UnaryOperation::Tangent => {
                let square = ir.unary(UnaryOperation::Square, id);
                let one = ir.scalar(1.0);
                let slope = ir.add(square, one);
                ir.multiply(adjoint, slope)
            }
            UnaryOperation::ErrorFunction => {
                // 2 / sqrt(pi) exp(-x²)
                let square = ir.unary(UnaryOperation::Square, operand);
                let square = ir.unary(UnaryOperation::Negate, square);
                let slope = ir.unary(UnaryOperation::Exponential, square);
                let slope = ir.scale(slope, std::f32::consts::FRAC_2_SQRT_PI);
                ir.multiply(adjoint, slope)
            }
            UnaryOperation::ExponentialMinusOne => {
                let one = ir.scalar(1.0);
                let slope = ir.add(id, one);
                ir.multiply(adjoint, slope)
            }
            UnaryOperation::LogPlusOne => {
                let one = ir.scalar(1.0);
                let above = ir.add(operand, one);
                ir.divide(adjoint, above)
            }
            UnaryOperation::CubeRoot => {
                let square = ir.unary(UnaryOperation::Square, id);
                let three = ir.scale(square, 3.0);
                ir.divide(adjoint, three)
            }
            UnaryOperation::ReciprocalSquareRoot => {
                // -1/2 y / x
                let half = ir.scale(adjoint, -0.5);
                let slope = ir.divide(id, operand);
                ir.multiply(half, slope)
            }
            UnaryOperation::Round
            | UnaryOperation::Ceiling
            | UnaryOperation::IsFinite
            | UnaryOperation::Floor
            | UnaryOperation::Sign
            | UnaryOperation::IsNan
            | UnaryOperation::LogicalNot => return None,
        })
    }

    fn binary(
        &mut self,
        operation: BinaryOperation,
        id: ValueId,
        left: ValueId,
        right: ValueId,
        adjoint: ValueId,
    ) {
        let (to_left, to_right) = (self.needed[left as usize], self.needed[right as usize]);
        match operation {
            BinaryOperation::Add => {
                self.give(left, adjoint);
                self.give(right, adjoint);
            }
            BinaryOperation::Subtract => {
                self.give(left, adjoint);
                if to_right {
                    let slope = self.ir.unary(UnaryOperation::Negate, adjoint);
                    self.give(right, slope);
                }
            }
            BinaryOperation::Multiply => {
                if to_left {
                    let slope = self.ir.multiply(adjoint, right);
                    self.give(left, slope);
                }
                if to_right {
                    let slope = self.ir.multiply(adjoint, left);
                    self.give(right, slope);
                }
            }
            BinaryOperation::Divide => {
                let part = self.ir.divide(adjoint, right);
                self.give(left, part);
                if to_right {
                    let slope = self.ir.multiply(part, id);
                    let slope = self.ir.unary(UnaryOperation::Negate, slope);
                    self.give(right, slope);
                }
            }
            BinaryOperation::Maximum | BinaryOperation::Minimum => {
                let (wins, loses) = if operation == BinaryOperation::Maximum {
                    (Comparison::Greater, Comparison::Less)
                } else {
                    (Comparison::Less, Comparison::Greater)
                };
                let equal = self.ir.map(Map::Compare(Comparison::Equal), &[left, right]);
                let half = self.ir.scale(equal, 0.5);
                for (needed, operand, comparison) in
                    [(to_left, left, wins), (to_right, right, loses)]
                {
                    if needed {
                        let share = self.ir.map(Map::Compare(comparison), &[left, right]);
                        let share = self.ir.add(share, half);
                        let slope = self.ir.multiply(adjoint, share);
                        self.give(operand, slope);
                    }
                }
            }
            BinaryOperation::Power => {
                if to_left {
                    let one = self.ir.scalar(1.0);
                    let less = self.ir.subtract(right, one);
                    let power = self.ir.binary(BinaryOperation::Power, left, less);
                    let slope = self.ir.multiply(right, power);
                    let slope = self.ir.multiply(adjoint, slope);
                    self.give(left, slope);
                }
                if to_right {
                    // x^y log x, and 0 where x is not above 0.
                    let logarithm = self.ir.unary(UnaryOperation::Logarithm, left);
                    let slope = self.ir.multiply(id, logarithm);
                    let slope = self.ir.map(Map::WherePositive, &[left, slope]);
                    let slope = self.ir.multiply(adjoint, slope);
                    self.give(right, slope);
                }
            }
            BinaryOperation::LogicalAnd | BinaryOperation::LogicalOr => {}
        }
    }
}

impl Ir {
    /// A number repeated to a shape.
    pub(crate) fn filled(&mut self, value: f32, shape: Shape) -> ValueId {
        let scalar = self.scalar(value);
        self.broadcast(scalar, shape)
    }
}
