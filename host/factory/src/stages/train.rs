//! Has the adapter learn from the training rows.

use std::sync::Arc;
use std::time::Instant;

use sandcast_audit::Digest;
use sandcast_kernels::{Device, Precision};
use sandcast_sandbox::{Checkpointing, Model, Task, TrainInput, Trained as AdapterTrained};
use serde::{Deserialize, Serialize};

use super::examples::{Examples, Part, arrow_stop};
use super::line::{Halt, Line, Output, StageNotes, Stop};
use super::permit::Permitted;
use crate::report;
use crate::run::RunEvent;

/// The name of the stage.
const STAGE: &str = "train";

/// A model that has learnt, and has not been judged.
pub(crate) struct Trained {
    pub(crate) permitted: Permitted,
    pub(crate) output: TrainOutput,
    /// The rows and the model, if they are in memory anyway.
    pub(crate) examples: Option<Examples>,
    pub(crate) model: Option<Arc<Model>>,
}

/// What training came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainOutput {
    pub(crate) artifact: Digest,
    pub(crate) artifact_bytes: u64,
    pub(crate) task: Task,
    pub(crate) rows_training: u64,
    pub(crate) rows_validation: u64,
    pub(crate) rows_test: u64,
    pub(crate) parameters: u64,
    pub(crate) seconds: f64,
    pub(crate) device: String,
    pub(crate) epochs: Vec<report::Epoch>,
    pub(crate) best_epoch: Option<u32>,
    pub(crate) precision: Precision,
    /// Steps of an attempt that was cut off, which this one went on from.
    pub(crate) resumed_after: Option<u64>,
}

impl Output for TrainOutput {
    fn blobs(&self) -> Vec<Digest> {
        vec![self.artifact]
    }
}

pub(crate) async fn train(line: &Line<'_>, permitted: Permitted) -> Result<Trained, Halt> {
    let mut in_memory = None;
    let output = line
        .stage(STAGE, async {
            let data = permitted.validated.validation.passed.digest;
            let features: Vec<&str> = permitted
                .features
                .iter()
                .map(|field| field.name.as_str())
                .collect();
            let device = line.workspace.sandbox().device();
            let device = device
                .in_precision(line.sections().train.precision)
                .map_err(|error| line.rejected_at("train.precision", &error.to_string(), None))?;
            // Another kind of device computes other bits.
            let numbers = format!("{} {}", device.kind(), device.precision());
            let key = line.key(
                STAGE,
                &[
                    data.as_bytes(),
                    features.join("\n").as_bytes(),
                    numbers.as_bytes(),
                ],
            );
            let learnt = async {
                let (output, examples, model) = learn(line, &permitted, &device).await?;
                in_memory = Some((examples, model));
                Ok(output)
            };
            let kept = line.kept::<TrainOutput>(STAGE, &key, learnt).await?;
            tell(line, &kept.output);
            let rows = report::count(kept.output.rows_training);
            let mut message = match kept.output.epochs.len() {
                0 => format!("{rows} rows"),
                epochs => format!("{rows} rows, {epochs} epochs"),
            };
            if let Some(steps) = kept.output.resumed_after.filter(|_| !kept.cached) {
                let steps = report::count(steps);
                message.push_str(&format!(", gone on with after step {steps}"));
            }
            let notes = StageNotes {
                key: Some(key),
                output: Some(kept.output.artifact),
                cached: kept.cached,
                rows_in: Some(permitted.validated.validation.rows_passed),
                rows_out: Some(kept.output.rows_training),
                rows_quarantined: None,
                message,
            };
            Ok((kept.output, notes))
        })
        .await?;
    let (examples, model) = in_memory.unzip();
    Ok(Trained {
        permitted,
        output,
        examples,
        model,
    })
}

