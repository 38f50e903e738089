//! Pairs of keys and values that a plugin keeps from one instance to the next, by `wasi:keyvalue`.
//!
//! There is one bucket, the plugin's own: what it keeps under its name in a pipeline and its id, no
//! other plugin and no other pipeline reads. Sizes are held to their quotas in the transaction that
//! writes, so they hold over every instance and process; adding and swapping are such transactions too.
//! What the store answers comes from outside, so a recording keeps it, and a replay has no store.

mod kept;
mod store;

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wasmtime::component::{HasData, Linker, Resource};

use super::{Access, ByteSize, Capability};
use crate::bindings::adapter::wasi::keyvalue::{atomics, batch, store as pairs};
use crate::effect::{Act, Actor, Effect};
use crate::state::State;
use crate::text;
pub use kept::{KeptBucket, KeptError, KeptPair, KeptState};
pub(crate) use store::{Pairs, Space};
use store::{Stored, Trouble};

/// Bytes of a key.
const MAX_KEY_BYTES: usize = 512;

/// Bytes of a value, whatever is granted: it is in memory at once.
const MAX_VALUE_BYTES: u64 = 64 << 20;

/// Keys of one call.
const MAX_KEYS_AT_ONCE: usize = 1000;

/// Changes that an instance has on record, by what is done and the key.
type Recorded = Mutex<HashSet<(&'static str, String)>>;

/// What a plugin may keep from one instance to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StateGrant {
    /// Whether it may change what it keeps; it may unless it is said otherwise, for nobody else has it.
    pub access: Access,
    /// Bytes of all its keys and values together.
    pub bytes: ByteSize,
    /// Keys.
    pub keys: NonZeroU32,
    /// Bytes of one value.
    pub value_bytes: ByteSize,
    /// The pipeline whose state it is: its own, which is never written down in the pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub pipeline: Option<String>,
}

impl Default for StateGrant {
    fn default() -> Self {
        Self {
            access: Access::ReadWrite,
            bytes: ByteSize::from_mib(16),
            keys: NonZeroU32::new(10_000).unwrap_or(NonZeroU32::MIN),
            value_bytes: ByteSize::from_mib(1),
            pipeline: None,
        }
    }
}

impl StateGrant {
    /// Such as `16MiB in 10000 keys, read and write`.
    pub(super) fn in_words(&self) -> String {
        let access = match self.access {
            Access::Read => "read",
            Access::ReadWrite => "read and write",
        };
        format!("{access} {} in {} keys", self.bytes, self.keys)
    }
}

/// Says whether a grant makes sense, wherever it is given.
pub(crate) fn check(grant: &StateGrant) -> Result<(), String> {
    let value_bytes = grant.value_bytes.bytes();
    if value_bytes == 0 || value_bytes > MAX_VALUE_BYTES {
        return Err(format!(
            "`value_bytes` is {}; write something from 1 to {}",
            grant.value_bytes,
            ByteSize::from_bytes(MAX_VALUE_BYTES)
        ));
    }
    if grant.bytes < grant.value_bytes {
        return Err(format!(
            "`bytes` is {}, and one value may be {}; raise one or lower the other",
            grant.bytes, grant.value_bytes
        ));
    }
    Ok(())
}

/// What one instance has of the store.
pub(crate) struct PairsState {
    actor: Arc<Actor>,
    /// Nothing in a replay, which asks for nothing.
    pairs: Option<Arc<Pairs>>,
    space: Arc<Space>,
    recorded: Arc<Recorded>,
}

impl PairsState {
    pub(crate) fn new(actor: Arc<Actor>, pairs: Option<Arc<Pairs>>) -> Self {
        let identity = &actor.identity;
        let granted = identity.grants.state.as_ref();
        let space = Space {
            pipeline: granted
                .and_then(|it| it.pipeline.clone())
                .unwrap_or_default(),
            name: identity.name.clone(),
            plugin: identity.reference.id.clone(),
        };
        Self {
            space: Arc::new(space),
            recorded: Arc::default(),
            actor,
            pairs,
        }
    }
}

/// The plugin's bucket, in its hands.
#[derive(Debug)]
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct Bucket;

/// A key as it was at one moment, in a guest's hands.
#[derive(Debug)]
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct Seen {
    key: String,
    /// The number of the change that made its value; nothing where it was not there.
    version: Option<i64>,
}

/// Links `wasi:keyvalue`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    pairs::add_to_linker::<State, KeyValue>(linker, |state| PairsView(state))?;
    atomics::add_to_linker::<State, KeyValue>(linker, |state| PairsView(state))?;
    batch::add_to_linker::<State, KeyValue>(linker, |state| PairsView(state))
}

