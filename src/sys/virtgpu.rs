//! virtio-gpu's own ioctls (`include/uapi/drm/virtgpu_drm.h`).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// `VIRTGPU_PARAM_3D_FEATURES`: whether the host draws (virgl, venus).
const PARAM_3D_FEATURES: u64 = 1;

/// `struct drm_virtgpu_getparam`.
#[repr(C)]
struct GetParam {
    param: u64,
    /// The address of an `int`.
    value: u64,
}

nix::ioctl_readwrite!(ioctl_getparam, b'd', 0x43, GetParam);

/// DRM_IOCTL_VIRTGPU_GETPARAM: whether this virtio-gpu can draw, and does not only show.
pub(crate) fn has_3d(device: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut value: libc::c_int = 0;
    let mut arg = GetParam {
        param: PARAM_3D_FEATURES,
        value: &raw mut value as u64,
    };
    // SAFETY: the fd is open, and `arg` is the ioctl's structure and points to an int; both outlive the call.
    super::retry(|| unsafe { ioctl_getparam(device.as_raw_fd(), &mut arg) })?;
    Ok(value != 0)
}
