use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::fairness::{Slice, SliceColumn};
use super::{
    Anomaly, Binary, Calibration, ClusterSize, Clustering, Confusion, MetricsError, Multiclass,
    Regression, RocPoint, ScoreBin, Text,
};

/// Everything a model was measured by on rows it has not seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// What kind of question the model answers.
    pub task: EvaluatedTask,
    /// How many rows it was judged on.
    pub rows: u64,
    /// The names of the classes; the positive one of a binary task, or of the labels that an
    /// anomaly detection is judged by, last. Empty where there are none.
    pub classes: Vec<String>,
    /// From which probability (binary) or score (anomaly detection) on a row is selected.
    pub threshold: Option<f64>,
    /// The numbers that apply to the task; `null` where the rows do not define one.
    pub metrics: BTreeMap<Metric, Option<f64>>,
    /// Rows by true and by predicted class (classification, and anomaly detection with labels).
    pub confusion: Option<ConfusionMatrix>,
    /// The ROC curve (binary, and anomaly detection with labels), thinned for drawing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roc: Vec<RocPoint>,
    /// The reliability curve (classification only).
    pub calibration: Option<Calibration>,
    /// Scores of each class against the rest (multiclass only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_class: Vec<ClassScores>,
    /// Rows by score (anomaly detection only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<ScoreBin>,
    /// The clusters that have rows, the largest first (clustering only); the first 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<ClusterSize>,
    /// How the groups of each slice column fare, by column.
    pub slices: BTreeMap<String, Slice>,
}

/// The kinds of tasks that can be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EvaluatedTask {
    /// Two classes.
    BinaryClassification,
    /// Several classes.
    MulticlassClassification,
    /// A number.
    Regression,
    /// How unusual a row is.
    AnomalyDetection,
    /// Which rows belong together.
    Clustering,
    /// What comes next in a text.
    TextGeneration,
}

/// A number by which a model is judged. In JSON, in gates and in messages it goes by
/// [`Metric::name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Metric {
    /// Area under the ROC curve; with several classes the macro mean of one against the rest.
    Auc,
    /// Area under precision over recall (average precision).
    PrAuc,
    /// Share of rows that were judged rightly.
    Accuracy,
    /// Mean recall over the classes that occur.
    BalancedAccuracy,
    /// Share of the selected that are positive; with several classes the macro mean.
    Precision,
    /// Share of the positives that were selected; with several classes the macro mean.
    Recall,
    /// Harmonic mean of precision and recall; with several classes the macro mean.
    F1,
    /// Mean negative log-likelihood, in nats.
    LogLoss,
    /// Mean squared distance of the probabilities from the truth.
    Brier,
    /// Expected calibration error.
    Ece,
    /// Share of the rows that were selected.
    SelectionRate,
    /// Share of the rows that are positive in truth.
    BaseRate,
    /// Mean absolute error, in the target's unit.
    Mae,
    /// Root of the mean squared error, in the target's unit.
    Rmse,
    /// Coefficient of determination.
    R2,
    /// Share of the rows with the highest scores that are anomalies.
    PrecisionAtShare,
    /// Share of the anomalies that are among the rows with the highest scores.
    RecallAtShare,
    /// The median score.
    ScoreP50,
    /// The score that 90 of 100 rows do not exceed.
    ScoreP90,
    /// The score that 99 of 100 rows do not exceed.
    ScoreP99,
    /// The highest score.
    ScoreMax,
    /// Mean squared distance from the centre of the cluster, in the adapter's own space.
    Inertia,
    /// Mean silhouette of a sample, from -1 to 1.
    Silhouette,
    /// Clusters that have rows.
    Clusters,
    /// Share of the rows that are in the smallest of them.
    SmallestClusterShare,
    /// Share of the rows that are in the largest of them.
    LargestClusterShare,
    /// Mean surprise at a token, in nats. A figure of the adapter's own tokens.
    NatsPerToken,
    /// e to the nats for each token.
    Perplexity,
    /// Surprise at all texts, in nats, for each of their characters.
    NatsPerCharacter,
    /// Surprise at all texts, in bits, for each of their bytes in UTF-8.
    BitsPerByte,
}

