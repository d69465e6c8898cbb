//! What getting a picture across costs by each strategy, beside memcpy and the bare Vulkan call,
//! and what the blitter makes of it by itself.
//!
//! `cargo xtask bench blit` runs it in the guest. Everything is warm: pages have been touched before.
//!
//! Where source and destination lie in memory decides over a tenth of a copy's speed where the
//! processor is emulated, as it may be in the QEMU guest. `-- --places=9` there makes everything
//! anew nine times, at other addresses. (In User-Mode Linux it runs into the host's limit of
//! mappings.)

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
const PATIENCE: Duration = Duration::from_secs(30);

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

/// Whole frames, by each strategy and by the blitter's own choice.
fn full(
    table: &mut Table<5>,
    sides: &[Side; 2],
    gpu: &vk::Device,
    from: &DmaBuf,
    to: &DmaBuf,
) -> Result<()> {
    let mut names = ["memcpy, one thread", "bare vkCmdCopyImage"]
        .map(str::to_owned)
        .to_vec();
    names.extend(Strategy::ALL.map(|strategy| strategy.to_string()));
    let mut choices: Vec<&str> = Vec::new();
    let mut times = vec![Vec::new(); names.len() + 1];
    let places = places()?;
    for place in 0..places {
        // Large enough for pages of its own, so that what comes next lies elsewhere.
        let _elsewhere = vec![0_u8; (1 << 20) + place * 37 * 4096];
        let mut bare = bare::Copies::new(gpu, from, to, IN_FLIGHT)?;
        let mut memory = bare::Memcpy::new(from, to)?;
        let by =
            |strategies: &[Strategy]| Traffic::new(sides, strategies.to_vec(), from, to, vec![]);
        let forced = Strategy::ALL.map(|strategy| by(&[strategy]));
        let mut traffics = forced.into_iter().collect::<Result<Vec<_>>>()?;
        let own = by(&Strategy::ALL)?;
        let chosen = own.blitter.verdict(from, to, &[]).and_then(|v| v.chosen);
        choices.extend(chosen.map(Strategy::name));
        traffics.push(own);
        let mut works: Vec<Box<dyn FnMut() -> Result<()>>> = vec![
            Box::new(|| {
                (0..FRAMES).for_each(|_| memory.copy());
                Ok(())
            }),
            Box::new(|| bare.run(FRAMES)),
        ];
        for traffic in &mut traffics {
            works.push(Box::new(|| traffic.run(FRAMES)));
        }
        let mut works: Vec<&mut dyn FnMut() -> Result<()>> =
            works.iter_mut().map(|work| work.as_mut() as _).collect();
        let measured = interleaved(ROUNDS.div_ceil(places), 1, &mut works)?;
        for (all, some) in times.iter_mut().zip(measured) {
            all.extend(some);
        }
    }
    choices.dedup();
    names.push(format!("own choice: {}", choices.join(", ")));
    let rate = |index: usize| bytes(from) * f64::from(FRAMES) / median(&times[index]);
    let (memcpy, call) = (rate(0), rate(1));
    let size = format!("{}x{}", from.width(), from.height());
    for (index, name) in names.into_iter().enumerate() {
        table.row([
            size.clone(),
            name,
            format!("{:.2}", rate(index) / f64::from(1 << 30)),
            format!("{:.2}", rate(index) / memcpy),
            format!("{:.2}", rate(index) / call),
        ]);
    }
    Ok(())
}

/// How often to begin anew.
fn places() -> Result<usize> {
    let given = std::env::args().find_map(|a| Some(a.strip_prefix("--places=")?.to_owned()));
    let places = given.map_or(Ok(1), |given| given.parse())?;
    ensure!(places > 0, "--places=0 would measure nothing");
    Ok(places)
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
