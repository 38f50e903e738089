//! Running entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::*;
use sandcast_kernels::graph::*;
use sandcast_kernels::{Feeds, RunError, Tensor};

fn x_of(feeds: Feeds) -> Feeds {
    feeds.into_iter().filter(|(name, _)| name == "x").collect()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_f32().into_iter().map(f32::to_bits).collect()
}

#[test]
fn many_rows_are_pieces_of_the_same_bits_on_any_threads() {
    let program = classifier(30, 3, 0.2).compile();
    let feeds = x_of(moons(5000, 30, 3));
    let one = session(&program, 1, 5)
        .infer("predict", &feeds)
        .expect("results");
    assert_eq!(one[0].0, "probabilities");
    assert_eq!(one[0].1.shape(), [5000, 3]);
    for row in one[0].1.to_f32().chunks_exact(3) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
    let many = Arc::new(session(&program, 3, 5));
    assert_eq!(
        bits(&many.infer("predict", &feeds).expect("results")[0].1),
        bits(&one[0].1)
    );
    // Several callers at once share the session.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (many, feeds, expected) = (Arc::clone(&many), &feeds, bits(&one[0].1));
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(
                        bits(&many.infer("predict", feeds).expect("results")[0].1),
                        expected
                    );
                }
            });
        }
    });
}

#[test]
fn feeds_that_do_not_fit_are_refused_by_name() {
    let session = session(&classifier(4, 2, 0.0).compile(), 1, 5);
    let refuse = |feeds: Feeds| session.infer("predict", &feeds).expect_err("a refusal");
    let feeds = |name: &str, tensor: Tensor| BTreeMap::from([(name.to_owned(), tensor)]);
    let good = f32s(&[2, 4], vec![0.0; 8]);
    assert_eq!(
        session
            .infer("guess", &feeds("x", good.clone()))
            .expect_err("no such entry")
            .to_string(),
        "the program has no entry `guess`; it has `predict`"
    );
    assert_eq!(
        refuse(Feeds::new()),
        RunError::MissingInput { input: "x".into() }
    );
    let mut extra = feeds("x", good.clone());
    extra.insert("z".into(), good);
    assert_eq!(
        refuse(extra).to_string(),
        "`z` is given but is not an input of the program; it has `x`, `y`"
    );
    assert_eq!(
        refuse(feeds("x", f32s(&[2, 5], vec![0.0; 10]))).to_string(),
        "input `x` has shape [2, 5] where the program declares [rows, 4]"
    );
    assert_eq!(
        refuse(feeds("x", f32s(&[8], vec![0.0; 8]))).to_string(),
        "input `x` has shape [8] where the program declares [rows, 4]"
    );
    assert_eq!(
        refuse(feeds("x", i32s(&[2, 4], vec![0; 8]))).to_string(),
        "input `x` is int32 where the program declares float32"
    );
}

#[test]
fn a_number_outside_a_table_names_node_number_and_place() {
    let mut builder = Builder::new();
    let ids = builder.input("ids", DType::Int32, by_row(&[2]));
    let table = builder.parameter("table", &[5, 3], Initializer::Normal(1.0));
    let rows = builder.node(Node::Gather(GatherNode {
        table,
        indices: ids,
    }));
    builder.entry("rows", &[("rows", rows)]);
    let session = session(&builder.compile(), 2, 1);
    let mut values = vec![4; 2000];
    let infer = |values: &[i32]| {
        let feeds = BTreeMap::from([(
            "ids".to_owned(),
            i32s(&[values.len() / 2, 2], values.to_vec()),
        )]);
        session.infer("rows", &feeds)
    };
    assert_eq!(
        infer(&values).expect("all inside")[0].1.shape(),
        [1000, 2, 3]
    );
    for (number, place) in [(5, 1501), (-1, 300), (i32::MIN, 0)] {
        values[place] = number;
        let found = infer(&values).expect_err("outside");
        assert_eq!(
            found,
            RunError::IndexOutOfRange {
                node: 2,
                number,
                place,
                size: 5
            }
        );
        assert_eq!(
            found.to_string(),
            format!("node 2: number {number} at place {place} is outside 0..5")
        );
    }
}

#[test]
fn rows_that_mix_run_as_one_piece_up_to_the_maximum() {
    let mut builder = Builder::new();
    builder.graph.symbols[0].maximum = 300;
    let x = builder.input("x", DType::Float32, by_row(&[2]));
    let mean = builder.reduce(Reduction::Mean, x, &[0], true);
    let centred = builder.binary(BinaryOperation::Subtract, x, mean);
    builder.entry("centred", &[("centred", centred), ("mean", mean)]);
    let session = session(&builder.compile(), 2, 1);
    let run = |rows: usize| {
        let feeds = BTreeMap::from([("x".to_owned(), f32s(&[rows, 2], numbers(rows * 2, 4)))]);
        session.infer("centred", &feeds)
    };
    let found = run(300).expect("at the maximum");
    assert_eq!(found[1].1.shape(), [1, 2]);
    let sum: f32 = found[0].1.to_f32().iter().sum();
    assert!(sum.abs() < 1e-3, "{sum}");
    assert_eq!(
        run(301).expect_err("over the maximum").to_string(),
        "`rows` is 301, over its maximum of 300; give less at a time"
    );
}

