//! How a forest is to be trained, and the bounds on it.

use super::error::ForestError;
use crate::cpu::walk::MAX_COLUMNS;

/// What a forest minimises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// The logistic loss of labels 0 and 1.
    Logistic,
    /// The cross-entropy of labels below `classes`, with a tree for each class in every round.
    Softmax {
        /// At least 2.
        classes: u32,
    },
    /// The squared error.
    SquaredError,
    /// Huber's loss: a square up to `delta`, then a line (Huber 1964).
    Huber {
        /// Finite, above 0, in units of the target.
        delta: f32,
    },
}

impl Objective {
    /// Trees of a round, and scores of a row.
    pub fn outputs(self) -> usize {
        match self {
            Objective::Softmax { classes } => classes as usize,
            _ => 1,
        }
    }

    /// Classes of the labels; none for numbers.
    pub(super) fn classes(self) -> Option<u32> {
        match self {
            Objective::Logistic => Some(2),
            Objective::Softmax { classes } => Some(classes),
            Objective::SquaredError | Objective::Huber { .. } => None,
        }
    }
}

/// Leaves of all trees, so that every node has a place that a walk can name.
const MAX_LEAVES: u64 = 1 << 26;

/// How a forest is to be trained. The defaults are those of LightGBM.
#[derive(Clone, Debug, PartialEq)]
pub struct ForestPlan {
    /// What is minimised.
    pub objective: Objective,
    /// Rounds of boosting, at least 1.
    pub rounds: u32,
    /// What each tree's step is multiplied by; above 0, finite.
    pub learning_rate: f32,
    /// Leaves of a tree, at least 2. The leaf that gains most is split next.
    pub max_leaves: u32,
    /// Splits above a leaf; none for no bound.
    pub max_depth: Option<u32>,
    /// Rows of a leaf, at least 1.
    pub min_rows: u32,
    /// The sum of hessians of a leaf; not negative, finite.
    pub min_hessian: f32,
    /// The L1 term of leaf values.
    pub l1: f32,
    /// The L2 term of leaf values.
    pub l2: f32,
    /// What a split must gain.
    pub min_gain: f32,
    /// Bins of a column besides the one for what is missing, 2 to 255.
    pub max_bins: u32,
    /// Rows that a bin of a column of numbers should have, in the sample.
    pub min_rows_in_bin: u32,
    /// The share of columns that a tree may use, drawn for each tree; above 0, at most 1.
    pub feature_fraction: f32,
    /// The share of rows that a tree is grown on; above 0, at most 1.
    pub bagging_fraction: f32,
    /// Rounds after which the rows are drawn anew, at least 1.
    pub bagging_rounds: u32,
    /// Stops after this many rounds without a better validation loss, and returns to the best.
    /// Without validation rows it does nothing.
    pub patience: Option<u32>,
    /// How categories are split.
    pub categories: CategoryPlan,
    /// A weight for each class; none for 1 each.
    pub class_weights: Vec<f32>,
}

/// How categories are split: in the order of their gradients over their hessians, in which the
/// best split into two sets is found by one pass (Fisher 1958).
#[derive(Clone, Debug, PartialEq)]
pub struct CategoryPlan {
    /// Up to so many categories in a node, each is tried against the rest instead.
    pub one_vs_rest: u32,
    /// The most categories of the smaller side.
    pub most: u32,
    /// Rows that a group of categories needs.
    pub min_rows: u32,
    /// Added to hessians in the order; a category with fewer rows than this stays on the right.
    pub smoothing: f32,
    /// Added to `l2` when a split is judged.
    pub l2: f32,
}

impl Default for CategoryPlan {
    fn default() -> Self {
        Self {
            one_vs_rest: 4,
            most: 32,
            min_rows: 100,
            smoothing: 10.0,
            l2: 10.0,
        }
    }
}

impl Default for ForestPlan {
    fn default() -> Self {
        Self {
            objective: Objective::SquaredError,
            rounds: 100,
            learning_rate: 0.1,
            max_leaves: 31,
            max_depth: None,
            min_rows: 20,
            min_hessian: 1e-3,
            l1: 0.0,
            l2: 0.0,
            min_gain: 0.0,
            max_bins: 255,
            min_rows_in_bin: 3,
            feature_fraction: 1.0,
            bagging_fraction: 1.0,
            bagging_rounds: 1,
            patience: None,
            categories: CategoryPlan::default(),
            class_weights: Vec::new(),
        }
    }
}

/// Hard limits on a forest, checked before anything is allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForestCaps {
    /// Rows to learn from; at most [`ForestCaps::ROWS`].
    pub rows: u64,
    /// Columns, numbers and categories together.
    pub columns: u64,
    /// Leaves of a tree.
    pub leaves: u64,
    /// Trees, which are rounds times classes.
    pub trees: u64,
    /// Classes.
    pub classes: u64,
    /// Category numbers of a column.
    pub category_numbers: u64,
    /// Bytes that a training may hold at its peak, as [`ForestPlan::training_bytes`] says.
    pub bytes: u64,
}

impl ForestCaps {
    /// The most rows whose hessians can be summed exactly enough: 15 bits each.
    pub const ROWS: u64 = 1 << 24;
}

impl Default for ForestCaps {
    fn default() -> Self {
        Self {
            rows: Self::ROWS,
            columns: 16_384,
            leaves: 8_192,
            trees: 1 << 17,
            classes: 1_024,
            category_numbers: 1 << 20,
            bytes: 1 << 36,
        }
    }
}

/// How many rows and columns there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSize {
    /// Rows to learn from.
    pub rows: u64,
    /// Rows to stop early by.
    pub validation_rows: u64,
    /// Columns of numbers.
    pub numbers: u64,
    /// Columns of categories.
    pub categories: u64,
}

