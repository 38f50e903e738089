use super::{MetricsError, check_finite, check_length, ratio};

/// Rows of a regression: what was true and what was predicted, in the target's unit.
#[derive(Debug, Clone, Copy)]
pub struct Regression<'a> {
    truth: &'a [f64],
    prediction: &'a [f64],
}

impl<'a> Regression<'a> {
    /// Takes the truth and the predictions.
    ///
    /// # Errors
    /// No rows, different lengths, or a number that is not finite.
    pub fn new(truth: &'a [f64], prediction: &'a [f64]) -> Result<Self, MetricsError> {
        if truth.is_empty() {
            return Err(MetricsError::NoRows);
        }
        check_length("the prediction", prediction.len(), truth.len())?;
        check_finite("the target", truth)?;
        check_finite("the prediction", prediction)?;
        Ok(Self { truth, prediction })
    }

    /// What was true.
    pub fn truth(&self) -> &'a [f64] {
        self.truth
    }

    /// What was predicted.
    pub fn prediction(&self) -> &'a [f64] {
        self.prediction
    }

    /// Mean absolute error, in the target's unit.
    pub fn mean_absolute_error(&self) -> f64 {
        self.mean(|truth, prediction| (prediction - truth).abs())
    }

    /// Root of the mean squared error, in the target's unit.
    pub fn root_mean_squared_error(&self) -> f64 {
        self.mean(|truth, prediction| (prediction - truth).powi(2))
            .sqrt()
    }

    /// Coefficient of determination, `1 - residual sum of squares / total sum of squares`.
    /// `None` where the truth does not vary.
    pub fn r_squared(&self) -> Option<f64> {
        let mean = self.truth.iter().sum::<f64>() / self.truth.len() as f64;
        let total: f64 = self.truth.iter().map(|truth| (truth - mean).powi(2)).sum();
        let residual =
            self.mean(|truth, prediction| (prediction - truth).powi(2)) * self.truth.len() as f64;
        ratio(residual, total).map(|share| 1.0 - share)
    }

    fn mean(&self, of: impl Fn(f64, f64) -> f64) -> f64 {
        let sum: f64 = self
            .truth
            .iter()
            .zip(self.prediction)
            .map(|(&truth, &prediction)| of(truth, prediction))
            .sum();
        sum / self.truth.len() as f64
    }
}
