//! Whether a program treats each row by itself. If so, it may be cut into pieces of rows, and
//! the result of a row does not depend on the rows around it.

use super::{Ir, Map, Operation, Product, ValueId};
use crate::graph::Extent;

/// What a value has to do with the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing.
    Free,
    /// Element `i` along this axis is computed from row `i` alone.
    Along(usize),
}

/// Whether every one of these values either has nothing to do with the rows counted by a symbol,
/// or has them as its leading axis, each element computed from its own row alone.
pub(crate) fn is_row_wise(ir: &Ir, outputs: &[ValueId], symbol: u32) -> bool {
    let rows = Rows {
        ir,
        symbol,
        causal: false,
    };
    let standings = rows.standings(outputs);
    standings.is_some_and(|standings| {
        outputs.iter().all(|output| {
            matches!(
                standings[*output as usize],
                Some(Standing::Free | Standing::Along(0))
            )
        })
    })
}

/// Whether a value has the positions counted by a symbol as its second axis, each computed from
/// its own position and, through causal attention, from those before it.
pub(crate) fn is_causal(ir: &Ir, output: ValueId, symbol: u32) -> bool {
    let rows = Rows {
        ir,
        symbol,
        causal: true,
    };
    let standings = rows.standings(&[output]);
    standings.is_some_and(|standings| standings[output as usize] == Some(Standing::Along(1)))
}

struct Rows<'a> {
    ir: &'a Ir,
    symbol: u32,
    /// Whether the symbol counts positions, which causal attention may mix.
    causal: bool,
}

