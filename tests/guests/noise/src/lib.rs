//! A validator on the standard library over WASI: it prints, hashes and asks for the environment, as
//! crates do that were never written for a sandbox. None of it needs a grant, none of it gets anywhere.

use std::collections::HashMap;

use sandcast_sdk::{Batch, Failure, Field, Finding, Rule, Severity, Validator, Verdict};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How many lines to print for every batch.
    #[serde(default = "one")]
    lines: u32,
    /// Says in its verdict what could tell one machine, or one moment, from another.
    #[serde(default)]
    fingerprint: bool,
}

fn one() -> u32 {
    1
}

/// What differs where nothing is kept from a guest: the time of day, how long work took, the keys of
/// hashes, folders, and where memory lies.
fn fingerprint() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let started = std::time::Instant::now();
    let work = (0..200_000_u64).fold(0_u64, |sum, round| {
        std::hint::black_box(sum.rotate_left(5) ^ round)
    });
    let took = started.elapsed();
    let now = std::time::SystemTime::now();
    let key = RandomState::new().hash_one(1);
    let here = std::env::current_dir().is_ok();
    let root = std::fs::read_dir("/").is_ok();
    let place = &raw const work as usize;
    format!(
        "{now:?} {took:?} {key} {here} {root} {place} {:?}",
        std::thread::available_parallelism().ok()
    )
}

struct Noise {
    fingerprint: bool,
    lines: u32,
    kinds: HashMap<String, String>,
    rows: u64,
}

impl Validator for Noise {
    type Config = Config;

    fn configure(config: Config, schema: &[Field]) -> Result<Self, Failure> {
        let kinds = schema
            .iter()
            .map(|field| (field.name.clone(), field.kind.name().to_owned()))
            .collect();
        Ok(Self {
            fingerprint: config.fingerprint,
            lines: config.lines,
            kinds,
            rows: 0,
        })
    }

    fn rules(&self) -> Vec<Rule> {
        vec![Rule {
            id: "noise".into(),
            kind: "noise".into(),
            columns: Vec::new(),
            severity: Severity::Warning,
            mostly: 1.0,
            description: "finds nothing, loudly".into(),
        }]
    }

    fn check(&mut self, batch: &Batch) -> Result<Vec<Finding>, Failure> {
        self.rows += u64::from(batch.rows());
        for line in 0..self.lines {
            println!("line {line}: {} columns", self.kinds.len());
            eprintln!("home is {:?}", std::env::var("HOME"));
        }
        Ok(Vec::new())
    }

    fn finish(&mut self) -> Result<Vec<Verdict>, Failure> {
        let secret = std::env::vars().count() + std::env::args().count();
        Ok(vec![Verdict {
            rule: "noise".into(),
            passed: true,
            rows_checked: self.rows,
            rows_failed: 0,
            message: if self.fingerprint {
                fingerprint()
            } else {
                format!(
                    "{} columns, {secret} things seen of the environment",
                    self.kinds.len()
                )
            },
        }])
    }
}

sandcast_sdk::export_validator!(Noise);
