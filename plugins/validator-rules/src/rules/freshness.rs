//! `freshness`: the newest value of a column of times is not older than a duration.

use jiff::SignedDuration;
use sandcast_sdk::{Failure, Kind};
use serde::Deserialize;

use super::{DatasetTest, Made, Schema};
use crate::column::{Column, Values, word_rows};
use crate::times::{date_in_microseconds, parse_date_or_timestamp, parse_duration, show_timestamp};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    column: String,
    max_age: String,
    now: String,
}

pub(super) fn make(keys: Keys, schema: &Schema<'_>) -> Result<Made, String> {
    let (index, kind) = schema.find(&keys.column)?;
    if !matches!(kind, Kind::Date32 | Kind::TimestampUs) {
        return Err(format!(
            "column `{}` is {}, freshness is about dates and timestamps",
            keys.column,
            kind.name()
        ));
    }
    let max_age = parse_duration(&keys.max_age)
        .filter(SignedDuration::is_positive)
        .ok_or_else(|| {
            format!(
                "`max_age` is {:?}, a duration such as \"24h\" or \"7d\" is wanted",
                keys.max_age
            )
        })?;
    let now = parse_date_or_timestamp(&keys.now).ok_or_else(|| {
        format!(
            "`now` is {:?}, a time such as \"2024-01-31T08:00:00Z\" is wanted",
            keys.now
        )
    })?;
    let description = format!(
        "the newest `{}` is at most {max_age:#} old at {}",
        keys.column,
        show_timestamp(now)
    );
    Ok(Made::dataset(
        vec![index],
        description,
        Freshness {
            column: keys.column,
            max_age,
            now,
            newest: None,
        },
    ))
}

#[derive(Debug)]
struct Freshness {
    column: String,
    max_age: SignedDuration,
    /// Microseconds since 1970-01-01T00:00:00Z, as is `newest`.
    now: i64,
    newest: Option<i64>,
}

impl DatasetTest for Freshness {
    fn observe(&mut self, _rows: u32, columns: &[Column<'_>]) {
        let column = &columns[0];
        let blocks = column.rows.div_ceil(64);
        let rows = (0..blocks).flat_map(|block| word_rows(block, column.valid_word(block)));
        let newest = match column.values {
            Values::TimestampUs(values) => rows.filter_map(|row| values.get(row)).copied().max(),
            Values::Date32(values) => rows
                .filter_map(|row| values.get(row))
                .max()
                .map(|days| date_in_microseconds(*days)),
            _ => None,
        };
        self.newest = self.newest.max(newest);
    }

    fn judge(&self) -> Result<(bool, String), Failure> {
        let Some(newest) = self.newest else {
            return Ok((false, format!("{} holds no value", self.column)));
        };
        let age = SignedDuration::from_micros(self.now.saturating_sub(newest));
        let seen = format!("the newest {} is {}", self.column, show_timestamp(newest));
        let age = SignedDuration::from_secs(age.as_secs());
        Ok(if age > self.max_age {
            (
                false,
                format!("{seen}, {age:#} old, over {:#}", self.max_age),
            )
        } else {
            (true, format!("{seen}, {age:#} old"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::column::testing::Owned;
    use serde_json::json;

    const HOUR: i64 = 3_600_000_000;

    fn rule(max_age: &str) -> serde_json::Value {
        json!({"rule": "freshness", "column": "at", "max_age": max_age, "now": "1970-01-03T00:00:00Z"})
    }

    #[test]
    fn the_newest_over_all_batches_counts() {
        let (first, second) = (
            Owned::timestamps(&[Some(24 * HOUR), None]),
            Owned::timestamps(&[Some(2 * HOUR)]),
        );
        let batches = [("at", &first), ("at", &second)];
        let (passed, message) = judge(rule("24h"), &batches).expect("judged");
        assert!(passed, "{message}");
        let (passed, message) = judge(rule("23h"), &batches).expect("judged");
        assert!(!passed);
        assert_eq!(
            message,
            "the newest at is 1970-01-02T00:00:00Z, 24h old, over 23h"
        );
    }

    #[test]
    fn dates_count_from_their_first_moment() {
        let days = Owned::dates(&[Some(0), Some(1)]);
        assert!(judge(rule("1d"), &[("at", &days)]).expect("judged").0);
        assert!(!judge(rule("12h"), &[("at", &days)]).expect("judged").0);
    }

    #[test]
    fn a_column_without_values_is_not_fresh() {
        let empty = Owned::timestamps(&[None, None]);
        assert_eq!(
            judge(rule("1d"), &[("at", &empty)]).expect("judged"),
            (false, "at holds no value".to_owned())
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (times, numbers) = (Owned::timestamps(&[]), Owned::int64(&[]));
        assert!(refused(rule("soon"), &[("at", &times)]).contains("a duration such as"));
        assert!(refused(rule("-1h"), &[("at", &times)]).contains("a duration such as"));
        assert!(refused(rule("1h"), &[("at", &numbers)]).contains("is int64"));
        let without_now = json!({"rule": "freshness", "column": "at", "max_age": "1h"});
        assert!(refused(without_now, &[("at", &times)]).contains("missing field `now`"));
    }
}
