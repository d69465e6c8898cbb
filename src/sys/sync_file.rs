//! `include/uapi/linux/sync_file.h`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::Errno;

#[repr(C)]
pub(crate) struct MergeData {
    name: [u8; 32],
    fd2: i32,
    fence: i32,
    flags: u32,
    pad: u32,
}

/// One fence of a sync_file.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FenceInfo {
    /// The timeline's name, ended by a zero.
    pub(crate) timeline: [u8; 32],
    /// The driver's name, ended by a zero.
    pub(crate) driver: [u8; 32],
    /// 1: signalled, 0: not yet, negative: signalled with that errno.
    pub(crate) status: i32,
    flags: u32,
    /// When it was signalled, on CLOCK_MONOTONIC; 0 before.
    pub(crate) timestamp_ns: u64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct FileInfo {
    /// The sync_file's name, ended by a zero.
    pub(crate) name: [u8; 32],
    /// As [`FenceInfo::status`], for all of them.
    pub(crate) status: i32,
    flags: u32,
    /// How many there are.
    pub(crate) num_fences: u32,
    pad: u32,
    sync_fence_info: u64,
}

nix::ioctl_readwrite!(ioctl_merge, b'>', 3, MergeData);
nix::ioctl_readwrite!(ioctl_file_info, b'>', 4, FileInfo);

/// `SYNC_IOC_MERGE`: a new sync_file, close-on-exec, that is signalled when both are.
pub(crate) fn merge(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut data = MergeData {
        name: [0; 32],
        fd2: b.as_raw_fd(),
        fence: -1,
        flags: 0,
        pad: 0,
    };
    data.name[..10].copy_from_slice(b"primeshare");
    // SAFETY: both fds are open for the call, and `data` outlives it.
    super::retry(|| unsafe { ioctl_merge(a.as_raw_fd(), &mut data) })?;
    // SAFETY: the ioctl succeeded, so this is a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(data.fence) })
}

/// Whether the fd is a sync_file: ENOTTY where it is not.
pub(crate) fn check(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    info(fd, &mut []).map(drop)
}

/// `SYNC_IOC_FILE_INFO`. Fills in as many fences as there are; EINVAL where that is more than
/// there is room for. No room at all is another question: how many there are.
pub(crate) fn info(fd: BorrowedFd<'_>, fences: &mut [FenceInfo]) -> Result<FileInfo, Errno> {
    let room = u32::try_from(fences.len()).map_err(|_| Errno::EOVERFLOW)?;
    super::retry(|| {
        let mut info = FileInfo {
            num_fences: room,
            sync_fence_info: fences.as_mut_ptr() as u64,
            ..FileInfo::default()
        };
        // SAFETY: the fd is open for the call, and `info` and the array, of the length it is said
        // to have, outlive it.
        unsafe { ioctl_file_info(fd.as_raw_fd(), &mut info) }.map(|_| info)
    })
}
