//! Training as a whole.

use std::ops::ControlFlow;

use crate::support::*;
use sandcast_kernels::graph::*;
use sandcast_kernels::{RunError, Schedule, Session, StopReason, TrainPlan};

fn plan() -> TrainPlan {
    TrainPlan {
        epochs: 3,
        epoch_rows: None,
        batch_rows: 256,
        accumulate_steps: 1,
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        clip_norm: None,
        patience: None,
        shuffle: true,
    }
}

fn bits(session: &Session) -> Vec<u32> {
    let weights = session.weights();
    weights
        .values()
        .flat_map(|tensor| tensor.to_f32())
        .map(f32::to_bits)
        .collect()
}

#[test]
fn a_classifier_learns_what_a_line_does_not_part() {
    let program = classifier(8, 2, 0.1).compile();
    let mut session = session(&program, 2, 7);
    let (training, validation) = (moons(4000, 8, 1), moons(1000, 8, 2));
    let plan = TrainPlan {
        epochs: 20,
        ..plan()
    };
    let report = session
        .train(&training, Some(&validation), &plan, &mut go_on)
        .expect("a training");
    assert_eq!(
        (report.epochs.len(), report.steps, report.rows),
        (20, 320, 80_000)
    );
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
    for (dropout, clip_norm, batch_rows) in
        [(0.0, None, 256), (0.3, Some(0.5), 1000), (0.2, None, 100)]
    {
        let program = classifier(30, 2, dropout).compile();
        let training = moons(3000, 30, 1);
        let validation = moons(700, 30, 2);
        let plan = TrainPlan {
            clip_norm,
            batch_rows,
            patience: Some(2),
            schedule: Schedule::Cosine {
                warmup_steps: 3,
                floor: 0.1,
            },
            ..plan()
        };
        let run = |threads| {
            let mut session = session(&program, threads, 11);
            let report = session
                .train(&training, Some(&validation), &plan, &mut go_on)
                .expect("a training");
            let losses: Vec<(u64, Option<u64>)> = report
                .epochs
                .iter()
                .map(|epoch| {
                    (
                        epoch.train_loss.to_bits(),
                        epoch.validation_loss.map(f64::to_bits),
                    )
                })
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
        if calls == 4 {
            ControlFlow::Break(StopReason::Cancelled)
        } else {
            ControlFlow::Continue(())
        }
    };
    let stopped = session.train(&moons(2000, 8, 1), None, &plan(), &mut watch);
    assert_eq!(
        stopped,
        Err(RunError::Stopped {
            step: 4,
            reason: StopReason::Cancelled
        })
    );
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
    let plan = TrainPlan {
        shuffle: false,
        ..plan()
    };
    match session.train(&training, None, &plan, &mut go_on) {
        Err(RunError::NotFinite {
            step: 3,
            epoch: 1,
            loss,
        }) => assert!(loss.is_nan()),
        other => panic!("{other:?}"),
    }
    assert!(
        session
            .weights()
            .values()
            .all(|tensor| tensor.to_f32().iter().all(|one| one.is_finite()))
    );
}

#[test]
fn patience_stops_and_returns_to_the_best_epoch() {
    let program = classifier(8, 2, 0.0).compile();
    let mut session = session(&program, 2, 7);
    // Labels at random: the validation loss can only get worse.
    let mut training = moons(300, 8, 1);
    let labels = numbers(300, 5)
        .into_iter()
        .map(|x| i32::from(x > 0.0))
        .collect();
    training.insert("y".into(), i32s(&[300], labels));
    let validation = moons(300, 8, 2);
    let plan = TrainPlan {
        epochs: 200,
        epoch_rows: None,
        batch_rows: 50,
        learning_rate: 5e-3,
        patience: Some(4),
        ..plan()
    };
    let mut weights = Vec::new();
    let report = session
        .train(&training, Some(&validation), &plan, &mut go_on)
        .expect("a training");
    assert!(
        report.stopped_early && report.epochs.len() < 200,
        "{} epochs",
        report.epochs.len()
    );
    assert_eq!(report.epochs.len() as u32, report.best_epoch + 4);
    let losses: Vec<f64> = report
        .epochs
        .iter()
        .map(|epoch| epoch.validation_loss.expect("validated"))
        .collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(losses[report.best_epoch as usize - 1], least);
    weights.push(bits(&session));
    // The same epochs and no more end at the same weights.
    let mut again = crate::support::session(&program, 1, 7);
    let shorter = TrainPlan {
        epochs: report.best_epoch,
        patience: None,
        ..plan
    };
    again
        .train(&training, None, &shorter, &mut go_on)
        .expect("a training");
    weights.push(bits(&again));
    assert_eq!(weights[0], weights[1]);
}

#[test]
fn a_report_tells_of_every_epoch_and_the_watcher_hears_it() {
    let program = classifier(8, 2, 0.0).compile();
    let mut session = session(&program, 1, 7);
    let plan = TrainPlan {
        epoch_rows: None,
        batch_rows: 300,
        schedule: Schedule::Cosine {
            warmup_steps: 2,
            floor: 0.5,
        },
        ..plan()
    };
    let (mut steps, mut epochs) = (Vec::new(), Vec::new());
    let mut watch = |progress: sandcast_kernels::Progress<'_>| {
        match progress.report {
            Some(report) => epochs.push(report.clone()),
            None => steps.push((progress.step, progress.epoch)),
        }
        assert_eq!((progress.steps, progress.epochs), (12, 3));
        ControlFlow::Continue(())
    };
    let report = session
        .train(&moons(1000, 8, 1), None, &plan, &mut watch)
        .expect("a training");
    assert_eq!(report.epochs, epochs);
    assert_eq!(
        steps,
        (0..12)
            .map(|step| (step, step as u32 / 4 + 1))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        (report.steps, report.rows, report.best_epoch),
        (12, 3000, 3)
    );
    assert!(
        report
            .epochs
            .iter()
            .all(|epoch| epoch.validation_loss.is_none())
    );
    assert!(report.epochs[2].learning_rate < report.epochs[1].learning_rate);
    assert!(report.epochs[2].learning_rate >= 0.5e-3);
}