impl ForestPlan {
    /// Bytes that a training holds at its peak, at most, the forest among them and the table not.
    pub fn training_bytes(&self, size: TableSize) -> u64 {
        const HISTOGRAM: u64 = 4096;
        const NODE: u64 = 96;
        let columns = size.numbers.saturating_add(size.categories);
        let outputs = self.objective.outputs() as u64;
        let packed = columns.div_ceil(8).saturating_mul(8);
        let row = packed
            .saturating_add(outputs.saturating_mul(16))
            .saturating_add(64);
        let validation_row = packed
            .saturating_add(outputs.saturating_mul(16))
            .saturating_add(16);
        let leaves = u64::from(self.max_leaves);
        let nodes = leaves
            .saturating_mul(2)
            .saturating_mul(u64::from(self.rounds))
            .saturating_mul(outputs);
        // A histogram a leaf, and two for each thread that helps where columns are few.
        let histograms = leaves
            .saturating_add(3)
            .saturating_mul(columns)
            .saturating_add(256);
        [
            size.rows.saturating_mul(row),
            size.validation_rows.saturating_mul(validation_row),
            histograms.saturating_mul(HISTOGRAM),
            nodes.saturating_mul(NODE),
            columns.saturating_mul(2048),
        ]
        .into_iter()
        .fold(1 << 22, u64::saturating_add)
    }

    /// Holds the plan against what makes sense and what there may be.
    ///
    /// # Errors
    /// What is wrong first, and what to do.
    pub fn check(&self, size: TableSize, caps: &ForestCaps) -> Result<(), ForestError> {
        let refuse = |what: String| Err(ForestError::BadPlan { what });
        let at_least = |name: &str, value: u32, least: u32| {
            if value < least {
                return refuse(format!("`{name}` is {value}; make it at least {least}"));
            }
            Ok(())
        };
        let not_negative = |name: &str, value: f32| {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(format!(
                    "`{name}` is {value}; make it finite and not negative"
                ));
            }
            Ok(())
        };
        let share = |name: &str, value: f32| {
            if !(value > 0.0 && value <= 1.0) {
                return refuse(format!("`{name}` is {value}; make it above 0, at most 1"));
            }
            Ok(())
        };
        at_least("rounds", self.rounds, 1)?;
        at_least("max_leaves", self.max_leaves, 2)?;
        at_least("min_rows", self.min_rows, 1)?;
        at_least("min_rows_in_bin", self.min_rows_in_bin, 1)?;
        at_least("bagging_rounds", self.bagging_rounds, 1)?;
        at_least("max_depth", self.max_depth.unwrap_or(1), 1)?;
        at_least("patience", self.patience.unwrap_or(1), 1)?;
        at_least("categories.most", self.categories.most, 1)?;
        if !(2..=255).contains(&self.max_bins) {
            return refuse(format!("`max_bins` is {}; make it 2 to 255", self.max_bins));
        }
        for (name, value) in [
            ("min_hessian", self.min_hessian),
            ("l1", self.l1),
            ("l2", self.l2),
            ("min_gain", self.min_gain),
            ("categories.smoothing", self.categories.smoothing),
            ("categories.l2", self.categories.l2),
        ] {
            not_negative(name, value)?;
        }
        share("feature_fraction", self.feature_fraction)?;
        share("bagging_fraction", self.bagging_fraction)?;
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return refuse(format!(
                "`learning_rate` is {}; make it finite and above 0",
                self.learning_rate
            ));
        }
        match self.objective {
            Objective::Softmax { classes } => at_least("classes", classes, 2)?,
            Objective::Huber { delta } if !(delta.is_finite() && delta > 0.0) => {
                return refuse(format!("`delta` is {delta}; make it finite and above 0"));
            }
            _ => {}
        }
        let classes = self.objective.classes();
        if !self.class_weights.is_empty() && classes != u32::try_from(self.class_weights.len()).ok()
        {
            return refuse(format!(
                "there are {} class weights for {} classes",
                self.class_weights.len(),
                classes.unwrap_or(0)
            ));
        }
        for weight in &self.class_weights {
            not_negative("class_weights", *weight)?;
        }
        let trees = u64::from(self.rounds) * self.objective.outputs() as u64;
        let columns = size.numbers.saturating_add(size.categories);
        for (what, given, most, remedy) in [
            (
                "training rows",
                size.rows,
                caps.rows.min(ForestCaps::ROWS),
                "take a sample of them",
            ),
            (
                "validation rows",
                size.validation_rows,
                caps.rows.min(ForestCaps::ROWS),
                "take a sample of them",
            ),
            (
                "columns",
                columns,
                caps.columns.min(MAX_COLUMNS as u64),
                "leave some out",
            ),
            (
                "leaves of a tree",
                u64::from(self.max_leaves),
                caps.leaves.min(1 << 15),
                "lower `max_leaves`",
            ),
            (
                "classes",
                u64::from(classes.unwrap_or(0)),
                caps.classes,
                "merge some of them",
            ),
            ("trees", trees, caps.trees, "lower `rounds`"),
            (
                "leaves of all trees",
                trees.saturating_mul(u64::from(self.max_leaves)),
                MAX_LEAVES,
                "lower `rounds` or `max_leaves`",
            ),
            (
                "bytes of the training",
                self.training_bytes(size),
                caps.bytes,
                "lower `max_leaves` or `rounds`, or take fewer rows or columns",
            ),
        ] {
            if given > most {
                return Err(ForestError::TooLarge {
                    what,
                    given,
                    most,
                    remedy,
                });
            }
        }
        Ok(())
    }
}
