//! Forests, by `compute.forest`: trained and asked through columns, like sessions.

use std::sync::Arc;
use std::time::Instant;

use arrow::record_batch::RecordBatch;
use sandcast_kernels::trees::{
    CategoryPlan, Examples, Forest, ForestCaps, ForestError, ForestJob, ForestPlan, ForestProgress,
    Objective, Table, TableSize, Targets, Workers,
};
use sandcast_kernels::{Feeds, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use wasmtime::component::Resource;

use super::encode::{self, Binding, Category, EncodeError, Encoding};
use super::host::{MAX_DIAGNOSTIC_BYTES, or_answer};
use super::watch::{RunWatch, Stopped, Watch};
use super::{
    ComputeView, INLINE_OPERATIONS, INLINE_ROWS, TensorHandle, failure, host, invalid, rows_of,
};
use crate::bindings::adapter::sandcast::plugin::compute;
use crate::bindings::adapter::sandcast::plugin::types::{Failure, FailureCode};
use crate::columns::Batch;
use crate::roles::{EpochReport, TrainProgress, TrainReport};
use crate::state::State;
use crate::text;

/// What the columns of a forest are bound to while they are made into numbers.
const NUMBERS: &str = "numbers";
const CATEGORIES: &str = "categories";
const TARGET: &str = "target";
const WEIGHT: &str = "weight";

/// Copies of a prediction that there are at one time.
const PREDICTION_COPIES: u64 = 3;

/// What asking a tree of a row is taken for.
const OPERATIONS_OF_TREE: u64 = 20;

/// `compute.forest` in a guest's hands.
#[expect(
    unreachable_pub,
    reason = "generated code re-exports it under its name in the contract"
)]
pub struct ForestHandle {
    pub(super) forest: Arc<Forest>,
    pub(super) columns: Arc<ForestColumns>,
    /// What its training reported.
    pub(super) report: Option<TrainReport>,
    pub(super) charged: u64,
}

/// The columns that a forest learns from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForestColumns {
    /// Columns of numbers.
    numbers: Vec<String>,
    /// Columns of categories.
    categories: Vec<Category>,
}

impl ForestColumns {
    /// Checks the columns by themselves, and against the forest that they are for.
    pub(crate) fn check(&self, forest: &Forest) -> Result<(), String> {
        let given = (self.numbers.len(), self.categories.len());
        if given != forest.columns() {
            return Err(format!(
                "there are {} columns of numbers and {} of categories for a forest of {} and {}",
                given.0,
                given.1,
                forest.columns().0,
                forest.columns().1
            ));
        }
        encode::check(&self.bindings(), INPUTS.into_iter()).map_err(|error| error.to_string())
    }

    fn bindings(&self) -> Vec<Binding> {
        vec![
            bound(NUMBERS, Encoding::Numbers(self.numbers.clone())),
            bound(CATEGORIES, Encoding::Categories(self.categories.clone())),
        ]
    }
}

/// All that may be bound.
const INPUTS: [&str; 4] = [NUMBERS, CATEGORIES, TARGET, WEIGHT];

fn bound(input: &str, encoding: Encoding) -> Binding {
    Binding {
        input: input.to_owned(),
        encoding,
    }
}

fn names(bindings: &[Binding]) -> Vec<String> {
    bindings.iter().map(|one| one.input.clone()).collect()
}

/// Rows as numbers, made from columns.
struct Encoded {
    feeds: Feeds,
    rows: usize,
}

impl Encoded {
    fn of(bindings: &[Binding], batches: &[RecordBatch]) -> Result<Self, EncodeError> {
        Ok(Self {
            feeds: encode::feeds(bindings, &names(bindings), batches)?,
            rows: batches.iter().map(RecordBatch::num_rows).sum(),
        })
    }

    fn f32(&self, input: &str) -> &[f32] {
        match self.feeds.get(input).map(Tensor::data) {
            Some(TensorData::F32(numbers)) => numbers,
            _ => &[],
        }
    }

    fn i32(&self, input: &str) -> &[i32] {
        match self.feeds.get(input).map(Tensor::data) {
            Some(TensorData::I32(numbers)) => numbers,
            _ => &[],
        }
    }

