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

/// `GET /v2/health/ready`: all models are loaded and may run, the audit log is written, and the server is
/// not stopping. Which may not is said to those alone who may ask for models.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    if app.draining.load(Ordering::Relaxed) {
        return Err(ApiError::unavailable("the server is stopping"));
    }
    if app.is_off_record() {
        return Err(off_record());
    }
    let refused = app.models.refused().await;
    if refused > 0 {
        let all = app.models.all().len();
        return Err(ApiError::refused(format!(
            "{refused} of {all} models may not run; /v2/models/{{model}}/ready says why"
        )));
    }
    Ok(Json(json!({ "ready": true })))
}

/// `GET /v2/models/{model}[/versions/{version}]/ready`: it is loaded and may run.
pub(crate) async fn model_ready(
    State(app): State<Arc<App>>,
    Path(target): TargetPath,
) -> Result<Json<Value>, ApiError> {
    let loaded = app.models.find(&target.model, target.version.as_deref())?;
    if let Some(refusal) = loaded.model.predictor.refusal().await {
        return Err(ApiError::refused(refusal));
    }
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
