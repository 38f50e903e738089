//! How it ended, and the numbers that one asks for first.

use maud::{Markup, html};

use super::input::{Outcome, ReportInput};
use super::text::{CELL, clip, count, digest, duration, percent, score, signed};
use super::{Section, chart, slices};
use crate::metrics::{EvaluatedTask, Metric};

pub(super) fn head(input: &ReportInput, sections: &[Section]) -> Markup {
    html! {
        div.brand { strong { "Sandcast run report" } span { (when(&input.started)) } }
        div.title {
            h1 { (clip(&input.pipeline, CELL)) }
            (verdict(&input.outcome))
        }
        (banner(&input.outcome))
        dl.facts {
            (fact("Run", html! { code { (input.run) } }))
            (fact("Took", html! { (duration(input.seconds)) }))
            (fact("Seed", html! { (input.seed) }))
            (fact("Configuration", digest(&input.config_digest)))
            (fact("Sandcast", html! { (input.sandcast_version) }))
        }
        (tiles(input))
        nav { @for section in sections { a href={ "#" (section.id) } { (section.title) } } }
    }
}

fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// `2026-11-21 20:15:30 UTC` from RFC 3339.
fn when(timestamp: &str) -> String {
    let shown = timestamp.replacen('T', " ", 1);
    match shown.strip_suffix('Z') {
        Some(time) => format!("{} UTC", time.split('.').next().unwrap_or(time)),
        None => clip(&shown, 40),
    }
}

fn verdict(outcome: &Outcome) -> Markup {
    match outcome {
        Outcome::Approved {
            approval: Some(_), ..
        } => html! {
            span.verdict.warn { (chart::mark(true)) "Approved by the gate, not promoted" }
        },
        Outcome::Approved { .. } => html! { span.verdict.good { (chart::mark(true)) "Approved" } },
        Outcome::Refused { .. } => html! { span.verdict.bad { (chart::mark(false)) "Refused" } },
        Outcome::Failed { .. } => html! { span.verdict.warn { (chart::mark(false)) "Failed" } },
    }
}

fn banner(outcome: &Outcome) -> Markup {
    const REASONS: usize = 12;
    match outcome {
        Outcome::Approved {
            model,
            version,
            alias,
            approval,
        } => html! {
            div.banner.good {
                p {
                    "Registered as " strong { (clip(model, CELL)) " version " (version) }
                    @if let Some(alias) = alias {
                        ", and " code { (clip(alias, CELL)) } " points to it now"
                    }
                    "."
                }
                @if let Some(approval) = approval {
                    p {
                        "It is not promoted until a second person approves that: "
                        code { "sandcast approvals approve " (clip(approval, CELL)) " --reason TEXT" }
                    }
                }
            }
        },
        Outcome::Refused { reasons } => html! {
            div.banner.bad {
                p { strong { "Nothing was registered." } " What did not hold:" }
                ul {
                    @for reason in reasons.iter().take(REASONS) { li { (code_spans(reason)) } }
                    @if reasons.len() > REASONS { li { "and " (reasons.len() - REASONS) " more" } }
                }
            }
        },
        Outcome::Failed { stage, message } => html! {
            div.banner.warn {
                p { strong { "The run stopped in stage " (clip(stage, CELL)) "." } }
                p { (code_spans(message)) }
            }
        },
    }
}

/// A message whose parts between backticks are code.
pub(super) fn code_spans(message: &str) -> Markup {
    let message = clip(message, 600);
    html! {
        @for (index, part) in message.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn tiles(input: &ReportInput) -> Markup {
    html! {
        div.grid.tiles {
            (rows_tile(input))
            (metric_tiles(input))
            (gap_tile(input))
            (gate_tile(input))
        }
    }
}

fn tile(label: &str, value: Markup, beside: Markup) -> Markup {
    html! {
        div.card.tile {
            div.label { (label) }
            div.value { (value) }
            div.beside { (beside) }
        }
    }
}

fn rows_tile(input: &ReportInput) -> Markup {
    let read: u64 = input.sources.iter().map(|source| source.rows_in).sum();
    let Some(validation) = &input.validation else {
        return html! { @if read > 0 { (tile("Rows read", html! { (count(read)) }, html! {})) } };
    };
    let aside = validation.rows_quarantined
        + input
            .sources
            .iter()
            .map(|source| source.rows_rejected)
            .sum::<u64>();
    tile(
        "Rows that passed",
        html! { (count(validation.rows_passed)) },
        html! { (count(aside)) " of " (count(read)) " set aside (" (percent(aside, read)) ")" },
    )
}

fn metric_tiles(input: &ReportInput) -> Markup {
    let Some(evaluation) = &input.evaluation else {
        return html! {};
    };
    let shown = match evaluation.task {
        EvaluatedTask::Regression => [Metric::Rmse, Metric::R2],
        _ => [Metric::Auc, Metric::Brier],
    };
    html! {
        @for metric in shown {
            (tile(metric.title(), html! { (score(evaluation.metric(metric))) }, beside(input, metric)))
        }
    }
}

/// Against the champion where there is one, else in which direction it is good.
fn beside(input: &ReportInput, metric: Metric) -> Markup {
    let mine = input
        .evaluation
        .as_ref()
        .and_then(|evaluation| evaluation.metric(metric));
    let champions = input.champion.as_ref().and_then(|champion| {
        let value = champion.metrics.get(&metric).copied().flatten()?;
        Some((champion.version, value))
    });
    match (mine, champions) {
        (Some(mine), Some((version, value))) => html! {
            (signed(mine - value)) " on version " (version)
        },
        _ => html! {
            @match metric.higher_is_better() {
                Some(true) => "more is better",
                Some(false) => "less is better",
                None => "",
            }
        },
    }
}

fn gap_tile(input: &ReportInput) -> Markup {
    match slices::widest_gap(input) {
        None => html! {},
        Some((column, gap)) => tile(
            "Widest gap in selection",
            html! { (score(Some(gap))) },
            html! { "between groups of " code { (clip(column, 40)) } },
        ),
    }
}

fn gate_tile(input: &ReportInput) -> Markup {
    if input.gate.is_empty() {
        return html! {};
    }
    let passed = input.gate.iter().filter(|check| check.passed).count();
    let all = input.gate.len();
    tile(
        "Gate checks that hold",
        html! { span.good[passed == all].bad[passed < all] { (passed) } small { " of " (all) } },
        html! {
            @if passed == all { "all of them" } @else { (all - passed) " refused the model" }
        },
    )
}
