//! What a GPU copies from and to.

use std::sync::Arc;

use crate::blit::copy::host::HostPicture;
use crate::blit::copy::regions::Picture;
use crate::buffer::DmaBuf;

/// What a GPU imports a buffer as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blit) enum Shape {
    Image,
    Bytes,
    /// An image or, if that is refused, bytes.
    Either,
}

/// One end of a copy.
#[derive(Clone, Copy)]
pub(in crate::blit) enum Place<'a> {
    Buffer(&'a DmaBuf, Shape),
    /// Host memory that belongs to the GPU's Vulkan device.
    Host(&'a Arc<HostPicture>),
}

impl<'a> Place<'a> {
    pub(super) fn picture(self) -> Picture<'a> {
        match self {
            Self::Buffer(buffer, _) => buffer.into(),
            Self::Host(host) => host.picture(),
        }
    }
}

/// Source and destination of a copy.
pub(in crate::blit) type Ends<'a> = [Place<'a>; 2];
