//! Which packages take part, and who needs whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::SbomError;
use crate::{cargo, file_error, process};

/// A package by what tells it from others in one graph.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) version: String,
}

/// What is known of a package.
#[derive(Debug, Clone, Default)]
pub(super) struct Package {
    /// As Cargo writes it; `None` for a folder of the checkout.
    pub(super) source: Option<String>,
    /// SHA-256 of what was downloaded.
    pub(super) checksum: Option<String>,
    pub(super) license: Option<String>,
    /// Whether its licence is a file of its own.
    pub(super) license_file: bool,
    pub(super) repository: Option<String>,
    pub(super) features: BTreeSet<String>,
    /// Whether it is part of what runs, and not only of the build.
    pub(super) runs: bool,
    pub(super) needs: BTreeSet<Key>,
}

/// The packages of a crate for one target, with the features that are on.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) root: Key,
    pub(super) packages: BTreeMap<Key, Package>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    version: String,
    license: Option<String>,
    license_file: Option<PathBuf>,
    repository: Option<String>,
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Graph {
    pub(super) fn resolve(crate_dir: &Path, target: &str) -> Result<Self, SbomError> {
        let metadata = [
            "metadata",
            "--format-version=1",
            "--locked",
            "--quiet",
            "--filter-platform",
            target,
        ];
        let text = ask(crate_dir, &metadata)?;
        let metadata: Metadata =
            serde_json::from_str(&text).map_err(|error| SbomError::NotUnderstood {
                what: "cargo metadata",
                detail: error.to_string(),
            })?;
        // Both kinds of dependencies, then only those that are part of what runs.
        let mut graph = Self::of_tree(&tree(crate_dir, target, "normal,build")?)?;
        let running = Self::of_tree(&tree(crate_dir, target, "normal,no-proc-macro")?)?;
        for key in running.packages.keys() {
            if let Some(package) = graph.packages.get_mut(key) {
                package.runs = true;
            }
        }
        graph.describe(metadata, crate_dir)?;
        Ok(graph)
    }

    /// Reads the lines of `cargo tree --prefix depth --format '|{f}|{p}'`.
    pub(super) fn of_tree(text: &str) -> Result<Self, SbomError> {
        let odd = |line: &str| SbomError::NotUnderstood {
            what: "cargo tree",
            detail: line.chars().take(200).collect(),
        };
        let mut packages: BTreeMap<Key, Package> = BTreeMap::new();
        // The packages above the line, the nearest last.
        let mut above: Vec<Key> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let mut parts = line.splitn(3, '|');
            let (depth, features, package) = match (parts.next(), parts.next(), parts.next()) {
                (Some(depth), Some(features), Some(package)) => (depth, features, package),
                _ => return Err(odd(line)),
            };
            let depth: usize = depth.parse().map_err(|_| odd(line))?;
            let mut words = package.split(' ');
            let (Some(name), Some(version)) = (words.next(), words.next()) else {
                return Err(odd(line));
            };
            let version = version.strip_prefix('v').ok_or_else(|| odd(line))?;
            if name.is_empty() || depth > above.len() {
                return Err(odd(line));
            }
            let key = Key {
                name: name.to_owned(),
                version: version.to_owned(),
            };
            above.truncate(depth);
            if let Some(parent) = above.last()
                && *parent != key
                && let Some(parent) = packages.get_mut(parent)
            {
                parent.needs.insert(key.clone());
            }
            let features = features.split(',').filter(|feature| !feature.is_empty());
            let known = packages.entry(key.clone()).or_default();
            known.features.extend(features.map(str::to_owned));
            above.push(key);
        }
        let first = text.lines().next().unwrap_or_default();
        let root = above.into_iter().next().ok_or_else(|| odd(first))?;
        Ok(Self { root, packages })
    }

    /// Adds what `cargo metadata` and the lock file know of the packages.
    fn describe(&mut self, metadata: Metadata, crate_dir: &Path) -> Result<(), SbomError> {
        let path = metadata.workspace_root.join("Cargo.lock");
        let text = fs::read_to_string(&path).map_err(file_error(&path, "read"))?;
        let lock: Lock = toml::from_str(&text).map_err(|error| SbomError::NotUnderstood {
            what: "Cargo.lock",
            detail: error.message().to_owned(),
        })?;
        let checksums: BTreeMap<(&str, &str), &String> = lock
            .package
            .iter()
            .filter_map(|it| {
                Some((
                    (it.name.as_str(), it.version.as_str()),
                    it.checksum.as_ref()?,
                ))
            })
            .collect();
        let manifest = crate_dir.join("Cargo.toml").canonicalize().ok();
        let mut described: BTreeSet<Key> = BTreeSet::new();
        for it in metadata.packages {
            let key = Key {
                name: it.name,
                version: it.version,
            };
            let Some(package) = self.packages.get_mut(&key) else {
                continue;
            };
            // The crate itself is the one in the folder, whatever else has its name.
            if key == self.root && Some(&it.manifest_path) != manifest.as_ref() {
                continue;
            }
            if !described.insert(key.clone()) {
                return Err(SbomError::NotUnderstood {
                    what: "cargo metadata",
                    detail: format!(
                        "there are two packages {} {} from different places",
                        key.name, key.version
                    ),
                });
            }
            if it.source.is_some() {
                let checksum = checksums.get(&(key.name.as_str(), key.version.as_str()));
                package.checksum = checksum.map(|it| (*it).clone());
            }
            package.source = it.source;
            package.license = it.license;
            package.license_file = it.license_file.is_some();
            package.repository = it.repository;
        }
        match self.packages.keys().find(|key| !described.contains(key)) {
            None => Ok(()),
            Some(key) => Err(SbomError::NotUnderstood {
                what: "cargo metadata",
                detail: format!("it does not know {} {}", key.name, key.version),
            }),
        }
    }
}

fn tree(crate_dir: &Path, target: &str, edges: &str) -> Result<String, SbomError> {
    let arguments = [
        "tree",
        "--locked",
        "--quiet",
        "--charset=ascii",
        "--prefix=depth",
        "--format=|{f}|{p}",
        "--target",
        target,
        "--edges",
        edges,
    ];
    ask(crate_dir, &arguments)
}

fn ask(crate_dir: &Path, arguments: &[&str]) -> Result<String, SbomError> {
    let mut command = Command::new(cargo::cargo());
    command
        .args(arguments)
        .current_dir(crate_dir)
        .env("CARGO_TERM_COLOR", "never");
    process::output(&mut command)?.map_err(|log| SbomError::Unresolved {
        crate_dir: crate_dir.to_owned(),
        log: log.trim().to_owned(),
    })
}
