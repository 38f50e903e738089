//! What a value comes down to before it is made: numbers that are known, operations that change
//! nothing, views of views. Every rule gives the bits of what it replaces, but for the sign of a
//! zero to which zero is added; none looks at the value of a symbol.

use super::{Bits, Ir, Map, Operation, ValueId};
use crate::graph::{BinaryOperation, Comparison, DType, Shape, UnaryOperation};

impl Ir {
    /// The number that a value holds everywhere, where it is known.
    fn uniform(&self, mut id: ValueId) -> Option<f32> {
        loop {
            let value = self.value(id);
            match &value.operation {
                Operation::Scalar(bits) => return Some(bits.value()),
                operation if operation.is_view() => id = *value.operands.first()?,
                _ => return None,
            }
        }
    }

    /// The value that a map of operands comes down to; none where it must be computed.
    pub(super) fn simpler_map(
        &mut self,
        map: Map,
        operands: &[ValueId],
        shape: &Shape,
    ) -> Option<ValueId> {
        if let Some(number) = self.known(map, operands) {
            let scalar = self.scalar(number);
            return Some(self.broadcast(scalar, shape.clone()));
        }
        match (map, operands) {
            (Map::Unary(operation), [operand]) => {
                let inner = self.value(*operand);
                match (operation, &inner.operation) {
                    (UnaryOperation::Negate, Operation::Map(Map::Unary(before)))
                        if *before == UnaryOperation::Negate =>
                    {
                        inner.operands.first().copied()
                    }
                    // Twice is once.
                    (
                        UnaryOperation::Absolute
                        | UnaryOperation::Relu
                        | UnaryOperation::Floor
                        | UnaryOperation::Sign,
                        Operation::Map(Map::Unary(before)),
                    ) if *before == operation => Some(*operand),
                    // The sign goes away.
                    (
                        UnaryOperation::Absolute | UnaryOperation::Square,
                        Operation::Map(Map::Unary(UnaryOperation::Negate)),
                    ) => {
                        let inner = *inner.operands.first()?;
                        Some(self.unary(operation, inner))
                    }
                    _ => None,
                }
            }
            (Map::UnaryInt(UnaryOperation::Negate), [operand]) => {
                let inner = self.value(*operand);
                (inner.operation == Operation::Map(Map::UnaryInt(UnaryOperation::Negate)))
                    .then(|| inner.operands.first().copied())
                    .flatten()
            }
            (Map::Binary(operation), [left, right]) => {
                self.simpler_binary(operation, *left, *right, shape)
            }
            (Map::Select(DType::Float32), [condition, on_true, on_false]) => {
                let chosen = match self.uniform(*condition) {
                    Some(number) if number != 0.0 => Some(*on_true),
                    Some(_) => Some(*on_false),
                    None => (on_true == on_false).then_some(*on_true),
                };
                chosen.map(|chosen| self.broadcast(chosen, shape.clone()))
            }
            (Map::Clamp { minimum, maximum }, [operand]) => {
                let nothing =
                    minimum.value() == f32::NEG_INFINITY && maximum.value() == f32::INFINITY;
                let again = self.value(*operand).operation == Operation::Map(map);
                (nothing || again).then_some(*operand)
            }
            _ => None,
        }
    }

    fn simpler_binary(
        &mut self,
        operation: BinaryOperation,
        left: ValueId,
        right: ValueId,
        shape: &Shape,
    ) -> Option<ValueId> {
        use BinaryOperation::{Add, Divide, Maximum, Minimum, Multiply, Subtract};
        let (known_left, known_right) = (self.uniform(left), self.uniform(right));
        let same = match (operation, known_left, known_right) {
            (Add | Subtract, _, Some(0.0)) | (Multiply | Divide, _, Some(1.0)) => Some(left),
            (Add, Some(0.0), _) | (Multiply, Some(1.0), _) => Some(right),
            (Maximum | Minimum, ..) if left == right => Some(left),
            _ => None,
        };
        if let Some(same) = same {
            return Some(self.broadcast(same, shape.clone()));
        }
        match (operation, known_left, known_right) {
            (Multiply | Divide, _, Some(-1.0)) => {
                let whole = self.broadcast(left, shape.clone());
                return Some(self.unary(UnaryOperation::Negate, whole));
            }
            (Multiply, Some(-1.0), _) => {
                let whole = self.broadcast(right, shape.clone());
                return Some(self.unary(UnaryOperation::Negate, whole));
            }
            // The reciprocal of a power of two is exact, and so is the product with it.
            (Divide, _, Some(number)) if is_power_of_two(number) => {
                let factor = self.scalar(1.0 / number);
                let right_shape = self.shape(right).to_vec();
                let factor = self.broadcast(factor, right_shape);
                return Some(self.multiply(left, factor));
            }
            _ => {}
        }
        let negated = |id: ValueId| {
            let value = self.value(id);
            (value.operation == Operation::Map(Map::Unary(UnaryOperation::Negate)))
                .then(|| value.operands.first().copied())
                .flatten()
        };
        match (operation, negated(left), negated(right)) {
            (Add, _, Some(right)) => Some(self.subtract(left, right)),
            (Add, Some(left), None) => Some(self.subtract(right, left)),
            (Subtract, _, Some(right)) => Some(self.add(left, right)),
            (Multiply | Divide, Some(left), Some(right)) => {
                Some(self.binary(operation, left, right))
            }
            _ => None,
        }
    }

