//! Judges the model on the test rows, and the champion on the very same rows.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use sandcast_audit::{Digest, Event};
use sandcast_sandbox::{Model, Origin, Plugin, Role, Task, TaskKind};
use serde::{Deserialize, Serialize};

use super::examples::{Examples, Truth, arrow_stop};
use super::line::{Halt, Line, Output, StageNotes, Stop, chain};
use super::points::points;
use super::train::Trained;
use crate::conduct::{ConductError, Response};
use crate::metrics::{
    self, Anomaly, Binary, Clustering, EvaluateOptions, Evaluation, Lengths, Metric, Multiclass,
    Outcomes, Regression, Text,
};
use crate::registry::{DEFAULT_ALIAS, Incumbent, ModelVersion};
use crate::report;

/// The name of the stage.
const STAGE: &str = "evaluate";

/// A model that was judged.
pub(crate) struct Evaluated {
    pub(crate) trained: Trained,
    pub(crate) evaluation: Evaluation,
    pub(crate) champion: Option<Champion>,
}

/// The model that is in place.
pub(crate) struct Champion {
    pub(crate) version: u64,
    /// Nothing if it cannot be asked about these rows.
    pub(crate) evaluation: Option<Evaluation>,
}

#[derive(Serialize, Deserialize)]
struct EvaluateOutput {
    evaluation: Evaluation,
}

impl Output for EvaluateOutput {
    fn blobs(&self) -> Vec<Digest> {
        Vec::new()
    }
}

/// A model to be judged.
struct Candidate<'a> {
    task: &'a Task,
    artifact: Digest,
    component: Digest,
}

pub(crate) async fn evaluate(line: &Line<'_>, mut trained: Trained) -> Result<Evaluated, Halt> {
    let (evaluation, champion) = line
        .stage(STAGE, async {
            let register = &line.sections().register;
            let alias = register.alias.as_deref().unwrap_or(DEFAULT_ALIAS);
            let registry = line.workspace.registry();
            let champion = registry.incumbent(&register.model, alias, trained.output.artifact)?;
            let (kept, key) = own(line, &mut trained).await?;
            let evaluation = kept.output.evaluation;
            let champion = match champion {
                Some(Incumbent::Known(version)) => {
                    Some(challenge(line, &mut trained, &version).await?)
                }
                Some(Incumbent::Same(version)) => Some(Champion {
                    version,
                    evaluation: Some(evaluation.clone()),
                }),
                None => None,
            };
            line.write_report(|report| {
                report.evaluation = Some(evaluation.clone());
                report.champion = champion.as_ref().map(|champion| report::Champion {
                    version: champion.version,
                    metrics: champion
                        .evaluation
                        .as_ref()
                        .map_or_else(Default::default, |evaluation| evaluation.metrics.clone()),
                });
            });
            let notes = StageNotes {
                key: Some(key),
                output: Some(kept.digest),
                cached: kept.cached,
                rows_in: Some(evaluation.rows),
                rows_out: Some(evaluation.rows),
                rows_quarantined: None,
                message: headline(&evaluation),
            };
            Ok(((evaluation, champion), notes))
        })
        .await?;
    Ok(Evaluated {
        trained,
        evaluation,
        champion,
    })
}

async fn own(
    line: &Line<'_>,
    trained: &mut Trained,
) -> Result<(super::line::Kept<EvaluateOutput>, Digest), Stop> {
    let plugin = trained
        .permitted
        .validated
        .connected
        .loaded
        .plugin(&line.sections().train.plugin)?
        .clone();
    let task = trained.output.task.clone();
    let candidate = Candidate {
        task: &task,
        artifact: trained.output.artifact,
        component: plugin.reference().digest,
    };
    let key = key(line, trained, &candidate);
    let work = async {
        let model = match trained.model.take() {
            Some(model) => model,
            None => load(line, candidate.artifact).await?,
        };
        let examples = examples(line, trained).await?;
        let evaluation = judge(line, examples, &plugin, &model, &task).await?;
        let evaluation = evaluation.ok_or_else(|| {
            Stop::host(STAGE, "the model does not know its own features".to_owned())
        })?;
        Ok(EvaluateOutput { evaluation })
    };
    let kept = line.kept(STAGE, &key, work).await?;
    Ok((kept, key))
}

