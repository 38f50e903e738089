//! `sandcast bench`: what this machine can do.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use sandcast_kernels::measure::{Figures, measure};
use sandcast_kernels::{Device, DeviceOptions, Precision};

use crate::{
    arguments::DeviceArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    progress::Step,
    table::{Table, count},
};

const EXAMPLES: &str = "\
Examples:
  sandcast bench                       all cores, less than half a minute
  sandcast bench --threads 1           one core
  sandcast bench --json | jq .mlp_train_rows_per_s

Two ceilings are measured first: how fast memory is copied, and how fast large matrices are
multiplied. Then two programs run, with the share of a ceiling that they reach: a perceptron of 30
inputs and layers of 256, 128 and 2 learns and predicts; a decoder transformer of 4 layers, 128 wide,
learns from 16 sequences of 128 tokens at a time and writes. What is said of copying counts the bytes
of all weights once for each row or token; it passes 100 % where they stay in a cache. Leave the
machine alone meanwhile.";

/// Measure what this machine can do
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    device: DeviceArguments,
    /// The least exact that matrix products may be on a GPU: f32-strict, tf32 or bf16-mixed
    #[arg(long, value_name = "PRECISION", default_value = "f32-strict")]
    precision: Precision,
    /// Seconds for each figure
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

pub(crate) fn execute(arguments: &BenchArguments, output: &Output) -> Result<Exit, Failure> {
    let threads = arguments
        .device
        .threads
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN);
    let device = Device::open_with(DeviceOptions {
        threads: Some(threads),
        precision: arguments.precision,
        ..arguments.device.options()
    })
    .or_reject()?;
    let mut step = Step::begin(output, "bench");
    let each = Duration::from_secs(arguments.seconds);
    let figures = measure(&device, threads.get(), each, &mut |what| step.update(what))?;
    step.done(&figures.device);
    if output.wants_json() {
        output.json(&figures)?;
    } else {
        output.line(table(&figures))?;
    }
    Ok(Exit::Done)
}

fn table(figures: &Figures) -> Table {
    let whole = |number: f64| count(number.round() as u64);
    let share = |share: f64| format!("{:.0} % of gemm", share * 100.0);
    let of_copy = |share: f64| format!("{:.0} % of copy", share * 100.0);
    let mut table = Table::with_headings(["", "figure", "unit", "limit"]).numbers_at(&[1]);
    for (what, figure, unit, limit) in [
        (
            "copy",
            format!("{:.1}", figures.copy_gb_per_s),
            "GB/s, read and written",
            String::new(),
        ),
        (
            "gemm",
            format!("{:.0}", figures.gemm_gflops),
            "GFLOP/s, float32",
            String::new(),
        ),
        (
            "mlp training",
            whole(figures.mlp_train_rows_per_s),
            "rows/s",
            share(figures.mlp_train_of_gemm),
        ),
        (
            "mlp, 1 row",
            format!("{:.1}", figures.mlp_infer_1_us),
            "µs",
            of_copy(figures.mlp_infer_1_of_copy),
        ),
        (
            "mlp, 1,024 rows",
            whole(figures.mlp_infer_1024_us),
            "µs",
            share(figures.mlp_infer_1024_of_gemm),
        ),
        (
            "gpt training, 16 x 128",
            format!("{:.1}", figures.gpt_step_ms),
            "ms a step",
            share(figures.gpt_step_of_gemm),
        ),
        (
            "gpt decode",
            whole(figures.decode_tokens_per_s),
            "tokens/s",
            of_copy(figures.decode_of_copy),
        ),
        (
            "gpt decode, 16 at a time",
            whole(figures.decode_16_tokens_per_s),
            "tokens/s",
            String::new(),
        ),
    ] {
        table.row([what.to_owned(), figure, unit.to_owned(), limit]);
    }
    table
}
