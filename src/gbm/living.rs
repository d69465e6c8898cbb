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
static LIVING: Mutex<FxHashSet<BufferId>> = Mutex::new(FxHashSet::with_hasher(FxBuildHasher));

/// The dma-bufs of one living buffer. They count as living until this is dropped.
pub(super) struct Living {
    ids: ArrayVec<BufferId, MAX_PLANES>,
    owner: Owner,
}

impl Living {
    /// Enters the dma-bufs of a new buffer, whose planes may share them. Gives back the first one
    /// that is in a living buffer already, and then enters none.
    pub(super) fn enter(ids: impl IntoIterator<Item = BufferId>) -> Result<Self, BufferId> {
        let mut own = ArrayVec::new();
        let mut living = lock();
        for id in ids {
            if own.contains(&id) {
                continue;
            }
            if living.contains(&id) {
                return Err(id);
            }
            own.push(id);
        }
        living.extend(&own);
        Ok(Self {
            ids: own,
            owner: Owner::current(),
        })
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        // A thread that a forked child lacks may hold the lock there.
        if !self.owner.is_here() {
            return;
        }
        let mut living = lock();
        for id in &self.ids {
            living.remove(id);
        }
    }
}

fn lock() -> MutexGuard<'static, FxHashSet<BufferId>> {
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Numbers of this test's own: the set is the process's.
    const A: BufferId = BufferId::model(u64::MAX);
    const B: BufferId = BufferId::model(u64::MAX - 1);

    #[test]
    fn a_dma_buf_is_entered_by_one_buffer_at_a_time() {
        let first = Living::enter([A]).ok();
        assert!(first.is_some());
        // B is not entered by what was refused for A.
        assert_eq!(Living::enter([B, A]).err(), Some(A));
        let second = Living::enter([B]);
        assert!(second.is_ok());
        drop(first);
        assert!(Living::enter([A]).is_ok());
    }

    #[test]
    fn planes_may_share_a_dma_buf() {
        let id = BufferId::model(u64::MAX - 2);
        assert!(Living::enter([id, id]).is_ok());
        assert!(Living::enter([id]).is_ok());
    }
}
