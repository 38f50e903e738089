//! The form in which programs are differentiated and planned: fewer and simpler operations than
//! the graph has, each value with its dtype and shape, equal values only once.
//!
//! Operations fall into three kinds. A *map* computes each element of its result from the same
//! element of its operands, which broadcast; maps are what fusion joins. A *view* only renames
//! elements; it costs nothing where its reader can follow strides. The rest are *kernels*.

mod forward;
mod gradient;
mod rows;
mod simplify;
mod windows;

use std::collections::HashMap;

use crate::graph::{BinaryOperation, Comparison, DType, Extent, Shape, UnaryOperation};
use crate::shape;

pub(crate) use forward::{Lowered, lower};
pub(crate) use gradient::differentiate;
pub(crate) use rows::{is_causal, is_row_wise};

/// The index of a value.
pub(crate) type ValueId = u32;

/// A float32 by its bits, so that operations can be compared and hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bits(u32);

impl Bits {
    pub(crate) fn value(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl From<f32> for Bits {
    fn from(value: f32) -> Self {
        Bits(value.to_bits())
    }
}

/// What happens to each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Map {
    /// The operand, materialised.
    Copy,
    Unary(UnaryOperation),
    UnaryInt(UnaryOperation),
    /// The derivative of gelu.
    GeluSlope,
    Binary(BinaryOperation),
    BinaryInt(BinaryOperation),
    Compare(Comparison),
    CompareInt(Comparison),
    /// Operands: condition (of the dtype named), on true, on false; the latter of any dtype.
    Select(DType),
    ToInt,
    ToFloat,
    Clamp {
        minimum: Bits,
        maximum: Bits,
    },
    /// The second operand where the first is above 0, else 0.
    WherePositive,
    /// The operand times a draw of 0 or 1 / (1 - rate).
    Dropout {
        node: u32,
        rate: Bits,
    },
    /// softplus(x) - x t, of logits x and targets t.
    BinaryCrossEntropy,
    /// The Huber loss of the difference of two operands.
    Huber {
        delta: Bits,
    },
    /// Its derivative by the first operand.
    HuberSlope {
        delta: Bits,
    },
}

impl Map {
    /// How many operands it takes.
    pub(crate) fn operands(self) -> usize {
        match self {
            Map::Copy
            | Map::Unary(_)
            | Map::UnaryInt(_)
            | Map::GeluSlope
            | Map::ToInt
            | Map::ToFloat
            | Map::Clamp { .. }
            | Map::Dropout { .. } => 1,
            Map::Binary(_)
            | Map::BinaryInt(_)
            | Map::Compare(_)
            | Map::CompareInt(_)
            | Map::WherePositive
            | Map::BinaryCrossEntropy
            | Map::Huber { .. }
            | Map::HuberSlope { .. } => 2,
            Map::Select(_) => 3,
        }
    }
}

/// How a matrix product reads its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Product {
    /// [batch.., m, k] times [batch.., k, n] is [batch.., m, n].
    Batched,
    /// [.., k] times [k, n] is [.., n].
    Shared,
    /// [.., k] times [.., n], summed over what leads, is [k, n].
    Outer,
    /// [.., groups, k] times [groups, k, n], for each group, is [groups, .., n].
    Grouped,
    /// [.., groups, k] times [groups, .., n], summed over what leads, is [groups, k, n].
    GroupedOuter,
}