impl Metric {
    /// Every metric, in the order in which they are shown.
    pub const ALL: [Self; 30] = [
        Self::Auc,
        Self::PrAuc,
        Self::Accuracy,
        Self::BalancedAccuracy,
        Self::Precision,
        Self::Recall,
        Self::F1,
        Self::LogLoss,
        Self::Brier,
        Self::Ece,
        Self::SelectionRate,
        Self::BaseRate,
        Self::Mae,
        Self::Rmse,
        Self::R2,
        Self::PrecisionAtShare,
        Self::RecallAtShare,
        Self::ScoreP50,
        Self::ScoreP90,
        Self::ScoreP99,
        Self::ScoreMax,
        Self::Inertia,
        Self::Silhouette,
        Self::Clusters,
        Self::SmallestClusterShare,
        Self::LargestClusterShare,
        Self::NatsPerToken,
        Self::Perplexity,
        Self::NatsPerCharacter,
        Self::BitsPerByte,
    ];

    /// The name by which gates and JSON know it, such as `log_loss`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auc => "auc",
            Self::PrAuc => "pr_auc",
            Self::Accuracy => "accuracy",
            Self::BalancedAccuracy => "balanced_accuracy",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::F1 => "f1",
            Self::LogLoss => "log_loss",
            Self::Brier => "brier",
            Self::Ece => "ece",
            Self::SelectionRate => "selection_rate",
            Self::BaseRate => "base_rate",
            Self::Mae => "mae",
            Self::Rmse => "rmse",
            Self::R2 => "r2",
            Self::PrecisionAtShare => "precision_at_share",
            Self::RecallAtShare => "recall_at_share",
            Self::ScoreP50 => "score_p50",
            Self::ScoreP90 => "score_p90",
            Self::ScoreP99 => "score_p99",
            Self::ScoreMax => "score_max",
            Self::Inertia => "inertia",
            Self::Silhouette => "silhouette",
            Self::Clusters => "clusters",
            Self::SmallestClusterShare => "smallest_cluster_share",
            Self::LargestClusterShare => "largest_cluster_share",
            Self::NatsPerToken => "nats_per_token",
            Self::Perplexity => "perplexity",
            Self::NatsPerCharacter => "nats_per_character",
            Self::BitsPerByte => "bits_per_byte",
        }
    }

    /// The name by which people know it, such as "log-loss".
    pub fn title(self) -> &'static str {
        match self {
            Self::Auc => "ROC AUC",
            Self::PrAuc => "PR AUC",
            Self::Accuracy => "Accuracy",
            Self::BalancedAccuracy => "Balanced accuracy",
            Self::Precision => "Precision",
            Self::Recall => "Recall",
            Self::F1 => "F1",
            Self::LogLoss => "Log-loss",
            Self::Brier => "Brier score",
            Self::Ece => "Calibration error",
            Self::SelectionRate => "Selection rate",
            Self::BaseRate => "Base rate",
            Self::Mae => "Mean absolute error",
            Self::Rmse => "Root mean squared error",
            Self::R2 => "R squared",
            Self::PrecisionAtShare => "Precision at the share",
            Self::RecallAtShare => "Recall at the share",
            Self::ScoreP50 => "Median score",
            Self::ScoreP90 => "90% of scores up to",
            Self::ScoreP99 => "99% of scores up to",
            Self::ScoreMax => "Highest score",
            Self::Inertia => "Inertia",
            Self::Silhouette => "Silhouette",
            Self::Clusters => "Clusters with rows",
            Self::SmallestClusterShare => "Share of the smallest cluster",
            Self::LargestClusterShare => "Share of the largest cluster",
            Self::NatsPerToken => "Nats per token",
            Self::Perplexity => "Perplexity",
            Self::NatsPerCharacter => "Nats per character",
            Self::BitsPerByte => "Bits per byte",
        }
    }

    /// Whether more is better, less is better, or neither.
    pub fn higher_is_better(self) -> Option<bool> {
        match self {
            Self::SelectionRate
            | Self::BaseRate
            | Self::ScoreP50
            | Self::ScoreP90
            | Self::ScoreP99
            | Self::ScoreMax
            | Self::Clusters
            | Self::SmallestClusterShare
            | Self::LargestClusterShare => None,
            Self::LogLoss
            | Self::Brier
            | Self::Ece
            | Self::Mae
            | Self::Rmse
            | Self::Inertia
            | Self::NatsPerToken
            | Self::Perplexity
            | Self::NatsPerCharacter
            | Self::BitsPerByte => Some(false),
            _ => Some(true),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Rows by true class and predicted class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    /// The names of the classes, in the order of both axes.
    pub classes: Vec<String>,
    /// Rows by true class (outer) and predicted class (inner).
    pub counts: Vec<Vec<u64>>,
}

/// Scores of one class against the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// The class.
    pub class: String,
    /// Rows of this class.
    pub rows: u64,
    /// Share of the rows said to be of this class that are.
    pub precision: Option<f64>,
    /// Share of its rows that were found.
    pub recall: Option<f64>,
    /// Harmonic mean of the two.
    pub f1: Option<f64>,
    /// AUC of this class against the rest.
    pub auc: Option<f64>,
}

