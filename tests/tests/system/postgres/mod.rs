//! What a guest gets of a server of PostgreSQL. Where its programs are on this machine one is started for
//! these tests. `SANDCAST_TEST_POSTGRES` names another one, whose account may make tables, such as
//! `postgres://tester@127.0.0.1:5432/tests`; its password is in `SANDCAST_TEST_POSTGRES_PASSWORD`. Where that
//! speaks TLS as `localhost`, `SANDCAST_TEST_POSTGRES_AUTHORITY` names the file of its authority.

mod server;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use sandcast_sandbox::{Grants, RecordingGrant};
use serde_json::json;
use tempfile::TempDir;

use crate::bench::Bench;
use crate::sql::{ask, granting, load, try_load};
use server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_columns_with_their_kinds() {
    let Some(server) = Server::found() else {
        return;
    };
    server.people("sandcast_rows").await;
    let bench = Bench::new();
    let plugin = load(&bench, &server.grant()).await;
    for (statement, parameters, rows) in [
        (
            "SELECT id, name, age, height, born, seen, grown FROM sandcast_rows ORDER BY id",
            json!([]),
            vec![
                "3 rows of id Kind::Int64, name Kind::Utf8, age Kind::Int64, height Kind::Float64, \
                 born Kind::Date32, seen Kind::TimestampUs, grown Kind::Boolean",
                r#"1, "Ada", 36, 1.5, -56270 d, 1704067200000000 us, true"#,
                r#"2, "Bob", null, null, null, null, null"#,
                r#"3, "O'Hara", 51, 1.75, 1 d, 946684799500000 us, false"#,
            ],
        ),
        (
            "SELECT paid::float8 AS paid FROM sandcast_rows WHERE id > $1 AND name = $2",
            json!([2, "O'Hara"]),
            vec!["1 rows of paid Kind::Float64", "2.2"],
        ),
        (
            "SELECT name FROM sandcast_rows WHERE age = $1",
            json!([null]),
            vec!["0 rows of name Kind::Utf8"],
        ),
        (
            "SELECT $1 AS a, $2 AS b, $3 AS c, $4 AS d, encode($5, 'hex') AS e",
            json!([true, 7, 2.5, "x", [1, 255]]),
            vec![
                "1 rows of a Kind::Boolean, b Kind::Int64, c Kind::Float64, d Kind::Utf8, e Kind::Utf8",
                r#"true, 7, 2.5, "x", "01ff""#,
            ],
        ),
    ] {
        assert_eq!(
            ask(&plugin, statement, parameters).await,
            rows,
            "{statement}"
        );
    }
    assert_eq!(bench.denied(), []);
    for (statement, why) in [
        ("SELECT paid FROM sandcast_rows", "numeric"),
        ("SELECT 'infinity'::date AS d", "do not know"),
        ("SELECT nothing FROM sandcast_rows", "nothing"),
        ("SELECT $1::int", "1 places"),
        ("SELECT 1 AS a, 2 AS a", "AS"),
        ("SELECT 1 FROM", "syntax"),
    ] {
        let said = ask(&plugin, statement, json!([])).await;
        assert!(
            said[0].starts_with("FailureCode::InvalidInput: ") && said[0].contains(why),
            "{statement}: {said:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_beside_the_statement_and_statements_only_read() {
    let Some(server) = Server::found() else {
        return;
    };
    server.people("sandcast_reading").await;
    let bench = Bench::new();
    let plugin = load(&bench, &server.grant()).await;
    let by_name = "SELECT name FROM sandcast_reading WHERE name = $1";
    for text in [
        "' OR '1'='1",
        "Ada'; DROP TABLE sandcast_reading; --",
        "$1",
        "Ada' OR 1=1 --",
    ] {
        let said = ask(&plugin, by_name, json!([text])).await;
        assert_eq!(said, ["0 rows of name Kind::Utf8"], "{text}");
    }
    assert_eq!(
        ask(&plugin, by_name, json!(["O'Hara"])).await[1],
        r#""O'Hara""#
    );
    for statement in [
        "INSERT INTO sandcast_reading (id) VALUES (9)",
        "DELETE FROM sandcast_reading",
        "DROP TABLE sandcast_reading",
        "WITH gone AS (DELETE FROM sandcast_reading RETURNING id) SELECT * FROM gone",
        "SELECT * INTO sandcast_planted FROM sandcast_reading",
        "SELECT id FROM sandcast_reading FOR UPDATE",
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "COMMIT",
        "COPY sandcast_reading TO PROGRAM 'cat'",
        "COPY sandcast_reading TO STDOUT",
        "DO $$ BEGIN DELETE FROM sandcast_reading; END $$",
        "EXPLAIN ANALYZE DELETE FROM sandcast_reading",
        "SELECT pg_read_file('/etc/passwd')",
    ] {
        let said = ask(&plugin, statement, json!([])).await;
        assert!(
            said[0].starts_with("FailureCode::Denied: "),
            "{statement}: {said:?}"
        );
    }
    // It is one statement, or none.
    for statement in [
        "SELECT 1; DROP TABLE sandcast_reading",
        "SELECT 1; COMMIT; DELETE FROM sandcast_reading",
        "SELECT 1; SELECT 2",
    ] {
        let said = ask(&plugin, statement, json!([])).await;
        assert!(
            said[0].contains("multiple commands") || said[0].starts_with("FailureCode::Denied"),
            "{statement}: {said:?}"
        );
    }
    // A setting cannot make the transaction one that writes, and is gone with it.
    for setting in ["transaction_read_only", "default_transaction_read_only"] {
        let set = format!("SELECT set_config('{setting}', 'off', false)");
        let said = ask(&plugin, &set, json!([])).await;
        assert_eq!(
            setting.starts_with("default"),
            said[0].starts_with("1 rows"),
            "{setting}: {said:?}"
        );
        let said = ask(
            &plugin,
            "SELECT current_setting('transaction_read_only') AS it",
            json!([]),
        );
        assert_eq!(said.await[1], r#""on""#, "{setting}");
    }
    let writer = server.writer().await;
    let rows = writer
        .query_typed("SELECT count(*) FROM sandcast_reading", &[])
        .await;
    let rows: i64 = rows.expect("it is there")[0].get(0);
    assert_eq!(rows, 3);
    // What a server does in a function all the same is never made to stay.
    ask(&plugin, "SELECT lo_create(0) AS made", json!([])).await;
    let made = writer.query_typed("SELECT oid FROM pg_largeobject_metadata", &[]);
    assert!(made.await.expect("asked").is_empty());
    let planted = writer.query_typed(
        "SELECT 1 FROM pg_class WHERE relname = 'sandcast_planted'",
        &[],
    );
    assert!(planted.await.expect("asked").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_bytes_and_time_are_bounded() {
    let Some(server) = Server::found() else {
        return;
    };
    let bench = Bench::new();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT";
    for (key, bound, statement) in [
        (
            "rows",
            json!(10),
            "SELECT generate_series(1, 1000000000) AS n".to_owned(),
        ),
        ("rows", json!(10), format!("{endless} i FROM n")),
        (
            "bytes",
            json!("1MiB"),
            "SELECT repeat('x', 100) AS x FROM generate_series(1, 90000)".into(),
        ),
        // One value that is larger than memory should be asked to hold.
        (
            "bytes",
            json!("1MiB"),
            "SELECT repeat('x', 500000000) AS x".into(),
        ),
        (
            "timeout",
            json!("500ms"),
            "SELECT pg_sleep(60)::text AS x".into(),
        ),
        (
            "timeout",
            json!("500ms"),
            format!("{endless} count(*) FROM n"),
        ),
        (
            "timeout",
            json!("500ms"),
            "SELECT set_config('statement_timeout', '0', false), pg_sleep(60)::text AS x".into(),
        ),
    ] {
        let mut grant = server.grant();
        grant[key] = bound;
        let before = bench.denied().len();
        let plugin = load(&bench, &grant).await;
        let began = Instant::now();
        let said = ask(&plugin, &statement, json!([])).await;
        assert!(began.elapsed() < Duration::from_secs(15), "{statement}");
        assert!(
            said[0].starts_with("FailureCode::Exhausted: "),
            "{statement}: {said:?}"
        );
        let denied = bench.denied();
        let lines: Vec<&str> = denied[before..].iter().map(|it| it.1.as_str()).collect();
        let line = format!("plugins.asker.grants.sql[0].{key}");
        assert_eq!(lines, [line], "{statement}");
    }
    // Nothing that was asked goes on.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let writer = server.writer().await;
    let left = "SELECT query FROM pg_stat_activity WHERE application_name = 'sandcast' AND state = 'active'";
    let left = writer.query_typed(left, &[]).await.expect("asked");
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_the_hosts_alone() {
    let Some(server) = Server::found() else {
        return;
    };
    let bench = Bench::new();
    let plugin = load(&bench, &server.grant()).await;
    ask(&plugin, "SELECT 1 AS one", json!([])).await;
    let mut grant = server.grant();
    let folder = TempDir::new().expect("a folder");
    let wrong = folder.path().join("wrong");
    fs::write(&wrong, "not the password").expect("written");
    grant["to"]["postgres"]["password"] = json!({ "file": wrong });
    let plugin = load(&bench, &grant).await;
    if let Some(password) = &server.password {
        let said = ask(&plugin, "SELECT 1 AS one", json!([])).await;
        assert_eq!(
            said,
            ["FailureCode::Unavailable: the database does not answer"]
        );
        let log = format!("{:?}", bench.events());
        assert!(
            !log.contains(&password.text) && !log.contains("not the password"),
            "{log}"
        );
        assert!(log.contains(&password.reference), "its reference is: {log}");
    }
    // What TLS is asked of and does not speak is not spoken to in the clear.
    let mut grant = server.grant();
    grant["to"]["postgres"]["tls"] = json!(true);
    grant["to"]["postgres"]["certificate_authority"] =
        json!(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates/authority.pem"));
    let plugin = load(&bench, &grant).await;
    let said = ask(&plugin, "SELECT 1 AS one", json!([])).await;
    // An address has no certificate.
    assert_eq!(
        said,
        ["FailureCode::Unavailable: the database does not answer"]
    );
    let Some(authority) = &server.authority else {
        return;
    };
    grant["to"]["postgres"]["host"] = json!("localhost");
    grant["to"]["postgres"]["certificate_authority"] = json!(authority);
    let plugin = load(&bench, &grant).await;
    let said = ask(
        &plugin,
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        json!([]),
    );
    assert_eq!(said.await, ["1 rows of ssl Kind::Boolean", "true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_given_the_rows_of_then() {
    let Some(server) = Server::found() else {
        return;
    };
    server.people("sandcast_replay").await;
    let bench = Bench::new();
    let grants = Grants {
        recording: Some(RecordingGrant::default()),
        ..granting(&server.grant())
    };
    let plugin = try_load(&bench, grants).await.expect("it loads");
    let said = ask(
        &plugin,
        "SELECT id, name, born, seen, grown FROM sandcast_replay ORDER BY id",
        json!([]),
    );
    assert_eq!(said.await.len(), 4);
    let writer = server.writer().await;
    writer
        .batch_execute("DROP TABLE sandcast_replay")
        .await
        .expect("gone");
    for digest in bench.recorded() {
        bench.is_replayed(&Bench::new(), &digest).await;
    }
}
