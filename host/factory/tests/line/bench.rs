//! A place with data, plugins and a state folder to run pipelines in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sandcast_audit::{Event, verify};
use sandcast_build::BuildRequest;
use sandcast_factory::run::{Completed, Rejected};
use sandcast_factory::{
    Observer, Pipeline, RunError, RunEvent, RunOptions, RunOutcome, RunRecord, Workspace, run,
};
use sandcast_sandbox::{OperatorRules, SandboxConfig};
use tempfile::TempDir;

/// The rows of the source, before checks.
pub(crate) const ROWS: u64 = 1200;

/// The rows among them that no reader can take.
pub(crate) const BROKEN: u64 = 1;

/// The rows among them that break a rule.
pub(crate) const OUT_OF_RANGE: u64 = 6;

/// A pipeline over the rows of [`Bench::new`], with `{gate}` and `{more}` to be filled in.
const PIPELINE: &str = r#"version: 1
name: loans
seed: 7
plugins:
  csv:
    source: {plugins}/connector-csv
    role: connector
    grants: { files: [{ host: data, guest: /data }] }
  rules: { source: {plugins}/validator-rules, role: validator }
  cedar: { source: {plugins}/policy-cedar, role: policy }
  mlp: { source: {plugins}/adapter-mlp, role: adapter, grants: { compute: { memory: 256MiB, time: 5m } } }
sources:
  people: { plugin: csv, config: { path: /data/people.csv, columns: { age: { type: int64 } } } }
dataset:
  sql: SELECT *, income / 1000.0 AS thousands FROM people
validate:
  - { plugin: rules, config: { rules: [{ id: adults, rule: range, column: age, min: 18, max: 100, mostly: 0.98 }] } }
policies:
  - { plugin: cedar, at: [data-read, train-start, promote], config: { file: policy.cedar } }
train:
  plugin: mlp
  task: binary-classification
  target: repaid
  positive: "yes"
  features: [age, thousands, purpose]
  split: { test: 0.25, validation: 0.1 }
  hyperparameters: { hidden: [8], epochs: 6, batch_rows: 64, learning_rate: 0.02 }
evaluate: { slices: [sex] }
gate:
  - metrics.auc >= 0.75
  - champion == null || metrics.auc >= champion.metrics.auc - 0.01
  - policy.promote == 'allow'
register: { model: loans, alias: champion }
"#;

const POLICY: &str = "permit (principal, action, resource);\n";

pub(crate) struct Bench {
    pub(crate) folder: TempDir,
}

impl Bench {
    /// A folder with a pipeline, a policy and a source of people who repay by income and age.
    pub(crate) fn new() -> Bench {
        let bench = Bench {
            folder: tempfile::tempdir().expect("a folder"),
        };
        fs::create_dir(bench.path("data")).expect("a folder for the source");
        bench.write("data/people.csv", &people(7));
        bench.write("policy.cedar", POLICY);
        bench.write_pipeline(|text| text);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the folder is ours");
    }

    pub(crate) fn write_pipeline(&self, change: impl FnOnce(String) -> String) {
        let text = PIPELINE.replace("{plugins}", &plugins().display().to_string());
        self.write("pipeline.yaml", &change(text));
    }

    /// The pipeline with one thing changed.
    pub(crate) fn change(&self, right: &str, wrong: &str) {
        self.write_pipeline(|text| {
            assert_eq!(
                text.matches(right).count(),
                1,
                "`{right}` is not there once"
            );
            text.replace(right, wrong)
        });
    }

    pub(crate) fn pipeline(&self) -> Pipeline {
        Pipeline::load(self.folder.path()).expect("the pipeline is right")
    }

    pub(crate) fn workspace(&self) -> Workspace {
        self.workspace_under(OperatorRules::default())
    }

    /// The state, on a host with these rules.
    pub(crate) fn workspace_under(&self, operator: OperatorRules) -> Workspace {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        let config = SandboxConfig {
            cache_dir: Some(cache),
            operator,
            ..SandboxConfig::default()
        };
        Workspace::open_with(&self.path("state"), config).expect("the state opens")
    }

    pub(crate) async fn run(&self) -> Result<RunOutcome, RunError> {
        run(&self.workspace(), &self.pipeline(), RunOptions::default()).await
    }

