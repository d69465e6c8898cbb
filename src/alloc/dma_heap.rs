//! The dma-heap allocator. It lays pictures out as `layout::pack` does, like its neighbours.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::{Allocator, Error, Request};
use crate::buffer::{BufferDesc, DmaBuf, layout};
use crate::sys;

/// Allocates from a dma-buf heap: LINEAR memory of no device, of whatever kind the heap is
/// (`Documentation/userspace-api/dma-buf-heaps.rst`).
///
/// START and END of a CPU access synchronise the caches for the devices that have imported the
/// buffer and do nothing before that (`system_heap_dma_buf_begin_cpu_access` in
/// `drivers/dma-buf/heaps/system_heap.c`, Linux 6.12 and 7.3). Nothing is lost: an import writes the
/// caches back itself.
#[derive(Debug)]
pub struct DmaHeap {
    path: PathBuf,
    heap: OwnedFd,
}

impl DmaHeap {
    /// The heap of ordinary pages, `/dev/dma_heap/system`.
    pub fn system() -> Result<Self, Error> {
        Self::open("/dev/dma_heap/system")
    }

    /// The heap at `path`. Heaps belong to root on most distributions.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let open = || nix::fcntl::open(&path, flags, Mode::empty());
        match sys::uninterrupted(open) {
            Ok(heap) => Ok(Self { path, heap }),
            Err(errno) => Err(Error::Open { path, errno }),
        }
    }
}

impl Allocator for DmaHeap {
    fn name(&self) -> &'static str {
        "dma-heap"
    }

    fn allocate(&self, request: &Request) -> Result<DmaBuf, Error> {
        let info = request.linear_format(self.name())?;
        let packed = layout::pack(request.width, request.height, info)?;
        let size = packed.size;
        let fd = sys::dma_heap::alloc(self.heap.as_fd(), size).map_err(|errno| Error::DmaHeap {
            path: self.path.clone(),
            size,
            errno,
        })?;
        let layout = BufferDesc::linear(request.width, request.height, request.fourcc);
        Ok(DmaBuf::of_one(layout, fd, packed.planes, None)?)
    }
}
