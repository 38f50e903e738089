//! What a guest gets of the machine: a folder it was granted, as far as it was granted, and
//! nothing of what its standard library asks for besides.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field as ArrowField, Schema};
use sandcast_audit::{AuditLog, Event};
use sandcast_sandbox::{
    Access, ByteSize, CallContext, CallError, DeviceChoice, FileGrant, FileQuota, Grants, Plugin,
    Role, Sandbox, SandboxConfig, ScanRequest,
};
use sandcast_tests::built;
use serde_json::json;
use tempfile::TempDir;

fn sandbox() -> (Sandbox, AuditLog) {
    let audit = AuditLog::in_memory();
    let config = SandboxConfig {
        device: DeviceChoice::Cpu.into(),
        ..SandboxConfig::default()
    };
    let sandbox = Sandbox::new(config, audit.clone()).expect("a sandbox");
    (sandbox, audit)
}

fn denials(audit: &AuditLog) -> usize {
    let entries = audit.entries().expect("a log in memory");
    entries
        .iter()
        .filter(|entry| matches!(entry.event, Event::Denied { .. }))
        .count()
}

/// A granted folder with a secret beside it.
fn folder() -> TempDir {
    let outer = TempDir::with_prefix("sandcast-grants-").expect("a folder");
    fs::create_dir(outer.path().join("granted")).expect("a folder");
    fs::write(outer.path().join("granted/open.txt"), "open").expect("a file");
    fs::write(outer.path().join("secret.txt"), "SECRET").expect("a file");
    outer
}

fn granted(outer: &Path, access: Access) -> Grants {
    Grants {
        files: vec![FileGrant {
            host: outer.join("granted"),
            guest: "/data".into(),
            access,
            quota: Default::default(),
        }],
        ..Grants::default()
    }
}

