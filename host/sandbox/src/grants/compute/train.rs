//! Training on datasets and on given inputs: on a thread of its own, looking between steps whether it was cancelled or is over
//! its time.

use std::sync::Arc;
use std::time::Instant;

use arrow::record_batch::RecordBatch;
use sandcast_kernels::{
    Feeds, Program, Progress, RunError, RunPrice, Schedule, Session, StopReason, Tensor, TrainPlan,
};
use wasmtime::component::Resource;

use super::checkpoints::Checkpoints;
use super::encode::{self, Binding};
use super::host::{dense_bytes, or_answer, run_failure, shared_session};
use super::watch::{Stopped, Watch};
use super::{SessionHandle, failure, graph, invalid, peak_bytes, rows_of};
use crate::bindings::adapter::sandcast::plugin::compute;
use crate::bindings::adapter::sandcast::plugin::types::{Failure, FailureCode};
use crate::columns::Dataset;
use crate::roles::{EpochReport, TrainProgress, TrainReport};
use crate::state::State;

/// The name under which the cost of a training step is listed.
const LOSS_ENTRY: &str = "loss";

/// Trains a session on datasets.
pub(super) async fn train(
    state: &mut State,
    session: &Resource<SessionHandle>,
    training: Dataset,
    validation: Option<Dataset>,
    plan: compute::TrainPlan,
) -> wasmtime::Result<Result<compute::TrainReport, Failure>> {
    let handle = state.table.get(session)?;
    if handle.shared {
        return Ok(Err(shared_session()));
    }
    let bindings = Arc::clone(&handle.bindings);
    let program = Arc::clone(handle.session()?.program());
    let Some(inputs) = graph::inputs_of_loss(program.graph()) else {
        return Ok(Err(no_loss()));
    };
    let judged = validation
        .as_ref()
        .map_or(0, |dataset| rows_of(&dataset.batches));
    let price = handle.session()?.price_of_validation(judged as usize);
    let rows = rows_of(&training.batches).saturating_add(judged);
    let scratch = encode::bytes(&bindings, &inputs, rows)
        .saturating_add(peak_bytes(&program, LOSS_ENTRY).max(price.bytes));
    let flops = flops_of(&plan, rows_of(&training.batches), &program, price);
    let material = Material::Rows {
        bindings,
        inputs,
        training: training.batches,
        validation: validation.map(|dataset| dataset.batches),
    };
    work(state, session, material, (scratch, flops), &plan).await
}

/// Trains a session on given inputs.
pub(super) async fn train_on(
    state: &mut State,
    session: &Resource<SessionHandle>,
    training: Feeds,
    validation: Option<Feeds>,
    plan: compute::TrainPlan,
) -> wasmtime::Result<Result<compute::TrainReport, Failure>> {
    let handle = state.table.get(session)?;
    if handle.shared {
        return Ok(Err(shared_session()));
    }
    let program = Arc::clone(handle.session()?.program());
    if program.graph().loss.is_none() {
        return Ok(Err(no_loss()));
    }
    // Windows are learnt from as they are; judged on, each is held by itself. The order of the
    // rows is held twice.
    let held = training
        .values()
        .map(|tensor| (tensor.elements() as u64).saturating_mul(4))
        .fold(0, u64::saturating_add);
    let rows = training.values().map(Tensor::rows).max().unwrap_or(0) as u64;
    let judged = validation.as_ref().map_or(0, |feeds| {
        let held: usize = feeds.values().map(Tensor::elements).sum();
        dense_bytes(feeds).saturating_add((held as u64).saturating_mul(4))
    });
    let judged_rows = validation.as_ref().map_or(0, |feeds| {
        feeds.values().map(Tensor::rows).max().unwrap_or(0)
    });
    let price = handle.session()?.price_of_validation(judged_rows);
    let scratch = held
        .saturating_add(judged)
        .saturating_add(rows.saturating_mul(8))
        .saturating_add(peak_bytes(&program, LOSS_ENTRY).max(price.bytes));
    let flops = flops_of(&plan, rows, &program, price);
    let material = Material::Feeds {
        training,
        validation,
    };
    work(state, session, material, (scratch, flops), &plan).await
}

