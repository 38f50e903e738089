//! The time of day, as records have it.

/// Now, in UTC, RFC 3339 with milliseconds.
pub(crate) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// Whether a time is before another. A time that is none is not before anything.
pub(crate) fn is_before(time: &str, other: &str) -> bool {
    match (
        time.parse::<jiff::Timestamp>(),
        other.parse::<jiff::Timestamp>(),
    ) {
        (Ok(time), Ok(other)) => time < other,
        _ => false,
    }
}
