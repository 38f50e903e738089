//! A connector that makes rows from nothing: float64 columns `c0`, `c1` and so on, the same ones at
//! every run.

use sandcast_sdk::columns::{Rows, field};
use sandcast_sdk::{Chunk, Column, Connector, Failure, Field, Kind, ScanRequest, Split, Values};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    rows: u64,
    #[serde(default = "ten")]
    columns: u32,
    #[serde(default = "two_to_the_16")]
    batch_rows: u32,
    /// Every how many rows a value is null; never at 0.
    #[serde(default)]
    null_every: u32,
    #[serde(default = "one")]
    splits: u32,
}

fn one() -> u32 {
    1
}

fn ten() -> u32 {
    10
}

fn two_to_the_16() -> u32 {
    65_536
}

struct Probe {
    config: Config,
    wanted: Vec<u32>,
    left: u64,
    row: u64,
}

impl Probe {
    fn column(&self, column: u32, rows: u32) -> Column {
        let value = |row: u64| ((row * 31 + u64::from(column) * 17) % 1009) as f64;
        let values: Vec<f64> = (0..u64::from(rows))
            .map(|offset| value(self.row + offset))
            .collect();
        let validity = (self.config.null_every > 0).then(|| {
            let mut bits = vec![0xff_u8; (rows as usize).div_ceil(8)];
            for row in (0..rows as usize).step_by(self.config.null_every as usize) {
                bits[row / 8] &= !(1 << (row % 8));
            }
            if !rows.is_multiple_of(8)
                && let Some(last) = bits.last_mut()
            {
                *last &= (1 << (rows % 8)) - 1;
            }
            bits
        });
        Column {
            rows,
            values: Values::Float64(values),
            validity,
        }
    }
}

impl Connector for Probe {
    type Config = Config;

    fn open(config: Config) -> Result<Self, Failure> {
        if config.batch_rows == 0 || config.splits == 0 {
            return Err(Failure::invalid_config(
                "batch_rows",
                "neither it nor `splits` may be 0",
            ));
        }
        Ok(Self {
            config,
            wanted: Vec::new(),
            left: 0,
            row: 0,
        })
    }

    fn schema(&mut self) -> Result<Vec<Field>, Failure> {
        let nullable = self.config.null_every > 0;
        Ok((0..self.config.columns)
            .map(|column| field(&format!("c{column}"), Kind::Float64, nullable))
            .collect())
    }

    fn partitions(&mut self) -> Result<Vec<Split>, Failure> {
        let each = self.config.rows.div_ceil(u64::from(self.config.splits));
        Ok((0..u64::from(self.config.splits))
            .map(|number| {
                let first = (number * each).min(self.config.rows);
                let rows = each.min(self.config.rows - first);
                Split {
                    id: format!("{number}"),
                    token: format!("{first} {rows}"),
                    rows: Some(rows),
                    bytes: None,
                    version: Some("1".into()),
                }
            })
            .collect())
    }

    fn scan(&mut self, request: ScanRequest) -> Result<(), Failure> {
        let numbers = request
            .split
            .token
            .split_once(' ')
            .and_then(|(first, rows)| Some((first.parse().ok()?, rows.parse().ok()?)));
        let Some((first, rows)) = numbers else {
            return Err(Failure::invalid_input(format!(
                "`{}` is no token of this connector",
                request.split.token
            )));
        };
        self.row = first;
        self.left = request.limit.map_or(rows, |limit| limit.min(rows));
        self.wanted = match request.projection {
            None => (0..self.config.columns).collect(),
            Some(names) => names
                .iter()
                .map(|name| {
                    let column = name
                        .strip_prefix('c')
                        .and_then(|number| number.parse().ok());
                    column.ok_or_else(|| {
                        Failure::invalid_input(format!("there is no column `{name}`"))
                    })
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        let rows = self.left.min(u64::from(self.config.batch_rows)) as u32;
        let nullable = self.config.null_every > 0;
        let made = self.wanted.iter().fold(Rows::new(), |made, column| {
            made.column(
                field(&format!("c{column}"), Kind::Float64, nullable),
                self.column(*column, rows),
            )
        });
        self.left -= u64::from(rows);
        self.row += u64::from(rows);
        let batch = if self.wanted.is_empty() {
            None
        } else {
            Some(made.into_batch()?)
        };
        Ok(Some(Chunk {
            rows_read: rows.into(),
            batch,
            rejects: Vec::new(),
        }))
    }
}

sandcast_sdk::export_connector!(Probe);
