//! Where a component comes from: an in-toto Statement v1 (<https://in-toto.io/Statement/v1>) with a
//! predicate of SLSA Provenance v1 (<https://slsa.dev/spec/v1.0/provenance>).
//!
//! The build of type [`BUILD_TYPE`] compiles the library of one crate for one target with Cargo and its
//! lock file, in the profile `release`, and puts the manifest in. Its external parameters are `crate`
//! and `target`. It depends on:
//!
//! - `sources`: every file that the compiler read of the checkout, by its own list, with the manifests,
//!   as a `dirHash`: SHA-256 over a line `<sha256>  <path>` for each, in order (the Hash1 of Go modules);
//! - `checkout`: the commit that is checked out, where there is one, with the annotation `clean`, which
//!   says whether the files are those of the commit;
//! - `Cargo.lock`: which packages of registries took part, with their hashes;
//! - `rustc`: the compiler, with its version and the commit it was built from.
//!
//! Nothing of the clock or the machine is in it, so the same build has the same statement.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::cargo::Package;
use crate::manifest::Source;
use crate::sbom::{Toolchain, hex};
use crate::{BuildError, Built, file_error, process};

/// The type of an envelope's payload that holds a statement.
pub const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
/// The type of the builds that this crate does.
pub const BUILD_TYPE: &str = "https://github.com/sandcast/sandcast/plugin-build/v1";
/// Who builds, where nobody else is named: this crate, on somebody's machine.
pub const BUILDER: &str = "https://github.com/sandcast/sandcast/sandcast-build";

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// What is said about one or more files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    /// What it is about.
    pub subject: Vec<Resource>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    /// How that was built.
    pub predicate: Predicate,
}

/// How something was built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Predicate {
    /// What was to be built.
    pub build_definition: BuildDefinition,
    /// Who built it.
    pub run_details: RunDetails,
}

/// What was to be built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    /// What the rest means.
    pub build_type: String,
    /// What whoever asked for the build chose.
    pub external_parameters: Value,
    /// What it was built from.
    #[serde(default)]
    pub resolved_dependencies: Vec<Resource>,
}

/// Who built it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDetails {
    /// The builder.
    pub builder: Builder,
}

/// A builder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Builder {
    /// Its name, a URI.
    pub id: String,
    /// The versions of its parts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, String>,
}

/// A file, a checkout or a program (in-toto ResourceDescriptor).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its digests, by algorithm.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

impl Resource {
    fn new(name: &str, algorithm: &str, digest: String) -> Self {
        Self {
            name: Some(name.to_owned()),
            digest: BTreeMap::from([(algorithm.to_owned(), digest)]),
            ..Self::default()
        }
    }
}

/// Why a statement says nothing about a component.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProvenanceError {
    /// It is not a statement about a build.
    #[error("it is no in-toto statement with SLSA provenance v1: {what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// It is about another component.
    #[error(
        "it is about another component: this one has sha256 {found}; build it again with \
         `sandcast build --provenance`, or get the file that belongs to it"
    )]
    OtherComponent {
        /// What the component has.
        found: String,
    },
    /// Somebody else built it.
    #[error("it was built by `{found}`, and not by `{wanted}`")]
    OtherBuilder {
        /// Who did.
        found: String,
        /// Who was to.
        wanted: String,
    },
}

impl Statement {
    /// Reads the payload of an envelope.
    ///
    /// # Errors
    /// When it is not a statement about a build.
    pub fn read(payload: &[u8]) -> Result<Self, ProvenanceError> {
        let malformed = |what: String| ProvenanceError::Malformed { what };
        let statement: Self =
            serde_json::from_slice(payload).map_err(|error| malformed(error.to_string()))?;
        for (found, wanted) in [
            (&statement.kind, STATEMENT),
            (&statement.predicate_type, PREDICATE),
        ] {
            if found != wanted {
                return Err(malformed(format!("it is not of the type {wanted}")));
            }
        }
        Ok(statement)
    }

