//! Asks a registered model.

mod conduct;
mod rows;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use sandcast_audit::{Digest, Event, PluginRef};
use sandcast_estate::BlobError;
use sandcast_sandbox::{
    Adapter, CallContext, CallError, ControlPoint, Effect, GenerationOptions, Grants, LoadError,
    Model, ModelError, Origin, Plugin, Request, Role, TaskKind, TextSink, schema_of,
};
use serde::Serialize;
use serde_json::json;
use thiserror::Error;

pub use rows::RowsError;

use conduct::Conducted;

use crate::conduct::{Admission, ConductError, StandingRecord};
use crate::gate::metrics_by_name;
use crate::registry::{ModelVersion, PredictPolicy, Vouched};
use crate::workspace::Workspace;

/// The stage that records name.
const STAGE: &str = "predict";

/// The rows that an adapter is asked about at once.
const CHUNK_ROWS: usize = 16_384;

/// A model version that is loaded and may answer. Cheap to clone; clones share the weights.
#[derive(Clone)]
pub struct ServedModel {
    version: Arc<ModelVersion>,
    plugin: Plugin,
    model: Arc<Model>,
    schema: SchemaRef,
    /// Where it is served.
    conducted: Option<Arc<Conducted>>,
}

/// What a model predicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// As many rows as it was asked about.
    pub rows: RecordBatch,
    /// The recording of it, where its adapter is recorded.
    pub recording: Option<Digest>,
}

/// What a model wrote after a prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generated {
    /// The text after the prompt.
    pub text: String,
    /// Of how many tokens.
    pub tokens: u64,
    /// `stop` where the text came to its end or to a stop text, else `length`.
    pub finish: String,
}

/// Why a model does not answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InferenceError {
    /// A blob of the version could not be read.
    #[error("model `{model}` version {version} cannot be read: {source}")]
    Blob {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// Why not.
        source: BlobError,
    },
    /// The adapter, or a policy, was refused.
    #[error("model `{model}` version {version} cannot be loaded: {source}")]
    Load {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// Why not.
        source: Box<LoadError>,
    },
    /// Who may sign the adapter, or a policy, did not: by the rule that is kept with the model, or by
    /// the operator's.
    #[error(
        "model `{model}` version {version} is not trusted: {source}. Have the component signed by a \
         key that may, and run the pipeline again, which renews what is kept with the model"
    )]
    Untrusted {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// What is wrong with its signature.
        source: Box<LoadError>,
    },
    /// The model file does not make sense.
    #[error("model `{model}` version {version} cannot be loaded: {source}")]
    Model {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// Why not.
        source: ModelError,
    },
    /// A policy does not let it answer.
    #[error("policy `{policy}` does not let `{model}` version {version} answer: {}", reasons.join("; "))]
    Denied {
        /// The policy.
        policy: String,
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// Why not.
        reasons: Vec<String>,
    },
    /// The model was not trained to write.
    #[error(
        "model `{model}` version {version} was trained for {kind}, so it does not write; use `predict`"
    )]
    DoesNotWrite {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// What it was trained for.
        kind: &'static str,
    },
    /// The adapter, or a policy, may not be loaded by what it did so far.
    #[error("model `{model}` version {version} cannot be loaded: {source}")]
    Conduct {
        /// The model.
        model: String,
        /// The version.
        version: u64,
        /// Why not.
        source: ConductError,
    },
    /// The rows that were given are not those the model knows.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// The adapter failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The audit log could not be written, so nothing is answered.
    #[error(transparent)]
    Audit(#[from] sandcast_audit::AuditError),
}

impl ServedModel {
    /// Loads a version: its adapter from the blobs, its weights onto the device. Policies at the
    /// control point `predict` are asked here, once.
    ///
    /// # Errors
    /// If a part of it cannot be loaded, or a policy says no.
    pub async fn load(
        workspace: &Workspace,
        version: &ModelVersion,
    ) -> Result<ServedModel, InferenceError> {
        let context = CallContext::new(None, STAGE);
        for policy in &version.policies {
            ask(workspace, version, policy, &context).await?;
        }
        let plugin = load_adapter(workspace, version).await?;
        let artifact = get(workspace, version, &version.artifact).await?;
        let model = Model::from_bytes(&artifact, workspace.sandbox()).map_err(|source| {
            let (model, version) = (version.model.clone(), version.version);
            InferenceError::Model {
                model,
                version,
                source,
            }
        })?;
        Ok(ServedModel {
            schema: schema_of(&version.task.features),
            version: Arc::new(version.clone()),
            plugin,
            model: Arc::new(model),
            conducted: None,
        })
    }

