//! Requests over HTTP, by `wasi:http`: to the hosts, ports, methods and paths that are granted.
//!
//! A request is checked before anything is done: where it goes by its name, then, once the name is
//! looked up, by every address it stands for; the connection is made to an address that was checked,
//! so a name that changes its mind gains nothing. Redirects are answers like any other: whoever
//! follows one asks again, and is checked again. Credentials are put in by the host and are never in
//! the guest. Each request is on record before it is sent.

mod address;
mod bounds;
mod exchange;
mod rate;
mod secrecy;
mod send;
mod target;

use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wasmtime::component::Linker;
use wasmtime_wasi_http::p2::bindings::http::{outgoing_handler, types};
use wasmtime_wasi_http::{WasiHttp, WasiHttpCtx, WasiHttpCtxView};

use super::secrets::{SecretSource, sentence_of};
use super::{ByteSize, TimeSpan};
use crate::conduct::Watch;
use crate::effect::Actor;
use crate::state::State;
use crate::text;
pub(crate) use address::Lookups;
pub(super) use address::{is_public, look_up, plain};
pub(crate) use exchange::{Exchange, Exchanges, Given, Kept};
pub(crate) use rate::Rates;
use send::Sender;
pub(super) use send::{Destination, connect, roots};
pub(super) use target::host_of;

/// Bytes of the fields of a request or an answer, as they are held in memory.
pub(super) const MAX_FIELD_BYTES: usize = 64 << 10;

/// Bytes of what is said of a request in a record.
const MAX_TARGET_BYTES: usize = 512;

/// Requests of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpGrant {
    /// The name of the host, such as `api.example.com`; `*.example.com` stands for every name below
    /// `example.com`, and not for itself.
    pub host: String,
    /// `https` unless it is said otherwise.
    #[serde(default)]
    pub scheme: HttpScheme,
    /// The port; that of the scheme unless it is said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
    /// What may be asked: `GET` and `HEAD` unless it is said otherwise.
    #[serde(default = "reading")]
    pub methods: Vec<HttpMethod>,
    /// What paths begin with, whole segments of it.
    #[serde(default = "root")]
    pub path: String,
    /// Networks that the host may be in although they are not public, such as `10.1.0.0/16`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub networks: Vec<IpNet>,
    /// What the host puts into every request, and the plugin never sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<HttpCredential>,
    /// A PEM file with the certificate authorities to trust in place of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<PathBuf>,
    /// Requests of one instance.
    #[serde(default = "many_requests")]
    pub requests: NonZeroU32,
    /// Requests in a minute, of all instances of the plugin together; not bounded unless it is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Requests of one instance that are under way at one time.
    #[serde(default = "few_at_once")]
    pub at_once: NonZeroU32,
    /// Bytes of the body of a request.
    #[serde(default = "small_request")]
    pub request_bytes: ByteSize,
    /// Bytes of the body of an answer.
    #[serde(default = "large_answer")]
    pub response_bytes: ByteSize,
    /// How long a request may take, to the end of its answer.
    #[serde(default = "half_a_minute")]
    pub timeout: TimeSpan,
}

fn reading() -> Vec<HttpMethod> {
    vec![HttpMethod::Get, HttpMethod::Head]
}

fn root() -> String {
    "/".to_owned()
}

fn many_requests() -> NonZeroU32 {
    NonZeroU32::new(1000).unwrap_or(NonZeroU32::MIN)
}

fn few_at_once() -> NonZeroU32 {
    NonZeroU32::new(8).unwrap_or(NonZeroU32::MIN)
}

fn small_request() -> ByteSize {
    ByteSize::from_mib(1)
}

fn large_answer() -> ByteSize {
    ByteSize::from_mib(64)
}

fn half_a_minute() -> TimeSpan {
    TimeSpan::from_secs(30)
}

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpScheme {
    /// Over TLS.
    #[default]
    Https,
    /// In the clear.
    Http,
}

