//! Numbers in row-major order under a shape: what is fed to a program and what it returns.

use std::collections::BTreeMap;

use crate::graph::DType;

/// Inputs by name. The leading extent of each is the rows.
pub type Feeds = BTreeMap<String, Tensor>;

/// A row-major tensor. Unless its rows are windows of one sequence, its shape and the number of
/// its values agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: TensorData,
    /// From one row to the next, where rows are windows of one sequence.
    stride: Option<usize>,
}

/// The values of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    /// IEEE 754 binary32.
    F32(Vec<f32>),
    /// Two's complement, 32 bits.
    I32(Vec<i32>),
}

/// Why values do not make a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tensor of shape {shape:?} has another number of values than the {values} given")]
pub struct TensorError {
    /// The shape asked for.
    pub shape: Vec<usize>,
    /// How many values were given.
    pub values: usize,
}

impl Tensor {
    /// A tensor of these values, row-major.
    ///
    /// # Errors
    /// When the shape has another number of elements, or more than can be counted.
    pub fn new(shape: Vec<usize>, data: TensorData) -> Result<Self, TensorError> {
        let values = data.len();
        let elements = shape
            .iter()
            .try_fold(1_usize, |product, extent| product.checked_mul(*extent));
        if elements == Some(values) {
            Ok(Tensor {
                shape,
                data,
                stride: None,
            })
        } else {
            Err(TensorError { shape, values })
        }
    }

    /// A tensor of float32.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_f32(shape: Vec<usize>, values: Vec<f32>) -> Result<Self, TensorError> {
        Tensor::new(shape, TensorData::F32(values))
    }

    /// A tensor of int32.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_i32(shape: Vec<usize>, values: Vec<i32>) -> Result<Self, TensorError> {
        Tensor::new(shape, TensorData::I32(values))
    }

    /// Windows of one sequence as rows: each `length` values, each beginning `stride` values
    /// after the one before it. The sequence is held once, however much windows overlap. As many
    /// rows as fit; what is left at the end is in none.
    ///
    /// # Errors
    /// When the length or the stride is 0.
    pub fn windows(values: Vec<i32>, length: usize, stride: usize) -> Result<Self, TensorError> {
        if length == 0 || stride == 0 {
            return Err(TensorError {
                shape: vec![0, length],
                values: values.len(),
            });
        }
        let rows = values.len().checked_sub(length);
        let rows = rows.map_or(0, |rest| rest / stride + 1);
        Ok(Tensor {
            shape: vec![rows, length],
            data: TensorData::I32(values),
            stride: Some(stride),
        })
    }

    /// The same values as every row, held once: of shape `[rows, values]`.
    pub fn repeated(values: Vec<i32>, rows: usize) -> Self {
        Tensor {
            shape: vec![rows, values.len()],
            data: TensorData::I32(values),
            stride: Some(0),
        }
    }

    /// The stride of windows; none for a tensor that holds each of its elements.
    pub(crate) fn stride(&self) -> Option<usize> {
        self.stride
    }

    /// The same elements, each held. At most `limit` of them.
    pub(crate) fn to_dense(&self, limit: usize) -> Option<Tensor> {
        let Some(stride) = self.stride else {
            return Some(self.clone());
        };
        let (rows, length) = (self.shape[0], self.shape[1]);
        let elements = rows.checked_mul(length).filter(|count| *count <= limit)?;
        let TensorData::I32(values) = &self.data else {
            return None;
        };
        let mut dense = Vec::with_capacity(elements);
        for row in 0..rows {
            dense.extend_from_slice(&values[row * stride..][..length]);
        }
        Tensor::from_i32(self.shape.clone(), dense).ok()
    }

    /// The extents; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements that the shape has. Windows hold fewer values than that.
    pub fn dense_elements(&self) -> usize {
        let extents = self.shape.iter();
        extents.fold(1, |product, extent| product.saturating_mul(*extent))
    }

    /// The values, row-major; of windows, the sequence.
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// The values without the shape.
    pub fn into_data(self) -> TensorData {
        self.data
    }

    /// The type of the values.
    pub fn dtype(&self) -> DType {
        match self.data {
            TensorData::F32(_) => DType::Float32,
            TensorData::I32(_) => DType::Int32,
        }
    }

    /// The number of values that are held.
    pub fn elements(&self) -> usize {
        self.data.len()
    }

    /// The leading extent; 1 for a single number.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The values, if they are float32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            TensorData::F32(values) => Some(values),
            TensorData::I32(_) => None,
        }
    }

    /// The values, if they are int32.
    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.data {
            TensorData::I32(values) => Some(values),
            TensorData::F32(_) => None,
        }
    }

    /// The values as float32; int32 is converted to the nearest.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            TensorData::F32(values) => values.clone(),
            TensorData::I32(values) => values.iter().map(|value| *value as f32).collect(),
        }
    }
}

impl TensorData {
    /// The number of values.
    pub fn len(&self) -> usize {
        match self {
            TensorData::F32(values) => values.len(),
            TensorData::I32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
