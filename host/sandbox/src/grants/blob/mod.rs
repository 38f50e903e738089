//! Objects of stores, by `sandcast:plugin/blob`: below the prefixes that are granted, as far as they are
//! granted.
//!
//! A plugin names a store and a key, and never sees where the store is or as whom it is asked. Keys are
//! checked in one place, on their way out and on their way back. Objects come whole or not at all: bytes,
//! entries, time and calls are bounded before anything is read. Each call is on record before it is made.
//! An instance waits for each of its calls, so it has one request under way at a time.

mod folder;
mod key;
mod listing;
mod s3;
mod signing;
mod store;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sandcast_audit::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wasmtime::component::{HasData, Linker};

use super::{Access, ByteSize, Capability, TimeSpan};
use crate::bindings::adapter::sandcast::plugin::blob;
use crate::bindings::adapter::sandcast::plugin::types::{Failure, FailureCode};
use crate::effect::{Act, Actor};
use crate::state::State;
use crate::text;
use key::{check_key, check_prefix};
pub use store::{BlobStore, StoreCredentials, StoreUrl};

/// Bytes of an object, whatever is granted: it is in memory at once.
const MAX_OBJECT_BYTES: u64 = 256 << 20;

/// Entries of one page.
const MAX_PAGE: u32 = 1000;

/// Bytes of the name of a store.
const MAX_NAME_BYTES: usize = 64;

/// Bytes of what is said of an object in a record.
const MAX_TARGET_BYTES: usize = 512;

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

/// Links `sandcast:plugin/blob`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    blob::add_to_linker::<State, Stores>(linker, |state| StoresView(state))
}

struct Stores;

impl HasData for Stores {
    type Data<'a> = StoresView<'a>;
}

/// What answers, on the state of an instance.
pub(crate) struct StoresView<'a>(pub(crate) &'a mut State);

