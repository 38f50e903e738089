//! Rows in Parquet blobs: written so that the same rows give the same bytes, and read in order.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, TryFutureExt};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use sandcast_audit::Digest;
use thiserror::Error;

use crate::BlobRef;
use crate::blobs::{BlobError, BlobStore, BlobWriter};

/// Rows of a batch when rows are read.
pub(crate) const BATCH_ROWS: usize = 65_536;
/// Rows of a row group: what is held in memory while a file is written.
const ROW_GROUP_ROWS: usize = 2 * BATCH_ROWS;

/// Why rows cannot be read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A blob cannot be had.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A blob is what it should be, but is no Parquet file that can be read.
    #[error("the rows of blob {digest} cannot be read; was it written by another version?")]
    Parquet {
        /// The blob.
        digest: Digest,
        /// What is wrong with it.
        source: ParquetError,
    },
}

/// Why rows cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The blob cannot be kept.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The rows do not fit the schema they are to have.
    #[error("rows cannot be put together")]
    Arrow(#[from] ArrowError),
    /// The rows cannot be encoded.
    #[error("rows cannot be encoded as parquet")]
    Parquet(#[from] ParquetError),
}

/// Where rows are cut into batches, row groups and files. Each cut is a function of the rows.
#[derive(Debug, Clone, Copy)]
struct Cuts {
    /// Bytes of text in a batch, unless one row has more.
    batch_text: u64,
    /// Bytes of text after which a row group ends: no batch that is read back can have more text
    /// than 32-bit offsets count.
    group_text: u64,
    /// Rows after which a file ends.
    file_rows: u64,
}

const CUTS: Cuts = Cuts {
    batch_text: 64 << 20,
    group_text: 256 << 20,
    file_rows: 32 * BATCH_ROWS as u64,
};

/// Writes rows of one schema. The bytes are a function of the rows, not of the batches in which
/// they come: batches are cut anew, and nothing in the files depends on time or version.
pub(crate) struct RowWriter {
    store: Arc<BlobStore>,
    schema: SchemaRef,
    cuts: Cuts,
    /// Rows that do not fill a batch yet.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_text: u64,
    open: Option<OpenFile>,
    done: Vec<BlobRef>,
}

struct OpenFile {
    parquet: ArrowWriter<Vec<u8>>,
    blob: BlobWriter,
    rows: u64,
    group_text: u64,
}

impl RowWriter {
    pub(crate) fn new(store: &Arc<BlobStore>, schema: &SchemaRef) -> Self {
        Self {
            store: Arc::clone(store),
            schema: Arc::clone(schema),
            cuts: CUTS,
            pending: Vec::new(),
            pending_rows: 0,
            pending_text: 0,
            open: None,
            done: Vec::new(),
        }
    }

    pub(crate) async fn write(&mut self, batch: RecordBatch) -> Result<(), WriteError> {
        let mut from = 0;
        while from < batch.num_rows() {
            let to = self.fitting(&batch, from);
            if to > from {
                self.pending.push(batch.slice(from, to - from));
                self.pending_rows += to - from;
                self.pending_text += text_bytes(&batch, from, to);
            }
            from = to;
            if from < batch.num_rows() {
                self.write_pending().await?;
            }
        }
        Ok(())
    }

    /// The files, in order; none when there were no rows.
    pub(crate) async fn finish(mut self) -> Result<Vec<BlobRef>, WriteError> {
        self.write_pending().await?;
        self.close().await?;
        Ok(self.done)
    }

    /// The end of the rows that still fit into the pending batch. A row that is too large for
    /// any batch is one of its own.
    fn fitting(&self, batch: &RecordBatch, from: usize) -> usize {
        let end = batch
            .num_rows()
            .min(from + (BATCH_ROWS - self.pending_rows));
        let fits = |to| self.pending_text + text_bytes(batch, from, to) <= self.cuts.batch_text;
        if fits(end) {
            return end;
        }
        let (mut low, mut high) = (from, end);
        while low < high {
            let middle = (low + high).div_ceil(2);
            if fits(middle) {
                low = middle
            } else {
                high = middle - 1
            }
        }
        if low == from && self.pending_rows == 0 {
            from + 1
        } else {
            low
        }
    }

    async fn write_pending(&mut self) -> Result<(), WriteError> {
        if self.pending_rows == 0 {
            return Ok(());
        }
        let batch = concat_batches(&self.schema, &self.pending)?;
        self.pending.clear();
        self.pending_rows = 0;
        let text = mem::take(&mut self.pending_text);
        let mut file = match self.open.take() {
            Some(file) => file,
            None => OpenFile {
                parquet: ArrowWriter::try_new(
                    Vec::new(),
                    Arc::clone(&self.schema),
                    Some(properties()),
                )?,
                blob: self.store.writer().await?,
                rows: 0,
                group_text: 0,
            },
        };
        file.parquet.write(&batch)?;
        file.rows += batch.num_rows() as u64;
        file.group_text += text;
        if file.group_text >= self.cuts.group_text {
            file.parquet.flush()?;
        }
        if file.parquet.in_progress_rows() == 0 {
            file.group_text = 0;
        }
        file.blob
            .write(&mem::take(file.parquet.inner_mut()))
            .await?;
        let full = file.rows >= self.cuts.file_rows;
        self.open = Some(file);
        if full {
            self.close().await?;
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), WriteError> {
        let Some(OpenFile {
            parquet,
            mut blob,
            rows,
            ..
        }) = self.open.take()
        else {
            return Ok(());
        };
        blob.write(&parquet.into_inner()?).await?;
        let (digest, bytes) = blob.finish().await?;
        self.done.push(BlobRef {
            digest,
            rows,
            bytes,
        });
        Ok(())
    }
}

/// The bytes of text in some rows of a batch.
fn text_bytes(batch: &RecordBatch, from: usize, to: usize) -> u64 {
    let between =
        |offsets: &[i32], from: usize, to: usize| u64::from(offsets[to].abs_diff(offsets[from]));
    let of = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => between(column.as_string::<i32>().value_offsets(), from, to),
        DataType::List(item) if *item.data_type() == DataType::Utf8 => {
            let lists = column.as_list::<i32>();
            let items = lists.value_offsets();
            let (from, to) = (
                items[from].unsigned_abs() as usize,
                items[to].unsigned_abs() as usize,
            );
            between(lists.values().as_string::<i32>().value_offsets(), from, to)
        }
        _ => 0,
    };
    batch.columns().iter().map(of).sum()
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by("sandcast".to_owned())
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .build()
}

/// The rows of some blobs, in order. Each blob is checked before anything of it is read.
pub(crate) fn stream(
    store: &Arc<BlobStore>,
    blobs: impl IntoIterator<Item = BlobRef>,
) -> BoxStream<'static, Result<RecordBatch, ReadError>> {
    let store = Arc::clone(store);
    let blobs: VecDeque<BlobRef> = blobs.into_iter().collect();
    stream::iter(blobs)
        .then(move |blob| {
            let store = Arc::clone(&store);
            async move {
                let digest = blob.digest;
                let failed = move |source| ReadError::Parquet { digest, source };
                let rows = open(&store, &blob)
                    .await?
                    .with_batch_size(BATCH_ROWS)
                    .build()
                    .map_err(failed)?;
                Ok::<_, ReadError>(rows.map_err(failed))
            }
        })
        .try_flatten()
        .boxed()
}

/// Opens one blob, after checking it.
pub(crate) async fn open(
    store: &BlobStore,
    blob: &BlobRef,
) -> Result<ParquetRecordBatchStreamBuilder<BlobReader>, ReadError> {
    store.check(&blob.digest).await?;
    let reader = BlobReader {
        store: store.object_store(),
        place: BlobStore::place(&blob.digest),
        bytes: blob.bytes,
    };
    ParquetRecordBatchStreamBuilder::new(reader)
        .await
        .map_err(|source| ReadError::Parquet {
            digest: blob.digest,
            source,
        })
}

/// Reads ranges of a blob.
pub(crate) struct BlobReader {
    store: Arc<dyn ObjectStore>,
    place: StorePath,
    bytes: u64,
}

impl AsyncFileReader for BlobReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.store
            .get_range(&self.place, range)
            .map_err(|error| ParquetError::External(error.into()))
            .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        let read = async move { self.store.get_ranges(&self.place, &ranges).await };
        read.map_err(|error| ParquetError::External(error.into()))
            .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let bytes = self.bytes;
        let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
        reader.load_and_finish(self, bytes).map_ok(Arc::new).boxed()
    }
}

#[cfg(test)]
mod tests;
