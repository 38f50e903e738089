//! Classifies rows and predicts numbers by gradient-boosted decision trees.
//!
//! The host grows the trees and asks them; the adapter says by which columns, and how. Numbers go
//! in as they are, with what is missing; of strings it tells the host which values there are.

use sandcast_sdk::columns::Rows;
use sandcast_sdk::forest::{
    Forest, ForestColumns, ForestExamples, ForestObjective, ForestTarget, Importance,
};
use sandcast_sdk::graph::Category;
use sandcast_sdk::{
    Adapter, Batch, Dataset, Declaration, Description, Failure, Model, Task, TaskKind, Trained,
    Training, prediction_schema, target,
};
use serde::Serialize;

use crate::survey::{Features, Survey, class_weights};

mod hyperparameters;
mod survey;

pub use crate::hyperparameters::{ClassWeights, Hyperparameters, NamedWeights, RegressionLoss};

/// Columns that are named in the log.
const NAMED_COLUMNS: usize = 5;

/// Decision trees over the columns of a table.
#[derive(Debug)]
pub struct GbdtAdapter;

/// What is kept beside the trees, for people and for later versions; a prediction needs none of
/// it.
#[derive(Debug, Serialize)]
struct State<'a> {
    version: u32,
    hyperparameters: &'a Hyperparameters,
    best_round: u32,
    importance: Vec<ColumnImportance>,
}

/// What a column did for the trees.
#[derive(Debug, Serialize)]
struct ColumnImportance {
    column: String,
    gain: f64,
    splits: u64,
}

impl Adapter for GbdtAdapter {
    type Hyperparameters = Hyperparameters;

    fn describe() -> Description {
        Description {
            name: "gradient-boosted trees".into(),
            tasks: vec![
                TaskKind::BinaryClassification,
                TaskKind::MulticlassClassification,
                TaskKind::Regression,
            ],
            hyperparameters: Hyperparameters::json_schema(),
        }
    }

    fn declare(
        task: &Task,
        _cardinalities: &[u32],
        hyperparameters: Hyperparameters,
    ) -> Result<Declaration, Failure> {
        hyperparameters.check()?;
        target(task)?;
        Features::of(task)?;
        let weights = class_weights(task, &hyperparameters.class_weights, None)?;
        let objective = objective(task, &hyperparameters)?;
        Ok(hyperparameters.plan(objective, weights).into())
    }

    fn train(training: &Training, hyperparameters: Hyperparameters) -> Result<Trained, Failure> {
        hyperparameters.check()?;
        let task = training.task();
        let target = target(&task)?;
        let objective = objective(&task, &hyperparameters)?;
        let features = Features::of(&task)?;
        let dataset = training.training_rows();
        if dataset.rows() == 0 {
            return Err(Failure::invalid_input("there are no rows to learn from"));
        }
        let survey = Survey::new(&task, target, &features, &hyperparameters);
        let survey = read(survey, &dataset)?;
        let (vocabularies, weights) = survey.finish(&hyperparameters)?;
        let categories = features.categories.into_iter().zip(vocabularies);
        let examples = ForestExamples {
            training: dataset,
            validation: training.validation_rows(),
            columns: ForestColumns {
                numbers: features.numbers,
                categories: categories
                    .map(|(column, vocabulary)| Category { column, vocabulary })
                    .collect(),
            },
            target: match task.kind {
                TaskKind::Regression => ForestTarget::Number(target.to_owned()),
                _ => ForestTarget::Label(Category {
                    column: target.to_owned(),
                    vocabulary: task.classes.clone(),
                }),
            },
            weight: task.weight.clone(),
        };
        let plan = hyperparameters.plan(objective, weights);
        let trained = Forest::train(examples, &plan, training.seed())?;
        let importance = trained.forest.importance();
        tell(&importance);
        let state = State {
            version: 1,
            hyperparameters: &hyperparameters,
            best_round: trained.report.best_round,
            importance: importance.into_iter().map(ColumnImportance::from).collect(),
        };
        let state =
            serde_json::to_vec(&state).map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Trained::new(state, trained.forest))
    }

    fn predict(model: &Model, rows: Batch) -> Result<Batch, Failure> {
        let predicted = model.forest()?.predict(rows)?.values();
        let schema = prediction_schema(&model.task());
        let mut columns = Rows::new();
        for (place, field) in schema.iter().enumerate() {
            let values = predicted.iter().skip(place).step_by(schema.len().max(1));
            let values: Vec<f64> = values.map(|value| f64::from(*value)).collect();
            columns = columns.float64(&field.name, values);
        }
        columns.into_batch()
    }
}

