//! Training on the processor: a batch is cut into shards of rows, whose number depends on the
//! size of the batch alone. Shards run on any thread; their gradients are added pair by pair in
//! the order of the shards.

use std::sync::{Mutex, PoisonError};

use super::engine::{CpuEngine, Workspace, span_of};
use super::level::Level;
use super::map::Piece;
use super::memory::{AlignedBuffer, Span};
use super::update::{self, Update};
use crate::backend::{Job, Trainer, TrainerState, WeightedLoss};
use crate::error::RunError;
use crate::feeds::Bound;
use crate::graph::{Extent, Optimizer};
use crate::program::Which;
use crate::tensor::Tensor;

/// Numbers of one task of an update. The norm of a gradient is summed over them in order, so it
/// is part of what decides about bits.
const STRETCH: usize = 4096;

/// A training under way on the processor.
pub(crate) struct CpuTrainer<'a> {
    engine: &'a mut CpuEngine,
    job: Job<'a>,
    optimizer: Option<Optimizer>,
    /// Rows of a shard; none where the program mixes rows, so that a batch is one shard.
    shard_rows: Option<usize>,
    rows_symbol: u32,
    shared: AlignedBuffer,
    shards: Vec<Mutex<Shard>>,
    /// The shards that the last gradient is the sum of.
    used: usize,
    /// 1 / the sum of the weights of the last gradient.
    scale: f32,
    moments: [AlignedBuffer; 2],
    updates: u64,
    best: AlignedBuffer,
    /// The sum of the gradients of the batches of a step, where it has several.
    sum: AlignedBuffer,
}

/// What one shard needs to itself.
#[derive(Debug, Default)]
struct Shard {
    gradient: AlignedBuffer,
    /// Rows of inputs, gathered.
    staged: Vec<AlignedBuffer>,
    losses: AlignedBuffer,
    weights: AlignedBuffer,
    result: Option<Result<WeightedLoss, RunError>>,
}

impl<'a> CpuTrainer<'a> {
    pub(super) fn new(engine: &'a mut CpuEngine, job: Job<'a>) -> Result<Self, RunError> {
        let Some(training) = &engine.program.training else {
            return Err(RunError::NotTrainable { what: "loss" });
        };
        let shard_rows = training.evaluation.rows.map(|_| {
            let symbols = &job.training.symbols;
            training.evaluation.shard_rows(job.batch_rows, symbols)
        });
        let shards = shard_rows.map_or(1, |rows| job.batch_rows.div_ceil(rows).max(1));
        let trainable = engine.program.layout.trainable;
        let shard = |_| {
            Mutex::new(Shard {
                gradient: AlignedBuffer::zeroed(trainable),
                ..Shard::default()
            })
        };
        let optimizer = engine.program.graph().optimizer;
        let moment = |wanted: bool| AlignedBuffer::zeroed(if wanted { trainable } else { 0 });
        Ok(CpuTrainer {
            optimizer,
            shard_rows,
            rows_symbol: training.rows,
            shared: AlignedBuffer::default(),
            shards: (0..shards).map(shard).collect(),
            used: 0,
            scale: 0.0,
            moments: [
                moment(optimizer.is_some()),
                moment(matches!(optimizer, Some(Optimizer::Adam(_)))),
            ],
            updates: 0,
            best: AlignedBuffer::default(),
            sum: AlignedBuffer::default(),
            engine,
            job,
        })
    }

    /// Runs one shard.
    fn run_shard(
        &self,
        shard: &mut Shard,
        rows: &[u32],
        piece: Piece,
    ) -> Result<WeightedLoss, RunError> {
        let program = &self.engine.program;
        let feeds = &self.job.training;
        let mut symbols = feeds.symbols.clone();
        symbols[self.rows_symbol as usize] = rows.len();
        let plan = program.plan(Which::Step, &symbols);
        // A shard uses the slab of one before it, which is still near.
        self.engine.with_workspace(|workspace| {
            self.stage(workspace, &mut shard.staged, feeds, rows);
            shard.losses.reserve(rows.len());
            shard.weights.reserve(rows.len());
            workspace.outputs.extend([
                Span::writable(shard.losses.as_mut_slice()),
                Span::writable(shard.weights.as_mut_slice()),
            ]);
            let shared = Span::read_only(self.shared.as_slice());
            let gradients = Span::writable(shard.gradient.as_mut_slice());
            // SAFETY: what the run writes is the shard's or the workspace's; the rest is borrowed
            // for as long.
            unsafe { workspace.run(&plan, self.engine.common(shared), gradients, piece) }
        })?;
        let Shard {
            losses, weights, ..
        } = shard;
        let weights = program
            .graph()
            .loss
            .as_ref()
            .and_then(|loss| loss.weight)
            .map(|_| &weights.as_slice()[..rows.len()]);
        Ok(WeightedLoss::of(
            &losses.as_slice()[..rows.len()],
            weights,
            piece.first_row,
        ))
    }

