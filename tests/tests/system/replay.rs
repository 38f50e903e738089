//! A recorded instance is lived again without the world, to the same answers; and whatever is not as
//! it was is named.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use sandcast_audit::{AuditLog, Digest};
use sandcast_sandbox::{
    ByteSize, CallContext, CallError, ComputeGrant, ControlPoint, DeviceChoice, Field, Grants,
    HttpGrant, Kind, LoadError, Outcome, Plugin, Precision, RandomGrant, RecordedCall, Recording,
    RecordingError, RecordingGrant, Replay, ReplayError, Request, Role, Sandbox, SandboxConfig,
    Task, TaskKind, TrainInput, replay,
};
use sandcast_tests::built;
use serde_json::{Value, json};

use crate::bench::Bench;

/// Answers every request with how many there have been, and counts them.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

/// Connections that the server takes.
const MAX_CONNECTIONS: usize = 50;

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("an address"),
            asked: Arc::default(),
        };
        let asked = Arc::clone(&server.asked);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten().take(MAX_CONNECTIONS) {
                let number = asked.fetch_add(1, Ordering::SeqCst) + 1;
                let mut request = vec![0; 4096];
                let mut length = 0;
                while !concluded(&request[..length]) {
                    match stream.read(&mut request[length..]) {
                        Ok(read) if read > 0 => length += read,
                        _ => break,
                    }
                }
                let body = format!("answer {number}");
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-number: {number}\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        server
    }

    fn grant(&self) -> HttpGrant {
        serde_json::from_value(json!({
            "host": "127.0.0.1",
            "port": self.address.port(),
            "scheme": "http",
            "methods": ["POST"],
            "networks": ["127.0.0.0/8"],
        }))
        .expect("a grant")
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Whether a request is there with all of its body.
fn concluded(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    body.len() >= length
}

async fn load(bench: &Bench, guest: &str, role: Role, grants: Grants) -> Plugin {
    let loaded = bench.load("test", guest, role, grants);
    loaded.await.expect("it loads")
}

impl Bench {
    fn read(&self, digest: &Digest) -> Recording {
        Recording::read(&self.recordings, digest).expect("a recording")
    }

    /// Lives it again, in a sandbox of its own that has nothing of the first.
    async fn replay(&self, digest: &Digest) -> Result<Replay, ReplayError> {
        let recording = Recording::read(&self.recordings, digest)?;
        let audit = AuditLog::in_memory();
        let config = SandboxConfig {
            device: DeviceChoice::Cpu.into(),
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(config, audit.clone()).expect("a sandbox");
        let replayed = replay(&sandbox, &self.recordings, &recording).await;
        let told = audit.entries().expect("a log in memory");
        assert!(told.is_empty(), "a replay is on no record: {told:?}");
        replayed
    }

    /// A recording that says something else, as one would who has the folder.
    fn changed(&self, digest: &Digest, change: impl FnOnce(&mut Value)) -> Digest {
        let bytes = self.recordings.get(digest).expect("it is there");
        let mut value: Value = serde_json::from_slice(&bytes).expect("JSON");
        change(&mut value);
        let bytes = serde_json::to_vec(&value).expect("JSON");
        self.recordings.put(&bytes).expect("kept")
    }
}

fn recorded(grants: Grants) -> Grants {
    Grants {
        recording: Some(RecordingGrant::default()),
        ..grants
    }
}

fn question(action: &str) -> Request {
    Request {
        control_point: ControlPoint::Promote,
        principal: "pipeline:test".into(),
        action: action.into(),
        resource: "model:test".into(),
        context: json!({ "approved": true }),
    }
}

fn context() -> CallContext {
    CallContext::new(None, "test")
}

/// An oracle that was asked twice: its recording, and what it said.
async fn asked_twice(bench: &Bench, server: &Server) -> (Digest, Vec<Vec<String>>) {
    let grants = recorded(Grants {
        http: vec![server.grant()],
        clock: true,
        random: Some(RandomGrant { seed: None }),
        ..Grants::default()
    });
    let plugin = load(bench, "tests/guests/oracle", Role::Policy, grants).await;
    let url = format!("http://{}/lots", server.address);
    let config = json!({ "url": url, "looks": 2 });
    let mut policy = plugin.policy(&context(), &config).await.expect("made");
    let mut said = Vec::new();
    for action in ["promote", "serve"] {
        let decision = policy.decide(&question(action)).await.expect("a decision");
        said.push(decision.reasons);
    }
    let usage = policy.finish().expect("recorded");
    let digest = usage.recording.expect("it was recorded");
    assert_eq!(bench.recorded(), [digest]);
    (digest, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_shown_again_without_the_world() {
    let (bench, server) = (Bench::new(), Server::start());
    let (digest, said) = asked_twice(&bench, &server).await;
    assert_ne!(said[0], said[1], "the world moves on");
    assert_eq!(said[1].last().map(String::as_str), Some("200: answer 2"));
    let replayed = bench.replay(&digest).await.expect("a replay");
    assert!(replayed.is_same(), "{replayed:#?}");
    let again: Vec<Value> = replayed
        .calls
        .iter()
        .filter(|call| call.question.name() == "decide")
        .map(|call| match &call.replayed {
            Outcome::Returned { answer } => answer["reasons"].clone(),
            Outcome::Failed { why, .. } => panic!("{why}"),
        })
        .collect();
    assert_eq!(again, [json!(said[0]), json!(said[1])]);
    assert_eq!(server.asked(), 2, "a replay asks nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_as_it_was_is_named() {
    let (bench, server) = (Bench::new(), Server::start());
    let (digest, _) = asked_twice(&bench, &server).await;

    // Another question.
    let other = bench.changed(&digest, |it| {
        it["calls"][1]["request"] = json!(question("drop"))
    });
    // The call stands beside its outcome; say where.
    let path = &bench.read(&digest).calls[1];
    assert_eq!(path.call.name(), "decide");
    let replayed = match bench.replay(&other).await {
        Ok(replayed) => replayed,
        Err(error) => panic!("{error}"),
    };
    assert!(
        replayed.is_same(),
        "a key that nobody reads changes nothing"
    );
    let other = bench.changed(&digest, |it| {
        it["calls"][1]["call"]["request"]["action"] = json!("drop");
    });
    let replayed = bench.replay(&other).await.expect("a replay");
    assert!(!replayed.is_same());
    let said = replayed.request_divergence.expect("another body");
    assert!(
        said.contains("request 1") && said.contains("body"),
        "{said}"
    );

    // Another time: what the oracle says and logs is another.
    let other = bench.changed(&digest, |it| it["answers"][0]["value"][0] = json!(1));
    let replayed = bench.replay(&other).await.expect("a replay");
    assert!(!replayed.is_same());
    let divergence = replayed.divergence.expect("it differs");
    assert_eq!(divergence.recorded.expect("recorded").name, "log.log");
    assert_eq!(divergence.replayed.expect("replayed").name, "log.log");

    // One look at the clock less than was recorded.
    let other = bench.changed(&digest, |it| it["config"]["looks"] = json!(1));
    let replayed = bench.replay(&other).await.expect("a replay");
    let divergence = replayed.divergence.expect("it differs");
    assert_eq!(divergence.recorded.expect("recorded").name, "clock.now");

    // And one more.
    let other = bench.changed(&digest, |it| it["config"]["looks"] = json!(3));
    let replayed = bench.replay(&other).await.expect("a replay");
    let divergence = replayed.divergence.expect("it differs");
    assert_eq!(divergence.replayed.expect("replayed").name, "clock.now");
    assert_eq!(server.asked(), 2, "a replay asks nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_is_found_before_it_is_used() {
    let (bench, server) = (Bench::new(), Server::start());
    let (digest, _) = asked_twice(&bench, &server).await;
    let recording = bench.read(&digest);
    let parts = recording.parts();
    assert_eq!(parts.len(), 3, "the component and two answers over HTTP");
    for part in parts.iter().chain([&digest]) {
        let path = bench.recordings.path_of(part);
        let bytes = fs::read(&path).expect("it is there");
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        fs::write(&path, changed).expect("changed");
        let said = match bench.replay(&digest).await {
            Err(error) => error.to_string(),
            Ok(replayed) => replayed
                .request_divergence
                .expect("a body that was changed"),
        };
        assert!(said.contains("is not what was recorded"), "{said}");
        fs::remove_file(&path).expect("removed");
        let said = match bench.replay(&digest).await {
            Err(error) => error.to_string(),
            Ok(replayed) => replayed.request_divergence.expect("a body that is gone"),
        };
        assert!(said.contains("is not among the recordings"), "{said}");
        fs::write(&path, bytes).expect("put back");
    }
    assert!(bench.replay(&digest).await.expect("a replay").is_same());
    let part = Recording::read(&bench.recordings, &parts[0]);
    assert!(matches!(part, Err(RecordingError::Format { .. })));
    let other = bench.changed(&digest, |it| it["version"] = json!(2));
    let error = bench.replay(&other).await.expect_err("another version");
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_kept_does_not_happen() {
    let (bench, server) = (Bench::new(), Server::start());
    let grants = |bytes| Grants {
        http: vec![server.grant()],
        clock: true,
        random: Some(RandomGrant::default()),
        recording: Some(RecordingGrant { bytes }),
        ..Grants::default()
    };
    let small = grants(ByteSize::from_kib(16));
    let plugin = load(&bench, "tests/guests/oracle", Role::Policy, small).await;
    for (looks, is_kept) in [(10, true), (10_000, false)] {
        let config = json!({ "looks": looks });
        let mut policy = plugin.policy(&context(), &config).await.expect("made");
        match policy.decide(&question("promote")).await {
            Ok(_) => assert!(is_kept, "{looks} looks are too many"),
            Err(CallError::OverLimit { limit, .. }) => {
                assert!(!is_kept && limit == "recording.bytes", "{limit}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    // A disk that takes no more.
    let plugin = load(
        &bench,
        "tests/guests/oracle",
        Role::Policy,
        grants(ByteSize::from_mib(1)),
    )
    .await;
    let mut policy = plugin.policy(&context(), &json!({})).await.expect("made");
    policy.decide(&question("promote")).await.expect("decided");
    fs::remove_dir_all(bench.recordings.folder()).expect("removed");
    fs::write(bench.recordings.folder(), "in the way").expect("a file");
    let error = policy.finish().expect_err("it cannot be kept");
    assert!(error.to_string().contains("counts for nothing"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_recorded_is_refused_a_recording() {
    let bench = Bench::new();
    let refusal = async |guest: &str, role, grants| {
        let loaded = bench.load("test", guest, role, grants).await;
        loaded.map(|_| ()).expect_err("it is refused").to_string()
    };
    let said = refusal(
        "tests/guests/probe-connector",
        Role::Connector,
        recorded(Grants::default()),
    )
    .await;
    assert!(said.contains("plugins.test.grants.recording"), "{said}");
    assert!(said.contains("connectors are not recorded"), "{said}");
    let no_folder = Sandbox::new(SandboxConfig::default(), AuditLog::in_memory()).expect("made");
    let component = fs::read(built("plugins/policy-cedar")).expect("the guest");
    let grants = recorded(Grants::default());
    let error = no_folder.load("test", &component, Role::Policy, grants);
    let error = error.await.map(|_| ()).expect_err("there is no folder");
    assert!(matches!(error, LoadError::BadGrant { .. }), "{error}");
}

fn table(rows: usize) -> RecordBatch {
    let noise = |row: usize, salt: u64| {
        let hash = (row as u64 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 40) as f64 / (1_u64 << 24) as f64
    };
    let a: Vec<f64> = (0..rows).map(|row| noise(row, 1)).collect();
    let b: Vec<f64> = (0..rows).map(|row| noise(row, 1 << 20)).collect();
    let answer: Vec<&str> = (0..rows)
        .map(|row| ["no", "yes"][usize::from(a[row] + b[row] > 1.0)])
        .collect();
    RecordBatch::try_from_iter([
        ("a", Arc::new(Float64Array::from(a)) as ArrayRef),
        ("b", Arc::new(Float64Array::from(b))),
        ("answer", Arc::new(StringArray::from(answer))),
    ])
    .expect("rows")
}

fn task() -> Task {
    let number = |name: &str| Field {
        name: name.into(),
        kind: Kind::Float64,
        nullable: false,
    };
    Task {
        kind: TaskKind::BinaryClassification,
        features: vec![number("a"), number("b")],
        target: Some("answer".into()),
        classes: vec!["no".into(), "yes".into()],
        weight: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validation_is_shown_again() {
    let bench = Bench::new();
    let grants = recorded(Grants::default());
    let plugin = load(&bench, "plugins/validator-rules", Role::Validator, grants).await;
    let config = json!({ "rules": [
        { "rule": "range", "column": "a", "max": 0.9 },
        { "rule": "not-null", "column": "b" },
    ] });
    let rows = table(1000);
    let made = plugin.validator(&context(), &config, &rows.schema()).await;
    let mut validator = made.expect("made");
    let mut found = 0;
    for start in [0, 400, 900] {
        let findings = validator
            .check(&rows.slice(start, 100))
            .await
            .expect("checked");
        found += findings.iter().map(|it| it.rows.len()).sum::<usize>();
    }
    assert!(found > 0, "some rows are out of range");
    validator.finish().await.expect("judged");
    let digest = bench.recorded()[0];
    let recording = bench.read(&digest);
    let names: Vec<&str> = recording.calls.iter().map(|it| it.call.name()).collect();
    assert_eq!(names, ["configure", "check", "check", "check", "finish"]);
    let replayed = bench.replay(&digest).await.expect("a replay");
    assert!(replayed.is_same(), "{replayed:#?}");
    assert_eq!(replayed.calls.len(), 5);

    // Other findings than it had.
    let other = bench.changed(&digest, |it| {
        it["calls"][2]["outcome"]["answer"][0]["rows"] = json!([99]);
    });
    let replayed = bench.replay(&other).await.expect("a replay");
    let differs: Vec<bool> = replayed.calls.iter().map(|it| !it.is_same).collect();
    assert_eq!(differs, [false, false, true], "it stops where it differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_and_its_predictions_are_shown_again() {
    // Trees that use every row and column do not depend on the seed.
    for (adapter, is_seeded) in [
        ("plugins/adapter-mlp", true),
        ("plugins/adapter-gbdt", false),
    ] {
        let bench = Bench::new();
        let grants = recorded(Grants {
            compute: Some(ComputeGrant::default()),
            ..Grants::default()
        });
        let plugin = load(&bench, adapter, Role::Adapter, grants).await;
        let rows = table(600);
        let mut adapter = plugin.adapter(&context()).await.expect("made");
        let input = TrainInput {
            task: task(),
            hyperparameters: json!({}),
            seed: 7,
            training: vec![rows.slice(0, 300), rows.slice(300, 200)],
            validation: Some(vec![rows.slice(500, 100)]),
            progress: None,
            checkpoints: None,
            precision: Precision::default(),
        };
        let trained = adapter.train(input).await.expect("trained");
        adapter.finish().expect("recorded");
        let features = rows.project(&[0, 1]).expect("columns");
        let mut adapter = plugin.adapter(&context()).await.expect("made");
        for start in [0, 50] {
            let asked = features.slice(start, 20);
            adapter
                .predict(&trained.model, &asked)
                .await
                .expect("predicted");
        }
        adapter.finish().expect("recorded");
        let recorded = bench.recorded();
        assert_eq!(recorded.len(), 2);
        for digest in &recorded {
            let replayed = bench.replay(digest).await.expect("a replay");
            assert!(replayed.is_same(), "{replayed:#?}");
        }
        // What is handed over with a recording is enough to show what was answered.
        let predictions = bench.read(&recorded[1]);
        let answered: Vec<Digest> = predictions
            .calls
            .iter()
            .filter_map(RecordedCall::answered_rows)
            .collect();
        assert_eq!(answered.len(), 2);
        let parts = predictions.parts();
        for digest in &answered {
            assert!(parts.contains(digest), "{digest} goes along");
            let rows = bench.recordings.rows(digest).expect("kept");
            assert_eq!(rows[0].num_rows(), 20);
        }
        let training = bench.read(&recorded[0]);
        let Outcome::Returned { answer } = &training.calls[1].outcome else {
            panic!("it was trained");
        };
        assert_eq!(answer["model"], json!(trained.model.digest()));

        // Another seed: the first call that shows it is the training.
        let other = bench.changed(&recorded[0], |it| {
            it["calls"][1]["call"]["seed"] = json!(8);
        });
        let replayed = bench.replay(&other).await.expect("a replay");
        assert_eq!(replayed.is_same(), !is_seeded);
        if is_seeded {
            let divergence = replayed.divergence.expect("a call that differs");
            let call = divergence.recorded.expect("recorded").name;
            assert_eq!(call, "compute.session-train");
        }
    }
}
