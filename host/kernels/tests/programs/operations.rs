//! Every operation by itself: its result against the reference, its gradient against
//! differences of the reference.

use std::collections::BTreeMap;

use crate::support::check::Check;
use crate::support::*;
use sandcast_kernels::graph::*;

#[test]
fn unary_operations() {
    use UnaryOperation::*;
    for (operation, range) in [
        (Negate, (-3.0, 3.0)),
        (Absolute, (-3.0, 3.0)),
        (Exponential, (-3.0, 3.0)),
        (Logarithm, (0.1, 5.0)),
        (SquareRoot, (0.1, 5.0)),
        (Square, (-3.0, 3.0)),
        (Reciprocal, (0.3, 4.0)),
        (Tanh, (-3.0, 3.0)),
        (Logistic, (-4.0, 4.0)),
        (Relu, (-3.0, 3.0)),
        (Gelu, (-3.0, 3.0)),
        (Silu, (-4.0, 4.0)),
        (Softplus, (-4.0, 4.0)),
        (Floor, (-3.0, 3.0)),
        (Sign, (-3.0, 3.0)),
        (IsNan, (-3.0, 3.0)),
        (LogicalNot, (-3.0, 3.0)),
        (Sine, (-4.0, 4.0)),
        (Cosine, (-4.0, 4.0)),
        (Tangent, (-1.2, 1.2)),
        (Round, (-3.0, 3.0)),
        (Ceiling, (-3.0, 3.0)),
        (ErrorFunction, (-2.5, 2.5)),
        (ExponentialMinusOne, (-3.0, 3.0)),
        (LogPlusOne, (-0.8, 4.0)),
        (CubeRoot, (0.2, 5.0)),
        (ReciprocalSquareRoot, (0.2, 5.0)),
        (IsFinite, (-3.0, 3.0)),
    ] {
        let name = format!("{operation:?}");
        for shape in [&[][..], &[1], &[7], &[3, 5], &[2, 1, 3], &[600]] {
            Check::of_parameters(&name, &[shape], range, |b, x| b.unary(operation, x[0])).run();
        }
        for rows in [0, 1, 5, 130] {
            Check::of_rows(&name, &[&[3]], range, rows, |b, x| b.unary(operation, x[0])).run();
        }
    }
}

#[test]
fn binary_operations_broadcast() {
    use BinaryOperation::*;
    for operation in [
        Add, Subtract, Multiply, Divide, Maximum, Minimum, Power, LogicalAnd, LogicalOr,
    ] {
        let name = format!("{operation:?}");
        for shapes in [
            [&[][..], &[][..]],
            [&[4], &[]],
            [&[], &[2, 3]],
            [&[3, 4], &[4]],
            [&[3, 1], &[1, 4]],
            [&[2, 3, 4], &[3, 1]],
            [&[1, 4], &[5, 4]],
            [&[0, 4], &[4]],
        ] {
            Check::of_parameters(&name, &shapes, (0.5, 2.5), |b, x| {
                b.binary(operation, x[0], x[1])
            })
            .run();
        }
        for (rows, other) in [
            (5, &[3][..]),
            (5, &[1]),
            (5, &[]),
            (1, &[3]),
            (129, &[1, 3]),
        ] {
            let shapes = [&[3][..], other];
            Check::of_rows(&name, &shapes, (0.5, 2.5), rows, |b, x| {
                b.binary(operation, x[0], x[1])
            })
            .run();
        }
        // Both sides the same node.
        Check::of_parameters(&name, &[&[4]], (0.5, 2.5), |b, x| {
            b.binary(operation, x[0], x[0])
        })
        .run_within(
            1e-5,
            if matches!(operation, Maximum | Minimum) {
                2.0
            } else {
                1e-3
            },
        );
    }
}

