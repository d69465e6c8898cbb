use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::Device;
use crate::buffer::BufferId;
use crate::sys::udmabuf;

/// What a device can do, by trying it. `DRM_CAP_PRIME` and `DRM_CAP_DUMB_BUFFER` are not
/// asked: drivers answer them wrongly in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Dumb buffers can be made on this node.
    pub dumb: bool,
    /// Its objects can be exported. `None` where there was no object to try with.
    pub export: Option<bool>,
    /// It imports memory that is not a device's own (from udmabuf). `None` where the machine has
    /// none to offer.
    pub import: Option<bool>,
}

pub(super) fn probe(device: &Device) -> Capabilities {
    let dumb = device.handles().create_dumb(64, 64, 32).ok();
    Capabilities {
        dumb: dumb.is_some(),
        export: dumb.map(|(object, _)| object.export().is_ok()),
        import: system_memory().ok().map(|(fd, id)| {
            let imported = device.handles().import(fd.as_fd(), id);
            imported.is_ok()
        }),
    }
}

/// A small dma-buf that is no device's own.
fn system_memory() -> Result<(OwnedFd, BufferId), Errno> {
    let size = udmabuf::page_size();
    let memory = udmabuf::memory(size)?;
    let fd = udmabuf::create(udmabuf::open()?.as_fd(), memory.as_fd(), size)?;
    let id = BufferId::of(&fd)?;
    Ok((fd, id))
}
