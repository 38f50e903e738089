//! A bill of materials: what a component or a program is made of, as CycloneDX 1.6 JSON
//! (<https://cyclonedx.org/docs/1.6/json/>, ECMA-424).
//!
//! It is made of what Cargo resolved: `cargo tree` says which packages take part, for one target and
//! with the features that are really on; `cargo metadata` says what they are, and `Cargo.lock` has the
//! hashes of what was downloaded. The same sources and toolchain give the same bytes: nothing of the
//! clock, of chance or of the machine gets in.

mod document;
mod graph;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::cargo::rustc;
use crate::manifest::Source;
use crate::{BuildError, file_error, process, write_atomically};

use document::Document;
use graph::Graph;

/// What to list the parts of.
#[derive(Debug, Clone)]
pub struct SbomRequest {
    /// The folder of the crate: of a plugin, or of a program such as `host/cli`.
    pub crate_dir: PathBuf,
    /// What it is compiled for; by default that of the plugin, or this machine for a program.
    pub target: Option<String>,
    /// The file that was built from it, whose hashes are put in.
    pub artifact: Option<PathBuf>,
    /// Seconds since 1970 to date the document with, as `SOURCE_DATE_EPOCH` has them; undated without.
    pub source_date_epoch: Option<i64>,
}

impl SbomRequest {
    /// Of the crate in this folder.
    pub fn new(crate_dir: impl Into<PathBuf>) -> Self {
        Self {
            crate_dir: crate_dir.into(),
            target: None,
            artifact: None,
            source_date_epoch: None,
        }
    }
}

/// A bill of materials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// The document, with a newline at its end.
    pub json: String,
    /// How many components it lists, without the one it is about.
    pub components: usize,
}

impl Sbom {
    /// Writes it beside a component: `plugin.cdx.json` for `plugin.wasm`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_beside(&self, component: &Path) -> Result<PathBuf, BuildError> {
        let path = component.with_extension("cdx.json");
        write_atomically(&path, self.json.as_bytes())?;
        Ok(path)
    }
}

/// Why there is no bill of materials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SbomError {
    /// A program could not be started, or a file not read or written.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Cargo does not know the crate, or its lock file is not up to date.
    #[error(
        "cargo cannot resolve the crate in `{}`: {log}; build it first, which brings `Cargo.lock` up to date",
        .crate_dir.display()
    )]
    Unresolved {
        /// The folder.
        crate_dir: PathBuf,
        /// What cargo said.
        log: String,
    },
    /// Cargo said something that is not understood here.
    #[error("`{what}` said what is not understood: {detail}; this works with cargo 1.85 and later")]
    NotUnderstood {
        /// The command.
        what: &'static str,
        /// The part.
        detail: String,
    },
    /// The given date is none.
    #[error("`{seconds}` seconds since 1970 are no date; set SOURCE_DATE_EPOCH to another number")]
    Date {
        /// What was given.
        seconds: i64,
    },
}

/// Lists what a crate is made of.
///
/// # Errors
/// See [`SbomError`].
pub fn sbom(request: &SbomRequest) -> Result<Sbom, SbomError> {
    let plugin = match Source::read(&request.crate_dir) {
        Ok(source) => Some(source),
        Err(BuildError::NotAPlugin { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let toolchain = Toolchain::ask(&request.crate_dir)?;
    let target = match (&request.target, &plugin) {
        (Some(target), _) => target.clone(),
        (None, Some(source)) => source.target.name().to_owned(),
        (None, None) => toolchain.host.clone(),
    };
    let graph = Graph::resolve(&request.crate_dir, &target)?;
    let artifact = match &request.artifact {
        None => None,
        Some(path) => {
            let bytes = fs::read(path).map_err(file_error(path, "read"))?;
            Some(Artifact {
                sha256: hex(&Sha256::digest(&bytes)),
                blake3: blake3::hash(&bytes).to_hex().to_string(),
            })
        }
    };
    let timestamp = match request.source_date_epoch {
        None => None,
        Some(seconds) => {
            let moment = jiff::Timestamp::from_second(seconds);
            let moment = moment.map_err(|_| SbomError::Date { seconds })?;
            Some(moment.to_string())
        }
    };
    let about = About {
        plugin_id: plugin.as_ref().map(|source| source.id().to_owned()),
        artifact,
        target,
        rustc: toolchain.version,
        timestamp,
    };
    let document = Document::of(&graph, &about);
    Ok(Sbom {
        components: document.components(),
        json: document.to_json(),
    })
}

/// What is told of the build beside its graph.
struct About {
    plugin_id: Option<String>,
    artifact: Option<Artifact>,
    target: String,
    /// The version of the compiler, whose standard library is linked in.
    rustc: String,
    timestamp: Option<String>,
}

/// The hashes of what was built.
struct Artifact {
    sha256: String,
    blake3: String,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The compiler of a folder.
pub(crate) struct Toolchain {
    /// Such as `1.95.0`.
    pub(crate) version: String,
    /// The commit it was built from.
    pub(crate) commit: Option<String>,
    /// The target it runs on.
    pub(crate) host: String,
}

impl Toolchain {
    pub(crate) fn ask(crate_dir: &Path) -> Result<Self, BuildError> {
        let mut command = Command::new(rustc());
        command.arg("-vV").current_dir(crate_dir);
        let text = process::output(&mut command)?.unwrap_or_else(|log| log);
        let field = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        match (field("release:"), field("host:")) {
            (Some(version), Some(host)) => Ok(Self {
                version,
                commit: field("commit-hash:").filter(|commit| commit != "unknown"),
                host,
            }),
            _ => Err(BuildError::Toolchain {
                said: text.lines().next().unwrap_or_default().to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
