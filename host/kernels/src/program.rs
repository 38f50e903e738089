//! A graph that was checked, differentiated and priced.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::caps::Caps;
use crate::check::{self, Type};
use crate::graph::{DType, Extent, Graph, Node, Optimizer, Shape};
use crate::ir::{self, Ir, Lowered, ValueId};
use crate::plan::{self, Place, Plan, Region, Request, SharedLayout, aligned};
use crate::shape;

/// Rows of one piece of work in inference.
pub(crate) const PIECE_ROWS: usize = 128;

/// The largest number of shards of a batch, so that gradients of a large batch stay few.
const SHARDS: usize = 32;

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
    digest: [u8; 32],
    costs: Vec<Cost>,
    parameters: Vec<ParameterInfo>,
    pub(crate) ir: Ir,
    pub(crate) layout: Layout,
    pub(crate) inputs: Vec<InputInfo>,
    pub(crate) entries: Vec<Task>,
    pub(crate) training: Option<Training>,
    /// What inference computes once for as long as the weights stay.
    pub(crate) shared: Shared,
    plans: RwLock<Plans>,
}

/// Plans by what they compute and the values of the symbols.
type Plans = HashMap<(Which, Vec<usize>), Arc<Plan>>;

/// Where parameters and literals lie in their regions.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// The offset of each parameter; trainable ones come first.
    pub(crate) parameters: Vec<usize>,
    /// Elements of all parameters, and of the trainable ones.
    pub(crate) weights: usize,
    pub(crate) trainable: usize,
    literal_offsets: Vec<usize>,
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

/// Values that are wanted together.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) results: Vec<Wanted>,
    /// The inputs that it needs, by index, in order.
    pub(crate) inputs: Vec<u32>,
    /// The symbol along which it may be cut into pieces.
    pub(crate) rows: Option<u32>,
}

/// A value that is wanted.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) value: ValueId,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
}

/// What depends on parameters alone.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) layout: SharedLayout,
    pub(crate) plan: Plan,
}

/// What training computes.
#[derive(Debug)]
pub(crate) struct Training {
    /// The losses, and the weights of the rows where there are any, without dropout.
    pub(crate) evaluation: Task,
    /// The same with dropout.
    step: Vec<ValueId>,
    /// The gradient of each trainable parameter, by index of the parameter, where the loss
    /// depends on it.
    gradients: Vec<(usize, ValueId)>,
    /// The symbol that counts rows.
    pub(crate) rows: u32,
    pub(crate) shared: Shared,
}

impl Training {
    /// The evaluation as if it could be cut along the rows: for feeds of which each batch takes
    /// its share.
    pub(crate) fn evaluation_by_batch(&self) -> Task {
        Task {
            name: self.evaluation.name.clone(),
            results: Vec::new(),
            inputs: self.evaluation.inputs.clone(),
            rows: Some(self.rows),
        }
    }
}

