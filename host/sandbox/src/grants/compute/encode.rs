//! Columns as the inputs of a program. They go from Arrow's buffers to tensors in the host and
//! never through a guest.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Date32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use sandcast_kernels::{Feeds, Tensor};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::VOCABULARY_ENTRY_BYTES;
use crate::model::Kind;
use crate::text;

/// Columns of one encoding.
const MAX_COLUMNS: usize = 65_536;

/// A column as category numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Category {
    /// The column.
    pub(crate) column: String,
    /// Its known values, each once.
    pub(crate) vocabulary: Vec<String>,
}

/// How the columns of a batch become an input of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Encoding {
    /// float32 of shape [rows, columns]; a null is not a number; a boolean is 0 or 1; times are
    /// in seconds.
    Numbers(Vec<String>),
    /// float32 of shape [rows]; a null fails the run.
    Target(String),
    /// int32 of shape [rows, columns]: the place of the value in the vocabulary plus 1, else 0.
    Categories(Vec<Category>),
    /// int32 of shape [rows]: the place of the value in the vocabulary; any other fails the run.
    Labels(Category),
}

/// Fills an input of the program from columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Binding {
    /// The input.
    pub(crate) input: String,
    /// Where its numbers come from.
    pub(crate) encoding: Encoding,
}

/// Why columns cannot become an input.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum EncodeError {
    #[error("input `{input}` is bound twice")]
    BoundTwice { input: String },
    #[error("the program has no input `{input}`; it has {known}")]
    UnknownInput { input: String, known: String },
    #[error("input `{input}` is not bound to any column")]
    Unbound { input: String },
    #[error("input `{input}` is bound to {columns} columns; at most {MAX_COLUMNS} are allowed")]
    TooManyColumns { input: String, columns: usize },
    #[error("input `{input}` needs column `{column}`, which is not there")]
    NoColumn { input: String, column: String },
    #[error("column `{column}` holds text, and input `{input}` needs numbers")]
    NotNumbers { input: String, column: String },
    #[error("column `{column}` is {kind:?}; categories are text, booleans or whole numbers")]
    NotCategories { column: String, kind: Kind },
    #[error("the vocabulary of column `{column}` names `{value}` twice")]
    VocabularyTwice { column: String, value: String },
    #[error("column `{column}` has no value in row {row}, and input `{input}` needs one")]
    Missing {
        input: String,
        column: String,
        row: usize,
    },
    #[error("column `{column}` is `{value}` in row {row}, which is none of the {known} labels")]
    UnknownLabel {
        column: String,
        value: String,
        row: usize,
        known: usize,
    },
    #[error("{rows} rows of {width} numbers are more than can be counted")]
    TooLarge { rows: usize, width: usize },
}

/// Checks bindings against the inputs of a program.
pub(crate) fn check<'a>(
    bindings: &[Binding],
    inputs: impl Iterator<Item = &'a str>,
) -> Result<(), EncodeError> {
    let inputs: Vec<&str> = inputs.collect();
    for (place, binding) in bindings.iter().enumerate() {
        let input = || text::sentence(&binding.input, 64);
        if bindings[..place]
            .iter()
            .any(|earlier| earlier.input == binding.input)
        {
            return Err(EncodeError::BoundTwice { input: input() });
        }
        if !inputs.contains(&binding.input.as_str()) {
            let known = text::sentence(&inputs.join(", "), 512);
            return Err(EncodeError::UnknownInput {
                input: input(),
                known,
            });
        }
        let columns = binding.encoding.width();
        if columns > MAX_COLUMNS {
            return Err(EncodeError::TooManyColumns {
                input: input(),
                columns,
            });
        }
        if let Encoding::Categories(categories) = &binding.encoding {
            categories
                .iter()
                .try_for_each(|category| lookup(category, 0).map(|_| ()))?;
        }
        if let Encoding::Labels(category) = &binding.encoding {
            lookup(category, 0)?;
        }
    }
    Ok(())
}

