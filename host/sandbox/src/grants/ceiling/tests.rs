use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::grants::Access;

fn grants(text: Value) -> Grants {
    serde_json::from_value(text).expect("grants")
}

fn ceiling(plugins: Value) -> Ceiling {
    serde_json::from_value(json!({ "version": 1, "plugins": plugins })).expect("a ceiling")
}

fn keys(ceiling: &Ceiling, asked: Value) -> Vec<String> {
    let excesses = ceiling.excesses("acme/crm", Role::Policy, &grants(asked));
    excesses.into_iter().map(|excess| excess.key).collect()
}

#[test]
fn the_longest_pattern_that_fits_counts() {
    let ceiling = ceiling(json!({
        "*": {},
        "acme/*": { "clock": true },
        "acme/crm": { "clock": true, "random": {} },
        "acme/crm*": { "compute": {} },
    }));
    for (id, clock, random) in [
        ("acme/crm", true, true),
        ("acme/other", true, false),
        ("other/crm", false, false),
    ] {
        let most = ceiling.of(id);
        assert_eq!((most.clock, most.random.is_some()), (clock, random), "{id}");
    }
    assert!(ceiling.of("acme/crm-2").compute.is_some());
    assert_eq!(Ceiling::default().of("acme/crm"), Grants::default());
}

#[test]
fn the_same_grants_are_not_wider_and_wider_ones_are_named() {
    let before = grants(json!({
        "files": [{ "host": "/nowhere/that/is", "guest": "/d" }],
        "http": [{ "host": "example.com" }],
        "clock": true,
    }));
    assert_eq!(before.wider_than(&before), []);
    assert_eq!(Grants::default().wider_than(&before), []);
    let mut after = before.clone();
    after.random = Some(RandomGrant { seed: None });
    after.files[0].access = Access::ReadWrite;
    let wider = after.wider_than(&before);
    let keys: Vec<&str> = wider.iter().map(|excess| excess.key.as_str()).collect();
    assert_eq!(keys, ["files[0]", "random"]);
    let all = before.wider_than(&Grants::default());
    let keys: Vec<&str> = all.iter().map(|excess| excess.key.as_str()).collect();
    assert_eq!(keys, ["files[0]", "http[0]", "clock"]);
}

#[test]
fn a_recording_is_demanded_of_all_but_connectors() {
    let ceiling = ceiling(json!({ "acme/*": { "recording": { "bytes": "1MiB" } } }));
    let small = json!({ "recording": { "bytes": "1MiB" } });
    assert_eq!(keys(&ceiling, json!({})), ["recording"]);
    assert_eq!(
        keys(&ceiling, json!({ "recording": {} })),
        ["recording.bytes"]
    );
    assert_eq!(keys(&ceiling, small), Vec::<String>::new());
    let grants = Grants::default();
    assert_eq!(ceiling.excesses("acme/crm", Role::Connector, &grants), []);
    assert_eq!(ceiling.excesses("other/crm", Role::Policy, &grants), []);
}

