//! What the sandbox costs: `cargo bench -p sandcast-sandbox --bench boundary`.
//!
//! Guests run as in production, epochs and limits on, and are compared with the same work done
//! natively in this very process.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute;
use arrow::datatypes::Float64Type;
use divan::Bencher;
use divan::counter::BytesCount;
use sandcast_audit::AuditLog;
use sandcast_build::BuildRequest;
use sandcast_sandbox::process::{self, ProcessProgram};
use sandcast_sandbox::{
    CallContext, ComputeGrant, ControlPoint, DeviceChoice, Field, Grants, Isolation, Kind, Model,
    Plugin, Precision, RandomGrant, RecordingGrant, Recordings, Request, Role, Sandbox,
    SandboxConfig, ScanRequest, Task, TaskKind, TrainInput, Validator,
};
use serde_json::json;
use tokio::runtime::Runtime;

/// Rows of a batch.
const ROWS: usize = 65_536;

/// Columns of a batch.
const COLUMNS: usize = 10;

/// With nulls, every how many rows there is one.
const NULL_EVERY: usize = 7;

const BYTES: usize = ROWS * COLUMNS * size_of::<f64>();

fn main() -> ExitCode {
    if let Some(exit) = process::enter() {
        return exit;
    }
    divan::main();
    ExitCode::SUCCESS
}

struct House {
    runtime: Runtime,
    sandbox: Sandbox,
}

static HOUSE: LazyLock<House> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let recordings = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recordings");
    let config = SandboxConfig {
        device: DeviceChoice::Cpu.into(),
        recordings: Some(Recordings::at(recordings)),
        process: Some(ProcessProgram::this().expect("this program")),
        ..SandboxConfig::default()
    };
    let sandbox = {
        let _inside = runtime.enter();
        Sandbox::new(config, AuditLog::in_memory()).expect("a sandbox")
    };
    House { runtime, sandbox }
});

static PROBE: LazyLock<Plugin> =
    LazyLock::new(|| load("tests/guests/probe-validator", Role::Validator, None));

fn load(folder: &str, role: Role, compute: Option<ComputeGrant>) -> Plugin {
    load_with(
        folder,
        role,
        Grants {
            compute,
            ..Grants::default()
        },
    )
}

fn load_with(folder: &str, role: Role, grants: Grants) -> Plugin {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(folder);
    let built =
        sandcast_build::build(&BuildRequest::new(folder), &mut |_| {}).expect("the guest builds");
    let component = std::fs::read(built.component).expect("the component");
    let loading = HOUSE.sandbox.load("bench", &component, role, grants);
    HOUSE.runtime.block_on(loading).expect("it loads")
}

fn context() -> CallContext {
    CallContext::new(None, "bench")
}

fn batch(rows: usize, columns: usize, nulls: bool) -> RecordBatch {
    let column = |column: usize| {
        let values = (0..rows).map(move |row| {
            let value = ((row * 31 + column * 17) % 1009) as f64;
            (!nulls || row % NULL_EVERY != 0).then_some(value)
        });
        Arc::new(Float64Array::from_iter(values)) as ArrayRef
    };
    RecordBatch::try_from_iter_with_nullable(
        (0..columns).map(|place| (format!("c{place}"), column(place), nulls)),
    )
    .expect("a batch")
}

/// An instance that works on every batch.
fn probe(work: &str, batch: &RecordBatch) -> Validator {
    let (context, config) = (context(), json!({ "work": work }));
    let schema = batch.schema();
    let opening = PROBE.validator(&context, &config, &schema);
    HOUSE.runtime.block_on(opening).expect("an instance")
}

fn check(bencher: Bencher<'_, '_>, work: &str, batch: &RecordBatch) {
    let mut validator = probe(work, batch);
    bencher.counter(BytesCount::new(BYTES)).bench_local(|| {
        HOUSE
            .runtime
            .block_on(validator.check(batch))
            .expect("checked")
    });
}

/// 65,536 rows of 10 float64 columns into a guest.
#[divan::bench_group(sample_count = 200, sample_size = 4)]
mod pull {
    use super::*;

    /// Every column copied natively, one after the other, into the same memory.
    #[divan::bench]
    fn plain_copy(bencher: Bencher<'_, '_>) {
        let batch = batch(ROWS, COLUMNS, false);
        let mut copy = vec![0.0; ROWS];
        bencher.counter(BytesCount::new(BYTES)).bench_local(|| {
            for column in batch.columns() {
                copy.copy_from_slice(column.as_primitive::<Float64Type>().values());
                divan::black_box(&mut copy);
            }
        });
    }

