//! An auditor looks at components: what they ask for, import, are granted and have used, what a new
//! version gained, and what code scanning is told.
//!
//! The components are empty shells: a manifest, imports and an export, which is all that is looked at.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use sandcast_audit::{AuditLog, Digest, Event, PluginRef};
use serde_json::{Value, json};

const FILES: (&str, &[&str]) = ("wasi:filesystem/preopens@0.2.12", &["get-directories"]);
const HTTP: (&str, &[&str]) = ("wasi:http/outgoing-handler@0.2.12", &["handle"]);
const CLOCK: (&str, &[&str]) = ("wasi:clocks/wall-clock@0.2.12", &["now", "resolution"]);
const DATA: (&str, &[&str]) = ("sandcast:plugin/data@0.1.0", &["all"]);

/// A component as a file.
struct Shell<'a> {
    version: &'a str,
    asks: &'a [(&'a str, &'a str)],
    imports: &'a [(&'a str, &'a [&'a str])],
    license: &'a str,
    role: &'a str,
}

impl Shell<'_> {
    fn bytes(&self) -> Vec<u8> {
        let asks = self.asks.iter();
        let asks: Vec<Value> = asks
            .map(|(name, reason)| json!({ "capability": name, "reason": reason }))
            .collect();
        let manifest = json!({
            "id": "acme/fetch", "version": self.version, "role": self.role, "contract": "0.1.0",
            "vendor": "Acme", "contact": "security@acme.example", "license": self.license,
            "description": "Fetches rows.", "capabilities": asks,
        });
        let manifest = manifest.to_string();
        let manifest = manifest.replace('\\', "\\5c").replace('"', "\\22");
        let imports = self.imports.iter().map(|(interface, functions)| {
            let functions = functions.iter();
            let functions: String = functions
                .map(|name| format!(r#"(export "{name}" (func))"#))
                .collect();
            format!(r#"(import "{interface}" (instance {functions}))"#)
        });
        let imports: String = imports.collect();
        let role = self.role;
        let text = format!(
            r#"(component {imports}
                 (instance $role)
                 (export "sandcast:plugin/{role}@0.1.0" (instance $role))
                 (@custom "sandcast:manifest" "{manifest}"))"#
        );
        wat::parse_str(text).expect("a component in text")
    }

    fn write(&self, folder: &Path, name: &str) -> Digest {
        let bytes = self.bytes();
        fs::write(folder.join(name), &bytes).expect("written");
        Digest::of(&bytes)
    }
}

/// It reads files, and says so.
const OLD: Shell<'_> = Shell {
    version: "1.0.0",
    asks: &[
        ("files", "reads the files that it brings in"),
        ("clock", "dates rows"),
    ],
    imports: &[FILES, DATA],
    license: "Apache-2.0",
    role: "connector",
};

/// It also sends requests, and says nothing of it.
const NEW: Shell<'_> = Shell {
    version: "1.1.0",
    asks: &[("files", "reads the files that it brings in")],
    imports: &[FILES, HTTP, DATA],
    license: "",
    role: "connector",
};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sandcast"))
        .arg("inspect")
        .args(arguments)
        .current_dir(folder)
        .env_remove("SANDCAST_STATE")
        .env_remove("SANDCAST_CEILING")
        .env_remove("SANDCAST_CEILING_KEY")
        .env_remove("SANDCAST_TRUST")
        .env_remove("SANDCAST_TRUST_KEY")
        .env("NO_COLOR", "1")
        .output()
        .expect("the program starts")
}

/// Everything a command says, and its exit code.
fn told(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let whole = format!("{stdout}--- stderr\n{stderr}--- exit {code}\n");
    // The folder is another one in every test.
    whole.replace(&folder.display().to_string(), "[FOLDER]")
}