#[test]
fn plans_and_programs_that_cannot_be_are_refused() {
    let program = classifier(8, 2, 0.0).compile();
    let mut session = session(&program, 1, 7);
    let training = moons(10, 8, 1);
    let mut refuse = |plan: TrainPlan| {
        session
            .train(&training, None, &plan, &mut go_on)
            .expect_err("a refusal")
            .to_string()
    };
    assert_eq!(
        refuse(TrainPlan {
            epochs: 0,
            ..plan()
        }),
        "the training plan's epochs are 0; make at least 1"
    );
    assert_eq!(
        refuse(TrainPlan {
            epoch_rows: None,
            batch_rows: 5000,
            ..plan()
        }),
        "the training plan's batch rows are 5000; make them 1 to 4096, the maximum of `rows`"
    );
    assert_eq!(
        refuse(TrainPlan {
            learning_rate: f32::NAN,
            ..plan()
        }),
        "the training plan's learning rate is NaN; make it finite and not negative"
    );
    assert!(
        refuse(TrainPlan {
            clip_norm: Some(0.0),
            ..plan()
        })
        .contains("clip norm is 0")
    );
    let floor = Schedule::Cosine {
        warmup_steps: 0,
        floor: 2.0,
    };
    assert!(
        refuse(TrainPlan {
            schedule: floor,
            ..plan()
        })
        .contains("cosine floor is 2")
    );
    let nothing = session.train(&moons(0, 8, 1), None, &plan(), &mut go_on);
    assert_eq!(nothing, Err(RunError::NoRows));
    let mut builder = classifier(8, 2, 0.0);
    builder.graph.optimizer = None;
    let mut without = crate::support::session(&builder.compile(), 1, 7);
    let refused = without.train(&training, None, &plan(), &mut go_on);
    assert_eq!(refused, Err(RunError::NotTrainable { what: "optimizer" }));
    let mut builder = classifier(8, 2, 0.0);
    builder.graph.loss = None;
    let mut without = crate::support::session(&builder.compile(), 1, 7);
    let refused = without.train(&training, None, &plan(), &mut go_on);
    assert_eq!(refused, Err(RunError::NotTrainable { what: "loss" }));
}

