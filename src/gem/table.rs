use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::errno::Errno;
use rustc_hash::FxHashMap;

use super::object::Lease;
use super::{Error, Handle, Object};
use crate::buffer::BufferId;
use crate::sys::drm;

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
    /// Handles that an import took over from their last user just before it closed them.
    pub resurrected: u64,
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
///
/// # When somebody else closes handles here
/// That is a bug of the host program, but not one that may show a client another's memory. The
/// kernel gives the number of a handle closed behind the table's back to the next object, so a
/// handle that comes back with another identity is another object: it gets an entry of its own,
/// and what refers to the old one neither exports nor closes any more.
pub(crate) struct Table {
    file: OwnedFd,
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: FxHashMap<Handle, Entry>,
    /// Names entries only. Valid while the handle is open: until GEM_CLOSE the kernel holds the
    /// dma-buf that belongs to a handle (`drm_prime_add_buf_handle`), so its identity is not
    /// given to another.
    by_id: FxHashMap<BufferId, Handle>,
    stats: Stats,
}

struct Entry {
    lease: Weak<Lease>,
    created_here: bool,
    id: Option<BufferId>,
}

impl State {
    fn remove(&mut self, handle: Handle) {
        if let Some(id) = self.entries.remove(&handle).and_then(|entry| entry.id) {
            self.by_id.remove(&id);
        }
    }

    /// A new entry, in place of a stale one of that number.
    fn insert(&mut self, handle: Handle, lease: &Arc<Lease>, created_here: bool) {
        self.remove(handle);
        self.entries.insert(
            handle,
            Entry {
                lease: Arc::downgrade(lease),
                created_here,
                id: None,
            },
        );
    }

    fn identify(&mut self, handle: Handle, id: BufferId) {
        if let Some(entry) = self.entries.get_mut(&handle) {
            entry.id = Some(id);
            self.by_id.insert(id, handle);
        }
    }

    /// Whether the entry is this lease's, and not that of a later user of the number.
    fn is_current(&self, lease: &Lease) -> bool {
        let entry = self.entries.get(&lease.handle);
        entry.is_some_and(|entry| std::ptr::eq(entry.lease.as_ptr(), lease))
    }
}

impl Table {
    pub(super) fn new(file: OwnedFd, name: String) -> Self {
        Self {
            file,
            name,
            state: Mutex::default(),
        }
    }