#[test]
fn equal_operands_share_the_gradient_of_an_extreme() {
    for operation in [BinaryOperation::Maximum, BinaryOperation::Minimum] {
        let mut builder = Builder::new();
        let ones = builder.input("ones", DType::Float32, by_row(&[]));
        let left = builder.parameter("left", &[], Initializer::Ones);
        let right = builder.parameter("right", &[], Initializer::Ones);
        let extreme = builder.binary(operation, left, right);
        let per_row = builder.multiply(extreme, ones);
        builder.loss(per_row, None);
        let program = builder.compile();
        let feeds = BTreeMap::from([("ones".to_owned(), f32s(&[3], vec![1.0; 3]))]);
        let gradients = session(&program, 1, 0)
            .gradients(&feeds)
            .expect("gradients");
        for name in ["left", "right"] {
            assert_eq!(
                gradients.by_parameter[name].to_f32(),
                [0.5],
                "{operation:?} {name}"
            );
        }
    }
    for reduction in [Reduction::Maximum, Reduction::Minimum] {
        let mut builder = Builder::new();
        let ones = builder.input("ones", DType::Float32, by_row(&[]));
        let four = builder.parameter("four", &[4], Initializer::Ones);
        let extreme = builder.reduce(reduction, four, &[0], false);
        let per_row = builder.multiply(extreme, ones);
        builder.loss(per_row, None);
        let program = builder.compile();
        let feeds = BTreeMap::from([("ones".to_owned(), f32s(&[3], vec![1.0; 3]))]);
        let gradients = session(&program, 1, 0)
            .gradients(&feeds)
            .expect("gradients");
        assert_eq!(
            gradients.by_parameter["four"].to_f32(),
            [0.25; 4],
            "{reduction:?}"
        );
    }
}

#[test]
fn comparisons_select_clamp_and_cast() {
    use Comparison::*;
    for comparison in [Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual] {
        let compare = |left, right| {
            Node::Compare(CompareNode {
                comparison,
                left,
                right,
            })
        };
        Check::of_parameters("compare", &[&[3, 4], &[4]], (-1.0, 1.0), |b, x| {
            b.node(compare(x[0], x[1]))
        })
        .run();
        Check::of_rows("select", &[&[4], &[4], &[1]], (-1.0, 1.0), 6, |b, x| {
            let condition = b.node(compare(x[0], x[1]));
            b.node(Node::Select(SelectNode {
                condition,
                on_true: x[0],
                on_false: x[2],
            }))
        })
        .run();
    }
    for rows in [1, 5] {
        Check::of_rows("clamp", &[&[7]], (-2.0, 2.0), rows, |b, x| {
            b.node(Node::Clamp(ClampNode {
                operand: x[0],
                minimum: -0.5,
                maximum: 0.7,
            }))
        })
        .run();
        Check::of_rows("cast", &[&[7]], (-4.0, 4.0), rows, |b, x| {
            let whole = b.node(Node::Cast(CastNode {
                operand: x[0],
                dtype: DType::Int32,
            }));
            b.node(Node::Cast(CastNode {
                operand: whole,
                dtype: DType::Float32,
            }))
        })
        .run();
        Check::of_rows("cast to int32", &[&[7]], (-4.0, 4.0), rows, |b, x| {
            b.node(Node::Cast(CastNode {
                operand: x[0],
                dtype: DType::Int32,
            }))
        })
        .run();
    }
}

