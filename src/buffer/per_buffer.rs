//! What other layers make of a buffer, remembered for as long as the buffer lives.
//!
//! [`PerBuffer`] keeps it for the next frame, [`WeakPerBuffer`] only finds it while somebody uses it. Both
//! are one table ([`Table`]), which holds values by [`Arc`] or by [`Weak`]. A buffer tells the tables that
//! know it of its end ([`Watcher`]).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrayvec::ArrayVec;
use rustc_hash::FxHashMap;

use crate::ErrorKind;

use super::{BufferDesc, BufferId, DmaBuf, MAX_PLANES};

/// What makes two buffers the same: their memory and its layout.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) layout: BufferDesc,
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
    Permanent(E),
    /// It may next time, as after a lack of memory: not remembered.
    Transient(E),
}

impl<E> Refusal<E> {
    /// Transient if the error's kind says that the same may work later, else permanent. Every error of the
    /// library says its kind; a host's own errnos have [`ErrorKind::of`].
    pub fn of(kind: ErrorKind, error: E) -> Self {
        match kind {
            ErrorKind::Transient | ErrorKind::Busy | ErrorKind::TimedOut => Self::Transient(error),
            _ => Self::Permanent(error),
        }
    }
}

/// How a table holds what was made of a buffer.
trait Hold<V>: Send + Sync {
    fn new(made: &Arc<V>) -> Self;

    fn held(&self) -> Option<Arc<V>>;
}

impl<V: Send + Sync> Hold<V> for Arc<V> {
    fn new(made: &Arc<V>) -> Self {
        made.clone()
    }

    fn held(&self) -> Option<Arc<V>> {
        Some(self.clone())
    }
}

impl<V: Send + Sync> Hold<V> for Weak<V> {
    fn new(made: &Arc<V>) -> Self {
        Arc::downgrade(made)
    }

    fn held(&self) -> Option<Arc<V>> {
        self.upgrade()
    }
}

struct Table<H, E>(Mutex<FxHashMap<Key, Entry<H, E>>>);

struct Entry<H, E> {
    known: Known<H, E>,
    /// Living buffers of this key that will tell of their end.
    buffers: usize,
}

enum Known<H, E> {
    Nothing,
    Made(H),
    Refused(Arc<E>),
}

/// What is known of a buffer. It is taken out of the table, and used and dropped without the lock.
type Answer<V, E> = Result<Arc<V>, Arc<E>>;

impl<H, E> Known<H, E> {
    fn answer<V>(&self) -> Option<Answer<V, E>>
    where
        H: Hold<V>,
    {
        match self {
            Self::Nothing => None,
            Self::Made(made) => made.held().map(Ok),
            Self::Refused(why) => Some(Err(why.clone())),
        }
    }
}

impl<H, E> Table<H, E> {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<Key, Entry<H, E>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, buffer: &DmaBuf) {
        let key = buffer.key();
        let mut entries = self.lock();
        let known = entries.get_mut(&key).map(|entry| &mut entry.known);
        let forgotten = known.map(|known| std::mem::replace(known, Known::Nothing));
        // Its end may want the lock.
        drop(entries);
        drop(forgotten);
    }
}

impl<H: Send + Sync, E: Send + Sync> Watcher for Table<H, E> {
    fn buffer_gone(&self, key: &Key) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        entry.buffers -= 1;
        if entry.buffers == 0 {
            let gone = entries.remove(key);
            // Its end may take long, or want the lock.
            drop(entries);
            drop(gone);
        }
    }
}

impl<H: Send + Sync + 'static, E: Send + Sync + 'static> Table<H, E> {
    fn look_up<V>(&self, buffer: &DmaBuf) -> Option<Answer<V, E>>
    where
        H: Hold<V>,
    {
        let key = buffer.key();
        self.lock().get(&key)?.known.answer()
    }

    /// What is known of a buffer, which from then on is one of those that keep the entry.
    fn known<V>(self: &Arc<Self>, key: &Key, buffer: &DmaBuf) -> Option<Answer<V, E>>
    where
        H: Hold<V>,
    {
        let watcher: Arc<dyn Watcher> = self.clone();
        let mut entries = self.lock();
        let entry = entries.get_mut(key)?;
        let answer = entry.known.answer()?;
        // Other descriptions of the same memory bring their own end.
        entry.buffers += usize::from(buffer.watch(&watcher));
        Some(answer)
    }

