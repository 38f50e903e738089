//! What was served, summed up for the audit log: a line a minute, not a line a prediction.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sandcast_audit::{AuditError, AuditLog, Event};

use crate::app::App;
use crate::budget::{self, Caller};
use crate::models::Loaded;

/// Requests by model, version and who asked, since they were last written down.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pending: Mutex<BTreeMap<Asked, Sum>>,
    total: Mutex<Sum>,
}

/// Which version of which model, and by whom, where that is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    model: String,
    version: u64,
    principal: Option<String>,
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
    pub(crate) fn record(
        &self,
        loaded: &Loaded,
        caller: Option<&Arc<Caller>>,
        counted: Option<budget::Request>,
    ) -> Record<'_> {
        self.record_of(
            Asked {
                model: loaded.model.name.clone(),
                version: loaded.model.version,
                principal: caller.map(|caller| caller.principal.clone()),
            },
            counted,
        )
    }

    fn record_of(&self, asked: Asked, counted: Option<budget::Request>) -> Record<'_> {
        Record {
            served: self,
            asked,
            counted,
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
        while let Some((asked, sum)) = pending.pop_first() {
            let event = Event::PredictionsServed {
                model: asked.model.clone(),
                version: asked.version,
                principal: asked.principal.clone(),
                count: sum.requests,
                rows: sum.rows,
                failures: sum.failures,
            };
            if let Err(error) = audit.append(event) {
                pending.insert(asked, sum);
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
    asked: Asked,
    /// What it takes of the budget of who asks.
    counted: Option<budget::Request>,
    answered_rows: Option<u64>,
}

impl Record<'_> {
    pub(crate) fn answered(&mut self, rows: u64) {
        self.answered_rows = Some(rows);
        if let Some(counted) = &self.counted {
            counted.answered(rows);
        }
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
        pending.entry(self.asked.clone()).or_default().add(sum);
    }
}

/// How soon it is tried again to write what could not be written; nothing is predicted until then.
const AGAIN: Duration = Duration::from_secs(5);

/// Writes at every interval, until dropped.
pub(crate) async fn keep_writing(app: Arc<App>, audit: AuditLog) {
    let interval = app.config.audit_interval;
    loop {
        let wait = match app.is_off_record() {
            true => interval.min(AGAIN),
            false => interval,
        };
        tokio::time::sleep(wait).await;
        let (app, audit) = (Arc::clone(&app), audit.clone());
        let written = tokio::task::spawn_blocking(move || app.write_sums(&audit, false)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "served predictions are not in the audit log yet, so nothing is predicted");
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

    fn asked(version: u64, principal: Option<&str>) -> Asked {
        Asked {
            model: "m".to_owned(),
            version,
            principal: principal.map(str::to_owned),
        }
    }

    #[test]
    fn requests_are_summed_by_version_and_by_who_asked() {
        let served = Served::default();
        served.record_of(asked(1, None), None).answered(3);
        served.record_of(asked(1, None), None).answered(4);
        served.record_of(asked(1, Some("app")), None).answered(5);
        served.record_of(asked(2, None), None).answered(1);
        let audit = AuditLog::in_memory();
        served.write(&audit).expect("written");
        served.write(&audit).expect("nothing to write");
        let line =
            |version, principal: Option<&str>, count, rows, failures| Event::PredictionsServed {
                model: "m".to_owned(),
                version,
                principal: principal.map(str::to_owned),
                count,
                rows,
                failures,
            };
        assert_eq!(
            events(&audit),
            [
                line(1, None, 2, 7, 0),
                line(1, Some("app"), 1, 5, 0),
                line(2, None, 1, 1, 0)
            ]
        );
        assert_eq!(
            served.total(),
            Sum {
                requests: 4,
                rows: 13,
                failures: 0
            }
        );
    }

    #[test]
    fn a_request_that_was_given_up_counts_as_a_failure() {
        let served = Served::default();
        drop(served.record_of(asked(1, None), None));
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
