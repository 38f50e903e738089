//! The check of a graph: one pass over its nodes that gives every node a dtype and a shape, or
//! says which node is wrong and why. Nothing is allocated in proportion to what a graph claims.

use std::collections::HashSet;

use crate::caps::Caps;
use crate::graph::{
    BinaryOperation, DType, Extent, Graph, Initializer, MatmulNode, Node, NodeId, Optimizer, Shape,
    UnaryOperation,
};
use crate::program::Diagnostic;
use crate::shape;

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

struct Checker<'a> {
    graph: &'a Graph,
    caps: &'a Caps,
    types: Vec<Type>,
    input_names: HashSet<&'a str>,
    parameter_names: HashSet<&'a str>,
    parameter_bytes: u64,
    literal_elements: u64,
    operands: usize,
}

type Inferred<T = Type> = Result<T, String>;

impl<'a> Checker<'a> {
    fn infer(&mut self, node: &'a Node) -> Inferred {
        match node {
            Node::Input(input) => {
                check_name(&input.name, "input", self.caps)?;
                if !self.input_names.insert(&input.name) {
                    return Err(format!("two inputs are named `{}`", input.name));
                }
                self.declared(&input.shape)?;
                Ok(Type {
                    dtype: input.dtype,
                    shape: input.shape.clone(),
                })
            }
            Node::Parameter(parameter) => {
                check_name(&parameter.name, "parameter", self.caps)?;
                if !self.parameter_names.insert(&parameter.name) {
                    return Err(format!("two parameters are named `{}`", parameter.name));
                }
                match parameter.initializer {
                    Initializer::Uniform(bound) | Initializer::Normal(bound)
                        if !(bound.is_finite() && bound >= 0.0) =>
                    {
                        return Err(format!(
                            "initial spread {bound}; it must be finite, not negative"
                        ));
                    }
                    _ => {}
                }
                let elements = self.fixed_elements(&parameter.shape)?;
                self.parameter_bytes = self
                    .parameter_bytes
                    .saturating_add(elements.saturating_mul(4));
                if self.parameter_bytes > self.caps.parameters_bytes {
                    return Err(format!(
                        "parameters of {} bytes up to here, over the cap of {}",
                        self.parameter_bytes, self.caps.parameters_bytes
                    ));
                }
                Ok(Type {
                    dtype: DType::Float32,
                    shape: fixed(&parameter.shape),
                })
            }
            Node::F32Constant(literal) => {
                self.literal(&literal.shape, literal.values.len())?;
                Ok(Type {
                    dtype: DType::Float32,
                    shape: fixed(&literal.shape),
                })
            }
            Node::I32Constant(literal) => {
                self.literal(&literal.shape, literal.values.len())?;
                Ok(Type {
                    dtype: DType::Int32,
                    shape: fixed(&literal.shape),
                })
            }
            Node::Unary(unary) => {
                use UnaryOperation::{Absolute, LogicalNot, Negate, Relu, Sign, Square};
                let operand = self.operand(unary.operand)?;
                let takes_int32 = matches!(
                    unary.operation,
                    Negate | Absolute | Square | Relu | Sign | LogicalNot
                );
                if operand.dtype == DType::Int32 && !takes_int32 {
                    return Err(format!(
                        "{:?} does not take int32; cast it to float32",
                        unary.operation
                    ));
                }
                Ok(operand.clone())
            }
            Node::Binary(binary) => {
                let (dtype, shape) = self.pair(binary.left, binary.right)?;
                if dtype == DType::Int32 && binary.operation == BinaryOperation::Power {
                    return Err("power does not take int32; cast both sides to float32".into());
                }
                Ok(Type { dtype, shape })
            }
            Node::Compare(compare) => {
                let (_, shape) = self.pair(compare.left, compare.right)?;
                Ok(Type {
                    dtype: DType::Float32,
                    shape,
                })
            }
            Node::Select(select) => {
                let (dtype, values) = self.pair(select.on_true, select.on_false)?;
                let condition = self.operand(select.condition)?;
                let shape = self.broadcast(&condition.shape, &values)?;
                Ok(Type { dtype, shape })
            }
            Node::Cast(cast) => {
                let operand = self.operand(cast.operand)?;
                Ok(Type {
                    dtype: cast.dtype,
                    shape: operand.shape.clone(),
                })
            }
            Node::Clamp(clamp) => {
                let not_above = clamp.minimum <= clamp.maximum;
                if !not_above {
                    return Err(format!("clamp from {} to {}", clamp.minimum, clamp.maximum));
                }
                self.float(clamp.operand)
            }
            Node::Reshape(reshape) => {
                let operand = self.operand(reshape.operand)?.clone();
                self.declared(&reshape.shape)?;
                if shape::signature(&operand.shape) != shape::signature(&reshape.shape) {
                    return Err(format!(
                        "{} cannot take the shape {}: symbols must stay and the elements be as many",
                        self.describe(&operand.shape),
                        self.describe(&reshape.shape)
                    ));
                }
                Ok(Type {
                    dtype: operand.dtype,
                    shape: reshape.shape.clone(),
                })
            }
            Node::Transpose(transpose) => {
                let operand = self.operand(transpose.operand)?;
                let axes = self.axes(&transpose.permutation, operand.shape.len())?;
                if axes.len() != operand.shape.len() {
                    return Err(format!(
                        "a permutation of {} axes for an operand of {}",
                        axes.len(),
                        operand.shape.len()
                    ));
                }
                let shape = axes.iter().map(|axis| operand.shape[*axis]).collect();
                Ok(Type {
                    dtype: operand.dtype,
                    shape,
                })
            }
            Node::Broadcast(broadcast) => {
                let operand = self.operand(broadcast.operand)?.clone();
                self.declared(&broadcast.shape)?;
                if !shape::broadcasts_to(&operand.shape, &broadcast.shape) {
                    return Err(format!(
                        "{} does not broadcast to {}",
                        self.describe(&operand.shape),
                        self.describe(&broadcast.shape)
                    ));
                }
                Ok(Type {
                    dtype: operand.dtype,
                    shape: broadcast.shape.clone(),
                })
            }
            Node::Slice(slice) => {
                let mut found = self.operand(slice.operand)?.clone();
                let axis = self.axis(slice.axis, found.shape.len())?;
                let extent = self.fixed_extent(&found.shape, axis)?;
                if slice.start > slice.limit || slice.limit > extent {
                    return Err(format!(
                        "slice {}..{} of an axis of {extent}",
                        slice.start, slice.limit
                    ));
                }
                found.shape[axis] = Extent::Fixed(slice.limit - slice.start);
                Ok(found)
            }
            Node::Concatenate(concatenate) => {
                self.concatenate(&concatenate.operands, concatenate.axis)
            }
            Node::Reduce(reduce) => {
                let operand = self.float(reduce.operand)?;
                let axes = self.axes(&reduce.axes, operand.shape.len())?;
                let mut shape = Shape::new();
                for (axis, extent) in operand.shape.iter().enumerate() {
                    if !axes.contains(&axis) {
                        shape.push(*extent);
                    } else if reduce.keep {
                        shape.push(Extent::Fixed(1));
                    }
                }
                Ok(Type {
                    dtype: DType::Float32,
                    shape,
                })
            }
            Node::Argmax(argmax) => {
                let mut shape = self.float(argmax.operand)?.shape;
                let axis = self.axis(argmax.axis, shape.len())?;
                if shape[axis] == Extent::Fixed(0) {
                    return Err("the largest of no elements has no place".into());
                }
                shape.remove(axis);
                Ok(Type {
                    dtype: DType::Int32,
                    shape,
                })
            }
            Node::Softmax(softmax) => {
                let operand = self.float(softmax.operand)?;
                self.axis(softmax.axis, operand.shape.len())?;
                Ok(operand)
            }
            Node::Matmul(matmul) => self.matmul(matmul),
            Node::Gather(gather) => {
                let table = self.float(gather.table)?;
                let indices = self.int(gather.indices)?;
                let Some((Extent::Fixed(_), rest)) = table.shape.split_first() else {
                    return Err("the leading extent of a table must be fixed".into());
                };
                let shape = indices.shape.iter().chain(rest).copied().collect();
                Ok(Type {
                    dtype: DType::Float32,
                    shape,
                })
            }
            Node::OneHot(one_hot) => {
                let mut shape = self.int(one_hot.indices)?.shape;
                shape.push(Extent::Fixed(one_hot.depth));
                Ok(Type {
                    dtype: DType::Float32,
                    shape,
                })
            }
            Node::Dropout(dropout) => {
                if !(0.0..1.0).contains(&dropout.rate) {
                    return Err(format!(
                        "dropout rate {}; it must be at least 0 and below 1",
                        dropout.rate
                    ));
                }
                self.float(dropout.operand)
            }
            Node::LayerNorm(norm) => {
                let operand = self.float(norm.operand)?;
                let Some(last) = operand.shape.last() else {
                    return Err("layer norm of a single number".into());
                };
                for (what, id) in [("scale", norm.scale), ("offset", norm.offset)] {
                    let found = self.float(id)?;
                    if found.shape != [*last] {
                        return Err(format!(
                            "the {what} has shape {}; it must be the last extent of {}",
                            self.describe(&found.shape),
                            self.describe(&operand.shape)
                        ));
                    }
                }
                if !(norm.epsilon.is_finite() && norm.epsilon > 0.0) {
                    return Err(format!(
                        "epsilon {}; it must be finite and above 0",
                        norm.epsilon
                    ));
                }
                Ok(operand)
            }
            Node::CrossEntropy(loss) => {
                let logits = self.float(loss.logits)?;
                let labels = self.int(loss.labels)?;
                match logits.shape.split_last() {
                    Some((Extent::Fixed(1..), rest)) if rest == labels.shape => Ok(Type {
                        dtype: DType::Float32,
                        shape: labels.shape,
                    }),
                    _ => Err(format!(
                        "labels {} for logits {}; logits must be the labels' shape with the classes \
                         behind it",
                        self.describe(&labels.shape),
                        self.describe(&logits.shape)
                    )),
                }
            }
            Node::BinaryCrossEntropy(loss) => self.same(loss.logits, loss.targets),
            Node::SquaredError(loss) => self.same(loss.predictions, loss.targets),
            Node::Huber(loss) => {
                if !(loss.delta.is_finite() && loss.delta > 0.0) {
                    return Err(format!(
                        "delta {}; it must be finite and above 0",
                        loss.delta
                    ));
                }
                self.same(loss.predictions, loss.targets)
            }
        }
    }

