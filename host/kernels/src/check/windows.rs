//! The shapes of operations on windows.

use super::Type;
use super::nodes::{Checker, Inferred};
use crate::graph::{ConvolutionNode, DType, Extent, Padding, PoolNode, Shape};
use crate::shape;

/// The axes over which windows may move.
const AXES: std::ops::RangeInclusive<usize> = 1..=2;

impl Checker<'_> {
    pub(super) fn convolution(&self, node: &ConvolutionNode) -> Inferred {
        let operand = self.float(node.operand)?.shape;
        let kernel = self.float(node.kernel)?.shape;
        let (batch, extents, channels) = self.parts(&operand)?;
        let rank = extents.len();
        self.as_many(rank, &node.strides, &node.padding)?;
        if node.dilation.len() != rank {
            return Err(format!("{} dilations for {rank} axes", node.dilation.len()));
        }
        let Some((ends, window)) = kernel
            .len()
            .checked_sub(2)
            .map(|split| (&kernel[split..], &kernel[..split]))
            .filter(|(_, window)| window.len() == rank)
        else {
            return Err(format!(
                "a kernel {} for {rank} axes; it must be [window extents, channels, features]",
                self.describe(&kernel)
            ));
        };
        let per_group = self.fixed_extent(ends, 0)?;
        let features = self.fixed_extent(ends, 1)?;
        let (taken, given) = if node.transposed {
            (features, per_group.checked_mul(node.groups))
        } else {
            (per_group.saturating_mul(node.groups), Some(features))
        };
        let fit = features > 0 && node.groups > 0 && features % node.groups == 0;
        if !fit || given == Some(0) || taken != channels {
            return Err(format!(
                "{channels} channels for a kernel {} in {} groups",
                self.describe(&kernel),
                node.groups
            ));
        }
        let mut result = vec![batch];
        let mut within = vec![batch];
        for (axis, extent) in extents.iter().copied().enumerate() {
            let size = self.fixed_extent(window, axis)?;
            let (stride, dilation) = (node.strides[axis], node.dilation[axis]);
            let Padding { before, after } = node.padding[axis];
            let found = if node.transposed {
                shape::reach_of_windows(extent, size, stride, dilation)
                    .filter(|_| stride > 0 && dilation > 0)
                    .and_then(|reach| reach.checked_sub(before)?.checked_sub(after))
                    .filter(|extent| *extent > 0)
            } else {
                extent
                    .checked_add(before)
                    .and_then(|extent| extent.checked_add(after))
                    .and_then(|extent| shape::windows(extent, size, stride, dilation))
            };
            let found = found.ok_or_else(|| {
                format!(
                    "axis {}: windows of {size}, {stride} apart, dilated by {dilation}, do not go \
                     with {} elements and {before} and {after} around them",
                    axis + 1,
                    extent
                )
            })?;
            result.push(Extent::Fixed(found));
            within.push(Extent::Fixed(if node.transposed { extent } else { found }));
            within.push(Extent::Fixed(size));
        }
        let given = given.ok_or("the result has too many channels")?;
        result.push(Extent::Fixed(given));
        within.push(Extent::Fixed(if node.transposed {
            given
        } else {
            channels
        }));
        self.check_windows(&within)?;
        Ok(Type {
            dtype: DType::Float32,
            shape: result,
        })
    }

    pub(super) fn pool(&self, node: &PoolNode) -> Inferred {
        let operand = self.float(node.operand)?.shape;
        let (batch, extents, channels) = self.parts(&operand)?;
        let rank = extents.len();
        self.as_many(rank, &node.strides, &node.padding)?;
        if node.window.len() != rank {
            return Err(format!("a window of {} axes for {rank}", node.window.len()));
        }
        let mut result = vec![batch];
        let mut within = vec![batch];
        for (axis, extent) in extents.iter().copied().enumerate() {
            let (size, stride) = (node.window[axis], node.strides[axis]);
            let Padding { before, after } = node.padding[axis];
            let found = extent
                .checked_add(before)
                .and_then(|extent| extent.checked_add(after))
                .filter(|_| before < size && after < size && extent > 0)
                .and_then(|extent| shape::windows(extent, size, stride, 1));
            let found = found.ok_or_else(|| {
                format!(
                    "axis {}: windows of {size}, {stride} apart, do not go with {} elements and \
                     {before} and {after} around them",
                    axis + 1,
                    extent
                )
            })?;
            result.push(Extent::Fixed(found));
            within.extend([found, size].map(Extent::Fixed));
        }
        result.push(Extent::Fixed(channels));
        within.push(Extent::Fixed(channels));
        self.check_windows(&within)?;
        Ok(Type {
            dtype: DType::Float32,
            shape: result,
        })
    }

    /// The batch, the extents over which windows move, and the channels.
    fn parts(&self, operand: &[Extent]) -> Inferred<(Extent, Vec<u32>, u32)> {
        let last = operand.len().saturating_sub(1);
        if operand.len() < 2 || !AXES.contains(&(last - 1)) {
            return Err(format!(
                "windows over {}; it must be [batch, one or two extents, channels]",
                self.describe(operand)
            ));
        }
        let extents = (1..last)
            .map(|axis| self.fixed_extent(operand, axis))
            .collect::<Inferred<_>>()?;
        let channels = self.fixed_extent(operand, last)?;
        if operand[0] == Extent::Fixed(0) || channels == 0 {
            return Err(format!("windows over nothing: {}", self.describe(operand)));
        }
        Ok((operand[0], extents, channels))
    }

    fn as_many(&self, rank: usize, strides: &[u32], padding: &[Padding]) -> Inferred<()> {
        if strides.len() == rank && padding.len() == rank {
            return Ok(());
        }
        Err(format!(
            "{} strides and {} paddings for {rank} axes",
            strides.len(),
            padding.len()
        ))
    }

    /// All windows together are held at once.
    fn check_windows(&self, within: &Shape) -> Inferred<()> {
        let elements = shape::largest_elements(within, &self.graph.symbols);
        match elements {
            Some(elements) if elements <= self.caps.elements_per_tensor => Ok(()),
            _ => Err(format!(
                "windows {} are more elements than the cap of {}, with symbols at their maximum",
                self.describe(within),
                self.caps.elements_per_tensor
            )),
        }
    }
}
