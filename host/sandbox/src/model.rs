//! A trained model: what the adapter wants to see again, the program, the bindings, the weights.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use sandcast_audit::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::sandbox::Sandbox;

/// The type of a column as plugins know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Arrow's `Boolean`.
    Boolean,
    /// Arrow's `Int64`.
    Int64,
    /// Arrow's `Float64`.
    Float64,
    /// Arrow's `Utf8`.
    Utf8,
    /// Arrow's `Date32`.
    Date32,
    /// Arrow's `Timestamp(Microsecond, "UTC")`.
    TimestampUs,
}

impl Kind {
    /// The Arrow type with this layout.
    pub fn data_type(self) -> DataType {
        match self {
            Kind::Boolean => DataType::Boolean,
            Kind::Int64 => DataType::Int64,
            Kind::Float64 => DataType::Float64,
            Kind::Utf8 => DataType::Utf8,
            Kind::Date32 => DataType::Date32,
            Kind::TimestampUs => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    /// The kind of an Arrow type, if plugins know it.
    pub fn of(data_type: &DataType) -> Option<Kind> {
        match data_type {
            DataType::Boolean => Some(Kind::Boolean),
            DataType::Int64 => Some(Kind::Int64),
            DataType::Float64 => Some(Kind::Float64),
            DataType::Utf8 => Some(Kind::Utf8),
            DataType::Date32 => Some(Kind::Date32),
            DataType::Timestamp(TimeUnit::Microsecond, Some(zone))
                if matches!(zone.as_ref(), "UTC" | "+00:00" | "Z") =>
            {
                Some(Kind::TimestampUs)
            }
            _ => None,
        }
    }
}

/// A column of a schema as plugins know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Field {
    /// The name of the column.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// Whether it may hold nulls.
    pub nullable: bool,
}

/// The fields of a schema, or the first column whose type plugins do not know.
///
/// # Errors
/// With the name of the column and its type.
pub fn fields_of(schema: &Schema) -> Result<Vec<Field>, (String, DataType)> {
    schema
        .fields()
        .iter()
        .map(|field| match Kind::of(field.data_type()) {
            Some(kind) => Ok(Field {
                name: field.name().clone(),
                kind,
                nullable: field.is_nullable(),
            }),
            None => Err((field.name().clone(), field.data_type().clone())),
        })
        .collect()
}

/// The Arrow schema of some fields.
pub fn schema_of(fields: &[Field]) -> SchemaRef {
    Arc::new(Schema::new(
        fields
            .iter()
            .map(|field| {
                arrow::datatypes::Field::new(&field.name, field.kind.data_type(), field.nullable)
            })
            .collect::<Vec<_>>(),
    ))
}

/// What kind of thing is to be learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// One of two classes.
    BinaryClassification,
    /// One of several classes.
    MulticlassClassification,
    /// A number.
    Regression,
}

/// What is to be learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What kind of thing.
    pub kind: TaskKind,
    /// The columns to learn from, in order.
    pub features: Vec<Field>,
    /// The column to predict.
    pub target: String,
    /// The values of the target in a classification; in a binary one the second is the positive.
    pub classes: Vec<String>,
    /// A column of row weights.
    pub weight: Option<String>,
}

/// Why a model file is refused, or cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The file is not a model.
    #[error("not a sandcast model file: {reason}")]
    Format {
        /// What is wrong with it.
        reason: String,
    },
    /// The program in it is refused.
    #[error("the program in the model file is refused: {reason}")]
    Program {
        /// What the checker said.
        reason: String,
    },
    /// The weights do not fit the program.
    #[error("the weights in the model file do not fit its program: {reason}")]
    Weights {
        /// What does not fit.
        reason: String,
    },
}

/// A trained model. Instances share it; nothing in it changes.
pub struct Model {
    _private: (),
}

impl Model {
    /// What it has learnt.
    pub fn task(&self) -> &Task {
        unimplemented!()
    }

    /// blake3 of the model file.
    pub fn digest(&self) -> Digest {
        unimplemented!()
    }

    /// The number of weights.
    pub fn parameter_count(&self) -> u64 {
        unimplemented!()
    }

    /// The model file: one self-describing file with everything that `predict` needs.
    pub fn to_bytes(&self) -> Vec<u8> {
        unimplemented!()
    }

    /// Reads a model file, checks everything in it and loads it on the sandbox's device.
    ///
    /// # Errors
    /// When any part of the file is wrong.
    pub fn from_bytes(bytes: &[u8], sandbox: &Sandbox) -> Result<Model, ModelError> {
        let _ = (bytes, sandbox);
        unimplemented!()
    }
}
