//! The inputs that all others are changed from: small, one of each kind.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use sandcast_audit::{
    AuditLog, Event, GateCheck, LogKey, PluginRef, RunId, prove_consistency, prove_inclusion,
};
use sandcast_sandbox::{
    CallContext, Certificate, ComputeGrant, ControlPoint, DeviceChoice, Field, Grants, Kind,
    Precision, RandomGrant, RecordingGrant, Recordings, Request, Role, Sandbox, SandboxConfig,
    Task, TaskKind, TrainInput, TrialOptions, examine,
};
use sandcast_tests::built;
use sandcast_tests::components::Text;
use sandcast_tests::fuzz::in_files;
use serde_json::{Value, json};
use tempfile::TempDir;

struct Corpus<'a> {
    folder: &'a Path,
}

impl Corpus<'_> {
    fn put(&self, target: &str, name: &str, bytes: impl AsRef<[u8]>) {
        let folder = self.folder.join(target);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), bytes).expect("a seed");
    }
}

/// Makes all of them. Those that hold keys and times are others each time.
pub(crate) fn make(folder: &Path) {
    let corpus = Corpus { folder };
    components(&corpus);
    columns(&corpus);
    rows(&corpus);
    store_lists(&corpus);
    texts(&corpus);
    requests(&corpus);
    audit(&corpus);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        recording(&corpus).await;
        models(&corpus).await;
        certificate(&corpus).await;
    });
}

fn components(corpus: &Corpus<'_>) {
    for role in Role::ALL {
        corpus.put("component", role.as_str(), Text::new(role).component());
    }
    let asking = Text::new(Role::Policy)
        .imports(
            r#"(import "wasi:logging/logging@0.1.0-draft" "log" (func (param i32 i32 i32 i32 i32)))"#,
        )
        .manifest(|it| {
            it["capabilities"] = json!([{ "capability": "log", "reason": "to say so" }]);
            it["description"] = json!("says so");
        });
    corpus.put("component", "asking", asking.component());
    corpus.put("component", "bare", asking.without_manifest());
    corpus.put("component", "header", b"\0asm\x0d\0\x01\0");
}

/// As `sandcast_sandbox::fuzzing::columns` takes them apart.
fn columns(corpus: &Corpus<'_>) {
    let name = |name: &str, kind: u8| {
        let mut bytes = vec![name.len() as u8, 0];
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&[kind, 1]);
        bytes
    };
    let list = |bytes: &[u8]| {
        let mut list = (bytes.len() as u16).to_le_bytes().to_vec();
        list.extend_from_slice(bytes);
        list
    };
    let longs: Vec<u8> = [1_i64, -2, i64::MAX]
        .iter()
        .flat_map(|it| it.to_le_bytes())
        .collect();
    let offsets: Vec<u8> = [0_i32, 1, 1, 3]
        .iter()
        .flat_map(|it| it.to_le_bytes())
        .collect();
    let validity = [&[1_u8][..], &list(&[0b101])].concat();
    let typed = [
        vec![0, 3],
        name("truth", 0),
        name("whole", 1),
        name("word", 3),
        [vec![3, 0], list(&[0b011]), vec![0]].concat(),
        [vec![3, 1], list(&longs), validity.clone()].concat(),
        [
            vec![3, 3],
            list(&offsets),
            list("aé".as_bytes()),
            validity.clone(),
        ]
        .concat(),
    ];
    corpus.put("columns", "typed", typed.concat());
    let raw = [
        vec![1, 2],
        name("number", 2),
        name("word", 3),
        [vec![2, 3], list(&longs), list(&[]), validity.clone()].concat(),
        [vec![3, 3], list("abc".as_bytes()), list(&offsets), vec![0]].concat(),
    ];
    corpus.put("columns", "raw", raw.concat());
    let days: Vec<u8> = [1_i32, -1, i32::MIN]
        .iter()
        .flat_map(|it| it.to_le_bytes())
        .collect();
    let times = [
        vec![0, 2],
        name("day", 4),
        name("moment", 5),
        [vec![3, 4], list(&days), validity.clone()].concat(),
        [vec![3, 5], list(&longs), validity].concat(),
    ];
    corpus.put("columns", "times", times.concat());
    corpus.put(
        "columns",
        "no-rows",
        [vec![0, 1], name("x", 1), vec![0, 1, 0, 0, 0]].concat(),
    );
}

