//! A run on one screen: what came in, what was put aside, what was judged, and by which numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use console::style;
use sandcast_factory::{
    metrics::{Evaluation, Metric, Slice},
    report::{GateCheck, Outcome, ReportInput, Training},
};

use crate::table::{Table, count, decimal, seconds};

/// The reasons shown for one source; the rest are counted.
const REASONS_SHOWN: usize = 4;

/// The metrics of a classification that are worth a place on the screen, in this order.
const METRICS_SHOWN: [Metric; 21] = [
    Metric::Auc,
    Metric::Accuracy,
    Metric::LogLoss,
    Metric::Brier,
    Metric::Ece,
    Metric::SelectionRate,
    Metric::BaseRate,
    Metric::Mae,
    Metric::Rmse,
    Metric::R2,
    Metric::PrecisionAtShare,
    Metric::RecallAtShare,
    Metric::ScoreP50,
    Metric::ScoreP90,
    Metric::ScoreP99,
    Metric::ScoreMax,
    Metric::Inertia,
    Metric::Silhouette,
    Metric::Clusters,
    Metric::SmallestClusterShare,
    Metric::LargestClusterShare,
];

/// The summary of a run, without what to do next.
pub(crate) fn of_run(report: &ReportInput) -> String {
    let mut sections = vec![format!(
        "{}  run {}  seed {}  {}",
        style(&report.pipeline).bold(),
        report.run,
        report.seed,
        seconds(report.seconds)
    )];
    sections.extend(data(report));
    sections.extend(report.training.as_ref().map(training));
    sections.extend(report.evaluation.as_ref().map(of_evaluation));
    sections.extend(gate(&report.gate));
    sections.push(outcome(&report.outcome));
    sections.join("\n\n")
}

fn data(report: &ReportInput) -> Option<String> {
    let mut table = Table::with_headings(["data", "rows in", "passed", "set aside", "why"])
        .numbers_at(&[1, 2, 3]);
    for source in &report.sources {
        table.row([
            format!("  {}", source.name),
            count(source.rows_in),
            count(source.rows_landed),
            count(source.rows_rejected),
            reasons(&source.reasons),
        ]);
    }
    if let Some(validation) = &report.validation {
        table.row([
            "  validated".to_owned(),
            count(validation.rows_in),
            count(validation.rows_passed),
            count(validation.rows_quarantined),
            reasons(&validation.reasons),
        ]);
    }
    let mut text = (!report.sources.is_empty()).then(|| table.to_string())?;
    for rule in report
        .validation
        .iter()
        .flat_map(|validation| &validation.rules)
    {
        if !rule.passed {
            let _ = write!(
                text,
                "\n  {} {}: {}",
                style("failed").red().bold(),
                rule.id,
                rule.observed
            );
        }
    }
    Some(text)
}

/// `bad-type 62, field-count 24`, the most frequent first.
fn reasons(reasons: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<(&String, &u64)> = reasons.iter().collect();
    sorted.sort_by(|left, right| right.1.cmp(left.1).then(left.0.cmp(right.0)));
    let mut parts: Vec<String> = sorted
        .iter()
        .take(REASONS_SHOWN)
        .map(|(reason, rows)| format!("{reason} {}", count(**rows)))
        .collect();
    if sorted.len() > REASONS_SHOWN {
        parts.push(format!("{} more reasons", sorted.len() - REASONS_SHOWN));
    }
    parts.join(", ")
}

fn training(training: &Training) -> String {
    let epochs = training.epochs.len();
    let kept = training
        .best_epoch
        .map(|epoch| format!(", the weights of epoch {epoch} kept"))
        .unwrap_or_default();
    let what = match (&training.target, training.task.as_str()) {
        (Some(target), _) => target.as_str(),
        (None, "clustering") => "what belongs together",
        (None, _) => "what is usual",
    };
    format!(
        "{}  {} learns {} from {}\n  {} rows to learn from, {} to stop by, {} to be judged on\n  \
         {} parameters, {epochs} epochs in {} on {} ({}){kept}",
        style("training").dim(),
        training.adapter,
        what,
        training.features.join(", "),
        count(training.rows_training),
        count(training.rows_validation),
        count(training.rows_test),
        count(training.parameters),
        seconds(training.seconds),
        training.device,
        training.precision,
    )
}

