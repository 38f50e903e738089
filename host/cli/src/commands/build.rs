//! `sandcast build`: from a plugin's source to a component.

use std::path::{Path, PathBuf};

use clap::Args;
use sandcast_audit::Digest;
use sandcast_build::{BuildRequest, Built};
use sandcast_factory::Pipeline;
use serde::Serialize;

use super::sign::private_key;
use crate::{
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    progress::Step,
    table::{Table, bytes},
};

const EXAMPLES: &str = "\
Examples:
  sandcast build plugins/connector-csv      one plugin from its crate folder
  sandcast build examples/credit-risk       every plugin that a pipeline names by its source folder
  sandcast build -v .                       with the compiler's own lines
  sandcast build --sbom .                   with a bill of materials beside it (.cdx.json)
  sandcast build --provenance --key acme.key .
                                            ... and with where it comes from, signed (.intoto.json)

A component is a .wasm file with the plugin's manifest inside, so that its digest covers both. The
guest target of the Rust toolchain is installed when it is missing.";

/// Build plugins into components
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BuildArguments {
    /// Crate folders with a plugin.toml, pipeline files, or folders with a pipeline.yaml
    #[arg(default_value = ".")]
    targets: Vec<PathBuf>,
    /// Put the components here [default: target/sandcast of the crate's workspace]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Put a bill of materials (CycloneDX) beside each component
    #[arg(long)]
    sbom: bool,
    /// Put a signed statement of where it comes from (SLSA provenance) beside each component
    #[arg(long, requires = "key")]
    provenance: bool,
    /// The file of the private key that signs the statement
    #[arg(long, value_name = "FILE", requires = "provenance")]
    key: Option<PathBuf>,
    /// Who builds, a URI, as the statement has it
    #[arg(long, value_name = "URI", requires = "provenance", default_value = sandcast_build::BUILDER)]
    builder: String,
}

#[derive(Serialize)]
struct Component {
    component: PathBuf,
    digest: Digest,
    bytes: u64,
    manifest: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    sbom: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provenance: Option<PathBuf>,
}

pub(crate) fn execute(arguments: &BuildArguments, output: &Output) -> Result<Exit, Failure> {
    // Before anything is compiled: a key that is not there should not cost minutes.
    let key = match (&arguments.key, arguments.provenance) {
        (Some(path), true) => Some(private_key(path)?),
        _ => None,
    };
    let mut crates: Vec<PathBuf> = Vec::new();
    for target in &arguments.targets {
        for folder in crates_of(target)? {
            if !crates.contains(&folder) {
                crates.push(folder);
            }
        }
    }
    let mut components = Vec::new();
    for folder in &crates {
        let built = build_crate(folder, arguments.out.as_deref(), output)?;
        let sbom = match arguments.sbom {
            false => None,
            true => {
                let made = super::sbom::of_crate(folder, Some(built.component.clone()), None)?;
                Some(made.write_beside(&built.component).or_reject()?)
            }
        };
        let provenance = match &key {
            None => None,
            Some(key) => {
                let statement = sandcast_build::provenance(folder, &built, &arguments.builder);
                let statement = statement.or_reject()?.to_json();
                let path = sandcast_build::provenance_path(&built.component);
                std::fs::write(&path, key.seal(sandcast_build::STATEMENT_TYPE, &statement))?;
                Some(path)
            }
        };
        components.push(Component {
            sbom,
            provenance,
            digest: Digest::of(&std::fs::read(&built.component)?),
            bytes: built.bytes,
            manifest: serde_json::from_str(&built.manifest_json)?,
            component: built.component,
        });
    }
    if output.wants_json() {
        output.json(&components)?;
        return Ok(Exit::Done);
    }
    let mut table =
        Table::with_headings(["plugin", "version", "size", "digest", "component"]).numbers_at(&[2]);
    for component in &components {
        let text = |key: &str| component.manifest[key].as_str().unwrap_or("–").to_owned();
        table.row([
            text("id"),
            text("version"),
            bytes(component.bytes),
            component.digest.short(),
            shown(&component.component),
        ]);
    }
    output.line(table)?;
    for component in &components {
        for (what, file) in [
            ("bill of materials", &component.sbom),
            ("provenance", &component.provenance),
        ] {
            if let Some(file) = file {
                output.line(format_args!("{what}  {}", shown(file)))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Builds every plugin that a pipeline names by its source folder.
pub(crate) fn build_pipeline(pipeline: &Pipeline, output: &Output) -> Result<(), Failure> {
    for folder in crates_named_by(pipeline) {
        build_crate(&folder, None, output)?;
    }
    Ok(())
}

fn build_crate(folder: &Path, out: Option<&Path>, output: &Output) -> Result<Built, Failure> {
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    let mut step = Step::begin(output, &format!("build {}", name.display()));
    let request = BuildRequest {
        out_dir: out.map(Path::to_path_buf),
        verbose: output.is_verbose(),
        ..BuildRequest::new(folder)
    };
    match sandcast_build::build(&request, &mut |line| step.update(line)).or_reject() {
        Ok(built) => {
            step.done(&bytes(built.bytes));
            Ok(built)
        }
        Err(failure) => {
            step.failed("does not build");
            Err(failure)
        }
    }
}

fn crates_of(target: &Path) -> Result<Vec<PathBuf>, Failure> {
    if target.join("plugin.toml").is_file() {
        return Ok(vec![std::path::absolute(target)?]);
    }
    let pipeline = Pipeline::load(target).map_err(Failure::rejected)?;
    Ok(crates_named_by(&pipeline))
}

fn crates_named_by(pipeline: &Pipeline) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = pipeline
        .sections
        .plugins
        .values()
        .map(|plugin| plugin.source.clone())
        .filter(|source| source.is_dir())
        .collect();
    folders.sort();
    folders.dedup();
    folders
}

/// A path as it is said to somebody who stands in the current folder.
pub(crate) fn shown(path: &Path) -> String {
    std::env::current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok().map(Path::to_path_buf))
        .unwrap_or_else(|| path.to_path_buf())
        .display()
        .to_string()
}