#[test]
fn int32_wraps_and_divides_as_stablehlo_does() {
    let mut builder = Builder::new();
    let left = builder.input("left", DType::Int32, by_row(&[]));
    let right = builder.input("right", DType::Int32, by_row(&[]));
    use BinaryOperation::*;
    let operations = [
        Add, Subtract, Multiply, Divide, Maximum, Minimum, LogicalAnd, LogicalOr,
    ];
    let nodes: Vec<NodeId> = operations
        .iter()
        .map(|operation| builder.binary(*operation, left, right))
        .collect();
    let names: Vec<String> = operations
        .iter()
        .map(|operation| format!("{operation:?}"))
        .collect();
    let mut outputs: Vec<(&str, NodeId)> = names.iter().map(String::as_str).zip(nodes).collect();
    let unary = [
        UnaryOperation::Negate,
        UnaryOperation::Absolute,
        UnaryOperation::Square,
        UnaryOperation::Relu,
        UnaryOperation::Sign,
        UnaryOperation::LogicalNot,
    ];
    let unary_names: Vec<String> = unary
        .iter()
        .map(|operation| format!("{operation:?}"))
        .collect();
    for (operation, name) in unary.iter().zip(&unary_names) {
        outputs.push((name, builder.unary(*operation, left)));
    }
    let less = builder.node(Node::Compare(CompareNode {
        comparison: Comparison::Less,
        left,
        right,
    }));
    outputs.push(("Less", less));
    builder.entry("all", &outputs);
    let session = session(&builder.compile(), 1, 0);
    let (a, b) = (
        vec![7, -7, 5, i32::MIN, i32::MAX, 0],
        vec![2, 2, 0, -1, 1, 3],
    );
    let feeds = BTreeMap::from([
        ("left".to_owned(), i32s(&[6], a)),
        ("right".to_owned(), i32s(&[6], b)),
    ]);
    let found: BTreeMap<String, sandcast_kernels::Tensor> = session
        .infer("all", &feeds)
        .expect("results")
        .into_iter()
        .collect();
    let ints = |name: &str| found[name].as_i32().expect("int32").to_vec();
    assert_eq!(ints("Add"), [9, -5, 5, i32::MAX, i32::MIN, 3]);
    assert_eq!(ints("Multiply"), [14, -14, 0, i32::MIN, i32::MAX, 0]);
    assert_eq!(ints("Divide"), [3, -3, -1, i32::MIN, i32::MAX, 0]);
    assert_eq!(ints("Minimum"), [2, -7, 0, i32::MIN, 1, 0]);
    assert_eq!(ints("LogicalAnd"), [1, 1, 0, 1, 1, 0]);
    assert_eq!(ints("Absolute"), [7, 7, 5, i32::MIN, i32::MAX, 0]);
    assert_eq!(ints("Sign"), [1, -1, 1, -1, 1, 0]);
    assert_eq!(ints("LogicalNot"), [0, 0, 0, 0, 0, 1]);
    assert_eq!(found["Less"].to_f32(), [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
}

#[test]
fn shapes_change_and_elements_stay() {
    for rows in [1, 4, 131] {
        let range = (-1.0, 1.0);
        Check::of_rows("reshape", &[&[2, 6]], range, rows, |b, x| {
            b.reshape(x[0], by_row(&[3, 4]))
        })
        .run();
        Check::of_rows("reshape of a transpose", &[&[2, 6]], range, rows, |b, x| {
            let turned = b.node(Node::Transpose(TransposeNode {
                operand: x[0],
                permutation: vec![0, 2, 1],
            }));
            b.reshape(turned, by_row(&[12]))
        })
        .run();
        Check::of_rows("transpose", &[&[2, 3]], range, rows, |b, x| {
            // The rows in the middle, and back.
            let turned = b.node(Node::Transpose(TransposeNode {
                operand: x[0],
                permutation: vec![2, 0, 1],
            }));
            let square = b.unary(UnaryOperation::Square, turned);
            b.node(Node::Transpose(TransposeNode {
                operand: square,
                permutation: vec![1, 0, 2],
            }))
        })
        .run();
        Check::of_rows(
            "transpose of parameters",
            &[&[1], &[3, 4]],
            range,
            rows,
            |b, x| {
                let turned = b.node(Node::Transpose(TransposeNode {
                    operand: x[1],
                    permutation: vec![1, 0],
                }));
                let row = b.node(Node::Slice(SliceNode {
                    operand: turned,
                    axis: 0,
                    start: 1,
                    limit: 2,
                }));
                b.add(x[0], row)
            },
        )
        .run();
        Check::of_rows("broadcast", &[&[1, 3]], range, rows, |b, x| {
            b.node(Node::Broadcast(BroadcastNode {
                operand: x[0],
                shape: by_row(&[4, 3]),
            }))
        })
        .run();
        for (start, limit) in [(0, 5), (0, 2), (1, 4), (4, 5), (2, 2)] {
            Check::of_rows("slice", &[&[5, 2]], range, rows, |b, x| {
                b.node(Node::Slice(SliceNode {
                    operand: x[0],
                    axis: 1,
                    start,
                    limit,
                }))
            })
            .run();
            Check::of_rows("slice of the last axis", &[&[2, 5]], range, rows, |b, x| {
                b.node(Node::Slice(SliceNode {
                    operand: x[0],
                    axis: 2,
                    start,
                    limit,
                }))
            })
            .run();
        }
        for axis in [1, 2] {
            Check::of_rows("concatenate", &[&[2, 3]], range, rows, |b, x| {
                let square = b.unary(UnaryOperation::Square, x[0]);
                let cut = b.node(Node::Slice(SliceNode {
                    operand: x[0],
                    axis,
                    start: 1,
                    limit: 2,
                }));
                let operands = vec![square, cut, x[0], cut];
                b.node(Node::Concatenate(ConcatenateNode { operands, axis }))
            })
            .run();
        }
    }
    Check::of_parameters(
        "concatenate of parameters",
        &[&[2, 3], &[0, 3], &[1, 3]],
        (-1.0, 1.0),
        |b, x| {
            b.node(Node::Concatenate(ConcatenateNode {
                operands: x.to_vec(),
                axis: 0,
            }))
        },
    )
    .run();
}

#[test]
fn reductions() {
    use Reduction::*;
    for reduction in [Sum, Mean, Maximum, Minimum] {
        let name = format!("{reduction:?}");
        for keep in [false, true] {
            for axes in [
                &[][..],
                &[0],
                &[1],
                &[2],
                &[0, 1],
                &[0, 2],
                &[2, 1],
                &[2, 0, 1],
            ] {
                for shape in [[3, 4, 5], [1, 2, 1], [2, 3, 40]] {
                    Check::of_parameters(&name, &[&shape], (-1.0, 1.0), |b, x| {
                        b.reduce(reduction, x[0], axes, keep)
                    })
                    .run();
                }
            }
            for (rows, axes) in [(1, &[1][..]), (4, &[2]), (130, &[1, 2])] {
                Check::of_rows(&name, &[&[3, 17]], (-1.0, 1.0), rows, |b, x| {
                    b.reduce(reduction, x[0], axes, keep)
                })
                .run();
            }
            // Along the rows: the whole batch is one piece.
            Check::of_rows(&name, &[&[3]], (-1.0, 1.0), 9, |b, x| {
                let over = b.reduce(reduction, x[0], &[0], true);
                b.add(x[0], over)
            })
            .run();
        }
    }
    // Over nothing.
    for (reduction, expected) in [
        (Sum, 0.0),
        (Mean, f32::NAN),
        (Maximum, f32::NEG_INFINITY),
        (Minimum, f32::INFINITY),
    ] {
        let mut builder = Builder::new();
        let x = builder.input("x", DType::Float32, by_row(&[0]));
        let reduced = builder.reduce(reduction, x, &[1], false);
        builder.entry("result", &[("result", reduced)]);
        let session = session(&builder.compile(), 1, 0);
        let feeds = BTreeMap::from([("x".to_owned(), f32s(&[2, 0], vec![]))]);
        let found = session.infer("result", &feeds).expect("a result")[0]
            .1
            .to_f32();
        assert!(
            found
                .iter()
                .all(|x| *x == expected || x.is_nan() && expected.is_nan()),
            "{found:?}"
        );
    }
}

#[test]
fn argmax_takes_the_first_and_what_is_not_a_number() {
    for axis in [0, 1, 2] {
        Check::of_parameters("argmax", &[&[3, 4, 5]], (-1.0, 1.0), |b, x| {
            b.node(Node::Argmax(ArgmaxNode {
                operand: x[0],
                axis,
            }))
        })
        .run();
    }
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[4]));
    let place = builder.node(Node::Argmax(ArgmaxNode {
        operand: x,
        axis: 1,
    }));
    builder.entry("result", &[("place", place)]);
    let session = session(&builder.compile(), 1, 0);
    let rows = vec![
        1.0,
        3.0,
        3.0,
        2.0,
        f32::NAN,
        9.0,
        f32::NAN,
        1.0,
        1.0,
        f32::INFINITY,
        f32::NAN,
        0.0,
    ];
    let feeds = BTreeMap::from([("x".to_owned(), f32s(&[3, 4], rows))]);
    let found = session.infer("result", &feeds).expect("a result");
    assert_eq!(found[0].1.as_i32(), Some(&[1, 0, 2][..]));
}