/// Trains on a thread of its own, within the budget.
async fn work(
    state: &mut State,
    session: &Resource<SessionHandle>,
    material: Material,
    (scratch, flops): (u64, u64),
    plan: &compute::TrainPlan,
) -> wasmtime::Result<Result<compute::TrainReport, Failure>> {
    let budget = &mut state.compute.budget;
    let taken = budget
        .check_time()
        .and_then(|()| budget.take_run(scratch, flops));
    or_answer!(taken.map_err(|overdrawn| state.overdrawn(overdrawn)));

    // The session moves to the other thread and back. Nobody else can hold it: it is shared only
    // once its model is made.
    let Some(owned) = state
        .table
        .get_mut(session)?
        .session
        .take()
        .and_then(Arc::into_inner)
    else {
        return Err(wasmtime::Error::msg(
            "a session that is to be trained is in use elsewhere",
        ));
    };

    // What a checkpoint takes while it is written: a copy of the session and the file. A training
    // that has no room for it goes on without.
    let room = super::session_bytes(owned.program()).saturating_mul(3);
    let mut checkpoints = state.compute.checkpoints.clone();
    let kept = checkpoints.is_some() && state.compute.budget.take_memory(room).is_ok();
    if !kept && checkpoints.take().is_some() {
        tracing::info!("a training is not kept: the memory that is granted has no room for it");
    }
    let (watch, cancel) = Watch::new(state);
    let job = Job {
        session: owned,
        plan: plan_of(plan),
        checkpoints: checkpoints.map(|(cache, how)| Checkpoints::new(cache, how)),
        watch,
    };
    let started = Instant::now();
    let done = tokio::task::spawn_blocking(move || job.run(material)).await;
    drop(cancel);
    state.computed(started);
    state.compute.budget.give_memory(scratch);
    if kept {
        state.compute.budget.give_memory(room);
    }

    let (session_back, outcome) = done.map_err(|error| {
        wasmtime::Error::msg(format!(
            "the training thread ended without an answer: {error}"
        ))
    })?;
    let handle = state.table.get_mut(session)?;
    handle.session = Some(Arc::new(session_back));
    let mut report = match outcome {
        Ok(report) => report,
        Err(stopped) => return Ok(Err(stopped.failure(state))),
    };
    handle.report = Some(report.clone());
    state.ledger.saw(|| {
        let losses = report.epochs.iter();
        let losses = losses.flat_map(|it| [it.train_loss, it.validation_loss.unwrap_or(-1.0)]);
        losses.flat_map(f64::to_le_bytes).collect::<Vec<u8>>()
    });
    // How long an epoch took is the one thing in a report that the next training will not have.
    let took = || report.epochs.iter().map(|epoch| epoch.seconds).collect();
    let seconds: Vec<f64> = state.ledger.outside(took)?;
    for (epoch, seconds) in report.epochs.iter_mut().zip(seconds) {
        epoch.seconds = seconds;
    }
    Ok(Ok(report_of(&report)))
}

/// Everything the other thread needs.
struct Job {
    session: Session,
    plan: TrainPlan,
    checkpoints: Option<Checkpoints>,
    watch: Watch,
}

/// What is learnt from.
enum Material {
    /// Rows that become inputs through bindings.
    Rows {
        bindings: Arc<[Binding]>,
        inputs: Vec<String>,
        training: Arc<[RecordBatch]>,
        validation: Option<Arc<[RecordBatch]>>,
    },
    /// Inputs as they are.
    Feeds {
        training: Feeds,
        validation: Option<Feeds>,
    },
}

impl Material {
    /// The inputs to learn from and those to judge by.
    fn into_feeds(self) -> Result<(Feeds, Option<Feeds>), Stopped> {
        match self {
            Material::Rows {
                bindings,
                inputs,
                training,
                validation,
            } => {
                let feeds = |batches: &[RecordBatch]| {
                    encode::feeds(&bindings, &inputs, batches)
                        .map_err(|error| Stopped::Failed(invalid(error)))
                };
                let validation = validation.as_deref().map(feeds).transpose()?;
                Ok((feeds(&training)?, validation))
            }
            Material::Feeds {
                training,
                validation,
            } => Ok((training, validation)),
        }
    }
}

