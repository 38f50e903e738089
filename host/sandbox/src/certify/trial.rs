//! What a component does when it is asked.

use std::sync::Arc;

use arrow::datatypes::Schema;
use sandcast_audit::{AuditLog, Digest, Event};
use serde_json::{Value, json};

use super::asked::{self, Content};
use super::{Demand, Trial, denials};
use crate::call::CallError;
use crate::grants::{Grants, RecordingGrant};
use crate::inspect::Inspection;
use crate::load::LoadError;
use crate::manifest::Role;
use crate::model::TaskKind;
use crate::plugin::{CallContext, Plugin};
use crate::recording::{Recording, replay};
use crate::roles::{Adapter, Connector, GenerationOptions, ScanRequest, TrainInput};
use crate::sandbox::Sandbox;
use crate::text;

/// Rows of the table that a trial checks, learns from and predicts.
const ROWS: usize = 300;

/// Instances that are made one after the other.
const INSTANCES: usize = 200;

/// What the host may have grown by after them.
const GROWTH_BYTES: u64 = 64 << 20;

/// Chunks that are read of a source.
const CHUNKS: usize = 50;

/// Bytes of what is said of a trial.
const MAX_DETAIL_BYTES: usize = 400;

/// Where a component is tried.
pub(super) struct Stand {
    pub(super) sandbox: Sandbox,
    pub(super) audit: AuditLog,
    pub(super) component: Arc<[u8]>,
    pub(super) inspection: Inspection,
    pub(super) grants: Grants,
    pub(super) configuration: Value,
}

/// An instance; of policies and validators it matters only that there was one.
enum Made {
    Connector(Connector),
    Adapter(Adapter),
    Other,
}

/// Whether an outcome is one that the contract has: an answer, or a failure that is a value.
fn is_kept<T>(outcome: &Result<T, CallError>) -> Result<(), String> {
    match outcome {
        Ok(_) | Err(CallError::Failed { .. } | CallError::Denied { .. }) => Ok(()),
        Err(error) => Err(text::sentence(&error.to_string(), MAX_DETAIL_BYTES)),
    }
}

fn context() -> CallContext {
    CallContext::new(None, "trial")
}

impl Stand {
    async fn load(&self, is_recorded: bool) -> Result<Plugin, LoadError> {
        let grants = Grants {
            recording: is_recorded.then(RecordingGrant::default),
            ..self.grants.clone()
        };
        let role = self.inspection.role;
        self.sandbox
            .load("trial", &self.component, role, grants)
            .await
    }

    pub(super) async fn try_all(&self, trials: &mut Vec<Trial>, tell: &mut impl FnMut(&str)) {
        tell("loading");
        const LOADS: &str =
            "it compiles and is loaded with what it asks for, and nothing of the machine";
        let plugin = match self.load(false).await {
            Ok(plugin) => {
                trials.push(Trial::new(
                    "loads",
                    Demand::Must,
                    LOADS,
                    Ok("loaded".to_owned()),
                ));
                plugin
            }
            Err(error) => {
                let mut said = text::sentence(&error.to_string(), MAX_DETAIL_BYTES);
                if matches!(error, LoadError::NotGranted { .. }) {
                    said.push_str("; folders and hosts are granted for a trial by whoever tries");
                }
                trials.push(Trial::new("loads", Demand::Must, LOADS, Err(said)));
                return;
            }
        };
        tell("asked well");
        let good = self.well(&plugin).await;
        let is_good = good.is_ok();
        trials.push(Trial::new(
            "answers",
            Demand::Must,
            "asked with the configuration that was given, it answers as the contract has it",
            good,
        ));
        tell("odd configurations");
        trials.push(Trial::new(
            "odd-configurations",
            Demand::Must,
            "configurations that make no sense come to a failure or an answer, never to a trap or a \
             timeout",
            self.odd_configurations(&plugin).await,
        ));
        const ODD: &str =
            "questions and rows that make no sense come to a failure or an answer as well";
        tell("odd questions");
        trials.push(match is_good {
            true => Trial::new("odd-input", Demand::Must, ODD, self.odd(&plugin).await),
            false => Trial::skipped("odd-input", Demand::Must, ODD, "it does not answer at all"),
        });
        tell("asked twice");
        const SAME: &str = "asked the same twice, it answers the same: what it did can be replayed";
        trials.push(match is_good {
            true => self.same_twice(SAME).await,
            false => Trial::skipped(
                "same-twice",
                Demand::Must,
                SAME,
                "it does not answer at all",
            ),
        });
        tell("asked often");
        trials.push(Trial::new(
            "leaves-nothing",
            Demand::Must,
            "200 instances, one after the other, leave nothing behind in the host",
            self.often(&plugin).await,
        ));
        trials.push(Trial::new(
            "keeps-to-its-grants",
            Demand::Should,
            "it asks for nothing that it is not granted",
            match denials(&self.audit) {
                denied if denied.is_empty() => Ok("nothing was denied".to_owned()),
                denied => Err(text::sentence(
                    &format!(
                        "{} denials; first: {} ({})",
                        denied.len(),
                        denied[0].1,
                        denied[0].0
                    ),
                    MAX_DETAIL_BYTES,
                )),
            },
        ));
    }

