//! What goes over the wire as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// The types of tensor elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// Bytes of an element; `None` where elements differ in length.
    pub(crate) fn width(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// `$inference_request`.
#[derive(Debug, Deserialize)]
pub(crate) struct InferRequest<'a> {
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) parameters: Parameters,
    #[serde(borrow)]
    pub(crate) inputs: Vec<InputTensor<'a>>,
    #[serde(default)]
    pub(crate) outputs: Option<Vec<RequestedOutput>>,
}

/// The parameters of a request that this server knows. Others are ignored, as the protocol
/// allows.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Parameters {
    /// Whether outputs come as binary unless they say otherwise.
    #[serde(default)]
    pub(crate) binary_data_output: bool,
    /// From which probability on the label is the positive class, instead of the model's own.
    #[serde(default)]
    pub(crate) threshold: Option<f64>,
}

/// `$request_input`. The elements stay text until the model's column is known.
#[derive(Debug, Deserialize)]
pub(crate) struct InputTensor<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<u64>,
    pub(crate) datatype: Datatype,
    #[serde(default)]
    pub(crate) parameters: InputParameters,
    #[serde(borrow, default)]
    pub(crate) data: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct InputParameters {
    /// How many bytes after the JSON belong to this tensor.
    #[serde(default)]
    pub(crate) binary_data_size: Option<u64>,
}

/// `$request_output`.
#[derive(Debug, Deserialize)]
pub(crate) struct RequestedOutput {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) parameters: OutputParameters,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct OutputParameters {
    #[serde(default)]
    pub(crate) binary_data: Option<bool>,
}

/// `$metadata_server_response`.
#[derive(Debug, Serialize)]
pub(crate) struct ServerMetadata {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) extensions: &'static [&'static str],
}

/// `$metadata_model_response`.
#[derive(Debug, Serialize)]
pub(crate) struct ModelMetadata {
    pub(crate) name: String,
    pub(crate) versions: Vec<String>,
    pub(crate) platform: &'static str,
    pub(crate) inputs: Vec<TensorMetadata>,
    pub(crate) outputs: Vec<TensorMetadata>,
    /// What is known of the version shown; beyond the protocol.
    pub(crate) parameters: BTreeMap<String, Value>,
}

/// `$metadata_tensor`.
#[derive(Debug, Serialize)]
pub(crate) struct TensorMetadata {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    /// -1 stands for any number of rows.
    pub(crate) shape: [i64; 1],
}

impl TensorMetadata {
    pub(crate) fn column(name: &str, datatype: Datatype) -> Self {
        Self {
            name: name.to_owned(),
            datatype,
            shape: [-1],
        }
    }
}
