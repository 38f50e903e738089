//! What a database answers, as columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray as _, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::state::Bytes;
use super::{Bounds, Trouble};
use crate::columns::{check_fields, conform};
use crate::model::{Kind, fields_of};
use crate::recording::{rows_of_bytes, rows_to_bytes};
use crate::text;

/// Whole numbers that a float holds exactly.
const EXACT: u64 = 1 << 53;

/// A value of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Boolean(bool),
    Int64(i64),
    Float64(f64),
    Text(&'a str),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since 1970.
    Timestamp(i64),
}

/// Rows that come one by one, as far as the bounds let them.
pub(super) struct Collector {
    columns: Vec<Column>,
    rows: usize,
    bytes: u64,
    bounds: Bounds,
}

struct Column {
    name: String,
    values: Values,
}

/// Values of one kind. A column that begins without one takes that of its first value.
enum Values {
    Unknown(usize),
    Boolean(Vec<Option<bool>>),
    Int64(Vec<Option<i64>>),
    Float64(Vec<Option<f64>>),
    Text(Vec<Option<String>>),
    Date(Vec<Option<i32>>),
    Timestamp(Vec<Option<i64>>),
}

impl Values {
    fn of(kind: Option<Kind>, nulls: usize) -> Self {
        match kind {
            None => Self::Unknown(nulls),
            Some(Kind::Boolean) => Self::Boolean(vec![None; nulls]),
            Some(Kind::Int64) => Self::Int64(vec![None; nulls]),
            Some(Kind::Float64) => Self::Float64(vec![None; nulls]),
            Some(Kind::Utf8) => Self::Text(vec![None; nulls]),
            Some(Kind::Date32) => Self::Date(vec![None; nulls]),
            Some(Kind::TimestampUs) => Self::Timestamp(vec![None; nulls]),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Unknown(nulls) => *nulls,
            Self::Boolean(values) => values.len(),
            Self::Int64(values) | Self::Timestamp(values) => values.len(),
            Self::Float64(values) => values.len(),
            Self::Text(values) => values.len(),
            Self::Date(values) => values.len(),
        }
    }

    /// The same with a kind, and with numbers as floats where a float comes.
    fn fit_for(self, cell: Cell<'_>) -> Result<Self, &'static str> {
        let kind = match cell {
            Cell::Null => return Ok(self),
            Cell::Boolean(_) => Kind::Boolean,
            Cell::Int64(_) => Kind::Int64,
            Cell::Float64(_) => Kind::Float64,
            Cell::Text(_) => Kind::Utf8,
            Cell::Date(_) => Kind::Date32,
            Cell::Timestamp(_) => Kind::TimestampUs,
        };
        Ok(match (self, cell) {
            (Self::Unknown(nulls), _) => Self::of(Some(kind), nulls),
            // A column of whole numbers that holds nothing yet may turn out to be of texts.
            (Self::Int64(values), Cell::Text(_)) if values.iter().all(Option::is_none) => {
                Self::of(Some(Kind::Utf8), values.len())
            }
            (Self::Float64(values), Cell::Text(_)) if values.iter().all(Option::is_none) => {
                Self::of(Some(Kind::Utf8), values.len())
            }
            (Self::Int64(values), Cell::Float64(_)) => {
                let floats = values.into_iter().map(|value| value.map(exact).transpose());
                Self::Float64(floats.collect::<Result<_, _>>()?)
            }
            (same, _) => same,
        })
    }

    fn push(&mut self, cell: Cell<'_>) -> Result<u64, &'static str> {
        let values = std::mem::replace(self, Self::Unknown(0));
        *self = values.fit_for(cell)?;
        let bytes = match (&mut *self, cell) {
            (Self::Unknown(nulls), Cell::Null) => {
                *nulls += 1;
                1
            }
            (Self::Boolean(values), Cell::Null) => add(values, None, 1),
            (Self::Boolean(values), Cell::Boolean(value)) => add(values, Some(value), 1),
            (Self::Int64(values) | Self::Timestamp(values), Cell::Null) => add(values, None, 8),
            (Self::Int64(values), Cell::Int64(value)) => add(values, Some(value), 8),
            (Self::Timestamp(values), Cell::Timestamp(value)) => add(values, Some(value), 8),
            (Self::Float64(values), Cell::Null) => add(values, None, 8),
            (Self::Float64(values), Cell::Float64(value)) => add(values, Some(value), 8),
            (Self::Float64(values), Cell::Int64(value)) => add(values, Some(exact(value)?), 8),
            (Self::Text(values), Cell::Null) => add(values, None, 24),
            // While it is collected a text has a place of its own.
            (Self::Text(values), Cell::Text(value)) => {
                add(values, Some(value.to_owned()), 24 + value.len() as u64)
            }
            (Self::Date(values), Cell::Null) => add(values, None, 4),
            (Self::Date(values), Cell::Date(value)) => add(values, Some(value), 4),
            _ => return Err("holds values of several kinds; cast it to one"),
        };
        Ok(bytes)
    }

    fn into_array(self) -> ArrayRef {
        match self {
            Self::Unknown(nulls) => Arc::new(StringArray::from(vec![None::<&str>; nulls])),
            Self::Boolean(values) => Arc::new(BooleanArray::from(values)),
            Self::Int64(values) => Arc::new(Int64Array::from(values)),
            Self::Float64(values) => Arc::new(Float64Array::from(values)),
            Self::Text(values) => Arc::new(StringArray::from(values)),
            Self::Date(values) => Arc::new(Date32Array::from(values)),
            Self::Timestamp(values) => {
                Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
            }
        }
    }
}

fn add<T>(values: &mut Vec<Option<T>>, value: Option<T>, bytes: u64) -> u64 {
    values.push(value);
    bytes
}

fn exact(value: i64) -> Result<f64, &'static str> {
    match value.unsigned_abs() <= EXACT {
        true => Ok(value as f64),
        false => Err("holds a whole number beside floats that no float holds; cast it"),
    }
}

impl Collector {
    /// For columns with their names and, where they are known, their kinds.
    pub(super) fn new(
        columns: impl IntoIterator<Item = (String, Option<Kind>)>,
        bounds: Bounds,
    ) -> Self {
        let columns = columns.into_iter().map(|(name, kind)| Column {
            name,
            values: Values::of(kind, 0),
        });
        Self {
            columns: columns.collect(),
            rows: 0,
            bytes: 0,
            bounds,
        }
    }

    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// A row begins.
    pub(super) fn begin_row(&mut self) -> Result<(), Trouble> {
        if self.rows >= self.bounds.rows as usize {
            let detail = format!("the answer has more than {} rows", self.bounds.rows);
            return Err(Trouble::too_much("rows", detail));
        }
        self.rows += 1;
        Ok(())
    }