impl blob::Host for StoresView<'_> {
    async fn list_entries(
        &mut self,
        store: String,
        prefix: String,
        cursor: Option<String>,
        limit: u32,
    ) -> wasmtime::Result<Result<blob::Page, Failure>> {
        let more = format!("{cursor:?} {limit}");
        self.enter("blob.list-entries", &store, &prefix, &more, 0);
        let index = match self.authorise("list", &store, &prefix, true, false) {
            Ok(index) => index,
            Err(failure) => return Ok(Err(failure)),
        };
        let most = self.grant(index).entries.get();
        let left = most - self.0.blob.used[index].entries.min(most);
        let is_cursor = |cursor: &String| {
            (1..=listing::MAX_CURSOR_BYTES).contains(&cursor.len())
                && !cursor.chars().any(char::is_control)
        };
        if limit == 0 || !cursor.as_ref().is_none_or(is_cursor) {
            let what = "a list has a `limit` of at least 1, and a cursor that a page gave";
            return Ok(Err(failure(FailureCode::InvalidInput, what)));
        }
        if left == 0 {
            let trouble =
                Trouble::too_much("entries", format!("it was given {most} entries already"));
            return Ok(Err(self.told(index, "list", &store, &prefix, &trouble)));
        }
        let limit = limit.min(MAX_PAGE).min(left);
        let ask = Ask::List {
            prefix,
            cursor,
            limit,
        };
        Ok(match self.ask(index, ask).await? {
            Ok(Answer::Page { entries, cursor }) => {
                self.0.blob.used[index].entries += u32::try_from(entries.len()).unwrap_or(limit);
                let bytes = entries.iter().map(|entry| entry.key.len()).sum();
                self.0.ledger.count_bytes_in(bytes);
                Ok(blob::Page {
                    entries: entries.into_iter().map(entry_of).collect(),
                    cursor,
                })
            }
            Ok(_) => return Err(another_answer()),
            Err(failure) => Err(failure),
        })
    }

    async fn head(
        &mut self,
        store: String,
        key: String,
    ) -> wasmtime::Result<Result<Option<blob::Entry>, Failure>> {
        self.enter("blob.head", &store, &key, "", 0);
        let index = match self.authorise("look at", &store, &key, false, false) {
            Ok(index) => index,
            Err(failure) => return Ok(Err(failure)),
        };
        Ok(match self.ask(index, Ask::Head { key }).await? {
            Ok(Answer::Head(entry)) => Ok(entry.map(entry_of)),
            Ok(_) => return Err(another_answer()),
            Err(failure) => Err(failure),
        })
    }

    async fn get(
        &mut self,
        store: String,
        key: String,
        range: Option<blob::Range>,
    ) -> wasmtime::Result<Result<Option<blob::Object>, Failure>> {
        let range = range.map(|range| (range.offset, range.length));
        self.enter("blob.get", &store, &key, &format!("{range:?}"), 0);
        let index = match self.authorise("read", &store, &key, false, false) {
            Ok(index) => index,
            Err(failure) => return Ok(Err(failure)),
        };
        if matches!(range, Some((offset, length)) if length == 0 || offset.checked_add(length).is_none())
        {
            let what = "a part has at least one byte, and an end";
            return Ok(Err(failure(FailureCode::InvalidInput, what)));
        }
        let grant = self.grant(index);
        let (of_one, of_all) = (grant.object_bytes.bytes(), grant.read_bytes.bytes());
        let left = of_all.saturating_sub(self.0.blob.used[index].read_bytes);
        let most = match of_one <= left {
            true => Most {
                bytes: of_one,
                key: "object_bytes",
                what: format!("that is more than {} of one object", grant.object_bytes),
            },
            false => Most {
                bytes: left,
                key: "read_bytes",
                what: format!("with that it would read more than {}", grant.read_bytes),
            },
        };
        Ok(
            match self.ask(index, Ask::Get { key, range, most }).await? {
                Ok(Answer::Object(None)) => Ok(None),
                Ok(Answer::Object(Some(Found { entry, bytes }))) => {
                    let used = &mut self.0.blob.used[index].read_bytes;
                    *used = used.saturating_add(bytes.0.len() as u64);
                    self.0.ledger.count_bytes_in(bytes.0.len());
                    Ok(Some(blob::Object {
                        entry: entry_of(entry),
                        bytes: bytes.0.into(),
                    }))
                }
                Ok(_) => return Err(another_answer()),
                Err(failure) => Err(failure),
            },
        )
    }

    async fn put(
        &mut self,
        store: String,
        key: String,
        bytes: Vec<u8>,
        condition: blob::Condition,
    ) -> wasmtime::Result<Result<blob::Outcome, Failure>> {
        self.enter(
            "blob.put",
            &store,
            &key,
            &format!("{condition:?}"),
            bytes.len(),
        );
        self.0.ledger.saw(|| &bytes);
        let index = match self.authorise("put", &store, &key, false, true) {
            Ok(index) => index,
            Err(failure) => return Ok(Err(failure)),
        };
        let condition = match condition {
            blob::Condition::Always => Condition::Always,
            blob::Condition::IfAbsent => Condition::IfAbsent,
            blob::Condition::IfMatch(tag) if listing::tag_of(&tag).as_ref() == Some(&tag) => {
                Condition::IfMatch(tag)
            }
            blob::Condition::IfMatch(_) => {
                let what = "a tag is what an entry says";
                return Ok(Err(failure(FailureCode::InvalidInput, what)));
            }
        };
        if let Err(trouble) = self.account_put(index, bytes.len() as u64) {
            return Ok(Err(self.told(index, "put", &store, &key, &trouble)));
        }
        let ask = Ask::Put {
            key,
            bytes: Blob(bytes.into()),
            condition,
        };
        Ok(match self.ask(index, ask).await? {
            Ok(Answer::Written(tag)) => Ok(blob::Outcome::Done(tag)),
            Ok(Answer::Unmet) => Ok(blob::Outcome::Unmet),
            Ok(_) => return Err(another_answer()),
            Err(failure) => Err(failure),
        })
    }

    async fn delete(
        &mut self,
        store: String,
        key: String,
    ) -> wasmtime::Result<Result<(), Failure>> {
        self.enter("blob.delete", &store, &key, "", 0);
        let index = match self.authorise("delete", &store, &key, false, true) {
            Ok(index) => index,
            Err(failure) => return Ok(Err(failure)),
        };
        if let Err(trouble) = self.account_put(index, 0) {
            return Ok(Err(self.told(index, "delete", &store, &key, &trouble)));
        }
        Ok(match self.ask(index, Ask::Delete { key }).await? {
            Ok(Answer::Deleted) => Ok(()),
            Ok(_) => return Err(another_answer()),
            Err(failure) => Err(failure),
        })
    }
}

fn entry_of(entry: Entry) -> blob::Entry {
    blob::Entry {
        key: entry.key,
        size: entry.size,
        etag: entry.etag,
        modified: entry.modified,
    }
}

/// A recording that was changed by hand.
fn another_answer() -> wasmtime::Error {
    wasmtime::Error::msg("the answer of a store is that of another call")
}

