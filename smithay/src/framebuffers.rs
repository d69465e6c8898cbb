//! Framebuffers of the library's for Smithay's screens.
//!
//! Smithay's `DrmCompositor` takes an exporter of framebuffers. [`SmithayFramebuffers`] is one that imports on a file
//! description of its own, so that it meets neither gbm's handles nor Smithay's on the file description of the DRM
//! master. A framebuffer is made once for each buffer, and is shown by the master's commits all the same.

use std::os::fd::AsFd;
use std::sync::Arc;

use ::smithay::backend::allocator::Fourcc as Code;
use ::smithay::backend::allocator::dmabuf::Dmabuf;
use ::smithay::backend::allocator::{Format, Modifier};
use ::smithay::backend::drm::exporter::{ExportBuffer, ExportFramebuffer};
use ::smithay::backend::drm::{DrmDeviceFd, Framebuffer};
use ::smithay::reexports::drm::control::{framebuffer, from_u32};
use primeshare::buffer::FormatInfo;
use primeshare::kms::{self, Error, FramebufferOptions};
use primeshare::{Device, DmaBuf, Fourcc};

use crate::from_smithay;

/// Framebuffers of one device, for Smithay.
#[derive(Clone, Debug)]
pub struct SmithayFramebuffers(kms::Framebuffers);

impl SmithayFramebuffers {
    /// Of the device of this file, which need not be the DRM master's.
    pub fn new(file: impl AsFd) -> Result<Self, Error> {
        let device = Device::private_copy_of(file)?;
        Ok(Self(kms::Framebuffers::new(&device)?))
    }
}

/// One of them, kept until Smithay drops it.
#[derive(Debug)]
pub struct SmithayFramebuffer {
    _kept: Arc<kms::Framebuffer>,
    /// The library finds the framebuffer again while the buffer is alive.
    _buffer: DmaBuf,
    handle: framebuffer::Handle,
    format: Format,
}

impl AsRef<framebuffer::Handle> for SmithayFramebuffer {
    fn as_ref(&self) -> &framebuffer::Handle {
        &self.handle
    }
}

impl Framebuffer for SmithayFramebuffer {
    fn format(&self) -> Format {
        self.format
    }
}

impl ExportFramebuffer<Dmabuf> for SmithayFramebuffers {
    type Framebuffer = SmithayFramebuffer;
    type Error = Error;

    fn add_framebuffer(
        &self,
        _: &DrmDeviceFd,
        buffer: ExportBuffer<'_, Dmabuf>,
        use_opaque: bool,
    ) -> Result<Option<SmithayFramebuffer>, Error> {
        let dmabuf = match buffer {
            ExportBuffer::Allocator(dmabuf) => dmabuf,
            #[allow(
                unreachable_patterns,
                reason = "Smithay has more with its Wayland features"
            )]
            _ => return Ok(None),
        };
        let buffer = from_smithay(dmabuf)?;
        let opaque = FormatInfo::of(buffer.fourcc()).and_then(|info| info.opaque_twin());
        let options = match opaque.filter(|_| use_opaque) {
            Some(format) => FramebufferOptions::default().format(format),
            None => FramebufferOptions::default(),
        };
        let kept = self.0.get(&buffer, options);
        let kept = kept.map_err(Arc::unwrap_or_clone)?;
        let Fourcc(code) = kept.format();
        let (Some(handle), Ok(code)) = (from_u32(kept.id()), Code::try_from(code)) else {
            return Ok(None);
        };
        let modifier = Modifier::from(buffer.modifier().0);
        Ok(Some(SmithayFramebuffer {
            _kept: kept,
            _buffer: buffer,
            handle,
            format: Format { code, modifier },
        }))
    }

    fn can_add_framebuffer(&self, buffer: &ExportBuffer<'_, Dmabuf>) -> bool {
        matches!(buffer, ExportBuffer::Allocator(_))
    }
}
