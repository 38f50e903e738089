//! The whole life of a model that writes, with the real adapter: declare, train on texts, keep,
//! read back, score, write, and the budgets that end it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use sandcast_audit::AuditLog;
use sandcast_sandbox::{
    Adapter, ByteSize, CallContext, CallError, ComputeGrant, Declaration, DeviceChoice, Field,
    GenerationOptions, Grants, Kind, Model, Precision, Role, Sandbox, SandboxConfig, Task,
    TaskKind, TimeSpan, TrainInput,
};
use serde_json::{Value, json};

use crate::component;

fn sandbox() -> Sandbox {
    let config = SandboxConfig {
        cache_dir: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")),
        device: DeviceChoice::Cpu.into(),
        ..SandboxConfig::default()
    };
    Sandbox::new(config, AuditLog::in_memory()).expect("a sandbox")
}

async fn adapter(sandbox: &Sandbox, compute: ComputeGrant) -> Adapter {
    let grants = Grants {
        compute: Some(compute),
        ..Grants::default()
    };
    let plugin = sandbox
        .load("gpt", &component("adapter-gpt"), Role::Adapter, grants)
        .await
        .expect("loads");
    let context = CallContext::new(None, "train");
    plugin.adapter(&context).await.expect("an instance")
}

fn task() -> Task {
    Task {
        kind: TaskKind::TextGeneration,
        features: vec![Field {
            name: "text".into(),
            kind: Kind::Utf8,
            nullable: true,
        }],
        target: None,
        classes: Vec::new(),
        weight: None,
    }
}

fn texts(texts: &[Option<&str>]) -> RecordBatch {
    let texts = StringArray::from(texts.to_vec());
    RecordBatch::try_from_iter_with_nullable([("text", Arc::new(texts) as ArrayRef, true)])
        .expect("a batch")
}

/// Countings, which a small model learns by heart.
fn countings(count: usize) -> RecordBatch {
    let names = ["one", "two", "three", "four", "five", "six", "seven"];
    let lines: Vec<String> = (0..count)
        .map(|at| {
            let words: Vec<&str> = (0..3 + at % 4).map(|step| names[(at + step) % 7]).collect();
            format!("{}.", words.join(" "))
        })
        .collect();
    texts(
        &lines
            .iter()
            .map(|line| Some(line.as_str()))
            .collect::<Vec<_>>(),
    )
}

fn small(tokenizer: &str) -> Value {
    json!({
        "tokenizer": tokenizer, "vocabulary_size": 280, "layers": 1, "width": 32, "heads": 2,
        "context": 32, "batch_rows": 8, "steps": 120, "validation_interval": 40,
        "learning_rate": 0.01, "warmup_steps": 10,
    })
}

fn input(hyperparameters: Value) -> TrainInput {
    let all = countings(300);
    TrainInput {
        task: task(),
        hyperparameters,
        seed: 7,
        training: vec![all.slice(0, 150), all.slice(150, 100)],
        validation: Some(vec![all.slice(250, 50)]),
        progress: None,
        checkpoints: None,
        precision: Precision::F32Strict,
    }
}

fn greedy(maximum_tokens: u32, stop: &[&str]) -> GenerationOptions {
    GenerationOptions {
        maximum_tokens,
        temperature: 0.0,
        stop: stop.iter().map(|one| (*one).to_owned()).collect(),
        ..GenerationOptions::default()
    }
}

fn first_text(batch: &RecordBatch) -> String {
    batch.column(0).as_string::<i32>().value(0).to_owned()
}

/// Losses and tokens.
fn scores(batch: &RecordBatch) -> (Vec<f64>, Vec<i64>) {
    let loss: &Float64Array = batch.column(0).as_primitive();
    let tokens: &Int64Array = batch.column(1).as_primitive();
    (loss.values().to_vec(), tokens.values().to_vec())
}

