//! The import cache of a table, by dma-buf identity, in shards.
//!
//! Lock order: the table's lock before a shard's. It is written only with the table's lock held.

use std::sync::PoisonError;

use rustc_hash::FxHashMap;

use super::Handle;
use super::kernel::Kernel;
use super::shared::{Arc, Mutex, MutexGuard, Weak};
use super::table::Lease;
use crate::buffer::BufferId;

#[cfg(not(loom))]
const SHARDS: usize = 32;
/// Each costs loom interleavings.
#[cfg(loom)]
const SHARDS: usize = 2;

/// The dma-bufs that a table knows: what makes the import of a known buffer a lookup.
///
/// In parts with a lock each, so that threads that use different buffers do not meet, and that
/// nobody who asks for a known buffer waits for an ioctl about another. Written only with the
/// table's lock held, which is always taken before a part's.
///
/// An entry is good while its handle is open: until GEM_CLOSE the kernel holds the dma-buf that
/// belongs to a handle (`drm_prime_add_buf_handle`), so the identity is not given to another.
pub(super) struct Index<K: Kernel> {
    shards: Box<[Shard<K>]>,
}

/// On cache lines of its own; two, since processors fetch them in pairs.
#[repr(align(128))]
struct Shard<K: Kernel>(Mutex<Known<K>>);

struct Known<K: Kernel> {
    entries: FxHashMap<BufferId, (Handle, Weak<Lease<K>>)>,
    hits: u64,
}

impl<K: Kernel> Index<K> {
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

    /// The kernel counts inodes up, so neighbours in time are in different parts.
    fn shard(&self, id: BufferId) -> MutexGuard<'_, Known<K>> {
        lock(&self.shards[id.inode() as usize % SHARDS])
    }

    /// A user of this dma-buf's handle, where it has any. A hit.
    pub(super) fn living(&self, id: BufferId) -> Option<Arc<Lease<K>>> {
        let mut known = self.shard(id);
        let lease = known.entries.get(&id)?.1.upgrade()?;
        known.hits += 1;
        Some(lease)
    }

    pub(super) fn handle(&self, id: BufferId) -> Option<Handle> {
        self.shard(id).entries.get(&id).map(|(handle, _)| *handle)
    }

    /// From now on the dma-buf is known by this handle, whatever other it has.
    pub(super) fn put(&self, id: BufferId, handle: Handle, lease: Weak<Lease<K>>) {
        self.shard(id).entries.insert(id, (handle, lease));
    }

    /// The handle has a new lease. Where the dma-buf is known by another handle, it stays so.
    pub(super) fn renew(&self, id: BufferId, handle: Handle, lease: Weak<Lease<K>>) {
        if let Some(entry) = self.shard(id).entries.get_mut(&id)
            && entry.0 == handle
        {
            entry.1 = lease;
        }
    }

    /// The handle is closed, or another's. Where the dma-buf has a second one, by a flink name,
    /// and is known by that, it stays known.
    pub(super) fn remove(&self, id: BufferId, handle: Handle) {
        let mut known = self.shard(id);
        if known.entries.get(&id).is_some_and(|(is, _)| *is == handle) {
            known.entries.remove(&id);
        }
    }

    /// Dma-bufs known, and how often one was asked for.
    pub(super) fn count(&self) -> (usize, u64) {
        let each = self.shards.iter().map(|shard| {
            let known = lock(shard);
            (known.entries.len(), known.hits)
        });
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// A part is consistent between any two statements that can panic, so a poisoned lock is used on.
fn lock<K: Kernel>(shard: &Shard<K>) -> MutexGuard<'_, Known<K>> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}
