//! Every capability: what it allows, what it denies, and that a denial names the line of the
//! pipeline that would grant it.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::CallError;
use crate::effect::{Act, Unannounced};
use crate::testing::{Bench, PolicyText, request};

/// A policy that opens the file that its configuration names, with some flags, in its first
/// folder, and reads 8 bytes of it. A failure's message is one letter, `A` for the first code of
/// `wasi:filesystem`; its code is `denied` for `not-permitted`, else `unavailable`.
fn opening(open_flags: u32, flags: u32) -> Vec<u8> {
    let configure = format!(
        r#"(call $directories (i32.const 2048))
        (if (i32.eqz (i32.load (i32.const 2052))) (then (call $fail (i32.const 31)) (return (i32.const 1024))))
        ;; The configuration is a JSON string; its quotes are left off.
        (call $open (i32.load (i32.load (i32.const 2048))) (i32.const 1)
          (i32.add (local.get $config) (i32.const 1)) (i32.sub (local.get $length) (i32.const 2))
          (i32.const {open_flags}) (i32.const {flags}) (i32.const 3072))
        (if (i32.load8_u (i32.const 3072))
          (then (call $fail (i32.load8_u (i32.const 3076))) (return (i32.const 1024))))
        (call $read (i32.load (i32.const 3076)) (i64.const 8) (i64.const 0) (i32.const 3200))
        (if (i32.load8_u (i32.const 3200))
          (then (call $fail (i32.load8_u (i32.const 3204))) (return (i32.const 1024))))"#
    );
    let text = PolicyText {
        imports: r#"
          (import "wasi:filesystem/preopens@0.2.12" "get-directories" (func $directories (param i32)))
          (import "wasi:filesystem/types@0.2.12" "[method]descriptor.open-at"
            (func $open (param i32 i32 i32 i32 i32 i32 i32)))
          (import "wasi:filesystem/types@0.2.12" "[method]descriptor.read"
            (func $read (param i32 i64 i64 i32)))"#,
        configure: &configure,
        rest: r#"(func $fail (param $code i32)
            (i32.store8 (i32.const 1024) (i32.const 1))
            (i32.store8 (i32.const 1028)
              (select (i32.const 2) (i32.const 3) (i32.eq (local.get $code) (i32.const 31))))
            (i32.store8 (i32.const 900) (i32.add (local.get $code) (i32.const 65)))
            (i32.store (i32.const 1032) (i32.const 900))
            (i32.store (i32.const 1036) (i32.const 1)))"#,
        capabilities: &["files"],
        ..PolicyText::default()
    };
    text.component()
}

const READ: u32 = 1;
const WRITE: u32 = 2;
const CREATE: u32 = 1;
const TRUNCATE: u32 = 8;

/// A folder to grant, beside a secret that is not.
fn folder() -> tempfile::TempDir {
    let outer = tempfile::tempdir().expect("a folder");
    let granted = outer.path().join("granted");
    fs::create_dir(&granted).expect("the granted folder");
    fs::write(granted.join("file"), "contents").expect("a file");
    fs::write(outer.path().join("secret"), "a secret").expect("a secret");
    outer
}

fn granting(outer: &Path, access: Access) -> Grants {
    let host = outer.join("granted");
    Grants {
        files: vec![FileGrant {
            host,
            guest: "/data".into(),
            access,
            quota: Default::default(),
        }],
        ..Grants::default()
    }
}

async fn open(
    bench: &Bench,
    outer: &Path,
    access: Access,
    (open_flags, flags): (u32, u32),
    path: &str,
) -> Result<(), CallError> {
    let bytes = opening(open_flags, flags);
    bench
        .configure(&bytes, granting(outer, access), json!(path))
        .await
        .map(|_| ())
}

#[tokio::test]
async fn a_granted_folder_is_read_and_counted() {
    let (bench, outer) = (Bench::new(), folder());
    fs::create_dir(outer.path().join("granted/sub")).expect("a folder");
    fs::write(outer.path().join("granted/sub/deep"), "deep").expect("a file");
    for path in ["file", "sub/deep", "sub/../file", "./file"] {
        open(&bench, outer.path(), Access::Read, (0, READ), path)
            .await
            .expect(path);
    }
    assert_eq!(bench.denials(), []);
    let counted = bench
        .events()
        .into_iter()
        .rev()
        .find_map(|event| match event {
            sandcast_audit::Event::CallsFinished {
                host_calls,
                bytes_in,
                ..
            } => Some((host_calls, bytes_in)),
            _ => None,
        });
    let (calls, bytes_in) = counted.expect("a record");
    assert_eq!((calls["files.open-at"], calls["files.read"]), (1, 1));
    assert_eq!(bytes_in, 8);
}

