//! Gradients and hessians of the objectives, and what a forest says before its first tree.

use std::sync::Mutex;

use super::plan::Objective;
use super::table::Goal;
use super::workers::{Workers, lock};
use crate::cpu::level::Level;
use crate::cpu::trees::{self, BLOCK, Derivatives};

/// Rows of a piece of work that threads share; a multiple of [`BLOCK`].
const PIECE_ROWS: usize = 8 * BLOCK;

/// The least share that a class counts with before the first tree.
const LEAST_SHARE: f64 = 1e-15;

/// The scores that minimise the objective without any column; for Huber's loss the median.
pub(super) fn base_scores(objective: Objective, goal: &Goal) -> Vec<f64> {
    let weight = |row: usize| {
        goal.weights
            .as_ref()
            .map_or(1.0, |weights| f64::from(weights[row]))
    };
    match objective {
        Objective::SquaredError => {
            let sum: f64 = (0..goal.targets.len())
                .map(|row| weight(row) * f64::from(goal.targets[row]))
                .sum();
            vec![sum / goal.weight]
        }
        Objective::Huber { .. } => {
            let mut order: Vec<usize> = (0..goal.targets.len()).collect();
            order.sort_by(|one, other| {
                let by_target = goal.targets[*one].total_cmp(&goal.targets[*other]);
                by_target.then(one.cmp(other))
            });
            let mut before = 0.0;
            let middle = order.iter().find(|row| {
                before += weight(**row);
                before >= goal.weight / 2.0
            });
            vec![middle.map_or(0.0, |row| f64::from(goal.targets[*row]))]
        }
        Objective::Logistic | Objective::Softmax { .. } => {
            let classes = objective.classes().unwrap_or(2) as usize;
            let mut sums = vec![0.0; classes];
            for (row, target) in goal.targets.iter().enumerate() {
                sums[*target as usize] += weight(row);
            }
            let share = |sum: &f64| (sum / goal.weight).clamp(LEAST_SHARE, 1.0 - LEAST_SHARE);
            if objective == Objective::Logistic {
                let positive = share(&sums[1]);
                return vec![(positive / (1.0 - positive)).ln()];
            }
            sums.iter().map(|sum| share(sum).ln()).collect()
        }
    }
}

/// The derivatives of all rows, output by output.
#[derive(Debug)]
pub(super) struct Slopes {
    pub(super) gradients: Vec<Vec<f32>>,
    pub(super) hessians: Vec<Vec<f32>>,
}

impl Slopes {
    pub(super) fn new(outputs: usize, rows: usize) -> Self {
        Self {
            gradients: vec![vec![0.0; rows]; outputs],
            hessians: vec![vec![0.0; rows]; outputs],
        }
    }
}

/// What all rows add up to.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    /// The weighted mean of the losses.
    pub(super) loss: f64,
    /// For each output the largest gradient and hessian, without their signs.
    pub(super) largest: Vec<[f32; 2]>,
}

/// A piece of the rows.
struct Piece<'a> {
    start: usize,
    gradients: Vec<&'a mut [f32]>,
    hessians: Vec<&'a mut [f32]>,
    loss: f64,
    largest: Vec<[f32; 2]>,
}

/// Computes the derivatives at some scores.
pub(super) fn derive(
    objective: Objective,
    goal: &Goal,
    scores: &[Vec<f64>],
    slopes: &mut Slopes,
    workers: &Workers,
) -> Totals {
    let rows = goal.targets.len();
    let mut gradients: Vec<_> = chunked(&mut slopes.gradients);
    let mut hessians: Vec<_> = chunked(&mut slopes.hessians);
    let pieces: Vec<Mutex<Piece<'_>>> = (0..rows.div_ceil(PIECE_ROWS))
        .map(|piece| {
            Mutex::new(Piece {
                start: piece * PIECE_ROWS,
                gradients: gradients.iter_mut().filter_map(Iterator::next).collect(),
                hessians: hessians.iter_mut().filter_map(Iterator::next).collect(),
                loss: 0.0,
                largest: vec![[0.0; 2]; scores.len()],
            })
        })
        .collect();
    workers.run(pieces.len(), &|piece| {
        lock(&pieces[piece]).derive(objective, goal, scores);
    });
    let mut totals = Totals {
        loss: 0.0,
        largest: vec![[0.0; 2]; scores.len()],
    };
    // In the order of the rows, whoever computed them.
    for piece in &pieces {
        let piece = lock(piece);
        totals.loss += piece.loss;
        for (total, piece) in totals.largest.iter_mut().zip(&piece.largest) {
            *total = [larger(total[0], piece[0]), larger(total[1], piece[1])];
        }
    }
    totals.loss /= goal.weight;
    totals
}

