//! What one instance may take: memory, tables, instances and time.

use std::fmt;
use std::time::{Duration, Instant};

use wasmtime::component::ResourceTableError;
use wasmtime::{ResourceLimiter, Store};

use crate::conduct;
use crate::grants::Limits;
use crate::state::State;

/// Counts the linear memory and the table elements of an instance, over all its memories and
/// tables together.
#[derive(Debug)]
pub(crate) struct Meter {
    memory_limit: usize,
    memory: usize,
    peak_memory: usize,
    table_limit: usize,
    table_elements: usize,
    instances: usize,
    /// What the last growth added, to take back if the growth then fails.
    last_memory_growth: usize,
    last_table_growth: usize,
    /// A growth was refused; explains the trap that a guest without memory ends in.
    pub(crate) memory_refused: bool,
}

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_limit: limits.memory.to_usize(),
            memory: 0,
            peak_memory: 0,
            table_limit: limits.table_elements as usize,
            table_elements: 0,
            instances: limits.instances as usize,
            last_memory_growth: 0,
            last_table_growth: 0,
            memory_refused: false,
        }
    }

    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        self.peak_memory as u64
    }

    /// Takes another's word for the most memory that was held, as far as that can be.
    pub(crate) fn note_peak(&mut self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.peak_memory = self.peak_memory.max(bytes.min(self.memory_limit));
    }

    pub(crate) fn memory_limit_bytes(&self) -> u64 {
        self.memory_limit as u64
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.last_memory_growth = 0;
        // A growth beyond the memory's own maximum is the guest's to handle, not a lack of memory.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let growth = desired.saturating_sub(current);
        match self.memory.checked_add(growth) {
            Some(total) if total <= self.memory_limit => {
                self.memory = total;
                self.peak_memory = self.peak_memory.max(total);
                self.last_memory_growth = growth;
                Ok(true)
            }
            _ => {
                self.memory_refused = true;
                Ok(false)
            }
        }
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "a guest's memory could not grow");
        self.memory = self.memory.saturating_sub(self.last_memory_growth);
        self.last_memory_growth = 0;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.last_table_growth = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let growth = desired.saturating_sub(current);
        match self.table_elements.checked_add(growth) {
            Some(total) if total <= self.table_limit => {
                self.table_elements = total;
                self.last_table_growth = growth;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "a guest's table could not grow");
        self.table_elements = self.table_elements.saturating_sub(self.last_table_growth);
        self.last_table_growth = 0;
        Ok(())
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn tables(&self) -> usize {
        self.instances
    }

    fn memories(&self) -> usize {
        self.instances
    }
}

/// Which limit of time was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeLimit {
    Call,
    Total,
}

impl TimeLimit {
    /// The key under `grants.limits`.
    pub(crate) fn key(self) -> &'static str {
        match self {
            TimeLimit::Call => "call_timeout",
            TimeLimit::Total => "total_timeout",
        }
    }

    pub(crate) fn of(self, limits: &Limits) -> Duration {
        match self {
            TimeLimit::Call => limits.call_timeout.duration(),
            TimeLimit::Total => limits.total_timeout.duration(),
        }
    }
}

/// The error a guest out of time is stopped with.
#[derive(Debug)]
pub(crate) struct OutOfTime(pub(crate) TimeLimit);

impl fmt::Display for OutOfTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was reached", self.0.key())
    }
}

impl std::error::Error for OutOfTime {}

/// The error a guest is stopped with that goes over a limit other than time or memory.
#[derive(Debug)]
pub(crate) struct OverLimit {
    /// The key under `grants`.
    pub(crate) key: &'static str,
    /// What it did.
    pub(crate) detail: String,
}

impl OverLimit {
    /// A limit that the engine keeps. Only some of its errors have a type; the others are known
    /// by their words, which the tests with hostile guests hold on to.
    pub(crate) fn of(error: &wasmtime::Error) -> Option<Self> {
        if let Some(over) = error.downcast_ref::<OverLimit>() {
            return Some(Self {
                key: over.key,
                detail: over.detail.clone(),
            });
        }
        let words = error.root_cause().to_string();
        if words.contains("handle limit exceeded")
            || matches!(error.downcast_ref(), Some(ResourceTableError::Full))
        {
            Some(Self {
                key: "limits.resources",
                detail: "it holds as many things of the host as it may".to_owned(),
            })
        } else if words.contains("fuel allocated for hostcalls") {
            Some(Self {
                key: "limits.output_bytes",
                detail: "it handed over more bytes in one call than it may".to_owned(),
            })
        } else {
            None
        }
    }
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for OverLimit {}

/// Time as an instance spends it. Time the host computes for a guest is on another budget.
#[derive(Debug)]
pub(crate) struct CallClock {
    call_limit: Duration,
    total_limit: Duration,
    started: Option<Instant>,
    host_in_call: Duration,
    spent: Duration,
}

impl CallClock {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            call_limit: limits.call_timeout.duration(),
            total_limit: limits.total_timeout.duration(),
            started: None,
            host_in_call: Duration::ZERO,
            spent: Duration::ZERO,
        }
    }

    /// Starts a call.
    pub(crate) fn start(&mut self) -> Result<(), OutOfTime> {
        if self.left_in_call().is_zero() {
            return Err(OutOfTime(TimeLimit::Total));
        }
        self.started = Some(Instant::now());
        self.host_in_call = Duration::ZERO;
        Ok(())
    }

    /// How long a call that starts now may take.
    pub(crate) fn left_in_call(&self) -> Duration {
        self.total_limit
            .saturating_sub(self.spent)
            .min(self.call_limit)
    }

    /// How much longer the call that is under way may take.
    pub(crate) fn left_now(&self) -> Duration {
        self.left_in_call().saturating_sub(self.in_call())
    }

    /// Ends a call.
    pub(crate) fn stop(&mut self) {
        self.spent += self.in_call();
        self.started = None;
        self.host_in_call = Duration::ZERO;
    }

    /// Takes time that the host spent computing off the guest's account.
    pub(crate) fn excuse(&mut self, host_time: Duration) {
        self.host_in_call += host_time;
    }

    /// Which limit is reached, if any.
    pub(crate) fn reached(&self) -> Option<TimeLimit> {
        let in_call = self.in_call();
        if in_call >= self.call_limit {
            Some(TimeLimit::Call)
        } else if self.spent + in_call >= self.total_limit {
            Some(TimeLimit::Total)
        } else {
            None
        }
    }

    /// Seconds the guest ran.
    pub(crate) fn guest_seconds(&self) -> f64 {
        (self.spent + self.in_call()).as_secs_f64()
    }

    fn in_call(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| {
            started.elapsed().saturating_sub(self.host_in_call)
        })
    }
}

