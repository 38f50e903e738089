//! Typed views of a column.

use crate::{Column, Values};

/// Which rows of a column are there.
#[derive(Debug, Clone, Copy)]
pub struct Validity<'a>(Option<&'a [u8]>);

impl<'a> Validity<'a> {
    /// Over a bitmap, least significant bit first; `None` when every row is there.
    #[must_use]
    pub fn new(bits: Option<&'a [u8]>) -> Self {
        Self(bits)
    }

    /// The bitmap, if there is one.
    #[must_use]
    pub fn bits(self) -> Option<&'a [u8]> {
        self.0
    }

    /// Whether a row is there. A row past the end is not.
    #[inline]
    #[must_use]
    pub fn is_valid(self, row: usize) -> bool {
        match self.0 {
            None => true,
            Some(bits) => bits
                .get(row / 8)
                .is_some_and(|byte| byte >> (row % 8) & 1 == 1),
        }
    }

    /// Rows `64 * block` to `64 * block + 63` as a word, the first row in the lowest bit. Bits past
    /// the bitmap are 0; without one, all are 1.
    #[inline]
    #[must_use]
    pub fn word(self, block: usize) -> u64 {
        let Some(bits) = self.0 else { return u64::MAX };
        let rest = bits.get(block * 8..).unwrap_or_default();
        if let Some(bytes) = rest.first_chunk::<8>() {
            return u64::from_le_bytes(*bytes);
        }
        let mut bytes = [0; 8];
        bytes[..rest.len()].copy_from_slice(rest);
        u64::from_le_bytes(bytes)
    }
}

/// Numbers, dates or times.
#[derive(Debug, Clone, Copy)]
pub struct PrimitiveView<'a, T> {
    /// A row that is null holds an arbitrary value.
    pub values: &'a [T],
    /// Which rows are there.
    pub validity: Validity<'a>,
}

impl<'a, T: Copy> PrimitiveView<'a, T> {
    /// The value of a row; `None` where it is null or past the end.
    #[inline]
    #[must_use]
    pub fn get(&self, row: usize) -> Option<T> {
        let value = *self.values.get(row)?;
        self.validity.is_valid(row).then_some(value)
    }

    /// Every row in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<T>> + 'a {
        let validity = self.validity;
        self.values
            .iter()
            .enumerate()
            .map(move |(row, value)| validity.is_valid(row).then_some(*value))
    }
}

/// True and false.
#[derive(Debug, Clone, Copy)]
pub struct BooleanView<'a> {
    bits: Validity<'a>,
    rows: usize,
    /// Which rows are there.
    pub validity: Validity<'a>,
}

impl BooleanView<'_> {
    /// The value of a row; `None` where it is null or past the end.
    #[inline]
    #[must_use]
    pub fn get(&self, row: usize) -> Option<bool> {
        (row < self.rows && self.validity.is_valid(row)).then(|| self.bits.is_valid(row))
    }
}

/// Strings, checked once to be UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct StringView<'a> {
    offsets: &'a [i32],
    text: &'a str,
    /// Which rows are there.
    pub validity: Validity<'a>,
}

impl<'a> StringView<'a> {
    /// The value of a row; `None` where it is null or past the end.
    #[inline]
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&'a str> {
        if !self.validity.is_valid(row) {
            return None;
        }
        let start = usize::try_from(*self.offsets.get(row)?).ok()?;
        let end = usize::try_from(*self.offsets.get(row + 1)?).ok()?;
        self.text.get(start..end)
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Every row in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a str>> {
        let view = *self;
        (0..self.rows()).map(move |row| view.get(row))
    }
}

impl Column {
    /// Which rows are there.
    #[must_use]
    pub fn valid(&self) -> Validity<'_> {
        Validity(self.validity.as_deref())
    }

    /// Whether a row is null.
    #[inline]
    #[must_use]
    pub fn is_null(&self, row: usize) -> bool {
        !self.valid().is_valid(row)
    }

    /// How many rows are null.
    #[must_use]
    pub fn null_count(&self) -> u64 {
        crate::kernels::null_count(self.rows as usize, self.validity.as_deref())
    }

    /// The column as whole numbers, if it is one of them.
    #[must_use]
    pub fn int64(&self) -> Option<PrimitiveView<'_, i64>> {
        match &self.values {
            Values::Int64(values) => Some(PrimitiveView {
                values,
                validity: self.valid(),
            }),
            _ => None,
        }
    }

    /// The column as numbers, if it is one of them.
    #[must_use]
    pub fn float64(&self) -> Option<PrimitiveView<'_, f64>> {
        match &self.values {
            Values::Float64(values) => Some(PrimitiveView {
                values,
                validity: self.valid(),
            }),
            _ => None,
        }
    }

    /// The column as days since 1970-01-01, if it is one of dates.
    #[must_use]
    pub fn date32(&self) -> Option<PrimitiveView<'_, i32>> {
        match &self.values {
            Values::Date32(values) => Some(PrimitiveView {
                values,
                validity: self.valid(),
            }),
            _ => None,
        }
    }

    /// The column as microseconds since 1970-01-01T00:00:00Z, if it is one of times.
    #[must_use]
    pub fn timestamp_us(&self) -> Option<PrimitiveView<'_, i64>> {
        match &self.values {
            Values::TimestampUs(values) => Some(PrimitiveView {
                values,
                validity: self.valid(),
            }),
            _ => None,
        }
    }

    /// The column as booleans, if it is one of them.
    #[must_use]
    pub fn boolean(&self) -> Option<BooleanView<'_>> {
        match &self.values {
            Values::Boolean(bits) => Some(BooleanView {
                bits: Validity(Some(bits)),
                rows: self.rows as usize,
                validity: self.valid(),
            }),
            _ => None,
        }
    }

    /// The column as strings, if it is one of them. Checks their UTF-8 once.
    #[must_use]
    pub fn utf8(&self) -> Option<StringView<'_>> {
        match &self.values {
            Values::Utf8(strings) => Some(StringView {
                offsets: &strings.offsets,
                text: std::str::from_utf8(&strings.bytes).ok()?,
                validity: self.valid(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_past_the_bitmap_are_zero() {
        let validity = Validity::new(Some(&[0xff; 9]));
        assert_eq!(validity.word(0), u64::MAX);
        assert_eq!(validity.word(1), 0xff);
        assert_eq!(validity.word(2), 0);
        assert_eq!(Validity::new(None).word(9), u64::MAX);
    }

    #[test]
    fn strings_with_odd_offsets_are_none_not_a_panic() {
        let strings = crate::Strings {
            offsets: vec![0, 9, -1, 2],
            bytes: "aé".into(),
        };
        let column = Column {
            rows: 3,
            values: Values::Utf8(strings),
            validity: None,
        };
        let view = column.utf8().expect("utf-8");
        assert_eq!(view.iter().collect::<Vec<_>>(), [None, None, None]);
    }
}
