//! Weights as safetensors: names, dtypes and shapes, then the numbers, little-endian. The
//! metadata holds the digest of the program they belong to.

use std::collections::HashMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::RunError;
use crate::program::Program;

/// The key of the program's digest in the metadata.
const DIGEST_KEY: &str = "sandcast.program";

/// Writes the weights of each parameter, in the order of the program.
pub(crate) fn write(program: &Program, weights: &[Vec<f32>]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> = weights
        .iter()
        .map(|values| {
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        })
        .collect();
    let views = program
        .parameters()
        .iter()
        .zip(&bytes)
        .filter_map(|(parameter, bytes)| {
            let view = TensorView::new(Dtype::F32, parameter.shape.clone(), bytes).ok()?;
            Some((parameter.name.as_str(), view))
        });
    let metadata = HashMap::from([(DIGEST_KEY.to_owned(), hexadecimal(&program.digest()))]);
    // The names are those of a checked graph and the sizes agree, so there is nothing to refuse.
    safetensors::serialize(views, Some(metadata)).unwrap_or_default()
}

/// Reads weights, each held against the parameter it is for.
pub(crate) fn read(program: &Program, bytes: &[u8]) -> Result<Vec<Vec<f32>>, RunError> {
    let wrong = |what: String| RunError::WrongWeights { what };
    let (_, header) = SafeTensors::read_metadata(bytes)
        .map_err(|error| wrong(format!("they are not safetensors: {error}")))?;
    let stored = SafeTensors::deserialize(bytes)
        .map_err(|error| wrong(format!("they are not safetensors: {error}")))?;
    let digest = hexadecimal(&program.digest());
    let of = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(DIGEST_KEY));
    match of {
        Some(other) if *other == digest => {}
        Some(other) => {
            return Err(wrong(format!(
                "they belong to program {other}, this is {digest}"
            )));
        }
        None => return Err(wrong(format!("the metadata has no `{DIGEST_KEY}`"))),
    }
    let parameters = program.parameters();
    if let Some(name) = stored
        .names()
        .into_iter()
        .find(|name| !parameters.iter().any(|one| one.name == **name))
    {
        return Err(wrong(format!("`{name}` is not a parameter of the program")));
    }
    parameters
        .iter()
        .map(|parameter| {
            let name = &parameter.name;
            let view = stored
                .tensor(name)
                .map_err(|_| wrong(format!("`{name}` is missing")))?;
            if view.dtype() != Dtype::F32 {
                return Err(wrong(format!(
                    "`{name}` is {:?} and must be F32",
                    view.dtype()
                )));
            }
            if view.shape() != parameter.shape {
                return Err(wrong(format!(
                    "`{name}` has shape {:?} and must have {:?}",
                    view.shape(),
                    parameter.shape
                )));
            }
            let numbers = view.data().chunks_exact(4);
            Ok(numbers
                .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                .collect())
        })
        .collect()
}

fn hexadecimal(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
