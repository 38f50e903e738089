//! What cargo is asked: the package of a folder, and to compile it.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::manifest::Source;
use crate::process::{self, Line};
use crate::{BuildError, BuildRequest};

/// How many lines of a failed compile are kept; the first error is the one that matters, and a
/// single crate's errors fit.
const LOG_LINES: usize = 200;

/// A crate and the folder it builds into.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: String,
    pub(crate) description: String,
    id: String,
    manifest_path: PathBuf,
    target_directory: PathBuf,
    /// The folders that sources come from, with the names they go by in the component.
    sources: Vec<(PathBuf, String)>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    version: String,
    id: String,
    license: Option<String>,
    description: Option<String>,
    manifest_path: PathBuf,
    source: Option<String>,
}

pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

pub(crate) fn rustc() -> OsString {
    env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

impl Package {
    pub(crate) fn find(crate_dir: &Path) -> Result<Self, BuildError> {
        let not_a_plugin = |reason: String| BuildError::NotAPlugin {
            crate_dir: crate_dir.to_owned(),
            reason,
        };
        let manifest_path = crate_dir
            .join("Cargo.toml")
            .canonicalize()
            .map_err(|_| not_a_plugin("it has no `Cargo.toml`".to_owned()))?;
        let mut command = Command::new(cargo());
        command
            .args([
                "metadata",
                "--format-version=1",
                "--quiet",
                "--manifest-path",
            ])
            .arg(&manifest_path)
            .current_dir(crate_dir);
        let text =
            process::output(&mut command)?.map_err(|log| not_a_plugin(log.trim().to_owned()))?;
        let metadata: Metadata = serde_json::from_str(&text)
            .map_err(|error| not_a_plugin(format!("`cargo metadata`: {error}")))?;
        let sources = source_names(&metadata);
        let package = metadata
            .packages
            .into_iter()
            .find(|package| package.manifest_path == manifest_path)
            .ok_or_else(|| not_a_plugin("its `Cargo.toml` holds no package".to_owned()))?;
        Ok(Self {
            name: package.name,
            version: package.version,
            license: package.license.unwrap_or_default(),
            description: package.description.unwrap_or_default(),
            id: package.id,
            manifest_path,
            target_directory: metadata.target_directory,
            sources,
        })
    }

    pub(crate) fn out_dir(&self) -> PathBuf {
        self.target_directory.join("sandcast")
    }

    #[cfg(test)]
    pub(crate) fn for_tests(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            license: "Apache-2.0".to_owned(),
            description: "A crate of a test".to_owned(),
            id: String::new(),
            manifest_path: PathBuf::new(),
            target_directory: PathBuf::new(),
            sources: Vec::new(),
        }
    }
}

/// The names under which sources appear in panics: the same on every machine.
fn source_names(metadata: &Metadata) -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    if let Some(home) = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
    {
        sources.push((home, "/cargo".to_owned()));
    }
    sources.push((metadata.workspace_root.clone(), "/workspace".to_owned()));
    for package in metadata
        .packages
        .iter()
        .filter(|package| package.source.is_none())
    {
        if let Some(folder) = package.manifest_path.parent()
            && !folder.starts_with(&metadata.workspace_root)
        {
            sources.push((folder.to_owned(), format!("/{}", package.name)));
        }
    }
    sources
}

/// Compiles the crate's library and returns the module, or for wasm32-wasip2 the component.
pub(crate) fn compile(
    package: &Package,
    source: &Source,
    request: &BuildRequest,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    let mut flags = vec![OsString::from("-Ctarget-feature=+simd128")];
    for (folder, name) in &package.sources {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(folder);
        flag.push("=");
        flag.push(name);
        flags.push(flag);
    }
    let mut command = Command::new(cargo());
    command
        .args([
            "build",
            "--release",
            "--lib",
            "--message-format=json-render-diagnostics",
            "--target",
        ])
        .arg(source.target.name())
        .arg("--manifest-path")
        .arg(&package.manifest_path)
        .current_dir(&request.crate_dir)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags.join(&OsString::from("\x1f")),
        )
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    let mut module = None;
    let mut log = VecDeque::new();
    let status = process::run(&mut command, &mut |line| match line {
        Line::Out(text) => module = module_of(&text, &package.id).or_else(|| module.take()),
        Line::Err(text) => {
            if request.verbose || text.trim_start().starts_with("Compiling ") {
                progress(text.trim());
            }
            if log.len() == LOG_LINES {
                log.pop_front();
            }
            log.push_back(text);
        }
    })?;
    if !status.success() {
        let log: Vec<String> = log
            .into_iter()
            .filter(|line| !line.trim_start().starts_with("Compiling "))
            .collect();
        return Err(BuildError::Compile {
            name: package.name.clone(),
            log: log.join("\n"),
        });
    }
    module.ok_or_else(|| BuildError::NotAPlugin {
        crate_dir: request.crate_dir.clone(),
        reason:
            "its library is no `cdylib`; add `crate-type = [\"cdylib\", \"rlib\"]` under `[lib]`"
                .to_owned(),
    })
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The module that one message of cargo names, if it is about this package.
fn module_of(message: &str, package_id: &str) -> Option<PathBuf> {
    let message: Message = serde_json::from_str(message).ok()?;
    if message.reason != "compiler-artifact" || message.package_id != package_id {
        return None;
    }
    message.filenames.into_iter().find(|file| {
        file.extension()
            .is_some_and(|extension| extension == "wasm")
    })
}
