//! Whole runs with the first-party plugins in their sandbox.

mod bench;
mod policies;
mod refusals;
mod resuming;
mod trusted;
mod whole;
