//! What a plugin keeps from one instance to the next, where the operator grants it: bytes under keys,
//! its own and nobody else's, up to quotas.
//!
//! ```no_run
//! use sandcast_sdk::state::Bucket;
//!
//! # fn main() -> Result<(), sandcast_sdk::Failure> {
//! let bucket = Bucket::open()?;
//! let seen = bucket.increment("orders/seen", 1)?;
//! bucket.update("largest", |before| {
//!     let before = before.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
//!     before.max(42).to_le_bytes().to_vec()
//! })?;
//! # let _ = seen;
//! # Ok(()) }
//! ```

use crate::Failure;
use crate::bindings::imports::wasi::keyvalue::store::Error;
use crate::bindings::imports::wasi::keyvalue::{atomics, batch, store};

/// How often an update is tried that others come before.
const ATTEMPTS: usize = 100;

/// The plugin's pairs of keys and bytes.
#[derive(Debug)]
pub struct Bucket(store::Bucket);

impl Bucket {
    /// The one that the plugin has.
    ///
    /// # Errors
    /// `unavailable` when it cannot be opened.
    pub fn open() -> Result<Self, Failure> {
        store::open("default").map(Self).map_err(failure)
    }

    /// The bytes of a key, if it is there.
    ///
    /// # Errors
    /// `unavailable` when the store does not answer.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.0.get(key).map_err(failure)
    }

    /// The bytes of some keys, in that order.
    ///
    /// # Errors
    /// `unavailable` when the store does not answer, or these are too many.
    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let found = batch::get_many(&self.0, keys).map_err(failure)?;
        let values = found.into_iter();
        Ok(values.map(|pair| pair.map(|(_, value)| value)).collect())
    }

    /// Keeps bytes under a key, over what was there.
    ///
    /// # Errors
    /// `denied` when it may only read, `unavailable` when a quota is used up or the store does not answer.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        self.0.set(key, value).map_err(failure)
    }

    /// Keeps all of some pairs, or none.
    ///
    /// # Errors
    /// As for [`Bucket::set`].
    pub fn set_many(&self, pairs: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        batch::set_many(&self.0, pairs).map_err(failure)
    }

    /// Takes a key out, if it is there.
    ///
    /// # Errors
    /// `denied` when it may only read, `unavailable` when the store does not answer.
    pub fn delete(&self, key: &str) -> Result<(), Failure> {
        self.0.delete(key).map_err(failure)
    }

    /// Takes some keys out, as far as they are there.
    ///
    /// # Errors
    /// As for [`Bucket::delete`].
    pub fn delete_many(&self, keys: &[String]) -> Result<(), Failure> {
        batch::delete_many(&self.0, keys).map_err(failure)
    }

    /// Whether a key is there.
    ///
    /// # Errors
    /// `unavailable` when the store does not answer.
    pub fn exists(&self, key: &str) -> Result<bool, Failure> {
        self.0.exists(key).map_err(failure)
    }

    /// Every key, in order.
    ///
    /// # Errors
    /// `unavailable` when the store does not answer.
    pub fn keys(&self) -> Result<Vec<String>, Failure> {
        let mut keys = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.0.list_keys(cursor.as_deref()).map_err(failure)?;
            keys.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(keys);
            }
        }
    }

    /// Adds to the number that a key holds as text, 0 where it is not there; the sum. Nobody comes
    /// in between.
    ///
    /// # Errors
    /// As for [`Bucket::set`], and `unavailable` where the key holds no number.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, Failure> {
        atomics::increment(&self.0, key, delta).map_err(failure)
    }

    /// Replaces the bytes of a key by what is made of them. If somebody else changes them meanwhile, it
    /// is tried again with what is there then.
    ///
    /// # Errors
    /// As for [`Bucket::set`], and `unavailable` where others always come before.
    pub fn update(
        &self,
        key: &str,
        mut make: impl FnMut(Option<Vec<u8>>) -> Vec<u8>,
    ) -> Result<(), Failure> {
        let mut seen = atomics::Cas::new(&self.0, key).map_err(failure)?;
        for _ in 0..ATTEMPTS {
            let value = make(seen.current().map_err(failure)?);
            match atomics::swap(seen, &value) {
                Ok(()) => return Ok(()),
                Err(atomics::CasError::StoreError(error)) => return Err(failure(error)),
                Err(atomics::CasError::CasFailed(again)) => seen = again,
            }
        }
        Err(Failure::unavailable(format!(
            "`{key}` was changed by others {ATTEMPTS} times"
        )))
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::NoSuchStore => Failure::denied("there is no such bucket"),
        Error::AccessDenied => Failure::denied("the state may only be read"),
        Error::Other(what) => Failure::unavailable(what),
    }
}
