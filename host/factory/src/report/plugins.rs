//! Who took part, what they asked for and what they were given.

use maud::{Markup, html};

use super::Section;
use super::input::{Capability, Plugin, ReportInput};
use super::text::{CELL, and_more, bytes, clip, count, counted, digest, duration};

const PLUGINS: usize = 40;
const CAPABILITIES: usize = 24;

pub(super) fn section(input: &ReportInput) -> Option<Section> {
    if input.plugins.is_empty() {
        return None;
    }
    let denials: u64 = input.plugins.iter().map(|plugin| plugin.denials).sum();
    let lead = match denials {
        0 => format!(
            "{} in sandboxes of their own; none reached for anything it was not granted.",
            counted(input.plugins.len() as u64, "plugin")
        ),
        _ => format!(
            "{} in sandboxes of their own; {} were denied and are in the audit log.",
            counted(input.plugins.len() as u64, "plugin"),
            counted(denials, "request"),
        ),
    };
    let body = html! {
        div.card.scroll {
            table {
                thead {
                    tr {
                        th { "Plugin" } th { "Role" } th { "Digest" } th style="width:44%" { "Asks for and is granted" }
                        th.number { "Time inside" } th.number { "Peak memory" }
                    }
                }
                tbody { @for plugin in input.plugins.iter().take(PLUGINS) { (row(plugin)) } }
            }
            (and_more(PLUGINS.min(input.plugins.len()), input.plugins.len(), "plugins"))
        }
    };
    Some(Section {
        id: "plugins",
        title: "Plugins",
        lead,
        body,
    })
}

fn row(plugin: &Plugin) -> Markup {
    html! {
        tr {
            th.top {
                (clip(&plugin.name, 60))
                span.under {
                    (clip(&plugin.id, 80)) " " (clip(&plugin.version, 20))
                    br;
                    (clip(&plugin.vendor, 60))
                    @if !plugin.license.is_empty() { " · " (clip(&plugin.license, 40)) }
                    @if !plugin.signers.is_empty() {
                        br;
                        "signed by " (clip(&names(&plugin.signers), 80))
                    }
                }
            }
            td.top { (clip(&plugin.role, 20)) }
            td.top { (digest(&plugin.digest)) span.under { (bytes(plugin.bytes)) } }
            td.top {
                @for capability in plugin.capabilities.iter().take(CAPABILITIES) { (grant(capability)) }
                @if plugin.capabilities.is_empty() { span.faint { "nothing" } }
                @if plugin.denials > 0 { span.chip.bad { (counted(plugin.denials, "denial")) } }
            }
            td.number.top { (duration(plugin.guest_seconds)) }
            td.number.top { (bytes(plugin.peak_memory_bytes)) }
        }
    }
}

/// The names of keys, without the keys.
fn names(keys: &[String]) -> String {
    let names = keys.iter().filter_map(|key| key.split('+').next());
    names.collect::<Vec<_>>().join(", ")
}

fn grant(capability: &Capability) -> Markup {
    let granted = capability.granted.is_some();
    html! {
        div.grant {
            span.chip.good[granted].warn[!granted] {
                (clip(&capability.name, 40)) @if !granted { " not granted" }
            }
            span.small {
                @if let Some(detail) = &capability.granted { (clip(detail, CELL)) }
                @if capability.calls > 0 {
                    span.faint { @if granted { " · " } (count(capability.calls)) " calls" }
                }
            }
            @match &capability.reason {
                Some(reason) => span.under { "asks because: " (clip(reason, CELL)) },
                None => span.under { "did not ask for it" },
            }
        }
    }
}
