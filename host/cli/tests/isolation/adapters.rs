//! An adapter in a process of its own asks the host for all it needs, and is the same adapter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use sandcast_audit::{AuditLog, Event};
use sandcast_sandbox::{
    ByteSize, CallError, Ceiling, ComputeGrant, Declaration, Field, GenerationOptions, Grants,
    Isolation, Kind, Limits, Plugin, Precision, Recording, RecordingGrant, Recordings, Role,
    Sandbox, Task, TaskKind, TimeSpan, TrainInput, replay,
};
use serde_json::{Value, json};

use crate::apart::{ALONE, children, component, context, processes, program, sandbox, told};

fn granted(isolation: Isolation) -> Grants {
    Grants {
        isolation,
        compute: Some(ComputeGrant {
            memory: ByteSize::from_mib(64),
            time: TimeSpan::from_millis(3_000),
            programs: 64,
            handles: 1_000,
            ..ComputeGrant::default()
        }),
        limits: Limits {
            memory: ByteSize::from_mib(256),
            output_bytes: ByteSize::from_mib(16),
            call_timeout: TimeSpan::from_millis(2_000),
            ..Limits::default()
        },
        ..Grants::default()
    }
}

/// Enough of everything for a real adapter on a busy machine.
fn generous(isolation: Isolation) -> Grants {
    Grants {
        compute: Some(ComputeGrant::default()),
        ..patient(isolation)
    }
}

/// As little room as others, and time.
fn patient(isolation: Isolation) -> Grants {
    let mut grants = granted(isolation);
    grants.limits.call_timeout = TimeSpan::from_secs(60);
    if let Some(compute) = &mut grants.compute {
        compute.time = TimeSpan::from_secs(60);
    }
    grants
}

async fn load(sandbox: &Sandbox, guest: &str, grants: Grants) -> Plugin {
    let loaded = sandbox
        .load("guest", &component(guest), Role::Adapter, grants)
        .await;
    loaded.expect("it loads")
}

fn field(name: &str, kind: Kind) -> Field {
    Field {
        name: name.into(),
        kind,
        nullable: true,
    }
}

fn noise(row: usize, salt: u64) -> f64 {
    let hash = (row as u64 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> 40) as f64 / (1_u64 << 24) as f64
}

/// A number, one that is sometimes missing, a category, and the answer.
fn rows(count: usize) -> RecordBatch {
    let all = || 0..count;
    let a: Vec<f64> = all().map(|row| noise(row, 1)).collect();
    let b: Vec<Option<i64>> = all()
        .map(|row| (row % 7 != 0).then(|| (noise(row, 1 << 20) * 100.0) as i64))
        .collect();
    let kind: Vec<Option<&str>> = all()
        .map(|row| [Some("red"), None, Some("blue")][row % 3])
        .collect();
    let answer: Vec<&str> = all()
        .map(|row| if a[row] > 0.4 { "yes" } else { "no" })
        .collect();
    RecordBatch::try_from_iter_with_nullable([
        ("a", Arc::new(Float64Array::from(a)) as ArrayRef, true),
        ("b", Arc::new(Int64Array::from(b)), true),
        ("kind", Arc::new(StringArray::from(kind)), true),
        ("answer", Arc::new(StringArray::from(answer)), true),
    ])
    .expect("rows")
}

fn task() -> Task {
    Task {
        kind: TaskKind::BinaryClassification,
        features: vec![
            field("a", Kind::Float64),
            field("b", Kind::Int64),
            field("kind", Kind::Utf8),
        ],
        target: Some("answer".into()),
        classes: vec!["no".into(), "yes".into()],
        weight: None,
    }
}

fn input(task: Task, hyperparameters: Value, training: Vec<RecordBatch>) -> TrainInput {
    TrainInput {
        task,
        hyperparameters,
        seed: 7,
        training,
        validation: None,
        progress: None,
        checkpoints: None,
        precision: Precision::F32Strict,
    }
}

fn learning(hyperparameters: Value) -> TrainInput {
    let all = rows(1500);
    TrainInput {
        validation: Some(vec![all.slice(1200, 300)]),
        ..input(
            task(),
            hyperparameters,
            vec![all.slice(0, 700), all.slice(700, 500)],
        )
    }
}

