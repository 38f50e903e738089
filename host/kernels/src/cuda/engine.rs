//! A program with its weights on a CUDA device, and its entries over any number of rows.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::decoder::CudaDecoder;
use super::driver::Opener;
use super::lower::{Check, Choices, Lowered, lower};
use super::memory::{
    Buffer, OpenStream, Pinned, Site, bytes_of, bytes_of_ints, bytes_of_ints_mut, bytes_of_mut,
};
use super::script::{Regions, Script, Stretch, Work, bind};
use super::trainer::CudaTrainer;
use crate::backend::{Backend, Decoder, Engine, Job, Look, Trainer, look_before};
use crate::device::{DeviceError, DeviceInfo, DeviceKind, Precision};
use crate::error::RunError;
use crate::feeds::Bound;
use crate::graph::{DType, Extent};
use crate::plan::Plan;
use crate::program::{Program, Shared, Task, Which};
use crate::shape;
use crate::tensor::{Tensor, TensorData};

/// The largest number of rows that run together; a power of two.
const MOST_ROWS: usize = 8192;

/// Elements that go in and out with one run, where fewer rows would be fewer.
const MOST_STAGED: usize = 64 << 20;

/// Runs whose memory is kept for the next of their size.
const KEPT_LANES: usize = 16;

/// Pieces of one call that are under way at a time: one computes while the next is copied in.
const LANES_AT_ONCE: usize = 2;

/// Everything on the device begins at multiples of this many bytes.
const ALIGNMENT: u64 = 256;

/// Bytes of the numbers of a run.
pub(super) const RUN_BYTES: u64 = ALIGNMENT;

/// A CUDA device.
#[derive(Debug)]
pub(crate) struct CudaBackend {
    info: DeviceInfo,
    /// Whether it has cuBLASLt.
    has_products: bool,
    shop: Arc<Shop>,
}

/// Where sessions get the device from, the first time and after it was lost.
#[derive(Debug)]
pub(super) struct Shop {
    opener: Arc<dyn Opener>,
    /// The most bytes of device memory; by default nine tenths of what is free.
    memory_bytes: Option<u64>,
    site: Mutex<Option<Arc<Site>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shop {
    /// The device, opened again if it was lost.
    fn site(&self) -> Result<Arc<Site>, RunError> {
        let mut held = lock(&self.site);
        if let Some(site) = held.as_ref().filter(|site| !site.driver.is_lost()) {
            return Ok(Arc::clone(site));
        }
        *held = None;
        let lost = |fault: super::driver::Fault| RunError::DeviceLost {
            what: fault.to_string(),
        };
        let driver = self.opener.open().map_err(lost)?;
        let site = Arc::new(Site::open(driver, self.memory_bytes).map_err(lost)?);
        *held = Some(Arc::clone(&site));
        Ok(site)
    }
}

impl CudaBackend {
    /// Opens the device.
    pub(crate) fn open(
        opener: Arc<dyn Opener>,
        memory_bytes: Option<u64>,
        unavailable: impl Fn(String) -> DeviceError,
    ) -> Result<CudaBackend, DeviceError> {
        let shop = Shop {
            opener,
            memory_bytes,
            site: Mutex::new(None),
        };
        let site = shop
            .site()
            .map_err(|error| unavailable(error.to_string()))?;
        let facts = site.driver.facts();
        let [major, minor] = facts.compute_capability;
        let info = DeviceInfo {
            kind: DeviceKind::Cuda,
            name: format!("cuda ({})", facts.name),
            usable: true,
            detail: format!(
                "{}, compute capability {major}.{minor}, {} multiprocessors, {} MiB, {}",
                facts.name,
                facts.multiprocessors,
                facts.memory_bytes >> 20,
                facts.versions,
            ),
        };
        Ok(CudaBackend {
            info,
            has_products: facts.has_products,
            shop: Arc::new(shop),
        })
    }
}

impl Backend for CudaBackend {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn precision(&self, least: Precision) -> Result<Precision, String> {
        if least == Precision::F32Strict || self.has_products {
            return Ok(least);
        }
        Err(format!(
            "precision {least} needs cuBLASLt, which is not there"
        ))
    }

