//! The configuration, and what of it must hold.

use std::collections::BTreeMap;
use std::fmt;

use sandcast_sdk::{Failure, Kind};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};

/// What the operator writes under `config`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// A file, a folder, or a folder with a pattern of file names, by absolute guest path.
    #[serde(default)]
    path: Option<String>,
    /// Several of them.
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default = "comma")]
    delimiter: String,
    #[serde(default = "quotation_mark")]
    quote: Option<String>,
    /// Whether the first row holds the names of the columns.
    #[serde(default = "yes")]
    pub(crate) header: bool,
    /// Columns whose name, source or type is given rather than found.
    #[serde(default)]
    pub(crate) columns: BTreeMap<String, ColumnOverride>,
    /// Values that stand for nothing.
    #[serde(default = "empty")]
    pub(crate) missing: Vec<String>,
    /// Whether spaces around values are dropped.
    #[serde(default)]
    pub(crate) trim: bool,
    #[serde(default)]
    pub(crate) compression: Compression,
    /// Rows of every file that types are found from.
    #[serde(default = "thousand")]
    pub(crate) infer_rows: u32,
    /// Rows of one batch at most.
    #[serde(default = "batch")]
    pub(crate) batch_rows: u32,
    #[serde(default = "mebibyte")]
    pub(crate) max_row_bytes: usize,
    #[serde(default = "quarter_mebibyte")]
    pub(crate) max_field_bytes: usize,
    /// Bytes of one file after decompression.
    #[serde(default = "sixty_four_gibibytes")]
    pub(crate) max_file_bytes: u64,
    /// How many times its size a compressed file may grow to.
    #[serde(default = "two_hundred")]
    pub(crate) max_expansion: u64,
}

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Compression {
    /// By the first bytes of each file.
    #[default]
    Auto,
    None,
    Gzip,
}

/// What is given of a column. In the configuration, a type alone may stand for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ColumnOverride {
    pub(crate) kind: Option<Kind>,
    pub(crate) source: Option<Source>,
    pub(crate) format: Option<String>,
}

/// Where a column comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Source {
    /// Its place in the row, counted from 1.
    Place(usize),
    /// Its name in the header.
    Name(String),
}

fn comma() -> String {
    ",".to_owned()
}

#[expect(clippy::unnecessary_wraps, reason = "a default of an optional value")]
fn quotation_mark() -> Option<String> {
    Some("\"".to_owned())
}

fn yes() -> bool {
    true
}

fn empty() -> Vec<String> {
    vec![String::new()]
}

fn thousand() -> u32 {
    1000
}

fn batch() -> u32 {
    16_384
}

fn mebibyte() -> usize {
    1 << 20
}

fn quarter_mebibyte() -> usize {
    1 << 18
}

fn sixty_four_gibibytes() -> u64 {
    64 << 30
}

fn two_hundred() -> u64 {
    200
}

/// Bounds that no configuration may lift.
const LARGEST_ROW_BYTES: usize = 16 << 20;
const LARGEST_BATCH_ROWS: u32 = 1 << 20;

impl Config {
    /// Looks at what the types cannot say.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.paths().next().is_none() {
            return Err(Failure::invalid_config(
                "path",
                "missing; name a file, a folder or a pattern",
            ));
        }
        if let Some(path) = self.paths().find(|path| !path.starts_with('/')) {
            return Err(
                Failure::invalid_config("path", format!("`{path}` is no absolute path"))
                    .hint("use the guest path of a granted folder, such as `/data/people.csv`"),
            );
        }
        let delimiter = self.delimiter()?;
        if self.quote()? == Some(delimiter) {
            return Err(Failure::invalid_config("quote", "is the delimiter too"));
        }
        let within = |key: &str, value: u64, largest: u64| {
            if value == 0 || value > largest {
                return Err(Failure::invalid_config(
                    key,
                    format!("{value} is not between 1 and {largest}"),
                ));
            }
            Ok(())
        };
        within("infer_rows", self.infer_rows.into(), u32::MAX.into())?;
        within(
            "batch_rows",
            self.batch_rows.into(),
            LARGEST_BATCH_ROWS.into(),
        )?;
        within(
            "max_row_bytes",
            self.max_row_bytes as u64,
            LARGEST_ROW_BYTES as u64,
        )?;
        within(
            "max_field_bytes",
            self.max_field_bytes as u64,
            self.max_row_bytes as u64,
        )?;
        within("max_file_bytes", self.max_file_bytes, u64::MAX)?;
        within("max_expansion", self.max_expansion, u64::MAX)?;
        for (name, column) in &self.columns {
            let key = |part: &str| format!("columns.{name}.{part}");
            let timed = matches!(column.kind, Some(Kind::Date32 | Kind::TimestampUs));
            if column.format.is_some() && !timed {
                return Err(Failure::invalid_config(
                    &key("format"),
                    "is for columns of type date32 or timestamp-us",
                ));
            }
            match &column.source {
                Some(Source::Place(0)) => {
                    return Err(Failure::invalid_config(
                        &key("source"),
                        "places are counted from 1",
                    ));
                }
                Some(Source::Name(_)) if !self.header => {
                    return Err(Failure::invalid_config(
                        &key("source"),
                        "there is no header to look for a name in",
                    )
                    .hint("give the place of the column, counted from 1"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.path.iter().chain(&self.paths).map(String::as_str)
    }

    pub(crate) fn delimiter(&self) -> Result<u8, Failure> {
        match self.delimiter.as_str() {
            "tab" => Ok(b'\t'),
            text => one_byte("delimiter", text),
        }
    }

    pub(crate) fn quote(&self) -> Result<Option<u8>, Failure> {
        self.quote
            .as_deref()
            .map(|text| one_byte("quote", text))
            .transpose()
    }
}

fn one_byte(key: &str, text: &str) -> Result<u8, Failure> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'\r' | b'\n') => Ok(*byte),
        _ => Err(
            Failure::invalid_config(key, format!("{text:?} is not one character of ASCII"))
                .hint("such as \",\", \";\", \"|\" or \"tab\""),
        ),
    }
}

