//! Operations along axes and over windows, each by itself: results against the reference,
//! gradients against differences of the reference.

use std::collections::BTreeMap;

use crate::support::check::Check;
use crate::support::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sandcast_kernels::graph::*;
use sandcast_kernels::{Caps, Feeds, Program, RunError};

fn around(before: u32, after: u32) -> Padding {
    Padding { before, after }
}

#[test]
fn pads_with_zeros_and_with_others() {
    for value in [0.0, -0.0, 2.5, f32::NEG_INFINITY] {
        for (axis, before, after) in [(0, 1, 2), (1, 0, 3), (1, 2, 0), (2, 0, 0)] {
            let build = move |b: &mut Builder, x: &[NodeId]| {
                let pad = b.node(Node::Pad(PadNode {
                    operand: x[0],
                    axis,
                    before,
                    after,
                    value,
                }));
                // An infinite number has no place in a sum.
                b.unary(UnaryOperation::Logistic, pad)
            };
            Check::of_parameters("pad", &[&[2, 3, 4]], (-1.0, 1.0), build).run();
        }
    }
    Check::of_rows("pad by row", &[&[3, 2]], (-1.0, 1.0), 5, |b, x| {
        b.node(Node::Pad(PadNode {
            operand: x[0],
            axis: 2,
            before: 1,
            after: 1,
            value: 0.5,
        }))
    })
    .run();
}

#[test]
fn whole_numbers_are_padded_with_whole_numbers() {
    let program = |value| {
        let mut builder = Builder::new();
        let x = builder.input("x", DType::Int32, by_row(&[2]));
        let padded = builder.node(Node::Pad(PadNode {
            operand: x,
            axis: 1,
            before: 1,
            after: 2,
            value,
        }));
        builder.entry("result", &[("result", padded)]);
        Program::compile(builder.graph, &Caps::default())
    };
    for value in [0.0, -1.0, 7.0] {
        let program = std::sync::Arc::new(program(value).expect("a whole number"));
        let feeds = Feeds::from([("x".to_owned(), i32s(&[2, 2], vec![1, i32::MIN, 3, 4]))]);
        let found = session(&program, 1, 0)
            .infer("result", &feeds)
            .expect("a result");
        let v = value as i32;
        assert_eq!(
            found[0].1.as_i32().expect("int32"),
            [v, 1, i32::MIN, v, v, v, 3, 4, v, v]
        );
    }
    for value in [0.5, f32::NAN, 2.0_f32.powi(25)] {
        let error = program(value).expect_err("no whole number");
        assert_eq!(error.node, Some(1), "{error}");
    }
}

#[test]
fn cumulative_sums() {
    for exclusive in [false, true] {
        for reverse in [false, true] {
            for (shape, axis) in [
                (&[5][..], 0),
                (&[3, 4], 0),
                (&[3, 4], 1),
                (&[2, 3, 4], 1),
                (&[2, 1, 4], 1),
                (&[2, 0, 4], 1),
                (&[3, 700], 1),
            ] {
                let build = move |b: &mut Builder, x: &[NodeId]| {
                    b.node(Node::CumulativeSum(CumulativeSumNode {
                        operand: x[0],
                        axis,
                        exclusive,
                        reverse,
                    }))
                };
                Check::of_parameters("cumulative sum", &[shape], (-1.0, 1.0), build).run();
            }
        }
    }
    Check::of_rows("cumulative sum by row", &[&[7]], (-1.0, 1.0), 4, |b, x| {
        b.node(Node::CumulativeSum(CumulativeSumNode {
            operand: x[0],
            axis: 1,
            exclusive: false,
            reverse: false,
        }))
    })
    .run();
}

fn top_k(b: &mut Builder, operand: NodeId, axis: u32, count: u32) -> NodeId {
    b.node(Node::TopK(TopKNode {
        operand,
        axis,
        count,
    }))
}

fn take(b: &mut Builder, operand: NodeId, indices: NodeId, axis: u32) -> NodeId {
    b.node(Node::TakeAlong(TakeAlongNode {
        operand,
        indices,
        axis,
    }))
}

