//! What sharing costs, each figure beside its baseline from the same run.
//!
//! `cargo xtask bench` runs it in the guest, where a system call takes about 15 microseconds
//! instead of a fraction of one: ratios against a system call look better there than on real
//! hardware. Copies run at native speed.
//!
//! User-Mode Linux runs one thread of a process at a time. What two threads gain shows in QEMU:
//! `PRIMESHARE_GUEST_KIND=qemu cargo xtask bench sharing -- threads`.

mod bare;
mod handles;
mod images;
mod measure;
mod table;

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use primeshare::alloc::Dumb;
use primeshare::blit::Blit;
use primeshare::device::{self, NodeKind};
use primeshare::vk::{self, Instance, Select, Validation};
use primeshare::{Allocator, Device, DmaBuf, Fourcc, Request};

use measure::{interleaved, median};
use table::Table;

/// Copies under way at a time.
const IN_FLIGHT: usize = 4;
/// Copies timed together.
const FRAMES: u32 = 24;
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let (source, destination) = two_devices()?;
    println!("source {source}, destination {destination}");
    more_files()?;
    if std::env::args().any(|argument| argument == "threads") {
        return handles::threads(&source, &destination);
    }
    handles::run(&source, &destination)?;
    let instance = Instance::new(Validation::Off)?;
    let physical = instance
        .select(&Select::Drm(&destination))
        .or_else(|_| instance.select(&Select::Software))?;
    println!(
        "\nVulkan by {}, copies {IN_FLIGHT} in flight",
        physical.name()
    );
    let vulkan = vk::Device::new(&physical)?;
    images::run(&vulkan, &source)?;
    let mut table = Table::new(["copy", "size", "GiB/s", "baseline", "GiB/s", "ratio"]);
    for (width, height) in [(1920, 1080), (3840, 2160)] {
        copies(&mut table, &vulkan, &source, &destination, width, height)?;
    }
    print!("{table}");
    Ok(())
}

/// Raises the limit of open files as far as it goes, for the buffers of the benchmark.
fn more_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// Two devices of different drivers, where there are such.
fn two_devices() -> Result<(Device, Device)> {
    let primary = device::enumerate()?
        .into_iter()
        .filter(|node| node.kind == NodeKind::Primary);
    let devices: Vec<Device> = primary.flat_map(|node| Device::open(node.path)).collect();
    let source = devices.first().context("no DRM device")?;
    // Some drivers import nobody's memory but their own.
    let imports = |d: &&Device| d.capabilities().is_ok_and(|can| can.import == Some(true));
    let mut others = devices.iter().filter(|d| d.driver() != source.driver());
    let other = others.find(imports);
    let destination = other.or(devices.get(1)).unwrap_or(source).reopen()?;
    Ok((source.clone(), destination))
}

/// A prepared copy against the bare Vulkan call and against memcpy.
fn copies(
    table: &mut Table<6>,
    vulkan: &vk::Device,
    source: &Device,
    destination: &Device,
    width: u32,
    height: u32,
) -> Result<()> {
    let request = Request::new(width, height, Fourcc::XRGB8888);
    let from = Dumb::new(source).allocate(&request)?;
    let to = Dumb::new(destination).allocate(&request)?;
    let mut blit = Blit::new(vulkan, &from, &to, IN_FLIGHT)?;
    let mut bare = bare::Copies::new(vulkan, &from, &to, IN_FLIGHT)?;
    let mut memory = bare::Memcpy::new(&from, &to)?;
    let times = interleaved(
        24,
        1,
        &mut [
            &mut || {
                for _ in 0..FRAMES {
                    blit.wait_for_slot(PATIENCE)?;
                    blit.submit()?;
                }
                Ok(blit.wait(PATIENCE)?)
            },
            &mut || bare.run(FRAMES),
            &mut || {
                (0..FRAMES).for_each(|_| memory.copy());
                Ok(())
            },
        ],
    )?;
    let rate = |index: usize| bytes(&from) * f64::from(FRAMES) / median(&times[index]);
    let (ours, vulkan_call, memcpy) = (rate(0), rate(1), rate(2));
    for (baseline, rate) in [
        ("bare vkCmdCopyImage", vulkan_call),
        ("memcpy, 1 thread", memcpy),
    ] {
        table.row([
            "Blit".to_owned(),
            format!("{width}x{height}"),
            gib(ours),
            baseline.to_owned(),
            gib(rate),
            format!("{:.2}", ours / rate),
        ]);
    }
    Ok(())
}

fn bytes(buffer: &DmaBuf) -> f64 {
    f64::from(buffer.planes()[0].stride) * f64::from(buffer.height())
}

fn gib(bytes_per_second: f64) -> String {
    format!("{:.2}", bytes_per_second / f64::from(1 << 30))
}
