//! Whole commands against what they print. `TRYCMD=overwrite cargo test -p sandcast --test cli commands`
//! writes the expectations anew; the difference is for a person to read.

#[test]
fn commands_print_what_is_expected() {
    trycmd::TestCases::new()
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .env(
            "SANDCAST_STATE",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/commands"),
        )
        .case("tests/cmd/*.trycmd");
}
