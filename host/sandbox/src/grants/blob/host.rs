//! What answers a guest: each call is held to the grant, put on record and made within its time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use sandcast_audit::Digest;
use wasmtime::component::{HasData, Linker};

use super::key::{check_key, check_prefix};
use super::{
    Answer, Ask, Blob, BlobGrant, Condition, Entry, Found, MAX_NAME_BYTES, MAX_PAGE, Most,
    StoreUrl, Trouble, folder, listing, s3,
};
use crate::bindings::adapter::sandcast::plugin::blob;
use crate::bindings::adapter::sandcast::plugin::types::{Failure, FailureCode};
use crate::effect::{Act, Actor};
use crate::grants::{Access, Capability};
use crate::state::State;
use crate::text;

/// Bytes of what is said of an object in a record.
const MAX_TARGET_BYTES: usize = 512;

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
