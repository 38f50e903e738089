//! The models that are loaded, and how they change while requests are under way.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::future::BoxFuture;
use sandcast_audit::AuditError;
use sandcast_factory::{Generated, Predicted};
use sandcast_sandbox::{GenerationOptions, Kind, Task, TaskKind};

use crate::config::ModelSelector;
use crate::error::{ApiError, FailureCause, PredictError, SourceError};
use crate::protocol::Datatype;

/// What answers: rows in, as many rows of outputs out. Dropping the future cancels the work.
///
/// The registry's models run their adapter in its sandbox. The seam is for what answers without
/// one, and for tests of a server whose models are slow or broken in a chosen way.
pub trait Predict: Send + Sync {
    /// Predicts. The rows have the columns of the task's features, in order.
    ///
    /// # Errors
    /// Whatever kept the adapter from answering.
    fn predict<'a>(
        &'a self,
        rows: &'a RecordBatch,
    ) -> BoxFuture<'a, Result<Predicted, PredictError>>;

    /// Why it may not answer at this moment, if it may not. The server asks at an interval too, so
    /// it must be cheap where nothing has changed. By default it always may.
    fn refusal(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async { None })
    }

    /// Writes down what answered did since the last time, all of it where it is the `last` time.
    /// What cannot be written is kept, and nothing is predicted until it can. It may wait for the
    /// disk. By default nothing.
    ///
    /// # Errors
    /// If the audit log cannot be written.
    fn settle(&self, last: bool) -> Result<(), AuditError> {
        let _ = last;
        Ok(())
    }

    /// Writes on from prompts, for a model of text generation.
    ///
    /// # Errors
    /// Whatever kept the adapter from answering; by default, that it cannot.
    fn generate<'a>(
        &'a self,
        prompts: &'a [String],
        options: &'a GenerationOptions,
    ) -> BoxFuture<'a, Result<Vec<Generated>, PredictError>> {
        let _ = (prompts, options);
        Box::pin(async {
            Err(PredictError {
                cause: FailureCause::Input,
                message: "this model does not write".to_owned(),
            })
        })
    }
}

/// Where a server gets its models.
pub trait ModelSource: Send + Sync + 'static {
    /// The names of all models.
    fn names(&self) -> BoxFuture<'_, Result<Vec<String>, SourceError>>;

    /// Which version a selector means at this moment.
    fn resolve<'a>(
        &'a self,
        selector: &'a ModelSelector,
    ) -> BoxFuture<'a, Result<u64, SourceError>>;

    /// Loads a version, ready to answer.
    fn load<'a>(
        &'a self,
        name: &'a str,
        version: u64,
    ) -> BoxFuture<'a, Result<ServableModel, SourceError>>;
}

/// A model version that is ready to answer, and what there is to know about it.
pub struct ServableModel {
    /// The model's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// What it predicts, from what.
    pub task: Task,
    /// From which probability on the label is the positive class (binary), or from which score on
    /// a row counts as an anomaly (anomaly detection).
    pub threshold: f64,
    /// What else metadata shows, such as the adapter and the digests.
    pub facts: BTreeMap<String, String>,
    /// What answers.
    pub predictor: Arc<dyn Predict>,
}

/// A loaded version with its counters.
pub(crate) struct Loaded {
    pub(crate) model: ServableModel,
    pub(crate) counters: Counters,
}

impl Loaded {
    fn new(model: ServableModel) -> Arc<Self> {
        Arc::new(Self {
            model,
            counters: Counters::default(),
        })
    }

    /// The outputs that a request can ask for, the adapter's columns first.
    pub(crate) fn outputs(&self) -> Vec<(String, Datatype)> {
        let task = &self.model.task;
        match task.kind {
            TaskKind::Regression => vec![("prediction".to_owned(), Datatype::Fp64)],
            TaskKind::TextGeneration => vec![
                ("loss".to_owned(), Datatype::Fp64),
                ("tokens".to_owned(), Datatype::Int64),
            ],
            TaskKind::AnomalyDetection => vec![("score".to_owned(), Datatype::Fp64)],
            TaskKind::Clustering => vec![
                ("cluster".to_owned(), Datatype::Int64),
                ("distance".to_owned(), Datatype::Fp64),
            ],
            TaskKind::BinaryClassification | TaskKind::MulticlassClassification => task
                .classes
                .iter()
                .map(|class| (format!("probability:{class}"), Datatype::Fp64))
                .chain([(LABEL.to_owned(), Datatype::Bytes)])
                .collect(),
        }
    }

