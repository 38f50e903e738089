//! A plugin that behaves for some runs and then does otherwise, with the same component, the same
//! configuration and the same grants; and one that only has more or fewer rows.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use sandcast_audit::{Event, PluginRef, Standing};
use sandcast_factory::RunOutcome;
use sandcast_factory::conduct::{Action, Conduct};
use sandcast_factory::inference::{InferenceError, ServedModel};
use sandcast_factory::run::{Completed, Rejected};
use sandcast_serve::{ModelSource as _, RegistrySource, ServableModel};
use sandcast_tests::{Line, built};

const PIPELINE: &str = "version: 1
name: heaps
seed: 7
plugins:
  insider:
    source: {guests}/insider
    role: connector
    grants:
      files: [{ host: data, guest: /data }]
      random: { seed: 1 }
      http:
        - { host: 127.0.0.1, port: {port}, scheme: http, methods: [GET, POST], networks: [127.0.0.0/8] }
  kmeans: { source: {plugins}/adapter-kmeans, role: adapter, grants: { compute: { memory: 256MiB, time: 1m } } }
conduct: { response: alert }
sources:
  heaps: { plugin: insider, config: { path: /data/orders } }
train:
  plugin: kmeans
  task: clustering
  features: [x, y]
  hyperparameters: { clusters: 3 }
gate: ['true']
register: { model: heaps }
";

