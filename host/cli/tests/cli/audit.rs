//! An operator and an auditor who trusts nobody, with the program itself: keys, checkpoints, an
//! export that is carried away, proofs, and what a forger would have to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use jiff::Timestamp;
use sandcast_audit::{AuditLog, Digest, Event, LogKey, PluginRef};
use sandcast_sandbox::{Recording, Recordings};
use serde_json::{Value, json};

/// A state folder with a log of some entries, and room beside it.
fn state() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    append(&state, 5);
    (folder, state)
}

fn append(state: &Path, entries: u64) {
    let log = AuditLog::open(&state.join("audit")).expect("opens");
    for predictions in 0..entries {
        log.append(Event::ServeStopped { predictions })
            .expect("appends");
    }
}

fn run(state: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sandcast"))
        .arg("audit")
        .args(arguments)
        .env("SANDCAST_STATE", state)
        .env("NO_COLOR", "1")
        .output()
        .expect("the program starts")
}

/// What a command prints that must succeed.
fn done(state: &Path, arguments: &[&str]) -> String {
    let output = run(state, arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).expect("text")
}

/// What a command says that must end with exit code 1.
fn rejected(state: &Path, arguments: &[&str]) -> String {
    let output = run(state, arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
    told
}

fn json(state: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(state, arguments)).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of a test")
}

#[test]
fn an_auditor_needs_a_key_and_the_export_alone() {
    let (folder, state) = state();
    let key = done(&state, &["key", "show"]).trim().to_owned();
    let export = folder.path().join("export");
    let exported = json(&state, &["export", text(&export), "--json"]);
    assert_eq!(
        (&exported["first"], &exported["last"]),
        (&1.into(), &6.into())
    );
    let kept = folder.path().join("kept");
    fs::copy(export.join("checkpoint"), &kept).expect("copies");

    // Where there is no state.
    let nowhere = folder.path().join("nowhere");
    let report = json(
        &nowhere,
        &["verify", text(&export), "--key", &key, "--json"],
    );
    assert_eq!(report["is_trusted"], true);
    assert_eq!(
        (&report["entries"], &report["unsigned"]),
        (&6.into(), &0.into())
    );
    let told = run(&nowhere, &["verify", text(&export)]);
    assert_eq!(told.status.code(), Some(0));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("get the key from the operator"), "{told}");

    // The next export goes on from the checkpoint that was kept.
    append(&state, 3);
    let next = folder.path().join("next");
    done(&state, &["export", text(&next)]);
    let arguments = [
        "verify",
        text(&next),
        "--key",
        &key,
        "--checkpoint",
        text(&kept),
    ];
    assert!(done(&nowhere, &arguments).starts_with("whole: 9 entries"));
    // An export is never written over.
    assert!(rejected(&state, &["export", text(&next)]).contains("is there already"));
    // A log that was written anew, with everything but the key, does not.
    fs::remove_dir_all(&next).expect("removes");
    let (_other_folder, other) = self::state();
    append(&other, 9);
    done(&other, &["export", text(&next)]);
    assert!(rejected(&nowhere, &arguments).contains("did not sign"));
    let without = ["verify", text(&next), "--key", &key];
    assert!(
        rejected(&nowhere, &without).contains("no checkpoint is signed by a key that was given")
    );
}

#[test]
fn a_state_is_held_to_the_key_beside_it() {
    let (_folder, state) = state();
    assert_eq!(json(&state, &["verify", "--json"])["key_from"], "state");
    let (_other_folder, other) = self::state();
    let audit = state.join("audit");
    fs::remove_dir_all(&audit).expect("removes");
    fs::rename(other.join("audit"), &audit).expect("moves");
    assert!(rejected(&state, &["verify"]).contains("no checkpoint is signed"));
}

