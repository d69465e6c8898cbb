//! `include/uapi/linux/dma-buf.h` and `include/uapi/linux/magic.h`.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::statfs::FsType;

/// `DMA_BUF_MAGIC`: the file system type of every dma-buf since Linux 5.3.
const MAGIC: u32 = 0x444d_4142;

pub(crate) const SYNC_READ: u64 = 1;
pub(crate) const SYNC_WRITE: u64 = 2;
pub(crate) const SYNC_START: u64 = 0;
pub(crate) const SYNC_END: u64 = 4;

#[repr(C)]
pub(crate) struct Sync {
    flags: u64,
}

nix::ioctl_write_ptr!(ioctl_sync, b'b', 0, Sync);

/// `DMA_BUF_IOCTL_SYNC`: one end of a CPU access bracket. May wait for the buffer's fences.
pub(crate) fn sync(fd: BorrowedFd<'_>, flags: u64) -> Result<(), Errno> {
    let arg = Sync { flags };
    super::retry(|| {
        // SAFETY: the fd is open for the call, and `arg` outlives it.
        unsafe { ioctl_sync(fd.as_raw_fd(), &arg) }
    })
    .map(drop)
}

/// Whether the fd is a dma-buf at all.
pub(crate) fn is_dma_buf(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    nix::sys::statfs::fstatfs(fd).map(|s| s.filesystem_type() == FsType(MAGIC as _))
}