    fn matmul(&self, matmul: &MatmulNode) -> Inferred {
        let left = self.float(matmul.left)?.shape;
        let right = self.float(matmul.right)?.shape;
        let refuse = || {
            Err(format!(
                "matrices {} and {}",
                self.describe(&left),
                self.describe(&right)
            ))
        };
        let ([batch @ .., rows, inner], [right_batch @ .., other_inner, columns]) =
            (left.as_slice(), right.as_slice())
        else {
            return refuse();
        };
        if inner != other_inner || !(right_batch.is_empty() || right_batch == batch) {
            return refuse();
        }
        let shape = batch.iter().chain([rows, columns]).copied().collect();
        Ok(Type {
            dtype: DType::Float32,
            shape,
        })
    }

    fn concatenate(&mut self, operands: &[NodeId], axis: u32) -> Inferred {
        self.operands = self.operands.saturating_add(operands.len());
        if self.operands > self.caps.operands {
            return Err(format!(
                "{} operands of concatenates up to here, over the cap of {}",
                self.operands, self.caps.operands
            ));
        }
        let Some((first, rest)) = operands.split_first() else {
            return Err("concatenate of nothing".into());
        };
        let mut found = self.operand(*first)?.clone();
        let axis = self.axis(axis, found.shape.len())?;
        let mut total = self.fixed_extent(&found.shape, axis)?;
        for id in rest {
            let other = self.operand(*id)?;
            let extent = if other.shape.len() == found.shape.len() {
                self.fixed_extent(&other.shape, axis)?
            } else {
                0
            };
            let mut expected = found.clone();
            expected.shape[axis] = Extent::Fixed(extent);
            if *other != expected {
                return Err(format!(
                    "concatenate of {} {} and {} {}",
                    found.dtype.name(),
                    self.describe(&found.shape),
                    other.dtype.name(),
                    self.describe(&other.shape)
                ));
            }
            total = total
                .checked_add(extent)
                .ok_or("concatenate has too many elements")?;
        }
        found.shape[axis] = Extent::Fixed(total);
        Ok(found)
    }