#[test]
fn softmax_and_layer_norm() {
    for logarithm in [false, true] {
        for (shape, axis) in [
            (&[3, 4][..], 1),
            (&[3, 4], 0),
            (&[2, 3, 5], 1),
            (&[1], 0),
            (&[2, 700], 1),
        ] {
            Check::of_parameters("softmax", &[shape], (-3.0, 3.0), |b, x| {
                b.node(Node::Softmax(SoftmaxNode {
                    operand: x[0],
                    axis,
                    logarithm,
                }))
            })
            .run();
        }
        for (rows, width) in [(1, 2), (5, 3), (200, 17)] {
            Check::of_rows("softmax", &[&[width]], (-30.0, 30.0), rows, |b, x| {
                b.node(Node::Softmax(SoftmaxNode {
                    operand: x[0],
                    axis: 1,
                    logarithm,
                }))
            })
            .run_within(1e-5, 1e-3);
        }
    }
    for (rows, shape) in [(1, &[2][..]), (5, &[7]), (130, &[20]), (3, &[2, 9])] {
        let width = shape[shape.len() - 1];
        Check::of_rows(
            "layer norm",
            &[shape, &[width], &[width]],
            (-1.0, 1.0),
            rows,
            |b, x| {
                let (operand, scale, offset) = (x[0], x[1], x[2]);
                b.node(Node::LayerNorm(LayerNormNode {
                    operand,
                    scale,
                    offset,
                    epsilon: 1e-3,
                }))
            },
        )
        .run_within(2e-5, 1e-3);
    }
}

