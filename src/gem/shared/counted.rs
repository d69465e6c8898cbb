//! std's `Arc` and `Weak`, rebuilt from a count of the strong ones: loom has no weak references,
//! and a thread sanitizer does not see into those of a std that was built without it.

use std::mem::ManuallyDrop;
use std::ops::Deref;

#[cfg(loom)]
use loom::cell::UnsafeCell;
#[cfg(loom)]
use loom::sync::Arc as Memory;
#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(tsan)]
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(tsan)]
use super::visible::{Memory, UnsafeCell};

struct Counted<T> {
    strong: AtomicUsize,
    value: UnsafeCell<ManuallyDrop<T>>,
}

pub(in crate::gem) struct Arc<T>(Memory<Counted<T>>);
pub(in crate::gem) struct Weak<T>(Memory<Counted<T>>);

// SAFETY: as for std's. The count is atomic. The value is only reached by shared references, except for its
// drop, which only the last reference makes.
unsafe impl<T: Send + Sync> Send for Arc<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Arc<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for Weak<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Weak<T> {}

impl<T> Arc<T> {
    pub(in crate::gem) fn new(value: T) -> Self {
        Self(Memory::new(Counted {
            strong: AtomicUsize::new(1),
            value: UnsafeCell::new(ManuallyDrop::new(value)),
        }))
    }

    pub(in crate::gem) fn downgrade(this: &Self) -> Weak<T> {
        Weak(this.0.clone())
    }

    pub(in crate::gem) fn ptr_eq(a: &Self, b: &Self) -> bool {
        Memory::ptr_eq(&a.0, &b.0)
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        self.0.strong.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Deref for Arc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the value lives while there is a strong reference.
        self.0.value.with(|value| unsafe { &**value })
    }
}

impl<T> Drop for Arc<T> {
    fn drop(&mut self) {
        // Acquire as well, in place of std's fence: a sanitizer does not follow those.
        if self.0.strong.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.value.with_mut(|value| {
                // SAFETY: this was the last strong reference, and the count never rises from
                // zero.
                unsafe { ManuallyDrop::drop(&mut *value) }
            });
        }
    }
}

impl<T> Clone for Weak<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Weak<T> {
    pub(in crate::gem) fn upgrade(&self) -> Option<Arc<T>> {
        let mut strong = self.0.strong.load(Ordering::Relaxed);
        while strong > 0 {
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            let raised = (self.0.strong).compare_exchange(strong, strong + 1, success, failure);
            match raised {
                Ok(_) => return Some(Arc(self.0.clone())),
                Err(now) => strong = now,
            }
        }
        None
    }

    pub(in crate::gem) fn strong_count(&self) -> usize {
        self.0.strong.load(Ordering::Relaxed)
    }
}
