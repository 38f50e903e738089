//! What the columns of a task become: numbers to standardise and categories to look up.

use std::ops::Range;

use sandcast_sdk::graph::Category;
use sandcast_sdk::{Field, Kind};
use serde::Serialize;

use crate::hyperparameters::Hyperparameters;
use crate::pieces::pieces_each;

/// A column that is a number: integers, floats, booleans as 0 or 1, dates and times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NumberFeature {
    pub(crate) column: String,
    pub(crate) mean: f64,
    pub(crate) deviation: f64,
    /// What stands in for a value that is missing.
    pub(crate) fill: f64,
    /// Where its range is cut into pieces, rising.
    pub(crate) edges: Vec<f64>,
}

/// A column of strings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct CategoryFeature {
    pub(crate) column: String,
    /// Categories with a number of their own, which starts at 1; 0 is every other, and null.
    pub(crate) size: u32,
}

/// How a category reaches the first layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    OneHot,
    /// A learnt vector of this width.
    Embedding(u32),
}

impl CategoryFeature {
    /// One-hot up to the limit; above, the width is the rule of the fastai library:
    /// 1.6 n^0.56.
    pub(crate) fn treatment(&self, hyperparameters: &Hyperparameters) -> Treatment {
        if self.size <= hyperparameters.one_hot_limit {
            return Treatment::OneHot;
        }
        let width = (1.6 * f64::from(self.size + 1).powf(0.56)).round() as u32;
        Treatment::Embedding(width.clamp(1, hyperparameters.max_embedding))
    }
}

/// The features of a task in the order of the program's inputs.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Features {
    /// In an order in which both those that say when they are missing and those that are cut into
    /// pieces stand together.
    pub(crate) numbers: Vec<NumberFeature>,
    /// How many, from the first on, say when they are missing.
    pub(crate) indicators: u32,
    /// Which are cut into pieces: all that are not booleans.
    pub(crate) cut: Range<u32>,
    /// Pieces of each of them.
    pub(crate) pieces: u32,
    pub(crate) categories: Vec<CategoryFeature>,
}

impl Features {
    /// Sorts columns into numbers and categories. Nothing is known about their values yet: numbers
    /// have mean 0, deviation 1 and no edges, and `size_of` gives the categories of a column by its
    /// place.
    pub(crate) fn of(
        columns: &[Field],
        hyperparameters: &Hyperparameters,
        size_of: impl Fn(usize) -> u32,
    ) -> Self {
        let mut features = Self::default();
        let groups = [(true, true), (true, false), (false, false), (false, true)];
        let mut ends = [0; 4];
        for (end, (is_indicated, is_boolean)) in ends.iter_mut().zip(groups) {
            let group = columns.iter().filter(|field| {
                field.kind != Kind::Utf8
                    && (field.kind == Kind::Boolean) == is_boolean
                    && (hyperparameters.missing_indicators && field.nullable) == is_indicated
            });
            features.numbers.extend(group.map(|field| NumberFeature {
                column: field.name.clone(),
                mean: 0.0,
                deviation: 1.0,
                fill: 0.0,
                edges: Vec::new(),
            }));
            *end = features.numbers.len() as u32;
        }
        features.indicators = ends[1];
        features.cut = ends[0]..ends[2];
        features.pieces = pieces_each(hyperparameters.pieces, features.cut.len() as u32);
        for (place, field) in columns
            .iter()
            .enumerate()
            .filter(|(_, field)| field.kind == Kind::Utf8)
        {
            let size = size_of(place).min(hyperparameters.max_categories);
            features.categories.push(CategoryFeature {
                column: field.name.clone(),
                size,
            });
        }
        features
    }

    /// The numbers that are cut into pieces; none where they get no pieces.
    pub(crate) fn cut_numbers(&self) -> &[NumberFeature] {
        let cut = self.cut.start as usize..self.cut.end as usize;
        if self.pieces == 0 {
            &[]
        } else {
            &self.numbers[cut]
        }
    }

    /// Whether there is nothing to learn from.
    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.categories.is_empty()
    }

    /// The columns of the input `numbers`.
    pub(crate) fn number_columns(&self) -> Vec<String> {
        self.numbers
            .iter()
            .map(|number| number.column.clone())
            .collect()
    }

    /// The columns of the input `categories`, given the vocabulary of each.
    pub(crate) fn category_columns(&self, vocabularies: &[Vec<String>]) -> Vec<Category> {
        self.categories
            .iter()
            .zip(vocabularies)
            .map(|(category, vocabulary)| Category {
                column: category.column.clone(),
                vocabulary: vocabulary.clone(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandcast_sdk::columns::field;

    #[test]
    fn numbers_that_share_a_treatment_stand_together() {
        let columns = [
            field("a", Kind::Int64, false),
            field("b", Kind::Utf8, true),
            field("c", Kind::Float64, true),
            field("d", Kind::Date32, true),
            field("e", Kind::Boolean, false),
            field("f", Kind::Boolean, true),
        ];
        let features = Features::of(&columns, &Hyperparameters::default(), |place| {
            place as u32 * 5_000
        });
        assert_eq!(features.number_columns(), ["f", "c", "d", "a", "e"]);
        assert_eq!(features.indicators, 3);
        assert_eq!((features.cut.clone(), features.pieces), (1..4, 48));
        assert_eq!(features.cut_numbers()[0].column, "c");
        assert_eq!(
            features.categories,
            [CategoryFeature {
                column: "b".into(),
                size: 1_000
            }]
        );

        let without = Hyperparameters {
            missing_indicators: false,
            pieces: 0,
            ..Hyperparameters::default()
        };
        let features = Features::of(&columns, &without, |_| 0);
        assert_eq!(features.indicators, 0);
        assert!(features.cut_numbers().is_empty());
    }

    #[test]
    fn many_categories_are_embedded() {
        let hyperparameters = Hyperparameters {
            one_hot_limit: 10,
            max_embedding: 20,
            ..Hyperparameters::default()
        };
        let treatment = |size| {
            CategoryFeature {
                column: "x".into(),
                size,
            }
            .treatment(&hyperparameters)
        };
        assert_eq!(treatment(10), Treatment::OneHot);
        assert_eq!(treatment(11), Treatment::Embedding(6));
        assert_eq!(treatment(41), Treatment::Embedding(13));
        assert_eq!(treatment(1_000), Treatment::Embedding(20));
    }
}
