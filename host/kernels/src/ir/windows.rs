//! Convolutions, pooling and norms over channels, by windows and products.
//!
//! A convolution is a product of its windows, laid out one behind the other, with its kernel
//! (Chellapilla, Puri and Simard 2006); a transposed one sums the windows that a product gives.

use super::{Bits, Fold, Ir, Operation, Product, ValueId};
use crate::check::Type;
use crate::graph::{ConvolutionNode, Extent, Padding, PoolNode, Reduction, Shape};

/// What a shape has of fixed extents; 0 for a symbol, where the check lets none be.
fn fixed(extent: Extent) -> u32 {
    match extent {
        Extent::Fixed(extent) => extent,
        Extent::Symbol(_) => 0,
    }
}

/// A kernel taken apart.
struct Kernel {
    /// The extents of a window.
    window: Vec<u32>,
    /// Elements of a window of one channel.
    area: u32,
    groups: u32,
    /// Channels and features of a group.
    channels: u32,
    features: u32,
}

impl Kernel {
    fn of(node: &ConvolutionNode, shape: &[Extent]) -> Kernel {
        let extents: Vec<u32> = shape.iter().copied().map(fixed).collect();
        // The check found two extents behind those of the window.
        let (window, ends) = extents.split_at(extents.len().saturating_sub(2));
        let groups = node.groups.max(1);
        Kernel {
            window: window.to_vec(),
            area: window.iter().product(),
            groups,
            channels: ends[0],
            features: ends[1] / groups,
        }
    }

    fn all_channels(&self) -> u32 {
        self.channels.saturating_mul(self.groups)
    }
}

impl Ir {
    /// The batch and the extents of an operand with other ends.
    fn with_ends(leading: &[Extent], ends: &[u32]) -> Shape {
        let ends = ends.iter().copied().map(Extent::Fixed);
        leading.iter().copied().chain(ends).collect()
    }

    pub(super) fn convolution(
        &mut self,
        node: &ConvolutionNode,
        operand: ValueId,
        kernel: ValueId,
        found: &Type,
    ) -> ValueId {
        let parts = Kernel::of(node, self.shape(kernel));
        let windows = self.windows(
            operand,
            &parts.window,
            &node.strides,
            &node.dilation,
            &node.padding,
            0.0,
        );
        let leading = found.shape[..found.shape.len() - 1].to_vec();
        let Kernel {
            area,
            groups,
            channels,
            features,
            ..
        } = parts;
        if groups == 1 {
            let rows = Ir::with_ends(&leading, &[area * channels]);
            let rows = self.reshape(windows, rows);
            let kernel = self.reshape(kernel, Ir::with_ends(&[], &[area * channels, features]));
            return self.product(Product::Shared, rows, kernel);
        }
        if channels == 1 {
            // Every channel by itself: no product would be filled.
            let one = Ir::with_ends(&leading, &[area, groups, 1]);
            let one = self.reshape(windows, one);
            let kernel = self.reshape(kernel, Ir::with_ends(&[], &[area, groups, features]));
            let products = self.multiply(one, kernel);
            let sum = self.reduce(Fold::Sum, products, vec![leading.len()]);
            return self.reshape(sum, found.shape.clone());
        }
        let rank = leading.len();
        let rows = self.reshape(windows, Ir::with_ends(&leading, &[area, groups, channels]));
        let rows = self.exchange(rows, rank, rank + 1);
        let rows = self.reshape(rows, Ir::with_ends(&leading, &[groups, area * channels]));
        let kernel = self.reshape(
            kernel,
            Ir::with_ends(&[], &[area * channels, groups, features]),
        );
        let kernel = self.exchange(kernel, 0, 1);
        let product = self.product(Product::Grouped, rows, kernel);
        let product = self.transpose(product, (1..=rank).chain([0, rank + 1]).collect());
        self.reshape(product, found.shape.clone())
    }

