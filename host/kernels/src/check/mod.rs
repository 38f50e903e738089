//! The check of a graph: one pass over its nodes that gives every node a dtype and a shape, or
//! says which node is wrong and why. Nothing is allocated in proportion to what a graph claims.

mod nodes;
mod operands;
mod windows;

use std::collections::HashSet;

use crate::caps::Caps;
use crate::graph::{DType, Extent, Graph, NodeId, Optimizer, Shape};
use crate::program::Diagnostic;
use nodes::Checker;

/// What a node gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Type {
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
}

/// Checks a graph against the rules and the caps; the types are those of its nodes, in order.
pub(crate) fn check(graph: &Graph, caps: &Caps) -> Result<Vec<Type>, Diagnostic> {
    check_symbols(graph, caps)?;
    if graph.nodes.len() > caps.nodes {
        return Err(whole(format!(
            "{} nodes, over the cap of {}",
            graph.nodes.len(),
            caps.nodes
        )));
    }
    let mut checker = Checker {
        graph,
        caps,
        types: Vec::with_capacity(graph.nodes.len()),
        input_names: HashSet::new(),
        parameter_names: HashSet::new(),
        parameter_bytes: 0,
        literal_elements: 0,
        operands: 0,
    };
    for (index, node) in graph.nodes.iter().enumerate() {
        let at = |message| Diagnostic {
            node: u32::try_from(index).ok(),
            message,
        };
        let found = checker.infer(node).map_err(at)?;
        checker.check_size(&found).map_err(at)?;
        checker.types.push(found);
    }
    check_entries(graph, caps)?;
    check_training(graph, &checker.types)?;
    Ok(checker.types)
}

fn whole(message: String) -> Diagnostic {
    Diagnostic {
        node: None,
        message,
    }
}

fn check_symbols(graph: &Graph, caps: &Caps) -> Result<(), Diagnostic> {
    if graph.symbols.len() > caps.symbols {
        return Err(whole(format!(
            "{} symbols, over the cap of {}",
            graph.symbols.len(),
            caps.symbols
        )));
    }
    let mut names = HashSet::new();
    for symbol in &graph.symbols {
        check_name(&symbol.name, "symbol", caps).map_err(whole)?;
        if !names.insert(symbol.name.as_str()) {
            return Err(whole(format!("two symbols are named `{}`", symbol.name)));
        }
        if symbol.maximum == 0 {
            return Err(whole(format!(
                "symbol `{}` has a maximum of 0",
                symbol.name
            )));
        }
    }
    Ok(())
}

fn check_name(name: &str, what: &str, caps: &Caps) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("{what} without a name"));
    }
    if name.len() > caps.name_bytes {
        return Err(format!(
            "{what} name of {} bytes, over the cap of {}",
            name.len(),
            caps.name_bytes
        ));
    }
    if name == "__metadata__" {
        return Err(format!(
            "{what} name `__metadata__` is taken by the safetensors format"
        ));
    }
    Ok(())
}

fn check_entries(graph: &Graph, caps: &Caps) -> Result<(), Diagnostic> {
    if graph.entries.len() > caps.entries {
        return Err(whole(format!(
            "{} entries, over the cap of {}",
            graph.entries.len(),
            caps.entries
        )));
    }
    let mut names = HashSet::new();
    for entry in &graph.entries {
        check_name(&entry.name, "entry", caps).map_err(whole)?;
        if entry.name == "loss" {
            return Err(whole(
                "an entry is named `loss`, which stands for one training step".into(),
            ));
        }
        if !names.insert(entry.name.as_str()) {
            return Err(whole(format!("two entries are named `{}`", entry.name)));
        }
        if entry.outputs.is_empty() {
            return Err(whole(format!("entry `{}` has no outputs", entry.name)));
        }
        if entry.outputs.len() > caps.entries {
            return Err(whole(format!(
                "entry `{}` has {} outputs, over the cap of {}",
                entry.name,
                entry.outputs.len(),
                caps.entries
            )));
        }
        let mut outputs = HashSet::new();
        for output in &entry.outputs {
            check_name(&output.name, "output", caps).map_err(whole)?;
            if !outputs.insert(output.name.as_str()) {
                return Err(whole(format!(
                    "entry `{}` has two outputs named `{}`",
                    entry.name, output.name
                )));
            }
            if output.node as usize >= graph.nodes.len() {
                return Err(whole(format!(
                    "output `{}` of entry `{}` refers to node {}, of {}",
                    output.name,
                    entry.name,
                    output.node,
                    graph.nodes.len()
                )));
            }
        }
    }
    if graph.entries.is_empty() && graph.loss.is_none() {
        return Err(whole(
            "a graph without entries and without a loss computes nothing".into(),
        ));
    }
    Ok(())
}

fn check_training(graph: &Graph, types: &[Type]) -> Result<(), Diagnostic> {
    if let Some(loss) = &graph.loss {
        let rows = per_row_type(types, loss.per_row, "loss")?;
        if let Some(weight) = loss.weight
            && per_row_type(types, weight, "weight")? != rows
        {
            return Err(Diagnostic {
                node: Some(weight),
                message: "the weight of the loss has other rows than the loss".into(),
            });
        }
    }
    let refuse = |name: &str, value: f32, rule: &str| {
        Err(whole(format!(
            "the optimizer's {name} is {value}; it must be {rule}"
        )))
    };
    let share = |value: f32| (0.0..1.0).contains(&value);
    let not_negative = |value: f32| value.is_finite() && value >= 0.0;
    match graph.optimizer {
        Some(Optimizer::Sgd(sgd)) => {
            if !share(sgd.momentum) {
                return refuse("momentum", sgd.momentum, "at least 0 and below 1");
            }
            if !not_negative(sgd.weight_decay) {
                return refuse("weight decay", sgd.weight_decay, "finite and not negative");
            }
        }
        Some(Optimizer::Adam(adam)) => {
            for (name, value) in [("beta1", adam.beta1), ("beta2", adam.beta2)] {
                if !share(value) {
                    return refuse(name, value, "at least 0 and below 1");
                }
            }
            if !(adam.epsilon.is_finite() && adam.epsilon > 0.0) {
                return refuse("epsilon", adam.epsilon, "finite and above 0");
            }
            if !not_negative(adam.weight_decay) {
                return refuse("weight decay", adam.weight_decay, "finite and not negative");
            }
        }
        None => {}
    }
    Ok(())
}

fn per_row_type(types: &[Type], node: NodeId, what: &str) -> Result<Extent, Diagnostic> {
    let Some(found) = types.get(node as usize) else {
        return Err(whole(format!(
            "the {what} refers to node {node}, of {}",
            types.len()
        )));
    };
    match (found.dtype, found.shape.as_slice()) {
        (DType::Float32, [rows @ Extent::Symbol(_)]) => Ok(*rows),
        _ => Err(Diagnostic {
            node: Some(node),
            message: format!("the {what} must be a float32 node of shape [rows], rows a symbol"),
        }),
    }
}
