//! Forests against hand-made trees and an exact float64 reference.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use sandcast_kernels::StopReason;
use sandcast_kernels::trees::*;

fn workers(count: usize) -> Workers {
    Workers::start(NonZeroUsize::new(count)).expect("threads")
}

/// Rows of numbers, by columns.
struct Rows {
    rows: usize,
    columns: usize,
    numbers: Vec<f32>,
    category_columns: usize,
    categories: Vec<i32>,
}

impl Rows {
    fn of_numbers(columns: &[&[f32]]) -> Rows {
        let rows = columns[0].len();
        let numbers = (0..rows)
            .flat_map(|row| columns.iter().map(move |column| column[row]))
            .collect();
        Rows {
            rows,
            columns: columns.len(),
            numbers,
            category_columns: 0,
            categories: Vec::new(),
        }
    }

    fn of_categories(categories: &[i32]) -> Rows {
        Rows {
            rows: categories.len(),
            columns: 0,
            numbers: Vec::new(),
            category_columns: 1,
            categories: categories.to_vec(),
        }
    }

    fn table(&self) -> Table<'_> {
        Table::new(
            self.rows,
            (self.columns, &self.numbers),
            (self.category_columns, &self.categories),
        )
        .expect("a table")
    }

    fn one(&self, row: usize) -> Table<'_> {
        let (numbers, categories) = (self.columns, self.category_columns);
        Table::new(
            1,
            (numbers, &self.numbers[row * numbers..][..numbers]),
            (
                categories,
                &self.categories[row * categories..][..categories],
            ),
        )
        .expect("a table")
    }
}

/// One tree of two leaves that fits exactly, unless something else is said.
fn stump() -> ForestPlan {
    ForestPlan {
        rounds: 1,
        learning_rate: 1.0,
        max_leaves: 2,
        min_rows: 1,
        min_rows_in_bin: 1,
        categories: CategoryPlan {
            min_rows: 1,
            smoothing: 0.0,
            l2: 0.0,
            ..CategoryPlan::default()
        },
        ..ForestPlan::default()
    }
}

fn train_on(
    rows: &Rows,
    targets: Targets<'_>,
    weights: Option<&[f32]>,
    plan: &ForestPlan,
) -> Result<(Forest, ForestReport), ForestError> {
    let job = ForestJob {
        training: Examples {
            table: rows.table(),
            targets,
            weights,
        },
        validation: None,
        plan,
        caps: &ForestCaps::default(),
        seed: 7,
    };
    Forest::train(&job, &workers(1), &mut |_| ControlFlow::Continue(()))
}

fn regress(rows: &Rows, targets: &[f32], plan: &ForestPlan) -> Vec<f32> {
    let (forest, _) = train_on(rows, Targets::Numbers(targets), None, plan).expect("a forest");
    forest
        .predict(&rows.table(), &workers(1))
        .expect("a prediction")
}

const NAN: f32 = f32::NAN;

/// Leaves are sums of gradients in float32.
fn assert_near(found: &[f32], wanted: &[f32]) {
    let near =
        |(found, wanted): (&f32, &f32)| (found - wanted).abs() <= 1e-6 * wanted.abs().max(1.0);
    let place = found.iter().zip(wanted).position(|pair| !near(pair));
    let pair = place.map(|place| (place, found[place], wanted[place]));
    assert_eq!(pair, None, "row, found, wanted");
    assert_eq!(found.len(), wanted.len());
}

#[test]
fn a_stump_splits_between_the_values_that_differ() {
    let rows = Rows::of_numbers(&[&[7.0, 7.0, 7.0, 7.0], &[1.0, 2.0, 3.0, 4.0]]);
    let targets = [0.0, 0.0, 1.0, 1.0];
    let (forest, report) =
        train_on(&rows, Targets::Numbers(&targets), None, &stump()).expect("a forest");
    let asked = Rows::of_numbers(&[&[0.0; 4], &[2.5, 2.6, -1e30, f32::INFINITY]]);
    let found = forest
        .predict(&asked.table(), &workers(1))
        .expect("a prediction");
    assert_eq!(found, [0.0, 1.0, 0.0, 1.0]);
    assert_eq!((forest.trees(), forest.leaves()), (1, 2));
    assert_eq!(report.rounds[0].leaves, 2);
    assert_eq!(report.rounds[0].train_loss, 0.0);
    // Both sides: (2 * 0.5)² / 2 = 0.5 each; together they had none.
    let importance = forest.importance();
    assert_eq!(importance[0], Importance::default());
    assert_eq!(importance[1].splits, 1);
    assert!((importance[1].gain - 1.0).abs() < 1e-6, "{importance:?}");
}

