//! Metrics per group of people, and the distances between groups.
//!
//! The definitions are Fairlearn's (`fairlearn.metrics`, "Common fairness metrics" in its user
//! guide), with two differences, both on the careful side. A rate that is not defined for a group
//! (the true positive rate of a group without positives) is left out rather than taken for zero.
//! And a group with fewer rows than a minimum is reported but does not take part in a distance:
//! the rates of a handful of people are noise, and one of them would decide every gate. Where
//! fewer than two groups are left to compare, the distance is not defined, so that a gate on it
//! fails rather than passes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MetricsError;
use super::binary::Confusion;
use super::evaluation::Outcomes;

/// A column by which rows are sliced: each row's group.
#[derive(Debug, Clone)]
pub struct SliceColumn {
    name: String,
    groups: Vec<String>,
    /// An index into `groups` for each row.
    rows: Vec<u32>,
}

impl SliceColumn {
    /// More groups than this mean nothing to a reader.
    pub const MAXIMUM_GROUPS: usize = 64;
    /// The group of rows without a value.
    pub const MISSING: &'static str = "(missing)";

    /// Takes the value of each row; rows without one form the group [`Self::MISSING`].
    ///
    /// # Errors
    /// More than [`Self::MAXIMUM_GROUPS`] different values.
    pub fn new<'v>(
        name: impl Into<String>,
        values: impl IntoIterator<Item = Option<&'v str>>,
    ) -> Result<Self, MetricsError> {
        let name = name.into();
        let mut indices: BTreeMap<&str, u32> = BTreeMap::new();
        let mut rows = Vec::new();
        for value in values {
            let next = indices.len() as u32;
            let index = *indices
                .entry(value.unwrap_or(Self::MISSING))
                .or_insert(next);
            if index as usize >= Self::MAXIMUM_GROUPS {
                return Err(MetricsError::TooManyGroups {
                    column: name,
                    limit: Self::MAXIMUM_GROUPS,
                });
            }
            rows.push(index);
        }
        let mut groups = vec![String::new(); indices.len()];
        for (value, index) in indices {
            groups[index as usize] = value.to_owned();
        }
        Ok(Self { name, groups, rows })
    }

    /// The column's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// How a model treats the groups of one column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// The groups, the largest first.
    pub groups: Vec<GroupScores>,
    /// Groups with fewer rows than this are not judged.
    pub minimum_group_rows: u64,
    /// How many groups have enough rows.
    pub judged_groups: u64,
    /// Largest minus smallest selection rate (binary and anomaly detection, as all that follow
    /// but accuracy).
    pub demographic_parity_difference: Option<f64>,
    /// Smallest over largest selection rate.
    pub demographic_parity_ratio: Option<f64>,
    /// The larger of the differences of true and of false positive rates.
    pub equalized_odds_difference: Option<f64>,
    /// The smaller of the ratios of true and of false positive rates.
    pub equalized_odds_ratio: Option<f64>,
    /// Largest minus smallest true positive rate.
    pub equal_opportunity_difference: Option<f64>,
    /// Largest minus smallest accuracy.
    pub accuracy_difference: Option<f64>,
}

/// What was seen of one group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupScores {
    /// The value that makes the group.
    pub group: String,
    /// How many rows it has.
    pub rows: u64,
    /// Whether it has enough rows to take part in the distances between groups.
    pub judged: bool,
    /// Share of its rows that are positive in truth (binary, and anomaly detection with labels).
    pub base_rate: Option<f64>,
    /// Share of its rows that were selected (binary and anomaly detection).
    pub selection_rate: Option<f64>,
    /// Share of its positives that were selected (binary only).
    pub true_positive_rate: Option<f64>,
    /// Share of its negatives that were selected (binary only).
    pub false_positive_rate: Option<f64>,
    /// Share of its rows that were judged rightly (classification only).
    pub accuracy: Option<f64>,
    /// Mean absolute error (regression only).
    pub mean_absolute_error: Option<f64>,
    /// Mean prediction (regression only).
    pub mean_prediction: Option<f64>,
}