    /// The inputs, with the datatype that loses nothing.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = (&str, Datatype)> {
        self.model.task.features.iter().map(|field| {
            let datatype = match field.kind {
                Kind::Boolean => Datatype::Bool,
                Kind::Int64 => Datatype::Int64,
                Kind::Float64 => Datatype::Fp64,
                Kind::Utf8 | Kind::Date32 | Kind::TimestampUs => Datatype::Bytes,
            };
            (field.name.as_str(), datatype)
        })
    }
}

/// The output that names the predicted class.
pub(crate) const LABEL: &str = "label";

/// What a version has done since it was loaded.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) succeeded: Tally,
    pub(crate) failed: Tally,
    pub(crate) queued: Tally,
    pub(crate) decoded: Tally,
    pub(crate) predicted: Tally,
    pub(crate) encoded: Tally,
    /// Rows of the requests that succeeded.
    pub(crate) rows: AtomicU64,
    /// When the last request was answered, in milliseconds since 1970.
    pub(crate) last_request_ms: AtomicU64,
}

/// How often, and how long in all.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    count: AtomicU64,
    nanoseconds: AtomicU64,
}

impl Tally {
    pub(crate) fn add(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }
}

/// The versions of one model.
#[derive(Clone, Default)]
struct Versions {
    /// Answers where a request names no version.
    default: u64,
    loaded: BTreeMap<u64, Arc<Loaded>>,
    /// Which version each selected alias means.
    aliases: BTreeMap<String, u64>,
}

type Table = BTreeMap<String, Versions>;

/// The models that are loaded. A request takes what it needs once, at its start; a reload replaces
/// the table, and an old version is freed when its last request ends.
pub(crate) struct Models {
    source: Arc<dyn ModelSource>,
    /// What is served; empty for every model that the source has at the time.
    selectors: Vec<ModelSelector>,
    table: RwLock<Arc<Table>>,
    /// Reloads come one after another.
    reloading: tokio::sync::Mutex<()>,
}

/// What a reload did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reload {
    pub(crate) loaded: Vec<String>,
    pub(crate) dropped: Vec<String>,
}

impl Models {
    /// Loads what is selected, or one version of every model of the source.
    pub(crate) async fn load(
        source: Arc<dyn ModelSource>,
        selectors: Vec<ModelSelector>,
    ) -> Result<Self, SourceError> {
        let models = Self {
            source,
            selectors,
            table: RwLock::default(),
            reloading: tokio::sync::Mutex::default(),
        };
        models.reload().await?;
        Ok(models)
    }

