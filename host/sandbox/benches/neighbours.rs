//! What a plugin that misbehaves costs the others: decisions of a policy at a steady rate, alone and
//! beside validators that trap, never come back, or take all the memory they may, in the engine and in
//! processes of their own.
//!
//! Latency is from when a decision was due, not from when it was begun, so waiting counts. Each
//! neighbour has rounds between quiet ones, and is set beside those.
//!
//! `cargo bench --workspace --bench neighbours -- [--rounds 5] [--seconds 4] [--rate 100] [--no-turns]
//! [--only memory,spin]`

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench that cannot go on ends, and tells its figures"
)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Int64Array, RecordBatch};
use sandcast_audit::AuditLog;
use sandcast_build::BuildRequest;
use sandcast_sandbox::process::{self, ProcessProgram};
use sandcast_sandbox::{
    ByteSize, CallContext, CallError, ControlPoint, DeviceChoice, Fairness, Grants, Isolation,
    Limits, Plugin, RandomGrant, Request, Role, Sandbox, SandboxConfig, TimeSpan,
};
use serde_json::json;

/// Validators that misbehave at one time.
const NEIGHBOURS: usize = 2;

struct Options {
    rounds: usize,
    seconds: f64,
    rate: f64,
    /// Whether long calls take turns and plugins that fail on end wait, as in a server.
    turns: bool,
    /// The neighbours to measure, if not all, with commas between.
    only: Option<String>,
}

fn options() -> Options {
    let mut options = Options {
        rounds: 5,
        seconds: 4.0,
        rate: 100.0,
        turns: true,
        only: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut text = || arguments.next().expect("something after each option");
        let mut number = || {
            let number = text().parse::<f64>();
            number.expect("a number after each option")
        };
        match name.as_str() {
            "--rounds" => options.rounds = number() as usize,
            "--seconds" => options.seconds = number(),
            "--rate" => options.rate = number(),
            "--no-turns" => options.turns = false,
            "--only" => options.only = Some(text()),
            _ => {}
        }
    }
    options
}