    /// Loads a version for a server: what its adapter does is added up, and written down and judged
    /// when that is called for.
    ///
    /// # Errors
    /// As [`ServedModel::load`].
    pub async fn load_to_serve(
        workspace: &Workspace,
        version: &ModelVersion,
    ) -> Result<ServedModel, InferenceError> {
        let model = Self::load(workspace, version).await?;
        let conducted = Conducted::new(workspace, Arc::clone(&model.version), model.plugin.clone());
        Ok(ServedModel {
            conducted: Some(Arc::new(conducted)),
            ..model
        })
    }

    /// The version.
    pub fn version(&self) -> &ModelVersion {
        &self.version
    }

    /// The columns that the model wants, in order.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Holds the adapter to what its standing wants, where that has changed since it was loaded.
    ///
    /// # Errors
    /// If what it usually does cannot be read.
    pub fn hold(&self, record: &StandingRecord) -> Result<(), ConductError> {
        match &self.conducted {
            Some(conducted) => conducted.hold(record),
            None => Ok(()),
        }
    }

    /// Writes down what the adapter did since the last time: all of it where it is the `last` time,
    /// else what has ended. What cannot be written is kept.
    ///
    /// # Errors
    /// If the audit log cannot be written.
    pub fn settle(&self, last: bool) -> Result<(), sandcast_audit::AuditError> {
        match &self.conducted {
            Some(conducted) => conducted.write(last),
            None => Ok(()),
        }
    }

    /// Holds what was written down against what the adapter usually does, as the rules of conduct
    /// that are kept with the version want. What is worth a warning.
    ///
    /// # Errors
    /// If what is known of it cannot be read, or the audit log not be written; then it is judged the
    /// next time.
    pub fn judge(&self) -> Result<Vec<String>, ConductError> {
        match &self.conducted {
            Some(conducted) => conducted.judge(),
            None => Ok(Vec::new()),
        }
    }

    /// A new instance of the adapter, to be asked about so many rows.
    async fn instance(&self, rows: usize) -> Result<Adapter, CallError> {
        match &self.conducted {
            Some(conducted) => {
                let (plugin, context, tally) = conducted.asked();
                let adapter = plugin.adapter(&context).await?;
                tally.count_rows(rows);
                Ok(adapter)
            }
            None => self.plugin.adapter(&CallContext::new(None, STAGE)).await,
        }
    }

    /// Makes rows out of JSON objects: `[{"age": 41, "purpose": "car"}, …]`. Every column must be
    /// there; it may be null where it was nullable in training. Dates and times are texts in
    /// RFC 3339.
    ///
    /// # Errors
    /// If a column is missing or unknown, or a value is of another type; row and column are named.
    pub fn rows_from_json(&self, rows: &[serde_json::Value]) -> Result<RecordBatch, RowsError> {
        rows::from_json(&self.version.task.features, &self.schema, rows)
    }

    /// Predicts, in an instance of its own: for a classification a float64 column
    /// `probability:<class>` for each class, for a regression a float64 column `prediction`; as
    /// many rows as it was given, in their order. The columns may be in any order.
    ///
    /// # Errors
    /// If the columns are not those the model wants, or the adapter fails.
    pub async fn predict(&self, rows: &RecordBatch) -> Result<Predicted, InferenceError> {
        let rows = rows::arranged(&self.schema, rows)?;
        let mut adapter = self.instance(rows.num_rows()).await?;
        if rows.num_rows() <= CHUNK_ROWS {
            let rows = adapter.predict(&self.model, &rows).await?;
            let recording = adapter.finish()?.recording;
            return Ok(Predicted { rows, recording });
        }
        let mut answers = Vec::with_capacity(rows.num_rows().div_ceil(CHUNK_ROWS));
        for start in (0..rows.num_rows()).step_by(CHUNK_ROWS) {
            let chunk = rows.slice(start, CHUNK_ROWS.min(rows.num_rows() - start));
            answers.push(adapter.predict(&self.model, &chunk).await?);
        }
        let recording = adapter.finish()?.recording;
        let schema = answers
            .first()
            .map_or_else(|| rows.schema(), RecordBatch::schema);
        // The sandbox has checked that every answer has the same columns.
        let all = concat_batches(&schema, &answers);
        let rows = all.map_err(|error| RowsError::Columns {
            message: error.to_string(),
        })?;
        Ok(Predicted { rows, recording })
    }
}

