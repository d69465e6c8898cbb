//! Identity and size of open files: `fcntl(2)`, `kcmp(2)`, `fstat(2)`, `lseek(2)`.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::unistd::Whence;

use crate::Errno;

/// `F_DUPFD_QUERY` of `include/uapi/linux/fcntl.h`, Linux 6.10.
const F_DUPFD_QUERY: libc::c_int = 1024 + 3;
/// `KCMP_FILE` of `include/uapi/linux/kcmp.h`.
const KCMP_FILE: libc::c_int = 0;

/// Whether two fds of this process share one open file description.
///
/// `None` where the kernel will not say: it is older than 6.10 and `kcmp` is compiled out or
/// forbidden, as container seccomp profiles do.
pub(crate) fn same_description(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Option<bool> {
    // SAFETY: F_DUPFD_QUERY takes an int and touches no memory of ours.
    let query = unsafe { libc::fcntl(a.as_raw_fd(), F_DUPFD_QUERY, b.as_raw_fd()) };
    if query >= 0 {
        return Some(query == 1);
    }
    let pid = std::process::id();
    // SAFETY: kcmp takes integers only.
    let order = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            pid,
            pid,
            KCMP_FILE,
            a.as_raw_fd() as libc::c_ulong,
            b.as_raw_fd() as libc::c_ulong,
        )
    };
    (order >= 0).then_some(order == 0)
}

/// `fstat`, which EINTR cannot interrupt on the files this library meets. The one whose inodes have 64
/// bits on every target, as those of dma-bufs do.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<libc::stat64, Errno> {
    stat_number(fd.as_raw_fd())
}

/// `fstat` of whatever has this number now, if anything.
pub(crate) fn stat_number(number: RawFd) -> Result<libc::stat64, Errno> {
    let mut stat = std::mem::MaybeUninit::uninit();
    // SAFETY: `stat` has room for what is written; any number may be asked about.
    super::result(unsafe { libc::fstat64(number, stat.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, and so filled it in.
    Ok(unsafe { stat.assume_init() })
}

/// The size of a dma-buf in bytes: the one seek it allows.
pub(crate) fn size(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    nix::unistd::lseek64(fd, 0, Whence::SeekEnd)
        .map(|end| end as u64)
        .map_err(super::errno)
}
