//! Programs put together at random: what fusion, views and the reuse of memory make of them is
//! held to the reference, and to what must not change a bit.

use std::collections::BTreeMap;

use crate::support::reference::{self, Parameters, Value};
use crate::support::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sandcast_kernels::graph::*;
use sandcast_kernels::{Feeds, Tensor};

/// A float32 node of the program: its extents but for the rows.
#[derive(Clone, Debug)]
struct Part {
    node: NodeId,
    extents: Vec<u32>,
    by_row: bool,
}

struct Maker {
    builder: Builder,
    state: u64,
    parts: Vec<Part>,
    parameters: usize,
    /// Whether operations that jump, and dropout, are taken.
    jumps: bool,
    x: NodeId,
    ids: NodeId,
}

const FEATURES: [u32; 2] = [2, 3];
const IDS: u32 = 4;

impl Maker {
    fn new(seed: u64, jumps: bool) -> Maker {
        let mut builder = Builder::new();
        let x = builder.input("x", DType::Float32, by_row(&FEATURES));
        let ids = builder.input("ids", DType::Int32, by_row(&[]));
        let part = Part {
            node: x,
            extents: FEATURES.to_vec(),
            by_row: true,
        };
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Maker {
            builder,
            state,
            parts: vec![part],
            parameters: 0,
            jumps,
            x,
            ids,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 33) as usize % bound.max(1)
    }

    fn pick(&mut self) -> Part {
        // Mostly late ones, so that programs are deep.
        let count = self.parts.len();
        let place = if self.below(3) == 0 {
            self.below(count)
        } else {
            count - 1 - self.below(count.min(3))
        };
        self.parts[place].clone()
    }

    fn parameter(&mut self, extents: &[u32]) -> NodeId {
        self.parameters += 1;
        let name = format!("p{}", self.parameters);
        self.builder
            .parameter(&name, extents, Initializer::Uniform(1.0))
    }

    fn shape(&self, part: &Part) -> Shape {
        if part.by_row {
            by_row(&part.extents)
        } else {
            fixed(&part.extents)
        }
    }

    fn leading(part: &Part) -> u32 {
        u32::from(part.by_row)
    }

    fn tanh(&mut self, node: NodeId) -> NodeId {
        self.builder.unary(UnaryOperation::Tanh, node)
    }

    fn push(&mut self, node: NodeId, extents: Vec<u32>, by_row: bool) {
        self.parts.push(Part {
            node,
            extents,
            by_row,
        });
    }

    /// Something that broadcasts with a part.
    fn partner(&mut self, part: &Part) -> NodeId {
        let alike: Vec<Part> = self
            .parts
            .iter()
            .filter(|other| other.extents == part.extents && (part.by_row || !other.by_row))
            .cloned()
            .collect();
        if self.below(2) == 0 && !alike.is_empty() {
            return alike[self.below(alike.len())].node;
        }
        let skipped = self.below(part.extents.len() + 1);
        let mut extents = part.extents[skipped..].to_vec();
        for extent in &mut extents {
            if self.below(3) == 0 {
                *extent = 1;
            }
        }
        self.parameter(&extents)
    }