/// A server that says yes to everything.
fn server() -> SocketAddr {
    fn answer(mut stream: TcpStream) -> std::io::Result<()> {
        let mut taken = [0; 4096];
        let read = stream.read(&mut taken)?;
        let head = String::from_utf8_lossy(&taken[..read]).into_owned();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut left = length.and_then(|it| it.parse::<usize>().ok()).unwrap_or(0);
        left -= left.min(
            head.split_once("\r\n\r\n")
                .map_or(0, |(_, body)| body.len()),
        );
        while left > 0 {
            left -= stream.read(&mut taken)?.min(left);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes")
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

struct Bench {
    line: Line,
    address: SocketAddr,
}

impl Bench {
    fn new(conduct: &str) -> Self {
        built("plugins/adapter-kmeans");
        built("tests/guests/insider");
        let address = server();
        let text = PIPELINE.replace("{port}", &address.port().to_string());
        let mut line = Line::new(&text).file("data/orders", "");
        line.edit("conduct: { response: alert }", conduct);
        Self { line, address }
    }

    fn orders(&self, orders: &str) {
        let orders = orders.replace("{server}", &format!("http://{}", self.address));
        let path = self.line.folder().join("data/orders");
        std::fs::write(path, orders).expect("the folder is ours");
    }

    fn completes(&self, orders: &str) -> Completed {
        self.orders(orders);
        match self.line.run() {
            RunOutcome::Completed(completed) => *completed,
            RunOutcome::Rejected(rejected) => panic!("{}: {:?}", rejected.stage, rejected.reasons),
        }
    }

    fn is_rejected(&self, orders: &str) -> Rejected {
        self.orders(orders);
        match self.line.run() {
            RunOutcome::Completed(_) => panic!("this should not have passed"),
            RunOutcome::Rejected(rejected) => rejected,
        }
    }

    /// Six runs that nobody minds.
    fn behaves(&self) {
        for run in 0..6 {
            let completed = self.completes(&usual(120 + 30 * run));
            assert_eq!(unusual(&completed), Vec::<String>::new());
        }
    }

    fn events(&self) -> Vec<Event> {
        let log = self.line.folder().join(".sandcast/audit");
        sandcast_audit::verify(&log).expect("the chain holds");
        let entries = sandcast_audit::read(&log).expect("a log");
        entries
            .map(|entry| entry.expect("an entry").event)
            .collect()
    }

    fn conduct(&self) -> Conduct {
        Conduct::of_state(&self.line.folder().join(".sandcast")).expect("a state")
    }
}

fn usual(rows: u64) -> String {
    format!("rows {rows}\nask {{server}}/v1/people\ntext 20\n")
}

/// What the report says that plugins did otherwise than usual.
fn unusual(completed: &Completed) -> Vec<String> {
    let plugins = completed.report.plugins.iter();
    let deviations = plugins.flat_map(|plugin| {
        let name = &plugin.name;
        plugin
            .deviations
            .iter()
            .map(move |it| format!("{name}: {}", it.measure))
    });
    deviations.collect()
}

#[test]
fn what_an_insider_does_otherwise_is_found() {
    let bench = Bench::new("conduct: { response: alert }");
    bench.behaves();
    let mut told = String::new();
    for (what, orders) in [
        ("another path", usual(150) + "ask {server}/upload\n"),
        ("a body", usual(150) + "carry 4000\n"),
        ("another function", usual(150) + "draw 3\n"),
        (
            "more calls",
            usual(150) + "ask {server}/v1/people\n".repeat(60).as_str(),
        ),
        ("more bytes", usual(150).replace("text 20", "text 2000")),
        ("more time", usual(150) + "spin 1500000000\n"),
    ] {
        let completed = bench.completes(&orders);
        let found = unusual(&completed);
        writeln!(told, "{what}: {}", found.join(", ")).expect("a string");
        assert!(found.iter().any(|it| it.starts_with("insider")), "{what}");
        let page = completed.report_path.expect("a report");
        let page = std::fs::read_to_string(page).expect("a page");
        assert!(page.contains("unusual"), "{what}");
    }
    let usual_again = bench.completes(&usual(170));
    assert_eq!(
        unusual(&usual_again),
        Vec::<String>::new(),
        "nothing of it was learned\n{told}"
    );
    assert!(told.contains("another path: insider: target"), "{told}");
    assert!(
        told.contains("another function: insider: function"),
        "{told}"
    );
    assert!(told.contains("more time: insider: guest-seconds"), "{told}");
}

#[test]
fn an_insider_is_quarantined_and_refused_until_it_is_released() {
    let bench = Bench::new("conduct: { plugins: { insider: quarantine } }");
    bench.behaves();
    let astray = usual(150) + "ask {server}/upload\n";
    let completed = bench.completes(&astray);
    let insider = &completed.report.plugins[0];
    assert_eq!(insider.standing.as_deref(), Some("quarantined"));
    let rejected = bench.is_rejected(&usual(150));
    assert_eq!(rejected.stage, "load");
    let reason = &rejected.reasons[0];
    assert!(reason.contains("is quarantined since"), "{reason}");
    assert!(reason.contains("/upload"), "{reason}");
    assert!(reason.contains("sandcast plugins release"), "{reason}");
    let refused =
        |event: &Event| matches!(event, Event::PluginRefused { name, .. } if name == "insider");
    assert!(bench.events().iter().any(refused));

    let conduct = bench.conduct();
    let plugin = conduct
        .named("sandcast-tests/insider")
        .expect("readable")
        .remove(0);
    conduct
        .decide(Action::Release, &plugin, "ann", "")
        .expect_err("a reason is wanted");
    conduct
        .decide(
            Action::Release,
            &plugin,
            "ann",
            "the path is a new one of ours",
        )
        .expect("it applies");
    let completed = bench.completes(&astray);
    assert_eq!(unusual(&completed), Vec::<String>::new(), "it was taken");
    let said = |event: &Event| {
        matches!(event, Event::StandingChanged { operator: Some(who), reason, to: Standing::Probation, .. }
            if who == "ann" && reason == "the path is a new one of ours")
    };
    assert!(bench.events().iter().any(said));
}

#[test]
fn an_insider_is_ended_while_it_runs() {
    let bench = Bench::new("conduct: { roles: { connector: kill } }");
    bench.behaves();
    for (orders, what) in [
        (
            "ask {server}/upload\n",
            "it wanted to send GET http://127.0.0.1",
        ),
        ("draw 3\n", "it called `random.get"),
        ("spin 100000000000\n", "it ran for"),
    ] {
        let rejected = bench.is_rejected(&(usual(150) + orders));
        let reason = &rejected.reasons[0];
        assert_eq!(rejected.stage, "connect heaps", "{reason}");
        assert!(reason.contains(what), "{what}: {reason}");
        let rejected = bench.is_rejected(&usual(150));
        assert!(
            rejected.reasons[0].contains("quarantined"),
            "{:?}",
            rejected.reasons
        );
        let conduct = bench.conduct();
        let plugin = conduct
            .named("sandcast-tests/insider")
            .expect("readable")
            .remove(0);
        conduct
            .decide(Action::Release, &plugin, "ann", "once more")
            .expect("it applies");
    }
    let sent =
        |event: &Event| matches!(event, Event::Effect { target, .. } if target.contains("upload"));
    assert!(!bench.events().iter().any(sent), "nothing went out");
    bench.completes(&usual(150));
}

#[test]
fn a_throttled_plugin_runs_slower_and_comes_to_the_same() {
    let bench = Bench::new("conduct: { response: throttle, pace: 10 }");
    bench.behaves();
    let odd = usual(150) + "draw 3\n";
    let completed = bench.completes(&odd);
    assert!(completed.report.plugins[0].is_throttled);
    // Some 100 ms of work and more; measured on both sides of the release.
    let work = usual(150) + "spin 150000000\n";
    let began = std::time::Instant::now();
    let slow = bench.completes(&work);
    let slowed = began.elapsed();
    let conduct = bench.conduct();
    let plugin = conduct
        .named("sandcast-tests/insider")
        .expect("readable")
        .remove(0);
    conduct
        .decide(Action::Release, &plugin, "ann", "a test")
        .expect("it applies");
    let began = std::time::Instant::now();
    let fast = bench.completes(&work);
    let free = began.elapsed();
    assert_eq!(slow.version.artifact, fast.version.artifact);
    let inside = |completed: &Completed| completed.report.plugins[0].guest_seconds;
    assert!(
        slowed.saturating_sub(free).as_secs_f64() > 2.0 * inside(&fast),
        "{slowed:?} and {free:?}, {} s inside",
        inside(&fast)
    );
}

#[test]
fn a_plugin_whose_rows_differ_is_not_found() {
    let bench = Bench::new("conduct: { response: kill, trust_after: 8 }");
    for rows in [
        40, 5_000, 90, 300, 20_000, 60, 45, 9_000, 40, 2_500, 100_000, 33,
    ] {
        let completed = bench.completes(&usual(rows));
        assert_eq!(unusual(&completed), Vec::<String>::new(), "{rows} rows");
    }
    let events = bench.events();
    let odd = |event: &Event| matches!(event, Event::ConductDeviated { .. });
    assert!(!events.iter().any(odd));
    let conduct = bench.conduct();
    for (plugin, record) in conduct.list().expect("readable") {
        let standing = record.expect("it ran").standing;
        assert_eq!(standing, Standing::Trusted, "{}", plugin.id);
    }
}

#[test]
fn a_model_whose_adapter_is_quarantined_does_not_answer() {
    let bench = Bench::new("conduct: { response: alert }");
    let completed = bench.completes(&usual(120));
    let conduct = bench.conduct();
    let adapter = conduct
        .named("sandcast/adapter-kmeans")
        .expect("readable")
        .remove(0);
    let workspace = Arc::new(bench.line.workspace());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let load = || {
        let loaded = runtime.block_on(ServedModel::load(&workspace, &completed.version));
        loaded.map(drop)
    };
    load().expect("it answers");
    // The same while it is served.
    let source = RegistrySource::new(Arc::clone(&workspace));
    let served = runtime
        .block_on(source.load("heaps", 1))
        .expect("it is served");
    let numbers = || Arc::new(Float64Array::from(vec![0.5, 50.0])) as ArrayRef;
    let rows = RecordBatch::try_from_iter([("x", numbers()), ("y", numbers())]).expect("rows");
    let answer = || runtime.block_on(served.predictor.predict(&rows)).map(drop);
    answer().expect("it answers");
    conduct
        .decide(Action::Quarantine, &adapter, "ann", "a test")
        .expect("it applies");
    let error = load().expect_err("it does not answer");
    assert!(matches!(&error, InferenceError::Conduct { .. }), "{error}");
    assert!(
        error.to_string().contains("sandcast plugins release"),
        "{error}"
    );
    std::thread::sleep(Duration::from_millis(2_100));
    let error = answer().expect_err("it does not answer any more");
    assert!(
        error.message.contains("is quarantined since"),
        "{}",
        error.message
    );
    conduct
        .decide(Action::Release, &adapter, "ann", "the test is over")
        .expect("it applies");
    load().expect("it answers again");
    std::thread::sleep(Duration::from_millis(2_100));
    answer().expect("it answers again");
}

/// A model whose adapter does otherwise when it is asked about thirteen rows at once.
struct Turncoat {
    bench: Bench,
    runtime: tokio::runtime::Runtime,
    served: ServableModel,
}

impl Turncoat {
    fn new(conduct: &str) -> Self {
        let mut bench = Bench::new(conduct);
        built("tests/guests/hostile-adapter");
        for (from, to) in [
            ("{plugins}/adapter-kmeans", "{guests}/hostile-adapter"),
            ("task: clustering", "task: regression\n  target: y"),
            ("features: [x, y]", "features: [x]"),
            ("{ clusters: 3 }", "{ behaviour: turncoat }"),
        ] {
            let top = sandcast_tests::repository();
            let place = |text: &str| {
                text.replace("{plugins}", &top.join("plugins").display().to_string())
                    .replace("{guests}", &top.join("tests/guests").display().to_string())
            };
            bench.line.edit(&place(from), &place(to));
        }
        bench.completes(&usual(120));
        let source = RegistrySource::new(Arc::new(bench.line.workspace()));
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let served = runtime.block_on(source.load("heaps", 1));
        let served = served.expect("it is served");
        Self {
            bench,
            runtime,
            served,
        }
    }

    fn asks(&self, rows: usize) -> Result<(), String> {
        let x: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|x| x as f64)));
        let rows = RecordBatch::try_from_iter([("x", x)]).expect("rows");
        let answer = self.runtime.block_on(self.served.predictor.predict(&rows));
        match answer {
            Ok(predicted) => {
                assert_eq!(predicted.rows.num_rows(), rows.num_rows());
                Ok(())
            }
            Err(error) => Err(error.message),
        }
    }

    /// Ends a stretch of time, as a server does every minute.
    fn settles(&self) {
        self.served.predictor.settle(false).expect("written");
    }

    /// Six stretches that nobody minds, of different lengths.
    fn behaves(&self) {
        for stretch in 0..6 {
            for request in 0..=stretch {
                self.asks(1 + request * 7).expect("it answers");
            }
            self.settles();
        }
    }

    fn standing(&self) -> Standing {
        let adapter = self.adapter();
        let standing = self.bench.conduct().standing(&adapter.digest);
        standing.expect("readable").expect("known").standing
    }

    fn adapter(&self) -> PluginRef {
        let named = self.bench.conduct().named("sandcast-tests/hostile-adapter");
        named.expect("readable").remove(0)
    }

    fn deviations(&self) -> Vec<String> {
        let events = self.bench.events().into_iter();
        let odd = events.filter_map(|event| match event {
            Event::ConductDeviated { stage, measure, .. } => Some(format!("{stage}: {measure}")),
            _ => None,
        });
        odd.collect()
    }
}