impl HttpScheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// What may be asked of a host. `CONNECT` and `TRACE` cannot be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "RFC 9110 and RFC 5789 say what they mean")]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl HttpMethod {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }

    fn of(method: &http::Method) -> Option<Self> {
        [
            Self::Get,
            Self::Head,
            Self::Post,
            Self::Put,
            Self::Patch,
            Self::Delete,
            Self::Options,
        ]
        .into_iter()
        .find(|known| known.as_str() == method.as_str())
    }
}

/// A field that the host puts into requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCredential {
    /// The name of the field.
    #[serde(default = "authorization")]
    pub header: String,
    /// What stands before the secret, such as `Bearer `.
    #[serde(default)]
    pub prefix: String,
    /// Where the secret comes from.
    pub secret: SecretSource,
}

fn authorization() -> String {
    "authorization".to_owned()
}

/// Says whether a grant can be given at all.
pub(crate) fn check(grant: &HttpGrant) -> Result<(), String> {
    check_target(grant)?;
    if let Some(credential) = &grant.credential {
        credential
            .secret
            .read()
            .map_err(|what| sentence_of(&credential.secret, &what))?;
    }
    roots(grant.certificate_authority.as_deref()).map(|_| ())
}

/// Says whether a grant makes sense, wherever it is given.
pub(crate) fn check_target(grant: &HttpGrant) -> Result<(), String> {
    let host = &grant.host;
    let name = host.strip_prefix("*.").unwrap_or(host);
    if host_of(name).as_deref() != Some(name) {
        return Err(format!(
            "`{host}` is not a host; write a name in lower case like api.example.com, \
             *.example.com, or an address, without scheme, port or path"
        ));
    }
    if name != host && (name.parse::<std::net::IpAddr>().is_ok() || !name.contains('.')) {
        return Err(format!(
            "`{host}` stands for too much; write it like *.example.com"
        ));
    }
    if grant.methods.is_empty() {
        return Err(
            "`methods` is empty, so nothing may be asked; leave it out for GET and HEAD".into(),
        );
    }
    target::check_path(&grant.path)
        .map_err(|what| format!("the path `{}` {what}", text::sentence(&grant.path, 128)))?;
    if grant.path.contains('?') {
        return Err(format!(
            "the path `{}` has a query; leave it out",
            grant.path
        ));
    }
    if let Some(credential) = &grant.credential {
        send::check_credential(credential)?;
        if grant.scheme == HttpScheme::Http && !send::is_local(grant) {
            return Err(format!(
                "a credential for `{host}` would be sent in the clear; use https"
            ));
        }
    }
    Ok(())
}

/// Which grant covers a request, by its method and address.
pub(crate) fn covering(
    grants: &[HttpGrant],
    method: &http::Method,
    uri: &http::Uri,
) -> Result<usize, String> {
    target::Target::of(method, uri)?.covered_by(grants)
}

/// What an instance has of HTTP.
pub(crate) struct HttpState {
    context: WasiHttpCtx,
    sender: Sender,
}

impl HttpState {
    pub(crate) fn new(actor: Arc<Actor>, watch: Watch, exchanges: Option<Exchanges>) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(MAX_FIELD_BYTES);
        Self {
            context,
            sender: Sender::new(actor, watch, exchanges),
        }
    }

    /// A request that was not sent, because the plugin's requests never go there.
    pub(crate) fn strayed(&self) -> Option<&str> {
        self.sender.strayed.as_deref()
    }

    /// Requests that the guest has asked for, refused ones too.
    pub(crate) fn calls(&self) -> u64 {
        self.sender.calls
    }
}

impl State {
    /// What answers, on the state of an instance.
    pub(crate) fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.http.sender,
            table: &mut self.table,
            ctx: &mut self.http.context,
        }
    }
}

/// Links `wasi:http`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let options = wasmtime_wasi_http::p2::bindings::LinkOptions::default();
    types::add_to_linker::<State, WasiHttp>(linker, &options.into(), State::http)?;
    outgoing_handler::add_to_linker::<State, WasiHttp>(linker, State::http)
}
