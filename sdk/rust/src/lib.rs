//! Write a Sandcast plugin in Rust.
//!
//! A plugin is a WebAssembly component in one of four roles. Implement the role's trait, export it,
//! describe it in `plugin.toml`, and build it with `sandcast build`:
//!
//! | role | trait | export |
//! |---|---|---|
//! | brings rows in | [`Connector`] | [`export_connector!`] |
//! | says which rows can be trusted | [`Validator`] | [`export_validator!`] |
//! | decides what may happen | [`Policy`] | [`export_policy!`] |
//! | trains models and predicts | [`Adapter`] | [`export_adapter!`] |
//!
//! A whole connector:
//!
//! ```
//! use sandcast_sdk::{Chunk, Connector, Failure, Field, Kind, ScanRequest, Split};
//! use sandcast_sdk::columns::{Rows, field};
//!
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     /// How many numbers to count up to.
//!     rows: u32,
//! }
//!
//! struct Counter {
//!     config: Config,
//!     done: bool,
//! }
//!
//! impl Connector for Counter {
//!     type Config = Config;
//!
//!     fn open(config: Config) -> Result<Self, Failure> {
//!         Ok(Self { config, done: false })
//!     }
//!
//!     fn schema(&mut self) -> Result<Vec<Field>, Failure> {
//!         Ok(vec![field("number", Kind::Int64, false)])
//!     }
//!
//!     fn partitions(&mut self) -> Result<Vec<Split>, Failure> {
//!         Ok(vec![Split::whole("all")])
//!     }
//!
//!     fn scan(&mut self, _request: ScanRequest) -> Result<(), Failure> {
//!         Ok(())
//!     }
//!
//!     fn next(&mut self) -> Result<Option<Chunk>, Failure> {
//!         if std::mem::replace(&mut self.done, true) {
//!             return Ok(None);
//!         }
//!         let numbers: Vec<i64> = (0..i64::from(self.config.rows)).collect();
//!         Ok(Some(Rows::new().int64("number", numbers).into_chunk()?))
//!     }
//! }
//!
//! sandcast_sdk::export_connector!(Counter);
//! # fn main() {}
//! ```
//!
//! A component imports exactly the host functions it reaches, on `wasm32-unknown-unknown` no WASI
//! at all unless it uses [`files`], [`http`], [`state`], [`blob`], [`clock`] or [`random`]. Each is there only if the operator
//! grants it; a refusal is a [`Failure`] with the code `denied`, never a trap.
//!
//! The crate compiles natively too, so that the pure parts of a plugin can be tested by plain
//! `cargo test`. Calls into the host panic there.

pub mod bindings;
pub mod blob;
pub mod clock;
pub mod columns;
pub mod config;
pub mod files;
pub mod forest;
pub mod graph;
pub mod http;
pub mod kernels;
pub mod log;
pub mod random;
pub mod sql;
pub mod state;

mod adapter;
mod connector;
mod failure;
mod instance;
mod policy;
mod validator;

pub use adapter::{
    Adapter, Declaration, Description, GenerationOptions, Model, Predictor, Session, Task,
    TaskKind, Trained, Training, prediction_schema, target,
};
pub use connector::{Chunk, Comparison, Connector, Filter, Literal, Reject, ScanRequest, Split};
pub use failure::{Failure, FailureCode};
#[doc(hidden)]
pub use instance::Instance;
pub use policy::{ControlPoint, Decision, Effect, Obligation, Policy, Request};
pub use validator::{Finding, Rule, Severity, Validator, Verdict};

pub use bindings::imports::sandcast::plugin::data::{Batch, Column, Dataset, Strings, Values};
pub use bindings::imports::sandcast::plugin::types::{Field, Kind};