    fn operand(&self, id: NodeId) -> Inferred<&Type> {
        self.types
            .get(id as usize)
            .ok_or_else(|| format!("refers to node {id}; a node refers only to nodes before it"))
    }

    fn float(&self, id: NodeId) -> Inferred {
        self.of_dtype(id, DType::Float32)
    }

    fn int(&self, id: NodeId) -> Inferred {
        self.of_dtype(id, DType::Int32)
    }

    fn of_dtype(&self, id: NodeId, dtype: DType) -> Inferred {
        let found = self.operand(id)?;
        if found.dtype == dtype {
            Ok(found.clone())
        } else {
            Err(format!(
                "operand {id} is {} and must be {}; cast it",
                found.dtype.name(),
                dtype.name()
            ))
        }
    }

    fn pair(&self, left: NodeId, right: NodeId) -> Inferred<(DType, Shape)> {
        let (left_id, right_id) = (left, right);
        let (left, right) = (self.operand(left)?, self.operand(right)?);
        if left.dtype != right.dtype {
            return Err(format!(
                "operand {left_id} is {} and operand {right_id} is {}; cast one",
                left.dtype.name(),
                right.dtype.name()
            ));
        }
        Ok((left.dtype, self.broadcast(&left.shape, &right.shape)?))
    }

