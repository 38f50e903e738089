//! Whether what an adapter answers can be what it is called.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;

use super::super::check_name;
use super::{Description, GenerationOptions};
use crate::bindings::adapter::exports::sandcast::plugin::adapter as wire;
use crate::model::{Task, TaskKind};
use crate::text;

/// Bytes of a JSON Schema of hyperparameters.
const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// How far the probabilities of a row may be from 1 in sum.
const PROBABILITY_TOLERANCE: f64 = 1e-3;

pub(super) fn check_description(described: wire::Description) -> Result<Description, String> {
    check_name("the name of an adapter", &described.name)?;
    if described.tasks.is_empty() || described.tasks.len() > 16 {
        return Err(format!(
            "an adapter for {} sorts of tasks",
            described.tasks.len()
        ));
    }
    if described.hyperparameters.len() > MAX_SCHEMA_BYTES {
        return Err(format!(
            "a schema of {} bytes",
            described.hyperparameters.len()
        ));
    }
    let hyperparameters = serde_json::from_str(&described.hyperparameters)
        .map_err(|error| format!("a schema of hyperparameters that is not JSON: {error}"))?;
    Ok(Description {
        name: described.name,
        tasks: described.tasks.into_iter().map(TaskKind::from).collect(),
        hyperparameters,
    })
}

/// The most clusters that rows are told apart by.
const MAX_CLUSTERS: i64 = 1 << 16;

/// What a column of a prediction holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Shares of the rows' certainty: 0 to 1, and 1 in sum over these columns.
    Probabilities,
    /// Any finite number.
    Numbers,
    /// A finite number of at least 0.
    Distances,
    /// The number of a cluster.
    Clusters,
    /// How many tokens there are.
    Tokens,
}

impl Holds {
    fn data_type(self) -> DataType {
        match self {
            Holds::Probabilities | Holds::Numbers | Holds::Distances => DataType::Float64,
            Holds::Clusters | Holds::Tokens => DataType::Int64,
        }
    }
}

/// The columns that a prediction for a task has.
fn prediction_columns(task: &Task) -> Vec<(String, Holds)> {
    match task.kind {
        TaskKind::BinaryClassification | TaskKind::MulticlassClassification => task
            .classes
            .iter()
            .map(|class| (format!("probability:{class}"), Holds::Probabilities))
            .collect(),
        TaskKind::Regression => vec![("prediction".into(), Holds::Numbers)],
        TaskKind::AnomalyDetection => vec![("score".into(), Holds::Numbers)],
        TaskKind::Clustering => vec![
            ("cluster".into(), Holds::Clusters),
            ("distance".into(), Holds::Distances),
        ],
        TaskKind::TextGeneration => vec![
            ("loss".into(), Holds::Distances),
            ("tokens".into(), Holds::Tokens),
        ],
    }
}

