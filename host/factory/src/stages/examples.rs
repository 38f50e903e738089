//! Rows made ready to learn from and to judge by: the task, the label of each row, and its part.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Field as ArrowField, Float64Type, Schema};
use arrow::error::ArrowError;
use sandcast_sandbox::{Field, Task, TaskKind};

use super::line::{Line, Stop, chain};
use super::permit::Permitted;
use super::split::{Parts, split};
use crate::metrics::SliceColumn;

/// The rows of one batch that a plugin is given.
const BATCH_ROWS: usize = 16_384;

/// The most classes that are told apart.
const MAX_CLASSES: usize = 1000;

/// Rows with their labels and parts.
pub(crate) struct Examples {
    rows: RecordBatch,
    parts: Parts,
    labels: Labels,
    /// The column that adapters learn to predict; none where they learn without.
    target: Option<(String, ArrayRef)>,
    weight: Option<ArrayRef>,
    pub(crate) task: Task,
}

/// What is to be predicted, for each row.
#[derive(Default)]
enum Labels {
    /// Places among the classes of the task.
    Classes(Vec<u32>),
    Numbers(Vec<f64>),
    /// Which rows are anomalies. No adapter sees it, and neither does the split.
    Anomalies {
        /// What is usual, and what is not.
        classes: [String; 2],
        positive: Vec<bool>,
    },
    /// Nothing says.
    #[default]
    None,
}

/// What is true of the test rows.
pub(crate) enum Truth<'a> {
    /// Places among the classes of the task.
    Classes(Vec<u32>),
    /// Values in the unit of the target.
    Numbers(Vec<f64>),
    /// Which rows are anomalies.
    Anomalies {
        /// What is usual, and what is not.
        classes: [&'a str; 2],
        positive: Vec<bool>,
    },
    /// Nothing says.
    None,
}

/// Which part of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Training,
    Validation,
    Test,
}

impl Examples {
    /// Reads the rows that may be learnt from.
    pub(crate) async fn read(
        line: &Line<'_>,
        stage: &str,
        permitted: &Permitted,
    ) -> Result<Examples, Stop> {
        let passed = &permitted.validated.validation.passed;
        let read = line.workspace.estate().read(passed).await;
        let batches = read.map_err(|error| Stop::of(stage, &error))?;
        let rows = concat_batches(&passed.schema, &batches).map_err(arrow_stop(stage))?;
        let train = &line.sections().train;
        let reject = |path: &str, message: String| line.rejected_at(path, &message, None);
        let column = |name: &str| {
            let missing = || Stop::host(stage, format!("column `{name}` is gone"));
            rows.column_by_name(name).cloned().ok_or_else(missing)
        };
        let labelled = match &train.target {
            Some(name) => {
                let raw = column(name)?;
                labels(train.task, train.positive.as_deref(), name, &raw)
                    .map_err(|wrong| wrong.stop(stage, reject))?
            }
            None => Labelled::default(),
        };
        let Labelled {
            labels,
            target,
            classes,
        } = labelled;
        let weight = match &train.weight {
            Some(name) => {
                let weight = cast(&column(name)?, &DataType::Float64).map_err(arrow_stop(stage))?;
                let values = weight.as_primitive::<Float64Type>();
                let wrong = values
                    .iter()
                    .filter(|it| !it.is_some_and(|it| it.is_finite() && it >= 0.0));
                match wrong.count() {
                    0 => Some(weight),
                    wrong => {
                        let message =
                            format!("`{name}` is not a number of at least 0 in {wrong} rows");
                        return Err(reject("train.weight", message));
                    }
                }
            }
            None => None,
        };
        let seed = line.sections().seed;
        let strata = match &labels {
            Labels::Classes(classes) => classes.clone(),
            Labels::Numbers(_) | Labels::Anomalies { .. } | Labels::None => {
                vec![0; rows.num_rows()]
            }
        };
        let parts = split(&rows, &strata, train.split, seed).map_err(arrow_stop(stage))?;
        let empty = [(Part::Test, &parts.test), (Part::Training, &parts.training)];
        if let Some((part, _)) = empty.into_iter().find(|(_, rows)| rows.is_empty()) {
            let message = format!("of {} rows none is left for {part:?}", rows.num_rows());
            return Err(reject("train.split", message));
        }
        let task = Task {
            kind: train.task,
            features: permitted.features.clone(),
            target: target.as_ref().map(|(name, _)| name.clone()),
            classes,
            weight: train.weight.clone(),
        };
        Ok(Examples {
            rows,
            parts,
            labels,
            target,
            weight,
            task,
        })
    }

