//! The processor.

#![expect(
    unsafe_code,
    reason = "kernels read and write by position; every block says why it may"
)]

mod along;
mod attention;
mod decoder;
mod engine;
mod execute;
mod kept;
pub(crate) mod level;
mod lookup;
mod map;
mod math;
mod memory;
mod multiply;
mod rows;
mod threads;
mod trainer;
pub(crate) mod trees;
mod update;
mod vector;
pub(crate) mod walk;

pub(crate) use engine::{CpuBackend, describe};
pub(crate) use kept::PAGE;
pub(crate) use threads::Threads;