    /// Asks the source what every selector means now, and loads what is new. Nothing changes
    /// unless all of it can be loaded.
    pub(crate) async fn reload(&self) -> Result<Reload, SourceError> {
        let _one_at_a_time = self.reloading.lock().await;
        let before = self.table();
        let mut table = Table::new();
        let mut reload = Reload::default();
        for selector in self.selected().await?.iter() {
            let version = self.source.resolve(selector).await?;
            let versions = table
                .entry(selector.name.clone())
                .or_insert_with(|| Versions {
                    default: version,
                    ..Versions::default()
                });
            if let Some(reference) = &selector.reference
                && reference.parse::<u64>().is_err()
            {
                versions.aliases.insert(reference.clone(), version);
            }
            if versions.loaded.contains_key(&version) {
                continue;
            }
            let known = before
                .get(&selector.name)
                .and_then(|known| known.loaded.get(&version));
            let loaded = match known {
                Some(loaded) => Arc::clone(loaded),
                None => {
                    reload.loaded.push(format!("{}@{version}", selector.name));
                    Loaded::new(self.source.load(&selector.name, version).await?)
                }
            };
            versions.loaded.insert(version, loaded);
        }
        let mut dropped = Vec::new();
        for (name, versions) in before.iter() {
            for (version, loaded) in &versions.loaded {
                let kept = table
                    .get(name)
                    .is_some_and(|kept| kept.loaded.contains_key(version));
                if !kept {
                    reload.dropped.push(format!("{name}@{version}"));
                    dropped.push(Arc::clone(loaded));
                }
            }
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        // What these did until now is written down and judged, and nobody waits for that.
        tokio::task::spawn_blocking(move || {
            for loaded in dropped {
                if let Err(error) = loaded.model.predictor.settle(true) {
                    let (model, version) = (&loaded.model.name, loaded.model.version);
                    tracing::error!(%error, %model, version, "what a model did is not on record");
                }
            }
        });
        Ok(reload)
    }

    async fn selected(&self) -> Result<Cow<'_, [ModelSelector]>, SourceError> {
        if !self.selectors.is_empty() {
            return Ok(Cow::Borrowed(&self.selectors));
        }
        let names = self.source.names().await?;
        let current = |name| ModelSelector {
            name,
            reference: None,
        };
        Ok(names.into_iter().map(current).collect())
    }

    /// Whether a model of this name is served.
    pub(crate) fn is_served(&self, name: &str) -> bool {
        self.table().contains_key(name)
    }

    /// The version of a model that a request means: a number, an alias that is served, or the default.
    pub(crate) fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Loaded>, ApiError> {
        let table = self.table();
        let Some(versions) = table.get(name) else {
            let known = list(table.keys());
            return Err(ApiError::not_found(format!(
                "there is no model `{name}` here; known models: {known}"
            )));
        };
        let number = match version {
            None => Some(versions.default),
            Some(version) => version
                .parse()
                .ok()
                .or_else(|| versions.aliases.get(version).copied()),
        };
        number
            .and_then(|number| versions.loaded.get(&number))
            .cloned()
            .ok_or_else(|| {
                let known = list(
                    versions.loaded.keys().map(u64::to_string).chain(
                        versions
                            .aliases
                            .iter()
                            .map(|(alias, version)| format!("{alias} ({version})")),
                    ),
                );
                let version = version.unwrap_or_default();
                ApiError::not_found(format!(
                    "model `{name}` has no version `{version}` here; served versions: {known}"
                ))
            })
    }

    /// Every loaded version, by name and number.
    pub(crate) fn all(&self) -> Vec<Arc<Loaded>> {
        let table = self.table();
        table
            .values()
            .flat_map(|versions| versions.loaded.values().cloned())
            .collect()
    }

    /// The loaded versions of a model.
    pub(crate) fn versions(&self, name: &str) -> Vec<Arc<Loaded>> {
        let table = self.table();
        table
            .get(name)
            .map(|versions| versions.loaded.values().cloned().collect())
            .unwrap_or_default()
    }

    /// How many loaded versions may not answer at this moment.
    pub(crate) async fn refused(&self) -> usize {
        let mut refused = 0;
        for loaded in self.all() {
            refused += usize::from(loaded.model.predictor.refusal().await.is_some());
        }
        refused
    }

    /// Writes down what every loaded version did since the last time.
    pub(crate) fn settle(&self, last: bool) -> Result<(), AuditError> {
        let all = self.all();
        all.iter()
            .try_for_each(|loaded| loaded.model.predictor.settle(last))
    }

    /// `name@version` of each loaded version.
    pub(crate) fn labels(&self) -> Vec<String> {
        self.all()
            .iter()
            .map(|loaded| format!("{}@{}", loaded.model.name, loaded.model.version))
            .collect()
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Names for a message, cut to what a reader takes in.
pub(crate) fn list(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    const SHOWN: usize = 20;
    let names: Vec<_> = names.into_iter().collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    let mut text = String::new();
    for (index, name) in names.iter().take(SHOWN).enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        text.push_str(name.as_ref());
    }
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
