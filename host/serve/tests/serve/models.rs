//! Models whose answers a test chooses.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray as _, Float64Array};
use arrow::datatypes::{Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use sandcast_factory::{Generated, Predicted};
use sandcast_sandbox::{Field, GenerationOptions, Kind, Task, TaskKind};
use sandcast_serve::{
    FailureCause, ModelSelector, ModelSource, Predict, PredictError, ServableModel, SourceError,
};
use tokio::sync::Semaphore;

/// How the model answers.
#[derive(Clone)]
pub(crate) enum Manner {
    /// By a formula.
    Formula,
    /// By the formula, after a while.
    Slowly(Duration),
    /// By the formula, once for each permit that the test adds.
    WhenTold(Arc<Semaphore>),
    /// Not at all.
    Failing(FailureCause),
    /// With a row too many.
    TooManyRows,
    /// By the formula, while it may.
    WhileAllowed(Arc<AtomicBool>),
}

impl Manner {
    /// Why it may not answer.
    fn refusal(&self) -> Option<String> {
        match self {
            Self::WhileAllowed(allowed) if !allowed.load(Ordering::Relaxed) => {
                Some("`acme/mlp` is quarantined".to_owned())
            }
            _ => None,
        }
    }

    pub(crate) async fn answer(&self, rows: &RecordBatch) -> Result<RecordBatch, PredictError> {
        if let Some(message) = self.refusal() {
            let cause = FailureCause::Refused;
            return Err(PredictError { cause, message });
        }
        match self {
            Self::Formula | Self::WhileAllowed(_) => Ok(formula(rows)),
            Self::Slowly(duration) => {
                tokio::time::sleep(*duration).await;
                Ok(formula(rows))
            }
            Self::WhenTold(permits) => {
                permits.acquire().await.expect("an open semaphore").forget();
                Ok(formula(rows))
            }
            Self::Failing(cause) => {
                let message = format!("plugin `mlp` failed in stage `predict`: {cause:?}");
                Err(PredictError {
                    cause: *cause,
                    message,
                })
            }
            Self::TooManyRows => {
                let twice = arrow::compute::concat_batches(&rows.schema(), [rows, rows]);
                Ok(formula(&twice.expect("the same schema")))
            }
        }
    }
}

/// `probability:yes` is `age / 100`, or 0.5 without an age; `prediction` is `income` twice.
fn formula(rows: &RecordBatch) -> RecordBatch {
    if let Some(age) = rows.column_by_name("age") {
        let age = age.as_primitive::<Int64Type>();
        let yes = |age: Option<i64>| age.map_or(0.5, |age| age as f64 / 100.0);
        let columns: [(&str, Float64Array); 2] = [
            (
                "probability:no",
                age.iter().map(|age| 1.0 - yes(age)).collect(),
            ),
            ("probability:yes", age.iter().map(yes).collect()),
        ];
        let columns = columns.map(|(name, column)| (name, Arc::new(column) as ArrayRef));
        RecordBatch::try_from_iter(columns).expect("columns of one length")
    } else {
        let amount = rows.column_by_name("amount").expect("a column");
        let amount = amount.as_primitive::<Float64Type>();
        let doubled: Float64Array = amount
            .iter()
            .map(|amount| amount.map(|it| it * 2.0))
            .collect();
        RecordBatch::try_from_iter([("prediction", Arc::new(doubled) as ArrayRef)])
            .expect("a column")
    }
}

/// `credit`, a binary classifier, whose current version a test can move, and `price`, a regression.
pub(crate) struct Shelf {
    pub(crate) current: AtomicU64,
    pub(crate) broken: AtomicBool,
    pub(crate) names: Mutex<Vec<&'static str>>,
    manner: Manner,
}

impl Shelf {
    pub(crate) fn new(manner: Manner) -> Arc<Self> {
        Arc::new(Self {
            current: AtomicU64::new(1),
            broken: AtomicBool::new(false),
            names: Mutex::new(vec!["credit", "price"]),
            manner,
        })
    }

    fn credit(&self, version: u64) -> ServableModel {
        ServableModel {
            name: "credit".to_owned(),
            version,
            task: Task {
                kind: TaskKind::BinaryClassification,
                features: vec![
                    field("age", Kind::Int64, true),
                    field("income", Kind::Float64, false),
                    field("purpose", Kind::Utf8, true),
                    field("married", Kind::Boolean, true),
                ],
                target: Some("repaid".to_owned()),
                classes: vec!["no".to_owned(), "yes".to_owned()],
                weight: None,
            },
            threshold: 0.4,
            facts: BTreeMap::from([("run".to_owned(), format!("run-{version}"))]),
            predictor: Arc::new(Answering(self.manner.clone())),
        }
    }

    fn price(version: u64) -> ServableModel {
        ServableModel {
            name: "price".to_owned(),
            version,
            task: Task {
                kind: TaskKind::Regression,
                features: vec![
                    field("amount", Kind::Float64, true),
                    field("since", Kind::Date32, true),
                    field("at", Kind::TimestampUs, true),
                ],
                target: Some("price".to_owned()),
                classes: Vec::new(),
                weight: None,
            },
            threshold: 0.5,
            facts: BTreeMap::new(),
            predictor: Arc::new(Answering(Manner::Formula)),
        }
    }
}

/// `writer`, whose words are those of the prompt and how it was asked; not among the names at first.
fn writer(version: u64, manner: Manner) -> ServableModel {
    ServableModel {
        name: "writer".to_owned(),
        version,
        task: Task {
            kind: TaskKind::TextGeneration,
            features: vec![field("text", Kind::Utf8, true)],
            target: None,
            classes: Vec::new(),
            weight: None,
        },
        threshold: 0.5,
        facts: BTreeMap::new(),
        predictor: Arc::new(Writing(manner)),
    }
}

fn field(name: &str, kind: Kind, nullable: bool) -> Field {
    Field {
        name: name.to_owned(),
        kind,
        nullable,
    }
}

impl ModelSource for Shelf {
    fn names(&self) -> BoxFuture<'_, Result<Vec<String>, SourceError>> {
        let names = self.names.lock().expect("no panic");
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        async move { Ok(names) }.boxed()
    }

    fn resolve<'a>(
        &'a self,
        selector: &'a ModelSelector,
    ) -> BoxFuture<'a, Result<u64, SourceError>> {
        let current = self.current.load(Ordering::SeqCst);
        let version = match selector.reference.as_deref() {
            _ if selector.name == "price" => Ok(7),
            None | Some("champion") => Ok(current),
            Some(reference) => reference.parse().map_err(|_| SourceError {
                model: selector.to_string(),
                reason: format!("the model `credit` has no alias `{reference}`"),
            }),
        };
        async move { version }.boxed()
    }

    fn load<'a>(
        &'a self,
        name: &'a str,
        version: u64,
    ) -> BoxFuture<'a, Result<ServableModel, SourceError>> {
        async move {
            if self.broken.load(Ordering::SeqCst) {
                return Err(SourceError {
                    model: format!("{name}@{version}"),
                    reason: "a blob is missing".to_owned(),
                });
            }
            let price = name == "price";
            let model = match name {
                "writer" => writer(version, self.manner.clone()),
                _ if price => Self::price(version),
                _ => self.credit(version),
            };
            Ok(ServableModel {
                name: name.to_owned(),
                ..model
            })
        }
        .boxed()
    }
}

