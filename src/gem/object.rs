//! Handles of a file description ([`Handles`]) and counted GEM objects ([`Object`]): the table for the
//! rest of the library. Every operation that reaches the kernel asks first whether this process owns
//! the table.

use std::fmt;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::kernel::{File, Kernel};
use super::shared::Arc;
use super::table::{Held, Lease, Table};
use super::{Error, ImportOrigin, Released, Stats};
use crate::Errno;
use crate::buffer::BufferId;
use crate::sys;

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
    /// It is valid while the [`Object`] that it came from is alive. Never close it, and never store it
    /// without the object.
    pub fn raw(self) -> u32 {
        self.0.get()
    }
}

impl From<Handle> for NonZeroU32 {
    fn from(handle: Handle) -> Self {
        handle.0
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.raw())
    }
}

/// An open file description of a DRM node and its table of handles. Clones share both.
#[derive(Clone)]
pub(crate) struct Handles(pub(super) Arc<Table<File>>);

/// A GEM object on one file description, counted: the handle is closed when the last clone goes.
///
/// All objects for one dma-buf on one file description are clones of each other, wherever they came from.
/// The exceptions are objects to which the kernel gave another handle: those opened by a flink name, and
/// those from GETFB. Clones are cheap and thread-safe. Dropping the last one makes the GEM_CLOSE ioctl, which
/// does not wait for the GPU.
#[derive(Clone)]
pub struct Object(Arc<Lease<File>>);

impl Handles {
    pub(super) fn new(fd: OwnedFd, name: String) -> Self {
        Self(Arc::new(Table::new(File::new(fd, name))))
    }

    /// The device's name, for people.
    pub(crate) fn name(&self) -> &str {
        &self.0.kernel().name
    }

    pub(crate) fn stats(&self) -> Stats {
        self.0.stats()
    }

    pub(crate) fn list(&self) -> Vec<Held> {
        self.0.list()
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// [`Error::Forked`] in a child of the process that the file description belongs to.
    fn check_process(&self) -> Result<(), Error> {
        match self.0.kernel().is_ours() {
            true => Ok(()),
            false => Err(Error::Forked {
                device: self.name().to_owned(),
            }),
        }
    }

    /// See [`Released::close`](super::Released::close).
    pub(super) fn close_for_host(&self, handle: Handle) -> Result<(), Error> {
        self.check_process()?;
        self.0.close_for_host(handle).map_err(|errno| {
            self.lost_or(errno, |device| Error::Close {
                device,
                handle: handle.raw(),
                errno,
            })
        })
    }

    /// The object of a bare fd. If it is in use on this file description, this costs one `fstat`.
    pub(crate) fn import_fd(&self, fd: BorrowedFd<'_>) -> Result<(Object, ImportOrigin), Error> {
        let id = BufferId::of(fd).map_err(|errno| Error::Identify {
            device: self.name().to_owned(),
            errno,
        })?;
        self.import(fd, id)
    }

    /// The object of a dma-buf whose identity is known. If it is in use on this file description, this costs
    /// no system call.
    pub(crate) fn import(
        &self,
        fd: BorrowedFd<'_>,
        id: BufferId,
    ) -> Result<(Object, ImportOrigin), Error> {
        if let Some((lease, found)) = Table::hit(&self.0, id) {
            return Ok((Object(lease), found));
        }
        self.check_process()?;
        let (lease, found) = Table::import(&self.0, fd, id)
            .map_err(|errno| self.lost_or(errno, |device| Error::Import { device, errno }))?;
        if found == ImportOrigin::New {
            log::debug!("{}: imported {id:?} as {:?}", self.name(), lease.handle());
        }
        Ok((Object(lease), found))
    }

    /// Makes a dumb buffer, and enters it into the table before anybody else can know its handle. Gives its
    /// pitch, too.
    pub(crate) fn create_dumb(
        &self,
        width: u32,
        height: u32,
        bits_per_pixel: u32,
    ) -> Result<(Object, u32), Error> {
        self.check_process()?;
        // Without the table's lock, since allocating can take long. This is safe: a number that was in use
        // before has left the table before its handle was closed.
        let (handle, pitch) = sys::drm::create_dumb(self.as_fd(), width, height, bits_per_pixel)
            .map_err(|errno| {
                self.lost_or(errno, |device| Error::CreateDumb {
                    device,
                    width,
                    height,
                    bits_per_pixel,
                    errno,
                })
            })?;
        let object = self.created(handle)?;
        log::debug!("{}: made a dumb buffer, {:?}", self.name(), object.handle());
        Ok((object, pitch))
    }

    /// See [`Device::open_name`](crate::Device::open_name).
    pub(crate) fn open_name(&self, name: u32) -> Result<Object, Error> {
        self.check_process()?;
        let handle = sys::drm::open_name(self.as_fd(), name).map_err(|errno| {
            self.lost_or(errno, |device| Error::OpenName {
                device,
                name,
                errno,
            })
        })?;
        Ok(Object(Table::opened(&self.0, self.handle(handle)?)))
    }

    /// See [`Device::adopt`](crate::Device::adopt).
    pub(crate) fn adopt(&self, handle: u32) -> Result<Object, Error> {
        self.check_process()?;
        let lease = Table::adopt(&self.0, self.handle(handle)?).map_err(|errno| {
            self.lost_or(errno, |device| Error::Export {
                device,
                handle,
                errno,
            })
        })?;
        Ok(Object(lease))
    }

    fn created(&self, handle: u32) -> Result<Object, Error> {
        Ok(Object(Table::created(&self.0, self.handle(handle)?)))
    }

    fn handle(&self, handle: u32) -> Result<Handle, Error> {
        Handle::new(handle).ok_or_else(|| Error::NoHandle {
            device: self.name().to_owned(),
        })
    }

    /// The error for an errno. ENODEV has two meanings: a driver answers it to memory that it cannot import,
    /// and the kernel answers it to everything once the device was unplugged.
    fn lost_or(&self, errno: Errno, refused: impl FnOnce(String) -> Error) -> Error {
        let device = self.name().to_owned();
        match errno {
            Errno::ENODEV if self.0.kernel().is_lost() => Error::Lost { device },
            _ => refused(device),
        }
    }
}

impl AsFd for Handles {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.kernel().fd.as_fd()
    }
}

