//! The guests of `tests/guests`, a behaviour each.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use sandcast_sandbox::{
    CallContext, ControlPoint, Field, Kind, Plugin, Precision, Request, Role, ScanRequest, Task,
    TaskKind, TrainInput, TrialOptions, examine,
};
use sandcast_tests::built;
use serde_json::json;

use crate::catalogue::rows_of;
use crate::yard::{Outcome, PERSON, Yard};

/// Chunks after which an endless source is believed to be one.
const ENOUGH_CHUNKS: usize = 50;

/// Rejects of a chunk whose texts are looked at.
const ENOUGH_REJECTS: usize = 100;

fn context() -> CallContext {
    CallContext::new(None, "test")
}

pub(crate) async fn read_all(plugin: &Plugin, behaviour: &str) -> Outcome {
    read(plugin, &json!({ "behaviour": behaviour })).await
}

/// Reads as far as is enough: what of it people see.
pub(crate) async fn read(plugin: &Plugin, config: &serde_json::Value) -> Outcome {
    let mut texts = Vec::new();
    let mut connector = plugin.connector(&context(), config).await?;
    connector.schema().await?;
    let splits = connector.partitions().await?;
    let Some(split) = splits.into_iter().next() else {
        return Ok(texts);
    };
    connector.scan(&ScanRequest::all(split)).await?;
    for _ in 0..ENOUGH_CHUNKS {
        let Some(chunk) = connector.next().await? else {
            break;
        };
        // The first of a chunk are as the others.
        for reject in chunk.rejects.into_iter().take(ENOUGH_REJECTS) {
            texts.extend([reject.reason, reject.message, reject.raw]);
            texts.extend(reject.column);
        }
    }
    Ok(texts)
}

#[tokio::test(flavor = "multi_thread")]
async fn connectors() {
    let mut yard = Yard::new("connectors").await;
    let plugin = yard.guest("hostile-connector", Role::Connector).await;
    for row in rows_of("hostile-connector") {
        let attempt = read_all(plugin.of(&row), row.behaviour);
        yard.lets(&row, attempt, read_all(&plugin.patient, "behave"))
            .await;
    }
    insta::assert_snapshot!("connectors", yard.finish());
}

fn batch() -> RecordBatch {
    let schema = Schema::new(vec![ArrowField::new("number", DataType::Int64, true)]);
    let numbers = Int64Array::from_iter((0..10).map(|row| (row != 4).then_some(row)));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers)]).expect("a batch")
}

async fn check_all(plugin: &Plugin, behaviour: &str) -> Outcome {
    let batch = batch();
    let config = json!({ "behaviour": behaviour });
    let mut validator = plugin
        .validator(&context(), &config, &batch.schema())
        .await?;
    let mut texts = Vec::new();
    for rule in validator.rules() {
        texts.extend([rule.id.clone(), rule.kind.clone(), rule.description.clone()]);
        texts.extend(rule.columns.iter().cloned());
    }
    for finding in validator.check(&batch).await? {
        texts.extend([finding.rule, finding.message]);
        texts.extend(finding.column);
    }
    for verdict in validator.finish().await? {
        texts.extend([verdict.rule, verdict.message]);
    }
    Ok(texts)
}

#[tokio::test(flavor = "multi_thread")]
async fn validators() {
    let mut yard = Yard::new("validators").await;
    let plugin = yard.guest("hostile-validator", Role::Validator).await;
    for row in rows_of("hostile-validator") {
        let attempt = check_all(plugin.of(&row), row.behaviour);
        yard.lets(&row, attempt, check_all(&plugin.patient, "behave"))
            .await;
    }
    yard.is_not_on_record(PERSON);
    insta::assert_snapshot!("validators", yard.finish());
}

pub(crate) fn request(of: &str) -> Request {
    Request {
        control_point: ControlPoint::Promote,
        principal: format!("pipeline:{of}"),
        action: "promote".into(),
        resource: format!("model:{of}"),
        context: json!({}),
    }
}

