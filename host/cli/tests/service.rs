//! What a platform team does after a run, with the program itself: move an alias, serve, ask over
//! HTTP, stop by a signal; and a run that is interrupted by one.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A state folder of this test.
fn state(name: &str) -> PathBuf {
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if state.exists() {
        std::fs::remove_dir_all(&state).expect("the state of an earlier test can be removed");
    }
    state
}

fn sandcast(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandcast"));
    command
        .args(arguments)
        .arg("--state")
        .arg(state)
        .current_dir(repository());
    command
}

fn output(state: &Path, arguments: &[&str]) -> Output {
    sandcast(state, arguments).output().expect("it starts")
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

/// A server of a model, and where it listens.
fn serve(state: &Path, model: &str) -> (Running, String) {
    let serving = sandcast(state, &["serve", "--address", "127.0.0.1:0", model])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut serving = Running(serving);
    let stderr = serving.0.stderr.take().expect("its words");
    let mut words = BufReader::new(stderr).lines();
    let address = words
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| {
            let (_, rest) = line.split_once("http://")?;
            Some(rest.split_whitespace().next()?.to_owned())
        })
        .expect("it says where it listens");
    // What else it says is read, so that it never waits for that.
    std::thread::spawn(move || words.map_while(Result::ok).for_each(drop));
    (serving, address)
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
    // The example, with every plugin in a process that can be.
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
    for (here, there) in [
        (
            "role: validator }",
            "role: validator, grants: { isolation: process } }",
        ),
        ("{ recording: {} }", "{ recording: {}, isolation: process }"),
        (
            "compute: { memory: 1GiB, time: 10m }",
            "compute: { memory: 1GiB, time: 10m }\n      recording: {}\n      isolation: process",
        ),
    ] {
        assert!(isolated.contains(here), "{here}");
        isolated = isolated.replace(here, there);
    }
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

    let (mut serving, address) = serve(&state, "credit-risk@champion");
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

    let (mut serving, address) = serve(&state, "credit-risk@stable");
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
    let verified = output(&state, &["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
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
