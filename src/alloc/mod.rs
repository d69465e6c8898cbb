//! Allocators: one trait, and those that need no Mesa. The gbm one is in [`crate::gbm`].
//!
//! [`Dumb`], [`Udmabuf`] and [`DmaHeap`] lay pictures out alike. The planes follow each other in one
//! dma-buf. Strides are multiples of 256 bytes and of a pixel. 16 rows and 4096 bytes follow the picture, because
//! some drivers import an image only from a dma-buf that is larger than the picture: radeonsi pads
//! its rows to 16, and v3dv wants 64 bytes and the rest of a page after them.

mod dma_heap;
mod dumb;
mod error;
mod udmabuf;

pub use dma_heap::DmaHeap;
pub use dumb::Dumb;
pub use error::{Cause, Error};
pub use udmabuf::Udmabuf;

pub use crate::buffer::Usage;

use crate::buffer::{DmaBuf, FormatInfo, Fourcc, Modifier};

/// What to allocate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Pixel format.
    pub fourcc: Fourcc,
    /// The layouts that would do, in no order. [`Modifier::INVALID`] in the list allows a layout
    /// that only the allocating device understands.
    pub modifiers: Vec<Modifier>,
    /// What it is for. Allocators that cannot tell take it as advice.
    pub usage: Usage,
}

impl Request {
    /// A LINEAR buffer for rendering.
    pub fn new(width: u32, height: u32, fourcc: Fourcc) -> Self {
        Self {
            width,
            height,
            fourcc,
            modifiers: vec![Modifier::LINEAR],
            usage: Usage::RENDER,
        }
    }

    /// In one of these layouts.
    #[must_use]
    pub fn modifiers(mut self, modifiers: impl IntoIterator<Item = Modifier>) -> Self {
        self.modifiers = modifiers.into_iter().collect();
        self
    }

    /// For this use.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    fn linear_format(&self, allocator: &'static str) -> Result<&'static FormatInfo, Error> {
        if !self.modifiers.contains(&Modifier::LINEAR) {
            return Err(Error::Modifiers {
                allocator,
                modifiers: self.modifiers.clone(),
            });
        }
        FormatInfo::of(self.fourcc).ok_or(Error::Format {
            allocator,
            fourcc: self.fourcc,
        })
    }
}

/// Where buffers come from.
///
/// A buffer is exported, read-write and close-on-exec, before anybody else can export it (with an
/// exception that [`Gbm`](crate::gbm::Gbm) names), and is freed when the last [`DmaBuf`] clone and
/// the last import of it have gone; the allocator may go before. Thread-safe. Allocating does not wait for the
/// GPU, with one exception: `vk::ImageAllocator` makes the contents of a tiled buffer valid first.
pub trait Allocator: Send + Sync {
    /// A short name for reports: `dumb`, `gbm`, `udmabuf`, `dma-heap`, `vulkan`.
    fn name(&self) -> &'static str;

    /// Allocates a buffer. Its contents are zero or undefined, depending on the driver.
    fn allocate(&self, request: &Request) -> Result<DmaBuf, Error>;
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<A: Allocator + ?Sized> Allocator for $pointer {
            fn name(&self) -> &'static str {
                (**self).name()
            }

            fn allocate(&self, request: &Request) -> Result<DmaBuf, Error> {
                (**self).allocate(request)
            }
        }
    )*};
}

forward!(&A, Box<A>, std::sync::Arc<A>);
