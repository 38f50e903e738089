//! Objects of stores, by `sandcast:plugin/blob`: below the prefixes that are granted, as far as they are
//! granted.
//!
//! A plugin names a store and a key, and never sees where the store is or as whom it is asked. Keys are
//! checked in one place, on their way out and on their way back. Objects come whole or not at all: bytes,
//! entries, time and calls are bounded before anything is read. Each call is on record before it is made.
//! An instance waits for each of its calls, so it has one request under way at a time.

mod folder;
mod host;
mod key;
mod listing;
mod s3;
mod signing;
mod store;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Access, ByteSize, TimeSpan};
use crate::effect::Actor;
use crate::text;
pub(crate) use host::{StoresView, link};
use key::check_prefix;
pub use store::{BlobStore, StoreCredentials, StoreUrl};

/// Bytes of an object, whatever is granted: it is in memory at once.
const MAX_OBJECT_BYTES: u64 = 256 << 20;

/// Entries of one page.
const MAX_PAGE: u32 = 1000;

/// Bytes of the name of a store.
const MAX_NAME_BYTES: usize = 64;

/// Objects of one store, below a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlobGrant {
    /// The name of the store, under `stores` of the pipeline.
    pub store: String,
    /// What keys begin with, such as `raw/`; all of the store's when absent.
    #[serde(default)]
    pub prefix: String,
    /// What may be done with them.
    #[serde(default)]
    pub access: Access,
    /// Bytes of one object that is read or put.
    #[serde(default = "large_object")]
    pub object_bytes: ByteSize,
    /// Bytes that one instance reads.
    #[serde(default = "much_to_read")]
    pub read_bytes: ByteSize,
    /// Bytes that one instance puts.
    #[serde(default = "much_to_write")]
    pub write_bytes: ByteSize,
    /// Objects that one instance puts or deletes.
    #[serde(default = "many")]
    pub objects: NonZeroU32,
    /// Entries of lists that one instance is given.
    #[serde(default = "many_entries")]
    pub entries: NonZeroU32,
    /// Calls of one instance.
    #[serde(default = "many")]
    pub calls: NonZeroU32,
    /// How long one call may take.
    #[serde(default = "half_a_minute")]
    pub timeout: TimeSpan,
    /// Where the store is. Written in a ceiling; in a pipeline it stands under `stores`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<BlobStore>,
}

fn large_object() -> ByteSize {
    ByteSize::from_mib(64)
}

fn much_to_read() -> ByteSize {
    ByteSize::from_gib(1)
}

fn much_to_write() -> ByteSize {
    ByteSize::from_mib(256)
}

fn many() -> NonZeroU32 {
    NonZeroU32::new(1000).unwrap_or(NonZeroU32::MIN)
}

fn many_entries() -> NonZeroU32 {
    NonZeroU32::new(100_000).unwrap_or(NonZeroU32::MIN)
}

fn half_a_minute() -> TimeSpan {
    TimeSpan::from_secs(30)
}

impl BlobGrant {
    /// Such as `read raw/ of lake (s3://bucket at s3.example.com)`.
    pub(super) fn in_words(&self, path: &impl Fn(&Path) -> String) -> String {
        let access = match self.access {
            Access::Read => "read",
            Access::ReadWrite => "read and write",
        };
        let prefix = match self.prefix.as_str() {
            "" => "everything",
            prefix => prefix,
        };
        let to = self
            .to
            .as_ref()
            .map_or_else(String::new, |to| format!(" ({})", to.in_words(path)));
        format!("{access} {prefix} of {}{to}", self.store)
    }

    /// Whether the store is another machine.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(&self.to, Some(to) if matches!(to.url, StoreUrl::Bucket { .. }))
    }

    pub(crate) fn has_secret(&self) -> bool {
        self.to.as_ref().is_some_and(|to| to.credentials.is_some())
    }
}

/// Says whether grants can be given at all.
pub(crate) fn check_all(grants: &[BlobGrant]) -> Result<(), String> {
    for (index, grant) in grants.iter().enumerate() {
        let BlobGrant { store, prefix, .. } = grant;
        check(grant)?;
        let overlaps = |other: &&BlobGrant| {
            other.store == *store
                && (other.prefix.starts_with(prefix) || prefix.starts_with(&other.prefix))
        };
        if let Some(other) = grants[..index].iter().find(overlaps) {
            return Err(format!(
                "`{prefix}` of `{store}` is granted twice, with `{}`; write one grant for it",
                other.prefix
            ));
        }
        match &grant.to {
            None => {
                return Err(format!(
                    "there is no store `{store}`; write it under `stores` of the pipeline"
                ));
            }
            Some(to) => store::check(to)?,
        }
    }
    Ok(())
}

