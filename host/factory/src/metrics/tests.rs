//! The metrics against scikit-learn and Fairlearn (`golden/metrics.py` says how the numbers were
//! made), and against what must hold for any rows.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::{
    Binary, EvaluateOptions, Evaluation, Metric, MetricsError, Multiclass, Outcomes, Regression,
    SliceColumn, evaluate, roc_auc, roc_curve,
};

#[derive(Deserialize)]
struct Golden {
    binary: GoldenBinary,
    multiclass: GoldenMulticlass,
    regression: GoldenRegression,
}

#[derive(Deserialize)]
struct GoldenBinary {
    positive: Vec<bool>,
    probability: Vec<f64>,
    weight: Vec<f64>,
    group: Vec<String>,
    expected: BTreeMap<Metric, f64>,
    weighted_auc: f64,
    certain_log_loss: f64,
    confusion: Vec<Vec<u64>>,
    roc: [Vec<f64>; 2],
    bin_rows: Vec<u64>,
    bin_observed: Vec<f64>,
    bin_predicted: Vec<f64>,
    groups: BTreeMap<String, BTreeMap<String, f64>>,
    slice: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct GoldenMulticlass {
    truth: Vec<u32>,
    probability: Vec<f64>,
    expected: BTreeMap<Metric, f64>,
    confusion: Vec<Vec<u64>>,
}

#[derive(Deserialize)]
struct GoldenRegression {
    truth: Vec<f64>,
    prediction: Vec<f64>,
    expected: BTreeMap<Metric, f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/metrics.json")).expect("the golden numbers parse")
}

#[track_caller]
fn assert_close(what: &str, found: Option<f64>, expected: f64) {
    let found = found.unwrap_or_else(|| panic!("{what} is not defined"));
    assert!(
        (found - expected).abs() < 1e-12,
        "{what} is {found}, expected {expected}"
    );
}

fn assert_metrics(evaluation: &Evaluation, expected: &BTreeMap<Metric, f64>) {
    for (metric, expected) in expected {
        assert_close(metric.name(), evaluation.metric(*metric), *expected);
    }
}

fn column<'v>(name: &str, values: impl IntoIterator<Item = &'v str>) -> SliceColumn {
    SliceColumn::new(name, values.into_iter().map(Some)).expect("few groups")
}

fn evaluation_of(
    positive: &[bool],
    probability: &[f64],
    slices: &[SliceColumn],
    options: &EvaluateOptions,
) -> Evaluation {
    let binary = Binary::new(["no", "yes"], positive, probability).expect("valid rows");
    evaluate(&Outcomes::Binary(binary), slices, options).expect("an evaluation")
}

#[test]
fn binary_metrics_are_those_of_scikit_learn() {
    let golden = golden().binary;
    let evaluation = evaluation_of(
        &golden.positive,
        &golden.probability,
        &[],
        &EvaluateOptions {
            curve_points: 10_000,
            ..EvaluateOptions::default()
        },
    );
    assert_metrics(&evaluation, &golden.expected);
    let weighted = roc_auc(&golden.positive, &golden.probability, Some(&golden.weight));
    assert_close("weighted auc", weighted, golden.weighted_auc);
    let confusion = evaluation.confusion.expect("a confusion matrix");
    assert_eq!(confusion.counts, golden.confusion);
    let [fpr, tpr] = golden.roc;
    assert_eq!(evaluation.roc.len(), fpr.len());
    for ((point, fpr), tpr) in evaluation.roc.iter().zip(fpr).zip(tpr) {
        assert_close("fpr", Some(point.false_positive_rate), fpr);
        assert_close("tpr", Some(point.true_positive_rate), tpr);
    }
    let calibration = evaluation.calibration.expect("a reliability curve");
    let rows: Vec<u64> = calibration.bins.iter().map(|bin| bin.rows).collect();
    assert_eq!(rows, golden.bin_rows);
    let filled = calibration.bins.iter().filter(|bin| bin.rows > 0);
    for ((bin, observed), predicted) in filled.zip(golden.bin_observed).zip(golden.bin_predicted) {
        assert_close("observed", bin.observed, observed);
        assert_close("mean probability", bin.mean_probability, predicted);
    }
}

#[test]
fn certainty_is_clipped_as_scikit_learn_does() {
    let binary =
        Binary::new(["no", "yes"], &[false, true, true], &[0.0, 1.0, 0.0]).expect("valid rows");
    assert_close(
        "log-loss",
        Some(binary.log_loss()),
        golden().binary.certain_log_loss,
    );
}