    /// Checks that it is about a component, and that this builder built it where one is named.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, component: &[u8], builder: Option<&str>) -> Result<(), ProvenanceError> {
        let found = hex(&Sha256::digest(component));
        let is_it = |subject: &Resource| {
            let digest = subject.digest.get("sha256");
            digest.is_some_and(|digest| *digest == found)
        };
        if !self.subject.iter().any(is_it) {
            return Err(ProvenanceError::OtherComponent { found });
        }
        let found = &self.predicate.run_details.builder.id;
        match builder {
            Some(wanted) if wanted != found => Err(ProvenanceError::OtherBuilder {
                found: found
                    .chars()
                    .filter(|it| !it.is_control())
                    .take(256)
                    .collect(),
                wanted: wanted.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// As JSON, the payload of an envelope.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Text, numbers and lists: this always has a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Where the provenance of a component lies: `plugin.intoto.json` beside `plugin.wasm`.
#[must_use]
pub fn provenance_path(component: &Path) -> PathBuf {
    component.with_extension("intoto.json")
}

/// Says where a component comes from that was just built.
///
/// # Errors
/// When a source cannot be read any more, or the toolchain does not answer.
pub fn provenance(crate_dir: &Path, built: &Built, builder: &str) -> Result<Statement, BuildError> {
    let source = Source::read(crate_dir)?;
    let package = Package::find(crate_dir)?;
    let toolchain = Toolchain::ask(crate_dir)?;
    let component = fs::read(&built.component).map_err(file_error(&built.component, "read"))?;
    let name = built.component.file_name().unwrap_or_default();
    let mut subject = Resource::new(
        &name.to_string_lossy(),
        "sha256",
        hex(&Sha256::digest(&component)),
    );
    let blake3 = blake3::hash(&component).to_hex().to_string();
    subject.digest.insert("blake3".to_owned(), blake3);

    let lock = package.workspace_root().join("Cargo.lock");
    let mut needed = vec![sources(&package, built, &source.path)?];
    needed.extend(checkout(crate_dir, package.repository()));
    let text = fs::read(&lock).map_err(file_error(&lock, "read"))?;
    needed.push(Resource::new(
        "Cargo.lock",
        "sha256",
        hex(&Sha256::digest(&text)),
    ));
    let mut rustc = Resource {
        name: Some("rustc".to_owned()),
        uri: Some(format!("pkg:generic/rust@{}", toolchain.version)),
        ..Resource::default()
    };
    rustc
        .annotations
        .insert("version".to_owned(), json!(toolchain.version));
    if let Some(commit) = toolchain.commit {
        rustc.digest.insert("gitCommit".to_owned(), commit);
    }
    needed.push(rustc);
    Ok(Statement {
        kind: STATEMENT.to_owned(),
        subject: vec![subject],
        predicate_type: PREDICATE.to_owned(),
        predicate: Predicate {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE.to_owned(),
                external_parameters: json!({
                    "crate": package.name,
                    "target": source.target.name(),
                }),
                resolved_dependencies: needed,
            },
            run_details: RunDetails {
                builder: Builder {
                    id: builder.to_owned(),
                    version: BTreeMap::from([(
                        "sandcast-build".to_owned(),
                        env!("CARGO_PKG_VERSION").to_owned(),
                    )]),
                },
            },
        },
    })
}

/// The files of the checkout that the component is made of, in one digest.
fn sources(package: &Package, built: &Built, plugin_toml: &Path) -> Result<Resource, BuildError> {
    let text = fs::read_to_string(&built.dep_info).map_err(file_error(&built.dep_info, "read"))?;
    let mut files: BTreeSet<PathBuf> = dependencies(&text)
        .into_iter()
        .filter(|path| !path.starts_with(package.target_directory()))
        .collect();
    // The manifests of the folders that they lie in.
    let manifests: Vec<PathBuf> = package
        .manifests()
        .filter(|manifest| {
            let folder = manifest.parent().unwrap_or(manifest);
            files.iter().any(|file| file.starts_with(folder))
        })
        .cloned()
        .collect();
    files.extend(manifests);
    files.insert(package.workspace_root().join("Cargo.toml"));
    files.insert(plugin_toml.to_owned());

    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let bytes = fs::read(&file).map_err(file_error(&file, "read"))?;
        let real = file.canonicalize().unwrap_or(file);
        lines.insert(package.source_name(&real), hex(&Sha256::digest(&bytes)));
    }
    let mut hasher = Sha256::new();
    for (name, digest) in &lines {
        hasher.update(format!("{digest}  {name}\n"));
    }
    let mut sources = Resource::new("sources", "dirHash", hex(&hasher.finalize()));
    sources
        .annotations
        .insert("files".to_owned(), json!(lines.len()));
    Ok(sources)
}

/// The files behind the colon of the first rule of a dep-info file; spaces in names are escaped.
fn dependencies(text: &str) -> Vec<PathBuf> {
    let line = text.lines().next().unwrap_or_default();
    let Some((_, list)) = line.split_once(": ") else {
        return Vec::new();
    };
    let mut files = Vec::new();
    let mut name = String::new();
    let mut letters = list.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => name.extend(letters.next()),
            ' ' => files.push(std::mem::take(&mut name)),
            letter => name.push(letter),
        }
    }
    files.push(name);
    files.retain(|name| !name.is_empty());
    files.into_iter().map(PathBuf::from).collect()
}

