//! What a program comes down to: fewer values, the same bits.

use crate::support::reference::{self, Parameters, Value};
use crate::support::*;
use sandcast_kernels::graph::*;
use sandcast_kernels::show::{Showing, Stage};
use sandcast_kernels::{Caps, Feeds, Program};

/// The operations that are left of an entry, sources and views of numbers aside.
fn left_of(program: &Program, entry: &str) -> Vec<String> {
    let showing = Showing {
        stage: Stage::Values,
        entry: Some(entry.to_owned()),
        ..Showing::default()
    };
    let listing = program.show(&showing).expect("the entry");
    let lines = listing.functions[0].lines.iter();
    lines
        .map(|line| line.operation.clone())
        .filter(|operation| !matches!(operation.as_str(), "input" | "parameter" | "constant"))
        .collect()
}

/// Builds a node from `x` of [rows, 2, 3]; what is left of it, after its values were compared
/// with the reference.
fn left(build: impl FnOnce(&mut Builder, NodeId) -> NodeId) -> Vec<String> {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[2, 3]));
    let result = build(&mut builder, x);
    builder.entry("result", &[("result", result)]);
    let graph = builder.graph.clone();
    let program = builder.compile();
    let rows = 5;
    let mut values = numbers(rows * 6, 3);
    values[..4].copy_from_slice(&[0.0, f32::INFINITY, 1e-40, -7.5]);
    let feeds = Feeds::from([("x".to_owned(), f32s(&[rows, 2, 3], values))]);
    let session = session(&program, 1, 1);
    let parameters: Parameters = session
        .weights()
        .iter()
        .map(|(name, tensor)| (name.clone(), Value::from(tensor)))
        .collect();
    let expected = &reference::evaluate(&graph, &parameters, &feeds)[result as usize];
    let found = session
        .infer("result", &feeds)
        .expect("a result")
        .remove(0)
        .1;
    assert_eq!(found.shape(), expected.shape.as_slice());
    let found = found.to_f32();
    for (one, other) in found.iter().zip(&expected.data) {
        let near = (f64::from(*one) - other).abs() <= 1e-6 * (1.0 + other.abs());
        assert!(
            near || f64::from(*one) == *other || one.is_nan() && other.is_nan(),
            "{one} for {other}"
        );
    }
    left_of(&program, "result")
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn what_changes_nothing_goes_away() {
    use BinaryOperation::{Add, Divide, Maximum, Minimum, Multiply, Subtract};
    for (operation, number) in [(Add, 0.0), (Subtract, 0.0), (Multiply, 1.0), (Divide, 1.0)] {
        let found = left(|b, x| {
            let number = b.number(number);
            b.binary(operation, x, number)
        });
        assert_eq!(found, nothing(), "{operation:?}");
    }
    for (operation, number) in [(Add, 0.0), (Multiply, 1.0)] {
        let found = left(|b, x| {
            let number = b.number(number);
            b.binary(operation, number, x)
        });
        assert_eq!(found, nothing(), "{operation:?} on the left");
    }
    for operation in [Maximum, Minimum] {
        assert_eq!(left(|b, x| b.binary(operation, x, x)), nothing());
    }
    let bounds = |minimum, maximum| {
        move |b: &mut Builder, x| {
            let clamp = |b: &mut Builder, operand| {
                b.node(Node::Clamp(ClampNode {
                    operand,
                    minimum,
                    maximum,
                }))
            };
            let once = clamp(b, x);
            clamp(b, once)
        }
    };
    assert_eq!(left(bounds(f32::NEG_INFINITY, f32::INFINITY)), nothing());
    assert_eq!(left(bounds(-0.5, 0.5)), ["clamp"]);
    // A number that repeats to a larger shape makes the result larger.
    let found = left(|b, x| {
        let slice = b.node(Node::Slice(SliceNode {
            operand: x,
            axis: 1,
            start: 0,
            limit: 1,
        }));
        let zeros = b.node(Node::F32Constant(F32Literal {
            shape: vec![],
            values: vec![0.0],
        }));
        let zeros = b.node(Node::Broadcast(BroadcastNode {
            operand: zeros,
            shape: by_row(&[2, 3]),
        }));
        b.add(slice, zeros)
    });
    assert_eq!(found, ["slice", "broadcast"]);
}

#[test]
fn signs_meet() {
    use UnaryOperation::{Absolute, Negate, Square};
    assert_eq!(
        left(|b, x| {
            let once = b.unary(Negate, x);
            b.unary(Negate, once)
        }),
        nothing()
    );
    for operation in [Absolute, Square] {
        let found = left(|b, x| {
            let negated = b.unary(Negate, x);
            b.unary(operation, negated)
        });
        assert_eq!(found.len(), 1, "{found:?}");
    }
    let other = |b: &mut Builder, x| b.unary(UnaryOperation::Tanh, x);
    let found = left(|b, x| {
        let other = other(b, x);
        let negated = b.unary(Negate, other);
        b.add(x, negated)
    });
    assert_eq!(found, ["tanh", "subtract"]);
    let found = left(|b, x| {
        let other = other(b, x);
        let negated = b.unary(Negate, other);
        b.binary(BinaryOperation::Subtract, x, negated)
    });
    assert_eq!(found, ["tanh", "add"]);
    let found = left(|b, x| {
        let minus = b.number(-1.0);
        let negated = b.multiply(x, minus);
        let other = other(b, x);
        let both = b.unary(Negate, other);
        b.multiply(negated, both)
    });
    assert_eq!(found, ["tanh", "multiply"]);
}

