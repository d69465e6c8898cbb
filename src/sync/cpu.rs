//! CPU access to a dma-buf: mapping, START and END.
//!
//! A mapping is touched only between the two. Every START that succeeded is followed by exactly one END, also
//! after a panic.

use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::mman::ProtFlags;

use super::host_copy::{self, HostCopy};
use super::{Deadline, Error, poll};
use crate::Errno;
use crate::buffer::DmaBuf;
use crate::sys::map::{Map, Region, RegionMut};
use crate::sys::poll::Event;
use crate::sys::{self, dma_buf};

/// How a buffer is about to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is read. This waits for pending writes.
    Read,
    /// It is written, and not read. This waits for pending reads and writes. The driver leaves the memory
    /// where it is, while some move memory that is to be read (amdgpu moves it from video memory to system
    /// memory, `amdgpu_dma_buf_begin_cpu_access`).
    Write,
    /// It is read and written. This waits for pending reads and writes. For fences the same as
    /// [`Self::Write`].
    ReadWrite,
}

impl Access {
    /// The direction flags of the dma-buf ioctls.
    pub(super) fn flags(self) -> u64 {
        match self {
            Self::Read => dma_buf::SYNC_READ,
            Self::Write => dma_buf::SYNC_WRITE,
            Self::ReadWrite => dma_buf::SYNC_READ | dma_buf::SYNC_WRITE,
        }
    }

    /// [`Error::ReadOnly`] unless bytes may be written.
    pub(super) fn check_writes(self) -> Result<(), Error> {
        match self {
            Self::Read => Err(Error::ReadOnly),
            Self::Write | Self::ReadWrite => Ok(()),
        }
    }

    /// [`Error::WriteOnly`] unless bytes may be read.
    pub(super) fn check_reads(self) -> Result<(), Error> {
        match self {
            Self::Write => Err(Error::WriteOnly),
            Self::Read | Self::ReadWrite => Ok(()),
        }
    }

    /// The event to poll a dma-buf for.
    pub(super) fn event(self) -> Event {
        match self {
            Self::Read => Event::In,
            Self::Write | Self::ReadWrite => Event::Out,
        }
    }
}

/// A dma-buf mapped into the process.
///
/// The memory is touched only between [`Self::begin_wait`] and the drop of the guard it returns,
/// which are the START and END of DMA_BUF_IOCTL_SYNC (`Documentation/driver-api/dma-buf.rst`, CPU
/// access). Mapping is the costly part: keep it, and begin as often as needed.
///
/// # Memory that cannot be read
/// A device can take memory out of the CPU's reach: video memory that is pinned outside of a small
/// BAR, a device that is unplugged. Touching it then raises SIGBUS. Each access begins with a system
/// call that reads the first and the last word ([`Error::Unreadable`]), since drivers place a buffer
/// as a whole. If a device takes memory away during the access, SIGBUS is still raised: a library cannot
/// catch it without taking the program's signal handler.
///
/// # Uncached memory
/// Video memory and much of what devices share is write-combined or uncached, and slow to read. The
/// first access for reading reads 16 KiB a few times to find that out (at 50 MB/s, 1.3 ms); such
/// memory is then read by streaming loads where the processor has them (x86-64 with SSE4.1).
///
/// # Virtual machines
/// virtio-gpu with 3D has pictures on the host, and memory here that may be out of date:
/// [`Error::OnHost`]. [`Self::of_object`] and [`BufferMapping`](super::BufferMapping) fetch them.
#[derive(Debug)]
pub struct Mapping {
    fd: OwnedFd,
    map: Map,
    writable: bool,
    host: Option<HostCopy>,
}