#[test]
fn the_largest_and_what_they_are() {
    for (shape, axis, count) in [
        (&[6][..], 0, 3),
        (&[4, 5], 0, 4),
        (&[4, 5], 1, 2),
        (&[2, 3, 4], 1, 1),
        (&[2, 3], 1, 0),
        (&[0, 3], 1, 2),
        (&[3, 90], 1, 17),
    ] {
        Check::of_parameters("top k", &[shape], (-1.0, 1.0), |b, x| {
            top_k(b, x[0], axis, count)
        })
        .run();
        Check::of_parameters("the largest", &[shape], (-1.0, 1.0), |b, x| {
            let places = top_k(b, x[0], axis, count);
            take(b, x[0], places, axis)
        })
        .run();
    }
    Check::of_rows("the largest by row", &[&[3, 8]], (-1.0, 1.0), 6, |b, x| {
        let places = top_k(b, x[0], 2, 3);
        take(b, x[0], places, 2)
    })
    .run();
    // The same place more than once.
    Check::of_parameters("take twice", &[&[2, 3]], (-1.0, 1.0), |b, x| {
        let indices = b.node(Node::I32Constant(I32Literal {
            shape: vec![2, 4],
            values: vec![2, 0, 2, 2, 1, 1, 0, 1],
        }));
        take(b, x[0], indices, 1)
    })
    .run();
}

#[test]
fn a_place_outside_the_axis_is_told() {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[3]));
    let places = builder.input("places", DType::Int32, by_row(&[2]));
    let taken = take(&mut builder, x, places, 1);
    builder.entry("result", &[("result", taken)]);
    let program = builder.compile();
    let rows = 300;
    for (wrong, at) in [(-1, 7), (3, 599)] {
        let mut indices = vec![1; rows * 2];
        indices[at] = wrong;
        let feeds = Feeds::from([
            ("x".to_owned(), f32s(&[rows, 3], numbers(rows * 3, 1))),
            ("places".to_owned(), i32s(&[rows, 2], indices)),
        ]);
        let error = session(&program, 2, 0)
            .infer("result", &feeds)
            .expect_err("outside");
        assert_eq!(
            error,
            RunError::IndexOutOfRange {
                node: 2,
                number: wrong,
                place: at,
                size: 3
            }
        );
    }
}

#[test]
fn a_constant_place_outside_is_told_too() {
    for axis in [0, 1] {
        let mut builder = Builder::new();
        let x = builder.input("x", DType::Float32, by_row(&[2]));
        let table = builder.parameter("table", &[3, 2], Initializer::Ones);
        let indices = builder.node(Node::I32Constant(I32Literal {
            shape: vec![1, 2],
            values: vec![0, 3],
        }));
        let taken = if axis == 0 {
            builder.node(Node::Gather(GatherNode { table, indices }))
        } else {
            let first = builder.node(Node::Slice(SliceNode {
                operand: table,
                axis: 0,
                start: 0,
                limit: 1,
            }));
            take(&mut builder, first, indices, 1)
        };
        let sum = builder.reduce(Reduction::Sum, taken, &[0, 1], false);
        let result = builder.multiply(x, sum);
        builder.entry("result", &[("result", result)]);
        let program = builder.compile();
        let feeds = Feeds::from([("x".to_owned(), f32s(&[1, 2], vec![1.0; 2]))]);
        let found = session(&program, 1, 0).infer("result", &feeds);
        let error = found.expect_err("there is no such row").to_string();
        assert!(error.contains("number 3 at place 1"), "{error}");
    }
}

#[test]
fn scatters_add_up() {
    for (indices, row, size) in [
        (vec![1, 0, 1, 3, 1], &[2][..], 4),
        (vec![0, 0, 0], &[], 1),
        (vec![], &[3], 2),
        (vec![2, 2], &[2, 2], 3),
    ] {
        let shape = [&[indices.len() as u32], row].concat();
        Check::of_parameters("scatter add", &[&shape], (-1.0, 1.0), |b, x| {
            let indices = b.node(Node::I32Constant(I32Literal {
                shape: vec![indices.len() as u32],
                values: indices,
            }));
            b.node(Node::ScatterAdd(ScatterAddNode {
                indices,
                updates: x[0],
                size,
            }))
        })
        .run();
    }
}

/// A convolution as it is easy to write down.
#[derive(Clone, Debug)]
struct Given {
    batch: u32,
    extents: Vec<u32>,
    window: Vec<u32>,
    /// Channels and features of a group.
    channels: u32,
    features: u32,
    groups: u32,
    strides: Vec<u32>,
    dilation: Vec<u32>,
    padding: Vec<Padding>,
    transposed: bool,
}