    pub(crate) async fn completes(&self) -> Completed {
        match self.run().await.expect("nothing of the host is wrong") {
            RunOutcome::Completed(completed) => *completed,
            RunOutcome::Rejected(rejected) => panic!("{}: {:?}", rejected.stage, rejected.reasons),
        }
    }

    pub(crate) async fn is_rejected(&self) -> Rejected {
        match self.run().await.expect("nothing of the host is wrong") {
            RunOutcome::Completed(_) => panic!("this should not have passed"),
            RunOutcome::Rejected(rejected) => rejected,
        }
    }

    /// The record of the latest run.
    pub(crate) fn latest(&self) -> RunRecord {
        let workspace = self.workspace();
        let runs = workspace.runs().expect("the state reads");
        let latest = &runs.first().expect("there was a run").run;
        workspace
            .run_record(latest)
            .expect("the state reads")
            .expect("it is there")
    }

    /// The stages of the latest run that were done, and not taken from an earlier one.
    pub(crate) fn done_anew(&self) -> Vec<String> {
        const ALWAYS: [&str; 4] = ["load", "permit", "gate", "register"];
        let stages = self
            .latest()
            .stages
            .into_iter()
            .filter(|stage| !stage.cached);
        stages
            .map(|stage| stage.stage)
            .filter(|stage| !ALWAYS.contains(&stage.as_str()))
            .collect()
    }

    /// What the audit log has, after checking that its chain holds.
    pub(crate) fn events(&self) -> Vec<Event> {
        let folder = self.path("state/audit");
        verify(&folder).expect("the chain holds");
        let entries = sandcast_audit::read(&folder).expect("the log reads");
        entries
            .map(|entry| entry.expect("an entry").event)
            .collect()
    }
}

/// The folder of the first-party plugins, built once.
pub(crate) fn plugins() -> PathBuf {
    static BUILT: Mutex<bool> = Mutex::new(false);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let folder = folder
        .canonicalize()
        .expect("the plugins are in the repository");
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if !*built {
        for name in [
            "connector-csv",
            "validator-rules",
            "policy-cedar",
            "adapter-mlp",
        ] {
            let request = BuildRequest::new(folder.join(name));
            sandcast_build::build(&request, &mut |_| {}).expect("the plugin builds");
        }
        *built = true;
    }
    folder
}

/// People who repay more often the more they earn and the older they are.
pub(crate) fn people(seed: u64) -> String {
    let mut draws = seed;
    let mut draw = move |below: u64| {
        // Knuth's multiplier; the high bits are good enough for made-up people.
        draws = draws
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (draws >> 33) % below
    };
    let mut text = "id,age,income,sex,purpose,repaid\n".to_owned();
    for id in 0..ROWS - BROKEN {
        let age = if id < OUT_OF_RANGE {
            150
        } else {
            18 + draw(60)
        };
        let income = 10_000 + draw(70_000);
        let sex = ["f", "m"][draw(2) as usize];
        let purpose = ["car", "house", "school"][draw(3) as usize];
        let score = income / 1000 + age.min(80);
        let repaid = if score + draw(40) > 115 { "yes" } else { "no" };
        text.push_str(&format!("{id},{age},{income},{sex},{purpose},{repaid}\n"));
    }
    text.push_str("x,old,1000,f,car,yes\n");
    text
}

/// Keeps every event.
#[derive(Default)]
pub(crate) struct Notebook {
    pub(crate) events: Mutex<Vec<RunEvent>>,
}

impl Observer for Notebook {
    fn notice(&self, event: &RunEvent) {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(event.clone());
    }
}

/// Does something at the start of a stage.
pub(crate) struct AtStage<F> {
    pub(crate) stage: String,
    pub(crate) act: F,
}

impl<F: Fn() + Send + Sync> Observer for AtStage<F> {
    fn notice(&self, event: &RunEvent) {
        if matches!(event, RunEvent::StageStarted { stage } if *stage == self.stage) {
            (self.act)();
        }
    }
}

pub(crate) fn watched(observer: Arc<dyn Observer>) -> RunOptions {
    RunOptions {
        observer,
        ..RunOptions::default()
    }
}
