//! Sends a request that was authorised: looks the name up, checks every address, connects to one of
//! these, speaks TLS where that is granted, and holds it to its time.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use super::address::{Lookups, is_public, look_up, plain};
use super::bounds::{Bounded, Counted, Terms};
use super::exchange::Exchanges;
use super::secrecy::Seeker;
use super::target::Target;
use super::{
    HttpCredential, HttpGrant, HttpScheme, MAX_FIELD_BYTES, MAX_TARGET_BYTES, sentence_of,
};
use crate::conduct::Watch;
use crate::effect::{Act, Actor, Effect};
use crate::grants::Capability;
use crate::grants::secrets::Secret;
use crate::text;

/// Fields of an answer.
const MAX_FIELDS: usize = 128;

pub(super) type Answer = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

/// What sends the requests of one instance.
pub(super) struct Sender {
    actor: Arc<Actor>,
    /// By grant: how many requests may be under way, and how many there were.
    places: Vec<(Arc<Semaphore>, u32)>,
    forbidden: ForbiddenHeaderFilter,
    /// Requests that were asked for.
    pub(super) calls: u64,
    /// Where what goes out and comes back is kept, or comes from.
    exchanges: Option<Exchanges>,
    /// Where the plugin's requests usually go.
    watch: Watch,
    /// A request that went elsewhere, and was not sent.
    pub(super) strayed: Option<String>,
}

/// A request that was authorised and is on record.
struct Permit {
    target: Target,
    terms: Terms,
    effect: Effect,
    place: OwnedSemaphorePermit,
}

impl Sender {
    pub(super) fn new(actor: Arc<Actor>, watch: Watch, exchanges: Option<Exchanges>) -> Self {
        let grants = &actor.identity.grants.http;
        let credentials: Vec<HeaderName> = grants
            .iter()
            .filter_map(|grant| grant.credential.as_ref()?.header.parse().ok())
            .collect();
        let forbidden = move |name: &HeaderName| {
            DEFAULT_FORBIDDEN_HEADERS.contains(name)
                || NEVER.contains(&name.as_str())
                || credentials.contains(name)
        };
        Self {
            places: grants
                .iter()
                .map(|grant| (Arc::new(Semaphore::new(grant.at_once.get() as usize)), 0))
                .collect(),
            forbidden: Arc::new(forbidden),
            calls: 0,
            watch,
            strayed: None,
            actor,
            exchanges,
        }
    }

    /// Authorises a request and puts it on record.
    fn authorise(&mut self, request: &Request<WasiBody>) -> Result<Permit, Error> {
        let actor = Arc::clone(&self.actor);
        let grants = &actor.identity.grants.http;
        let covered = Target::of(request.method(), request.uri()).and_then(|target| {
            let index = target.covered_by(grants)?;
            Ok((index, target))
        });
        let (index, target) = covered.map_err(|detail| {
            actor.deny(Capability::Http, text::sentence(&detail, MAX_TARGET_BYTES));
            Error::HttpRequestDenied
        })?;
        let told = target.to_string();
        if !self.watch.allows_target(&told) {
            let told = text::sentence(&told, MAX_TARGET_BYTES);
            let line = "`sandcast plugins trust`, if this is meant".to_owned();
            let detail = format!("{told}: its requests never go there");
            actor.deny_with(Capability::Http.as_str(), detail, line);
            self.strayed = Some(told);
            return Err(Error::HttpRequestDenied);
        }
        let grant = &grants[index];
        let terms = Terms::of(&actor, index, &target);
        let over = |key: &str, what: String| {
            terms.deny(key, &what);
            Error::ConnectionLimitReached
        };
        let (places, sent) = &mut self.places[index];
        if *sent >= grant.requests.get() {
            return Err(over(
                "requests",
                format!("it has sent {sent} requests already"),
            ));
        }
        if let Err(a_minute) = actor.identity.rates.take(index) {
            return Err(over(
                "requests_per_minute",
                format!("{a_minute} requests in a minute are sent already"),
            ));
        }
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            let at_once = grant.at_once;
            return Err(over(
                "at_once",
                format!("{at_once} requests are under way already"),
            ));
        };
        *sent += 1;
        let credential = grant.credential.as_ref();
        let begun = actor.begin(Act {
            capability: Capability::Http,
            action: target.method.as_str(),
            target: text::sentence(&told, MAX_TARGET_BYTES),
            digest: target.query_digest(),
            secret: credential.map(|credential| credential.secret.to_string()),
        });
        let effect = begun.map_err(|error| {
            tracing::error!(%error, "a request could not be recorded, so it is not sent");
            Error::InternalError(None)
        })?;
        Ok(Permit {
            target,
            terms,
            effect,
            place,
        })
    }
}

