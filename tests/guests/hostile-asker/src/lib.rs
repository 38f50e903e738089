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
    /// A second statement behind the first.
    SecondStatement,
    /// A write behind a comment that looks like a question.
    WriteBehindComment,
    /// A write in a comment that another database would carry out.
    WriteInComment,
    /// A write behind a common table expression, that answers with rows.
    WriteBehindCte,
    /// A write within one.
    WriteInCte,
    /// A parameter that is a piece of a statement; taken as a value, nobody is called that.
    QuoteInParameter,
    /// A parameter that is a whole one.
    StatementInParameter,
    /// A parameter in the place of a table.
    TableAsParameter,
    /// Fewer parameters than places.
    FewParameters,
    /// More parameters than places.
    ManyParameters,
    /// More parameters than anybody may hand over.
    VeryManyParameters,
    /// Turns the guard of the connection off, behind a comment.
    PragmaBehindComment,
    /// Opens another file, behind a comment.
    AttachBehindComment,
    /// A statement with a zero, and another one behind it.
    ZeroInStatement,
    /// A statement of 10 MiB.
    LongStatement,
    /// Asks a listed statement by its name.
    Listed,
    /// Asks for a listed statement by its text.
    ListedText,
    /// By its name with another statement behind it.
    ListedAndMore,
    /// By its name with a comment.
    ListedAndComment,
    /// By its name with another question joined to it.
    ListedAndUnion,
    /// By its name in capital letters.
    ListedInCapitals,
    /// By its name with a space before it.
    ListedAndSpace,
    /// By its name with a zero behind it.
    ListedAndZero,
    /// Asks it with a parameter that is a piece of a statement; nobody is called that either.
    ListedWithQuote,
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
        injected => injection(injected),
    }
}

/// The name of the statement that the tests list, and its text.
const LISTED: &str = "by_name";
const BY_NAME: &str = "SELECT id FROM people WHERE name = ?1";

/// A piece of a statement that is true of everybody.
const QUOTE: &str = "' OR 1=1 --";

/// Questions that are put together to be another one.
fn injection(behaviour: Behaviour) -> (String, Vec<Parameter>) {
    let plain = |statement: &str| (statement.to_owned(), Vec::new());
    let by_name = |parameters: Vec<Parameter>| (BY_NAME.to_owned(), parameters);
    let listed = |name: String| (name, vec!["Ada".into()]);
    match behaviour {
        Behaviour::SecondStatement => plain("SELECT count(*) AS x FROM people; DROP TABLE people"),
        Behaviour::WriteBehindComment => {
            plain("/* SELECT */ -- SELECT\nUPDATE people SET name = 'x' RETURNING id")
        }
        Behaviour::WriteInComment => {
            plain("SELECT count(*) AS x FROM people /*! WHERE 1 = 0; DROP TABLE people */")
        }
        Behaviour::WriteBehindCte => plain(
            "WITH x AS (SELECT 1 AS id) UPDATE people SET name = 'x' \
             WHERE id IN (SELECT id FROM x) RETURNING id",
        ),
        Behaviour::WriteInCte => {
            plain("WITH x AS (DELETE FROM people RETURNING id) SELECT id FROM x")
        }
        Behaviour::QuoteInParameter => by_name(vec![QUOTE.into()]),
        Behaviour::StatementInParameter => by_name(vec!["x'; DROP TABLE people; --".into()]),
        Behaviour::TableAsParameter => (
            "SELECT count(*) AS x FROM ?1".to_owned(),
            vec!["people".into()],
        ),
        Behaviour::FewParameters => by_name(Vec::new()),
        Behaviour::ManyParameters => by_name(vec!["Ada".into(), QUOTE.into()]),
        Behaviour::VeryManyParameters => by_name(vec![Parameter::Null; 100_000]),
        Behaviour::PragmaBehindComment => plain("/* SELECT 1 */ PRAGMA query_only = OFF"),
        Behaviour::AttachBehindComment => plain("-- SELECT 1\nATTACH ':memory:' AS other"),
        Behaviour::ZeroInStatement => {
            plain("SELECT count(*) AS x FROM people\0; DROP TABLE people")
        }
        Behaviour::LongStatement => plain(&format!("SELECT '{}' AS x", "x".repeat(10 << 20))),
        Behaviour::ListedText => listed(BY_NAME.to_owned()),
        Behaviour::ListedAndMore => listed(format!("{LISTED}; SELECT name FROM people")),
        Behaviour::ListedAndComment => listed(format!("{LISTED} -- by name")),
        Behaviour::ListedAndUnion => listed(format!("{LISTED} UNION SELECT name FROM people")),
        Behaviour::ListedInCapitals => listed(LISTED.to_ascii_uppercase()),
        Behaviour::ListedAndSpace => listed(format!(" {LISTED}")),
        Behaviour::ListedAndZero => listed(format!("{LISTED}\0")),
        Behaviour::ListedWithQuote => (LISTED.to_owned(), vec![QUOTE.into()]),
        _ => listed(LISTED.to_owned()),
    }
}

/// The connection that it is asked over: one with any statement that reads, or one where they are listed.
fn connection(behaviour: Behaviour) -> &'static str {
    match behaviour {
        Behaviour::Listed
        | Behaviour::ListedText
        | Behaviour::ListedAndMore
        | Behaviour::ListedAndComment
        | Behaviour::ListedAndUnion
        | Behaviour::ListedInCapitals
        | Behaviour::ListedAndSpace
        | Behaviour::ListedAndZero
        | Behaviour::ListedWithQuote => "listed",
        _ => "people",
    }
}

impl Policy for Hostile {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, Failure> {
        Ok(Self(config.behaviour))
    }

    fn decide(&mut self, _: &Request) -> Result<Decision, Failure> {
        let (statement, parameters) = question(self.0);
        let rows = sql::query(connection(self.0), &statement, &parameters)?;
        Ok(Decision::allow(format!("{} rows", rows.rows())))
    }
}

sandcast_sdk::export_policy!(Hostile);
