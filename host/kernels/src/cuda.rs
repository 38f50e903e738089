//! Whether there is a CUDA driver. Asked of the driver's own library, which is loaded by name,
//! so that a machine without it, or with an empty stand-in for it, gets an answer.

#![expect(
    unsafe_code,
    reason = "calls into the driver; every block says why it may"
)]

use std::ffi::c_int;
use std::fmt;

/// A driver that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Driver {
    /// 1000 times the major version plus 10 times the minor one.
    version: c_int,
    devices: c_int,
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