    fn open(
        &self,
        program: Arc<Program>,
        precision: Precision,
    ) -> Result<Box<dyn Engine>, RunError> {
        let engine = CudaEngine {
            precision,
            mirror: vec![0.0; program.layout.weights],
            program,
            shop: Arc::clone(&self.shop),
            home: Mutex::new(None),
        };
        engine.home()?;
        Ok(Box::new(engine))
    }
}

/// A program with its weights.
pub(super) struct CudaEngine {
    pub(super) program: Arc<Program>,
    precision: Precision,
    shop: Arc<Shop>,
    /// The weights as they were before or after the last training.
    pub(super) mirror: Vec<f32>,
    home: Mutex<Option<Arc<Home>>>,
}

impl fmt::Debug for CudaEngine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CudaEngine")
            .field("weights", &self.program.layout.weights)
            .finish_non_exhaustive()
    }
}

/// What a program has on the device. Fields are dropped in order: what runs before what it uses.
#[derive(Debug)]
pub(super) struct Home {
    lanes: Mutex<Vec<Lane>>,
    pub(super) stream: OpenStream,
    /// What inference computes from the weights alone, and whether it is there.
    pub(super) inference: SharedPart,
    inference_ready: Mutex<bool>,
    pub(super) weights: Buffer,
    literals: Buffer,
    pub(super) choices: Choices,
    pub(super) site: Arc<Site>,
}

/// What a plan computes from the weights alone.
#[derive(Debug)]
pub(super) struct SharedPart {
    pub(super) lowered: Lowered,
    regions: Regions,
    /// The region, then what only its computation needs.
    _memory: Buffer,
}

impl SharedPart {
    /// Makes room for what a program shares.
    pub(super) fn new(
        site: &Arc<Site>,
        shared: &Shared,
        fixed: &Regions,
        choices: Choices,
    ) -> Result<SharedPart, RunError> {
        let lowered = lower(&shared.plan, &Default::default(), choices)?;
        let mut layout = Layout::default();
        let run = layout.take(RUN_BYTES);
        let checks = layout.take(lowered.checks.len() as u64 * 8);
        let region = layout.take(shared.layout.elements as u64 * 4);
        let slab = layout.take(shared.plan.slab as u64 * 4);
        let scratch = layout.take(lowered.scratch_bytes);
        let memory = site.take(layout.bytes)?;
        let base = memory.address;
        let regions = Regions {
            slab: stretch(base + slab, shared.plan.slab),
            shared: stretch(base + region, shared.layout.elements),
            run: base + run,
            checks: base + checks,
            scratch: base + scratch,
            scratch_bytes: lowered.scratch_bytes,
            ..fixed.clone()
        };
        Ok(SharedPart {
            lowered,
            regions,
            _memory: memory,
        })
    }

    /// Where the results lie.
    pub(super) fn region(&self) -> Stretch {
        self.regions.shared
    }

    /// The work that computes it; `run` has the numbers of the run.
    pub(super) fn work(
        &self,
        site: &Site,
        run: Option<u64>,
        into: &mut Vec<Work>,
    ) -> Result<(), RunError> {
        let regions = Regions {
            run: run.unwrap_or(self.regions.run),
            ..self.regions.clone()
        };
        bind(site, &self.lowered, &regions, into)
    }
}

pub(super) fn stretch(address: u64, elements: usize) -> Stretch {
    Stretch { address, elements }
}

/// Places in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) bytes: u64,
}

impl Layout {
    pub(super) fn take(&mut self, bytes: u64) -> u64 {
        let at = self.bytes;
        self.bytes += bytes.max(1).next_multiple_of(ALIGNMENT);
        at
    }
}

impl CudaEngine {
    /// What the program has on the device; made anew, with the weights of the host, after the
    /// device was lost.
    pub(super) fn home(&self) -> Result<Arc<Home>, RunError> {
        let mut held = lock(&self.home);
        if let Some(home) = held.as_ref().filter(|home| !home.site.driver.is_lost()) {
            return Ok(Arc::clone(home));
        }
        *held = None;
        let home = Arc::new(self.make_home()?);
        *held = Some(Arc::clone(&home));
        Ok(home)
    }

