//! Raw system calls and kernel structures that the drm and nix crates lack.
//!
//! Each file names the uapi header its definitions come from. Nothing here keeps state, except
//! [`process`] the number of the process.

pub(crate) mod clock;
pub(crate) mod dma_buf;
pub(crate) mod dma_heap;
pub(crate) mod drm;
pub(crate) mod file;
pub(crate) mod map;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod sync_file;
pub(crate) mod syncobj;
pub(crate) mod thread;
pub(crate) mod udmabuf;
pub(crate) mod virtgpu;
pub(crate) mod vmwgfx;

use nix::errno::Errno;

/// Repeats a DRM or dma-buf ioctl that a signal (EINTR) or a busy driver (EAGAIN) interrupted, as
/// libdrm's `drmIoctl` does. Not for other calls: there EAGAIN can be final.
pub(crate) fn retry<T>(mut ioctl: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match uninterrupted(&mut ioctl) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
}

/// Repeats a call that a signal interrupted.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Whether a failed look-up says that there is nothing for us, and not that looking failed.
pub(crate) fn is_absence(errno: Errno) -> bool {
    use Errno::{EACCES, ENOENT, ENOTDIR, EPERM};
    matches!(errno, ENOENT | ENOTDIR | EACCES | EPERM)
}

/// Whether an errno is of the moment, a lack of memory or of room for fds, and says nothing of
/// what was asked for: the same call may succeed later.
pub(crate) fn is_passing(errno: Errno) -> bool {
    use Errno::{EAGAIN, EINTR, EMFILE, ENFILE, ENOMEM, ENOSPC};
    matches!(errno, EAGAIN | EINTR | EMFILE | ENFILE | ENOMEM | ENOSPC)
}

/// The errno inside an I/O error; EIO where it carries none.
pub(crate) fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Whether an I/O error carries this errno.
pub(crate) fn errno_is(error: &std::io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
