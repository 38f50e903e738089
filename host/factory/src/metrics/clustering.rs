use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{MetricsError, check_finite, check_length, ratio};

/// Rows of a clustering: the cluster of each, how far it is from that cluster's centre, and where
/// it lies.
#[derive(Debug, Clone, Copy)]
pub struct Clustering<'a> {
    cluster: &'a [u32],
    distance: &'a [f64],
    points: &'a Points,
}

/// Where some of the rows lie, in a space that is the same for every model over the same columns:
/// numbers count in standard deviations, and two texts that differ are 1 apart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Points {
    /// The rows that there are points for, rising.
    pub rows: Vec<usize>,
    /// Numbers of a point.
    pub numbers_per_row: usize,
    /// The numbers, point by point.
    pub numbers: Vec<f64>,
    /// Texts of a point.
    pub texts_per_row: usize,
    /// The texts as numbers of equal texts, point by point.
    pub texts: Vec<u32>,
}

/// A cluster and its rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterSize {
    /// Its number.
    pub cluster: u32,
    /// Rows in it.
    pub rows: u64,
    /// How far they are from its centre, in the mean.
    pub mean_distance: f64,
}

impl<'a> Clustering<'a> {
    /// Takes the clusters and the distances of all rows, and the points of some.
    ///
    /// # Errors
    /// No rows, different lengths, a distance that is not finite, or a point of no row.
    pub fn new(
        cluster: &'a [u32],
        distance: &'a [f64],
        points: &'a Points,
    ) -> Result<Self, MetricsError> {
        if cluster.is_empty() {
            return Err(MetricsError::NoRows);
        }
        check_length("the distance", distance.len(), cluster.len())?;
        check_finite("the distance", distance)?;
        let count = points.rows.len();
        let numbers = count * points.numbers_per_row;
        check_length("the points' numbers", points.numbers.len(), numbers)?;
        let texts = count * points.texts_per_row;
        check_length("the points' texts", points.texts.len(), texts)?;
        match points.rows.iter().find(|row| **row >= cluster.len()) {
            Some(row) => Err(MetricsError::Lengths {
                what: "the cluster".to_owned(),
                found: cluster.len(),
                expected: row + 1,
            }),
            None => Ok(Self {
                cluster,
                distance,
                points,
            }),
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.cluster.len()
    }

    /// The mean squared distance of a row from the centre of its cluster, in the adapter's own
    /// space. `None` where it is too large for a number.
    pub fn inertia(&self) -> Option<f64> {
        let sum: f64 = self
            .distance
            .iter()
            .map(|distance| distance * distance)
            .sum();
        Some(sum / self.distance.len() as f64).filter(|inertia| inertia.is_finite())
    }

    /// The clusters that have rows, the largest first.
    pub fn sizes(&self) -> Vec<ClusterSize> {
        let mut found: BTreeMap<u32, ClusterSize> = BTreeMap::new();
        for cluster in self.cluster {
            let size = found.entry(*cluster).or_insert(ClusterSize {
                cluster: *cluster,
                rows: 0,
                mean_distance: 0.0,
            });
            size.rows += 1;
        }
        for (cluster, distance) in self.cluster.iter().zip(self.distance) {
            if let Some(size) = found.get_mut(cluster) {
                size.mean_distance += distance / size.rows as f64;
            }
        }
        let mut sizes: Vec<ClusterSize> = found.into_values().collect();
        sizes.sort_by(|a, b| b.rows.cmp(&a.rows).then(a.cluster.cmp(&b.cluster)));
        sizes
    }

    /// The mean silhouette of the points (P. J. Rousseeuw, "Silhouettes: a graphical aid to the
    /// interpretation and validation of cluster analysis", 1987): of each, how much nearer its own
    /// cluster is than the nearest other one, from -1 to 1; 0 for one that is alone. `None` where
    /// the points are of a single cluster.
    pub fn silhouette(&self) -> Option<f64> {
        let points = self.points;
        let mut places: BTreeMap<u32, usize> = BTreeMap::new();
        for row in &points.rows {
            let next = places.len();
            places.entry(self.cluster[*row]).or_insert(next);
        }
        if places.len() < 2 {
            return None;
        }
        let of: Vec<usize> = points
            .rows
            .iter()
            .map(|row| places[&self.cluster[*row]])
            .collect();
        let mut counts = vec![0_u64; places.len()];
        of.iter().for_each(|place| counts[*place] += 1);
        let mut sum = 0.0;
        for (point, own) in of.iter().enumerate() {
            let mut distances = vec![0.0; places.len()];
            for (other, place) in of.iter().enumerate() {
                distances[*place] += points.distance(point, other);
            }
            let Some(within) = ratio(distances[*own], (counts[*own] - 1) as f64) else {
                continue;
            };
            let others = distances.iter().zip(&counts).enumerate();
            let nearest = others
                .filter(|(place, _)| place != own)
                .map(|(_, (sum, count))| sum / *count as f64)
                .fold(f64::INFINITY, f64::min);
            sum += ratio(nearest - within, nearest.max(within)).unwrap_or_default();
        }
        ratio(sum, points.rows.len() as f64)
    }
}

impl Points {
    fn distance(&self, one: usize, other: usize) -> f64 {
        fn of<T>(values: &[T], width: usize, point: usize) -> &[T] {
            values
                .get(point * width..(point + 1) * width)
                .unwrap_or_default()
        }
        let numbers = |point| of(&self.numbers, self.numbers_per_row, point);
        let texts = |point| of(&self.texts, self.texts_per_row, point);
        let squares: f64 = numbers(one)
            .iter()
            .zip(numbers(other))
            .map(|(one, other)| (one - other) * (one - other))
            .sum();
        let differing = texts(one).iter().zip(texts(other));
        let differing = differing.filter(|(one, other)| one != other).count();
        (squares + differing as f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EvaluateOptions, Metric, Outcomes, evaluate};
    use super::*;

    fn points() -> Points {
        let number = |row: usize| {
            let third = (row % 3) as f64;
            let across = ((row * 37) % 23) as f64 / 7.0 + third * 2.0;
            [across, ((row * 11) % 17) as f64 / 5.0 - third]
        };
        Points {
            rows: (0..30).collect(),
            numbers_per_row: 2,
            numbers: (0..30).flat_map(number).collect(),
            texts_per_row: 0,
            texts: Vec::new(),
        }
    }

    fn silhouette(clusters: &[u32], points: &Points) -> Option<f64> {
        let distances = vec![0.0; clusters.len()];
        let clustering = Clustering::new(clusters, &distances, points).expect("valid rows");
        clustering.silhouette()
    }

    #[test]
    fn the_silhouette_is_that_of_scikit_learn() {
        let clusters: Vec<u32> = (0..30).map(|row| row % 3).collect();
        let found = silhouette(&clusters, &points()).expect("three clusters");
        assert!((found - 0.297_190_484_528_572_94).abs() < 1e-12, "{found}");
        // One that is alone counts 0.
        let alone: Vec<u32> = (0..30)
            .map(|row| if row == 0 { 40_000 } else { 1 + row % 2 })
            .collect();
        let found = silhouette(&alone, &points()).expect("three clusters");
        assert!((found + 0.088_097_637_334_387_37).abs() < 1e-12, "{found}");
        assert_eq!(silhouette(&[7; 30], &points()), None);
    }

    #[test]
    fn texts_are_equal_or_one_apart() {
        let points = Points {
            rows: (0..4).collect(),
            texts_per_row: 1,
            texts: vec![1, 1, 2, 2],
            ..Points::default()
        };
        assert_eq!(silhouette(&[0, 0, 1, 1], &points), Some(1.0));
        assert_eq!(silhouette(&[0, 1, 0, 1], &points), Some(-0.5));
    }

    #[test]
    fn sizes_and_inertia_are_counted() {
        let (clusters, distances) = ([3, 0, 3, 3], [1.0, 2.0, 3.0, 5.0]);
        let points = Points::default();
        let clustering = Clustering::new(&clusters, &distances, &points).expect("valid rows");
        let judged = evaluate(
            &Outcomes::Clustering(clustering),
            &[],
            &EvaluateOptions::default(),
        )
        .expect("an evaluation");
        assert_eq!(judged.metric(Metric::Inertia), Some(39.0 / 4.0));
        assert_eq!(judged.metric(Metric::Clusters), Some(2.0));
        assert_eq!(judged.metric(Metric::LargestClusterShare), Some(0.75));
        assert_eq!(judged.metric(Metric::Silhouette), None);
        assert_eq!(
            (judged.clusters[0].cluster, judged.clusters[0].rows),
            (3, 3)
        );
        assert!((judged.clusters[0].mean_distance - 3.0).abs() < 1e-12);
    }

    #[test]
    fn distances_too_large_for_a_square_have_no_inertia() {
        let points = Points::default();
        let clustering = Clustering::new(&[0, 0], &[1e300, 1e300], &points).expect("valid rows");
        assert_eq!(clustering.inertia(), None);
        assert!(clustering.sizes()[0].mean_distance.is_finite());
        assert!(Clustering::new(&[0], &[f64::NAN], &points).is_err());
        assert!(Clustering::new(&[0, 1], &[0.0], &points).is_err());
        assert!(Clustering::new(&[], &[], &points).is_err());
    }
}