    /// Every column pulled by a guest.
    #[divan::bench]
    fn guest(bencher: Bencher<'_, '_>) {
        check(bencher, "pull", &batch(ROWS, COLUMNS, false));
    }
}

/// Null count, minimum, maximum and mean of 65,536 rows of 10 float64 columns.
#[divan::bench_group(sample_count = 200, sample_size = 4)]
mod summary {
    use super::*;

    fn natively(bencher: Bencher<'_, '_>, nulls: bool) {
        let batch = batch(ROWS, COLUMNS, nulls);
        bencher.counter(BytesCount::new(BYTES)).bench_local(|| {
            for column in batch.columns() {
                let column = column.as_primitive::<Float64Type>();
                let values = (column.len() - column.null_count()) as f64;
                divan::black_box((
                    column.null_count(),
                    compute::min(column),
                    compute::max(column),
                    compute::sum(column).map(|sum| sum / values),
                ));
            }
        });
    }

    #[divan::bench]
    fn arrow_native(bencher: Bencher<'_, '_>) {
        natively(bencher, false);
    }

    #[divan::bench]
    fn arrow_native_with_nulls(bencher: Bencher<'_, '_>) {
        natively(bencher, true);
    }

    /// With the time it takes to pull the columns.
    #[divan::bench]
    fn guest(bencher: Bencher<'_, '_>) {
        check(bencher, "summarize", &batch(ROWS, COLUMNS, false));
    }

    /// With the time it takes to pull the columns.
    #[divan::bench]
    fn guest_with_nulls(bencher: Bencher<'_, '_>) {
        check(bencher, "summarize", &batch(ROWS, COLUMNS, true));
    }
}

/// A call into an instance that is there: a batch of one number is lent and not looked at.
#[divan::bench(sample_count = 200, sample_size = 100)]
fn call(bencher: Bencher<'_, '_>) {
    let batch = batch(1, 1, false);
    let mut validator = probe("nothing", &batch);
    bencher.bench_local(|| {
        HOUSE
            .runtime
            .block_on(validator.check(&batch))
            .expect("checked")
    });
}

/// Calls into the host, each authorised by being linked, counted in the ledger, and held to the limits.
/// Beside the same instance that makes none.
#[divan::bench_group(sample_count = 100, sample_size = 10)]
mod host_calls {
    use super::*;

    const CALLS: u32 = 10_000;

    fn ask(bencher: Bencher<'_, '_>, work: &str, kept: bool) {
        let batch = batch(1, 1, false);
        let grants = Grants {
            recording: kept.then(RecordingGrant::default),
            ..Grants::default()
        };
        let plugin = load_with("tests/guests/probe-validator", Role::Validator, grants);
        let (context, config) = (context(), json!({ "work": work, "times": CALLS }));
        let schema = batch.schema();
        let opening = plugin.validator(&context, &config, &schema);
        let mut validator = HOUSE.runtime.block_on(opening).expect("an instance");
        bencher
            .counter(divan::counter::ItemsCount::new(CALLS))
            .bench_local(|| {
                HOUSE
                    .runtime
                    .block_on(validator.check(&batch))
                    .expect("checked")
            });
    }

    #[divan::bench]
    fn none(bencher: Bencher<'_, '_>) {
        ask(bencher, "nothing", false);
    }

    #[divan::bench]
    fn counted(bencher: Bencher<'_, '_>) {
        ask(bencher, "count", false);
    }

    #[divan::bench]
    fn recorded(bencher: Bencher<'_, '_>) {
        ask(bencher, "count", true);
    }
}

/// Whether a request is granted, before a name is looked up or anything is sent: the address taken apart
/// and held to the grants. The last of them covers it, or none.
#[divan::bench_group(sample_count = 1000, sample_size = 100)]
mod authorised {
    use sandcast_sandbox::{HttpGrant, fuzzing};

    use super::*;

    const GRANTS: [usize; 3] = [1, 8, 64];

    fn ask(bencher: Bencher<'_, '_>, grants: usize, host: &str) {
        let hosts = (1..=grants).map(|number| format!("api-{number}.example.com"));
        let grants: Vec<HttpGrant> = hosts
            .map(|host| serde_json::from_value(json!({ "host": host, "path": "/v1" })))
            .collect::<Result<_, _>>()
            .expect("grants");
        let uri = format!("https://{host}/v1/people/42?since=2026-11-01");
        let uri: http::Uri = uri.parse().expect("an address");
        let method = http::Method::GET;
        bencher.bench(|| fuzzing::http_target(&grants, &method, divan::black_box(&uri)));
    }