impl Slice {
    /// Scores each group and the distances between those with at least `minimum_group_rows`.
    ///
    /// # Errors
    /// A column of another length than there are rows.
    pub fn new(
        outcomes: &Outcomes<'_>,
        column: &SliceColumn,
        threshold: f64,
        minimum_group_rows: u64,
    ) -> Result<Self, MetricsError> {
        let what = format!("slice `{}`", column.name);
        super::check_length(&what, column.len(), outcomes.rows())?;
        let mut groups = match outcomes {
            Outcomes::Binary(binary) => {
                let mut confusions = vec![Confusion::default(); column.groups.len()];
                let rows = binary.positive().iter().zip(binary.probability());
                for (&group, (&positive, &probability)) in column.rows.iter().zip(rows) {
                    confusions[group as usize].count(positive, probability >= threshold);
                }
                confusions.iter().map(GroupScores::of_confusion).collect()
            }
            Outcomes::Multiclass(multiclass) => {
                let right = multiclass
                    .truth()
                    .iter()
                    .zip(multiclass.most_probable())
                    .map(|(&truth, (predicted, _))| f64::from(u8::from(truth == predicted)));
                column
                    .sums(right)
                    .into_iter()
                    .map(|(rows, sum)| GroupScores {
                        rows,
                        accuracy: super::ratio(sum, rows as f64),
                        ..GroupScores::default()
                    })
                    .collect()
            }
            Outcomes::Regression(regression) => {
                let pairs = || regression.truth().iter().zip(regression.prediction());
                let errors =
                    column.sums(pairs().map(|(truth, prediction)| (truth - prediction).abs()));
                let predictions = column.sums(pairs().map(|(_, &prediction)| prediction));
                errors
                    .into_iter()
                    .zip(predictions)
                    .map(|((rows, error), (_, prediction))| GroupScores {
                        rows,
                        mean_absolute_error: super::ratio(error, rows as f64),
                        mean_prediction: super::ratio(prediction, rows as f64),
                        ..GroupScores::default()
                    })
                    .collect::<Vec<_>>()
            }
            Outcomes::Anomaly(anomaly) => {
                let selected = |score: &f64| *score >= threshold;
                if let Some(positive) = anomaly.positive() {
                    let mut confusions = vec![Confusion::default(); column.groups.len()];
                    let rows = positive.iter().zip(anomaly.score());
                    for (&group, (&positive, score)) in column.rows.iter().zip(rows) {
                        confusions[group as usize].count(positive, selected(score));
                    }
                    confusions.iter().map(GroupScores::of_confusion).collect()
                } else {
                    let scores = anomaly.score().iter();
                    column
                        .sums(scores.map(|score| f64::from(u8::from(selected(score)))))
                        .into_iter()
                        .map(|(rows, sum)| GroupScores {
                            rows,
                            selection_rate: super::ratio(sum, rows as f64),
                            ..GroupScores::default()
                        })
                        .collect()
                }
            }
            // Being in one cluster rather than another is neither good nor bad, and texts are
            // judged as a whole.
            Outcomes::Clustering(_) | Outcomes::Text(_) => column
                .sums(std::iter::repeat_n(0.0, outcomes.rows()))
                .into_iter()
                .map(|(rows, _)| GroupScores {
                    rows,
                    ..GroupScores::default()
                })
                .collect(),
        };
        for (scores, name) in groups.iter_mut().zip(&column.groups) {
            scores.group.clone_from(name);
            scores.judged = scores.rows >= minimum_group_rows;
        }
        groups.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.group.cmp(&b.group)));
        Ok(Self::between(groups, minimum_group_rows))
    }

    /// A distance between groups by its name in JSON, such as `demographic_parity_difference`.
    pub fn distance(&self, name: &str) -> Option<f64> {
        match name {
            "demographic_parity_difference" => self.demographic_parity_difference,
            "demographic_parity_ratio" => self.demographic_parity_ratio,
            "equalized_odds_difference" => self.equalized_odds_difference,
            "equalized_odds_ratio" => self.equalized_odds_ratio,
            "equal_opportunity_difference" => self.equal_opportunity_difference,
            "accuracy_difference" => self.accuracy_difference,
            _ => None,
        }
    }

    fn between(groups: Vec<GroupScores>, minimum_group_rows: u64) -> Self {
        let span = |rate: fn(&GroupScores) -> Option<f64>| Span::over(&groups, rate);
        let selection = span(|group| group.selection_rate);
        let true_positive = span(|group| group.true_positive_rate);
        let false_positive = span(|group| group.false_positive_rate);
        let accuracy = span(|group| group.accuracy);
        let both = |choose: fn(f64, f64) -> f64, of: fn(Span) -> Option<f64>| {
            Some(choose(of(true_positive?)?, of(false_positive?)?))
        };
        Self {
            minimum_group_rows,
            judged_groups: groups.iter().filter(|group| group.judged).count() as u64,
            demographic_parity_difference: selection.map(Span::difference),
            demographic_parity_ratio: selection.and_then(Span::ratio),
            equalized_odds_difference: both(f64::max, |span| Some(span.difference())),
            equalized_odds_ratio: both(f64::min, Span::ratio),
            equal_opportunity_difference: true_positive.map(Span::difference),
            accuracy_difference: accuracy.map(Span::difference),
            groups,
        }
    }
}

impl GroupScores {
    fn of_confusion(confusion: &Confusion) -> Self {
        Self {
            rows: confusion.rows(),
            base_rate: confusion.base_rate(),
            selection_rate: confusion.selection_rate(),
            true_positive_rate: confusion.true_positive_rate(),
            false_positive_rate: confusion.false_positive_rate(),
            accuracy: confusion.accuracy(),
            ..Self::default()
        }
    }
}

impl SliceColumn {
    /// Rows and the sum of a value, for each group.
    fn sums(&self, values: impl Iterator<Item = f64>) -> Vec<(u64, f64)> {
        let mut sums = vec![(0, 0.0); self.groups.len()];
        for (&group, value) in self.rows.iter().zip(values) {
            let (rows, sum) = &mut sums[group as usize];
            *rows += 1;
            *sum += value;
        }
        sums
    }
}

/// The smallest and the largest rate among the judged groups that have one.
#[derive(Debug, Clone, Copy)]
struct Span {
    smallest: f64,
    largest: f64,
}

impl Span {
    fn over(groups: &[GroupScores], rate: fn(&GroupScores) -> Option<f64>) -> Option<Self> {
        let mut rates = groups.iter().filter(|group| group.judged).filter_map(rate);
        let first = rates.next()?;
        let second = rates.next()?;
        let start = Self {
            smallest: first.min(second),
            largest: first.max(second),
        };
        Some(rates.fold(start, |span, rate| Self {
            smallest: span.smallest.min(rate),
            largest: span.largest.max(rate),
        }))
    }

    fn difference(self) -> f64 {
        self.largest - self.smallest
    }

    fn ratio(self) -> Option<f64> {
        super::ratio(self.smallest, self.largest)
    }
}
