//! Columns that a guest has made, as Arrow's arrays: every length, offset, bitmap and string is
//! checked, and nothing is copied again.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;
use thiserror::Error;
use wasmtime::component::{ComponentType, Lift};

use super::list::List;
use crate::bindings::adapter::sandcast::plugin::types;
use crate::grants::Limits;
use crate::model::Kind;
use crate::text;

/// Columns of one batch.
const MAX_COLUMNS: usize = 4096;

/// Bytes of the name of a column.
pub(crate) const MAX_COLUMN_NAME_BYTES: usize = 512;

/// `strings` of the contract.
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct StringsIn {
    pub(crate) offsets: List<i32>,
    pub(crate) bytes: List<u8>,
}

/// `values` of the contract.
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum ValuesIn {
    #[component(name = "boolean")]
    Boolean(List<u8>),
    #[component(name = "int64")]
    Int64(List<i64>),
    #[component(name = "float64")]
    Float64(List<f64>),
    #[component(name = "utf8")]
    Utf8(StringsIn),
    #[component(name = "date32")]
    Date32(List<i32>),
    #[component(name = "timestamp-us")]
    TimestampUs(List<i64>),
}

/// `column` of the contract.
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct ColumnIn {
    pub(crate) rows: u32,
    pub(crate) values: ValuesIn,
    pub(crate) validity: Option<List<u8>>,
}

/// `raw-column` of the contract.
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct RawColumnIn {
    pub(crate) kind: types::Kind,
    pub(crate) rows: u32,
    pub(crate) values: List<u8>,
    pub(crate) offsets: List<u8>,
    pub(crate) validity: Option<List<u8>>,
}

/// How large a batch may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    rows: u32,
}

impl Bounds {
    pub(crate) fn of(limits: &Limits) -> Self {
        Self {
            rows: limits.output_rows,
        }
    }
}

/// What is wrong with columns that a guest has made.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Malformed {
    #[error("{columns} columns were given for {fields} fields")]
    ColumnCount { fields: usize, columns: usize },
    #[error("a batch has {columns} columns; at most {MAX_COLUMNS} are allowed")]
    TooManyColumns { columns: usize },
    #[error("a column name has {bytes} bytes; 1 to {MAX_COLUMN_NAME_BYTES} are allowed")]
    NameLength { bytes: usize },
    #[error("two columns are called `{column}`")]
    TwiceNamed { column: String },
    #[error("a batch has {rows} rows; at most {limit} are allowed, see `limits.output_rows`")]
    TooManyRows { rows: u32, limit: u32 },
    #[error("column `{column}` has {rows} rows, the columns before it have {before}")]
    RowsDiffer {
        column: String,
        rows: u32,
        before: u32,
    },
    #[error("column `{column}` is declared {declared:?}, but its values are {given:?}")]
    KindsDiffer {
        column: String,
        declared: Kind,
        given: Kind,
    },
    #[error("column `{column}` has {given} {of}, not the {wanted} that its rows need")]
    Length {
        column: String,
        of: &'static str,
        wanted: usize,
        given: usize,
    },
    #[error("column `{column}`: the offset at {place} is {offset}, which {why}")]
    Offset {
        column: String,
        place: usize,
        offset: i32,
        why: &'static str,
    },
    #[error("column `{column}` holds bytes that are not UTF-8")]
    NotUtf8 { column: String },
    #[error("column `{column}` is declared without nulls, but has {nulls}")]
    UnexpectedNulls { column: String, nulls: usize },
    #[error("column `{column}` cannot be used: {reason}")]
    Arrow { column: String, reason: String },
}

/// A batch from columns.
pub(crate) fn batch(
    fields: &[types::Field],
    columns: Vec<ColumnIn>,
    bounds: &Bounds,
) -> Result<RecordBatch, Malformed> {
    check_names(fields, columns.len())?;
    let mut rows = None;
    let mut schema = Vec::with_capacity(fields.len());
    let mut arrays = Vec::with_capacity(fields.len());
    for (field, column) in fields.iter().zip(columns) {
        same_rows(field, column.rows, &mut rows, bounds)?;
        let array = array(field, column)?;
        schema.push(Field::new(
            &field.name,
            array.data_type().clone(),
            field.nullable,
        ));
        arrays.push(array);
    }
    let first = fields.first().map_or("", |field| field.name.as_str());
    RecordBatch::try_new(Arc::new(Schema::new(schema)), arrays).map_err(|error| Malformed::Arrow {
        column: show(first),
        reason: error.to_string(),
    })
}

