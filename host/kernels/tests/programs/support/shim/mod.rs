//! A CUDA device that is none: the kernels' own source, compiled by the system's C++ compiler, run
//! on the processor under a small runtime (`runtime.cpp`). The host code above the driver is the
//! product's.
//!
//! Work that is queued is done as late as the rules allow, when somebody waits for it, so that a
//! host that reuses memory too early is found out. Memory begins as what is not a number, and has
//! guards around it that are looked at when it is given back.

#![expect(
    unsafe_code,
    reason = "it does what a driver does: calls into compiled kernels and reads memory by address"
)]

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sandcast_kernels::cuda::driver::{
    Driver, Facts, Fault, Function, Grid, Matrix, MatrixProduct, Opener, Operands, Recorded,
    Stream, Unit,
};

const KERNELS: &str = include_str!("kernels.h");
const RUNTIME: &str = include_str!("runtime.cpp");

/// Bytes around an allocation that nobody may write.
const GUARD: usize = 256;
const GUARD_BYTE: u8 = 0xa5;

type Launcher = unsafe extern "C" fn(*const u64, u32, u32, u32) -> u32;

/// What a test may do to the device, and what happened to it.
#[derive(Debug)]
pub(crate) struct Control {
    /// Launches until the device is lost; negative means never.
    pub(crate) launches_until_lost: AtomicI64,
    /// Whether opening it again fails.
    pub(crate) stays_lost: AtomicBool,
    /// Bytes that it has.
    pub(crate) memory_bytes: AtomicU64,
    /// Times that it was opened.
    pub(crate) opened: AtomicU64,
    /// Recordings that were replayed, and products on its library.
    pub(crate) replayed: AtomicU64,
    pub(crate) products: AtomicU64,
    /// Launches, by kernel.
    pub(crate) launched: Mutex<BTreeMap<String, u64>>,
}

impl Default for Control {
    fn default() -> Self {
        Control {
            launches_until_lost: AtomicI64::new(-1),
            stays_lost: AtomicBool::new(false),
            memory_bytes: AtomicU64::new(4 << 30),
            opened: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            products: AtomicU64::new(0),
            launched: Mutex::default(),
        }
    }
}

/// Opens it.
#[derive(Debug, Default)]
pub(crate) struct ShimOpener {
    pub(crate) control: Arc<Control>,
}

impl Opener for ShimOpener {
    fn open(&self) -> Result<Arc<dyn Driver>, Fault> {
        if self.control.stays_lost.load(Ordering::SeqCst) {
            return Err(Fault::Refused {
                what: "the device does not come back".into(),
            });
        }
        self.control.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Shim {
            facts: Facts {
                name: "shim".into(),
                compute_capability: [9, 0],
                // Few, so that small sizes take every kind of tile.
                multiprocessors: 4,
                memory_bytes: self.control.memory_bytes.load(Ordering::SeqCst),
                has_products: true,
                versions: "the system's C++ compiler".into(),
            },
            control: Arc::clone(&self.control),
            lost: AtomicBool::new(false),
            state: Mutex::default(),
        }))
    }
}

#[derive(Clone)]
enum Op {
    Launch {
        name: Arc<str>,
        launcher: Launcher,
        grid: Grid,
        arguments: Vec<u64>,
    },
    Product(MatrixProduct),
    Copy {
        to: u64,
        from: u64,
        bytes: usize,
    },
    Zero {
        at: u64,
        bytes: usize,
    },
    /// Everything up to this number on another stream.
    After(u64, u64),
}

#[derive(Default)]
struct Queue {
    /// The number of the first of them.
    first: u64,
    ops: Vec<Op>,
    recording: Option<Vec<Op>>,
}

#[derive(Default)]
struct State {
    next: u64,
    streams: HashMap<u64, Queue>,
    recorded: HashMap<u64, Vec<Op>>,
    functions: HashMap<u64, (Arc<str>, Launcher)>,
    /// Start of the whole stretch, guards included, and its bytes.
    memory: HashMap<u64, (Vec<u64>, usize)>,
    held: u64,
}

pub(crate) struct Shim {
    facts: Facts,
    control: Arc<Control>,
    lost: AtomicBool,
    state: Mutex<State>,
}

impl fmt::Debug for Shim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Shim")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime has one block at a time in the whole process.
static RUNS: Mutex<()> = Mutex::new(());

impl Shim {
    fn alive(&self) -> Result<(), Fault> {
        if self.is_lost() {
            return Err(Fault::Lost {
                what: "the shim was told so".into(),
            });
        }
        Ok(())
    }

    fn queue(&self, stream: Stream, op: Op) -> Result<(), Fault> {
        self.alive()?;
        let mut state = lock(&self.state);
        let queue = state.streams.get_mut(&stream.0).expect("an open stream");
        match &mut queue.recording {
            Some(recording) => recording.push(op),
            None => queue.ops.push(op),
        }
        Ok(())
    }

