//! Which keys and prefixes there are. One place, for what plugins name and for what stores answer.

/// Bytes of a whole key, as S3 bounds it.
pub(super) const MAX_KEY_BYTES: usize = 1024;

/// Bytes of one part of it, as file systems bound a name.
const MAX_PART_BYTES: usize = 255;

/// Parts of it, which are folders of a folder.
pub(super) const MAX_PARTS: usize = 64;

/// What the files begin with that the host is still writing.
pub(super) const UNFINISHED: &str = ".sandcast-";

/// What is wrong with a key, after "a key ".
pub(super) fn check_key(key: &str) -> Result<(), &'static str> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err("has 1 to 1024 bytes");
    }
    if key.chars().any(|c| c.is_control() || c == '\\') {
        return Err("has no control character and no backslash");
    }
    let mut parts = 0;
    for part in key.split('/') {
        parts += 1;
        if part.is_empty() {
            return Err("has no empty part: no slash first, last or after another");
        }
        if part == "." || part == ".." {
            return Err("has no part `.` or `..`");
        }
        if part.len() > MAX_PART_BYTES || parts > MAX_PARTS {
            return Err("has at most 64 parts of at most 255 bytes");
        }
        if part.starts_with(UNFINISHED) {
            return Err("has no part that begins with `.sandcast-`, which is the host's own");
        }
    }
    Ok(())
}

/// What is wrong with a prefix, after "a prefix ": it is empty, or a key and a slash, so that `raw/` covers
/// `raw/a` and not `raw-secret`.
pub(super) fn check_prefix(prefix: &str) -> Result<(), &'static str> {
    if prefix.is_empty() {
        return Ok(());
    }
    match prefix.strip_suffix('/') {
        None => Err("ends with a slash, or is empty"),
        Some(key) => check_key(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_parts_between_slashes_and_leads_nowhere_else() {
        for key in [
            "a",
            "a/b.csv",
            "raw/2026/ä ö.csv",
            "a..b/...",
            "%2e%2e/x",
            "-",
            ".hidden/x",
            "a b?c#d",
        ] {
            check_key(key).expect(key);
            check_prefix(&format!("{key}/")).expect(key);
            assert!(check_prefix(key).is_err(), "{key}");
        }
        check_prefix("").expect("all of it");
        let long = "x".repeat(256);
        let deep = "x/".repeat(64) + "x";
        let much = format!("{}/{}", "x/".repeat(4), vec!["x".repeat(250); 5].join("/"));
        for key in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "..",
            ".",
            "a/../b",
            "../a",
            "a/..",
            "./a",
            "a/.",
            "a\\b",
            "a\0b",
            "a\nb",
            "\u{7f}",
            "a\u{85}",
            ".sandcast-1",
            "a/.sandcast-x/b",
            &long,
            &deep,
            &much,
        ] {
            assert!(check_key(key).is_err(), "{key:?}");
            if !key.is_empty() {
                assert!(check_prefix(&format!("{key}/")).is_err(), "{key:?}/");
            }
        }
        check_key(&"x".repeat(255)).expect("a part at its bound");
        check_key(&("x/".repeat(63) + "x")).expect("parts at their bound");
    }
}