impl From<Importance> for ColumnImportance {
    fn from(importance: Importance) -> Self {
        Self {
            column: importance.column,
            gain: importance.gain,
            splits: importance.splits,
        }
    }
}

/// What the trees of a task minimise.
///
/// # Errors
/// `unsupported` for a task that trees are not grown for, `invalid-input` for too few classes.
fn objective(task: &Task, hyperparameters: &Hyperparameters) -> Result<ForestObjective, Failure> {
    let classes = task.classes.len();
    let wanted = match task.kind {
        TaskKind::Regression => {
            return Ok(match hyperparameters.regression_loss {
                RegressionLoss::Squared => ForestObjective::SquaredError,
                RegressionLoss::Huber => ForestObjective::Huber(hyperparameters.huber_delta),
            });
        }
        TaskKind::BinaryClassification if classes == 2 => return Ok(ForestObjective::Logistic),
        TaskKind::MulticlassClassification if classes >= 2 => return Ok(ForestObjective::Softmax),
        TaskKind::BinaryClassification => "2 classes",
        TaskKind::MulticlassClassification => "at least 2 classes",
        _ => {
            return Err(Failure::unsupported(
                "trees are grown for a target, and there is none",
            ));
        }
    };
    Err(Failure::invalid_input(format!(
        "the classification needs {wanted}, and the target has {classes}"
    )))
}

/// Reads the training rows once, the columns that are counted only.
fn read<'a>(mut survey: Survey<'a>, dataset: &Dataset) -> Result<Survey<'a>, Failure> {
    let names = survey.column_names();
    if names.is_empty() {
        return Ok(survey);
    }
    for index in 0..dataset.batches() {
        let batch = dataset.read(index, &names)?;
        for place in 0..names.len() {
            survey.add(place, &batch.column(place as u32)?)?;
        }
    }
    Ok(survey)
}

/// Says which columns the trees went by most, and which not at all.
fn tell(importance: &[Importance]) {
    let total: f64 = importance.iter().map(|one| one.gain).sum();
    let mut used: Vec<&Importance> = importance.iter().filter(|one| one.splits > 0).collect();
    used.sort_by(|left, right| right.gain.total_cmp(&left.gain));
    let named: Vec<String> = used
        .iter()
        .take(NAMED_COLUMNS)
        .map(|one| format!("{} ({:.0} %)", one.column, 100.0 * one.gain / total))
        .collect();
    if !named.is_empty() {
        sandcast_sdk::log::info!("most of what was gained is by {}", named.join(", "));
    }
    let unused: Vec<&str> = importance
        .iter()
        .filter(|one| one.splits == 0)
        .map(|one| one.column.as_str())
        .collect();
    if !unused.is_empty() {
        sandcast_sdk::log::warn!("no tree splits by {}", unused.join(", "));
    }
}

sandcast_sdk::export_adapter!(GbdtAdapter);

#[cfg(test)]
mod testing {
    //! Columns and tasks made by hand.

    use sandcast_sdk::columns::ColumnBuilder;
    use sandcast_sdk::{Column, Field, Kind, Task, TaskKind};

    pub(crate) fn task(kind: TaskKind, features: Vec<Field>, classes: &[&str]) -> Task {
        let classes = classes.iter().map(|class| (*class).to_owned()).collect();
        Task {
            kind,
            features,
            target: Some("y".into()),
            classes,
            weight: None,
        }
    }

