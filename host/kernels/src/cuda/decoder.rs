//! Generation on a CUDA device: runs of the program over the new positions alone. Keys and values
//! lie in pages of a few positions, so that a short sequence holds little (Kwon et al. 2023); all
//! attentions share the numbers of pages. A run is recorded for each number of sequences and of new
//! positions.

use std::sync::Arc;

use super::engine::{CudaEngine, Home, Layout, RUN_BYTES, out_of_range, stretch};
use super::lower::{Check, Choices, lower};
use super::memory::{Buffer, OpenStream, Pinned};
use super::script::{Kept, Script, Stretch, Work, bind};
use crate::backend::Decoder;
use crate::error::RunError;
use crate::program::{Generating, Program, Which};
use crate::shape;

/// Positions of a page; as in the template.
const PAGE: usize = 16;

/// Pages that there is memory for at first.
const FIRST_PAGES: usize = 8;

/// Sizes of runs whose memory is kept.
const KEPT_LANES: usize = 16;

/// Sequences under way. Fields are dropped in order: the stream is waited for first.
pub(super) struct CudaDecoder<'a> {
    stream: OpenStream,
    lanes: Vec<DecodeLane>,
    layers: Vec<KeptBuffers>,
    home: Arc<Home>,
    program: Arc<Program>,
    engine: &'a CudaEngine,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Pages that there is memory for.
    pages: usize,
}

#[derive(Debug, Default)]
struct Slot {
    length: usize,
    pages: Vec<u32>,
}

/// What one attention keeps.
#[derive(Debug)]
struct KeptBuffers {
    id: u32,
    /// Bytes of a page.
    page_bytes: u64,
    keys: Buffer,
    values: Buffer,
}

/// Everything for runs of one size.
#[derive(Debug)]
struct DecodeLane {
    rows: usize,
    time: usize,
    script: Script,
    checks: Vec<Check>,
    tokens: usize,
    positions: usize,
    pages: usize,
    lengths: usize,
    checks_in: usize,
    checks_out: usize,
    logits: usize,
    staging: Pinned,
    _memory: Buffer,
}

fn generating(program: &Program) -> Result<&Generating, RunError> {
    program.generating.as_ref().ok_or(RunError::NotGenerating)
}

impl<'a> CudaDecoder<'a> {
    pub(super) fn new(engine: &'a CudaEngine, slots: usize) -> Result<Self, RunError> {
        let program = Arc::clone(&engine.program);
        let home = engine.home()?;
        let site = &home.site;
        let mut layers = Vec::new();
        for layer in &generating(&program)?.layers {
            let page_bytes = (layer.elements * PAGE * 4) as u64;
            layers.push(KeptBuffers {
                id: layer.id,
                page_bytes,
                keys: site.take(FIRST_PAGES as u64 * page_bytes)?,
                values: site.take(FIRST_PAGES as u64 * page_bytes)?,
            });
        }
        home.compute_inference()?;
        Ok(CudaDecoder {
            stream: site.stream()?,
            lanes: Vec::new(),
            layers,
            program,
            engine,
            slots: (0..slots).map(|_| Slot::default()).collect(),
            free: (0..FIRST_PAGES as u32).rev().collect(),
            pages: FIRST_PAGES,
            home,
        })
    }

    /// A page that no sequence has; memory doubles when there is none.
    fn page(&mut self) -> Result<u32, RunError> {
        if let Some(page) = self.free.pop() {
            return Ok(page);
        }
        let more = 2 * self.pages;
        // What is recorded has the old addresses.
        self.stream.wait()?;
        self.lanes.clear();
        let site = Arc::clone(&self.home.site);
        for layer in &mut self.layers {
            let old = self.pages as u64 * layer.page_bytes;
            for buffer in [&mut layer.keys, &mut layer.values] {
                let larger = site.take(more as u64 * layer.page_bytes)?;
                // SAFETY: both are at least as large as what is copied, and apart.
                let copied = unsafe {
                    site.driver.copy_within(
                        self.stream.stream,
                        larger.address,
                        buffer.address,
                        old as usize,
                    )
                };
                copied.map_err(|fault| site.error(fault))?;
                self.stream.wait()?;
                *buffer = larger;
            }
        }
        self.free
            .extend((self.pages..more).rev().map(|page| page as u32));
        self.pages = more;
        // There are more than before, so the first of them is there.
        Ok(self.free.pop().unwrap_or(0))
    }