fn some_rows() -> RecordBatch {
    let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(-3.0)]));
    let y: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let word: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some("ä"), None]));
    RecordBatch::try_from_iter_with_nullable([("x", x, true), ("y", y, false), ("w", word, true)])
        .expect("rows")
}

fn rows(corpus: &Corpus<'_>) {
    let rows = some_rows();
    let written = |batches: &[RecordBatch]| {
        let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema()).expect("a writer");
        batches
            .iter()
            .for_each(|batch| writer.write(batch).expect("written"));
        writer.into_inner().expect("bytes")
    };
    corpus.put(
        "recorded-rows",
        "rows",
        written(std::slice::from_ref(&rows)),
    );
    corpus.put(
        "recorded-rows",
        "twice",
        written(&[rows.clone(), rows.slice(1, 1)]),
    );
    corpus.put("recorded-rows", "none", written(&[]));
}

/// What stores answer: well, and otherwise.
fn store_lists(corpus: &Corpus<'_>) {
    let object = "<Contents><Key>own/raw/a&amp;b&#x41;<![CDATA[<c>]]></Key><ETag>&quot;1&quot;</ETag>\
                  <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>7</Size></Contents>";
    for (name, inner) in [
        ("none", String::new()),
        ("page", object.repeat(2)),
        (
            "more",
            format!(
                "<IsTruncated>true</IsTruncated>{object}<NextContinuationToken>x</NextContinuationToken>"
            ),
        ),
        ("stranger", object.replace("own/raw/", "own/other/../")),
        ("marker", object.replace("raw/a", "raw//")),
        ("deep", "<a>".repeat(20)),
    ] {
        let page = format!("<?xml version=\"1.0\"?><ListBucketResult>{inner}</ListBucketResult>");
        corpus.put("store-list", name, page);
    }
    let bomb = "<!DOCTYPE l [<!ENTITY a \"&b;&b;\">]><ListBucketResult>&a;</ListBucketResult>";
    corpus.put("store-list", "bomb", bomb);
}

fn texts(corpus: &Corpus<'_>) {
    for (name, text) in [
        ("metric", "metrics.auc >= 0.75"),
        ("slices", "slices.all(column, slices[column].auc < 1)"),
        (
            "names",
            "policy.train_start == 'allow' && policy['train-start'] != 'deny'",
        ),
        (
            "champion",
            "champion == null || metrics.auc > champion.metrics.auc - 0.01",
        ),
        (
            "list",
            "[1, 2, 3].exists(x, x * 2.0 == data.rows) ? true : !(1 in [1u, 2u])",
        ),
        (
            "text",
            "'a\\u00e4\\n'.startsWith(\"a\") || size(r'b') == 1 || b'\\x00' == b''",
        ),
        (
            "map",
            "{'a': 1, 'b': {'c': [null]}}.a == 1 && has(metrics.auc)",
        ),
        (
            "time",
            "duration('1h') < duration('2h') && timestamp('2026-01-01T00:00:00Z') > timestamp(0)",
        ),
    ] {
        corpus.put("expression", name, text);
    }
    corpus.put(
        "pipeline",
        "grants",
        r#"version: 1
name: all
plugins:
  a:
    source: a.wasm
    role: connector
    digest: 0000000000000000000000000000000000000000000000000000000000000000
    grants:
      http: [{ host: "*.example.com", path: /v1, networks: [10.0.0.0/8], credential: { prefix: "Bearer ", secret: { env: PATH } } }]
      files: [{ host: ., guest: /data, access: read-write, quota: { bytes: 1GiB, entries: 3 } }]
      log: { level: debug, bytes_per_second: 1KiB }
      clock: true
      random: { seed: 7 }
      limits: { memory: 256MiB, call_timeout: 60s, output_rows: 10 }
  b: { source: b, role: adapter, grants: { compute: { memory: 1GiB, time: 10m }, recording: { bytes: 1MiB } } }
conduct: { response: kill }
sources: { x: { plugin: a, config: { path: &path /data/x.csv, other: *path } } }
dataset: { sql: "select * from x" }
validate: [{ plugin: a, config: { rules: [] } }]
train: { plugin: b, task: regression, target: y, features: [x], split: { test: 0.3 } }
evaluate: { slices: [s], threshold: 0.5 }
gate: ['metrics.rmse < 1', "data.rows > 10"]
register: { model: all }
"#,
    );
    corpus.put("pipeline", "nothing", "version: 1\n");
    corpus.put(
        "pipeline",
        "tags",
        "? !!binary aGk=\n: |2-\n   text\n--- # another\n%YAML 1.2\n",
    );
}

