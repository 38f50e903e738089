//! Numbers and names as a reader likes them.

use maud::{Markup, html};

/// A whole number in groups of three.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`.
pub(super) fn counted(number: u64, singular: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {singular}{s}", count(number))
}

/// A share as a percentage, with a decimal where it is small.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    share(part as f64 / whole as f64)
}

/// A number from 0 to 1 as a percentage. What is not quite none or all never looks like it.
pub(super) fn share(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 0.1 {
        "< 0.1%".to_owned()
    } else if percent < 100.0 && percent > 99.9 {
        "> 99.9%".to_owned()
    } else if (percent - percent.round()).abs() < 1e-9 {
        format!("{percent:.0}%")
    } else {
        format!("{percent:.1}%")
    }
}

/// A metric or another small number, to four decimals.
pub(super) fn score(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value != 0.0 && value.abs() < 0.000_1 => format!("{value:.1e}"),
        Some(value) if value.abs() >= 10_000.0 => compact(value),
        Some(value) => format!("{value:.4}"),
    }
}

/// The same to three decimals, where space is short.
pub(super) fn short_score(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.3}"))
}

/// A difference with its sign.
pub(super) fn signed(difference: f64) -> String {
    if difference.abs() < 0.000_05 {
        "±0.0000".to_owned()
    } else if difference < 0.0 {
        format!("−{:.4}", -difference)
    } else {
        format!("+{difference:.4}")
    }
}

/// Any number in few characters.
pub(super) fn compact(value: f64) -> String {
    let size = value.abs();
    let (scaled, suffix) = match size {
        _ if size >= 1e9 => (value / 1e9, "G"),
        _ if size >= 1e6 => (value / 1e6, "M"),
        _ if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = if scaled == scaled.trunc() {
        format!("{scaled:.0}")
    } else if scaled.abs() >= 100.0 {
        format!("{scaled:.1}")
    } else if scaled.abs() >= 0.01 {
        format!("{scaled:.2}")
    } else {
        format!("{scaled:.1e}")
    };
    text + suffix
}

/// Bytes in binary units.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Seconds, in the unit that suits them.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        "–".to_owned()
    } else if seconds < 0.001 {
        format!("{:.0} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else if seconds < 3600.0 {
        format!(
            "{} min {:02} s",
            (seconds / 60.0) as u64,
            seconds as u64 % 60
        )
    } else {
        format!(
            "{} h {:02} min",
            (seconds / 3600.0) as u64,
            (seconds / 60.0) as u64 % 60
        )
    }
}

/// A text from data, cut to a bound.
pub(super) fn clip(text: &str, longest: usize) -> String {
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(longest).collect();
    if characters.next().is_some() {
        format!("{}…", start.trim_end())
    } else {
        start
    }
}

/// The longest text that a cell shows.
pub(super) const CELL: usize = 160;

/// The first characters of a digest, the whole of it on hovering.
pub(super) fn digest(digest: &str) -> Markup {
    html! {
        @if digest.is_empty() { span.faint { "–" } }
        @else { code title=(clip(digest, 128)) { (short_digest(digest)) } }
    }
}

pub(super) fn short_digest(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// A line below a list that was cut.
pub(super) fn and_more(shown: usize, all: usize, what: &str) -> Markup {
    html! {
        @if all > shown { p.more { "and " (count((all - shown) as u64)) " more " (what) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(score(Some(0.912_34)), "0.9123");
        assert_eq!(score(Some(0.000_012)), "1.2e-5");
        assert_eq!(score(None), "–");
        assert_eq!(signed(-0.01), "−0.0100");
        assert_eq!(signed(0.0), "±0.0000");
        assert_eq!(compact(48_300.0), "48.30k");
        assert_eq!(compact(-2.5), "-2.50");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(3 << 20), "3.0 MiB");
        assert_eq!(duration(0.000_2), "200 µs");
        assert_eq!(duration(75.9), "1 min 15 s");
        assert_eq!(duration(f64::NAN), "–");
    }

    #[test]
    fn almost_none_is_not_none() {
        assert_eq!(percent(0, 100_000), "0%");
        assert_eq!(percent(1, 100_000), "< 0.1%");
        assert_eq!(percent(99_999, 100_000), "> 99.9%");
        assert_eq!(percent(1, 3), "33.3%");
        assert_eq!(percent(0, 0), "–");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(clip("ärger", 3), "ärg…");
        assert_eq!(clip("ärger", 5), "ärger");
    }
}
