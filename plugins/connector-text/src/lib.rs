//! Reads text files as rows: paragraphs or lines. See the README beside this crate.

use std::io::BufReader;

use sandcast_sdk::columns::{Rows, field};
use sandcast_sdk::files::{File, Sort, list, metadata, open};
use sandcast_sdk::{Chunk, Column, Connector, Failure, Field, Kind, ScanRequest, Split};
use serde::Deserialize;

mod rows;

use rows::{Part, Reader};

/// What a file of this connector ends with when a folder is named.
const ENDINGS: [&str; 3] = [".txt", ".text", ".md"];

/// Bounds that no configuration may lift.
const LARGEST_ROW_BYTES: usize = 1 << 20;
const LARGEST_BATCH_ROWS: usize = 1 << 20;

/// What the operator writes under `config`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// A file or a folder, by absolute guest path.
    path: String,
    #[serde(default)]
    rows: Unit,
    /// Characters that a row has at least, if what follows it can be joined to it.
    #[serde(default)]
    join_characters: usize,
    #[serde(default = "sixty_four_kibibytes")]
    max_row_bytes: usize,
    #[serde(default = "gibibyte")]
    max_file_bytes: u64,
    #[serde(default = "four_thousand")]
    batch_rows: usize,
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Unit {
    /// What stands between blank lines.
    #[default]
    Paragraphs,
    Lines,
}

fn sixty_four_kibibytes() -> usize {
    64 << 10
}

fn gibibyte() -> u64 {
    1 << 30
}

fn four_thousand() -> usize {
    4_096
}

impl Config {
    /// Looks at what the types cannot say.
    fn check(&self) -> Result<(), Failure> {
        if !self.path.starts_with('/') {
            let message = format!("`{}` is no absolute path", self.path);
            return Err(Failure::invalid_config("path", message)
                .hint("use the guest path of a granted folder, such as `/books/faust.txt`"));
        }
        let within = |key: &str, value: usize, largest: usize| {
            if (1..=largest).contains(&value) {
                return Ok(());
            }
            let message = format!("{value} is not between 1 and {largest}");
            Err(Failure::invalid_config(key, message))
        };
        within("max_row_bytes", self.max_row_bytes, LARGEST_ROW_BYTES)?;
        within("batch_rows", self.batch_rows, LARGEST_BATCH_ROWS)?;
        if self.join_characters > self.max_row_bytes {
            let message = format!(
                "{} is more than `max_row_bytes` of {} allow",
                self.join_characters, self.max_row_bytes
            );
            return Err(Failure::invalid_config("join_characters", message));
        }
        Ok(())
    }
}

/// A file to read.
struct Found {
    path: String,
    bytes: u64,
    version: Option<String>,
}

/// The connector.
struct Text {
    config: Config,
    scan: Option<Scan>,
}

/// A file that is being read.
struct Scan {
    path: String,
    reader: Reader<BufReader<File>>,
    wanted: Vec<String>,
}

impl Text {
    /// The files that the path means, in rising order.
    fn find(&self) -> Result<Vec<Found>, Failure> {
        let path = self.config.path.as_str();
        if metadata(path)?.sort != Sort::Folder {
            return Ok(vec![self.describe(path.to_owned())?]);
        }
        let folder = path.trim_end_matches('/');
        let mut found = Vec::new();
        for entry in list(path)? {
            let wanted = !entry.name.starts_with('.')
                && ENDINGS.iter().any(|ending| entry.name.ends_with(ending));
            let path = format!("{folder}/{}", entry.name);
            if wanted && entry.sort != Sort::Folder && metadata(&path)?.sort == Sort::File {
                found.push(self.describe(path)?);
            }
        }
        if found.is_empty() {
            return Err(
                Failure::unavailable(format!("no file matches `{path}`")).hint(format!(
                    "a folder gives its files that end with {}",
                    ENDINGS.join(", ")
                )),
            );
        }
        Ok(found)
    }

    fn describe(&self, path: String) -> Result<Found, Failure> {
        let metadata = metadata(&path)?;
        if metadata.bytes > self.config.max_file_bytes {
            return Err(Failure::exhausted(format!(
                "`{path}` has {} bytes, more than {}",
                metadata.bytes, self.config.max_file_bytes
            ))
            .hint("raise `max_file_bytes` if it is meant to"));
        }
        let version = metadata
            .modified
            .map(|modified| format!("{}-{}", metadata.bytes, modified.as_nanos()));
        Ok(Found {
            path,
            bytes: metadata.bytes,
            version,
        })
    }
}

