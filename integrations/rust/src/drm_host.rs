//! A host that sets modes and flips pages by the crate `drm`, and shows buffers of the library.
//!
//! The host keeps its fd, its place as DRM master and its own `Card`. The library works on a private copy, where the
//! framebuffers are made and destroyed: the handles are the copy's, and RMFB wants the file description that made the
//! framebuffer. The host's fd shows them by their number.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drm::buffer::{DrmFourcc, DrmModifier, Handle, PlanarBuffer};
use drm::control::{Device as _, FbCmd2Flags, framebuffer};
use primeshare::buffer::{PerBuffer, Refusal};
use primeshare::import::Imported;
use primeshare::{Device, DmaBuf, Errno, ErrorKind, gem};

/// A file description as the crate `drm` wants it: the host's own, or the library's.
#[derive(Debug)]
pub struct Card<F>(pub F);

impl<F: AsFd> AsFd for Card<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<F: AsFd> drm::Device for Card<F> {}
impl<F: AsFd> drm::control::Device for Card<F> {}

/// A framebuffer that is destroyed when its buffer goes. If it is on a screen then, the screen goes dark.
#[derive(Debug)]
pub struct Framebuffer {
    card: Arc<Card<Device>>,
    handle: framebuffer::Handle,
}

impl Framebuffer {
    /// For `page_flip`, `set_crtc` or the property `FB_ID`.
    pub fn handle(&self) -> framebuffer::Handle {
        self.handle
    }
}

impl Drop for Framebuffer {
    fn drop(&mut self) {
        // It fails if the device is gone, and the framebuffer with it.
        let _ = self.card.destroy_framebuffer(self.handle);
    }
}

/// The framebuffers of a device: one for each buffer, for as long as the buffer lives.
#[derive(Debug)]
pub struct Framebuffers {
    card: Arc<Card<Device>>,
    of_buffers: PerBuffer<Framebuffer, io::Error>,
    tried: AtomicUsize,
}

impl Framebuffers {
    /// For the device that the host has open as `card`, and goes on using.
    pub fn new<F: AsFd>(card: &Card<F>) -> io::Result<Self> {
        Ok(Self {
            card: Arc::new(Card(Device::private_copy_of(card)?)),
            of_buffers: PerBuffer::new(),
            tried: AtomicUsize::new(0),
        })
    }

    /// The framebuffer of a buffer. Only the first call for each buffer asks the device, also if it is refused.
    pub fn get(&self, buffer: &DmaBuf) -> Result<Arc<Framebuffer>, Arc<io::Error>> {
        self.of_buffers.get_or_make(buffer, || self.make(buffer))
    }

    /// How often the device was asked.
    pub fn tried(&self) -> usize {
        self.tried.load(Ordering::Relaxed)
    }

    fn make(&self, buffer: &DmaBuf) -> Result<Framebuffer, Refusal<io::Error>> {
        self.tried.fetch_add(1, Ordering::Relaxed);
        let imported = self.card.0.import(buffer);
        let imported = imported.map_err(|error| Refusal::of(error.kind(), error.into()))?;
        let format = DrmFourcc::try_from(buffer.fourcc().0);
        let format = format.map_err(|error| Refusal::Permanent(io::Error::other(error)))?;
        let flags = match buffer.modifier().is_explicit() {
            true => FbCmd2Flags::MODIFIERS,
            false => FbCmd2Flags::empty(),
        };
        let described = Described(buffer, &imported, format);
        let handle = self.card.add_planar_framebuffer(&described, flags);
        let kind = |error: &io::Error| Errno::of(error).map_or(ErrorKind::Other, ErrorKind::of);
        let handle = handle.map_err(|error| Refusal::of(kind(&error), error))?;
        // A framebuffer keeps the memory, so `imported` may go, and with it the handles.
        Ok(Framebuffer {
            card: self.card.clone(),
            handle,
        })
    }
}

/// A buffer with its handles on one device, as ADDFB2 wants it.
struct Described<'a>(&'a DmaBuf, &'a Imported, DrmFourcc);

impl PlanarBuffer for Described<'_> {
    fn size(&self) -> (u32, u32) {
        (self.0.width(), self.0.height())
    }

    fn format(&self) -> DrmFourcc {
        self.2
    }

    fn modifier(&self) -> Option<DrmModifier> {
        let modifier = self.0.modifier();
        modifier
            .is_explicit()
            .then(|| DrmModifier::from(modifier.0))
    }

    fn pitches(&self) -> [u32; 4] {
        self.0.strides()
    }

    fn handles(&self) -> [Option<Handle>; 4] {
        let of_drm = |handle: gem::Handle| NonZeroU32::new(handle.raw()).map(Handle::from);
        self.1.handles().map(|handle| handle.and_then(of_drm))
    }

    fn offsets(&self) -> [u32; 4] {
        self.0.offsets()
    }
}
