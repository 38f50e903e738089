//! Trees that were trained, and what they say.

use std::ops::ControlFlow;
use std::sync::{Mutex, OnceLock};

use super::bins::{Cut, Cuts, category_bin};
use super::error::ForestError;
use super::grow::Grown;
use super::plan::Objective;
use super::split::Side;
use super::table::Table;
use super::workers::{Workers, lock};
use crate::backend::{Look, go_on};
use crate::cpu::level::Level;
use crate::cpu::trees::{logistic_shares, softmax_columns};
use crate::cpu::walk::{Mask, Node, Trees, category_number};
use crate::train::StopReason;

/// Rows that are predicted at a time.
const BLOCK_ROWS: usize = 64;

/// Rows of a piece of work that threads share.
const PIECE_ROWS: usize = 1024;

/// A forest of decision trees. Nothing in it changes once it is trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    pub(super) objective: Objective,
    /// What it says before the first tree, for each output.
    pub(super) base: Vec<f64>,
    pub(super) number_columns: usize,
    /// The bin of each category number, by column.
    pub(super) category_bins: Vec<Vec<u8>>,
    pub(super) trees: Trees,
    /// What the split of each node gained; 0 for a leaf.
    pub(super) gains: Vec<f32>,
}

/// Trees that are still being added.
#[derive(Debug, Default)]
pub(super) struct Grove {
    roots: Vec<u32>,
    nodes: Vec<Node>,
    values: Vec<f32>,
    gains: Vec<f32>,
    masks: Vec<Mask>,
}

impl Grove {
    /// How many trees.
    pub(super) fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Adds a tree. False where a value is beyond float32.
    pub(super) fn push(&mut self, grown: &[Grown], cuts: &Cuts) -> bool {
        self.roots.push(self.nodes.len() as u32);
        let mut finite = true;
        for (place, node) in grown.iter().enumerate() {
            let (node, value, gain) = match node {
                Grown::Leaf { value } => (Node::LEAF, *value as f32, 0.0),
                Grown::Split {
                    column,
                    side,
                    gain,
                    left,
                } => {
                    let (number, on) = (*column as u32, (left - place) as u32);
                    let node = match side {
                        Side::UpTo { bin, missing_left } => {
                            let bounds = match &cuts.columns[*column] {
                                Cut::Numbers(bounds) => &bounds[..],
                                Cut::Categories { .. } => &[],
                            };
                            let bound = bounds.get(usize::from(*bin).wrapping_sub(1));
                            let bound = bound.copied().unwrap_or(f32::INFINITY);
                            Node::by_number(number, bound, *missing_left, on)
                        }
                        Side::Of(mask) => {
                            self.masks.push(*mask);
                            Node::by_category(number, self.masks.len() as u32 - 1, on)
                        }
                    };
                    (node, 0.0, gain.min(f64::from(f32::MAX)) as f32)
                }
            };
            finite &= value.is_finite();
            self.nodes.push(node);
            self.values.push(value);
            self.gains.push(gain);
        }
        finite
    }

    /// Keeps the first trees.
    pub(super) fn truncate(&mut self, trees: usize) {
        let Some(end) = self.roots.get(trees) else {
            return;
        };
        let end = *end as usize;
        self.nodes.truncate(end);
        self.values.truncate(end);
        self.gains.truncate(end);
        self.roots.truncate(trees);
        let masks = self.nodes.iter().filter(|node| node.mask().is_some());
        self.masks.truncate(masks.count());
    }

    /// The forest of these trees; none if they were not grown from these cuts.
    pub(super) fn finish(
        self,
        objective: Objective,
        base: Vec<f64>,
        cuts: &Cuts,
    ) -> Option<Forest> {
        let category_bins = cuts.columns[cuts.number_columns..]
            .iter()
            .map(|cut| match cut {
                Cut::Categories { bins, .. } => bins.clone(),
                Cut::Numbers(_) => Vec::new(),
            })
            .collect();
        let width = cuts.columns.len();
        Some(Forest {
            objective,
            base,
            number_columns: cuts.number_columns,
            category_bins,
            trees: Trees::new(self.nodes, self.values, self.roots, self.masks, width)?,
            gains: self.gains,
        })
    }
}

/// What a column did for a forest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Importance {
    /// What the splits by it gained, in all: twice what they took from the loss, to second order.
    pub gain: f64,
    /// How many splits there are by it.
    pub splits: u64,
}

impl Forest {
    /// What it was trained to minimise.
    pub fn objective(&self) -> Objective {
        self.objective
    }

    /// Trees in all.
    pub fn trees(&self) -> usize {
        self.trees.roots().len()
    }

    /// Nodes of all trees. Each holds one number that was learnt: where to split, or what to add.
    pub fn nodes(&self) -> usize {
        self.trees.nodes().len()
    }

    /// Leaves of all trees.
    pub fn leaves(&self) -> usize {
        // A tree has one leaf more than splits.
        (self.trees.nodes().len() + self.trees()) / 2
    }

    /// Columns of numbers, and of categories, that a row has.
    pub fn columns(&self) -> (usize, usize) {
        (self.number_columns, self.category_bins.len())
    }

    /// Scores of a row: one, or one for each class.
    pub fn outputs(&self) -> usize {
        self.base.len()
    }

    /// Bytes that it takes in memory.
    pub fn memory_bytes(&self) -> u64 {
        let maps: usize = self.category_bins.iter().map(|bins| bins.len() + 24).sum();
        let trees = &self.trees;
        let bytes = trees.nodes().len() * (size_of::<Node>() + 8)
            + size_of_val(trees.masks())
            + size_of_val(trees.roots())
            + self.base.len() * 8
            + maps;
        bytes as u64
    }

