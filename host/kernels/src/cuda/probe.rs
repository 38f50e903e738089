//! Whether there is a CUDA driver. Asked of the driver's own library, which is loaded by name,
//! so that a machine without it, or with an empty stand-in for it, gets an answer.

use std::ffi::c_int;
use std::fmt;

/// A driver that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Driver {
    /// 1000 times the major version plus 10 times the minor one.
    version: c_int,
    pub(super) devices: c_int,
}

impl fmt::Display for Driver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = (self.version / 1000, self.version % 1000 / 10);
        write!(
            formatter,
            "the driver speaks CUDA {major}.{minor} and has {} devices",
            self.devices
        )
    }
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoDriver {
    #[error("the driver library {library} is not there")]
    NoLibrary { library: &'static str },
    #[error("the driver library lacks {function}")]
    NoFunction { function: &'static str },
    #[error("the driver answered {function} with error {code}")]
    Refused { function: &'static str, code: c_int },
    #[error(
        "{library} is not there; install it, or name its folder in {FOLDERS} (it comes with the CUDA \
         toolkit and in NVIDIA's Python packages)"
    )]
    NoCompanion { library: &'static str },
    #[error("{library} lacks {function}")]
    Incomplete {
        library: &'static str,
        function: &'static str,
    },
}

/// The variable that names folders with NVRTC and cuBLASLt, separated as in a search path.
pub(crate) const FOLDERS: &str = "SANDCAST_CUDA_LIBRARIES";

/// What this crate calls. A binding of a library panics where a function is missing, so they are
/// looked up first.
const DRIVER: [&str; 37] = [
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxReset_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];
const NVRTC: [&str; 12] = [
    "nvrtcCompileProgram",
    "nvrtcCreateProgram",
    "nvrtcDestroyProgram",
    "nvrtcGetCUBIN",
    "nvrtcGetCUBINSize",
    "nvrtcGetNumSupportedArchs",
    "nvrtcGetPTX",
    "nvrtcGetPTXSize",
    "nvrtcGetProgramLog",
    "nvrtcGetProgramLogSize",
    "nvrtcGetSupportedArchs",
    "nvrtcVersion",
];
const PRODUCTS: [&str; 13] = [
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
    "cublasLtMatrixLayoutSetAttribute",
];

/// Whether the driver has all that is called of it; asked after [`probe`].
pub(crate) fn find_driver() -> Result<(), NoDriver> {
    // SAFETY: loading runs the initialisers of NVIDIA's own library.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err(NoDriver::NoLibrary { library: LIBRARY });
    }
    // SAFETY: it is present.
    let library = unsafe { cudarc::driver::sys::culib() };
    complete(library, "the driver library", &DRIVER)
}

/// Whether there is a compiler of kernels.
pub(crate) fn find_nvrtc() -> Result<(), NoDriver> {
    let name = "NVRTC, the compiler of kernels,";
    load_from_folders(&["libnvrtc.so.13", "libnvrtc.so.12"]);
    // SAFETY: as above.
    if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
        return Err(NoDriver::NoCompanion { library: name });
    }
    // SAFETY: it is present.
    complete(unsafe { cudarc::nvrtc::sys::culib() }, name, &NVRTC)
}

/// Whether there is a library of products on tensor cores.
pub(crate) fn find_products() -> Result<(), NoDriver> {
    let name = "cuBLASLt";
    load_from_folders(&["libcublasLt.so.13", "libcublasLt.so.12"]);
    // SAFETY: as above.
    if !unsafe { cudarc::cublaslt::sys::is_culib_present() } {
        return Err(NoDriver::NoCompanion { library: name });
    }
    // SAFETY: it is present.
    complete(unsafe { cudarc::cublaslt::sys::culib() }, name, &PRODUCTS)
}

fn complete(
    library: &libloading::Library,
    name: &'static str,
    functions: &[&'static str],
) -> Result<(), NoDriver> {
    for function in functions {
        // SAFETY: looked up only.
        let found = unsafe { library.get::<unsafe extern "C" fn()>(*function) };
        if found.is_err() {
            return Err(NoDriver::Incomplete {
                library: name,
                function,
            });
        }
    }
    Ok(())
}

/// Loads the first of these that a folder named by the operator has, for good: a library that is
/// loaded is found again by its bare name.
fn load_from_folders(names: &[&str]) {
    let Some(folders) = std::env::var_os(FOLDERS) else {
        return;
    };
    for folder in std::env::split_paths(&folders) {
        for name in names {
            let path = folder.join(name);
            if path.is_file() {
                // SAFETY: the operator named the folder for this.
                if let Ok(library) = unsafe { libloading::Library::new(&path) } {
                    std::mem::forget(library);
                    return;
                }
            }
        }
    }
}

const LIBRARY: &str = if cfg!(windows) {
    "nvcuda.dll"
} else {
    "libcuda.so.1"
};

/// Asks the driver (CUDA driver API: `cuInit`, `cuDriverGetVersion`, `cuDeviceGetCount`).
pub(crate) fn probe() -> Result<Driver, NoDriver> {
    // SAFETY: loading runs the library's initialisers; the name is that of NVIDIA's driver,
    // found where the system keeps its libraries.
    let library = unsafe { libloading::Library::new(LIBRARY) };
    let library = library.map_err(|_| NoDriver::NoLibrary { library: LIBRARY })?;
    ask(&library, "cuInit", |function| {
        // SAFETY: `CUresult cuInit(unsigned int)`; the flags must be 0.
        let function: libloading::Symbol<'_, unsafe extern "C" fn(u32) -> c_int> =
            unsafe { library.get(function) }.ok()?;
        // SAFETY: as above.
        Some(unsafe { function(0) })
    })?;
    let number = |name: &'static str| {
        let mut value: c_int = 0;
        ask(&library, name, |function| {
            // SAFETY: both functions are `CUresult f(int*)`.
            let function: libloading::Symbol<'_, unsafe extern "C" fn(*mut c_int) -> c_int> =
                unsafe { library.get(function) }.ok()?;
            // SAFETY: the address is that of a live number.
            Some(unsafe { function(&mut value) })
        })?;
        Ok(value)
    };
    Ok(Driver {
        version: number("cuDriverGetVersion")?,
        devices: number("cuDeviceGetCount")?,
    })
}

fn ask(
    _library: &libloading::Library,
    function: &'static str,
    call: impl FnOnce(&str) -> Option<c_int>,
) -> Result<(), NoDriver> {
    match call(function) {
        None => Err(NoDriver::NoFunction { function }),
        Some(0) => Ok(()),
        Some(code) => Err(NoDriver::Refused { function, code }),
    }
}
