use super::binary::Confusion;
use super::calibration::Calibration;
use super::ranking::roc_auc;
use super::{MetricsError, check_length, check_probabilities};

/// Rows of a classification with several classes: the index of the true class, and a probability
/// for each class, row after row.
#[derive(Debug, Clone, Copy)]
pub struct Multiclass<'a> {
    classes: &'a [String],
    truth: &'a [u32],
    probabilities: &'a [f64],
}

impl<'a> Multiclass<'a> {
    /// Takes the names of the classes, the truth (an index into them a row) and the predictions
    /// (`rows x classes`, row-major).
    ///
    /// # Errors
    /// No rows, wrong lengths, a class that is none, or a probability outside `[0, 1]`.
    pub fn new(
        classes: &'a [String],
        truth: &'a [u32],
        probabilities: &'a [f64],
    ) -> Result<Self, MetricsError> {
        if truth.is_empty() || classes.is_empty() {
            return Err(MetricsError::NoRows);
        }
        check_length(
            "the prediction",
            probabilities.len(),
            truth.len() * classes.len(),
        )?;
        if let Some(row) = truth
            .iter()
            .position(|&class| class as usize >= classes.len())
        {
            let (index, classes) = (truth[row], classes.len());
            return Err(MetricsError::Class {
                row,
                index,
                classes,
            });
        }
        check_probabilities(probabilities, classes.len())?;
        Ok(Self {
            classes,
            truth,
            probabilities,
        })
    }

    /// The names of the classes.
    pub fn classes(&self) -> &'a [String] {
        self.classes
    }

    /// The index of the true class of each row.
    pub fn truth(&self) -> &'a [u32] {
        self.truth
    }

    /// The index of the most probable class of each row, the first of equals, with its
    /// probability.
    pub fn most_probable(&self) -> impl Iterator<Item = (u32, f64)> + 'a {
        self.probabilities
            .chunks_exact(self.classes.len())
            .map(|row| {
                let mut best = (0, row[0]);
                for (class, &probability) in row.iter().enumerate().skip(1) {
                    if probability > best.1 {
                        best = (class as u32, probability);
                    }
                }
                best
            })
    }

    /// Rows by true class (outer) and most probable class (inner).
    pub fn confusion(&self) -> Vec<Vec<u64>> {
        let mut counts = vec![vec![0; self.classes.len()]; self.classes.len()];
        for (&truth, (predicted, _)) in self.truth.iter().zip(self.most_probable()) {
            counts[truth as usize][predicted as usize] += 1;
        }
        counts
    }

    /// The outcomes of "is it this class" for each class.
    pub fn one_versus_rest(&self) -> Vec<Confusion> {
        let counts = self.confusion();
        let rows = self.truth.len() as u64;
        (0..self.classes.len())
            .map(|class| {
                let true_positives = counts[class][class];
                let positives: u64 = counts[class].iter().sum();
                let selected: u64 = counts.iter().map(|row| row[class]).sum();
                Confusion {
                    true_positives,
                    false_positives: selected - true_positives,
                    false_negatives: positives - true_positives,
                    true_negatives: rows + true_positives - positives - selected,
                }
            })
            .collect()
    }

    /// The AUC of one class against the rest; `None` unless it occurs beside another.
    pub fn class_auc(&self, class: usize) -> Option<f64> {
        let positive: Vec<bool> = self
            .truth
            .iter()
            .map(|&truth| truth as usize == class)
            .collect();
        let scores: Vec<f64> = self
            .probabilities
            .chunks_exact(self.classes.len())
            .map(|row| row[class])
            .collect();
        roc_auc(&positive, &scores, None)
    }

    /// The mean of [`Self::class_auc`] over the classes, unweighted, as scikit-learn's
    /// `roc_auc_score(multi_class="ovr", average="macro")`. `None` unless each class occurs.
    pub fn macro_auc(&self) -> Option<f64> {
        let areas: Option<Vec<f64>> = (0..self.classes.len())
            .map(|class| self.class_auc(class))
            .collect();
        areas.map(|areas| areas.iter().sum::<f64>() / self.classes.len() as f64)
    }

    /// Mean negative log-likelihood of the true class in nats, its probability clipped to
    /// `[eps, 1 - eps]` for the `f64` machine epsilon, as scikit-learn's `log_loss`.
    pub fn log_loss(&self) -> f64 {
        let sum: f64 = self
            .truth
            .iter()
            .zip(self.probabilities.chunks_exact(self.classes.len()))
            .map(|(&truth, row)| {
                -row[truth as usize]
                    .clamp(f64::EPSILON, 1.0 - f64::EPSILON)
                    .ln()
            })
            .sum();
        sum / self.truth.len() as f64
    }

    /// Mean over the rows of the squared distances summed over the classes: Brier's original
    /// score, from 0 to 2.
    pub fn brier(&self) -> f64 {
        let sum: f64 = self
            .truth
            .iter()
            .zip(self.probabilities.chunks_exact(self.classes.len()))
            .map(|(&truth, row)| {
                row.iter()
                    .enumerate()
                    .map(|(class, &probability)| {
                        let came_true = f64::from(u8::from(class == truth as usize));
                        (probability - came_true).powi(2)
                    })
                    .sum::<f64>()
            })
            .sum();
        sum / self.truth.len() as f64
    }

    /// Reliability of the probability of the most probable class (Guo and others, 2017).
    pub fn calibration(&self, bins: usize) -> Calibration {
        let (right, confidence): (Vec<bool>, Vec<f64>) = self
            .truth
            .iter()
            .zip(self.most_probable())
            .map(|(&truth, (predicted, probability))| (truth == predicted, probability))
            .unzip();
        Calibration::new(&right, &confidence, bins)
    }
}
