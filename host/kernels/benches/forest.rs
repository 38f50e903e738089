//! A forest trained and asked on data that `forest.py` wrote, whose figures it sets beside those
//! of another program: one JSON object. Its argument is the path of a JSON object that says what
//! there is and how to train.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use sandcast_kernels::trees::*;

/// The numbers of a file, little-endian.
fn numbers<T>(path: &Path, from: fn([u8; 4]) -> T) -> Vec<T> {
    let bytes = std::fs::read(path).expect("the file is there");
    let (fours, _) = bytes.as_chunks::<4>();
    fours.iter().map(|four| from(*four)).collect()
}

/// How long all threads were on a processor, where the system says so: other work on the machine
/// does not count.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // User and system time in hundredths of a second, after the name in brackets.
    let (_, rest) = text.rsplit_once(')').unwrap_or_default();
    let ticks: f64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

/// Microseconds of one call, the fastest of some rounds of many.
fn microseconds(calls: u32, mut call: impl FnMut()) -> f64 {
    (0..7)
        .map(|_| {
            let started = Instant::now();
            (0..calls).for_each(|_| call());
            started.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
        })
        .fold(f64::INFINITY, f64::min)
}

/// The rows of one part of the data.
struct Part {
    rows: usize,
    numbers: (usize, Vec<f32>),
    categories: (usize, Vec<i32>),
    labels: Vec<i32>,
}

impl Part {
    fn read(folder: &Path, part: &str, given: &serde_json::Value) -> Part {
        let columns = |name: &str| given[name].as_u64().unwrap_or(0) as usize;
        let path = |name: &str| folder.join(format!("{part}.{name}"));
        let labels = numbers(&path("labels"), i32::from_le_bytes);
        Part {
            rows: labels.len(),
            numbers: (
                columns("numbers"),
                numbers(&path("numbers"), f32::from_le_bytes),
            ),
            categories: (
                columns("categories"),
                numbers(&path("categories"), i32::from_le_bytes),
            ),
            labels,
        }
    }

    fn table(&self, first: usize, rows: usize) -> Table<'_> {
        let (numbers, categories) = (self.numbers.0, self.categories.0);
        let rows_of = |width: usize| first * width..(first + rows) * width;
        Table::new(
            rows,
            (numbers, &self.numbers.1[rows_of(numbers)]),
            (categories, &self.categories.1[rows_of(categories)]),
        )
        .expect("a table")
    }
}

fn main() {
    let Some(path) = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"))
    else {
        println!("host/kernels/benches/forest.py runs this");
        return;
    };
    let path = Path::new(&path);
    let text = std::fs::read(path).expect("the plan is there");
    let given: serde_json::Value = serde_json::from_slice(&text).expect("the plan is JSON");
    let folder = path.parent().expect("a folder");
    let (training, test) = (
        Part::read(folder, "training", &given),
        Part::read(folder, "test", &given),
    );
    let number = |name: &str, default: u64| given[name].as_u64().unwrap_or(default) as u32;
    let threads = NonZeroUsize::new(number("threads", 1) as usize);
    let workers = Workers::start(threads).expect("threads");
    let plan = ForestPlan {
        objective: Objective::Logistic,
        rounds: number("rounds", 200),
        max_leaves: number("leaves", 31),
        learning_rate: given["learning_rate"].as_f64().unwrap_or(0.1) as f32,
        ..ForestPlan::default()
    };
    let job = ForestJob {
        training: Examples {
            table: training.table(0, training.rows),
            targets: Targets::Labels(&training.labels),
            weights: None,
        },
        validation: None,
        plan: &plan,
        caps: &ForestCaps::default(),
        seed: u64::from(number("seed", 7)),
    };
    let go_on = &mut |_: ForestProgress<'_>| ControlFlow::Continue(());
    let (started, before) = (Instant::now(), processor_seconds());
    let (forest, report) = Forest::train(&job, &workers, go_on).expect("a forest");
    let train_seconds = started.elapsed().as_secs_f64();
    let processor = processor_seconds() - before;
    let predict = |first: usize, rows: usize| {
        let table = test.table(first, rows);
        forest.predict(&table, &workers).expect("a prediction")
    };
    let shares: Vec<u8> = predict(0, test.rows)
        .iter()
        .flat_map(|share| share.to_le_bytes())
        .collect();
    std::fs::write(folder.join("sandcast.shares"), shares).expect("the shares are written");
    // Another row each time, as a server sees them: one row again and again is learnt by heart.
    let mut row = 0;
    let forest_bytes = forest.to_bytes();
    println!(
        "{}",
        serde_json::json!({
            "program": "sandcast",
            "train_seconds": train_seconds,
            "train_processor_seconds": processor,
            "rounds_seconds": report.rounds.iter().map(|round| round.duration.as_secs_f64()).sum::<f64>(),
            "train_loss": report.rounds.last().map(|round| round.train_loss),
            "one_row_microseconds": microseconds(20_000, || {
                row = (row + 1) % test.rows.min(1024);
                drop(predict(row, 1));
            }),
            "batch_microseconds": microseconds(20, || drop(predict(0, test.rows.min(1024)))),
            "bytes": forest_bytes.len(),
        })
    );
}
