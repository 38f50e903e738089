//! Readers of what others wrote, on a few thousand changed inputs each: no panic, no stack
//! overflow, no answer that is late, and no memory out of proportion.
//!
//! The same inputs are tried in every run. `SANDCAST_FUZZ_SECONDS=600` tries others, for so long,
//! all targets together; `SANDCAST_FUZZ_SEED` says where to begin, `SANDCAST_FUZZ_TARGET` names
//! one target. An input that fails is a file whose name the failure says; put it into
//! `tests/fuzz/corpus/<target>` once it is mended. If the process dies, the input is the file `last` in
//! the target folder. `SANDCAST_FUZZ_SEEDS=1` makes the inputs that all others are changed from.

mod seeds;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandcast_tests::allocator::Counting;
use sandcast_tests::fuzz::{Mutator, Said, TARGETS, Target};
use sandcast_tests::repository;

#[global_allocator]
static MEMORY: Counting = Counting::new();

/// Memory is counted over all threads, so one target runs at a time.
static TURN: Mutex<()> = Mutex::new(());

/// How long one input may take. On an idle machine none takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Inputs that are kept because something new was said of them.
const MAX_POOL: usize = 4096;

struct Hunt<'a> {
    target: &'a Target,
    /// Where inputs that fail are put.
    folder: PathBuf,
    /// The input that is tried now.
    last: File,
    pool: Vec<Vec<u8>>,
    said: BTreeSet<String>,
    executions: u64,
    slowest: Duration,
    largest: usize,
    failures: Vec<String>,
}

impl<'a> Hunt<'a> {
    fn new(target: &'a Target) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("fuzz")
            .join(target.name);
        fs::create_dir_all(&folder).expect("a folder for what fails");
        Self {
            target,
            last: File::create(folder.join("last")).expect("a file for what is tried"),
            folder,
            pool: Vec::new(),
            said: BTreeSet::new(),
            executions: 0,
            slowest: Duration::ZERO,
            largest: 0,
            failures: Vec::new(),
        }
    }

    /// Tries what is kept in the repository.
    fn corpus(&mut self) {
        let mut paths = corpus_of(self.target.name);
        paths.extend(self.target.also.iter().map(|path| repository().join(path)));
        for path in paths {
            let bytes =
                fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            // What the reader makes the first time, such as tables, is not the input's.
            if self.pool.is_empty() {
                let _ = catch_unwind(AssertUnwindSafe(|| (self.target.run)(&bytes)));
            }
            self.attempt(&bytes);
            self.pool.push(bytes);
        }
        assert!(
            !self.pool.is_empty(),
            "there is nothing in tests/fuzz/corpus/{}",
            self.target.name
        );
    }

    fn attempt(&mut self, bytes: &[u8]) {
        // A stack that overflows cannot be caught; the input can.
        self.last.rewind().expect("the input is kept");
        self.last.write_all(bytes).expect("the input is kept");
        self.last
            .set_len(bytes.len() as u64)
            .expect("the input is kept");
        let before = MEMORY.begin();
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.target.run)(bytes)));
        let took = started.elapsed();
        let growth = MEMORY.growth(before);
        self.executions += 1;
        self.slowest = self.slowest.max(took);
        self.largest = self.largest.max(growth);
        let fault = match &outcome {
            Err(panic) => Some(format!("a panic: {}", words_of(panic.as_ref()))),
            Ok(_) if took > PATIENCE => Some(format!("{} s", took.as_secs())),
            Ok(_) if growth > self.target.heap_bytes => Some(format!("{growth} bytes of memory")),
            Ok(_) => None,
        };
        if let Some(fault) = fault {
            let name = format!("{:016x}", fingerprint(bytes));
            let path = self.folder.join(name);
            fs::write(&path, bytes).expect("the input is kept");
            self.failures.push(format!("{fault}: {}", path.display()));
        }
        if let Ok(said) = outcome
            && self.pool.len() < MAX_POOL
            && self.said.insert(shape_of(&said))
        {
            self.pool.push(bytes.to_vec());
        }
    }

    fn mutate(&mut self, seed: u64, is_enough: impl Fn(u64) -> bool) {
        let mut mutator = Mutator::new(seed);
        while !is_enough(self.executions) && self.failures.len() < 10 {
            let bytes = mutator.mutated(&self.pool);
            self.attempt(&bytes);
        }
    }
}

