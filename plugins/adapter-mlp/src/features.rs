//! What the columns of a task become: numbers to standardise and categories to look up.

use sandcast_sdk::graph::Category;
use sandcast_sdk::{Field, Kind};
use serde::Serialize;

use crate::hyperparameters::Hyperparameters;

/// A column that is a number: integers, floats, booleans as 0 or 1, dates and times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NumberFeature {
    pub(crate) column: String,
    pub(crate) mean: f64,
    pub(crate) deviation: f64,
    /// What stands in for a value that is missing.
    pub(crate) fill: f64,
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
    /// Those that say when they are missing come first: [`Features::indicators`] of them.
    pub(crate) numbers: Vec<NumberFeature>,
    pub(crate) indicators: u32,
    pub(crate) categories: Vec<CategoryFeature>,
}

impl Features {
    /// Sorts columns into numbers and categories. Nothing is known about their values yet: numbers
    /// have mean 0 and deviation 1, and `size_of` gives the categories of a column by its place.
    pub(crate) fn of(
        columns: &[Field],
        hyperparameters: &Hyperparameters,
        size_of: impl Fn(usize) -> u32,
    ) -> Self {
        let mut features = Self::default();
        let is_indicated = |field: &Field| hyperparameters.missing_indicators && field.nullable;
        let numbers = |indicated: bool| {
            columns
                .iter()
                .filter(move |field| field.kind != Kind::Utf8 && is_indicated(field) == indicated)
                .map(|field| NumberFeature {
                    column: field.name.clone(),
                    mean: 0.0,
                    deviation: 1.0,
                    fill: 0.0,
                })
        };
        features.numbers.extend(numbers(true));
        features.indicators = features.numbers.len() as u32;
        features.numbers.extend(numbers(false));
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
    fn nullable_numbers_come_first() {
        let columns = [
            field("a", Kind::Int64, false),
            field("b", Kind::Utf8, true),
            field("c", Kind::Float64, true),
            field("d", Kind::Date32, true),
            field("e", Kind::Boolean, false),
        ];
        let features = Features::of(&columns, &Hyperparameters::default(), |place| {
            place as u32 * 5_000
        });
        assert_eq!(features.number_columns(), ["c", "d", "a", "e"]);
        assert_eq!(features.indicators, 2);
        assert_eq!(
            features.categories,
            [CategoryFeature {
                column: "b".into(),
                size: 1_000
            }]
        );
        let without = Hyperparameters {
            missing_indicators: false,
            ..Hyperparameters::default()
        };
        assert_eq!(Features::of(&columns, &without, |_| 0).indicators, 0);
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
