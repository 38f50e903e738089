//! Requests in a minute, of all instances of a plugin together.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::HttpGrant;

const MINUTE: f64 = 60.0;

/// What is left of each grant's minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rates(Arc<[Option<Rate>]>);

/// Requests that come back over a minute, up to as many as may be sent in one.
#[derive(Debug)]
struct Rate {
    a_minute: NonZeroU32,
    left: Mutex<Left>,
}

#[derive(Debug)]
struct Left {
    requests: f64,
    at: Instant,
}

impl Rates {
    pub(crate) fn of(grants: &[HttpGrant]) -> Self {
        let now = Instant::now();
        let of_grant = |grant: &HttpGrant| Some(Rate::new(grant.requests_per_minute?, now));
        Self(grants.iter().map(of_grant).collect())
    }

    /// Takes a request of the grant at that place, or says how many there are in a minute.
    pub(super) fn take(&self, index: usize) -> Result<(), NonZeroU32> {
        match self.0.get(index) {
            Some(Some(rate)) => rate.take(Instant::now()),
            _ => Ok(()),
        }
    }
}

impl Rate {
    fn new(a_minute: NonZeroU32, now: Instant) -> Self {
        Self {
            a_minute,
            left: Mutex::new(Left {
                requests: a_minute.get().into(),
                at: now,
            }),
        }
    }

    fn take(&self, now: Instant) -> Result<(), NonZeroU32> {
        let most = f64::from(self.a_minute.get());
        // What is inside is whole after each line that changes it.
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(left.at).as_secs_f64();
        left.requests = (left.requests + passed * most / MINUTE).min(most);
        left.at = left.at.max(now);
        if left.requests < 1.0 {
            return Err(self.a_minute);
        }
        left.requests -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn requests_come_back_over_a_minute_and_never_more_than_one_has() {
        let three = NonZeroU32::new(3).expect("a number");
        let begun = Instant::now();
        let rate = Rate::new(three, begun);
        let after = |seconds| begun + Duration::from_secs(seconds);
        for _ in 0..3 {
            assert_eq!(rate.take(begun), Ok(()));
        }
        assert_eq!(rate.take(begun), Err(three));
        assert_eq!(rate.take(after(19)), Err(three), "a third of a minute each");
        assert_eq!(rate.take(after(21)), Ok(()));
        assert_eq!(rate.take(after(21)), Err(three));
        // A clock that seems to stand still or go back gives nothing.
        assert_eq!(rate.take(begun), Err(three));
        for _ in 0..3 {
            assert_eq!(rate.take(after(10_000)), Ok(()));
        }
        assert_eq!(rate.take(after(10_000)), Err(three), "nothing is saved up");
    }
}
