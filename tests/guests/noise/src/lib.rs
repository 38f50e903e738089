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
}

fn one() -> u32 {
    1
}

struct Noise {
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
            message: format!(
                "{} columns, {secret} things seen of the environment",
                self.kinds.len()
            ),
        }])
    }
}

sandcast_sdk::export_validator!(Noise);
