//! Declaring a tensor program.
//!
//! A [`GraphBuilder`] hands out nodes that know whether they hold `f32` or `i32` and combine by
//! methods and operators; the host checks shapes, differentiates, plans, prices, compiles and runs.
//!
//! ```
//! use sandcast_sdk::graph::{GraphBuilder, Initializer, Optimizer};
//!
//! let g = GraphBuilder::new();
//! let rows = g.symbol("rows", 8192);
//! let x = g.input_f32("x", [rows, 30.into()]);
//! let label = g.input_i32("label", [rows]);
//!
//! let w1 = g.parameter("hidden.weights", &[30, 64], Initializer::HeUniform);
//! let b1 = g.parameter("hidden.bias", &[64], Initializer::Zeros);
//! let w2 = g.parameter("out.weights", &[64, 2], Initializer::GlorotUniform);
//! let b2 = g.parameter("out.bias", &[2], Initializer::Zeros);
//!
//! let hidden = (x.matmul(w1) + b1).relu().dropout(0.1);
//! let logits = hidden.matmul(w2) + b2;
//! g.entry("infer", &[("probabilities", logits.softmax(1).into())]);
//! g.minimise(logits.cross_entropy(label), None, Optimizer::adam());
//!
//! let graph = g.finish();
//! assert_eq!(graph.entries[0].name, "infer");
//! assert!(graph.loss.is_some());
//! ```

mod windows;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops;

use crate::Failure;
use crate::bindings::imports::sandcast::plugin::compute as wit;
pub use crate::bindings::imports::sandcast::plugin::compute::{
    Adam, Binding, Category, Comparison, Completion, Cosine, Cost, Diagnostic, Dtype, Encoding,
    EpochReport, Extent, Feed, Finish, Generation, Graph, Initializer, Loss, Optimizer, Program,
    Prompt, Reduction, ResultTensor, Sampling, Schedule, Session, Sgd, Snapshot, Stepwise, Tensor,
    TrainPlan, TrainReport, Warmed,
};

pub use windows::{CodeWidth, Convolution, Padding};

/// The sort of number a node holds.
pub trait Number: Copy {
    /// The name of it in the contract.
    const DTYPE: Dtype;
}

/// 32-bit floats.
#[derive(Debug, Clone, Copy)]
pub struct Float;

/// 32-bit whole numbers.
#[derive(Debug, Clone, Copy)]
pub struct Int;

impl Number for Float {
    const DTYPE: Dtype = Dtype::Float32;
}

impl Number for Int {
    const DTYPE: Dtype = Dtype::Int32;
}

/// A graph on its way.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: RefCell<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    symbols: Vec<wit::Symbol>,
    nodes: Vec<wit::Node>,
    entries: Vec<wit::Entry>,
    loss: Option<Loss>,
    optimizer: Option<Optimizer>,
    generation: Option<Generation>,
}

/// A node of a graph: a tensor of `f32` ([`Float`]) or `i32` ([`Int`]).
#[derive(Debug, Clone, Copy)]
pub struct Node<'g, D = Float> {
    builder: &'g GraphBuilder,
    id: u32,
    number: PhantomData<D>,
}

/// How far each position turns the pairs of numbers of a head; see [`GraphBuilder::rotary`].
#[derive(Debug, Clone, Copy)]
pub struct Rotary<'g> {
    cosines: Node<'g>,
    sines: Node<'g>,
    pairs: u32,
}

/// A node of either sort, as an output of an entry.
#[derive(Debug, Clone, Copy)]
pub struct AnyNode(u32);

impl<D> From<Node<'_, D>> for AnyNode {
    fn from(node: Node<'_, D>) -> Self {
        Self(node.id)
    }
}

impl From<u32> for Extent {
    fn from(extent: u32) -> Self {
        Self::Fixed(extent)
    }
}