    /// How many rows a part has.
    pub(crate) fn count(&self, part: Part) -> u64 {
        self.indices(part).len() as u64
    }

    fn indices(&self, part: Part) -> &UInt32Array {
        match part {
            Part::Training => &self.parts.training,
            Part::Validation => &self.parts.validation,
            Part::Test => &self.parts.test,
        }
    }

    /// What an adapter learns from: the features, the target and the weight, and nothing else.
    pub(crate) fn learnable(&self, part: Part) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut columns = self.features(part, &self.task.features)?;
        let indices = self.indices(part);
        let mut add = |name: &str, values: &ArrayRef| -> Result<(), ArrowError> {
            let values = take(values, indices, None)?;
            let field = ArrowField::new(name, values.data_type().clone(), false);
            columns.push((Arc::new(field), values));
            Ok(())
        };
        if let Some((name, target)) = &self.target {
            add(name, target)?;
        }
        if let (Some(name), Some(weight)) = (&self.task.weight, &self.weight) {
            add(name, weight)?;
        }
        batches(columns)
    }

    /// What a model is asked about: the features of the test rows that it knows. `None` if one of
    /// them is not there, or is of another kind.
    pub(crate) fn askable(
        &self,
        features: &[Field],
    ) -> Result<Option<Vec<RecordBatch>>, ArrowError> {
        let there = features.iter().all(|field| {
            self.rows
                .column_by_name(&field.name)
                .is_some_and(|column| *column.data_type() == field.kind.data_type())
        });
        if there {
            batches(self.features(Part::Test, features)?).map(Some)
        } else {
            Ok(None)
        }
    }

    fn features(
        &self,
        part: Part,
        features: &[Field],
    ) -> Result<Vec<(Arc<ArrowField>, ArrayRef)>, ArrowError> {
        let indices = self.indices(part);
        let column = |field: &Field| {
            let missing =
                || ArrowError::SchemaError(format!("there is no column `{}`", field.name));
            let values = self.rows.column_by_name(&field.name).ok_or_else(missing)?;
            let arrow = ArrowField::new(&field.name, field.kind.data_type(), field.nullable);
            Ok((Arc::new(arrow), take(values, indices, None)?))
        };
        features.iter().map(column).collect()
    }

    /// What is true of the test rows.
    pub(crate) fn truth(&self) -> Truth<'_> {
        let rows = self.parts.test.values().iter().map(|row| *row as usize);
        match &self.labels {
            Labels::Classes(classes) => Truth::Classes(rows.map(|row| classes[row]).collect()),
            Labels::Numbers(numbers) => Truth::Numbers(rows.map(|row| numbers[row]).collect()),
            Labels::Anomalies { classes, positive } => Truth::Anomalies {
                classes: [&classes[0], &classes[1]],
                positive: rows.map(|row| positive[row]).collect(),
            },
            Labels::None => Truth::None,
        }
    }

    /// The groups of the test rows by the values of a column.
    pub(crate) fn slice(
        &self,
        line: &Line<'_>,
        stage: &str,
        name: &str,
    ) -> Result<SliceColumn, Stop> {
        let missing = || Stop::host(stage, format!("column `{name}` is gone"));
        let values = self.rows.column_by_name(name).ok_or_else(missing)?;
        let taken = take(values, &self.parts.test, None).map_err(arrow_stop(stage))?;
        let texts = cast(&taken, &DataType::Utf8).map_err(arrow_stop(stage))?;
        SliceColumn::new(name, texts.as_string::<i32>().iter()).map_err(|error| {
            let help = "group the values in `dataset.sql` with a CASE, as bands".to_owned();
            line.rejected_at("evaluate.slices", &chain(&error), Some(help))
        })
    }
}