struct KeyValue;

impl HasData for KeyValue {
    type Data<'a> = PairsView<'a>;
}

/// What answers, on the state of an instance.
pub(crate) struct PairsView<'a>(pub(crate) &'a mut State);

/// A trap, or the answer to the guest.
type Answer<T> = wasmtime::Result<Result<T, pairs::Error>>;

/// A change that is about to be made.
struct Change {
    action: &'static str,
    keys: Vec<String>,
    bytes: usize,
}

impl PairsView<'_> {
    /// Counts a call.
    fn call(&mut self, name: &'static str, keys: &[&str]) {
        self.0.ledger.count(name);
        for key in keys {
            self.0.ledger.saw(|| key);
        }
    }

    async fn ask<T>(
        &mut self,
        change: Option<Change>,
        work: impl FnOnce(&Pairs, &Space, &StateGrant) -> Result<T, Trouble> + Send + 'static,
    ) -> Answer<T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        self.ask_and_say(change, work, |_| "done").await
    }

    /// Asks the store, and says in a word for the record what it came to. In a replay the answer is
    /// what it was then.
    async fn ask_and_say<T>(
        &mut self,
        change: Option<Change>,
        work: impl FnOnce(&Pairs, &Space, &StateGrant) -> Result<T, Trouble> + Send + 'static,
        said: fn(&T) -> &'static str,
    ) -> Answer<T>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let Some(grant) = self.0.identity.grants.state.clone() else {
            return Ok(Err(pairs::Error::AccessDenied));
        };
        if let Some(change) = &change
            && let Err(error) = self.allow(change, &grant)
        {
            return Ok(Err(error));
        }
        let state = &mut self.0.pairs;
        let (store, space) = (state.pairs.clone(), Arc::clone(&state.space));
        let actor = Arc::clone(&state.actor);
        let recorded = Arc::clone(&state.recorded);
        let answer = self.0.ledger.outside_later(async move {
            let store = store.ok_or_else(|| Trouble::Failed("it is not there".to_owned()))?;
            let mut effects = match change {
                Some(change) => announce(&actor, &recorded, change)?,
                None => Vec::new(),
            };
            // The work goes on when nobody waits for it any more, and its record with it.
            let working = tokio::task::spawn_blocking(move || {
                let outcome = work(&store, &space, &grant);
                for effect in &mut effects {
                    effect.outcome = match &outcome {
                        Ok(answer) => said(answer).to_owned(),
                        Err(trouble) => trouble.to_string(),
                    };
                }
                outcome
            });
            let worked = working.await;
            worked.unwrap_or_else(|error| Err(Trouble::Failed(error.to_string())))
        });
        Ok(answer.await?.map_err(|trouble| self.told(trouble)))
    }

    /// What is refused without a look at the store.
    fn allow(&mut self, change: &Change, grant: &StateGrant) -> Result<(), pairs::Error> {
        if grant.access == Access::ReadWrite {
            return Ok(());
        }
        let name = &self.0.identity.name;
        let line = format!("plugins.{name}.grants.state.access: read-write");
        let key = change.keys.first().map_or("", String::as_str);
        let key = text::sentence(key, MAX_KEY_BYTES);
        let detail = format!("{} {key}: it may only read its state", change.action);
        self.0.deny_with(Capability::State.as_str(), detail, line);
        Err(pairs::Error::AccessDenied)
    }

    /// What the guest is told; a quota that is used up is a denial.
    fn told(&mut self, trouble: Trouble) -> pairs::Error {
        if let Trouble::Full { quota, .. } = &trouble {
            let line = format!("plugins.{}.grants.state.{quota}", self.0.identity.name);
            let detail = text::sentence(&trouble.to_string(), MAX_KEY_BYTES);
            self.0.deny_with(Capability::State.as_str(), detail, line);
        }
        pairs::Error::Other(trouble.to_string())
    }
}

