//! Tensor programs: declared as a graph, checked, differentiated, planned and run natively.
//!
//! The flow is [`graph::Graph`] -> [`Program::compile`] -> [`Session::new`] ->
//! [`Session::train`] and [`Session::infer`]. In the order in which a graph passes them:
//!
//! | module | what |
//! |---|---|
//! | `graph` | the types of the contract |
//! | `check` | one pass with hard caps: dtypes, shapes, diagnostics that name the node |
//! | `ir` | fewer, simpler values; their gradient; whether rows mix |
//! | `plan` | for given extents: what is fused, where everything lies, what it costs |
//! | `program` | the above, kept together and shared |
//! | `show` | a program written down: its text, its picture |
//! | `session`, `train` | weights, epochs, order of rows, early stopping; the same on every device |
//! | `generate` | sequences that go on from prompts, several at a time |
//! | `backend`, `cpu`, `cuda` | what a device does; the processor; NVIDIA's GPUs |
//! | `trees` | forests of decision trees, trained by gradient boosting |
//! | `measure` | what a device can do, in figures |
//!
//! What always holds:
//!
//! 1. The same program, data and seed give the same bits, at any number of threads: shards and
//!    the tree of their sums depend on the size of the batch alone, random numbers on what they
//!    are for.
//! 2. The result of a row is the same bits alone and among others, unless the program mixes
//!    rows: what to fuse is decided by symbolic shapes, and a matrix product adds in the order of
//!    the inner index whatever the sizes are. Processors that fuse a product with a sum agree.
//! 3. No number that a graph or a feed holds is used as an index or a size before it was
//!    compared with what it may be.
//! 4. Unsafe code is in `cpu` and `cuda` only. Reads and writes by position compare with the
//!    length of their region; that no two of an instruction overlap is the plan's promise.
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//!
//! use sandcast_kernels::graph::*;
//! use sandcast_kernels::{Caps, Device, DeviceChoice, Program, Session, Tensor};
//!
//! // y = 2 x, for any number of rows.
//! let rows = vec![Extent::Symbol(0)];
//! let graph = Graph {
//!     symbols: vec![Symbol { name: "rows".into(), maximum: 1024 }],
//!     nodes: vec![
//!         Node::Input(Input { name: "x".into(), dtype: DType::Float32, shape: rows }),
//!         Node::F32Constant(F32Literal { shape: vec![], values: vec![2.0] }),
//!         Node::Binary(BinaryNode { operation: BinaryOperation::Multiply, left: 0, right: 1 }),
//!     ],
//!     entries: vec![Entry {
//!         name: "double".into(),
//!         outputs: vec![Output { name: "y".into(), node: 2 }],
//!     }],
//!     ..Graph::default()
//! };
//! let program = Arc::new(Program::compile(graph, &Caps::default())?);
//! let device = Device::open(DeviceChoice::Auto, None)?;
//! let session = Session::new(program, &device, 7)?;
//! let x = Tensor::from_f32(vec![3], vec![1.0, 2.0, 3.0])?;
//! let results = session.infer("double", &BTreeMap::from([("x".to_owned(), x)]))?;
//! assert_eq!(results[0].1.to_f32(), [2.0, 4.0, 6.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod graph;
pub mod measure;
pub mod show;
pub mod trees;

mod backend;
mod caps;
mod check;
mod checkpoint;
mod cpu;
#[doc(hidden)]
pub mod cuda;
mod device;
mod error;
mod feeds;
mod generate;
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
pub use checkpoint::CheckpointStore;
pub use device::{
    Device, DeviceChoice, DeviceError, DeviceInfo, DeviceKind, DeviceOptions, Precision,
    UnknownDevice, UnknownPrecision,
};
pub use error::RunError;
pub use generate::{Completion, Finish, Generator, Prompt, Sampling, Written};
pub use program::{Cost, Diagnostic, GenerationCost, ParameterInfo, Program, RunPrice};
pub use session::{Gradients, Session};
pub use tensor::{Feeds, Tensor, TensorData, TensorError};
pub use train::{EpochReport, Progress, Schedule, StopReason, TrainPlan, TrainReport};