/// A line fitted to points: parameters `a` [2] and `b` [], the loss (a x + b - y)² times a
/// weight of each row.
fn line(optimizer: Optimizer, weighted: bool) -> Builder {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[2]));
    let y = builder.input("y", DType::Float32, by_row(&[]));
    let a = builder.parameter("a", &[2], Initializer::Ones);
    let b = builder.parameter("b", &[], Initializer::Zeros);
    let frozen = builder.node(Node::Parameter(Parameter {
        name: "frozen".into(),
        shape: vec![2],
        initializer: Initializer::Ones,
        trainable: false,
    }));
    let product = builder.multiply(x, a);
    let product = builder.multiply(product, frozen);
    let sum = builder.reduce(Reduction::Sum, product, &[1], false);
    let prediction = builder.add(sum, b);
    let per_row = builder.node(Node::SquaredError(SquaredErrorNode {
        predictions: prediction,
        targets: y,
    }));
    let weight = weighted.then(|| builder.input("weight", DType::Float32, by_row(&[])));
    builder.loss(per_row, weight);
    builder.graph.optimizer = Some(optimizer);
    builder
}

fn points(rows: usize, weights: impl Fn(usize) -> f32) -> sandcast_kernels::Feeds {
    let x = numbers(rows * 2, 3);
    let y = x
        .chunks_exact(2)
        .map(|x| 0.5 * x[0] - 2.0 * x[1] + 0.25 + 0.1 * x[0] * x[1])
        .collect();
    [
        ("x".to_owned(), f32s(&[rows, 2], x)),
        ("y".to_owned(), f32s(&[rows], y)),
        (
            "weight".to_owned(),
            f32s(&[rows], (0..rows).map(weights).collect()),
        ),
    ]
    .into()
}

/// The same training in float64, from the formulas of the papers.
fn fit(optimizer: Optimizer, feeds: &sandcast_kernels::Feeds, plan: &TrainPlan) -> [f64; 3] {
    let column =
        |name: &str| -> Vec<f64> { feeds[name].to_f32().into_iter().map(f64::from).collect() };
    let (x, y, weight) = (column("x"), column("y"), column("weight"));
    let mut parameters = [1.0, 1.0, 0.0];
    let (mut first, mut second) = ([0.0; 3], [0.0; 3]);
    let mut step = 0;
    let batch = plan.batch_rows as usize;
    let rate = f64::from(plan.learning_rate);
    for _ in 0..plan.epochs {
        let mut start = 0;
        while start < y.len() {
            let rows = start..(start + batch).min(y.len());
            start += batch;
            step += 1;
            let total: f64 = weight[rows.clone()].iter().sum();
            let mut gradient = [0.0; 3];
            for row in rows {
                let inputs = [x[2 * row], x[2 * row + 1], 1.0];
                let found: f64 = inputs.iter().zip(parameters).map(|(x, p)| x * p).sum();
                for (slope, input) in gradient.iter_mut().zip(inputs) {
                    *slope += weight[row] * 2.0 * (found - y[row]) * input / total;
                }
            }
            if let Some(limit) = plan.clip_norm {
                let norm = gradient
                    .iter()
                    .map(|slope| slope * slope)
                    .sum::<f64>()
                    .sqrt();
                let scale = (f64::from(limit) / norm).min(1.0);
                gradient.iter_mut().for_each(|slope| *slope *= scale);
            }
            for index in 0..3 {
                let p = &mut parameters[index];
                let mut g = gradient[index];
                match optimizer {
                    Optimizer::Sgd(sgd) => {
                        g += f64::from(sgd.weight_decay) * *p;
                        first[index] = f64::from(sgd.momentum) * first[index] + g;
                        *p -= rate * first[index];
                    }
                    Optimizer::Adam(adam) => {
                        let (b1, b2) = (f64::from(adam.beta1), f64::from(adam.beta2));
                        let decay = f64::from(adam.weight_decay);
                        if adam.decoupled {
                            *p -= rate * decay * *p;
                        } else {
                            g += decay * *p;
                        }
                        first[index] = b1 * first[index] + (1.0 - b1) * g;
                        second[index] = b2 * second[index] + (1.0 - b2) * g * g;
                        let mean = first[index] / (1.0 - b1.powi(step));
                        let size = (second[index] / (1.0 - b2.powi(step))).sqrt();
                        *p -= rate * mean / (size + f64::from(adam.epsilon));
                    }
                }
            }
        }
    }
    parameters
}

