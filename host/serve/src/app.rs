//! What all handlers share, and the routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use sandcast_access::Gate;
use sandcast_audit::{AuditError, AuditLog};
use tokio::sync::Semaphore;
use tracing::Instrument;

use crate::config::ServeConfig;
use crate::door::{self, Door};
use crate::error::{ApiError, SourceError};
use crate::handlers;
use crate::models::{ModelSource, Models};
use crate::served::Served;
use crate::server::SetUp;
use crate::telemetry::{RouteLabels, Telemetry};

/// The state behind every handler.
pub(crate) struct App {
    pub(crate) config: ServeConfig,
    pub(crate) models: Models,
    pub(crate) telemetry: Telemetry,
    pub(crate) served: Served,
    /// A permit for each request that may run or wait.
    pub(crate) places: Semaphore,
    /// A permit for each prediction that may run.
    pub(crate) turns: Semaphore,
    /// Whether the server was told to stop.
    pub(crate) draining: AtomicBool,
    /// Whether the audit log did not take what was served when it was last tried.
    off_record: AtomicBool,
    /// Who may ask, where access is set up.
    pub(crate) door: Option<Door>,
    /// Whether access has been set up since, where there is no door.
    set_up: Option<SetUp>,
    request_ids: RequestIds,
}

impl App {
    /// Loads the models of a configuration.
    pub(crate) async fn load(
        source: Arc<dyn ModelSource>,
        config: ServeConfig,
        gate: Option<Arc<Gate>>,
        set_up: Option<SetUp>,
    ) -> Result<Arc<Self>, SourceError> {
        let models = Models::load(source, config.models.clone()).await?;
        let telemetry = Telemetry::new();
        let limit = config.max_concurrent.get();
        telemetry
            .instances_limit
            .set(i64::try_from(limit).unwrap_or(i64::MAX));
        telemetry
            .models
            .set(i64::try_from(models.all().len()).unwrap_or(i64::MAX));
        telemetry
            .start_seconds
            .set(jiff::Timestamp::now().as_millisecond() as f64 / 1e3);
        Ok(Arc::new(Self {
            places: semaphore(limit.saturating_add(config.max_queued)),
            turns: semaphore(limit),
            models,
            telemetry,
            served: Served::default(),
            draining: AtomicBool::new(false),
            off_record: AtomicBool::new(false),
            door: gate.and_then(Door::new),
            set_up,
            request_ids: RequestIds::new(),
            config,
        }))
    }
}

impl App {
    /// Writes sums of what was served and refused, and of what answered did, to the audit log. Where
    /// they cannot be written, nothing is predicted until they can.
    pub(crate) fn write_sums(&self, audit: &AuditLog, last: bool) -> Result<(), AuditError> {
        let written = self
            .served
            .write(audit)
            .and_then(|()| match &self.door {
                Some(door) => door.write(audit),
                None => Ok(()),
            })
            .and_then(|()| self.models.settle(last));
        self.off_record.store(written.is_err(), Ordering::Relaxed);
        written
    }

    /// Whether access was set up after this server began, so that it knows nobody who may ask.
    fn knows_nobody(&self) -> bool {
        self.door.is_none() && self.set_up.as_ref().is_some_and(|set_up| set_up())
    }

    /// Whether what is served cannot be put on record.
    pub(crate) fn is_off_record(&self) -> bool {
        self.off_record.load(Ordering::Relaxed)
    }
}

fn semaphore(permits: usize) -> Semaphore {
    Semaphore::new(permits.min(Semaphore::MAX_PERMITS))
}

/// Loads the models of a configuration and makes the routes that serve them, for a server of
/// one's own or for tests. [`crate::Server`] adds the listener, the audit log and reloading.
///
/// # Errors
/// When a model cannot be loaded.
pub async fn router(
    source: Arc<dyn ModelSource>,
    config: ServeConfig,
) -> Result<Router, SourceError> {
    guarded_router(source, config, None).await
}

/// The same for a state where access is set up.
///
/// # Errors
/// When a model cannot be loaded.
pub async fn guarded_router(
    source: Arc<dyn ModelSource>,
    config: ServeConfig,
    gate: Option<Arc<Gate>>,
) -> Result<Router, SourceError> {
    Ok(routes(App::load(source, config, gate, None).await?))
}

