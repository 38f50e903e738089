//! Where the rows came from, and which of them were set aside.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::head::code_spans;
use super::input::{ReportInput, Rule, Source, Validation};
use super::text::{CELL, and_more, bytes, clip, count, counted, digest, percent, share};
use super::{Section, chart};

const SOURCES: usize = 40;
const REASONS: usize = 14;
const RULES: usize = 60;

pub(super) fn section(input: &ReportInput) -> Option<Section> {
    if input.sources.is_empty() {
        return None;
    }
    let read: u64 = input.sources.iter().map(|source| source.rows_in).sum();
    let rejected: u64 = input
        .sources
        .iter()
        .map(|source| source.rows_rejected)
        .sum();
    let lead = format!(
        "{} from {}; {} could not be read as rows and went to quarantine.",
        counted(read, "row"),
        counted(input.sources.len() as u64, "source"),
        if rejected == 0 {
            "none".to_owned()
        } else {
            count(rejected)
        },
    );
    let reasons = merged(input.sources.iter().map(|source| &source.reasons));
    let body = html! {
        div.card.scroll { (sources(&input.sources)) }
        @if !reasons.is_empty() || input.dataset.is_some() {
            div.grid.halves[!reasons.is_empty() && input.dataset.is_some()] {
                @if !reasons.is_empty() {
                    div.card {
                        h3 { "Why rows were rejected" }
                        p.note { "Rows that the connectors could not read, by reason" }
                        (reason_bars(&reasons))
                    }
                }
                (dataset(input))
            }
        }
    };
    Some(Section {
        id: "data",
        title: "Sources",
        lead,
        body,
    })
}

fn sources(sources: &[Source]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th { "Source" } th { "Connector" }
                    th.number { "Rows in" } th.number { "Landed" } th.number { "Rejected" }
                    th style="width:26%" { "Share that landed" } th { "Digest" }
                }
            }
            tbody {
                @for source in sources.iter().take(SOURCES) {
                    tr {
                        th {
                            (clip(&source.name, CELL))
                            span.under { (counted(source.splits, "split")) }
                        }
                        td.soft { (clip(&source.plugin, CELL)) }
                        td.number { (count(source.rows_in)) }
                        td.number { (count(source.rows_landed)) }
                        td.number.warn[source.rows_rejected > 0] { (count(source.rows_rejected)) }
                        td {
                            (chart::stacked_bar(8, &[
                                ("bar", source.rows_landed), ("bar-warn", source.rows_rejected),
                            ]))
                        }
                        td { (digest(&source.digest)) }
                    }
                }
                @if sources.len() > 1 { (total(sources)) }
            }
        }
        (and_more(SOURCES.min(sources.len()), sources.len(), "sources"))
    }
}

fn total(sources: &[Source]) -> Markup {
    let sum = |rows: fn(&Source) -> u64| -> u64 { sources.iter().map(rows).sum() };
    let (landed, rejected) = (
        sum(|source| source.rows_landed),
        sum(|source| source.rows_rejected),
    );
    html! {
        tr.total {
            th { "Together" } td {}
            td.number { (count(sum(|source| source.rows_in))) }
            td.number { (count(landed)) }
            td.number { (count(rejected)) }
            td { (chart::stacked_bar(8, &[("bar", landed), ("bar-warn", rejected)])) }
            td {}
        }
    }
}

fn dataset(input: &ReportInput) -> Markup {
    let Some(dataset) = &input.dataset else {
        return html! {};
    };
    html! {
        div.card {
            h3 { "The dataset made of them" }
            p.note { "What the query of the pipeline gave, stored by its content" }
            table.key-values {
                tr { th { "Rows" } td { (count(dataset.rows)) } }
                tr { th { "Columns" } td { (count(dataset.columns)) } }
                tr { th { "Stored" } td { (bytes(dataset.bytes)) } }
                tr { th { "Digest" } td { (digest(&dataset.digest)) } }
            }
            @if let Some(sql) = &dataset.sql {
                details { summary { "The query" } pre.mono { (clip(sql.trim(), 6_000)) } }
            }
        }
    }
}