    pub(crate) fn strings(values: &[Option<&str>]) -> Column {
        values.iter().copied().collect()
    }

    pub(crate) fn integers(values: &[Option<i64>]) -> Column {
        let mut builder = ColumnBuilder::new(Kind::Int64);
        for value in values {
            match (&mut builder, value) {
                (ColumnBuilder::Int64(numbers), Some(value)) => numbers.push(*value),
                (builder, _) => builder.push_null(),
            }
        }
        builder.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::task;
    use sandcast_sdk::columns::field;
    use sandcast_sdk::forest::ForestPlan;
    use sandcast_sdk::{FailureCode, Kind};
    use std::collections::BTreeMap;

    fn declared(task: &Task, hyperparameters: Hyperparameters) -> Result<ForestPlan, Failure> {
        GbdtAdapter::declare(task, &[0], hyperparameters)
            .map(|declared| declared.into_forest().expect("the plan of a forest"))
    }

    fn numbers() -> Vec<sandcast_sdk::Field> {
        vec![field("x", Kind::Float64, true)]
    }

    #[test]
    fn every_task_has_its_objective() {
        let plan = |kind, classes: &[&str]| {
            declared(&task(kind, numbers(), classes), Hyperparameters::default())
        };
        let binary = plan(TaskKind::BinaryClassification, &["no", "yes"]).expect("a plan");
        assert!(matches!(binary.objective, ForestObjective::Logistic));
        assert_eq!((binary.rounds, binary.max_leaves), (500, 31));
        let several = plan(TaskKind::MulticlassClassification, &["a", "b", "c"]).expect("a plan");
        assert!(matches!(several.objective, ForestObjective::Softmax));
        let regression = plan(TaskKind::Regression, &[]).expect("a plan");
        assert!(matches!(
            regression.objective,
            ForestObjective::SquaredError
        ));
        let huber = declared(
            &task(TaskKind::Regression, numbers(), &[]),
            Hyperparameters {
                regression_loss: RegressionLoss::Huber,
                huber_delta: 2.5,
                ..Hyperparameters::default()
            },
        );
        let huber = huber.expect("a plan").objective;
        assert!(matches!(huber, ForestObjective::Huber(delta) if delta == 2.5));
    }

    #[test]
    fn tasks_that_trees_are_not_for_are_refused() {
        let plan = |kind, classes: &[&str]| {
            declared(&task(kind, numbers(), classes), Hyperparameters::default()).map(|_| ())
        };
        let failure = plan(TaskKind::BinaryClassification, &["no"]).expect_err("one class");
        assert!(failure.message.contains("2 classes"), "{}", failure.message);
        let failure = plan(TaskKind::MulticlassClassification, &[]).expect_err("no class");
        assert!(
            failure.message.contains("at least 2"),
            "{}",
            failure.message
        );
        let unlabelled = Task {
            target: None,
            ..task(TaskKind::Clustering, numbers(), &[])
        };
        assert!(declared(&unlabelled, Hyperparameters::default()).is_err());
        let no_columns = task(TaskKind::Regression, Vec::new(), &[]);
        assert!(declared(&no_columns, Hyperparameters::default()).is_err());
    }

    #[test]
    fn weights_and_bounds_are_declared_too() {
        let task = task(TaskKind::BinaryClassification, numbers(), &["no", "yes"]);
        let weighted = Hyperparameters {
            class_weights: ClassWeights::Explicit(BTreeMap::from([("yes".into(), 4.0)])),
            ..Hyperparameters::default()
        };
        let plan = declared(&task, weighted).expect("a plan");
        assert_eq!(plan.class_weights, [1.0, 4.0]);
        let wrong = Hyperparameters {
            num_leaves: 0,
            ..Hyperparameters::default()
        };
        let failure = declared(&task, wrong).expect_err("no leaves");
        assert_eq!(failure.code, FailureCode::InvalidConfig);
    }
}
