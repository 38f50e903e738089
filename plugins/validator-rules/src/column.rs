//! Columns as slices, and the rows that fail as bits.
//!
//! Every test works on blocks of 64 rows: one word of validity, one word of result.

use sandcast_sdk::Kind;

/// Rows of a block.
const BLOCK: usize = 64;

/// How many characters of a string a message shows.
const SHOWN_CHARACTERS: usize = 40;

/// The values of a column. A row that is null holds an arbitrary value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a> {
    /// A bitmap, least significant bit first.
    Boolean(&'a [u8]),
    Int64(&'a [i64]),
    Float64(&'a [f64]),
    Utf8(Strings<'a>),
    /// Days since 1970-01-01.
    Date32(&'a [i32]),
    /// Microseconds since 1970-01-01T00:00:00Z.
    TimestampUs(&'a [i64]),
}

/// Strings one after the other; `offsets` has one entry more than there are rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strings<'a> {
    pub(crate) offsets: &'a [i32],
    pub(crate) bytes: &'a [u8],
}

impl<'a> Strings<'a> {
    /// The bytes of a row; none for a row that is not there.
    pub(crate) fn get(&self, row: usize) -> &'a [u8] {
        match self.offsets.get(row..row + 2) {
            Some(&[start, end]) => self
                .bytes
                .get(start as usize..end as usize)
                .unwrap_or_default(),
            _ => &[],
        }
    }
}

/// A column of one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column<'a> {
    pub(crate) name: &'a str,
    pub(crate) rows: usize,
    pub(crate) values: Values<'a>,
    /// A bitmap, least significant bit first; absent when every value is there.
    pub(crate) validity: Option<&'a [u8]>,
}

impl<'a> Column<'a> {
    /// A column as the host hands it over, where its parts are as long as its rows say.
    pub(crate) fn view(name: &'a str, column: &'a sandcast_sdk::Column) -> Option<Self> {
        use sandcast_sdk::Values as Given;
        let rows = column.rows as usize;
        let (values, is_long_enough) = match &column.values {
            Given::Boolean(bitmap) => (Values::Boolean(bitmap), bitmap.len() >= rows.div_ceil(8)),
            Given::Int64(values) => (Values::Int64(values), values.len() >= rows),
            Given::Float64(values) => (Values::Float64(values), values.len() >= rows),
            Given::Utf8(strings) => (
                Values::Utf8(Strings {
                    offsets: &strings.offsets,
                    bytes: &strings.bytes,
                }),
                strings.offsets.len() > rows,
            ),
            Given::Date32(values) => (Values::Date32(values), values.len() >= rows),
            Given::TimestampUs(values) => (Values::TimestampUs(values), values.len() >= rows),
        };
        let validity = column.validity.as_deref();
        let is_whole =
            is_long_enough && validity.is_none_or(|bitmap| bitmap.len() >= rows.div_ceil(8));
        is_whole.then_some(Self {
            name,
            rows,
            values,
            validity,
        })
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.values {
            Values::Boolean(_) => Kind::Boolean,
            Values::Int64(_) => Kind::Int64,
            Values::Float64(_) => Kind::Float64,
            Values::Utf8(_) => Kind::Utf8,
            Values::Date32(_) => Kind::Date32,
            Values::TimestampUs(_) => Kind::TimestampUs,
        }
    }

    /// Which rows of a block hold a value. Bits past the last row are not set.
    pub(crate) fn valid_word(&self, block: usize) -> u64 {
        let rows_left = self.rows.saturating_sub(block * BLOCK);
        let inside = if rows_left >= BLOCK {
            u64::MAX
        } else {
            (1 << rows_left) - 1
        };
        inside & self.validity.map_or(u64::MAX, |bitmap| word(bitmap, block))
    }

    pub(crate) fn is_valid(&self, row: usize) -> bool {
        self.valid_word(row / BLOCK) >> (row % BLOCK) & 1 == 1
    }

    /// The value of a row as a message shows it.
    pub(crate) fn show(&self, row: usize) -> String {
        if !self.is_valid(row) {
            return "null".into();
        }
        match self.values {
            Values::Boolean(bitmap) => {
                (word(bitmap, row / BLOCK) >> (row % BLOCK) & 1 == 1).to_string()
            }
            Values::Int64(values) => values[row].to_string(),
            Values::Float64(values) => values[row].to_string(),
            Values::Utf8(strings) => quoted(&String::from_utf8_lossy(strings.get(row))),
            Values::Date32(values) => crate::times::show_date(values[row]),
            Values::TimestampUs(values) => crate::times::show_timestamp(values[row]),
        }
    }
}

/// A text in quotes, cut to what a message shows.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}...", &text[..cut]),
    }
}

