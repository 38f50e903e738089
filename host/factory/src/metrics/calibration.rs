use serde::{Deserialize, Serialize};

use super::ratio;

/// How far probabilities can be taken at their word, in bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The reliability curve, from probability 0 to 1. Bins without rows are there too.
    pub bins: Vec<CalibrationBin>,
    /// Expected calibration error: the distance between the mean probability and the observed
    /// share, averaged over the rows (M. P. Naeini, G. Cooper and M. Hauskrecht, "Obtaining well
    /// calibrated probabilities using Bayesian binning", 2015; C. Guo and others, "On calibration
    /// of modern neural networks", 2017).
    pub expected_calibration_error: Option<f64>,
    /// The largest such distance of any bin that has rows.
    pub maximum_calibration_error: Option<f64>,
}

/// The rows whose probability lies in `(lower, upper]`; the first bin also takes 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CalibrationBin {
    /// Where the bin begins.
    pub lower: f64,
    /// Where the bin ends.
    pub upper: f64,
    /// How many rows lie in it.
    pub rows: u64,
    /// The mean of their probabilities.
    pub mean_probability: Option<f64>,
    /// The share of them for which the event came true.
    pub observed: Option<f64>,
}

impl Calibration {
    /// Compares probabilities with whether the event came true, in `bins` (at least 1) bins.
    /// The bins are those of scikit-learn's `calibration_curve` with `strategy="uniform"`.
    pub fn new(came_true: &[bool], probability: &[f64], bins: usize) -> Self {
        #[derive(Clone, Default)]
        struct Sum {
            rows: u64,
            probability: f64,
            came_true: u64,
        }
        let bins = bins.max(1);
        let mut sums = vec![Sum::default(); bins];
        for (&came_true, &probability) in came_true.iter().zip(probability) {
            let bin = ((probability * bins as f64).ceil() as usize)
                .saturating_sub(1)
                .min(bins - 1);
            sums[bin].rows += 1;
            sums[bin].probability += probability;
            sums[bin].came_true += u64::from(came_true);
        }
        let (mut weighted, mut worst) = (0.0, None::<f64>);
        let bins: Vec<CalibrationBin> = sums
            .iter()
            .enumerate()
            .map(|(index, sum)| {
                let rows = sum.rows as f64;
                let mean_probability = ratio(sum.probability, rows);
                let observed = ratio(sum.came_true as f64, rows);
                if let (Some(mean), Some(observed)) = (mean_probability, observed) {
                    let gap = (mean - observed).abs();
                    weighted += rows * gap;
                    worst = Some(worst.map_or(gap, |worst| worst.max(gap)));
                }
                CalibrationBin {
                    lower: index as f64 / bins as f64,
                    upper: (index + 1) as f64 / bins as f64,
                    rows: sum.rows,
                    mean_probability,
                    observed,
                }
            })
            .collect();
        let rows: u64 = bins.iter().map(|bin| bin.rows).sum();
        Self {
            bins,
            expected_calibration_error: ratio(weighted, rows as f64),
            maximum_calibration_error: worst,
        }
    }
}
