//! What is special to the CUDA backend, on the shim (see `support/shim`): memory, staging, recorded
//! work, loss of the device, precisions, and the kernels of attention. Needs a C++ compiler; says so
//! and passes where there is none.

#![expect(
    unsafe_code,
    reason = "kernels of attention are launched by hand, with addresses"
)]

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sandcast_kernels::cuda::driver::{Driver, Function, Grid, Opener};
use sandcast_kernels::graph::*;
use sandcast_kernels::{
    Device, DeviceOptions, Feeds, Precision, RunError, Schedule, Session, TrainPlan,
};
use support::shim::{Control, ShimOpener};
use support::*;

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
    let y = x.chunks_exact(5).map(|row| i32::from(row[0] > 0.0) + i32::from(row[1] > 0.3));
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
        epochs: 4,
        batch_rows: 32,
        learning_rate: 1e-2,
        schedule: Schedule::Constant,
        clip_norm: Some(1.0),
        patience: None,
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
    let session = |device: &Device| {
        Session::new(Arc::clone(&program), device, 3).expect("a session")
    };
    let (cuda, cpu) = (session(&device), session(&processor));
    // 130 rows are a bucket of 256, and two pieces on the processor.
    let feeds = x_of(&data(130));
    let found = cuda.infer("logits", &feeds).expect("results");
    let expected = cpu.infer("logits", &feeds).expect("results");
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) || is_x86_with_fma() {
        assert_eq!(found, expected);
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
        assert!(
            device.name().contains(&precision.to_string()),
            "{}",
            device.name()
        );
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

/// A case of attention.
#[derive(Clone, Copy, Debug)]
struct Case {
    batch: usize,
    q_time: usize,
    k_time: usize,
    heads: usize,
    groups: usize,
    width: usize,
    causal: bool,
}

/// Results, levels, and the gradients of queries, keys and values, by definition in float64.
fn attention_by_definition(of: Case, q: &[f32], k: &[f32], v: &[f32], g: &[f32]) -> [Vec<f64>; 5] {
    let Case {
        batch,
        q_time,
        k_time,
        heads,
        groups,
        width,
        causal,
    } = of;
    let scale = 1.0 / (width as f64).sqrt();
    let at_q = |b, t, h| ((b * q_time + t) * heads + h) * width;
    let at_k = |b, t, h| ((b * k_time + t) * groups + h / (heads / groups)) * width;
    let [mut out, mut dq] = [vec![0.0; q.len()], vec![0.0; q.len()]];
    let [mut dk, mut dv] = [vec![0.0; k.len()], vec![0.0; k.len()]];
    let mut levels = vec![0.0; batch * heads * q_time];
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    for b in 0..batch {
        for h in 0..heads {
            for t in 0..q_time {
                let query = at_q(b, t, h);
                let seen = if causal { t + k_time - q_time + 1 } else { k_time };
                let scores: Vec<f64> = (0..seen)
                    .map(|s| scale * dot(&q[query..][..width], &k[at_k(b, s, h)..][..width]))
                    .collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
                levels[(b * heads + h) * q_time + t] = most + total.ln();
                let weights: Vec<f64> =
                    scores.iter().map(|score| (score - most).exp() / total).collect();
                for (s, weight) in weights.iter().enumerate() {
                    for c in 0..width {
                        out[query + c] += weight * f64::from(v[at_k(b, s, h) + c]);
                    }
                }
                let slopes: Vec<f64> = (0..seen)
                    .map(|s| dot(&g[query..][..width], &v[at_k(b, s, h)..][..width]))
                    .collect();
                let mean: f64 = weights.iter().zip(&slopes).map(|(w, slope)| w * slope).sum();
                for s in 0..seen {
                    let key = at_k(b, s, h);
                    let change = weights[s] * (slopes[s] - mean) * scale;
                    for c in 0..width {
                        dq[query + c] += change * f64::from(k[key + c]);
                        dk[key + c] += change * f64::from(q[query + c]);
                        dv[key + c] += weights[s] * f64::from(g[query + c]);
                    }
                }
            }
        }
    }
    [out, levels, dq, dk, dv]
}

fn near(name: &str, of: Case, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(*found) - expected).abs() < 2e-5 * (1.0 + expected.abs()),
            "{name} of {of:?} at {place}: {found} for {expected}"
        );
    }
}

