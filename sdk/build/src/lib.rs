//! Builds a plugin crate into a component: guest target, compile, componentise, manifest.

use std::path::{Path, PathBuf};

/// What to build, and where to.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The folder of the plugin's crate, with `Cargo.toml` and `plugin.toml`.
    pub crate_dir: PathBuf,
    /// Where the component goes; `target/sandcast` of the crate's workspace when absent.
    pub out_dir: Option<PathBuf>,
    /// Passes the compiler's own lines on as progress.
    pub verbose: bool,
}

impl BuildRequest {
    /// A build of the crate in this folder into the usual place.
    pub fn new(crate_dir: impl Into<PathBuf>) -> Self {
        Self { crate_dir: crate_dir.into(), out_dir: None, verbose: false }
    }
}

/// A plugin that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// Where the component is.
    pub component: PathBuf,
    /// blake3 of its bytes.
    pub digest: [u8; 32],
    /// How many bytes it has.
    pub bytes: u64,
    /// The manifest it carries, a JSON object.
    pub manifest_json: String,
}

/// Why a plugin could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The folder is not a plugin's crate.
    #[error("`{}` is no plugin crate: {reason}", .crate_dir.display())]
    NotAPlugin {
        /// The folder.
        crate_dir: PathBuf,
        /// What is missing.
        reason: String,
    },
}

/// Builds a plugin; cheap when nothing has changed. Callers in parallel wait for one another.
///
/// # Errors
/// See [`BuildError`].
pub fn build(request: &BuildRequest, progress: &mut dyn FnMut(&str)) -> Result<Built, BuildError> {
    progress("building");
    Err(BuildError::NotAPlugin { crate_dir: request.crate_dir.clone(), reason: "building is not here yet".into() })
}

/// Makes sure that guests can be compiled on this machine.
///
/// # Errors
/// See [`BuildError`].
pub fn ensure_guest_target(progress: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    progress("looking for the guest target");
    Ok(())
}

/// Where the component of the crate in this folder goes by default.
#[must_use]
pub fn component_path(crate_dir: &Path) -> PathBuf {
    crate_dir.join("target/sandcast")
}
