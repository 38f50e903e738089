//! The programs that the figures of this project are about: the multilayer perceptron
//! 30 - 256 - 128 - 2 (relu, cross-entropy, Adam, batches of 256 shuffled rows), and a decoder
//! transformer in the manner of GPT-2 (Radford et al. 2019).

use std::collections::BTreeMap;

use crate::graph::*;
use crate::{Feeds, Schedule, Tensor, TrainPlan};

/// Numbers in a row.
const FEATURES: usize = 30;

/// Rows of a training step.
const BATCH: u32 = 256;

/// The most rows at once; what the perceptron costs is said for so many.
pub(super) const MOST_ROWS: u32 = 4096;

/// The perceptron, with an entry `predict` and a loss.
pub fn perceptron() -> Graph {
    let rows = Extent::Symbol(0);
    let mut builder = Builder(Graph {
        symbols: vec![Symbol {
            name: "rows".into(),
            maximum: MOST_ROWS,
        }],
        ..Graph::default()
    });
    let x = builder.node(Node::Input(Input {
        name: "x".into(),
        dtype: DType::Float32,
        shape: vec![rows, Extent::Fixed(FEATURES as u32)],
    }));
    let labels = builder.node(Node::Input(Input {
        name: "y".into(),
        dtype: DType::Int32,
        shape: vec![rows],
    }));
    let mut hidden = x;
    for (name, sizes) in [("first", [FEATURES as u32, 256]), ("second", [256, 128])] {
        let sum = builder.dense(name, hidden, sizes);
        hidden = builder.node(Node::Unary(UnaryNode {
            operation: UnaryOperation::Relu,
            operand: sum,
        }));
    }
    let logits = builder.dense("third", hidden, [128, 2]);
    let probabilities = builder.node(Node::Softmax(SoftmaxNode {
        operand: logits,
        axis: 1,
        logarithm: false,
    }));
    let per_row = builder.node(Node::CrossEntropy(CrossEntropyNode { logits, labels }));
    let mut graph = builder.0;
    graph.entries.push(Entry {
        name: "predict".into(),
        outputs: vec![Output {
            name: "probabilities".into(),
            node: probabilities,
        }],
    });
    graph.loss = Some(Loss {
        per_row,
        weight: None,
    });
    graph.optimizer = Some(Optimizer::Adam(Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        decoupled: false,
    }));
    graph
}

/// Rows for the perceptron, the same at every call: `x`, and whether two of its numbers have the
/// same sign as `y`.
pub fn rows(count: usize) -> Feeds {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let x: Vec<f32> = (0..count * FEATURES)
        .map(|_| {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        })
        .collect();
    let y = x
        .chunks_exact(FEATURES)
        .map(|row| i32::from(row[0] * row[1] > 0.0))
        .collect();
    BTreeMap::from([
        ("x".to_owned(), tensor(vec![count, FEATURES], x)),
        (
            "y".to_owned(),
            Tensor::from_i32(vec![count], y).unwrap_or_else(|error| unreachable!("{error}")),
        ),
    ])
}

/// Passes over the rows in shuffled batches.
pub fn plan(epochs: u32) -> TrainPlan {
    TrainPlan {
        epochs,
        epoch_rows: None,
        batch_rows: BATCH,
        accumulate_steps: 1,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        clip_norm: None,
        patience: None,
        shuffle: true,
    }
}

/// The sizes of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder {
    /// Tokens that there are.
    pub vocabulary: u32,
    /// The most tokens of a sequence.
    pub context: u32,
    /// Blocks.
    pub layers: u32,
    /// Numbers of a position.
    pub width: u32,
    /// Heads of an attention; they divide the width.
    pub heads: u32,
    /// The most sequences at once.
    pub most_rows: u32,
}

impl Default for Decoder {
    /// 834,000 weights for the characters of English.
    fn default() -> Self {
        Decoder {
            vocabulary: 65,
            context: 128,
            layers: 4,
            width: 128,
            heads: 4,
            most_rows: 64,
        }
    }
}

