//! What an instance has used: host calls by name, bytes in and out.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::recording::Trace;

/// Names are the host's own, so there are only so many.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    calls: Vec<(&'static str, u64)>,
    bytes_in: u64,
    bytes_out: u64,
    rows: u64,
    /// The calls one by one, where they are recorded or replayed.
    trace: Option<Box<Trace>>,
}

impl Ledger {
    /// A ledger that also follows the calls one by one.
    pub(crate) fn tracing(trace: Option<Trace>) -> Self {
        Self {
            trace: trace.map(Box::new),
            ..Self::default()
        }
    }

    /// Counts a call into the host. The names in use are few and the last one used is likely the
    /// next, so they are searched from the front and moved there.
    pub(crate) fn count(&mut self, name: &'static str) {
        if let Some(trace) = &mut self.trace {
            trace.begin(name);
        }
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
        if let Some(trace) = &mut self.trace {
            trace.add_bytes(bytes, 0);
        }
    }

    /// Counts bytes that come out of the guest.
    pub(crate) fn count_bytes_out(&mut self, bytes: usize) {
        self.bytes_out = self.bytes_out.saturating_add(bytes as u64);
        if let Some(trace) = &mut self.trace {
            trace.add_bytes(0, bytes);
        }
    }

    /// Notes what else tells the call under way from others, where calls are told apart.
    pub(crate) fn saw<B: AsRef<[u8]>>(&mut self, what: impl FnOnce() -> B) {
        if let Some(trace) = &mut self.trace {
            trace.saw(what().as_ref());
        }
    }

    /// Something from outside, such as the time: in a replay what it was then.
    pub(crate) fn outside<T: Serialize + DeserializeOwned>(
        &mut self,
        now: impl FnOnce() -> T,
    ) -> wasmtime::Result<T> {
        match &mut self.trace {
            Some(trace) => trace.outside(now),
            None => Ok(now()),
        }
    }

    /// The same for something that is waited for. In a replay it is not even begun.
    pub(crate) async fn outside_later<T: Serialize + DeserializeOwned>(
        &mut self,
        now: impl Future<Output = T>,
    ) -> wasmtime::Result<T> {
        match &mut self.trace {
            None => Ok(now.await),
            Some(trace) if trace.is_replaying() => trace.then(),
            Some(trace) => {
                let answer = now.await;
                trace.keep(&answer)?;
                Ok(answer)
            }
        }
    }

    pub(crate) fn trace(&mut self) -> Option<&mut Trace> {
        self.trace.as_deref_mut()
    }

    pub(crate) fn take_trace(&mut self) -> Option<Trace> {
        self.trace.take().map(|trace| *trace)
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
