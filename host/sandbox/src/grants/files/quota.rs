//! How much of a folder an instance may fill, and which of its files it has touched.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use sandcast_audit::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::super::{ByteSize, Capability, FileGrant};
use super::MAX_PATH_BYTES;
use crate::effect::{Act, Actor};
use crate::text;

/// How much of a folder one instance may fill. What it removes is not given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FileQuota {
    /// Bytes that it may write, over what is there too.
    pub bytes: ByteSize,
    /// Files, folders and links that it may make.
    pub entries: u32,
}

impl Default for FileQuota {
    fn default() -> Self {
        Self {
            bytes: ByteSize::from_gib(1),
            entries: 10_000,
        }
    }
}

impl FileQuota {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What an instance does with its folders.
pub(crate) struct FilesState {
    actor: Arc<Actor>,
    /// By the number of its handle: the folder that was granted, and the path in the guest.
    open: HashMap<u32, Place>,
    /// By grant.
    left: Vec<Left>,
    recorded: HashSet<(&'static str, Named)>,
    /// Folders that are being listed.
    pub(super) listings: u32,
}

/// A path as records name it. One that is too long, or not fit to be shown, is named by a part of it
/// and the digest of the whole, so that no two are taken for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Named {
    path: String,
    whole: Option<Digest>,
}

impl Named {
    fn of(path: &str) -> Self {
        let shown = text::sentence(path, MAX_PATH_BYTES);
        let whole = (shown != path).then(|| Digest::of(path.as_bytes()));
        Self { path: shown, whole }
    }

    /// A path in the folder that this one names.
    fn join(&self, path: &str) -> Self {
        let joined = match path {
            "" | "." => return self.clone(),
            path => format!("{}/{path}", self.path.trim_end_matches('/')),
        };
        let mut named = Self::of(&joined);
        if let Some(parent) = self.whole {
            named.whole = Some(Digest::of(format!("{parent}/{path}").as_bytes()));
        }
        named
    }
}

/// Where an open file or folder lies.
#[derive(Clone)]
pub(super) struct Place {
    grant: usize,
    named: Named,
}

/// What is left of a quota.
#[derive(Clone)]
struct Left {
    bytes: Arc<AtomicU64>,
    entries: u32,
}

/// The quota of a folder is used up.
pub(super) struct Full;

/// A change could not be put on record, so it must not be made.
pub(super) struct Unrecorded;

impl FilesState {
    pub(crate) fn new(actor: Arc<Actor>) -> Self {
        let grants = actor.identity.grants.files.iter();
        let left = grants.map(|grant: &FileGrant| Left {
            bytes: Arc::new(AtomicU64::new(grant.quota.bytes.bytes())),
            entries: grant.quota.entries,
        });
        Self {
            left: left.collect(),
            actor,
            open: HashMap::new(),
            recorded: HashSet::new(),
            listings: 0,
        }
    }

    /// One of the folders that were granted is in the guest's hands.
    pub(super) fn granted(&mut self, handle: u32, guest_path: &str) {
        let grants = &self.actor.identity.grants.files;
        if let Some(grant) = grants.iter().position(|grant| grant.guest == guest_path) {
            let named = Named::of(guest_path);
            self.open.insert(handle, Place { grant, named });
        }
    }

    /// Something in an open folder was opened.
    pub(super) fn opened(&mut self, handle: u32, place: Place) {
        self.open.insert(handle, place);
    }

    pub(super) fn closed(&mut self, handle: u32) {
        self.open.remove(&handle);
    }

    /// Where a path in an open folder leads, by its words.
    pub(super) fn place(&self, handle: u32, path: &str) -> Option<Place> {
        let parent = self.open.get(&handle)?;
        Some(Place {
            grant: parent.grant,
            named: parent.named.join(path),
        })
    }

    /// Puts on record what is about to be done, once for each path.
    pub(super) fn announce(
        &mut self,
        action: &'static str,
        place: Option<&Place>,
    ) -> Result<(), Unrecorded> {
        let Some(Place { named, .. }) = place else {
            return Ok(());
        };
        let known = (action, named.clone());
        if self.recorded.contains(&known) {
            return Ok(());
        }
        let announced = self.actor.announce(Act {
            capability: Capability::Files,
            action,
            target: named.path.clone(),
            digest: named.whole,
            secret: None,
        });
        match announced {
            Ok(_) => {
                self.recorded.insert(known);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "what is done with a file could not be recorded, so it is not done");
                Err(Unrecorded)
            }
        }
    }