    /// Does what is queued on a stream before this number.
    fn drain(&self, stream: u64, end: u64) -> Result<(), Fault> {
        let ops: Vec<Op> = {
            let mut state = lock(&self.state);
            let Some(queue) = state.streams.get_mut(&stream) else {
                return Ok(());
            };
            assert!(queue.recording.is_none(), "waited for while it records");
            let count = end.saturating_sub(queue.first).min(queue.ops.len() as u64);
            queue.first += count;
            queue.ops.drain(..count as usize).collect()
        };
        for op in ops {
            self.run(op)?;
        }
        Ok(())
    }

    fn run(&self, op: Op) -> Result<(), Fault> {
        self.alive()?;
        match op {
            Op::After(stream, end) => return self.drain(stream, end),
            Op::Launch {
                name,
                launcher,
                grid,
                arguments,
            } => {
                let left = &self.control.launches_until_lost;
                if left.load(Ordering::SeqCst) >= 0 && left.fetch_sub(1, Ordering::SeqCst) == 0 {
                    self.lost.store(true, Ordering::SeqCst);
                    return self.alive();
                }
                *lock(&self.control.launched)
                    .entry(name.to_string())
                    .or_default() += 1;
                let _one_at_a_time = lock(&RUNS);
                // SAFETY: the host code above promises that the arguments are the kernel's.
                let wanted = unsafe {
                    launcher(
                        arguments.as_ptr(),
                        arguments.len() as u32,
                        grid.blocks,
                        grid.threads,
                    )
                };
                assert_eq!(wanted as usize, arguments.len(), "arguments of {name}");
            }
            Op::Product(product) => {
                self.control.products.fetch_add(1, Ordering::SeqCst);
                // SAFETY: as above.
                unsafe { multiply(&product) };
            }
            // SAFETY: as above; both are memory of this process.
            Op::Copy { to, from, bytes } => unsafe {
                std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes);
            },
            // SAFETY: as above.
            Op::Zero { at, bytes } => unsafe { (at as *mut u8).write_bytes(0, bytes) },
        }
        Ok(())
    }
}

/// What cuBLASLt does, by its documentation.
unsafe fn multiply(of: &MatrixProduct) {
    let element = |matrix: &Matrix, batch: u64, row: u64, column: u64| -> f32 {
        let (row, column) = if matrix.transposed {
            (column, row)
        } else {
            (row, column)
        };
        let place = batch * matrix.batch_stride + column * matrix.leading + row;
        // SAFETY: the caller's promise.
        unsafe {
            match of.operands {
                Operands::Tf32 => {
                    let bits = (matrix.address as *const u32).add(place as usize).read();
                    f32::from_bits(bits.wrapping_add(0x1000) & !0x1fff)
                }
                Operands::Bf16 => {
                    let bits = (matrix.address as *const u16).add(place as usize).read();
                    f32::from_bits(u32::from(bits) << 16)
                }
            }
        }
    };
    assert!(!of.d.transposed && of.workspace_bytes > 0 && of.workspace != 0);
    assert!(of.d.leading >= of.rows);
    for batch in 0..of.batch {
        for column in 0..of.columns {
            for row in 0..of.rows {
                let mut sum = 0.0_f32;
                for inner in 0..of.inner {
                    sum += element(&of.a, batch, row, inner) * element(&of.b, batch, inner, column);
                }
                // SAFETY: the caller's promise.
                unsafe {
                    if of.bias != 0 {
                        sum += (of.bias as *const f32).add(row as usize).read();
                    }
                    if of.relu && sum < 0.0 {
                        sum = 0.0;
                    }
                    let place = batch * of.d.batch_stride + column * of.d.leading + row;
                    (of.d.address as *mut f32).add(place as usize).write(sum);
                }
            }
        }
    }
}

// SAFETY: addresses are those of memory of this process, and numbers those that it gave.
unsafe impl Driver for Shim {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    fn free_bytes(&self) -> Result<u64, Fault> {
        Ok(self.facts.memory_bytes)
    }

    fn allocate(&self, bytes: u64) -> Result<u64, Fault> {
        self.alive()?;
        let mut state = lock(&self.state);
        if state.held + bytes > self.facts.memory_bytes {
            return Err(Fault::OutOfMemory { bytes });
        }
        state.held += bytes;
        let whole = 2 * GUARD + bytes as usize + 256;
        let mut memory = vec![u64::MAX; whole.div_ceil(8)];
        let start = (memory.as_ptr() as u64 + GUARD as u64).next_multiple_of(256);
        // SAFETY: inside what was just made, guards on both sides.
        unsafe {
            let start = start as *mut u8;
            start.sub(GUARD).write_bytes(GUARD_BYTE, GUARD);
            start.add(bytes as usize).write_bytes(GUARD_BYTE, GUARD);
        }
        memory.shrink_to_fit();
        state.memory.insert(start, (memory, bytes as usize));
        Ok(start)
    }