fn requests(corpus: &Corpus<'_>) {
    corpus.put(
        "infer",
        "json",
        r#"- 6
{"id":"1","inputs":[{"name":"truth","shape":[2],"datatype":"BOOL","data":[true,null]},
{"name":"whole","shape":[2,1],"datatype":"INT64","data":[[1],[9007199254740993]]},
{"name":"number","shape":[2],"datatype":"FP64","data":[1.5,-1e300]},
{"name":"text","shape":[2],"datatype":"BYTES","data":["a\u00e4",null]},
{"name":"day","shape":[2],"datatype":"BYTES","data":["2026-02-28","1969-12-31"]},
{"name":"moment","shape":[2],"datatype":"BYTES","data":["2026-02-28T12:00:00Z",0]}],
"parameters":{"binary_data_output":true},"outputs":[{"name":"probability"}]}"#,
    );
    let json = r#"{"inputs":[{"name":"truth","shape":[2],"datatype":"BOOL","parameters":{"binary_data_size":2}},{"name":"whole","shape":[2],"datatype":"INT64","parameters":{"binary_data_size":16}}]}"#;
    let mut binary = format!("{} 2\n{json}", json.len()).into_bytes();
    binary.extend_from_slice(&[1, 0]);
    binary.extend_from_slice(&[0xff; 16]);
    corpus.put("infer", "binary", binary);
    let json = r#"{"inputs":[{"name":"truth","shape":[1],"datatype":"BOOL","data":[true]},{"name":"whole","shape":[1],"datatype":"INT64","data":[1]},{"name":"number","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}},{"name":"text","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":7}}]}"#;
    let mut texts = format!("{} 4\n{json}", json.len()).into_bytes();
    texts.extend_from_slice(&[0, 0, 0x80, 0x3f, 3, 0, 0, 0, b'a', b'b', b'c']);
    corpus.put("infer", "binary-text", texts);
    corpus.put(
        "infer",
        "completion",
        "completion\n{\"model\":\"m@champion\",\"prompt\":[\"a\",\"b\"],\"max_tokens\":3,\"temperature\":0.5,\
         \"top_k\":4,\"n\":2,\"stop\":\"x\",\"seed\":7}",
    );
}

fn plugin() -> PluginRef {
    PluginRef {
        id: "sandcast-tests/text".into(),
        version: "1.0.0".into(),
        role: "policy".into(),
        digest: sandcast_audit::Digest::of(b"a component"),
    }
}

