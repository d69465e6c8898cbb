//! `primeshare check`: what breaks, and where, between each two devices, from the allocation to the screen.
//!
//! The JSON report is an interface for scripts: add fields, and rename none.

mod chain;
mod pixels;
mod screen;
mod show;
mod step;

use anyhow::Result;
use clap::Args;
use primeshare::{Fourcc, Request};
use serde::Serialize;

use crate::machine::{self, Machine, Member};
use crate::print;
use chain::Pair;

/// Which devices, and what the pictures are.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The device whose buffers are shared: its node (/dev/dri/card0), bus (pci:0000:03:00.0) or driver. All if it is
    /// left out.
    from: Option<String>,
    /// The device that gets them. All if it is left out.
    to: Option<String>,
    /// Width and height in pixels. The default is the size of the destination's screen, or 1920x1080 without one.
    #[arg(long, value_parser = machine::size)]
    size: Option<(u32, u32)>,
    /// Pixel format, by its name (XRGB8888) or its four characters (XR24).
    #[arg(long, default_value = "XR24")]
    format: Fourcc,
    /// Leave out Vulkan devices that compute on the CPU.
    #[arg(long)]
    no_software: bool,
    /// Print plain text with all numbers and versions, to be put into a report of an error.
    #[arg(long, conflicts_with = "json")]
    report: bool,
}

#[derive(Serialize)]
struct Report {
    /// Of this program.
    version: &'static str,
    /// The kernel's release.
    kernel: String,
    devices: Vec<DeviceReport>,
    pairs: Vec<Pair>,
    /// Whether every pair has a complete way to a picture.
    complete: bool,
    /// What could not be opened or asked.
    failed: Vec<String>,
}

#[derive(Serialize)]
struct DeviceReport {
    label: String,
    node: String,
    driver: String,
    bus: Option<String>,
    /// The Vulkan device that works for it, with its driver and version.
    vulkan: Option<String>,
}

/// Whether every pair has a complete way to a picture.
pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<bool> {
    let machine = Machine::open(arguments.no_software)?;
    let sources = machine.named(arguments.from.as_deref())?;
    let destinations = machine.named(arguments.to.as_deref())?;
    let progress = machine::progress(sources.len() * destinations.len());
    let mut pairs = Vec::new();
    for source in &sources {
        for destination in &destinations {
            progress.set_message(format!("{} to {}", source.device, destination.device));
            let size = arguments.size;
            let size = size.or_else(|| screen::preferred_size(&destination.device));
            let (width, height) = size.unwrap_or((1920, 1080));
            let request = Request::new(width, height, arguments.format);
            pairs.push(chain::check(source, destination, &request));
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    let complete = pairs.iter().all(|pair| pair.way.is_some());
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: kernel.map_or_else(|error| error.to_string(), |text| text.trim().to_owned()),
        devices: machine.members.iter().map(DeviceReport::of).collect(),
        pairs,
        complete,
        failed: machine.failed,
    };
    match (json, arguments.report) {
        (true, _) => print::json(&report)?,
        (false, true) => print::text(&show::text(&report))?,
        (false, false) => show::table(&report)?,
    }
    Ok(complete)
}

impl DeviceReport {
    fn of(member: &Member) -> Self {
        let node = member.device.node();
        let vulkan = member.vulkan.as_ref().map(|vulkan| {
            let driver = vulkan.driver_info().unwrap_or("driver not known");
            let kind = match vulkan.is_software() {
                true => ", software",
                false => "",
            };
            format!("{} ({driver}{kind})", vulkan.name())
        });
        Self {
            label: member.label.clone(),
            node: node.path.display().to_string(),
            driver: member.device.driver().to_owned(),
            bus: node.bus.as_ref().map(ToString::to_string),
            vulkan,
        }
    }
}
