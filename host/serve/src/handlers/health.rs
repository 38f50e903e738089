use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::TargetPath;
use crate::app::App;
use crate::door::off_record;
use crate::error::ApiError;

/// `GET /v2/health/live`: the process answers.
pub(crate) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// `GET /v2/health/ready`: all models are loaded, the audit log is written, and the server is not
/// stopping.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    if app.draining.load(Ordering::Relaxed) {
        return Err(ApiError::unavailable("the server is stopping"));
    }
    if app.is_off_record() {
        return Err(off_record());
    }
    Ok(Json(json!({ "ready": true })))
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`.
pub(crate) async fn model_ready(
    State(app): State<Arc<App>>,
    Path(target): TargetPath,
) -> Result<Json<Value>, ApiError> {
    let loaded = app.models.find(&target.model, target.version.as_deref())?;
    Ok(Json(json!({ "name": loaded.model.name, "ready": true })))
}

/// `GET /metrics`, in the OpenMetrics text format.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.telemetry.encode() {
        Ok(text) => {
            let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(_) => ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics cannot be written",
        )
        .into_response(),
    }
}