/// Judges the model that is in place. One that cannot be asked has no numbers, so that an
/// expression of the gate that wants to compare does not hold.
async fn challenge(
    line: &Line<'_>,
    trained: &mut Trained,
    version: &ModelVersion,
) -> Result<Champion, Stop> {
    let unknown = |why: String| {
        let (model, number) = (&version.model, version.version);
        line.note(
            STAGE,
            format!("the champion `{model}` version {number} is not compared: {why}"),
        );
        Ok(Champion {
            version: version.version,
            evaluation: None,
        })
    };
    let (task, own) = (&version.task, &trained.output.task);
    if task.kind != own.kind || task.classes != own.classes || task.target != own.target {
        return unknown("it answers another question".to_owned());
    }
    let candidate = Candidate {
        task,
        artifact: version.artifact,
        component: version.component,
    };
    let key = key(line, trained, &candidate);
    if let Some(before) = line.earlier::<EvaluateOutput>(STAGE, &key).await? {
        return Ok(Champion {
            version: version.version,
            evaluation: Some(before.output.evaluation),
        });
    }
    let plugin = match load_champion(line, version).await? {
        Ok(plugin) => plugin,
        Err(why) => return unknown(why),
    };
    let model = load(line, version.artifact).await?;
    let judged = match judge(line, examples(line, trained).await?, &plugin, &model, task).await {
        Ok(Some(evaluation)) => evaluation,
        Ok(None) => return unknown("these rows lack a column that it needs".to_owned()),
        // A champion that fails must not keep a better one out for ever without a word.
        Err(Stop::Rejected(reasons)) => return unknown(reasons.join("; ")),
        Err(stop) => return Err(stop),
    };
    let kept = line.keep(STAGE, &key, &EvaluateOutput { evaluation: judged })?;
    Ok(Champion {
        version: version.version,
        evaluation: Some(kept.output.evaluation),
    })
}

/// Loads the adapter of the model that is in place, as far as it may still be loaded, or says why not.
async fn load_champion(
    line: &Line<'_>,
    version: &ModelVersion,
) -> Result<Result<Plugin, String>, Stop> {
    let conduct = line.workspace.conduct();
    let standing = match conduct.let_look(&version.adapter) {
        Ok(standing) => standing,
        Err(error @ ConductError::Refused { .. }) => {
            line.workspace.audit().append(Event::PluginRefused {
                name: version.adapter_name.clone(),
                digest: Some(version.adapter.digest),
                reason: error.to_string(),
            })?;
            return Ok(Err(chain(&error)));
        }
        Err(error) => return Err(error.into()),
    };
    let rules = &line.sections().conduct;
    let record = conduct.standing(&version.adapter.digest)?;
    let grants = match &record {
        Some(record) => record.leaves(rules.isolate, version.grants.clone()),
        None => rules.isolate.applied(standing, version.grants.clone()),
    };
    let record = record.filter(|record| record.throttled);
    let component = line.workspace.estate().get(&version.component).await?;
    let origin = Origin {
        signatures: version.vouched.signatures(),
        trust: version.vouched.trust.as_ref(),
    };
    let sandbox = line.workspace.sandbox();
    let name = &version.adapter_name;
    let loaded = sandbox.load_from(name, &component, Role::Adapter, grants, origin);
    let plugin = match loaded.await {
        Ok(plugin) => plugin,
        Err(error) => return Ok(Err(chain(&error))),
    };
    Ok(Ok(match record {
        // At its pace; what else it is held to is for what it does in runs of its own.
        Some(record) => {
            let pipeline = &line.sections().name;
            plugin.bounded(conduct.bounds(&record, pipeline, rules, Response::Throttle)?)
        }
        None => plugin,
    }))
}

fn key(line: &Line<'_>, trained: &Trained, candidate: &Candidate<'_>) -> Digest {
    let sections = line.sections();
    let passed = &trained.permitted.validated.validation.passed;
    let mut question = Digest::hasher();
    crate::plan::json(&mut question, candidate.task);
    crate::plan::json(&mut question, &sections.train.split);
    crate::plan::json(&mut question, &sections.evaluate);
    if !candidate.task.kind.has_target() {
        // The task says nothing of the labels that the model is judged by.
        crate::plan::json(&mut question, &sections.train.target);
        crate::plan::json(&mut question, &sections.train.positive);
    }
    line.key(
        "judge",
        &[
            passed.digest.as_bytes(),
            candidate.artifact.as_bytes(),
            candidate.component.as_bytes(),
            &sections.seed.to_le_bytes(),
            question.finish().as_bytes(),
        ],
    )
}