pub(crate) fn routes(app: Arc<App>) -> Router {
    let model = Router::new()
        .route("/", get(handlers::model_metadata))
        .route("/ready", get(handlers::model_ready))
        .route("/infer", post(handlers::infer))
        .route("/stats", get(handlers::model_stats))
        .route_layer(from_fn_with_state(Arc::clone(&app), door::guard_model));
    let texts = Router::new()
        .route("/v1/completions", post(handlers::completions))
        .route_layer(from_fn_with_state(Arc::clone(&app), door::guard_known));
    let state = Router::new()
        .route("/v2/models/stats", get(handlers::all_stats))
        .route("/v2/repository/index", post(handlers::repository_index))
        .route("/metrics", get(handlers::metrics))
        .route_layer(from_fn_with_state(Arc::clone(&app), door::guard_state));
    let management = Router::new()
        .route(
            "/v2/repository/models/{model}/load",
            post(handlers::repository_load),
        )
        .route(
            "/v2/repository/models/{model}/unload",
            post(handlers::repository_unload),
        )
        .route_layer(from_fn_with_state(Arc::clone(&app), door::guard_management));
    Router::new()
        .route("/v2", get(handlers::server_metadata))
        .route("/v2/health/live", get(handlers::live))
        .route("/v2/health/ready", get(handlers::ready))
        .merge(texts)
        .merge(state)
        .merge(management)
        .nest("/v2/models/{model}", model.clone())
        .nest("/v2/models/{model}/versions/{version}", model)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

async fn no_such_route(request: Request) -> ApiError {
    ApiError::not_found(format!(
        "there is nothing at {}; see /v2, /v2/health/ready, /v2/models/{{model}}, \
         /v2/models/{{model}}/infer, /v1/completions, /v2/repository/index and /metrics",
        shown(request.uri().path())
    ))
}

async fn no_such_method(request: Request) -> ApiError {
    let other = if request.method() == Method::GET {
        "POST"
    } else {
        "GET"
    };
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!(
            "{} does not take {}; try {other}",
            shown(request.uri().path()),
            request.method()
        ),
    )
}

/// A path, cut for a message.
fn shown(path: &str) -> String {
    path.chars().take(120).collect()
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Names, traces and counts every request.
async fn observe(
    State(app): State<Arc<App>>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let id = app.request_ids.of(&request);
    let method = method_name(request.method());
    let route = matched.map_or_else(|| "none".to_owned(), |matched| matched.as_str().to_owned());
    let span = tracing::info_span!("serve.request", request.id = ?id, http.method = method, route);
    let begun = Instant::now();
    let mut response = match app.knows_nobody() {
        false => next.run(request).instrument(span.clone()).await,
        true => ApiError::unavailable(
            "access was set up after this server began, so it answers nobody; start it again",
        )
        .into_response(),
    };
    let code = response.status().as_u16();
    app.telemetry
        .http_requests
        .get_or_create(&RouteLabels {
            method,
            route,
            code,
        })
        .inc();
    span.in_scope(|| {
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
        tracing::debug!(code, milliseconds, "answered");
    });
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}

/// Names for requests that bring none: when the server began, and a count.
struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        let prefix = format!("{:x}", jiff::Timestamp::now().as_microsecond());
        Self {
            prefix,
            next: AtomicU64::new(1),
        }
    }

    /// The client's own id where it is short and plain, else the next one.
    fn of(&self, request: &Request<Body>) -> HeaderValue {
        const LONGEST: usize = 128;
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
        if let Some(id) = request.headers().get(REQUEST_ID)
            && !id.is_empty()
            && id.len() <= LONGEST
            && id.as_bytes().iter().all(plain)
        {
            return id.clone();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        HeaderValue::from_str(&format!("{}-{number}", self.prefix))
            .unwrap_or(HeaderValue::from_static("unnamed"))
    }
}

impl IntoResponse for SourceError {
    fn into_response(self) -> Response {
        ApiError::unavailable(self.to_string()).into_response()
    }
}