async fn learn(
    line: &Line<'_>,
    permitted: &Permitted,
    device: &Device,
) -> Result<(TrainOutput, Examples, Arc<Model>), Stop> {
    let sections = line.sections();
    let stop = |error| Stop::of(STAGE, &error);
    let plugin = permitted
        .validated
        .connected
        .loaded
        .plugin(&sections.train.plugin)?;
    let examples = Examples::read(line, STAGE, permitted).await?;
    let mut adapter = plugin.adapter(&line.context(STAGE)).await.map_err(stop)?;
    let described = adapter.describe().await.map_err(stop)?;
    if !described.tasks.contains(&sections.train.task) {
        let message = format!(
            "the adapter `{}` does not learn this task",
            sections.train.plugin
        );
        return Err(line.rejected_at("train.task", &message, None));
    }
    let validation = examples
        .learnable(Part::Validation)
        .map_err(arrow_stop(STAGE))?;
    let observer = Arc::clone(&line.observer);
    let input = TrainInput {
        task: examples.task.clone(),
        hyperparameters: sections.train.hyperparameters.clone(),
        seed: sections.seed,
        training: examples
            .learnable(Part::Training)
            .map_err(arrow_stop(STAGE))?,
        validation: (examples.count(Part::Validation) > 0).then_some(validation),
        progress: Some(Arc::new(move |progress| {
            observer.notice(&RunEvent::Training { progress });
        })),
        checkpoints: line.checkpoint_every.map(|every| Checkpointing {
            every,
            resume: !line.fresh,
        }),
        precision: device.precision(),
    };
    let began = Instant::now();
    let AdapterTrained { model, report, .. } = adapter.train(input).await.map_err(stop)?;
    let seconds = began.elapsed().as_secs_f64();
    adapter.finish().map_err(stop)?;
    let bytes = model.to_bytes();
    // What is judged is what is served: strict, whatever it was trained in.
    let model = match device.precision() {
        Precision::F32Strict => model,
        _ => {
            let sandbox = line.workspace.sandbox();
            let strict = Model::from_bytes(&bytes, sandbox);
            Arc::new(strict.map_err(|error| Stop::host(STAGE, error.to_string()))?)
        }
    };
    let artifact = line.workspace.estate().put(&bytes).await?;
    let epochs = report
        .iter()
        .flat_map(|report| &report.epochs)
        .map(|epoch| report::Epoch {
            epoch: epoch.epoch,
            training_loss: epoch.train_loss,
            validation_loss: epoch.validation_loss,
        });
    let output = TrainOutput {
        artifact,
        artifact_bytes: bytes.len() as u64,
        task: examples.task.clone(),
        rows_training: examples.count(Part::Training),
        rows_validation: examples.count(Part::Validation),
        rows_test: examples.count(Part::Test),
        parameters: model.parameter_count(),
        seconds,
        device: device.name().to_owned(),
        epochs: epochs.collect(),
        best_epoch: report.as_ref().map(|report| report.best_epoch),
        precision: device.precision(),
        resumed_after: report.as_ref().and_then(|report| report.resumed_after),
    };
    Ok((output, examples, model))
}

fn tell(line: &Line<'_>, output: &TrainOutput) {
    let sections = line.sections();
    let parameters = sections.train.hyperparameters.as_object();
    let hyperparameters = parameters.into_iter().flatten().map(|(name, value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), text)
    });
    let manifest = line.components.get(&sections.train.plugin);
    let facts = manifest.and_then(|component| component.inspection.manifest.adapter.as_ref());
    let training = report::Training {
        adapter: sections.train.plugin.clone(),
        task: serde_json::to_value(output.task.kind)
            .ok()
            .and_then(|kind| kind.as_str().map(str::to_owned))
            .unwrap_or_default(),
        target: output.task.target.clone(),
        features: output
            .task
            .features
            .iter()
            .map(|field| field.name.clone())
            .collect(),
        rows_training: output.rows_training,
        rows_validation: output.rows_validation,
        rows_test: output.rows_test,
        seconds: output.seconds,
        device: output.device.clone(),
        precision: output.precision.to_string(),
        parameters: output.parameters,
        epochs: output.epochs.clone(),
        best_epoch: output.best_epoch,
        hyperparameters: hyperparameters.collect(),
    };
    let model = report::Model {
        name: Some(sections.register.model.clone()),
        digest: output.artifact.to_string(),
        bytes: output.artifact_bytes,
        data_sourcing: facts.map(|facts| facts.data_sourcing.clone()),
        intended_use: facts.map(|facts| facts.intended_use.clone()),
        update_cadence: facts.map(|facts| facts.update_cadence.clone()),
    };
    line.write_report(|report| {
        report.training = Some(training);
        report.model = Some(model);
    });
}
