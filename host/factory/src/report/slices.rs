//! How the groups of people fare.

use maud::{Markup, html};

use super::Section;
use super::chart::at;
use super::gate::Limit;
use super::input::ReportInput;
use super::text::{and_more, clip, count, score, short_score};
use crate::metrics::{EvaluatedTask, GroupScores, Slice};

const SLICES: usize = 12;
const GROUPS: usize = 24;

/// The distances of a slice, as they are shown.
const DISTANCES: [(&str, &str); 6] = [
    (
        "demographic_parity_difference",
        "Demographic parity difference",
    ),
    ("demographic_parity_ratio", "Demographic parity ratio"),
    ("equalized_odds_difference", "Equalized odds difference"),
    ("equalized_odds_ratio", "Equalized odds ratio"),
    (
        "equal_opportunity_difference",
        "Equal opportunity difference",
    ),
    ("accuracy_difference", "Accuracy difference"),
];

/// The column whose groups are selected most differently, and by how much.
pub(super) fn widest_gap(input: &ReportInput) -> Option<(&str, f64)> {
    let slices = &input.evaluation.as_ref()?.slices;
    slices
        .iter()
        .filter_map(|(column, slice)| Some((column.as_str(), slice.demographic_parity_difference?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

pub(super) fn section(input: &ReportInput) -> Option<Section> {
    let evaluation = input.evaluation.as_ref()?;
    if evaluation.slices.is_empty() {
        return None;
    }
    let limits: Vec<(Limit<'_>, bool)> = input
        .gate
        .iter()
        .filter_map(|check| Some((Limit::read(&check.expression)?, check.passed)))
        .collect();
    let body = html! {
        @for (column, slice) in evaluation.slices.iter().take(SLICES) {
            (card(column, slice, evaluation.task, &limits))
        }
        (and_more(SLICES.min(evaluation.slices.len()), evaluation.slices.len(), "columns"))
    };
    Some(Section {
        id: "slices",
        title: "Groups of people",
        lead: "How the model treats those whom a sensitive column tells apart.".to_owned(),
        body,
    })
}

fn card(column: &str, slice: &Slice, task: EvaluatedTask, limits: &[(Limit<'_>, bool)]) -> Markup {
    let prefix = format!("slices.{column}.");
    let of_column: Vec<(&str, Limit<'_>, bool)> = limits
        .iter()
        .filter_map(|(limit, passed)| Some((limit.path.strip_prefix(&prefix)?, *limit, *passed)))
        .collect();
    let unjudged = slice.groups.iter().filter(|group| !group.judged).count();
    html! {
        div.card {
            h3 style="font-size:15px" { (clip(column, 80)) }
            p.note {
                @if unjudged > 0 {
                    "Groups with fewer than " (slice.minimum_group_rows)
                    " rows are shown but not judged."
                } @else { "All groups are large enough to be judged." }
            }
            @if matches!(task, EvaluatedTask::BinaryClassification | EvaluatedTask::AnomalyDetection) { (rates(slice, &of_column)) }
            div.scroll { (table(slice, task)) }
            (distances(slice, task, &of_column))
            (and_more(GROUPS.min(slice.groups.len()), slice.groups.len(), "groups"))
        }
    }
}

/// Selection rate, true and false positive rate of each group, with the place from which on a
/// group is too far behind the first.
fn rates(slice: &Slice, limits: &[(&str, Limit<'_>, bool)]) -> Markup {
    let groups: Vec<&GroupScores> = slice.groups.iter().take(GROUPS).collect();
    let limit_of = |name: &str| {
        limits
            .iter()
            .find(|(path, limit, _)| *path == name && limit.is_ceiling)
            .map(|found| found.1.limit)
    };
    let odds = limit_of("equalized_odds_difference");
    let panels: [Panel; 3] = [
        Panel {
            title: "Selection rate",
            rate: |group| group.selection_rate,
            limit: limit_of("demographic_parity_difference"),
        },
        Panel {
            title: "True positive rate",
            rate: |group| group.true_positive_rate,
            limit: limit_of("equal_opportunity_difference").or(odds),
        },
        Panel {
            title: "False positive rate",
            rate: |group| group.false_positive_rate,
            limit: odds,
        },
    ];
    const NAMES: f64 = 150.0;
    const PANEL: f64 = 270.0;
    const GAP: f64 = 26.0;
    const ROW: f64 = 28.0;
    let width = NAMES + 3.0 * PANEL + 2.0 * GAP;
    let height = 34.0 + ROW * groups.len() as f64 + 8.0;
    html! {
        svg.chart viewBox=(format!("0 0 {} {}", at(width), at(height))) role="img"
            aria-label="Rates by group" style="margin:6px 0 14px" {
            @for (index, group) in groups.iter().enumerate() {
                text.ink[group.judged].faint[!group.judged] x="0" y=(at(34.0 + ROW * index as f64 + 17.0))
                    style="font-size:12.5px" { (clip(&group.group, 22)) }
            }
            @for (index, panel) in panels.iter().enumerate() {
                (panel.draw(&groups, NAMES + index as f64 * (PANEL + GAP), PANEL, ROW))
            }
        }
    }
}

struct Panel {
    title: &'static str,
    rate: fn(&GroupScores) -> Option<f64>,
    /// How far a group may be behind the first.
    limit: Option<f64>,
}

impl Panel {
    fn draw(&self, groups: &[&GroupScores], left: f64, width: f64, row: f64) -> Markup {
        // Room for the number behind the longest bar.
        let scale = width - 44.0;
        let judged = groups
            .iter()
            .filter(|group| group.judged)
            .filter_map(|group| (self.rate)(group));
        let highest = judged.fold(0.0, f64::max);
        let floor = self
            .limit
            .map(|limit| highest - limit)
            .filter(|floor| *floor > 0.0);
        let bottom = 34.0 + row * groups.len() as f64;
        html! {
            text.strong x=(at(left)) y="12" { (self.title) }
            @for (index, group) in groups.iter().enumerate() {
                @let top = 34.0 + row * index as f64 + 5.0;
                rect.track x=(at(left)) y=(at(top)) width=(at(scale)) height="16" rx="3" {}
                @if let Some(rate) = (self.rate)(group) {
                    rect class=(bar_class(group, rate, floor)) x=(at(left)) y=(at(top))
                        width=(at((rate * scale).max(2.0))) height="16" rx="3" {}
                    text.ink x=(at(left + scale + 8.0)) y=(at(top + 12.0)) style="font-size:12px" {
                        (short_score(Some(rate)))
                    }
                } @else {
                    text.faint x=(at(left + scale + 8.0)) y=(at(top + 12.0)) { "–" }
                }
            }
            @if let Some(floor) = floor {
                @let x = left + floor * scale;
                line.limit-dash x1=(at(x)) x2=(at(x)) y1="30" y2=(at(bottom + 4.0)) {}
                text.bad x=(at(x)) y="26" text-anchor=(if floor > 0.6 { "end" } else { "start" })
                    style="font-size:10.5px" { "lowest allowed " (short_score(Some(floor))) }
            }
        }
    }
}

fn bar_class(group: &GroupScores, rate: f64, floor: Option<f64>) -> &'static str {
    match floor {
        _ if !group.judged => "bar-none",
        Some(floor) if rate < floor - 1e-9 => "bar-bad",
        _ => "bar",
    }
}

fn table(slice: &Slice, task: EvaluatedTask) -> Markup {
    type Column = (&'static str, fn(&GroupScores) -> Option<f64>);
    let columns: &[Column] = match task {
        EvaluatedTask::BinaryClassification | EvaluatedTask::AnomalyDetection => &[
            ("Positive in truth", |group| group.base_rate),
            ("Selected", |group| group.selection_rate),
            ("True positive rate", |group| group.true_positive_rate),
            ("False positive rate", |group| group.false_positive_rate),
            ("Accuracy", |group| group.accuracy),
        ],
        EvaluatedTask::MulticlassClassification => &[("Accuracy", |group| group.accuracy)],
        EvaluatedTask::Regression => &[
            ("Mean absolute error", |group| group.mean_absolute_error),
            ("Mean prediction", |group| group.mean_prediction),
        ],
        EvaluatedTask::Clustering | EvaluatedTask::TextGeneration => &[],
    };
    html! {
        table {
            thead {
                tr {
                    th { "Group" } th.number { "Rows" }
                    @for (name, _) in columns { th.number { (name) } }
                }
            }
            tbody {
                @for group in slice.groups.iter().take(GROUPS) {
                    tr.faint[!group.judged] {
                        th {
                            (clip(&group.group, 60))
                            @if !group.judged { " " span.chip { "too few rows" } }
                        }
                        td.number { (count(group.rows)) }
                        @for (_, value) in columns { td.number { (short_score(value(group))) } }
                    }
                }
            }
        }
    }
}

fn distances(slice: &Slice, task: EvaluatedTask, limits: &[(&str, Limit<'_>, bool)]) -> Markup {
    let shown = match task {
        EvaluatedTask::BinaryClassification | EvaluatedTask::AnomalyDetection => &DISTANCES[..],
        EvaluatedTask::MulticlassClassification => &DISTANCES[5..],
        EvaluatedTask::Regression | EvaluatedTask::Clustering | EvaluatedTask::TextGeneration => {
            return html! {};
        }
    };
    html! {
        div.distances {
            @for (name, title) in shown {
                @let limit = limits.iter().find(|(path, ..)| path == name);
                div.distance {
                    span.soft { (title) }
                    strong.good[limit.is_some_and(|limit| limit.2)].bad[limit.is_some_and(|limit| !limit.2)] {
                        (score(slice.distance(name)))
                    }
                    @if let Some((_, limit, passed)) = limit {
                        span.chip.good[*passed].bad[!passed] {
                            @if limit.is_ceiling { "at most " } @else { "at least " } (limit.limit)
                        }
                    }
                }
            }
        }
    }
}
