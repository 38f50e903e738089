//! Metrics that only look at the order in which scores put rows.

use serde::{Deserialize, Serialize};

use super::ratio;

/// The probability that a positive row scores higher than a negative one, ties counting half:
/// the Mann-Whitney U statistic over its maximum (J. A. Hanley and B. J. McNeil, "The meaning and
/// use of the area under a receiver operating characteristic curve", 1982). With weights, every
/// pair counts with the product of its weights, as scikit-learn's `roc_auc_score`.
///
/// `None` unless both classes occur with a positive weight. Scores must be numbers; the slices
/// must be of one length.
pub fn roc_auc(positive: &[bool], scores: &[f64], weights: Option<&[f64]>) -> Option<f64> {
    let mut pairs = 0.0;
    let (mut negatives_below, mut positives_total) = (0.0, 0.0);
    for tie in ascending_ties(positive, scores, weights) {
        pairs += tie.positives * (negatives_below + tie.negatives / 2.0);
        negatives_below += tie.negatives;
        positives_total += tie.positives;
    }
    ratio(pairs, positives_total * negatives_below)
}

/// Average precision, `sum_n (R_n - R_(n-1)) P_n` over the distinct scores from the highest on,
/// without interpolation, as scikit-learn's `average_precision_score`. `None` without positives.
pub fn average_precision(positive: &[bool], scores: &[f64]) -> Option<f64> {
    let (mut sum, mut selected, mut found) = (0.0, 0.0, 0.0);
    for tie in ascending_ties(positive, scores, None).into_iter().rev() {
        selected += tie.positives + tie.negatives;
        found += tie.positives;
        sum += tie.positives * (found / selected);
    }
    ratio(sum, found)
}

/// A point of a ROC curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// Share of the negatives selected at this threshold.
    pub false_positive_rate: f64,
    /// Share of the positives selected at this threshold.
    pub true_positive_rate: f64,
    /// Rows from this score on are selected; `None` for the first point, where no row is.
    pub threshold: Option<f64>,
}

/// The ROC curve from (0, 0) to (1, 1), one point for each distinct score, thinned to at most
/// `points` (no fewer than 2) by equal steps along `FPR + TPR`. Both ends always stay.
/// Empty unless both classes occur.
pub fn roc_curve(positive: &[bool], scores: &[f64], points: usize) -> Vec<RocPoint> {
    let ties = ascending_ties(positive, scores, None);
    let positives: f64 = ties.iter().map(|tie| tie.positives).sum();
    let negatives: f64 = ties.iter().map(|tie| tie.negatives).sum();
    if positives == 0.0 || negatives == 0.0 {
        return Vec::new();
    }
    let mut curve = vec![RocPoint {
        false_positive_rate: 0.0,
        true_positive_rate: 0.0,
        threshold: None,
    }];
    let (mut false_positives, mut true_positives) = (0.0, 0.0);
    for tie in ties.iter().rev() {
        false_positives += tie.negatives;
        true_positives += tie.positives;
        curve.push(RocPoint {
            false_positive_rate: false_positives / negatives,
            true_positive_rate: true_positives / positives,
            threshold: Some(tie.score),
        });
    }
    thin(curve, points.max(2))
}

fn thin(curve: Vec<RocPoint>, points: usize) -> Vec<RocPoint> {
    if curve.len() <= points {
        return curve;
    }
    let last = curve.len() - 1;
    let step = 2.0 / (points - 1) as f64;
    let (mut next, mut kept) = (0.0, 0);
    curve
        .into_iter()
        .enumerate()
        .filter(|(index, point)| {
            let way = point.false_positive_rate + point.true_positive_rate;
            // The place before the last is kept free for the end of the curve.
            // Sums of rates are off by a little, so places are counted too.
            let fits = kept + 1 < points && way >= next && way < 2.0 - step / 2.0;
            let keep = *index == last || fits;
            kept += usize::from(keep);
            if keep {
                next = ((way / step).floor() + 1.0) * step;
            }
            keep
        })
        .map(|(_, point)| point)
        .collect()
}

/// Rows of the same score, by weight.
struct Tie {
    score: f64,
    positives: f64,
    negatives: f64,
}

fn ascending_ties(positive: &[bool], scores: &[f64], weights: Option<&[f64]>) -> Vec<Tie> {
    debug_assert_eq!(positive.len(), scores.len(), "one score a row");
    let mut order: Vec<usize> = (0..positive.len().min(scores.len())).collect();
    // `+ 0.0` makes one zero of the two, which `total_cmp` tells apart.
    order.sort_unstable_by(|&a, &b| (scores[a] + 0.0).total_cmp(&(scores[b] + 0.0)));
    let mut ties: Vec<Tie> = Vec::new();
    for row in order {
        let weight = weights.map_or(1.0, |weights| weights[row]);
        let (positives, negatives) = if positive[row] {
            (weight, 0.0)
        } else {
            (0.0, weight)
        };
        match ties.last_mut() {
            Some(tie) if tie.score == scores[row] => {
                tie.positives += positives;
                tie.negatives += negatives;
            }
            _ => ties.push(Tie {
                score: scores[row],
                positives,
                negatives,
            }),
        }
    }
    ties
}
