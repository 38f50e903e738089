//! Which machine part runs a program, and what there is.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::cpu::{self, CpuBackend};
use crate::cuda::{self, CudaBackend, NvidiaOpener};

/// Which device to open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best there is; never fails for want of a device.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The CUDA device of this number.
    Cuda(u32),
}

/// Why a word does not name a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a device; use auto, cpu, cuda or cuda:<number>")]
pub struct UnknownDevice {
    /// The word.
    pub given: String,
}

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownDevice {
            given: text.to_owned(),
        };
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                number
                    .parse()
                    .map(DeviceChoice::Cuda)
                    .map_err(|_| unknown())
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => formatter.write_str("auto"),
            DeviceChoice::Cpu => formatter.write_str("cpu"),
            DeviceChoice::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

/// What kind of device it is. Results are the same bits on the same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// An NVIDIA accelerator.
    Cuda,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Cuda => "cuda",
        })
    }
}

/// How exact matrix products are on a device that has a choice. Everything else is float32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// float32 throughout, each element one chain of fused products and sums: the same bits on
    /// every device.
    #[default]
    F32Strict,
    /// Operands of products are rounded to TensorFloat-32 (10 bits of fraction), sums are float32.
    Tf32,
    /// Operands of products are rounded to bfloat16 (7 bits of fraction), sums are float32.
    /// Weights stay float32.
    Bf16Mixed,
}

/// Why a word does not name a precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a precision; use f32-strict, tf32 or bf16-mixed")]
pub struct UnknownPrecision {
    /// The word.
    pub given: String,
}

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "f32-strict" => Ok(Precision::F32Strict),
            "tf32" => Ok(Precision::Tf32),
            "bf16-mixed" => Ok(Precision::Bf16Mixed),
            _ => Err(UnknownPrecision {
                given: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Precision::F32Strict => "f32-strict",
            Precision::Tf32 => "tf32",
            Precision::Bf16Mixed => "bf16-mixed",
        })
    }
}

/// How to open a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Which.
    pub choice: DeviceChoice,
    /// Threads that compute at a time on the processor; by default as many as the system offers.
    /// Results do not depend on it.
    pub threads: Option<NonZeroUsize>,
    /// The least exact that products may be. The processor is always strict.
    pub precision: Precision,
    /// The most bytes of a GPU's memory that all sessions together may hold; by default nine
    /// tenths of what is free when it is opened.
    pub memory_bytes: Option<u64>,
    /// A folder where compiled kernels of a GPU are kept, so that the next start is quick. Whoever
    /// can write to it can run code on the device.
    pub kernel_cache: Option<PathBuf>,
}

impl From<DeviceChoice> for DeviceOptions {
    fn from(choice: DeviceChoice) -> Self {
        DeviceOptions {
            choice,
            ..DeviceOptions::default()
        }
    }
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its kind.
    pub kind: DeviceKind,
    /// A name for people.
    pub name: String,
    /// Whether programs can run on it.
    pub usable: bool,
    /// What it offers, or why it is not usable.
    pub detail: String,
}

/// Why a device did not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// It was asked for by name and cannot be used.
    #[error("device {choice} cannot be used: {reason}; use `cpu` or `auto`")]
    Unavailable {
        /// What was asked for.
        choice: DeviceChoice,
        /// Why not.
        reason: String,
    },
    /// It does not compute in the precision asked for.
    #[error("{reason}; use f32-strict")]
    Precision {
        /// What was asked for.
        precision: Precision,
        /// Why not.
        reason: String,
    },
    /// The system did not start the threads.
    #[error("could not start {threads} compute threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        reason: String,
    },
}

/// An open device. Clones share its threads.
#[derive(Clone, Debug)]
pub struct Device {
    backend: Arc<dyn Backend>,
    precision: Precision,
}