/// A batch from columns in bytes.
pub(crate) fn raw_batch(
    fields: &[types::Field],
    columns: Vec<RawColumnIn>,
    bounds: &Bounds,
) -> Result<RecordBatch, Malformed> {
    check_names(fields, columns.len())?;
    let columns = fields
        .iter()
        .zip(columns)
        .map(|(field, column)| typed(field, column))
        .collect::<Result<Vec<_>, _>>()?;
    batch(fields, columns, bounds)
}

fn check_names(fields: &[types::Field], columns: usize) -> Result<(), Malformed> {
    if fields.len() != columns {
        return Err(Malformed::ColumnCount {
            fields: fields.len(),
            columns,
        });
    }
    check_fields(fields)
}

/// Names are there, short, and differ.
pub(crate) fn check_fields(fields: &[types::Field]) -> Result<(), Malformed> {
    if fields.len() > MAX_COLUMNS {
        return Err(Malformed::TooManyColumns {
            columns: fields.len(),
        });
    }
    let mut names = HashSet::with_capacity(fields.len());
    for field in fields {
        if field.name.is_empty() || field.name.len() > MAX_COLUMN_NAME_BYTES {
            return Err(Malformed::NameLength {
                bytes: field.name.len(),
            });
        }
        if !names.insert(field.name.as_str()) {
            return Err(Malformed::TwiceNamed {
                column: show(&field.name),
            });
        }
    }
    Ok(())
}

fn same_rows(
    field: &types::Field,
    rows: u32,
    before: &mut Option<u32>,
    bounds: &Bounds,
) -> Result<(), Malformed> {
    if rows > bounds.rows {
        return Err(Malformed::TooManyRows {
            rows,
            limit: bounds.rows,
        });
    }
    match before.replace(rows) {
        Some(before) if before != rows => Err(Malformed::RowsDiffer {
            column: show(&field.name),
            rows,
            before,
        }),
        _ => Ok(()),
    }
}

/// Numbers out of bytes: a whole number of them, and no offsets where there are no strings.
fn typed(field: &types::Field, column: RawColumnIn) -> Result<ColumnIn, Malformed> {
    let kind = Kind::from(column.kind);
    if kind != Kind::Utf8 && column.offsets.len() != 0 {
        return Err(Malformed::Length {
            column: show(&field.name),
            of: "bytes of offsets",
            wanted: 0,
            given: column.offsets.len(),
        });
    }
    let rows = column.rows as usize;
    let whole = |bytes: List<u8>, of: &'static str, wanted: usize| {
        if bytes.len() == wanted {
            Ok(bytes.into_buffer())
        } else {
            let given = bytes.len();
            Err(Malformed::Length {
                column: show(&field.name),
                of,
                wanted,
                given,
            })
        }
    };
    let values = match kind {
        Kind::Boolean => ValuesIn::Boolean(column.values),
        Kind::Int64 => ValuesIn::Int64(List::of_bytes(whole(
            column.values,
            "bytes of values",
            rows * 8,
        )?)),
        Kind::Float64 => ValuesIn::Float64(List::of_bytes(whole(
            column.values,
            "bytes of values",
            rows * 8,
        )?)),
        Kind::TimestampUs => ValuesIn::TimestampUs(List::of_bytes(whole(
            column.values,
            "bytes of values",
            rows * 8,
        )?)),
        Kind::Date32 => ValuesIn::Date32(List::of_bytes(whole(
            column.values,
            "bytes of values",
            rows * 4,
        )?)),
        Kind::Utf8 => ValuesIn::Utf8(StringsIn {
            offsets: List::of_bytes(whole(column.offsets, "bytes of offsets", (rows + 1) * 4)?),
            bytes: column.values,
        }),
    };
    Ok(ColumnIn {
        rows: column.rows,
        values,
        validity: column.validity,
    })
}