#[tokio::test]
async fn nothing_leads_out_of_a_granted_folder() {
    let (bench, outer) = (Bench::new(), folder());
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink("../secret", outer.path().join("granted/link")).expect("a link");
        symlink(
            outer.path().join("secret"),
            outer.path().join("granted/absolute"),
        )
        .expect("a link");
        symlink("..", outer.path().join("granted/up")).expect("a link");
    }
    let absolute = outer.path().join("secret").display().to_string();
    let paths = [
        "../secret",
        "../granted/../secret",
        "link",
        "absolute",
        "up/secret",
        "..",
        absolute.as_str(),
    ];
    for path in paths {
        let error = open(&bench, outer.path(), Access::ReadWrite, (0, READ), path)
            .await
            .expect_err("a way out");
        let CallError::Denied {
            capability,
            detail,
            grant_with,
            ..
        } = &error
        else {
            panic!("{path}: {error}");
        };
        assert_eq!(capability, "files");
        assert!(detail.contains(path), "{detail}");
        assert!(
            grant_with.contains("plugins.test.grants.files"),
            "{grant_with}"
        );
    }
    assert_eq!(bench.denials().len(), paths.len(), "every one is on record");
}

#[tokio::test]
async fn a_folder_granted_for_reading_is_not_written() {
    let (bench, outer) = (Bench::new(), folder());
    for how in [(CREATE, READ | WRITE), (0, READ | WRITE), (TRUNCATE, READ)] {
        let error = open(&bench, outer.path(), Access::Read, how, "file").await;
        let error = error.expect_err("read only");
        assert!(
            matches!(error, CallError::Denied { .. }),
            "{how:?}: {error}"
        );
    }
    assert_eq!(
        fs::read_to_string(outer.path().join("granted/file")).expect("there"),
        "contents"
    );
    // The same under a grant that allows it.
    open(
        &bench,
        outer.path(),
        Access::ReadWrite,
        (CREATE, READ | WRITE),
        "new",
    )
    .await
    .expect("new");
    open(
        &bench,
        outer.path(),
        Access::ReadWrite,
        (TRUNCATE, READ | WRITE),
        "file",
    )
    .await
    .expect("file");
    assert!(outer.path().join("granted/new").exists());
    assert_eq!(
        fs::read_to_string(outer.path().join("granted/file")).expect("there"),
        ""
    );
}

#[tokio::test]
async fn a_file_that_is_not_there_is_no_denial() {
    let (bench, outer) = (Bench::new(), folder());
    let error = open(&bench, outer.path(), Access::Read, (0, READ), "missing").await;
    assert!(matches!(error, Err(CallError::Failed { .. })), "{error:?}");
    assert_eq!(bench.denials(), []);
}

#[tokio::test]
async fn configuration_is_given_by_key() {
    // Asks for `path` and traps unless the value is `/data`.
    let text = PolicyText {
        imports: r#"(import "wasi:config/store@0.2.0-rc.1" "get" (func $get (param i32 i32 i32)))"#,
        configure: r#"(call $get (i32.const 512) (i32.const 4) (i32.const 2048))
            ;; result, then option, then the text
            (if (i32.load8_u (i32.const 2048)) (then unreachable))
            (if (i32.ne (i32.load8_u (i32.const 2052)) (i32.const 1)) (then unreachable))
            (if (i32.ne (i32.load (i32.const 2060)) (i32.const 5)) (then unreachable))
            (if (i32.ne (i32.load (i32.load (i32.const 2056))) (i32.load (i32.const 516)))
              (then unreachable))"#,
        rest: r#"(data (i32.const 512) "path/data")"#,
        ..PolicyText::default()
    };
    let bench = Bench::new();
    let bytes = text.component();
    bench
        .configure(&bytes, Grants::default(), json!({ "path": "/data" }))
        .await
        .expect("given");
    let other = bench
        .configure(&bytes, Grants::default(), json!({ "other": "/data" }))
        .await;
    assert!(other.is_err(), "a key that is not there has no value");
}

#[tokio::test]
async fn a_granted_clock_goes_and_is_counted() {
    let text = PolicyText {
        imports: r#"(import "wasi:clocks/wall-clock@0.2.12" "now" (func $now (param i32)))"#,
        // Traps in the years before 2020.
        configure: "(call $now (i32.const 2048))
            (if (i64.lt_u (i64.load (i32.const 2048)) (i64.const 1577836800)) (then unreachable))",
        capabilities: &["clock"],
        ..PolicyText::default()
    };
    let bench = Bench::new();
    let grants = Grants {
        clock: true,
        ..Grants::default()
    };
    bench
        .configure(&text.component(), grants, json!({}))
        .await
        .expect("it is later than 2020");
    assert_eq!(bench.denials(), []);
}