/// What was said, without the numbers, names and digests in it.
fn shape_of(said: &Said) -> String {
    let Err(words) = said else {
        return "taken".to_owned();
    };
    let mut plain = String::new();
    for (place, part) in words.split(['`', '"']).enumerate() {
        // What is quoted is the input's.
        if place.is_multiple_of(2) {
            plain.push_str(part);
        }
    }
    let is_word = |word: &&str| {
        word.bytes()
            .all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_digit())
    };
    let words: Vec<&str> = plain.split_whitespace().filter(is_word).take(24).collect();
    words.join(" ")
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    words
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words")
        .to_owned()
}

/// FNV-1a, for names of files.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The inputs that are kept for a target, in the order of their names.
fn corpus_of(name: &str) -> Vec<PathBuf> {
    let folder = repository().join("tests/fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Tries one target: the corpus, and inputs changed from it.
fn hunt(name: &str) {
    if std::env::var_os("SANDCAST_FUZZ_SEEDS").is_some() {
        return;
    }
    let only = std::env::var("SANDCAST_FUZZ_TARGET").ok();
    if only.as_ref().is_some_and(|only| only != name) {
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("a target of this name");
    let mut hunt = Hunt::new(target);
    let started = Instant::now();
    hunt.corpus();
    let seed = variable("SANDCAST_FUZZ_SEED").unwrap_or(1);
    match variable("SANDCAST_FUZZ_SECONDS") {
        None => hunt.mutate(seed, |executions| {
            executions >= u64::from(target.executions)
        }),
        Some(seconds) => {
            let share = if only.is_some() {
                1
            } else {
                TARGETS.len() as u64
            };
            let until = started + Duration::from_secs(seconds / share);
            hunt.mutate(seed, |_| Instant::now() >= until);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut line = String::new();
    writeln!(
        line,
        "{name}: {} executions in {seconds:.1} s, {:.0} a second; {} different answers; slowest \
         {:.0} ms; most memory {} KiB; {} failures",
        hunt.executions,
        hunt.executions as f64 / seconds,
        hunt.said.len(),
        hunt.slowest.as_secs_f64() * 1000.0,
        hunt.largest >> 10,
        hunt.failures.len(),
    )
    .expect("a line");
    // For whoever asks how it went: a test that passes says nothing.
    fs::write(hunt.folder.join("report"), &line).expect("a report");
    assert!(hunt.failures.is_empty(), "{line}{:#?}", hunt.failures);
}

macro_rules! hunts {
    ($($function:ident $name:literal,)*) => {
        $(
            #[test]
            fn $function() {
                hunt($name);
            }
        )*

        #[test]
        fn every_target_is_hunted() {
            let hunted = BTreeSet::from([$($name),*]);
            let targets: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(hunted, targets);
            let folder = repository().join("tests/fuzz/corpus");
            for entry in fs::read_dir(folder).expect("the corpus") {
                let name = entry.expect("an entry").file_name().display().to_string();
                assert!(targets.contains(name.as_str()), "`{name}` is no target");
            }
        }
    };
}

hunts! {
    components "component",
    columns_of_guests "columns",
    asked_by_processes "asked",
    recorded_rows "recorded-rows",
    store_lists "store-list",
    recordings "recording",
    models "model",
    certificates "certificate",
    pipelines "pipeline",
    expressions_of_the_gate "expression",
    graphs "graph",
    requests "infer",
    logs "log",
    events "event",
    proofs "proof",
    notes "note",
}

#[test]
fn seeds_are_made_when_asked_for() {
    if std::env::var_os("SANDCAST_FUZZ_SEEDS").is_some() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        seeds::make(&repository().join("tests/fuzz/corpus"));
    }
}
