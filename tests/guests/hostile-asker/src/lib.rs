//! A policy that asks a database as its configuration says, when it decides. What the database says
//! is its reason, or its failure.

use sandcast_sdk::sql::{self, Parameter};
use sandcast_sdk::{Decision, Failure, Policy, Request};
use serde::Deserialize;

/// What to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// How many people there are.
    Behave,
    /// Hands full text search an address to call, as a parameter.
    Tokenizer,
    /// Asks a view that does.
    TokenizerInView,
    /// Has a tree of rectangles checked that is none.
    RtreeCheck,
    /// Asks a table that code of SQLite makes up.
    VirtualTable,
    /// Asks how the pages of the file are filled.
    Pages,
    /// Has a library loaded.
    LoadExtension,
    /// Opens another file beside.
    Attach,
    /// Makes the list of tables writable.
    WritableSchema,
    /// Looks for a long text in a long text, without end.
    InstrWithoutEnd,
    /// Replaces in a long text, without end.
    ReplaceWithoutEnd,
    /// Holds a long text to a pattern that matches almost everywhere, without end.
    LikeWithoutEnd,
    /// Counts without end.
    CountWithoutEnd,
    /// Tells rows apart without end.
    DistinctWithoutEnd,
    /// A gigabyte of zeros.
    Zeroblob,
    /// A number of a billion digits.
    Printf,
    /// One text of all rows, without end.
    GroupConcat,
    /// One list of all rows, without end.
    GroupArray,
    /// Two hundred long texts at one time.
    ManyValues,
    /// A value that is over 1 MiB in the file.
    LongValue,
    /// A parameter that is.
    LongParameter,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    behaviour: Behaviour,
}

struct Hostile(Behaviour);

/// Numbers without end, as a table.
const NUMBERS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";

/// A text of so many letters.
fn letters(count: usize) -> String {
    format!("printf('%.*c', {count}, 'a')")
}

fn question(behaviour: Behaviour) -> (String, Vec<Parameter>) {
    let long = letters(500_000);
    let plain = |statement: &str| (statement.to_owned(), Vec::new());
    let endless = |of: &str| (format!("{NUMBERS} SELECT {of} AS x FROM n"), Vec::new());
    match behaviour {
        Behaviour::Behave => plain("SELECT count(*) AS people FROM people"),
        Behaviour::Tokenizer => {
            let address = Parameter::Bytes(vec![0x41; 8]);
            let parameters = vec!["simple".into(), address];
            ("SELECT fts3_tokenizer(?1, ?2)".to_owned(), parameters)
        }
        Behaviour::TokenizerInView => plain("SELECT x FROM bad"),
        Behaviour::RtreeCheck => plain("SELECT rtreecheck('main', 'people') AS x"),
        Behaviour::VirtualTable => plain("SELECT count(*) AS x FROM words WHERE words MATCH 'a'"),
        Behaviour::Pages => plain("SELECT sum(payload) AS x FROM dbstat"),
        Behaviour::LoadExtension => plain("SELECT load_extension('/tmp/evil.so') AS x"),
        Behaviour::Attach => plain("ATTACH ':memory:' AS other"),
        Behaviour::WritableSchema => plain("PRAGMA writable_schema = ON"),
        Behaviour::InstrWithoutEnd => endless(&format!("sum(instr({long}, {long} || 'b'))")),
        Behaviour::ReplaceWithoutEnd => endless(&format!("sum(length(replace({long}, 'a', 'b')))")),
        Behaviour::LikeWithoutEnd => {
            let text = letters(100_000);
            endless(&format!("sum({text} LIKE '%{}b')", "a".repeat(90)))
        }
        Behaviour::CountWithoutEnd => endless("count(*)"),
        Behaviour::DistinctWithoutEnd => endless("count(DISTINCT i % 16)"),
        Behaviour::Zeroblob => plain("SELECT length(zeroblob(1000000000)) AS x"),
        Behaviour::Printf => plain("SELECT length(printf('%1000000000d', 1)) AS x"),
        Behaviour::GroupConcat => endless(&format!("length(group_concat({long}))")),
        Behaviour::GroupArray => endless(&format!("length(json_group_array({long}))")),
        Behaviour::ManyValues => {
            let columns = (0..200).map(|column| format!("{long} AS c{column}"));
            let columns: Vec<String> = columns.collect();
            (format!("SELECT {}", columns.join(", ")), Vec::new())
        }
        Behaviour::LongValue => plain("SELECT word AS x FROM long"),
        Behaviour::LongParameter => {
            let parameters = vec!["x".repeat(2 << 20).into()];
            ("SELECT length(?1) AS x".to_owned(), parameters)
        }
    }
}

impl Policy for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Failure> {
        Ok(Self(config.behaviour))
    }

    fn decide(&mut self, _: &Request) -> Result<Decision, Failure> {
        let (statement, parameters) = question(self.0);
        let rows = sql::query("people", &statement, &parameters)?;
        Ok(Decision::allow(format!("{} rows", rows.rows())))
    }
}

sandcast_sdk::export_policy!(Hostile);
