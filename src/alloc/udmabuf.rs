use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::{Allocator, Error, Request};
use crate::buffer::{DmaBuf, Layout, layout};
use crate::sys::udmabuf;

/// Allocates system memory as dma-bufs through `/dev/udmabuf`: LINEAR, mappable, of no device.
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
        let layout = Layout::linear(request.width, request.height, request.fourcc);
        Ok(DmaBuf::of_one(layout, fd, packed.planes, None)?)
    }
}