#[test]
fn root_mean_square_norm() {
    for (rows, shape) in [(1, &[2][..]), (5, &[7]), (130, &[20]), (3, &[2, 9])] {
        let width = shape[shape.len() - 1];
        Check::of_rows("rms norm", &[shape, &[width]], (-1.0, 1.0), rows, |b, x| {
            b.node(Node::RmsNorm(RmsNormNode {
                operand: x[0],
                scale: x[1],
                epsilon: 1e-3,
            }))
        })
        .run_within(2e-5, 1e-3);
    }
}

fn attention(causal: bool, scale: Option<f32>) -> impl Fn(&mut Builder, &[NodeId]) -> NodeId {
    move |b, x| {
        b.node(Node::Attention(AttentionNode {
            query: x[0],
            key: x[1],
            value: x[2],
            mask: x.get(3).copied(),
            causal,
            scale,
        }))
    }
}

#[test]
fn attention_of_a_sequence_to_itself() {
    for causal in [false, true] {
        for (batch, time, heads, key_heads, width) in [
            (1, 1, 1, 1, 1),
            (2, 5, 2, 2, 3),
            (1, 7, 6, 2, 4),
            (2, 3, 4, 1, 5),
            (0, 3, 2, 2, 2),
            (1, 66, 1, 1, 17),
        ] {
            let (query, key) = ([batch, time, heads, width], [batch, time, key_heads, width]);
            Check::of_parameters(
                "attention",
                &[&query, &key, &key],
                (-1.5, 1.5),
                attention(causal, None),
            )
            .run();
        }
        Check::of_parameters(
            "scaled attention",
            &[&[2, 4, 2, 3], &[2, 4, 2, 3], &[2, 4, 2, 3]],
            (-1.0, 1.0),
            attention(causal, Some(0.7)),
        )
        .run();
    }
}

#[test]
fn attention_to_other_places_and_under_a_mask() {
    for (time, places, mask) in [(3, 5, None), (4, 4, Some([4, 4])), (2, 6, Some([1, 6]))] {
        let (query, key) = ([2, time, 4, 3], [2, places, 2, 3]);
        Check::of_parameters(
            "cross attention",
            &[&query, &key, &key],
            (-1.0, 1.0),
            move |b: &mut Builder, x: &[NodeId]| {
                let mask = mask.map(|shape: [u32; 2]| {
                    let count = shape[0] * shape[1];
                    let values =
                        (0..count).map(|at| if at % 3 == 1 { -1e9 } else { 0.25 * at as f32 });
                    b.node(Node::F32Constant(F32Literal {
                        shape: shape.to_vec(),
                        values: values.collect(),
                    }))
                });
                let operands: Vec<NodeId> = x.iter().copied().chain(mask).collect();
                attention(false, None)(b, &operands)
            },
        )
        .run();
    }
}