fn main() -> ExitCode {
    if let Some(exit) = process::enter() {
        return exit;
    }
    let options = options();
    // As the program makes its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(1)
        .global_queue_interval(1)
        .build()
        .expect("a runtime");
    runtime.block_on(compare(&options));
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

async fn compare(options: &Options) {
    let config = SandboxConfig {
        device: DeviceChoice::Cpu.into(),
        process: Some(ProcessProgram::this().expect("this program")),
        fairness: options.turns.then(Fairness::of_this_machine),
        ..SandboxConfig::default()
    };
    let sandbox = Sandbox::new(config, AuditLog::in_memory()).expect("a sandbox");
    let policy = load(&sandbox, "lots", Role::Policy, Isolation::Engine).await;
    let neighbours = [
        (
            "engine",
            load(
                &sandbox,
                "hostile-validator",
                Role::Validator,
                Isolation::Engine,
            )
            .await,
        ),
        (
            "process",
            load(
                &sandbox,
                "hostile-validator",
                Role::Validator,
                Isolation::Process,
            )
            .await,
        ),
    ];
    measure(&policy, options).await;
    println!(
        "{} decisions a second, {} rounds of {} s; milliseconds, medians of the rounds",
        options.rate, options.rounds, options.seconds
    );
    println!(
        "{:<9} {:<8} {:>8} {:>8} {:>10} {:>10} {:>7} {:>10}",
        "neighbour", "in", "p50", "p99", "quiet p50", "quiet p99", "ratio", "its calls"
    );
    for behaviour in ["trap", "stack", "memory", "flood-log", "spin"] {
        let only = options.only.as_deref();
        if only.is_some_and(|only| only.split(',').all(|it| it != behaviour)) {
            continue;
        }
        for (place, plugin) in &neighbours {
            let (mut quiet, mut beside, mut calls) = (Vec::new(), Vec::new(), 0);
            for _ in 0..options.rounds {
                quiet.push(measure(&policy, options).await);
                let (found, made) = disturbed(&policy, plugin, behaviour, options).await;
                beside.push(found);
                calls += made;
            }
            let middle = |rounds: &[(f64, f64)], part: fn(&(f64, f64)) -> f64| {
                let mut all: Vec<f64> = rounds.iter().map(part).collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            };
            let (p50, p99) = (middle(&beside, |it| it.0), middle(&beside, |it| it.1));
            let (quiet_p50, quiet_p99) = (middle(&quiet, |it| it.0), middle(&quiet, |it| it.1));
            println!(
                "{behaviour:<9} {place:<8} {p50:>8.3} {p99:>8.3} {quiet_p50:>10.3} {quiet_p99:>10.3} {:>7.2} {calls:>10}",
                p99 / quiet_p99
            );
        }
    }
}

async fn load(sandbox: &Sandbox, guest: &str, role: Role, isolation: Isolation) -> Plugin {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests");
    let request = BuildRequest::new(folder.join(guest));
    let built = sandcast_build::build(&request, &mut |_| {}).expect("the guest builds");
    let component = std::fs::read(built.component).expect("the component");
    let grants = Grants {
        clock: true,
        random: Some(RandomGrant { seed: Some(7) }),
        limits: Limits {
            memory: ByteSize::from_mib(128),
            call_timeout: TimeSpan::from_millis(1_000),
            ..Limits::default()
        },
        isolation,
        ..Grants::default()
    };
    let loaded = sandbox.load(guest, &component, role, grants).await;
    loaded.expect("it loads")
}

fn context() -> CallContext {
    CallContext::new(None, "bench")
}

/// The median and the 99th percentile of decisions, beside some that misbehave, and how often these
/// were called.
async fn disturbed(
    policy: &Plugin,
    plugin: &Plugin,
    behaviour: &'static str,
    options: &Options,
) -> ((f64, f64), u64) {
    let (over, calls) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let all: Vec<_> = (0..NEIGHBOURS)
        .map(|_| {
            let (plugin, over, calls) = (plugin.clone(), Arc::clone(&over), Arc::clone(&calls));
            tokio::spawn(async move {
                let rows = RecordBatch::try_from_iter([(
                    "id",
                    Arc::new(Int64Array::from(vec![1, 2, 3])) as _,
                )])
                .expect("rows");
                let config = json!({ "behaviour": behaviour });
                while !over.load(Ordering::Relaxed) {
                    let opened = plugin.validator(&context(), &config, &rows.schema()).await;
                    let mut validator = match opened {
                        Ok(validator) => validator,
                        // Its instances have failed too often.
                        Err(CallError::Host { .. }) => {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                            continue;
                        }
                        Err(error) => panic!("an instance: {error}"),
                    };
                    validator.check(&rows).await.expect_err("it misbehaves");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let found = measure(policy, options).await;
    over.store(true, Ordering::Relaxed);
    for neighbour in all {
        neighbour.await.expect("it ended");
    }
    (found, calls.load(Ordering::Relaxed))
}

/// The median and the 99th percentile of decisions that are due at a steady rate, in milliseconds.
async fn measure(policy: &Plugin, options: &Options) -> (f64, f64) {
    let each = Duration::from_secs_f64(1.0 / options.rate);
    let number = (options.seconds * options.rate) as u32;
    let begun = Instant::now();
    let mut decisions = Vec::new();
    for turn in 0..number {
        let due = begun + each * turn;
        tokio::time::sleep_until(due.into()).await;
        let policy = policy.clone();
        decisions.push(tokio::spawn(async move {
            let request = Request {
                control_point: ControlPoint::Promote,
                principal: "pipeline:bench".into(),
                action: "promote".into(),
                resource: "model:bench".into(),
                context: json!({}),
            };
            let opened = policy.policy(&context(), &json!({})).await;
            let mut instance = opened.expect("an instance");
            instance.decide(&request).await.expect("decided");
            instance.finish().expect("ended");
            due.elapsed().as_secs_f64() * 1000.0
        }));
    }
    let mut took = Vec::new();
    for decision in decisions {
        took.push(decision.await.expect("it ended"));
    }
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    (at(0.5), at(0.99))
}