fn parsed(folder: &Path, arguments: &[&str]) -> Value {
    let output = run(folder, arguments);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A pipeline whose first plugin is the component, with these grants.
fn pipeline(folder: &Path, component: &str, grants: &str) {
    fs::create_dir_all(folder.join("data")).expect("made");
    let text = format!(
        "version: 1
name: line
plugins:
  fetch: {{ source: {component}, role: connector, grants: {grants} }}
  mlp: {{ source: other.wasm, role: adapter }}
sources:
  rows: {{ plugin: fetch }}
train: {{ plugin: mlp, task: regression, target: price }}
evaluate: {{ slices: [district] }}
gate: [\"true\"]
register: {{ model: prices }}
"
    );
    fs::write(folder.join("pipeline.yaml"), text).expect("written");
}

/// A state whose audit log says that the component has read files, and asked for the time in vain.
fn used(folder: &Path, digest: Digest) {
    let log = AuditLog::open(&folder.join(".sandcast/audit")).expect("a log");
    let plugin = PluginRef {
        id: "acme/fetch".to_owned(),
        version: "1.0.0".to_owned(),
        role: "connector".to_owned(),
        digest,
    };
    let run = "20261121-201530-4f3a9c".parse().ok();
    for event in [
        Event::CallsFinished {
            run,
            plugin: plugin.clone(),
            stage: "connect rows".to_owned(),
            host_calls: [("files.read".to_owned(), 1204)].into(),
            host_use: Default::default(),
            bytes_in: 0,
            bytes_out: 0,
            guest_seconds: 0.5,
            peak_memory_bytes: 1 << 20,
            denials: 0,
            outcome: "done".to_owned(),
        },
        Event::Denied {
            run: None,
            plugin,
            stage: "connect rows".to_owned(),
            capability: "files".to_owned(),
            detail: "open /etc/passwd".to_owned(),
            grant_with: "nothing".to_owned(),
        },
    ] {
        log.append(event).expect("appended");
    }
}

#[test]
fn a_component_alone() {
    let folder = folder();
    OLD.write(folder.path(), "old.wasm");
    insta::assert_snapshot!(told(folder.path(), &["old.wasm"]));
}

#[test]
fn what_a_standard_library_imports_is_marked() {
    let folder = folder();
    let noisy = Shell {
        imports: &[
            CLOCK,
            ("wasi:cli/stdout@0.2.12", &["get-stdout"]),
            ("wasi:sockets/tcp@0.2.12", &["start-connect"]),
        ],
        asks: &[("sql-as-ever", "joins")],
        ..NEW
    };
    noisy.write(folder.path(), "noisy.wasm");
    insta::assert_snapshot!(told(folder.path(), &["noisy.wasm"]));
}

#[test]
fn a_component_in_a_pipeline_with_runs() {
    let folder = folder();
    let digest = OLD.write(folder.path(), "old.wasm");
    pipeline(
        folder.path(),
        "old.wasm",
        "{ files: [{ host: data, guest: /data }], http: [{ host: api.example.com }] }",
    );
    used(folder.path(), digest);
    let arguments = ["old.wasm", "--pipeline", "pipeline.yaml"];
    insta::assert_snapshot!(told(folder.path(), &arguments));
    // The same by the folder, and by the component's digest under another name.
    OLD.write(folder.path(), "copy.wasm");
    let copy = parsed(folder.path(), &["copy.wasm", "--pipeline", ".", "--json"]);
    assert_eq!(copy["pipeline"]["plugin"], "fetch");
    assert_eq!(copy["usage"]["calls"]["files"], 1204);
    assert_eq!(copy["capabilities"][0]["granted"], "read data as /data");
}

#[test]
fn a_way_out_for_data_is_said_loudly() {
    let folder = folder();
    NEW.write(folder.path(), "new.wasm");
    pipeline(
        folder.path(),
        "new.wasm",
        "{ files: [{ host: /, guest: /host, access: read-write }],
           http: [{ host: \"*.example.com\", networks: [10.0.0.0/8] }] }",
    );
    let arguments = ["new.wasm", "--pipeline", "pipeline.yaml"];
    insta::assert_snapshot!(told(folder.path(), &arguments));
}

#[test]
fn a_component_that_a_pipeline_does_not_have() {
    let folder = folder();
    OLD.write(folder.path(), "old.wasm");
    NEW.write(folder.path(), "new.wasm");
    pipeline(folder.path(), "old.wasm", "{}");
    let arguments = ["new.wasm", "--pipeline", "pipeline.yaml"];
    insta::assert_snapshot!(told(folder.path(), &arguments));
    // It is what would be the plugin's next version: its name there says whose grants count.
    let next = [&arguments[..], &["--plugin", "fetch", "--json"]].concat();
    assert_eq!(parsed(folder.path(), &next)["pipeline"]["plugin"], "fetch");
}

#[test]
fn what_a_new_version_gained() {
    let folder = folder();
    OLD.write(folder.path(), "old.wasm");
    NEW.write(folder.path(), "new.wasm");
    let diff = ["--diff", "old.wasm", "new.wasm"];
    insta::assert_snapshot!(told(folder.path(), &diff));
    let approved = run(folder.path(), &[&diff[..], &["--allow", "http"]].concat());
    assert_eq!(approved.status.code(), Some(0));
    let other = run(folder.path(), &[&diff[..], &["--allow", "files"]].concat());
    assert_eq!(other.status.code(), Some(1));
    let back = run(folder.path(), &["--diff", "new.wasm", "old.wasm"]);
    assert_eq!(back.status.code(), Some(1), "it asks for the clock again");
    insta::assert_snapshot!(
        "what_a_new_version_gained_as_json",
        told(folder.path(), &[&diff[..], &["--json"]].concat())
    );
}

#[test]
fn the_same_component_and_a_misspelt_approval() {
    let folder = folder();
    OLD.write(folder.path(), "old.wasm");
    NEW.write(folder.path(), "new.wasm");
    insta::assert_snapshot!(told(folder.path(), &["--diff", "old.wasm", "old.wasm"]));
    insta::assert_snapshot!(told(
        folder.path(),
        &["--diff", "old.wasm", "new.wasm", "--allow", "htp"]
    ));
}

#[test]
fn a_sarif_file_is_what_code_scanning_reads() {
    let folder = folder();
    NEW.write(folder.path(), "new one.wasm");
    let log = parsed(folder.path(), &["new one.wasm", "--sarif"]);
    check_sarif(&log);
    let run = &log["runs"][0];
    assert_eq!(run["artifacts"][0]["location"]["uri"], "new%20one.wasm");
    assert_eq!(run["properties"]["riskLevel"], "high");
    insta::assert_json_snapshot!(run["results"]);
    // Findings beside the text, and the fingerprints of the same findings are the same.
    let both = ["new one.wasm", "--sarif-file", "found.sarif"];
    let output = self::run(folder.path(), &both);
    assert!(output.status.success() && output.stdout.starts_with(b"acme/fetch"));
    let file = fs::read(folder.path().join("found.sarif")).expect("written");
    let again: Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(again, log);
}

#[test]
fn gains_are_errors_in_sarif_until_they_are_approved() {
    let folder = folder();
    OLD.write(folder.path(), "old.wasm");
    NEW.write(folder.path(), "new.wasm");
    let diff = ["--diff", "old.wasm", "new.wasm", "--sarif"];
    let levels = |arguments: &[&str]| {
        let log = parsed(folder.path(), arguments);
        check_sarif(&log);
        let results = log["runs"][0]["results"]
            .as_array()
            .expect("results")
            .clone();
        let gains = results.into_iter().filter(|result| {
            let rule = result["ruleId"].as_str().unwrap_or_default();
            rule.ends_with("-gained")
        });
        let gains: Vec<String> = gains
            .map(|it| format!("{} {} {}", it["level"], it["ruleId"], it["baselineState"]))
            .collect();
        gains.join("\n").replace('"', "")
    };
    assert_eq!(
        levels(&diff),
        "error sandcast/capability-gained new\nerror sandcast/import-gained new"
    );
    assert_eq!(
        levels(&[&diff[..], &["--allow", "http"]].concat()),
        "note sandcast/capability-gained new\nnote sandcast/import-gained new"
    );
}

/// What the schema of SARIF 2.1.0 demands of the parts that are used.
fn check_sarif(log: &Value) {
    fn keys(value: &Value, allowed: &[&str], required: &[&str]) {
        let object = value.as_object().expect("an object");
        for key in object.keys() {
            assert!(allowed.contains(&key.as_str()), "{key} in {value}");
        }
        for key in required {
            assert!(object.contains_key(*key), "{key} missing in {value}");
        }
    }
    let items = |value: &Value| value.as_array().expect("a list").clone();
    let is_level = |value: &Value| {
        let levels = ["none", "note", "warning", "error"];
        value.as_str().is_some_and(|level| levels.contains(&level))
    };
    keys(log, &["$schema", "version", "runs"], &["version", "runs"]);
    assert_eq!(log["version"], "2.1.0");
    for run in items(&log["runs"]) {
        let allowed = [
            "tool",
            "automationDetails",
            "artifacts",
            "results",
            "columnKind",
            "properties",
        ];
        keys(&run, &allowed, &["tool"]);
        let driver = &run["tool"]["driver"];
        let allowed = [
            "name",
            "organization",
            "semanticVersion",
            "informationUri",
            "rules",
        ];
        keys(driver, &allowed, &["name"]);
        let rules = items(&driver["rules"]);
        for rule in &rules {
            let allowed = [
                "id",
                "shortDescription",
                "defaultConfiguration",
                "properties",
            ];
            keys(rule, &allowed, &["id"]);
            assert!(is_level(&rule["defaultConfiguration"]["level"]), "{rule}");
        }
        for artifact in items(&run["artifacts"]) {
            let allowed = ["location", "length", "mimeType", "roles", "hashes"];
            keys(&artifact, &allowed, &["location"]);
        }
        for result in items(&run["results"]) {
            let allowed = [
                "ruleId",
                "ruleIndex",
                "level",
                "message",
                "locations",
                "partialFingerprints",
                "baselineState",
                "properties",
            ];
            keys(&result, &allowed, &["message"]);
            let index = result["ruleIndex"].as_u64().expect("an index") as usize;
            assert_eq!(rules[index]["id"], result["ruleId"]);
            assert!(is_level(&result["level"]), "{result}");
            keys(&result["message"], &["text"], &["text"]);
            for location in items(&result["locations"]) {
                let artifact = &location["physicalLocation"]["artifactLocation"];
                keys(artifact, &["uri", "index"], &["uri"]);
            }
        }
    }
}

fn sandcast(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sandcast"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("SANDCAST_STATE")
        .env_remove("SANDCAST_CEILING")
        .env_remove("SANDCAST_CEILING_KEY")
        .env_remove("SANDCAST_TRUST")
        .env("NO_COLOR", "1")
        .output()
        .expect("the program starts")
}

/// A command that must end with this exit code, and everything it says.
fn ends(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = sandcast(folder, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

#[test]
fn a_vendor_signs_and_an_operator_checks() {
    let folder = folder();
    let folder = folder.path();
    OLD.write(folder, "fetch.wasm");
    let make = |name: &str| {
        let file = format!("{name}.key");
        let made = ends(folder, &["sign", "--new-key", name, "--key", &file], 0);
        made.trim_end().to_owned()
    };
    let (acme, other) = (make("acme.example"), make("other.example"));
    let again = [
        "sign",
        "--new-key",
        "acme.example",
        "--key",
        "acme.example.key",
    ];
    assert!(ends(folder, &again, 1).contains("is there already"));
    let odd = ["sign", "--new-key", "a b", "--key", "odd.key"];
    assert!(ends(folder, &odd, 1).contains("cannot name a key"));

    let verify =
        |key: &str, code: i32| ends(folder, &["verify-plugin", "fetch.wasm", "--key", key], code);
    assert!(verify(&acme, 1).contains("it is not signed"));
    ends(
        folder,
        &["sign", "fetch.wasm", "--key", "acme.example.key"],
        0,
    );
    assert!(verify(&acme, 0).contains("signed by acme.example+"));
    assert!(verify(&other, 1).contains("signed by acme.example ("));
    let inspected = parsed(folder, &["fetch.wasm", "--json"]);
    let signers = inspected["signature"]["signers"]
        .as_array()
        .expect("a list");
    assert_eq!(signers.len(), 1, "{inspected}");

    // A pipeline says who may; `inspect` and `verify-plugin` hold the component to it.
    pipeline(
        folder,
        "fetch.wasm",
        "{ files: [{ host: data, guest: /data }] }",
    );
    let file = folder.join("pipeline.yaml");
    let plain = fs::read_to_string(&file).expect("read");
    let trusting = |role: &str, key: &str| {
        let text = format!("{plain}trust: {{ {role}: {{ keys: [\"{key}\"] }} }}\n");
        fs::write(&file, text).expect("written");
    };
    let checked = ["verify-plugin", "fetch.wasm", "--pipeline", "."];
    assert!(ends(folder, &checked, 1).contains("does not say who may sign"));
    trusting("connector", &acme);
    ends(folder, &checked, 0);
    let told = |arguments: &[&str]| ends(folder, arguments, 0);
    let inspect = ["inspect", "fetch.wasm", "--pipeline", "."];
    assert!(told(&inspect).contains("who may"));
    trusting("connector", &other);
    assert!(told(&inspect).contains("no key that may sign a connector signed it"));
    trusting("adapter", &acme);
    assert!(ends(folder, &checked, 1).contains("does not say who may sign"));

    // What is not trusted is not planned, and not run; the refusal is on record.
    let adapter = Shell {
        role: "adapter",
        imports: &[],
        asks: &[],
        ..OLD
    };
    adapter.write(folder, "other.wasm");
    trusting("connector", &acme);
    assert!(ends(folder, &["plan", "."], 0).contains("signed by acme.example"));
    trusting("connector", &other);
    assert!(ends(folder, &["plan", "."], 1).contains("NOT TRUSTED"));
    let refused = ends(folder, &["run", "."], 1);
    assert!(refused.contains("`trust.connector.keys`"), "{refused}");
    let show = ["audit", "show", "--event", "plugin-refused", "--json"];
    let entries = ends(folder, &show, 0);
    assert!(
        entries.contains("no key that may sign a connector"),
        "{entries}"
    );

    // Another component under the same signature.
    NEW.write(folder, "fetch.wasm");
    assert!(verify(&acme, 1).contains("is of another component"));
}

#[test]
fn an_operator_signs_the_ceiling_and_nothing_runs_under_another() {
    let folder = folder();
    let folder = folder.path();
    OLD.write(folder, "fetch.wasm");
    let adapter = Shell {
        role: "adapter",
        imports: &[],
        asks: &[],
        ..OLD
    };
    adapter.write(folder, "other.wasm");
    pipeline(
        folder,
        "fetch.wasm",
        "{ files: [{ host: data, guest: /data }] }",
    );
    let make = |name: &str| {
        let file = format!("{name}.key");
        let made = ends(folder, &["sign", "--new-key", name, "--key", &file], 0);
        made.trim_end().to_owned()
    };
    let (operator, other) = (make("operator"), make("other"));
    let write = |files: &str| {
        let data = folder.join("data").display().to_string();
        let text = format!(
            "version: 1\nplugins: {{ \"*\": {{ files: {} }} }}\n",
            files.replace("DATA", &data)
        );
        fs::write(folder.join("ceiling.yaml"), text).expect("written");
    };
    write("[{ host: DATA, guest: /any, access: read }]");
    let under = |key: &str, code: i32| {
        let mut said = Vec::new();
        for command in [
            &["plan", "."][..],
            &["run", "."],
            &["inspect", "fetch.wasm"],
        ] {
            let key = ["--ceiling", "ceiling.yaml", "--ceiling-key", key];
            said.push(ends(folder, &[command, &key].concat(), code));
        }
        said
    };
    for said in under(&operator, 1) {
        assert!(
            said.contains("ceiling.yaml is refused: it is not"),
            "{said}"
        );
        assert!(said.contains("signed"), "{said}");
    }
    assert!(!folder.join(".sandcast").exists(), "nothing was begun");
    let sign = ["sign", "--ceiling", "ceiling.yaml", "--key", "operator.key"];
    let said = ends(folder, &sign, 0);
    assert!(
        said.contains("signed by operator  ceiling.yaml.sig"),
        "{said}"
    );
    for said in under(&other, 1) {
        assert!(said.contains("signed by operator ("), "{said}");
    }
    // A key without a ceiling is not a way around it.
    let said = ends(folder, &["plan", ".", "--ceiling-key", &operator], 1);
    assert!(said.contains("name its file with --ceiling"), "{said}");

    // Under the right key the plan is as before, and what is over the ceiling is told.
    let plan = |code: i32| {
        let arguments = [
            "plan",
            ".",
            "--ceiling",
            "ceiling.yaml",
            "--ceiling-key",
            &operator,
        ];
        ends(folder, &arguments, code)
    };
    assert!(!plan(0).contains("CEILING"));
    let doctor = [
        "doctor",
        "--ceiling",
        "ceiling.yaml",
        "--ceiling-key",
        &operator,
    ];
    let said = sandcast(folder, &doctor);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("signed by operator"), "{said}");
    write("[]");
    for said in under(&operator, 1) {
        assert!(said.contains("it is not what was signed"), "{said}");
    }
    ends(folder, &sign, 0);
    let said = plan(1);
    assert!(said.contains("OVER THE CEILING"), "{said}");
    let inspect = [
        "inspect",
        "fetch.wasm",
        "--pipeline",
        ".",
        "--ceiling",
        "ceiling.yaml",
    ];
    let said = ends(folder, &inspect, 0);
    assert!(said.contains("over the ceiling"), "{said}");

    // What is no ceiling is not signed, and one signature is not taken for another.
    fs::write(folder.join("ceiling.yaml"), "version: 3\n").expect("written");
    assert!(ends(folder, &sign, 1).contains("is not a ceiling"));
    ends(folder, &["sign", "fetch.wasm", "--key", "operator.key"], 0);
    write("[]");
    fs::copy(
        folder.join("fetch.wasm.sig"),
        folder.join("ceiling.yaml.sig"),
    )
    .expect("copied");
    for said in under(&operator, 1) {
        assert!(said.contains("is not the signature of a ceiling"), "{said}");
    }
}

#[test]
fn an_operator_says_who_may_sign_on_this_host() {
    let folder = folder();
    let folder = folder.path();
    OLD.write(folder, "fetch.wasm");
    let adapter = Shell {
        role: "adapter",
        imports: &[],
        asks: &[],
        ..OLD
    };
    adapter.write(folder, "other.wasm");
    pipeline(
        folder,
        "fetch.wasm",
        "{ files: [{ host: data, guest: /data }] }",
    );
    let key = ends(
        folder,
        &["sign", "--new-key", "house", "--key", "house.key"],
        0,
    );
    let rules = format!(
        "version: 1\ntrust: {{ connector: {{ keys: [\"{}\"] }} }}\n",
        key.trim_end()
    );
    fs::write(folder.join("trust.yaml"), rules).expect("written");
    let plan = ["plan", ".", "--trust", "trust.yaml"];
    let inspect = ["inspect", "fetch.wasm", "--trust", "trust.yaml"];
    assert!(ends(folder, &plan, 1).contains("by the operator's rule of trust"));
    assert!(ends(folder, &inspect, 0).contains("it is not signed"));
    let run = ["run", ".", "--trust", "trust.yaml"];
    assert!(ends(folder, &run, 1).contains("by the operator's rule of trust"));
    ends(folder, &["sign", "fetch.wasm", "--key", "house.key"], 0);
    assert!(ends(folder, &plan, 0).contains("signed by house"));
    assert!(ends(folder, &inspect, 0).contains("who may"));
    let nowhere = ["plan", ".", "--trust", "nowhere.yaml"];
    assert!(ends(folder, &nowhere, 1).contains("nothing is trusted without them"));

    // The rules may have to be signed, as a ceiling may.
    let make = ["sign", "--new-key", "operator", "--key", "operator.key"];
    let operator = ends(folder, &make, 0).trim_end().to_owned();
    let signed = |command: &[&str], code: i32| {
        let under = ["--trust", "trust.yaml", "--trust-key", &operator];
        ends(folder, &[command, &under].concat(), code)
    };
    for command in [
        &["plan", "."][..],
        &["run", "."],
        &["inspect", "fetch.wasm"],
    ] {
        let said = signed(command, 1);
        assert!(
            said.contains("trust.yaml is refused: it is not signed"),
            "{said}"
        );
    }
    let alone = ["plan", ".", "--trust-key", &operator];
    assert!(ends(folder, &alone, 1).contains("name their file with --trust"));
    let sign = ["sign", "--trust", "trust.yaml", "--key", "operator.key"];
    let said = ends(folder, &sign, 0);
    assert!(
        said.contains("signed by operator  trust.yaml.sig"),
        "{said}"
    );
    let both = [&sign[..], &["--ceiling", "ceiling.yaml"]].concat();
    assert!(ends(folder, &both, 1).contains("one of them is signed at a time"));
    assert!(signed(&["plan", "."], 0).contains("signed by house"));
    let doctor = ["doctor", "--trust", "trust.yaml", "--trust-key", &operator];
    let said = String::from_utf8_lossy(&sandcast(folder, &doctor).stdout).into_owned();
    assert!(said.contains("these rules signed by operator"), "{said}");
    let rules = fs::read_to_string(folder.join("trust.yaml")).expect("read");
    fs::write(folder.join("trust.yaml"), rules + "# more\n").expect("written");
    assert!(signed(&["plan", "."], 1).contains("it is not what was signed"));
    fs::write(folder.join("trust.yaml"), "version: 1\ntrust: 3\n").expect("written");
    assert!(ends(folder, &sign, 1).contains("has no rules of trust"));
}

#[test]
fn a_plugin_is_built_with_what_it_is_made_of_and_where_it_comes_from() {
    let folder = folder();
    let folder = folder.path();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let plugin = root.join("plugins/connector-text");
    let plugin = plugin.canonicalize().expect("it is in the repository");
    let plugin = plugin.to_str().expect("text");
    let make = |name: &str| {
        let file = format!("{name}.key");
        let made = ends(folder, &["sign", "--new-key", name, "--key", &file], 0);
        made.trim_end().to_owned()
    };
    let (acme, other) = (make("acme.example"), make("other.example"));
    let build = |key: &str, code: i32| {
        let flags = [
            "--quiet",
            "--sbom",
            "--provenance",
            "--key",
            key,
            "--out",
            ".",
        ];
        ends(folder, &[&["build", plugin], &flags[..]].concat(), code)
    };
    assert!(build("nowhere.key", 1).contains("is not there"));
    let said = build("acme.example.key", 0);
    assert!(
        said.contains("bill of materials  ./connector-text.cdx.json"),
        "{said}"
    );
    assert!(
        said.contains("provenance  ./connector-text.intoto.json"),
        "{said}"
    );
    let first = fs::read(folder.join("connector-text.intoto.json")).expect("written");
    build("acme.example.key", 0);
    let again = fs::read(folder.join("connector-text.intoto.json")).expect("written");
    assert_eq!(first, again, "the same build has the same statement");

    let component = fs::read(folder.join("connector-text.wasm")).expect("built");
    let parts = fs::read_to_string(folder.join("connector-text.cdx.json")).expect("written");
    let parts: Value = serde_json::from_str(&parts).expect("JSON");
    let about = &parts["metadata"]["component"];
    assert_eq!(about["properties"][0]["value"], "sandcast/connector-text");
    let digest = Digest::of(&component).to_string();
    assert!(digest.ends_with(about["hashes"][1]["content"].as_str().expect("a text")));

    let verify = |more: &[&str], code: i32| {
        let verify = [
            "verify-plugin",
            "connector-text.wasm",
            "--provenance",
            "--key",
        ];
        ends(folder, &[&verify[..], more].concat(), code)
    };
    let said = verify(&[&acme], 0);
    for words in [
        "provenance signed by acme.example+",
        "sources",
        "dirHash",
        "Cargo.lock",
        "rustc",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let said = verify(&[&acme, "--json"], 0);
    let told: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(told["parameters"]["crate"], "connector-text");
    let materials = told["materials"].as_array().expect("a list");
    let files = &materials
        .iter()
        .find(|it| it["name"] == "sources")
        .expect("sources")["annotations"]["files"];
    assert!(files.as_u64() > Some(20), "{told}");

    assert!(verify(&[&other], 1).contains("signed by acme.example+"));
    let said = verify(&[&acme, "--builder", "https://ci.example"], 1);
    assert!(said.contains("it was built by"), "{said}");
    let ours = told["builder"].as_str().expect("a text");
    verify(&[&acme, "--builder", ours], 0);

    // Another component, another envelope, no envelope.
    let statement = folder.join("connector-text.intoto.json");
    let text = String::from_utf8(first).expect("text");
    fs::write(&statement, text.replace("\"sig\":\"", "\"sig\":\"AAAA")).expect("written");
    assert!(verify(&[&acme], 1).contains("does not fit"));
    fs::write(&statement, "{\"payload\":").expect("written");
    assert!(verify(&[&acme], 1).contains("not a signed envelope"));
    fs::remove_file(&statement).expect("removed");
    assert!(verify(&[&acme], 1).contains("build it with"));
    fs::write(&statement, &text).expect("written");
    OLD.write(folder, "connector-text.wasm");
    assert!(verify(&[&acme], 1).contains("about another component"));
}
