//! One pass over the training rows: which categories there are, and how many rows each class has.

use std::collections::HashMap;

use sandcast_sdk::{Column, Failure, Kind, Task, TaskKind};

use crate::hyperparameters::{ClassWeights, Hyperparameters, NamedWeights};

/// Different values of one string column that are counted; later ones are not.
const MAXIMUM_COUNTED_VALUES: usize = 500_000;

/// The columns of a task, as trees go by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Features {
    /// Numbers, booleans, dates and times.
    pub(crate) numbers: Vec<String>,
    /// Strings.
    pub(crate) categories: Vec<String>,
}

impl Features {
    /// Sorts the columns of a task.
    ///
    /// # Errors
    /// `invalid-input` where there are none.
    pub(crate) fn of(task: &Task) -> Result<Self, Failure> {
        let named = |strings: bool| {
            task.features
                .iter()
                .filter(|field| (field.kind == Kind::Utf8) == strings)
                .map(|field| field.name.clone())
                .collect::<Vec<_>>()
        };
        let features = Self {
            numbers: named(false),
            categories: named(true),
        };
        if features.numbers.is_empty() && features.categories.is_empty() {
            return Err(Failure::invalid_input("there are no columns to learn from"));
        }
        Ok(features)
    }
}

/// The pass.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    task: &'a Task,
    categories: Vec<(String, HashMap<Box<str>, u64>)>,
    /// Rows of each class, in a classification whose weights need them.
    classes: Option<(String, Vec<u64>)>,
}

impl<'a> Survey<'a> {
    /// Of the categories, and of the classes where their weights depend on the rows.
    pub(crate) fn new(
        task: &'a Task,
        target: &str,
        features: &Features,
        hyperparameters: &Hyperparameters,
    ) -> Self {
        let balanced = hyperparameters.class_weights == ClassWeights::Named(NamedWeights::Balanced);
        let counted = balanced && task.kind != TaskKind::Regression;
        Self {
            task,
            categories: features
                .categories
                .iter()
                .map(|name| (name.clone(), HashMap::new()))
                .collect(),
            classes: counted.then(|| (target.to_owned(), vec![0; task.classes.len()])),
        }
    }

    /// The columns that [`Survey::add`] wants.
    pub(crate) fn column_names(&self) -> Vec<String> {
        let categories = self.categories.iter().map(|(name, _)| name.clone());
        let target = self.classes.iter().map(|(name, _)| name.clone());
        categories.chain(target).collect()
    }

    /// Looks at a column of a batch, by its place in [`Survey::column_names`].
    ///
    /// # Errors
    /// `invalid-input` for a column that is not of the announced kind.
    pub(crate) fn add(&mut self, place: usize, column: &Column) -> Result<(), Failure> {
        let Some((name, counts)) = self.categories.get_mut(place) else {
            if let Some((_, counts)) = &mut self.classes {
                count_classes(column, &self.task.classes, counts);
            }
            return Ok(());
        };
        let Some(strings) = column.utf8() else {
            return Err(Failure::invalid_input(format!(
                "column `{name}` does not hold strings"
            )));
        };
        for value in strings.iter().flatten() {
            if let Some(count) = counts.get_mut(value) {
                *count += 1;
            } else if counts.len() < MAXIMUM_COUNTED_VALUES {
                counts.insert(value.into(), 1);
            }
        }
        Ok(())
    }

    /// The vocabulary of each column of categories, and the weights of the classes.
    ///
    /// # Errors
    /// `invalid-config` for class weights that do not fit the classes.
    pub(crate) fn finish(
        self,
        hyperparameters: &Hyperparameters,
    ) -> Result<(Vec<Vec<String>>, Vec<f32>), Failure> {
        let counts = self.classes.as_ref().map(|(_, counts)| counts.as_slice());
        let weights = class_weights(self.task, &hyperparameters.class_weights, counts)?;
        let most = hyperparameters.max_bin as usize;
        let vocabularies = self
            .categories
            .into_iter()
            .map(|(_, counts)| vocabulary(counts, most))
            .collect();
        Ok((vocabularies, weights))
    }
}

/// Values by falling frequency, equal ones by name, so that the order is a function of the rows.
fn vocabulary(counts: HashMap<Box<str>, u64>, most: usize) -> Vec<String> {
    let mut counted: Vec<(Box<str>, u64)> = counts.into_iter().collect();
    counted.sort_unstable_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    counted.truncate(most);
    counted.into_iter().map(|(value, _)| value.into()).collect()
}