/// A prediction has the rows it was asked for, the columns of its task, and numbers that can be
/// what they are called.
pub(super) fn check_prediction(
    task: &Task,
    rows: usize,
    predicted: &RecordBatch,
) -> Result<(), String> {
    if predicted.num_rows() != rows {
        return Err(format!(
            "{} predictions for {rows} rows",
            predicted.num_rows()
        ));
    }
    let wanted = prediction_columns(task);
    let schema = predicted.schema();
    let given: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    if !given
        .iter()
        .copied()
        .eq(wanted.iter().map(|(name, _)| name.as_str()))
    {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!(
            "a prediction with the columns {} where {} are wanted",
            text::sentence(&format!("{given:?}"), 512),
            text::sentence(&format!("{names:?}"), 512)
        ));
    }
    let mut probabilities = Vec::new();
    for (column, (name, holds)) in predicted.columns().iter().zip(&wanted) {
        if *column.data_type() != holds.data_type() || column.null_count() > 0 {
            let wanted = match holds {
                Holds::Clusters | Holds::Tokens => "int64 numbers",
                _ => "numbers",
            };
            return Err(format!(
                "`{name}` is not a column of {wanted} without nulls"
            ));
        }
        let numbers = column
            .as_primitive_opt::<Float64Type>()
            .map(|it| it.values());
        match (holds, numbers) {
            (Holds::Probabilities, Some(numbers)) => probabilities.push((name, numbers)),
            (Holds::Clusters, _) => {
                let clusters = column.as_primitive::<Int64Type>().values();
                let known = 0..MAX_CLUSTERS;
                if let Some(row) = clusters.iter().position(|it| !known.contains(it)) {
                    return Err(format!(
                        "the cluster of row {row} is {}, not 0 to {}",
                        clusters[row],
                        MAX_CLUSTERS - 1
                    ));
                }
            }
            (Holds::Tokens, _) => {
                let tokens = column.as_primitive::<Int64Type>().values();
                if let Some(row) = tokens.iter().position(|it| *it < 0) {
                    return Err(format!("the tokens of row {row} are {}", tokens[row]));
                }
            }
            (_, Some(numbers)) => {
                let least = match holds {
                    Holds::Distances => 0.0,
                    _ => f64::MIN,
                };
                let fits = |number: &f64| number.is_finite() && *number >= least;
                if let Some(row) = numbers.iter().position(|number| !fits(number)) {
                    return Err(format!("the {name} for row {row} is {}", numbers[row]));
                }
            }
            (_, None) => return Err(format!("`{name}` is not a column of numbers")),
        }
    }
    if let ([loss, tokens], TaskKind::TextGeneration) = (predicted.columns(), task.kind) {
        let loss = loss.as_primitive::<Float64Type>().values();
        let tokens = tokens.as_primitive::<Int64Type>().values();
        if let Some(row) = (0..rows).position(|row| tokens[row] == 0 && loss[row] != 0.0) {
            return Err(format!(
                "row {row} has no tokens and a loss of {}",
                loss[row]
            ));
        }
    }
    if probabilities.is_empty() {
        return Ok(());
    }
    for row in 0..rows {
        let mut sum = 0.0;
        for (name, column) in &probabilities {
            let share = column[row];
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("`{name}` of row {row} is {share}, not 0 to 1"));
            }
            sum += share;
        }
        if (sum - 1.0).abs() > PROBABILITY_TOLERANCE {
            return Err(format!(
                "the probabilities of row {row} sum to {sum}, not to 1"
            ));
        }
    }
    Ok(())
}

/// The columns that a generation has.
const GENERATED: [(&str, DataType); 3] = [
    ("text", DataType::Utf8),
    ("tokens", DataType::Int64),
    ("finish", DataType::Utf8),
];

