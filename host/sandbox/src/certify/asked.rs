//! What a plugin is asked in its trials: tables, questions, and configurations that make no sense.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value, json};

use crate::model::{Field, Kind, Task, TaskKind};
use crate::roles::{ControlPoint, Request};

/// The columns of the table: every kind there is, and an outcome to learn.
const COLUMNS: [(&str, Kind); 7] = [
    ("flag", Kind::Boolean),
    ("count", Kind::Int64),
    ("amount", Kind::Float64),
    ("name", Kind::Utf8),
    ("day", Kind::Date32),
    ("moment", Kind::TimestampUs),
    ("outcome", Kind::Utf8),
];

/// What a row holds, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// What one would expect, with a null now and then.
    Ordinary,
    /// The ends of every range, and texts that terminals and parsers stumble over.
    Extreme,
    /// Nothing at all.
    Null,
}

/// Texts that somebody will send one day.
const TEXTS: [&str; 6] = [
    "",
    "\u{1b}[2J\u{7}",
    "\u{202e}txt.exe",
    "a\0b",
    "'; DROP TABLE rows; --",
    "\u{1f469}\u{200d}\u{1f52c}\u{fe0f}",
];

pub(super) fn table(rows: usize, content: Content) -> Option<RecordBatch> {
    fn each<T>(rows: usize, value: impl Fn(usize) -> Option<T>) -> Vec<Option<T>> {
        (0..rows).map(value).collect()
    }
    let there =
        |row: usize| content != Content::Null && (content != Content::Ordinary || row % 11 != 7);
    let number = |row: usize| (row * 7919 % 1000) as f64 / 10.0;
    let extreme = |row: usize| {
        let ends = [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN_POSITIVE,
            -0.0,
        ];
        ends[row % ends.len()]
    };
    let whole = [i64::MIN, i64::MAX, 0, -1];
    let is_extreme = content == Content::Extreme;
    let amounts = each(rows, |row| {
        there(row).then(|| {
            if is_extreme {
                extreme(row)
            } else {
                number(row)
            }
        })
    });
    let counts = each(rows, |row| {
        there(row).then(|| {
            if is_extreme {
                whole[row % 4]
            } else {
                (row % 90) as i64
            }
        })
    });
    let long = "x".repeat(70_000);
    let names = each(rows, |row| {
        there(row).then(|| match (is_extreme, row) {
            (true, 3) => long.clone(),
            (true, row) => TEXTS[row % TEXTS.len()].to_owned(),
            (false, row) => ["red", "green", "blue"][row % 3].to_owned(),
        })
    });
    let days = each(rows, |row| {
        there(row).then(|| {
            if is_extreme {
                [i32::MIN, i32::MAX][row % 2]
            } else {
                19_000 + row as i32 % 700
            }
        })
    });
    let moments = each(rows, |row| {
        there(row).then(|| {
            if is_extreme {
                whole[row % 2]
            } else {
                1_700_000_000_000_000 + row as i64
            }
        })
    });
    let flags = each(rows, |row| there(row).then_some(row % 2 == 0));
    let outcomes = each(rows, |row| {
        (content != Content::Null).then(|| ["no", "yes"][usize::from(number(row) > 50.0)])
    });
    let columns: [ArrayRef; 7] = [
        Arc::new(BooleanArray::from(flags)),
        Arc::new(Int64Array::from(counts)),
        Arc::new(Float64Array::from(amounts)),
        Arc::new(StringArray::from(names)),
        Arc::new(Date32Array::from(days)),
        Arc::new(TimestampMicrosecondArray::from(moments).with_timezone("UTC")),
        Arc::new(StringArray::from(outcomes)),
    ];
    let named = COLUMNS.iter().zip(columns);
    RecordBatch::try_from_iter_with_nullable(named.map(|((name, _), column)| (*name, column, true)))
        .ok()
}

/// The columns of the table.
pub(super) fn schema() -> Option<SchemaRef> {
    Some(table(0, Content::Ordinary)?.schema())
}

