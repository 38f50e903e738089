//! A table as inputs of a program, for models that have nothing to predict: each column counts the
//! same.

use std::collections::HashMap;

use sandcast_sdk::graph::{self, Binding, Encoding, Extent, GraphBuilder, Int, Node, bind};
use sandcast_sdk::{Column, Dataset, Failure, Field, Kind};
use serde::Serialize;

use crate::counts::{Counts, seconds_or_numbers};
use crate::moments::Moments;

/// What stands for infinity.
const FINITE: f32 = 1e6;

/// How columns are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The most categories of one string; rarer ones share one.
    pub max_categories: u32,
    /// Categories seen in fewer training rows share one.
    pub min_frequency: u32,
    /// Numbers further than this from the mean, in standard deviations, count as this far.
    pub farthest: f32,
}

/// A column that is a number: integers, floats, booleans as 0 or 1, dates and times in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Number {
    /// Its name.
    pub column: String,
    /// The mean of the training rows.
    pub mean: f64,
    /// Their standard deviation, 1 where there is none.
    pub deviation: f64,
}

/// A column of strings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Category {
    /// Its name.
    pub column: String,
    /// Categories with a number of their own, which starts at 1; 0 is every other, and null.
    pub size: u32,
    /// The categories, the most frequent first; none before any row is seen.
    pub vocabulary: Vec<String>,
}

/// The columns of a task in the order of the program's inputs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// The input `numbers`.
    pub numbers: Vec<Number>,
    /// The input `categories`.
    pub categories: Vec<Category>,
    #[serde(skip)]
    options: Options,
}

/// A table inside of a program.
#[derive(Debug)]
pub struct Inputs<'g> {
    /// The number columns, if there are any.
    pub numbers: Option<Numbers<'g>>,
    /// The number of each category column, i32 of shape [rows], and one more than its largest.
    pub categories: Vec<(Node<'g, Int>, u32)>,
}

/// The number columns inside of a program.
#[derive(Debug, Clone, Copy)]
pub struct Numbers<'g> {
    /// How many there are.
    pub count: u32,
    /// In standard deviations from the mean, f32 of shape [rows, count]; a missing one is 0.
    pub standard: Node<'g>,
    /// 1 where a number is there, else 0, of the same shape.
    pub known: Node<'g>,
}

impl Table {
    /// The table before any row is seen. Numbers have mean 0 and deviation 1; `cardinalities` has
    /// the categories of each column.
    ///
    /// # Errors
    /// `invalid-input` for another number of cardinalities than there are columns, or no columns.
    pub fn unseen(
        columns: &[Field],
        cardinalities: &[u32],
        options: Options,
    ) -> Result<Self, Failure> {
        if cardinalities.len() != columns.len() {
            return Err(Failure::invalid_input(format!(
                "{} cardinalities for {} features",
                cardinalities.len(),
                columns.len()
            )));
        }
        let mut table = Self {
            numbers: Vec::new(),
            categories: Vec::new(),
            options,
        };
        for (field, size) in columns.iter().zip(cardinalities) {
            let column = field.name.clone();
            match field.kind {
                Kind::Utf8 => table.categories.push(Category {
                    column,
                    size: (*size).min(options.max_categories),
                    vocabulary: Vec::new(),
                }),
                _ => table.numbers.push(Number {
                    column,
                    mean: 0.0,
                    deviation: 1.0,
                }),
            }
        }
        if columns.is_empty() {
            return Err(Failure::invalid_input("there are no columns to learn from"));
        }
        Ok(table)
    }

    /// Reads the training rows once.
    ///
    /// # Errors
    /// `invalid-input` for no rows, or a column that is not of the announced kind.
    pub fn learn(columns: &[Field], options: Options, rows: &Dataset) -> Result<Self, Failure> {
        if rows.rows() == 0 {
            return Err(Failure::invalid_input("there are no rows to learn from"));
        }
        let mut survey = Survey::new(columns, options)?;
        let names: Vec<String> = columns.iter().map(|field| field.name.clone()).collect();
        for index in 0..rows.batches() {
            let batch = rows.read(index, &names)?;
            for place in 0..names.len() {
                survey.add(place, &batch.column(place as u32)?)?;
            }
        }
        Ok(survey.finish())
    }