fn events() -> Vec<Event> {
    vec![
        Event::PluginRefused {
            name: "a".into(),
            digest: None,
            reason: "no \"reason\"\n\u{202e}".into(),
        },
        Event::PluginLoaded {
            run: Some(RunId::generate()),
            plugin: plugin(),
            name: "a".into(),
            grants: json!({ "clock": true }),
            ceiling: None,
            ceiling_signers: Vec::new(),
            signers: Vec::new(),
            identities: Vec::new(),
            trust: None,
            trust_signers: Vec::new(),
            imports: vec!["wasi:logging/logging@0.1.0-draft".into()],
        },
        Event::ServeStopped { predictions: 7 },
        Event::Gated {
            run: RunId::generate(),
            approved: false,
            checks: vec![GateCheck {
                expression: "metrics.auc > 1".into(),
                passed: false,
                observed: "metrics.auc = 0.8".into(),
            }],
        },
    ]
}

/// Logs, proofs and notes: of one log, that was signed twice and whose key gave way to another.
fn audit(corpus: &Corpus<'_>) {
    let state = TempDir::with_prefix("sandcast-seeds-").expect("a folder");
    let folder = state.path().join("audit");
    let log = AuditLog::open(&folder).expect("a log");
    let lines: Vec<String> = events()
        .iter()
        .map(|event| serde_json::to_string(event).expect("JSON"))
        .collect();
    corpus.put("event", "events", lines.join("\n"));
    for event in events() {
        log.append(event).expect("appended");
    }
    let first = log.checkpoint().expect("signed");
    let old_key = log.key().expect("a key");
    log.rotate_key().expect("another key");
    log.append(Event::ServeStopped { predictions: 8 })
        .expect("appended");
    let last = log.checkpoint().expect("signed");
    let key = log.key().expect("a key");
    drop(log);
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .expect("the log")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?.to_owned();
            Some((name, fs::read(path).ok()?))
        })
        .collect();
    files.sort();
    files.push(("checkpoint".into(), first.text().as_bytes().to_vec()));
    let framed = in_files(&files);
    corpus.put("log", "whole", &framed);
    corpus.put(
        "log",
        "resealed",
        [b"resealed\n", framed.as_slice()].concat(),
    );
    let inclusion = prove_inclusion(&folder, 2).expect("a proof");
    let consistency = prove_consistency(&folder, first.checkpoint().size, None).expect("a proof");
    for (name, proof) in [("inclusion", inclusion), ("consistency", consistency)] {
        let proof = serde_json::to_string(&proof).expect("JSON");
        corpus.put("proof", name, format!("{key}\n{proof}"));
        corpus.put(
            "proof",
            &format!("{name}-by-the-old-key"),
            format!("{old_key}\n{proof}"),
        );
    }
    corpus.put("note", "checkpoint", format!("{key}\n{}", last.text()));
    corpus.put(
        "note",
        "old-checkpoint",
        format!("{old_key}\n{}", first.text()),
    );
    let vendor = LogKey::generate("vendor.example").expect("a key");
    let other = LogKey::generate("other.example").expect("a key");
    let note = format!(
        "{}{}",
        vendor.sign("text\n"),
        other.sign("text\n").lines().last().unwrap_or_default()
    );
    corpus.put("note", "note", format!("{}\n{note}\n", vendor.verifier()));
    let sealed = vendor.seal("application/vnd.in-toto+json", b"{\"_type\":\"statement\"}");
    corpus.put(
        "note",
        "envelope",
        format!("{}\n{sealed}", vendor.verifier()),
    );
}

fn sandbox(recordings: Option<Recordings>) -> Sandbox {
    let config = SandboxConfig {
        device: DeviceChoice::Cpu.into(),
        recordings,
        ..SandboxConfig::default()
    };
    Sandbox::new(config, AuditLog::in_memory()).expect("a sandbox")
}