    /// The state is consistent between any two statements that can panic, so a poisoned lock is
    /// used on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device's name, for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            handles: state.entries.len(),
            ..state.stats
        }
    }

    /// The object of a bare fd: one `fstat` where this file description has it.
    pub(crate) fn import_fd(
        self: &Arc<Self>,
        fd: BorrowedFd<'_>,
    ) -> Result<(Object, Found), Error> {
        let id = BufferId::of(fd).map_err(|errno| Error::Identify {
            device: self.name.clone(),
            errno,
        })?;
        self.import(fd, id)
    }

    /// The object of a dma-buf whose identity is known, without a system call where this file
    /// description has it. The caller keeps `fd` open meanwhile, so `id` cannot go stale.
    pub(crate) fn import(
        self: &Arc<Self>,
        fd: BorrowedFd<'_>,
        id: BufferId,
    ) -> Result<(Object, Found), Error> {
        let mut state = self.lock();
        if let Some(&handle) = state.by_id.get(&id)
            && let Some(known) = self.lease(&mut state, handle)
        {
            state.stats.hits += 1;
            return Ok(known);
        }
        state.stats.imports += 1;
        let failed = |errno| Error::Import {
            device: self.name.clone(),
            errno,
        };
        let handle = drm::fd_to_handle(self.file.as_fd(), fd).map_err(failed)?;
        let handle = Handle::new(handle).ok_or(failed(Errno::EPROTO))?;
        // Known by its handle but not by identity: created here, and exported by a way that this
        // table did not see. With another identity it is another object, see above.
        let unidentified = |entry: &Entry| entry.id.is_none();
        let (object, found) = match state.entries.get(&handle).is_some_and(unidentified) {
            true => self.lease(&mut state, handle),
            false => None,
        }
        .unwrap_or_else(|| (self.insert(&mut state, handle, false), Found::New));
        state.identify(handle, id);
        log::debug!("{}: imported {id:?} as {handle:?}: {found:?}", self.name);
        Ok((object, found))
    }

    /// A dumb buffer, in the table before anybody else can know its handle; and its pitch.
    pub(crate) fn create_dumb(
        self: &Arc<Self>,
        width: u32,
        height: u32,
        bits_per_pixel: u32,
    ) -> Result<(Object, u32), Error> {
        let failed = |errno| Error::CreateDumb {
            device: self.name.clone(),
            errno,
        };
        // Without the lock: allocating can take long, and whoever closed this number before had
        // taken it out of the table by then.
        let (handle, pitch) =
            drm::create_dumb(self.file.as_fd(), width, height, bits_per_pixel).map_err(failed)?;
        let handle = Handle::new(handle).ok_or(failed(Errno::EPROTO))?;
        log::debug!("{}: created a dumb buffer as {handle:?}", self.name);
        Ok((self.insert(&mut self.lock(), handle, true), pitch))
    }

    pub(super) fn export(&self, lease: &Lease) -> Result<(OwnedFd, BufferId), Error> {
        let (device, handle) = (self.name.clone(), lease.handle.raw());
        let mut state = self.lock();
        if !state.is_current(lease) {
            return Err(Error::Export {
                device,
                handle,
                errno: Errno::ENOENT,
            });
        }
        state.stats.exports += 1;
        let fd = super::export_unowned(self.file.as_fd(), &self.name, handle)?;
        let id = BufferId::of(&fd).map_err(|errno| Error::Identify { device, errno })?;
        state.identify(lease.handle, id);
        Ok((fd, id))
    }

    pub(super) fn map_offset(&self, handle: Handle) -> Result<u64, Error> {
        drm::map_dumb(self.file.as_fd(), handle.raw()).map_err(|errno| Error::MapDumb {
            device: self.name.clone(),
            handle: handle.raw(),
            errno,
        })
    }

    /// A user for a handle that is in the table: its living lease, or a new one where the last
    /// user is on its way to [`Self::release`].
    fn lease(self: &Arc<Self>, state: &mut State, handle: Handle) -> Option<(Object, Found)> {
        let entry = state.entries.get_mut(&handle)?;
        let found = match entry.created_here {
            true => Found::SelfImport,
            false => Found::AlreadyImported,
        };
        let lease = entry.lease.upgrade().unwrap_or_else(|| {
            let lease = self.new_lease(handle);
            entry.lease = Arc::downgrade(&lease);
            state.stats.resurrected += 1;
            lease
        });
        Some((Object(lease), found))
    }

    fn insert(self: &Arc<Self>, state: &mut State, handle: Handle, created_here: bool) -> Object {
        let lease = self.new_lease(handle);
        state.insert(handle, &lease, created_here);
        Object(lease)
    }

    fn new_lease(self: &Arc<Self>, handle: Handle) -> Arc<Lease> {
        Arc::new(Lease {
            table: self.clone(),
            handle,
        })
    }

    /// The last user of `lease` has gone. Closes the handle, unless it is another's by now.
    pub(super) fn release(&self, lease: &Lease) {
        let mut state = self.lock();
        if !state.is_current(lease) {
            return;
        }
        state.remove(lease.handle);
        state.stats.closes += 1;
        log::debug!("{}: closing {:?}", self.name, lease.handle);
        if let Err(errno) = drm::close(self.file.as_fd(), lease.handle.raw()) {
            state.stats.failed_closes += 1;
            log::error!("{}: GEM_CLOSE of {:?}: {errno}", self.name, lease.handle);
        }
    }
}

impl AsFd for Table {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
