//! Trainings that are stopped and gone on with.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::support::*;
use sandcast_kernels::graph::*;
use sandcast_kernels::{
    CheckpointStore, Feeds, Program, Progress, RunError, Schedule, Session, StopReason, TrainPlan,
    TrainReport,
};

/// A store in memory that saves after every `every` steps, or only when a training is stopped.
#[derive(Default)]
struct Memory {
    kept: HashMap<[u8; 32], Vec<u8>>,
    every: Option<u32>,
    asked: u32,
    saved: u32,
    rejected: Vec<String>,
}

impl CheckpointStore for Memory {
    fn load(&mut self, key: &[u8; 32]) -> Option<Vec<u8>> {
        self.kept.get(key).cloned()
    }

    fn is_due(&mut self) -> bool {
        self.asked += 1;
        self.every
            .is_some_and(|every| self.asked.is_multiple_of(every))
    }

    fn save(&mut self, key: &[u8; 32], checkpoint: &[u8]) {
        self.saved += 1;
        self.kept.insert(*key, checkpoint.to_vec());
    }

    fn reject(&mut self, key: &[u8; 32], what: &str) {
        self.rejected.push(what.to_owned());
        self.kept.remove(key);
    }

    fn remove(&mut self, key: &[u8; 32]) {
        self.kept.remove(key);
    }
}

fn plan() -> TrainPlan {
    TrainPlan {
        epochs: 3,
        epoch_rows: None,
        batch_rows: 100,
        accumulate_steps: 1,
        learning_rate: 5e-3,
        schedule: Schedule::Cosine {
            warmup_steps: 3,
            floor: 0.1,
        },
        clip_norm: Some(0.5),
        patience: Some(2),
        shuffle: true,
    }
}

fn data() -> (Feeds, Feeds) {
    let rows = fewer(550, 350);
    (moons(rows, 8, 1), moons(120, 8, 2))
}

/// Stops before the step after `steps`.
fn stop_after(steps: u64) -> impl FnMut(Progress<'_>) -> ControlFlow<StopReason> {
    move |progress| match progress.step >= steps && progress.report.is_none() {
        true => ControlFlow::Break(StopReason::Cancelled),
        false => ControlFlow::Continue(()),
    }
}

fn bits(session: &Session) -> Vec<u32> {
    let weights = session.weights();
    let numbers = weights.values().flat_map(|tensor| tensor.to_f32());
    numbers.map(f32::to_bits).collect()
}

/// A report without its times, and without where it went on.
fn told(report: &TrainReport) -> TrainReport {
    let mut report = report.clone();
    report.resumed_after = None;
    for epoch in &mut report.epochs {
        epoch.duration = Duration::ZERO;
    }
    report
}

fn train(
    session: &mut Session,
    plan: &TrainPlan,
    store: &mut Memory,
    watch: &mut dyn FnMut(Progress<'_>) -> ControlFlow<StopReason>,
) -> Result<TrainReport, RunError> {
    let (training, validation) = data();
    session.train_kept(&training, Some(&validation), plan, store, watch)
}

fn with_optimizer(optimizer: Optimizer) -> Arc<Program> {
    let mut builder = classifier(8, 2, 0.2);
    builder.graph.optimizer = Some(optimizer);
    builder.compile()
}

#[test]
fn a_training_that_was_stopped_anywhere_comes_to_the_same_bits() {
    let momentum = Optimizer::Sgd(Sgd {
        momentum: 0.9,
        weight_decay: 1e-3,
    });
    for (optimizer, plan) in [
        (adam(), plan()),
        (
            momentum,
            TrainPlan {
                accumulate_steps: 2,
                patience: None,
                epoch_rows: Some(250),
                ..plan()
            },
        ),
    ] {
        let program = with_optimizer(optimizer);
        let mut whole = session(&program, 1, 7);
        let report =
            train(&mut whole, &plan, &mut Memory::default(), &mut go_on).expect("a training");
        assert_eq!(report.resumed_after, None);
        for stop in 1..report.steps {
            let mut store = Memory::default();
            let mut stopped = session(&program, 2, 7);
            let outcome = train(&mut stopped, &plan, &mut store, &mut stop_after(stop));
            assert!(
                matches!(outcome, Err(RunError::Stopped { step, .. }) if step == stop + 1),
                "{outcome:?}"
            );
            assert_eq!(store.saved, 1);
            let mut resumed = session(&program, 1, 7);
            let again = train(&mut resumed, &plan, &mut store, &mut go_on).expect("a training");
            assert_eq!(again.resumed_after, Some(stop));
            assert_eq!(told(&again), told(&report), "stopped after step {stop}");
            assert_eq!(bits(&resumed), bits(&whole), "stopped after step {stop}");
            assert!(store.kept.is_empty() && store.rejected.is_empty());
        }
    }
}

#[test]
fn a_process_that_died_goes_on_from_what_was_kept_last() {
    let program = with_optimizer(adam());
    let mut whole = session(&program, 1, 7);
    let report =
        train(&mut whole, &plan(), &mut Memory::default(), &mut go_on).expect("a training");
    let mut store = Memory {
        every: Some(4),
        ..Memory::default()
    };
    let mut copies = Vec::new();
    {
        // What the store has whenever the process might die.
        let (training, validation) = data();
        let mut watched = session(&program, 1, 7);
        struct Recorder<'a>(&'a mut Memory, &'a mut Vec<HashMap<[u8; 32], Vec<u8>>>);
        impl CheckpointStore for Recorder<'_> {
            fn load(&mut self, key: &[u8; 32]) -> Option<Vec<u8>> {
                self.0.load(key)
            }
            fn is_due(&mut self) -> bool {
                self.0.is_due()
            }
            fn save(&mut self, key: &[u8; 32], checkpoint: &[u8]) {
                self.0.save(key, checkpoint);
                self.1.push(self.0.kept.clone());
            }
            fn reject(&mut self, key: &[u8; 32], what: &str) {
                self.0.reject(key, what);
            }
            fn remove(&mut self, key: &[u8; 32]) {
                self.0.remove(key);
            }
        }
        let mut recorder = Recorder(&mut store, &mut copies);
        watched
            .train_kept(
                &training,
                Some(&validation),
                &plan(),
                &mut recorder,
                &mut go_on,
            )
            .expect("a training");
    }
    assert!(copies.len() >= 2 && store.kept.is_empty());
    for kept in copies {
        let mut store = Memory {
            kept,
            ..Memory::default()
        };
        let mut resumed = session(&program, 2, 7);
        let again = train(&mut resumed, &plan(), &mut store, &mut go_on).expect("a training");
        assert!(again.resumed_after.is_some_and(|steps| steps >= 4));
        assert_eq!(told(&again), told(&report));
        assert_eq!(bits(&resumed), bits(&whole));
    }
}

