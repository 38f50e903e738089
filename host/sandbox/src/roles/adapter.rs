//! Trains a model and predicts with it.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use crate::stand_in::{Cost, EpochReport, Graph, TrainReport};

use crate::call::CallError;
use crate::model::{Model, Task, TaskKind};

/// What an adapter can do.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// What it can learn.
    pub tasks: Vec<TaskKind>,
    /// A JSON Schema of the hyperparameters, with defaults.
    pub hyperparameters: serde_json::Value,
}

/// How far training has come.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainProgress {
    /// Steps done.
    pub step: u64,
    /// Steps of the whole plan.
    pub steps: u64,
    /// The epoch, from 1.
    pub epoch: u32,
    /// Epochs of the whole plan.
    pub epochs: u32,
    /// What the epoch came to, at its end.
    pub report: Option<EpochReport>,
}

/// What to learn from.
pub struct TrainInput {
    /// What is to be learnt.
    pub task: Task,
    /// The adapter's own settings; an object.
    pub hyperparameters: serde_json::Value,
    /// Same seed, same model.
    pub seed: u64,
    /// Rows to learn from; batches of one schema.
    pub training: Vec<RecordBatch>,
    /// Rows to stop early by.
    pub validation: Option<Vec<RecordBatch>>,
    /// Told how far it has come, from another thread.
    pub progress: Option<Arc<dyn Fn(TrainProgress) + Send + Sync>>,
}

/// What came of training.
pub struct Trained {
    /// The model.
    pub model: Arc<Model>,
    /// What the last training of the model's session reported, if it was trained at all.
    pub report: Option<TrainReport>,
    /// What a run of each entry of the program costs.
    pub costs: Vec<Cost>,
}

/// An instance that trains and predicts. Dropping a call's future cancels what it computes.
pub struct Adapter {
    _private: (),
}

impl Adapter {
    /// What it can do.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn describe(&mut self) -> Result<Description, CallError> {
        unimplemented!()
    }

    /// The graph that training would compile for features whose categories have these sizes
    /// (0 for a number), checked and priced.
    ///
    /// # Errors
    /// See [`CallError`]; also when the graph does not compile.
    pub async fn declare(
        &mut self,
        task: &Task,
        cardinalities: &[u32],
        hyperparameters: &serde_json::Value,
    ) -> Result<(Graph, Vec<Cost>), CallError> {
        let _ = (task, cardinalities, hyperparameters);
        unimplemented!()
    }

    /// Trains a model.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn train(&mut self, input: TrainInput) -> Result<Trained, CallError> {
        let _ = input;
        unimplemented!()
    }

    /// Predicts: for a classification a float64 column `probability:<class>` for each class, for
    /// a regression a float64 column `prediction`; as many rows as it was given.
    ///
    /// # Errors
    /// See [`CallError`]; also when the columns are others.
    pub async fn predict(
        &mut self,
        model: &Arc<Model>,
        rows: &RecordBatch,
    ) -> Result<RecordBatch, CallError> {
        let _ = (model, rows);
        unimplemented!()
    }
}

impl Adapter {
    /// Ends the instance and says what it used.
    pub fn finish(self) -> crate::call::Usage {
        unimplemented!()
    }
}
