//! Requests over HTTP, to the hosts that the operator grants.
//!
//! The host of the plugin looks names up, speaks TLS, puts credentials in and bounds sizes and times.
//! It follows no redirect: one comes back as the answer that it is.
//!
//! ```no_run
//! use std::io::Read;
//! use sandcast_sdk::http::Request;
//!
//! # fn main() -> Result<(), sandcast_sdk::Failure> {
//! let mut answer = Request::get("https://api.example.com/v1/customers?page=1")
//!     .field("accept", "text/csv")
//!     .send()?
//!     .expect_success()?;
//! let mut text = String::new();
//! answer.by_ref().take(1 << 20).read_to_string(&mut text)?;
//! # Ok(()) }
//! ```

use std::io;

use crate::bindings::imports::wasi::http::outgoing_handler;
use crate::bindings::imports::wasi::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, Scheme,
};
use crate::bindings::imports::wasi::io::streams::{InputStream, StreamError};
use crate::{Failure, FailureCode};

/// How much one call into the host reads or writes.
const BLOCK_BYTES: u64 = 256 * 1024;

/// What one call may write to a stream (`wasi:io/streams`, `blocking-write-and-flush`).
const WRITE_BYTES: usize = 4096;

/// A request that is being made up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    method: String,
    url: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    /// A request of any method for an address such as `https://api.example.com/v1`.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self {
            method: method.to_owned(),
            url: url.into(),
            fields: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST` of some bytes.
    pub fn post(url: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", url).body(body)
    }

    /// Adds a field of the header.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it and waits for the beginning of the answer, whatever its status.
    ///
    /// # Errors
    /// `invalid-input` for an address or a field that is none, `denied` when no grant covers it,
    /// `exhausted` when a bound is reached, `unavailable` when the host does not answer.
    pub fn send(self) -> Result<Response, Failure> {
        let address = Address::of(&self.url).ok_or_else(|| {
            Failure::invalid_input(format!("`{}` is not an address of HTTP", self.url))
        })?;
        let told = |code: &ErrorCode| failure(&self.method, &address, code);
        let fields = Fields::new();
        for (name, value) in &self.fields {
            fields
                .append(name, value)
                .map_err(|error| refused_field(name, &error))?;
        }
        if !self.body.is_empty() {
            let length = self.body.len().to_string();
            fields
                .set("content-length", &[length.into_bytes()])
                .map_err(|error| refused_field("content-length", &error))?;
        }
        let request = OutgoingRequest::new(fields);
        let unwritable = || Failure::invalid_input(format!("`{}` cannot be asked", self.url));
        request
            .set_method(&method_of(&self.method))
            .and_then(|()| request.set_scheme(Some(&address.scheme)))
            .and_then(|()| request.set_authority(Some(address.authority)))
            .and_then(|()| request.set_path_with_query(Some(address.target)))
            .map_err(|()| unwritable())?;
        let body = request.body().map_err(|()| unwritable())?;
        let pending = outgoing_handler::handle(request, None).map_err(|code| told(&code))?;
        let written = write(&body, &self.body);
        // A body that was cut short by the host shows in the answer.
        let finished = OutgoingBody::finish(body, None);
        pending.subscribe().block();
        let answer = match pending.get() {
            Some(Ok(Ok(answer))) => answer,
            Some(Ok(Err(code))) => return Err(told(&code)),
            _ => return Err(Failure::internal("an answer that was taken already")),
        };
        written.and(finished.map_err(|code| told(&code)))?;
        Response::of(address.text(&self.method), &answer)
    }
}

/// Writes a body, as far as the host takes it.
fn write(body: &OutgoingBody, bytes: &[u8]) -> Result<(), Failure> {
    let stream = body
        .write()
        .map_err(|()| Failure::internal("a body that was written already"))?;
    for block in bytes.chunks(WRITE_BYTES) {
        match stream.blocking_write_and_flush(block) {
            Ok(()) => {}
            // The other side has answered, or the host has had enough: the answer says which.
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(Failure::unavailable(error.to_debug_string()));
            }
        }
    }
    Ok(())
}

/// An answer: its status, its fields, and its body to be read.
#[derive(Debug)]
pub struct Response {
    /// The status, such as 200.
    pub status: u16,
    /// The fields of the header, names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    asked: String,
    // In the order in which they must be dropped.
    stream: InputStream,
    _body: IncomingBody,
    ended: bool,
}

impl Response {
    fn of(asked: String, answer: &IncomingResponse) -> Result<Self, Failure> {
        let taken = |()| Failure::internal("a body that was taken already");
        let body = answer.consume().map_err(taken)?;
        Ok(Self {
            status: answer.status(),
            fields: answer.headers().entries(),
            asked,
            stream: body.stream().map_err(taken)?,
            _body: body,
            ended: false,
        })
    }

    /// The value of a field, if it is there and is text.
    pub fn field(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .fields
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The answer, if its status says that all is well.
    ///
    /// # Errors
    /// `denied` for 401, 403 and 407, `exhausted` for 429, `invalid-input` for other statuses from
    /// 400 on, redirects among them; `unavailable` from 500 on.
    pub fn expect_success(self) -> Result<Self, Failure> {
        let code = match self.status {
            200..=299 => return Ok(self),
            401 | 403 | 407 => FailureCode::Denied,
            429 => FailureCode::Exhausted,
            500.. => FailureCode::Unavailable,
            _ => FailureCode::InvalidInput,
        };
        let message = format!("{}: the answer is {}", self.asked, self.status);
        Err(Failure::new(code, message))
    }

    /// The whole body.
    ///
    /// # Errors
    /// `exhausted` when it is longer than `limit` bytes; whatever keeps it from being read.
    pub fn bytes(mut self, limit: usize) -> Result<Vec<u8>, Failure> {
        use io::Read as _;
        let mut bytes = Vec::new();
        let most = limit as u64 + 1;
        self.by_ref().take(most).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            let message = format!("{}: the answer is longer than {limit} bytes", self.asked);
            return Err(Failure::exhausted(message));
        }
        Ok(bytes)
    }
}

impl io::Read for Response {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !into.is_empty() {
            match self
                .stream
                .blocking_read(BLOCK_BYTES.min(into.len() as u64))
            {
                Ok(block) if block.is_empty() => {}
                Ok(block) => {
                    into[..block.len()].copy_from_slice(&block);
                    return Ok(block.len());
                }
                Err(StreamError::Closed) => self.ended = true,
                Err(StreamError::LastOperationFailed(error)) => {
                    self.ended = true;
                    let asked = &self.asked;
                    let message = format!("{asked}: cut off: {}", error.to_debug_string());
                    return Err(io::Error::other(Failure::unavailable(message)));
                }
            }
        }
        Ok(0)
    }
}

/// An address in its parts.
struct Address<'a> {
    scheme: Scheme,
    authority: &'a str,
    /// The path with the query.
    target: &'a str,
}

impl<'a> Address<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let scheme = match scheme {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            other => Scheme::Other(other.to_owned()),
        };
        // A fragment is for whoever asked.
        let rest = rest.split('#').next()?;
        let (authority, target) = match rest.find(['/', '?']) {
            None => (rest, "/"),
            Some(at) => rest.split_at(at),
        };
        (!authority.is_empty()).then_some(Self {
            scheme,
            authority,
            target,
        })
    }

    /// What was asked, without the query.
    fn text(&self, method: &str) -> String {
        let path = self.target.split('?').next().unwrap_or_default();
        format!("{method} {}{path}", self.authority)
    }
}

fn method_of(method: &str) -> Method {
    match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn refused_field(name: &str, error: &HeaderError) -> Failure {
    match error {
        HeaderError::Forbidden => Failure::denied(format!("the host sets the field `{name}`")),
        _ => Failure::invalid_input(format!("`{name}` and its value are not a field")),
    }
}

fn failure(method: &str, address: &Address<'_>, code: &ErrorCode) -> Failure {
    let kind = match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => FailureCode::Denied,
        ErrorCode::ConnectionLimitReached
        | ErrorCode::HttpRequestBodySize(_)
        | ErrorCode::HttpResponseBodySize(_)
        | ErrorCode::HttpResponseHeaderSectionSize(_) => FailureCode::Exhausted,
        ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestMethodInvalid => {
            FailureCode::InvalidInput
        }
        _ => FailureCode::Unavailable,
    };
    Failure::new(kind, format!("{}: {}", address.text(method), words(code)))
}

/// What an error comes to for whoever reads it.
fn words(code: &ErrorCode) -> String {
    let words = match code {
        ErrorCode::HttpRequestDenied => "not granted",
        ErrorCode::DestinationIpProhibited => "it stands for an address that is not granted",
        ErrorCode::ConnectionLimitReached => "no more requests are granted",
        ErrorCode::HttpRequestBodySize(_) => "the request is longer than is granted",
        ErrorCode::HttpResponseBodySize(_) => "the answer is longer than is granted",
        ErrorCode::HttpRequestUriInvalid => "this is not an address",
        ErrorCode::DnsError(_) => "the name of the host is not known",
        ErrorCode::ConnectionRefused => "the connection was refused",
        ErrorCode::ConnectionTimeout => "no connection in time",
        ErrorCode::HttpResponseTimeout | ErrorCode::ConnectionReadTimeout => "no answer in time",
        ErrorCode::TlsProtocolError | ErrorCode::TlsCertificateError => {
            "the host could not show that it is the one"
        }
        ErrorCode::HttpProtocolError => "the answer is not one of HTTP, or was cut off",
        other => return other.to_string(),
    };
    words.to_owned()
}
