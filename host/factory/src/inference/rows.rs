//! Rows as they come, made into the rows that a model wants.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use jiff::Timestamp;
use jiff::civil::Date;
use sandcast_sandbox::{Field, Kind};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::config::hint;
use crate::stages::name_of;

/// What is wrong with rows that were given to a model.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RowsError {
    /// A row is not an object.
    #[error("row {row} is not an object of column names and values")]
    NotAnObject {
        /// The row, from 0.
        row: usize,
    },
    /// A column that the model needs is not there.
    #[error("row {row} has no column `{column}`; the model wants {wanted}")]
    MissingColumn {
        /// The row, from 0.
        row: usize,
        /// The column.
        column: String,
        /// All columns that the model wants.
        wanted: String,
    },
    /// A column is there that the model does not know.
    #[error("row {row} has a column `{column}` that the model does not know; {hint}")]
    UnknownColumn {
        /// The row, from 0.
        row: usize,
        /// The column.
        column: String,
        /// The nearest right one, or all of them.
        hint: String,
    },
    /// A value is of another type.
    #[error("row {row}: column `{column}` must be {wanted}, and is {found}")]
    WrongType {
        /// The row, from 0.
        row: usize,
        /// The column.
        column: String,
        /// The type that the model wants.
        wanted: String,
        /// What was given.
        found: String,
    },
    /// The columns have another form than the model wants.
    #[error("the columns do not fit: {message}")]
    Columns {
        /// What does not fit.
        message: String,
    },
}

/// Makes a batch of JSON objects.
pub(super) fn from_json(
    fields: &[Field],
    schema: &SchemaRef,
    rows: &[Value],
) -> Result<RecordBatch, RowsError> {
    let mut objects = Vec::with_capacity(rows.len());
    for (row, value) in rows.iter().enumerate() {
        let object = value.as_object().ok_or(RowsError::NotAnObject { row })?;
        let unknown = object
            .keys()
            .find(|key| fields.iter().all(|field| field.name != **key));
        if let Some(column) = unknown {
            let hint = hint(
                column,
                "columns",
                fields.iter().map(|field| field.name.as_str()),
            );
            return Err(RowsError::UnknownColumn {
                row,
                column: column.clone(),
                hint,
            });
        }
        objects.push(object);
    }
    let columns: Result<Vec<ArrayRef>, RowsError> = fields
        .iter()
        .map(|field| column(field, fields, &objects))
        .collect();
    let count = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns?, &count).map_err(|error| {
        RowsError::Columns {
            message: error.to_string(),
        }
    })
}

fn column(
    field: &Field,
    fields: &[Field],
    objects: &[&Map<String, Value>],
) -> Result<ArrayRef, RowsError> {
    Ok(match field.kind {
        Kind::Boolean => Arc::new(BooleanArray::from(values(
            field,
            fields,
            objects,
            Value::as_bool,
        )?)),
        Kind::Int64 => Arc::new(Int64Array::from(values(field, fields, objects, whole)?)),
        Kind::Float64 => Arc::new(Float64Array::from(values(
            field,
            fields,
            objects,
            Value::as_f64,
        )?)),
        Kind::Utf8 => {
            let texts = values(field, fields, objects, |value| {
                value.as_str().map(str::to_owned)
            })?;
            Arc::new(StringArray::from(texts))
        }
        Kind::Date32 => Arc::new(Date32Array::from(values(field, fields, objects, days)?)),
        Kind::TimestampUs => {
            let times = values(field, fields, objects, microseconds)?;
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
        }
    })
}

fn values<T>(
    field: &Field,
    fields: &[Field],
    objects: &[&Map<String, Value>],
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<Option<T>>, RowsError> {
    let value = |(row, object): (usize, &&Map<String, Value>)| match object.get(&field.name) {
        None => {
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            let (column, wanted) = (field.name.clone(), names.join(", "));
            Err(RowsError::MissingColumn {
                row,
                column,
                wanted,
            })
        }
        Some(Value::Null) if field.nullable => Ok(None),
        Some(value) => match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(RowsError::WrongType {
                row,
                column: field.name.clone(),
                wanted: name_of(field.kind).to_owned(),
                found: shown(value),
            }),
        },
    };
    objects.iter().enumerate().map(value).collect()
}

/// A whole number, also if it is written with a point, as JSON from other languages may have it.
fn whole(value: &Value) -> Option<i64> {
    const EXACT: f64 = (1_u64 << 53) as f64;
    let float = || {
        value
            .as_f64()
            .filter(|it| it.fract() == 0.0 && it.abs() <= EXACT)
    };
    value.as_i64().or_else(|| float().map(|it| it as i64))
}

fn days(value: &Value) -> Option<i32> {
    let date: Date = value.as_str()?.parse().ok()?;
    let epoch = Date::constant(1970, 1, 1);
    epoch.until(date).ok()?.get_days().into()
}

