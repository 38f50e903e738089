//! Training on a CUDA device. A step is two pieces of work that are recorded once for each size of
//! batch: rows are taken from the data on the device, the loss and its gradient computed, and their
//! sums read back; then the weights change. The host waits for the sums only.

use std::collections::HashMap;
use std::sync::Arc;

use super::driver::Grid;
use super::engine::{
    CudaEngine, Home, Layout, RUN_BYTES, SharedPart, bytes_of_tensor, out_of_range, stretch,
};
use super::lower::{Check, lower};
use super::memory::{Buffer, OpenStream, Pinned, bytes_of, bytes_of_mut};
use super::script::{Script, Stretch, Work, bind};
use super::source::{Family, KernelText, THREADS};
use crate::backend::{Job, Trainer, TrainerState, WeightedLoss};
use crate::error::RunError;
use crate::graph::{Extent, Optimizer};
use crate::program::{Program, Which};
use crate::shape;
use crate::tensor::Tensor;

/// Bytes of the numbers that an update takes.
const UPDATE_BYTES: u64 = 256;

/// Numbers whose squares one block sums.
const SQUARES: usize = 1024;

/// A training under way. Fields are dropped in order: the streams are waited for first.
pub(super) struct CudaTrainer<'a> {
    stream: OpenStream,
    copies: OpenStream,
    steps: HashMap<StepKey, StepLane>,
    update: Option<UpdateLane>,
    shared: SharedPart,
    data: Data,
    gradient: Buffer,
    moments: [Buffer; 2],
    best: Option<Buffer>,
    /// The sum of the gradients of the batches of a step, where it has several.
    sum: Option<Buffer>,
    home: Arc<Home>,
    program: Arc<Program>,
    engine: &'a mut CudaEngine,
    job: Job<'a>,
    optimizer: Option<Optimizer>,
    rows_symbol: u32,
    updates: u64,
    /// The rows of the step after this one, where they are known.
    next: Vec<u32>,
    /// Which of the two staging areas the next step takes.
    side: usize,
    /// Whether the host's weights are those of the device.
    finished: bool,
}

/// Where the training data is.
#[derive(Debug)]
struct Data {
    /// By input: on the device as a whole; none where it is staged for each step.
    resident: Vec<Option<Buffer>>,
    staged: bool,
}

/// Steps of one number of rows share their work; staged ones take turns between two areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct StepKey {
    rows: usize,
    side: usize,
    /// Whether it is one of several batches of a step: its gradient is not scaled yet.
    is_part: bool,
}

/// An input that is staged by row.
#[derive(Clone, Copy, Debug)]
struct StagedInput {
    index: usize,
    offset: usize,
    row_bytes: usize,
}

/// Everything for a step of one number of rows.
#[derive(Debug)]
struct StepLane {
    script: Script,
    checks: Vec<Check>,
    row_numbers: usize,
    checks_in: usize,
    results: usize,
    sums: usize,
    staged: Vec<StagedInput>,
    staged_bytes: (usize, u64),
    /// The rows that were staged ahead of their step.
    ready: Option<Vec<u32>>,
    staging: Pinned,
    _memory: Buffer,
}

/// Everything for an update.
#[derive(Debug)]
struct UpdateLane {
    script: Script,
    numbers: Pinned,
    _memory: Buffer,
}

impl<'a> CudaTrainer<'a> {
    pub(super) fn new(engine: &'a mut CudaEngine, job: Job<'a>) -> Result<Self, RunError> {
        let home = engine.home()?;
        home.drop_lanes();
        let program = Arc::clone(&engine.program);
        let Some(training) = &program.training else {
            return Err(RunError::NotTrainable { what: "loss" });
        };
        let site = &home.site;
        let stream = site.stream()?;
        let trainable = program.layout.trainable as u64 * 4;
        let optimizer = program.graph().optimizer;
        let cleared = |wanted: bool| -> Result<Buffer, RunError> {
            let buffer = site.take(if wanted { trainable } else { 0 })?;
            stream.clear(&buffer)?;
            Ok(buffer)
        };
        let fixed = home.fixed(&program.layout);
        let mut trainer = CudaTrainer {
            gradient: cleared(true)?,
            moments: [
                cleared(optimizer.is_some())?,
                cleared(matches!(optimizer, Some(Optimizer::Adam(_))))?,
            ],
            shared: SharedPart::new(site, &training.shared, &fixed, home.choices)?,
            data: Data {
                resident: Vec::new(),
                staged: false,
            },
            copies: site.stream()?,
            rows_symbol: training.rows,
            stream,
            steps: HashMap::new(),
            update: None,
            best: None,
            sum: None,
            program: Arc::clone(&program),
            engine,
            job,
            optimizer,
            updates: 0,
            next: Vec::new(),
            side: 0,
            finished: false,
            home,
        };
        trainer.place_data()?;
        Ok(trainer)
    }

