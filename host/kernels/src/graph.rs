//! The graph a program is made of: the `compute` interface of the contract, one type per type.
//!
//! A graph is a flat list of nodes in static single assignment form; a node refers to earlier
//! nodes by their index. Everything here is plain data and says nothing about how it runs.
//! Semantics follow StableHLO and ONNX where they define them; what they leave open is said at
//! the type.

use serde::{Deserialize, Serialize};

mod number;

/// The index of an earlier node.
pub type NodeId = u32;

/// A shape whose extents may be known only when the program runs.
pub type Shape = Vec<Extent>;

/// What a program computes: nodes, entries, and what training minimises.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Graph {
    /// The extents that are known only when the program runs.
    pub symbols: Vec<Symbol>,
    /// The nodes, each after the nodes it refers to.
    pub nodes: Vec<Node>,
    /// What the program can be asked to compute.
    pub entries: Vec<Entry>,
    /// What training minimises; without it the program cannot be trained.
    pub loss: Option<Loss>,
    /// How training updates parameters; without it the program cannot be trained.
    pub optimizer: Option<Optimizer>,
}

/// The type of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DType {
    /// IEEE 754 binary32.
    Float32,
    /// Two's complement, 32 bits; arithmetic wraps.
    Int32,
}

impl DType {
    /// The name that messages use.
    pub fn name(self) -> &'static str {
        match self {
            DType::Float32 => "float32",
            DType::Int32 => "int32",
        }
    }
}

/// One extent of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// A number of elements.
    Fixed(u32),
    /// An index into the symbols of the graph.
    Symbol(u32),
}

/// An extent that is known only when the program runs, such as the rows of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Symbol {
    /// The name that messages use.
    pub name: String,
    /// The largest value that one piece of work may have.
    pub maximum: u32,
}

/// A tensor given at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Input {
    /// The name under which it is fed.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape.
    pub shape: Shape,
}

/// What a parameter holds before training. Draws are a function of the seed, the node and the
/// position.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Initializer {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Uniform in (-bound, bound).
    Uniform(#[serde(with = "number")] f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(#[serde(with = "number")] f32),
    /// Glorot and Bengio 2010, uniform; fan-in is the first extent, fan-out the last.
    GlorotUniform,
    /// He et al. 2015, uniform with gain sqrt(2); fan-in is the first extent.
    HeUniform,
}

/// A tensor of float32 that the session holds and training may change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Parameter {
    /// The name under which it is stored.
    pub name: String,
    /// Its shape; never symbolic.
    pub shape: Vec<u32>,
    /// What it holds before training.
    pub initializer: Initializer,
    /// False for one that training leaves alone.
    pub trainable: bool,
}

/// Float32 numbers written into the graph, row-major.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct F32Literal {
    /// The shape; empty for one number.
    pub shape: Vec<u32>,
    /// As many values as the shape has elements.
    #[serde(with = "number::list")]
    pub values: Vec<f32>,
}

/// Int32 numbers written into the graph, row-major.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct I32Literal {
    /// The shape; empty for one number.
    pub shape: Vec<u32>,
    /// As many values as the shape has elements.
    pub values: Vec<i32>,
}

/// An operation on one element. Int32 operands are taken by negate, absolute, square, relu,
/// sign and logical-not only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnaryOperation {
    /// -x.
    Negate,
    /// |x|; its derivative at 0 is 0.
    Absolute,
    /// e to the x.
    Exponential,
    /// The natural logarithm.
    Logarithm,
    /// The square root.
    SquareRoot,
    /// x times x.
    Square,
    /// 1 / x.
    Reciprocal,
    /// The hyperbolic tangent.
    Tanh,
    /// 1 / (1 + exp(-x)).
    Logistic,
    /// max(x, 0); its derivative at 0 is 0.
    Relu,
    /// x times the normal distribution function of x: the exact form, by erf.
    Gelu,
    /// x times logistic(x).
    Silu,
    /// log(1 + exp(x)).
    Softplus,
    /// The largest whole number that is not above x; its derivative is 0.
    Floor,
    /// -1, 0 or 1; its derivative is 0.
    Sign,
    /// 1 where the operand is not a number, else 0.
    IsNan,
    /// 1 where the operand is 0, else 0.
    LogicalNot,
}

/// An operation on two elements. Both operands have the same dtype, and so has the result.
/// Divide of int32 truncates; by 0 it gives -1, as in StableHLO. Power takes float32 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BinaryOperation {
    /// Left plus right.
    Add,
    /// Left minus right.
    Subtract,
    /// Left times right.
    Multiply,
    /// Left divided by right.
    Divide,
    /// The larger; not a number if either is. Equal operands share the gradient in halves.
    Maximum,
    /// The smaller; not a number if either is. Equal operands share the gradient in halves.
    Minimum,
    /// Left to the power of right.
    Power,
    /// 1 where both are not 0, else 0.
    LogicalAnd,
    /// 1 where one of both is not 0, else 0.
    LogicalOr,
}

