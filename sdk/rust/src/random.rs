//! Randomness, where the operator grants it. With a seeded grant the bytes are a function of the
//! seed, so that a run can be repeated.

use crate::bindings::imports::wasi::random::random;

/// That many bytes.
#[must_use]
pub fn bytes(count: u64) -> Vec<u8> {
    random::get_random_bytes(count)
}

/// A number drawn evenly from all of them.
#[must_use]
pub fn number() -> u64 {
    random::get_random_u64()
}
