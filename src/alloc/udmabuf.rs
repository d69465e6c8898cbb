use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;

use super::{Allocator, Error, Request};
use crate::buffer::{DmaBuf, Layout, layout};
use crate::export;
use crate::sys;

/// Allocates system memory as dma-bufs through `/dev/udmabuf`: LINEAR, mappable, of no device.
#[derive(Debug)]
pub struct Udmabuf {
    node: OwnedFd,
}

impl Udmabuf {
    /// Opens `/dev/udmabuf`.
    pub fn open() -> Result<Self, Error> {
        let path = Path::new("/dev/udmabuf");
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let node =
            sys::retry(|| nix::fcntl::open(path, flags, Mode::empty())).map_err(|errno| {
                Error::Open {
                    path: path.to_owned(),
                    errno,
                }
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
        let (memory, size) = shared_memory(packed.size)?;
        let fd = sys::udmabuf::create(self.node.as_fd(), memory.as_fd(), size)
            .map_err(|errno| Error::Udmabuf { size, errno })?;
        let layout = Layout::linear(request.width, request.height, request.fourcc);
        Ok(export::describe(fd, layout, packed.planes, None)?)
    }
}

/// A memfd of whole pages that cannot shrink, as udmabuf wants it, and its size.
fn shared_memory(bytes: u64) -> Result<(OwnedFd, u64), Error> {
    let failed = |errno| Error::Memory { size: bytes, errno };
    let size = bytes
        .checked_next_multiple_of(page_size())
        .ok_or(failed(Errno::EOVERFLOW))?;
    let length = i64::try_from(size).map_err(|_| failed(Errno::EOVERFLOW))?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory = memfd_create(c"primeshare", flags).map_err(failed)?;
    sys::retry(|| nix::unistd::ftruncate(&memory, length)).map_err(failed)?;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).map_err(failed)?;
    Ok((memory, size))
}

fn page_size() -> u64 {
    // SAFETY: sysconf touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}