#[test]
fn multiclass_metrics_are_those_of_scikit_learn() {
    let golden = golden().multiclass;
    let classes = ["a", "b", "c"].map(str::to_owned);
    let rows = Multiclass::new(&classes, &golden.truth, &golden.probability).expect("valid rows");
    let evaluation = evaluate(
        &Outcomes::Multiclass(rows),
        &[],
        &EvaluateOptions::default(),
    )
    .expect("an evaluation");
    assert_metrics(&evaluation, &golden.expected);
    assert_eq!(
        evaluation.confusion.expect("a confusion matrix").counts,
        golden.confusion
    );
    assert_eq!(evaluation.per_class.len(), 3);
    assert!(evaluation.roc.is_empty(), "a curve is of two classes");
}

#[test]
fn regression_metrics_are_those_of_scikit_learn() {
    let golden = golden().regression;
    let rows = Regression::new(&golden.truth, &golden.prediction).expect("valid rows");
    let halves = column(
        "half",
        (0..golden.truth.len()).map(|row| ["a", "b"][row % 2]),
    );
    let options = EvaluateOptions {
        minimum_group_rows: 20,
        ..EvaluateOptions::default()
    };
    let evaluation =
        evaluate(&Outcomes::Regression(rows), &[halves], &options).expect("an evaluation");
    assert_metrics(&evaluation, &golden.expected);
    let slice = &evaluation.slices["half"];
    assert_eq!(slice.judged_groups, 2);
    assert_eq!(
        slice.demographic_parity_difference, None,
        "nothing is selected in a regression"
    );
    let mean: f64 = slice
        .groups
        .iter()
        .filter_map(|group| group.mean_absolute_error)
        .sum();
    assert_close(
        "the mean of the halves",
        Some(mean / 2.0),
        golden.expected[&Metric::Mae],
    );
}

#[test]
fn slices_are_those_of_fairlearn() {
    let golden = golden().binary;
    let groups = column("group", golden.group.iter().map(String::as_str));
    let evaluation = evaluation_of(
        &golden.positive,
        &golden.probability,
        &[groups],
        &EvaluateOptions::default(),
    );
    let slice = &evaluation.slices["group"];
    assert_eq!(slice.groups.len(), golden.groups.len());
    let json = serde_json::to_value(slice).expect("a slice has a JSON form");
    for (name, expected) in &golden.slice {
        assert_close(name, json[name].as_f64(), *expected);
    }
    for group in &slice.groups {
        let json = serde_json::to_value(group).expect("a group has a JSON form");
        for (name, expected) in &golden.groups[&group.group] {
            assert_close(
                &format!("{name} of {}", group.group),
                json[name].as_f64(),
                *expected,
            );
        }
    }
}

/// Rows of two large groups with different selection rates, and of a tiny third one.
fn three_groups(tiny: usize) -> (Vec<bool>, Vec<f64>, Vec<&'static str>) {
    let mut rows = (Vec::new(), Vec::new(), Vec::new());
    for (group, count, selected_of_ten) in [("a", 100, 6), ("b", 100, 4), ("tiny", tiny, 10)] {
        for row in 0..count {
            rows.0.push(row % 2 == 0);
            rows.1
                .push(if row % 10 < selected_of_ten { 0.9 } else { 0.1 });
            rows.2.push(group);
        }
    }
    rows
}

#[test]
fn a_small_group_is_reported_but_not_judged() {
    let (positive, probability, groups) = three_groups(29);
    let slices = [column("group", groups)];
    let evaluation = evaluation_of(
        &positive,
        &probability,
        &slices,
        &EvaluateOptions::default(),
    );
    let slice = &evaluation.slices["group"];
    assert_close("parity", slice.demographic_parity_difference, 0.2);
    assert_eq!((slice.groups.len(), slice.judged_groups), (3, 2));
    let tiny = slice.groups.last().expect("the smallest group comes last");
    assert_eq!(
        (tiny.group.as_str(), tiny.rows, tiny.judged),
        ("tiny", 29, false)
    );
    assert_close("selection rate", tiny.selection_rate, 1.0);
}

#[test]
fn a_group_just_large_enough_is_judged() {
    let (positive, probability, groups) = three_groups(30);
    let slices = [column("group", groups)];
    let evaluation = evaluation_of(
        &positive,
        &probability,
        &slices,
        &EvaluateOptions::default(),
    );
    assert_close(
        "parity",
        evaluation.slices["group"].demographic_parity_difference,
        0.6,
    );
}

