//! What SQLite may hold while it works on a question.
//!
//! SQLite counts its memory for the whole process, so questions share: all that are under way may
//! together hold what each of them was allowed, and who finds more than that is ended. The host's own
//! files of SQLite are in what was held before.

#![expect(unsafe_code, reason = "rusqlite has no safe way to ask for it")]

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that all questions under way are allowed.
static ALLOWED: AtomicU64 = AtomicU64::new(0);

/// What one question may hold, given back when it is dropped.
pub(super) struct Share {
    allowed: u64,
    /// Bytes that others than questions held when it began.
    before: u64,
}

impl Share {
    pub(super) fn of(allowed: u64) -> Self {
        let others = ALLOWED.fetch_add(allowed, Ordering::Relaxed);
        Self {
            allowed,
            before: held().saturating_sub(others),
        }
    }

    /// Whether more is held than all that are under way may.
    pub(super) fn is_over(&self) -> bool {
        held() > self.before + ALLOWED.load(Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        ALLOWED.fetch_sub(self.allowed, Ordering::Relaxed);
    }
}

/// Bytes that SQLite holds in this process.
pub(super) fn held() -> u64 {
    // SAFETY: it takes nothing and may be called from any thread, at any time.
    let bytes = unsafe { rusqlite::ffi::sqlite3_memory_used() };
    u64::try_from(bytes).unwrap_or(0)
}
