//! Trainings on threads of their own: whether one was cancelled or is over its time, and who is
//! told how far it has come.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sandcast_kernels::StopReason;

use super::budget::Overdrawn;
use crate::bindings::adapter::sandcast::plugin::types::Failure;
use crate::roles::{ProgressSink, TrainProgress};
use crate::state::State;

/// How often whoever watches is told of steps; of epochs they are always told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Why a training gave no report.
pub(super) enum Stopped {
    Failed(Failure),
    OutOfTime,
}

impl Stopped {
    pub(super) fn failure(self, state: &mut State) -> Failure {
        match self {
            Stopped::Failed(failure) => failure,
            Stopped::OutOfTime => state.overdrawn(Overdrawn {
                key: "time",
                detail: "training took all the time there was".into(),
            }),
        }
    }
}

/// Looks between steps whether a training may go on.
pub(super) struct Watch {
    cancelled: Arc<AtomicBool>,
    started: Instant,
    time_left: Duration,
    progress: Option<ProgressSink>,
    told: Option<Instant>,
    pub(super) out_of_time: bool,
}

impl Watch {
    /// A watch that begins now, and what cancels the training when it is dropped.
    pub(super) fn new(state: &State) -> (Watch, CancelOnDrop) {
        let cancelled = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            cancelled: Arc::clone(&cancelled),
            started: Instant::now(),
            time_left: state.compute.budget.time_left(),
            progress: state.compute.progress.clone(),
            told: None,
            out_of_time: false,
        };
        (watch, CancelOnDrop(cancelled))
    }

    /// The same for what has no steps.
    pub(super) fn of_runs(&self) -> RunWatch {
        RunWatch {
            cancelled: Arc::clone(&self.cancelled),
            started: self.started,
            time_left: self.time_left,
        }
    }

    /// Whether to go on. `now` is asked for where somebody is told; `always` is for what must not
    /// be left out.
    pub(super) fn look(
        &mut self,
        always: bool,
        now: impl FnOnce() -> TrainProgress,
    ) -> ControlFlow<StopReason> {
        if self.cancelled.load(Ordering::Relaxed) {
            return ControlFlow::Break(StopReason::Cancelled);
        }
        if self.started.elapsed() >= self.time_left {
            self.out_of_time = true;
            return ControlFlow::Break(StopReason::Budget {
                what: "compute time".into(),
            });
        }
        if let Some(progress) = &self.progress
            && (always
                || self
                    .told
                    .is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL))
        {
            self.told = Some(Instant::now());
            progress(now());
        }
        ControlFlow::Continue(())
    }
}

/// Looks between pieces of rows whether a run may go on, for all threads that compute it.
pub(super) struct RunWatch {
    cancelled: Arc<AtomicBool>,
    started: Instant,
    time_left: Duration,
}

impl RunWatch {
    /// A watch that begins now, and what cancels the run when it is dropped.
    pub(super) fn new(state: &State) -> (RunWatch, CancelOnDrop) {
        let cancelled = Arc::new(AtomicBool::new(false));
        let watch = RunWatch {
            cancelled: Arc::clone(&cancelled),
            started: Instant::now(),
            time_left: state.compute.budget.time_left(),
        };
        (watch, CancelOnDrop(cancelled))
    }

    pub(super) fn look(&self) -> ControlFlow<StopReason> {
        if self.cancelled.load(Ordering::Relaxed) {
            return ControlFlow::Break(StopReason::Cancelled);
        }
        if self.started.elapsed() >= self.time_left {
            return ControlFlow::Break(StopReason::Budget {
                what: "compute time".into(),
            });
        }
        ControlFlow::Continue(())
    }
}

/// Tells a thread that computes to stop when nobody waits for it any more.
pub(super) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
