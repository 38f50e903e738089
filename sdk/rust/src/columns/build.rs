//! Builders of columns, a value at a time.

use crate::{Column, Kind, Strings, Values};

/// Which rows are there; nothing is kept until the first null.
#[derive(Debug, Clone, Default)]
struct ValidityBuilder {
    bits: Option<Vec<u8>>,
    rows: usize,
}

impl ValidityBuilder {
    #[inline]
    fn push(&mut self, valid: bool) {
        let row = self.rows;
        self.rows += 1;
        if self.bits.is_none() {
            if valid {
                return;
            }
            self.bits = Some(all_set(row));
        }
        if let Some(bits) = &mut self.bits {
            push_bit(bits, row, valid);
        }
    }
}

/// A bitmap of that many set bits; the bits past them are 0.
fn all_set(rows: usize) -> Vec<u8> {
    let mut bits = vec![0xff; rows / 8];
    if !rows.is_multiple_of(8) {
        bits.push((1_u8 << (rows % 8)) - 1);
    }
    bits
}

/// Appends a bit as number `row`, the count of the bits before it.
#[inline]
fn push_bit(bits: &mut Vec<u8>, row: usize, bit: bool) {
    if row.is_multiple_of(8) {
        bits.push(u8::from(bit));
    } else if let Some(last) = bits.last_mut() {
        *last |= u8::from(bit) << (row % 8);
    }
}

/// Builds a column of numbers, dates or times.
#[derive(Debug, Clone)]
pub struct PrimitiveBuilder<T> {
    values: Vec<T>,
    validity: ValidityBuilder,
}

impl<T> Default for PrimitiveBuilder<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            validity: ValidityBuilder::default(),
        }
    }
}

impl<T: Default> PrimitiveBuilder<T> {
    /// Appends a value.
    #[inline]
    pub fn push(&mut self, value: T) {
        self.values.push(value);
        self.validity.push(true);
    }

    /// Appends a row without a value.
    #[inline]
    pub fn push_null(&mut self) {
        self.values.push(T::default());
        self.validity.push(false);
    }
}

/// Builds a column of booleans.
#[derive(Debug, Clone, Default)]
pub struct BooleanBuilder {
    bits: Vec<u8>,
    validity: ValidityBuilder,
}

impl BooleanBuilder {
    /// Appends a value.
    #[inline]
    pub fn push(&mut self, value: bool) {
        push_bit(&mut self.bits, self.validity.rows, value);
        self.validity.push(true);
    }

    /// Appends a row without a value.
    #[inline]
    pub fn push_null(&mut self) {
        push_bit(&mut self.bits, self.validity.rows, false);
        self.validity.push(false);
    }
}

/// Builds a column of strings. Offsets are 32-bit: see [`StringBuilder::bytes`].
#[derive(Debug, Clone)]
pub struct StringBuilder {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    validity: ValidityBuilder,
}

impl Default for StringBuilder {
    fn default() -> Self {
        Self {
            offsets: vec![0],
            bytes: Vec::new(),
            validity: ValidityBuilder::default(),
        }
    }
}

impl StringBuilder {
    /// Appends a value. A column whose strings come to more than 2 GiB is refused by the host; end
    /// the batch well before.
    #[inline]
    pub fn push(&mut self, value: &str) {
        self.bytes.extend_from_slice(value.as_bytes());
        self.end_row(true);
    }

    /// Appends a row without a value.
    #[inline]
    pub fn push_null(&mut self) {
        self.end_row(false);
    }

    /// How many bytes the strings come to so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    fn end_row(&mut self, valid: bool) {
        self.offsets
            .push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
        self.validity.push(valid);
    }
}

/// Builds a column of a kind that is known only when the plugin runs. Match on it to push values.
#[derive(Debug, Clone)]
pub enum ColumnBuilder {
    /// True and false.
    Boolean(BooleanBuilder),
    /// Whole numbers.
    Int64(PrimitiveBuilder<i64>),
    /// Numbers.
    Float64(PrimitiveBuilder<f64>),
    /// Strings.
    Utf8(StringBuilder),
    /// Days since 1970-01-01.
    Date32(PrimitiveBuilder<i32>),
    /// Microseconds since 1970-01-01T00:00:00Z.
    TimestampUs(PrimitiveBuilder<i64>),
}

