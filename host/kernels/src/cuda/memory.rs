//! A device that is open, with what all sessions on it share: one pool of memory and the kernels
//! that were compiled.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::{Driver, Fault, Function, Stream, Unit};
use super::source::{Family, KernelText, unit_text};
use crate::error::RunError;

/// Small stretches are multiples of this many bytes.
const SMALL: u64 = 512;

/// Large stretches are multiples of this many bytes, so that they fit other wants again.
const LARGE: u64 = 2 << 20;

/// Bytes that are copied at a time when host memory is not pinned.
const BOUNCE_BYTES: usize = 4 << 20;

/// A device that is open.
pub(super) struct Site {
    pub(super) driver: Arc<dyn Driver>,
    /// The most bytes that the pool takes.
    pub(super) limit: u64,
    pool: Mutex<Pool>,
    kernels: Mutex<HashMap<String, Function>>,
}

impl fmt::Debug for Site {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Site")
            .field("driver", &self.driver)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Pool {
    /// Stretches nobody has, by their size.
    free: BTreeMap<u64, Vec<u64>>,
    /// Bytes taken from the driver, and those that somebody has.
    taken: u64,
    held: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Site {
    /// `limit` bytes at the most; by default nine tenths of what is free now.
    pub(super) fn open(driver: Arc<dyn Driver>, limit: Option<u64>) -> Result<Site, Fault> {
        let limit = match limit {
            Some(limit) => limit,
            None => driver.free_bytes()? / 10 * 9,
        };
        Ok(Site {
            driver,
            limit,
            pool: Mutex::default(),
            kernels: Mutex::default(),
        })
    }

    /// What a fault is to the caller of a run.
    pub(super) fn error(&self, fault: Fault) -> RunError {
        match fault {
            Fault::OutOfMemory { bytes } => RunError::OutOfMemory {
                bytes,
                held: lock(&self.pool).held,
                limit: self.limit,
            },
            Fault::Lost { what } => RunError::DeviceLost { what },
            Fault::Compile { log } => RunError::Device {
                what: format!("its kernels do not compile: {log}"),
            },
            Fault::Refused { what } => RunError::Device { what },
        }
    }

    /// Takes memory from the pool. What is in it is whatever was there.
    pub(super) fn take(self: &Arc<Self>, bytes: u64) -> Result<Buffer, RunError> {
        let grain = if bytes <= LARGE / 2 { SMALL } else { LARGE };
        let rounded = bytes.max(1).next_multiple_of(grain);
        let mut pool = lock(&self.pool);
        // A free stretch may be a quarter too large.
        let found = pool
            .free
            .range(rounded..=rounded.saturating_add(rounded / 4))
            .next()
            .map(|(size, _)| *size);
        if let Some(size) = found
            && let Some(stretches) = pool.free.get_mut(&size)
            && let Some(address) = stretches.pop()
        {
            if stretches.is_empty() {
                pool.free.remove(&size);
            }
            pool.held += size;
            return Ok(self.buffer(address, size));
        }
        if pool.taken.saturating_add(rounded) > self.limit {
            self.release_free(&mut pool);
        }
        let over = pool.taken.saturating_add(rounded) > self.limit;
        let address = if over {
            Err(Fault::OutOfMemory { bytes: rounded })
        } else {
            self.driver.allocate(rounded).or_else(|fault| {
                if matches!(fault, Fault::OutOfMemory { .. }) {
                    self.release_free(&mut pool);
                    self.driver.allocate(rounded)
                } else {
                    Err(fault)
                }
            })
        };
        match address {
            Ok(address) => {
                pool.taken += rounded;
                pool.held += rounded;
                Ok(self.buffer(address, rounded))
            }
            Err(fault) => {
                drop(pool);
                Err(self.error(fault))
            }
        }
    }

    fn buffer(self: &Arc<Self>, address: u64, bytes: u64) -> Buffer {
        Buffer {
            site: Arc::clone(self),
            address,
            bytes,
        }
    }

    fn release_free(&self, pool: &mut Pool) {
        for (size, stretches) in std::mem::take(&mut pool.free) {
            for address in stretches {
                pool.taken = pool.taken.saturating_sub(size);
                // SAFETY: nobody has it.
                unsafe { self.driver.release(address) };
            }
        }
    }

    fn give_back(&self, address: u64, bytes: u64) {
        let mut pool = lock(&self.pool);
        pool.held = pool.held.saturating_sub(bytes);
        pool.free.entry(bytes).or_default().push(address);
    }

    /// Takes pinned memory of the host.
    pub(super) fn pin(self: &Arc<Self>, bytes: usize) -> Result<Pinned, RunError> {
        let bytes = bytes.max(1);
        let address = self.driver.pin(bytes).map_err(|fault| self.error(fault))?;
        Ok(Pinned {
            site: Arc::clone(self),
            address,
            bytes,
        })
    }

    /// Opens a stream.
    pub(super) fn stream(self: &Arc<Self>) -> Result<OpenStream, RunError> {
        let stream = self
            .driver
            .open_stream()
            .map_err(|fault| self.error(fault))?;
        Ok(OpenStream {
            site: Arc::clone(self),
            stream,
        })
    }

    /// The kernels of these texts, in order; compiles what is not there yet.
    pub(super) fn load(&self, texts: &[KernelText]) -> Result<Vec<Function>, RunError> {
        let mut kernels = lock(&self.kernels);
        let mut missing: BTreeMap<Family, Vec<&KernelText>> = BTreeMap::new();
        for text in texts {
            if !kernels.contains_key(&text.name) {
                missing.entry(text.family).or_default().push(text);
            }
        }
        for (family, mut texts) in missing {
            texts.sort_unstable();
            texts.dedup();
            let unit = Unit {
                source: unit_text(family, &texts),
                names: texts.iter().map(|text| text.name.clone()).collect(),
            };
            let functions = self.driver.load(&unit).map_err(|fault| self.error(fault))?;
            for (name, function) in unit.names.into_iter().zip(functions) {
                kernels.insert(name, function);
            }
        }
        let found: Option<Vec<Function>> = texts
            .iter()
            .map(|text| kernels.get(&text.name).copied())
            .collect();
        found.ok_or_else(|| RunError::Device {
            what: "a kernel is missing from what was compiled".into(),
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let mut pool = std::mem::take(&mut *lock(&self.pool));
        self.release_free(&mut pool);
    }
}

/// Memory of the device, from the pool.
pub(super) struct Buffer {
    site: Arc<Site>,
    pub(super) address: u64,
    pub(super) bytes: u64,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Buffer({} bytes)", self.bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.site.give_back(self.address, self.bytes);
    }
}

/// Memory of the host that the device reads and writes by itself.
pub(super) struct Pinned {
    site: Arc<Site>,
    address: *mut u8,
    bytes: usize,
}

// SAFETY: a plain piece of memory that belongs to whoever has the value.
unsafe impl Send for Pinned {}
// SAFETY: shared, it is only read.
unsafe impl Sync for Pinned {}

impl fmt::Debug for Pinned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pinned({} bytes)", self.bytes)
    }
}

impl Pinned {
    /// Bytes from `offset` on, to be read; a stretch outside is empty. Nothing queued writes them.
    pub(super) fn read(&self, offset: usize, bytes: usize) -> &[u8] {
        if offset.saturating_add(bytes) > self.bytes {
            return &[];
        }
        // SAFETY: inside the memory, which was set to zeros at first.
        unsafe { std::slice::from_raw_parts(self.address.add(offset), bytes) }
    }

