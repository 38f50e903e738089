//! A connector that asks over HTTP: a row with a column `content` that holds the status, the fields
//! and the body of the answer, or the failure.

use std::fmt::Write;

use sandcast_sdk::bindings::imports::wasi::http::outgoing_handler;
use sandcast_sdk::bindings::imports::wasi::http::types::{Fields, Method, OutgoingRequest, Scheme};
use sandcast_sdk::columns::{Rows, field};
use sandcast_sdk::http::Request;
use sandcast_sdk::{Chunk, Connector, Failure, Field, Kind, ScanRequest, Split};
use serde::Deserialize;

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Behaviour {
    /// Once, by the SDK.
    #[default]
    Ask,
    /// As often as `times` says, one after the other; the last answer counts.
    AskAgain,
    /// As often as `times` says, without waiting for an answer.
    AskAtOnce,
    /// With `url` as the authority and `path` as the target, both as they stand.
    AskRaw,
    /// And leaves the answer unread.
    Leave,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    behaviour: Behaviour,
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    fields: Vec<(String, String)>,
    /// Bytes of the body.
    #[serde(default)]
    body_bytes: usize,
    #[serde(default = "one")]
    times: u32,
}

fn get() -> String {
    "GET".into()
}

fn one() -> u32 {
    1
}

struct Caller {
    config: Config,
    done: bool,
}

impl Caller {
    fn request(&self) -> Request {
        let config = &self.config;
        let fields = config.fields.iter();
        fields.fold(
            Request::new(&config.method, &config.url).body(vec![b'x'; config.body_bytes]),
            |request, (name, value)| request.field(name, value.as_bytes()),
        )
    }

    fn ask(&self) -> Result<String, Failure> {
        let answer = self.request().send()?;
        let mut content = answer.status.to_string();
        for (name, value) in &answer.fields {
            let value = String::from_utf8_lossy(value);
            let _ = write!(content, " {name}={value}");
        }
        let body = answer.bytes(1 << 20)?;
        let _ = write!(content, ": {}", String::from_utf8_lossy(&body));
        Ok(content)
    }

    fn raw(&self) -> Result<String, Failure> {
        let unwritable = |()| Failure::unsupported("the host did not take it");
        let request = OutgoingRequest::new(Fields::new());
        let method = match self.config.method.as_str() {
            "GET" => Method::Get,
            other => Method::Other(other.to_owned()),
        };
        request.set_method(&method).map_err(unwritable)?;
        request
            .set_scheme(Some(&Scheme::Http))
            .map_err(unwritable)?;
        request
            .set_authority(Some(&self.config.url))
            .map_err(unwritable)?;
        request
            .set_path_with_query(Some(&self.config.path))
            .map_err(unwritable)?;
        let pending = outgoing_handler::handle(request, None)
            .map_err(|code| Failure::denied(code.to_string()))?;
        pending.subscribe().block();
        match pending.get() {
            Some(Ok(Ok(answer))) => Ok(answer.status().to_string()),
            Some(Ok(Err(code))) => Err(Failure::denied(code.to_string())),
            _ => Err(Failure::internal("no answer")),
        }
    }

    /// Makes `times` requests before it looks at any answer.
    fn at_once(&self) -> Result<String, Failure> {
        let mut pending = Vec::new();
        for _ in 0..self.config.times {
            let request = OutgoingRequest::new(Fields::new());
            let (authority, path) = self.config.url["http://".len()..]
                .split_once('/')
                .unwrap_or_default();
            let target = format!("/{path}");
            let made = request
                .set_scheme(Some(&Scheme::Http))
                .and_then(|()| request.set_authority(Some(authority)))
                .and_then(|()| request.set_path_with_query(Some(&target)));
            made.map_err(|()| Failure::internal("not taken"))?;
            pending.push(
                outgoing_handler::handle(request, None)
                    .map_err(|code| Failure::exhausted(code.to_string()))?,
            );
        }
        let mut told = Vec::new();
        for one in pending {
            one.subscribe().block();
            told.push(match one.get() {
                Some(Ok(Ok(answer))) => answer.status().to_string(),
                Some(Ok(Err(code))) => code.to_string(),
                _ => "nothing".to_owned(),
            });
        }
        Ok(told.join(", "))
    }

    fn content(&self) -> Result<String, Failure> {
        match self.config.behaviour {
            Behaviour::Ask => self.ask(),
            Behaviour::AskAgain => (1..self.config.times)
                .try_fold((), |(), _| self.ask().map(|_| ()))
                .and_then(|()| self.ask()),
            Behaviour::AskAtOnce => self.at_once(),
            Behaviour::AskRaw => self.raw(),
            Behaviour::Leave => Ok(self.request().send()?.status.to_string()),
        }
    }
}

impl Connector for Caller {
    type Config = Config;

    fn open(config: Config) -> Result<Self, Failure> {
        Ok(Self {
            config,
            done: false,
        })
    }

    fn schema(&mut self) -> Result<Vec<Field>, Failure> {
        Ok(vec![field("content", Kind::Utf8, false)])
    }

    fn partitions(&mut self) -> Result<Vec<Split>, Failure> {
        Ok(vec![Split::whole("all")])
    }

    fn scan(&mut self, _request: ScanRequest) -> Result<(), Failure> {
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Chunk>, Failure> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(None);
        }
        let content = self.content()?;
        Ok(Some(
            Rows::new().utf8("content", [Some(content)]).into_chunk()?,
        ))
    }
}

sandcast_sdk::export_connector!(Caller);
