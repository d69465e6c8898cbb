//! ext-image-copy-capture-v1: what a capture client's buffers have to be.

use crate::negotiate::FormatSet;
use crate::{DmaBuf, Fourcc};

use super::ShmBuffer;

/// What a session tells its client (`ext_image_copy_capture_session_v1`: `buffer_size`, `shm_format`, `dmabuf_device`,
/// `dmabuf_format`, then `done`). To be sent again, all of it, if any of it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CaptureConstraints {
    /// `buffer_size`: width in pixels.
    pub width: u32,
    /// `buffer_size`: height in pixels.
    pub height: u32,
    /// `shm_format`: what a copy into a `wl_shm` buffer can have.
    pub shm: Vec<Fourcc>,
    /// `dmabuf_device`: the device (`dev_t`) that the client is to allocate on.
    pub device: Option<u64>,
    /// `dmabuf_format`: an event for each format, with all its modifiers.
    pub formats: FormatSet,
}

/// Why a frame is not captured (`ext_image_copy_capture_frame_v1.failure_reason`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureRefusal {
    /// The buffer has another size.
    #[error("the buffer has {found:?} pixels, and the picture has {wanted:?}")]
    Size {
        /// Width and height of the client's buffer.
        found: (u32, u32),
        /// Those of the picture.
        wanted: (u32, u32),
    },
    /// The format was not offered for this kind of buffer.
    #[error("{0} was not offered")]
    Format(Fourcc),
}

impl CaptureRefusal {
    /// `buffer_constraints`: the client is to look at the session's constraints again.
    pub const BUFFER_CONSTRAINTS: u32 = 1;
}

impl CaptureConstraints {
    /// Constraints for pictures of this size, without formats.
    pub fn new(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            shm: Vec::new(),
            device: None,
            formats: FormatSet::default(),
        }
    }

    /// With these formats for `wl_shm`.
    #[must_use]
    pub fn shm(mut self, formats: impl IntoIterator<Item = Fourcc>) -> Self {
        self.shm = formats.into_iter().collect();
        self
    }

    /// With these formats and modifiers for dma-bufs of this device (`dev_t`).
    #[must_use]
    pub fn dma_bufs(mut self, device: u64, formats: FormatSet) -> Self {
        self.device = Some(device);
        self.formats = formats;
        self
    }

    fn check(&self, size: (u32, u32)) -> Result<(), CaptureRefusal> {
        let wanted = (self.width, self.height);
        match size == wanted {
            true => Ok(()),
            false => Err(CaptureRefusal::Size {
                found: size,
                wanted,
            }),
        }
    }

    /// Whether a client's dma-buf is as the session asked.
    pub fn check_dma_buf(&self, buffer: &DmaBuf) -> Result<(), CaptureRefusal> {
        self.check((buffer.width(), buffer.height()))?;
        match self.formats.contains(buffer.fourcc(), buffer.modifier()) {
            true => Ok(()),
            false => Err(CaptureRefusal::Format(buffer.fourcc())),
        }
    }

    /// Whether a client's `wl_shm` buffer is as the session asked.
    pub fn check_shm(&self, buffer: &ShmBuffer) -> Result<(), CaptureRefusal> {
        let desc = buffer.desc();
        self.check((desc.width, desc.height))?;
        match self.shm.contains(&desc.fourcc) {
            true => Ok(()),
            false => Err(CaptureRefusal::Format(desc.fourcc)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wayland::{ShmFormat, ShmPool};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    #[test]
    fn a_buffer_of_another_size_or_format_is_refused() {
        let memory = memfd_create("client", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, 65536).unwrap();
        let pool = ShmPool::new(memory, 65536).unwrap();
        let of = |size, format| {
            pool.buffer(0, size, 256, ShmFormat(format), |_| true)
                .unwrap()
        };
        let session = CaptureConstraints::new(64, 32).shm([Fourcc::XRGB8888]);
        session.check_shm(&of((64, 32), 1)).unwrap();
        assert!(session.check_shm(&of((64, 33), 1)).is_err());
        let other = session.check_shm(&of((64, 32), 0));
        assert_eq!(other, Err(CaptureRefusal::Format(Fourcc::ARGB8888)));
    }
}
