//! What is usual, from numbers of which some may be odd.
//!
//! The middle is the median and the spread the median absolute deviation, both of logarithms; how
//! far a value is from the middle is told by the modified z-score of B. Iglewicz and D. Hoaglin (How
//! to Detect and Handle Outliers, 1993), whose threshold of 3.5 is the default. Half of the values
//! would have to be odd to move either of them far (the breakdown point of both is 50 %).
//! Logarithms, because what grows with data grows by factors. A plugin does the same thing over and
//! over, so its spread is often zero; each measure has a least spread instead, which says how large
//! a difference may be that means nothing.

/// Makes a median absolute deviation comparable with a standard deviation (of a normal
/// distribution).
const MAD_TO_DEVIATION: f64 = 1.4826;

/// How a measure is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    /// What is added before the logarithm: differences that are small beside it do not count.
    pub(crate) offset: f64,
    /// The least robust standard deviation, as a factor.
    pub(crate) least_factor: f64,
}

impl Scale {
    /// Calls, instances, requests: 3.5 deviations are four times as many.
    pub(crate) const COUNT: Self = Self::new(4.0, 1.5);
    /// Bytes.
    pub(crate) const BYTES: Self = Self::new(4096.0, 1.5);
    /// Memory, which grows by pages of 64 KiB and by doubling.
    pub(crate) const MEMORY: Self = Self::new(1_048_576.0, 1.5);
    /// Seconds on a machine that does other things too: eleven times as long.
    pub(crate) const SECONDS: Self = Self::new(0.05, 2.0);

    const fn new(offset: f64, least_factor: f64) -> Self {
        Self {
            offset,
            least_factor,
        }
    }

    /// The place of a value that `per` things brought about.
    fn place(self, value: f64, per: f64) -> f64 {
        ((value.max(0.0) + self.offset) / per.max(1.0)).ln()
    }
}

/// What is usual of a measure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usual {
    middle: f64,
    deviation: f64,
}

impl Usual {
    /// From values, each with what it is measured by (1 where it is by nothing). `None` without
    /// values.
    pub(crate) fn of(values: &[(f64, f64)], scale: Scale) -> Option<Self> {
        let mut places: Vec<f64> = values
            .iter()
            .map(|(value, per)| scale.place(*value, *per))
            .collect();
        let middle = median(&mut places)?;
        let mut distances: Vec<f64> = places.iter().map(|place| (place - middle).abs()).collect();
        let spread = median(&mut distances)? * MAD_TO_DEVIATION;
        Some(Self {
            middle,
            deviation: spread.max(scale.least_factor.ln()),
        })
    }

    /// How many robust standard deviations a value is above the middle; below it is negative.
    pub(crate) fn score(&self, value: f64, per: f64, scale: Scale) -> f64 {
        (scale.place(value, per) - self.middle) / self.deviation
    }
}

/// The median. The order of the numbers is changed.
pub(crate) fn median(numbers: &mut [f64]) -> Option<f64> {
    let half = numbers.len() / 2;
    numbers.sort_unstable_by(f64::total_cmp);
    let upper = *numbers.get(half)?;
    Some(match numbers.len() % 2 {
        0 => (numbers[half - 1] + upper) / 2.0,
        _ => upper,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(values: &[f64]) -> Vec<(f64, f64)> {
        values.iter().map(|value| (*value, 1.0)).collect()
    }

    #[test]
    fn one_odd_value_moves_nothing() {
        let clean = plain(&[100.0, 110.0, 95.0, 105.0, 100.0]);
        let poisoned = plain(&[100.0, 110.0, 95.0, 105.0, 1e12]);
        let score = |values: &[(f64, f64)]| {
            let usual = Usual::of(values, Scale::COUNT).expect("values");
            usual.score(5_000.0, 1.0, Scale::COUNT)
        };
        assert!(score(&clean) > 3.5);
        assert!(score(&poisoned) > 3.5, "{}", score(&poisoned));
    }

    #[test]
    fn what_is_always_the_same_may_still_differ_a_little() {
        let usual = Usual::of(&plain(&[1_000.0; 9]), Scale::COUNT).expect("values");
        let score = |value| usual.score(value, 1.0, Scale::COUNT);
        assert!(score(1_900.0) < 2.0);
        assert!(score(3_900.0) < 3.5);
        assert!(score(4_300.0) > 3.5);
        assert!(score(200.0) < -3.5);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }
}
