//! Brings rows in.

pub(crate) mod guest;

use std::collections::HashSet;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{MAX_NAME_BYTES, check_name};
use crate::bindings::connector::ConnectorPluginPre;
use crate::bindings::connector::exports::sandcast::plugin::connector as wire;
use crate::call::{CallError, Usage};
use crate::columns;
use crate::instance::Instance;
use crate::model::{Field, schema_of};
use crate::process::{Opening, Question};
use crate::state::State;
use crate::text;
use guest::Guest;

/// A part of a source that can be read alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Names the split among those of its source.
    pub id: String,
    /// What the plugin needs to read it again.
    pub token: String,
    /// Rows, if that is known.
    pub rows: Option<u64>,
    /// Bytes, if that is known.
    pub bytes: Option<u64>,
    /// Changes when the content does, if that is known.
    pub version: Option<String>,
}

/// A constant in a filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Literal {
    /// A truth value.
    Boolean(bool),
    /// A whole number.
    Int64(i64),
    /// A number.
    Float64(f64),
    /// Text.
    Utf8(String),
}

/// How a filter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A condition the reader may use to skip rows; whoever asks applies it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filter {
    /// The column.
    pub column: String,
    /// How it compares.
    pub comparison: Comparison,
    /// With what.
    pub literal: Literal,
}

/// What to read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScanRequest {
    /// The part of the source.
    pub split: Split,
    /// The columns wanted, in order; all of them when absent.
    pub projection: Option<Vec<String>>,
    /// Conditions the reader may use.
    pub filters: Vec<Filter>,
    /// Rows after which the reader may stop.
    pub limit: Option<u64>,
    /// Where an earlier sync stopped.
    pub cursor: Option<String>,
}

impl ScanRequest {
    /// Everything in a split.
    pub fn all(split: Split) -> Self {
        Self {
            split,
            projection: None,
            filters: Vec::new(),
            limit: None,
            cursor: None,
        }
    }
}

/// A row of the source that could not be made into a row of the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Counted from 1 within the split.
    pub row: u64,
    /// The line it starts on in a source of lines.
    pub line: Option<u64>,
    /// The column at fault.
    pub column: Option<String>,
    /// A short stable name of the reason.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// The row as it stood, cut to a bound.
    pub raw: String,
}

/// Some rows: those of the batch and the rejects together are `rows_read`.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Rows of the source that were read.
    pub rows_read: u64,
    /// Those that fit the schema.
    pub batch: Option<RecordBatch>,
    /// Those that did not.
    pub rejects: Vec<Reject>,
}

/// Parts of a source.
const MAX_SPLITS: usize = 100_000;

/// Bytes of a split's token, and of a cursor.
const MAX_TOKEN_BYTES: usize = 64 << 10;

/// Bytes of the raw text of a reject; longer is cut.
const MAX_RAW_BYTES: usize = 4096;

/// Bytes of the message of a reject; longer is cut.
const MAX_MESSAGE_BYTES: usize = 1024;

/// An instance that reads.
pub struct Connector {
    instance: Instance,
    guest: Guest,
    /// What the guest said its columns are.
    schema: Option<SchemaRef>,
    /// What the chunks of the scan that runs must look like.
    scanned: Option<SchemaRef>,
    /// The row the scan rejected last; 0 before the first.
    rejected: u64,
}

impl Connector {
    pub(crate) async fn open(
        mut instance: Instance,
        pre: &ConnectorPluginPre<State>,
        config: &serde_json::Value,
        opening: Option<Box<Opening>>,
    ) -> Result<Self, CallError> {
        let guest = match opening {
            Some(opening) => {
                instance.ask::<()>(&Question::Open(opening), None).await?;
                Guest::Apart
            }
            None => {
                let config = config.to_string();
                let (guest, answer) = guest::configure(&mut instance, pre, &config).await?;
                instance.accept(answer)?;
                Guest::Here(guest)
            }
        };
        Ok(Self {
            instance,
            guest,
            schema: None,
            scanned: None,
            rejected: 0,
        })
    }