    /// Asks what makes sense. The digest is of all that was answered.
    async fn well(&self, plugin: &Plugin) -> Result<String, String> {
        let said = match self.inspection.role {
            Role::Policy => self.decisions(plugin).await,
            Role::Validator => self.verdicts(plugin).await,
            Role::Adapter => self.lessons(plugin).await,
            Role::Connector => self.reading(plugin).await,
        };
        said.map_err(|error| text::sentence(&error, MAX_DETAIL_BYTES))
    }

    async fn decisions(&self, plugin: &Plugin) -> Result<String, String> {
        let said = |error: CallError| error.to_string();
        let configuration = &self.configuration;
        let mut policy = plugin
            .policy(&context(), configuration)
            .await
            .map_err(said)?;
        let mut effects = Vec::new();
        for question in asked::questions() {
            let decision = policy.decide(&question).await.map_err(said)?;
            effects.push(decision.effect.as_str());
        }
        policy.finish().map_err(said)?;
        Ok(format!("decided {}", effects.join(", ")))
    }

    async fn verdicts(&self, plugin: &Plugin) -> Result<String, String> {
        let said = |error: CallError| error.to_string();
        let rows = asked::table(ROWS, Content::Ordinary).ok_or("there is no table")?;
        let configuration = &self.configuration;
        let made = plugin
            .validator(&context(), configuration, &rows.schema())
            .await;
        let mut validator = made.map_err(said)?;
        let mut found = 0;
        for start in [0, ROWS / 2] {
            let findings = validator
                .check(&rows.slice(start, ROWS / 2))
                .await
                .map_err(said)?;
            found += findings.len();
        }
        let verdicts = validator.finish().await.map_err(said)?;
        Ok(format!("{found} findings, {} verdicts", verdicts.len()))
    }

    async fn lessons(&self, plugin: &Plugin) -> Result<String, String> {
        let said = |error: CallError| error.to_string();
        let mut adapter = plugin.adapter(&context()).await.map_err(said)?;
        let description = adapter.describe().await.map_err(said)?;
        adapter.finish().map_err(said)?;
        let rows = asked::lesson(ROWS).ok_or("there is no table")?;
        let mut learnt = Vec::new();
        for kind in description.tasks {
            let mut adapter = plugin.adapter(&context()).await.map_err(said)?;
            let task = asked::task(kind);
            let input = TrainInput {
                task: task.clone(),
                hyperparameters: self.configuration.clone(),
                seed: 7,
                training: vec![rows.slice(0, ROWS - 50)],
                validation: Some(vec![rows.slice(ROWS - 50, 50)]),
                progress: None,
                checkpoints: None,
                precision: sandcast_kernels::Precision::default(),
            };
            let trained = adapter.train(input).await.map_err(said)?;
            let features = task.features.iter();
            let places: Option<Vec<usize>> = features
                .map(|field| rows.schema().index_of(&field.name).ok())
                .collect();
            let places = places.ok_or("a feature is not in the table")?;
            let asked = rows.project(&places).map_err(|error| error.to_string())?;
            let asked = asked.slice(0, 40);
            let model = &trained.model;
            adapter.predict(model, &asked).await.map_err(said)?;
            if kind == TaskKind::TextGeneration {
                let options = GenerationOptions {
                    maximum_tokens: 8,
                    ..GenerationOptions::default()
                };
                let prompts = asked.slice(0, 2);
                let written = adapter.generate(model, &prompts, &options, None);
                written.await.map_err(said)?;
            }
            adapter.finish().map_err(said)?;
            learnt.push(kind.name());
        }
        Ok(format!("learnt {}", learnt.join(", ")))
    }

    async fn reading(&self, plugin: &Plugin) -> Result<String, String> {
        let (rows, digest) = self.read(plugin).await?;
        Ok(format!("{rows} rows, {}", digest.short()))
    }

