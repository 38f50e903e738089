//! An operator decides about plugins, and an auditor reads who did and why.
//!
//! The component is an empty shell, and its runs are entries of a log: both is all that is looked at.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use sandcast_audit::{AuditLog, Digest, Event, PluginRef};
use serde_json::Value;

const MANIFEST: &str = r#"{"id": "acme/fetch", "version": "1.0.0", "role": "connector",
    "contract": "0.1.0", "vendor": "Acme", "contact": "security@acme.example",
    "license": "Apache-2.0", "description": "Fetches rows.", "capabilities": []}"#;

fn shell(folder: &Path) -> PluginRef {
    let manifest = MANIFEST.replace('"', "\\22").replace('\n', " ");
    let text = format!(
        r#"(component (instance $role)
             (export "sandcast:plugin/connector@0.1.0" (instance $role))
             (@custom "sandcast:manifest" "{manifest}"))"#
    );
    let bytes = wat::parse_str(text).expect("a component in text");
    fs::write(folder.join("fetch.wasm"), &bytes).expect("written");
    PluginRef {
        id: "acme/fetch".to_owned(),
        version: "1.0.0".to_owned(),
        role: "connector".to_owned(),
        digest: Digest::of(&bytes),
    }
}

fn sandcast(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sandcast"))
        .args(arguments)
        .args(["--state", "state"])
        .current_dir(folder)
        .env("USER", "ann")
        .env("NO_COLOR", "1")
        .env_remove("SANDCAST_CEILING")
        .output()
        .expect("the program runs")
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = sandcast(folder, &[arguments, &["--json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

fn run(log: &AuditLog, plugin: &PluginRef, run: &str, bytes_out: u64) {
    let run: sandcast_audit::RunId = run.parse().expect("a run id");
    let stage = "connect people".to_owned();
    for event in [
        Event::RunStarted {
            run: run.clone(),
            pipeline: "loans".to_owned(),
            config: Digest::ZERO,
        },
        Event::CallsFinished {
            run: Some(run.clone()),
            plugin: plugin.clone(),
            stage: stage.clone(),
            host_calls: [
                ("files.read".to_owned(), 7),
                ("batch.from-columns".to_owned(), 2),
            ]
            .into(),
            host_use: Default::default(),
            bytes_in: 40_000,
            bytes_out,
            guest_seconds: 0.004,
            peak_memory_bytes: 2 << 20,
            denials: 0,
            outcome: "finished".to_owned(),
        },
        Event::StageFinished {
            run: run.clone(),
            stage,
            key: Digest::ZERO,
            output: Digest::ZERO,
            cached: false,
            rows_in: Some(1_000),
            rows_out: Some(1_000),
            rows_quarantined: Some(0),
            seconds: 0.1,
        },
        Event::RunFinished {
            run,
            outcome: "completed".to_owned(),
            message: None,
        },
    ] {
        log.append(event).expect("appended");
    }
}

#[test]
fn decisions_want_a_reason_and_are_on_record_with_who_made_them() {
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path();
    fs::create_dir(folder.join("state")).expect("a folder");
    let digest = shell(folder).digest.to_string();
    assert_eq!(json(folder, &["plugins"]), serde_json::json!([]));

    let (code, text) = said(&sandcast(folder, &["plugins", "quarantine", "fetch.wasm"]));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("--reason"), "{text}");
    let decide = |action: &str, plugin: &str, reason: &str| {
        said(&sandcast(
            folder,
            &["plugins", action, plugin, "--reason", reason],
        ))
    };
    let (code, text) = decide("quarantine", "fetch.wasm", "  ");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("needs a reason"), "{text}");
    let (code, text) = decide("quarantine", "acme/fetch", "who is that");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("nothing here is called"), "{text}");

    let admitted = json(
        folder,
        &["plugins", "admit", "fetch.wasm", "--reason", "reviewed"],
    );
    assert_eq!(admitted["standing"], "admitted");
    let operator = admitted["operator"].as_str().expect("somebody");
    assert!(operator.starts_with("ann"), "{operator}");
    for (action, reason, standing) in [
        ("quarantine", "asks too much", "quarantined"),
        ("release", "it was us", "probation"),
        ("trust", "known for years", "trusted"),
        ("revoke", "sold to somebody else", "revoked"),
    ] {
        let (code, text) = decide(action, &digest[..8], reason);
        assert_eq!(code, Some(0), "{text}");
        let listed = json(folder, &["plugins", "list"]);
        assert_eq!(listed[0]["standing"]["standing"], standing);
        let inspected = json(folder, &["inspect", "fetch.wasm"]);
        assert_eq!(inspected["standing"]["reason"], reason);
    }
    let (code, text) = decide("release", "acme/fetch", "please");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("final for this digest"), "{text}");

    let entries = json(folder, &["audit", "show", "--event", "standing-changed"]);
    let entries = entries.as_array().expect("entries");
    let reasons: Vec<&str> = entries
        .iter()
        .filter_map(|entry| entry["event"]["reason"].as_str())
        .collect();
    assert_eq!(
        reasons,
        [
            "reviewed",
            "asks too much",
            "it was us",
            "known for years",
            "sold to somebody else"
        ]
    );
    assert!(
        entries
            .iter()
            .all(|entry| entry["event"]["operator"] == operator)
    );
    let (code, text) = said(&sandcast(folder, &["audit", "verify"]));
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn what_a_plugin_usually_does_is_told_and_drawn() {
    let outer = tempfile::tempdir().expect("a folder");
    let folder = outer.path();
    let plugin = shell(folder);
    let log = AuditLog::open(&folder.join("state/audit")).expect("a log");
    for number in 0..6 {
        let name = format!("20261121-20153{number}-4f3a9c");
        run(&log, &plugin, &name, 20_000 + 5_000 * number);
    }
    let told = json(folder, &["plugins", "show", "acme/fetch"]);
    let place = &told["places"][0];
    assert_eq!(place["place"]["stage"], "connect people");
    assert_eq!(
        (&place["learned"], &place["is_known"]),
        (&6.into(), &true.into())
    );
    let output = sandcast(folder, &["plugins", "show", "fetch.wasm"]);
    let text = String::from_utf8(output.stdout).expect("text");
    insta::assert_snapshot!(
        "what_is_usual",
        text.replace(&plugin.digest.to_string()[..16], "DIGEST")
    );
    // Nobody but this log knows it yet.
    let listed = json(folder, &["plugins", "list"]);
    assert_eq!(listed[0]["standing"], Value::Null);
}
