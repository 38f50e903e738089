//! A graph as a guest declares it, as the kernels know it. Both are the same flat list; what is
//! bounded here is its size as a value, what it means is checked by the kernels.

use sandcast_kernels::graph as kernels;

use crate::bindings::adapter::sandcast::plugin::compute as wire;

/// The graph of the kernels.
pub(crate) fn from_wire(graph: wire::Graph) -> kernels::Graph {
    kernels::Graph {
        symbols: graph
            .symbols
            .into_iter()
            .map(|symbol| kernels::Symbol {
                name: symbol.name,
                maximum: symbol.maximum,
            })
            .collect(),
        nodes: graph.nodes.into_iter().map(node).collect(),
        entries: graph
            .entries
            .into_iter()
            .map(|entry| kernels::Entry {
                name: entry.name,
                outputs: entry
                    .outputs
                    .into_iter()
                    .map(|output| kernels::Output {
                        name: output.name,
                        node: output.node,
                    })
                    .collect(),
            })
            .collect(),
        loss: graph.loss.map(|loss| kernels::Loss {
            per_row: loss.per_row,
            weight: loss.weight,
        }),
        optimizer: graph.optimizer.map(|optimizer| match optimizer {
            wire::Optimizer::Sgd(sgd) => kernels::Optimizer::Sgd(kernels::Sgd {
                momentum: sgd.momentum,
                weight_decay: sgd.weight_decay,
            }),
            wire::Optimizer::Adam(adam) => kernels::Optimizer::Adam(kernels::Adam {
                beta1: adam.beta1,
                beta2: adam.beta2,
                epsilon: adam.epsilon,
                weight_decay: adam.weight_decay,
                decoupled: adam.decoupled,
            }),
        }),
        generation: graph.generation.map(|generation| kernels::Generation {
            tokens: generation.tokens,
            positions: generation.positions,
            logits: generation.logits,
        }),
    }
}

