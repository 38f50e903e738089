//! NVIDIA devices: the second implementation of [`Backend`](crate::Backend).
//!
//! A plan's instructions become kernels of the host's own CUDA C++ templates, which NVRTC compiles
//! for the device at hand. No code of a guest runs on the device: a guest's graph chooses templates
//! and sizes, nothing else. In the order in which a plan passes them:
//!
//! | file | what |
//! |---|---|
//! | `source` | kernels as text: the templates, and a fused loop for each map program |
//! | `templates/` | the CUDA C++: rows, lookups, products, updates, attention |
//! | `lower` | which kernels an instruction becomes, with which arguments |
//! | `script` | the same with addresses; queued, recorded as a graph, replayed |
//! | `memory` | an open device: one pool of memory, pinned memory, compiled kernels |
//! | `engine` | a program with its weights: entries over buckets of rows |
//! | `trainer` | steps and updates |
//! | `decoder` | sequences that go on, with the keys and values that they keep in pages |
//! | `driver` | the trait that all of the above is written against |
//! | `nvidia`, `products`, `compile` | that trait over the driver, cuBLASLt and NVRTC, by cudarc |
//! | `probe` | whether any of it is on this machine; never panics |
//!
//! What holds:
//!
//! 1. **Same bits again.** No float is added by atomics; every sum has one order. The only atomics
//!    are on integers, where order does not matter: the first number out of range.
//! 2. **A row by itself.** In [`Precision::F32Strict`](crate::Precision) the bits of a row do not depend on the rows
//!    around it: which kernel computes a row depends on the extents of the row alone, and a product
//!    is one chain of fused sums per element whatever the tile. Maps, products, scatters and updates
//!    give the processor's bits; folds, softmax, normalisation and cross-entropy sum in another
//!    order. The library of products on tensor cores (tf32, bf16-mixed) promises the first
//!    invariant only.
//! 3. **Nothing unchecked.** A kernel's argument is a place and how many elements it may touch;
//!    both are compared with the region before the address exists. Numbers that select are compared
//!    on the device; the first outside becomes the same error as on the processor.
//! 4. **No panic, no lost weights.** Missing libraries are found by name first. A device that is
//!    lost is an error; the host has the weights of the last training that ended, and the next call
//!    opens the device again.
//!
//! Tests without a device: `tests/nvrtc.rs` compiles every kernel where NVRTC is (its header says
//! how), and with `SANDCAST_TEST_DEVICE=cuda-shim` all suites of the crate run the same host code and
//! the same kernels, compiled for the processor.

#![expect(
    unsafe_code,
    reason = "calls into the driver and addresses on the device; every block says why it may"
)]

mod compile;
mod decoder;
#[doc(hidden)]
pub mod driver;
mod engine;
mod lower;
mod memory;
mod nvidia;
mod probe;
mod products;
mod script;
mod source;
mod trainer;

pub(crate) use engine::CudaBackend;
pub(crate) use nvidia::NvidiaOpener;

use crate::device::{DeviceInfo, DeviceKind};

/// Every template, with every choice that a plan can make of it.
#[doc(hidden)]
pub fn templates() -> Vec<driver::Unit> {
    source::templates()
}

/// Compiles kernels to PTX, by the NVRTC that is there, for devices from a compute capability on.
///
/// # Errors
/// When there is no NVRTC, or they do not compile.
#[doc(hidden)]
pub fn compile_to_ptx(
    unit: &driver::Unit,
    compute_capability: [u32; 2],
) -> Result<Vec<u8>, driver::Fault> {
    let compiler = compile::Compiler::open(None)?;
    compiler.compile(unit, compile::Target::Ptx(compute_capability))
}

/// Why there is no NVRTC; none where there is.
#[doc(hidden)]
pub fn why_no_compiler() -> Option<String> {
    probe::find_nvrtc().err().map(|reason| reason.to_string())
}

/// What is known of the first CUDA device. Never fails: what is missing is said.
pub(crate) fn describe() -> DeviceInfo {
    let found = probe::probe().and_then(|driver| {
        if driver.devices < 1 {
            return Ok((false, driver.to_string()));
        }
        probe::find_driver()?;
        probe::find_nvrtc()?;
        let products = match probe::find_products() {
            Ok(()) => "cuBLASLt".to_owned(),
            Err(reason) => format!("f32-strict only, since {reason}"),
        };
        Ok((true, format!("{driver}; NVRTC; {products}")))
    });
    let (usable, detail) = found.unwrap_or_else(|reason| (false, reason.to_string()));
    DeviceInfo {
        kind: DeviceKind::Cuda,
        name: "cuda".into(),
        usable,
        detail,
    }
}