/// What a model was measured by.
pub(crate) fn of_evaluation(evaluation: &Evaluation) -> String {
    let mut names = Table::indented(2).numbers_at(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let shown: Vec<(Metric, f64)> = METRICS_SHOWN
        .into_iter()
        .filter_map(|metric| Some((metric, evaluation.metric(metric)?)))
        .collect();
    names.row(shown.iter().map(|(metric, _)| metric.name().to_owned()));
    names.row(shown.iter().map(|(_, value)| decimal(Some(*value))));
    let mut text = format!(
        "{}  on {} rows that the model has not seen\n{names}",
        style("metrics").dim(),
        count(evaluation.rows)
    );
    for (column, slice) in &evaluation.slices {
        let _ = write!(text, "\n\n{}", slice_by(column, slice));
    }
    text
}

fn slice_by(column: &str, slice: &Slice) -> String {
    let mut table = Table::with_headings([
        &format!("by {column}"),
        "rows",
        "base rate",
        "selected",
        "true pos.",
        "false pos.",
        "accuracy",
    ])
    .numbers_at(&[1, 2, 3, 4, 5, 6]);
    for group in &slice.groups {
        let name = if group.judged {
            format!("  {}", group.group)
        } else {
            format!("  {} (too few to judge)", group.group)
        };
        table.row([
            name,
            count(group.rows),
            decimal(group.base_rate),
            decimal(group.selection_rate),
            decimal(group.true_positive_rate),
            decimal(group.false_positive_rate),
            decimal(group.accuracy),
        ]);
    }
    let mut text = table.to_string();
    if slice.demographic_parity_difference.is_some() {
        let _ = write!(
            text,
            "\n  demographic parity difference {}, ratio {}; equalized odds difference {}",
            decimal(slice.demographic_parity_difference),
            decimal(slice.demographic_parity_ratio),
            decimal(slice.equalized_odds_difference),
        );
    }
    text
}

fn gate(checks: &[GateCheck]) -> Option<String> {
    let mut table = Table::indented(2);
    for check in checks {
        let mark = if check.passed {
            style("pass").green()
        } else {
            style("FAIL").red().bold()
        };
        table.row([
            mark.to_string(),
            check.expression.clone(),
            check.observed.clone(),
        ]);
    }
    (!table.is_empty()).then(|| format!("{}\n{table}", style("gate").dim()))
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Approved {
            model,
            version,
            alias,
            // The command says that on a line of its own.
            approval: _,
        } => {
            let alias = alias
                .as_ref()
                .map(|alias| format!(", now {model}@{alias}"))
                .unwrap_or_default();
            format!(
                "{}  {model} version {version}{alias}",
                style("registered").green().bold()
            )
        }
        Outcome::Refused { reasons } => {
            let mut text = format!("{}  nothing was registered", style("refused").red().bold());
            for reason in reasons {
                let _ = write!(text, "\n  {reason}");
            }
            text
        }
        Outcome::Failed { stage, message } => {
            format!("{}  in {stage}: {message}", style("failed").red().bold())
        }
    }
}

#[cfg(test)]
mod tests {
    use sandcast_factory::{
        metrics::{EvaluatedTask, GroupScores},
        report::{Source, Validation},
    };

    use super::*;

