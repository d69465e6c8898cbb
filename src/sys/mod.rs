//! Raw system calls and kernel structures that the drm and nix crates lack.
//!
//! Each file names the uapi header its definitions come from. Nothing here keeps state, except
//! [`process`] the number of the process.

use crate::Errno;

pub(crate) mod clock;
pub(crate) mod dma_buf;
pub(crate) mod dma_heap;
pub(crate) mod drm;
pub(crate) mod file;
#[cfg(feature = "kms")]
pub(crate) mod kms;
pub(crate) mod map;
#[cfg(feature = "wayland")]
pub(crate) mod memfd;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod sync_file;
pub(crate) mod syncobj;
pub(crate) mod thread;
pub(crate) mod udmabuf;
#[cfg(feature = "kms")]
pub(crate) mod uevent;
pub(crate) mod virtgpu;
pub(crate) mod vmwgfx;

/// The error of a system call, whichever crate has made the call.
pub(crate) trait Cause {
    fn errno(self) -> Errno;
}

impl Cause for Errno {
    fn errno(self) -> Errno {
        self
    }
}

impl Cause for nix::errno::Errno {
    fn errno(self) -> Errno {
        Errno::from_raw(self as i32)
    }
}

impl Cause for rustix::io::Errno {
    fn errno(self) -> Errno {
        Errno::from_raw(self.raw_os_error())
    }
}

impl Cause for std::io::Error {
    fn errno(self) -> Errno {
        Errno::of(&self).unwrap_or(Errno::EIO)
    }
}

/// The errno of a failed call. EIO if the error has none.
pub(crate) fn errno(error: impl Cause) -> Errno {
    error.errno()
}

/// The result of a system call of libc's, which is negative if the call failed.
pub(crate) fn result<T: Default + PartialOrd>(answer: T) -> Result<T, Errno> {
    match answer < T::default() {
        true => Err(last_errno().unwrap_or(Errno::EIO)),
        false => Ok(answer),
    }
}

/// Clears the errno of the thread, so that [`last_errno`] belongs to the next call. Drivers in the process do
/// not always set it.
pub(crate) fn clear_errno() {
    nix::errno::Errno::clear();
}

/// The errno of the thread; `None` if nothing has set it.
pub(crate) fn last_errno() -> Option<Errno> {
    let errno = nix::errno::Errno::last_raw();
    (errno != 0).then_some(Errno::from_raw(errno))
}

/// Repeats a DRM or dma-buf ioctl that a signal (EINTR) or a busy driver (EAGAIN) interrupted, as
/// libdrm's `drmIoctl` does. Not for other calls: there EAGAIN can be final.
pub(crate) fn retry<T, E: Cause>(mut ioctl: impl FnMut() -> Result<T, E>) -> Result<T, Errno> {
    loop {
        match uninterrupted(&mut ioctl) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
}

/// Repeats a call that a signal interrupted.
pub(crate) fn uninterrupted<T, E: Cause>(
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<T, Errno> {
    loop {
        match call().map_err(errno) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Whether a failed look-up says that there is nothing, or nothing for this process, and not that looking
/// failed.
pub(crate) fn is_absence(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::EPERM
    )
}

/// Whether an errno is transient: a lack of memory or of room for fds. It says nothing of what was asked for,
/// and the same call may succeed later.
pub(crate) fn is_transient(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EAGAIN
            | Errno::EINTR
            | Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOMEM
            | Errno::ENOSPC
    )
}

/// Whether an I/O error carries this errno.
pub(crate) fn errno_is(error: &std::io::Error, errno: Errno) -> bool {
    Errno::of(error) == Some(errno)
}
