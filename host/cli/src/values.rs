//! Arrow's values as JSON and as text.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray as _},
    datatypes::{
        DataType, Date32Type, Float64Type, Int64Type, TimestampMicrosecondType, UInt64Type,
    },
    record_batch::RecordBatch,
};
use jiff::{Timestamp, ToSpan as _, civil};
use serde_json::Value;

use crate::terminal;

/// A row as an object. Values of types that plugins do not know are null.
pub(crate) fn object_at(batch: &RecordBatch, row: usize) -> Value {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    let values = columns.map(|(field, column)| (field.name().clone(), value_at(column, row)));
    Value::Object(values.collect())
}

/// A value of a column. A date is `2026-11-21`, a time `2026-11-21T20:15:30Z`; a number that is not
/// finite is null, as JSON has none.
pub(crate) fn value_at(column: &Arc<dyn Array>, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().value(row);
            let date = civil::date(1970, 1, 1).checked_add(days.days());
            date.map(|date| date.to_string()).ok().into()
        }
        DataType::Timestamp(_, _) => {
            let micros = column.as_primitive_opt::<TimestampMicrosecondType>();
            let time = micros.map(|micros| Timestamp::from_microsecond(micros.value(row)));
            time.and_then(Result::ok)
                .map(|time| time.to_string())
                .into()
        }
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::List(_) => {
            let values = column.as_list::<i32>().value(row);
            (0..values.len())
                .map(|place| value_at(&values, place))
                .collect()
        }
        _ => Value::Null,
    }
}

/// A value as a cell of a table.
pub(crate) fn as_text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => terminal::one_line(text).into_owned(),
        Value::Array(values) => {
            let texts: Vec<String> = values.iter().map(as_text).collect();
            texts.join(", ")
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Date32Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Field, Schema, TimeUnit};

    use super::*;

    #[test]
    fn every_kind_has_a_form_in_json() {
        let kinds = [
            DataType::Boolean,
            DataType::Int64,
            DataType::Float64,
            DataType::Utf8,
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ];
        let fields: Vec<Field> = kinds
            .iter()
            .zip(["b", "i", "f", "s", "d", "t"])
            .map(|(kind, name)| Field::new(name, kind.clone(), true))
            .collect();
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(BooleanArray::from(vec![Some(true), None])),
            Arc::new(Int64Array::from(vec![Some(-3), None])),
            Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::NAN)])),
            Arc::new(StringArray::from(vec![Some("x"), None])),
            Arc::new(Date32Array::from(vec![Some(20_778), None])),
            Arc::new(
                TimestampMicrosecondArray::from(vec![Some(1_500_000), None]).with_timezone("UTC"),
            ),
        ];
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("they fit");
        assert_eq!(
            object_at(&batch, 0),
            serde_json::json!({
                "b": true, "i": -3, "f": 0.5, "s": "x",
                "d": "2026-11-21", "t": "1970-01-01T00:00:01.5Z",
            })
        );
        let absent = object_at(&batch, 1);
        assert!(
            absent
                .as_object()
                .is_some_and(|row| row.values().all(Value::is_null))
        );
    }
}
