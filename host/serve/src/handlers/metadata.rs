use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use sandcast_sandbox::TaskKind;

use super::TargetPath;
use crate::app::App;
use crate::error::ApiError;
use crate::protocol::{ModelMetadata, ServerMetadata, TensorMetadata};

/// `GET /v2`.
pub(crate) async fn server_metadata() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: "sandcast",
        version: env!("CARGO_PKG_VERSION"),
        extensions: &["binary_tensor_data", "model_repository", "statistics"],
    })
}

/// `GET /v2/models/{model}[/versions/{version}]`.
pub(crate) async fn model_metadata(
    State(app): State<Arc<App>>,
    Path(target): TargetPath,
) -> Result<Json<ModelMetadata>, ApiError> {
    let loaded = app.models.find(&target.model, target.version.as_deref())?;
    let versions = app.models.versions(&target.model);
    let mut parameters: std::collections::BTreeMap<_, _> = loaded
        .model
        .facts
        .iter()
        .map(|(name, fact)| (name.clone(), fact.clone().into()))
        .collect();
    parameters.insert(
        "version".to_owned(),
        loaded.model.version.to_string().into(),
    );
    let task = &loaded.model.task;
    parameters.insert("task".to_owned(), task.kind.name().into());
    if let Some(target) = &task.target {
        parameters.insert("target".to_owned(), target.clone().into());
    }
    if task.kind == TaskKind::AnomalyDetection || task.classes.len() == 2 {
        parameters.insert("threshold".to_owned(), loaded.model.threshold.into());
    }
    Ok(Json(ModelMetadata {
        name: loaded.model.name.clone(),
        versions: versions
            .iter()
            .map(|other| other.model.version.to_string())
            .collect(),
        platform: "sandcast_adapter",
        inputs: loaded
            .inputs()
            .map(|(name, datatype)| TensorMetadata::column(name, datatype))
            .collect(),
        outputs: loaded
            .outputs()
            .iter()
            .map(|(name, datatype)| TensorMetadata::column(name, *datatype))
            .collect(),
        parameters,
    }))
}
