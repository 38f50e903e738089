//! A trained model: what the adapter wants to see again, the program, the bindings, the weights.

use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use sandcast_audit::Digest;
use sandcast_kernels::graph::Graph;
use sandcast_kernels::trees::Forest;
use sandcast_kernels::{Caps, Program, Session};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::grants::compute::{Binding, ForestColumns, Predictor, check_bindings, inputs};
use crate::sandbox::Sandbox;
use crate::text;

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
    /// How unusual a row is; nothing says which rows are.
    AnomalyDetection,
    /// Which rows belong together; nothing says which do.
    Clustering,
    /// What comes next in a text, which is the one feature.
    TextGeneration,
}

impl TaskKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::BinaryClassification,
        Self::MulticlassClassification,
        Self::Regression,
        Self::AnomalyDetection,
        Self::Clustering,
        Self::TextGeneration,
    ];

    /// The name by which pipelines and messages know it, such as `anomaly-detection`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BinaryClassification => "binary-classification",
            Self::MulticlassClassification => "multiclass-classification",
            Self::Regression => "regression",
            Self::AnomalyDetection => "anomaly-detection",
            Self::Clustering => "clustering",
            Self::TextGeneration => "text-generation",
        }
    }

    /// Whether there is a column to learn to predict.
    pub fn has_target(self) -> bool {
        match self {
            Self::BinaryClassification | Self::MulticlassClassification | Self::Regression => true,
            Self::AnomalyDetection | Self::Clustering | Self::TextGeneration => false,
        }
    }
}

/// What is to be learnt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What kind of thing.
    pub kind: TaskKind,
    /// The columns to learn from, in order.
    pub features: Vec<Field>,
    /// The column to predict; a kind that learns without one has none.
    #[serde(default)]
    pub target: Option<String>,
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
    /// The forest in it is refused.
    #[error("the forest in the model file is refused: {reason}")]
    Forest {
        /// What is wrong with it.
        reason: String,
    },
    /// There is no program in it.
    #[error("the model is a forest of decision trees, so there is no tensor program in it")]
    NoProgram,
    /// The weights do not fit the program.
    #[error("the weights in the model file do not fit its program: {reason}")]
    Weights {
        /// What does not fit.
        reason: String,
    },
}

impl ModelError {
    fn format(reason: &str) -> ModelError {
        ModelError::Format {
            reason: reason.to_owned(),
        }
    }
}

/// A trained model. Instances share it; nothing in it changes.
pub struct Model {
    task: Task,
    state: Vec<u8>,
    predictor: Predictor,
    digest: OnceLock<Digest>,
}

impl Model {
    pub(crate) fn new(task: Task, state: Vec<u8>, predictor: Predictor) -> Self {
        Self {
            task,
            state,
            predictor,
            digest: OnceLock::new(),
        }
    }

    /// What it has learnt.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// blake3 of the model file.
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| Digest::of(&self.to_bytes()))
    }

    /// How many numbers were learnt: the weights of a program, or the nodes of a forest, each of
    /// which holds one.
    pub fn parameter_count(&self) -> u64 {
        match &self.predictor {
            Predictor::Session { session, .. } => session.program().parameter_count(),
            Predictor::Forest { forest, .. } => forest.nodes() as u64,
        }
    }

    /// The model file: one self-describing file with everything that `predict` needs.
    ///
    /// It is `MAGIC`, the length of the header as 8 bytes little-endian, the header as JSON,
    /// then the adapter's state and the weights, or the trees of a forest, in the safetensors
    /// format, each as long as the header says. The header holds the task, what predicts (the
    /// graph and the bindings, or the columns of a forest), and a blake3 of each part.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (graph, bindings, forest, weights) = match &self.predictor {
            Predictor::Session { session, bindings } => (
                Some(session.program().graph().clone()),
                bindings.to_vec(),
                None,
                session.to_safetensors(),
            ),
            Predictor::Forest { forest, columns } => (
                None,
                Vec::new(),
                Some(columns.as_ref().clone()),
                forest.to_bytes(),
            ),
        };
        let header = Header {
            format: match graph {
                Some(_) => PROGRAM_FORMAT,
                None => FOREST_FORMAT,
            },
            task: self.task.clone(),
            graph,
            bindings,
            forest,
            state: Part::of(&self.state),
            weights: Part::of(&weights),
        };
        // A header of plain data always has a JSON form: its keys are text and its numbers are
        // finite or written as text.
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let mut bytes =
            Vec::with_capacity(MAGIC.len() + 8 + header.len() + self.state.len() + weights.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(header.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&self.state);
        bytes.extend_from_slice(&weights);
        bytes
    }

    /// The graph of the program in a model file. Its digest guards the parts that follow it; they
    /// are not looked at.
    ///
    /// # Errors
    /// When the file does not begin as a model file does, or holds a forest.
    pub fn graph_of(bytes: &[u8]) -> Result<Graph, ModelError> {
        Header::read(bytes)?.0.graph.ok_or(ModelError::NoProgram)
    }

    /// Whether a file begins as a model file does.
    pub fn is_model_file(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Reads a model file, checks everything in it and loads it on the sandbox's device.
    ///
    /// # Errors
    /// When any part of the file is wrong.
    pub fn from_bytes(bytes: &[u8], sandbox: &Sandbox) -> Result<Model, ModelError> {
        let (header, rest) = Header::read(bytes)?;
        let format = ModelError::format;
        let (state, rest) = header
            .state
            .split(rest)
            .map_err(|what| format(&format!("its state {what}")))?;
        let (weights, rest) = header
            .weights
            .split(rest)
            .map_err(|what| format(&format!("its weights {what}")))?;
        if !rest.is_empty() {
            return Err(format("something follows its end"));
        }
        let predictor = match (header.graph, header.forest) {
            (Some(graph), None) => load_session(graph, header.bindings, weights, sandbox)?,
            (None, Some(columns)) => load_forest(columns, weights)?,
            _ => return Err(format("it holds neither a program nor a forest, or both")),
        };
        let model = Model::new(header.task, state.to_vec(), predictor);
        // Reading back what was written gives the same bytes, so the digest is that of the file.
        let _ = model.digest.set(Digest::of(bytes));
        Ok(model)
    }

    pub(crate) fn state(&self) -> &[u8] {
        &self.state
    }

    pub(crate) fn predictor(&self) -> &Predictor {
        &self.predictor
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("task", &self.task)
            .field("parameters", &self.parameter_count())
            .finish_non_exhaustive()
    }
}