    /// How the columns fill the inputs.
    #[must_use]
    pub fn bindings(&self) -> Vec<Binding> {
        let mut bindings = Vec::new();
        if !self.numbers.is_empty() {
            let columns = self.numbers.iter().map(|number| number.column.clone());
            bindings.push(bind("numbers", Encoding::Numbers(columns.collect())));
        }
        if !self.categories.is_empty() {
            let columns = self.categories.iter().map(|category| graph::Category {
                column: category.column.clone(),
                vocabulary: category.vocabulary.clone(),
            });
            bindings.push(bind("categories", Encoding::Categories(columns.collect())));
        }
        bindings
    }

    /// Declares the inputs and what is made of them.
    pub fn inputs<'g>(&self, g: &'g GraphBuilder, rows: Extent) -> Inputs<'g> {
        let mut numbers = None;
        let count = self.numbers.len() as u32;
        if count > 0 {
            let row = |of: fn(&Number) -> f64| {
                let values: Vec<f32> = self.numbers.iter().map(|it| of(it) as f32).collect();
                g.constant(&[1, count], values)
            };
            let input = g.input_f32("numbers", [rows, count.into()]);
            let missing = input.is_nan();
            let scaled = (input - row(|it| it.mean)) * row(|it| 1.0 / it.deviation);
            let filled = missing.select(g.scalar(0.0), scaled).clamp(-FINITE, FINITE);
            numbers = Some(Numbers {
                count,
                standard: filled.clamp(-self.options.farthest, self.options.farthest),
                known: missing.logical_not(),
            });
        }
        let mut categories = Vec::new();
        if !self.categories.is_empty() {
            let input = g.input_i32("categories", [rows, (self.categories.len() as u32).into()]);
            for (place, category) in (0..).zip(&self.categories) {
                let number = input.slice(1, place, place + 1).reshape([rows]);
                categories.push((number, category.size + 1));
            }
        }
        Inputs {
            numbers,
            categories,
        }
    }

    /// Columns whose values say nothing, for a warning.
    pub fn empty_categories(&self) -> impl Iterator<Item = &str> {
        let empty = self.categories.iter().filter(|it| it.vocabulary.is_empty());
        empty.map(|category| category.column.as_str())
    }
}

/// One pass over the rows.
#[derive(Debug)]
struct Survey<'a> {
    columns: &'a [Field],
    table: Table,
    seen: Vec<Seen>,
}

#[derive(Debug)]
enum Seen {
    Numbers(Moments),
    Strings(Counts),
}

impl<'a> Survey<'a> {
    fn new(columns: &'a [Field], options: Options) -> Result<Self, Failure> {
        let seen = columns.iter().map(|field| match field.kind {
            Kind::Utf8 => Seen::Strings(Counts::default()),
            _ => Seen::Numbers(Moments::default()),
        });
        Ok(Self {
            table: Table::unseen(columns, &vec![0; columns.len()], options)?,
            seen: seen.collect(),
            columns,
        })
    }

    fn add(&mut self, place: usize, column: &Column) -> Result<(), Failure> {
        let (Some(seen), Some(field)) = (self.seen.get_mut(place), self.columns.get(place)) else {
            return Err(Failure::internal("a column past the last one"));
        };
        let other_kind = || {
            let (name, kind) = (&field.name, field.kind.name());
            Failure::invalid_input(format!("column `{name}` is not of the kind {kind}"))
        };
        match seen {
            Seen::Numbers(moments) => {
                let values = seconds_or_numbers(column).ok_or_else(other_kind)?;
                moments.add(&values, column.valid());
            }
            Seen::Strings(counts) => {
                let strings = column.utf8().ok_or_else(other_kind)?;
                strings.iter().flatten().for_each(|value| counts.add(value));
            }
        }
        Ok(())
    }

