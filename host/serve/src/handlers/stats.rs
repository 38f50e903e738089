//! Triton's statistics extension.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::TargetPath;
use crate::app::App;
use crate::error::ApiError;
use crate::models::{Loaded, Tally};

/// `$stats_model_response`.
#[derive(Debug, Serialize)]
pub(crate) struct ModelsStats {
    model_stats: Vec<ModelStats>,
}

#[derive(Debug, Serialize)]
struct ModelStats {
    name: String,
    version: String,
    /// Milliseconds since 1970; 0 before the first request.
    last_inference: u64,
    /// Rows.
    inference_count: u64,
    /// Calls of the adapter.
    execution_count: u64,
    inference_stats: InferenceStats,
    batch_stats: [(); 0],
}

#[derive(Debug, Serialize)]
struct InferenceStats {
    success: Duration,
    fail: Duration,
    queue: Duration,
    compute_input: Duration,
    compute_infer: Duration,
    compute_output: Duration,
}

/// `$duration_stat`.
#[derive(Debug, Serialize)]
struct Duration {
    count: u64,
    ns: u64,
}

impl From<&Tally> for Duration {
    fn from(tally: &Tally) -> Self {
        Self {
            count: tally.count(),
            ns: tally.nanoseconds(),
        }
    }
}

impl From<&Arc<Loaded>> for ModelStats {
    fn from(loaded: &Arc<Loaded>) -> Self {
        let counters = &loaded.counters;
        Self {
            name: loaded.model.name.clone(),
            version: loaded.model.version.to_string(),
            last_inference: counters.last_request_ms.load(Ordering::Relaxed),
            inference_count: counters.rows.load(Ordering::Relaxed),
            execution_count: counters.predicted.count(),
            inference_stats: InferenceStats {
                success: (&counters.succeeded).into(),
                fail: (&counters.failed).into(),
                queue: (&counters.queued).into(),
                compute_input: (&counters.decoded).into(),
                compute_infer: (&counters.predicted).into(),
                compute_output: (&counters.encoded).into(),
            },
            batch_stats: [],
        }
    }
}

/// `GET /v2/models/{model}[/versions/{version}]/stats`.
pub(crate) async fn model_stats(
    State(app): State<Arc<App>>,
    Path(target): TargetPath,
) -> Result<Json<ModelsStats>, ApiError> {
    let loaded = app.models.find(&target.model, target.version.as_deref())?;
    let versions = match target.version {
        Some(_) => vec![loaded],
        None => app.models.versions(&target.model),
    };
    Ok(Json(ModelsStats {
        model_stats: versions.iter().map(ModelStats::from).collect(),
    }))
}

/// `GET /v2/models/stats`.
pub(crate) async fn all_stats(State(app): State<Arc<App>>) -> Json<ModelsStats> {
    Json(ModelsStats {
        model_stats: app.models.all().iter().map(ModelStats::from).collect(),
    })
}
