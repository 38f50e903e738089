//! Runs that go through, and what they leave.

use std::fs;
use std::sync::{Arc, Mutex};

use arrow::array::AsArray as _;
use arrow::datatypes::Float64Type;
use sandcast_audit::Event;
use sandcast_factory::plan::Reuse;
use sandcast_factory::report::Outcome;
use sandcast_factory::{
    ApprovedMove, RunError, RunEvent, RunOptions, RunOutcome, RunStatus, ServedModel, plan_in, run,
};
use sandcast_sandbox::OperatorRules;
use serde_json::json;

use crate::bench::{BROKEN, Bench, Notebook, OUT_OF_RANGE, ROWS, people, watched};

#[tokio::test(flavor = "multi_thread")]
async fn raw_files_become_a_model_that_answers() {
    let bench = Bench::new();
    let notebook = Arc::new(Notebook::default());
    let workspace = bench.workspace();
    let outcome = run(&workspace, &bench.pipeline(), watched(notebook.clone())).await;
    let RunOutcome::Completed(completed) = outcome.expect("nothing of the host is wrong") else {
        panic!("this should have passed");
    };
    assert_eq!((completed.version.version, completed.new), (1, true));

    // Rows in are rows passed and rows put aside, everywhere.
    let report = &completed.report;
    let source = &report.sources[0];
    assert_eq!((source.rows_in, source.rows_rejected), (ROWS, BROKEN));
    assert_eq!(source.reasons.values().sum::<u64>(), BROKEN);
    let validation = report.validation.as_ref().expect("there are checks");
    assert_eq!(validation.rows_in, ROWS - BROKEN);
    assert_eq!(validation.rows_quarantined, OUT_OF_RANGE);
    assert_eq!(
        validation.rows_passed + validation.rows_quarantined,
        validation.rows_in
    );
    let training = report.training.as_ref().expect("it was trained");
    let parts = [
        training.rows_training,
        training.rows_validation,
        training.rows_test,
    ];
    assert_eq!(parts.iter().sum::<u64>(), validation.rows_passed);
    assert_eq!(training.features, ["age", "thousands", "purpose"]);
    assert_eq!(
        report.evaluation.as_ref().map(|it| it.rows),
        Some(training.rows_test)
    );
    assert!(matches!(
        &report.outcome,
        Outcome::Approved { version: 1, .. }
    ));
    let mlp = report
        .plugins
        .iter()
        .find(|plugin| plugin.name == "mlp")
        .expect("it took part");
    let compute = mlp
        .capabilities
        .iter()
        .find(|it| it.name == "compute")
        .expect("it computes");
    assert!(compute.calls > 0 && mlp.guest_seconds > 0.0 && mlp.denials == 0);

    // The report is a page and data, and both are whole.
    let page = completed
        .report_path
        .as_ref()
        .expect("the report was written");
    assert!(
        fs::read_to_string(page)
            .expect("it is there")
            .contains("loans")
    );
    let data = workspace
        .report(&completed.run)
        .expect("it reads")
        .expect("it is there");
    assert_eq!(data.outcome, report.outcome);

    // The observer saw the stages in order, and training move.
    let events = notebook.events.lock().expect("nobody panicked").clone();
    let stages: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::StageFinished { record } => Some(record.stage.as_str()),
            _ => None,
        })
        .collect();
    let order = [
        "load",
        "connect people",
        "query",
        "validate",
        "permit",
        "train",
        "evaluate",
        "gate",
        "register",
    ];
    assert_eq!(stages, order);
    assert!(
        events
            .iter()
            .any(|event| matches!(event, RunEvent::Training { .. }))
    );
    assert_eq!(bench.latest().status, RunStatus::Completed);

    // The model answers without any of the files it was made from.
    fs::remove_dir_all(bench.path("data")).expect("the data is ours");
    let version = workspace
        .registry()
        .resolve("loans", None)
        .expect("it is registered");
    assert_eq!(version, completed.version);
    let served = ServedModel::load(&workspace, &version)
        .await
        .expect("it loads");
    let rows = [
        json!({ "age": 75, "thousands": 78.0, "purpose": "car" }),
        json!({ "age": 19, "thousands": 11.0, "purpose": "house" }),
        json!({ "age": null, "thousands": null, "purpose": "boat" }),
    ];
    let rows = served.rows_from_json(&rows).expect("these are its columns");
    let answers = served.predict(&rows).await.expect("it answers");
    assert_eq!(answers.recording, None, "nobody asked for a recording");
    let yes = answers
        .rows
        .column_by_name("probability:yes")
        .expect("a class")
        .clone();
    let yes = yes.as_primitive::<Float64Type>().values();
    assert!(yes[0] > 0.5 && yes[1] < 0.5, "{yes:?}");
    assert!((0.0..=1.0).contains(&yes[2]), "{yes:?}");
}

