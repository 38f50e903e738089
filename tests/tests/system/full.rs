//! The log takes nothing any more: what cannot be put on record before it is done is not done, and whoever
//! wanted it is ended.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::Connection;
use sandcast_sandbox::{
    CallContext, CallError, ControlPoint, Grants, Plugin, Request, Role, ScanRequest,
};
use serde_json::{Value, json};

use crate::bench::Bench;

/// Loads a guest with grants, as they stand in a pipeline.
async fn load(bench: &Bench, guest: &str, role: Role, grants: Value) -> Plugin {
    let grants: Grants = serde_json::from_value(grants).expect("grants");
    let guest = format!("tests/guests/{guest}");
    let loaded = bench.load("test", &guest, role, grants).await;
    loaded.expect("it loads")
}

/// Has a policy decide once, and ends it.
async fn decides(plugin: &Plugin, question: Value) -> Result<Vec<String>, CallError> {
    let context = CallContext::new(None, "test");
    let mut policy = plugin.policy(&context, &json!({})).await?;
    let request = Request {
        control_point: ControlPoint::Promote,
        principal: "user:test".into(),
        action: "promote".into(),
        resource: "model:test".into(),
        context: question,
    };
    let decision = policy.decide(&request).await?;
    policy.finish()?;
    Ok(decision.reasons)
}

/// Has a connector hand over its one row, and ends it.
async fn hands_over(plugin: &Plugin, config: &Value) -> Result<(), CallError> {
    let context = CallContext::new(None, "test");
    let mut connector = plugin.connector(&context, config).await?;
    connector.schema().await?;
    let split = connector.partitions().await?.remove(0);
    connector.scan(&ScanRequest::all(split)).await?;
    connector.next().await?;
    connector.finish().map(|_| ())
}

/// What ends a guest that did something nobody could put on record.
#[track_caller]
fn is_about_the_log<T: std::fmt::Debug>(outcome: Result<T, CallError>) {
    let error = outcome.expect_err("nothing of it counts").to_string();
    assert!(error.contains("log"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten().take(10) {
            counted.fetch_add(1, Ordering::SeqCst);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            let asked = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = asked.and_then(|_| std::io::Write::write_all(&mut stream, answer));
        }
    });
    let bench = Bench::with_a_log_on_disk();
    let grants = json!({ "http": [{
        "host": "127.0.0.1", "port": address.port(), "scheme": "http", "networks": ["127.0.0.0/8"],
    }] });
    let plugin = load(&bench, "caller", Role::Connector, grants).await;
    let config = json!({ "url": format!("http://{address}/") });
    hands_over(&plugin, &config).await.expect("it is asked");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    bench.breaks_its_log();
    // It is told that this cannot be done; whatever it makes of that is an end.
    let refused = hands_over(&plugin, &config).await;
    refused.expect_err("nobody could know of it");
    assert_eq!(connections.load(Ordering::SeqCst), 1, "nobody heard of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_is_made_or_read() {
    let bench = Bench::with_a_log_on_disk();
    let folder = bench.folder.path().join("granted");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("open.txt"), "open").expect("a file");
    let grants = json!({ "files": [{ "host": folder, "guest": "/data", "access": "read-write" }] });
    let plugin = load(&bench, "hostile-reader", Role::Connector, grants).await;
    let config = |behaviour: &str, path: &str| json!({ "behaviour": behaviour, "path": path });
    let made = hands_over(&plugin, &config("write", "first.txt")).await;
    made.expect("it is made");
    assert!(folder.join("first.txt").exists());
    bench.breaks_its_log();
    // It is told that this cannot be done; whatever it makes of that is an end.
    let refused = hands_over(&plugin, &config("write", "second.txt")).await;
    refused.expect_err("nobody could know of it");
    assert!(!folder.join("second.txt").exists(), "it is not made");
    let refused = hands_over(&plugin, &config("write", "open.txt")).await;
    refused.expect_err("nor of that");
    assert_eq!(
        fs::read(folder.join("open.txt")).expect("it is there"),
        b"open"
    );
    let refused = hands_over(&plugin, &config("read", "/data/open.txt")).await;
    refused.expect_err("it is not read either");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_database_is_asked() {
    let bench = Bench::with_a_log_on_disk();
    let file = bench.folder.path().join("people.sqlite");
    let database = Connection::open(&file).expect("a database");
    let table = "CREATE TABLE people (name TEXT); INSERT INTO people VALUES ('Ada')";
    database.execute_batch(table).expect("its table");
    let grants = json!({ "sql": [{ "connection": "people", "to": { "sqlite": file } }] });
    let plugin = load(&bench, "asker", Role::Policy, grants).await;
    let question = json!({ "connection": "people", "statement": "SELECT name FROM people" });
    let rows = decides(&plugin, question.clone())
        .await
        .expect("it is asked");
    assert_eq!(rows.last().map(String::as_str), Some("\"Ada\""));
    bench.breaks_its_log();
    is_about_the_log(decides(&plugin, question).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_put_into_a_store() {
    let bench = Bench::with_a_log_on_disk();
    let lake = bench.folder.path().join("lake");
    fs::create_dir(&lake).expect("a store");
    let grants = json!({ "blob": [{
        "store": "lake", "prefix": "raw/", "access": "read-write",
        "to": { "url": format!("file:{}", lake.display()) },
    }] });
    let plugin = load(&bench, "stower", Role::Policy, grants).await;
    let put =
        |key: &str| json!({ "steps": [{ "do": "put", "store": "lake", "key": key, "text": "x" }] });
    let first = decides(&plugin, put("raw/first")).await;
    first.expect("it is put");
    assert!(lake.join("raw/first").exists());
    bench.breaks_its_log();
    is_about_the_log(decides(&plugin, put("raw/second")).await);
    assert!(!lake.join("raw/second").exists(), "it is not put");
    let delete = json!({ "steps": [{ "do": "delete", "store": "lake", "key": "raw/first" }] });
    is_about_the_log(decides(&plugin, delete).await);
    assert!(lake.join("raw/first").exists(), "it is not taken away");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_from_one_instance_to_the_next() {
    let bench = Bench::with_a_log_on_disk();
    let grants = || json!({ "state": {} });
    let plugin = load(&bench, "keeper", Role::Policy, grants()).await;
    let does = |steps: Value| json!({ "do": steps });
    let first = decides(&plugin, does(json!([{ "set": ["a", "one"] }]))).await;
    assert_eq!(first.expect("it is kept"), ["done"]);
    bench.breaks_its_log();
    is_about_the_log(decides(&plugin, does(json!([{ "set": ["a", "two"] }]))).await);
    is_about_the_log(decides(&plugin, does(json!([{ "delete": "a" }]))).await);
    // As a host sees it whose log works.
    let beside = bench.beside();
    let other = load(&beside, "keeper", Role::Policy, grants()).await;
    let there = decides(&other, does(json!([{ "get": "a" }]))).await;
    assert_eq!(there.expect("it is read"), ["one"]);
}
