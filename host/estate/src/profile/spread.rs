use super::{Histogram, Numbers};

/// Values kept for quantiles.
const SAMPLE: usize = 16_384;
/// Bins of a histogram.
const BINS: usize = 20;
/// The probabilities whose quantiles are given.
const PROBABILITIES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

/// How numbers are spread: mean and variance by Welford 1962, quantiles from a reservoir
/// (Vitter 1985, algorithm R) whose draws are a function of the place of a value.
pub(super) struct Spread {
    count: u64,
    not_finite: u64,
    mean: f64,
    squares: f64,
    sample: Vec<f64>,
}

impl Spread {
    pub(super) fn new() -> Self {
        Self {
            count: 0,
            not_finite: 0,
            mean: 0.0,
            squares: 0.0,
            sample: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.not_finite += 1;
            return;
        }
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
        if self.sample.len() < SAMPLE {
            self.sample.push(value);
        } else if let Ok(place) = usize::try_from(split_mix(self.count) % self.count)
            && place < SAMPLE
        {
            self.sample[place] = value;
        }
    }

    pub(super) fn finish(mut self) -> Numbers {
        self.sample.sort_unstable_by(f64::total_cmp);
        let quantiles = match self.sample.is_empty() {
            true => Vec::new(),
            false => PROBABILITIES
                .iter()
                .map(|p| (*p, quantile(&self.sample, *p)))
                .collect(),
        };
        let std = if self.count > 1 {
            (self.squares / (self.count - 1) as f64).sqrt()
        } else {
            0.0
        };
        Numbers {
            mean: self.mean,
            std,
            quantiles,
            quantiles_exact: self.count <= SAMPLE as u64,
            not_finite: self.not_finite,
        }
    }
}

/// The quantile of sorted values, interpolated (Hyndman and Fan 1996, definition 7).
fn quantile(sorted: &[f64], probability: f64) -> f64 {
    let place = probability * (sorted.len() - 1) as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    below + (above - below) * place.fract()
}

/// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
fn split_mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Counts into bins of equal width, between bounds that are known beforehand.
pub(super) struct Bins {
    low: f64,
    high: f64,
    counts: Vec<u64>,
}

impl Bins {
    /// Bins from the least to the greatest value; none if they are infinite.
    pub(super) fn new((low, high): (f64, f64)) -> Option<Self> {
        let counts = vec![0; if low < high { BINS } else { 1 }];
        (high - low)
            .is_finite()
            .then_some(Self { low, high, counts })
    }

    pub(super) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let width = self.high - self.low;
        let share = if width > 0.0 {
            (value - self.low) / width
        } else {
            0.0
        };
        let bin = (share * self.counts.len() as f64) as usize;
        let last = self.counts.len() - 1;
        self.counts[bin.min(last)] += 1;
    }

    /// The histogram, with edges in units of `unit`.
    pub(super) fn finish(self, unit: f64) -> Histogram {
        let bins = self.counts.len() as f64;
        let step = (self.high - self.low) / bins;
        let mut edges: Vec<f64> = (0..self.counts.len())
            .map(|bin| (self.low + step * bin as f64) / unit)
            .collect();
        edges.push(self.high / unit);
        Histogram {
            edges,
            counts: self.counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_numbers_are_described_exactly() {
        let mut spread = Spread::new();
        for value in [4.0, 1.0, 3.0, 2.0, f64::NAN] {
            spread.add(value);
        }
        let numbers = spread.finish();
        assert_eq!(
            (numbers.mean, numbers.not_finite, numbers.quantiles_exact),
            (2.5, 1, true)
        );
        assert!((numbers.std - 1.290_994_448_735_805_6).abs() < 1e-12);
        assert!(
            numbers.quantiles.contains(&(0.5, 2.5)) && numbers.quantiles.contains(&(0.25, 1.75))
        );
    }

    #[test]
    fn many_numbers_are_sampled_fairly_and_always_the_same_way() {
        let describe = || {
            let mut spread = Spread::new();
            for value in 0..300_000 {
                spread.add(f64::from(value));
            }
            spread.finish()
        };
        let numbers = describe();
        assert_eq!(numbers, describe());
        assert!(!numbers.quantiles_exact);
        for (probability, value) in numbers.quantiles {
            let rank = value / 300_000.0;
            assert!(
                (rank - probability).abs() < 0.015,
                "the {probability} quantile has rank {rank}"
            );
        }
    }

    #[test]
    fn every_value_falls_into_a_bin() {
        let mut bins = Bins::new((-10.0, 10.0)).expect("finite");
        for value in -100..=100 {
            bins.add(f64::from(value) / 10.0);
        }
        let histogram = bins.finish(1.0);
        assert_eq!(
            (histogram.counts.len(), histogram.counts.iter().sum::<u64>()),
            (BINS, 201)
        );
        assert_eq!((histogram.edges[0], histogram.edges[BINS]), (-10.0, 10.0));
        assert!(Bins::new((f64::NEG_INFINITY, 0.0)).is_none());
        assert_eq!(
            Bins::new((3.0, 3.0)).map(|bins| bins.finish(1.0).edges),
            Some(vec![3.0, 3.0])
        );
    }
}