impl Device {
    /// Opens a device. On the processor, `threads` work at a time; by default as many as the
    /// system offers. Results do not depend on it.
    ///
    /// # Errors
    /// When a device that was asked for by name is not there, or threads do not start.
    pub fn open(
        choice: DeviceChoice,
        threads: Option<NonZeroUsize>,
    ) -> Result<Device, DeviceError> {
        Device::open_with(DeviceOptions {
            choice,
            threads,
            ..DeviceOptions::default()
        })
    }

    /// The same with everything that can be chosen.
    ///
    /// # Errors
    /// As [`Device::open`]; also when the precision asked for needs a library that is not there.
    pub fn open_with(options: DeviceOptions) -> Result<Device, DeviceError> {
        let choice = options.choice;
        match choice {
            // The CUDA backend has not run on a device yet; it is taken where it is asked for by
            // name.
            DeviceChoice::Auto | DeviceChoice::Cpu => {
                let threads = options.threads.unwrap_or_else(system_threads);
                Ok(Device::with(CpuBackend::open(threads)?))
            }
            DeviceChoice::Cuda(number) => {
                let opener = NvidiaOpener {
                    number,
                    kernels: options.kernel_cache.clone(),
                };
                Device::over(Arc::new(opener), &options)
            }
        }
    }

    /// The same device for other sessions, whose products may be no less exact than this.
    ///
    /// # Errors
    /// When that needs a library that is not there.
    pub fn in_precision(&self, least: Precision) -> Result<Device, DeviceError> {
        let precision = self
            .backend
            .precision(least)
            .map_err(|reason| DeviceError::Precision {
                precision: least,
                reason,
            })?;
        Ok(Device {
            backend: Arc::clone(&self.backend),
            precision,
        })
    }

    /// The precision that sessions compute in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The CUDA backend over another driver than NVIDIA's: how it is tested without a device.
    ///
    /// # Errors
    /// When the driver does not open.
    #[doc(hidden)]
    pub fn over(
        opener: Arc<dyn cuda::driver::Opener>,
        options: &DeviceOptions,
    ) -> Result<Device, DeviceError> {
        let choice = options.choice;
        let unavailable = |reason| DeviceError::Unavailable { choice, reason };
        let backend = CudaBackend::open(opener, options.memory_bytes, unavailable)?;
        Device::with(backend).in_precision(options.precision)
    }

    pub(crate) fn with(backend: impl Backend + 'static) -> Device {
        Device {
            backend: Arc::new(backend),
            precision: Precision::F32Strict,
        }
    }

    /// What there is on this machine. Never fails.
    pub fn probe() -> Vec<DeviceInfo> {
        vec![cpu::describe(system_threads().get()), cuda::describe()]
    }

    /// A name for people.
    pub fn name(&self) -> &str {
        &self.backend.info().name
    }

    /// The kind of device.
    pub fn kind(&self) -> DeviceKind {
        self.backend.info().kind
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.backend.as_ref()
    }
}

fn system_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_people_write_them() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(0)),
            ("cuda:3", DeviceChoice::Cuda(3)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU"] {
            let refused = text.parse::<DeviceChoice>();
            assert_eq!(refused, Err(UnknownDevice { given: text.into() }));
        }
    }

    #[test]
    fn auto_finds_the_processor_and_cuda_is_refused_with_a_reason() {
        let device = Device::open(DeviceChoice::Auto, NonZeroUsize::new(2)).expect("a processor");
        assert_eq!(device.kind(), DeviceKind::Cpu);
        assert!(device.name().contains("2 threads"), "{}", device.name());
        let refused = Device::open(DeviceChoice::Cuda(1), None).expect_err("no such backend");
        let message = refused.to_string();
        assert!(
            message.starts_with("device cuda:1 cannot be used: "),
            "{message}"
        );
        assert!(message.ends_with("use `cpu` or `auto`"), "{message}");
        let found = Device::probe();
        assert!(found[0].usable && found[0].kind == DeviceKind::Cpu);
        assert!(
            !found[1].usable && found[1].kind == DeviceKind::Cuda && !found[1].detail.is_empty()
        );
    }
}
