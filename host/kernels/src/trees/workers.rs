//! The threads that forests are trained and asked on.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::ForestError;
use crate::cpu::Threads;
use crate::device::Device;

/// Threads of the processor. Clones share them. Results do not depend on how many there are.
#[derive(Clone, Debug)]
pub struct Workers {
    threads: Arc<Threads>,
}

impl Workers {
    /// Starts threads; by default as many as the system offers.
    ///
    /// # Errors
    /// When the system refuses them.
    pub fn start(threads: Option<NonZeroUsize>) -> Result<Workers, ForestError> {
        let count = threads
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN);
        let threads = Threads::start(count).map_err(|error| ForestError::Threads {
            threads: count.get(),
            reason: error.to_string(),
        })?;
        Ok(Workers {
            threads: Arc::new(threads),
        })
    }

    /// The threads that a device has; where it has none, as many of its own as the system offers.
    ///
    /// # Errors
    /// When the system refuses them.
    pub fn of(device: &Device) -> Result<Workers, ForestError> {
        match device.backend().threads() {
            Some(threads) => Ok(Workers {
                threads: Arc::clone(threads),
            }),
            None => Workers::start(None),
        }
    }

    /// How many work at a time.
    pub fn count(&self) -> usize {
        self.threads.count()
    }

    /// Does `work(0..tasks)`, each once.
    pub(super) fn run(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        self.threads.run(tasks, work);
    }
}

/// What a task may change; nobody else has it at the same time.
pub(super) fn lock<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