impl ColumnBuilder {
    /// An empty column.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        match kind {
            Kind::Boolean => Self::Boolean(BooleanBuilder::default()),
            Kind::Int64 => Self::Int64(PrimitiveBuilder::default()),
            Kind::Float64 => Self::Float64(PrimitiveBuilder::default()),
            Kind::Utf8 => Self::Utf8(StringBuilder::default()),
            Kind::Date32 => Self::Date32(PrimitiveBuilder::default()),
            Kind::TimestampUs => Self::TimestampUs(PrimitiveBuilder::default()),
        }
    }

    /// Appends a row without a value.
    #[inline]
    pub fn push_null(&mut self) {
        match self {
            Self::Boolean(builder) => builder.push_null(),
            Self::Int64(builder) | Self::TimestampUs(builder) => builder.push_null(),
            Self::Float64(builder) => builder.push_null(),
            Self::Utf8(builder) => builder.push_null(),
            Self::Date32(builder) => builder.push_null(),
        }
    }

    /// How many rows there are so far.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Boolean(builder) => builder.validity.rows,
            Self::Int64(builder) | Self::TimestampUs(builder) => builder.validity.rows,
            Self::Float64(builder) => builder.validity.rows,
            Self::Utf8(builder) => builder.validity.rows,
            Self::Date32(builder) => builder.validity.rows,
        }
    }

    /// The column. The host refuses one of more than `u32::MAX` rows.
    #[must_use]
    pub fn finish(self) -> Column {
        match self {
            Self::Boolean(builder) => column(Values::Boolean(builder.bits), builder.validity),
            Self::Int64(builder) => column(Values::Int64(builder.values), builder.validity),
            Self::Float64(builder) => column(Values::Float64(builder.values), builder.validity),
            Self::Utf8(builder) => {
                let strings = Strings {
                    offsets: builder.offsets,
                    bytes: builder.bytes,
                };
                column(Values::Utf8(strings), builder.validity)
            }
            Self::Date32(builder) => column(Values::Date32(builder.values), builder.validity),
            Self::TimestampUs(builder) => {
                column(Values::TimestampUs(builder.values), builder.validity)
            }
        }
    }
}

fn column(values: Values, validity: ValidityBuilder) -> Column {
    Column {
        rows: u32::try_from(validity.rows).unwrap_or(u32::MAX),
        values,
        validity: validity.bits,
    }
}

impl From<Vec<f64>> for Column {
    fn from(values: Vec<f64>) -> Self {
        let rows = u32::try_from(values.len()).unwrap_or(u32::MAX);
        Self {
            rows,
            values: Values::Float64(values),
            validity: None,
        }
    }
}

impl From<Vec<i64>> for Column {
    fn from(values: Vec<i64>) -> Self {
        let rows = u32::try_from(values.len()).unwrap_or(u32::MAX);
        Self {
            rows,
            values: Values::Int64(values),
            validity: None,
        }
    }
}

impl<S: AsRef<str>> FromIterator<Option<S>> for Column {
    /// A column of strings.
    fn from_iter<I: IntoIterator<Item = Option<S>>>(values: I) -> Self {
        let mut builder = StringBuilder::default();
        for value in values {
            match value {
                Some(value) => builder.push(value.as_ref()),
                None => builder.push_null(),
            }
        }
        ColumnBuilder::Utf8(builder).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nulls_means_no_bitmap() {
        let mut builder = PrimitiveBuilder::default();
        builder.push(1_i64);
        builder.push(2);
        assert!(ColumnBuilder::Int64(builder).finish().validity.is_none());
    }

    #[test]
    fn a_null_anywhere_keeps_the_rows_before_it() {
        for first_null in 0..20_usize {
            let mut builder = PrimitiveBuilder::default();
            for row in 0..20_usize {
                if row == first_null {
                    builder.push_null()
                } else {
                    builder.push(row as f64)
                }
            }
            let column = ColumnBuilder::Float64(builder).finish();
            let bits = column.validity.as_ref().expect("a bitmap");
            assert_eq!(bits.len(), 3);
            assert_eq!(bits[2] >> 4, 0, "bits past the end are 0");
            let nulls: Vec<usize> = (0..20).filter(|&row| column.is_null(row)).collect();
            assert_eq!(nulls, [first_null]);
        }
    }

    #[test]
    fn booleans_pack_into_bits() {
        let mut builder = BooleanBuilder::default();
        for row in 0..11 {
            builder.push(row % 3 == 0);
        }
        builder.push_null();
        let column = ColumnBuilder::Boolean(builder).finish();
        let view = column.boolean().expect("booleans");
        let seen: Vec<Option<bool>> = (0..12).map(|row| view.get(row)).collect();
        assert_eq!(seen[0], Some(true));
        assert_eq!(seen[1], Some(false));
        assert_eq!(seen[9], Some(true));
        assert_eq!(seen[11], None);
    }
}
