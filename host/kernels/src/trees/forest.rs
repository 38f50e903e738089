//! Trees that were trained, and what they say.

use std::sync::Mutex;

use super::bins::{Cut, Cuts, category_bin};
use super::error::ForestError;
use super::grow::Grown;
use super::plan::Objective;
use super::split::Side;
use super::table::Table;
use super::workers::{Workers, lock};
use crate::cpu::level::Level;
use crate::cpu::trees::{
    self, BY_CATEGORY, COLUMN, MISSING_LEFT, Mask, WALKS, WalkNode, softmax_columns,
};

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
    /// The first node of each tree.
    pub(super) roots: Vec<u32>,
    pub(super) nodes: Vec<WalkNode>,
    /// What the split of each node gained; 0 for a leaf.
    pub(super) gains: Vec<f32>,
    pub(super) masks: Vec<Mask>,
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
    /// A forest without trees.
    pub(super) fn new(objective: Objective, base: Vec<f64>, cuts: &Cuts) -> Self {
        let category_bins = cuts.columns[cuts.number_columns..]
            .iter()
            .map(|cut| match cut {
                Cut::Categories { bins, .. } => bins.clone(),
                Cut::Numbers(_) => Vec::new(),
            })
            .collect();
        Self {
            objective,
            base,
            number_columns: cuts.number_columns,
            category_bins,
            roots: Vec::new(),
            nodes: Vec::new(),
            gains: Vec::new(),
            masks: Vec::new(),
        }
    }

    /// Adds a tree. False where a value is beyond float32.
    pub(super) fn push(&mut self, grown: &[Grown], cuts: &Cuts) -> bool {
        let first = self.nodes.len() as u32;
        self.roots.push(first);
        let mut finite = true;
        for (place, node) in (first..).zip(grown) {
            let (node, gain) = match node {
                Grown::Leaf { value } => {
                    finite &= (*value as f32).is_finite();
                    (WalkNode::leaf(place, *value as f32), 0.0)
                }
                Grown::Split {
                    column,
                    side,
                    gain,
                    left,
                } => {
                    let (threshold, flags) = match side {
                        Side::UpTo { bin, missing_left } => {
                            let bounds = match &cuts.columns[*column] {
                                Cut::Numbers(bounds) => &bounds[..],
                                Cut::Categories { .. } => &[],
                            };
                            // A split after the last bin has an infinite bound.
                            let bound = bounds.get(usize::from(*bin).wrapping_sub(1));
                            let flags = if *missing_left { MISSING_LEFT } else { 0 };
                            (bound.copied().unwrap_or(f32::INFINITY), flags)
                        }
                        Side::Of(mask) => {
                            self.masks.push(*mask);
                            let number = self.masks.len() as u32 - 1;
                            (f32::from_bits(number), BY_CATEGORY)
                        }
                    };
                    let node = WalkNode {
                        column: *column as u32 | flags,
                        threshold,
                        left: first + *left as u32,
                        value: 0.0,
                    };
                    (node, *gain as f32)
                }
            };
            self.nodes.push(node);
            self.gains.push(gain);
        }
        finite
    }

    /// Keeps the first trees.
    pub(super) fn truncate(&mut self, trees: usize) {
        let Some(end) = self.roots.get(trees) else {
            return;
        };
        self.nodes.truncate(*end as usize);
        self.gains.truncate(*end as usize);
        self.roots.truncate(trees);
        let masks = self.nodes.iter().filter(|node| by_category(node)).count();
        self.masks.truncate(masks);
    }

    /// What it was trained to minimise.
    pub fn objective(&self) -> Objective {
        self.objective
    }

    /// Trees in all.
    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Leaves of all trees.
    pub fn leaves(&self) -> usize {
        // A tree has one leaf more than splits.
        (self.nodes.len() + self.trees()) / 2
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
        let bytes = self.nodes.len() * (size_of::<WalkNode>() + 4)
            + self.masks.len() * size_of::<Mask>()
            + self.roots.len() * 4
            + self.base.len() * 8
            + maps;
        bytes as u64
    }

    /// What each column did, numbers first.
    pub fn importance(&self) -> Vec<Importance> {
        let mut found = vec![Importance::default(); self.number_columns + self.category_bins.len()];
        for (place, (node, gain)) in (0..).zip(self.nodes.iter().zip(&self.gains)) {
            if node.left != place
                && let Some(found) = found.get_mut((node.column & COLUMN) as usize)
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
        self.answer(table, workers, false)
    }

    /// What is predicted of rows, each row's together: the probability of label 1, that of each
    /// class, or a number.
    ///
    /// # Errors
    /// When the table has other columns.
    pub fn predict(&self, table: &Table<'_>, workers: &Workers) -> Result<Vec<f32>, ForestError> {
        self.answer(table, workers, true)
    }

    fn answer(
        &self,
        table: &Table<'_>,
        workers: &Workers,
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
        workers.run(pieces.len(), &|piece| {
            let (start, answers) = &mut *lock(&pieces[piece]);
            self.answer_piece(table, *start, answers, shares);
        });
        drop(pieces);
        Ok(answers)
    }

    /// Answers for rows from `start` on, block after block.
    fn answer_piece(&self, table: &Table<'_>, start: usize, answers: &mut [f32], shares: bool) {
        let outputs = self.outputs();
        let width = table.columns();
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
            if self.masks.is_empty() {
                self.walk::<false>(rows, width, &mut sums);
            } else {
                self.walk::<true>(rows, width, &mut sums);
            }
            for (answer, sum) in answers.iter_mut().zip(&sums) {
                *answer = *sum as f32;
            }
            if shares {
                self.to_shares(answers);
            }
        }
    }

    fn walk<const CATEGORIES: bool>(&self, rows: &[f32], width: usize, sums: &mut [f64]) {
        let (nodes, roots, masks) = (&self.nodes, &self.roots, &self.masks);
        let outputs = self.outputs();
        let count = sums.len() / outputs;
        // A few rows one after the other, each by several trees at a time.
        let alone = if count < WALKS { count } else { 0 };
        let (first, rest) = rows.split_at(alone * width);
        let (first_sums, rest_sums) = sums.split_at_mut(alone * outputs);
        for (row, sums) in first
            .chunks_exact(width)
            .zip(first_sums.chunks_exact_mut(outputs))
        {
            trees::walk_row::<CATEGORIES>(nodes, roots, masks, row, sums);
        }
        trees::walk_rows::<CATEGORIES>(nodes, roots, masks, rest, width, rest_sums, outputs);
    }

    /// Numbers, then the bins of categories.
    fn join(&self, table: &Table<'_>, row: usize, joined: &mut Vec<f32>) {
        let (numbers, categories) = (table.number_columns, table.category_columns);
        joined.extend_from_slice(&table.numbers[row * numbers..][..numbers]);
        let row = &table.categories[row * categories..][..categories];
        joined.extend(
            row.iter()
                .zip(&self.category_bins)
                .map(|(category, bins)| f32::from(category_bin(bins, *category))),
        );
    }

    fn to_shares(&self, answers: &mut [f32]) {
        let level = Level::best();
        match self.objective {
            Objective::SquaredError | Objective::Huber { .. } => {}
            Objective::Logistic => {
                let scores = answers.to_vec();
                trees::logistic_shares(level, &scores, answers);
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

pub(super) fn by_category(node: &WalkNode) -> bool {
    node.column & BY_CATEGORY != 0
}
