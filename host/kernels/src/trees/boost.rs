//! Round after round a tree for each output, each fitted to what those before left over.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::bins::{Binned, Cuts};
use super::error::ForestError;
use super::forest::{Forest, Grove};
use super::grow::{Grower, Grown};
use super::objective::{self, Slopes, Totals};
use super::plan::{ForestCaps, ForestPlan, TableSize};
use super::table::{Examples, Goal};
use super::workers::{Workers, lock};
use crate::cpu::trees::{self, Packed, Units, Ways};
use crate::random::{Purpose, Stream, permutation, unit};
use crate::train::StopReason;

/// Rows of a piece of work that threads share.
const PIECE_ROWS: usize = 16_384;

/// What a forest is to be trained on, and how.
#[derive(Clone, Copy, Debug)]
pub struct ForestJob<'a> {
    /// Rows to learn from.
    pub training: Examples<'a>,
    /// Rows to stop early by.
    pub validation: Option<Examples<'a>>,
    /// How.
    pub plan: &'a ForestPlan,
    /// What there may be of everything.
    pub caps: &'a ForestCaps,
    /// Same seed, same forest.
    pub seed: u64,
}

/// Where a training is; given to the watcher before every split and after every round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForestProgress<'a> {
    /// The round, counted from 1.
    pub round: u32,
    /// Rounds there will be if nothing stops early.
    pub rounds: u32,
    /// Time since the training began.
    pub elapsed: Duration,
    /// The round that just ended; none between splits.
    pub report: Option<&'a RoundReport>,
}

/// Asked whether to go on.
pub type ForestWatch<'a> = dyn FnMut(ForestProgress<'_>) -> ControlFlow<StopReason> + 'a;

/// What a round gave.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundReport {
    /// Counted from 1.
    pub round: u32,
    /// The weighted mean over the training rows after the round.
    pub train_loss: f64,
    /// The weighted mean over the validation rows after the round.
    pub validation_loss: Option<f64>,
    /// Leaves of the round's trees.
    pub leaves: u32,
    /// How long the round took, validation included.
    pub duration: Duration,
}

/// What a training gave.
#[derive(Clone, Debug, PartialEq)]
pub struct ForestReport {
    /// Every round that was made. One in which no tree could be split ends the training and is
    /// not among them.
    pub rounds: Vec<RoundReport>,
    /// The last round whose trees are in the forest, counted from 1; 0 for a forest that says
    /// the same of every row.
    pub best_round: u32,
    /// Whether patience ran out before the rounds did.
    pub stopped_early: bool,
}

impl Forest {
    /// Trains a forest. Same rows, plan and seed: same bits, at any number of threads. `watch`
    /// is asked before every split and after every round whether to go on.
    ///
    /// # Errors
    /// When the plan, the rows or their weights make no sense, there is more than the caps
    /// allow, numbers are not finite, or the watcher stops it.
    pub fn train(
        job: &ForestJob<'_>,
        workers: &Workers,
        watch: &mut ForestWatch<'_>,
    ) -> Result<(Forest, ForestReport), ForestError> {
        let (plan, table) = (job.plan, &job.training.table);
        let validation = job.validation.filter(|examples| examples.table.rows > 0);
        let size = TableSize {
            rows: table.rows as u64,
            validation_rows: validation.map_or(0, |examples| examples.table.rows as u64),
            numbers: table.number_columns as u64,
            categories: table.category_columns as u64,
        };
        plan.check(size, job.caps)?;
        for (what, count) in [("rows", table.rows), ("columns", table.columns())] {
            if count == 0 {
                return Err(ForestError::Nothing { what });
            }
        }
        let goal = job.training.goal(plan.objective, &plan.class_weights)?;
        if let Some(examples) = &validation {
            examples.check_like(table)?;
        }
        let validation_goal = validation
            .map(|examples| examples.goal(plan.objective, &plan.class_weights))
            .transpose()?;
        let mut watched = Watched {
            started: Instant::now(),
            rounds: plan.rounds,
            watch,
        };
        watched.ask(1, None)?;
        let cuts = Cuts::of(table, plan, job.seed, job.caps, workers)?;
        let binned = cuts.bin(table, workers);
        let base = objective::base_scores(plan.objective, &goal);
        let validation = validation
            .zip(validation_goal)
            .map(|(examples, goal)| Side::new(cuts.bin(&examples.table, workers), goal, &base));
        let boost = Boost {
            plan,
            cuts: &cuts,
            seed: job.seed,
            workers,
            grower: Grower::new(&cuts, &binned, plan, workers),
            training: Side::new(&binned, goal, &base),
            validation,
            leaf_of: (0..table.rows).map(|_| AtomicU16::new(0)).collect(),
            in_bag: Vec::new(),
            grove: Grove::default(),
        };
        let (grove, report) = boost.run(&mut watched)?;
        let forest = grove.finish(plan.objective, base, &cuts);
        // It was grown from these very cuts.
        let forest = forest.ok_or(ForestError::NotFinite { round: 0 })?;
        Ok((forest, report))
    }
}

