//! `sandcast build`: from a plugin's source to a component.

use std::path::{Path, PathBuf};

use clap::Args;
use sandcast_audit::Digest;
use sandcast_build::{BuildRequest, Built};
use sandcast_factory::Pipeline;
use serde::Serialize;

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
}

#[derive(Serialize)]
struct Component {
    component: PathBuf,
    digest: Digest,
    bytes: u64,
    manifest: serde_json::Value,
}

pub(crate) fn execute(arguments: &BuildArguments, output: &Output) -> Result<Exit, Failure> {
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
        components.push(Component {
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