/// Which of its plans a program is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Which {
    Entry(usize),
    Evaluation,
    Step,
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
        let (parameters, layout) = lay_out(&graph, &lowered);
        let mut program = Program {
            digest: digest(&graph),
            costs: Vec::new(),
            inputs: inputs(&graph, &lowered),
            entries: Vec::new(),
            training: None,
            shared: Shared::default(),
            plans: RwLock::default(),
            graph,
            parameters,
            ir,
            layout,
        };
        program.entries = (0..program.graph.entries.len())
            .map(|index| program.entry(index, &lowered, &types))
            .collect::<Result<_, _>>()?;
        program.training = program.training(&lowered, &types)?;
        let evaluated = program.training.iter().map(|training| &training.evaluation);
        let tasks = program.entries.iter().chain(evaluated);
        let roots: Vec<ValueId> = tasks
            .flat_map(|task| task.results.iter().map(|result| result.value))
            .collect();
        program.shared = program.share(&roots);
        program.costs = program.price(caps)?;
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

    fn make_plan(&self, which: Which, symbols: &[usize]) -> Plan {
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
            (Which::Evaluation | Which::Step, None) => (Vec::new(), &self.shared, None),
        };
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

    fn entry(&self, index: usize, lowered: &Lowered, types: &[Type]) -> Result<Task, Diagnostic> {
        let entry = &self.graph.entries[index];
        let results = entry
            .outputs
            .iter()
            .map(|output| wanted(output.name.clone(), output.node, &lowered.inference, types))
            .collect();
        self.task(entry.name.clone(), results)
    }

    /// Finds out what a task needs and whether it may be cut.
    fn task(&self, name: String, results: Vec<Wanted>) -> Result<Task, Diagnostic> {
        let roots: Vec<ValueId> = results.iter().map(|result| result.value).collect();
        let live = self.ir.reached_from(&roots);
        let mut needed = vec![false; self.inputs.len()];
        let mut named = vec![false; self.graph.symbols.len()];
        for (id, value) in self.ir.values.iter().enumerate() {
            if live[id] {
                if let ir::Operation::Input(index) = value.operation {
                    needed[index as usize] = true;
                }
                symbols_of(&value.shape).for_each(|symbol| named[symbol as usize] = true);
            }
        }
        let inputs: Vec<u32> = (0..needed.len())
            .filter(|index| needed[*index])
            .map(|index| index as u32)
            .collect();
        let shapes = || {
            inputs
                .iter()
                .map(|index| self.inputs[*index as usize].shape.as_slice())
        };
        for symbol in 0..named.len() as u32 {
            if named[symbol as usize]
                && !shapes().any(|shape| symbols_of(shape).any(|one| one == symbol))
            {
                return Err(Diagnostic {
                    node: None,
                    message: format!(
                        "symbol `{}` of `{name}` is an extent of none of its inputs",
                        self.graph.symbols[symbol as usize].name
                    ),
                });
            }
        }
        let rows = shapes()
            .filter_map(|shape| match shape.first() {
                Some(Extent::Symbol(symbol)) => Some(*symbol),
                _ => None,
            })
            .find(|symbol| ir::is_row_wise(&self.ir, &roots, *symbol));
        Ok(Task {
            name,
            results,
            inputs,
            rows,
        })
    }

    fn training(
        &mut self,
        lowered: &Lowered,
        types: &[Type],
    ) -> Result<Option<Training>, Diagnostic> {
        let Some(loss) = self.graph.loss.clone() else {
            return Ok(None);
        };
        let nodes: Vec<u32> = [loss.per_row].into_iter().chain(loss.weight).collect();
        let results = nodes
            .iter()
            .map(|node| wanted("loss".to_owned(), *node, &lowered.inference, types))
            .collect();
        let rows = match types[loss.per_row as usize].shape.first() {
            Some(Extent::Symbol(rows)) => *rows,
            // The check wants a symbol.
            _ => return Ok(None),
        };
        let mut evaluation = self.task("loss".to_owned(), results)?;
        let step: Vec<ValueId> = nodes
            .iter()
            .map(|node| lowered.training[*node as usize])
            .collect();
        // Training cuts along the rows of the loss or not at all.
        let row_wise = evaluation.rows == Some(rows) && ir::is_row_wise(&self.ir, &step, rows);
        evaluation.rows = row_wise.then_some(rows);
        let wanted: Vec<usize> = (0..self.parameters.len())
            .filter(|index| self.parameters[*index].trainable)
            .collect();
        let values: Vec<ValueId> = wanted
            .iter()
            .map(|index| lowered.training[self.parameters[*index].node as usize])
            .collect();
        let seeds = match step.get(1) {
            Some(weights) => *weights,
            None => self.ir.filled(1.0, vec![Extent::Symbol(rows)]),
        };
        let slopes = ir::differentiate(&mut self.ir, step[0], seeds, &values);
        let gradients: Vec<(usize, ValueId)> = wanted
            .into_iter()
            .zip(slopes)
            .filter_map(|(index, slope)| Some((index, slope?)))
            .collect();
        let roots: Vec<ValueId> = step
            .iter()
            .copied()
            .chain(gradients.iter().map(|(_, slope)| *slope))
            .collect();
        let shared = self.share(&roots);
        Ok(Some(Training {
            evaluation,
            step,
            gradients,
            rows,
            shared,
        }))
    }

    /// What everything costs with symbols at their maximum.
    fn price(&self, caps: &Caps) -> Result<Vec<Cost>, Diagnostic> {
        let largest: Vec<usize> = self
            .graph
            .symbols
            .iter()
            .map(|symbol| symbol.maximum as usize)
            .collect();
        let entries = self
            .entries
            .iter()
            .enumerate()
            .map(|(index, task)| (Which::Entry(index), task));
        let step = self
            .training
            .iter()
            .map(|training| (Which::Step, &training.evaluation));
        let mut costs = Vec::new();
        for (which, task) in entries.chain(step) {
            let cost = self.cost(which, task, &largest);
            for (what, found, cap) in [
                ("floating-point operations", cost.flops, caps.flops),
                ("bytes at the peak", cost.peak_bytes, caps.peak_bytes),
            ] {
                if found > cap {
                    return Err(Diagnostic {
                        node: None,
                        message: format!(
                            "`{}` takes {found} {what} with symbols at their maximum, over the cap of \
                             {cap}",
                            task.name
                        ),
                    });
                }
            }
            costs.push(cost);
        }
        Ok(costs)
    }

    fn cost(&self, which: Which, task: &Task, largest: &[usize]) -> Cost {
        let whole = self.make_plan(which, largest);
        let shared = match (which, &self.training) {
            (Which::Step, Some(training)) => &training.shared,
            _ => &self.shared,
        };
        // What is cut holds only pieces at a time.
        let mut piece = largest.to_vec();
        let mut pieces = 1;
        if let Some(rows) = task.rows {
            let rows = rows as usize;
            let size = if which == Which::Step {
                shard_rows(largest[rows])
            } else {
                PIECE_ROWS
            };
            piece[rows] = largest[rows].min(size);
            pieces = largest[rows].div_ceil(size);
        }
        let slab = if piece == *largest {
            whole.slab
        } else {
            self.make_plan(which, &piece).slab
        };
        let elements = |shape: &[Extent]| shape::resolve(shape, largest).iter().product::<usize>();
        let fed: usize = task
            .inputs
            .iter()
            .map(|index| elements(&self.inputs[*index as usize].shape))
            .sum();
        let results: usize = task
            .results
            .iter()
            .map(|result| elements(&result.shape))
            .sum();
        let mut held = self.layout.weights + shared.layout.elements + fed + results;
        if which == Which::Step {
            let kept = match self.graph.optimizer {
                Some(Optimizer::Adam(_)) => 3,
                _ => 2,
            };
            held = held.saturating_add((kept + pieces) * self.layout.trainable);
            held = held.saturating_add(pieces.saturating_mul(slab));
        } else {
            held = held.saturating_add(slab);
        }
        Cost {
            entry: task.name.clone(),
            flops: whole.flops.saturating_add(shared.plan.flops),
            bytes_moved: whole.bytes_moved.saturating_add(shared.plan.bytes_moved),
            peak_bytes: (held as u64).saturating_mul(4),
        }
    }
}

