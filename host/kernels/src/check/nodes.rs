//! The dtype and shape of each kind of node.

use std::collections::HashSet;

use super::{Type, check_name};
use crate::caps::Caps;
use crate::graph::{
    AttentionNode, BinaryOperation, DType, DequantiseNode, Extent, Graph, Initializer, MatmulNode,
    Node, NodeId, PadNode, Shape, TakeAlongNode, UnaryOperation,
};
use crate::shape;

/// The pass over the nodes, and what it has found so far.
pub(super) struct Checker<'a> {
    pub(super) graph: &'a Graph,
    pub(super) caps: &'a Caps,
    pub(super) types: Vec<Type>,
    pub(super) input_names: HashSet<&'a str>,
    pub(super) parameter_names: HashSet<&'a str>,
    pub(super) parameter_bytes: u64,
    pub(super) literal_elements: u64,
    pub(super) operands: usize,
}

/// What is found of a node, or why it is wrong.
pub(super) type Inferred<T = Type> = Result<T, String>;

impl<'a> Checker<'a> {
    /// The type of a node whose operands were checked.
    pub(super) fn infer(&mut self, node: &'a Node) -> Inferred {
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
            Node::RmsNorm(norm) => {
                let operand = self.float(norm.operand)?;
                let Some(last) = operand.shape.last() else {
                    return Err("rms norm of a single number".into());
                };
                let scale = self.float(norm.scale)?;
                if scale.shape != [*last] {
                    return Err(format!(
                        "the scale has shape {}; it must be the last extent of {}",
                        self.describe(&scale.shape),
                        self.describe(&operand.shape)
                    ));
                }
                if !(norm.epsilon.is_finite() && norm.epsilon > 0.0) {
                    return Err(format!(
                        "epsilon {}; it must be finite and above 0",
                        norm.epsilon
                    ));
                }
                Ok(operand)
            }
            Node::Attention(attention) => self.attention(attention),
            Node::Pad(pad) => self.pad(pad),
            Node::CumulativeSum(sum) => {
                let operand = self.float(sum.operand)?;
                self.axis(sum.axis, operand.shape.len())?;
                Ok(operand)
            }
            Node::TopK(top) => {
                let mut shape = self.float(top.operand)?.shape;
                let axis = self.axis(top.axis, shape.len())?;
                let extent = self.fixed_extent(&shape, axis)?;
                if top.count > extent {
                    return Err(format!("the largest {} of {extent} elements", top.count));
                }
                shape[axis] = Extent::Fixed(top.count);
                Ok(Type {
                    dtype: DType::Int32,
                    shape,
                })
            }
            Node::TakeAlong(take) => self.take_along(take),
            Node::ScatterAdd(scatter) => {
                let indices = self.int(scatter.indices)?.shape;
                let updates = self.float(scatter.updates)?.shape;
                let Some(row) = updates.strip_prefix(indices.as_slice()) else {
                    return Err(format!(
                        "updates {} for indices {}; the updates must have the indices' shape, then \
                         that of a row",
                        self.describe(&updates),
                        self.describe(&indices)
                    ));
                };
                let size = Extent::Fixed(scatter.size);
                Ok(Type {
                    dtype: DType::Float32,
                    shape: [&[size], row].concat(),
                })
            }
            Node::Convolution(convolution) => self.convolution(convolution),
            Node::Pool(pool) => self.pool(pool),
            Node::BatchNorm(norm) => {
                let statistics = norm.statistics.map(|found| [found.mean, found.variance]);
                let named = [("scale", norm.scale), ("offset", norm.offset)];
                let given = ["mean", "variance"].into_iter();
                let given = given.zip(statistics.into_iter().flatten());
                let named: Vec<_> = named.into_iter().chain(given).collect();
                self.channel_norm(norm.operand, &named, norm.epsilon)
            }
            Node::GroupNorm(norm) => {
                let named = [("scale", norm.scale), ("offset", norm.offset)];
                let operand = self.channel_norm(norm.operand, &named, norm.epsilon)?;
                let last = operand.shape.len() - 1;
                if last == 0 {
                    return Err("group norm of one element of a batch; add the batch".into());
                }
                let mut each = Vec::with_capacity(last);
                for axis in 1..=last {
                    each.push(self.fixed_extent(&operand.shape, axis)?);
                }
                if self.fixed_elements(&each)? > self.caps.elements_per_tensor {
                    return Err("an element of the batch is too large".into());
                }
                let channels = self.fixed_extent(&operand.shape, last)?;
                if norm.groups == 0 || channels % norm.groups != 0 {
                    return Err(format!("{} groups of {channels} channels", norm.groups));
                }
                Ok(operand)
            }
            Node::Dequantise(dequantise) => self.dequantise(dequantise),
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

    fn attention(&self, node: &AttentionNode) -> Inferred {
        let query = self.float(node.query)?.shape;
        let key = self.float(node.key)?.shape;
        let value = self.float(node.value)?.shape;
        let refuse = |why: &str| {
            Err(format!(
                "attention of query {}, key {} and value {}: {why}",
                self.describe(&query),
                self.describe(&key),
                self.describe(&value)
            ))
        };
        let (
            [
                batch,
                time,
                Extent::Fixed(heads),
                Extent::Fixed(width @ 1..),
            ],
            [
                key_batch,
                places,
                Extent::Fixed(key_heads @ 1..),
                Extent::Fixed(key_width),
            ],
        ) = (query.as_slice(), key.as_slice())
        else {
            return refuse("each must be [batch, time, heads, width], heads and width fixed");
        };
        if key != value {
            return refuse("key and value must have one shape");
        }
        if batch != key_batch || width != key_width {
            return refuse("batch and width must be the same");
        }
        if *heads == 0 || heads % key_heads != 0 {
            return refuse("the heads of the query must be a multiple of those of the key");
        }
        if node.causal && time != places {
            return refuse("causal attention needs as many places as there is time");
        }
        if node.causal && node.mask.is_some() {
            return refuse("causal attention has no mask; put both into one mask");
        }
        if node.scale.is_some_and(|scale| !scale.is_finite()) {
            return refuse("the scale must be finite");
        }
        if let Some(mask) = node.mask {
            let mask = self.float(mask)?.shape;
            let scores = [*batch, Extent::Fixed(*heads), *time, *places];
            if !shape::broadcasts_to(&mask, &scores) {
                return Err(format!(
                    "the mask {} does not broadcast to the scores {}",
                    self.describe(&mask),
                    self.describe(&scores)
                ));
            }
        }
        Ok(Type {
            dtype: DType::Float32,
            shape: query,
        })
    }

    fn pad(&self, pad: &PadNode) -> Inferred {
        // The whole numbers up to here are those of float32 too.
        const LARGEST: f32 = 16_777_216.0;
        let mut found = self.operand(pad.operand)?.clone();
        let axis = self.axis(pad.axis, found.shape.len())?;
        let extent = self.fixed_extent(&found.shape, axis)?;
        if found.dtype == DType::Int32
            && !(pad.value.trunc() == pad.value && pad.value.abs() <= LARGEST)
        {
            return Err(format!(
                "int32 is padded with {}; it must be a whole number of at most {LARGEST}",
                pad.value
            ));
        }
        let padded = extent
            .checked_add(pad.before)
            .and_then(|extent| extent.checked_add(pad.after));
        found.shape[axis] = Extent::Fixed(padded.ok_or("pad has too many elements")?);
        Ok(found)
    }

    fn take_along(&self, take: &TakeAlongNode) -> Inferred {
        let operand = self.operand(take.operand)?;
        let indices = self.int(take.indices)?.shape;
        let axis = self.axis(take.axis, operand.shape.len())?;
        self.fixed_extent(&operand.shape, axis)?;
        let mut expected = operand.shape.clone();
        if let Some(extent) = indices.get(axis) {
            expected[axis] = *extent;
        }
        if expected != indices {
            return Err(format!(
                "indices {} for {}; they may differ along axis {axis} only",
                self.describe(&indices),
                self.describe(&operand.shape)
            ));
        }
        self.fixed_extent(&indices, axis)?;
        Ok(Type {
            dtype: operand.dtype,
            shape: indices,
        })
    }

    /// A norm whose numbers stand for the last axis.
    fn channel_norm(&self, operand: NodeId, named: &[(&str, NodeId)], epsilon: f32) -> Inferred {
        let operand = self.float(operand)?;
        let Some(last) = operand.shape.last() else {
            return Err("norm of a single number".into());
        };
        for (what, id) in named {
            let found = self.float(*id)?;
            if found.shape != [*last] {
                return Err(format!(
                    "the {what} has shape {}; it must be the last extent of {}",
                    self.describe(&found.shape),
                    self.describe(&operand.shape)
                ));
            }
        }
        if !(epsilon.is_finite() && epsilon > 0.0) {
            return Err(format!("epsilon {epsilon}; it must be finite and above 0"));
        }
        Ok(operand)
    }

    fn dequantise(&self, node: &DequantiseNode) -> Inferred {
        let mut shape = self.int(node.codes)?.shape;
        let Some(last) = shape.len().checked_sub(1) else {
            return Err("the codes have no axis".into());
        };
        let words = self.fixed_extent(&shape, last)?;
        if node.extent.div_ceil(node.width.in_a_word()) != words {
            return Err(format!(
                "{words} words for {} codes of {} bits",
                node.extent,
                node.width.bits()
            ));
        }
        shape[last] = Extent::Fixed(node.extent);
        for (what, id) in [("scale", Some(node.scale)), ("zero", node.zero)] {
            if let Some(id) = id {
                let found = self.float(id)?.shape;
                if !shape::broadcasts_to(&found, &shape) {
                    return Err(format!(
                        "the {what} {} does not broadcast to {}",
                        self.describe(&found),
                        self.describe(&shape)
                    ));
                }
            }
        }
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
}

fn fixed(shape: &[u32]) -> Shape {
    shape.iter().map(|extent| Extent::Fixed(*extent)).collect()
}