/// Bytes of the names and vocabularies of bindings.
pub(crate) fn held_bytes(bindings: &[Binding]) -> u64 {
    let entry = |text: &String| (text.len() as u64).saturating_add(VOCABULARY_ENTRY_BYTES);
    let category =
        |one: &Category| one.vocabulary.iter().map(entry).sum::<u64>() + entry(&one.column);
    let each = bindings.iter().map(|binding| {
        let of = match &binding.encoding {
            Encoding::Numbers(columns) => columns.iter().map(entry).sum(),
            Encoding::Target(column) => entry(column),
            Encoding::Categories(categories) => categories.iter().map(category).sum(),
            Encoding::Labels(labels) => category(labels),
        };
        entry(&binding.input).saturating_add(of)
    });
    each.fold(0, u64::saturating_add)
}

/// Bytes that the feeds of some inputs take for so many rows.
pub(crate) fn bytes(bindings: &[Binding], inputs: &[String], rows: u64) -> u64 {
    bindings
        .iter()
        .filter(|binding| inputs.contains(&binding.input))
        .map(|binding| {
            (binding.encoding.width() as u64)
                .saturating_mul(4)
                .saturating_mul(rows)
        })
        .fold(0, u64::saturating_add)
}

/// The feeds of some inputs from the rows of some batches.
pub(crate) fn feeds(
    bindings: &[Binding],
    inputs: &[String],
    batches: &[RecordBatch],
) -> Result<Feeds, EncodeError> {
    let rows = batches.iter().map(RecordBatch::num_rows).sum();
    inputs
        .iter()
        .map(|input| {
            let binding = bindings
                .iter()
                .find(|binding| binding.input == *input)
                .ok_or_else(|| EncodeError::Unbound {
                    input: text::sentence(input, 64),
                })?;
            Ok((input.clone(), tensor(binding, batches, rows)?))
        })
        .collect()
}

impl Encoding {
    /// Numbers a row.
    fn width(&self) -> usize {
        match self {
            Encoding::Numbers(columns) => columns.len(),
            Encoding::Categories(categories) => categories.len(),
            Encoding::Target(_) | Encoding::Labels(_) => 1,
        }
    }
}

fn tensor(binding: &Binding, batches: &[RecordBatch], rows: usize) -> Result<Tensor, EncodeError> {
    let width = binding.encoding.width();
    let elements = rows
        .checked_mul(width)
        .ok_or(EncodeError::TooLarge { rows, width })?;
    let made = match &binding.encoding {
        Encoding::Numbers(columns) => {
            let mut numbers = vec![0.0_f32; elements];
            for (place, column) in columns.iter().enumerate() {
                let mut start = 0;
                for batch in batches {
                    let array = column_of(binding, batch, column)?;
                    let rest = numbers.get_mut(start * width + place..).unwrap_or_default();
                    let places = rest.iter_mut().step_by(width.max(1));
                    fill_numbers(binding, column, array, places)?;
                    start += batch.num_rows();
                }
            }
            Tensor::from_f32(vec![rows, width], numbers)
        }
        Encoding::Target(column) => {
            let mut numbers = vec![0.0_f32; rows];
            let mut start = 0;
            for batch in batches {
                let array = column_of(binding, batch, column)?;
                if let Some(row) = first_null(array) {
                    return Err(EncodeError::Missing {
                        input: text::sentence(&binding.input, 64),
                        column: text::sentence(column, 64),
                        row: start + row,
                    });
                }
                fill_numbers(binding, column, array, numbers[start..].iter_mut())?;
                start += batch.num_rows();
            }
            Tensor::from_f32(vec![rows], numbers)
        }
        Encoding::Categories(categories) => {
            let mut numbers = vec![0_i32; elements];
            for (place, category) in categories.iter().enumerate() {
                let known = lookup(category, 1)?;
                let mut start = 0;
                for batch in batches {
                    let array = column_of(binding, batch, &category.column)?;
                    let rest = numbers.get_mut(start * width + place..).unwrap_or_default();
                    let mut places = rest.iter_mut().step_by(width.max(1));
                    each_category(&category.column, array, |_, value| {
                        let number = value
                            .and_then(|value| known.get(value))
                            .copied()
                            .unwrap_or(0);
                        if let Some(place) = places.next() {
                            *place = number;
                        }
                        Ok(())
                    })?;
                    start += batch.num_rows();
                }
            }
            Tensor::from_i32(vec![rows, width], numbers)
        }
        Encoding::Labels(category) => {
            let known = lookup(category, 0)?;
            let mut numbers = Vec::with_capacity(rows);
            for batch in batches {
                let array = column_of(binding, batch, &category.column)?;
                let start = numbers.len();
                each_category(&category.column, array, |row, value| {
                    let Some(value) = value else {
                        return Err(EncodeError::Missing {
                            input: text::sentence(&binding.input, 64),
                            column: text::sentence(&category.column, 64),
                            row: start + row,
                        });
                    };
                    let Some(number) = known.get(value) else {
                        return Err(EncodeError::UnknownLabel {
                            column: text::sentence(&category.column, 64),
                            value: text::sentence(value, 64),
                            row: start + row,
                            known: known.len(),
                        });
                    };
                    numbers.push(*number);
                    Ok(())
                })?;
            }
            Tensor::from_i32(vec![rows], numbers)
        }
    };
    made.map_err(|_| EncodeError::TooLarge { rows, width })
}