/// A generation has a row for each prompt and the columns there are; what it says of tokens and of
/// its end fits what was asked for, and its texts are those that it said it wrote, where it said so.
pub(super) fn check_generated(
    options: &GenerationOptions,
    rows: usize,
    said: &[String],
    generated: &RecordBatch,
) -> Result<(), String> {
    if generated.num_rows() != rows {
        return Err(format!("{} texts for {rows} prompts", generated.num_rows()));
    }
    let schema = generated.schema();
    let given: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    if given != GENERATED.each_ref().map(|(name, _)| *name) {
        return Err(format!(
            "a generation with the columns {} where text, tokens and finish are wanted",
            text::sentence(&format!("{given:?}"), 512)
        ));
    }
    for (column, (name, data_type)) in generated.columns().iter().zip(&GENERATED) {
        if column.data_type() != data_type || column.null_count() > 0 {
            return Err(format!("`{name}` is not {data_type} without nulls"));
        }
    }
    let texts = generated.column(0).as_string::<i32>();
    let tokens = generated.column(1).as_primitive::<Int64Type>().values();
    let finishes = generated.column(2).as_string::<i32>();
    let most = i64::from(options.maximum_tokens);
    for (row, count) in tokens.iter().enumerate() {
        let finish = finishes.value(row);
        let fits = match finish {
            "stop" => (0..=most).contains(count),
            "length" => *count == most,
            _ => false,
        };
        if !fits {
            return Err(format!(
                "row {row} has {count} of at most {most} tokens and ended by `{}`",
                text::sentence(finish, 64)
            ));
        }
        let written = texts.value(row);
        if options.stop.iter().any(|stop| written.contains(stop)) {
            return Err(format!("the text of row {row} goes on past a stop text"));
        }
        if said
            .get(row)
            .is_some_and(|said| !said.is_empty() && said != written)
        {
            return Err(format!(
                "the text of row {row} is not the one that it said it wrote"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

    use super::*;

    fn task(kind: TaskKind) -> Task {
        Task {
            kind,
            features: Vec::new(),
            target: kind.has_target().then(|| "y".into()),
            classes: vec!["no".into(), "yes".into()],
            weight: None,
        }
    }

    fn batch(columns: &[(&str, Vec<f64>)]) -> RecordBatch {
        RecordBatch::try_from_iter(columns.iter().map(|(name, values)| {
            (
                *name,
                Arc::new(Float64Array::from(values.clone())) as ArrayRef,
            )
        }))
        .expect("a batch")
    }

    #[test]
    fn probabilities_must_be_named_counted_and_be_probabilities() {
        let task = task(TaskKind::BinaryClassification);
        let check = |no: Vec<f64>, yes: Vec<f64>| {
            check_prediction(
                &task,
                2,
                &batch(&[("probability:no", no), ("probability:yes", yes)]),
            )
        };
        assert_eq!(check(vec![0.25, 1.0], vec![0.75, 0.0]), Ok(()));
        assert!(
            check(vec![0.25], vec![0.75])
                .expect_err("one row")
                .contains("for 2 rows")
        );
        assert!(
            check(vec![0.25, 1.5], vec![0.75, -0.5])
                .expect_err("1.5")
                .contains("row 1")
        );
        assert!(check(vec![0.25, f64::NAN], vec![0.75, 0.0]).is_err());
        assert!(
            check(vec![0.25, 0.5], vec![0.75, 0.4])
                .expect_err("0.9")
                .contains("sum to")
        );
        let other = batch(&[("probability:no", vec![1.0; 2]), ("p", vec![0.0; 2])]);
        let error = check_prediction(&task, 2, &other).expect_err("another name");
        assert!(error.contains("probability:yes"), "{error}");
    }

    #[test]
    fn a_regression_must_be_finite() {
        let task = task(TaskKind::Regression);
        let check = |values| check_prediction(&task, 2, &batch(&[("prediction", values)]));
        assert_eq!(check(vec![-1.0, 1e9]), Ok(()));
        assert!(check(vec![0.0, f64::INFINITY]).is_err());
    }
    #[test]
    fn a_score_must_be_finite() {
        let task = task(TaskKind::AnomalyDetection);
        let check = |values| check_prediction(&task, 2, &batch(&[("score", values)]));
        assert_eq!(check(vec![-1.0, 1e9]), Ok(()));
        assert!(check(vec![0.0, f64::NEG_INFINITY]).is_err());
        assert!(check(vec![f64::NAN, 0.0]).is_err());
        let other = check_prediction(&task, 1, &batch(&[("scores", vec![1.0])]));
        assert!(other.expect_err("another name").contains("score"));
    }

    #[test]
    fn a_cluster_must_be_a_number_in_range_and_a_distance_not_negative() {
        let task = task(TaskKind::Clustering);
        let check = |clusters: ArrayRef, distances: Vec<f64>| {
            let distances = Arc::new(Float64Array::from(distances)) as ArrayRef;
            let columns = [("cluster", clusters), ("distance", distances)];
            check_prediction(
                &task,
                2,
                &RecordBatch::try_from_iter(columns).expect("a batch"),
            )
        };
        let clusters = |values: [i64; 2]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        assert_eq!(check(clusters([0, 65_535]), vec![0.0, 2.5]), Ok(()));
        for wrong in [-1, 65_536, i64::MIN, i64::MAX] {
            let error = check(clusters([0, wrong]), vec![0.0, 0.0]).expect_err("out of range");
            assert!(error.contains("row 1"), "{error}");
        }
        for wrong in [-1e-9, f64::NAN, f64::INFINITY] {
            assert!(
                check(clusters([0, 0]), vec![0.0, wrong]).is_err(),
                "{wrong}"
            );
        }
        let floats = Arc::new(Float64Array::from(vec![0.0, 1.0])) as ArrayRef;
        assert!(check(floats, vec![0.0, 0.0]).is_err());
        let nulls = Arc::new(Int64Array::from(vec![Some(0), None])) as ArrayRef;
        assert!(check(nulls, vec![0.0, 0.0]).is_err());
    }

    fn generated(rows: &[(&str, i64, &str)]) -> RecordBatch {
        let texts: Vec<&str> = rows.iter().map(|row| row.0).collect();
        let tokens: Vec<i64> = rows.iter().map(|row| row.1).collect();
        let finishes: Vec<&str> = rows.iter().map(|row| row.2).collect();
        RecordBatch::try_from_iter([
            ("text", Arc::new(StringArray::from(texts)) as ArrayRef),
            ("tokens", Arc::new(Int64Array::from(tokens))),
            ("finish", Arc::new(StringArray::from(finishes))),
        ])
        .expect("a batch")
    }

    #[test]
    fn a_generation_must_fit_what_was_asked_for_and_what_was_said() {
        let options = GenerationOptions {
            maximum_tokens: 4,
            stop: vec!["end".into()],
            ..GenerationOptions::default()
        };
        let check = |rows: &[(&str, i64, &str)], said: &[&str]| {
            let said: Vec<String> = said.iter().map(|one| (*one).to_owned()).collect();
            check_generated(&options, 2, &said, &generated(rows))
        };
        let good = [("once", 4, "length"), ("", 0, "stop")];
        assert_eq!(check(&good, &[]), Ok(()));
        assert_eq!(check(&good, &["once", ""]), Ok(()));
        for (rows, said, why) in [
            (&good[..1], &[][..], "1 texts for 2 prompts"),
            (&[("a", 5, "stop"), ("", 0, "stop")], &[], "5 of at most 4"),
            (
                &[("a", 3, "length"), ("", 0, "stop")],
                &[],
                "3 of at most 4",
            ),
            (
                &[("a", -1, "stop"), ("", 0, "stop")],
                &[],
                "-1 of at most 4",
            ),
            (&[("a", 1, "bored"), ("", 0, "stop")], &[], "`bored`"),
            (
                &[("bend", 4, "stop"), ("", 0, "stop")],
                &[],
                "past a stop text",
            ),
            (&good[..], &["twice", ""], "said it wrote"),
        ] {
            let error = check(rows, said).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        let other = batch(&[("text", vec![0.0; 2])]);
        assert!(check_generated(&options, 2, &[], &other).is_err());
    }

    #[test]
    fn a_text_has_a_loss_and_tokens_or_neither() {
        let task = task(TaskKind::TextGeneration);
        let check = |losses: Vec<f64>, tokens: Vec<i64>| {
            let batch = RecordBatch::try_from_iter([
                ("loss", Arc::new(Float64Array::from(losses)) as ArrayRef),
                ("tokens", Arc::new(Int64Array::from(tokens))),
            ])
            .expect("a batch");
            check_prediction(&task, 2, &batch)
        };
        assert_eq!(check(vec![1.5, 0.0], vec![3, 0]), Ok(()));
        assert!(check(vec![1.5, 0.1], vec![3, 0]).is_err());
        assert!(check(vec![-1.5, 0.0], vec![3, 0]).is_err());
        assert!(check(vec![f64::NAN, 0.0], vec![3, 0]).is_err());
        assert!(check(vec![1.5, 0.0], vec![-3, 0]).is_err());
    }
}