impl Rows<'_> {
    /// The standing of every value that these are computed from; none where rows mix.
    fn standings(&self, outputs: &[ValueId]) -> Option<Vec<Option<Standing>>> {
        let mut standings: Vec<Option<Standing>> = vec![None; self.ir.values.len()];
        let live = self.ir.reached_from(outputs);
        for id in 0..self.ir.values.len() {
            if live[id] {
                standings[id] = Some(self.standing(id as ValueId, &standings)?);
            }
        }
        Some(standings)
    }

    /// The standing of a value whose operands are known; none where rows mix.
    fn standing(&self, id: ValueId, known: &[Option<Standing>]) -> Option<Standing> {
        use Standing::{Along, Free};
        let value = self.ir.value(id);
        let operand = |place: usize| {
            let operand: ValueId = *value.operands.get(place)?;
            known[operand as usize]
        };
        let shape = value.shape.as_slice();
        let found = match &value.operation {
            Operation::Input(_) if self.causal => shape
                .iter()
                .position(|extent| *extent == Extent::Symbol(self.symbol))
                .map_or(Free, Along),
            Operation::Input(_) => match shape {
                [Extent::Symbol(leading), ..] if *leading == self.symbol => Along(0),
                _ => Free,
            },
            Operation::Parameter(_) | Operation::Literal(_) | Operation::Scalar(_) => Free,
            Operation::InverseCount(extents) if Ir::has_symbol(extents, self.symbol) => {
                return None;
            }
            Operation::InverseCount(_) => Free,
            Operation::Map(map) => {
                let mut found = Free;
                for (place, id) in value.operands.iter().enumerate() {
                    let Along(axis) = operand(place)? else {
                        continue;
                    };
                    let axis = axis + shape.len() - self.ir.shape(*id).len();
                    if found != Free && found != Along(axis) {
                        return None;
                    }
                    found = Along(axis);
                }
                if matches!(map, Map::Dropout { .. }) && !matches!(found, Free | Along(0)) {
                    return None;
                }
                found
            }
            Operation::Reshape => match operand(0)? {
                Free => Free,
                Along(axis) => {
                    let before =
                        crate::shape::signature(&self.ir.shape(value.operands[0])[..axis])?;
                    let place = shape
                        .iter()
                        .position(|extent| *extent == Extent::Symbol(self.symbol))?;
                    if crate::shape::signature(&shape[..place])? != before {
                        return None;
                    }
                    Along(place)
                }
            },
            Operation::Transpose(permutation) => match operand(0)? {
                Free => Free,
                Along(axis) => Along(permutation.iter().position(|from| *from == axis)?),
            },
            Operation::Broadcast => match operand(0)? {
                Along(axis) => Along(axis + shape.len() - self.ir.shape(value.operands[0]).len()),
                Free => shape
                    .iter()
                    .position(|extent| *extent == Extent::Symbol(self.symbol))
                    .map_or(Free, Along),
            },
            Operation::Slice { axis, .. } | Operation::Pad { axis, .. } => match operand(0)? {
                Along(rows) if rows == *axis => return None,
                standing => standing,
            },
            Operation::Window { axis, .. } => match operand(0)? {
                Along(rows) if rows == *axis => return None,
                Along(rows) => Along(rows + usize::from(rows > *axis)),
                Free => Free,
            },
            Operation::Unwindow { axis, .. } => match operand(0)? {
                Along(rows) if rows == *axis || rows == axis + 1 => return None,
                Along(rows) => Along(rows - usize::from(rows > *axis)),
                Free => Free,
            },
            Operation::CumulativeSum { axis, .. } => match operand(0)? {
                Along(rows) if rows == *axis => return None,
                standing => standing,
            },
            Operation::TopK | Operation::Unpack { .. } => {
                self.not_last(operand(0)?, value.operands[0])?
            }
            Operation::TakeAlong => {
                let standing = self.not_last(operand(0)?, value.operands[0])?;
                if operand(1)? != standing {
                    return None;
                }
                standing
            }
            Operation::Concatenate { axis } => {
                let first = operand(0)?;
                let alike = (1..value.operands.len()).all(|place| operand(place) == Some(first));
                if !alike || first == Along(*axis) {
                    return None;
                }
                first
            }
            Operation::Reduce { axes, .. } => match operand(0)? {
                Free => Free,
                Along(rows) if axes.contains(&rows) => return None,
                Along(rows) => Along(rows - axes.iter().filter(|axis| **axis < rows).count()),
            },
            Operation::Argmax | Operation::Softmax { .. } | Operation::Normalize { .. } => {
                self.not_last(operand(0)?, value.operands[0])?
            }
            Operation::Matmul(product) => {
                let (left, right) = (operand(0)?, operand(1)?);
                let left = self.not_last(left, value.operands[0])?;
                match (product, left, right) {
                    (Product::Outer | Product::GroupedOuter, Free, Free) => Free,
                    (Product::Outer | Product::GroupedOuter, ..) => return None,
                    (Product::Grouped, Along(axis), Free) if axis + 2 < shape.len() => {
                        Along(axis + 1)
                    }
                    (Product::Grouped, Along(_), _) => return None,
                    (_, left, Free) => left,
                    (Product::Batched, Along(left), Along(right))
                        if left == right && left + 2 < shape.len() =>
                    {
                        Along(left)
                    }
                    _ => return None,
                }
            }
            Operation::Gather => match (operand(0)?, operand(1)?) {
                (Free, standing) => standing,
                _ => return None,
            },
            Operation::OneHot => operand(0)?,
            Operation::CrossEntropy => {
                let logits = self.not_last(operand(0)?, value.operands[0])?;
                if operand(1)? != logits {
                    return None;
                }
                logits
            }
            Operation::Attention { causal, .. } => {
                let standing = operand(0)?;
                let mixes = match standing {
                    Free => false,
                    Along(0) => false,
                    Along(1) => !(self.causal && *causal),
                    Along(_) => true,
                };
                if mixes || operand(1)? != standing || operand(2)? != standing {
                    return None;
                }
                standing
            }
            Operation::Scatter => match (operand(0)?, operand(1)?) {
                (Free, Free) => Free,
                _ => return None,
            },
            // Found only in gradients, which are not asked about.
            Operation::PutAlong
            | Operation::NormalizeSlope { .. }
            | Operation::CrossEntropySlope
            | Operation::AttentionSlope { .. } => {
                return None;
            }
        };
        self.consistent(found, shape)
    }

    fn not_last(&self, standing: Standing, operand: ValueId) -> Option<Standing> {
        match standing {
            Standing::Along(axis) if axis + 1 == self.ir.shape(operand).len() => None,
            other => Some(other),
        }
    }

    /// The symbol stands once in the shape, at the axis of the rows, or not at all.
    fn consistent(&self, standing: Standing, shape: &[Extent]) -> Option<Standing> {
        let alike = shape.iter().enumerate().all(|(axis, extent)| {
            (*extent == Extent::Symbol(self.symbol)) == (standing == Standing::Along(axis))
        });
        alike.then_some(standing)
    }
}

impl Ir {
    /// For each value, whether one of these is computed from it.
    pub(crate) fn reached_from(&self, outputs: &[ValueId]) -> Vec<bool> {
        let mut live = vec![false; self.values.len()];
        for output in outputs {
            live[*output as usize] = true;
        }
        for id in (0..self.values.len()).rev() {
            if live[id] {
                for operand in &self.values[id].operands {
                    live[*operand as usize] = true;
                }
            }
        }
        live
    }
}