    fn table(&self, columns: &ForestColumns) -> Result<Table<'_>, ForestError> {
        Table::new(
            self.rows,
            (columns.numbers.len(), self.f32(NUMBERS)),
            (columns.categories.len(), self.i32(CATEGORIES)),
        )
    }

    fn examples(&self, columns: &ForestColumns) -> Result<Examples<'_>, ForestError> {
        Ok(Examples {
            table: self.table(columns)?,
            targets: match self.feeds.get(TARGET).map(Tensor::data) {
                Some(TensorData::I32(labels)) => Targets::Labels(labels),
                _ => Targets::Numbers(self.f32(TARGET)),
            },
            weights: self.feeds.contains_key(WEIGHT).then(|| self.f32(WEIGHT)),
        })
    }
}

impl compute::HostForest for ComputeView<'_> {
    async fn train(
        &mut self,
        examples: compute::ForestExamples,
        plan: compute::ForestPlan,
        seed: u64,
    ) -> wasmtime::Result<Result<compute::TrainedForest, Failure>> {
        self.0.ledger.count("compute.forest-train");
        let training = self.0.table.delete(examples.training)?;
        let validation = match examples.validation {
            Some(validation) => Some(self.0.table.delete(validation)?),
            None => None,
        };
        let columns = ForestColumns {
            numbers: examples.columns.numbers,
            categories: examples
                .columns
                .categories
                .into_iter()
                .map(host::category)
                .collect(),
        };
        let mut bindings = columns.bindings();
        let (target, labels) = match examples.target {
            compute::ForestTarget::Number(column) => (Encoding::Target(column), None),
            compute::ForestTarget::Label(category) => {
                let labels = category.vocabulary.len();
                (Encoding::Labels(host::category(category)), Some(labels))
            }
        };
        bindings.push(bound(TARGET, target));
        if let Some(weight) = examples.weight {
            bindings.push(bound(WEIGHT, Encoding::Target(weight)));
        }
        or_answer!(encode::check(&bindings, INPUTS.into_iter()).map_err(invalid));
        let plan = or_answer!(plan_of(plan, labels));
        let size = TableSize {
            rows: rows_of(&training.batches),
            validation_rows: validation
                .as_ref()
                .map_or(0, |dataset| rows_of(&dataset.batches)),
            numbers: columns.numbers.len() as u64,
            categories: columns.categories.len() as u64,
        };
        let caps = caps(self.0.compute.budget.memory_limit());
        let rows = size.rows.saturating_add(size.validation_rows);
        let scratch = encode::bytes(&bindings, &names(&bindings), rows)
            .saturating_add(plan.training_bytes(size));
        let flops = training_flops(&plan, size);
        let budget = &mut self.0.compute.budget;
        let taken = budget
            .check_time()
            .and_then(|()| budget.take_handle())
            .and_then(|()| {
                budget
                    .take_run(scratch, flops)
                    .inspect_err(|_| budget.give_handle())
            });
        or_answer!(taken.map_err(|overdrawn| self.0.overdrawn(overdrawn)));

        let (watch, cancel) = Watch::new(self.0);
        let columns = Arc::new(columns);
        let job = Job {
            columns: Arc::clone(&columns),
            bindings,
            training: training.batches,
            validation: validation.map(|dataset| dataset.batches),
            plan,
            caps,
            seed,
            workers: self.0.compute.workers.clone(),
            watch,
        };
        let started = Instant::now();
        let done = tokio::task::spawn_blocking(move || job.run()).await;
        drop(cancel);
        self.0.computed(started);
        self.0.compute.budget.give_memory(scratch);

        let outcome = done.map_err(|error| {
            wasmtime::Error::msg(format!(
                "the training thread ended without an answer: {error}"
            ))
        })?;
        let (forest, report) = match outcome {
            Ok(made) => made,
            Err(stopped) => {
                self.0.compute.budget.give_handle();
                return Ok(Err(stopped.failure(self.0)));
            }
        };
        let charged = forest
            .memory_bytes()
            .saturating_add(encode::held_bytes(&columns.bindings()));
        let kept = self.0.compute.budget.take_memory(charged);
        or_answer!(kept.map_err(|overdrawn| {
            self.0.compute.budget.give_handle();
            self.0.overdrawn(overdrawn)
        }));
        let mut answer = report_of(&report);
        self.0.ledger.saw(|| {
            let losses = answer.rounds.iter();
            let losses = losses.flat_map(|it| [it.train_loss, it.validation_loss.unwrap_or(-1.0)]);
            losses.flat_map(f64::to_le_bytes).collect::<Vec<u8>>()
        });
        // How long a round took is the one thing in a report that the next training will not have.
        let took = || answer.rounds.iter().map(|round| round.seconds).collect();
        let seconds: Vec<f64> = self.0.ledger.outside(took)?;
        for (round, seconds) in answer.rounds.iter_mut().zip(seconds) {
            round.seconds = seconds;
        }
        let forest = self.0.table.push(ForestHandle {
            forest: Arc::new(forest),
            columns,
            report: Some(train_report(&report, size.rows)),
            charged,
        })?;
        Ok(Ok(compute::TrainedForest {
            forest,
            report: answer,
        }))
    }

    async fn predict(
        &mut self,
        forest: Resource<ForestHandle>,
        rows: Resource<Batch>,
    ) -> wasmtime::Result<Result<Resource<TensorHandle>, Failure>> {
        self.0.ledger.count("compute.forest-predict");
        let batch = self.0.take_batch(rows)?;
        let handle = self.0.table.get(&forest)?;
        let (forest, columns) = (Arc::clone(&handle.forest), Arc::clone(&handle.columns));
        let rows = batch.num_rows();
        let trees = forest.trees() as u64;
        let bindings = columns.bindings();
        let answers = (forest.outputs() as u64 + 1)
            .saturating_mul(rows as u64)
            .saturating_mul(4 * PREDICTION_COPIES);
        let scratch =
            encode::bytes(&bindings, &names(&bindings), rows as u64).saturating_add(answers);
        // A tree is gone down from step to step, which takes longer than an operation.
        let operations = (rows as u64)
            .saturating_mul(trees)
            .saturating_mul(OPERATIONS_OF_TREE);
        let budget = &mut self.0.compute.budget;
        let taken = budget
            .check_time()
            .and_then(|()| budget.take_run(scratch, operations));
        or_answer!(taken.map_err(|overdrawn| self.0.overdrawn(overdrawn)));
        let workers = self.0.compute.workers.clone();
        let started = Instant::now();
        let (watch, cancel) = RunWatch::new(self.0);
        let work = move || predict(&forest, &columns, &bindings, batch, &workers, &watch);
        let predicted = if rows <= INLINE_ROWS && operations <= INLINE_OPERATIONS {
            work()
        } else {
            match tokio::task::spawn_blocking(work).await {
                Ok(predicted) => predicted,
                Err(error) => Err(failure(FailureCode::Internal, error.to_string())),
            }
        };
        drop(cancel);
        self.0.computed(started);
        self.0.compute.budget.give_memory(scratch);
        if matches!(&predicted, Err(failure) if failure.code == FailureCode::Exhausted) {
            // Stopped since there is no time left, which is a denial like any other.
            let checked = self.0.compute.budget.check_time();
            or_answer!(checked.map_err(|overdrawn| self.0.overdrawn(overdrawn)));
        }
        let tensor = or_answer!(predicted);
        self.keep(tensor)
    }

    fn importance(
        &mut self,
        forest: Resource<ForestHandle>,
    ) -> wasmtime::Result<Vec<compute::Importance>> {
        self.0.ledger.count("compute.forest-importance");
        let handle = self.0.table.get(&forest)?;
        let numbers = handle.columns.numbers.iter();
        let categories = handle.columns.categories.iter();
        let names = numbers.chain(categories.map(|category| &category.column));
        Ok(names
            .zip(handle.forest.importance())
            .map(|(column, importance)| compute::Importance {
                column: column.clone(),
                gain: importance.gain,
                splits: importance.splits,
            })
            .collect())
    }

    fn drop(&mut self, forest: Resource<ForestHandle>) -> wasmtime::Result<()> {
        let forest = self.0.table.delete(forest)?;
        self.0.compute.budget.give_memory(forest.charged);
        self.0.compute.budget.give_handle();
        Ok(())
    }
}

