//! Fences that somebody has to wait for, from vgem: `include/uapi/drm/vgem_drm.h`.

use std::os::fd::{AsFd, AsRawFd};

use primeshare::Device;

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

/// Puts a fence on a buffer of vgem, as if something wrote to it: until [`signal`], or for ten
/// seconds.
pub(crate) fn attach(vgem: &Device, handle: u32) -> u32 {
    attach_with(vgem, handle, WRITE)
}

/// As [`attach`], as if something read it.
pub(crate) fn attach_reader(vgem: &Device, handle: u32) -> u32 {
    attach_with(vgem, handle, 0)
}

fn attach_with(vgem: &Device, handle: u32, flags: u32) -> u32 {
    let mut attach = Attach {
        handle,
        flags,
        out_fence: 0,
        pad: 0,
    };
    // SAFETY: the fd is open, and the structure, which is the ioctl's, outlives the call.
    unsafe { ioctl_attach(vgem.as_fd().as_raw_fd(), &mut attach) }.unwrap();
    attach.out_fence
}

pub(crate) fn signal(vgem: &Device, fence: u32) {
    let signal = Signal { fence, flags: 0 };
    // SAFETY: as in `attach`.
    unsafe { ioctl_signal(vgem.as_fd().as_raw_fd(), &signal) }.unwrap();
}