/// Says whether a grant makes sense, wherever it is given.
pub(crate) fn check(grant: &BlobGrant) -> Result<(), String> {
    let BlobGrant { store, prefix, .. } = grant;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if store.is_empty() || store.len() > MAX_NAME_BYTES || !store.chars().all(is_plain) {
        return Err(format!(
            "`{}` cannot be a name; use letters, digits, `-` and `_`",
            text::sentence(store, MAX_NAME_BYTES)
        ));
    }
    check_prefix(prefix).map_err(|what| {
        let shown = text::sentence(prefix, 128);
        format!("the prefix `{shown}` cannot be granted: a prefix {what}")
    })?;
    let bytes = grant.object_bytes.bytes();
    if bytes == 0 || bytes > MAX_OBJECT_BYTES {
        return Err(format!(
            "`object_bytes` of `{store}` is {}; write something from 1 to {}",
            grant.object_bytes,
            ByteSize::from_bytes(MAX_OBJECT_BYTES)
        ));
    }
    if grant.timeout.duration().is_zero() {
        return Err(format!(
            "`timeout` of `{store}` is nothing; write it like 30s"
        ));
    }
    grant.to.as_ref().map_or(Ok(()), store::check_target)
}

/// What an instance has done.
pub(crate) struct BlobState {
    actor: Arc<Actor>,
    /// By grant.
    used: Vec<Used>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Used {
    calls: u32,
    read_bytes: u64,
    written_bytes: u64,
    objects: u32,
    entries: u32,
}

impl BlobState {
    pub(crate) fn new(actor: Arc<Actor>) -> Self {
        let used = vec![Used::default(); actor.identity.grants.blob.len()];
        Self { actor, used }
    }
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    key: String,
    size: u64,
    etag: Option<String>,
    modified: Option<i64>,
}

/// Bytes; in a recording as text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Blob(Bytes);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes.into()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Found {
    entry: Entry,
    bytes: Blob,
}

/// When something is put.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    IfAbsent,
    IfMatch(String),
}

/// How many bytes may be read, and by which key of the grant.
#[derive(Clone, Debug)]
struct Most {
    bytes: u64,
    key: &'static str,
    what: String,
}

impl Most {
    fn allows(&self, bytes: u64) -> Result<(), Trouble> {
        match bytes <= self.bytes {
            true => Ok(()),
            false => Err(self.over()),
        }
    }

    fn over(&self) -> Trouble {
        Trouble::too_much(self.key, self.what.clone())
    }
}

/// Something that was authorised.
enum Ask {
    List {
        prefix: String,
        cursor: Option<String>,
        limit: u32,
    },
    Head {
        key: String,
    },
    Get {
        key: String,
        /// Where it begins, and how long it is at most.
        range: Option<(u64, u64)>,
        most: Most,
    },
    Put {
        key: String,
        bytes: Blob,
        condition: Condition,
    },
    Delete {
        key: String,
    },
}

impl Ask {
    fn action(&self) -> &'static str {
        match self {
            Self::List { .. } => "list",
            Self::Head { .. } => "head",
            Self::Get { .. } => "get",
            Self::Put { .. } => "put",
            Self::Delete { .. } => "delete",
        }
    }

    /// The key, or the prefix.
    fn place(&self) -> &str {
        match self {
            Self::List { prefix, .. } => prefix,
            Self::Head { key }
            | Self::Get { key, .. }
            | Self::Put { key, .. }
            | Self::Delete { key } => key,
        }
    }
}

/// What it came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    Page {
        entries: Vec<Entry>,
        cursor: Option<String>,
    },
    Head(Option<Entry>),
    Object(Option<Found>),
    Written(Option<String>),
    Unmet,
    Deleted,
}

impl Answer {
    /// In a word for the record.
    fn in_a_word(&self) -> String {
        match self {
            Self::Page { entries, .. } => format!("{} entries", entries.len()),
            Self::Head(None) | Self::Object(None) => "not there".to_owned(),
            Self::Head(Some(entry)) => format!("{} bytes there", entry.size),
            Self::Object(Some(found)) => format!("{} bytes", found.bytes.0.len()),
            Self::Written(_) => "put".to_owned(),
            Self::Unmet => "condition not met".to_owned(),
            Self::Deleted => "deleted".to_owned(),
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Trouble {
    /// A bound was reached: its key in the grant.
    TooMuch { key: String, detail: String },
    /// It may not be done: the line that says so.
    Refused { line: String, what: String },
    /// The store does not let whoever asks.
    Forbidden,
    /// It makes no sense.
    Wrong(String),
    /// The store does not answer, or its answer makes no sense.
    Away(String),
}

impl Trouble {
    fn too_much(key: &str, detail: impl Into<String>) -> Self {
        Self::TooMuch {
            key: key.to_owned(),
            detail: detail.into(),
        }
    }

    /// In a word for the record.
    fn in_a_word(&self) -> String {
        match self {
            Self::TooMuch { key, .. } => format!("over its `{key}`"),
            Self::Refused { .. } => "refused".to_owned(),
            Self::Forbidden => "refused by the store".to_owned(),
            Self::Wrong(_) => "an error of the call".to_owned(),
            Self::Away(_) => "no answer".to_owned(),
        }
    }
}

/// The keys of a list, for the target of the fuzzer.
pub(crate) fn listed(bytes: &[u8], own: &str, prefix: &str) -> Result<Vec<String>, String> {
    let listing = listing::read(bytes)?;
    let entries = listing::below(listing.entries, own, prefix, MAX_PAGE)?;
    Ok(entries.into_iter().map(|entry| entry.key).collect())
}

#[cfg(test)]
mod tests;
