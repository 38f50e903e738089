//! A graph that was checked, differentiated and priced.

mod cost;
mod layout;
mod tasks;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use crate::caps::Caps;
use crate::check::{self, Type};
use crate::graph::Graph;
use crate::ir::{self, Ir, ValueId};
use crate::plan::{self, Place, Plan, Region, Request, SharedLayout};

pub use cost::RunPrice;

pub(crate) use layout::{InputInfo, Layout};
pub(crate) use tasks::{Generating, Task, Training};

/// Rows of one piece of work in inference.
pub(crate) const PIECE_ROWS: usize = 128;

/// The largest number of plans that a program keeps.
const KEPT_PLANS: usize = 1024;

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
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

/// What generating costs at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationCost {
    /// Floating-point operations of one step: what can happen between two looks at a
    /// cancellation.
    pub flops_of_step: u64,
    /// Bytes held at the peak, beside the weights: the keys and values that are kept, and what
    /// lies between.
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

impl ParameterInfo {
    /// Numbers in it.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A graph that was checked, differentiated and priced. Sessions share it.
#[derive(Debug)]
pub struct Program {
    graph: Graph,
    /// What each node gives.
    pub(crate) types: Vec<Type>,
    digest: [u8; 32],
    costs: Vec<Cost>,
    parameters: Vec<ParameterInfo>,
    pub(crate) ir: Ir,
    pub(crate) layout: Layout,
    pub(crate) inputs: Vec<InputInfo>,
    pub(crate) entries: Vec<Task>,
    pub(crate) training: Option<Training>,
    pub(crate) generating: Option<Generating>,
    /// What inference computes once for as long as the weights stay.
    pub(crate) shared: Shared,
    plans: RwLock<Plans>,
}

/// Plans by what they compute and the values of the symbols.
type Plans = HashMap<(Which, Vec<usize>), Arc<Plan>>;

/// What depends on parameters alone.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) layout: SharedLayout,
    pub(crate) plan: Plan,
}

/// Which of its plans a program is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Which {
    Entry(usize),
    Evaluation,
    Step,
    Generation,
}

impl Program {
    /// Checks a graph and prepares it for running.
    ///
    /// # Errors
    /// When the graph breaks a rule or a cap; the diagnostic names the node.
    pub fn compile(graph: Graph, caps: &Caps) -> Result<Program, Diagnostic> {
        let types = check::check(&graph, caps)?;
        let mut ir = Ir::default();
        let lowered = ir::lower(&graph, &types, &mut ir);
        let (parameters, layout) = layout::lay_out(&graph, &lowered);
        let mut program = Program {
            digest: digest(&graph),
            costs: Vec::new(),
            inputs: layout::inputs(&graph, &lowered),
            entries: Vec::new(),
            training: None,
            generating: None,
            shared: Shared::default(),
            plans: RwLock::default(),
            graph,
            types: Vec::new(),
            parameters,
            ir,
            layout,
        };
        program.entries = (0..program.graph.entries.len())
            .map(|index| program.entry(index, &lowered, &types))
            .collect::<Result<_, _>>()?;
        program.training = program.training(&lowered, &types)?;
        program.generating = program.generating(&lowered, &types)?;
        let evaluated = program.training.iter().map(|training| &training.evaluation);
        let generating = program.generating.iter().map(|generating| &generating.task);
        let tasks = program.entries.iter().chain(evaluated).chain(generating);
        let roots: Vec<ValueId> = tasks
            .flat_map(|task| task.results.iter().map(|result| result.value))
            .collect();
        program.shared = program.share(&roots);
        program.costs = program.price(caps)?;
        program.types = types;
        Ok(program)
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
        self.parameters
            .iter()
            .map(|parameter| parameter.elements() as u64)
            .sum()
    }

    /// The plan for these values of the symbols.
    pub(crate) fn plan(&self, which: Which, symbols: &[usize]) -> Arc<Plan> {
        let key = (which, symbols.to_vec());
        let plans = self.plans.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plans.get(&key) {
            return Arc::clone(plan);
        }
        drop(plans);
        let plan = Arc::new(self.make_plan(which, symbols));
        let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
        if plans.len() >= KEPT_PLANS {
            plans.clear();
        }
        plans.insert(key, Arc::clone(&plan));
        plan
    }

    pub(crate) fn make_plan(&self, which: Which, symbols: &[usize]) -> Plan {
        let output = |(index, value): (usize, ValueId)| {
            (
                value,
                Place {
                    region: Region::Output(index as u32),
                    offset: 0,
                },
            )
        };
        let of_task = |task: &Task| {
            task.results
                .iter()
                .map(|result| result.value)
                .enumerate()
                .map(output)
                .collect()
        };
        if let (Which::Generation, Some(generating)) = (which, &self.generating) {
            let outputs = of_task(&generating.task);
            return self.build(symbols, outputs, &self.shared, Some(generating.rows));
        }
        let (outputs, shared, rows) = match (which, &self.training) {
            (Which::Entry(index), _) => {
                let task = &self.entries[index];
                (of_task(task), &self.shared, task.rows)
            }
            (Which::Evaluation, Some(training)) => (
                of_task(&training.evaluation),
                &self.shared,
                Some(training.rows),
            ),
            (Which::Step, Some(training)) => {
                let mut outputs: Vec<_> = training
                    .step
                    .iter()
                    .copied()
                    .enumerate()
                    .map(output)
                    .collect();
                outputs.extend(training.gradients.iter().map(|(parameter, value)| {
                    let offset = self.layout.parameters[*parameter];
                    (
                        *value,
                        Place {
                            region: Region::Gradients,
                            offset,
                        },
                    )
                }));
                (outputs, &training.shared, Some(training.rows))
            }
            // Sessions ask only for what there is.
            (Which::Evaluation | Which::Step, None) | (Which::Generation, _) => {
                (Vec::new(), &self.shared, None)
            }
        };
        self.build(symbols, outputs, shared, rows)
    }

    fn build(
        &self,
        symbols: &[usize],
        outputs: Vec<(ValueId, Place)>,
        shared: &Shared,
        rows: Option<u32>,
    ) -> Plan {
        plan::build(&Request {
            ir: &self.ir,
            symbols,
            outputs,
            packs: Vec::new(),
            shared: &shared.layout,
            parameters: &self.layout.parameters,
            literals: &self.layout.literal_offsets,
            rows,
        })
    }

    fn share(&self, roots: &[ValueId]) -> Shared {
        let layout = plan::shared_layout(&self.ir, roots);
        let Layout {
            parameters,
            literal_offsets,
            ..
        } = &self.layout;
        let plan = plan::shared_plan(&self.ir, &layout, parameters, literal_offsets);
        Shared { layout, plan }
    }
}

fn digest(graph: &Graph) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"sandcast graph 1\n");
    // Writing plain data to a hasher does not fail.
    let _ = serde_json::to_writer(&mut hasher, graph);
    *hasher.finalize().as_bytes()
}
