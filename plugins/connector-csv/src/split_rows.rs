//! Text into rows, a row at a time in bounded memory.
//!
//! `csv-core` splits; this adds the bounds, the row and line numbers, the raw text of a row, and a
//! way back from a stray quote: a row over several lines that is too long or has the wrong number of
//! fields is taken for one, its first line is bad, and reading goes on at the second.

use std::io::{self, Read};

use csv_core::ReadRecordResult;

/// How much is read at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// What is kept of the text of a bad row.
const RAW_BYTES: usize = 512;
/// What some programs start text with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How rows are written, and what they may come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    pub(crate) quote: Option<u8>,
    pub(crate) max_row_bytes: usize,
    pub(crate) max_field_bytes: usize,
}

/// More fields in a row than any table has columns.
const MAX_FIELDS: usize = 16_384;

/// What came of reading a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A row; see [`RowReader::field`].
    Row,
    /// Something that is no row.
    Bad(Flaw),
    /// There are no more.
    End,
}

/// What is wrong with a row before any value is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    WrongFieldCount { found: usize },
    TooLong,
    NotUtf8,
}

impl Flaw {
    /// The name of it among the reasons of rejects.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::WrongFieldCount { .. } => "wrong-field-count",
            Self::TooLong => "too-long",
            Self::NotUtf8 => "not-utf8",
        }
    }
}

/// Splits what a source gives into rows.
pub(crate) struct RowReader<R> {
    source: R,
    dialect: Dialect,
    core: csv_core::Reader,
    buffer: Vec<u8>,
    /// The row is `buffer[start..position]`; what is read but not yet split goes on to `filled`.
    start: usize,
    position: usize,
    filled: usize,
    ended: bool,
    text: Vec<u8>,
    ends: Vec<usize>,
    fields: usize,
    raw: Vec<u8>,
    row: u64,
    row_line: u64,
    line: u64,
}

impl<R: Read> RowReader<R> {
    pub(crate) fn new(source: R, dialect: Dialect) -> Self {
        let mut builder = csv_core::ReaderBuilder::new();
        builder.delimiter(dialect.delimiter);
        match dialect.quote {
            Some(quote) => builder.quote(quote),
            None => builder.quoting(false),
        };
        Self {
            source,
            dialect,
            core: builder.build(),
            buffer: Vec::new(),
            start: 0,
            position: 0,
            filled: 0,
            ended: false,
            text: vec![0; 4096],
            ends: vec![0; 64],
            fields: 0,
            raw: Vec::new(),
            row: 0,
            row_line: 1,
            line: 1,
        }
    }

    /// Reads a row; `expected` is the number of fields it should have, if that is known.
    pub(crate) fn advance(&mut self, expected: Option<usize>) -> io::Result<Step> {
        if self.row == 0 {
            self.skip_byte_order_mark()?;
        }
        if !self.skip_blank_lines()? {
            return Ok(Step::End);
        }
        self.row += 1;
        self.row_line = self.line;
        let mut text_bytes = 0;
        let mut fields = 0;
        loop {
            let input = &self.buffer[self.position..self.filled];
            let (result, taken, written, ended_fields) = self.core.read_record(
                input,
                &mut self.text[text_bytes..],
                &mut self.ends[fields..],
            );
            self.position += taken;
            text_bytes += written;
            fields += ended_fields;
            if self.position - self.start > self.dialect.max_row_bytes {
                return self.give_up(Flaw::TooLong).map(Step::Bad);
            }
            match result {
                ReadRecordResult::InputEmpty => self.fill()?,
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if self.ends.len() < MAX_FIELDS => {
                    self.ends.resize(self.ends.len() * 2, 0);
                }
                ReadRecordResult::OutputEndsFull => {
                    return self
                        .give_up(Flaw::WrongFieldCount { found: fields })
                        .map(Step::Bad);
                }
                ReadRecordResult::Record => break,
                // The row began with something, so that there is a row.
                ReadRecordResult::End => return Ok(Step::End),
            }
        }
        self.fields = fields;
        if expected.is_some_and(|expected| expected != fields) {
            return Ok(Step::Bad(
                self.reject(Flaw::WrongFieldCount { found: fields }),
            ));
        }
        self.line += count_lines(&self.buffer[self.start..self.position]);
        if (0..fields).any(|field| self.extent(field).len() > self.dialect.max_field_bytes) {
            return Ok(Step::Bad(self.keep_raw(Flaw::TooLong)));
        }
        let text = &self.text[..text_bytes];
        // Whole first, then at the ends of fields: half a character in each of two is none.
        let is_utf8 = std::str::from_utf8(text).is_ok_and(|text| {
            self.ends[..fields]
                .iter()
                .all(|end| text.is_char_boundary(*end))
        });
        if !is_utf8 {
            return Ok(Step::Bad(self.keep_raw(Flaw::NotUtf8)));
        }
        Ok(Step::Row)
    }

