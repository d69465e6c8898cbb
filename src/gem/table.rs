use std::sync::PoisonError;

use nix::errno::Errno;
use rustc_hash::FxHashMap;

use super::Handle;
use super::kernel::Kernel;
use super::shared::{Arc, Mutex, MutexGuard, Weak};
use crate::buffer::BufferId;

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

/// Where a handle came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Made on this file description.
    Created,
    /// Of a dma-buf.
    Imported,
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
    /// GEM_CLOSE ioctls that failed though the device is there: somebody else closes handles on
    /// this file description.
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
/// entry. The late dropper then finds a lease that is not its own and leaves the handle to it.
/// PRIME and GEM_CLOSE ioctls are made with the lock held, so that the kernel's view and the
/// table's change together. (`models.rs` explores all interleavings of this.)
///
/// # When somebody else closes handles here
/// That is a bug of the host program, but not one that may show a client another's memory. The
/// kernel gives the number of a handle closed behind the table's back to the next object, so a
/// handle that comes back with another identity is another object: it gets an entry of its own,
/// and what refers to the old one neither exports nor closes any more.
pub(crate) struct Table<K: Kernel> {
    kernel: K,
    state: Mutex<State<K>>,
}

struct State<K: Kernel> {
    entries: FxHashMap<Handle, Entry<K>>,
    /// Names entries only. Valid while the handle is open: until GEM_CLOSE the kernel holds the
    /// dma-buf that belongs to a handle (`drm_prime_add_buf_handle`), so its identity is not
    /// given to another.
    by_id: FxHashMap<BufferId, Handle>,
    leases: u64,
    stats: Stats,
}

struct Entry<K: Kernel> {
    lease: Weak<Lease<K>>,
    serial: u64,
    origin: Origin,
    id: Option<BufferId>,
}

/// The one claim of all users to a handle. Its drop is what may close the handle.
pub(super) struct Lease<K: Kernel> {
    table: Arc<Table<K>>,
    handle: Handle,
    /// Counts the table's leases: tells this one from another of the same handle.
    serial: u64,
}

impl<K: Kernel> Lease<K> {
    pub(super) fn table(&self) -> &Arc<Table<K>> {
        &self.table
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }
}

impl<K: Kernel> Drop for Lease<K> {
    fn drop(&mut self) {
        self.table.close(self);
    }
}

impl<K: Kernel> State<K> {
    fn remove(&mut self, handle: Handle) {
        let id = self.entries.remove(&handle).and_then(|entry| entry.id);
        // The dma-buf may have another handle here, by a flink name, and be known by that one.
        if let Some(id) = id
            && self.by_id.get(&id) == Some(&handle)
        {
            self.by_id.remove(&id);
        }
    }

    fn identify(&mut self, handle: Handle, id: BufferId) {
        if let Some(entry) = self.entries.get_mut(&handle) {
            entry.id = Some(id);
            self.by_id.insert(id, handle);
        }
    }

    /// Whether the entry is this lease's, and not that of a later user of the number.
    fn is_current(&self, lease: &Lease<K>) -> bool {
        let entry = self.entries.get(&lease.handle);
        entry.is_some_and(|entry| entry.serial == lease.serial)
    }
}

impl<K: Kernel> Table<K> {
    pub(super) fn new(kernel: K) -> Self {
        Self {
            kernel,
            state: Mutex::new(State {
                entries: FxHashMap::default(),
                by_id: FxHashMap::default(),
                leases: 0,
                stats: Stats::default(),
            }),
        }
    }

    pub(super) fn kernel(&self) -> &K {
        &self.kernel
    }

