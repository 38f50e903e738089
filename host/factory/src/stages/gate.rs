//! The gate: the only place where an [`Approved`] is made.

use sandcast_audit::RunId;

/// A model that the gate has approved. Nothing else can be registered, and nothing but the gate
/// makes one:
///
/// ```compile_fail
/// let run = sandcast_audit::RunId::generate();
/// let approved = sandcast_factory::stages::Approved { run };
/// ```
#[derive(Debug)]
pub struct Approved {
    run: RunId,
}

impl Approved {
    /// The run that made the model.
    pub fn run(&self) -> &RunId {
        &self.run
    }
}
