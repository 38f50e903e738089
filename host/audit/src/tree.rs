//! The Merkle tree over the entries of a log, as RFC 6962 section 2.1 hashes it: SHA-256, leaves
//! prefixed with 0x00 and nodes with 0x01. A leaf is the line of an entry without its newline.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// A hash of the Merkle tree, 32 bytes of SHA-256; shown and stored in base64, as checkpoints
/// have it. It is a type of its own so that nobody takes it for the BLAKE3 of a
/// [`Digest`](crate::Digest).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeHash([u8; 32]);

impl TreeHash {
    /// A hash from its 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of a leaf: SHA-256(0x00 || bytes).
    #[must_use]
    pub fn leaf(bytes: &[u8]) -> Self {
        let hasher = Sha256::new_with_prefix([0]);
        Self(hasher.chain_update(bytes).finalize().into())
    }

    /// The hash of a node: SHA-256(0x01 || left || right).
    #[must_use]
    pub fn node(left: &Self, right: &Self) -> Self {
        let mut bytes = [1; 65];
        bytes[1..33].copy_from_slice(&left.0);
        bytes[33..].copy_from_slice(&right.0);
        Self(Sha256::digest(bytes).into())
    }

    /// The root of a tree without leaves: SHA-256 of nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self(Sha256::digest([]).into())
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TreeHash({self})")
    }
}

/// Text that is not a hash of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is not a hash of the tree: 32 bytes in base64 are wanted")]
pub struct ParseTreeHashError {
    /// What was given, cut to 80 characters.
    pub text: String,
}

impl FromStr for TreeHash {
    type Err = ParseTreeHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The decoder refuses padding that is missing and bits that mean nothing, so that each
        // hash has one spelling.
        let bytes = STANDARD.decode(text).ok();
        match bytes.and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(ParseTreeHashError {
                text: text.chars().take(80).collect(),
            }),
        }
    }
}

impl Serialize for TreeHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TreeHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for TreeHash {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TreeHash".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "SHA-256 of the Merkle tree of RFC 6962, in base64",
            "type": "string",
            "pattern": "^[A-Za-z0-9+/]{43}=$",
        })
    }
}

/// What must be kept of a tree to let it grow: the roots of its perfect subtrees, the largest
/// first, one for each bit of its size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Frontier {
    size: u64,
    roots: Vec<TreeHash>,
}

impl Frontier {
    pub(crate) const fn new() -> Self {
        Self {
            size: 0,
            roots: Vec::new(),
        }
    }

    /// A frontier from what was kept of it; none if it cannot be that of a tree of this size.
    pub(crate) fn from_parts(size: u64, roots: Vec<TreeHash>) -> Option<Self> {
        let wanted = usize::try_from(size.count_ones()).ok()?;
        (roots.len() == wanted).then_some(Self { size, roots })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn roots(&self) -> &[TreeHash] {
        &self.roots
    }

    /// Adds a leaf: one node for each subtree that it completes, two hashes on average.
    pub(crate) fn push(&mut self, leaf: TreeHash) {
        let mut hash = leaf;
        // A bit that is set is a subtree as large as the one that is being made.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                hash = TreeHash::node(&left, &hash);
            }
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// The root of the whole tree: MTH of RFC 6962 section 2.1.
    pub(crate) fn root(&self) -> TreeHash {
        let mut from_right = self.roots.iter().rev();
        match from_right.next() {
            Some(last) => from_right.fold(*last, |right, left| TreeHash::node(left, &right)),
            None => TreeHash::empty(),
        }
    }
}

/// The leaves below each hash of the path from a leaf to the root, from the leaf upwards: PATH of
/// RFC 6962 section 2.1.1.
pub(crate) fn inclusion_ranges(index: u64, size: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut tree = 0..size;
    while tree.end - tree.start > 1 {
        let middle = tree.start + split(tree.end - tree.start);
        if index < middle {
            ranges.push(middle..tree.end);
            tree.end = middle;
        } else {
            ranges.push(tree.start..middle);
            tree.start = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// The leaves below each hash of the proof that a tree of `old` leaves is the start of one of
/// `new`: PROOF of RFC 6962 section 2.1.2, for `0 < old <= new`.
pub(crate) fn consistency_ranges(old: u64, new: u64) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut tree = 0..new;
    let mut is_old_root = true;
    while tree.end != old {
        let middle = tree.start + split(tree.end - tree.start);
        if old <= middle {
            ranges.push(middle..tree.end);
            tree.end = middle;
        } else {
            ranges.push(tree.start..middle);
            tree.start = middle;
            is_old_root = false;
        }
    }
    // Who checks the proof has the old root already.
    if !is_old_root {
        ranges.push(tree);
    }
    ranges.reverse();
    ranges
}

/// The largest power of two below a size of two or more.
fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The root that a leaf, its place and its path lead to; none where the path is too short or too
/// long for the place. RFC 9162 section 2.1.3.2, which says for RFC 6962 how to check.
pub(crate) fn root_from_inclusion(
    leaf: &TreeHash,
    index: u64,
    size: u64,
    path: &[TreeHash],
) -> Option<TreeHash> {
    if index >= size {
        return None;
    }
    let (mut place, mut last) = (index, size - 1);
    let mut root = *leaf;
    for sibling in path {
        if last == 0 {
            return None;
        }
        if place % 2 == 1 || place == last {
            root = TreeHash::node(sibling, &root);
            while place % 2 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            root = TreeHash::node(&root, sibling);
        }
        place >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

/// The old and the new root that a proof of consistency leads to, given the old root; none where
/// the proof does not fit the sizes. RFC 9162 section 2.1.4.2.
pub(crate) fn roots_from_consistency(
    old: u64,
    new: u64,
    old_root: &TreeHash,
    proof: &[TreeHash],
) -> Option<(TreeHash, TreeHash)> {
    if old == 0 || old > new {
        return None;
    }
    if old == new {
        return proof.is_empty().then_some((*old_root, *old_root));
    }
    let mut hashes = proof.iter();
    let start = if old.is_power_of_two() {
        old_root
    } else {
        hashes.next()?
    };
    let (mut place, mut last) = (old - 1, new - 1);
    while place % 2 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let (mut first, mut second) = (*start, *start);
    for hash in hashes {
        if last == 0 {
            return None;
        }
        if place % 2 == 1 || place == last {
            first = TreeHash::node(hash, &first);
            second = TreeHash::node(hash, &second);
            while place % 2 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            second = TreeHash::node(&second, hash);
        }
        place >>= 1;
        last >>= 1;
    }
    (last == 0).then_some((first, second))
}

/// Finds the hashes over some ranges of leaves while the leaves go by once, in order.
#[derive(Debug)]
pub(crate) struct RangeHashes {
    /// In the order in which they are wanted.
    ranges: Vec<(Range<u64>, Frontier)>,
    seen: u64,
}

impl RangeHashes {
    pub(crate) fn new(ranges: Vec<Range<u64>>) -> Self {
        Self {
            ranges: ranges
                .into_iter()
                .map(|range| (range, Frontier::default()))
                .collect(),
            seen: 0,
        }
    }

    pub(crate) fn push(&mut self, leaf: TreeHash) {
        for (range, frontier) in &mut self.ranges {
            if range.contains(&self.seen) {
                frontier.push(leaf);
            }
        }
        self.seen += 1;
    }

    pub(crate) fn finish(self) -> Vec<TreeHash> {
        self.ranges
            .iter()
            .map(|(_, frontier)| frontier.root())
            .collect()
    }
}

#[cfg(test)]
mod tests;
