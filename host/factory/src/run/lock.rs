//! One run at a time in a state folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::Path;

use sandcast_audit::RunId;

use super::RunError;

/// The lock file in the state folder. It stays there; what counts is the lock on it, which the
/// system gives back when the process ends, however it ends.
const LOCK_FILE: &str = "run.lock";

/// The most of a lock file that is read.
const MAX_HOLDER_BYTES: u64 = 200;

/// Held while a run goes on.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock of a state folder, or says who has it.
    pub(crate) fn take(folder: &Path, run: &RunId) -> Result<RunLock, RunError> {
        let path = folder.join(LOCK_FILE);
        let wrap = |source| RunError::Lock {
            path: path.clone(),
            source,
        };
        let open = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path);
        let mut file = open.map_err(wrap)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who it is helps, and is not needed.
                let _ = file.take(MAX_HOLDER_BYTES).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "it does not say which".to_owned(),
                    holder => holder.to_owned(),
                };
                return Err(RunError::Locked {
                    folder: folder.to_path_buf(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => return Err(wrap(source)),
        }
        let holder = format!("run {run}, process {}\n", std::process::id());
        file.set_len(0).map_err(wrap)?;
        file.rewind().map_err(wrap)?;
        file.write_all(holder.as_bytes()).map_err(wrap)?;
        Ok(RunLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, second) = (RunId::generate(), RunId::generate());
        let held = RunLock::take(folder.path(), &first).expect("nobody else is there");
        let refused = RunLock::take(folder.path(), &second).expect_err("the first is there");
        assert!(refused.to_string().contains(first.as_str()), "{refused}");
        drop(held);
        RunLock::take(folder.path(), &second).expect("the first is gone");
    }
}
