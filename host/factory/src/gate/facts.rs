//! What the expressions of a gate see.

use std::collections::BTreeMap;

use cel::{Context, Value};

use sandcast_sandbox::{ControlPoint, TaskKind};

use crate::config::{Sections, TrainSection};
use crate::metrics::{Evaluation, Metric, Slice};

/// What was measured and decided, by the names that expressions use.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// Numbers over all test rows, such as `auc`.
    pub metrics: BTreeMap<String, f64>,
    /// Numbers by sensitive column, such as `demographic_parity_difference`.
    pub slices: BTreeMap<String, BTreeMap<String, f64>>,
    /// The same of the model that is in place, over the same rows.
    pub champion: Option<Champion>,
    /// Decisions so far, such as `promote` to `allow`.
    pub policy: BTreeMap<ControlPoint, String>,
    /// Counts of rows.
    pub data: BTreeMap<String, f64>,
}

/// The model that is in place.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Champion {
    /// Its version.
    pub version: u64,
    /// Its numbers over all test rows.
    pub metrics: BTreeMap<String, f64>,
    /// Its numbers by sensitive column.
    pub slices: BTreeMap<String, BTreeMap<String, f64>>,
}

/// The names of counts under `data`.
pub(crate) const DATA_NAMES: [&str; 4] = ["rows", "quarantined", "training_rows", "test_rows"];

impl Facts {
    pub(super) fn context(&self) -> Context<'static, 'static> {
        let mut context = Context::default();
        let champion = self.champion.as_ref().map_or(Value::Null, |champion| {
            record([
                ("version", Value::Float(champion.version as f64)),
                ("metrics", numbers(&champion.metrics)),
                ("slices", nested(&champion.slices)),
            ])
        });
        let policy = self.policy.iter().flat_map(|(point, effect)| {
            let effect = Value::from(effect.clone());
            [
                (point.as_str().to_owned(), effect.clone()),
                (underscored(*point), effect),
            ]
        });
        context.add_variable_from_value("metrics", numbers(&self.metrics));
        context.add_variable_from_value("slices", nested(&self.slices));
        context.add_variable_from_value("champion", champion);
        context.add_variable_from_value("policy", map(policy));
        context.add_variable_from_value("data", numbers(&self.data));
        context
    }
}

fn map(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value::from(
        entries
            .into_iter()
            .collect::<std::collections::HashMap<String, Value>>(),
    )
}

fn record<const COUNT: usize>(entries: [(&str, Value); COUNT]) -> Value {
    map(entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value)))
}

/// A number that is not one, such as the AUC of a single class, is left out: an expression that
/// uses it does not hold.
fn numbers(numbers: &BTreeMap<String, f64>) -> Value {
    let known = numbers.iter().filter(|(_, value)| value.is_finite());
    map(known.map(|(name, value)| (name.clone(), Value::Float(*value))))
}

fn nested(slices: &BTreeMap<String, BTreeMap<String, f64>>) -> Value {
    map(slices
        .iter()
        .map(|(column, values)| (column.clone(), numbers(values))))
}

/// `train-start` cannot stand after a dot, so `policy.train_start` works as well.
fn underscored(point: ControlPoint) -> String {
    point.as_str().replace('-', "_")
}