/// 64 bits of a bitmap; bits past its end are not set.
pub(crate) fn word(bitmap: &[u8], block: usize) -> u64 {
    let bytes = bitmap.get(block * 8..).unwrap_or_default();
    match bytes.first_chunk::<8>() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => bytes
            .iter()
            .enumerate()
            .fold(0, |word, (at, byte)| word | u64::from(*byte) << (8 * at)),
    }
}

/// One bit a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RowBits {
    words: Vec<u64>,
}

impl RowBits {
    /// Asks for a word for each block of `rows` rows.
    pub(crate) fn from_words(rows: usize, word_of_block: impl FnMut(usize) -> u64) -> Self {
        Self {
            words: (0..rows.div_ceil(BLOCK)).map(word_of_block).collect(),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// The rows whose bit is set, rising.
    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> {
        self.words
            .iter()
            .enumerate()
            .flat_map(|(block, &word)| word_rows(block, word))
    }
}

/// The rows of a block whose bit is set, rising.
pub(crate) fn word_rows(block: usize, word: u64) -> impl Iterator<Item = usize> {
    std::iter::successors((word != 0).then_some(word), |word| {
        let rest = word & (word - 1);
        (rest != 0).then_some(rest)
    })
    .map(move |word| block * BLOCK + word.trailing_zeros() as usize)
}

/// The rows that hold a value for which `fails` is true.
///
/// A block is first asked as a whole, a loop without branches that the compiler vectorises; only
/// a block in which something fails is asked row by row.
pub(crate) fn failing<T: Copy>(
    column: &Column<'_>,
    values: &[T],
    fails: impl Fn(T) -> bool,
) -> RowBits {
    RowBits::from_words(column.rows, |block| {
        let start = block * BLOCK;
        let values = values.get(start..).unwrap_or_default();
        let values = &values[..values.len().min(BLOCK)];
        let any = values.iter().fold(false, |any, &value| any | fails(value));
        if !any {
            return 0;
        }
        let mut word = 0;
        for (at, &value) in values.iter().enumerate() {
            word |= u64::from(fails(value)) << at;
        }
        word & column.valid_word(block)
    })
}

/// The rows that hold a string for which `fails` is true. Null rows are not asked.
pub(crate) fn failing_strings(
    column: &Column<'_>,
    strings: Strings<'_>,
    mut fails: impl FnMut(&[u8]) -> bool,
) -> RowBits {
    failing_rows(
        column.rows,
        |block| column.valid_word(block),
        |row| fails(strings.get(row)),
    )
}

/// The rows of those in `asked` for which `fails` is true.
pub(crate) fn failing_rows(
    rows: usize,
    asked: impl Fn(usize) -> u64,
    mut fails: impl FnMut(usize) -> bool,
) -> RowBits {
    RowBits::from_words(rows, |block| {
        let mut left = asked(block);
        let mut word = 0;
        while left != 0 {
            let at = left.trailing_zeros();
            left &= left - 1;
            word |= u64::from(fails(block * BLOCK + at as usize)) << at;
        }
        word
    })
}

/// The rows of a block in which every column holds a value.
pub(crate) fn all_valid_word(columns: &[Column<'_>], block: usize) -> u64 {
    columns
        .iter()
        .fold(u64::MAX, |word, column| word & column.valid_word(block))
}

#[cfg(test)]
pub(crate) mod testing {
    //! Columns made by hand.

    use super::{Column, Strings, Values};

    /// A bitmap of booleans.
    pub(crate) fn bitmap(bits: impl IntoIterator<Item = bool>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (row, bit) in bits.into_iter().enumerate() {
            if row % 8 == 0 {
                bytes.push(0);
            }
            if let Some(byte) = bytes.last_mut() {
                *byte |= u8::from(bit) << (row % 8);
            }
        }
        bytes
    }

    /// Owns what a column borrows.
    pub(crate) struct Owned {
        values: Box<dyn Fn(&Owned) -> Values<'_>>,
        int64: Vec<i64>,
        int32: Vec<i32>,
        float64: Vec<f64>,
        bytes: Vec<u8>,
        validity: Vec<u8>,
        rows: usize,
    }

    impl Owned {
        fn new(
            valid: impl ExactSizeIterator<Item = bool>,
            values: impl Fn(&Owned) -> Values<'_> + 'static,
        ) -> Self {
            Self {
                rows: valid.len(),
                validity: bitmap(valid),
                values: Box::new(values),
                int64: Vec::new(),
                int32: Vec::new(),
                float64: Vec::new(),
                bytes: Vec::new(),
            }
        }

        pub(crate) fn int64(values: &[Option<i64>]) -> Self {
            let mut owned = Self::new(values.iter().map(Option::is_some), |it| {
                Values::Int64(&it.int64)
            });
            owned.int64 = values
                .iter()
                .map(|value| value.unwrap_or(i64::MIN))
                .collect();
            owned
        }

        pub(crate) fn timestamps(values: &[Option<i64>]) -> Self {
            Self {
                values: Box::new(|it| Values::TimestampUs(&it.int64)),
                ..Self::int64(values)
            }
        }

        pub(crate) fn float64(values: &[Option<f64>]) -> Self {
            let mut owned = Self::new(values.iter().map(Option::is_some), |it| {
                Values::Float64(&it.float64)
            });
            owned.float64 = values
                .iter()
                .map(|value| value.unwrap_or(f64::NAN))
                .collect();
            owned
        }

        pub(crate) fn dates(values: &[Option<i32>]) -> Self {
            let mut owned = Self::new(values.iter().map(Option::is_some), |it| {
                Values::Date32(&it.int32)
            });
            owned.int32 = values
                .iter()
                .map(|value| value.unwrap_or(i32::MIN))
                .collect();
            owned
        }

        pub(crate) fn booleans(values: &[Option<bool>]) -> Self {
            let mut owned = Self::new(values.iter().map(Option::is_some), |it| {
                Values::Boolean(&it.bytes)
            });
            owned.bytes = bitmap(values.iter().map(|value| value.unwrap_or(true)));
            owned
        }

        pub(crate) fn strings(values: &[Option<&str>]) -> Self {
            let mut owned = Self::new(values.iter().map(Option::is_some), |it| {
                Values::Utf8(Strings {
                    offsets: &it.int32,
                    bytes: &it.bytes,
                })
            });
            owned.int32.push(0);
            for value in values {
                owned
                    .bytes
                    .extend_from_slice(value.unwrap_or("").as_bytes());
                owned.int32.push(owned.bytes.len() as i32);
            }
            owned
        }

        pub(crate) fn column<'a>(&'a self, name: &'a str) -> Column<'a> {
            Column {
                name,
                rows: self.rows,
                values: (self.values)(self),
                validity: Some(&self.validity),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Owned;
    use super::*;

    #[test]
    fn bits_come_back_as_rows_across_blocks() {
        let bits = failing_rows(
            200,
            |block| if block < 3 { u64::MAX } else { 0xff },
            |row| row % 63 == 0,
        );
        assert_eq!(bits.rows().collect::<Vec<_>>(), [0, 63, 126, 189]);
        assert_eq!(bits.count(), 4);
    }

    #[test]
    fn null_rows_do_not_fail() {
        let values: Vec<Option<i64>> = (0..150).map(|row| (row % 3 != 0).then_some(row)).collect();
        let owned = Owned::int64(&values);
        let column = owned.column("x");
        let Values::Int64(slice) = column.values else {
            panic!("an int64 column")
        };
        let bits = failing(&column, slice, |value| !(0..=145).contains(&value));
        assert_eq!(bits.rows().collect::<Vec<_>>(), [146, 148, 149]);
    }

    #[test]
    fn words_end_with_the_rows() {
        let owned = Owned::int64(&vec![Some(1); 70]);
        let column = Column {
            validity: None,
            ..owned.column("x")
        };
        assert_eq!(column.valid_word(0), u64::MAX);
        assert_eq!(column.valid_word(1), 0b11_1111);
        assert_eq!(column.valid_word(2), 0);
    }

    #[test]
    fn long_strings_are_cut_in_messages() {
        let long = "é".repeat(50);
        let owned = Owned::strings(&[Some(&long), None]);
        let shown = owned.column("x").show(0);
        assert_eq!(
            shown.chars().filter(|it| *it == 'é').count(),
            SHOWN_CHARACTERS
        );
        assert!(shown.ends_with("..."));
        assert_eq!(owned.column("x").show(1), "null");
    }

    #[test]
    fn broken_offsets_are_empty_strings() {
        let strings = Strings {
            offsets: &[0, 900, -3],
            bytes: b"abc",
        };
        assert_eq!(strings.get(0), b"");
        assert_eq!(strings.get(1), b"");
        assert_eq!(strings.get(7), b"");
    }
}