#[test]
fn proofs_are_checked_with_a_key_alone() {
    let (folder, state) = state();
    let key = done(&state, &["key", "show"]).trim().to_owned();
    let nowhere = folder.path().join("nowhere");
    let path = folder.path().join("proof.json");
    let verify = ["verify", "--proof", text(&path), "--key", &key];

    let proof = done(&state, &["prove", "3"]);
    fs::write(&path, &proof).expect("writes");
    let told = done(&nowhere, &verify);
    assert!(
        told.starts_with("proven: this is entry 3 of the 6 of sandcast/"),
        "{told}"
    );
    fs::write(
        &path,
        proof.replace(r#"\"predictions\":1"#, r#"\"predictions\":9"#),
    )
    .expect("writes");
    assert!(rejected(&nowhere, &verify).contains("the entry in the proof was changed"));

    append(&state, 2);
    fs::write(&path, done(&state, &["prove", "--since-checkpoint", "6"])).expect("writes");
    let told = done(&nowhere, &verify);
    assert!(
        told.starts_with("proven: the first 6 of the 8 entries"),
        "{told}"
    );
    assert!(rejected(&state, &["prove", "9"]).contains("no checkpoint covers entry 9"));
    let told = rejected(&nowhere, &["verify", "--proof", text(&path)]);
    assert!(
        told.contains("a proof shows nothing without a key"),
        "{told}"
    );
}

#[test]
fn keys_are_rotated_and_replaced() {
    let (_folder, state) = state();
    let first = done(&state, &["key", "show"]).trim().to_owned();
    let second = done(&state, &["key", "rotate"]).trim().to_owned();
    assert_eq!(done(&state, &["key", "show"]).trim(), second);
    append(&state, 1);
    for key in [&first, &second] {
        done(&state, &["verify", "--key", key]);
    }
    assert!(rejected(&state, &["key", "new"]).contains("has a key already"));

    fs::remove_file(state.join("audit.key")).expect("removes");
    let told = rejected(&state, &["checkpoint"]);
    assert!(told.contains("sandcast audit key new --reason"), "{told}");
    let third = done(&state, &["key", "new", "--reason", "the disk died"]);
    let third = third.trim();
    let told = rejected(&state, &["verify", "--key", &second]);
    assert!(
        told.contains("REPLACED") && told.contains("the disk died"),
        "{told}"
    );
    done(&state, &["verify", "--key", &second, "--key", third]);
    let note = done(&state, &["checkpoint"]);
    assert!(
        note.starts_with("sandcast/") && note.contains("\n\u{2014} sandcast/"),
        "{note}"
    );
}

/// A recording of a policy, with rows beside it that only it refers to.
fn recorded(state: &Path, log: &AuditLog, number: u32) -> (Digest, Digest, PluginRef) {
    let recordings = Recordings::at(state.join("recordings"));
    let component = recordings.put(b"a component").expect("kept");
    let rows = recordings
        .put(format!("rows {number}").as_bytes())
        .expect("kept");
    let plugin = PluginRef {
        id: "acme/rules".to_owned(),
        version: "1.0.0".to_owned(),
        role: "validator".to_owned(),
        digest: component,
    };
    let recording = json!({
        "version": 1, "host": "0.1.0", "plugin": plugin, "name": "rules", "run": null,
        "stage": "validate", "grants": {}, "config": { "number": number }, "device": "cpu",
        "calls": [{
            "call": { "call": "check", "rows": rows },
            "outcome": { "outcome": "returned", "answer": [] },
            "host_calls": 0,
        }],
        "random": null, "host_calls": { "names": [], "runs": [] }, "answers": [],
    });
    let digest = recordings
        .put(recording.to_string().as_bytes())
        .expect("kept");
    Recording::read(&recordings, &digest).expect("a recording");
    log.append(Event::Recorded {
        run: None,
        plugin: plugin.clone(),
        stage: "validate".to_owned(),
        recording: digest,
        calls: 1,
        host_calls: 0,
        bytes: 1,
    })
    .expect("appends");
    (digest, rows, plugin)
}

#[test]
fn old_recordings_are_let_go_and_the_log_stays_whole() {
    let (folder, state) = state();
    let recordings = Recordings::at(state.join("recordings"));
    let log = AuditLog::open(&state.join("audit")).expect("opens");
    let (old, old_rows, plugin) = recorded(&state, &log, 1);
    std::thread::sleep(Duration::from_millis(1_100));
    let between = json(&state, &["show", "--json"]);
    let time = between
        .as_array()
        .and_then(|all| all.last())
        .expect("entries")["time"]
        .clone();
    let made: Timestamp = time.as_str().expect("a time").parse().expect("a time");
    let before = (made + Duration::from_millis(1_000)).to_string();
    let (young, young_rows, _) = recorded(&state, &log, 2);
    drop(log);

    let told = rejected(&state, &["forget", "--before", "2100-01-01"]);
    assert!(told.contains("is yet to come"), "{told}");
    let would = json(
        &state,
        &["forget", "--before", &before, "--dry-run", "--json"],
    );
    assert_eq!(
        (&would["recordings"], &would["files"]),
        (&1.into(), &2.into())
    );
    assert!(recordings.has(&old), "nothing is removed in a trial");

    let did = json(&state, &["forget", "--before", &before, "--json"]);
    assert_eq!((&did["recordings"], &did["files"]), (&1.into(), &2.into()));
    assert!(!recordings.has(&old) && !recordings.has(&old_rows));
    assert!(recordings.has(&young) && recordings.has(&young_rows));
    assert!(
        recordings.has(&plugin.digest),
        "a component is nobody's data"
    );
    let key = done(&state, &["key", "show"]).trim().to_owned();
    let export = folder.path().join("export");
    done(&state, &["export", text(&export), "--recordings"]);
    done(&state, &["verify", text(&export), "--key", &key]);
    let shown = json(&state, &["show", "--event", "recordings-removed", "--json"]);
    assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown}");
    // Again there is nothing to do, and nothing is said.
    let again = json(&state, &["forget", "--before", &before, "--json"]);
    assert_eq!(again["files"], 0);
    let shown = json(&state, &["show", "--event", "recordings-removed", "--json"]);
    assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown}");
}

