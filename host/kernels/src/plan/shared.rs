//! What depends on parameters and literals alone: computed once for all pieces of rows, and, in
//! inference, once for as long as the weights stay. Matrices that stand on the right of a
//! product are laid out in panels here.

use std::collections::BTreeMap;

use super::build::{Request, build};
use super::{PANEL, Place, Plan, Region, aligned};
use crate::graph::Extent;
use crate::ir::{Ir, Operation, Product, ValueId};

/// Where shared values lie in their region.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SharedLayout {
    /// Dense values, by offset.
    pub(crate) values: BTreeMap<ValueId, usize>,
    /// Right operands of products, in panels, by offset.
    pub(crate) packed: BTreeMap<ValueId, usize>,
    /// Elements of the region.
    pub(crate) elements: usize,
}

/// Finds what these values need that depends on parameters and literals alone.
pub(crate) fn shared_layout(ir: &Ir, roots: &[ValueId]) -> SharedLayout {
    let fixed = fixed_values(ir);
    let live = ir.reached_from(roots);
    let mut layout = SharedLayout::default();
    let mut wanted = Vec::new();
    for (id, value) in ir.values.iter().enumerate() {
        if !live[id] || fixed[id] {
            continue;
        }
        for (place, operand) in value.operands.iter().copied().enumerate() {
            if !fixed[operand as usize] {
                continue;
            }
            let follows_strides =
                matches!(value.operation, Operation::Map(_)) || value.operation.is_view();
            if value.operation == Operation::Matmul(Product::Shared)
                && place == 1
                && is_worth_packing(ir.shape(operand))
            {
                layout.packed.insert(operand, 0);
            } else if follows_strides || !ir.value(operand).operation.is_view() {
                wanted.push(base(ir, operand));
            } else {
                wanted.push(operand);
            }
        }
    }
    wanted.extend(
        roots
            .iter()
            .filter(|root| fixed[**root as usize])
            .map(|root| base(ir, *root)),
    );
    for id in wanted {
        if !ir.value(id).operation.is_source() {
            layout.values.insert(id, 0);
        }
    }
    for (id, offset) in &mut layout.values {
        *offset = layout.elements;
        layout.elements += aligned(elements(ir.shape(*id)));
    }
    for (id, offset) in &mut layout.packed {
        let shape = ir.shape(*id);
        *offset = layout.elements;
        layout.elements += packed_elements(extent(shape[0]), extent(shape[1]));
    }
    layout
}

/// The plan that computes the shared region.
pub(crate) fn shared_plan(
    ir: &Ir,
    layout: &SharedLayout,
    parameters: &[usize],
    literals: &[usize],
) -> Plan {
    let at = |offset: usize| Place {
        region: Region::Shared,
        offset,
    };
    build(&Request {
        ir,
        symbols: &[],
        outputs: layout
            .values
            .iter()
            .map(|(id, offset)| (*id, at(*offset)))
            .collect(),
        packs: layout
            .packed
            .iter()
            .map(|(id, offset)| (*id, at(*offset)))
            .collect(),
        shared: &SharedLayout::default(),
        parameters,
        literals,
        rows: None,
    })
}

/// Whether panels would be filled well: few columns are read where they lie.
fn is_worth_packing(shape: &[Extent]) -> bool {
    extent(shape[1]) > PANEL / 2
}

/// Elements of a [k, n] matrix in panels.
pub(crate) fn packed_elements(k: usize, n: usize) -> usize {
    n.div_ceil(PANEL) * PANEL * k
}

/// For each value, whether it depends on parameters and literals alone.
fn fixed_values(ir: &Ir) -> Vec<bool> {
    let mut fixed = vec![false; ir.values.len()];
    for (id, value) in ir.values.iter().enumerate() {
        let symbolic = |shape: &[Extent]| {
            shape
                .iter()
                .any(|extent| matches!(extent, Extent::Symbol(_)))
        };
        fixed[id] = match &value.operation {
            Operation::Input(_) => false,
            Operation::InverseCount(extents) => !symbolic(extents),
            // A number outside what it selects from fails a run, not what comes before all runs.
            Operation::Gather
            | Operation::Scatter
            | Operation::TakeAlong
            | Operation::PutAlong
            | Operation::CrossEntropy
            | Operation::CrossEntropySlope => false,
            _ => {
                !symbolic(&value.shape)
                    && value
                        .operands
                        .iter()
                        .all(|operand| fixed[*operand as usize])
            }
        };
    }
    fixed
}

/// What a chain of views is a view of.
fn base(ir: &Ir, mut id: ValueId) -> ValueId {
    while ir.value(id).operation.is_view() {
        id = ir.value(id).operands[0];
    }
    id
}

fn elements(shape: &[Extent]) -> usize {
    shape.iter().map(|one| extent(*one)).product()
}

fn extent(extent: Extent) -> usize {
    match extent {
        Extent::Fixed(value) => value as usize,
        // Fixed values have no symbols in their shapes.
        Extent::Symbol(_) => 0,
    }
}