    /// The work of runs over so many sequences and new positions, by index.
    fn lane(&mut self, rows: usize, time: usize) -> Result<usize, RunError> {
        let known = self
            .lanes
            .iter()
            .position(|lane| (lane.rows, lane.time) == (rows, time));
        if let Some(index) = known {
            return Ok(index);
        }
        if self.lanes.len() >= KEPT_LANES {
            self.lanes.remove(0);
        }
        let lane = self.make_lane(rows, time)?;
        self.lanes.push(lane);
        Ok(self.lanes.len() - 1)
    }

    fn make_lane(&self, rows: usize, time: usize) -> Result<DecodeLane, RunError> {
        let (program, site) = (&self.program, &self.home.site);
        let of = generating(program)?;
        let mut symbols = vec![0; program.graph().symbols.len()];
        symbols[of.rows as usize] = rows;
        symbols[of.time as usize] = time;
        let plan = program.plan(Which::Generation, &symbols);
        let most = of.context.div_ceil(PAGE).max(1);
        let choices = Choices {
            most_pages: Some(most),
            ..self.home.choices
        };
        let lowered = lower(&plan, &self.home.inference.lowered.unpacked, choices)?;
        let mut layout = Layout::default();
        let run = layout.take(RUN_BYTES);
        let tokens = layout.take((rows * time * 4) as u64);
        let positions = layout.take((rows * time * 4) as u64);
        let pages = layout.take((rows * most * 4) as u64);
        let lengths = layout.take((rows * 4) as u64);
        let checks = layout.take(lowered.checks.len() as u64 * 8);
        let in_bytes = layout.bytes as usize;
        let mut regions = self.home.fixed(&program.layout);
        for result in &of.task.results {
            let elements = shape::resolve(&result.shape, &symbols).iter().product();
            let offset = layout.take(elements as u64 * 4);
            regions.outputs.push(stretch(offset, elements));
        }
        let slab = layout.take(plan.slab as u64 * 4);
        let scratch = layout.take(lowered.scratch_bytes);
        let memory = site.take(layout.bytes)?;
        let base = memory.address;
        for input in 0..program.inputs.len() as u32 {
            regions.inputs.push(if input == of.tokens {
                stretch(base + tokens, rows * time)
            } else if of.positions == Some(input) {
                stretch(base + positions, rows * time)
            } else {
                Stretch::default()
            });
        }
        for output in &mut regions.outputs {
            output.address += base;
        }
        regions.slab = stretch(base + slab, plan.slab);
        regions.shared = self.home.inference.region();
        regions.run = base + run;
        regions.checks = base + checks;
        regions.scratch = base + scratch;
        regions.scratch_bytes = lowered.scratch_bytes;
        regions.pages = base + pages;
        regions.lengths = base + lengths;
        regions.kept = self
            .layers
            .iter()
            .map(|layer| Kept {
                id: layer.id,
                keys: layer.keys.address,
                values: layer.values.address,
            })
            .collect();
        let checks_bytes = lowered.checks.len() * 8;
        let row_bytes = of.vocabulary * 4;
        let checks_out = in_bytes;
        let logits = checks_out + checks_bytes;
        let mut staging = site.pin(logits + rows * row_bytes)?;
        staging.write(0, logits + rows * row_bytes).fill(0);
        let mut work = vec![Work::CopyIn {
            to: base,
            from: staging.at(0, in_bytes)?,
            bytes: in_bytes,
        }];
        bind(site, &lowered, &regions, &mut work)?;
        if checks_bytes > 0 {
            work.push(Work::CopyOut {
                to: staging.at(checks_out, checks_bytes)?,
                from: base + checks,
                bytes: checks_bytes,
            });
        }
        // Of each sequence the last new position alone comes back.
        let result = regions.outputs.first().copied().unwrap_or_default();
        if result.elements != rows * time * of.vocabulary {
            return Err(RunError::Device {
                what: format!(
                    "{} logits of {rows} times {time} positions",
                    result.elements
                ),
            });
        }
        for row in 0..rows {
            work.push(Work::CopyOut {
                to: staging.at(logits + row * row_bytes, row_bytes)?,
                from: result.address + ((row * time + time - 1) * row_bytes) as u64,
                bytes: row_bytes,
            });
        }
        Ok(DecodeLane {
            rows,
            time,
            script: Script::new(Arc::clone(site), work),
            checks: lowered.checks,
            tokens: tokens as usize,
            positions: positions as usize,
            pages: pages as usize,
            lengths: lengths as usize,
            checks_in: checks as usize,
            checks_out,
            logits,
            staging,
            _memory: memory,
        })
    }
}