#[test]
fn what_was_handed_over_with_an_export_is_held_against_the_log() {
    let (folder, state) = state();
    let log = AuditLog::open(&state.join("audit")).expect("opens");
    let (first, rows, plugin) = recorded(&state, &log, 1);
    recorded(&state, &log, 2);
    drop(log);
    let key = done(&state, &["key", "show"]).trim().to_owned();
    let export = folder.path().join("export");
    done(&state, &["export", text(&export), "--recordings"]);
    let verify = ["verify", text(&export), "--key", &key];
    let told = done(&state, &verify);
    assert!(told.contains("recordings: 2, in 5 files"), "{told}");
    let handed = Recordings::at(export.join("recordings"));

    for digest in [first, rows, plugin.digest] {
        let path = handed.path_of(&digest);
        let whole = fs::read(&path).expect("reads");
        let mut changed = whole.clone();
        changed[0] ^= 1;
        fs::write(&path, &changed).expect("writes");
        let told = rejected(&state, &verify);
        assert!(told.contains("is not what was recorded"), "{told}");
        assert!(told.contains(&digest.to_string()), "{told}");
        fs::write(&path, &whole).expect("writes");
    }
    fs::remove_file(handed.path_of(&rows)).expect("removes");
    let told = rejected(&state, &verify);
    assert!(told.contains("is not among the recordings"), "{told}");
    // One that is not there at all may have been taken away by the operator: it is told.
    fs::remove_file(handed.path_of(&first)).expect("removes");
    let output = run(&state, &verify);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(
        told.contains("the recordings of 1 entries are not here"),
        "{told}"
    );
}

