//! Logs as runs would have written them.

use std::collections::BTreeMap;

use sandcast_audit::{AuditLog, Digest, Event, PluginRef, RunId};
use tempfile::TempDir;

use super::{Conduct, ConductSection, Judged, Response};

/// A log with what is known of it, and a pipeline whose rules are applied.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) audit: AuditLog,
    pub(crate) conduct: Conduct,
    pub(crate) rules: ConductSection,
    pub(crate) response: Response,
}

/// What a component does in the stage `connect people` of a run.
#[derive(Clone)]
pub(crate) struct Did {
    pub(crate) plugin: PluginRef,
    pub(crate) rows: u64,
    pub(crate) instances: u64,
    pub(crate) calls: BTreeMap<String, u64>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) seconds: f64,
    pub(crate) targets: Vec<String>,
    pub(crate) denied: Option<String>,
    pub(crate) kept: bool,
}

pub(crate) const STAGE: &str = "connect people";

pub(crate) fn version(version: &str) -> PluginRef {
    PluginRef {
        id: "acme/crm".to_owned(),
        version: version.to_owned(),
        role: "connector".to_owned(),
        digest: Digest::of(version.as_bytes()),
    }
}

impl Did {
    /// What an ordinary connector does for so many rows: some work for the run, some for each row.
    pub(crate) fn rows(rows: u64) -> Self {
        let batches = rows.div_ceil(8192).max(1);
        Self {
            plugin: version("1.0.0"),
            rows,
            instances: 2,
            calls: BTreeMap::from([
                ("batch.from-columns".to_owned(), batches),
                ("files.read".to_owned(), 3 + rows / 1000),
                ("http.handle".to_owned(), 1 + rows / 500),
                ("config.get".to_owned(), 4),
            ]),
            bytes_in: 700 + rows * 40,
            bytes_out: 300 + rows * 32,
            seconds: 0.002 + rows as f64 * 2e-6,
            targets: vec!["GET https://api.acme.example/v1/people".to_owned()],
            denied: None,
            kept: false,
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let audit = AuditLog::open(&folder.path().join("audit")).expect("a log");
        let conduct = Conduct::open(folder.path(), audit.clone()).expect("a cache");
        Self {
            folder,
            audit,
            conduct,
            rules: ConductSection::default(),
            response: Response::Alert,
        }
    }

    pub(crate) fn append(&self, event: Event) {
        self.audit.append(event).expect("appended");
    }

    /// A run as far as its end, not judged.
    pub(crate) fn begin(&self, did: &Did) -> RunId {
        let run = RunId::generate();
        let (plugin, stage) = (did.plugin.clone(), STAGE.to_owned());
        self.append(Event::RunStarted {
            run: run.clone(),
            pipeline: "loans".to_owned(),
            config: Digest::of(b"config"),
        });
        for target in &did.targets {
            let (action, path) = target.split_once(' ').expect("a method and an address");
            self.append(Event::Effect {
                run: Some(run.clone()),
                plugin: plugin.clone(),
                stage: stage.clone(),
                capability: "http".to_owned(),
                action: action.to_owned(),
                target: format!("{action} {path}"),
                digest: None,
                secret: None,
            });
        }
        if let Some(capability) = &did.denied {
            self.append(Event::Denied {
                run: Some(run.clone()),
                plugin: plugin.clone(),
                stage: stage.clone(),
                capability: capability.clone(),
                detail: "a test".to_owned(),
                grant_with: "nothing".to_owned(),
            });
        }
        // The first instance does all of it.
        for instance in 0..did.instances {
            let part = |number: u64| if instance == 0 { number } else { 0 };
            self.append(Event::CallsFinished {
                run: Some(run.clone()),
                plugin: plugin.clone(),
                stage: stage.clone(),
                host_calls: match instance {
                    0 => did.calls.clone(),
                    _ => BTreeMap::new(),
                },
                host_use: Default::default(),
                bytes_in: part(did.bytes_in),
                bytes_out: part(did.bytes_out),
                guest_seconds: if instance == 0 { did.seconds } else { 0.0 },
                peak_memory_bytes: 2 << 20,
                denials: u64::from(instance == 0 && did.denied.is_some()),
                outcome: "finished".to_owned(),
            });
        }
        self.append(Event::StageFinished {
            run: run.clone(),
            stage,
            key: Digest::ZERO,
            output: Digest::ZERO,
            cached: did.kept,
            rows_in: Some(did.rows),
            rows_out: Some(did.rows),
            rows_quarantined: Some(0),
            seconds: 0.1,
        });
        run
    }

    pub(crate) fn judge(&self, run: &RunId) -> Judged {
        let response = self.response;
        self.conduct
            .judge(run, &self.rules, |_| response)
            .expect("the log reads and writes")
    }

    pub(crate) fn end(&self, run: RunId) {
        self.append(Event::RunFinished {
            run,
            outcome: "completed".to_owned(),
            message: None,
        });
    }

    /// A whole run, judged; what was found is its measures.
    pub(crate) fn run(&self, did: &Did) -> Vec<String> {
        let run = self.begin(did);
        let judged = self.judge(&run);
        self.end(run);
        let deviations = judged.plugins.into_iter().flat_map(|it| it.deviations);
        deviations.map(|it| it.measure).collect()
    }

    /// Ordinary runs, none of which is odd.
    pub(crate) fn ordinary(&self, runs: u64) {
        for run in 0..runs {
            let found = self.run(&Did::rows(1_000 + 37 * run));
            assert!(found.is_empty(), "{found:?}");
        }
    }
}
