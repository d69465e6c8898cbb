//! Drivers whose handles do not follow the kernel's rules for GEM.

use std::os::fd::BorrowedFd;

use crate::sys;

/// vmwgfx (VMware, VirtualBox with VMSVGA): a surface has no GEM handle but one of the driver's own,
/// counted by it. Each PRIME_FD_TO_HANDLE adds a reference (`ttm_prime_fd_to_handle` of
/// `drivers/gpu/drm/vmwgfx/ttm_object.c`), which GEM_CLOSE does not know (EINVAL) and
/// DRM_VMW_UNREF_SURFACE drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quirk(());

/// `VMWGFX_NUM_MOB` of `drivers/gpu/drm/vmwgfx/vmwgfx_drv.h`: GEM handles end here.
const LAST_GEM_HANDLE: u32 = 8192;

impl Quirk {
    pub(super) fn of(device: BorrowedFd<'_>) -> Option<Self> {
        let driver = sys::drm::driver_name(device);
        (driver.as_deref() == Ok("vmwgfx")).then_some(Self(()))
    }

    /// Whether the driver counts references to this handle.
    pub(super) fn counts(self, handle: u32) -> bool {
        handle > LAST_GEM_HANDLE
    }
}