    unsafe fn release(&self, address: u64) {
        let mut state = lock(&self.state);
        let (memory, bytes) = state
            .memory
            .remove(&address)
            .expect("memory that was given");
        state.held -= bytes as u64;
        // SAFETY: inside what is still there.
        let guards = unsafe {
            [
                std::slice::from_raw_parts((address as *const u8).sub(GUARD), GUARD),
                std::slice::from_raw_parts((address as *const u8).add(bytes), GUARD),
            ]
        };
        let whole = guards
            .iter()
            .all(|guard| guard.iter().all(|byte| *byte == GUARD_BYTE));
        drop(state);
        assert!(
            whole || std::thread::panicking(),
            "something wrote outside its {bytes} bytes"
        );
        drop(memory);
    }

    fn pin(&self, bytes: usize) -> Result<*mut u8, Fault> {
        self.alive()?;
        let memory = vec![0_u64; bytes.div_ceil(8)].into_boxed_slice();
        Ok(Box::into_raw(memory).cast::<u8>())
    }

    unsafe fn unpin(&self, address: *mut u8, bytes: usize) {
        let memory = std::ptr::slice_from_raw_parts_mut(address.cast::<u64>(), bytes.div_ceil(8));
        // SAFETY: made by `pin` of as many bytes.
        drop(unsafe { Box::from_raw(memory) });
    }

    fn open_stream(&self) -> Result<Stream, Fault> {
        self.alive()?;
        let mut state = lock(&self.state);
        state.next += 1;
        let number = state.next;
        state.streams.insert(number, Queue::default());
        Ok(Stream(number))
    }

    fn close_stream(&self, stream: Stream) {
        let queue = lock(&self.state)
            .streams
            .remove(&stream.0)
            .expect("an open stream");
        assert!(
            queue.ops.is_empty() || self.is_lost() || std::thread::panicking(),
            "closed with work on it"
        );
    }

    fn load(&self, unit: &Unit) -> Result<Vec<Function>, Fault> {
        self.alive()?;
        let launchers = load(unit)?;
        let mut state = lock(&self.state);
        Ok(unit
            .names
            .iter()
            .zip(launchers)
            .map(|(name, launcher)| {
                state.next += 1;
                let number = state.next;
                state
                    .functions
                    .insert(number, (name.as_str().into(), launcher));
                Function(number)
            })
            .collect())
    }

    unsafe fn launch(
        &self,
        stream: Stream,
        function: Function,
        grid: Grid,
        arguments: &[u64],
    ) -> Result<(), Fault> {
        assert!(grid.blocks > 0 && grid.threads > 0, "an empty grid");
        let (name, launcher) = lock(&self.state).functions[&function.0].clone();
        let arguments = arguments.to_vec();
        self.queue(
            stream,
            Op::Launch {
                name,
                launcher,
                grid,
                arguments,
            },
        )
    }

    unsafe fn multiply(&self, stream: Stream, product: &MatrixProduct) -> Result<(), Fault> {
        self.queue(stream, Op::Product(*product))
    }

    unsafe fn copy_in(
        &self,
        stream: Stream,
        to: u64,
        from: *const u8,
        bytes: usize,
    ) -> Result<(), Fault> {
        let from = from as u64;
        self.queue(stream, Op::Copy { to, from, bytes })
    }

    unsafe fn copy_out(
        &self,
        stream: Stream,
        to: *mut u8,
        from: u64,
        bytes: usize,
    ) -> Result<(), Fault> {
        let to = to as u64;
        self.queue(stream, Op::Copy { to, from, bytes })
    }

    unsafe fn copy_within(
        &self,
        stream: Stream,
        to: u64,
        from: u64,
        bytes: usize,
    ) -> Result<(), Fault> {
        self.queue(stream, Op::Copy { to, from, bytes })
    }

    unsafe fn zero(&self, stream: Stream, at: u64, bytes: usize) -> Result<(), Fault> {
        self.queue(stream, Op::Zero { at, bytes })
    }

    fn wait(&self, stream: Stream) -> Result<(), Fault> {
        self.alive()?;
        self.drain(stream.0, u64::MAX)
    }

    fn order(&self, earlier: Stream, later: Stream) -> Result<(), Fault> {
        let end = {
            let state = lock(&self.state);
            let queue = &state.streams[&earlier.0];
            queue.first + queue.ops.len() as u64
        };
        self.queue(later, Op::After(earlier.0, end))
    }

