use std::collections::BTreeMap;

use arrow::datatypes::{Schema, SchemaRef};
use sandcast_audit::{Digest, PluginRef};
use sandcast_sandbox::{fields_of, schema_of};
use serde::{Deserialize, Serialize};

/// Rows with a schema, kept as Parquet blobs, and where they came from.
///
/// The digest is that of the content (the schema and the blobs, in order) and of nothing else:
/// neither the name nor the time takes part in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// The name under which SQL knows it.
    pub name: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The columns; each of a kind that plugins know.
    #[serde(with = "schema_as_fields")]
    pub schema: SchemaRef,
    /// How many rows there are.
    pub rows: u64,
    /// The size of the blobs together.
    pub bytes: u64,
    /// The Parquet files, in the order of the rows.
    pub blobs: Vec<BlobRef>,
    /// The sources whose rows went in.
    pub sources: Vec<SourceRef>,
    /// The query that made it, if one did.
    pub sql: Option<String>,
    /// The rows put aside while it was made.
    pub quarantine: Quarantine,
}

impl Dataset {
    pub(crate) fn new(
        name: String,
        schema: SchemaRef,
        blobs: Vec<BlobRef>,
        sources: Vec<SourceRef>,
        sql: Option<String>,
        quarantine: Quarantine,
    ) -> Self {
        Self {
            name,
            digest: Self::digest_of(&schema, &blobs),
            rows: blobs.iter().map(|blob| blob.rows).sum(),
            bytes: blobs.iter().map(|blob| blob.bytes).sum(),
            schema,
            blobs,
            sources,
            sql,
            quarantine,
        }
    }

    /// The digest of a content.
    fn digest_of(schema: &Schema, blobs: &[BlobRef]) -> Digest {
        let mut hasher = Digest::hasher();
        hasher.update_field(b"sandcast dataset 1");
        hasher.update_field(&(schema.fields().len() as u64).to_le_bytes());
        for field in schema.fields() {
            hasher.update_field(field.name().as_bytes());
            hasher.update_field(field.data_type().to_string().as_bytes());
            hasher.update_field(&[u8::from(field.is_nullable())]);
        }
        for blob in blobs {
            hasher.update(blob.digest.as_bytes());
        }
        hasher.finish()
    }
}

/// A Parquet file in the blob store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// The digest of its bytes; also its name.
    pub digest: Digest,
    /// The rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// A source, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRef {
    /// The name under which the pipeline knows it.
    pub name: String,
    /// The connector that read it.
    pub plugin: PluginRef,
    /// The digest of the connector's configuration.
    pub config: Digest,
    /// Its parts, in the order in which the connector lists them.
    pub splits: Vec<SplitRef>,
}

/// A part of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRef {
    /// Its name within the source.
    pub id: String,
    /// What the connector said of its content, if anything.
    pub version: Option<String>,
    /// Rows read from it: those that landed and those that were rejected.
    pub rows: u64,
    /// Rows of it that were rejected.
    pub rejected: u64,
    /// Where the next incremental sync should start, if the connector keeps such a place.
    pub cursor: Option<String>,
}

/// Rows that were put aside, each with its reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// How many.
    pub rows: u64,
    /// How many for each reason: the reason of a reject, or the rule that a row failed. A row
    /// that fails several rules counts for each.
    pub reasons: BTreeMap<String, u64>,
    /// Parquet files with the rows. Rejects of a source have the columns `source`, `split`,
    /// `row`, `line`, `column`, `reason`, `message` and `raw`; rows that failed checks have their
    /// own columns and `quarantine.row`, `quarantine.rules` and `quarantine.messages`.
    pub blobs: Vec<BlobRef>,
}

/// A schema in JSON: a list of name, kind and nullable.
mod schema_as_fields {
    use super::{SchemaRef, fields_of, schema_of};
    use sandcast_sandbox::Field;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        schema: &SchemaRef,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        fields_of(schema)
            .map_err(|(name, found)| {
                S::Error::custom(format!(
                    "column `{name}` is {found}, which plugins do not know"
                ))
            })?
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SchemaRef, D::Error> {
        Ok(schema_of(&Vec::<Field>::deserialize(deserializer)?))
    }
}