/// A comparison of two elements of the same dtype; the result is float32, 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// Left = right.
    Equal,
    /// Left != right.
    NotEqual,
    /// Left < right.
    Less,
    /// Left <= right.
    LessOrEqual,
    /// Left > right.
    Greater,
    /// Left >= right.
    GreaterOrEqual,
}

/// How elements along axes become one. Over no elements: 0, not a number, -infinity and
/// +infinity. Operands are float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The sum divided by the number of elements.
    Mean,
    /// The largest; equal ones share the gradient.
    Maximum,
    /// The smallest; equal ones share the gradient.
    Minimum,
}

/// See [`UnaryOperation`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct UnaryNode {
    /// What is done.
    pub operation: UnaryOperation,
    /// To what.
    pub operand: NodeId,
}

/// See [`BinaryOperation`]. Operands broadcast as in NumPy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BinaryNode {
    /// What is done.
    pub operation: BinaryOperation,
    /// The left operand.
    pub left: NodeId,
    /// The right operand.
    pub right: NodeId,
}

/// See [`Comparison`]. Operands broadcast as in NumPy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CompareNode {
    /// What is asked.
    pub comparison: Comparison,
    /// The left operand.
    pub left: NodeId,
    /// The right operand.
    pub right: NodeId,
}

/// Where the condition is not 0, `on_true`, else `on_false`. All three broadcast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SelectNode {
    /// Of any dtype.
    pub condition: NodeId,
    /// Taken where the condition is not 0.
    pub on_true: NodeId,
    /// Taken where the condition is 0; of the dtype of `on_true`.
    pub on_false: NodeId,
}

/// To int32 truncates towards 0 and saturates; not a number becomes 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CastNode {
    /// What is converted.
    pub operand: NodeId,
    /// To what.
    pub dtype: DType,
}

/// min(max(x, minimum), maximum), on float32; not a number stays so. The gradient passes where
/// minimum <= x <= maximum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ClampNode {
    /// What is bounded.
    pub operand: NodeId,
    /// The lower bound, not above `maximum`.
    #[serde(with = "number")]
    pub minimum: f32,
    /// The upper bound.
    #[serde(with = "number")]
    pub maximum: f32,
}

/// The same elements in row-major order under another shape. Symbols must stay as they are:
/// both shapes have the same symbols, and the same product of fixed extents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReshapeNode {
    /// What gets another shape.
    pub operand: NodeId,
    /// That shape.
    pub shape: Shape,
}

/// Extent `i` of the result is extent `permutation[i]` of the operand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TransposeNode {
    /// What is transposed.
    pub operand: NodeId,
    /// Every axis of the operand, once.
    pub permutation: Vec<u32>,
}

/// Repeats an operand to a shape, as NumPy's `broadcast_to` does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BroadcastNode {
    /// What is repeated.
    pub operand: NodeId,
    /// The shape of the result.
    pub shape: Shape,
}

/// The elements `start..limit` along an axis whose extent is fixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SliceNode {
    /// What is cut.
    pub operand: NodeId,
    /// Along which axis.
    pub axis: u32,
    /// The first element taken.
    pub start: u32,
    /// One past the last element taken.
    pub limit: u32,
}

/// Operands one after the other along an axis whose extents are fixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConcatenateNode {
    /// At least one; equal in dtype and in every extent but that of `axis`.
    pub operands: Vec<NodeId>,
    /// Along which axis.
    pub axis: u32,
}

/// See [`Reduction`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReduceNode {
    /// What is done.
    pub reduction: Reduction,
    /// To what.
    pub operand: NodeId,
    /// Over which axes, each once; none leaves the operand as it is.
    pub axes: Vec<u32>,
    /// Whether the axes stay, with extent 1.
    pub keep: bool,
}

/// The place (int32) of the first largest element along an axis; not a number counts as
/// largest. The axis goes away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ArgmaxNode {
    /// Of what, float32.
    pub operand: NodeId,
    /// Along which axis.
    pub axis: u32,
}

/// exp(x) / sum(exp(x)) along an axis, or its logarithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SoftmaxNode {
    /// Of what.
    pub operand: NodeId,
    /// Along which axis.
    pub axis: u32,
    /// Whether the logarithm is wanted.
    pub logarithm: bool,
}

/// The last two extents are the matrices; extents before them are equal on both sides, or the
/// right side has none and its one matrix serves them all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MatmulNode {
    /// Shape [..., m, k].
    pub left: NodeId,
    /// Shape [..., k, n].
    pub right: NodeId,
}

