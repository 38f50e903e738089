//! What a device can do: ceilings first, then programs against them: those of [`programs`].

pub mod programs;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::graph::*;
use crate::{Caps, Device, Program, Prompt, RunError, Sampling, Session};
use programs::{Builder, Decoder, MOST_ROWS, decoder, perceptron, plan, rows, steps, tensor, text};

/// Bytes copied: more than any cache holds for one core.
const COPY_BYTES: usize = 256 << 20;

/// Rows, columns and inner extent of the matrix product.
const PRODUCT: usize = 1024;

/// Rows of one epoch of training.
const TRAINING_ROWS: usize = 12_800;

/// Rows of the larger prediction.
const MANY_ROWS: usize = 1024;

/// Sequences of a training step of the decoder.
const BATCH_OF_TEXT: u32 = 16;

/// Steps of a sample of it.
const STEPS: u32 = 2;

/// Samples of a figure at the least.
const LEAST_SAMPLES: usize = 5;

/// A sample takes at least so long; quick work is repeated.
const SAMPLE: Duration = Duration::from_millis(2);

/// What was measured. The names are stable.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Figures {
    /// The device.
    pub device: String,
    /// Every device that was found and can be used.
    pub devices: Vec<String>,
    /// Threads that computed.
    pub threads: usize,
    /// 10^9 bytes read and written a second by copying memory: what nothing that waits for memory
    /// passes.
    pub copy_gb_per_s: f64,
    /// 10^9 floating-point operations a second of a product of two matrices of 1,024 rows and columns:
    /// what nothing that computes passes.
    pub gemm_gflops: f64,
    /// Rows a second that the perceptron learns from.
    pub mlp_train_rows_per_s: f64,
    /// Its share of `gemm_gflops`.
    pub mlp_train_of_gemm: f64,
    /// Microseconds of a prediction of one row.
    pub mlp_infer_1_us: f64,
    /// The bytes of its weights in that time, as a share of `copy_gb_per_s`; above 1 where they
    /// stay in a cache.
    pub mlp_infer_1_of_copy: f64,
    /// Microseconds of a prediction of 1,024 rows.
    pub mlp_infer_1024_us: f64,
    /// Its share of `gemm_gflops`.
    pub mlp_infer_1024_of_gemm: f64,
    /// Milliseconds of a training step of the decoder: 16 sequences of 128 tokens.
    pub gpt_step_ms: f64,
    /// Its share of `gemm_gflops`.
    pub gpt_step_of_gemm: f64,
    /// Tokens a second that the decoder writes of one sequence.
    pub decode_tokens_per_s: f64,
    /// The bytes of its weights for each of them, as a share of `copy_gb_per_s`; above 1 where
    /// they stay in a cache.
    pub decode_of_copy: f64,
    /// Tokens a second that it writes of 16 sequences at a time, all together.
    pub decode_16_tokens_per_s: f64,
}

