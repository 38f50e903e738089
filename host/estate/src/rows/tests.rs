use std::fs;

use arrow::array::StringArray;
use arrow::datatypes::{Field, Schema};

use super::*;
use crate::trial::{Trial, people};

#[tokio::test]
async fn the_same_rows_give_the_same_bytes_however_they_are_cut() {
    let trial = Trial::start();
    let whole = people(0, 150_000);
    let schema = whole.schema();
    let one = trial
        .dataset("one", &schema, std::slice::from_ref(&whole))
        .await;
    let cuts = [0, 1, 1, 4096, 70_000, 149_999, 150_000];
    let pieces: Vec<_> = cuts
        .windows(2)
        .map(|cut| whole.slice(cut[0], cut[1] - cut[0]))
        .collect();
    let other = trial.dataset("other", &schema, &pieces).await;
    assert_eq!(
        (one.digest, one.rows, &one.blobs),
        (other.digest, 150_000, &other.blobs)
    );

    let read = trial.estate.read(&one).await.expect("reads");
    assert!(read.iter().all(|batch| batch.num_rows() <= BATCH_ROWS));
    assert_eq!(concat_batches(&schema, &read).expect("one"), whole);
}

#[tokio::test]
async fn other_rows_another_order_and_another_schema_give_another_digest() {
    let trial = Trial::start();
    let people = people(0, 100);
    let schema = people.schema();
    let one = trial
        .dataset("people", &schema, std::slice::from_ref(&people))
        .await
        .digest;
    let fewer = trial
        .dataset("people", &schema, &[people.slice(0, 99)])
        .await
        .digest;
    let turned = trial
        .dataset(
            "people",
            &schema,
            &[people.slice(50, 50), people.slice(0, 50)],
        )
        .await
        .digest;
    let narrow = people.project(&[0, 1]).expect("two columns");
    let narrow = trial
        .dataset("people", &narrow.schema(), std::slice::from_ref(&narrow))
        .await
        .digest;
    let empty = trial.dataset("people", &schema, &[]).await.digest;
    let all = [one, fewer, turned, narrow, empty];
    assert_eq!(
        all.iter().collect::<std::collections::BTreeSet<_>>().len(),
        all.len()
    );
}

#[tokio::test]
async fn many_rows_are_cut_into_files() {
    let trial = Trial::start();
    let schema = people(0, 1).schema();
    let mut writer = RowWriter::new(trial.estate.store(), &schema);
    writer.cuts.file_rows = 100_000;
    writer.write(people(0, 300_000)).await.expect("writes");
    let blobs = writer.finish().await.expect("finishes");
    let rows: Vec<u64> = blobs.iter().map(|blob| blob.rows).collect();
    assert_eq!(rows, [131_072, 131_072, 300_000 - 262_144]);
    let read: Vec<_> = trial
        .estate
        .stream_blobs(&blobs)
        .try_collect()
        .await
        .expect("reads");
    assert_eq!(
        concat_batches(&schema, &read).expect("one"),
        people(0, 300_000)
    );
}

#[tokio::test]
async fn long_texts_are_cut_by_their_bytes_wherever_they_come() {
    let trial = Trial::start();
    let schema = Arc::new(Schema::new(vec![Field::new("text", DataType::Utf8, true)]));
    let texts = (0..500_usize).map(|row| (row % 7 != 0).then(|| "x".repeat(row * row % 1500)));
    let texts: ArrayRef = Arc::new(texts.collect::<StringArray>());
    let whole = RecordBatch::try_new(Arc::clone(&schema), vec![texts]).expect("a batch");
    let mut digests = Vec::new();
    for piece in [1, 7, 99, 500] {
        let mut writer = RowWriter::new(trial.estate.store(), &schema);
        writer.cuts = Cuts {
            batch_text: 1000,
            group_text: 4000,
            ..CUTS
        };
        for from in (0..500).step_by(piece) {
            writer
                .write(whole.slice(from, piece.min(500 - from)))
                .await
                .expect("writes");
        }
        let blobs = writer.finish().await.expect("finishes");
        let file = open(trial.estate.store(), &blobs[0]).await.expect("opens");
        let groups = file.metadata().row_groups();
        assert!(groups.len() > 50, "{}", groups.len());
        assert!(
            groups.iter().all(|group| group.total_byte_size() < 8000),
            "{piece}"
        );
        let read: Vec<_> = trial
            .estate
            .stream_blobs(&blobs)
            .try_collect()
            .await
            .expect("reads");
        assert_eq!(concat_batches(&schema, &read).expect("one"), whole);
        digests.push(blobs[0].digest);
    }
    assert!(
        digests.iter().all(|digest| *digest == digests[0]),
        "{digests:?}"
    );
}

#[tokio::test]
async fn a_dataset_without_rows_is_read_as_nothing() {
    let trial = Trial::start();
    let dataset = trial.dataset("people", &people(0, 1).schema(), &[]).await;
    assert_eq!((dataset.rows, dataset.blobs.len()), (0, 0));
    assert!(trial.estate.read(&dataset).await.expect("reads").is_empty());
}

#[tokio::test]
async fn changed_rows_are_not_read() {
    let trial = Trial::start();
    let dataset = trial.people("people", 1000).await;
    let name = dataset.blobs[0].digest.to_string();
    let path = trial
        .folder
        .path()
        .join("blobs")
        .join(&name[..2])
        .join(&name);
    let mut bytes = fs::read(&path).expect("reads");
    bytes[100] ^= 1;
    fs::write(&path, bytes).expect("writes");
    let error = trial.estate.read(&dataset).await.expect_err("changed");
    assert!(
        matches!(error, ReadError::Blob(BlobError::Changed { .. })),
        "{error}"
    );
    fs::remove_file(&path).expect("removes");
    let error = trial.estate.read(&dataset).await.expect_err("gone");
    assert!(
        matches!(error, ReadError::Blob(BlobError::Missing { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_saved_dataset_is_loaded_as_it_was() {
    let trial = Trial::start();
    let dataset = trial.people("people", 10).await;
    let saved = trial.estate.save(&dataset).await.expect("saves");
    assert_eq!(trial.estate.load(&saved).await.expect("loads"), dataset);
    let text = trial.estate.put(b"{}").await.expect("keeps");
    assert!(matches!(
        trial.estate.load(&text).await,
        Err(BlobError::NotADataset { .. })
    ));
}