    fn make_home(&self) -> Result<Home, RunError> {
        let site = self.shop.site()?;
        let layout = &self.program.layout;
        let stream = site.stream()?;
        let weights = site.take(layout.weights as u64 * 4)?;
        stream.upload(weights.address, bytes_of(&self.mirror))?;
        let literals = site.take(layout.literals.len() as u64 * 4)?;
        stream.upload(literals.address, bytes_of(&layout.literals))?;
        let choices = Choices {
            precision: self.precision,
            multiprocessors: site.driver.facts().multiprocessors,
            most_pages: None,
        };
        let fixed = Regions {
            weights: stretch(weights.address, layout.weights),
            literals: stretch(literals.address, layout.literals.len()),
            ..Regions::default()
        };
        Ok(Home {
            lanes: Mutex::default(),
            inference: SharedPart::new(&site, &self.program.shared, &fixed, choices)?,
            inference_ready: Mutex::new(false),
            stream,
            weights,
            literals,
            choices,
            site,
        })
    }

    /// Forgets what is on the device, so that the next call makes it anew.
    pub(super) fn leave(&self) {
        *lock(&self.home) = None;
    }

    /// Computes the results of a task over all rows of its feeds.
    pub(super) fn evaluate(
        &self,
        home: &Arc<Home>,
        which: Which,
        feeds: &Bound<'_>,
        look: Look<'_>,
    ) -> Result<Vec<Tensor>, RunError> {
        let task = match (which, &self.program.training) {
            (Which::Entry(index), _) => &self.program.entries[index],
            (_, Some(training)) => &training.evaluation,
            (_, None) => return Err(RunError::NotTrainable { what: "loss" }),
        };
        home.compute_inference()?;
        let mut results: Vec<(Vec<usize>, TensorData)> = task
            .results
            .iter()
            .map(|result| {
                let extents = shape::resolve(&result.shape, &feeds.symbols);
                let elements = extents.iter().product();
                let data = match result.dtype {
                    DType::Float32 => TensorData::F32(vec![0.0; elements]),
                    DType::Int32 => TensorData::I32(vec![0; elements]),
                };
                (extents, data)
            })
            .collect();
        let rows = task.rows.map(|rows| feeds.extent(rows));
        let (bucket, plan) = self.bucket(home, which, task, feeds, rows);
        let pieces = rows.map_or(1, |rows| rows.div_ceil(bucket).max(1));
        let mut under_way: VecDeque<(Lane, Piece)> = VecDeque::new();
        for index in 0..pieces {
            look_before(index, look)?;
            let first = index * bucket;
            let piece = Piece {
                first,
                count: rows.map_or(0, |rows| bucket.min(rows - first)),
            };
            let mut lane = if under_way.len() < LANES_AT_ONCE {
                self.lane(home, which, task, feeds, bucket, &plan)?
            } else if let Some((lane, before)) = under_way.pop_front() {
                lane.collect(before, task, &mut results)?;
                lane
            } else {
                self.lane(home, which, task, feeds, bucket, &plan)?
            };
            lane.submit(feeds, piece)?;
            under_way.push_back((lane, piece));
        }
        while let Some((lane, piece)) = under_way.pop_front() {
            lane.collect(piece, task, &mut results)?;
            home.keep_lane(lane);
        }
        let tensors = results
            .into_iter()
            .map(|(shape, data)| Tensor::new(shape, data));
        tensors
            .collect::<Result<_, _>>()
            .map_err(|error| RunError::Device {
                what: error.to_string(),
            })
    }

    /// How many rows run together, and the plan for so many: a power of two, so that few plans
    /// serve all numbers of rows; less than asked for where memory is short.
    fn bucket(
        &self,
        home: &Home,
        which: Which,
        task: &Task,
        feeds: &Bound<'_>,
        rows: Option<usize>,
    ) -> (usize, Arc<Plan>) {
        let (Some(rows), Some(symbol)) = (rows, task.rows) else {
            return (1, self.program.plan(which, &feeds.symbols));
        };
        let mut symbols = feeds.symbols.clone();
        let mut bucket = rows.clamp(1, MOST_ROWS).next_power_of_two();
        loop {
            symbols[symbol as usize] = bucket;
            let elements = |shape: &[Extent]| {
                let extents = shape::resolve(shape, &symbols).into_iter();
                extents.fold(1, usize::saturating_mul)
            };
            let inputs = task.inputs.iter();
            let fed = inputs.map(|index| elements(&self.program.inputs[*index as usize].shape));
            let results = task.results.iter().map(|result| elements(&result.shape));
            let staged = fed.chain(results).fold(0, usize::saturating_add);
            // A plan is made only where what goes in and out is little enough.
            let fits = bucket == 1 || staged <= MOST_STAGED;
            if fits {
                let plan = self.program.plan(which, &symbols);
                let held = staged.saturating_add(plan.slab) as u64;
                if bucket == 1 || held.saturating_mul(4) <= home.site.limit / 8 {
                    return (bucket, plan);
                }
            }
            bucket /= 2;
        }
    }