    fn by_row(&self, shape: &[Extent]) -> bool {
        shape.first() == Some(&Extent::Symbol(self.rows_symbol))
    }

    /// Puts the data on the device, if it takes no more than a quarter of the memory; what has no
    /// rows in any case.
    fn place_data(&mut self) -> Result<(), RunError> {
        let program = Arc::clone(&self.program);
        let inputs = program.inputs.iter().zip(&self.job.training.inputs);
        let bytes: u64 = inputs
            .clone()
            .filter_map(|(_, tensor)| tensor.as_ref())
            .map(|tensor| bytes_of_tensor(tensor).len() as u64)
            .sum();
        self.data.staged = bytes > self.home.site.limit / 4;
        for (info, tensor) in inputs {
            let resident = match tensor {
                Some(tensor) if !(self.data.staged && self.by_row(&info.shape)) => {
                    let bytes = bytes_of_tensor(tensor);
                    let buffer = self.home.site.take(bytes.len() as u64)?;
                    self.stream.upload(buffer.address, bytes)?;
                    Some(buffer)
                }
                _ => None,
            };
            self.data.resident.push(resident);
        }
        Ok(())
    }

    /// The work of a batch of so many rows.
    fn step_lane(&self, rows: usize, is_part: bool) -> Result<StepLane, RunError> {
        let program = &self.program;
        let site = &self.home.site;
        let mut symbols = self.job.training.symbols.clone();
        symbols[self.rows_symbol as usize] = rows;
        let plan = program.plan(Which::Step, &symbols);
        let lowered = lower(&plan, &self.shared.lowered.unpacked, self.home.choices)?;
        let mut layout = Layout::default();
        // What goes in with every step, then what comes out; then inputs that are staged.
        let run = layout.take(RUN_BYTES);
        let row_numbers = layout.take(rows as u64 * 4);
        let checks = layout.take(lowered.checks.len() as u64 * 8);
        let in_bytes = layout.bytes as usize;
        let sums = layout.take(32);
        let out_bytes = (layout.bytes - checks) as usize;
        let mut regions = self.home.fixed(&program.layout);
        let mut staged = Vec::new();
        let mut taken = Vec::new();
        let staged_from = layout.bytes;
        for (index, (info, tensor)) in program
            .inputs
            .iter()
            .zip(&self.job.training.inputs)
            .enumerate()
        {
            let resident = self.data.resident.get(index).and_then(Option::as_ref);
            let elements: usize = shape::resolve(&info.shape, &symbols).iter().product();
            regions.inputs.push(match (tensor, resident) {
                (None, _) => Stretch::default(),
                (Some(_), Some(buffer)) if !self.by_row(&info.shape) => {
                    stretch(buffer.address, elements)
                }
                (Some(_), resident) => {
                    let offset = layout.take(elements as u64 * 4);
                    let width = elements.checked_div(rows).unwrap_or(0);
                    match resident {
                        Some(buffer) => {
                            let stride = tensor.and_then(Tensor::stride).unwrap_or(width);
                            taken.push((index, buffer.address, width, stride));
                        }
                        None => staged.push(StagedInput {
                            index,
                            offset: (offset - staged_from) as usize,
                            row_bytes: width * 4,
                        }),
                    }
                    stretch(offset, elements)
                }
            });
        }
        let staged_bytes = (layout.bytes - staged_from) as usize;
        for _ in 0..2 {
            // The losses and the weights of the rows.
            let offset = layout.take(rows as u64 * 4);
            regions.outputs.push(stretch(offset, rows));
        }
        let slab = layout.take(plan.slab as u64 * 4);
        let scratch = layout.take(lowered.scratch_bytes);
        let memory = site.take(layout.bytes)?;
        let base = memory.address;
        for (input, tensor) in regions.inputs.iter_mut().zip(0..) {
            let of_lane = taken.iter().any(|(index, ..)| *index == tensor)
                || staged.iter().any(|input| input.index == tensor);
            if of_lane {
                input.address += base;
            }
        }
        for output in &mut regions.outputs {
            output.address += base;
        }
        regions.slab = stretch(base + slab, plan.slab);
        regions.shared = self.shared.region();
        regions.gradients = stretch(self.gradient.address, program.layout.trainable);
        regions.run = base + run;
        regions.checks = base + checks;
        regions.scratch = base + scratch;
        regions.scratch_bytes = lowered.scratch_bytes;
        let staged_bytes = if staged.is_empty() { 0 } else { staged_bytes };
        let results = in_bytes;
        let staged_at = results + out_bytes;
        let mut staging = site.pin(staged_at + staged_bytes)?;
        staging.write(0, staged_at + staged_bytes).fill(0);
        for input in &mut staged {
            input.offset += staged_at;
        }
        let mut work = vec![Work::CopyIn {
            to: base,
            from: staging.at(0, in_bytes)?,
            bytes: in_bytes,
        }];
        for (index, from, width, stride) in &taken {
            let target = regions.inputs[*index];
            if target.elements > 0 {
                work.push(self.launch(
                    Family::Lookup,
                    "take_rows",
                    target.elements,
                    vec![
                        *from,
                        base + row_numbers,
                        target.address,
                        rows as u64,
                        *width as u64,
                        *stride as u64,
                    ],
                )?);
            }
        }
        self.shared.work(site, Some(regions.run), &mut work)?;
        bind(site, &lowered, &regions, &mut work)?;
        let weights = program.graph().loss.as_ref().and_then(|loss| loss.weight);
        let weights = weights.map_or(0, |_| regions.outputs[1].address);
        let losses = regions.outputs[0].address;
        work.push(self.launch(
            Family::Update,
            "loss_sums",
            1,
            vec![losses, weights, rows as u64, base + sums],
        )?);
        if program.layout.trainable > 0 && !is_part {
            work.push(self.launch(
                Family::Update,
                "scale_gradient",
                program.layout.trainable,
                vec![
                    self.gradient.address,
                    program.layout.trainable as u64,
                    base + sums,
                ],
            )?);
        }
        work.push(Work::CopyOut {
            to: staging.at(results, out_bytes)?,
            from: base + checks,
            bytes: out_bytes,
        });
        Ok(StepLane {
            script: Script::new(Arc::clone(site), work),
            checks: lowered.checks,
            row_numbers: row_numbers as usize,
            checks_in: checks as usize,
            results,
            sums: results + (sums - checks) as usize,
            staged,
            staged_bytes: (staged_bytes, base + staged_from),
            ready: None,
            staging,
            _memory: memory,
        })
    }