/// Who is asked whether to go on.
struct Watched<'a, 'b> {
    started: Instant,
    rounds: u32,
    watch: &'a mut ForestWatch<'b>,
}

impl Watched<'_, '_> {
    fn ask(&mut self, round: u32, report: Option<&RoundReport>) -> Result<(), ForestError> {
        let progress = ForestProgress {
            round,
            rounds: self.rounds,
            elapsed: self.started.elapsed(),
            report,
        };
        match (self.watch)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(reason) => Err(ForestError::Stopped { round, reason }),
        }
    }
}

/// Rows with what the forest says of them so far.
struct Side<B> {
    binned: B,
    goal: Goal,
    /// For each output that of every row.
    scores: Vec<Vec<f64>>,
    slopes: Slopes,
}

impl<B: AsRef<Binned>> Side<B> {
    fn new(binned: B, goal: Goal, base: &[f64]) -> Self {
        let rows = binned.as_ref().rows;
        Self {
            binned,
            goal,
            scores: base.iter().map(|base| vec![*base; rows]).collect(),
            slopes: Slopes::new(base.len(), rows),
        }
    }

    /// Derivatives and loss at the scores.
    fn derive(&mut self, plan: &ForestPlan, workers: &Workers) -> Totals {
        let (scores, slopes) = (&self.scores, &mut self.slopes);
        objective::derive(plan.objective, &self.goal, scores, slopes, workers)
    }

    /// Adds what a tree says of the rows that are not left out, going by their bins.
    fn add(
        &mut self,
        output: usize,
        nodes: &[Grown],
        cuts: &Cuts,
        left_out: &[bool],
        workers: &Workers,
    ) {
        let steps: Vec<Step> = nodes.iter().map(|node| Step::of(node, cuts)).collect();
        let groups = &self.binned.as_ref().groups;
        let pieces: Vec<_> = self.scores[output]
            .chunks_mut(PIECE_ROWS)
            .enumerate()
            .map(|(piece, scores)| Mutex::new((piece * PIECE_ROWS, scores)))
            .collect();
        workers.run(pieces.len(), &|piece| {
            let (start, scores) = &mut *lock(&pieces[piece]);
            for (row, score) in (*start..).zip(scores.iter_mut()) {
                if !left_out.get(row).copied().unwrap_or(false) {
                    *score += Step::walk(&steps, groups, row);
                }
            }
        });
    }
}

/// A node as rows in bins pass it.
enum Step {
    Leaf(f64),
    Split {
        group: usize,
        lane: usize,
        ways: Box<Ways>,
        left: usize,
    },
}

impl Step {
    fn of(node: &Grown, cuts: &Cuts) -> Step {
        match node {
            Grown::Leaf { value } => Step::Leaf(*value),
            Grown::Split {
                column, side, left, ..
            } => {
                let place = cuts.place(*column);
                Step::Split {
                    group: place.group,
                    lane: place.lane,
                    ways: Box::new(side.ways()),
                    left: *left,
                }
            }
        }
    }

    fn walk(steps: &[Step], groups: &[Vec<Packed>], row: usize) -> f64 {
        let mut place = 0;
        loop {
            match &steps[place] {
                Step::Leaf(value) => return *value,
                Step::Split {
                    group,
                    lane,
                    ways,
                    left,
                } => {
                    let bin = groups[*group][row][*lane];
                    place = left + 1 - usize::from(ways[usize::from(bin)]);
                }
            }
        }
    }
}

