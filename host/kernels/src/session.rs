//! A program with its weights.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::device::Device;
use crate::error::RunError;
use crate::program::Program;
use crate::tensor::{Feeds, Tensor};
use crate::train::{Progress, StopReason, TrainPlan, TrainReport};

/// A program with its weights on a device. `infer` may be called from many threads at once.
#[derive(Debug)]
pub struct Session {
    program: Arc<Program>,
}

/// The loss of some rows, and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// The weighted mean.
    pub loss: f64,
    /// The derivative of the loss by each trainable parameter, under the parameter's name.
    pub by_parameter: BTreeMap<String, Tensor>,
}

impl Session {
    /// A session whose weights are a function of the program and the seed.
    ///
    /// # Errors
    /// When the device refuses the program.
    pub fn new(program: Arc<Program>, device: &Device, seed: u64) -> Result<Session, RunError> {
        let _ = (program, device, seed);
        unimplemented!()
    }

    /// The program.
    pub fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Trains. Same program, data, plan and seed: same bits, at any number of threads.
    /// `watch` is asked before each step and after each epoch whether to go on.
    ///
    /// # Errors
    /// When feeds do not fit the program, the loss is not finite, or the watcher stops it; the
    /// session then has the weights of the step it came to.
    pub fn train(
        &mut self,
        training: &Feeds,
        validation: Option<&Feeds>,
        plan: &TrainPlan,
        watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<StopReason>,
    ) -> Result<TrainReport, RunError> {
        let _ = (training, validation, plan, watch);
        unimplemented!()
    }

    /// Runs an entry over any number of rows. The result of a row does not depend on the rows
    /// around it, unless the program itself mixes rows.
    ///
    /// # Errors
    /// When feeds do not fit the program, or a number is outside a table.
    pub fn infer(&self, entry: &str, feeds: &Feeds) -> Result<Vec<(String, Tensor)>, RunError> {
        let _ = (entry, feeds);
        unimplemented!()
    }

    /// The loss of these rows and its gradient, as the first training step would see them.
    ///
    /// # Errors
    /// As [`Session::train`].
    pub fn gradients(&self, feeds: &Feeds) -> Result<Gradients, RunError> {
        let _ = feeds;
        unimplemented!()
    }

    /// The weights by parameter name.
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        unimplemented!()
    }

    /// The weights in the safetensors format, with the digest of the program as metadata.
    pub fn to_safetensors(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// Replaces the weights by stored ones.
    ///
    /// # Errors
    /// When the bytes are not safetensors, or names, dtypes or shapes differ from the
    /// program's, or they were stored by another program.
    pub fn load_safetensors(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        let _ = bytes;
        unimplemented!()
    }
}
