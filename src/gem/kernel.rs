//! The ioctls behind the table, as a trait: the models in `model.rs` replace it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::quirks::Quirk;
use crate::Errno;
use crate::buffer::BufferId;
use crate::sys::process::Owner;
use crate::sys::{drm, vmwgfx};

/// What the table asks of the kernel: the three ioctls whose effects it has to keep track of.
///
/// The only implementation outside of the models is [`File`].
pub(crate) trait Kernel {
    /// How an import is told the dma-buf.
    type Fd<'a>: Copy;
    /// What an export gives.
    type OwnedFd;

    /// PRIME_FD_TO_HANDLE.
    fn fd_to_handle(&self, fd: Self::Fd<'_>) -> Result<u32, Errno>;
    /// PRIME_HANDLE_TO_FD, and the identity of the dma-buf that it gave.
    fn handle_to_fd(&self, handle: u32) -> Result<(Self::OwnedFd, BufferId), Errno>;
    /// GEM_CLOSE.
    fn close(&self, handle: u32) -> Result<(), Errno>;

    /// Called if PRIME_FD_TO_HANDLE gave a handle that was open before.
    fn imported_again(&self, _handle: u32) {}

    /// Whether this process may close handles here, and is not a forked child of the one that may.
    fn is_ours(&self) -> bool {
        true
    }
}

/// An open file description of a DRM node.
#[derive(Debug)]
pub(crate) struct File {
    pub(super) fd: OwnedFd,
    /// For people.
    pub(super) name: String,
    owner: Owner,
    quirk: Option<Quirk>,
}

impl Kernel for File {
    type Fd<'a> = BorrowedFd<'a>;
    type OwnedFd = OwnedFd;

    fn fd_to_handle(&self, fd: BorrowedFd<'_>) -> Result<u32, Errno> {
        drm::fd_to_handle(self.fd.as_fd(), fd)
    }

    fn handle_to_fd(&self, handle: u32) -> Result<(OwnedFd, BufferId), Errno> {
        let fd = drm::handle_to_fd(self.fd.as_fd(), handle)?;
        let id = BufferId::of(&fd)?;
        Ok((fd, id))
    }

    fn close(&self, handle: u32) -> Result<(), Errno> {
        match drm::close(self.fd.as_fd(), handle) {
            // The device was unplugged: the kernel closes its handles with the file description.
            Err(Errno::ENODEV) if self.is_lost() => Ok(()),
            Err(Errno::EINVAL) if self.quirk.is_some_and(|quirk| quirk.counts(handle)) => {
                vmwgfx::unref_surface(self.fd.as_fd(), handle)
            }
            closed => closed,
        }
    }

    fn imported_again(&self, handle: u32) {
        if self.quirk.is_some_and(|quirk| quirk.counts(handle))
            && let Err(errno) = vmwgfx::unref_surface(self.fd.as_fd(), handle)
        {
            log::warn!(
                "{}: a reference to surface {handle} is left: {errno}",
                self.name
            );
        }
    }

    fn is_ours(&self) -> bool {
        self.owner.is_here()
    }
}

impl File {
    /// A file description that belongs to this process. `name` is for people.
    pub(super) fn new(fd: OwnedFd, name: String) -> Self {
        Self {
            quirk: Quirk::of(fd.as_fd()),
            owner: Owner::current(),
            fd,
            name,
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        is_lost(self.fd.as_fd())
    }
}

/// Whether the device is gone: then the kernel answers ENODEV to every ioctl
/// (`drm_dev_is_unplugged`), and not only to the imports that its driver cannot do.
pub(crate) fn is_lost(device: BorrowedFd<'_>) -> bool {
    drm::driver_name(device) == Err(Errno::ENODEV)
}
