//! Groups rows by k-means. Distances and sums are a declared graph that the host runs over the
//! rows; the adapter moves the centres. See the README for what it makes of columns.

use sandcast_sdk::columns::Rows;
use sandcast_sdk::graph::{Binding, Encoding, Program, ResultTensor, Session, Tensor, bind};
use sandcast_sdk::{
    Adapter, Batch, Dataset, Declaration, Description, Failure, Model, Task, TaskKind, Trained,
    Training,
};
use serde::Serialize;
use table_features::Table;

mod hyperparameters;
mod program;
mod seeding;

pub use crate::hyperparameters::Hyperparameters;
use crate::seeding::{Draws, Points, reseed, seed, square};

/// The most rows that centres are sought among.
const SAMPLE_ROWS: u64 = 8_192;

/// The most numbers that are kept of them.
const SAMPLE_NUMBERS: u64 = 4 << 20;

/// K-means over the columns of a table.
#[derive(Debug)]
pub struct KMeansAdapter;

/// What is kept beside the centres, for people and for later versions; a prediction needs none of
/// it, since it is all in the graph.
#[derive(Debug, Serialize)]
struct State<'a> {
    version: u32,
    table: &'a Table,
    hyperparameters: &'a Hyperparameters,
    /// The mean squared distance of the training rows from their centres.
    inertia: f64,
    /// Passes over the rows that the best beginning took.
    iterations: u32,
    /// Rows, or their weight, of each cluster.
    counts: &'a [f64],
}

/// What came of one beginning.
struct Outcome {
    centres: Vec<f32>,
    inertia: f64,
    iterations: u32,
    counts: Vec<f64>,
}

impl Adapter for KMeansAdapter {
    type Hyperparameters = Hyperparameters;

    fn describe() -> Description {
        Description {
            name: "k-means".into(),
            tasks: vec![TaskKind::Clustering],
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
        Ok(program::declare(&table, task.weight.is_some(), &hyperparameters).into())
    }

    fn train(training: &Training, hyperparameters: Hyperparameters) -> Result<Trained, Failure> {
        hyperparameters.check()?;
        let task = training.task();
        supported(&task)?;
        let rows = training.training_rows();
        enough(rows.rows(), hyperparameters.clusters)?;
        let table = Table::learn(&task.features, hyperparameters.options(), &rows)?;
        for column in table.empty_categories() {
            sandcast_sdk::log::warn!(
                "no value of `{column}` comes in {} rows or more, so it says nothing; leave it out of the features",
                hyperparameters.min_frequency
            );
        }
        let graph = program::declare(&table, task.weight.is_some(), &hyperparameters);
        let session = Session::create(Program::compile(&graph)?, training.seed())?;
        session.bind(&bindings(&task, &table))?;

        let lloyd = Lloyd {
            session: &session,
            rows: &rows,
            names: columns(&task),
            clusters: hyperparameters.clusters as usize,
            width: program::width(&table) as usize,
            hyperparameters: &hyperparameters,
        };
        let sample = lloyd.sample(&task)?;
        let mut best: Option<Outcome> = None;
        for restart in 0..hyperparameters.restarts {
            let mut draws = Draws::new(training.seed(), restart);
            let outcome = lloyd.run(&sample, seed(&sample, lloyd.clusters, &mut draws))?;
            if best
                .as_ref()
                .is_none_or(|best| outcome.inertia < best.inertia)
            {
                best = Some(outcome);
            }
        }
        let best = best.ok_or_else(|| Failure::internal("there was no beginning"))?;
        lloyd.place(&best.centres)?;
        sandcast_sdk::log::info!(
            "{} clusters with a mean squared distance of {:.6} after {} passes",
            hyperparameters.clusters,
            best.inertia,
            best.iterations
        );
        let state = State {
            version: 1,
            table: &table,
            hyperparameters: &hyperparameters,
            inertia: best.inertia,
            iterations: best.iterations,
            counts: &best.counts,
        };
        let state =
            serde_json::to_vec(&state).map_err(|error| Failure::internal(error.to_string()))?;
        Ok(Trained::new(state, session))
    }

    fn predict(model: &Model, rows: Batch) -> Result<Batch, Failure> {
        let results = model.session()?.infer(program::INFER, rows)?;
        let [cluster, distance] = results.as_slice() else {
            return Err(Failure::internal(format!(
                "the program gave {} results",
                results.len()
            )));
        };
        let numbers = |result: &ResultTensor| result.value.values();
        let clusters: Vec<i64> = numbers(cluster).iter().map(|it| *it as i64).collect();
        let distances: Vec<f64> = numbers(distance).into_iter().map(f64::from).collect();
        Rows::new()
            .int64("cluster", clusters)
            .float64("distance", distances)
            .into_batch()
    }
}

/// Lloyd's algorithm (Lloyd, "Least squares quantization in PCM", 1982) over rows in the host.
struct Lloyd<'a> {
    session: &'a Session,
    rows: &'a Dataset,
    names: Vec<String>,
    clusters: usize,
    width: usize,
    hyperparameters: &'a Hyperparameters,
}

