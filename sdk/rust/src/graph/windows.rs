//! Nodes over windows, along axes and for each channel.

use super::{Float, Int, Node, Number, Reduction, wit};

pub use crate::bindings::imports::sandcast::plugin::compute::{CodeWidth, Padding};

/// How the windows of a convolution stand; one number for each of its one or two axes.
#[derive(Debug, Clone)]
pub struct Convolution {
    strides: Vec<u32>,
    padding: Vec<Padding>,
    dilation: Vec<u32>,
    groups: u32,
}

impl Convolution {
    /// Windows at every place where they fit, over so many axes.
    #[must_use]
    pub fn over(axes: usize) -> Self {
        Self {
            strides: vec![1; axes],
            padding: vec![
                Padding {
                    before: 0,
                    after: 0
                };
                axes
            ],
            dilation: vec![1; axes],
            groups: 1,
        }
    }

    /// How far apart windows are.
    #[must_use]
    pub fn strides(mut self, strides: &[u32]) -> Self {
        self.strides = strides.to_vec();
        self
    }

    /// Zeros before and after each axis; of a transposed one, what is cut from the result.
    #[must_use]
    pub fn padding(mut self, padding: &[(u32, u32)]) -> Self {
        self.padding = paddings(padding);
        self
    }

    /// How far apart the elements of a window are.
    #[must_use]
    pub fn dilation(mut self, dilation: &[u32]) -> Self {
        self.dilation = dilation.to_vec();
        self
    }

    /// Into how many groups channels and features fall; as many as channels makes it depthwise.
    #[must_use]
    pub fn groups(mut self, groups: u32) -> Self {
        self.groups = groups;
        self
    }
}

fn paddings(padding: &[(u32, u32)]) -> Vec<Padding> {
    let pairs = padding.iter();
    pairs
        .map(|(before, after)| Padding {
            before: *before,
            after: *after,
        })
        .collect()
}

impl<'g, D: Number> Node<'g, D> {
    /// With a number before and after an axis.
    #[must_use]
    pub fn pad(self, axis: u32, before: u32, after: u32, value: f32) -> Self {
        self.builder.add(wit::Node::Pad(wit::PadNode {
            operand: self.id,
            axis,
            before,
            after,
            value,
        }))
    }

    /// Elements along an axis by their places.
    #[must_use]
    pub fn take_along(self, indices: Node<'g, Int>, axis: u32) -> Self {
        self.builder.add(wit::Node::TakeAlong(wit::TakeAlongNode {
            operand: self.id,
            indices: indices.id,
            axis,
        }))
    }
}

impl<'g> Node<'g, Float> {
    /// The sum of the elements up to each along an axis.
    #[must_use]
    pub fn cumulative_sum(self, axis: u32) -> Self {
        self.sums(axis, false, false)
    }

    /// The sum of the elements before each along an axis, or behind each.
    #[must_use]
    pub fn cumulative_sum_of_others(self, axis: u32, behind: bool) -> Self {
        self.sums(axis, true, behind)
    }

    /// The sum of the elements from each on along an axis.
    #[must_use]
    pub fn cumulative_sum_from_end(self, axis: u32) -> Self {
        self.sums(axis, false, true)
    }

    fn sums(self, axis: u32, exclusive: bool, reverse: bool) -> Self {
        let node = wit::CumulativeSumNode {
            operand: self.id,
            axis,
            exclusive,
            reverse,
        };
        self.builder.add(wit::Node::CumulativeSum(node))
    }

    /// The largest elements along an axis, the largest first, and their places.
    #[must_use]
    pub fn top_k(self, axis: u32, count: u32) -> (Self, Node<'g, Int>) {
        let places = self.builder.add(wit::Node::TopK(wit::TopKNode {
            operand: self.id,
            axis,
            count,
        }));
        (self.take_along(places, axis), places)
    }

    /// `size` rows of zeros, to each of which these rows are added by their numbers.
    #[must_use]
    pub fn scatter_add(self, indices: Node<'g, Int>, size: u32) -> Self {
        self.builder.add(wit::Node::ScatterAdd(wit::ScatterAddNode {
            indices: indices.id,
            updates: self.id,
            size,
        }))
    }

    /// A convolution of `[batch, extents, channels]` by a kernel of shape `[window extents,
    /// channels / groups, features]`.
    #[must_use]
    pub fn convolve(self, kernel: Self, how: &Convolution) -> Self {
        self.convolution(kernel, how, false)
    }

