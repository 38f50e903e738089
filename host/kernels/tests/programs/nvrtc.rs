//! Every kernel compiles for a GPU, on a machine that has none: NVRTC needs no device. It is where
//! `SANDCAST_CUDA_LIBRARIES` names its folder, or the system knows it; `tests/nvrtc.sh` fetches it
//! from PyPI and runs this. Where it is not, the test says so and passes.

#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::*;
use sandcast_kernels::cuda::driver::*;
use sandcast_kernels::cuda::{compile_to_ptx, templates, why_no_compiler};
use sandcast_kernels::graph::*;
use sandcast_kernels::{Device, DeviceOptions, Feeds, Precision, Session};

/// Compute capabilities that kernels are compiled for: that of the first GPUs the newest NVRTC still
/// knows, and that of the H100 and H200.
const CAPABILITIES: [[u32; 2]; 2] = [[7, 5], [9, 0]];

/// A device that does nothing but note which kernels it is handed.
#[derive(Debug)]
struct Listener {
    facts: Facts,
    next: AtomicU64,
    heard: Arc<Mutex<Vec<Unit>>>,
}

#[derive(Debug, Default)]
struct Listening {
    heard: Arc<Mutex<Vec<Unit>>>,
}

impl Opener for Listening {
    fn open(&self) -> Result<Arc<dyn Driver>, Fault> {
        Ok(Arc::new(Listener {
            facts: Facts {
                name: "listener".into(),
                compute_capability: [9, 0],
                multiprocessors: 4,
                memory_bytes: 1 << 40,
                has_products: true,
                versions: "none".into(),
            },
            next: AtomicU64::new(1),
            heard: Arc::clone(&self.heard),
        }))
    }
}

impl Listener {
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }
}

#[expect(unsafe_code, reason = "it stands where a driver does")]
mod listener {
    use super::*;

    // SAFETY: it touches no memory but the host memory that it gave.
    unsafe impl Driver for Listener {
        fn facts(&self) -> &Facts {
            &self.facts
        }
        fn is_lost(&self) -> bool {
            false
        }
        fn free_bytes(&self) -> Result<u64, Fault> {
            Ok(self.facts.memory_bytes)
        }
        fn allocate(&self, bytes: u64) -> Result<u64, Fault> {
            Ok(self.next.fetch_add(bytes + 256, Ordering::SeqCst) & !255)
        }
        unsafe fn release(&self, _address: u64) {}
        fn pin(&self, bytes: usize) -> Result<*mut u8, Fault> {
            let memory = vec![0_u64; bytes.div_ceil(8)].into_boxed_slice();
            Ok(Box::into_raw(memory).cast())
        }
        unsafe fn unpin(&self, address: *mut u8, bytes: usize) {
            let whole =
                std::ptr::slice_from_raw_parts_mut(address.cast::<u64>(), bytes.div_ceil(8));
            // SAFETY: made by `pin`.
            drop(unsafe { Box::from_raw(whole) });
        }
        fn open_stream(&self) -> Result<Stream, Fault> {
            Ok(Stream(self.number()))
        }
        fn close_stream(&self, _stream: Stream) {}
        fn load(&self, unit: &Unit) -> Result<Vec<Function>, Fault> {
            self.heard.lock().expect("a list").push(unit.clone());
            Ok(unit.names.iter().map(|_| Function(self.number())).collect())
        }
        unsafe fn launch(&self, _: Stream, _: Function, _: Grid, _: &[u64]) -> Result<(), Fault> {
            Ok(())
        }
        unsafe fn multiply(&self, _: Stream, _: &MatrixProduct) -> Result<(), Fault> {
            Ok(())
        }
        unsafe fn copy_in(&self, _: Stream, _: u64, _: *const u8, _: usize) -> Result<(), Fault> {
            Ok(())
        }
        unsafe fn copy_out(&self, _: Stream, to: *mut u8, _: u64, n: usize) -> Result<(), Fault> {
            // No number was out of range.
            // SAFETY: memory of `pin`.
            unsafe { to.write_bytes(0xff, n) };
            Ok(())
        }
        unsafe fn copy_within(&self, _: Stream, _: u64, _: u64, _: usize) -> Result<(), Fault> {
            Ok(())
        }
        unsafe fn zero(&self, _: Stream, _: u64, _: usize) -> Result<(), Fault> {
            Ok(())
        }
        fn wait(&self, _: Stream) -> Result<(), Fault> {
            Ok(())
        }
        fn order(&self, _: Stream, _: Stream) -> Result<(), Fault> {
            Ok(())
        }
        fn begin_recording(&self, _: Stream) -> Result<(), Fault> {
            Ok(())
        }
        fn end_recording(&self, _: Stream) -> Result<Recorded, Fault> {
            Ok(Recorded(self.number()))
        }
        unsafe fn replay(&self, _: Stream, _: Recorded) -> Result<(), Fault> {
            Ok(())
        }
        fn forget(&self, _: Recorded) {}
    }
}