pub(crate) async fn decide(plugin: &Plugin, behaviour: &str) -> Outcome {
    let config = json!({ "behaviour": behaviour });
    let mut policy = plugin.policy(&context(), &config).await?;
    let decision = policy.decide(&request("production")).await?;
    let obligations = decision
        .obligations
        .into_iter()
        .map(|obligation| obligation.kind);
    Ok(decision.reasons.into_iter().chain(obligations).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn policies() {
    let mut yard = Yard::new("policies").await;
    let plugin = yard.guest("hostile-policy", Role::Policy).await;
    for row in rows_of("hostile-policy") {
        let attempt = decide(plugin.of(&row), row.behaviour);
        yard.lets(&row, attempt, decide(&plugin.patient, "behave"))
            .await;
    }
    insta::assert_snapshot!("policies", yard.finish());
}

/// What was tried and found good is held in production as anything else is.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_behaves_where_it_is_tried_passes_and_is_held_all_the_same() {
    // No bomb of another test goes off meanwhile.
    let yard = Yard::new("tried").await;
    let component = std::fs::read(built("tests/guests/hostile-policy")).expect("the guest");
    let options = TrialOptions {
        configuration: json!({ "behaviour": "once-let-in" }),
        grants: None,
        ..TrialOptions::default()
    };
    let examined = examine(&component, &options, |_| {}).await;
    let examination = examined.expect("it can be tried");
    assert!(examination.is_passed(), "{:#?}", examination.trials);
    yard.finish();
    // `policies` has the row: in production it is stopped in time, and nobody else is.
}

fn examples() -> RecordBatch {
    let schema = Schema::new(vec![
        ArrowField::new("x", DataType::Float64, true),
        ArrowField::new("y", DataType::Float64, true),
    ]);
    let x = Float64Array::from_iter_values((0..256).map(f64::from));
    let y = Float64Array::from_iter_values((0..256).map(|row| 2.0 * f64::from(row)));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(x), Arc::new(y)]).expect("a batch")
}

async fn train_and_predict(plugin: &Plugin, behaviour: &str) -> Outcome {
    let attempt = trained_and_predicted(plugin, behaviour);
    let patience = Duration::from_secs(60);
    match tokio::time::timeout(patience, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("{behaviour} goes on for ever"),
    }
}

pub(crate) fn train_input(hyperparameters: serde_json::Value) -> TrainInput {
    TrainInput {
        task: Task {
            kind: TaskKind::Regression,
            features: vec![Field {
                name: "x".into(),
                kind: Kind::Float64,
                nullable: true,
            }],
            target: Some("y".into()),
            classes: Vec::new(),
            weight: None,
        },
        hyperparameters,
        seed: 1,
        training: vec![examples()],
        validation: None,
        progress: None,
        checkpoints: None,
        precision: Precision::F32Strict,
    }
}

/// The features of the examples.
pub(crate) fn features() -> RecordBatch {
    examples().project(&[0]).expect("the features")
}

async fn trained_and_predicted(plugin: &Plugin, behaviour: &str) -> Outcome {
    let input = train_input(json!({ "behaviour": behaviour }));
    let trained = plugin.adapter(&context()).await?.train(input).await?;
    let mut adapter = plugin.adapter(&context()).await?;
    adapter.predict(&trained.model, &features()).await?;
    Ok(Vec::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters() {
    let mut yard = Yard::new("adapters").await;
    let plugin = yard.guest("hostile-adapter", Role::Adapter).await;
    for row in rows_of("hostile-adapter") {
        let attempt = train_and_predict(plugin.of(&row), row.behaviour);
        let afterwards = train_and_predict(&plugin.patient, "behave");
        yard.lets(&row, attempt, afterwards).await;
    }
    yard.is_not_on_record(PERSON);
    insta::assert_snapshot!("adapters", yard.finish());
}
