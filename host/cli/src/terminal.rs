//! What a terminal is given to show. Words of plugins, logs and data reach it too, so what would move
//! its cursor, hide text or turn its direction is shown as what it is.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Text of several lines, with the colours that this program gives it.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    filtered(text, true, true)
}

/// The same as one line: a cell of a table.
pub(crate) fn cell(text: &str) -> Cow<'_, str> {
    filtered(text, false, true)
}

/// Words of others, as one line and in no colour: black on black could not be read, and green says that
/// all is well.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    filtered(text, false, false)
}

/// JSON, which leaves some of these characters in its strings as they are.
pub(crate) fn json(text: String) -> String {
    if !text.chars().any(|c| c != '\n' && is_unseen(c)) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for c in text.chars() {
        match c {
            '\n' => escaped.push(c),
            // All of them are below 2^16.
            c if is_unseen(c) => _ = write!(escaped, "\\u{:04x}", u32::from(c)),
            c => escaped.push(c),
        }
    }
    escaped
}

fn filtered(text: &str, lines: bool, colours: bool) -> Cow<'_, str> {
    let is_fine = |c: char| !is_unseen(c) || (lines && matches!(c, '\n' | '\t'));
    if text.chars().all(is_fine) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(length) = colour(rest).filter(|_| colours) {
            let (code, after) = rest.split_at(length);
            kept.push_str(code);
            rest = after;
            continue;
        }
        match is_fine(c) {
            true => kept.push(c),
            // Writing to a String cannot fail.
            false => _ = write!(kept, "{}", c.escape_default()),
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(kept)
}

/// The bytes of a code at the start that sets a colour or a weight, and does not simply hide.
fn colour(text: &str) -> Option<usize> {
    let codes = text.strip_prefix("\u{1b}[")?;
    let length = codes.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    let codes = codes.get(..length + 1)?.strip_suffix('m')?;
    let hides = codes
        .split(';')
        .any(|code| code.trim_start_matches('0') == "8");
    (!hides).then_some("\u{1b}[".len() + length + 1)
}

/// Control characters, and those that turn the direction of text or end a line.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_move_the_cursor_hide_or_turn_is_seen() {
        let forged = "no\u{1b}[1A\u{1b}[2Kwhole\u{1b}[8m\u{9b}2J\rx\u{202e}y\u{7}";
        let seen = shown(forged);
        assert_eq!(
            seen,
            r"no\u{1b}[1A\u{1b}[2Kwhole\u{1b}[8m\u{9b}2J\rx\u{202e}y\u{7}"
        );
        assert_eq!(shown("a\tb\nc"), "a\tb\nc");
        assert_eq!(one_line("a\nb"), r"a\nb");
        assert_eq!(shown("a \u{1b}"), r"a \u{1b}", "cut off");
        assert_eq!(shown("\u{1b}[0;08mx"), r"\u{1b}[0;08mx");
    }

    #[test]
    fn colours_stay() {
        let green = "\u{1b}[32m\u{1b}[1mwhole\u{1b}[0m: ä, \u{1b}[38;5;208mo\u{1b}[m";
        assert_eq!(shown(green), green);
        assert_eq!(cell(green), green);
    }

    #[test]
    fn words_of_others_have_no_colour() {
        assert_eq!(
            one_line("a\u{1b}[30;40mb\nc\u{1b}[0m"),
            r"a\u{1b}[30;40mb\nc\u{1b}[0m"
        );
        assert_eq!(cell("a\nb"), r"a\nb");
    }

    #[test]
    fn json_says_the_same_without_them() {
        let value = serde_json::json!({ "a\u{202e}": "\u{9b}2J\u{7f} ä\n" });
        let text = serde_json::to_string_pretty(&value).expect("JSON");
        let safe = json(text);
        assert!(safe.chars().all(|c| c == '\n' || !is_unseen(c)), "{safe}");
        let read: serde_json::Value = serde_json::from_str(&safe).expect("JSON");
        assert_eq!(read, value);
    }
}
