//! Forests with the real adapter: describe, declare, train, keep, read back, predict, and the
//! budgets that end it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Float64Type;
use sandcast_audit::AuditLog;
use sandcast_sandbox::{
    Adapter, ByteSize, CallContext, CallError, ComputeGrant, Declaration, DeviceChoice,
    DeviceOptions, Field, Grants, Kind, Model, ModelError, Plugin, Precision, Role, Sandbox,
    SandboxConfig, Task, TaskKind, TimeSpan, TrainInput,
};
use serde_json::{Value, json};

use crate::component;

fn sandbox(threads: usize) -> Sandbox {
    let config = SandboxConfig {
        cache_dir: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")),
        device: DeviceOptions {
            threads: std::num::NonZeroUsize::new(threads),
            ..DeviceChoice::Cpu.into()
        },
        ..SandboxConfig::default()
    };
    Sandbox::new(config, AuditLog::in_memory()).expect("a sandbox")
}

async fn plugin(sandbox: &Sandbox, compute: ComputeGrant) -> Plugin {
    let grants = Grants {
        compute: Some(compute),
        ..Grants::default()
    };
    sandbox
        .load("gbdt", &component("adapter-gbdt"), Role::Adapter, grants)
        .await
        .expect("loads")
}

async fn adapter(sandbox: &Sandbox, compute: ComputeGrant) -> Adapter {
    plugin(sandbox, compute)
        .await
        .adapter(&CallContext::new(None, "train"))
        .await
        .expect("an instance")
}

