//! What belongs to a buffer and goes with it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::DmaBuf;
use super::cache::{Key, Watcher};

/// Things made of buffers, each kept until its buffer goes: mappings, images that are used every
/// frame.
///
/// Where a [`Cache`](super::Cache) forgets what nobody uses at the moment, this keeps it for the
/// next frame; the end of the last [`DmaBuf`] of the same memory and layout that was seen here
/// ends it all the same, so a value must not hold the buffer itself. Thread-safe.
pub(crate) struct Attached<V> {
    shared: Arc<Shared<V>>,
}

struct Shared<V>(Mutex<FxHashMap<Key, Entry<V>>>);

struct Entry<V> {
    value: Arc<V>,
    /// Living buffers of this key that will tell us of their end.
    buffers: usize,
}

impl<V> Shared<V> {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<Key, Entry<V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Send + Sync> Watcher for Shared<V> {
    fn buffer_gone(&self, key: &Key) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        entry.buffers -= 1;
        if entry.buffers == 0 {
            let gone = entries.remove(key);
            // Its end may take long, or want this lock.
            drop(entries);
            drop(gone);
        }
    }
}

impl<V: Send + Sync + 'static> Attached<V> {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared(Mutex::default())),
        }
    }

    /// The buffer's value; made by `make`, which runs without a lock, where it has none.
    pub(crate) fn get_or_make<E>(
        &self,
        buffer: &DmaBuf,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, E> {
        let key = buffer.key();
        // Other descriptions of the same memory bring their own end.
        let watcher: Arc<dyn Watcher> = self.shared.clone();
        if let Some(entry) = self.shared.lock().get_mut(&key) {
            entry.buffers += usize::from(buffer.watch(&watcher));
            return Ok(entry.value.clone());
        }
        // Made by two at once, the one not wanted ends after the lock.
        let made = Arc::new(make()?);
        let mut entries = self.shared.lock();
        let is_new = buffer.watch(&watcher);
        let entry = entries.entry(key).or_insert_with(|| Entry {
            value: made.clone(),
            buffers: 0,
        });
        entry.buffers += usize::from(is_new);
        Ok(entry.value.clone())
    }
}

impl<V> fmt::Debug for Attached<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("entries", &self.shared.lock().len())
            .finish()
    }
}