/// The life of an adapter, in words: what it declares, the digest of its weights, and what it predicts.
async fn life(plugin: &Plugin, hyperparameters: Value) -> Vec<String> {
    let mut adapter = plugin.adapter(&context()).await.expect("an instance");
    let mut said = vec![format!("{:?}", adapter.describe().await.expect("said"))];
    let declared = adapter
        .declare(&task(), &[0, 0, 2], &hyperparameters)
        .await
        .expect("declared");
    said.push(match declared {
        Declaration::Program { graph, costs } => format!("{graph:?} {costs:?}"),
        Declaration::Forest(plan) => format!("{plan:?}"),
    });
    let told = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&told);
    let trained = adapter
        .train(TrainInput {
            progress: Some(Arc::new(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
            })),
            ..learning(hyperparameters)
        })
        .await
        .expect("trained");
    assert!(told.load(Ordering::Relaxed) > 0, "progress is told");
    let report = trained.report.expect("a report");
    said.push(format!(
        "{} of {} epochs, best {}",
        trained.model.digest(),
        report.epochs.len(),
        report.best_epoch
    ));
    let usage = adapter.finish().expect("ended");
    said.push(format!(
        "{:?} {} {}",
        usage.host_calls, usage.bytes_in, usage.bytes_out
    ));
    // Another instance, in the same process or another.
    let mut adapter = plugin.adapter(&context()).await.expect("an instance");
    for count in [1, 50, 5_000] {
        let asked = rows(count).project(&[0, 1, 2]).expect("features");
        let predicted = adapter.predict(&trained.model, &asked).await;
        said.push(format!("{:?}", predicted.expect("predicted")));
    }
    let usage = adapter.finish().expect("ended");
    assert!(usage.peak_memory_bytes > 0);
    said.push(format!(
        "{:?} {} {}",
        usage.host_calls, usage.bytes_in, usage.bytes_out
    ));
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_in_a_process_trains_and_predicts_to_the_bit() {
    let _alone = ALONE.lock().await;
    for (guest, hyperparameters) in [
        ("plugins/adapter-mlp", json!({ "epochs": 3 })),
        ("plugins/adapter-gbdt", json!({ "n_estimators": 8 })),
    ] {
        let (mut lives, mut logs) = (Vec::new(), Vec::new());
        for isolation in [Isolation::Engine, Isolation::Process] {
            let audit = AuditLog::in_memory();
            let sandbox = sandbox(&audit, |_| {});
            let plugin = load(&sandbox, guest, generous(isolation)).await;
            lives.push(life(&plugin, hyperparameters.clone()).await);
            let expected = usize::from(isolation == Isolation::Process);
            assert_eq!(children(), expected, "one process served both instances");
            let entries = audit.entries().expect("a log in memory").into_iter();
            let computed = entries.filter_map(|entry| match entry.event {
                Event::ComputeUsed {
                    programs,
                    peak_bytes,
                    ..
                } => Some(format!("{programs} programs, {peak_bytes} bytes")),
                _ => None,
            });
            let computed: Vec<_> = computed.collect();
            assert_eq!(computed.len(), 2);
            logs.push((told(&audit), computed));
        }
        assert_eq!(lives[0], lives[1], "{guest}");
        assert_eq!(logs[0], logs[1], "{guest}");
        assert_eq!(children(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_in_a_process_writes_the_same_text() {
    let _alone = ALONE.lock().await;
    let lines: Vec<String> = (0..60)
        .map(|at| ["one two three.", "two three four.", "three four five."][at % 3].to_owned())
        .collect();
    let texts = RecordBatch::try_from_iter_with_nullable([(
        "text",
        Arc::new(StringArray::from(lines)) as ArrayRef,
        true,
    )])
    .expect("rows");
    let task = Task {
        kind: TaskKind::TextGeneration,
        features: vec![field("text", Kind::Utf8)],
        target: None,
        classes: Vec::new(),
        weight: None,
    };
    let hyperparameters = json!({
        "tokenizer": "characters", "layers": 1, "width": 16, "heads": 2, "context": 16,
        "batch_rows": 4, "steps": 10, "validation_interval": 5, "warmup_steps": 2,
    });
    let mut said = Vec::new();
    for isolation in [Isolation::Engine, Isolation::Process] {
        let audit = AuditLog::in_memory();
        let sandbox = sandbox(&audit, |_| {});
        let plugin = load(&sandbox, "plugins/adapter-gpt", generous(isolation)).await;
        let mut adapter = plugin.adapter(&context()).await.expect("an instance");
        let asked = input(
            task.clone(),
            hyperparameters.clone(),
            vec![texts.slice(0, 40)],
        );
        let asked = TrainInput {
            validation: Some(vec![texts.slice(40, 20)]),
            ..asked
        };
        let model = adapter.train(asked).await.expect("trained").model;
        let pieces = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&pieces);
        let options = GenerationOptions {
            maximum_tokens: 12,
            seed: 3,
            ..GenerationOptions::default()
        };
        let written = adapter
            .generate(
                &model,
                &texts.slice(0, 2),
                &options,
                Some(Arc::new(move |_, piece: &str| {
                    counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
                })),
            )
            .await
            .expect("written");
        let usage = adapter.finish().expect("ended");
        let watched = pieces.load(Ordering::Relaxed);
        said.push(format!(
            "{} {written:?} {watched} {:?}",
            model.digest(),
            usage.host_calls
        ));
    }
    assert_eq!(said[0], said[1]);
}

/// What comes of a behaviour, in words.
async fn misbehaved(plugin: &Plugin, behaviour: &str) -> String {
    let x = Float64Array::from_iter_values((0..256).map(f64::from));
    let y = Float64Array::from_iter_values((0..256).map(|row| 2.0 * f64::from(row)));
    let examples = RecordBatch::try_from_iter_with_nullable([
        ("x", Arc::new(x) as ArrayRef, true),
        ("y", Arc::new(y), true),
    ])
    .expect("rows");
    let task = Task {
        kind: TaskKind::Regression,
        features: vec![field("x", Kind::Float64)],
        target: Some("y".into()),
        classes: Vec::new(),
        weight: None,
    };
    let asked = input(
        task,
        json!({ "behaviour": behaviour }),
        vec![examples.clone()],
    );
    let came = async {
        let trained = plugin.adapter(&context()).await?.train(asked).await?;
        let mut adapter = plugin.adapter(&context()).await?;
        let features = examples.project(&[0]).expect("features");
        let predicted = adapter.predict(&trained.model, &features).await?;
        Ok::<_, CallError>(format!("{predicted:?}"))
    };
    came.await.unwrap_or_else(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_adapter_in_a_process_says_what_it_says_in_the_engine() {
    let _alone = ALONE.lock().await;
    let (mut said, mut logs) = (Vec::new(), Vec::new());
    for isolation in [Isolation::Engine, Isolation::Process] {
        let audit = AuditLog::in_memory();
        let sandbox = sandbox(&audit, |_| {});
        let guest = "tests/guests/hostile-adapter";
        let hasty = load(&sandbox, guest, granted(isolation)).await;
        let patient = load(&sandbox, guest, patient(isolation)).await;
        let mut outcomes = Vec::new();
        for behaviour in [
            "behave",
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
            "hoard-forests",
            "nan-forest",
            "forest-unknown-column",
            "forest-without-labels",
            "forest-of-nothing",
            "forest-of-three-labels",
            "standing-windows",
            "giant-windows",
            "giant-repetition",
            "train-on-tokens-outside",
            "giant-prompt",
            "prompt-outside",
            "endless-generation",
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
            "compile-in-predict",
        ] {
            // Only those that never end by themselves are to be ended soon.
            let plugin = match behaviour {
                "spin" | "train-forever" | "spin-in-predict" => &hasty,
                _ => &patient,
            };
            let came = misbehaved(plugin, behaviour).await;
            outcomes.push(format!("{behaviour}: {came}"));
            assert!(children() <= 8, "processes that wait for work are few");
        }
        assert_eq!(sandbox.live_instances(), 0);
        said.push(outcomes);
        logs.push(told(&audit));
        drop((hasty, patient, sandbox));
        assert_eq!(children(), 0, "they end with their plugin");
    }
    for (engine, process) in said[0].iter().zip(&said[1]) {
        assert_eq!(engine, process);
    }
    assert_eq!(logs[0], logs[1]);
    assert!(
        logs[0]
            .iter()
            .any(|line| line.starts_with("denied compute"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_in_a_process_is_recorded_and_replayed_in_the_engine() {
    let _alone = ALONE.lock().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut kept = Vec::new();
    for isolation in [Isolation::Engine, Isolation::Process] {
        let recordings = Recordings::at(folder.path().join(format!("{isolation:?}")));
        let audit = AuditLog::in_memory();
        let at = recordings.clone();
        let sandbox = sandbox(&audit, |config| config.recordings = Some(at));
        let grants = Grants {
            recording: Some(RecordingGrant::default()),
            ..generous(isolation)
        };
        let plugin = load(&sandbox, "plugins/adapter-gbdt", grants).await;
        let mut adapter = plugin.adapter(&context()).await.expect("an instance");
        let trained = adapter.train(learning(json!({ "n_estimators": 4 }))).await;
        let model = trained.expect("trained").model;
        let asked = rows(20).project(&[0, 1, 2]).expect("features");
        adapter.predict(&model, &asked).await.expect("predicted");
        let usage = adapter.finish().expect("ended");
        let digest = usage.recording.expect("a recording");
        let recording = Recording::read(&recordings, &digest).expect("it is there");
        assert_eq!(recording.grants.isolation, isolation);
        let replayed = replay(&sandbox, &recordings, &recording)
            .await
            .expect("replayed");
        assert!(replayed.is_same(), "{replayed:?}");
        assert_eq!(replayed.calls.len(), 3);
        kept.push(recording.host_calls());
    }
    assert_eq!(kept[0], kept[1]);
    assert!(kept[0] > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_while_it_trains_ends_that_call_and_nothing_else() {
    let _alone = ALONE.lock().await;
    let audit = AuditLog::in_memory();
    let sandbox = sandbox(&audit, |_| {});
    let guest = "tests/guests/hostile-adapter";
    let plugin = load(&sandbox, guest, granted(Isolation::Process)).await;
    let training = plugin.clone();
    let begun = Instant::now();
    // It asks the host to train without end, so the host works for it when it is killed; and one that
    // does not ask for anything.
    for behaviour in ["train-forever", "spin"] {
        let plugin = training.clone();
        let call = tokio::spawn(async move { misbehaved(&plugin, behaviour).await });
        while processes().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
        for process in processes() {
            let killed = std::process::Command::new("kill")
                .args(["-9", &process])
                .status();
            assert!(killed.expect("kill").success());
        }
        let came = call.await.expect("it ended");
        assert!(
            came.contains("the process that it runs in is gone"),
            "{came}"
        );
        assert_eq!(sandbox.live_instances(), 0);
        assert_eq!(children(), 0);
    }
    assert!(begun.elapsed() < Duration::from_secs(30));
    let ends = told(&audit);
    assert!(
        ends.iter().all(|end| end.starts_with("trapped")),
        "{ends:?}"
    );
    assert_eq!(ends.len(), 2);
    let came = misbehaved(&plugin, "behave").await;
    assert!(came.contains("prediction"), "{came}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_takes_its_process_along() {
    let _alone = ALONE.lock().await;
    let audit = AuditLog::in_memory();
    let sandbox = sandbox(&audit, |_| {});
    let guest = "tests/guests/hostile-adapter";
    let plugin = load(&sandbox, guest, granted(Isolation::Process)).await;
    let given_up = tokio::time::timeout(
        Duration::from_millis(600),
        misbehaved(&plugin, "train-forever"),
    );
    given_up.await.expect_err("it goes on");
    assert_eq!(sandbox.live_instances(), 0);
    assert_eq!(children(), 0);
    assert!(told(&audit)[0].starts_with("cancelled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ceiling_that_demands_a_process_holds_adapters_too() {
    let _alone = ALONE.lock().await;
    let ceiling = json!({
        "version": 1,
        "plugins": { "*": { "isolation": "process", "compute": {} } },
    });
    let ceiling: Ceiling = serde_json::from_value(ceiling).expect("a ceiling");
    let audit = AuditLog::in_memory();
    let sandbox = sandbox(&audit, |config| {
        config.operator.ceiling = Some(ceiling);
        config.process = Some(program());
    });
    let bytes = component("plugins/adapter-gbdt");
    let with = |isolation| Grants {
        isolation,
        compute: Some(ComputeGrant::default()),
        ..Grants::default()
    };
    let refused = sandbox
        .load("guest", &bytes, Role::Adapter, with(Isolation::Engine))
        .await
        .map(|_| ());
    let refused = refused.expect_err("it demands a process").to_string();
    assert!(refused.contains("isolation"), "{refused}");
    let loaded = sandbox
        .load("guest", &bytes, Role::Adapter, with(Isolation::Process))
        .await;
    let mut adapter = loaded
        .expect("it loads")
        .adapter(&context())
        .await
        .expect("an instance");
    adapter.describe().await.expect("described");
    adapter.finish().expect("ended");
}
