//! What every program relies on of its memory, and what kernels of the guests have got wrong.

use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, MREMAP_MAYMOVE, PROT_READ, PROT_WRITE};

use crate::support::in_guest;

/// What a page table spans.
const SMALL: usize = 2 << 20;
const LARGE: usize = 2 * SMALL;
const STEP: usize = SMALL / 8;

/// A private mapping.
struct Memory {
    start: NonNull<u8>,
    length: usize,
}

impl Memory {
    fn new(length: usize) -> Self {
        let access = PROT_READ | PROT_WRITE;
        let kind = MAP_PRIVATE | MAP_ANONYMOUS;
        // SAFETY: new memory, where the kernel likes.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, access, kind, -1, 0) };
        Self::at(start, length)
    }

    fn at(start: *mut libc::c_void, length: usize) -> Self {
        assert_ne!(start, MAP_FAILED);
        Self {
            start: NonNull::new(start.cast()).unwrap(),
            length,
        }
    }

    fn grown(self, length: usize) -> Self {
        let start = self.start.as_ptr().cast();
        // SAFETY: it is all of a mapping, which nobody else knows, and is forgotten below.
        let moved = unsafe { libc::mremap(start, self.length, length, MREMAP_MAYMOVE) };
        std::mem::forget(self);
        Self::at(moved, length)
    }

    fn some_bytes(&mut self) -> impl Iterator<Item = &mut u8> {
        // SAFETY: the mapping is this one's alone, and as long.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) };
        bytes.iter_mut().step_by(STEP)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it is all of a mapping, which nobody else knows.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// If page tables are made anew in the same place, User-Mode Linux forgets mappings that it still has to
/// remove from a process, so that drivers' threads wrote into each other's memory. The guests' kernels have
/// that mended (`xtask/src/guest/kernel/fixes.rs`).
#[test]
fn what_one_thread_unmaps_is_not_seen_where_anothers_memory_moves() {
    in_guest(|_| {
        let end = AtomicBool::new(false);
        let unmap = || {
            while !end.load(Relaxed) {
                let mut memory = Memory::new(LARGE);
                memory.some_bytes().for_each(|byte| *byte = 1);
            }
        };
        let seen = || {
            let moved = (0..500).map(|_| {
                let mut memory = Memory::new(SMALL);
                memory.some_bytes().for_each(|byte| *byte = 0);
                let mut memory = memory.grown(LARGE);
                memory.some_bytes().filter(|byte| **byte != 0).count()
            });
            moved.sum::<usize>()
        };
        let seen: usize = thread::scope(|scope| {
            let _unmapping = [(); 3].map(|()| scope.spawn(unmap));
            let moving = [(); 3].map(|()| scope.spawn(seen));
            let seen = moving.map(|thread| thread.join().unwrap());
            end.store(true, Relaxed);
            seen.iter().sum()
        });
        assert_eq!(seen, 0, "pages of memory that is another's, or nobody's");
    });
}
