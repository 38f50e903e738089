//! Sources, checks and datasets with the real connector and the real validator, in the sandbox.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, RecordBatch};
use arrow::util::display::array_value_to_string;
use futures::TryStreamExt;
use sandcast_audit::{AuditLog, Event};
use sandcast_build::BuildRequest;
use sandcast_estate::{
    BlobRef, Check, Dataset, Estate, EstateOptions, LandError, LandRequest, QueryError,
    ValidateError,
};
use sandcast_sandbox::{
    Access, CallContext, CallError, FileGrant, Grants, Plugin, Role, Sandbox, SandboxConfig,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Plugins are built once for all tests; builds that overlap wait for each other.
fn component(name: &str) -> Vec<u8> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _turn = BUILDING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../plugins")
        .join(name);
    let built =
        sandcast_build::build(&BuildRequest::new(folder), &mut |_| {}).expect("the plugin builds");
    fs::read(built.component).expect("the component is there")
}

struct Line {
    folder: TempDir,
    audit: AuditLog,
    sandbox: Sandbox,
    estate: Estate,
}

impl Line {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("data")).expect("a folder for sources");
        let audit = AuditLog::in_memory();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        let config = SandboxConfig {
            cache_dir: Some(cache),
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(config, audit.clone()).expect("starts");
        let estate = Estate::open(&folder.path().join("state")).expect("opens");
        Self {
            folder,
            audit,
            sandbox,
            estate,
        }
    }

    /// An estate of its own that reads so many splits at a time.
    fn estate_of(&self, parallelism: usize) -> Estate {
        let parallelism = NonZeroUsize::new(parallelism).expect("not none");
        let options = EstateOptions {
            parallelism,
            ..EstateOptions::default()
        };
        Estate::with_options(
            &self.folder.path().join(format!("state-{parallelism}")),
            options,
        )
        .expect("opens")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join("data").join(name), content).expect("writes");
    }

    async fn csv(&self) -> Plugin {
        let host = self.folder.path().join("data");
        let files = vec![FileGrant {
            host,
            guest: "/data".to_owned(),
            access: Access::Read,
            quota: Default::default(),
        }];
        let grants = Grants {
            files,
            ..Grants::default()
        };
        self.sandbox
            .load("csv", &component("connector-csv"), Role::Connector, grants)
            .await
            .expect("loads")
    }

    async fn check(&self, name: &str, rules: Value) -> Check {
        let component = component("validator-rules");
        let plugin = self
            .sandbox
            .load("rules", &component, Role::Validator, Grants::default())
            .await
            .expect("loads");
        Check {
            name: name.to_owned(),
            plugin,
            config: json!({ "rules": rules }),
        }
    }

    async fn request(&self, name: &str, config: Value) -> LandRequest {
        let context = CallContext::new(None, "connect");
        LandRequest {
            name: name.to_owned(),
            plugin: self.csv().await,
            config,
            context,
            progress: None,
        }
    }

    async fn land(&self, name: &str, config: Value) -> Result<Dataset, LandError> {
        self.estate.land(self.request(name, config).await).await
    }

    async fn validate(
        &self,
        dataset: &Dataset,
        checks: &[Check],
    ) -> Result<sandcast_estate::Validation, ValidateError> {
        self.estate
            .validate(dataset, checks, &CallContext::new(None, "validate"), None)
            .await
    }

    async fn texts(&self, blobs: &[BlobRef], column: &str) -> Vec<String> {
        let batches: Vec<_> = self
            .estate
            .stream_blobs(blobs)
            .try_collect()
            .await
            .expect("reads");
        texts(&batches, column)
    }
}

fn texts(batches: &[RecordBatch], column: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for batch in batches {
        let values = batch.column_by_name(column).expect("the column");
        texts.extend(
            (0..batch.num_rows()).map(|row| array_value_to_string(values, row).expect("text")),
        );
    }
    texts
}

