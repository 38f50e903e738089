//! Tensor elements into an Arrow column: the one place where a client's values are checked.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use sandcast_sandbox::{Field, Kind};
use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::message::Datatype;

/// The datatypes that a column takes, the one that loses nothing first.
pub(super) fn accepted(kind: Kind) -> &'static [Datatype] {
    use Datatype::{
        Bool, Bytes, Fp32, Fp64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64,
    };
    match kind {
        Kind::Boolean => &[Bool],
        Kind::Int64 => &[
            Int64, Int32, Int16, Int8, Uint8, Uint16, Uint32, Uint64, Fp64, Fp32,
        ],
        Kind::Float64 => &[
            Fp64, Fp32, Int64, Int32, Int16, Int8, Uint8, Uint16, Uint32, Uint64,
        ],
        Kind::Utf8 => &[Bytes],
        Kind::Date32 => &[Bytes, Int32],
        Kind::TimestampUs => &[Bytes, Int64],
    }
}

/// Reads the elements of a JSON tensor, flat or nested.
pub(super) fn from_json(field: &Field, rows: usize, data: &RawValue) -> Result<ArrayRef, String> {
    let mut column = ColumnBuilder::new(field, rows);
    let mut reader = serde_json::Deserializer::from_str(data.get());
    // The column's own complaint says more than the position that serde_json adds.
    let parsed = Elements {
        column: &mut column,
        depth: 0,
    }
    .deserialize(&mut reader);
    match (column.complaint.take(), parsed) {
        (Some(complaint), _) => Err(complaint),
        (None, Err(error)) => Err(error.to_string()),
        (None, Ok(())) => column.finish(),
    }
}

/// Reads the little-endian elements of a binary tensor.
pub(super) fn from_binary(
    field: &Field,
    rows: usize,
    datatype: Datatype,
    mut bytes: &[u8],
) -> Result<ArrayRef, String> {
    let mut column = ColumnBuilder::new(field, rows);
    match datatype.width() {
        Some(width) => {
            if bytes.len() != rows * width {
                let (found, wanted) = (bytes.len(), rows * width);
                return Err(format!(
                    "{found} bytes of data; expected {wanted}, {width} an element of {datatype}"
                ));
            }
            for element in bytes.chunks_exact(width) {
                column.push(fixed_width(datatype, element))?;
            }
        }
        None => {
            while !bytes.is_empty() {
                let (text, rest) = length_and_text(bytes).ok_or_else(|| {
                    format!("row {}: the data ends inside of an element", column.rows)
                })?;
                let text = std::str::from_utf8(text)
                    .map_err(|_| format!("row {}: the text is not UTF-8", column.rows))?;
                column.push(Element::Text(text))?;
                bytes = rest;
            }
        }
    }
    column.finish()
}

fn length_and_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// An element of a type that has a width; `bytes` has that many.
fn fixed_width(datatype: Datatype, bytes: &[u8]) -> Element<'static> {
    let mut low = [0; 8];
    low[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(low);
    match datatype {
        Datatype::Bool => Element::Boolean(bits != 0),
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 | Datatype::Uint64 => {
            Element::unsigned(bits)
        }
        Datatype::Int8 => Element::Integer(i64::from(bits as u8 as i8)),
        Datatype::Int16 => Element::Integer(i64::from(bits as u16 as i16)),
        Datatype::Int32 => Element::Integer(i64::from(bits as u32 as i32)),
        Datatype::Int64 => Element::Integer(bits as i64),
        Datatype::Fp32 => Element::Number(f64::from(f32::from_bits(bits as u32))),
        Datatype::Fp64 => Element::Number(f64::from_bits(bits)),
        Datatype::Bytes => Element::Null,
    }
}

/// One value as a client wrote it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Element<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(&'a str),
}

impl Element<'_> {
    fn unsigned(value: u64) -> Self {
        i64::try_from(value).map_or(Element::Number(value as f64), Element::Integer)
    }
}

impl fmt::Display for Element<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        match self {
            Self::Null => formatter.write_str("null"),
            Self::Boolean(value) => write!(formatter, "{value}"),
            Self::Integer(value) => write!(formatter, "{value}"),
            Self::Number(value) => write!(formatter, "{value:?}"),
            Self::Text(text) if text.chars().count() > SHOWN => {
                let start: String = text.chars().take(SHOWN).collect();
                write!(formatter, "{start:?} and more")
            }
            Self::Text(text) => write!(formatter, "{text:?}"),
        }
    }
}

/// Collects the elements of one column, at most as many as the shape says.
struct ColumnBuilder<'a> {
    field: &'a Field,
    expected: usize,
    rows: usize,
    nulls: usize,
    values: Values,
    complaint: Option<String>,
}

enum Values {
    Boolean(BooleanBuilder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Utf8(StringBuilder),
    Date32(Date32Builder),
    TimestampUs(TimestampMicrosecondBuilder),
}

impl<'a> ColumnBuilder<'a> {
    fn new(field: &'a Field, rows: usize) -> Self {
        let values = match field.kind {
            Kind::Boolean => Values::Boolean(BooleanBuilder::with_capacity(rows)),
            Kind::Int64 => Values::Int64(Int64Builder::with_capacity(rows)),
            Kind::Float64 => Values::Float64(Float64Builder::with_capacity(rows)),
            Kind::Utf8 => Values::Utf8(StringBuilder::with_capacity(rows, 0)),
            Kind::Date32 => Values::Date32(Date32Builder::with_capacity(rows)),
            Kind::TimestampUs => Values::TimestampUs(
                TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            ),
        };
        Self {
            field,
            expected: rows,
            rows: 0,
            nulls: 0,
            values,
            complaint: None,
        }
    }

