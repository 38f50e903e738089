//! The time, by `wasi:clocks`. Where it is not granted and a guest's standard library asks all
//! the same, the clock stands still.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::{monotonic_clock, wall_clock};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder};

use super::{Capability, Grants};
use crate::state::State;

/// Gives an instance its clocks.
pub(crate) fn open(builder: &mut WasiCtxBuilder, grants: &Grants) {
    if !grants.clock {
        builder
            .wall_clock(StandingClock)
            .monotonic_clock(StandingCounter::default());
    }
}

/// Links `wasi:clocks`.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wall_clock::add_to_linker::<State, Clocks>(linker, |state| ClocksView(state))?;
    monotonic_clock::add_to_linker::<State, Clocks>(linker, |state| ClocksView(state))
}

struct Clocks;

impl HasData for Clocks {
    type Data<'a> = ClocksView<'a>;
}

/// What answers, on the state of an instance.
pub(crate) struct ClocksView<'a>(pub(crate) &'a mut State);

impl ClocksView<'_> {
    pub(crate) fn call(&mut self, name: &'static str) {
        self.0.ledger.count(name);
        if !self.0.identity.grants.clock {
            self.0.deny(
                Capability::Clock,
                "asked for the time, and was given a fixed one".into(),
            );
        }
    }
}

impl wall_clock::Host for ClocksView<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        self.call("clock.now");
        let now = wall_clock::Host::now(&mut self.0.clocks())?;
        let now = (now.seconds, now.nanoseconds);
        let (seconds, nanoseconds) = self.0.ledger.outside(|| now)?;
        Ok(wall_clock::Datetime {
            seconds,
            nanoseconds,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        self.call("clock.resolution");
        wall_clock::Host::resolution(&mut self.0.clocks())
    }
}

impl monotonic_clock::Host for ClocksView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.call("clock.monotonic-now");
        let now = monotonic_clock::Host::now(&mut self.0.clocks())?;
        self.0.ledger.outside(|| now)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.call("clock.monotonic-resolution");
        monotonic_clock::Host::resolution(&mut self.0.clocks())
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.call("clock.subscribe-instant");
        self.0.clocks().subscribe_instant(when)
    }

    fn subscribe_duration(&mut self, duration: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.call("clock.subscribe-duration");
        self.0.clocks().subscribe_duration(duration)
    }
}

/// Always the start of 1970.
struct StandingClock;

impl HostWallClock for StandingClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// A nanosecond later at every look, so that nothing waits for it forever.
#[derive(Default)]
struct StandingCounter(AtomicU64);

impl HostMonotonicClock for StandingCounter {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