/// The larger number; what is not a number is larger than any.
#[inline(always)]
fn larger(one: f32, other: f32) -> f32 {
    if other > one || other.is_nan() {
        other
    } else {
        one
    }
}

fn chunked(columns: &mut [Vec<f32>]) -> Vec<std::slice::ChunksMut<'_, f32>> {
    columns
        .iter_mut()
        .map(|column| column.chunks_mut(PIECE_ROWS))
        .collect()
}

impl Piece<'_> {
    fn derive(&mut self, objective: Objective, goal: &Goal, scores: &[Vec<f64>]) {
        let rows = self.gradients.first().map_or(0, |column| column.len());
        let level = Level::best();
        let mut losses = [0.0; BLOCK];
        let mut softmax = Softmax::default();
        for first in (0..rows).step_by(BLOCK) {
            let end = (first + BLOCK).min(rows);
            let all = self.start + first..self.start + end;
            let losses = &mut losses[..end - first];
            let targets = &goal.targets[all.clone()];
            if let Objective::Softmax { .. } = objective {
                softmax.derive(level, scores, targets, all.clone(), losses);
                for (class, shares) in softmax.shares.chunks_exact(end - first).enumerate() {
                    let factor = scores.len() as f32 / (scores.len() as f32 - 1.0);
                    let gradients = &mut self.gradients[class][first..end];
                    let hessians = &mut self.hessians[class][first..end];
                    let places = gradients.iter_mut().zip(hessians);
                    for ((share, target), (gradient, hessian)) in
                        shares.iter().zip(targets).zip(places)
                    {
                        let wanted = f32::from(u8::from(*target == class as f32));
                        *gradient = share - wanted;
                        *hessian = factor * share * (1.0 - share);
                    }
                }
            } else {
                let mut to = Derivatives {
                    gradients: &mut self.gradients[0][first..end],
                    hessians: &mut self.hessians[0][first..end],
                    losses: &mut *losses,
                };
                let scores = &scores[0][all.clone()];
                match objective {
                    Objective::Huber { delta } => {
                        trees::huber_derivatives(scores, targets, delta, &mut to);
                    }
                    Objective::SquaredError => {
                        trees::squared_derivatives(scores, targets, &mut to);
                    }
                    _ => trees::logistic_derivatives(level, scores, targets, &mut to),
                }
            }
            if let Some(weights) = &goal.weights {
                let weights = &weights[all];
                multiply(losses, weights);
                for column in self.gradients.iter_mut().chain(&mut self.hessians) {
                    multiply(&mut column[first..end], weights);
                }
            }
            self.loss += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
            let columns = self.gradients.iter().zip(&self.hessians);
            for ((gradients, hessians), most) in columns.zip(&mut self.largest) {
                for (gradient, hessian) in gradients[first..end].iter().zip(&hessians[first..end]) {
                    *most = [larger(most[0], gradient.abs()), larger(most[1], *hessian)];
                }
            }
        }
    }
}

fn multiply(numbers: &mut [f32], weights: &[f32]) {
    for (number, weight) in numbers.iter_mut().zip(weights) {
        *number *= weight;
    }
}

/// Memory for the softmax of a block.
#[derive(Debug, Default)]
struct Softmax {
    scores: Vec<f32>,
    shares: Vec<f32>,
    highest: Vec<f32>,
    sums: Vec<f32>,
}

impl Softmax {
    fn derive(
        &mut self,
        level: Level,
        scores: &[Vec<f64>],
        targets: &[f32],
        all: std::ops::Range<usize>,
        losses: &mut [f32],
    ) {
        let rows = all.len();
        self.scores.clear();
        for column in scores {
            let block = &column[all.clone()];
            self.scores.extend(block.iter().map(|score| *score as f32));
        }
        self.shares.resize(self.scores.len(), 0.0);
        self.highest.resize(rows, 0.0);
        self.sums.resize(rows, 0.0);
        trees::softmax_columns(
            level,
            &self.scores,
            rows,
            &mut self.shares,
            &mut self.highest,
            &mut self.sums,
        );
        for (row, (loss, target)) in losses.iter_mut().zip(targets).enumerate() {
            *loss = self.sums[row] - self.scores[*target as usize * rows + row];
        }
    }
}
