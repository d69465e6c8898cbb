//! The library's allocators where Smithay wants one.

use ::smithay::backend::allocator;
use ::smithay::backend::allocator::dmabuf::Dmabuf;
use primeshare::alloc::{self, Request};
use primeshare::buffer::Usage;
use primeshare::{Allocator, Errno, ErrorKind, Fourcc, Modifier};

use crate::to_smithay;

/// Any allocator of the library, where Smithay wants one (for a `Swapchain`, a `DrmCompositor`).
#[derive(Debug)]
pub struct SmithayAllocator<A> {
    /// The allocator.
    pub allocator: A,
    /// What the buffers are for: Smithay's request does not say.
    pub usage: Usage,
}

impl<A: Allocator> allocator::Allocator for SmithayAllocator<A> {
    type Buffer = Dmabuf;
    type Error = alloc::Error;

    fn create_buffer(
        &mut self,
        width: u32,
        height: u32,
        fourcc: allocator::Fourcc,
        modifiers: &[allocator::Modifier],
    ) -> Result<Dmabuf, alloc::Error> {
        let request = Request::new(width, height, Fourcc(fourcc as u32))
            .modifiers(modifiers.iter().map(|&one| Modifier(one.into())))
            .usage(self.usage);
        let (name, kind) = (self.allocator.name(), ErrorKind::Other);
        to_smithay(&self.allocator.allocate(&request)?)
            .map_err(|error| alloc::Error::of_allocator(name, kind, Errno::of(&error), error))
    }
}
