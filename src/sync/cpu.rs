use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::mman::ProtFlags;

use crate::sys::map::Map;
use crate::sys::{self, dma_buf};

/// Why CPU access failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The fd could not be duplicated or asked for its size.
    #[error("cannot examine the dma-buf: {errno}")]
    Examine {
        /// The kernel's reason.
        errno: Errno,
    },
    /// The fd is open but not a dma-buf.
    #[error("the fd is not a dma-buf")]
    NotADmaBuf,
    /// `mmap` failed.
    #[error("cannot map a dma-buf of {size} bytes: {errno}")]
    Map {
        /// Bytes of the dma-buf.
        size: u64,
        /// EACCES: exported without `DRM_RDWR`, so it is read-only for good.
        errno: Errno,
    },
    /// DMA_BUF_IOCTL_SYNC failed.
    #[error("DMA_BUF_IOCTL_SYNC: {errno}")]
    Sync {
        /// The kernel's reason.
        errno: Errno,
    },
    /// The bytes asked for are not all inside the buffer.
    #[error("bytes {start}..{end} are not all in a mapping of {size}")]
    Range {
        /// First byte.
        start: u64,
        /// First byte after.
        end: u64,
        /// Bytes mapped.
        size: u64,
    },
    /// Writing to what was mapped, or access that was begun, for reading only.
    #[error("mapped or begun for reading only")]
    ReadOnly,
}

/// What the CPU is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read: waits for devices that write.
    Read,
    /// Write (and read): waits for devices that read or write.
    Write,
}

/// A dma-buf mapped into the process.
///
/// The memory is touched only between [`Self::begin_wait`] and the drop of the guard it returns,
/// which are the START and END of DMA_BUF_IOCTL_SYNC (`Documentation/driver-api/dma-buf.rst`, CPU
/// access). Mapping is the costly part: keep it, and begin as often as needed.
#[derive(Debug)]
pub struct Mapping {
    fd: OwnedFd,
    map: Map,
    writable: bool,
}

impl Mapping {
    /// Maps all of a dma-buf, for reading and writing. Borrows the fd and keeps a dup.
    ///
    /// Anything but a dma-buf is refused: other files can shrink under a mapping.
    pub fn new(fd: impl AsFd) -> Result<Self, Error> {
        Self::map(fd, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    /// As [`Self::new`] for reading only, which a dma-buf that was exported without `DRM_RDWR`
    /// allows too.
    pub fn read_only(fd: impl AsFd) -> Result<Self, Error> {
        Self::map(fd, ProtFlags::PROT_READ)
    }

    fn map(fd: impl AsFd, protection: ProtFlags) -> Result<Self, Error> {
        let examine = |errno| Error::Examine { errno };
        if !dma_buf::is_dma_buf(fd.as_fd()).map_err(examine)? {
            return Err(Error::NotADmaBuf);
        }
        let fd = fd
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| examine(sys::errno(error)))?;
        let bytes = sys::file::size(fd.as_fd()).map_err(examine)?;
        let failed = |errno| Error::Map { size: bytes, errno };
        let length = usize::try_from(bytes)
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or(failed(Errno::EOVERFLOW))?;
        let map = Map::new(fd.as_fd(), 0, length, protection).map_err(failed)?;
        let writable = protection.contains(ProtFlags::PROT_WRITE);
        Ok(Self { fd, map, writable })
    }

    /// Bytes mapped.
    pub fn size(&self) -> usize {
        self.map.length()
    }

    /// Begins an access, after waiting for the devices that are in its way: those that have left
    /// a fence in the dma-buf, as drivers with implicit synchronisation do. Vulkan does not; work
    /// submitted there, a [`Blit`](crate::blit::Blit) included, is to be waited for first.
    ///
    /// [`Error::ReadOnly`] for writing to a mapping for reading.
    pub fn begin_wait(&mut self, access: Access) -> Result<MappingGuard<'_>, Error> {
        if access == Access::Write && !self.writable {
            return Err(Error::ReadOnly);
        }
        let direction = match access {
            Access::Read => dma_buf::SYNC_READ,
            Access::Write => dma_buf::SYNC_READ | dma_buf::SYNC_WRITE,
        };
        dma_buf::sync(self.fd.as_fd(), dma_buf::SYNC_START | direction)
            .map_err(|errno| Error::Sync { errno })?;
        Ok(MappingGuard {
            mapping: self,
            access,
            direction,
        })
    }
}

/// CPU access under way. Ended when dropped, also by a panic.
#[derive(Debug)]
pub struct MappingGuard<'a> {
    mapping: &'a mut Mapping,
    access: Access,
    direction: u64,
}

impl MappingGuard<'_> {
    /// Copies bytes out, from `offset`.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        let length = into.len();
        self.mapping
            .map
            .read(offset, into)
            .ok_or_else(|| self.out_of_range(offset, length))
    }

    /// Copies bytes in, at `offset`. [`Error::ReadOnly`] for access begun for reading.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), Error> {
        if self.access != Access::Write {
            return Err(Error::ReadOnly);
        }
        let written = self.mapping.map.write(offset, from);
        written.ok_or_else(|| self.out_of_range(offset, from.len()))
    }

    /// Copies bytes of another buffer in, at `at`. [`Error::ReadOnly`] for access begun for reading.
    pub fn copy_from(
        &mut self,
        at: usize,
        from: &MappingGuard<'_>,
        offset: usize,
        length: usize,
    ) -> Result<(), Error> {
        if self.access != Access::Write {
            return Err(Error::ReadOnly);
        }
        let copied = self.mapping.map.copy(at, &from.mapping.map, offset, length);
        copied.ok_or_else(|| self.out_of_range(at.max(offset), length))
    }

    fn out_of_range(&self, offset: usize, length: usize) -> Error {
        Error::Range {
            start: offset as u64,
            end: (offset as u64).saturating_add(length as u64),
            size: self.mapping.size() as u64,
        }
    }
}

impl Drop for MappingGuard<'_> {
    fn drop(&mut self) {
        let flags = dma_buf::SYNC_END | self.direction;
        if let Err(errno) = dma_buf::sync(self.mapping.fd.as_fd(), flags) {
            // The first END on a udmabuf is EINVAL where no device has it attached; there is
            // nothing to undo in either case.
            log::debug!("DMA_BUF_IOCTL_SYNC END: {errno}");
        }
    }
}