    fn broadcast(&self, left: &[Extent], right: &[Extent]) -> Inferred<Shape> {
        shape::broadcast(left, right).ok_or_else(|| {
            format!(
                "{} and {} do not broadcast",
                self.describe(left),
                self.describe(right)
            )
        })
    }

    fn same(&self, left: NodeId, right: NodeId) -> Inferred {
        let (left, right) = (self.float(left)?, self.float(right)?);
        if left == right {
            Ok(left)
        } else {
            Err(format!(
                "predictions {} and targets {} differ in shape",
                self.describe(&left.shape),
                self.describe(&right.shape)
            ))
        }
    }

    fn declared(&self, shape: &[Extent]) -> Inferred<()> {
        for extent in shape {
            if let Extent::Symbol(index) = extent
                && *index as usize >= self.graph.symbols.len()
            {
                return Err(format!("symbol {index}, of {}", self.graph.symbols.len()));
            }
        }
        Ok(())
    }

    fn literal(&mut self, shape: &[u32], values: usize) -> Inferred<()> {
        let elements = self.fixed_elements(shape)?;
        if elements != values as u64 {
            return Err(format!("{values} values for a literal of shape {shape:?}"));
        }
        self.literal_elements = self.literal_elements.saturating_add(elements);
        if self.literal_elements > self.caps.literal_elements {
            return Err(format!(
                "literals of {} elements up to here, over the cap of {}",
                self.literal_elements, self.caps.literal_elements
            ));
        }
        Ok(())
    }

    fn fixed_elements(&self, shape: &[u32]) -> Inferred<u64> {
        shape
            .iter()
            .try_fold(1_u64, |product, extent| {
                product.checked_mul(u64::from(*extent))
            })
            .ok_or_else(|| format!("shape {shape:?} has too many elements"))
    }

    fn fixed_extent(&self, shape: &[Extent], axis: usize) -> Inferred<u32> {
        match shape[axis] {
            Extent::Fixed(extent) => Ok(extent),
            Extent::Symbol(_) => Err(format!(
                "axis {axis} of {} is a symbol and must be fixed",
                self.describe(shape)
            )),
        }
    }

    fn axis(&self, axis: u32, rank: usize) -> Inferred<usize> {
        if (axis as usize) < rank {
            Ok(axis as usize)
        } else {
            Err(format!("axis {axis} of an operand of rank {rank}"))
        }
    }

    fn axes(&self, axes: &[u32], rank: usize) -> Inferred<Vec<usize>> {
        if axes.len() > rank {
            return Err(format!("{} axes of an operand of rank {rank}", axes.len()));
        }
        let mut found = Vec::with_capacity(axes.len());
        for axis in axes {
            let axis = self.axis(*axis, rank)?;
            if found.contains(&axis) {
                return Err(format!("axis {axis} is named twice"));
            }
            found.push(axis);
        }
        Ok(found)
    }

    fn check_size(&self, found: &Type) -> Inferred<()> {
        let rank = self.caps.rank.min(Caps::RANK);
        if found.shape.len() > rank {
            return Err(format!(
                "rank {}, over the cap of {rank}",
                found.shape.len()
            ));
        }
        match shape::largest_elements(&found.shape, &self.graph.symbols) {
            Some(elements) if elements <= self.caps.elements_per_tensor => Ok(()),
            _ => Err(format!(
                "{} is more elements than the cap of {}, with symbols at their maximum",
                self.describe(&found.shape),
                self.caps.elements_per_tensor
            )),
        }
    }

    fn describe(&self, shape: &[Extent]) -> String {
        shape::describe(shape, &self.graph.symbols)
    }
}

fn fixed(shape: &[u32]) -> Shape {
    shape.iter().map(|extent| Extent::Fixed(*extent)).collect()
}
