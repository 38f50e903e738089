//! Whether the adapter of a model that is served may still run: an operator can quarantine it, or
//! another process can, while it answers; and who signed it can be trusted no more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sandcast_factory::conduct::Admission;
use sandcast_factory::{ServedModel, Workspace, check_trust};
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::error::{FailureCause, PredictError};
use crate::trust::TrustWatch;

/// How long an answer holds. Looking costs well below a millisecond where nothing has changed.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);

/// How long others go by what was known before a look that does not come back.
const STALE: Duration = Duration::from_secs(15);

/// Looks at every model that is loaded at every interval, until dropped, so that a server that nobody
/// asks finds out too. One is looked at after the other.
pub(crate) async fn keep_looking(app: Arc<App>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let refused = app.models.refused().await;
        app.telemetry.models_refused.set(refused as i64);
    }
}

/// The standing of one adapter, looked at now and then.
pub(crate) struct StandingWatch {
    watched: Arc<Watched>,
}

struct Watched {
    workspace: Arc<Workspace>,
    served: ServedModel,
    /// The rules of trust, where the operator has some.
    trust: Option<Arc<TrustWatch>>,
    known: Mutex<Known>,
}

struct Known {
    looked: Instant,
    /// Whether somebody looks now.
    is_looking: bool,
    /// When a look came back last.
    answered: Instant,
    refusal: Option<String>,
    /// The rules that the version was held to last, and how that went.
    trusted: (u64, Option<String>),
}

impl Known {
    /// Why it may not run, by what is known, if it may not.
    fn refusal_now(&self) -> Option<String> {
        let silence = self.answered.elapsed();
        match &self.refusal {
            None if self.is_looking && silence > STALE => Some(format!(
                "whether its adapter may run could not be found out for {} s",
                silence.as_secs()
            )),
            refusal => refusal.clone(),
        }
    }

    /// A look came back.
    fn answer(&mut self, refusal: Option<String>) {
        self.refusal = refusal;
        self.answered = Instant::now();
        self.is_looking = false;
    }
}

impl StandingWatch {
    /// Of a version that was let in just now, under the rules of trust with this number.
    pub(crate) fn new(
        workspace: Arc<Workspace>,
        served: ServedModel,
        trust: Option<Arc<TrustWatch>>,
        generation: u64,
    ) -> Self {
        Self {
            watched: Arc::new(Watched {
                workspace,
                served,
                trust,
                known: Mutex::new(Known {
                    looked: Instant::now(),
                    is_looking: false,
                    answered: Instant::now(),
                    refusal: None,
                    trusted: (generation, None),
                }),
            }),
        }
    }

    /// Whether it may run, as it was within the last two seconds.
    pub(crate) async fn check(&self) -> Result<(), PredictError> {
        let is_due = {
            let mut known = self.watched.known();
            let is_due = known.looked.elapsed() >= INTERVAL && !known.is_looking;
            if is_due {
                // Others go by what is known until this one is back.
                known.looked = Instant::now();
                known.is_looking = true;
            }
            is_due
        };
        if is_due {
            // A task of its own: a client that hangs up meanwhile does not take the answer along, for
            // which nobody else looks.
            let watched = Arc::clone(&self.watched);
            let looking = tokio::spawn(async move { watched.look().await });
            if let Err(error) = looking.await {
                // What cannot be known is a no.
                self.watched.known().answer(Some(error.to_string()));
            }
        }
        match self.watched.known().refusal_now() {
            None => Ok(()),
            Some(message) => Err(PredictError {
                cause: FailureCause::Refused,
                message,
            }),
        }
    }
}

impl Watched {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds out whether it may run, and keeps that.
    async fn look(&self) {
        let refusal = self.refusal().await;
        let version = self.served.version();
        let model = format!("{}@{}", version.model, version.version);
        let mut known = self.known();
        match (&known.refusal, &refusal) {
            (None, Some(refusal)) => tracing::warn!(%model, %refusal, "a model may not run"),
            (Some(_), None) => tracing::info!(%model, "a model may run again"),
            _ => {}
        }
        known.answer(refusal);
    }

    /// Why it may not run, if it may not.
    async fn refusal(&self) -> Option<String> {
        let (workspace, served) = (Arc::clone(&self.workspace), self.served.clone());
        let trust = self.trust.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let (conduct, adapter) = (workspace.conduct(), &served.version().adapter);
            let let_in = conduct.let_in(adapter, Admission::Automatic, None);
            let held = let_in.and_then(|record| served.hold(&record));
            held.map_err(|error| error.to_string())?;
            trust.map(|trust| trust.generation()).transpose()
        });
        // What cannot be known is a no.
        match looking.await {
            Err(error) => Some(error.to_string()),
            Ok(Err(refusal)) => Some(refusal),
            Ok(Ok(None)) => None,
            Ok(Ok(Some(generation))) => self.distrust(generation).await,
        }
    }

    /// Why its signatures are not enough under the rules of trust with this number, if they are not.
    async fn distrust(&self, generation: u64) -> Option<String> {
        let (known, refusal) = {
            let known = self.known();
            known.trusted.clone()
        };
        if known == generation {
            return refusal;
        }
        let checked = check_trust(&self.workspace, self.served.version()).await;
        let refusal = checked.err().map(|error| error.to_string());
        self.known().trusted = (generation, refusal.clone());
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_holds_while_somebody_looks_and_not_for_long() {
        let now = Instant::now();
        let ago = |time: Duration| now.checked_sub(time).expect("the machine is up so long");
        let mut known = Known {
            looked: now,
            is_looking: true,
            answered: ago(Duration::from_secs(1)),
            refusal: None,
            trusted: (0, None),
        };
        assert_eq!(known.refusal_now(), None, "the look is under way");
        known.answered = ago(STALE + Duration::from_secs(1));
        let refusal = known.refusal_now().expect("it does not come back");
        assert!(
            refusal.contains("could not be found out for 16 s"),
            "{refusal}"
        );
        known.is_looking = false;
        assert_eq!(known.refusal_now(), None, "nobody asked since");
        known.is_looking = true;
        known.answer(Some("it is quarantined".to_owned()));
        known.answered = ago(STALE * 2);
        assert_eq!(known.refusal_now().as_deref(), Some("it is quarantined"));
        known.answer(None);
        assert_eq!(known.refusal_now(), None, "it came back");
    }
}
