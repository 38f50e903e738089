//! Distances as one declared graph: columns in; clusters, distances and the sums of a step of
//! Lloyd's algorithm out. The centres are a parameter that the adapter sets.

use sandcast_sdk::graph::{Graph, GraphBuilder, Initializer, Node, Reduction};
use table_features::Table;

use crate::hyperparameters::Hyperparameters;

/// The most rows of a batch: sums over rows are taken in one piece.
const MOST_ROWS: u32 = 16_384;

/// The entry that a prediction runs: the outputs `cluster` and `distance`.
pub(crate) const INFER: &str = "infer";

/// The entry with where rows lie: the output `points`.
pub(crate) const POINTS: &str = "points";

/// The entry with the sums over a batch: `sums` and `counts` of each cluster, and `squares`, the
/// squared distances of all rows.
pub(crate) const SUMS: &str = "sums";

/// The parameter with the centres, f32 of shape [clusters, numbers of a point].
pub(crate) const CENTRES: &str = "centres";

/// Numbers of a point.
pub(crate) fn width(table: &Table) -> u32 {
    let categories = table.categories.iter().map(|category| category.size + 1);
    table.numbers.len() as u32 + categories.sum::<u32>()
}

/// Declares the program.
pub(crate) fn declare(table: &Table, has_weight: bool, parameters: &Hyperparameters) -> Graph {
    let g = GraphBuilder::new();
    let rows = g.symbol("rows", MOST_ROWS);
    let inputs = table.inputs(&g, rows);
    let numbers = inputs.numbers.map(|numbers| numbers.standard);
    let mut parts: Vec<Node<'_>> = numbers.into_iter().collect();
    // Two rows that differ in a category differ in two of its places.
    let spread = parameters.category_distance * std::f32::consts::FRAC_1_SQRT_2;
    let categories = inputs.categories.iter();
    parts.extend(categories.map(|(number, depth)| number.one_hot(*depth) * spread));
    let points = g.concatenate(&parts, 1);
    g.entry(POINTS, &[("points", points.into())]);

    let shape = [parameters.clusters, width(table)];
    let centres = g.frozen_parameter(CENTRES, &shape, Initializer::Zeros);
    // The nearest centre is that of the least |c|^2 - 2 x.c; the |x|^2 in front is the same for
    // all of them.
    let sizes = centres.square().reduce(Reduction::Sum, &[1], false);
    let sizes = sizes.reshape([1.into(), parameters.clusters.into()]);
    let nearness = points.matmul(centres.transpose(&[1, 0])) * 2.0 - sizes;
    let cluster = nearness.argmax(1);
    // The distance is taken from the difference itself, which a small one comes out of exactly.
    let squares = (points - centres.gather(cluster)).square();
    let squares = squares.reduce(Reduction::Sum, &[1], false);
    let distance = squares.square_root();
    g.entry(
        INFER,
        &[("cluster", cluster.into()), ("distance", distance.into())],
    );

    let mut belongs = cluster.one_hot(parameters.clusters);
    let mut counted = squares;
    if has_weight {
        let weight = g.input_f32("weight", [rows]);
        belongs = belongs * weight.reshape([rows, 1.into()]);
        counted = counted * weight;
    }
    let sums = belongs.transpose(&[1, 0]).matmul(points);
    g.entry(
        SUMS,
        &[
            ("sums", sums.into()),
            ("counts", belongs.reduce(Reduction::Sum, &[0], false).into()),
            (
                "squares",
                counted.reduce(Reduction::Sum, &[0], false).into(),
            ),
        ],
    );
    g.finish()
}