    /// Points the inputs of a shard at its rows: where they lie, if they lie one after the
    /// other, else gathered.
    fn stage(
        &self,
        workspace: &mut Workspace,
        staged: &mut Vec<AlignedBuffer>,
        feeds: &Bound<'_>,
        rows: &[u32],
    ) {
        let inputs = &self.engine.program.inputs;
        staged.resize_with(inputs.len(), AlignedBuffer::default);
        let first = rows.first().map_or(0, |row| *row as usize);
        let in_order = rows
            .iter()
            .enumerate()
            .all(|(place, row)| *row as usize == first + place);
        for ((input, tensor), staged) in inputs.iter().zip(&feeds.inputs).zip(staged) {
            let span = match tensor {
                None => Span::EMPTY,
                Some(tensor) if input.shape.first() != Some(&Extent::Symbol(self.rows_symbol)) => {
                    span_of(tensor)
                }
                Some(tensor) => {
                    let per_row: usize = tensor.shape()[1..].iter().product();
                    if in_order && tensor.stride().is_none() {
                        span_of(tensor).part(first * per_row, rows.len() * per_row)
                    } else {
                        staged.reserve(rows.len() * per_row);
                        gather_rows(tensor, per_row, rows, staged.as_mut_slice());
                        Span::read_only(staged.as_slice())
                    }
                }
            };
            workspace.inputs.push(span);
        }
    }

    /// Calls `work` with each stretch of the trainable weights by number, on all threads.
    fn over_stretches(&self, work: &(dyn Fn(usize, usize, usize) + Sync)) -> usize {
        let elements = self.engine.program.layout.trainable;
        let stretches = elements.div_ceil(STRETCH);
        // A few tasks for each thread, each of many stretches.
        let tasks = stretches.div_ceil(8).min(4 * self.engine.threads.count());
        let threads = &self.engine.threads;
        threads.run(tasks, &|task| {
            for stretch in (stretches * task / tasks)..(stretches * (task + 1) / tasks) {
                let first = stretch * STRETCH;
                work(stretch, first, STRETCH.min(elements - first));
            }
        });
        stretches
    }

    /// Numbers of the weights and of each moment.
    fn lengths(&self) -> (usize, [usize; 2]) {
        let layout = &self.engine.program.layout;
        let first = self.optimizer.map_or(0, |_| layout.trainable);
        let second = match self.optimizer {
            Some(Optimizer::Adam(_)) => layout.trainable,
            _ => 0,
        };
        (layout.weights, [first, second])
    }

    /// Computes the gradient of the rows of a step from `first_row` on, one batch.
    fn batch(
        &mut self,
        rows: &[u32],
        step: u64,
        first_row: usize,
    ) -> Result<WeightedLoss, RunError> {
        let seed = self.job.seed;
        let size = self.shard_rows.unwrap_or(rows.len()).max(1);
        let pieces: Vec<&[u32]> = rows.chunks(size).collect();
        let this = &*self;
        this.engine.threads.run(pieces.len(), &|index| {
            let mut shard = this.shards[index]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let piece = Piece {
                seed,
                step,
                first_row: first_row + index * size,
                rows: pieces[index].len(),
            };
            shard.result = Some(this.run_shard(&mut shard, pieces[index], piece));
        });
        self.used = pieces.len();
        let mut total = WeightedLoss::default();
        for shard in &mut self.shards[..self.used] {
            let shard = shard.get_mut().unwrap_or_else(PoisonError::into_inner);
            if let Some(result) = shard.result.take() {
                total = total.and(result?);
            }
        }
        Ok(total)
    }

