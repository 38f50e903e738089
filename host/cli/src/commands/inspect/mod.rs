//! `sandcast inspect`: what a plugin asks for, imports, was granted and used, how much harm it could
//! do, and what changed from one version to the next.

mod changes;
mod component;
mod of_run;
mod sarif;

pub(crate) use component::{read, read_whole};

use std::path::{Path, PathBuf};

use clap::Args;
use sandcast_access::{Action, Resource};
use sandcast_factory::Workspace;

use crate::{
    access::Need,
    arguments::GlobalArguments,
    failure::{Exit, Failure},
    output::Output,
    state,
};

const EXAMPLES: &str = "\
Examples:
  sandcast inspect connector.wasm              what it asks for, imports and could do
  sandcast inspect plugins/connector-csv       the component that was built from a crate
  sandcast inspect plugins/connector-csv --pipeline examples/credit-risk
                                               ... with what that pipeline grants it
  sandcast inspect --diff old.wasm new.wasm    what a new version gained; exit code 1 if it did
  sandcast inspect --diff old.wasm new.wasm --allow http,wasi:clocks
  sandcast inspect connector.wasm --sarif      for code scanning
  sandcast inspect 20261121-201530-4f3a9c      the plugins of a run: asked, granted, used
  sandcast inspect credit-risk@champion        the plugins behind a model

What the manifest asks for and why; what the binary really imports; what the pipeline granted; what
was used, from the host's own ledger. A plugin that imports what it does not ask for, or asks for
what it never uses, is worth a question to its vendor.

The risk is a sum of points, at most 100, each with its reason and with what would lower it: low
below 20, moderate below 45, high below 70, then critical. Without a pipeline, what a plugin asks
for and imports counts as if it were granted as narrowly as can be.";

/// Show what a plugin asks for, imports, is granted, has used and could do
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArguments {
    /// A component file, a plugin's crate folder, a run, or a model, as name@alias
    #[arg(required_unless_present = "diff")]
    target: Option<String>,
    /// The pipeline whose grants count: a file, or a folder with a pipeline.yaml
    #[arg(long, value_name = "PIPELINE", conflicts_with = "diff")]
    pipeline: Option<PathBuf>,
    /// Its name in the pipeline, where it has several there
    #[arg(long, value_name = "NAME", requires = "pipeline")]
    plugin: Option<String>,
    /// Compare two components, files or crate folders
    #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "target")]
    diff: Vec<PathBuf>,
    /// What the new one may gain: capabilities, packages, interfaces or functions
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "diff")]
    allow: Vec<String>,
    /// Print findings as SARIF 2.1.0, in place of text or JSON
    #[arg(long)]
    sarif: bool,
    /// Write findings as SARIF 2.1.0 to this file
    #[arg(long, value_name = "FILE")]
    sarif_file: Option<PathBuf>,
}

impl InspectArguments {
    pub(crate) fn need(&self, global: &GlobalArguments) -> Option<Need> {
        if !self.diff.is_empty() {
            return None;
        }
        let path = Path::new(self.target.as_deref().unwrap_or_default());
        let is_component = path.join("plugin.toml").is_file() || path.is_file();
        let resource = match is_component {
            true => Resource::plugin(&read(path).ok()?.1.manifest.id),
            false => Resource::state(),
        };
        match &self.pipeline {
            None => super::in_state(global, Action::Inspect, resource),
            Some(pipeline) => {
                let folder = state::beside(pipeline, global.state.as_deref());
                Some(Need::new(folder, Action::Inspect, resource))
            }
        }
    }
}

pub(crate) fn execute(
    arguments: &InspectArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let rules = global.operator()?;
    if let [old, new] = &arguments.diff[..] {
        return changes::execute(old, new, arguments, output);
    }
    let target = arguments.target.as_deref().unwrap_or_default();
    let path = Path::new(target);
    if path.join("plugin.toml").is_file() || path.is_file() {
        return component::execute(path, arguments, global, &rules, output);
    }
    if arguments.sarif || arguments.sarif_file.is_some() || arguments.pipeline.is_some() {
        return Err(Failure::rejected_because(
            format_args!("there is no component at {target}"),
            "--pipeline and SARIF are for component files and crate folders of plugins",
        ));
    }
    let workspace = Workspace::open(&state::nearest(global.state.as_deref())?)?;
    let run = of_run::run_meant(&workspace, target)?;
    of_run::plugins_of_run(&workspace, &run, output)?;
    Ok(Exit::Done)
}

/// Writes findings where they are wanted; whether that was stdout.
fn write_sarif(
    arguments: &InspectArguments,
    output: &Output,
    log: &sarif::Log,
) -> Result<bool, Failure> {
    if let Some(file) = &arguments.sarif_file {
        let mut text = serde_json::to_string_pretty(log)?;
        text.push('\n');
        std::fs::write(file, text).map_err(|error| {
            Failure::rejected_because(
                format_args!("cannot write {}: {error}", file.display()),
                "name a file in a folder that is there",
            )
        })?;
    }
    if arguments.sarif {
        output.json(log)?;
    }
    Ok(arguments.sarif)
}