/// Every map there is, of float32 and of int32, each in a kernel with others.
fn maps() -> (Builder, Feeds) {
    use BinaryOperation as B;
    use UnaryOperation as U;
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[6]));
    let n = builder.input("n", DType::Int32, by_row(&[6]));
    let w = builder.parameter("w", &[6], Initializer::Ones);
    let turned = builder.parameter("turned", &[3, 2], Initializer::Ones);
    let turned = builder.node(Node::Transpose(TransposeNode {
        operand: turned,
        permutation: vec![1, 0],
    }));
    let turned = builder.reshape(turned, fixed(&[6]));
    let mut sum = builder.multiply(x, w);
    sum = builder.add(sum, turned);
    for operation in [
        U::Negate,
        U::Absolute,
        U::Exponential,
        U::Logarithm,
        U::SquareRoot,
        U::Square,
        U::Reciprocal,
        U::Tanh,
        U::Logistic,
        U::Relu,
        U::Gelu,
        U::Silu,
        U::Softplus,
        U::Floor,
        U::Sign,
        U::IsNan,
        U::Sine,
        U::Cosine,
        U::Tangent,
        U::Round,
        U::Ceiling,
        U::ErrorFunction,
        U::ExponentialMinusOne,
        U::LogPlusOne,
        U::CubeRoot,
        U::ReciprocalSquareRoot,
        U::IsFinite,
        U::LogicalNot,
    ] {
        let one = builder.unary(operation, sum);
        sum = builder.add(sum, one);
    }
    for operation in [
        B::Subtract,
        B::Divide,
        B::Maximum,
        B::Minimum,
        B::Power,
        B::LogicalAnd,
        B::LogicalOr,
    ] {
        sum = builder.binary(operation, sum, w);
    }
    for comparison in [
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ] {
        let (left, right) = (sum, x);
        let condition = builder.node(Node::Compare(CompareNode {
            comparison,
            left,
            right,
        }));
        sum = builder.node(Node::Select(SelectNode {
            condition,
            on_true: sum,
            on_false: x,
        }));
    }
    sum = builder.node(Node::Clamp(ClampNode {
        operand: sum,
        minimum: -3.0,
        maximum: 3.0,
    }));
    sum = builder.dropout(sum, 0.25);
    let mut count = n;
    for operation in [
        U::Negate,
        U::Absolute,
        U::Square,
        U::Relu,
        U::Sign,
        U::LogicalNot,
    ] {
        let one = builder.unary(operation, count);
        count = builder.add(count, one);
    }
    for operation in [
        B::Subtract,
        B::Multiply,
        B::Divide,
        B::Maximum,
        B::Minimum,
        B::LogicalAnd,
        B::LogicalOr,
    ] {
        count = builder.binary(operation, count, n);
    }
    let as_int = builder.node(Node::Cast(CastNode {
        operand: sum,
        dtype: DType::Int32,
    }));
    count = builder.add(count, as_int);
    let as_float = builder.node(Node::Cast(CastNode {
        operand: count,
        dtype: DType::Float32,
    }));
    sum = builder.add(sum, as_float);
    let losses = [
        builder.node(Node::SquaredError(SquaredErrorNode {
            predictions: sum,
            targets: x,
        })),
        builder.node(Node::Huber(HuberNode {
            predictions: sum,
            targets: x,
            delta: 0.5,
        })),
        builder.node(Node::BinaryCrossEntropy(BinaryCrossEntropyNode {
            logits: sum,
            targets: x,
        })),
    ];
    let mut loss = losses[0];
    for other in &losses[1..] {
        loss = builder.add(loss, *other);
    }
    let per_row = builder.reduce(Reduction::Mean, loss, &[1], false);
    builder.entry("all", &[("sum", sum), ("count", count)]);
    builder.loss(per_row, None);
    builder.graph.optimizer = Some(adam());
    let feeds = BTreeMap::from([
        ("x".to_owned(), f32s(&[3, 6], numbers(18, 1))),
        ("n".to_owned(), i32s(&[3, 6], (0..18).collect())),
    ]);
    (builder, feeds)
}

