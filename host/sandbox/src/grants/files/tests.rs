//! What a quota counts of what is written, and how many folders are listed at a time.

use bytes::Bytes;
use preopens::Host as _;
use tempfile::TempDir;
use types::{HostDescriptor, HostDirectoryEntryStream};
use wasmtime::Store;
use wasmtime_wasi::p2::{Pollable as _, StreamError};

use super::*;
use crate::grants::ByteSize;
use crate::testing::{Bench, store};
use crate::{FileGrant, Grants};

/// Bytes that may be written.
const QUOTA: u64 = 100;

/// A granted folder, in the hands of an instance.
struct Desk {
    bench: Bench,
    store: Store<State>,
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let bench = Bench::new();
        let folder = tempfile::tempdir().expect("a folder");
        let grants = Grants {
            files: vec![FileGrant {
                host: folder.path().to_path_buf(),
                guest: "/data".into(),
                access: Access::ReadWrite,
                quota: FileQuota {
                    bytes: ByteSize::from_bytes(QUOTA),
                    ..FileQuota::default()
                },
            }],
            ..Grants::default()
        };
        let store = store(&bench, grants);
        Self {
            bench,
            store,
            folder,
        }
    }

    fn view(&mut self) -> FilesView<'_> {
        FilesView(self.store.data_mut())
    }

    fn root(&mut self) -> Resource<Descriptor> {
        let mut folders = self.view().get_directories().expect("no trap");
        folders.remove(0).0
    }

    /// An empty file.
    async fn file(&mut self) -> Resource<Descriptor> {
        let root = self.root();
        let flags = DescriptorFlags::READ | DescriptorFlags::WRITE;
        let (how, name) = (PathFlags::empty(), "file".to_owned());
        let opened = self
            .view()
            .open_at(root, how, name, OpenFlags::CREATE, flags)
            .await;
        opened.expect("a file")
    }

    async fn write(
        &mut self,
        file: &Resource<Descriptor>,
        bytes: usize,
        at: u64,
    ) -> Result<u64, ErrorCode> {
        let file = Resource::new_borrow(file.rep());
        let written = self.view().write(file, vec![b'x'; bytes], at).await;
        written.map_err(code)
    }

    async fn resize(&mut self, file: &Resource<Descriptor>, size: u64) -> Result<(), ErrorCode> {
        let file = Resource::new_borrow(file.rep());
        self.view().set_size(file, size).await.map_err(code)
    }

    fn stream(
        &mut self,
        file: &Resource<Descriptor>,
        at: u64,
    ) -> Result<Resource<DynOutputStream>, ErrorCode> {
        let file = Resource::new_borrow(file.rep());
        self.view().write_via_stream(file, at).map_err(code)
    }

    /// Writes to a stream as much as it says there is room for, until all is written.
    async fn pour(
        &mut self,
        stream: &Resource<DynOutputStream>,
        bytes: usize,
    ) -> Result<(), StreamError> {
        let table = &mut self.store.data_mut().table;
        let stream = table.get_mut(stream).expect("a stream");
        let mut left = bytes;
        while left > 0 {
            stream.ready().await;
            let piece = stream.check_write()?.min(left);
            stream.write(Bytes::from(vec![b'x'; piece]))?;
            left -= piece;
        }
        stream.flush()?;
        stream.ready().await;
        stream.check_write().map(|_| ())
    }

    async fn list(
        &mut self,
        folder: &Resource<Descriptor>,
    ) -> Result<Resource<DirectoryEntryStream>, ErrorCode> {
        let folder = Resource::new_borrow(folder.rep());
        self.view().read_directory(folder).await.map_err(code)
    }

    fn length(&self) -> u64 {
        let found = self.folder.path().join("file").metadata();
        found.map_or(0, |found| found.len())
    }

    /// The lines that would grant what was refused.
    fn denied(&self) -> Vec<String> {
        let denials = self.bench.denials().into_iter();
        denials.map(|(_, _, line)| line).collect()
    }
}

fn code(error: FsError) -> ErrorCode {
    error.downcast().expect("no trap")
}

const BYTES: &str = "plugins.test.grants.files[0].quota.bytes";

