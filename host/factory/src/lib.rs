//! From a pipeline file to a registered model.

pub mod metrics;
pub mod report;
