use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;

use super::TargetPath;
use crate::app::App;
use crate::error::ApiError;
use crate::reload::reload_models;

/// A line of `$repository_index_response`.
#[derive(Debug, Serialize)]
pub(crate) struct IndexLine {
    name: String,
    version: String,
    state: &'static str,
    reason: String,
}

/// `POST /v2/repository/index`: the versions that are served.
pub(crate) async fn repository_index(State(app): State<Arc<App>>) -> Json<Vec<IndexLine>> {
    let mut lines = Vec::new();
    for loaded in app.models.all() {
        let refusal = loaded.model.predictor.refusal().await;
        lines.push(IndexLine {
            name: loaded.model.name.clone(),
            version: loaded.model.version.to_string(),
            state: if refusal.is_none() {
                "READY"
            } else {
                "UNAVAILABLE"
            },
            reason: refusal.unwrap_or_default(),
        });
    }
    Json(lines)
}

/// `POST /v2/repository/models/{model}/load`: asks the registry now rather than at the next
/// interval what its aliases mean.
pub(crate) async fn repository_load(
    State(app): State<Arc<App>>,
    Path(target): TargetPath,
) -> Result<StatusCode, ApiError> {
    app.models.find(&target.model, None)?;
    reload_models(&app)
        .await
        .map_err(|error| ApiError::unavailable(error.to_string()))?;
    Ok(StatusCode::OK)
}

/// `POST /v2/repository/models/{model}/unload`: who may ask for a prediction may not end it for
/// everybody else.
pub(crate) async fn repository_unload(
    State(app): State<Arc<App>>,
    Path(target): TargetPath,
) -> Result<StatusCode, ApiError> {
    app.models.find(&target.model, None)?;
    Err(ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "models are not unloaded on request; start the server with the models it is to serve",
    ))
}