#[test]
fn optimizers_go_the_way_of_their_formulas() {
    let Optimizer::Adam(plain) = adam() else {
        return;
    };
    let optimizers = [
        Optimizer::Sgd(Sgd {
            momentum: 0.0,
            weight_decay: 0.0,
        }),
        Optimizer::Sgd(Sgd {
            momentum: 0.9,
            weight_decay: 0.01,
        }),
        Optimizer::Adam(plain),
        Optimizer::Adam(Adam {
            weight_decay: 0.05,
            ..plain
        }),
        Optimizer::Adam(Adam {
            weight_decay: 0.05,
            decoupled: true,
            ..plain
        }),
    ];
    for optimizer in optimizers {
        for clip_norm in [None, Some(0.3)] {
            for weighted in [false, true] {
                let plan = TrainPlan {
                    epochs: 7,
                    epoch_rows: None,
                    batch_rows: 150,
                    learning_rate: 0.02,
                    clip_norm,
                    shuffle: false,
                    ..plan()
                };
                let mut feeds = points(400, |row| if weighted { (row % 5) as f32 } else { 1.0 });
                let expected = fit(optimizer, &feeds, &plan);
                if !weighted {
                    feeds.remove("weight");
                }
                let mut session = session(&line(optimizer, weighted).compile(), 2, 1);
                let before = session.weights()["frozen"].clone();
                session
                    .train(&feeds, None, &plan, &mut go_on)
                    .expect("a training");
                let weights = session.weights();
                assert_eq!(weights["frozen"], before);
                let found = [weights["a"].to_f32(), weights["b"].to_f32()].concat();
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (f64::from(*found) - expected).abs() < 2e-5,
                        "{optimizer:?} clip {clip_norm:?} weighted {weighted}: {found} for {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn row_weights_count_as_rows_do() {
    let optimizer = Optimizer::Sgd(Sgd {
        momentum: 0.0,
        weight_decay: 0.0,
    });
    let plan = TrainPlan {
        epochs: 1,
        epoch_rows: None,
        batch_rows: 64,
        learning_rate: 0.1,
        shuffle: false,
        ..plan()
    };
    let mut session = session(&line(optimizer, true).compile(), 1, 1);
    // Rows of weight 0 do not count.
    let mut feeds = points(64, |row| if row < 10 { 0.0 } else { 1.0 });
    let mut y = feeds["y"].to_f32();
    y[3] = 1e6;
    feeds.insert("y".into(), f32s(&[64], y.clone()));
    let report = session
        .train(&feeds, None, &plan, &mut go_on)
        .expect("a training");
    assert!(report.epochs[0].train_loss < 10.0);
    // Nothing times infinity is not a number.
    y[3] = f32::INFINITY;
    feeds.insert("y".into(), f32s(&[64], y));
    let refused = session
        .train(&feeds, None, &plan, &mut go_on)
        .expect_err("no loss");
    assert!(
        matches!(
            refused,
            RunError::NotFinite {
                step: 1,
                epoch: 1,
                ..
            }
        ),
        "{refused:?}"
    );
    // Nothing counts: nothing can be learnt.
    let feeds = points(64, |_| 0.0);
    let refused = session
        .train(&feeds, None, &plan, &mut go_on)
        .expect_err("no weight");
    assert_eq!(
        refused.to_string(),
        "the weights of the rows must be finite, not negative, and not all 0: all of them are 0"
    );
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        let feeds = points(64, |row| if row == 40 { bad } else { 1.0 });
        let refused = session
            .train(&feeds, None, &plan, &mut go_on)
            .expect_err("a bad weight");
        assert_eq!(
            refused,
            RunError::BadWeights {
                what: "row 40 of the data".into()
            }
        );
    }
}

#[test]
fn a_program_that_mixes_rows_trains_a_batch_at_a_time() {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[8]));
    let y = builder.input("y", DType::Int32, by_row(&[]));
    // Normalised over the batch.
    let mean = builder.reduce(Reduction::Mean, x, &[0], true);
    let centred = builder.binary(BinaryOperation::Subtract, x, mean);
    let hidden = builder.dense("hidden", centred, [8, 64], Some(UnaryOperation::Tanh));
    let dropped = builder.dropout(hidden, 0.1);
    let logits = builder.dense("output", dropped, [64, 2], None);
    let per_row = builder.node(Node::CrossEntropy(CrossEntropyNode { logits, labels: y }));
    builder.loss(per_row, None);
    builder.graph.optimizer = Some(adam());
    let program = builder.compile();
    let plan = TrainPlan {
        epochs: 15,
        epoch_rows: None,
        batch_rows: 500,
        learning_rate: 5e-3,
        ..plan()
    };
    let run = |threads| {
        let mut session = session(&program, threads, 3);
        let (training, validation) = (moons(6000, 8, 1), moons(2000, 8, 2));
        let report = session
            .train(&training, Some(&validation), &plan, &mut go_on)
            .expect("a training");
        assert!(
            report.epochs[14].validation_loss < Some(0.35),
            "{:?}",
            report.epochs[14]
        );
        bits(&session)
    };
    assert_eq!(run(1), run(4));
}

