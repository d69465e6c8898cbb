//! The handle table. PRIME and GEM_CLOSE ioctls are made with its lock held.
//!
//! Before changing anything, read "How a handle is closed exactly once" on [`Table`]; afterwards run the loom
//! models (`cargo xtask test` does).

use std::fmt;
use std::sync::PoisonError;

use rustc_hash::FxHashMap;

use super::Handle;
use super::index::Index;
use super::kernel::Kernel;
use super::shared::{Arc, Mutex, MutexGuard, Weak};
use crate::Errno;
use crate::buffer::BufferId;

/// What an import found on its file description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImportOrigin {
    /// The library created the object on this very file description, and its handle is still in use.
    SelfImport,
    /// The dma-buf was imported here before, or its handle was adopted, and is still in use.
    ///
    /// The library does not know where an adopted handle came from, so this is also the answer if the
    /// program itself created the object here: see [`Device::adopt`](crate::Device::adopt).
    AlreadyImported,
    /// This file description did not know the dma-buf.
    New,
}

/// Where a handle came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The library made the object on this file description.
    Created,
    /// A dma-buf was imported.
    Imported,
    /// The host program handed the handle over. Where it has it from is unknown.
    Adopted,
    /// The handle was given up to the host program, and imported since. The host closes it.
    Released,
}

impl Origin {
    /// What an import says that finds such a handle.
    fn found(self) -> ImportOrigin {
        match self {
            Self::Created => ImportOrigin::SelfImport,
            Self::Imported | Self::Adopted | Self::Released => ImportOrigin::AlreadyImported,
        }
    }
}

/// What a table has done so far and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Handles open now: one for each live object.
    pub handles: usize,
    /// Handles whose dma-buf is known, by an import or an export: the entries of the import cache.
    pub identified: usize,
    /// Imports answered without asking the kernel for a handle.
    pub hits: u64,
    /// PRIME_FD_TO_HANDLE ioctls made.
    pub imports: u64,
    /// PRIME_HANDLE_TO_FD ioctls made.
    pub exports: u64,
    /// GEM_CLOSE ioctls made.
    pub closes: u64,
    /// Handles that were closed already when they were exported or closed here, though the device
    /// is there: somebody else closes handles on this file description.
    pub failed_closes: u64,
    /// Handles that an import took over from their last user just before it closed them.
    pub resurrected: u64,
}

/// A handle that is open.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    handle: Handle,
    origin: Origin,
    dma_buf: Option<BufferId>,
    users: usize,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handle, users, .. } = self;
        write!(f, "{:?} {handle:?}", self.origin)?;
        if let Some(id) = self.dma_buf {
            write!(f, " of {id:?}")?;
        }
        write!(f, " with {users} users")
    }
}

/// The handle table of one open file description.
///
/// # How a handle is closed exactly once
/// An entry refers weakly to the [`Lease`] of its users, so that a hit or a clone is an atomic
/// increment and a drop is a decrement. The last drop takes the lock, and only then closes the handle. An
/// import may take the lock first, and find the entry or be given its handle by the kernel. The handle is
/// still open then, since only the lock's holder closes, so the importer puts a new lease into the entry.
/// The late dropper finds a lease that is not its own, and leaves the handle to it. PRIME and GEM_CLOSE
/// ioctls are made with the lock held, so that the kernel's view and the table's change together.
/// (`models.rs` explores the interleavings of this.)
///
/// A hit does not take this lock: the [`Index`] gives a lease that has users, or nothing.
///
/// # Handles of the host program
/// The number of a released handle stays marked until the host says that it is closed, or until the
/// kernel gives the number to another object. An import that is given a marked number uses the
/// host's handle and does not close it.
///
/// # When somebody else closes handles here
/// That is a bug of the host program, but it must not show one client another's memory. The kernel gives
/// the number of a handle that was closed behind the table's back to the next object. So if a known handle
/// comes with another identity, it is another object: it gets an entry of its own, and leases of the old
/// entry neither export nor close any more.
pub(crate) struct Table<K: Kernel> {
    kernel: K,
    index: Index<Lease<K>>,
    state: Mutex<State<K>>,
}

struct State<K: Kernel> {
    entries: FxHashMap<Handle, Entry<K>>,
    /// Handles that [`Table::release`] gave to the host program, and their dma-bufs, if these are known.
    released: FxHashMap<Handle, Option<BufferId>>,
    leases: u64,
    stats: Stats,
}

struct Entry<K: Kernel> {
    lease: Weak<Lease<K>>,
    serial: u64,
    origin: Origin,
    /// The identity by which the index knows the handle.
    id: Option<BufferId>,
}

