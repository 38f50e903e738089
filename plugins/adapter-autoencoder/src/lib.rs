//! Scores rows by how badly an autoencoder rebuilds them. The whole model is one declared graph,
//! from the columns to the score; see the README for what it makes of columns.

use sandcast_sdk::columns::Rows;
use sandcast_sdk::graph::{
    Binding, Cosine, Encoding, Program, ResultTensor, Schedule, Session, Tensor, TrainPlan, bind,
};
use sandcast_sdk::{
    Adapter, Batch, Dataset, Declaration, Description, Failure, Model, Task, TaskKind, Trained,
    Training,
};
use serde::Serialize;
use table_features::Table;

mod hyperparameters;
mod network;

pub use crate::hyperparameters::Hyperparameters;

/// The share of the learning rate that the schedule ends with.
const COSINE_FLOOR: f32 = 0.01;

/// The usual error of a column counts as at least this share of the usual error of all, so that a
/// column that is always rebuilt well does not decide alone.
const LEAST_SHARE: f64 = 0.01;

/// An autoencoder over the columns of a table.
#[derive(Debug)]
pub struct AutoencoderAdapter;

/// What is kept beside the weights, for people and for later versions; a prediction needs none of
/// it, since it is all in the graph.
#[derive(Debug, Serialize)]
struct State<'a> {
    version: u32,
    table: &'a Table,
    hyperparameters: &'a Hyperparameters,
    best_epoch: u32,
    /// The mean error of each column over the training rows: numbers first, then categories.
    usual_errors: &'a [f64],
}

impl Adapter for AutoencoderAdapter {
    type Hyperparameters = Hyperparameters;

    fn describe() -> Description {
        Description {
            name: "autoencoder".into(),
            tasks: vec![TaskKind::AnomalyDetection],
            hyperparameters: Hyperparameters::json_schema(),
        }
    }

    fn declare(
        task: &Task,
        cardinalities: &[u32],
        hyperparameters: Hyperparameters,
    ) -> Result<Declaration, Failure> {
        hyperparameters.check()?;
        supported(task)?;
        let table = Table::unseen(&task.features, cardinalities, hyperparameters.options())?;
        Ok(network::declare(&table, task.weight.is_some(), &hyperparameters).into())
    }

    fn train(training: &Training, hyperparameters: Hyperparameters) -> Result<Trained, Failure> {
        hyperparameters.check()?;
        let task = training.task();
        supported(&task)?;
        let rows = training.training_rows();
        let table = Table::learn(&task.features, hyperparameters.options(), &rows)?;
        for column in table.empty_categories() {
            sandcast_sdk::log::warn!(
                "no value of `{column}` comes in {} rows or more, so it says nothing; leave it out of the features",
                hyperparameters.min_frequency
            );
        }
        let graph = network::declare(&table, task.weight.is_some(), &hyperparameters);
        let session = Session::create(Program::compile(&graph)?, training.seed())?;
        session.bind(&bindings(&task, &table))?;
        let plan = plan(&hyperparameters, rows.rows());
        let report = session.train(rows, training.validation_rows(), plan)?;

        let mut usual_errors = Vec::new();
        if hyperparameters.scale_errors {
            usual_errors = mean_errors(&task, &session, &training.training_rows())?;
            let scales = scales(&usual_errors);
            let scale = Tensor::from_f32(&[1, scales.len() as u32], &scales)?;
            session.set(network::SCALE, scale)?;
        }
        let state = State {
            version: 1,
            table: &table,
            hyperparameters: &hyperparameters,
            best_epoch: report.best_epoch,
            usual_errors: &usual_errors,
        };
        let state =
            serde_json::to_vec(&state).map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Trained::new(state, session))
    }

    fn predict(model: &Model, rows: Batch) -> Result<Batch, Failure> {
        let results = model.session()?.infer(network::INFER, rows)?;
        let [ResultTensor { value, .. }] = results.as_slice() else {
            return Err(Failure::internal(format!(
                "the network gave {} results",
                results.len()
            )));
        };
        let scores: Vec<f64> = value.values().into_iter().map(f64::from).collect();
        Rows::new().float64("score", scores).into_batch()
    }
}

fn supported(task: &Task) -> Result<(), Failure> {
    if task.kind == TaskKind::AnomalyDetection {
        return Ok(());
    }
    Err(
        Failure::unsupported("an autoencoder detects anomalies and nothing else")
            .hint("write `task: anomaly-detection`"),
    )
}

/// How the columns fill the inputs of the network.
fn bindings(task: &Task, table: &Table) -> Vec<Binding> {
    let mut bindings = table.bindings();
    if let Some(weight) = &task.weight {
        bindings.push(bind("weight", Encoding::Target(weight.clone())));
    }
    bindings
}

fn plan(hyperparameters: &Hyperparameters, rows: u64) -> TrainPlan {
    let steps =
        rows.div_ceil(u64::from(hyperparameters.batch_rows)) * u64::from(hyperparameters.epochs);
    TrainPlan {
        epochs: hyperparameters.epochs,
        epoch_rows: None,
        batch_rows: hyperparameters.batch_rows,
        learning_rate: hyperparameters.learning_rate,
        schedule: Schedule::Cosine(Cosine {
            warmup_steps: (steps as f64 * f64::from(hyperparameters.warmup)) as u32,
            floor: COSINE_FLOOR,
        }),
        clip_norm: Some(1.0),
        patience: hyperparameters.patience,
        shuffle: true,
        accumulate_steps: 1,
    }
}

