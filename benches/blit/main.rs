//! What getting a picture across costs by each strategy, beside memcpy and the bare Vulkan call,
//! and what the blitter makes of it by itself.
//!
//! `cargo xtask bench blit` runs it in the guest. Everything is warm: pages have been touched before.

#[path = "../sharing/bare.rs"]
mod bare;
#[path = "../sharing/measure.rs"]
mod measure;
#[path = "../sharing/table.rs"]
mod table;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use primeshare::alloc::Dumb;
use primeshare::blit::{Blitter, Fence, Options, Rect, Side, Strategy};
use primeshare::device::{self, NodeKind};
use primeshare::vk::{self, Instance, Select, Validation};
use primeshare::{Allocator, Device, DmaBuf, Fourcc, Request};

use measure::{interleaved, median};
use table::Table;

/// Counts what this process's Rust code allocates. (Drivers are C and count for nothing.)
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's allocator, with a count.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const IN_FLIGHT: usize = 4;
/// Frames timed together.
const FRAMES: u32 = 24;
const ROUNDS: usize = 9;
const PATIENCE: Duration = Duration::from_secs(120);

/// A pair of buffers and whoever copies between them.
struct Traffic<'a> {
    blitter: Blitter,
    from: &'a DmaBuf,
    to: &'a DmaBuf,
    damage: Vec<Rect>,
    fences: VecDeque<Fence>,
}

impl<'a> Traffic<'a> {
    fn new(
        sides: &[Side; 2],
        strategies: Vec<Strategy>,
        from: &'a DmaBuf,
        to: &'a DmaBuf,
        damage: Vec<Rect>,
    ) -> Result<Self> {
        let options = Options {
            in_flight: IN_FLIGHT,
            strategies,
            ..Options::default()
        };
        let mut traffic = Self {
            blitter: Blitter::new(sides[0].clone(), sides[1].clone(), &options)?,
            from,
            to,
            damage,
            fences: VecDeque::with_capacity(IN_FLIGHT),
        };
        for _ in 0..200 {
            traffic.run(1)?;
            let verdict = traffic.blitter.verdict(from, to, &traffic.damage);
            if verdict.is_some_and(|verdict| verdict.settled) {
                // Once more, with as many in flight as will be.
                traffic.run(2 * IN_FLIGHT as u32)?;
                return Ok(traffic);
            }
        }
        bail!("it is never settled how to copy from {from:?} to {to:?}")
    }

    fn run(&mut self, frames: u32) -> Result<()> {
        for _ in 0..frames {
            if self.fences.len() == IN_FLIGHT {
                self.oldest()?;
            }
            let fence = self.blitter.blit(self.from, self.to, &self.damage, &[])?;
            self.fences.push_back(fence);
        }
        while !self.fences.is_empty() {
            self.oldest()?;
        }
        Ok(())
    }

    fn oldest(&mut self) -> Result<()> {
        let oldest = self.fences.pop_front().context("none in flight")?;
        Ok(oldest.wait(PATIENCE)?)
    }
}

fn main() -> Result<()> {
    let (source, destination) = two_devices()?;
    let instance = Instance::new(Validation::Off)?;
    let gpu = |device: &Device| -> Result<vk::Device> {
        let physical = instance
            .select(&Select::Drm(device))
            .or_else(|_| instance.select(&Select::Software))?;
        Ok(vk::Device::new(&physical)?)
    };
    let gpus = [gpu(&source)?, gpu(&destination)?];
    let sides = [
        Side::new(&source, Some(&gpus[0])),
        Side::new(&destination, Some(&gpus[1])),
    ];
    println!("{source} to {destination}, {IN_FLIGHT} in flight, XR24, LINEAR");
    let mut table = Table::new(["size", "by", "GiB/s", "of memcpy", "of bare vkCmdCopyImage"]);
    let mut extra = Vec::new();
    for (width, height) in [(1280, 720), (1920, 1080), (3840, 2160)] {
        let request = Request::new(width, height, Fourcc::XRGB8888);
        let from = Dumb::new(&source).allocate(&request)?;
        let to = Dumb::new(&destination).allocate(&request)?;
        full(&mut table, &sides, &gpus[1], &from, &to)?;
        extra.push(damage(&sides, &from, &to)?);
    }
    print!("{table}");
    extra.iter().for_each(|line| println!("{line}"));
    println!("{}", allocations(&sides, &source, &destination)?);
    println!("{}", overhead(&sides, &source, &destination)?);
    Ok(())
}

