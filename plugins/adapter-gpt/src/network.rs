//! The decoder as one declared graph.
//!
//! Inputs are `tokens`, `positions` and, for the loss and the scores, `labels`, each int32 of shape
//! [rows, time]. The entry `score` gives the surprise at each label.

use sandcast_sdk::graph::{
    Adam, Extent, Graph, GraphBuilder, Initializer, Node, Optimizer, Reduction,
};

use crate::hyperparameters::{FeedForward, Hyperparameters, Norm, Positions};

/// The entry that gives the surprise at each label.
pub(crate) const SCORE: &str = "score";

/// The standard deviation of weights before training (Radford et al. 2019).
const DEVIATION: f32 = 0.02;

/// What keeps a norm from dividing by 0.
const EPSILON: f32 = 1e-5;

/// The base of the angles of rotary positions.
const ROTARY_BASE: f64 = 10_000.0;

/// What is added to the logit of a token that is never to be written.
const NEVER: f32 = -1e9;

/// Declares the decoder for so many tokens; `unwritable` is one that it never writes.
pub(crate) fn declare(
    vocabulary: u32,
    unwritable: Option<u32>,
    hyperparameters: &Hyperparameters,
) -> Graph {
    let g = GraphBuilder::new();
    let rows = g.symbol("rows", hyperparameters.batch_rows);
    let time = g.symbol("time", hyperparameters.context);
    let tokens = g.input_i32("tokens", [rows, time]);
    let positions = g.input_i32("positions", [rows, time]);
    let labels = g.input_i32("labels", [rows, time]);
    let network = Network {
        g: &g,
        shape: [rows, time],
        of: hyperparameters,
    };

    let width = hyperparameters.width;
    let normal = Initializer::Normal(DEVIATION);
    let table = g.parameter("tokens", &[vocabulary, width], normal);
    let mut x = table.gather(tokens);
    let mut rotary = None;
    match hyperparameters.positions {
        Positions::Learned => {
            let places = g.parameter("positions", &[hyperparameters.context, width], normal);
            x = x + places.gather(positions);
        }
        Positions::Rotary => {
            rotary = Some(g.rotary(
                positions,
                [rows, time],
                hyperparameters.context,
                width / hyperparameters.heads,
                ROTARY_BASE,
            ));
        }
    }
    x = network.drop(x);
    for block in 0..hyperparameters.layers {
        x = x + network.drop(network.attention(x, block, rotary));
        x = x + network.drop(network.feed_forward(x, block));
    }
    x = network.norm(x, "norm");
    let head = if hyperparameters.tied {
        table.transpose(&[1, 0])
    } else {
        g.parameter("head", &[width, vocabulary], normal)
    };
    let logits = x.matmul(head);
    let losses = logits.cross_entropy(labels);
    g.entry(SCORE, &[("losses", losses.into())]);
    g.minimise(
        losses.reduce(Reduction::Mean, &[1], false),
        None,
        Optimizer::Adam(Adam {
            beta1: 0.9,
            beta2: hyperparameters.beta2,
            epsilon: 1e-8,
            weight_decay: hyperparameters.weight_decay,
            decoupled: true,
        }),
    );
    let writable = match unwritable {
        None => logits,
        Some(token) => {
            let each = (0..vocabulary).map(|other| if other == token { NEVER } else { 0.0 });
            logits + g.constant(&[vocabulary], each.collect::<Vec<f32>>())
        }
    };
    g.generate(tokens, Some(positions), writable);
    g.finish()
}

struct Network<'g> {
    g: &'g GraphBuilder,
    shape: [Extent; 2],
    of: &'g Hyperparameters,
}

