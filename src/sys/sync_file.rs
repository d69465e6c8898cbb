//! `include/uapi/linux/sync_file.h`.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

#[repr(C)]
pub(crate) struct Info {
    name: [u8; 32],
    status: i32,
    flags: u32,
    fence_count: u32,
    pad: u32,
    fences: u64,
}

nix::ioctl_readwrite!(ioctl_file_info, b'>', 4, Info);

/// `SYNC_IOC_FILE_INFO`, for its answer that the fd is a sync file at all; ENOTTY where it is not.
pub(crate) fn check(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut info = Info {
        name: [0; 32],
        status: 0,
        flags: 0,
        fence_count: 0,
        pad: 0,
        fences: 0,
    };
    // SAFETY: the fd is open for the call, and `info`, which asks for no list, outlives it.
    super::retry(|| unsafe { ioctl_file_info(fd.as_raw_fd(), &mut info) }).map(drop)
}
