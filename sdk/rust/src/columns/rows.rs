//! Columns put together.

use super::build::ColumnBuilder;
use crate::{Batch, Chunk, Column, Failure, Field, Kind, Reject, Values};

/// A column of a schema.
#[must_use]
pub fn field(name: &str, kind: Kind, nullable: bool) -> Field {
    Field {
        name: name.to_owned(),
        kind,
        nullable,
    }
}

/// Columns of equal length with their names, on the way to a [`Batch`].
///
/// ```no_run
/// use sandcast_sdk::columns::Rows;
///
/// # fn main() -> Result<(), sandcast_sdk::Failure> {
/// let batch = Rows::new()
///     .utf8("city", [Some("Aachen"), None])
///     .float64("rain", vec![1.5, 0.0])
///     .into_batch()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Rows {
    schema: Vec<Field>,
    columns: Vec<Column>,
}

impl Rows {
    /// No columns yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a column under its full description.
    #[must_use]
    pub fn column(mut self, field: Field, column: Column) -> Self {
        self.schema.push(field);
        self.columns.push(column);
        self
    }

    /// Adds what a builder has made; it is nullable.
    #[must_use]
    pub fn built(self, name: &str, builder: ColumnBuilder) -> Self {
        let column = builder.finish();
        let kind = column.kind();
        self.column(field(name, kind, true), column)
    }

    /// Adds numbers, all there.
    #[must_use]
    pub fn float64(self, name: &str, values: impl Into<Vec<f64>>) -> Self {
        self.column(
            field(name, Kind::Float64, false),
            Column::from(values.into()),
        )
    }

    /// Adds whole numbers, all there.
    #[must_use]
    pub fn int64(self, name: &str, values: impl Into<Vec<i64>>) -> Self {
        self.column(field(name, Kind::Int64, false), Column::from(values.into()))
    }

    /// Adds strings.
    #[must_use]
    pub fn utf8<S: AsRef<str>>(
        self,
        name: &str,
        values: impl IntoIterator<Item = Option<S>>,
    ) -> Self {
        self.column(field(name, Kind::Utf8, true), values.into_iter().collect())
    }

    /// Hands the columns to the host.
    ///
    /// # Errors
    /// What the host found wrong with them, such as columns of different lengths.
    pub fn into_batch(self) -> Result<Batch, Failure> {
        Batch::from_columns(&self.schema, &self.columns)
    }

    /// A chunk of rows none of which was rejected.
    ///
    /// # Errors
    /// As [`Rows::into_batch`].
    pub fn into_chunk(self) -> Result<Chunk, Failure> {
        self.into_batch().map(Chunk::rows)
    }

    /// A chunk beside the rows that could not be read.
    ///
    /// # Errors
    /// As [`Rows::into_batch`].
    pub fn into_chunk_with(self, rejects: Vec<Reject>) -> Result<Chunk, Failure> {
        Ok(Chunk::with_rejects(Some(self.into_batch()?), rejects))
    }
}

impl Column {
    /// The kind of its values.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.values {
            Values::Boolean(_) => Kind::Boolean,
            Values::Int64(_) => Kind::Int64,
            Values::Float64(_) => Kind::Float64,
            Values::Utf8(_) => Kind::Utf8,
            Values::Date32(_) => Kind::Date32,
            Values::TimestampUs(_) => Kind::TimestampUs,
        }
    }
}

impl Kind {
    /// The name of the kind in the contract, such as `timestamp-us`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Utf8 => "utf8",
            Self::Date32 => "date32",
            Self::TimestampUs => "timestamp-us",
        }
    }

    /// The kind of that name.
    ///
    /// ```
    /// use sandcast_sdk::Kind;
    /// assert_eq!(Kind::parse("date32"), Some(Kind::Date32));
    /// assert_eq!(Kind::parse("datetime"), None);
    /// ```
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Boolean,
            Self::Int64,
            Self::Float64,
            Self::Utf8,
            Self::Date32,
            Self::TimestampUs,
        ]
        .into_iter()
        .find(|kind| kind.name() == name)
    }
}