    fn refused_run() -> ReportInput {
        let group = |name: &str, rows, selection| GroupScores {
            group: name.to_owned(),
            rows,
            judged: rows >= 30,
            base_rate: Some(0.6),
            selection_rate: Some(selection),
            true_positive_rate: Some(0.9),
            false_positive_rate: Some(0.2),
            accuracy: None,
            ..GroupScores::default()
        };
        ReportInput {
            run: "20261121-201530-4f3a9c".to_owned(),
            pipeline: "credit-risk".to_owned(),
            seed: 7,
            seconds: 4.25,
            sources: vec![Source {
                name: "branch".to_owned(),
                rows_in: 6_043,
                rows_landed: 5_957,
                rows_rejected: 86,
                reasons: [
                    ("bad-type", 62),
                    ("field-count", 20),
                    ("bad-date", 2),
                    ("quote", 1),
                    ("encoding", 1),
                ]
                .map(|(reason, rows)| (reason.to_owned(), rows))
                .into(),
                ..Source::default()
            }],
            validation: Some(Validation {
                rows_in: 5_957,
                rows_passed: 5_900,
                rows_quarantined: 57,
                reasons: [("age-of-an-adult".to_owned(), 57)].into(),
                ..Validation::default()
            }),
            training: Some(Training {
                adapter: "mlp".to_owned(),
                target: Some("repaid".to_owned()),
                features: vec!["age".to_owned(), "district".to_owned()],
                rows_training: 4_130,
                rows_validation: 590,
                rows_test: 1_180,
                seconds: 1.5,
                device: "cpu".to_owned(),
                precision: "f32-strict".to_owned(),
                parameters: 2_881,
                best_epoch: Some(11),
                ..Training::default()
            }),
            evaluation: Some(Evaluation {
                task: EvaluatedTask::BinaryClassification,
                rows: 1_180,
                classes: vec!["no".to_owned(), "yes".to_owned()],
                threshold: Some(0.5),
                metrics: [
                    (Metric::Auc, Some(0.8611)),
                    (Metric::LogLoss, Some(0.41)),
                    (Metric::Mae, None),
                ]
                .into(),
                confusion: None,
                roc: Vec::new(),
                calibration: None,
                per_class: Vec::new(),
                scores: Vec::new(),
                clusters: Vec::new(),
                slices: [(
                    "origin".to_owned(),
                    Slice {
                        groups: vec![
                            group("domestic", 760, 0.82),
                            group("abroad", 412, 0.46),
                            group("(missing)", 8, 0.5),
                        ],
                        demographic_parity_difference: Some(0.36),
                        demographic_parity_ratio: Some(0.561),
                        equalized_odds_difference: Some(0.1),
                        ..Slice::default()
                    },
                )]
                .into(),
            }),
            gate: vec![
                GateCheck {
                    expression: "metrics.auc >= 0.75".to_owned(),
                    passed: true,
                    observed: "metrics.auc = 0.8611".to_owned(),
                },
                GateCheck {
                    expression: "slices.origin.demographic_parity_difference <= 0.10".to_owned(),
                    passed: false,
                    observed: "slices.origin.demographic_parity_difference = 0.3600".to_owned(),
                },
            ],
            outcome: Outcome::Refused {
                reasons: vec![
                    "slices.origin.demographic_parity_difference is 0.3600, not <= 0.10".to_owned(),
                ],
            },
            ..ReportInput::default()
        }
    }

    #[test]
    fn a_refused_run_shows_which_number_failed() {
        console::set_colors_enabled(false);
        insta::assert_snapshot!(of_run(&refused_run()));
    }

    #[test]
    fn a_run_that_failed_early_shows_only_what_there_is() {
        console::set_colors_enabled(false);
        let report = ReportInput {
            run: "20261121-201530-4f3a9c".to_owned(),
            pipeline: "credit-risk".to_owned(),
            outcome: Outcome::Failed {
                stage: "connect branch".to_owned(),
                message: "no such file".to_owned(),
            },
            ..ReportInput::default()
        };
        assert_eq!(
            of_run(&report),
            "credit-risk  run 20261121-201530-4f3a9c  seed 0  0.0 s\n\n\
             failed  in connect branch: no such file"
        );
    }
}
