use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::errno::Errno;
use rustc_hash::FxHashMap;

use super::object::Lease;
use super::{Error, Handle, Object};
use crate::buffer::BufferId;
use crate::sys;

/// What an import met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Found {
    /// The object was created on this very file description, and its handle is the one from
    /// there.
    SelfImport,
    /// The dma-buf had been imported here before and is still in use.
    AlreadyImported,
    /// This file description did not know the dma-buf.
    New,
}

/// What a table has done so far and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Handles open now.
    pub handles: usize,
    /// Imports answered without asking the kernel for a handle.
    pub hits: u64,
    /// PRIME_FD_TO_HANDLE ioctls made.
    pub imports: u64,
    /// PRIME_HANDLE_TO_FD ioctls made.
    pub exports: u64,
    /// GEM_CLOSE ioctls made.
    pub closes: u64,
    /// GEM_CLOSE ioctls that failed. Not zero: somebody else closes handles on this file
    /// description, or the device is gone.
    pub failed_closes: u64,
}

/// The handle table of one open file description.
///
/// # How a handle is closed exactly once
/// An entry refers weakly to the [`Lease`] of its users, so that a hit or a clone is an atomic
/// increment and a drop is a decrement. The last drop takes the lock and only then closes. In
/// between, an import may find the entry, or be told its handle by the kernel: the handle is
/// still open, since only the lock's holder closes, so the importer puts a new lease into the
/// entry. The late dropper then sees a lease that is not its own and leaves the handle to it.
/// PRIME and GEM_CLOSE ioctls are made with the lock held, so that the kernel's view and the
/// table's change together.
pub(crate) struct Table {
    file: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: FxHashMap<Handle, Entry>,
    /// Valid while the handle is open: until GEM_CLOSE the kernel holds the dma-buf that belongs
    /// to a handle (`drm_prime_add_buf_handle`), so its identity is not given to another.
    by_id: FxHashMap<BufferId, Handle>,
    stats: Stats,
}

struct Entry {
    lease: Weak<Lease>,
    created_here: bool,
    id: Option<BufferId>,
}

impl Table {
    pub(super) fn new(file: OwnedFd) -> Self {
        Self {
            file,
            state: Mutex::default(),
        }
    }

