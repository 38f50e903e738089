//! Rows of text into columns of values.

use std::io::Read;

use sandcast_sdk::columns::{ColumnBuilder, Rows};
use sandcast_sdk::{Failure, Kind, Reject};

use crate::config::Config;
use crate::split_rows::{Flaw, RowReader, Step};
use crate::table::{self, Column};
use crate::values;

/// Text that a batch is made of at most.
const BATCH_BYTES: usize = 4 << 20;

/// Reads one file.
pub(crate) struct Scan<R> {
    rows: RowReader<R>,
    columns: Vec<Column>,
    /// Where each column is in the file.
    places: Vec<usize>,
    fields: usize,
    /// The first row is data and has been read already.
    pending: bool,
    left: u64,
    ended: bool,
}

/// Some rows of a file.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) rows_read: u64,
    pub(crate) rows: Option<Rows>,
    pub(crate) rejects: Vec<Reject>,
}

/// A value of a row, before the whole row is known to be good.
enum Cell {
    Null,
    Boolean(bool),
    Int64(i64),
    Float64(f64),
    /// The text as it stands in the row.
    Text,
    Date32(i32),
}

impl<R: Read> Scan<R> {
    /// `wanted` are the columns to read, in order.
    pub(crate) fn start(
        source: R,
        wanted: Vec<Column>,
        limit: Option<u64>,
        config: &Config,
    ) -> Result<Self, Failure> {
        let mut rows = RowReader::new(source, table::dialect(config)?);
        let names = table::header(&mut rows, config)?;
        let ended = names.is_none();
        let names = names.unwrap_or_default();
        let places = if ended {
            Vec::new()
        } else {
            table::places_of(&wanted, &names)?
        };
        Ok(Self {
            rows,
            columns: wanted,
            places,
            fields: names.len(),
            pending: !config.header && !ended,
            left: limit.unwrap_or(u64::MAX),
            ended,
        })
    }

    /// The next rows, or nothing at the end.
    pub(crate) fn next(&mut self, config: &Config) -> Result<Option<Part>, Failure> {
        let mut builders: Vec<ColumnBuilder> = self
            .columns
            .iter()
            .map(|column| ColumnBuilder::new(column.kind))
            .collect();
        let mut cells = Vec::with_capacity(builders.len());
        let mut rejects = Vec::new();
        let mut kept = 0;
        let mut bytes = 0;
        while !self.ended
            && self.left > 0
            && kept + (rejects.len() as u64) < u64::from(config.batch_rows)
            && bytes < BATCH_BYTES
        {
            let step = if std::mem::take(&mut self.pending) {
                Step::Row
            } else {
                self.rows.advance(Some(self.fields))?
            };
            match step {
                Step::End => self.ended = true,
                Step::Bad(flaw) => rejects.push(self.flawed(flaw)),
                Step::Row => {
                    bytes += self.rows.row_bytes();
                    match self.read_cells(&mut cells, config) {
                        Ok(()) => {
                            self.push(&cells, &mut builders, config);
                            kept += 1;
                            self.left -= 1;
                        }
                        Err(reject) => {
                            bytes += reject.raw.len();
                            rejects.push(reject);
                        }
                    }
                }
            }
        }
        let rows_read = kept + rejects.len() as u64;
        if rows_read == 0 {
            return Ok(None);
        }
        let rows = (kept > 0).then(|| {
            self.columns
                .iter()
                .zip(builders)
                .fold(Rows::new(), |rows, (column, builder)| {
                    rows.column(column.field(), builder.finish())
                })
        });
        Ok(Some(Part {
            rows_read,
            rows,
            rejects,
        }))
    }

    /// Every wanted value of the row, or why the row is bad.
    fn read_cells(&self, cells: &mut Vec<Cell>, config: &Config) -> Result<(), Reject> {
        cells.clear();
        for (column, place) in self.columns.iter().zip(&self.places) {
            let Some(text) = table::present(self.rows.field(*place), config) else {
                cells.push(Cell::Null);
                continue;
            };
            let format = column.format.as_deref();
            let cell = match column.kind {
                Kind::Boolean => values::boolean(text).map(Cell::Boolean),
                Kind::Int64 => text.parse().ok().map(Cell::Int64),
                Kind::Float64 => text.parse().ok().map(Cell::Float64),
                Kind::Utf8 => Some(Cell::Text),
                Kind::Date32 => values::date32(text, format).map(Cell::Date32),
                Kind::TimestampUs => values::timestamp_us(text, format).map(Cell::Int64),
            };
            let Some(cell) = cell else {
                let shown: String = text.chars().take(40).collect();
                let wanted = format.map_or_else(
                    || column.kind.name().to_owned(),
                    |format| format!("{} as {format}", column.kind.name()),
                );
                let message = format!("{shown:?} is no {wanted}");
                return Err(self.reject("bad-type", Some(column.name.clone()), message));
            };
            cells.push(cell);
        }
        Ok(())
    }

