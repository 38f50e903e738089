//! What is special to the CUDA backend, on the shim (see `support/shim`): memory, staging, recorded
//! work, loss of the device, precisions, and every tile of attention. Needs a C++ compiler; says so
//! and passes where there is none.

#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::support::shim::{Control, ShimOpener};
use crate::support::*;
use sandcast_kernels::graph::*;
use sandcast_kernels::{
    Device, DeviceOptions, Feeds, Precision, RunError, Schedule, Session, TrainPlan,
};

fn is_there() -> bool {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let found = Command::new(&compiler).arg("--version").output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("skipped: there is no C++ compiler `{compiler}`");
    }
    found
}

fn shim(options: DeviceOptions) -> (Device, Arc<Control>) {
    let opener = ShimOpener::default();
    let control = Arc::clone(&opener.control);
    let device = Device::over(Arc::new(opener), &options).expect("the shim opens");
    (device, control)
}

fn small() -> Builder {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[5]));
    let y = builder.input("y", DType::Int32, by_row(&[]));
    let hidden = builder.dense("hidden", x, [5, 24], Some(UnaryOperation::Relu));
    let hidden = builder.dropout(hidden, 0.2);
    let logits = builder.dense("output", hidden, [24, 3], None);
    let activated = builder.unary(UnaryOperation::Gelu, logits);
    let per_row = builder.node(Node::CrossEntropy(CrossEntropyNode { logits, labels: y }));
    builder.entry("logits", &[("logits", logits), ("activated", activated)]);
    builder.loss(per_row, None);
    builder.graph.optimizer = Some(adam());
    builder
}

fn data(rows: usize) -> Feeds {
    let x = numbers(rows * 5, 4);
    let y = x
        .chunks_exact(5)
        .map(|row| i32::from(row[0] > 0.0) + i32::from(row[1] > 0.3));
    BTreeMap::from([
        ("y".to_owned(), i32s(&[rows], y.collect())),
        ("x".to_owned(), f32s(&[rows, 5], x)),
    ])
}

fn x_of(feeds: &Feeds) -> Feeds {
    BTreeMap::from([("x".to_owned(), feeds["x"].clone())])
}

fn plan() -> TrainPlan {
    TrainPlan {
        accumulate_steps: 1,
        epochs: 4,
        batch_rows: 32,
        learning_rate: 1e-2,
        schedule: Schedule::Constant,
        clip_norm: Some(1.0),
        patience: None,
        epoch_rows: None,
        shuffle: true,
    }
}

fn bits(session: &Session) -> Vec<u32> {
    let weights = session.weights();
    let numbers = weights.values().flat_map(|tensor| tensor.to_f32());
    numbers.map(f32::to_bits).collect()
}

#[test]
fn products_maps_and_rows_have_the_bits_of_the_processor() {
    if !is_there() {
        return;
    }
    let program = small().compile();
    let (device, _) = shim(DeviceOptions::default());
    let processor = Device::open(sandcast_kernels::DeviceChoice::Cpu, None).expect("a processor");
    let session =
        |device: &Device| Session::new(Arc::clone(&program), device, 3).expect("a session");
    let (cuda, cpu) = (session(&device), session(&processor));
    // 130 rows are a bucket of 256, and two pieces on the processor.
    let feeds = x_of(&data(130));
    let found = cuda.infer("logits", &feeds).expect("results");
    let expected = cpu.infer("logits", &feeds).expect("results");
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) || is_x86_with_fma() {
        assert_eq!(found, expected);
    }
    // Dropout keeps the same elements, or gradients would be far apart.
    let gradients = |device: &Device| {
        let gradients = session(device).gradients(&data(130)).expect("gradients");
        let numbers = gradients.by_parameter.into_values();
        numbers
            .flat_map(|tensor| tensor.to_f32())
            .collect::<Vec<f32>>()
    };
    for (found, expected) in gradients(&device).iter().zip(gradients(&processor)) {
        assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
    }
    // A row alone has the bits that it has among others.
    for row in [0, 17, 129] {
        let x = feeds["x"].to_f32();
        let alone = f32s(&[1, 5], x[row * 5..][..5].to_vec());
        let alone = cuda
            .infer("logits", &BTreeMap::from([("x".to_owned(), alone)]))
            .expect("a result");
        for (one, all) in alone.iter().zip(&found) {
            assert_eq!(one.1.to_f32(), all.1.to_f32()[row * 3..][..3]);
        }
    }
}

