//! Where parameters and literals lie, and what inputs were declared.

use super::ParameterInfo;
use crate::graph::{DType, Graph, Node, Shape};
use crate::ir::Lowered;
use crate::plan::aligned;

/// Where parameters and literals lie in their regions.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// The offset of each parameter; trainable ones come first.
    pub(crate) parameters: Vec<usize>,
    /// Elements of all parameters, and of the trainable ones.
    pub(crate) weights: usize,
    pub(crate) trainable: usize,
    pub(crate) literal_offsets: Vec<usize>,
    /// All literals, int32 ones by their bits.
    pub(crate) literals: Vec<f32>,
}

/// An input as it was declared.
#[derive(Debug)]
pub(crate) struct InputInfo {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
}

/// The inputs in the order of the graph.
pub(super) fn inputs(graph: &Graph, lowered: &Lowered) -> Vec<InputInfo> {
    let inputs = lowered
        .inputs
        .iter()
        .filter_map(|node| match &graph.nodes[*node as usize] {
            Node::Input(input) => Some(InputInfo {
                name: input.name.clone(),
                dtype: input.dtype,
                shape: input.shape.clone(),
            }),
            _ => None,
        });
    inputs.collect()
}

/// Gives every parameter and literal its place.
pub(super) fn lay_out(graph: &Graph, lowered: &Lowered) -> (Vec<ParameterInfo>, Layout) {
    let mut parameters = Vec::new();
    for node in &lowered.parameters {
        if let Node::Parameter(parameter) = &graph.nodes[*node as usize] {
            parameters.push(ParameterInfo {
                node: *node,
                name: parameter.name.clone(),
                shape: parameter
                    .shape
                    .iter()
                    .map(|extent| *extent as usize)
                    .collect(),
                trainable: parameter.trainable,
            });
        }
    }
    let mut layout = Layout {
        parameters: vec![0; parameters.len()],
        ..Layout::default()
    };
    for trainable in [true, false] {
        for (parameter, offset) in parameters.iter().zip(&mut layout.parameters) {
            if parameter.trainable == trainable {
                *offset = layout.weights;
                layout.weights += aligned(parameter.elements());
            }
        }
        if trainable {
            layout.trainable = layout.weights;
        }
    }
    for node in &lowered.literals {
        layout.literal_offsets.push(layout.literals.len());
        match &graph.nodes[*node as usize] {
            Node::F32Constant(literal) => layout.literals.extend(&literal.values),
            Node::I32Constant(literal) => {
                let bits = literal
                    .values
                    .iter()
                    .map(|value| f32::from_bits(*value as u32));
                layout.literals.extend(bits);
            }
            _ => {}
        }
        layout.literals.resize(aligned(layout.literals.len()), 0.0);
    }
    (parameters, layout)
}
