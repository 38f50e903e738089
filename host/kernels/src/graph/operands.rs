//! What a node refers to.

use super::{Node, NodeId};

impl Node {
    /// The nodes that this one refers to, each with the name of the field that does, in the
    /// order in which they are declared.
    pub fn operands(&self) -> Vec<(&'static str, NodeId)> {
        match self {
            Node::Input(_) | Node::Parameter(_) | Node::F32Constant(_) | Node::I32Constant(_) => {
                Vec::new()
            }
            Node::Unary(node) => vec![("operand", node.operand)],
            Node::Binary(node) => vec![("left", node.left), ("right", node.right)],
            Node::Compare(node) => vec![("left", node.left), ("right", node.right)],
            Node::Select(node) => vec![
                ("condition", node.condition),
                ("on-true", node.on_true),
                ("on-false", node.on_false),
            ],
            Node::Cast(node) => vec![("operand", node.operand)],
            Node::Clamp(node) => vec![("operand", node.operand)],
            Node::Reshape(node) => vec![("operand", node.operand)],
            Node::Transpose(node) => vec![("operand", node.operand)],
            Node::Broadcast(node) => vec![("operand", node.operand)],
            Node::Slice(node) => vec![("operand", node.operand)],
            Node::Concatenate(node) => node.operands.iter().map(|id| ("operands", *id)).collect(),
            Node::Reduce(node) => vec![("operand", node.operand)],
            Node::Argmax(node) => vec![("operand", node.operand)],
            Node::Softmax(node) => vec![("operand", node.operand)],
            Node::Matmul(node) => vec![("left", node.left), ("right", node.right)],
            Node::Gather(node) => vec![("table", node.table), ("indices", node.indices)],
            Node::OneHot(node) => vec![("indices", node.indices)],
            Node::Dropout(node) => vec![("operand", node.operand)],
            Node::LayerNorm(node) => vec![
                ("operand", node.operand),
                ("scale", node.scale),
                ("offset", node.offset),
            ],
            Node::RmsNorm(node) => vec![("operand", node.operand), ("scale", node.scale)],
            Node::Attention(node) => {
                let given = [
                    ("query", node.query),
                    ("key", node.key),
                    ("value", node.value),
                ];
                let mask = node.mask.map(|mask| ("mask", mask));
                given.into_iter().chain(mask).collect()
            }
            Node::Pad(node) => vec![("operand", node.operand)],
            Node::CumulativeSum(node) => vec![("operand", node.operand)],
            Node::TopK(node) => vec![("operand", node.operand)],
            Node::TakeAlong(node) => vec![("operand", node.operand), ("indices", node.indices)],
            Node::ScatterAdd(node) => vec![("indices", node.indices), ("updates", node.updates)],
            Node::Convolution(node) => vec![("operand", node.operand), ("kernel", node.kernel)],
            Node::Pool(node) => vec![("operand", node.operand)],
            Node::BatchNorm(node) => {
                let given = [
                    ("operand", node.operand),
                    ("scale", node.scale),
                    ("offset", node.offset),
                ];
                let statistics = node
                    .statistics
                    .map(|found| [("statistics", found.mean), ("statistics", found.variance)]);
                given
                    .into_iter()
                    .chain(statistics.into_iter().flatten())
                    .collect()
            }
            Node::GroupNorm(node) => vec![
                ("operand", node.operand),
                ("scale", node.scale),
                ("offset", node.offset),
            ],
            Node::Dequantise(node) => {
                let given = [("codes", node.codes), ("scale", node.scale)];
                given
                    .into_iter()
                    .chain(node.zero.map(|zero| ("zero", zero)))
                    .collect()
            }
            Node::CrossEntropy(node) => vec![("logits", node.logits), ("labels", node.labels)],
            Node::BinaryCrossEntropy(node) => {
                vec![("logits", node.logits), ("targets", node.targets)]
            }
            Node::SquaredError(node) => {
                vec![("predictions", node.predictions), ("targets", node.targets)]
            }
            Node::Huber(node) => {
                vec![("predictions", node.predictions), ("targets", node.targets)]
            }
        }
    }
}