#[test]
fn what_is_missing_goes_where_it_fits() {
    let numbers = [1.0, 2.0, NAN, 3.0, 4.0, NAN];
    let rows = Rows::of_numbers(&[&numbers]);
    assert_near(
        &regress(&rows, &[0.0, 0.0, 0.0, 1.0, 1.0, 0.0], &stump()),
        &[0.0, 0.0, 0.0, 1.0, 1.0, 0.0],
    );
    assert_near(
        &regress(&rows, &[0.0, 0.0, 1.0, 1.0, 1.0, 1.0], &stump()),
        &[0.0, 0.0, 1.0, 1.0, 1.0, 1.0],
    );
    // Missing against all that is there.
    assert_near(
        &regress(&rows, &[0.0, 0.0, 1.0, 0.0, 0.0, 1.0], &stump()),
        &[0.0, 0.0, 1.0, 0.0, 0.0, 1.0],
    );
    // Never missing in training: it goes with most rows.
    let rows = Rows::of_numbers(&[&[1.0, 2.0, 3.0]]);
    let (forest, _) =
        train_on(&rows, Targets::Numbers(&[5.0, 8.0, 8.0]), None, &stump()).expect("a forest");
    let asked = Rows::of_numbers(&[&[NAN]]);
    assert_near(
        &forest
            .predict(&asked.table(), &workers(1))
            .expect("a prediction"),
        &[8.0],
    );
}

#[test]
fn infinities_are_numbers_like_others() {
    let rows = Rows::of_numbers(&[&[f32::NEG_INFINITY, -1.0, 1.0, f32::INFINITY]]);
    let plan = ForestPlan {
        max_leaves: 4,
        ..stump()
    };
    let targets = [4.0, 1.0, 3.0, 2.0];
    assert_near(&regress(&rows, &targets, &plan), &targets);
}

#[test]
fn categories_are_split_into_two_sets() {
    // Few: one against the rest.
    let rows = Rows::of_categories(&[1, 2, 3, 1, 2, 3]);
    let targets = [0.0, 9.0, 0.0, 0.0, 9.0, 0.0];
    assert_near(&regress(&rows, &targets, &stump()), &targets);
    // Many: by the order of their gradients, whatever their numbers are.
    let numbers: Vec<i32> = (0..40).map(|row| row % 8).collect();
    let of = |category: &i32| {
        if [1, 4, 6].contains(category) {
            5.0
        } else {
            -1.0
        }
    };
    let targets: Vec<f32> = numbers.iter().map(of).collect();
    let rows = Rows::of_categories(&numbers);
    assert_near(&regress(&rows, &targets, &stump()), &targets);
    // What was not there is like what is unknown, and that was in training like category 0.
    let (forest, _) =
        train_on(&rows, Targets::Numbers(&targets), None, &stump()).expect("a forest");
    let asked = Rows::of_categories(&[0, 6, 99, -3, i32::MAX, i32::MIN]);
    let found = forest
        .predict(&asked.table(), &workers(1))
        .expect("a prediction");
    assert_near(&found, &[-1.0, 5.0, -1.0, -1.0, -1.0, -1.0]);
}

#[test]
fn rare_categories_share_the_bin_of_what_is_unknown() {
    let mut numbers: Vec<i32> = (0..900).map(|row| row % 300 + 1).collect();
    numbers.extend(1..=255);
    let targets: Vec<f32> = numbers
        .iter()
        .map(|number| f32::from(*number > 255))
        .collect();
    let rows = Rows::of_categories(&numbers);
    let found = regress(&rows, &targets, &stump());
    assert_near(&found, &targets);
}

#[test]
fn there_is_nothing_to_split() {
    for (columns, targets) in [
        (vec![1.0, 2.0, 3.0], vec![4.0, 4.0, 4.0]),
        (vec![1.0, 1.0, 1.0], vec![1.0, 5.0, 6.0]),
        (vec![NAN, NAN, NAN], vec![1.0, 5.0, 6.0]),
        (vec![5.0], vec![4.0]),
    ] {
        let rows = Rows::of_numbers(&[&columns]);
        let (forest, report) =
            train_on(&rows, Targets::Numbers(&targets), None, &stump()).expect("a forest");
        assert_eq!(
            (forest.trees(), report.best_round, report.rounds.len()),
            (0, 0, 0)
        );
        let found = forest
            .predict(&rows.table(), &workers(1))
            .expect("a prediction");
        assert!(found.iter().all(|found| *found == 4.0), "{found:?}");
        let read = Forest::from_bytes(&forest.to_bytes()).expect("the same forest");
        assert_eq!(read, forest);
    }
    // One class only.
    let rows = Rows::of_numbers(&[&[1.0, 2.0]]);
    let plan = ForestPlan {
        objective: Objective::Logistic,
        ..stump()
    };
    let (forest, _) = train_on(&rows, Targets::Labels(&[1, 1]), None, &plan).expect("a forest");
    let found = forest
        .predict(&rows.table(), &workers(1))
        .expect("a prediction");
    assert!(found.iter().all(|share| *share > 0.999_999), "{found:?}");
}

