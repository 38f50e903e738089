//! The functions of `sandcast:plugin/models`.

use wasmtime::component::Resource;

use super::{ComputeView, ForestHandle, ModelHandle, Predictor, SessionHandle, TrainingHandle};
use crate::bindings::adapter::sandcast::plugin::types;
use crate::bindings::adapter::sandcast::plugin::{compute, models};
use crate::columns::Dataset;
use crate::model::{Task, TaskKind};

impl models::Host for ComputeView<'_> {}

impl models::HostTraining for ComputeView<'_> {
    fn task(&mut self, training: Resource<TrainingHandle>) -> wasmtime::Result<models::Task> {
        self.0.ledger.count("models.training-task");
        Ok((&self.0.table.get(&training)?.task).into())
    }

    fn hyperparameters(&mut self, training: Resource<TrainingHandle>) -> wasmtime::Result<String> {
        self.0.ledger.count("models.training-hyperparameters");
        Ok(self.0.table.get(&training)?.hyperparameters.clone())
    }

    fn seed(&mut self, training: Resource<TrainingHandle>) -> wasmtime::Result<u64> {
        self.0.ledger.count("models.training-seed");
        Ok(self.0.table.get(&training)?.seed)
    }

    fn training_rows(
        &mut self,
        training: Resource<TrainingHandle>,
    ) -> wasmtime::Result<Resource<Dataset>> {
        self.0.ledger.count("models.training-rows");
        let rows = self.0.table.get(&training)?.training.clone();
        Ok(self.0.table.push(rows)?)
    }

    fn validation_rows(
        &mut self,
        training: Resource<TrainingHandle>,
    ) -> wasmtime::Result<Option<Resource<Dataset>>> {
        self.0.ledger.count("models.validation-rows");
        let rows = self.0.table.get(&training)?.validation.clone();
        Ok(rows.map(|rows| self.0.table.push(rows)).transpose()?)
    }

    fn drop(&mut self, training: Resource<TrainingHandle>) -> wasmtime::Result<()> {
        self.0.table.delete(training)?;
        Ok(())
    }
}

impl models::HostModel for ComputeView<'_> {
    fn task(&mut self, model: Resource<ModelHandle>) -> wasmtime::Result<models::Task> {
        self.0.ledger.count("models.model-task");
        Ok(self.0.table.get(&model)?.model.task().into())
    }

    fn state(&mut self, model: Resource<ModelHandle>) -> wasmtime::Result<Vec<u8>> {
        self.0.ledger.count("models.model-state");
        let state = self.0.table.get(&model)?.model.state().to_vec();
        self.0.ledger.count_bytes_in(state.len());
        Ok(state)
    }

    fn predictor(&mut self, model: Resource<ModelHandle>) -> wasmtime::Result<compute::Predictor> {
        self.0.ledger.count("models.model-predictor");
        if let Err(overdrawn) = self.0.compute.budget.take_handle() {
            let failure = self.0.overdrawn(overdrawn);
            return Err(wasmtime::Error::msg(failure.message));
        }
        // What predicts is the model's, shared by all instances; nothing is charged for it.
        let predictor = self.0.table.get(&model)?.model.predictor().clone();
        Ok(match predictor {
            Predictor::Session { session, bindings } => {
                compute::Predictor::Session(self.0.table.push(SessionHandle {
                    session: Some(session),
                    bindings,
                    report: None,
                    shared: true,
                    charged: 0,
                    bound: 0,
                })?)
            }
            Predictor::Forest { forest, columns } => {
                compute::Predictor::Forest(self.0.table.push(ForestHandle {
                    forest,
                    columns,
                    report: None,
                    charged: 0,
                })?)
            }
        })
    }

    fn wrote(
        &mut self,
        _model: Resource<ModelHandle>,
        row: u32,
        text: String,
    ) -> wasmtime::Result<()> {
        self.0.ledger.count("models.model-wrote");
        self.0.ledger.count_bytes_out(text.len());
        let noted = match &mut self.0.compute.writing {
            Some(writing) => writing.wrote(row, &text),
            // Nobody generates, so nobody watches.
            None => Some(()),
        };
        noted.ok_or_else(|| {
            wasmtime::Error::msg(format!(
                "it says that it wrote text for row {row}, which is not there, or too much text"
            ))
        })
    }

    fn drop(&mut self, model: Resource<ModelHandle>) -> wasmtime::Result<()> {
        self.0.table.delete(model)?;
        Ok(())
    }
}

impl From<&Task> for models::Task {
    fn from(task: &Task) -> Self {
        Self {
            kind: match task.kind {
                TaskKind::BinaryClassification => models::TaskKind::BinaryClassification,
                TaskKind::MulticlassClassification => models::TaskKind::MulticlassClassification,
                TaskKind::Regression => models::TaskKind::Regression,
                TaskKind::AnomalyDetection => models::TaskKind::AnomalyDetection,
                TaskKind::Clustering => models::TaskKind::Clustering,
                TaskKind::TextGeneration => models::TaskKind::TextGeneration,
            },
            features: task
                .features
                .iter()
                .cloned()
                .map(types::Field::from)
                .collect(),
            target: task.target.clone(),
            classes: task.classes.clone(),
            weight: task.weight.clone(),
        }
    }
}

impl From<models::TaskKind> for TaskKind {
    fn from(kind: models::TaskKind) -> Self {
        match kind {
            models::TaskKind::BinaryClassification => TaskKind::BinaryClassification,
            models::TaskKind::MulticlassClassification => TaskKind::MulticlassClassification,
            models::TaskKind::Regression => TaskKind::Regression,
            models::TaskKind::AnomalyDetection => TaskKind::AnomalyDetection,
            models::TaskKind::Clustering => TaskKind::Clustering,
            models::TaskKind::TextGeneration => TaskKind::TextGeneration,
        }
    }
}
