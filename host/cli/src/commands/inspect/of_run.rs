//! The plugins of a run, or of the run behind a model, as its report has them.

use console::style;
use sandcast_audit::RunId;
use sandcast_factory::{Workspace, report::Plugin};
use sandcast_serve::ModelSelector;

use crate::{
    commands::models,
    failure::Failure,
    output::Output,
    table::{Table, bytes, count, seconds},
};

/// The run that a word names, or that made the model it names.
pub(super) fn run_meant(workspace: &Workspace, target: &str) -> Result<RunId, Failure> {
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
    Ok(models::resolve(workspace, &selector)?.run)
}

pub(super) fn plugins_of_run(
    workspace: &Workspace,
    run: &RunId,
    output: &Output,
) -> Result<(), Failure> {
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
    let signed = match &plugin.signers[..] {
        [] => String::new(),
        keys => {
            let names = keys.iter().filter_map(|key| key.split('+').next());
            format!("  signed by {}", names.collect::<Vec<_>>().join(", "))
        }
    };
    format!(
        "{}  {} {}  {}  {short}{signed}\n{table}\n  {} inside it, {} at most, {denials}",
        style(&plugin.name).bold(),
        plugin.id,
        plugin.version,
        plugin.role,
        seconds(plugin.guest_seconds),
        bytes(plugin.peak_memory_bytes),
    )
}