#[test]
fn an_adapter_that_turns_while_it_is_served_is_found_and_refused() {
    let model = Turncoat::new("conduct: { trust_after: 2, roles: { adapter: quarantine } }");
    model.behaves();
    assert_eq!(model.deviations(), Vec::<String>::new());
    // A stretch in which nobody asks is none, and many good ones are not worth a run.
    model.settles();
    let events = model.bench.events();
    let stretches: Vec<&Event> = events
        .iter()
        .filter(|event| matches!(event, Event::CallsServed { .. }))
        .collect();
    assert_eq!(stretches.len(), 6);
    let Event::CallsServed {
        rows,
        outcomes,
        host_calls,
        ..
    } = stretches[2]
    else {
        unreachable!("they were chosen so");
    };
    assert_eq!((*rows, outcomes["finished"]), (1 + 8 + 15, 3));
    assert!(host_calls.values().sum::<u64>() >= 3, "{host_calls:?}");
    assert_eq!(model.standing(), Standing::Probation);

    // It answers, and is found when the stretch ends.
    model.asks(13).expect("nothing is known against it");
    model.settles();
    assert!(
        model.deviations().contains(&"predict: function".to_owned()),
        "{:?}",
        model.deviations()
    );
    assert_eq!(model.standing(), Standing::Quarantined);
    std::thread::sleep(Duration::from_millis(2_100));
    let refusal = model.asks(3).expect_err("it may not run");
    assert!(refusal.contains("is quarantined since"), "{refusal}");
    assert!(refusal.contains("the served model heaps"), "{refusal}");

    // Whoever releases it says that this was right.
    let adapter = model.adapter();
    let conduct = model.bench.conduct();
    conduct
        .decide(Action::Release, &adapter, "ann", "it may compile")
        .expect("it applies");
    std::thread::sleep(Duration::from_millis(2_100));
    let before = model.deviations().len();
    model.asks(13).expect("it may run again");
    model.settles();
    assert_eq!(model.deviations().len(), before, "it was taken");
}

#[test]
fn an_adapter_that_turns_while_it_is_served_is_ended() {
    let model = Turncoat::new("conduct: { roles: { adapter: kill } }");
    model.behaves();
    let error = model.asks(13).expect_err("it is ended");
    assert!(error.contains("it called `"), "{error}");
    model
        .asks(3)
        .expect("others are answered until the stretch ends");
    model.settles();
    assert_eq!(model.standing(), Standing::Quarantined);
    let strayed = |event: &Event| {
        matches!(event, Event::CallsServed { outcomes, .. }
            if outcomes.contains_key(sandcast_sandbox::STRAYED))
    };
    assert!(model.bench.events().iter().any(strayed));
}
