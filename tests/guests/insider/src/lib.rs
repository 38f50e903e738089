//! A connector that behaves until it does not: same component, same configuration, same grants. What
//! it does in a run stands in a file that it is granted, a word and a value on each line, so that a
//! test can have it change its mind.

use std::io::Read as _;

use sandcast_sdk::columns::{Rows, field};
use sandcast_sdk::http::Request;
use sandcast_sdk::{Chunk, Connector, Failure, Field, Kind, ScanRequest, Split, files, random};
use serde::Deserialize;

const MAX_ANSWER_BYTES: usize = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The file that says what to do.
    path: String,
}

/// What to do in this run.
#[derive(Debug, Default)]
struct Orders {
    /// Rows to hand over.
    rows: u64,
    /// Where to ask, in turn.
    asks: Vec<String>,
    /// Bytes that each request carries out.
    carries: usize,
    /// Random numbers to take.
    draws: u64,
    /// Rounds of work that lead nowhere; a million are some milliseconds.
    spins: u64,
    /// Bytes of text in each row.
    text: usize,
}

impl Orders {
    fn read(path: &str) -> Result<Self, Failure> {
        let mut text = String::new();
        files::open(path)?.read_to_string(&mut text)?;
        let mut orders = Self::default();
        for line in text.lines() {
            let (word, value) = line.split_once(' ').unwrap_or((line, ""));
            let number = || {
                let number: Result<u64, _> = value.parse();
                number.map_err(|_| Failure::invalid_input(format!("`{line}` has no number")))
            };
            match word {
                "rows" => orders.rows = number()?,
                "ask" => orders.asks.push(value.to_owned()),
                "carry" => orders.carries = number()? as usize,
                "draw" => orders.draws = number()?,
                "spin" => orders.spins = number()?,
                "text" => orders.text = number()? as usize,
                other => return Err(Failure::invalid_input(format!("`{other}` is no order"))),
            }
        }
        Ok(orders)
    }
}

struct Insider {
    config: Config,
    done: bool,
}

impl Connector for Insider {
    type Config = Config;

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(Self {
            config,
            done: false,
        })
    }

    fn schema(&mut self) -> Result<Vec<Field>, Failure> {
        Ok(vec![
            field("x", Kind::Float64, false),
            field("y", Kind::Float64, false),
            field("note", Kind::Utf8, false),
        ])
    }

    fn partitions(&mut self) -> Result<Vec<Split>, Failure> {
        // Without a version: it is read in every run.
        Ok(vec![Split::whole("all")])
    }

    fn scan(&mut self, _request: ScanRequest) -> Result<(), Failure> {
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let orders = Orders::read(&self.config.path)?;
        for url in &orders.asks {
            let request = match orders.carries {
                0 => Request::get(url.clone()),
                bytes => Request::post(url.clone(), vec![b'x'; bytes]),
            };
            request.send()?.bytes(MAX_ANSWER_BYTES)?;
        }
        let mut sum = 0_u64;
        for _ in 0..orders.draws {
            sum = sum.wrapping_add(random::number());
        }
        for round in 0..orders.spins {
            sum = std::hint::black_box(sum.rotate_left(7) ^ round);
        }
        let rows = 0..orders.rows;
        let heap = |row: u64| [(0.0, 0.0), (50.0, 0.0), (0.0, 50.0)][(row % 3) as usize];
        let x: Vec<f64> = rows
            .clone()
            .map(|row| heap(row).0 + (row * 7 % 11) as f64 / 10.0)
            .collect();
        let y: Vec<f64> = rows
            .clone()
            .map(|row| heap(row).1 + (row * 5 % 13) as f64 / 10.0)
            .collect();
        // What the work came to is used, so that it is done.
        let end = if sum == 1 { "." } else { "" };
        let note = format!("{}{end}", "n".repeat(orders.text));
        let made = Rows::new()
            .float64("x", x)
            .float64("y", y)
            .utf8("note", rows.map(|_| Some(note.clone())));
        Ok(Some(made.into_chunk()?))
    }
}

sandcast_sdk::export_connector!(Insider);