fn column_of<'a>(
    binding: &Binding,
    batch: &'a RecordBatch,
    column: &str,
) -> Result<&'a ArrayRef, EncodeError> {
    batch
        .column_by_name(column)
        .ok_or_else(|| EncodeError::NoColumn {
            input: text::sentence(&binding.input, 64),
            column: text::sentence(column, 64),
        })
}

fn first_null(array: &ArrayRef) -> Option<usize> {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0)?;
    (0..array.len()).find(|row| nulls.is_null(*row))
}

/// Numbers of a column, not a number where it is null.
fn fill_numbers<'a>(
    binding: &Binding,
    column: &str,
    array: &ArrayRef,
    places: impl Iterator<Item = &'a mut f32>,
) -> Result<(), EncodeError> {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    match Kind::of(array.data_type()) {
        Some(Kind::Float64) => {
            let values = array.as_primitive::<Float64Type>().values().iter();
            fill(places, nulls, values.map(|value| *value as f32));
        }
        Some(Kind::Int64) => {
            let values = array.as_primitive::<Int64Type>().values().iter();
            fill(places, nulls, values.map(|value| *value as f32));
        }
        Some(Kind::Boolean) => {
            let values = array.as_boolean().values().iter();
            fill(
                places,
                nulls,
                values.map(|value| f32::from(u8::from(value))),
            );
        }
        Some(Kind::Date32) => {
            let days = array.as_primitive::<Date32Type>().values().iter();
            fill(
                places,
                nulls,
                days.map(|days| (f64::from(*days) * 86_400.0) as f32),
            );
        }
        Some(Kind::TimestampUs) => {
            let micros = array
                .as_primitive::<TimestampMicrosecondType>()
                .values()
                .iter();
            fill(
                places,
                nulls,
                micros.map(|micros| (*micros as f64 / 1e6) as f32),
            );
        }
        Some(Kind::Utf8) | None => {
            return Err(EncodeError::NotNumbers {
                input: text::sentence(&binding.input, 64),
                column: text::sentence(column, 64),
            });
        }
    }
    Ok(())
}

fn fill<'a>(
    places: impl Iterator<Item = &'a mut f32>,
    nulls: Option<&NullBuffer>,
    values: impl Iterator<Item = f32>,
) {
    match nulls {
        None => places.zip(values).for_each(|(place, value)| *place = value),
        Some(nulls) => {
            for ((place, value), there) in places.zip(values).zip(nulls.iter()) {
                *place = if there { value } else { f32::NAN };
            }
        }
    }
}