/// Puts on record what is about to be changed, each key once. What cannot be is not done.
fn announce(
    actor: &Arc<Actor>,
    recorded: &Recorded,
    change: Change,
) -> Result<Vec<Effect>, Trouble> {
    let mut effects = Vec::with_capacity(change.keys.len());
    // A panic elsewhere leaves a whole value.
    let mut recorded = recorded.lock().unwrap_or_else(PoisonError::into_inner);
    for key in change.keys {
        let known = (change.action, key);
        if recorded.contains(&known) {
            continue;
        }
        let act = Act {
            capability: Capability::State,
            action: change.action,
            target: text::sentence(&known.1, MAX_KEY_BYTES),
            digest: None,
            secret: None,
        };
        let effect = actor.begin(act).map_err(|error| {
            tracing::error!(%error, "a change of a plugin's state could not be recorded, so it is not made");
            Trouble::Failed("the change could not be put on record".to_owned())
        })?;
        recorded.insert(known);
        effects.push(effect);
    }
    if let Some(first) = effects.first() {
        first
            .bytes_out
            .store(change.bytes as u64, Ordering::Relaxed);
    }
    Ok(effects)
}

/// Says what is wrong with keys of a call.
fn check_keys<'a>(keys: impl ExactSizeIterator<Item = &'a str>) -> Result<(), pairs::Error> {
    if keys.len() > MAX_KEYS_AT_ONCE {
        let what = format!(
            "{} keys in one call; take {MAX_KEYS_AT_ONCE} at a time",
            keys.len()
        );
        return Err(pairs::Error::Other(what));
    }
    for key in keys {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            let what = format!(
                "a key has 1 to {MAX_KEY_BYTES} bytes, this one {}",
                key.len()
            );
            return Err(pairs::Error::Other(what));
        }
    }
    Ok(())
}

/// Leaves a function with an error for the guest.
macro_rules! or_answer {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        }
    };
}

impl PairsView<'_> {
    async fn read(&mut self, key: String) -> Answer<Option<Vec<u8>>> {
        or_answer!(check_keys([key.as_str()].into_iter()));
        let read = self.ask(None, move |pairs, space, _| pairs.get(space, &[key]));
        let value = or_answer!(read.await?)
            .pop()
            .flatten()
            .map(|found| found.value.0);
        self.0
            .ledger
            .count_bytes_in(value.as_ref().map_or(0, Vec::len));
        Ok(Ok(value))
    }

    async fn keep(&mut self, action: &'static str, new: Vec<(String, Vec<u8>)>) -> Answer<()> {
        or_answer!(check_keys(new.iter().map(|(key, _)| key.as_str())));
        let bytes = new.iter().map(|(_, value)| value.len()).sum();
        self.0.ledger.count_bytes_out(bytes);
        for (_, value) in &new {
            self.0.ledger.saw(|| value);
        }
        let keys = new.iter().map(|(key, _)| key.clone()).collect();
        let change = Change {
            action,
            keys,
            bytes,
        };
        self.ask(Some(change), move |pairs, space, grant| {
            pairs.set(space, grant, &new)
        })
        .await
    }

    async fn remove(&mut self, keys: Vec<String>) -> Answer<()> {
        or_answer!(check_keys(keys.iter().map(String::as_str)));
        let change = Change {
            action: "delete",
            keys: keys.clone(),
            bytes: 0,
        };
        self.ask(Some(change), move |pairs, space, _| {
            pairs.delete(space, &keys)
        })
        .await
    }

    /// A key as it is now.
    async fn look(&mut self, key: String) -> Answer<Seen> {
        or_answer!(check_keys([key.as_str()].into_iter()));
        let looked = key.clone();
        let version = self.ask(None, move |pairs, space, _| pairs.version(space, &looked));
        let version = or_answer!(version.await?);
        Ok(Ok(Seen { key, version }))
    }
}

impl pairs::Host for PairsView<'_> {
    fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        self.call("state.open", &[&identifier]);
        // There is one, and by the drafts and their hosts this is what a default is called.
        if !matches!(identifier.as_str(), "" | "default") {
            let identifier = text::sentence(&identifier, 128);
            let detail = format!("open `{identifier}`: there is one bucket, `default`");
            self.0.deny(Capability::State, detail);
            return Ok(Err(pairs::Error::NoSuchStore));
        }
        Ok(Ok(self.0.table.push(Bucket)?))
    }
}

