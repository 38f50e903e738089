use std::process::{Command, Stdio};

use super::*;
use crate::Estate;
use crate::trial::Trial;

fn incoming(trial: &Trial) -> usize {
    fs::read_dir(trial.folder.path().join("blobs").join(INCOMING))
        .expect("reads")
        .count()
}

fn file_of(trial: &Trial, digest: &Digest) -> PathBuf {
    let name = digest.to_string();
    trial
        .folder
        .path()
        .join("blobs")
        .join(&name[..2])
        .join(name)
}

#[tokio::test]
async fn bytes_come_back_under_their_digest() {
    let trial = Trial::start();
    let bytes = vec![7; 3 * PART_BYTES + 5];
    let digest = trial.estate.put(&bytes).await.expect("kept");
    assert_eq!(digest, Digest::of(&bytes));
    assert_eq!(trial.estate.get(&digest).await.expect("there"), bytes);
    assert!(trial.estate.contains(&digest).await.expect("readable"));
    assert_eq!(trial.estate.put(&bytes).await.expect("kept again"), digest);
    assert_eq!(trial.estate.put(b"").await.expect("kept"), Digest::of(b""));
    assert_eq!(
        trial.estate.get(&Digest::of(b"")).await.expect("there"),
        b""
    );
    assert_eq!(incoming(&trial), 0);
}

#[tokio::test]
async fn a_file_is_kept_as_its_bytes() {
    let trial = Trial::start();
    let path = trial.folder.path().join("file");
    fs::write(&path, vec![1; 3_000_000]).expect("writes");
    let digest = trial.estate.put_file(&path).await.expect("kept");
    assert_eq!(
        trial.estate.get(&digest).await.expect("there").len(),
        3_000_000
    );
    let error = trial
        .estate
        .put_file(&path.join("x"))
        .await
        .expect_err("no such file");
    assert!(matches!(error, BlobError::ReadFile { .. }), "{error}");
    assert_eq!(incoming(&trial), 0);
}

#[tokio::test]
async fn a_missing_and_a_changed_blob_are_told_apart() {
    let trial = Trial::start();
    let missing = Digest::of(b"never kept");
    assert!(matches!(
        trial.estate.get(&missing).await,
        Err(BlobError::Missing { .. })
    ));
    assert!(!trial.estate.contains(&missing).await.expect("readable"));

    let digest = trial.estate.put(b"rows").await.expect("kept");
    fs::write(file_of(&trial, &digest), b"r0ws").expect("changes it");
    let error = trial.estate.get(&digest).await.expect_err("changed");
    assert!(
        matches!(error, BlobError::Changed { found, .. } if found == Digest::of(b"r0ws")),
        "{error}"
    );
    assert!(matches!(
        trial.estate.store().check(&digest).await,
        Err(BlobError::Changed { .. })
    ));

    trial
        .estate
        .put(b"rows")
        .await
        .expect("keeping it again mends it");
    assert_eq!(trial.estate.get(&digest).await.expect("there"), b"rows");
}

#[tokio::test]
async fn a_blob_that_is_given_up_leaves_nothing() {
    let trial = Trial::start();
    let mut writer = trial.estate.store().writer().await.expect("starts");
    writer
        .write(&vec![0; 2 * PART_BYTES])
        .await
        .expect("writes");
    drop(writer);
    for _ in 0..200 {
        if incoming(&trial) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the file of a writer that was dropped is still there");
}

#[tokio::test]
async fn what_a_killed_process_left_is_removed_a_day_later() {
    let trial = Trial::start();
    let folder = trial.folder.path().join("blobs").join(INCOMING);
    let (old, new) = (folder.join("old"), folder.join("new"));
    fs::write(&old, "x").expect("writes");
    fs::write(&new, "x").expect("writes");
    let file = fs::File::options().write(true).open(&old).expect("opens");
    file.set_modified(SystemTime::now() - 2 * INCOMING_KEPT)
        .expect("is old");
    Estate::open(trial.folder.path()).expect("opens");
    assert!(!old.exists() && new.exists());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let trial = Trial::start();
    let file = trial.folder.path().join("file");
    fs::write(&file, "").expect("writes");
    let error = Estate::open(&file).expect_err("a file is no folder");
    assert!(
        matches!(&error, BlobError::Open { path, .. } if path.starts_with(&file)),
        "{error}"
    );
}

const CHILD_FOLDER: &str = "SANDCAST_ESTATE_CHILD_FOLDER";

/// Not a test of its own: the other process of the test below.
#[tokio::test]
async fn child_keeps_a_large_blob() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else {
        return;
    };
    let estate = Estate::open(Path::new(&folder)).expect("opens");
    let error = estate
        .put(&vec![1; 4 * PART_BYTES])
        .await
        .expect_err("there is no room");
    assert!(matches!(error, BlobError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("free some space"), "{error}");
    estate.put(b"small").await.expect("there is room for this");
}

/// A file size limit stands in for a full disk.
#[cfg(unix)]
#[tokio::test]
async fn a_full_disk_is_an_error_and_leaves_nothing() {
    let trial = Trial::start();
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact blobs::tests::child_keeps_a_large_blob"])
        .arg(std::env::current_exe().expect("this program"))
        .env(CHILD_FOLDER, trial.folder.path())
        .stdout(Stdio::null())
        .status()
        .expect("the test program starts again");
    assert!(status.success());
    assert_eq!(incoming(&trial), 0);
    assert_eq!(
        trial
            .estate
            .get(&Digest::of(b"small"))
            .await
            .expect("there"),
        b"small"
    );
}