#[test]
fn weights_count_as_rows_do() {
    let once = Rows::of_numbers(&[&[1.0, 2.0, 3.0, 4.0]]);
    let often = Rows::of_numbers(&[&[1.0, 2.0, 2.0, 2.0, 3.0, 4.0, 4.0]]);
    let plan = ForestPlan {
        objective: Objective::Logistic,
        max_leaves: 4,
        l2: 1.0,
        learning_rate: 0.3,
        rounds: 5,
        min_hessian: 0.0,
        ..stump()
    };
    let (weighted, report) = train_on(
        &once,
        Targets::Labels(&[0, 1, 0, 1]),
        Some(&[1.0, 3.0, 1.0, 2.0]),
        &plan,
    )
    .expect("a forest");
    let (repeated, other) =
        train_on(&often, Targets::Labels(&[0, 1, 1, 1, 0, 1, 1]), None, &plan).expect("a forest");
    let found = [&weighted, &repeated]
        .map(|forest| forest.raw(&once.table(), &workers(1)).expect("scores"));
    for (one, other) in found[0].iter().zip(&found[1]) {
        assert!((one - other).abs() < 1e-5, "{found:?}");
    }
    assert!((report.rounds[4].train_loss - other.rounds[4].train_loss).abs() < 1e-6);
    // Class weights are row weights.
    let by_class = ForestPlan {
        class_weights: vec![1.0, 2.5],
        ..plan.clone()
    };
    let (classes, _) =
        train_on(&once, Targets::Labels(&[0, 1, 0, 1]), None, &by_class).expect("a forest");
    let (rows, _) = train_on(
        &once,
        Targets::Labels(&[0, 1, 0, 1]),
        Some(&[1.0, 2.5, 1.0, 2.5]),
        &plan,
    )
    .expect("a forest");
    assert_eq!(classes, rows);
}

/// An exact tree learner in float64, as slow as can be.
mod reference {
    pub(super) struct Plan {
        pub(super) rounds: usize,
        pub(super) leaves: usize,
        pub(super) rate: f64,
        pub(super) min_rows: usize,
        pub(super) min_hessian: f64,
        pub(super) l1: f64,
        pub(super) l2: f64,
    }

    fn shrunk(gradient: f64, l1: f64) -> f64 {
        gradient.signum() * (gradient.abs() - l1).max(0.0)
    }

    /// The best split of some rows: its gain and the rows that go left.
    fn best(
        columns: &[Vec<f64>],
        rows: &[usize],
        slopes: &[(f64, f64)],
        plan: &Plan,
    ) -> Option<(f64, Vec<usize>)> {
        let sums = |rows: &[usize]| {
            rows.iter().fold((0.0, 0.0), |(g, h), row| {
                (g + slopes[*row].0, h + slopes[*row].1)
            })
        };
        let score = |rows: &[usize]| {
            let (gradient, hessian) = sums(rows);
            shrunk(gradient, plan.l1).powi(2) / (hessian + plan.l2)
        };
        let mut found: Option<(f64, Vec<usize>)> = None;
        for column in columns {
            let mut values: Vec<f64> = rows
                .iter()
                .map(|row| column[*row])
                .filter(|value| !value.is_nan())
                .collect();
            values.sort_by(f64::total_cmp);
            values.dedup();
            for value in values {
                for missing_left in [false, true] {
                    let (left, right): (Vec<usize>, Vec<usize>) = rows.iter().partition(|row| {
                        let own = column[**row];
                        own <= value || own.is_nan() && missing_left
                    });
                    let fits = |side: &[usize]| {
                        side.len() >= plan.min_rows && sums(side).1 >= plan.min_hessian
                    };
                    if left.is_empty() || right.is_empty() || !fits(&left) || !fits(&right) {
                        continue;
                    }
                    let gain = score(&left) + score(&right) - score(rows);
                    if gain > 1e-9 && found.as_ref().is_none_or(|(most, _)| gain > *most + 1e-12) {
                        found = Some((gain, left));
                    }
                }
            }
        }
        found
    }

    /// Scores of the rows after the rounds.
    pub(super) fn scores(
        columns: &[Vec<f64>],
        base: f64,
        slope: &dyn Fn(usize, f64) -> (f64, f64),
        plan: &Plan,
    ) -> Vec<f64> {
        let count = columns[0].len();
        let mut scores = vec![base; count];
        for _ in 0..plan.rounds {
            let slopes: Vec<(f64, f64)> = (0..count).map(|row| slope(row, scores[row])).collect();
            let mut leaves = vec![(0..count).collect::<Vec<_>>()];
            while leaves.len() < plan.leaves {
                let candidates = leaves
                    .iter()
                    .enumerate()
                    .filter_map(|(leaf, rows)| Some((leaf, best(columns, rows, &slopes, plan)?)));
                let Some((leaf, (_, left))) =
                    candidates.reduce(|one, other| if other.1.0 > one.1.0 { other } else { one })
                else {
                    break;
                };
                let right = leaves[leaf]
                    .iter()
                    .copied()
                    .filter(|row| !left.contains(row))
                    .collect();
                leaves[leaf] = left;
                leaves.push(right);
            }
            for rows in leaves {
                let (gradient, hessian) = rows.iter().fold((0.0, 0.0), |(g, h), row| {
                    (g + slopes[*row].0, h + slopes[*row].1)
                });
                let value = -shrunk(gradient, plan.l1) / (hessian + plan.l2) * plan.rate;
                rows.iter().for_each(|row| scores[*row] += value);
            }
        }
        scores
    }
}

