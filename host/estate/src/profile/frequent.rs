use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

/// Values whose counts are kept at least.
const KEPT: usize = 10_000;
/// Values shown.
const SHOWN: usize = 10;

/// Counts values. When there are too many, the rarer half is forgotten, and what comes back
/// starts again: then counts are lower bounds.
pub(super) struct Frequent<K> {
    counts: HashMap<K, u64>,
    exact: bool,
}

impl<K: Hash + Ord + Clone> Frequent<K> {
    pub(super) fn new() -> Self {
        Self {
            counts: HashMap::new(),
            exact: true,
        }
    }

    pub(super) fn add<Q>(&mut self, value: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(count) = self.counts.get_mut(value) {
            *count += 1;
            return;
        }
        if self.counts.len() >= 2 * KEPT {
            self.exact = false;
            let ranked = self.ranked();
            self.counts = ranked.into_iter().take(KEPT).collect();
        }
        self.counts.insert(value.to_owned(), 1);
    }

    /// The most frequent values, and whether their counts are exact.
    pub(super) fn top(&self) -> (Vec<(K, u64)>, bool) {
        let mut ranked = self.ranked();
        ranked.truncate(SHOWN);
        (ranked, self.exact)
    }

    /// By count, then by value, so that nothing depends on the order of the map.
    fn ranked(&self) -> Vec<(K, u64)> {
        let mut ranked: Vec<(K, u64)> = self
            .counts
            .iter()
            .map(|(value, count)| (value.clone(), *count))
            .collect();
        ranked.sort_unstable_by(|left, right| {
            (Reverse(left.1), &left.0).cmp(&(Reverse(right.1), &right.0))
        });
        ranked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_come_first_and_ties_by_value() {
        let mut frequent = Frequent::<String>::new();
        for value in ["b", "a", "c", "c", "a", "b", "c"] {
            frequent.add(value);
        }
        let wanted = [("c", 3), ("a", 2), ("b", 2)].map(|(value, count)| (value.to_owned(), count));
        assert_eq!(frequent.top(), (wanted.to_vec(), true));
    }

    #[test]
    fn a_frequent_value_survives_a_flood_of_rare_ones() {
        let mut frequent = Frequent::<i64>::new();
        for value in 0..100_000_i64 {
            frequent.add(&value);
            if value % 10 == 0 {
                frequent.add(&-1);
            }
        }
        let (top, exact) = frequent.top();
        assert_eq!((top[0], exact), ((-1, 10_000), false));
    }
}
