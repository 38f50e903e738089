use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sandcast_sandbox::{CallError, FailureCode};
use serde_json::json;

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; choose another with --address, or port 0 for a free one")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A certificate or its key cannot be used.
    #[error("cannot use {} for TLS: {what}; give a certificate and its key in PEM with --tls-cert and --tls-key", path.display())]
    Tls {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Others could reach the server, and it does not know who they are.
    #[error(
        "{address} can be reached by others, and there is {missing}; give a certificate with --tls-cert and --tls-key, set access up with `sandcast access init`, or say --insecure"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
        /// What is missing.
        missing: &'static str,
    },
    /// There is nothing to serve.
    #[error("there are no models to serve; register one with `sandcast run`")]
    NoModels,
    /// A model cannot be served.
    #[error(transparent)]
    Model(#[from] SourceError),
    /// The audit log cannot be written, so nothing is served.
    #[error("cannot write the audit log")]
    Audit(#[from] sandcast_audit::AuditError),
}

/// Why a model cannot be served.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot serve model `{model}`: {reason}")]
pub struct SourceError {
    /// The model, as it was selected.
    pub model: String,
    /// What the registry or the sandbox says.
    pub reason: String,
}

/// Why a prediction failed, for the caller and for the counters.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct PredictError {
    /// What kind of failure it was.
    pub cause: FailureCause,
    /// What happened, where, and what to do next.
    pub message: String,
}

/// The kinds of failed predictions, as `/metrics` counts them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, prometheus_client::encoding::EncodeLabelValue,
)]
#[non_exhaustive]
pub enum FailureCause {
    /// The adapter found fault with the rows.
    Input,
    /// The adapter trapped.
    Trap,
    /// The adapter or the whole request ran out of time.
    Timeout,
    /// The adapter wanted more memory than it may have.
    Memory,
    /// The adapter was denied a capability.
    Denied,
    /// The adapter answered with something that is not allowed.
    Output,
    /// Something that the adapter needs is not there.
    Unavailable,
    /// The model may not run: a policy, the rules of trust or the standing of its adapter say so.
    Refused,
    /// Anything else.
    Internal,
}

impl From<CallError> for PredictError {
    fn from(error: CallError) -> Self {
        let cause = match &error {
            CallError::Trap { .. } => FailureCause::Trap,
            CallError::Timeout { .. } => FailureCause::Timeout,
            CallError::MemoryLimit { .. } | CallError::OverLimit { .. } => FailureCause::Memory,
            CallError::Denied { .. } => FailureCause::Denied,
            CallError::BadOutput { .. } => FailureCause::Output,
            CallError::BadInput { .. } => FailureCause::Input,
            CallError::Failed { failure, .. } => match failure.code {
                FailureCode::InvalidInput => FailureCause::Input,
                FailureCode::Denied => FailureCause::Denied,
                FailureCode::Exhausted => FailureCause::Memory,
                FailureCode::Unavailable => FailureCause::Unavailable,
                _ => FailureCause::Internal,
            },
            _ => FailureCause::Internal,
        };
        Self {
            cause,
            message: error.to_string(),
        }
    }
}

/// A request that gets no answer but a status and a sentence: `{"error": "..."}`, as the protocol
/// demands.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// Seconds after which it may be tried again, where that is known.
    pub(crate) retry_after: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: None,
        }
    }

    /// 429: the caller has taken what it may.
    pub(crate) fn over_budget(message: impl Into<String>, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, message)
        }
    }

    /// 400: the request is at fault.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404: there is no such thing.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 408: the caller did not send all that it announced.
    pub(crate) fn slow_body(timeout: Duration) -> Self {
        let message = format!("the body did not come within {timeout:?}");
        Self::new(StatusCode::REQUEST_TIMEOUT, message)
    }

    /// 403: the model may not run. Not 503, which says `try again`: only an operator ends it; and not
    /// 5xx at all, because a readiness that is false is a 4xx in the Open Inference Protocol, and what
    /// is asked and what is ready should say the same.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 503: not now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

impl From<PredictError> for ApiError {
    fn from(error: PredictError) -> Self {
        let status = match error.cause {
            FailureCause::Input => StatusCode::BAD_REQUEST,
            FailureCause::Timeout => StatusCode::GATEWAY_TIMEOUT,
            FailureCause::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            FailureCause::Refused => return Self::refused(error.message),
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.message }))).into_response();
        let is_short = self.status == StatusCode::SERVICE_UNAVAILABLE;
        if let Some(seconds) = self.retry_after.or(is_short.then_some(1)) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"sandcast\""),
            );
        }
        response
    }
}
