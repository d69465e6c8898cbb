//! What another layer makes of a buffer, remembered for as long as the buffer lives.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrayvec::ArrayVec;
use rustc_hash::FxHashMap;

use super::{BufferId, DmaBuf, Layout, MAX_PLANES};

/// What makes two buffers the same to a cache: their memory and its layout.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) layout: Layout,
    /// Identity, offset and stride.
    pub(super) planes: ArrayVec<(BufferId, u32, u32), MAX_PLANES>,
}

/// Whoever wants to know of a buffer's end.
pub(super) trait Watcher: Send + Sync {
    fn buffer_gone(&self, key: &Key);
}

/// Why a layer made nothing of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<E> {
    /// It never will: remembered, and not tried again while the buffer lives.
    Lasting(E),
    /// It may next time, as after a lack of memory: not remembered.
    Passing(E),
}

/// A cache of things made of buffers: imports, framebuffers, images.
///
/// It keeps nothing alive: it refers weakly to what was made, and an entry goes when the last
/// [`DmaBuf`] of the same memory and layout goes that [`Self::get_or_make`] was asked with. It can remember that
/// nothing can be made of a buffer, and forgets that with the buffer too. Thread-safe; clones share
/// the entries.
///
/// Values and errors may hold other buffers and use the cache: they are made, cloned and dropped
/// without its lock.
pub struct Cache<V, E> {
    shared: Arc<Shared<V, E>>,
}

struct Shared<V, E>(Mutex<FxHashMap<Key, Entry<V, E>>>);

struct Entry<V, E> {
    known: Known<V, E>,
    /// Living buffers of this key that have told us of it.
    buffers: usize,
}

enum Known<V, E> {
    Nothing,
    Made(Weak<V>),
    /// Shared, because the lock is held when it is found, and a clone of `E` is the caller's code.
    Refused(Arc<E>),
}

/// What is known of a buffer. It is taken out of the cache, and used and dropped without the lock.
type Answer<V, E> = Result<Arc<V>, Arc<E>>;

impl<V, E> Known<V, E> {
    fn answer(&self) -> Option<Answer<V, E>> {
        match self {
            Self::Nothing => None,
            Self::Made(made) => made.upgrade().map(Ok),
            Self::Refused(why) => Some(Err(why.clone())),
        }
    }
}

fn cloned<V, E: Clone>(answer: Answer<V, E>) -> Result<Arc<V>, E> {
    answer.map_err(|why| E::clone(&why))
}

impl<V, E> Shared<V, E> {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<Key, Entry<V, E>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Send + Sync, E: Send + Sync> Watcher for Shared<V, E> {
    fn buffer_gone(&self, key: &Key) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        entry.buffers -= 1;
        if entry.buffers == 0 {
            let gone = entries.remove(key);
            // The end of a refusal may want the lock.
            drop(entries);
            drop(gone);
        }
    }
}

impl<V, E> Cache<V, E>
where
    V: Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// An empty cache.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared(Mutex::default())),
        }
    }

    /// What was made of this buffer and is still in use, or why nothing can be. `None`: not
    /// known.
    pub fn get(&self, buffer: &DmaBuf) -> Option<Result<Arc<V>, E>> {
        let key = buffer.key();
        let answer = self.shared.lock().get(&key)?.known.answer()?;
        Some(cloned(answer))
    }

    /// What was made of this buffer and is still in use; made by `make` where there is none.
    ///
    /// `make` runs without a lock. Where two threads make one at the same time, both get the one
    /// that was there first.
    pub fn get_or_make(
        &self,
        buffer: &DmaBuf,
        make: impl FnOnce() -> Result<V, Refusal<E>>,
    ) -> Result<Arc<V>, E> {
        let key = buffer.key();
        let watcher: Arc<dyn Watcher> = self.shared.clone();
        if let Some(answer) = self.known(&key, buffer, &watcher) {
            return cloned(answer);
        }
        let made = match make() {
            Err(Refusal::Passing(why)) => return Err(why),
            Err(Refusal::Lasting(why)) => Err(Arc::new(why)),
            Ok(made) => Ok(Arc::new(made)),
        };
        let mut entries = self.shared.lock();
        let entry = entries.entry(key).or_insert(Entry {
            known: Known::Nothing,
            buffers: 0,
        });
        // With the lock held, so that nobody finds the entry before its buffer is counted.
        entry.buffers += usize::from(buffer.watch(&watcher));
        if let Some(answer) = entry.known.answer() {
            drop(entries);
            // What was made for nothing is dropped without the lock, too.
            drop(made);
            return cloned(answer);
        }
        // What was known is of no use, and nothing of the caller's ends with it.
        entry.known = match &made {
            Ok(made) => Known::Made(Arc::downgrade(made)),
            Err(why) => Known::Refused(why.clone()),
        };
        drop(entries);
        cloned(made)
    }

    /// What is known of a buffer, which from then on is one of those that keep the entry.
    fn known(
        &self,
        key: &Key,
        buffer: &DmaBuf,
        watcher: &Arc<dyn Watcher>,
    ) -> Option<Answer<V, E>> {
        let mut entries = self.shared.lock();
        let entry = entries.get_mut(key)?;
        let answer = entry.known.answer()?;
        entry.buffers += usize::from(buffer.watch(watcher));
        Some(answer)
    }

    /// Forgets what is known of a buffer, so that it is tried anew.
    pub fn forget(&self, buffer: &DmaBuf) {
        let key = buffer.key();
        let mut entries = self.shared.lock();
        let known = entries.get_mut(&key).map(|entry| &mut entry.known);
        let forgotten = known.map(|known| std::mem::replace(known, Known::Nothing));
        // The end of a refusal may want the lock.
        drop(entries);
        drop(forgotten);
    }

    /// Buffers it knows something of, or has.
    pub fn len(&self) -> usize {
        self.shared.lock().len()
    }

    /// Whether it knows of no buffer.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<V, E> Clone for Cache<V, E> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<V, E> Default for Cache<V, E>
where
    V: Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<V, E> fmt::Debug for Cache<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("entries", &self.shared.lock().len())
            .finish()
    }
}
