//! The columns of a source: names from its headers, types from its first rows or the configuration.

use std::io::Read;

use sandcast_sdk::{Failure, Field, Kind};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Source};
use crate::split_rows::{Dialect, RowReader, Step};
use crate::values::Guess;

/// A column of the source. It travels to the readers of splits inside their tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(with = "kind_name")]
    pub(crate) kind: Kind,
    /// The header's name for it, or none where it goes by its place.
    pub(crate) header: Option<String>,
    /// Its place in the row, from 0, where there is no header.
    pub(crate) place: usize,
    pub(crate) format: Option<String>,
}

impl Column {
    pub(crate) fn field(&self) -> Field {
        sandcast_sdk::columns::field(&self.name, self.kind, true)
    }
}

mod kind_name {
    use sandcast_sdk::Kind;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(kind.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Kind, D::Error> {
        let name = String::deserialize(deserializer)?;
        Kind::parse(&name).ok_or_else(|| de::Error::custom(format_args!("`{name}` is no type")))
    }
}

/// What one file shows of itself.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The names in the header, or `column_1` and so on.
    names: Vec<String>,
    guesses: Vec<Guess>,
}

pub(crate) fn dialect(config: &Config) -> Result<Dialect, Failure> {
    Ok(Dialect {
        delimiter: config.delimiter()?,
        quote: config.quote()?,
        max_row_bytes: config.max_row_bytes,
        max_field_bytes: config.max_field_bytes,
    })
}

/// The names that a file's first row gives its columns; `None` for an empty file.
pub(crate) fn header<R: Read>(
    rows: &mut RowReader<R>,
    config: &Config,
) -> Result<Option<Vec<String>>, Failure> {
    match rows.advance(None)? {
        Step::End => return Ok(None),
        Step::Bad(flaw) => {
            return Err(Failure::invalid_input(format!(
                "the first row cannot be read: {}",
                flaw.reason()
            )));
        }
        Step::Row => {}
    }
    if !config.header {
        return Ok(Some(
            (1..=rows.fields())
                .map(|place| format!("column_{place}"))
                .collect(),
        ));
    }
    let mut names: Vec<String> = Vec::with_capacity(rows.fields());
    for place in 0..rows.fields() {
        let name = rows.field(place).trim();
        let name = if name.is_empty() {
            format!("column_{}", place + 1)
        } else {
            name.to_owned()
        };
        if names.contains(&name) {
            return Err(Failure::invalid_input(format!(
                "two columns of the header are called `{name}`"
            ))
            .hint("rename one in the file, or set `header: false` and name columns by place"));
        }
        names.push(name);
    }
    Ok(Some(names))
}

/// Looks at the first rows of a file; `None` for an empty one.
pub(crate) fn look<R: Read>(source: R, config: &Config) -> Result<Option<Seen>, Failure> {
    let mut rows = RowReader::new(source, dialect(config)?);
    let Some(names) = header(&mut rows, config)? else {
        return Ok(None);
    };
    let mut guesses = vec![Guess::default(); names.len()];
    let mut is_data = !config.header;
    for _ in 0..config.infer_rows {
        if is_data {
            for (place, guess) in guesses.iter_mut().enumerate() {
                if let Some(value) = present(rows.field(place), config) {
                    guess.observe(value);
                }
            }
        }
        match rows.advance(Some(names.len()))? {
            Step::End => break,
            step => is_data = step == Step::Row,
        }
    }
    Ok(Some(Seen { names, guesses }))
}

/// A value, unless it stands for nothing.
pub(crate) fn present<'t>(text: &'t str, config: &Config) -> Option<&'t str> {
    let text = if config.trim { text.trim() } else { text };
    (!config.missing.iter().any(|missing| missing == text)).then_some(text)
}

/// The columns of all the files together. Every file must have the same ones, in any order.
pub(crate) fn columns(files: &[(String, Seen)], config: &Config) -> Result<Vec<Column>, Failure> {
    let Some(((first_path, first), others)) = files.split_first() else {
        return Err(
            Failure::invalid_input("every file is empty").hint("a file needs a header or a row")
        );
    };
    let mut guesses = first.guesses.clone();
    for (path, seen) in others {
        let places = places(&first.names, &seen.names, config.header).map_err(|what| {
            Failure::invalid_input(format!("`{path}` {what}, unlike `{first_path}`"))
        })?;
        for (guess, place) in guesses.iter_mut().zip(places) {
            guess.join(seen.guesses[place]);
        }
    }
    let mut columns: Vec<Column> = first
        .names
        .iter()
        .zip(guesses)
        .enumerate()
        .map(|(place, (name, guess))| Column {
            name: name.clone(),
            kind: guess.kind(),
            header: config.header.then(|| name.clone()),
            place,
            format: None,
        })
        .collect();
    for (name, given) in &config.columns {
        let unknown = |key: &str, what: String| {
            Failure::invalid_config(&format!("columns.{name}{key}"), what)
                .hint(format!("the columns are {}", first.names.join(", ")))
        };
        let place = match &given.source {
            None => first.names.iter().position(|known| known == name),
            Some(Source::Name(source)) => first.names.iter().position(|known| known == source),
            Some(Source::Place(place)) => (*place <= first.names.len()).then(|| place - 1),
        };
        let Some(column) = place.and_then(|place| columns.get_mut(place)) else {
            return Err(match &given.source {
                None => unknown("", format!("no column of that name in `{first_path}`")),
                Some(Source::Name(source)) => {
                    unknown(".source", format!("no column `{source}` in `{first_path}`"))
                }
                Some(Source::Place(place)) => unknown(
                    ".source",
                    format!(
                        "no place {place} in `{first_path}`, which has {}",
                        first.names.len()
                    ),
                ),
            });
        };
        column.name.clone_from(name);
        column.format.clone_from(&given.format);
        if let Some(kind) = given.kind {
            column.kind = kind;
        }
    }
    for (place, column) in columns.iter().enumerate() {
        if columns[..place]
            .iter()
            .any(|before| before.name == column.name)
        {
            return Err(Failure::invalid_config(
                "columns",
                format!("two columns are called `{}`", column.name),
            ));
        }
    }
    Ok(columns)
}