    fn launch(
        &self,
        family: Family,
        name: &str,
        elements: usize,
        arguments: Vec<u64>,
    ) -> Result<Work, RunError> {
        let functions = self.home.site.load(&[KernelText::ready(family, name)])?;
        let function = functions.first().copied().ok_or_else(|| RunError::Device {
            what: format!("kernel `{name}` is missing"),
        })?;
        let most = self.home.choices.multiprocessors.max(1) * 32;
        let blocks = elements.div_ceil(THREADS as usize).max(1);
        Ok(Work::Launch {
            function,
            grid: Grid {
                blocks: u32::try_from(blocks).unwrap_or(u32::MAX).min(most),
                threads: THREADS,
            },
            arguments,
        })
    }

    /// The work of an update.
    fn update_lane(&self, optimizer: Optimizer) -> Result<UpdateLane, RunError> {
        let site = &self.home.site;
        let trainable = self.program.layout.trainable;
        let mut layout = Layout::default();
        let numbers_at = layout.take(UPDATE_BYTES);
        let parts = trainable.div_ceil(SQUARES);
        let parts_at = layout.take(parts as u64 * 8);
        let memory = site.take(layout.bytes)?;
        let (numbers_at, parts_at) = (memory.address + numbers_at, memory.address + parts_at);
        let mut numbers = site.pin(UPDATE_BYTES as usize)?;
        numbers.write(0, UPDATE_BYTES as usize).fill(0);
        let mut work = vec![Work::CopyIn {
            to: numbers_at,
            from: numbers.at(0, UPDATE_BYTES as usize)?,
            bytes: UPDATE_BYTES as usize,
        }];
        let elements = trainable as u64;
        let gradient = self.gradient.address;
        let weights = self.home.weights.address;
        if trainable > 0 {
            if self.job.clip_norm.is_some() {
                let mut squares = self.launch(
                    Family::Update,
                    "square_sums",
                    1,
                    vec![gradient, elements, parts_at],
                )?;
                if let Work::Launch { grid, .. } = &mut squares {
                    grid.blocks = u32::try_from(parts).unwrap_or(u32::MAX);
                }
                work.push(squares);
                work.push(self.launch(
                    Family::Update,
                    "clip_scale",
                    1,
                    vec![parts_at, parts as u64, numbers_at],
                )?);
            }
            let [first, second] = &self.moments;
            work.push(match optimizer {
                Optimizer::Sgd(_) => self.launch(
                    Family::Update,
                    "sgd",
                    trainable,
                    vec![gradient, weights, first.address, elements, numbers_at],
                )?,
                Optimizer::Adam(_) => self.launch(
                    Family::Update,
                    "adam",
                    trainable,
                    vec![
                        gradient,
                        weights,
                        first.address,
                        second.address,
                        elements,
                        numbers_at,
                    ],
                )?,
            });
        }
        Ok(UpdateLane {
            script: Script::new(Arc::clone(site), work),
            numbers,
            _memory: memory,
        })
    }

