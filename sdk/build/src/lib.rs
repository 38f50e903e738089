//! Builds a plugin's crate into a component: guest target, compile, componentise, manifest.
//!
//! The component is a function of the crate's sources, its lock file and the toolchain: the same bytes
//! again, in whatever folder the sources lie and on whichever machine, as long as path dependencies lie
//! inside the workspace: cargo makes the absolute path of one outside part of the names in the code. A
//! link inside the workspace is inside, so `plugins/sdk` leads to the SDK.
//! `plugin.toml` becomes a custom section of it, so that the component's digest covers what the plugin
//! says about itself.
//!
//! ```no_run
//! use sandcast_build::{BuildRequest, build};
//!
//! # fn main() -> Result<(), sandcast_build::BuildError> {
//! let built = build(&BuildRequest::new("plugins/connector-csv"), &mut |line| eprintln!("{line}"))?;
//! assert!(built.component.ends_with("target/sandcast/connector-csv.wasm"));
//! # Ok(()) }
//! ```

mod cargo;
mod component;
mod manifest;
mod process;
mod provenance;
mod sbom;
mod target;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

pub use provenance::{
    BUILD_TYPE, BUILDER, BuildDefinition, Builder, Predicate, ProvenanceError, Resource,
    RunDetails, STATEMENT_TYPE, Statement, provenance, provenance_path,
};
pub use sbom::{Sbom, SbomError, SbomRequest, sbom};
pub use target::{GuestTarget, ensure_guest_target};

/// What to build, and where to.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The folder of the plugin's crate, with `Cargo.toml` and `plugin.toml`.
    pub crate_dir: PathBuf,
    /// Where the component goes; `sandcast` in the target folder of the crate's workspace when absent.
    pub out_dir: Option<PathBuf>,
    /// Passes every line of the compiler on as progress, not only what it compiles.
    pub verbose: bool,
}

