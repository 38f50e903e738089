//! The adapter's whole life with the real one: describe, declare, train, keep, read back, predict,
//! and the budgets that end it.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use sandcast_audit::{AuditLog, Event};
use sandcast_sandbox::{
    Adapter, ByteSize, CallContext, CallError, Checkpointing, ComputeGrant, Declaration,
    DeviceChoice, Field, Grants, Kind, Model, ModelError, Plugin, Precision, Role, Sandbox,
    SandboxConfig, Task, TaskKind, TimeSpan, TrainInput,
};
use serde_json::{Value, json};

use crate::component;

struct Bench {
    sandbox: Sandbox,
    audit: AuditLog,
}

impl Bench {
    fn new() -> Self {
        Self::keeping_in(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"))
    }

    /// One that keeps compiled plugins and trainings under way in a folder.
    fn keeping_in(folder: &Path) -> Self {
        let audit = AuditLog::in_memory();
        let config = SandboxConfig {
            cache_dir: Some(folder.to_owned()),
            device: DeviceChoice::Cpu.into(),
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(config, audit.clone()).expect("a sandbox");
        Self { sandbox, audit }
    }

    async fn plugin(&self, compute: ComputeGrant) -> Plugin {
        let grants = Grants {
            compute: Some(compute),
            ..Grants::default()
        };
        self.sandbox
            .load("mlp", &component("adapter-mlp"), Role::Adapter, grants)
            .await
            .expect("loads")
    }

    async fn adapter(&self, compute: ComputeGrant) -> Adapter {
        let context = CallContext::new(None, "train");
        self.plugin(compute)
            .await
            .adapter(&context)
            .await
            .expect("an instance")
    }
}

/// Two numbers and a category; the answer is `yes` where their weighted sum is above a line.
fn rows(count: usize) -> RecordBatch {
    let noise = |row: usize, salt: u64| {
        let hash = (row as u64 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 40) as f64 / (1_u64 << 24) as f64
    };
    let a: Vec<f64> = (0..count).map(|row| noise(row, 1)).collect();
    let b: Vec<f64> = (0..count).map(|row| noise(row, 1 << 20) * 10.0).collect();
    let kind: Vec<&str> = (0..count)
        .map(|row| ["red", "green", "blue"][row % 3])
        .collect();
    let answer: Vec<&str> = (0..count)
        .map(|row| {
            let bonus = if kind[row] == "red" { 0.4 } else { 0.0 };
            if a[row] + b[row] / 10.0 + bonus > 1.0 {
                "yes"
            } else {
                "no"
            }
        })
        .collect();
    RecordBatch::try_from_iter([
        ("a", Arc::new(Float64Array::from(a)) as ArrayRef),
        ("b", Arc::new(Float64Array::from(b))),
        ("kind", Arc::new(StringArray::from(kind))),
        ("answer", Arc::new(StringArray::from(answer))),
    ])
    .expect("a batch")
}

fn task() -> Task {
    let field = |name: &str, kind| Field {
        name: name.into(),
        kind,
        nullable: false,
    };
    Task {
        kind: TaskKind::BinaryClassification,
        features: vec![
            field("a", Kind::Float64),
            field("b", Kind::Float64),
            field("kind", Kind::Utf8),
        ],
        target: Some("answer".into()),
        classes: vec!["no".into(), "yes".into()],
        weight: None,
    }
}

fn input(hyperparameters: Value) -> TrainInput {
    let all = rows(3000);
    TrainInput {
        task: task(),
        hyperparameters,
        seed: 7,
        training: vec![all.slice(0, 1000), all.slice(1000, 1400)],
        validation: Some(vec![all.slice(2400, 600)]),
        progress: None,
        checkpoints: None,
        precision: Precision::F32Strict,
    }
}

fn features(rows: &RecordBatch) -> RecordBatch {
    rows.project(&[0, 1, 2]).expect("the features")
}

/// The share of rows whose likelier class is the right one.
fn accuracy(predicted: &RecordBatch, rows: &RecordBatch) -> f64 {
    let yes = predicted.column(1).as_primitive::<Float64Type>();
    let answer = rows
        .column_by_name("answer")
        .expect("answers")
        .as_string::<i32>();
    let right = (0..rows.num_rows())
        .filter(|row| (yes.value(*row) > 0.5) == (answer.value(*row) == "yes"))
        .count();
    right as f64 / rows.num_rows() as f64
}

#[tokio::test]
async fn a_model_is_trained_kept_read_back_and_asked() {
    let bench = Bench::new();
    let mut adapter = bench.adapter(ComputeGrant::default()).await;
    let described = adapter.describe().await.expect("described");
    assert!(described.tasks.contains(&TaskKind::BinaryClassification));
    assert!(described.hyperparameters.is_object());

    let declared = adapter
        .declare(&task(), &[0, 0, 3], &json!({}))
        .await
        .expect("declared");
    let Declaration::Program { graph, costs } = declared else {
        panic!("not a program: {declared:?}");
    };
    assert!(graph.loss.is_some());
    assert!(
        costs
            .iter()
            .any(|cost| cost.entry == "loss" && cost.flops > 0),
        "{costs:?}"
    );

    let told = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&told);
    let progress = Arc::new(move |now: sandcast_sandbox::TrainProgress| {
        assert!(now.step <= now.steps);
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let trained = adapter
        .train(TrainInput {
            progress: Some(progress),
            ..input(json!({ "epochs": 20 }))
        })
        .await
        .expect("trained");
    assert!(told.load(Ordering::Relaxed) > 0, "progress is told");
    let report = trained.report.expect("a report");
    assert!(!report.epochs.is_empty() && report.rows > 0);
    assert!(
        report
            .epochs
            .iter()
            .all(|epoch| epoch.validation_loss.is_some())
    );

    let fresh = rows(4000).slice(3000, 1000);
    let predicted = adapter
        .predict(&trained.model, &features(&fresh))
        .await
        .expect("predicted");
    let share = accuracy(&predicted, &fresh);
    assert!(share > 0.9, "{share}");

    // The file, in another instance, gives the same answers to the bit.
    let bytes = trained.model.to_bytes();
    let read = Arc::new(Model::from_bytes(&bytes, &bench.sandbox).expect("read back"));
    assert_eq!(read.digest(), trained.model.digest());
    assert_eq!(read.to_bytes(), bytes);
    assert_eq!(read.task(), &task());
    let mut other = bench.adapter(ComputeGrant::default()).await;
    let again = other
        .predict(&read, &features(&fresh))
        .await
        .expect("predicted again");
    assert_eq!(again, predicted);
    // A model does not change by being asked.
    assert_eq!(read.to_bytes(), bytes);
}

#[tokio::test]
async fn the_same_seed_gives_the_same_model() {
    let bench = Bench::new();
    let mut digests = Vec::new();
    for seed in [7, 7, 8] {
        let mut adapter = bench.adapter(ComputeGrant::default()).await;
        let input = TrainInput {
            seed,
            ..input(json!({ "epochs": 2 }))
        };
        digests.push(adapter.train(input).await.expect("trained").model.digest());
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
}

#[tokio::test]
async fn a_model_is_shared_by_instances_at_one_time() {
    let bench = Bench::new();
    let plugin = bench.plugin(ComputeGrant::default()).await.unrecorded();
    let context = CallContext::new(None, "predict");
    let mut adapter = plugin.adapter(&context).await.expect("an instance");
    let model = adapter
        .train(input(json!({ "epochs": 2 })))
        .await
        .expect("trained")
        .model;
    let asked = features(&rows(50));
    let expected = adapter.predict(&model, &asked).await.expect("predicted");
    let all = (0..8).map(|_| {
        let (plugin, model, asked) = (plugin.clone(), Arc::clone(&model), asked.clone());
        tokio::spawn(async move {
            let mut adapter = plugin.adapter(&CallContext::new(None, "predict")).await?;
            adapter.predict(&model, &asked).await
        })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(one.await.expect("no panic").expect("predicted"), expected);
    }
}

#[tokio::test]
async fn training_over_its_time_is_stopped_and_the_line_is_named() {
    let bench = Bench::new();
    let mut adapter = bench
        .adapter(ComputeGrant {
            time: TimeSpan::from_millis(300),
            ..ComputeGrant::default()
        })
        .await;
    let started = Instant::now();
    let error = adapter
        .train(TrainInput {
            ..input(json!({ "epochs": 10_000, "patience": null }))
        })
        .await
        .map(|_| ())
        .expect_err("it cannot be done in time");
    assert!(started.elapsed() < Duration::from_secs(60));
    let message = error.to_string();
    assert!(
        message.contains("`mlp`") && message.contains("`train`"),
        "{message}"
    );
    assert!(
        message.contains("plugins.mlp.grants.compute.time"),
        "{message}"
    );
    assert!(
        bench
            .audit
            .entries()
            .expect("a log")
            .iter()
            .any(|entry| matches!(
                &entry.event,
                Event::Denied { grant_with, .. } if grant_with == "plugins.mlp.grants.compute.time"
            )),
        "it is on record"
    );
}

#[tokio::test]
async fn memory_is_charged_before_it_is_used() {
    let bench = Bench::new();
    let memory = ByteSize::from_kib(8);
    let mut adapter = bench
        .adapter(ComputeGrant {
            memory,
            ..ComputeGrant::default()
        })
        .await;
    let error = adapter
        .train(input(json!({ "epochs": 1 })))
        .await
        .map(|_| ())
        .expect_err("8 KiB are too few");
    assert!(
        matches!(error, CallError::Failed { .. } | CallError::Denied { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_training_that_was_cut_off_goes_on_to_the_same_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let adapter = async |folder: &Path| {
        Bench::keeping_in(folder)
            .adapter(ComputeGrant::default())
            .await
    };
    let hyperparameters = json!({ "epochs": 60, "patience": null });
    let kept = |resume: bool| {
        Some(Checkpointing {
            every: Duration::ZERO,
            resume,
        })
    };
    let mut whole = adapter(folder.path()).await;
    let whole = whole
        .train(input(hyperparameters.clone()))
        .await
        .expect("trained");

    let seen = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&seen);
    let mut cut = adapter(folder.path()).await;
    let training = cut.train(TrainInput {
        progress: Some(Arc::new(move |now: sandcast_sandbox::TrainProgress| {
            counted.store(now.epoch, Ordering::Relaxed);
        })),
        checkpoints: kept(true),
        ..input(hyperparameters.clone())
    });
    let watched = async {
        while seen.load(Ordering::Relaxed) < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = training => panic!("it was to be cut off"),
        () = watched => {}
    }
    drop(cut);
    let checkpoints = || {
        let entries = fs::read_dir(folder.path()).expect("the folder").flatten();
        let names = entries.map(|entry| entry.path());
        names
            .filter(|path| path.extension().is_some_and(|ending| ending == "training"))
            .collect::<Vec<_>>()
    };
    // The thread that trained may still be on its last step.
    while checkpoints().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    let mut again = adapter(folder.path()).await;
    let resumed = again
        .train(TrainInput {
            checkpoints: kept(true),
            ..input(hyperparameters.clone())
        })
        .await
        .expect("trained");
    let report = resumed.report.as_ref().expect("a report");
    assert!(
        report.resumed_after.is_some_and(|steps| steps > 0),
        "{report:?}"
    );
    assert_eq!(resumed.model.to_bytes(), whole.model.to_bytes());
    assert_eq!(checkpoints(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn keeping_a_training_never_makes_it_fail() {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = Bench::keeping_in(folder.path());
    let mut outcomes = Vec::new();
    for kib in (0..14).map(|step| (256 + 128 * (step % 2)) << (step / 2)) {
        let mut trains = Vec::new();
        for checkpoints in [
            None,
            Some(Checkpointing {
                every: Duration::ZERO,
                resume: true,
            }),
        ] {
            let memory = ByteSize::from_kib(kib);
            let mut adapter = bench
                .adapter(ComputeGrant {
                    memory,
                    ..ComputeGrant::default()
                })
                .await;
            let input = TrainInput {
                checkpoints,
                ..input(json!({ "epochs": 2 }))
            };
            trains.push(adapter.train(input).await.is_ok());
        }
        assert_eq!(trains[0], trains[1], "in {kib} KiB");
        outcomes.push(trains[0]);
    }
    assert!(
        outcomes.contains(&true) && outcomes.contains(&false),
        "{outcomes:?}"
    );
}

#[tokio::test]
async fn training_that_nobody_waits_for_stops() {
    let bench = Bench::new();
    let mut adapter = bench.adapter(ComputeGrant::default()).await;
    let told = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&told);
    let input = TrainInput {
        progress: Some(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        })),
        ..input(json!({ "epochs": 10_000, "patience": null }))
    };
    let waited = tokio::time::timeout(Duration::from_secs(2), adapter.train(input)).await;
    assert!(waited.is_err(), "it goes on for much longer");
    drop(adapter);
    // What is told no more does not run any more.
    let quiet = (0..100).try_for_each(|_| {
        let before = told.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        if told.load(Ordering::Relaxed) == before {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(quiet.is_break(), "training went on");
}

#[tokio::test]
async fn without_the_grant_an_adapter_is_not_loaded() {
    let bench = Bench::new();
    let error = bench
        .sandbox
        .load(
            "mlp",
            &component("adapter-mlp"),
            Role::Adapter,
            Grants::default(),
        )
        .await
        .map(|_| ())
        .expect_err("it needs compute");
    assert!(
        error.to_string().contains("plugins.mlp.grants.compute"),
        "{error}"
    );
}

#[tokio::test]
async fn a_model_file_is_checked_in_every_part() {
    let bench = Bench::new();
    let mut adapter = bench.adapter(ComputeGrant::default()).await;
    let model = adapter
        .train(input(json!({ "epochs": 1 })))
        .await
        .expect("trained")
        .model;
    let good = model.to_bytes();
    let read = |bytes: &[u8]| Model::from_bytes(bytes, &bench.sandbox);
    assert!(read(&good).is_ok());
    assert!(matches!(
        read(b"not a model"),
        Err(ModelError::Format { .. })
    ));
    for length in (0..good.len()).step_by(good.len() / 97 + 1) {
        assert!(
            read(&good[..length]).is_err(),
            "cut to {length} of {}",
            good.len()
        );
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(read(&longer), Err(ModelError::Format { .. })));
    let header = good.len() - model_payload(&good);
    for place in [header, header + (good.len() - header) / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[place] ^= 1;
        assert!(read(&bad).is_err(), "byte {place} was changed");
    }
}

/// Bytes after the header.
fn model_payload(file: &[u8]) -> usize {
    let start = b"sandcast-model\n".len();
    let length: [u8; 8] = file[start..start + 8].try_into().expect("8 bytes");
    file.len() - start - 8 - u64::from_le_bytes(length) as usize
}