    /// The columns of the source.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn schema(&mut self) -> Result<SchemaRef, CallError> {
        if let Some(schema) = &self.schema {
            return Ok(schema.clone());
        }
        let answer = self.guest.schema(&mut self.instance).await?;
        let fields = self.instance.accept(answer)?;
        if fields.is_empty() {
            return Err(self.instance.bad_output("a schema without columns"));
        }
        columns::check_fields(&fields)
            .map_err(|malformed| self.instance.bad_output(format!("a schema: {malformed}")))?;
        let fields: Vec<Field> = fields.into_iter().map(Field::from).collect();
        let schema = schema_of(&fields);
        self.schema = Some(schema.clone());
        Ok(schema)
    }

    /// The parts of the source; their ids differ.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn partitions(&mut self) -> Result<Vec<Split>, CallError> {
        let answer = self.guest.partitions(&mut self.instance).await?;
        let splits = self.instance.accept(answer)?;
        check_splits(&splits).map_err(|what| self.instance.bad_output(what))?;
        Ok(splits.into_iter().map(Split::from).collect())
    }

    /// Starts to read a split.
    ///
    /// # Errors
    /// See [`CallError`]; also when no column is asked for, since rows without columns cannot be
    /// passed.
    pub async fn scan(&mut self, request: &ScanRequest) -> Result<(), CallError> {
        let schema = self.schema().await?;
        let scanned = match &request.projection {
            None => schema,
            Some(names) => project(&schema, names).map_err(|what| self.instance.bad_input(what))?,
        };
        let request = wire::ScanRequest::from(request);
        let answer = self.guest.scan(&mut self.instance, request).await?;
        self.instance.accept(answer)?;
        self.scanned = Some(scanned);
        self.rejected = 0;
        Ok(())
    }

    /// The next rows, or nothing at the end. The columns are those of the projection, or of the
    /// schema.
    ///
    /// # Errors
    /// See [`CallError`]; also when rows read are not those of the batch and the rejects together,
    /// and when the numbers of rejected rows do not rise from 1.
    pub async fn next(&mut self) -> Result<Option<Chunk>, CallError> {
        let Some(scanned) = self.scanned.clone() else {
            return Err(self
                .instance
                .bad_input("nothing is being read; call `scan` first"));
        };
        let answer = self.guest.next(&mut self.instance).await?;
        let Some(chunk) = self.instance.accept(answer)? else {
            return Ok(None);
        };
        let batch = match chunk.batch {
            None => None,
            Some(batch) => {
                let rows = self.instance.take_batch(batch)?;
                Some(same_columns(&scanned, rows).map_err(|what| self.instance.bad_output(what))?)
            }
        };
        let in_batch = batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        let rejected = chunk.rejects.len() as u64;
        if chunk.rows_read != in_batch + rejected {
            return Err(self.instance.bad_output(format!(
                "a chunk of {} rows with {in_batch} in its batch and {rejected} rejected",
                chunk.rows_read
            )));
        }
        if chunk.rows_read == 0 {
            return Err(self
                .instance
                .bad_output("a chunk of no rows, which would never end"));
        }
        for reject in &chunk.rejects {
            if reject.row <= self.rejected {
                let (row, before) = (reject.row, self.rejected);
                return Err(self.instance.bad_output(match before {
                    0 => "a reject of row 0; rows count from 1".to_owned(),
                    _ => format!("a reject of row {row} after one of row {before}"),
                }));
            }
            self.rejected = reject.row;
        }
        let rejects = chunk.rejects.into_iter().map(Reject::from).collect();
        Ok(Some(Chunk {
            rows_read: chunk.rows_read,
            batch,
            rejects,
        }))
    }

    /// Where the next incremental sync should start; known after the end.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn cursor(&mut self) -> Result<Option<String>, CallError> {
        let answer = self.guest.cursor(&mut self.instance).await?;
        let cursor = self.instance.accept(answer)?;
        if let Some(cursor) = &cursor
            && cursor.len() > MAX_TOKEN_BYTES
        {
            return Err(self.instance.bad_output(format!(
                "a cursor of {} bytes, over {MAX_TOKEN_BYTES}",
                cursor.len()
            )));
        }
        Ok(cursor)
    }

    /// Ends the instance and says what it used.
    ///
    /// # Errors
    /// When that cannot be put on record.
    pub fn finish(self) -> Result<Usage, CallError> {
        self.instance.finish()
    }
}