impl BuildRequest {
    /// A build of the crate in this folder into the usual place.
    pub fn new(crate_dir: impl Into<PathBuf>) -> Self {
        Self {
            crate_dir: crate_dir.into(),
            out_dir: None,
            verbose: false,
        }
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
    /// The compiler's list of the files that it read.
    dep_info: PathBuf,
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
    /// `plugin.toml` does not make sense.
    #[error("`{}`: {reason}", .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A program this needs could not be started.
    #[error("`{program}` could not be started; is Rust installed and on the path?")]
    Program {
        /// Its name.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The standard library for guests is not there and could not be had.
    #[error(
        "the toolchain lacks the target {target}: {reason}; run `rustup target add {target}` where a network is, or `sdk/install-guest-target` on Debian"
    )]
    GuestTarget {
        /// The target's name.
        target: &'static str,
        /// What was tried.
        reason: String,
    },
    /// The crate did not compile.
    #[error("crate `{name}` did not compile:\n{log}")]
    Compile {
        /// The crate.
        name: String,
        /// The end of what cargo wrote.
        log: String,
    },
    /// The compiled module is not a plugin.
    #[error("`{name}` compiles, but is no plugin: {reason}")]
    Componentise {
        /// The crate.
        name: String,
        /// What is missing.
        reason: String,
    },
    /// The compiler does not say what it is.
    #[error("`rustc -vV` does not say its version and target, but `{said}`; is Rust installed?")]
    Toolchain {
        /// The first line of what it said.
        said: String,
    },
    /// A file could not be read or written.
    #[error("`{}` could not be {action}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read`, `written`, `removed` or `locked`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Builds a plugin; cheap when nothing has changed. Callers in parallel wait for one another.
///
/// Where `plugin.toml` names a `component` that another tool made, that is given its manifest and
/// nothing is compiled.
///
/// # Errors
/// See [`BuildError`].
pub fn build(request: &BuildRequest, progress: &mut dyn FnMut(&str)) -> Result<Built, BuildError> {
    let source = manifest::Source::read(&request.crate_dir)?;
    if let Some((file, package)) = source.ready_made() {
        return finish(request, &source, &file, &package, progress);
    }
    let package = cargo::Package::find(&request.crate_dir)?;
    target::ensure(source.target, &request.crate_dir, progress)?;

    let out_dir = request.out_dir.clone().unwrap_or_else(|| package.out_dir());
    fs::create_dir_all(&out_dir).map_err(file_error(&out_dir, "written"))?;
    let lock_path = out_dir.join(format!(".{}.lock", package.name));
    let lock = File::create(&lock_path).map_err(file_error(&lock_path, "locked"))?;
    lock.lock().map_err(file_error(&lock_path, "locked"))?;

    target::forget_other(
        source.target,
        &request.crate_dir,
        package.target_directory(),
    )?;
    let module_path = cargo::compile(&package, &source, request, progress)?;
    let module = fs::read(&module_path).map_err(file_error(&module_path, "read"))?;
    let component_path = out_dir.join(format!("{}.wasm", package.name));
    let stamp_path = out_dir.join(format!(".{}.stamp", package.name));
    let stamp = Stamp::of(&module, &source, &package);
    let dep_info = module_path.with_extension("d");
    if let Some(built) = stamp.find(&component_path, &stamp_path, &dep_info) {
        return Ok(built);
    }

    progress(&format!("componentising {}", package.name));
    let (component, manifest_json) = component::assemble(&module, &source, &package)?;
    write_atomically(&component_path, &component)?;
    let built = Built {
        digest: *blake3::hash(&component).as_bytes(),
        bytes: component.len() as u64,
        component: component_path,
        manifest_json,
        dep_info,
    };
    write_atomically(&stamp_path, stamp.line(&built).as_bytes())?;
    Ok(built)
}

/// Gives a component that another tool made its manifest.
fn finish(
    request: &BuildRequest,
    source: &manifest::Source,
    file: &Path,
    package: &cargo::Package,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, BuildError> {
    let made = fs::read(file).map_err(file_error(file, "read"))?;
    progress(&format!("finishing {}", file.display()));
    let (component, manifest_json) = component::assemble(&made, source, package)?;
    let out_dir = request.out_dir.clone().unwrap_or_else(|| package.out_dir());
    fs::create_dir_all(&out_dir).map_err(file_error(&out_dir, "written"))?;
    let path = out_dir.join(format!("{}.wasm", package.name));
    write_atomically(&path, &component)?;
    Ok(Built {
        digest: *blake3::hash(&component).as_bytes(),
        bytes: component.len() as u64,
        dep_info: path.clone(),
        component: path,
        manifest_json,
    })
}

/// Where the component of the crate in this folder goes unless a request says otherwise.
///
/// # Errors
/// As [`build`], for a folder that is no crate.
pub fn component_path(crate_dir: &Path) -> Result<PathBuf, BuildError> {
    let ready_made = match crate_dir.join("Cargo.toml").is_file() {
        true => None,
        false => manifest::Source::read(crate_dir)?.ready_made(),
    };
    let package = match ready_made {
        Some((_, package)) => package,
        None => cargo::Package::find(crate_dir)?,
    };
    Ok(package.out_dir().join(format!("{}.wasm", package.name)))
}

/// Everything a component is made of, as a digest: the same stamp, the same bytes.
struct Stamp(String);

impl Stamp {
    fn of(module: &[u8], source: &manifest::Source, package: &cargo::Package) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in [
            env!("CARGO_PKG_VERSION").as_bytes(),
            module,
            source.text.as_bytes(),
            package.version.as_bytes(),
            package.license.as_bytes(),
            package.description.as_bytes(),
        ] {
            hasher
                .update(&(part.len() as u64).to_le_bytes())
                .update(part);
        }
        Self(hasher.finalize().to_hex().to_string())
    }

    fn line(&self, built: &Built) -> String {
        format!(
            "{} {}\n{}",
            self.0,
            blake3::Hash::from_bytes(built.digest),
            built.manifest_json
        )
    }

    /// The component of an earlier build, if it was made of the same and is still as it was.
    fn find(&self, component_path: &Path, stamp_path: &Path, dep_info: &Path) -> Option<Built> {
        let text = fs::read_to_string(stamp_path).ok()?;
        let (line, manifest_json) = text.split_once('\n')?;
        let (stamp, digest) = line.split_once(' ')?;
        let component = fs::read(component_path).ok()?;
        let seen = blake3::hash(&component);
        (stamp == self.0 && digest == seen.to_hex().as_str()).then(|| Built {
            component: component_path.to_owned(),
            digest: *seen.as_bytes(),
            bytes: component.len() as u64,
            manifest_json: manifest_json.to_owned(),
            dep_info: dep_info.to_owned(),
        })
    }
}

/// Writes beside the file and renames, so that nobody sees half of it.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // What is left of a failed write is of no use; the first error is the one to report.
        let _ = fs::remove_file(&partial);
    }
    written.map_err(file_error(path, "written"))
}

fn file_error(
    path: &Path,
    action: &'static str,
) -> impl FnOnce(std::io::Error) -> BuildError + use<> {
    let path = path.to_owned();
    move |source| BuildError::File {
        path,
        action,
        source,
    }
}