#[test]
fn a_checkpoint_is_found_by_nothing_but_its_own_training() {
    let program = with_optimizer(adam());
    let mut store = Memory::default();
    let mut stopped = session(&program, 1, 7);
    train(&mut stopped, &plan(), &mut store, &mut stop_after(3)).expect_err("stopped");
    let begins_anew = |session: &mut Session, plan: &TrainPlan, feeds: (Feeds, Feeds)| {
        let mut store = Memory {
            kept: store.kept.clone(),
            ..Memory::default()
        };
        let (training, validation) = feeds;
        let report = session
            .train_kept(&training, Some(&validation), plan, &mut store, &mut go_on)
            .expect("a training");
        assert_eq!(report.resumed_after, None);
        assert!(store.rejected.is_empty());
    };
    // Another seed, so other weights; another plan; other data; another program; other weights.
    begins_anew(&mut session(&program, 1, 8), &plan(), data());
    let other = TrainPlan {
        learning_rate: 4e-3,
        ..plan()
    };
    begins_anew(&mut session(&program, 1, 7), &other, data());
    let (training, _) = data();
    begins_anew(
        &mut session(&program, 1, 7),
        &plan(),
        (training.clone(), moons(120, 8, 3)),
    );
    let mut changed = training.clone();
    let mut x = changed["x"].to_f32();
    x[17] += 1e-3;
    let shape = changed["x"].shape().to_vec();
    changed.insert("x".into(), f32s(&shape, x));
    begins_anew(&mut session(&program, 1, 7), &plan(), (changed, data().1));
    let wider = classifier(8, 2, 0.3).compile();
    begins_anew(&mut session(&wider, 1, 7), &plan(), data());
    // The session that was stopped has other weights than it began with.
    begins_anew(&mut stopped, &plan(), data());
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_training_begins_anew() {
    let program = with_optimizer(adam());
    let mut whole = session(&program, 1, 7);
    train(&mut whole, &plan(), &mut Memory::default(), &mut go_on).expect("a training");
    let mut store = Memory::default();
    let mut stopped = session(&program, 1, 7);
    train(&mut stopped, &plan(), &mut store, &mut stop_after(9)).expect_err("stopped");
    let (key, bytes) = store.kept.iter().next().expect("a checkpoint");
    let flipped = |place: usize| {
        let mut bytes = bytes.clone();
        bytes[place] ^= 4;
        bytes
    };
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let mut damaged = vec![
        Vec::new(),
        b"no checkpoint".to_vec(),
        bytes[..bytes.len() - 1].to_vec(),
        flipped(bytes.len() - 1),
        flipped(header + 3),
    ];
    damaged.extend((0..header).step_by(41).map(flipped));
    for bytes in damaged {
        let mut store = Memory {
            kept: HashMap::from([(*key, bytes)]),
            ..Memory::default()
        };
        let mut session = session(&program, 1, 7);
        let report = train(&mut session, &plan(), &mut store, &mut go_on).expect("a training");
        assert_eq!(store.rejected.len(), 1, "{:?}", store.rejected);
        assert_eq!(report.resumed_after, None);
        assert_eq!(bits(&session), bits(&whole));
    }
}

#[test]
fn a_training_that_ended_is_not_gone_on_with() {
    let program = with_optimizer(adam());
    let mut store = Memory {
        every: Some(1),
        ..Memory::default()
    };
    let mut first = session(&program, 1, 7);
    train(&mut first, &plan(), &mut store, &mut go_on).expect("a training");
    assert!(store.saved > 5 && store.kept.is_empty());
    // Stopped before its first step, there is nothing to keep.
    let mut stopped = session(&program, 1, 7);
    let mut store = Memory::default();
    train(&mut stopped, &plan(), &mut store, &mut stop_after(0)).expect_err("stopped");
    assert!(store.kept.is_empty());
}
