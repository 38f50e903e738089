//! Trainings under way, kept so that one that was cut off goes on: in the host's own folder, each
//! file under a keyed hash.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sandcast_kernels::CheckpointStore;

use crate::cache::Cache;

/// How trainings are kept while they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpointing {
    /// How often. What a training came to does not depend on it.
    pub every: Duration,
    /// Whether to go on from what an earlier attempt came to, or to begin anew.
    pub resume: bool,
}

/// How the names of checkpoints end.
const ENDING: &str = "training";

/// Trainings that are kept at most, the latest. One that is cut off and never tried again would
/// stay otherwise.
const MAX_KEPT: usize = 8;

/// The checkpoints of one training.
pub(super) struct Checkpoints {
    cache: Arc<Cache>,
    how: Checkpointing,
    saved: Instant,
}

impl Checkpoints {
    pub(super) fn new(cache: Arc<Cache>, how: Checkpointing) -> Self {
        Self {
            cache,
            how,
            saved: Instant::now(),
        }
    }

    /// Removes the oldest, but for the latest so many.
    fn prune(&self) {
        let Ok(entries) = std::fs::read_dir(self.cache.dir()) else {
            return;
        };
        let mut kept: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .filter(|entry| {
                let path = entry.path();
                path.extension().is_some_and(|ending| ending == ENDING)
            })
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        kept.sort();
        let surplus = kept.len().saturating_sub(MAX_KEPT);
        for (_, path) in &kept[..surplus] {
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                self.cache.remove(name);
            }
        }
    }
}

fn name(key: &[u8; 32]) -> String {
    format!("{}.{ENDING}", blake3::Hash::from_bytes(*key).to_hex())
}

impl CheckpointStore for Checkpoints {
    fn load(&mut self, key: &[u8; 32]) -> Option<Vec<u8>> {
        if !self.how.resume {
            return None;
        }
        let found = self.cache.read(&name(key))?;
        tracing::info!(checkpoint = %name(key), "going on with a training that was cut off");
        Some(found)
    }

    fn is_due(&mut self) -> bool {
        self.saved.elapsed() >= self.how.every
    }

    fn save(&mut self, key: &[u8; 32], checkpoint: &[u8]) {
        // A training that cannot be kept is still a training.
        if let Err(error) = self.cache.write(&name(key), checkpoint) {
            tracing::warn!(%error, "a training cannot be kept; cut off now, it would begin anew");
        }
        self.prune();
        self.saved = Instant::now();
    }

    fn reject(&mut self, key: &[u8; 32], what: &str) {
        tracing::warn!(%what, "a kept training is of no use; it begins anew");
        self.cache.remove(&name(key));
    }

    fn remove(&mut self, key: &[u8; 32]) {
        self.cache.remove(&name(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &std::path::Path, resume: bool) -> Checkpoints {
        let cache = Cache::open(dir, "0123456789abcdef".into()).expect("a folder");
        let every = Duration::from_secs(3600);
        Checkpoints::new(Arc::new(cache), Checkpointing { every, resume })
    }

    #[test]
    fn what_was_saved_is_there_for_the_next_process_until_it_is_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let (key, other) = ([7; 32], [8; 32]);
        let mut first = store(dir.path(), true);
        assert!(!first.is_due());
        first.save(&key, b"a training");
        first.save(&key, b"a training, later");
        let mut next = store(dir.path(), true);
        assert_eq!(
            next.load(&key).as_deref(),
            Some(b"a training, later".as_slice())
        );
        assert_eq!(next.load(&other), None);
        assert_eq!(store(dir.path(), false).load(&key), None);
        next.remove(&key);
        next.remove(&key);
        assert_eq!(next.load(&key), None);
    }

    #[test]
    fn what_somebody_else_put_there_is_not_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut store = store(dir.path(), true);
        store.save(&[1; 32], b"of the host");
        let forged = dir.path().join(name(&[2; 32]));
        std::fs::copy(dir.path().join(name(&[1; 32])), &forged).expect("copied");
        assert_eq!(store.load(&[2; 32]), None, "a name of another");
        std::fs::write(&forged, b"made up").expect("written");
        assert_eq!(store.load(&[2; 32]), None);
    }

    #[test]
    fn only_the_latest_are_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut store = store(dir.path(), true);
        for number in 0..12_u8 {
            store.save(&[number; 32], &[number]);
            let path = dir.path().join(name(&[number; 32]));
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + u64::from(number));
            let file = std::fs::File::options().write(true).open(path);
            file.and_then(|file| file.set_modified(time))
                .expect("a time");
        }
        store.save(&[99; 32], &[99]);
        let found = (0..12).filter(|number| store.load(&[*number; 32]).is_some());
        assert_eq!(found.collect::<Vec<u8>>(), (5..12).collect::<Vec<u8>>());
        assert!(store.load(&[99; 32]).is_some());
    }
}
