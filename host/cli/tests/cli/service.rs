//! What a platform team does after a run, with the program itself: move an alias, serve, ask over
//! HTTP, stop by a signal; and a run that is interrupted by one.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sandcast_audit::Digest;
use sandcast_little_sigstore::{LittleSigstore, Signing};
use serde_json::{Value, json};

use crate::program::{output, repository, sandcast};

/// A state folder of this test.
fn state(name: &str) -> PathBuf {
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if state.exists() {
        std::fs::remove_dir_all(&state).expect("the state of an earlier test can be removed");
    }
    state
}

/// What a command says as JSON that must succeed.
fn said(state: &Path, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    let output = output(state, &arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.is_ok_and(|status| status.success()), "{name}");
}

/// A process that is killed where the test ends early.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It is gone already where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn wait(&mut self) -> Option<i32> {
        let patience = Instant::now() + Duration::from_secs(60);
        while Instant::now() < patience {
            if let Some(status) = self.0.try_wait().expect("a process") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end");
    }
}

/// Asks a server and gives back the status and the body.
fn ask(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(address).expect("it listens");
    connection
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    write!(
        connection,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a request");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// What a command says of the applicants, with a model.
fn predicted(state: &Path, model: &str) -> Value {
    let input = "examples/credit-risk/applicants.json";
    let predicted = said(state, &["predict", "--model", model, "--input", input]);
    predicted["predictions"].clone()
}

#[test]
fn a_model_whose_plugins_are_in_processes_is_the_same_model_and_is_served() {
    let (state, other) = (state("service-isolated"), state("service-in-the-engine"));
    // The example, with every plugin in a process.
    let example = repository().join("examples/credit-risk");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("data")).expect("a folder");
    for file in ["policy.cedar", "data/branch.csv", "data/web.csv.gz"] {
        std::fs::copy(example.join(file), folder.path().join(file)).expect("a copy");
    }
    let pipeline = std::fs::read_to_string(example.join("pipeline.yaml")).expect("the pipeline");
    let plugins = repository().join("plugins");
    let plugins = plugins.canonicalize().expect("the plugins");
    let mut isolated = pipeline.replace("../../plugins", &plugins.display().to_string());
    let compute = "compute: { memory: 1GiB, time: 10m }";
    assert!(isolated.contains(compute));
    isolated = isolated.replace(compute, &format!("{compute}\n      recording: {{}}"));
    let rules = "role: validator }";
    assert!(isolated.contains(rules));
    isolated = isolated.replace(rules, "role: validator, grants: { recording: {} } }");
    // Nobody is trusted yet, so all are in processes, the connector too.
    isolated.push_str("\nconduct: { isolate: probation }\n");
    let file = folder.path().join("pipeline.yaml");
    std::fs::write(&file, isolated).expect("a pipeline");
    let file = file.to_str().expect("a path in UTF-8");
    assert_eq!(
        said(&state, &["run", "--build", file])["outcome"],
        "completed"
    );
    let example = ["run", "--build", "examples/credit-risk"];
    assert_eq!(said(&other, &example)["outcome"], "completed");
    let expected = predicted(&other, "credit-risk@champion");
    assert_eq!(predicted(&state, "credit-risk@champion"), expected);
    let replayed = output(&state, &["replay", "all"]);
    assert!(replayed.status.success(), "{replayed:?}");
    let planned = output(&state, &["plan", file]);
    let planned = String::from_utf8_lossy(&planned.stdout).into_owned();
    let apart = "in a process of its own while it is not trusted";
    assert_eq!(planned.matches(apart).count(), 4, "{planned}");
    let of_csv = repository().join("plugins/connector-csv");
    let of_csv = of_csv.to_str().expect("a path in UTF-8");
    let inspected = output(&state, &["inspect", of_csv, "--pipeline", file]);
    let inspected = String::from_utf8_lossy(&inspected.stdout).into_owned();
    assert!(inspected.contains(apart), "{inspected}");

    let arguments = ["serve", "--address", "127.0.0.1:0", "credit-risk@champion"];
    let (mut serving, address) = serve(sandcast(&state, &arguments));
    let request = repository().join("examples/credit-risk/request.json");
    let request = std::fs::read_to_string(request).expect("a request");
    for _ in 0..3 {
        let (status, answer) = ask(&address, "POST", "/v2/models/credit-risk/infer", &request);
        assert_eq!(status, 200, "{answer}");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let outputs = answer["outputs"].as_array().expect("outputs");
        let yes = outputs
            .iter()
            .find(|output| output["name"] == "probability:yes");
        let yes = &yes.expect("probabilities")["data"];
        for row in 0..2 {
            assert_eq!(yes[row], expected[row]["probability:yes"], "{answer}");
        }
    }
    signal(&serving.0, "-TERM");
    assert_eq!(serving.wait(), Some(0));
    an_auditor_is_answered(&state, folder.path());
}

/// With the program, the public key and an exported folder: what a plugin could do and did, who allowed
/// it, and its decisions again. The state is gone by then.
fn an_auditor_is_answered(state: &Path, folder: &Path) {
    let evidence = folder.join("evidence");
    let to = evidence.to_str().expect("a path in UTF-8");
    let exported = output(state, &["audit", "export", "--recordings", to]);
    assert!(exported.status.success(), "{exported:?}");
    let key = output(state, &["audit", "key", "show"]);
    let key = String::from_utf8(key.stdout).expect("a key");
    let key = key.trim();
    std::fs::remove_dir_all(state).expect("it can be removed");

    let whole = said(state, &["audit", "verify", to, "--key", key]);
    assert_eq!(whole["is_trusted"], true, "{whole}");
    assert_eq!(whole["unsigned"], 0, "{whole}");
    let from = ["--from", to, "--key", key];
    let asked = |what: &[&str]| said(state, &[what, &from].concat());
    let cedar = asked(&["audit", "plugin", "sandcast/policy-cedar"]);
    let loaded = &cedar[0]["loaded"][0];
    assert!(loaded["grants"]["recording"].is_object(), "{cedar}");
    assert_eq!(cedar[0]["plugin"]["role"], "policy", "{cedar}");
    let calls = cedar[0]["did"]["instances"].as_u64();
    assert!(calls.is_some_and(|calls| calls > 0), "{cedar}");
    let who = asked(&["audit", "who", "sandcast/policy-cedar"]);
    assert!(who.as_array().is_some_and(|all| !all.is_empty()), "{who}");

    let shown = asked(&["replay", "all"]);
    let shown = shown.as_array().expect("what was recorded");
    assert!(shown.iter().all(|it| it["same"] == true), "{shown:?}");
    for role in ["adapter", "policy", "validator"] {
        let is_there = shown.iter().any(|it| it["plugin"]["role"] == role);
        assert!(is_there, "{role}: {shown:?}");
    }

    // What was run is there in words, under the digest that the log has.
    assert_eq!(whole["texts_missing"], 0, "{whole}");
    let texts = asked(&["audit", "text"]);
    let texts = texts.as_array().expect("texts");
    let text = |kind: &str| {
        let found = texts.iter().find(|text| text["kind"] == kind);
        let found = found.unwrap_or_else(|| panic!("no {kind}: {texts:?}"));
        let digest = found["digest"].as_str().expect("a digest").to_owned();
        (
            asked(&["audit", "text", &digest[..12]])["text"].clone(),
            digest,
        )
    };
    let (pipeline, config) = text("pipeline");
    assert_eq!(pipeline["name"], "credit-risk", "{pipeline}");
    assert_eq!(pipeline["conduct"]["isolate"], "probation", "{pipeline}");
    let (model, _) = text("model");
    assert_eq!(model["lineage"], text("lineage").0, "{model}");
    assert_eq!(model["lineage"]["config"], config.as_str(), "{model}");

    // Without the key the folder is nobody's, and what was changed in it is named.
    let unasked = output(state, &["replay", "--from", to, "all"]);
    assert_eq!(unasked.status.code(), Some(2), "{unasked:?}");
    assert!(String::from_utf8_lossy(&unasked.stderr).contains("--key"));
    let recording = shown[0]["recording"].as_str().expect("a digest");
    let recordings = evidence.join("recordings");
    for file in [
        recordings.join(&recording[..2]).join(recording),
        evidence.join("texts").join(&config),
        evidence.join("log.jsonl"),
    ] {
        let bytes = std::fs::read(&file).expect("it is there");
        let mut changed = bytes.clone();
        changed[bytes.len() / 2] ^= 1;
        std::fs::write(&file, changed).expect("it is written");
        let refused = output(
            state,
            &["replay", "all", from[0], from[1], from[2], from[3]],
        );
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        let name = file.file_name().and_then(|name| name.to_str());
        assert!(told.contains(name.expect("a name")), "{told}");
        std::fs::write(&file, bytes).expect("it is written");
    }
}

#[test]
fn a_model_is_registered_pointed_at_and_served() {
    let state = state("service");
    let run = said(&state, &["run", "--build", "examples/credit-risk"]);
    assert_eq!(run["outcome"], "completed");

    let moved = said(&state, &["models", "alias", "credit-risk", "stable", "1"]);
    assert_eq!(
        moved,
        json!({ "model": "credit-risk", "alias": "stable", "from": null, "to": 1 })
    );
    let nowhere = output(&state, &["models", "alias", "credit-risk", "stable", "99"]);
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
    let shown = said(&state, &["models"]);
    assert_eq!(
        shown[0]["aliases"],
        json!({ "champion": 1, "stable": 1 }),
        "the refused alias moved nothing"
    );
    let audit = output(&state, &["audit", "show", "--json"]);
    let audit = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(audit.contains("alias-moved"), "{audit}");

    let arguments = ["serve", "--address", "127.0.0.1:0", "credit-risk@stable"];
    let (mut serving, address) = serve(sandcast(&state, &arguments));

    assert_eq!(ask(&address, "GET", "/v2/health/ready", "").0, 200);
    let request = repository().join("examples/credit-risk/request.json");
    let request = std::fs::read_to_string(request).expect("a request");
    let (status, answer) = ask(&address, "POST", "/v2/models/credit-risk/infer", &request);
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let column = |name: &str| {
        let outputs = answer["outputs"].as_array().expect("outputs");
        let found = outputs.iter().find(|output| output["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {answer}"))["data"].clone()
    };
    let predicted = said(
        &state,
        &[
            "predict",
            "--model",
            "credit-risk@stable",
            "--input",
            "examples/credit-risk/applicants.json",
        ],
    );
    // The request asks about the first two of the applicants.
    let served = column("probability:yes");
    for row in 0..2 {
        assert_eq!(
            served[row], predicted["predictions"][row]["probability:yes"],
            "the same bits over HTTP: {predicted}"
        );
    }
    let (status, refusal) = ask(&address, "POST", "/v2/models/credit-risk/infer", "{}");
    assert_eq!(status, 400, "{refusal}");
    assert_eq!(ask(&address, "GET", "/v2/models/nobody", "").0, 404);
    let (status, metrics) = ask(&address, "GET", "/metrics", "");
    assert_eq!(status, 200);
    assert!(metrics.contains("credit-risk"), "{metrics}");

    signal(&serving.0, "-TERM");
    assert_eq!(serving.wait(), Some(0));
    let verified = said(&state, &["audit", "verify"]);
    assert_eq!(verified["models"]["versions"], 1, "{verified}");
    assert_eq!(verified["models"]["aliases"], 2, "{verified}");
    what_is_changed_past_the_log_does_not_answer(&state);
}

/// Changes `state.sqlite` as whoever can write it could, and nothing else.
fn past_the_log(state: &Path, change: &str) {
    let database = rusqlite::Connection::open(state.join("state.sqlite")).expect("it is there");
    assert_eq!(database.execute(change, []), Ok(1), "{change}");
}

fn what_is_changed_past_the_log_does_not_answer(state: &Path) {
    let refused = |arguments: &[&str], why: &str| {
        let output = output(state, arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        // A terminal breaks lines where it likes.
        let words = |text: &str| text.replace(|letter: char| !letter.is_alphanumeric(), "");
        assert!(words(&told).contains(&words(why)), "{told}");
    };
    let input = "examples/credit-risk/applicants.json";
    let predict = |model| ["predict", "--model", model, "--input", input];
    past_the_log(
        state,
        "INSERT INTO aliases SELECT model, 'canary', version, moved FROM aliases WHERE alias = 'stable'",
    );
    let other = "means version 1 in state.sqlite and nothing by the audit log";
    refused(&predict("credit-risk@canary"), other);
    refused(
        &["serve", "--address", "127.0.0.1:0", "credit-risk@canary"],
        other,
    );
    refused(&["audit", "verify"], other);
    // What nobody touched answers, and what somebody says on record does.
    assert!(
        output(state, &predict("credit-risk@stable"))
            .status
            .success()
    );
    said(state, &["models", "alias", "credit-risk", "canary", "1"]);
    assert!(
        output(state, &predict("credit-risk@canary"))
            .status
            .success()
    );
    said(state, &["audit", "verify"]);

    // The log itself, somewhere in its middle: nothing runs beside it.
    let log = state.join("audit/log.jsonl");
    let written = std::fs::read_to_string(&log).expect("the log");
    let changed = written.replacen("\"outcome\":\"finished\"", "\"outcome\":\"finishes\"", 1);
    assert_ne!(changed, written);
    std::fs::write(&log, &changed).expect("it is written");
    let example: &[&str] = &["run", "examples/credit-risk"];
    let serving: &[&str] = &["serve", "--address", "127.0.0.1:0", "credit-risk@stable"];
    for command in [example, serving, &predict("credit-risk@stable")] {
        let refused = output(state, command);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{command:?}: {told}");
        assert!(
            told.contains("the audit log was changed, so nothing is run"),
            "{told}"
        );
    }
    // Whatever was appended to it meanwhile is about these calls alone.
    let longer = std::fs::read_to_string(&log).expect("the log");
    for line in longer.strip_prefix(&changed).expect("it goes on").lines() {
        assert!(line.contains("\"access-decided\""), "{line}");
    }
    std::fs::write(
        &log,
        longer.replacen("\"outcome\":\"finishes\"", "\"outcome\":\"finished\"", 1),
    )
    .expect("it is written");
    said(state, &["audit", "verify"]);

    past_the_log(state, "DELETE FROM aliases WHERE alias = 'champion'");
    let gone = "means nothing in state.sqlite and version 1 by the audit log";
    refused(&predict("credit-risk"), gone);
    said(state, &["models", "alias", "credit-risk", "champion", "1"]);

    // Nobody is asked any more before it answers, and its plugin may do more.
    past_the_log(
        state,
        "UPDATE model_versions SET document = json_set(document, '$.policies', json('[]'), '$.grants.clock', json('true'))",
    );
    let changed = "all that is kept with it is";
    refused(&predict("credit-risk@stable"), changed);
    refused(&["models", "show", "credit-risk"], changed);
    refused(&["models", "alias", "credit-risk", "other", "1"], changed);
    refused(&["audit", "verify"], changed);
}

const RELEASE: &str = "https://github.com/acme/mlp/.github/workflows/release.yml@refs/tags/v1.0.0";
const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// The credit-risk example in a folder of its own, whose adapter lies beside the pipeline and must be
/// signed by a workflow.
fn with_adapter_beside(folder: &Path) -> PathBuf {
    let example = repository().join("examples/credit-risk");
    let text = std::fs::read_to_string(example.join("pipeline.yaml")).expect("the pipeline");
    let plugins = repository().join("plugins").display().to_string();
    let text = text.replace("../../plugins/adapter-mlp", "mlp.wasm");
    let text = text.replace("../../plugins", &plugins);
    assert!(text.contains("mlp.wasm"), "{text}");
    let trust = format!(
        "trust: {{ adapter: {{ identities: [{{ identity: \"https://github.com/acme/mlp/*\", \
         issuer: \"{GITHUB}\", trust_root: root.json }}] }} }}\n"
    );
    std::fs::write(folder.join("pipeline.yaml"), text + &trust).expect("the pipeline");
    std::fs::create_dir(folder.join("data")).expect("a folder");
    for file in ["policy.cedar", "data/branch.csv", "data/web.csv.gz"] {
        std::fs::copy(example.join(file), folder.join(file)).expect(file);
    }
    let adapter = folder.join("mlp.wasm");
    let built = sandcast_build::component_path(&repository().join("plugins/adapter-mlp"));
    std::fs::copy(built.expect("a crate"), &adapter).expect("it is built");
    adapter
}

#[test]
fn a_plugin_is_let_in_by_a_sigstore_bundle_until_its_signer_is_trusted_no_more() {
    let state = state("sigstore");
    let built = output(&state, &["build", "plugins/adapter-mlp"]);
    assert!(built.status.success(), "{built:?}");
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let adapter = with_adapter_beside(folder);
    let little = LittleSigstore::new();
    let root = little.trusted_root().to_string();
    std::fs::write(folder.join("root.json"), &root).expect("written");
    let in_folder = |name: &str| folder.join(name).display().to_string();
    let pipeline = folder.display().to_string();
    let ends = |arguments: &[&str], code: i32| {
        let output = output(&state, arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said
    };
    let component = std::fs::read(&adapter).expect("there");
    let bundle = adapter.with_extension("wasm.sigstore.json");
    let write = |bundle: &Path, value: &Value| {
        std::fs::write(bundle, value.to_string()).expect("written");
    };

    // Nothing beside it, then one of another component, then one that is too long, then the right one.
    assert!(ends(&["plan", &pipeline], 1).contains("it has no Sigstore bundle"));
    let by = Signing::by(RELEASE, GITHUB);
    write(&bundle, &little.sign(b"another", &by));
    assert!(ends(&["plan", &pipeline], 1).contains("it is of another file"));
    std::fs::write(&bundle, " ".repeat(1 << 20)).expect("written");
    assert!(ends(&["plan", &pipeline], 1).contains("it is longer than 262144 bytes"));
    let stranger = Signing::by("https://github.com/other/mlp/x.yml@refs/heads/main", GITHUB);
    write(&bundle, &little.sign(&component, &stranger));
    assert!(ends(&["plan", &pipeline], 1).contains("nobody who may sign a adapter signed it"));
    write(&bundle, &little.sign(&component, &by));
    assert!(ends(&["plan", &pipeline], 0).contains(&format!("signed by {RELEASE} (issued by")));

    // By hand, beside it and named.
    let (file, root_file) = (in_folder("mlp.wasm"), in_folder("root.json"));
    let verify = |identity: &str, more: &[&str], code: i32| {
        let arguments = [
            "verify-plugin",
            &file,
            "--trust-root",
            &root_file,
            "--identity",
            identity,
            "--issuer",
            GITHUB,
        ];
        ends(&[&arguments, more].concat(), code)
    };
    assert!(verify(RELEASE, &[], 0).contains("entry 4711 of the log"));
    let told: Value = serde_json::from_str(&verify(RELEASE, &["--json"], 0)).expect("JSON");
    assert_eq!(told["identities"][0]["identity"], RELEASE);
    assert_eq!(told["identities"][0]["issuer"], GITHUB);
    assert_eq!(
        told["identities"][0]["trust_root"],
        Digest::of(root.as_bytes()).to_string()
    );
    assert!(verify("ann@acme.example", &[], 1).contains("nobody who may sign"));
    assert!(verify("https://github.com*", &[], 1).contains("leaves the host open"));
    let elsewhere = in_folder("provenance.json");
    let attested = little.attest(&component, "https://slsa.dev/provenance/v1", &by);
    write(Path::new(&elsewhere), &attested);
    let told = verify(RELEASE, &["--bundle", &elsewhere], 0);
    assert!(told.contains("as https://slsa.dev/provenance/v1"), "{told}");
    let nowhere = in_folder("nowhere.json");
    assert!(verify(RELEASE, &["--bundle", &nowhere], 1).contains("nowhere.json"));
    let inspected = said_of(&ends(
        &["inspect", &file, "--pipeline", &pipeline, "--json"],
        0,
    ));
    assert_eq!(inspected["signature"]["identities"][0]["identity"], RELEASE);

    // In a run, and on record.
    let run = said(&state, &["run", "--build", &pipeline]);
    assert_eq!(run["outcome"], "completed");
    let audit = ends(&["audit", "show", "--event", "plugin-loaded"], 0);
    assert!(audit.contains(&format!(
        "signed by {RELEASE} (issued by {GITHUB}, entry 4711"
    )));

    // A server goes by the operator's rules as they are.
    let key = ends(
        &[
            "sign",
            "--new-key",
            "operator",
            "--key",
            &in_folder("operator.key"),
        ],
        0,
    );
    let rules = in_folder("trust.yaml");
    let digest = Digest::of(root.as_bytes());
    let trust = |identity: &str| {
        let text = format!(
            "version: 1\ntrust: {{ adapter: {{ identities: [{{ identity: \"{identity}\", issuer: \
             \"{GITHUB}\", trust_root: root.json, trust_root_digest: {digest} }}] }} }}\n"
        );
        // One after the other: for a moment the rules are not signed, and nothing is trusted.
        std::fs::write(&rules, text).expect("written");
        ends(
            &[
                "sign",
                "--trust",
                &rules,
                "--key",
                &in_folder("operator.key"),
            ],
            0,
        );
    };
    trust(RELEASE);
    let serving = sandcast(
        &state,
        &[
            "serve",
            "--address",
            "127.0.0.1:0",
            "--trust",
            &rules,
            "--trust-key",
            key.trim_end(),
        ],
    );
    let (serving, address) = serve(serving);
    let request = repository().join("examples/credit-risk/request.json");
    let request = std::fs::read_to_string(request).expect("a request");
    let infer = || ask(&address, "POST", "/v2/models/credit-risk/infer", &request);
    assert_eq!(infer().0, 200);
    let until = |wanted: u16| {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let (status, answer) = infer();
            if status == wanted {
                return answer;
            }
            assert!(Instant::now() < patience, "{status}: {answer}");
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let ready = || ask(&address, "GET", "/v2/models/credit-risk/ready", "");
    let server = || ask(&address, "GET", "/v2/health/ready", "").0;
    assert_eq!((ready().0, server()), (200, 200));
    trust("ann@acme.example");
    let refused = until(403);
    let (status, why) = ready();
    assert_eq!((status, server()), (403, 403), "{why}");
    let by_rule = "by the operator's rule of trust: nobody who may sign a adapter signed it";
    let patience = Instant::now() + Duration::from_secs(20);
    let mut refused = refused;
    // Until the new rules are signed, the answer is that they are not.
    while !refused.contains(by_rule) {
        assert!(Instant::now() < patience, "{refused}");
        std::thread::sleep(Duration::from_millis(200));
        refused = until(403);
    }
    trust("https://github.com/acme/*");
    until(200);
    assert_eq!((ready().0, server()), (200, 200));
    std::fs::remove_file(&rules).expect("removed");
    assert!(until(403).contains("nothing is trusted without them"));
    trust(RELEASE);
    until(200);
    signal(&serving.0, "-TERM");
    let mut serving = serving;
    assert_eq!(serving.wait(), Some(0));
    let refusals = ends(&["audit", "show", "--event", "plugin-refused"], 0);
    assert!(refusals.contains(by_rule), "{refusals}");
}

fn said_of(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Starts a server and waits until it says where it listens.
fn serve(mut command: Command) -> (Running, String) {
    let serving = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut serving = Running(serving);
    let stderr = serving.0.stderr.take().expect("its words");
    let mut words = BufReader::new(stderr).lines().map_while(Result::ok);
    let address = words.find_map(|line| {
        let (_, rest) = line.split_once("http://")?;
        Some(rest.split_whitespace().next()?.to_owned())
    });
    // What it says later is read, so that it is never held up.
    std::thread::spawn(move || words.for_each(drop));
    (serving, address.expect("it says where it listens"))
}

#[test]
fn a_run_that_is_interrupted_keeps_what_it_has_done() {
    let state = state("interrupted");
    let folder = tempfile::tempdir().expect("a folder");
    // The example with so much training that somebody loses patience.
    let example = repository().join("examples/credit-risk");
    let text = std::fs::read_to_string(example.join("pipeline.yaml")).expect("the pipeline");
    let plugins = repository().join("plugins").display().to_string();
    let text = text.replace("../../plugins", &plugins);
    let text = text
        .replace("epochs: 60", "epochs: 10000")
        .replace("patience: 6", "patience: null");
    assert!(text.contains("epochs: 10000"), "{text}");
    std::fs::write(folder.path().join("pipeline.yaml"), &text).expect("the pipeline");
    std::fs::create_dir(folder.path().join("data")).expect("a folder");
    for file in ["policy.cedar", "data/branch.csv", "data/web.csv.gz"] {
        std::fs::copy(example.join(file), folder.path().join(file)).expect(file);
    }
    let pipeline = folder.path().display().to_string();
    let running = sandcast(&state, &["run", "--build", &pipeline])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut running = Running(running);
    let stderr = running.0.stderr.take().expect("its words");
    let mut words = BufReader::new(stderr).lines().map_while(Result::ok);
    let permitted = words.by_ref().find(|line| line.contains("✓ permit"));
    assert!(permitted.is_some(), "it never gets to train");
    std::thread::sleep(Duration::from_millis(300));
    signal(&running.0, "-INT");
    let rest: Vec<String> = words.collect();
    assert_eq!(running.wait(), Some(2), "{rest:?}");
    assert!(
        rest.iter()
            .any(|line| line.contains("what is done is kept")),
        "{rest:?}"
    );
    let runs = said(&state, &["runs"]);
    assert_eq!(runs[0]["status"], "cancelled", "{runs}");

    // With less to do it goes on from where it was.
    let text = text.replace("epochs: 10000", "epochs: 2");
    std::fs::write(folder.path().join("pipeline.yaml"), text).expect("the pipeline");
    let again = output(&state, &["run", &pipeline, "--json"]);
    assert!(again.stdout.starts_with(b"{"), "{again:?}");
    let runs = said(&state, &["runs"]);
    let latest = runs[0]["run"].as_str().expect("a run").to_owned();
    let stages = said(&state, &["runs", "show", &latest]);
    let stage = |name: &str| {
        let stages = stages["stages"].as_array().expect("stages").clone();
        stages.into_iter().find(|stage| stage["stage"] == name)
    };
    assert_eq!(stage("validate").expect("validated")["cached"], true);
    let verified = output(&state, &["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
}