/// Numbers that look drawn, in 0..1.
fn noise(seed: u64, place: u64) -> f64 {
    let mut word = (seed << 32 | place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^= word >> 29;
    word = word.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (word >> 11) as f64 / (1_u64 << 53) as f64
}

#[test]
fn forests_are_those_of_the_exact_reference() {
    let rows = 60;
    for seed in 0..12_u64 {
        let column = |number: u64| -> Vec<f64> {
            (0..rows)
                .map(|row| noise(seed * 10 + number, row))
                .map(|value| {
                    if number == 2 && value < 0.2 {
                        f64::NAN
                    } else {
                        (value * 100.0).round()
                    }
                })
                .collect()
        };
        let columns = [column(0), column(1), column(2)];
        let weights: Vec<f32> = (0..rows)
            .map(|row| 0.5 + noise(seed + 900, row) as f32)
            .collect();
        let score = |row: usize| {
            columns[0][row] * 0.02 - (columns[1][row] - 50.0).abs() * 0.05
                + if columns[2][row].is_nan() { 1.0 } else { 0.0 }
        };
        let as_f32: Vec<Vec<f32>> = columns
            .iter()
            .map(|column| column.iter().map(|value| *value as f32).collect())
            .collect();
        let table = Rows::of_numbers(&[&as_f32[0], &as_f32[1], &as_f32[2]]);
        let exact = reference::Plan {
            rounds: 6,
            leaves: 5,
            rate: 0.3,
            min_rows: 4,
            min_hessian: 0.5,
            l1: 0.1,
            l2: 0.7,
        };
        let plan = ForestPlan {
            rounds: 6,
            max_leaves: 5,
            learning_rate: 0.3,
            min_rows: 4,
            min_hessian: 0.5,
            l1: 0.1,
            l2: 0.7,
            min_rows_in_bin: 1,
            ..ForestPlan::default()
        };
        let weight: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let mean = |of: &dyn Fn(usize) -> f64| {
            (0..rows as usize)
                .map(|row| f64::from(weights[row]) * of(row))
                .sum::<f64>()
                / weight
        };

        let targets: Vec<f32> = (0..rows as usize).map(|row| score(row) as f32).collect();
        let (forest, _) =
            train_on(&table, Targets::Numbers(&targets), Some(&weights), &plan).expect("a forest");
        let wanted = reference::scores(
            &columns,
            mean(&|row| f64::from(targets[row])),
            &|row, score| {
                let weight = f64::from(weights[row]);
                (weight * (score - f64::from(targets[row])), weight)
            },
            &exact,
        );
        let found = forest.raw(&table.table(), &workers(1)).expect("scores");
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!(
                (f64::from(*found) - wanted).abs() < 1e-5,
                "{seed}: {found} {wanted}"
            );
        }

        let labels: Vec<i32> = (0..rows as usize)
            .map(|row| i32::from(noise(seed + 700, row as u64) < 1.0 / (1.0 + (-score(row)).exp())))
            .collect();
        let plan = ForestPlan {
            objective: Objective::Logistic,
            ..plan
        };
        let (forest, _) =
            train_on(&table, Targets::Labels(&labels), Some(&weights), &plan).expect("a forest");
        let share = mean(&|row| f64::from(labels[row]));
        let wanted = reference::scores(
            &columns,
            (share / (1.0 - share)).ln(),
            &|row, score| {
                let (weight, share) = (f64::from(weights[row]), 1.0 / (1.0 + (-score).exp()));
                (
                    weight * (share - f64::from(labels[row])),
                    weight * share * (1.0 - share),
                )
            },
            &exact,
        );
        let found = forest.raw(&table.table(), &workers(1)).expect("scores");
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!(
                (f64::from(*found) - wanted).abs() < 1e-4,
                "{seed}: {found} {wanted}"
            );
        }
        let shares = forest.predict(&table.table(), &workers(1)).expect("shares");
        for (share, score) in shares.iter().zip(&found) {
            let exact = 1.0 / (1.0 + f64::from(-score).exp());
            assert!((f64::from(*share) - exact).abs() < 1e-6);
        }
    }
}