impl Job {
    fn run(mut self, material: Material) -> (Session, Result<TrainReport, Stopped>) {
        let outcome = self.train(material);
        (self.session, outcome)
    }

    fn train(&mut self, material: Material) -> Result<TrainReport, Stopped> {
        let (training, validation) = material.into_feeds()?;
        let judging = self.watch.of_runs();
        self.session.look_while_judging(move || judging.look());
        let watch = &mut self.watch;
        let mut look = |now: Progress<'_>| {
            watch.look(now.report.is_some(), || TrainProgress {
                step: now.step,
                steps: now.steps,
                epoch: now.epoch,
                epochs: now.epochs,
                report: now.report.map(EpochReport::from),
            })
        };
        let (session, validation) = (&mut self.session, validation.as_ref());
        let trained = match &mut self.checkpoints {
            Some(store) => session.train_kept(&training, validation, &self.plan, store, &mut look),
            None => session.train(&training, validation, &self.plan, &mut look),
        };
        match trained {
            Ok(report) => Ok(TrainReport::from(&report)),
            Err(RunError::Stopped {
                reason: StopReason::Budget { .. },
                ..
            }) => Err(Stopped::OutOfTime),
            Err(error) => Err(Stopped::Failed(run_failure(&error))),
        }
    }
}

/// The operations of a training that goes on to the end of its plan.
fn flops_of(plan: &compute::TrainPlan, rows: u64, program: &Program, judging: RunPrice) -> u64 {
    let step = program.costs().iter().find(|cost| cost.entry == LOSS_ENTRY);
    let rows = plan.epoch_rows.map_or(rows, u64::from);
    let batches = rows.div_ceil(u64::from(plan.batch_rows).max(1));
    let epoch = step.map_or(0, |step| step.flops.saturating_mul(batches));
    let epoch = epoch.saturating_add(judging.flops);
    epoch.saturating_mul(u64::from(plan.epochs))
}

fn no_loss() -> Failure {
    failure(
        FailureCode::Unsupported,
        "the program declares no loss, so it cannot be trained",
    )
}

fn plan_of(plan: &compute::TrainPlan) -> TrainPlan {
    TrainPlan {
        epochs: plan.epochs,
        epoch_rows: plan.epoch_rows,
        batch_rows: plan.batch_rows,
        accumulate_steps: plan.accumulate_steps,
        learning_rate: plan.learning_rate,
        schedule: match plan.schedule {
            compute::Schedule::Constant => Schedule::Constant,
            compute::Schedule::Cosine(cosine) => Schedule::Cosine {
                warmup_steps: cosine.warmup_steps,
                floor: cosine.floor,
            },
            compute::Schedule::Linear(linear) => Schedule::Linear {
                warmup_steps: linear.warmup_steps,
                floor: linear.floor,
            },
            compute::Schedule::Exponential(exponential) => Schedule::Exponential {
                warmup_steps: exponential.warmup_steps,
                floor: exponential.floor,
            },
            compute::Schedule::Stepwise(stepwise) => Schedule::Stepwise {
                every_steps: stepwise.every_steps,
                factor: stepwise.factor,
            },
        },
        clip_norm: plan.clip_norm,
        patience: plan.patience,
        shuffle: plan.shuffle,
    }
}

fn report_of(report: &TrainReport) -> compute::TrainReport {
    compute::TrainReport {
        epochs: report
            .epochs
            .iter()
            .map(|epoch| compute::EpochReport {
                epoch: epoch.epoch,
                train_loss: epoch.train_loss,
                validation_loss: epoch.validation_loss,
                learning_rate: epoch.learning_rate,
                seconds: epoch.seconds,
            })
            .collect(),
        best_epoch: report.best_epoch,
        steps: report.steps,
        rows: report.rows,
    }
}
