//! What the audit log costs: `cargo bench -p sandcast-audit --bench log`. It makes logs in the
//! folder for temporary files; `SANDCAST_BENCH_ENTRIES` says how many entries the log has that is
//! verified, 100,000 where nothing is said, and `SANDCAST_BENCH_EXPORT=1` exports it too.
//! `SANDCAST_BENCH_LOG=FOLDER` appends the entries of the last run in that log anew, ten times.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use divan::Bencher;
use divan::counter::ItemsCount;
use sandcast_audit::{
    AuditLog, Digest, Event, Period, PluginRef, RunId, Trust, export, prove_inclusion, verify_with,
};

fn main() {
    divan::main();
    verify_many();
    append_again();
}

/// What a plugin did: the entry that a log has most of.
fn calls(number: u64) -> Event {
    Event::CallsFinished {
        run: None,
        plugin: PluginRef {
            id: "sandcast/connector-csv".to_owned(),
            version: "0.1.0".to_owned(),
            role: "connector".to_owned(),
            digest: Digest::of(b"component"),
        },
        stage: "connect branch".to_owned(),
        host_calls: [("tabular.next".to_owned(), number)].into(),
        host_use: Default::default(),
        bytes_in: 4096,
        bytes_out: 4096,
        guest_seconds: 0.125,
        peak_memory_bytes: 1 << 22,
        denials: 0,
        outcome: "done".to_owned(),
    }
}

/// An event after which the log is pushed to the disk and signed.
fn boundary() -> Event {
    Event::RunFinished {
        run: RunId::generate(),
        outcome: "done".to_owned(),
        message: None,
    }
}

fn log() -> (tempfile::TempDir, AuditLog) {
    let dir = tempfile::tempdir().expect("a folder");
    let log = AuditLog::open(&dir.path().join("audit")).expect("opens");
    (dir, log)
}

/// An entry, its head and its place in the tree; nothing waits for the disk.
#[divan::bench(sample_size = 100)]
fn append(bencher: Bencher<'_, '_>) {
    let (_dir, log) = log();
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        log.append(calls(number)).expect("appends")
    });
}

/// An entry that is pushed to the disk, its head, which is not, and a signed checkpoint.
#[divan::bench(sample_count = 50, sample_size = 4)]
fn append_boundary(bencher: Bencher<'_, '_>) {
    let (_dir, log) = log();
    bencher.bench_local(|| log.append(boundary()).expect("appends"));
}

/// The same in memory: what making the line costs.
#[divan::bench(sample_size = 100)]
fn append_in_memory(bencher: Bencher<'_, '_>) {
    let log = AuditLog::in_memory();
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        log.append(calls(number)).expect("appends")
    });
}

/// Opening a log of some length and giving it up again.
#[divan::bench(args = [10, 10_000], sample_count = 20)]
fn open(bencher: Bencher<'_, '_>, entries: u64) {
    let (dir, log) = log();
    (0..entries).for_each(|number| drop(log.append(calls(number)).expect("appends")));
    let path = dir.path().join("audit");
    bencher.bench_local(|| AuditLog::open(&path).expect("opens"));
}

/// One entry shown to be in a log of 10,000, from the entries.
#[divan::bench(sample_count = 10)]
fn prove(bencher: Bencher<'_, '_>) {
    let (dir, log) = log();
    (1..10_000).for_each(|number| drop(log.append(calls(number)).expect("appends")));
    log.checkpoint().expect("signs");
    let path = dir.path().join("audit");
    bencher
        .counter(ItemsCount::new(10_000_usize))
        .bench_local(|| prove_inclusion(&path, 5_000).expect("proves"));
}

