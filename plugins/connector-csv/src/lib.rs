//! Reads CSV files, plain or gzipped, with types inferred or given. See the README beside this crate.

mod config;
mod files;
mod scan;
mod split_rows;
mod table;
mod values;

use sandcast_sdk::files::{File, open};
use sandcast_sdk::{Batch, Chunk, Connector, Failure, Field, ScanRequest, Split};
use serde::{Deserialize, Serialize};

use config::Config;
use files::{Found, Text};
use scan::{Part, Scan};
use table::{Column, Seen};

/// The connector.
struct Csv {
    config: Config,
    listed: Option<(Vec<Found>, Vec<Column>)>,
    scan: Option<(String, Scan<Text<File>>)>,
}

/// What a split's reader needs: the columns are those that all files together have shown.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    path: String,
    columns: Vec<Column>,
}

impl Csv {
    /// The files and their columns, looked at once.
    fn list(&mut self) -> Result<&(Vec<Found>, Vec<Column>), Failure> {
        let listed = match self.listed.take() {
            Some(listed) => listed,
            None => {
                let found = files::find(&self.config)?;
                let mut seen: Vec<(String, Seen)> = Vec::new();
                for file in &found {
                    let looked = open(&file.path)
                        .and_then(|source| files::text(source, &self.config))
                        .and_then(|text| table::look(text, &self.config))
                        .map_err(|failure| in_file(&file.path, failure))?;
                    if let Some(looked) = looked {
                        seen.push((file.path.clone(), looked));
                    }
                }
                let columns = table::columns(&seen, &self.config)?;
                (found, columns)
            }
        };
        Ok(self.listed.insert(listed))
    }
}

/// Says which file a failure is about, unless it does already.
fn in_file(path: &str, mut failure: Failure) -> Failure {
    if !failure.message.contains(path) {
        failure.message = format!("`{path}`: {}", failure.message);
    }
    failure
}

impl Connector for Csv {
    type Config = Config;

    fn open(config: Config) -> Result<Self, Failure> {
        config.check()?;
        Ok(Self {
            config,
            listed: None,
            scan: None,
        })
    }

    fn schema(&mut self) -> Result<Vec<Field>, Failure> {
        let (_, columns) = self.list()?;
        Ok(columns.iter().map(Column::field).collect())
    }

    fn partitions(&mut self) -> Result<Vec<Split>, Failure> {
        let (found, columns) = self.list()?;
        found
            .iter()
            .map(|file| {
                let token = Token {
                    path: file.path.clone(),
                    columns: columns.clone(),
                };
                let token = serde_json::to_string(&token)
                    .map_err(|error| Failure::internal(error.to_string()))?;
                Ok(Split {
                    id: file.path.clone(),
                    token,
                    rows: None,
                    bytes: Some(file.bytes),
                    version: file.version.clone(),
                })
            })
            .collect()
    }

    fn scan(&mut self, request: ScanRequest) -> Result<(), Failure> {
        let token: Token = serde_json::from_str(&request.split.token).map_err(|error| {
            Failure::invalid_input(format!("split `{}`: {error}", request.split.id))
        })?;
        let wanted = match request.projection {
            None => token.columns,
            Some(names) => names
                .iter()
                .map(|name| {
                    let column = token
                        .columns
                        .iter()
                        .find(|column| column.name == *name)
                        .cloned();
                    column.ok_or_else(|| {
                        Failure::invalid_input(format!("there is no column `{name}`"))
                    })
                })
                .collect::<Result<_, _>>()?,
        };
        let scan = open(&token.path)
            .and_then(|source| files::text(source, &self.config))
            .and_then(|text| Scan::start(text, wanted, request.limit, &self.config))
            .map_err(|failure| in_file(&token.path, failure))?;
        self.scan = Some((token.path, scan));
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        let Some((path, scan)) = &mut self.scan else {
            return Err(Failure::internal("`next` was called before `scan`"));
        };
        let part = scan
            .next(&self.config)
            .map_err(|failure| in_file(path, failure))?;
        let Some(Part {
            rows_read,
            rows,
            rejects,
        }) = part
        else {
            return Ok(None);
        };
        let batch: Option<Batch> = rows
            .map(sandcast_sdk::columns::Rows::into_batch)
            .transpose()?;
        Ok(Some(Chunk {
            rows_read,
            batch,
            rejects,
        }))
    }
}

sandcast_sdk::export_connector!(Csv);