    /// An operation along an axis or over windows.
    fn step_along(&mut self) {
        let part = self.pick();
        let Part {
            node,
            extents,
            by_row: rows,
        } = part.clone();
        let leading = Self::leading(&part);
        let rank = extents.len();
        let axis = self.below(rank);
        match self.below(7) {
            0 if rank >= 1 => {
                let (before, after) = (self.below(3) as u32, self.below(2) as u32);
                let value = [0.0, 0.75][self.below(2)];
                let result = self.builder.node(Node::Pad(PadNode {
                    operand: node,
                    axis: axis as u32 + leading,
                    before,
                    after,
                    value,
                }));
                let mut extents = extents;
                extents[axis] += before + after;
                if extents.iter().product::<u32>() < 200 {
                    self.push(result, extents, rows);
                }
            }
            1 if rank >= 1 => {
                let (exclusive, reverse) = (self.below(2) == 0, self.below(2) == 0);
                let result = self.builder.node(Node::CumulativeSum(CumulativeSumNode {
                    operand: node,
                    axis: axis as u32 + leading,
                    exclusive,
                    reverse,
                }));
                let result = self.tanh(result);
                self.push(result, extents, rows);
            }
            2 if rank == 2 && rows => {
                let size = 1 + self.below(extents[0] as usize) as u32;
                let stride = 1 + self.below(2) as u32;
                let features = 1 + self.below(3) as u32;
                let depthwise = self.below(3) == 0;
                let groups = if depthwise { extents[1] } else { 1 };
                let features = features * groups;
                let kernel = self.parameter(&[size, extents[1] / groups, features]);
                let convolution = ConvolutionNode {
                    operand: node,
                    kernel,
                    strides: vec![stride],
                    padding: vec![Padding {
                        before: 1,
                        after: 0,
                    }],
                    dilation: vec![1],
                    groups,
                    transposed: false,
                };
                let result = self.builder.node(Node::Convolution(convolution));
                let result = self.tanh(result);
                let count = (extents[0] + 1 - size) / stride + 1;
                if count * features < 200 {
                    self.push(result, vec![count, features], rows);
                }
            }
            3 if rank == 2 && rows => {
                let reduction = [Reduction::Mean, Reduction::Maximum][self.below(2)];
                let size = 1 + self.below(extents[0] as usize) as u32;
                let result = self.builder.node(Node::Pool(PoolNode {
                    reduction,
                    operand: node,
                    window: vec![size],
                    strides: vec![1],
                    padding: vec![Padding {
                        before: 0,
                        after: size - 1,
                    }],
                }));
                self.push(result, extents, rows);
            }
            4 if rank >= 2 && rows => {
                let channels = extents[rank - 1];
                let (scale, offset) = (self.parameter(&[channels]), self.parameter(&[channels]));
                let groups = if self.below(2) == 0 { 1 } else { channels };
                let result = self.builder.node(Node::GroupNorm(GroupNormNode {
                    operand: node,
                    scale,
                    offset,
                    groups,
                    epsilon: 0.3,
                }));
                self.push(result, extents, rows);
            }
            5 if rank >= 1 => {
                let count = 1 + self.below(extents[axis] as usize) as u32;
                let at = axis as u32 + leading;
                let indices = self.builder.node(Node::TopK(TopKNode {
                    operand: node,
                    axis: at,
                    count,
                }));
                let result = self.builder.node(Node::TakeAlong(TakeAlongNode {
                    operand: node,
                    indices,
                    axis: at,
                }));
                let mut extents = extents;
                extents[axis] = count;
                // Equal ones would make differences ambiguous.
                if self.jumps {
                    self.push(result, extents, rows);
                }
            }
            _ => {
                use UnaryOperation::*;
                let all = [Sine, Cosine, ErrorFunction, ExponentialMinusOne];
                let small = self.tanh(node);
                let operation = all[self.below(all.len())];
                let result = self.builder.unary(operation, small);
                self.push(result, extents, rows);
            }
        }
    }