impl Given {
    fn node(&self, operand: NodeId, kernel: NodeId) -> Node {
        Node::Convolution(ConvolutionNode {
            operand,
            kernel,
            strides: self.strides.clone(),
            padding: self.padding.clone(),
            dilation: self.dilation.clone(),
            groups: self.groups,
            transposed: self.transposed,
        })
    }

    fn shapes(&self) -> [Vec<u32>; 2] {
        let ends = if self.transposed {
            self.features
        } else {
            self.channels
        };
        let operand = [
            &[self.batch],
            self.extents.as_slice(),
            &[ends * self.groups],
        ]
        .concat();
        let kernel = [
            self.window.as_slice(),
            &[self.channels, self.features * self.groups],
        ]
        .concat();
        [operand, kernel]
    }

    /// Whether the windows go with the extents.
    fn fits(&self) -> bool {
        (0..self.extents.len()).all(|axis| {
            let reach = self.dilation[axis] * (self.window[axis] - 1) + 1;
            let Padding { before, after } = self.padding[axis];
            if self.transposed {
                (self.extents[axis] - 1) * self.strides[axis] + reach > before + after
            } else {
                self.extents[axis] + before + after >= reach
            }
        })
    }

    fn check(&self) {
        let [operand, kernel] = self.shapes();
        let name = format!("{self:?}");
        Check::of_parameters(&name, &[&operand, &kernel], (-1.0, 1.0), |b, x| {
            b.node(self.node(x[0], x[1]))
        })
        .run();
    }

    /// With the batch as rows.
    fn check_rows(&self, rows: usize) {
        let [operand, kernel] = self.shapes();
        let name = format!("{rows} rows: {self:?}");
        Check::of_rows(
            &name,
            &[&operand[1..], &kernel],
            (-1.0, 1.0),
            rows,
            |b, x| b.node(self.node(x[0], x[1])),
        )
        .run();
    }
}

fn plain(extents: &[u32], window: &[u32]) -> Given {
    let axes = extents.len();
    Given {
        batch: 2,
        extents: extents.to_vec(),
        window: window.to_vec(),
        channels: 3,
        features: 2,
        groups: 1,
        strides: vec![1; axes],
        dilation: vec![1; axes],
        padding: vec![Padding::default(); axes],
        transposed: false,
    }
}

#[test]
fn convolutions() {
    for transposed in [false, true] {
        let plain = |extents: &[u32], window: &[u32]| Given {
            transposed,
            ..plain(extents, window)
        };
        plain(&[5], &[3]).check();
        plain(&[1], &[1]).check();
        plain(&[4, 5], &[3, 2]).check();
        Given {
            strides: vec![2, 3],
            dilation: vec![2, 1],
            padding: vec![around(1, 2), around(0, 1)],
            ..plain(&[6, 7], &[2, 3])
        }
        .check();
        for (groups, channels, features) in [(3, 2, 2), (4, 1, 1), (2, 1, 3), (3, 3, 1)] {
            Given {
                groups,
                channels,
                features,
                padding: vec![around(1, 1); 2],
                strides: vec![2, 1],
                ..plain(&[4, 3], &[3, 3])
            }
            .check();
        }
        Given {
            channels: 20,
            features: 40,
            ..plain(&[9], &[3])
        }
        .check();
        Given {
            groups: 2,
            ..plain(&[5], &[3])
        }
        .check_rows(7);
        plain(&[5, 4], &[3, 3]).check_rows(5);
    }
}

fn pool(reduction: Reduction, window: &[u32], strides: &[u32], padding: &[Padding]) -> PoolNode {
    PoolNode {
        reduction,
        operand: 0,
        window: window.to_vec(),
        strides: strides.to_vec(),
        padding: padding.to_vec(),
    }
}