fn check_splits(splits: &[wire::Split]) -> Result<(), String> {
    if splits.len() > MAX_SPLITS {
        return Err(format!("{} splits, over {MAX_SPLITS}", splits.len()));
    }
    let mut ids = HashSet::with_capacity(splits.len());
    for split in splits {
        // An id is a path as a rule, so it may be as long as one.
        if split.id.is_empty() || split.id.len() > MAX_MESSAGE_BYTES {
            return Err(format!("a split whose id has {} bytes", split.id.len()));
        }
        if split.id.chars().any(char::is_control) {
            return Err("a split whose id holds control characters".into());
        }
        if !ids.insert(split.id.as_str()) {
            return Err(format!(
                "two splits with the id `{}`",
                text::sentence(&split.id, 64)
            ));
        }
        if split.token.len() > MAX_TOKEN_BYTES {
            return Err(format!(
                "a token of {} bytes, over {MAX_TOKEN_BYTES}",
                split.token.len()
            ));
        }
        if let Some(version) = &split.version {
            check_name("the version of a split", version)?;
        }
    }
    Ok(())
}

/// The schema of some of its columns, in the order asked for.
fn project(schema: &SchemaRef, names: &[String]) -> Result<SchemaRef, String> {
    if names.is_empty() {
        return Err("a scan asks for no columns; ask for at least one".into());
    }
    let places = names
        .iter()
        .map(|name| {
            schema
                .index_of(name)
                .map_err(|_| format!("the source has no column `{name}`"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    schema
        .project(&places)
        .map(SchemaRef::new)
        .map_err(|error| error.to_string())
}

/// A batch under the schema it was promised with: same names, same types, no nulls where there
/// should be none.
fn same_columns(promised: &SchemaRef, rows: RecordBatch) -> Result<RecordBatch, String> {
    let schema = rows.schema();
    let same = promised.fields().len() == schema.fields().len()
        && promised
            .fields()
            .iter()
            .zip(schema.fields())
            .all(|(promised, given)| {
                promised.name() == given.name() && promised.data_type() == given.data_type()
            });
    if !same {
        let list = |schema: &SchemaRef| {
            let fields = schema.fields().iter();
            let columns: Vec<_> = fields
                .map(|field| format!("{} {}", field.name(), field.data_type()))
                .collect();
            text::sentence(&columns.join(", "), 512)
        };
        return Err(format!(
            "a batch with the columns ({}) where ({}) were promised",
            list(&schema),
            list(promised)
        ));
    }
    RecordBatch::try_new(promised.clone(), rows.columns().to_vec())
        .map_err(|error| format!("a batch that breaks its promised schema: {error}"))
}

impl From<wire::Split> for Split {
    fn from(split: wire::Split) -> Self {
        Self {
            id: split.id,
            token: split.token,
            rows: split.rows,
            bytes: split.bytes,
            version: split.version,
        }
    }
}

impl From<&Split> for wire::Split {
    fn from(split: &Split) -> Self {
        Self {
            id: split.id.clone(),
            token: split.token.clone(),
            rows: split.rows,
            bytes: split.bytes,
            version: split.version.clone(),
        }
    }
}

impl From<&ScanRequest> for wire::ScanRequest {
    fn from(request: &ScanRequest) -> Self {
        Self {
            split: (&request.split).into(),
            projection: request.projection.clone(),
            filters: request.filters.iter().map(wire::Filter::from).collect(),
            limit: request.limit,
            cursor: request.cursor.clone(),
        }
    }
}

impl From<&Filter> for wire::Filter {
    fn from(filter: &Filter) -> Self {
        Self {
            column: filter.column.clone(),
            comparison: match filter.comparison {
                Comparison::Equal => wire::Comparison::Equal,
                Comparison::NotEqual => wire::Comparison::NotEqual,
                Comparison::Less => wire::Comparison::Less,
                Comparison::LessOrEqual => wire::Comparison::LessOrEqual,
                Comparison::Greater => wire::Comparison::Greater,
                Comparison::GreaterOrEqual => wire::Comparison::GreaterOrEqual,
            },
            literal: match &filter.literal {
                Literal::Boolean(value) => wire::Literal::Boolean(*value),
                Literal::Int64(value) => wire::Literal::Int64(*value),
                Literal::Float64(value) => wire::Literal::Float64(*value),
                Literal::Utf8(value) => wire::Literal::Utf8(value.clone()),
            },
        }
    }
}

impl From<wire::Reject> for Reject {
    fn from(reject: wire::Reject) -> Self {
        Self {
            row: reject.row,
            line: reject.line,
            column: reject
                .column
                .map(|column| text::sentence(&column, MAX_NAME_BYTES)),
            reason: text::sentence(&reject.reason, MAX_NAME_BYTES),
            message: text::sentence(&reject.message, MAX_MESSAGE_BYTES),
            raw: text::sentence(&reject.raw, MAX_RAW_BYTES),
        }
    }
}
