//! Guests that misbehave, one behaviour each, against the outcome each must have: `catalogue` has the
//! rows. One runs at a time, while the host's heap and its linear memory are measured; after every one
//! of them the same sandbox still serves a guest that behaves.
//!
//! What was measured lies in the folder `hostile` of the target folder's `tmp`: guest and behaviour,
//! KiB that the heap grew, KiB of linear memory, seconds.

mod archive;
mod askers;
mod borrowers;
mod catalogue;
mod components;
mod exports;
mod forger;
mod guests;
mod keepers;
mod secrets;
mod stowers;
mod world;
mod yard;

use sandcast_tests::allocator::Counting;

#[global_allocator]
static MEMORY: Counting = Counting::new();

/// The guests whose rows are run.
const RUN: [&str; 21] = [
    "bomb",
    "borrower",
    "caller",
    "connector-csv",
    "forger",
    "hostile-adapter",
    "hostile-asker",
    "hostile-connector",
    "hostile-keeper",
    "hostile-policy",
    "hostile-reader",
    "hostile-stower",
    "hostile-teller",
    "hostile-thief",
    "hostile-validator",
    "liar",
    "noise",
    "text-adapter",
    "text-connector",
    "text-policy",
    "text-validator",
];
