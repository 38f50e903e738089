//! A graph that was checked, differentiated and priced.

use crate::caps::Caps;
use crate::graph::Graph;

/// Why a graph was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", node.map(|node| format!("node {node}: ")).unwrap_or_default())]
pub struct Diagnostic {
    /// The node at fault; none where the graph as a whole is.
    pub node: Option<u32>,
    /// What is wrong with it.
    pub message: String,
}

/// What one run of an entry costs at the maximum of every symbol; the entry `loss` is one
/// training step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The name of the entry.
    pub entry: String,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written by kernels.
    pub bytes_moved: u64,
    /// Bytes held at the peak: weights, what training keeps beside them, feeds, results, and
    /// what lies between.
    pub peak_bytes: u64,
}

/// A parameter of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// The node.
    pub node: u32,
    /// The name under which it is stored.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Whether training changes it.
    pub trainable: bool,
}

/// A graph that was checked, differentiated and priced. Sessions share it.
#[derive(Debug)]
pub struct Program {
    graph: Graph,
    digest: [u8; 32],
    costs: Vec<Cost>,
    parameters: Vec<ParameterInfo>,
}

impl Program {
    /// Checks a graph and prepares it for running.
    ///
    /// # Errors
    /// When the graph breaks a rule or a cap; the diagnostic names the node.
    pub fn compile(graph: Graph, caps: &Caps) -> Result<Program, Diagnostic> {
        let _ = (graph, caps);
        unimplemented!()
    }

    /// What each entry costs, in the order of the graph, then `loss` where there is one.
    pub fn costs(&self) -> &[Cost] {
        &self.costs
    }

    /// blake3 of the graph.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The graph as it was declared.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The parameters, in the order of the graph.
    pub fn parameters(&self) -> &[ParameterInfo] {
        &self.parameters
    }

    /// Numbers in all parameters together.
    pub fn parameter_count(&self) -> u64 {
        self.parameters.iter().map(|one| one.shape.iter().map(|extent| *extent as u64).product::<u64>()).sum()
    }
}