/// What an auditor asks first, with an export and the key alone.
#[test]
fn an_export_says_what_a_plugin_could_do_did_and_who_allowed_it() {
    let (folder, state) = state();
    let log = AuditLog::open(&state.join("audit")).expect("opens");
    let plugin = |name: &str| PluginRef {
        id: format!("acme/{name}"),
        version: "1.0.0".to_owned(),
        role: "connector".to_owned(),
        digest: Digest::of(name.as_bytes()),
    };
    let run: sandcast_audit::RunId = "20261121-201530-4f3a9c".parse().expect("a run");
    let config = Digest::of(b"a configuration");
    let call = |action: &str, resource: &str, digest: Option<Digest>| Event::AccessDecided {
        principal: "ann".to_owned(),
        token: None,
        action: action.to_owned(),
        resource: resource.to_owned(),
        digest,
        allowed: true,
        policies: vec!["operators-manage".to_owned()],
        reasons: Vec::new(),
        policy_set: None,
        engine: None,
        recording: None,
    };
    let loaded = |name: &str, http: Value| Event::PluginLoaded {
        run: None,
        plugin: plugin(name),
        name: name.to_owned(),
        grants: json!({ "http": http }),
        ceiling: None,
        ceiling_signers: Vec::new(),
        signers: Vec::new(),
        identities: Vec::new(),
        trust: None,
        trust_signers: Vec::new(),
        imports: vec!["wasi:http/outgoing-handler@0.2.12".to_owned()],
    };
    let fetch = || (Some(run.clone()), plugin("fetch"), "connect web".to_owned());
    let (run_of, of, stage) = fetch();
    let effect = Event::Effect {
        run: run_of.clone(),
        plugin: of.clone(),
        stage: stage.clone(),
        capability: "http".to_owned(),
        action: "GET".to_owned(),
        target: "GET https://api.example.com/v1".to_owned(),
        digest: None,
        secret: Some("env:TOKEN".to_owned()),
    };
    for event in [
        call("run", "pipeline:line", Some(config)),
        Event::RunStarted {
            run: run.clone(),
            pipeline: "line".to_owned(),
            config,
        },
        loaded(
            "fetch",
            json!([{ "host": "api.example.com", "path": "/v1" }]),
        ),
        loaded("other", json!([])),
        effect,
    ] {
        log.append(event).expect("appends");
    }
    let number = 5 + 1 + 5;
    for event in [
        Event::EffectFinished {
            run: run_of.clone(),
            plugin: of.clone(),
            stage: stage.clone(),
            effect: number,
            outcome: "200".to_owned(),
            bytes_out: 0,
            bytes_in: 2048,
            seconds: 0.1,
        },
        Event::Denied {
            run: run_of.clone(),
            plugin: of.clone(),
            stage: stage.clone(),
            capability: "http".to_owned(),
            detail: "GET https://evil.example.com/".to_owned(),
            grant_with: "nothing".to_owned(),
        },
        Event::CallsFinished {
            run: run_of,
            plugin: of,
            stage,
            host_calls: [("http.handle".to_owned(), 2)].into(),
            host_use: Default::default(),
            bytes_in: 0,
            bytes_out: 0,
            guest_seconds: 0.5,
            peak_memory_bytes: 1 << 20,
            denials: 0,
            outcome: "finished".to_owned(),
        },
        Event::Registered {
            run: run.clone(),
            model: "line".to_owned(),
            version: 1,
            model_digest: config,
            lineage: config,
            document: None,
        },
        call("predict", "pipeline:line", None),
        Event::PluginRefused {
            name: "nightly".to_owned(),
            digest: Some(Digest::of(b"never")),
            reason: "nobody signed it".to_owned(),
        },
        Event::StandingChanged {
            plugin: plugin("fetch"),
            from: None,
            to: sandcast_audit::Standing::Trusted,
            throttled: false,
            accepts: true,
            operator: Some("bob".to_owned()),
            reason: "ticket 4711\n    99  2026-11-22 10:00:00  release approved by cleo".to_owned(),
            run: None,
            approval: None,
        },
    ] {
        log.append(event).expect("appends");
    }
    drop(log);
    let key = done(&state, &["key", "show"]).trim().to_owned();
    let export = folder.path().join("export");
    done(&state, &["export", text(&export)]);
    let from = ["--from", text(&export), "--key", &key];
    // Elsewhere, without the state.
    let nowhere = folder.path().join("nowhere");
    let ask = |arguments: &[&str]| done(&nowhere, &[arguments, &from[..]].concat());

    let told = ask(&["plugin", "acme/fetch"]);
    for said in [
        "GET HEAD https://api.example.com/v1",
        "wasi:http/outgoing-handler",
        "runs 1, instances 1",
        "http: GET https://api.example.com/v1, with env:TOKEN (0 B out, 2.00 KiB in)",
        "http: GET https://evil.example.com/",
        "ann: run pipeline:line allowed (by operators-manage)",
    ] {
        assert!(told.contains(said), "{said} in {told}");
    }
    assert!(!told.contains("acme/other"), "{told}");
    for what in [run.as_str(), "line@1"] {
        let all: Value = serde_json::from_str(&ask(&["plugin", what, "--json"])).expect("JSON");
        let ids: Vec<&str> = all
            .as_array()
            .expect("plugins")
            .iter()
            .filter_map(|it| it["plugin"]["id"].as_str())
            .collect();
        assert_eq!(ids, ["acme/fetch"], "{what}");
    }
    let told = rejected(
        &nowhere,
        &[
            &["plugin", "acme/fetch", "--since", "2100-01-01"],
            &from[..],
        ]
        .concat(),
    );
    assert!(told.contains("not in that time"), "{told}");

    // One that was refused whenever it was to be loaded, by what it is called or by its digest.
    let never = Digest::of(b"never").to_string();
    for what in ["nightly", never.as_str()] {
        let told = ask(&["plugin", what]);
        assert!(told.contains("nobody signed it"), "{told}");
        assert!(told.contains(&never), "{told}");
    }
    // Which run it was refused in is not on record.
    assert!(!ask(&["plugin", run.as_str()]).contains("nobody signed it"));
    // Words of others are no lines of their own.
    let told = ask(&["plugin", "acme/fetch"]);
    assert!(told.contains(r"ticket 4711\n"), "{told}");
    let forged = |line: &str| line.trim_start().starts_with("99 ");
    assert!(!told.lines().any(forged), "{told}");

    // A version is one of a model, and not of the pipeline that has its name.
    let who = ask(&["who", "line@1"]);
    assert!(who.contains("run pipeline:line allowed"), "{who}");
    assert!(!who.contains("predict pipeline:line"), "{who}");
    assert!(ask(&["who", "line"]).contains("predict pipeline:line"));
}

