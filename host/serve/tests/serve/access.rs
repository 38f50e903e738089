//! Tokens and TLS, with a client that takes neither on trust.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use jiff::Timestamp;
use sandcast_access::{
    Action, Budget, FourEyes, Gate, IssuedToken, Judge, Judging, Policies, PrincipalId, Question,
    Role, Settings, Store, Verdict,
};
use sandcast_audit::{AuditLog, Digest, Event};
use sandcast_serve::{Protection, ServeConfig, ServeError, Server, TlsFiles};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::models::{Manner, Shelf};
use crate::{Answer, one_row, send};

/// Services may ask `credit`, operators may do everything; it counts how often it was asked.
#[derive(Default)]
struct ByRole {
    asked: Arc<AtomicU32>,
}

impl Judge for ByRole {
    fn engine(&self) -> Digest {
        Digest::of(b"by role")
    }

    fn judge<'a>(&'a self, _: &'a Policies, question: &'a Question) -> Judging<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let serves = question.action == Action::Predict
            && question.roles.contains(&Role::Service)
            && question.resource.as_str() == "model:credit";
        let allowed = serves || question.roles.contains(&Role::Operator);
        Box::pin(async move { Ok(Verdict::of_reasons(allowed, vec!["by role".to_owned()])) })
    }
}

struct Place {
    _folder: TempDir,
    audit: AuditLog,
    store: Store,
    asked: Arc<AtomicU32>,
    gate: Arc<Gate>,
    operator: String,
}

fn id(name: &str) -> PrincipalId {
    name.parse().expect("a name")
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let audit = AuditLog::open(&folder.path().join("audit")).expect("a log");
        let judge = ByRole::default();
        let asked = Arc::clone(&judge.asked);
        let settings = Settings {
            initialised: Timestamp::now(),
            engine: judge.engine(),
            four_eyes: BTreeSet::<FourEyes>::new(),
        };
        let (store, ann) = Store::initialise(
            folder.path(),
            &audit,
            (&id("ann"), 1),
            &settings,
            "local:test",
            |_| Ok(()),
        )
        .expect("set up");
        let gate = Gate::guarded(audit.clone(), store.clone(), Box::new(judge));
        Self {
            _folder: folder,
            audit,
            store,
            asked,
            gate: Arc::new(gate),
            operator: ann.token.reveal(),
        }
    }

    fn add(&self, name: &str, role: Role) -> IssuedToken {
        let now = Timestamp::now();
        self.store
            .add_principal(&self.audit, &id(name), [role].into(), now, "ann")
            .expect("added");
        self.store
            .issue_token(&self.audit, &id(name), 1, now, "ann")
            .expect("issued")
    }

    async fn router(&self) -> Router {
        let shelf = Shelf::new(Manner::Formula);
        let gate = Some(Arc::clone(&self.gate));
        sandcast_serve::guarded_router(shelf, ServeConfig::default(), gate)
            .await
            .expect("the models load")
    }
}

async fn ask(router: &Router, method: &str, path: &str, token: Option<&str>) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = Body::from(one_row().to_string());
    send(router, request.body(body).expect("a request")).await
}

const INFER: &str = "/v2/models/credit/infer";

#[tokio::test]
async fn a_service_with_a_token_is_answered_and_nobody_else() {
    let place = Place::new();
    let router = place.router().await;
    let bank = place.add("bank-app", Role::Service).token.reveal();
    let eve = place.add("eve", Role::Auditor).token.reveal();
    let answer = ask(&router, "POST", INFER, Some(&bank)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());

    for (token, words) in [(None, "wants a token"), (Some("sct_no"), "is no good")] {
        let answer = ask(&router, "POST", INFER, token).await;
        assert_eq!(
            answer.headers.get("www-authenticate").expect("a challenge"),
            "Bearer realm=\"sandcast\""
        );
        let error = answer.error(StatusCode::UNAUTHORIZED);
        assert!(error.contains(words), "{error}");
    }
    let denied = ask(&router, "POST", INFER, Some(&eve)).await;
    assert!(denied.headers.get("www-authenticate").is_none());
    let error = denied.error(StatusCode::FORBIDDEN);
    assert!(
        error.starts_with("`eve` may not predict model:credit"),
        "{error}"
    );
}