fn run_attention(driver: &dyn Driver, of: Case) {
    let (unit, [queries, keys]) =
        sandcast_kernels::cuda::attention(of.width).expect("kernels of this width");
    let functions = driver.load(&unit).expect("kernels");
    let [forward, slope_q, slope_kv, deltas] = functions.as_slice() else {
        panic!("{:?}", unit.names);
    };
    let q_count = of.batch * of.q_time * of.heads * of.width;
    let k_count = of.batch * of.k_time * of.groups * of.width;
    let rows = of.batch * of.heads * of.q_time;
    let [q, g] = [numbers(q_count, 1), numbers(q_count, 4)];
    let [k, v] = [numbers(k_count, 2), numbers(k_count, 3)];
    let stream = driver.open_stream().expect("a stream");
    let room = |count: usize| driver.allocate(count as u64 * 4).expect("memory");
    let given = |values: &[f32]| {
        let address = room(values.len());
        // SAFETY: both are as long; the values outlive the copy, which is waited for.
        unsafe {
            let from = values.as_ptr().cast();
            driver.copy_in(stream, address, from, values.len() * 4).expect("a copy");
        }
        driver.wait(stream).expect("a copy");
        address
    };
    let inputs = [&q, &k, &v, &g].map(|values| given(values));
    let [at_q, at_k, at_v, at_g] = inputs;
    let results = [q_count, rows, rows, q_count, k_count, k_count].map(|count| (room(count), count));
    let [out, levels, delta, dq, dk, dv] = results.map(|(address, _)| address);
    let sizes = [
        of.batch as u64,
        of.q_time as u64,
        of.k_time as u64,
        of.heads as u64,
        of.groups as u64,
        u64::from(of.causal),
        u64::from((1.0 / (of.width as f32).sqrt()).to_bits()),
    ];
    let launch = |function: Function, blocks: usize, threads: u32, addresses: &[u64]| {
        let arguments = [addresses, &sizes].concat();
        let grid = Grid {
            blocks: blocks as u32,
            threads,
        };
        // SAFETY: the memory above, of the sizes that the kernels take.
        unsafe { driver.launch(stream, function, grid, &arguments) }.expect("a launch");
    };
    let query_blocks = of.batch * of.heads * of.q_time.div_ceil(queries as usize);
    let key_blocks = of.batch * of.groups * of.k_time.div_ceil(keys as usize);
    launch(*forward, query_blocks, queries * 4, &[at_q, at_k, at_v, out, levels]);
    let arguments = [out, at_g, delta, sizes[0], sizes[1], sizes[3], of.width as u64];
    let grid = Grid {
        blocks: rows.div_ceil(8) as u32,
        threads: 256,
    };
    // SAFETY: as above.
    unsafe { driver.launch(stream, *deltas, grid, &arguments) }.expect("a launch");
    launch(
        *slope_q,
        query_blocks,
        queries * 4,
        &[at_q, at_k, at_v, at_g, levels, delta, dq],
    );
    launch(
        *slope_kv,
        key_blocks,
        keys * 4,
        &[at_q, at_k, at_v, at_g, levels, delta, dk, dv],
    );
    driver.wait(stream).expect("kernels that run");
    let [expected_out, expected_levels, expected_q, expected_k, expected_v] =
        attention_by_definition(of, &q, &k, &v, &g);
    for (name, address, expected) in [
        ("results", out, expected_out),
        ("levels", levels, expected_levels),
        ("slope of queries", dq, expected_q),
        ("slope of keys", dk, expected_k),
        ("slope of values", dv, expected_v),
    ] {
        let mut found = vec![0.0_f32; expected.len()];
        // SAFETY: as long as what is copied, and waited for.
        unsafe {
            let to = found.as_mut_ptr().cast();
            driver.copy_out(stream, to, address, found.len() * 4).expect("a copy");
        }
        driver.wait(stream).expect("a copy");
        near(name, of, &found, &expected);
    }
    for address in inputs.into_iter().chain(results.map(|(address, _)| address)) {
        // SAFETY: taken above, and everything was waited for.
        unsafe { driver.release(address) };
    }
    driver.close_stream(stream);
}

#[test]
fn kernels_of_attention_are_attention() {
    if !is_there() {
        return;
    }
    let driver = ShimOpener::default().open().expect("the shim opens");
    let case = Case {
        batch: 2,
        q_time: 37,
        k_time: 37,
        heads: 4,
        groups: 4,
        width: 16,
        causal: true,
    };
    for of in [
        case,
        Case {
            causal: false,
            groups: 2,
            ..case
        },
        Case {
            groups: 1,
            k_time: 70,
            ..case
        },
        Case {
            q_time: 1,
            k_time: 45,
            width: 64,
            groups: 2,
            ..case
        },
        Case {
            batch: 1,
            q_time: 33,
            k_time: 33,
            width: 128,
            groups: 2,
            ..case
        },
        Case {
            batch: 1,
            q_time: 1,
            k_time: 1,
            heads: 1,
            groups: 1,
            ..case
        },
    ] {
        run_attention(&*driver, of);
    }
}