    fn lane(
        &self,
        home: &Arc<Home>,
        which: Which,
        task: &Task,
        feeds: &Bound<'_>,
        bucket: usize,
        plan: &Plan,
    ) -> Result<Lane, RunError> {
        let mut symbols = feeds.symbols.clone();
        if let Some(rows) = task.rows {
            symbols[rows as usize] = bucket;
        }
        let mut lanes = lock(&home.lanes);
        let known = lanes
            .iter()
            .position(|lane| lane.which == which && lane.symbols == symbols);
        if let Some(index) = known {
            return Ok(lanes.remove(index));
        }
        drop(lanes);
        match Lane::new(self, home, which, task, feeds, symbols.clone(), plan) {
            Err(RunError::OutOfMemory { .. }) => {
                // What other sizes keep goes first.
                lock(&home.lanes).clear();
                Lane::new(self, home, which, task, feeds, symbols, plan)
            }
            other => other,
        }
    }
}

impl Home {
    /// The regions that every run on it has.
    pub(super) fn fixed(&self, layout: &crate::program::Layout) -> Regions {
        Regions {
            weights: stretch(self.weights.address, layout.weights),
            literals: stretch(self.literals.address, layout.literals.len()),
            ..Regions::default()
        }
    }

    /// Computes what inference needs of the weights, if they changed.
    pub(super) fn compute_inference(&self) -> Result<(), RunError> {
        let mut ready = lock(&self.inference_ready);
        if *ready {
            return Ok(());
        }
        let mut work = Vec::new();
        self.inference.work(&self.site, None, &mut work)?;
        let mut script = Script::new(Arc::clone(&self.site), work);
        // SAFETY: the memory is the home's, and runs that read it come after this.
        unsafe { script.run(self.stream.stream)? };
        self.stream.wait()?;
        *ready = true;
        Ok(())
    }

    /// Forgets what was computed from the weights.
    pub(super) fn weights_changed(&self) {
        *lock(&self.inference_ready) = false;
    }

    fn keep_lane(&self, lane: Lane) {
        let mut lanes = lock(&self.lanes);
        lanes.push(lane);
        if lanes.len() > KEPT_LANES {
            lanes.remove(0);
        }
    }

    /// Gives back what runs of inference keep.
    pub(super) fn drop_lanes(&self) {
        lock(&self.lanes).clear();
    }
}

/// Rows of one run.
#[derive(Clone, Copy, Debug)]
struct Piece {
    first: usize,
    count: usize,
}

/// Where an input is staged.
#[derive(Clone, Copy, Debug)]
struct StagedInput {
    offset: usize,
    bytes: usize,
    /// Bytes of one row; none where the input has no rows.
    row_bytes: Option<usize>,
}

/// Everything for runs of one size: memory, a stream, and the work. Fields are dropped in order:
/// the stream is waited for first.
#[derive(Debug)]
struct Lane {
    which: Which,
    symbols: Vec<usize>,
    stream: OpenStream,
    script: Script,
    inputs: Vec<Option<StagedInput>>,
    /// Rows of a run; none where the task is not cut.
    rows: Option<usize>,
    checks: Vec<Check>,
    /// In the staging area: where numbers out of range are set and read, and the results.
    checks_in: usize,
    checks_out: usize,
    outputs: Vec<(usize, usize)>,
    staging: Pinned,
    _memory: Buffer,
}