/// How elements become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fold {
    Sum,
    Maximum,
    Minimum,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// The input of this index.
    Input(u32),
    /// The parameter of this index.
    Parameter(u32),
    /// The literal of this index.
    Literal(u32),
    /// A float32 known now, of shape [].
    Scalar(Bits),
    /// 1 / the product of these extents, of shape [].
    InverseCount(Shape),
    Map(Map),
    /// View: the same elements under another shape.
    Reshape,
    /// View: axis `i` of the result is axis `permutation[i]` of the operand.
    Transpose(Vec<usize>),
    /// View: the operand repeated.
    Broadcast,
    /// View: elements from `start` on along an axis.
    Slice {
        axis: usize,
        start: usize,
    },
    /// The operand with zeros before and after it along an axis.
    Pad {
        axis: usize,
        before: usize,
    },
    Concatenate {
        axis: usize,
    },
    /// View: an axis as windows, [windows, elements of a window]; windows may overlap.
    Window {
        axis: usize,
        stride: usize,
        dilation: usize,
    },
    /// Back from windows to their axis: the sum of the elements that stand at each place.
    Unwindow {
        axis: usize,
        stride: usize,
        dilation: usize,
    },
    /// The sum of the elements up to each along an axis, or from each on.
    CumulativeSum {
        axis: usize,
        exclusive: bool,
        reverse: bool,
    },
    /// The places of the largest along the last axis, in order.
    TopK,
    /// Operands: elements, indices; along the last axis.
    TakeAlong,
    /// Operands: indices, elements; the sum of the elements of each index along the last axis.
    PutAlong,
    /// Whole numbers of so many bits out of int32, along the last axis.
    Unpack {
        bits: u32,
    },
    /// Over axes in ascending order that lie side by side; they go away.
    Reduce {
        fold: Fold,
        axes: Vec<usize>,
    },
    /// Along the last axis.
    Argmax,
    /// Along the last axis.
    Softmax {
        logarithm: bool,
    },
    Matmul(Product),
    /// Operands: table, indices.
    Gather,
    /// Operands: indices, rows; the sum of the rows of each index, of shape [size, ...].
    Scatter,
    OneHot,
    /// (x - mean) / sqrt(variance + epsilon) along the last axis.
    Normalize {
        epsilon: Bits,
    },
    /// Operands: x, the gradient of its normalisation; the gradient of x.
    NormalizeSlope {
        epsilon: Bits,
    },
    /// Operands: logits, labels.
    CrossEntropy,
    /// Operands: logits, labels, the gradient of the loss; the gradient of the logits.
    CrossEntropySlope,
    /// Operands: query [batch, time, heads, width], key and value [batch, time, key heads, width].
    Attention {
        causal: bool,
        scale: Bits,
    },
    /// Operands: query, key, value, the gradient of the attention. The gradients of query, key
    /// and value one behind the other along the heads.
    AttentionSlope {
        causal: bool,
        scale: Bits,
    },
}

impl Operation {
    /// Whether it only renames elements.
    pub(crate) fn is_view(&self) -> bool {
        matches!(
            self,
            Operation::Reshape
                | Operation::Transpose(_)
                | Operation::Broadcast
                | Operation::Slice { .. }
                | Operation::Window { .. }
        )
    }