#[test]
fn pools() {
    use Reduction::{Maximum, Mean, Minimum, Sum};
    for reduction in [Maximum, Mean, Minimum, Sum] {
        for (shape, window, strides, padding) in [
            (&[2, 6, 3][..], &[2][..], &[2][..], &[around(0, 0)][..]),
            (&[1, 5, 2], &[3], &[1], &[around(1, 2)]),
            (
                &[2, 5, 4, 3],
                &[3, 2],
                &[2, 1],
                &[around(1, 0), around(0, 1)],
            ),
            (
                &[1, 4, 4, 1],
                &[4, 4],
                &[1, 1],
                &[around(0, 0), around(0, 0)],
            ),
            (
                &[2, 3, 3, 2],
                &[1, 1],
                &[2, 2],
                &[around(0, 0), around(0, 0)],
            ),
        ] {
            let node = pool(reduction, window, strides, padding);
            let build = |node: PoolNode| {
                move |b: &mut Builder, x: &[NodeId]| {
                    b.node(Node::Pool(PoolNode {
                        operand: x[0],
                        ..node
                    }))
                }
            };
            let name = format!("{node:?}");
            Check::of_parameters(&name, &[shape], (-1.0, 1.0), build(node.clone())).run();
            Check::of_rows(&name, &[&shape[1..]], (-1.0, 1.0), 5, build(node)).run();
        }
    }
}

fn batch_norm(b: &mut Builder, x: &[NodeId], given: bool) -> NodeId {
    b.node(Node::BatchNorm(BatchNormNode {
        operand: x[0],
        scale: x[1],
        offset: x[2],
        statistics: given.then(|| Statistics {
            mean: x[3],
            variance: x[4],
        }),
        epsilon: 0.01,
    }))
}

#[test]
fn norms_over_channels() {
    Check::of_parameters(
        "batch norm",
        &[&[3, 2, 4], &[4], &[4], &[4], &[4]],
        (0.2, 1.0),
        |b, x| batch_norm(b, x, true),
    )
    .run();
    Check::of_rows(
        "batch norm by row",
        &[&[4], &[4], &[4], &[4], &[4]],
        (0.2, 1.0),
        6,
        |b, x| batch_norm(b, x, true),
    )
    .run();
    Check::of_parameters(
        "batch norm of the batch",
        &[&[5, 2, 3], &[3], &[3]],
        (-1.0, 1.0),
        |b, x| batch_norm(b, x, false),
    )
    .run();
    // Rows mix, so each depends on all.
    Check::of_rows(
        "batch norm of the rows",
        &[&[2, 3], &[3], &[3]],
        (-1.0, 1.0),
        9,
        |b, x| batch_norm(b, x, false),
    )
    .run();
    for (shape, groups) in [
        (&[2, 3, 2, 6][..], 3),
        (&[2, 6], 2),
        (&[3, 5, 4], 4),
        (&[2, 4, 4], 1),
    ] {
        let channels = [shape[shape.len() - 1]];
        let build = move |b: &mut Builder, x: &[NodeId]| {
            b.node(Node::GroupNorm(GroupNormNode {
                operand: x[0],
                scale: x[1],
                offset: x[2],
                groups,
                epsilon: 0.1,
            }))
        };
        Check::of_parameters(
            "group norm",
            &[shape, &channels, &channels],
            (-1.0, 1.0),
            build,
        )
        .run();
        Check::of_rows(
            "group norm by row",
            &[&shape[1..], &channels, &channels],
            (-1.0, 1.0),
            4,
            build,
        )
        .run();
    }
}

#[test]
fn codes_become_numbers_again() {
    for (width, extent, words) in [
        (CodeWidth::Int8, 8, 2),
        (CodeWidth::Int8, 5, 2),
        (CodeWidth::Int4, 16, 2),
        (CodeWidth::Int4, 3, 1),
    ] {
        let mut state = 7_u32;
        let values: Vec<i32> = (0..3 * words)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state as i32
            })
            .collect();
        let build = |zero: bool| {
            let values = values.clone();
            move |b: &mut Builder, x: &[NodeId]| {
                let codes = b.node(Node::I32Constant(I32Literal {
                    shape: vec![3, words],
                    values,
                }));
                b.node(Node::Dequantise(DequantiseNode {
                    codes,
                    width,
                    extent,
                    scale: x[0],
                    zero: zero.then(|| x[1]),
                }))
            }
        };
        // One scale for each row, and a zero for each column.
        Check::of_parameters("dequantise", &[&[3, 1]], (0.01, 0.1), build(false)).run();
        Check::of_parameters(
            "dequantise",
            &[&[3, 1], &[extent]],
            (0.01, 0.1),
            build(true),
        )
        .run();
    }
}

