//! A plan as a tree.

use std::fmt;
use std::path::Path;

use sandcast_sandbox::{Capability, Isolation, sentence};

use super::{Plan, PlannedCapability, PlannedPlugin, Reuse};
use crate::conduct::Isolate;

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
                    writeln!(
                        formatter,
                        "  (done in {run}, kept unless a source has changed)"
                    )?;
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
    if !plugin.signed_by.is_empty() {
        let names: Vec<&str> = plugin.signed_by.iter().map(|key| key.name()).collect();
        writeln!(formatter, "│  {stem}    signed by {}", names.join(", "))?;
    }
    for signer in &plugin.identities {
        let (who, issuer) = (
            sentence(&signer.identity, 256),
            sentence(&signer.issuer, 256),
        );
        writeln!(
            formatter,
            "│  {stem}    signed by {who} (issued by {issuer})"
        )?;
    }
    if let Some(reason) = &plugin.untrusted {
        writeln!(
            formatter,
            "│  {stem}    NOT TRUSTED, so the plugin will be refused: {reason}"
        )?;
    }
    for excess in &plugin.over_ceiling {
        writeln!(
            formatter,
            "│  {stem}    OVER THE CEILING, so the plugin will be refused: {excess}"
        )?;
    }
    for capability in &plugin.capabilities {
        writeln!(formatter, "│  {stem}    {}", said(capability, plugin))?;
    }
    let apart = match (plugin.grants.isolation, plugin.isolate) {
        (Isolation::Process, _) | (_, Isolate::Trusted) => Some(""),
        (Isolation::Engine, Isolate::Probation) => Some(" while it is not trusted"),
        (Isolation::Engine, Isolate::Granted) => None,
    };
    if let Some(until) = apart {
        writeln!(
            formatter,
            "│  {stem}    in a process of its own{until}, which the kernel holds: what it is granted it asks the host for"
        )?;
    }
    if plugin.grants.recording.is_some() {
        writeln!(
            formatter,
            "│  {stem}    recorded: what it is asked and answers is kept, and can be replayed"
        )?;
    }
    Ok(())
}

impl PlannedPlugin {
    /// What is granted of a capability, in words.
    pub(crate) fn said_of(&self, capability: &PlannedCapability) -> String {
        Capability::ALL
            .into_iter()
            .find(|known| known.as_str() == capability.capability)
            .and_then(|known| self.grants.in_words(known, shortened))
            .unwrap_or_default()
    }
}

fn said(capability: &PlannedCapability, plugin: &PlannedPlugin) -> String {
    let name = &capability.capability;
    let reason = capability
        .reason
        .as_deref()
        .unwrap_or("does not say what for");
    match (capability.granted, capability.imported) {
        (true, true) => format!("{name}: granted, {} ({reason})", plugin.said_of(capability)),
        (true, false) => format!("{name}: granted, and not imported"),
        (false, true) => format!("{name}: NOT GRANTED, so the plugin will be refused ({reason})"),
        (false, false) => format!("{name}: asked for, but neither imported nor granted"),
    }
}

/// The last part of a path is enough to know it by.
fn shortened(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}
