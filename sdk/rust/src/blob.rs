//! Objects of stores, below the prefixes that the operator grants: bytes under keys, in a bucket or a folder.
//!
//! ```no_run
//! use sandcast_sdk::blob::{self, Condition};
//!
//! # fn main() -> Result<(), sandcast_sdk::Failure> {
//! for entry in blob::list("lake", "raw/") {
//!     let entry = entry?;
//!     if let Some(object) = blob::get("lake", &entry.key)? {
//!         let lines = object.bytes.split(|byte| *byte == b'\n').count();
//!         blob::put("lake", "out/lines.txt", lines.to_string().as_bytes(), &Condition::Always)?;
//!     }
//! }
//! # Ok(()) }
//! ```

use std::collections::VecDeque;

use crate::Failure;
use crate::bindings::imports::sandcast::plugin::blob;

pub use crate::bindings::imports::sandcast::plugin::blob::{
    Condition, Entry, Object, Outcome, Page, Range,
};

/// Entries of one page.
const PAGE: u32 = 1000;

/// The objects below a prefix, which is empty or ends with a slash, in the order of their keys. Pages are
/// asked for as they are needed; after a failure there is nothing more.
pub fn list<'a>(store: &'a str, prefix: &'a str) -> Listed<'a> {
    Listed {
        store,
        prefix,
        page: VecDeque::new(),
        next: Some(None),
    }
}

/// Objects, one after the other.
#[derive(Debug)]
pub struct Listed<'a> {
    store: &'a str,
    prefix: &'a str,
    page: VecDeque<Entry>,
    /// Where the next page begins, if there is one.
    next: Option<Option<String>>,
}

impl Iterator for Listed<'_> {
    type Item = Result<Entry, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                return Some(Ok(entry));
            }
            let cursor = self.next.take()?;
            match blob::list_entries(self.store, self.prefix, cursor.as_deref(), PAGE) {
                Ok(page) => {
                    self.page = page.entries.into();
                    self.next = page.cursor.map(Some);
                }
                Err(failure) => return Some(Err(failure)),
            }
        }
    }
}

/// One page of the objects below a prefix; `cursor` is that of the page before.
///
/// # Errors
/// `denied` when no grant covers the prefix, `exhausted` when a bound is reached, `unavailable` when the store
/// does not answer.
pub fn page(store: &str, prefix: &str, cursor: Option<&str>, limit: u32) -> Result<Page, Failure> {
    blob::list_entries(store, prefix, cursor, limit)
}

/// What is known of an object, if there is one.
///
/// # Errors
/// As for [`page`].
pub fn head(store: &str, key: &str) -> Result<Option<Entry>, Failure> {
    blob::head(store, key)
}

/// An object, if there is one.
///
/// # Errors
/// As for [`page`]; one that is larger than granted is `exhausted`.
pub fn get(store: &str, key: &str) -> Result<Option<Object>, Failure> {
    blob::get(store, key, None)
}

/// A part of an object, and less of it where the object ends before.
///
/// # Errors
/// As for [`get`], and `invalid-input` where the object ends before the part begins.
pub fn get_range(
    store: &str,
    key: &str,
    offset: u64,
    length: u64,
) -> Result<Option<Object>, Failure> {
    blob::get(store, key, Some(Range { offset, length }))
}

/// Puts an object, whole or not at all.
///
/// # Errors
/// `denied` when it may only be read, `exhausted` when a bound is reached, `unavailable` when the store does not
/// answer: then it may have been put all the same, and the same bytes can be put again.
pub fn put(
    store: &str,
    key: &str,
    bytes: &[u8],
    condition: &Condition,
) -> Result<Outcome, Failure> {
    blob::put(store, key, bytes, condition)
}

/// Takes an object away, if it is there.
///
/// # Errors
/// As for [`put`].
pub fn delete(store: &str, key: &str) -> Result<(), Failure> {
    blob::delete(store, key)
}
