//! The import cache of a table, by dma-buf identity, in shards.
//!
//! Lock order: the table's lock before a shard's. An index is written only with the table's lock held.

use std::sync::PoisonError;

use rustc_hash::FxHashMap;

use super::Handle;
use super::shared::{Arc, Mutex, MutexGuard, Weak};
use crate::buffer::BufferId;

#[cfg(not(loom))]
const SHARDS: usize = 32;
/// Each costs loom interleavings.
#[cfg(loom)]
const SHARDS: usize = 2;

/// The dma-bufs that a table knows, with their handles and the leases `L` of these. It makes the import
/// of a known buffer a lookup.
///
/// Each shard has a lock of its own, so that threads that use different buffers do not wait for each
/// other, and so that a lookup never waits for an ioctl about another buffer.
///
/// An entry is valid while its handle is open: until GEM_CLOSE the kernel holds the dma-buf that
/// belongs to a handle (`drm_prime_add_buf_handle`), so no other dma-buf gets the same identity.
pub(super) struct Index<L> {
    shards: Box<[Shard<L>]>,
}

/// Two cache lines of its own, since processors fetch lines in pairs.
#[repr(align(128))]
struct Shard<L>(Mutex<Known<L>>);

struct Known<L> {
    entries: FxHashMap<BufferId, (Handle, Weak<L>)>,
    hits: u64,
}

impl<L> Index<L> {
    pub(super) fn new() -> Self {
        let empty = || Known {
            entries: FxHashMap::default(),
            hits: 0,
        };
        let shards = (0..SHARDS).map(|_| Shard(Mutex::new(empty())));
        Self {
            shards: shards.collect(),
        }
    }

    /// The shard of a dma-buf. The kernel counts inodes up, so dma-bufs made one after the other are in
    /// different shards.
    fn shard(&self, id: BufferId) -> MutexGuard<'_, Known<L>> {
        lock(&self.shards[id.inode() as usize % SHARDS])
    }

    /// The lease of this dma-buf's handle, if the handle has users. Counts as a hit.
    pub(super) fn get_live(&self, id: BufferId) -> Option<Arc<L>> {
        let mut known = self.shard(id);
        let lease = known.entries.get(&id)?.1.upgrade()?;
        known.hits += 1;
        Some(lease)
    }

    /// The handle that this dma-buf is known by.
    pub(super) fn handle(&self, id: BufferId) -> Option<Handle> {
        self.shard(id).entries.get(&id).map(|(handle, _)| *handle)
    }

    /// Makes the dma-buf known by this handle, even if it was known by another.
    pub(super) fn insert(&self, id: BufferId, handle: Handle, lease: Weak<L>) {
        self.shard(id).entries.insert(id, (handle, lease));
    }

    /// Replaces the lease of the handle, unless the dma-buf is known by another handle.
    pub(super) fn update(&self, id: BufferId, handle: Handle, lease: Weak<L>) {
        if let Some(entry) = self.shard(id).entries.get_mut(&id)
            && entry.0 == handle
        {
            entry.1 = lease;
        }
    }

    /// Forgets the dma-buf, since the handle is closed or refers to another object now. If the dma-buf
    /// is known by another handle (a flink name gives it a second one), it stays known.
    pub(super) fn remove(&self, id: BufferId, handle: Handle) {
        let mut known = self.shard(id);
        if known.entries.get(&id).is_some_and(|(is, _)| *is == handle) {
            known.entries.remove(&id);
        }
    }

    /// How many dma-bufs are known, and how many hits there were.
    pub(super) fn count(&self) -> (usize, u64) {
        let each = self.shards.iter().map(|shard| {
            let known = lock(shard);
            (known.entries.len(), known.hits)
        });
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// A shard is consistent between any two statements that can panic, so a poisoned lock is used on.
fn lock<L>(shard: &Shard<L>) -> MutexGuard<'_, Known<L>> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}