    /// The state is consistent between any two statements that can panic, so a poisoned lock is
    /// used on.
    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            handles: state.entries.len(),
            ..state.stats
        }
    }

    /// The lease of a dma-buf, without a system call where this file description has it. The
    /// caller keeps `fd` open meanwhile, so `id` cannot go stale.
    pub(super) fn import(
        this: &Arc<Self>,
        fd: K::Fd<'_>,
        id: BufferId,
    ) -> Result<(Arc<Lease<K>>, Found), Errno> {
        let mut state = this.lock();
        if let Some(&handle) = state.by_id.get(&id)
            && let Some(known) = Self::lease(this, &mut state, handle)
        {
            state.stats.hits += 1;
            return Ok(known);
        }
        state.stats.imports += 1;
        let handle = Handle::new(this.kernel.fd_to_handle(fd)?).ok_or(Errno::EPROTO)?;
        // Known by its handle though not by its identity: created here, and exported by a way
        // that this table did not see; or it has two handles. With another identity it is
        // another object.
        let is_it = |entry: &Entry<K>| entry.id.is_none_or(|known| known == id);
        let known = match state.entries.get(&handle).is_some_and(is_it) {
            true => Self::lease(this, &mut state, handle),
            false => None,
        };
        let leased = known.unwrap_or_else(|| {
            let lease = Self::insert(this, &mut state, handle, Origin::Imported);
            (lease, Found::New)
        });
        state.identify(handle, id);
        Ok(leased)
    }

    /// Takes a handle that the kernel has just made, and that nobody else can know.
    pub(super) fn created(this: &Arc<Self>, handle: Handle) -> Arc<Lease<K>> {
        let mut state = this.lock();
        Self::insert(this, &mut state, handle, Origin::Created)
    }

    /// Becomes the owner of a handle that is open on this file description, and that the host
    /// program hands over.
    pub(super) fn adopt(this: &Arc<Self>, handle: Handle) -> Result<Arc<Lease<K>>, Errno> {
        let mut state = this.lock();
        // A handle that is in the table may be the same object or, if that was closed behind our
        // back, another: its export tells.
        let is_it = match state.entries.get(&handle).map(|entry| entry.id) {
            None => false,
            Some(None) => true,
            Some(Some(id)) => this.kernel.handle_to_fd(handle.raw())?.1 == id,
        };
        let known = match is_it {
            true => Self::lease(this, &mut state, handle),
            false => None,
        };
        Ok(match known {
            Some((lease, _)) => lease,
            None => Self::insert(this, &mut state, handle, Origin::Created),
        })
    }

    /// Forgets a handle, which is the host program's from now on. What else refers to it neither
    /// exports nor closes any more. `false` where it was not this lease's any more.
    pub(super) fn forget(&self, lease: &Lease<K>) -> bool {
        let mut state = self.lock();
        let current = state.is_current(lease);
        if current {
            state.remove(lease.handle);
        }
        current
    }

    pub(super) fn export(&self, lease: &Lease<K>) -> Result<(K::OwnedFd, BufferId), Errno> {
        let mut state = self.lock();
        if !state.is_current(lease) {
            return Err(Errno::ENOENT);
        }
        state.stats.exports += 1;
        let (fd, id) = self.kernel.handle_to_fd(lease.handle.raw())?;
        state.identify(lease.handle, id);
        Ok((fd, id))
    }

    /// A user for a handle that is in the table: its living lease, or a new one where the last
    /// user is on its way to [`Self::close`].
    fn lease(
        this: &Arc<Self>,
        state: &mut State<K>,
        handle: Handle,
    ) -> Option<(Arc<Lease<K>>, Found)> {
        let entry = state.entries.get_mut(&handle)?;
        let found = match entry.origin {
            Origin::Created => Found::SelfImport,
            Origin::Imported => Found::AlreadyImported,
        };
        let lease = entry.lease.upgrade().unwrap_or_else(|| {
            state.leases += 1;
            let lease = Self::new_lease(this, handle, state.leases);
            entry.lease = Arc::downgrade(&lease);
            entry.serial = lease.serial;
            state.stats.resurrected += 1;
            lease
        });
        Some((lease, found))
    }

    /// A new entry, in place of a stale one of that number.
    fn insert(
        this: &Arc<Self>,
        state: &mut State<K>,
        handle: Handle,
        origin: Origin,
    ) -> Arc<Lease<K>> {
        state.remove(handle);
        state.leases += 1;
        let lease = Self::new_lease(this, handle, state.leases);
        let entry = Entry {
            lease: Arc::downgrade(&lease),
            serial: lease.serial,
            origin,
            id: None,
        };
        state.entries.insert(handle, entry);
        lease
    }

    fn new_lease(this: &Arc<Self>, handle: Handle, serial: u64) -> Arc<Lease<K>> {
        Arc::new(Lease {
            table: this.clone(),
            handle,
            serial,
        })
    }

    /// The last user of `lease` has gone. Closes the handle, unless it is another's by now.
    fn close(&self, lease: &Lease<K>) {
        let mut state = self.lock();
        if !state.is_current(lease) {
            return;
        }
        state.remove(lease.handle);
        state.stats.closes += 1;
        if let Err(errno) = self.kernel.close(lease.handle.raw()) {
            state.stats.failed_closes += 1;
            log::error!("GEM_CLOSE of {:?}: {errno}", lease.handle);
        }
    }
}