/// The weight of each class; none where all are 1, and where the rows were not counted yet.
///
/// # Errors
/// `invalid-config` for weights of classes that are none, or that are not weights.
pub(crate) fn class_weights(
    task: &Task,
    wanted: &ClassWeights,
    counts: Option<&[u64]>,
) -> Result<Vec<f32>, Failure> {
    let classes = &task.classes;
    if task.kind == TaskKind::Regression {
        return Ok(Vec::new());
    }
    match wanted {
        ClassWeights::Named(NamedWeights::None) => Ok(Vec::new()),
        // The rule of scikit-learn's `class_weight="balanced"`.
        ClassWeights::Named(NamedWeights::Balanced) => {
            let counts = counts.unwrap_or_default();
            let rows: u64 = counts.iter().sum();
            let weight = |count: &u64| match count {
                0 => 1.0,
                count => (rows as f64 / (classes.len() as f64 * *count as f64)) as f32,
            };
            Ok(counts.iter().map(weight).collect())
        }
        ClassWeights::Explicit(weights) => {
            for (class, weight) in weights {
                if !classes.contains(class) {
                    let message = format!(
                        "there is no class `{class}`; there are {}",
                        classes.join(", ")
                    );
                    return Err(Failure::invalid_config("class_weights", message));
                }
                if !(weight.is_finite() && *weight > 0.0) {
                    let message = format!(
                        "the weight of `{class}` is {weight}; it must be finite and above 0"
                    );
                    return Err(Failure::invalid_config("class_weights", message));
                }
            }
            let weight = |class| weights.get(class).copied().unwrap_or(1.0);
            Ok(classes.iter().map(weight).collect())
        }
    }
}

/// Counts the rows of each class; a row of no class is the host's to refuse.
fn count_classes(column: &Column, classes: &[String], counts: &mut [u64]) {
    let places: HashMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
    let mut count = |value: &str| {
        if let Some(count) = places.get(value).and_then(|place| counts.get_mut(*place)) {
            *count += 1;
        }
    };
    if let Some(strings) = column.utf8() {
        strings.iter().flatten().for_each(&mut count);
    } else if let Some(numbers) = column.int64() {
        let values = numbers.iter().flatten();
        values.for_each(|value| count(&value.to_string()));
    } else if let Some(booleans) = column.boolean() {
        for row in 0..column.rows as usize {
            match booleans.get(row) {
                Some(true) => count("true"),
                Some(false) => count("false"),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{integers, strings, task};
    use sandcast_sdk::columns::field;
    use std::collections::BTreeMap;

    fn two_columns() -> Task {
        let features = vec![
            field("city", Kind::Utf8, true),
            field("age", Kind::Int64, true),
        ];
        task(TaskKind::BinaryClassification, features, &["no", "yes"])
    }

    fn balanced() -> Hyperparameters {
        Hyperparameters {
            class_weights: ClassWeights::Named(NamedWeights::Balanced),
            max_bin: 2,
            ..Hyperparameters::default()
        }
    }

    #[test]
    fn categories_and_classes_are_counted_over_batches() {
        let task = two_columns();
        let features = Features::of(&task).expect("columns");
        assert_eq!(features.numbers, ["age"]);
        assert_eq!(features.categories, ["city"]);
        let hyperparameters = balanced();
        let mut survey = Survey::new(&task, "y", &features, &hyperparameters);
        assert_eq!(survey.column_names(), ["city", "y"]);
        for (cities, labels) in [
            (
                vec![Some("b"), Some("a"), None],
                vec![Some("no"), Some("yes"), Some("no")],
            ),
            (vec![Some("b"), Some("c")], vec![Some("no"), None]),
        ] {
            survey.add(0, &strings(&cities)).expect("strings");
            survey.add(1, &strings(&labels)).expect("labels");
        }
        let (vocabularies, weights) = survey.finish(&hyperparameters).expect("weights");
        assert_eq!(vocabularies, [["b", "a"]]);
        assert_eq!(weights, [4.0 / 6.0, 2.0]);
    }

    #[test]
    fn columns_of_another_kind_are_a_failure() {
        let task = two_columns();
        let features = Features::of(&task).expect("columns");
        let mut survey = Survey::new(&task, "y", &features, &balanced());
        let failure = survey.add(0, &integers(&[Some(1)])).expect_err("numbers");
        assert!(failure.message.contains("`city`"), "{}", failure.message);
        let none = Task {
            features: Vec::new(),
            ..task
        };
        assert!(Features::of(&none).is_err());
    }

    #[test]
    fn explicit_weights_must_name_classes() {
        let task = two_columns();
        let weights = |class: &str, weight: f32| {
            let wanted = ClassWeights::Explicit(BTreeMap::from([(class.to_owned(), weight)]));
            class_weights(&task, &wanted, None)
        };
        assert_eq!(weights("yes", 3.0).expect("a class"), [1.0, 3.0]);
        let message = weights("maybe", 3.0).expect_err("no class").message;
        assert!(message.contains("`maybe`; there are no, yes"), "{message}");
        assert!(weights("yes", -1.0).is_err());
    }

    #[test]
    fn classes_may_be_whole_numbers() {
        let mut counts = vec![0; 2];
        let classes = ["0".to_owned(), "1".to_owned()];
        let column = integers(&[Some(0), Some(1), Some(1), None, Some(7)]);
        count_classes(&column, &classes, &mut counts);
        assert_eq!(counts, [1, 2]);
    }
}
