//! The best split of a node by one column.

use super::bins::Cut;
use super::plan::CategoryPlan;
use crate::cpu::level::Level;
use crate::cpu::trees::{
    BINS, Bounds, Histogram, Sums, Units, Ways, leaf_score, split_score, split_scores,
};
use crate::cpu::walk::Mask;

/// Which bins go left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Side {
    /// Bins 1 to this one, and bin 0 if that is said.
    UpTo { bin: u8, missing_left: bool },
    /// These.
    Of(Mask),
}

impl Side {
    /// Which way each bin goes.
    pub(super) fn ways(&self) -> Ways {
        let mut ways = [0; BINS];
        match self {
            Side::UpTo { bin, missing_left } => {
                ways[0] = u8::from(*missing_left);
                ways[1..=usize::from(*bin)].fill(1);
            }
            Side::Of(mask) => {
                for (bin, way) in ways.iter_mut().enumerate() {
                    *way = (mask[bin / 64] >> (bin % 64) & 1) as u8;
                }
            }
        }
        ways
    }
}

/// A split of a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Split {
    pub(super) gain: f64,
    pub(super) column: usize,
    pub(super) side: Side,
    pub(super) left: Sums,
}

/// What splits of all columns of a node have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search<'a> {
    pub(super) level: Level,
    pub(super) total: Sums,
    pub(super) units: Units,
    pub(super) bounds: Bounds,
    pub(super) min_gain: f64,
    pub(super) categories: &'a CategoryPlan,
}

impl Search<'_> {
    /// The score of the node as a leaf.
    fn parent(&self) -> f64 {
        let hessian = self.units.hessian(self.total);
        leaf_score(self.units.gradient(self.total), hessian, self.bounds)
    }

    /// The best split by a column.
    pub(super) fn best(&self, column: usize, cut: &Cut, histogram: &Histogram) -> Option<Split> {
        let mut best = Best {
            // What rounding alone could make of a split that gains nothing.
            score: self.parent() * (1.0 + 1e-12) + self.min_gain,
            found: None,
        };
        match cut {
            Cut::Numbers(bounds) => self.by_number(histogram, bounds.len(), &mut best),
            Cut::Categories { count, .. } => self.by_category(histogram, *count, &mut best),
        }
        best.found.map(|(side, left)| Split {
            gain: best.score - self.parent(),
            column,
            side,
            left,
        })
    }

    fn by_number(&self, histogram: &Histogram, values: usize, best: &mut Best) {
        let missing = histogram[0];
        let mut left = [[0; 2]; BINS];
        let mut scores = [0.0; BINS];
        let mut sum = [0_i64; 2];
        for (left, bin) in left.iter_mut().zip(&histogram[1..=values]) {
            sum = [sum[0].wrapping_add(bin[0]), sum[1].wrapping_add(bin[1])];
            *left = sum;
        }
        let any_missing = self.units.rows(missing) > 0;
        // Where nothing is missing, the last bound splits off nothing.
        let places = if any_missing { values } else { values - 1 };
        let mut try_with = |missing: Sums, places: usize, missing_left: bool| {
            let (left, scores) = (&left[..places], &mut scores[..places]);
            split_scores(
                self.level,
                left,
                missing,
                self.total,
                self.units,
                self.bounds,
                scores,
            );
            for (place, score) in scores.iter().enumerate() {
                if *score > best.score {
                    best.score = *score;
                    let bin = place as u8 + 1;
                    let sums = [
                        left[place][0].wrapping_add(missing[0]),
                        left[place][1].wrapping_add(missing[1]),
                    ];
                    best.found = Some((Side::UpTo { bin, missing_left }, sums));
                }
            }
        };
        try_with([0; 2], places, false);
        if any_missing {
            try_with(missing, values - 1, true);
        } else if let Some((Side::UpTo { missing_left, .. }, left)) = &mut best.found {
            // What was never missing goes where most rows go.
            *missing_left = 2 * self.units.rows(*left) >= self.units.rows(self.total);
        }
    }

    fn by_category(&self, histogram: &Histogram, count: usize, best: &mut Best) {
        let rows = |bin: &usize| self.units.rows(histogram[*bin]);
        let present: Vec<usize> = (0..=count).filter(|bin| rows(bin) > 0).collect();
        if present.len() < 2 {
            return;
        }
        if present.len() <= self.categories.one_vs_rest as usize {
            for bin in present {
                let score = split_score(histogram[bin], self.total, self.units, self.bounds);
                best.offer(score, mask_of(&[bin]), histogram[bin]);
            }
            return;
        }
        let smoothing = f64::from(self.categories.smoothing);
        let mut ordered: Vec<(f64, usize)> = present
            .into_iter()
            .filter(|bin| rows(bin) as f64 >= smoothing)
            .map(|bin| {
                let sums = histogram[bin];
                let order = self.units.gradient(sums) / (self.units.hessian(sums) + smoothing);
                (order, bin)
            })
            .collect();
        ordered.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let min_rows = self
            .bounds
            .min_rows
            .max(i64::from(self.categories.min_rows));
        let bounds = Bounds {
            l2: self.bounds.l2 + f64::from(self.categories.l2),
            ..self.bounds
        };
        let most = (self.categories.most as usize).min(ordered.len().div_ceil(2));
        let mut try_in = |bins: &mut dyn Iterator<Item = usize>| {
            let mut left = [0_i64; 2];
            let mut group = 0;
            let mut mask = [0; 4];
            for bin in bins.take(most) {
                let sums = histogram[bin];
                left = [left[0].wrapping_add(sums[0]), left[1].wrapping_add(sums[1])];
                mask[bin / 64] |= 1_u64 << (bin % 64);
                group += self.units.rows(sums);
                if self.units.rows(self.total) - self.units.rows(left) < min_rows {
                    return;
                }
                if group >= min_rows {
                    group = 0;
                    let score = split_score(left, self.total, self.units, bounds);
                    best.offer(score, mask, left);
                }
            }
        };
        try_in(&mut ordered.iter().map(|(_, bin)| *bin));
        try_in(&mut ordered.iter().rev().map(|(_, bin)| *bin));
    }
}

fn mask_of(bins: &[usize]) -> Mask {
    let mut mask = [0; 4];
    for bin in bins {
        mask[bin / 64] |= 1 << (bin % 64);
    }
    mask
}

/// The best so far, and the score to beat.
struct Best {
    score: f64,
    found: Option<(Side, Sums)>,
}

impl Best {
    fn offer(&mut self, score: f64, mask: Mask, left: Sums) {
        if score > self.score {
            self.score = score;
            self.found = Some((Side::Of(mask), left));
        }
    }
}