impl GraphBuilder {
    /// An empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn add<D>(&self, node: wit::Node) -> Node<'_, D> {
        let nodes = &mut self.graph.borrow_mut().nodes;
        nodes.push(node);
        let id = u32::try_from(nodes.len() - 1).unwrap_or(u32::MAX);
        Node {
            builder: self,
            id,
            number: PhantomData,
        }
    }

    /// An extent that is known only when the program runs, such as the rows of a batch.
    pub fn symbol(&self, name: &str, maximum: u32) -> Extent {
        let symbols = &mut self.graph.borrow_mut().symbols;
        symbols.push(wit::Symbol {
            name: name.to_owned(),
            maximum,
        });
        Extent::Symbol(u32::try_from(symbols.len() - 1).unwrap_or(u32::MAX))
    }

    fn input<D: Number>(&self, name: &str, shape: Vec<Extent>) -> Node<'_, D> {
        self.add(wit::Node::Input(wit::Input {
            name: name.to_owned(),
            dtype: D::DTYPE,
            shape,
        }))
    }

    /// An input of floats.
    pub fn input_f32(&self, name: &str, shape: impl Into<Vec<Extent>>) -> Node<'_> {
        self.input(name, shape.into())
    }

    /// An input of whole numbers.
    pub fn input_i32(&self, name: &str, shape: impl Into<Vec<Extent>>) -> Node<'_, Int> {
        self.input(name, shape.into())
    }

    /// A parameter that is trained.
    pub fn parameter(&self, name: &str, shape: &[u32], initializer: Initializer) -> Node<'_> {
        self.named_parameter(name, shape, initializer, true)
    }

    /// A parameter that training leaves alone.
    pub fn frozen_parameter(
        &self,
        name: &str,
        shape: &[u32],
        initializer: Initializer,
    ) -> Node<'_> {
        self.named_parameter(name, shape, initializer, false)
    }

    fn named_parameter(
        &self,
        name: &str,
        shape: &[u32],
        initializer: Initializer,
        trainable: bool,
    ) -> Node<'_> {
        let name = name.to_owned();
        self.add(wit::Node::Parameter(wit::Parameter {
            name,
            shape: shape.to_vec(),
            initializer,
            trainable,
        }))
    }

    /// Floats that are part of the program.
    pub fn constant(&self, shape: &[u32], values: impl Into<Vec<f32>>) -> Node<'_> {
        self.add(wit::Node::F32Constant(wit::F32Literal {
            shape: shape.to_vec(),
            values: values.into(),
        }))
    }

    /// Whole numbers that are part of the program.
    pub fn constant_i32(&self, shape: &[u32], values: impl Into<Vec<i32>>) -> Node<'_, Int> {
        self.add(wit::Node::I32Constant(wit::I32Literal {
            shape: shape.to_vec(),
            values: values.into(),
        }))
    }

    /// One float.
    pub fn scalar(&self, value: f32) -> Node<'_> {
        self.constant(&[], [value])
    }

    /// Joins nodes along an axis. An empty list is refused by the host.
    pub fn concatenate<'g, D>(&'g self, operands: &[Node<'g, D>], axis: u32) -> Node<'g, D> {
        let operands = operands.iter().map(|node| node.id).collect();
        self.add(wit::Node::Concatenate(wit::ConcatenateNode {
            operands,
            axis,
        }))
    }

    /// Something the program can be asked to compute.
    pub fn entry(&self, name: &str, outputs: &[(&str, AnyNode)]) {
        let outputs = outputs
            .iter()
            .map(|(name, node)| wit::Output {
                name: (*name).to_owned(),
                node: node.0,
            })
            .collect();
        self.graph.borrow_mut().entries.push(wit::Entry {
            name: name.to_owned(),
            outputs,
        });
    }

    /// What training minimises: the mean of `per_row` (f32 of shape `[rows]`), weighted by `weight`.
    pub fn minimise(&self, per_row: Node<'_>, weight: Option<Node<'_>>, optimizer: Optimizer) {
        let mut graph = self.graph.borrow_mut();
        graph.loss = Some(Loss {
            per_row: per_row.id,
            weight: weight.map(|node| node.id),
        });
        graph.optimizer = Some(optimizer);
    }

    /// What [`Session::generate`] runs: from tokens (i32 of shape `[rows, time]`, both symbols, the
    /// maximum of the second being the context) and their positions, if they are an input, to the
    /// logits of the next token, of shape `[rows, time, vocabulary]`. A position may depend on
    /// itself and, through causal attention alone, on those before it.
    pub fn generate<'g>(
        &'g self,
        tokens: Node<'g, Int>,
        positions: Option<Node<'g, Int>>,
        logits: Node<'g>,
    ) {
        self.graph.borrow_mut().generation = Some(Generation {
            tokens: tokens.id,
            positions: positions.map(|node| node.id),
            logits: logits.id,
        });
    }

    /// The cosines and sines of a rotary embedding ([`Node::rotate`]): for each position of
    /// `positions` (i32 of shape `[rows, time]`, below `context`) and each pair of the `width`
    /// numbers of a head, of shape `[rows, time, 1, width / 2]`. Pair `i` turns by
    /// `base^(-2i / width)` for each position.
    pub fn rotary<'g>(
        &'g self,
        positions: Node<'g, Int>,
        shape: [Extent; 2],
        context: u32,
        width: u32,
        base: f64,
    ) -> Rotary<'g> {
        let pairs = width / 2;
        let angles = (0..context).flat_map(|position| {
            (0..pairs).map(move |pair| {
                f64::from(position) * base.powf(-2.0 * f64::from(pair) / f64::from(width))
            })
        });
        let angles: Vec<f64> = angles.collect();
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|angle| of(*angle) as f32).collect();
            let [rows, time] = shape;
            self.constant(&[context, pairs], values)
                .gather(positions)
                .reshape([rows, time, 1.into(), pairs.into()])
        };
        Rotary {
            cosines: table(f64::cos),
            sines: table(f64::sin),
            pairs,
        }
    }

    /// The graph.
    #[must_use]
    pub fn finish(self) -> Graph {
        let Parts {
            symbols,
            nodes,
            entries,
            loss,
            optimizer,
            generation,
        } = self.graph.into_inner();
        Graph {
            symbols,
            nodes,
            entries,
            loss,
            optimizer,
            generation,
        }
    }
}

