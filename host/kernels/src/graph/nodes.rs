//! What each node does and what it refers to.

use serde::{Deserialize, Serialize};

use super::{DType, NodeId, Shape, number};

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
    /// The sine of an angle in radians.
    Sine,
    /// The cosine of an angle in radians.
    Cosine,
    /// The tangent of an angle in radians.
    Tangent,
    /// The nearest whole number, of two the even one; its derivative is 0.
    Round,
    /// The smallest whole number that is not below x; its derivative is 0.
    Ceiling,
    /// The error function, 2 / sqrt(pi) times the integral of exp(-t²) from 0 to x.
    ErrorFunction,
    /// exp(x) - 1, exact also where x is small.
    ExponentialMinusOne,
    /// log(1 + x), exact also where x is small.
    LogPlusOne,
    /// The cube root, of either sign.
    CubeRoot,
    /// 1 / sqrt(x).
    ReciprocalSquareRoot,
    /// 1 where the operand is neither infinite nor not a number, else 0.
    IsFinite,
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

/// x / sqrt(mean(x²) + epsilon) * scale over the last axis (Zhang and Sennrich 2019).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RmsNormNode {
    /// Of what.
    pub operand: NodeId,
    /// Shape [last extent of the operand].
    pub scale: NodeId,
    /// Above 0.
    #[serde(with = "number")]
    pub epsilon: f32,
}

/// Scaled dot-product attention (Vaswani et al. 2017): softmax(query keyᵀ scale + mask) value,
/// for each head by itself. With fewer heads in key and value than in query, each of theirs
/// serves a group of neighbouring heads of the query (Ainslie et al. 2023).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AttentionNode {
    /// Shape [batch, time, heads, width].
    pub query: NodeId,
    /// Shape [batch, places, key heads, width]; the heads of the query are a multiple.
    pub key: NodeId,
    /// The shape of the key.
    pub value: NodeId,
    /// Added to the scores, float32, of a shape that broadcasts to
    /// [batch, heads, time, places]; no gradient flows through it.
    pub mask: Option<NodeId>,
    /// Whether a position sees only itself and those before it. Then time and places are the
    /// same extent and there is no mask.
    pub causal: bool,
    /// What scores are multiplied by, finite; 1 / sqrt(width) if not given.
    pub scale: Option<f32>,
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

/// The operand with a number before and after it along an axis whose extent is fixed, as in
/// StableHLO without interior padding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PadNode {
    /// What is made longer.
    pub operand: NodeId,
    /// Along which axis.
    pub axis: u32,
    /// Elements before the first.
    pub before: u32,
    /// Elements behind the last.
    pub after: u32,
    /// What they are; of an int32 operand a whole number of at most 2^24.
    #[serde(with = "number")]
    pub value: f32,
}

/// The sum of the elements up to each along an axis, float32, as in ONNX.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CumulativeSumNode {
    /// Of what.
    pub operand: NodeId,
    /// Along which axis.
    pub axis: u32,
    /// Whether an element is left out of its own sum.
    pub exclusive: bool,
    /// Whether sums run from the end.
    pub reverse: bool,
}

/// The places (int32) of the largest elements along an axis, the largest first; equal ones in the
/// order of their places, and not a number counts as largest. [`TakeAlongNode`] gives the
/// elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TopKNode {
    /// Of what, float32.
    pub operand: NodeId,
    /// Along which axis; its extent is fixed.
    pub axis: u32,
    /// How many, at most the extent of the axis; the extent of the result there.
    pub count: u32,
}

/// Elements along an axis by their places, as ONNX's GatherElements: where the index at a
/// position is i, the element at the same position but for i along the axis. A number outside
/// the axis fails the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TakeAlongNode {
    /// From what; the extent of the axis is fixed.
    pub operand: NodeId,
    /// int32, of the operand's shape but for the axis.
    pub indices: NodeId,
    /// Along which axis.
    pub axis: u32,
}

/// Rows of zeros, to each of which the updates of its number are added, in order. A number
/// outside them fails the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ScatterAddNode {
    /// int32, any shape.
    pub indices: NodeId,
    /// float32, the shape of the indices followed by that of a row.
    pub updates: NodeId,
    /// How many rows the result has.
    pub size: u32,
}

