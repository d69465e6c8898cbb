//! Handles that the library gave back to the host program.

use super::object::Handles;
use super::{Error, Handle};

/// A handle that the library has given up to the host program: see
/// [`Object::release`](super::Object::release).
///
/// The number belongs to the host program until the library is told that the handle is closed. If the same
/// dma-buf is imported meanwhile, the kernel gives the same number (`drm_gem_prime_fd_to_handle`). The
/// [`Object`](super::Object) of that import uses the host's handle, closes nothing on drop, and is of
/// no use once the host has closed the handle.
///
/// Dropping this changes nothing: the handle stays the host's. To give the handle back, pass its number to
/// [`Device::adopt`](crate::Device::adopt).
#[derive(Clone)]
pub struct Released {
    pub(super) handles: Handles,
    pub(super) handle: Handle,
}

impl Released {
    /// The handle, for the host program's ioctls on the file description.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Says that the host program has closed the handle: to be called after its GEM_CLOSE.
    ///
    /// Between the GEM_CLOSE and this call, an import on another thread may be given the old number for a new
    /// handle, and an [`Object`](super::Object) that is in use may lose its handle. [`Self::close`] leaves no
    /// such gap.
    pub fn closed(self) {
        self.handles.0.host_closed(self.handle);
    }

    /// Closes the handle (GEM_CLOSE), and tells the library in the same step.
    ///
    /// [`Error::Close`] with ENOENT if the handle was closed or handed back before.
    pub fn close(self) -> Result<(), Error> {
        self.handles.close_for_host(self.handle)
    }
}

impl std::fmt::Debug for Released {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Released")
            .field("device", &self.handles.name())
            .field("handle", &self.handle)
            .finish()
    }
}