/// The mean error of each column over some rows.
fn mean_errors(task: &Task, session: &Session, rows: &Dataset) -> Result<Vec<f64>, Failure> {
    let names: Vec<String> = task
        .features
        .iter()
        .map(|field| field.name.clone())
        .collect();
    let mut sums = vec![0.0; names.len()];
    for index in 0..rows.batches() {
        let results = session.infer(network::ERRORS, rows.read(index, &names)?)?;
        for result in results {
            add_rows(&mut sums, &result.value.values());
        }
    }
    let count = rows.rows().max(1) as f64;
    sums.iter_mut().for_each(|sum| *sum /= count);
    Ok(sums)
}

/// Adds the rows of a row-major matrix.
fn add_rows(sums: &mut [f64], matrix: &[f32]) {
    for row in matrix.chunks_exact(sums.len().max(1)) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
}

/// One over the usual error of each column, so that a score of 1 is usual.
fn scales(usual: &[f64]) -> Vec<f32> {
    let all = usual.iter().sum::<f64>() / usual.len().max(1) as f64;
    let scale = |error: &f64| {
        let scale = (1.0 / error.max(all * LEAST_SHARE)) as f32;
        if scale.is_finite() && scale > 0.0 {
            scale
        } else {
            1.0
        }
    };
    usual.iter().map(scale).collect()
}

sandcast_sdk::export_adapter!(AutoencoderAdapter);

#[cfg(test)]
mod tests {
    use super::*;
    use sandcast_sdk::bindings::imports::sandcast::plugin::compute::Node;
    use sandcast_sdk::columns::field;
    use sandcast_sdk::{Field, Kind};

    fn task(features: Vec<Field>) -> Task {
        Task {
            kind: TaskKind::AnomalyDetection,
            features,
            target: None,
            classes: Vec::new(),
            weight: None,
        }
    }

    fn features() -> Vec<Field> {
        vec![
            field("speed", Kind::Float64, true),
            field("machine", Kind::Utf8, false),
            field("torque", Kind::Float64, false),
            field("on", Kind::Boolean, false),
        ]
    }

    fn parameters(graph: &sandcast_sdk::graph::Graph) -> Vec<(String, Vec<u32>, bool)> {
        let found = graph.nodes.iter().filter_map(|node| match node {
            Node::Parameter(it) => Some((it.name.clone(), it.shape.clone(), it.trainable)),
            _ => None,
        });
        found.collect()
    }

    #[test]
    fn a_graph_goes_down_to_the_bottleneck_and_up_again() {
        let mut task = task(features());
        task.weight = Some("w".into());
        let hyperparameters = Hyperparameters {
            hidden: vec![16, 8],
            ..Hyperparameters::default()
        };
        let graph =
            AutoencoderAdapter::declare(&task, &[0, 5, 0, 0], hyperparameters).expect("declared");
        let graph = graph.into_graph().expect("a graph");
        let shapes = parameters(&graph);
        let weights = shapes.iter().filter(|(name, ..)| name.ends_with("weights"));
        let weights: Vec<&[u32]> = weights.map(|(_, shape, _)| shape.as_slice()).collect();
        // 3 numbers, 6 places for 5 machines; a quarter of 4 columns passes the bottleneck.
        let wanted: [&[u32]; 6] = [&[9, 16], &[16, 8], &[8, 1], &[1, 8], &[8, 16], &[16, 9]];
        assert_eq!(weights, wanted);
        let scale = shapes.last().expect("parameters");
        assert_eq!(scale, &("scale".to_owned(), vec![1, 4], false));
        let entries: Vec<&str> = graph
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(entries, [network::INFER, network::ERRORS]);
        assert!(graph.loss.is_some_and(|loss| loss.weight.is_some()));
    }

    #[test]
    fn numbers_or_categories_alone_are_enough() {
        for kind in [Kind::Utf8, Kind::Int64] {
            let task = task(vec![field("x", kind, true)]);
            AutoencoderAdapter::declare(&task, &[3], Hyperparameters::default()).expect("a graph");
        }
    }

    #[test]
    fn what_cannot_be_declared_is_a_failure() {
        let defaults = Hyperparameters::default();
        let declare = |task: &Task, sizes: &[u32]| {
            AutoencoderAdapter::declare(task, sizes, defaults.clone()).map(|_| ())
        };
        let other = Task {
            kind: TaskKind::Regression,
            ..task(features())
        };
        let failure = declare(&other, &[0; 4]).expect_err("a regression");
        assert!(failure.message.contains("nothing else"));
        assert!(declare(&task(features()), &[0]).is_err());
        assert!(declare(&task(Vec::new()), &[]).is_err());
    }

    #[test]
    fn usual_errors_become_scales() {
        let mut sums = vec![0.0; 2];
        add_rows(&mut sums, &[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(sums, [4.0, 6.0]);
        // The second column is always rebuilt; it counts as a hundredth of the mean error.
        let scales = scales(&[4.0, 0.0]);
        assert_eq!(scales, [0.25, 50.0]);
        assert_eq!(super::scales(&[0.0, 0.0]), [1.0, 1.0]);
    }

    #[test]
    fn the_warm_up_is_a_share_of_all_steps() {
        let plan = plan(&Hyperparameters::default(), 5_120);
        let Schedule::Cosine(cosine) = plan.schedule else {
            panic!("a cosine");
        };
        assert_eq!(cosine.warmup_steps, 50);
    }
}
