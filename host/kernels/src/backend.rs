//! What a device implements.

use crate::device::DeviceInfo;

/// A device that runs programs.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// What it is.
    fn info(&self) -> &DeviceInfo;
}
