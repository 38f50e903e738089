//! Guests that are granted a database to read, and want more of it.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::Connection;
use sandcast_audit::Digest;
use sandcast_sandbox::{CallContext, Plugin, Role, SqlGrant};
use sandcast_tests::built;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::catalogue::rows_of;
use crate::guests::request;
use crate::yard::{Outcome, Yard, grants};

/// How long a question may take, and how much longer it may be until it is noticed.
const TIMEOUT: &str = "1s";
const PATIENCE: Duration = Duration::from_secs(20);

/// A file of people, with what an operator has made in it without a thought.
fn people(folder: &Path) {
    let database = Connection::open(folder.join("people.sqlite")).expect("a database");
    database
        .execute_batch(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT);
             INSERT INTO people VALUES (1, 'Ada'), (2, 'Bob');
             CREATE VIEW bad AS SELECT fts3_tokenizer('simple') AS x;
             CREATE VIRTUAL TABLE words USING fts5(word);
             CREATE TABLE long (word TEXT);
             INSERT INTO long VALUES (hex(zeroblob(1048576)));",
        )
        .expect("its tables");
}

/// Whom nobody asked for is not among the answers: as many rows as there must be, where it matters.
fn rows_of_answer(behaviour: &str) -> Option<&'static str> {
    match behaviour {
        "quote-in-parameter" | "statement-in-parameter" | "listed-with-quote" => Some("0 rows"),
        "write-in-comment" | "listed" => Some("1 rows"),
        _ => None,
    }
}

async fn ask(plugin: &Plugin, behaviour: &str) -> Outcome {
    let config = json!({ "behaviour": behaviour });
    let asking = async {
        let context = CallContext::new(None, "test");
        let mut policy = plugin.policy(&context, &config).await?;
        policy.decide(&request("production")).await
    };
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(decided) => Ok(decided?.reasons),
        Err(_) => panic!("{behaviour} goes on beyond its {TIMEOUT}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn askers() {
    let mut yard = Yard::new("askers").await;
    let component = fs::read(built("tests/guests/hostile-asker")).expect("the guest");
    let folder = TempDir::with_prefix("sandcast-hostile-").expect("a folder");
    people(folder.path());
    let file = folder.path().join("people.sqlite");
    let grant = |connection: &str, statements: Value| -> SqlGrant {
        let grant = json!({
            "connection": connection, "to": { "sqlite": &file }, "statements": statements,
            "timeout": TIMEOUT, "bytes": "16MiB",
        });
        serde_json::from_value(grant).expect("a grant")
    };
    let mut with_people = grants(Role::Policy);
    with_people.sql = vec![
        grant("people", json!({})),
        grant(
            "listed",
            json!({ "by_name": "SELECT id FROM people WHERE name = ?1" }),
        ),
    ];
    let loaded = yard
        .sandbox
        .load("asker", &component, Role::Policy, with_people);
    let plugin = loaded.await.expect("it loads");
    let digest = || Digest::of(&fs::read(&file).expect("the file"));
    let before = digest();
    for row in rows_of("hostile-asker") {
        let answer = Mutex::new(Vec::<String>::new());
        let attempt = async {
            let reasons = ask(&plugin, row.behaviour).await?;
            answer.lock().expect("no panic").clone_from(&reasons);
            Ok(reasons)
        };
        yard.lets(&row, attempt, ask(&plugin, "behave")).await;
        if let Some(rows) = rows_of_answer(row.behaviour) {
            assert_eq!(*answer.lock().expect("no panic"), [rows], "{row}");
        }
        assert_eq!(digest(), before, "{row}: the file was changed");
        let beside = fs::read_dir(folder.path()).expect("the folder").count();
        assert_eq!(beside, 1, "{row}: there is more than the file");
    }
    insta::assert_snapshot!("askers", yard.finish());
}
