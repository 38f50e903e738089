//! The multilayer perceptron that is measured, compiled and on so many threads.

use std::num::NonZeroUsize;
use std::sync::Arc;

use sandcast_kernels::measure::programs::perceptron;
pub(crate) use sandcast_kernels::measure::programs::{plan, rows as feeds};
use sandcast_kernels::{Caps, Device, DeviceChoice, Program, Session};

/// The program.
pub(crate) fn program() -> Arc<Program> {
    let program = Program::compile(perceptron(), &Caps::default());
    Arc::new(program.expect("the graph compiles"))
}

/// A session on so many threads.
pub(crate) fn session(program: &Arc<Program>, threads: usize) -> Session {
    let device =
        Device::open(DeviceChoice::Cpu, NonZeroUsize::new(threads)).expect("the processor");
    Session::new(Arc::clone(program), &device, 7).expect("a session")
}