    #[divan::bench(args = GRANTS)]
    fn http_allowed(bencher: Bencher<'_, '_>, grants: usize) {
        ask(bencher, grants, &format!("api-{grants}.example.com"));
    }

    #[divan::bench(args = GRANTS)]
    fn http_denied(bencher: Bencher<'_, '_>, grants: usize) {
        ask(bencher, grants, "api-0.example.com");
    }
}

/// An instance made, configured and let go of, with its line in the audit log.
#[divan::bench(sample_count = 200, sample_size = 20)]
fn instance(bencher: Bencher<'_, '_>) {
    let batch = batch(1, 1, false);
    bencher.bench_local(|| probe("nothing", &batch));
}

/// The adapter as the server has it, and a model of its making.
fn served() -> (Plugin, Arc<Model>) {
    let compute = Some(ComputeGrant::default());
    let plugin = load("plugins/adapter-mlp", Role::Adapter, compute).unrecorded();
    let model = trained(&plugin);
    (plugin, model)
}

/// A prediction as the server makes one: an instance of the adapter, one call, and its end. The
/// network is the one of the kernels' figures.
#[divan::bench(args = [1, 1024], sample_count = 200)]
fn predict(bencher: Bencher<'_, '_>, rows: usize) {
    let (plugin, model) = served();
    let rows = features(rows);
    let context = context();
    bencher.bench_local(|| {
        HOUSE.runtime.block_on(async {
            let mut adapter = plugin.adapter(&context).await.expect("an instance");
            adapter.predict(&model, &rows).await.expect("a prediction")
        })
    });
}

/// The same on an instance that is there.
#[divan::bench(args = [1, 1024], sample_count = 200)]
fn predict_again(bencher: Bencher<'_, '_>, rows: usize) {
    let (plugin, model) = served();
    let rows = features(rows);
    let mut adapter = HOUSE
        .runtime
        .block_on(plugin.adapter(&context()))
        .expect("an instance");
    bencher.bench_local(|| {
        HOUSE
            .runtime
            .block_on(adapter.predict(&model, &rows))
            .expect("a prediction")
    });
}

/// What a process of its own costs: the same calls in the engine and in one. The guests are small and the
/// model is too, so nearly all of the difference is the pipe.
mod isolation {
    use super::*;

    const PLACES: [&str; 2] = ["engine", "process"];

    fn grants(place: &str, compute: bool) -> Grants {
        Grants {
            compute: compute.then(ComputeGrant::default),
            clock: true,
            random: Some(RandomGrant { seed: Some(7) }),
            isolation: match place {
                "process" => Isolation::Process,
                _ => Isolation::Engine,
            },
            ..Grants::default()
        }
    }

    /// A row, asked as a server asks: an instance, one call, and its end.
    #[divan::bench(args = PLACES, sample_count = 200, sample_size = 4)]
    fn prediction(bencher: Bencher<'_, '_>, place: &str) {
        let plugin = load_with("plugins/adapter-mlp", Role::Adapter, grants(place, true));
        let plugin = plugin.unrecorded();
        let model = trained(&plugin);
        let rows = features(1);
        bencher.bench_local(|| {
            HOUSE.runtime.block_on(async {
                let mut adapter = plugin.adapter(&context()).await.expect("an instance");
                adapter.predict(&model, &rows).await.expect("a prediction");
                adapter.finish().expect("ended")
            })
        });
    }

    /// Rows, asked of an instance that is there.
    fn again(bencher: Bencher<'_, '_>, place: &str, rows: usize) {
        let plugin = load_with("plugins/adapter-mlp", Role::Adapter, grants(place, true));
        let plugin = plugin.unrecorded();
        let model = trained(&plugin);
        let rows = features(rows);
        let context = context();
        let opening = plugin.adapter(&context);
        let mut adapter = HOUSE.runtime.block_on(opening).expect("an instance");
        bencher.bench_local(|| {
            let predicting = adapter.predict(&model, &rows);
            HOUSE.runtime.block_on(predicting).expect("a prediction")
        });
    }

    #[divan::bench(args = PLACES, sample_count = 200, sample_size = 4)]
    fn prediction_again(bencher: Bencher<'_, '_>, place: &str) {
        again(bencher, place, 1);
    }

