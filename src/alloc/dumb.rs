use super::{Allocator, Error, Request};
use crate::buffer::layout::{self, Packed};
use crate::buffer::{DmaBuf, Layout};
use crate::device::Device;
use crate::export;

/// Allocates dumb buffers: LINEAR memory that the driver can scan out and everybody can map.
///
/// Needs a primary node: render nodes answer EACCES.
#[derive(Clone, Debug)]
pub struct Dumb {
    device: Device,
}

impl Dumb {
    /// An allocator on the device's own file description.
    pub fn new(device: &Device) -> Self {
        Self {
            device: device.clone(),
        }
    }

    /// One plane, at least as wide as the driver wants it and as importers do.
    fn single(&self, request: &Request, packed: &Packed, bytes: u32) -> Result<DmaBuf, Error> {
        let (width, rows) = packed.padded(bytes);
        let handles = self.device.handles();
        let (object, pitch) = handles.create_dumb(width, rows, bytes * 8)?;
        Ok(export::export(&object, linear(request), [(0, pitch)])?)
    }

    /// Several planes, one after another in a dumb buffer of bytes.
    fn planar(&self, request: &Request, packed: Packed) -> Result<DmaBuf, Error> {
        let (width, rows) = packed.padded(1);
        let (object, _) = self.device.handles().create_dumb(width, rows, 8)?;
        Ok(export::export(&object, linear(request), packed.planes)?)
    }
}

impl Allocator for Dumb {
    fn name(&self) -> &'static str {
        "dumb"
    }

    fn allocate(&self, request: &Request) -> Result<DmaBuf, Error> {
        let info = request.linear_format(self.name())?;
        let packed = layout::pack(request.width, request.height, info)?;
        // Others are not a whole number of times in a stride, or are no pixels that drivers know.
        let pixel = match info.planes {
            [plane] => plane.bytes_per_pixel(),
            _ => None,
        };
        match pixel {
            Some(bytes) if bytes.is_power_of_two() => self.single(request, &packed, bytes),
            _ => self.planar(request, packed),
        }
    }
}

fn linear(request: &Request) -> Layout {
    Layout::linear(request.width, request.height, request.fourcc)
}