impl Lane {
    fn new(
        engine: &CudaEngine,
        home: &Arc<Home>,
        which: Which,
        task: &Task,
        feeds: &Bound<'_>,
        symbols: Vec<usize>,
        plan: &Plan,
    ) -> Result<Lane, RunError> {
        let program = &engine.program;
        let site = &home.site;
        let lowered = lower(plan, &home.inference.lowered.unpacked, home.choices)?;
        // On the device, and in the same order in the staging area: the numbers of the run, the
        // inputs, the checks, the results. What goes in ends with the checks, what comes out
        // begins with them.
        let mut layout = Layout::default();
        let run = layout.take(RUN_BYTES);
        let mut inputs = Vec::new();
        let mut regions = home.fixed(&program.layout);
        for (info, tensor) in program.inputs.iter().zip(&feeds.inputs) {
            if tensor.is_none() {
                inputs.push(None);
                regions.inputs.push(Stretch::default());
                continue;
            }
            let extents = shape::resolve(&info.shape, &symbols);
            let elements: usize = extents.iter().product();
            let offset = layout.take(elements as u64 * 4);
            let by_row = matches!(
                (info.shape.first(), task.rows),
                (Some(Extent::Symbol(leading)), Some(rows)) if *leading == rows
            );
            inputs.push(Some(StagedInput {
                offset: offset as usize,
                bytes: elements * 4,
                row_bytes: by_row.then(|| extents[1..].iter().product::<usize>() * 4),
            }));
            regions.inputs.push(stretch(offset, elements));
        }
        let checks = layout.take(lowered.checks.len() as u64 * 8);
        let checks_end = layout.bytes;
        let mut outputs = Vec::new();
        for wanted in &task.results {
            let elements = shape::resolve(&wanted.shape, &symbols).iter().product();
            let offset = layout.take(elements as u64 * 4);
            outputs.push((offset as usize, elements));
            regions.outputs.push(stretch(offset, elements));
        }
        let results_end = layout.bytes;
        let slab = layout.take(plan.slab as u64 * 4);
        let scratch = layout.take(lowered.scratch_bytes);
        let memory = site.take(layout.bytes)?;
        let base = memory.address;
        for stretch in regions.inputs.iter_mut().chain(&mut regions.outputs) {
            stretch.address += base;
        }
        regions.slab = stretch(base + slab, plan.slab);
        regions.shared = home.inference.region();
        regions.run = base + run;
        regions.checks = base + checks;
        regions.scratch = base + scratch;
        regions.scratch_bytes = lowered.scratch_bytes;
        // Results come out beside what goes in, so that the two never wait for each other.
        let apart = checks_end as usize;
        let out_bytes = (results_end - checks) as usize;
        let mut staging = site.pin(apart + out_bytes)?;
        staging.write(0, apart + out_bytes).fill(0);
        let mut work = vec![Work::CopyIn {
            to: base,
            from: staging.at(0, apart)?,
            bytes: apart,
        }];
        bind(site, &lowered, &regions, &mut work)?;
        work.push(Work::CopyOut {
            to: staging.at(apart, out_bytes)?,
            from: base + checks,
            bytes: out_bytes,
        });
        let from_checks = |offset: usize| apart + offset - checks as usize;
        Ok(Lane {
            which,
            symbols: symbols.clone(),
            stream: site.stream()?,
            script: Script::new(Arc::clone(site), work),
            inputs,
            rows: task.rows.map(|rows| symbols[rows as usize]),
            checks: lowered.checks,
            checks_in: checks as usize,
            checks_out: apart,
            outputs: outputs
                .into_iter()
                .map(|(offset, elements)| (from_checks(offset), elements))
                .collect(),
            staging,
            _memory: memory,
        })
    }

    /// Copies the feeds of a piece and queues the run.
    fn submit(&mut self, feeds: &Bound<'_>, piece: Piece) -> Result<(), RunError> {
        for (input, tensor) in self.inputs.iter().zip(&feeds.inputs) {
            let (Some(input), Some(tensor)) = (input, tensor) else {
                continue;
            };
            let from = bytes_of_tensor(tensor);
            let to = self.staging.write(input.offset, input.bytes);
            let Some(row) = input.row_bytes else {
                to.copy_from_slice(from);
                continue;
            };
            let (own, rest) = to.split_at_mut(piece.count * row);
            own.copy_from_slice(&from[piece.first * row..][..piece.count * row]);
            if row == 0 {
                continue;
            }
            // Rows beyond the last repeat it: they are whatever a row may be.
            match own.rchunks_exact(row).next() {
                Some(last) => rest
                    .chunks_exact_mut(row)
                    .for_each(|to| to.copy_from_slice(last)),
                None => rest.fill(0),
            }
        }
        let none = vec![u64::MAX; self.checks.len()];
        self.staging.set_numbers(self.checks_in, &none);
        // SAFETY: the lane has the memory to itself, and waits before it is used again.
        unsafe { self.script.run(self.stream.stream) }
    }

