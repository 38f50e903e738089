//! The processor.

#![expect(unsafe_code, reason = "kernels read and write by position; every block says why it may")]

mod level;
mod math;
mod multiply;
mod vector;
