//! What a guest gets of databases: the connections it was granted, to read, as far as its bounds.
//! What a server of PostgreSQL gives is in `postgres`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sandcast_audit::{Digest, Event};
use sandcast_sandbox::{Grants, LoadError, Plugin, RecordingGrant, Role, SqlGrant};
use serde_json::{Value, json};

use crate::bench::{Bench, asks, with};

pub(super) async fn try_load(bench: &Bench, grants: Grants) -> Result<Plugin, LoadError> {
    let guest = "tests/guests/asker";
    bench.load("asker", guest, Role::Policy, grants).await
}

pub(super) async fn load(bench: &Bench, grant: &Value) -> Plugin {
    try_load(bench, granting(grant)).await.expect("it loads")
}

impl Bench {
    /// A database of people, with a secret in another file beside it.
    fn people(&self) -> PathBuf {
        let path = self.folder.path().join("people.sqlite");
        let database = Connection::open(&path).expect("a database");
        database
            .execute_batch(
                "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, age INT, height REAL, photo BLOB);
                 INSERT INTO people VALUES (1, 'Ada', 36, 1.65, NULL), (2, 'Bob', NULL, 1.8, x'00ff'),
                     (3, 'O''Hara', 51, 1.7, NULL);
                 CREATE VIEW grown AS SELECT name FROM people WHERE age > 40;",
            )
            .expect("its tables");
        let secret = Connection::open(self.folder.path().join("secret.sqlite")).expect("another");
        secret
            .execute_batch("CREATE TABLE secret (word TEXT); INSERT INTO secret VALUES ('SECRET');")
            .expect("its table");
        path
    }
}

pub(super) fn granting(grant: &Value) -> Grants {
    let grant: SqlGrant = serde_json::from_value(grant.clone()).expect("a grant");
    Grants {
        sql: vec![grant],
        ..Grants::default()
    }
}

fn to_file(path: &Path) -> Value {
    json!({ "connection": "people", "to": { "sqlite": path }, "timeout": "20s" })
}

