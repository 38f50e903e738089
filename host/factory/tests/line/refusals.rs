//! Runs that are stopped, and what they say.

use std::sync::Arc;

use sandcast_audit::Event;
use sandcast_factory::conduct::Action;
use sandcast_factory::report::Outcome;
use sandcast_factory::{Observer, RunError, RunEvent, RunOutcome, RunStatus, run};

use crate::bench::{Bench, Notebook, people, watched};

fn registered(bench: &Bench) -> usize {
    bench
        .workspace()
        .registry()
        .models()
        .expect("the state reads")
        .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_says_which_number_failed() {
    let bench = Bench::new();
    bench.change("metrics.auc >= 0.75", "metrics.auc >= 0.9999");
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "gate");
    assert_eq!(rejected.reasons.len(), 1, "{:?}", rejected.reasons);
    let reason = &rejected.reasons[0];
    assert!(
        reason.starts_with("`metrics.auc >= 0.9999` does not hold: metrics.auc = 0."),
        "{reason}"
    );
    assert!(reason.ends_with("wanted >= 0.9999"), "{reason}");
    assert!(matches!(rejected.report.outcome, Outcome::Refused { .. }));
    assert!(rejected.report_path.is_some_and(|page| page.is_file()));
    assert_eq!(registered(&bench), 0);
    let events = bench.events();
    assert!(events.iter().any(|event| matches!(
        event,
        Event::Gated {
            approved: false,
            ..
        }
    )));
    let record = bench.latest();
    assert_eq!(record.status, RunStatus::Rejected);
    assert_eq!(
        (record.stage.as_deref(), record.reasons),
        (Some("gate"), rejected.reasons)
    );

    // What was learnt is not learnt again when the gate is the only thing that changes.
    bench.write_pipeline(|text| text);
    bench.completes().await;
    assert!(bench.done_anew().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_changed_by_hand_gets_nothing_past_the_gate() {
    let bench = Bench::new();
    bench.change("metrics.auc >= 0.75", "metrics.auc >= 0.9999");
    let before = bench.is_rejected().await;
    let database = rusqlite::Connection::open(bench.path("state/state.sqlite"));
    let change = "UPDATE stage_outputs
                  SET output = json_set(output, '$.evaluation.metrics.auc', 0.99999)
                  WHERE stage = 'evaluate'";
    let changed = database.expect("it is there").execute(change, []);
    assert_eq!(changed, Ok(1));

    let notebook = Arc::new(Notebook::default());
    let options = watched(Arc::clone(&notebook) as Arc<dyn Observer>);
    let outcome = run(&bench.workspace(), &bench.pipeline(), options).await;
    match outcome.expect("nothing of the host is wrong") {
        RunOutcome::Rejected(rejected) => assert_eq!(rejected.reasons, before.reasons),
        RunOutcome::Completed(_) => panic!("this should not have passed"),
    }
    assert_eq!(bench.done_anew(), ["evaluate"]);
    assert_eq!(registered(&bench), 0);
    let events = std::mem::take(&mut *notebook.events.lock().expect("nobody panicked"));
    assert!(events.iter().any(|event| matches!(
        event,
        RunEvent::Note { stage, message } if stage == "evaluate" && message.contains("no seal")
    )));

    // What was done anew has its seal.
    assert_eq!(bench.is_rejected().await.reasons, before.reasons);
    assert!(bench.done_anew().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_champion_that_is_changed_by_hand_is_written_anew_by_the_run_that_comes_to_it() {
    let bench = Bench::new();
    let version = bench.completes().await.version;
    let database = rusqlite::Connection::open(bench.path("state/state.sqlite"));
    let change = "UPDATE model_versions
                  SET document = json_set(document, '$.grants.clock', json('true'))";
    let changed = database.expect("it is there").execute(change, []);
    assert_eq!(changed, Ok(1));
    let model = version.model.as_str();
    let workspace = bench.workspace();
    let asked = workspace.registry().resolve(model, None);
    let error = asked
        .expect_err("it is not what was registered")
        .to_string();
    assert!(error.contains("run the pipeline again"), "{error}");

    // As it says.
    let again = bench.completes().await;
    assert_eq!((again.version.version, again.new), (1, false));
    let found = workspace
        .registry()
        .resolve(model, None)
        .expect("as it was");
    assert_eq!(found.grants, version.grants);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_fails_is_named_with_its_numbers() {
    let bench = Bench::new();
    bench.change("mostly: 0.98", "mostly: 0.999");
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "validate");
    let reason = &rejected.reasons[0];
    for part in [
        "`adults`",
        "6 of 1199 rows failed",
        "at least 99.9% must pass",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(
        rejected.report.validation.is_some(),
        "the report has the numbers"
    );
    assert_eq!(registered(&bench), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_not_there_is_named_with_what_is_near() {
    let bench = Bench::new();
    bench.change("target: repaid", "target: repayed");
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "permit");
    let reason = &rejected.reasons[0];
    for part in [
        "no column `repayed`",
        "did you mean `repaid`?",
        "train.target",
        ":23:11",
    ] {
        assert!(reason.contains(part), "{reason}");
    }

    bench.change("[age, thousands, purpose]", "[age, thousands, pupose]");
    let reason = bench.is_rejected().await.reasons.remove(0);
    assert!(reason.contains("did you mean `purpose`?"), "{reason}");
    bench.change("slices: [sex]", "slices: [sexe]");
    let reason = bench.is_rejected().await.reasons.remove(0);
    assert!(reason.contains("evaluate.slices[0]"), "{reason}");
    bench.change("positive: \"yes\"", "positive: \"Yes\"");
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "train");
    assert!(
        rejected.reasons[0].contains("never `Yes`"),
        "{:?}",
        rejected.reasons
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_wrong_is_shown_where_it_stands() {
    let bench = Bench::new();
    bench.change("FROM people", "FROM peple");
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "query");
    let reason = &rejected.reasons[0];
    assert!(
        reason.contains("peple") && reason.contains("dataset.sql"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_none_is_refused() {
    let bench = Bench::new();
    bench.write("fake.wasm", "this is no component");
    let rules = crate::bench::plugins()
        .join("validator-rules")
        .display()
        .to_string();
    bench.change(&rules, "fake.wasm");
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "load");
    let reason = &rejected.reasons[0];
    assert!(
        reason.contains("`rules`") && reason.contains("fake.wasm"),
        "{reason}"
    );
    let refused = bench.events().into_iter().find_map(|event| match event {
        Event::PluginRefused { name, .. } => Some(name),
        _ => None,
    });
    assert_eq!(refused.as_deref(), Some("rules"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_before_it_runs() {
    let bench = Bench::new();
    let grant = ", grants: { compute: { memory: 256MiB, time: 5m } }";
    bench.change(grant, "");
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "load");
    assert!(
        rejected.reasons[0].contains("plugins.mlp.grants.compute"),
        "{:?}",
        rejected.reasons
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_refuses_is_told_in_its_words() {
    let bench = Bench::new();
    bench.change("path: /data/people.csv", "path: /data/peple.csv");
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "connect people");
    let reason = &rejected.reasons[0];
    assert!(
        reason.contains("`csv`") && reason.contains("peple.csv"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_not_built_is_told_how_to_be() {
    let bench = Bench::new();
    let rules = crate::bench::plugins()
        .join("validator-rules")
        .display()
        .to_string();
    bench.change(&rules, "nowhere.wasm");
    let error = bench.run().await.expect_err("there is nothing to run");
    assert!(matches!(error, RunError::Plan(_)), "{error}");
    assert!(
        bench
            .workspace()
            .runs()
            .expect("the state reads")
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_champion_that_cannot_be_compared_keeps_its_place() {
    let bench = Bench::new();
    bench.completes().await;
    bench.write_pipeline(|text| {
        text.replace(
            "income / 1000.0 AS thousands",
            "income / 1000.0 AS thousand",
        )
        .replace("[age, thousands, purpose]", "[age, thousand, purpose]")
    });
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "gate");
    assert!(
        rejected.reasons[0].contains("champion.metrics.auc is not known"),
        "{:?}",
        rejected.reasons
    );
    let champion = bench
        .workspace()
        .registry()
        .resolve("loans", None)
        .expect("it is registered");
    assert_eq!(champion.version, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_champion_whose_adapter_is_revoked_is_not_loaded_to_be_compared() {
    let bench = Bench::new();
    let first = bench.completes().await.version;
    let workspace = bench.workspace();
    let kept = workspace.estate().get(&first.component).await;
    let mut component = kept.expect("it is kept").to_vec();
    // The same in other bytes, with a section that nobody reads: what is revoked is a digest.
    component.extend([0, 4, 3, b'x', b'y', b'z']);
    std::fs::write(bench.path("mlp.wasm"), component).expect("the folder is ours");
    bench.write_pipeline(|text| {
        let (before, after) = text.split_once("mlp: { source: ").expect("an adapter");
        let (_, after) = after.split_once(',').expect("a role");
        format!("{before}mlp: {{ source: mlp.wasm,{after}")
    });
    // Other rows, on which nobody was compared yet.
    bench.write("data/people.csv", &people(8));
    workspace
        .conduct()
        .decide(Action::Revoke, &first.adapter, "ann", "it hands out rows")
        .expect("she may");
    let revoked = first.adapter.digest;
    let loads = || {
        let events = bench.events().into_iter();
        let is_load = |event: &Event| matches!(event, Event::PluginLoaded { plugin, .. } if plugin.digest == revoked);
        events.filter(is_load).count()
    };
    let before = loads();
    let rejected = bench.is_rejected().await;
    assert_eq!(rejected.stage, "gate");
    assert!(
        rejected.reasons[0].contains("champion.metrics.auc is not known"),
        "{:?}",
        rejected.reasons
    );
    assert_eq!(loads(), before, "it is never loaded again");
    assert!(bench.events().iter().any(|event| matches!(
        event,
        Event::PluginRefused { digest: Some(digest), reason, .. }
            if *digest == revoked && reason.contains("it hands out rows")
    )));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_written_does_not_undo_a_run() {
    let bench = Bench::new();
    let workspace = bench.workspace();
    std::fs::write(workspace.folder().join("runs"), "a file in the way").expect("it is ours");
    let outcome = run(&workspace, &bench.pipeline(), Default::default()).await;
    let RunOutcome::Completed(completed) = outcome.expect("nothing of the host is wrong") else {
        panic!("this should have passed");
    };
    assert_eq!(completed.report_path, None);
    assert_eq!(bench.latest().status, RunStatus::Completed);
}
