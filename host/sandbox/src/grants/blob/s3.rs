//! Buckets of S3, over connections of our own: to the endpoint that the operator names and nowhere else, signed
//! with the credentials that the operator names and no others.
//!
//! What a server answers is bounded before it is read and checked before it is believed, and nothing that it
//! says of a mistake is repeated. What reads is tried again a little, what writes is not.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HOST, HeaderName, HeaderValue, IF_MATCH,
    IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::task::JoinHandle;
use wasmtime_wasi_http::Error as HttpError;

use super::super::http::{Destination, MAX_FIELD_BYTES, connect};
use super::key::MAX_KEY_BYTES;
use super::listing::{self, tag_of};
use super::signing::{Keys, Signed, authorization, digest_of, path_of, query_of};
use super::store::Endpoint;
use super::{Answer, Ask, Blob, BlobGrant, BlobStore, Condition, Entry, Found, Most, Trouble};

/// How often something that reads is tried.
const ATTEMPTS: u32 = 3;

/// How long is waited before it is tried again, the first time.
const PAUSE: Duration = Duration::from_millis(100);

/// Fields of an answer.
const MAX_FIELDS: usize = 128;

/// Bytes of a page: a thousand keys of 1024 bytes, escaped, and what stands around them.
const MAX_PAGE_BYTES: u64 = 8 << 20;

/// A bucket, as it is asked once.
pub(super) struct Bucket<'a> {
    grant: &'a BlobGrant,
    store: &'a BlobStore,
    name: &'a str,
    /// What its keys begin with.
    own: &'a str,
    endpoint: Endpoint,
    region: &'a str,
    keys: Option<Keys>,
}

impl<'a> Bucket<'a> {
    pub(super) fn new(
        grant: &'a BlobGrant,
        store: &'a BlobStore,
        name: &'a str,
        own: &'a str,
    ) -> Result<Self, Trouble> {
        let keys = keys_of(store).map_err(|what| {
            tracing::warn!(%what, "a store cannot be asked");
            Trouble::Away("the credentials of the store cannot be read".to_owned())
        })?;
        Ok(Self {
            grant,
            store,
            name,
            own,
            endpoint: store.endpoint().map_err(Trouble::Away)?,
            region: store.region().map_err(Trouble::Away)?,
            keys,
        })
    }

    pub(super) async fn ask(&self, ask: &Ask) -> Result<Answer, Trouble> {
        match ask {
            Ask::List {
                prefix,
                cursor,
                limit,
            } => self.list(prefix, cursor.as_deref(), *limit).await,
            Ask::Head { key } => {
                let reply = self.read(&Wanted::of(Method::HEAD, key)).await?;
                Ok(Answer::Head(match reply.status {
                    StatusCode::NOT_FOUND => None,
                    _ => Some(reply.entry(key, reply.length()?)),
                }))
            }
            Ask::Get { key, range, most } => self.get(key, *range, most).await,
            Ask::Put {
                key,
                bytes,
                condition,
            } => self.put(key, bytes.0.clone(), condition).await,
            Ask::Delete { key } => {
                let reply = self.once(&Wanted::of(Method::DELETE, key)).await;
                let reply = reply.map_err(|lost| lost.of_writing())?;
                reply.succeeded(&[StatusCode::NOT_FOUND])?;
                Ok(Answer::Deleted)
            }
        }
    }

    async fn list(
        &self,
        prefix: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Answer, Trouble> {
        let mut query = vec![
            ("list-type", "2".to_owned()),
            ("max-keys", limit.to_string()),
            ("prefix", format!("{}{prefix}", self.own)),
        ];
        query.extend(cursor.map(|cursor| ("continuation-token", cursor.to_owned())));
        let reply = self
            .read(&Wanted {
                query: query_of(&query),
                ..Wanted::new(Method::GET)
            })
            .await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Err(Trouble::Away("the store has no such bucket".to_owned()));
        }
        let body = reply.body(MAX_PAGE_BYTES).await?;
        let wrong = |what: &str| Trouble::Away(format!("what the store answered {what}"));
        let listing = body
            .ok_or("is too long")
            .and_then(|body| listing::read(&body));
        let listing = listing.map_err(wrong)?;
        let entries = listing::below(listing.entries, self.own, prefix, limit).map_err(wrong)?;
        Ok(Answer::Page {
            entries,
            cursor: listing.next,
        })
    }