impl Mapping {
    /// Maps all of a dma-buf, for reading and writing. Borrows the fd and keeps a dup.
    ///
    /// Anything but a dma-buf is refused: other files can shrink under a mapping.
    pub fn new(fd: impl AsFd) -> Result<Self, Error> {
        Self::of_fd(fd.as_fd(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    /// As [`Self::new`] for reading only, which a dma-buf that was exported without `DRM_RDWR`
    /// allows too.
    pub fn read_only(fd: impl AsFd) -> Result<Self, Error> {
        Self::of_fd(fd.as_fd(), ProtFlags::PROT_READ)
    }

    fn of_fd(fd: BorrowedFd<'_>, protection: ProtFlags) -> Result<Self, Error> {
        let mapping = Self::map(fd, protection, None)?;
        host_copy::refuse(mapping.fd.as_fd())?;
        Ok(mapping)
    }

    /// Maps one of a buffer's dma-bufs, by its index in [`DmaBuf::objects`], for reading and writing.
    ///
    /// Unlike [`Self::new`], this can fetch a picture from a virtual machine's host before each access, and
    /// hand it back after writing. Dumb buffers of the library need neither. [`Error::NoSuchObject`] past the
    /// last dma-buf.
    pub fn of_object(buffer: &DmaBuf, object: usize) -> Result<Self, Error> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Self::of_buffer(buffer, object, protection)
    }

    /// As [`Self::of_object`], for reading only.
    pub fn of_object_read_only(buffer: &DmaBuf, object: usize) -> Result<Self, Error> {
        Self::of_buffer(buffer, object, ProtFlags::PROT_READ)
    }

    fn of_buffer(buffer: &DmaBuf, object: usize, protection: ProtFlags) -> Result<Self, Error> {
        let objects = buffer.objects();
        let found = objects.get(object).ok_or(Error::NoSuchObject {
            object,
            objects: objects.len(),
        })?;
        let host = HostCopy::of(buffer, found)?;
        Self::map(found.as_fd(), protection, host)
    }

    fn map(
        fd: BorrowedFd<'_>,
        protection: ProtFlags,
        host: Option<HostCopy>,
    ) -> Result<Self, Error> {
        let examine = |errno| Error::Examine { errno };
        if !dma_buf::is_dma_buf(fd).map_err(examine)? {
            return Err(Error::NotADmaBuf);
        }
        let fd = fd
            .try_clone_to_owned()
            .map_err(|error| examine(sys::errno(error)))?;
        let bytes = sys::file::size(fd.as_fd()).map_err(examine)?;
        let failed = |errno| Error::Map { size: bytes, errno };
        let length = usize::try_from(bytes)
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or(failed(Errno::EOVERFLOW))?;
        let map = Map::new(fd.as_fd(), 0, length, protection).map_err(failed)?;
        Ok(Self {
            fd,
            map,
            writable: protection.contains(ProtFlags::PROT_WRITE),
            host,
        })
    }

    /// Bytes mapped.
    pub fn size(&self) -> usize {
        self.map.length()
    }

    /// Begins an access after waiting for the fences in the dma-buf. Drivers with implicit synchronisation
    /// leave their fences there. Vulkan does not: wait first for work that was submitted there, a
    /// [`Blit`](crate::blit::Blit) included, or [leave its fence](super::implicit::import_sync_file) in the
    /// dma-buf.
    ///
    /// [`Error::TimedOut`] if a fence is still pending at the deadline. With a deadline that has passed, an
    /// access begins only if nothing is pending. The ioctl itself has no deadline, so this polls before it;
    /// work that a device begins between the two is waited for without a deadline.
    ///
    /// [`Error::ReadOnly`] if a mapping for reading is to be written. After an error there is no access, and
    /// nothing has to be ended.
    pub fn begin_wait(
        &mut self,
        access: Access,
        deadline: impl Into<Deadline>,
    ) -> Result<MappingGuard<'_>, Error> {
        self.start_wait(access, deadline.into())?;
        Ok(MappingGuard {
            mapping: self,
            access,
        })
    }

    /// Waits, and then makes the START. After success, [`Self::end`] has to follow.
    pub(super) fn start_wait(&self, access: Access, deadline: Deadline) -> Result<(), Error> {
        if !self.writable && access != Access::Read {
            return Err(Error::ReadOnly);
        }
        if let Some(host) = &self.host {
            // The transfer writes to the memory, so it waits for readers, too. It is also made before an
            // access for writing only, which may leave some bytes as they are.
            self.poll_wait(Access::ReadWrite, deadline)?;
            host.fetch()?;
        }
        self.poll_wait(access, deadline)?;
        dma_buf::sync(self.fd.as_fd(), dma_buf::SYNC_START | access.flags())
            .map_err(|errno| Error::Sync { errno })?;
        if let Err(errno) = self.map.probe() {
            log_end(self.end_sync(access));
            return Err(Error::Unreadable { errno });
        }
        // Measured here and not while mapping, since the memory may be touched during accesses only.
        if access != Access::Write {
            self.map.measure();
        }
        Ok(())
    }

    /// Waits for the fences that an access has to wait for.
    fn poll_wait(&self, access: Access, deadline: Deadline) -> Result<(), Error> {
        poll::wait(self.fd.as_fd(), access.event(), deadline)
    }

    /// END.
    pub(super) fn end(&self, access: Access) -> Result<(), Error> {
        self.end_sync(access)?;
        match &self.host {
            Some(host) if access != Access::Read => host.flush(),
            _ => Ok(()),
        }
    }

    fn end_sync(&self, access: Access) -> Result<(), Error> {
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
    /// Copies bytes out, from `offset`. [`Error::WriteOnly`] for access begun for writing only.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        self.access.check_reads()?;
        let length = into.len();
        self.mapping
            .map
            .read(offset, into)
            .ok_or_else(|| self.out_of_range(offset, length))
    }

    /// Copies bytes in, at `offset`. [`Error::ReadOnly`] for access begun for reading.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> Result<(), Error> {
        self.access.check_writes()?;
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
        self.access.check_writes()?;
        from.access.check_reads()?;
        let copied = self.mapping.map.copy(at, &from.mapping.map, offset, length);
        copied.ok_or_else(|| self.out_of_range(at.max(offset), length))
    }

    /// All bytes, to read.
    pub(crate) fn region(&self) -> Result<Region<'_>, Error> {
        self.access.check_reads()?;
        let map = &self.mapping.map;
        map.region(0, map.length())
            .ok_or_else(|| self.out_of_range(0, map.length()))
    }

    /// All bytes, to write.
    pub(crate) fn region_mut(&mut self) -> Result<RegionMut<'_>, Error> {
        self.access.check_writes()?;
        let length = self.mapping.size();
        let region = self.mapping.map.region_mut(0, length);
        region.ok_or_else(|| out_of_range(0, length, length))
    }

    /// Ends the access. An error if devices may not see what was written; dropping the guard only logs that.
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

/// Logs a failed END, after which nothing can be undone.
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