impl Object {
    /// The handle on this file description.
    pub fn handle(&self) -> Handle {
        self.0.handle()
    }

    /// Exports the object as a dma-buf, read-write and close-on-exec, and reports its identity.
    ///
    /// The fd is the caller's. Exporting an imported object gives its original dma-buf, not a new
    /// one. Thread-safe; does not block on the GPU.
    pub fn export(&self) -> Result<(OwnedFd, BufferId), Error> {
        let handles = self.handles();
        handles.check_process()?;
        handles.0.export(&self.0).map_err(|errno| {
            handles.lost_or(errno, |device| Error::Export {
                device,
                handle: self.handle().raw(),
                errno,
            })
        })
    }

    /// Gives the handle up to the host program, which has to close it from now on.
    ///
    /// Other clones and imports of the object lose the handle: their exports fail (ENOENT), and their drop
    /// closes nothing. [`Released`] says how the library learns that the handle is closed. `None` if the
    /// handle was given up or closed behind the table's back before, and in a forked child.
    pub fn release(self) -> Option<Released> {
        let (handles, handle) = (self.handles(), self.handle());
        let released = handles.check_process().is_ok() && handles.0.release(&self.0);
        released.then_some(Released { handles, handle })
    }

    /// The offset at which `mmap` of the device fd finds this object's memory
    /// (MODE_MAP_DUMB). Objects imported from another driver have none: EINVAL.
    pub(crate) fn map_offset(&self) -> Result<u64, Error> {
        let (handles, handle) = (self.handles(), self.handle().raw());
        handles.check_process()?;
        let map = |file: &File, handle| sys::drm::map_dumb(file.fd.as_fd(), handle);
        handles.0.with_handle(&self.0, map).map_err(|errno| {
            handles.lost_or(errno, |device| Error::MapDumb {
                device,
                handle,
                errno,
            })
        })
    }

    /// Whether the library made the object on this file description: a dumb buffer.
    pub(crate) fn is_own(&self) -> bool {
        self.0.is_created()
    }

    /// The file description and table that the handle belongs to.
    pub(crate) fn handles(&self) -> Handles {
        Handles(self.0.table().clone())
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
            .field("device", &self.0.table().kernel().name)
            .field("handle", &self.handle())
            .finish()
    }
}
