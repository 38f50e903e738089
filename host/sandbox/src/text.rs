//! Text that came from a guest, made fit to be shown.

use std::borrow::Cow;
use std::fmt::Write;

/// At most so many bytes of a text, with a mark where it was cut, and control characters made
/// visible: a guest can neither flood a terminal nor drive it.
pub fn sentence(text: &str, max_bytes: usize) -> String {
    let (kept, cut) = cut(text, max_bytes);
    let mut shown = visible(kept).into_owned();
    if cut {
        shown.push('…');
    }
    shown
}

/// At most so many bytes of a text, on a character's edge; and whether something was cut off.
pub(crate) fn cut(text: &str, max_bytes: usize) -> (&str, bool) {
    if text.len() <= max_bytes {
        return (text, false);
    }
    (&text[..text.floor_char_boundary(max_bytes)], true)
}

/// Control characters as escapes, also those that turn the direction of text.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_invisible) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_invisible(c) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "{}", c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

pub(crate) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_on_a_characters_edge() {
        assert_eq!(sentence("äöü", 3), "ä…");
        assert_eq!(sentence("äöü", 6), "äöü");
        assert_eq!(sentence("abc", 0), "…");
    }

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(sentence("a\x1b[31mb\nc", 100), "a\\u{1b}[31mb\\nc");
        assert_eq!(sentence("evil\u{202e}txt", 100), "evil\\u{202e}txt");
        assert!(matches!(visible("plain ü text"), Cow::Borrowed(_)));
    }
}