#[test]
fn quantised_weights_stand_on_the_right_of_a_product() {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[4]));
    let codes = builder.node(Node::I32Constant(I32Literal {
        shape: vec![4, 10],
        values: (0..40)
            .map(|at| i32::from_le_bytes([at, 255 - at, 3, 200]))
            .collect(),
    }));
    let scale = builder.number(0.125);
    let weights = builder.node(Node::Dequantise(DequantiseNode {
        codes,
        width: CodeWidth::Int8,
        extent: 40,
        scale,
        zero: None,
    }));
    let product = builder.matmul(x, weights);
    builder.entry("result", &[("result", product)]);
    let program = builder.compile();
    let feeds = Feeds::from([("x".to_owned(), f32s(&[2, 4], vec![1.0; 8]))]);
    let found = session(&program, 1, 0)
        .infer("result", &feeds)
        .expect("a result");
    let found = found[0].1.to_f32();
    // Columns 0, 1, 2 and 3: sums over rows of the codes of their first word.
    let rows = [0_i32, 10, 20, 30];
    let expected = [
        rows.iter().sum::<i32>() as f32 / 8.0,
        rows.iter().map(|at| -1 - at).sum::<i32>() as f32 / 8.0,
        12.0 / 8.0,
        4.0 * -56.0 / 8.0,
    ];
    assert_eq!(found[..4], expected);
    assert_eq!(found[..40], found[40..]);
}

#[test]
fn what_does_not_go_together_is_told() {
    let refused = |build: &dyn Fn(&mut Builder, NodeId, NodeId) -> NodeId| {
        let mut builder = Builder::new();
        let x = builder.input("x", DType::Float32, by_row(&[5, 4, 6]));
        let kernel = builder.parameter("kernel", &[3, 3, 6, 4], Initializer::HeUniform);
        let result = build(&mut builder, x, kernel);
        builder.entry("result", &[("result", result)]);
        let error = Program::compile(builder.graph, &Caps::default()).expect_err("refused");
        assert_eq!(error.node, Some(result), "{error}");
        error.message
    };
    let given = |change: fn(&mut ConvolutionNode)| {
        refused(&|b, x, kernel| {
            let mut node = ConvolutionNode {
                operand: x,
                kernel,
                strides: vec![1; 2],
                padding: vec![Padding::default(); 2],
                dilation: vec![1; 2],
                groups: 1,
                transposed: false,
            };
            change(&mut node);
            b.node(Node::Convolution(node))
        })
    };
    insta::assert_snapshot!(
        given(|node| node.groups = 4),
        @"6 channels for a kernel [3, 3, 6, 4] in 4 groups"
    );
    insta::assert_snapshot!(
        given(|node| node.groups = 0),
        @"6 channels for a kernel [3, 3, 6, 4] in 0 groups"
    );
    insta::assert_snapshot!(
        given(|node| node.strides = vec![1]),
        @"1 strides and 2 paddings for 2 axes"
    );
    insta::assert_snapshot!(
        given(|node| node.strides = vec![1, 0]),
        @"axis 2: windows of 3, 0 apart, dilated by 1, do not go with 4 elements and 0 and 0 around them"
    );
    insta::assert_snapshot!(
        given(|node| node.dilation = vec![u32::MAX, 1]),
        @"axis 1: windows of 3, 1 apart, dilated by 4294967295, do not go with 5 elements and 0 and 0 around them"
    );
    insta::assert_snapshot!(
        given(|node| node.padding[1].before = u32::MAX),
        @"axis 2: windows of 3, 1 apart, dilated by 1, do not go with 4 elements and 4294967295 and 0 around them"
    );
    insta::assert_snapshot!(
        given(|node| node.padding[1].before = 1 << 30),
        @"windows [rows, 3, 3, 1073741826, 3, 6] are more elements than the cap of 1073741824, with symbols at their maximum"
    );
    insta::assert_snapshot!(
        refused(&|b, x, _| b.node(Node::Pool(PoolNode {
            operand: x,
            ..pool(Reduction::Mean, &[2, 2], &[1, 1], &[around(2, 0), around(0, 0)])
        }))),
        @"axis 1: windows of 2, 1 apart, do not go with 5 elements and 2 and 0 around them"
    );
    insta::assert_snapshot!(
        refused(&|b, x, _| top_k(b, x, 2, 5)),
        @"the largest 5 of 4 elements"
    );
    insta::assert_snapshot!(
        refused(&|b, x, _| top_k(b, x, 0, 1)),
        @"axis 0 of [rows, 5, 4, 6] is a symbol and must be fixed"
    );
    insta::assert_snapshot!(
        refused(&|b, x, kernel| b.node(Node::GroupNorm(GroupNormNode {
            operand: x,
            scale: kernel,
            offset: kernel,
            groups: 2,
            epsilon: 1.0
        }))),
        @"the scale has shape [3, 3, 6, 4]; it must be the last extent of [rows, 5, 4, 6]"
    );
    insta::assert_snapshot!(
        refused(&|b, x, _| b.node(Node::Pad(PadNode {
            operand: x,
            axis: 1,
            before: u32::MAX,
            after: 1,
            value: 0.0
        }))),
        @"pad has too many elements"
    );
}

