//! A screen as Smithay has it, for a test and a benchmark.

use std::fs::File;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use primeshare::device::Device;
use smithay::backend::drm::{DrmDevice, DrmDeviceFd, DrmSurface, PlaneConfig, PlaneState};
use smithay::reexports::drm::control::{Device as _, connector, framebuffer};
use smithay::utils::{DeviceFd, Rectangle, Transform};

/// Another file description of the device.
pub(crate) fn open(device: &Device) -> Result<File> {
    let path = &device.node().path;
    Ok(File::options().read(true).write(true).open(path)?)
}

/// The first screen of a device, in its first mode.
pub(crate) fn surface(device: &Device) -> Result<(DrmDevice, DrmSurface)> {
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

/// This framebuffer on all of the screen.
pub(crate) fn whole(surface: &DrmSurface, fb: framebuffer::Handle) -> PlaneState<'static> {
    let (width, height) = surface.pending_mode().size();
    PlaneState {
        handle: surface.plane(),
        config: Some(PlaneConfig {
            src: Rectangle::from_size((f64::from(width), f64::from(height)).into()),
            dst: Rectangle::from_size((i32::from(width), i32::from(height)).into()),
            transform: Transform::Normal,
            alpha: 1.0,
            damage_clips: None,
            fb,
            fence: None,
        }),
    }
}