#[test]
fn an_export_that_begins_late_says_that_it_does() {
    let (folder, state) = state();
    let log = AuditLog::open(&state.join("audit")).expect("opens");
    let plugin = PluginRef {
        id: "acme/rules".to_owned(),
        version: "1.0.0".to_owned(),
        role: "validator".to_owned(),
        digest: Digest::of(b"rules"),
    };
    let trusted = |reason: &str| Event::StandingChanged {
        plugin: plugin.clone(),
        from: None,
        to: sandcast_audit::Standing::Trusted,
        throttled: false,
        accepts: false,
        operator: Some("bob".to_owned()),
        reason: reason.to_owned(),
        run: None,
        approval: None,
    };
    log.append(trusted("ticket 1")).expect("appends");
    std::thread::sleep(Duration::from_millis(2));
    let since = Timestamp::now().to_string();
    std::thread::sleep(Duration::from_millis(2));
    for event in [
        Event::CallsFinished {
            run: None,
            plugin: plugin.clone(),
            stage: "validate".to_owned(),
            host_calls: [("columns.read".to_owned(), 1)].into(),
            host_use: Default::default(),
            bytes_in: 0,
            bytes_out: 0,
            guest_seconds: 0.5,
            peak_memory_bytes: 1 << 20,
            denials: 0,
            outcome: "finished".to_owned(),
        },
        trusted("ticket 2"),
    ] {
        log.append(event).expect("appends");
    }
    drop(log);
    let key = done(&state, &["key", "show"]).trim().to_owned();
    let (whole, late) = (folder.path().join("whole"), folder.path().join("late"));
    done(&state, &["export", text(&whole)]);
    let exported = json(
        &state,
        &["export", text(&late), "--since", &since, "--json"],
    );
    assert_eq!(exported["first"], 8);
    // How it came to be trusted, and how the plugin of the run before was loaded.
    let earlier = exported["earlier"].as_u64();
    assert!(earlier.is_some_and(|earlier| earlier >= 1), "{exported}");

    let nowhere = folder.path().join("nowhere");
    for what in ["plugin", "who"] {
        for (export, begins) in [(&whole, 1), (&late, 8)] {
            let arguments = [what, "acme/rules", "--from", text(export), "--key", &key];
            let told = run(&nowhere, &arguments);
            assert_eq!(told.status.code(), Some(0), "{told:?}");
            let noted = String::from_utf8_lossy(&told.stderr).into_owned();
            assert_eq!(
                noted.contains("this export begins with entry 8: of those before it"),
                begins == 8,
                "{noted}"
            );
            let said = String::from_utf8_lossy(&told.stdout).into_owned();
            assert!(said.contains("ticket 2"), "{said}");
            assert!(said.contains("ticket 1"), "it goes along: {said}");
            let all = json(&nowhere, &[&arguments[..], &["--json"]].concat());
            assert_eq!(all[0]["record_begins"], begins, "{all}");
        }
    }
}