    fn begin_recording(&self, stream: Stream) -> Result<(), Fault> {
        self.alive()?;
        let mut state = lock(&self.state);
        let queue = state.streams.get_mut(&stream.0).expect("an open stream");
        assert!(queue.recording.is_none(), "records already");
        queue.recording = Some(Vec::new());
        Ok(())
    }

    fn end_recording(&self, stream: Stream) -> Result<Recorded, Fault> {
        let mut state = lock(&self.state);
        let queue = state.streams.get_mut(&stream.0).expect("an open stream");
        let ops = queue.recording.take().expect("a recording");
        state.next += 1;
        let number = state.next;
        state.recorded.insert(number, ops);
        Ok(Recorded(number))
    }

    unsafe fn replay(&self, stream: Stream, recorded: Recorded) -> Result<(), Fault> {
        self.control.replayed.fetch_add(1, Ordering::SeqCst);
        let ops = lock(&self.state).recorded[&recorded.0].clone();
        for op in ops {
            self.queue(stream, op)?;
        }
        Ok(())
    }

    fn forget(&self, recorded: Recorded) {
        lock(&self.state)
            .recorded
            .remove(&recorded.0)
            .expect("a recording");
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        let state = lock(&self.state);
        let clean =
            state.memory.is_empty() && state.streams.is_empty() && state.recorded.is_empty();
        let kept = format!(
            "{} stretches of memory, {} streams, {} recordings",
            state.memory.len(),
            state.streams.len(),
            state.recorded.len()
        );
        drop(state);
        assert!(
            clean || self.is_lost() || std::thread::panicking(),
            "{kept} were never given back"
        );
    }
}

/// Where compiled kernels are kept between runs.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim")
}

/// Compiles a unit, or finds it.
fn load(unit: &Unit) -> Result<Vec<Launcher>, Fault> {
    let mut source = format!("{KERNELS}\n{}\n", unit.source);
    for name in &unit.names {
        source.push_str(&format!("SHIM_KERNEL({name})\n"));
    }
    let library = open(&build(&source)?)?;
    // SAFETY: the runtime's function, which gives a place that stays.
    let runtime = unsafe {
        let begin = runtime()?
            .get::<unsafe extern "C" fn() -> *mut u8>("shim_runtime")
            .expect("the runtime");
        begin()
    };
    assert!(!runtime.is_null(), "no room for stacks");
    // SAFETY: the unit's function, of this type.
    unsafe {
        let begin = library
            .get::<unsafe extern "C" fn(*mut u8)>("shim_begin")
            .expect("a unit that begins");
        begin(runtime);
    }
    let launchers = unit
        .names
        .iter()
        .map(|name| {
            // SAFETY: as above.
            let launcher = unsafe { library.get::<Launcher>(format!("shim_launch_{name}")) };
            *launcher.expect("a kernel of the unit")
        })
        .collect();
    // Kernels stay for as long as the process.
    std::mem::forget(library);
    Ok(launchers)
}

fn open(path: &Path) -> Result<libloading::Library, Fault> {
    // SAFETY: what was just built runs no initialisers of its own.
    unsafe { libloading::Library::new(path) }.map_err(|error| Fault::Refused {
        what: error.to_string(),
    })
}

fn runtime() -> Result<&'static libloading::Library, Fault> {
    static LIBRARY: OnceLock<libloading::Library> = OnceLock::new();
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let library = open(&build(RUNTIME)?)?;
    Ok(LIBRARY.get_or_init(|| library))
}

fn build(source: &str) -> Result<PathBuf, Fault> {
    let refused = |error: std::io::Error| Fault::Refused {
        what: error.to_string(),
    };
    let digest = blake3::hash(source.as_bytes()).to_hex();
    let folder = folder();
    let library = folder.join(format!("{digest}.so"));
    if library.is_file() {
        return Ok(library);
    }
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::SeqCst);
    let beside = folder.join(format!("{digest}.{}.{count}", std::process::id()));
    let text = beside.with_extension(format!("{count}.cpp"));
    std::fs::create_dir_all(&folder).map_err(refused)?;
    std::fs::write(&text, source).map_err(refused)?;
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let made = Command::new(&compiler)
        .args(["-std=c++17", "-O1", "-march=native", "-ffp-contract=off"])
        .args(["-fno-math-errno", "-fno-strict-aliasing", "-w"])
        .args(["-shared", "-fPIC", "-o"])
        .arg(&beside)
        .arg(&text)
        .output()
        .map_err(refused)?;
    if !made.status.success() {
        return Err(Fault::Compile {
            log: String::from_utf8_lossy(&made.stderr).into_owned(),
        });
    }
    std::fs::remove_file(&text).map_err(refused)?;
    std::fs::rename(&beside, &library).map_err(refused)?;
    Ok(library)
}
