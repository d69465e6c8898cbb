//! What all tests need.

use std::time::Duration;

use primeshare::alloc::Dumb;
use primeshare::device::open_all;
use primeshare::{Allocator, Device, DmaBuf, Fourcc, Request};

/// How long to wait for what has to come: so long that no busy machine is too slow.
#[allow(dead_code, reason = "not every test waits")]
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A file description of its own of the first device with this driver.
pub(crate) fn device(driver: &str) -> Device {
    let (devices, _not_opened) = open_all().unwrap();
    let mut devices = devices.into_iter();
    let device = devices.find(|device| device.driver() == driver);
    device.unwrap_or_else(|| panic!("no {driver}: cargo's runner starts a guest that has it"))
}

/// A dumb buffer of 64 by 64 pixels.
#[allow(dead_code, reason = "not every test needs one of this size")]
pub(crate) fn buffer_on(device: &Device) -> DmaBuf {
    let request = Request::new(64, 64, Fourcc::XRGB8888);
    Dumb::new(device).allocate(&request).unwrap()
}
