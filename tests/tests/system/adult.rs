//! The whole line on a real file: UCI Adult as it is published, dirt and all.
//!
//! The file is not part of the repository. It is looked for where `SANDCAST_ADULT_DATA` says, then
//! in `shared/data` beside the repository; without it the test says so and is skipped.

use std::path::PathBuf;

use sandcast_factory::RunOutcome;
use sandcast_factory::metrics::Metric;
use sandcast_tests::{Line, built, repository};

fn census() -> Option<PathBuf> {
    let named = std::env::var_os("SANDCAST_ADULT_DATA").map(PathBuf::from);
    let beside = repository()
        .parent()
        .map(|above| above.join("shared/data/adult.data"));
    named.into_iter().chain(beside).find(|path| path.is_file())
}

#[test]
fn every_row_is_accounted_for_and_the_network_is_as_good_as_it_should_be() {
    judged("adapter-mlp", 0.905);
}

#[test]
fn trees_are_as_good_as_they_should_be() {
    judged("adapter-gbdt", 0.92);
}

/// Runs the whole line with an adapter, whose model must rank the test rows so well.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn judged(adapter: &str, least: f64) {
    let Some(census) = census() else {
        eprintln!("skipped: adult.data is not here; name it in SANDCAST_ADULT_DATA");
        return;
    };
    for plugin in ["connector-csv", "validator-rules", adapter] {
        built(&format!("plugins/{plugin}"));
    }
    let content = std::fs::read(census).expect("the census");
    let lines = content
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .count();
    let pipeline = include_str!("../../adult/pipeline.yaml")
        .replace("/adapter-mlp", &format!("/{adapter}"))
        .replace("metrics.auc >= 0.905", &format!("metrics.auc >= {least}"));
    let line = Line::new(&pipeline).file("data/adult.data", content);

    let outcome = line.run();

    let RunOutcome::Completed(completed) = &outcome else {
        panic!("the run was refused: {outcome:?}");
    };
    let report = &completed.report;
    let source = &report.sources[0];
    assert_eq!(
        source.rows_in,
        lines as u64 - 1,
        "every line but the header is read"
    );
    assert_eq!(source.rows_in, source.rows_landed + source.rows_rejected);
    let validation = report.validation.as_ref().expect("the rows were checked");
    assert_eq!(validation.rows_in, source.rows_landed);
    assert_eq!(
        validation.rows_in,
        validation.rows_passed + validation.rows_quarantined
    );

    let evaluation = report.evaluation.as_ref().expect("the model was measured");
    let auc = evaluation
        .metrics
        .get(&Metric::Auc)
        .copied()
        .flatten()
        .expect("an AUC");
    assert!(auc >= least, "test AUC {auc}");
    let slices: Vec<&str> = evaluation.slices.keys().map(String::as_str).collect();
    assert_eq!(slices, ["age_band", "race", "sex"]);
}
