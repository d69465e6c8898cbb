//! virtio-gpu with 3D keeps pictures on the host: `include/uapi/drm/virtgpu_drm.h`.

use std::os::fd::{AsFd, AsRawFd};

use primeshare::{Device, DmaBuf};

#[repr(C)]
struct Transfer {
    handle: u32,
    /// x, y, z, width, height, depth.
    area: [u32; 6],
    level: u32,
    offset: u32,
    stride: u32,
    layer_stride: u32,
}

#[repr(C)]
struct Wait {
    handle: u32,
    flags: u32,
}

nix::ioctl_readwrite!(transfer_from_host, b'd', 0x46, Transfer);
nix::ioctl_readwrite!(wait, b'd', 0x48, Wait);

/// Brings the picture from the host to where mappings of the buffer read, and waits for that.
pub(crate) fn fetch(device: &Device, buffer: &DmaBuf) {
    let imported = device.import(buffer).unwrap();
    let handle = imported.object().handle().raw();
    let fd = device.as_fd().as_raw_fd();
    let mut transfer = Transfer {
        handle,
        area: [0, 0, 0, buffer.width(), buffer.height(), 1],
        level: 0,
        offset: 0,
        // As the resource has it; the kernel takes another for blobs only.
        stride: 0,
        layer_stride: 0,
    };
    let mut done = Wait { handle, flags: 0 };
    // SAFETY: the fd is open, and both structures, which are the ioctls', outlive the calls.
    unsafe {
        transfer_from_host(fd, &mut transfer).unwrap();
        wait(fd, &mut done).unwrap();
    }
}