    /// Reads all splits; how many rows there were, and their digest.
    async fn read(&self, plugin: &Plugin) -> Result<(u64, Digest), String> {
        let said = |error: CallError| error.to_string();
        let configuration = &self.configuration;
        let opened = plugin.connector(&context(), configuration).await;
        let mut connector = opened.map_err(said)?;
        connector.schema().await.map_err(said)?;
        let splits = connector.partitions().await.map_err(said)?;
        connector.finish().map_err(said)?;
        let mut digest = Digest::hasher();
        let mut rows = 0;
        for split in splits {
            let opened = plugin.connector(&context(), configuration).await;
            let mut connector = opened.map_err(said)?;
            connector.schema().await.map_err(said)?;
            connector
                .scan(&ScanRequest::all(split))
                .await
                .map_err(said)?;
            for _ in 0..CHUNKS {
                let Some(chunk) = connector.next().await.map_err(said)? else {
                    break;
                };
                rows += chunk.rows_read;
                let rejects = format!("{:?}", chunk.rejects);
                digest.update_field(rejects.as_bytes());
                if let Some(batch) = &chunk.batch {
                    let bytes = crate::recording::rows_to_bytes(
                        &batch.schema(),
                        std::slice::from_ref(batch),
                    );
                    digest.update_field(&bytes.map_err(|error| error.to_string())?);
                }
            }
            connector.finish().map_err(said)?;
        }
        Ok((rows, digest.finish()))
    }

    /// A new instance of its role. Of an adapter, it has no configuration yet.
    async fn make(
        &self,
        plugin: &Plugin,
        configuration: &Value,
        schema: &Schema,
    ) -> Result<Made, CallError> {
        let context = context();
        match self.inspection.role {
            Role::Policy => {
                let made = plugin.policy(&context, configuration).await;
                made.map(|_| Made::Other)
            }
            Role::Validator => {
                let made = plugin.validator(&context, configuration, schema).await;
                made.map(|_| Made::Other)
            }
            Role::Connector => {
                let made = plugin.connector(&context, configuration).await;
                made.map(Made::Connector)
            }
            Role::Adapter => plugin.adapter(&context).await.map(Made::Adapter),
        }
    }

    async fn odd_configurations(&self, plugin: &Plugin) -> Result<String, String> {
        let odd = asked::odd_configurations(&self.configuration);
        let count = odd.len();
        let schema = asked::schema().ok_or("there is no table")?;
        let (mut refused, mut taken) = (0, 0);
        for configuration in odd {
            let outcome = match self.make(plugin, &configuration, &schema).await {
                Ok(Made::Connector(mut connector)) => connector.schema().await.map(|_| ()),
                Ok(Made::Adapter(mut adapter)) => {
                    let task = asked::task(TaskKind::BinaryClassification);
                    let declared = adapter.declare(&task, &[0, 0, 3, 0], &configuration);
                    declared.await.map(|_| ())
                }
                Ok(Made::Other) => Ok(()),
                Err(error) => Err(error),
            };
            is_kept(&outcome).map_err(|why| {
                let configuration = text::sentence(&configuration.to_string(), 120);
                text::sentence(&format!("{configuration}: {why}"), MAX_DETAIL_BYTES)
            })?;
            match outcome {
                Ok(()) => taken += 1,
                Err(_) => refused += 1,
            }
        }
        Ok(format!(
            "{count} configurations: {refused} refused, {taken} taken"
        ))
    }

    async fn odd(&self, plugin: &Plugin) -> Result<String, String> {
        match self.inspection.role {
            Role::Policy => {
                let odd = asked::odd_questions();
                let count = odd.len();
                for question in odd {
                    let made = plugin.policy(&context(), &self.configuration).await;
                    let mut policy = made.map_err(|error| error.to_string())?;
                    is_kept(&policy.decide(&question).await)?;
                }
                Ok(format!("{count} questions"))
            }
            Role::Validator => {
                let mut count = 0;
                for (rows, content) in [
                    (0, Content::Ordinary),
                    (1, Content::Null),
                    (1, Content::Extreme),
                    (64, Content::Null),
                    (64, Content::Extreme),
                ] {
                    let table = asked::table(rows, content).ok_or("there is no table")?;
                    let schema = table.schema();
                    let made = plugin
                        .validator(&context(), &self.configuration, &schema)
                        .await;
                    let mut validator = made.map_err(|error| error.to_string())?;
                    let checked = validator.check(&table).await;
                    is_kept(&checked)?;
                    if checked.is_ok() {
                        is_kept(&validator.finish().await)?;
                    }
                    count += 1;
                }
                Ok(format!("{count} tables"))
            }
            Role::Adapter => {
                let mut count = 0;
                for kind in TaskKind::ALL {
                    for sizes in [Vec::new(), vec![0; 2], vec![0; 4], vec![u32::MAX; 4]] {
                        let task = asked::task(kind);
                        let made = plugin.adapter(&context()).await;
                        let mut adapter = made.map_err(|error| error.to_string())?;
                        let declared = adapter.declare(&task, &sizes, &json!({})).await;
                        match declared {
                            // The host found out before the guest was asked.
                            Err(CallError::BadInput { .. }) => {}
                            declared => is_kept(&declared)?,
                        }
                        count += 1;
                    }
                }
                Ok(format!("{count} declarations"))
            }
            Role::Connector => {
                let made = plugin.connector(&context(), &self.configuration).await;
                let mut connector = made.map_err(|error| error.to_string())?;
                let schema = connector
                    .schema()
                    .await
                    .map_err(|error| error.to_string())?;
                let splits = connector
                    .partitions()
                    .await
                    .map_err(|error| error.to_string())?;
                let Some(split) = splits.into_iter().next() else {
                    return Ok("the source has no parts".to_owned());
                };
                let first = schema.fields().first().map(|field| field.name().clone());
                let mut count = 0;
                for odd in [
                    ScanRequest {
                        limit: Some(0),
                        ..ScanRequest::all(split.clone())
                    },
                    ScanRequest {
                        limit: Some(1),
                        ..ScanRequest::all(split.clone())
                    },
                    ScanRequest {
                        projection: Some(first.into_iter().collect()),
                        ..ScanRequest::all(split.clone())
                    },
                    ScanRequest {
                        projection: Some(vec!["a column that is not there".to_owned()]),
                        ..ScanRequest::all(split.clone())
                    },
                    ScanRequest {
                        cursor: Some("\u{1b}[2J".to_owned()),
                        ..ScanRequest::all(split.clone())
                    },
                ] {
                    let made = plugin.connector(&context(), &self.configuration).await;
                    let mut connector = made.map_err(|error| error.to_string())?;
                    connector
                        .schema()
                        .await
                        .map_err(|error| error.to_string())?;
                    let scanned = connector.scan(&odd).await;
                    match &scanned {
                        Err(CallError::BadInput { .. }) => {}
                        scanned => is_kept(scanned)?,
                    }
                    if scanned.is_ok() {
                        is_kept(&connector.next().await)?;
                    }
                    count += 1;
                }
                Ok(format!("{count} scans"))
            }
        }
    }

