//! State, databases and stores for a policy in a process of its own: asked of the host, under the same grants.

use std::fs;
use std::path::Path;

use sandcast_audit::{AuditLog, Event};
use sandcast_sandbox::{
    BlobGrant, ByteSize, ControlPoint, Grants, HttpGrant, Isolation, Plugin, RandomGrant,
    Recording, RecordingGrant, Recordings, Request, Role, Sandbox, SqlGrant, StateGrant, replay,
};
use serde_json::{Value, json};

use crate::apart::{
    ALONE, children, component, context, effects, processes, program, sandbox, told,
};
use crate::server::serve;

/// What a new instance says to what it is told, and what it recorded.
async fn does(
    plugin: &Plugin,
    config: &Value,
    context_of_request: Value,
) -> (Vec<String>, sandcast_audit::Digest) {
    let policy = plugin.policy(&context(), config).await;
    let mut policy = policy.expect("it is configured");
    let request = Request {
        control_point: ControlPoint::Promote,
        principal: "user:test".into(),
        action: "promote".into(),
        resource: "model:test".into(),
        context: context_of_request,
    };
    let reasons = policy.decide(&request).await.expect("it decides").reasons;
    let usage = policy.finish().expect("ended");
    (reasons, usage.recording.expect("a recording"))
}

fn house(folder: &Path, audit: &AuditLog, recordings: &Recordings) -> Sandbox {
    sandbox(audit, |config| {
        config.plugin_state = Some(folder.join("plugin-state.sqlite"));
        config.recordings = Some(recordings.clone());
        config.process = Some(program());
    })
}