/// A program of tables, normalisation, views and joins.
fn tables() -> (Builder, Feeds) {
    let mut builder = Builder::new();
    let ids = builder.input("ids", DType::Int32, by_row(&[4]));
    let y = builder.input("y", DType::Int32, by_row(&[]));
    let table = builder.parameter("table", &[9, 8], Initializer::GlorotUniform);
    let rows = builder.node(Node::Gather(GatherNode {
        table,
        indices: ids,
    }));
    let (scale, offset) = (
        builder.parameter("scale", &[8], Initializer::Ones),
        builder.parameter("offset", &[8], Initializer::Zeros),
    );
    let normal = builder.node(Node::LayerNorm(LayerNormNode {
        operand: rows,
        scale,
        offset,
        epsilon: 1e-5,
    }));
    let turned = builder.node(Node::Transpose(TransposeNode {
        operand: normal,
        permutation: vec![0, 2, 1],
    }));
    let scores = builder.matmul(normal, turned);
    let weights = builder.node(Node::Softmax(SoftmaxNode {
        operand: scores,
        axis: 2,
        logarithm: false,
    }));
    let mixed = builder.matmul(weights, normal);
    let cut = builder.node(Node::Slice(SliceNode {
        operand: mixed,
        axis: 2,
        start: 2,
        limit: 6,
    }));
    let joined = builder.node(Node::Concatenate(ConcatenateNode {
        operands: vec![cut, normal],
        axis: 2,
    }));
    let flat = builder.reshape(joined, by_row(&[48]));
    let logits = builder.dense("out", flat, [48, 5], None);
    let best = builder.node(Node::Argmax(ArgmaxNode {
        operand: logits,
        axis: 1,
    }));
    let hot = builder.node(Node::OneHot(OneHotNode {
        indices: best,
        depth: 5,
    }));
    let most = builder.reduce(Reduction::Maximum, logits, &[1], false);
    let least = builder.reduce(Reduction::Minimum, logits, &[0], false);
    let per_row = builder.node(Node::CrossEntropy(CrossEntropyNode { logits, labels: y }));
    builder.entry("best", &[("best", best), ("hot", hot), ("most", most)]);
    builder.entry("least", &[("least", least)]);
    builder.loss(per_row, None);
    builder.graph.optimizer = Some(adam());
    let feeds = BTreeMap::from([
        (
            "ids".to_owned(),
            i32s(&[3, 4], (0..12).map(|id| id % 9).collect()),
        ),
        ("y".to_owned(), i32s(&[3], vec![0, 1, 2])),
    ]);
    (builder, feeds)
}

/// The units that sessions on these programs ask for, in every precision.
fn units_of_programs() -> Vec<Unit> {
    let listening = Arc::new(Listening::default());
    for precision in [Precision::F32Strict, Precision::Bf16Mixed] {
        let options = DeviceOptions {
            precision,
            ..DeviceOptions::default()
        };
        let opener: Arc<dyn Opener> = listening.clone();
        let device = Device::over(opener, &options).expect("a device that listens");
        let classifier = || (classifier(30, 3, 0.2), moons(200, 30, 1));
        for (builder, feeds) in [classifier(), maps(), tables()] {
            let program = builder.compile();
            let mut session = Session::new(Arc::clone(&program), &device, 1).expect("a session");
            for entry in &program.graph().entries {
                let fed = |name: &str| session.infer(&entry.name, &without(&feeds, name)).is_ok();
                // One of the inputs may be of the loss alone.
                let _ = session.infer(&entry.name, &feeds).is_ok() || fed("y");
            }
            // What comes back means nothing; what was asked for does.
            let _ = session.gradients(&feeds);
            let plan = sandcast_kernels::TrainPlan {
                accumulate_steps: 1,
                epochs: 1,
                batch_rows: 2,
                learning_rate: 0.1,
                schedule: sandcast_kernels::Schedule::Constant,
                clip_norm: Some(1.0),
                patience: None,
                epoch_rows: None,
                shuffle: true,
            };
            let _ = session.train(&feeds, None, &plan, &mut go_on);
        }
    }
    let heard = listening.heard.lock().expect("a list");
    heard.clone()
}

fn without(feeds: &Feeds, name: &str) -> Feeds {
    let mut feeds = feeds.clone();
    feeds.remove(name);
    feeds
}

#[test]
fn every_kernel_compiles_for_a_gpu() {
    let mut units = templates();
    let of_templates: usize = units.iter().map(|unit| unit.names.len()).sum();
    assert!(of_templates >= 70, "{of_templates} kernels");
    let of_programs = units_of_programs();
    let maps: BTreeSet<&String> = of_programs
        .iter()
        .flat_map(|unit| &unit.names)
        .filter(|name| name.starts_with("map_"))
        .collect();
    assert!(maps.len() >= 12, "{} fused kernels", maps.len());
    if let Some(reason) = why_no_compiler() {
        eprintln!("skipped: {reason}");
        return;
    }
    units.extend(of_programs);
    let mut done = BTreeSet::new();
    let mut kernels = 0;
    for unit in &units {
        if !done.insert(unit.source.clone()) {
            continue;
        }
        for capability in CAPABILITIES {
            let ptx = compile_to_ptx(unit, capability)
                .unwrap_or_else(|fault| panic!("{:?}: {fault}", unit.names));
            let text = String::from_utf8_lossy(&ptx);
            let [major, minor] = capability;
            assert!(text.contains(&format!(".target sm_{major}{minor}")));
            for name in &unit.names {
                assert!(text.contains(&format!(".entry {name}(")), "{name}");
            }
            // Products and sums round apart, but where the source says otherwise.
            for fused in text.lines().filter(|line| line.contains("fma.")) {
                assert!(fused.contains("fma.rn.f"), "{fused}");
            }
        }
        kernels += unit.names.len();
    }
    eprintln!("{kernels} kernels in {} units", done.len());
}