/// What all users of a handle share. Its drop closes the handle, unless an import took the handle over.
pub(super) struct Lease<K: Kernel> {
    table: Arc<Table<K>>,
    handle: Handle,
    origin: Origin,
    /// The number of this lease in its table, which tells it from other leases of the same handle.
    serial: u64,
}

impl<K: Kernel> Lease<K> {
    pub(super) fn table(&self) -> &Arc<Table<K>> {
        &self.table
    }

    pub(super) fn handle(&self) -> Handle {
        self.handle
    }

    pub(super) fn is_created(&self) -> bool {
        self.origin == Origin::Created
    }
}

impl<K: Kernel> Drop for Lease<K> {
    fn drop(&mut self) {
        // Asked before locking: in a forked child, the lock may be held by a thread that does not exist
        // there.
        if self.table.kernel.is_ours() {
            self.table.close(self);
        }
    }
}

impl<K: Kernel> State<K> {
    /// Whether the entry of the lease's handle still belongs to this lease, and not to a later one.
    fn is_current(&self, lease: &Lease<K>) -> bool {
        let entry = self.entries.get(&lease.handle);
        entry.is_some_and(|entry| entry.serial == lease.serial)
    }
}

impl<K: Kernel> Table<K> {
    pub(super) fn new(kernel: K) -> Self {
        Self {
            kernel,
            index: Index::new(),
            state: Mutex::new(State {
                entries: FxHashMap::default(),
                released: FxHashMap::default(),
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
        let (identified, hits) = self.index.count();
        Stats {
            handles: state.entries.len(),
            identified,
            hits: state.stats.hits + hits,
            ..state.stats
        }
    }

    /// The handles open now, for people: in the order of their numbers.
    pub(super) fn list(&self) -> Vec<Held> {
        let state = self.lock();
        let mut held: Vec<Held> = (state.entries.iter())
            .map(|(&handle, entry)| Held {
                handle,
                origin: entry.origin,
                dma_buf: entry.id,
                users: entry.lease.strong_count(),
            })
            .collect();
        held.sort_by_key(|held| held.handle);
        held
    }

    /// The lease of a dma-buf that is in use here. Makes no system call and does not take the table's lock.
    pub(super) fn hit(this: &Arc<Self>, id: BufferId) -> Option<(Arc<Lease<K>>, ImportOrigin)> {
        let lease = this.index.get_live(id)?;
        let found = lease.origin.found();
        Some((lease, found))
    }

    /// The lease of a dma-buf. If it is in use on this file description, this makes no system call. The
    /// caller keeps `fd` open meanwhile, so `id` stays valid.
    pub(super) fn import(
        this: &Arc<Self>,
        fd: K::Fd<'_>,
        id: BufferId,
    ) -> Result<(Arc<Lease<K>>, ImportOrigin), Errno> {
        if let Some(hit) = Self::hit(this, id) {
            return Ok(hit);
        }
        let mut state = this.lock();
        // The last user of the handle is about to close it, or another import was quicker.
        if let Some(handle) = this.index.handle(id)
            && let Some(known) = Self::lease(this, &mut state, handle)
        {
            state.stats.hits += 1;
            return Ok(known);
        }
        state.stats.imports += 1;
        let handle = Handle::new(this.kernel.fd_to_handle(fd)?).ok_or(Errno::EPROTO)?;
        let origin = match state.released.get(&handle) {
            None => Origin::Imported,
            Some(of) if of.is_none_or(|of| of == id) => {
                state.released.insert(handle, Some(id));
                Origin::Released
            }
            // The host has closed it, and the kernel has given the number to another object.
            Some(_) => {
                state.released.remove(&handle);
                Origin::Imported
            }
        };
        // The handle may be known although the dma-buf is not: if the object was created here and exported
        // without this table's knowing, or if it has two handles. If the entry has another identity, the
        // handle belongs to another object by now.
        let is_it = |entry: &Entry<K>| entry.id.is_none_or(|known| known == id);
        let known = match state.entries.get(&handle).is_some_and(is_it) {
            true => {
                this.kernel.imported_again(handle.raw());
                Self::lease(this, &mut state, handle)
            }
            false => None,
        };
        let leased = known.unwrap_or_else(|| {
            let found = match origin {
                Origin::Released => ImportOrigin::AlreadyImported,
                _ => ImportOrigin::New,
            };
            (Self::insert(this, &mut state, handle, origin), found)
        });
        this.identify(&mut state, handle, id);
        Ok(leased)
    }

    /// Enters the handle of an object that was just made here, and that nobody else can know.
    pub(super) fn created(this: &Arc<Self>, handle: Handle) -> Arc<Lease<K>> {
        Self::fresh(this, handle, Origin::Created)
    }

    /// Enters a new handle of an object of unknown origin.
    pub(super) fn opened(this: &Arc<Self>, handle: Handle) -> Arc<Lease<K>> {
        Self::fresh(this, handle, Origin::Adopted)
    }

    /// Makes an entry for a handle that the kernel has just made.
    fn fresh(this: &Arc<Self>, handle: Handle, origin: Origin) -> Arc<Lease<K>> {
        let mut state = this.lock();
        // The host has closed its handle, or the kernel would not have given the number again.
        state.released.remove(&handle);
        Self::insert(this, &mut state, handle, origin)
    }

    /// Becomes the owner of a handle that is open on this file description, and that the host
    /// program hands over.
    pub(super) fn adopt(this: &Arc<Self>, handle: Handle) -> Result<Arc<Lease<K>>, Errno> {
        let mut state = this.lock();
        state.stats.exports += 1;
        let id = match this.kernel.handle_to_fd(handle.raw()) {
            Ok((_, id)) => Some(id),
            Err(Errno::ENOENT) => {
                this.closed_elsewhere(&mut state, handle);
                return Err(Errno::ENOENT);
            }
            // The handle is open but cannot be exported, as those of amdgpu's userptr objects.
            Err(errno) if is_no_export(errno) => None,
            Err(errno) => return Err(errno),
        };
        state.released.remove(&handle);
        // An entry of another identity is stale: its handle was closed behind the table's back.
        let is_it = |entry: &Entry<K>| entry.id.is_none_or(|known| Some(known) == id);
        let known = match state.entries.get_mut(&handle).filter(|entry| is_it(entry)) {
            Some(entry) => {
                if entry.origin == Origin::Released {
                    entry.origin = Origin::Adopted;
                }
                Self::lease(this, &mut state, handle)
            }
            None => None,
        };
        let lease = match known {
            Some((lease, _)) => lease,
            None => Self::insert(this, &mut state, handle, Origin::Adopted),
        };
        if let Some(id) = id
            && this.index.get_live(id).is_none()
        {
            this.identify(&mut state, handle, id);
        } else if let Some(entry) = state.entries.get_mut(&handle) {
            // A second handle of a dma-buf that is known by the first.
            entry.id = id;
        }
        Ok(lease)
    }

    /// Gives a handle up to the host program, which has to close it. Other clones of the lease neither export
    /// nor close any more. `false` if the handle did not belong to this lease any more, or was the host's
    /// already.
    pub(super) fn release(&self, lease: &Lease<K>) -> bool {
        let mut state = self.lock();
        let handle = lease.handle;
        let entry = state.entries.get(&handle);
        let Some((origin, known)) = entry.map(|entry| (entry.origin, entry.id)) else {
            return false;
        };
        if !state.is_current(lease) || origin == Origin::Released {
            return false;
        }
        let id = known.or_else(|| {
            state.stats.exports += 1;
            self.kernel
                .handle_to_fd(handle.raw())
                .ok()
                .map(|(_, id)| id)
        });
        self.remove(&mut state, handle);
        state.released.insert(handle, id);
        true
    }

    /// Notes that the host program has closed a handle that was released to it.
    pub(super) fn host_closed(&self, handle: Handle) {
        let mut state = self.lock();
        let Some(released) = state.released.remove(&handle) else {
            return;
        };
        // An import between the host's close and this call may have been given the same number, and taken the
        // new handle for the host's.
        state.stats.exports += 1;
        let now = self
            .kernel
            .handle_to_fd(handle.raw())
            .ok()
            .map(|(_, id)| id);
        let is_open = now.is_some() && now == released;
        match state.entries.get_mut(&handle) {
            Some(entry) if is_open => entry.origin = Origin::Imported,
            Some(_) => self.remove(&mut state, handle),
            None if is_open => self.close_now(&mut state, handle),
            None => {}
        }
    }

    /// Closes a handle for the host program, to which it was released. ENOENT if the host has said
    /// before that it is closed, or if the kernel has given the number away since.
    pub(super) fn close_for_host(&self, handle: Handle) -> Result<(), Errno> {
        let mut state = self.lock();
        if state.released.remove(&handle).is_none() {
            return Err(Errno::ENOENT);
        }
        self.remove(&mut state, handle);
        state.stats.closes += 1;
        self.kernel.close(handle.raw())
    }

    pub(super) fn export(&self, lease: &Lease<K>) -> Result<(K::OwnedFd, BufferId), Errno> {
        self.export_locked(&mut self.lock(), lease)
    }

    /// Calls `make` with the handle of a lease, under the table's lock, so that nobody closes it meanwhile.
    /// First makes sure that the number still belongs to the same object.
    pub(super) fn with_handle<T>(
        &self,
        lease: &Lease<K>,
        make: impl FnOnce(&K, u32) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut state = self.lock();
        match self.export_locked(&mut state, lease) {
            // Objects that cannot be exported have no identity to check. The library has not closed the
            // handle.
            Err(errno) if is_no_export(errno) => {}
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        make(&self.kernel, lease.handle.raw())
    }

    fn export_locked(
        &self,
        state: &mut State<K>,
        lease: &Lease<K>,
    ) -> Result<(K::OwnedFd, BufferId), Errno> {
        if !state.is_current(lease) {
            return Err(Errno::ENOENT);
        }
        state.stats.exports += 1;
        let exported = self.kernel.handle_to_fd(lease.handle.raw());
        if matches!(exported, Err(Errno::ENOENT)) {
            self.closed_elsewhere(state, lease.handle);
        }
        let (fd, id) = exported?;
        let known = state.entries.get(&lease.handle).and_then(|entry| entry.id);
        if known.is_some_and(|known| known != id) {
            self.remove(state, lease.handle);
            return Err(Errno::ENOENT);
        }
        self.identify(state, lease.handle, id);
        Ok((fd, id))
    }

    /// Removes a handle that was closed behind the table's back.
    fn closed_elsewhere(&self, state: &mut State<K>, handle: Handle) {
        state.released.remove(&handle);
        let origin = state.entries.get(&handle).map(|entry| entry.origin);
        self.remove(state, handle);
        // The host may close its own handles at any time, so that is no error.
        if origin.is_some_and(|origin| origin != Origin::Released) {
            state.stats.failed_closes += 1;
        }
    }

    fn identify(&self, state: &mut State<K>, handle: Handle, id: BufferId) {
        if let Some(entry) = state.entries.get_mut(&handle) {
            entry.id = Some(id);
            self.index.insert(id, handle, entry.lease.clone());
        }
    }

    fn remove(&self, state: &mut State<K>, handle: Handle) {
        if let Some(id) = state.entries.remove(&handle).and_then(|entry| entry.id) {
            self.index.remove(id, handle);
        }
    }

    /// A lease for a handle that is in the table: the live one, or a new one if the last user is about
    /// to call [`Self::close`].
    fn lease(
        this: &Arc<Self>,
        state: &mut State<K>,
        handle: Handle,
    ) -> Option<(Arc<Lease<K>>, ImportOrigin)> {
        let entry = state.entries.get_mut(&handle)?;
        let lease = entry.lease.upgrade().unwrap_or_else(|| {
            state.leases += 1;
            state.stats.resurrected += 1;
            let lease = Self::new_lease(this, handle, entry.origin, state.leases);
            entry.lease = Arc::downgrade(&lease);
            entry.serial = lease.serial;
            if let Some(id) = entry.id {
                this.index.update(id, handle, entry.lease.clone());
            }
            lease
        });
        let found = lease.origin.found();
        Some((lease, found))
    }

    /// Makes a new entry, and removes a stale one of the same number.
    fn insert(
        this: &Arc<Self>,
        state: &mut State<K>,
        handle: Handle,
        origin: Origin,
    ) -> Arc<Lease<K>> {
        this.remove(state, handle);
        state.leases += 1;
        let lease = Self::new_lease(this, handle, origin, state.leases);
        let entry = Entry {
            lease: Arc::downgrade(&lease),
            serial: lease.serial,
            origin,
            id: None,
        };
        state.entries.insert(handle, entry);
        lease
    }

    fn new_lease(this: &Arc<Self>, handle: Handle, origin: Origin, serial: u64) -> Arc<Lease<K>> {
        Arc::new(Lease {
            table: this.clone(),
            handle,
            origin,
            serial,
        })
    }

    /// Closes the handle of a lease whose last user is gone, unless the handle has a newer lease.
    fn close(&self, lease: &Lease<K>) {
        let mut state = self.lock();
        let entry = state.entries.get(&lease.handle);
        let Some(origin) = entry
            .filter(|entry| entry.serial == lease.serial)
            .map(|entry| entry.origin)
        else {
            return;
        };
        self.remove(&mut state, lease.handle);
        if origin == Origin::Released {
            return;
        }
        self.close_now(&mut state, lease.handle);
    }

    fn close_now(&self, state: &mut State<K>, handle: Handle) {
        state.stats.closes += 1;
        if let Err(errno) = self.kernel.close(handle.raw()) {
            state.stats.failed_closes += 1;
            log::error!("GEM_CLOSE of {handle:?}: {errno}");
        }
    }
}

/// Whether an errno says that a driver does not export an object, rather than that there was no
/// such handle or no room: EPERM from amdgpu, EINVAL from i915, ENOSYS and EOPNOTSUPP from drivers
/// without the operation, EACCES from the kernel.
fn is_no_export(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EACCES | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM
    )
}
