//! The multilayer perceptron that is measured: 30 - 256 - 128 - 2, relu, cross-entropy, Adam.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use sandcast_kernels::graph::*;
use sandcast_kernels::{
    Caps, Device, DeviceChoice, Feeds, Program, Schedule, Session, Tensor, TrainPlan,
};

/// Numbers in a row.
pub(crate) const FEATURES: usize = 30;
/// Rows of a step.
pub(crate) const BATCH: u32 = 256;

struct Builder(Graph);

impl Builder {
    fn node(&mut self, node: Node) -> NodeId {
        self.0.nodes.push(node);
        self.0.nodes.len() as u32 - 1
    }

    fn dense(&mut self, name: &str, operand: NodeId, sizes: [u32; 2]) -> NodeId {
        let mut parameter = |part: &str, shape: &[u32], initializer| {
            self.node(Node::Parameter(Parameter {
                name: format!("{name}.{part}"),
                shape: shape.to_vec(),
                initializer,
                trainable: true,
            }))
        };
        let right = parameter("weight", &sizes, Initializer::HeUniform);
        let bias = parameter("bias", &sizes[1..], Initializer::Zeros);
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

/// The program.
pub(crate) fn program() -> Arc<Program> {
    let rows = Extent::Symbol(0);
    let mut builder = Builder(Graph {
        symbols: vec![Symbol {
            name: "rows".into(),
            maximum: 4096,
        }],
        ..Graph::default()
    });
    let features = Extent::Fixed(FEATURES as u32);
    let x = builder.node(Node::Input(Input {
        name: "x".into(),
        dtype: DType::Float32,
        shape: vec![rows, features],
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
    let softmax = SoftmaxNode {
        operand: logits,
        axis: 1,
        logarithm: false,
    };
    let probabilities = builder.node(Node::Softmax(softmax));
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
    Arc::new(Program::compile(graph, &Caps::default()).expect("the graph compiles"))
}

/// A session on so many threads.
pub(crate) fn session(program: &Arc<Program>, threads: usize) -> Session {
    let device =
        Device::open(DeviceChoice::Cpu, NonZeroUsize::new(threads)).expect("the processor");
    Session::new(Arc::clone(program), &device, 7).expect("a session")
}

/// Rows to learn from.
pub(crate) fn feeds(rows: usize) -> Feeds {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let x: Vec<f32> = (0..rows * FEATURES)
        .map(|_| {
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
        (
            "x".to_owned(),
            Tensor::from_f32(vec![rows, FEATURES], x).expect("as many values"),
        ),
        (
            "y".to_owned(),
            Tensor::from_i32(vec![rows], y).expect("as many values"),
        ),
    ])
}

/// Passes over the data in shuffled batches.
pub(crate) fn plan(epochs: u32) -> TrainPlan {
    TrainPlan {
        epochs,
        batch_rows: BATCH,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        clip_norm: None,
        patience: None,
        shuffle: true,
    }
}
