//! What each caller has taken of its budget.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandcast_access::Budget;

use crate::error::ApiError;

/// Somebody who is known, with what they may take and have taken.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) principal: String,
    taken: Mutex<Taken>,
}

#[derive(Debug)]
struct Taken {
    budget: Budget,
    requests: Bucket,
    rows: Bucket,
    under_way: u32,
}

/// What is left of an amount that comes back over a minute. A request is let through while there is
/// something left, and may take more than that; the next ones then wait until it is back.
#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

const MINUTE: f64 = 60.0;

impl Bucket {
    fn full(of: f64) -> Self {
        Self {
            left: of,
            at: Instant::now(),
        }
    }

    /// How long until there is enough for `wanted`; nothing where there is.
    fn wait_for(&mut self, wanted: f64, a_minute: f64) -> Option<Duration> {
        let now = Instant::now();
        let passed = now.duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * a_minute / MINUTE).min(a_minute);
        self.at = now;
        let missing = wanted - self.left;
        (missing > 0.0).then(|| Duration::from_secs_f64(missing * MINUTE / a_minute))
    }
}

impl Caller {
    fn new(principal: &str, budget: Budget) -> Self {
        Self {
            principal: principal.to_owned(),
            taken: Mutex::new(Taken::of(budget)),
        }
    }

    /// Takes a request out of the budget, or says why not. Rows are taken when they are answered.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Request, ApiError> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let budget = taken.budget;
        if budget
            .at_once
            .is_some_and(|most| taken.under_way >= most.get())
        {
            return Err(self.over(budget, Duration::from_secs(1)));
        }
        let rows = budget.rows_per_minute.and_then(|a_minute| {
            // One row more must be there.
            taken.rows.wait_for(1.0, a_minute.get() as f64)
        });
        let requests = budget
            .requests_per_minute
            .and_then(|a_minute| taken.requests.wait_for(1.0, f64::from(a_minute.get())));
        if let Some(wait) = rows.max(requests) {
            return Err(self.over(budget, wait));
        }
        taken.requests.left -= 1.0;
        taken.under_way += 1;
        drop(taken);
        Ok(Request {
            caller: Arc::clone(self),
        })
    }

    fn over(&self, budget: Budget, wait: Duration) -> ApiError {
        let seconds = wait.as_secs_f64().ceil().max(1.0);
        ApiError::over_budget(
            format!(
                "`{}` has taken what it may: {budget}; try again in {seconds} s",
                self.principal
            ),
            seconds as u64,
        )
    }

    /// Holds it to another budget from now on.
    fn change(&self, budget: Budget) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.budget != budget {
            let under_way = taken.under_way;
            *taken = Taken {
                under_way,
                ..Taken::of(budget)
            };
        }
    }
}

impl Taken {
    fn of(budget: Budget) -> Self {
        let requests = budget.requests_per_minute.map_or(0.0, |it| it.get().into());
        let rows = budget.rows_per_minute.map_or(0.0, |it| it.get() as f64);
        Self {
            budget,
            requests: Bucket::full(requests),
            rows: Bucket::full(rows),
            under_way: 0,
        }
    }
}

/// A request that counts as under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Request {
    caller: Arc<Caller>,
}

impl Request {
    /// Takes rows that were answered out of the budget.
    pub(crate) fn answered(&self, rows: u64) {
        let mut taken = self
            .caller
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.rows.left -= rows as f64;
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut taken = self
            .caller
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.under_way = taken.under_way.saturating_sub(1);
    }
}

/// Everybody who asked, by name: as many as there are principals.
#[derive(Debug, Default)]
pub(crate) struct Callers(Mutex<HashMap<String, Arc<Caller>>>);

impl Callers {
    /// Somebody, with the budget that they have now.
    pub(crate) fn of(&self, principal: &str, budget: Budget) -> Arc<Caller> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let caller = all
            .entry(principal.to_owned())
            .or_insert_with(|| Arc::new(Caller::new(principal, budget)));
        caller.change(budget);
        Arc::clone(caller)
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use super::*;

    fn caller(budget: Budget) -> Arc<Caller> {
        Callers::default().of("bank-app", budget)
    }

    #[test]
    fn requests_under_way_are_bounded_and_come_back() {
        let caller = caller(Budget {
            at_once: NonZeroU32::new(2),
            ..Budget::default()
        });
        let one = caller.begin().expect("one");
        let _two = caller.begin().expect("two");
        let refused = caller.begin().expect_err("a third");
        assert_eq!(refused.retry_after, Some(1));
        assert!(refused.message.contains("2 at once"), "{}", refused.message);
        drop(one);
        caller.begin().expect("again");
    }

    #[test]
    fn requests_and_rows_come_back_over_a_minute() {
        let budget = Budget {
            requests_per_minute: NonZeroU32::new(3),
            rows_per_minute: NonZeroU64::new(100),
            ..Budget::default()
        };
        let caller = caller(budget);
        for _ in 0..3 {
            caller.begin().expect("of three");
        }
        let refused = caller.begin().expect_err("a fourth");
        assert!((15..=21).contains(&refused.retry_after.unwrap_or_default()));

        let callers = Callers::default();
        let caller = callers.of("bank-app", budget);
        // More than there is may be taken once; what is owed comes back first.
        caller.begin().expect("the first").answered(250);
        let refused = caller.begin().expect_err("it owes rows");
        assert!((85..=92).contains(&refused.retry_after.unwrap_or_default()));
        // Another budget is a fresh one; the same is not.
        assert!(callers.of("bank-app", budget).begin().is_err());
        let wider = Budget::default();
        for _ in 0..100 {
            callers.of("bank-app", wider).begin().expect("no bounds");
        }
        callers.of("other", budget).begin().expect("its own");
    }
}