#[test]
fn one_group_alone_is_not_compared() {
    let slices = [column("group", ["a"; 40])];
    let positive: Vec<bool> = (0..40).map(|row| row % 2 == 0).collect();
    let evaluation = evaluation_of(&positive, &[0.7; 40], &slices, &EvaluateOptions::default());
    let slice = &evaluation.slices["group"];
    assert_eq!(slice.demographic_parity_difference, None);
    assert_eq!(slice.equalized_odds_ratio, None);
}

#[test]
fn a_rate_that_is_not_defined_for_a_group_is_left_out() {
    let positive: Vec<bool> = (0..120).map(|row| row < 80 && row % 2 == 0).collect();
    let groups = (0..120).map(|row| ["a", "b", "no positives"][row / 40]);
    let slices = [column("group", groups)];
    let evaluation = evaluation_of(&positive, &[0.7; 120], &slices, &EvaluateOptions::default());
    let slice = &evaluation.slices["group"];
    assert_close("opportunity", slice.equal_opportunity_difference, 0.0);
    let without = slice
        .groups
        .iter()
        .find(|group| group.group == "no positives");
    assert_eq!(without.expect("the group").true_positive_rate, None);
}

#[test]
fn rows_without_a_group_form_one() {
    let values = (0..80).map(|row| (row % 2 == 0).then_some("a"));
    let slices = [SliceColumn::new("group", values).expect("two groups")];
    let positive: Vec<bool> = (0..80).map(|row| row % 4 < 2).collect();
    let evaluation = evaluation_of(&positive, &[0.7; 80], &slices, &EvaluateOptions::default());
    let names: Vec<&str> = evaluation.slices["group"]
        .groups
        .iter()
        .map(|group| group.group.as_str())
        .collect();
    assert_eq!(names, ["(missing)", "a"]);
}

#[test]
fn a_column_of_identifiers_is_refused() {
    let ids: Vec<String> = (0..100).map(|row| format!("id-{row}")).collect();
    let error = SliceColumn::new("id", ids.iter().map(|id| Some(id.as_str())))
        .expect_err("too many groups");
    assert!(
        error.to_string().contains("slice `id` has more than 64"),
        "{error}"
    );
}

#[test]
fn what_is_not_defined_is_null_in_json() {
    let evaluation = evaluation_of(&[true, true], &[0.2, 0.3], &[], &EvaluateOptions::default());
    let json = serde_json::to_value(&evaluation).expect("an evaluation has a JSON form");
    assert!(json["metrics"]["auc"].is_null());
    assert!(json["metrics"]["precision"].is_null());
    assert!(json["metrics"]["log_loss"].is_number());
    let back: Evaluation = serde_json::from_value(json).expect("it reads what it wrote");
    assert_eq!(back, evaluation);
}

#[test]
fn rows_that_cannot_be_judged_are_refused() {
    let refused = |positive: &[bool], probability: &[f64]| {
        Binary::new(["no", "yes"], positive, probability)
            .expect_err("refused")
            .to_string()
    };
    assert!(refused(&[], &[]).contains("no rows"));
    assert!(refused(&[true], &[0.5, 0.5]).contains("2 values where there are 1 rows"));
    assert!(refused(&[true, false], &[0.5, f64::NAN]).contains("row 1 is NaN"));
    assert!(refused(&[true], &[1.5]).contains("row 0 is 1.5"));
    let classes = ["a".to_owned(), "b".to_owned()];
    let error = Multiclass::new(&classes, &[2], &[0.5, 0.5]).expect_err("refused");
    assert_eq!(
        error,
        MetricsError::Class {
            row: 0,
            index: 2,
            classes: 2
        }
    );
    let error = Regression::new(&[f64::INFINITY], &[0.0]).expect_err("refused");
    assert!(error.to_string().contains("target of row 0"), "{error}");
}

#[test]
fn a_rounding_error_of_f32_is_no_reason_to_refuse() {
    let binary = Binary::new(["no", "yes"], &[true, false], &[1.000_000_1, -1e-7]);
    let binary = binary.expect("within the slack");
    assert!(binary.log_loss() < 1e-6);
}

