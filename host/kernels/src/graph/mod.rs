//! The graph a program is made of: the `compute` interface of the contract, one type per type.
//!
//! A graph is a flat list of nodes in static single assignment form; a node refers to earlier
//! nodes by their index. Everything here is plain data and says nothing about how it runs.
//! Semantics follow StableHLO and ONNX where they define them; what they leave open is said at
//! the type.

use serde::{Deserialize, Serialize};

mod nodes;
mod number;
mod operands;

pub use nodes::*;

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
    /// How the program goes on from a sequence of tokens; without it it cannot generate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
}

/// What `generate` runs: a program over [rows, time] tokens, in which a position depends on
/// itself and, through causal attention alone, on those before it. So keys and values of what
/// came before can be kept, and each token costs one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Generation {
    /// The input of the tokens: int32 of shape [rows, time], both symbols.
    pub tokens: NodeId,
    /// The input of their positions, if the program wants it: int32 of shape [rows, time],
    /// counted from 0.
    pub positions: Option<NodeId>,
    /// float32 of shape [rows, time, vocabulary]: the logits of the next token.
    pub logits: NodeId,
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
    RmsNorm(RmsNormNode),
    Attention(AttentionNode),
    Pad(PadNode),
    CumulativeSum(CumulativeSumNode),
    TopK(TopKNode),
    TakeAlong(TakeAlongNode),
    ScatterAdd(ScatterAddNode),
    Convolution(ConvolutionNode),
    Pool(PoolNode),
    BatchNorm(BatchNormNode),
    GroupNorm(GroupNormNode),
    Dequantise(DequantiseNode),
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
    /// A float32 node of shape `[rows]`.
    pub per_row: NodeId,
    /// A float32 node of shape `[rows]`, not negative. It counts as given: no gradient flows
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