    /// Waits for the run of a piece and takes its results.
    fn collect(
        &self,
        piece: Piece,
        task: &Task,
        results: &mut [(Vec<usize>, TensorData)],
    ) -> Result<(), RunError> {
        self.stream.wait()?;
        if self.rows.is_none() || piece.count > 0 {
            out_of_range(&self.checks, &self.staging, self.checks_out, |count| {
                count
                    .checked_div(self.rows.unwrap_or(0))
                    .map_or(0, |per_row| per_row * piece.first)
            })?;
        }
        for ((extents, data), ((offset, elements), wanted)) in results
            .iter_mut()
            .zip(self.outputs.iter().zip(&task.results))
        {
            let by_row = matches!(
                (wanted.shape.first(), task.rows),
                (Some(Extent::Symbol(leading)), Some(rows)) if *leading == rows
            );
            let (first, count) = if by_row {
                let per_row: usize = extents[1..].iter().product();
                (piece.first * per_row, piece.count * per_row)
            } else if piece.first == 0 {
                (0, *elements)
            } else {
                // A result without rows is the same from every piece; the first gave it.
                continue;
            };
            let from = self.staging.read(*offset, count * 4);
            let to = match data {
                TensorData::F32(values) => bytes_of_mut(&mut values[first..first + count]),
                TensorData::I32(values) => bytes_of_ints_mut(&mut values[first..first + count]),
            };
            to.copy_from_slice(from);
        }
        Ok(())
    }
}

/// The error of the first instruction that noted a number out of range. `before` says, for how
/// many numbers it has, how many come before those of this run.
pub(super) fn out_of_range(
    checks: &[Check],
    staging: &Pinned,
    offset: usize,
    before: impl Fn(usize) -> usize,
) -> Result<(), RunError> {
    for (index, check) in checks.iter().enumerate() {
        let noted = staging.number(offset + index * 8);
        if noted != u64::MAX {
            return Err(RunError::IndexOutOfRange {
                node: check.node,
                number: noted as u32 as i32,
                place: before(check.count) + (noted >> 32) as usize,
                size: check.size,
            });
        }
    }
    Ok(())
}

/// The values of a tensor.
pub(super) fn bytes_of_tensor(tensor: &Tensor) -> &[u8] {
    match tensor.data() {
        TensorData::F32(values) => bytes_of(values),
        TensorData::I32(values) => bytes_of_ints(values),
    }
}

impl Engine for CudaEngine {
    fn weights(&self) -> Vec<Vec<f32>> {
        let program = &self.program;
        let parameters = program.parameters().iter().zip(&program.layout.parameters);
        parameters
            .map(|(parameter, offset)| self.mirror[*offset..][..parameter.elements()].to_vec())
            .collect()
    }

    fn set_weights(&mut self, weights: &[Vec<f32>]) {
        for (values, offset) in weights.iter().zip(&self.program.layout.parameters) {
            self.mirror[*offset..][..values.len()].copy_from_slice(values);
        }
        let uploaded = self.home().and_then(|home| {
            home.weights_changed();
            home.stream
                .upload(home.weights.address, bytes_of(&self.mirror))
        });
        if uploaded.is_err() {
            // The next call makes it anew from the host's weights, or says why it cannot.
            self.leave();
        }
    }

    fn infer(
        &self,
        entry: usize,
        feeds: &Bound<'_>,
        look: Look<'_>,
    ) -> Result<Vec<Tensor>, RunError> {
        let once = || self.evaluate(&self.home()?, Which::Entry(entry), feeds, look);
        match once() {
            // The host has the weights, so a lost device is no reason to fail if it comes back.
            Err(RunError::DeviceLost { .. }) => {
                self.leave();
                once()
            }
            other => other,
        }
    }

    fn train<'a>(&'a mut self, job: Job<'a>) -> Result<Box<dyn Trainer + 'a>, RunError> {
        Ok(Box::new(CudaTrainer::new(self, job)?))
    }

    fn decoder(&self, slots: usize) -> Result<Box<dyn Decoder + '_>, RunError> {
        Ok(Box::new(CudaDecoder::new(self, slots)?))
    }
}