/// What would change how a message is framed or where it goes, besides what wasmtime forbids.
const NEVER: [&str; 8] = [
    "host",
    "connection",
    "expect",
    "forwarded",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl WasiHttpHooks for Sender {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::clone(&self.forbidden)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _guest: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        self.calls = self.calls.saturating_add(1);
        let options = options.unwrap_or_default();
        match self.exchanges.clone() {
            None => {
                let authorised = self.authorise(&request);
                Box::new(async move { send(authorised?, request, options).await })
            }
            Some(Exchanges::Record(kept)) => {
                let authorised = self.authorise(&request);
                let (place, request) = kept.ask(request);
                Box::new(async move {
                    let answer = match authorised {
                        Ok(permit) => send(permit, request, options).await,
                        Err(error) => Err(error),
                    };
                    kept.answer(place, answer)
                })
            }
            Some(Exchanges::Replay(given)) => Box::new(given.answer(request)),
        }
    }
}

async fn send(
    permit: Permit,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Answer, Error> {
    let Permit {
        target,
        terms,
        mut effect,
        place,
    } = permit;
    let place = Arc::new(place);
    let grant = terms.grant();
    let deadline = Instant::now() + grant.timeout.duration();
    let destination = Destination {
        host: &target.host,
        port: target.port,
        scheme: grant.scheme,
        networks: &grant.networks,
        certificate_authority: grant.certificate_authority.as_deref(),
    };
    let of_plugin = (&terms.identity().lookups, Arc::clone(&place));
    let connecting = connect_holding(&destination, Some(of_plugin));
    let patience = options.connect_timeout.unwrap_or(Duration::MAX);
    let connecting = tokio::time::timeout(patience, connecting);
    let connected = match tokio::time::timeout_at(deadline, connecting).await {
        Ok(Ok(connected)) => connected,
        // As long as the guest wanted to wait.
        Ok(Err(_)) => Err(Error::ConnectionTimeout),
        Err(_) => {
            terms.too_late();
            Err(Error::ConnectionTimeout)
        }
    };
    let sent = match connected {
        Err(error) => Err(error),
        Ok(stream) => {
            let asking = exchange(&target, &terms, stream, request, options, &mut effect);
            let asked = tokio::time::timeout_at(deadline, asking).await;
            asked.unwrap_or_else(|_| {
                terms.too_late();
                Err(Error::HttpResponseTimeout)
            })
        }
    };
    match sent {
        Ok((response, connection, seeker)) => {
            if seeker
                .as_ref()
                .is_some_and(|it| it.is_in(response.headers()))
            {
                let error = terms.repeated();
                effect.outcome = error.to_string();
                return Err(error);
            }
            effect.outcome = response.status().as_u16().to_string();
            let pause = options.between_bytes_timeout.unwrap_or(Duration::MAX);
            let pause = pause.min(grant.timeout.duration());
            let (parts, incoming) = response.into_parts();
            let bounded = Bounded::new(incoming, deadline, pause, terms, effect, seeker, place);
            let body = bounded.boxed_unsync();
            Ok((Response::from_parts(parts, body), connection))
        }
        Err(error) => {
            // What another host says is in it.
            effect.outcome = text::sentence(&error.to_string(), MAX_TARGET_BYTES);
            if matches!(error, Error::DestinationIpProhibited) {
                terms.deny("networks", "it stands for an address that is not public");
            }
            Err(error)
        }
    }
}

/// The beginning of an answer, what drives the connection, and what looks for the credential in it.
type Answering = (
    Response<Incoming>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
    Option<Seeker>,
);

/// One request and the beginning of its answer.
async fn exchange(
    target: &Target,
    terms: &Terms,
    stream: Box<dyn Stream>,
    request: Request<WasiBody>,
    options: RequestOptions,
    effect: &mut Effect,
) -> Result<Answering, Error> {
    let Prepared {
        request,
        is_over,
        seeker,
    } = prepare(target, terms, request, effect)?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_FIELD_BYTES)
        .handshake::<_, WasiBody>(TokioIo::new(stream))
        .await?;
    let mut connection = Box::pin(connection);
    let patience = options.first_byte_timeout.unwrap_or(Duration::MAX);
    let answering = tokio::time::timeout(patience, sender.send_request(request));
    tokio::pin!(answering);
    // The connection works only while somebody waits for it.
    let mut is_open = true;
    let response = loop {
        tokio::select! {
            biased;
            answer = &mut answering => {
                let answer = answer.map_err(|_| Error::ConnectionReadTimeout)?;
                break answer.map_err(|error| match is_over.load(Ordering::Relaxed) {
                    true => Error::HttpRequestBodySize(Some(terms.grant().request_bytes.bytes())),
                    false => error.into(),
                })?;
            }
            ended = &mut connection, if is_open => {
                is_open = false;
                ended?;
            }
        }
    };
    let rest = async move {
        if is_open {
            connection.await?;
        }
        Ok(())
    };
    Ok((response, Box::new(rest), seeker))
}