/// Numbers below bounds, of a seed.
fn below(state: &mut u64, bound: u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) as u32 % bound.max(1)
}

fn random(seed: u64) -> Given {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |bound| below(&mut state, bound);
    let axes = 1 + below(2) as usize;
    let mut each =
        |least: u32, bound: u32| -> Vec<u32> { (0..axes).map(|_| least + below(bound)).collect() };
    let (extents, window) = (each(1, 7), each(1, 4));
    let (strides, dilation) = (each(1, 3), each(1, 3));
    let (before, after) = (each(0, 3), each(0, 3));
    let ends = each(1, 4);
    let sizes = each(0, 24);
    Given {
        batch: 1 + sizes[0] % 3,
        extents,
        window,
        channels: ends[0],
        features: 1 + sizes[0] % 4,
        groups: 1 + sizes[0] / 8,
        strides,
        dilation,
        padding: before
            .iter()
            .zip(&after)
            .map(|(before, after)| around(*before, *after))
            .collect(),
        transposed: ends[axes - 1] % 2 == 0,
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20_261_122),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn convolutions_of_any_shape_are_those_of_the_reference(seed in any::<u64>()) {
        let given = random(seed);
        prop_assume!(given.fits());
        given.check();
    }

    #[test]
    fn a_row_gives_the_same_bits_alone_and_among_others(seed in any::<u64>()) {
        let given = random(seed);
        prop_assume!(given.fits());
        let [operand, kernel] = given.shapes();
        let mut builder = Builder::new();
        let x = builder.input("x", DType::Float32, by_row(&operand[1..]));
        let kernel = builder.parameter("kernel", &kernel, Initializer::HeUniform);
        let convolved = builder.node(given.node(x, kernel));
        let extents = given.extents.len();
        let pooled = builder.node(Node::Pool(PoolNode {
            operand: convolved,
            ..pool(Reduction::Mean, &vec![1; extents], &vec![1; extents], &vec![Padding::default(); extents])
        }));
        let sums = builder.node(Node::CumulativeSum(CumulativeSumNode {
            operand: pooled,
            axis: 1,
            exclusive: false,
            reverse: seed % 2 == 0,
        }));
        let places = top_k(&mut builder, sums, 1 + extents as u32, 1);
        let largest = take(&mut builder, sums, places, 1 + extents as u32);
        builder.entry("result", &[("sums", sums), ("largest", largest)]);
        let program = builder.compile();
        let rows = 150;
        let width = operand[1..].iter().product::<u32>() as usize;
        let values = numbers(rows * width, seed);
        let bits = |from: usize, count: usize| -> Vec<Vec<u32>> {
            let mut shape: Vec<usize> = operand.iter().map(|extent| *extent as usize).collect();
            shape[0] = count;
            let x = f32s(&shape, values[from * width..(from + count) * width].to_vec());
            let found = session(&program, 2, seed).infer("result", &BTreeMap::from([("x".to_owned(), x)]));
            let found = found.expect("results").into_iter();
            found.map(|(_, tensor)| tensor.to_f32().into_iter().map(f32::to_bits).collect()).collect()
        };
        let whole = bits(0, rows);
        for row in [0, 1, 77, 149] {
            for (alone, all) in bits(row, 1).iter().zip(&whole) {
                let each = all.len() / rows;
                prop_assert_eq!(alone.as_slice(), &all[row * each..(row + 1) * each]);
            }
        }
    }
}
