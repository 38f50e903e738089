//! Tensor programs: declared as a graph, checked, differentiated, planned and run natively.
//!
//! The flow is [`graph::Graph`] -> [`Program::compile`] -> [`Session::new`] ->
//! [`Session::train`] and [`Session::infer`]. The same program, data and seed give the same
//! bits at any number of threads.

pub mod graph;

mod backend;
mod caps;
mod check;
mod cpu;
mod cuda;
mod device;
mod error;
mod feeds;
mod ir;
mod plan;
mod program;
mod random;
mod session;
mod shape;
mod tensor;
mod train;
mod weights;

pub use backend::Backend;
pub use caps::Caps;
pub use device::{Device, DeviceChoice, DeviceError, DeviceInfo, DeviceKind, UnknownDevice};
pub use error::RunError;
pub use program::{Cost, Diagnostic, ParameterInfo, Program};
pub use session::{Gradients, Session};
pub use tensor::{Feeds, Tensor, TensorData, TensorError};
pub use train::{EpochReport, Progress, Schedule, StopReason, TrainPlan, TrainReport};