#[test]
fn old_entries_leave_for_an_archive_and_everything_still_checks() {
    let (folder, state) = state();
    let log = AuditLog::open(&state.join("audit")).expect("opens");
    for number in 0..300 {
        log.append(Event::PluginRefused {
            name: format!("plugin-{number}"),
            digest: None,
            reason: "not signed".to_owned(),
        })
        .expect("appends");
    }
    let head = log.checkpoint().expect("signs");
    let kept = folder.path().join("checkpoint");
    fs::write(&kept, head.text()).expect("writes");
    std::thread::sleep(Duration::from_millis(2));
    let before = Timestamp::now().to_string();
    std::thread::sleep(Duration::from_millis(2));
    drop(log);

    let archive = folder.path().join("archive");
    let told = rejected(
        &state,
        &["archive", text(&archive), "--before", "2020-01-01"],
    );
    assert!(told.contains("no 256 entries"), "{told}");
    let asked = || json(&state, &["show", "--event", "access-decided", "--json"]);
    assert_eq!(
        asked(),
        serde_json::json!([]),
        "nobody was asked for nothing"
    );
    let would = json(
        &state,
        &["archive", "--before", &before, "--dry-run", "--json"],
    );
    assert_eq!((&would["first"], &would["last"]), (&1.into(), &256.into()));
    assert_eq!(would["archived"], false);
    assert!(!archive.exists(), "nothing is done in a trial");

    let did = json(
        &state,
        &["archive", text(&archive), "--before", &before, "--json"],
    );
    assert_eq!(asked()[0]["event"]["action"], "log-archive");
    assert_eq!(
        (&did["last"], &did["archived"]),
        (&256.into(), &true.into())
    );
    let key = done(&state, &["key", "show"]).trim().to_owned();
    done(&state, &["verify", "--checkpoint", text(&kept)]);
    done(&state, &["verify", text(&archive), "--key", &key]);
    let shown = json(&state, &["show", "--event", "entries-archived", "--json"]);
    assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown}");
    let whole = done(&state, &["verify"]);
    assert!(whole.contains("entries 257 to"), "{whole}");

    // What an entry said is shown from where it is, to whom has the key.
    let from = [
        "show",
        "--from",
        text(&archive),
        "--key",
        &key,
        "--all",
        "--json",
    ];
    let shown = json(&state, &from);
    assert_eq!(shown.as_array().map(Vec::len), Some(256), "{shown}");
    let other = LogKey::generate("sandcast/other").expect("a key");
    let other = other.verifier().to_string();
    rejected(&state, &["show", "--from", text(&archive), "--key", &other]);
    let told = rejected(&state, &["archive", "x", "--before", "2100-01-01"]);
    assert!(told.contains("is yet to come"), "{told}");
    // An entry is proven from where it is.
    let told = rejected(&state, &["prove", "7"]);
    assert!(told.contains("archived"), "{told}");
    let proof = folder.path().join("proof.json");
    let printed = done(&state, &["prove", "7", "--from", text(&archive)]);
    fs::write(&proof, printed).expect("writes");
    done(&state, &["verify", "--proof", text(&proof), "--key", &key]);
    // The archive is not written over.
    let told = rejected(&state, &["archive", text(&archive), "--before", &before]);
    assert!(told.contains("no 256 entries"), "{told}");
}