    async fn get(
        &self,
        key: &str,
        range: Option<(u64, u64)>,
        most: &Most,
    ) -> Result<Answer, Trouble> {
        let mut wanted = Wanted::of(Method::GET, key);
        if let Some((offset, length)) = range {
            let last = offset.saturating_add(length - 1);
            wanted
                .fields
                .push((RANGE, format!("bytes={offset}-{last}")));
        }
        let reply = self.read(&wanted).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(Answer::Object(None));
        }
        let strange =
            || Trouble::Away("the store answered with another part than was asked for".into());
        let (size, part) = match range {
            None if reply.status == StatusCode::OK => (None, None),
            Some((offset, length)) if reply.status == StatusCode::PARTIAL_CONTENT => {
                let (from, to, size) = content_range(&reply.headers).ok_or_else(strange)?;
                let last = offset
                    .saturating_add(length - 1)
                    .min(size.saturating_sub(1));
                if from != offset || to != last || to < from {
                    return Err(strange());
                }
                (Some(size), Some(to - from + 1))
            }
            _ => return Err(strange()),
        };
        if let Some(length) = reply.declared() {
            most.allows(length)?;
        }
        let mut entry = reply.entry(key, 0);
        let body = reply.body(most.bytes).await?;
        let body = body.ok_or_else(|| most.over())?;
        let length = body.len() as u64;
        if part.is_some_and(|part| part != length) {
            return Err(strange());
        }
        entry.size = size.unwrap_or(length);
        Ok(Answer::Object(Some(Found {
            entry,
            bytes: Blob(body),
        })))
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: &Condition) -> Result<Answer, Trouble> {
        let mut wanted = Wanted::of(Method::PUT, key);
        wanted.body = bytes;
        match condition {
            Condition::Always => {}
            Condition::IfAbsent => wanted.fields.push((IF_NONE_MATCH, "*".to_owned())),
            Condition::IfMatch(tag) => wanted.fields.push((IF_MATCH, tag.clone())),
        }
        let reply = self.once(&wanted).await.map_err(|lost| lost.of_writing())?;
        let unmet = match condition {
            Condition::Always => &[][..],
            Condition::IfAbsent => &[StatusCode::PRECONDITION_FAILED, StatusCode::NOT_MODIFIED],
            // Nothing is there that could have the tag.
            Condition::IfMatch(_) => &[StatusCode::PRECONDITION_FAILED, StatusCode::NOT_FOUND],
        };
        if unmet.contains(&reply.status) {
            return Ok(Answer::Unmet);
        }
        reply.succeeded(&[])?;
        Ok(Answer::Written(reply.tag()))
    }

    /// Something that reads: what the store says of the object, or that there is none. It is tried again where
    /// the store is not there or is too busy, within its time.
    async fn read(&self, wanted: &Wanted) -> Result<Reply, Trouble> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            let trouble = match self.once(wanted).await {
                Ok(reply) if !is_busy(reply.status) => {
                    reply.succeeded(&[StatusCode::NOT_FOUND])?;
                    return Ok(reply);
                }
                Ok(reply) => reply.trouble(),
                Err(Lost::Never(trouble)) => return Err(trouble),
                Err(Lost::Perhaps) => Trouble::Away("the store does not answer".to_owned()),
            };
            if attempt >= ATTEMPTS {
                return Err(trouble);
            }
            tokio::time::sleep(pause).await;
            pause *= 4;
        }
        Err(Trouble::Away("the store does not answer".to_owned()))
    }

    /// One request, and the beginning of its answer.
    async fn once(&self, wanted: &Wanted) -> Result<Reply, Lost> {
        let request = self.signed(wanted).map_err(Lost::Never)?;
        let destination = Destination {
            host: &self.endpoint.host,
            port: self.endpoint.port,
            scheme: self.endpoint.scheme,
            networks: &self.store.networks,
            certificate_authority: self.store.certificate_authority.as_deref(),
        };
        let stream = connect(&destination).await.map_err(|error| match error {
            HttpError::DestinationIpProhibited => Lost::Never(Trouble::Refused {
                line: format!("stores.{}.networks", self.grant.store),
                what: "the store is at an address that is not public".to_owned(),
            }),
            error => {
                tracing::warn!(%error, "a store cannot be reached");
                Lost::Perhaps
            }
        })?;
        let handshake = hyper::client::conn::http1::Builder::new()
            .max_headers(MAX_FIELDS)
            .max_buf_size(MAX_FIELD_BYTES)
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream));
        let lost = |error: hyper::Error| {
            tracing::warn!(%error, "a store does not answer");
            Lost::Perhaps
        };
        let (mut sender, connection) = handshake.await.map_err(lost)?;
        let driven = Driven(tokio::spawn(async move {
            // What was lost is seen by who waits for the answer.
            let _ = connection.await;
        }));
        let answer = sender.send_request(request).await.map_err(lost)?;
        let (parts, body) = Response::into_parts(answer);
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            body,
            _driven: driven,
        })
    }

    fn signed(&self, wanted: &Wanted) -> Result<Request<Full<Bytes>>, Trouble> {
        let wrong = |_: http::Error| Trouble::Wrong("this cannot be asked of a store".to_owned());
        let key = wanted.key.as_ref().map(|key| format!("{}{key}", self.own));
        if key.as_ref().is_some_and(|key| key.len() > MAX_KEY_BYTES) {
            return Err(Trouble::Wrong(
                "the key is too long for its store".to_owned(),
            ));
        }
        let path = path_of(self.name, key.as_deref());
        let target = match wanted.query.is_empty() {
            true => path.clone(),
            false => format!("{path}?{}", wanted.query),
        };
        let host = self.endpoint.authority();
        let payload = digest_of(&wanted.body);
        let at = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut request = Request::builder()
            .method(&wanted.method)
            .uri(target)
            .header(HOST, &host);
        if wanted.method == Method::PUT {
            request = request.header(CONTENT_LENGTH, wanted.body.len());
        }
        for (name, value) in &wanted.fields {
            request = request.header(name, value);
        }
        if let Some(keys) = &self.keys {
            let mut headers = vec![
                ("host", host.as_str()),
                ("x-amz-content-sha256", payload.as_str()),
                ("x-amz-date", at.as_str()),
            ];
            headers.extend(
                keys.token
                    .as_deref()
                    .map(|token| ("x-amz-security-token", token)),
            );
            let signature = authorization(
                keys,
                &Signed {
                    region: self.region,
                    at: &at,
                    method: wanted.method.as_str(),
                    path: &path,
                    query: &wanted.query,
                    headers: &headers,
                    payload: &payload,
                },
            );
            for (name, value) in &headers[1..] {
                let mut value =
                    HeaderValue::try_from(*value).map_err(|error| wrong(error.into()))?;
                value.set_sensitive(true);
                request = request.header(*name, value);
            }
            let mut value =
                HeaderValue::try_from(signature).map_err(|error| wrong(error.into()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::new(wanted.body.clone())).map_err(wrong)
    }
}

/// Reads what requests are signed with. The error never holds any of it.
fn keys_of(store: &BlobStore) -> Result<Option<Keys>, String> {
    let Some(credentials) = &store.credentials else {
        return Ok(None);
    };
    let text = |source: &super::super::SecretSource| {
        let secret = source.read()?;
        let text = std::str::from_utf8(secret.bytes()).map_err(|_| "is not UTF-8".to_owned())?;
        Ok::<_, String>(text.to_owned())
    };
    Ok(Some(Keys {
        access: text(&credentials.access_key)?,
        secret: credentials.secret_key.read()?,
        token: credentials.session_token.as_ref().map(text).transpose()?,
    }))
}

/// A request, before it is signed.
struct Wanted {
    method: Method,
    /// Without what the store's keys begin with; none for the bucket itself.
    key: Option<String>,
    query: String,
    fields: Vec<(HeaderName, String)>,
    body: Bytes,
}

impl Wanted {
    fn new(method: Method) -> Self {
        Self {
            method,
            key: None,
            query: String::new(),
            fields: Vec::new(),
            body: Bytes::new(),
        }
    }

    fn of(method: Method, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..Self::new(method)
        }
    }
}

