//! What one instance may spend on tensor programs: bytes, seconds, programs and handles. All is
//! charged before it is used.

use std::time::Duration;

use crate::grants::ComputeGrant;
use crate::tally::Computed;

/// A budget that is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overdrawn {
    /// The key under `grants.compute`.
    pub(crate) key: &'static str,
    /// What was wanted, of how much.
    pub(crate) detail: String,
}

/// What is left to spend.
#[derive(Debug)]
pub(crate) struct Budget {
    memory_limit: u64,
    memory: u64,
    peak_memory: u64,
    time_limit: Duration,
    time: Duration,
    programs_limit: u32,
    programs: u32,
    handles_limit: u32,
    handles: u32,
    flops_limit: u64,
    flops: u64,
}

impl Budget {
    /// Without a grant nothing may be spent; nothing that spends is linked then either.
    pub(crate) fn new(grant: Option<&ComputeGrant>) -> Self {
        Self {
            memory_limit: grant.map_or(0, |grant| grant.memory.bytes()),
            memory: 0,
            peak_memory: 0,
            time_limit: grant.map_or(Duration::ZERO, |grant| grant.time.duration()),
            time: Duration::ZERO,
            programs_limit: grant.map_or(0, |grant| grant.programs),
            programs: 0,
            handles_limit: grant.map_or(0, |grant| grant.handles),
            handles: 0,
            flops_limit: grant.map_or(0, |grant| grant.flops),
            flops: 0,
        }
    }

    /// Bytes that a program may need at one time.
    pub(crate) fn memory_limit(&self) -> u64 {
        self.memory_limit
    }

    /// Takes bytes, until they are given back.
    pub(crate) fn take_memory(&mut self, bytes: u64) -> Result<(), Overdrawn> {
        match self.memory.checked_add(bytes) {
            Some(total) if total <= self.memory_limit => {
                self.memory = total;
                self.peak_memory = self.peak_memory.max(total);
                Ok(())
            }
            _ => Err(Overdrawn {
                key: "memory",
                detail: format!(
                    "wants {bytes} bytes on top of {}, of {} in all",
                    self.memory, self.memory_limit
                ),
            }),
        }
    }

    pub(crate) fn give_memory(&mut self, bytes: u64) {
        self.memory = self.memory.saturating_sub(bytes);
    }

    #[cfg(test)]
    pub(super) fn limit_flops(&mut self, flops: u64) {
        self.flops_limit = flops;
    }

    /// Takes a handle, until it is given back.
    pub(crate) fn take_handle(&mut self) -> Result<(), Overdrawn> {
        if self.handles >= self.handles_limit {
            return Err(Overdrawn {
                key: "handles",
                detail: format!("holds {} things already", self.handles),
            });
        }
        self.handles += 1;
        Ok(())
    }

    pub(crate) fn give_handle(&mut self) {
        self.handles = self.handles.saturating_sub(1);
    }

    /// Takes a program, for good.
    pub(crate) fn take_program(&mut self) -> Result<(), Overdrawn> {
        if self.programs >= self.programs_limit {
            return Err(Overdrawn {
                key: "programs",
                detail: format!("has compiled {} programs already", self.programs),
            });
        }
        self.programs += 1;
        Ok(())
    }

    /// Takes bytes, until they are given back, and operations, for good.
    pub(crate) fn take_run(&mut self, bytes: u64, flops: u64) -> Result<(), Overdrawn> {
        let total = self.flops.saturating_add(flops);
        if total > self.flops_limit {
            return Err(Overdrawn {
                key: "flops",
                detail: format!(
                    "wants {flops} floating-point operations on top of {}, of {} in all",
                    self.flops, self.flops_limit
                ),
            });
        }
        self.take_memory(bytes)?;
        self.flops = total;
        Ok(())
    }

    /// Whether there is time to compute at all.
    pub(crate) fn check_time(&self) -> Result<(), Overdrawn> {
        if self.time_left().is_zero() {
            return Err(Overdrawn {
                key: "time",
                detail: format!("has computed for {:?} already", self.time),
            });
        }
        Ok(())
    }

    pub(crate) fn spend_time(&mut self, time: Duration) {
        self.time = self.time.saturating_add(time);
    }

    /// What was used of it; nothing where no byte was ever held.
    pub(crate) fn used(&self) -> Option<Computed> {
        (self.peak_memory > 0).then_some(Computed {
            programs: self.programs,
            took: self.time,
            peak_bytes: self.peak_memory,
            flops: self.flops,
        })
    }

    pub(crate) fn time_left(&self) -> Duration {
        self.time_limit.saturating_sub(self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::{ByteSize, TimeSpan};

    fn budget() -> Budget {
        Budget::new(Some(&ComputeGrant {
            memory: ByteSize::from_bytes(100),
            time: TimeSpan::from_millis(10),
            programs: 1,
            handles: 2,
            flops: 1000,
            ..ComputeGrant::default()
        }))
    }

    #[test]
    fn memory_and_handles_come_back_and_programs_and_time_do_not() {
        let mut budget = budget();
        budget.take_memory(60).expect("60 of 100");
        assert_eq!(
            budget.take_memory(60).expect_err("120 of 100").key,
            "memory"
        );
        budget.give_memory(60);
        budget.take_memory(100).expect("all of it");
        budget.take_handle().expect("one");
        budget.take_handle().expect("two");
        assert_eq!(budget.take_handle().expect_err("three").key, "handles");
        budget.give_handle();
        budget.take_handle().expect("two again");
        budget.take_program().expect("one");
        assert_eq!(budget.take_program().expect_err("two").key, "programs");
        budget.check_time().expect("some time");
        budget.spend_time(Duration::from_millis(10));
        assert_eq!(budget.check_time().expect_err("no time").key, "time");
    }

    #[test]
    fn operations_are_spent_where_their_bytes_are_there() {
        let mut budget = budget();
        assert_eq!(budget.used(), None);
        budget.take_run(10, 600).expect("600 of 1000");
        assert_eq!(budget.take_run(10, 401).expect_err("1001").key, "flops");
        assert_eq!(budget.take_run(100, 400).expect_err("110").key, "memory");
        budget.take_run(0, 400).expect("all of them");
        assert_eq!(budget.take_run(0, u64::MAX).expect_err("more").key, "flops");
        let used = budget.used().expect("something was held");
        assert_eq!((used.flops, used.peak_bytes), (1000, 10));
    }

    #[test]
    fn without_a_grant_nothing_may_be_spent() {
        let mut budget = Budget::new(None);
        assert!(budget.take_memory(1).is_err());
        assert!(budget.take_run(0, 1).is_err());
        assert!(budget.take_handle().is_err());
        assert!(budget.take_program().is_err());
        assert!(budget.check_time().is_err());
    }

    #[test]
    fn a_sum_that_overflows_is_over_budget() {
        let mut budget = budget();
        budget.take_memory(1).expect("one byte");
        assert!(budget.take_memory(u64::MAX).is_err());
    }
}