    /// The transposed convolution by the kernel of a plain one: features become channels.
    #[must_use]
    pub fn convolve_transposed(self, kernel: Self, how: &Convolution) -> Self {
        self.convolution(kernel, how, true)
    }

    fn convolution(self, kernel: Self, how: &Convolution, transposed: bool) -> Self {
        let Convolution {
            strides,
            padding,
            dilation,
            groups,
        } = how.clone();
        let node = wit::ConvolutionNode {
            operand: self.id,
            kernel: kernel.id,
            strides,
            padding,
            dilation,
            groups,
            transposed,
        };
        self.builder.add(wit::Node::Convolution(node))
    }

    /// A reduction over windows of `[batch, extents, channels]`, each beginning `strides` after the
    /// one before it. Windows may reach beyond the operand by the padding, where nothing is.
    #[must_use]
    pub fn pool(
        self,
        reduction: Reduction,
        window: &[u32],
        strides: &[u32],
        padding: &[(u32, u32)],
    ) -> Self {
        self.builder.add(wit::Node::Pool(wit::PoolNode {
            reduction,
            operand: self.id,
            window: window.to_vec(),
            strides: strides.to_vec(),
            padding: paddings(padding),
        }))
    }

    /// Ioffe and Szegedy 2015, for each channel of the last axis, by a mean and a variance, or by
    /// those of the whole batch where none are given.
    #[must_use]
    pub fn batch_norm(
        self,
        scale: Self,
        offset: Self,
        statistics: Option<(Self, Self)>,
        epsilon: f32,
    ) -> Self {
        let node = wit::BatchNormNode {
            operand: self.id,
            scale: scale.id,
            offset: offset.id,
            statistics: statistics.map(|(mean, variance)| wit::Statistics {
                mean: mean.id,
                variance: variance.id,
            }),
            epsilon,
        };
        self.builder.add(wit::Node::BatchNorm(node))
    }

    /// Wu and He 2018, over each group of channels of each element of the batch.
    #[must_use]
    pub fn group_norm(self, scale: Self, offset: Self, groups: u32, epsilon: f32) -> Self {
        self.builder.add(wit::Node::GroupNorm(wit::GroupNormNode {
            operand: self.id,
            scale: scale.id,
            offset: offset.id,
            groups,
            epsilon,
        }))
    }
}

impl<'g> Node<'g, Int> {
    /// (code - zero) * scale, of codes packed into these words, `extent` in the last axis.
    #[must_use]
    pub fn dequantise(
        self,
        width: CodeWidth,
        extent: u32,
        scale: Node<'g>,
        zero: Option<Node<'g>>,
    ) -> Node<'g> {
        self.builder.add(wit::Node::Dequantise(wit::DequantiseNode {
            codes: self.id,
            width,
            extent,
            scale: scale.id,
            zero: zero.map(|zero| zero.id),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{GraphBuilder, Initializer};

    #[test]
    fn a_small_image_model_is_declared() {
        let g = GraphBuilder::new();
        let rows = g.symbol("rows", 64);
        let x = g.input_f32("image", [rows, 28.into(), 28.into(), 1.into()]);
        let kernel = g.parameter("kernel", &[3, 3, 1, 8], Initializer::HeUniform);
        let how = Convolution::over(2).strides(&[2, 2]).padding(&[(1, 1); 2]);
        let hidden = x.convolve(kernel, &how).relu();
        let pooled = hidden.pool(Reduction::Maximum, &[2, 2], &[2, 2], &[(0, 0); 2]);
        let (largest, places) = pooled.reshape([rows, 392.into()]).top_k(1, 5);
        g.entry(
            "e",
            &[("largest", largest.into()), ("places", places.into())],
        );
        let graph = g.finish();
        let Some(wit::Node::Convolution(convolution)) = graph.nodes.get(2) else {
            panic!("no convolution: {:?}", graph.nodes);
        };
        assert_eq!((convolution.operand, convolution.kernel), (0, 1));
        assert_eq!(convolution.strides, [2, 2]);
        assert_eq!(convolution.dilation, [1, 1]);
        assert_eq!(convolution.padding[1].after, 1);
        // The elements are taken by the places.
        assert!(matches!(
            graph.nodes[graph.entries[0].outputs[0].node as usize],
            wit::Node::TakeAlong(wit::TakeAlongNode { indices, axis: 1, .. })
                if indices == graph.entries[0].outputs[1].node
        ));
    }
}
