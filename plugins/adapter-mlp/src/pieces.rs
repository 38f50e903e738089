//! Numbers cut into pieces: the piecewise linear encoding of Gorishniy, Rubachev and Babenko
//! (2022), "On Embeddings for Numerical Features in Tabular Deep Learning", section 3.2.
//!
//! A number becomes one input for each piece of its range: 0 below the piece, 1 above it, and the
//! share of the way through it in between. A network learns steps and bends of a column from it
//! that it finds hard to learn from the number alone.

use crate::features::NumberFeature;

/// Inputs that all pieces together may come to.
const MAXIMUM_INPUTS: u32 = 2_048;

/// Fewer pieces than this are not worth it.
const LEAST_PIECES: u32 = 4;

/// Edges closer than this, in standard deviations, are one.
const LEAST_WIDTH: f64 = 1e-5;

/// How many pieces each of so many numbers gets; 0 for none.
pub(crate) fn pieces_each(wanted: u32, numbers: u32) -> u32 {
    let pieces = wanted.min(MAXIMUM_INPUTS / numbers.max(1));
    if pieces < LEAST_PIECES { 0 } else { pieces }
}

/// Where to cut, from a sample of the values: half of the edges are quantiles of the rows, half
/// are quantiles of the different values, so that a long tail behind a common value is cut too.
/// Rising; at most `pieces` pieces.
pub(crate) fn edges(mut sample: Vec<f64>, pieces: u32) -> Vec<f64> {
    sample.sort_unstable_by(f64::total_cmp);
    let mut distinct = sample.clone();
    distinct.dedup();
    let halves = [(&sample, pieces / 2), (&distinct, pieces - pieces / 2)];
    let mut edges: Vec<f64> = halves
        .into_iter()
        .flat_map(|(values, parts)| {
            (0..=parts).filter_map(move |part| quantile(values, part, parts))
        })
        .collect();
    edges.sort_unstable_by(f64::total_cmp);
    edges.dedup();
    edges
}

/// The value `part / parts` of the way through sorted values.
fn quantile(sorted: &[f64], part: u32, parts: u32) -> Option<f64> {
    let last = sorted.len().checked_sub(1)? as u64;
    let place = (last * u64::from(part) + u64::from(parts) / 2) / u64::from(parts.max(1));
    sorted.get(place as usize).copied()
}

/// The constants of the encoding over standardised numbers, `pieces` for each.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Constants {
    /// Where each piece starts.
    pub(crate) starts: Vec<f32>,
    /// One over its width; 0 for a piece that is not needed, whose input is always 0.
    pub(crate) scales: Vec<f32>,
}

/// The constants of some numbers.
pub(crate) fn constants(numbers: &[NumberFeature], pieces: u32) -> Constants {
    let mut constants = Constants::default();
    for number in numbers {
        let mut standard: Vec<f64> = number
            .edges
            .iter()
            .map(|edge| (edge - number.mean) / number.deviation)
            .collect();
        standard.dedup_by(|later, earlier| *later - *earlier < LEAST_WIDTH);
        let wanted = constants.starts.len() + pieces as usize;
        for edge in standard.windows(2).take(pieces as usize) {
            constants.starts.push(edge[0] as f32);
            constants.scales.push((1.0 / (edge[1] - edge[0])) as f32);
        }
        constants.starts.resize(wanted, 0.0);
        constants.scales.resize(wanted, 0.0);
    }
    constants
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_behind_a_common_value_is_cut() {
        let mut values = vec![0.0; 900];
        values.extend((0..100).map(|tail| 1_000.0 + f64::from(tail)));
        let edges = edges(values, 16);
        assert!(edges.is_sorted() && edges.len() <= 17, "{edges:?}");
        assert_eq!((edges[0], edges[edges.len() - 1]), (0.0, 1_099.0));
        assert!(
            edges.iter().filter(|edge| **edge > 1_000.0).count() >= 7,
            "{edges:?}"
        );
    }

    #[test]
    fn few_values_have_few_edges_and_none_have_none() {
        assert_eq!(edges(vec![1.0, 0.0, 1.0], 32), [0.0, 1.0]);
        assert_eq!(edges(vec![3.0; 10], 32), [3.0]);
        assert!(edges(Vec::new(), 32).is_empty());
    }

    #[test]
    fn constants_are_standardised_and_padded() {
        let number = |edges: &[f64]| NumberFeature {
            column: "x".into(),
            mean: 10.0,
            deviation: 2.0,
            fill: 10.0,
            edges: edges.to_vec(),
        };
        let constants = constants(
            &[number(&[8.0, 10.0, 10.000_000_1, 14.0]), number(&[5.0])],
            3,
        );
        assert_eq!(constants.starts, [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(constants.scales, [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn many_numbers_share_a_bound() {
        assert_eq!(pieces_each(32, 6), 32);
        assert_eq!(pieces_each(32, 100), 20);
        assert_eq!(pieces_each(32, 1_000), 0);
        assert_eq!(pieces_each(0, 1), 0);
    }
}
