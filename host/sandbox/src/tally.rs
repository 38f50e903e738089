//! What many instances came to together, for whoever writes that down now and then and not for each.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sandcast_audit::MostOfOne;

use crate::call::Usage;

/// Adds up what instances came to as they end.
#[derive(Debug, Default)]
pub struct Tally {
    sum: Mutex<Sum>,
}

/// What instances came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum {
    /// Rows they were asked about, as far as that was told.
    pub rows: u64,
    /// How many ended, by how.
    pub outcomes: BTreeMap<String, u64>,
    /// All of it together, but for the memory, which is the most of one.
    pub usage: Usage,
    /// The most of one.
    pub most: MostOfOne,
    /// Time that tensor programs ran for them.
    pub compute: Duration,
    /// The most memory that tensor programs of one held on a device.
    pub compute_peak_bytes: u64,
}

/// What the tensor programs of an instance came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Computed {
    pub(crate) programs: u32,
    pub(crate) took: Duration,
    pub(crate) peak_bytes: u64,
    pub(crate) flops: u64,
}

impl Tally {
    /// Counts rows that an instance is asked about.
    pub fn count_rows(&self, rows: usize) {
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.rows = sum.rows.saturating_add(rows as u64);
    }

    /// What has been added up until now.
    #[must_use]
    pub fn sum(&self) -> Sum {
        self.sum
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether no instance has ended and no row was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.rows == 0 && sum.outcomes.is_empty()
    }

    pub(crate) fn add(&self, usage: &Usage, computed: Option<Computed>, outcome: &str) {
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        let Sum {
            rows: _,
            outcomes,
            usage: all,
            most,
            compute,
            compute_peak_bytes,
        } = &mut *sum;
        // Looked up first: what is there mostly needs no new key.
        match outcomes.get_mut(outcome) {
            Some(count) => *count += 1,
            None => drop(outcomes.insert(outcome.to_owned(), 1)),
        }
        let mut host_calls = 0_u64;
        for (function, calls) in &usage.host_calls {
            host_calls = host_calls.saturating_add(*calls);
            match all.host_calls.get_mut(function) {
                Some(count) => *count = count.saturating_add(*calls),
                None => drop(all.host_calls.insert(function.clone(), *calls)),
            }
        }
        for (function, used) in &usage.host_use {
            match all.host_use.get_mut(function) {
                Some(sum) => *sum += *used,
                None => drop(all.host_use.insert(function.clone(), *used)),
            }
        }
        all.bytes_in = all.bytes_in.saturating_add(usage.bytes_in);
        all.bytes_out = all.bytes_out.saturating_add(usage.bytes_out);
        all.guest_seconds += usage.guest_seconds;
        all.denials = all.denials.saturating_add(usage.denials);
        all.peak_memory_bytes = all.peak_memory_bytes.max(usage.peak_memory_bytes);
        most.host_calls = most.host_calls.max(host_calls);
        most.bytes_in = most.bytes_in.max(usage.bytes_in);
        most.bytes_out = most.bytes_out.max(usage.bytes_out);
        most.guest_seconds = most.guest_seconds.max(usage.guest_seconds);
        if let Some(computed) = computed {
            *compute = compute.saturating_add(computed.took);
            *compute_peak_bytes = (*compute_peak_bytes).max(computed.peak_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use sandcast_audit::HostUse;

    use super::*;

    #[test]
    fn sums_and_the_most_of_one_are_kept() {
        let tally = Tally::default();
        assert!(tally.is_empty());
        let usage = |calls: u64, bytes: u64, memory: u64| Usage {
            host_calls: BTreeMap::from([
                ("batch.column".to_owned(), calls),
                ("log.log".to_owned(), 1),
            ]),
            host_use: BTreeMap::from([(
                "log.log".to_owned(),
                HostUse {
                    calls: 1,
                    seconds: 0.25,
                    bytes_in: 0,
                    bytes_out: u64::MAX,
                },
            )]),
            bytes_in: bytes,
            bytes_out: u64::MAX,
            guest_seconds: 0.5,
            peak_memory_bytes: memory,
            denials: 3,
            recording: None,
        };
        let computed = |peak_bytes| Computed {
            programs: 1,
            took: Duration::from_millis(2),
            peak_bytes,
            flops: 0,
        };
        tally.count_rows(3);
        assert!(!tally.is_empty(), "somebody asks");
        tally.add(&usage(4, 10, 7), Some(computed(100)), "finished");
        tally.add(&usage(2, 30, 5), Some(computed(50)), "finished");
        tally.add(&usage(1, 0, 0), None, "trapped");
        let sum = tally.sum();
        assert_eq!(sum.rows, 3);
        assert_eq!(
            sum.outcomes,
            BTreeMap::from([("finished".to_owned(), 2), ("trapped".to_owned(), 1)])
        );
        assert_eq!(sum.usage.host_calls["batch.column"], 7);
        assert_eq!(sum.usage.host_calls["log.log"], 3);
        let logged = sum.usage.host_use["log.log"];
        assert_eq!((logged.calls, logged.seconds), (3, 0.75));
        assert_eq!(logged.bytes_out, u64::MAX);
        assert_eq!((sum.usage.bytes_in, sum.usage.bytes_out), (40, u64::MAX));
        assert_eq!(
            (sum.usage.guest_seconds, sum.usage.peak_memory_bytes),
            (1.5, 7)
        );
        assert_eq!(sum.usage.denials, 9);
        assert_eq!((sum.most.host_calls, sum.most.bytes_in), (5, 30));
        assert_eq!(sum.compute, Duration::from_millis(4));
        assert_eq!(sum.compute_peak_bytes, 100);
    }
}