/// The files of a folder, in another.
fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for file in fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file");
        match file.file_type().expect("a kind").is_dir() {
            true => copied(&file.path(), &to.join(file.file_name())),
            false => _ = fs::copy(file.path(), to.join(file.file_name())).expect("copies"),
        }
    }
}

#[test]
fn what_nobody_signed_is_not_read_as_if_somebody_had() {
    let (folder, state) = state();
    let key = done(&state, &["key", "show"]).trim().to_owned();
    let handed = folder.path().join("handed");
    copied(&state.join("audit"), &handed.join("signed"));
    // It takes no key to write an entry after the last that is signed.
    let log = AuditLog::open(&state.join("audit")).expect("opens");
    recorded(&state, &log, 1);
    copied(&state.join("audit"), &handed.join("longer"));
    drop(log);

    let nowhere = folder.path().join("nowhere");
    let (signed, longer) = (handed.join("signed"), handed.join("longer"));
    for what in [&["show"][..], &["who", "acme/rules"]] {
        let read = |folder: &Path| {
            let from = ["--from", text(folder), "--key", &key];
            run(&nowhere, &[what, &from].concat())
        };
        let refused = read(&longer);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            told.contains("entries 7 to 7 are signed by nobody") && told.contains("audit export"),
            "{told}"
        );
        // Nobody is called by that name in the other, and it is read.
        let told = String::from_utf8_lossy(&read(&signed).stderr).into_owned();
        assert!(told.contains("all of them signed"), "{told}");
    }
    let replayed = Command::new(env!("CARGO_BIN_EXE_sandcast"))
        .args(["replay", "--from", text(&longer), "--key", &key])
        .env("SANDCAST_STATE", &nowhere)
        .output()
        .expect("the program starts");
    let told = String::from_utf8_lossy(&replayed.stderr).into_owned();
    assert_eq!(replayed.status.code(), Some(1), "{told}");
    assert!(told.contains("signed by nobody"), "{told}");
}

#[test]
fn a_key_that_was_handed_over_with_a_log_vouches_for_nothing() {
    let (folder, state) = state();
    let handed = folder.path().join("handed");
    copied(&state, &handed);
    let nowhere = folder.path().join("nowhere");
    for log in [&handed, &handed.join("audit")] {
        let report = json(&nowhere, &["verify", text(log), "--json"]);
        assert_eq!(
            (&report["key_from"], &report["is_trusted"]),
            (&"log".into(), &false.into())
        );
    }
    let own = json(&state, &["verify", text(&state), "--json"]);
    assert_eq!(
        (&own["key_from"], &own["is_trusted"]),
        (&"state".into(), &true.into())
    );
}

#[test]
fn words_in_a_log_cannot_paint_over_what_is_said_of_it() {
    let (folder, state) = state();
    let key = done(&state, &["key", "show"]).trim().to_owned();
    let reason = "lost\u{1b}[1A\u{1b}[2K\nwhole: 7 entries, each chained";
    AuditLog::replace_key(&state.join("audit"), reason, Vec::new()).expect("replaced");
    let handed = folder.path().join("handed");
    copied(&state.join("audit"), &handed);
    let nowhere = folder.path().join("nowhere");
    let told = rejected(&nowhere, &["verify", text(&handed), "--key", &key]);
    assert!(
        told.contains("was REPLACED by") && !told.contains('\u{1b}'),
        "{told}"
    );
    assert!(
        !told.lines().any(|line| line.trim().starts_with("whole")),
        "{told}"
    );
    let shown = done(&state, &["show", "--event", "key-replaced"]);
    assert!(shown.contains(r"lost\u{1b}[1A\u{1b}[2K\nwhole"), "{shown}");
}