/// Whether the processor's kernels fuse products and sums, as the device does.
fn is_x86_with_fma() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

#[test]
fn data_that_is_staged_gives_the_bits_of_data_that_is_resident() {
    if !is_there() {
        return;
    }
    let program = small().compile();
    let feeds = data(2050);
    let plan = TrainPlan {
        epochs: 2,
        batch_rows: 100,
        ..plan()
    };
    let train = |memory_bytes: Option<u64>| {
        let (device, control) = shim(DeviceOptions {
            memory_bytes,
            ..DeviceOptions::default()
        });
        let mut session = Session::new(Arc::clone(&program), &device, 3).expect("a session");
        let report = session
            .train(&feeds, None, &plan, &mut go_on)
            .expect("a training");
        let losses: Vec<u64> = report
            .epochs
            .iter()
            .map(|epoch| epoch.train_loss.to_bits())
            .collect();
        let launched = control.launched.lock().expect("counts").clone();
        let replayed = control.replayed.load(Ordering::SeqCst);
        (bits(&session), losses, launched, replayed)
    };
    let resident = train(None);
    // A quarter of the memory is less than the 49,200 bytes of data.
    let staged = train(Some(190 << 10));
    assert!(resident.2.contains_key("take_rows"));
    assert!(!staged.2.contains_key("take_rows"), "{:?}", staged.2);
    assert_eq!(resident.0, staged.0);
    assert_eq!(resident.1, staged.1);
    // Of 40 whole steps, 2 rests and 42 updates, the first of each size goes as it is.
    assert_eq!(resident.3, 39 + 1 + 41);
    // Staged ones take turns between two areas, which the rests of two epochs share fairly.
    assert_eq!(staged.3, 2 * 19 + 41);
}

#[test]
fn a_device_that_is_lost_is_opened_again_with_the_weights_of_the_host() {
    if !is_there() {
        return;
    }
    let program = small().compile();
    let (device, control) = shim(DeviceOptions::default());
    let mut session = Session::new(Arc::clone(&program), &device, 3).expect("a session");
    let feeds = data(64);
    session
        .train(&feeds, None, &plan(), &mut go_on)
        .expect("a training");
    let (weights, before) = (
        bits(&session),
        session.infer("logits", &x_of(&feeds)).expect("results"),
    );
    // During inference: it is done again on the device that came back.
    control.launches_until_lost.store(1, Ordering::SeqCst);
    let again = session.infer("logits", &x_of(&feeds)).expect("results");
    assert_eq!(again, before);
    assert_eq!(control.opened.load(Ordering::SeqCst), 2);
    // During training: an error, and the weights of before.
    control.launches_until_lost.store(40, Ordering::SeqCst);
    let lost = session.train(&feeds, None, &plan(), &mut go_on);
    assert!(matches!(lost, Err(RunError::DeviceLost { .. })), "{lost:?}");
    assert_eq!(bits(&session), weights);
    assert_eq!(
        session.infer("logits", &x_of(&feeds)).expect("results"),
        before
    );
    // For good: an error each time, and the weights stay readable.
    control.launches_until_lost.store(0, Ordering::SeqCst);
    control.stays_lost.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let lost = session.infer("logits", &x_of(&feeds));
        assert!(matches!(lost, Err(RunError::DeviceLost { .. })), "{lost:?}");
    }
    assert_eq!(bits(&session), weights);
    control.stays_lost.store(false, Ordering::SeqCst);
    control.launches_until_lost.store(-1, Ordering::SeqCst);
    assert_eq!(
        session.infer("logits", &x_of(&feeds)).expect("results"),
        before
    );
}

#[test]
fn memory_is_bounded_and_comes_back() {
    if !is_there() {
        return;
    }
    let program = small().compile();
    let (device, _) = shim(DeviceOptions {
        memory_bytes: Some(256 << 10),
        ..DeviceOptions::default()
    });
    // Each session ends before the next: their memory is the same.
    for _ in 0..50 {
        let session = Session::new(Arc::clone(&program), &device, 3).expect("a session");
        let results = session.infer("logits", &x_of(&data(20)));
        assert_eq!(results.expect("results")[0].1.rows(), 20);
    }
    let mut kept = Vec::new();
    let refused = loop {
        match Session::new(Arc::clone(&program), &device, 3) {
            Ok(session) => kept.push(session),
            Err(error) => break error,
        }
        assert!(kept.len() < 1000, "memory without end");
    };
    assert!(
        matches!(refused, RunError::OutOfMemory { limit, .. } if limit == 256 << 10),
        "{refused:?}"
    );
    assert!(!kept.is_empty());
    kept.clear();
    Session::new(program, &device, 3).expect("a session again");
}