/// Methods that apply one operation to each number.
macro_rules! elementwise {
    ($($(#[$doc:meta])* $name:ident = $operation:ident;)*) => {
        $($(#[$doc])* #[must_use] pub fn $name(self) -> Self { self.unary(wit::UnaryOperation::$operation) })*
    };
}

/// Methods that combine numbers in pairs, broadcasting as NumPy does.
macro_rules! pairwise {
    ($($(#[$doc:meta])* $name:ident = $operation:ident;)*) => {
        $($(#[$doc])* #[must_use] pub fn $name(self, other: Self) -> Self {
            self.binary(wit::BinaryOperation::$operation, other)
        })*
    };
}

/// Methods that compare numbers in pairs: 1 where it holds, else 0.
macro_rules! comparing {
    ($($(#[$doc:meta])* $name:ident = $comparison:ident;)*) => {
        $($(#[$doc])* #[must_use] pub fn $name(self, other: Self) -> Self {
            self.compare(Comparison::$comparison, other)
        })*
    };
}

impl<'g, D: Number> Node<'g, D> {
    /// Its number in the graph.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    fn unary(self, operation: wit::UnaryOperation) -> Self {
        self.builder.add(wit::Node::Unary(wit::UnaryNode {
            operation,
            operand: self.id,
        }))
    }

    fn binary(self, operation: wit::BinaryOperation, other: Self) -> Self {
        self.builder.add(wit::Node::Binary(wit::BinaryNode {
            operation,
            left: self.id,
            right: other.id,
        }))
    }

    fn compare(self, comparison: Comparison, other: Self) -> Self {
        self.builder.add(wit::Node::Compare(wit::CompareNode {
            comparison,
            left: self.id,
            right: other.id,
        }))
    }

    pairwise! {
        /// The larger of the two.
        maximum = Maximum;
        /// The smaller of the two.
        minimum = Minimum;
        /// 1 where both are not 0, else 0.
        logical_and = LogicalAnd;
        /// 1 where one is not 0, else 0.
        logical_or = LogicalOr;
    }

    comparing! {
        /// 1 where equal, else 0.
        equal = Equal;
        /// 1 where not equal, else 0.
        not_equal = NotEqual;
        /// 1 where less, else 0.
        less = Less;
        /// 1 where less or equal, else 0.
        less_or_equal = LessOrEqual;
        /// 1 where greater, else 0.
        greater = Greater;
        /// 1 where greater or equal, else 0.
        greater_or_equal = GreaterOrEqual;
    }

    /// Where this is not 0, `on_true`, else `on_false`.
    #[must_use]
    pub fn select<E>(self, on_true: Node<'g, E>, on_false: Node<'g, E>) -> Node<'g, E> {
        let node = wit::SelectNode {
            condition: self.id,
            on_true: on_true.id,
            on_false: on_false.id,
        };
        self.builder.add(wit::Node::Select(node))
    }

    /// The same numbers in another shape.
    #[must_use]
    pub fn reshape(self, shape: impl Into<Vec<Extent>>) -> Self {
        self.builder.add(wit::Node::Reshape(wit::ReshapeNode {
            operand: self.id,
            shape: shape.into(),
        }))
    }

    /// Axes in another order.
    #[must_use]
    pub fn transpose(self, permutation: &[u32]) -> Self {
        let permutation = permutation.to_vec();
        self.builder.add(wit::Node::Transpose(wit::TransposeNode {
            operand: self.id,
            permutation,
        }))
    }

    /// Repeated to a larger shape.
    #[must_use]
    pub fn broadcast(self, shape: impl Into<Vec<Extent>>) -> Self {
        self.builder.add(wit::Node::Broadcast(wit::BroadcastNode {
            operand: self.id,
            shape: shape.into(),
        }))
    }

    /// The part from `start` to before `limit` along an axis.
    #[must_use]
    pub fn slice(self, axis: u32, start: u32, limit: u32) -> Self {
        self.builder.add(wit::Node::Slice(wit::SliceNode {
            operand: self.id,
            axis,
            start,
            limit,
        }))
    }

    /// Folds axes away, or keeps them with extent 1.
    #[must_use]
    pub fn reduce(self, reduction: Reduction, axes: &[u32], keep: bool) -> Self {
        let axes = axes.to_vec();
        self.builder.add(wit::Node::Reduce(wit::ReduceNode {
            reduction,
            operand: self.id,
            axes,
            keep,
        }))
    }

    /// The place of the largest along an axis, the first of equals.
    #[must_use]
    pub fn argmax(self, axis: u32) -> Node<'g, Int> {
        self.builder.add(wit::Node::Argmax(wit::ArgmaxNode {
            operand: self.id,
            axis,
        }))
    }

    /// As the other sort of number.
    #[must_use]
    pub fn cast<E: Number>(self) -> Node<'g, E> {
        self.builder.add(wit::Node::Cast(wit::CastNode {
            operand: self.id,
            dtype: E::DTYPE,
        }))
    }
}

impl<'g> Node<'g, Float> {
    elementwise! {
        /// Without its sign.
        absolute = Absolute;
        /// e to the power of it.
        exponential = Exponential;
        /// The natural logarithm.
        logarithm = Logarithm;
        /// The square root.
        square_root = SquareRoot;
        /// Times itself.
        square = Square;
        /// 1 over it.
        reciprocal = Reciprocal;
        /// The hyperbolic tangent.
        tanh = Tanh;
        /// `1 / (1 + exp(-x))`.
        logistic = Logistic;
        /// The larger of it and 0.
        relu = Relu;
        /// Hendrycks and Gimpel 2016.
        gelu = Gelu;
        /// `x * logistic(x)`.
        silu = Silu;
        /// `log(1 + exp(x))`.
        softplus = Softplus;
        /// Down to a whole number.
        floor = Floor;
        /// -1, 0 or 1.
        sign = Sign;
        /// 1 where it is not a number, else 0.
        is_nan = IsNan;
        /// 1 where it is 0, else 0.
        logical_not = LogicalNot;
        /// The sine of an angle in radians.
        sine = Sine;
        /// The cosine of an angle in radians.
        cosine = Cosine;
        /// The tangent of an angle in radians.
        tangent = Tangent;
        /// To the nearest whole number, of two the even one.
        round = Round;
        /// Up to a whole number.
        ceiling = Ceiling;
        /// The error function.
        error_function = ErrorFunction;
        /// `exp(x) - 1`, exact also where it is small.
        exponential_minus_one = ExponentialMinusOne;
        /// `log(1 + x)`, exact also where it is small.
        log_plus_one = LogPlusOne;
        /// The cube root.
        cube_root = CubeRoot;
        /// 1 over the square root.
        reciprocal_square_root = ReciprocalSquareRoot;
        /// 1 where it is neither infinite nor not a number, else 0.
        is_finite = IsFinite;
    }

    pairwise! {
        /// To a power.
        power = Power;
    }

    /// Cut to a range.
    #[must_use]
    pub fn clamp(self, minimum: f32, maximum: f32) -> Self {
        self.builder.add(wit::Node::Clamp(wit::ClampNode {
            operand: self.id,
            minimum,
            maximum,
        }))
    }

    /// The last two extents are the matrices.
    #[must_use]
    pub fn matmul(self, right: Self) -> Self {
        self.builder.add(wit::Node::Matmul(wit::MatmulNode {
            left: self.id,
            right: right.id,
        }))
    }

    /// Exponentials along an axis, scaled to a sum of 1.
    #[must_use]
    pub fn softmax(self, axis: u32) -> Self {
        self.builder.add(wit::Node::Softmax(wit::SoftmaxNode {
            operand: self.id,
            axis,
            logarithm: false,
        }))
    }

    /// The logarithm of [`Node::softmax`].
    #[must_use]
    pub fn log_softmax(self, axis: u32) -> Self {
        self.builder.add(wit::Node::Softmax(wit::SoftmaxNode {
            operand: self.id,
            axis,
            logarithm: true,
        }))
    }

    /// Rows of this table by number: an embedding.
    #[must_use]
    pub fn gather(self, indices: Node<'g, Int>) -> Self {
        self.builder.add(wit::Node::Gather(wit::GatherNode {
            table: self.id,
            indices: indices.id,
        }))
    }

    /// Zeroes a share of the numbers while training and scales up the rest.
    #[must_use]
    pub fn dropout(self, rate: f32) -> Self {
        self.builder.add(wit::Node::Dropout(wit::DropoutNode {
            operand: self.id,
            rate,
        }))
    }

    /// Ba et al. 2016, over the last axis.
    #[must_use]
    pub fn layer_norm(self, scale: Self, offset: Self, epsilon: f32) -> Self {
        let node = wit::LayerNormNode {
            operand: self.id,
            scale: scale.id,
            offset: offset.id,
            epsilon,
        };
        self.builder.add(wit::Node::LayerNorm(node))
    }

    /// Zhang and Sennrich 2019, over the last axis.
    #[must_use]
    pub fn rms_norm(self, scale: Self, epsilon: f32) -> Self {
        self.builder.add(wit::Node::RmsNorm(wit::RmsNormNode {
            operand: self.id,
            scale: scale.id,
            epsilon,
        }))
    }

    /// Scaled dot-product attention (Vaswani et al. 2017) of this query, of shape
    /// `[batch, time, heads, width]`, in which a position sees only itself and those before it. Key
    /// and value have the shape `[batch, time, key heads, width]`, and the heads here are a
    /// multiple of theirs.
    #[must_use]
    pub fn causal_attention(self, key: Self, value: Self) -> Self {
        self.attend(key, value, None, true)
    }

    /// Scaled dot-product attention of this query, of shape `[batch, time, heads, width]`, to all
    /// places of key and value, of shape `[batch, places, key heads, width]`. The mask is added to
    /// the scores and broadcasts to `[batch, heads, time, places]`.
    #[must_use]
    pub fn attention(self, key: Self, value: Self, mask: Option<Self>) -> Self {
        self.attend(key, value, mask, false)
    }

    fn attend(self, key: Self, value: Self, mask: Option<Self>, causal: bool) -> Self {
        self.builder.add(wit::Node::Attention(wit::AttentionNode {
            query: self.id,
            key: key.id,
            value: value.id,
            mask: mask.map(|node| node.id),
            causal,
            scale: None,
        }))
    }

    /// A rotary embedding (Su et al. 2021) of queries or keys of shape `[rows, time, heads, width]`:
    /// number `i` of the first half of a head and number `i` of the second are turned together by
    /// the angle of the position.
    #[must_use]
    pub fn rotate(self, rotary: Rotary<'g>) -> Self {
        let pairs = rotary.pairs;
        let (first, second) = (self.slice(3, 0, pairs), self.slice(3, pairs, 2 * pairs));
        let turned = [
            first * rotary.cosines - second * rotary.sines,
            second * rotary.cosines + first * rotary.sines,
        ];
        self.builder.concatenate(&turned, 3)
    }

    /// For each row of these logits, minus the log-probability of the label.
    #[must_use]
    pub fn cross_entropy(self, labels: Node<'g, Int>) -> Self {
        self.builder
            .add(wit::Node::CrossEntropy(wit::CrossEntropyNode {
                logits: self.id,
                labels: labels.id,
            }))
    }

    /// Elementwise, from these logits, with targets between 0 and 1.
    #[must_use]
    pub fn binary_cross_entropy(self, targets: Self) -> Self {
        let node = wit::BinaryCrossEntropyNode {
            logits: self.id,
            targets: targets.id,
        };
        self.builder.add(wit::Node::BinaryCrossEntropy(node))
    }

    /// The square of the difference.
    #[must_use]
    pub fn squared_error(self, targets: Self) -> Self {
        let node = wit::SquaredErrorNode {
            predictions: self.id,
            targets: targets.id,
        };
        self.builder.add(wit::Node::SquaredError(node))
    }

    /// Huber 1964: a square near 0, a line beyond `delta`.
    #[must_use]
    pub fn huber(self, targets: Self, delta: f32) -> Self {
        let node = wit::HuberNode {
            predictions: self.id,
            targets: targets.id,
            delta,
        };
        self.builder.add(wit::Node::Huber(node))
    }
}

impl<'g> Node<'g, Int> {
    /// A 1 at the place of the number among `depth` zeros, as floats.
    #[must_use]
    pub fn one_hot(self, depth: u32) -> Node<'g> {
        self.builder.add(wit::Node::OneHot(wit::OneHotNode {
            indices: self.id,
            depth,
        }))
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $operation:ident) => {
        impl<'g, D: Number> ops::$trait for Node<'g, D> {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                self.binary(wit::BinaryOperation::$operation, other)
            }
        }

        impl<'g> ops::$trait<f32> for Node<'g, Float> {
            type Output = Self;
            fn $method(self, other: f32) -> Self {
                self.binary(wit::BinaryOperation::$operation, self.builder.scalar(other))
            }
        }
    };
}

operator!(Add, add, Add);
operator!(Sub, sub, Subtract);
operator!(Mul, mul, Multiply);
operator!(Div, div, Divide);

impl<D: Number> ops::Neg for Node<'_, D> {
    type Output = Self;
    fn neg(self) -> Self {
        self.unary(wit::UnaryOperation::Negate)
    }
}

impl Optimizer {
    /// Adam as Kingma and Ba (2015) set it: beta1 0.9, beta2 0.999, epsilon 1e-8.
    #[must_use]
    pub fn adam() -> Self {
        Self::Adam(Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            decoupled: false,
        })
    }

    /// AdamW (Loshchilov and Hutter 2019) with this weight decay.
    #[must_use]
    pub fn adam_w(weight_decay: f32) -> Self {
        Self::Adam(Adam {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay,
            decoupled: true,
        })
    }

    /// Stochastic gradient descent with this momentum.
    #[must_use]
    pub fn sgd(momentum: f32) -> Self {
        Self::Sgd(Sgd {
            momentum,
            weight_decay: 0.0,
        })
    }
}