/// The same questions in the engine and in a process: same answers, same record, and a replay of each.
async fn same_in_both(
    guest: &str,
    grants: Grants,
    config: Value,
    questions: &[Value],
) -> Vec<String> {
    let (mut said, mut logs) = (Vec::new(), Vec::new());
    for isolation in [Isolation::Engine, Isolation::Process] {
        let folder = tempfile::tempdir().expect("a folder");
        let recordings = Recordings::at(folder.path().join("recordings"));
        let audit = AuditLog::in_memory();
        let sandbox = house(folder.path(), &audit, &recordings);
        let grants = Grants {
            isolation,
            recording: Some(RecordingGrant::default()),
            ..grants.clone()
        };
        let bytes = component(guest);
        let loaded = sandbox.load("guest", &bytes, Role::Policy, grants).await;
        let plugin = loaded.expect("it loads");
        let mut all = Vec::new();
        for question in questions {
            let (reasons, digest) = does(&plugin, &config, question.clone()).await;
            all.extend(reasons);
            let recording = Recording::read(&recordings, &digest).expect("it is there");
            let replayed = replay(&sandbox, &recordings, &recording).await;
            let replayed = replayed.expect("replayed");
            assert!(replayed.is_same(), "{replayed:?}");
        }
        let apart = isolation == Isolation::Process;
        assert_eq!(processes().len(), usize::from(apart), "one serves all");
        said.push(all);
        logs.push((told(&audit), effects(&audit)));
        drop((plugin, sandbox));
        assert_eq!(children(), 0);
    }
    assert_eq!(said[0], said[1]);
    assert_eq!(logs[0], logs[1]);
    logs.swap_remove(0).1
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_in_a_process_keeps_is_what_it_keeps_in_the_engine() {
    let _alone = ALONE.lock().await;
    let grants = Grants {
        state: Some(StateGrant {
            pipeline: Some("line".into()),
            bytes: ByteSize::from_bytes(4096),
            value_bytes: ByteSize::from_bytes(2048),
            ..StateGrant::default()
        }),
        ..Grants::default()
    };
    let effects = same_in_both(
        "tests/guests/keeper",
        grants,
        json!({}),
        &[
            json!({ "do": [
                { "open": "another" }, { "get": "a" }, { "set": ["a", "one"] }, { "get": "a" },
                { "exists": "a" }, { "increment": ["n", 5] }, { "append": ["a", " more"] },
                { "set-many": [["b", "2"], ["c", "3"]] }, "keys", { "get-many": ["c", "x", "b"] },
                { "delete-many": ["b", "x"] }, { "swap-late": "s" }, { "increment": ["a", 1] },
                { "fill": ["big", 3000] }, { "fill": ["big", 2000] }, { "fill": ["more", 2000] },
                { "fill": ["most", 2000] }, { "set": ["", "no key"] },
            ] }),
            // The next instance has what the one before it kept.
            json!({ "do": [{ "get": "a" }, { "get": "s" }, "keys", { "count": ["n", 300] }] }),
        ],
    )
    .await;
    assert!(effects.iter().any(|effect| effect == "state set a"));
    assert!(effects.iter().any(|effect| effect.starts_with("denied")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_in_a_process_asks_a_database_is_what_it_asks_in_the_engine() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    // A file of no bytes is a database without tables.
    let path = folder.path().join("empty.sqlite");
    fs::write(&path, b"").expect("a file");
    let grant: SqlGrant = serde_json::from_value(json!({
        "connection": "people", "to": { "sqlite": path }, "rows": 50, "calls": 6,
    }))
    .expect("a grant");
    let grants = Grants {
        sql: vec![grant],
        ..Grants::default()
    };
    let ask = |statement: &str, parameters: Value| json!({ "connection": "people", "statement": statement, "parameters": parameters });
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
                   SELECT i, i * 0.5 AS half, 'row ' || i AS name, NULLIF(i, 2) AS but_2 FROM n";
    let effects = same_in_both(
        "tests/guests/asker",
        grants,
        json!({}),
        &[
            ask(
                "SELECT 1 + 1 AS two, ?1 AS said, ?2 AS none",
                json!(["ä", null]),
            ),
            ask(numbers, json!([7])),
            ask(numbers, json!([51])),
            ask("CREATE TABLE t (a)", json!([])),
            ask("ATTACH '/tmp/other' AS other", json!([])),
            json!({ "connection": "nobody's", "statement": "SELECT 1" }),
            json!({ "connection": "people", "statement": "SELECT 1", "times": 8 }),
        ],
    )
    .await;
    assert!(effects.iter().any(|effect| effect.starts_with("sql ")));
    assert!(effects.iter().any(|effect| effect.starts_with("denied")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_in_a_process_does_with_a_store_is_what_it_does_in_the_engine() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("raw")).expect("a store");
    fs::write(folder.path().join("raw/old"), b"what was there").expect("an object");
    fs::write(folder.path().join("secret"), b"SECRET").expect("an object");
    let grant: BlobGrant = serde_json::from_value(json!({
        "store": "lake", "prefix": "raw/", "access": "read-write", "object_bytes": "1KiB",
        "objects": 8, "to": { "url": format!("file:{}", folder.path().display()) },
    }))
    .expect("a grant");
    let grants = Grants {
        blob: vec![grant],
        ..Grants::default()
    };
    let get = |key: &str| json!({ "do": "get", "store": "lake", "key": key });
    let put =
        |key: &str, text: &str| json!({ "do": "put", "store": "lake", "key": key, "text": text });
    let effects = same_in_both(
        "tests/guests/stower",
        grants,
        json!({}),
        &[
            json!({ "steps": [
                get("raw/old"), { "do": "get", "store": "lake", "key": "raw/old", "range": [5, 3] },
                put("raw/new", "something"), get("raw/new"),
                { "do": "head", "store": "lake", "key": "raw/new" },
                { "do": "put", "store": "lake", "key": "raw/new", "text": "x", "when": "absent" },
                { "do": "put", "store": "lake", "key": "raw/large", "text": "much ", "times": 1000 },
                { "do": "list", "store": "lake", "prefix": "raw/" },
                { "do": "page", "store": "lake", "prefix": "raw/", "limit": 1 },
                get("secret"), get("raw/../secret"), get("raw/nothing"),
                { "do": "get", "store": "other", "key": "raw/old" },
                { "do": "delete", "store": "lake", "key": "raw/new" },
            ] }),
            json!({ "steps": [get("raw/new"), get("raw/old")] }),
        ],
    )
    .await;
    assert!(effects.iter().any(|effect| effect.starts_with("blob put")));
    assert!(effects.iter().any(|effect| effect.starts_with("denied")));
}

/// What `sandcast state` says of a state folder: exit code, stdout and stderr.
fn state(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sandcast"))
        .arg("state")
        .args(arguments)
        .arg("--state")
        .arg(folder)
        .env("USER", "ann")
        .env("NO_COLOR", "1")
        .output()
        .expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_keeps_is_shown_handed_over_and_cleared_on_record() {
    let _alone = ALONE.lock().await;
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path();
    let said = |arguments: &[&str]| -> Value {
        let (code, stdout, stderr) = state(folder, &[arguments, &["--json"]].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
        serde_json::from_str(&stdout).expect("JSON")
    };
    assert_eq!(said(&[]), json!([]));
    let audit = AuditLog::open(&folder.join("audit")).expect("a log");
    let recordings = Recordings::at(folder.join("recordings"));
    let sandbox = house(folder, &audit, &recordings);
    for (pipeline, name) in [("line", "rates"), ("other", "rates")] {
        let grants = Grants {
            state: Some(StateGrant {
                pipeline: Some(pipeline.into()),
                ..StateGrant::default()
            }),
            recording: Some(RecordingGrant::default()),
            ..Grants::default()
        };
        let bytes = component("tests/guests/keeper");
        let loaded = sandbox.load(name, &bytes, Role::Policy, grants).await;
        let plugin = loaded.expect("it loads");
        let steps = json!({ "do": [{ "set": ["a", "one"] }, { "increment": ["n", 5] }] });
        does(&plugin, &json!({}), steps).await;
    }

    // How much, of how much.
    let listed = said(&["list"]);
    let first = &listed[0];
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
    assert_eq!(
        (&first["pipeline"], &first["name"]),
        (&json!("line"), &json!("rates"))
    );
    assert_eq!((&first["keys"], &first["bytes"]), (&json!(2), &json!(6)));
    assert_eq!(first["quota"]["keys"], 10_000, "{first}");

    // Which one must be plain; values are shown when they are asked for.
    let (code, _, told) = state(folder, &["show", "rates"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("`rates` is 2 plugins") && told.contains("--pipeline"),
        "{told}"
    );
    let (code, _, told) = state(folder, &["show", "nobody"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("no plugin `nobody` keeps anything here"),
        "{told}"
    );
    let one = ["rates", "--pipeline", "line"];
    let shown = said(&[&["show"], &one[..]].concat());
    let pairs = shown["pairs"].as_array().expect("pairs");
    assert_eq!(pairs[0]["key"], "a");
    assert_eq!(
        pairs[0]["digest"],
        sandcast_audit::Digest::of(b"one").to_string()
    );
    assert!(pairs[0].get("text").is_none(), "{shown}");
    let shown = said(&[&["show", "--values", "-n", "1"], &one[..]].concat());
    assert_eq!(shown["pairs"][0]["text"], "one");
    assert_eq!(shown["pairs"].as_array().map(Vec::len), Some(1));
    let (_, table, _) = state(folder, &[&["show"], &one[..]].concat());
    assert!(!table.contains("one"), "{table}");

    // All of it, once.
    let file = folder.join("rates.jsonl");
    let path = file.display().to_string();
    let export = ["export", "rates", &path, "--pipeline", "line"];
    assert_eq!(said(&export)["keys"], 2);
    let text = fs::read_to_string(&file).expect("a file");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(
        (&lines[0]["text"], &lines[1]["text"]),
        (&json!("one"), &json!("5"))
    );
    let (code, _, told) = state(folder, &export);
    assert_eq!(code, Some(1), "{told}");
    assert_eq!(
        fs::read_to_string(&file).expect("a file"),
        text,
        "it stays as it was"
    );

    // Cleared with a reason, on record; the other pipeline's stays.
    let clear = |reason: &str| {
        state(
            folder,
            &[&["clear"], &one[..], &["--reason", reason]].concat(),
        )
    };
    let (code, _, told) = clear("  ");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("needs a reason"), "{told}");
    let (code, told, error) = clear("they asked to be forgotten");
    assert_eq!(code, Some(0), "{error}");
    assert!(
        told.contains("keeps nothing any more; it was 2 keys"),
        "{told}"
    );
    let listed = said(&["list"]);
    assert_eq!(
        (&listed[0]["keys"], &listed[1]["keys"]),
        (&json!(0), &json!(2))
    );
    let entries = audit.entries().expect("entries").into_iter();
    let events: Vec<Event> = entries.map(|entry| entry.event).collect();
    let cleared = events
        .iter()
        .position(|event| matches!(event, Event::StateCleared { .. }));
    let cleared = cleared.expect("an entry");
    let Event::StateCleared {
        name,
        keys,
        by,
        reason,
        ..
    } = &events[cleared]
    else {
        panic!("{:?}", events[cleared]);
    };
    assert_eq!((name.as_str(), *keys), ("rates", 2));
    assert_eq!(reason, "they asked to be forgotten");
    assert!(by.contains("ann"), "{by}");
    // The decision about it comes before it.
    assert!(matches!(
        &events[cleared - 1],
        Event::AccessDecided { action, allowed: true, .. } if action == "state-clear"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_in_a_process_asks_a_server_is_recorded_and_replayed() {
    let _alone = ALONE.lock().await;
    let address = serve();
    let grant: HttpGrant = serde_json::from_value(json!({
        "host": "127.0.0.1", "port": address.port(), "scheme": "http", "methods": ["POST"],
        "networks": ["127.0.0.0/8"],
    }))
    .expect("a grant");
    let grants = Grants {
        http: vec![grant],
        clock: true,
        random: Some(RandomGrant { seed: Some(7) }),
        ..Grants::default()
    };
    let config = json!({ "url": format!("http://{address}/large") });
    let effects = same_in_both("tests/guests/oracle", grants, config, &[json!({})]).await;
    assert_eq!(effects, [format!("http POST POST http://{address}/large")]);
}