#[tokio::test]
async fn random_numbers_follow_their_seed_and_are_bounded() {
    // Fails with the first number drawn as its message, in letters.
    let drawing = |length: u64| {
        let configure = format!(
            "(call $bytes (i64.const {length}) (i32.const 2048))
            (i32.store8 (i32.const 1024) (i32.const 1))
            (i32.store (i32.const 1032) (i32.const 900))
            (i32.store (i32.const 1036) (i32.const 8))
            (loop $next
              (i32.store8 (i32.add (i32.const 900) (local.get $a))
                (i32.add (i32.const 97) (i32.rem_u
                  (i32.load8_u (i32.add (i32.load (i32.const 2048)) (local.get $a))) (i32.const 26))))
              (local.set $a (i32.add (local.get $a) (i32.const 1)))
              (br_if $next (i32.lt_u (local.get $a) (i32.const 8))))"
        );
        let text = PolicyText {
            imports: r#"(import "wasi:random/random@0.2.12" "get-random-bytes" (func $bytes (param i64 i32)))"#,
            configure: &configure,
            capabilities: &["random"],
            ..PolicyText::default()
        };
        text.component()
    };
    let bench = Bench::new();
    let bytes = drawing(8);
    let draw = async |seed| {
        let grants = Grants {
            random: Some(RandomGrant { seed }),
            ..Grants::default()
        };
        match bench.configure(&bytes, grants, json!({})).await.map(|_| ()) {
            Err(CallError::Failed { failure, .. }) => failure.message,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(draw(Some(7)).await, draw(Some(7)).await);
    assert_ne!(draw(Some(7)).await, draw(Some(8)).await);
    assert_ne!(draw(None).await, draw(None).await);
    let grants = Grants {
        random: Some(RandomGrant::default()),
        ..Grants::default()
    };
    let greedy = bench
        .configure(&drawing(1 << 40), grants, json!({}))
        .await
        .map(|_| ());
    assert!(
        matches!(&greedy, Err(CallError::Trap { cause, .. }) if cause.contains("random bytes at once")),
        "{greedy:?}"
    );
}

/// A policy that logs `hello` so many times when it is configured and traps when it decides.
fn logging(times: u32) -> Vec<u8> {
    let configure = format!(
        "(loop $next
          (call $log (i32.const 4) (i32.const 512) (i32.const 4) (i32.const 516) (i32.const 5))
          (local.set $a (i32.add (local.get $a) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $a) (i32.const {times}))))"
    );
    let text = PolicyText {
        imports: r#"(import "wasi:logging/logging@0.1.0-draft" "log" (func $log (param i32 i32 i32 i32 i32)))"#,
        configure: &configure,
        decide: "unreachable",
        rest: r#"(data (i32.const 512) "heathello")"#,
        ..PolicyText::default()
    };
    text.component()
}

fn small_log() -> Grants {
    let bytes_per_second = ByteSize::from_bytes(100);
    let log = LogGrant {
        bytes_per_second,
        ..LogGrant::default()
    };
    Grants {
        log,
        ..Grants::default()
    }
}

#[tokio::test]
async fn a_log_over_its_share_is_dropped_once_on_record() {
    let bench = Bench::new();
    bench
        .configure(&logging(2000), small_log(), json!({}))
        .await
        .expect("it may go on");
    let denials = bench.denials();
    let [(capability, detail, grant_with)] = &denials[..] else {
        panic!("{denials:?}")
    };
    assert_eq!(capability, "log");
    assert!(detail.contains("100B a second"), "{detail}");
    assert_eq!(grant_with, "plugins.test.grants.log.bytes_per_second");
}

#[tokio::test]
async fn a_denial_that_cannot_be_recorded_ends_the_instance() {
    let (bench, breaks) = Bench::with_a_log_that_breaks();
    let plugin = bench.load(&logging(2000), small_log()).await;
    breaks();
    let error = plugin.policy(&crate::testing::context(), &json!({})).await;
    let error = error.map(|_| ()).expect_err("nobody knows of the denial");
    let CallError::Host { reason, .. } = &error else {
        panic!("{error}");
    };
    assert!(reason.contains("counts for nothing: a denial"), "{reason}");
}

#[test]
fn every_other_denial_is_on_record_until_there_are_no_entries_left() {
    let bench = Bench::new();
    let mut grants = Grants::default();
    grants.limits.entries = 3;
    let store = crate::testing::store(&bench, grants);
    let actor = &store.data().actor;
    for _ in 0..40 {
        actor.deny(Capability::Files, "read a".to_owned());
    }
    actor.deny(Capability::Files, "read b".to_owned());
    actor.deny(Capability::Clock, "read a".to_owned());
    assert!(actor.over().is_none());
    let told: Vec<_> = bench.denials().into_iter().map(|it| (it.0, it.1)).collect();
    let [a, b] = ["read a", "read b"].map(str::to_owned);
    let files = "files".to_owned();
    assert_eq!(
        told,
        [
            (files.clone(), a.clone()),
            (files, b),
            ("clock".to_owned(), a)
        ]
    );
    let act = || Act {
        capability: Capability::Files,
        action: "write",
        target: "a".to_owned(),
        digest: None,
        secret: None,
    };
    let refused = actor
        .announce(act())
        .expect_err("there is no entry left for it");
    assert!(matches!(refused, Unannounced::Full), "{refused}");
    assert_eq!(
        actor.over().expect("it is to be ended").key,
        "limits.entries"
    );
    actor.deny(Capability::Files, "read c".to_owned());
    assert_eq!(bench.denials().len(), 3);
}