    fn step(&mut self) {
        if self.below(6) == 0 {
            return self.step_along();
        }
        let part = self.pick();
        let Part {
            node,
            extents,
            by_row: rows,
        } = part.clone();
        let leading = Self::leading(&part);
        let rank = extents.len();
        let axis = self.below(rank);
        match self.below(if self.jumps { 24 } else { 20 }) {
            0 => {
                use UnaryOperation::*;
                let all = [Tanh, Logistic, Softplus, Gelu, Silu, Negate, Relu, Absolute];
                let operation = all[self.below(all.len())];
                let result = self.builder.unary(operation, node);
                self.push(result, extents, rows);
            }
            1 => {
                use UnaryOperation::*;
                let small = self.tanh(node);
                let all = [Exponential, Square];
                let operation = all[self.below(all.len())];
                let result = self.builder.unary(operation, small);
                self.push(result, extents, rows);
            }
            2 => {
                use UnaryOperation::*;
                let half = self.builder.number(0.5);
                let square = self.builder.unary(Square, node);
                let above = self.builder.add(square, half);
                let all = [Logarithm, SquareRoot, Reciprocal];
                let operation = all[self.below(all.len())];
                let result = self.builder.unary(operation, above);
                self.push(result, extents, rows);
            }
            3..=6 => {
                use BinaryOperation::*;
                let partner = self.partner(&part);
                let all = [Add, Subtract, Multiply, Maximum, Minimum];
                let operation = all[self.below(all.len())];
                let (left, right) = if self.below(2) == 0 {
                    (node, partner)
                } else {
                    (partner, node)
                };
                let result = self.builder.binary(operation, left, right);
                let result = if operation == Multiply {
                    self.tanh(result)
                } else {
                    result
                };
                self.push(result, extents, rows);
            }
            7 => {
                let partner = self.partner(&part);
                let square = self.builder.unary(UnaryOperation::Square, partner);
                let half = self.builder.number(0.5);
                let above = self.builder.add(square, half);
                let result = self.builder.binary(BinaryOperation::Divide, node, above);
                self.push(result, extents, rows);
            }
            8..=10 if rank >= 1 && (rows || rank >= 2) => {
                let width = 1 + self.below(5) as u32;
                let right = self.parameter(&[extents[rank - 1], width]);
                let product = self.builder.matmul(node, right);
                let bias = self.parameter(&[width]);
                let sum = self.builder.add(product, bias);
                let result = match self.below(3) {
                    0 => self.builder.unary(UnaryOperation::Relu, sum),
                    1 => self.tanh(sum),
                    _ => sum,
                };
                let extents = extents[..rank - 1].iter().copied().chain([width]).collect();
                self.push(result, extents, rows);
            }
            11 if rank >= 2 => {
                let rank = (rank + leading as usize) as u32;
                let mut permutation: Vec<u32> = (0..rank).collect();
                permutation.swap(rank as usize - 2, rank as usize - 1);
                let turned = self.builder.node(Node::Transpose(TransposeNode {
                    operand: node,
                    permutation,
                }));
                let mut turned_extents = extents.clone();
                turned_extents.swap(extents.len() - 2, extents.len() - 1);
                if self.below(2) == 0 && rank >= 3 - leading {
                    let product = self.builder.matmul(node, turned);
                    let result = self.tanh(product);
                    let size = extents[extents.len() - 2];
                    let mut extents = extents;
                    let last = extents.len() - 1;
                    extents[last] = size;
                    self.push(result, extents, rows);
                } else {
                    self.push(turned, turned_extents, rows);
                }
            }
            12 if rank >= 1 => {
                let flat = vec![extents.iter().product()];
                let flat_part = Part {
                    node,
                    extents: flat.clone(),
                    by_row: rows,
                };
                let shape = self.shape(&flat_part);
                let result = self.builder.reshape(node, shape);
                self.push(result, flat, rows);
            }
            13 if rank >= 1 => {
                let start = self.below(extents[axis] as usize + 1) as u32;
                let limit = start + self.below((extents[axis] - start) as usize + 1) as u32;
                let slice = SliceNode {
                    operand: node,
                    axis: axis as u32 + leading,
                    start,
                    limit,
                };
                let result = self.builder.node(Node::Slice(slice));
                let mut extents = extents;
                extents[axis] = limit - start;
                if extents[axis] > 0 {
                    self.push(result, extents, rows);
                }
            }
            14 if rank >= 1 => {
                let alike: Vec<Part> = self
                    .parts
                    .iter()
                    .filter(|other| other.extents == part.extents && other.by_row == rows)
                    .cloned()
                    .collect();
                let other = alike[self.below(alike.len())].node;
                let operands = vec![node, other, node];
                let axis_of = axis as u32 + leading;
                let concatenate = ConcatenateNode {
                    operands,
                    axis: axis_of,
                };
                let result = self.builder.node(Node::Concatenate(concatenate));
                let mut extents = extents;
                extents[axis] *= 3;
                if extents.iter().product::<u32>() < 200 {
                    self.push(result, extents, rows);
                }
            }
            15 | 16 if rank >= 1 => {
                use Reduction::*;
                let all = [Sum, Mean, Maximum, Minimum];
                let reduction = all[self.below(all.len())];
                let axes: Vec<u32> = (0..rank as u32).filter(|_| self.below(2) == 0).collect();
                let keep = self.below(2) == 0;
                let places: Vec<u32> = axes.iter().map(|axis| axis + leading).collect();
                let result = self.builder.reduce(reduction, node, &places, keep);
                let result = if reduction == Sum {
                    self.tanh(result)
                } else {
                    result
                };
                let extents = extents.iter().enumerate();
                let extents = extents.filter_map(|(axis, extent)| {
                    if !axes.contains(&(axis as u32)) {
                        Some(*extent)
                    } else {
                        keep.then_some(1)
                    }
                });
                let extents = extents.collect();
                self.push(result, extents, rows);
            }
            17 if rank >= 1 => {
                let softmax = SoftmaxNode {
                    operand: node,
                    axis: axis as u32 + leading,
                    logarithm: self.below(2) == 0,
                };
                let result = self.builder.node(Node::Softmax(softmax));
                self.push(result, extents, rows);
            }
            18 if rank >= 1 && extents[rank - 1] > 1 => {
                let width = extents[rank - 1];
                let (scale, offset) = (self.parameter(&[width]), self.parameter(&[width]));
                let norm = LayerNormNode {
                    operand: node,
                    scale,
                    offset,
                    epsilon: 0.1,
                };
                let result = self.builder.node(Node::LayerNorm(norm));
                self.push(result, extents, rows);
            }
            19 => match self.below(4) {
                0 => {
                    let width = 1 + self.below(4) as u32;
                    let table = self.parameter(&[IDS, width]);
                    let indices = self.ids;
                    let result = self
                        .builder
                        .node(Node::Gather(GatherNode { table, indices }));
                    self.push(result, vec![width], true);
                }
                1 => {
                    let indices = self.ids;
                    let hot = self.builder.node(Node::OneHot(OneHotNode {
                        indices,
                        depth: IDS,
                    }));
                    self.push(hot, vec![IDS], true);
                }
                2 => {
                    let zero = self.builder.number(0.25);
                    let left = self.x;
                    let comparison = Comparison::Greater;
                    let condition = self.builder.node(Node::Compare(CompareNode {
                        comparison,
                        left,
                        right: zero,
                    }));
                    let (on_true, on_false) = (self.parameter(&[3]), self.parameter(&[2, 1]));
                    let select = SelectNode {
                        condition,
                        on_true,
                        on_false,
                    };
                    let result = self.builder.node(Node::Select(select));
                    self.push(result, FEATURES.to_vec(), true);
                }
                _ => {
                    let clamp = ClampNode {
                        operand: node,
                        minimum: -0.6,
                        maximum: 0.7,
                    };
                    let result = self.builder.node(Node::Clamp(clamp));
                    self.push(result, extents, rows);
                }
            },
            20 => {
                use UnaryOperation::*;
                let all = [Floor, Sign, IsNan, LogicalNot];
                let operation = all[self.below(all.len())];
                let result = self.builder.unary(operation, node);
                self.push(result, extents, rows);
            }
            21 => {
                let partner = self.partner(&part);
                let comparison = Comparison::Less;
                let compare = CompareNode {
                    comparison,
                    left: node,
                    right: partner,
                };
                let result = self.builder.node(Node::Compare(compare));
                self.push(result, extents, rows);
            }
            22 => {
                let result = self.builder.dropout(node, 0.4);
                self.push(result, extents, rows);
            }
            23 if rank >= 1 => {
                let operand = node;
                let place = self.builder.node(Node::Argmax(ArgmaxNode {
                    operand,
                    axis: axis as u32 + leading,
                }));
                let cast = CastNode {
                    operand: place,
                    dtype: DType::Float32,
                };
                let result = self.builder.node(Node::Cast(cast));
                let mut extents = extents;
                extents.remove(axis);
                self.push(result, extents, rows);
            }
            _ => {}
        }
    }