/// The decoder, with an entry `logits`, a loss and generation: norms before attention and before
/// a perceptron of four times the width with gelu, learnt positions, AdamW.
pub fn decoder(shape: &Decoder) -> Graph {
    let Decoder {
        vocabulary,
        context,
        layers,
        width,
        heads,
        most_rows,
    } = *shape;
    let symbol = |name: &str, maximum| Symbol {
        name: name.to_owned(),
        maximum,
    };
    let mut b = Builder(Graph {
        symbols: vec![symbol("rows", most_rows), symbol("time", context)],
        ..Graph::default()
    });
    let positions_shape = [Extent::Symbol(0), Extent::Symbol(1)];
    let by_position = |last: &[u32]| -> Shape {
        let last = last.iter().map(|extent| Extent::Fixed(*extent));
        positions_shape.iter().copied().chain(last).collect()
    };
    let input = |b: &mut Builder, name: &str| {
        b.node(Node::Input(Input {
            name: name.to_owned(),
            dtype: DType::Int32,
            shape: by_position(&[]),
        }))
    };
    let tokens = input(&mut b, "tokens");
    let positions = input(&mut b, "positions");
    let labels = input(&mut b, "labels");
    let start = Initializer::Normal(0.02);
    // What is added to the stream is smaller, the more of it there is.
    let branch = Initializer::Normal(0.02 / (2.0 * layers as f32).sqrt());
    let table = b.parameter("tokens", &[vocabulary, width], start);
    let embedded = b.node(Node::Gather(GatherNode {
        table,
        indices: tokens,
    }));
    let table = b.parameter("positions", &[context, width], start);
    let placed = b.node(Node::Gather(GatherNode {
        table,
        indices: positions,
    }));
    let mut x = b.binary(BinaryOperation::Add, embedded, placed);
    for layer in 0..layers {
        let name = |what: &str| format!("{layer}.{what}");
        let normal = b.layer_norm(&name("attention.norm"), x, width);
        let heads_of = |b: &mut Builder, what: &str| {
            let operand = b.linear(&name(what), normal, [width, width], start);
            let shape = by_position(&[heads, width / heads]);
            b.node(Node::Reshape(ReshapeNode { operand, shape }))
        };
        let query = heads_of(&mut b, "query");
        let key = heads_of(&mut b, "key");
        let value = heads_of(&mut b, "value");
        let operand = b.node(Node::Attention(AttentionNode {
            query,
            key,
            value,
            mask: None,
            causal: true,
            scale: None,
        }));
        let shape = by_position(&[width]);
        let seen = b.node(Node::Reshape(ReshapeNode { operand, shape }));
        let seen = b.linear(&name("attention.out"), seen, [width, width], branch);
        x = b.binary(BinaryOperation::Add, x, seen);
        let normal = b.layer_norm(&name("perceptron.norm"), x, width);
        let operand = b.linear(&name("perceptron.up"), normal, [width, 4 * width], start);
        let hidden = b.node(Node::Unary(UnaryNode {
            operation: UnaryOperation::Gelu,
            operand,
        }));
        let hidden = b.linear(&name("perceptron.down"), hidden, [4 * width, width], branch);
        x = b.binary(BinaryOperation::Add, x, hidden);
    }
    let x = b.layer_norm("norm", x, width);
    let right = b.parameter("head", &[width, vocabulary], start);
    let logits = b.node(Node::Matmul(MatmulNode { left: x, right }));
    let operand = b.node(Node::CrossEntropy(CrossEntropyNode { logits, labels }));
    let per_row = b.node(Node::Reduce(ReduceNode {
        reduction: Reduction::Mean,
        operand,
        axes: vec![1],
        keep: false,
    }));
    let mut graph = b.0;
    graph.entries.push(Entry {
        name: "logits".into(),
        outputs: vec![Output {
            name: "logits".into(),
            node: logits,
        }],
    });
    graph.loss = Some(Loss {
        per_row,
        weight: None,
    });
    graph.optimizer = Some(Optimizer::Adam(Adam {
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.01,
        decoupled: true,
    }));
    graph.generation = Some(Generation {
        tokens,
        positions: Some(positions),
        logits,
    });
    graph
}