/// Everything the other thread needs.
struct Job {
    columns: Arc<ForestColumns>,
    bindings: Vec<Binding>,
    training: Arc<[RecordBatch]>,
    validation: Option<Arc<[RecordBatch]>>,
    plan: ForestPlan,
    caps: ForestCaps,
    seed: u64,
    workers: Workers,
    watch: Watch,
}

impl Job {
    fn run(mut self) -> Result<(Forest, Trained), Stopped> {
        let encoded = |batches: &[RecordBatch]| {
            Encoded::of(&self.bindings, batches).map_err(|error| Stopped::Failed(invalid(error)))
        };
        let failed = |error: &ForestError| Stopped::Failed(forest_failure(error));
        let training = encoded(&self.training)?;
        let validation = self.validation.as_deref().map(encoded).transpose()?;
        let job = ForestJob {
            training: training
                .examples(&self.columns)
                .map_err(|error| failed(&error))?,
            validation: validation
                .as_ref()
                .map(|encoded| encoded.examples(&self.columns))
                .transpose()
                .map_err(|error| failed(&error))?,
            plan: &self.plan,
            caps: &self.caps,
            seed: self.seed,
        };
        let rate = self.plan.learning_rate;
        let watch = &mut self.watch;
        let mut look = |now: ForestProgress<'_>| {
            watch.look(now.report.is_some(), || TrainProgress {
                step: u64::from(now.round - u32::from(now.report.is_none())),
                steps: u64::from(now.rounds),
                epoch: now.round,
                epochs: now.rounds,
                report: now.report.map(|round| epoch_of(round, rate)),
            })
        };
        match Forest::train(&job, &self.workers, &mut look) {
            Ok((forest, report)) => Ok((forest, Trained { report, rate })),
            Err(ForestError::Stopped { .. }) if self.watch.out_of_time => Err(Stopped::OutOfTime),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// What a training reported, and its learning rate.
struct Trained {
    report: sandcast_kernels::trees::ForestReport,
    rate: f32,
}

fn predict(
    forest: &Forest,
    columns: &ForestColumns,
    bindings: &[Binding],
    batch: RecordBatch,
    workers: &Workers,
    watch: &RunWatch,
) -> Result<Tensor, Failure> {
    let encoded = Encoded::of(bindings, &[batch]).map_err(invalid)?;
    let table = encoded
        .table(columns)
        .map_err(|error| forest_failure(&error))?;
    let mut answers = forest
        .predict_watched(&table, workers, &|| watch.look())
        .map_err(|error| forest_failure(&error))?;
    let mut width = forest.outputs();
    if forest.objective() == Objective::Logistic {
        answers = answers.iter().flat_map(|yes| [1.0 - yes, *yes]).collect();
        width = 2;
    }
    Tensor::from_f32(vec![encoded.rows, width], answers).map_err(invalid)
}

/// The operations of a training, at most: each row's gradients are added into the bins of each column, once
/// for each level that trees of so many leaves need.
fn training_flops(plan: &ForestPlan, size: TableSize) -> u64 {
    let columns = size.numbers.saturating_add(size.categories);
    let levels = u64::from(u32::BITS - plan.max_leaves.leading_zeros());
    let round = size
        .rows
        .saturating_mul(columns)
        .saturating_mul(levels)
        .saturating_mul(2);
    let rounds = u64::from(plan.rounds).saturating_mul(plan.objective.outputs() as u64);
    round.saturating_mul(rounds)
}

/// What a forest may ask for under a budget of so many bytes.
fn caps(memory_bytes: u64) -> ForestCaps {
    let default = ForestCaps::default();
    ForestCaps {
        bytes: default.bytes.min(memory_bytes),
        ..default
    }
}

fn plan_of(plan: compute::ForestPlan, labels: Option<usize>) -> Result<ForestPlan, Failure> {
    let objective = match (plan.objective, labels) {
        (compute::ForestObjective::Logistic, Some(labels)) if labels != 2 => {
            return Err(invalid(format!(
                "the logistic loss is of two labels, and the target has {labels}"
            )));
        }
        (compute::ForestObjective::Logistic, _) => Objective::Logistic,
        (compute::ForestObjective::Softmax, labels) => Objective::Softmax {
            classes: u32::try_from(labels.unwrap_or(0)).unwrap_or(u32::MAX),
        },
        (compute::ForestObjective::SquaredError, _) => Objective::SquaredError,
        (compute::ForestObjective::Huber(delta), _) => Objective::Huber { delta },
    };
    Ok(from_wire(plan, objective))
}

/// A declared plan as it is, with so many classes where it has labels.
pub(crate) fn declared(plan: compute::ForestPlan, classes: usize) -> Result<ForestPlan, String> {
    let labels = match plan.objective {
        compute::ForestObjective::Logistic | compute::ForestObjective::Softmax => Some(classes),
        compute::ForestObjective::SquaredError | compute::ForestObjective::Huber(_) => None,
    };
    let plan = plan_of(plan, labels).map_err(|failure| failure.message)?;
    plan.check(TableSize::default(), &ForestCaps::default())
        .map_err(|error| error.to_string())?;
    Ok(plan)
}

fn from_wire(plan: compute::ForestPlan, objective: Objective) -> ForestPlan {
    ForestPlan {
        objective,
        rounds: plan.rounds,
        learning_rate: plan.learning_rate,
        max_leaves: plan.max_leaves,
        max_depth: plan.max_depth,
        min_rows: plan.min_rows,
        min_hessian: plan.min_hessian,
        l1: plan.l1,
        l2: plan.l2,
        min_gain: plan.min_gain,
        max_bins: plan.max_bins,
        min_rows_in_bin: plan.min_rows_in_bin,
        feature_fraction: plan.feature_fraction,
        bagging_fraction: plan.bagging_fraction,
        bagging_rounds: plan.bagging_rounds,
        patience: plan.patience,
        categories: CategoryPlan {
            one_vs_rest: plan.categories.one_vs_rest,
            most: plan.categories.most,
            min_rows: plan.categories.min_rows,
            smoothing: plan.categories.smoothing,
            l2: plan.categories.l2,
        },
        class_weights: plan.class_weights,
    }
}

fn epoch_of(round: &sandcast_kernels::trees::RoundReport, learning_rate: f32) -> EpochReport {
    EpochReport {
        epoch: round.round,
        train_loss: round.train_loss,
        validation_loss: round.validation_loss,
        learning_rate,
        seconds: round.duration.as_secs_f64(),
    }
}

/// Rounds as the epochs that they are to whoever watches: each sees every row.
fn train_report(trained: &Trained, rows: u64) -> TrainReport {
    let rounds = &trained.report.rounds;
    TrainReport {
        epochs: rounds
            .iter()
            .map(|round| epoch_of(round, trained.rate))
            .collect(),
        best_epoch: trained.report.best_round,
        steps: rounds.len() as u64,
        rows: rows.saturating_mul(rounds.len() as u64),
        resumed_after: None,
    }
}

fn report_of(trained: &Trained) -> compute::ForestReport {
    compute::ForestReport {
        rounds: trained
            .report
            .rounds
            .iter()
            .map(|round| compute::RoundReport {
                round: round.round,
                train_loss: round.train_loss,
                validation_loss: round.validation_loss,
                leaves: round.leaves,
                seconds: round.duration.as_secs_f64(),
            })
            .collect(),
        best_round: trained.report.best_round,
    }
}

/// What a forest that failed is to the guest.
fn forest_failure(error: &ForestError) -> Failure {
    let code = match error {
        ForestError::Threads { .. } => FailureCode::Internal,
        ForestError::Stopped { .. } | ForestError::Unanswered { .. } => FailureCode::Exhausted,
        _ => FailureCode::InvalidInput,
    };
    failure(
        code,
        text::sentence(&error.to_string(), MAX_DIAGNOSTIC_BYTES),
    )
}

impl State {
    /// Takes a forest out of the guest's hands.
    pub(super) fn take_forest(
        &mut self,
        forest: Resource<ForestHandle>,
    ) -> wasmtime::Result<ForestHandle> {
        let handle = self.table.delete(forest)?;
        self.compute.budget.give_memory(handle.charged);
        self.compute.budget.give_handle();
        Ok(handle)
    }
}