    fn push(&self, cells: &[Cell], builders: &mut [ColumnBuilder], config: &Config) {
        for ((cell, builder), place) in cells.iter().zip(builders).zip(&self.places) {
            match (cell, builder) {
                (Cell::Boolean(value), ColumnBuilder::Boolean(builder)) => builder.push(*value),
                (
                    Cell::Int64(value),
                    ColumnBuilder::Int64(builder) | ColumnBuilder::TimestampUs(builder),
                ) => {
                    builder.push(*value);
                }
                (Cell::Float64(value), ColumnBuilder::Float64(builder)) => builder.push(*value),
                (Cell::Date32(value), ColumnBuilder::Date32(builder)) => builder.push(*value),
                (Cell::Text, ColumnBuilder::Utf8(builder)) => {
                    builder
                        .push(table::present(self.rows.field(*place), config).unwrap_or_default());
                }
                (_, builder) => builder.push_null(),
            }
        }
    }

    fn flawed(&self, flaw: Flaw) -> Reject {
        let message = match flaw {
            Flaw::WrongFieldCount { found } => {
                format!("{found} fields where {} were expected", self.fields)
            }
            Flaw::TooLong => "longer than `max_row_bytes` or `max_field_bytes`".to_owned(),
            Flaw::NotUtf8 => "not UTF-8".to_owned(),
        };
        self.reject(flaw.reason(), None, message)
    }

    fn reject(&self, reason: &str, column: Option<String>, message: String) -> Reject {
        Reject {
            row: self.rows.row(),
            line: Some(self.rows.first_line()),
            column,
            reason: reason.to_owned(),
            message,
            raw: self.rows.raw(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{columns, look};

    fn config(json: &str) -> Config {
        sandcast_sdk::config::parse(json).expect("a configuration")
    }

    fn scan<'t>(
        text: &'t str,
        names: Option<&[&str]>,
        limit: Option<u64>,
        config: &Config,
    ) -> Scan<&'t [u8]> {
        let seen = look(text.as_bytes(), config)
            .expect("read")
            .expect("not empty");
        let mut all = columns(&[("/d".to_owned(), seen)], config).expect("columns");
        if let Some(names) = names {
            all = names
                .iter()
                .map(|name| {
                    all.iter()
                        .find(|column| column.name == *name)
                        .expect("there")
                        .clone()
                })
                .collect();
        }
        Scan::start(text.as_bytes(), all, limit, config).expect("started")
    }

    #[test]
    fn good_rows_are_kept_and_bad_ones_are_told() {
        let config = config(r#"{"path": "/d", "columns": {"age": "int64"}}"#);
        let mut scan = scan(
            "name,age\nAda,36\nBob,old\nCyd\nDee,\n",
            None,
            None,
            &config,
        );
        let part = scan.next(&config).expect("read").expect("rows");
        assert_eq!(part.rows_read, 4);
        let told: Vec<_> = part
            .rejects
            .iter()
            .map(|bad| (bad.row, bad.line, bad.reason.as_str(), bad.raw.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (3, Some(3), "bad-type", "Bob,old"),
                (4, Some(4), "wrong-field-count", "Cyd")
            ]
        );
        assert_eq!(part.rejects[0].column.as_deref(), Some("age"));
        assert_eq!(part.rejects[0].message, "\"old\" is no int64");
        let shown = format!("{:?}", part.rows.expect("rows"));
        assert!(
            shown.contains("AdaDee") || shown.contains("[65, 100, 97, 68, 101, 101]"),
            "{shown}"
        );
        assert!(scan.next(&config).expect("read").is_none());
    }

    #[test]
    fn a_column_that_is_not_wanted_cannot_be_bad() {
        let config = config(r#"{"path": "/d", "columns": {"age": "int64"}}"#);
        let text = "name,age\nAda,36\nBob,old\n";
        let part = scan(text, Some(&["name"]), None, &config)
            .next(&config)
            .expect("read")
            .expect("rows");
        assert_eq!((part.rows_read, part.rejects.len()), (2, 0));
        let swapped = scan(text, Some(&["age", "name"]), None, &config)
            .next(&config)
            .expect("read")
            .expect("rows");
        assert_eq!(swapped.rejects.len(), 1);
    }

    #[test]
    fn batches_and_limits() {
        let config = config(r#"{"path": "/d", "batch_rows": 3}"#);
        let text = "a\n1\n2\n3\n4\n5\n6\n7\n";
        let counts = |limit| {
            let mut scan = scan(text, None, limit, &config);
            let mut counts = Vec::new();
            while let Some(part) = scan.next(&config).expect("read") {
                counts.push(part.rows_read);
            }
            counts
        };
        assert_eq!(counts(None), [3, 3, 1]);
        assert_eq!(counts(Some(4)), [3, 1]);
        assert_eq!(counts(Some(0)), Vec::<u64>::new());
    }

    #[test]
    fn a_file_without_a_header_starts_with_data() {
        let config = config(r#"{"path": "/d", "header": false}"#);
        let part = scan("1,2\n3,4\n", None, None, &config)
            .next(&config)
            .expect("read")
            .expect("rows");
        assert_eq!(part.rows_read, 2);
    }

    #[test]
    fn no_columns_still_count_rows() {
        let config = config(r#"{"path": "/d"}"#);
        let part = scan("a\n1\n2\n", Some(&[]), None, &config)
            .next(&config)
            .expect("read")
            .expect("rows");
        assert_eq!(part.rows_read, 2);
    }
}
