//! `include/uapi/linux/udmabuf.h`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

const FLAGS_CLOEXEC: u32 = 1;

#[repr(C)]
pub(crate) struct Create {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

nix::ioctl_write_ptr!(ioctl_create, b'u', 0x42, Create);

/// `UDMABUF_CREATE`: a dma-buf over the first `size` bytes of a memfd. `size` is a page multiple
/// and the memfd carries `F_SEAL_SHRINK`.
pub(crate) fn create(
    udmabuf: BorrowedFd<'_>,
    memfd: BorrowedFd<'_>,
    size: u64,
) -> Result<OwnedFd, Errno> {
    let arg = Create {
        memfd: memfd.as_raw_fd() as u32,
        flags: FLAGS_CLOEXEC,
        offset: 0,
        size,
    };
    // SAFETY: both fds are open for the call, and `arg` outlives it.
    let fd = super::retry(|| unsafe { ioctl_create(udmabuf.as_raw_fd(), &arg) })?;
    // SAFETY: on success the ioctl returns a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
