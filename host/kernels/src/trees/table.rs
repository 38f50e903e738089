//! Rows to learn from and to ask about.

use super::error::ForestError;
use super::plan::Objective;

/// Rows of numbers and categories, each row's together. A number that is missing is NaN. A
/// category is a number from 1 on; 0, and any that was not there in training, is unknown.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    pub(super) rows: usize,
    pub(super) numbers: &'a [f32],
    pub(super) number_columns: usize,
    pub(super) categories: &'a [i32],
    pub(super) category_columns: usize,
}

impl<'a> Table<'a> {
    /// Rows of so many numbers and categories.
    ///
    /// # Errors
    /// When there are more or fewer of them than rows times columns.
    pub fn new(
        rows: usize,
        (number_columns, numbers): (usize, &'a [f32]),
        (category_columns, categories): (usize, &'a [i32]),
    ) -> Result<Self, ForestError> {
        for (what, columns, given) in [
            ("numbers", number_columns, numbers.len()),
            ("categories", category_columns, categories.len()),
        ] {
            if rows.checked_mul(columns) != Some(given) {
                return Err(ForestError::BadRows {
                    what: format!("{given} {what} for {rows} rows of {columns}"),
                });
            }
        }
        Ok(Self {
            rows,
            numbers,
            number_columns,
            categories,
            category_columns,
        })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// All columns.
    pub fn columns(&self) -> usize {
        self.number_columns + self.category_columns
    }
}

/// What is to be predicted.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// Numbers, for a regression.
    Numbers(&'a [f32]),
    /// Classes counted from 0.
    Labels(&'a [i32]),
}

impl Targets<'_> {
    fn len(&self) -> usize {
        match self {
            Targets::Numbers(numbers) => numbers.len(),
            Targets::Labels(labels) => labels.len(),
        }
    }
}

/// Rows with what is to be predicted of them.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// The columns to learn from.
    pub table: Table<'a>,
    /// What to predict.
    pub targets: Targets<'a>,
    /// A weight for each row; none for 1 each.
    pub weights: Option<&'a [f32]>,
}

/// Targets and weights that were checked.
#[derive(Debug)]
pub(super) struct Goal {
    /// Numbers, or the label as a number.
    pub(super) targets: Vec<f32>,
    /// Row weights times class weights; none where all are 1.
    pub(super) weights: Option<Vec<f32>>,
    /// The sum of the weights.
    pub(super) weight: f64,
}

impl Examples<'_> {
    /// Checks that there are the columns of another table.
    pub(super) fn check_like(&self, table: &Table<'_>) -> Result<(), ForestError> {
        let columns = |table: &Table<'_>| (table.number_columns, table.category_columns);
        let (given, wanted) = (columns(&self.table), columns(table));
        if given != wanted {
            return Err(ForestError::BadRows {
                what: format!(
                    "the validation rows have {} numbers and {} categories each, the training \
                     rows {} and {}",
                    given.0, given.1, wanted.0, wanted.1
                ),
            });
        }
        Ok(())
    }

    /// Checks targets and weights against the table and the objective.
    pub(super) fn goal(
        &self,
        objective: Objective,
        class_weights: &[f32],
    ) -> Result<Goal, ForestError> {
        let rows = self.table.rows;
        let refuse = |what: String| Err(ForestError::BadRows { what });
        if self.targets.len() != rows {
            return refuse(format!("{} targets for {rows} rows", self.targets.len()));
        }
        let targets: Vec<f32> = match (self.targets, objective.classes()) {
            (Targets::Numbers(numbers), None) => {
                if let Some(row) = numbers.iter().position(|number| !number.is_finite()) {
                    return Err(ForestError::BadTarget {
                        row,
                        given: f64::from(numbers[row]),
                        wanted: "make it finite".into(),
                    });
                }
                numbers.to_vec()
            }
            (Targets::Labels(labels), Some(classes)) => {
                let known = |label: &i32| u32::try_from(*label).is_ok_and(|label| label < classes);
                if let Some(row) = labels.iter().position(|label| !known(label)) {
                    return Err(ForestError::BadTarget {
                        row,
                        given: f64::from(labels[row]),
                        wanted: format!("labels are 0 to {}", classes - 1),
                    });
                }
                labels.iter().map(|label| *label as f32).collect()
            }
            (Targets::Numbers(_), Some(_)) => {
                return refuse("the objective needs labels, and the targets are numbers".into());
            }
            (Targets::Labels(_), None) => {
                return refuse("the objective needs numbers, and the targets are labels".into());
            }
        };
        let weights = self.weights(&targets, class_weights)?;
        let weight = match &weights {
            Some(weights) => weights.iter().map(|weight| f64::from(*weight)).sum(),
            None => rows as f64,
        };
        if rows > 0 && weight <= 0.0 {
            return Err(ForestError::BadWeights {
                what: "all of them are 0".into(),
            });
        }
        Ok(Goal {
            targets,
            weights,
            weight,
        })
    }

    fn weights(
        &self,
        targets: &[f32],
        class_weights: &[f32],
    ) -> Result<Option<Vec<f32>>, ForestError> {
        let of_class = |target: f32| class_weights.get(target as usize).copied().unwrap_or(1.0);
        let Some(given) = self.weights else {
            let uniform = class_weights.iter().all(|weight| *weight == 1.0);
            return Ok((!uniform).then(|| targets.iter().map(|target| of_class(*target)).collect()));
        };
        if given.len() != targets.len() {
            return Err(ForestError::BadRows {
                what: format!("{} weights for {} rows", given.len(), targets.len()),
            });
        }
        let weights: Vec<f32> = given
            .iter()
            .zip(targets)
            .map(|(weight, target)| weight * of_class(*target))
            .collect();
        if let Some(row) = weights
            .iter()
            .position(|weight| !(weight.is_finite() && *weight >= 0.0))
        {
            return Err(ForestError::BadWeights {
                what: format!("row {row} has {}", given[row]),
            });
        }
        Ok(Some(weights))
    }
}
