//! vmwgfx's own ioctls (`include/uapi/drm/vmwgfx_drm.h`).

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::Errno;

/// `DRM_VMW_HANDLE_LEGACY`: the handle is a number of the driver's own, no fd.
const HANDLE_LEGACY: u32 = 0;

/// `struct drm_vmw_surface_arg`.
#[repr(C)]
struct SurfaceArg {
    sid: i32,
    handle_type: u32,
}

nix::ioctl_write_ptr!(ioctl_unref_surface, b'd', 0x40 + 10, SurfaceArg);

/// DRM_VMW_UNREF_SURFACE: drops one reference to a surface.
pub(crate) fn unref_surface(device: BorrowedFd<'_>, surface: u32) -> Result<(), Errno> {
    let arg = SurfaceArg {
        sid: surface as i32,
        handle_type: HANDLE_LEGACY,
    };
    // SAFETY: the fd is open, and `arg` is the ioctl's structure and outlives the call.
    super::retry(|| unsafe { ioctl_unref_surface(device.as_raw_fd(), &arg) }).map(drop)
}
