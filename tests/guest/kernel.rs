//! Raw kernel calls that the tests make behind the library's back.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

/// PRIME_HANDLE_TO_FD with flags of the caller's choice.
pub(crate) fn export(device: BorrowedFd<'_>, handle: u32, flags: i32) -> OwnedFd {
    let prime = drm_ffi::gem::handle_to_fd(device, handle, flags as u32).unwrap();
    // SAFETY: a new fd that nobody else knows.
    unsafe { OwnedFd::from_raw_fd(prime.fd) }
}

/// Runs `work` in a child that the kernel kills at any system call but read, write and exit, and
/// says how it ended: status 0 where `work` was true.
pub(crate) fn in_strict_seccomp(work: impl FnOnce() -> bool) -> WaitStatus {
    // SAFETY: the child makes no system call, takes no lock that another thread may hold but the
    // table's (tests run one at a time), and leaves without running destructors.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        ForkResult::Child => {
            // SAFETY: prctl and exit take integers. Not exit_group, which strict mode forbids.
            unsafe {
                if libc::prctl(libc::PR_SET_SECCOMP, 1) != 0 {
                    libc::_exit(77);
                }
                let status = if work() { 0 } else { 1 };
                libc::syscall(libc::SYS_exit, status);
            }
            unreachable!("exit does not return")
        }
    }
}

/// Whether an fd is close-on-exec, and whether it can be read and written.
pub(crate) fn flags(fd: BorrowedFd<'_>) -> (bool, bool) {
    // SAFETY: both take no memory.
    let (descriptor, status) = unsafe {
        (
            libc::fcntl(fd.as_raw_fd(), libc::F_GETFD),
            libc::fcntl(fd.as_raw_fd(), libc::F_GETFL),
        )
    };
    (
        descriptor & libc::FD_CLOEXEC != 0,
        status & libc::O_ACCMODE == libc::O_RDWR,
    )
}
