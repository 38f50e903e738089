//! The four parts a plugin can play. What a guest returns is bounded, checked and converted here.

pub(crate) mod adapter;
pub(crate) mod connector;
pub(crate) mod policy;
mod training;
pub(crate) mod validator;

pub use adapter::{Adapter, Declaration, Description, GenerationOptions, TrainInput, Trained};
pub use connector::{Chunk, Comparison, Connector, Filter, Literal, Reject, ScanRequest, Split};
pub use policy::{ControlPoint, Decision, Effect, Obligation, Policy, Request};
pub use training::{Cost, EpochReport, ProgressSink, TextSink, TrainProgress, TrainReport};
pub use validator::{Finding, Rule, Severity, Validator, Verdict};

use crate::text;

/// Bytes of a name that a guest returns, such as the id of a rule.
const MAX_NAME_BYTES: usize = 256;

/// A name that a guest returns: there, short, and without control characters.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!(
            "{what} has {} bytes, over {MAX_NAME_BYTES}",
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(format!(
            "{what} `{}` holds control characters",
            text::sentence(name, 64)
        ));
    }
    Ok(())
}
