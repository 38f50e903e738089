//! Whether the adapter of a model that is served may still run: an operator can quarantine it, or
//! another process can, while it answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandcast_audit::PluginRef;
use sandcast_factory::Workspace;
use sandcast_factory::conduct::Admission;

use crate::error::{FailureCause, PredictError};

/// How long an answer holds. Looking costs well below a millisecond where nothing has changed.
const INTERVAL: Duration = Duration::from_secs(2);

/// The standing of one adapter, looked at now and then.
pub(crate) struct StandingWatch {
    workspace: Arc<Workspace>,
    adapter: PluginRef,
    known: Mutex<Known>,
}

struct Known {
    looked: Instant,
    refusal: Option<String>,
}

impl StandingWatch {
    /// Of an adapter that was let in just now.
    pub(crate) fn new(workspace: Arc<Workspace>, adapter: PluginRef) -> Self {
        Self {
            workspace,
            adapter,
            known: Mutex::new(Known {
                looked: Instant::now(),
                refusal: None,
            }),
        }
    }

    /// Whether it may run, as it was within the last two seconds.
    pub(crate) async fn check(&self) -> Result<(), PredictError> {
        let is_due = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = known.looked.elapsed() >= INTERVAL;
            if is_due {
                // Others go by what is known until this one is back.
                known.looked = Instant::now();
            }
            is_due
        };
        if is_due {
            let (workspace, adapter) = (Arc::clone(&self.workspace), self.adapter.clone());
            let looking = tokio::task::spawn_blocking(move || {
                let let_in = workspace
                    .conduct()
                    .let_in(&adapter, Admission::Automatic, None);
                let_in.err().map(|error| error.to_string())
            });
            // What cannot be known is a no.
            let refusal = looking
                .await
                .unwrap_or_else(|error| Some(error.to_string()));
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.refusal = refusal;
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &known.refusal {
            None => Ok(()),
            Some(refusal) => Err(PredictError {
                cause: FailureCause::Denied,
                message: refusal.clone(),
            }),
        }
    }
}
