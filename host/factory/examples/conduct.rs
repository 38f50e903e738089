//! What it costs to know the conduct of plugins: `cargo build --workspace --example conduct`, then
//! `target/debug/examples/conduct ENTRIES`.
//!
//! Writes an audit log of so many entries, as runs of four plugins would, and measures: reading all
//! of it, which happens once; what a run pays at its start for each plugin, with nothing new in the
//! log; and what judging a run costs at its end.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use sandcast_audit::{AuditLog, Digest, Event, PluginRef, RunId};
use sandcast_factory::conduct::{Admission, Conduct, ConductSection, Response};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PLUGINS: [(&str, &str, &str); 4] = [
    ("acme/connector", "connector", "connect people"),
    ("acme/validator", "validator", "validate"),
    ("acme/policy", "policy", "permit"),
    ("acme/adapter", "adapter", "train"),
];

/// Instances of each plugin in a run.
const INSTANCES: u64 = 4;

const TIMES: usize = 21;

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]
fn main() -> ExitCode {
    let entries = std::env::args().nth(1).and_then(|it| it.parse().ok());
    let Some(entries) = entries else {
        eprintln!("give a number of entries");
        return ExitCode::from(2);
    };
    match measure(entries) {
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

fn measure(entries: u64) -> Result<Vec<String>, Failure> {
    let folder = tempfile::tempdir()?;
    let audit = AuditLog::open(&folder.path().join("audit"))?;
    let mut written = 0;
    while written < entries {
        written += write_run(&audit, &RunId::generate(), true)?;
    }
    let bytes = std::fs::metadata(folder.path().join("audit/log.jsonl"))?.len();
    let mut lines = vec![format!("{written} entries, {:.1} MB", bytes as f64 / 1e6)];

    let conduct = Conduct::of_state(folder.path())?;
    let began = Instant::now();
    conduct.catch_up()?;
    let all = began.elapsed().as_secs_f64();
    lines.push(format!(
        "all of it, once: {all:.2} s, {:.0} thousand entries a second",
        written as f64 / all / 1e3
    ));

    let rules = ConductSection::default();
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let began = Instant::now();
        for (id, role, _) in PLUGINS {
            conduct.let_in(&plugin(id, role), Admission::Automatic, None)?;
        }
        starts.push(began.elapsed().as_secs_f64());
        let run = RunId::generate();
        write_run(&audit, &run, false)?;
        let began = Instant::now();
        let judged = conduct.judge(&run, &rules, |_| Response::Alert)?;
        ends.push(began.elapsed().as_secs_f64());
        if judged.plugins.iter().any(|it| !it.deviations.is_empty()) {
            return Err("an ordinary run was found odd".into());
        }
    }
    for (what, times) in [
        ("at the start of a run, four plugins let in", &mut starts),
        ("at its end, four plugins judged", &mut ends),
    ] {
        times.sort_by(f64::total_cmp);
        lines.push(format!(
            "{what}: {:.2} ms (median of {TIMES})",
            1e3 * times[times.len() / 2]
        ));
    }
    lines.push(format!(
        "the cache: {:.1} MB",
        size_of_cache(folder.path()) / 1e6
    ));
    Ok(lines)
}

fn size_of_cache(folder: &Path) -> f64 {
    std::fs::metadata(folder.join("conduct.sqlite")).map_or(0.0, |file| file.len() as f64)
}

fn plugin(id: &str, role: &str) -> PluginRef {
    PluginRef {
        id: id.to_owned(),
        version: "1.0.0".to_owned(),
        role: role.to_owned(),
        digest: Digest::of(id.as_bytes()),
    }
}

/// Writes what a run of four plugins leaves; the number of entries.
fn write_run(audit: &AuditLog, run: &RunId, ended: bool) -> Result<u64, Failure> {
    let mut entries = 1;
    audit.append(Event::RunStarted {
        run: run.clone(),
        pipeline: "loans".to_owned(),
        config: Digest::ZERO,
    })?;
    for (id, role, stage) in PLUGINS {
        for _ in 0..INSTANCES {
            audit.append(Event::CallsFinished {
                run: Some(run.clone()),
                plugin: plugin(id, role),
                stage: stage.to_owned(),
                host_calls: BTreeMap::from([
                    ("batch.from-columns".to_owned(), 12),
                    ("config.get".to_owned(), 4),
                    ("files.read".to_owned(), 40),
                ]),
                host_use: Default::default(),
                bytes_in: 1 << 20,
                bytes_out: 1 << 19,
                guest_seconds: 0.02,
                peak_memory_bytes: 4 << 20,
                denials: 0,
                outcome: "finished".to_owned(),
            })?;
        }
        audit.append(Event::StageFinished {
            run: run.clone(),
            stage: stage.to_owned(),
            key: Digest::ZERO,
            output: Digest::ZERO,
            cached: false,
            rows_in: Some(10_000),
            rows_out: Some(9_900),
            rows_quarantined: Some(100),
            seconds: 0.3,
        })?;
        entries += INSTANCES + 1;
    }
    if ended {
        audit.append(Event::RunFinished {
            run: run.clone(),
            outcome: "completed".to_owned(),
            message: None,
        })?;
        entries += 1;
    }
    Ok(entries)
}
