use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::Float64Type;
use arrow::record_batch::RecordBatch;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::response::Response;
use sandcast_factory::Predicted;
use sandcast_sandbox::TaskKind;
use tokio::sync::SemaphorePermit;

use super::TargetPath;
use crate::app::App;
use crate::budget::Caller;
use crate::error::{ApiError, FailureCause, PredictError};
use crate::models::{LABEL, Loaded, list};
use crate::protocol::{
    Envelope, InferRequest, JSON_LENGTH_HEADER, Output, infer_response, rows_of_request,
};
use crate::telemetry::{FailureLabels, ModelLabels, Raised, RequestLabels, UNKNOWN_MODEL};

/// `POST /v2/models/{model}[/versions/{version}]/infer`.
pub(crate) async fn infer(
    State(app): State<Arc<App>>,
    Path(target): TargetPath,
    extensions: Extensions,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let _in_flight = Raised::new(&app.telemetry.in_flight);
    let begun = Instant::now();
    let loaded = match app.models.find(&target.model, target.version.as_deref()) {
        Ok(loaded) => loaded,
        Err(error) => {
            // Not the name from the path: labels come from a closed set.
            count_request(&app, UNKNOWN_MODEL, "", error.status);
            return Err(error);
        }
    };
    let version = loaded.model.version.to_string();
    let caller = extensions.get::<Arc<Caller>>();
    let counted = app.begin(caller).inspect_err(|error| {
        count_request(&app, &loaded.model.name, &version, error.status);
    })?;
    let timeout = app.config.request_timeout;
    let mut record = app.served.record(&loaded, caller, counted);
    let result = async {
        // Before the body is read: what waits is held in memory.
        let _place = take_place(&app)?;
        let reading = tokio::time::timeout(timeout, read_body(&app, &headers, body)).await;
        let body = reading.unwrap_or_else(|_| Err(ApiError::slow_body(timeout)))?;
        let left = timeout.saturating_sub(begun.elapsed());
        let answered = tokio::time::timeout(left, answer(&app, &loaded, &headers, &body)).await;
        answered.unwrap_or_else(|_| {
            Err(PredictError {
                cause: FailureCause::Timeout,
                message: format!("no answer within {timeout:?}; send fewer rows in a request"),
            }
            .into())
        })
    }
    .await;
    let result = result.map(|(response, rows)| {
        record.answered(rows);
        response
    });
    let result = result.map_err(|failure: Failure| count_failure(&app, &loaded, failure));
    let took = begun.elapsed();
    let status = result
        .as_ref()
        .map_or_else(|error| error.status, |response| response.status());
    count_request(&app, &loaded.model.name, &version, status);
    let labels = ModelLabels {
        model: loaded.model.name.clone(),
        version,
    };
    app.telemetry
        .request_seconds
        .get_or_create(&labels)
        .observe(took.as_secs_f64());
    let counters = &loaded.counters;
    let tally = if result.is_ok() {
        &counters.succeeded
    } else {
        &counters.failed
    };
    tally.add(took);
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    counters.last_request_ms.store(now, Ordering::Relaxed);
    result
}

/// Counts a failure of the adapter, and gives what the caller is told.
pub(super) fn count_failure(app: &App, loaded: &Loaded, failure: Failure) -> ApiError {
    if let Some(cause) = failure.cause {
        let labels = FailureLabels {
            model: loaded.model.name.clone(),
            version: loaded.model.version.to_string(),
            cause,
        };
        app.telemetry.failures.get_or_create(&labels).inc();
        tracing::warn!(?cause, error = %failure.error.message, "a prediction failed");
    }
    failure.error
}

pub(super) fn count_request(app: &App, model: &str, version: &str, status: StatusCode) {
    let labels = RequestLabels {
        model: model.to_owned(),
        version: version.to_owned(),
        code: status.as_u16(),
    };
    app.telemetry.requests.get_or_create(&labels).inc();
}

/// A request without an answer; `cause` where the adapter was asked and failed.
pub(super) struct Failure {
    error: ApiError,
    cause: Option<FailureCause>,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { error, cause: None }
    }
}