/// Rows `id,age,city`; every 50th age is no number.
fn people(from: u32, to: u32) -> String {
    let mut text = String::from("id,age,city\n");
    for id in from..to {
        let age = if id % 50 == 49 {
            "old".to_owned()
        } else {
            (id % 90).to_string()
        };
        text.push_str(&format!("{id},{age},Ulm\n"));
    }
    text
}

fn typed() -> Value {
    json!({ "path": "/data/people-*.csv", "columns": { "age": "int64" }, "batch_rows": 512 })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_lands_or_is_put_aside_in_one_order_at_any_parallelism() {
    let line = Line::start();
    for part in 0..6 {
        line.write(
            &format!("people-{part}.csv"),
            people(part * 1000, (part + 1) * 1000),
        );
    }
    let told = Arc::new(AtomicU64::new(0));
    let mut request = line.request("people", typed()).await;
    let most = Arc::clone(&told);
    request.progress = Some(Arc::new(move |progress| {
        most.fetch_max(progress.rows, Ordering::Relaxed);
    }));
    let landed = line.estate.land(request).await.expect("lands");
    assert_eq!((landed.rows, landed.quarantine.rows), (5880, 120));
    assert_eq!(told.load(Ordering::Relaxed), 6000);
    assert_eq!(landed.quarantine.reasons.get("bad-type"), Some(&120));
    let [source] = landed.sources.as_slice() else {
        panic!("one source")
    };
    assert_eq!((source.name.as_str(), source.splits.len()), ("people", 6));
    for split in &source.splits {
        assert_eq!(
            (split.rows, split.rejected, split.version.is_some()),
            (1000, 20, true),
            "{}",
            split.id
        );
    }

    let ids = line.texts(&landed.blobs, "id").await;
    let wanted = (0..6000)
        .filter(|id| id % 50 != 49)
        .map(|id| id.to_string());
    assert!(ids.iter().cloned().eq(wanted), "in the order of the files");
    let aside = &landed.quarantine.blobs;
    assert_eq!(line.texts(aside, "source").await[0], "people");
    assert_eq!(line.texts(aside, "split").await[119], source.splits[5].id);
    assert_eq!(line.texts(aside, "column").await[0], "age");
    assert_eq!(line.texts(aside, "raw").await[0], "49,old,Ulm");
    assert_eq!(
        line.texts(aside, "line").await[0],
        "51",
        "the header is line 1"
    );

    for parallelism in [1, 2, 5] {
        let estate = line.estate_of(parallelism);
        let again = estate
            .land(line.request("people", typed()).await)
            .await
            .expect("lands");
        assert_eq!(
            (again.digest, &again.quarantine),
            (landed.digest, &landed.quarantine),
            "{parallelism}"
        );
    }
    let instances = line.audit.entries().expect("reads").into_iter().filter(|entry| {
        matches!(&entry.event, Event::CallsFinished { stage, outcome, .. } if stage == "connect" && outcome == "finished")
    });
    assert_eq!(
        instances.count(),
        4 * 7,
        "one instance to list the splits, and one for each split"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_be_read_says_where_and_why() {
    let line = Line::start();
    let error = line
        .land("people", json!({ "path": "/data/none.csv" }))
        .await
        .expect_err("no such file");
    let LandError::Open {
        source_name,
        source,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(source_name, "people");
    assert!(
        source.to_string().contains("`csv`") && source.to_string().contains("none.csv"),
        "{source}"
    );

    let error = line
        .land("people", json!({ "pth": "/data" }))
        .await
        .expect_err("a wrong key");
    assert!(
        matches!(
            &error,
            LandError::Open {
                source: CallError::Failed { .. },
                ..
            }
        ),
        "{error:?}"
    );

    // The second file is cut off by a bound long after the types were found.
    line.write("people-0.csv", people(0, 10));
    line.write("people-1.csv", people(10, 20_000));
    let config = json!({ "path": "/data/people-*.csv", "columns": { "age": "int64" }, "max_file_bytes": 100_000 });
    let error = line.land("people", config).await.expect_err("a bound");
    let LandError::Split { split, source, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(split.contains("people-1.csv"), "{split}");
    assert!(source.to_string().contains("`connect`"), "{source}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peek_reads_what_it_needs() {
    let line = Line::start();
    line.write("people-0.csv", people(0, 100));
    line.write("people-1.csv", people(100, 200));
    let sql = "SELECT id, age FROM people WHERE age >= 48 AND 'Ulm' = city LIMIT 3";
    let rows = line
        .estate
        .peek(line.request("people", typed()).await, sql)
        .await
        .expect("reads");
    assert_eq!(
        texts(&rows, "id"),
        ["48", "50", "51"],
        "row 49 does not fit"
    );
    let sql = "SELECT count(*) AS n, sum(id) AS total FROM people";
    let rows = line
        .estate
        .peek(line.request("people", typed()).await, sql)
        .await
        .expect("reads");
    assert_eq!(
        texts(&rows, "n"),
        ["200"],
        "a column that nobody reads spoils no row"
    );
    assert_eq!(texts(&rows, "total"), ["19900"]);
    let error = line
        .estate
        .peek(
            line.request("people", typed()).await,
            "SELECT ag FROM people",
        )
        .await;
    assert!(
        matches!(&error, Err(QueryError::Sql { message, .. }) if message.contains("did you mean age?")),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_silos_become_one_checked_dataset() {
    let line = Line::start();
    line.write(
        "branch.csv",
        "id,age,city\n1,30,Ulm\n2,31,Ulm\n3,200,Oslo\n",
    );
    line.write("web.csv", "Nr;Alter\n4;25\n1;\n5;40\n6;x\n");
    let branch = line
        .land("branch", json!({ "path": "/data/branch.csv" }))
        .await
        .expect("lands");
    let config =
        json!({ "path": "/data/web.csv", "delimiter": ";", "columns": { "Alter": "int64" } });
    let web = line.land("web", config).await.expect("lands");
    assert_eq!((web.rows, web.quarantine.rows), (3, 1));

    let sql = "SELECT id, age, city FROM branch UNION ALL SELECT \"Nr\", \"Alter\", NULL FROM web";
    let tables = [("branch".to_owned(), &branch), ("web".to_owned(), &web)];
    let people = line
        .estate
        .query("people", sql, &tables, None)
        .await
        .expect("runs");
    assert_eq!(people.rows, 6);
    assert_eq!(
        people
            .sources
            .iter()
            .map(|source| source.name.as_str())
            .collect::<Vec<_>>(),
        ["branch", "web"]
    );
    let again = line
        .estate
        .query("people", sql, &tables, None)
        .await
        .expect("runs");
    assert_eq!(again, people);

    let checks = [
        line.check(
            "people",
            json!([
                { "id": "age", "rule": "range", "column": "age", "min": 18, "max": 100, "mostly": 0.8 },
                { "id": "one-id", "rule": "unique", "columns": ["id"] },
                { "id": "has-age", "rule": "not-null", "column": "age" },
                { "id": "has-city", "rule": "not-null", "column": "city", "severity": "warning", "mostly": 0.1 },
            ]),
        )
        .await,
        line.check("again", json!([{ "id": "age", "rule": "range", "column": "age", "max": 150 }])).await,
    ];
    let validation = line.validate(&people, &checks).await.expect("validates");
    assert_eq!(
        (
            validation.rows_in,
            validation.rows_passed,
            validation.rows_quarantined
        ),
        (6, 4, 2)
    );
    assert_eq!(
        line.texts(&validation.passed.blobs, "id").await,
        ["1", "2", "4", "5"]
    );
    let reasons: Vec<(&str, u64)> = validation
        .passed
        .quarantine
        .reasons
        .iter()
        .map(|(reason, rows)| (reason.as_str(), *rows))
        .collect();
    assert_eq!(
        reasons,
        [
            ("again.age", 1),
            ("has-age", 1),
            ("one-id", 1),
            ("people.age", 1)
        ]
    );

    let aside: Vec<_> = line
        .estate
        .stream_blobs(&validation.passed.quarantine.blobs)
        .try_collect()
        .await
        .expect("reads");
    assert_eq!(texts(&aside, "quarantine.row"), ["3", "5"]);
    assert_eq!(texts(&aside, "city"), ["Oslo", ""]);
    let rules = aside[0]
        .column_by_name("quarantine.rules")
        .expect("reasons")
        .as_list::<i32>();
    let of = |row: usize| {
        rules
            .value(row)
            .as_string::<i32>()
            .iter()
            .flatten()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(0), ["people.age", "again.age"]);
    assert_eq!(of(1), ["one-id", "has-age"]);

    let outcomes: Vec<_> = validation
        .rules
        .iter()
        .map(|outcome| {
            (
                outcome.reason.as_str(),
                outcome.verdict.passed,
                outcome.rows_quarantined,
            )
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            ("people.age", true, 1),
            ("one-id", false, 1),
            ("has-age", false, 1),
            ("has-city", true, 0),
            ("again.age", false, 1)
        ]
    );
    assert_eq!(
        line.validate(&people, &checks).await.expect("validates"),
        validation
    );
    let json = serde_json::to_string(&validation).expect("JSON");
    assert_eq!(
        serde_json::from_str::<sandcast_estate::Validation>(&json).expect("and back"),
        validation
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_across_batches_sees_all_of_them() {
    let line = Line::start();
    let mut text = String::from("id\n");
    for id in 0..140_000 {
        text.push_str(&format!("{}\n", if id == 139_999 { 5 } else { id }));
    }
    line.write("ids.csv", text);
    let ids = line
        .land("ids", json!({ "path": "/data/ids.csv" }))
        .await
        .expect("lands");
    let checks = [line
        .check(
            "ids",
            json!([{ "id": "one-id", "rule": "unique", "columns": ["id"] }]),
        )
        .await];
    let validation = line.validate(&ids, &checks).await.expect("validates");
    assert_eq!(
        (validation.rows_passed, validation.rows_quarantined),
        (139_999, 1)
    );
    assert_eq!(
        line.texts(&validation.passed.quarantine.blobs, "quarantine.row")
            .await,
        ["140000"]
    );
    let checks = [line
        .check(
            "ids",
            json!([{ "rule": "range", "column": "id", "min": 0 }]),
        )
        .await];
    let clean = line
        .validate(&ids, &checks)
        .await
        .expect("validates")
        .passed;
    assert_eq!(
        (clean.digest, clean.quarantine.rows),
        (ids.digest, 0),
        "nothing changes where nothing fails"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_that_fails_is_named() {
    let line = Line::start();
    line.write("people-0.csv", people(0, 10));
    let people = line.land("people", typed()).await.expect("lands");
    let checks = [line
        .check(
            "ages",
            json!([{ "rule": "range", "column": "agee", "min": 0 }]),
        )
        .await];
    let error = line
        .validate(&people, &checks)
        .await
        .expect_err("no such column");
    let ValidateError::Call {
        check,
        dataset,
        source,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((check.as_str(), dataset.as_str()), ("ages", "people"));
    assert!(
        source.to_string().contains("`rules`") && source.to_string().contains("agee"),
        "{source}"
    );

    let component = component("validator-rules");
    let tight: Grants =
        serde_json::from_value(json!({ "limits": { "memory": "1200KiB" } })).expect("grants");
    let plugin = line
        .sandbox
        .load("rules", &component, Role::Validator, tight)
        .await
        .expect("loads");
    let mut text = String::from("id\n");
    (0..200_000)
        .for_each(|id| text.push_str(&format!("a rather long name with the number {id}\n")));
    line.write("names.csv", text);
    let names = line
        .land("names", json!({ "path": "/data/names.csv" }))
        .await
        .expect("lands");
    let config = json!({ "rules": [{ "rule": "unique", "columns": ["id"] }] });
    let checks = [Check {
        name: "names".to_owned(),
        plugin,
        config,
    }];
    let error = line
        .validate(&names, &checks)
        .await
        .expect_err("too little memory");
    let ValidateError::Call { source, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(
            source,
            CallError::MemoryLimit { .. } | CallError::Trap { .. }
        ),
        "{source:?}"
    );
}
