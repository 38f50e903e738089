//! Holds an instance to what its plugin usually does, below what it is granted.
//!
//! Whoever knows what is usual makes [`Bounds`]; here they are looked at with every tick of the
//! clock while the guest runs, and when each call ends, before what it returned is used. So what an
//! instance does beyond them goes on for a tick at most, and comes to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::UpdateDeadline;

use crate::engine::TICK;
use crate::fairness::Share;
use crate::state::State;

/// What an instance may come to before it is ended, and how fast it may go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    /// By stage. A stage that is not here has none.
    pub stages: BTreeMap<String, Arc<StageBounds>>,
    /// The share of its time that a guest may run, in percent; it is paused for the rest.
    pub pace_percent: Option<u8>,
}

/// What an instance may come to in one stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageBounds {
    /// The host's functions that it may call.
    pub functions: BTreeSet<String>,
    /// Where its requests may go, as [`egress_of`] names it.
    pub targets: BTreeSet<String>,
    /// Calls into the host.
    pub host_calls: u64,
    /// Bytes copied into it.
    pub bytes_in: u64,
    /// Bytes copied out of it.
    pub bytes_out: u64,
    /// Its own time.
    pub guest_seconds: f64,
    /// Its linear memories.
    pub memory_bytes: u64,
    /// What it may come to besides for each row that it has made or was lent.
    pub for_each_row: RowBounds,
}

/// What an instance may come to for a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowBounds {
    /// Calls into the host.
    pub host_calls: f64,
    /// Bytes copied into it.
    pub bytes_in: f64,
    /// Bytes copied out of it.
    pub bytes_out: f64,
    /// Its own time.
    pub guest_seconds: f64,
}

/// Where an effect goes, as far as it tells plugins apart: the method, the host and the first
/// segment of the path of a request; `POST https://api.example.com/v1` for
/// `POST https://api.example.com/v1/people/7`.
#[must_use]
pub fn egress_of(target: &str) -> String {
    let Some((before, rest)) = target.split_once("://") else {
        return target.to_owned();
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let segment = path.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{before}://{host}/{segment}")
}

/// The error that a guest beyond its bounds is stopped with.
#[derive(Debug)]
pub(crate) struct Strayed(pub(crate) String);

impl fmt::Display for Strayed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Strayed {}

/// The bounds of one instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    bounds: Option<Arc<StageBounds>>,
    pause: Duration,
}

impl Watch {
    pub(crate) fn new(bounds: Option<&Bounds>, stage: &str) -> Self {
        let Some(bounds) = bounds else {
            return Self::default();
        };
        let share = bounds.pace_percent.unwrap_or(100).clamp(1, 100);
        Self {
            bounds: bounds.stages.get(stage).cloned(),
            pause: TICK.mul_f64(f64::from(100 - share) / f64::from(share)),
        }
    }

    /// How long a wall clock may wait for what takes a guest that is not paused so long.
    pub(crate) fn patience(&self, unpaused: Duration) -> Duration {
        let longer = 1.0 + self.pause.as_secs_f64() / TICK.as_secs_f64();
        unpaused.mul_f64(longer)
    }

    /// The pauses in so much time of a guest.
    pub(crate) fn paused_of(&self, took: Duration) -> Duration {
        let pause = self.pause.as_secs_f64();
        took.mul_f64(pause / (TICK.as_secs_f64() + pause))
    }

    /// What a tick comes to for a guest that may go on.
    pub(crate) fn tick(&self, share: &Share) -> UpdateDeadline {
        let pause = self.pause;
        match share.give_way() {
            None if pause.is_zero() => UpdateDeadline::Yield(1),
            None => UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(pause))),
            Some(way) => UpdateDeadline::YieldCustom(
                1,
                Box::pin(async move {
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                    way.await;
                }),
            ),
        }
    }

    pub(crate) fn pause(&self) -> Duration {
        self.pause
    }

    /// Whether a request may be sent.
    pub(crate) fn allows_target(&self, target: &str) -> bool {
        let bounds = self.bounds.as_ref();
        bounds.is_none_or(|bounds| bounds.targets.contains(&egress_of(target)))
    }
}

/// What an instance did beyond its bounds, if anything.
pub(crate) fn strayed(state: &State) -> Option<Strayed> {
    let bounds = state.watch.bounds.as_ref()?;
    if let Some(target) = state.http.strayed() {
        return Some(Strayed(format!("it wanted to send {target}")));
    }
    let mut calls = state.http.calls();
    let http = (calls > 0).then_some(("http.handle", calls));
    for (function, times) in state.ledger.each().chain(http) {
        if !bounds.functions.contains(function) {
            return Some(Strayed(format!("it called `{function}`")));
        }
        calls = calls.saturating_add(times);
    }
    let calls = calls - state.http.calls();
    let seconds = state.clock.guest_seconds();
    let memory = state.meter.peak_memory_bytes();
    let (bytes_in, bytes_out) = (state.ledger.bytes_in(), state.ledger.bytes_out());
    let (rows, each) = (state.ledger.rows() as f64, &bounds.for_each_row);
    let over = |what: &str, came_to: u64, most: u64, for_each: f64| {
        let most = most as f64 + for_each * rows;
        (came_to as f64 > most)
            .then(|| Strayed(format!("it came to {came_to} {what}, over {most:.0}")))
    };
    over(
        "calls into the host",
        calls,
        bounds.host_calls,
        each.host_calls,
    )
    .or_else(|| over("bytes taken in", bytes_in, bounds.bytes_in, each.bytes_in))
    .or_else(|| {
        over(
            "bytes handed out",
            bytes_out,
            bounds.bytes_out,
            each.bytes_out,
        )
    })
    .or_else(|| over("bytes of memory", memory, bounds.memory_bytes, 0.0))
    .or_else(|| {
        let most = bounds.guest_seconds + each.guest_seconds * rows;
        (seconds > most).then(|| Strayed(format!("it ran for {seconds:.3} s, over {most:.3} s")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn egress_is_method_host_and_the_beginning_of_the_path() {
        for (target, egress) in [
            (
                "POST https://a.example/v1/people/7",
                "POST https://a.example/v1",
            ),
            ("GET http://127.0.0.1:80/", "GET http://127.0.0.1:80/"),
            ("GET https://a.example", "GET https://a.example/"),
            ("GET https://a.example/x?y=/z", "GET https://a.example/x"),
            ("something else", "something else"),
        ] {
            assert_eq!(egress_of(target), egress);
        }
    }

    #[test]
    fn a_pace_is_a_pause_after_each_tick() {
        let bounds = |pace_percent| Bounds {
            pace_percent,
            ..Bounds::default()
        };
        let watch = Watch::new(Some(&bounds(Some(25))), "train");
        assert_eq!(watch.pause(), TICK * 3);
        assert_eq!(
            watch.patience(Duration::from_secs(1)),
            Duration::from_secs(4)
        );
        for unpaced in [None, Some(&bounds(None)), Some(&bounds(Some(100)))] {
            let watch = Watch::new(unpaced, "train");
            assert!(watch.pause().is_zero());
            assert_eq!(watch.patience(TICK), TICK);
        }
    }
}