pub(super) fn validation_section(input: &ReportInput) -> Option<Section> {
    let validation = input.validation.as_ref()?;
    let lead = format!(
        "{} checked: {} passed, {} went to quarantine ({}).",
        counted(validation.rows_in, "row"),
        count(validation.rows_passed),
        count(validation.rows_quarantined),
        percent(validation.rows_quarantined, validation.rows_in),
    );
    let body = html! {
        div.card {
            (flow(validation))
            @if !validation.reasons.is_empty() {
                h3 style="margin-top:22px" { "Why rows went to quarantine" }
                p.note style="margin-bottom:12px" { "A row that breaks several rules counts for each" }
                (reason_bars(&sorted(&validation.reasons)))
            }
        }
        @if !validation.rules.is_empty() { div.card.scroll { (rules(validation)) } }
    };
    Some(Section {
        id: "validation",
        title: "Validation",
        lead,
        body,
    })
}

fn flow(validation: &Validation) -> Markup {
    html! {
        div.legend {
            span { i.square style="background:var(--good)" {} "Passed " (count(validation.rows_passed)) }
            span {
                i.square style="background:var(--warn-bar)" {}
                "Quarantined " (count(validation.rows_quarantined))
            }
        }
        (chart::stacked_bar(16, &[
            ("bar-good", validation.rows_passed), ("bar-warn", validation.rows_quarantined),
        ]))
    }
}

fn rules(validation: &Validation) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th {} th { "Rule" } th { "Columns" } th { "Severity" }
                    th.number { "Must hold for" } th.number { "Held for" } th.number { "Rows failed" }
                }
            }
            tbody {
                @for rule in validation.rules.iter().take(RULES) { (rule_row(rule)) }
            }
        }
        (and_more(RULES.min(validation.rules.len()), validation.rules.len(), "rules"))
    }
}

fn rule_row(rule: &Rule) -> Markup {
    let held = rule.rows_checked.saturating_sub(rule.rows_failed);
    html! {
        tr {
            td style="width:32px" { (chart::mark(rule.passed)) }
            th {
                (clip(&rule.id, CELL))
                span.under {
                    (code_spans(&clip(&rule.description, CELL)))
                    @if !rule.observed.is_empty() {
                        " · " (code_spans(&clip(&rule.observed, CELL)))
                    }
                }
            }
            td {
                @let named = rule.columns.iter().filter(|column| !column.is_empty());
                @for column in named.take(6) { span.chip { (clip(column, 60)) } }
            }
            td { span.chip.warn[rule.severity == "warning"] { (clip(&rule.severity, 20)) } }
            td.number.soft {
                @if let Some(mostly) = rule.mostly { (share(mostly)) } @else { "every row" }
            }
            td.number { (percent(held, rule.rows_checked)) }
            td.number.warn[rule.rows_failed > 0] { (count(rule.rows_failed)) }
        }
    }
}

fn merged<'a>(reasons: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> Vec<(&'a str, u64)> {
    let mut sums = BTreeMap::<&str, u64>::new();
    for (reason, rows) in reasons.flatten() {
        *sums.entry(reason).or_default() += rows;
    }
    largest_first(sums.into_iter().collect())
}

fn sorted(reasons: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    largest_first(
        reasons
            .iter()
            .map(|(reason, rows)| (reason.as_str(), *rows))
            .collect(),
    )
}

fn largest_first(mut reasons: Vec<(&str, u64)>) -> Vec<(&str, u64)> {
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    reasons
}

/// Reasons with a bar each, the longest bar for the most frequent.
fn reason_bars(reasons: &[(&str, u64)]) -> Markup {
    let most = reasons.first().map_or(1, |(_, rows)| (*rows).max(1));
    html! {
        table.reasons {
            @for (reason, rows) in reasons.iter().take(REASONS) {
                tr {
                    td { (code_spans(&clip(reason, 90))) }
                    td style="width:42%" {
                        svg.meter viewBox="0 0 1000 10" preserveAspectRatio="none" style="height:10px"
                            aria-hidden="true" {
                            rect.bar-warn x="0" y="0" height="10"
                                width=(chart::at((*rows as f64 / most as f64 * 1000.0).max(4.0))) {}
                        }
                    }
                    td.number { (count(*rows)) }
                }
            }
        }
        (and_more(REASONS.min(reasons.len()), reasons.len(), "reasons"))
    }
}