/// Puts the limits on a store: memory, handles, bytes per host call, a ledger of each call into the
/// host, and a look at the clock with every tick, at which other tasks get their turn.
pub(crate) fn enforce(store: &mut Store<State>, limits: &Limits) {
    store.limiter(|state| &mut state.meter);
    store.set_hostcall_fuel(limits.output_bytes.to_usize());
    store.set_max_component_handles(limits.resources as usize);
    store.call_hook(|mut store, hook| {
        store.data_mut().ledger.crossed(hook);
        Ok(())
    });
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| {
        let state = store.data_mut();
        // Waiting for a thread is not the guest's own time.
        state.clock.excuse(state.share.waited());
        if let Some(limit) = state.clock.reached() {
            return Err(OutOfTime(limit).into());
        }
        if let Some(over) = state.actor.over() {
            return Err(over.into());
        }
        if let Some(strayed) = conduct::strayed(state) {
            return Err(strayed.into());
        }
        // Nor is a pause.
        state.clock.excuse(state.watch.pause());
        Ok(state.watch.tick(&state.share))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::{ByteSize, TimeSpan};

    fn limits(memory: u64, tables: u32) -> Limits {
        Limits {
            memory: ByteSize::from_bytes(memory),
            table_elements: tables,
            call_timeout: TimeSpan::from_millis(20),
            total_timeout: TimeSpan::from_millis(30),
            ..Limits::default()
        }
    }

    #[test]
    fn memory_is_counted_over_all_memories() {
        let mut meter = Meter::new(&limits(100, 10));
        assert!(meter.memory_growing(0, 60, None).expect("counted"));
        assert!(
            !meter.memory_growing(0, 60, None).expect("counted"),
            "a second memory counts too"
        );
        assert!(meter.memory_refused);
        assert!(meter.memory_growing(60, 100, None).expect("counted"));
        assert_eq!(meter.peak_memory_bytes(), 100);
    }

    #[test]
    fn a_growth_that_fails_is_taken_back() {
        let mut meter = Meter::new(&limits(100, 10));
        assert!(meter.memory_growing(0, 80, None).expect("counted"));
        meter
            .memory_grow_failed(wasmtime::Error::msg("no pages"))
            .expect("noted");
        assert!(meter.memory_growing(0, 100, None).expect("counted"));
    }

    #[test]
    fn a_memorys_own_maximum_is_not_a_lack_of_memory() {
        let mut meter = Meter::new(&limits(100, 10));
        assert!(!meter.memory_growing(10, 30, Some(20)).expect("counted"));
        assert!(!meter.memory_refused);
    }

    #[test]
    fn tables_are_counted_together() {
        let mut meter = Meter::new(&limits(100, 10));
        assert!(meter.table_growing(0, 6, None).expect("counted"));
        assert!(!meter.table_growing(0, 6, None).expect("counted"));
        assert!(meter.table_growing(0, 4, None).expect("counted"));
    }

    #[test]
    fn calls_and_their_sum_are_limited_and_host_time_is_excused() {
        let mut clock = CallClock::new(&limits(1, 1));
        assert_eq!(clock.left_in_call(), Duration::from_millis(20));
        clock.start().expect("time left");
        std::thread::sleep(Duration::from_millis(25));
        assert_eq!(clock.reached(), Some(TimeLimit::Call));
        clock.excuse(Duration::from_millis(20));
        assert_eq!(clock.reached(), None);
        clock.excuse(Duration::from_secs(1));
        clock.stop();
        assert_eq!(clock.guest_seconds(), 0.0);
        clock.start().expect("time left");
        std::thread::sleep(Duration::from_millis(31));
        clock.stop();
        assert!(clock.start().is_err(), "the total is used up");
    }
}
