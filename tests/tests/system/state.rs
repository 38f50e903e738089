//! What a guest keeps from one instance to the next: its own, as far as its quotas, and nobody else's.

use std::fs;
use std::num::NonZeroU32;

use sandcast_audit::Event;
use sandcast_sandbox::{
    Access, ByteSize, Grants, LoadError, Plugin, RecordingGrant, Role, StateGrant,
};
use serde_json::{Value, json};

use crate::bench::{Bench, asks};

async fn try_load(bench: &Bench, name: &str, grants: Grants) -> Result<Plugin, LoadError> {
    let guest = "tests/guests/keeper";
    bench.load(name, guest, Role::Policy, grants).await
}

async fn load(bench: &Bench, name: &str, grants: Grants) -> Plugin {
    try_load(bench, name, grants).await.expect("it loads")
}

fn granting(state: StateGrant) -> Grants {
    Grants {
        state: Some(state),
        ..Grants::default()
    }
}

fn of(pipeline: &str) -> Grants {
    granting(StateGrant {
        pipeline: Some(pipeline.to_owned()),
        ..StateGrant::default()
    })
}

/// What a new instance says to some steps.
async fn does(plugin: &Plugin, steps: Value) -> Vec<String> {
    asks(plugin, json!({ "do": steps })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_there_for_the_next_instance_and_the_next_process() {
    let bench = Bench::new();
    let plugin = load(&bench, "keeper", of("line")).await;
    let said = does(
        &plugin,
        json!([
            { "get": "a" }, { "set": ["a", "one"] }, { "get": "a" }, { "exists": "a" },
            { "increment": ["n", 5] }, { "increment": ["n", -7] }, { "append": ["a", " more"] },
            { "set-many": [["b", "2"], ["c", "3"]] }, "keys", { "get-many": ["c", "x", "b"] },
            { "delete-many": ["b", "x"] }, { "delete": "c" }, "keys",
            { "swap-late": "s" }, { "get": "s" }, { "increment": ["a", 1] },
        ]),
    )
    .await;
    assert_eq!(
        said,
        [
            "nothing",
            "done",
            "one",
            "true",
            "5",
            "-2",
            "done",
            "done",
            "a b c n",
            "3 nothing 2",
            "done",
            "done",
            "a n",
            "not the first time",
            "again",
            "FailureCode::Unavailable: the key holds no whole number",
        ]
    );
    let again = does(&plugin, json!([{ "get": "a" }, { "get": "n" }])).await;
    assert_eq!(again, ["one more", "-2"]);
    let other = bench.beside();
    let elsewhere = load(&other, "keeper", of("line")).await;
    assert_eq!(
        does(&elsewhere, json!([{ "get": "a" }])).await,
        ["one more"]
    );
    assert_eq!(bench.denied(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_what_another_keeps() {
    let bench = Bench::new();
    let mine = load(&bench, "keeper", of("line")).await;
    does(&mine, json!([{ "set": ["secret", "mine"] }])).await;
    // By another name, in another pipeline, and in none.
    for (name, grants) in [
        ("other", of("line")),
        ("keeper", of("another")),
        ("keeper", granting(StateGrant::default())),
    ] {
        let plugin = load(&bench, name, grants).await;
        let said = does(
            &plugin,
            json!([{ "get": "secret" }, "keys", { "delete": "secret" }, { "set": ["secret", "x"] }]),
        )
        .await;
        assert_eq!(said, ["nothing", "", "done", "done"], "{name}");
    }
    assert_eq!(does(&mine, json!([{ "get": "secret" }])).await, ["mine"]);
    // Nor by the name of a bucket.
    let said = does(
        &mine,
        json!([{ "open": "another" }, { "open": "../x" }, { "open": "" }]),
    )
    .await;
    assert_eq!(said, ["Error::NoSuchStore", "Error::NoSuchStore", "open"]);
    let denied = bench.denied();
    assert_eq!(denied.len(), 2, "{denied:?}");
    assert!(denied[0].0.contains("open `another`"), "{denied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_over_instances_and_a_refusal_names_its_line() {
    let bench = Bench::new();
    let plugin = load(
        &bench,
        "keeper",
        granting(StateGrant {
            bytes: ByteSize::from_kib(10),
            keys: NonZeroU32::new(3).expect("three"),
            value_bytes: ByteSize::from_kib(8),
            ..StateGrant::default()
        }),
    )
    .await;
    let first = does(
        &plugin,
        json!([{ "fill": ["a", 8000] }, { "fill": ["b", 9000] }]),
    )
    .await;
    assert_eq!(
        first,
        [
            "done",
            "FailureCode::Unavailable: a value of 9000 bytes is over 8KiB"
        ]
    );
    let next = does(
        &plugin,
        json!([{ "fill": ["b", 3000] }, { "fill": ["b", 1] }, { "fill": ["c", 1] }, { "fill": ["d", 1] }]),
    )
    .await;
    assert_eq!(
        next,
        [
            "FailureCode::Unavailable: 11002 bytes of state are over 10KiB",
            "done",
            "done",
            "FailureCode::Unavailable: 4 keys are over 3",
        ]
    );
    let lines: Vec<String> = bench.denied().into_iter().map(|(_, line)| line).collect();
    assert_eq!(
        lines,
        [
            "plugins.keeper.grants.state.value_bytes",
            "plugins.keeper.grants.state.bytes",
            "plugins.keeper.grants.state.keys",
        ]
    );
    // Keys that make no sense are mistakes, not denials.
    let said = does(
        &plugin,
        json!([{ "set": ["", "x"] }, { "get": "k".repeat(513) }]),
    )
    .await;
    assert!(
        said.iter().all(|said| said.contains("1 to 512 bytes")),
        "{said:?}"
    );
    assert_eq!(bench.denied().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_only_be_read_is_not_changed() {
    let bench = Bench::new();
    let writer = load(&bench, "keeper", granting(StateGrant::default())).await;
    does(&writer, json!([{ "set": ["a", "kept"] }])).await;
    let reader = load(
        &bench,
        "keeper",
        granting(StateGrant {
            access: Access::Read,
            ..StateGrant::default()
        }),
    )
    .await;
    let said = does(
        &reader,
        json!([
            { "get": "a" }, { "set": ["a", "x"] }, { "delete": "a" }, { "increment": ["n", 1] },
            { "append": ["a", "x"] }, { "set-many": [["b", "x"]] }, { "delete-many": ["a"] },
        ]),
    )
    .await;
    assert_eq!(said[0], "kept");
    let refused = "FailureCode::Denied: the state may only be read";
    assert!(said[1..].iter().all(|said| said == refused), "{said:?}");
    assert_eq!(
        does(&writer, json!([{ "get": "a" }, "keys"])).await,
        ["kept", "a"]
    );
    let denied = bench.denied();
    // To delete `a` is refused twice, and on record once.
    assert_eq!(denied.len(), 5, "{denied:?}");
    assert!(
        denied
            .iter()
            .all(|(_, line)| line == "plugins.keeper.grants.state.access: read-write"),
        "{denied:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_is_exact_whoever_else_adds() {
    let one = Bench::new();
    let other = one.beside();
    let mut adding = Vec::new();
    for bench in [&one, &one, &other, &other] {
        let plugin = load(bench, "keeper", of("line")).await;
        adding.push(tokio::spawn(async move {
            does(
                &plugin,
                json!([{ "count": ["n", 25] }, { "append": ["log", "x"] }]),
            )
            .await
        }));
    }
    for added in adding {
        added.await.expect("no panic");
    }
    let plugin = load(&one, "keeper", of("line")).await;
    assert_eq!(
        does(&plugin, json!([{ "get": "n" }, { "get": "log" }])).await,
        ["100", "xxxx"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_on_record_before_and_after() {
    let bench = Bench::new();
    let plugin = load(&bench, "keeper", of("line")).await;
    does(
        &plugin,
        json!([{ "set": ["a", "value"] }, { "get": "a" }, { "set": ["a", "other"] }, { "swap-late": "s" }]),
    )
    .await;
    let told: Vec<String> = bench
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Effect {
                capability,
                action,
                target,
                ..
            } => Some(format!("{capability} {action} {target}")),
            Event::EffectFinished { outcome, .. } => Some(outcome),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            "state set a",
            "done",
            "state set s",
            "done",
            "state swap s",
            "not done: it was changed meanwhile",
        ]
    );
    let used = bench.events().into_iter().find_map(|event| match event {
        Event::CallsFinished { host_calls, .. } => Some(host_calls),
        _ => None,
    });
    let used = used.expect("a record of its calls");
    assert_eq!(
        (used["state.set"], used["state.get"], used["state.swap"]),
        (3, 1, 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_given_what_was_there_then_and_changes_nothing() {
    let bench = Bench::new();
    let plugin = load(
        &bench,
        "keeper",
        Grants {
            recording: Some(RecordingGrant::default()),
            ..of("line")
        },
    )
    .await;
    let steps = json!([
        { "increment": ["n", 1] }, { "get": "n" }, { "append": ["a", "x"] }, "keys",
        { "get-many": ["a", "n"] }, { "swap-late": "s" }, { "set": ["", "x"] },
    ]);
    let then = does(&plugin, steps).await;
    assert_eq!(then[..2], ["1", "1"]);
    let [digest] = bench.recorded()[..] else {
        panic!("it is recorded once");
    };
    // What is there now is something else.
    does(
        &plugin,
        json!([{ "set": ["n", "1000"] }, { "delete": "a" }]),
    )
    .await;
    for _ in 0..2 {
        bench.is_replayed(&bench.beside(), &digest).await;
    }
    assert_eq!(
        does(&plugin, json!([{ "get": "n" }, { "get": "a" }])).await,
        ["1000", "nothing"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_and_without_a_store_nothing_is_loaded() {
    let bench = Bench::new();
    let refusal = async |bench: &Bench, grants: Grants| {
        let loaded = try_load(bench, "keeper", grants).await;
        loaded.map(|_| ()).expect_err("it does not load")
    };
    let error = refusal(&bench, Grants::default()).await;
    assert!(matches!(&error, LoadError::NotGranted { .. }), "{error}");
    assert!(
        error.to_string().contains("plugins.keeper.grants.state"),
        "{error}"
    );
    let too_large = StateGrant {
        value_bytes: ByteSize::from_mib(65),
        ..StateGrant::default()
    };
    let error = refusal(&bench, granting(too_large)).await;
    assert!(
        matches!(&error, LoadError::BadGrant { grant, .. } if grant == "state"),
        "{error}"
    );
    fs::write(
        bench.folder.path().join("plugin-state.sqlite"),
        "this is no database",
    )
    .expect("written");
    let broken = bench.beside();
    let error = refusal(&broken, granting(StateGrant::default())).await;
    assert!(
        matches!(&error, LoadError::BadGrant { grant, .. } if grant == "state"),
        "{error}"
    );
}