    /// The same to be written. Nothing queued reads them.
    pub(super) fn write(&mut self, offset: usize, bytes: usize) -> &mut [u8] {
        if offset.saturating_add(bytes) > self.bytes {
            return &mut [];
        }
        // SAFETY: as above, and borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.address.add(offset), bytes) }
    }

    /// A 64-bit number.
    pub(super) fn number(&self, offset: usize) -> u64 {
        let mut bytes = [0; 8];
        let from = self.read(offset, 8);
        if from.len() == 8 {
            bytes.copy_from_slice(from);
        }
        u64::from_ne_bytes(bytes)
    }

    /// Sets 64-bit numbers.
    pub(super) fn set_numbers(&mut self, offset: usize, numbers: &[u64]) {
        let to = self.write(offset, numbers.len() * 8);
        for (to, number) in to.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_ne_bytes());
        }
    }

    /// The address of a stretch, if it is inside.
    pub(super) fn at(&self, offset: usize, bytes: usize) -> Result<*mut u8, RunError> {
        if offset.saturating_add(bytes) > self.bytes {
            return Err(RunError::Device {
                what: format!("{bytes} bytes at {offset} are outside a staging area"),
            });
        }
        // SAFETY: inside the memory.
        Ok(unsafe { self.address.add(offset) })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the streams that use it were waited for by their owners.
        unsafe { self.site.driver.unpin(self.address, self.bytes) };
    }
}