    /// How many fields the row has.
    pub(crate) fn fields(&self) -> usize {
        self.fields
    }

    /// A field of the row, empty past the last.
    pub(crate) fn field(&self, field: usize) -> &str {
        if field >= self.fields {
            return "";
        }
        std::str::from_utf8(&self.text[self.extent(field)]).unwrap_or_default()
    }

    fn extent(&self, field: usize) -> std::ops::Range<usize> {
        let start = if field == 0 { 0 } else { self.ends[field - 1] };
        start..self.ends[field]
    }

    /// The number of the row, counted from 1; a header counts.
    pub(crate) fn row(&self) -> u64 {
        self.row
    }

    /// The line the row starts on, counted from 1.
    pub(crate) fn first_line(&self) -> u64 {
        self.row_line
    }

    /// How many bytes the row has in the source.
    pub(crate) fn row_bytes(&self) -> usize {
        self.position - self.start
    }

    /// The text of a row as it stood, cut to a bound.
    pub(crate) fn raw(&self) -> String {
        let bytes = if self.raw.is_empty() {
            &self.buffer[self.start..self.position]
        } else {
            &self.raw
        };
        let cut = &bytes[..bytes.len().min(RAW_BYTES)];
        let mut text = String::from_utf8_lossy(cut)
            .trim_end_matches(['\r', '\n'])
            .to_owned();
        if bytes.len() > RAW_BYTES || self.raw.len() == RAW_BYTES {
            // A character may have been cut in two.
            while text.ends_with('\u{fffd}') {
                text.pop();
            }
            text.push('…');
        }
        text
    }

    fn skip_byte_order_mark(&mut self) -> io::Result<()> {
        while self.filled < BYTE_ORDER_MARK.len() && !self.ended {
            self.fill()?;
        }
        if self.buffer[..self.filled].starts_with(BYTE_ORDER_MARK) {
            self.position = BYTE_ORDER_MARK.len();
        }
        Ok(())
    }

    /// Moves to the first byte of a row; false at the end.
    fn skip_blank_lines(&mut self) -> io::Result<bool> {
        self.raw.clear();
        loop {
            while self.position < self.filled {
                match self.buffer[self.position] {
                    b'\n' => self.line += 1,
                    b'\r' => {}
                    _ => {
                        self.start = self.position;
                        return Ok(true);
                    }
                }
                self.position += 1;
            }
            self.start = self.position;
            if self.ended {
                return Ok(false);
            }
            self.fill()?;
        }
    }