/// What a pass over the rows sums up.
#[derive(Debug, Clone, PartialEq)]
struct Pass {
    sums: Vec<f64>,
    counts: Vec<f64>,
    squares: f64,
}

impl Pass {
    fn new(clusters: usize, width: usize) -> Self {
        Self {
            sums: vec![0.0; clusters * width],
            counts: vec![0.0; clusters],
            squares: 0.0,
        }
    }

    /// Adds the sums of a batch.
    fn add(&mut self, results: &[ResultTensor]) -> Result<(), Failure> {
        for result in results {
            let values = result.value.values();
            let target: &mut [f64] = match result.name.as_str() {
                "sums" => &mut self.sums,
                "counts" => &mut self.counts,
                _ => std::slice::from_mut(&mut self.squares),
            };
            if values.len() != target.len() {
                return Err(Failure::internal("sums of another size"));
            }
            for (sum, value) in target.iter_mut().zip(values) {
                *sum += f64::from(value);
            }
        }
        Ok(())
    }

    /// The means of the clusters; those without rows stay where they are.
    fn centres(&self, before: &[f32], width: usize) -> Vec<f32> {
        let mut centres = before.to_vec();
        let sums = self.sums.chunks_exact(width).zip(&self.counts);
        for (centre, (sums, count)) in centres.chunks_exact_mut(width).zip(sums) {
            if *count > 0.0 {
                for (number, sum) in centre.iter_mut().zip(sums) {
                    *number = (sum / count) as f32;
                }
            }
        }
        centres
    }

    fn inertia(&self) -> f64 {
        self.squares / self.counts.iter().sum::<f64>().max(f64::MIN_POSITIVE)
    }
}

impl Lloyd<'_> {
    /// Every so many rows as points.
    fn sample(&self, task: &Task) -> Result<Points, Failure> {
        let names: Vec<String> = task
            .features
            .iter()
            .map(|field| field.name.clone())
            .collect();
        let wanted = SAMPLE_ROWS
            .min(SAMPLE_NUMBERS / self.width.max(1) as u64)
            .max(1);
        let stride = self.rows.rows().div_ceil(wanted).max(1) as usize;
        let mut values = Vec::new();
        let mut skip = 0;
        for index in 0..self.rows.batches() {
            let results = self
                .session
                .infer(program::POINTS, self.rows.read(index, &names)?)?;
            for result in results {
                let points = Points {
                    width: self.width,
                    values: result.value.values(),
                };
                let count = points.count();
                for place in (skip..count).step_by(stride) {
                    values.extend_from_slice(points.point(place));
                }
                let taken = (count.saturating_sub(skip)).div_ceil(stride);
                skip = (skip + taken * stride).saturating_sub(count);
            }
        }
        Ok(Points {
            width: self.width,
            values,
        })
    }

    /// Moves the centres until they rest.
    fn run(&self, sample: &Points, mut centres: Vec<f32>) -> Result<Outcome, Failure> {
        let found = centres.len() / self.width.max(1);
        if found < self.clusters {
            return Err(Failure::invalid_config(
                "clusters",
                format!("{} is more than the {found} different rows", self.clusters),
            ));
        }
        let enough = self.hyperparameters.tolerance * variance(sample);
        let mut iterations = 0;
        loop {
            let pass = self.pass(&centres)?;
            iterations += 1;
            let mut next = pass.centres(&centres, self.width);
            reseed(sample, &mut next, &pass.counts);
            let moved = square(&next, &centres);
            let rests = moved <= enough && pass.counts.iter().all(|count| *count > 0.0);
            // With the centres that were measured, so that what is told is what is kept.
            if rests || iterations >= self.hyperparameters.iterations {
                return Ok(Outcome {
                    centres,
                    inertia: pass.inertia(),
                    iterations,
                    counts: pass.counts,
                });
            }
            centres = next;
        }
    }

    fn pass(&self, centres: &[f32]) -> Result<Pass, Failure> {
        self.place(centres)?;
        let mut pass = Pass::new(self.clusters, self.width);
        for index in 0..self.rows.batches() {
            let batch = self.rows.read(index, &self.names)?;
            pass.add(&self.session.infer(program::SUMS, batch)?)?;
        }
        Ok(pass)
    }

    fn place(&self, centres: &[f32]) -> Result<(), Failure> {
        let shape = [self.clusters as u32, self.width as u32];
        self.session
            .set(program::CENTRES, Tensor::from_f32(&shape, centres)?)
    }
}