/// Whole frames, by each strategy and by the blitter's own choice: each in turns with memcpy and
/// the bare call, and with nothing else in memory, of which User-Mode Linux maps little at a time.
fn full(
    table: &mut Table<5>,
    sides: &[Side; 2],
    gpu: &vk::Device,
    from: &DmaBuf,
    to: &DmaBuf,
) -> Result<()> {
    let own = ("own choice", Strategy::ALL.to_vec());
    let forced = Strategy::ALL.map(|strategy| (strategy.name(), vec![strategy]));
    let mut baselines = [Vec::new(), Vec::new()];
    let mut rows = Vec::new();
    for (name, strategies) in forced.into_iter().chain([own]) {
        // Anew for each, and so at other addresses, which decide over a tenth of the speed where
        // the processor is emulated.
        let mut bare = bare::Copies::new(gpu, from, to, IN_FLIGHT)?;
        let mut memory = bare::Memcpy::new(from, to)?;
        let mut traffic = Traffic::new(sides, strategies.clone(), from, to, vec![])?;
        let verdict = traffic.blitter.verdict(from, to, &[]);
        let chosen = verdict.and_then(|verdict| verdict.chosen);
        let mut copy = || {
            (0..FRAMES).for_each(|_| memory.copy());
            Ok(())
        };
        let works: &mut [&mut dyn FnMut() -> Result<()>] =
            &mut [&mut copy, &mut || bare.run(FRAMES), &mut || {
                traffic.run(FRAMES)
            }];
        let times = interleaved(ROUNDS, 1, works)?;
        let name = match strategies.len() {
            1 => name.to_owned(),
            _ => format!("{name}: {}", chosen.map_or("nothing", Strategy::name)),
        };
        let [memcpy, call, own] = [0, 1, 2].map(|index| median(&times[index]));
        rows.push((name, own, [memcpy / own, call / own]));
        for (all, some) in baselines.iter_mut().zip(times) {
            all.extend(some);
        }
    }
    let [memcpy, call] = baselines.map(|times| median(&times));
    let bare = "bare vkCmdCopyImage".to_owned();
    rows.insert(0, (bare, call, [memcpy / call, 1.0]));
    let one = "memcpy, one thread".to_owned();
    rows.insert(0, (one, memcpy, [1.0, call / memcpy]));
    let size = format!("{}x{}", from.width(), from.height());
    for (name, time, ratios) in rows {
        let rate = bytes(from) * f64::from(FRAMES) / time / f64::from(1 << 30);
        let [of_memcpy, of_call] = ratios.map(|ratio| format!("{ratio:.2}"));
        table.row([size.clone(), name, format!("{rate:.2}"), of_memcpy, of_call]);
    }
    Ok(())
}

/// Parts of a frame, against all of it.
fn damage(sides: &[Side; 2], from: &DmaBuf, to: &DmaBuf) -> Result<String> {
    let part = |share: f64| {
        let side = share.sqrt();
        Rect {
            x: from.width() / 8,
            y: from.height() / 8,
            width: (f64::from(from.width()) * side) as u32,
            height: (f64::from(from.height()) * side) as u32,
        }
    };
    let mut traffics = Vec::new();
    for damage in [vec![], vec![part(0.1)], vec![part(0.01)]] {
        traffics.push(Traffic::new(
            sides,
            Strategy::ALL.to_vec(),
            from,
            to,
            damage,
        )?);
    }
    let mut works: Vec<Box<dyn FnMut() -> Result<()>>> = Vec::new();
    for traffic in &mut traffics {
        works.push(Box::new(|| traffic.run(FRAMES)));
    }
    let mut works: Vec<&mut dyn FnMut() -> Result<()>> =
        works.iter_mut().map(|work| work.as_mut() as _).collect();
    let times = interleaved(ROUNDS, 1, &mut works)?;
    let [all, tenth, hundredth] = [0, 1, 2].map(|i| median(&times[i]) / f64::from(FRAMES) * 1e6);
    Ok(format!(
        "{}x{}: all of it {all:.0} us, 10 % {tenth:.0} us ({:.3} of it), 1 % {hundredth:.0} us \
         ({:.3} of it)",
        from.width(),
        from.height(),
        tenth / all,
        hundredth / all
    ))
}

/// Allocations of a warm frame.
fn allocations(sides: &[Side; 2], source: &Device, destination: &Device) -> Result<String> {
    let request = Request::new(256, 256, Fourcc::XRGB8888);
    let from = Dumb::new(source).allocate(&request)?;
    let to = Dumb::new(destination).allocate(&request)?;
    let mut lines = Vec::new();
    for strategy in Strategy::ALL {
        let mut traffic = Traffic::new(sides, vec![strategy], &from, &to, vec![])?;
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        traffic.run(100)?;
        let each = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / 100.0;
        lines.push(format!("{strategy} {each}"));
    }
    Ok(format!("allocations per warm frame: {}", lines.join(", ")))
}

/// What is around the copy: a frame of one pixel.
fn overhead(sides: &[Side; 2], source: &Device, destination: &Device) -> Result<String> {
    let request = Request::new(1, 1, Fourcc::XRGB8888);
    let from = Dumb::new(source).allocate(&request)?;
    let to = Dumb::new(destination).allocate(&request)?;
    let mut traffic = Traffic::new(sides, vec![Strategy::Cpu], &from, &to, vec![])?;
    let times = interleaved(ROUNDS, 1, &mut [&mut || traffic.run(10 * FRAMES)])?;
    let each = median(&times[0]) / f64::from(10 * FRAMES);
    ensure!(each > 0.0, "no time has passed");
    Ok(format!("a frame of one pixel by cpu: {:.1} us", each * 1e6))
}

/// Two devices of different drivers, where there are such.
fn two_devices() -> Result<(Device, Device)> {
    let primary = device::enumerate()?
        .into_iter()
        .filter(|node| node.kind == NodeKind::Primary);
    let devices: Vec<Device> = primary.flat_map(|node| Device::open(node.path)).collect();
    let source = devices.first().context("no DRM device")?;
    let other = devices.iter().find(|d| d.driver() != source.driver());
    let destination = other.or(devices.get(1)).unwrap_or(source).reopen()?;
    Ok((source.clone(), destination))
}

fn bytes(buffer: &DmaBuf) -> f64 {
    f64::from(buffer.planes()[0].stride) * f64::from(buffer.height())
}
