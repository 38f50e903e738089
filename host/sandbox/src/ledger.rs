//! What an instance has used: host calls by name, how long they took, bytes in and out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sandcast_audit::HostUse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasmtime::CallHook;

use crate::recording::Trace;

/// Calls that have no name of their own: those to WASI that nobody counts.
pub(crate) const OTHER: &str = "other";

/// Names are the host's own, so there are only so many.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    calls: Vec<Called>,
    /// The calls under way, the innermost last: a guest that makes room for an answer may call again.
    under_way: Vec<UnderWay>,
    /// What calls took that nobody named.
    other: Spent,
    bytes_in: u64,
    bytes_out: u64,
    rows: u64,
    /// The calls one by one, where they are recorded or replayed.
    trace: Option<Box<Trace>>,
}

/// Calls of one name.
#[derive(Debug)]
struct Called {
    name: &'static str,
    calls: u64,
    spent: Spent,
}

/// What calls took.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    /// Those whose end was seen.
    ended: u64,
    time: Duration,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Debug)]
struct UnderWay {
    begun: Instant,
    /// What it was counted as first.
    name: Option<&'static str>,
    bytes_in: u64,
    bytes_out: u64,
}

impl Spent {
    fn add(&mut self, call: &UnderWay) {
        self.ended = self.ended.saturating_add(1);
        self.time = self.time.saturating_add(call.begun.elapsed());
        self.bytes_in = self.bytes_in.saturating_add(call.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(call.bytes_out);
    }

    fn told(self, calls: u64) -> HostUse {
        HostUse {
            calls,
            // As many digits as a clock is worth.
            seconds: self.time.as_micros() as f64 / 1e6,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
        }
    }
}

impl Ledger {
    /// A ledger that also follows the calls one by one.
    pub(crate) fn tracing(trace: Option<Trace>) -> Self {
        Self {
            trace: trace.map(Box::new),
            ..Self::default()
        }
    }

    /// The guest and the host take turns.
    pub(crate) fn crossed(&mut self, hook: CallHook) {
        match hook {
            CallHook::CallingHost => self.under_way.push(UnderWay {
                begun: Instant::now(),
                name: None,
                bytes_in: 0,
                bytes_out: 0,
            }),
            CallHook::ReturningFromHost => {
                if let Some(call) = self.under_way.pop() {
                    let place = call.name.and_then(|name| self.place_of(name));
                    match place {
                        Some(place) => self.calls[place].spent.add(&call),
                        None => self.other.add(&call),
                    }
                }
            }
            CallHook::CallingWasm | CallHook::ReturningFromWasm => {}
        }
    }

    fn place_of(&self, name: &'static str) -> Option<usize> {
        let is_it = |called: &Called| std::ptr::eq(called.name, name) || called.name == name;
        self.calls.iter().position(is_it)
    }

    /// Counts a call into the host. The names in use are few and the last one used is likely the
    /// next, so they are searched from the front and moved there.
    pub(crate) fn count(&mut self, name: &'static str) {
        if let Some(trace) = &mut self.trace {
            trace.begin(name);
        }
        if let Some(call) = self.under_way.last_mut() {
            call.name.get_or_insert(name);
        }
        match self.place_of(name) {
            Some(at) => {
                self.calls[at].calls += 1;
                if at > 0 {
                    self.calls.swap(at, at - 1);
                }
            }
            None => self.calls.push(Called {
                name,
                calls: 1,
                spent: Spent::default(),
            }),
        }
    }

    /// Counts bytes that go into the guest.
    pub(crate) fn count_bytes_in(&mut self, bytes: usize) {
        self.bytes_in = self.bytes_in.saturating_add(bytes as u64);
        if let Some(call) = self.under_way.last_mut() {
            call.bytes_in = call.bytes_in.saturating_add(bytes as u64);
        }
        if let Some(trace) = &mut self.trace {
            trace.add_bytes(bytes, 0);
        }
    }

    /// Counts bytes that come out of the guest.
    pub(crate) fn count_bytes_out(&mut self, bytes: usize) {
        self.bytes_out = self.bytes_out.saturating_add(bytes as u64);
        if let Some(call) = self.under_way.last_mut() {
            call.bytes_out = call.bytes_out.saturating_add(bytes as u64);
        }
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
            .map(|called| (called.name.to_owned(), called.calls))
            .collect()
    }

    /// What the calls took, by function.
    pub(crate) fn spent(&self) -> BTreeMap<String, HostUse> {
        let named = self.calls.iter();
        let named = named.map(|called| (called.name.to_owned(), called.spent.told(called.calls)));
        let other = self.other.told(self.other.ended);
        let other = (other.calls > 0).then(|| (OTHER.to_owned(), other));
        named.chain(other).collect()
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
        self.calls.iter().map(|called| (called.name, called.calls))
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
    #[test]
    fn what_calls_took_is_theirs_whatever_is_called_within_them() {
        let mut ledger = Ledger::default();
        let nap = Duration::from_millis(2);
        ledger.crossed(CallHook::CallingHost);
        ledger.count("sql.query");
        ledger.count_bytes_out(10);
        ledger.crossed(CallHook::CallingWasm);
        ledger.crossed(CallHook::CallingHost);
        ledger.count_bytes_in(3);
        std::thread::sleep(nap);
        ledger.crossed(CallHook::ReturningFromHost);
        ledger.crossed(CallHook::ReturningFromWasm);
        // One that is counted twice is what it was first.
        ledger.count("log.log");
        ledger.crossed(CallHook::ReturningFromHost);
        ledger.crossed(CallHook::ReturningFromHost);
        let spent = ledger.spent();
        let of = |name: &str| {
            (
                spent[name].calls,
                spent[name].bytes_in,
                spent[name].bytes_out,
            )
        };
        assert_eq!(of("sql.query"), (1, 0, 10));
        assert_eq!(of("log.log"), (1, 0, 0));
        assert_eq!(of(OTHER), (1, 3, 0));
        assert!(spent["sql.query"].seconds >= spent[OTHER].seconds);
        assert!(spent[OTHER].seconds >= nap.as_secs_f64());
        assert_eq!(spent["log.log"].seconds, 0.0);
        assert_eq!(
            ledger.calls().len(),
            2,
            "what has no name is in neither count"
        );
    }
}
