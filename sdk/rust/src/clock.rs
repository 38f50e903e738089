//! The time, where the operator grants it. Without the grant a plugin that reaches these functions
//! is refused at load.

use std::time::Duration;

use crate::bindings::imports::wasi::clocks::{monotonic_clock, wall_clock};

/// Time since 1970-01-01T00:00:00Z.
#[must_use]
pub fn since_epoch() -> Duration {
    let now = wall_clock::now();
    Duration::new(now.seconds, now.nanoseconds)
}

/// Time since some moment that stays the same while the instance lives; it never goes back.
#[must_use]
pub fn monotonic() -> Duration {
    Duration::from_nanos(monotonic_clock::now())
}
