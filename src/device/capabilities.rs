use super::Device;
use crate::alloc::{Allocator, Request, Udmabuf};
use crate::buffer::Fourcc;

/// What a device can do, by having tried it. `DRM_CAP_PRIME` and `DRM_CAP_DUMB_BUFFER` are not
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
    let dumb = device.table().create_dumb(64, 64, 32).ok();
    let system_memory = Udmabuf::open()
        .and_then(|udmabuf| udmabuf.allocate(&Request::new(64, 64, Fourcc::XRGB8888)))
        .ok();
    Capabilities {
        dumb: dumb.is_some(),
        export: dumb.map(|dumb| dumb.object.export().is_ok()),
        import: system_memory.map(|buffer| device.import(&buffer).is_ok()),
    }
}
