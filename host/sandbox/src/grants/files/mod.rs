//! Folders of the host, by `wasi:filesystem`: preopened handles that paths cannot leave.
//!
//! `..` and symbolic links out of a folder are refused by wasmtime's capability-based path
//! resolution, writing under a read-only grant by its permissions. This file opens the folders,
//! counts every call, puts on record which files are read and changed, holds what is written to its
//! quota, and records every refusal.

mod quota;
#[cfg(test)]
mod tests;

use std::path::Path;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream,
    ErrorCode, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::{Access, Capability, FileGrant};
use crate::state::State;
use crate::text;
pub use quota::FileQuota;
pub(crate) use quota::FilesState;
use quota::{Full, Place, Unrecorded};

/// Bytes of a path in a record.
const MAX_PATH_BYTES: usize = 512;

/// Folders that an instance lists at a time.
const MAX_LISTINGS: u32 = 16;

/// Says whether a grant can be given at all.
pub(crate) fn check(grant: &FileGrant) -> Result<(), String> {
    if grant.guest.is_empty() || grant.guest.contains('\0') || grant.guest.len() > MAX_PATH_BYTES {
        return Err(format!(
            "`{}` is not a path for a guest; write one like /data",
            grant.guest
        ));
    }
    let described = grant.host.display();
    match std::fs::metadata(&grant.host) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!(
            "{described} is not a folder; grant the folder it is in"
        )),
        Err(error) => Err(format!("{described} cannot be opened: {error}")),
    }
}

/// Opens the granted folders for one instance.
pub(crate) fn open(builder: &mut WasiCtxBuilder, grants: &[FileGrant]) -> Result<(), String> {
    for grant in grants {
        let permissions = match grant.access {
            Access::Read => FsPerms::ReadOnly,
            Access::ReadWrite => FsPerms::ReadWrite,
        };
        let host: &Path = &grant.host;
        builder
            .preopened_dir(host, &grant.guest, permissions)
            .map_err(|error| format!("{} cannot be opened: {error}", host.display()))?;
    }
    Ok(())
}

/// Links `wasi:filesystem`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<State, Files>(linker, |state| FilesView(state))?;
    types::add_to_linker::<State, Files>(linker, |state| FilesView(state))
}

struct Files;

impl HasData for Files {
    type Data<'a> = FilesView<'a>;
}

/// What answers, on the state of an instance.
pub(crate) struct FilesView<'a>(pub(crate) &'a mut State);

impl FilesView<'_> {
    /// Counts a call and hands on to wasmtime's implementation.
    fn call(&mut self, name: &'static str) -> WasiFilesystemCtxView<'_> {
        self.0.ledger.count(name);
        self.0.filesystem()
    }

    /// Where a path leads in an open folder, by its words.
    fn place(&self, descriptor: &Resource<Descriptor>, path: &str) -> Option<Place> {
        self.0.files.place(descriptor.rep(), path)
    }

    /// How far a place is beyond the end of an open file.
    fn beyond_end(&self, descriptor: &Resource<Descriptor>, place: u64) -> u64 {
        let Ok(Descriptor::File(file)) = self.0.table.get(descriptor) else {
            return 0;
        };
        let size = file.file.metadata().map_or(0, |found| found.len());
        place.saturating_sub(size)
    }

    /// Puts on record what is about to be done.
    fn announce(&mut self, action: &'static str, place: Option<&Place>) -> FsResult<()> {
        let announced = self.0.files.announce(action, place);
        announced.map_err(|Unrecorded| ErrorCode::Io.into())
    }

    /// The same for something that is to be made, as far as the quota lets it.
    fn make(&mut self, place: Option<&Place>) -> FsResult<()> {
        let taken = self.0.files.take_entry(place);
        taken.map_err(|Full| FsError::from(ErrorCode::Quota))?;
        self.announce("make", place)
    }

    /// A stream into an open file, held to the quota.
    fn bound(
        &mut self,
        file: u32,
        stream: FsResult<Resource<DynOutputStream>>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let stream = stream?;
        let Ok(inner) = self.0.table.delete(stream) else {
            return Err(ErrorCode::BadDescriptor.into());
        };
        let bounded = self.0.files.bounded(file, inner);
        let pushed = self.0.table.push(bounded);
        pushed.map_err(|_| ErrorCode::InsufficientMemory.into())
    }

    /// Records a refusal, and passes the answer on as it is.
    fn note<T>(&mut self, verb: &str, path: &str, answer: FsResult<T>) -> FsResult<T> {
        let refused = answer.as_ref().err().and_then(FsError::downcast_ref);
        if let Some(ErrorCode::NotPermitted | ErrorCode::ReadOnly) = refused {
            let path = text::sentence(path, MAX_PATH_BYTES);
            self.0.deny(Capability::Files, format!("{verb} {path}"));
        }
        answer
    }
}

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        if self.0.identity.grants.files.is_empty() {
            self.0.deny(
                Capability::Files,
                "asked for its folders, and has none".into(),
            );
        }
        let folders = self.call("files.get-directories").get_directories()?;
        for (folder, path) in &folders {
            self.0.files.granted(folder.rep(), path);
        }
        Ok(folders)
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.0.filesystem().convert_error_code(error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.call("files.filesystem-error-code")
            .filesystem_error_code(error)
    }
}

