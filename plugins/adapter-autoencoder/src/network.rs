//! The network as one declared graph: columns in, the error of each column and their sum out.
//!
//! Inputs are the columns as the host encodes them: `numbers` (NaN for a null) and `categories`,
//! and while training `weight`. The entries need the first two.

use sandcast_sdk::graph::{Extent, Graph, GraphBuilder, Initializer, Node, Optimizer, Reduction};
use table_features::{Inputs, Table};

use crate::hyperparameters::Hyperparameters;

/// The least number of rows that the program takes at once.
const LEAST_ROWS: u32 = 1_024;

/// The entry that a prediction runs: the output `score`.
pub(crate) const INFER: &str = "infer";

/// The entry with the error of each column of each row: the output `errors`.
pub(crate) const ERRORS: &str = "errors";

/// What the error of each column is multiplied by; training leaves it alone.
pub(crate) const SCALE: &str = "scale";

/// Declares the network.
pub(crate) fn declare(table: &Table, has_weight: bool, hyperparameters: &Hyperparameters) -> Graph {
    let g = GraphBuilder::new();
    let rows = g.symbol("rows", LEAST_ROWS.max(hyperparameters.batch_rows));
    let inputs = table.inputs(&g, rows);
    let numbers = table.numbers.len() as u32;
    let columns = numbers + table.categories.len() as u32;

    let numbers_in = inputs.numbers.as_ref().map(|numbers| numbers.standard);
    let mut parts: Vec<Node<'_>> = numbers_in.into_iter().collect();
    let one_hot = inputs.categories.iter();
    parts.extend(one_hot.map(|(number, depth)| number.one_hot(*depth)));
    let mut layer = g.concatenate(&parts, 1);
    if hyperparameters.noise > 0.0 {
        layer = layer.dropout(hyperparameters.noise);
    }
    let mut width = numbers
        + inputs
            .categories
            .iter()
            .map(|(_, depth)| depth)
            .sum::<u32>();
    let outputs = width;
    let bottleneck = hyperparameters.bottleneck.unwrap_or(columns.div_ceil(4));
    let down = hyperparameters.hidden.iter();
    let widths = down
        .clone()
        .copied()
        .chain([bottleneck])
        .chain(down.rev().copied());
    for (place, next) in widths.enumerate() {
        layer = dense(
            &g,
            layer,
            &format!("layer.{place}"),
            [width, next],
            Initializer::HeUniform,
        );
        // What passes the bottleneck passes it as it is.
        if place != hyperparameters.hidden.len() {
            layer = layer.silu();
        }
        width = next;
    }
    let rebuilt = dense(
        &g,
        layer,
        "output",
        [width, outputs],
        Initializer::GlorotUniform,
    );

    let errors = errors(&g, rows, &inputs, rebuilt);
    let scale = g.frozen_parameter(SCALE, &[1, columns], Initializer::Ones);
    let score = (errors * scale).reduce(Reduction::Mean, &[1], false);
    g.entry(INFER, &[("score", score.into())]);
    g.entry(ERRORS, &[("errors", errors.into())]);
    let weight = has_weight.then(|| g.input_f32("weight", [rows]));
    g.minimise(
        errors.reduce(Reduction::Mean, &[1], false),
        weight,
        Optimizer::adam_w(hyperparameters.weight_decay),
    );
    g.finish()
}

/// How badly each column is rebuilt, f32 of shape [rows, columns]: of a number the square in
/// standard deviations, 0 where it is missing; of a category the surprise in nats.
fn errors<'g>(
    g: &'g GraphBuilder,
    rows: Extent,
    inputs: &Inputs<'g>,
    rebuilt: Node<'g>,
) -> Node<'g> {
    let mut parts = Vec::new();
    let mut first = 0;
    if let Some(numbers) = &inputs.numbers {
        first = numbers.count;
        let error = rebuilt.slice(1, 0, first).squared_error(numbers.standard);
        parts.push(error * numbers.known);
    }
    for (number, depth) in &inputs.categories {
        let logits = rebuilt.slice(1, first, first + depth);
        let surprise = logits.cross_entropy(*number);
        parts.push(surprise.reshape([rows, 1.into()]));
        first += depth;
    }
    g.concatenate(&parts, 1)
}

fn dense<'g>(
    g: &'g GraphBuilder,
    input: Node<'g>,
    name: &str,
    [from, to]: [u32; 2],
    initializer: Initializer,
) -> Node<'g> {
    let weights = g.parameter(&format!("{name}.weights"), &[from, to], initializer);
    let bias = g.parameter(&format!("{name}.bias"), &[to], Initializer::Zeros);
    input.matmul(weights) + bias
}
