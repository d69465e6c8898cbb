use std::fmt;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Error, Table};
use crate::buffer::BufferId;

/// A GEM handle: a number that means something on one open file description only. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(NonZeroU32);

impl Handle {
    /// `None` for zero, which the kernel never gives.
    pub(super) fn new(handle: u32) -> Option<Self> {
        NonZeroU32::new(handle).map(Self)
    }

    /// The kernel's number, for an ioctl.
    ///
    /// It is good while the [`Object`] it came from is alive. Never close it, and never store it
    /// without the object.
    pub fn raw(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.raw())
    }
}

/// A GEM object on one file description, counted: the handle is closed when the last clone goes.
///
/// All objects for one dma-buf on one file description are clones of each other, wherever they
/// came from. Clones are cheap and thread-safe; dropping the last one makes the GEM_CLOSE ioctl,
/// which does not wait for the GPU.
#[derive(Clone)]
pub struct Object(pub(super) Arc<Lease>);

/// The one claim to a handle. Its drop is what may close the handle.
pub(super) struct Lease {
    pub(super) table: Arc<Table>,
    pub(super) handle: Handle,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.table.release(self);
    }
}

impl Object {
    /// The handle on this file description.
    pub fn handle(&self) -> Handle {
        self.0.handle
    }

    /// Exports the object as a dma-buf, read-write and close-on-exec, and reports its identity.
    ///
    /// The fd is the caller's. Exporting an imported object gives its original dma-buf, not a new
    /// one. Thread-safe; does not block on the GPU.
    pub fn export(&self) -> Result<(OwnedFd, BufferId), Error> {
        self.0.table.export(&self.0)
    }

    /// The offset at which `mmap` of the device fd finds this object's memory
    /// (MODE_MAP_DUMB). Objects imported from another driver have none: EINVAL.
    pub(crate) fn map_offset(&self) -> Result<u64, Error> {
        self.0.table.map_offset(self.handle())
    }

    /// The table the handle lives in.
    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.0.table
    }
}

impl PartialEq for Object {
    /// The same object on the same file description.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Object {}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("handle", &self.handle())
            .finish()
    }
}
