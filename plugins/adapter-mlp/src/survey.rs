//! One pass over the training rows: what the columns hold, as far as the network must know it.

use std::collections::HashMap;

use sandcast_sdk::{Column, Failure, Kind, Task, TaskKind};
use table_features::{Counts, Moments, Sample, median, seconds_or_numbers};

use crate::features::Features;
use crate::hyperparameters::{ClassWeights, Hyperparameters, Impute, NamedWeights};
use crate::network::Head;
use crate::pieces::edges;

/// What the pass has learnt.
#[derive(Debug)]
pub(crate) struct Learnt {
    pub(crate) features: Features,
    /// The categories of each of [`Features::categories`], the most frequent first.
    pub(crate) vocabularies: Vec<Vec<String>>,
    pub(crate) head: Head,
}

/// The pass.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    task: &'a Task,
    hyperparameters: &'a Hyperparameters,
    /// One for each feature, in the order of the task.
    columns: Vec<Seen>,
    target: SeenTarget,
}

#[derive(Debug)]
enum Seen {
    Numbers { moments: Moments, sample: Sample },
    Strings(Counts),
}

#[derive(Debug)]
enum SeenTarget {
    Number(Moments),
    /// Rows of each class.
    Classes(Vec<u64>),
}

impl<'a> Survey<'a> {
    /// Over so many rows.
    pub(crate) fn new(task: &'a Task, hyperparameters: &'a Hyperparameters, rows: u64) -> Self {
        let numbers = task
            .features
            .iter()
            .filter(|field| field.kind != Kind::Utf8)
            .count() as u64;
        let columns = task.features.iter().map(|field| match field.kind {
            Kind::Utf8 => Seen::Strings(Counts::default()),
            _ => Seen::Numbers {
                moments: Moments::default(),
                sample: Sample::of(numbers, rows),
            },
        });
        let target = match task.kind {
            TaskKind::Regression => SeenTarget::Number(Moments::default()),
            _ => SeenTarget::Classes(vec![0; task.classes.len()]),
        };
        Self {
            task,
            hyperparameters,
            columns: columns.collect(),
            target,
        }
    }

    /// The columns that [`Survey::add`] wants: the features, then the target.
    pub(crate) fn column_names(&self) -> Vec<String> {
        let features = self.task.features.iter().map(|field| field.name.clone());
        features.chain(self.task.target.clone()).collect()
    }

    /// Looks at a column of a batch, by its place in [`Survey::column_names`].
    ///
    /// # Errors
    /// `invalid-input` for a column that is not of the announced kind.
    pub(crate) fn add(&mut self, place: usize, column: &Column) -> Result<(), Failure> {
        let (Some(seen), Some(field)) =
            (self.columns.get_mut(place), self.task.features.get(place))
        else {
            return self.add_target(column);
        };
        let other_kind = || {
            Failure::invalid_input(format!(
                "column `{}` is not of the kind {}",
                field.name,
                field.kind.name()
            ))
        };
        match seen {
            Seen::Numbers { moments, sample } => {
                let values = seconds_or_numbers(column).ok_or_else(other_kind)?;
                moments.add(&values, column.valid());
                sample.add(&values, column.valid());
            }
            Seen::Strings(counts) => {
                let Some(strings) = column.utf8() else {
                    return Err(other_kind());
                };
                strings.iter().flatten().for_each(|value| counts.add(value));
            }
        }
        Ok(())
    }

    fn add_target(&mut self, column: &Column) -> Result<(), Failure> {
        match &mut self.target {
            SeenTarget::Number(moments) => {
                let values = seconds_or_numbers(column).ok_or_else(|| {
                    let message = format!(
                        "the target `{}` holds strings, a regression predicts numbers",
                        named(self.task)
                    );
                    Failure::invalid_input(message)
                        .hint("make it a classification, or convert the column")
                })?;
                moments.add(&values, column.valid());
            }
            SeenTarget::Classes(counts) => count_classes(column, &self.task.classes, counts),
        }
        Ok(())
    }