/// Rows of one shard of a batch: a function of the size of the batch alone, so that the order of
/// sums does not depend on the number of threads.
pub(crate) fn shard_rows(batch_rows: usize) -> usize {
    batch_rows
        .div_ceil(SHARDS)
        .max(1)
        .next_multiple_of(PIECE_ROWS)
}

fn digest(graph: &Graph) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"sandcast graph 1\n");
    // Writing plain data to a hasher does not fail.
    let _ = serde_json::to_writer(&mut hasher, graph);
    *hasher.finalize().as_bytes()
}

fn symbols_of(shape: &[Extent]) -> impl Iterator<Item = u32> {
    shape.iter().filter_map(|extent| match extent {
        Extent::Symbol(symbol) => Some(*symbol),
        Extent::Fixed(_) => None,
    })
}

fn wanted(name: String, node: u32, values: &[ValueId], types: &[Type]) -> Wanted {
    let Type { dtype, shape } = types[node as usize].clone();
    Wanted {
        name,
        value: values[node as usize],
        dtype,
        shape,
    }
}

fn inputs(graph: &Graph, lowered: &Lowered) -> Vec<InputInfo> {
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

fn lay_out(graph: &Graph, lowered: &Lowered) -> (Vec<ParameterInfo>, Layout) {
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
