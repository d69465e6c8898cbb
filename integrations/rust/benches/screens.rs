//! The frames of the library's benchmark of screens, shown by Smithay: what a warm one costs.
//!
//! `GbmFramebufferExporter` imports a buffer of another device into gbm, makes a framebuffer and drops the import.
//! Smithay's `DrmCompositor` calls it once for each buffer of its own swapchain, and keeps the framebuffer with it.

#[path = "../../../benches/screens/measure.rs"]
mod measure;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use measure::{Way, report};
use primeshare::alloc::{Allocator, Dumb};
use primeshare::device::{self, Device, NodeKind};
use primeshare::{Fourcc, Request};
use primeshare_integrations::smithay::to_smithay;
use smithay::backend::allocator::gbm::{GbmBuffer, GbmBufferFlags, GbmDevice};
use smithay::backend::drm::exporter::gbm::GbmFramebufferExporter;
use smithay::backend::drm::exporter::{ExportBuffer, ExportFramebuffer};
use smithay::backend::drm::gbm::GbmFramebuffer;
use smithay::backend::drm::{DrmDevice, DrmDeviceFd, DrmSurface, PlaneConfig, PlaneState};
use smithay::reexports::drm::control::{self, Device as _, connector};
use smithay::utils::{DeviceFd, Rectangle, Transform};

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
            made.surface.commit([made.state(&first)], true)?;
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

    fn state(&self, framebuffer: &GbmFramebuffer) -> PlaneState<'static> {
        let (width, height) = self.surface.pending_mode().size();
        PlaneState {
            handle: self.surface.plane(),
            config: Some(PlaneConfig {
                src: Rectangle::from_size((f64::from(width), f64::from(height)).into()),
                dst: Rectangle::from_size((i32::from(width), i32::from(height)).into()),
                transform: Transform::Normal,
                alpha: 1.0,
                damage_clips: None,
                fb: *framebuffer.as_ref(),
                fence: None,
            }),
        }
    }
}

fn open(device: &Device) -> Result<File> {
    let path = &device.node().path;
    Ok(File::options().read(true).write(true).open(path)?)
}

/// The first screen of a device, in its first mode.
fn surface(device: &Device) -> Result<(DrmDevice, DrmSurface)> {
    let file = OwnedFd::from(open(device)?);
    let (mut device, _) = DrmDevice::new(DrmDeviceFd::new(DeviceFd::from(file)), false)?;
    let resources = device.resource_handles()?;
    for &handle in resources.connectors() {
        let info = device.get_connector(handle, true)?;
        if info.state() == connector::State::Connected {
            let mode = *info.modes().first().context("no mode")?;
            let crtc = *resources.crtcs().first().context("no CRTC")?;
            let surface = device.create_surface(crtc, mode, &[handle])?;
            return Ok((device, surface));
        }
    }
    bail!("nothing is connected")
}

impl Way for Smithay {
    fn show(&mut self, frame: usize) -> Result<()> {
        let made = match &self.kept {
            Some(_) => None,
            None => Some(self.framebuffer(frame)?),
        };
        let kept = self.kept.as_ref().map(|kept| &kept[frame]);
        let framebuffer = made.as_ref().or(kept).context("no framebuffer")?;
        self.surface.page_flip([self.state(framebuffer)], true)?;
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
