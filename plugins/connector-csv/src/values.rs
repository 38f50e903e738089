//! Text into values, and the type of a column from its values.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::fmt::strtime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use sandcast_sdk::Kind;

static ISO: DateTimeParser = DateTimeParser::new();

const EPOCH: Date = Date::constant(1970, 1, 1);

pub(crate) fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// Days since 1970-01-01, from ISO 8601 or a format of strftime's.
pub(crate) fn date32(text: &str, format: Option<&str>) -> Option<i32> {
    let date = match format {
        None => iso_date(text)?,
        Some(format) => strtime::parse(format, text)
            .and_then(|time| time.to_date())
            .ok()?,
    };
    i32::try_from(date.duration_since(EPOCH).as_hours() / 24).ok()
}

/// Microseconds since 1970-01-01T00:00:00Z; a time without a zone is one of UTC.
pub(crate) fn timestamp_us(text: &str, format: Option<&str>) -> Option<i64> {
    let in_utc = |time: DateTime| TimeZone::UTC.to_timestamp(time).ok();
    let time: Timestamp = match format {
        None if is_iso(text) => ISO
            .parse_timestamp(text)
            .ok()
            .or_else(|| in_utc(ISO.parse_datetime(text).ok()?))?,
        None => return None,
        Some(format) => {
            let time = strtime::parse(format, text).ok()?;
            time.to_timestamp()
                .ok()
                .or_else(|| in_utc(time.to_datetime().ok()?))?
        }
    };
    Some(time.as_microsecond())
}

fn iso_date(text: &str) -> Option<Date> {
    if text.len() != 10 || !is_iso(text) {
        return None;
    }
    ISO.parse_date(text).ok()
}

/// `YYYY-MM-DD` first: the parser takes more forms than anybody should meet in a file.
fn is_iso(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 10
        && bytes[..10]
            .iter()
            .enumerate()
            .all(|(place, byte)| match place {
                4 | 7 => *byte == b'-',
                _ => byte.is_ascii_digit(),
            })
}

/// Looks like a number a person would write: no `inf`, no `nan`.
fn starts_as_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits
        .strip_prefix('.')
        .unwrap_or(digits)
        .starts_with(|first: char| first.is_ascii_digit())
}

/// `007` names something; it does not count anything.
fn has_leading_zero(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text).as_bytes();
    digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit()
}

fn is_whole(text: &str) -> bool {
    text.strip_prefix(['-', '+'])
        .unwrap_or(text)
        .bytes()
        .all(|byte| byte.is_ascii_digit())
}

/// What a column's values can all be read as so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guess {
    seen: bool,
    int64: bool,
    float64: bool,
    boolean: bool,
    date32: bool,
    timestamp_us: bool,
}

impl Default for Guess {
    fn default() -> Self {
        Self {
            seen: false,
            int64: true,
            float64: true,
            boolean: true,
            date32: true,
            timestamp_us: true,
        }
    }
}

impl Guess {
    /// Takes a value that is not missing into account.
    pub(crate) fn observe(&mut self, text: &str) {
        self.seen = true;
        if self.int64 || self.float64 {
            let number = starts_as_number(text) && !has_leading_zero(text);
            let fits = text.parse::<i64>().is_ok();
            self.int64 &= number && fits;
            // A whole number too large for int64 would lose digits as float64.
            self.float64 &= number
                && (fits || !is_whole(text))
                && text.parse::<f64>().is_ok_and(f64::is_finite);
        }
        self.boolean = self.boolean && boolean(text).is_some();
        self.date32 = self.date32 && date32(text, None).is_some();
        self.timestamp_us = self.timestamp_us && !self.date32 && timestamp_us(text, None).is_some();
    }

    /// What the values of both can be read as.
    pub(crate) fn join(&mut self, other: Self) {
        if !self.seen {
            *self = other;
        } else if other.seen {
            self.int64 &= other.int64;
            self.float64 &= other.float64;
            self.boolean &= other.boolean;
            self.date32 &= other.date32;
            self.timestamp_us &= other.timestamp_us;
        }
    }

