//! The graph as it was declared.

use serde_json::Value as Json;

use super::form::{Function, Line, LineKind, Operand};
use super::names::{numbers, quoted, typed, word};
use crate::graph::{Graph, Node, NodeId, Optimizer};
use crate::program::Program;

/// The graph, or what an entry needs of it.
pub(super) fn function(program: &Program, entry: Option<&str>) -> Function {
    let graph = program.graph();
    let roots = roots(graph, entry);
    let live = match entry {
        Some(_) => reached(graph, &roots),
        None => vec![true; graph.nodes.len()],
    };
    let mut places = vec![0; graph.nodes.len()];
    let mut lines = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        if live[index] {
            places[index] = lines.len();
            lines.push(line(program, index, node, &places));
        }
    }
    Function {
        keyword: "program",
        name: entry.map(str::to_owned),
        notes: Vec::new(),
        cost: None,
        lines,
        returns: Vec::new(),
        declares: declares(graph, entry),
        ends: ends(graph, entry, &places),
    }
}

fn roots(graph: &Graph, entry: Option<&str>) -> Vec<NodeId> {
    let wanted = |name: &str| entry.is_none_or(|entry| entry == name);
    let entries = graph.entries.iter().filter(|entry| wanted(&entry.name));
    let outputs = entries.flat_map(|entry| entry.outputs.iter().map(|output| output.node));
    let loss = graph.loss.iter().filter(|_| wanted("loss"));
    let generation = graph.generation.iter().filter(|_| wanted("generate"));
    outputs
        .chain(loss.flat_map(|loss| [loss.per_row].into_iter().chain(loss.weight)))
        .chain(generation.flat_map(|generation| {
            [generation.tokens, generation.logits]
                .into_iter()
                .chain(generation.positions)
        }))
        .collect()
}

/// The results of entries and the loss, for a picture.
fn ends(graph: &Graph, entry: Option<&str>, places: &[usize]) -> Vec<(String, usize)> {
    let wanted = |name: &str| entry.is_none_or(|entry| entry == name);
    let mut ends = Vec::new();
    for entry in graph.entries.iter().filter(|entry| wanted(&entry.name)) {
        for output in &entry.outputs {
            let name = format!("{} of {}", quoted(&output.name), quoted(&entry.name));
            ends.push((name, places[output.node as usize]));
        }
    }
    if let Some(loss) = graph.loss.as_ref().filter(|_| wanted("loss")) {
        ends.push(("loss".to_owned(), places[loss.per_row as usize]));
        ends.extend(
            loss.weight
                .map(|weight| ("weight of the loss".to_owned(), places[weight as usize])),
        );
    }
    if let Some(generation) = graph.generation.as_ref().filter(|_| wanted("generate")) {
        ends.push(("next token".to_owned(), places[generation.logits as usize]));
    }
    ends
}

fn reached(graph: &Graph, roots: &[NodeId]) -> Vec<bool> {
    let mut live = vec![false; graph.nodes.len()];
    for root in roots {
        live[*root as usize] = true;
    }
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if live[index] {
            for (_, operand) in node.operands() {
                live[operand as usize] = true;
            }
        }
    }
    live
}

fn line(program: &Program, index: usize, node: &Node, places: &[usize]) -> Line {
    let graph = program.graph();
    let found = &program.types[index];
    let named = node.operands();
    let operands = named
        .iter()
        .map(|(_, id)| Operand {
            text: format!("%{id}"),
            made_by: vec![places[*id as usize]],
        })
        .collect();
    let (kind, operation, mut attributes) = match node {
        Node::Input(input) => (
            LineKind::Input,
            "input".to_owned(),
            vec![(quoted(&input.name), None)],
        ),
        Node::Parameter(parameter) => {
            let mut attributes = vec![
                (quoted(&parameter.name), None),
                initializer(&parameter.initializer),
            ];
            if !parameter.trainable {
                attributes.push(("frozen".to_owned(), None));
            }
            (LineKind::Held, "parameter".to_owned(), attributes)
        }
        Node::F32Constant(literal) => (
            LineKind::Held,
            "constant".to_owned(),
            vec![(numbers(&literal.values), None)],
        ),
        Node::I32Constant(literal) => (
            LineKind::Held,
            "constant".to_owned(),
            vec![(numbers(&literal.values), None)],
        ),
        node => {
            let (operation, attributes) = described(node, &named);
            (kind(node), operation, attributes)
        }
    };
    // What a type says already.
    attributes.retain(|(word, _)| !matches!(word.as_str(), "shape" | "dtype"));
    Line {
        result: format!("%{index}"),
        operation,
        operands,
        attributes,
        gives: Some(typed(found.dtype, &found.shape, &graph.symbols)),
        note: None,
        body: Vec::new(),
        kind,
    }
}

