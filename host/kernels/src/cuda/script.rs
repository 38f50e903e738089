//! Work with its addresses: what a plan became for the memory of one run, queued as it is the
//! first time, recorded the second, and replayed as a whole from then on.

use std::sync::Arc;

use super::driver::{Fault, Function, Grid, MatrixProduct, Recorded, Stream};
use super::lower::{Argument, Lowered, Operation};
use super::memory::Site;
use crate::error::RunError;
use crate::plan::{Place, Region};

/// A stretch of float32 or int32 numbers on the device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stretch {
    pub(super) address: u64,
    pub(super) elements: usize,
}

/// The regions of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Regions {
    pub(super) slab: Stretch,
    pub(super) shared: Stretch,
    pub(super) weights: Stretch,
    pub(super) literals: Stretch,
    pub(super) gradients: Stretch,
    pub(super) inputs: Vec<Stretch>,
    pub(super) outputs: Vec<Stretch>,
    /// The numbers of the run.
    pub(super) run: u64,
    /// Words that note numbers out of range.
    pub(super) checks: u64,
    pub(super) scratch: u64,
    pub(super) scratch_bytes: u64,
    /// In generation: of each attention the keys and values that it keeps.
    pub(super) kept: Vec<Kept>,
    /// The pages of each sequence, and how many positions each has.
    pub(super) pages: u64,
    pub(super) lengths: u64,
}

/// The keys and values that an attention keeps, by the number of its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) id: u32,
    pub(super) keys: u64,
    pub(super) values: u64,
}

impl Regions {
    fn address(&self, place: Place, elements: usize) -> Result<u64, RunError> {
        let stretch = match place.region {
            Region::Slab => Some(self.slab),
            Region::Shared => Some(self.shared),
            Region::Weights => Some(self.weights),
            Region::Literals => Some(self.literals),
            Region::Gradients => Some(self.gradients),
            Region::Input(index) => self.inputs.get(index as usize).copied(),
            Region::Output(index) => self.outputs.get(index as usize).copied(),
        };
        if elements == 0 {
            // Nothing may begin anywhere.
            return Ok(stretch.map_or(0, |stretch| stretch.address));
        }
        match stretch {
            Some(stretch)
                if place.offset <= stretch.elements
                    && elements <= stretch.elements - place.offset =>
            {
                Ok(stretch.address + place.offset as u64 * 4)
            }
            _ => Err(RunError::Device {
                what: format!("{elements} elements at {place:?} are outside their region"),
            }),
        }
    }

    fn kept(&self, id: u32) -> Result<Kept, RunError> {
        let kept = self.kept.iter().find(|kept| kept.id == id).copied();
        kept.ok_or_else(|| RunError::Device {
            what: format!("nothing is kept of attention {id}"),
        })
    }

    fn argument(&self, argument: &Argument) -> Result<u64, RunError> {
        Ok(match argument {
            Argument::Place(place, elements) => self.address(*place, *elements)?,
            Argument::Number(number) => *number,
            Argument::Check(index) => self.checks + *index as u64 * 8,
            Argument::Run => self.run,
            Argument::Scratch(offset) => self.scratch + offset,
            Argument::KeptKeys(id) => self.kept(*id)?.keys,
            Argument::KeptValues(id) => self.kept(*id)?.values,
            Argument::Pages => self.pages,
            Argument::Lengths => self.lengths,
        })
    }
}

/// One thing to be queued.
#[derive(Clone, Debug)]
pub(super) enum Work {
    Launch {
        function: Function,
        grid: Grid,
        arguments: Vec<u64>,
    },
    Product(Box<MatrixProduct>),
    CopyIn {
        to: u64,
        from: *const u8,
        bytes: usize,
    },
    CopyOut {
        to: *mut u8,
        from: u64,
        bytes: usize,
    },
}

