//! A validator that measures. Its verdict's message is a JSON object of what it saw, so that a bench
//! can compare it with the same computed elsewhere.

use sandcast_sdk::{
    Batch, Failure, Field, Finding, Rule, Severity, Validator, Values, Verdict, kernels,
};
use serde::{Deserialize, Serialize};

/// What to do with every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Work {
    /// Nothing: what a call costs.
    Nothing,
    /// Asks for the number of rows: what a call into the host costs.
    Count,
    /// Pulls every column.
    Pull,
    /// Pulls every column and computes null count, minimum, maximum and mean.
    Summarize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    work: Work,
    /// How often, so that one call can be timed without its own cost.
    #[serde(default = "one")]
    times: u32,
}

fn one() -> u32 {
    1
}

/// What was seen of one column.
#[derive(Debug, Clone, Default, Serialize)]
struct Seen {
    nulls: u64,
    count: u64,
    sum: f64,
    min: Option<f64>,
    max: Option<f64>,
}

struct Probe {
    config: Config,
    columns: Vec<Seen>,
    rows: u64,
    bytes: u64,
}

impl Seen {
    fn add(&mut self, values: &Values, validity: Option<&[u8]>) {
        let (nulls, count, sum, min, max) = match values {
            Values::Float64(values) => {
                let summary = kernels::summarize_f64(values, validity);
                (
                    summary.nulls,
                    summary.count,
                    summary.sum,
                    summary.min,
                    summary.max,
                )
            }
            Values::Int64(values) | Values::TimestampUs(values) => {
                let summary = kernels::summarize_i64(values, validity);
                let float = |value: i64| value as f64;
                (
                    summary.nulls,
                    summary.count(),
                    summary.sum as f64,
                    summary.min.map(float),
                    summary.max.map(float),
                )
            }
            Values::Utf8(strings) => (
                kernels::null_count(strings.offsets.len() - 1, validity),
                0,
                0.0,
                None,
                None,
            ),
            Values::Date32(values) => (
                kernels::null_count(values.len(), validity),
                0,
                0.0,
                None,
                None,
            ),
            Values::Boolean(_) => (0, 0, 0.0, None, None),
        };
        self.nulls += nulls;
        self.count += count;
        self.sum += sum;
        self.min = [self.min, min].into_iter().flatten().reduce(f64::min);
        self.max = [self.max, max].into_iter().flatten().reduce(f64::max);
    }
}

fn size(values: &Values) -> usize {
    match values {
        Values::Boolean(bits) => bits.len(),
        Values::Int64(values) | Values::TimestampUs(values) => values.len() * 8,
        Values::Float64(values) => values.len() * 8,
        Values::Date32(values) => values.len() * 4,
        Values::Utf8(strings) => strings.offsets.len() * 4 + strings.bytes.len(),
    }
}

impl Validator for Probe {
    type Config = Config;

    fn configure(config: Config, schema: &[Field]) -> Result<Self, Failure> {
        Ok(Self {
            config,
            columns: vec![Seen::default(); schema.len()],
            rows: 0,
            bytes: 0,
        })
    }

    fn rules(&self) -> Vec<Rule> {
        vec![Rule {
            id: "probe".into(),
            kind: "probe".into(),
            columns: Vec::new(),
            severity: Severity::Warning,
            mostly: 1.0,
            description: "finds nothing, quickly".into(),
        }]
    }

    fn check(&mut self, batch: &Batch) -> Result<Vec<Finding>, Failure> {
        self.rows += u64::from(batch.rows());
        for _ in 0..self.config.times {
            match self.config.work {
                Work::Nothing => continue,
                Work::Count => {
                    std::hint::black_box(batch.rows());
                    continue;
                }
                Work::Pull | Work::Summarize => {}
            }
            for (index, seen) in self.columns.iter_mut().enumerate() {
                let column = batch.column(index as u32)?;
                self.bytes += size(&column.values) as u64;
                if self.config.work == Work::Summarize {
                    seen.add(&column.values, column.validity.as_deref());
                } else {
                    std::hint::black_box(&column);
                }
            }
        }
        Ok(Vec::new())
    }

    fn finish(&mut self) -> Result<Vec<Verdict>, Failure> {
        #[derive(Serialize)]
        struct Message<'a> {
            bytes: u64,
            columns: &'a [Seen],
        }
        let message = serde_json::to_string(&Message {
            bytes: self.bytes,
            columns: &self.columns,
        })
        .map_err(|error| Failure::internal(error.to_string()))?;
        Ok(vec![Verdict {
            rule: "probe".into(),
            passed: true,
            rows_checked: self.rows,
            rows_failed: 0,
            message,
        }])
    }
}

sandcast_sdk::export_validator!(Probe);
