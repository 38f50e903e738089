//! The stories of `examples/` against what they print. Volatile parts are elided with `[..]`.

use std::path::Path;

#[test]
fn every_example_tells_its_story() {
    // Commands in a story are as in its README: from the root of the repository.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::set_current_dir(&root).expect("the repository has a root");
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples");
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
    stories.case("examples/*/expected/*.trycmd");
}
