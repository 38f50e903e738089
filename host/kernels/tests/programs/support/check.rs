//! One operation under test: its result against the reference, its gradient against differences
//! of the reference.

use sandcast_kernels::Feeds;
use sandcast_kernels::graph::*;

use super::reference::{self, Parameters, Value};
use super::{Builder, by_row, f32s, numbers, session, within};

/// A graph under test: `build` makes a node from operands; its elements, each times a number of
/// its own, are summed to a loss.
pub(crate) struct Check {
    name: String,
    graph: Graph,
    feeds: Feeds,
    rows: usize,
}

impl Check {
    /// Operands are parameters of these shapes, values within `range`.
    pub(crate) fn of_parameters(
        name: &str,
        shapes: &[&[u32]],
        range: (f32, f32),
        build: impl FnOnce(&mut Builder, &[NodeId]) -> NodeId,
    ) -> Check {
        Check::new(name, shapes, range, false, 2, build)
    }

    /// The first operand is an input of `[rows, shape...]` times a parameter of that shape.
    pub(crate) fn of_rows(
        name: &str,
        shapes: &[&[u32]],
        range: (f32, f32),
        rows: usize,
        build: impl FnOnce(&mut Builder, &[NodeId]) -> NodeId,
    ) -> Check {
        Check::new(name, shapes, range, true, rows, build)
    }

    fn new(
        name: &str,
        shapes: &[&[u32]],
        range: (f32, f32),
        by_rows: bool,
        rows: usize,
        build: impl FnOnce(&mut Builder, &[NodeId]) -> NodeId,
    ) -> Check {
        let mut builder = Builder::new();
        let mut feeds = Feeds::new();
        let ones = builder.input("ones", DType::Float32, by_row(&[]));
        feeds.insert("ones".into(), f32s(&[rows], vec![1.0; rows]));
        let mut operands = Vec::new();
        for (index, shape) in shapes.iter().enumerate() {
            let elements = shape.iter().product::<u32>() as usize;
            let spread = |count, seed| -> Vec<f32> {
                let numbers = numbers(count, seed).into_iter();
                numbers
                    .map(|x| range.0 + (range.1 - range.0) * (x + 1.0) / 2.0)
                    .collect()
            };
            let values = spread(elements, index as u64 + 1);
            let start = builder.node(Node::F32Constant(F32Literal {
                shape: shape.to_vec(),
                values,
            }));
            let zero = builder.parameter(&format!("p{index}"), shape, Initializer::Zeros);
            let parameter = builder.add(start, zero);
            if index == 0 && by_rows {
                // Rows differ, and stay within the range.
                let x = builder.input("x", DType::Float32, by_row(shape));
                let extents: Vec<usize> = std::iter::once(rows)
                    .chain(shape.iter().map(|extent| *extent as usize))
                    .collect();
                feeds.insert("x".into(), f32s(&extents, spread(rows * elements, 9)));
                let half = builder.number(0.5);
                let sum = builder.add(x, parameter);
                operands.push(builder.multiply(sum, half));
            } else {
                operands.push(parameter);
            }
        }
        let result = build(&mut builder, &operands);
        builder.entry("result", &[("result", result)]);
        // The shape of the result, from a run of the reference.
        let zeros = parameters_of(&builder.graph);
        let values = reference::evaluate(&builder.graph, &zeros, &feeds);
        let shape = &values[result as usize].shape;
        let is_int = matches!(
            builder.graph.nodes[result as usize],
            Node::Argmax(_)
                | Node::TopK(_)
                | Node::Cast(CastNode {
                    dtype: DType::Int32,
                    ..
                })
        );
        if !is_int {
            let leading = usize::from(by_rows && shape.first() == Some(&rows));
            let kept: Vec<u32> = shape[leading..]
                .iter()
                .map(|extent| *extent as u32)
                .collect();
            let count = kept.iter().product::<u32>() as usize;
            let literal = F32Literal {
                shape: kept.clone(),
                values: numbers(count, 77),
            };
            let factors = builder.node(Node::F32Constant(literal));
            let weighted = builder.multiply(result, factors);
            let axes: Vec<u32> = (leading as u32..shape.len() as u32).collect();
            let sum = builder.reduce(Reduction::Sum, weighted, &axes, false);
            let per_row = builder.multiply(sum, ones);
            builder.loss(per_row, None);
        }
        Check {
            name: name.into(),
            graph: builder.graph,
            feeds,
            rows,
        }
    }

    pub(crate) fn run(self) {
        self.run_within(1e-5, 2e-4);
    }

    pub(crate) fn run_within(self, forward: f64, backward: f64) {
        let (forward, backward) = (within(forward), within(backward));
        let name = &self.name;
        let parameters = parameters_of(&self.graph);
        let builder = Builder {
            graph: self.graph.clone(),
        };
        let program = builder.compile();
        let mut session = session(&program, 1, 0);
        let expected = reference::evaluate(&self.graph, &parameters, &self.feeds);
        let output = self.graph.entries[0].outputs[0].node as usize;
        let found = session
            .infer("result", &self.feeds)
            .expect("a result")
            .remove(0)
            .1;
        close(
            &format!("{name}: result"),
            &Value::from(&found),
            &expected[output],
            forward,
        );
        if self.graph.loss.is_none() || self.rows == 0 {
            return;
        }
        let gradients = session.gradients(&self.feeds).expect("gradients");
        let exact = reference::loss(&self.graph, &parameters, &self.feeds);
        assert!(
            (gradients.loss - exact).abs() <= forward * 10.0 * (1.0 + exact.abs()),
            "{name}: loss"
        );
        for (parameter, found) in &gradients.by_parameter {
            let found = found.to_f32();
            // Of a large parameter, some elements here and there.
            let places: Vec<usize> = (0..found.len()).step_by(found.len() / 20 + 1).collect();
            let data = reference::slope(&self.graph, &parameters, &self.feeds, parameter, &places);
            let found = places
                .iter()
                .map(|place| f64::from(found[*place]))
                .collect();
            let [found, expected] = [found, data].map(|data| Value {
                shape: vec![places.len()],
                data,
            });
            close(
                &format!("{name}: gradient of {parameter}"),
                &found,
                &expected,
                backward,
            );
        }
    }
}

/// Parameters before training, all of zeros in these tests.
pub(crate) fn parameters_of(graph: &Graph) -> Parameters {
    let mut parameters = Parameters::new();
    for node in &graph.nodes {
        if let Node::Parameter(parameter) = node {
            let shape: Vec<usize> = parameter
                .shape
                .iter()
                .map(|extent| *extent as usize)
                .collect();
            let data = vec![0.0; shape.iter().product()];
            parameters.insert(parameter.name.clone(), Value { shape, data });
        }
    }
    parameters
}

pub(crate) fn close(what: &str, found: &Value, expected: &Value, tolerance: f64) {
    assert_eq!(found.shape, expected.shape, "{what}");
    let scale = expected
        .data
        .iter()
        .filter(|x| x.is_finite())
        .fold(1.0_f64, |a, b| a.max(b.abs()));
    for (index, (one, other)) in found.data.iter().zip(&expected.data).enumerate() {
        let same = one == other || one.is_nan() && other.is_nan();
        assert!(
            same || (one - other).abs() <= tolerance * scale,
            "{what}: element {index} is {one} for {other}\n{found:?}\n{expected:?}"
        );
    }
}
