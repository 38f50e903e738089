//! What cargo is asked: the package of a folder, and to compile it.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::manifest::Source;
use crate::process::{self, Line};
use crate::target::GuestTarget;
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
    workspace_root: PathBuf,
    repository: Option<String>,
    /// The manifests of the packages of the checkout.
    manifests: Vec<PathBuf>,
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
    repository: Option<String>,
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
            .map_err(|_| {
                not_a_plugin(
                    "it has no `Cargo.toml`; where another tool makes the component, `plugin.toml` names it \
                     with `component` and `version`"
                        .to_owned(),
                )
            })?;
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
        let of_checkout = metadata.packages.iter().filter(|it| it.source.is_none());
        let manifests = of_checkout.map(|it| it.manifest_path.clone()).collect();
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
            workspace_root: metadata.workspace_root,
            repository: package.repository,
            manifests,
            sources,
        })
    }

    pub(crate) fn target_directory(&self) -> &Path {
        &self.target_directory
    }

    pub(crate) fn workspace_root(&self) -> &Path {
        &self.workspace_root
    }

    pub(crate) fn repository(&self) -> Option<&str> {
        self.repository.as_deref()
    }

    pub(crate) fn manifests(&self) -> impl Iterator<Item = &PathBuf> {
        self.manifests.iter()
    }

    /// The name of a file that takes part, the same in every checkout.
    pub(crate) fn source_name(&self, file: &Path) -> String {
        let named = self.sources.iter().find_map(|(folder, name)| {
            let rest = file.strip_prefix(folder).ok()?;
            Some(format!("{name}/{}", rest.display()))
        });
        let named = named.unwrap_or_else(|| {
            let name = file.file_name().unwrap_or_default();
            format!("/outside/{}", name.to_string_lossy())
        });
        let of_checkout = named.strip_prefix("/source/").map(str::to_owned);
        of_checkout.unwrap_or(named)
    }

    pub(crate) fn out_dir(&self) -> PathBuf {
        // Cargo joins a configured folder as it stands, with its `..`.
        let target = self.target_directory.canonicalize();
        target
            .unwrap_or_else(|_| self.target_directory.clone())
            .join("sandcast")
    }

    /// What is known of a component that another tool made, in its folder.
    pub(crate) fn without_crate(name: &str, version: &str, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            license: String::new(),
            description: String::new(),
            id: String::new(),
            manifest_path: PathBuf::new(),
            target_directory: folder.join("target"),
            workspace_root: folder.to_owned(),
            repository: None,
            manifests: Vec::new(),
            sources: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(name: &str, version: &str) -> Self {
        Self {
            license: "Apache-2.0".to_owned(),
            description: "A crate of a test".to_owned(),
            ..Self::without_crate(name, version, Path::new(""))
        }
    }
}

/// The names under which sources appear in panics: the same on every machine, and within a source
/// tree the same for every workspace, so that workspaces share what they compile.
fn source_names(metadata: &Metadata) -> Vec<(PathBuf, String)> {
    let mut sources = Vec::new();
    if let Some(home) = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
    {
        sources.push((home, "/cargo".to_owned()));
    }
    // Where they really are: a link may lead out of the workspace.
    let folder = |package: &MetadataPackage| {
        let folder = package.manifest_path.parent()?;
        Some(folder.canonicalize().unwrap_or_else(|_| folder.to_owned()))
    };
    let folders: Vec<(PathBuf, &str)> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_none())
        .filter_map(|package| Some((folder(package)?, package.name.as_str())))
        .collect();
    let packages: Vec<(&Path, &str)> = folders
        .iter()
        .map(|(folder, name)| (folder.as_path(), *name))
        .collect();
    let shared = common_folder(&metadata.workspace_root, &packages);
    if shared.parent().is_some() {
        sources.push((shared.to_owned(), "/source".to_owned()));
    } else {
        // They share nothing but the root of the file system.
        sources.extend(
            packages
                .into_iter()
                .map(|(folder, name)| (folder.to_owned(), format!("/source/{name}"))),
        );
    }
    sources
}

/// The folder that all of these are in.
fn common_folder<'p>(first: &'p Path, others: &[(&Path, &str)]) -> &'p Path {
    first
        .ancestors()
        .find(|ancestor| others.iter().all(|(other, _)| other.starts_with(ancestor)))
        .unwrap_or(first)
}

/// Flags of rustc: what a guest may use of the processor, and names in place of folders.
fn flags(package: &Package) -> OsString {
    let mut flags = vec![OsString::from("-Ctarget-feature=+simd128")];
    // What build scripts generate lies there, wherever that is; the last name that fits counts.
    let generated = (package.target_directory.clone(), "/target".to_owned());
    for (folder, name) in package.sources.iter().chain([&generated]) {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(folder);
        flag.push("=");
        flag.push(name);
        flags.push(flag);
    }
    flags.join(&OsString::from("\x1f"))
}

/// `cargo build` of the library of a package.
fn build_command(package: &Package, target: GuestTarget) -> Command {
    let mut command = Command::new(cargo());
    command
        .args([
            "build",
            "--release",
            "--lib",
            "--message-format=json-render-diagnostics",
            "--target",
        ])
        .arg(target.name())
        .arg("--manifest-path")
        .arg(&package.manifest_path)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(package))
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    if let Some(folder) = package.manifest_path.parent() {
        command.current_dir(folder);
    }
    command
}

/// Compiles the crate's library and returns the module, or for wasm32-wasip2 the component.
pub(crate) fn compile(
    package: &Package,
    source: &Source,
    request: &BuildRequest,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, BuildError> {
    let mut command = build_command(package, source.target);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_named_from_the_folder_they_share() {
        let others = [
            (Path::new("/home/ada/plugins/one"), "one"),
            (Path::new("/home/ada/sdk/rust"), "sdk"),
        ];
        let root = Path::new("/home/ada/plugins");
        assert_eq!(common_folder(root, &others), Path::new("/home/ada"));
        assert_eq!(common_folder(root, &others[..1]), root);
        assert_eq!(
            common_folder(Path::new("/srv/plugins"), &others),
            Path::new("/")
        );
    }

    #[test]
    fn only_the_module_of_the_package_counts() {
        let message = r#"{"reason":"compiler-artifact","package_id":"p","filenames":["/t/p.rlib","/t/p.wasm"]}"#;
        assert_eq!(module_of(message, "p"), Some(PathBuf::from("/t/p.wasm")));
        assert_eq!(module_of(message, "q"), None);
        assert_eq!(
            module_of(r#"{"reason":"build-finished","success":true}"#, "p"),
            None
        );
        assert_eq!(module_of("not json", "p"), None);
    }
}
