//! The operator's rules of trust, read again while a server runs: a key or an identity that is taken out
//! of them stops the models that nobody else vouches for.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandcast_audit::Digest;
use sandcast_factory::Workspace;
use sandcast_sandbox::OperatorRules;

/// How long the rules that were read last hold.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reads the operator's rules of trust as they are now; the error is a sentence.
pub type ReadRules = Box<dyn Fn() -> Result<OperatorRules, String> + Send + Sync>;

/// The rules that are in force, looked at now and then.
pub(crate) struct TrustWatch {
    workspace: Arc<Workspace>,
    read: ReadRules,
    known: Mutex<Known>,
}

struct Known {
    looked: Instant,
    /// How often they changed.
    generation: u64,
    digest: Option<Digest>,
    /// Why there are none.
    fault: Option<String>,
}

impl fmt::Debug for TrustWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TrustWatch").finish_non_exhaustive()
    }
}

impl TrustWatch {
    /// Of the rules that the workspace was opened under.
    pub(crate) fn new(workspace: Arc<Workspace>, read: ReadRules) -> Self {
        let digest = workspace.sandbox().operator().trust_digest();
        Self {
            workspace,
            read,
            known: Mutex::new(Known {
                looked: Instant::now(),
                generation: 0,
                digest,
                fault: None,
            }),
        }
    }

    /// The number of the rules that are in force, as they were within the last second; another number
    /// says that they changed. It reads a file.
    ///
    /// # Errors
    /// When they cannot be read any more, or are not signed as they must be. Nothing is trusted
    /// without them.
    pub(crate) fn generation(&self) -> Result<u64, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= INTERVAL {
            match (self.read)() {
                Ok(rules) if rules.trust_digest() == known.digest => known.fault = None,
                Ok(rules) => {
                    tracing::info!("the operator's rules of trust changed");
                    known.digest = rules.trust_digest();
                    known.fault = None;
                    known.generation += 1;
                    self.workspace.sandbox().set_trust(rules);
                }
                Err(fault) => {
                    if known.fault.is_none() {
                        tracing::error!(%fault, "the operator's rules of trust are gone");
                    }
                    known.fault = Some(fault);
                }
            }
            known.looked = Instant::now();
        }
        match &known.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(known.generation),
        }
    }
}
