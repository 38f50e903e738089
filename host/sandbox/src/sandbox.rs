//! The engine with everything that plugins share.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use sandcast_audit::AuditLog;
use crate::stand_in::DeviceChoice;
use thiserror::Error;

use crate::grants::Grants;
use crate::load::LoadError;
use crate::manifest::Role;
use crate::plugin::Plugin;

/// Whether memories are taken from a pool made at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// A pool where the address space allows one, else on demand.
    #[default]
    Auto,
    /// Always on demand.
    Off,
}

/// How a [`Sandbox`] is made.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// Where compiled plugins are kept; nothing is kept when absent.
    pub cache_dir: Option<PathBuf>,
    /// Whether memories come from a pool.
    pub pooling: Pooling,
    /// Where tensor programs run.
    pub device: DeviceChoice,
    /// Threads of tensor programs; one per core when absent.
    pub compute_threads: Option<NonZeroUsize>,
    /// The largest component that is read.
    pub max_component_bytes: u64,
    /// How long one component may compile.
    pub compile_timeout: Duration,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            cache_dir: None,
            pooling: Pooling::Auto,
            device: DeviceChoice::Auto,
            compute_threads: None,
            max_component_bytes: 64 << 20,
            compile_timeout: Duration::from_secs(300),
        }
    }
}

/// Why there is no sandbox.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The engine could not be made.
    #[error("the WebAssembly engine cannot start: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
    /// The device could not be opened.
    #[error("the compute device cannot be opened: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },
    /// The folder of compiled plugins cannot be used.
    #[error("the cache of compiled plugins at {path} cannot be used: {reason}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The engine with everything that plugins share. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    _private: (),
}

impl Sandbox {
    /// Starts the engine, its ticker and the compute device.
    ///
    /// # Errors
    /// When the engine, the device or the cache folder cannot be used.
    pub fn new(config: SandboxConfig, audit: AuditLog) -> Result<Sandbox, SandboxError> {
        let _ = (config, audit);
        unimplemented!()
    }

    /// Checks a component against its role and grants, compiles it, and records the load.
    ///
    /// # Errors
    /// When the component is not one, has no manifest, speaks another contract, is too large,
    /// plays another role, imports what is not granted, or does not compile.
    pub async fn load(
        &self,
        name: &str,
        component: &[u8],
        role: Role,
        grants: Grants,
    ) -> Result<Plugin, LoadError> {
        let _ = (name, component, role, grants);
        unimplemented!()
    }
}