#[test]
fn a_plan_leaves_nothing_behind() {
    let bench = Bench::new();
    let plan = plan_in(
        &bench.path("state"),
        &bench.pipeline(),
        &OperatorRules::default(),
    )
    .expect("the plugins are there");
    assert!(!bench.path("state").exists());
    let kept =
        |it: &&sandcast_factory::plan::PlannedStage| matches!(it.reuse, Reuse::Unchanged { .. });
    assert_eq!(plan.stages.iter().filter(kept).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_twice() {
    let bench = Bench::new();
    let first = bench.completes().await;
    let everything = ["connect people", "query", "validate", "train", "evaluate"];
    assert_eq!(bench.done_anew(), everything);
    let files = || {
        let entries = fs::read_dir(bench.path("state")).expect("the state");
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let before = files();
    let plan = plan_in(
        &bench.path("state"),
        &bench.pipeline(),
        &OperatorRules::default(),
    )
    .expect("the plugins are there");
    assert_eq!(files(), before);
    let unchanged = plan
        .stages
        .iter()
        .filter(|it| matches!(&it.reuse, Reuse::Unchanged { run, .. } if *run == first.run));
    assert_eq!(unchanged.count(), everything.len());

    let second = bench.completes().await;
    let nothing: [&str; 0] = [];
    assert_eq!(bench.done_anew(), nothing);
    assert_eq!((second.new, second.version), (false, first.version.clone()));
    assert_eq!(second.report.evaluation, first.report.evaluation);
    let registered = bench.events().into_iter();
    assert_eq!(
        registered
            .filter(|it| matches!(it, Event::Registered { .. }))
            .count(),
        1
    );

    // Another threshold reaches back to the evaluation and no further.
    bench.change(
        "evaluate: { slices: [sex] }",
        "evaluate: { slices: [sex], threshold: 0.4 }",
    );
    let third = bench.completes().await;
    assert_eq!(bench.done_anew(), ["evaluate"]);
    assert_eq!((third.new, third.version.version), (true, 2));
    assert_eq!(third.version.artifact, first.version.artifact);

    // The same rows in another file are read again, and lead to the same table.
    bench.write(
        "data/people.csv",
        &people(7).replacen("0,150,", "0,151,", 1),
    );
    bench.completes().await;
    assert_eq!(bench.done_anew(), ["connect people", "query", "validate"]);

    // Other rows change everything.
    bench.write("data/people.csv", &people(8));
    let fifth = bench.completes().await;
    assert_eq!(bench.done_anew(), everything);
    assert_ne!(fifth.version.artifact, first.version.artifact);
    assert_eq!(
        fifth
            .report
            .champion
            .as_ref()
            .map(|champion| champion.version),
        Some(3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_takes_a_second_person_waits_for_them() {
    let bench = Bench::new();
    let (workspace, pipeline) = (bench.workspace(), bench.pipeline());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let run_of = async |answer: Result<String, String>| {
        let asked = Arc::clone(&asked);
        let options = RunOptions {
            promotion: Some(Arc::new(move |wanted: &ApprovedMove<'_>| {
                let move_of = (wanted.alias.to_owned(), wanted.from, wanted.to);
                asked.lock().expect("nobody panicked").push(move_of);
                answer.clone()
            })),
            ..RunOptions::default()
        };
        run(&workspace, &pipeline, options).await
    };
    let aliases = || {
        let models = workspace.registry().models().expect("the state reads");
        models[0].aliases.clone().into_iter().collect::<Vec<_>>()
    };
    let completed = |outcome: Result<RunOutcome, RunError>| match outcome.expect("no fault") {
        RunOutcome::Completed(completed) => *completed,
        RunOutcome::Rejected(rejected) => panic!("{:?}", rejected.reasons),
    };

    let first = completed(run_of(Ok("a1".to_owned())).await);
    assert_eq!((first.new, first.version.version), (true, 1));
    assert_eq!(
        (first.alias, first.alias_moved, first.approval.as_deref()),
        (None, false, Some("a1"))
    );
    assert!(matches!(
        &first.report.outcome,
        Outcome::Approved {
            version: 1,
            alias: None,
            ..
        }
    ));
    assert!(aliases().is_empty());

    // Who cannot be asked has not agreed.
    let failed = run_of(Err("too many wait".to_owned())).await;
    let error = failed.expect_err("nobody could be asked").to_string();
    assert!(error.contains("too many wait"), "{error}");
    assert!(aliases().is_empty());

    let wanted = ApprovedMove {
        model: "loans",
        alias: "champion",
        from: None,
        to: 1,
        artifact: first.version.artifact,
        lineage: first.version.lineage.digest(),
    };
    let moved = workspace.registry().set_alias_as_approved("a1", &wanted);
    assert_eq!(moved.expect("the state writes"), Ok(()));
    assert_eq!(aliases(), [("champion".to_owned(), 1_u64)]);

    // It means that version already, so nobody is asked.
    let third = completed(run_of(Ok("a2".to_owned())).await);
    assert_eq!(
        (third.alias.as_deref(), third.alias_moved, third.approval),
        (Some("champion"), false, None)
    );
    let asked = asked.lock().expect("nobody panicked").clone();
    let once = ("champion".to_owned(), None::<u64>, 1_u64);
    assert_eq!(asked, [once.clone(), once]);
    let by_run = bench.events().into_iter();
    assert_eq!(
        by_run
            .filter(|it| matches!(it, Event::AliasMoved { run: Some(_), .. }))
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_makes_the_same_model() {
    let (one, other) = (Bench::new(), Bench::new());
    let one = one.completes().await.version;
    let fresh = other.completes().await.version;
    assert_eq!(one.artifact, fresh.artifact);
    assert_eq!(one.lineage.data, fresh.lineage.data);
    other.change("seed: 7", "seed: 8");
    assert_ne!(other.completes().await.version.artifact, one.artifact);
}