#[tokio::test]
async fn health_is_open_and_the_rest_is_not() {
    let place = Place::new();
    let router = place.router().await;
    let bank = place.add("bank-app", Role::Service).token.reveal();
    for path in ["/v2", "/v2/health/live", "/v2/health/ready"] {
        let answer = ask(&router, "GET", path, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
    }
    for (method, path) in [
        ("GET", "/metrics"),
        ("GET", "/v2/models/stats"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/credit/load"),
    ] {
        let nobody = ask(&router, method, path, None).await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{path}");
        let service = ask(&router, method, path, Some(&bank)).await;
        assert_eq!(service.status, StatusCode::FORBIDDEN, "{path}");
        let operator = ask(&router, method, path, Some(&place.operator)).await;
        assert_eq!(operator.status, StatusCode::OK, "{path}");
    }
    // What the server was told to do is on record, each time, with who was let and who was not.
    let load = "/v2/repository/models/credit/load";
    let again = ask(&router, "POST", load, Some(&place.operator)).await;
    assert_eq!(again.status, StatusCode::OK);
    let told: Vec<(String, bool)> = place
        .audit
        .entries()
        .expect("a log")
        .into_iter()
        .filter_map(|entry| match entry.event {
            Event::AccessDecided {
                principal,
                action,
                allowed,
                ..
            } if action == "serve" => Some((principal, allowed)),
            _ => None,
        })
        .collect();
    let by = |who: &str, allowed| (who.to_owned(), allowed);
    assert_eq!(
        told,
        [by("bank-app", false), by("ann", true), by("ann", true)]
    );

    for path in [
        "/v2/models/credit",
        "/v2/models/credit/ready",
        "/v2/models/credit/stats",
        "/v2/models/credit/versions/1",
        "/v2/models/nonsense",
    ] {
        let nobody = ask(&router, "GET", path, None).await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let completions = ask(&router, "POST", "/v1/completions", None).await;
    assert_eq!(completions.status, StatusCode::UNAUTHORIZED);
    let unknown = ask(&router, "GET", "/v2/models/nonsense", Some(&bank)).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_yes_holds_for_seconds_and_no_longer() {
    let place = Place::new();
    let router = place.router().await;
    let bank = place.add("bank-app", Role::Service);
    let token = bank.token.reveal();
    for _ in 0..20 {
        let answer = ask(&router, "POST", INFER, Some(&token)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(
        place.asked.load(Ordering::Relaxed),
        1,
        "policies are asked once"
    );
    place
        .store
        .revoke_token(&place.audit, &bank.record.id, Timestamp::now(), "ann")
        .expect("revoked");
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = ask(&router, "POST", INFER, Some(&token)).await;
        if answer.status == StatusCode::UNAUTHORIZED {
            break;
        }
        assert!(Instant::now() < patience, "a revoked token goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_budget_holds_for_all_tokens_of_a_principal_and_for_nobody_else() {
    let place = Place::new();
    let router = place.router().await;
    let one = place.add("bank-app", Role::Service).token.reveal();
    let now = Timestamp::now();
    let two = place
        .store
        .issue_token(&place.audit, &id("bank-app"), 1, now, "ann")
        .expect("issued");
    let two = two.token.reveal();
    let other = place.add("shop-app", Role::Service).token.reveal();
    let budget = Budget {
        requests_per_minute: NonZeroU32::new(4),
        ..Budget::default()
    };
    place
        .store
        .set_budget(&place.audit, &id("bank-app"), budget, "ann")
        .expect("set");
    for token in [&one, &two, &one, &two] {
        let answer = ask(&router, "POST", INFER, Some(token)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    let refused = ask(&router, "POST", INFER, Some(&two)).await;
    let wait = refused.headers.get("retry-after").expect("when to try");
    let wait: u64 = wait.to_str().expect("text").parse().expect("seconds");
    assert!((1..=15).contains(&wait), "{wait}");
    let error = refused.error(StatusCode::TOO_MANY_REQUESTS);
    assert!(error.contains("4 requests a minute"), "{error}");
    // To look at a model costs nothing, and others have their own.
    let looked = ask(&router, "GET", "/v2/models/credit", Some(&one)).await;
    assert_eq!(looked.status, StatusCode::OK);
    for _ in 0..6 {
        let answer = ask(&router, "POST", INFER, Some(&other)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn texts_that_never_end_take_no_more_places_than_their_sender_may() {
    const TEXTS: &str = "/v1/completions";
    let place = Place::new();
    let shelf = Shelf::new(Manner::Formula);
    shelf.names.lock().expect("no panic").push("writer");
    let config = ServeConfig {
        max_concurrent: NonZeroUsize::MIN,
        max_queued: 1,
        ..ServeConfig::default()
    };
    let gate = Some(Arc::clone(&place.gate));
    let router = sandcast_serve::guarded_router(shelf, config, gate)
        .await
        .expect("the models load");
    let bob = place.add("bob", Role::Operator).token.reveal();
    let budget = Budget {
        at_once: NonZeroU32::new(1),
        ..Budget::default()
    };
    place
        .store
        .set_budget(&place.audit, &id("bob"), budget, "ann")
        .expect("set");
    let request = |token: &str, body: Body| {
        Request::post(TEXTS)
            .header("authorization", format!("Bearer {token}"))
            .body(body)
            .expect("a request")
    };
    let drip = || {
        let never = futures::stream::pending::<Result<Bytes, std::io::Error>>();
        request(&bob, Body::from_stream(never))
    };
    let drips = || {
        let (router, drip) = (router.clone(), drip());
        tokio::spawn(async move { send(&router, drip).await })
    };
    // One of them goes on and on, whichever comes first.
    let (mut one, mut two) = (drips(), drips());
    let answered = tokio::time::timeout(Duration::from_secs(10), async {
        tokio::select! {
            answer = &mut one => answer,
            answer = &mut two => answer,
        }
    });
    let answered = answered.await.expect("one more than he may");
    let error = answered
        .expect("no panic")
        .error(StatusCode::TOO_MANY_REQUESTS);
    assert!(error.contains("1 at once"), "{error}");
    // The other place is left to others.
    let text = serde_json::json!({ "model": "writer", "prompt": "Rain" }).to_string();
    let answer = send(&router, request(&place.operator, Body::from(text))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    one.abort();
    two.abort();
}

#[tokio::test]
async fn many_without_a_token_are_sent_away_and_told_in_one_entry() {
    let place = Place::new();
    let config = ServeConfig {
        address: "127.0.0.1:0".parse().expect("an address"),
        reload_interval: None,
        ..ServeConfig::default()
    };
    let protection = Protection {
        gate: Some(Arc::clone(&place.gate)),
        ..Protection::default()
    };
    let shelf = Shelf::new(Manner::Formula);
    let server = Server::bind_protected(shelf, place.audit.clone(), config, protection)
        .await
        .expect("it binds");
    let address = server.address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..200 {
        asking.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.expect("written");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("an answer");
            answer
                .split(' ')
                .nth(1)
                .map(str::to_owned)
                .unwrap_or_default()
        });
    }
    let mut codes = Vec::new();
    while let Some(code) = asking.join_next().await {
        codes.push(code.expect("no panic"));
    }
    assert!(
        codes.iter().all(|code| code == "401" || code == "429"),
        "{codes:?}"
    );
    stop.send(()).expect("a running server");
    running.await.expect("no panic").expect("it ends well");
    let told: Vec<u64> = place
        .audit
        .entries()
        .expect("entries")
        .into_iter()
        .filter_map(|entry| match entry.event {
            Event::RequestsRefused { refusals } => Some(refusals["no-token"]),
            _ => None,
        })
        .collect();
    assert_eq!(told, [200], "one entry for all of them");
}

fn certificates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/certificates")
}

fn files() -> TlsFiles {
    TlsFiles {
        certificates: certificates().join("server.pem"),
        key: certificates().join("server.key"),
    }
}

async fn bind(address: &str, protection: Protection) -> Result<Server, ServeError> {
    let config = ServeConfig {
        address: address.parse().expect("an address"),
        reload_interval: None,
        ..ServeConfig::default()
    };
    let shelf = Shelf::new(Manner::Formula);
    Server::bind_protected(shelf, AuditLog::in_memory(), config, protection).await
}

#[tokio::test]
async fn a_client_that_knows_the_authority_is_answered_over_tls() {
    let place = Place::new();
    let bank = place.add("bank-app", Role::Service).token.reveal();
    let protection = Protection {
        gate: Some(Arc::clone(&place.gate)),
        tls: Some(files()),
        ..Protection::default()
    };
    let server = bind("127.0.0.1:0", protection).await.expect("it binds");
    let address = server.address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));

    let connect = |roots: RootCertStore| async move {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    };
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(certificates().join("authority.pem"));
    roots.add(authority.expect("a certificate")).expect("added");
    let mut stream = connect(roots).await.expect("it is secured");
    let body = one_row().to_string();
    let request = format!(
        "POST {INFER} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {bank}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

    connect(RootCertStore::empty())
        .await
        .expect_err("an authority that the client does not know");
    let mut plain = TcpStream::connect(address).await.expect("a connection");
    plain
        .write_all(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "nothing is said in the clear");
    stop.send(()).expect("a running server");
    running.await.expect("no panic").expect("it ends well");
}

#[tokio::test]
async fn a_server_from_before_access_was_set_up_answers_nobody() {
    let set_up = Arc::new(AtomicBool::new(false));
    let look = Arc::clone(&set_up);
    let protection = Protection {
        set_up: Some(Box::new(move || look.load(Ordering::Relaxed))),
        ..Protection::default()
    };
    let server = bind("127.0.0.1:0", protection).await.expect("it binds");
    let address = server.address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let ask = async || {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let body = one_row().to_string();
        let request = format!(
            "POST {INFER} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).expect("text")
    };
    let answer = ask().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    set_up.store(true, Ordering::Relaxed);
    let answer = ask().await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("start it again"), "{answer}");
    stop.send(()).expect("a running server");
    running.await.expect("no panic").expect("it ends well");
}

#[tokio::test]
async fn a_certificate_that_is_none_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing").expect("written");
    for (certificates, key) in [
        (PathBuf::from("/nowhere.pem"), files().key),
        (empty.clone(), files().key),
        (files().certificates, empty),
        // A key that is another's.
        (certificates().join("authority.pem"), files().key),
    ] {
        let protection = Protection {
            tls: Some(TlsFiles { certificates, key }),
            ..Protection::default()
        };
        let error = bind("127.0.0.1:0", protection)
            .await
            .err()
            .expect("no server");
        let error = error.to_string();
        assert!(error.contains("--tls-cert and --tls-key"), "{error}");
    }
}

#[tokio::test]
async fn others_reach_no_server_that_does_not_know_them() {
    let place = Place::new();
    let gate = || Some(Arc::clone(&place.gate));
    // Of a state where somebody began to set access up, and no more.
    let open = || Some(Arc::new(Gate::open_to_all(place.audit.clone())));
    for (gate, tls) in [
        (None, None),
        (gate(), None),
        (None, Some(files())),
        (open(), Some(files())),
    ] {
        let protection = Protection {
            gate,
            tls,
            ..Protection::default()
        };
        let refused = bind("0.0.0.0:0", protection).await;
        assert!(
            matches!(refused, Err(ServeError::Exposed { .. })),
            "{:?}",
            refused.err()
        );
    }
    let protection = Protection {
        insecure: true,
        ..Protection::default()
    };
    bind("0.0.0.0:0", protection).await.expect("it was said");
    let protection = Protection {
        gate: gate(),
        tls: Some(files()),
        ..Protection::default()
    };
    bind("0.0.0.0:0", protection).await.expect("it knows them");
}

/// A gate that asks nobody does not stand for one that does, so that access can be set up later.
#[tokio::test]
async fn a_gate_of_a_state_without_access_is_as_good_as_none() {
    let place = Place::new();
    let set_up = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&set_up);
    let config = ServeConfig {
        address: "127.0.0.1:0".parse().expect("an address"),
        reload_interval: None,
        ..ServeConfig::default()
    };
    let protection = Protection {
        gate: Some(Arc::new(Gate::open_to_all(place.audit.clone()))),
        set_up: Some(Box::new(move || asked.load(Ordering::Relaxed))),
        ..Protection::default()
    };
    let shelf = Shelf::new(Manner::Formula);
    let server = Server::bind_protected(shelf, place.audit.clone(), config, protection)
        .await
        .expect("it binds");
    let address = server.address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async {
        let _ = stopped.await;
    }));
    let status = async || {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer.split(' ').nth(1).map(str::to_owned)
    };
    assert_eq!(status().await.as_deref(), Some("200"));
    set_up.store(true, Ordering::Relaxed);
    assert_eq!(status().await.as_deref(), Some("503"));
    stop.send(()).expect("it runs");
    running.await.expect("no panic").expect("it ends well");
}
