//! What a guest gets of the network: the hosts it was granted, as far as they were granted.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::AsArray as _;
use sandcast_audit::{AuditLog, Event};
use sandcast_sandbox::{
    ByteSize, CallContext, CallError, Grants, HttpCredential, HttpGrant, HttpMethod, HttpScheme,
    LoadError, Plugin, Role, Sandbox, SandboxConfig, ScanRequest, SecretSource, TimeSpan,
};
use sandcast_tests::{built, repeating};
use serde_json::{Value, json};

/// A server that answers by the path it is asked for, and remembers what it was sent.
struct Server {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicUsize>,
}

/// Connections that a server of a test takes.
const MAX_CONNECTIONS: usize = 200;

impl Server {
    fn start() -> Self {
        Self::start_with(answer)
    }

    fn start_with(serve: impl Fn(TcpStream, &Mutex<Vec<String>>) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            heard: Arc::default(),
            open: Arc::default(),
        };
        let (heard, open) = (Arc::clone(&server.heard), Arc::clone(&server.open));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten().take(MAX_CONNECTIONS) {
                let (serve, heard, open) = (serve.clone(), Arc::clone(&heard), Arc::clone(&open));
                open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    serve(stream, &heard);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no panic").clone()
    }

    /// A grant for all of it.
    fn grant(&self) -> HttpGrant {
        grant(&json!({
            "host": "127.0.0.1",
            "port": self.address.port(),
            "scheme": "http",
            "networks": ["127.0.0.0/8"],
        }))
    }
}

fn grant(text: &Value) -> HttpGrant {
    serde_json::from_value(text.clone()).expect("a grant")
}

/// Reads the head of a request.
fn head_of(stream: &mut impl std::io::Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 100_000 {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn answer(mut stream: TcpStream, heard: &Mutex<Vec<String>>) {
    let head = head_of(&mut stream);
    heard.lock().expect("no panic").push(head.clone());
    let path = head.split(' ').nth(1).unwrap_or_default();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = Vec::new();
    let _ = std::io::Read::by_ref(&mut stream)
        .take(length)
        .read_to_end(&mut body);
    let whole = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let text = match path {
        "/moved" => "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest\r\n\
                     content-length: 0\r\n\r\n"
            .to_owned(),
        "/large" => whole("200 OK", &"x".repeat(100_000)),
        "/endless" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 1024]).is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            return;
        }
        "/silent" => {
            std::thread::sleep(Duration::from_secs(5));
            return;
        }
        "/halting" => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
            std::thread::sleep(Duration::from_secs(5));
            return;
        }
        "/fields" => {
            let fields: String = (0..1000).map(|n| format!("f{n}: {n}\r\n")).collect();
            format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n")
        }
        "/cut" => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned(),
        "/nonsense" => "220 ftp ready\r\n\r\n".to_owned(),
        path => whole("200 OK", &format!("{path} with {} bytes", body.len())),
    };
    let _ = stream.write_all(text.as_bytes());
}

struct Bench {
    sandbox: Sandbox,
    audit: AuditLog,
    component: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let audit = AuditLog::in_memory();
        let config = SandboxConfig {
            cache_dir: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled")),
            ..SandboxConfig::default()
        };
        Self {
            sandbox: Sandbox::new(config, audit.clone()).expect("a sandbox"),
            audit,
            component: fs::read(built("tests/guests/caller")).expect("the guest"),
        }
    }

    async fn load(&self, http: Vec<HttpGrant>) -> Result<Plugin, LoadError> {
        let grants = Grants {
            http,
            ..Grants::default()
        };
        self.sandbox
            .load("caller", &self.component, Role::Connector, grants)
            .await
    }

    /// What the guest hands over, or what it was told.
    async fn ask(&self, http: HttpGrant, config: Value) -> String {
        let plugin = self.load(vec![http]).await.expect("it loads");
        match content(&plugin, &config).await {
            Ok(content) => content,
            Err(CallError::Denied {
                detail, grant_with, ..
            }) => format!("denied: {detail}; {grant_with}"),
            Err(CallError::Failed { failure, .. }) => {
                format!("failure ({}): {}", failure.code, failure.message)
            }
            Err(error) => error.to_string(),
        }
    }

    fn events(&self) -> Vec<Event> {
        let entries = self.audit.entries().expect("a log in memory");
        entries.into_iter().map(|entry| entry.event).collect()
    }

    /// What was refused, and the lines that would grant it.
    fn denied(&self) -> Vec<String> {
        let events = self.events().into_iter();
        let denied = events.filter_map(|event| match event {
            Event::Denied {
                detail, grant_with, ..
            } => Some(format!("{detail}; {grant_with}")),
            _ => None,
        });
        denied.collect()
    }
}