/// The rows to judge by, as one of the tasks.
#[derive(Debug, Clone, Copy)]
pub enum Outcomes<'a> {
    /// Two classes.
    Binary(Binary<'a>),
    /// Several classes.
    Multiclass(Multiclass<'a>),
    /// A number.
    Regression(Regression<'a>),
    /// How unusual a row is.
    Anomaly(Anomaly<'a>),
    /// Which rows belong together.
    Clustering(Clustering<'a>),
    /// What comes next in a text.
    Text(Text<'a>),
}

impl Outcomes<'_> {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        match self {
            Self::Binary(binary) => binary.positive().len(),
            Self::Multiclass(multiclass) => multiclass.truth().len(),
            Self::Regression(regression) => regression.truth().len(),
            Self::Anomaly(anomaly) => anomaly.score().len(),
            Self::Clustering(clustering) => clustering.rows(),
            Self::Text(text) => text.rows(),
        }
    }
}

/// How to judge.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluateOptions {
    /// From which probability on a row is selected (binary only).
    pub threshold: f64,
    /// The share of the rows, those with the highest scores, that count as anomalies.
    pub share: f64,
    /// Groups with fewer rows are reported but not judged.
    pub minimum_group_rows: u64,
    /// In how many bins of equal width calibration is measured.
    pub calibration_bins: usize,
    /// In how many points the ROC curve is kept.
    pub curve_points: usize,
}

impl Default for EvaluateOptions {
    /// Threshold 0.5, a share of 0.05, groups of at least 30 rows, 10 bins, 200 points.
    fn default() -> Self {
        Self {
            threshold: 0.5,
            share: 0.05,
            minimum_group_rows: 30,
            calibration_bins: 10,
            curve_points: 200,
        }
    }
}

/// Measures everything that applies to the task.
///
/// # Errors
/// A slice column of another length than there are rows.
pub fn evaluate(
    outcomes: &Outcomes<'_>,
    slices: &[SliceColumn],
    options: &EvaluateOptions,
) -> Result<Evaluation, MetricsError> {
    let mut evaluation = match outcomes {
        Outcomes::Binary(binary) => of_binary(binary, options),
        Outcomes::Multiclass(multiclass) => of_multiclass(multiclass, options),
        Outcomes::Regression(regression) => of_regression(regression),
        Outcomes::Anomaly(anomaly) => of_anomaly(anomaly, options),
        Outcomes::Clustering(clustering) => of_clustering(clustering),
        Outcomes::Text(text) => of_text(text),
    };
    // Of an anomaly detection it is a score, which only the rows tell.
    let threshold = evaluation.threshold.unwrap_or(options.threshold);
    for column in slices {
        let slice = Slice::new(outcomes, column, threshold, options.minimum_group_rows)?;
        evaluation.slices.insert(column.name().to_owned(), slice);
    }
    Ok(evaluation)
}

impl Evaluation {
    /// A number by its metric; `None` where it does not apply or is not defined.
    pub fn metric(&self, metric: Metric) -> Option<f64> {
        self.metrics.get(&metric).copied().flatten()
    }

    fn empty(task: EvaluatedTask, rows: usize) -> Self {
        Self {
            task,
            rows: rows as u64,
            classes: Vec::new(),
            threshold: None,
            metrics: BTreeMap::new(),
            confusion: None,
            roc: Vec::new(),
            calibration: None,
            per_class: Vec::new(),
            scores: Vec::new(),
            clusters: Vec::new(),
            slices: BTreeMap::new(),
        }
    }
}

fn of_binary(binary: &Binary<'_>, options: &EvaluateOptions) -> Evaluation {
    let confusion = binary.confusion(options.threshold);
    let calibration = binary.calibration(options.calibration_bins);
    let classes: Vec<String> = binary
        .classes()
        .iter()
        .map(|&class| class.to_owned())
        .collect();
    Evaluation {
        threshold: Some(options.threshold),
        metrics: BTreeMap::from([
            (Metric::Auc, binary.roc_auc()),
            (Metric::PrAuc, binary.average_precision()),
            (Metric::Accuracy, confusion.accuracy()),
            (Metric::BalancedAccuracy, confusion.balanced_accuracy()),
            (Metric::Precision, confusion.precision()),
            (Metric::Recall, confusion.true_positive_rate()),
            (Metric::F1, confusion.f1()),
            (Metric::LogLoss, Some(binary.log_loss())),
            (Metric::Brier, Some(binary.brier())),
            (Metric::Ece, calibration.expected_calibration_error),
            (Metric::SelectionRate, confusion.selection_rate()),
            (Metric::BaseRate, confusion.base_rate()),
        ]),
        confusion: Some(ConfusionMatrix {
            classes: classes.clone(),
            counts: vec![
                vec![confusion.true_negatives, confusion.false_positives],
                vec![confusion.false_negatives, confusion.true_positives],
            ],
        }),
        roc: binary.roc_curve(options.curve_points),
        calibration: Some(calibration),
        classes,
        ..Evaluation::empty(EvaluatedTask::BinaryClassification, binary.positive().len())
    }
}

fn of_multiclass(multiclass: &Multiclass<'_>, options: &EvaluateOptions) -> Evaluation {
    let counts = multiclass.confusion();
    let outcomes = multiclass.one_versus_rest();
    let calibration = multiclass.calibration(options.calibration_bins);
    let right: u64 = (0..counts.len()).map(|class| counts[class][class]).sum();
    let rows = multiclass.truth().len();
    // Classes that neither occur nor are predicted say nothing.
    let seen: Vec<&Confusion> = outcomes
        .iter()
        .filter(|of| of.positives() + of.selected() > 0)
        .collect();
    // As scikit-learn does with `zero_division=0`: a class that was never predicted counts as 0.
    let macro_mean = |score: fn(&Confusion) -> Option<f64>| {
        let sum: f64 = seen.iter().map(|of| score(of).unwrap_or(0.0)).sum();
        super::ratio(sum, seen.len() as f64)
    };
    let recalls: Vec<f64> = outcomes
        .iter()
        .filter_map(Confusion::true_positive_rate)
        .collect();
    Evaluation {
        classes: multiclass.classes().to_vec(),
        metrics: BTreeMap::from([
            (Metric::Auc, multiclass.macro_auc()),
            (Metric::Accuracy, super::ratio(right as f64, rows as f64)),
            (
                Metric::BalancedAccuracy,
                super::ratio(recalls.iter().sum(), recalls.len() as f64),
            ),
            (Metric::Precision, macro_mean(Confusion::precision)),
            (Metric::Recall, macro_mean(Confusion::true_positive_rate)),
            (Metric::F1, macro_mean(Confusion::f1)),
            (Metric::LogLoss, Some(multiclass.log_loss())),
            (Metric::Brier, Some(multiclass.brier())),
            (Metric::Ece, calibration.expected_calibration_error),
        ]),
        confusion: Some(ConfusionMatrix {
            classes: multiclass.classes().to_vec(),
            counts,
        }),
        calibration: Some(calibration),
        per_class: outcomes
            .iter()
            .zip(multiclass.classes())
            .enumerate()
            .map(|(index, (of, class))| ClassScores {
                class: class.clone(),
                rows: of.positives(),
                precision: of.precision(),
                recall: of.true_positive_rate(),
                f1: of.f1(),
                auc: multiclass.class_auc(index),
            })
            .collect(),
        ..Evaluation::empty(EvaluatedTask::MulticlassClassification, rows)
    }
}

fn of_regression(regression: &Regression<'_>) -> Evaluation {
    Evaluation {
        metrics: BTreeMap::from([
            (Metric::Mae, Some(regression.mean_absolute_error())),
            (Metric::Rmse, Some(regression.root_mean_squared_error())),
            (Metric::R2, regression.r_squared()),
        ]),
        ..Evaluation::empty(EvaluatedTask::Regression, regression.truth().len())
    }
}

/// Bins of a histogram of scores, beside the one for the highest.
const SCORE_BINS: usize = 40;

/// The most clusters that are listed.
const CLUSTERS: usize = 1000;

fn of_anomaly(anomaly: &Anomaly<'_>, options: &EvaluateOptions) -> Evaluation {
    let threshold = anomaly.threshold(options.share);
    let confusion = anomaly.confusion(threshold);
    let mut metrics = BTreeMap::from([
        (Metric::ScoreP50, Some(anomaly.quantile(0.5))),
        (Metric::ScoreP90, Some(anomaly.quantile(0.9))),
        (Metric::ScoreP99, Some(anomaly.quantile(0.99))),
        (Metric::ScoreMax, Some(anomaly.quantile(1.0))),
    ]);
    if let Some(confusion) = &confusion {
        metrics.extend([
            (Metric::Auc, anomaly.roc_auc()),
            (Metric::PrAuc, anomaly.average_precision()),
            (Metric::PrecisionAtShare, confusion.precision()),
            (Metric::RecallAtShare, confusion.true_positive_rate()),
            (Metric::BaseRate, confusion.base_rate()),
        ]);
    }
    let classes: Vec<String> = anomaly
        .classes()
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    Evaluation {
        threshold: Some(threshold),
        metrics,
        confusion: confusion.map(|confusion| ConfusionMatrix {
            classes: classes.clone(),
            counts: vec![
                vec![confusion.true_negatives, confusion.false_positives],
                vec![confusion.false_negatives, confusion.true_positives],
            ],
        }),
        roc: anomaly.positive().map_or_else(Vec::new, |positive| {
            super::roc_curve(positive, anomaly.score(), options.curve_points)
        }),
        scores: anomaly.histogram(SCORE_BINS),
        classes,
        ..Evaluation::empty(EvaluatedTask::AnomalyDetection, anomaly.score().len())
    }
}

fn of_clustering(clustering: &Clustering<'_>) -> Evaluation {
    let mut sizes = clustering.sizes();
    let rows = clustering.rows();
    let share = |size: Option<&ClusterSize>| super::ratio(size?.rows as f64, rows as f64);
    let metrics = BTreeMap::from([
        (Metric::Inertia, clustering.inertia()),
        (Metric::Silhouette, clustering.silhouette()),
        (Metric::Clusters, Some(sizes.len() as f64)),
        (Metric::SmallestClusterShare, share(sizes.last())),
        (Metric::LargestClusterShare, share(sizes.first())),
    ]);
    sizes.truncate(CLUSTERS);
    Evaluation {
        metrics,
        clusters: sizes,
        ..Evaluation::empty(EvaluatedTask::Clustering, rows)
    }
}

fn of_text(text: &Text<'_>) -> Evaluation {
    Evaluation {
        metrics: BTreeMap::from([
            (Metric::NatsPerToken, text.nats_per_token()),
            (Metric::Perplexity, text.perplexity()),
            (Metric::NatsPerCharacter, text.nats_per_character()),
            (Metric::BitsPerByte, text.bits_per_byte()),
        ]),
        ..Evaluation::empty(EvaluatedTask::TextGeneration, text.rows())
    }
}
