//! The dma-bufs of buffers that gbm made and that are still in use.
//!
//! A driver that makes two buffers of one GEM object gives one client's data to another. Mesa's
//! drivers with a buffer cache do so if they were not told of an export. So every new buffer is
//! looked up here before it is handed out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use arrayvec::ArrayVec;
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::buffer::{BufferId, MAX_PLANES};
use crate::sys::process::Owner;

/// One set for the whole process: several [`Gbm`](super::Gbm)s may allocate from one screen of
/// Mesa's, and so from one cache. It holds identities only, and keeps no memory alive.
static IN_USE: Mutex<FxHashSet<BufferId>> = Mutex::new(FxHashSet::with_hasher(FxBuildHasher));

/// The dma-bufs of one buffer that is in use. They count as in use until this is dropped.
pub(super) struct InUse {
    ids: ArrayVec<BufferId, MAX_PLANES>,
    owner: Owner,
}

impl InUse {
    /// Enters the dma-bufs of a new buffer, whose planes may share them. If one of them belongs to a buffer
    /// that is in use already, enters none, and gives back this one.
    pub(super) fn enter(ids: impl IntoIterator<Item = BufferId>) -> Result<Self, BufferId> {
        let mut own = ArrayVec::new();
        let mut in_use = lock();
        for id in ids {
            if own.contains(&id) {
                continue;
            }
            if in_use.contains(&id) {
                return Err(id);
            }
            own.push(id);
        }
        in_use.extend(&own);
        Ok(Self {
            ids: own,
            owner: Owner::current(),
        })
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // In a forked child, the lock may be held by a thread that does not exist there.
        if !self.owner.is_here() {
            return;
        }
        let mut in_use = lock();
        for id in &self.ids {
            in_use.remove(id);
        }
    }
}

fn lock() -> MutexGuard<'static, FxHashSet<BufferId>> {
    IN_USE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Numbers that no other test uses, since the whole process shares the set.
    const A: BufferId = BufferId::model(u64::MAX);
    const B: BufferId = BufferId::model(u64::MAX - 1);

    #[test]
    fn a_dma_buf_is_entered_by_one_buffer_at_a_time() {
        let first = InUse::enter([A]).ok();
        assert!(first.is_some());
        // The buffer that was refused because of A has not entered B.
        assert_eq!(InUse::enter([B, A]).err(), Some(A));
        let second = InUse::enter([B]);
        assert!(second.is_ok());
        drop(first);
        assert!(InUse::enter([A]).is_ok());
    }

    #[test]
    fn planes_may_share_a_dma_buf() {
        let id = BufferId::model(u64::MAX - 2);
        assert!(InUse::enter([id, id]).is_ok());
        assert!(InUse::enter([id]).is_ok());
    }
}