pub(super) async fn ask(plugin: &Plugin, statement: &str, parameters: Value) -> Vec<String> {
    let question = json!({
        "connection": "people", "statement": statement, "parameters": parameters,
    });
    asks(plugin, question).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_columns_with_their_kinds() {
    let bench = Bench::new();
    let plugin = load(&bench, &to_file(&bench.people())).await;
    for (statement, parameters, rows) in [
        (
            "SELECT id, name, age, height FROM people ORDER BY id",
            json!([]),
            vec![
                "3 rows of id Kind::Int64, name Kind::Utf8, age Kind::Int64, height Kind::Float64",
                r#"1, "Ada", 36, 1.65"#,
                r#"2, "Bob", null, 1.8"#,
                r#"3, "O'Hara", 51, 1.7"#,
            ],
        ),
        // Without rows the kinds are those that the table says.
        (
            "SELECT age, name FROM people WHERE id > 9; -- no more",
            json!([]),
            vec!["0 rows of age Kind::Int64, name Kind::Utf8"],
        ),
        (
            "SELECT name FROM people WHERE name = ?1 OR age > ?2",
            json!(["Ada", 50]),
            vec!["2 rows of name Kind::Utf8", r#""Ada""#, r#""O'Hara""#],
        ),
        (
            "SELECT ?1 AS a, ?2 AS b, ?3 AS c, ?4 AS d, hex(?5) AS e",
            json!([null, true, 2.5, "x", [1, 255]]),
            vec![
                "1 rows of a Kind::Utf8, b Kind::Int64, c Kind::Float64, d Kind::Utf8, e Kind::Utf8",
                r#"null, 1, 2.5, "x", "01FF""#,
            ],
        ),
        (
            "SELECT 1 AS n UNION ALL SELECT 1.5",
            json!([]),
            vec!["2 rows of n Kind::Float64", "1.0", "1.5"],
        ),
        (
            "SELECT * FROM grown",
            json!([]),
            vec!["1 rows of name Kind::Utf8", r#""O'Hara""#],
        ),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT sum(i) AS s FROM n",
            json!([]),
            vec!["1 rows of s Kind::Int64", "6"],
        ),
    ] {
        assert_eq!(
            ask(&plugin, statement, parameters).await,
            rows,
            "{statement}"
        );
    }
    assert_eq!(bench.denied(), []);
    for (statement, parameters, why) in [
        ("SELECT photo FROM people", json!([]), "bytes"),
        ("SELECT 1 AS a, 2 AS a", json!([]), "AS"),
        (
            "SELECT 'x' AS a UNION ALL SELECT 1",
            json!([]),
            "several kinds",
        ),
        (
            "SELECT 9007199254740993 AS a UNION ALL SELECT 1.5",
            json!([]),
            "no float",
        ),
        ("SELECT ?1", json!([]), "1 places"),
        ("SELECT 1", json!([2]), "0 places"),
        ("SELECT nothing FROM people", json!([]), "nothing"),
        ("SELECT * FROM nowhere", json!([]), "nowhere"),
        ("SELEKT", json!([]), "syntax"),
        ("SELECT 1\u{0}", json!([]), "without a zero"),
    ] {
        let said = ask(&plugin, statement, parameters).await;
        assert!(
            said[0].starts_with("FailureCode::InvalidInput: ") && said[0].contains(why),
            "{statement}: {said:?}"
        );
    }
    assert_eq!(bench.denied(), [], "mistakes are not denials");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_is_never_part_of_the_statement() {
    let bench = Bench::new();
    let path = bench.people();
    let plugin = load(&bench, &to_file(&path)).await;
    for text in [
        "' OR '1'='1",
        "Ada' OR 1=1 --",
        "x'; DROP TABLE people; --",
        "Ada'); ATTACH 'secret.sqlite' AS s; --",
        "\" OR \"\"=\"",
        "Ada\u{0}' OR 1=1",
    ] {
        let said = ask(
            &plugin,
            "SELECT name FROM people WHERE name = ?1",
            json!([text]),
        )
        .await;
        assert_eq!(said, ["0 rows of name Kind::Utf8"], "{text}");
    }
    let said = ask(
        &plugin,
        "SELECT name FROM people WHERE name = ?1",
        json!(["O'Hara"]),
    )
    .await;
    assert_eq!(said[1..], [r#""O'Hara""#]);
    let whole = Connection::open(path).expect("the database");
    let rows: i64 = whole
        .query_row("SELECT count(*) FROM people", [], |row| row.get(0))
        .expect("it is there");
    assert_eq!(rows, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_does_more_than_read_is_refused() {
    let bench = Bench::new();
    let path = bench.people();
    let before = Digest::of(&fs::read(&path).expect("the database"));
    let plugin = load(&bench, &to_file(&path)).await;
    let secret = bench.folder.path().join("secret.sqlite");
    let attach = format!("ATTACH '{}' AS s", secret.display());
    let planted = bench.folder.path().join("planted.sqlite");
    let into = format!("VACUUM INTO '{}'", planted.display());
    let statements = [
        "INSERT INTO people VALUES (9, 'x', 1, 1, NULL)",
        "UPDATE people SET name = 'x'",
        "DELETE FROM people",
        "INSERT INTO people (name) VALUES ('x') RETURNING id",
        "DROP TABLE people",
        "CREATE TABLE more (x)",
        "CREATE TEMP TABLE more AS SELECT * FROM people",
        "CREATE TEMP VIEW more AS SELECT 1",
        "ALTER TABLE people ADD COLUMN more",
        "CREATE VIRTUAL TABLE more USING fts5(x)",
        "SELECT 1; DROP TABLE people",
        "SELECT 1; SELECT 2",
        &attach,
        &into,
        "ATTACH ':memory:' AS m",
        "DETACH main",
        "VACUUM",
        "REINDEX",
        "ANALYZE",
        "PRAGMA query_only = OFF",
        "PRAGMA table_info(people)",
        "SELECT * FROM pragma_table_info('people')",
        "PRAGMA journal_mode = DELETE",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT s",
        "SELECT load_extension('/tmp/evil.so')",
        "",
        "-- nothing",
    ];
    let mut refused = 0;
    for statement in statements {
        let said = ask(&plugin, statement, json!([])).await;
        // What SQLite does not even know is a mistake; everything else is a denial.
        let is_unknown = statement.contains("fts5") || statement.contains("load_extension");
        let is_denied = said[0].starts_with("FailureCode::Denied: ");
        assert!(
            is_denied || is_unknown && said[0].starts_with("FailureCode::InvalidInput: "),
            "{statement}: {said:?}"
        );
        refused += usize::from(is_denied);
    }
    let after = Digest::of(&fs::read(&path).expect("the database"));
    assert_eq!(after, before, "nothing was changed");
    assert!(!planted.exists());
    let denied = bench.denied();
    assert!(refused >= statements.len() - 2);
    // One after the other that are the same are one entry each instance.
    assert_eq!(denied.len(), refused);
    assert!(
        denied
            .iter()
            .all(|(_, line)| line == "plugins.asker.grants.sql[0].access"),
        "{denied:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_bytes_time_and_calls_are_bounded() {
    let bench = Bench::new();
    let path = bench.people();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT";
    for (bounds, statement, key) in [
        (
            json!({ "rows": 2 }),
            "SELECT id FROM people".to_owned(),
            "rows",
        ),
        (
            json!({ "rows": 1000 }),
            format!("{endless} i FROM n"),
            "rows",
        ),
        (
            json!({ "bytes": "64KiB", "rows": 1_000_000_000 }),
            format!("{endless} i FROM n"),
            "bytes",
        ),
        (
            json!({ "bytes": "1MiB" }),
            "SELECT hex(zeroblob(900000)) AS x".into(),
            "bytes",
        ),
        (
            json!({ "bytes": "1MiB" }),
            "SELECT length(zeroblob(1000000000))".into(),
            "bytes",
        ),
        (
            // A text that is too long grows no further, and is told when it ends.
            json!({ "bytes": "1MiB", "timeout": "1s" }),
            format!("{endless} group_concat(hex(zeroblob(1000))) AS x FROM n"),
            "timeout",
        ),
        (
            json!({ "timeout": "300ms" }),
            format!("{endless} count(*) FROM n"),
            "timeout",
        ),
        (
            json!({ "timeout": "300ms" }),
            "SELECT count(*) FROM people a, people b, people c, people d, people e, people f, \
             people g, people h, people i, people j, people k, people l, people m, people n, \
             people o, people p, people q, people r"
                .into(),
            "timeout",
        ),
    ] {
        let before = bench.denied().len();
        let plugin = load(&bench, &with(to_file(&path), &bounds)).await;
        let began = Instant::now();
        let said = ask(&plugin, &statement, json!([])).await;
        assert!(began.elapsed() < Duration::from_secs(15), "{statement}");
        assert!(
            said[0].starts_with("FailureCode::Exhausted: "),
            "{statement}: {said:?}"
        );
        let denied = bench.denied();
        assert_eq!(denied.len(), before + 1, "{statement}");
        assert_eq!(
            denied[before].1,
            format!("plugins.asker.grants.sql[0].{key}"),
            "{statement}"
        );
    }
    let plugin = load(&bench, &with(to_file(&path), &json!({ "calls": 3 }))).await;
    let question = |times: u32| json!({ "connection": "people", "statement": "SELECT 1 AS x", "times": times });
    assert_eq!(asks(&plugin, question(3)).await[1], "1");
    let said = asks(&plugin, question(4)).await;
    assert!(said[0].contains("it has asked 3 times already"), "{said:?}");
    // Exactly as many as may be.
    let plugin = load(&bench, &with(to_file(&path), &json!({ "rows": 3 }))).await;
    assert_eq!(
        ask(&plugin, "SELECT id FROM people", json!([])).await.len(),
        4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_statements_are_listed_nothing_else_is_asked() {
    let bench = Bench::new();
    let grant = with(
        to_file(&bench.people()),
        &json!({ "statements": { "by_age": "SELECT name FROM people WHERE age > ?1" } }),
    );
    let plugin = load(&bench, &grant).await;
    let said = ask(&plugin, "by_age", json!([40])).await;
    assert_eq!(said, ["1 rows of name Kind::Utf8", r#""O'Hara""#]);
    for statement in [
        "SELECT 1",
        "SELECT name FROM people WHERE age > ?1",
        "by_name",
        "",
    ] {
        let said = ask(&plugin, statement, json!([40])).await;
        assert!(
            said[0].starts_with("FailureCode::Denied: "),
            "{statement}: {said:?}"
        );
    }
    let denied = bench.denied();
    assert_eq!(denied.len(), 4);
    assert!(
        denied
            .iter()
            .all(|(_, line)| line == "plugins.asker.grants.sql[0].statements")
    );
    // Nor over another connection.
    let said = asks(
        &plugin,
        json!({ "connection": "payroll", "statement": "by_age" }),
    )
    .await;
    assert_eq!(
        said,
        ["FailureCode::Denied: ask over `payroll`, which is no connection of its"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_on_record_by_their_digest_and_without_parameters() {
    let bench = Bench::new();
    let plugin = load(&bench, &to_file(&bench.people())).await;
    let statement = "SELECT name FROM people WHERE name = ?1";
    ask(&plugin, statement, json!(["a word that nobody may read"])).await;
    ask(&plugin, "SELEKT 'a word that nobody may read'", json!([])).await;
    let told: Vec<String> = bench
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Effect {
                capability,
                action,
                target,
                digest,
                ..
            } => {
                let is_its = digest == Some(Digest::of(statement.as_bytes()));
                Some(format!("{capability} {action} {target} {is_its}"))
            }
            Event::EffectFinished { outcome, .. } => Some(outcome),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            "sql query people true",
            "0 rows",
            "sql query people false",
            "an error of the statement",
        ]
    );
    let log = format!("{:?}", bench.events());
    assert!(
        !log.contains("nobody may read") && !log.contains("SELECT"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_given_the_rows_of_then_and_asks_nobody() {
    let bench = Bench::new();
    let path = bench.people();
    let plugin = try_load(
        &bench,
        Grants {
            recording: Some(RecordingGrant::default()),
            ..granting(&to_file(&path))
        },
    )
    .await
    .expect("it loads");
    let statements = [
        "SELECT id, name, age FROM people ORDER BY id",
        "DELETE FROM people",
        "SELEKT",
    ];
    for statement in statements {
        ask(&plugin, statement, json!([])).await;
    }
    fs::remove_file(&path).expect("the database is gone");
    let recorded = bench.recorded();
    assert_eq!(recorded.len(), statements.len());
    for digest in recorded {
        bench.is_replayed(&Bench::new(), &digest).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_cannot_be_given_are_refused_at_load() {
    let bench = Bench::new();
    let path = bench.people();
    let error = try_load(&bench, Grants::default())
        .await
        .map(|_| ())
        .expect_err("not granted");
    assert!(matches!(&error, LoadError::NotGranted { .. }), "{error}");
    assert!(
        error.to_string().contains("plugins.asker.grants.sql"),
        "{error}"
    );
    let nowhere = bench.folder.path().join("nowhere.sqlite");
    let text = bench.folder.path().join("text.sqlite");
    fs::write(&text, "this is no database").expect("written");
    let server = |more: Value| {
        let server = json!({ "host": "db.example.com", "database": "d", "user": "u" });
        json!({ "connection": "people", "to": { "postgres": with(server, &more) } })
    };
    for (grant, why) in [
        (
            json!({ "connection": "people" }),
            "there is no connection `people`",
        ),
        (to_file(&nowhere), "cannot be opened"),
        (to_file(&text), "cannot be asked"),
        (to_file(bench.folder.path()), "not a file"),
        (
            with(to_file(&path), &json!({ "connection": "a b" })),
            "cannot be a name",
        ),
        (
            with(to_file(&path), &json!({ "statements": { "x": " " } })),
            "the statement `x`",
        ),
        (with(to_file(&path), &json!({ "bytes": 0 })), "`bytes`"),
        (with(to_file(&path), &json!({ "timeout": 0 })), "`timeout`"),
        (server(json!({ "host": "DB.example.com" })), "is not a host"),
        (server(json!({ "tls": false })), "in the clear"),
        (server(json!({ "user": "" })), "`user`"),
        (
            server(json!({ "password": { "env": "SANDCAST_NO_SUCH_VARIABLE" } })),
            "SANDCAST_NO_SUCH_VARIABLE",
        ),
    ] {
        let error = try_load(&bench, granting(&grant))
            .await
            .map(|_| ())
            .expect_err(why);
        assert!(
            matches!(&error, LoadError::BadGrant { grant, reason, .. } if grant == "sql" && reason.contains(why)),
            "{error}"
        );
    }
    let mut twice = granting(&to_file(&path));
    twice.sql.extend(twice.sql.clone());
    let error = try_load(&bench, twice)
        .await
        .map(|_| ())
        .expect_err("twice");
    assert!(error.to_string().contains("granted twice"), "{error}");
    for unknown in [json!({ "access": "read-write" }), json!({ "more": 1 })] {
        let grant = with(to_file(&path), &unknown);
        serde_json::from_value::<SqlGrant>(grant).expect_err("it cannot be written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_reached_where_its_address_may_be() {
    let bench = Bench::new();
    // Nobody listens there, which nobody finds out without `networks`.
    let server = |networks: Value| {
        json!({ "connection": "people", "to": { "postgres": {
            "host": "127.0.0.1", "port": 1, "database": "d", "user": "u", "tls": false,
            "networks": networks,
        } } })
    };
    let plugin = load(&bench, &server(json!([]))).await;
    let said = ask(&plugin, "SELECT 1", json!([])).await;
    assert!(
        said[0].starts_with("FailureCode::Denied: the database is at an address"),
        "{said:?}"
    );
    let plugin = load(&bench, &server(json!(["127.0.0.0/8"]))).await;
    let said = ask(&plugin, "SELECT 1", json!([])).await;
    assert_eq!(
        said,
        ["FailureCode::Unavailable: the database cannot be reached"]
    );
    let said = ask(&plugin, "COPY x TO PROGRAM 'sh'", json!([])).await;
    assert!(
        said[0].starts_with("FailureCode::Denied: a question begins with"),
        "{said:?}"
    );
}