impl From<PredictError> for Failure {
    fn from(error: PredictError) -> Self {
        Self {
            cause: Some(error.cause),
            error: error.into(),
        }
    }
}

/// Reads, waits for a turn, predicts, writes. What is refused is refused as early as can be.
async fn answer(
    app: &App,
    loaded: &Loaded,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(Response, u64), Failure> {
    let decoding = Instant::now();
    let json_length = match headers.get(JSON_LENGTH_HEADER) {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| {
            ApiError::bad_request(format!("the header {JSON_LENGTH_HEADER} is not a number"))
        })?),
    };
    let envelope = Envelope::parse(body, json_length)?;
    let wanted = wanted_outputs(loaded, &envelope.request)?;
    let threshold = threshold(loaded, &envelope.request)?;
    let rows = rows_of_request(
        &envelope,
        &loaded.model.task.features,
        app.config.max_rows.get(),
    )?;
    loaded.counters.decoded.add(decoding.elapsed());

    let queueing = Instant::now();
    let turn = take_turn(app).await?;
    loaded.counters.queued.add(queueing.elapsed());

    let predicting = Instant::now();
    let predicted = {
        let _instance = Raised::new(&app.telemetry.instances);
        loaded.model.predictor.predict(&rows).await
    };
    drop(turn);
    let took = predicting.elapsed();
    observe_prediction(app, loaded, took);
    let Predicted {
        rows: predicted,
        recording,
    } = predicted?;
    if predicted.num_rows() != rows.num_rows() {
        let (found, wanted) = (predicted.num_rows(), rows.num_rows());
        return Err(wrong_output(format!("{found} rows of predictions for {wanted} rows")).into());
    }

    let encoding = Instant::now();
    let outputs = outputs(loaded, &predicted, &wanted, threshold)?;
    let model = &loaded.model;
    let id = envelope.request.id.as_deref();
    let response = infer_response(&model.name, model.version, id, recording, &outputs)
        .map_err(wrong_output)?;
    loaded.counters.encoded.add(encoding.elapsed());
    let count = rows.num_rows() as u64;
    loaded.counters.rows.fetch_add(count, Ordering::Relaxed);
    let labels = ModelLabels {
        model: model.name.clone(),
        version: model.version.to_string(),
    };
    app.telemetry.rows.get_or_create(&labels).inc_by(count);
    Ok((response, count))
}

pub(super) fn observe_prediction(app: &App, loaded: &Loaded, took: Duration) {
    loaded.counters.predicted.add(took);
    let labels = ModelLabels {
        model: loaded.model.name.clone(),
        version: loaded.model.version.to_string(),
    };
    app.telemetry
        .predict_seconds
        .get_or_create(&labels)
        .observe(took.as_secs_f64());
}

pub(super) async fn read_body(
    app: &App,
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, ApiError> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("content-encoding {encoding:?} is not understood; send the body as it is"),
        ));
    }
    let limit = usize::try_from(app.config.max_body_bytes.get()).unwrap_or(usize::MAX);
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {limit} bytes; send fewer rows in a request"),
        )
    };
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    if announced
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: usize| length > limit)
    {
        return Err(too_large());
    }
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        let over = std::error::Error::source(&error)
            .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
        if over {
            too_large()
        } else {
            ApiError::bad_request("the body ended early")
        }
    })
}

/// Takes one of the places of requests that run or wait, or sends the request away.
pub(super) fn take_place(app: &App) -> Result<SemaphorePermit<'_>, ApiError> {
    app.places.try_acquire().map_err(|_| {
        app.telemetry.rejected.inc();
        ApiError::unavailable(format!(
            "{} predictions are running and {} wait; try again in a second",
            app.config.max_concurrent, app.config.max_queued
        ))
    })
}

/// Waits until one more prediction may run.
pub(super) async fn take_turn(app: &App) -> Result<SemaphorePermit<'_>, ApiError> {
    let _queued = Raised::new(&app.telemetry.queued);
    let turn = app.turns.acquire().await;
    turn.map_err(|_| ApiError::unavailable("the server is stopping"))
}

