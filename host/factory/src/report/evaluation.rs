//! How good the model is on rows it has not seen.

use maud::{Markup, html};

use super::Section;
use super::chart::{Frame, at, ticks, unit_ticks};
use super::input::ReportInput;
use super::text::{and_more, clip, compact, count, counted, percent, score, short_score, signed};
use crate::metrics::{
    Calibration, ClassScores, ClusterSize, ConfusionMatrix, EvaluatedTask, Evaluation, Metric,
    RocPoint, ScoreBin,
};

const CLASSES: usize = 12;

pub(super) fn section(input: &ReportInput) -> Option<Section> {
    let evaluation = input.evaluation.as_ref()?;
    let mut lead = format!(
        "On {} that training has not seen",
        counted(evaluation.rows, "row")
    );
    if evaluation.task == EvaluatedTask::AnomalyDetection {
        let threshold = score(evaluation.threshold);
        lead += &format!("; a row counts as an anomaly from a score of {threshold} on");
        if evaluation.classes.is_empty() {
            lead += "; nothing says which rows are anomalies";
        }
    } else if let Some(threshold) = evaluation.threshold {
        let positive = evaluation.classes.last().map_or("positive", String::as_str);
        lead += &format!(
            "; a row is taken for “{}” from {threshold} on",
            clip(positive, 60)
        );
    }
    lead.push('.');
    let cards: Vec<Markup> = [
        Some(html! { div.card { h3 { "Metrics" } (metrics(input, evaluation)) } }),
        (!evaluation.roc.is_empty()).then(|| roc(&evaluation.roc, evaluation.metric(Metric::Auc))),
        evaluation
            .calibration
            .as_ref()
            .map(|calibration| reliability(calibration, evaluation.task)),
        evaluation.confusion.as_ref().map(confusion_card),
        (!evaluation.scores.is_empty())
            .then(|| histogram(&evaluation.scores, evaluation.threshold)),
        (!evaluation.clusters.is_empty()).then(|| clusters(&evaluation.clusters, evaluation.rows)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let body = html! {
        div.grid.halves { @for card in &cards { (card) } }
        @if !evaluation.per_class.is_empty() { (per_class(&evaluation.per_class)) }
    };
    Some(Section {
        id: "evaluation",
        title: "Evaluation",
        lead,
        body,
    })
}

fn metrics(input: &ReportInput, evaluation: &Evaluation) -> Markup {
    let champion = input.champion.as_ref();
    html! {
        table style="margin-top:8px" {
            @if let Some(champion) = champion {
                thead {
                    tr {
                        th {} th.number { "This model" }
                        th.number { "Version " (champion.version) } th.number { "Difference" }
                    }
                }
            }
            tbody {
                @for metric in Metric::ALL {
                    @if let Some(value) = evaluation.metrics.get(&metric) {
                        tr {
                            td { (metric.title()) span.faint.small { " " (hint(metric)) } }
                            td.number { strong { (score(*value)) } }
                            @if let Some(champion) = champion {
                                @let theirs = champion.metrics.get(&metric).copied().flatten();
                                td.number.soft { (score(theirs)) }
                                td.number { (difference(metric, *value, theirs)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn hint(metric: Metric) -> &'static str {
    match metric.higher_is_better() {
        Some(true) => "↑",
        Some(false) => "↓",
        None => "",
    }
}

fn difference(metric: Metric, mine: Option<f64>, theirs: Option<f64>) -> Markup {
    let (Some(mine), Some(theirs)) = (mine, theirs) else {
        return html! { span.faint { "–" } };
    };
    let difference = mine - theirs;
    let better = metric
        .higher_is_better()
        .map(|higher| (difference > 0.0) == higher);
    let visible = difference.abs() >= 0.000_05;
    html! {
        span.good[visible && better == Some(true)].bad[visible && better == Some(false)] {
            (signed(difference))
        }
    }
}

fn confusion_card(confusion: &ConfusionMatrix) -> Markup {
    let classes = confusion.classes.len();
    let most = confusion
        .counts
        .iter()
        .flatten()
        .copied()
        .max()
        .unwrap_or(0)
        .max(1);
    html! {
        div.card {
            h3 { "Confusion" }
            p.note style="margin-bottom:14px" {
                "True classes down, predicted classes across; shares are of a true class"
            }
            @if classes > CLASSES {
                p.faint { (classes) " classes are too many for a table; the scores by class are below." }
            } @else {
                div.scroll {
                    table.matrix.two[classes <= 2].many[classes > 2] {
                        thead {
                            tr { th style="width:84px" {} @for class in &confusion.classes { th { "predicted " (clip(class, 18)) } } }
                        }
                        tbody {
                            @for (row, (class, counts)) in confusion.classes.iter().zip(&confusion.counts).enumerate() {
                                tr {
                                    th { "true " (clip(class, 18)) }
                                    @let whole: u64 = counts.iter().sum();
                                    @for (column, rows) in counts.iter().enumerate() {
                                        td style=(shade(row == column, *rows, most)) {
                                            b { (count(*rows)) }
                                            span { (percent(*rows, whole)) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The more rows, the deeper; right ones in blue, wrong ones in red.
fn shade(right: bool, rows: u64, most: u64) -> String {
    let strength = 6.0 + 30.0 * (rows as f64 / most as f64);
    let colour = if right { "--blue" } else { "--bad" };
    format!("background:color-mix(in srgb, var({colour}) {strength:.0}%, var(--card))")
}

fn square_frame() -> Frame {
    Frame {
        width: 480.0,
        height: 400.0,
        left: 40.0,
        right: 14.0,
        top: 28.0,
        bottom: 42.0,
        x: (0.0, 1.0),
        y: (0.0, 1.0),
    }
}

fn roc(curve: &[RocPoint], auc: Option<f64>) -> Markup {
    let frame = square_frame();
    let line = || {
        curve
            .iter()
            .map(|point| (point.false_positive_rate, point.true_positive_rate))
    };
    let area = frame.points(line().chain([(1.0, 0.0), (0.0, 0.0)]));
    html! {
        div.card {
            h3 { "ROC curve" }
            p.note { "Positives found, against negatives taken for positive" }
            svg.chart viewBox=(frame.view_box()) role="img" aria-label="ROC curve" {
                (frame.axes(&unit_ticks(), &unit_ticks(), "false positive rate", "true positive rate"))
                line.diagonal x1=(at(frame.px(0.0))) y1=(at(frame.py(0.0)))
                    x2=(at(frame.px(1.0))) y2=(at(frame.py(1.0))) {}
                polygon.area-blue points=(area) {}
                polyline.line-blue points=(frame.points(line())) {}
                text.strong x=(at(frame.px(0.97))) y=(at(frame.py(0.08))) text-anchor="end"
                    style="font-size:15px" { "AUC " (score(auc)) }
            }
        }
    }
}

/// The reliability curve with the number of rows of each bin below it.
fn reliability(calibration: &Calibration, task: EvaluatedTask) -> Markup {
    let of = match task {
        EvaluatedTask::MulticlassClassification => "of the most probable class",
        _ => "of the positive class",
    };
    let frame = Frame {
        bottom: 116.0,
        ..square_frame()
    };
    let points: Vec<(f64, f64, u64)> = calibration
        .bins
        .iter()
        .filter_map(|bin| Some((bin.mean_probability?, bin.observed?, bin.rows)))
        .collect();
    let most = points
        .iter()
        .map(|(.., rows)| *rows)
        .max()
        .unwrap_or(1)
        .max(1) as f64;
    let step = frame.px(1.0 / calibration.bins.len().max(1) as f64) - frame.px(0.0);
    let base = frame.height - 42.0;
    html! {
        div.card {
            h3 { "Calibration" }
            p.note { "Probability " (of) ", and how often it came true" }
            svg.chart viewBox=(frame.view_box()) role="img" aria-label="Reliability curve" {
                (frame.axes(&[], &unit_ticks(), "", "observed share"))
                line.diagonal x1=(at(frame.px(0.0))) y1=(at(frame.py(0.0)))
                    x2=(at(frame.px(1.0))) y2=(at(frame.py(1.0))) {}
                polyline.line-blue points=(frame.points(points.iter().map(|(x, y, _)| (*x, *y)))) {}
                @for (x, y, rows) in &points {
                    circle.dot-blue cx=(at(frame.px(*x))) cy=(at(frame.py(*y)))
                        r=(at(3.5 + 3.0 * (*rows as f64 / most).sqrt())) {
                        title { (count(*rows)) " rows: predicted " (short_score(Some(*x))) ", observed " (short_score(Some(*y))) }
                    }
                }
                @for (index, bin) in calibration.bins.iter().enumerate() {
                    @if bin.rows > 0 {
                        @let height = (bin.rows as f64 / most * 54.0).max(1.0);
                        rect.bar-soft x=(at(frame.px(0.0) + index as f64 * step + 1.0)) y=(at(base - height))
                            width=(at(step - 2.0)) height=(at(height)) { title { (count(bin.rows)) " rows" } }
                    }
                }
                line.axis x1=(at(frame.px(0.0))) x2=(at(frame.px(1.0))) y1=(at(base)) y2=(at(base)) {}
                @for (value, label) in unit_ticks() {
                    text.faint x=(at(frame.px(value))) y=(at(base + 17.0)) text-anchor="middle" { (label) }
                }
                text x=(at((frame.px(0.0) + frame.px(1.0)) / 2.0)) y=(at(frame.height - 4.0)) text-anchor="middle" {
                    "predicted probability"
                }
                text.strong x=(at(frame.px(0.97))) y=(at(frame.py(0.08))) text-anchor="end"
                    style="font-size:15px" {
                    "error " (score(calibration.expected_calibration_error))
                }
            }
        }
    }
}

/// Rows by score, and those of them that are anomalies in truth.
fn histogram(bins: &[ScoreBin], threshold: Option<f64>) -> Markup {
    let labelled = bins.iter().any(|bin| bin.positives.is_some());
    let most = bins.iter().map(|bin| bin.rows).max().unwrap_or(1).max(1) as f64;
    // The last bin can be far wider than the others; each gets the same room.
    let frame = Frame {
        width: 480.0,
        height: 320.0,
        left: 52.0,
        right: 14.0,
        top: 28.0,
        bottom: 42.0,
        x: (0.0, bins.len().max(1) as f64),
        y: (0.0, most),
    };
    let step = frame.px(1.0) - frame.px(0.0);
    let base = frame.py(0.0);
    let height = |rows: u64| (base - frame.py(rows as f64)).max(if rows > 0 { 1.0 } else { 0.0 });
    let named = bins.len().div_ceil(6).max(1);
    let edges: Vec<(f64, String)> = bins
        .iter()
        .enumerate()
        .filter(|(place, _)| place % named == 0)
        .map(|(place, bin)| (place as f64, compact(bin.from)))
        .collect();
    let mark = threshold.and_then(|threshold| {
        let place = bins.iter().position(|bin| threshold < bin.to)?;
        let bin = &bins[place];
        let part = (threshold - bin.from) / (bin.to - bin.from);
        Some(place as f64 + part.clamp(0.0, 1.0))
    });
    html! {
        div.card {
            h3 { "Scores" }
            p.note {
                "Rows by score; the last bar holds all that are higher"
                @if labelled { ". In red, those that are anomalies in truth" }
            }
            svg.chart viewBox=(frame.view_box()) role="img" aria-label="Histogram of scores" {
                (frame.axes(&edges, &ticks(0.0, most, 4.0), "score", "rows"))
                @for (place, bin) in bins.iter().enumerate() {
                    @let positives = bin.positives.unwrap_or(0);
                    @let left = at(frame.px(place as f64) + 0.5);
                    rect.bar x=(left) y=(at(base - height(bin.rows)))
                        width=(at(step - 1.0)) height=(at(height(bin.rows))) {
                        title {
                            (score(Some(bin.from))) " to " (score(Some(bin.to))) ": "
                            (counted(bin.rows, "row"))
                            @if labelled { ", " (count(positives)) " of them anomalies" }
                        }
                    }
                    @if positives > 0 {
                        rect.bar-bad x=(left) y=(at(base - height(positives)))
                            width=(at(step - 1.0)) height=(at(height(positives))) {}
                    }
                }
                @if let Some(mark) = mark {
                    line.limit-dash x1=(at(frame.px(mark))) x2=(at(frame.px(mark)))
                        y1=(at(frame.top)) y2=(at(base)) {}
                }
            }
        }
    }
}

fn clusters(sizes: &[ClusterSize], rows: u64) -> Markup {
    const SHOWN: usize = 24;
    let most = sizes.first().map_or(1, |size| size.rows).max(1) as f64;
    html! {
        div.card.scroll {
            h3 { "Clusters" }
            p.note { "Rows of each, and how far they are from its centre in the mean" }
            table style="margin-top:10px" {
                thead { tr { th { "Cluster" } th {} th.number { "Rows" } th.number { "Share" } th.number { "Distance" } } }
                tbody {
                    @for size in sizes.iter().take(SHOWN) {
                        tr {
                            th { (size.cluster) }
                            td {
                                svg viewBox="0 0 120 12" width="120" height="12" aria-hidden="true" {
                                    rect.bar x="0" y="1" rx="2" height="10"
                                        width=(at((size.rows as f64 / most * 120.0).max(1.0))) {}
                                }
                            }
                            td.number { (count(size.rows)) }
                            td.number { (percent(size.rows, rows)) }
                            td.number { (short_score(Some(size.mean_distance))) }
                        }
                    }
                }
            }
            (and_more(SHOWN.min(sizes.len()), sizes.len(), "clusters"))
        }
    }
}

fn per_class(classes: &[ClassScores]) -> Markup {
    const SHOWN: usize = 50;
    html! {
        div.card.scroll {
            h3 { "Each class against the rest" }
            table style="margin-top:10px" {
                thead {
                    tr {
                        th { "Class" } th.number { "Rows" } th.number { "Precision" }
                        th.number { "Recall" } th.number { "F1" } th.number { "AUC" }
                    }
                }
                tbody {
                    @for scores in classes.iter().take(SHOWN) {
                        tr {
                            th { (clip(&scores.class, 80)) }
                            td.number { (count(scores.rows)) }
                            td.number { (short_score(scores.precision)) }
                            td.number { (short_score(scores.recall)) }
                            td.number { (short_score(scores.f1)) }
                            td.number { (short_score(scores.auc)) }
                        }
                    }
                }
            }
            (and_more(SHOWN.min(classes.len()), classes.len(), "classes"))
        }
    }
}
