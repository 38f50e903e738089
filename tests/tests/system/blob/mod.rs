//! What a guest gets of stores: the objects below the prefixes it was granted, as far as its bounds; from a
//! folder and from a server of S3, well-behaved or not.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sandcast_audit::{Digest, Event};
use sandcast_sandbox::{BlobGrant, Grants, LoadError, Plugin, RecordingGrant, Role};
use serde_json::{Value, json};

use crate::bench::{Bench, asks, with};
use server::{ACCESS, Manner, SECRET, Server};

/// A bench with an empty store in a folder, and the keys of one on a server.
fn bench() -> Bench {
    let bench = Bench::new();
    let folder = bench.folder.path();
    fs::create_dir(folder.join("lake")).expect("a store");
    fs::write(folder.join("access.key"), ACCESS).expect("a key");
    fs::write(folder.join("secret.key"), SECRET).expect("its secret");
    bench
}

async fn try_load(bench: &Bench, grants: Grants) -> Result<Plugin, LoadError> {
    let guest = "tests/guests/stower";
    bench.load("stower", guest, Role::Policy, grants).await
}

async fn load(bench: &Bench, grants: &[Value]) -> Plugin {
    try_load(bench, granting(grants)).await.expect("it loads")
}

impl Bench {
    fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    /// A grant of what is below `raw/`, to read and write, in the folder.
    fn in_folder(&self) -> Value {
        let url = format!("file:{}", self.lake().display());
        json!({ "store": "lake", "prefix": "raw/", "access": "read-write", "to": { "url": url } })
    }

    /// The same on a server.
    fn on_server(&self, server: &Server) -> Value {
        let key = |name: &str| json!({ "file": self.folder.path().join(name) });
        json!({ "store": "lake", "prefix": "raw/", "access": "read-write", "to": {
            "url": "s3://lake/own",
            "endpoint": format!("http://{}", server.address),
            "region": "eu-test-1",
            "networks": ["127.0.0.0/8"],
            "credentials": { "access_key": key("access.key"), "secret_key": key("secret.key") },
        } })
    }

    fn holds(&self, key: &str, bytes: &[u8]) {
        let path = self.lake().join(key);
        fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
        fs::write(path, bytes).expect("an object");
    }
}

fn granting(grants: &[Value]) -> Grants {
    let grant =
        |value: &Value| -> BlobGrant { serde_json::from_value(value.clone()).expect("a grant") };
    Grants {
        blob: grants.iter().map(grant).collect(),
        ..Grants::default()
    }
}

/// What a new instance comes to, step by step.
async fn does(plugin: &Plugin, steps: &[Value]) -> Vec<String> {
    asks(plugin, json!({ "steps": steps })).await
}

async fn does_one(plugin: &Plugin, step: Value) -> String {
    does(plugin, &[step]).await.remove(0)
}

fn get(key: &str) -> Value {
    json!({ "do": "get", "store": "lake", "key": key })
}

fn part(key: &str, offset: u64, length: u64) -> Value {
    with(get(key), &json!({ "range": [offset, length] }))
}

fn head(key: &str) -> Value {
    json!({ "do": "head", "store": "lake", "key": key })
}

fn put(key: &str, text: &str) -> Value {
    json!({ "do": "put", "store": "lake", "key": key, "text": text })
}

fn put_when(key: &str, text: &str, when: &str) -> Value {
    with(put(key, text), &json!({ "when": when }))
}

fn delete(key: &str) -> Value {
    json!({ "do": "delete", "store": "lake", "key": key })
}

fn list(prefix: &str) -> Value {
    json!({ "do": "list", "store": "lake", "prefix": prefix })
}

fn page(prefix: &str, limit: u32) -> Value {
    json!({ "do": "page", "store": "lake", "prefix": prefix, "limit": limit })
}

