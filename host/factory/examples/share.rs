//! How much of a run is spent in sandboxes: `cargo build --workspace --example share`, then
//! `target/debug/examples/share PIPELINE`.
//!
//! Runs a pipeline whose plugins are built a few times in a state folder of its own, every stage
//! anew, and adds up what the audit log says about the instances of each run.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use sandcast_audit::Event;
use sandcast_factory::{Pipeline, RunOptions, Workspace, run};

const RUNS: usize = 11;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pipeline] = arguments.as_slice() else {
        eprintln!("give a pipeline file");
        return ExitCode::from(2);
    };
    match measure(Path::new(pipeline)).await {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(path: &Path) -> Result<Vec<String>, Failure> {
    let folder = tempfile::tempdir()?;
    let workspace = Workspace::open(&folder.path().join("state"))?;
    let pipeline = Pipeline::load(path)?;
    let mut lines = Vec::new();
    let (mut walls, mut shares) = (Vec::new(), Vec::new());
    for number in 0..=RUNS {
        let options = RunOptions {
            fresh: true,
            ..RunOptions::default()
        };
        let began = Instant::now();
        let outcome = run(&workspace, &pipeline, options).await?;
        let wall = began.elapsed().as_secs_f64();
        let (mut guest, mut instances, mut calls, mut bytes) = (0.0, 0_u64, 0_u64, 0_u64);
        for entry in workspace.audit().entries()? {
            if let Event::CallsFinished {
                run,
                host_calls,
                bytes_in,
                bytes_out,
                guest_seconds,
                ..
            } = entry.event
                && run.as_ref() == Some(outcome.run())
            {
                guest += guest_seconds;
                instances += 1;
                calls += host_calls.values().sum::<u64>();
                bytes += bytes_in + bytes_out;
            }
        }
        lines.push(format!(
            "run {number:>2}: {wall:.3} s, in guests {guest:.3} s ({:.1} %), {instances} instances, \
             {calls} host calls, {:.1} MB across the boundary",
            100.0 * guest / wall,
            bytes as f64 / 1e6
        ));
        // The first run compiles the plugins.
        if number > 0 {
            walls.push(wall);
            shares.push(guest / wall);
        }
    }
    lines.push(format!(
        "median of the last {RUNS}: {:.3} s, in guests {:.1} %",
        median(&mut walls),
        100.0 * median(&mut shares)
    ));
    Ok(lines)
}

fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
