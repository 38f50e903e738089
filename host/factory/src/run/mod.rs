//! Carries out a plan: one stage after the other, each remembered as soon as it is done.

mod observer;
mod outcome;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use observer::{Observer, RunEvent, Unwatched};
pub use outcome::{Completed, Rejected, RunError, RunOutcome};

use crate::config::Pipeline;
use crate::workspace::Workspace;

/// How to run.
#[derive(Clone)]
pub struct RunOptions {
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// Stops the run between steps when it is cancelled. The state stays whole.
    pub cancel: CancellationToken,
    /// Who asked for the run, such as `alice`; policies are told.
    pub user: Option<String>,
    /// Whether to do every stage again, even if its output is there.
    pub fresh: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            observer: Arc::new(Unwatched),
            cancel: CancellationToken::new(),
            user: None,
            fresh: false,
        }
    }
}

/// Runs a pipeline from raw files to a registered model.
///
/// # Errors
/// If something of the host fails, another run goes on in the same state folder, or the run is
/// cancelled. What data, a policy, the gate or a plugin stops is a [`RunOutcome::Rejected`].
#[expect(clippy::unimplemented, reason = "the driver comes with the stages")]
pub async fn run(
    workspace: &Workspace,
    pipeline: &Pipeline,
    options: RunOptions,
) -> Result<RunOutcome, RunError> {
    let _ = (workspace, pipeline, options);
    unimplemented!()
}
