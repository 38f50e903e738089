//! What a recorded instance sent and what came back, and an instance that is given it again: it
//! authorises nothing and reaches no network.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use sandcast_audit::Digest;
use serde::{Deserialize, Serialize};
use wasmtime_wasi_http::{Error, WasiBody};

use super::send::Answer;
use crate::recording::Recordings;

/// A request and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exchange {
    pub(crate) asked: Asked,
    /// Nothing where nobody waited for it.
    answered: Option<Answered>,
}

impl Exchange {
    /// The body of the answer, which is kept beside the recording.
    pub(crate) fn body(&self) -> Option<Digest> {
        match &self.answered {
            Some(Answered::Response { body, .. }) => *body,
            _ => None,
        }
    }
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    method: String,
    uri: String,
    /// Of the fields that the guest gave.
    fields: Digest,
    /// Of the body, as far as it was sent.
    body: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
enum Answered {
    Refused {
        error: Reason,
    },
    Response {
        status: u16,
        fields: Vec<(String, String)>,
        /// The bytes, as far as the guest read them.
        body: Option<Digest>,
        /// How it broke off, where it did.
        error: Option<Reason>,
    },
}

/// Why there was no answer, or no end of one: the codes of `wasi:http` that this host gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reason {
    ConfigurationError,
    ConnectionLimitReached,
    ConnectionReadTimeout,
    ConnectionRefused,
    ConnectionTimeout,
    DestinationIpProhibited,
    DestinationNotFound,
    DnsError,
    HttpProtocolError,
    HttpRequestBodySize,
    HttpRequestDenied,
    HttpRequestUriInvalid,
    HttpResponseBodySize,
    HttpResponseTimeout,
    InternalError,
    TlsProtocolError,
}

impl Reason {
    fn of(error: &Error) -> Self {
        match error {
            Error::ConfigurationError => Self::ConfigurationError,
            Error::ConnectionLimitReached => Self::ConnectionLimitReached,
            Error::ConnectionReadTimeout => Self::ConnectionReadTimeout,
            Error::ConnectionRefused | Error::Connect(_) => Self::ConnectionRefused,
            Error::ConnectionTimeout => Self::ConnectionTimeout,
            Error::DestinationIpProhibited => Self::DestinationIpProhibited,
            Error::DestinationNotFound => Self::DestinationNotFound,
            Error::DnsError { .. } => Self::DnsError,
            Error::HttpRequestBodySize(_) => Self::HttpRequestBodySize,
            Error::HttpRequestDenied => Self::HttpRequestDenied,
            Error::HttpRequestUriInvalid => Self::HttpRequestUriInvalid,
            Error::HttpResponseBodySize(_) => Self::HttpResponseBodySize,
            Error::HttpResponseTimeout => Self::HttpResponseTimeout,
            Error::Hyper(_) | Error::HttpProtocolError => Self::HttpProtocolError,
            Error::Tls(_) | Error::TlsProtocolError => Self::TlsProtocolError,
            _ => Self::InternalError,
        }
    }

    /// The error that the guest is given: in a recording too, so that both are the same.
    fn error(self) -> Error {
        match self {
            Self::ConfigurationError => Error::ConfigurationError,
            Self::ConnectionLimitReached => Error::ConnectionLimitReached,
            Self::ConnectionReadTimeout => Error::ConnectionReadTimeout,
            Self::ConnectionRefused => Error::ConnectionRefused,
            Self::ConnectionTimeout => Error::ConnectionTimeout,
            Self::DestinationIpProhibited => Error::DestinationIpProhibited,
            Self::DestinationNotFound => Error::DestinationNotFound,
            Self::DnsError => Error::DnsError {
                rcode: None,
                info_code: None,
            },
            Self::HttpProtocolError => Error::HttpProtocolError,
            Self::HttpRequestBodySize => Error::HttpRequestBodySize(None),
            Self::HttpRequestDenied => Error::HttpRequestDenied,
            Self::HttpRequestUriInvalid => Error::HttpRequestUriInvalid,
            Self::HttpResponseBodySize => Error::HttpResponseBodySize(None),
            Self::HttpResponseTimeout => Error::HttpResponseTimeout,
            Self::InternalError => Error::InternalError(None),
            Self::TlsProtocolError => Error::TlsProtocolError,
        }
    }
}

/// The exchanges of one instance, kept or given again.
#[derive(Clone)]
pub(crate) enum Exchanges {
    Record(Kept),
    Replay(Given),
}

/// Exchanges that are kept.
#[derive(Clone)]
pub(crate) struct Kept {
    recordings: Recordings,
    limit: u64,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    exchanges: Vec<Exchange>,
    bytes: u64,
    failure: Option<String>,
}

