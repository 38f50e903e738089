//! Numbers in row-major order under a shape: what is fed to a program and what it returns.

use std::collections::BTreeMap;

use crate::graph::DType;

/// Inputs by name. The leading extent of each is the rows.
pub type Feeds = BTreeMap<String, Tensor>;

/// A dense, row-major tensor. Its shape and the number of its values always agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: TensorData,
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
            Ok(Tensor { shape, data })
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

    /// The extents; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values, row-major.
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

    /// The number of values.
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
