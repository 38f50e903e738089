//! NVIDIA's driver, through cudarc's thin layer. The layer above it in cudarc tracks events of
//! every buffer, which recorded work cannot have; this one has none.

use std::ffi::{CString, c_int, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{result, sys};

use super::compile::{Compiler, Target};
use super::driver::{
    Driver, Facts, Fault, Function, Grid, MatrixProduct, Opener, Recorded, Stream, Unit,
};
use super::probe;
use super::products::Products;

/// Errors after which nothing on the context can be used any more (CUDA driver API, `CUresult`).
const FATAL: [u32; 17] = [
    4, 46, 101, 201, 214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999,
];

/// Opens one device of the machine.
#[derive(Debug)]
pub(crate) struct NvidiaOpener {
    pub(crate) number: u32,
    /// Where compiled kernels are kept.
    pub(crate) kernels: Option<PathBuf>,
}

impl Opener for NvidiaOpener {
    fn open(&self) -> Result<Arc<dyn Driver>, Fault> {
        let refused = |reason: probe::NoDriver| Fault::Refused {
            what: reason.to_string(),
        };
        let driver = probe::probe().map_err(refused)?;
        if i64::from(self.number) >= i64::from(driver.devices) {
            return Err(Fault::Refused {
                what: format!("there is no device of that number: {driver}"),
            });
        }
        probe::find_driver().map_err(refused)?;
        let compiler = Compiler::open(self.kernels.clone())?;
        Ok(Arc::new(NvidiaDriver::open(
            self.number as c_int,
            compiler,
            &driver.to_string(),
        )?))
    }
}

/// A device and its primary context.
#[derive(Debug)]
struct NvidiaDriver {
    facts: Facts,
    device: sys::CUdevice,
    context: sys::CUcontext,
    compiler: Compiler,
    target: Target,
    products: Option<Products>,
    modules: Mutex<Vec<sys::CUmodule>>,
    lost: AtomicBool,
}

// SAFETY: a context, its modules and functions may be used from any thread that makes the context
// current, which every call does first.
unsafe impl Send for NvidiaDriver {}
// SAFETY: as above.
unsafe impl Sync for NvidiaDriver {}

fn refused(what: &str, error: result::DriverError) -> Fault {
    Fault::Refused {
        what: format!("the CUDA driver refused {what}: {error}"),
    }
}

impl NvidiaDriver {
    fn open(number: c_int, compiler: Compiler, driver: &str) -> Result<NvidiaDriver, Fault> {
        use sys::CUdevice_attribute as Attribute;
        let of = |what: &'static str| move |error| refused(what, error);
        result::init().map_err(of("to begin"))?;
        let device = result::device::get(number).map_err(of("the device"))?;
        let name = result::device::get_name(device).map_err(of("the device's name"))?;
        let attribute = |attribute: Attribute| {
            // SAFETY: the device was given by the driver.
            let value = unsafe { result::device::get_attribute(device, attribute) };
            value
                .map(|value| u32::try_from(value).unwrap_or(0))
                .map_err(of("what it knows of the device"))
        };
        let compute_capability = [
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ];
        let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        // SAFETY: as above.
        let memory = unsafe { result::device::total_mem(device) };
        let memory_bytes = memory.map_err(of("the size of its memory"))? as u64;
        let target = compiler.target(compute_capability)?;
        let context = fresh_context(device)?;
        // Without the library, strict products are still there.
        let products = probe::find_products()
            .ok()
            .and_then(|()| Products::open().ok());
        let versions = format!(
            "{driver}, NVRTC {}.{}, {}",
            compiler.version[0],
            compiler.version[1],
            if products.is_some() {
                "cuBLASLt"
            } else {
                "no cuBLASLt"
            }
        );
        Ok(NvidiaDriver {
            facts: Facts {
                name,
                compute_capability,
                multiprocessors,
                memory_bytes,
                has_products: products.is_some(),
                versions,
            },
            device,
            context,
            compiler,
            target,
            products,
            modules: Mutex::default(),
            lost: AtomicBool::new(false),
        })
    }

    /// Makes the context that of this thread.
    fn enter(&self) -> Result<(), Fault> {
        if self.is_lost() {
            return Err(Fault::Lost {
                what: "an earlier call found it so".into(),
            });
        }
        // SAFETY: the context is retained for as long as this lives.
        let entered = unsafe { result::ctx::set_current(self.context) };
        self.checked("its context", entered)
    }

    fn checked<T>(&self, what: &str, outcome: Result<T, result::DriverError>) -> Result<T, Fault> {
        outcome.map_err(|error| {
            let fault = refused(what, error);
            if FATAL.contains(&(error.0 as u32)) {
                self.lost.store(true, Ordering::Release);
                return Fault::Lost {
                    what: fault.to_string(),
                };
            }
            fault
        })
    }

    fn allocated<T>(
        &self,
        bytes: u64,
        outcome: Result<T, result::DriverError>,
    ) -> Result<T, Fault> {
        match outcome {
            Err(result::DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                Err(Fault::OutOfMemory { bytes })
            }
            other => self.checked("memory", other),
        }
    }
}

/// The primary context of a device, current on this thread; reset where an earlier fault left it
/// of no use.
fn fresh_context(device: sys::CUdevice) -> Result<sys::CUcontext, Fault> {
    let of = |what: &'static str| move |error| refused(what, error);
    // SAFETY: the device was given by the driver; the context is released by whoever has it.
    let retain = || unsafe { result::primary_ctx::retain(device) };
    let usable = |context: sys::CUcontext| {
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(context) }.and_then(|()| result::mem_get_info())
    };
    let context = retain().map_err(of("a context"))?;
    if usable(context).is_ok() {
        return Ok(context);
    }
    // SAFETY: as above; those who had the lost context do not touch it any more.
    unsafe { sys::cuDevicePrimaryCtxReset_v2(device) }
        .result()
        .map_err(of("to reset the context"))?;
    let context = retain().map_err(of("a fresh context"))?;
    usable(context).map_err(of("a fresh context"))?;
    Ok(context)
}