/// A request that is to be sent.
struct Prepared {
    request: Request<WasiBody>,
    /// Whether its body turned out too long.
    is_over: Arc<AtomicBool>,
    /// Looks for the credential in its answer.
    seeker: Option<Seeker>,
}

/// The request as it goes out: in origin form (RFC 9112, 3.2.1), with its one host, a bounded body
/// and the credential.
fn prepare(
    target: &Target,
    terms: &Terms,
    request: Request<WasiBody>,
    effect: &mut Effect,
) -> Result<Prepared, Error> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::builder()
        .path_and_query(path)
        .build()
        .map_err(|_| Error::HttpRequestUriInvalid)?;
    let host = match target.host.parse() {
        Ok(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        _ => target.host.clone(),
    };
    let host = match target.port == target.scheme.port() {
        true => host,
        false => format!("{host}:{}", target.port),
    };
    let host = HeaderValue::try_from(host).map_err(|_| Error::HttpRequestUriInvalid)?;
    parts.headers.insert(http::header::HOST, host);
    let mut seeker = None;
    if let Some(credential) = &terms.grant().credential {
        let (name, value, secret) = field_of(credential).map_err(|what| {
            tracing::warn!(%what, "a credential cannot be used");
            Error::ConfigurationError
        })?;
        parts.headers.insert(name, value);
        // In what is compressed it would not be found.
        let plain = HeaderValue::from_static("identity");
        parts.headers.insert(http::header::ACCEPT_ENCODING, plain);
        seeker = Seeker::of(secret);
    }
    let body = Counted::new(body, terms.clone(), Arc::clone(&effect.bytes_out));
    let is_over = body.is_over();
    let request = Request::from_parts(parts, body.boxed_unsync());
    Ok(Prepared {
        request,
        is_over,
        seeker,
    })
}

/// The field that a credential is sent in, and the secret alone.
fn field_of(credential: &HttpCredential) -> Result<(HeaderName, HeaderValue, Secret), String> {
    let name = credential
        .header
        .parse()
        .map_err(|_| format!("`{}` is not the name of a field", credential.header))?;
    let secret = credential
        .secret
        .read()
        .map_err(|what| sentence_of(&credential.secret, &what))?;
    let mut value = credential.prefix.as_bytes().to_vec();
    value.extend_from_slice(secret.bytes());
    let field = HeaderValue::from_bytes(&value);
    value.fill(0);
    let mut field = field.map_err(|_| {
        sentence_of(
            &credential.secret,
            "holds a character that no field may hold",
        )
    })?;
    field.set_sensitive(true);
    Ok((name, field, secret))
}

/// Says whether a credential can be sent.
pub(super) fn check_credential(credential: &HttpCredential) -> Result<(), String> {
    let name: HeaderName = credential
        .header
        .parse()
        .map_err(|_| format!("`{}` is not the name of a field", credential.header))?;
    if NEVER.contains(&name.as_str()) || name == http::header::CONTENT_LENGTH {
        return Err(format!("the field `{name}` cannot hold a credential"));
    }
    HeaderValue::from_str(&credential.prefix)
        .map(|_| ())
        .map_err(|_| "the prefix holds a character that no field may hold".to_owned())
}

