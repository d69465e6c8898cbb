use super::{Allocator, Error, Request};
use crate::buffer::{DmaBuf, FormatInfo, Layout, layout};
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

    /// One plane: the driver chooses the stride.
    fn single(&self, request: &Request, bytes_per_pixel: u32) -> Result<DmaBuf, Error> {
        let rows = request
            .height
            .checked_next_multiple_of(layout::ROW_ALIGN)
            .ok_or_else(|| too_large(request))?;
        let dumb = self
            .device
            .table()
            .create_dumb(request.width, rows, bytes_per_pixel * 8)?;
        Ok(export::export(
            &dumb.object,
            linear(request),
            [(0, dumb.pitch)],
        )?)
    }

    /// Several planes, one after another in a dumb buffer of bytes.
    fn planar(&self, request: &Request, info: &FormatInfo) -> Result<DmaBuf, Error> {
        let packed = layout::pack(request.width, request.height, info)?;
        let rows = packed.size.div_ceil(u64::from(layout::STRIDE_ALIGN));
        let rows = u32::try_from(rows).map_err(|_| too_large(request))?;
        let dumb = self
            .device
            .table()
            .create_dumb(layout::STRIDE_ALIGN, rows, 8)?;
        Ok(export::export(
            &dumb.object,
            linear(request),
            packed.planes,
        )?)
    }
}

impl Allocator for Dumb {
    fn name(&self) -> &'static str {
        "dumb"
    }

    fn allocate(&self, request: &Request) -> Result<DmaBuf, Error> {
        let info = request.linear_format(self.name())?;
        // The kernel says EINVAL to a zero side; say which.
        layout::pack(request.width, request.height, info)?;
        match info.planes {
            [plane] => self.single(request, plane.bytes_per_pixel),
            _ => self.planar(request, info),
        }
    }
}

fn linear(request: &Request) -> Layout {
    Layout::linear(request.width, request.height, request.fourcc)
}

fn too_large(request: &Request) -> crate::buffer::Error {
    crate::buffer::Error::TooLarge {
        width: request.width,
        height: request.height,
        fourcc: request.fourcc,
    }
}
