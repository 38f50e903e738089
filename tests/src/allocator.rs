//! An allocator that counts, so that a test can say how much memory something took.

#![expect(
    unsafe_code,
    reason = "an allocator is an unsafe trait; this one counts and asks the system"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with the bytes that are held now and the most that were.
///
/// A binary makes it its own with `#[global_allocator]`. All threads are counted together.
#[derive(Debug)]
pub struct Counting {
    held: AtomicUsize,
    peak: AtomicUsize,
}

impl Counting {
    /// One that has counted nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            held: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Forgets the peak; the bytes that are held now.
    pub fn begin(&self) -> usize {
        let held = self.held();
        self.peak.store(held, Ordering::Relaxed);
        held
    }

    /// How far above `before` the most was since [`Counting::begin`].
    pub fn growth(&self, before: usize) -> usize {
        self.peak.load(Ordering::Relaxed).saturating_sub(before)
    }

    fn took(&self, bytes: usize) {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(held, Ordering::Relaxed);
    }

    fn gave(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Default for Counting {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: every call is handed on to the system's allocator with the caller's own arguments, and
// what it answers is handed back; counting touches two atomics and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        let at = unsafe { System.alloc(layout) };
        if !at.is_null() {
            self.took(layout.size());
        }
        at
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        let at = unsafe { System.alloc_zeroed(layout) };
        if !at.is_null() {
            self.took(layout.size());
        }
        at
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from the system's allocator with `layout`, by `alloc` above.
        unsafe { System.dealloc(at, layout) };
        self.gave(layout.size());
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: `at` came from the system's allocator with `layout`, and the caller's promise
        // about `size` is passed on.
        let moved = unsafe { System.realloc(at, layout, size) };
        if !moved.is_null() {
            // Both may be there for a moment.
            self.took(size);
            self.gave(layout.size());
        }
        moved
    }
}
