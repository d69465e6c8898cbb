//! Smithay's [`Dmabuf`] and the library's [`DmaBuf`].
//!
//! The two types name the same dma-bufs, so a buffer that goes there and back has the same
//! [`BufferId`](primeshare::buffer::BufferId). A `Dmabuf` has an fd for each plane and a `DmaBuf` has one for each
//! dma-buf: that many are duplicated, and no more. Smithay tells buffers apart by the `Dmabuf`, so make it once for each
//! buffer and keep it, in a [`PerBuffer`](primeshare::buffer::PerBuffer) for example.

use std::io;
use std::os::fd::AsFd;

use ::smithay::backend::allocator::Buffer as _;
use ::smithay::backend::allocator::dmabuf::{Dmabuf, DmabufFlags};
use primeshare::buffer::{self, BufferDesc, BufferFlags, PlaneRef};
use primeshare::{DmaBuf, Fourcc, Modifier};

/// Smithay's buffer of one of the library's. `InvalidInput`: its format or size is none of Smithay's.
pub fn to_smithay(buffer: &DmaBuf) -> io::Result<Dmabuf> {
    let [width, height] = [buffer.width(), buffer.height()].map(i32::try_from);
    let (Ok(width), Ok(height), Ok(format)) = (width, height, buffer.fourcc().0.try_into()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let modifier = buffer.modifier().0.into();
    let flags = DmabufFlags::from_bits_retain(buffer.flags().bits());
    let mut made = Dmabuf::builder((width, height), format, modifier, flags);
    for (plane, index) in buffer.planes().iter().zip(0..) {
        let object = &buffer.objects()[plane.object];
        let fd = object.as_fd().try_clone_to_owned()?;
        made.add_plane(fd, index, plane.offset, plane.stride);
    }
    made.build().ok_or(io::ErrorKind::InvalidInput.into())
}

/// The library's buffer of one of Smithay's, checked like any from outside.
pub fn from_smithay(dmabuf: &Dmabuf) -> Result<DmaBuf, buffer::Error> {
    let layout = BufferDesc::new(
        dmabuf.width(),
        dmabuf.height(),
        Fourcc(dmabuf.format().code as u32),
        Modifier(dmabuf.format().modifier.into()),
    );
    let mut flags = BufferFlags::empty();
    flags.set(BufferFlags::Y_INVERT, dmabuf.y_inverted());
    let planes = dmabuf.handles().zip(dmabuf.offsets()).zip(dmabuf.strides());
    let planes = planes.map(|((fd, offset), stride)| PlaneRef { fd, offset, stride });
    DmaBuf::from_borrowed(layout.with_flags(flags), planes)
}