    /// The graph after so many steps; its entry gives everything that was made of the rows.
    fn finish(mut self, steps: usize) -> Graph {
        for _ in 0..steps {
            self.step();
        }
        let results: Vec<Part> = self
            .parts
            .iter()
            .filter(|part| part.by_row)
            .rev()
            .take(4)
            .cloned()
            .collect();
        let names: Vec<String> = (0..results.len())
            .map(|index| format!("r{index}"))
            .collect();
        let outputs: Vec<(&str, NodeId)> = names
            .iter()
            .map(String::as_str)
            .zip(results.iter().map(|part| part.node))
            .collect();
        self.builder.entry("results", &outputs);
        let mut per_row = None;
        for part in &results {
            let axes: Vec<u32> = (1..=part.extents.len() as u32).collect();
            let mean = self
                .builder
                .reduce(Reduction::Mean, part.node, &axes, false);
            per_row = Some(match per_row {
                Some(sum) => self.builder.add(sum, mean),
                None => mean,
            });
        }
        let weight = self.builder.input("weight", DType::Float32, by_row(&[]));
        self.builder
            .loss(per_row.expect("the input is by row"), Some(weight));
        self.builder.graph.optimizer = Some(adam());
        self.builder.graph
    }
}

fn feeds(rows: usize, seed: u64) -> Feeds {
    let width = FEATURES.iter().product::<u32>() as usize;
    let ids = numbers(rows, seed + 1)
        .iter()
        .map(|x| ((x + 1.0) * 1.99) as i32)
        .collect();
    let weight = numbers(rows, seed + 2).iter().map(|x| x + 1.01).collect();
    BTreeMap::from([
        (
            "x".to_owned(),
            f32s(&[rows, 2, 3], numbers(rows * width, seed)),
        ),
        ("ids".to_owned(), i32s(&[rows], ids)),
        ("weight".to_owned(), f32s(&[rows], weight)),
    ])
}