    /// Makes sure that there is a lane for steps of so many rows.
    fn prepare(&mut self, key: StepKey) -> Result<(), RunError> {
        if self.steps.contains_key(&key) {
            return Ok(());
        }
        // Two sizes at most are under way: whole batches, and the rest of an epoch.
        if self.steps.len() >= 4 {
            self.stream.wait()?;
            self.copies.wait()?;
            self.steps.retain(|other, _| other.rows == key.rows);
        }
        let lane = self.step_lane(key.rows, key.is_part)?;
        self.steps.insert(key, lane);
        Ok(())
    }

    /// Copies rows into the staging area of a lane and on to the device.
    fn stage(&mut self, key: StepKey, rows: &[u32]) -> Result<(), RunError> {
        let Some(lane) = self.steps.get_mut(&key) else {
            return Ok(());
        };
        if lane.staged.is_empty() || lane.ready.as_deref() == Some(rows) {
            return Ok(());
        }
        for input in &lane.staged {
            if let Some(Some(tensor)) = self.job.training.inputs.get(input.index) {
                let bytes = rows.len() * input.row_bytes;
                let to = lane.staging.write(input.offset, bytes);
                gather_rows(tensor, input.row_bytes, rows, to);
            }
        }
        let (bytes, address) = lane.staged_bytes;
        let first = lane.staged.iter().map(|input| input.offset).min();
        let from = lane.staging.at(first.unwrap_or(0), bytes)?;
        let site = &self.home.site;
        // SAFETY: the lane's own memory on both sides. The step that reads it comes later, and
        // the one that read it last was waited for.
        let queued = unsafe {
            site.driver
                .copy_in(self.copies.stream, address, from, bytes)
        };
        queued.map_err(|fault| site.error(fault))?;
        lane.ready = Some(rows.to_vec());
        Ok(())
    }

    /// Copies what the device has to the host's weights.
    fn fetch_weights(&mut self) -> Result<(), RunError> {
        self.stream.wait()?;
        let weights = &self.home.weights;
        // Into a copy first: a failure on the way must not leave half of them.
        let mut fetched = vec![0.0; self.engine.mirror.len()];
        self.stream
            .download(bytes_of_mut(&mut fetched), weights.address)?;
        self.engine.mirror = fetched;
        self.home.weights_changed();
        Ok(())
    }
}

