//! Raw system calls and kernel structures that the drm and nix crates lack.
//!
//! Each file names the uapi header its definitions come from. Nothing here keeps state.

pub(crate) mod dma_buf;
pub(crate) mod dma_heap;
pub(crate) mod drm;
pub(crate) mod file;
pub(crate) mod map;
pub(crate) mod sync_file;
pub(crate) mod udmabuf;

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

/// The errno inside an I/O error; EIO where it carries none.
pub(crate) fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Whether an I/O error carries this errno.
pub(crate) fn errno_is(error: &std::io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
