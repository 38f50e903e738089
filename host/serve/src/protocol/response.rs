//! A record batch of predictions into a response's body.

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use sandcast_audit::Digest;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::message::Datatype;

/// A column that goes out as a tensor.
pub(crate) struct Output {
    pub(crate) name: String,
    pub(crate) data: ArrayRef,
    /// Whether it goes behind the JSON rather than into it.
    pub(crate) binary: bool,
}

/// The response with these outputs.
pub(crate) fn infer_response(
    model: &str,
    version: u64,
    id: Option<&str>,
    recording: Option<Digest>,
    outputs: &[Output],
) -> Result<Response, String> {
    let mut binary = Vec::new();
    let mut tensors = Vec::with_capacity(outputs.len());
    for output in outputs {
        let datatype = datatype_of(output.data.data_type())
            .ok_or_else(|| format!("output `{}` is a {}", output.name, output.data.data_type()))?;
        let start = binary.len();
        if output.binary {
            write_binary(&output.data, &mut binary);
        }
        tensors.push(OutputTensor {
            name: &output.name,
            datatype,
            shape: [output.data.len()],
            parameters: output.binary.then(|| BinarySize {
                binary_data_size: binary.len() - start,
            }),
            data: (!output.binary).then_some(JsonData(&output.data)),
        });
    }
    let message = InferResponse {
        model_name: model,
        model_version: version.to_string(),
        id,
        parameters: recording.map(|recording| Recorded { recording }),
        outputs: tensors,
    };
    let mut body = serde_json::to_vec(&message).map_err(|error| error.to_string())?;
    if !outputs.iter().any(|output| output.binary) {
        let json = HeaderValue::from_static("application/json");
        return Ok(([(header::CONTENT_TYPE, json)], body).into_response());
    }
    let json_length = HeaderValue::from(body.len());
    body.append(&mut binary);
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (
            HeaderName::from_static(super::JSON_LENGTH_HEADER),
            json_length,
        ),
    ];
    Ok((headers, Bytes::from(body)).into_response())
}

/// `$inference_response`.
#[derive(Serialize)]
struct InferResponse<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Recorded>,
    outputs: Vec<OutputTensor<'a>>,
}

/// `$parameters` of a response: what `sandcast replay` takes, to show the prediction again.
#[derive(Serialize)]
struct Recorded {
    recording: Digest,
}

/// `$response_output`.
#[derive(Serialize)]
struct OutputTensor<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: [usize; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<JsonData<'a>>,
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

fn datatype_of(data_type: &DataType) -> Option<Datatype> {
    match data_type {
        DataType::Float64 => Some(Datatype::Fp64),
        DataType::Int64 => Some(Datatype::Int64),
        DataType::Boolean => Some(Datatype::Bool),
        DataType::Utf8 => Some(Datatype::Bytes),
        _ => None,
    }
}

struct JsonData<'a>(&'a ArrayRef);

impl Serialize for JsonData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
        match self.0.data_type() {
            DataType::Float64 => {
                for value in self.0.as_primitive::<Float64Type>() {
                    sequence.serialize_element(&value)?;
                }
            }
            DataType::Int64 => {
                for value in self.0.as_primitive::<Int64Type>() {
                    sequence.serialize_element(&value)?;
                }
            }
            DataType::Boolean => {
                for value in self.0.as_boolean() {
                    sequence.serialize_element(&value)?;
                }
            }
            _ => {
                for value in text(self.0) {
                    sequence.serialize_element(&value)?;
                }
            }
        }
        sequence.end()
    }
}

/// Writes little-endian elements; a missing number is NaN, a missing text is empty.
fn write_binary(data: &ArrayRef, bytes: &mut Vec<u8>) {
    match data.data_type() {
        DataType::Float64 => {
            for value in data.as_primitive::<Float64Type>() {
                bytes.extend(value.unwrap_or(f64::NAN).to_le_bytes());
            }
        }
        DataType::Int64 => {
            for value in data.as_primitive::<Int64Type>() {
                bytes.extend(value.unwrap_or_default().to_le_bytes());
            }
        }
        DataType::Boolean => {
            bytes.extend(
                data.as_boolean()
                    .iter()
                    .map(|value| u8::from(value == Some(true))),
            );
        }
        _ => {
            for value in text(data) {
                let value = value.unwrap_or_default().as_bytes();
                // A column of strings has 32-bit offsets, so that a length always fits.
                bytes.extend((value.len() as u32).to_le_bytes());
                bytes.extend(value);
            }
        }
    }
}

fn text(data: &ArrayRef) -> impl Iterator<Item = Option<&str>> {
    data.as_any()
        .downcast_ref::<StringArray>()
        .into_iter()
        .flatten()
}