async fn load(line: &Line<'_>, artifact: Digest) -> Result<Arc<Model>, Stop> {
    let bytes = line.workspace.estate().get(&artifact).await?;
    let model = Model::from_bytes(&bytes, line.workspace.sandbox());
    Ok(Arc::new(
        model.map_err(|error| Stop::host(STAGE, chain(&error)))?,
    ))
}

async fn examples<'t>(line: &Line<'_>, trained: &'t mut Trained) -> Result<&'t Examples, Stop> {
    let examples = match trained.examples.take() {
        Some(examples) => examples,
        None => Examples::read(line, STAGE, &trained.permitted).await?,
    };
    Ok(trained.examples.insert(examples))
}

/// Measures a model on the test rows, or nothing if they lack a column that it needs.
async fn judge(
    line: &Line<'_>,
    examples: &Examples,
    plugin: &Plugin,
    model: &Arc<Model>,
    task: &Task,
) -> Result<Option<Evaluation>, Stop> {
    let stop = |error| Stop::of(STAGE, &error);
    let asked = examples
        .askable(&task.features)
        .map_err(arrow_stop(STAGE))?;
    let Some(batches) = asked else {
        return Ok(None);
    };
    let mut adapter = plugin.adapter(&line.context(STAGE)).await.map_err(stop)?;
    let columns = answer_columns(task);
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut answers = Answers {
        numbers: Vec::with_capacity(total * columns.len()),
        clusters: Vec::new(),
        tokens: Vec::new(),
    };
    let (progress, mut done) = (line.rows(STAGE), 0);
    for batch in &batches {
        let answer = adapter.predict(model, batch).await.map_err(stop)?;
        answers
            .append(&answer, &columns, batch.num_rows())
            .map_err(|what| {
                Stop::rejected(format!(
                    "the adapter `{}` answered wrongly: {what}",
                    plugin.name()
                ))
            })?;
        done += batch.num_rows() as u64;
        progress(sandcast_estate::Progress {
            rows: done,
            total: Some(total as u64),
        });
    }
    adapter.finish().map_err(|error| Stop::of(STAGE, &error))?;

    let slices = line.sections().evaluate.slices.iter();
    let slices: Result<Vec<_>, Stop> = slices
        .map(|name| examples.slice(line, STAGE, name))
        .collect();
    let (wanted, default) = (&line.sections().evaluate, EvaluateOptions::default());
    let options = EvaluateOptions {
        threshold: wanted.threshold,
        share: wanted.share.unwrap_or(default.share),
        ..default
    };
    let asked = Asked {
        task,
        truth: &examples.truth(),
        batches: &batches,
        answers: &answers,
    };
    let evaluation = asked.measure(&slices?, &options);
    evaluation.map(Some).map_err(|error| {
        Stop::rejected(format!(
            "the answers of `{}` cannot be judged: {error}",
            plugin.name()
        ))
    })
}

/// The columns of numbers that an adapter answers with. Of a binary classification one says it
/// all.
fn answer_columns(task: &Task) -> Vec<String> {
    let probability = |class: &String| format!("probability:{class}");
    match task.kind {
        TaskKind::Regression => vec!["prediction".to_owned()],
        TaskKind::AnomalyDetection => vec!["score".to_owned()],
        TaskKind::Clustering => vec!["distance".to_owned()],
        TaskKind::TextGeneration => vec!["loss".to_owned()],
        TaskKind::BinaryClassification => {
            task.classes.last().map(probability).into_iter().collect()
        }
        TaskKind::MulticlassClassification => task.classes.iter().map(probability).collect(),
    }
}

/// What an adapter has answered.
struct Answers {
    /// The numbers of the answer columns, row by row.
    numbers: Vec<f64>,
    /// The cluster of each row, of a clustering.
    clusters: Vec<u32>,
    /// The tokens of each row, of a text generation.
    tokens: Vec<u64>,
}

