//! The synchronisation that the table is made of: std's, or loom's where all interleavings are
//! explored.

#[cfg(not(loom))]
pub(super) use std::sync::{Arc, Mutex, MutexGuard, Weak};

#[cfg(loom)]
pub(super) use self::model::{Arc, Weak};
#[cfg(loom)]
pub(super) use loom::sync::{Mutex, MutexGuard};

/// loom has no weak references: std's, rebuilt from a count of the strong ones.
#[cfg(loom)]
mod model {
    use std::mem::ManuallyDrop;
    use std::ops::Deref;

    use loom::cell::UnsafeCell;
    use loom::sync::Arc as Memory;
    use loom::sync::atomic::{AtomicUsize, Ordering, fence};

    struct Counted<T> {
        strong: AtomicUsize,
        value: UnsafeCell<ManuallyDrop<T>>,
    }

    pub(crate) struct Arc<T>(Memory<Counted<T>>);
    pub(crate) struct Weak<T>(Memory<Counted<T>>);

    // SAFETY: as std's. The count is atomic, and the value is reached by shared reference, but for
    // its drop, which the last reference alone makes.
    unsafe impl<T: Send + Sync> Send for Arc<T> {}
    // SAFETY: as above.
    unsafe impl<T: Send + Sync> Sync for Arc<T> {}
    // SAFETY: as above.
    unsafe impl<T: Send + Sync> Send for Weak<T> {}
    // SAFETY: as above.
    unsafe impl<T: Send + Sync> Sync for Weak<T> {}

    impl<T> Arc<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Memory::new(Counted {
                strong: AtomicUsize::new(1),
                value: UnsafeCell::new(ManuallyDrop::new(value)),
            }))
        }

        pub(crate) fn downgrade(this: &Self) -> Weak<T> {
            Weak(this.0.clone())
        }

        pub(crate) fn ptr_eq(a: &Self, b: &Self) -> bool {
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
            if self.0.strong.fetch_sub(1, Ordering::Release) == 1 {
                fence(Ordering::Acquire);
                self.0.value.with_mut(|value| {
                    // SAFETY: this was the last strong reference, and the count never rises from
                    // zero.
                    unsafe { ManuallyDrop::drop(&mut *value) }
                });
            }
        }
    }

    impl<T> Weak<T> {
        pub(crate) fn upgrade(&self) -> Option<Arc<T>> {
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

        pub(crate) fn strong_count(&self) -> usize {
            self.0.strong.load(Ordering::Relaxed)
        }
    }
}