/// Rows `range` of feeds.
fn cut(feeds: &Feeds, range: std::ops::Range<usize>) -> Feeds {
    let cut = |tensor: &Tensor| {
        let per_row: usize = tensor.shape()[1..].iter().product();
        let mut shape = tensor.shape().to_vec();
        shape[0] = range.len();
        let range = range.start * per_row..range.end * per_row;
        match tensor.as_i32() {
            Some(values) => i32s(&shape, values[range].to_vec()),
            None => f32s(&shape, tensor.to_f32()[range].to_vec()),
        }
    };
    feeds
        .iter()
        .map(|(name, tensor)| (name.clone(), cut(tensor)))
        .collect()
}

fn bits(results: &[(String, Tensor)]) -> Vec<Vec<u32>> {
    results
        .iter()
        .map(|(_, tensor)| tensor.to_f32().into_iter().map(f32::to_bits).collect())
        .collect()
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20_261_121),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn near(found: f64, expected: f64, scale: f64, tolerance: f64) -> bool {
    let tolerance = within(tolerance);
    found == expected || (found - expected).abs() <= tolerance * (1.0 + scale)
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn results_and_gradients_are_those_of_the_reference(
        seed in any::<u64>(),
        steps in 1_usize..16,
        rows in prop::sample::select(vec![1_usize, 2, 5]),
    ) {
        let graph = Maker::new(seed, false).finish(steps);
        let program = Builder { graph: graph.clone() }.compile();
        let mut session = session(&program, 1, seed);
        let feeds = feeds(rows, seed);
        let parameters: Parameters =
            session.weights().iter().map(|(name, tensor)| (name.clone(), Value::from(tensor))).collect();
        let expected = reference::evaluate(&graph, &parameters, &feeds);
        let found = session.infer("results", &feeds).expect("results");
        for ((_, found), output) in found.iter().zip(&graph.entries[0].outputs) {
            let expected = &expected[output.node as usize];
            prop_assert_eq!(found.shape(), expected.shape.as_slice());
            let scale = expected.data.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
            for (one, other) in found.to_f32().iter().zip(&expected.data) {
                prop_assert!(near(f64::from(*one), *other, scale, 1e-4), "{one} for {other}: {graph:?}");
            }
        }
        let gradients = session.gradients(&feeds).expect("gradients");
        let loss = reference::loss(&graph, &parameters, &feeds);
        prop_assert!(near(gradients.loss, loss, loss.abs(), 1e-4), "{} for {loss}", gradients.loss);
        for (name, found) in &gradients.by_parameter {
            let found = found.to_f32();
            let places: Vec<usize> = (0..found.len()).step_by(found.len() / 4 + 1).collect();
            let expected = reference::slope(&graph, &parameters, &feeds, name, &places);
            let scale = found.iter().fold(0.0_f64, |a, b| a.max(f64::from(b.abs())));
            for (place, expected) in places.iter().zip(expected) {
                let found = f64::from(found[*place]);
                prop_assert!(
                    near(found, expected, scale, 2e-3),
                    "{name} {place}: {found} for {expected}: {graph:?}"
                );
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_alone_and_among_others(
        seed in any::<u64>(),
        steps in 1_usize..24,
        rows in prop::sample::select(vec![3_usize, 17, 129, 300]),
    ) {
        let program = Builder { graph: Maker::new(seed, true).finish(steps) }.compile();
        let session = session(&program, 2, seed);
        let feeds = feeds(rows, seed);
        let whole = bits(&session.infer("results", &feeds).expect("results"));
        for piece in [1, 2, 7] {
            let mut pieces: Vec<Vec<u32>> = vec![Vec::new(); whole.len()];
            // A few rows of a long batch are enough.
            let count = rows.min(40).next_multiple_of(piece).min(rows);
            let mut first = 0;
            while first < count {
                let range = first..(first + piece).min(count);
                let results = bits(&session.infer("results", &cut(&feeds, range)).expect("results"));
                for (all, part) in pieces.iter_mut().zip(results) {
                    all.extend(part);
                }
                first += piece;
            }
            for (pieces, whole) in pieces.iter().zip(&whole) {
                prop_assert_eq!(pieces.as_slice(), &whole[..whole.len() / rows * count]);
            }
        }
        // No rows, no results.
        let nothing = session.infer("results", &cut(&feeds, 0..0)).expect("results");
        prop_assert!(nothing.iter().all(|(_, tensor)| tensor.rows() == 0));
    }

    #[test]
    fn training_gives_the_same_bits_at_any_number_of_threads(
        seed in any::<u64>(),
        steps in 1_usize..20,
        rows in prop::sample::select(vec![1_usize, 100, 400]),
    ) {
        let program = Builder { graph: Maker::new(seed, true).finish(steps) }.compile();
        let feeds = feeds(rows, seed);
        let plan = sandcast_kernels::TrainPlan {
            epochs: 2,
            epoch_rows: None,
            batch_rows: 300,
            accumulate_steps: 1,
            learning_rate: 1e-3,
            schedule: sandcast_kernels::Schedule::Constant,
            clip_norm: None,
            patience: None,
            shuffle: true,
        };
        let run = |threads| {
            let mut session = session(&program, threads, seed);
            let outcome = session.train(&feeds, Some(&feeds), &plan, &mut go_on).map(|report| {
                report.epochs.iter().map(|epoch| epoch.train_loss.to_bits()).collect::<Vec<_>>()
            });
            let weights: Vec<u32> = session
                .weights()
                .values()
                .flat_map(|tensor| tensor.to_f32())
                .map(f32::to_bits)
                .collect();
            // An error holds a float, which may be one that does not equal itself.
            (format!("{outcome:?}"), weights)
        };
        let one = run(1);
        prop_assert_eq!(&one, &run(2));
        prop_assert_eq!(&one, &run(3));
    }
}
