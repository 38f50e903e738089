//! What was served, summed up for the audit log: a line a minute, not a line a prediction.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sandcast_audit::{AuditError, AuditLog, Event};
use tokio::time::MissedTickBehavior;

use crate::app::App;

/// Requests by model and version since they were last written down.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pending: Mutex<BTreeMap<(String, u64), Sum>>,
    total: Mutex<Sum>,
}

/// Requests to a model, answered or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) requests: u64,
    pub(crate) rows: u64,
    pub(crate) failures: u64,
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.requests += other.requests;
        self.rows += other.rows;
        self.failures += other.failures;
    }
}

impl Served {
    /// Begins to record a request. It counts when the guard is dropped, as a failure unless it was
    /// marked as answered: a client that goes away does not make it unseen.
    pub(crate) fn record<'a>(&'a self, model: &'a str, version: u64) -> Record<'a> {
        Record {
            served: self,
            model,
            version,
            answered_rows: None,
        }
    }

    /// Everything since the server began.
    pub(crate) fn total(&self) -> Sum {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is pending to the audit log. What cannot be written stays pending.
    pub(crate) fn write(&self, audit: &AuditLog) -> Result<(), AuditError> {
        let mut pending =
            std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(((model, version), sum)) = pending.pop_first() {
            let event = Event::PredictionsServed {
                model: model.clone(),
                version,
                count: sum.requests,
                rows: sum.rows,
                failures: sum.failures,
            };
            if let Err(error) = audit.append(event) {
                pending.insert((model, version), sum);
                let mut current = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                for (key, sum) in pending {
                    current.entry(key).or_default().add(sum);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// A request that is being answered.
pub(crate) struct Record<'a> {
    served: &'a Served,
    model: &'a str,
    version: u64,
    answered_rows: Option<u64>,
}

impl Record<'_> {
    pub(crate) fn answered(&mut self, rows: u64) {
        self.answered_rows = Some(rows);
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let sum = Sum {
            requests: 1,
            rows: self.answered_rows.unwrap_or(0),
            failures: u64::from(self.answered_rows.is_none()),
        };
        self.served
            .total
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(sum);
        let mut pending = self
            .served
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        pending
            .entry((self.model.to_owned(), self.version))
            .or_default()
            .add(sum);
    }
}

/// Writes at every interval, until dropped.
pub(crate) async fn keep_writing(app: Arc<App>, audit: AuditLog) {
    let mut ticks = tokio::time::interval(app.config.audit_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let (app, audit) = (Arc::clone(&app), audit.clone());
        let written = tokio::task::spawn_blocking(move || app.write_sums(&audit)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "served predictions are not in the audit log yet");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(audit: &AuditLog) -> Vec<Event> {
        audit
            .entries()
            .expect("entries")
            .into_iter()
            .map(|entry| entry.event)
            .collect()
    }

    #[test]
    fn requests_are_summed_by_version() {
        let served = Served::default();
        served.record("m", 1).answered(3);
        served.record("m", 1).answered(4);
        served.record("m", 2).answered(1);
        let audit = AuditLog::in_memory();
        served.write(&audit).expect("written");
        served.write(&audit).expect("nothing to write");
        let line = |version, count, rows, failures| Event::PredictionsServed {
            model: "m".to_owned(),
            version,
            count,
            rows,
            failures,
        };
        assert_eq!(events(&audit), [line(1, 2, 7, 0), line(2, 1, 1, 0)]);
        assert_eq!(
            served.total(),
            Sum {
                requests: 3,
                rows: 8,
                failures: 0
            }
        );
    }

    #[test]
    fn a_request_that_was_given_up_counts_as_a_failure() {
        let served = Served::default();
        drop(served.record("m", 1));
        assert_eq!(
            served.total(),
            Sum {
                requests: 1,
                rows: 0,
                failures: 1
            }
        );
    }
}