impl pairs::HostBucket for PairsView<'_> {
    async fn get(&mut self, _: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        self.call("state.get", &[&key]);
        self.read(key).await
    }

    async fn set(&mut self, _: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        self.call("state.set", &[&key]);
        self.keep("set", vec![(key, value)]).await
    }

    async fn delete(&mut self, _: Resource<Bucket>, key: String) -> Answer<()> {
        self.call("state.delete", &[&key]);
        self.remove(vec![key]).await
    }

    async fn exists(&mut self, _: Resource<Bucket>, key: String) -> Answer<bool> {
        self.call("state.exists", &[&key]);
        let seen = or_answer!(self.look(key).await?);
        Ok(Ok(seen.version.is_some()))
    }

    async fn list_keys(
        &mut self,
        _: Resource<Bucket>,
        cursor: Option<String>,
    ) -> Answer<pairs::KeyResponse> {
        let cursor = cursor.unwrap_or_default();
        self.call("state.list-keys", &[&cursor]);
        let listed = self.ask(None, move |pairs, space, _| pairs.list(space, &cursor));
        let keys = or_answer!(listed.await?);
        self.0
            .ledger
            .count_bytes_in(keys.iter().map(String::len).sum());
        // A page that is full may have another behind it.
        let cursor = (keys.len() == store::PAGE_KEYS).then(|| keys.last().cloned());
        Ok(Ok(pairs::KeyResponse {
            cursor: cursor.flatten(),
            keys,
        }))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.0.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for PairsView<'_> {
    async fn increment(&mut self, _: Resource<Bucket>, key: String, delta: i64) -> Answer<i64> {
        self.call("state.increment", &[&key]);
        self.0.ledger.saw(|| delta.to_le_bytes());
        or_answer!(check_keys([key.as_str()].into_iter()));
        let change = Change {
            action: "increment",
            keys: vec![key.clone()],
            bytes: 0,
        };
        self.ask(Some(change), move |pairs, space, grant| {
            pairs.increment(space, grant, &key, delta)
        })
        .await
    }

    async fn swap(
        &mut self,
        seen: Resource<Seen>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), atomics::CasError>> {
        let Seen { key, version } = self.0.table.delete(seen)?;
        self.call("state.swap", &[&key]);
        self.0.ledger.saw(|| &value);
        self.0.ledger.count_bytes_out(value.len());
        let change = Change {
            action: "swap",
            keys: vec![key.clone()],
            bytes: value.len(),
        };
        let new = (key.clone(), value);
        let swapped = self.ask_and_say(
            Some(change),
            move |pairs, space, grant| pairs.swap(space, grant, new, version),
            |found| match found {
                None => "done",
                Some(_) => "not done: it was changed meanwhile",
            },
        );
        match swapped.await? {
            Err(error) => Ok(Err(atomics::CasError::StoreError(error))),
            Ok(None) => Ok(Ok(())),
            Ok(Some(Stored(version))) => {
                let again = self.0.table.push(Seen { key, version })?;
                Ok(Err(atomics::CasError::CasFailed(again)))
            }
        }
    }
}

impl atomics::HostCas for PairsView<'_> {
    async fn new(&mut self, _: Resource<Bucket>, key: String) -> Answer<Resource<Seen>> {
        self.call("state.see", &[&key]);
        let seen = or_answer!(self.look(key).await?);
        Ok(Ok(self.0.table.push(seen)?))
    }

    async fn current(&mut self, seen: Resource<Seen>) -> Answer<Option<Vec<u8>>> {
        let key = self.0.table.get(&seen)?.key.clone();
        self.call("state.current", &[&key]);
        // What is newer than the handle can be looked at, but not swapped with it.
        self.read(key).await
    }

    fn drop(&mut self, seen: Resource<Seen>) -> wasmtime::Result<()> {
        self.0.table.delete(seen)?;
        Ok(())
    }
}

impl batch::Host for PairsView<'_> {
    async fn get_many(
        &mut self,
        _: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let shown: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.call("state.get-many", &shown);
        or_answer!(check_keys(keys.iter().map(String::as_str)));
        let read = self.ask(None, move |pairs, space, _| {
            let found = pairs.get(space, &keys)?;
            let found = keys.into_iter().zip(found);
            Ok(found
                .map(|(key, value)| Some((key, value?.value)))
                .collect())
        });
        let found: Vec<Option<(String, Bytes)>> = or_answer!(read.await?);
        let found: Vec<_> = found
            .into_iter()
            .map(|pair| pair.map(|(key, value)| (key, value.0)))
            .collect();
        let lengths = found.iter().flatten().map(|(_, value)| value.len());
        self.0.ledger.count_bytes_in(lengths.sum());
        Ok(Ok(found))
    }

    async fn set_many(&mut self, _: Resource<Bucket>, new: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let keys: Vec<&str> = new.iter().map(|(key, _)| key.as_str()).collect();
        self.call("state.set-many", &keys);
        self.keep("set", new).await
    }

    async fn delete_many(&mut self, _: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        let shown: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.call("state.delete-many", &shown);
        self.remove(keys).await
    }
}

/// Bytes that a recording keeps as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&base64::display::Base64Display::new(&self.0, &STANDARD))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}