    pub(super) fn transposed_convolution(
        &mut self,
        node: &ConvolutionNode,
        operand: ValueId,
        kernel: ValueId,
        found: &Type,
    ) -> ValueId {
        let parts = Kernel::of(node, self.shape(kernel));
        let all_channels = parts.all_channels();
        let Kernel {
            window,
            area,
            groups,
            channels,
            features,
        } = parts;
        let shape = self.shape(operand).to_vec();
        let (leading, rank) = (shape[..shape.len() - 1].to_vec(), shape.len() - 1);
        let windows = if groups == 1 {
            let kernel = self.reshape(kernel, Ir::with_ends(&[], &[area * channels, features]));
            let kernel = self.transpose_matrix(kernel);
            self.product(Product::Shared, operand, kernel)
        } else if channels == 1 {
            let one = self.reshape(operand, Ir::with_ends(&leading, &[1, groups, features]));
            let kernel = self.reshape(kernel, Ir::with_ends(&[], &[area, groups, features]));
            let products = self.multiply(one, kernel);
            self.reduce(Fold::Sum, products, vec![rank + 2])
        } else {
            let rows = self.reshape(operand, Ir::with_ends(&leading, &[groups, features]));
            let kernel = self.reshape(
                kernel,
                Ir::with_ends(&[], &[area * channels, groups, features]),
            );
            let kernel = self.transpose(kernel, vec![1, 2, 0]);
            let product = self.product(Product::Grouped, rows, kernel);
            let product = self.transpose(product, (1..=rank).chain([0, rank + 1]).collect());
            let product = self.reshape(product, Ir::with_ends(&leading, &[groups, area, channels]));
            self.exchange(product, rank, rank + 1)
        };
        // [batch, extents, window, channels], the elements of each window beside their place.
        let ends: Vec<u32> = window.iter().copied().chain([all_channels]).collect();
        let mut sum = self.reshape(windows, Ir::with_ends(&leading, &ends));
        let axes = window.len();
        let beside = (0..axes).flat_map(|axis| [1 + axis, 1 + axes + axis]);
        let permutation = [0]
            .into_iter()
            .chain(beside)
            .chain([1 + 2 * axes])
            .collect();
        sum = self.transpose(sum, permutation);
        for axis in (0..axes).rev() {
            let Padding { before, after } = node.padding[axis];
            let extent = fixed(found.shape[1 + axis]);
            let reach = extent.saturating_add(before).saturating_add(after);
            let steps = [node.strides[axis], node.dilation[axis]];
            let place = 1 + 2 * axis;
            sum = self.unwindow(sum, place, reach, steps);
            let mut cut = self.shape(sum).to_vec();
            cut[place] = Extent::Fixed(extent);
            sum = self.slice(sum, place, before as usize, cut);
        }
        sum
    }

    pub(super) fn pool(&mut self, node: &PoolNode, operand: ValueId, found: &Type) -> ValueId {
        let (fold, outside) = match node.reduction {
            Reduction::Sum | Reduction::Mean => (Fold::Sum, 0.0),
            Reduction::Maximum => (Fold::Maximum, f32::NEG_INFINITY),
            Reduction::Minimum => (Fold::Minimum, f32::INFINITY),
        };
        let ones = vec![1; node.window.len()];
        let windows = |ir: &mut Ir, operand: ValueId| {
            ir.windows(
                operand,
                &node.window,
                &node.strides,
                &ones,
                &node.padding,
                outside,
            )
        };
        let rank = found.shape.len() - 1;
        let axes: Vec<usize> = (rank..rank + node.window.len()).collect();
        let of_operand = windows(self, operand);
        let reduced = self.reduce(fold, of_operand, axes.clone());
        if node.reduction != Reduction::Mean {
            return reduced;
        }
        if node
            .padding
            .iter()
            .all(|padding| *padding == Padding::default())
        {
            let counted = node.window.iter().copied().map(Extent::Fixed).collect();
            let share = self.inverse_count(counted);
            return self.multiply(reduced, share);
        }
        // How many elements of each window are there, found in the same way.
        let mut there = self.shape(operand).to_vec();
        there[0] = Extent::Fixed(1);
        there[rank] = Extent::Fixed(1);
        let there = self.filled(1.0, there);
        let there = windows(self, there);
        let count = self.reduce(Fold::Sum, there, axes);
        self.divide(reduced, count)
    }