// SAFETY: numbers are the driver's own addresses, handed back as they were given.
unsafe impl Driver for NvidiaDriver {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn free_bytes(&self) -> Result<u64, Fault> {
        self.enter()?;
        let (free, _) = self.checked("the state of its memory", result::mem_get_info())?;
        Ok(free as u64)
    }

    fn allocate(&self, bytes: u64) -> Result<u64, Fault> {
        self.enter()?;
        // SAFETY: what is in it is written before it is read.
        self.allocated(bytes, unsafe { result::malloc_sync(bytes as usize) })
    }

    unsafe fn release(&self, address: u64) {
        // A lost context took its memory with it.
        if self.enter().is_ok() {
            // SAFETY: the caller's promise.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn pin(&self, bytes: usize) -> Result<*mut u8, Fault> {
        self.enter()?;
        // SAFETY: set to zeros below.
        let outcome = unsafe { result::malloc_host(bytes, 0) };
        let address = self.allocated(bytes as u64, outcome)?.cast::<u8>();
        // SAFETY: the memory was just given.
        unsafe { address.write_bytes(0, bytes) };
        Ok(address)
    }

    unsafe fn unpin(&self, address: *mut u8, _bytes: usize) {
        if self.enter().is_ok() {
            // SAFETY: the caller's promise.
            let _ = unsafe { result::free_host(address.cast()) };
        }
    }

    fn open_stream(&self) -> Result<Stream, Fault> {
        self.enter()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        Ok(Stream(self.checked("a stream", stream)? as u64))
    }

    fn close_stream(&self, stream: Stream) {
        if self.enter().is_ok() {
            // SAFETY: opened above, and closed once by its owner.
            let _ = unsafe { result::stream::destroy(stream.0 as sys::CUstream) };
        }
    }

    fn load(&self, unit: &Unit) -> Result<Vec<Function>, Fault> {
        self.enter()?;
        let mut image = self.compiler.compile(unit, self.target)?;
        // PTX ends with a zero; machine code knows its length.
        image.push(0);
        // SAFETY: an image of the compiler's, for this device.
        let module = unsafe { result::module::load_data(image.as_ptr().cast::<c_void>()) };
        let module = self.checked("compiled kernels", module)?;
        self.modules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(module);
        unit.names
            .iter()
            .map(|name| {
                let c_name = CString::new(name.as_str()).map_err(|_| Fault::Refused {
                    what: format!("`{name}` is not the name of a kernel"),
                })?;
                // SAFETY: the module was just loaded, and stays.
                let function = unsafe { result::module::get_function(module, c_name) };
                Ok(Function(self.checked(name, function)? as u64))
            })
            .collect()
    }

    unsafe fn launch(
        &self,
        stream: Stream,
        function: Function,
        grid: Grid,
        arguments: &[u64],
    ) -> Result<(), Fault> {
        self.enter()?;
        // The driver reads them before the call returns.
        let mut addresses: Vec<*mut c_void> = arguments
            .iter()
            .map(|argument| std::ptr::from_ref(argument).cast_mut().cast())
            .collect();
        // SAFETY: the caller's promise; the arguments are eight bytes each, as kernels take them.
        let launched = unsafe {
            result::launch_kernel(
                function.0 as sys::CUfunction,
                (grid.blocks, 1, 1),
                (grid.threads, 1, 1),
                0,
                stream.0 as sys::CUstream,
                &mut addresses,
            )
        };
        self.checked("a kernel", launched)
    }

    unsafe fn multiply(&self, stream: Stream, product: &MatrixProduct) -> Result<(), Fault> {
        self.enter()?;
        let Some(products) = &self.products else {
            return Err(Fault::Refused {
                what: "there is no cuBLASLt".into(),
            });
        };
        // SAFETY: the caller's promise; the context was made current.
        unsafe { products.multiply(stream.0 as cudarc::cublaslt::sys::cudaStream_t, product) }
    }

    unsafe fn copy_in(
        &self,
        stream: Stream,
        to: u64,
        from: *const u8,
        bytes: usize,
    ) -> Result<(), Fault> {
        self.enter()?;
        // SAFETY: the caller's promise.
        let copied = unsafe {
            let from = std::slice::from_raw_parts(from, bytes);
            result::memcpy_htod_async(to, from, stream.0 as sys::CUstream)
        };
        self.checked("a copy to it", copied)
    }

    unsafe fn copy_out(
        &self,
        stream: Stream,
        to: *mut u8,
        from: u64,
        bytes: usize,
    ) -> Result<(), Fault> {
        self.enter()?;
        // SAFETY: the caller's promise.
        let copied = unsafe {
            let to = std::slice::from_raw_parts_mut(to, bytes);
            result::memcpy_dtoh_async(to, from, stream.0 as sys::CUstream)
        };
        self.checked("a copy from it", copied)
    }

    unsafe fn copy_within(
        &self,
        stream: Stream,
        to: u64,
        from: u64,
        bytes: usize,
    ) -> Result<(), Fault> {
        self.enter()?;
        // SAFETY: the caller's promise.
        let copied =
            unsafe { result::memcpy_dtod_async(to, from, bytes, stream.0 as sys::CUstream) };
        self.checked("a copy within it", copied)
    }

    unsafe fn zero(&self, stream: Stream, at: u64, bytes: usize) -> Result<(), Fault> {
        self.enter()?;
        // SAFETY: the caller's promise.
        let set = unsafe { result::memset_d8_async(at, 0, bytes, stream.0 as sys::CUstream) };
        self.checked("zeros", set)
    }

    fn wait(&self, stream: Stream) -> Result<(), Fault> {
        self.enter()?;
        // SAFETY: the stream is open.
        let waited = unsafe { result::stream::synchronize(stream.0 as sys::CUstream) };
        self.checked("to finish", waited)
    }

    fn order(&self, earlier: Stream, later: Stream) -> Result<(), Fault> {
        self.enter()?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let event = self.checked("an event", event)?;
        // SAFETY: the streams are open; the driver keeps an event for as long as work waits for
        // it.
        let ordered = unsafe {
            let ordered = result::event::record(event, earlier.0 as sys::CUstream).and_then(|()| {
                result::stream::wait_event(
                    later.0 as sys::CUstream,
                    event,
                    sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT,
                )
            });
            let _ = result::event::destroy(event);
            ordered
        };
        self.checked("an order of streams", ordered)
    }

    fn begin_recording(&self, stream: Stream) -> Result<(), Fault> {
        self.enter()?;
        // SAFETY: the stream is open.
        let begun = unsafe {
            result::stream::begin_capture(
                stream.0 as sys::CUstream,
                sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL,
            )
        };
        self.checked("to record", begun)
    }

    fn end_recording(&self, stream: Stream) -> Result<Recorded, Fault> {
        self.enter()?;
        // SAFETY: the stream records; the graph is destroyed once, after what was made of it.
        let recorded = unsafe {
            result::stream::end_capture(stream.0 as sys::CUstream).and_then(|graph| {
                let made = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
                let _ = result::graph::destroy(graph);
                made
            })
        };
        Ok(Recorded(self.checked("what was recorded", recorded)? as u64))
    }

    unsafe fn replay(&self, stream: Stream, recorded: Recorded) -> Result<(), Fault> {
        self.enter()?;
        // SAFETY: the caller's promise.
        let launched = unsafe {
            result::graph::launch(recorded.0 as sys::CUgraphExec, stream.0 as sys::CUstream)
        };
        self.checked("to replay", launched)
    }

    fn forget(&self, recorded: Recorded) {
        if self.enter().is_ok() {
            // SAFETY: made by `end_recording`, and forgotten once by its owner.
            let _ = unsafe { result::graph::exec_destroy(recorded.0 as sys::CUgraphExec) };
        }
    }
}

impl Drop for NvidiaDriver {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        self.products = None;
        let modules = self
            .modules
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for module in modules.drain(..) {
            // SAFETY: loaded by `load`; nothing runs any more.
            let _ = unsafe { result::module::unload(module) };
        }
        // SAFETY: retained by `open`.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
