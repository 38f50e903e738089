//! Which machine part runs a program, and what there is.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;

use crate::backend::Backend;
use crate::cpu::{self, CpuBackend};
use crate::cuda;

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
        match choice {
            // There is no other backend yet that `Auto` could prefer.
            DeviceChoice::Auto | DeviceChoice::Cpu => {
                let threads = threads.unwrap_or_else(system_threads);
                Ok(Device::with(CpuBackend::open(threads)?))
            }
            DeviceChoice::Cuda(_) => {
                let reason = match cuda::probe() {
                    Ok(driver) => format!("there is no CUDA backend in this build ({driver})"),
                    Err(reason) => format!("there is no CUDA backend in this build, and {reason}"),
                };
                Err(DeviceError::Unavailable { choice, reason })
            }
        }
    }

    pub(crate) fn with(backend: impl Backend + 'static) -> Device {
        Device {
            backend: Arc::new(backend),
        }
    }

    /// What there is on this machine. Never fails.
    pub fn probe() -> Vec<DeviceInfo> {
        let cuda = match cuda::probe() {
            Ok(driver) => format!("{driver}; there is no CUDA backend in this build"),
            Err(reason) => reason.to_string(),
        };
        vec![
            cpu::describe(system_threads().get()),
            DeviceInfo {
                kind: DeviceKind::Cuda,
                name: "cuda".into(),
                usable: false,
                detail: cuda,
            },
        ]
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
            message.starts_with("device cuda:1 cannot be used: there is no CUDA backend"),
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
