//! State.

use super::Found;
use crate::grants::{Access, ByteSize, StateGrant};

pub(super) fn compare(asked: &StateGrant, most: &StateGrant, found: &mut Found<'_>) {
    let StateGrant {
        access,
        bytes,
        keys,
        value_bytes,
        // Whose state it is is no bound.
        pipeline: _,
    } = asked;
    if *access == Access::ReadWrite && most.access == Access::Read {
        found.add("state.access", "read-write", "read");
    }
    found.at_most::<ByteSize>("state.bytes", *bytes, most.bytes);
    found.at_most("state.keys", *keys, most.keys);
    found.at_most::<ByteSize>("state.value_bytes", *value_bytes, most.value_bytes);
}
