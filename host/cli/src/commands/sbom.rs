//! `sandcast sbom`: what a plugin or the host program is made of.

use std::path::{Path, PathBuf};

use clap::Args;
use sandcast_build::{Sbom, SbomRequest};
use serde::Serialize;

use super::build::shown;
use crate::{
    failure::{Exit, Failure, OrReject as _},
    output::Output,
};

const EXAMPLES: &str = "\
Examples:
  sandcast sbom plugins/connector-csv               of a plugin, for the target it is compiled for
  sandcast sbom host/cli --out sandcast.cdx.json    of this program, from its checkout
  sandcast sbom host/cli --target aarch64-unknown-linux-gnu
  sandcast build --sbom plugins/connector-csv       builds, and puts it beside the component

The document is CycloneDX 1.6 JSON: every package that Cargo resolves for the target, with the
features that are on, its licence, its package URL, the hash of what was downloaded, and who needs
whom. What only builds (build scripts, procedural macros and their own) has the scope `excluded`.
Where a plugin is built, the hashes of its component are in it. The same sources and toolchain give
the same bytes; it is dated only by SOURCE_DATE_EPOCH.";

/// List what a plugin or a program is made of (CycloneDX)
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SbomArguments {
    /// The crate folder of a plugin, or of a program
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Write it to this file, in place of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What it is compiled for [default: that of the plugin, or of this machine]
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// The file that was built from it, to put its hashes in [default: the plugin's component]
    #[arg(long, value_name = "FILE")]
    artifact: Option<PathBuf>,
}

#[derive(Serialize)]
struct Written {
    file: String,
    components: usize,
}

pub(crate) fn execute(arguments: &SbomArguments, output: &Output) -> Result<Exit, Failure> {
    let artifact = match &arguments.artifact {
        Some(path) => Some(path.clone()),
        None if arguments.folder.join("plugin.toml").is_file() => {
            let component = sandcast_build::component_path(&arguments.folder).or_reject()?;
            if !component.is_file() {
                output.note("it is not built, so the hashes of its component are not in it");
            }
            component.is_file().then_some(component)
        }
        None => None,
    };
    let made = of_crate(&arguments.folder, artifact, arguments.target.clone())?;
    let Some(file) = &arguments.out else {
        // It is JSON already.
        output.line(made.json.trim_end())?;
        return Ok(Exit::Done);
    };
    std::fs::write(file, &made.json).map_err(|error| {
        Failure::rejected_because(
            format_args!("cannot write {}: {error}", file.display()),
            "name a file in a folder that is there",
        )
    })?;
    let written = Written {
        file: shown(file),
        components: made.components,
    };
    if output.wants_json() {
        output.json(&written)?;
    } else {
        output.line(format_args!(
            "{}  {} components",
            written.file, written.components
        ))?;
    }
    Ok(Exit::Done)
}

/// The bill of materials of a crate, dated by the environment if at all.
pub(crate) fn of_crate(
    folder: &Path,
    artifact: Option<PathBuf>,
    target: Option<String>,
) -> Result<Sbom, Failure> {
    let source_date_epoch = match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => None,
        Ok(text) => Some(text.parse().map_err(|_| {
            Failure::rejected_because(
                format_args!("SOURCE_DATE_EPOCH is `{text}`, and no number of seconds"),
                "set it to seconds since 1970, or leave it out",
            )
        })?),
    };
    let request = SbomRequest {
        artifact,
        target,
        source_date_epoch,
        ..SbomRequest::new(folder)
    };
    sandcast_build::sbom(&request).or_reject()
}