    fn finish(self) -> Table {
        let mut table = self.table;
        let options = table.options;
        let places = self.columns.iter().map(|field| field.name.as_str());
        let mut seen: HashMap<&str, Seen> = places.zip(self.seen).collect();
        for number in &mut table.numbers {
            if let Some(Seen::Numbers(moments)) = seen.get(number.column.as_str()) {
                number.mean = moments.mean;
                number.deviation = moments.deviation();
            }
        }
        for category in &mut table.categories {
            if let Some(Seen::Strings(counts)) = seen.remove(category.column.as_str()) {
                category.vocabulary =
                    counts.most_frequent(options.min_frequency, options.max_categories);
                category.size = category.vocabulary.len() as u32;
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandcast_sdk::columns::{ColumnBuilder, field};

    const OPTIONS: Options = Options {
        max_categories: 2,
        min_frequency: 2,
        farthest: 10.0,
    };

    fn columns() -> Vec<Field> {
        vec![
            field("age", Kind::Float64, true),
            field("city", Kind::Utf8, true),
            field("height", Kind::Float64, false),
        ]
    }

    fn floats(values: &[Option<f64>]) -> Column {
        let mut builder = ColumnBuilder::new(Kind::Float64);
        for value in values {
            match (&mut builder, value) {
                (ColumnBuilder::Float64(numbers), Some(value)) => numbers.push(*value),
                (builder, _) => builder.push_null(),
            }
        }
        builder.finish()
    }

    #[test]
    fn numbers_are_measured_and_categories_counted() {
        let columns = columns();
        let mut survey = Survey::new(&columns, OPTIONS).expect("columns");
        for half in 0..2 {
            let shift = f64::from(half) * 2.0;
            let ages = floats(&[Some(10.0 + shift), None, Some(10.0 + shift)]);
            let cities = [Some("Rome"), Some("Oslo"), Some("Bern")];
            let cities: Column = cities.into_iter().chain([Some("Rome")]).collect();
            survey.add(0, &ages).expect("numbers");
            survey.add(1, &cities).expect("strings");
            survey.add(2, &floats(&[Some(1.0); 3])).expect("numbers");
        }
        let table = survey.finish();
        assert_eq!(
            (table.numbers[0].mean, table.numbers[0].deviation),
            (11.0, 1.0)
        );
        assert_eq!(
            (table.numbers[1].mean, table.numbers[1].deviation),
            (1.0, 1.0)
        );
        assert_eq!(table.categories[0].vocabulary, ["Rome", "Bern"]);
        assert_eq!(table.categories[0].size, 2);
        let inputs: Vec<String> = table.bindings().into_iter().map(|it| it.input).collect();
        assert_eq!(inputs, ["numbers", "categories"]);
        assert_eq!(table.empty_categories().count(), 0);
    }

    #[test]
    fn what_does_not_fit_is_a_failure() {
        let columns = columns();
        let failure = Table::unseen(&columns, &[0], OPTIONS).expect_err("one size");
        assert!(failure.message.contains("3 features"));
        assert!(Table::unseen(&[], &[], OPTIONS).is_err());
        let mut survey = Survey::new(&columns, OPTIONS).expect("columns");
        let failure = survey.add(1, &floats(&[Some(1.0)])).expect_err("a number");
        assert!(failure.message.contains("`city` is not of the kind utf8"));
        assert!(
            survey
                .add(0, &["Rome"].into_iter().map(Some).collect())
                .is_err()
        );
    }

    #[test]
    fn a_table_declares_its_inputs() {
        let table = Table::unseen(&columns(), &[0, 7, 0], OPTIONS).expect("columns");
        let g = GraphBuilder::new();
        let rows = g.symbol("rows", 8);
        let inputs = table.inputs(&g, rows);
        assert_eq!(inputs.numbers.map(|numbers| numbers.count), Some(2));
        assert_eq!(inputs.categories[0].1, 3);
    }
}
