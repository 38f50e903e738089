//! Serves the registry's models over HTTP, in the Open Inference Protocol, version 2; models that
//! write, at `POST /v1/completions`, in the shape of OpenAI's.
//!
//! A prediction runs the model's adapter in its sandbox, on weights that all instances share. What
//! a client can ask for is bounded: bytes, rows, seconds, predictions at a time and connections.
//! An alias that moves in the registry is followed while serving; what is under way finishes on
//! the version it began with.

mod app;
mod budget;
mod config;
mod door;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
mod models;
mod patience;
mod protocol;
mod registry;
mod reload;
mod served;
mod server;
mod standing;
mod telemetry;
mod tls;
mod trust;

pub use app::{guarded_router, router};
pub use config::{ModelSelector, SelectorError, ServeConfig};
pub use error::{FailureCause, PredictError, ServeError, SourceError};
pub use models::{ModelSource, Predict, ServableModel};
pub use registry::RegistrySource;
pub use server::{Protection, ServeSummary, Server, SetUp, serve, shutdown_signal};
pub use tls::TlsFiles;
pub use trust::ReadRules;
