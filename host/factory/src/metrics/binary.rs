use super::calibration::Calibration;
use super::ranking::{RocPoint, average_precision, roc_auc, roc_curve};
use super::{MetricsError, check_length, check_probabilities, ratio};

/// Rows of a binary classification: what was true, and the probability the model gave to the
/// positive class.
#[derive(Debug, Clone, Copy)]
pub struct Binary<'a> {
    classes: [&'a str; 2],
    positive: &'a [bool],
    probability: &'a [f64],
}

impl<'a> Binary<'a> {
    /// Takes the names of the negative and the positive class, the truth and the predictions.
    ///
    /// # Errors
    /// No rows, different lengths, or a probability outside `[0, 1]`.
    pub fn new(
        classes: [&'a str; 2],
        positive: &'a [bool],
        probability: &'a [f64],
    ) -> Result<Self, MetricsError> {
        if positive.is_empty() {
            return Err(MetricsError::NoRows);
        }
        check_length("the prediction", probability.len(), positive.len())?;
        check_probabilities(probability, 1)?;
        Ok(Self {
            classes,
            positive,
            probability,
        })
    }

    /// The names of the negative and of the positive class.
    pub fn classes(&self) -> [&'a str; 2] {
        self.classes
    }

    /// Which rows are positive in truth.
    pub fn positive(&self) -> &'a [bool] {
        self.positive
    }

    /// The probability of the positive class of each row.
    pub fn probability(&self) -> &'a [f64] {
        self.probability
    }

    /// Counts the four outcomes of saying "positive" from this probability on.
    pub fn confusion(&self, threshold: f64) -> Confusion {
        let mut confusion = Confusion::default();
        for (&positive, &probability) in self.positive.iter().zip(self.probability) {
            confusion.count(positive, probability >= threshold);
        }
        confusion
    }

    /// Area under the receiver operating characteristic; see [`roc_auc`].
    pub fn roc_auc(&self) -> Option<f64> {
        roc_auc(self.positive, self.probability, None)
    }

    /// Area under precision over recall as a step function; see [`average_precision`].
    pub fn average_precision(&self) -> Option<f64> {
        average_precision(self.positive, self.probability)
    }

    /// The ROC curve in at most `points` points; see [`roc_curve`].
    pub fn roc_curve(&self, points: usize) -> Vec<RocPoint> {
        roc_curve(self.positive, self.probability, points)
    }

    /// Mean negative log-likelihood in nats, `-mean(y ln p + (1 - y) ln(1 - p))`, with `p`
    /// clipped to `[eps, 1 - eps]` for the `f64` machine epsilon, as scikit-learn's `log_loss`.
    pub fn log_loss(&self) -> f64 {
        let sum: f64 = self
            .positive
            .iter()
            .zip(self.probability)
            .map(|(&positive, &probability)| {
                let clipped = probability.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
                if positive {
                    -clipped.ln()
                } else {
                    -(-clipped).ln_1p()
                }
            })
            .sum();
        sum / self.positive.len() as f64
    }

    /// Mean squared distance of the probability from the truth (G. W. Brier, "Verification of
    /// forecasts expressed in terms of probability", 1950, for two classes counted once), as
    /// scikit-learn's `brier_score_loss`.
    pub fn brier(&self) -> f64 {
        let sum: f64 = self
            .positive
            .iter()
            .zip(self.probability)
            .map(|(&positive, &probability)| {
                let distance = probability - f64::from(u8::from(positive));
                distance * distance
            })
            .sum();
        sum / self.positive.len() as f64
    }

    /// Reliability of the probability of the positive class in bins of equal width.
    pub fn calibration(&self, bins: usize) -> Calibration {
        Calibration::new(self.positive, self.probability, bins)
    }
}

/// The four outcomes of a binary decision, in rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Positive, and said so.
    pub true_positives: u64,
    /// Negative, but said positive.
    pub false_positives: u64,
    /// Negative, and said so.
    pub true_negatives: u64,
    /// Positive, but said negative.
    pub false_negatives: u64,
}

impl Confusion {
    /// Counts one row.
    pub fn count(&mut self, positive: bool, selected: bool) {
        match (positive, selected) {
            (true, true) => self.true_positives += 1,
            (false, true) => self.false_positives += 1,
            (false, false) => self.true_negatives += 1,
            (true, false) => self.false_negatives += 1,
        }
    }

    /// All rows.
    pub fn rows(&self) -> u64 {
        self.positives() + self.true_negatives + self.false_positives
    }

    /// Rows that are positive in truth.
    pub fn positives(&self) -> u64 {
        self.true_positives + self.false_negatives
    }

    /// Rows that were said to be positive.
    pub fn selected(&self) -> u64 {
        self.true_positives + self.false_positives
    }

    /// `(TP + TN) / rows`.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.true_positives + self.true_negatives, self.rows())
    }

    /// Mean of the two recalls, `(TPR + TNR) / 2`; `None` unless both classes occur.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        Some((self.true_positive_rate()? + 1.0 - self.false_positive_rate()?) / 2.0)
    }

    /// `TP / (TP + FP)`.
    pub fn precision(&self) -> Option<f64> {
        share(self.true_positives, self.selected())
    }

    /// `TP / (TP + FN)`, also called recall.
    pub fn true_positive_rate(&self) -> Option<f64> {
        share(self.true_positives, self.positives())
    }

    /// `FP / (FP + TN)`.
    pub fn false_positive_rate(&self) -> Option<f64> {
        share(
            self.false_positives,
            self.false_positives + self.true_negatives,
        )
    }

    /// Harmonic mean of precision and recall, `2 TP / (2 TP + FP + FN)`.
    pub fn f1(&self) -> Option<f64> {
        let twice = 2 * self.true_positives;
        share(twice, twice + self.false_positives + self.false_negatives)
    }

    /// `(TP + FP) / rows`: the share of rows that were said to be positive.
    pub fn selection_rate(&self) -> Option<f64> {
        share(self.selected(), self.rows())
    }

    /// `(TP + FN) / rows`: the share of rows that are positive in truth.
    pub fn base_rate(&self) -> Option<f64> {
        share(self.positives(), self.rows())
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    ratio(part as f64, whole as f64)
}