/// What the guest hands over, or what it was told.
async fn content(plugin: &Plugin, behaviour: &str, path: &str) -> Result<String, CallError> {
    let config = json!({ "behaviour": behaviour, "path": path });
    let context = CallContext::new(None, "test");
    let mut connector = plugin.connector(&context, &config).await?;
    connector.schema().await?;
    let split = connector.partitions().await?.remove(0);
    connector.scan(&ScanRequest::all(split)).await?;
    let chunk = connector.next().await?.expect("a chunk");
    let batch = chunk.batch.expect("a row");
    Ok(batch.column(0).as_string::<i32>().value(0).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_open_as_far_as_it_was_granted() {
    let component = fs::read(built("tests/guests/hostile-reader")).expect("the guest");
    let mut table = String::new();
    for access in [Access::Read, Access::ReadWrite] {
        let (sandbox, audit) = sandbox();
        for (behaviour, path) in [
            ("list", "/data"),
            ("read", "/data/open.txt"),
            ("read", "/data/../secret.txt"),
            ("read", "/etc/passwd"),
            ("read", "open.txt"),
            ("read-raw", "../secret.txt"),
            ("read-raw", "/etc/passwd"),
            ("read-raw", "open.txt/../../secret.txt"),
            ("link-and-read", "../secret.txt"),
            ("link-and-read", "/etc/passwd"),
            ("move-out", "open.txt"),
            ("write", "../planted.txt"),
            ("write", "/planted.txt"),
            ("write", "new.txt"),
        ] {
            let outer = folder();
            let plugin = sandbox
                .load(
                    "reader",
                    &component,
                    Role::Connector,
                    granted(outer.path(), access),
                )
                .await
                .expect("it loads");
            let before = denials(&audit);
            let outcome = match content(&plugin, behaviour, path).await {
                Ok(content) => content,
                Err(CallError::Denied { capability, .. }) => format!("denied ({capability})"),
                Err(CallError::Failed { failure, .. }) => {
                    format!("failure ({}): {}", failure.code, failure.message)
                }
                Err(error) => panic!("{behaviour} {path}: {error}"),
            };
            assert!(
                !outcome.contains("SECRET") && !outcome.contains("root:"),
                "{behaviour} {path}: {outcome}"
            );
            let recorded = denials(&audit) - before;
            writeln!(
                table,
                "{:<10} {behaviour:<13} {path:<26} {outcome}, on record {recorded}",
                format!("{access:?}"),
            )
            .expect("a line");
            let secret = fs::read_to_string(outer.path().join("secret.txt"));
            assert_eq!(secret.expect("the secret"), "SECRET");
            for outside in ["planted.txt", "moved-out"] {
                assert!(!outer.path().join(outside).exists(), "{behaviour} {path}");
            }
            let inside = outer.path().join("granted/new.txt").exists();
            assert_eq!(
                inside,
                access == Access::ReadWrite && (behaviour, path) == ("write", "new.txt"),
                "{behaviour} {path}"
            );
        }
    }
    insta::assert_snapshot!("folders", table);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_filled_as_far_as_its_quota_and_no_further() {
    let component = fs::read(built("tests/guests/hostile-reader")).expect("the guest");
    for (behaviour, said, key) in [
        ("fill-by-stream", "the stream", "bytes"),
        ("fill-by-write", "quota", "bytes"),
        ("fill-by-size", "quota", "bytes"),
        ("make-many", "5 files", "entries"),
    ] {
        let (sandbox, audit) = sandbox();
        let outer = folder();
        let mut grants = granted(outer.path(), Access::ReadWrite);
        grants.files[0].quota = FileQuota {
            bytes: ByteSize::from_bytes(10_500),
            entries: 5,
        };
        let loaded = sandbox.load("reader", &component, Role::Connector, grants);
        let plugin = loaded.await.expect("it loads");
        let content = content(&plugin, behaviour, "filled.txt").await;
        let content = content.unwrap_or_else(|error| panic!("{behaviour}: {error}"));
        assert_eq!(content, said, "{behaviour}");
        let filled = fs::metadata(outer.path().join("granted/filled.txt"));
        let filled = filled.map_or(0, |found| found.len());
        assert!(filled <= 10_500, "{behaviour}: {filled} bytes");
        if key == "bytes" {
            assert!(filled >= 10_000, "{behaviour}: {filled} bytes");
        }
        let line = format!("plugins.reader.grants.files[0].quota.{key}");
        let entries = audit.entries().expect("a log in memory");
        let denied = entries.iter().any(
            |entry| matches!(&entry.event, Event::Denied { grant_with, .. } if *grant_with == line),
        );
        assert!(denied, "{behaviour} is denied with `{line}`");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_with_files_is_on_record_before_it_is_done() {
    let component = fs::read(built("tests/guests/hostile-reader")).expect("the guest");
    let mut table = String::new();
    for (behaviour, path) in [
        ("read", "/data/open.txt"),
        ("write", "new.txt"),
        ("list", "/data"),
        ("read-raw", "../secret.txt"),
        ("move-out", "open.txt"),
        ("make-many", "x"),
    ] {
        let (sandbox, audit) = sandbox();
        let outer = folder();
        let grants = granted(outer.path(), Access::ReadWrite);
        let loaded = sandbox.load("reader", &component, Role::Connector, grants);
        let plugin = loaded.await.expect("it loads");
        let _ = content(&plugin, behaviour, path).await;
        let entries = audit.entries().expect("a log in memory");
        let said: Vec<String> = entries
            .into_iter()
            .filter_map(|entry| match entry.event {
                Event::Effect { action, target, .. } => Some(format!("{action} {target}")),
                Event::Denied { detail, .. } => Some(format!("denied: {detail}")),
                _ => None,
            })
            .collect();
        let (count, first) = (said.len(), said.iter().take(4).cloned().collect::<Vec<_>>());
        writeln!(table, "{behaviour} {path}: {count}: {}", first.join("; ")).expect("a line");
    }
    insta::assert_snapshot!("files on record", table);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_folder_a_reader_is_not_loaded() {
    let component = fs::read(built("tests/guests/hostile-reader")).expect("the guest");
    let (sandbox, audit) = sandbox();
    let error = sandbox
        .load("reader", &component, Role::Connector, Grants::default())
        .await
        .map(|_| ())
        .expect_err("it imports files");
    assert!(
        error.to_string().contains("plugins.reader.grants.files"),
        "{error}"
    );
    let entries = audit.entries().expect("a log in memory");
    let refused = |event: &Event| matches!(event, Event::PluginRefused { .. });
    assert!(
        entries.iter().any(|entry| refused(&entry.event)),
        "the refusal is on record"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_standard_library_asks_for_leads_nowhere() {
    let component = fs::read(built("tests/guests/noise")).expect("the guest");
    let (sandbox, audit) = sandbox();
    let plugin = sandbox
        .load("noise", &component, Role::Validator, Grants::default())
        .await
        .expect("nothing of it needs a grant");
    let schema = Schema::new(vec![ArrowField::new("number", DataType::Int64, true)]);
    let batch = RecordBatch::try_new(
        Arc::new(schema),
        vec![Arc::new(Int64Array::from(vec![1, 2, 3]))],
    )
    .expect("a batch");
    let context = CallContext::new(None, "test");
    // Far more lines than anybody wants to keep.
    let mut validator = plugin
        .validator(&context, &json!({ "lines": 10_000 }), &batch.schema())
        .await
        .expect("it is configured");
    let findings = validator.check(&batch).await.expect("it checks");
    assert_eq!(findings, []);
    let verdicts = validator.finish().await.expect("it judges");
    assert_eq!(
        verdicts[0].message,
        "1 columns, 0 things seen of the environment"
    );
    let finished = audit.entries().expect("a log in memory");
    let used = finished.into_iter().find_map(|entry| match entry.event {
        Event::CallsFinished { bytes_out, .. } => Some(bytes_out),
        _ => None,
    });
    assert!(
        used.is_some_and(|bytes| bytes > 0),
        "what it used is on record"
    );
}
