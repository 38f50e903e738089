//! Guests that are granted some objects of a store, and want others, or more of them.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use sandcast_sandbox::{BlobGrant, CallContext, Plugin, Role};
use sandcast_tests::built;
use serde_json::json;
use tempfile::TempDir;

use crate::catalogue::rows_of;
use crate::guests::request;
use crate::yard::{Outcome, Yard, grants};

/// What nobody may see.
const SECRET: &str = "s3cret-of-the-host";

/// Objects that one instance may put.
const OBJECTS: usize = 3;

/// What lies below the granted prefix: objects, and links that an operator has made without a thought.
const OBJECTS_THERE: [&str; 5] = ["a", "b", "c", "d", "large"];
const LINKS_THERE: [(&str, &str); 2] = [("link", "../../outside.txt"), ("up", "../..")];

/// A folder with a store in it, and secrets beside what is granted of that and beside the store.
fn store() -> TempDir {
    let outer = TempDir::with_prefix("sandcast-hostile-").expect("a folder");
    let lake = outer.path().join("lake");
    let raw = lake.join("raw");
    fs::create_dir_all(&raw).expect("a store");
    for secret in [
        outer.path().join("outside.txt"),
        lake.join("secret"),
        lake.join("raw-secret"),
    ] {
        fs::write(secret, SECRET).expect("a file");
    }
    for name in OBJECTS_THERE {
        let bytes = if name == "large" { 100 << 10 } else { 0 };
        let text = format!("plain{}", "x".repeat(bytes));
        fs::write(raw.join(name), text).expect("an object");
    }
    for (name, target) in LINKS_THERE {
        std::os::unix::fs::symlink(target, raw.join(name)).expect("a link");
    }
    outer
}

async fn ask(plugin: &Plugin, behaviour: &str, key: &str) -> Outcome {
    let config = json!({ "behaviour": behaviour, "key": key });
    let context = CallContext::new(None, "test");
    let mut policy = plugin.policy(&context, &config).await?;
    Ok(policy.decide(&request("production")).await?.reasons)
}

/// What it must be told, where it is told something.
fn answer_to(behaviour: &str) -> Option<&'static str> {
    match behaviour {
        "get" => Some("nothing"),
        "forge-tag" => Some("unmet"),
        "giant-page" => Some("3 entries"),
        "giant-part" => Some("lain"),
        _ => None,
    }
}

/// Nothing but what was granted is changed.
fn is_as_it_was(outer: &Path) -> Result<(), String> {
    let lake = outer.join("lake");
    for secret in [
        outer.join("outside.txt"),
        lake.join("secret"),
        lake.join("raw-secret"),
    ] {
        let found = fs::read_to_string(&secret).map_err(|error| error.to_string())?;
        if found != SECRET {
            return Err(format!("{} holds {found}", secret.display()));
        }
    }
    for (folder, most) in [
        (outer.to_path_buf(), 2),
        (lake.clone(), 3),
        (
            lake.join("raw"),
            OBJECTS_THERE.len() + LINKS_THERE.len() + OBJECTS,
        ),
    ] {
        let names = fs::read_dir(&folder).map_err(|error| error.to_string())?;
        let names: Vec<String> = names
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        if names.len() > most || names.iter().any(|name| name.starts_with(".sandcast-")) {
            return Err(format!("there are {names:?}"));
        }
    }
    let plain = fs::read_to_string(lake.join("raw/a")).map_err(|error| error.to_string())?;
    match plain.as_str() {
        "plain" => Ok(()),
        other => Err(format!("an object holds {other}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stowers() {
    let mut yard = Yard::new("stowers").await;
    let component = fs::read(built("tests/guests/hostile-stower")).expect("the guest");
    for row in rows_of("hostile-stower") {
        let outer = store();
        let grant: BlobGrant = serde_json::from_value(json!({
            "store": "lake", "prefix": "raw/", "access": "read-write", "object_bytes": "64KiB",
            "write_bytes": "100KiB", "objects": OBJECTS, "entries": 3,
            "to": { "url": format!("file:{}", outer.path().join("lake").display()) },
        }))
        .expect("a grant");
        let mut with_store = grants(Role::Policy);
        with_store.blob = vec![grant];
        let loaded = yard
            .sandbox
            .load("stower", &component, Role::Policy, with_store);
        let plugin = loaded.await.expect("it loads");
        let (behaviour, key) = row.behaviour.split_once(' ').expect("a key");
        let key = if key == "long" {
            "raw/".repeat(1 << 18)
        } else {
            key.to_owned()
        };
        let seen = Mutex::new(Vec::<String>::new());
        let attempt = async {
            let reasons = ask(&plugin, behaviour, &key).await?;
            seen.lock().expect("no panic").clone_from(&reasons);
            Ok(reasons)
        };
        let afterwards = async {
            let reasons = ask(&plugin, "get", "raw/a").await?;
            assert_eq!(reasons, ["plain"], "{row}");
            Ok(reasons)
        };
        yard.lets(&row, attempt, afterwards).await;
        let seen = seen.into_inner().expect("no panic");
        if let Some(answer) = answer_to(behaviour).filter(|_| !seen.is_empty()) {
            assert_eq!(seen, [answer], "{row}");
        }
        if seen.concat().contains(SECRET) {
            yard.is_wrong(format!("{row}: it has seen {SECRET}"));
        }
        if let Err(what) = is_as_it_was(outer.path()) {
            yard.is_wrong(format!("{row}: {what}"));
        }
    }
    yard.finish();
}