/// What a target says of each row.
#[derive(Default)]
struct Labelled {
    labels: Labels,
    /// What adapters are shown of it.
    target: Option<(String, ArrayRef)>,
    classes: Vec<String>,
}

/// What is wrong with a target.
enum Wrong {
    /// A place in the pipeline file, and what is wrong there.
    Said(&'static str, String),
    Arrow(ArrowError),
}

impl Wrong {
    fn stop(self, stage: &str, reject: impl Fn(&str, String) -> Stop) -> Stop {
        match self {
            Self::Said(path, message) => reject(path, message),
            Self::Arrow(error) => arrow_stop(stage)(error),
        }
    }
}

/// Reads a target for a task.
fn labels(
    task: TaskKind,
    positive: Option<&str>,
    name: &str,
    raw: &ArrayRef,
) -> Result<Labelled, Wrong> {
    if raw.null_count() > 0 {
        let message = format!(
            "{} rows have no `{name}`; put them aside with a not-null check",
            raw.null_count(),
        );
        return Err(Wrong::Said("train.target", message));
    }
    if task == TaskKind::Regression {
        let target = cast(raw, &DataType::Float64).map_err(Wrong::Arrow)?;
        let numbers = target.as_primitive::<Float64Type>().values().to_vec();
        if numbers.iter().any(|number| !number.is_finite()) {
            let message = format!("`{name}` is not a finite number everywhere");
            return Err(Wrong::Said("train.target", message));
        }
        return Ok(Labelled {
            labels: Labels::Numbers(numbers),
            target: Some((name.to_owned(), target)),
            classes: Vec::new(),
        });
    }
    let target = cast(raw, &DataType::Utf8).map_err(Wrong::Arrow)?;
    let texts = target.as_string::<i32>();
    let classes =
        classes_of(texts, task, positive).map_err(|(path, message)| Wrong::Said(path, message))?;
    if task == TaskKind::AnomalyDetection {
        let positive = texts.iter().map(|text| text == positive).collect();
        let [usual, unusual] = <[String; 2]>::try_from(classes)
            .map_err(|_| Wrong::Said("train.target", "the labels are not two".to_owned()))?;
        return Ok(Labelled {
            labels: Labels::Anomalies {
                classes: [usual, unusual],
                positive,
            },
            ..Labelled::default()
        });
    }
    let place = |text: Option<&str>| {
        let found = classes
            .iter()
            .position(|class| Some(class.as_str()) == text);
        found.unwrap_or(0) as u32
    };
    Ok(Labelled {
        labels: Labels::Classes(texts.iter().map(place).collect()),
        target: Some((name.to_owned(), Arc::clone(&target))),
        classes,
    })
}

/// The classes in order: sorted, as numbers where all are, and the positive one last if there is
/// one. On failure the place in the pipeline file and what is wrong.
pub(crate) fn classes_of(
    texts: &StringArray,
    kind: TaskKind,
    positive: Option<&str>,
) -> Result<Vec<String>, (&'static str, String)> {
    let mut distinct: BTreeSet<&str> = BTreeSet::new();
    for text in texts.iter().flatten() {
        distinct.insert(text);
        if distinct.len() > MAX_CLASSES {
            let message = format!("the target has more than {MAX_CLASSES} different values");
            return Err(("train.target", message));
        }
    }
    let mut classes: Vec<String> = distinct.into_iter().map(str::to_owned).collect();
    let numbers: Option<Vec<i64>> = classes.iter().map(|class| class.parse().ok()).collect();
    if numbers.is_some() {
        classes.sort_by_key(|class| class.parse::<i64>().unwrap_or_default());
    }
    let found = || format!("`{}`", classes.join("`, `"));
    match (kind, positive) {
        (TaskKind::BinaryClassification | TaskKind::AnomalyDetection, Some(positive)) => {
            if classes.len() != 2 {
                let two = match kind {
                    TaskKind::AnomalyDetection => "labels to judge by have two values",
                    _ => "a binary classification has two classes",
                };
                let message = match classes.len() {
                    few @ 0..=9 => format!("{two}, and the target has {few}: {}", found()),
                    many => format!("{two}, and the target has {many}"),
                };
                return Err(("train.target", message));
            }
            if !classes.iter().any(|class| class == positive) {
                let message = format!("the target is never `{positive}`; it is {}", found());
                return Err(("train.positive", message));
            }
            classes.sort_by_key(|class| class == positive);
        }
        _ if classes.len() < 2 => {
            return Err((
                "train.target",
                "the target has fewer than two values".to_owned(),
            ));
        }
        _ => {}
    }
    Ok(classes)
}

fn batches(columns: Vec<(Arc<ArrowField>, ArrayRef)>) -> Result<Vec<RecordBatch>, ArrowError> {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let whole = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
    let starts = (0..whole.num_rows()).step_by(BATCH_ROWS);
    Ok(starts
        .map(|at| whole.slice(at, BATCH_ROWS.min(whole.num_rows() - at)))
        .collect())
}

/// Arrow fails only where the host has got its own columns wrong.
pub(crate) fn arrow_stop(stage: &str) -> impl Fn(ArrowError) -> Stop {
    move |error| Stop::host(stage, chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(
        texts: &[&str],
        kind: TaskKind,
        positive: Option<&str>,
    ) -> Result<Vec<String>, String> {
        classes_of(&StringArray::from(texts.to_vec()), kind, positive)
            .map_err(|(_, message)| message)
    }

    #[test]
    fn the_positive_class_is_last() {
        let binary = TaskKind::BinaryClassification;
        let sorted = classes(&["yes", "no", "yes"], binary, Some("no"));
        assert_eq!(sorted, Ok(vec!["yes".to_owned(), "no".to_owned()]));
        let wrong = classes(&["yes", "no"], binary, Some("Yes")).expect_err("no such class");
        assert!(wrong.contains("never `Yes`"), "{wrong}");
        let three = classes(&["a", "b", "c"], binary, Some("a")).expect_err("three classes");
        assert!(three.contains("has 3: `a`, `b`, `c`"), "{three}");
    }

    #[test]
    fn numbers_are_sorted_as_numbers() {
        let many = classes(&["10", "9", "2"], TaskKind::MulticlassClassification, None);
        assert_eq!(many, Ok(["2", "9", "10"].map(str::to_owned).to_vec()));
        assert!(classes(&["2"], TaskKind::MulticlassClassification, None).is_err());
    }

    #[test]
    fn labels_of_anomalies_are_kept_from_the_adapter() {
        let raw: ArrayRef = Arc::new(StringArray::from(vec!["ok", "fault", "ok"]));
        let labelled = labels(TaskKind::AnomalyDetection, Some("fault"), "state", &raw);
        let Ok(Labelled {
            labels: Labels::Anomalies { classes, positive },
            target: None,
            classes: of_the_task,
        }) = labelled
        else {
            panic!("no labels");
        };
        assert_eq!(classes, ["ok", "fault"]);
        assert_eq!(positive, [false, true, false]);
        assert!(of_the_task.is_empty());
        let three: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        let wrong = labels(TaskKind::AnomalyDetection, Some("a"), "state", &three);
        let Err(Wrong::Said("train.target", message)) = wrong else {
            panic!("three labels");
        };
        assert!(
            message.contains("labels to judge by have two values"),
            "{message}"
        );
    }
}
