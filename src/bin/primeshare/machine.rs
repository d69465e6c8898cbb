//! The devices of this machine, as `matrix` and `check` use them.

use std::fmt;
use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use primeshare::alloc::{self, Dumb};
use primeshare::blit::{self, BlitDevice, Blitter, Options};
use primeshare::gbm::Gbm;
use primeshare::vk::{self, Instance, Select, Validation};
use primeshare::{Allocator, Device, DmaBuf, Request, device};

/// How long anything may take that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A device and the Vulkan device that works for it.
pub(crate) struct Member {
    pub(crate) device: Device,
    /// The driver, with a number if another device has the same.
    pub(crate) label: String,
    pub(crate) vulkan: Option<vk::PhysicalDevice>,
}

/// All devices that can be opened.
pub(crate) struct Machine {
    pub(crate) members: Vec<Member>,
    /// What could not be opened or asked.
    pub(crate) failed: Vec<String>,
}

/// Why a device gave no buffer: it was asked for a dumb buffer first, and then by gbm.
#[derive(Clone, Debug)]
pub(crate) struct NotAllocated {
    pub(crate) dumb: alloc::Error,
    pub(crate) gbm: alloc::Error,
}

impl fmt::Display for NotAllocated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.dumb, self.gbm)
    }
}

impl Machine {
    /// An error if there is no device.
    pub(crate) fn open(no_software: bool) -> Result<Self> {
        let (devices, failed) = device::open_all()?;
        let mut failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
        if devices.is_empty() {
            bail!(
                "there is no DRM device that can be opened (/dev/dri)\n{}",
                failed.join("\n")
            );
        }
        let instance = match Instance::new(Validation::Off) {
            Ok(instance) => Some(instance),
            Err(error) => {
                failed.push(error.to_string());
                None
            }
        };
        let mut members: Vec<Member> = Vec::new();
        for device in devices {
            let same = members
                .iter()
                .filter(|m| m.device.driver() == device.driver());
            let label = match same.count() {
                0 => device.driver().to_owned(),
                index => format!("{}:{index}", device.driver()),
            };
            let vulkan = instance.as_ref().and_then(|instance| {
                let own = instance.select(&Select::Drm(&device)).ok();
                let software = || instance.select(&Select::Software).ok();
                own.or_else(|| (!no_software).then(software).flatten())
            });
            members.push(Member {
                device,
                label,
                vulkan,
            });
        }
        Ok(Self { members, failed })
    }

    /// The devices that a user means: by the node's path, the bus (`pci:0000:03:00.0`), the driver, or the driver with
    /// a number (`vkms:1`). None given: all.
    pub(crate) fn named(&self, name: Option<&str>) -> Result<Vec<&Member>> {
        let is_meant = |member: &&Member| name.is_none_or(|name| member.is_named(name));
        let meant: Vec<&Member> = self.members.iter().filter(is_meant).collect();
        if let (true, Some(name)) = (meant.is_empty(), name) {
            let all: Vec<String> = self.members.iter().map(Member::names).collect();
            bail!("no device is named {name}; there are {}", all.join(", "));
        }
        Ok(meant)
    }
}

impl Member {
    fn is_named(&self, name: &str) -> bool {
        let node = self.device.node();
        let is_bus = || node.bus.as_ref().is_some_and(|bus| bus.to_string() == name);
        let is_driver = self.label == name || self.device.driver() == name;
        is_driver || node.path == Path::new(name) || is_bus()
    }

    fn names(&self) -> String {
        format!("{} ({})", self.label, self.device.node().path.display())
    }

    /// A buffer of the device's own, and the name of its allocator.
    pub(crate) fn allocate(
        &self,
        request: &Request,
    ) -> Result<(&'static str, DmaBuf), NotAllocated> {
        let dumb = Dumb::new(&self.device);
        dumb.allocate(request)
            .map(|buffer| (dumb.name(), buffer))
            .or_else(|dumb| {
                let buffer = Gbm::new(&self.device).and_then(|gbm| gbm.allocate(request));
                let buffer = buffer.map_err(|gbm| NotAllocated { dumb, gbm })?;
                Ok(("gbm", buffer))
            })
    }

    /// Copies from this device's buffers to those of the other one.
    pub(crate) fn blitter_to(
        &self,
        other: &Self,
        options: &Options,
    ) -> Result<Blitter, blit::Error> {
        let [from, to] = [self, other].map(|m| BlitDevice::new(&m.device, m.vulkan.as_ref()));
        Blitter::new(from, to, options)
    }
}

/// Of the form 1920x1080.
pub(crate) fn size(text: &str) -> Result<(u32, u32), String> {
    let parsed = text.split_once('x').and_then(|(width, height)| {
        let number = |text: &str| text.parse().ok().filter(|number| *number > 0);
        Some((number(width)?, number(height)?))
    });
    parsed.ok_or_else(|| "not of the form 1920x1080".to_owned())
}

/// On a terminal only.
pub(crate) fn progress(pairs: usize) -> ProgressBar {
    let target = match stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template("[{pos}/{len}] {msg}");
    ProgressBar::with_draw_target(Some(pairs as u64), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