    /// The state is consistent between any two statements that can panic, so a poisoned lock is
    /// used on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            handles: state.entries.len(),
            ..state.stats
        }
    }

    /// The object of a dma-buf whose identity is known, without a system call where this file
    /// description has it. The caller keeps `fd` open meanwhile, so `id` cannot go stale.
    pub(crate) fn import(
        self: &Arc<Self>,
        fd: BorrowedFd<'_>,
        id: BufferId,
    ) -> Result<(Object, Found), Error> {
        let mut state = self.lock();
        if let Some(&handle) = state.by_id.get(&id) {
            state.stats.hits += 1;
            return Ok(self.lease(&mut state, handle));
        }
        state.stats.imports += 1;
        let prime =
            sys::retry(|| drm_ffi::gem::fd_to_handle(self.file.as_fd(), fd).map_err(sys::errno))
                .map_err(|errno| Error::Import { errno })?;
        let handle = Handle(NonZeroU32::new(prime.handle).ok_or(Error::Import {
            errno: Errno::EPROTO,
        })?);
        let (object, found) = match state.entries.contains_key(&handle) {
            // Created here, and exported by a way that this table did not see.
            true => self.lease(&mut state, handle),
            false => (self.insert(&mut state, handle, false), Found::New),
        };
        if let Some(entry) = state.entries.get_mut(&handle) {
            entry.id = Some(id);
        }
        state.by_id.insert(id, handle);
        Ok((object, found))
    }

    /// A dumb buffer, in the table from its first moment.
    pub(crate) fn create_dumb(
        self: &Arc<Self>,
        width: u32,
        height: u32,
        bits_per_pixel: u32,
    ) -> Result<Dumb, Error> {
        let mut state = self.lock();
        let dumb = sys::retry(|| {
            drm_ffi::mode::dumbbuffer::create(self.file.as_fd(), width, height, bits_per_pixel, 0)
                .map_err(sys::errno)
        })
        .map_err(|errno| Error::CreateDumb { errno })?;
        let handle = Handle(NonZeroU32::new(dumb.handle).ok_or(Error::CreateDumb {
            errno: Errno::EPROTO,
        })?);
        Ok(Dumb {
            object: self.insert(&mut state, handle, true),
            pitch: dumb.pitch,
        })
    }

    pub(super) fn export(&self, object: &Object) -> Result<(OwnedFd, BufferId), Error> {
        let handle = object.handle();
        let mut state = self.lock();
        state.stats.exports += 1;
        let fd = super::export_unowned(self.file.as_fd(), handle.raw())?;
        let id = BufferId::of(&fd).map_err(|errno| Error::Identify { errno })?;
        if let Some(entry) = state.entries.get_mut(&handle) {
            entry.id = Some(id);
            state.by_id.insert(id, handle);
        }
        Ok((fd, id))
    }

    pub(super) fn map_offset(&self, handle: Handle) -> Result<u64, Error> {
        sys::retry(|| {
            drm_ffi::mode::dumbbuffer::map(self.file.as_fd(), handle.raw(), 0, 0)
                .map_err(sys::errno)
        })
        .map(|map| map.offset)
        .map_err(|errno| Error::MapDumb {
            handle: handle.raw(),
            errno,
        })
    }

    /// A user for a handle that is in the table: its living lease, or a new one where the last
    /// user is on its way to [`Self::release`].
    fn lease(self: &Arc<Self>, state: &mut State, handle: Handle) -> (Object, Found) {
        let Some(entry) = state.entries.get_mut(&handle) else {
            // `by_id` and `entries` change together, so this is not reached; were it, a fresh
            // entry is the right answer for a handle that the kernel says is open.
            return (self.insert(state, handle, false), Found::New);
        };
        let found = match entry.created_here {
            true => Found::SelfImport,
            false => Found::AlreadyImported,
        };
        let lease = entry.lease.upgrade().unwrap_or_else(|| {
            let lease = self.new_lease(handle);
            entry.lease = Arc::downgrade(&lease);
            lease
        });
        (Object(lease), found)
    }

    fn insert(self: &Arc<Self>, state: &mut State, handle: Handle, created_here: bool) -> Object {
        let lease = self.new_lease(handle);
        state.entries.insert(
            handle,
            Entry {
                lease: Arc::downgrade(&lease),
                created_here,
                id: None,
            },
        );
        Object(lease)
    }

    fn new_lease(self: &Arc<Self>, handle: Handle) -> Arc<Lease> {
        Arc::new(Lease {
            table: self.clone(),
            handle,
        })
    }

    /// The last user of `lease` has gone. Closes the handle, unless an import took it over.
    pub(super) fn release(&self, lease: &Lease) {
        let mut state = self.lock();
        let ours = |entry: &Entry| std::ptr::eq(entry.lease.as_ptr(), lease);
        if !state.entries.get(&lease.handle).is_some_and(ours) {
            return;
        }
        if let Some(id) = state.entries.remove(&lease.handle).and_then(|e| e.id) {
            state.by_id.remove(&id);
        }
        state.stats.closes += 1;
        let closed = sys::retry(|| {
            drm_ffi::gem::close(self.file.as_fd(), lease.handle.raw()).map_err(sys::errno)
        });
        if let Err(errno) = closed {
            state.stats.failed_closes += 1;
            log::error!("GEM_CLOSE of {:?}: {errno}", lease.handle);
        }
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A dumb buffer as the driver laid it out.
pub(crate) struct Dumb {
    pub(crate) object: Object,
    /// Bytes from one row to the next.
    pub(crate) pitch: u32,
}