/// An array from a column.
fn array(field: &types::Field, column: ColumnIn) -> Result<ArrayRef, Malformed> {
    let name = &field.name;
    let rows = column.rows as usize;
    let declared = Kind::from(field.kind);
    let given = column.values.kind();
    if declared != given {
        return Err(Malformed::KindsDiffer {
            column: show(name),
            declared,
            given,
        });
    }
    let nulls = match column.validity {
        Some(bits) => Some(NullBuffer::new(bitmap(
            name,
            bits,
            rows,
            "bytes of validity",
        )?)),
        None => None,
    };
    let null_count = nulls.as_ref().map_or(0, NullBuffer::null_count);
    if null_count > 0 && !field.nullable {
        return Err(Malformed::UnexpectedNulls {
            column: show(name),
            nulls: null_count,
        });
    }
    let nulls = nulls.filter(|_| null_count > 0);
    let arrow = |error: arrow::error::ArrowError| Malformed::Arrow {
        column: show(name),
        reason: error.to_string(),
    };
    Ok(match column.values {
        ValuesIn::Boolean(bits) => Arc::new(BooleanArray::new(
            bitmap(name, bits, rows, "bytes of values")?,
            nulls,
        )),
        ValuesIn::Int64(values) => {
            length(name, "values", rows, values.len())?;
            Arc::new(Int64Array::try_new(values.into_scalars(), nulls).map_err(arrow)?)
        }
        ValuesIn::Float64(values) => {
            length(name, "values", rows, values.len())?;
            Arc::new(Float64Array::try_new(values.into_scalars(), nulls).map_err(arrow)?)
        }
        ValuesIn::Date32(values) => {
            length(name, "values", rows, values.len())?;
            Arc::new(Date32Array::try_new(values.into_scalars(), nulls).map_err(arrow)?)
        }
        ValuesIn::TimestampUs(values) => {
            length(name, "values", rows, values.len())?;
            Arc::new(
                TimestampMicrosecondArray::try_new(values.into_scalars(), nulls)
                    .map_err(arrow)?
                    .with_timezone("UTC"),
            )
        }
        ValuesIn::Utf8(strings) => Arc::new(string_array(name, strings, rows, nulls)?),
    })
}

fn string_array(
    name: &str,
    strings: StringsIn,
    rows: usize,
    nulls: Option<NullBuffer>,
) -> Result<StringArray, Malformed> {
    length(name, "offsets", rows + 1, strings.offsets.len())?;
    let offsets = strings.offsets.into_scalars();
    let bytes: Buffer = strings.bytes.into_buffer();
    let bad = |place: usize, why| Malformed::Offset {
        column: show(name),
        place,
        offset: offsets[place],
        why,
    };
    if offsets[0] != 0 {
        return Err(bad(0, "should be 0"));
    }
    if let Some(place) = offsets.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(bad(place + 1, "is smaller than the one before it"));
    }
    if usize::try_from(offsets[rows]) != Ok(bytes.len()) {
        return Err(bad(rows, "is not the number of bytes"));
    }
    // The offsets rise and end with the bytes, so `OffsetBuffer::new` does not panic; what
    // `try_new` still finds is about UTF-8: the bytes, and offsets within a character.
    StringArray::try_new(OffsetBuffer::new(offsets), bytes, nulls)
        .map_err(|_| Malformed::NotUtf8 { column: show(name) })
}

fn bitmap(
    name: &str,
    bits: List<u8>,
    rows: usize,
    of: &'static str,
) -> Result<BooleanBuffer, Malformed> {
    length(name, of, rows.div_ceil(8), bits.len())?;
    Ok(BooleanBuffer::new(bits.into_buffer(), 0, rows))
}

fn length(name: &str, of: &'static str, wanted: usize, given: usize) -> Result<(), Malformed> {
    if wanted == given {
        Ok(())
    } else {
        Err(Malformed::Length {
            column: show(name),
            of,
            wanted,
            given,
        })
    }
}

impl ValuesIn {
    fn kind(&self) -> Kind {
        match self {
            ValuesIn::Boolean(_) => Kind::Boolean,
            ValuesIn::Int64(_) => Kind::Int64,
            ValuesIn::Float64(_) => Kind::Float64,
            ValuesIn::Utf8(_) => Kind::Utf8,
            ValuesIn::Date32(_) => Kind::Date32,
            ValuesIn::TimestampUs(_) => Kind::TimestampUs,
        }
    }
}

fn show(name: &str) -> String {
    text::sentence(name, 64)
}