    /// A value of the row, for the column with a number.
    pub(super) fn push(&mut self, column: usize, cell: Cell<'_>) -> Result<(), Trouble> {
        let Some(column) = self.columns.get_mut(column) else {
            return Ok(());
        };
        let pushed = column.values.push(cell).map_err(|what| {
            let name = text::sentence(&column.name, 64);
            Trouble::Wrong(format!("the column `{name}` {what}"))
        })?;
        self.bytes = self.bytes.saturating_add(pushed);
        match self.bytes <= self.bounds.bytes {
            true => Ok(()),
            false => Err(Trouble::too_much(
                "bytes",
                format!("the answer has more than {} bytes", self.bounds.bytes),
            )),
        }
    }

    /// The answer.
    pub(super) fn finish(self) -> Result<Rows, Trouble> {
        let wrong = |what: String| Trouble::Wrong(text::sentence(&what, 256));
        let rows = self.rows;
        let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = self
            .columns
            .into_iter()
            .map(|column| {
                debug_assert_eq!(column.values.len(), rows);
                let array = column.values.into_array();
                (
                    Field::new(column.name, array.data_type().clone(), true),
                    array,
                )
            })
            .unzip();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch =
            RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options);
        let batch = batch.map_err(|error| wrong(error.to_string()))?;
        let batch = conform(&batch).map_err(|error| wrong(error.to_string()))?;
        let fields = fields_of(&batch.schema())
            .map_err(|(column, found)| wrong(format!("the column `{column}` is {found}")))?;
        let fields: Vec<_> = fields.into_iter().map(Into::into).collect();
        check_fields(&fields).map_err(|error| wrong(format!("{error}; name columns with AS")))?;
        Ok(Rows(batch))
    }
}

/// An answer. A recording keeps it as text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows(pub(super) RecordBatch);

impl Rows {
    /// The bytes of its values, whatever buffers they lie in: the same now and in a replay.
    pub(super) fn bytes(&self) -> usize {
        let Self(rows) = self;
        let count = rows.num_rows();
        let of_column = |array: &ArrayRef| {
            let values = match array.data_type() {
                DataType::Utf8 => {
                    let texts = array.as_string::<i32>();
                    let length: usize = texts.iter().flatten().map(str::len).sum();
                    length + 4 * (count + 1)
                }
                other => other.primitive_width().unwrap_or(1) * count,
            };
            values + count.div_ceil(8)
        };
        rows.columns().iter().map(of_column).sum()
    }
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = rows_to_bytes(&self.0.schema(), std::slice::from_ref(&self.0));
        Bytes(bytes.map_err(serde::ser::Error::custom)?).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Bytes(bytes) = Bytes::deserialize(deserializer)?;
        let mut rows = rows_of_bytes(&bytes).map_err(serde::de::Error::custom)?;
        match (rows.pop(), rows.is_empty()) {
            (Some(rows), true) => Ok(Self(rows)),
            _ => Err(serde::de::Error::custom("one batch was kept")),
        }
    }
}