    /// Adds the gradient of a batch to that of the batches of the step before it.
    fn accumulate(&mut self, is_first: bool) {
        let spans = self.gradient_spans();
        let level = self.engine.level;
        let mut sum = std::mem::take(&mut self.sum);
        sum.reserve(self.engine.program.layout.trainable);
        let total = Span::writable(sum.as_mut_slice());
        self.over_stretches(&|_, first, count| {
            // SAFETY: each stretch is the work of one task, and nothing else runs meanwhile.
            let (total, batch) = unsafe {
                combine_stretch(level, &spans, first, count, 1.0);
                (
                    total.part(first, count).slice_mut(),
                    spans[0].part(first, count).slice(),
                )
            };
            if is_first {
                total.copy_from_slice(batch);
            } else {
                for (total, batch) in total.iter_mut().zip(batch) {
                    *total += *batch;
                }
            }
        });
        self.sum = sum;
    }

    fn gradient_spans(&mut self) -> Vec<Span> {
        let used = self.used;
        self.shards[..used]
            .iter_mut()
            .map(|shard| {
                let shard = shard.get_mut().unwrap_or_else(PoisonError::into_inner);
                Span::writable(shard.gradient.as_mut_slice())
            })
            .collect()
    }
}

/// Adds the gradients of a stretch of all shards into the first shard's.
///
/// # Safety
/// The stretch of every span is nobody else's meanwhile.
unsafe fn combine_stretch(level: Level, spans: &[Span], first: usize, count: usize, scale: f32) {
    let mut parts: Vec<&mut [f32]> = spans
        .iter()
        .map(|span| {
            // SAFETY: the caller's promise; spans are of different shards.
            unsafe { span.part(first, count).slice_mut() }
        })
        .collect();
    update::combine(level, &mut parts, scale);
}