fn node(node: wire::Node) -> kernels::Node {
    use kernels::Node;
    match node {
        wire::Node::Input(node) => Node::Input(kernels::Input {
            name: node.name,
            dtype: dtype(node.dtype),
            shape: shape(node.shape),
        }),
        wire::Node::Parameter(node) => Node::Parameter(kernels::Parameter {
            name: node.name,
            shape: node.shape,
            initializer: initializer(node.initializer),
            trainable: node.trainable,
        }),
        wire::Node::F32Constant(node) => Node::F32Constant(kernels::F32Literal {
            shape: node.shape,
            values: node.values,
        }),
        wire::Node::I32Constant(node) => Node::I32Constant(kernels::I32Literal {
            shape: node.shape,
            values: node.values,
        }),
        wire::Node::Unary(node) => Node::Unary(kernels::UnaryNode {
            operation: unary(node.operation),
            operand: node.operand,
        }),
        wire::Node::Binary(node) => Node::Binary(kernels::BinaryNode {
            operation: binary(node.operation),
            left: node.left,
            right: node.right,
        }),
        wire::Node::Compare(node) => Node::Compare(kernels::CompareNode {
            comparison: comparison(node.comparison),
            left: node.left,
            right: node.right,
        }),
        wire::Node::Select(node) => Node::Select(kernels::SelectNode {
            condition: node.condition,
            on_true: node.on_true,
            on_false: node.on_false,
        }),
        wire::Node::Cast(node) => Node::Cast(kernels::CastNode {
            operand: node.operand,
            dtype: dtype(node.dtype),
        }),
        wire::Node::Clamp(node) => Node::Clamp(kernels::ClampNode {
            operand: node.operand,
            minimum: node.minimum,
            maximum: node.maximum,
        }),
        wire::Node::Reshape(node) => Node::Reshape(kernels::ReshapeNode {
            operand: node.operand,
            shape: shape(node.shape),
        }),
        wire::Node::Transpose(node) => Node::Transpose(kernels::TransposeNode {
            operand: node.operand,
            permutation: node.permutation,
        }),
        wire::Node::Broadcast(node) => Node::Broadcast(kernels::BroadcastNode {
            operand: node.operand,
            shape: shape(node.shape),
        }),
        wire::Node::Slice(node) => Node::Slice(kernels::SliceNode {
            operand: node.operand,
            axis: node.axis,
            start: node.start,
            limit: node.limit,
        }),
        wire::Node::Concatenate(node) => Node::Concatenate(kernels::ConcatenateNode {
            operands: node.operands,
            axis: node.axis,
        }),
        wire::Node::Reduce(node) => Node::Reduce(kernels::ReduceNode {
            reduction: reduction(node.reduction),
            operand: node.operand,
            axes: node.axes,
            keep: node.keep,
        }),
        wire::Node::Argmax(node) => Node::Argmax(kernels::ArgmaxNode {
            operand: node.operand,
            axis: node.axis,
        }),
        wire::Node::Softmax(node) => Node::Softmax(kernels::SoftmaxNode {
            operand: node.operand,
            axis: node.axis,
            logarithm: node.logarithm,
        }),
        wire::Node::Matmul(node) => Node::Matmul(kernels::MatmulNode {
            left: node.left,
            right: node.right,
        }),
        wire::Node::Gather(node) => Node::Gather(kernels::GatherNode {
            table: node.table,
            indices: node.indices,
        }),
        wire::Node::OneHot(node) => Node::OneHot(kernels::OneHotNode {
            indices: node.indices,
            depth: node.depth,
        }),
        wire::Node::Dropout(node) => Node::Dropout(kernels::DropoutNode {
            operand: node.operand,
            rate: node.rate,
        }),
        wire::Node::LayerNorm(node) => Node::LayerNorm(kernels::LayerNormNode {
            operand: node.operand,
            scale: node.scale,
            offset: node.offset,
            epsilon: node.epsilon,
        }),
        wire::Node::CrossEntropy(node) => Node::CrossEntropy(kernels::CrossEntropyNode {
            logits: node.logits,
            labels: node.labels,
        }),
        wire::Node::BinaryCrossEntropy(node) => {
            Node::BinaryCrossEntropy(kernels::BinaryCrossEntropyNode {
                logits: node.logits,
                targets: node.targets,
            })
        }
        wire::Node::SquaredError(node) => Node::SquaredError(kernels::SquaredErrorNode {
            predictions: node.predictions,
            targets: node.targets,
        }),
        wire::Node::Huber(node) => Node::Huber(kernels::HuberNode {
            predictions: node.predictions,
            targets: node.targets,
            delta: node.delta,
        }),
        wire::Node::RmsNorm(node) => Node::RmsNorm(kernels::RmsNormNode {
            operand: node.operand,
            scale: node.scale,
            epsilon: node.epsilon,
        }),
        wire::Node::Attention(node) => Node::Attention(kernels::AttentionNode {
            query: node.query,
            key: node.key,
            value: node.value,
            mask: node.mask,
            causal: node.causal,
            scale: node.scale,
        }),
        wire::Node::Pad(node) => Node::Pad(kernels::PadNode {
            operand: node.operand,
            axis: node.axis,
            before: node.before,
            after: node.after,
            value: node.value,
        }),
        wire::Node::CumulativeSum(node) => Node::CumulativeSum(kernels::CumulativeSumNode {
            operand: node.operand,
            axis: node.axis,
            exclusive: node.exclusive,
            reverse: node.reverse,
        }),
        wire::Node::TopK(node) => Node::TopK(kernels::TopKNode {
            operand: node.operand,
            axis: node.axis,
            count: node.count,
        }),
        wire::Node::TakeAlong(node) => Node::TakeAlong(kernels::TakeAlongNode {
            operand: node.operand,
            indices: node.indices,
            axis: node.axis,
        }),
        wire::Node::ScatterAdd(node) => Node::ScatterAdd(kernels::ScatterAddNode {
            indices: node.indices,
            updates: node.updates,
            size: node.size,
        }),
        wire::Node::Convolution(node) => Node::Convolution(kernels::ConvolutionNode {
            operand: node.operand,
            kernel: node.kernel,
            strides: node.strides,
            padding: node.padding.into_iter().map(padding).collect(),
            dilation: node.dilation,
            groups: node.groups,
            transposed: node.transposed,
        }),
        wire::Node::Pool(node) => Node::Pool(kernels::PoolNode {
            reduction: reduction(node.reduction),
            operand: node.operand,
            window: node.window,
            strides: node.strides,
            padding: node.padding.into_iter().map(padding).collect(),
        }),
        wire::Node::BatchNorm(node) => Node::BatchNorm(kernels::BatchNormNode {
            operand: node.operand,
            scale: node.scale,
            offset: node.offset,
            statistics: node.statistics.map(|found| kernels::Statistics {
                mean: found.mean,
                variance: found.variance,
            }),
            epsilon: node.epsilon,
        }),
        wire::Node::GroupNorm(node) => Node::GroupNorm(kernels::GroupNormNode {
            operand: node.operand,
            scale: node.scale,
            offset: node.offset,
            groups: node.groups,
            epsilon: node.epsilon,
        }),
        wire::Node::Dequantise(node) => Node::Dequantise(kernels::DequantiseNode {
            codes: node.codes,
            width: code_width(node.width),
            extent: node.extent,
            scale: node.scale,
            zero: node.zero,
        }),
    }
}

fn shape(shape: Vec<wire::Extent>) -> kernels::Shape {
    shape
        .into_iter()
        .map(|extent| match extent {
            wire::Extent::Fixed(number) => kernels::Extent::Fixed(number),
            wire::Extent::Symbol(index) => kernels::Extent::Symbol(index),
        })
        .collect()
}

/// The type of elements as the kernels know it.
pub(crate) fn dtype(dtype: wire::Dtype) -> kernels::DType {
    match dtype {
        wire::Dtype::Float32 => kernels::DType::Float32,
        wire::Dtype::Int32 => kernels::DType::Int32,
    }
}

fn padding(padding: wire::Padding) -> kernels::Padding {
    kernels::Padding {
        before: padding.before,
        after: padding.after,
    }
}