/// Rows of a table by number. A number outside it fails the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GatherNode {
    /// float32, shape [size, ...].
    pub table: NodeId,
    /// int32, any shape; the result has this shape followed by the rest of the table's.
    pub indices: NodeId,
}

/// 1 at the place of the number, else 0, along a new last axis; a number outside 0..depth gives
/// zeros only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OneHotNode {
    /// int32, any shape.
    pub indices: NodeId,
    /// The extent of the new axis.
    pub depth: u32,
}

/// Zeroes elements with this probability and scales the rest by 1 / (1 - rate). Off in every
/// entry but the loss, and in the validation loss. Draws are a function of seed, step, node and
/// position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DropoutNode {
    /// Of what.
    pub operand: NodeId,
    /// In 0..1.
    #[serde(with = "number")]
    pub rate: f32,
}

/// (x - mean) / sqrt(variance + epsilon) * scale + offset over the last axis
/// (Ba, Kiros and Hinton 2016; the variance is that of the population).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LayerNormNode {
    /// Of what.
    pub operand: NodeId,
    /// Shape [last extent of the operand].
    pub scale: NodeId,
    /// Shape [last extent of the operand].
    pub offset: NodeId,
    /// Above 0.
    #[serde(with = "number")]
    pub epsilon: f32,
}

/// For each row, minus the log-probability of the label. A label outside the classes fails the
/// run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CrossEntropyNode {
    /// Shape [..., classes].
    pub logits: NodeId,
    /// int32, shape [...].
    pub labels: NodeId,
}

/// Elementwise, from logits, with targets between 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BinaryCrossEntropyNode {
    /// Any shape.
    pub logits: NodeId,
    /// The same shape.
    pub targets: NodeId,
}

/// (prediction - target) squared, elementwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SquaredErrorNode {
    /// Any shape.
    pub predictions: NodeId,
    /// The same shape.
    pub targets: NodeId,
}

/// Huber 1964, elementwise: d²/2 where |d| <= delta, else delta (|d| - delta/2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct HuberNode {
    /// Any shape.
    pub predictions: NodeId,
    /// The same shape.
    pub targets: NodeId,
    /// Above 0.
    #[serde(with = "number")]
    pub delta: f32,
}

/// One node. It refers only to nodes before it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "each variant is documented at the type it holds"
)]
pub enum Node {
    Input(Input),
    Parameter(Parameter),
    F32Constant(F32Literal),
    I32Constant(I32Literal),
    Unary(UnaryNode),
    Binary(BinaryNode),
    Compare(CompareNode),
    Select(SelectNode),
    Cast(CastNode),
    Clamp(ClampNode),
    Reshape(ReshapeNode),
    Transpose(TransposeNode),
    Broadcast(BroadcastNode),
    Slice(SliceNode),
    Concatenate(ConcatenateNode),
    Reduce(ReduceNode),
    Argmax(ArgmaxNode),
    Softmax(SoftmaxNode),
    Matmul(MatmulNode),
    Gather(GatherNode),
    OneHot(OneHotNode),
    Dropout(DropoutNode),
    LayerNorm(LayerNormNode),
    CrossEntropy(CrossEntropyNode),
    BinaryCrossEntropy(BinaryCrossEntropyNode),
    SquaredError(SquaredErrorNode),
    Huber(HuberNode),
}

/// A named result of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Output {
    /// The name under which it is returned.
    pub name: String,
    /// What is returned.
    pub node: NodeId,
}

/// Something the program can be asked to compute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry {
    /// The name by which it is asked for.
    pub name: String,
    /// At least one.
    pub outputs: Vec<Output>,
}

/// What training minimises: the mean of `per_row`, weighted by `weight`
/// (sum of weight times loss over sum of weight).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Loss {
    /// A float32 node of shape [rows].
    pub per_row: NodeId,
    /// A float32 node of shape [rows], not negative. It counts as given: no gradient flows
    /// through it.
    pub weight: Option<NodeId>,
}

/// Stochastic gradient descent: v = momentum v + (g + weight_decay w); w = w - rate v.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sgd {
    /// In 0..1.
    #[serde(with = "number")]
    pub momentum: f32,
    /// Not negative.
    #[serde(with = "number")]
    pub weight_decay: f32,
}

/// Kingma and Ba 2015; with `decoupled`, Loshchilov and Hutter 2019 (AdamW).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Adam {
    /// In 0..1.
    #[serde(with = "number")]
    pub beta1: f32,
    /// In 0..1.
    #[serde(with = "number")]
    pub beta2: f32,
    /// Above 0.
    #[serde(with = "number")]
    pub epsilon: f32,
    /// Not negative.
    #[serde(with = "number")]
    pub weight_decay: f32,
    /// Whether the weights decay apart from the gradient.
    pub decoupled: bool,
}

/// How training updates parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
    /// Adam or AdamW.
    Adam(Adam),
}
