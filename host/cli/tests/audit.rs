//! An operator and an auditor who trusts nobody, with the program itself: keys, checkpoints, an
//! export that is carried away, proofs, and what a forger would have to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sandcast_audit::{AuditLog, Event};
use serde_json::Value;

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