#[tokio::test]
async fn zeros_before_what_is_written_count() {
    let mut desk = Desk::new();
    let file = desk.file().await;
    // A byte that would end beyond the quota, by a little and by much.
    for at in [QUOTA, 1 << 40, u64::MAX] {
        let refused = desk.write(&file, 1, at).await;
        assert_eq!(refused, Err(ErrorCode::Quota), "at {at}");
        let refused = desk.stream(&file, at + u64::from(at < u64::MAX));
        assert_eq!(refused.map(|_| ()), Err(ErrorCode::Quota), "at {at}");
    }
    assert_eq!(desk.length(), 0);
    assert!(desk.denied().iter().all(|line| line == BYTES));
    let denied = desk.denied().len();
    assert!(denied > 0);
    // One that ends with it, which is then used up.
    assert_eq!(desk.write(&file, 1, QUOTA - 1).await, Ok(1));
    assert_eq!(desk.length(), QUOTA);
    assert_eq!(desk.write(&file, 1, 0).await, Err(ErrorCode::Quota));
    assert_eq!(desk.denied().len(), denied + 1);
}

#[tokio::test]
async fn zeros_before_a_stream_count_and_so_does_what_it_writes() {
    let mut desk = Desk::new();
    let file = desk.file().await;
    let stream = desk.stream(&file, 60).expect("there is room for zeros");
    desk.pour(&stream, 30).await.expect("there is room");
    assert_eq!(desk.length(), 90);
    // One that begins within the file has no zeros before it.
    let within = desk.stream(&file, 10).expect("no zeros");
    desk.pour(&within, 10).await.expect("there is room");
    desk.pour(&within, 1).await.expect_err("it is used up");
    assert_eq!(desk.length(), 90);
    assert_eq!(desk.denied(), [BYTES]);
}

#[tokio::test]
async fn zeros_of_a_file_that_is_made_longer_count() {
    let mut desk = Desk::new();
    let file = desk.file().await;
    assert_eq!(desk.resize(&file, QUOTA + 1).await, Err(ErrorCode::Quota));
    assert_eq!(desk.length(), 0);
    assert_eq!(desk.resize(&file, 60).await, Ok(()));
    // What is taken away is not given back.
    assert_eq!(desk.resize(&file, 0).await, Ok(()));
    assert_eq!(desk.resize(&file, 41).await, Err(ErrorCode::Quota));
    assert_eq!(desk.resize(&file, 40).await, Ok(()));
    assert_eq!(desk.length(), 40);
    assert_eq!(desk.denied().len(), 2);
}

#[tokio::test]
async fn the_last_byte_of_a_quota_is_written_and_none_after_it() {
    for streams in [false, true] {
        let mut desk = Desk::new();
        let file = desk.file().await;
        if streams {
            let stream = desk.stream(&file, 0).expect("a stream");
            desk.pour(&stream, 99).await.expect("there is room");
            desk.pour(&stream, 1).await.expect("there is room for one");
            assert_eq!(desk.denied(), Vec::<String>::new());
            desk.pour(&stream, 1).await.expect_err("it is used up");
        } else {
            assert_eq!(desk.write(&file, 99, 0).await, Ok(99));
            assert_eq!(desk.write(&file, 1, 99).await, Ok(1));
            assert_eq!(desk.denied(), Vec::<String>::new());
            let refused = desk.write(&file, 1, 100).await;
            assert_eq!(refused, Err(ErrorCode::Quota));
        }
        assert_eq!(desk.length(), QUOTA);
        assert_eq!(desk.denied(), [BYTES]);
    }
}

#[tokio::test]
async fn few_folders_are_listed_at_a_time() {
    let mut desk = Desk::new();
    let root = desk.root();
    let mut lists = Vec::new();
    for _ in 0..MAX_LISTINGS {
        lists.push(desk.list(&root).await.expect("a list"));
    }
    let refused = desk.list(&root).await.map(|_| ());
    assert_eq!(refused, Err(ErrorCode::InsufficientMemory));
    assert_eq!(desk.denied().len(), 1, "it is on record");
    // One that failed takes no place, and one that ended gives its own back.
    let file = desk.file().await;
    let ended = lists.pop().expect("a list");
    HostDirectoryEntryStream::drop(&mut desk.view(), ended).expect("it was there");
    for _ in 0..3 {
        let refused = desk.list(&file).await.map(|_| ());
        assert!(refused.is_err(), "a file has no names in it");
    }
    lists.push(desk.list(&root).await.expect("a list"));
    let refused = desk.list(&root).await.map(|_| ());
    assert_eq!(refused, Err(ErrorCode::InsufficientMemory));
}