    /// What was learnt.
    ///
    /// # Errors
    /// `invalid-config` for class weights that do not fit the classes.
    pub(crate) fn finish(self) -> Result<Learnt, Failure> {
        let head = head(self.task, self.hyperparameters, &self.target)?;
        let mut numbers = HashMap::new();
        let mut vocabularies = HashMap::new();
        for (place, (field, seen)) in self.task.features.iter().zip(self.columns).enumerate() {
            match seen {
                Seen::Strings(counts) => {
                    let Hyperparameters {
                        min_frequency,
                        max_categories,
                        ..
                    } = *self.hyperparameters;
                    vocabularies.insert(place, counts.most_frequent(min_frequency, max_categories));
                }
                Seen::Numbers {
                    moments: seen,
                    sample,
                } => {
                    numbers.insert(field.name.as_str(), (seen, sample.into_values()));
                }
            }
        }
        let mut features = Features::of(&self.task.features, self.hyperparameters, |place| {
            vocabularies
                .get(&place)
                .map_or(0, |vocabulary| vocabulary.len() as u32)
        });
        let pieces = features.pieces;
        for (place, number) in (0..).zip(&mut features.numbers) {
            let Some((moments, mut sample)) = numbers.remove(number.column.as_str()) else {
                continue;
            };
            number.mean = moments.mean;
            number.deviation = moments.deviation();
            number.fill = match self.hyperparameters.impute {
                Impute::Mean => moments.mean,
                Impute::Median => median(&mut sample).unwrap_or(moments.mean),
            };
            if pieces > 0 && features.cut.contains(&place) {
                number.edges = edges(sample, pieces);
            }
        }
        let mut places: Vec<usize> = vocabularies.keys().copied().collect();
        places.sort_unstable();
        let vocabularies = places
            .iter()
            .filter_map(|place| vocabularies.remove(place))
            .collect();
        Ok(Learnt {
            features,
            vocabularies,
            head,
        })
    }
}

/// The target, for a message.
fn named(task: &Task) -> &str {
    task.target.as_deref().unwrap_or_default()
}

/// What a task ends in before any row is seen.
///
/// # Errors
/// As [`Survey::finish`].
pub(crate) fn unseen_head(task: &Task, hyperparameters: &Hyperparameters) -> Result<Head, Failure> {
    let target = match task.kind {
        TaskKind::Regression => SeenTarget::Number(Moments::default()),
        _ => SeenTarget::Classes(vec![1; task.classes.len()]),
    };
    head(task, hyperparameters, &target)
}

fn head(
    task: &Task,
    hyperparameters: &Hyperparameters,
    target: &SeenTarget,
) -> Result<Head, Failure> {
    let counts = match target {
        SeenTarget::Number(moments) => {
            return Ok(Head::Regression {
                mean: moments.mean,
                deviation: moments.deviation(),
            });
        }
        SeenTarget::Classes(counts) => counts,
    };
    let class_weights = class_weights(&task.classes, counts, &hyperparameters.class_weights)?;
    let classes = task.classes.len();
    match task.kind {
        TaskKind::BinaryClassification if classes != 2 => Err(Failure::invalid_input(format!(
            "a binary classification has 2 classes, `{}` has {classes}",
            named(task)
        ))),
        TaskKind::BinaryClassification => Ok(Head::Binary {
            class_weights: class_weights.and_then(|weights| weights.try_into().ok()),
        }),
        _ if classes < 2 => Err(Failure::invalid_input(format!(
            "a classification has at least 2 classes, `{}` has {classes}",
            named(task)
        ))),
        _ => Ok(Head::Multiclass {
            classes: classes as u32,
            class_weights,
        }),
    }
}

