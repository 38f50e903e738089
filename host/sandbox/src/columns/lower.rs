//! Arrow's arrays as the contract's columns. Nothing is copied here but what does not lie as the
//! contract wants it: bitmaps that start within a byte, and offsets of a slice.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, ScalarBuffer};
use arrow::datatypes::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use wasmtime::component::{ComponentType, Lower};

use super::list::List;
use crate::bindings::adapter::sandcast::plugin::types;
use crate::model::Kind;

/// `strings` of the contract.
#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct StringsOut {
    pub(crate) offsets: List<i32>,
    pub(crate) bytes: List<u8>,
}

/// `values` of the contract.
#[derive(Clone, Debug, ComponentType, Lower)]
#[component(variant)]
pub(crate) enum ValuesOut {
    #[component(name = "boolean")]
    Boolean(List<u8>),
    #[component(name = "int64")]
    Int64(List<i64>),
    #[component(name = "float64")]
    Float64(List<f64>),
    #[component(name = "utf8")]
    Utf8(StringsOut),
    #[component(name = "date32")]
    Date32(List<i32>),
    #[component(name = "timestamp-us")]
    TimestampUs(List<i64>),
}

/// `column` of the contract.
#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct ColumnOut {
    pub(crate) rows: u32,
    pub(crate) values: ValuesOut,
    pub(crate) validity: Option<List<u8>>,
}

/// `raw-column` of the contract.
#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct RawColumnOut {
    pub(crate) kind: types::Kind,
    pub(crate) rows: u32,
    pub(crate) values: List<u8>,
    pub(crate) offsets: List<u8>,
    pub(crate) validity: Option<List<u8>>,
}

impl ColumnOut {
    /// Bytes that go into the guest.
    pub(crate) fn bytes(&self) -> usize {
        let values = match &self.values {
            ValuesOut::Boolean(bits) => bits.bytes(),
            ValuesOut::Int64(values) | ValuesOut::TimestampUs(values) => values.bytes(),
            ValuesOut::Float64(values) => values.bytes(),
            ValuesOut::Date32(values) => values.bytes(),
            ValuesOut::Utf8(strings) => strings.offsets.bytes() + strings.bytes.bytes(),
        };
        values + self.validity.as_ref().map_or(0, List::bytes)
    }

    /// The same column as bytes, which on the host's side it already is.
    pub(crate) fn into_raw(self) -> RawColumnOut {
        let none = || List::of_bytes(Buffer::from_vec(Vec::<u8>::new()));
        let (kind, values, offsets) = match self.values {
            ValuesOut::Boolean(bits) => (types::Kind::Boolean, bits, none()),
            ValuesOut::Int64(values) => (
                types::Kind::Int64,
                List::of_bytes(values.into_buffer()),
                none(),
            ),
            ValuesOut::Float64(values) => (
                types::Kind::Float64,
                List::of_bytes(values.into_buffer()),
                none(),
            ),
            ValuesOut::Utf8(strings) => (
                types::Kind::Utf8,
                strings.bytes,
                List::of_bytes(strings.offsets.into_buffer()),
            ),
            ValuesOut::Date32(values) => (
                types::Kind::Date32,
                List::of_bytes(values.into_buffer()),
                none(),
            ),
            ValuesOut::TimestampUs(values) => (
                types::Kind::TimestampUs,
                List::of_bytes(values.into_buffer()),
                none(),
            ),
        };
        RawColumnOut {
            kind,
            rows: self.rows,
            values,
            offsets,
            validity: self.validity,
        }
    }
}

impl RawColumnOut {
    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (types::Kind, u32, List<u8>, List<u8>, Option<List<u8>>) {
        (
            self.kind,
            self.rows,
            self.values,
            self.offsets,
            self.validity,
        )
    }

    /// Bytes that go into the guest.
    pub(crate) fn bytes(&self) -> usize {
        self.values.bytes() + self.offsets.bytes() + self.validity.as_ref().map_or(0, List::bytes)
    }
}

/// A column of the contract over the buffers of an array.
pub(crate) fn column(array: &ArrayRef) -> Result<ColumnOut, String> {
    let rows = u32::try_from(array.len()).map_err(|_| "the column is too long".to_owned())?;
    let kind = Kind::of(array.data_type())
        .ok_or_else(|| format!("{} is not a type that plugins know", array.data_type()))?;
    let values = match kind {
        Kind::Boolean => {
            ValuesOut::Boolean(List::of_bytes(whole_bytes(array.as_boolean().values())))
        }
        Kind::Int64 => ValuesOut::Int64(List::of(array.as_primitive::<Int64Type>().values())),
        Kind::Float64 => ValuesOut::Float64(List::of(array.as_primitive::<Float64Type>().values())),
        Kind::Date32 => ValuesOut::Date32(List::of(array.as_primitive::<Date32Type>().values())),
        Kind::TimestampUs => ValuesOut::TimestampUs(List::of(
            array.as_primitive::<TimestampMicrosecondType>().values(),
        )),
        Kind::Utf8 => {
            let strings = array.as_string::<i32>();
            let (offsets, bytes) = from_zero(strings.offsets().inner(), strings.values());
            ValuesOut::Utf8(StringsOut {
                offsets: List::of(&offsets),
                bytes: List::of_bytes(bytes),
            })
        }
    };
    let validity = array
        .nulls()
        .filter(|nulls| nulls.null_count() > 0)
        .map(|nulls| List::of_bytes(whole_bytes(nulls.inner())));
    Ok(ColumnOut {
        rows,
        values,
        validity,
    })
}

/// Bits from the first of a byte on, in as few bytes as hold them; the bits after the last are 0.
fn whole_bytes(bits: &BooleanBuffer) -> Buffer {
    let bytes = bits.len().div_ceil(8);
    let buffer = if bits.offset().is_multiple_of(8) {
        bits.inner().slice_with_length(bits.offset() / 8, bytes)
    } else {
        bits.sliced().slice_with_length(0, bytes)
    };
    let spare = bytes * 8 - bits.len();
    let last = buffer.as_slice().last().copied().unwrap_or(0);
    let kept = 0xff_u8 >> spare;
    if last & !kept == 0 {
        return buffer;
    }
    let mut clean = MutableBuffer::with_capacity(bytes);
    clean.extend_from_slice(buffer.as_slice());
    if let Some(byte) = clean.as_slice_mut().last_mut() {
        *byte &= kept;
    }
    clean.into()
}

/// Offsets that start at 0, and just the bytes they speak of.
fn from_zero(offsets: &ScalarBuffer<i32>, bytes: &Buffer) -> (ScalarBuffer<i32>, Buffer) {
    let first = offsets.first().copied().unwrap_or(0);
    let last = offsets.last().copied().unwrap_or(0);
    // Arrow keeps offsets rising and within the bytes.
    let spoken_of = bytes.slice_with_length(first as usize, (last - first) as usize);
    if first == 0 {
        return (offsets.clone(), spoken_of);
    }
    (
        offsets.iter().map(|offset| offset - first).collect(),
        spoken_of,
    )
}
