//! The line without a target: labels of anomalies judge a model and do nothing else, and groups
//! that are there are found.

use std::fmt::Write as _;

use sandcast_factory::metrics::Metric;
use sandcast_factory::{ModelVersion, RunOutcome};
use sandcast_tests::{Line, built, repository};

const PUMP: &str = "examples/pump-telemetry";

fn line(text: &str, data: impl AsRef<[u8]>) -> Line {
    for plugin in ["connector-csv", "adapter-autoencoder", "adapter-kmeans"] {
        built(&format!("plugins/{plugin}"));
    }
    let text = text.replace("../../plugins", "{plugins}");
    Line::new(&text).file("data/readings.csv", data)
}

fn example(file: &str) -> Vec<u8> {
    std::fs::read(repository().join(PUMP).join(file)).expect("a file of the example")
}

fn completed(line: &Line) -> ModelVersion {
    match line.run() {
        RunOutcome::Completed(completed) => completed.version,
        RunOutcome::Rejected(rejected) => panic!("the run was refused: {:?}", rejected.reasons),
    }
}

fn refused(line: &Line) -> String {
    match line.run() {
        RunOutcome::Completed(_) => panic!("the run was not refused"),
        RunOutcome::Rejected(rejected) => rejected.reasons.join("; "),
    }
}

#[test]
fn labels_of_anomalies_judge_the_model_and_change_nothing_in_it() {
    let pipeline = String::from_utf8(example("pipeline.yaml")).expect("text");
    let mut line = line(&pipeline, example("data/readings.csv"));
    let judged = completed(&line);
    let evaluation = &judged.evaluation;
    assert!(evaluation.metric(Metric::Auc).expect("an AUC") > 0.9);
    assert_eq!(evaluation.classes, ["ok", "fault"]);

    line.edit("  target: state\n  positive: fault\n", "");
    line.edit("exclude: [reading]", "exclude: [reading, state]");
    line.edit(
        "metrics.auc >= 0.9",
        "metrics.score_p99 > metrics.score_p50",
    );
    line.edit("  - metrics.precision_at_share >= 0.6\n", "");
    let unjudged = completed(&line);
    assert_eq!(judged.artifact, unjudged.artifact);
    let blind = &unjudged.evaluation;
    assert_eq!(blind.metric(Metric::Auc), None);
    for metric in [Metric::ScoreP50, Metric::ScoreP99, Metric::ScoreMax] {
        assert_eq!(blind.metric(metric), evaluation.metric(metric));
    }
}

/// Three heaps of rows, told apart by two numbers, one of them sometimes missing, and a text.
fn heaps(rows: usize) -> String {
    let mut csv = "x,y,kind\n".to_owned();
    for row in 0..rows {
        let (x, y, kind) = [(0.0, 0.0, "a"), (50.0, 0.0, "b"), (0.0, 50.0, "b")][row % 3];
        let (dx, dy) = ((row * 7 % 11) as f64 / 10.0, (row * 5 % 13) as f64 / 10.0);
        let y = match row % 20 {
            // Missing is where the mean is.
            19 => String::new(),
            _ => format!("{:.1}", y + dy),
        };
        let _ = writeln!(csv, "{:.1},{y},{kind}", x + dx);
    }
    csv
}

#[test]
fn groups_that_are_there_are_found() {
    let pipeline = String::from_utf8(example("modes.yaml")).expect("text");
    let mut line = line(&pipeline, heaps(1_200));
    line.edit(
        "  features: [speed, flow, pressure, current, temperature, vibration]\n",
        "",
    );
    line.edit(
        "metrics.smallest_cluster_share >= 0.1",
        "metrics.clusters == 3",
    );
    let evaluation = completed(&line).evaluation;
    assert!(evaluation.metric(Metric::Silhouette).expect("a silhouette") > 0.8);
    let sizes: Vec<u64> = evaluation.clusters.iter().map(|size| size.rows).collect();
    assert!(sizes.iter().all(|rows| rows.abs_diff(80) < 45), "{sizes:?}");

    // Of 1,200 rows some 450 are different.
    line.edit("clusters: 3", "clusters: 800");
    let message = refused(&line);
    assert!(message.contains("different rows"), "{message}");
    line.edit("clusters: 800", "k: 3");
    let message = refused(&line);
    assert!(message.contains("unknown field `k`"), "{message}");
}

#[test]
fn an_adapter_is_not_asked_for_what_it_does_not_learn() {
    let pipeline = String::from_utf8(example("modes.yaml")).expect("text");
    let mut line = line(&pipeline, heaps(300));
    line.edit("task: clustering", "task: anomaly-detection");
    line.edit("metrics.silhouette >= 0.6", "metrics.score_p50 > 0");
    line.edit("  - metrics.smallest_cluster_share >= 0.1\n", "");
    line.edit(
        "  features: [speed, flow, pressure, current, temperature, vibration]\n",
        "",
    );
    let message = refused(&line);
    assert!(message.contains("does not learn this task"), "{message}");
}