/// Exchanges that are given again.
#[derive(Clone)]
pub(crate) struct Given {
    recordings: Recordings,
    exchanges: Arc<[Exchange]>,
    shared: Arc<Mutex<Gone>>,
}

#[derive(Default)]
struct Gone {
    /// Requests so far.
    asked: usize,
    /// The first request that is not as it was.
    divergence: Option<String>,
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole after each line that changes it.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Asked {
    fn of(parts: &Parts) -> Self {
        let mut fields = Digest::hasher();
        for (name, value) in &parts.headers {
            fields.update_field(name.as_str().as_bytes());
            fields.update_field(value.as_bytes());
        }
        Self {
            method: parts.method.to_string(),
            uri: parts.uri.to_string(),
            fields: fields.finish(),
            body: None,
        }
    }
}

impl Kept {
    /// Keeps up to so many bytes.
    pub(crate) fn new(recordings: Recordings, limit: u64) -> Self {
        Self {
            recordings,
            limit,
            shared: Arc::default(),
        }
    }

    /// What was kept so far.
    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        lock(&self.shared).exchanges.clone()
    }

    /// Why not everything could be kept.
    pub(crate) fn failure(&self) -> Option<String> {
        let shared = lock(&self.shared);
        let over = (shared.bytes > self.limit).then(|| {
            format!(
                "what it sent and got over HTTP is more than the {} bytes that are kept",
                self.limit
            )
        });
        over.or_else(|| shared.failure.clone())
    }

    /// A request goes out: its place, and the request that keeps what of its body is sent.
    pub(super) fn ask(&self, request: Request<WasiBody>) -> (usize, Request<WasiBody>) {
        let (parts, body) = request.into_parts();
        let mut shared = lock(&self.shared);
        shared.bytes = shared.bytes.saturating_add(256);
        // What there is no room for has a place that nothing is kept at.
        let place = shared.exchanges.len();
        if shared.bytes <= self.limit {
            shared.exchanges.push(Exchange {
                asked: Asked::of(&parts),
                answered: None,
            });
        }
        drop(shared);
        let kept = self.clone();
        let told = move |bytes: &[u8], _: Option<Reason>| {
            let digest = Digest::of(bytes);
            if let Some(exchange) = lock(&kept.shared).exchanges.get_mut(place) {
                exchange.asked.body = Some(digest);
            }
        };
        let body = Copied::new(body, self.clone(), Box::new(told)).boxed_unsync();
        (place, Request::from_parts(parts, body))
    }

    /// An answer came, or none: as it is given to the guest.
    pub(super) fn answer(
        &self,
        place: usize,
        answer: Result<Answer, Error>,
    ) -> Result<Answer, Error> {
        let (response, rest) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let error = Reason::of(&error);
                self.set(place, Answered::Refused { error });
                return Err(error.error());
            }
        };
        let fields: Vec<(String, String)> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text_of(value)))
            .collect();
        let status = response.status().as_u16();
        let length: usize = fields
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.count(length as u64);
        let answered = move |body, error| Answered::Response {
            status,
            fields: fields.clone(),
            body,
            error,
        };
        self.set(place, answered(None, None));
        let kept = self.clone();
        let told = move |bytes: &[u8], error: Option<Reason>| match kept.recordings.put(bytes) {
            Ok(body) => kept.set(place, answered(Some(body), error)),
            Err(failed) => {
                let said = format!("an answer over HTTP could not be kept: {failed}");
                lock(&kept.shared).failure.get_or_insert(said);
            }
        };
        let keeper = self.clone();
        let response =
            response.map(|body| Copied::new(body, keeper, Box::new(told)).boxed_unsync());
        Ok((response, rest))
    }

    fn set(&self, place: usize, answered: Answered) {
        if let Some(exchange) = lock(&self.shared).exchanges.get_mut(place) {
            exchange.answered = Some(answered);
        }
    }

    /// Whether there is room for so many more bytes.
    fn count(&self, bytes: u64) -> bool {
        let mut shared = lock(&self.shared);
        shared.bytes = shared.bytes.saturating_add(bytes);
        shared.bytes <= self.limit
    }
}

/// A field's value as text, a character for each byte.
fn text_of(value: &HeaderValue) -> String {
    value
        .as_bytes()
        .iter()
        .map(|byte| char::from(*byte))
        .collect()
}

fn value_of(text: &str) -> Option<HeaderValue> {
    let bytes: Option<Vec<u8>> = text.chars().map(|it| u8::try_from(it).ok()).collect();
    HeaderValue::from_bytes(&bytes?).ok()
}

