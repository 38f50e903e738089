//! `sandcast inspect`: what a plugin asks for, imports, was granted and used.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use console::style;
use sandcast_audit::RunId;
use sandcast_factory::{Workspace, report::Plugin};
use sandcast_sandbox::{Import, Inspection};
use sandcast_serve::ModelSelector;

use crate::{
    arguments::GlobalArguments,
    failure::{Exit, Failure, OrReject as _},
    output::Output,
    state,
    table::{Table, bytes, count, seconds},
};

const EXAMPLES: &str = "\
Examples:
  sandcast inspect connector.wasm              what it asks for, and what its binary imports
  sandcast inspect plugins/connector-csv       the component that was built from a crate
  sandcast inspect 20261121-201530-4f3a9c      the plugins of a run: asked, granted, used
  sandcast inspect credit-risk@champion        the plugins behind a model

What the manifest asks for and why; what the binary really imports; what the pipeline granted; what
was used, from the host's own ledger. A plugin that imports what it does not ask for, or asks for
what it never uses, is worth a question to its vendor.";

/// Show what a plugin asks for, imports, is granted and has used
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArguments {
    /// A component file, a plugin's crate folder, a run, or a model, as name@alias
    target: String,
}

pub(crate) fn execute(
    arguments: &InspectArguments,
    global: &GlobalArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let path = Path::new(&arguments.target);
    if path.join("plugin.toml").is_file() {
        component(&sandcast_build::component_path(path).or_reject()?, output)?;
    } else if path.is_file() {
        component(path, output)?;
    } else {
        let workspace = Workspace::open(&state::nearest(global.state.as_deref())?)?;
        plugins_of_run(
            &workspace,
            &run_meant(&workspace, &arguments.target)?,
            output,
        )?;
    }
    Ok(Exit::Done)
}

/// The run that a word names, or that made the model it names.
fn run_meant(workspace: &Workspace, target: &str) -> Result<RunId, Failure> {
    if let Ok(run) = target.parse::<RunId>() {
        return Ok(run);
    }
    let unknown = || {
        Failure::rejected_because(
            format_args!("`{target}` is neither a file, nor a run, nor a model"),
            "`sandcast runs` and `sandcast models` list what there is",
        )
    };
    let selector: ModelSelector = target.parse().map_err(|_| unknown())?;
    let known = workspace.registry().models()?;
    if !known.iter().any(|model| model.name == selector.name) {
        return Err(unknown());
    }
    Ok(super::models::resolve(workspace, &selector)?.run)
}

fn component(path: &Path, output: &Output) -> Result<(), Failure> {
    let component = std::fs::read(path).or_reject()?;
    let inspection = sandcast_sandbox::inspect(&component).or_reject()?;
    if output.wants_json() {
        return output.json(&inspection);
    }
    let manifest = &inspection.manifest;
    output.line(format_args!(
        "{} {}  {}  {}  {}",
        style(&manifest.id).bold(),
        manifest.version,
        inspection.role,
        bytes(inspection.size_bytes),
        inspection.digest
    ))?;
    let mut facts = Table::indented(2);
    let described = [
        ("does", &manifest.description),
        ("vendor", &manifest.vendor),
        ("contact", &manifest.contact),
        ("licence", &manifest.license),
        ("contract", &inspection.contract),
    ];
    for (what, text) in described {
        if !text.is_empty() {
            facts.row([what.to_owned(), text.clone()]);
        }
    }
    if let Some(adapter) = &manifest.adapter {
        facts.row(["data".to_owned(), adapter.data_sourcing.clone()]);
        facts.row(["meant for".to_owned(), adapter.intended_use.clone()]);
        facts.row(["updates".to_owned(), adapter.update_cadence.clone()]);
    }
    output.line(facts)?;
    output.line(format_args!("\n{}", capabilities_of(&inspection)))?;
    Ok(())
}

/// What is asked for beside what is imported.
fn capabilities_of(inspection: &Inspection) -> Table {
    let mut imports: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut noise: Vec<&str> = Vec::new();
    // An interface of which only types are used opens nothing.
    let callable = |import: &&Import| !import.functions.is_empty();
    for import in inspection.imports.iter().filter(callable) {
        if import.noise {
            noise.push(&import.interface);
        } else if let Some(capability) = import.capability {
            imports
                .entry(capability.as_str())
                .or_default()
                .push(&import.interface);
        }
    }
    let asked: BTreeMap<&str, &str> = inspection
        .manifest
        .capabilities
        .iter()
        .map(|ask| (ask.capability.as_str(), ask.reason.as_str()))
        .collect();
    let mut names: Vec<&str> = asked.keys().chain(imports.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();

    let mut table = Table::with_headings(["capability", "asks for it because", "imports"]);
    for name in names {
        let because = asked.get(name).map_or_else(
            || style("does not ask").red().to_string(),
            |reason| (*reason).to_owned(),
        );
        let imported = imports.get(name).map_or_else(
            || "nothing of it".to_owned(),
            |interfaces| interfaces.join(", "),
        );
        table.row([name.to_owned(), because, imported]);
    }
    if !noise.is_empty() {
        table.row([
            style("noise").dim().to_string(),
            "of its language's standard library; denied and counted unless granted".to_owned(),
            noise.join(", "),
        ]);
    }
    table
}

fn plugins_of_run(workspace: &Workspace, run: &RunId, output: &Output) -> Result<(), Failure> {
    let report = workspace.report(run)?.ok_or_else(|| {
        Failure::rejected_because(
            format_args!("there is no report of a run {run}"),
            "`sandcast runs` lists the runs there are",
        )
    })?;
    if output.wants_json() {
        return output.json(&report.plugins);
    }
    for (number, plugin) in report.plugins.iter().enumerate() {
        if number > 0 {
            output.line("")?;
        }
        output.line(used_by(plugin))?;
    }
    Ok(())
}

/// One plugin of a run: what it asked for, was granted and used.
fn used_by(plugin: &Plugin) -> String {
    let mut table = Table::indented(2).numbers_at(&[3]);
    let dim = |text: &str| style(text).dim().to_string();
    table.row(["capability", "asks for it because", "granted", "calls"].map(dim));
    for capability in &plugin.capabilities {
        table.row([
            capability.name.clone(),
            capability
                .reason
                .clone()
                .unwrap_or_else(|| "does not ask".to_owned()),
            capability
                .granted
                .clone()
                .unwrap_or_else(|| "no".to_owned()),
            count(capability.calls),
        ]);
    }
    let short = plugin.digest.get(..12).unwrap_or(&plugin.digest);
    let denials = match plugin.denials {
        0 => "nothing denied".to_owned(),
        denials => style(format!("{} denied", count(denials)))
            .red()
            .to_string(),
    };
    format!(
        "{}  {} {}  {}  {short}\n{table}\n  {} inside it, {} at most, {denials}",
        style(&plugin.name).bold(),
        plugin.id,
        plugin.version,
        plugin.role,
        seconds(plugin.guest_seconds),
        bytes(plugin.peak_memory_bytes),
    )
}
