//! What programs cost: `cargo bench -p sandcast-kernels --profile dev --bench kernels`.

mod model;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use sandcast_kernels::graph::*;
use sandcast_kernels::{Caps, Device, DeviceChoice, Feeds, Program, Session, Tensor};

fn main() {
    divan::main();
}

/// One epoch over 12,800 rows.
#[divan::bench(args = [1, 2], sample_count = 20)]
fn train(bencher: Bencher<'_, '_>, threads: usize) {
    let program = model::program();
    let mut session = model::session(&program, threads);
    let feeds = model::feeds(12_800);
    let plan = model::plan(1);
    bencher
        .counter(ItemsCount::new(12_800_usize))
        .bench_local(|| {
            let go_on = &mut |_: sandcast_kernels::Progress<'_>| ControlFlow::Continue(());
            session
                .train(&feeds, None, &plan, go_on)
                .expect("a training")
        });
}

#[divan::bench(args = [1, 16, 128, 1024])]
fn predict(bencher: Bencher<'_, '_>, rows: usize) {
    let session = model::session(&model::program(), 1);
    let feeds: Feeds = model::feeds(rows)
        .into_iter()
        .filter(|(name, _)| name == "x")
        .collect();
    bencher
        .counter(ItemsCount::new(rows))
        .bench_local(|| session.infer("predict", &feeds).expect("a prediction"));
}

/// From a declared graph to a program that can run.
#[divan::bench]
fn compile(bencher: Bencher<'_, '_>) {
    let graph = model::program().graph().clone();
    bencher.bench_local(|| Program::compile(graph.clone(), &Caps::default()).expect("it compiles"));
}

/// Sizes of matrix products: [m, k] times [k, n].
const PRODUCTS: [[usize; 3]; 6] = [
    [1024, 1024, 1024],
    [256, 2048, 2048],
    [256, 512, 256],
    [128, 256, 128],
    [128, 30, 256],
    [1, 256, 128],
];

/// A program of one product, its weights packed once.
#[divan::bench(args = PRODUCTS)]
fn product(bencher: Bencher<'_, '_>, [m, k, n]: [usize; 3]) {
    let extents = |extents: [usize; 2]| extents.map(|extent| extent as u32);
    let shape = vec![Extent::Symbol(0), Extent::Fixed(k as u32)];
    let graph = Graph {
        symbols: vec![Symbol {
            name: "rows".into(),
            maximum: 1024,
        }],
        nodes: vec![
            Node::Input(Input {
                name: "x".into(),
                dtype: DType::Float32,
                shape,
            }),
            Node::Parameter(Parameter {
                name: "w".into(),
                shape: extents([k, n]).to_vec(),
                initializer: Initializer::HeUniform,
                trainable: true,
            }),
            Node::Matmul(MatmulNode { left: 0, right: 1 }),
        ],
        entries: vec![Entry {
            name: "product".into(),
            outputs: vec![Output {
                name: "y".into(),
                node: 2,
            }],
        }],
        ..Graph::default()
    };
    let program = Arc::new(Program::compile(graph, &Caps::default()).expect("it compiles"));
    let device =
        Device::open(DeviceChoice::Cpu, std::num::NonZeroUsize::new(1)).expect("a processor");
    let session = Session::new(program, &device, 1).expect("a session");
    let x = Tensor::from_f32(vec![m, k], vec![0.5; m * k]).expect("as many values");
    let feeds = BTreeMap::from([("x".to_owned(), x)]);
    bencher
        .counter(ItemsCount::new(2 * m * k * n))
        .bench_local(|| session.infer("product", &feeds).expect("a product"));
}
