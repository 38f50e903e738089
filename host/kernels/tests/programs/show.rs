//! Programs written down: their texts as snapshots, and what a picture must keep to.

use std::collections::BTreeMap;

use crate::support::*;
use sandcast_kernels::graph::*;
use sandcast_kernels::show::{ShowError, Showing, Stage};
use sandcast_kernels::{Caps, Program};

/// A small classifier with everything in it that a listing shows in a way of its own.
fn small() -> Program {
    let mut builder = Builder::new();
    let x = builder.input("x", DType::Float32, by_row(&[6]));
    let color = builder.input("color", DType::Int32, by_row(&[]));
    let y = builder.input("y", DType::Int32, by_row(&[]));
    let table = builder.parameter("colors", &[4, 2], Initializer::Normal(0.1));
    let embedded = builder.node(Node::Gather(GatherNode {
        table,
        indices: color,
    }));
    let features = builder.node(Node::Concatenate(ConcatenateNode {
        operands: vec![x, embedded],
        axis: 1,
    }));
    let missing = builder.unary(UnaryOperation::IsNan, features);
    let zero = builder.number(0.0);
    let filled = builder.node(Node::Select(SelectNode {
        condition: missing,
        on_true: zero,
        on_false: features,
    }));
    let hidden = builder.dense("hidden", filled, [8, 32], Some(UnaryOperation::Relu));
    let hidden = builder.dropout(hidden, 0.1);
    let wide = builder.dense("wide", hidden, [32, 32], Some(UnaryOperation::Gelu));
    let sum = builder.add(wide, hidden);
    let logits = builder.dense("out", sum, [32, 3], None);
    let probabilities = builder.node(Node::Softmax(SoftmaxNode {
        operand: logits,
        axis: 1,
        logarithm: false,
    }));
    let per_row = builder.node(Node::CrossEntropy(CrossEntropyNode { logits, labels: y }));
    builder.entry("predict", &[("probabilities", probabilities)]);
    builder.entry("embed", &[("features", wide), ("logits", logits)]);
    builder.loss(per_row, None);
    builder.graph.optimizer = Some(adam());
    Program::compile(builder.graph, &Caps::default()).expect("a graph that compiles")
}

fn showing(stage: Stage, entry: Option<&str>, rows: Option<usize>) -> Showing {
    Showing {
        stage,
        entry: entry.map(str::to_owned),
        extents: rows
            .map(|rows| ("rows".to_owned(), rows))
            .into_iter()
            .collect(),
    }
}

fn text(stage: Stage, entry: Option<&str>, rows: Option<usize>) -> String {
    let listing = small().show(&showing(stage, entry, rows));
    listing.expect("a listing").to_string()
}

#[test]
fn a_graph_is_written_as_it_was_declared() {
    insta::assert_snapshot!("graph", text(Stage::Graph, None, None));
    insta::assert_snapshot!("graph_of_an_entry", text(Stage::Graph, Some("embed"), None));
}

#[test]
fn values_are_those_that_run() {
    insta::assert_snapshot!("values", text(Stage::Values, Some("predict"), None));
    insta::assert_snapshot!("values_of_a_step", text(Stage::Values, Some("loss"), None));
}

#[test]
fn a_plan_says_what_is_fused_and_where_it_lies() {
    insta::assert_snapshot!("plan", text(Stage::Plan, Some("predict"), Some(1000)));
    insta::assert_snapshot!("plan_of_one_row", text(Stage::Plan, Some("embed"), Some(1)));
    insta::assert_snapshot!("plan_of_a_step", text(Stage::Plan, Some("loss"), Some(64)));
}

#[test]
fn a_listing_is_the_same_each_time_and_at_any_stage_has_every_entry() {
    for stage in [Stage::Graph, Stage::Values, Stage::Plan] {
        let once = text(stage, None, None);
        assert_eq!(once, text(stage, None, None));
        for name in ["\"predict\"", "\"embed\"", "loss"] {
            assert!(once.contains(name), "{stage:?} lacks {name}: {once}");
        }
    }
}

