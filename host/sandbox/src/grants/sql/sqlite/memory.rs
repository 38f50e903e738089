//! What SQLite may hold while it works on questions.
//!
//! SQLite counts its memory for the whole process, so questions share: all that are under way may
//! together hold what each of them was allowed, beside what was held before the first of them began,
//! which is the host's own. Who finds more than that is ended. So a question may be ended for what
//! another one holds, but only while that one is over what it may hold itself.

#![expect(unsafe_code, reason = "rusqlite has no safe way to ask for it")]

use std::sync::{Mutex, MutexGuard, PoisonError};

static UNDER_WAY: Mutex<Questions> = Mutex::new(Questions {
    number: 0,
    allowed: 0,
    before: 0,
});

/// All questions under way.
struct Questions {
    number: u64,
    /// Bytes that they are allowed together.
    allowed: u64,
    /// Bytes that were held when there was none.
    before: u64,
}

/// What one question may hold, given back when it is dropped.
pub(super) struct Share {
    allowed: u64,
}

impl Share {
    pub(super) fn of(allowed: u64) -> Self {
        let mut all = under_way();
        if all.number == 0 {
            all.before = held();
        }
        all.number += 1;
        all.allowed += allowed;
        Self { allowed }
    }

    /// Whether more is held than all that are under way may.
    pub(super) fn is_over(&self) -> bool {
        let all = under_way();
        held() > all.before + all.allowed
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = under_way();
        all.number -= 1;
        all.allowed -= self.allowed;
    }
}

fn under_way() -> MutexGuard<'static, Questions> {
    // A panic elsewhere leaves a whole value.
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that SQLite holds in this process.
pub(super) fn held() -> u64 {
    // SAFETY: it takes nothing and may be called from any thread, at any time.
    let bytes = unsafe { rusqlite::ffi::sqlite3_memory_used() };
    u64::try_from(bytes).unwrap_or(0)
}