#[test]
fn what_is_within_passes_and_what_is_over_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("data/inner")).expect("a folder");
    std::fs::create_dir_all(folder.path().join("data2")).expect("a folder");
    std::os::unix::fs::symlink(folder.path().join("data2"), folder.path().join("data/link"))
        .expect("a link");
    let at = |name: &str| folder.path().join(name);
    let ceiling = ceiling(json!({ "acme/*": {
        "files": [{ "host": at("data"), "guest": "/any", "access": "read" }],
        "http": [{ "host": "*.example.com", "path": "/v1", "methods": ["GET", "HEAD", "POST"],
                   "networks": ["10.0.0.0/8"],
                   "credential": { "prefix": "Bearer ", "secret": { "env": "TOKEN" } } }],
        "log": { "level": "warn" },
        "random": { "seed": 1 },
        "compute": { "memory": "2GiB" },
        "limits": { "memory": "512MiB" },
    } }));
    let within = json!({
        "files": [{ "host": at("data/inner"), "guest": "/data" }, { "host": at("data"), "guest": "/d" }],
        "http": [
            { "host": "api.example.com", "path": "/v1/people", "networks": ["10.1.0.0/16"] },
            { "host": "*.eu.example.com", "path": "/v1", "methods": ["POST"], "requests": 10,
              "credential": { "prefix": "Bearer ", "secret": { "env": "TOKEN" } } },
        ],
        "log": { "level": "error" },
        "random": { "seed": 99 },
        "compute": { "memory": "2GiB", "time": "1m" },
        "limits": { "memory": "512MiB", "call_timeout": "1s" },
    });
    assert_eq!(keys(&ceiling, within), Vec::<String>::new());
    for (asked, key) in [
        (
            json!({ "files": [{ "host": at("data"), "guest": "/d", "access": "read-write" }] }),
            "files[0]",
        ),
        (
            json!({ "files": [{ "host": at("data2"), "guest": "/d" }] }),
            "files[0]",
        ),
        (
            json!({ "files": [{ "host": at("data/link"), "guest": "/d" }] }),
            "files[0]",
        ),
        (
            json!({ "files": [{ "host": at("data/../data2"), "guest": "/d" }] }),
            "files[0]",
        ),
        (
            json!({ "files": [{ "host": at("nowhere"), "guest": "/d" }] }),
            "files[0]",
        ),
        (
            json!({ "http": [{ "host": "example.com", "path": "/v1" }] }),
            "http[0]",
        ),
        (
            json!({ "http": [{ "host": "badexample.com", "path": "/v1" }] }),
            "http[0]",
        ),
        (
            json!({ "http": [{ "host": "*.com", "path": "/v1" }] }),
            "http[0]",
        ),
        (json!({ "http": [{ "host": "a.example.com" }] }), "http[0]"),
        (
            json!({ "http": [{ "host": "a.example.com", "path": "/v10" }] }),
            "http[0]",
        ),
        (
            json!({ "http": [{ "host": "a.example.com", "path": "/v1", "port": 8443 }] }),
            "http[0]",
        ),
        (
            json!({ "http": [{ "host": "a.example.com", "path": "/v1", "scheme": "http" }] }),
            "http[0]",
        ),
        (
            json!({ "http": [{ "host": "a.example.com", "path": "/v1", "methods": ["DELETE"] }] }),
            "http[0]",
        ),
        (
            json!({ "http": [{ "host": "a.example.com", "path": "/v1", "networks": ["0.0.0.0/0"] }] }),
            "http[0]",
        ),
        (
            json!({ "http": [{ "host": "a.example.com", "path": "/v1", "requests": 1001 }] }),
            "http[0]",
        ),
        (
            json!({ "http": [{ "host": "a.example.com", "path": "/v1", "timeout": "1h" }] }),
            "http[0]",
        ),
        (
            json!({ "http": [{ "host": "a.example.com", "path": "/v1", "certificate_authority": "/ca" }] }),
            "http[0]",
        ),
        (
            json!({ "http": [{ "host": "a.example.com", "path": "/v1",
            "credential": { "prefix": "Bearer ", "secret": { "env": "OTHER" } } }] }),
            "http[0]",
        ),
        (json!({ "log": { "level": "info" } }), "log.level"),
        (
            json!({ "log": { "level": "warn", "message_bytes": "1MiB" } }),
            "log.message_bytes",
        ),
        (json!({ "clock": true }), "clock"),
        (json!({ "random": {} }), "random.seed"),
        (json!({ "compute": { "memory": "3GiB" } }), "compute.memory"),
        (json!({ "compute": { "time": "1h" } }), "compute.time"),
        (json!({ "compute": { "programs": 17 } }), "compute.programs"),
        (json!({ "limits": { "memory": "1GiB" } }), "limits.memory"),
        (
            json!({ "limits": { "output_rows": 9_000_000 } }),
            "limits.output_rows",
        ),
    ] {
        let mut asked_for = asked.clone();
        if asked.get("log").is_none() {
            asked_for["log"] = json!({ "level": "warn" });
        }
        assert_eq!(keys(&ceiling, asked_for), [key], "{asked}");
    }
    let none = Ceiling::default().excesses(
        "x",
        Role::Policy,
        &grants(json!({ "compute": {}, "random": {} })),
    );
    assert_eq!(
        none.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "`random` is granted, and may be at most nothing",
            "`compute` is granted, and may be at most nothing",
        ]
    );
}

#[test]
fn devices_and_rates_are_held_to_what_is_named() {
    let ceiling = ceiling(json!({ "acme/*": {
        "compute": { "devices": ["cpu"] },
        "http": [{ "host": "a.example.com", "requests_per_minute": 60 }],
    } }));
    let compute = |devices| keys(&ceiling, json!({ "compute": devices }));
    assert_eq!(compute(json!({ "devices": ["cpu"] })), Vec::<String>::new());
    assert_eq!(compute(json!({ "devices": [] })), Vec::<String>::new());
    for devices in [
        json!({}),
        json!({ "devices": ["cuda"] }),
        json!({ "devices": ["cpu", "cuda"] }),
    ] {
        assert_eq!(compute(devices), ["compute.devices"]);
    }
    let rate = |a_minute| {
        let mut http = json!({ "host": "a.example.com" });
        http["requests_per_minute"] = a_minute;
        keys(&ceiling, json!({ "http": [http] }))
    };
    assert_eq!(rate(json!(60)), Vec::<String>::new());
    assert_eq!(rate(json!(61)), ["http[0]"]);
    assert_eq!(
        rate(json!(null)),
        ["http[0]"],
        "without bound is more than 60"
    );
}