prop_compose! {
    /// Rows with many ties.
    fn any_rows()(rows in prop::collection::vec((any::<bool>(), 0_u8..=20, 0_u8..3), 1..300))
        -> (Vec<bool>, Vec<f64>, Vec<&'static str>)
    {
        rows.into_iter()
            .map(|(positive, score, group)| {
                (positive, f64::from(score) / 20.0, ["a", "b", "c"][usize::from(group)])
            })
            .fold((Vec::new(), Vec::new(), Vec::new()), |mut rows, row| {
                rows.0.push(row.0);
                rows.1.push(row.1);
                rows.2.push(row.2);
                rows
            })
    }
}

proptest! {
    /// Turning scores around turns the AUC around.
    #[test]
    fn auc_is_symmetric((positive, scores, _) in any_rows()) {
        let turned: Vec<f64> = scores.iter().map(|score| -score).collect();
        let (auc, other) = (roc_auc(&positive, &scores, None), roc_auc(&positive, &turned, None));
        prop_assert_eq!(auc.is_some(), other.is_some());
        if let (Some(auc), Some(other)) = (auc, other) {
            prop_assert!((auc + other - 1.0).abs() < 1e-12, "{} and {}", auc, other);
        }
    }

    /// A rank statistic does not change with the scale.
    #[test]
    fn auc_only_looks_at_the_order((positive, scores, _) in any_rows()) {
        let stretched: Vec<f64> = scores.iter().map(|score| (score * 3.0).exp()).collect();
        prop_assert_eq!(roc_auc(&positive, &scores, None), roc_auc(&positive, &stretched, None));
    }

    /// The AUC is the area under the curve that is drawn, when all its points are.
    #[test]
    fn auc_is_the_area_under_the_curve((positive, scores, _) in any_rows()) {
        let curve = roc_curve(&positive, &scores, usize::MAX);
        let area: f64 = curve
            .windows(2)
            .map(|pair| {
                let width = pair[1].false_positive_rate - pair[0].false_positive_rate;
                width * (pair[0].true_positive_rate + pair[1].true_positive_rate) / 2.0
            })
            .sum();
        if let Some(auc) = roc_auc(&positive, &scores, None) {
            prop_assert!((auc - area).abs() < 1e-9, "{} and {}", auc, area);
        }
    }

    /// A thinned curve keeps its ends, its order and its bound.
    #[test]
    fn a_thinned_curve_is_bounded((positive, scores, _) in any_rows(), points in 2_usize..40) {
        let curve = roc_curve(&positive, &scores, points);
        prop_assert!(curve.len() <= points, "{} points of {}", curve.len(), points);
        if let (Some(first), Some(last)) = (curve.first(), curve.last()) {
            prop_assert_eq!((first.false_positive_rate, first.true_positive_rate), (0.0, 0.0));
            prop_assert_eq!((last.false_positive_rate, last.true_positive_rate), (1.0, 1.0));
        }
        for pair in curve.windows(2) {
            prop_assert!(pair[0].false_positive_rate <= pair[1].false_positive_rate);
            prop_assert!(pair[0].true_positive_rate <= pair[1].true_positive_rate);
        }
    }

    /// Every number that is there lies where it can lie, and the groups add up.
    #[test]
    fn everything_is_in_range((positive, scores, groups) in any_rows(), threshold in 0.0..=1.0) {
        let slices = [column("group", groups.iter().copied())];
        let options =
            EvaluateOptions { threshold, minimum_group_rows: 5, ..EvaluateOptions::default() };
        let evaluation = evaluation_of(&positive, &scores, &slices, &options);
        for (metric, value) in &evaluation.metrics {
            let bound = if *metric == Metric::LogLoss { f64::MAX } else { 1.0 };
            if let Some(value) = value {
                prop_assert!((0.0..=bound).contains(value), "{} is {}", metric, value);
            }
        }
        let slice = &evaluation.slices["group"];
        let numbers = [
            slice.demographic_parity_difference,
            slice.demographic_parity_ratio,
            slice.equalized_odds_difference,
            slice.equalized_odds_ratio,
            slice.equal_opportunity_difference,
            slice.accuracy_difference,
        ];
        for value in numbers.into_iter().flatten() {
            prop_assert!((0.0..=1.0).contains(&value), "{}", value);
        }
        let rows: u64 = slice.groups.iter().map(|group| group.rows).sum();
        prop_assert_eq!(rows, evaluation.rows);
        let bins: u64 = evaluation.calibration.iter().flat_map(|c| &c.bins).map(|b| b.rows).sum();
        prop_assert_eq!(bins, evaluation.rows);
    }
}