fn microseconds(value: &Value) -> Option<i64> {
    value
        .as_str()?
        .parse::<Timestamp>()
        .ok()
        .map(Timestamp::as_microsecond)
}

/// A value cut to what a message can bear.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Brings columns into the order of the schema. Columns that the model does not know are refused:
/// whoever sends them believes that they matter.
pub(super) fn arranged(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch, RowsError> {
    let given = rows.schema();
    let wanted = || schema.fields().iter().map(|field| field.name().as_str());
    let unknown = given
        .fields()
        .iter()
        .find(|field| schema.index_of(field.name()).is_err());
    if let Some(unknown) = unknown {
        let (name, hint) = (unknown.name(), hint(unknown.name(), "columns", wanted()));
        let message = format!("the model does not know the column `{name}`; {hint}");
        return Err(RowsError::Columns { message });
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let Some(column) = rows.column_by_name(field.name()) else {
            let wanted: Vec<&str> = wanted().collect();
            let (name, wanted) = (field.name(), wanted.join(", "));
            let message = format!("there is no column `{name}`; the model wants {wanted}");
            return Err(RowsError::Columns { message });
        };
        if column.data_type() != field.data_type() {
            let (name, wanted, found) = (field.name(), field.data_type(), column.data_type());
            let message = format!("column `{name}` must be {wanted}, and is {found}");
            return Err(RowsError::Columns { message });
        }
        columns.push(Arc::clone(column));
    }
    let count =
        arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &count).map_err(|error| {
        RowsError::Columns {
            message: error.to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray as _;
    use arrow::datatypes::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};
    use sandcast_sandbox::schema_of;
    use serde_json::json;

    use super::*;

    fn fields() -> Vec<Field> {
        let field = |name: &str, kind, nullable| Field {
            name: name.to_owned(),
            kind,
            nullable,
        };
        vec![
            field("age", Kind::Int64, false),
            field("income", Kind::Float64, true),
            field("purpose", Kind::Utf8, true),
            field("since", Kind::Date32, true),
            field("seen", Kind::TimestampUs, true),
            field("home", Kind::Boolean, true),
        ]
    }

    fn read(rows: Value) -> Result<RecordBatch, RowsError> {
        let fields = fields();
        let rows = rows.as_array().cloned().unwrap_or_default();
        from_json(&fields, &schema_of(&fields), &rows)
    }

    fn row() -> Value {
        json!({
            "age": 41, "income": 2, "purpose": "car", "since": "1970-03-01",
            "seen": "1970-01-01T00:00:01.5Z", "home": true,
        })
    }

    #[test]
    fn every_kind_is_read() {
        let batch = read(json!([row()])).expect("a good row");
        assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 41);
        assert_eq!(batch.column(1).as_primitive::<Float64Type>().value(0), 2.0);
        assert_eq!(batch.column(2).as_string::<i32>().value(0), "car");
        assert_eq!(batch.column(3).as_primitive::<Date32Type>().value(0), 59);
        let seen = batch
            .column(4)
            .as_primitive::<TimestampMicrosecondType>()
            .value(0);
        assert_eq!(seen, 1_500_000);
        assert!(batch.column(5).as_boolean().value(0));
        assert_eq!(read(json!([])).expect("no rows are rows").num_rows(), 0);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_row_and_column() {
        let with = |column: &str, value: Value| {
            let mut wrong = row();
            wrong[column] = value;
            read(json!([row(), wrong]))
                .expect_err("a wrong row")
                .to_string()
        };
        assert_eq!(
            with("age", json!("41")),
            "row 1: column `age` must be int64, and is \"41\""
        );
        assert_eq!(
            with("age", json!(41.5)),
            "row 1: column `age` must be int64, and is 41.5"
        );
        assert_eq!(
            with("age", Value::Null),
            "row 1: column `age` must be int64, and is null"
        );
        assert_eq!(
            with("since", json!("March")),
            "row 1: column `since` must be date32, and is \"March\""
        );
        assert_eq!(
            with("agee", json!(1)),
            "row 1 has a column `agee` that the model does not know; did you mean `age`?"
        );
        assert_eq!(read(json!([3])), Err(RowsError::NotAnObject { row: 0 }));
        let mut short = row();
        short.as_object_mut().map(|row| row.remove("purpose"));
        let missing = read(json!([short])).expect_err("a column is missing");
        assert!(
            missing
                .to_string()
                .contains("row 0 has no column `purpose`"),
            "{missing}"
        );
    }

    #[test]
    fn columns_may_come_in_any_order_and_no_others() {
        let batch = read(json!([row()])).expect("a good row");
        let schema = batch.schema();
        let turned = batch
            .project(&[5, 4, 3, 2, 1, 0])
            .expect("columns that are there");
        assert_eq!(arranged(&schema, &turned).expect("the same columns"), batch);
        let fewer = batch.project(&[0, 1]).expect("columns that are there");
        assert!(arranged(&schema, &fewer).is_err());
        assert!(arranged(&fewer.schema(), &batch).is_err());
    }
}