/// Measures a device, each figure for about as long as `each`. `tell` hears what is being measured.
///
/// # Errors
/// When the device refuses a program.
pub fn measure(
    device: &Device,
    threads: usize,
    each: Duration,
    tell: &mut dyn FnMut(&str),
) -> Result<Figures, RunError> {
    tell("copying memory");
    let copy = copy_seconds(threads, each);
    tell("multiplying matrices");
    let gemm_gflops = gemm(device, each)?;
    let program = compiled(perceptron());
    let flops_of_row = |entry: &str| {
        let cost = program.costs().iter().find(|cost| cost.entry == entry);
        cost.map_or(0.0, |cost| cost.flops as f64 / f64::from(MOST_ROWS))
    };
    let share = |rows_per_s: f64, entry: &str| rows_per_s * flops_of_row(entry) / gemm_gflops / 1e9;

    tell("training");
    let mut session = Session::new(Arc::clone(&program), device, 7)?;
    let (rows, plan) = (rows(TRAINING_ROWS), plan(1));
    let mut refused = None;
    let epoch = median_seconds(each, &mut || {
        let go_on = &mut |_: crate::Progress<'_>| ControlFlow::Continue(());
        refused = session
            .train(&rows, None, &plan, go_on)
            .err()
            .or(refused.take());
    });
    let mlp_train_rows_per_s = TRAINING_ROWS as f64 / epoch;

    let mut predict = |rows: usize| {
        tell(&format!("predicting {rows} rows"));
        let mut feeds = self::rows(rows);
        feeds.remove("y");
        median_seconds(each, &mut || {
            refused = session.infer("predict", &feeds).err().or(refused.take());
        })
    };
    let (one, many) = (predict(1), predict(MANY_ROWS));
    if let Some(error) = refused {
        return Err(error);
    }

    tell("training the decoder");
    let shape = Decoder::default();
    let writer = compiled(decoder(&shape));
    let cost = writer.costs().iter().find(|cost| cost.entry == "loss");
    let step_flops = cost.map_or(0.0, |cost| {
        cost.flops as f64 * f64::from(BATCH_OF_TEXT) / f64::from(shape.most_rows)
    });
    let mut session = Session::new(writer, device, 7)?;
    let feeds = text(&shape, 4096);
    let mut refused = None;
    let gpt_step = median_seconds(each, &mut || {
        let go_on = &mut |_: crate::Progress<'_>| ControlFlow::Continue(());
        let trained = session.train(&feeds, None, &steps(STEPS, BATCH_OF_TEXT), go_on);
        refused = trained.err().or(refused.take());
    }) / f64::from(STEPS);
    let mut decode = |sequences: usize| {
        tell(&format!("writing {sequences} sequences"));
        let written = shape.context / 2;
        let seconds = median_seconds(each, &mut || {
            let prompts = (0..sequences)
                .map(|salt| prompt(&shape, salt, written))
                .collect();
            let go_on = &mut |_| ControlFlow::Continue(());
            let done = session.generate(prompts, sequences, go_on);
            refused = done.err().or(refused.take());
        });
        sequences as f64 * f64::from(written) / seconds
    };
    let (decode_tokens_per_s, decode_16_tokens_per_s) = (decode(1), decode(16));
    if let Some(error) = refused {
        return Err(error);
    }
    let copy_gb_per_s = 2.0 * COPY_BYTES as f64 / copy / 1e9;
    let of_copy =
        |weights: u64, times_per_s: f64| 4.0 * weights as f64 * times_per_s / copy_gb_per_s / 1e9;
    Ok(Figures {
        device: device.name().to_owned(),
        devices: Device::probe()
            .into_iter()
            .filter(|found| found.usable)
            .map(|found| found.name)
            .collect(),
        threads,
        copy_gb_per_s,
        gemm_gflops,
        mlp_train_rows_per_s,
        mlp_train_of_gemm: share(mlp_train_rows_per_s, "loss"),
        mlp_infer_1_us: one * 1e6,
        mlp_infer_1_of_copy: of_copy(program.parameter_count(), 1.0 / one),
        mlp_infer_1024_us: many * 1e6,
        mlp_infer_1024_of_gemm: share(MANY_ROWS as f64 / many, "predict"),
        gpt_step_ms: gpt_step * 1e3,
        gpt_step_of_gemm: step_flops / gpt_step / gemm_gflops / 1e9,
        decode_tokens_per_s,
        decode_of_copy: of_copy(session.program().parameter_count(), decode_tokens_per_s),
        decode_16_tokens_per_s,
    })
}

/// A prompt of one token, to be gone on from.
fn prompt(shape: &Decoder, salt: usize, tokens: u32) -> Prompt {
    Prompt {
        tokens: vec![salt as u32 % shape.vocabulary],
        sampling: Sampling {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            maximum_tokens: tokens,
            stop: Vec::new(),
            seed: salt as u64,
            drawn: 0,
            slide: false,
        },
    }
}

/// A graph of ours, which compiles.
fn compiled(graph: Graph) -> Arc<Program> {
    let program = Program::compile(graph, &Caps::default());
    Arc::new(program.unwrap_or_else(|diagnostic| unreachable!("{diagnostic}")))
}