    /// The narrowest type; text where nothing was seen.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self { seen: false, .. } => Kind::Utf8,
            Self { int64: true, .. } => Kind::Int64,
            Self { float64: true, .. } => Kind::Float64,
            Self { boolean: true, .. } => Kind::Boolean,
            Self { date32: true, .. } => Kind::Date32,
            Self {
                timestamp_us: true, ..
            } => Kind::TimestampUs,
            _ => Kind::Utf8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(values: &[&str]) -> Kind {
        let mut guess = Guess::default();
        for value in values {
            guess.observe(value);
        }
        guess.kind()
    }

    #[test]
    fn the_narrowest_type_that_fits_all() {
        assert_eq!(kind(&["1", "-2", "+3"]), Kind::Int64);
        assert_eq!(kind(&["1", "2.5", "1e3", ".5"]), Kind::Float64);
        assert_eq!(kind(&["true", "FALSE"]), Kind::Boolean);
        assert_eq!(kind(&["2024-02-29", "1969-12-31"]), Kind::Date32);
        assert_eq!(
            kind(&["2024-02-29T10:00:00Z", "2024-02-29 10:00:00"]),
            Kind::TimestampUs
        );
        assert_eq!(kind(&["1", "x"]), Kind::Utf8);
        assert_eq!(kind(&[]), Kind::Utf8);
    }

    #[test]
    fn names_that_look_like_numbers_stay_text() {
        assert_eq!(kind(&["007", "012"]), Kind::Utf8);
        assert_eq!(kind(&["12345678901234567890"]), Kind::Utf8);
        assert_eq!(kind(&["nan", "inf"]), Kind::Utf8);
        assert_eq!(kind(&["0", "0.5"]), Kind::Float64);
        assert_eq!(kind(&["2024-02-30"]), Kind::Utf8);
        assert_eq!(kind(&["yes", "no"]), Kind::Utf8);
        assert_eq!(kind(&["1", "true"]), Kind::Utf8);
        assert_eq!(kind(&["2024-01-01", "2024-01-01T00:00:00Z"]), Kind::Utf8);
    }

    #[test]
    fn files_join_to_the_wider_type() {
        let guess = |values: &[&str]| {
            let mut guess = Guess::default();
            values.iter().for_each(|value| guess.observe(value));
            guess
        };
        let mut joined = guess(&["1"]);
        joined.join(guess(&["2.5"]));
        assert_eq!(joined.kind(), Kind::Float64);
        joined.join(guess(&[]));
        assert_eq!(joined.kind(), Kind::Float64);
        let mut late = guess(&[]);
        late.join(guess(&["true"]));
        assert_eq!(late.kind(), Kind::Boolean);
        late.join(guess(&["2"]));
        assert_eq!(late.kind(), Kind::Utf8);
    }

    #[test]
    fn dates_and_times_count_from_the_epoch() {
        assert_eq!(date32("1970-01-02", None), Some(1));
        assert_eq!(date32("1969-12-31", None), Some(-1));
        assert_eq!(date32("29.02.2024", Some("%d.%m.%Y")), Some(19_782));
        assert_eq!(date32("30.02.2024", Some("%d.%m.%Y")), None);
        assert_eq!(
            timestamp_us("1970-01-01T00:00:01.5Z", None),
            Some(1_500_000)
        );
        assert_eq!(timestamp_us("1970-01-01T01:00:00+01:00", None), Some(0));
        assert_eq!(timestamp_us("1970-01-01 00:00:01", None), Some(1_000_000));
        assert_eq!(timestamp_us("1", Some("%s")), Some(1_000_000));
        assert_eq!(
            timestamp_us("02/01/70 03:00", Some("%d/%m/%y %H:%M")),
            Some(97_200_000_000)
        );
        assert_eq!(timestamp_us("20240101", None), None);
    }
}
