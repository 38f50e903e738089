//! `row-count`: the dataset has so many rows.

use sandcast_sdk::Failure;
use serde::Deserialize;

use super::{DatasetTest, Made};
use crate::column::Column;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    min: Option<u64>,
    max: Option<u64>,
}

pub(super) fn make(keys: Keys) -> Result<Made, String> {
    let wanted = match (keys.min, keys.max) {
        (None, None) => return Err("give `min`, `max` or both".into()),
        (Some(min), Some(max)) if min > max => return Err("`min` is over `max`".into()),
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
    };
    let test = RowCount {
        min: keys.min,
        max: keys.max,
        rows: 0,
    };
    Ok(Made::dataset(
        Vec::new(),
        format!("the dataset has {wanted} rows"),
        test,
    ))
}

#[derive(Debug)]
struct RowCount {
    min: Option<u64>,
    max: Option<u64>,
    rows: u64,
}

impl DatasetTest for RowCount {
    fn observe(&mut self, rows: u32, _columns: &[Column<'_>]) {
        self.rows += u64::from(rows);
    }

    fn judge(&self) -> Result<(bool, String), Failure> {
        Ok(match (self.min, self.max) {
            (Some(min), _) if self.rows < min => {
                (false, format!("{} rows are fewer than {min}", self.rows))
            }
            (_, Some(max)) if self.rows > max => {
                (false, format!("{} rows are more than {max}", self.rows))
            }
            _ => (true, format!("{} rows", self.rows)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::column::testing::Owned;
    use serde_json::json;

    #[test]
    fn rows_add_up_over_batches() {
        let (first, second) = (Owned::int64(&[Some(1), None]), Owned::int64(&[Some(1)]));
        let batches = [("n", &first), ("n", &second)];
        let judged = |rule| judge(rule, &batches).expect("judged");
        assert_eq!(
            judged(json!({"rule": "row-count", "min": 3, "max": 3})),
            (true, "3 rows".to_owned())
        );
        assert_eq!(
            judged(json!({"rule": "row-count", "min": 4})),
            (false, "3 rows are fewer than 4".to_owned())
        );
        assert_eq!(
            judged(json!({"rule": "row-count", "max": 2})),
            (false, "3 rows are more than 2".to_owned())
        );
    }

    #[test]
    fn bounds_must_make_sense() {
        assert!(refused(json!({"rule": "row-count"}), &[]).contains("`min`"));
        assert!(refused(json!({"rule": "row-count", "min": 2, "max": 1}), &[]).contains("over"));
        assert!(
            refused(json!({"rule": "row-count", "column": "n"}), &[])
                .contains("unknown field `column`")
        );
    }
}