/// Windows of the context over so many tokens, the same at every call.
pub fn text(shape: &Decoder, tokens: usize) -> Feeds {
    let vocabulary = u64::from(shape.vocabulary);
    let mut state = 1_u64;
    let tokens = (0..tokens).map(|_| {
        // Knuth's linear congruence.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocabulary) as i32
    });
    sequences(shape, &tokens.collect::<Vec<_>>(), 1)
}

/// Windows of the context over tokens, each beginning `stride` after the one before it.
pub fn sequences(shape: &Decoder, tokens: &[i32], stride: usize) -> Feeds {
    let context = shape.context as usize;
    let before = &tokens[..tokens.len().saturating_sub(1)];
    let windows = |values: &[i32]| {
        Tensor::windows(values.to_vec(), context, stride)
            .unwrap_or_else(|error| unreachable!("{error}"))
    };
    let inputs = windows(before);
    let count = inputs.shape()[0];
    let positions = (0..count).flat_map(|_| 0..context as i32).collect();
    let positions = Tensor::from_i32(vec![count, context], positions);
    BTreeMap::from([
        ("tokens".to_owned(), inputs),
        ("labels".to_owned(), windows(tokens.get(1..).unwrap_or(&[]))),
        (
            "positions".to_owned(),
            positions.unwrap_or_else(|error| unreachable!("{error}")),
        ),
    ])
}

/// So many steps of so many sequences.
pub fn steps(count: u32, batch_rows: u32) -> TrainPlan {
    TrainPlan {
        epochs: 1,
        epoch_rows: Some(count * batch_rows),
        batch_rows,
        accumulate_steps: 1,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        clip_norm: Some(1.0),
        patience: None,
        shuffle: true,
    }
}

pub(super) fn tensor(shape: Vec<usize>, values: Vec<f32>) -> Tensor {
    Tensor::from_f32(shape, values).unwrap_or_else(|error| unreachable!("{error}"))
}

pub(super) struct Builder(pub(super) Graph);

impl Builder {
    pub(super) fn node(&mut self, node: Node) -> NodeId {
        self.0.nodes.push(node);
        self.0.nodes.len() as u32 - 1
    }

    pub(super) fn parameter(
        &mut self,
        name: &str,
        shape: &[u32],
        initializer: Initializer,
    ) -> NodeId {
        self.node(Node::Parameter(Parameter {
            name: name.to_owned(),
            shape: shape.to_vec(),
            initializer,
            trainable: true,
        }))
    }

    fn dense(&mut self, name: &str, operand: NodeId, sizes: [u32; 2]) -> NodeId {
        self.linear(name, operand, sizes, Initializer::HeUniform)
    }

    fn binary(&mut self, operation: BinaryOperation, left: NodeId, right: NodeId) -> NodeId {
        self.node(Node::Binary(BinaryNode {
            operation,
            left,
            right,
        }))
    }

    fn layer_norm(&mut self, name: &str, operand: NodeId, width: u32) -> NodeId {
        let scale = self.parameter(&format!("{name}.scale"), &[width], Initializer::Ones);
        let offset = self.parameter(&format!("{name}.offset"), &[width], Initializer::Zeros);
        self.node(Node::LayerNorm(LayerNormNode {
            operand,
            scale,
            offset,
            epsilon: 1e-5,
        }))
    }

    fn linear(
        &mut self,
        name: &str,
        operand: NodeId,
        sizes: [u32; 2],
        initializer: Initializer,
    ) -> NodeId {
        let right = self.parameter(&format!("{name}.weight"), &sizes, initializer);
        let bias = self.parameter(&format!("{name}.bias"), &sizes[1..], Initializer::Zeros);
        let left = self.node(Node::Matmul(MatmulNode {
            left: operand,
            right,
        }));
        self.node(Node::Binary(BinaryNode {
            operation: BinaryOperation::Add,
            left,
            right: bias,
        }))
    }
}
