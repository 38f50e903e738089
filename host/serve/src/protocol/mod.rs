//! The Open Inference Protocol, version 2, over REST, with its binary tensor extension.
//!
//! Sources: the KServe specification "Open Inference Protocol (V2 Inference Protocol)", file
//! `specification/protocol/inference_rest.md`, and Triton's `extension_binary_data.md` and
//! `extension_statistics.md`.

mod columns;
mod message;
mod request;
mod response;

pub(crate) use message::{Datatype, InferRequest, ModelMetadata, ServerMetadata, TensorMetadata};
pub(crate) use request::{Envelope, rows_of_request};
pub(crate) use response::{Output, infer_response};

/// The header that says how many bytes of a body are JSON, before the binary tensors.
pub(crate) const JSON_LENGTH_HEADER: &str = "inference-header-content-length";