/// Every column, in order.
fn fields() -> Vec<Field> {
    vec![
        field("text", Kind::Utf8, false),
        field("document", Kind::Utf8, false),
        field("line", Kind::Int64, false),
    ]
}

impl Connector for Text {
    type Config = Config;

    fn open(config: Config) -> Result<Self, Failure> {
        config.check()?;
        Ok(Self { config, scan: None })
    }

    fn schema(&mut self) -> Result<Vec<Field>, Failure> {
        Ok(fields())
    }

    fn partitions(&mut self) -> Result<Vec<Split>, Failure> {
        let found = self.find()?;
        let split = |file: Found| Split {
            bytes: Some(file.bytes),
            version: file.version,
            ..Split::whole(&file.path)
        };
        Ok(found.into_iter().map(split).collect())
    }

    fn scan(&mut self, request: ScanRequest) -> Result<(), Failure> {
        let all = fields();
        let wanted = match request.projection {
            None => all.into_iter().map(|field| field.name).collect(),
            Some(names) => {
                if let Some(name) = names
                    .iter()
                    .find(|name| !all.iter().any(|field| field.name == **name))
                {
                    return Err(Failure::invalid_input(format!(
                        "there is no column `{name}`"
                    )));
                }
                names
            }
        };
        let path = request.split.token;
        let reader = Reader::new(BufReader::new(open(&path)?), &self.config);
        self.scan = Some(Scan {
            path,
            reader,
            wanted,
        });
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        let Some(scan) = &mut self.scan else {
            return Err(Failure::internal("`next` was called before `scan`"));
        };
        let part = scan.reader.next().map_err(|mut failure| {
            failure.message = format!("`{}`: {}", scan.path, failure.message);
            failure
        })?;
        part.map(|part| chunk(part, &scan.path, &scan.wanted))
            .transpose()
    }
}

/// A part of a file as columns.
fn chunk(part: Part, path: &str, wanted: &[String]) -> Result<Chunk, Failure> {
    let rows_read = (part.texts.len() + part.rejects.len()) as u64;
    if part.texts.is_empty() {
        return Ok(Chunk {
            rows_read,
            batch: None,
            rejects: part.rejects,
        });
    }
    let document = path.rsplit('/').next().unwrap_or(path);
    let count = part.texts.len();
    let mut rows = Rows::new();
    for field in fields_of(wanted) {
        let column: Column = match field.name.as_str() {
            "text" => part.texts.iter().map(|text| Some(text.as_str())).collect(),
            "document" => std::iter::repeat_n(Some(document), count).collect(),
            _ => Column::from(part.lines.clone()),
        };
        rows = rows.column(field, column);
    }
    Ok(Chunk {
        rows_read,
        batch: Some(rows.into_batch()?),
        rejects: part.rejects,
    })
}

/// The columns of these names, in their order.
fn fields_of(wanted: &[String]) -> Vec<Field> {
    let find = |name: &String| fields().into_iter().find(|field| field.name == *name);
    wanted.iter().filter_map(find).collect()
}

sandcast_sdk::export_connector!(Text);

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Result<Config, Failure> {
        sandcast_sdk::config::parse::<Config>(json).and_then(|it| it.check().map(|()| it))
    }

    #[test]
    fn a_configuration_has_bounds() {
        let good = config(r#"{"path": "/books"}"#).expect("a configuration");
        assert_eq!((good.rows, good.join_characters), (Unit::Paragraphs, 0));
        for (json, message) in [
            ("{}", "path"),
            (r#"{"path": "books"}"#, "`books` is no absolute path"),
            (
                r#"{"path": "/b", "rows": "words"}"#,
                "unknown variant `words`",
            ),
            (r#"{"path": "/b", "batch_rows": 0}"#, "`batch_rows`: 0"),
            (
                r#"{"path": "/b", "max_row_bytes": 2000000}"#,
                "`max_row_bytes`",
            ),
            (
                r#"{"path": "/b", "join_characters": 70000}"#,
                "`join_characters`",
            ),
            (r#"{"path": "/b", "jion": 1}"#, "unknown field `jion`"),
        ] {
            let failure = config(json).expect_err(json);
            assert!(failure.message.contains(message), "{}", failure.message);
        }
    }
}