/// 10^9 floating-point operations a second of one matrix product.
fn gemm(device: &Device, each: Duration) -> Result<f64, RunError> {
    let side = Extent::Fixed(PRODUCT as u32);
    let mut builder = Builder(Graph {
        symbols: vec![Symbol {
            name: "rows".into(),
            maximum: PRODUCT as u32,
        }],
        ..Graph::default()
    });
    let left = builder.node(Node::Input(Input {
        name: "x".into(),
        dtype: DType::Float32,
        shape: vec![Extent::Symbol(0), side],
    }));
    let right = builder.parameter("w", &[PRODUCT as u32; 2], Initializer::HeUniform);
    let node = builder.node(Node::Matmul(MatmulNode { left, right }));
    let mut graph = builder.0;
    graph.entries.push(Entry {
        name: "product".into(),
        outputs: vec![Output {
            name: "y".into(),
            node,
        }],
    });
    let session = Session::new(compiled(graph), device, 1)?;
    let x = tensor(vec![PRODUCT; 2], vec![0.5; PRODUCT * PRODUCT]);
    let feeds = BTreeMap::from([("x".to_owned(), x)]);
    session.infer("product", &feeds)?;
    let seconds = median_seconds(each, &mut || {
        black_box(session.infer("product", &feeds).ok());
    });
    Ok(2.0 * (PRODUCT as f64).powi(3) / seconds / 1e9)
}

/// Seconds to copy memory with so many threads.
fn copy_seconds(threads: usize, each: Duration) -> f64 {
    let from = vec![1_u8; COPY_BYTES];
    let mut to = vec![0_u8; COPY_BYTES];
    let part = COPY_BYTES.div_ceil(threads.max(1));
    median_seconds(each, &mut || {
        std::thread::scope(|scope| {
            for (from, to) in from.chunks(part).zip(to.chunks_mut(part)) {
                scope.spawn(move || to.copy_from_slice(from));
            }
        });
        black_box(&mut to);
    })
}

/// The median over samples of the seconds that a piece of work takes, once it is warm.
fn median_seconds(each: Duration, work: &mut dyn FnMut()) -> f64 {
    work();
    let began = Instant::now();
    work();
    let once = began.elapsed().max(Duration::from_nanos(1));
    let times = (SAMPLE.as_secs_f64() / once.as_secs_f64()).ceil().max(1.0) as u32;
    let mut samples = Vec::new();
    let began = Instant::now();
    while samples.len() < LEAST_SAMPLES || began.elapsed() < each {
        let sample = Instant::now();
        (0..times).for_each(|_| work());
        samples.push(sample.elapsed().as_secs_f64() / f64::from(times));
    }
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceChoice;

    #[test]
    fn every_figure_is_a_number_that_can_be() {
        let device = Device::open(DeviceChoice::Cpu, std::num::NonZeroUsize::new(1));
        let mut told = Vec::new();
        let figures = measure(
            &device.expect("the processor"),
            1,
            Duration::ZERO,
            &mut |what| told.push(what.to_owned()),
        );
        let figures = figures.expect("measured");
        let json = serde_json::to_value(&figures).expect("JSON");
        for (name, figure) in json.as_object().expect("an object") {
            if let Some(figure) = figure.as_f64() {
                assert!(figure.is_finite() && figure > 0.0, "{name}: {figure}");
            }
        }
        // A row of the perceptron is two flops for each of its weights, and three times as many to
        // learn from, so the shares follow from the rates.
        let flops = 2.0 * (30.0 * 256.0 + 256.0 * 128.0 + 128.0 * 2.0);
        let share = figures.mlp_train_rows_per_s * 3.0 * flops / figures.gemm_gflops / 1e9;
        let ratio = figures.mlp_train_of_gemm / share;
        assert!((0.8..1.4).contains(&ratio), "{ratio}");
        assert_eq!(told.len(), 8);
    }

    #[test]
    fn a_median_is_of_what_the_work_took() {
        let nap = Duration::from_millis(3);
        let median = median_seconds(Duration::ZERO, &mut || std::thread::sleep(nap));
        assert!(median >= nap.as_secs_f64());
    }
}