/// The metrics that a task has. An anomaly detection without labels cannot be right or wrong.
fn metrics_of(train: &TrainSection) -> &'static [Metric] {
    use Metric::{
        Accuracy, Auc, BalancedAccuracy, BaseRate, BitsPerByte, Brier, Clusters, Ece, F1, Inertia,
        LargestClusterShare, LogLoss, Mae, NatsPerCharacter, NatsPerToken, Perplexity, PrAuc,
        Precision, PrecisionAtShare, R2, Recall, RecallAtShare, Rmse, ScoreMax, ScoreP50, ScoreP90,
        ScoreP99, SelectionRate, Silhouette, SmallestClusterShare,
    };
    match train.task {
        TaskKind::AnomalyDetection if train.target.is_some() => &[
            Auc,
            PrAuc,
            PrecisionAtShare,
            RecallAtShare,
            BaseRate,
            ScoreP50,
            ScoreP90,
            ScoreP99,
            ScoreMax,
        ],
        TaskKind::AnomalyDetection => &[ScoreP50, ScoreP90, ScoreP99, ScoreMax],
        TaskKind::Clustering => &[
            Inertia,
            Silhouette,
            Clusters,
            SmallestClusterShare,
            LargestClusterShare,
        ],
        TaskKind::BinaryClassification => &[
            Auc,
            PrAuc,
            Accuracy,
            BalancedAccuracy,
            Precision,
            Recall,
            F1,
            LogLoss,
            Brier,
            Ece,
            SelectionRate,
            BaseRate,
        ],
        TaskKind::MulticlassClassification => &[
            Auc,
            Accuracy,
            BalancedAccuracy,
            Precision,
            Recall,
            F1,
            LogLoss,
            Brier,
            Ece,
        ],
        TaskKind::Regression => &[Mae, Rmse, R2],
        TaskKind::TextGeneration => &[NatsPerToken, Perplexity, NatsPerCharacter, BitsPerByte],
    }
}

fn slice_numbers(slice: &Slice) -> [(&'static str, Option<f64>); 6] {
    [
        (
            "demographic_parity_difference",
            slice.demographic_parity_difference,
        ),
        ("demographic_parity_ratio", slice.demographic_parity_ratio),
        ("equalized_odds_difference", slice.equalized_odds_difference),
        ("equalized_odds_ratio", slice.equalized_odds_ratio),
        (
            "equal_opportunity_difference",
            slice.equal_opportunity_difference,
        ),
        ("accuracy_difference", slice.accuracy_difference),
    ]
}

/// The numbers of an evaluation by name, without those that its rows do not define.
pub(crate) fn metrics_by_name(evaluation: &Evaluation) -> BTreeMap<String, f64> {
    let known = evaluation
        .metrics
        .iter()
        .filter_map(|(metric, value)| Some((metric, (*value)?)));
    known
        .map(|(metric, value)| (metric.name().to_owned(), value))
        .collect()
}

/// The distances between groups by column and name, without those that its rows do not define.
pub(crate) fn slices_by_name(evaluation: &Evaluation) -> BTreeMap<String, BTreeMap<String, f64>> {
    let numbers = |slice: &Slice| {
        let known = slice_numbers(slice)
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        known
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    };
    evaluation
        .slices
        .iter()
        .map(|(column, slice)| (column.clone(), numbers(slice)))
        .collect()
}

/// The names there will be, before there are values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Value,
    Record(BTreeMap<String, Shape>),
}

/// The names that the gate of a pipeline will know.
pub(super) fn shape(sections: &Sections) -> Shape {
    let values = |names: &[&str]| {
        Shape::Record(
            names
                .iter()
                .map(|name| ((*name).to_owned(), Shape::Value))
                .collect(),
        )
    };
    let metric_names: Vec<&str> = metrics_of(&sections.train)
        .iter()
        .map(|metric| metric.name())
        .collect();
    let slice_names: Vec<&str> = slice_numbers(&Slice::default())
        .map(|(name, _)| name)
        .to_vec();
    let slices = || {
        let columns = sections.evaluate.slices.iter();
        Shape::Record(
            columns
                .map(|column| (column.clone(), values(&slice_names)))
                .collect(),
        )
    };
    let asked = sections.policies.iter().flat_map(|policy| &policy.at);
    let policy = asked
        .filter(|point| **point != ControlPoint::Predict)
        .flat_map(|point| [point.as_str().to_owned(), underscored(*point)])
        .map(|name| (name, Shape::Value))
        .collect();
    let champion = BTreeMap::from([
        ("version".to_owned(), Shape::Value),
        ("metrics".to_owned(), values(&metric_names)),
        ("slices".to_owned(), slices()),
    ]);
    Shape::Record(BTreeMap::from([
        ("metrics".to_owned(), values(&metric_names)),
        ("slices".to_owned(), slices()),
        ("champion".to_owned(), Shape::Record(champion)),
        ("policy".to_owned(), Shape::Record(policy)),
        ("data".to_owned(), values(&DATA_NAMES)),
    ]))
}
