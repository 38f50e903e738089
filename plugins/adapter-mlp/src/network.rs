//! The network as one declared graph, preprocessing and loss included.
//!
//! Inputs are the columns as the host encodes them: `numbers` (NaN for a null), `categories`,
//! and while training `label` or `target`, and `weight`. The entry `infer` needs the first two.

use sandcast_sdk::graph::{Extent, Graph, GraphBuilder, Initializer, Int, Node, Optimizer};

use crate::features::{Features, NumberFeature, Treatment};
use crate::hyperparameters::{Activation, Hyperparameters, RegressionLoss};
use crate::pieces::{self, Constants};

/// Numbers further than this from the mean, in standard deviations, count as this far.
const FARTHEST: f32 = 10.0;

/// What stands for infinity.
const FINITE: f32 = 1e6;

/// The least number of rows that the program takes at once.
const LEAST_ROWS: u32 = 1_024;

/// Nodes that the host joins at once.
const JOINED_AT_ONCE: usize = 256;

/// The entry that a prediction runs.
pub(crate) const INFER: &str = "infer";

/// What the network ends in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Head {
    /// Two probabilities from one logit; the weights are those of the classes.
    Binary { class_weights: Option<[f32; 2]> },
    /// As many probabilities as there are classes.
    Multiclass {
        classes: u32,
        class_weights: Option<Vec<f32>>,
    },
    /// A number. The network learns it with mean 0 and deviation 1.
    Regression { mean: f64, deviation: f64 },
}

/// Declares the network.
pub(crate) fn declare(
    features: &Features,
    head: &Head,
    has_weight: bool,
    hyperparameters: &Hyperparameters,
) -> Graph {
    let g = GraphBuilder::new();
    let rows = g.symbol("rows", hyperparameters.batch_rows.max(LEAST_ROWS));

    let mut parts = Vec::new();
    let mut width = numbers(&g, rows, features, &mut parts);
    width += categories(&g, rows, features, hyperparameters, &mut parts);
    let mut layer = concatenate(&g, &parts);

    let initializer = match hyperparameters.activation {
        Activation::Tanh => Initializer::GlorotUniform,
        Activation::Relu | Activation::Gelu | Activation::Silu => Initializer::HeUniform,
    };
    for (depth, &next_width) in hyperparameters.hidden.iter().enumerate() {
        layer = dense(
            &g,
            layer,
            &format!("hidden.{depth}"),
            [width, next_width],
            initializer,
        );
        layer = match hyperparameters.activation {
            Activation::Relu => layer.relu(),
            Activation::Gelu => layer.gelu(),
            Activation::Silu => layer.silu(),
            Activation::Tanh => layer.tanh(),
        };
        if hyperparameters.dropout > 0.0 {
            layer = layer.dropout(hyperparameters.dropout);
        }
        width = next_width;
    }

    let outputs = match head {
        Head::Binary { .. } | Head::Regression { .. } => 1,
        Head::Multiclass { classes, .. } => *classes,
    };
    let output = dense(
        &g,
        layer,
        "output",
        [width, outputs],
        Initializer::GlorotUniform,
    );
    let row_weight = has_weight.then(|| g.input_f32("weight", [rows]));
    finish(&g, rows, head, output, row_weight, hyperparameters);
    g.finish()
}

/// Standardises, fills in what is missing and says so, and cuts into pieces. Gives the width of it.
fn numbers<'g>(
    g: &'g GraphBuilder,
    rows: Extent,
    features: &Features,
    parts: &mut Vec<Node<'g>>,
) -> u32 {
    let count = features.numbers.len() as u32;
    if count == 0 {
        return 0;
    }
    let row = |of: fn(&NumberFeature) -> f64| {
        let values: Vec<f32> = features
            .numbers
            .iter()
            .map(|number| of(number) as f32)
            .collect();
        g.constant(&[1, count], values)
    };
    let input = g.input_f32("numbers", [rows, count.into()]);
    let missing = input.is_nan();
    let standard = (input - row(|it| it.mean)) * row(|it| 1.0 / it.deviation);
    let fill = row(|it| (it.fill - it.mean) / it.deviation);
    // Finite from here on, so that a scale of 0 gives 0.
    let filled = missing.select(fill, standard).clamp(-FINITE, FINITE);
    parts.push(filled.clamp(-FARTHEST, FARTHEST));
    let mut width = count;
    if features.indicators > 0 {
        parts.push(missing.slice(1, 0, features.indicators));
        width += features.indicators;
    }
    let cut = features.cut_numbers();
    if !cut.is_empty() {
        let numbers = cut.len() as u32;
        let shape = [1, numbers, features.pieces];
        let Constants { starts, scales } = pieces::constants(cut, features.pieces);
        let one_each = filled
            .slice(1, features.cut.start, features.cut.end)
            .reshape([rows, numbers.into(), 1.into()]);
        let shares = (one_each - g.constant(&shape, starts)) * g.constant(&shape, scales);
        let inputs = numbers * features.pieces;
        parts.push(shares.clamp(0.0, 1.0).reshape([rows, inputs.into()]));
        width += inputs;
    }
    width
}