    /// Reads another block behind the row, which stays.
    fn fill(&mut self) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.filled, 0);
            self.position -= self.start;
            self.filled -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < self.filled + BLOCK_BYTES {
            self.buffer.resize(self.filled + BLOCK_BYTES, 0);
        }
        let read = loop {
            match self.source.read(&mut self.buffer[self.filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.filled += read;
        self.ended = read == 0;
        Ok(())
    }

    /// Notes the text of the bad row, and goes on at its second line if it has one.
    fn reject(&mut self, flaw: Flaw) -> Flaw {
        let row = &self.buffer[self.start..self.position];
        match row.iter().position(|byte| *byte == b'\n') {
            Some(end) if end + 1 < row.len() => {
                self.position = self.start + end + 1;
                self.line = self.row_line + 1;
                self.core.reset();
            }
            _ => self.line += count_lines(row),
        }
        self.keep_raw(flaw)
    }

    fn keep_raw(&mut self, flaw: Flaw) -> Flaw {
        let row = &self.buffer[self.start..self.position];
        self.raw = row[..row.len().min(RAW_BYTES)].to_vec();
        flaw
    }

    /// Leaves a row that has not ended: goes on at its second line, which may still have to be found.
    fn give_up(&mut self, flaw: Flaw) -> io::Result<Flaw> {
        let row = &self.buffer[self.start..self.position];
        let first_line_ends = row.iter().position(|byte| *byte == b'\n');
        self.core.reset();
        if let Some(end) = first_line_ends {
            self.position = self.start + end + 1;
            self.line = self.row_line + 1;
            return Ok(self.keep_raw(flaw));
        }
        self.keep_raw(flaw);
        loop {
            let rest = &self.buffer[self.position..self.filled];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let room = RAW_BYTES - self.raw.len();
            self.raw
                .extend_from_slice(&rest[..end.unwrap_or(rest.len()).min(room)]);
            if let Some(end) = end {
                self.position += end + 1;
                self.line = self.row_line + 1;
                self.start = self.position;
                return Ok(flaw);
            }
            self.position = self.filled;
            self.start = self.filled;
            if self.ended {
                return Ok(flaw);
            }
            self.fill()?;
        }
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: Dialect = Dialect {
        delimiter: b',',
        quote: Some(b'"'),
        max_row_bytes: 200,
        max_field_bytes: 100,
    };

    /// Gives a byte at a time, so that rows meet every boundary.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else {
                return Ok(0);
            };
            into[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    fn rows_of(reader: &mut RowReader<impl Read>, expected: Option<usize>) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match reader.advance(expected).expect("no errors of reading") {
                Step::End => return seen,
                Step::Row => {
                    let fields: Vec<&str> = (0..reader.fields())
                        .map(|field| reader.field(field))
                        .collect();
                    seen.push(format!(
                        "{}@{} {}",
                        reader.row(),
                        reader.first_line(),
                        fields.join("|")
                    ));
                }
                Step::Bad(flaw) => {
                    seen.push(format!(
                        "{}@{} {flaw:?} {}",
                        reader.row(),
                        reader.first_line(),
                        reader.raw()
                    ));
                }
            }
        }
    }

    fn rows(text: &[u8], expected: Option<usize>) -> Vec<String> {
        let whole = rows_of(&mut RowReader::new(text, DIALECT), expected);
        assert_eq!(
            whole,
            rows_of(&mut RowReader::new(Trickle(text), DIALECT), expected),
            "a byte at a time"
        );
        whole
    }

    #[test]
    fn quotes_blank_lines_and_endings() {
        let text = b"\xef\xbb\xbfa,b\r\n\r\n\"1,\"\"x\"\"\n2\",3\n4,5";
        assert_eq!(
            rows(text, Some(2)),
            ["1@1 a|b", "2@3 1,\"x\"\n2|3", "3@5 4|5"]
        );
    }

    #[test]
    fn a_row_with_too_few_fields_is_bad_alone() {
        assert_eq!(
            rows(b"1,2\n3\n4,5\n", Some(2)),
            ["1@1 1|2", "2@2 WrongFieldCount { found: 1 } 3", "3@3 4|5"]
        );
    }

    #[test]
    fn a_stray_quote_costs_one_line() {
        assert_eq!(
            rows(b"1,2\n\"3,4\n5,6\n7,\"8\"\n9,10\n", Some(2)),
            [
                "1@1 1|2",
                "2@2 WrongFieldCount { found: 1 } \"3,4",
                "3@3 5|6",
                "4@4 7|8",
                "5@5 9|10"
            ]
        );
    }

    #[test]
    fn a_quote_that_never_ends_costs_one_line_too() {
        let mut text = b"1,2\n\"3,4\n".to_vec();
        for _ in 0..100 {
            text.extend_from_slice(b"5,6\n");
        }
        let seen = rows(&text, Some(2));
        assert_eq!(seen.len(), 102);
        assert_eq!(seen[1], "2@2 TooLong \"3,4");
        assert_eq!(seen[101], "102@102 5|6");
    }

    #[test]
    fn long_rows_and_fields_are_bounded() {
        let mut text = b"1,2\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 10_000));
        text.extend_from_slice(b",1\n3,4\n");
        text.extend(std::iter::repeat_n(b'y', 150));
        text.extend_from_slice(b",5\n6,7");
        let seen = rows(&text, Some(2));
        assert_eq!(seen.len(), 5, "{seen:?}");
        assert!(seen[1].starts_with("2@2 TooLong xxx"));
        assert_eq!(seen[2], "3@3 3|4");
        assert!(seen[3].starts_with("4@4 TooLong yyy"));
        assert_eq!(seen[4], "5@5 6|7");
    }

    #[test]
    fn text_that_is_no_text_is_said() {
        assert_eq!(
            rows(b"a,\xff\nb,c\n", Some(2)),
            ["1@1 NotUtf8 a,\u{fffd}", "2@2 b|c"]
        );
        assert_eq!(
            rows(b"\xc3,\xa9\n", Some(2))[0].split(' ').nth(1),
            Some("NotUtf8")
        );
    }

    #[test]
    fn the_raw_text_is_cut() {
        let wide = Dialect {
            max_row_bytes: 10_000,
            max_field_bytes: 10_000,
            ..DIALECT
        };
        let text = "é".repeat(2000);
        let mut reader = RowReader::new(text.as_bytes(), wide);
        assert_eq!(
            reader.advance(Some(2)).expect("read"),
            Step::Bad(Flaw::WrongFieldCount { found: 1 })
        );
        assert_eq!(reader.raw().chars().count(), RAW_BYTES / 2 + 1);
        assert!(reader.raw().ends_with("é…"));
    }

    #[test]
    fn nothing_is_nothing() {
        assert!(rows(b"", None).is_empty());
        assert!(rows(b"\n\r\n\n", None).is_empty());
    }
}
