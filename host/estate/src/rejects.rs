//! Rows of a source that did not fit its schema, as rows of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use sandcast_sandbox::Reject;

use crate::Quarantine;
use crate::blobs::BlobStore;
use crate::rows::{RowWriter, WriteError};

/// Reasons counted by name; a connector that makes up more has the rest counted as `other`.
const REASONS: usize = 1000;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("split", DataType::Utf8, false),
        Field::new("row", DataType::Int64, false),
        Field::new("line", DataType::Int64, true),
        Field::new("column", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, false),
        Field::new("message", DataType::Utf8, false),
        Field::new("raw", DataType::Utf8, false),
    ]))
});

/// Keeps the rejects of one split.
pub(crate) struct RejectWriter {
    source: String,
    split: String,
    writer: RowWriter,
    reasons: BTreeMap<String, u64>,
}

impl RejectWriter {
    pub(crate) fn new(store: &Arc<BlobStore>, source: &str, split: &str) -> Self {
        Self {
            source: source.to_owned(),
            split: split.to_owned(),
            writer: RowWriter::new(store, &SCHEMA),
            reasons: BTreeMap::new(),
        }
    }

    pub(crate) async fn write(&mut self, rejects: &[Reject]) -> Result<(), WriteError> {
        if rejects.is_empty() {
            return Ok(());
        }
        for reject in rejects {
            let known = self.reasons.len() < REASONS || self.reasons.contains_key(&reject.reason);
            let reason = if known {
                reject.reason.as_str()
            } else {
                "other"
            };
            match self.reasons.get_mut(reason) {
                Some(rows) => *rows += 1,
                None => drop(self.reasons.insert(reason.to_owned(), 1)),
            }
        }
        let batch = self.batch(rejects)?;
        self.writer.write(batch).await
    }

    pub(crate) async fn finish(self) -> Result<Quarantine, WriteError> {
        Ok(Quarantine::new(self.writer.finish().await?, self.reasons))
    }

    fn batch(&self, rejects: &[Reject]) -> Result<RecordBatch, WriteError> {
        let text = |of: fn(&Reject) -> Option<&str>| -> ArrayRef {
            Arc::new(rejects.iter().map(of).collect::<StringArray>())
        };
        let same = |value: &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rejects.iter().map(|_| value)))
        };
        let number = |of: fn(&Reject) -> Option<u64>| -> ArrayRef {
            Arc::new(
                rejects
                    .iter()
                    .map(|reject| of(reject).map(u64::cast_signed))
                    .collect::<Int64Array>(),
            )
        };
        let columns = vec![
            same(&self.source),
            same(&self.split),
            number(|reject| Some(reject.row)),
            number(|reject| reject.line),
            text(|reject| reject.column.as_deref()),
            text(|reject| Some(&reject.reason)),
            text(|reject| Some(&reject.message)),
            text(|reject| Some(&reject.raw)),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&SCHEMA), columns)?)
    }
}
