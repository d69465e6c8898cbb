//! Finding the two devices.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use primeshare::Device;
use primeshare::device::{self, Node};
use primeshare::vk::{Instance, Validation};

const NO_DEVICES: &str = "there is no DRM device that can be opened (/dev/dri).
  - with a GPU: is its driver loaded, and are you in the groups video and render?
  - without: `sudo modprobe -a vgem vkms` makes two in software,
  - or let the guest bring its own: PRIMESHARE_RUN=guest cargo run --example cross_gpu_blit";

/// The devices asked for; those not asked for are chosen to differ most.
pub(crate) fn pair(source: Option<&str>, destination: Option<&str>) -> Result<(Device, Device)> {
    let devices = open_all()?;
    let named = |name: Option<&str>| name.map(|name| find(&devices, name)).transpose();
    let (source, destination) = (named(source)?, named(destination)?);
    let candidates = devices.iter().enumerate().flat_map(|(i, a)| {
        let others = devices.iter().enumerate();
        others.map(move |(j, b)| ((i, j), (a, b)))
    });
    let (_, (source, destination)) = candidates
        .filter(|((i, j), _)| source.is_none_or(|s| s == *i) && destination.is_none_or(|d| d == *j))
        // The first of the best, so that a choice is the same every time.
        .max_by_key(|((i, j), (a, b))| (difference(a, b), std::cmp::Reverse((*i, *j))))
        .context(NO_DEVICES)?;
    // Its own file description for either end, also where both are one device.
    Ok((source.clone(), destination.reopen()?))
}

/// How much two devices differ: other drivers, other devices of one driver, or the same.
fn difference(a: &Device, b: &Device) -> u32 {
    let other_driver = a.driver() != b.driver();
    let other_device = a.node().bus != b.node().bus || a.node().id != b.node().id;
    u32::from(other_driver) * 2 + u32::from(other_device)
}

/// Every device of the machine.
fn open_all() -> Result<Vec<Device>> {
    let (devices, failed) = device::open_all()?;
    failed.iter().for_each(|error| log::info!("{error}"));
    if devices.is_empty() {
        bail!(NO_DEVICES);
    }
    Ok(devices)
}

/// The index of the device that `name` means.
fn find(devices: &[Device], name: &str) -> Result<usize> {
    let position = match name.starts_with('/') {
        true => by_path(devices, Path::new(name)),
        false => {
            let (driver, number) = name.split_once(':').unwrap_or((name, "0"));
            let number = number
                .parse()
                .with_context(|| format!("{name:?}: no number after the colon"))?;
            let same = devices
                .iter()
                .enumerate()
                .filter(|d| d.1.driver() == driver);
            same.map(|(index, _)| index).nth(number)
        }
    };
    position.with_context(|| {
        let names: Vec<_> = devices.iter().map(Device::to_string).collect();
        format!("no device {name:?}; there are: {}", names.join(", "))
    })
}

/// Any node of a device, or link to one, means the device.
fn by_path(devices: &[Device], path: &Path) -> Option<usize> {
    let wanted = Device::open(path).ok()?;
    devices
        .iter()
        .position(|device| device.is_same_device(&wanted))
}

/// What this machine has, for people.
pub(crate) fn list() -> Result<String> {
    let mut text = String::from("DRM devices:\n");
    for node in device::enumerate()? {
        let Node { path, bus, .. } = &node;
        let bus = bus.as_ref().map(ToString::to_string).unwrap_or_default();
        let opened = Device::open(path).and_then(|d| Ok((d.capabilities()?, d)));
        match opened {
            Ok((can, device)) => {
                let yes = |can| if can { "yes" } else { "no" };
                let maybe = |can: Option<bool>| can.map_or("untried", yes);
                writeln!(
                    text,
                    "  {:<20} {:<12} {:<28} dumb: {}, export: {}, import: {}",
                    path.display(),
                    device.driver(),
                    bus,
                    yes(can.dumb),
                    maybe(can.export),
                    maybe(can.import),
                )?;
            }
            Err(error) => writeln!(text, "  {:<20} {error}", path.display())?,
        }
    }
    writeln!(text, "Vulkan devices:")?;
    let devices = Instance::new(Validation::Off).and_then(|i| i.physical_devices());
    for device in devices
        .inspect_err(|e| log::info!("{e}"))
        .unwrap_or_default()
    {
        let missing = device.missing_extensions();
        let able = match missing.is_empty() {
            true => "shares dma-bufs".to_owned(),
            false => format!("lacks {}", missing.join(", ")),
        };
        writeln!(text, "  {}: {able}", device.name())?;
    }
    Ok(text)
}
