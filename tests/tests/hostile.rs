//! Guests that misbehave, one behaviour each, against the outcome each must have. After every one
//! of them the same sandbox still serves a guest that behaves.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use sandcast_audit::AuditLog;
use sandcast_sandbox::{
    ByteSize, CallContext, CallError, ComputeGrant, DeviceChoice, Field, Grants, Kind, Limits,
    Plugin, Precision, Role, Sandbox, SandboxConfig, ScanRequest, Task, TaskKind, TimeSpan,
    TrainInput,
};
use sandcast_tests::built;
use serde_json::json;

/// Chunks after which an endless source is believed to be one.
const ENOUGH_CHUNKS: usize = 50;

struct Yard {
    sandbox: Sandbox,
    plugin: Plugin,
}

impl Yard {
    async fn new(guest: &str, role: Role) -> Self {
        let component = std::fs::read(built(&format!("tests/guests/{guest}"))).expect("the guest");
        let config = SandboxConfig {
            device: DeviceChoice::Cpu.into(),
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(config, AuditLog::in_memory()).expect("a sandbox");
        let grants = Grants {
            compute: (role == Role::Adapter).then(|| ComputeGrant {
                memory: ByteSize::from_bytes(64 << 20),
                time: TimeSpan::from_millis(1_000),
                ..ComputeGrant::default()
            }),
            limits: Limits {
                memory: ByteSize::from_bytes(256 << 20),
                call_timeout: TimeSpan::from_millis(1_500),
                ..Limits::default()
            },
            ..Grants::default()
        };
        let plugin = sandbox
            .load("guest", &component, role, grants)
            .await
            .expect("it loads");
        Yard { sandbox, plugin }
    }

    fn context(&self) -> CallContext {
        CallContext::new(None, "test")
    }
}

/// The kind of an outcome, and for an answer that is refused what was wrong with it.
fn name(outcome: Result<(), CallError>) -> String {
    match outcome {
        Ok(()) => "accepted".into(),
        Err(CallError::Trap { .. }) => "trap".into(),
        Err(CallError::Timeout { limit, .. }) => format!("timeout ({limit})"),
        Err(CallError::MemoryLimit { .. }) => "memory limit".into(),
        Err(CallError::OverLimit { limit, detail, .. }) => format!("{limit}: {detail}"),
        Err(CallError::Denied { capability, .. }) => format!("denied ({capability})"),
        Err(CallError::Failed { failure, .. }) => {
            format!("failure ({}): {}", failure.code, failure.message)
        }
        Err(CallError::BadOutput { what, .. }) => format!("refused: {what}"),
        Err(error) => format!("unexpected: {error}"),
    }
}

async fn read_all(yard: &Yard, behaviour: &str) -> Result<(), CallError> {
    let config = json!({ "behaviour": behaviour });
    let mut connector = yard.plugin.connector(&yard.context(), &config).await?;
    connector.schema().await?;
    let splits = connector.partitions().await?;
    let Some(split) = splits.into_iter().next() else {
        return Ok(());
    };
    connector.scan(&ScanRequest::all(split)).await?;
    for _ in 0..ENOUGH_CHUNKS {
        if connector.next().await?.is_none() {
            break;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connectors() {
    let yard = Yard::new("hostile-connector", Role::Connector).await;
    let mut table = String::new();
    for behaviour in [
        "fail",
        "spin",
        "spin-in-open",
        "memory",
        "trap",
        "panic",
        "stack",
        "short-column",
        "unequal-columns",
        "short-validity",
        "falling-offsets",
        "negative-offsets",
        "offsets-past-the-end",
        "not-utf8",
        "cut-character",
        "wrong-kind",
        "wrong-schema",
        "null-in-required",
        "flood-log",
        "long-log",
        "many-rejects",
        "long-reject",
        "claim-more-rows",
        "claim-fewer-rows",
        "reject-row-zero",
        "endless",
        "endless-nothing",
        "hoard-batches",
        "wide-schema",
        "twin-columns",
        "many-splits",
        "twin-splits",
    ] {
        let outcome = name(read_all(&yard, behaviour).await);
        writeln!(table, "{behaviour:<22} {outcome}").expect("a line");
        assert_eq!(
            name(read_all(&yard, "behave").await),
            "accepted",
            "after {behaviour}"
        );
    }
    assert_eq!(yard.sandbox.live_instances(), 0, "every instance is gone");
    insta::assert_snapshot!("connectors", table);
}

fn batch() -> RecordBatch {
    let schema = Schema::new(vec![ArrowField::new("number", DataType::Int64, true)]);
    let numbers = Int64Array::from_iter((0..10).map(|row| (row != 4).then_some(row)));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(numbers)]).expect("a batch")
}

async fn check_all(yard: &Yard, behaviour: &str) -> Result<(), CallError> {
    let batch = batch();
    let config = json!({ "behaviour": behaviour });
    let mut validator = yard
        .plugin
        .validator(&yard.context(), &config, &batch.schema())
        .await?;
    validator.check(&batch).await?;
    validator.finish().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn validators() {
    let yard = Yard::new("hostile-validator", Role::Validator).await;
    let mut table = String::new();
    for behaviour in [
        "fail",
        "spin",
        "spin-in-finish",
        "memory",
        "trap",
        "stack",
        "flood-log",
        "row-past-the-end",
        "falling-rows",
        "twin-rows",
        "many-rows",
        "unknown-rule",
        "unknown-column",
        "many-findings",
        "long-message",
        "mostly-not-a-number",
        "mostly-above-one",
        "twin-rules",
        "many-rules",
        "pass-anyway",
        "claim-rows",
        "no-verdict",
        "column-past-the-end",
        "read-forever",
    ] {
        let outcome = name(check_all(&yard, behaviour).await);
        writeln!(table, "{behaviour:<22} {outcome}").expect("a line");
        assert_eq!(
            name(check_all(&yard, "behave").await),
            "accepted",
            "after {behaviour}"
        );
    }
    assert_eq!(yard.sandbox.live_instances(), 0, "every instance is gone");
    insta::assert_snapshot!("validators", table);
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

async fn train_and_predict(yard: &Yard, behaviour: &str) -> Result<(), CallError> {
    let rows = examples();
    let input = TrainInput {
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
        hyperparameters: json!({ "behaviour": behaviour }),
        seed: 1,
        training: vec![rows.clone()],
        validation: None,
        progress: None,
        checkpoints: None,
        precision: Precision::F32Strict,
    };
    let trained = yard
        .plugin
        .adapter(&yard.context())
        .await?
        .train(input)
        .await?;
    let features = rows.project(&[0]).expect("the features");
    let mut adapter = yard.plugin.adapter(&yard.context()).await?;
    adapter.predict(&trained.model, &features).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters() {
    let yard = Yard::new("hostile-adapter", Role::Adapter).await;
    let mut table = String::new();
    for behaviour in [
        "spin",
        "memory",
        "trap",
        "train-forever",
        "giant-graph",
        "giant-parameter",
        "overflowing-shape",
        "giant-symbol",
        "forward-reference",
        "missing-node",
        "wrong-shapes",
        "wrong-type",
        "nan-literal",
        "no-loss",
        "not-bound",
        "unknown-column",
        "no-batch-rows",
        "nan-rate",
        "no-accumulation",
        "set-nan",
        "set-other-shape",
        "set-nobody",
        "import-garbage",
        "import-long",
        "hoard-snapshots",
        "round-trip",
        "set-in-predict",
        "hoard-sessions",
        "hoard-tensors",
        "giant-forest",
        "grow-forever",
        "hoard-forests",
        "nan-forest",
        "forest-unknown-column",
        "forest-without-labels",
        "forest-of-nothing",
        "forest-of-three-labels",
        "standing-windows",
        "giant-windows",
        "giant-repetition",
        "train-on-forever",
        "train-on-tokens-outside",
        "giant-prompt",
        "prompt-outside",
        "endless-generation",
        "long-generation",
        "many-prompts",
        "not-generating",
        "looks-ahead",
        "long-state",
        "spin-in-predict",
        "trap-in-predict",
        "predict-fewer-rows",
        "predict-more-rows",
        "predict-other-columns",
        "predict-nan",
        "predict-more-than-one",
        "unknown-entry",
    ] {
        let outcome =
            tokio::time::timeout(Duration::from_secs(30), train_and_predict(&yard, behaviour))
                .await
                .map_or_else(|_| "unexpected: it goes on for ever".into(), name);
        writeln!(table, "{behaviour:<22} {outcome}").expect("a line");
        assert_eq!(
            name(train_and_predict(&yard, "behave").await),
            "accepted",
            "after {behaviour}"
        );
    }
    assert_eq!(yard.sandbox.live_instances(), 0, "every instance is gone");
    insta::assert_snapshot!("adapters", table);
}