fn noise(row: usize, salt: u64) -> f64 {
    let hash = (row as u64 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f64 / (1_u64 << 24) as f64
}

/// Two numbers, one of them sometimes missing, and a category; a class, a number to predict, and
/// weights.
fn rows(count: usize) -> RecordBatch {
    let a: Vec<f64> = (0..count).map(|row| noise(row, 1)).collect();
    let b: Vec<Option<i64>> = (0..count)
        .map(|row| (row % 7 != 0).then(|| (noise(row, 1 << 20) * 100.0) as i64))
        .collect();
    let kind: Vec<Option<&str>> = (0..count)
        .map(|row| [Some("red"), Some("green"), None, Some("blue")][row % 4])
        .collect();
    let amount: Vec<f64> = (0..count)
        .map(|row| {
            let bonus = if kind[row] == Some("red") { 4.0 } else { 0.0 };
            10.0 * a[row] + b[row].map_or(5.0, |b| b as f64 / 10.0) + bonus
        })
        .collect();
    let class: Vec<&str> = amount
        .iter()
        .map(|amount| match amount {
            0.0..8.0 => "low",
            8.0..12.0 => "middle",
            _ => "high",
        })
        .collect();
    let answer: Vec<&str> = amount
        .iter()
        .map(|amount| if *amount > 11.0 { "yes" } else { "no" })
        .collect();
    let weight: Vec<f64> = (0..count).map(|row| 1.0 + (row % 3) as f64).collect();
    RecordBatch::try_from_iter([
        ("a", Arc::new(Float64Array::from(a)) as ArrayRef),
        ("b", Arc::new(Int64Array::from(b))),
        ("kind", Arc::new(StringArray::from(kind))),
        ("answer", Arc::new(StringArray::from(answer))),
        ("class", Arc::new(StringArray::from(class))),
        ("amount", Arc::new(Float64Array::from(amount))),
        ("weight", Arc::new(Float64Array::from(weight))),
    ])
    .expect("a batch")
}

fn task(kind: TaskKind) -> Task {
    let field = |name: &str, kind| Field {
        name: name.into(),
        kind,
        nullable: true,
    };
    let (target, classes): (&str, &[&str]) = match kind {
        TaskKind::Regression => ("amount", &[]),
        TaskKind::MulticlassClassification => ("class", &["low", "middle", "high"]),
        _ => ("answer", &["no", "yes"]),
    };
    Task {
        kind,
        features: vec![
            field("a", Kind::Float64),
            field("b", Kind::Int64),
            field("kind", Kind::Utf8),
        ],
        target: Some(target.into()),
        classes: classes.iter().map(|class| (*class).to_owned()).collect(),
        weight: None,
    }
}

fn input(task: Task, hyperparameters: Value) -> TrainInput {
    let all = rows(3000);
    TrainInput {
        task,
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

/// The share of rows whose likeliest class is the right one.
fn accuracy(predicted: &RecordBatch, rows: &RecordBatch, task: &Task) -> f64 {
    let target = task.target.as_deref().expect("a target");
    let truth = rows
        .column_by_name(target)
        .expect("truth")
        .as_string::<i32>();
    let right = (0..rows.num_rows())
        .filter(|row| {
            let share = |class: &usize| {
                let column = predicted.column(*class).as_primitive::<Float64Type>();
                column.value(*row)
            };
            let likeliest = (0..task.classes.len())
                .max_by(|one, other| share(one).total_cmp(&share(other)))
                .expect("a class");
            task.classes[likeliest] == truth.value(*row)
        })
        .count();
    right as f64 / rows.num_rows() as f64
}

#[tokio::test]
async fn every_task_is_declared_trained_kept_read_back_and_asked() {
    let sandbox = sandbox(2);
    let fresh = rows(4000).slice(3000, 1000);
    for kind in [
        TaskKind::BinaryClassification,
        TaskKind::MulticlassClassification,
        TaskKind::Regression,
    ] {
        let mut adapter = adapter(&sandbox, ComputeGrant::default()).await;
        let described = adapter.describe().await.expect("described");
        assert!(described.tasks.contains(&kind));
        assert_eq!(
            described.hyperparameters["properties"]["num_leaves"]["default"],
            31
        );

        let hyperparameters = json!({ "num_iterations": 60, "num_leaves": 15 });
        let declared = adapter
            .declare(&task(kind), &[0, 0, 3], &hyperparameters)
            .await
            .expect("declared");
        let Declaration::Forest(plan) = declared else {
            panic!("not a forest: {declared:?}");
        };
        assert_eq!((plan.rounds, plan.max_leaves), (60, 15));

        let told = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&told);
        let trained = adapter
            .train(TrainInput {
                progress: Some(Arc::new(move |now: sandcast_sandbox::TrainProgress| {
                    assert!(now.step <= now.steps && now.epoch <= now.epochs);
                    counted.fetch_add(u32::from(now.report.is_some()), Ordering::Relaxed);
                })),
                ..input(task(kind), hyperparameters)
            })
            .await
            .expect("trained");
        let report = trained.report.expect("a report");
        assert_eq!(told.load(Ordering::Relaxed), report.epochs.len() as u32);
        let loss = |round: usize| report.epochs[round].validation_loss.expect("a loss");
        let best = report.best_epoch as usize - 1;
        assert!(loss(best) < loss(0) / 2.0, "{} {}", loss(0), loss(best));
        assert!(trained.costs.is_empty());

        let predicted = adapter
            .predict(&trained.model, &features(&fresh))
            .await
            .expect("predicted");
        if kind == TaskKind::Regression {
            let found = predicted.column(0).as_primitive::<Float64Type>();
            let truth = fresh.column_by_name("amount").expect("amounts");
            let truth = truth.as_primitive::<Float64Type>();
            let squares = found.values().iter().zip(truth.values());
            let error: f64 = squares.map(|(one, other)| (one - other).powi(2)).sum();
            assert!((error / 1000.0).sqrt() < 0.8, "{error}");
        } else {
            let share = accuracy(&predicted, &fresh, &task(kind));
            assert!(share > 0.9, "{kind:?}: {share}");
        }

        // The file, in another instance, gives the same answers to the bit.
        let bytes = trained.model.to_bytes();
        let read = Arc::new(Model::from_bytes(&bytes, &sandbox).expect("read back"));
        assert_eq!(read.digest(), trained.model.digest());
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read.task(), &task(kind));
        assert!(read.parameter_count() > 100);
        assert!(matches!(
            Model::graph_of(&bytes),
            Err(ModelError::NoProgram)
        ));
        let mut other = self::adapter(&sandbox, ComputeGrant::default()).await;
        let again = other
            .predict(&read, &features(&fresh))
            .await
            .expect("predicted again");
        assert_eq!(again, predicted);
        let one = other
            .predict(&read, &features(&fresh.slice(17, 1)))
            .await
            .expect("predicted alone");
        assert_eq!(one, predicted.slice(17, 1));
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_trees_at_any_number_of_threads() {
    let mut digests = Vec::new();
    for (seed, threads) in [(7, 1), (7, 3), (8, 1)] {
        let sandbox = sandbox(threads);
        let mut adapter = adapter(&sandbox, ComputeGrant::default()).await;
        let input = TrainInput {
            seed,
            ..input(
                task(TaskKind::BinaryClassification),
                json!({ "num_iterations": 5, "subsample": 0.7, "colsample_bytree": 0.7 }),
            )
        };
        digests.push(adapter.train(input).await.expect("trained").model.digest());
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
}

#[tokio::test]
async fn weights_and_unknown_values_are_understood() {
    let sandbox = sandbox(1);
    let mut adapter = adapter(&sandbox, ComputeGrant::default()).await;
    let weighted = Task {
        weight: Some("weight".into()),
        ..task(TaskKind::BinaryClassification)
    };
    let plan = json!({ "num_iterations": 20, "class_weights": "balanced" });
    let model = adapter
        .train(input(weighted, plan.clone()))
        .await
        .expect("trained")
        .model;
    let plain = adapter
        .train(input(task(TaskKind::BinaryClassification), plan))
        .await
        .expect("trained")
        .model;
    assert_ne!(model.digest(), plain.digest());
    // A category that was never seen, and nothing at all.
    let odd = RecordBatch::try_from_iter([
        (
            "a",
            Arc::new(Float64Array::from(vec![Some(0.5), None])) as ArrayRef,
        ),
        ("b", Arc::new(Int64Array::from(vec![Some(50), None]))),
        (
            "kind",
            Arc::new(StringArray::from(vec![Some("ultraviolet"), None])),
        ),
    ])
    .expect("a batch");
    let predicted = adapter.predict(&model, &odd).await.expect("predicted");
    assert_eq!(
        (predicted.num_rows(), predicted.column(0).null_count()),
        (2, 0)
    );
}

#[tokio::test]
async fn growing_over_its_time_is_stopped_and_the_line_is_named() {
    let sandbox = sandbox(1);
    let compute = ComputeGrant {
        time: TimeSpan::from_millis(300),
        ..ComputeGrant::default()
    };
    let mut adapter = adapter(&sandbox, compute).await;
    let started = Instant::now();
    let endless = json!({
        "num_iterations": 100_000, "num_leaves": 4, "learning_rate": 1e-6, "early_stopping_round": null
    });
    let error = adapter
        .train(input(task(TaskKind::BinaryClassification), endless))
        .await
        .map(|_| ())
        .expect_err("it cannot be done in time");
    assert!(started.elapsed() < Duration::from_secs(60));
    let message = error.to_string();
    assert!(
        message.contains("`gbdt`") && message.contains("plugins.gbdt.grants.compute.time"),
        "{message}"
    );
}

#[tokio::test]
async fn memory_is_charged_before_it_is_used() {
    let sandbox = sandbox(1);
    let compute = ComputeGrant {
        memory: ByteSize::from_kib(1024),
        ..ComputeGrant::default()
    };
    let mut adapter = adapter(&sandbox, compute).await;
    let error = adapter
        .train(input(task(TaskKind::BinaryClassification), json!({})))
        .await
        .map(|_| ())
        .expect_err("1 MiB is too little");
    let CallError::Failed { failure, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        failure.message.contains("the compute budget is used up"),
        "{error}"
    );
}

#[tokio::test]
async fn a_model_file_is_checked_in_every_part() {
    let sandbox = sandbox(1);
    let mut adapter = adapter(&sandbox, ComputeGrant::default()).await;
    let model = adapter
        .train(input(
            task(TaskKind::BinaryClassification),
            json!({ "num_iterations": 3 }),
        ))
        .await
        .expect("trained")
        .model;
    let good = model.to_bytes();
    let read = |bytes: &[u8]| Model::from_bytes(bytes, &sandbox);
    assert!(read(&good).is_ok());
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
    // Columns that the trees do not have: two of the three numbers and categories.
    let start = b"sandcast-model\n".len();
    let length: [u8; 8] = good[start..start + 8].try_into().expect("8 bytes");
    let end = start + 8 + u64::from_le_bytes(length) as usize;
    let header = String::from_utf8(good[start + 8..end].to_vec()).expect("JSON");
    let fewer = header.replace(r#""numbers":["a","b"]"#, r#""numbers":["a"]"#);
    assert_ne!(fewer, header);
    let mut other = good[..start].to_vec();
    other.extend((fewer.len() as u64).to_le_bytes());
    other.extend(fewer.as_bytes());
    other.extend(&good[end..]);
    assert!(matches!(read(&other), Err(ModelError::Forest { .. })));
}
