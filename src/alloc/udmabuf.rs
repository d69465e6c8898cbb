//! The udmabuf allocator: sealed shared memory as a dma-buf. `sys::udmabuf` has the ioctl and the seal.

use std::os::fd::{AsFd, OwnedFd};

use super::{Allocator, Error, Request};
use crate::Errno;
use crate::buffer::{BufferDesc, DmaBuf, layout};
use crate::sys::udmabuf;

/// Allocates system memory as dma-bufs through `/dev/udmabuf`: LINEAR, mappable, of no device.
///
/// # CPU access
/// An access that [`Mapping`](crate::sync::Mapping) begins and ends keeps the CPU's caches right,
/// whether or not a device has imported the buffer. The driver makes a DMA mapping of its own at the
/// first START of `DMA_BUF_IOCTL_SYNC` and synchronises that one (`begin_cpu_udmabuf` in
/// `drivers/dma-buf/udmabuf.c`, Linux 6.12 to 7.3). Three things follow for programs that issue the
/// ioctl themselves:
///
/// - An END before any START is EINVAL.
/// - On Linux since the commit "dma-buf/udmabuf: skip redundant cpu sync" (504e2b4ab97a) an
///   import writes no cache back, so END has to come after the CPU has written and before a device
///   reads. Before that commit an import did it too.
/// - From that commit until "udmabuf: Ensure to perform cache synchronisation in
///   begin_cpu_udmabuf()" (Linux 7.2) the first START synchronises nothing. On machines whose devices
///   do not snoop the CPU's caches, what a device wrote before it may be read as it was. An access
///   that is begun and ended before the device writes avoids that.
#[derive(Debug)]
pub struct Udmabuf {
    node: OwnedFd,
}

impl Udmabuf {
    /// Opens `/dev/udmabuf`.
    pub fn open() -> Result<Self, Error> {
        let node = udmabuf::open().map_err(|errno| Error::Open {
            path: udmabuf::PATH.into(),
            errno,
        })?;
        Ok(Self { node })
    }
}

impl Allocator for Udmabuf {
    fn name(&self) -> &'static str {
        "udmabuf"
    }

    fn allocate(&self, request: &Request) -> Result<DmaBuf, Error> {
        let info = request.linear_format(self.name())?;
        let packed = layout::pack(request.width, request.height, info)?;
        let size = packed
            .size
            .checked_next_multiple_of(udmabuf::page_size())
            .ok_or(Error::Memory {
                size: packed.size,
                errno: Errno::EOVERFLOW,
            })?;
        let memory = udmabuf::memory(size).map_err(|errno| Error::Memory { size, errno })?;
        let fd = udmabuf::create(self.node.as_fd(), memory.as_fd(), size)
            .map_err(|errno| Error::Udmabuf { size, errno })?;
        let layout = BufferDesc::linear(request.width, request.height, request.fourcc);
        Ok(DmaBuf::of_one(layout, fd, packed.planes, None)?)
    }
}