/// Writes numbers of four bytes.
fn set(to: &mut [u8], numbers: impl Iterator<Item = u32>) {
    for (to, number) in to.chunks_exact_mut(4).zip(numbers) {
        to.copy_from_slice(&number.to_ne_bytes());
    }
}

impl Decoder for CudaDecoder<'_> {
    fn advance(&mut self, slots: &[usize], tokens: &[i32]) -> Result<Vec<f32>, RunError> {
        let time = tokens.len() / slots.len().max(1);
        if time == 0 {
            return Ok(Vec::new());
        }
        for slot in slots {
            while self.slots[*slot].pages.len() * PAGE < self.slots[*slot].length + time {
                let page = self.page()?;
                self.slots[*slot].pages.push(page);
            }
        }
        let vocabulary = generating(&self.program)?.vocabulary;
        let index = self.lane(slots.len(), time)?;
        let lane = &mut self.lanes[index];
        let chosen = || slots.iter().map(|slot| &self.slots[*slot]);
        let staging = &mut lane.staging;
        let count = slots.len() * time * 4;
        set(
            staging.write(lane.tokens, count),
            tokens.iter().map(|token| *token as u32),
        );
        set(
            staging.write(lane.positions, count),
            chosen().flat_map(|slot| (slot.length..slot.length + time).map(|at| at as u32)),
        );
        set(
            staging.write(lane.lengths, slots.len() * 4),
            chosen().map(|slot| slot.length as u32),
        );
        let most = generating(&self.program)?.context.div_ceil(PAGE).max(1);
        for (row, slot) in chosen().enumerate() {
            let to = staging.write(lane.pages + row * most * 4, slot.pages.len().min(most) * 4);
            set(to, slot.pages.iter().copied());
        }
        let none = vec![u64::MAX; lane.checks.len()];
        staging.set_numbers(lane.checks_in, &none);
        // SAFETY: the lane and the pages are this decoder's, which waits below.
        unsafe { lane.script.run(self.stream.stream)? };
        self.stream.wait()?;
        out_of_range(&lane.checks, &lane.staging, lane.checks_out, |_| 0)?;
        for slot in slots {
            self.slots[*slot].length += time;
        }
        let found = lane
            .staging
            .read(lane.logits, slots.len() * vocabulary * 4)
            .chunks_exact(4)
            .map(|bytes| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        Ok(found.collect())
    }

    fn length(&self, slot: usize) -> usize {
        self.slots[slot].length
    }

    fn clear(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.length = 0;
        self.free.append(&mut slot.pages);
    }
}

impl Drop for CudaDecoder<'_> {
    fn drop(&mut self) {
        // A device that was lost on the way is opened again by the next call.
        if self.home.site.driver.is_lost() {
            self.engine.leave();
        }
    }
}