/// What it costs to write the entries of the last run in a log that is there: the same events, one
/// after the other, into new logs on the same disk.
fn append_again() {
    let Some(dir) = std::env::var_os("SANDCAST_BENCH_LOG") else {
        return;
    };
    let dir = Path::new(&dir);
    let mut events = Vec::new();
    for entry in sandcast_audit::read(dir).expect("a log") {
        let event = entry.expect("an entry").event;
        if matches!(event, Event::RunStarted { .. }) {
            events.clear();
        }
        events.push(event);
    }
    let mut seconds: Vec<f64> = (0..10)
        .map(|_| {
            let to = tempfile::tempdir_in(dir).expect("a folder");
            let log = AuditLog::open(&to.path().join("audit")).expect("opens");
            let events = events.clone();
            let started = Instant::now();
            for event in events {
                log.append(event).expect("appends");
            }
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    println!(
        "the last run of {}: {} entries, {:.2} ms at least, {:.2} ms median",
        dir.display(),
        events.len(),
        seconds[0] * 1e3,
        seconds[5] * 1e3
    );
}

/// Writes a long log as one from before there were keys, which is faster than to append to it;
/// opening it makes the tree and signs. Then verifies it, exports it and verifies the export.
fn verify_many() {
    let entries: u64 = std::env::var("SANDCAST_BENCH_ENTRIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(100_000);
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("audit");
    let bytes = write_log(&path, entries - 1);
    let timed = |what: &str, work: &mut dyn FnMut()| {
        let started = Instant::now();
        work();
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{what}: {entries} entries, {bytes} bytes in {seconds:.2} s: {:.0} entries a second, \
             {:.0} MB a second; peak memory {}",
            entries as f64 / seconds,
            bytes as f64 / seconds / 1e6,
            peak_memory()
        );
    };
    let mut log = None;
    timed("tree made anew and signed", &mut || {
        log = Some(AuditLog::open(&path).expect("opens"));
    });
    let log = log.expect("is open");
    let trust = Trust {
        keys: log.key().into_iter().collect(),
        checkpoints: Vec::new(),
    };
    timed("verified", &mut || {
        let report = verify_with(&path, &trust).expect("is whole");
        assert_eq!((report.entries, report.signed), (entries, entries));
    });
    timed("proven", &mut || {
        prove_inclusion(&path, entries / 2).expect("proves");
    });
    if std::env::var_os("SANDCAST_BENCH_EXPORT").is_some() {
        let to = dir.path().join("export");
        timed("exported, and that verified", &mut || {
            export(&log, &to, Period::default()).expect("exports");
        });
    }
}

/// A log of so many entries, and how many bytes it has.
fn write_log(path: &Path, entries: u64) -> u64 {
    std::fs::create_dir_all(path).expect("a folder");
    let file = std::fs::File::create(path.join("log.jsonl")).expect("a file");
    let mut file = std::io::BufWriter::with_capacity(1 << 20, file);
    let event = serde_json::to_string(&serde_json::to_value(calls(7)).expect("JSON"));
    let event = event.expect("JSON");
    let (mut digest, mut start, mut end) = (Digest::ZERO, 0, 0);
    for sequence in 1..=entries {
        let body = format!(
            "\"event\":{event},\"previous\":\"{digest}\",\"sequence\":{sequence},\
             \"time\":\"2026-11-22T07:05:59.123456789Z\"}}"
        );
        digest = Digest::of(format!("{{{body}").as_bytes());
        let line = format!("{{\"digest\":\"{digest}\",{body}\n");
        file.write_all(line.as_bytes()).expect("writes");
        (start, end) = (end, end + line.len() as u64);
    }
    file.flush().expect("writes");
    let head = format!("{{\"digest\":\"{digest}\",\"sequence\":{entries},\"start\":{start}}}\n");
    std::fs::write(path.join("head.json"), head).expect("writes");
    end
}

/// The most memory that this process had, where the system says so.
fn peak_memory() -> String {
    std::fs::read_to_string(Path::new("/proc/self/status"))
        .unwrap_or_default()
        .lines()
        .find_map(|line| Some(line.strip_prefix("VmHWM:")?.trim().to_owned()))
        .unwrap_or_else(|| "unknown".to_owned())
}