#[test]
fn matrix_products() {
    let matmul = |b: &mut Builder, x: &[NodeId]| b.matmul(x[0], x[1]);
    for (m, k, n) in [
        (1, 1, 1),
        (3, 4, 5),
        (7, 1, 2),
        (2, 0, 3),
        (0, 3, 2),
        (17, 33, 40),
    ] {
        Check::of_parameters("matmul", &[&[m, k], &[k, n]], (-1.0, 1.0), matmul).run();
        Check::of_parameters("batched", &[&[2, m, k], &[2, k, n]], (-1.0, 1.0), matmul).run();
        Check::of_parameters("one right", &[&[2, m, k], &[k, n]], (-1.0, 1.0), matmul).run();
    }
    for rows in [1, 3, 128, 129] {
        Check::of_rows("rows", &[&[5], &[5, 3]], (-1.0, 1.0), rows, matmul).run();
        Check::of_rows(
            "rows of matrices",
            &[&[2, 5], &[5, 3]],
            (-1.0, 1.0),
            rows,
            matmul,
        )
        .run();
        Check::of_rows("turned", &[&[5], &[3, 5]], (-1.0, 1.0), rows, |b, x| {
            let turned = b.node(Node::Transpose(TransposeNode {
                operand: x[1],
                permutation: vec![1, 0],
            }));
            b.matmul(x[0], turned)
        })
        .run();
        // Each row a matrix of its own on both sides, as in attention.
        Check::of_rows("attention", &[&[3, 4]], (-1.0, 1.0), rows, |b, x| {
            let turned = b.node(Node::Transpose(TransposeNode {
                operand: x[0],
                permutation: vec![0, 2, 1],
            }));
            b.matmul(x[0], turned)
        })
        .run();
        for activation in [UnaryOperation::Relu, UnaryOperation::Gelu] {
            Check::of_rows(
                "dense",
                &[&[5], &[5, 9], &[9]],
                (-1.0, 1.0),
                rows,
                |b, x| {
                    let product = b.matmul(x[0], x[1]);
                    let sum = b.add(x[2], product);
                    let active = b.unary(activation, sum);
                    // What was before is wanted too.
                    b.multiply(active, sum)
                },
            )
            .run();
        }
    }
    // Rows on the right: the batch mixes.
    Check::of_rows("gram", &[&[3]], (-1.0, 1.0), 4, |b, x| {
        let turned = b.node(Node::Transpose(TransposeNode {
            operand: x[0],
            permutation: vec![1, 0],
        }));
        let gram = b.matmul(turned, x[0]);
        b.matmul(x[0], gram)
    })
    .run();
}

#[test]
fn lookups() {
    let indices = |b: &mut Builder, shape: &[u32], values: Vec<i32>| {
        b.node(Node::I32Constant(I32Literal {
            shape: shape.to_vec(),
            values,
        }))
    };
    Check::of_parameters("gather", &[&[4, 3]], (-1.0, 1.0), |b, x| {
        let indices = indices(b, &[2, 3], vec![0, 3, 3, 1, 0, 3]);
        b.node(Node::Gather(GatherNode {
            table: x[0],
            indices,
        }))
    })
    .run();
    Check::of_parameters("gather numbers", &[&[4]], (-1.0, 1.0), |b, x| {
        let indices = indices(b, &[3], vec![2, 2, 0]);
        b.node(Node::Gather(GatherNode {
            table: x[0],
            indices,
        }))
    })
    .run();
    Check::of_parameters("one-hot", &[&[4]], (-1.0, 1.0), |b, x| {
        let indices = indices(b, &[3], vec![2, -1, 4]);
        let hot = b.node(Node::OneHot(OneHotNode { indices, depth: 4 }));
        b.multiply(hot, x[0])
    })
    .run();
    Check::of_rows(
        "rows of a table",
        &[&[1], &[6, 2]],
        (0.0, 5.9),
        150,
        |b, x| {
            let whole = b.node(Node::Cast(CastNode {
                operand: x[0],
                dtype: DType::Int32,
            }));
            b.node(Node::Gather(GatherNode {
                table: x[1],
                indices: whole,
            }))
        },
    )
    .run();
}

