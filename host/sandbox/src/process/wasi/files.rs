//! Folders, by `wasi:filesystem`. A process opens none itself: what it reads and writes are pieces that the
//! host's functions bound, and each of them is one message.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream,
    ErrorCode, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsResult};

use super::super::away;
use super::super::functions::Halt;
use super::super::wire::{Reader, Wire};
use crate::grants::files::FilesView;
use crate::state::State;

/// What an operation on a file or folder comes to.
type Filed<T> = Result<T, ErrorCode>;

/// A file or folder that is open.
type Open = Resource<Descriptor>;

fn filed<T>(state: &mut State, answer: FsResult<T>) -> wasmtime::Result<Filed<T>> {
    Ok(match answer {
        Ok(value) => Ok(value),
        Err(error) => Err(types::Host::convert_error_code(
            &mut FilesView(state),
            error,
        )?),
    })
}

/// What a function of an open file or folder comes to.
macro_rules! filed {
    ($state:ident, $function:ident($($argument:expr),*)) => {{
        let view = &mut FilesView($state);
        let answer = types::HostDescriptor::$function(view, $($argument),*).await;
        filed($state, answer)?
    }};
}

interfaces! {
    answer, link |state|
    interface "wasi:filesystem/types@0.2.12" {
        thing "descriptor" as "descriptor.drop" (open: Descriptor) {
            types::HostDescriptor::drop(&mut FilesView(state), open)?;
        }
        thing "directory-entry-stream" as "directory-entry-stream.drop" (stream: DirectoryEntryStream) {
            types::HostDirectoryEntryStream::drop(&mut FilesView(state), stream)?;
        }
        fn "filesystem-error-code"(error: Resource<wasmtime::Error>) -> Option<ErrorCode> {
            types::Host::filesystem_error_code(&mut FilesView(state), error)?
        }
        fn "[method]directory-entry-stream.read-directory-entry"(stream: Resource<DirectoryEntryStream>) -> Filed<Option<DirectoryEntry>> {
            let view = &mut FilesView(state);
            let read = types::HostDirectoryEntryStream::read_directory_entry(view, stream).await;
            filed(state, read)?
        }
        fn "[method]descriptor.open-at"(open: Open, follow: PathFlags, path: String, how: OpenFlags, flags: DescriptorFlags) -> Filed<Open> {
            filed!(state, open_at(open, follow, path, how, flags))
        }
        fn "[method]descriptor.read"(open: Open, length: u64, offset: u64) -> Filed<(Vec<u8>, bool)> {
            filed!(state, read(open, length, offset))
        }
        fn "[method]descriptor.write"(open: Open, bytes: Vec<u8>, offset: u64) -> Filed<u64> {
            filed!(state, write(open, bytes, offset))
        }
        fn "[method]descriptor.read-via-stream"(open: Open, offset: u64) -> Filed<Resource<DynInputStream>> {
            let stream = types::HostDescriptor::read_via_stream(&mut FilesView(state), open, offset);
            filed(state, stream)?
        }
        fn "[method]descriptor.write-via-stream"(open: Open, offset: u64) -> Filed<Resource<DynOutputStream>> {
            let stream = types::HostDescriptor::write_via_stream(&mut FilesView(state), open, offset);
            filed(state, stream)?
        }
        fn "[method]descriptor.append-via-stream"(open: Open) -> Filed<Resource<DynOutputStream>> {
            let stream = types::HostDescriptor::append_via_stream(&mut FilesView(state), open);
            filed(state, stream)?
        }
        fn "[method]descriptor.advise"(open: Open, offset: u64, length: u64, advice: Advice) -> Filed<()> {
            filed!(state, advise(open, offset, length, advice))
        }
        fn "[method]descriptor.sync-data"(open: Open) -> Filed<()> {
            filed!(state, sync_data(open))
        }
        fn "[method]descriptor.sync"(open: Open) -> Filed<()> {
            filed!(state, sync(open))
        }
        fn "[method]descriptor.get-flags"(open: Open) -> Filed<DescriptorFlags> {
            filed!(state, get_flags(open))
        }
        fn "[method]descriptor.get-type"(open: Open) -> Filed<DescriptorType> {
            filed!(state, get_type(open))
        }
        fn "[method]descriptor.set-size"(open: Open, size: u64) -> Filed<()> {
            filed!(state, set_size(open, size))
        }
        fn "[method]descriptor.set-times"(open: Open, accessed: NewTimestamp, modified: NewTimestamp) -> Filed<()> {
            filed!(state, set_times(open, accessed, modified))
        }
        fn "[method]descriptor.set-times-at"(open: Open, follow: PathFlags, path: String, accessed: NewTimestamp, modified: NewTimestamp) -> Filed<()> {
            filed!(state, set_times_at(open, follow, path, accessed, modified))
        }
        fn "[method]descriptor.read-directory"(open: Open) -> Filed<Resource<DirectoryEntryStream>> {
            filed!(state, read_directory(open))
        }
        fn "[method]descriptor.create-directory-at"(open: Open, path: String) -> Filed<()> {
            filed!(state, create_directory_at(open, path))
        }
        fn "[method]descriptor.stat"(open: Open) -> Filed<DescriptorStat> {
            filed!(state, stat(open))
        }
        fn "[method]descriptor.stat-at"(open: Open, follow: PathFlags, path: String) -> Filed<DescriptorStat> {
            filed!(state, stat_at(open, follow, path))
        }
        fn "[method]descriptor.link-at"(open: Open, follow: PathFlags, path: String, new: Open, new_path: String) -> Filed<()> {
            filed!(state, link_at(open, follow, path, new, new_path))
        }
        fn "[method]descriptor.readlink-at"(open: Open, path: String) -> Filed<String> {
            filed!(state, readlink_at(open, path))
        }
        fn "[method]descriptor.remove-directory-at"(open: Open, path: String) -> Filed<()> {
            filed!(state, remove_directory_at(open, path))
        }
        fn "[method]descriptor.rename-at"(open: Open, path: String, new: Open, new_path: String) -> Filed<()> {
            filed!(state, rename_at(open, path, new, new_path))
        }
        fn "[method]descriptor.symlink-at"(open: Open, target: String, path: String) -> Filed<()> {
            filed!(state, symlink_at(open, target, path))
        }
        fn "[method]descriptor.unlink-file-at"(open: Open, path: String) -> Filed<()> {
            filed!(state, unlink_file_at(open, path))
        }
        fn "[method]descriptor.is-same-object"(open: Open, other: Open) -> bool {
            types::HostDescriptor::is_same_object(&mut FilesView(state), open, other).await?
        }
        fn "[method]descriptor.metadata-hash"(open: Open) -> Filed<MetadataHashValue> {
            filed!(state, metadata_hash(open))
        }
        fn "[method]descriptor.metadata-hash-at"(open: Open, follow: PathFlags, path: String) -> Filed<MetadataHashValue> {
            filed!(state, metadata_hash_at(open, follow, path))
        }
    }
    interface "wasi:filesystem/preopens@0.2.12" {
        fn "get-directories"() -> Vec<(Open, String)> {
            preopens::Host::get_directories(&mut FilesView(state))?
        }
    }
}