/// An oracle that was asked twice without a network.
async fn recording(corpus: &Corpus<'_>) {
    let folder = TempDir::with_prefix("sandcast-seeds-").expect("a folder");
    let recordings = Recordings::at(folder.path());
    let sandbox = sandbox(Some(recordings.clone()));
    let component = fs::read(built("tests/guests/oracle")).expect("the guest");
    let grants = Grants {
        recording: Some(RecordingGrant::default()),
        clock: true,
        random: Some(RandomGrant { seed: None }),
        http: vec![serde_json::from_value(json!({ "host": "example.com" })).expect("a grant")],
        ..Grants::default()
    };
    let plugin = sandbox
        .load("oracle", &component, Role::Policy, grants)
        .await
        .expect("it loads");
    let context = CallContext::new(None, "seeds");
    let mut policy = plugin
        .policy(&context, &json!({ "looks": 2 }))
        .await
        .expect("made");
    for action in ["promote", "serve"] {
        let request = Request {
            control_point: ControlPoint::Promote,
            principal: "pipeline:seeds".into(),
            action: action.into(),
            resource: "model:seeds".into(),
            context: json!({}),
        };
        policy.decide(&request).await.expect("a decision");
    }
    let usage = policy.finish().expect("its end");
    let digest = usage.recording.expect("a recording");
    let text = String::from_utf8(recordings.get(&digest).expect("there")).expect("text");
    let of = sandcast_audit::Digest::of(&component).to_string();
    corpus.put("recording", "oracle", text.replace(&of, "{component}"));
}

async fn models(corpus: &Corpus<'_>) {
    let sandbox = sandbox(None);
    for (guest, name, hyperparameters) in [
        (
            "tests/guests/hostile-adapter",
            "line",
            json!({ "behaviour": "behave" }),
        ),
        (
            "plugins/adapter-mlp",
            "mlp",
            json!({ "epochs": 1, "hidden": [2] }),
        ),
        ("plugins/adapter-gbdt", "forest", json!({ "num_trees": 2 })),
    ] {
        let component = fs::read(built(guest)).expect("the guest");
        let grants = Grants {
            compute: Some(ComputeGrant::default()),
            ..Grants::default()
        };
        let plugin = sandbox
            .load(name, &component, Role::Adapter, grants)
            .await
            .expect("loads");
        let x = Float64Array::from_iter_values((0..64).map(f64::from));
        let y = Float64Array::from_iter_values((0..64).map(|row| 2.0 * f64::from(row)));
        let rows = RecordBatch::try_from_iter([
            ("x", Arc::new(x) as ArrayRef),
            ("y", Arc::new(y) as ArrayRef),
        ]);
        let input = TrainInput {
            task: Task {
                kind: TaskKind::Regression,
                features: vec![Field {
                    name: "x".into(),
                    kind: Kind::Float64,
                    nullable: false,
                }],
                target: Some("y".into()),
                classes: Vec::new(),
                weight: None,
            },
            hyperparameters,
            seed: 1,
            training: vec![rows.expect("rows")],
            validation: None,
            progress: None,
            checkpoints: None,
            precision: Precision::F32Strict,
        };
        let context = CallContext::new(None, "seeds");
        let mut adapter = plugin.adapter(&context).await.expect("an adapter");
        let trained = match adapter.train(input).await {
            Ok(trained) => trained,
            Err(error) => panic!("{guest}: {error}"),
        };
        let bytes = trained.model.to_bytes();
        if let Ok(graph) = sandcast_sandbox::Model::graph_of(&bytes) {
            corpus.put("graph", name, serde_json::to_vec(&graph).expect("JSON"));
        }
        corpus.put("model", name, bytes);
    }
    corpus.put("graph", "decoder", decoder().to_string());
    corpus.put("graph", "picture", picture().to_string());
}