/// A task on the table.
pub(super) fn task(kind: TaskKind) -> Task {
    let names: &[&str] = match kind {
        TaskKind::TextGeneration => &["name"],
        TaskKind::BinaryClassification | TaskKind::MulticlassClassification => {
            &["count", "amount", "name", "flag"]
        }
        _ => &["count", "amount"],
    };
    let features = COLUMNS.iter().filter(|(name, _)| names.contains(name));
    let classes = match kind {
        TaskKind::BinaryClassification | TaskKind::MulticlassClassification => {
            vec!["no".to_owned(), "yes".to_owned()]
        }
        _ => Vec::new(),
    };
    let target = match kind {
        TaskKind::BinaryClassification | TaskKind::MulticlassClassification => Some("outcome"),
        // Learnt where it is there.
        TaskKind::Regression => Some("day_number"),
        _ => None,
    };
    Task {
        kind,
        features: features
            .map(|(name, kind)| Field {
                name: (*name).to_owned(),
                kind: *kind,
                nullable: true,
            })
            .collect(),
        target: target.map(str::to_owned),
        classes,
        weight: None,
    }
}

/// Ordinary rows, with a number to learn beside the rest.
pub(super) fn lesson(rows: usize) -> Option<RecordBatch> {
    let table = table(rows, Content::Ordinary)?;
    let numbers: Float64Array = (0..rows).map(|row| Some((row % 90) as f64 * 2.5)).collect();
    let schema = table.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    let columns = names.zip(table.columns().iter().cloned());
    let target: (String, ArrayRef) = ("day_number".to_owned(), Arc::new(numbers));
    let all = columns
        .chain([target])
        .map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(all).ok()
}

/// Questions that make sense.
pub(super) fn questions() -> Vec<Request> {
    [
        ControlPoint::DataRead,
        ControlPoint::TrainStart,
        ControlPoint::Promote,
    ]
    .into_iter()
    .map(|control_point| Request {
        control_point,
        principal: "pipeline:trial".to_owned(),
        action: "promote".to_owned(),
        resource: "model:trial".to_owned(),
        context: json!({ "pipeline": "trial", "metrics": { "auc": 0.8 } }),
    })
    .collect()
}

/// Questions that nobody should ask.
pub(super) fn odd_questions() -> Vec<Request> {
    let mut odd: Vec<Request> = TEXTS
        .iter()
        .map(|text| Request {
            control_point: ControlPoint::Predict,
            principal: (*text).to_owned(),
            action: (*text).to_owned(),
            resource: (*text).to_owned(),
            context: json!({ *text: text }),
        })
        .collect();
    odd.push(Request {
        control_point: ControlPoint::Export,
        principal: "x".repeat(100_000),
        action: "export".to_owned(),
        resource: "data:all".to_owned(),
        context: json!({ "deep": deep(100), "long": "x".repeat(200_000), "number": 1e308 }),
    });
    odd
}

fn deep(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| json!({ "in": inner }))
}

/// Keys of a good configuration that are spoilt.
const SPOILT_KEYS: usize = 16;

/// Configurations that make no sense, some of them very nearly.
pub(super) fn odd_configurations(good: &Value) -> Vec<Value> {
    let mut odd = vec![
        json!({}),
        json!({ "": "" }),
        json!({ "a-key-that-nobody-knows": true }),
        json!({ "deep": deep(60) }),
        json!({ "long": "x".repeat(1 << 20) }),
        json!({ "path": "../../etc/passwd\u{0}" }),
        json!({ "many": vec![0; 20_000] }),
    ];
    let Value::Object(keys) = good else {
        return odd;
    };
    for key in keys.keys().take(SPOILT_KEYS) {
        for wrong in [
            Value::Null,
            json!(-1),
            json!(1e308),
            json!("\u{1b}[2J"),
            json!([]),
            json!({ "": [] }),
        ] {
            let mut spoilt: Map<String, Value> = keys.clone();
            spoilt.insert(key.clone(), wrong);
            odd.push(Value::Object(spoilt));
        }
    }
    odd
}
