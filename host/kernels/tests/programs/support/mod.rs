//! What tests of programs share: a builder of graphs, and numbers to feed them.

pub(crate) mod check;
pub(crate) mod reference;
pub(crate) mod shim;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use sandcast_kernels::graph::*;
use sandcast_kernels::{
    Caps, Device, DeviceChoice, DeviceOptions, Feeds, Precision, Program, Progress, Session,
    StopReason, Tensor,
};

/// Builds a graph node by node.
#[derive(Default)]
pub(crate) struct Builder {
    pub(crate) graph: Graph,
}

pub(crate) const ROWS: Extent = Extent::Symbol(0);

pub(crate) fn fixed(extents: &[u32]) -> Shape {
    extents
        .iter()
        .map(|extent| Extent::Fixed(*extent))
        .collect()
}

/// `[rows, extents...]`
pub(crate) fn by_row(extents: &[u32]) -> Shape {
    std::iter::once(ROWS).chain(fixed(extents)).collect()
}

impl Builder {
    /// A graph with the symbol `rows`.
    pub(crate) fn new() -> Builder {
        let mut builder = Builder::default();
        builder.graph.symbols.push(Symbol {
            name: "rows".into(),
            maximum: 4096,
        });
        builder
    }

    pub(crate) fn node(&mut self, node: Node) -> NodeId {
        self.graph.nodes.push(node);
        self.graph.nodes.len() as u32 - 1
    }

    pub(crate) fn input(&mut self, name: &str, dtype: DType, shape: Shape) -> NodeId {
        self.node(Node::Input(Input {
            name: name.into(),
            dtype,
            shape,
        }))
    }

    pub(crate) fn parameter(
        &mut self,
        name: &str,
        shape: &[u32],
        initializer: Initializer,
    ) -> NodeId {
        self.node(Node::Parameter(Parameter {
            name: name.into(),
            shape: shape.to_vec(),
            initializer,
            trainable: true,
        }))
    }

    pub(crate) fn number(&mut self, value: f32) -> NodeId {
        self.node(Node::F32Constant(F32Literal {
            shape: vec![],
            values: vec![value],
        }))
    }

    pub(crate) fn unary(&mut self, operation: UnaryOperation, operand: NodeId) -> NodeId {
        self.node(Node::Unary(UnaryNode { operation, operand }))
    }

    pub(crate) fn binary(
        &mut self,
        operation: BinaryOperation,
        left: NodeId,
        right: NodeId,
    ) -> NodeId {
        self.node(Node::Binary(BinaryNode {
            operation,
            left,
            right,
        }))
    }

    pub(crate) fn add(&mut self, left: NodeId, right: NodeId) -> NodeId {
        self.binary(BinaryOperation::Add, left, right)
    }

    pub(crate) fn multiply(&mut self, left: NodeId, right: NodeId) -> NodeId {
        self.binary(BinaryOperation::Multiply, left, right)
    }

    pub(crate) fn matmul(&mut self, left: NodeId, right: NodeId) -> NodeId {
        self.node(Node::Matmul(MatmulNode { left, right }))
    }

    pub(crate) fn reduce(
        &mut self,
        reduction: Reduction,
        operand: NodeId,
        axes: &[u32],
        keep: bool,
    ) -> NodeId {
        self.node(Node::Reduce(ReduceNode {
            reduction,
            operand,
            axes: axes.to_vec(),
            keep,
        }))
    }

    pub(crate) fn reshape(&mut self, operand: NodeId, shape: Shape) -> NodeId {
        self.node(Node::Reshape(ReshapeNode { operand, shape }))
    }

    pub(crate) fn dropout(&mut self, operand: NodeId, rate: f32) -> NodeId {
        self.node(Node::Dropout(DropoutNode { operand, rate }))
    }

    /// `activation(x W + b)`, He-uniform.
    pub(crate) fn dense(
        &mut self,
        name: &str,
        operand: NodeId,
        sizes: [u32; 2],
        activation: Option<UnaryOperation>,
    ) -> NodeId {
        let weight = self.parameter(&format!("{name}.weight"), &sizes, Initializer::HeUniform);
        let bias = self.parameter(&format!("{name}.bias"), &[sizes[1]], Initializer::Zeros);
        let product = self.matmul(operand, weight);
        let sum = self.add(product, bias);
        activation.map_or(sum, |operation| self.unary(operation, sum))
    }

    pub(crate) fn entry(&mut self, name: &str, outputs: &[(&str, NodeId)]) {
        let outputs = outputs
            .iter()
            .map(|(name, node)| Output {
                name: (*name).into(),
                node: *node,
            })
            .collect();
        self.graph.entries.push(Entry {
            name: name.into(),
            outputs,
        });
    }

    pub(crate) fn loss(&mut self, per_row: NodeId, weight: Option<NodeId>) {
        self.graph.loss = Some(Loss { per_row, weight });
    }

