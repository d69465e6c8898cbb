//! The frames of the library's benchmark of screens, shown by Smithay: what a warm one costs.
//!
//! `GbmFramebufferExporter` imports a buffer of another device into gbm, makes a framebuffer and drops the import.
//! Smithay's `DrmCompositor` calls it once for each buffer of its own swapchain, and keeps the framebuffer with it.

#[path = "../../../benches/screens/measure.rs"]
mod measure;
#[path = "../tests/common/smithay_screen.rs"]
mod smithay_screen;

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result, bail};
use measure::{Way, report};
use primeshare::alloc::{Allocator, Dumb};
use primeshare::device::{self, Device, NodeKind};
use primeshare::{Fourcc, Request};
use primeshare_smithay::to_smithay;
use smithay::backend::allocator::gbm::{GbmBuffer, GbmBufferFlags, GbmDevice};
use smithay::backend::drm::exporter::gbm::GbmFramebufferExporter;
use smithay::backend::drm::exporter::{ExportBuffer, ExportFramebuffer};
use smithay::backend::drm::gbm::GbmFramebuffer;
use smithay::backend::drm::{DrmDevice, DrmDeviceFd, DrmSurface};
use smithay::reexports::drm::control::{self, Device as _};
use smithay_screen::{open, surface, whole};

/// A screen of Smithay's, and three frames of another device.
struct Smithay {
    device: DrmDevice,
    surface: DrmSurface,
    exporter: GbmFramebufferExporter<DrmDeviceFd>,
    frames: Vec<GbmBuffer>,
    /// Of each frame, if framebuffers are kept.
    kept: Option<Vec<GbmFramebuffer>>,
    /// What is on the screen, and what was before it.
    shown: [Option<GbmFramebuffer>; 2],
}

impl Smithay {
    fn new(keeps: bool) -> Result<Self> {
        let (devices, _) = device::open_all()?;
        let primary = |device: &&Device| device.node().kind == NodeKind::Primary;
        for screen in devices.iter().filter(primary) {
            let Ok((device, surface)) = surface(screen) else {
                continue;
            };
            let exporter =
                GbmFramebufferExporter::new(GbmDevice::new(device.device_fd().clone())?, None);
            let mut others = devices
                .iter()
                .filter(|device| !device.is_same_device(screen));
            let source = others.find(primary).context("there is one device only")?;
            let gbm = GbmDevice::new(open(source)?)?;
            let (width, height) = surface.pending_mode().size();
            let request = Request::new(width.into(), height.into(), Fourcc::XRGB8888);
            let frame = || -> Result<_> {
                let buffer = to_smithay(&Dumb::new(source).allocate(&request)?)?;
                Ok(buffer.import_to(&gbm, GbmBufferFlags::empty())?)
            };
            let frames = (0..3).map(|_| frame()).collect::<Result<Vec<_>>>()?;
            let mut made = Self {
                device,
                surface,
                exporter,
                frames,
                kept: None,
                shown: [None, None],
            };
            let first = made.framebuffer(0)?;
            made.surface
                .commit([whole(&made.surface, *first.as_ref())], true)?;
            while !made.shown()? {}
            made.shown[0] = Some(first);
            if keeps {
                let all = (0..3).map(|frame| made.framebuffer(frame));
                made.kept = Some(all.collect::<Result<_>>()?);
            }
            return Ok(made);
        }
        bail!("no device has a screen")
    }

    fn framebuffer(&self, frame: usize) -> Result<GbmFramebuffer> {
        let buffer = ExportBuffer::Allocator(&self.frames[frame]);
        let drm = self.device.device_fd();
        let made = self.exporter.add_framebuffer(drm, buffer, true)?;
        made.context("no framebuffer")
    }
}

impl Way for Smithay {
    fn show(&mut self, frame: usize) -> Result<()> {
        let made = match &self.kept {
            Some(_) => None,
            None => Some(self.framebuffer(frame)?),
        };
        let kept = self.kept.as_ref().map(|kept| &kept[frame]);
        let framebuffer = made.as_ref().or(kept).context("no framebuffer")?;
        let state = whole(&self.surface, *framebuffer.as_ref());
        self.surface.page_flip([state], true)?;
        if made.is_some() {
            self.shown = [made, self.shown[0].take()];
        }
        Ok(())
    }

    fn shown(&mut self) -> Result<bool> {
        let events = self.device.receive_events()?;
        let flips = events.filter(|event| matches!(event, control::Event::PageFlip(_)));
        Ok(flips.count() > 0)
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.device.as_fd()]
    }
}

fn main() -> Result<()> {
    report(
        "Smithay, framebuffers of GbmFramebufferExporter kept, as DrmCompositor does",
        || Ok(Box::new(Smithay::new(true)?)),
    )?;
    report(
        "Smithay, GbmFramebufferExporter asked for each frame",
        || Ok(Box::new(Smithay::new(false)?)),
    )
}
