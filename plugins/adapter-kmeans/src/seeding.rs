//! Where to begin: k-means++ over a sample of the rows.

/// Draws that depend on a seed alone: SplitMix64 (Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Draws(u64);

impl Draws {
    /// The draws of one of several beginnings.
    pub(crate) fn new(seed: u64, restart: u32) -> Self {
        let mut draws = Self(seed);
        let seed = draws.next() ^ u64::from(restart).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1).
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Points of one width, row-major.
#[derive(Debug)]
pub(crate) struct Points {
    pub(crate) width: usize,
    pub(crate) values: Vec<f32>,
}

impl Points {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.values.len() / self.width.max(1)
    }

    pub(crate) fn point(&self, place: usize) -> &[f32] {
        let width = self.width;
        self.values
            .get(place * width..(place + 1) * width)
            .unwrap_or_default()
    }

    /// The squared distance of every point from one.
    fn squares_from(&self, centre: &[f32]) -> Vec<f64> {
        (0..self.count())
            .map(|place| square(self.point(place), centre))
            .collect()
    }
}

/// The squared distance of two points.
pub(crate) fn square(one: &[f32], other: &[f32]) -> f64 {
    let differences = one
        .iter()
        .zip(other)
        .map(|(one, other)| f64::from(one - other));
    differences.map(|difference| difference * difference).sum()
}

/// Centres among the points: each next one is drawn with a chance in proportion to the squared
/// distance from the centres before it (Arthur and Vassilvitskii, "k-means++: the advantages of
/// careful seeding", 2007); of several draws the one is taken that leaves the least distance.
/// Fewer than wanted where there are fewer different points.
pub(crate) fn seed(points: &Points, clusters: usize, draws: &mut Draws) -> Vec<f32> {
    let count = points.count();
    if count == 0 {
        return Vec::new();
    }
    let trials = 2 + (clusters as f64).ln() as usize;
    let first = ((draws.share() * count as f64) as usize).min(count - 1);
    let mut centres = points.point(first).to_vec();
    let mut nearest = points.squares_from(points.point(first));
    while centres.len() < clusters * points.width {
        let total: f64 = nearest.iter().sum();
        if !(total > 0.0 && total.is_finite()) {
            break;
        }
        let mut best: Option<(f64, usize, Vec<f64>)> = None;
        for _ in 0..trials {
            let place = drawn(&nearest, draws.share() * total);
            let from = points.squares_from(points.point(place));
            let left: Vec<f64> = nearest.iter().zip(&from).map(|(a, b)| a.min(*b)).collect();
            let sum = left.iter().sum();
            if best.as_ref().is_none_or(|(least, ..)| sum < *least) {
                best = Some((sum, place, left));
            }
        }
        let Some((_, place, left)) = best else { break };
        centres.extend_from_slice(points.point(place));
        nearest = left;
    }
    centres
}

/// The place at which the running sum passes a number; the last that counts where none does.
fn drawn(weights: &[f64], at: f64) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (place, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            sum += weight;
            last = place;
            if sum > at {
                break;
            }
        }
    }
    last
}

/// Gives each cluster that no row belongs to the point that is farthest from every centre.
pub(crate) fn reseed(points: &Points, centres: &mut [f32], counts: &[f64]) {
    let width = points.width.max(1);
    if counts.iter().all(|count| *count > 0.0) {
        return;
    }
    let filled = counts.iter().zip(centres.chunks_exact(width));
    let filled = filled
        .filter(|(count, _)| **count > 0.0)
        .map(|(_, centre)| centre);
    let mut nearest = vec![f64::INFINITY; points.count()];
    for centre in filled {
        for (least, square) in nearest.iter_mut().zip(points.squares_from(centre)) {
            *least = least.min(square);
        }
    }
    for (count, centre) in counts.iter().zip(centres.chunks_exact_mut(width)) {
        if *count > 0.0 {
            continue;
        }
        // The first of equals, so that it does not depend on anything but the rows.
        let farthest = nearest.iter().enumerate();
        let farthest = farthest.fold(
            None,
            |best: Option<(usize, f64)>, (place, square)| match best {
                Some((_, most)) if most >= *square => best,
                _ => Some((place, *square)),
            },
        );
        let Some((place, _)) = farthest else { return };
        centre.copy_from_slice(points.point(place));
        for (least, square) in nearest.iter_mut().zip(points.squares_from(centre)) {
            *least = least.min(square);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_heaps() -> Points {
        let point = |row: usize| {
            let (x, y) = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)][row % 3];
            [x + (row % 7) as f32 * 0.01, y]
        };
        Points {
            width: 2,
            values: (0..300).flat_map(point).collect(),
        }
    }

    #[test]
    fn each_heap_gets_a_centre_and_the_seed_decides_which() {
        let points = three_heaps();
        let centres =
            |seed_of: u64, restart: u32| seed(&points, 3, &mut Draws::new(seed_of, restart));
        for restart in 0..5 {
            let found = centres(7, restart);
            let mut heaps: Vec<(bool, bool)> = found
                .chunks(2)
                .map(|it| (it[0] > 5.0, it[1] > 5.0))
                .collect();
            heaps.sort_unstable();
            assert_eq!(heaps, [(false, false), (false, true), (true, false)]);
        }
        assert_eq!(centres(7, 1), centres(7, 1));
        assert_ne!(centres(7, 1), centres(8, 1));
        assert_ne!(centres(7, 1), centres(7, 2));
    }

    #[test]
    fn fewer_points_than_clusters_give_fewer_centres() {
        let points = Points {
            width: 1,
            values: vec![1.0, 1.0, 2.0, 2.0],
        };
        assert_eq!(seed(&points, 3, &mut Draws::new(1, 0)).len(), 2);
        let none = Points {
            width: 2,
            values: Vec::new(),
        };
        assert!(seed(&none, 3, &mut Draws::new(1, 0)).is_empty());
    }

    #[test]
    fn an_empty_cluster_moves_to_the_farthest_point() {
        let points = Points {
            width: 1,
            values: vec![0.0, 1.0, 5.0, 20.0],
        };
        let mut centres = [0.0, 100.0, 0.5, 200.0];
        reseed(&points, &mut centres, &[2.0, 0.0, 1.0, 0.0]);
        assert_eq!(centres, [0.0, 20.0, 0.5, 5.0]);
    }

    #[test]
    fn draws_are_in_range_and_spread() {
        let mut draws = Draws::new(3, 0);
        let shares: Vec<f64> = (0..1000).map(|_| draws.share()).collect();
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
        let mean = shares.iter().sum::<f64>() / 1000.0;
        assert!((mean - 0.5).abs() < 0.05, "{mean}");
        assert_eq!(drawn(&[0.0, 1.0, 0.0, 2.0, 0.0], 1.5), 3);
        assert_eq!(drawn(&[0.0, 1.0, 0.0, 2.0, 0.0], 9.0), 3);
        assert_eq!(drawn(&[0.0, 1.0], 0.0), 1);
    }
}
