//! The values that a graph became: what is differentiated, fused and planned.

use super::form::{Function, Line, LineKind, Operand, Returned};
use super::names::{numbers, quoted, typed, word};
use crate::graph::Node;
use crate::ir::{Fold, Map, Operation, Product, ValueId};
use crate::program::{Program, Task, Which};

/// Everything that a task computes.
pub(super) fn function(program: &Program, which: Which, task: &Task) -> Function {
    let wanted = wanted(program, which, task);
    let roots: Vec<ValueId> = wanted.iter().map(|(_, value)| *value).collect();
    let live = program.ir.reached_from(&roots);
    let mut places = vec![None; live.len()];
    let mut lines = Vec::new();
    for id in (0..live.len()).filter(|id| live[*id]) {
        places[id] = Some(lines.len());
        lines.push(line(program, id as ValueId, &places));
    }
    let returns = wanted.into_iter().map(|(name, value)| Returned {
        name,
        value: format!("%{value}"),
        made_by: places[value as usize],
    });
    Function {
        keyword: "func",
        name: Some(task.name.clone()),
        notes: vec![rows(program, task)],
        cost: None,
        returns: returns.collect(),
        lines,
        declares: Vec::new(),
        ends: Vec::new(),
    }
}

/// The values that a task returns, by name.
pub(super) fn wanted(program: &Program, which: Which, task: &Task) -> Vec<(String, ValueId)> {
    let results = || {
        task.results
            .iter()
            .map(|result| (result.name.clone(), result.value))
    };
    match (which, &program.training) {
        (Which::Step, Some(training)) => {
            let names = ["loss", "weight"].into_iter().map(str::to_owned);
            let losses = names.zip(training.step.iter().copied());
            let gradients = training.gradients.iter().map(|(parameter, value)| {
                let name = &program.parameters()[*parameter].name;
                (format!("gradient of {name}"), *value)
            });
            losses.chain(gradients).collect()
        }
        _ => results().collect(),
    }
}

/// What a task does with the rows, as a sentence.
pub(super) fn rows(program: &Program, task: &Task) -> String {
    match task.rows {
        Some(symbol) => format!(
            "each of `{}` by itself: may be cut into pieces",
            program.graph().symbols[symbol as usize].name
        ),
        None => "rows mix, or there are none: not cut into pieces".to_owned(),
    }
}

fn line(program: &Program, id: ValueId, places: &[Option<usize>]) -> Line {
    let value = program.ir.value(id);
    let (operation, attributes) = described(program, id);
    Line {
        result: format!("%{id}"),
        operation,
        operands: value
            .operands
            .iter()
            .map(|operand| Operand {
                text: format!("%{operand}"),
                made_by: places[*operand as usize].into_iter().collect(),
            })
            .collect(),
        attributes,
        gives: Some(typed(value.dtype, &value.shape, &program.graph().symbols)),
        note: Some(format!("node {}", program.ir.nodes[id as usize])),
        body: Vec::new(),
        kind: kind(&value.operation),
    }
}

/// What sort of thing an operation is.
pub(super) fn kind(operation: &Operation) -> LineKind {
    match operation {
        Operation::Input(_) => LineKind::Input,
        operation if operation.is_source() => LineKind::Held,
        operation if operation.is_view() => LineKind::View,
        Operation::Map(_) => LineKind::Map,
        Operation::Matmul(_) => LineKind::Product,
        _ => LineKind::Kernel,
    }
}

type Described = (String, Vec<(String, Option<String>)>);

/// A word set to something.
pub(super) fn set(word: &str, value: impl std::fmt::Display) -> (String, Option<String>) {
    (word.to_owned(), Some(value.to_string()))
}

