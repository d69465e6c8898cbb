//! Existing GEM code that takes the handle table alone.
//!
//! Such a program imports PRIME fds by its own ioctl and keeps a map from handles to numbers of users, so as not to close
//! a handle too early or twice. Here the library is that map. It needs no feature of the library.
//!
//! The program has to choose once, for each fd, who else changes handles there: [`Table::beside`] or [`Table::instead`].
//! On one file description the library and other code cannot both close handles.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use primeshare::Device;
use primeshare::gem::{Error, Handle, ImportOrigin, Object};

/// The program's buffer object. Clones share the handle, which is closed when the last one goes.
///
/// Two of them are equal if they have one handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bo {
    object: Object,
}

impl Bo {
    /// The number for ioctls on [`Table::fd`]. It is good while this object is alive: do not keep it alone.
    pub fn handle(&self) -> u32 {
        self.object.handle().raw()
    }

    /// A PRIME fd of the buffer, for another device or process.
    pub fn export(&self) -> Result<OwnedFd, Error> {
        let (fd, _identity) = self.object.export()?;
        Ok(fd)
    }

    /// Gives the handle to code that closes it by its own GEM_CLOSE. The library closes it no more.
    ///
    /// `None` if it was given away before. [`Table::adopt`] is the way back.
    pub fn into_handle(self) -> Option<Handle> {
        self.object.release().map(|released| released.handle())
    }
}

/// The program's buffer objects on one device.
#[derive(Clone, Debug)]
pub struct Table {
    device: Device,
}

impl Table {
    /// For a program whose other code (gbm, EGL, its own ioctls) goes on with handles on `fd`.
    ///
    /// The table has a file description of its own, on which only this module's callers make ioctls with handles.
    /// Framebuffers and modes belong to the device, so `fd` can show what was made here.
    pub fn beside(fd: impl AsFd) -> io::Result<Self> {
        let device = Device::private_copy_of(fd)?;
        Ok(Self { device })
    }

    /// For a program that replaces all its code for handles on `fd` by this module.
    pub fn instead(fd: OwnedFd) -> io::Result<Self> {
        let device = Device::from_fd(fd)?;
        Ok(Self { device })
    }

    /// The file description on which the handles mean something.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Replaces PRIME_FD_TO_HANDLE. A buffer that is here already has the handle it has, whichever fd names it.
    pub fn import(&self, prime_fd: impl AsFd) -> Result<(Bo, ImportOrigin), Error> {
        let (object, origin) = self.device.import_fd(prime_fd)?;
        Ok((Bo { object }, origin))
    }

    /// Takes over a handle that the program has from an ioctl of its own on [`Self::fd`], such as one that allocates.
    ///
    /// The program closes it no more. After an error it is still the program's.
    pub fn adopt(&self, handle: u32) -> Result<Bo, Error> {
        let object = self.device.adopt(handle)?;
        Ok(Bo { object })
    }

    /// Open handles, and how many were closed: for the program's own debugging.
    pub fn handles(&self) -> (usize, u64) {
        let stats = self.device.stats();
        (stats.handles, stats.closes)
    }
}