#[test]
fn state_and_questions_are_held_to_their_bounds_and_to_where_they_lead() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, "").expect("a file");
        path
    };
    let (one, other) = (file("one.sqlite"), file("other.sqlite"));
    std::os::unix::fs::symlink(&one, folder.path().join("link.sqlite")).expect("a link");
    let server = json!({ "host": "db.example.com", "database": "d", "user": "u",
        "password": { "env": "P" }, "networks": ["10.0.0.0/8"] });
    let ceiling = ceiling(json!({ "acme/*": {
        "state": { "bytes": "1MiB", "keys": 10, "value_bytes": "1KiB" },
        "sql": [
            { "connection": "any", "to": { "sqlite": one }, "rows": 10,
              "statements": { "a": "SELECT 1", "b": "SELECT 2" } },
            { "connection": "any", "to": { "postgres": server } },
        ],
    } }));
    assert_eq!(ceiling.check(), Ok(()));
    let state = json!({ "bytes": "1MiB", "keys": 10, "value_bytes": "1KiB" });
    let changed = |mut value: Value, key: &str, to: Value| {
        value[key] = to;
        value
    };
    let question = json!({ "connection": "mine", "to": { "sqlite": one }, "rows": 10,
        "statements": { "mine": "SELECT 2" } });
    let asked = json!({ "connection": "db", "to": { "postgres": server } });
    let at = |key: &str, to: Value| {
        changed(
            asked.clone(),
            "to",
            json!({ "postgres": changed(server.clone(), key, to) }),
        )
    };
    let link = json!({ "sqlite": folder.path().join("link.sqlite") });
    for within in [
        json!({ "state": state, "sql": [question, asked] }),
        json!({ "state": changed(state.clone(), "access", json!("read")) }),
        json!({ "sql": [changed(question.clone(), "to", link)] }),
        json!({ "sql": [at("networks", json!(["10.1.0.0/16"]))] }),
    ] {
        assert_eq!(
            keys(&ceiling, within.clone()),
            Vec::<String>::new(),
            "{within}"
        );
    }
    for (over, key) in [
        (
            json!({ "state": changed(state.clone(), "bytes", json!("2MiB")) }),
            "state.bytes",
        ),
        (
            json!({ "state": changed(state.clone(), "keys", json!(11)) }),
            "state.keys",
        ),
        (
            json!({ "state": changed(state, "value_bytes", json!("2KiB")) }),
            "state.value_bytes",
        ),
        (
            json!({ "sql": [changed(question.clone(), "rows", json!(11))] }),
            "sql[0]",
        ),
        (
            json!({ "sql": [changed(question.clone(), "calls", json!(1001))] }),
            "sql[0]",
        ),
        (
            json!({ "sql": [changed(question.clone(), "statements", json!({}))] }),
            "sql[0]",
        ),
        (
            json!({ "sql": [changed(question.clone(), "statements", json!({ "a": "SELECT 3" }))] }),
            "sql[0]",
        ),
        (
            json!({ "sql": [changed(question.clone(), "to", json!({ "sqlite": other }))] }),
            "sql[0]",
        ),
        (
            json!({ "sql": [changed(question, "to", Value::Null)] }),
            "sql[0]",
        ),
        (
            json!({ "sql": [at("host", json!("other.example.com"))] }),
            "sql[0]",
        ),
        (json!({ "sql": [at("user", json!("postgres"))] }), "sql[0]"),
        (json!({ "sql": [at("tls", json!(false))] }), "sql[0]"),
        (
            json!({ "sql": [at("password", json!({ "env": "Q" }))] }),
            "sql[0]",
        ),
        (
            json!({ "sql": [at("networks", json!(["0.0.0.0/0"]))] }),
            "sql[0]",
        ),
        (
            json!({ "sql": [at("certificate_authority", json!("/ca"))] }),
            "sql[0]",
        ),
    ] {
        assert_eq!(keys(&ceiling, over.clone()), [key], "{over}");
    }
    assert_eq!(keys(&Ceiling::default(), json!({ "state": {} })), ["state"]);
    let nowhere = json!({ "acme/*": { "sql": [{ "connection": "any" }] } });
    let relative =
        json!({ "acme/*": { "sql": [{ "connection": "any", "to": { "sqlite": "w" } }] } });
    for (text, why) in [(nowhere, "has no `to`"), (relative, "is not absolute")] {
        let ceiling = serde_json::from_value(json!({ "version": 1, "plugins": text }));
        let ceiling: Ceiling = ceiling.expect("a ceiling");
        let error = ceiling.check().expect_err(why);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn objects_are_compared_by_where_they_lie() {
    let folder = tempfile::tempdir().expect("a folder");
    let lake = folder.path().join("lake");
    std::fs::create_dir_all(lake.join("raw")).expect("folders");
    let url = |path: &Path| json!({ "url": format!("file:{}", path.display()) });
    let account = json!({ "access_key": { "env": "A" }, "secret_key": { "env": "B" } });
    let bucket = json!({ "url": "s3://lake/own", "region": "x", "credentials": account,
        "endpoint": "https://s3.example.com", "networks": ["10.0.0.0/8"] });
    let ceiling: Ceiling = serde_json::from_value(json!({ "version": 1, "plugins": {
        "acme/*": { "blob": [
            { "store": "any", "prefix": "raw/", "access": "read-write", "to": url(&lake) },
            { "store": "far", "prefix": "raw/", "to": bucket, "objects": 10 },
        ] },
    } }))
    .expect("a ceiling");
    ceiling.check().expect("it makes sense");
    let at = |store: Value, prefix: &str, more: Value| {
        let mut grant = json!({ "store": "mine", "prefix": prefix, "to": store });
        for (key, value) in more.as_object().expect("keys") {
            grant[key] = value.clone();
        }
        json!({ "blob": [grant] })
    };
    let changed = |key: &str, to: Value| {
        let mut store = bucket.clone();
        store[key] = to;
        store
    };
    let few = json!({ "objects": 10 });
    for within in [
        at(url(&lake), "raw/", json!({ "access": "read-write" })),
        at(url(&lake), "raw/deep/", json!({})),
        at(url(&lake.join("raw")), "", json!({})),
        at(bucket.clone(), "raw/", few.clone()),
        at(changed("url", json!("s3://lake/own/raw")), "", few.clone()),
        at(
            changed("networks", json!(["10.1.0.0/16"])),
            "raw/x/",
            few.clone(),
        ),
        at(changed("credentials", Value::Null), "raw/", few.clone()),
    ] {
        assert_eq!(
            keys(&ceiling, within.clone()),
            Vec::<String>::new(),
            "{within}"
        );
    }
    for over in [
        at(url(&lake), "", json!({})),
        at(url(&lake), "other/", json!({})),
        at(url(folder.path()), "raw/", json!({})),
        at(url(&lake), "raw/", json!({ "object_bytes": "65MiB" })),
        at(url(&lake), "raw/", json!({ "read_bytes": "2GiB" })),
        at(url(&lake), "raw/", json!({ "write_bytes": "257MiB" })),
        at(url(&lake), "raw/", json!({ "objects": 1001 })),
        at(url(&lake), "raw/", json!({ "entries": 100_001 })),
        at(url(&lake), "raw/", json!({ "calls": 1001 })),
        at(url(&lake), "raw/", json!({ "timeout": "31s" })),
        at(Value::Null, "raw/", json!({})),
        at(bucket.clone(), "raw/", json!({})),
        at(
            bucket.clone(),
            "raw/",
            json!({ "objects": 10, "access": "read-write" }),
        ),
        at(bucket.clone(), "", few.clone()),
        at(changed("url", json!("s3://lake")), "raw/", few.clone()),
        at(
            changed("url", json!("s3://lake/owner")),
            "raw/",
            few.clone(),
        ),
        at(changed("url", json!("s3://other/own")), "raw/", few.clone()),
        at(
            changed("endpoint", json!("https://evil.example")),
            "raw/",
            few.clone(),
        ),
        at(changed("endpoint", Value::Null), "raw/", few.clone()),
        at(changed("region", json!("y")), "raw/", few.clone()),
        at(
            changed("networks", json!(["0.0.0.0/0"])),
            "raw/",
            few.clone(),
        ),
        at(
            changed("certificate_authority", json!("/ca")),
            "raw/",
            few.clone(),
        ),
        at(
            changed(
                "credentials",
                json!({ "access_key": { "env": "A" }, "secret_key": { "env": "C" } }),
            ),
            "raw/",
            few,
        ),
    ] {
        assert_eq!(keys(&ceiling, over.clone()), ["blob[0]"], "{over}");
    }
    let nowhere = json!({ "acme/*": { "blob": [{ "store": "any" }] } });
    let relative =
        json!({ "acme/*": { "blob": [{ "store": "any", "to": { "url": "file:lake" } }] } });
    for (plugins, why) in [(nowhere, "has no `to`"), (relative, "is not absolute")] {
        let ceiling = serde_json::from_value(json!({ "version": 1, "plugins": plugins }));
        let ceiling: Ceiling = ceiling.expect("a ceiling");
        let error = ceiling.check().expect_err(why);
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_file_of_another_version_or_with_unknown_keys_is_refused() {
    for text in [
        json!({ "version": 2, "plugins": {} }),
        json!({ "version": 1 }),
        json!({ "version": 1, "plugins": {}, "more": 1 }),
        json!({ "version": 1, "plugins": { "a": { "network": true } } }),
    ] {
        serde_json::from_value::<Ceiling>(text.clone()).expect_err(&text.to_string());
    }
}