/// Fills an input of the program from columns.
#[must_use]
pub fn bind(input: &str, encoding: Encoding) -> Binding {
    Binding {
        input: input.to_owned(),
        encoding,
    }
}

/// Feeds an input of the program.
#[must_use]
pub fn feed(input: &str, value: Tensor) -> Feed {
    Feed {
        input: input.to_owned(),
        value,
    }
}

impl From<Diagnostic> for Failure {
    fn from(diagnostic: Diagnostic) -> Self {
        let place = diagnostic
            .node
            .map(|node| format!("node {node}: "))
            .unwrap_or_default();
        Self::new(
            diagnostic.code,
            format!("the graph was refused: {place}{}", diagnostic.message),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureCode;

    #[test]
    fn nodes_refer_to_nodes_before_them() {
        let g = GraphBuilder::new();
        let rows = g.symbol("rows", 10);
        let x = g.input_f32("x", [rows, 3.into()]);
        let scaled = x * 2.0 - x;
        let chosen = scaled.is_nan().select(g.scalar(0.0), scaled);
        g.entry(
            "e",
            &[("out", chosen.into()), ("place", chosen.argmax(1).into())],
        );
        let graph = g.finish();
        assert_eq!(graph.nodes.len(), 8);
        assert!(matches!(graph.nodes[1], wit::Node::F32Constant(_)));
        assert!(matches!(
            graph.nodes[3],
            wit::Node::Binary(wit::BinaryNode {
                operation: wit::BinaryOperation::Subtract,
                left: 2,
                right: 0
            })
        ));
        assert!(matches!(
            graph.nodes[6],
            wit::Node::Select(wit::SelectNode {
                condition: 4,
                on_true: 5,
                on_false: 3
            })
        ));
        assert_eq!(graph.entries[0].outputs.len(), 2);
    }

    #[test]
    fn a_decoder_is_declared_with_rotary_positions() {
        let g = GraphBuilder::new();
        let (rows, time) = (g.symbol("rows", 4), g.symbol("time", 16));
        let tokens = g.input_i32("tokens", [rows, time]);
        let positions = g.input_i32("positions", [rows, time]);
        let table = g.parameter("table", &[10, 8], Initializer::Normal(0.1));
        let x = table
            .gather(tokens)
            .rms_norm(g.parameter("norm", &[8], Initializer::Ones), 1e-5);
        let heads = x.reshape([rows, time, 2.into(), 4.into()]);
        let rotary = g.rotary(positions, [rows, time], 16, 4, 10_000.0);
        let turned = heads.rotate(rotary);
        let seen = turned
            .causal_attention(turned, heads)
            .reshape([rows, time, 8.into()]);
        let logits = seen.matmul(table.transpose(&[1, 0]));
        g.generate(tokens, Some(positions), logits);
        let graph = g.finish();
        assert_eq!(
            graph
                .generation
                .map(|it| (it.tokens, it.positions, it.logits)),
            Some((0, Some(1), logits_of(&graph)))
        );
        let cosines = graph.nodes.iter().find_map(|node| match node {
            wit::Node::F32Constant(literal) => Some(literal),
            _ => None,
        });
        let cosines = cosines.expect("a table");
        assert_eq!(cosines.shape, [16, 2]);
        assert_eq!(
            cosines.values[..4],
            [1.0, 1.0, 1.0_f32.cos(), 0.01_f32.cos()]
        );
    }

    fn logits_of(graph: &Graph) -> u32 {
        graph.nodes.len() as u32 - 1
    }

    #[test]
    fn a_refused_graph_names_the_node() {
        let failure = Failure::from(Diagnostic {
            code: FailureCode::InvalidInput,
            node: Some(3),
            message: "shapes differ".into(),
        });
        assert_eq!(failure.code, FailureCode::InvalidInput);
        assert_eq!(
            failure.message,
            "the graph was refused: node 3: shapes differ"
        );
    }
}