    pub(crate) fn compile(self) -> Arc<Program> {
        Arc::new(Program::compile(self.graph, &Caps::default()).expect("a graph that compiles"))
    }
}

pub(crate) fn adam() -> Optimizer {
    Optimizer::Adam(Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 0.0,
        decoupled: false,
    })
}

/// A classifier of hidden layers 256 and 128, as in the benchmarks.
pub(crate) fn classifier(features: u32, classes: u32, dropout: f32) -> Builder {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[features]));
    let y = builder.input("y", DType::Int32, by_row(&[]));
    let mut hidden = x;
    let mut width = features;
    for (index, size) in [256, 128].into_iter().enumerate() {
        hidden = builder.dense(
            &format!("hidden{index}"),
            hidden,
            [width, size],
            Some(UnaryOperation::Relu),
        );
        if dropout > 0.0 {
            hidden = builder.dropout(hidden, dropout);
        }
        width = size;
    }
    let logits = builder.dense("output", hidden, [width, classes], None);
    let probabilities = builder.node(Node::Softmax(SoftmaxNode {
        operand: logits,
        axis: 1,
        logarithm: false,
    }));
    let per_row = builder.node(Node::CrossEntropy(CrossEntropyNode { logits, labels: y }));
    builder.entry("predict", &[("probabilities", probabilities)]);
    builder.loss(per_row, None);
    builder.graph.optimizer = Some(adam());
    builder
}

/// The device under test: the processor, or what `SANDCAST_TEST_DEVICE` says: `cuda`, or
/// `cuda-shim`, which runs the kernels of CUDA on the processor. `SANDCAST_TEST_PRECISION` is the
/// precision of its products.
pub(crate) fn device(threads: usize) -> Device {
    if !is_cuda() {
        let threads = NonZeroUsize::new(threads);
        return Device::open(DeviceChoice::Cpu, threads).expect("the processor opens");
    }
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let open = || {
        let options = DeviceOptions {
            choice: DeviceChoice::Cuda(0),
            precision: precision(),
            ..DeviceOptions::default()
        };
        match device_name().as_str() {
            "cuda-shim" => Device::over(Arc::new(shim::ShimOpener::default()), &options),
            _ => Device::open_with(options),
        }
        .expect("the device under test opens")
    };
    DEVICE.get_or_init(open).clone()
}

fn device_name() -> String {
    let name = std::env::var("SANDCAST_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    assert!(
        ["cpu", "cuda", "cuda-shim"].contains(&name.as_str()),
        "SANDCAST_TEST_DEVICE is `{name}`; use cpu, cuda or cuda-shim"
    );
    name
}

/// Whether the kernels of CUDA are under test.
pub(crate) fn is_cuda() -> bool {
    device_name() != "cpu"
}

/// The precision under test.
pub(crate) fn precision() -> Precision {
    std::env::var("SANDCAST_TEST_PRECISION").map_or(Precision::F32Strict, |name| {
        name.parse()
            .expect("SANDCAST_TEST_PRECISION is a precision")
    })
}

/// A tolerance of a test against the reference, for the precision under test: products of
/// operands with so many bits of fraction are so much less exact.
pub(crate) fn within(strict: f64) -> f64 {
    match precision() {
        Precision::F32Strict => strict,
        Precision::Tf32 => strict.max(2e-3),
        Precision::Bf16Mixed => strict.max(2e-2),
    }
}

/// Rows of a test that is slow under the shim.
pub(crate) fn fewer(rows: usize, on_shim: usize) -> usize {
    if device_name() == "cuda-shim" {
        on_shim
    } else {
        rows
    }
}

pub(crate) fn session(program: &Arc<Program>, threads: usize, seed: u64) -> Session {
    Session::new(Arc::clone(program), &device(threads), seed).expect("a session")
}

/// Numbers in -1..1 that look random.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(0x1234_5678_9abc_def1);
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

pub(crate) fn f32s(shape: &[usize], values: Vec<f32>) -> Tensor {
    Tensor::from_f32(shape.to_vec(), values).expect("as many values as the shape has")
}

pub(crate) fn i32s(shape: &[usize], values: Vec<i32>) -> Tensor {
    Tensor::from_i32(shape.to_vec(), values).expect("as many values as the shape has")
}

/// Rows of two classes that a line does not part.
pub(crate) fn moons(rows: usize, features: usize, seed: u64) -> Feeds {
    let x = numbers(rows * features, seed);
    let y = x
        .chunks_exact(features)
        .map(|row| i32::from(row[0] * row[1] + 0.5 * row[2] > 0.0))
        .collect();
    BTreeMap::from([
        ("x".to_owned(), f32s(&[rows, features], x)),
        ("y".to_owned(), i32s(&[rows], y)),
    ])
}

pub(crate) fn go_on(_: Progress<'_>) -> ControlFlow<StopReason> {
    ControlFlow::Continue(())
}
