//! What is left of std that a thread sanitizer cannot follow, rebuilt so that it can. Nothing here
//! is fast.

use std::cell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::LockResult;
use std::sync::atomic::{AtomicBool, Ordering};

/// Memory that is shared and never freed: the order of a free with what came before it is in a
/// fence of std's.
pub(super) struct Memory<T>(NonNull<T>);

// SAFETY: a shared reference, and no more.
unsafe impl<T: Sync> Send for Memory<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Memory<T> {}

impl<T> Memory<T> {
    pub(super) fn new(value: T) -> Self {
        Self(NonNull::from(Box::leak(Box::new(value))))
    }

    pub(super) fn ptr_eq(a: &Self, b: &Self) -> bool {
        a.0 == b.0
    }
}

impl<T> Clone for Memory<T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<T> Deref for Memory<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: never freed.
        unsafe { self.0.as_ref() }
    }
}

/// std's, with loom's interface.
pub(super) struct UnsafeCell<T>(cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(super) fn new(value: T) -> Self {
        Self(cell::UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// A spinning lock, with std's interface. It does not poison.
#[derive(Default)]
pub(in crate::gem) struct Mutex<T> {
    taken: AtomicBool,
    value: cell::UnsafeCell<T>,
}

// SAFETY: as std's: the value is reached by one thread at a time.
unsafe impl<T: Send> Sync for Mutex<T> {}

pub(in crate::gem) struct MutexGuard<'a, T>(&'a Mutex<T>);

impl<T> Mutex<T> {
    pub(in crate::gem) fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            value: cell::UnsafeCell::new(value),
        }
    }

    pub(in crate::gem) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        while self.taken.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        Ok(MutexGuard(self))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard is the only one.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only one.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}