/// Gives the operations of a plan their addresses.
pub(super) fn bind(
    site: &Site,
    lowered: &Lowered,
    regions: &Regions,
    into: &mut Vec<Work>,
) -> Result<(), RunError> {
    if lowered.scratch_bytes > regions.scratch_bytes {
        return Err(RunError::Device {
            what: format!(
                "a plan wants {} bytes of scratch memory and has {}",
                lowered.scratch_bytes, regions.scratch_bytes
            ),
        });
    }
    let functions = site.load(&lowered.kernels)?;
    for operation in &lowered.operations {
        into.push(match operation {
            Operation::Launch {
                kernel,
                grid,
                arguments,
            } => {
                let function = functions.get(*kernel).copied();
                let function = function.ok_or_else(|| RunError::Device {
                    what: "a plan names a kernel that it does not have".into(),
                })?;
                let arguments = arguments.iter().map(|argument| regions.argument(argument));
                Work::Launch {
                    function,
                    grid: *grid,
                    arguments: arguments.collect::<Result<_, _>>()?,
                }
            }
            Operation::Product(of) => {
                let mut product = of.product;
                let [a, b, d] = &of.operands;
                product.a.address = regions.argument(a)?;
                product.b.address = regions.argument(b)?;
                product.d.address = regions.argument(d)?;
                if let Some(bias) = &of.bias {
                    product.bias = regions.argument(bias)?;
                }
                product.workspace = regions.scratch + of.workspace;
                Work::Product(Box::new(product))
            }
        });
    }
    Ok(())
}

/// Work in order.
#[derive(Debug)]
pub(super) struct Script {
    site: Arc<Site>,
    work: Vec<Work>,
    runs: u32,
    recorded: Option<Recorded>,
}

// SAFETY: the addresses of host memory in it are those of pinned memory that its owner keeps
// beside it, and that only its owner touches.
unsafe impl Send for Script {}
// SAFETY: as above; a script that is shared does nothing.
unsafe impl Sync for Script {}

impl Script {
    pub(super) fn new(site: Arc<Site>, work: Vec<Work>) -> Script {
        Script {
            site,
            work,
            runs: 0,
            recorded: None,
        }
    }

    /// Queues the work.
    ///
    /// # Safety
    /// What the work names is alive and stays so until the stream was waited for; nothing else
    /// uses what it writes meanwhile.
    pub(super) unsafe fn run(&mut self, stream: Stream) -> Result<(), RunError> {
        let site = Arc::clone(&self.site);
        let driver = &site.driver;
        self.runs = self.runs.saturating_add(1);
        // The first run goes as it is: it may be the only one, and kernels are made ready by it.
        if self.runs == 2 {
            driver
                .begin_recording(stream)
                .map_err(|fault| site.error(fault))?;
            // SAFETY: the caller's promise.
            let queued = unsafe { self.queue(stream) };
            let recorded = driver.end_recording(stream);
            match (queued, recorded) {
                (Ok(()), Ok(recorded)) => self.recorded = Some(recorded),
                (Err(fault @ Fault::Lost { .. }), _) | (_, Err(fault @ Fault::Lost { .. })) => {
                    return Err(site.error(fault));
                }
                // Something in it cannot be recorded; it is queued as it is then.
                (_, Ok(recorded)) => driver.forget(recorded),
                (_, Err(_)) => {}
            }
        }
        let queued = match self.recorded {
            // SAFETY: the caller's promise.
            Some(recorded) => unsafe { driver.replay(stream, recorded) },
            // SAFETY: as above.
            None => unsafe { self.queue(stream) },
        };
        queued.map_err(|fault| site.error(fault))
    }

    /// # Safety
    /// As [`Script::run`].
    unsafe fn queue(&self, stream: Stream) -> Result<(), Fault> {
        let driver = &self.site.driver;
        for work in &self.work {
            // SAFETY: the caller's promise; addresses were compared with their regions.
            unsafe {
                match work {
                    Work::Launch {
                        function,
                        grid,
                        arguments,
                    } => driver.launch(stream, *function, *grid, arguments)?,
                    Work::Product(product) => driver.multiply(stream, product)?,
                    Work::CopyIn { to, from, bytes } => {
                        driver.copy_in(stream, *to, *from, *bytes)?;
                    }
                    Work::CopyOut { to, from, bytes } => {
                        driver.copy_out(stream, *to, *from, *bytes)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Some(recorded) = self.recorded {
            self.site.driver.forget(recorded);
        }
    }
}
