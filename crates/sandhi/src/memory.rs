//! The program's allocator, which counts while something is measured.

use std::{
    alloc::{GlobalAlloc, Layout},
    sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed},
};

use mimalloc::MiMalloc;

/// mimalloc, and how many bytes it has given away since a measurement began. What grows counts twice while it does.
pub struct Allocator;

static IS_MEASURED: AtomicBool = AtomicBool::new(false);
/// Below 0 when more was given back that was there before.
static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

fn count(added: usize, removed: usize) {
    if IS_MEASURED.load(Relaxed) {
        let added = added as isize;
        let live = LIVE.fetch_add(added, Relaxed) + added;
        PEAK.fetch_max(live, Relaxed);
        LIVE.fetch_sub(removed as isize, Relaxed);
    }
}

/// What is done, and the most bytes that were in use at once meanwhile, in the whole program, beside those before. One
/// measurement at a time.
pub fn measured<T>(what: impl FnOnce() -> T) -> (T, u64) {
    LIVE.store(0, Relaxed);
    PEAK.store(0, Relaxed);
    IS_MEASURED.store(true, Relaxed);
    let found = what();
    IS_MEASURED.store(false, Relaxed);
    (found, PEAK.load(Relaxed).max(0) as u64)
}

// SAFETY: every call goes to mimalloc as it came.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.realloc(at, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What other tests take and give back meanwhile is counted, too, so that one measurement of many is undisturbed.
    #[test]
    fn the_most_bytes_at_once_are_counted() {
        let found = (0..100).map(|_| {
            let before = vec![1_u8; 1 << 20];
            let (n, bytes) = measured(|| {
                let first: Vec<u8> = std::hint::black_box(vec![1; 8 << 20]);
                let n = first.len();
                drop((first, before));
                n + std::hint::black_box(vec![1_u8; 4 << 20]).len()
            });
            assert_eq!(n, 12 << 20);
            bytes
        });
        let found: Vec<u64> = found.collect();
        let least = found.iter().min();
        assert!(least.is_some_and(|n| (7 << 20..10 << 20).contains(n)), "{found:?}");
    }
}