/// A program with its weights.
fn load_session(
    graph: Graph,
    bindings: Vec<Binding>,
    weights: &[u8],
    sandbox: &Sandbox,
) -> Result<Predictor, ModelError> {
    let refused = |what: &dyn fmt::Display| ModelError::Program {
        reason: text::sentence(&what.to_string(), 1024),
    };
    let program =
        Program::compile(graph, &Caps::default()).map_err(|diagnostic| refused(&diagnostic))?;
    check_bindings(&bindings, inputs(program.graph())).map_err(|error| refused(&error))?;
    let mut session =
        Session::new(Arc::new(program), sandbox.device(), 0).map_err(|error| refused(&error))?;
    session
        .load_safetensors(weights)
        .map_err(|error| ModelError::Weights {
            reason: text::sentence(&error.to_string(), 1024),
        })?;
    Ok(Predictor::Session {
        session: Arc::new(session),
        bindings: bindings.into(),
    })
}

/// A forest and its columns.
fn load_forest(columns: ForestColumns, bytes: &[u8]) -> Result<Predictor, ModelError> {
    let refused = |reason: String| ModelError::Forest {
        reason: text::sentence(&reason, 1024),
    };
    let forest = Forest::from_bytes(bytes).map_err(|error| refused(error.to_string()))?;
    columns.check(&forest).map_err(refused)?;
    Ok(Predictor::Forest {
        forest: Arc::new(forest),
        columns: Arc::new(columns),
    })
}

/// How a model file begins.
const MAGIC: &[u8] = b"sandcast-model\n";

/// The versions of the layout: 1 holds a program, 2 a forest.
const PROGRAM_FORMAT: u32 = 1;
const FOREST_FORMAT: u32 = 2;

/// Bytes of a header; a graph with its literals is most of it.
const MAX_HEADER_BYTES: u64 = 1 << 30;

/// What a model file says about itself.
#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    task: Task,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    graph: Option<Graph>,
    #[serde(default)]
    bindings: Vec<Binding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forest: Option<ForestColumns>,
    state: Part,
    weights: Part,
}

impl Header {
    /// The header at the front of a model file, and what follows it.
    fn read(bytes: &[u8]) -> Result<(Header, &[u8]), ModelError> {
        let format = ModelError::format;
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| format("it does not begin like one"))?;
        let (length, rest) = rest
            .split_first_chunk::<8>()
            .ok_or_else(|| format("it is cut short"))?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER_BYTES {
            return Err(format("its header is too long"));
        }
        // Bounded above, so the conversion holds.
        let (header, rest) = rest
            .split_at_checked(length as usize)
            .ok_or_else(|| format("its header is cut short"))?;
        let wrong = |error| format(&format!("its header is wrong: {error}"));
        let version: HeaderVersion = serde_json::from_slice(header).map_err(wrong)?;
        if ![PROGRAM_FORMAT, FOREST_FORMAT].contains(&version.format) {
            return Err(format(&format!(
                "it is of format {}, this host reads {PROGRAM_FORMAT} and {FOREST_FORMAT}",
                version.format
            )));
        }
        Ok((serde_json::from_slice(header).map_err(wrong)?, rest))
    }
}

/// As much of a header as every version has.
#[derive(Deserialize)]
struct HeaderVersion {
    format: u32,
}

/// A part of a model file after the header.
#[derive(Serialize, Deserialize)]
struct Part {
    bytes: u64,
    digest: Digest,
}

impl Part {
    fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            digest: Digest::of(bytes),
        }
    }

    /// The part at the front of what is left, and what follows it.
    fn split<'a>(&self, rest: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), String> {
        let (part, rest) = usize::try_from(self.bytes)
            .ok()
            .and_then(|bytes| rest.split_at_checked(bytes))
            .ok_or("are cut short")?;
        if Digest::of(part) != self.digest {
            return Err("are not those that were written".into());
        }
        Ok((part, rest))
    }
}
