use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use tempfile::TempDir;

use super::super::super::TimeSpan;
use super::*;

/// One question at a time: what SQLite holds is counted for all.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = TempDir::with_prefix("sandcast-sqlite-").expect("a folder");
        let bench = Self { folder };
        let database = Connection::open(bench.file()).expect("a database");
        database
            .execute_batch(
                "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, notes TEXT);
                 INSERT INTO people VALUES (1, 'Ada', '{\"a\":[1,2]}'), (2, 'Bob', '[]');
                 CREATE VIEW names AS SELECT upper(name) AS name FROM people;
                 CREATE VIEW bad AS SELECT fts3_tokenizer('simple') AS x;
                 CREATE VIRTUAL TABLE words USING fts5(word);",
            )
            .expect("its tables");
        bench
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("people.sqlite")
    }

    fn ask(
        &self,
        statement: &str,
        parameters: &[Parameter],
        timeout: u64,
    ) -> Result<usize, Trouble> {
        let timeout = TimeSpan::from_secs(timeout);
        let bounds = Bounds {
            rows: 1000,
            bytes: 64 << 20,
            timeout,
            deadline: Instant::now() + timeout.duration(),
        };
        let is_left = Arc::default();
        let file = self.file();
        ask_now(
            &file,
            statement,
            parameters,
            &bounds,
            is_left,
            &OnceLock::new(),
        )
        .map(|rows| rows.0.num_rows())
    }
}

/// Parameters that stand for what SQLite takes as a pointer only where it is bound.
fn bound() -> [Parameter; 2] {
    [
        Parameter::Text("simple".to_owned()),
        Parameter::Bytes(vec![0x41; 8]),
    ]
}

#[test]
fn functions_and_tables_that_are_not_listed_are_refused_however_they_are_written() {
    let _alone = alone();
    let bench = Bench::new();
    for statement in [
        "SELECT fts3_tokenizer(?1, ?2)",
        "SELECT FTS3_Tokenizer(?1, ?2)",
        "SELECT \"fts3_tokenizer\"(?1, ?2)",
        "WITH t AS (SELECT fts3_tokenizer(?1, ?2) AS x) SELECT x FROM t",
        "SELECT (SELECT count(fts3_tokenizer(?1, ?2)) FROM people p) AS n",
        "SELECT id FROM people WHERE fts3_tokenizer(?1, ?2) IS NULL",
        "SELECT id FROM people ORDER BY fts3_tokenizer(?1, ?2)",
        "SELECT CASE WHEN 0 THEN fts3_tokenizer(?1, ?2) END",
    ] {
        let answer = bench.ask(statement, &bound(), 5);
        assert!(
            matches!(&answer, Err(Trouble::Refused(what)) if what.contains("no function")),
            "{statement}: {answer:?}"
        );
    }
    for statement in [
        "SELECT rtreecheck('fts3tokenize')",
        "SELECT rtreecheck('main', 'people')",
        "SELECT fts5(NULL)",
        "SELECT fts5_source_id()",
        "SELECT load_extension('x')",
        "SELECT randomblob(8)",
        "SELECT sqlite_compileoption_get(1)",
        "SELECT json_patch('{}', '{}')",
        "SELECT sqlite_log(1, 'x')",
        "SELECT x FROM bad",
        "SELECT token FROM fts3tokenize('simple', 'a b')",
        "SELECT count(*) FROM fts3tokenize",
        "SELECT count(*) FROM FTS3Tokenize AS t",
        "SELECT * FROM dbstat",
        "SELECT 1 FROM dbstat",
        "SELECT name FROM pragma_table_list",
        "SELECT 1 FROM pragma_database_list",
        "SELECT count(*) FROM Pragma_function_list",
        "SELECT * FROM sqlite_dbpage",
        "WITH w AS (SELECT word FROM words) SELECT * FROM w",
        "SELECT count(*) FROM words",
        "SELECT word FROM words WHERE words MATCH 'a'",
    ] {
        let answer = bench.ask(statement, &[], 5);
        let is_unknown = matches!(&answer, Err(Trouble::Wrong(what))
            if what.contains("no such") || what.contains("unsafe use"));
        assert!(
            matches!(&answer, Err(Trouble::Refused(_))) || is_unknown,
            "{statement}: {answer:?}"
        );
    }
    // All that SQLite has and the list has not, by their own names.
    let database = Connection::open(bench.file()).expect("a database");
    let mut listed = database
        .prepare("SELECT DISTINCT name, narg FROM pragma_function_list")
        .expect("a list");
    let all: Vec<(String, i64)> = listed
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("rows")
        .collect::<Result<_, _>>()
        .expect("names");
    assert!(all.iter().any(|(name, _)| name == "fts3_tokenizer"));
    for (name, arguments) in all {
        if functions::may_be_called(&name) || !name.starts_with(|c: char| c.is_alphabetic()) {
            continue;
        }
        let given = vec!["'x'"; usize::try_from(arguments).unwrap_or(2)].join(", ");
        let statement = format!("SELECT {name}({given})");
        let answer = bench.ask(&statement, &[], 5);
        assert!(answer.is_err(), "{statement}: {answer:?}");
        assert!(!matches!(answer, Err(Trouble::Away(_))), "{statement}");
    }
}

