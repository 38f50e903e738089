//! The server on a real socket: starting, following the registry, stopping.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sandcast_audit::{AuditLog, Event};
use sandcast_serve::{ModelSelector, ServeConfig, ServeError, ServeSummary, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::models::{Manner, Shelf};
use crate::one_row;

struct Running {
    address: SocketAddr,
    audit: AuditLog,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<ServeSummary, ServeError>>,
}

impl Running {
    async fn start(shelf: &Arc<Shelf>, config: ServeConfig) -> Self {
        Self::start_with(shelf, config, AuditLog::in_memory()).await
    }

    async fn start_with(shelf: &Arc<Shelf>, config: ServeConfig, audit: AuditLog) -> Self {
        let source: Arc<Shelf> = Arc::clone(shelf);
        let server = Server::bind(source, audit.clone(), config)
            .await
            .expect("it binds");
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(server.run(async {
            stopped.await.expect("a sender");
        }));
        Self {
            address,
            audit,
            stop,
            server,
        }
    }

    async fn stop(self) -> (ServeSummary, Vec<Event>) {
        self.stop.send(()).expect("a running server");
        let summary = self.server.await.expect("no panic").expect("it ends well");
        let entries = self.audit.entries().expect("entries");
        (
            summary,
            entries.into_iter().map(|entry| entry.event).collect(),
        )
    }

    async fn ask(&self, request: String) -> String {
        ask(self.address, request).await
    }
}

fn local() -> ServeConfig {
    ServeConfig {
        address: "127.0.0.1:0".parse().expect("an address"),
        reload_interval: None,
        ..ServeConfig::default()
    }
}

/// Sends a request and reads until the server closes.
async fn ask(address: SocketAddr, request: String) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("written");
    read_all(&mut stream).await
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A cut connection is an answer too: an empty one.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn infer() -> String {
    post("/v2/models/credit/infer", &one_row().to_string())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn what_was_served_is_in_the_audit_log() {
    let server = Running::start(&Shelf::new(Manner::Formula), local()).await;
    assert_ne!(server.address.port(), 0, "the port is filled in");
    let answer = server.ask(infer()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"data\":[\"yes\"]"), "{answer}");
    server
        .ask(post("/v2/models/credit/infer", "nonsense"))
        .await;
    let address = server.address;
    let (summary, events) = server.stop().await;
    assert_eq!(
        (
            summary.predictions,
            summary.rows,
            summary.failures,
            summary.cut_connections
        ),
        (2, 1, 1, 0)
    );
    assert_eq!(
        events,
        [
            Event::ServeStarted {
                models: vec!["credit@1".to_owned(), "price@7".to_owned()],
                address: address.to_string(),
            },
            Event::PredictionsServed {
                model: "credit".to_owned(),
                version: 1,
                principal: None,
                count: 2,
                rows: 1,
                failures: 1,
            },
            Event::ServeStopped { predictions: 2 },
        ]
    );
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn predictions_are_written_down_at_every_interval() {
    let config = ServeConfig {
        audit_interval: Duration::from_millis(20),
        ..local()
    };
    let server = Running::start(&Shelf::new(Manner::Formula), config).await;
    server.ask(infer()).await;
    let written = |audit: &AuditLog| {
        let entries = audit.entries().expect("entries");
        entries
            .iter()
            .any(|entry| matches!(entry.event, Event::PredictionsServed { count: 1, .. }))
    };
    let begun = Instant::now();
    while !written(&server.audit) {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it was never written"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (_, events) = server.stop().await;
    assert_eq!(events.len(), 3, "nothing is written twice: {events:?}");
}

#[tokio::test]
async fn what_is_under_way_finishes() {
    let permits = Arc::new(Semaphore::new(0));
    let server = Running::start(&Shelf::new(Manner::WhenTold(Arc::clone(&permits))), local()).await;
    let address = server.address;
    let under_way = tokio::spawn(ask(address, infer()));
    wait_for_metric(address, "sandcast_sandbox_instances 1").await;
    let stopping = tokio::spawn(server.stop());
    // Wait until nobody new is let in; the one inside is still there.
    let begun = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it goes on listening"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!under_way.is_finished() && !stopping.is_finished());
    permits.add_permits(1);
    assert!(
        under_way
            .await
            .expect("no panic")
            .starts_with("HTTP/1.1 200 OK")
    );
    let (summary, _) = stopping.await.expect("no panic");
    assert_eq!(
        (
            summary.predictions,
            summary.failures,
            summary.cut_connections
        ),
        (1, 0, 0)
    );
}

#[tokio::test]
async fn what_never_finishes_is_cut() {
    let config = ServeConfig {
        drain_timeout: Duration::from_millis(100),
        ..local()
    };
    let never = Manner::WhenTold(Arc::new(Semaphore::new(0)));
    let server = Running::start(&Shelf::new(never), config).await;
    let under_way = tokio::spawn(ask(server.address, infer()));
    wait_for_metric(server.address, "sandcast_sandbox_instances 1").await;
    let (summary, events) = server.stop().await;
    assert_eq!(summary.cut_connections, 1);
    assert_eq!(
        (summary.predictions, summary.failures),
        (1, 1),
        "it is not forgotten"
    );
    assert!(
        matches!(events.last(), Some(Event::ServeStopped { predictions: 1 })),
        "{events:?}"
    );
    assert_eq!(under_way.await.expect("no panic"), "");
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_end() {
    let server = Running::start(&Shelf::new(Manner::Formula), local()).await;
    let mut idle = TcpStream::connect(server.address)
        .await
        .expect("a connection");
    let request = "GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    idle.write_all(request.as_bytes()).await.expect("written");
    let mut start = [0; 15];
    idle.read_exact(&mut start).await.expect("an answer");
    let begun = Instant::now();
    let (summary, _) = server.stop().await;
    assert_eq!(summary.cut_connections, 0);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

async fn wait_for_metric(address: SocketAddr, line: &str) {
    for _ in 0..500 {
        if ask(address, get("/metrics"))
            .await
            .lines()
            .any(|found| found == line)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{line} never came");
}

#[tokio::test]
async fn an_alias_that_moves_is_followed() {
    let shelf = Shelf::new(Manner::Formula);
    let config = ServeConfig {
        models: vec!["credit@champion".parse().expect("a selector")],
        reload_interval: Some(Duration::from_millis(10)),
        ..local()
    };
    let server = Running::start(&shelf, config).await;
    assert!(
        server
            .ask(infer())
            .await
            .contains("\"model_version\":\"1\"")
    );
    shelf.current.store(2, Ordering::SeqCst);
    let begun = Instant::now();
    while !server
        .ask(infer())
        .await
        .contains("\"model_version\":\"2\"")
    {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the new version never came"
        );
    }
    let (_, events) = server.stop().await;
    let versions: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::PredictionsServed { version, .. } => Some(*version),
            _ => None,
        })
        .collect();
    assert_eq!(versions, [1, 2], "each version has a line of its own");
}

#[tokio::test]
async fn a_model_that_is_new_is_served_too() {
    let shelf = Shelf::new(Manner::Formula);
    let server = Running::start(&shelf, local()).await;
    shelf.names.lock().expect("no panic").push("credit-new");
    assert!(
        server
            .ask(get("/v2/models/credit-new"))
            .await
            .starts_with("HTTP/1.1 404")
    );
    server
        .ask(post("/v2/repository/models/credit/load", "{}"))
        .await;
    let metadata = server.ask(get("/v2/models/credit-new")).await;
    assert!(metadata.starts_with("HTTP/1.1 200 OK"), "{metadata}");
    server.stop().await;
}

#[tokio::test]
async fn a_request_keeps_the_version_it_began_with() {
    let permits = Arc::new(Semaphore::new(0));
    let shelf = Shelf::new(Manner::WhenTold(Arc::clone(&permits)));
    let server = Running::start(&shelf, local()).await;
    let address = server.address;
    let old = tokio::spawn(ask(address, infer()));
    wait_for_metric(address, "sandcast_sandbox_instances 1").await;
    shelf.current.store(2, Ordering::SeqCst);
    let loaded = server
        .ask(post("/v2/repository/models/credit/load", "{}"))
        .await;
    assert!(loaded.starts_with("HTTP/1.1 200 OK"), "{loaded}");
    permits.add_permits(2);
    assert!(
        old.await
            .expect("no panic")
            .contains("\"model_version\":\"1\"")
    );
    assert!(
        server
            .ask(infer())
            .await
            .contains("\"model_version\":\"2\"")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_version_that_does_not_load_changes_nothing() {
    let shelf = Shelf::new(Manner::Formula);
    let server = Running::start(&shelf, local()).await;
    shelf.current.store(2, Ordering::SeqCst);
    shelf.broken.store(true, Ordering::SeqCst);
    let answer = server
        .ask(post("/v2/repository/models/credit/load", "{}"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("cannot serve model `credit@2`: a blob is missing"),
        "{answer}"
    );
    assert!(
        server
            .ask(infer())
            .await
            .contains("\"model_version\":\"1\"")
    );
    wait_for_metric(
        server.address,
        r#"sandcast_reloads_total{outcome="Failed"} 1"#,
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn who_sends_no_request_is_cut() {
    let config = ServeConfig {
        header_timeout: Duration::from_millis(50),
        ..local()
    };
    let server = Running::start(&Shelf::new(Manner::Formula), config).await;
    let mut slow = TcpStream::connect(server.address)
        .await
        .expect("a connection");
    slow.write_all(b"GET /v2 HTTP/1.1\r\nhost:")
        .await
        .expect("written");
    let answer = tokio::time::timeout(Duration::from_secs(10), read_all(&mut slow)).await;
    let answer = answer.expect("the server does not wait for ever");
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_take_its_answers_is_cut() {
    let config = ServeConfig {
        write_timeout: Duration::from_millis(200),
        max_connections: NonZeroUsize::MIN,
        ..local()
    };
    let server = Running::start(&Shelf::new(Manner::Formula), config).await;
    let mut deaf = TcpStream::connect(server.address)
        .await
        .expect("a connection");
    // Requests, one after the other, until neither side's buffers take any more; then more of them.
    let many = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    let patience = Duration::from_secs(20);
    let sent = tokio::time::timeout(patience, async {
        while deaf.write_all(many.as_bytes()).await.is_ok() {}
    });
    sent.await.expect("the server ends what nobody reads");
    // Its place is free for others.
    let answer = tokio::time::timeout(patience, server.ask(get("/v2/health/live"))).await;
    let answer = answer.expect("there is a place");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_put_on_record_is_not_predicted() {
    let folder = tempfile::tempdir().expect("a folder");
    let audit = AuditLog::open(folder.path()).expect("a log");
    let config = ServeConfig {
        audit_interval: Duration::from_millis(20),
        ..local()
    };
    let server = Running::start_with(&Shelf::new(Manner::Formula), config, audit).await;
    let log = folder.path().join("log.jsonl");
    let whole = std::fs::read(&log).expect("a log");
    assert!(server.ask(infer()).await.starts_with("HTTP/1.1 200 OK"));
    wait_for_entries(&server, 3).await;
    let whole = match std::fs::read(&log).expect("a log") {
        longer if longer.len() > whole.len() => longer,
        _ => panic!("what was served is not on record"),
    };
    // The disk loses it.
    std::fs::write(&log, b"").expect("written");
    let refused = loop {
        let answer = server.ask(infer()).await;
        if !answer.starts_with("HTTP/1.1 200 OK") {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(
        refused.contains("the audit log cannot be written"),
        "{refused}"
    );
    let ready = server.ask(get("/v2/health/ready")).await;
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    // It is there again, and so are answers.
    std::fs::write(&log, whole).expect("written");
    let patience = Instant::now() + Duration::from_secs(20);
    while !server.ask(infer()).await.starts_with("HTTP/1.1 200 OK") {
        assert!(Instant::now() < patience, "it does not go on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (summary, events) = server.stop().await;
    let told: u64 = events
        .iter()
        .filter_map(|event| match event {
            Event::PredictionsServed { count, .. } => Some(*count),
            _ => None,
        })
        .sum();
    assert_eq!(told, summary.predictions, "none is missing from the record");
}

/// Waits until the log has so many entries.
async fn wait_for_entries(server: &Running, number: usize) {
    let patience = Instant::now() + Duration::from_secs(20);
    while server.audit.entries().expect("entries").len() < number {
        assert!(Instant::now() < patience, "it is not written down");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let start = async |shelf: &Arc<Shelf>, config: ServeConfig| {
        let source: Arc<Shelf> = Arc::clone(shelf);
        match Server::bind(source, AuditLog::in_memory(), config).await {
            Ok(_) => panic!("it started"),
            Err(error) => error.to_string(),
        }
    };
    let shelf = Shelf::new(Manner::Formula);
    let server = Running::start(&shelf, local()).await;
    let taken = ServeConfig {
        address: server.address,
        ..local()
    };
    let error = start(&shelf, taken).await;
    assert!(
        error.starts_with(&format!("cannot listen on {}", server.address)),
        "{error}"
    );
    let selector: ModelSelector = "credit@staging".parse().expect("a selector");
    let error = start(
        &shelf,
        ServeConfig {
            models: vec![selector],
            ..local()
        },
    )
    .await;
    assert_eq!(
        error,
        "cannot serve model `credit@staging`: the model `credit` has no alias `staging`"
    );
    shelf.names.lock().expect("no panic").clear();
    let error = start(&shelf, local()).await;
    assert_eq!(
        error,
        "there are no models to serve; register one with `sandcast run`"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_nobody_asks_finds_out_what_may_not_run() {
    let allowed = Arc::new(AtomicBool::new(true));
    let shelf = Shelf::new(Manner::WhileAllowed(Arc::clone(&allowed)));
    let server = Running::start(&shelf, local()).await;
    // The metrics show what the server itself looked at last; asking for them looks at nothing.
    let until = |wanted: &'static str| {
        let address = server.address;
        async move {
            let patience = Instant::now() + Duration::from_secs(20);
            while !ask(address, get("/metrics")).await.contains(wanted) {
                assert!(Instant::now() < patience, "{wanted}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    until("sandcast_models_refused 0").await;
    allowed.store(false, Ordering::Relaxed);
    until("sandcast_models_refused 1").await;
    let ready = server.ask(get("/v2/health/ready")).await;
    assert!(ready.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{ready}");
    allowed.store(true, Ordering::Relaxed);
    until("sandcast_models_refused 0").await;
    server.stop().await;
}