    /// Whether it holds its elements from the start.
    pub(crate) fn is_source(&self) -> bool {
        matches!(
            self,
            Operation::Input(_)
                | Operation::Parameter(_)
                | Operation::Literal(_)
                | Operation::Scalar(_)
                | Operation::InverseCount(_)
        )
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Value {
    pub(crate) operation: Operation,
    pub(crate) operands: Vec<ValueId>,
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
}

/// Values, each after its operands.
#[derive(Debug, Default)]
pub(crate) struct Ir {
    pub(crate) values: Vec<Value>,
    /// The graph node that each value came from; what messages name.
    pub(crate) nodes: Vec<u32>,
    known: HashMap<Value, ValueId>,
    /// The node that values made now come from.
    node: u32,
}

impl Ir {
    pub(crate) fn value(&self, id: ValueId) -> &Value {
        &self.values[id as usize]
    }

    pub(crate) fn shape(&self, id: ValueId) -> &[Extent] {
        &self.value(id).shape
    }

    /// Says which graph node the next values come from.
    fn begin(&mut self, node: u32) {
        self.node = node;
    }

    fn push(&mut self, value: Value) -> ValueId {
        if let Some(id) = self.known.get(&value) {
            return *id;
        }
        let id = self.values.len() as ValueId;
        self.known.insert(value.clone(), id);
        self.values.push(value);
        self.nodes.push(self.node);
        id
    }

    fn make(
        &mut self,
        operation: Operation,
        operands: &[ValueId],
        dtype: DType,
        shape: Shape,
    ) -> ValueId {
        self.push(Value {
            operation,
            operands: operands.to_vec(),
            dtype,
            shape,
        })
    }

    fn float(&mut self, operation: Operation, operands: &[ValueId], shape: Shape) -> ValueId {
        self.make(operation, operands, DType::Float32, shape)
    }

    fn scalar(&mut self, value: f32) -> ValueId {
        self.float(Operation::Scalar(value.into()), &[], Shape::new())
    }

    /// A map of float32 result over operands that are known to broadcast.
    fn map(&mut self, map: Map, operands: &[ValueId]) -> ValueId {
        self.map_as(map, operands, DType::Float32)
    }

    fn map_as(&mut self, map: Map, operands: &[ValueId], dtype: DType) -> ValueId {
        let mut shape = Shape::new();
        for operand in operands {
            // The check of the graph found that operands broadcast, and gradients have the
            // shapes of what they are gradients of.
            shape = shape::broadcast(&shape, self.shape(*operand)).unwrap_or(shape);
        }
        if let Some(simpler) = self.simpler_map(map, operands, &shape) {
            return simpler;
        }
        let operands = Ir::ordered(map, operands);
        self.make(Operation::Map(map), &operands, dtype, shape)
    }

    fn unary(&mut self, operation: UnaryOperation, operand: ValueId) -> ValueId {
        self.map(Map::Unary(operation), &[operand])
    }

    fn binary(&mut self, operation: BinaryOperation, left: ValueId, right: ValueId) -> ValueId {
        self.map(Map::Binary(operation), &[left, right])
    }

    fn add(&mut self, left: ValueId, right: ValueId) -> ValueId {
        self.binary(BinaryOperation::Add, left, right)
    }

    fn subtract(&mut self, left: ValueId, right: ValueId) -> ValueId {
        self.binary(BinaryOperation::Subtract, left, right)
    }

    fn multiply(&mut self, left: ValueId, right: ValueId) -> ValueId {
        self.binary(BinaryOperation::Multiply, left, right)
    }

    fn divide(&mut self, left: ValueId, right: ValueId) -> ValueId {
        self.binary(BinaryOperation::Divide, left, right)
    }

    fn scale(&mut self, operand: ValueId, factor: f32) -> ValueId {
        let factor = self.scalar(factor);
        self.multiply(operand, factor)
    }

    /// A view of an operand, or of what that is a view of.
    fn view(&mut self, operation: Operation, operand: ValueId, shape: Shape) -> ValueId {
        let (mut operation, mut operand) = (operation, operand);
        while let Some(simpler) = self.simpler_view(&operation, operand) {
            (operation, operand) = simpler;
        }
        let changes = match &operation {
            Operation::Transpose(permutation) => permutation
                .iter()
                .enumerate()
                .any(|(place, axis)| place != *axis),
            _ => self.shape(operand) != shape,
        };
        if !changes {
            return operand;
        }
        let dtype = self.value(operand).dtype;
        self.make(operation, &[operand], dtype, shape)
    }

    fn reshape(&mut self, operand: ValueId, shape: Shape) -> ValueId {
        self.view(Operation::Reshape, operand, shape)
    }

    fn broadcast(&mut self, operand: ValueId, shape: Shape) -> ValueId {
        self.view(Operation::Broadcast, operand, shape)
    }

    fn transpose(&mut self, operand: ValueId, permutation: Vec<usize>) -> ValueId {
        let from = self.shape(operand);
        let shape = permutation.iter().map(|axis| from[*axis]).collect();
        self.view(Operation::Transpose(permutation), operand, shape)
    }

    /// `shape[axis]` elements from `start` on along an axis.
    fn slice(&mut self, operand: ValueId, axis: usize, start: usize, shape: Shape) -> ValueId {
        self.view(Operation::Slice { axis, start }, operand, shape)
    }

    /// Windows of `size` elements along an axis of fixed extent; `count` of them.
    fn window(
        &mut self,
        operand: ValueId,
        axis: usize,
        [count, size]: [u32; 2],
        [stride, dilation]: [u32; 2],
    ) -> ValueId {
        let mut shape = self.shape(operand).to_vec();
        shape.splice(axis..=axis, [count, size].map(Extent::Fixed));
        let operation = Operation::Window {
            axis,
            stride: stride as usize,
            dilation: dilation as usize,
        };
        self.view(operation, operand, shape)
    }

    /// The sum of windows where they overlap: the axes `axis` and the one behind it become one.
    fn unwindow(
        &mut self,
        operand: ValueId,
        axis: usize,
        extent: u32,
        [stride, dilation]: [u32; 2],
    ) -> ValueId {
        let mut shape = self.shape(operand).to_vec();
        shape.splice(axis..=axis + 1, [Extent::Fixed(extent)]);
        let operation = Operation::Unwindow {
            axis,
            stride: stride as usize,
            dilation: dilation as usize,
        };
        self.float(operation, &[operand], shape)
    }

    /// The operand with a number before and behind it along an axis of fixed extent.
    fn pad(
        &mut self,
        operand: ValueId,
        axis: usize,
        [before, after]: [u32; 2],
        value: f32,
    ) -> ValueId {
        let dtype = self.value(operand).dtype;
        let mut shape = self.shape(operand).to_vec();
        let Extent::Fixed(extent) = shape[axis] else {
            return operand;
        };
        if before == 0 && after == 0 {
            return operand;
        }
        if value.to_bits() == 0 {
            shape[axis] = Extent::Fixed(before.saturating_add(extent).saturating_add(after));
            let operation = Operation::Pad {
                axis,
                before: before as usize,
            };
            return self.make(operation, &[operand], dtype, shape);
        }
        let mut number = self.scalar(value);
        if dtype == DType::Int32 {
            number = self.map_as(Map::ToInt, &[number], dtype);
        }
        let mut parts = Vec::with_capacity(3);
        for part in [Some(before), None, Some(after)] {
            match part {
                None => parts.push(operand),
                Some(0) => {}
                Some(count) => {
                    shape[axis] = Extent::Fixed(count);
                    parts.push(self.broadcast(number, shape.clone()));
                }
            }
        }
        shape[axis] = Extent::Fixed(before.saturating_add(extent).saturating_add(after));
        self.make(Operation::Concatenate { axis }, &parts, dtype, shape)
    }

    /// The operand with an axis moved to the end by `there`, `f` of it, and moved back.
    fn along_last(
        &mut self,
        operand: ValueId,
        axis: usize,
        f: impl FnOnce(&mut Ir, ValueId) -> ValueId,
    ) -> ValueId {
        let (there, back) = Ir::to_last(self.shape(operand).len(), axis);
        let turned = self.transpose(operand, there);
        let result = f(self, turned);
        self.transpose(result, back)
    }

    /// The operand with its last two axes exchanged.
    fn transpose_matrix(&mut self, operand: ValueId) -> ValueId {
        let rank = self.shape(operand).len();
        let mut permutation: Vec<usize> = (0..rank).collect();
        permutation.swap(rank - 2, rank - 1);
        self.transpose(operand, permutation)
    }

    /// The permutation that moves an axis to the end, and the one that moves it back.
    fn to_last(rank: usize, axis: usize) -> (Vec<usize>, Vec<usize>) {
        let mut there: Vec<usize> = (0..rank).filter(|other| *other != axis).collect();
        there.push(axis);
        let mut back = vec![0; rank];
        for (place, from) in there.iter().enumerate() {
            back[*from] = place;
        }
        (there, back)
    }

    fn reduce(&mut self, fold: Fold, operand: ValueId, mut axes: Vec<usize>) -> ValueId {
        if axes.is_empty() {
            return operand;
        }
        if axes
            .iter()
            .all(|axis| self.shape(operand)[*axis] == Extent::Fixed(1))
        {
            // Each is the fold of itself alone.
            let shape = self.shape(operand).iter().enumerate();
            let shape = shape
                .filter(|(axis, _)| !axes.contains(axis))
                .map(|(_, extent)| *extent)
                .collect();
            return self.reshape(operand, shape);
        }
        axes.sort_unstable();
        let (first, last) = (axes[0], axes[axes.len() - 1]);
        if last - first + 1 != axes.len() {
            // Kernels reduce axes that lie side by side.
            let rank = self.shape(operand).len();
            let mut permutation: Vec<usize> =
                (0..rank).filter(|axis| !axes.contains(axis)).collect();
            let kept = permutation.len();
            permutation.extend(&axes);
            let turned = self.transpose(operand, permutation);
            return self.reduce(fold, turned, (kept..rank).collect());
        }
        let shape = self.shape(operand).iter().enumerate();
        let shape = shape
            .filter(|(axis, _)| !axes.contains(axis))
            .map(|(_, extent)| *extent)
            .collect();
        self.float(Operation::Reduce { fold, axes }, &[operand], shape)
    }

    /// 1 / the product of these extents.
    fn inverse_count(&mut self, counted: Shape) -> ValueId {
        let count = counted
            .iter()
            .try_fold(1_usize, |product, extent| match extent {
                Extent::Fixed(value) => product.checked_mul(*value as usize),
                Extent::Symbol(_) => None,
            });
        match count {
            Some(count) => self.scalar((1.0 / count as f64) as f32),
            None => self.float(Operation::InverseCount(counted), &[], Shape::new()),
        }
    }

    /// As [`Ir::reduce`], the axes staying with extent 1.
    fn reduce_keeping(&mut self, fold: Fold, operand: ValueId, axes: Vec<usize>) -> ValueId {
        let mut shape = self.shape(operand).to_vec();
        for axis in &axes {
            shape[*axis] = Extent::Fixed(1);
        }
        let reduced = self.reduce(fold, operand, axes);
        self.reshape(reduced, shape)
    }

    fn product(&mut self, product: Product, left: ValueId, right: ValueId) -> ValueId {
        let (left_shape, right_shape) = (self.shape(left), self.shape(right));
        let columns = right_shape[right_shape.len() - 1];
        let mut shape = left_shape.to_vec();
        match product {
            Product::Batched | Product::Shared => {
                shape.pop();
                shape.push(columns);
            }
            Product::Outer => shape = vec![left_shape[left_shape.len() - 1], columns],
            Product::Grouped => {
                shape.pop();
                let groups = shape.pop();
                shape = groups.into_iter().chain(shape).chain([columns]).collect();
            }
            Product::GroupedOuter => {
                shape = left_shape[left_shape.len() - 2..].to_vec();
                shape.push(columns);
            }
        }
        self.float(Operation::Matmul(product), &[left, right], shape)
    }
}