/// Why there is no answer.
enum Lost {
    /// Nothing was sent, and nothing will be.
    Never(Trouble),
    /// It is not known whether it arrived.
    Perhaps,
}

impl Lost {
    fn of_writing(self) -> Trouble {
        match self {
            Self::Never(trouble) => trouble,
            Self::Perhaps => Trouble::Away(
                "the store does not answer, and it is not known whether it was done".to_owned(),
            ),
        }
    }
}

/// The work of a connection, which ends with whoever waits for it.
struct Driven(JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body is not read yet.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    _driven: Driven,
}

fn is_busy(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

impl Reply {
    /// Whether it was done, or came to one of these.
    fn succeeded(&self, or: &[StatusCode]) -> Result<(), Trouble> {
        match self.status.is_success() || or.contains(&self.status) {
            true => Ok(()),
            false => Err(self.trouble()),
        }
    }

    /// What it was, in our own words: what a server says of it is not repeated.
    fn trouble(&self) -> Trouble {
        let status = self.status;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Trouble::Forbidden,
            StatusCode::RANGE_NOT_SATISFIABLE => {
                Trouble::Wrong("the object ends before that part begins".to_owned())
            }
            _ if status.is_redirection() => Trouble::Away(
                "the store sends elsewhere, where nobody goes; its endpoint or region may be another"
                    .to_owned(),
            ),
            _ => Trouble::Away(format!("the store answered with status {}", status.as_u16())),
        }
    }

    /// How long its body says that it is.
    fn declared(&self) -> Option<u64> {
        self.headers
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }

    fn length(&self) -> Result<u64, Trouble> {
        self.declared().ok_or_else(|| {
            Trouble::Away("the store does not say how long the object is".to_owned())
        })
    }

    fn tag(&self) -> Option<String> {
        tag_of(self.headers.get(ETAG)?.to_str().ok()?)
    }

    fn entry(&self, key: &str, size: u64) -> Entry {
        let time = self.headers.get(LAST_MODIFIED);
        let time = time.and_then(|time| time.to_str().ok());
        let time = time.and_then(|time| jiff::fmt::rfc2822::parse(time).ok());
        Entry {
            key: key.to_owned(),
            size,
            etag: self.tag(),
            modified: time.map(|time| time.timestamp().as_second()),
        }
    }

    /// Its body; nothing where it is longer than that.
    async fn body(mut self, most: u64) -> Result<Option<Bytes>, Trouble> {
        let mut whole = Vec::new();
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| {
                tracing::warn!(%error, "the answer of a store was cut off");
                Trouble::Away("the answer of the store was cut off".to_owned())
            })?;
            let Some(data) = frame.data_ref() else {
                continue;
            };
            if (whole.len() + data.len()) as u64 > most {
                return Ok(None);
            }
            whole.extend_from_slice(data);
        }
        Ok(Some(whole.into()))
    }
}

/// The first and the last byte of a part, and how many there are of all (RFC 9110, 14.4).
fn content_range(headers: &HeaderMap) -> Option<(u64, u64, u64)> {
    let said = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (part, size) = said.strip_prefix("bytes ")?.split_once('/')?;
    let (from, to) = part.split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()?, size.parse().ok()?))
}
