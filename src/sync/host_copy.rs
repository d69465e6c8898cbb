//! Pictures that lie on the host of a virtual machine.
//!
//! A classic resource of virtio-gpu with 3D (virgl) is drawn on the host, in memory of the host's GPU.
//! Its pages in the guest, which mappings and other devices see, are a second copy: the driver fills
//! them on request (TRANSFER_FROM_HOST) and takes them over on request (TRANSFER_TO_HOST), and
//! DMA_BUF_IOCTL_SYNC does neither (`drivers/gpu/drm/virtio/virtgpu_ioctl.c`, `virtgpu_prime.c`). Blob
//! resources are one memory for both sides and need nothing.
//!
//! A dumb buffer of virtio-gpu is a classic resource as well, but its pages in the guest are what
//! counts: the driver hands them to the host itself when it shows them (`virtgpu_plane.c`,
//! `virtio_gpu_update_dumb_bo`). The kernel does not say of a resource that came from outside whether
//! it is a dumb buffer; those that the library made are known.

use std::os::fd::{AsFd, BorrowedFd};

use super::Error;
use crate::Errno;
use crate::buffer::{self, DmaBuf};
use crate::device::{self, Device, NodeKind};
use crate::gem::{self, Object};
use crate::sys::virtgpu;

/// A resource of which the host has the picture, on a file description of its own.
#[derive(Debug)]
pub(crate) struct HostCopy {
    device: Device,
    object: Object,
    size: (u32, u32),
}

impl HostCopy {
    /// What has to be transferred around accesses to a buffer's dma-buf, if anything.
    ///
    /// [`Error::OnHost`] if the host has the picture and its layout is not known: a transfer copies a
    /// rectangle of the one plane that a resource has.
    pub(super) fn of(buffer: &DmaBuf, object: &buffer::PlaneObject) -> Result<Option<Self>, Error> {
        if is_own_dumb_buffer(buffer) {
            return Ok(None);
        }
        let Some((device, resource)) = find(object.as_fd(), object.is_of_virtio_gpu())? else {
            return Ok(None);
        };
        match buffer.planes() {
            [plane] if plane.offset == 0 => Ok(Some(Self {
                device,
                object: resource,
                size: (buffer.width(), buffer.height()),
            })),
            _ => Err(Error::OnHost),
        }
    }

    /// Has the host's picture written to the guest's pages. Does not wait: the dma-buf has a fence
    /// meanwhile.
    pub(super) fn fetch(&self) -> Result<(), Error> {
        let handle = self.object.handle().raw();
        virtgpu::transfer_from_host(self.device.as_fd(), handle, self.size)
            .map_err(|errno| Error::FromHost { errno })
    }

    /// Has the guest's pages written to the host's picture. Does not wait, as above.
    pub(super) fn flush(&self) -> Result<(), Error> {
        let handle = self.object.handle().raw();
        virtgpu::transfer_to_host(self.device.as_fd(), handle, self.size)
            .map_err(|errno| Error::ToHost { errno })
    }
}

/// Whether the host of a virtual machine has the picture, so that the memory which devices and
/// mappings see here may be out of date.
pub(crate) fn is_on_host(buffer: &DmaBuf) -> Result<bool, Error> {
    match is_own_dumb_buffer(buffer) {
        true => Ok(false),
        false => is_classic(buffer),
    }
}

/// Whether any of a buffer's memory is a classic resource of virtio-gpu with 3D: those on the host,
/// and the library's own dumb buffers.
pub(crate) fn is_classic(buffer: &DmaBuf) -> Result<bool, Error> {
    for object in buffer.objects() {
        if find(object.as_fd(), object.is_of_virtio_gpu())?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// [`Error::OnHost`] for a dma-buf whose picture is on the host.
pub(super) fn refuse(fd: BorrowedFd<'_>) -> Result<(), Error> {
    match find(fd, virtgpu::exported(fd))? {
        None => Ok(()),
        Some(_) => Err(Error::OnHost),
    }
}

fn is_own_dumb_buffer(buffer: &DmaBuf) -> bool {
    buffer.kept::<Object>().is_some_and(Object::is_own)
}

/// The resource behind a dma-buf, if it is one whose picture the host has. `is_exporter`: whether
/// virtio-gpu exported it, where that is known.
fn find(
    fd: BorrowedFd<'_>,
    is_exporter: Result<Option<bool>, Errno>,
) -> Result<Option<(Device, Object)>, Error> {
    let is_exporter = is_exporter.map_err(|errno| Error::Examine { errno })?;
    if is_exporter == Some(false) {
        return Ok(None);
    }
    let failed = |error| Error::HostUnknown(Box::new(error));
    // Render nodes may be opened by programs that may not open primary ones.
    let nodes = device::enumerate().map_err(failed)?;
    let renders = nodes.iter().filter(|node| node.kind == NodeKind::Render);
    let mut refused = None;
    for node in renders {
        let device = match Device::open(&node.path) {
            Ok(device) => device,
            Err(error) => {
                refused = Some(error);
                continue;
            }
        };
        if device.driver() != virtgpu::DRIVER || virtgpu::has_3d(device.as_fd()) != Ok(true) {
            continue;
        }
        // A virtio-gpu that did not export the memory refuses it, or takes it as a blob.
        let imported = match device.import_fd(fd) {
            Ok((object, _)) => object,
            Err(gem::Error::Import { .. }) => continue,
            Err(error) => return Err(failed(error.into())),
        };
        let handle = imported.handle().raw();
        let is_classic = virtgpu::is_classic(device.as_fd(), handle);
        if is_classic.map_err(|errno| Error::Examine { errno })? {
            return Ok(Some((device, imported)));
        }
    }
    // Without /proc the exporter is unknown, and refusals mean little: most memory is not virtio-gpu's.
    match refused {
        Some(error) if is_exporter.is_some() => Err(failed(error)),
        _ => Ok(None),
    }
}
