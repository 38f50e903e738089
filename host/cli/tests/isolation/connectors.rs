//! Connectors in processes of their own: the same rows, record, denials and errors as in the engine, with
//! folders and requests that are asked of the host.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::AsArray as _;
use sandcast_audit::{AuditLog, Digest};
use sandcast_estate::{Estate, LandRequest};
use sandcast_sandbox::{
    Access, ByteSize, CallError, FileGrant, FileQuota, Grants, HttpGrant, Isolation, Limits,
    Plugin, Role, Sandbox, SandboxConfig, ScanRequest, TimeSpan,
};
use serde_json::{Value, json};

use crate::apart::{ALONE, children, component, context, effects, processes, sandbox, told};
use crate::server::serve;

/// Chunks after which an endless source is believed to be one.
const ENOUGH_CHUNKS: usize = 5;

async fn load(sandbox: &Sandbox, component: &[u8], grants: Grants) -> Plugin {
    let loaded = sandbox
        .load("guest", component, Role::Connector, grants)
        .await;
    loaded.expect("it loads")
}

/// What was compiled once is not compiled again.
fn cached(config: &mut SandboxConfig) {
    config.cache_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"));
}

/// Everything that a connector says, as far as is enough, in words; or how it ended.
async fn life(plugin: &Plugin, config: &Value) -> String {
    let lived = async {
        let mut connector = plugin.connector(&context(), config).await?;
        let mut said = format!("{:?}", connector.schema().await?);
        let splits = connector.partitions().await?;
        write!(said, "\n{splits:?}").expect("a line");
        let Some(split) = splits.into_iter().next() else {
            return Ok(said);
        };
        connector.scan(&ScanRequest::all(split)).await?;
        for _ in 0..ENOUGH_CHUNKS {
            match connector.next().await? {
                Some(chunk) => write!(said, "\n{chunk:?}").expect("a line"),
                None => {
                    write!(said, "\nthe end, and {:?}", connector.cursor().await?).expect("a line")
                }
            }
        }
        connector.finish()?;
        Ok::<_, CallError>(said)
    };
    match lived.await {
        Ok(said) => said,
        Err(error) => error.to_string(),
    }
}