#[test]
fn what_questions_need_is_answered() {
    let _alone = alone();
    let bench = Bench::new();
    for statement in [
        "SELECT count(*) FROM people",
        "SELECT COUNT(*) FROM People AS p JOIN names n ON upper(p.name) = n.name",
        "WITH t AS (SELECT 1) SELECT count(*) FROM t",
        "SELECT name, sql FROM sqlite_schema",
        "SELECT value FROM people, json_each(notes) WHERE people.id = 1",
        "SELECT fullkey FROM json_tree('{\"a\":1}')",
        "SELECT notes -> 'a' ->> 0 FROM people",
        "SELECT row_number() OVER (ORDER BY id), sum(id) OVER () FROM people",
        "SELECT strftime('%Y', 'now'), date('now'), CURRENT_TIMESTAMP",
        "SELECT group_concat(name, ', ') FROM people WHERE name LIKE 'A%' OR name GLOB 'B*'",
        "SELECT printf('%05d', 7), round(1.5), coalesce(NULL, 2), substr('abc', 2)",
        "EXPLAIN QUERY PLAN SELECT * FROM people",
    ] {
        let answer = bench.ask(statement, &[], 5);
        assert!(answer.is_ok(), "{statement}: {answer:?}");
    }
    // The functions that stand in the place of SQLite's answer as they do.
    for (call, wanted) in [
        ("instr('größe', 'ße')", "4"),
        ("instr('abc', '')", "1"),
        ("instr('abc', 'x')", "0"),
        ("instr(12345, 34)", "3"),
        ("instr(NULL, 'x') IS NULL", "1"),
        ("replace('aXbX', 'X', 'yy')", "ayybyy"),
        ("replace('abc', '', 'x')", "abc"),
        ("trim('  a ')", "a"),
        ("ltrim('xyaxy', 'yx')", "axy"),
        ("rtrim('xyaxy', 'yx')", "xya"),
        ("trim('a', '')", "a"),
    ] {
        let plain = Connection::open_in_memory().expect("a database");
        let ours = Connection::open_in_memory().expect("a database");
        functions::put_in_place(&ours).expect("functions");
        for database in [plain, ours] {
            let statement = format!("SELECT CAST({call} AS TEXT)");
            let found: String = database
                .query_row(&statement, [], |row| row.get(0))
                .expect("a value");
            assert_eq!(found, wanted, "{call}");
        }
    }
}

