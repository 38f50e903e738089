//! A plan as a tree.

use std::fmt;

use super::{Plan, PlannedCapability, PlannedPlugin, Reuse};

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{}  config {}  seed {}  sandcast {}",
            self.pipeline,
            self.config.short(),
            self.seed,
            self.sandcast_version
        )?;
        writeln!(formatter, "├─ plugins")?;
        for (index, plugin) in self.plugins.iter().enumerate() {
            let last = index + 1 == self.plugins.len();
            write_plugin(formatter, plugin, last)?;
        }
        writeln!(formatter, "└─ stages")?;
        for (index, stage) in self.stages.iter().enumerate() {
            let last = index + 1 == self.stages.len();
            let branch = if last { "└─" } else { "├─" };
            let stem = if last { "  " } else { "│ " };
            write!(formatter, "   {branch} {}: {}", stage.stage, stage.summary)?;
            if !stage.plugins.is_empty() && stage.stage != "load" {
                write!(formatter, " [{}]", stage.plugins.join(", "))?;
            }
            match &stage.reuse {
                Reuse::Always => writeln!(formatter)?,
                Reuse::New => writeln!(formatter, "  (to do)")?,
                Reuse::Unchanged { run, .. } => {
                    writeln!(formatter, "  (done in {run}, kept unless a source has changed)")?;
                }
            }
            if stage.stage == "gate" {
                for expression in &self.gate {
                    writeln!(formatter, "   {stem}    {expression}")?;
                }
            }
        }
        Ok(())
    }
}

fn write_plugin(
    formatter: &mut fmt::Formatter<'_>,
    plugin: &PlannedPlugin,
    last: bool,
) -> fmt::Result {
    let branch = if last { "└─" } else { "├─" };
    let stem = if last { "  " } else { "│ " };
    let reference = &plugin.plugin;
    writeln!(
        formatter,
        "│  {branch} {}: {} {} ({}) {}",
        plugin.name,
        reference.id,
        reference.version,
        reference.role,
        reference.digest.short()
    )?;
    for capability in &plugin.capabilities {
        writeln!(formatter, "│  {stem}    {}", said(capability, plugin))?;
    }
    Ok(())
}

fn said(capability: &PlannedCapability, plugin: &PlannedPlugin) -> String {
    let name = &capability.capability;
    let what = match (capability.granted, capability.imported) {
        (true, true) => "granted",
        (true, false) => "granted, but not imported",
        (false, true) => "NOT GRANTED: the plugin will be refused",
        (false, false) => "asked for, but neither imported nor granted",
    };
    let reason = capability.reason.as_ref().map(|reason| format!(", {reason}")).unwrap_or_default();
    let detail: Vec<String> = if name == "files" {
        let files = plugin.grants.files.iter();
        files.map(|grant| format!("{} as {}", grant.host.display(), grant.guest)).collect()
    } else {
        Vec::new()
    };
    let detail =
        if detail.is_empty() { String::new() } else { format!(" ({})", detail.join(", ")) };
    format!("{name}: {what}{detail}{reason}")
}