/// The name of an operation and how it is done.
pub(super) fn described(program: &Program, id: ValueId) -> Described {
    let alone = |name: &str| (name.to_owned(), Vec::new());
    let bare = |text: String| vec![(text, None)];
    match &program.ir.value(id).operation {
        Operation::Input(index) => (
            "input".to_owned(),
            bare(quoted(&program.inputs[*index as usize].name)),
        ),
        Operation::Parameter(index) => (
            "parameter".to_owned(),
            bare(quoted(&program.parameters()[*index as usize].name)),
        ),
        Operation::Literal(index) => ("constant".to_owned(), bare(literal(program, *index))),
        Operation::Scalar(bits) => ("constant".to_owned(), bare(bits.value().to_string())),
        Operation::InverseCount(extents) => {
            let extents = crate::shape::describe(extents, &program.graph().symbols);
            ("one-over-count".to_owned(), bare(extents))
        }
        Operation::Map(map) => map_described(*map),
        Operation::Reshape => alone("reshape"),
        Operation::Transpose(permutation) => (
            "transpose".to_owned(),
            vec![set("permutation", format_args!("{permutation:?}"))],
        ),
        Operation::Broadcast => alone("broadcast"),
        Operation::Slice { axis, start } => (
            "slice".to_owned(),
            vec![set("axis", axis), set("start", start)],
        ),
        Operation::Pad { axis, before } => (
            "pad".to_owned(),
            vec![set("axis", axis), set("before", before)],
        ),
        Operation::Concatenate { axis } => ("concatenate".to_owned(), vec![set("axis", axis)]),
        Operation::Reduce { fold, axes } => (
            format!("reduce-{}", fold_name(*fold)),
            vec![set("axes", format_args!("{axes:?}"))],
        ),
        Operation::Argmax => alone("argmax"),
        Operation::Softmax { logarithm: false } => alone("softmax"),
        Operation::Softmax { logarithm: true } => alone("log-softmax"),
        Operation::Matmul(Product::Batched) => alone("matmul-batched"),
        Operation::Matmul(Product::Shared) => alone("matmul"),
        Operation::Matmul(Product::Outer) => alone("matmul-outer"),
        Operation::Matmul(Product::Grouped) => alone("matmul-grouped"),
        Operation::Matmul(Product::GroupedOuter) => alone("matmul-grouped-outer"),
        Operation::Gather => alone("gather"),
        Operation::Scatter => alone("scatter-add"),
        Operation::OneHot => alone("one-hot"),
        Operation::Normalize { epsilon } => (
            "normalize".to_owned(),
            vec![set("epsilon", epsilon.value())],
        ),
        Operation::NormalizeSlope { epsilon } => (
            "normalize-slope".to_owned(),
            vec![set("epsilon", epsilon.value())],
        ),
        Operation::CrossEntropy => alone("cross-entropy"),
        Operation::CrossEntropySlope => alone("cross-entropy-slope"),
        Operation::Window {
            axis,
            stride,
            dilation,
        } => ("window".to_owned(), windowed(*axis, *stride, *dilation)),
        Operation::Unwindow {
            axis,
            stride,
            dilation,
        } => ("unwindow".to_owned(), windowed(*axis, *stride, *dilation)),
        Operation::CumulativeSum {
            axis,
            exclusive,
            reverse,
        } => (
            "cumulative-sum".to_owned(),
            [set("axis", axis)]
                .into_iter()
                .chain(ways(*exclusive, *reverse))
                .collect(),
        ),
        Operation::TopK => alone("top-k"),
        Operation::TakeAlong => alone("take-along"),
        Operation::PutAlong => alone("put-along"),
        Operation::Unpack { bits } => ("unpack".to_owned(), vec![set("bits", bits)]),
        Operation::Attention { causal, scale } => {
            ("attention".to_owned(), attention(*causal, scale.value()))
        }
        Operation::AttentionSlope { causal, scale } => (
            "attention-slope".to_owned(),
            attention(*causal, scale.value()),
        ),
    }
}

fn windowed(axis: usize, stride: usize, dilation: usize) -> Vec<(String, Option<String>)> {
    vec![
        set("axis", axis),
        set("stride", stride),
        set("dilation", dilation),
    ]
}

/// Which way a cumulative sum goes.
pub(super) fn ways(exclusive: bool, reverse: bool) -> Vec<(String, Option<String>)> {
    let words = [("exclusive", exclusive), ("reverse", reverse)].into_iter();
    words
        .filter(|(_, holds)| *holds)
        .map(|(word, _)| (word.to_owned(), None))
        .collect()
}

/// How an attention is done.
pub(super) fn attention(causal: bool, scale: f32) -> Vec<(String, Option<String>)> {
    let causal = causal.then(|| ("causal".to_owned(), None));
    causal.into_iter().chain([set("scale", scale)]).collect()
}

/// The name of a fold.
pub(super) fn fold_name(fold: Fold) -> &'static str {
    match fold {
        Fold::Sum => "sum",
        Fold::Maximum => "maximum",
        Fold::Minimum => "minimum",
    }
}

/// The name of a map and how it is done.
pub(super) fn map_described(map: Map) -> Described {
    let alone = |name: &str| (name.to_owned(), Vec::new());
    match map {
        Map::Copy => alone("copy"),
        Map::Unary(operation) | Map::UnaryInt(operation) => alone(&word(&operation)),
        Map::GeluSlope => alone("gelu-slope"),
        Map::Binary(operation) | Map::BinaryInt(operation) => alone(&word(&operation)),
        Map::Compare(comparison) | Map::CompareInt(comparison) => alone(&word(&comparison)),
        Map::Select(_) => alone("select"),
        Map::ToInt => alone("to-i32"),
        Map::ToFloat => alone("to-f32"),
        Map::Clamp { minimum, maximum } => (
            "clamp".to_owned(),
            vec![
                set("minimum", minimum.value()),
                set("maximum", maximum.value()),
            ],
        ),
        Map::WherePositive => alone("where-positive"),
        Map::Dropout { node, rate } => (
            "dropout".to_owned(),
            vec![set("node", node), set("rate", rate.value())],
        ),
        Map::BinaryCrossEntropy => alone("binary-cross-entropy"),
        Map::Huber { delta } => ("huber".to_owned(), vec![set("delta", delta.value())]),
        Map::HuberSlope { delta } => ("huber-slope".to_owned(), vec![set("delta", delta.value())]),
    }
}

fn literal(program: &Program, index: u32) -> String {
    let literals = program
        .graph()
        .nodes
        .iter()
        .filter(|node| matches!(node, Node::F32Constant(_) | Node::I32Constant(_)));
    match literals.into_iter().nth(index as usize) {
        Some(Node::F32Constant(literal)) => numbers(&literal.values),
        Some(Node::I32Constant(literal)) => numbers(&literal.values),
        _ => String::new(),
    }
}