    /// Windows of [batch, extents, channels] as [batch, windows, elements of a window, channels].
    fn windows(
        &mut self,
        operand: ValueId,
        window: &[u32],
        strides: &[u32],
        dilation: &[u32],
        padding: &[Padding],
        outside: f32,
    ) -> ValueId {
        let mut found = operand;
        for (axis, padding) in padding.iter().enumerate() {
            found = self.pad(found, 1 + axis, [padding.before, padding.after], outside);
        }
        let axes = window.len();
        for axis in 0..axes {
            let place = 1 + 2 * axis;
            let extent = fixed(self.shape(found)[place]);
            let (size, stride, apart) = (window[axis], strides[axis], dilation[axis]);
            // The check found that some fit.
            let count = crate::shape::windows(extent, size, stride, apart).unwrap_or(0);
            found = self.window(found, place, [count, size], [stride, apart]);
        }
        let counts = (0..axes).map(|axis| 1 + 2 * axis);
        let sizes = (0..axes).map(|axis| 2 + 2 * axis);
        let permutation = [0]
            .into_iter()
            .chain(counts)
            .chain(sizes)
            .chain([1 + 2 * axes])
            .collect();
        self.transpose(found, permutation)
    }

    fn exchange(&mut self, operand: ValueId, one: usize, other: usize) -> ValueId {
        let mut permutation: Vec<usize> = (0..self.shape(operand).len()).collect();
        permutation.swap(one, other);
        self.transpose(operand, permutation)
    }

    /// The operand less its mean over every axis but the last, and its variance.
    pub(super) fn centred(&mut self, operand: ValueId) -> (ValueId, ValueId) {
        let shape = self.shape(operand).to_vec();
        let axes: Vec<usize> = (0..shape.len() - 1).collect();
        let share = self.inverse_count(shape[..shape.len() - 1].to_vec());
        let sum = self.reduce(Fold::Sum, operand, axes.clone());
        let mean = self.multiply(sum, share);
        let centred = self.subtract(operand, mean);
        let square = self.unary(crate::graph::UnaryOperation::Square, centred);
        let sum = self.reduce(Fold::Sum, square, axes);
        let variance = self.multiply(sum, share);
        (centred, variance)
    }

    /// [batch, extents, channels] with mean 0 and variance 1 over each group of channels of each
    /// element of the batch.
    pub(super) fn normal_by_group(
        &mut self,
        operand: ValueId,
        groups: u32,
        epsilon: f32,
    ) -> ValueId {
        let shape = self.shape(operand).to_vec();
        let Some((channels, leading)) = shape.split_last() else {
            return operand;
        };
        let extents: u32 = leading[1..].iter().copied().map(fixed).product();
        let each = fixed(*channels) / groups.max(1);
        let batch = &leading[..1];
        let apart = self.reshape(operand, Ir::with_ends(batch, &[extents, groups, each]));
        let apart = self.exchange(apart, 1, 2);
        let rows = self.reshape(apart, Ir::with_ends(batch, &[groups, extents * each]));
        let operation = Operation::Normalize {
            epsilon: Bits::from(epsilon),
        };
        let row_shape = self.shape(rows).to_vec();
        let normal = self.float(operation, &[rows], row_shape);
        let normal = self.reshape(normal, Ir::with_ends(batch, &[groups, extents, each]));
        let normal = self.exchange(normal, 1, 2);
        self.reshape(normal, shape)
    }
}