/// The one text that a guest hands over, or what it was told.
async fn content(plugin: &Plugin, config: &Value) -> String {
    let handed = async {
        let mut connector = plugin.connector(&context(), config).await?;
        connector.schema().await?;
        let split = connector.partitions().await?.remove(0);
        connector.scan(&ScanRequest::all(split)).await?;
        let chunk = connector.next().await?.expect("a chunk");
        let rows = chunk.batch.expect("a row");
        connector.finish()?;
        Ok::<_, CallError>(rows.column(0).as_string::<i32>().value(0).to_owned())
    };
    match handed.await {
        Ok(content) => content,
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_connector_in_a_process_comes_to_what_it_comes_to_in_the_engine() {
    let _alone = ALONE.lock().await;
    let guest = component("tests/guests/hostile-connector");
    let limits = |seconds| Limits {
        memory: ByteSize::from_mib(64),
        output_bytes: ByteSize::from_mib(16),
        call_timeout: TimeSpan::from_secs(seconds),
        ..Limits::default()
    };
    let (mut said, mut logs) = (Vec::new(), Vec::new());
    for isolation in [Isolation::Engine, Isolation::Process] {
        let audit = AuditLog::in_memory();
        let sandbox = sandbox(&audit, cached);
        let grants = |seconds| Grants {
            isolation,
            limits: limits(seconds),
            ..Grants::default()
        };
        // Only those that never end by themselves are to be ended soon.
        let hasty = load(&sandbox, &guest, grants(1)).await;
        let patient = load(&sandbox, &guest, grants(60)).await;
        let mut outcomes = Vec::new();
        for behaviour in [
            "behave",
            "fail",
            "spin",
            "spin-in-open",
            "memory",
            "trap",
            "panic",
            "stack",
            "short-column",
            "unequal-columns",
            "short-validity",
            "falling-offsets",
            "negative-offsets",
            "offsets-past-the-end",
            "not-utf8",
            "cut-character",
            "wrong-kind",
            "wrong-schema",
            "null-in-required",
            "flood-log",
            "long-log",
            "many-rejects",
            "long-reject",
            "claim-more-rows",
            "claim-fewer-rows",
            "reject-row-zero",
            "endless",
            "endless-nothing",
            "hoard-batches",
            "wide-schema",
            "twin-columns",
            "many-splits",
            "twin-splits",
            "giant-rows",
            "raw-fraction",
            "raw-stray-offsets",
            "raw-cut-offsets",
            "wide-batch",
            "long-names",
            "escapes-in-failure",
            "escapes-in-reject",
            "escapes-in-panic",
            "escapes-in-log",
            "escapes-in-splits",
            "escapes-in-names",
            "no-such-behaviour",
        ] {
            let plugin = match behaviour {
                "spin" | "spin-in-open" => &hasty,
                _ => &patient,
            };
            let came = life(plugin, &json!({ "behaviour": behaviour })).await;
            outcomes.push(format!("{behaviour}: {came}"));
        }
        assert_eq!(sandbox.live_instances(), 0);
        said.push(outcomes);
        logs.push(told(&audit));
        drop((hasty, patient, sandbox));
        assert_eq!(children(), 0, "they end with their plugin");
    }
    for (here, there) in said[0].iter().zip(&said[1]) {
        assert_eq!(here, there);
    }
    assert_eq!(logs[0], logs[1]);
    assert!(logs[0].iter().any(|line| line.starts_with("denied log")));
}

/// A granted folder with a secret beside it.
fn folder() -> tempfile::TempDir {
    let outer = tempfile::tempdir().expect("a folder");
    fs::create_dir(outer.path().join("granted")).expect("a folder");
    fs::write(outer.path().join("granted/open.txt"), "open").expect("a file");
    fs::write(outer.path().join("secret.txt"), "SECRET").expect("a file");
    outer
}

fn files(outer: &Path, access: Access, isolation: Isolation) -> Grants {
    Grants {
        isolation,
        files: vec![FileGrant {
            host: outer.join("granted"),
            guest: "/data".into(),
            access,
            quota: FileQuota {
                bytes: ByteSize::from_bytes(10_500),
                entries: 5,
            },
        }],
        ..Grants::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_as_open_to_a_process_as_it_is_in_the_engine() {
    let _alone = ALONE.lock().await;
    let guest = component("tests/guests/hostile-reader");
    let mut tables = Vec::new();
    for isolation in [Isolation::Engine, Isolation::Process] {
        let mut table = Vec::new();
        for access in [Access::Read, Access::ReadWrite] {
            for (behaviour, path) in [
                ("list", "/data"),
                ("read", "/data/open.txt"),
                ("read", "/data/nothing.txt"),
                ("read", "/data/../secret.txt"),
                ("read", "/etc/passwd"),
                ("read-raw", "../secret.txt"),
                ("read-raw", "open.txt/../../secret.txt"),
                ("read-often", "open.txt"),
                ("link-and-read", "../secret.txt"),
                ("hard-link-and-read", "open.txt"),
                ("move-out", "open.txt"),
                ("write", "../planted.txt"),
                ("write", "new.txt"),
                ("fill-by-stream", "filled.txt"),
                ("fill-by-write", "filled.txt"),
                ("fill-by-size", "filled.txt"),
                ("make-many", "many"),
            ] {
                let (outer, audit) = (folder(), AuditLog::in_memory());
                let sandbox = sandbox(&audit, cached);
                let plugin = load(&sandbox, &guest, files(outer.path(), access, isolation)).await;
                let config = json!({ "behaviour": behaviour, "path": path });
                let said = content(&plugin, &config).await;
                assert!(
                    !said.contains("SECRET") && !said.contains("root:"),
                    "{said}"
                );
                let length = |name: &str| {
                    let found = fs::metadata(outer.path().join("granted").join(name));
                    found.map_or(0, |found| found.len())
                };
                let filled = length("filled.txt");
                assert!(filled <= 10_500, "{behaviour}: {filled} bytes");
                let secret = fs::read_to_string(outer.path().join("secret.txt"));
                assert_eq!(secret.expect("the secret"), "SECRET");
                for outside in ["planted.txt", "moved-out"] {
                    assert!(!outer.path().join(outside).exists(), "{behaviour} {path}");
                }
                table.push(format!(
                    "{access:?} {behaviour} {path}: {said}; {filled}, {}; {:?}; {:?}",
                    length("open.txt"),
                    effects(&audit),
                    told(&audit),
                ));
            }
        }
        tables.push(table);
    }
    for (here, there) in tables[0].iter().zip(&tables[1]) {
        assert_eq!(here, there);
    }
    let has = |words: &str| tables[0].iter().any(|line| line.contains(words));
    assert!(has("denied files") && has("read /data/open.txt") && has("quota.bytes"));
}

/// A table of so many rows, a tenth of which is bad.
fn table(rows: usize) -> String {
    let mut text = String::from("id,name,amount\n");
    for row in 0..rows {
        let amount = if row % 10 == 3 { "much" } else { "1.5" };
        writeln!(text, "{row},name {row},{amount}").expect("a line");
    }
    text
}

/// Lands the tables of a folder: the digest of the dataset with everything in it, or the error.
async fn land(folder: &Path, sandbox: &Sandbox, isolation: Isolation) -> Result<Digest, String> {
    let grants = Grants {
        isolation,
        files: vec![FileGrant {
            host: folder.join("data"),
            guest: "/data".into(),
            access: Access::Read,
            quota: FileQuota::default(),
        }],
        ..Grants::default()
    };
    let plugin = load(sandbox, &component("plugins/connector-csv"), grants).await;
    let estate = Estate::open(&folder.join("estate")).expect("an estate");
    let request = LandRequest {
        name: "people".into(),
        plugin,
        config: json!({ "path": "/data", "columns": { "amount": { "type": "float64" } } }),
        context: context(),
        progress: None,
    };
    let dataset = estate.land(request).await;
    let dataset = dataset.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    })?;
    assert!(dataset.quarantine.rows > 0);
    Ok(dataset.digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_files_are_the_same_from_a_process() {
    let _alone = ALONE.lock().await;
    let mut outcomes = Vec::new();
    for isolation in [Isolation::Engine, Isolation::Process] {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("data")).expect("a folder");
        for number in 0..3 {
            let file = folder.path().join(format!("data/people-{number}.csv"));
            // More than one read of a file.
            fs::write(file, table(20_000 + number)).expect("a table");
        }
        let audit = AuditLog::in_memory();
        let sandbox = sandbox(&audit, cached);
        let digest = land(folder.path(), &sandbox, isolation).await;
        // Splits end in any order.
        let mut ends = told(&audit);
        ends.sort();
        let mut done = effects(&audit);
        done.sort();
        outcomes.push((digest.expect("it lands"), ends, done));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert!(
        outcomes[0]
            .2
            .contains(&"files read /data/people-0.csv".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_while_it_reads_leaves_nothing_and_the_next_run_reads_all() {
    let _alone = ALONE.lock().await;
    let (folder, other) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    for folder in [folder.path(), other.path()] {
        fs::create_dir(folder.join("data")).expect("a folder");
        fs::write(folder.join("data/people.csv"), table(400_000)).expect("a table");
    }
    let audit = AuditLog::in_memory();
    let sandbox = sandbox(&audit, cached);
    let is_over = Arc::new(AtomicBool::new(false));
    let killer = {
        let (is_over, audit) = (Arc::clone(&is_over), audit.clone());
        std::thread::spawn(move || {
            let mut killed = 0;
            while !is_over.load(Ordering::Relaxed) && killed == 0 {
                // Its columns are known, and it reads on: the second instance is at work.
                let opened = effects(&audit).len();
                if opened > 0 && audit.entries().is_ok_and(|all| all.len() > 3) {
                    std::thread::sleep(Duration::from_millis(30));
                    for process in processes() {
                        let status = std::process::Command::new("kill")
                            .args(["-9", &process])
                            .status();
                        killed += usize::from(status.expect("kill").success());
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            killed
        })
    };
    let outcome = land(folder.path(), &sandbox, Isolation::Process).await;
    is_over.store(true, Ordering::Relaxed);
    assert!(killer.join().expect("it ended") > 0, "nobody was killed");
    let error = outcome.expect_err("it was killed");
    assert!(
        error.contains("the process that it runs in is gone"),
        "{error}"
    );
    assert_eq!(sandbox.live_instances(), 0);
    let again = land(folder.path(), &sandbox, Isolation::Process).await;
    let whole = land(other.path(), &sandbox, Isolation::Engine).await;
    assert_eq!(again.expect("it lands"), whole.expect("it lands"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_process_are_those_of_the_engine() {
    let _alone = ALONE.lock().await;
    let guest = component("tests/guests/caller");
    let address = serve();
    let url = |path: &str| format!("http://{address}{path}");
    let grant: HttpGrant = serde_json::from_value(json!({
        "host": "127.0.0.1", "port": address.port(), "scheme": "http", "path": "/",
        "methods": ["GET", "POST"], "networks": ["127.0.0.0/8"], "requests": 3, "at_once": 2,
        "request_bytes": "64KiB", "response_bytes": "400KiB", "timeout": "1s",
    }))
    .expect("a grant");
    let mut small = grant.clone();
    small.response_bytes = ByteSize::from_kib(100);
    let mut private = grant.clone();
    private.networks.clear();
    let questions = [
        (&grant, json!({ "url": url("/ok") })),
        (
            &grant,
            json!({ "url": url("/ok"), "fields": [["accept", "text/csv"]] }),
        ),
        (
            &grant,
            json!({ "url": url("/ok"), "fields": [["host", "elsewhere"]] }),
        ),
        (
            &grant,
            json!({ "url": url("/post"), "method": "POST", "body_bytes": 10_000 }),
        ),
        (
            &grant,
            json!({ "url": url("/post"), "method": "POST", "body_bytes": 100_000 }),
        ),
        (&grant, json!({ "url": url("/ok"), "method": "DELETE" })),
        (&grant, json!({ "url": url("/large") })),
        (&small, json!({ "url": url("/large") })),
        (&grant, json!({ "url": url("/cut") })),
        (&grant, json!({ "url": url("/nonsense") })),
        (&grant, json!({ "url": url("/silent") })),
        (
            &grant,
            json!({ "url": url("/ok"), "behaviour": "ask-again", "times": 3 }),
        ),
        (
            &grant,
            json!({ "url": url("/ok"), "behaviour": "ask-again", "times": 4 }),
        ),
        (
            &grant,
            json!({ "url": url("/silent"), "behaviour": "ask-at-once", "times": 3 }),
        ),
        (
            &grant,
            json!({ "url": address.to_string(), "path": "/a/../b", "behaviour": "ask-raw" }),
        ),
        (&private, json!({ "url": url("/ok") })),
        (&grant, json!({ "url": "http://localhost/other" })),
    ];
    let mut tables = Vec::new();
    for isolation in [Isolation::Engine, Isolation::Process] {
        let mut table = Vec::new();
        for (grant, config) in &questions {
            let audit = AuditLog::in_memory();
            let sandbox = sandbox(&audit, cached);
            let grants = Grants {
                isolation,
                http: vec![(*grant).clone()],
                ..Grants::default()
            };
            let plugin = load(&sandbox, &guest, grants).await;
            let said = content(&plugin, config).await;
            let (done, ends) = (effects(&audit), told(&audit));
            table.push(format!("{config}: {said}; {done:?}; {ends:?}"));
        }
        tables.push(table);
    }
    for (here, there) in tables[0].iter().zip(&tables[1]) {
        assert_eq!(here, there);
    }
    let has = |words: &str| tables[0].iter().any(|line| line.contains(words));
    assert!(has("200 ") && has("with 10000 bytes") && has("denied http") && has("http POST"));
}