#[tokio::test]
async fn a_model_is_trained_kept_read_back_scores_and_writes() {
    let sandbox = sandbox();
    for tokenizer in ["characters", "byte-pairs"] {
        let mut adapter = adapter(&sandbox, ComputeGrant::default()).await;
        let described = adapter.describe().await.expect("described");
        assert_eq!(described.tasks, [TaskKind::TextGeneration]);
        let declared = adapter
            .declare(&task(), &[0], &small(tokenizer))
            .await
            .expect("declared");
        let Declaration::Program { graph, .. } = declared else {
            panic!("a decoder is a program");
        };
        assert!(graph.generation.is_some());

        let trained = adapter
            .train(input(small(tokenizer)))
            .await
            .expect("trained");
        let report = trained.report.expect("a report");
        let losses: Vec<f64> = report
            .epochs
            .iter()
            .filter_map(|epoch| epoch.validation_loss)
            .collect();
        assert_eq!((report.steps, losses.len()), (120, 3));
        assert!(losses[2] < 0.7 * losses[0], "{losses:?}");

        // What is usual surprises less than what is not; a text that is not there not at all.
        let asked = [
            Some("two three four five."),
            Some("zebra quilt jam vex."),
            None,
            Some(""),
        ];
        let usual = adapter
            .predict(&trained.model, &texts(&asked))
            .await
            .expect("scored");
        let (loss, tokens) = scores(&usual);
        assert!(loss[0] < 0.5 * loss[1], "{loss:?}");
        assert_eq!((loss[2], tokens[2], loss[3], tokens[3]), (0.0, 0, 0.0, 0));
        if tokenizer == "characters" {
            assert_eq!(tokens[..2], [20, 20]);
        }
        // Of a row, the same alone and among others.
        for (row, text) in asked.iter().enumerate() {
            let alone = adapter
                .predict(&trained.model, &texts(&[*text]))
                .await
                .expect("scored");
            assert_eq!(scores(&alone).0[0].to_bits(), loss[row].to_bits());
        }

        let prompts = texts(&[Some("three four")]);
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        let watch = Arc::new(move |row: usize, text: &str| {
            assert_eq!(row, 0);
            heard.lock().expect("a lock").push_str(text);
        });
        let written = adapter
            .generate(&trained.model, &prompts, &greedy(60, &[]), Some(watch))
            .await
            .expect("written");
        let text = first_text(&written);
        assert!(text.starts_with(" five six"), "{text}");
        assert_eq!(*said.lock().expect("a lock"), text);
        let stopped = adapter
            .generate(
                &trained.model,
                &prompts,
                &greedy(60, &["six", "ve s"]),
                None,
            )
            .await
            .expect("written");
        assert_eq!(first_text(&stopped), " fi");
        assert_eq!(stopped.column(2).as_string::<i32>().value(0), "stop");
        let short = adapter
            .generate(&trained.model, &prompts, &greedy(2, &[]), None)
            .await
            .expect("written");
        let count = short.column(1).as_primitive::<Int64Type>().value(0);
        assert_eq!(
            (count, short.column(2).as_string::<i32>().value(0)),
            (2, "length")
        );

        // The file, in another instance, gives the same answers to the bit.
        let bytes = trained.model.to_bytes();
        let read = Arc::new(Model::from_bytes(&bytes, &sandbox).expect("read back"));
        assert_eq!(read.digest(), trained.model.digest());
        let mut other = self::adapter(&sandbox, ComputeGrant::default()).await;
        assert_eq!(
            other.predict(&read, &texts(&asked)).await.expect("scored"),
            usual
        );
        let hot = GenerationOptions {
            temperature: 1.2,
            top_k: Some(20),
            top_p: Some(0.95),
            seed: 11,
            maximum_tokens: 100,
            ..GenerationOptions::default()
        };
        let many = texts(&[Some("one"), Some("one"), Some("")]);
        let one = adapter
            .generate(&trained.model, &many, &hot, None)
            .await
            .expect("written");
        let again = other
            .generate(&read, &many, &hot, None)
            .await
            .expect("written");
        assert_eq!(one, again, "same seed, same text");
        let alone = other
            .generate(&read, &texts(&[Some("one")]), &hot, None)
            .await
            .expect("written");
        assert_eq!(
            first_text(&alone),
            first_text(&one),
            "alone as among others"
        );
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_model() {
    let sandbox = sandbox();
    let mut digests = Vec::new();
    for seed in [7, 7, 8] {
        let mut adapter = adapter(&sandbox, ComputeGrant::default()).await;
        let mut hyperparameters = small("byte-pairs");
        hyperparameters["steps"] = json!(5);
        hyperparameters["dropout"] = json!(0.1);
        let input = TrainInput {
            seed,
            ..input(hyperparameters)
        };
        digests.push(adapter.train(input).await.expect("trained").model.digest());
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
}

#[tokio::test]
async fn every_variant_of_the_network_learns_and_writes() {
    let sandbox = sandbox();
    for change in [
        json!({ "positions": "learned", "norm": "layer", "tied": false }),
        json!({ "feed_forward": "swiglu", "key_heads": 1, "dropout": 0.1, "patience": 2 }),
    ] {
        let mut hyperparameters = small("characters");
        let object = hyperparameters.as_object_mut().expect("an object");
        object.extend(change.as_object().expect("an object").clone());
        let mut adapter = adapter(&sandbox, ComputeGrant::default()).await;
        let trained = adapter
            .train(input(hyperparameters))
            .await
            .expect("trained");
        let report = trained.report.expect("a report");
        assert!(report.epochs[2].train_loss < 0.7 * report.epochs[0].train_loss);
        // Far more than the context holds.
        let endless = GenerationOptions {
            maximum_tokens: 200,
            temperature: 2.0,
            seed: 3,
            ..GenerationOptions::default()
        };
        let prompts = texts(&[Some(
            "one two three four five six seven one two three four five",
        )]);
        adapter
            .generate(&trained.model, &prompts, &endless, None)
            .await
            .expect("written");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let sandbox = sandbox();
    let mut adapter = adapter(&sandbox, ComputeGrant::default()).await;
    let mut refused = async |input: TrainInput| {
        let error = adapter.train(input).await.map(|_| ()).expect_err("refused");
        error.to_string()
    };
    let few = TrainInput {
        training: vec![countings(1)],
        ..input(small("characters"))
    };
    let few = refused(few).await;
    assert!(few.contains("lower `context` or give more text"), "{few}");
    let wrong = refused(input(json!({ "heads": 5 }))).await;
    assert!(wrong.contains("`heads`: 5 do not divide"), "{wrong}");
    let model = adapter
        .train(input(
            json!({ "layers": 1, "width": 16, "heads": 1, "context": 16, "steps": 1 }),
        ))
        .await
        .expect("trained")
        .model;
    let never = GenerationOptions {
        maximum_tokens: 0,
        ..GenerationOptions::default()
    };
    let error = adapter
        .generate(&model, &texts(&[Some("a")]), &never, None)
        .await
        .expect_err("no tokens");
    assert!(error.to_string().contains("maximum of tokens"), "{error}");
}

#[tokio::test]
async fn writing_over_its_time_or_memory_is_stopped_and_the_line_is_named() {
    let sandbox = sandbox();
    let mut trainer = adapter(&sandbox, ComputeGrant::default()).await;
    let mut hyperparameters = small("characters");
    hyperparameters["steps"] = json!(1);
    let model = trainer
        .train(input(hyperparameters))
        .await
        .expect("trained")
        .model;
    let prompts = texts(&[Some("one"); 64]);
    // One that has hardly learnt says the same token again, and so never comes to an end.
    let long = greedy(GenerationOptions::MAX_TOKENS, &[]);
    let mut hurried = adapter(
        &sandbox,
        ComputeGrant {
            time: TimeSpan::from_millis(200),
            ..ComputeGrant::default()
        },
    )
    .await;
    let started = Instant::now();
    let error = hurried
        .generate(&model, &prompts, &long, None)
        .await
        .expect_err("it cannot be done in time");
    assert!(started.elapsed() < Duration::from_secs(60));
    assert!(
        error
            .to_string()
            .contains("plugins.gpt.grants.compute.time"),
        "{error}"
    );
    let mut poor = adapter(
        &sandbox,
        ComputeGrant {
            memory: ByteSize::from_kib(64),
            ..ComputeGrant::default()
        },
    )
    .await;
    let error = poor
        .generate(&model, &prompts, &long, None)
        .await
        .expect_err("64 KiB are too few");
    assert!(
        matches!(error, CallError::Failed { .. } | CallError::Denied { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("grants.compute.memory"),
        "{error}"
    );
    // Nobody waits for it any more, so it stops.
    let mut dropped = adapter(&sandbox, ComputeGrant::default()).await;
    let waited = tokio::time::timeout(
        Duration::from_millis(500),
        dropped.generate(&model, &prompts, &long, None),
    )
    .await;
    assert!(waited.is_err(), "it goes on for much longer");
    drop(dropped);
}