#[test]
fn tensor_cores_are_near_and_are_named() {
    if !is_there() {
        return;
    }
    let program = small().compile();
    let feeds = data(50);
    let run = |precision: Precision| {
        let (device, control) = shim(DeviceOptions {
            precision,
            ..DeviceOptions::default()
        });
        assert_eq!(device.precision(), precision);
        let mut session = Session::new(Arc::clone(&program), &device, 3).expect("a session");
        let gradients = session.gradients(&feeds).expect("gradients");
        let results = session.infer("logits", &x_of(&feeds)).expect("results");
        let numbers: Vec<f32> = gradients
            .by_parameter
            .values()
            .chain(results.iter().map(|(_, tensor)| tensor))
            .flat_map(|tensor| tensor.to_f32())
            .collect();
        (numbers, control.products.load(Ordering::SeqCst))
    };
    let (strict, none) = run(Precision::F32Strict);
    assert_eq!(none, 0);
    for (precision, tolerance) in [(Precision::Tf32, 2e-3), (Precision::Bf16Mixed, 2e-2)] {
        let (found, products) = run(precision);
        // Two products forward, three backward, two more to infer.
        assert_eq!(products, 7, "{precision}");
        assert_ne!(found, strict);
        for (found, exact) in found.iter().zip(&strict) {
            let error = (found - exact).abs() / (1.0 + exact.abs());
            assert!(error < tolerance, "{precision}: {found} for {exact}");
        }
    }
}

#[test]
fn attention_of_every_tile_is_that_of_the_processor() {
    if !is_there() {
        return;
    }
    let (device, control) = shim(DeviceOptions::default());
    let processor = Device::open(sandcast_kernels::DeviceChoice::Cpu, None).expect("a processor");
    for (time, heads, key_heads, width, causal) in [
        (70, 4, 2, 64, true),
        (45, 2, 1, 72, true),
        (40, 2, 2, 128, false),
        (20, 2, 1, 200, true),
    ] {
        let mut builder = Builder::new();
        let of = |heads| by_row(&[time, heads, width]);
        let x = builder.input("x", DType::Float32, of(heads));
        let mut part = |name: &str, heads: u32, start: u32| {
            let scale = builder.parameter(name, &[width], Initializer::Uniform(1.0));
            let operand = builder.node(Node::Slice(SliceNode {
                operand: x,
                axis: 2,
                start,
                limit: start + heads,
            }));
            builder.multiply(operand, scale)
        };
        let query = part("query", heads, 0);
        let key = part("key", key_heads, 0);
        let value = part("value", key_heads, heads - key_heads);
        let result = builder.node(Node::Attention(AttentionNode {
            query,
            key,
            value,
            mask: None,
            causal,
            scale: None,
        }));
        let square = builder.unary(UnaryOperation::Square, result);
        let per_row = builder.reduce(Reduction::Mean, square, &[1, 2, 3], false);
        builder.entry("result", &[("result", result)]);
        builder.loss(per_row, None);
        let program = builder.compile();
        let shape = [2, time as usize, heads as usize, width as usize];
        let x = numbers(shape.iter().product(), 8);
        let feeds = BTreeMap::from([("x".to_owned(), f32s(&shape, x))]);
        let run = |device: &Device| -> Vec<f32> {
            let mut session = Session::new(Arc::clone(&program), device, 3).expect("a session");
            let gradients = session.gradients(&feeds).expect("gradients");
            let results = session.infer("result", &feeds).expect("results");
            let slopes = gradients.by_parameter.values();
            let numbers = slopes.chain(results.iter().map(|(_, tensor)| tensor));
            numbers.flat_map(|tensor| tensor.to_f32()).collect()
        };
        for (found, expected) in run(&device).iter().zip(run(&processor)) {
            let error = (found - expected).abs();
            assert!(error < 2e-5, "{width} wide: {found} for {expected}");
        }
        let launched = control.launched.lock().expect("counts");
        for kernel in ["attention", "attention_slope_q", "attention_slope_kv"] {
            let name = format!("{kernel}_{width}");
            assert!(launched.contains_key(&name), "{name} did not run");
        }
    }
}