    #[divan::bench(args = PLACES, sample_count = 200, sample_size = 1)]
    fn prediction_again_of_1024_rows(bencher: Bencher<'_, '_>, place: &str) {
        again(bencher, place, 1024);
    }

    /// A decision in an instance of its own, which asks the host for nothing.
    #[divan::bench(args = PLACES, sample_count = 200, sample_size = 4)]
    fn decision(bencher: Bencher<'_, '_>, place: &str) {
        let plugin = load_with("tests/guests/lots", Role::Policy, grants(place, false));
        let plugin = plugin.unrecorded();
        let request = Request {
            control_point: ControlPoint::Promote,
            principal: "pipeline:bench".into(),
            action: "promote".into(),
            resource: "model:bench".into(),
            context: json!({}),
        };
        bencher.bench_local(|| {
            HOUSE.runtime.block_on(async {
                let made = plugin.policy(&context(), &json!({})).await;
                let mut policy = made.expect("made");
                policy.decide(&request).await.expect("decided");
                policy.finish().expect("ended")
            })
        });
    }

    /// A batch of 64 Ki rows of ten columns, checked, which asks the host for nothing.
    #[divan::bench(args = PLACES, sample_count = 50, sample_size = 1)]
    fn check(bencher: Bencher<'_, '_>, place: &str) {
        let plugin = load_with(
            "tests/guests/probe-validator",
            Role::Validator,
            grants(place, false),
        );
        let rows = batch(ROWS, COLUMNS, false);
        let (context, config) = (context(), json!({ "work": "summarize" }));
        let schema = rows.schema();
        let opening = plugin.validator(&context, &config, &schema);
        let mut validator = HOUSE.runtime.block_on(opening).expect("an instance");
        bencher.bench_local(|| {
            let checking = validator.check(&rows);
            HOUSE.runtime.block_on(checking).expect("checked")
        });
    }

    /// The next 10,000 rows of ten columns of a connector that makes them from nothing.
    #[divan::bench(args = PLACES, sample_count = 100, sample_size = 1)]
    fn next_10000_rows(bencher: Bencher<'_, '_>, place: &str) {
        let plugin = load_with(
            "tests/guests/probe-connector",
            Role::Connector,
            grants(place, false),
        );
        let config = json!({ "rows": 1_000_000_000, "batch_rows": 10_000 });
        let context = context();
        let mut connector = HOUSE.runtime.block_on(async {
            let made = plugin.connector(&context, &config).await;
            let mut connector = made.expect("an instance");
            let split = connector.partitions().await.expect("parts").remove(0);
            let scanning = connector.scan(&ScanRequest::all(split)).await;
            scanning.expect("it reads");
            connector
        });
        bencher.bench_local(|| {
            let next = HOUSE.runtime.block_on(connector.next());
            next.expect("rows").expect("not the end")
        });
    }

    /// A CSV file of 10,000 rows, read in an instance of its own, from opening it to its end.
    #[divan::bench(args = PLACES, sample_count = 50, sample_size = 1)]
    fn csv_of_10000_rows(bencher: Bencher<'_, '_>, place: &str) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("csv");
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut text = String::from("id,name,amount,when\n");
        for row in 0..10_000 {
            text.push_str(&format!("{row},name {row},{row}.5,2026-11-22\n"));
        }
        std::fs::write(folder.join("rows.csv"), text).expect("a file");
        let files = json!([{ "host": folder, "guest": "/data" }]);
        let grants = Grants {
            files: serde_json::from_value(files).expect("a grant"),
            ..grants(place, false)
        };
        let plugin = load_with("plugins/connector-csv", Role::Connector, grants);
        let plugin = plugin.unrecorded();
        let config = json!({ "path": "/data/rows.csv" });
        bencher.bench_local(|| {
            HOUSE.runtime.block_on(async {
                let made = plugin.connector(&context(), &config).await;
                let mut connector = made.expect("an instance");
                let split = connector.partitions().await.expect("parts").remove(0);
                let scanning = connector.scan(&ScanRequest::all(split)).await;
                scanning.expect("it reads");
                let mut rows = 0;
                while let Some(chunk) = connector.next().await.expect("rows") {
                    rows += chunk.rows_read;
                }
                assert_eq!(rows, 10_000);
                connector.finish()
            })
        });
    }
}

/// Thirty numbers, as many as the model of the kernels' figures has.
fn features(rows: usize) -> RecordBatch {
    batch(rows, 30, false)
}

