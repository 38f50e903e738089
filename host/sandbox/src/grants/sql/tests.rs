use serde_json::{Value, json};

use super::rows::{Cell, Collector};
use super::*;
use crate::model::Kind;

fn bounds(rows: u32, bytes: u64) -> Bounds {
    let timeout = TimeSpan::from_secs(1);
    Bounds {
        rows,
        bytes,
        timeout,
        deadline: Instant::now() + timeout.duration(),
    }
}

fn collected(kind: Option<Kind>, cells: &[Cell<'_>]) -> Result<Rows, Trouble> {
    let mut collector = Collector::new([("c".to_owned(), kind)], bounds(10, 1000));
    for cell in cells {
        collector.begin_row()?;
        collector.push(0, *cell)?;
    }
    collector.finish()
}

fn kind(kind: Option<Kind>, cells: &[Cell<'_>]) -> String {
    let Rows(rows) = collected(kind, cells).expect("rows");
    assert_eq!(rows.num_rows(), cells.len());
    let nulls = cells.iter().filter(|cell| **cell == Cell::Null).count();
    assert_eq!(rows.column(0).null_count(), nulls);
    rows.schema().field(0).data_type().to_string()
}

#[test]
fn a_column_has_the_kind_of_its_values() {
    let (null, int, float, text) = (
        Cell::Null,
        Cell::Int64(1),
        Cell::Float64(1.5),
        Cell::Text("x"),
    );
    assert_eq!(kind(None, &[]), "Utf8");
    assert_eq!(kind(None, &[null, null]), "Utf8");
    assert_eq!(kind(None, &[null, int, null]), "Int64");
    assert_eq!(kind(None, &[int, float, int]), "Float64");
    assert_eq!(kind(Some(Kind::Int64), &[]), "Int64");
    // A file of SQLite may hold something else than its table says.
    assert_eq!(kind(Some(Kind::Int64), &[null, text]), "Utf8");
    assert_eq!(kind(Some(Kind::Float64), &[int]), "Float64");
    for cells in [
        &[int, text][..],
        &[text, int],
        &[float, text],
        &[Cell::Boolean(true), int],
    ] {
        let error = collected(None, cells).expect_err("several kinds");
        assert!(
            matches!(&error, Trouble::Wrong(what) if what.contains("several kinds")),
            "{error}"
        );
    }
    let large = Cell::Int64((1 << 53) + 1);
    for cells in [&[large, float], &[float, large]] {
        let error = collected(None, cells).expect_err("it is no float");
        assert!(error.to_string().contains("no float holds"), "{error}");
    }
}

#[test]
fn rows_and_bytes_are_counted_as_they_come() {
    let mut collector = Collector::new([("c".to_owned(), None)], bounds(2, 100));
    let long = "x".repeat(40);
    collector.begin_row().expect("the first");
    collector.push(0, Cell::Text(&long)).expect("64 bytes");
    collector.begin_row().expect("the second");
    let over = collector.push(0, Cell::Text(&long)).expect_err("128 bytes");
    assert!(matches!(over, Trouble::TooMuch { key, .. } if key == "bytes"));
    let over = collector.begin_row().expect_err("a third");
    assert!(matches!(over, Trouble::TooMuch { key, .. } if key == "rows"));
}

#[test]
fn an_answer_is_kept_as_text_and_is_the_same_again() {
    let answers = [
        collected(None, &[Cell::Text("a"), Cell::Null]),
        collected(Some(Kind::TimestampUs), &[Cell::Timestamp(7)]),
        collected(Some(Kind::Date32), &[]),
        Err(Trouble::too_much("rows", "more than 10 rows")),
    ];
    for answer in answers {
        let kept = serde_json::to_value(&answer).expect("a text");
        let again: Result<Rows, Trouble> = serde_json::from_value(kept).expect("read back");
        assert_eq!(again, answer);
    }
}

#[test]
fn a_grant_is_told_with_where_it_leads_and_without_a_secret() {
    let told = |grant: Value| {
        let grant: SqlGrant = serde_json::from_value(grant).expect("a grant");
        grant.in_words(&|path: &Path| path.display().to_string())
    };
    assert_eq!(
        told(json!({ "connection": "w", "to": { "sqlite": "/srv/w.sqlite" } })),
        "w (sqlite /srv/w.sqlite), any statement that reads"
    );
    let server = json!({ "host": "db.example.com", "port": 6000, "database": "sales",
        "user": "reader", "password": { "env": "P" } });
    assert_eq!(
        told(json!({ "connection": "s", "to": { "postgres": server },
            "statements": { "a": "SELECT 1", "b": "SELECT 2" } })),
        "s (postgres reader@db.example.com:6000/sales with env:P), the statements a b"
    );
}