/// A body whose bytes are kept as they go by; told when it is over.
struct Copied {
    body: WasiBody,
    kept: Kept,
    bytes: Vec<u8>,
    told: Option<Told>,
}

/// Is told of all that went by, and how it broke off, where it did.
type Told = Box<dyn FnOnce(&[u8], Option<Reason>) + Send>;

impl Copied {
    fn new(body: WasiBody, kept: Kept, told: Told) -> Self {
        Self {
            body,
            kept,
            bytes: Vec::new(),
            told: Some(told),
        }
    }

    fn end(&mut self, error: Option<Reason>) {
        if let Some(told) = self.told.take() {
            told(&std::mem::take(&mut self.bytes), error);
        }
    }
}

impl Body for Copied {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.end(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref()
                    && self.kept.count(data.len() as u64)
                {
                    self.bytes.extend_from_slice(data);
                }
                if self.body.is_end_stream() {
                    self.end(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = Reason::of(&error);
                self.end(Some(reason));
                Poll::Ready(Some(Err(reason.error())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl Given {
    pub(crate) fn new(recordings: Recordings, exchanges: Vec<Exchange>) -> Self {
        Self {
            recordings,
            exchanges: exchanges.into(),
            shared: Arc::default(),
        }
    }

    /// The first request that was not as it was.
    pub(crate) fn divergence(&self) -> Option<String> {
        lock(&self.shared).divergence.clone()
    }

    fn differs(&self, what: String) {
        lock(&self.shared).divergence.get_or_insert(what);
    }

    /// The answer that a request had. Its place is that of the call, however late it is waited for.
    pub(super) fn answer(
        self,
        request: Request<WasiBody>,
    ) -> impl Future<Output = Result<Answer, Error>> + Send {
        let place = {
            let mut shared = lock(&self.shared);
            shared.asked += 1;
            shared.asked - 1
        };
        self.answer_at(place, request)
    }

    async fn answer_at(self, place: usize, request: Request<WasiBody>) -> Result<Answer, Error> {
        let (parts, body) = request.into_parts();
        let mut asked = Asked::of(&parts);
        let number = place + 1;
        let Some(exchange) = self.exchanges.get(place) else {
            self.differs(format!(
                "request {number} is one more than were recorded: {} {}",
                asked.method, asked.uri
            ));
            return Err(Error::InternalError(None));
        };
        // As far as it was sent then, it is sent now.
        if exchange.asked.body.is_some() {
            let sent = body.collect().await.map(|sent| sent.to_bytes());
            asked.body = sent.ok().map(|bytes| Digest::of(&bytes));
        }
        if asked != exchange.asked {
            let then = &exchange.asked;
            self.differs(
                if (&asked.method, &asked.uri) == (&then.method, &then.uri) {
                    format!(
                        "request {number}, {} {}, has other fields or another body",
                        asked.method, asked.uri
                    )
                } else {
                    format!(
                        "request {number} is {} {}, and was {} {}",
                        asked.method, asked.uri, then.method, then.uri
                    )
                },
            );
            return Err(Error::InternalError(None));
        }
        match &exchange.answered {
            // Nobody waited for it.
            None => std::future::pending().await,
            Some(Answered::Refused { error }) => Err(error.error()),
            Some(Answered::Response {
                status,
                fields,
                body,
                error,
            }) => {
                let bytes = match body {
                    Some(digest) => self.recordings.get(digest).map_err(|error| {
                        self.differs(error.to_string());
                        Error::InternalError(None)
                    })?,
                    None => Vec::new(),
                };
                let frames = [
                    (!bytes.is_empty()).then(|| Ok(Frame::data(Bytes::from(bytes)))),
                    error.map(|error| Err(error.error())),
                ];
                let frames: Vec<FrameResult> = frames.into_iter().flatten().collect();
                let mut response = Response::new(Again(frames.into_iter()).boxed_unsync());
                *response.status_mut() =
                    http::StatusCode::from_u16(*status).map_err(|_| Error::HttpProtocolError)?;
                *response.headers_mut() = headers_of(fields);
                Ok((response, Box::new(std::future::ready(Ok(())))))
            }
        }
    }
}

fn headers_of(fields: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        if let (Ok(name), Some(value)) = (name.parse::<HeaderName>(), value_of(value)) {
            headers.append(name, value);
        }
    }
    headers
}

type FrameResult = Result<Frame<Bytes>, Error>;

/// A body that is there already.
struct Again(std::vec::IntoIter<FrameResult>);

impl Body for Again {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<FrameResult>> {
        Poll::Ready(self.0.next())
    }
}