impl Answers {
    /// Appends answers row by row.
    fn append(
        &mut self,
        answer: &RecordBatch,
        columns: &[String],
        rows: usize,
    ) -> Result<(), String> {
        if answer.num_rows() != rows {
            return Err(format!("{} rows for {rows}", answer.num_rows()));
        }
        let mut found = Vec::with_capacity(columns.len());
        for name in columns {
            let column = answer
                .column_by_name(name)
                .ok_or_else(|| format!("there is no `{name}`"))?;
            let column = column.as_primitive_opt::<Float64Type>();
            let column = column.ok_or_else(|| format!("`{name}` is not float64"))?;
            if column.null_count() > 0 {
                return Err(format!("`{name}` is null in {} rows", column.null_count()));
            }
            found.push(column.values());
        }
        for row in 0..rows {
            self.numbers.extend(found.iter().map(|column| column[row]));
        }
        let clusters = answer.column_by_name("cluster");
        let clusters = clusters.and_then(|column| column.as_primitive_opt::<Int64Type>());
        for cluster in clusters.into_iter().flat_map(|column| column.values()) {
            let number = u32::try_from(*cluster);
            self.clusters
                .push(number.map_err(|_| format!("there is no cluster {cluster}"))?);
        }
        let tokens = answer.column_by_name("tokens");
        let tokens = tokens.and_then(|column| column.as_primitive_opt::<Int64Type>());
        for count in tokens.into_iter().flat_map(|column| column.values()) {
            let number = u64::try_from(*count);
            self.tokens
                .push(number.map_err(|_| format!("there are {count} tokens"))?);
        }
        Ok(())
    }
}

/// What was asked and answered, and what is true.
struct Asked<'a> {
    task: &'a Task,
    truth: &'a Truth<'a>,
    batches: &'a [RecordBatch],
    answers: &'a Answers,
}

impl Asked<'_> {
    fn measure(
        &self,
        slices: &[metrics::SliceColumn],
        options: &EvaluateOptions,
    ) -> Result<Evaluation, metrics::MetricsError> {
        let numbers = self.answers.numbers.as_slice();
        let judge = |outcomes: &Outcomes<'_>| metrics::evaluate(outcomes, slices, options);
        match (self.task.kind, self.truth, self.task.classes.as_slice()) {
            (TaskKind::AnomalyDetection, truth, _) => {
                let anomaly = Anomaly::new(numbers)?;
                judge(&Outcomes::Anomaly(match truth {
                    Truth::Anomalies { classes, positive } => {
                        anomaly.labelled(*classes, positive)?
                    }
                    _ => anomaly,
                }))
            }
            (TaskKind::Clustering, ..) => {
                let points = points(self.batches);
                let clusters = &self.answers.clusters;
                judge(&Outcomes::Clustering(Clustering::new(
                    clusters, numbers, &points,
                )?))
            }
            (TaskKind::TextGeneration, ..) => {
                let lengths = lengths(self.batches);
                let text = Text::new(numbers, &self.answers.tokens, &lengths)?;
                judge(&Outcomes::Text(text))
            }
            (_, Truth::Numbers(truth), _) => {
                judge(&Outcomes::Regression(Regression::new(truth, numbers)?))
            }
            (TaskKind::BinaryClassification, Truth::Classes(classes), [negative, positive]) => {
                let truth: Vec<bool> = classes.iter().map(|class| *class == 1).collect();
                let binary = Binary::new([negative, positive], &truth, numbers)?;
                judge(&Outcomes::Binary(binary))
            }
            (_, Truth::Classes(classes), names) => {
                let multiclass = Multiclass::new(names, classes, numbers)?;
                judge(&Outcomes::Multiclass(multiclass))
            }
            (_, Truth::Anomalies { .. } | Truth::None, _) => Err(metrics::MetricsError::Lengths {
                what: "the target".to_owned(),
                found: 0,
                expected: self.batches.iter().map(RecordBatch::num_rows).sum(),
            }),
        }
    }
}

/// How long the texts of the first column are.
fn lengths(batches: &[RecordBatch]) -> Lengths {
    let mut lengths = Lengths::default();
    for batch in batches {
        let texts = batch.columns().first();
        let texts = texts.and_then(|column| column.as_string_opt::<i32>());
        for text in texts.into_iter().flatten() {
            lengths.push(text);
        }
    }
    lengths
}

/// The numbers that say most, in a line.
fn headline(evaluation: &Evaluation) -> String {
    let shown = [
        Metric::Auc,
        Metric::Accuracy,
        Metric::LogLoss,
        Metric::Rmse,
        Metric::R2,
        Metric::PrecisionAtShare,
        Metric::ScoreP50,
        Metric::ScoreP99,
        Metric::Inertia,
        Metric::Silhouette,
        Metric::Clusters,
        Metric::NatsPerCharacter,
        Metric::BitsPerByte,
    ];
    let known = shown
        .iter()
        .filter_map(|metric| Some((metric, evaluation.metric(*metric)?)));
    known
        .map(|(metric, value)| format!("{} {value:.4}", metric.name()))
        .collect::<Vec<_>>()
        .join(", ")
}