async fn content(plugin: &Plugin, config: &Value) -> Result<String, CallError> {
    let context = CallContext::new(None, "test");
    let mut connector = plugin.connector(&context, config).await?;
    connector.schema().await?;
    let split = connector.partitions().await?.remove(0);
    connector.scan(&ScanRequest::all(split)).await?;
    let chunk = connector.next().await?.expect("a chunk");
    let batch = chunk.batch.expect("a row");
    connector.finish().expect("it is on record");
    Ok(batch.column(0).as_string::<i32>().value(0).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_is_asked_and_on_record_before_and_after() {
    let (bench, server) = (Bench::new(), Server::start());
    let mut grant = server.grant();
    grant.methods = vec![HttpMethod::Get, HttpMethod::Post];
    grant.path = "/v1".into();
    let told = bench
        .ask(
            grant,
            json!({ "method": "POST", "url": server.url("/v1/people?name=ann"), "body_bytes": 10_000,
                    "fields": [["accept", "text/plain"]] }),
        )
        .await;
    assert_eq!(
        told,
        "200 content-length=36: /v1/people?name=ann with 10000 bytes"
    );
    let heard = server.heard().remove(0);
    let mut lines: Vec<&str> = heard.trim_end().lines().collect();
    lines[1..].sort_unstable();
    assert_eq!(
        lines,
        [
            "POST /v1/people?name=ann HTTP/1.1",
            "accept: text/plain",
            "content-length: 10000",
            &format!("host: {}", server.address),
        ]
    );
    let events = bench.events();
    let Some(Event::Effect {
        capability,
        action,
        target,
        digest,
        secret,
        ..
    }) = events
        .iter()
        .find(|event| matches!(event, Event::Effect { .. }))
    else {
        panic!("nothing on record: {events:?}");
    };
    assert_eq!((capability.as_str(), action.as_str()), ("http", "POST"));
    assert_eq!(*target, format!("POST {}", server.url("/v1/people")));
    assert!(digest.is_some() && secret.is_none());
    let Some(Event::EffectFinished {
        outcome,
        bytes_out,
        bytes_in,
        ..
    }) = events
        .iter()
        .find(|event| matches!(event, Event::EffectFinished { .. }))
    else {
        panic!("no end on record: {events:?}");
    };
    assert_eq!(
        (outcome.as_str(), *bytes_out, *bytes_in),
        ("200", 10_000, 36)
    );
    let calls = events.iter().find_map(|event| match event {
        Event::CallsFinished { host_calls, .. } => Some(host_calls),
        _ => None,
    });
    assert_eq!(calls.and_then(|calls| calls.get("http.handle")), Some(&1));
    // What stands in the query is nobody's business.
    let text = serde_json::to_string(&events).expect("JSON");
    assert!(!text.contains("ann"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_and_nothing_is_sent() {
    let (bench, server) = (Bench::new(), Server::start());
    let mut v1 = server.grant();
    v1.path = "/v1".into();
    let port = server.address.port();
    let mut table = String::new();
    let raw = |authority: &str, path: &str| json!({ "behaviour": "ask-raw", "url": authority, "path": path });
    let address = server.address.to_string();
    for config in [
        json!({ "url": server.url("/v2") }),
        json!({ "url": server.url("/v10") }),
        json!({ "url": server.url("/v1"), "method": "POST" }),
        json!({ "url": server.url("/v1"), "method": "TRACE" }),
        json!({ "url": server.url("/v1"), "method": "CONNECT" }),
        json!({ "url": server.url("/v1"), "method": "GeT" }),
        json!({ "url": format!("http://localhost:{port}/v1") }),
        json!({ "url": format!("https://127.0.0.1:{port}/v1") }),
        json!({ "url": "http://127.0.0.1/v1" }),
        json!({ "url": format!("http://127.1:{port}/v1") }),
        json!({ "url": format!("http://2130706433:{port}/v1") }),
        json!({ "url": format!("http://[::ffff:127.0.0.1]:{port}/v1") }),
        json!({ "url": format!("http://127.0.0.1:{port}@evil.example/v1") }),
        json!({ "url": format!("http://evil@127.0.0.1:{port}/v1") }),
        json!({ "url": server.url("/v1/../v2") }),
        json!({ "url": server.url("/v1/%2e%2e/v2") }),
        json!({ "url": server.url("/v1/%252e%252e/v2") }),
        json!({ "url": server.url("/v1/..%2fv2") }),
        json!({ "url": server.url("/v1/..\\v2") }),
        json!({ "url": server.url("/v1/%00") }),
        raw(&address, "http://evil.example/v1"),
        raw(&address, "//evil.example/v1"),
        raw(
            &address,
            "/v1 HTTP/1.1\r\nhost: evil.example\r\n\r\nGET /v2",
        ),
        raw(&address, "*"),
        raw(&format!("{address}, evil.example"), "/v1"),
        raw("", "/v1"),
        json!({ "url": server.url("/v1"), "fields": [["host", "evil.example"]] }),
        json!({ "url": server.url("/v1"), "fields": [["transfer-encoding", "chunked"]] }),
        json!({ "url": server.url("/v1"), "fields": [["connection", "keep-alive"]] }),
        json!({ "url": server.url("/v1"), "fields": [["x", "1\r\nevil: 2"]] }),
    ] {
        let told = bench.ask(v1.clone(), config.clone()).await;
        let told = told.replace(&port.to_string(), "PORT");
        let asked = config.to_string().replace(&port.to_string(), "PORT");
        writeln!(table, "{asked}\n    {told}").expect("a string");
    }
    assert_eq!(server.heard(), Vec::<String>::new());
    insta::assert_snapshot!("refused", table);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_into_the_own_network_is_refused_by_its_address() {
    let (bench, server) = (Bench::new(), Server::start());
    let port = server.address.port();
    let by_name = |networks: Value| {
        grant(&json!({ "host": "localhost", "port": port, "scheme": "http", "networks": networks }))
    };
    let asked = json!({ "url": format!("http://localhost:{port}/") });
    let told = bench.ask(by_name(json!([])), asked.clone()).await;
    assert_eq!(
        told,
        format!(
            "denied: GET http://localhost:{port}/: it stands for an address that is not public; \
             plugins.caller.grants.http[0].networks"
        )
    );
    assert_eq!(server.heard(), Vec::<String>::new());
    let outcome = bench.events().into_iter().find_map(|event| match event {
        Event::EffectFinished { outcome, .. } => Some(outcome),
        _ => None,
    });
    assert!(outcome.is_some(), "its end is on record");
    // Another network does not help, its own does.
    let told = bench
        .ask(by_name(json!(["10.0.0.0/8"])), asked.clone())
        .await;
    assert!(told.starts_with("denied: "), "{told}");
    let told = bench
        .ask(by_name(json!(["127.0.0.0/8", "::1/128"])), asked)
        .await;
    assert!(told.starts_with("200 "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_an_answer_and_nobody_follows_it() {
    let (bench, server) = (Bench::new(), Server::start());
    let told = bench
        .ask(server.grant(), json!({ "url": server.url("/moved") }))
        .await;
    assert!(
        told.starts_with("302 ") && told.contains("location=http://169.254.169.254/latest"),
        "{told}"
    );
    let followed = json!({ "url": "http://169.254.169.254/latest" });
    let told = bench.ask(server.grant(), followed).await;
    assert!(told.contains("the host is not granted"), "{told}");
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_times_and_numbers_are_bounded() {
    let (bench, server) = (Bench::new(), Server::start());
    let mut small = server.grant();
    small.methods = vec![HttpMethod::Get, HttpMethod::Post];
    small.request_bytes = ByteSize::from_kib(4);
    small.response_bytes = ByteSize::from_kib(4);
    small.timeout = TimeSpan::from_secs(1);
    small.requests = 3.try_into().expect("not 0");
    small.at_once = 2.try_into().expect("not 0");
    let mut table = String::new();
    for config in [
        json!({ "url": server.url("/ok"), "method": "POST", "body_bytes": 4096 }),
        json!({ "url": server.url("/ok"), "method": "POST", "body_bytes": 4097 }),
        json!({ "url": server.url("/large") }),
        json!({ "url": server.url("/endless") }),
        json!({ "url": server.url("/silent") }),
        json!({ "url": server.url("/halting") }),
        json!({ "url": server.url("/fields") }),
        json!({ "url": server.url("/cut") }),
        json!({ "url": server.url("/nonsense") }),
        json!({ "url": server.url("/ok"), "fields": [["content-length", "3"]] }),
        json!({ "url": server.url("/ok"), "behaviour": "ask-again", "times": 3 }),
        json!({ "url": server.url("/ok"), "behaviour": "ask-again", "times": 4 }),
        json!({ "url": server.url("/ok"), "behaviour": "ask-at-once", "times": 2 }),
        json!({ "url": server.url("/silent"), "behaviour": "ask-at-once", "times": 3 }),
        json!({ "url": server.url("/endless"), "behaviour": "leave" }),
        json!({ "url": "http://127.0.0.1:1/" }),
    ] {
        let mut grant = small.clone();
        if config["url"] == "http://127.0.0.1:1/" {
            grant.port = Some(1.try_into().expect("not 0"));
        }
        let before = bench.denied().len();
        let told = bench.ask(grant, config.clone()).await;
        let mut line = format!("{config}\n    {told}\n");
        for denied in bench.denied().split_off(before) {
            writeln!(line, "    on record: {denied}").expect("a string");
        }
        let port = server.address.port().to_string();
        table.push_str(&line.replace(&port, "PORT"));
    }
    insta::assert_snapshot!("bounded", table);
    // Nothing that the guest left goes on.
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while server.open.load(Ordering::SeqCst) > 0 && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(
        server.open.load(Ordering::SeqCst),
        0,
        "a connection is left"
    );
}

/// As much as is granted, and answers that are wrong or left: nobody was refused anything.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_within_its_bounds_is_no_denial_whatever_comes_of_it() {
    let (bench, server) = (Bench::new(), Server::start());
    let mut grant = server.grant();
    grant.methods = vec![HttpMethod::Get, HttpMethod::Post];
    grant.request_bytes = ByteSize::from_kib(4);
    grant.response_bytes = ByteSize::from_bytes(100_000);
    for config in [
        json!({ "url": server.url("/ok"), "method": "POST", "body_bytes": 4096 }),
        json!({ "url": server.url("/large") }),
        json!({ "url": server.url("/cut") }),
        json!({ "url": server.url("/nonsense") }),
        json!({ "url": server.url("/endless"), "behaviour": "leave" }),
    ] {
        bench.ask(grant.clone(), config).await;
    }
    assert_eq!(bench.denied(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bound_that_is_reached_is_a_denial_by_its_own_key() {
    let (bench, server) = (Bench::new(), Server::start());
    let mut grant = server.grant();
    grant.methods = vec![HttpMethod::Get, HttpMethod::Post];
    grant.request_bytes = ByteSize::from_kib(4);
    grant.response_bytes = ByteSize::from_kib(4);
    for (config, key, outcome) in [
        (
            json!({ "url": server.url("/ok"), "method": "POST", "body_bytes": 100_000 }),
            "request_bytes",
            "request body size",
        ),
        (
            json!({ "url": server.url("/large") }),
            "response_bytes",
            "response body size",
        ),
        (
            json!({ "url": server.url("/silent") }),
            "timeout",
            "timeout",
        ),
        (
            json!({ "url": server.url("/halting") }),
            "timeout",
            "timeout",
        ),
    ] {
        let before = bench.events().len();
        let mut grant = grant.clone();
        if key == "timeout" {
            grant.timeout = TimeSpan::from_millis(500);
        }
        bench.ask(grant, config.clone()).await;
        let events = bench.events().split_off(before);
        let line = format!("plugins.caller.grants.http[0].{key}");
        // It was begun, refused on the way, and ended: in this order.
        let told: Vec<&Event> = events
            .iter()
            .filter(|event| {
                matches!(
                    event,
                    Event::Effect { .. } | Event::Denied { .. } | Event::EffectFinished { .. }
                )
            })
            .collect();
        let [
            Event::Effect { target, .. },
            Event::Denied {
                capability,
                detail,
                grant_with,
                ..
            },
            Event::EffectFinished { outcome: end, .. },
        ] = told[..]
        else {
            panic!("{config}: {told:?}");
        };
        assert_eq!((capability.as_str(), grant_with), ("http", &line));
        assert!(detail.starts_with(target), "{detail}");
        assert!(end.contains(outcome), "{config}: {end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_goes_to_the_server_and_nowhere_else() {
    let (bench, server) = (Bench::new(), Server::start());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    fs::write(&file, "s3cret\n").expect("a file");
    let mut grant = server.grant();
    grant.credential = Some(HttpCredential {
        header: "authorization".into(),
        prefix: "Bearer ".into(),
        secret: SecretSource::File(file.clone()),
    });
    let told = bench
        .ask(grant.clone(), json!({ "url": server.url("/ok") }))
        .await;
    assert!(told.starts_with("200 "), "{told}");
    let heard = server.heard().remove(0);
    assert!(
        heard.contains("authorization: Bearer s3cret\r\n"),
        "{heard}"
    );
    // The guest can neither set the field nor have another one in its place.
    let own = json!({ "url": server.url("/ok"), "fields": [["Authorization", "mine"]] });
    let told = bench.ask(grant.clone(), own).await;
    assert!(told.contains("the host sets the field"), "{told}");
    let text = serde_json::to_string(&bench.events()).expect("JSON");
    assert!(!text.contains("s3cret"), "{text}");
    assert!(text.contains(&format!("file:{}", file.display())), "{text}");
    // One that is gone is a failure of the request; of the grant, when the plugin is loaded.
    let plugin = bench.load(vec![grant.clone()]).await.expect("it loads");
    fs::remove_file(&file).expect("it was there");
    let failed = content(&plugin, &json!({ "url": server.url("/ok") })).await;
    assert!(
        matches!(failed, Err(CallError::Failed { .. })),
        "{failed:?}"
    );
    let error = bench.load(vec![grant]).await.err().expect("refused");
    assert!(
        error.to_string().contains("plugins.caller.grants.http"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_repeats_the_credential_is_held_back() {
    const SECRET: &str = "s3cret-of-the-host";
    let (bench, server) = (Bench::new(), Server::start_with(repeating::answer));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    fs::write(&file, SECRET).expect("a file");
    let mut grant = server.grant();
    grant.credential = Some(HttpCredential {
        header: "authorization".into(),
        prefix: "Bearer ".into(),
        secret: SecretSource::File(file),
    });
    for path in ["/field", "/body", "/pieces", "/trailer"] {
        let before = bench.denied().len();
        let told = bench
            .ask(grant.clone(), json!({ "url": server.url(path) }))
            .await;
        assert!(!told.contains(SECRET), "{path}: {told}");
        let denied = bench.denied().split_off(before);
        let is_told = |it: &String| {
            it.contains("repeats the credential")
                && it.contains("plugins.caller.grants.http[0].credential")
        };
        assert!(
            denied.len() == 1 && denied.iter().all(is_told),
            "{path}: {denied:?}"
        );
    }
    let before = bench.denied().len();
    let almost = bench
        .ask(grant, json!({ "url": server.url("/almost") }))
        .await;
    let (all_but_its_end, _) = SECRET.split_at(SECRET.len() - 1);
    assert!(
        almost.ends_with(&format!(": Bearer {all_but_its_end}")),
        "what is not the secret comes through to its end: {almost}"
    );
    assert_eq!(bench.denied().len(), before);
    // It is asked for as it is: compressed, nobody would see it.
    assert!(
        server
            .heard()
            .iter()
            .all(|it| it.contains("accept-encoding: identity\r\n"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_a_minute_are_those_of_all_instances() {
    let (bench, server) = (Bench::new(), Server::start());
    let mut grant = server.grant();
    grant.requests_per_minute = Some(3.try_into().expect("not 0"));
    let plugin = bench.load(vec![grant]).await.expect("it loads");
    let config = json!({ "url": server.url("/ok") });
    for _ in 0..3 {
        let told = content(&plugin, &config).await.expect("it may");
        assert!(told.starts_with("200 "), "{told}");
    }
    content(&plugin, &config)
        .await
        .expect_err("another instance has its requests from the same minute");
    assert_eq!(server.heard().len(), 3, "nothing more was sent");
    let denied = bench.denied();
    let [denied] = &denied[..] else {
        panic!("{denied:?}")
    };
    assert!(
        denied.contains("3 requests in a minute")
            && denied.contains("plugins.caller.grants.http[0].requests_per_minute"),
        "{denied}"
    );
}

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/certificates")
        .join(name)
}

/// Serves one answer a connection over TLS, as `localhost`.
fn tls_server() -> Server {
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};
    let chain = CertificateDer::pem_file_iter(certificate("server.pem"))
        .expect("a certificate")
        .map(|one| one.expect("a certificate"))
        .collect();
    let key = PrivateKeyDer::from_pem_file(certificate("server.key")).expect("a key");
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a server");
    let config = Arc::new(config);
    Server::start_with(move |stream, heard| {
        let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
        let mut stream = StreamOwned::new(connection, stream);
        let head = head_of(&mut stream);
        if !head.is_empty() {
            heard.lock().expect("no panic").push(head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsafe");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_to_whoever_can_show_the_name() {
    let (bench, server) = (Bench::new(), tls_server());
    let port = server.address.port();
    let by = |host: &str, authority: Option<PathBuf>| HttpGrant {
        certificate_authority: authority,
        scheme: HttpScheme::Https,
        ..grant(&json!({ "host": host, "port": port, "networks": ["127.0.0.0/8", "::1/128"] }))
    };
    let trusted = Some(certificate("authority.pem"));
    let asked = json!({ "url": format!("https://localhost:{port}/") });
    let told = bench
        .ask(by("localhost", trusted.clone()), asked.clone())
        .await;
    assert!(told.ends_with(": safe"), "{told}");
    // Another name, and another authority.
    let by_address = json!({ "url": format!("https://127.0.0.1:{port}/") });
    let told = bench.ask(by("127.0.0.1", trusted), by_address).await;
    assert!(told.starts_with("failure (unavailable)"), "{told}");
    let itself = Some(certificate("server.pem"));
    let told = bench.ask(by("localhost", itself), asked).await;
    assert!(told.starts_with("failure (unavailable)"), "{told}");
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_cannot_be_given_is_refused_with_what_is_wrong() {
    let bench = Bench::new();
    let mut table = String::new();
    for text in [
        json!({ "host": "" }),
        json!({ "host": "https://example.com" }),
        json!({ "host": "example.com:443" }),
        json!({ "host": "example.com/v1" }),
        json!({ "host": "Example.com" }),
        json!({ "host": "*" }),
        json!({ "host": "*.com" }),
        json!({ "host": "*.10.0.0.1" }),
        json!({ "host": "127.1" }),
        json!({ "host": "example.com", "path": "v1" }),
        json!({ "host": "example.com", "path": "/a/../b" }),
        json!({ "host": "example.com", "path": "/a?b" }),
        json!({ "host": "example.com", "methods": [] }),
        json!({ "host": "example.com", "certificate_authority": "/nowhere/ca.pem" }),
        json!({ "host": "example.com", "credential": { "secret": { "env": "SANDCAST_NO_SUCH" } } }),
        json!({ "host": "example.com", "scheme": "http", "credential": { "secret": { "env": "PATH" } } }),
        json!({ "host": "example.com", "credential": { "header": "host", "secret": { "env": "PATH" } } }),
        json!({ "host": "example.com", "credential": { "header": "a b", "secret": { "env": "PATH" } } }),
    ] {
        let error = bench.load(vec![grant(&text)]).await.err();
        let error = error.expect("it is refused").to_string();
        writeln!(table, "{text}\n    {error}").expect("a string");
    }
    insta::assert_snapshot!("grants", table);
    let error = bench.load(Vec::new()).await.err().expect("not granted");
    assert!(matches!(error, LoadError::NotGranted { .. }), "{error}");
    for wrong in [
        json!({ "host": "example.com", "methods": ["CONNECT"] }),
        json!({ "host": "example.com", "scheme": "ftp" }),
        json!({ "host": "example.com", "networks": ["10.0.0.0"] }),
        json!({ "host": "example.com", "requests": 0 }),
        json!({ "host": "example.com", "redirects": true }),
    ] {
        serde_json::from_value::<HttpGrant>(wrong.clone()).expect_err(&wrong.to_string());
    }
}