#[test]
fn numbers_are_computed_once_and_for_all() {
    use BinaryOperation::{Divide, Subtract};
    let found = left(|b, x| {
        let (two, three) = (b.number(2.0), b.number(3.0));
        let difference = b.binary(Subtract, three, two);
        let square = b.unary(UnaryOperation::Square, difference);
        b.binary(Divide, x, square)
    });
    assert_eq!(found, nothing());
    let found = left(|b, x| {
        let eight = b.number(8.0);
        b.binary(Divide, x, eight)
    });
    assert_eq!(found, ["multiply"]);
    let found = left(|b, x| {
        let three = b.number(3.0);
        b.binary(Divide, x, three)
    });
    assert_eq!(found, ["divide"]);
    let found = left(|b, x| {
        let (two, three) = (b.number(2.0), b.number(3.0));
        let condition = b.node(Node::Compare(CompareNode {
            comparison: Comparison::Less,
            left: two,
            right: three,
        }));
        let other = b.unary(UnaryOperation::Exponential, x);
        b.node(Node::Select(SelectNode {
            condition,
            on_true: x,
            on_false: other,
        }))
    });
    assert_eq!(found, nothing());
    // The number of fixed extents is known, that of rows is not.
    let found = left(|b, x| b.reduce(Reduction::Mean, x, &[1, 2], false));
    assert_eq!(found, ["reduce-sum", "multiply"]);
    let found = left(|b, x| b.reduce(Reduction::Mean, x, &[0], false));
    assert_eq!(found, ["reduce-sum", "one-over-count", "multiply"]);
}

#[test]
fn views_of_views_are_one() {
    let transpose = |b: &mut Builder, operand, permutation: [u32; 3]| {
        let permutation = permutation.to_vec();
        b.node(Node::Transpose(TransposeNode {
            operand,
            permutation,
        }))
    };
    assert_eq!(
        left(|b, x| {
            let there = transpose(b, x, [2, 0, 1]);
            transpose(b, there, [1, 2, 0])
        }),
        nothing()
    );
    assert_eq!(
        left(|b, x| {
            let there = transpose(b, x, [2, 0, 1]);
            transpose(b, there, [1, 0, 2])
        }),
        ["transpose"]
    );
    assert_eq!(
        left(|b, x| {
            let flat = b.reshape(x, by_row(&[6]));
            let tall = b.reshape(flat, by_row(&[3, 2]));
            b.reshape(tall, by_row(&[2, 3]))
        }),
        nothing()
    );
    let slice = |b: &mut Builder, operand, start, limit| {
        b.node(Node::Slice(SliceNode {
            operand,
            axis: 2,
            start,
            limit,
        }))
    };
    assert_eq!(
        left(|b, x| {
            let part = slice(b, x, 1, 3);
            let whole = slice(b, part, 0, 2);
            slice(b, whole, 1, 2)
        }),
        ["slice"]
    );
    assert_eq!(left(|b, x| slice(b, x, 0, 3)), nothing());
    assert_eq!(
        left(|b, x| {
            let wide = b.node(Node::Broadcast(BroadcastNode {
                operand: x,
                shape: [fixed(&[2, 1]), by_row(&[2, 3])].concat(),
            }));
            b.node(Node::Broadcast(BroadcastNode {
                operand: wide,
                shape: [fixed(&[2, 4]), by_row(&[2, 3])].concat(),
            }))
        }),
        ["broadcast"]
    );
    assert_eq!(
        left(|b, x| {
            let part = slice(b, x, 0, 1);
            b.reduce(Reduction::Maximum, part, &[2], true)
        }),
        ["slice"]
    );
    assert_eq!(
        left(|b, x| b.node(Node::Cast(CastNode {
            operand: x,
            dtype: DType::Float32
        }))),
        nothing()
    );
}

#[test]
fn equal_values_are_one_whatever_their_order_and_what_nobody_wants_is_none() {
    let found = left(|b, x| {
        let tanh = b.unary(UnaryOperation::Tanh, x);
        let one = b.add(x, tanh);
        let other = b.add(tanh, x);
        let _unwanted = b.unary(UnaryOperation::Exponential, one);
        b.multiply(one, other)
    });
    assert_eq!(found, ["tanh", "add", "multiply"]);
}

#[test]
fn a_program_that_mixed_rows_by_a_detour_mixes_none() {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[2, 3]));
    let turned = [fixed(&[2]), by_row(&[3])].concat();
    let detour = builder.reshape(x, turned);
    let back = builder.reshape(detour, by_row(&[2, 3]));
    let sum = builder.reduce(Reduction::Sum, back, &[1, 2], false);
    builder.entry("result", &[("result", sum)]);
    let program = Program::compile(builder.graph, &Caps::default()).expect("it compiles");
    let showing = Showing {
        stage: Stage::Values,
        ..Showing::default()
    };
    let listing = program.show(&showing).expect("a listing").to_string();
    assert!(listing.contains("by itself"), "{listing}");
}

#[test]
fn gradients_come_down_too() {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[3]));
    let w = builder.parameter("w", &[3], Initializer::Ones);
    let product = builder.multiply(x, w);
    let per_row = builder.reduce(Reduction::Sum, product, &[1], false);
    builder.loss(per_row, None);
    builder.graph.optimizer = Some(adam());
    let program = Program::compile(builder.graph, &Caps::default()).expect("it compiles");
    // The slope of the sum is 1 everywhere: nothing is multiplied with it.
    assert_eq!(
        left_of(&program, "loss"),
        ["multiply", "reduce-sum", "reduce-sum"]
    );
}