#[test]
fn results_without_rows_and_results_that_are_inputs() {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[2]));
    let ids = builder.input("ids", DType::Int32, by_row(&[]));
    let weight = builder.parameter("weight", &[2, 3], Initializer::Normal(1.0));
    let turned = builder.node(Node::Transpose(TransposeNode {
        operand: weight,
        permutation: vec![1, 0],
    }));
    let seven = builder.number(7.0);
    let twice = builder.add(turned, turned);
    let product = builder.matmul(x, weight);
    builder.entry(
        "all",
        &[
            ("x", x),
            ("again", x),
            ("ids", ids),
            ("weight", weight),
            ("turned", turned),
            ("twice", twice),
            ("seven", seven),
            ("product", product),
        ],
    );
    builder.entry("alone", &[("twice", twice)]);
    let session = session(&builder.compile(), 2, 1);
    let weights = session.weights()["weight"].to_f32();
    for rows in [0, 1, 300] {
        let values = numbers(rows * 2, 3);
        let numbers: Vec<i32> = (0..rows as i32).collect();
        let feeds = BTreeMap::from([
            ("x".to_owned(), f32s(&[rows, 2], values.clone())),
            ("ids".to_owned(), i32s(&[rows], numbers.clone())),
        ]);
        let found: BTreeMap<String, Tensor> = session
            .infer("all", &feeds)
            .expect("results")
            .into_iter()
            .collect();
        assert_eq!(found["x"], feeds["x"]);
        assert_eq!(found["again"], feeds["x"]);
        assert_eq!(found["ids"].as_i32(), Some(numbers.as_slice()));
        assert_eq!(found["weight"].to_f32(), weights);
        assert_eq!(found["turned"].shape(), [3, 2]);
        assert_eq!(found["turned"].to_f32()[1], weights[3]);
        assert_eq!(found["twice"].to_f32()[1], 2.0 * weights[3]);
        assert_eq!(
            (found["seven"].shape(), found["seven"].to_f32()),
            (&[][..], vec![7.0])
        );
        assert_eq!(found["product"].shape(), [rows, 3]);
    }
    let alone = session
        .infer("alone", &Feeds::new())
        .expect("nothing to feed");
    assert_eq!(alone[0].1.to_f32()[1], 2.0 * weights[3]);
}

#[test]
fn two_symbols_and_a_table_that_is_fed() {
    // Attention of each row over a memory that all rows share.
    let mut builder = Builder::new();
    builder.graph.symbols.push(Symbol {
        name: "slots".into(),
        maximum: 8,
    });
    let query = builder.input("query", DType::Float32, by_row(&[4]));
    let memory = builder.input(
        "memory",
        DType::Float32,
        vec![Extent::Symbol(1), Extent::Fixed(4)],
    );
    let keys = builder.node(Node::Transpose(TransposeNode {
        operand: memory,
        permutation: vec![1, 0],
    }));
    let scores = builder.matmul(query, keys);
    let shares = builder.node(Node::Softmax(SoftmaxNode {
        operand: scores,
        axis: 1,
        logarithm: false,
    }));
    let read = builder.matmul(shares, memory);
    builder.entry("read", &[("read", read), ("shares", shares)]);
    let session = session(&builder.compile(), 2, 1);
    let feeds = |rows: usize, slots: usize| {
        BTreeMap::from([
            ("query".to_owned(), f32s(&[rows, 4], numbers(rows * 4, 1))),
            (
                "memory".to_owned(),
                f32s(&[slots, 4], numbers(slots * 4, 2)),
            ),
        ])
    };
    let whole = session.infer("read", &feeds(500, 7)).expect("results");
    assert_eq!(
        (whole[0].1.shape(), whole[1].1.shape()),
        (&[500, 4][..], &[500, 7][..])
    );
    let first = session.infer("read", &feeds(1, 7)).expect("results");
    assert_eq!(bits(&first[0].1), bits(&whole[0].1)[..4]);
    assert_eq!(
        session
            .infer("read", &feeds(3, 9))
            .expect_err("over the maximum")
            .to_string(),
        "`slots` is 9, over its maximum of 8; give less at a time"
    );
    let mut differ = feeds(3, 2);
    differ.insert("query".into(), f32s(&[3, 4], vec![0.0; 12]));
    assert!(session.infer("read", &differ).is_ok());
}

#[test]
fn inputs_must_agree_on_a_symbol() {
    let mut builder = Builder::new();
    let left = builder.input("left", DType::Float32, by_row(&[]));
    let right = builder.input("right", DType::Float32, by_row(&[]));
    let sum = builder.add(left, right);
    builder.entry("sum", &[("sum", sum)]);
    let session = session(&builder.compile(), 1, 1);
    let feeds = BTreeMap::from([
        ("left".to_owned(), f32s(&[3], vec![0.0; 3])),
        ("right".to_owned(), f32s(&[4], vec![0.0; 4])),
    ]);
    assert_eq!(
        session
            .infer("sum", &feeds)
            .expect_err("they differ")
            .to_string(),
        "input `right` says that `rows` is 4, an input before it says 3"
    );
}

#[test]
fn a_tensor_has_as_many_values_as_its_shape() {
    assert_eq!(
        Tensor::from_f32(vec![2, 3], vec![0.0; 5])
            .expect_err("too few")
            .to_string(),
        "a tensor of shape [2, 3] has another number of values than the 5 given"
    );
    assert!(Tensor::from_i32(vec![usize::MAX, 2], vec![]).is_err());
    assert_eq!(
        Tensor::from_i32(vec![], vec![5])
            .expect("one number")
            .rows(),
        1
    );
}