#[test]
fn json_has_what_the_text_has() {
    let listing = small()
        .show(&showing(Stage::Plan, Some("predict"), Some(7)))
        .expect("a listing");
    let json = serde_json::to_value(&listing).expect("plain data");
    assert_eq!(json["stage"], "plan");
    assert_eq!(json["symbols"][0]["value"], 7);
    let function = json["functions"]
        .as_array()
        .expect("functions")
        .last()
        .expect("the entry");
    assert_eq!(function["name"], "predict");
    assert_eq!(
        function["cost"]["flops"].as_u64(),
        listing
            .functions
            .last()
            .and_then(|one| Some(one.cost.as_ref()?.flops))
    );
    let products = function["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .filter(|line| line["kind"] == "product");
    assert_eq!(products.count(), 3);
    assert_eq!(function["returns"][0]["name"], "probabilities");
}

#[test]
fn what_is_not_there_is_named_with_what_is() {
    let program = small();
    let error = program.show(&showing(Stage::Graph, Some("prodict"), None));
    let error = error.expect_err("no such entry").to_string();
    insta::assert_snapshot!(
        error,
        @"the program has no entry `prodict`; it has `predict`, `embed`, `loss`"
    );
    let extents = BTreeMap::from([("columns".to_owned(), 3)]);
    let error = program.costs_at(&extents).expect_err("no such symbol");
    insta::assert_snapshot!(error, @"the program has no symbol `columns`; it has `rows`");
    for given in [0, 5000] {
        let extents = BTreeMap::from([("rows".to_owned(), given)]);
        let error = program.costs_at(&extents).expect_err("out of range");
        assert_eq!(
            error,
            ShowError::WrongExtent {
                symbol: "rows".into(),
                given,
                maximum: 4096
            }
        );
    }
}

#[test]
fn costs_grow_with_the_rows_and_end_at_the_declared_ones() {
    let program = small();
    let at = |rows: usize| {
        let extents = BTreeMap::from([("rows".to_owned(), rows)]);
        program.costs_at(&extents).expect("costs")
    };
    assert_eq!(at(4096), program.costs());
    assert_eq!(
        program.costs_at(&BTreeMap::new()).expect("costs"),
        program.costs()
    );
    for (one, many) in at(1).iter().zip(at(100)) {
        assert_eq!(one.entry, many.entry);
        assert!(
            one.flops < many.flops && many.flops <= 100 * one.flops,
            "{one:?} {many:?}"
        );
        assert!(one.bytes_moved < many.bytes_moved && one.peak_bytes < many.peak_bytes);
    }
    // Three products of 8 x 32, 32 x 32 and 32 x 3, and some tens of operations an element.
    let flops = at(1)[0].flops;
    assert!((2784..2784 + 32 * 50).contains(&flops), "{flops}");
}

#[test]
fn pictures_hold_every_step_and_only_what_their_languages_allow() {
    let mut builder = Builder::new();
    let hostile = "a\"b<c>&]]>\\n\u{7}\u{202e}#`;%%{x}";
    let x = builder.input(hostile, DType::Float32, by_row(&[3]));
    let weight = builder.parameter("</svg>", &[3, 3], Initializer::Zeros);
    let product = builder.matmul(x, weight);
    builder.entry("\"];<script>", &[("--> b0_0", product)]);
    let program = Program::compile(builder.graph, &Caps::default()).expect("it compiles");
    for stage in [Stage::Graph, Stage::Values, Stage::Plan] {
        let listing = program
            .show(&showing(stage, None, None))
            .expect("a listing");
        let picture = listing.picture();
        let svg = picture.svg();
        assert!(
            !svg.contains("<script") && svg.matches("</svg>").count() == 1,
            "{svg}"
        );
        assert!(!svg.contains('\u{7}'));
        assert_eq!(
            svg.matches("<g class=").count(),
            svg.matches("<rect ").count()
        );
        let dot = picture.dot();
        for line in dot.lines().filter(|line| line.contains("label = ")) {
            let quotes = line
                .replace("\\\\", "")
                .replace("\\\"", "")
                .matches('"')
                .count();
            assert_eq!(quotes % 2, 0, "{line}");
        }
        let mermaid = picture.mermaid();
        for line in mermaid.lines().filter(|line| line.contains("[\"")) {
            assert_eq!(line.matches('"').count(), 2, "{line}");
            assert!(!line.contains("<script"), "{line}");
        }
        // The product, wherever it came from.
        for text in [&svg, &dot, &mermaid] {
            assert!(
                text.contains("matmul") || text.contains("multiply"),
                "{text}"
            );
        }
    }
}

#[test]
fn pictures_are_stable() {
    let listing = small().show(&showing(Stage::Plan, Some("predict"), None));
    let picture = listing.expect("a listing").picture();
    insta::assert_snapshot!("picture_dot", picture.dot());
    insta::assert_snapshot!("picture_mermaid", picture.mermaid());
    insta::assert_snapshot!("picture_svg", picture.svg());
}

#[test]
fn a_large_program_is_drawn_in_good_time() {
    let mut builder = Builder::new();
    let mut x = builder.input("x", DType::Float32, by_row(&[4]));
    let w = builder.parameter("w", &[4], Initializer::Ones);
    for _ in 0..1500 {
        let scaled = builder.multiply(x, w);
        x = builder.unary(UnaryOperation::Tanh, scaled);
    }
    let per_row = builder.reduce(Reduction::Sum, x, &[1], false);
    builder.entry("result", &[("result", x)]);
    builder.loss(per_row, None);
    builder.graph.optimizer = Some(adam());
    let program = Program::compile(builder.graph, &Caps::default()).expect("it compiles");
    let began = std::time::Instant::now();
    for stage in [Stage::Graph, Stage::Values, Stage::Plan] {
        let listing = program
            .show(&showing(stage, None, None))
            .expect("a listing");
        assert!(listing.picture().svg().len() > listing.functions.len());
        assert!(listing.to_string().len() > 1000);
    }
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
