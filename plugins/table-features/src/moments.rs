//! Count, mean, variance and a sample of a column, batch after batch.

use sandcast_sdk::columns::Validity;
use sandcast_sdk::kernels;

/// How many values of one column are kept at most, for its median and its quantiles.
const SAMPLE_VALUES: u64 = 65_536;

/// How many values of all columns are kept at most.
const ALL_SAMPLES_VALUES: u64 = 4 << 20;

/// Count, mean and squared deviations. Batches are merged by the formula of Chan, Golub and
/// LeVeque (1979), so that large means do not eat the variance.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    /// Values that were there and finite.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    squared_deviations: f64,
}

impl Moments {
    /// Adds the values of a batch that are there and finite.
    pub fn add(&mut self, values: &[f64], validity: Validity<'_>) {
        let summary = kernels::summarize_f64(values, validity.bits());
        let (count, sum) = if summary.sum.is_finite() {
            (summary.count, summary.sum)
        } else {
            fold(values, validity, |value| value)
        };
        if count == 0 {
            return;
        }
        let mean = sum / count as f64;
        let (_, squared_deviations) =
            fold(values, validity, |value| (value - mean) * (value - mean));
        self.merge(Self {
            count,
            mean,
            squared_deviations,
        });
    }

    fn merge(&mut self, other: Self) {
        let count = self.count + other.count;
        let difference = other.mean - self.mean;
        let share = other.count as f64 / count as f64;
        self.squared_deviations +=
            other.squared_deviations + difference * difference * self.count as f64 * share;
        self.mean += difference * share;
        self.count = count;
    }

    /// The standard deviation of the population; 1 for a column that does not vary, so that
    /// dividing by it is safe.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        let deviation = (self.squared_deviations / self.count.max(1) as f64).sqrt();
        if deviation > 1e-12 * self.mean.abs() && deviation > 0.0 {
            deviation
        } else {
            1.0
        }
    }
}

/// Counts values and sums what a function makes of them, by blocks of 64 rows over 8 lanes.
fn fold(values: &[f64], validity: Validity<'_>, of: impl Fn(f64) -> f64) -> (u64, f64) {
    let mut lanes = [0.0_f64; 8];
    let mut count = 0;
    for (block, values) in values.chunks(64).enumerate() {
        let word = validity.word(block);
        for (at, &value) in values.iter().enumerate() {
            let counts = (word >> at) & 1 == 1 && value.is_finite();
            count += u64::from(counts);
            lanes[at % 8] += if counts { of(value) } else { 0.0 };
        }
    }
    (count, lanes.iter().sum())
}

/// Every so many values of a column.
#[derive(Debug, Default)]
pub struct Sample {
    values: Vec<f64>,
    stride: u64,
    row: u64,
}

impl Sample {
    /// Of one of so many columns of so many rows.
    #[must_use]
    pub fn of(columns: u64, rows: u64) -> Self {
        let wanted = SAMPLE_VALUES
            .min(ALL_SAMPLES_VALUES / columns.max(1))
            .max(1);
        Self {
            values: Vec::new(),
            stride: rows.div_ceil(wanted).max(1),
            row: 0,
        }
    }

    /// Looks at the values of a batch.
    pub fn add(&mut self, values: &[f64], validity: Validity<'_>) {
        for (row, &value) in values.iter().enumerate() {
            if self.row.is_multiple_of(self.stride) && validity.is_valid(row) && value.is_finite() {
                self.values.push(value);
            }
            self.row += 1;
        }
    }

    /// The values that were kept, in no order.
    #[must_use]
    pub fn into_values(self) -> Vec<f64> {
        self.values
    }
}

/// The lower median; `None` of nothing.
pub fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len().checked_sub(1)? / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Validity<'static> {
        Validity::new(None)
    }

    #[test]
    fn batches_add_up_to_the_whole() {
        let values: Vec<f64> = (0..1_000).map(|row| f64::from(row % 17) + 1e9).collect();
        let mut whole = Moments::default();
        whole.add(&values, all());
        let mut parts = Moments::default();
        for part in values.chunks(77) {
            parts.add(part, all());
        }
        let mean = values.iter().sum::<f64>() / 1_000.0;
        let variance = values
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / 1_000.0;
        for moments in [whole, parts] {
            assert_eq!(moments.count, 1_000);
            assert!((moments.mean - mean).abs() < 1e-5);
            assert!((moments.deviation() - variance.sqrt()).abs() < 1e-6);
        }
    }

    #[test]
    fn nulls_and_what_is_not_finite_are_left_out() {
        let mut moments = Moments::default();
        moments.add(
            &[1.0, 99.0, 3.0, f64::NAN, f64::INFINITY],
            Validity::new(Some(&[0b1_1101])),
        );
        assert_eq!(
            (moments.count, moments.mean, moments.deviation()),
            (2, 2.0, 1.0)
        );
    }

    #[test]
    fn a_constant_column_divides_by_one() {
        let mut moments = Moments::default();
        assert_eq!(moments.deviation(), 1.0);
        moments.add(&[0.1; 100], all());
        assert_eq!(moments.deviation(), 1.0);
    }

    #[test]
    fn the_median_of_a_long_column_is_close() {
        let mut sample = Sample::of(3, 200_000);
        for part in 0..10 {
            let values: Vec<f64> = (0..20_000)
                .map(|row| f64::from(part * 20_000 + row))
                .collect();
            sample.add(&values, all());
        }
        let mut values = sample.into_values();
        assert!(values.len() as u64 <= SAMPLE_VALUES);
        assert!((median(&mut values).expect("values") - 100_000.0).abs() < 10.0);
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn many_columns_keep_less_of_each() {
        let mut sample = Sample::of(4_096, 1_000_000);
        sample.add(&vec![1.0; 10_000], all());
        assert!(sample.into_values().len() <= 11);
    }
}