impl types::HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        self.call("files.read-directory-entry")
            .read_directory_entry(stream)
            .await
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        types::HostDirectoryEntryStream::drop(&mut self.0.filesystem(), stream)?;
        // Only one that was there.
        self.0.files.listings = self.0.files.listings.saturating_sub(1);
        Ok(())
    }
}

impl types::HostDescriptor for FilesView<'_> {
    async fn open_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let place = self.place(&descriptor, &path);
        if open_flags.contains(OpenFlags::CREATE) {
            self.make(place.as_ref())?;
        } else if flags.contains(DescriptorFlags::WRITE) || open_flags.contains(OpenFlags::TRUNCATE)
        {
            self.announce("write", place.as_ref())?;
        } else if !open_flags.contains(OpenFlags::DIRECTORY) {
            self.announce("read", place.as_ref())?;
        }
        let files = &mut self.call("files.open-at");
        let answer = files
            .open_at(descriptor, path_flags, path.clone(), open_flags, flags)
            .await;
        if let (Ok(opened), Some(place)) = (&answer, place) {
            self.0.files.opened(opened.rep(), place);
        }
        self.note("open", &path, answer)
    }

    async fn read(
        &mut self,
        descriptor: Resource<Descriptor>,
        length: u64,
        offset: u64,
    ) -> FsResult<(Vec<u8>, bool)> {
        let answer = self
            .call("files.read")
            .read(descriptor, length, offset)
            .await;
        if let Ok((bytes, _)) = &answer {
            self.0.ledger.count_bytes_in(bytes.len());
        }
        answer
    }

    async fn write(
        &mut self,
        descriptor: Resource<Descriptor>,
        bytes: Vec<u8>,
        offset: u64,
    ) -> FsResult<u64> {
        let length = bytes.len() as u64;
        let grows = self.beyond_end(&descriptor, offset.saturating_add(length));
        let taken = self.0.files.take_bytes(descriptor.rep(), length.max(grows));
        taken.map_err(|Full| FsError::from(ErrorCode::Quota))?;
        self.0.ledger.count_bytes_out(bytes.len());
        let answer = self
            .call("files.write")
            .write(descriptor, bytes, offset)
            .await;
        self.note("write to", "an open file", answer)
    }

    fn read_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: u64,
    ) -> FsResult<Resource<DynInputStream>> {
        self.call("files.read-via-stream")
            .read_via_stream(descriptor, offset)
    }

    fn write_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: u64,
    ) -> FsResult<Resource<DynOutputStream>> {
        let file = descriptor.rep();
        // A stream that begins beyond the end leaves zeros before it.
        let gap = self.beyond_end(&descriptor, offset);
        let taken = self.0.files.take_bytes(file, gap);
        taken.map_err(|Full| FsError::from(ErrorCode::Quota))?;
        let answer = self
            .call("files.write-via-stream")
            .write_via_stream(descriptor, offset);
        let answer = self.bound(file, answer);
        self.note("write to", "an open file", answer)
    }

    fn append_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let file = descriptor.rep();
        let answer = self
            .call("files.append-via-stream")
            .append_via_stream(descriptor);
        let answer = self.bound(file, answer);
        self.note("append to", "an open file", answer)
    }

    async fn advise(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: u64,
        length: u64,
        advice: Advice,
    ) -> FsResult<()> {
        self.call("files.advise")
            .advise(descriptor, offset, length, advice)
            .await
    }

    async fn sync_data(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        self.call("files.sync-data").sync_data(descriptor).await
    }

    async fn sync(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        self.call("files.sync").sync(descriptor).await
    }

    async fn get_flags(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        self.call("files.get-flags").get_flags(descriptor).await
    }

    async fn get_type(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorType> {
        self.call("files.get-type").get_type(descriptor).await
    }

    async fn set_size(&mut self, descriptor: Resource<Descriptor>, size: u64) -> FsResult<()> {
        // A file that grows holds zeros that were never written; they count as if they were.
        let file = Resource::new_borrow(descriptor.rep());
        let before = self.0.filesystem().stat(file).await?.size;
        let grows = size.saturating_sub(before);
        let taken = self.0.files.take_bytes(descriptor.rep(), grows);
        taken.map_err(|Full| FsError::from(ErrorCode::Quota))?;
        let answer = self.call("files.set-size").set_size(descriptor, size).await;
        self.note("resize", "an open file", answer)
    }

    async fn set_times(
        &mut self,
        descriptor: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let answer = self
            .call("files.set-times")
            .set_times(descriptor, accessed, modified)
            .await;
        self.note("set the times of", "an open file", answer)
    }

    async fn set_times_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let files = &mut self.call("files.set-times-at");
        let answer = files
            .set_times_at(descriptor, path_flags, path.clone(), accessed, modified)
            .await;
        self.note("set the times of", &path, answer)
    }

    async fn read_directory(
        &mut self,
        descriptor: Resource<Descriptor>,
    ) -> FsResult<Resource<DirectoryEntryStream>> {
        // The names in a folder are in memory while it is listed.
        if self.0.files.listings >= MAX_LISTINGS {
            let detail = format!("list a folder: {MAX_LISTINGS} are listed already");
            self.0.deny(Capability::Files, detail);
            return Err(ErrorCode::InsufficientMemory.into());
        }
        let listed = self
            .call("files.read-directory")
            .read_directory(descriptor)
            .await;
        self.0.files.listings += u32::from(listed.is_ok());
        listed
    }

    async fn create_directory_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path: String,
    ) -> FsResult<()> {
        let place = self.place(&descriptor, &path);
        self.make(place.as_ref())?;
        let files = &mut self.call("files.create-directory-at");
        let answer = files.create_directory_at(descriptor, path.clone()).await;
        self.note("make folder", &path, answer)
    }

    async fn stat(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        self.call("files.stat").stat(descriptor).await
    }

    async fn stat_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        let answer = self
            .call("files.stat-at")
            .stat_at(descriptor, path_flags, path.clone())
            .await;
        self.note("look at", &path, answer)
    }

    async fn link_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        new_descriptor: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let place = self.place(&new_descriptor, &new_path);
        self.make(place.as_ref())?;
        let files = &mut self.call("files.link-at");
        let answer = files
            .link_at(
                descriptor,
                path_flags,
                path.clone(),
                new_descriptor,
                new_path,
            )
            .await;
        self.note("link", &path, answer)
    }

    async fn readlink_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path: String,
    ) -> FsResult<String> {
        let answer = self
            .call("files.readlink-at")
            .readlink_at(descriptor, path.clone())
            .await;
        self.note("read the link", &path, answer)
    }

    async fn remove_directory_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path: String,
    ) -> FsResult<()> {
        let place = self.place(&descriptor, &path);
        self.announce("remove", place.as_ref())?;
        let files = &mut self.call("files.remove-directory-at");
        let answer = files.remove_directory_at(descriptor, path.clone()).await;
        self.note("remove folder", &path, answer)
    }

    async fn rename_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path: String,
        new_descriptor: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let (from, to) = (
            self.place(&descriptor, &path),
            self.place(&new_descriptor, &new_path),
        );
        self.announce("remove", from.as_ref())?;
        self.announce("make", to.as_ref())?;
        let files = &mut self.call("files.rename-at");
        let answer = files
            .rename_at(descriptor, path.clone(), new_descriptor, new_path)
            .await;
        self.note("rename", &path, answer)
    }

    async fn symlink_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        target: String,
        path: String,
    ) -> FsResult<()> {
        let place = self.place(&descriptor, &path);
        self.make(place.as_ref())?;
        let files = &mut self.call("files.symlink-at");
        let answer = files.symlink_at(descriptor, target, path.clone()).await;
        self.note("make the link", &path, answer)
    }

    async fn unlink_file_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path: String,
    ) -> FsResult<()> {
        let place = self.place(&descriptor, &path);
        self.announce("remove", place.as_ref())?;
        let files = &mut self.call("files.unlink-file-at");
        let answer = files.unlink_file_at(descriptor, path.clone()).await;
        self.note("remove", &path, answer)
    }

    async fn is_same_object(
        &mut self,
        one: Resource<Descriptor>,
        other: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        self.call("files.is-same-object")
            .is_same_object(one, other)
            .await
    }

    async fn metadata_hash(
        &mut self,
        descriptor: Resource<Descriptor>,
    ) -> FsResult<MetadataHashValue> {
        self.call("files.metadata-hash")
            .metadata_hash(descriptor)
            .await
    }

    async fn metadata_hash_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let files = &mut self.call("files.metadata-hash-at");
        let answer = files
            .metadata_hash_at(descriptor, path_flags, path.clone())
            .await;
        self.note("look at", &path, answer)
    }

    fn drop(&mut self, descriptor: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.0.files.closed(descriptor.rep());
        types::HostDescriptor::drop(&mut self.0.filesystem(), descriptor)
    }
}
