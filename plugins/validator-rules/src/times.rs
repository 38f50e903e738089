//! Dates, timestamps and durations, as they stand in a configuration and in a message.

use jiff::civil::Date;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

const UNIX_EPOCH: Date = Date::constant(1970, 1, 1);

/// Days since 1970-01-01 of `2024-02-29`; nothing else is a date.
pub(crate) fn parse_date(text: &str) -> Option<i32> {
    let date: Date = (text.len() == 10).then(|| text.parse().ok()).flatten()?;
    Some(date.duration_since(UNIX_EPOCH).as_hours() as i32 / 24)
}

/// Microseconds since 1970-01-01T00:00:00Z of a time as in RFC 3339.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    text.parse::<Timestamp>()
        .ok()
        .map(Timestamp::as_microsecond)
}

/// The same, of a time or of the first moment of a date in UTC.
pub(crate) fn parse_date_or_timestamp(text: &str) -> Option<i64> {
    parse_date(text)
        .map(date_in_microseconds)
        .or_else(|| parse_timestamp(text))
}

/// The first moment of a day in UTC, in microseconds.
pub(crate) fn date_in_microseconds(days: i32) -> i64 {
    i64::from(days) * 86_400_000_000
}

/// A duration such as `24h`, `7d`, `1h 30m` or `PT24H`; a day has 24 hours.
pub(crate) fn parse_duration(text: &str) -> Option<SignedDuration> {
    let span: Span = text.parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

pub(crate) fn show_date(days: i32) -> String {
    match UNIX_EPOCH.checked_add(SignedDuration::from_hours(i64::from(days) * 24)) {
        Ok(date) => date.to_string(),
        Err(_) => format!("day {days}"),
    }
}

pub(crate) fn show_timestamp(microseconds: i64) -> String {
    match Timestamp::from_microsecond(microseconds) {
        Ok(timestamp) => timestamp.to_string(),
        Err(_) => format!("microsecond {microseconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days() {
        assert_eq!(parse_date("1970-01-02"), Some(1));
        assert_eq!(parse_date("1969-12-31"), Some(-1));
        assert_eq!(parse_date("2024-02-29"), Some(19_782));
        for wrong in [
            "2023-02-29",
            "24-02-29",
            "2024-2-9",
            "2024-02-29T00:00",
            "",
            "2024/02/29",
        ] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
        assert_eq!(show_date(19_782), "2024-02-29");
        assert_eq!(show_date(i32::MAX), format!("day {}", i32::MAX));
    }

    #[test]
    fn timestamps_need_an_offset() {
        assert_eq!(parse_timestamp("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse_timestamp("1970-01-01T00:00:01.5Z"), Some(1_500_000));
        assert_eq!(parse_timestamp("1970-01-01T00:00:00"), None);
        assert_eq!(show_timestamp(1_500_000), "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn durations_are_read_in_either_form() {
        for (text, hours) in [("24h", 24), ("7d", 168), ("1d 12h", 36), ("PT24H", 24)] {
            assert_eq!(
                parse_duration(text),
                Some(SignedDuration::from_hours(hours)),
                "{text}"
            );
        }
        assert_eq!(parse_duration("soon"), None);
        assert_eq!(parse_duration("1 month"), None);
    }
}