struct Answering(Manner);

impl Predict for Answering {
    fn refusal(&self) -> BoxFuture<'_, Option<String>> {
        async { self.0.refusal() }.boxed()
    }

    fn predict<'a>(
        &'a self,
        rows: &'a RecordBatch,
    ) -> BoxFuture<'a, Result<Predicted, PredictError>> {
        let answered = |rows| Predicted {
            rows,
            recording: None,
        };
        self.0.answer(rows).map_ok(answered).boxed()
    }
}

struct Writing(Manner);

impl Predict for Writing {
    fn predict<'a>(
        &'a self,
        rows: &'a RecordBatch,
    ) -> BoxFuture<'a, Result<Predicted, PredictError>> {
        let answered = |rows| Predicted {
            rows,
            recording: None,
        };
        self.0.answer(rows).map_ok(answered).boxed()
    }

    fn generate<'a>(
        &'a self,
        prompts: &'a [String],
        options: &'a GenerationOptions,
    ) -> BoxFuture<'a, Result<Vec<Generated>, PredictError>> {
        async move {
            match &self.0 {
                Manner::Failing(cause) => Err(PredictError {
                    cause: *cause,
                    message: "plugin `gpt` failed".to_owned(),
                }),
                Manner::Slowly(duration) => {
                    tokio::time::sleep(*duration).await;
                    Ok(Vec::new())
                }
                _ => Ok(prompts
                    .iter()
                    .map(|prompt| Generated {
                        text: format!(" after {prompt}: {options:?}"),
                        tokens: 3,
                        finish: "stop".to_owned(),
                    })
                    .collect()),
            }
        }
        .boxed()
    }
}
