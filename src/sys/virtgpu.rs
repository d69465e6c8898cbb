//! virtio-gpu's own ioctls (`include/uapi/drm/virtgpu_drm.h`).

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::Errno;

/// The driver's name, and that of its dma-bufs' exporter (`KBUILD_MODNAME`).
pub(crate) const DRIVER: &str = "virtio_gpu";

/// Whether the driver exported a dma-buf. `None` without a `/proc` to ask.
pub(crate) fn exported(dma_buf: BorrowedFd<'_>) -> Result<Option<bool>, Errno> {
    let exporter = super::dma_buf::exporter(dma_buf)?;
    Ok(exporter.map(|name| name == DRIVER))
}

/// `VIRTGPU_PARAM_3D_FEATURES`: whether the host draws (virgl, venus).
const PARAM_3D_FEATURES: u64 = 1;

/// `struct drm_virtgpu_getparam`.
#[repr(C)]
struct GetParam {
    param: u64,
    /// The address of an `int`.
    value: u64,
}

/// `struct drm_virtgpu_resource_info`.
#[repr(C)]
#[derive(Default)]
struct ResourceInfo {
    bo_handle: u32,
    res_handle: u32,
    size: u32,
    blob_mem: u32,
}

/// `struct drm_virtgpu_3d_transfer_to_host`, and `…_from_host`.
#[repr(C)]
struct Transfer {
    bo_handle: u32,
    /// x, y, z, width, height, depth.
    area: [u32; 6],
    level: u32,
    offset: u32,
    stride: u32,
    layer_stride: u32,
}

nix::ioctl_readwrite!(ioctl_getparam, b'd', 0x43, GetParam);
nix::ioctl_readwrite!(ioctl_resource_info, b'd', 0x45, ResourceInfo);
nix::ioctl_readwrite!(ioctl_transfer_from_host, b'd', 0x46, Transfer);
nix::ioctl_readwrite!(ioctl_transfer_to_host, b'd', 0x47, Transfer);

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

/// DRM_IOCTL_VIRTGPU_RESOURCE_INFO: whether an object is a classic resource, which has a copy of its
/// picture on the host, and no blob, which is one memory for both.
pub(crate) fn is_classic(device: BorrowedFd<'_>, handle: u32) -> Result<bool, Errno> {
    let mut info = ResourceInfo {
        bo_handle: handle,
        ..ResourceInfo::default()
    };
    // SAFETY: the fd is open, and `info` is the ioctl's structure and outlives the call.
    super::retry(|| unsafe { ioctl_resource_info(device.as_raw_fd(), &mut info) })?;
    Ok(info.blob_mem == 0)
}

/// DRM_IOCTL_VIRTGPU_TRANSFER_FROM_HOST of the whole picture. Does not wait: the resource has a
/// fence until it is done.
pub(crate) fn transfer_from_host(
    device: BorrowedFd<'_>,
    handle: u32,
    size: (u32, u32),
) -> Result<(), Errno> {
    let mut transfer = Transfer::whole(handle, size);
    // SAFETY: the fd is open, and `transfer` is the ioctl's structure and outlives the call.
    super::retry(|| unsafe { ioctl_transfer_from_host(device.as_raw_fd(), &mut transfer) })
        .map(drop)
}

/// DRM_IOCTL_VIRTGPU_TRANSFER_TO_HOST of the whole picture. Does not wait, as above.
pub(crate) fn transfer_to_host(
    device: BorrowedFd<'_>,
    handle: u32,
    size: (u32, u32),
) -> Result<(), Errno> {
    let mut transfer = Transfer::whole(handle, size);
    // SAFETY: the fd is open, and `transfer` is the ioctl's structure and outlives the call.
    super::retry(|| unsafe { ioctl_transfer_to_host(device.as_raw_fd(), &mut transfer) }).map(drop)
}

impl Transfer {
    fn whole(bo_handle: u32, (width, height): (u32, u32)) -> Self {
        Self {
            bo_handle,
            area: [0, 0, 0, width, height, 1],
            level: 0,
            offset: 0,
            // As the resource has it: the kernel takes another for blobs only.
            stride: 0,
            layer_stride: 0,
        }
    }
}
