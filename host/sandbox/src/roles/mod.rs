//! The four parts a plugin can play. What a guest returns is bounded, checked and converted here.

mod adapter;
mod connector;
mod policy;
mod validator;

pub use adapter::{Adapter, Description, TrainInput, TrainProgress, Trained};
pub use connector::{
    Chunk, Comparison, Connector, Filter, Literal, Reject, ScanRequest, Split,
};
pub use policy::{ControlPoint, Decision, Effect, Obligation, Policy, Request};
pub use validator::{Finding, Rule, Severity, Validator, Verdict};
