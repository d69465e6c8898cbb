//! DRM ioctls, repeated as libdrm repeats them, with errnos and owned fds.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use ::drm::Device as _;

use super::{errno, retry};
use crate::Errno;

struct Card<'a>(BorrowedFd<'a>);

impl AsFd for Card<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

impl ::drm::Device for Card<'_> {}

/// DRM_IOCTL_VERSION: the driver's name.
pub(crate) fn driver_name(device: BorrowedFd<'_>) -> Result<String, Errno> {
    let driver = retry(|| Card(device).get_driver().map_err(errno))?;
    Ok(driver.name().to_string_lossy().into_owned())
}

/// DRM_IOCTL_DROP_MASTER.
pub(crate) fn drop_master(device: BorrowedFd<'_>) -> Result<(), Errno> {
    Card(device).release_master_lock().map_err(errno)
}

/// `struct drm_mode_create_lease` of `include/uapi/drm/drm_mode.h`.
#[repr(C)]
struct CreateLease {
    object_ids: u64,
    object_count: u32,
    flags: u32,
    lessee_id: u32,
    fd: u32,
}

nix::ioctl_readwrite!(mode_create_lease, b'd', 0xc6, CreateLease);

/// DRM_IOCTL_MODE_CREATE_LEASE of nothing: a new file description of the device (Linux 5.15). EACCES
/// from who is not the device's master, EINVAL from older kernels and from who holds a lease, and
/// EOPNOTSUPP from devices without modes.
pub(crate) fn lease_nothing(master: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut lease = CreateLease {
        object_ids: 0,
        object_count: 0,
        flags: (libc::O_CLOEXEC | libc::O_NONBLOCK) as u32,
        lessee_id: 0,
        fd: 0,
    };
    // SAFETY: the fd is open, and `lease` is the ioctl's structure and outlives the call.
    retry(|| unsafe { mode_create_lease(master.as_raw_fd(), &mut lease) })?;
    // SAFETY: the ioctl succeeded, so this is a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(lease.fd as i32) })
}

/// DRM_IOCTL_PRIME_FD_TO_HANDLE.
pub(crate) fn fd_to_handle(device: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    retry(|| drm_ffi::gem::fd_to_handle(device, fd).map_err(errno)).map(|prime| prime.handle)
}

/// DRM_IOCTL_PRIME_HANDLE_TO_FD with `DRM_CLOEXEC | DRM_RDWR`: the first export of an object
/// fixes its dma-buf's access mode for good, and without `DRM_RDWR` nobody could ever map it for
/// writing.
pub(crate) fn handle_to_fd(device: BorrowedFd<'_>, handle: u32) -> Result<OwnedFd, Errno> {
    let flags = ::drm::CLOEXEC | ::drm::RDWR;
    let prime = retry(|| drm_ffi::gem::handle_to_fd(device, handle, flags).map_err(errno))?;
    // SAFETY: the ioctl succeeded, so this is a new fd that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(prime.fd) })
}

/// DRM_IOCTL_GEM_OPEN: a new handle for a flink name.
pub(crate) fn open_name(device: BorrowedFd<'_>, name: u32) -> Result<u32, Errno> {
    retry(|| drm_ffi::gem::open(device, name).map_err(errno)).map(|opened| opened.handle)
}

/// DRM_IOCTL_GEM_CLOSE.
pub(crate) fn close(device: BorrowedFd<'_>, handle: u32) -> Result<(), Errno> {
    retry(|| drm_ffi::gem::close(device, handle).map_err(errno)).map(drop)
}

/// DRM_IOCTL_MODE_CREATE_DUMB: handle and pitch.
pub(crate) fn create_dumb(
    device: BorrowedFd<'_>,
    width: u32,
    height: u32,
    bits_per_pixel: u32,
) -> Result<(u32, u32), Errno> {
    use drm_ffi::mode::dumbbuffer::create;
    let dumb = retry(|| create(device, width, height, bits_per_pixel, 0).map_err(errno))?;
    Ok((dumb.handle, dumb.pitch))
}

/// DRM_IOCTL_MODE_MAP_DUMB: the offset for `mmap` of the device.
pub(crate) fn map_dumb(device: BorrowedFd<'_>, handle: u32) -> Result<u64, Errno> {
    use drm_ffi::mode::dumbbuffer::map;
    retry(|| map(device, handle, 0, 0).map_err(errno)).map(|map| map.offset)
}

/// The number that the kernel gives every open file description of a DRM node
/// (`drm-client-id` of `Documentation/gpu/drm-usage-stats.rst`). `None` where the driver does not
/// say, as most without a GPU do not, or there is no `/proc` to ask. Takes an fd for a moment.
pub(crate) fn client_id(device: BorrowedFd<'_>) -> Result<Option<u64>, Errno> {
    let path = format!("/proc/self/fdinfo/{}", device.as_raw_fd());
    match std::fs::read_to_string(path).map_err(errno) {
        Ok(info) => Ok(client_id_in(&info)),
        Err(errno) if super::is_absence(errno) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn client_id_in(fdinfo: &str) -> Option<u64> {
    let id = |line: &str| line.strip_prefix("drm-client-id:")?.trim().parse().ok();
    fdinfo.lines().find_map(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_id_is_found_among_the_other_lines() {
        let info = "pos:\t0\nflags:\t02100002\ndrm-driver:\tamdgpu\ndrm-client-id:\t17\n";
        assert_eq!(client_id_in(info), Some(17));
        assert_eq!(client_id_in("pos:\t0\nflags:\t02100002\n"), None);
        assert_eq!(client_id_in("drm-client-id:\tnone\n"), None);
    }
}
