//! The decoder transformer: a step of training, the writing of tokens, and how well it learns.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use sandcast_kernels::measure::programs::{Decoder, decoder, sequences, steps, text};
use sandcast_kernels::{
    Caps, Device, DeviceChoice, Feeds, Program, Progress, Prompt, Sampling, Schedule, Session,
    TrainPlan,
};

const BATCH: u32 = 16;

pub(crate) fn run(what: &str, threads: usize, argument: Option<String>) {
    let count = |default: u32| {
        let given = argument.as_deref().and_then(|text| text.parse().ok());
        given.unwrap_or(default)
    };
    let (unit, figure, seconds) = match what {
        "gpt" => ("milliseconds", step(threads, count(20)), None),
        "decode" => ("tokens_per_second", decode(threads, count(100)), None),
        _ => {
            let path = argument.expect("the path of a text");
            let (loss, seconds, lines) = quality(threads, &path);
            eprintln!("{lines}");
            ("validation_loss", loss, Some(seconds))
        }
    };
    println!(
        "{}",
        serde_json::json!({
            "program": "sandcast", "what": what, "threads": threads, unit: figure,
            "seconds": seconds,
        })
    );
}

fn session(shape: &Decoder, threads: usize) -> Session {
    let program = Program::compile(decoder(shape), &Caps::default());
    let device = Device::open(DeviceChoice::Cpu, NonZeroUsize::new(threads));
    let program = Arc::new(program.expect("the graph compiles"));
    Session::new(program, &device.expect("the processor"), 7).expect("a session")
}

fn train(
    session: &mut Session,
    feeds: &Feeds,
    validation: Option<&Feeds>,
    plan: &TrainPlan,
) -> f64 {
    let go_on = &mut |_: Progress<'_>| ControlFlow::Continue(());
    let report = session.train(feeds, validation, plan, go_on);
    let report = report.expect("a training");
    let last = report.epochs.last();
    last.and_then(|epoch| epoch.validation_loss)
        .unwrap_or(f64::NAN)
}

/// Milliseconds of a step.
fn step(threads: usize, count: u32) -> f64 {
    let shape = Decoder::default();
    let mut session = session(&shape, threads);
    let feeds = text(&shape, 4096);
    train(&mut session, &feeds, None, &steps(3, BATCH));
    let started = Instant::now();
    train(&mut session, &feeds, None, &steps(count, BATCH));
    started.elapsed().as_secs_f64() * 1e3 / f64::from(count)
}

fn sampling(maximum_tokens: u32) -> Sampling {
    Sampling {
        temperature: 1.0,
        top_k: None,
        top_p: None,
        maximum_tokens,
        stop: Vec::new(),
        seed: 1,
        drawn: 0,
        slide: true,
    }
}

/// Tokens a second of one sequence.
fn decode(threads: usize, count: u32) -> f64 {
    let session = session(&Decoder::default(), threads);
    let write = || {
        let prompt = Prompt {
            tokens: vec![1],
            sampling: sampling(count),
        };
        let go_on = &mut |_| ControlFlow::Continue(());
        let written = session.generate(vec![prompt], 1, go_on);
        written.expect("a generation")
    };
    write();
    let started = Instant::now();
    (0..5).for_each(|_| drop(write()));
    5.0 * f64::from(count) / started.elapsed().as_secs_f64()
}

/// The validation loss after 2,000 steps on nine tenths of a text, the seconds it took, and what
/// the model then writes.
fn quality(threads: usize, path: &str) -> (f64, f64, String) {
    let text = std::fs::read_to_string(path).expect("a text");
    let letters: Vec<char> = text.chars().collect::<BTreeSet<_>>().into_iter().collect();
    let stream: Vec<i32> = text
        .chars()
        .filter_map(|letter| letters.binary_search(&letter).ok())
        .map(|place| place as i32)
        .collect();
    let (training, validation) = stream.split_at(stream.len() * 9 / 10);
    let shape = Decoder {
        vocabulary: letters.len() as u32,
        ..Decoder::default()
    };
    let mut session = session(&shape, threads);
    let plan = TrainPlan {
        learning_rate: 2e-3,
        schedule: Schedule::Cosine {
            warmup_steps: 100,
            floor: 0.1,
        },
        ..steps(2000, BATCH)
    };
    let validation = sequences(&shape, validation, shape.context as usize);
    let started = Instant::now();
    let loss = train(
        &mut session,
        &sequences(&shape, training, 1),
        Some(&validation),
        &plan,
    );
    let seconds = started.elapsed().as_secs_f64();
    let start = letters.binary_search(&'\n').unwrap_or(0) as u32;
    let prompt = Prompt {
        tokens: vec![start],
        sampling: Sampling {
            temperature: 0.8,
            ..sampling(400)
        },
    };
    let go_on = &mut |_| ControlFlow::Continue(());
    let written = session
        .generate(vec![prompt], 1, go_on)
        .expect("a generation");
    let lines = written[0]
        .tokens
        .iter()
        .map(|token| letters[*token as usize]);
    (loss, seconds, lines.collect())
}