#[test]
fn a_gradient_that_is_not_finite_is_found_after_the_epoch() {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[]));
    let zero = builder.parameter("zero", &[], Initializer::Zeros);
    let root = builder.unary(UnaryOperation::SquareRoot, zero);
    let per_row = builder.multiply(x, root);
    builder.loss(per_row, None);
    builder.graph.optimizer = Some(adam());
    let mut session = session(&builder.compile(), 1, 1);
    let feeds = [("x".to_owned(), f32s(&[4], vec![1.0; 4]))].into();
    let plan = TrainPlan {
        epochs: 1,
        ..plan()
    };
    let refused = session
        .train(&feeds, None, &plan, &mut go_on)
        .expect_err("an infinite slope");
    assert_eq!(refused, RunError::WeightsNotFinite { epoch: 1 });
}

#[test]
fn batches_add_up_to_a_step() {
    // Weights, dropout and a clipped norm, and a last step that is shorter than the others.
    let program = classifier(12, 2, 0.2).compile();
    let training = moons(1_100, 12, 3);
    let trained = |threads: usize, batch_rows: u32, accumulate_steps: u32| {
        let mut session = session(&program, threads, 5);
        let plan = TrainPlan {
            epochs: 2,
            batch_rows,
            accumulate_steps,
            clip_norm: Some(0.5),
            ..plan()
        };
        let report = session
            .train(&training, None, &plan, &mut go_on)
            .expect("a training");
        (session, report)
    };
    let (whole, whole_report) = trained(2, 400, 1);
    for (batch_rows, accumulate_steps) in [(100, 4), (50, 8)] {
        let (parts, report) = trained(2, batch_rows, accumulate_steps);
        assert_eq!((report.steps, report.rows), (whole_report.steps, 2_200));
        let losses = report.epochs.iter().zip(&whole_report.epochs);
        for (parts, whole) in losses {
            assert!((parts.train_loss - whole.train_loss).abs() < 1e-5);
        }
        for (name, whole) in whole.weights() {
            let parts = parts.parameter(&name).expect("the parameter");
            for (one, other) in parts.to_f32().iter().zip(whole.to_f32()) {
                assert!((one - other).abs() < 2e-5, "{name}: {one} and {other}");
            }
        }
        let (alone, _) = trained(1, batch_rows, accumulate_steps);
        assert_eq!(bits(&alone), bits(&parts));
    }
    // It is the gradients that are added, not the steps that are made smaller.
    let (smaller, _) = trained(2, 100, 1);
    assert_ne!(bits(&smaller), bits(&whole));
}

#[test]
fn steps_and_schedules_that_make_no_sense_are_refused() {
    let program = classifier(4, 2, 0.0).compile();
    let feeds = moons(64, 4, 1);
    let refused = |plan: TrainPlan| {
        let mut session = session(&program, 1, 1);
        let error = session.train(&feeds, None, &plan, &mut go_on);
        error.expect_err("a refusal").to_string()
    };
    let of = |schedule| refused(TrainPlan { schedule, ..plan() });
    for accumulate_steps in [0, u32::MAX] {
        let plan = TrainPlan {
            accumulate_steps,
            ..plan()
        };
        assert!(refused(plan).contains("batches of a step"));
    }
    let floors = [-0.1, 1.1, f32::NAN];
    for floor in floors {
        let warmup_steps = 1;
        let linear = Schedule::Linear {
            warmup_steps,
            floor,
        };
        let exponential = Schedule::Exponential {
            warmup_steps,
            floor,
        };
        assert!(of(linear).contains("linear floor"));
        assert!(of(exponential).contains("exponential floor"));
    }
    let stepwise = |every_steps, factor| Schedule::Stepwise {
        every_steps,
        factor,
    };
    assert!(of(stepwise(0, 0.5)).contains("at least 1"));
    assert!(of(stepwise(1, 0.0)).contains("factor"));
}