impl Trainer for CudaTrainer<'_> {
    fn announce(&mut self, rows: &[u32]) {
        self.next.clear();
        self.next.extend_from_slice(rows);
    }

    fn gradient(&mut self, rows: &[u32], step: u64) -> Result<WeightedLoss, RunError> {
        let at_once = self.job.batch_rows.max(1);
        let next = std::mem::take(&mut self.next);
        let is_part = rows.len() > at_once;
        let mut total = WeightedLoss::default();
        let mut batches = rows.chunks(at_once).enumerate().peekable();
        while let Some((index, batch)) = batches.next() {
            let (after, after_is_part) = match batches.peek() {
                Some((_, batch)) => (*batch, is_part),
                None => (
                    next.get(..at_once.min(next.len())).unwrap_or(&[]),
                    next.len() > at_once,
                ),
            };
            let of = Batch {
                rows: batch,
                first_row: index * at_once,
                is_part,
            };
            let after = Batch {
                rows: after,
                first_row: 0,
                is_part: after_is_part,
            };
            total = total.and(self.batch(of, after, step)?);
            if is_part {
                self.accumulate(index == 0)?;
            }
        }
        if is_part {
            let scale = if total.weight > 0.0 {
                (1.0 / total.weight) as f32
            } else {
                0.0
            };
            self.take_sum(scale)?;
        }
        Ok(total)
    }

    fn update(&mut self, learning_rate: f32) -> Result<(), RunError> {
        let Some(optimizer) = self.optimizer else {
            return Ok(());
        };
        self.updates += 1;
        if self.update.is_none() {
            self.update = Some(self.update_lane(optimizer)?);
        }
        let numbers = update_numbers(optimizer, learning_rate, self.updates);
        let clip = self.job.clip_norm.map_or(0.0, f64::from);
        if let Some(lane) = &mut self.update {
            lane.numbers.set_numbers(0, &[clip.to_bits()]);
            let bits: Vec<u64> = numbers
                .iter()
                .map(|number| u64::from(number.to_bits()))
                .collect();
            lane.numbers.set_numbers(8, &bits);
            // SAFETY: the memory is the training's. The numbers were read by the device before
            // the sums of the gradient after them were waited for.
            unsafe { lane.script.run(self.stream.stream)? };
        }
        self.home.weights_changed();
        Ok(())
    }

    fn gradients(&self) -> Result<Vec<Vec<f32>>, RunError> {
        let mut gradient = vec![0.0; self.program.layout.trainable];
        self.stream
            .download(bytes_of_mut(&mut gradient), self.gradient.address)?;
        let parameters = self
            .program
            .parameters()
            .iter()
            .zip(&self.program.layout.parameters);
        Ok(parameters
            .map(|(parameter, offset)| {
                if parameter.trainable {
                    gradient[*offset..][..parameter.elements()].to_vec()
                } else {
                    Vec::new()
                }
            })
            .collect())
    }

    fn validate(&mut self) -> Result<WeightedLoss, RunError> {
        let Some(validation) = &self.job.validation else {
            return Ok(WeightedLoss::default());
        };
        self.stream.wait()?;
        let results = self.engine.evaluate(
            &self.home,
            Which::Evaluation,
            validation,
            self.job.look.get(),
        )?;
        let mut values = results.iter().filter_map(Tensor::as_f32);
        let losses = values.next().unwrap_or(&[]);
        Ok(WeightedLoss::of(losses, values.next(), 0))
    }

    fn is_finite(&self) -> Result<bool, RunError> {
        let elements = self.program.layout.weights;
        let flag = self.home.site.take(8)?;
        self.stream.clear(&flag)?;
        let work = vec![self.launch(
            Family::Update,
            "find_not_finite",
            elements,
            vec![self.home.weights.address, elements as u64, flag.address],
        )?];
        let mut script = Script::new(Arc::clone(&self.home.site), work);
        // SAFETY: the memory is this training's, and the download waits.
        unsafe { script.run(self.stream.stream)? };
        let mut found = [0; 8];
        self.stream.download(&mut found, flag.address)?;
        Ok(u64::from_ne_bytes(found) == 0)
    }

    fn keep(&mut self) -> Result<(), RunError> {
        let site = &self.home.site;
        if self.best.is_none() {
            self.best = Some(site.take(self.home.weights.bytes)?);
        }
        if let Some(best) = &self.best {
            self.copy(best.address, self.home.weights.address)?;
        }
        Ok(())
    }

    fn restore(&mut self) -> Result<(), RunError> {
        if let Some(best) = &self.best {
            self.copy(self.home.weights.address, best.address)?;
            self.home.weights_changed();
        }
        Ok(())
    }

    fn state(&self) -> Result<TrainerState, RunError> {
        let fetch = |address: u64, elements: usize| {
            let mut fetched = vec![0.0; elements];
            self.stream.download(bytes_of_mut(&mut fetched), address)?;
            Ok::<_, RunError>(fetched)
        };
        let (weights, moments) = self.lengths();
        Ok(TrainerState {
            updates: self.updates,
            weights: fetch(self.home.weights.address, weights)?,
            moments: [
                fetch(self.moments[0].address, moments[0])?,
                fetch(self.moments[1].address, moments[1])?,
            ],
            best: match &self.best {
                Some(best) => fetch(best.address, weights)?,
                None => Vec::new(),
            },
        })
    }

    fn set_state(&mut self, state: TrainerState) -> Result<(), RunError> {
        let (weights, moments) = self.lengths();
        state.check(weights, moments)?;
        self.updates = state.updates;
        let upload = |address: u64, values: &[f32]| self.stream.upload(address, bytes_of(values));
        upload(self.home.weights.address, &state.weights)?;
        self.home.weights_changed();
        for (moment, kept) in self.moments.iter().zip(&state.moments) {
            upload(moment.address, kept)?;
        }
        if !state.best.is_empty() {
            let best = self.home.site.take(self.home.weights.bytes)?;
            upload(best.address, &state.best)?;
            self.best = Some(best);
        }
        self.stream.wait()
    }

    fn finish(&mut self) -> Result<(), RunError> {
        self.finished = true;
        let fetched = self.fetch_weights();
        if fetched.is_err() {
            self.engine.leave();
        }
        fetched
    }
}