/// A training under way.
struct Boost<'a> {
    plan: &'a ForestPlan,
    cuts: &'a Cuts,
    seed: u64,
    workers: &'a Workers,
    grower: Grower<'a>,
    training: Side<&'a Binned>,
    validation: Option<Side<Binned>>,
    /// The leaf of each row in the tree that was grown last.
    leaf_of: Vec<AtomicU16>,
    /// Whether trees are grown on a row; empty while they are grown on all.
    in_bag: Vec<bool>,
    grove: Grove,
}

impl Boost<'_> {
    /// Makes the rounds.
    fn run(mut self, watched: &mut Watched<'_, '_>) -> Result<(Grove, ForestReport), ForestError> {
        let plan = self.plan;
        let patience = plan.patience.filter(|_| self.validation.is_some());
        let mut report = ForestReport {
            rounds: Vec::new(),
            best_round: 0,
            stopped_early: false,
        };
        let mut best = f64::INFINITY;
        let mut totals = self.training.derive(plan, self.workers);
        for round in 1..=plan.rounds {
            let started = Instant::now();
            let leaves = self.round(round, &totals, watched)?;
            let outputs = plan.objective.outputs();
            if leaves as usize == outputs {
                // No tree gained anything.
                self.grove.truncate(self.grove.trees() - outputs);
                break;
            }
            totals = self.training.derive(plan, self.workers);
            let workers = self.workers;
            let validation_loss = self
                .validation
                .as_mut()
                .map(|validation| validation.derive(plan, workers).loss);
            let made = RoundReport {
                round,
                train_loss: totals.loss,
                validation_loss,
                leaves,
                duration: started.elapsed(),
            };
            let losses = [Some(made.train_loss), made.validation_loss];
            if !losses.into_iter().flatten().all(f64::is_finite) {
                return Err(ForestError::NotFinite { round });
            }
            report.rounds.push(made);
            match validation_loss {
                Some(loss) if patience.is_some() => {
                    if loss < best {
                        best = loss;
                        report.best_round = round;
                    }
                }
                _ => report.best_round = round,
            }
            let answer = watched.ask(round, report.rounds.last());
            if round < plan.rounds {
                answer?;
                if patience.is_some_and(|patience| round - report.best_round >= patience) {
                    report.stopped_early = true;
                    break;
                }
            }
        }
        let kept = report.best_round as usize * plan.objective.outputs();
        self.grove.truncate(kept);
        Ok((self.grove, report))
    }

    /// Grows a tree for each output. How many leaves they have.
    fn round(
        &mut self,
        round: u32,
        totals: &Totals,
        watched: &mut Watched<'_, '_>,
    ) -> Result<u32, ForestError> {
        self.draw_rows(round);
        let mut leaves = 0;
        for (output, largest) in totals.largest.iter().enumerate() {
            if !largest.iter().all(|number| number.is_finite()) {
                return Err(ForestError::NotFinite { round });
            }
            self.draw_columns(output, round);
            self.grower.rows.clear();
            let count = self.leaf_of.len() as u32;
            if self.in_bag.is_empty() {
                self.grower.rows.extend(0..count);
            } else {
                let drawn = (0..count).filter(|row| self.in_bag[*row as usize]);
                self.grower.rows.extend(drawn);
            }
            let units = self.quantise(output, *largest);
            let nodes = self.grower.grow(units, &mut || watched.ask(round, None))?;
            leaves += nodes.len().div_ceil(2) as u32;
            self.add(output, &nodes);
            if !self.grove.push(&nodes, self.cuts) {
                return Err(ForestError::NotFinite { round });
            }
        }
        Ok(leaves)
    }

    /// Turns the derivatives of an output into whole numbers: the units are powers of two, as
    /// small as the sums allow.
    fn quantise(&mut self, output: usize, [gradient, hessian]: [f32; 2]) -> Units {
        let rows = self.leaf_of.len() as u64;
        let row_bits = 64 - rows.leading_zeros();
        let hessian_digits = 30.min(63 - 2 * row_bits as i32);
        let gradient_power = 30 - exponent(gradient);
        let hessian_power = hessian_digits - exponent(hessian);
        let scale = [two_to(gradient_power), two_to(hessian_power)];
        let slopes = &self.training.slopes;
        let sources = slopes.gradients[output]
            .chunks(PIECE_ROWS)
            .zip(slopes.hessians[output].chunks(PIECE_ROWS));
        let pieces: Vec<_> = sources
            .zip(self.grower.pairs.chunks_mut(PIECE_ROWS))
            .map(Mutex::new)
            .collect();
        self.workers.run(pieces.len(), &|piece| {
            let ((gradients, hessians), pairs) = &mut *lock(&pieces[piece]);
            trees::to_whole_numbers(gradients, hessians, scale, pairs);
        });
        Units {
            gradient: 1.0 / f64::from(scale[0]),
            hessian: 1.0 / f64::from(scale[1]),
            hessian_bits: row_bits + hessian_digits.unsigned_abs(),
        }
    }

    /// Adds what the tree that was just grown says of every row.
    fn add(&mut self, output: usize, nodes: &[Grown]) {
        let values = self.grower.leaves(nodes, &self.leaf_of);
        if !self.in_bag.is_empty() {
            let (cuts, in_bag) = (self.cuts, &self.in_bag);
            self.training.add(output, nodes, cuts, in_bag, self.workers);
        }
        let pieces: Vec<_> = self.training.scores[output]
            .chunks_mut(PIECE_ROWS)
            .zip(self.leaf_of.chunks(PIECE_ROWS))
            .zip(0..)
            .map(Mutex::new)
            .collect();
        let in_bag = &self.in_bag;
        self.workers.run(pieces.len(), &|piece| {
            let ((scores, leaf_of), number) = &mut *lock(&pieces[piece]);
            let leaves = leaf_of.iter().map(|leaf| leaf.load(Ordering::Relaxed));
            if in_bag.is_empty() {
                for (score, leaf) in scores.iter_mut().zip(leaves) {
                    *score += values[usize::from(leaf)];
                }
            } else {
                let in_bag = &in_bag[*number * PIECE_ROWS..];
                for ((score, leaf), in_bag) in scores.iter_mut().zip(leaves).zip(in_bag) {
                    if *in_bag {
                        *score += values[usize::from(leaf)];
                    }
                }
            }
        });
        drop(pieces);
        if let Some(validation) = &mut self.validation {
            validation.add(output, nodes, self.cuts, &[], self.workers);
        }
    }

    /// Draws the rows of a round, each by itself, if it is time to.
    fn draw_rows(&mut self, round: u32) {
        let share = self.plan.bagging_fraction;
        if share >= 1.0 || !(round - 1).is_multiple_of(self.plan.bagging_rounds) {
            return;
        }
        let stream = Stream::new(self.seed, Purpose::Rows, 0, u64::from(round));
        let drawn = stream
            .numbers()
            .map(|number| unit(number) < f64::from(share));
        self.in_bag = drawn.take(self.leaf_of.len()).collect();
    }

    /// Draws the columns that a tree may use: a fixed number, at least one.
    fn draw_columns(&mut self, output: usize, round: u32) {
        let usable = &mut self.grower.usable;
        let share = f64::from(self.plan.feature_fraction);
        if share >= 1.0 {
            return;
        }
        let count = ((usable.len() as f64 * share).round() as usize).max(1);
        let stream = Stream::new(self.seed, Purpose::Columns, output as u32, u64::from(round));
        usable.fill(false);
        for column in permutation(stream, usable.len() as u32)
            .into_iter()
            .take(count)
        {
            usable[column as usize] = true;
        }
    }
}

/// The least power of two, as its exponent, that a number of this size is below; not below the
/// range in which its reciprocal has a form.
fn exponent(size: f32) -> i32 {
    ((size.to_bits() >> 23 & 0xff) as i32 - 126).max(-90)
}

/// Two to a whole power within the range of float32.
fn two_to(power: i32) -> f32 {
    f32::from_bits((power.clamp(-126, 127) + 127).unsigned_abs() << 23)
}

impl AsRef<Binned> for Binned {
    fn as_ref(&self) -> &Binned {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_hold_what_they_are_for() {
        for size in [f32::MIN_POSITIVE, 1e-20, 0.1, 0.25, 1.0, 1.5, 3e38] {
            let exponent = exponent(size);
            let bound = f64::from(exponent).exp2();
            assert!(f64::from(size) < bound, "{size}");
            assert!(exponent == -90 || f64::from(size) >= bound / 2.0, "{size}");
            assert_eq!(f64::from(two_to(30 - exponent)), 2_f64.powi(30 - exponent));
        }
        assert_eq!(exponent(0.0), -90);
    }
}
