//! What keeps a plugin that runs for long, or fails again and again, from taking the threads that the
//! others wait for.
//!
//! A guest gives way with every tick, and so far that is all: two that compute for seconds are on two
//! threads for seconds. With a [`Fairness`], calls beyond their first tick take turns on fewer threads
//! than there are, and a plugin whose instances fail one after the other waits before the next one.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest that a call waits for its turn at a tick. It then goes on all the same, so that a turn
/// which is held while the host computes holds nobody up for long.
const LONGEST_TURN: Duration = Duration::from_millis(100);

/// Instances that may fail on end before the next one waits.
const FREE_FAILURES: u32 = 3;

/// The wait after one failure more; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(10);

/// After so long without a failure, all is forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(30);

/// How calls share the threads of a host that answers many at a time.
#[derive(Clone, Debug)]
pub struct Fairness {
    /// Calls beyond their first tick that go on at one time; the others take turns.
    pub long_calls: NonZeroUsize,
    /// The longest that the next instance of a plugin waits whose instances fail one after the other.
    pub back_off: Duration,
}

impl Fairness {
    /// One thread is kept free of long calls, where there is more than one.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            long_calls: NonZeroUsize::new(threads - 1).unwrap_or(NonZeroUsize::MIN),
            back_off: Duration::from_secs(1),
        }
    }
}

/// The turns of one instance; nothing where calls do not take any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(Option<Arc<Taking>>);

#[derive(Debug)]
struct Taking {
    turns: Arc<Semaphore>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    turn: Option<OwnedSemaphorePermit>,
    waited: Duration,
}

impl Turns {
    pub(crate) fn of(turns: Option<&Arc<Semaphore>>) -> Self {
        Self(turns.map(|turns| {
            Arc::new(Taking {
                turns: Arc::clone(turns),
                held: Mutex::default(),
            })
        }))
    }

    /// Ends the turn that is held: how long it was waited for.
    pub(crate) fn end(&self) -> Duration {
        let Some(taking) = &self.0 else {
            return Duration::ZERO;
        };
        let mut held = taking.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.turn = None;
        std::mem::take(&mut held.waited)
    }

    /// Gives way, and waits for the next turn. None where there is none to wait for.
    pub(crate) fn next(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let taking = Arc::clone(self.0.as_ref()?);
        Some(async move {
            let began = Instant::now();
            tokio::task::yield_now().await;
            let turn = Arc::clone(&taking.turns).acquire_owned();
            let turn = tokio::time::timeout(LONGEST_TURN, turn).await;
            let mut held = taking.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.turn = turn.ok().and_then(Result::ok);
            held.waited += began.elapsed();
        })
    }

    /// How long a wall clock may wait for what takes a guest so long that waits for no turns.
    pub(crate) fn patience(&self, alone: Duration, tick: Duration) -> Duration {
        match self.0 {
            None => alone,
            Some(_) => alone.mul_f64(1.0 + LONGEST_TURN.as_secs_f64() / tick.as_secs_f64()),
        }
    }
}

/// How the instances of a plugin fare.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Failures>);

#[derive(Debug, Default)]
struct Failures {
    on_end: u32,
    last: Option<Instant>,
    /// The next instance starts no earlier.
    next: Option<Instant>,
}

impl Health {
    /// An instance has ended, well or by its own fault.
    pub(crate) fn ended(&self, well: bool) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if well {
            *failures = Failures::default();
            return;
        }
        let now = Instant::now();
        if failures
            .last
            .is_some_and(|last| now.duration_since(last) > FORGIVEN_AFTER)
        {
            *failures = Failures::default();
        }
        failures.on_end = failures.on_end.saturating_add(1);
        failures.last = Some(now);
    }

    /// When the next instance may start: now, later, or, where others wait already for longer than
    /// `most`, not at all.
    pub(crate) fn next_start(&self, most: Duration) -> Result<Option<Instant>, String> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (Some(over), Some(last)) = (failures.on_end.checked_sub(FREE_FAILURES), failures.last)
        else {
            return Ok(None);
        };
        if now.duration_since(last) > FORGIVEN_AFTER {
            *failures = Failures::default();
            return Ok(None);
        }
        let wait = FIRST_WAIT.saturating_mul(1 << over.min(16)).min(most);
        let start = failures.next.unwrap_or(last).max(last) + wait;
        // One at a time: who comes next is behind this one.
        if start > now + most {
            return Err(format!(
                "its last {} instances failed one after the other, and others wait to try again; it gets \
                 one instance every {wait:?} until one ends well",
                failures.on_end
            ));
        }
        failures.next = Some(start);
        Ok((start > now).then_some(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(1);

    #[test]
    fn a_plugin_that_fails_on_end_waits_longer_each_time_and_others_are_told() {
        let health = Health::default();
        assert_eq!(health.next_start(MOST), Ok(None));
        for _ in 0..FREE_FAILURES {
            assert_eq!(health.next_start(MOST), Ok(None), "some are free");
            health.ended(false);
        }
        for _ in 0..10 {
            health.ended(false);
        }
        let start = health.next_start(MOST).expect("the first may");
        let wait = start.expect("it waits").duration_since(Instant::now());
        assert!(wait <= MOST, "{wait:?}");
        let refused = health
            .next_start(MOST)
            .expect_err("the second would wait for longer");
        assert!(refused.contains("13 instances failed"), "{refused}");
        health.ended(true);
        assert_eq!(
            health.next_start(MOST),
            Ok(None),
            "one that ends well is enough"
        );
    }

    #[tokio::test]
    async fn calls_take_turns_and_none_waits_for_ever() {
        let turns = Arc::new(Semaphore::new(1));
        let (one, two) = (Turns::of(Some(&turns)), Turns::of(Some(&turns)));
        one.next().expect("turns are taken").await;
        assert_eq!(turns.available_permits(), 0);
        // The other goes on without one after a while, and its wait is known.
        two.next().expect("turns are taken").await;
        assert!(two.end() >= LONGEST_TURN);
        assert!(one.end() < LONGEST_TURN);
        assert_eq!(turns.available_permits(), 1);
        two.next().expect("turns are taken").await;
        assert_eq!(turns.available_permits(), 0);
        drop(two);
        assert_eq!(turns.available_permits(), 1, "it goes with its instance");
        assert!(Turns::default().next().is_none());
    }
}