/// Rows that are computed at once.
#[derive(Clone, Copy, Debug)]
struct Batch<'a> {
    rows: &'a [u32],
    /// The place of the first among the rows of the step.
    first_row: usize,
    is_part: bool,
}

impl CudaTrainer<'_> {
    /// Numbers of the weights and of each moment.
    fn lengths(&self) -> (usize, [usize; 2]) {
        let layout = &self.program.layout;
        let second = match self.optimizer {
            Some(Optimizer::Adam(_)) => layout.trainable,
            _ => 0,
        };
        let first = self.optimizer.map_or(0, |_| layout.trainable);
        (layout.weights, [first, second])
    }

    /// Computes the gradient of a batch; meanwhile fetches the rows of the one after it.
    fn batch(
        &mut self,
        of: Batch<'_>,
        after: Batch<'_>,
        step: u64,
    ) -> Result<WeightedLoss, RunError> {
        let side = if self.data.staged { self.side } else { 0 };
        let key_of = |batch: Batch<'_>, side: usize| StepKey {
            rows: batch.rows.len(),
            side,
            is_part: batch.is_part,
        };
        let key = key_of(of, side);
        self.prepare(key)?;
        self.stage(key, of.rows)?;
        let seed = self.job.seed;
        let site = Arc::clone(&self.home.site);
        if self.data.staged {
            site.driver
                .order(self.copies.stream, self.stream.stream)
                .map_err(|fault| site.error(fault))?;
        }
        if let Some(lane) = self.steps.get_mut(&key) {
            lane.ready = None;
            let run = [seed, step, of.first_row as u64];
            lane.staging.set_numbers(0, &run);
            let numbers = lane.staging.write(lane.row_numbers, of.rows.len() * 4);
            for (to, row) in numbers.chunks_exact_mut(4).zip(of.rows) {
                to.copy_from_slice(&row.to_ne_bytes());
            }
            let none = vec![u64::MAX; lane.checks.len()];
            lane.staging.set_numbers(lane.checks_in, &none);
            // SAFETY: the lane, the data and the weights stay until the stream was waited for,
            // which happens below; the update before this is earlier on the same stream.
            unsafe { lane.script.run(self.stream.stream)? };
        }
        if self.data.staged {
            // While the device computes, the rows after these are copied.
            self.side = 1 - side;
            let key = key_of(after, self.side);
            if !after.rows.is_empty() && (self.steps.contains_key(&key) || self.steps.len() < 4) {
                self.prepare(key)?;
                self.stage(key, after.rows)?;
            }
        }
        self.stream.wait()?;
        let Some(lane) = self.steps.get(&key) else {
            return Ok(WeightedLoss::default());
        };
        out_of_range(&lane.checks, &lane.staging, lane.results, |count| {
            let per_row = count.checked_div(of.rows.len()).unwrap_or(0);
            per_row * of.first_row
        })?;
        let sum = |index: usize| lane.staging.number(lane.sums + 8 * index);
        let bad = sum(2);
        Ok(WeightedLoss {
            loss: f64::from_bits(sum(0)),
            weight: f64::from_bits(sum(1)),
            bad_weight: (bad != u64::MAX).then_some(of.first_row + bad as usize),
        })
    }

    /// Adds the gradient of a batch to that of the batches of the step before it.
    fn accumulate(&mut self, is_first: bool) -> Result<(), RunError> {
        let elements = self.program.layout.trainable;
        if self.sum.is_none() {
            self.sum = Some(self.home.site.take(elements as u64 * 4)?);
        }
        let sum = self.sum.as_ref().map_or(0, |sum| sum.address);
        let arguments = vec![
            sum,
            self.gradient.address,
            elements as u64,
            u64::from(is_first),
        ];
        self.queue("add_gradient", elements, arguments)
    }

    /// Makes the sum of the batches the gradient of the step.
    fn take_sum(&mut self, scale: f32) -> Result<(), RunError> {
        let elements = self.program.layout.trainable;
        let sum = self.sum.as_ref().map_or(0, |sum| sum.address);
        let scale = u64::from(scale.to_bits());
        let arguments = vec![sum, self.gradient.address, elements as u64, scale];
        self.queue("take_gradient", elements, arguments)
    }

    /// Queues one kernel.
    fn queue(&self, name: &str, elements: usize, arguments: Vec<u64>) -> Result<(), RunError> {
        if elements == 0 {
            return Ok(());
        }
        let work = vec![self.launch(Family::Update, name, elements, arguments)?];
        let mut script = Script::new(Arc::clone(&self.home.site), work);
        // SAFETY: the memory is this training's, which waits for the stream before it goes.
        unsafe { script.run(self.stream.stream) }
    }

    /// Copies weights within the device and waits.
    fn copy(&self, to: u64, from: u64) -> Result<(), RunError> {
        let site = &self.home.site;
        let bytes = self.program.layout.weights * 4;
        // SAFETY: both are as large as the weights, and not the same.
        let queued = unsafe { site.driver.copy_within(self.stream.stream, to, from, bytes) };
        queued.map_err(|fault| site.error(fault))?;
        self.stream.wait()
    }
}

