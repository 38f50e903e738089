//! Arithmetic on shapes whose extents may be symbols.

use crate::graph::{Extent, Shape, Symbol};

/// The extents with every symbol replaced by its value.
pub(crate) fn resolve(shape: &[Extent], symbols: &[usize]) -> Vec<usize> {
    shape
        .iter()
        .map(|extent| resolve_extent(*extent, symbols))
        .collect()
}

/// One extent with a symbol replaced by its value.
pub(crate) fn resolve_extent(extent: Extent, symbols: &[usize]) -> usize {
    match extent {
        Extent::Fixed(value) => value as usize,
        Extent::Symbol(index) => symbols[index as usize],
    }
}

/// The number of elements with every symbol at its maximum; none when it cannot be counted.
pub(crate) fn largest_elements(shape: &[Extent], symbols: &[Symbol]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |product, extent| {
        let value = match extent {
            Extent::Fixed(value) => *value,
            Extent::Symbol(index) => symbols.get(*index as usize)?.maximum,
        };
        product.checked_mul(u64::from(value))
    })
}

/// The shape that two operands broadcast to, as in NumPy; none when they do not.
pub(crate) fn broadcast(left: &[Extent], right: &[Extent]) -> Option<Shape> {
    let rank = left.len().max(right.len());
    (0..rank)
        .map(
            |axis| match (aligned(left, rank, axis), aligned(right, rank, axis)) {
                (one, other) if one == other => Some(one),
                (Extent::Fixed(1), other) | (other, Extent::Fixed(1)) => Some(other),
                _ => None,
            },
        )
        .collect()
}

/// Whether an operand broadcasts to exactly this shape.
pub(crate) fn broadcasts_to(operand: &[Extent], shape: &[Extent]) -> bool {
    operand.len() <= shape.len() && broadcast(operand, shape).as_deref() == Some(shape)
}

/// The extent that stands at an axis of a larger rank when shapes are aligned at their ends.
fn aligned(shape: &[Extent], rank: usize, axis: usize) -> Extent {
    let missing = rank - shape.len();
    if axis < missing {
        Extent::Fixed(1)
    } else {
        shape[axis - missing]
    }
}

/// The product of fixed extents and the sorted symbols: equal for two shapes exactly when they
/// have as many elements whatever the symbols are.
pub(crate) fn signature(shape: &[Extent]) -> Option<(u64, Vec<u32>)> {
    let mut product = 1_u64;
    let mut symbols = Vec::new();
    for extent in shape {
        match extent {
            Extent::Fixed(value) => product = product.checked_mul(u64::from(*value))?,
            Extent::Symbol(index) => symbols.push(*index),
        }
    }
    if product == 0 {
        symbols.clear();
    }
    symbols.sort_unstable();
    Some((product, symbols))
}

/// A shape as messages write it: `[rows, 30]`.
pub(crate) fn describe(shape: &[Extent], symbols: &[Symbol]) -> String {
    let extents: Vec<String> = shape
        .iter()
        .map(|extent| match extent {
            Extent::Fixed(value) => value.to_string(),
            Extent::Symbol(index) => symbols
                .get(*index as usize)
                .map_or_else(|| format!("symbol {index}"), |symbol| symbol.name.clone()),
        })
        .collect();
    format!("[{}]", extents.join(", "))
}

/// How many windows of `size` elements, `dilation` apart, begin every `stride` elements of an
/// extent; none where not even one fits, or a number is 0.
pub(crate) fn windows(extent: u32, size: u32, stride: u32, dilation: u32) -> Option<u32> {
    let reach = u64::from(size.checked_sub(1)?) * u64::from(dilation) + 1;
    let room = u64::from(extent).checked_sub(reach)?;
    if dilation == 0 {
        return None;
    }
    u32::try_from(room.checked_div(u64::from(stride))? + 1).ok()
}

/// The extent that so many windows reach over; none where it is too large.
pub(crate) fn reach_of_windows(count: u32, size: u32, stride: u32, dilation: u32) -> Option<u32> {
    let last = u64::from(count.checked_sub(1)?).checked_mul(u64::from(stride))?;
    let inside = u64::from(size.checked_sub(1)?).checked_mul(u64::from(dilation))?;
    u32::try_from(last.checked_add(inside)?.checked_add(1)?).ok()
}

/// Row-major strides of a dense tensor, in elements.
pub(crate) fn dense_strides(extents: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; extents.len()];
    for axis in (1..extents.len()).rev() {
        strides[axis - 1] = strides[axis] * extents[axis];
    }
    strides
}
