//! Fences that somebody has to wait for, from vgem: `include/uapi/drm/vgem_drm.h`.

use std::os::fd::{AsFd, AsRawFd};

use primeshare::sync::Access;
use primeshare::{Device, DmaBuf};

#[repr(C)]
struct Attach {
    handle: u32,
    flags: u32,
    out_fence: u32,
    pad: u32,
}

#[repr(C)]
struct Signal {
    fence: u32,
    flags: u32,
}

/// `VGEM_FENCE_WRITE`.
const WRITE: u32 = 1;

nix::ioctl_readwrite!(ioctl_attach, b'd', 0x41, Attach);
nix::ioctl_write_ptr!(ioctl_signal, b'd', 0x42, Signal);

/// A fence on a buffer of vgem. vgem signals it by itself after ten seconds, with ETIMEDOUT.
pub(crate) struct Fence<'a> {
    vgem: &'a Device,
    number: u32,
}

impl<'a> Fence<'a> {
    /// As if something used the buffer, until [`signal`](Self::signal).
    pub(crate) fn attach(vgem: &'a Device, buffer: &DmaBuf, access: Access) -> Self {
        let imported = vgem.import(buffer).unwrap();
        let mut attach = Attach {
            handle: imported.object().handle().raw(),
            flags: if access == Access::Write { WRITE } else { 0 },
            out_fence: 0,
            pad: 0,
        };
        // SAFETY: the fd is open, and the structure, which is the ioctl's, outlives the call.
        unsafe { ioctl_attach(vgem.as_fd().as_raw_fd(), &mut attach) }.unwrap();
        let number = attach.out_fence;
        Self { vgem, number }
    }

    pub(crate) fn signal(self) {
        let signal = Signal {
            fence: self.number,
            flags: 0,
        };
        // SAFETY: as in `attach`.
        unsafe { ioctl_signal(self.vgem.as_fd().as_raw_fd(), &signal) }.unwrap();
    }
}
