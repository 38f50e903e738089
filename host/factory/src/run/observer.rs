//! What a run tells whoever watches it.

use sandcast_audit::RunId;
use sandcast_sandbox::TrainProgress;

use crate::state::StageRecord;

/// Watches a run. Called from several threads; what it does must be short.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn notice(&self, event: &RunEvent);
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RunEvent {
    /// The run has begun.
    Started {
        /// The run.
        run: RunId,
        /// The name of the pipeline.
        pipeline: String,
        /// The names of the stages to come, in order.
        stages: Vec<String>,
    },
    /// A stage has begun.
    StageStarted {
        /// The stage.
        stage: String,
    },
    /// A stage has come further.
    Rows {
        /// The stage.
        stage: String,
        /// Rows done.
        done: u64,
        /// Rows in all, if that is known.
        total: Option<u64>,
    },
    /// Training has come further.
    Training {
        /// How far.
        progress: TrainProgress,
    },
    /// Something worth knowing that stops nothing.
    Note {
        /// The stage.
        stage: String,
        /// A sentence.
        message: String,
    },
    /// Something that somebody should look at, and that stops nothing.
    Warning {
        /// The stage.
        stage: String,
        /// A sentence.
        message: String,
    },
    /// A stage has ended, one way or the other.
    StageFinished {
        /// What will be remembered of it.
        record: StageRecord,
    },
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Observer for Unwatched {
    fn notice(&self, _event: &RunEvent) {}
}
