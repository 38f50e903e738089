//! The stages of the line. Each takes what the one before it has made, so that none can be left
//! out.

mod gate;

pub use gate::Approved;
