use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::mman::ProtFlags;

use super::{Deadline, Error, poll};
use crate::sys::map::Map;
use crate::sys::poll::Event;
use crate::sys::{self, dma_buf};

/// What somebody is about to do with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read: waits for those who write.
    Read,
    /// Write (and read): waits for those who read or write.
    Write,
}

impl Access {
    /// The direction flags of the dma-buf ioctls.
    pub(super) fn flags(self) -> u64 {
        match self {
            Self::Read => dma_buf::SYNC_READ,
            Self::Write => dma_buf::SYNC_READ | dma_buf::SYNC_WRITE,
        }
    }

    /// What to poll a dma-buf for.
    pub(super) fn event(self) -> Event {
        match self {
            Self::Read => Event::In,
            Self::Write => Event::Out,
        }
    }
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
    /// submitted there, a [`Blit`](crate::blit::Blit) included, is to be waited for first, or its
    /// fence [left there](super::implicit::import).
    ///
    /// There is no end to the wait but the fences' own: see [`Self::begin_wait_until`].
    /// [`Error::ReadOnly`] for writing to a mapping for reading. After an error there is no access
    /// and nothing to end.
    pub fn begin_wait(&mut self, access: Access) -> Result<MappingGuard<'_>, Error> {
        self.start_wait(access)?;
        Ok(MappingGuard {
            mapping: self,
            access,
        })
    }

    /// As [`Self::begin_wait`], but [`Error::TimedOut`] where devices are in the way until the
    /// deadline. One that has passed begins only what has not to wait.
    ///
    /// The ioctl knows no deadline, so this polls before it: what a device begins to do between
    /// the two is waited for without one.
    pub fn begin_wait_until(
        &mut self,
        access: Access,
        deadline: impl Into<Deadline>,
    ) -> Result<MappingGuard<'_>, Error> {
        self.poll_wait(access, deadline.into())?;
        self.begin_wait(access)
    }

    /// Waits for the devices that are in the way.
    pub(super) fn poll_wait(&self, access: Access, deadline: Deadline) -> Result<(), Error> {
        poll::wait(self.fd.as_fd(), access.event(), deadline)
    }

    /// START. Where it succeeds [`Self::end`] has to follow.
    pub(super) fn start_wait(&self, access: Access) -> Result<(), Error> {
        if access == Access::Write && !self.writable {
            return Err(Error::ReadOnly);
        }
        dma_buf::sync(self.fd.as_fd(), dma_buf::SYNC_START | access.flags())
            .map_err(|errno| Error::Sync { errno })
    }

    /// END.
    pub(super) fn end(&self, access: Access) -> Result<(), Error> {
        dma_buf::sync(self.fd.as_fd(), dma_buf::SYNC_END | access.flags())
            .map_err(|errno| Error::SyncEnd { errno })
    }

    pub(super) fn memory(&self) -> &Map {
        &self.map
    }

    pub(super) fn memory_mut(&mut self) -> &mut Map {
        &mut self.map
    }
}

/// CPU access under way. Ended when dropped, also by a panic.
#[derive(Debug)]
pub struct MappingGuard<'a> {
    mapping: &'a mut Mapping,
    access: Access,
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

    /// Ends the access, and says whether devices will see what was written; dropping the guard
    /// only logs where not.
    pub fn end(self) -> Result<(), Error> {
        let guard = ManuallyDrop::new(self);
        guard.mapping.end(guard.access)
    }

    fn out_of_range(&self, offset: usize, length: usize) -> Error {
        out_of_range(offset, length, self.mapping.size())
    }
}

impl Drop for MappingGuard<'_> {
    fn drop(&mut self) {
        log_end(self.mapping.end(self.access));
    }
}

/// Nothing can be undone after a failed END.
pub(super) fn log_end(ended: Result<(), Error>) {
    if let Err(error) = ended {
        log::warn!("{error}");
    }
}

pub(super) fn out_of_range(offset: usize, length: usize, size: usize) -> Error {
    Error::Range {
        start: offset as u64,
        end: (offset as u64).saturating_add(length as u64),
        size: size as u64,
    }
}