/// Everything that a store does, with what must come of it, whatever the store is.
fn story() -> Vec<(Value, &'static str)> {
    vec![
        (list("raw/"), ""),
        (get("raw/a"), "nothing"),
        (head("raw/deep/er/b"), "nothing"),
        (put("raw/a", "first"), "done true"),
        (get("raw/a"), "raw/a 5: 5 first"),
        (put("raw/a", "second"), "done true"),
        (get("raw/a"), "raw/a 6: 6 second"),
        (head("raw/a"), "raw/a 6, true true"),
        (part("raw/a", 1, 3), "raw/a 6: 3 eco"),
        (part("raw/a", 4, 100), "raw/a 6: 2 nd"),
        (part("raw/a", 5, 1), "raw/a 6: 1 d"),
        (
            part("raw/a", 6, 1),
            "FailureCode::InvalidInput: the object ends before that part begins",
        ),
        (
            part("raw/a", 0, 0),
            "FailureCode::InvalidInput: a part has at least one byte, and an end",
        ),
        (put_when("raw/a", "third", "absent"), "unmet"),
        (put_when("raw/new", "third", "absent"), "done true"),
        (put_when("raw/a", "fourth", "another-tag"), "unmet"),
        (put_when("raw/none", "fourth", "another-tag"), "unmet"),
        (put_when("raw/a", "Fourth", "same"), "done true"),
        (get("raw/a"), "raw/a 6: 6 Fourth"),
        (put("raw/deep/er/b c#?%2e&ä", "x"), "done true"),
        (
            get("raw/deep/er/b c#?%2e&ä"),
            "raw/deep/er/b c#?%2e&ä 1: 1 x",
        ),
        (put("raw/empty", ""), "done true"),
        (get("raw/empty"), "raw/empty 0: 0 "),
        (put("raw/deep-1", "12"), "done true"),
        (put("raw/deep.x", "12"), "done true"),
        // In the order of whole keys, where a slash is a character like others.
        (
            list("raw/"),
            "raw/a 6, raw/deep-1 2, raw/deep.x 2, raw/deep/er/b c#?%2e&ä 1, raw/empty 0, raw/new 5",
        ),
        (list("raw/deep/"), "raw/deep/er/b c#?%2e&ä 1"),
        (list("raw/nowhere/"), ""),
        (delete("raw/new"), "deleted"),
        (delete("raw/new"), "deleted"),
        (get("raw/new"), "nothing"),
    ]
}