/// An output that was asked for, and whether as binary.
struct Wanted {
    name: String,
    binary: bool,
}

fn wanted_outputs(loaded: &Loaded, request: &InferRequest<'_>) -> Result<Vec<Wanted>, ApiError> {
    let all = loaded.outputs();
    let binary = request.parameters.binary_data_output;
    let Some(outputs) = request
        .outputs
        .as_ref()
        .filter(|outputs| !outputs.is_empty())
    else {
        return Ok(all
            .into_iter()
            .map(|(name, _)| Wanted { name, binary })
            .collect());
    };
    let mut wanted = Vec::<Wanted>::with_capacity(all.len());
    for output in outputs {
        if !all.iter().any(|(name, _)| *name == output.name) {
            let known = list(all.iter().map(|(name, _)| name));
            return Err(ApiError::bad_request(format!(
                "output tensor `{}` is not an output of the model; its outputs: {known}",
                output.name
            )));
        }
        if wanted.iter().any(|other| other.name == output.name) {
            return Err(ApiError::bad_request(format!(
                "output tensor `{}` is asked for twice; expected once",
                output.name
            )));
        }
        let binary = output.parameters.binary_data.unwrap_or(binary);
        wanted.push(Wanted {
            name: output.name.clone(),
            binary,
        });
    }
    Ok(wanted)
}

fn threshold(loaded: &Loaded, request: &InferRequest<'_>) -> Result<f64, ApiError> {
    match request.parameters.threshold {
        None => Ok(loaded.model.threshold),
        Some(threshold) if (0.0..=1.0).contains(&threshold) => Ok(threshold),
        Some(threshold) => Err(ApiError::bad_request(format!(
            "the parameter threshold is {threshold}; expected a number from 0 to 1"
        ))),
    }
}

fn outputs(
    loaded: &Loaded,
    predicted: &RecordBatch,
    wanted: &[Wanted],
    threshold: f64,
) -> Result<Vec<Output>, PredictError> {
    wanted
        .iter()
        .map(|Wanted { name, binary }| {
            let data = match predicted.column_by_name(name) {
                Some(column) => ArrayRef::clone(column),
                None if name == LABEL => labels(loaded, predicted, threshold)?,
                None => return Err(wrong_output(format!("there is no column `{name}`"))),
            };
            Ok(Output {
                name: name.clone(),
                data,
                binary: *binary,
            })
        })
        .collect()
}

/// The name of the class that each row is taken for: in a binary task the positive one from the
/// threshold on, else the most probable.
fn labels(
    loaded: &Loaded,
    predicted: &RecordBatch,
    threshold: f64,
) -> Result<ArrayRef, PredictError> {
    let classes = &loaded.model.task.classes;
    let mut probabilities = Vec::with_capacity(classes.len());
    for class in classes {
        let name = format!("probability:{class}");
        let column = predicted
            .column_by_name(&name)
            .and_then(|column| column.as_primitive_opt::<Float64Type>())
            .ok_or_else(|| wrong_output(format!("there is no float64 column `{name}`")))?;
        probabilities.push(column);
    }
    let label = |row: usize| -> &str {
        let mut best = 0;
        if loaded.model.task.kind == TaskKind::BinaryClassification {
            best = usize::from(probabilities[1].value(row) >= threshold);
        } else {
            for class in 1..classes.len() {
                if probabilities[class].value(row) > probabilities[best].value(row) {
                    best = class;
                }
            }
        }
        &classes[best]
    };
    let fewest = if loaded.model.task.kind == TaskKind::BinaryClassification {
        2
    } else {
        1
    };
    if classes.len() < fewest {
        return Err(wrong_output(format!(
            "the model has {} classes",
            classes.len()
        )));
    }
    Ok(Arc::new(StringArray::from_iter_values(
        (0..predicted.num_rows()).map(label),
    )))
}

fn wrong_output(what: String) -> PredictError {
    PredictError {
        cause: FailureCause::Output,
        message: format!("the adapter's answer cannot be used: {what}"),
    }
}
