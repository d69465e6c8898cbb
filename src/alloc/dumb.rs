//! The dumb-buffer allocator.
//!
//! It works on the device's own handle table, so its buffers are self-imports at home. Drivers differ in the
//! bits per pixel that they take: read `Dumb::create` before changing the order of attempts.

use super::{Allocator, Error, Request};
use crate::Errno;
use crate::buffer::layout::{self, Packed};
use crate::buffer::{self, BufferDesc, DmaBuf, Fourcc, Modifier};
use crate::device::{Device, NodeKind};
use crate::export;
use crate::gem::{self, Object};
use crate::negotiate::Endpoint;

/// Allocates dumb buffers: LINEAR memory that the driver can scan out and everybody can map.
///
/// Needs a primary node: render nodes answer EACCES. If the driver has no dumb buffers of the
/// format's pixels, the buffer is made of pixels of 32 bits, as many as have the same bytes: every
/// format can be had from every driver that has dumb buffers.
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

    /// Of these formats, what it makes: LINEAR memory of each, contiguous where the display controller needs that. For
    /// [`negotiate`](crate::negotiate::negotiate).
    ///
    /// [`Error::RenderNode`] of a render node, which makes none. [`Error::Device`] if it cannot be found out which device
    /// this is.
    pub fn endpoint(&self, formats: impl IntoIterator<Item = Fourcc>) -> Result<Endpoint, Error> {
        if self.device.node().kind == NodeKind::Render {
            return Err(self.render_node());
        }
        let linear = formats
            .into_iter()
            .map(|fourcc| (fourcc, Modifier::LINEAR))
            .collect();
        Ok(Endpoint {
            device: Some(self.device.key()?),
            allocates_contiguous: true,
            ..Endpoint::new(format!("dumb buffers of {}", self.device), linear).allocating()
        })
    }

    fn render_node(&self) -> Error {
        let device = self.device.to_string();
        Error::RenderNode { device }
    }

    /// A buffer of one plane, at least as wide as the driver and importers want it.
    fn single(&self, request: &Request, packed: &Packed, bytes: u32) -> Result<DmaBuf, Error> {
        let (object, pitch) = self.create(request, packed, bytes)?;
        Ok(export::export(&object, linear(request), [(0, pitch)])?)
    }

    /// A buffer of several planes, one after the other in a dumb buffer of bytes.
    fn planar(&self, request: &Request, packed: Packed) -> Result<DmaBuf, Error> {
        let (object, _) = self.create(request, &packed, 1)?;
        Ok(export::export(&object, linear(request), packed.planes)?)
    }

    /// Makes a dumb buffer with room for all planes, of pixels of this size or else of 4 bytes. Gives its pitch,
    /// too.
    ///
    /// virtio-gpu makes dumb buffers of 32 bits a pixel only (`virtio_gpu_mode_dumb_create`), qxl of
    /// 16 and 32 (`qxl_mode_dumb_create`). Both answer EINVAL to others. The memory is the same:
    /// a row has as many bytes.
    fn create(
        &self,
        request: &Request,
        packed: &Packed,
        bytes: u32,
    ) -> Result<(Object, u32), Error> {
        if !packed.fits_32_bits() {
            return Err(Error::Layout(buffer::Error::TooLarge {
                width: request.width,
                height: request.height,
                fourcc: request.fourcc,
            }));
        }
        let handles = self.device.handles();
        let make = |bytes| {
            let (width, rows) = packed.padded(bytes);
            handles.create_dumb(width, rows, bytes * 8)
        };
        let refused = match make(bytes) {
            Err(gem::Error::CreateDumb {
                errno: Errno::EACCES,
                ..
            }) if self.device.node().kind == NodeKind::Render => return Err(self.render_node()),
            Err(
                refused @ gem::Error::CreateDumb {
                    errno: Errno::EINVAL,
                    ..
                },
            ) => refused,
            made => return Ok(made?),
        };
        match bytes {
            4 => Err(refused.into()),
            _ => Ok(make(4)?),
        }
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

fn linear(request: &Request) -> BufferDesc {
    BufferDesc::linear(request.width, request.height, request.fourcc)
}
