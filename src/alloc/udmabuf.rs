//! The udmabuf allocator: sealed shared memory as a dma-buf. `sys::udmabuf` has the ioctl and the seal.

use std::os::fd::{AsFd, OwnedFd};

use arrayvec::ArrayVec;

use super::{Allocator, Error, Request};
use crate::Errno;
use crate::buffer::layout::{self, Placed};
use crate::buffer::{BufferDesc, DmaBuf, FormatInfo, MAX_PLANES, Modifier};
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

    /// Makes a dma-buf of memory that another program has drawn into: a `wl_shm` pool, for example. No byte is copied, and
    /// what is written to the memfd later is in the buffer as well.
    ///
    /// `planes` are the offset in the memfd and the stride of each plane, in bytes. The memfd is borrowed; the buffer
    /// keeps its pages. It is sealed against shrinking (`F_SEAL_SHRINK`) if it is not yet, also if the picture is
    /// refused afterwards: the kernel asks for the seal, and without it the size could change after the check. The
    /// other program can go on writing, so nothing that is read twice from the buffer is the same for sure.
    ///
    /// [`Error::Layout`] if the planes do not fit into the memfd; [`Error::Format`] and [`Error::Modifiers`] if rows of
    /// the description are not known. [`Error::Seal`] if it is no
    /// memfd or takes no seals. [`Error::Udmabuf`] with EINVAL if it is sealed against writing, if its last page is cut off
    /// where the picture reaches into it, or above the module's limit. Copy the picture then.
    ///
    /// Whether devices can read it at that place and stride is theirs to say: many want 64 or 256 bytes of alignment.
    pub fn from_memfd(
        &self,
        memfd: impl AsFd,
        desc: BufferDesc,
        planes: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<DmaBuf, Error> {
        let memfd = memfd.as_fd();
        let allocator = self.name();
        let BufferDesc {
            fourcc, modifier, ..
        } = desc;
        if modifier != Modifier::LINEAR {
            let modifiers = vec![modifier];
            return Err(Error::Modifiers {
                allocator,
                modifiers,
            });
        }
        let info = FormatInfo::of(fourcc).ok_or(Error::Format { allocator, fourcc })?;
        let length = udmabuf::seal(memfd).map_err(|errno| Error::Seal { errno })?;
        let place = |(offset, stride)| Placed {
            object: 0,
            offset,
            stride,
            size: length,
        };
        // One more than there may be is enough to be refused.
        let planes: ArrayVec<_, { MAX_PLANES + 1 }> =
            planes.into_iter().map(place).take(MAX_PLANES + 1).collect();
        layout::check(&desc, &planes)?;
        let bytes = layout::extent(&desc, info, &planes);
        let page = udmabuf::page_size();
        let start = bytes.start - bytes.start % page;
        // Ends of planes have 33 bits.
        let size = bytes.end.next_multiple_of(page) - start;
        let fd = udmabuf::create(self.node.as_fd(), memfd, start, size)
            .map_err(|errno| Error::Udmabuf { size, errno })?;
        let inside = planes
            .iter()
            .map(|plane| (plane.offset - start as u32, plane.stride));
        Ok(DmaBuf::of_one(desc, fd, inside, None)?)
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
        let fd = udmabuf::create(self.node.as_fd(), memory.as_fd(), 0, size)
            .map_err(|errno| Error::Udmabuf { size, errno })?;
        let layout = BufferDesc::linear(request.width, request.height, request.fourcc);
        Ok(DmaBuf::of_one(layout, fd, packed.planes, None)?)
    }
}