impl<'de> Deserialize<'de> for ColumnOverride {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            #[serde(default, rename = "type")]
            kind: Option<KindName>,
            #[serde(default)]
            source: Option<Source>,
            #[serde(default)]
            format: Option<String>,
        }

        struct KindName(Kind);

        impl<'de> Deserialize<'de> for KindName {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                kind_named(&name).map(KindName)
            }
        }

        struct ShortOrLong;

        impl<'de> de::Visitor<'de> for ShortOrLong {
            type Value = ColumnOverride;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a type, or an object with `type`, `source` and `format`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<ColumnOverride, E> {
                Ok(ColumnOverride {
                    kind: Some(kind_named(name)?),
                    ..ColumnOverride::default()
                })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<ColumnOverride, A::Error> {
                let long = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ColumnOverride {
                    kind: long.kind.map(|name| name.0),
                    source: long.source,
                    format: long.format,
                })
            }
        }

        deserializer.deserialize_any(ShortOrLong)
    }
}

fn kind_named<E: de::Error>(name: &str) -> Result<Kind, E> {
    Kind::parse(name).ok_or_else(|| {
        E::custom(format_args!(
            "`{name}` is no type; the types are boolean, int64, float64, utf8, date32 and timestamp-us"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Config, Failure> {
        let config: Config = sandcast_sdk::config::parse(json)?;
        config.check().map(|()| config)
    }

    #[test]
    fn a_path_is_enough() {
        let config = read(r#"{"path": "/data"}"#).expect("accepted");
        assert_eq!(config.delimiter().expect("a delimiter"), b',');
        assert_eq!(config.quote().expect("a quote"), Some(b'"'));
        assert_eq!(config.missing, [""]);
        assert!(config.header);
    }

    #[test]
    fn a_column_is_a_type_or_an_object() {
        let config = read(
            r#"{"path": "/d", "columns": {"age": "int64", "born": {"type": "date32", "source": 3, "format": "%d.%m.%Y"}}}"#,
        )
        .expect("accepted");
        assert_eq!(config.columns["age"].kind, Some(Kind::Int64));
        assert_eq!(config.columns["born"].source, Some(Source::Place(3)));
    }

    #[test]
    fn failures_name_the_key() {
        let message = |json: &str| read(json).expect_err("refused").message;
        assert!(
            message(r#"{"path": "data.csv"}"#)
                .starts_with("`path`: `data.csv` is no absolute path")
        );
        assert!(message("{}").starts_with("`path`: missing"));
        assert!(message(r#"{"path": "/d", "delimiter": ", "}"#).starts_with("`delimiter`"));
        assert!(message(r#"{"path": "/d", "quote": ","}"#).starts_with("`quote`"));
        assert!(message(r#"{"path": "/d", "batch_rows": 0}"#).starts_with("`batch_rows`"));
        assert!(
            message(r#"{"path": "/d", "delimeter": ";"}"#).contains("unknown field `delimeter`")
        );
        let kind = message(r#"{"path": "/d", "columns": {"age": {"type": "int"}}}"#);
        assert!(
            kind.starts_with("`columns.age.type`: `int` is no type"),
            "{kind}"
        );
        assert!(
            message(r#"{"path": "/d", "columns": {"age": {"type": "int64", "format": "%d"}}}"#)
                .starts_with("`columns.age.format`")
        );
        assert!(
            message(r#"{"path": "/d", "header": false, "columns": {"age": {"source": "a"}}}"#)
                .starts_with("`columns.age.source`")
        );
    }
}