/// The mean variance of the numbers of the points.
fn variance(points: &Points) -> f64 {
    let count = points.count().max(1) as f64;
    let mut sum = 0.0;
    for number in 0..points.width {
        let values = || (0..points.count()).filter_map(|place| points.point(place).get(number));
        let mean = values().map(|value| f64::from(*value)).sum::<f64>() / count;
        let square = |value: &f32| (f64::from(*value) - mean).powi(2);
        sum += values().map(square).sum::<f64>() / count;
    }
    sum / points.width.max(1) as f64
}

fn supported(task: &Task) -> Result<(), Failure> {
    if task.kind == TaskKind::Clustering {
        return Ok(());
    }
    Err(
        Failure::unsupported("k-means groups rows and does nothing else")
            .hint("write `task: clustering`"),
    )
}

fn enough(rows: u64, clusters: u32) -> Result<(), Failure> {
    if rows >= u64::from(clusters) {
        return Ok(());
    }
    Err(Failure::invalid_config(
        "clusters",
        format!("{clusters} is more than the {rows} rows there are to learn from"),
    ))
}

/// The columns that a pass reads: the features, then the weight.
fn columns(task: &Task) -> Vec<String> {
    let features = task.features.iter().map(|field| field.name.clone());
    features.chain(task.weight.clone()).collect()
}

/// How the columns fill the inputs of the program.
fn bindings(task: &Task, table: &Table) -> Vec<Binding> {
    let mut bindings = table.bindings();
    if let Some(weight) = &task.weight {
        bindings.push(bind("weight", Encoding::Target(weight.clone())));
    }
    bindings
}

sandcast_sdk::export_adapter!(KMeansAdapter);

#[cfg(test)]
mod tests {
    use super::*;
    use sandcast_sdk::bindings::imports::sandcast::plugin::compute::Node;
    use sandcast_sdk::columns::field;
    use sandcast_sdk::{Field, Kind};

    fn task(features: Vec<Field>) -> Task {
        Task {
            kind: TaskKind::Clustering,
            features,
            target: None,
            classes: Vec::new(),
            weight: None,
        }
    }

    fn features() -> Vec<Field> {
        vec![
            field("income", Kind::Float64, true),
            field("city", Kind::Utf8, false),
            field("age", Kind::Int64, false),
        ]
    }

    #[test]
    fn centres_have_a_place_for_every_number_and_category() {
        let mut task = task(features());
        task.weight = Some("w".into());
        let graph = KMeansAdapter::declare(&task, &[0, 4, 0], Hyperparameters::default());
        let graph = graph.expect("declared").into_graph().expect("a graph");
        let parameters: Vec<_> = graph
            .nodes
            .iter()
            .filter_map(|node| match node {
                Node::Parameter(it) => Some((it.name.as_str(), it.shape.clone(), it.trainable)),
                _ => None,
            })
            .collect();
        // 2 numbers, 5 places for 4 cities.
        assert_eq!(parameters, [(program::CENTRES, vec![8, 7], false)]);
        let entries: Vec<&str> = graph
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        assert_eq!(entries, [program::POINTS, program::INFER, program::SUMS]);
        assert!(graph.loss.is_none());
        assert_eq!(columns(&task), ["income", "city", "age", "w"]);
    }

    #[test]
    fn what_cannot_be_declared_is_a_failure() {
        let declare = |task: &Task, sizes: &[u32]| {
            KMeansAdapter::declare(task, sizes, Hyperparameters::default()).map(|_| ())
        };
        let other = Task {
            kind: TaskKind::AnomalyDetection,
            ..task(features())
        };
        let failure = declare(&other, &[0; 3]).expect_err("another task");
        assert!(failure.message.contains("nothing else"));
        assert!(declare(&task(features()), &[0]).is_err());
        assert!(declare(&task(Vec::new()), &[]).is_err());
        let failure = enough(5, 8).expect_err("five rows");
        assert!(
            failure
                .message
                .contains("`clusters`: 8 is more than the 5 rows")
        );
        assert!(enough(8, 8).is_ok());
    }

    #[test]
    fn a_pass_moves_centres_to_the_means_of_their_rows() {
        let pass = Pass {
            sums: vec![4.0, 8.0, 0.0, 0.0],
            counts: vec![4.0, 0.0],
            squares: 6.0,
        };
        assert_eq!(pass.centres(&[9.0, 9.0, 7.0, 7.0], 2), [1.0, 2.0, 7.0, 7.0]);
        assert_eq!(pass.inertia(), 1.5);
    }

    #[test]
    fn the_variance_is_that_of_the_numbers() {
        let points = Points {
            width: 2,
            values: vec![0.0, 5.0, 2.0, 5.0],
        };
        assert_eq!(variance(&points), 0.5);
    }
}