/// One-hot or embedded, by how many there are. Gives the width of it.
fn categories<'g>(
    g: &'g GraphBuilder,
    rows: Extent,
    features: &Features,
    hyperparameters: &Hyperparameters,
    parts: &mut Vec<Node<'g>>,
) -> u32 {
    let count = features.categories.len() as u32;
    if count == 0 {
        return 0;
    }
    let input = g.input_i32("categories", [rows, count.into()]);
    let mut width = 0;
    for (place, category) in (0..).zip(&features.categories) {
        let numbers: Node<'g, Int> = input.slice(1, place, place + 1).reshape([rows]);
        let depth = category.size + 1;
        width += match category.treatment(hyperparameters) {
            Treatment::OneHot => {
                parts.push(numbers.one_hot(depth));
                depth
            }
            Treatment::Embedding(size) => {
                let spread = Initializer::Normal(1.0 / (size as f32).sqrt());
                let table = g.parameter(&format!("embedding.{place}"), &[depth, size], spread);
                parts.push(table.gather(numbers));
                size
            }
        };
    }
    width
}

fn concatenate<'g>(g: &'g GraphBuilder, parts: &[Node<'g>]) -> Node<'g> {
    match parts {
        [part] => *part,
        parts if parts.len() <= JOINED_AT_ONCE => g.concatenate(parts, 1),
        parts => {
            let joined: Vec<Node<'g>> = parts
                .chunks(JOINED_AT_ONCE)
                .map(|parts| concatenate(g, parts))
                .collect();
            concatenate(g, &joined)
        }
    }
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

/// Outputs and loss.
fn finish<'g>(
    g: &'g GraphBuilder,
    rows: Extent,
    head: &Head,
    output: Node<'g>,
    row_weight: Option<Node<'g>>,
    hyperparameters: &Hyperparameters,
) {
    let weight_of = |class_weights: Option<&[f32]>, label: Node<'g, Int>| {
        let class_weight = class_weights.map(|weights| {
            g.constant(&[weights.len() as u32, 1], weights)
                .gather(label)
                .reshape([rows])
        });
        match (class_weight, row_weight) {
            (Some(class_weight), Some(row_weight)) => Some(class_weight * row_weight),
            (class_weight, row_weight) => class_weight.or(row_weight),
        }
    };
    let (per_row, weight) = match head {
        Head::Binary { class_weights } => {
            let label = g.input_i32("label", [rows]);
            let positive = output.logistic();
            let probabilities = g.concatenate(&[g.scalar(1.0) - positive, positive], 1);
            g.entry(INFER, &[("probabilities", probabilities.into())]);
            let loss = output.reshape([rows]).binary_cross_entropy(label.cast());
            (
                loss,
                weight_of(class_weights.as_ref().map(<[f32; 2]>::as_slice), label),
            )
        }
        Head::Multiclass { class_weights, .. } => {
            let label = g.input_i32("label", [rows]);
            g.entry(INFER, &[("probabilities", output.softmax(1).into())]);
            (
                output.cross_entropy(label),
                weight_of(class_weights.as_deref(), label),
            )
        }
        Head::Regression { mean, deviation } => {
            let target = g.input_f32("target", [rows]);
            let standard = (target - *mean as f32) * (1.0 / *deviation) as f32;
            let output = output.reshape([rows]);
            g.entry(
                INFER,
                &[(
                    "prediction",
                    (output * *deviation as f32 + *mean as f32).into(),
                )],
            );
            let loss = match hyperparameters.regression_loss {
                RegressionLoss::Squared => output.squared_error(standard),
                RegressionLoss::Huber => output.huber(standard, hyperparameters.huber_delta),
            };
            (loss, row_weight)
        }
    };
    g.minimise(
        per_row,
        weight,
        Optimizer::adam_w(hyperparameters.weight_decay),
    );
}