    /// What each column did, numbers first.
    pub fn importance(&self) -> Vec<Importance> {
        let mut found = vec![Importance::default(); self.number_columns + self.category_bins.len()];
        for (node, gain) in self.trees.nodes().iter().zip(&self.gains) {
            if node.left() != 0
                && let Some(found) = found.get_mut(node.column())
            {
                found.gain += f64::from(*gain);
                found.splits += 1;
            }
        }
        found
    }

    /// The raw scores of rows, each row's together: log-odds, the logarithms of shares up to a
    /// constant, or the prediction itself.
    ///
    /// # Errors
    /// When the table has other columns.
    pub fn raw(&self, table: &Table<'_>, workers: &Workers) -> Result<Vec<f32>, ForestError> {
        self.answer(table, workers, &go_on, false)
    }

    /// What is predicted of rows, each row's together: the probability of label 1, that of each
    /// class, or a number.
    ///
    /// # Errors
    /// When the table has other columns.
    pub fn predict(&self, table: &Table<'_>, workers: &Workers) -> Result<Vec<f32>, ForestError> {
        self.answer(table, workers, &go_on, true)
    }

    /// The same, asking between pieces of rows whether to go on.
    ///
    /// # Errors
    /// As [`Forest::predict`], and when the watcher stops it.
    pub fn predict_watched(
        &self,
        table: &Table<'_>,
        workers: &Workers,
        watch: &(dyn Fn() -> ControlFlow<StopReason> + Sync),
    ) -> Result<Vec<f32>, ForestError> {
        self.answer(table, workers, watch, true)
    }

    fn answer(
        &self,
        table: &Table<'_>,
        workers: &Workers,
        look: Look<'_>,
        shares: bool,
    ) -> Result<Vec<f32>, ForestError> {
        let given = (table.number_columns, table.category_columns);
        if given != self.columns() {
            return Err(ForestError::BadRows {
                what: format!(
                    "they have {} numbers and {} categories each, the forest was trained on {} \
                     and {}",
                    given.0,
                    given.1,
                    self.columns().0,
                    self.columns().1
                ),
            });
        }
        let outputs = self.outputs();
        let mut answers = vec![0.0; table.rows * outputs];
        if table.rows <= PIECE_ROWS {
            self.answer_piece(table, 0, &mut answers, shares);
            return Ok(answers);
        }
        let pieces: Vec<_> = answers
            .chunks_mut(PIECE_ROWS * outputs)
            .enumerate()
            .map(|(piece, answers)| Mutex::new((piece * PIECE_ROWS, answers)))
            .collect();
        let stopped = OnceLock::new();
        workers.run(pieces.len(), &|piece| {
            if stopped.get().is_some() {
                return;
            }
            if let ControlFlow::Break(reason) = look() {
                let _ = stopped.set(reason);
                return;
            }
            let (start, answers) = &mut *lock(&pieces[piece]);
            self.answer_piece(table, *start, answers, shares);
        });
        drop(pieces);
        match stopped.into_inner() {
            Some(reason) => Err(ForestError::Unanswered { reason }),
            None => Ok(answers),
        }
    }

    /// Answers for rows from `start` on, block after block.
    fn answer_piece(&self, table: &Table<'_>, start: usize, answers: &mut [f32], shares: bool) {
        let outputs = self.outputs();
        let level = Level::best();
        let mut joined = Vec::new();
        let mut sums = Vec::with_capacity(BLOCK_ROWS.min(table.rows) * outputs);
        for (block, answers) in answers.chunks_mut(BLOCK_ROWS * outputs).enumerate() {
            let start = start + block * BLOCK_ROWS;
            let count = answers.len() / outputs;
            let numbers =
                &table.numbers[start * table.number_columns..][..count * table.number_columns];
            let rows = if table.category_columns == 0 {
                numbers
            } else {
                joined.clear();
                for row in start..start + count {
                    self.join(table, row, &mut joined);
                }
                &joined
            };
            sums.clear();
            for _ in 0..count {
                sums.extend_from_slice(&self.base);
            }
            self.trees.walk(level, rows, &mut sums, outputs);
            for (answer, sum) in answers.iter_mut().zip(&sums) {
                *answer = *sum as f32;
            }
            if shares {
                self.to_shares(answers);
            }
        }
    }

    /// Numbers, then the bins of categories.
    fn join(&self, table: &Table<'_>, row: usize, joined: &mut Vec<f32>) {
        let (numbers, categories) = (table.number_columns, table.category_columns);
        joined.extend_from_slice(&table.numbers[row * numbers..][..numbers]);
        let row = &table.categories[row * categories..][..categories];
        joined.extend(
            row.iter()
                .zip(&self.category_bins)
                .map(|(category, bins)| category_number(category_bin(bins, *category))),
        );
    }

    fn to_shares(&self, answers: &mut [f32]) {
        let level = Level::best();
        match self.objective {
            Objective::SquaredError | Objective::Huber { .. } => {}
            Objective::Logistic => {
                let scores = answers.to_vec();
                logistic_shares(level, &scores, answers);
            }
            Objective::Softmax { .. } => {
                let classes = self.outputs();
                let mut scores = vec![0.0; classes];
                let (mut highest, mut sums) = ([0.0], [0.0]);
                for row in answers.chunks_exact_mut(classes) {
                    scores.copy_from_slice(row);
                    softmax_columns(level, &scores, 1, row, &mut highest, &mut sums);
                }
            }
        }
    }
}