/// Whether a grant is for this machine alone, so that nothing is sent over a wire.
pub(super) fn is_local(grant: &HttpGrant) -> bool {
    let address = grant.host.parse::<std::net::IpAddr>();
    address.is_ok_and(|address| plain(address).is_loopback())
}

/// Where a connection leads, and over what.
pub(in crate::grants) struct Destination<'a> {
    pub(in crate::grants) host: &'a str,
    pub(in crate::grants) port: u16,
    pub(in crate::grants) scheme: HttpScheme,
    /// Networks that it may be in although they are not public.
    pub(in crate::grants) networks: &'a [IpNet],
    pub(in crate::grants) certificate_authority: Option<&'a Path>,
}

/// A connection to an address that was checked.
pub(in crate::grants) async fn connect(
    destination: &Destination<'_>,
) -> Result<Box<dyn Stream>, Error> {
    connect_holding(destination, None).await
}

/// The same for a plugin's request, whose place is held for as long as its name is looked up.
async fn connect_holding(
    destination: &Destination<'_>,
    of_plugin: Option<(&Lookups, Arc<OwnedSemaphorePermit>)>,
) -> Result<Box<dyn Stream>, Error> {
    let Destination { host, port, .. } = *destination;
    let addresses = match (host.parse(), of_plugin) {
        (Ok(address), _) => Ok(vec![SocketAddr::new(address, port)]),
        (Err(_), Some((lookups, place))) => lookups.look_up(host, port, place).await,
        (Err(_), None) => look_up(host, port, ()).await,
    };
    let addresses = addresses.map_err(|_| Error::DnsError {
        rcode: None,
        info_code: None,
    })?;
    // One address that may not be is enough: a name that stands for both is a trap.
    let may_be = |address: &SocketAddr| {
        let address = plain(address.ip());
        let networks = destination.networks;
        is_public(address) || networks.iter().any(|net| net.contains(&address))
    };
    if !addresses.iter().all(may_be) {
        return Err(Error::DestinationIpProhibited);
    }
    let mut last = Error::DestinationNotFound;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return secured(destination, stream).await,
            Err(error) => last = Error::Connect(error),
        }
    }
    Err(last)
}

async fn secured(
    destination: &Destination<'_>,
    stream: TcpStream,
) -> Result<Box<dyn Stream>, Error> {
    // Small requests go out at once; a failure costs time only.
    let _ = stream.set_nodelay(true);
    match destination.scheme {
        HttpScheme::Http => Ok(Box::new(stream)),
        HttpScheme::Https => {
            let config = roots(destination.certificate_authority).map_err(|what| {
                tracing::warn!(%what, "no certificate authority can be trusted");
                Error::ConfigurationError
            })?;
            let name = ServerName::try_from(destination.host.to_owned())
                .map_err(|_| Error::HttpRequestUriInvalid)?;
            let secured = TlsConnector::from(config).connect(name, stream).await;
            Ok(Box::new(secured.map_err(Error::Tls)?))
        }
    }
}

/// How TLS is spoken to whoever has a certificate of these authorities, or of the system's.
pub(in crate::grants) fn roots(authority: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    static SYSTEM: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(
                "the system has no certificate authorities; install them (ca-certificates), \
                        or name a file as `certificate_authority`"
                    .to_owned(),
            );
        }
        Ok(client_of(roots))
    });
    let Some(path) = authority else {
        return SYSTEM.clone();
    };
    let described = path.display();
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("the certificate authorities in {described}: {error}"))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    match added {
        0 => Err(format!("{described} holds no certificate authority")),
        _ => Ok(client_of(roots)),
    }
}

fn client_of(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(tokio_rustls::rustls::DEFAULT_VERSIONS);
    // The provider has the suites of both versions.
    let builder = match builder {
        Ok(builder) => builder,
        Err(_) => ClientConfig::builder(),
    };
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// What bytes are sent over.
pub(in crate::grants) trait Stream:
    AsyncRead + AsyncWrite + Send + Unpin
{
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
