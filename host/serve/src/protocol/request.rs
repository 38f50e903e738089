//! A request's body into a record batch with the model's columns.

use std::collections::BTreeMap;

use arrow::array::ArrayRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use sandcast_sandbox::{Field, schema_of};

use super::columns::{accepted, from_binary, from_json};
use super::message::{InferRequest, InputTensor};
use crate::error::ApiError;
use crate::models::list;

/// A body cut into its JSON and the binary tensors behind it.
pub(crate) struct Envelope<'a> {
    pub(crate) request: InferRequest<'a>,
    binary: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Parses a body. `json_length` is the header that says where the JSON ends, if there is one.
    pub(crate) fn parse(body: &'a [u8], json_length: Option<&str>) -> Result<Self, ApiError> {
        let (json, binary) = match json_length {
            None => (body, &[][..]),
            Some(text) => {
                let cut = text
                    .parse()
                    .ok()
                    .and_then(|length| body.split_at_checked(length));
                cut.ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "the header {} is `{text}`; expected a number up to {}, the length of the \
                         body",
                        super::JSON_LENGTH_HEADER,
                        body.len()
                    ))
                })?
            }
        };
        let request = serde_json::from_slice(json).map_err(|error| {
            ApiError::bad_request(format!("the request is not an inference request: {error}"))
        })?;
        Ok(Self { request, binary })
    }
}

/// Makes the record batch that a model with these features is asked about.
pub(crate) fn rows_of_request(
    envelope: &Envelope<'_>,
    features: &[Field],
    max_rows: usize,
) -> Result<RecordBatch, ApiError> {
    let tensors = tensors_by_name(envelope, features)?;
    let mut rows = None::<(usize, &str)>;
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(features.len());
    for field in features {
        let (tensor, binary) = tensors.get(field.name.as_str()).ok_or_else(|| {
            ApiError::bad_request(format!(
                "input tensor `{}` is missing; the model expects it as {} of shape [n]",
                field.name,
                accepted(field.kind)[0]
            ))
        })?;
        let count = rows_of_shape(&tensor.shape).ok_or_else(|| {
            ApiError::bad_request(format!(
                "input tensor `{}` has shape {:?}; expected [n] or [n, 1], a value a row",
                field.name, tensor.shape
            ))
        })?;
        match rows {
            None => rows = Some((count, &field.name)),
            Some((first, name)) if first != count => {
                return Err(ApiError::bad_request(format!(
                    "input tensor `{}` has {count} rows, but `{name}` has {first}; expected the \
                     same number",
                    field.name
                )));
            }
            Some(_) => {}
        }
        if count == 0 || count > max_rows {
            return Err(ApiError::bad_request(format!(
                "input tensor `{}` has {count} rows; expected 1 to {max_rows} in a request",
                field.name
            )));
        }
        columns.push(column(field, tensor, *binary, count).map_err(|complaint| {
            ApiError::bad_request(format!("input tensor `{}`: {complaint}", field.name))
        })?);
    }
    let count = rows.map_or(0, |(count, _)| count);
    let options = RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(schema_of(features), columns, &options)
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

type Tensor<'e, 'a> = (&'e InputTensor<'a>, Option<&'a [u8]>);

/// The tensors with their share of the binary data, which is in the order of the inputs.
fn tensors_by_name<'e, 'a>(
    envelope: &'e Envelope<'a>,
    features: &[Field],
) -> Result<BTreeMap<&'e str, Tensor<'e, 'a>>, ApiError> {
    let mut tensors = BTreeMap::new();
    let mut rest = envelope.binary;
    for tensor in &envelope.request.inputs {
        if !features.iter().any(|field| field.name == tensor.name) {
            let known = list(features.iter().map(|field| &field.name));
            return Err(ApiError::bad_request(format!(
                "input tensor `{}` is not an input of the model; its inputs: {known}",
                tensor.name
            )));
        }
        let binary = match tensor.parameters.binary_data_size {
            None => None,
            Some(size) => {
                let cut = usize::try_from(size)
                    .ok()
                    .and_then(|size| rest.split_at_checked(size));
                let (own, others) = cut.ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "input tensor `{}` says binary_data_size {size}, but only {} bytes are \
                         left after the JSON",
                        tensor.name,
                        rest.len()
                    ))
                })?;
                rest = others;
                Some(own)
            }
        };
        if tensors
            .insert(tensor.name.as_str(), (tensor, binary))
            .is_some()
        {
            return Err(ApiError::bad_request(format!(
                "input tensor `{}` is there twice; expected it once",
                tensor.name
            )));
        }
    }
    if !rest.is_empty() {
        return Err(ApiError::bad_request(format!(
            "{} bytes after the JSON belong to no input tensor; say binary_data_size for each",
            rest.len()
        )));
    }
    Ok(tensors)
}

fn column(
    field: &Field,
    tensor: &InputTensor<'_>,
    binary: Option<&[u8]>,
    rows: usize,
) -> Result<ArrayRef, String> {
    let accepted = accepted(field.kind);
    if !accepted.contains(&tensor.datatype) {
        let others = list(accepted[1..].iter().map(|datatype| datatype.name()));
        let others = if accepted.len() > 1 {
            format!(" (or {others})")
        } else {
            String::new()
        };
        return Err(format!(
            "datatype {}; expected {}{others}",
            tensor.datatype, accepted[0]
        ));
    }
    match (binary, tensor.data) {
        (Some(bytes), None) => from_binary(field, rows, tensor.datatype, bytes),
        (None, Some(data)) => from_json(field, rows, data),
        (None, None) => Err("it has no data; expected `data` or binary_data_size".to_owned()),
        (Some(_), Some(_)) => {
            Err("it has both `data` and binary_data_size; expected one of them".to_owned())
        }
    }
}

fn rows_of_shape(shape: &[u64]) -> Option<usize> {
    match shape {
        [rows] | [rows, 1] => usize::try_from(*rows).ok(),
        _ => None,
    }
}
