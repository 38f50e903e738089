//! Arrow's many types as the six that plugins know.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use thiserror::Error;

use crate::model::Kind;

/// Why rows cannot be shown to a plugin.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConformError {
    /// No kind of the contract holds the values of a column.
    #[error(
        "column `{column}` is {data_type}, which plugins do not know; cast it to a number, text, a date or a timestamp"
    )]
    UnknownType {
        /// The column.
        column: String,
        /// Its type.
        data_type: DataType,
    },
    /// A value does not fit.
    #[error("column `{column}` cannot be made {kind:?}: {reason}")]
    Value {
        /// The column.
        column: String,
        /// The kind that was tried.
        kind: Kind,
        /// What does not fit.
        reason: String,
    },
    /// A batch has too many rows.
    #[error("a batch has {rows} rows; plugins count them in 32 bits")]
    TooManyRows {
        /// How many it has.
        rows: usize,
    },
    /// Batches of one dataset have different columns.
    #[error("the batches of one dataset have different columns: {first} and {other}")]
    SchemasDiffer {
        /// The columns of the first batch.
        first: String,
        /// The columns of another.
        other: String,
    },
    /// There are no batches, so there is no schema.
    #[error("there is not one batch, so there is no schema")]
    Empty,
}

/// The same rows in the types that plugins know: whole numbers as `Int64`, other numbers as
/// `Float64`, every sort of text as `Utf8`, dates as `Date32`, times as microseconds UTC.
/// Columns that already are one of those are not touched.
///
/// # Errors
/// When no such type holds the values of a column.
pub fn conform(rows: &RecordBatch) -> Result<RecordBatch, ConformError> {
    let schema = rows.schema();
    if schema
        .fields()
        .iter()
        .all(|field| is_plain(field.data_type()))
    {
        return Ok(rows.clone());
    }
    let mut fields = Vec::with_capacity(schema.fields().len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        let kind = nearest(field.data_type()).ok_or_else(|| ConformError::UnknownType {
            column: field.name().clone(),
            data_type: field.data_type().clone(),
        })?;
        let wanted = kind.data_type();
        let column = if field.data_type() == &wanted {
            Arc::clone(column)
        } else {
            let options = CastOptions {
                safe: false,
                ..CastOptions::default()
            };
            cast_with_options(column, &wanted, &options).map_err(|error| ConformError::Value {
                column: field.name().clone(),
                kind,
                reason: error.to_string(),
            })?
        };
        fields.push(Field::new(field.name(), wanted, field.is_nullable()));
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).map_err(
        |error| ConformError::Value {
            column: String::new(),
            kind: Kind::Utf8,
            reason: error.to_string(),
        },
    )
}

/// Exactly one of the six, so that two batches of one dataset have one schema.
fn is_plain(data_type: &DataType) -> bool {
    Kind::of(data_type).is_some_and(|kind| kind.data_type() == *data_type)
}

fn nearest(data_type: &DataType) -> Option<Kind> {
    Some(match data_type {
        DataType::Boolean => Kind::Boolean,
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => Kind::Int64,
        DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Kind::Float64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Kind::Utf8,
        DataType::Dictionary(_, values) => nearest(values)?,
        DataType::Date32 | DataType::Date64 => Kind::Date32,
        DataType::Timestamp(
            TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
            _,
        ) => Kind::TimestampUs,
        DataType::Null => Kind::Utf8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Array, AsArray, Float32Array, Int32Array, ListArray, StringViewArray, UInt64Array,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn other_types_become_the_nearest_known_one() {
        let rows = RecordBatch::try_from_iter([
            (
                "whole",
                Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef,
            ),
            ("number", Arc::new(Float32Array::from(vec![1.5, 2.5]))),
            ("text", Arc::new(StringViewArray::from(vec!["a", "b"]))),
        ])
        .expect("a batch");
        let conformed = conform(&rows).expect("all have a nearest type");
        let types: Vec<_> = conformed
            .schema()
            .fields()
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        assert_eq!(types, [DataType::Int64, DataType::Float64, DataType::Utf8]);
        assert!(conformed.column(0).is_null(1));
        assert_eq!(conformed.column(2).as_string::<i32>().value(1), "b");
    }

    #[test]
    fn known_types_are_not_copied() {
        let rows = RecordBatch::try_from_iter([(
            "text",
            Arc::new(arrow::array::StringArray::from(vec!["a", "b"])) as ArrayRef,
        )])
        .expect("a batch");
        let conformed = conform(&rows).expect("known already");
        assert!(Arc::ptr_eq(rows.column(0), conformed.column(0)));
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let rows = RecordBatch::try_from_iter([(
            "big",
            Arc::new(UInt64Array::from(vec![u64::MAX])) as ArrayRef,
        )])
        .expect("a batch");
        let error = conform(&rows)
            .expect_err("does not fit 64 signed bits")
            .to_string();
        assert!(error.contains("`big`"), "{error}");
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
        let rows = RecordBatch::try_from_iter([("many", Arc::new(lists) as ArrayRef)])
            .expect("a batch of lists");
        assert!(
            matches!(conform(&rows), Err(ConformError::UnknownType { column, .. }) if column == "many")
        );
    }
}