impl StoresView<'_> {
    /// Counts a call, and what tells it from others.
    fn enter(&mut self, name: &'static str, store: &str, place: &str, more: &str, sent: usize) {
        self.0.ledger.count(name);
        for what in [store, place, more] {
            self.0.ledger.saw(|| what);
        }
        self.0.ledger.count_bytes_out(place.len() + sent);
    }

    fn grant(&self, index: usize) -> &BlobGrant {
        &self.0.identity.grants.blob[index]
    }

    /// The number of the grant that covers it.
    fn authorise(
        &mut self,
        verb: &str,
        store: &str,
        place: &str,
        is_prefix: bool,
        writes: bool,
    ) -> Result<usize, Failure> {
        let identity = Arc::clone(&self.0.identity);
        let grants = || {
            let grants = identity.grants.blob.iter().enumerate();
            grants.filter(|(_, grant)| grant.store == store)
        };
        let Some((first, _)) = grants().next() else {
            let shown = text::sentence(store, MAX_NAME_BYTES);
            let detail = format!("{verb} something in `{shown}`, which is no store of its");
            self.0.deny(Capability::Blob, detail.clone());
            return Err(failure(FailureCode::Denied, detail));
        };
        let target = text::sentence(&format!("{store}:{place}"), MAX_TARGET_BYTES);
        let mut refuse = |index: usize, key: &str, code: FailureCode, detail: String| {
            let line = format!("plugins.{}.grants.blob[{index}].{key}", identity.name);
            self.0
                .deny_with(Capability::Blob.as_str(), detail.clone(), line);
            failure(code, detail)
        };
        let (checked, what) = match is_prefix {
            true => (check_prefix(place), "prefix"),
            false => (check_key(place), "key"),
        };
        if let Err(rule) = checked {
            let detail = format!("{verb} `{target}`: a {what} {rule}");
            return Err(refuse(first, "prefix", FailureCode::Denied, detail));
        }
        let Some((index, grant)) = grants().find(|(_, grant)| place.starts_with(&grant.prefix))
        else {
            let detail = format!("{verb} `{target}`, which is not below what it is granted");
            return Err(refuse(first, "prefix", FailureCode::Denied, detail));
        };
        if writes && grant.access == Access::Read {
            let detail = format!("{verb} `{target}`, which it may read");
            return Err(refuse(index, "access", FailureCode::Denied, detail));
        }
        let calls = self.0.blob.used[index].calls;
        if calls >= grant.calls.get() {
            let detail = format!("{verb} `{target}`: it has made {calls} calls already");
            let line = format!("plugins.{}.grants.blob[{index}].calls", identity.name);
            self.0
                .deny_with(Capability::Blob.as_str(), detail.clone(), line);
            return Err(failure(FailureCode::Exhausted, detail));
        }
        self.0.blob.used[index].calls += 1;
        Ok(index)
    }

    /// Takes an object that is put or deleted off what may be. What is tried counts, whatever comes of it.
    fn account_put(&mut self, index: usize, bytes: u64) -> Result<(), Trouble> {
        let identity = Arc::clone(&self.0.identity);
        let grant = &identity.grants.blob[index];
        let used = &mut self.0.blob.used[index];
        if bytes > grant.object_bytes.bytes() {
            let what = format!("that is more than {} of one object", grant.object_bytes);
            return Err(Trouble::too_much("object_bytes", what));
        }
        let objects = grant.objects.get();
        if used.objects >= objects {
            let what = format!("it has put or deleted {objects} objects already");
            return Err(Trouble::too_much("objects", what));
        }
        let written = used.written_bytes.saturating_add(bytes);
        if written > grant.write_bytes.bytes() {
            let what = format!("with that it would put more than {}", grant.write_bytes);
            return Err(Trouble::too_much("write_bytes", what));
        }
        used.objects += 1;
        used.written_bytes = written;
        Ok(())
    }

    /// Does it, unless it was done in what is replayed.
    async fn ask(&mut self, index: usize, ask: Ask) -> wasmtime::Result<Result<Answer, Failure>> {
        let grant = self.grant(index).clone();
        let (verb, place) = (ask.action(), ask.place().to_owned());
        let actor = Arc::clone(&self.0.blob.actor);
        let store = grant.store.clone();
        let answered = self.0.ledger.outside_later(carry_out(actor, grant, ask));
        Ok(match answered.await? {
            Ok(answer) => Ok(answer),
            Err(trouble) => Err(self.told(index, verb, &store, &place, &trouble)),
        })
    }

    /// What the guest is told; what was refused or over a bound is a denial.
    fn told(
        &mut self,
        index: usize,
        verb: &str,
        store: &str,
        place: &str,
        trouble: &Trouble,
    ) -> Failure {
        let name = self.0.identity.name.clone();
        let (code, line, what) = match trouble {
            Trouble::TooMuch { key, detail } => {
                let line = format!("plugins.{name}.grants.blob[{index}].{key}");
                (FailureCode::Exhausted, line, detail.clone())
            }
            Trouble::Refused { line, what } => (FailureCode::Denied, line.clone(), what.clone()),
            Trouble::Forbidden => {
                let what = "the store does not let its account do that".to_owned();
                (
                    FailureCode::Denied,
                    format!("stores.{store}.credentials"),
                    what,
                )
            }
            Trouble::Wrong(what) => return failure(FailureCode::InvalidInput, what),
            Trouble::Away(what) => return failure(FailureCode::Unavailable, what),
        };
        let target = text::sentence(&format!("{store}:{place}"), MAX_TARGET_BYTES);
        let detail = format!("{verb} `{target}`: {}", trouble.in_a_word());
        self.0.deny_with(Capability::Blob.as_str(), detail, line);
        failure(code, what)
    }
}