#[test]
fn losses() {
    for rows in [1, 5, 129] {
        for classes in [1_u32, 2, 5, 600] {
            Check::of_rows("cross entropy", &[&[classes]], (-4.0, 4.0), rows, |b, x| {
                let place = b.node(Node::Argmax(ArgmaxNode {
                    operand: x[0],
                    axis: 1,
                }));
                let last = b.node(Node::I32Constant(I32Literal {
                    shape: vec![],
                    values: vec![classes as i32 - 1],
                }));
                let labels = b.binary(BinaryOperation::Subtract, last, place);
                b.node(Node::CrossEntropy(CrossEntropyNode {
                    logits: x[0],
                    labels,
                }))
            })
            .run();
        }
        Check::of_rows("squared error", &[&[3], &[3]], (-1.0, 1.0), rows, |b, x| {
            let targets = b.node(Node::Broadcast(BroadcastNode {
                operand: x[1],
                shape: by_row(&[3]),
            }));
            b.node(Node::SquaredError(SquaredErrorNode {
                predictions: x[0],
                targets,
            }))
        })
        .run();
        for delta in [0.3, 5.0] {
            Check::of_rows("huber", &[&[3], &[3]], (-1.0, 1.0), rows, |b, x| {
                let targets = b.node(Node::Broadcast(BroadcastNode {
                    operand: x[1],
                    shape: by_row(&[3]),
                }));
                b.node(Node::Huber(HuberNode {
                    predictions: x[0],
                    targets,
                    delta,
                }))
            })
            .run();
        }
        Check::of_rows(
            "binary cross entropy",
            &[&[3], &[3]],
            (-3.0, 3.0),
            rows,
            |b, x| {
                let share = b.unary(UnaryOperation::Logistic, x[1]);
                let targets = b.node(Node::Broadcast(BroadcastNode {
                    operand: share,
                    shape: by_row(&[3]),
                }));
                b.node(Node::BinaryCrossEntropy(BinaryCrossEntropyNode {
                    logits: x[0],
                    targets,
                }))
            },
        )
        .run();
    }
}

#[test]
fn dropout_keeps_the_mean_and_its_gradient_is_its_mask() {
    for rate in [0.0_f32, 0.2, 0.9] {
        let mut builder = Builder::new();
        let x = builder.input("x", DType::Float32, by_row(&[50]));
        let scale = builder.parameter("scale", &[50], Initializer::Ones);
        let scaled = builder.multiply(x, scale);
        let dropped = builder.dropout(scaled, rate);
        let per_row = builder.reduce(Reduction::Mean, dropped, &[1], false);
        builder.loss(per_row, None);
        builder.entry("result", &[("result", dropped)]);
        let mut session = session(&builder.compile(), 1, 3);
        let rows = 1000;
        let feeds = BTreeMap::from([("x".to_owned(), f32s(&[rows, 50], vec![1.0; rows * 50]))]);
        // Off outside the loss.
        assert_eq!(
            session.infer("result", &feeds).expect("a result")[0]
                .1
                .to_f32(),
            vec![1.0; rows * 50]
        );
        let gradients = session.gradients(&feeds).expect("gradients");
        assert!(
            (gradients.loss - 1.0).abs() < 0.03 * f64::from(rate) * 3.0 + 1e-6,
            "{}",
            gradients.loss
        );
        let slopes = gradients.by_parameter["scale"].to_f32();
        // The loss is linear, so it is the sum of slope times parameter.
        let sum: f64 = slopes.iter().map(|slope| f64::from(*slope)).sum();
        assert!(
            (sum - gradients.loss).abs() < 1e-4,
            "{sum} {}",
            gradients.loss
        );
        // Every slope is a whole number of kept rows.
        let unit = 1.0 / (1.0 - f64::from(rate)) / 50.0 / rows as f64;
        for slope in slopes {
            let kept = f64::from(slope) / unit;
            assert!((kept - kept.round()).abs() < 1e-2, "{kept}");
        }
    }
}