fn kind(node: &Node) -> LineKind {
    match node {
        Node::Reshape(_) | Node::Transpose(_) | Node::Broadcast(_) | Node::Slice(_) => {
            LineKind::View
        }
        Node::Unary(_)
        | Node::Binary(_)
        | Node::Compare(_)
        | Node::Select(_)
        | Node::Cast(_)
        | Node::Clamp(_)
        | Node::Dropout(_)
        | Node::BinaryCrossEntropy(_)
        | Node::SquaredError(_)
        | Node::Huber(_) => LineKind::Map,
        Node::Matmul(_) => LineKind::Product,
        _ => LineKind::Kernel,
    }
}

/// The operation of a node, and its fields that are not operands, by their names in the contract.
fn described(
    node: &Node,
    operands: &[(&'static str, NodeId)],
) -> (String, Vec<(String, Option<String>)>) {
    // Read back from text, where a float32 has its own shortest form.
    let json = serde_json::to_string(node)
        .ok()
        .and_then(|text| serde_json::from_str::<Json>(&text).ok());
    let Some((variant, Json::Object(fields))) = json.and_then(|json| match json {
        Json::Object(map) => map.into_iter().next(),
        _ => None,
    }) else {
        return ("?".to_owned(), Vec::new());
    };
    let mut operation = variant;
    let mut attributes = Vec::new();
    for (name, value) in fields {
        if operands.iter().any(|(operand, _)| *operand == name) {
            continue;
        }
        match (name.as_str(), &value) {
            ("operation" | "comparison", Json::String(word)) => operation = word.clone(),
            ("reduction", Json::String(word)) => operation = format!("reduce-{word}"),
            (_, Json::Null | Json::Bool(false)) => {}
            (_, Json::Bool(true)) => attributes.push((name, None)),
            (_, value) => attributes.push((name, Some(plain(value)))),
        }
    }
    (operation, attributes)
}

/// A field as text; the numbers of a long list only in part.
fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Array(values) => {
            let values: Vec<String> = values.iter().map(plain).collect();
            match values.as_slice() {
                [one] => format!("[{one}]"),
                values => numbers(values),
            }
        }
        value => value.to_string(),
    }
}

fn initializer(initializer: &crate::graph::Initializer) -> (String, Option<String>) {
    use crate::graph::Initializer;
    match initializer {
        Initializer::Uniform(bound) => ("uniform".to_owned(), Some(bound.to_string())),
        Initializer::Normal(deviation) => ("normal".to_owned(), Some(deviation.to_string())),
        plain => (word(plain), None),
    }
}

fn declares(graph: &Graph, entry: Option<&str>) -> Vec<String> {
    let wanted = |name: &str| entry.is_none_or(|entry| entry == name);
    let mut lines = Vec::new();
    for entry in graph.entries.iter().filter(|entry| wanted(&entry.name)) {
        let outputs: Vec<String> = entry
            .outputs
            .iter()
            .map(|output| format!("{} = %{}", quoted(&output.name), output.node))
            .collect();
        lines.push(format!(
            "entry {} returns {}",
            quoted(&entry.name),
            outputs.join(", ")
        ));
    }
    if let Some(loss) = graph.loss.as_ref().filter(|_| wanted("loss")) {
        let weight = loss
            .weight
            .map_or(String::new(), |weight| format!(", weighted by %{weight}"));
        lines.push(format!("loss %{}{weight}", loss.per_row));
    }
    if let Some(optimizer) = graph.optimizer.as_ref().filter(|_| wanted("loss")) {
        lines.push(match optimizer {
            Optimizer::Sgd(sgd) => format!(
                "optimizer sgd {{momentum = {:?}, weight-decay = {:?}}}",
                sgd.momentum, sgd.weight_decay
            ),
            Optimizer::Adam(adam) => format!(
                "optimizer adam {{beta1 = {:?}, beta2 = {:?}, epsilon = {:?}, weight-decay = {:?}{}}}",
                adam.beta1,
                adam.beta2,
                adam.epsilon,
                adam.weight_decay,
                if adam.decoupled { ", decoupled" } else { "" }
            ),
        });
    }
    if let Some(generation) = graph.generation.as_ref().filter(|_| wanted("generate")) {
        let positions = generation.positions.map_or(String::new(), |positions| {
            format!(", positions %{positions}")
        });
        lines.push(format!(
            "generate from tokens %{}{positions} by logits %{}",
            generation.tokens, generation.logits
        ));
    }
    lines
}
