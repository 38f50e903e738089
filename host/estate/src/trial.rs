//! What the tests of this crate share.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use tempfile::TempDir;

use crate::rows::RowWriter;
use crate::{Dataset, Estate, Quarantine};

pub(crate) struct Trial {
    pub(crate) folder: TempDir,
    pub(crate) estate: Estate,
}

impl Trial {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let estate = Estate::open(folder.path()).expect("opens");
        Self { folder, estate }
    }

    /// A dataset of these batches.
    pub(crate) async fn dataset(
        &self,
        name: &str,
        schema: &SchemaRef,
        batches: &[RecordBatch],
    ) -> Dataset {
        let mut writer = RowWriter::new(self.estate.store(), schema);
        for batch in batches {
            writer.write(batch.clone()).await.expect("writes");
        }
        let blobs = writer.finish().await.expect("finishes");
        Dataset::new(
            name.to_owned(),
            Arc::clone(schema),
            blobs,
            Vec::new(),
            None,
            Quarantine::default(),
        )
    }

    /// People with the columns `id`, `age` and `City`; every tenth age is missing.
    pub(crate) async fn people(&self, name: &str, rows: i64) -> Dataset {
        let batch = people(0, rows);
        self.dataset(name, &batch.schema(), &[batch]).await
    }

    /// Every value of a column of a dataset, as text.
    pub(crate) async fn texts(&self, dataset: &Dataset, column: &str) -> Vec<String> {
        texts(&self.estate.read(dataset).await.expect("reads"), column)
    }
}

pub(crate) fn people(from: i64, to: i64) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("age", DataType::Float64, true),
        Field::new("City", DataType::Utf8, true),
    ]);
    let cities = ["Ulm", "Lyon", "Oslo"];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(from..to)),
        Arc::new(
            (from..to)
                .map(|id| (id % 10 != 0).then_some((id % 80) as f64))
                .collect::<Float64Array>(),
        ),
        Arc::new(
            (from..to)
                .map(|id| Some(cities[(id % 3) as usize]))
                .collect::<StringArray>(),
        ),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).expect("a batch")
}

pub(crate) fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for batch in batches {
        let values = batch.column_by_name(column).expect("the column");
        for row in 0..batch.num_rows() {
            texts.push(arrow::util::display::array_value_to_string(values, row).expect("text"));
        }
    }
    texts
}
