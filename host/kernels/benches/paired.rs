//! Figures that `paired.py` sets beside those of another program: one JSON object a line.
//! Arguments: `train <threads> <rows>`, `infer <threads> <rows>`, `gpt <threads> <steps>`,
//! `decode <threads> <tokens>` or `quality <threads> <text file>`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures are its output"
)]

mod decoder;
mod model;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How long this thread was on a processor, where the system says so: other work on the machine
/// does not count.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

/// Seconds of a piece of work: by the clock, and of this thread on a processor.
fn seconds(work: impl FnOnce()) -> (f64, Option<f64>) {
    let (started, before) = (Instant::now(), processor_time());
    work();
    let wall = started.elapsed().as_secs_f64();
    let spent = processor_time()
        .zip(before)
        .map(|(after, before)| (after - before).as_secs_f64());
    (wall, spent)
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"));
    let what = arguments.next().unwrap_or_else(|| "train".into());
    if matches!(what.as_str(), "gpt" | "decode" | "quality") {
        let threads = arguments.next().and_then(|text| text.parse().ok());
        return decoder::run(&what, threads.unwrap_or(1), arguments.next());
    }
    let mut number = |default: usize| {
        arguments
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (threads, rows) = (number(1), number(51_200));
    let program = model::program();
    let mut session = model::session(&program, threads);
    let feeds = model::feeds(rows);
    let (unit, wall, spent) = match what.as_str() {
        "infer" => {
            let feeds = feeds.into_iter().filter(|(name, _)| name == "x").collect();
            let run = || session.infer("predict", &feeds).expect("a prediction");
            let calls = (2_000_000 / (rows + 200)).max(10);
            (0..calls / 10 + 1).for_each(|_| drop(run()));
            let (wall, spent) = seconds(|| (0..calls).for_each(|_| drop(run())));
            let each = |seconds: f64| seconds * 1e6 / calls as f64;
            ("microseconds", each(wall), spent.map(each))
        }
        _ => {
            let mut train = |epochs| {
                let go_on = &mut |_: sandcast_kernels::Progress<'_>| ControlFlow::Continue(());
                session
                    .train(&feeds, None, &model::plan(epochs), go_on)
                    .expect("a training")
            };
            train(1);
            let epochs = 3;
            let (wall, spent) = seconds(|| drop(train(epochs)));
            let rate = |seconds: f64| f64::from(epochs) * rows as f64 / seconds;
            ("rows_per_second", rate(wall), spent.map(rate))
        }
    };
    let spent_unit = format!("{unit}_of_processor_time");
    println!(
        "{}",
        serde_json::json!({
            "program": "sandcast", "what": what, "threads": threads, "rows": rows,
            unit: wall, spent_unit: spent,
        })
    );
}