    fn push(&mut self, element: Element<'_>) -> Result<(), String> {
        if self.rows == self.expected {
            return Err(format!(
                "the shape says {} rows, but there is more data",
                self.expected
            ));
        }
        let taken = match element {
            Element::Null => self.push_null(),
            // NaN is how clients without nulls write a missing number.
            Element::Number(value) if value.is_nan() => self.push_null(),
            element => self.values.push(element),
        };
        taken.map_err(|wanted| format!("row {}: {element} is not {wanted}", self.rows))?;
        self.rows += 1;
        Ok(())
    }

    fn push_null(&mut self) -> Result<(), &'static str> {
        if !self.field.nullable {
            return Err("allowed: the model was trained on rows that all have a value");
        }
        self.nulls += 1;
        match &mut self.values {
            Values::Boolean(values) => values.append_null(),
            Values::Int64(values) => values.append_null(),
            Values::Float64(values) => values.append_null(),
            Values::Utf8(values) => values.append_null(),
            Values::Date32(values) => values.append_null(),
            Values::TimestampUs(values) => values.append_null(),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<ArrayRef, String> {
        if self.rows != self.expected {
            return Err(format!(
                "the shape says {} rows, but there is data for {}",
                self.expected, self.rows
            ));
        }
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(values.finish()),
            Values::Int64(values) => Arc::new(values.finish()),
            Values::Float64(values) => Arc::new(values.finish()),
            Values::Utf8(values) => Arc::new(values.finish()),
            Values::Date32(values) => Arc::new(values.finish()),
            Values::TimestampUs(values) => Arc::new(values.finish()),
        })
    }
}

impl Values {
    /// Takes a value, or says what it should have been.
    fn push(&mut self, element: Element<'_>) -> Result<(), &'static str> {
        match self {
            Self::Boolean(values) => values.append_value(match element {
                Element::Boolean(value) => value,
                Element::Integer(0) => false,
                Element::Integer(1) => true,
                _ => return Err("a boolean"),
            }),
            Self::Int64(values) => values.append_value(whole(element).ok_or("a whole number")?),
            Self::Float64(values) => values.append_value(match element {
                Element::Integer(value) => value as f64,
                Element::Number(value) if value.is_finite() => value,
                _ => return Err("a finite number"),
            }),
            Self::Utf8(values) => match element {
                Element::Text(text) => values.append_value(text),
                _ => return Err("text"),
            },
            Self::Date32(values) => values.append_value(
                days(element).ok_or("a date such as \"2026-11-21\", or days since 1970")?,
            ),
            Self::TimestampUs(values) => values
                .append_value(microseconds(element).ok_or(
                    "a time such as \"2026-11-21T20:15:30Z\", or microseconds since 1970",
                )?),
        }
        Ok(())
    }
}

/// A whole number, also where a client wrote it as a float that is exact.
fn whole(element: Element<'_>) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    match element {
        Element::Integer(value) => Some(value),
        Element::Number(value) if value.fract() == 0.0 && value.abs() <= EXACT => {
            Some(value as i64)
        }
        _ => None,
    }
}

fn days(element: Element<'_>) -> Option<i32> {
    match element {
        Element::Text(text) => {
            let date: jiff::civil::Date = text.parse().ok()?;
            let epoch = jiff::civil::date(1970, 1, 1);
            Some(epoch.until(date).ok()?.get_days())
        }
        element => i32::try_from(whole(element)?).ok(),
    }
}

fn microseconds(element: Element<'_>) -> Option<i64> {
    match element {
        Element::Text(text) => Some(text.parse::<jiff::Timestamp>().ok()?.as_microsecond()),
        element => whole(element),
    }
}

/// Walks arrays of elements, nested or not, and gives each to the column.
struct Elements<'c, 'a> {
    column: &'c mut ColumnBuilder<'a>,
    depth: u8,
}

/// `[n]` needs one level, `[n, 1]` a second.
const DEEPEST: u8 = 2;

impl Elements<'_, '_> {
    fn take<E: Error>(self, element: Element<'_>) -> Result<(), E> {
        let result = if self.depth == 0 {
            Err(format!("the data is {element}; expected an array"))
        } else {
            self.column.push(element)
        };
        result.map_err(|complaint| {
            self.column.complaint = Some(complaint);
            E::custom("see the complaint")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Elements<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of numbers, booleans, strings and nulls")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        if self.depth == DEEPEST {
            return Err(A::Error::custom("the arrays are nested too deep"));
        }
        let depth = self.depth + 1;
        while sequence
            .next_element_seed(Elements {
                column: &mut *self.column,
                depth,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.take(Element::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.take(Element::Boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.take(Element::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.take(Element::unsigned(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.take(Element::Number(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.take(Element::Text(value))
    }
}
