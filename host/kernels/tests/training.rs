//! Training as a whole.

mod support;

use std::ops::ControlFlow;

use sandcast_kernels::graph::*;
use sandcast_kernels::{RunError, Schedule, Session, StopReason, TrainPlan};
use support::*;

fn plan() -> TrainPlan {
    TrainPlan {
        epochs: 3,
        batch_rows: 256,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        clip_norm: None,
        patience: None,
        shuffle: true,
    }
}

fn bits(session: &Session) -> Vec<u32> {
    let weights = session.weights();
    weights.values().flat_map(|tensor| tensor.to_f32()).map(f32::to_bits).collect()
}

#[test]
fn a_classifier_learns_what_a_line_does_not_part() {
    let program = classifier(8, 2, 0.1).compile();
    let mut session = session(&program, 2, 7);
    let (training, validation) = (moons(4000, 8, 1), moons(1000, 8, 2));
    let plan = TrainPlan { epochs: 20, ..plan() };
    let report = session.train(&training, Some(&validation), &plan, &mut go_on).expect("a training");
    assert_eq!((report.epochs.len(), report.steps, report.rows), (20, 320, 80_000));
    let last = report.epochs.last().expect("epochs");
    assert!(last.validation_loss.expect("validated") < 0.2, "{last:?}");
    let probabilities = &session.infer("predict", &validation).expect("a prediction")[0].1;
    let labels = validation["y"].as_i32().expect("labels");
    let right = probabilities
        .as_f32()
        .expect("float32")
        .chunks_exact(2)
        .zip(labels)
        .filter(|(row, label)| i32::from(row[1] > row[0]) == **label)
        .count();
    assert!(right > 930, "{right} of 1000");
}

#[test]
fn same_bits_at_any_number_of_threads() {
    for (dropout, clip_norm, batch_rows) in [(0.0, None, 256), (0.3, Some(0.5), 1000), (0.2, None, 100)] {
        let program = classifier(30, 2, dropout).compile();
        let training = moons(3000, 30, 1);
        let validation = moons(700, 30, 2);
        let plan = TrainPlan {
            clip_norm,
            batch_rows,
            patience: Some(2),
            schedule: Schedule::Cosine { warmup_steps: 3, floor: 0.1 },
            ..plan()
        };
        let run = |threads| {
            let mut session = session(&program, threads, 11);
            let report =
                session.train(&training, Some(&validation), &plan, &mut go_on).expect("a training");
            let losses: Vec<(u64, Option<u64>)> = report
                .epochs
                .iter()
                .map(|epoch| (epoch.train_loss.to_bits(), epoch.validation_loss.map(f64::to_bits)))
                .collect();
            (bits(&session), losses)
        };
        let alone = run(1);
        assert_eq!(alone, run(1));
        assert_eq!(alone, run(2));
        assert_eq!(alone, run(5));
    }
}

#[test]
fn another_seed_gives_other_bits() {
    let program = classifier(8, 2, 0.0).compile();
    let (one, other) = (session(&program, 1, 1), session(&program, 1, 2));
    assert_ne!(bits(&one), bits(&other));
}

#[test]
fn a_watcher_stops_between_steps() {
    let program = classifier(8, 2, 0.0).compile();
    let mut session = session(&program, 1, 7);
    let before = bits(&session);
    let mut calls = 0;
    let mut watch = |_: sandcast_kernels::Progress<'_>| {
        calls += 1;
        if calls == 4 { ControlFlow::Break(StopReason::Cancelled) } else { ControlFlow::Continue(()) }
    };
    let stopped = session.train(&moons(2000, 8, 1), None, &plan(), &mut watch);
    assert_eq!(stopped, Err(RunError::Stopped { step: 4, reason: StopReason::Cancelled }));
    assert_ne!(bits(&session), before);
}

#[test]
fn a_loss_that_is_not_finite_names_the_step() {
    let program = classifier(8, 2, 0.0).compile();
    let mut session = session(&program, 2, 7);
    let mut training = moons(2000, 8, 1);
    let mut x = training["x"].to_f32();
    x[700 * 8] = f32::NAN;
    training.insert("x".into(), f32s(&[2000, 8], x));
    let plan = TrainPlan { shuffle: false, ..plan() };
    match session.train(&training, None, &plan, &mut go_on) {
        Err(RunError::NotFinite { step: 3, epoch: 1, loss }) => assert!(loss.is_nan()),
        other => panic!("{other:?}"),
    }
    assert!(session.weights().values().all(|tensor| tensor.to_f32().iter().all(|one| one.is_finite())));
}