    fn get_or_make<V>(
        self: &Arc<Self>,
        buffer: &DmaBuf,
        make: impl FnOnce() -> Result<V, Refusal<E>>,
    ) -> Answer<V, E>
    where
        H: Hold<V>,
    {
        let key = buffer.key();
        if let Some(answer) = self.known(&key, buffer) {
            return answer;
        }
        let made = match make() {
            Err(Refusal::Transient(why)) => return Err(Arc::new(why)),
            Err(Refusal::Permanent(why)) => Err(Arc::new(why)),
            Ok(made) => Ok(Arc::new(made)),
        };
        let watcher: Arc<dyn Watcher> = self.clone();
        let mut entries = self.lock();
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
            return answer;
        }
        // What was known is of no use, and nothing of the caller's ends with it.
        entry.known = match &made {
            Ok(made) => Known::Made(H::new(made)),
            Err(why) => Known::Refused(why.clone()),
        };
        drop(entries);
        made
    }
}

macro_rules! per_buffer {
    ($(#[$doc:meta])* $name:ident, $held:ident, $found:literal) => {
        $(#[$doc])*
        pub struct $name<V, E>(Arc<Table<$held<V>, E>>);

        impl<V, E> $name<V, E>
        where
            V: Send + Sync + 'static,
            E: Send + Sync + 'static,
        {
            /// An empty table.
            pub fn new() -> Self {
                Self(Table::new())
            }

            #[doc = $found]
            /// `None`: nothing is known.
            pub fn get(&self, buffer: &DmaBuf) -> Option<Result<Arc<V>, Arc<E>>> {
                self.0.look_up(buffer)
            }

            #[doc = $found]
            /// Where nothing is known, `make` makes it.
            ///
            /// `make` runs without a lock. Where two threads make one at the same time, both get the
            /// one that was there first.
            pub fn get_or_make(
                &self,
                buffer: &DmaBuf,
                make: impl FnOnce() -> Result<V, Refusal<E>>,
            ) -> Result<Arc<V>, Arc<E>> {
                self.0.get_or_make(buffer, make)
            }

            /// Forgets what is known of a buffer, so that it is made anew.
            pub fn forget(&self, buffer: &DmaBuf) {
                self.0.forget(buffer);
            }

            /// Buffers of which something is known or was.
            pub fn len(&self) -> usize {
                self.0.lock().len()
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        impl<V, E> Clone for $name<V, E> {
            fn clone(&self) -> Self {
                Self(self.0.clone())
            }
        }

        impl<V, E> Default for $name<V, E>
        where
            V: Send + Sync + 'static,
            E: Send + Sync + 'static,
        {
            fn default() -> Self {
                Self::new()
            }
        }

        impl<V, E> fmt::Debug for $name<V, E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("entries", &self.0.lock().len())
                    .finish()
            }
        }
    };
}

per_buffer! {
    /// What was made of buffers, each kept until its buffer goes: framebuffers, mappings, images that are
    /// used every frame.
    ///
    /// An entry ends with the last [`DmaBuf`] of the same memory and layout that
    /// [`get_or_make`](Self::get_or_make) was asked with. So a value must not hold the buffer itself, or
    /// neither ever ends: a [`WeakDmaBuf`](super::WeakDmaBuf) may. That nothing can be made of a buffer is
    /// remembered too, and forgotten with the buffer. Thread-safe; clones share the entries.
    ///
    /// Values and errors may hold other buffers and use the table: they are made and dropped without its
    /// lock.
    PerBuffer, Arc, "What was made of this buffer, or why nothing can be."
}

per_buffer! {
    /// What was made of buffers and is still in use: imports that others hold.
    ///
    /// It keeps nothing alive: it refers weakly to what was made, and an entry goes when the last
    /// [`DmaBuf`] of the same memory and layout goes that [`get_or_make`](Self::get_or_make) was asked
    /// with. That nothing can be made of a buffer is remembered too, and forgotten with the buffer.
    /// Thread-safe; clones share the entries. For what is used every frame and held by nobody in between,
    /// such as a framebuffer, take [`PerBuffer`].
    ///
    /// Values and errors may hold other buffers and use the table: they are made and dropped without its
    /// lock.
    WeakPerBuffer, Weak, "What was made of this buffer and is still in use, or why nothing can be."
}
