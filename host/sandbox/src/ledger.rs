//! What an instance has used: host calls by name, bytes in and out.

use std::collections::BTreeMap;

/// Names are the host's own, so there are only so many.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    calls: Vec<(&'static str, u64)>,
    bytes_in: u64,
    bytes_out: u64,
    rows: u64,
}

impl Ledger {
    /// Counts a call into the host. The names in use are few and the last one used is likely the
    /// next, so they are searched from the front and moved there.
    pub(crate) fn count(&mut self, name: &'static str) {
        match self
            .calls
            .iter()
            .position(|(known, _)| std::ptr::eq(*known, name) || *known == name)
        {
            Some(at) => {
                self.calls[at].1 += 1;
                if at > 0 {
                    self.calls.swap(at, at - 1);
                }
            }
            None => self.calls.push((name, 1)),
        }
    }

    /// Counts bytes that go into the guest.
    pub(crate) fn count_bytes_in(&mut self, bytes: usize) {
        self.bytes_in = self.bytes_in.saturating_add(bytes as u64);
    }

    /// Counts bytes that come out of the guest.
    pub(crate) fn count_bytes_out(&mut self, bytes: usize) {
        self.bytes_out = self.bytes_out.saturating_add(bytes as u64);
    }

    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        self.calls
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    /// Counts rows that the guest makes or is lent.
    pub(crate) fn count_rows(&mut self, rows: usize) {
        self.rows = self.rows.saturating_add(rows as u64);
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// The functions that were called, each with how often.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.calls.iter().copied()
    }

    pub(crate) fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_name() {
        let mut ledger = Ledger::default();
        for name in ["a", "b", "c", "b", "c", "c"] {
            ledger.count(name);
        }
        let calls = ledger.calls();
        assert_eq!((calls["a"], calls["b"], calls["c"]), (1, 2, 3));
        ledger.count_bytes_in(usize::MAX);
        ledger.count_bytes_in(usize::MAX);
        assert_eq!(ledger.bytes_in(), u64::MAX, "sums stop at the top");
    }
}
