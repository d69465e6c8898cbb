//! DRM syncobj ioctls of `include/uapi/drm/drm.h`: those that drm-ffi has, repeated as libdrm
//! repeats them, and the import of a sync_file, for which it gives no handle.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use drm_ffi::syncobj as ffi;
use nix::time::{ClockId, clock_gettime};

use super::{errno, retry};
use crate::Errno;

nix::ioctl_readwrite!(ioctl_fd_to_handle, b'd', 0xc2, drm_ffi::drm_syncobj_handle);

/// DRM_IOCTL_SYNCOBJ_CREATE.
pub(crate) fn create(device: BorrowedFd<'_>, signalled: bool) -> Result<u32, Errno> {
    retry(|| ffi::create(device, signalled).map_err(errno)).map(|created| created.handle)
}

/// DRM_IOCTL_SYNCOBJ_DESTROY.
pub(crate) fn destroy(device: BorrowedFd<'_>, handle: u32) -> Result<(), Errno> {
    retry(|| ffi::destroy(device, handle).map_err(errno)).map(drop)
}

/// DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD: an fd of the syncobj itself, or a sync_file of the fence it
/// holds now. Close-on-exec.
pub(crate) fn handle_to_fd(
    device: BorrowedFd<'_>,
    handle: u32,
    as_sync_file: bool,
) -> Result<OwnedFd, Errno> {
    let exported = retry(|| ffi::handle_to_fd(device, handle, as_sync_file).map_err(errno))?;
    // SAFETY: the ioctl succeeded, so this is a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(exported.fd) })
}

/// DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE: a new handle of the syncobj behind an fd.
pub(crate) fn fd_to_handle(device: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    retry(|| ffi::fd_to_handle(device, fd, false).map_err(errno)).map(|imported| imported.handle)
}

/// DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE with `IMPORT_SYNC_FILE`: puts a sync_file's fence into a syncobj
/// in place of what it held.
pub(crate) fn import_sync_file(
    device: BorrowedFd<'_>,
    handle: u32,
    sync_file: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let mut data = drm_ffi::drm_syncobj_handle {
        handle,
        flags: drm_ffi::DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE,
        fd: sync_file.as_raw_fd(),
        ..Default::default()
    };
    // SAFETY: both fds are open for the call, and `data` outlives it.
    retry(|| unsafe { ioctl_fd_to_handle(device.as_raw_fd(), &mut data) }).map(drop)
}

/// DRM_IOCTL_SYNCOBJ_WAIT for what is to be submitted and signalled, until a time of
/// [`monotonic_ns`]: ETIME then.
pub(crate) fn wait(device: BorrowedFd<'_>, handle: u32, until_ns: i64) -> Result<(), Errno> {
    retry(|| ffi::wait(device, &[handle], until_ns, true, true).map_err(errno)).map(drop)
}

/// DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT, as [`wait`]; `available`: only for what is to be submitted.
pub(crate) fn timeline_wait(
    device: BorrowedFd<'_>,
    handle: u32,
    point: u64,
    until_ns: i64,
    available: bool,
) -> Result<(), Errno> {
    let wait = || ffi::timeline_wait(device, &[handle], &[point], until_ns, true, true, available);
    retry(|| wait().map_err(errno)).map(drop)
}

/// DRM_IOCTL_SYNCOBJ_RESET.
pub(crate) fn reset(device: BorrowedFd<'_>, handle: u32) -> Result<(), Errno> {
    retry(|| ffi::reset(device, &[handle]).map_err(errno)).map(drop)
}

/// DRM_IOCTL_SYNCOBJ_SIGNAL.
pub(crate) fn signal(device: BorrowedFd<'_>, handle: u32) -> Result<(), Errno> {
    retry(|| ffi::signal(device, &[handle]).map_err(errno)).map(drop)
}

/// DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL.
pub(crate) fn timeline_signal(
    device: BorrowedFd<'_>,
    handle: u32,
    point: u64,
) -> Result<(), Errno> {
    retry(|| ffi::timeline_signal(device, &[handle], &[point]).map_err(errno)).map(drop)
}

/// DRM_IOCTL_SYNCOBJ_QUERY: the last point that was signalled, or only submitted.
pub(crate) fn query(device: BorrowedFd<'_>, handle: u32, submitted: bool) -> Result<u64, Errno> {
    let mut point = [0];
    retry(|| ffi::query(device, &[handle], &mut point, submitted).map_err(errno))?;
    Ok(point[0])
}

/// DRM_IOCTL_SYNCOBJ_TRANSFER: the fence of a point, of `from`, becomes that of another, of `to`.
/// Point 0 is the fence of a binary syncobj.
pub(crate) fn transfer(
    device: BorrowedFd<'_>,
    from: (u32, u64),
    to: (u32, u64),
) -> Result<(), Errno> {
    retry(|| ffi::transfer(device, from.0, to.0, from.1, to.1).map_err(errno)).map(drop)
}

/// DRM_IOCTL_SYNCOBJ_EVENTFD, Linux 6.6: adds one to the eventfd when the point is signalled, or
/// with `available` when it is submitted.
pub(crate) fn eventfd(
    device: BorrowedFd<'_>,
    handle: u32,
    point: u64,
    eventfd: BorrowedFd<'_>,
    available: bool,
) -> Result<(), Errno> {
    retry(|| ffi::eventfd(device, handle, point, eventfd, available).map_err(errno)).map(drop)
}

/// CLOCK_MONOTONIC in nanoseconds, which the waits go by.
pub(crate) fn monotonic_ns() -> Result<i64, Errno> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(super::errno)?);
    i64::try_from(now.as_nanos()).map_err(|_| Errno::EOVERFLOW)
}