impl ServedModel {
    /// Goes on from prompts, in an instance of its own. `watch` is told of text as it is written.
    ///
    /// # Errors
    /// If the model was not trained to write, or the adapter fails.
    pub async fn generate(
        &self,
        prompts: &[String],
        options: &GenerationOptions,
        watch: Option<TextSink>,
    ) -> Result<Vec<Generated>, InferenceError> {
        let task = &self.version.task;
        let (TaskKind::TextGeneration, [feature]) = (task.kind, task.features.as_slice()) else {
            return Err(InferenceError::DoesNotWrite {
                model: self.version.model.clone(),
                version: self.version.version,
                kind: task.kind.name(),
            });
        };
        let texts: StringArray = prompts.iter().map(Some).collect();
        let texts: ArrayRef = Arc::new(texts);
        let rows = [(feature.name.as_str(), texts, feature.nullable)];
        let rows =
            RecordBatch::try_from_iter_with_nullable(rows).map_err(|error| RowsError::Columns {
                message: error.to_string(),
            })?;
        let mut adapter = self.instance(prompts.len()).await?;
        let written = adapter.generate(&self.model, &rows, options, watch).await?;
        adapter.finish()?;
        // The sandbox has checked the columns and what they hold.
        let [texts, tokens, finishes] = written.columns() else {
            return Ok(Vec::new());
        };
        let (texts, finishes) = (texts.as_string::<i32>(), finishes.as_string::<i32>());
        let tokens = tokens.as_primitive::<Int64Type>();
        let each = (0..written.num_rows()).map(|row| Generated {
            text: texts.value(row).to_owned(),
            tokens: u64::try_from(tokens.value(row)).unwrap_or(0),
            finish: finishes.value(row).to_owned(),
        });
        Ok(each.collect())
    }
}

/// Asks again whether those who may sign the adapter and the policies of a version did, by the rule
/// that is kept with it and by the operator's as it is now. A refusal is on record.
///
/// # Errors
/// If one of them is not trusted, or cannot be read.
pub async fn check_trust(
    workspace: &Workspace,
    version: &ModelVersion,
) -> Result<(), InferenceError> {
    let adapter = (&version.adapter_name, &version.component, &version.vouched);
    let policies = version.policies.iter();
    let policies = policies.map(|policy| (&policy.name, &policy.component, &policy.vouched));
    for (name, component, vouched) in std::iter::once(adapter).chain(policies) {
        let bytes = get(workspace, version, component).await?;
        let (sandbox, name, vouched) = (workspace.sandbox().clone(), name.clone(), vouched.clone());
        // A large component takes some milliseconds to hash.
        let checking = tokio::task::spawn_blocking(move || {
            let origin = Origin {
                signatures: vouched.signatures(),
                trust: vouched.trust.as_ref(),
            };
            let outcome = sandbox.check_signatures(&name, &bytes, origin);
            outcome.map_err(|error| (name, error))
        });
        let (name, source) = match checking.await {
            Ok(Ok(_)) => continue,
            Ok(Err(refusal)) => refusal,
            // What cannot be known is a no.
            Err(error) => {
                let (name, reason) = (version.adapter_name.clone(), error.to_string());
                (name.clone(), LoadError::NotAComponent { name, reason })
            }
        };
        workspace.audit().append(Event::PluginRefused {
            name,
            digest: Some(*component),
            reason: source.to_string(),
        })?;
        return Err(refused(version, source));
    }
    Ok(())
}

async fn get(
    workspace: &Workspace,
    version: &ModelVersion,
    blob: &Digest,
) -> Result<Vec<u8>, InferenceError> {
    workspace.estate().get(blob).await.map_err(|source| {
        let (model, version) = (version.model.clone(), version.version);
        InferenceError::Blob {
            model,
            version,
            source,
        }
    })
}

