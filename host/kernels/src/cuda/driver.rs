//! What a CUDA device does for the engine: memory, streams, kernels from source, captured graphs.
//!
//! Everything above this trait is the same whether it is NVIDIA's driver behind it or, in tests on
//! machines without a device, the kernels' own source compiled for the processor.

use std::fmt::Debug;
use std::sync::Arc;

/// Why a device did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no room for so many bytes.
    #[error("no room for {bytes} bytes")]
    OutOfMemory {
        /// What was asked for.
        bytes: u64,
    },
    /// The device does not answer any more: nothing that was on it can be had again.
    #[error("the device is lost: {what}")]
    Lost {
        /// What the driver said.
        what: String,
    },
    /// The source of kernels does not compile.
    #[error("kernels do not compile: {log}")]
    Compile {
        /// What the compiler said.
        log: String,
    },
    /// The driver, or a library, refused.
    #[error("{what}")]
    Refused {
        /// Which function, and what it said.
        what: String,
    },
}

/// What is known of a device that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// A name for people.
    pub name: String,
    /// Major and minor, as in 9.0.
    pub compute_capability: [u32; 2],
    /// Processors that run blocks.
    pub multiprocessors: u32,
    /// All memory.
    pub memory_bytes: u64,
    /// Whether there is a library of matrix products on tensor cores.
    pub has_products: bool,
    /// What versions are at work.
    pub versions: String,
}

/// Kernels to be compiled together.
#[derive(Clone, Debug)]
pub struct Unit {
    /// CUDA C++ that includes nothing.
    pub source: String,
    /// The kernels that are wanted of it.
    pub names: Vec<String>,
}

/// A kernel by number, for as long as its driver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Function(pub u64);

/// A stream by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream(pub u64);

/// Recorded work by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Recorded(pub u64);

/// How many blocks run a kernel, each of how many threads. Both are one-dimensional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks.
    pub blocks: u32,
    /// Threads of a block.
    pub threads: u32,
}

/// The type of the operands of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operands {
    /// float32, taken at the precision of TensorFloat-32.
    Tf32,
    /// bfloat16.
    Bf16,
}

/// A matrix of a product, stored by columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// Where it begins.
    pub address: u64,
    /// Elements from one column to the next.
    pub leading: u64,
    /// Elements from one matrix of the batch to the next.
    pub batch_stride: u64,
    /// Whether what is stored is its transpose.
    pub transposed: bool,
}

/// `D = A B`, by columns: [rows, inner] times [inner, columns], summed and stored in float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixProduct {
    /// Rows of A and D.
    pub rows: u64,
    /// Columns of B and D.
    pub columns: u64,
    /// Columns of A, rows of B.
    pub inner: u64,
    /// Products of a batch.
    pub batch: u64,
    /// The type of A and B.
    pub operands: Operands,
    /// The left operand.
    pub a: Matrix,
    /// The right operand.
    pub b: Matrix,
    /// The result, never transposed.
    pub d: Matrix,
    /// A number for each row of D, added to all of it; none where 0.
    pub bias: u64,
    /// Whether negative results become 0.
    pub relu: bool,
    /// Memory that the product may use.
    pub workspace: u64,
    /// How much.
    pub workspace_bytes: u64,
}

/// A device that is open. Its calls may come from any thread.
///
/// # Safety
/// Addresses and numbers are the driver's own. A caller hands in only what it was given and has
/// not given back, host memory only from [`Driver::pin`], and keeps both alive until what was
/// queued on the stream is done. What a kernel reads and writes is the caller's promise.
pub unsafe trait Driver: Send + Sync + Debug {
    /// What it is.
    fn facts(&self) -> &Facts;

    /// Whether an earlier call found the device lost.
    fn is_lost(&self) -> bool;

    /// Bytes that are free now.
    ///
    /// # Errors
    /// When the driver refuses.
    fn free_bytes(&self) -> Result<u64, Fault>;

    /// Takes memory of the device, aligned to 256 bytes.
    ///
    /// # Errors
    /// When there is not so much, or the device is lost.
    fn allocate(&self, bytes: u64) -> Result<u64, Fault>;

    /// Gives memory back.
    ///
    /// # Safety
    /// Nothing uses it any more.
    unsafe fn release(&self, address: u64);

    /// Takes memory of the host that the device can read and write by itself.
    ///
    /// # Errors
    /// When there is not so much, or the device is lost.
    fn pin(&self, bytes: usize) -> Result<*mut u8, Fault>;

    /// Gives it back.
    ///
    /// # Safety
    /// Nothing uses it any more.
    unsafe fn unpin(&self, address: *mut u8, bytes: usize);

    /// Opens a stream: work on one happens in order.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    fn open_stream(&self) -> Result<Stream, Fault>;

    /// Closes a stream on which nothing is left to do.
    fn close_stream(&self, stream: Stream);

    /// Compiles kernels, or finds them where they were kept.
    ///
    /// # Errors
    /// When they do not compile.
    fn load(&self, unit: &Unit) -> Result<Vec<Function>, Fault>;

    /// Queues a kernel.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    ///
    /// # Safety
    /// As of the trait; the arguments are those of the kernel, in order.
    unsafe fn launch(
        &self,
        stream: Stream,
        function: Function,
        grid: Grid,
        arguments: &[u64],
    ) -> Result<(), Fault>;

    /// Queues a matrix product on tensor cores.
    ///
    /// # Errors
    /// When the library refuses, or the device is lost.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn multiply(&self, stream: Stream, product: &MatrixProduct) -> Result<(), Fault>;

    /// Queues a copy from pinned memory to the device.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn copy_in(
        &self,
        stream: Stream,
        to: u64,
        from: *const u8,
        bytes: usize,
    ) -> Result<(), Fault>;

    /// Queues a copy from the device to pinned memory.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn copy_out(
        &self,
        stream: Stream,
        to: *mut u8,
        from: u64,
        bytes: usize,
    ) -> Result<(), Fault>;

    /// Queues a copy within the device, of places that do not overlap.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn copy_within(
        &self,
        stream: Stream,
        to: u64,
        from: u64,
        bytes: usize,
    ) -> Result<(), Fault>;

    /// Queues zeros.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn zero(&self, stream: Stream, at: u64, bytes: usize) -> Result<(), Fault>;

    /// Waits until all that was queued is done.
    ///
    /// # Errors
    /// What went wrong on the way; the device is lost then.
    fn wait(&self, stream: Stream) -> Result<(), Fault>;

    /// Makes what is queued on `later` from now on wait for what is queued on `earlier` now.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    fn order(&self, earlier: Stream, later: Stream) -> Result<(), Fault>;

    /// Records what is queued from here on instead of doing it.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    fn begin_recording(&self, stream: Stream) -> Result<(), Fault>;

    /// Ends the recording.
    ///
    /// # Errors
    /// When something was queued that cannot be recorded.
    fn end_recording(&self, stream: Stream) -> Result<Recorded, Fault>;

    /// Queues what was recorded, as a whole.
    ///
    /// # Errors
    /// When the driver refuses, or the device is lost.
    ///
    /// # Safety
    /// As of the trait, for all that was recorded.
    unsafe fn replay(&self, stream: Stream, recorded: Recorded) -> Result<(), Fault>;

    /// Forgets a recording that nothing runs any more.
    fn forget(&self, recorded: Recorded);
}

/// Opens a device; asked again after it was lost.
pub trait Opener: Send + Sync + Debug {
    /// Opens it.
    ///
    /// # Errors
    /// When it cannot be used.
    fn open(&self) -> Result<Arc<dyn Driver>, Fault>;
}
