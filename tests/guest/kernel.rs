//! Raw kernel calls that the tests make behind the library's back.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use primeshare::{Device, DmaBuf};

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

#[repr(C)]
struct Flink {
    handle: u32,
    name: u32,
}

nix::ioctl_readwrite!(gem_flink, b'd', 0x0a, Flink);

/// GEM_FLINK: a global name for an object.
pub(crate) fn flink(device: BorrowedFd<'_>, handle: u32) -> u32 {
    let mut flink = Flink { handle, name: 0 };
    // SAFETY: the structure is the ioctl's (`include/uapi/drm/drm.h`) and outlives the call.
    unsafe { gem_flink(device.as_raw_fd(), &mut flink) }.unwrap();
    flink.name
}

/// A framebuffer of a buffer's first plane; removed on drop.
pub(crate) struct Framebuffer<'a> {
    device: &'a Device,
    id: u32,
}

impl<'a> Framebuffer<'a> {
    pub(crate) fn new(device: &'a Device, buffer: &DmaBuf, handle: u32) -> Self {
        let fb = drm_ffi::mode::add_fb2(
            device.as_fd(),
            buffer.width(),
            buffer.height(),
            buffer.fourcc().0,
            &[handle, 0, 0, 0],
            &[buffer.planes()[0].stride, 0, 0, 0],
            &[0; 4],
            &[0; 4],
            0,
        );
        let id = fb.unwrap().fb_id;
        Self { device, id }
    }

    /// GETFB2's handle for it: a new one with every call.
    pub(crate) fn handle(&self) -> u32 {
        let fb = drm_ffi::mode::get_framebuffer2(self.device.as_fd(), self.id);
        fb.unwrap().handles[0]
    }
}

impl Drop for Framebuffer<'_> {
    fn drop(&mut self) {
        drm_ffi::mode::rm_fb(self.device.as_fd(), self.id).unwrap();
    }
}