/// A decoder of one attention, that can be trained and goes on from a prompt.
fn decoder() -> Value {
    let tokens = json!([{ "symbol": 0 }, { "symbol": 1 }]);
    let heads = json!([{ "symbol": 0 }, { "symbol": 1 }, { "fixed": 1 }, { "fixed": 4 }]);
    let flat = json!([{ "symbol": 0 }, { "symbol": 1 }, { "fixed": 4 }]);
    json!({
        "symbols": [{ "name": "rows", "maximum": 4 }, { "name": "time", "maximum": 8 }],
        "nodes": [
            { "input": { "name": "tokens", "dtype": "int32", "shape": tokens } },
            { "parameter": { "name": "table", "shape": [5, 4], "initializer": { "normal": 0.1 }, "trainable": true } },
            { "gather": { "table": 1, "indices": 0 } },
            { "reshape": { "operand": 2, "shape": heads } },
            { "attention": { "query": 3, "key": 3, "value": 3, "mask": null, "causal": true, "scale": null } },
            { "reshape": { "operand": 4, "shape": flat } },
            { "binary": { "operation": "add", "left": 2, "right": 5 } },
            { "transpose": { "operand": 1, "permutation": [1, 0] } },
            { "matmul": { "left": 6, "right": 7 } },
            { "input": { "name": "labels", "dtype": "int32", "shape": tokens } },
            { "cross-entropy": { "logits": 8, "labels": 9 } },
            { "reduce": { "reduction": "mean", "operand": 10, "axes": [1], "keep": false } },
        ],
        "entries": [{ "name": "score", "outputs": [{ "name": "losses", "node": 10 }] }],
        "loss": { "per-row": 11, "weight": null },
        "optimizer": { "adam": { "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8, "weight-decay": 0.0, "decoupled": false } },
        "generation": { "tokens": 0, "positions": null, "logits": 8 },
    })
}

/// A picture that is looked at in windows, with operations along axes.
fn picture() -> Value {
    let shape = json!([{ "symbol": 0 }, { "fixed": 2 }, { "fixed": 5 }, { "fixed": 5 }]);
    json!({
        "symbols": [{ "name": "rows", "maximum": 8 }],
        "nodes": [
            { "input": { "name": "x", "dtype": "float32", "shape": shape } },
            { "parameter": { "name": "kernel", "shape": [3, 2, 3, 3], "initializer": "he-uniform", "trainable": true } },
            { "convolution": { "operand": 0, "kernel": 1, "strides": [1, 1],
                "padding": [{ "before": 1, "after": 1 }, { "before": 1, "after": 1 }],
                "dilation": [1, 1], "groups": 1, "transposed": false } },
            { "pool": { "reduction": "maximum", "operand": 2, "window": [2, 2], "strides": [2, 2],
                "padding": [{ "before": 0, "after": 0 }, { "before": 0, "after": 0 }] } },
            { "reshape": { "operand": 3, "shape": [{ "symbol": 0 }, { "fixed": 12 }] } },
            { "softmax": { "operand": 4, "axis": 1, "logarithm": false } },
            { "cumulative-sum": { "operand": 5, "axis": 1, "exclusive": true, "reverse": false } },
            { "pad": { "operand": 6, "axis": 1, "before": 1, "after": 2, "value": 0.5 } },
            { "slice": { "operand": 7, "axis": 1, "start": 2, "limit": 9 } },
            { "concatenate": { "operands": [8, 4], "axis": 1 } },
            { "top-k": { "operand": 9, "axis": 1, "count": 3 } },
            { "argmax": { "operand": 9, "axis": 1 } },
            { "one-hot": { "indices": 11, "depth": 19 } },
            { "clamp": { "operand": 12, "minimum": 0.0, "maximum": 1.0 } },
            { "f32-constant": { "shape": [2], "values": [1.0, 2.0] } },
        ],
        "entries": [{ "name": "look", "outputs": [{ "name": "top", "node": 10 }, { "name": "hot", "node": 13 }] }],
        "loss": null,
        "optimizer": null,
    })
}

async fn certificate(corpus: &Corpus<'_>) {
    let component = Text::new(Role::Policy).component();
    let examined = examine(&component, &TrialOptions::default(), |_| {}).await;
    let examination = examined.expect("it can be tried");
    let key = LogKey::generate("house.example").expect("a key");
    for (name, signed) in [("signed", Some(&key)), ("unsigned", None)] {
        let certificate = Certificate::new(examination.clone(), signed);
        let text = serde_json::to_string(&certificate).expect("JSON");
        corpus.put("certificate", name, format!("{}\n{text}", key.verifier()));
    }
}