    /// Takes a file, folder or link that is to be made.
    pub(super) fn take_entry(&mut self, place: Option<&Place>) -> Result<(), Full> {
        let Some(Place { grant, named }) = place else {
            return Ok(());
        };
        let Some(left) = self.left.get_mut(*grant) else {
            return Ok(());
        };
        match left.entries.checked_sub(1) {
            Some(fewer) => {
                left.entries = fewer;
                Ok(())
            }
            None => {
                let detail = format!("make {}: it has made as many files as it may", named.path);
                self.actor
                    .deny_with("files", detail, self.line_of(*grant, "entries"));
                Err(Full)
            }
        }
    }

    /// Takes bytes that are to be written to an open file.
    pub(super) fn take_bytes(&self, handle: u32, bytes: u64) -> Result<(), Full> {
        match self.writer(handle) {
            Some(writer) => writer.take(bytes),
            None => Ok(()),
        }
    }

    /// A stream into an open file that writes as much as there is room for.
    pub(super) fn bounded(&self, handle: u32, stream: DynOutputStream) -> DynOutputStream {
        match self.writer(handle) {
            Some(writer) => Box::new(Bounded { stream, writer }),
            None => stream,
        }
    }

    fn writer(&self, handle: u32) -> Option<Writer> {
        let Place { grant, named } = self.open.get(&handle)?;
        let left = self.left.get(*grant)?;
        Some(Writer {
            actor: Arc::clone(&self.actor),
            left: Arc::clone(&left.bytes),
            path: named.path.clone(),
            line: self.line_of(*grant, "bytes"),
        })
    }

    fn line_of(&self, grant: usize, key: &str) -> String {
        let name = &self.actor.identity.name;
        format!("plugins.{name}.grants.files[{grant}].quota.{key}")
    }
}

/// Who writes to a file, and how much more may be.
struct Writer {
    actor: Arc<Actor>,
    left: Arc<AtomicU64>,
    path: String,
    line: String,
}

impl Writer {
    fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), Full> {
        // One instance is one thread of calls; nobody takes in between.
        match self.left().checked_sub(bytes) {
            Some(left) => {
                self.left.store(left, Ordering::Relaxed);
                Ok(())
            }
            None => Err(self.full(bytes)),
        }
    }

    fn full(&self, bytes: u64) -> Full {
        let path = &self.path;
        let detail = format!("write {bytes} bytes to {path}: {} are left", self.left());
        self.actor.deny_with("files", detail, self.line.clone());
        Full
    }
}

/// A stream that ends when the quota does.
struct Bounded {
    stream: DynOutputStream,
    writer: Writer,
}

#[async_trait]
impl Pollable for Bounded {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[async_trait]
impl OutputStream for Bounded {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let length = bytes.len() as u64;
        if self.writer.take(length).is_err() {
            return Err(StreamError::LastOperationFailed(wasmtime::Error::msg(
                "the quota of the folder is used up",
            )));
        }
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let room = self.stream.check_write()?;
        // What used the last of it was written: only what comes after it is refused, by `write`.
        Ok(match self.writer.left() {
            0 => room,
            left => room.min(usize::try_from(left).unwrap_or(usize::MAX)),
        })
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_cut_for_the_record_are_not_taken_for_one() {
        let folder = Named::of("/data");
        assert_eq!(folder.join("a/b"), folder.join("a").join("b"));
        assert_eq!(folder.join("a").whole, None);
        assert_eq!(folder.join("."), folder);
        let deep = "d".repeat(MAX_PATH_BYTES);
        for below in [folder.join(&deep), folder.join(&deep).join(&deep)] {
            let [one, two] = ["one", "two"].map(|name| below.join(name));
            assert_eq!(one.path, two.path);
            assert_ne!(one, two);
            assert_eq!(one, below.join("one"));
        }
        // Nor is what cannot be shown.
        assert_ne!(folder.join("a\u{1}"), folder.join("a\u{2}"));
    }
}