impl Drop for CudaTrainer<'_> {
    fn drop(&mut self) {
        // A training that was stopped leaves the weights of the step it came to.
        if !self.finished && self.fetch_weights().is_err() {
            self.engine.leave();
        }
    }
}

/// What the kernels of an update take, from the second number on.
fn update_numbers(optimizer: Optimizer, rate: f32, count: u64) -> Vec<f32> {
    match optimizer {
        Optimizer::Sgd(sgd) => vec![1.0, rate, sgd.weight_decay, sgd.momentum],
        Optimizer::Adam(adam) => {
            let correction =
                |beta: f32| 1.0 - f64::from(beta).powi(i32::try_from(count).unwrap_or(i32::MAX));
            let step = (f64::from(rate) / correction(adam.beta1)) as f32;
            let inverse = (1.0 / correction(adam.beta2).sqrt()) as f32;
            let (coupled, decay) = if adam.decoupled {
                (0.0, 1.0 - rate * adam.weight_decay)
            } else {
                (adam.weight_decay, 1.0)
            };
            vec![
                1.0,
                step,
                inverse,
                adam.beta1,
                1.0 - adam.beta1,
                adam.beta2,
                1.0 - adam.beta2,
                adam.epsilon,
                coupled,
                decay,
            ]
        }
    }
}

/// Copies rows by number, one after the other.
fn gather_rows(tensor: &Tensor, row_bytes: usize, rows: &[u32], target: &mut [u8]) {
    if row_bytes == 0 {
        return;
    }
    let source = bytes_of_tensor(tensor);
    let stride = tensor.stride().map_or(row_bytes, |stride| stride * 4);
    for (row, target) in rows.iter().zip(target.chunks_exact_mut(row_bytes)) {
        target.copy_from_slice(&source[*row as usize * stride..][..row_bytes]);
    }
}