/// A table of everything: numbers, some missing, categories, and three classes.
fn mixed(rows: usize) -> (Rows, Vec<i32>) {
    let value = |column: u64, row: usize| noise(column, row as u64) as f32;
    let mut table = Rows {
        rows,
        columns: 11,
        numbers: Vec::new(),
        category_columns: 2,
        categories: Vec::new(),
    };
    let mut labels = Vec::new();
    for row in 0..rows {
        for column in 0..11 {
            let number = value(column, row);
            let missing = column == 3 && number < 0.15;
            table.numbers.push(if missing { NAN } else { number });
        }
        let category = (value(20, row) * 12.0) as i32;
        table.categories.push(category);
        table.categories.push((value(21, row) * 3.0) as i32);
        let score = value(0, row) + value(1, row) * value(2, row) + (category % 3) as f32 * 0.4;
        labels.push((score + value(22, row) * 0.5).min(2.0) as i32);
    }
    (table, labels)
}

fn everything() -> ForestPlan {
    ForestPlan {
        objective: Objective::Softmax { classes: 3 },
        rounds: 12,
        max_leaves: 15,
        feature_fraction: 0.7,
        bagging_fraction: 0.8,
        bagging_rounds: 3,
        ..ForestPlan::default()
    }
}

#[test]
fn bits_do_not_depend_on_threads_and_rows_not_on_their_batch() {
    let (rows, labels) = mixed(70_000);
    let (judged, judged_labels) = mixed(2_000);
    let plan = ForestPlan {
        patience: Some(5),
        ..everything()
    };
    let train = |threads: usize| {
        let job = ForestJob {
            training: Examples {
                table: rows.table(),
                targets: Targets::Labels(&labels),
                weights: None,
            },
            validation: Some(Examples {
                table: judged.table(),
                targets: Targets::Labels(&judged_labels),
                weights: None,
            }),
            plan: &plan,
            caps: &ForestCaps::default(),
            seed: 11,
        };
        let made = Forest::train(&job, &workers(threads), &mut |_| ControlFlow::Continue(()));
        let (forest, report) = made.expect("a forest");
        let losses: Vec<_> = report
            .rounds
            .iter()
            .map(|round| (round.train_loss, round.validation_loss))
            .collect();
        (forest, losses)
    };
    let (forest, losses) = train(1);
    for threads in [2, 5] {
        let (other, other_losses) = train(threads);
        assert_eq!(other_losses, losses, "{threads} threads");
        assert_eq!(other.to_bytes(), forest.to_bytes(), "{threads} threads");
    }
    let first = losses.first().expect("a round").0;
    assert!(
        losses.last().expect("a round").0 < first * 0.8,
        "{losses:?}"
    );

    let all = forest
        .predict(&judged.table(), &workers(3))
        .expect("shares");
    let bits = |numbers: &[f32]| {
        numbers
            .iter()
            .map(|number| number.to_bits())
            .collect::<Vec<_>>()
    };
    for row in (0..judged.rows).step_by(7) {
        let one = forest
            .predict(&judged.one(row), &workers(1))
            .expect("shares");
        assert_eq!(bits(&one), bits(&all[row * 3..][..3]), "row {row}");
        assert!((one.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
    let right = all
        .chunks_exact(3)
        .zip(&judged_labels)
        .filter(|(shares, label)| shares[**label as usize] > 0.5)
        .count();
    assert!(right > judged.rows / 2, "{right} of {}", judged.rows);
}

#[test]
fn few_columns_are_shared_by_rows_to_the_same_bits() {
    let (rows, labels) = mixed(80_000);
    let narrow = Rows {
        rows: rows.rows,
        columns: 2,
        numbers: rows
            .numbers
            .chunks_exact(11)
            .flat_map(|row| [row[0], row[3]])
            .collect(),
        category_columns: 0,
        categories: Vec::new(),
    };
    let plan = ForestPlan {
        objective: Objective::Softmax { classes: 3 },
        rounds: 3,
        ..ForestPlan::default()
    };
    let made = [1, 5].map(|threads| {
        let job = ForestJob {
            training: Examples {
                table: narrow.table(),
                targets: Targets::Labels(&labels),
                weights: None,
            },
            validation: None,
            plan: &plan,
            caps: &ForestCaps::default(),
            seed: 7,
        };
        let made = Forest::train(&job, &workers(threads), &mut |_| ControlFlow::Continue(()));
        made.expect("a forest").0
    });
    assert_eq!(made[0].to_bytes(), made[1].to_bytes());
}

#[test]
fn patience_returns_to_the_best_round() {
    // Training labels are noise, so that the first rounds are the best there are.
    let rows = Rows::of_numbers(&[&(0..400).map(|row| row as f32).collect::<Vec<_>>()]);
    let drawn = |seed: u64| -> Vec<i32> {
        (0..400)
            .map(|row| i32::from(noise(seed, row) < 0.3 + row as f64 / 1000.0))
            .collect()
    };
    let (labels, others) = (drawn(1), drawn(2));
    let plan = ForestPlan {
        objective: Objective::Logistic,
        rounds: 200,
        min_rows: 2,
        patience: Some(4),
        ..ForestPlan::default()
    };
    let examples = |labels| Examples {
        table: rows.table(),
        targets: Targets::Labels(labels),
        weights: None,
    };
    let job = ForestJob {
        training: examples(&labels),
        validation: Some(examples(&others)),
        plan: &plan,
        caps: &ForestCaps::default(),
        seed: 7,
    };
    let (forest, report) =
        Forest::train(&job, &workers(1), &mut |_| ControlFlow::Continue(())).expect("a forest");
    assert!(report.stopped_early);
    assert_eq!(report.rounds.len(), report.best_round as usize + 4);
    assert_eq!(forest.trees(), report.best_round as usize);
    let loss = |round: usize| report.rounds[round].validation_loss.expect("a loss");
    let best = report.best_round as usize - 1;
    assert!((0..report.rounds.len()).all(|round| loss(round) >= loss(best)));
    // The loss of the best round is that of the forest that came back.
    let shares = forest.predict(&rows.table(), &workers(1)).expect("shares");
    let total: f64 = shares
        .iter()
        .zip(&others)
        .map(|(share, label)| {
            let share = f64::from(*share);
            -(if *label == 1 { share } else { 1.0 - share }).ln()
        })
        .sum();
    assert!((total / 400.0 - loss(best)).abs() < 1e-5);
}

#[test]
fn whoever_watches_ends_an_answer_between_pieces_of_rows() {
    let numbers: Vec<f32> = (0..5_000).map(|row| row as f32).collect();
    let rows = Rows::of_numbers(&[&numbers]);
    let plan = ForestPlan {
        rounds: 3,
        ..stump()
    };
    let (forest, _) = train_on(&rows, Targets::Numbers(&numbers), None, &plan).expect("a forest");
    let looks = AtomicUsize::new(0);
    let watched = |most: usize, threads| {
        looks.store(0, Ordering::Relaxed);
        let look = || match looks.fetch_add(1, Ordering::Relaxed) {
            before if before < most => ControlFlow::Continue(()),
            _ => ControlFlow::Break(StopReason::Cancelled),
        };
        forest.predict_watched(&rows.table(), &workers(threads), &look)
    };
    let all = forest.predict(&rows.table(), &workers(1)).expect("answers");
    assert_eq!(watched(usize::MAX, 2).expect("answers"), all);
    assert!(looks.load(Ordering::Relaxed) > 1);
    for threads in [1, 2] {
        let error = watched(2, threads).expect_err("it is ended");
        let reason = StopReason::Cancelled;
        assert_eq!(error, ForestError::Unanswered { reason });
        // Each thread that was at work asks once.
        assert!(looks.load(Ordering::Relaxed) <= 2 + threads);
    }
}

#[test]
fn a_watcher_stops_a_training_between_splits_and_after_rounds() {
    let (rows, labels) = mixed(3_000);
    let run = |at: usize, only_reports: bool| {
        let plan = everything();
        let job = ForestJob {
            training: Examples {
                table: rows.table(),
                targets: Targets::Labels(&labels),
                weights: None,
            },
            validation: None,
            plan: &plan,
            caps: &ForestCaps::default(),
            seed: 7,
        };
        let mut asked = 0;
        Forest::train(&job, &workers(1), &mut |progress| {
            assert_eq!(progress.rounds, 12);
            asked += usize::from(!only_reports || progress.report.is_some());
            if asked == at {
                return ControlFlow::Break(StopReason::Cancelled);
            }
            ControlFlow::Continue(())
        })
    };
    let stopped = |round| ForestError::Stopped {
        round,
        reason: StopReason::Cancelled,
    };
    assert_eq!(run(1, false).expect_err("stopped"), stopped(1));
    assert_eq!(run(10, false).expect_err("stopped"), stopped(1));
    assert_eq!(run(3, true).expect_err("stopped"), stopped(3));
    // After the last round there is nothing left to stop.
    assert!(run(12, true).is_ok());
}

#[test]
fn huber_minds_outliers_less_than_squares_do() {
    let numbers: Vec<f32> = (0..40).map(|row| row as f32).collect();
    let mut targets: Vec<f32> = numbers
        .iter()
        .map(|x| if *x < 20.0 { 1.0 } else { 3.0 })
        .collect();
    targets[5] = 1e6;
    let rows = Rows::of_numbers(&[&numbers]);
    let plan = ForestPlan {
        objective: Objective::Huber { delta: 0.5 },
        rounds: 60,
        max_leaves: 2,
        learning_rate: 0.5,
        min_rows: 5,
        min_rows_in_bin: 1,
        ..ForestPlan::default()
    };
    let found = regress(&rows, &targets, &plan);
    assert!(
        (found[0] - 1.0).abs() < 0.1 && (found[30] - 3.0).abs() < 0.1,
        "{found:?}"
    );
    let squared = ForestPlan {
        objective: Objective::SquaredError,
        rounds: 1,
        ..plan
    };
    // Rows that share a leaf with the outlier.
    let pulled = regress(&rows, &targets, &squared);
    assert!(
        pulled[..5]
            .iter()
            .chain(&pulled[6..20])
            .any(|found| *found > 1e4)
    );
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    let rows = Rows::of_numbers(&[&[1.0, 2.0, 3.0]]);
    let fails = |targets: Targets<'_>, weights: Option<&[f32]>, plan: &ForestPlan| {
        train_on(&rows, targets, weights, plan)
            .expect_err("refused")
            .to_string()
    };
    let squares = stump();
    let good = Targets::Numbers(&[1.0, 2.0, 3.0]);
    for weights in [
        [1.0, NAN, 1.0],
        [1.0, -1.0, 1.0],
        [f32::INFINITY, 1.0, 1.0],
        [0.0; 3],
    ] {
        let message = fails(good, Some(&weights), &squares);
        assert!(
            message.starts_with("the weights of the rows must be finite"),
            "{message}"
        );
    }
    let message = fails(
        Targets::Numbers(&[1.0, 2.0, 300.0]),
        Some(&[3e38; 3]),
        &squares,
    );
    assert!(message.contains("not finite in round 1"), "{message}");
    let message = fails(good, Some(&[1.0; 2]), &squares);
    assert!(message.contains("2 weights for 3 rows"), "{message}");
    for (number, said) in [(NAN, "NaN"), (f32::INFINITY, "inf")] {
        let message = fails(Targets::Numbers(&[1.0, number, 1.0]), None, &squares);
        assert!(message.contains(&format!("row 1 is {said}")), "{message}");
    }
    let message = fails(Targets::Numbers(&[-3e38, 3e38, 3e38]), None, &squares);
    assert!(message.contains("not finite"), "{message}");
    assert!(fails(Targets::Labels(&[0, 1, 0]), None, &squares).contains("needs numbers"));
    let logistic = ForestPlan {
        objective: Objective::Logistic,
        ..stump()
    };
    assert!(fails(good, None, &logistic).contains("needs labels"));
    for label in [2, -1] {
        let message = fails(Targets::Labels(&[0, 1, label]), None, &logistic);
        assert!(message.contains("labels are 0 to 1"), "{message}");
    }
    assert!(fails(Targets::Numbers(&[1.0]), None, &squares).contains("1 targets for 3 rows"));
    assert!(Table::new(2, (3, &[0.0; 5]), (0, &[])).is_err());
    assert!(Table::new(usize::MAX, (3, &[0.0; 5]), (0, &[])).is_err());

    let none = Rows::of_numbers(&[&[]]);
    let error = train_on(&none, Targets::Numbers(&[]), None, &squares).expect_err("no rows");
    assert_eq!(error, ForestError::Nothing { what: "rows" });
    let bare = Rows {
        rows: 3,
        columns: 0,
        ..Rows::of_numbers(&[&[]])
    };
    let error = train_on(&bare, good, None, &squares).expect_err("no columns");
    assert_eq!(error, ForestError::Nothing { what: "columns" });

    let (forest, _) = train_on(&rows, good, None, &squares).expect("a forest");
    let wide = Rows::of_numbers(&[&[1.0], &[2.0]]);
    let error = forest
        .predict(&wide.table(), &workers(1))
        .expect_err("another width");
    assert!(error.to_string().contains("2 numbers"), "{error}");
    let found = forest.predict(&none.table(), &workers(1)).expect("no rows");
    assert!(found.is_empty());
}

#[test]
fn plans_that_make_no_sense_or_ask_too_much_are_refused() {
    let rows = Rows::of_numbers(&[&[1.0, 2.0, 3.0]]);
    let refused = |change: &dyn Fn(&mut ForestPlan)| {
        let mut plan = stump();
        change(&mut plan);
        train_on(&rows, Targets::Numbers(&[1.0, 2.0, 3.0]), None, &plan)
            .expect_err("refused")
            .to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut ForestPlan);
    let cases: [(Change<'_>, &str); 17] = [
        (&|plan| plan.rounds = 0, "`rounds` is 0"),
        (&|plan| plan.max_leaves = 1, "`max_leaves` is 1"),
        (&|plan| plan.max_depth = Some(0), "`max_depth` is 0"),
        (&|plan| plan.min_rows = 0, "`min_rows` is 0"),
        (&|plan| plan.learning_rate = 0.0, "`learning_rate` is 0"),
        (&|plan| plan.learning_rate = NAN, "`learning_rate` is NaN"),
        (&|plan| plan.l1 = -1.0, "`l1` is -1"),
        (&|plan| plan.l2 = f32::INFINITY, "`l2` is inf"),
        (&|plan| plan.max_bins = 256, "`max_bins` is 256"),
        (&|plan| plan.max_bins = 1, "`max_bins` is 1"),
        (
            &|plan| plan.feature_fraction = 0.0,
            "`feature_fraction` is 0",
        ),
        (
            &|plan| plan.bagging_fraction = 1.5,
            "`bagging_fraction` is 1.5",
        ),
        (
            &|plan| plan.class_weights = vec![1.0],
            "1 class weights for 0 classes",
        ),
        (
            &|plan| plan.objective = Objective::Huber { delta: -1.0 },
            "`delta` is -1",
        ),
        (&|plan| plan.rounds = u32::MAX, "lower `rounds`"),
        (&|plan| plan.max_leaves = u32::MAX, "lower `max_leaves`"),
        (
            &|plan| plan.objective = Objective::Softmax { classes: u32::MAX },
            "classes are 4294967295",
        ),
    ];
    for (change, said) in cases {
        let message = refused(change);
        assert!(message.contains(said), "{message}");
    }
    let plan = stump();
    let caps = ForestCaps {
        bytes: 1 << 20,
        ..ForestCaps::default()
    };
    let job = ForestJob {
        training: Examples {
            table: rows.table(),
            targets: Targets::Numbers(&[1.0, 2.0, 3.0]),
            weights: None,
        },
        validation: None,
        plan: &plan,
        caps: &caps,
        seed: 7,
    };
    let error =
        Forest::train(&job, &workers(1), &mut |_| ControlFlow::Continue(())).expect_err("too much");
    assert!(
        matches!(
            error,
            ForestError::TooLarge {
                most: 1_048_576,
                ..
            }
        ),
        "{error}"
    );
}

fn small_forest() -> (Rows, Forest) {
    let (rows, labels) = mixed(1_500);
    let plan = ForestPlan {
        rounds: 3,
        max_leaves: 6,
        ..everything()
    };
    let (forest, _) = train_on(&rows, Targets::Labels(&labels), None, &plan).expect("a forest");
    (rows, forest)
}

#[test]
fn a_forest_comes_back_from_its_bytes() {
    let (rows, forest) = small_forest();
    let bytes = forest.to_bytes();
    let read = Forest::from_bytes(&bytes).expect("the same forest");
    assert_eq!(read, forest);
    assert_eq!(read.to_bytes(), bytes);
    assert_eq!(read.columns(), (11, 2));
    assert_eq!(read.outputs(), 3);
    assert!(read.memory_bytes() > 0);
    assert_eq!(
        read.raw(&rows.table(), &workers(1)),
        forest.raw(&rows.table(), &workers(2))
    );
    for length in 0..bytes.len() {
        assert!(
            Forest::from_bytes(&bytes[..length]).is_err(),
            "{length} bytes"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Changed bytes are refused, or are a forest that answers.
    #[test]
    fn hostile_bytes_do_no_harm(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        static FOREST: std::sync::LazyLock<(Rows, Vec<u8>, Workers)> =
            std::sync::LazyLock::new(|| {
                let (rows, forest) = small_forest();
                (rows, forest.to_bytes(), workers(1))
            });
        let (rows, bytes, workers) = &*FOREST;
        let mut bytes = bytes.clone();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(forest) = Forest::from_bytes(&bytes) {
            if let Ok(answers) = forest.raw(&rows.table(), workers) {
                prop_assert_eq!(answers.len(), rows.rows * forest.outputs());
            }
            prop_assert!(forest.importance().iter().all(|one| one.gain >= 0.0));
        }
    }

    /// Whatever the numbers are, a training ends with a forest or an error.
    #[test]
    fn any_numbers_are_learnt_or_refused(
        rows in 1_usize..40,
        bits in prop::collection::vec(any::<u32>(), 160),
        leaves in 2_u32..9,
        classes in 2_u32..4,
    ) {
        let number = |place: usize| f32::from_bits(bits[place]);
        let table = Rows {
            rows,
            columns: 2,
            numbers: (0..rows * 2).map(number).collect(),
            category_columns: 1,
            categories: (0..rows).map(|row| (bits[80 + row] % 70_000) as i32 - 5).collect(),
        };
        let labels: Vec<i32> = (0..rows)
            .map(|row| (bits[120 + row] % classes) as i32)
            .collect();
        let plan = ForestPlan {
            objective: Objective::Softmax { classes },
            rounds: 4,
            max_leaves: leaves,
            min_hessian: 0.0,
            ..stump()
        };
        let (forest, _) = train_on(&table, Targets::Labels(&labels), None, &plan)
            .map_err(|error| TestCaseError::fail(error.to_string()))?;
        let shares = forest.predict(&table.table(), &workers(1)).expect("shares");
        prop_assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        let targets: Vec<f32> = (0..rows).map(|row| number(120 + row)).collect();
        let plan = ForestPlan { objective: Objective::SquaredError, ..plan };
        if let Ok((forest, _)) = train_on(&table, Targets::Numbers(&targets), None, &plan) {
            let found = forest.predict(&table.table(), &workers(1)).expect("numbers");
            prop_assert_eq!(found.len(), rows);
        }
    }
}