#[test]
fn no_call_of_a_function_outlasts_the_time_by_much() {
    let _alone = alone();
    let bench = Bench::new();
    let (half, all) = (500_000, 1_000_000);
    let a = |count: usize| format!("printf('%.*c', {count}, 'a')");
    let pattern = format!("'{}'", "%a".repeat(49));
    let calls = [
        format!("instr({}, {} || 'b')", a(all), a(half)),
        format!("length(replace({}, {} || 'b', 'x'))", a(all), a(half)),
        format!("length(replace({}, 'a', {}))", a(all), a(half)),
        format!("length(trim({}, {} || 'b'))", a(all), a(half)),
        format!("length(rtrim({}, 'b' || {}))", a(all), a(half)),
        format!("({} || 'x') LIKE {pattern} || 'b'", a(900_000)),
        format!("{} LIKE '%{}b'", a(all), "a".repeat(90)),
        format!("{} GLOB '*{}b'", a(all), "a".repeat(90)),
        format!("{} GLOB '*{}b'", a(all), "[a-z]".repeat(18)),
        format!("length(strftime(replace({}, 'a', '%J'), 'now'))", a(60_000)),
        format!("length(hex({}))", a(half)),
        format!("json_valid(replace({}, 'a', '['))", a(all)),
        format!(
            "length(json('[' || replace({}, 'a', '1,') || '1]'))",
            a(400_000)
        ),
        format!(
            "json_extract('[' || replace({}, 'a', '1,') || '1]', '$[#-1]')",
            a(400_000)
        ),
        format!("length(printf('%.*f', {all}, 1.0e300))"),
        format!("length(upper({}))", a(all)),
        format!("length(concat_ws({}, 1, 2))", a(all)),
    ];
    for call in calls {
        for statement in [
            format!("SELECT {call} AS x"),
            // As many as there is room for, one straight after the other.
            format!("SELECT {} AS x", vec![call.clone(); 60].join(" + ")),
            format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                 SELECT sum({call}) AS x FROM n"
            ),
        ] {
            let began = Instant::now();
            // Whether it is answered or ended is no matter here.
            let _ = bench.ask(&statement, &[], 1);
            let took = began.elapsed();
            assert!(took < Duration::from_secs(4), "{statement:.200}: {took:?}");
        }
    }
}

#[test]
fn what_a_question_holds_is_its_bytes_times_a_little() {
    let _alone = alone();
    let bench = Bench::new();
    let wide: Vec<String> = (0..1000)
        .map(|column| format!("printf('%.*c', 1000000, 'x') AS c{column}"))
        .collect();
    let long = "printf('%.*c', 900000, 'x')";
    let short = "printf('%.*c', 5000, 'x')";
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for statement in [
        format!("SELECT {}", wide.join(", ")),
        format!(
            "SELECT {}",
            ["printf('%.*c', 60000000, 'x')"; 8].join(" || ")
        ),
        format!("SELECT length({})", vec![long; 500].join("), length(")),
        format!("{rows} SELECT length(json_group_array({long})) AS x FROM n"),
        format!("{rows} SELECT length(json_group_object(i, {long})) AS x FROM n"),
        format!("{rows} SELECT length(group_concat({long})) AS x FROM n"),
        format!("{rows} SELECT max({long} || i) OVER (ROWS 100000 PRECEDING) AS x FROM n"),
        // What is sorted, grouped and told apart, of which nothing goes to a file.
        format!("{rows} SELECT i, {short} AS x FROM n ORDER BY x DESC"),
        format!("{rows} SELECT count(*) AS x FROM n GROUP BY {short} || i"),
        format!("{rows} SELECT DISTINCT {short} || i AS x FROM n"),
        format!("{rows} SELECT {short} || i AS x FROM n EXCEPT SELECT 1"),
        "SELECT length(zeroblob(1000000000))".to_owned(),
    ] {
        let before = memory::held();
        let stopped = AtomicBool::new(false);
        let peak = thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut peak = 0;
                while !stopped.load(Ordering::Relaxed) {
                    peak = peak.max(memory::held().saturating_sub(before));
                    thread::sleep(Duration::from_millis(1));
                }
                peak
            });
            let answer = bench.ask(&statement, &[], 2);
            stopped.store(true, Ordering::Relaxed);
            assert!(
                matches!(answer, Err(Trouble::TooMuch { .. })),
                "{statement:.200}: {answer:?}"
            );
            watching.join().expect("a number")
        });
        assert!(peak < 250 << 20, "{statement:.200}: {peak} bytes");
    }
}

#[test]
fn what_is_sorted_is_in_memory_and_an_answer_that_is_sorted_has_room() {
    let _alone = alone();
    let bench = Bench::new();
    let connection = open(&bench.file(), &Bounds::of_check()).expect("it opens");
    let store: i64 = connection
        .pragma_query_value(None, "temp_store", |row| row.get(0))
        .expect("a number");
    assert_eq!(store, 2, "memory");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40)";
    // Of all that an answer may have, a part that is large enough to have been sorted in files.
    let sorted =
        format!("{rows} SELECT i, printf('%.*c', 1000000, 'x') || i AS x FROM n ORDER BY x");
    assert_eq!(bench.ask(&sorted, &[], 10), Ok(40));
}