/// Every value of a column as text, row by row: booleans are `true` and `false`, whole numbers
/// are written in decimal.
fn each_category(
    column: &str,
    array: &ArrayRef,
    mut look: impl FnMut(usize, Option<&str>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    match Kind::of(array.data_type()) {
        Some(Kind::Utf8) => {
            let values = array.as_string::<i32>();
            (0..values.len())
                .try_for_each(|row| look(row, values.is_valid(row).then(|| values.value(row))))
        }
        Some(Kind::Boolean) => {
            let values = array.as_boolean();
            (0..values.len()).try_for_each(|row| {
                let text = if values.value(row) { "true" } else { "false" };
                look(row, values.is_valid(row).then_some(text))
            })
        }
        Some(Kind::Int64) => {
            let values = array.as_primitive::<Int64Type>();
            (0..values.len()).try_for_each(|row| {
                let text = values.value(row).to_string();
                look(row, values.is_valid(row).then_some(text.as_str()))
            })
        }
        kind => Err(EncodeError::NotCategories {
            column: text::sentence(column, 64),
            kind: kind.unwrap_or(Kind::Utf8),
        }),
    }
}

/// The number of every value of a vocabulary, counted from `first`.
fn lookup(category: &Category, first: i32) -> Result<HashMap<&str, i32>, EncodeError> {
    let mut known = HashMap::with_capacity(category.vocabulary.len());
    for (number, value) in (first..).zip(&category.vocabulary) {
        if known.insert(value.as_str(), number).is_some() {
            return Err(EncodeError::VocabularyTwice {
                column: text::sentence(&category.column, 64),
                value: text::sentence(value, 64),
            });
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};

    use super::*;

    fn rows() -> Vec<RecordBatch> {
        let batch = RecordBatch::try_from_iter([
            (
                "age",
                Arc::new(Int64Array::from(vec![Some(30), None, Some(50)])) as ArrayRef,
            ),
            ("rate", Arc::new(Float64Array::from(vec![0.5, 1.5, 2.5]))),
            (
                "home",
                Arc::new(StringArray::from(vec![Some("own"), Some("rent"), None])),
            ),
            (
                "good",
                Arc::new(BooleanArray::from(vec![true, false, true])),
            ),
        ])
        .expect("a batch");
        vec![batch.slice(0, 1), batch.slice(1, 2)]
    }

    fn bind(input: &str, encoding: Encoding) -> Binding {
        Binding {
            input: input.into(),
            encoding,
        }
    }

    fn category(column: &str, vocabulary: &[&str]) -> Category {
        Category {
            column: column.into(),
            vocabulary: vocabulary.iter().map(|value| (*value).to_owned()).collect(),
        }
    }

    fn one(encoding: Encoding) -> Result<Tensor, EncodeError> {
        let feeds = feeds(&[bind("x", encoding)], &["x".into()], &rows())?;
        Ok(feeds.into_values().next().expect("one feed"))
    }

    #[test]
    fn numbers_stand_in_rows_and_nulls_are_not_numbers() {
        let made = one(Encoding::Numbers(vec!["age".into(), "rate".into()])).expect("numbers");
        assert_eq!(made.shape(), [3, 2]);
        let values = made.as_f32().expect("float32");
        assert_eq!(values[..2], [30.0, 0.5]);
        assert!(values[2].is_nan());
        assert_eq!(values[3..], [1.5, 50.0, 2.5]);
    }

    #[test]
    fn categories_count_from_1_and_the_unknown_is_0() {
        let made = one(Encoding::Categories(vec![
            category("home", &["own", "other"]),
            category("good", &["false", "true"]),
            category("age", &["50"]),
        ]))
        .expect("categories");
        assert_eq!(made.shape(), [3, 3]);
        assert_eq!(made.as_i32().expect("int32"), [1, 2, 0, 0, 1, 0, 0, 2, 1]);
    }

    #[test]
    fn labels_and_targets_must_be_there() {
        let made = one(Encoding::Labels(category("good", &["false", "true"]))).expect("labels");
        assert_eq!(made.as_i32().expect("int32"), [1, 0, 1]);
        assert_eq!(
            one(Encoding::Labels(category("home", &["own", "rent"]))),
            Err(EncodeError::Missing {
                input: "x".into(),
                column: "home".into(),
                row: 2
            })
        );
        assert_eq!(
            one(Encoding::Labels(category("home", &["own"]))),
            Err(EncodeError::UnknownLabel {
                column: "home".into(),
                value: "rent".into(),
                row: 1,
                known: 1
            })
        );
        assert_eq!(
            one(Encoding::Target("age".into())),
            Err(EncodeError::Missing {
                input: "x".into(),
                column: "age".into(),
                row: 1
            })
        );
        let made = one(Encoding::Target("good".into())).expect("a target");
        assert_eq!(made.as_f32().expect("float32"), [1.0, 0.0, 1.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        assert!(matches!(
            one(Encoding::Numbers(vec!["home".into()])),
            Err(EncodeError::NotNumbers { column, .. }) if column == "home"
        ));
        assert!(matches!(
            one(Encoding::Numbers(vec!["missing".into()])),
            Err(EncodeError::NoColumn { column, .. }) if column == "missing"
        ));
        assert!(matches!(
            one(Encoding::Categories(vec![category("rate", &["1"])])),
            Err(EncodeError::NotCategories { .. })
        ));
    }

    #[test]
    fn bindings_are_checked_against_the_program() {
        let numbers = || Encoding::Numbers(vec!["age".into()]);
        let inputs = || ["x", "y"].into_iter();
        assert_eq!(check(&[bind("x", numbers())], inputs()), Ok(()));
        assert!(matches!(
            check(&[bind("x", numbers()), bind("x", numbers())], inputs()),
            Err(EncodeError::BoundTwice { .. })
        ));
        assert!(matches!(
            check(&[bind("z", numbers())], inputs()),
            Err(EncodeError::UnknownInput { .. })
        ));
        let twice = Encoding::Labels(category("home", &["own", "own"]));
        assert!(matches!(
            check(&[bind("x", twice)], inputs()),
            Err(EncodeError::VocabularyTwice { .. })
        ));
        let none: Result<Feeds, _> = feeds(&[], &["x".into()], &rows());
        assert!(matches!(none, Err(EncodeError::Unbound { .. })));
    }

    #[test]
    fn every_word_of_a_binding_counts() {
        let of = |encoding| held_bytes(&[bind("x", encoding)]);
        let entry = |bytes: u64| bytes + VOCABULARY_ENTRY_BYTES;
        assert_eq!(held_bytes(&[]), 0);
        assert_eq!(of(Encoding::Target("age".into())), entry(1) + entry(3));
        let numbers = Encoding::Numbers(vec!["age".into(); 7]);
        assert_eq!(of(numbers), entry(1) + 7 * entry(3));
        let labels = entry(4) + entry(3) + entry(0);
        assert_eq!(
            of(Encoding::Labels(category("home", &["own", ""]))),
            entry(1) + labels
        );
        let categories = Encoding::Categories(vec![category("home", &["own", ""]); 2]);
        assert_eq!(of(categories), entry(1) + 2 * labels);
        let both = [
            bind("x", Encoding::Numbers(vec![])),
            bind("y", Encoding::Numbers(vec![])),
        ];
        assert_eq!(held_bytes(&both), 2 * entry(1));
    }

    #[test]
    fn no_rows_make_empty_inputs() {
        let empty = vec![rows()[0].slice(0, 0)];
        let made = feeds(
            &[bind("x", Encoding::Numbers(vec!["age".into()]))],
            &["x".into()],
            &empty,
        )
        .expect("empty feeds");
        assert_eq!(made["x"].shape(), [0, 1]);
    }
}