    /// The result of a map over numbers that are known, where every device gives its bits.
    fn known(&self, map: Map, operands: &[ValueId]) -> Option<f32> {
        let numbers: Vec<f32> = operands
            .iter()
            .map(|operand| self.uniform(*operand))
            .collect::<Option<_>>()?;
        let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
        Some(match (map, numbers.as_slice()) {
            (Map::Unary(operation), [x]) => match operation {
                UnaryOperation::Negate => -x,
                UnaryOperation::Absolute => x.abs(),
                UnaryOperation::SquareRoot => x.sqrt(),
                UnaryOperation::Square => x * x,
                UnaryOperation::Reciprocal => 1.0 / x,
                UnaryOperation::IsNan => truth(x.is_nan()),
                UnaryOperation::LogicalNot => truth(*x == 0.0),
                _ => return None,
            },
            (Map::Binary(operation), [x, y]) => match operation {
                BinaryOperation::Add => x + y,
                BinaryOperation::Subtract => x - y,
                BinaryOperation::Multiply => x * y,
                BinaryOperation::Divide => x / y,
                BinaryOperation::LogicalAnd => truth(*x != 0.0 && *y != 0.0),
                BinaryOperation::LogicalOr => truth(*x != 0.0 || *y != 0.0),
                _ => return None,
            },
            (Map::Compare(comparison), [x, y]) => truth(match comparison {
                Comparison::Equal => x == y,
                Comparison::NotEqual => x != y,
                Comparison::Less => x < y,
                Comparison::LessOrEqual => x <= y,
                Comparison::Greater => x > y,
                Comparison::GreaterOrEqual => x >= y,
            }),
            _ => return None,
        })
    }

    /// What a view of an operand is a view of, and what of: views of views are one.
    pub(super) fn simpler_view(
        &self,
        operation: &Operation,
        operand: ValueId,
    ) -> Option<(Operation, ValueId)> {
        let before = self.value(operand);
        let inner = before.operands.first().copied();
        match (operation, &before.operation) {
            (Operation::Reshape, Operation::Reshape) => Some((Operation::Reshape, inner?)),
            // Of one number repeated, every shape is a repetition.
            (
                Operation::Reshape | Operation::Broadcast,
                Operation::Reshape | Operation::Broadcast,
            ) if self.shape(inner?).is_empty() => Some((Operation::Broadcast, inner?)),
            (Operation::Broadcast, Operation::Broadcast) => Some((Operation::Broadcast, inner?)),
            (Operation::Transpose(outer), Operation::Transpose(first)) => {
                let joined = outer.iter().map(|axis| first[*axis]).collect();
                Some((Operation::Transpose(joined), inner?))
            }
            (Operation::Slice { .. } | Operation::Transpose(_), Operation::Broadcast)
                if self.shape(inner?).is_empty() =>
            {
                Some((Operation::Broadcast, inner?))
            }
            (
                Operation::Slice { axis, start },
                Operation::Slice {
                    axis: before_axis,
                    start: before_start,
                },
            ) if axis == before_axis => {
                let operation = Operation::Slice {
                    axis: *axis,
                    start: start + before_start,
                };
                Some((operation, inner?))
            }
            _ => None,
        }
    }

    /// The operands of a map in the order that stands for all with the same result.
    pub(super) fn ordered(map: Map, operands: &[ValueId]) -> Vec<ValueId> {
        let mut operands = operands.to_vec();
        let either = matches!(
            map,
            Map::Binary(BinaryOperation::Add | BinaryOperation::Multiply)
                | Map::BinaryInt(BinaryOperation::Add | BinaryOperation::Multiply)
                | Map::Compare(Comparison::Equal | Comparison::NotEqual)
                | Map::CompareInt(Comparison::Equal | Comparison::NotEqual)
        );
        if either {
            operands.sort_unstable();
        }
        operands
    }
}

/// Whether a number and its reciprocal are powers of two, and neither is subnormal.
fn is_power_of_two(number: f32) -> bool {
    let bits = Bits::from(number).0;
    let exponent = (bits >> 23) & 0xff;
    bits & 0x007f_ffff == 0 && (1..=253).contains(&exponent)
}

#[cfg(test)]
mod tests {
    use super::is_power_of_two;

    #[test]
    fn powers_of_two_have_exact_reciprocals() {
        for number in [1.0, -2.0, 0.125, 2.0_f32.powi(126), 2.0_f32.powi(-126)] {
            assert!(is_power_of_two(number), "{number}");
            assert!((1.0 / number).is_normal() && 1.0 / (1.0 / number) == number);
        }
        for number in [0.0, 3.0, f32::INFINITY, f32::NAN, 1e-40, 2.0_f32.powi(127)] {
            assert!(!is_power_of_two(number), "{number}");
        }
    }
}