fn failure(code: FailureCode, message: impl Into<String>) -> Failure {
    Failure {
        code,
        message: message.into(),
        hint: None,
    }
}

/// Puts it on record and does it, within its time.
async fn carry_out(actor: Arc<Actor>, grant: BlobGrant, ask: Ask) -> Result<Answer, Trouble> {
    let Some(store) = &grant.to else {
        return Err(Trouble::Away("the store leads nowhere".to_owned()));
    };
    let (digest, sent) = match &ask {
        Ask::Put { bytes, .. } => (Some(Digest::of(&bytes.0)), bytes.0.len() as u64),
        _ => (None, 0),
    };
    let secrets: Vec<String> = store.secrets().map(ToString::to_string).collect();
    let begun = actor.begin(Act {
        capability: Capability::Blob,
        action: ask.action(),
        target: text::sentence(
            &format!("{}:{}", grant.store, ask.place()),
            MAX_TARGET_BYTES,
        ),
        digest,
        secret: (!secrets.is_empty()).then(|| secrets.join(" ")),
    });
    let mut effect = begun.map_err(|error| {
        tracing::error!(%error, "a call of a store could not be recorded, so it is not made");
        Trouble::Away("the call could not be put on record".to_owned())
    })?;
    effect.bytes_out.store(sent, Ordering::Relaxed);
    let deadline = Instant::now() + grant.timeout.duration();
    let writes = matches!(ask, Ask::Put { .. } | Ask::Delete { .. });
    let asking = async {
        match &store.url {
            StoreUrl::Bucket { bucket, prefix } => {
                let bucket = s3::Bucket::new(&grant, store, bucket, prefix)?;
                bucket.ask(&ask).await
            }
            StoreUrl::Folder(path) => {
                let (path, name) = (path.clone(), grant.store.clone());
                let working =
                    tokio::task::spawn_blocking(move || folder::ask(&path, &name, ask, deadline));
                let worked = working.await;
                worked.unwrap_or_else(|error| Err(Trouble::Away(error.to_string())))
            }
        }
    };
    let answer = tokio::time::timeout_at(deadline.into(), asking).await;
    let answer = answer.unwrap_or_else(|_| {
        let unknown = if writes {
            ", and it is not known whether it was done"
        } else {
            ""
        };
        let what = format!("it took longer than {}{unknown}", grant.timeout);
        Err(Trouble::too_much("timeout", what))
    });
    effect.outcome = match &answer {
        Ok(answer) => {
            if let Answer::Object(Some(found)) = answer {
                effect.bytes_in = found.bytes.0.len() as u64;
            }
            answer.in_a_word()
        }
        Err(trouble) => trouble.in_a_word(),
    };
    answer
}

/// The keys of a list, for the target of the fuzzer.
pub(crate) fn listed(bytes: &[u8], own: &str, prefix: &str) -> Result<Vec<String>, String> {
    let listing = listing::read(bytes)?;
    let entries = listing::below(listing.entries, own, prefix, MAX_PAGE)?;
    Ok(entries.into_iter().map(|entry| entry.key).collect())
}

#[cfg(test)]
mod tests;