/// Where each of the wanted names is in a file.
fn places(wanted: &[String], names: &[String], by_name: bool) -> Result<Vec<usize>, String> {
    if names.len() != wanted.len() {
        return Err(format!("has {} columns", names.len()));
    }
    if !by_name {
        return Ok((0..wanted.len()).collect());
    }
    wanted
        .iter()
        .map(|name| {
            names
                .iter()
                .position(|known| known == name)
                .ok_or_else(|| format!("has no column `{name}`"))
        })
        .collect()
}

/// Where each column is in a file with this header.
pub(crate) fn places_of(columns: &[Column], names: &[String]) -> Result<Vec<usize>, Failure> {
    columns
        .iter()
        .map(|column| match &column.header {
            None if column.place < names.len() => Ok(column.place),
            None => Err(Failure::invalid_input(format!(
                "the file has no place {}",
                column.place + 1
            ))),
            Some(header) => names.iter().position(|name| name == header).ok_or_else(|| {
                Failure::invalid_input(format!("the file has no column `{header}`"))
            }),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        sandcast_sdk::config::parse(json).expect("a configuration")
    }

    fn table(files: &[&str], config: &Config) -> Result<Vec<(String, Kind)>, Failure> {
        let seen: Vec<(String, Seen)> = files
            .iter()
            .enumerate()
            .filter_map(|(number, text)| {
                Some((
                    format!("/d/{number}"),
                    look(text.as_bytes(), config).expect("read")?,
                ))
            })
            .collect();
        Ok(columns(&seen, config)?
            .into_iter()
            .map(|column| (column.name, column.kind))
            .collect())
    }

    #[test]
    fn names_and_types_come_from_the_files() {
        let plain = config(r#"{"path": "/d", "missing": ["", "NA"], "trim": true}"#);
        assert_eq!(
            table(
                &["id, age ,\n1,NA,x\n2, 3.5,y\n", "age,id,column_3\n4,9,z\n"],
                &plain
            )
            .expect("a table"),
            [
                ("id".to_owned(), Kind::Int64),
                ("age".to_owned(), Kind::Float64),
                ("column_3".to_owned(), Kind::Utf8)
            ]
        );
    }

    #[test]
    fn without_a_header_the_first_row_is_data() {
        let bare = config(
            r#"{"path": "/d", "header": false, "columns": {"when": {"source": 2, "type": "date32", "format": "%d.%m.%Y"}}}"#,
        );
        assert_eq!(
            table(&["1,01.02.2024\n", "x,02.02.2024\n"], &bare).expect("a table"),
            [
                ("column_1".to_owned(), Kind::Utf8),
                ("when".to_owned(), Kind::Date32)
            ]
        );
    }

    #[test]
    fn only_the_first_rows_count() {
        let one = config(r#"{"path": "/d", "infer_rows": 2}"#);
        assert_eq!(
            table(&["a\n1\n2\nx\n"], &one).expect("a table"),
            [("a".to_owned(), Kind::Int64)]
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let plain = config(r#"{"path": "/d"}"#);
        let message =
            |files: &[&str], config: &Config| table(files, config).expect_err("refused").message;
        assert_eq!(
            message(&["a,b\n", "a,c\n"], &plain),
            "`/d/1` has no column `b`, unlike `/d/0`"
        );
        assert_eq!(
            message(&["a,b\n", "a\n"], &plain),
            "`/d/1` has 1 columns, unlike `/d/0`"
        );
        assert_eq!(message(&["", "\n"], &plain), "every file is empty");
        assert!(
            look(&b"a,a\n"[..], &plain)
                .expect_err("refused")
                .message
                .contains("called `a`")
        );
        let unknown = table(
            &["a,b\n"],
            &config(r#"{"path": "/d", "columns": {"c": "int64"}}"#),
        )
        .expect_err("refused");
        assert_eq!(
            unknown.message,
            "`columns.c`: no column of that name in `/d/0`"
        );
        assert_eq!(unknown.hint.as_deref(), Some("the columns are a, b"));
        let twice = config(r#"{"path": "/d", "columns": {"b": {"source": "a"}}}"#);
        assert_eq!(
            message(&["a,b\n"], &twice),
            "`columns`: two columns are called `b`"
        );
    }
}