/// Loads the adapter of a version, held as its standing wants.
async fn load_adapter(
    workspace: &Workspace,
    version: &ModelVersion,
) -> Result<Plugin, InferenceError> {
    let name = &version.adapter_name;
    let record = let_in(workspace, version, &version.adapter)?;
    let grants = record.leaves(version.conduct.isolate, version.grants.clone());
    let adapter = (name.as_str(), &version.component, Role::Adapter, grants);
    let plugin = load_plugin(workspace, version, adapter, &version.vouched).await?;
    let bounds = conduct::bounds(workspace.conduct(), version, &record);
    let bounds = bounds.map_err(|source| misconduct(version, source))?;
    Ok(plugin.bounded(bounds))
}

fn misconduct(version: &ModelVersion, source: ConductError) -> InferenceError {
    InferenceError::Conduct {
        model: version.model.clone(),
        version: version.version,
        source,
    }
}

/// What is known of a plugin of a version, if it may be loaded by what it did so far. A refusal is on
/// record.
fn let_in(
    workspace: &Workspace,
    version: &ModelVersion,
    plugin: &PluginRef,
) -> Result<StandingRecord, InferenceError> {
    // Whoever trained the model let the plugin in.
    let conduct = workspace.conduct();
    let source = match conduct.let_in(plugin, Admission::Automatic, None) {
        Ok(record) => return Ok(record),
        Err(source) => source,
    };
    workspace.audit().append(Event::PluginRefused {
        name: plugin.id.clone(),
        digest: Some(plugin.digest),
        reason: source.to_string(),
    })?;
    Err(misconduct(version, source))
}

async fn load_plugin(
    workspace: &Workspace,
    version: &ModelVersion,
    (name, component, role, grants): (&str, &Digest, Role, Grants),
    vouched: &Vouched,
) -> Result<Plugin, InferenceError> {
    let bytes = get(workspace, version, component).await?;
    let origin = Origin {
        signatures: vouched.signatures(),
        trust: vouched.trust.as_ref(),
    };
    workspace
        .sandbox()
        .load_from(name, &bytes, role, grants, origin)
        .await
        .map_err(|source| refused(version, source))
}

fn refused(version: &ModelVersion, source: LoadError) -> InferenceError {
    let (model, version) = (version.model.clone(), version.version);
    let source = Box::new(source);
    match *source {
        LoadError::Untrusted { .. } | LoadError::UntrustedByOperator { .. } => {
            InferenceError::Untrusted {
                model,
                version,
                source,
            }
        }
        _ => InferenceError::Load {
            model,
            version,
            source,
        },
    }
}

/// Asks a policy whether a version may answer. Conditions cannot be met here, so they are a no.
async fn ask(
    workspace: &Workspace,
    version: &ModelVersion,
    policy: &PredictPolicy,
    context: &CallContext,
) -> Result<(), InferenceError> {
    let record = let_in(workspace, version, &policy.plugin)?;
    let part = (
        policy.name.as_str(),
        &policy.component,
        Role::Policy,
        record.leaves(version.conduct.isolate, policy.grants.clone()),
    );
    let plugin = load_plugin(workspace, version, part, &policy.vouched).await?;
    let request = Request {
        control_point: ControlPoint::Predict,
        principal: format!("pipeline:{}", version.lineage.pipeline),
        action: "predict".to_owned(),
        resource: format!("model:{}", version.model),
        context: json!({
            "pipeline": version.lineage.pipeline,
            "version": version.version,
            "metrics": metrics_by_name(&version.evaluation),
        }),
    };
    let mut instance = plugin.policy(context, &policy.config).await?;
    let mut decision = instance.decide(&request).await?;
    let recording = instance.finish()?.recording;
    workspace.audit().append(Event::Decided {
        run: None,
        plugin: Some(plugin.reference().clone()),
        control_point: request.control_point.as_str().to_owned(),
        principal: request.principal,
        action: request.action,
        resource: request.resource,
        effect: decision.effect.as_str().to_owned(),
        reasons: decision.reasons.clone(),
        obligations: decision
            .obligations
            .iter()
            .map(|it| json!({ "kind": it.kind, "parameters": it.parameters }))
            .collect(),
        recording,
    })?;
    let conditions = decision
        .obligations
        .iter()
        .map(|obligation| format!("it wants `{}`, which cannot be done here", obligation.kind));
    decision.reasons.extend(conditions);
    if decision.effect == Effect::Allow && decision.obligations.is_empty() {
        return Ok(());
    }
    Err(InferenceError::Denied {
        policy: policy.name.clone(),
        model: version.model.clone(),
        version: version.version,
        reasons: decision.reasons,
    })
}
