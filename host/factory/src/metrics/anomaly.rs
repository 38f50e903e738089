use serde::{Deserialize, Serialize};

use super::binary::Confusion;
use super::{MetricsError, check_finite, check_length, ranking};

/// Rows of an anomaly detection: how unusual each is said to be, and which are anomalies, if that
/// is known.
#[derive(Debug, Clone, Copy)]
pub struct Anomaly<'a> {
    score: &'a [f64],
    truth: Option<Truth<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct Truth<'a> {
    classes: [&'a str; 2],
    positive: &'a [bool],
}

/// How many rows have a score in a range.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreBin {
    /// The least score.
    pub from: f64,
    /// The next bin begins here; the last bin has the largest score.
    pub to: f64,
    /// Rows in it.
    pub rows: u64,
    /// How many of them are anomalies in truth, if that is known.
    pub positives: Option<u64>,
}

/// Scores above this share of the rows are put into one bin, so that a few that are far out do not
/// take all the room.
const TAIL_FROM: f64 = 0.99;

impl<'a> Anomaly<'a> {
    /// Takes the scores; larger means more unusual.
    ///
    /// # Errors
    /// No rows, or a score that is not finite.
    pub fn new(score: &'a [f64]) -> Result<Self, MetricsError> {
        if score.is_empty() {
            return Err(MetricsError::NoRows);
        }
        check_finite("the score", score)?;
        Ok(Self { score, truth: None })
    }

    /// Adds which rows are anomalies. `classes` names what is usual and what is not.
    ///
    /// # Errors
    /// Another length than there are scores.
    pub fn labelled(
        self,
        classes: [&'a str; 2],
        positive: &'a [bool],
    ) -> Result<Self, MetricsError> {
        check_length("the truth", positive.len(), self.score.len())?;
        let truth = Some(Truth { classes, positive });
        Ok(Self { truth, ..self })
    }

    /// The scores.
    pub fn score(&self) -> &'a [f64] {
        self.score
    }

    /// Which rows are anomalies, if that is known.
    pub fn positive(&self) -> Option<&'a [bool]> {
        self.truth.map(|truth| truth.positive)
    }

    /// The names of what is usual and what is not, if labels are known.
    pub fn classes(&self) -> Option<[&'a str; 2]> {
        self.truth.map(|truth| truth.classes)
    }

    /// The score from which on a row is among this share of the rows, at least one. Rows of the
    /// same score stay together, so that the share can be larger than was asked for.
    pub fn threshold(&self, share: f64) -> f64 {
        let rows = self.score.len();
        let wanted = ((share * rows as f64).round() as usize).clamp(1, rows);
        let sorted = self.sorted();
        sorted.get(rows - wanted).copied().unwrap_or_default()
    }

    /// Rows by truth and by whether their score reaches a threshold, if truth is known.
    pub fn confusion(&self, threshold: f64) -> Option<Confusion> {
        let mut confusion = Confusion::default();
        for (score, positive) in self.score.iter().zip(self.positive()?) {
            confusion.count(*positive, *score >= threshold);
        }
        Some(confusion)
    }

    /// See [`ranking::roc_auc`].
    pub fn roc_auc(&self) -> Option<f64> {
        ranking::roc_auc(self.positive()?, self.score, None)
    }

    /// See [`ranking::average_precision`].
    pub fn average_precision(&self) -> Option<f64> {
        ranking::average_precision(self.positive()?, self.score)
    }

    /// The score that this share of the rows does not exceed, linear between neighbours (type 7 of
    /// Hyndman and Fan, "Sample quantiles in statistical packages", 1996).
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(&self.sorted(), share)
    }

    /// Rows by score: `bins` of equal width up to the score that 99 of 100 rows do not exceed, and
    /// one for all above.
    pub fn histogram(&self, bins: usize) -> Vec<ScoreBin> {
        let sorted = self.sorted();
        let least = sorted.first().copied().unwrap_or_default();
        let most = sorted.last().copied().unwrap_or_default();
        let mut tail = quantile(&sorted, TAIL_FROM);
        let width = |tail: f64| (tail - least) / bins.max(1) as f64;
        if !(width(tail).is_finite() && width(tail) > 0.0) {
            tail = most;
        }
        let width = width(tail);
        let even = width.is_finite() && width > 0.0;
        let edge = |bin: usize| least + bin as f64 * width;
        let mut found: Vec<ScoreBin> = match even {
            true => (0..bins.max(1))
                .map(|bin| (edge(bin), edge(bin + 1)))
                .collect(),
            false => vec![(least, most)],
        }
        .into_iter()
        .chain((even && most > tail).then_some((tail, most)))
        .map(|(from, to)| ScoreBin {
            from,
            to,
            rows: 0,
            positives: self.truth.map(|_| 0),
        })
        .collect();
        let last = found.len() - 1;
        for (row, score) in self.score.iter().enumerate() {
            let bin = match even {
                true if *score > tail => last,
                true => (((score - least) / width) as usize).min(bins.max(1) - 1),
                false => 0,
            };
            let bin = &mut found[bin];
            bin.rows += 1;
            if let (Some(positives), Some(truth)) = (&mut bin.positives, self.truth) {
                *positives += u64::from(truth.positive[row]);
            }
        }
        found
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.score.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
    }
}

fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    let part = place - below as f64;
    // Not by their difference, which numbers far apart do not have.
    low * (1.0 - part) + high * part
}

#[cfg(test)]
mod tests {
    use super::super::{EvaluateOptions, Metric, Outcomes, SliceColumn, evaluate};
    use super::*;

    fn rows() -> (Vec<f64>, Vec<bool>) {
        let score = |row: usize| ((row * row * 7 + 3 * row) % 41) as f64 / 4.0;
        let scores: Vec<f64> = (0..40).map(score).collect();
        let positive =
            |row: usize| (row * 5).is_multiple_of(9) || scores[row] > 9.0 && row.is_multiple_of(2);
        let positives = (0..40).map(positive).collect();
        (scores, positives)
    }

    #[track_caller]
    fn close(found: Option<f64>, expected: f64) {
        let found = found.expect("a number");
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }

    #[test]
    fn the_metrics_are_those_of_scikit_learn_and_numpy() {
        let (scores, positive) = rows();
        let anomaly = Anomaly::new(&scores)
            .and_then(|it| it.labelled(["ok", "fault"], &positive))
            .expect("valid rows");
        let options = EvaluateOptions {
            share: 0.2,
            ..EvaluateOptions::default()
        };
        let group = |row: usize| Some(if row < 20 { "early" } else { "late" });
        let column = SliceColumn::new("when", (0..40).map(group)).expect("two groups");
        let judged = evaluate(&Outcomes::Anomaly(anomaly), &[column], &options);
        let judged = judged.expect("an evaluation");
        close(judged.metric(Metric::Auc), 0.568_627_450_980_392_1);
        close(judged.metric(Metric::PrAuc), 0.447_123_015_873_015_84);
        close(judged.metric(Metric::PrecisionAtShare), 0.25);
        close(judged.metric(Metric::RecallAtShare), 1.0 / 3.0);
        close(judged.metric(Metric::ScoreP50), 5.375);
        close(judged.metric(Metric::ScoreP90), 8.775);
        close(judged.metric(Metric::ScoreP99), 9.25);
        assert_eq!(judged.threshold, Some(8.5));
        assert_eq!(judged.classes, ["ok", "fault"]);
        let rows: u64 = judged.scores.iter().map(|bin| bin.rows).sum();
        let positives: u64 = judged.scores.iter().filter_map(|bin| bin.positives).sum();
        assert_eq!((rows, positives), (40, 6));
        let rates = &judged.slices["when"].groups;
        assert!(rates.iter().all(|group| group.selection_rate.is_some()));
        // What is kept is read back as it was.
        let json = serde_json::to_string(&judged).expect("JSON");
        assert_eq!(
            serde_json::from_str::<super::super::Evaluation>(&json).ok(),
            Some(judged)
        );
    }

    #[test]
    fn without_labels_nothing_is_right_or_wrong() {
        let (scores, _) = rows();
        let anomaly = Anomaly::new(&scores).expect("valid rows");
        let judged = evaluate(
            &Outcomes::Anomaly(anomaly),
            &[],
            &EvaluateOptions::default(),
        );
        let judged = judged.expect("an evaluation");
        assert_eq!(judged.metrics.len(), 4);
        assert!(judged.confusion.is_none() && judged.roc.is_empty());
        assert!(judged.scores.iter().all(|bin| bin.positives.is_none()));
    }

    #[test]
    fn a_few_scores_far_out_have_a_bin_of_their_own() {
        let scores: Vec<f64> = (0..1000)
            .map(|row| if row < 995 { f64::from(row) } else { 1e6 })
            .collect();
        let bins = Anomaly::new(&scores).expect("valid rows").histogram(10);
        assert_eq!(bins.len(), 11);
        assert!(
            bins[..10].iter().all(|bin| (98..=100).contains(&bin.rows)),
            "{bins:?}"
        );
        assert_eq!(bins[10].to, 1e6);
        assert_eq!(bins.iter().map(|bin| bin.rows).sum::<u64>(), 1000);
    }

    #[test]
    fn odd_scores_do_no_harm() {
        for scores in [
            vec![1.0],
            vec![2.0; 50],
            vec![f64::MAX, f64::MIN, 0.0],
            vec![-0.0, 0.0],
        ] {
            let anomaly = Anomaly::new(&scores).expect("finite scores");
            let rows: u64 = anomaly.histogram(8).iter().map(|bin| bin.rows).sum();
            assert_eq!(rows, scores.len() as u64, "{scores:?}");
            assert!(anomaly.quantile(0.3).is_finite());
            assert!(scores.iter().any(|score| *score >= anomaly.threshold(0.01)));
        }
        assert!(Anomaly::new(&[]).is_err());
        assert!(Anomaly::new(&[f64::NAN]).is_err());
    }
}