impl Trainer for CpuTrainer<'_> {
    fn gradient(&mut self, rows: &[u32], step: u64) -> Result<WeightedLoss, RunError> {
        let seed = self.job.seed;
        let mut shared = std::mem::take(&mut self.shared);
        if let Some(training) = &self.engine.program.training {
            let piece = Piece {
                seed,
                step,
                ..Piece::default()
            };
            self.engine
                .compute_shared(&training.shared, piece, &mut shared);
        }
        self.shared = shared;
        let at_once = self.job.batch_rows.max(1);
        let mut total = WeightedLoss::default();
        for (batch, some) in rows.chunks(at_once).enumerate() {
            total = total.and(self.batch(some, step, batch * at_once)?);
            if rows.len() > at_once {
                self.accumulate(batch == 0);
            }
        }
        if rows.len() > at_once
            && let Some(shard) = self.shards.first_mut()
        {
            // From here on it is as if one shard had made it all.
            let shard = shard.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut shard.gradient, &mut self.sum);
            self.used = 1;
        }
        self.scale = if total.weight > 0.0 {
            (1.0 / total.weight) as f32
        } else {
            0.0
        };
        Ok(total)
    }

    fn update(&mut self, learning_rate: f32) -> Result<(), RunError> {
        let Some(optimizer) = self.optimizer else {
            return Ok(());
        };
        self.updates += 1;
        let spans = self.gradient_spans();
        let weights = Span::writable(self.engine.weights.as_mut_slice());
        let [first_moment, second_moment] = &mut self.moments;
        let moments = [
            Span::writable(first_moment.as_mut_slice()),
            Span::writable(second_moment.as_mut_slice()),
        ];
        let has_second = matches!(optimizer, Optimizer::Adam(_));
        let mut update = Update {
            optimizer,
            learning_rate,
            scale: 1.0,
            count: self.updates,
        };
        let scale = self.scale;
        let level = self.engine.level;
        let apply = |update: &Update, first: usize, count: usize| {
            // SAFETY: each stretch is the work of one task, and nothing else runs meanwhile.
            unsafe {
                update::update(
                    level,
                    update,
                    spans[0].part(first, count).slice_mut(),
                    weights.part(first, count).slice_mut(),
                    moments[0].part(first, count).slice_mut(),
                    if has_second {
                        moments[1].part(first, count).slice_mut()
                    } else {
                        &mut []
                    },
                );
            }
        };
        if spans.is_empty() {
            return Ok(());
        }
        if let Some(limit) = self.job.clip_norm {
            let squares: Vec<Mutex<f64>> =
                (0..self.engine.program.layout.trainable.div_ceil(STRETCH))
                    .map(|_| Mutex::new(0.0))
                    .collect();
            self.over_stretches(&|stretch, first, count| {
                // SAFETY: each stretch is the work of one task.
                let sum = unsafe {
                    combine_stretch(level, &spans, first, count, scale);
                    update::square_sum(spans[0].part(first, count).slice_mut())
                };
                *squares[stretch]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = sum;
            });
            let total: f64 = squares
                .iter()
                .map(|square| *square.lock().unwrap_or_else(PoisonError::into_inner))
                .sum();
            let norm = total.sqrt();
            if norm > f64::from(limit) {
                update.scale = (f64::from(limit) / norm) as f32;
            }
            self.over_stretches(&|_, first, count| apply(&update, first, count));
        } else {
            self.over_stretches(&|_, first, count| {
                // SAFETY: as above.
                unsafe { combine_stretch(level, &spans, first, count, scale) };
                apply(&update, first, count);
            });
        }
        self.engine.weights_changed();
        Ok(())
    }

    fn gradients(&self) -> Result<Vec<Vec<f32>>, RunError> {
        let program = &self.engine.program;
        let mut sums: Vec<AlignedBuffer> = self.shards[..self.used]
            .iter()
            .map(|shard| {
                shard
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .gradient
                    .clone()
            })
            .collect();
        let mut parts: Vec<&mut [f32]> = sums.iter_mut().map(AlignedBuffer::as_mut_slice).collect();
        update::combine(self.engine.level, &mut parts, self.scale);
        let parameters = program.parameters().iter().zip(&program.layout.parameters);
        Ok(parameters
            .map(|(parameter, offset)| match sums.first() {
                Some(sum) if parameter.trainable => {
                    sum.as_slice()[*offset..][..parameter.elements()].to_vec()
                }
                _ => Vec::new(),
            })
            .collect())
    }

    fn validate(&mut self) -> Result<WeightedLoss, RunError> {
        let Some(validation) = &self.job.validation else {
            return Ok(WeightedLoss::default());
        };
        let results = self
            .engine
            .evaluate(Which::Evaluation, validation, self.job.look.get())?;
        let mut values = results.iter().filter_map(Tensor::as_f32);
        let losses = values.next().unwrap_or(&[]);
        Ok(WeightedLoss::of(losses, values.next(), 0))
    }

    fn is_finite(&self) -> Result<bool, RunError> {
        let weights = self.engine.weights.as_slice();
        Ok(weights.iter().all(|weight| weight.is_finite()))
    }

    fn keep(&mut self) -> Result<(), RunError> {
        self.best = self.engine.weights.clone();
        Ok(())
    }

    fn restore(&mut self) -> Result<(), RunError> {
        if !self.best.as_slice().is_empty() {
            self.engine.weights = self.best.clone();
            self.engine.weights_changed();
        }
        Ok(())
    }

    fn state(&self) -> Result<TrainerState, RunError> {
        let (weights, moments) = self.lengths();
        let part = |buffer: &AlignedBuffer, length: usize| buffer.as_slice()[..length].to_vec();
        let best = if self.best.as_slice().is_empty() {
            0
        } else {
            weights
        };
        Ok(TrainerState {
            updates: self.updates,
            weights: part(&self.engine.weights, weights),
            moments: [
                part(&self.moments[0], moments[0]),
                part(&self.moments[1], moments[1]),
            ],
            best: part(&self.best, best),
        })
    }

    fn set_state(&mut self, state: TrainerState) -> Result<(), RunError> {
        let (weights, moments) = self.lengths();
        state.check(weights, moments)?;
        self.updates = state.updates;
        let put = |buffer: &mut AlignedBuffer, values: &[f32]| {
            buffer.as_mut_slice()[..values.len()].copy_from_slice(values);
        };
        put(&mut self.engine.weights, &state.weights);
        self.engine.weights_changed();
        for (moment, values) in self.moments.iter_mut().zip(&state.moments) {
            put(moment, values);
        }
        self.best = AlignedBuffer::zeroed(state.best.len());
        put(&mut self.best, &state.best);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), RunError> {
        Ok(())
    }
}

/// Copies rows by number, one after the other.
fn gather_rows(tensor: &Tensor, per_row: usize, rows: &[u32], target: &mut [f32]) {
    if per_row == 0 {
        return;
    }
    let source = span_of(tensor);
    let stride = tensor.stride().unwrap_or(per_row);
    for (row, target) in rows.iter().zip(target.chunks_exact_mut(per_row)) {
        // SAFETY: the part is inside the tensor, which is borrowed and only read.
        let from = unsafe { source.part(*row as usize * stride, per_row).slice() };
        target.copy_from_slice(from);
    }
}