    async fn same_twice(&self, demand: &str) -> Trial {
        let (id, weight) = ("same-twice", Demand::Must);
        let sentence = |error: String| text::sentence(&error, MAX_DETAIL_BYTES);
        if self.inspection.role == Role::Connector || !self.grants.files.is_empty() {
            let twice = async {
                let plugin = self.load(false).await.map_err(|error| error.to_string())?;
                let first = self.well(&plugin).await?;
                let second = self.well(&plugin).await?;
                match first == second {
                    true => Ok(first),
                    false => Err(format!("{first}, and then {second}")),
                }
            };
            return Trial::new(id, weight, demand, twice.await.map_err(sentence));
        }
        let replayed = async {
            let plugin = self.load(true).await.map_err(|error| error.to_string())?;
            self.well(&plugin).await?;
            let recordings = self.sandbox.recordings().ok_or("there are no recordings")?;
            let entries = self.audit.entries().map_err(|error| error.to_string())?;
            let mut calls = 0;
            for entry in entries {
                let Event::Recorded { recording, .. } = entry.event else {
                    continue;
                };
                let recording = Recording::read(recordings, &recording);
                let recording = recording.map_err(|error| error.to_string())?;
                let replayed = replay(&self.sandbox, recordings, &recording).await;
                let replayed = replayed.map_err(|error| error.to_string())?;
                calls += replayed.calls.len();
                if !replayed.is_same() {
                    let call = replayed.calls.iter().find(|call| !call.is_same);
                    let call = call.map_or("a call into the host", |call| call.question.name());
                    return Err(format!("`{call}` is not the same in a replay"));
                }
            }
            Ok(format!("{calls} calls were replayed to the same answers"))
        };
        Trial::new(id, weight, demand, replayed.await.map_err(sentence))
    }

    async fn often(&self, plugin: &Plugin) -> Result<String, String> {
        let schema = asked::schema().ok_or("there is no table")?;
        let one = async || {
            let outcome = match self.make(plugin, &self.configuration, &schema).await {
                Ok(Made::Adapter(mut adapter)) => adapter.describe().await.map(|_| ()),
                Ok(Made::Connector(_) | Made::Other) => Ok(()),
                Err(error) => Err(error),
            };
            is_kept(&outcome)
        };
        // What the host keeps for itself is there after the first few.
        for _ in 0..10 {
            one().await?;
        }
        let before = resident_bytes();
        for _ in 0..INSTANCES {
            one().await?;
        }
        let left = self.sandbox.live_instances();
        if left > 0 {
            return Err(format!("{left} instances are still there"));
        }
        match (before, resident_bytes()) {
            (Some(before), Some(after)) => {
                let grown = after.saturating_sub(before);
                let said = format!("the host grew by {} KiB", grown >> 10);
                match grown <= GROWTH_BYTES {
                    true => Ok(said),
                    false => Err(said),
                }
            }
            _ => Ok("this system does not say how much memory the host has".to_owned()),
        }
    }
}

/// What this process holds in memory, where the system says so.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