/// The commit that is checked out, where there is one.
fn checkout(crate_dir: &Path, repository: Option<&str>) -> Option<Resource> {
    let ask = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(crate_dir);
        Some(process::output(&mut git).ok()?.ok()?.trim().to_owned())
    };
    let commit = ask(&["rev-parse", "--verify", "HEAD"])?;
    let top = ask(&["rev-parse", "--show-toplevel"])?;
    let changes = ask(&[
        "-C",
        &top,
        "status",
        "--porcelain",
        "--untracked-files=normal",
    ]);
    let mut checkout = Resource::new("checkout", "gitCommit", commit.clone());
    checkout.uri = repository.map(|url| format!("git+{}@{commit}", url.trim()));
    let clean = changes.is_some_and(|changes| changes.is_empty());
    checkout
        .annotations
        .insert("clean".to_owned(), json!(clean));
    Some(checkout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(component: &[u8]) -> Statement {
        let text = json!({
            "_type": STATEMENT,
            "subject": [{ "name": "a.wasm", "digest": { "sha256": hex(&Sha256::digest(component)) } }],
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": { "buildType": "https://example.com/build", "externalParameters": {} },
                "runDetails": { "builder": { "id": "https://example.com/ci" }, "metadata": {} },
            },
        });
        Statement::read(text.to_string().as_bytes()).expect("a statement")
    }

    #[test]
    fn a_statement_is_about_one_component_and_one_builder() {
        let statement = statement(b"component");
        assert_eq!(statement.check(b"component", None), Ok(()));
        assert_eq!(
            statement.check(b"component", Some("https://example.com/ci")),
            Ok(())
        );
        assert!(matches!(
            statement.check(b"other", None),
            Err(ProvenanceError::OtherComponent { .. })
        ));
        assert!(matches!(
            statement.check(b"component", Some(BUILDER)),
            Err(ProvenanceError::OtherBuilder { .. })
        ));
        assert_eq!(Statement::read(&statement.to_json()), Ok(statement));
    }

    #[test]
    fn what_is_no_statement_is_refused() {
        let good = String::from_utf8(statement(b"x").to_json()).expect("text");
        let deep = "[".repeat(100_000);
        for text in [
            "",
            "{}",
            &deep,
            &good.replace("Statement/v1", "Statement/v0.1"),
            &good.replace("provenance/v1", "provenance/v0.2"),
            &good.replace("\"subject\":[", "\"subject\":[1,"),
        ] {
            let refused = Statement::read(text.as_bytes());
            assert!(
                matches!(refused, Err(ProvenanceError::Malformed { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn names_with_spaces_are_read_whole() {
        let text = "/t/a.wasm: /s/lib.rs /s/two\\ words.rs /s/c.rs\n\n/s/lib.rs:\n";
        let names = ["/s/lib.rs", "/s/two words.rs", "/s/c.rs"];
        assert_eq!(dependencies(text), names.map(PathBuf::from));
        assert_eq!(dependencies(""), Vec::<PathBuf>::new());
    }
}