fn class_weights(
    classes: &[String],
    counts: &[u64],
    wanted: &ClassWeights,
) -> Result<Option<Vec<f32>>, Failure> {
    match wanted {
        ClassWeights::Named(NamedWeights::None) => Ok(None),
        // The rule of scikit-learn's `class_weight="balanced"`.
        ClassWeights::Named(NamedWeights::Balanced) => {
            let rows: u64 = counts.iter().sum();
            let weight = |count: &u64| match count {
                0 => 1.0,
                count => (rows as f64 / (classes.len() as f64 * *count as f64)) as f32,
            };
            Ok(Some(counts.iter().map(weight).collect()))
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
            Ok(Some(
                classes
                    .iter()
                    .map(|class| weights.get(class).copied().unwrap_or(1.0))
                    .collect(),
            ))
        }
    }
}

/// Counts the rows of each class; a row of no class is the host's to refuse.
fn count_classes(column: &Column, classes: &[String], counts: &mut [u64]) {
    let mut count = |place: Option<&usize>| {
        if let Some(count) = place.and_then(|place| counts.get_mut(*place)) {
            *count += 1;
        }
    };
    if let Some(strings) = column.utf8() {
        let places: HashMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
        strings
            .iter()
            .flatten()
            .for_each(|value| count(places.get(value)));
    } else if let Some(numbers) = column.int64() {
        let places: HashMap<i64, usize> = classes
            .iter()
            .zip(0..)
            .filter_map(|(class, place)| Some((class.parse().ok()?, place)))
            .collect();
        numbers
            .iter()
            .flatten()
            .for_each(|value| count(places.get(&value)));
    } else if let Some(booleans) = column.boolean() {
        let places =
            [false, true].map(|value| classes.iter().position(|class| *class == value.to_string()));
        for row in 0..column.rows as usize {
            count(
                booleans
                    .get(row)
                    .and_then(|value| places[usize::from(value)].as_ref()),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{column, floats, integers, strings, task};
    use sandcast_sdk::Kind;
    use sandcast_sdk::columns::field;
    use std::collections::BTreeMap;

    fn learn(
        task: &Task,
        hyperparameters: &Hyperparameters,
        batches: &[Vec<Column>],
    ) -> Result<Learnt, Failure> {
        let rows = batches.iter().map(|batch| u64::from(batch[0].rows)).sum();
        let mut survey = Survey::new(task, hyperparameters, rows);
        for batch in batches {
            assert_eq!(batch.len(), survey.column_names().len());
            for (place, column) in batch.iter().enumerate() {
                survey.add(place, column)?;
            }
        }
        survey.finish()
    }

    fn two_columns() -> Task {
        let features = vec![
            field("city", Kind::Utf8, true),
            field("age", Kind::Int64, true),
        ];
        task(TaskKind::BinaryClassification, features, &["no", "yes"])
    }

    #[test]
    fn numbers_and_categories_are_learnt_over_batches() {
        let hyperparameters = Hyperparameters {
            min_frequency: 2,
            impute: Impute::Median,
            ..Hyperparameters::default()
        };
        let batch = |cities: &[Option<&str>], ages: &[Option<i64>], labels: &[Option<&str>]| {
            vec![strings(cities), integers(ages), strings(labels)]
        };
        let task = two_columns();
        let learnt = learn(
            &task,
            &hyperparameters,
            &[
                batch(
                    &[Some("b"), Some("a"), None],
                    &[Some(1), Some(2), None],
                    &[Some("no"), Some("yes"), Some("no")],
                ),
                batch(
                    &[Some("a"), Some("b"), Some("c"), Some("b")],
                    &[Some(9), None, Some(2), Some(1)],
                    &[Some("no"); 4],
                ),
            ],
        )
        .expect("learnt");
        assert_eq!(learnt.vocabularies, [["b", "a"]]);
        assert_eq!(learnt.features.categories[0].size, 2);
        let age = &learnt.features.numbers[0];
        assert_eq!((age.mean, age.fill), (3.0, 2.0));
        assert_eq!(age.edges, [1.0, 2.0, 9.0]);
        assert!((age.deviation - (46.0_f64 / 5.0).sqrt()).abs() < 1e-12);
        assert_eq!(
            learnt.head,
            Head::Binary {
                class_weights: None
            }
        );
    }

    #[test]
    fn balanced_weights_make_every_class_count_the_same() {
        let hyperparameters = Hyperparameters {
            class_weights: ClassWeights::Named(NamedWeights::Balanced),
            ..Hyperparameters::default()
        };
        let batch = vec![
            strings(&[None; 4]),
            integers(&[None; 4]),
            strings(&[Some("no"), Some("no"), Some("no"), Some("yes")]),
        ];
        let learnt = learn(&two_columns(), &hyperparameters, &[batch]).expect("learnt");
        assert_eq!(
            learnt.head,
            Head::Binary {
                class_weights: Some([4.0 / 6.0, 2.0])
            }
        );
        assert_eq!(learnt.features.numbers[0].deviation, 1.0);
        assert!(learnt.vocabularies[0].is_empty());
    }

    #[test]
    fn explicit_weights_must_name_classes() {
        let task = two_columns();
        let weights = |class: &str, weight: f32| {
            let class_weights =
                ClassWeights::Explicit(BTreeMap::from([(class.to_owned(), weight)]));
            unseen_head(
                &task,
                &Hyperparameters {
                    class_weights,
                    ..Hyperparameters::default()
                },
            )
        };
        assert_eq!(
            weights("yes", 3.0).expect("a class"),
            Head::Binary {
                class_weights: Some([1.0, 3.0])
            }
        );
        assert!(
            weights("maybe", 3.0)
                .expect_err("no class")
                .message
                .contains("`maybe`; there are no, yes")
        );
        assert!(
            weights("yes", -1.0)
                .expect_err("negative")
                .message
                .contains("above 0")
        );
    }

    #[test]
    fn classes_of_every_kind_are_counted() {
        let classes = ["0".to_owned(), "1".to_owned()];
        let mut counts = vec![0; 2];
        count_classes(
            &integers(&[Some(0), Some(1), Some(1), None, Some(7)]),
            &classes,
            &mut counts,
        );
        assert_eq!(counts, [1, 2]);
        let mut counts = vec![0; 2];
        let booleans = column(Kind::Boolean, |builder| {
            if let sandcast_sdk::columns::ColumnBuilder::Boolean(builder) = builder {
                builder.push(true);
                builder.push_null();
                builder.push(true);
            }
        });
        count_classes(
            &booleans,
            &["false".to_owned(), "true".to_owned()],
            &mut counts,
        );
        assert_eq!(counts, [0, 2]);
    }

    #[test]
    fn a_regression_learns_its_target() {
        let task = task(
            TaskKind::Regression,
            vec![field("x", Kind::Float64, false)],
            &[],
        );
        let hyperparameters = Hyperparameters::default();
        let learnt = learn(
            &task,
            &hyperparameters,
            &[vec![
                floats(&[Some(0.0), Some(1.0)]),
                integers(&[Some(10), Some(20)]),
            ]],
        )
        .expect("learnt");
        assert_eq!(
            learnt.head,
            Head::Regression {
                mean: 15.0,
                deviation: 5.0
            }
        );
        let failure = learn(
            &task,
            &hyperparameters,
            &[vec![floats(&[Some(0.0)]), strings(&[Some("x")])]],
        )
        .expect_err("strings");
        assert!(
            failure.message.contains("the target `y` holds strings"),
            "{}",
            failure.message
        );
    }

    #[test]
    fn columns_of_another_kind_and_too_few_classes_are_failures() {
        let task = two_columns();
        let hyperparameters = Hyperparameters::default();
        let wrong = vec![
            integers(&[Some(1)]),
            integers(&[Some(1)]),
            strings(&[Some("no")]),
        ];
        assert!(
            learn(&task, &hyperparameters, &[wrong])
                .expect_err("no strings")
                .message
                .contains("`city`")
        );
        let one_class = Task {
            classes: vec!["no".into()],
            ..two_columns()
        };
        assert!(unseen_head(&one_class, &hyperparameters).is_err());
        let multi = Task {
            kind: TaskKind::MulticlassClassification,
            ..one_class
        };
        assert!(unseen_head(&multi, &hyperparameters).is_err());
    }
}