/// A stream of its own.
#[derive(Debug)]
pub(super) struct OpenStream {
    site: Arc<Site>,
    pub(super) stream: Stream,
}

impl OpenStream {
    /// Waits until everything on it is done.
    pub(super) fn wait(&self) -> Result<(), RunError> {
        self.site
            .driver
            .wait(self.stream)
            .map_err(|fault| self.site.error(fault))
    }

    /// Copies to the device and waits.
    pub(super) fn upload(&self, to: u64, from: &[u8]) -> Result<(), RunError> {
        let mut bounce = self.site.pin(from.len().min(BOUNCE_BYTES))?;
        let mut done = 0_u64;
        for part in from.chunks(BOUNCE_BYTES) {
            bounce.write(0, part.len()).copy_from_slice(part);
            let at = bounce.at(0, part.len())?;
            // SAFETY: the caller names memory of the device of so many bytes; the bounce buffer
            // stays until the copy was waited for.
            let queued = unsafe {
                self.site
                    .driver
                    .copy_in(self.stream, to + done, at, part.len())
            };
            queued.map_err(|fault| self.site.error(fault))?;
            self.wait()?;
            done += part.len() as u64;
        }
        Ok(())
    }

    /// Copies from the device and waits.
    pub(super) fn download(&self, to: &mut [u8], from: u64) -> Result<(), RunError> {
        let bounce = self.site.pin(to.len().min(BOUNCE_BYTES))?;
        let mut done = 0_u64;
        for part in to.chunks_mut(BOUNCE_BYTES) {
            let at = bounce.at(0, part.len())?;
            // SAFETY: as for `upload`.
            let queued = unsafe {
                self.site
                    .driver
                    .copy_out(self.stream, at, from + done, part.len())
            };
            queued.map_err(|fault| self.site.error(fault))?;
            self.wait()?;
            part.copy_from_slice(bounce.read(0, part.len()));
            done += part.len() as u64;
        }
        Ok(())
    }

    /// Writes zeros and waits.
    pub(super) fn clear(&self, buffer: &Buffer) -> Result<(), RunError> {
        // SAFETY: the buffer's own bytes.
        let queued = unsafe {
            self.site
                .driver
                .zero(self.stream, buffer.address, buffer.bytes as usize)
        };
        queued.map_err(|fault| self.site.error(fault))?;
        self.wait()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        // What it was doing must not outlive the memory that goes after it.
        let _ = self.site.driver.wait(self.stream);
        self.site.driver.close_stream(self.stream);
    }
}

/// Numbers as bytes.
pub(super) fn bytes_of(values: &[f32]) -> &[u8] {
    // SAFETY: any float32 is four bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len() * 4) }
}

/// Int32 numbers as bytes.
pub(super) fn bytes_of_ints(values: &[i32]) -> &[u8] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len() * 4) }
}

/// Numbers as bytes to be written.
pub(super) fn bytes_of_mut(values: &mut [f32]) -> &mut [u8] {
    // SAFETY: any four bytes are a float32.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len() * 4) }
}

/// Int32 numbers as bytes to be written.
pub(super) fn bytes_of_ints_mut(values: &mut [i32]) -> &mut [u8] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len() * 4) }
}