#[tokio::test]
async fn who_is_refused_more_than_there_are_entries_for_is_ended() {
    let bench = Bench::new();
    let mut grants = small_log();
    grants.limits.entries = 0;
    let error = bench.configure(&logging(2000), grants, json!({})).await;
    let error = error.map(|_| ()).expect_err("it is not on record");
    let CallError::OverLimit { limit, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(limit, "limits.entries");
    assert_eq!(bench.denials(), []);
}

#[tokio::test]
async fn a_guest_that_floods_the_log_is_stopped() {
    let bench = Bench::new();
    let error = bench
        .configure(&logging(4_000_000_000), small_log(), json!({}))
        .await;
    let error = error.map(|_| ()).expect_err("a flood");
    assert!(
        matches!(&error, CallError::OverLimit { limit, .. } if limit == "log.bytes_per_second"),
        "{error}"
    );
}

#[tokio::test]
async fn the_last_words_of_a_guest_explain_its_trap() {
    let bench = Bench::new();
    let mut policy = bench
        .configure(&logging(1), Grants::default(), json!({}))
        .await
        .expect("it says hello");
    let error = policy.decide(&request()).await.expect_err("a trap");
    assert!(
        matches!(&error, CallError::Trap { cause, .. } if cause.ends_with("its last words: hello")),
        "{error}"
    );
}

#[test]
fn grants_are_off_until_they_are_written_and_unknown_keys_are_refused() {
    let none: Grants = serde_json::from_value(json!({})).expect("nothing is required");
    assert_eq!(none, Grants::default());
    for capability in [
        Capability::Files,
        Capability::Http,
        Capability::Clock,
        Capability::Random,
        Capability::Compute,
        Capability::State,
        Capability::Sql,
        Capability::Blob,
    ] {
        assert!(!none.allows(capability), "{capability}");
    }
    let all: Grants = serde_json::from_value(json!({
        "files": [{ "host": "data", "guest": "/data" }],
        "clock": true,
        "random": {},
        "compute": { "memory": "1GiB", "time": "10m" },
        "log": { "level": "debug" },
        "limits": { "memory": "64MiB", "call_timeout": 5 },
    }))
    .expect("all of it");
    assert!(all.allows(Capability::Files) && all.allows(Capability::Compute));
    assert_eq!(
        all.files[0].access,
        Access::Read,
        "writing is never the default"
    );
    assert_eq!(all.limits.memory, ByteSize::from_mib(64));
    assert_eq!(all.limits.call_timeout, TimeSpan::from_secs(5));
    let again: Grants =
        serde_json::from_value(serde_json::to_value(&all).expect("JSON")).expect("read back");
    assert_eq!(again, all);
    for wrong in [
        json!({ "network": true }),
        json!({ "limits": { "memroy": 1 } }),
    ] {
        assert!(serde_json::from_value::<Grants>(wrong).is_err());
    }
}

#[test]
fn without_effects_nothing_reaches_beyond_the_sandbox() {
    let all: Grants = serde_json::from_value(serde_json::json!({
        "files": [{ "host": "/srv", "guest": "/srv" }],
        "http": [{ "host": "example.com" }],
        "clock": true,
        "random": {},
        "compute": {},
        "state": {},
        "sql": [{ "connection": "crm" }],
        "blob": [{ "store": "lake" }],
        "limits": { "memory": "64MiB" },
        "recording": {},
        "isolation": "process",
    }))
    .expect("grants");
    let reaches = [
        Capability::Files,
        Capability::Http,
        Capability::State,
        Capability::Sql,
        Capability::Blob,
    ];
    let less = all.without_effects();
    for capability in Capability::ALL {
        let granted = less.in_words(capability, |path| path.display().to_string());
        let before = all.in_words(capability, |path| path.display().to_string());
        match reaches.contains(&capability) {
            true => assert!(before.is_some() && granted.is_none(), "{capability:?}"),
            false => assert_eq!(granted, before, "{capability:?}"),
        }
    }
    assert_eq!((&less.limits, less.isolation), (&all.limits, all.isolation));
    assert!(less.recording.is_none());
}