impl<'g> Network<'g> {
    fn weights(&self, name: String, shape: [u32; 2], residual: bool) -> Node<'g> {
        // What is added to the residual stream is smaller, the more of it there is.
        let deviation = if residual {
            DEVIATION / (2.0 * self.of.layers as f32).sqrt()
        } else {
            DEVIATION
        };
        self.g
            .parameter(&name, &shape, Initializer::Normal(deviation))
    }

    fn drop(&self, x: Node<'g>) -> Node<'g> {
        if self.of.dropout > 0.0 {
            x.dropout(self.of.dropout)
        } else {
            x
        }
    }

    fn norm(&self, x: Node<'g>, name: &str) -> Node<'g> {
        let width = self.of.width;
        let scale = self
            .g
            .parameter(&format!("{name}.scale"), &[width], Initializer::Ones);
        match self.of.norm {
            Norm::Rms => x.rms_norm(scale, EPSILON),
            Norm::Layer => {
                let offset =
                    self.g
                        .parameter(&format!("{name}.offset"), &[width], Initializer::Zeros);
                x.layer_norm(scale, offset, EPSILON)
            }
        }
    }

    fn attention(
        &self,
        x: Node<'g>,
        block: u32,
        rotary: Option<sandcast_sdk::graph::Rotary<'g>>,
    ) -> Node<'g> {
        let [rows, time] = self.shape;
        let (width, heads, key_heads) = (self.of.width, self.of.heads, self.of.key_heads());
        let each = width / heads;
        let x = self.norm(x, &format!("{block}.attention.norm"));
        let project = |name: &str, heads: u32| {
            let weights = self.weights(
                format!("{block}.attention.{name}"),
                [width, heads * each],
                false,
            );
            x.matmul(weights)
                .reshape([rows, time, heads.into(), each.into()])
        };
        let turn = |node: Node<'g>| match rotary {
            Some(rotary) => node.rotate(rotary),
            None => node,
        };
        let query = turn(project("query", heads));
        let key = turn(project("key", key_heads));
        let value = project("value", key_heads);
        let seen = query.causal_attention(key, value);
        let out = self.weights(format!("{block}.attention.out"), [width, width], true);
        seen.reshape([rows, time, width.into()]).matmul(out)
    }

    fn feed_forward(&self, x: Node<'g>, block: u32) -> Node<'g> {
        let (width, hidden) = (self.of.width, self.of.hidden());
        let x = self.norm(x, &format!("{block}.feed-forward.norm"));
        let up = |name: &str| {
            let weights = self.weights(
                format!("{block}.feed-forward.{name}"),
                [width, hidden],
                false,
            );
            x.matmul(weights)
        };
        let inner = match self.of.feed_forward {
            FeedForward::Gelu => up("up").gelu(),
            FeedForward::Swiglu => up("gate").silu() * up("up"),
        };
        let down = self.weights(format!("{block}.feed-forward.down"), [hidden, width], true);
        inner.matmul(down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandcast_sdk::bindings::imports::sandcast::plugin::compute::Node as Wire;

    fn parameters(graph: &Graph) -> Vec<(String, Vec<u32>)> {
        graph
            .nodes
            .iter()
            .filter_map(|node| match node {
                Wire::Parameter(parameter) => {
                    Some((parameter.name.clone(), parameter.shape.clone()))
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn every_block_has_its_parameters() {
        let hyperparameters = Hyperparameters {
            layers: 2,
            width: 16,
            heads: 4,
            key_heads: Some(2),
            feed_forward: FeedForward::Swiglu,
            ..Hyperparameters::default()
        };
        let graph = declare(50, None, &hyperparameters);
        let found = parameters(&graph);
        assert_eq!(found.len(), 1 + 2 * 9 + 1);
        assert_eq!(found[0], ("tokens".into(), vec![50, 16]));
        assert!(found.contains(&("1.attention.key".into(), vec![16, 8])));
        assert!(found.contains(&("1.feed-forward.gate".into(), vec![16, 48])));
        assert!(graph.generation.is_some());
    }

    #[test]
    fn a_head_of_its_own_learned_positions_and_layer_norms_are_declared() {
        let hyperparameters = Hyperparameters {
            layers: 1,
            tied: false,
            positions: Positions::Learned,
            norm: Norm::Layer,
            dropout: 0.1,
            ..Hyperparameters::default()
        };
        let graph = declare(67, Some(1), &hyperparameters);
        let found = parameters(&graph);
        assert!(found.contains(&("positions".into(), vec![128, 128])));
        assert!(found.contains(&("head".into(), vec![128, 67])));
        assert!(found.contains(&("norm.offset".into(), vec![128])));
        let dropped = graph.nodes.iter();
        let dropped = dropped.filter(|node| matches!(node, Wire::Dropout(_)));
        assert_eq!(dropped.count(), 3);
        let never = graph.nodes.iter().find_map(|node| match node {
            Wire::F32Constant(literal) if literal.shape == [67] => Some(literal),
            _ => None,
        });
        let never = never.expect("a token that is never written");
        assert_eq!(never.values[..3], [0.0, NEVER, 0.0]);
    }
}
