//! Why a handle operation failed. `Lost` is told from a refusal in one place, `Handles::lost_or`.

use crate::kind::into_io_error;
use crate::{Errno, ErrorKind};

/// A PRIME operation that the kernel refused. Nothing was leaked: no handle and no fd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device was unplugged. What is left of it can only be dropped; one that is plugged in
    /// again is another device.
    ///
    /// The kernel closes the handles, and lets go of imported memory, with the file description:
    /// drop the [`Device`](crate::Device) too.
    #[error("{device} was unplugged")]
    Lost {
        /// The device.
        device: String,
    },
    /// This process is a forked child of the one that the device's file description belongs to. The
    /// kernel lets the two share its handles, so only the parent may change them.
    ///
    /// [`Device::reopen`](crate::Device::reopen) gives a file description of the child's own.
    #[error("{device} belongs to the process that this one was forked from")]
    Forked {
        /// The device.
        device: String,
    },
    /// The handle was zero, which is none: it was passed to `adopt`, or the kernel gave it.
    #[error("{device}: 0 is no GEM handle")]
    NoHandle {
        /// The device.
        device: String,
    },
    /// The fd is no dma-buf, or `fstat` failed on it: see
    /// [`BufferId::of`](crate::buffer::BufferId::of).
    #[error("{device}: cannot identify the dma-buf: {errno}")]
    Identify {
        /// The device.
        device: String,
        /// EINVAL: it is no dma-buf. EBADF where the fd is not open.
        errno: Errno,
    },
    /// PRIME_FD_TO_HANDLE failed.
    #[error("{device}: PRIME_FD_TO_HANDLE: {errno}")]
    Import {
        /// The device.
        device: String,
        /// EINVAL (as on bochs), ENODEV, ENOSYS: the driver does not import this exporter's
        /// memory. ENOMEM as usual.
        errno: Errno,
    },
    /// PRIME_HANDLE_TO_FD failed.
    #[error("{device}: PRIME_HANDLE_TO_FD of handle {handle}: {errno}")]
    Export {
        /// The device.
        device: String,
        /// The handle.
        handle: u32,
        /// ENOENT: the handle is not open, so somebody closed it behind the table's back.
        errno: Errno,
    },
    /// A released handle could not be closed.
    #[error("{device}: GEM_CLOSE of handle {handle}: {errno}")]
    Close {
        /// The device.
        device: String,
        /// The handle.
        handle: u32,
        /// ENOENT: it is not the host program's any more. EINVAL: it was closed behind the table's
        /// back.
        errno: Errno,
    },
    /// GEM_OPEN failed.
    #[error("{device}: GEM_OPEN of name {name}: {errno}")]
    OpenName {
        /// The device.
        device: String,
        /// The name.
        name: u32,
        /// ENOENT: no object has this name. EACCES on a render node, EOPNOTSUPP if the driver has no names.
        errno: Errno,
    },
    /// MODE_CREATE_DUMB failed.
    #[error(
        "{device}: MODE_CREATE_DUMB of {width}x{height}, padding included, with {bits_per_pixel} bits a pixel: {errno}"
    )]
    CreateDumb {
        /// The device.
        device: String,
        /// Pixels across that were asked for, with what fills the rows up.
        width: u32,
        /// Rows that were asked for, with those after the picture.
        height: u32,
        /// Bits of a pixel.
        bits_per_pixel: u32,
        /// EACCES on a render node, ENOSYS or EOPNOTSUPP where the driver has no dumb buffers. EINVAL: the driver
        /// makes none of this size or of these bits.
        errno: Errno,
    },
    /// MODE_MAP_DUMB failed.
    #[error("{device}: MODE_MAP_DUMB of handle {handle}: {errno}")]
    MapDumb {
        /// The device.
        device: String,
        /// The handle.
        handle: u32,
        /// EINVAL for memory imported from another driver: map its dma-buf instead. ENOENT: the
        /// handle was released, or closed behind the table's back.
        errno: Errno,
    },
}

impl Error {
    /// What can be done about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Lost { .. } => ErrorKind::Lost,
            // What kernels answer for a driver that imports nothing, or an exporter whose memory others cannot have.
            Self::Import {
                errno: Errno::ENOSYS | Errno::EOPNOTSUPP,
                ..
            } => ErrorKind::Refused,
            Self::Forked { .. } | Self::NoHandle { .. } => ErrorKind::Invalid,
            Self::Identify {
                errno: Errno::EINVAL,
                ..
            } => ErrorKind::Invalid,
            _ => self.errno().map_or(ErrorKind::Other, ErrorKind::of),
        }
    }

    /// The kernel's number, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Lost { .. } | Self::Forked { .. } | Self::NoHandle { .. } => None,
            Self::Identify { errno, .. }
            | Self::Import { errno, .. }
            | Self::Export { errno, .. }
            | Self::Close { errno, .. }
            | Self::OpenName { errno, .. }
            | Self::CreateDumb { errno, .. }
            | Self::MapDumb { errno, .. } => Some(*errno),
        }
    }
}

into_io_error!(Error);
