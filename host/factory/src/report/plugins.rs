//! Who took part, what they asked for and what they were given.

use maud::{Markup, html};

use super::Section;
use super::input::{Capability, Deviation, Plugin, ReportInput};
use super::text::{CELL, and_more, bytes, clip, count, counted, digest, duration};

const PLUGINS: usize = 40;
const CAPABILITIES: usize = 24;
const DEVIATIONS: usize = 12;
const REASON: usize = 400;

pub(super) fn section(input: &ReportInput) -> Option<Section> {
    if input.plugins.is_empty() {
        return None;
    }
    let denials: u64 = input.plugins.iter().map(|plugin| plugin.denials).sum();
    let deviations: u64 = input
        .plugins
        .iter()
        .map(|plugin| plugin.deviations.len() as u64)
        .sum();
    let mut lead = match denials {
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
    if deviations > 0 {
        lead.push_str(&format!(
            " {} from what they usually do {} below.",
            counted(deviations, "deviation"),
            if deviations == 1 { "is" } else { "are" }
        ));
    }
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
            td.top {
                (clip(&plugin.role, 20))
                @if let Some(standing) = &plugin.standing {
                    div {
                        span.chip.good[standing == "trusted"].bad[standing == "quarantined"] {
                            (clip(standing, 20))
                        }
                    }
                }
                @if plugin.is_throttled { div { span.chip.warn { "slowed down" } } }
            }
            td.top { (digest(&plugin.digest)) span.under { (bytes(plugin.bytes)) } }
            td.top {
                @for capability in plugin.capabilities.iter().take(CAPABILITIES) { (grant(capability)) }
                @if plugin.capabilities.is_empty() { span.faint { "nothing" } }
                @if plugin.denials > 0 { span.chip.bad { (counted(plugin.denials, "denial")) } }
                @for deviation in plugin.deviations.iter().take(DEVIATIONS) { (unusual(deviation)) }
                (and_more(DEVIATIONS.min(plugin.deviations.len()), plugin.deviations.len(), "deviations"))
            }
            td.number.top { (duration(plugin.guest_seconds)) }
            td.number.top { (bytes(plugin.peak_memory_bytes)) }
        }
    }
}

fn unusual(deviation: &Deviation) -> Markup {
    html! {
        div.grant {
            span.chip.bad { "unusual" }
            span.small { (clip(&deviation.place, 120)) }
            span.under { (clip(&deviation.reason, REASON)) }
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
