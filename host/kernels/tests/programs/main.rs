//! Tensor programs and forests against references, and the backends against each other.

mod checkpoints;
mod checks;
mod cuda;
mod forests;
mod generation;
mod inference;
mod nvrtc;
mod operations;
mod random_programs;
mod show;
mod simplification;
mod support;
mod training;
mod weights;
mod windows;