async fn tells(plugin: &Plugin) {
    let (steps, expected): (Vec<Value>, Vec<&str>) = story().into_iter().unzip();
    assert_eq!(does(plugin, &steps).await, expected);
    // Page after page is the whole list.
    let mut keys = Vec::new();
    let mut cursor = Value::Null;
    for _ in 0..20 {
        let step = with(page("raw/", 2), &json!({ "cursor": cursor }));
        let told = does_one(plugin, step).await;
        let (entries, next) = told.split_once(" | ").expect(&told);
        assert!(entries.split(", ").count() <= 2, "{told}");
        // A page may have nothing that a plugin can name.
        let named = entries.split(", ").filter(|entry| !entry.is_empty());
        keys.extend(named.map(str::to_owned));
        if next.is_empty() {
            break;
        }
        cursor = json!(next);
    }
    let whole = does_one(plugin, list("raw/")).await;
    assert_eq!(keys.join(", "), whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_a_store() {
    let bench = bench();
    bench.holds("secret", b"SECRET");
    let plugin = load(&bench, &[bench.in_folder()]).await;
    tells(&plugin).await;
    assert_eq!(bench.denied(), []);
    assert_eq!(
        fs::read(bench.lake().join("raw/a")).expect("an object"),
        b"Fourth"
    );
    let left = fs::read_dir(bench.lake().join("raw")).expect("the folder");
    let names: Vec<_> = left
        .map(|entry| entry.expect("a name").file_name())
        .collect();
    assert!(
        names
            .iter()
            .all(|name| !name.to_string_lossy().starts_with(".sandcast-")),
        "nothing unfinished stays: {names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_a_store_and_does_the_same() {
    let (bench, server) = (bench(), Server::start());
    server.holds("secret", b"SECRET");
    server.holds("own/secret", b"SECRET");
    // A marker of a folder, as some tools leave them, and a key that nobody here could name.
    server.holds("own/raw/", b"");
    server.holds("own/raw//x", b"");
    let plugin = load(&bench, &[bench.on_server(&server)]).await;
    tells(&plugin).await;
    assert_eq!(bench.denied(), []);
    assert_eq!(server.unsigned(), Vec::<String>::new());
    assert!(
        server
            .keys()
            .contains(&"own/raw/deep/er/b c#?%2e&ä".to_owned())
    );
    let heard = server.heard();
    assert!(
        heard.contains(&"PUT /lake/own/raw/a".to_owned()),
        "{heard:?}"
    );
    assert!(heard.iter().all(|line| {
        let target = line.split(' ').nth(1).unwrap_or_default();
        target.starts_with("/lake/own/raw/")
            || target.starts_with("/lake?") && target.contains("prefix=own%2Fraw%2F")
    }));
}

/// What is not granted, and the line that would grant it.
fn forbidden() -> Vec<(Value, &'static str)> {
    let mut steps = vec![
        (with(get("raw/a"), &json!({ "store": "other" })), "blob: [{"),
        (list(""), "blob[0].prefix"),
        (list("ra/"), "blob[0].prefix"),
        (list("raw"), "blob[0].prefix"),
        (list("raw/../"), "blob[0].prefix"),
        (list("secret/"), "blob[0].prefix"),
        (put("seen/x", "x"), "blob[1].access"),
        (delete("seen/x"), "blob[1].access"),
    ];
    for key in [
        "secret",
        "raw",
        "raw-x",
        "ra",
        "",
        "/",
        "/raw/a",
        "//raw/a",
        "raw/",
        "raw//a",
        "raw/../secret",
        "raw/..",
        "raw/./a",
        "./raw/a",
        "../lake/raw/a",
        "raw/a\0",
        "raw/a\n",
        "raw\\..\\secret",
        "raw/.sandcast-1",
    ] {
        for step in [get(key), head(key), put(key, "x"), delete(key)] {
            steps.push((step, "blob[0].prefix"));
        }
    }
    let long = format!("raw/{}", "x".repeat(256));
    steps.push((put(&long, "x"), "blob[0].prefix"));
    steps
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_on_record_and_not_done() {
    let (bench, server) = (bench(), Server::start());
    for key in ["secret", "raw-x", "seen/x"] {
        bench.holds(key, b"SECRET");
        server.holds(&format!("own/{key}"), b"SECRET");
    }
    for granted in [bench.in_folder(), bench.on_server(&server)] {
        let seen = with(
            granted.clone(),
            &json!({ "prefix": "seen/", "access": "read" }),
        );
        let plugin = load(&bench, &[granted, seen]).await;
        for (step, line) in forbidden() {
            let before = bench.denied().len();
            let told = does_one(&plugin, step.clone()).await;
            assert!(told.starts_with("FailureCode::Denied: "), "{step}: {told}");
            let denied = bench.denied();
            assert_eq!(denied.len(), before + 1, "{step}");
            let expected = format!("plugins.stower.grants.{line}");
            assert!(
                denied[before].1.starts_with(&expected),
                "{step}: {denied:?}"
            );
            assert!(denied[before].0.len() < 1024);
        }
        let told = does_one(&plugin, get("seen/x")).await;
        assert_eq!(told, "seen/x 6: 6 SECRET");
    }
    let heard = server.heard();
    assert_eq!(heard, ["GET /lake/own/seen/x"], "nothing else was asked");
    let mut left: Vec<_> = fs::read_dir(bench.lake())
        .expect("the store")
        .map(|entry| entry.expect("a name").file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["raw-x", "secret", "seen"], "nothing was made");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn no_link_leads_out_of_a_folder_or_of_a_prefix() {
    use std::os::unix::fs::symlink;
    let bench = bench();
    bench.holds("secret/word", b"SECRET");
    bench.holds("raw/a", b"fine");
    let outside = bench.folder.path().join("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("word"), "SECRET").expect("a file");
    for (name, to) in [
        ("out", outside.as_path()),
        ("up", Path::new("../secret")),
        ("file", Path::new("../secret/word")),
        ("absolute", &outside.join("word")),
        ("dangling", Path::new("nowhere")),
    ] {
        symlink(to, bench.lake().join("raw").join(name)).expect("a link");
    }
    let plugin = load(&bench, &[bench.in_folder()]).await;
    for key in [
        "raw/out/word",
        "raw/up/word",
        "raw/file",
        "raw/absolute",
        "raw/dangling",
        "raw/out/new",
    ] {
        for step in [
            get(key),
            head(key),
            put(key, "x"),
            delete(key),
            put_when(key, "x", "absent"),
        ] {
            let told = does_one(&plugin, step.clone()).await;
            assert!(told.starts_with("FailureCode::Denied: "), "{step}: {told}");
        }
    }
    assert_eq!(does_one(&plugin, list("raw/")).await, "raw/a 4");
    let told = does_one(&plugin, list("raw/up/")).await;
    assert!(told.starts_with("FailureCode::Denied: "), "{told}");
    assert_eq!(fs::read(outside.join("word")).expect("it stays"), b"SECRET");
    assert_eq!(fs::read_dir(&outside).expect("the folder").count(), 1);
    assert_eq!(
        fs::read(bench.lake().join("secret/word")).expect("it stays"),
        b"SECRET"
    );
    let denied = bench.denied();
    assert!(
        denied.iter().all(|(_, line)| line == "stores.lake.url"),
        "{denied:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_objects_entries_and_calls_are_bounded_exactly() {
    let (bench, server) = (bench(), Server::start());
    for (key, length) in [("ten", 10), ("eleven", 11), ("more/a", 1), ("more/b", 1)] {
        bench.holds(&format!("raw/{key}"), &vec![b'x'; length]);
        server.holds(&format!("own/raw/{key}"), &vec![b'x'; length]);
    }
    for granted in [bench.in_folder(), bench.on_server(&server)] {
        for (bound, fine, over, key) in [
            (
                json!({ "object_bytes": 10 }),
                vec![get("raw/ten")],
                get("raw/eleven"),
                "object_bytes",
            ),
            (
                json!({ "object_bytes": 10 }),
                vec![part("raw/eleven", 0, 10), put("raw/p", "0123456789")],
                put("raw/p", "01234567890"),
                "object_bytes",
            ),
            (
                json!({ "object_bytes": 10 }),
                vec![part("raw/eleven", 1, 10)],
                part("raw/eleven", 0, 11),
                "object_bytes",
            ),
            (
                json!({ "read_bytes": 21 }),
                vec![get("raw/ten"), get("raw/eleven")],
                get("raw/more/a"),
                "read_bytes",
            ),
            (
                json!({ "read_bytes": 20 }),
                vec![get("raw/ten")],
                get("raw/eleven"),
                "read_bytes",
            ),
            (
                json!({ "write_bytes": 5 }),
                vec![put("raw/p", "123"), put("raw/p", "45")],
                put("raw/p", "6"),
                "write_bytes",
            ),
            (
                json!({ "objects": 2 }),
                vec![put("raw/p", "1"), delete("raw/p")],
                put("raw/p", "2"),
                "objects",
            ),
            (
                json!({ "objects": 1 }),
                vec![put("raw/p", "1")],
                delete("raw/p"),
                "objects",
            ),
            (
                json!({ "entries": 3 }),
                vec![page("raw/", 2), page("raw/", 5)],
                page("raw/", 1),
                "entries",
            ),
            (
                json!({ "calls": 2 }),
                vec![head("raw/ten"), list("raw/none/")],
                get("raw/ten"),
                "calls",
            ),
        ] {
            let plugin = load(&bench, &[with(granted.clone(), &bound)]).await;
            let before = bench.denied().len();
            let mut steps = fine.clone();
            steps.push(over);
            let told = does(&plugin, &steps).await;
            let (last, first) = told.split_last().expect("the steps");
            assert!(
                first.iter().all(|told| !told.contains("Failure")),
                "{bound}: {told:?}"
            );
            assert!(
                last.starts_with("FailureCode::Exhausted: "),
                "{bound}: {told:?}"
            );
            let denied = bench.denied();
            assert_eq!(denied.len(), before + 1, "{bound}: {denied:?}");
            assert_eq!(
                denied[before].1,
                format!("plugins.stower.grants.blob[0].{key}"),
                "{bound}"
            );
        }
        // The two pages above came to three entries together.
        let plugin = load(&bench, &[with(granted, &json!({ "entries": 3 }))]).await;
        let told = does(&plugin, &[page("raw/", 2), page("raw/", 5)]).await;
        assert_eq!(
            told[1]
                .split(" | ")
                .next()
                .expect("a page")
                .split(", ")
                .count(),
            1,
            "{told:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_misbehaves_gets_nowhere() {
    let (bench, server) = (bench(), Server::start());
    server.holds("own/raw/a", b"0123456789");
    let granted = with(
        bench.on_server(&server),
        &json!({ "timeout": "2s", "object_bytes": "1MiB" }),
    );
    let plugin = load(&bench, &[granted]).await;
    let away = "FailureCode::Unavailable: ";
    for (manner, step, wanted) in [
        (
            Manner::Redirects,
            get("raw/a"),
            "FailureCode::Unavailable: the store sends elsewhere",
        ),
        (
            Manner::Redirects,
            put("raw/a", "x"),
            "FailureCode::Unavailable: the store sends elsewhere",
        ),
        (
            Manner::Endless,
            get("raw/a"),
            "FailureCode::Exhausted: that is more than 1MiB",
        ),
        (
            Manner::Endless,
            list("raw/"),
            "FailureCode::Unavailable: what the store answered is too long",
        ),
        (
            Manner::Short,
            get("raw/a"),
            "FailureCode::Unavailable: the answer of the store was cut off",
        ),
        (Manner::Short, list("raw/"), away),
        (
            Manner::Huge,
            get("raw/a"),
            "FailureCode::Exhausted: that is more than 1MiB",
        ),
        (
            Manner::Bomb,
            list("raw/"),
            "FailureCode::Unavailable: what the store answered has a document type",
        ),
        (
            Manner::Stranger,
            list("raw/"),
            "FailureCode::Unavailable: what the store answered has keys that were not asked for",
        ),
        (
            Manner::More,
            list("raw/"),
            "FailureCode::Unavailable: what the store answered has more",
        ),
        (
            Manner::Tells(403),
            get("raw/a"),
            "FailureCode::Denied: the store does not let its account",
        ),
        (
            Manner::Tells(401),
            put("raw/a", "x"),
            "FailureCode::Denied: the store does not let its account",
        ),
        (
            Manner::Tells(500),
            get("raw/a"),
            "FailureCode::Unavailable: the store answered with status 500",
        ),
        (
            Manner::Tells(400),
            list("raw/"),
            "FailureCode::Unavailable: the store answered with status 400",
        ),
        (
            Manner::Tells(409),
            put_when("raw/a", "x", "absent"),
            "FailureCode::Unavailable: the store answered with status 409",
        ),
        (
            Manner::Tells(200),
            list("raw/"),
            "FailureCode::Unavailable: what the store answered is not a whole list",
        ),
        (
            Manner::Slow,
            get("raw/a"),
            "FailureCode::Exhausted: it took longer than 2s",
        ),
        (
            Manner::Slow,
            put("raw/a", "x"),
            "FailureCode::Exhausted: it took longer than 2s, and it is not known",
        ),
        (
            Manner::Leaves,
            get("raw/a"),
            "FailureCode::Unavailable: the store does not answer",
        ),
        (
            Manner::Leaves,
            put("raw/a", "x"),
            "FailureCode::Unavailable: the store does not answer, and it is not known whether it was done",
        ),
        (
            Manner::OtherPart,
            part("raw/a", 3, 2),
            "FailureCode::Unavailable: the store answered with another part",
        ),
        (
            Manner::OtherPart,
            get("raw/a"),
            "FailureCode::Unavailable: the store answered with another part",
        ),
        (
            Manner::Whole,
            part("raw/a", 3, 2),
            "FailureCode::Unavailable: the store answered with another part",
        ),
        (
            Manner::Fields,
            get("raw/a"),
            "FailureCode::Unavailable: the store does not answer",
        ),
    ] {
        server.is(manner);
        let began = Instant::now();
        let told = does_one(&plugin, step.clone()).await;
        assert!(told.starts_with(wanted), "{manner:?} {step}: {told}");
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{manner:?} {step}"
        );
        let shown = text_of(&bench) + &told;
        assert!(
            !shown.contains(SECRET) && !shown.contains(ACCESS),
            "{manner:?}: {shown}"
        );
        assert!(
            !server.heard().iter().any(|line| line.contains("elsewhere")),
            "{manner:?}"
        );
    }
    server.is(Manner::Well);
    assert_eq!(
        does_one(&plugin, get("raw/a")).await,
        "raw/a 10: 10 0123456789"
    );
    assert_eq!(server.unsigned(), Vec::<String>::new());
}

fn text_of(bench: &Bench) -> String {
    serde_json::to_string(&bench.events()).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reads_is_tried_again_a_little_and_what_writes_is_not() {
    let (bench, server) = (bench(), Server::start());
    server.holds("own/raw/a", b"there");
    let plugin = load(&bench, &[bench.on_server(&server)]).await;
    for (times, step, wanted, heard) in [
        (2, get("raw/a"), "raw/a 5: 5 there", 3),
        (
            3,
            get("raw/a"),
            "FailureCode::Unavailable: the store answered with status 503",
            3,
        ),
        (2, list("raw/"), "raw/a 5", 3),
        (1, head("raw/a"), "raw/a 5, true true", 2),
        (
            1,
            put("raw/b", "x"),
            "FailureCode::Unavailable: the store answered with status 503",
            1,
        ),
        (
            1,
            delete("raw/a"),
            "FailureCode::Unavailable: the store answered with status 503",
            1,
        ),
    ] {
        server.is(Manner::Busy(times));
        let told = does_one(&plugin, step.clone()).await;
        assert_eq!(told, wanted, "{step}");
        assert_eq!(server.heard().len(), heard, "{step}");
    }
    assert_eq!(server.keys(), ["own/raw/a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_reached_where_its_address_may_be_and_nowhere_else() {
    let (bench, server) = (bench(), Server::start());
    server.holds("own/raw/a", b"x");
    let mut granted = bench.on_server(&server);
    granted["to"]["networks"] = json!(["10.0.0.0/8"]);
    let plugin = load(&bench, std::slice::from_ref(&granted)).await;
    for step in [get("raw/a"), put("raw/a", "y"), list("raw/")] {
        let told = does_one(&plugin, step).await;
        assert_eq!(
            told,
            "FailureCode::Denied: the store is at an address that is not public"
        );
    }
    assert_eq!(server.heard(), Vec::<String>::new());
    let denied = bench.denied();
    assert!(
        denied
            .iter()
            .all(|(_, line)| line == "stores.lake.networks"),
        "{denied:?}"
    );
    // Nobody listens there.
    granted["to"]["networks"] = json!(["127.0.0.0/8"]);
    granted["to"]["endpoint"] = json!("http://127.0.0.1:1");
    let plugin = load(&bench, &[granted]).await;
    let told = does_one(&plugin, get("raw/a")).await;
    assert_eq!(told, "FailureCode::Unavailable: the store does not answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_on_record_before_and_after_without_what_they_carry() {
    let (bench, server) = (bench(), Server::start());
    let plugin = load(&bench, &[bench.on_server(&server)]).await;
    let body = "a word that nobody may read";
    does(
        &plugin,
        &[
            put("raw/a", body),
            get("raw/a"),
            head("raw/b"),
            list("raw/"),
            put_when("raw/a", body, "absent"),
            delete("raw/a"),
        ],
    )
    .await;
    let folder = bench.folder.path().display().to_string();
    let told: Vec<String> = bench
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Effect {
                capability,
                action,
                target,
                digest,
                secret,
                ..
            } => {
                let is_its = digest == Some(Digest::of(body.as_bytes()));
                let secret = secret.unwrap_or_default().replace(&folder, "");
                assert_eq!(secret, "file:/access.key file:/secret.key");
                Some(format!("{capability} {action} {target} {is_its}"))
            }
            Event::EffectFinished {
                outcome,
                bytes_in,
                bytes_out,
                ..
            } => Some(format!("{outcome}, {bytes_in} in, {bytes_out} out")),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            "blob put lake:raw/a true",
            "put, 0 in, 27 out",
            "blob get lake:raw/a false",
            "27 bytes, 27 in, 0 out",
            "blob head lake:raw/b false",
            "not there, 0 in, 0 out",
            "blob list lake:raw/ false",
            "1 entries, 0 in, 0 out",
            "blob put lake:raw/a true",
            "condition not met, 0 in, 27 out",
            "blob delete lake:raw/a false",
            "deleted, 0 in, 0 out",
        ]
    );
    let text = text_of(&bench);
    for never in [body, SECRET, ACCESS] {
        assert!(!text.contains(never), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_given_the_objects_of_then_and_puts_nothing() {
    let (bench, server) = (bench(), Server::start());
    bench.holds("raw/a", b"of then");
    server.holds("own/raw/a", b"of then");
    let stories = [
        vec![get("raw/a"), list("raw/"), head("raw/a")],
        vec![
            put("raw/b", "put"),
            put_when("raw/b", "again", "absent"),
            get("raw/b"),
            delete("raw/b"),
        ],
        vec![get("raw/none"), get("secret"), part("raw/a", 100, 1)],
    ];
    for granted in [bench.in_folder(), bench.on_server(&server)] {
        let grants = Grants {
            recording: Some(RecordingGrant::default()),
            ..granting(&[granted])
        };
        let plugin = try_load(&bench, grants).await.expect("it loads");
        for steps in &stories {
            does(&plugin, steps).await;
        }
    }
    fs::remove_dir_all(bench.lake()).expect("the folder is gone");
    server.is(Manner::Tells(500));
    server.heard();
    let recorded = bench.recorded();
    assert_eq!(recorded.len(), 2 * stories.len());
    for digest in recorded {
        bench.is_replayed(&Bench::new(), &digest).await;
    }
    assert_eq!(server.heard(), Vec::<String>::new(), "nobody is asked");
    assert!(!bench.lake().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_put_where_nothing_is_one_does() {
    let bench = bench();
    let plugin = load(&bench, &[bench.in_folder()]).await;
    let putting: Vec<_> = (0..8)
        .map(|number| {
            let plugin = plugin.clone();
            let step = put_when("raw/lock", &format!("holder {number}"), "absent");
            tokio::spawn(async move { does_one(&plugin, step).await })
        })
        .collect();
    let mut done = 0;
    for one in putting {
        match one.await.expect("it ends").as_str() {
            "done true" => done += 1,
            other => assert_eq!(other, "unmet"),
        }
    }
    assert_eq!(done, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_cannot_be_given_are_refused_at_load() {
    let (bench, server) = (bench(), Server::start());
    let error = try_load(&bench, Grants::default())
        .await
        .map(|_| ())
        .expect_err("not granted");
    assert!(matches!(&error, LoadError::NotGranted { .. }), "{error}");
    assert!(
        error.to_string().contains("plugins.stower.grants.blob"),
        "{error}"
    );
    let refused = async |grants: Grants| {
        let error = try_load(&bench, grants).await.map(|_| ());
        error.expect_err("it cannot be given").to_string()
    };
    let mut nowhere = bench.in_folder();
    nowhere["to"]["url"] = json!(format!("file:{}/nowhere", bench.lake().display()));
    let mut a_file = bench.in_folder();
    a_file["to"]["url"] = json!(format!(
        "file:{}",
        bench.folder.path().join("secret.key").display()
    ));
    let mut keyless = bench.on_server(&server);
    keyless["to"]["credentials"]["secret_key"] = json!({ "env": "SANDCAST_NO_SUCH_VARIABLE" });
    for (grant, why) in [
        (nowhere, "cannot be opened"),
        (a_file, "is not a folder"),
        (keyless, "SANDCAST_NO_SUCH_VARIABLE"),
        (json!({ "store": "lake" }), "there is no store `lake`"),
    ] {
        let error = refused(granting(&[grant])).await;
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(server.heard(), Vec::<String>::new());
}