fn initializer(initializer: wire::Initializer) -> kernels::Initializer {
    match initializer {
        wire::Initializer::Zeros => kernels::Initializer::Zeros,
        wire::Initializer::Ones => kernels::Initializer::Ones,
        wire::Initializer::Uniform(bound) => kernels::Initializer::Uniform(bound),
        wire::Initializer::Normal(deviation) => kernels::Initializer::Normal(deviation),
        wire::Initializer::GlorotUniform => kernels::Initializer::GlorotUniform,
        wire::Initializer::HeUniform => kernels::Initializer::HeUniform,
    }
}

/// Two enums with the same variants.
macro_rules! same_variants {
    ($function:ident, $wire:ident => $kernels:ident, $($variant:ident),* $(,)?) => {
        fn $function(value: wire::$wire) -> kernels::$kernels {
            match value {
                $(wire::$wire::$variant => kernels::$kernels::$variant,)*
            }
        }
    };
}

same_variants!(
    unary, UnaryOperation => UnaryOperation,
    Negate, Absolute, Exponential, Logarithm, SquareRoot, Square, Reciprocal, Tanh, Logistic, Relu,
    Gelu, Silu, Softplus, Floor, Sign, IsNan, LogicalNot, Sine, Cosine, Tangent, Round, Ceiling,
    ErrorFunction, ExponentialMinusOne, LogPlusOne, CubeRoot, ReciprocalSquareRoot, IsFinite,
);
same_variants!(
    binary, BinaryOperation => BinaryOperation,
    Add, Subtract, Multiply, Divide, Maximum, Minimum, Power, LogicalAnd, LogicalOr,
);
same_variants!(
    comparison, Comparison => Comparison,
    Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual,
);
same_variants!(code_width, CodeWidth => CodeWidth, Int8, Int4);
same_variants!(reduction, Reduction => Reduction, Sum, Mean, Maximum, Minimum);

/// The names of the inputs that some nodes need.
pub(crate) fn inputs_needed(
    graph: &kernels::Graph,
    roots: impl IntoIterator<Item = kernels::NodeId>,
) -> Vec<String> {
    let mut needed = vec![false; graph.nodes.len()];
    for root in roots {
        if let Some(mark) = needed.get_mut(root as usize) {
            *mark = true;
        }
    }
    let mut names = Vec::new();
    // A node refers only to nodes before it, so one pass from the end sees every mark in time.
    for (place, node) in graph.nodes.iter().enumerate().rev() {
        if !needed[place] {
            continue;
        }
        if let kernels::Node::Input(input) = node {
            names.push(input.name.clone());
        }
        for (_, operand) in node.operands() {
            if let Some(mark) = needed.get_mut(operand as usize) {
                *mark = true;
            }
        }
    }
    names.reverse();
    names
}

/// The names of the inputs that an entry needs; none for an entry that is not there.
pub(crate) fn inputs_of_entry(graph: &kernels::Graph, entry: &str) -> Option<Vec<String>> {
    let entry = graph.entries.iter().find(|one| one.name == entry)?;
    Some(inputs_needed(
        graph,
        entry.outputs.iter().map(|output| output.node),
    ))
}

/// The names of the inputs that the loss needs.
pub(crate) fn inputs_of_loss(graph: &kernels::Graph) -> Option<Vec<String>> {
    let loss = graph.loss.as_ref()?;
    Some(inputs_needed(
        graph,
        std::iter::once(loss.per_row).chain(loss.weight),
    ))
}

/// The names of all inputs.
pub(crate) fn inputs(graph: &kernels::Graph) -> impl Iterator<Item = &str> {
    graph.nodes.iter().filter_map(|node| match node {
        kernels::Node::Input(input) => Some(input.name.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str) -> kernels::Node {
        kernels::Node::Input(kernels::Input {
            name: name.into(),
            dtype: kernels::DType::Float32,
            shape: vec![kernels::Extent::Fixed(1)],
        })
    }

    #[test]
    fn only_the_inputs_that_an_entry_reaches_are_needed() {
        let graph = kernels::Graph {
            nodes: vec![
                input("x"),
                input("y"),
                kernels::Node::Unary(kernels::UnaryNode {
                    operation: kernels::UnaryOperation::Tanh,
                    operand: 0,
                }),
                kernels::Node::SquaredError(kernels::SquaredErrorNode {
                    predictions: 2,
                    targets: 1,
                }),
            ],
            entries: vec![kernels::Entry {
                name: "predict".into(),
                outputs: vec![kernels::Output {
                    name: "p".into(),
                    node: 2,
                }],
            }],
            loss: Some(kernels::Loss {
                per_row: 3,
                weight: Some(99),
            }),
            ..kernels::Graph::default()
        };
        assert_eq!(
            inputs_of_entry(&graph, "predict"),
            Some(vec!["x".to_owned()])
        );
        assert_eq!(inputs_of_entry(&graph, "other"), None);
        assert_eq!(
            inputs_of_loss(&graph),
            Some(vec!["x".to_owned(), "y".to_owned()])
        );
        assert_eq!(inputs(&graph).collect::<Vec<_>>(), ["x", "y"]);
    }
}