fn trained(plugin: &Plugin) -> Arc<Model> {
    let rows = features(2048);
    let names: Vec<String> = rows
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let target = rows.column(0).as_primitive::<Float64Type>().clone();
    let columns = names.iter().cloned().zip(rows.columns().iter().cloned());
    let training =
        RecordBatch::try_from_iter(columns.chain([("y".to_owned(), Arc::new(target) as ArrayRef)]))
            .expect("a batch");
    let input = TrainInput {
        task: Task {
            kind: TaskKind::Regression,
            features: names
                .iter()
                .map(|name| Field {
                    name: name.clone(),
                    kind: Kind::Float64,
                    nullable: false,
                })
                .collect(),
            target: Some("y".into()),
            classes: Vec::new(),
            weight: None,
        },
        hyperparameters: json!({ "hidden": [256, 128], "epochs": 2, "pieces": 0 }),
        seed: 1,
        training: vec![training],
        validation: None,
        progress: None,
        checkpoints: None,
        precision: Precision::F32Strict,
    };
    HOUSE.runtime.block_on(async {
        let mut adapter = plugin.adapter(&context()).await.expect("an instance");
        adapter.train(input).await.expect("a model").model
    })
}

/// What recording costs: the same calls, with and without it. Each instance is one recording, written
/// to the disk's cache and not pushed to the disk itself.
mod recording {
    use super::*;

    const KEPT: [bool; 2] = [false, true];

    fn grants(kept: bool) -> Grants {
        Grants {
            compute: Some(ComputeGrant::default()),
            recording: kept.then(RecordingGrant::default),
            ..Grants::default()
        }
    }

    /// A decision in an instance of its own, as a line makes them.
    #[divan::bench(args = KEPT, sample_count = 100, sample_size = 4)]
    fn decision(bencher: Bencher<'_, '_>, kept: bool) {
        let plugin = load_with("plugins/policy-cedar", Role::Policy, grants(kept));
        let config = json!({ "policies": "permit (principal, action, resource);" });
        let mut number = 0;
        bencher.bench_local(|| {
            number += 1;
            let request = Request {
                control_point: ControlPoint::Promote,
                principal: "pipeline:bench".into(),
                action: "promote".into(),
                resource: "model:bench".into(),
                context: json!({ "number": number }),
            };
            HOUSE.runtime.block_on(async {
                let mut policy = plugin.policy(&context(), &config).await.expect("made");
                policy.decide(&request).await.expect("decided");
                policy.finish().expect("ended")
            })
        });
    }

    /// A batch of 64 Ki rows of ten columns, checked.
    #[divan::bench(args = KEPT, sample_count = 50, sample_size = 1)]
    fn check(bencher: Bencher<'_, '_>, kept: bool) {
        let plugin = load_with(
            "tests/guests/probe-validator",
            Role::Validator,
            grants(kept),
        );
        let mut rows = batch(ROWS, COLUMNS, false);
        let config = json!({ "work": "summarize" });
        bencher.bench_local(|| {
            // Other rows each time, since what is there already is not written again.
            rows = fresh(&rows);
            HOUSE.runtime.block_on(async {
                let made = plugin.validator(&context(), &config, &rows.schema()).await;
                let mut validator = made.expect("made");
                validator.check(&rows).await.expect("checked");
                validator.finish().await.expect("judged")
            })
        });
    }

    /// The same table with another first value.
    fn fresh(rows: &RecordBatch) -> RecordBatch {
        let mut columns = rows.columns().to_vec();
        let first = columns[0].as_primitive::<Float64Type>();
        let mut values = first.values().to_vec();
        values[0] += 1.0;
        columns[0] = Arc::new(Float64Array::from(values));
        RecordBatch::try_new(rows.schema(), columns).expect("rows")
    }

    /// One row in an instance of its own, as a server asks.
    #[divan::bench(args = KEPT, sample_count = 200, sample_size = 4)]
    fn prediction(bencher: Bencher<'_, '_>, kept: bool) {
        let plugin = load_with("plugins/adapter-mlp", Role::Adapter, grants(kept));
        let model = trained(&plugin);
        let rows = features(1);
        bencher.bench_local(|| {
            HOUSE.runtime.block_on(async {
                let mut adapter = plugin.adapter(&context()).await.expect("made");
                let answer = adapter.predict(&model, &rows).await.expect("predicted");
                adapter.finish().expect("ended");
                answer
            })
        });
    }
}
