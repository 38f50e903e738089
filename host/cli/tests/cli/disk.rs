//! A disk that takes no more, anywhere in a run: the run ends with an error that says so, what is
//! there is whole, and the next run goes on.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Command, Output};

use crate::program::{output, repository, sandcast};

/// What a file may grow to, in blocks of 512 bytes: from hardly anything to nearly everything.
const LIMITS: [u32; 7] = [1, 16, 64, 160, 320, 640, 1280];

/// Runs the example with files that grow no further. A write past that fails like one to a full
/// disk once the signal that comes with it is ignored.
fn run_within(blocks: u32, state: &Path) -> Output {
    let limited = r#"trap "" XFSZ; ulimit -f "$1"; shift; exec "$@""#;
    let run = sandcast(state, &["run", "examples/credit-risk"]);
    Command::new("sh")
        .args(["-c", limited, "sh", &blocks.to_string()])
        .arg(run.get_program())
        .args(run.get_args())
        .current_dir(repository())
        .output()
        .expect("a shell")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_on_a_disk_that_fills_up_ends_clearly_and_is_taken_up_again() {
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disk");
    if state.exists() {
        std::fs::remove_dir_all(&state).expect("the state of an earlier test can be removed");
    }
    // Once without a limit, for the compiled plugins; the rest is thrown away.
    let whole = output(&state, &["run", "--build", "examples/credit-risk"]);
    assert!(whole.status.success(), "{}", told(&whole));
    for entry in std::fs::read_dir(&state).expect("the state") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name == "cache") {
            continue;
        }
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.expect("the state can be removed");
    }
    let mut stopped = 0;
    for blocks in LIMITS {
        let limited = run_within(blocks, &state);
        let said = told(&limited);
        assert!(!said.contains("panicked"), "{blocks}: {said}");
        if limited.status.success() {
            continue;
        }
        stopped += 1;
        assert!(limited.status.code().is_some(), "{blocks}: {said}");
        assert!(said.contains("error: "), "{blocks}: {said}");
    }
    assert!(stopped >= 3, "only {stopped} of the limits stopped a run");
    let again = output(&state, &["run", "examples/credit-risk"]);
    assert!(again.status.success(), "{}", told(&again));
    let verified = output(&state, &["audit", "verify"]);
    assert!(verified.status.success(), "{}", told(&verified));
}

#[test]
fn a_state_folder_that_cannot_be_written_is_named() {
    // Nobody can make a folder here, whoever runs the test.
    let state = Path::new("/proc/sandcast");
    let refused = output(state, &["run", "examples/credit-risk"]);
    assert_ne!(refused.status.code(), Some(0));
    let told = told(&refused);
    assert!(
        told.contains("/proc/sandcast") && told.contains("--state"),
        "{told}"
    );
}