/// Elements put before and after an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Padding {
    /// Before the first.
    pub before: u32,
    /// Behind the last.
    pub after: u32,
}

/// Cross-correlation over one or two axes, as convolutions of networks are (StableHLO, ONNX),
/// with channels last. Transposed, it is the gradient of that by its operand, and each extent
/// becomes (extent - 1) stride + dilation (window - 1) + 1 - before - after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConvolutionNode {
    /// Shape [batch, extents..., channels]; one or two extents, fixed.
    pub operand: NodeId,
    /// Shape [window extents..., channels / groups, features].
    pub kernel: NodeId,
    /// How far apart windows are, for each extent; at least 1.
    pub strides: Vec<u32>,
    /// Zeros around the operand; of a transposed one, what is cut from the result.
    pub padding: Vec<Padding>,
    /// How far apart the elements of a window are, for each extent; at least 1.
    pub dilation: Vec<u32>,
    /// Into how many groups channels and features fall; each sees only its own.
    pub groups: u32,
    /// Whether it is transposed.
    pub transposed: bool,
}

/// A reduction over windows of one or two axes, with channels last. What lies outside the operand
/// takes no part, also not in the count of a mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PoolNode {
    /// What is done.
    pub reduction: Reduction,
    /// Shape [batch, extents..., channels]; one or two extents, fixed.
    pub operand: NodeId,
    /// The extents of a window, each at least 1.
    pub window: Vec<u32>,
    /// How far apart windows are; at least 1.
    pub strides: Vec<u32>,
    /// How far windows may reach beyond the operand, on each side by less than a window.
    pub padding: Vec<Padding>,
}

/// What a batch norm divides and subtracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Statistics {
    /// Shape `[channels]`.
    pub mean: NodeId,
    /// Shape `[channels]`.
    pub variance: NodeId,
}

/// (x - mean) / sqrt(variance + epsilon) * scale + offset for each channel (Ioffe and Szegedy
/// 2015).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BatchNormNode {
    /// Shape [..., channels].
    pub operand: NodeId,
    /// Shape `[channels]`.
    pub scale: NodeId,
    /// Shape `[channels]`.
    pub offset: NodeId,
    /// Mean and variance, as inference has them; if not given, those of the operand over every
    /// axis but the last, so that rows mix. The variance is that of the population.
    pub statistics: Option<Statistics>,
    /// Above 0.
    #[serde(with = "number")]
    pub epsilon: f32,
}

/// (x - mean) / sqrt(variance + epsilon) * scale + offset, mean and variance over each group of
/// neighbouring channels of each element of the batch (Wu and He 2018). As many groups as
/// channels make it an instance norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct GroupNormNode {
    /// Shape [batch, extents..., channels]; all but the batch fixed.
    pub operand: NodeId,
    /// Shape `[channels]`.
    pub scale: NodeId,
    /// Shape `[channels]`.
    pub offset: NodeId,
    /// How many groups; the channels are a multiple.
    pub groups: u32,
    /// Above 0.
    #[serde(with = "number")]
    pub epsilon: f32,
}

/// How wide a number is that was quantised, two's complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodeWidth {
    /// -128..=127, four in an int32.
    Int8,
    /// -8..=7, eight in an int32.
    Int4,
}

impl CodeWidth {
    /// Its bits.
    pub fn bits(self) -> u32 {
        match self {
            CodeWidth::Int8 => 8,
            CodeWidth::Int4 => 4,
        }
    }

    /// How many an int32 holds.
    pub fn in_a_word(self) -> u32 {
        32 / self.bits()
    }
}

/// (code - zero) * scale, of codes packed into int32, the first in the lowest bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DequantiseNode {
    /// int32, shape [..., words].
    pub codes: NodeId,
    /// How wide a code is.
    pub width: CodeWidth,
    /// The last extent of the result; what the last word holds beyond it is left out.
    pub extent: u32,
    /// float32, of a shape that broadcasts to the result.
    pub scale: NodeId,
    /// float32, of a shape that broadcasts to the result; 0 if not given.
    pub zero: Option<NodeId>,
}
