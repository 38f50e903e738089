//! The time of day, as records have it.

/// Now, in UTC, RFC 3339 with milliseconds.
pub(crate) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// Whether a time is before another by a millisecond or more: the audit log has finer times than others
/// here have. A time that is none is not before anything.
pub(crate) fn is_before(time: &str, other: &str) -> bool {
    match (
        time.parse::<jiff::Timestamp>(),
        other.parse::<jiff::Timestamp>(),
    ) {
        (Ok(time), Ok(other)) => time.as_millisecond() < other.as_millisecond(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_one_millisecond_are_not_before_each_other() {
        let (coarse, fine) = ("2026-11-23T05:22:12.123Z", "2026-11-23T05:22:12.123456789Z");
        assert!(!is_before(coarse, fine) && !is_before(fine, coarse));
        let next = "2026-11-23T05:22:12.124Z";
        assert!(is_before(fine, next) && !is_before(next, fine));
        assert!(!is_before("soon", next) && !is_before(next, "soon"));
    }
}
