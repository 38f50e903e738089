//! The stories of `examples/` against what they print. Volatile parts are elided with `[..]`.
//!
//! Apart from the other tests of the program, for it goes to the root of the repository.

use std::path::Path;

#[test]
fn every_example_tells_its_story() {
    // Commands in a story are as in its README: from the root of the repository.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::set_current_dir(&root).expect("the repository has a root");
    let mut stories: Vec<_> = std::fs::read_dir("examples")
        .expect("there are examples")
        .map(|entry| entry.expect("an example").path().join("expected"))
        .filter(|folder| folder.is_dir())
        .collect();
    stories.sort();
    assert!(!stories.is_empty());
    for folder in stories {
        tell(&folder);
    }
}

/// Runs the stories of one example, one run at a time on a state folder of their own.
fn tell(folder: &Path) {
    let name = folder.parent().and_then(Path::file_name);
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples");
    let state = state.join(name.expect("an example has a name"));
    if state.exists() {
        std::fs::remove_dir_all(&state).expect("the state of an earlier test can be removed");
    }
    let stories = trycmd::TestCases::new();
    stories
        .env("SANDCAST_STATE", state.display().to_string())
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .env("CI", "true");
    stories
        .insert_var("[STATE]", state.display().to_string())
        .expect("the name is in capitals");
    stories.case(folder.join("*.trycmd"));
}
